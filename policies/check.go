package policies

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// checker holds what the checks of a pack need of its schema.
type checker struct {
	diags     *Diagnostics
	schema    *resolved.Schema
	validator *validate.Validator
	actions   []types.EntityUID // sorted
	// optional marks the attributes that are optional and sent: of entity
	// types, of the context ("") and of actions' properties ("action").
	optional map[optionalKey]bool
	// names of all optional sent attributes, for expressions of unknown type
	optionalNames map[types.String]bool
	settingsType  string // of context.settings, as text, once an action has it
}

// reporting returns a checker of the same schema that reports elsewhere.
func (c *checker) reporting(diags *Diagnostics) *checker {
	other := *c
	other.diags = diags
	return &other
}

type optionalKey struct {
	owner types.EntityType
	name  types.String
}

// Owners that are no entity type.
const (
	ownerContext = types.EntityType("context")
	ownerAction  = types.EntityType("context.action")
)

func newChecker(rs *resolved.Schema, diags *Diagnostics) *checker {
	c := &checker{diags: diags, schema: rs, validator: validate.New(rs, validate.WithStrict()),
		optional: map[optionalKey]bool{}, optionalNames: map[types.String]bool{}}
	c.actions = slices.Collect(maps.Keys(rs.Actions))
	slices.SortFunc(c.actions, compareUID)
	return c
}

func compareUID(a, b types.EntityUID) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID))
}

// wardContext lists what Ward itself puts into the context; tenant is reserved.
var wardContext = []types.String{"now", "aal", "capability", "grant", "action", "emergency", "settings", "tenant"}

// describe ties a catalogue to the schema: it completes entity names,
// attributes and actions, and reports what does not fit.
func (c *checker) describe(p *pack) {
	cat, desc := p.desc.cat, p.desc
	ns := types.EntityType(cat.Namespace)
	qualified := func(name string) string { return string(ns) + "::" + name }
	owners := map[types.EntityType][]any{} // catalogue entries by entity

	entity := func(what string, owner any, name *string) {
		bare := *name
		if bare == "" {
			return
		}
		*name = qualified(bare)
		if _, ok := c.schema.Entities[types.EntityType(*name)]; !ok {
			c.diags.addAt(desc.places[owner], CodeEntityUnknown, "the schema has no entity %s for this %s", *name, what)
			return
		}
		if bare == "Scope" || bare == "Grant" || bare == "Emergency" {
			c.diags.addAt(desc.places[owner], CodeEntityReserved, "the entity %s is filled by Ward and described nowhere", bare)
		}
		owners[types.EntityType(*name)] = append(owners[types.EntityType(*name)], owner)
	}
	for _, name := range sortedKeys(cat.Principals) {
		entity("principal", cat.Principals[name], &cat.Principals[name].Entity)
	}
	for _, name := range sortedKeys(cat.Nodes) {
		entity("node", cat.Nodes[name], &cat.Nodes[name].Entity)
	}
	for _, name := range sortedKeys(cat.Resources) {
		entity("resource", cat.Resources[name], &cat.Resources[name].Entity)
	}
	c.entities(p, owners)
	c.sources(p, owners)
	c.references(p)
	c.describeActions(p, owners)
	c.routes(p)
}

// routes checks that a route's record question makes sense, and that no two
// routes can answer one request.
func (c *checker) routes(p *pack) {
	cat, desc := p.desc.cat, p.desc
	seen := map[string]*Route{}
	for _, name := range sortedKeys(cat.Routes) {
		r := cat.Routes[name]
		act, res := cat.Actions[r.Action], cat.Resources[r.Resource]
		if act != nil && res != nil && !slices.Contains(act.Resources, r.Resource) {
			c.diags.addAt(desc.places[key{r, "resource"}], CodeResourceUnknown, "action %q does not apply to %q", r.Action, r.Resource)
		}
		shape := r.Method + " " + pathParameter.ReplaceAllString(r.Path, "{}")
		if old := seen[shape]; old != nil {
			at := desc.places[old]
			c.diags.addAt(desc.places[r], CodeRouteDuplicate, "%s %s is a route already, at %s:%d", r.Method, r.Path, at.file, at.line)
			continue
		}
		seen[shape] = r
	}
}

var pathParameter = regexp.MustCompile(`\{[^{}/]*\}`)

// entities checks the shape that Ward expects of a pack's entities.
func (c *checker) entities(p *pack, owners map[types.EntityType][]any) {
	ns := types.EntityType(p.desc.cat.Namespace)
	scope := ns + "::Scope"
	if s, ok := c.schema.Entities[scope]; !ok || len(s.Shape) > 0 || len(s.ParentTypes) > 0 || s.Tags != nil {
		file, line := p.declared("Scope")
		c.diags.add(file, line, 1, CodeEntityReserved, "the schema needs \"entity Scope;\" without attributes, parents or tags")
	}
	for _, name := range slices.Sorted(maps.Keys(c.schema.Entities)) {
		bare, own := strings.CutPrefix(string(name), string(ns)+"::")
		if !own || name == scope {
			continue
		}
		e := c.schema.Entities[name]
		file, line := p.declared(bare)
		for _, parent := range e.ParentTypes {
			if parent != scope {
				c.diags.add(file, line, 1, CodeEntityReserved, "%s may only be in [Scope]: Ward serves no other parents", bare)
			}
		}
		if bare == "Grant" {
			c.grant(p, e, file, line)
			continue
		}
		if bare == "Emergency" {
			for _, name := range slices.Sorted(maps.Keys(e.Shape)) {
				if want := map[types.String]string{"reason": "String", "opened": "datetime"}[name]; typeText(e.Shape[name].Type) != want || e.Shape[name].Optional {
					c.diags.add(file, line, 1, CodeEntityReserved, "an Emergency has reason, a String, and opened, a datetime; not %s: %s", name, typeText(e.Shape[name].Type))
				}
			}
			continue
		}
		principal, node, resource := 0, 0, 0
		for _, o := range owners[name] {
			switch o.(type) {
			case *PrincipalType:
				principal++
			case *NodeType:
				node++
			case *ResourceType:
				resource++
			}
		}
		switch {
		case len(owners[name]) == 0:
			c.diags.add(file, line, 1, CodeEntityUndeclared, "nothing in the catalogue describes the entity %s", bare)
		case principal > 1 || node > 1 || resource > 1:
			c.diags.add(file, line, 1, CodeEntityReserved, "the entity %s stands for two things in the catalogue", bare)
		}
		if e.Tags != nil && (principal == 0 || typeText(e.Tags) != "Set<"+string(scope)+">") {
			c.diags.add(file, line, 1, CodeEntityReserved, "only principals have tags, of type Set<Scope>")
		}
		if resource > 0 && !slices.Contains(e.ParentTypes, scope) {
			c.diags.add(file, line, 1, CodeEntityReserved, "the resource %s must be in [Scope]", bare)
		}
	}
}

// grant checks the entity that context.grant names.
func (c *checker) grant(p *pack, e resolved.Entity, file string, line int) {
	for _, name := range slices.Sorted(maps.Keys(e.Shape)) {
		t := e.Shape[name].Type
		set, isSet := t.(resolved.SetType)
		ok := name == "type" && typeText(t) == "String" || name == "personal" && typeText(t) == "Bool"
		if name == "covers" && isSet {
			sensitivity := types.EntityType(p.desc.cat.Namespace + "::Sensitivity")
			_, isEnum := c.schema.Enums[sensitivity]
			ok = isEnum && set.Element == resolved.IsType(resolved.EntityType(sensitivity))
		}
		if !ok || e.Shape[name].Optional {
			c.diags.add(file, line, 1, CodeEntityReserved, "a Grant has covers, a set of the enumeration Sensitivity, type, a String, and personal, a Bool; not %s: %s", name, typeText(t))
		}
	}
}

// sources gives every attribute its one origin.
func (c *checker) sources(p *pack, owners map[types.EntityType][]any) {
	desc := p.desc
	type slot struct {
		owner types.EntityType
		name  string
	}
	declared := map[slot]source{}
	for _, s := range desc.sources {
		var shape resolved.RecordType
		var owner types.EntityType
		var attrs map[string]*Attribute
		switch o := s.owner.(type) {
		case *PrincipalType:
			owner, attrs = types.EntityType(o.Entity), o.Attributes
		case *NodeType:
			owner, attrs = types.EntityType(o.Entity), o.Attributes
		case *ResourceType:
			owner, attrs = types.EntityType(o.Entity), o.Attributes
		default:
			continue // context and action properties: see describeActions
		}
		shape = c.schema.Entities[owner].Shape
		a, ok := shape[types.String(s.name)]
		if !ok {
			if _, known := c.schema.Entities[owner]; known {
				c.diags.addAt(s.place, CodeAttributeUnknown, "the schema's %s has no attribute %s", owner, s.name)
			}
			continue
		}
		if old, twice := declared[slot{owner, s.name}]; twice {
			c.diags.addAt(s.place, CodeSourceDuplicate, "%s.%s has a source already, at %s:%d", owner, s.name, old.place.file, old.place.line)
			continue
		}
		declared[slot{owner, s.name}] = s
		attr := c.attribute(s, a, owners)
		attrs[s.name] = attr
		if node, isNode := s.owner.(*NodeType); isNode && s.from == FromSent {
			c.diags.addAt(s.place, CodeValueInvalid, "an attribute of the node type %s cannot be sent", node.Name)
		}
		if r, isResource := s.owner.(*ResourceType); isResource && s.from == FromFact && r.Kind != KindGraph {
			c.diags.addAt(s.place, CodeValueInvalid, "only graph resources have facts")
		}
		if s.from == FromWard {
			if want := wardAttribute(s.owner, s.name, desc.cat.Namespace); !slices.Contains(want, attr.Type) {
				text := "Ward gives no such attribute here"
				if len(want) > 0 {
					text = "Ward gives " + strings.Join(want, " or ")
				}
				c.diags.addAt(s.place, CodeWardUnknown, "%s: %s; the schema has %s", s.name, text, attr.Type)
			}
		}
		if s.from == FromSent && a.Optional {
			c.optional[optionalKey{owner, types.String(s.name)}] = true
			c.optionalNames[types.String(s.name)] = true
		}
	}
	// A graph resource and its node type are one entity, with one set of attributes.
	for _, r := range desc.cat.Resources {
		if n := desc.cat.Nodes[r.Node]; r.Kind == KindGraph && n != nil && n.Entity == r.Entity {
			maps.Copy(n.Attributes, r.Attributes)
			r.Attributes = n.Attributes
		}
	}
	ns := string(desc.cat.Namespace)
	for _, owner := range slices.Sorted(maps.Keys(owners)) {
		for _, name := range slices.Sorted(maps.Keys(c.schema.Entities[owner].Shape)) {
			if _, ok := declared[slot{owner, string(name)}]; !ok {
				bare := strings.TrimPrefix(string(owner), ns+"::")
				file, line := p.declared(bare)
				c.diags.add(file, line, 1, CodeSourceMissing, "the catalogue names no source (sent, fact or ward) for %s.%s", bare, name)
			}
		}
	}
}

// wardAttribute returns the types that an attribute may have which the decision
// point gives, or none when it gives no such attribute.
func wardAttribute(owner any, name, ns string) []string {
	persons, users := []string{"Set<" + ns + "::Person>"}, []string{"Set<" + ns + "::User>"}
	kind := KindGraph
	switch o := owner.(type) {
	case *PrincipalType:
		if name == "persons" || name == "family" {
			return persons
		}
		return nil
	case *ResourceType:
		kind = o.Kind
	}
	switch {
	case name == "entitled":
		return []string{"Bool"}
	case kind == KindRoute && name == "write":
		return []string{"Bool"}
	case kind == KindRoute && (name == "capability" || name == "scope"), kind == KindFeature && name == "capability":
		return []string{"String"}
	case kind == KindFeature || kind == KindRoute:
		return nil
	case name == "owners":
		return persons
	case name == "blocked":
		return users
	case kind == KindGrant:
		switch name {
		case "grantors":
			return persons
		case "grantees":
			return users
		case "type":
			return []string{"String"}
		case "capabilities", "signs":
			return []string{"Set<String>"}
		case "covers":
			return []string{"Set<" + ns + "::Sensitivity>"}
		case "personal", "adult":
			return []string{"Bool"}
		}
	case kind == KindEmergency:
		switch name {
		case "openers":
			return users
		case "reason":
			return []string{"String"}
		case "unreviewed":
			return []string{"Bool"}
		}
	}
	return nil
}

func (c *checker) attribute(s source, a resolved.Attribute, owners map[types.EntityType][]any) *Attribute {
	attr := &Attribute{Name: s.name, From: s.from, Required: !a.Optional, Type: typeText(a.Type), Authority: s.authority}
	element := a.Type
	if set, ok := element.(resolved.SetType); ok {
		element = set.Element
	}
	simple := true
	switch t := element.(type) {
	case resolved.RecordType, resolved.SetType:
		simple = false
	case resolved.ExtensionType:
		simple = t == "datetime" || t == "ipaddr"
	case resolved.EntityType:
		if enum, ok := c.schema.Enums[types.EntityType(t)]; ok {
			for _, v := range enum.Values {
				attr.Enum = append(attr.Enum, string(v.ID))
			}
			slices.Sort(attr.Enum)
		} else {
			simple = s.from == FromWard || s.from == FromSent && slices.ContainsFunc(owners[types.EntityType(t)], isPrincipal)
		}
	}
	if !simple {
		c.diags.addAt(s.place, CodeAttributeType, "%s cannot be %s: want Bool, Long, String, datetime, ipaddr, an enumeration, of what is sent a principal, or a set of those", s.name, attr.Type)
	}
	return attr
}

func isPrincipal(owner any) bool {
	_, ok := owner.(*PrincipalType)
	return ok
}

// typeText writes a type as Cedar does.
func typeText(t resolved.IsType) string {
	switch t := t.(type) {
	case resolved.StringType:
		return "String"
	case resolved.LongType:
		return "Long"
	case resolved.BoolType:
		return "Bool"
	case resolved.ExtensionType:
		return string(t)
	case resolved.EntityType:
		return string(t)
	case resolved.SetType:
		return "Set<" + typeText(t.Element) + ">"
	case resolved.RecordType:
		var b strings.Builder
		b.WriteString("{")
		for i, name := range slices.Sorted(maps.Keys(t)) {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(string(name))
			if t[name].Optional {
				b.WriteString("?")
			}
			b.WriteString(": " + typeText(t[name].Type))
		}
		return b.String() + "}"
	}
	return "none"
}

// references checks names that one part of a catalogue uses of another.
func (c *checker) references(p *pack) {
	cat, desc := p.desc.cat, p.desc
	node := func(at place, name string) {
		if _, ok := cat.Nodes[name]; !ok && name != "" {
			c.diags.addAt(at, CodeNodeUnknown, "%s is not a node type of the catalogue", name)
		}
	}
	module := func(at place, name string) {
		if _, ok := cat.Modules[name]; !ok && name != "" {
			c.diags.addAt(at, CodeModuleUnknown, "%q is not a module of the pack", name)
		}
	}
	for _, name := range sortedKeys(cat.Edges) {
		e := cat.Edges[name]
		for _, t := range slices.Concat(e.From, e.To) {
			node(desc.places[e], t)
		}
	}
	ofKind := map[ResourceKind]*ResourceType{}
	for _, name := range sortedKeys(cat.Resources) {
		r := cat.Resources[name]
		for _, a := range r.Anchors {
			node(desc.places[anchorKey{r, a.Property}], a.Type)
			if _, clash := r.Attributes[a.Property]; clash {
				c.diags.addAt(desc.places[anchorKey{r, a.Property}], CodeSourceDuplicate, "%s is an attribute and an anchor", a.Property)
			}
		}
		if other := ofKind[r.Kind]; other != nil && (r.Kind == KindGrant || r.Kind == KindEmergency) {
			c.diags.addAt(desc.places[r], CodeValueInvalid, "%q and %q are both of kind %s: there is one", other.Name, r.Name, r.Kind)
		}
		ofKind[r.Kind] = r
		node(desc.places[key{r, "node"}], r.Node)
		if typ, _, ok := strings.Cut(r.HangsFrom, ":"); ok {
			node(desc.places[key{r, "hangsFrom"}], typ)
		} else if r.HangsFrom != "" {
			c.diags.addAt(desc.places[key{r, "hangsFrom"}], CodeValueInvalid, "hangsFrom is a node id, such as \"Operator:lab\"")
		}
		at := desc.places[key{r, "module"}]
		if at.file == "" {
			at = desc.places[r]
		}
		module(at, r.Module)
	}
	for _, name := range sortedKeys(cat.Features) {
		f := cat.Features[name]
		module(desc.places[key{f, "module"}], f.Module)
	}
	for _, name := range sortedKeys(cat.Routes) {
		r := cat.Routes[name]
		module(desc.places[key{r, "module"}], r.Module)
		if _, ok := cat.Actions[r.Action]; !ok && r.Action != "" {
			c.diags.addAt(desc.places[key{r, "action"}], CodeActionUnknown, "%q is not an action of the catalogue", r.Action)
		}
		if _, ok := cat.Resources[r.Resource]; !ok && r.Resource != "" {
			c.diags.addAt(desc.places[key{r, "resource"}], CodeResourceUnknown, "%q is not a resource of the catalogue", r.Resource)
		}
	}
	if s := cat.Settings[cat.RunOut]; cat.RunOut != "" && (s == nil || s.Min == nil || *s.Min < 0 || s.Max == nil) {
		c.diags.addAt(desc.places["runOut"], CodeSettingUnknown, "runOut names a setting of whole days, with min and max; %q is none", cat.RunOut)
	}
	if x := cat.Emergency; x != nil && !slices.ContainsFunc(cat.Roles, func(r Role) bool { return r.Name == x.Role }) {
		c.diags.addAt(desc.places[key{x, "role"}], CodeRoleUnknown, "%q is no role of roles.yaml", x.Role)
	}
	for _, g := range cat.FamilyGrants {
		if _, ok := cat.GrantTypes[g]; !ok {
			c.diags.addAt(desc.places["familyGrants"], CodeGrantUnknown, "%q is not a grant type of the catalogue", g)
		}
	}
}

// describeActions fills actions and context from the schema.
func (c *checker) describeActions(p *pack, owners map[types.EntityType][]any) {
	cat, desc := p.desc.cat, p.desc
	actionType := types.EntityType(cat.Namespace + "::Action")
	contextTypes := map[types.String]string{} // one type for each name, over all actions
	contextAttrs := map[types.String]resolved.Attribute{}
	seen := map[string]bool{}
	for _, uid := range c.actions {
		if uid.Type != actionType {
			continue
		}
		a := c.schema.Actions[uid]
		file, line := p.declared(string(uid.ID))
		if a.AppliesTo == nil {
			continue // a group
		}
		act, ok := cat.Actions[string(uid.ID)]
		if !ok {
			c.diags.add(file, line, 1, CodeActionUndeclared, "the catalogue has no action %q", string(uid.ID))
			continue
		}
		seen[act.Name] = true
		act.Principals, act.Resources = nil, nil
		act.Coarse = len(a.AppliesTo.Resources) > 0
		for _, t := range a.AppliesTo.Principals {
			name := ""
			for _, o := range owners[t] {
				if pt, ok := o.(*PrincipalType); ok {
					name = pt.Name
				}
			}
			if name == "" {
				c.diags.add(file, line, 1, CodeEntityUndeclared, "action %q applies to %s, which is no principal of the catalogue", string(uid.ID), t)
				continue
			}
			act.Principals = append(act.Principals, name)
		}
		for _, t := range a.AppliesTo.Resources {
			var r *ResourceType
			for _, o := range owners[t] {
				if rt, ok := o.(*ResourceType); ok {
					r = rt
				}
			}
			if r == nil {
				c.diags.add(file, line, 1, CodeEntityUndeclared, "action %q applies to %s, which is no resource of the catalogue", string(uid.ID), t)
				continue
			}
			act.Resources = append(act.Resources, r.Name)
			act.Coarse = act.Coarse && (r.Kind == KindFeature || r.Kind == KindRoute)
		}
		slices.Sort(act.Principals)
		slices.Sort(act.Resources)
		for _, name := range slices.Sorted(maps.Keys(a.AppliesTo.Context)) {
			attr := a.AppliesTo.Context[name]
			if slices.Contains(wardContext, name) {
				if act.Given == nil {
					act.Given = map[string]bool{}
				}
				act.Given[string(name)] = true
				c.wardContext(p, name, attr, file, line)
				continue
			}
			text := typeText(attr.Type)
			if old, ok := contextTypes[name]; ok && old != text {
				c.diags.add(file, line, 1, CodeAttributeType, "context.%s is %s here and %s in another action", name, text, old)
			}
			contextTypes[name] = text
			if old, ok := contextAttrs[name]; !ok || !old.Optional {
				contextAttrs[name] = attr // where it is optional decides what a forbid may depend on
			}
		}
	}
	if c.settingsType == "" {
		c.settings(p, nil, "", 0)
	}
	for _, name := range sortedKeys(cat.Actions) {
		if !seen[name] {
			if _, ok := c.schema.Actions[types.NewEntityUID(actionType, types.String(name))]; ok {
				c.diags.addAt(desc.places[cat.Actions[name]], CodeActionUnknown, "%q is a group of actions in the schema: it applies to nothing", name)
			} else {
				c.diags.addAt(desc.places[cat.Actions[name]], CodeActionUnknown, "the schema has no action %q", name)
			}
		}
	}
	for _, s := range desc.sources {
		switch o := s.owner.(type) {
		case nil:
			attr, ok := contextAttrs[types.String(s.name)]
			if !ok {
				c.diags.addAt(s.place, CodeAttributeUnknown, "no action of the schema has context.%s for a caller to send", s.name)
				continue
			}
			cat.Context[s.name] = c.attribute(s, attr, owners)
			if attr.Optional {
				c.optional[optionalKey{ownerContext, types.String(s.name)}] = true
				c.optionalNames[types.String(s.name)] = true
			}
		case *Action:
			uid := types.NewEntityUID(actionType, types.String(o.Name))
			a := c.schema.Actions[uid]
			if a.AppliesTo == nil {
				continue
			}
			record, _ := a.AppliesTo.Context["action"].Type.(resolved.RecordType)
			attr, ok := record[types.String(s.name)]
			if !ok {
				c.diags.addAt(s.place, CodeAttributeUnknown, "the schema's context of %q has no action.%s", o.Name, s.name)
				continue
			}
			o.Properties[s.name] = c.attribute(s, attr, owners)
			if attr.Optional {
				c.optional[optionalKey{ownerAction, types.String(s.name)}] = true
				c.optionalNames[types.String(s.name)] = true
			}
		}
	}
	for _, uid := range c.actions {
		a, act := c.schema.Actions[uid], cat.Actions[string(uid.ID)]
		if uid.Type != actionType || a.AppliesTo == nil || act == nil {
			continue
		}
		for name, attr := range a.AppliesTo.Context {
			if sent := cat.Context[string(name)]; sent != nil {
				own := *sent
				own.Required = !attr.Optional
				if act.Context == nil {
					act.Context = map[string]*Attribute{}
				}
				act.Context[string(name)] = &own
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(contextAttrs)) {
		if cat.Context[string(name)] == nil {
			file, line := p.declared("Session")
			c.diags.add(file, line, 1, CodeSourceMissing, "the catalogue names no source (sent, fact or ward) for context.%s", name)
		}
	}
	for _, uid := range c.actions {
		a := c.schema.Actions[uid]
		if uid.Type != actionType || a.AppliesTo == nil || cat.Actions[string(uid.ID)] == nil {
			continue
		}
		record, _ := a.AppliesTo.Context["action"].Type.(resolved.RecordType)
		for _, name := range slices.Sorted(maps.Keys(record)) {
			if cat.Actions[string(uid.ID)].Properties[string(name)] == nil {
				file, line := p.declared(string(uid.ID))
				c.diags.add(file, line, 1, CodeSourceMissing, "the catalogue names no source (sent, fact or ward) for context.action.%s of %q", name, string(uid.ID))
			}
		}
	}
}

// wardContext checks the type of what Ward puts into the context.
func (c *checker) wardContext(p *pack, name types.String, attr resolved.Attribute, file string, line int) {
	want, optional := "", false
	switch name {
	case "now":
		want = "datetime"
	case "aal":
		want = "Long"
	case "capability":
		want = "String"
	case "grant":
		want, optional = p.desc.cat.Namespace+"::Grant", true
	case "emergency":
		want, optional = p.desc.cat.Namespace+"::Emergency", true
	case "settings":
		record, ok := attr.Type.(resolved.RecordType)
		if !ok || attr.Optional {
			c.diags.add(file, line, 1, CodeAttributeType, "context.settings is Ward's own and must be a record that is always there")
			return
		}
		switch text := typeText(record); c.settingsType {
		case "":
			c.settingsType = text
			c.settings(p, record, file, line)
		case text:
		default:
			c.diags.add(file, line, 1, CodeAttributeType, "context.settings is another record here than in another action")
		}
		return
	case "tenant":
		c.diags.add(file, line, 1, CodeAttributeType, "context.%s is reserved, and not filled by this version", name)
		return
	case "action":
		if _, ok := attr.Type.(resolved.RecordType); !ok {
			c.diags.add(file, line, 1, CodeAttributeType, "context.action must be a record")
		}
		return
	}
	if typeText(attr.Type) != want || optional && !attr.Optional {
		mark := ""
		if optional {
			mark = "?"
		}
		c.diags.add(file, line, 1, CodeAttributeType, "context.%s is Ward's own and must be %s%s: %s", name, name, mark, want)
	}
}

// mergeCatalogues puts Ward's own entries under the pack's.
func (c *checker) mergeCatalogues(p, own *pack) {
	reserved(c, p.desc, p.desc.cat.Principals, own.desc.cat.Principals)
	reserved(c, p.desc, p.desc.cat.Resources, own.desc.cat.Resources)
	reserved(c, p.desc, p.desc.cat.Actions, own.desc.cat.Actions)
	cat := p.desc.cat
	for _, r := range own.desc.cat.Roles {
		if slices.ContainsFunc(cat.Roles, func(o Role) bool { return o.Name == r.Name }) {
			c.diags.addAt(p.desc.places["role."+r.Name], CodeRoleDuplicate, "role %q is shipped with Ward", r.Name)
			continue
		}
		r.Own = true
		cat.Roles = append(cat.Roles, r)
	}
	slices.SortFunc(cat.Roles, func(a, b Role) int { return strings.Compare(a.Name, b.Name) })
	roles := map[string]Role{}
	for _, r := range cat.Roles {
		roles[r.Name] = r
	}
	for _, r := range cat.Roles {
		for _, in := range r.Includes {
			if _, ok := roles[in]; !ok {
				c.diags.addAt(p.desc.places["role."+r.Name], CodeRoleUnknown, "role %q includes %q, which does not exist", r.Name, in)
			}
		}
		if includes(roles, r.Name, r.Name, map[string]bool{}) {
			c.diags.addAt(p.desc.places["role."+r.Name], CodeRoleCycle, "role %q includes itself", r.Name)
		}
	}
	cat.Roles = inOrder(cat.Roles, roles)
	if cat.SelfRole != "" {
		if _, ok := roles[cat.SelfRole]; !ok {
			c.diags.addAt(p.desc.places["links.self"], CodeRoleUnknown, "role %q does not exist", cat.SelfRole)
		}
	}
	for _, name := range cat.TenantRoles {
		if _, ok := roles[name]; !ok {
			c.diags.addAt(p.desc.places["tenantRoles"], CodeRoleUnknown, "role %q does not exist", name)
		}
	}
}

func reserved[T any](c *checker, desc *described, into, own map[string]*T) {
	for name, v := range own {
		if mine, ok := into[name]; ok {
			c.diags.addAt(desc.places[mine], CodeNameReserved, "%q is Ward's own", name)
			continue
		}
		into[name] = v
	}
}

// inOrder sorts roles so that each comes after those it includes, and by name
// otherwise.
func inOrder(list []Role, roles map[string]Role) []Role {
	out := make([]Role, 0, len(list))
	done := map[string]bool{}
	var visit func(r Role)
	visit = func(r Role) {
		if done[r.Name] {
			return
		}
		done[r.Name] = true // a cycle is a finding of its own
		for _, in := range r.Includes {
			if inner, ok := roles[in]; ok {
				visit(inner)
			}
		}
		out = append(out, r)
	}
	for _, r := range list {
		visit(r)
	}
	return out
}

func includes(roles map[string]Role, from, what string, seen map[string]bool) bool {
	for _, in := range roles[from].Includes {
		if in == what {
			return true
		}
		if !seen[in] {
			seen[in] = true
			if includes(roles, in, what, seen) {
				return true
			}
		}
	}
	return false
}

// policies validates and checks every policy of a pack.
func (c *checker) policies(p *pack) {
	for _, pol := range p.policies {
		c.policy(p, pol)
	}
}

func (c *checker) policy(p *pack, pol *Policy) {
	add := func(code, format string, args ...any) {
		c.diags.add(pol.File, pol.Line, pol.column, code, format, args...)
	}
	if !c.sound(pol, add) {
		return
	}
	applies := c.applicable(pol)
	if !p.builtin {
		for _, uid := range applies {
			if uid.Type != WardNamespace+"::Action" {
				continue
			}
			switch {
			case !pol.Forbid:
				add(CodeBuiltinPermit, "the policy may permit Ward's own action %q; narrow its scope", string(uid.ID))
			case uid.ID == "policy.activate":
				add(CodeBuiltinForbid, "nothing may forbid Ward's own action %q, so that nobody is locked out; narrow the scope", string(uid.ID))
			}
		}
		if pol.Module != "" && !pol.Forbid {
			for _, uid := range applies {
				if m := p.desc.actionModule[string(uid.ID)]; uid.Type != WardNamespace+"::Action" && m != pol.Module {
					add(CodeModulePermit, "module %q may permit its own actions only, not %q", pol.Module, string(uid.ID))
				}
			}
		}
	}
	if pol.Forbid {
		c.optionals(pol, applies, add)
	}
}

// sound checks of a policy what does not depend on whose it is, and reports
// whether it found nothing.
func (c *checker) sound(pol *Policy, add func(code, format string, args ...any)) bool {
	before := len(c.diags.Findings)
	for _, node := range pol.bodies() {
		ast.Inspect(ast.NewNode(node), func(n ast.IsNode) bool {
			call, ok := n.(ast.NodeTypeExtensionCall)
			if !ok {
				return true
			}
			switch call.Name {
			case "toDate", "toTime":
				add(CodeUnsupportedFunction, "%s() answers wrongly before 1970 in the engine this version builds on; compare with datetime literals instead", call.Name)
			case "decimal", "duration":
				if len(call.Args) != 1 {
					return true
				}
				lit, _ := call.Args[0].(ast.NodeValue)
				text, _ := lit.Value.(types.String)
				if call.Name == "decimal" && strings.HasPrefix(string(text), "+") {
					add(CodeUnsupportedLiteral, "decimal(%q) is not a decimal: no sign but '-'", string(text))
				}
				if call.Name == "duration" && strings.HasPrefix(string(text), "-") {
					if _, err := types.ParseDuration(string(text)); err != nil {
						add(CodeUnsupportedLiteral, "duration(%q) is out of the range that this version reads", string(text))
					}
				}
			}
			return true
		})
	}
	c.enums(pol, add)
	if len(c.diags.Findings) > before {
		return false // what follows would repeat it
	}
	for _, msg := range messages(c.validator.Policy("", folded(pol.ast))) {
		add(CodeValidationFailed, "%s", msg)
	}
	return len(c.diags.Findings) == before
}

// messages flattens joined errors into their texts, sorted and without
// repetitions: the validator's order is random.
func messages(err error) []string {
	if err == nil {
		return nil
	}
	var out []string
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			out = append(out, messages(e)...)
		}
	} else {
		out = append(out, oneLine(err.Error()))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// folded returns a copy of p with all clauses in one when: the validator tracks
// what has been tested within a clause only, the language over all of them.
func folded(p *ast.Policy) *ast.Policy {
	if len(p.Conditions) == 0 {
		return p
	}
	q := *p
	var body ast.Node
	for i, cond := range p.Conditions {
		n := ast.NewNode(cond.Body)
		if cond.Condition == ast.ConditionUnless {
			n = ast.Not(n)
		}
		if i == 0 {
			body = n
		} else {
			body = body.And(n)
		}
	}
	q.Conditions = []ast.ConditionType{{Condition: ast.ConditionWhen, Body: body.AsIsNode()}}
	return &q
}

// bodies returns the expressions of a policy's conditions.
func (p *Policy) bodies() []ast.IsNode {
	out := make([]ast.IsNode, len(p.ast.Conditions))
	for i, cond := range p.ast.Conditions {
		out[i] = cond.Body
	}
	return out
}

// enums checks the ids of enumerated entities, which the validator does not.
func (c *checker) enums(pol *Policy, add func(code, format string, args ...any)) {
	check := func(uid types.EntityUID) {
		enum, ok := c.schema.Enums[uid.Type]
		if ok && !slices.Contains(enum.Values, uid) {
			add(CodeEnumUnknown, "%s is not a value of the enumeration", uid)
		}
	}
	var value func(v types.Value)
	value = func(v types.Value) {
		switch v := v.(type) {
		case types.EntityUID:
			check(v)
		case types.Set:
			for item := range v.All() {
				value(item)
			}
		case types.Record:
			for item := range v.Values() {
				value(item)
			}
		}
	}
	for _, node := range pol.bodies() {
		ast.Inspect(ast.NewNode(node), func(n ast.IsNode) bool {
			if v, ok := n.(ast.NodeValue); ok {
				value(v.Value)
			}
			return true
		})
	}
	for _, s := range []ast.IsScopeNode{pol.ast.Principal, pol.ast.Resource} {
		switch s := s.(type) {
		case ast.ScopeTypeEq:
			check(s.Entity)
		case ast.ScopeTypeIn:
			check(s.Entity)
		case ast.ScopeTypeIsIn:
			check(s.Entity)
		}
	}
}

// applicable returns the actions that a policy can ever decide about: those of
// its scope that apply to its principal and resource types.
func (c *checker) applicable(pol *Policy) []types.EntityUID {
	var out []types.EntityUID
	for _, uid := range c.actions {
		a := c.schema.Actions[uid]
		if a.AppliesTo == nil || !actionMatches(c.schema, pol.ast.Action, uid) {
			continue
		}
		may := func(s ast.IsScopeNode, t types.EntityType) bool { return c.scopeMay(s, t) }
		if slices.ContainsFunc(a.AppliesTo.Principals, func(t types.EntityType) bool { return may(pol.ast.Principal, t) }) &&
			slices.ContainsFunc(a.AppliesTo.Resources, func(t types.EntityType) bool { return may(pol.ast.Resource, t) }) {
			out = append(out, uid)
		}
	}
	return out
}

// scopeMay reports whether an entity of type t can match a scope.
func (c *checker) scopeMay(s ast.IsScopeNode, t types.EntityType) bool {
	in := func(parent types.EntityType) bool {
		return t == parent || slices.Contains(c.schema.Entities[t].ParentTypes, parent)
	}
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity.Type == t
	case ast.ScopeTypeIn:
		return in(s.Entity.Type)
	case ast.ScopeTypeIs:
		return s.Type == t
	case ast.ScopeTypeIsIn:
		return s.Type == t && in(s.Entity.Type)
	}
	return true
}

// optionals refuses a forbid that reads an attribute which a caller may leave
// out: leaving it out would lift the forbid, or make it fail.
func (c *checker) optionals(pol *Policy, applies []types.EntityUID, add func(code, format string, args ...any)) {
	if len(c.optional) == 0 {
		return
	}
	for _, uid := range applies {
		a := c.schema.Actions[uid]
		for _, pt := range a.AppliesTo.Principals {
			for _, rt := range a.AppliesTo.Resources {
				if !c.scopeMay(pol.ast.Principal, pt) || !c.scopeMay(pol.ast.Resource, rt) {
					continue
				}
				e := typing{schema: c.schema, principal: pt, resource: rt, context: a.AppliesTo.Context}
				for _, node := range pol.bodies() {
					ast.Inspect(ast.NewNode(node), func(n ast.IsNode) bool {
						var arg ast.IsNode
						var name types.String
						switch n := n.(type) {
						case ast.NodeTypeAccess:
							arg, name = n.Arg, n.Value
						case ast.NodeTypeHas:
							arg, name = n.Arg, n.Value
						default:
							return true
						}
						if c.isOptional(e, arg, name) {
							add(CodeForbidOnOptional, "a forbid must not depend on %s, which a caller may leave out", name)
						}
						return true
					})
				}
			}
		}
	}
}

func (c *checker) isOptional(e typing, arg ast.IsNode, name types.String) bool {
	if !c.optionalNames[name] {
		return false
	}
	// An action's context is its own: what it requires, nobody leaves out.
	if v, ok := arg.(ast.NodeTypeVariable); ok && v.Name == "context" {
		return c.optional[optionalKey{ownerContext, name}] && e.context[name].Optional
	}
	if a, ok := arg.(ast.NodeTypeAccess); ok && a.Value == "action" {
		if v, ok := a.Arg.(ast.NodeTypeVariable); ok && v.Name == "context" {
			record, _ := e.context["action"].Type.(resolved.RecordType)
			return c.optional[optionalKey{ownerAction, name}] && record[name].Optional
		}
	}
	switch t := e.of(arg).(type) {
	case resolved.EntityType:
		return c.optional[optionalKey{types.EntityType(t), name}]
	case nil:
		return true // unknown: the name alone decides
	default:
		return true // a record that was made of it
	}
}

// typing finds the type of the expressions that attributes are read from.
type typing struct {
	schema              *resolved.Schema
	principal, resource types.EntityType
	context             resolved.RecordType
}

// of returns the type of n, or nil when it does not know.
func (e typing) of(n ast.IsNode) resolved.IsType {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		switch n.Name {
		case "principal":
			return resolved.EntityType(e.principal)
		case "resource":
			return resolved.EntityType(e.resource)
		case "context":
			return e.context
		}
	case ast.NodeValue:
		if uid, ok := n.Value.(types.EntityUID); ok {
			return resolved.EntityType(uid.Type)
		}
	case ast.NodeTypeAccess:
		switch t := e.of(n.Arg).(type) {
		case resolved.EntityType:
			if a, ok := e.schema.Entities[types.EntityType(t)].Shape[n.Value]; ok {
				return a.Type
			}
		case resolved.RecordType:
			if a, ok := t[n.Value]; ok {
				return a.Type
			}
		}
	}
	return nil
}

// capabilities checks that every capability is one that something asks for.
func (c *checker) capabilities(p *pack) {
	asked, tested := askedFor(p.desc.cat), map[string]bool{}
	held := heldBy(p.desc.cat)
	for _, pol := range p.policies {
		for _, capability := range c.tags(pol, asked, held) {
			tested[capability] = true
		}
	}
	for _, r := range p.desc.cat.Roles {
		for _, capability := range r.Capabilities {
			if !asked[capability] && !tested[capability] {
				c.diags.addAt(p.desc.places["role."+r.Name], CodeCapabilityUnknown, "role %q holds %q, which nothing asks for", r.Name, capability)
			}
		}
	}
	for _, name := range sortedKeys(p.desc.cat.GrantTypes) {
		gt := p.desc.cat.GrantTypes[name]
		for _, capability := range gt.Capabilities {
			if own := p.desc.cat.Own(capability); own || !asked[capability] && !tested[capability] {
				c.diags.addAt(p.desc.places[gt], CodeCapabilityUnknown, "grants of type %q cannot confer %q: nothing of the pack asks for it", name, capability)
			}
		}
	}
}

// askedFor returns the capabilities that an action, a feature or a route asks for.
func askedFor(cat *Catalogue) map[string]bool {
	out := map[string]bool{}
	for name := range cat.Actions {
		out[name] = true
	}
	for _, f := range cat.Features {
		out[f.Capability] = true
	}
	for _, r := range cat.Routes {
		out[r.Capability] = true
	}
	return out
}

// heldBy returns the capabilities that a shipped role holds.
func heldBy(cat *Catalogue) map[string]bool {
	out := map[string]bool{}
	for _, r := range cat.Roles {
		for _, capability := range r.Capabilities {
			out[capability] = true
		}
	}
	return out
}

// tags returns the capabilities that a policy names, and reports those that
// nobody can hold.
func (c *checker) tags(pol *Policy, asked, held map[string]bool) []string {
	var out []string
	for _, node := range pol.bodies() {
		ast.Inspect(ast.NewNode(node), func(n ast.IsNode) bool {
			var right ast.IsNode
			switch n := n.(type) {
			case ast.NodeTypeHasTag:
				right = n.Right
			case ast.NodeTypeGetTag:
				right = n.Right
			default:
				return true
			}
			lit, _ := right.(ast.NodeValue)
			if text, ok := lit.Value.(types.String); ok {
				out = append(out, string(text))
				if !asked[string(text)] && !held[string(text)] {
					c.diags.add(pol.File, pol.Line, pol.column, CodeCapabilityUnknown,
						"capability %q is no action, belongs to no feature or route, and no role holds it", string(text))
				}
			}
			return true
		})
	}
	return out
}

// cases checks the names that the tests use.
func (c *checker) cases(p *pack, byID map[string]*Policy) {
	for i := range p.caseDocs {
		t := &p.caseDocs[i]
		for _, id := range t.Expect.Policies {
			if _, ok := byID[id]; !ok {
				c.diags.add(t.File, t.Line, 1, CodeCaseUnknown, "test %q expects policy %q, which does not exist", t.Name, id)
			}
		}
		if t.Expect.Decision {
			if _, ok := p.desc.cat.Actions[t.Action]; !ok {
				c.diags.add(t.File, t.Line, 1, CodeCaseUnknown, "test %q expects an allow of %q, which is no action", t.Name, t.Action)
			}
		}
	}
}
