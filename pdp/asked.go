package pdp

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// asked is a request as it is judged and recorded: what the catalogue declares
// and the caller may send, and nothing else. The verdict is a function of it,
// the policy set, the facts and the clock.
type asked struct {
	ID       string         `json:"id,omitempty"`
	Caller   string         `json:"caller"`
	Verified bool           `json:"verified"`
	Subject  askedSubject   `json:"subject"`
	Action   string         `json:"action"`
	Props    map[string]any `json:"actionProperties,omitempty"`
	Resource askedResource  `json:"resource"`
	Context  map[string]any `json:"context,omitempty"`
	Area     string         `json:"area,omitempty"`
	Grant    string         `json:"grant,omitempty"`
	Refusal  authz.Code     `json:"refusal,omitempty"`
	Ignored  []string       `json:"ignored,omitempty"` // names of what was sent and does not count
	// Performs lists the obligations that the caller carries out: an allow with
	// another one reaches it as a deny.
	Performs []string `json:"performs,omitempty"`
	// Draft is the grant, signature or emergency that is asked for and does not
	// exist yet.
	Draft *hierarchy.Event `json:"draft,omitempty"`
	// Declined is the code of what the request, the pack or the facts rule out,
	// whatever the policies say: the verdict is a deny with it.
	Declined authz.Code `json:"declined,omitempty"`
	// Hangs lists, for one of Ward's own objects, the nodes it concerns, and
	// Confers the capabilities that somebody would gain there.
	Hangs   []hierarchy.ID `json:"hangs,omitempty"`
	Confers []string       `json:"confers,omitempty"`
}

type askedSubject struct {
	Type      string         `json:"type"`
	ID        string         `json:"id"`
	Issuer    string         `json:"issuer,omitempty"`
	Assurance int            `json:"assurance"`
	Props     map[string]any `json:"properties,omitempty"`
}

type askedResource struct {
	Type  string         `json:"type"`
	ID    string         `json:"id"`
	Props map[string]any `json:"properties,omitempty"`
}

// maxIgnored bounds how many undeclared names a record lists.
const maxIgnored = 16

// convert reads a request against a catalogue. It never fails: what is wrong
// with a request shows when it is judged.
func convert(r *authz.Request, c *policies.Catalogue) asked {
	bad := false
	text := func(s string) string { // JSON holds UTF-8 alone
		if utf8.ValidString(s) {
			return s
		}
		bad = true
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	a := asked{
		ID: text(r.ID), Caller: text(r.Caller.Name), Verified: r.Subject.IsVerified(), Performs: r.Caller.Performs,
		Subject: askedSubject{Type: text(r.Subject.Type), ID: text(r.Subject.ID), Issuer: text(r.Subject.Issuer), Assurance: r.Subject.Assurance},
		Action:  text(r.Action.Name), Resource: askedResource{Type: text(r.Resource.Type), ID: text(r.Resource.ID)},
		Area: text(r.Area), Grant: text(r.Grant), Refusal: r.Refusal,
	}
	if bad && a.Refusal == "" {
		a.Refusal = authz.BadRequest
	}
	if a.Refusal != "" {
		return a
	}
	keep := func(prefix string, sent map[string]any, declared func(name string) (counts bool)) map[string]any {
		var kept map[string]any
		for name, v := range sent {
			if declared(name) {
				if kept == nil {
					kept = map[string]any{}
				}
				p, ok := plain(v)
				bad = bad || !ok
				kept[name] = p
			} else {
				a.Ignored = append(a.Ignored, prefix+strings.ToValidUTF8(name, "\uFFFD"))
			}
		}
		return kept
	}
	rt := c.Resources[a.Resource.Type]
	authority := rt != nil && slices.Contains(rt.Authority, a.Caller)
	counts := func(attr *policies.Attribute, fallback bool) bool {
		if attr == nil || attr.From != policies.FromSent {
			return false
		}
		if len(attr.Authority) > 0 {
			return slices.Contains(attr.Authority, a.Caller)
		}
		return fallback
	}
	if pt := c.Principals[a.Subject.Type]; pt != nil {
		a.Subject.Props = keep("subject.", r.Subject.Properties, func(n string) bool { return counts(pt.Attributes[n], a.Verified) })
	} else {
		keep("subject.", r.Subject.Properties, func(string) bool { return false })
	}
	a.Resource.Props = keep("resource.", r.Resource.Properties, func(n string) bool {
		if rt == nil {
			return false
		}
		if authority && (n == rt.Instant && n != "" || slices.ContainsFunc(rt.Anchors, func(x policies.Anchor) bool { return x.Property == n })) {
			return true
		}
		return counts(rt.Attributes[n], authority)
	})
	act := c.Actions[a.Action]
	a.Props = keep("action.", r.Action.Properties, func(n string) bool { return act != nil && counts(act.Properties[n], authority) })
	a.Context = keep("context.", r.Context, func(n string) bool { return act != nil && counts(act.Context[n], authority) })
	sort.Strings(a.Ignored)
	if len(a.Ignored) > maxIgnored {
		a.Ignored = append(a.Ignored[:maxIgnored], "…")
	}
	if bad { // a value that no protocol carries: nothing of it is guessed at
		a.Refusal = authz.BadRequest
		a.Subject.Props, a.Resource.Props, a.Props, a.Context = nil, nil, nil, nil
	}
	return a
}

// plain turns a sent value into the types that survive a JSON round trip
// unchanged: bool, string, json.Number, nil, []any, map[string]any. It reports
// false for a value of any other type, however deep: taking it for null would
// say that there is none.
func plain(v any) (any, bool) {
	switch v := v.(type) {
	case nil, bool:
		return v, true
	case string:
		return v, utf8.ValidString(v)
	case json.Number:
		return v, json.Valid([]byte(v))
	case int64:
		return json.Number(strconv.FormatInt(v, 10)), true
	case int:
		return json.Number(strconv.Itoa(v)), true
	case float64:
		b, err := json.Marshal(v)
		return json.Number(b), err == nil
	case []string:
		out, all := make([]any, len(v)), true
		for i, x := range v {
			out[i], all = x, all && utf8.ValidString(x)
		}
		return out, all
	case []any:
		out, all := make([]any, len(v)), true
		for i, x := range v {
			p, ok := plain(x)
			out[i], all = p, all && ok
		}
		return out, all
	case map[string]any:
		out, all := make(map[string]any, len(v)), true
		for k, x := range v {
			p, ok := plain(x)
			out[k], all = p, all && ok && utf8.ValidString(k)
		}
		return out, all
	}
	return nil, false
}

// fill adds to what policies read the declared attributes of one source. It
// returns attribute_missing when a required one is not among the values, else
// attribute_invalid when one has another type, else "", and what is at fault.
func fill(into map[string]policies.Value, declared map[string]*policies.Attribute, from policies.Source, values map[string]any) (code authz.Code, fault string) {
	at := "" // the attribute at fault: of several the first by name, whatever the order of the map
	for name, attr := range declared {
		if attr.From != from {
			continue
		}
		v := values[name]
		if v == nil {
			if attr.Required && (code != authz.AttributeMissing || name < at) {
				code, at = authz.AttributeMissing, name
			}
			continue
		}
		value, ok := attribute(attr, v)
		if !ok && code != authz.AttributeMissing && (code == "" || name < at) {
			code, at = authz.AttributeInvalid, name
		}
		into[name] = value
	}
	switch code {
	case authz.AttributeMissing:
		fault = fmt.Sprintf("the attribute %s was not given by its authority", at)
	case authz.AttributeInvalid:
		fault = fmt.Sprintf("the attribute %s must be %s", at, declared[at].Type)
	}
	return code, fault
}

// fills is fill, noting the first fault.
func (j *judging) fills(into map[string]policies.Value, declared map[string]*policies.Attribute, from policies.Source, values map[string]any) authz.Code {
	code, fault := fill(into, declared, from, values)
	return j.faulty(code, fault)
}

// faulty notes what is at fault, for explanations, and returns the code.
func (j *judging) faulty(code authz.Code, fault string) authz.Code {
	if code != "" && j.fault == "" {
		j.fault = fault
	}
	return code
}

// attribute turns a plain value, sent or stored as a fact, into a policy value
// of the attribute's declared type. It reports false where the value is of
// another type or outside its enumeration.
func attribute(attr *policies.Attribute, v any) (policies.Value, bool) {
	return typed(attr.Type, attr.Enum, v)
}

func typed(cedarType string, enum []string, v any) (policies.Value, bool) {
	if inner, ok := cutSet(cedarType); ok {
		var items []any
		switch v := v.(type) {
		case []any:
			items = v
		case []string:
			for _, s := range v {
				items = append(items, s)
			}
		default:
			return nil, false
		}
		out := make([]policies.Value, 0, len(items))
		for _, item := range items {
			x, ok := typed(inner, enum, item)
			if !ok {
				return nil, false
			}
			out = append(out, x)
		}
		return out, true
	}
	switch cedarType {
	case "Bool":
		b, ok := v.(bool)
		return b, ok
	case "Long":
		return asLong(v)
	case "String":
		s, ok := v.(string)
		return s, ok
	case "datetime":
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		t, err := ParseTime(s, "", false)
		return policies.Datetime(t), err == nil
	case "ipaddr":
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		return parseIP(s)
	}
	s, ok := v.(string)
	if !ok || len(enum) > 0 && !slices.Contains(enum, s) {
		return nil, false
	}
	return policies.Ref{Type: cedarType, ID: s}, true
}

func cutSet(t string) (string, bool) {
	if len(t) > 5 && t[:4] == "Set<" && t[len(t)-1] == '>' {
		return t[4 : len(t)-1], true
	}
	return "", false
}

func asLong(v any) (policies.Value, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), true
		}
	}
	return nil, false
}
