package policies

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// place is where something stands in a pack.
type place struct {
	file         string
	line, column int
}

func at(file string, n *yaml.Node) place { return place{file, n.Line, n.Column} }

func (d *Diagnostics) addAt(p place, code, format string, args ...any) {
	d.add(p.file, p.line, p.column, code, format, args...)
}

// described is a catalogue as it is read, before the schema has a say: the
// Catalogue without what the schema adds, and where everything stands.
type described struct {
	cat   *Catalogue
	diags *Diagnostics
	// builtin marks Ward's own catalogue.
	builtin bool
	places  map[any]place // by the pointer of a catalogue entry, or by key
	sources []source
	// actionModule says which module declares an action; "" is the base.
	actionModule map[string]string
}

// source is one declared origin of an attribute.
type source struct {
	owner     any // *PrincipalType, *NodeType, *ResourceType, *Action (property) or nil (context)
	name      string
	from      Source
	authority []string
	place     place
}

func newDescribed(diags *Diagnostics) *described {
	return &described{
		diags: diags, places: map[any]place{}, actionModule: map[string]string{},
		cat: &Catalogue{
			Principals: map[string]*PrincipalType{}, Nodes: map[string]*NodeType{}, Edges: map[string]*EdgeKind{},
			Settings: map[string]*Setting{}, GrantTypes: map[string]*GrantType{}, Resources: map[string]*ResourceType{}, Actions: map[string]*Action{},
			Context: map[string]*Attribute{}, Modules: map[string]*Module{}, Features: map[string]*Feature{}, Routes: map[string]*Route{},
		},
	}
}

// read adds one catalogue.yaml: the base's (module "") or a module's.
func (c *described) read(file, module string, src []byte) {
	d := &document{file: file, diags: c.diags}
	root := d.parse(src)
	if root == nil {
		return
	}
	if root.Kind != yaml.MappingNode {
		d.add(root, CodeValueInvalid, "want a map")
		return
	}
	keys := map[string]func(*yaml.Node){
		"nodes":     func(n *yaml.Node) { c.readNodes(d, n) },
		"edges":     func(n *yaml.Node) { c.readEdges(d, n) },
		"resources": func(n *yaml.Node) { c.readResources(d, module, n) },
		"actions":   func(n *yaml.Node) { c.readActions(d, module, n) },
		"features":  func(n *yaml.Node) { c.readFeatures(d, module, n) },
		"routes":    func(n *yaml.Node) { c.readRoutes(d, module, n) },
	}
	title := ""
	if module == "" {
		keys["name"] = func(n *yaml.Node) { c.cat.Name = d.name(n) }
		keys["namespace"] = func(n *yaml.Node) { c.cat.Namespace = d.name(n); c.places["namespace"] = at(file, n) }
		keys["principals"] = func(n *yaml.Node) { c.readPrincipals(d, n) }
		keys["links"] = func(n *yaml.Node) {
			d.fields(n, map[string]func(*yaml.Node){"self": func(v *yaml.Node) {
				c.cat.SelfRole = d.text(v)
				c.places["links.self"] = at(file, v)
			}})
		}
		keys["tenantRoles"] = func(n *yaml.Node) {
			c.places["tenantRoles"] = at(file, n)
			c.cat.TenantRoles = d.texts(n, d.name)
			slices.Sort(c.cat.TenantRoles)
		}
		keys["familyGrants"] = func(n *yaml.Node) {
			c.places["familyGrants"] = at(file, n)
			c.cat.FamilyGrants = d.texts(n, d.name)
			slices.Sort(c.cat.FamilyGrants)
		}
		keys["grantTypes"] = func(n *yaml.Node) { c.readGrantTypes(d, n) }
		keys["settings"] = func(n *yaml.Node) { c.readSettings(d, n) }
		keys["runOut"] = func(n *yaml.Node) { c.cat.RunOut = d.name(n); c.places["runOut"] = at(file, n) }
		keys["emergency"] = func(n *yaml.Node) { c.readEmergency(d, n) }
		keys["law"] = func(n *yaml.Node) { c.readLaw(d, n) }
		keys["context"] = func(n *yaml.Node) { c.readSources(d, nil, n) }
		keys["modules"] = func(n *yaml.Node) {
			c.entries(d, n, func(id string, k, v *yaml.Node) {
				m := &Module{ID: id}
				d.fields(v, map[string]func(*yaml.Node){"title": func(v *yaml.Node) { m.Title = d.text(v) }})
				put(c, d, c.cat.Modules, id, m, k)
			})
		}
	} else {
		keys["title"] = func(n *yaml.Node) { title = d.text(n) }
	}
	d.fields(root, keys)
	if module == "" {
		if c.cat.Name == "" {
			d.add(root, CodeKeyMissing, "name is missing")
		}
		if c.cat.Namespace == "" {
			d.add(root, CodeKeyMissing, "namespace is missing")
		}
		return
	}
	put(c, d, c.cat.Modules, module, &Module{ID: module, Title: title}, root)
}

// put adds an entry and refuses a second one of the same name.
func put[T any](c *described, d *document, m map[string]*T, name string, v *T, k *yaml.Node) {
	if name == "" {
		return
	}
	if old, ok := m[name]; ok {
		p := c.places[old]
		d.add(k, CodeKeyDuplicate, "%q is declared already, at %s:%d", name, p.file, p.line)
		return
	}
	m[name] = v
	c.places[v] = at(d.file, k)
}

// entries calls f for every entry of a map whose keys are names.
func (c *described) entries(d *document, n *yaml.Node, f func(name string, k, v *yaml.Node)) {
	d.each(n, func(key string, k, v *yaml.Node) {
		if !isName(key) {
			d.add(k, CodeValueInvalid, "want a letter followed by letters, digits, '.', '-' and '_', at most 64 bytes")
			return
		}
		f(key, k, v)
	})
}

func (c *described) required(d *document, k *yaml.Node, what, value string) {
	if value == "" {
		d.add(k, CodeKeyMissing, "%s is missing", what)
	}
}

// entity qualifies an entity name with the pack's namespace, which the schema
// check does later: here the bare name stands.
func (c *described) readPrincipals(d *document, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		p := &PrincipalType{Name: name, Attributes: map[string]*Attribute{}}
		d.fields(v, map[string]func(*yaml.Node){
			"entity":     func(v *yaml.Node) { p.Entity = d.name(v) },
			"attributes": func(v *yaml.Node) { c.readSources(d, p, v) },
		})
		c.required(d, k, "entity", p.Entity)
		put(c, d, c.cat.Principals, name, p, k)
	})
}

func (c *described) readNodes(d *document, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		t := &NodeType{Name: name, Entity: name, Attributes: map[string]*Attribute{}}
		d.fields(v, map[string]func(*yaml.Node){
			"entity":     func(v *yaml.Node) { t.Entity = d.name(v) },
			"owned":      func(v *yaml.Node) { t.Owned = d.boolean(v) },
			"attributes": func(v *yaml.Node) { c.readSources(d, t, v) },
		})
		switch name {
		case "Operator", "Tenant", "Network", "Person":
			if t.Owned {
				d.add(k, CodeValueInvalid, "%s cannot be owned by a tenant", name)
			}
		}
		put(c, d, c.cat.Nodes, name, t, k)
	})
}

func (c *described) readEdges(d *document, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		e := &EdgeKind{Name: name}
		said := false
		d.fields(v, map[string]func(*yaml.Node){
			"confers": func(v *yaml.Node) { e.Confers, said = d.boolean(v), true },
			"from":    func(v *yaml.Node) { e.From = d.texts(v, d.name) },
			"to":      func(v *yaml.Node) { e.To = d.texts(v, d.name) },
		})
		if !said {
			d.add(k, CodeKeyMissing, "confers is missing: an edge kind says whether it gives access")
		}
		if e.Confers && (len(e.From) == 0 || len(e.To) == 0) {
			d.add(k, CodeEdgeTypesMissing, "from and to are missing: what confers names the node types that it ties, so that anchors can be compared")
		}
		put(c, d, c.cat.Edges, name, e, k)
	})
}

func (c *described) readGrantTypes(d *document, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		g := &GrantType{Name: name}
		d.fields(v, map[string]func(*yaml.Node){
			"endsAtMajority": func(v *yaml.Node) { g.EndsAtMajority = d.boolean(v) },
			"maxDepth":       func(v *yaml.Node) { g.MaxDepth = int(d.integer(v, 0, 3)) },
			"needs": func(v *yaml.Node) {
				g.Needs = d.texts(v, func(v *yaml.Node) string {
					s := d.text(v)
					switch s {
					case "grantor", "subject", "assent", "co-signer", "verifier":
						return s
					}
					d.add(v, CodeValueInvalid, "want grantor, subject, assent, co-signer or verifier")
					return ""
				})
				slices.Sort(g.Needs)
			},
			"capabilities": func(v *yaml.Node) {
				g.Capabilities = d.texts(v, d.name)
				slices.Sort(g.Capabilities)
			},
		})
		put(c, d, c.cat.GrantTypes, name, g, k)
	})
}

func (c *described) readLaw(d *document, n *yaml.Node) {
	seen := map[string]bool{}
	d.items(n, func(v *yaml.Node) {
		var l Law
		d.fields(v, map[string]func(*yaml.Node){
			"jurisdiction": func(v *yaml.Node) { l.Jurisdiction = d.name(v) },
			"majority":     func(v *yaml.Node) { l.Majority = int(d.integer(v, 1, 100)) },
			"assent":       func(v *yaml.Node) { l.Assent = int(d.integer(v, 1, 100)) },
			"zone":         func(v *yaml.Node) { l.Zone = d.zone(v) },
			"source":       func(v *yaml.Node) { l.Source = d.text(v) },
		})
		c.required(d, v, "jurisdiction", l.Jurisdiction)
		c.required(d, v, "zone", l.Zone)
		c.required(d, v, "source", l.Source)
		if l.Majority == 0 {
			d.add(v, CodeKeyMissing, "majority is missing")
		}
		if seen[l.Jurisdiction] {
			d.add(v, CodeKeyDuplicate, "%q has two rows", l.Jurisdiction)
		}
		seen[l.Jurisdiction] = true
		c.cat.Law = append(c.cat.Law, l)
	})
	slices.SortStableFunc(c.cat.Law, func(a, b Law) int { return strings.Compare(a.Jurisdiction, b.Jurisdiction) })
}

func (c *described) readResources(d *document, module string, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		r := &ResourceType{Name: name, Module: module, Attributes: map[string]*Attribute{}}
		places := map[string]place{}
		word := func(key string, to *string, read func(*yaml.Node) string) func(*yaml.Node) {
			return func(v *yaml.Node) { *to = read(v); places[key] = at(d.file, v) }
		}
		kind := ""
		d.fields(v, map[string]func(*yaml.Node){
			"kind":          word("kind", &kind, d.text),
			"entity":        word("entity", &r.Entity, d.name),
			"module":        word("module", &r.Module, d.name),
			"node":          word("node", &r.Node, d.name),
			"owner":         word("owner", &r.Owner, d.name),
			"ownerOptional": func(v *yaml.Node) { r.OwnerOptional = d.boolean(v); places["ownerOptional"] = at(d.file, v) },
			"instant":       word("instant", &r.Instant, d.name),
			"zone":          word("zone", &r.Zone, d.zone),
			"hangsFrom":     word("hangsFrom", &r.HangsFrom, d.text),
			"authority":     func(v *yaml.Node) { r.Authority = d.texts(v, d.text); places["authority"] = at(d.file, v) },
			"anchors": func(v *yaml.Node) {
				places["anchors"] = at(d.file, v)
				c.entries(d, v, func(prop string, k, v *yaml.Node) {
					r.Anchors = append(r.Anchors, Anchor{Property: prop, Type: d.name(v)})
					c.places[anchorKey{r, prop}] = at(d.file, v)
				})
				slices.SortFunc(r.Anchors, func(a, b Anchor) int { return strings.Compare(a.Property, b.Property) })
			},
			"attributes": func(v *yaml.Node) { c.readSources(d, r, v) },
		})
		c.required(d, k, "entity", r.Entity)
		r.Kind = ResourceKind(kind)
		var allowed []string
		switch r.Kind {
		case KindSent:
			allowed = []string{"owner", "ownerOptional", "instant", "zone", "hangsFrom", "authority", "anchors"}
			if len(r.Authority) == 0 {
				d.add(k, CodeKeyMissing, "authority is missing: a sent type names the callers that may send it")
			}
			if (len(r.Anchors) == 0) == (r.HangsFrom == "") {
				d.add(k, CodeKeyMissing, "a sent type has either anchors or hangsFrom")
			}
			if r.Owner != "" && !slices.ContainsFunc(r.Anchors, func(a Anchor) bool { return a.Property == r.Owner }) {
				d.diags.addAt(places["owner"], CodeValueInvalid, "owner must be one of the anchors")
			}
			if r.Owner == "" && r.OwnerOptional {
				d.diags.addAt(places["ownerOptional"], CodeValueInvalid, "ownerOptional without owner says nothing")
			}
			if r.Zone == "" {
				r.Zone = "UTC"
			} else if r.Instant == "" {
				d.diags.addAt(places["zone"], CodeValueInvalid, "zone without instant says nothing")
			}
		case KindGraph:
			allowed = []string{"node"}
			c.required(d, k, "node", r.Node)
		case KindFeature, KindRoute, KindGrant, KindEmergency:
		case KindWard:
			if !c.builtin {
				d.diags.addAt(places["kind"], CodeValueInvalid, "kind ward is for Ward's own pack")
			}
		case "":
			d.add(k, CodeKeyMissing, "kind is missing: graph, sent, feature, route, grant or emergency")
		default:
			d.diags.addAt(places["kind"], CodeValueInvalid, "want graph, sent, feature, route, grant or emergency")
		}
		for _, key := range []string{"node", "owner", "ownerOptional", "instant", "zone", "hangsFrom", "authority", "anchors"} {
			if p, ok := places[key]; ok && r.Kind != "" && !slices.Contains(allowed, key) {
				d.diags.addAt(p, CodeKeyUnknown, "%q says nothing for a resource of kind %s", key, r.Kind)
			}
		}
		c.places[key{r, "module"}] = places["module"]
		c.places[key{r, "node"}] = places["node"]
		c.places[key{r, "hangsFrom"}] = places["hangsFrom"]
		put(c, d, c.cat.Resources, name, r, k)
	})
}

// key names a part of a catalogue entry, anchorKey an anchor of a resource.
type key struct {
	of   any
	part string
}
type anchorKey struct {
	of       *ResourceType
	property string
}

func (c *described) readActions(d *document, module string, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		a := &Action{Name: name, Properties: map[string]*Attribute{}}
		d.fields(v, map[string]func(*yaml.Node){
			"properties": func(v *yaml.Node) { c.readSources(d, a, v) },
		})
		if _, ok := c.cat.Actions[name]; !ok {
			c.actionModule[name] = module
		}
		put(c, d, c.cat.Actions, name, a, k)
	})
}

func (c *described) readFeatures(d *document, module string, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		f := &Feature{ID: name, Module: module}
		where := k
		keys := map[string]func(*yaml.Node){
			"capability": func(v *yaml.Node) { f.Capability = d.name(v) },
			"title":      func(v *yaml.Node) { f.Title = d.text(v) },
		}
		if module == "" {
			keys["module"] = func(v *yaml.Node) { f.Module, where = d.name(v), v }
		}
		d.fields(v, keys)
		c.required(d, k, "module", f.Module)
		c.required(d, k, "capability", f.Capability)
		c.places[key{f, "module"}] = at(d.file, where)
		put(c, d, c.cat.Features, name, f, k)
	})
}

func (c *described) readRoutes(d *document, module string, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		r := &Route{ID: name, Module: module}
		where := map[string]*yaml.Node{"module": k, "action": k, "resource": k}
		keys := map[string]func(*yaml.Node){
			"capability": func(v *yaml.Node) { r.Capability = d.name(v) },
			"method": func(v *yaml.Node) {
				if r.Method = d.text(v); !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, r.Method) {
					d.add(v, CodeValueInvalid, "want GET, HEAD, POST, PUT, PATCH or DELETE")
				}
			},
			"path": func(v *yaml.Node) {
				if r.Path = d.text(v); !strings.HasPrefix(r.Path, "/") {
					d.add(v, CodeValueInvalid, "a path starts with '/'")
				}
			},
			"scope":    func(v *yaml.Node) { r.Scope = d.text(v) },
			"write":    func(v *yaml.Node) { r.Write = d.boolean(v) },
			"action":   func(v *yaml.Node) { r.Action, where["action"] = d.name(v), v },
			"resource": func(v *yaml.Node) { r.Resource, where["resource"] = d.name(v), v },
		}
		if module == "" {
			keys["module"] = func(v *yaml.Node) { r.Module, where["module"] = d.name(v), v }
		}
		d.fields(v, keys)
		for _, need := range [][2]string{{"module", r.Module}, {"capability", r.Capability}, {"method", r.Method},
			{"path", r.Path}, {"action", r.Action}, {"resource", r.Resource}} {
			c.required(d, k, need[0], need[1])
		}
		for part, n := range where {
			c.places[key{r, part}] = at(d.file, n)
		}
		put(c, d, c.cat.Routes, name, r, k)
	})
}

// readSources reads a map of attribute: source, where the source is a word or
// {from: word, authority: [caller, …]}.
func (c *described) readSources(d *document, owner any, n *yaml.Node) {
	c.entries(d, n, func(name string, k, v *yaml.Node) {
		s := source{owner: owner, name: name, place: at(d.file, k)}
		from := func(v *yaml.Node) {
			s.from = Source(d.text(v))
			if s.from != FromSent && s.from != FromFact && s.from != FromWard {
				d.add(v, CodeValueInvalid, "want sent, fact or ward")
			}
		}
		if v.Kind == yaml.ScalarNode {
			from(v)
		} else {
			d.fields(v, map[string]func(*yaml.Node){
				"from":      from,
				"authority": func(v *yaml.Node) { s.authority = d.texts(v, d.text) },
			})
			c.required(d, k, "from", string(s.from))
		}
		if len(s.authority) > 0 && s.from != FromSent {
			d.add(k, CodeValueInvalid, "authority says nothing for an attribute that is not sent")
		}
		_, isAction := owner.(*Action)
		if (owner == nil || isAction) && s.from != FromSent && s.from != "" {
			d.add(k, CodeValueInvalid, "what Ward itself puts into the context is not declared; want sent")
		}
		c.sources = append(c.sources, s)
	})
}

// readRoles adds a roles.yaml: role: {capabilities: […], includes: […]}.
func (c *described) readRoles(file string, src []byte) {
	d := &document{file: file, diags: c.diags}
	root := d.parse(src)
	if root == nil {
		return
	}
	c.entries(d, root, func(name string, k, v *yaml.Node) {
		r := Role{Name: name}
		d.fields(v, map[string]func(*yaml.Node){
			"capabilities": func(v *yaml.Node) { r.Capabilities = d.texts(v, d.name) },
			"includes":     func(v *yaml.Node) { r.Includes = d.texts(v, d.name) },
		})
		slices.Sort(r.Capabilities)
		slices.Sort(r.Includes)
		if slices.ContainsFunc(c.cat.Roles, func(o Role) bool { return o.Name == name }) {
			d.add(k, CodeRoleDuplicate, "role %q is shipped already", name)
			return
		}
		c.cat.Roles = append(c.cat.Roles, r)
		c.places["role."+name] = at(file, k)
	})
}
