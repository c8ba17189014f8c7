package policies

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"go.yaml.in/yaml/v4"
)

// Setting is a choice that a tenant has. Its type is that of the field of
// context.settings of its name.
type Setting struct {
	Name  string
	Title string
	Type  string // Bool, Long or String
	// Default is what holds where a tenant has not chosen, and where a question
	// has no tenant: a bool, an int64 or a string.
	Default any
	// Min and Max bound a Long, both included. Nil means unbounded.
	Min, Max *int64
	// Values lists what a String may be. Empty means anything.
	Values []string
}

// Takes reports whether a value is one that the setting may have.
func (s *Setting) Takes(v any) bool {
	switch v := v.(type) {
	case bool:
		return s.Type == "Bool"
	case int64:
		return s.Type == "Long" && (s.Min == nil || v >= *s.Min) && (s.Max == nil || v <= *s.Max)
	case string:
		return s.Type == "String" && (len(s.Values) == 0 || slices.Contains(s.Values, v))
	}
	return false
}

// Range says what values the setting takes, for people.
func (s *Setting) Range() string {
	switch {
	case s.Type == "Bool":
		return "true or false"
	case s.Type == "Long" && s.Min != nil && s.Max != nil:
		return fmt.Sprintf("a whole number from %d to %d", *s.Min, *s.Max)
	case s.Type == "Long" && s.Min != nil:
		return fmt.Sprintf("a whole number from %d on", *s.Min)
	case s.Type == "Long" && s.Max != nil:
		return fmt.Sprintf("a whole number up to %d", *s.Max)
	case s.Type == "Long":
		return "a whole number"
	case len(s.Values) > 0:
		return "one of " + strings.Join(s.Values, ", ")
	}
	return "a text"
}

// EmergencyAccess says what an opened emergency gives.
type EmergencyAccess struct {
	Role    string   // whose capabilities are held at the node of the emergency
	Minutes int      // how long, at most 30
	Reasons []string // the codes that may be given, sorted
}

func (c *described) readSettings(d *document, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		s := &Setting{Name: name}
		said := false
		bound := func(to **int64) func(*yaml.Node) {
			return func(v *yaml.Node) { x := d.integer(v, -1<<53, 1<<53); *to = &x }
		}
		d.fields(v, map[string]func(*yaml.Node){
			"title": func(v *yaml.Node) { s.Title = d.text(v) },
			"default": func(v *yaml.Node) {
				s.Default, said = d.value(v), true
			},
			"min":    bound(&s.Min),
			"max":    bound(&s.Max),
			"values": func(v *yaml.Node) { s.Values = d.texts(v, d.text) },
		})
		if !said {
			d.add(k, CodeKeyMissing, "default is missing: what holds where a tenant has not chosen")
		}
		put(c, d, c.cat.Settings, name, s, k)
	})
}

func (c *described) readEmergency(d *document, n *yaml.Node) {
	x := &EmergencyAccess{}
	c.places[x] = at(d.file, n)
	d.fields(n, map[string]func(*yaml.Node){
		"role":    func(v *yaml.Node) { x.Role = d.text(v); c.places[key{x, "role"}] = at(d.file, v) },
		"minutes": func(v *yaml.Node) { x.Minutes = int(d.integer(v, 1, 30)) },
		"reasons": func(v *yaml.Node) { x.Reasons = d.texts(v, d.name) },
	})
	slices.Sort(x.Reasons)
	c.required(d, n, "role", x.Role)
	if x.Minutes == 0 {
		d.add(n, CodeKeyMissing, "minutes is missing: how long an emergency lasts")
	}
	if len(x.Reasons) == 0 {
		d.add(n, CodeKeyMissing, "reasons is missing: the codes that may be given")
	}
	c.cat.Emergency = x
}

// settings ties the settings of the catalogue to the record that the schema has
// in its context: they have the same names, and the defaults fit the types.
func (c *checker) settings(p *pack, record resolved.RecordType, file string, line int) {
	cat, desc := p.desc.cat, p.desc
	for _, name := range slices.Sorted(maps.Keys(record)) {
		s, attr := cat.Settings[string(name)], record[name]
		text := typeText(attr.Type)
		switch {
		case s == nil:
			c.diags.add(file, line, 1, CodeSettingUnknown, "the catalogue has no setting %s", name)
			continue
		case attr.Optional || text != "Bool" && text != "Long" && text != "String":
			c.diags.add(file, line, 1, CodeAttributeType, "the setting %s is a Bool, Long or String that is always there, not %s", name, text)
			continue
		}
		s.Type = text
	}
	for _, name := range sortedKeys(cat.Settings) {
		s := cat.Settings[name]
		if _, ok := record[types.String(name)]; !ok {
			c.diags.addAt(desc.places[cat.Settings[name]], CodeSettingUnknown, "the schema's context.settings has no %s", name)
			continue
		}
		switch {
		case s.Type != "Long" && (s.Min != nil || s.Max != nil), s.Type != "String" && len(s.Values) > 0:
			c.diags.addAt(desc.places[s], CodeValueInvalid, "min and max are for a Long, values for a String; %s is %s", name, s.Type)
		case !s.Takes(s.Default):
			c.diags.addAt(desc.places[s], CodeValueInvalid, "the default of %s is no value that it takes", name)
		}
	}
}
