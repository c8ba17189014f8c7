package policies

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// document reads one YAML file strictly: a key that nobody asks for, a key
// given twice, an alias, a value of another type are findings with their line.
type document struct {
	file  string
	diags *Diagnostics
}

// maxYAMLDepth bounds maps and lists within one another.
const maxYAMLDepth = 32

func (d *document) add(n *yaml.Node, code, format string, args ...any) {
	d.diags.add(d.file, n.Line, n.Column, code, format, args...)
}

// parse returns the root of the file's only document, or nil.
func (d *document) parse(src []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(src), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxYAMLDepth))))
	if err != nil {
		d.diags.add(d.file, 1, 1, CodeYAMLInvalid, "not YAML")
		return nil
	}
	var root, more yaml.Node
	switch err := loader.Load(&root); {
	case errors.Is(err, io.EOF):
		d.diags.add(d.file, 1, 1, CodeYAMLInvalid, "the file is empty")
		return nil
	case err != nil:
		d.fail(err)
		return nil
	}
	if err := loader.Load(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			d.fail(err)
		} else {
			d.add(&more, CodeYAMLInvalid, "the file has a second document")
		}
		return nil
	}
	n := &root
	if n.Kind == yaml.DocumentNode {
		if len(n.Content) != 1 {
			d.diags.add(d.file, 1, 1, CodeYAMLInvalid, "the file is empty")
			return nil
		}
		n = n.Content[0]
	}
	if !d.plain(n, 0) {
		return nil
	}
	return n
}

func (d *document) fail(err error) {
	line, column := 1, 1
	text := "not YAML"
	var le *yaml.LoadError
	if errors.As(err, &le) {
		text = le.Message
		if le.Mark.Line > 0 {
			line, column = le.Mark.Line, le.Mark.Column
		}
	}
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	d.diags.add(d.file, line, column, CodeYAMLInvalid, "%s", text)
}

// plain refuses aliases, anchors, tags, repeated keys and deep nesting.
func (d *document) plain(n *yaml.Node, depth int) bool {
	switch {
	case depth > maxYAMLDepth:
		d.add(n, CodeNestingTooDeep, "maps and lists nest deeper than %d", maxYAMLDepth)
		return false
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.add(n, CodeYAMLInvalid, "anchors and aliases are not allowed")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		d.add(n, CodeYAMLInvalid, "tags are not allowed")
		return false
	}
	ok := true
	if n.Kind == yaml.MappingNode {
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode {
				d.add(k, CodeValueInvalid, "a key must be a word")
				ok = false
				continue
			}
			if line, twice := seen[k.Value]; twice {
				d.add(k, CodeKeyDuplicate, "%q is given twice, first in line %d", k.Value, line)
				ok = false
			}
			seen[k.Value] = k.Line
		}
	}
	for _, c := range n.Content {
		ok = d.plain(c, depth+1) && ok
	}
	return ok
}

// each calls f for every entry of a map.
func (d *document) each(n *yaml.Node, f func(key string, k, v *yaml.Node)) {
	if n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.add(n, CodeValueInvalid, "want a map")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i].Value, n.Content[i], n.Content[i+1])
	}
}

// fields reads a map with known keys.
func (d *document) fields(n *yaml.Node, known map[string]func(v *yaml.Node)) {
	d.each(n, func(key string, k, v *yaml.Node) {
		f, ok := known[key]
		if !ok {
			d.add(k, CodeKeyUnknown, "%q is not a key here; known: %s", key, strings.Join(sortedKeys(known), ", "))
			return
		}
		f(v)
	})
}

// items calls f for every element of a list.
func (d *document) items(n *yaml.Node, f func(v *yaml.Node)) {
	if n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.add(n, CodeValueInvalid, "want a list")
		return
	}
	for _, v := range n.Content {
		f(v)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (d *document) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		d.add(n, CodeValueInvalid, "want a word")
		return ""
	}
	return n.Value
}

// name reads a word that can name something in a pack.
func (d *document) name(n *yaml.Node) string {
	s := d.text(n)
	if s != "" && !isName(s) {
		d.add(n, CodeValueInvalid, "want a letter followed by letters, digits, '.', '-' and '_', at most 64 bytes")
		return ""
	}
	return s
}

func (d *document) boolean(n *yaml.Node) bool {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		if b, err := strconv.ParseBool(strings.ToLower(n.Value)); err == nil {
			return b
		}
	}
	d.add(n, CodeValueInvalid, "want true or false")
	return false
}

func (d *document) integer(n *yaml.Node, low, high int64) int64 {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && i >= low && i <= high {
			return i
		}
	}
	d.add(n, CodeValueInvalid, "want a whole number from %d to %d", low, high)
	return low
}

// zone reads the name of a time zone, such as America/Chicago.
func (d *document) zone(n *yaml.Node) string {
	s := d.text(n)
	if s == "" || s == "Local" {
		d.add(n, CodeValueInvalid, "want a time zone such as America/Chicago")
		return ""
	}
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '/' || c == '_' || c == '-' || c == '+') {
			d.add(n, CodeValueInvalid, "want a time zone such as America/Chicago")
			return ""
		}
	}
	return s
}

// texts reads a list of words.
func (d *document) texts(n *yaml.Node, read func(*yaml.Node) string) []string {
	var out []string
	d.items(n, func(v *yaml.Node) {
		if s := read(v); s != "" {
			out = append(out, s)
		}
	})
	return out
}

// value reads anything: nil, bool, int64, string, []any or map[string]any. A
// date or time stays the text it is written as.
func (d *document) value(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		d.each(n, func(key string, _, v *yaml.Node) { m[key] = d.value(v) })
		return m
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for _, v := range n.Content {
			s = append(s, d.value(v))
		}
		return s
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return d.boolean(n)
	case "!!int":
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil {
			d.add(n, CodeValueInvalid, "want a whole decimal number of 64 bits")
		}
		return i
	case "!!float":
		d.add(n, CodeValueInvalid, "fractions are not allowed; write a string")
		return nil
	}
	return n.Value
}

// properties reads a map of anything.
func (d *document) properties(n *yaml.Node) map[string]any {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.add(n, CodeValueInvalid, "want a map")
		return nil
	}
	return d.value(n).(map[string]any)
}
