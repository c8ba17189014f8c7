package pdp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// complete fills in what the decision point itself computes: the majority of
// persons with a birth date.
func complete(w world, events []hierarchy.Event) ([]hierarchy.Event, error) {
	if len(events) > hierarchy.MaxBatchEvents {
		return nil, &hierarchy.Refusal{Code: hierarchy.CodeBatchTooLarge, Text: fmt.Sprintf("a change holds at most %d events", hierarchy.MaxBatchEvents)}
	}
	out := slices.Clone(events)
	for i := range out {
		if err := check(w, &out[i]); err != nil {
			err.Index, err.Row = i, out[i].Row
			return nil, err
		}
	}
	return out, nil
}

// check holds an asserted event against the catalogue, which the facts
// themselves do not know, and computes a person's majority.
func check(w world, e *hierarchy.Event) *hierarchy.Refusal {
	if e.Op != hierarchy.Assert {
		return nil
	}
	cat := w.set.Catalogue()
	switch {
	case e.Node != nil:
		n := *e.Node
		if n.Person != nil {
			person := *n.Person
			person.Majority, person.TZData = nil, ""
			if person.BirthDate != "" {
				law, ok := lawOf(cat, person.Jurisdiction)
				if !ok {
					return &hierarchy.Refusal{Code: "law_unknown", Text: "the pack has no age of majority for this jurisdiction"}
				}
				zone, err := hierarchy.Zone(law.Zone)
				if err != nil {
					return &hierarchy.Refusal{Code: "law_unknown", Text: err.Error()}
				}
				at, err := hierarchy.Majority(person.BirthDate, law.Majority, zone)
				if err != nil {
					return &hierarchy.Refusal{Code: hierarchy.CodeEventInvalid, Text: err.Error()}
				}
				person.Majority, person.TZData = &at, hierarchy.TZData
			}
			n.Person = &person
			e.Node = &n
			return nil
		}
		return checkNode(cat, &n)
	case e.Edge != nil:
		return checkEdge(cat, e.Edge)
	case e.Assignment != nil:
		if cat.Reserved(e.Assignment.Role) {
			return &hierarchy.Refusal{Code: "role_reserved", Text: fmt.Sprintf("the role %q says what people have on their own records, or in an emergency: nobody is assigned it at a node", e.Assignment.Role)}
		}
	case e.Role != nil:
		return checkCapabilities(cat, e.Role.Capabilities)
	case e.Entitlement != nil:
		if n := e.Entitlement.Name; cat.Modules[n] == nil && cat.Features[n] == nil {
			return &hierarchy.Refusal{Code: "module_unknown", Text: fmt.Sprintf("the pack has no module or feature %q", n)}
		}
	case e.Setting != nil:
		s := cat.Settings[e.Setting.Name]
		if s == nil {
			return &hierarchy.Refusal{Code: "setting_unknown", Text: fmt.Sprintf("the pack has no setting %q", e.Setting.Name)}
		}
		if !s.Takes(e.Setting.Value) {
			return &hierarchy.Refusal{Code: "setting_invalid", Text: fmt.Sprintf("the setting %s takes %s", s.Name, s.Range())}
		}
	case e.Grant != nil:
		gt := cat.GrantTypes[e.Grant.Type]
		if gt == nil {
			return &hierarchy.Refusal{Code: "grant_type_unknown", Text: "the pack has no grant type of this name"}
		}
		if r := checkCapabilities(cat, e.Grant.Scope.Capabilities); r != nil {
			return r
		}
		for _, c := range e.Grant.Scope.Capabilities {
			switch {
			case cat.Own(c):
				return &hierarchy.Refusal{Code: string(authz.NotConferrable), Text: fmt.Sprintf("nobody administers ward by delegation: no grant holds %q", c)}
			case !delegable(cat, e.Grant, c) && e.Grant.Subject.Type == hierarchy.PersonType:
				return &hierarchy.Refusal{Code: string(authz.AboveCeiling), Text: fmt.Sprintf("a grant of type %s about a person gives what the role %q holds and what the pack lists for its type: not %q", e.Grant.Type, cat.SelfRole, c)}
			case !delegable(cat, e.Grant, c):
				return &hierarchy.Refusal{Code: string(authz.AboveCeiling), Text: fmt.Sprintf("only the operator or network gives %q: the roles that the pack lists as tenantRoles do not hold it", c)}
			}
		}
		switch {
		case e.Grant.ID == authz.NoGrant:
			return &hierarchy.Refusal{Code: hierarchy.CodeEventInvalid, Text: "no grant may be called none: that word asks without any"}
		case e.Grant.MaxDepth > gt.MaxDepth:
			return &hierarchy.Refusal{Code: hierarchy.CodeGrantDepth, Text: fmt.Sprintf("the pack lets a grant of this type be passed on %d times", gt.MaxDepth)}
		case !isPrincipal(cat, e.Grant.Grantee) && e.Grant.Subject.Type == hierarchy.PersonType:
			return &hierarchy.Refusal{Code: "grantee_not_principal", Text: "a grant about a person is given to a principal: an organisation is given what a node holds"}
		case len(e.Grant.Purpose) > 0 && cat.Context["purpose"] == nil:
			return &hierarchy.Refusal{Code: "purpose_unknown", Text: "the pack declares no purpose in its context, so that no request could name one"}
		}
		if gt.EndsAtMajority && !e.Grant.EndsAtMajority {
			g := *e.Grant
			g.EndsAtMajority = true
			e.Grant = &g
		}
	}
	return nil
}

// checkCapabilities refuses a name that nothing in the pack asks for: it would
// come alive, unnoticed, when a later pack gives it a meaning.
func checkCapabilities(cat *policies.Catalogue, names []string) *hierarchy.Refusal {
	for _, n := range names {
		known := cat.Actions[n] != nil
		for _, f := range cat.Features {
			known = known || f.Capability == n
		}
		for _, r := range cat.Routes {
			known = known || r.Capability == n
		}
		for _, r := range cat.Roles {
			known = known || slices.Contains(r.Capabilities, n)
		}
		if !known {
			return &hierarchy.Refusal{Code: "capability_unknown", Text: fmt.Sprintf("the pack has no capability %q", n)}
		}
	}
	return nil
}

// checkNode holds a node against the pack's node and principal types.
func checkNode(cat *policies.Catalogue, n *hierarchy.Node) *hierarchy.Refusal {
	attrs := map[string]*policies.Attribute{}
	if n.Principal {
		known := false
		for _, pt := range cat.Principals {
			if baseName(pt.Entity) == n.ID.Type {
				known, attrs = true, pt.Attributes
			}
		}
		if !known {
			return &hierarchy.Refusal{Code: "node_type_unknown", Text: "the pack has no principal type " + n.ID.Type}
		}
	} else {
		switch n.ID.Type {
		case hierarchy.OperatorType, hierarchy.TenantType, hierarchy.NetworkType, hierarchy.PersonType:
		default:
			nt := cat.Nodes[n.ID.Type]
			if nt == nil {
				return &hierarchy.Refusal{Code: "node_type_unknown", Text: "the pack has no node type " + n.ID.Type}
			}
			if nt.Owned != (n.ID.Tenant != "") {
				return &hierarchy.Refusal{Code: hierarchy.CodeTenancyViolation, Text: n.ID.Type + " nodes " +
					map[bool]string{true: "belong to a tenant: write Type:tenant/key", false: "are shared: write Type:key"}[nt.Owned]}
			}
			attrs = nt.Attributes
		}
	}
	for name, v := range n.Attrs {
		a := attrs[name]
		if a == nil || a.From != policies.FromFact {
			if n.Principal || cat.Nodes[n.ID.Type] != nil && a != nil {
				return &hierarchy.Refusal{Code: "attribute_unknown", Text: fmt.Sprintf("%s nodes have no fact attribute %q", n.ID.Type, name)}
			}
			continue // kept for people; policies never read it
		}
		if _, ok := attribute(a, v); !ok {
			return &hierarchy.Refusal{Code: "attribute_invalid", Text: fmt.Sprintf("attribute %q of %s nodes must be %s", name, n.ID.Type, a.Type)}
		}
	}
	return nil
}

// checkEdge holds an edge against the pack's edge kinds.
func checkEdge(cat *policies.Catalogue, e *hierarchy.Edge) *hierarchy.Refusal {
	kind := cat.Edges[e.Kind]
	if kind == nil {
		return &hierarchy.Refusal{Code: "edge_kind_unknown", Text: fmt.Sprintf("the pack has no edge kind %q", e.Kind)}
	}
	if len(kind.From) > 0 && !slices.Contains(kind.From, e.Child.Type) || len(kind.To) > 0 && !slices.Contains(kind.To, e.Parent.Type) {
		return &hierarchy.Refusal{Code: "edge_kind_unknown", Text: fmt.Sprintf("an edge %s does not lead from %s to %s", e.Kind, e.Child.Type, e.Parent.Type)}
	}
	return nil
}

// lawOf returns the law row of a jurisdiction: its own, or that of the country
// it is part of ("US-OH" falls back to "US").
func lawOf(cat *policies.Catalogue, jurisdiction string) (policies.Law, bool) {
	for {
		for _, l := range cat.Law {
			if l.Jurisdiction == jurisdiction {
				return l, true
			}
		}
		i := strings.LastIndexByte(jurisdiction, '-')
		if i < 0 {
			return policies.Law{}, false
		}
		jurisdiction = jurisdiction[:i]
	}
}

// isPrincipal reports whether an id is of one of the pack's principal types.
func isPrincipal(cat *policies.Catalogue, id hierarchy.ID) bool {
	for _, pt := range cat.Principals {
		if baseName(pt.Entity) == id.Type {
			return true
		}
	}
	return false
}
