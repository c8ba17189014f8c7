package policies

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ward-authz/ward/pdp/authz"
)

// readCases reads one tests/*.yaml.
func readCases(file, module string, src []byte, diags *Diagnostics) []Case {
	d := &document{file: file, diags: diags}
	root := d.parse(src)
	if root == nil {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		d.add(root, CodeValueInvalid, "want a map")
		return nil
	}
	var facts []Fact
	var cases []Case
	names := map[string]int{}
	d.fields(root, map[string]func(*yaml.Node){
		"facts": func(n *yaml.Node) {
			d.items(n, func(v *yaml.Node) {
				if v.Kind != yaml.MappingNode || len(v.Content) != 2 {
					d.add(v, CodeValueInvalid, "want one kind of fact and its value, such as node: {id: \"Tenant:acme\"}")
					return
				}
				facts = append(facts, Fact{Line: v.Line, Kind: v.Content[0].Value, Value: d.properties(v.Content[1])})
			})
		},
		"tests": func(n *yaml.Node) {
			d.items(n, func(v *yaml.Node) {
				c := Case{File: file, Line: v.Line, Module: module, Assurance: 1}
				readCase(d, v, &c)
				if line, twice := names[c.Name]; twice {
					d.add(v, CodeKeyDuplicate, "a test of this name stands in line %d", line)
				}
				names[c.Name] = c.Line
				cases = append(cases, c)
			})
		},
	})
	for i := range cases {
		cases[i].Facts = facts
	}
	return cases
}

func readCase(d *document, n *yaml.Node, c *Case) {
	has := map[string]bool{}
	said := func(key string, f func(*yaml.Node)) func(*yaml.Node) {
		return func(v *yaml.Node) { has[key] = true; f(v) }
	}
	d.fields(n, map[string]func(*yaml.Node){
		"name": said("name", func(v *yaml.Node) { c.Name = d.text(v) }),
		"at": said("at", func(v *yaml.Node) {
			t, err := time.Parse(time.RFC3339Nano, d.text(v))
			if err != nil {
				d.add(v, CodeValueInvalid, "want an instant such as 2026-06-01T12:00:00Z")
			}
			c.At = t.UTC()
		}),
		"caller":    said("caller", func(v *yaml.Node) { c.Caller = d.text(v) }),
		"subject":   said("subject", func(v *yaml.Node) { c.Subject = readCaseEntity(d, v) }),
		"assurance": func(v *yaml.Node) { c.Assurance = int(d.integer(v, 0, 3)) },
		"action": said("action", func(v *yaml.Node) {
			if v.Kind == yaml.ScalarNode {
				c.Action = d.text(v)
				return
			}
			d.fields(v, map[string]func(*yaml.Node){
				"name":       func(v *yaml.Node) { c.Action = d.text(v) },
				"properties": func(v *yaml.Node) { c.ActionProperties = d.properties(v) },
			})
		}),
		"resource": said("resource", func(v *yaml.Node) { c.Resource = readCaseEntity(d, v) }),
		"context":  func(v *yaml.Node) { c.Context = d.properties(v) },
		"area":     func(v *yaml.Node) { c.Area = d.text(v) },
		"grant":    func(v *yaml.Node) { c.Grant = d.text(v) },
		"expect":   said("expect", func(v *yaml.Node) { readExpect(d, v, &c.Expect) }),
	})
	for _, key := range []string{"name", "at", "caller", "subject", "action", "resource", "expect"} {
		if !has[key] {
			d.add(n, CodeKeyMissing, "%s is missing", key)
		}
	}
}

// readCaseEntity reads type:id, or {type: …, id: …, properties: {…}}.
func readCaseEntity(d *document, n *yaml.Node) CaseEntity {
	var e CaseEntity
	if n.Kind == yaml.ScalarNode {
		var ok bool
		if e.Type, e.ID, ok = strings.Cut(d.text(n), ":"); !ok {
			d.add(n, CodeValueInvalid, "want type:id, such as user:dana")
		}
		return e
	}
	d.fields(n, map[string]func(*yaml.Node){
		"type":       func(v *yaml.Node) { e.Type = d.text(v) },
		"id":         func(v *yaml.Node) { e.ID = d.text(v) },
		"properties": func(v *yaml.Node) { e.Properties = d.properties(v) },
	})
	if e.Type == "" {
		d.add(n, CodeKeyMissing, "type is missing")
	}
	if e.ID == "" {
		d.add(n, CodeKeyMissing, "id is missing")
	}
	return e
}

func readExpect(d *document, n *yaml.Node, e *Expect) {
	decision := false
	list := func(to *[]string) func(*yaml.Node) {
		return func(v *yaml.Node) {
			*to = append([]string{}, d.texts(v, d.text)...)
			slices.Sort(*to)
		}
	}
	d.fields(n, map[string]func(*yaml.Node){
		"decision": func(v *yaml.Node) {
			decision = true
			switch d.text(v) {
			case "allow":
				e.Decision = authz.Allow
			case "deny":
				e.Decision = authz.Deny
			default:
				d.add(v, CodeValueInvalid, "want allow or deny")
			}
		},
		"code":        func(v *yaml.Node) { e.Code = authz.Code(d.text(v)) },
		"policies":    list(&e.Policies),
		"obligations": list(&e.Obligations),
	})
	if !decision {
		d.add(n, CodeKeyMissing, "decision is missing: allow or deny")
	}
}
