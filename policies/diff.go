package policies

import (
	"maps"
	"reflect"
	"slices"
)

// Kinds of a [Difference], and how a thing differs. Append-only.
const (
	DifferencePolicy     = "policy"
	DifferenceRole       = "role"
	DifferenceCapability = "capability"
	DifferenceAction     = "action"
	DifferenceResource   = "resource"
	DifferencePrincipal  = "principal"
	DifferenceNode       = "node"
	DifferenceEdge       = "edge"
	DifferenceGrantType  = "grantType"
	DifferenceLaw        = "law"
	DifferenceContext    = "context"
	DifferenceModule     = "module"
	DifferenceFeature    = "feature"
	DifferenceRoute      = "route"
	DifferenceSetting    = "setting"
	DifferenceRule       = "rule" // selfRole, familyGrants, runOut, emergency

	DifferenceAdded   = "added"
	DifferenceRemoved = "removed"
	DifferenceChanged = "changed"
)

// Difference is one thing that two sets have otherwise.
type Difference struct {
	Kind   string `json:"kind"`   // one of the constants above
	Change string `json:"change"` // "added", "removed" or "changed"
	Name   string `json:"name"`
	// Module is that of a policy, feature or route in the set that has it, the
	// later one where both do.
	Module string `json:"module,omitempty"`
}

// Diff lists what changes from set a to set b: policies by id, first, and then
// what the catalogue names, each kind by name. Of a policy its text counts,
// comments and white space around it apart, but not its place.
func Diff(a, b *Set) []Difference {
	var out []Difference
	policy := func(s *Set) map[string]*Policy { return s.byID }
	compare(&out, DifferencePolicy, policy(a), policy(b),
		func(x, y *Policy) bool { return x.Text == y.Text && x.Module == y.Module }, func(p *Policy) string { return p.Module })
	x, y := a.cat, b.cat
	compare(&out, DifferenceRole, rolesOf(x), rolesOf(y), same[Role], none)
	compare(&out, DifferenceCapability, capabilitiesOf(x), capabilitiesOf(y), same[bool], none)
	compare(&out, DifferenceAction, x.Actions, y.Actions, same[*Action], none)
	compare(&out, DifferenceResource, x.Resources, y.Resources, same[*ResourceType], none)
	compare(&out, DifferencePrincipal, x.Principals, y.Principals, same[*PrincipalType], none)
	compare(&out, DifferenceNode, x.Nodes, y.Nodes, same[*NodeType], none)
	compare(&out, DifferenceEdge, x.Edges, y.Edges, same[*EdgeKind], none)
	compare(&out, DifferenceGrantType, x.GrantTypes, y.GrantTypes, same[*GrantType], none)
	compare(&out, DifferenceLaw, lawsOf(x), lawsOf(y), same[Law], none)
	compare(&out, DifferenceContext, x.Context, y.Context, same[*Attribute], none)
	compare(&out, DifferenceModule, x.Modules, y.Modules, same[*Module], none)
	compare(&out, DifferenceFeature, x.Features, y.Features, same[*Feature], func(f *Feature) string { return f.Module })
	compare(&out, DifferenceRoute, x.Routes, y.Routes, same[*Route], func(r *Route) string { return r.Module })
	compare(&out, DifferenceSetting, x.Settings, y.Settings, same[*Setting], none)
	compare(&out, DifferenceRule, rulesOf(x), rulesOf(y), same[any], none)
	return out
}

func compare[V any](out *[]Difference, kind string, a, b map[string]V, same func(V, V) bool, module func(V) string) {
	names := slices.Sorted(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		x, before := a[name]
		y, after := b[name]
		d := Difference{Kind: kind, Name: name}
		switch {
		case !before:
			d.Change, d.Module = DifferenceAdded, module(y)
		case !after:
			d.Change, d.Module = DifferenceRemoved, module(x)
		case !same(x, y):
			d.Change, d.Module = DifferenceChanged, module(y)
		default:
			continue
		}
		*out = append(*out, d)
	}
}

func same[V any](x, y V) bool { return reflect.DeepEqual(x, y) }

func none[V any](V) string { return "" }

func rolesOf(c *Catalogue) map[string]Role {
	out := map[string]Role{}
	for _, r := range c.Roles {
		out[r.Name] = r
	}
	return out
}

// rulesOf returns what the catalogue says once, as far as it does.
func rulesOf(c *Catalogue) map[string]any {
	out := map[string]any{}
	if c.SelfRole != "" {
		out["selfRole"] = c.SelfRole
	}
	if len(c.TenantRoles) > 0 {
		out["tenantRoles"] = c.TenantRoles
	}
	if len(c.FamilyGrants) > 0 {
		out["familyGrants"] = c.FamilyGrants
	}
	if c.RunOut != "" {
		out["runOut"] = c.RunOut
	}
	if c.Emergency != nil {
		out["emergency"] = *c.Emergency
	}
	return out
}

func lawsOf(c *Catalogue) map[string]Law {
	out := map[string]Law{}
	for _, l := range c.Law {
		out[l.Jurisdiction] = l
	}
	return out
}

// capabilitiesOf returns every capability that the catalogue names.
func capabilitiesOf(c *Catalogue) map[string]bool {
	out := askedFor(c)
	maps.Copy(out, heldBy(c))
	return out
}
