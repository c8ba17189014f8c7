package pdp

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// counts reports whether an attempt with this grant ("" is the one without) may
// permit: a request that names a grant, or none, only narrows. The other
// attempts still run, for a forbid that cannot be evaluated denies in any.
func (j *judging) counts(grant string) bool {
	switch j.asked.Grant {
	case "":
		return true
	case authz.NoGrant:
		return grant == ""
	}
	return grant == j.asked.Grant
}

// narrower orders grants from the narrowest to the widest, ties by id.
func narrower(a, b hierarchy.GrantFact) int {
	return cmp.Or(
		cmp.Compare(len(a.Scope.Capabilities), len(b.Scope.Capabilities)),
		cmp.Compare(len(a.Scope.Covers), len(b.Scope.Covers)),
		cmp.Compare(wide(a.Scope.Coverage.IsZero()), wide(b.Scope.Coverage.IsZero())),
		cmp.Compare(wide(a.Scope.Service.IsZero()), wide(b.Scope.Service.IsZero())),
		cmp.Compare(a.ID, b.ID))
}

func wide(b bool) int {
	if b {
		return 1
	}
	return 0
}

// conferrable reports why an admin may not give away what the question says
// they would: nobody confers a capability of Ward's own that they do not hold
// there themselves.
func (j *judging) conferrable(tags map[string][]policies.Ref, at []policies.Ref) authz.Code {
	for _, c := range j.asked.Confers {
		if !slices.ContainsFunc(tags[c], func(r policies.Ref) bool { return slices.Contains(at, r) }) {
			return authz.NotConferrable
		}
	}
	return ""
}

// conferredAt reports whether a live grant concerns this very resource.
func (j *judging) conferredAt(g hierarchy.GrantFact) bool {
	if !slices.Contains(j.owners, g.Subject) && !j.inScopes(g.Subject) {
		return false
	}
	if c := g.Scope.Coverage; !c.IsZero() && !j.inScopes(c) {
		return false
	}
	if s := g.Scope.Service; !s.IsZero() && (!j.dated || !s.Holds(j.service)) {
		return false
	}
	if len(g.Purpose) > 0 {
		p, _ := j.asked.Context["purpose"].(string)
		return slices.Contains(g.Purpose, p)
	}
	return true
}

func (j *judging) inScopes(id hierarchy.ID) bool { return slices.Contains(j.scopes, id) }

// lapsed returns the code for a subject without standing: what would have
// given it, had it not ended, or no_standing.
func (j *judging) lapsed() authz.Code {
	var ended authz.Code
	for _, g := range j.view.EndedGrants(j.principal) {
		if j.conferredAt(g) {
			if g.ByMajority {
				return authz.MajorityReached
			}
			ended = authz.GrantEnded
		}
	}
	if ended != "" {
		return ended
	}
	for _, a := range j.view.EndedAssignments(j.principal) {
		if j.inScopes(a.Node) {
			return authz.AssignmentEnded
		}
	}
	return authz.NoStanding
}

// roleTags holds, per capability, the scopes where the principal's roles and
// self links give it.
func (j *judging) roleTags(assignments []hierarchy.AssignmentFact) map[string][]policies.Ref {
	tags := map[string][]policies.Ref{}
	for _, a := range assignments {
		for _, c := range j.view.Capabilities(a.Role) {
			tags[c] = append(tags[c], j.scope(a.Node))
		}
	}
	if j.cat.SelfRole != "" && len(j.persons) > 0 {
		for _, c := range j.view.Capabilities(j.cat.SelfRole) {
			for _, p := range j.persons {
				tags[c] = append(tags[c], j.scope(p))
			}
		}
	}
	for c, refs := range tags {
		sort.Slice(refs, func(a, b int) bool { return lessRef(refs[a], refs[b]) })
		tags[c] = slices.Compact(refs)
	}
	return tags
}

// principalEntity builds the principal without its tags, and the entities its
// attributes and the grant refer to. In a grant attempt the principal is
// nobody's own person, so that no self rule can match.
func (j *judging) principalEntity(g *hierarchy.GrantFact) (policies.Entity, []policies.Entity, authz.Code) {
	e := policies.Entity{Ref: j.ref(j.principal), Attrs: map[string]policies.Value{}}
	var others []policies.Entity
	node, _, _ := j.view.Node(j.principal)
	for name, attr := range j.principalType.Attributes {
		switch {
		case attr.From != policies.FromWard:
		case name == "persons" && g != nil:
			e.Attrs[name] = []policies.Value{}
		case name == "persons":
			e.Attrs[name] = j.refs(j.persons)
		case name == "family":
			e.Attrs[name] = j.refs(j.family())
		}
	}
	if code := cmp.Or(j.fills(e.Attrs, j.principalType.Attributes, policies.FromSent, j.asked.Subject.Props),
		j.fills(e.Attrs, j.principalType.Attributes, policies.FromFact, node.Attrs)); code != "" {
		return e, nil, code
	}
	if g != nil {
		covers := make([]policies.Value, len(g.Scope.Covers))
		for i, c := range g.Scope.Covers {
			covers[i] = policies.Ref{Type: j.cat.Namespace + "::Sensitivity", ID: c}
		}
		others = append(others, policies.Entity{Ref: policies.Ref{Type: j.cat.Namespace + "::Grant", ID: g.ID},
			Attrs: map[string]policies.Value{"covers": covers, "type": g.Type, "personal": g.Subject.Type == hierarchy.PersonType}})
	}
	return e, others, ""
}

// family returns the persons related to the principal's own, and those it
// represents, or has represented, as a parent or guardian.
func (j *judging) family() []hierarchy.ID {
	ids := j.view.Family(j.persons...)
	for _, g := range append(j.view.Grants(j.principal), j.view.EndedGrants(j.principal)...) {
		if slices.Contains(j.cat.FamilyGrants, g.Type) && g.Subject.Type == hierarchy.PersonType {
			ids = append(ids, j.view.Merged(g.Subject)...)
		}
	}
	sortIDs(ids)
	return slices.Compact(ids)
}

// context builds what policies read as context.
func (j *judging) context(g *hierarchy.GrantFact) (map[string]policies.Value, authz.Code) {
	ctx := map[string]policies.Value{"now": policies.Datetime(j.now)}
	if j.resource.Kind != policies.KindWard {
		ctx["aal"] = int64(j.asked.Subject.Assurance)
	}
	act := j.cat.Actions[j.asked.Action]
	if act.Capability {
		ctx["capability"] = act.Name
	}
	if code := j.fills(ctx, act.Context, policies.FromSent, j.asked.Context); code != "" {
		return nil, code
	}
	if len(act.Properties) > 0 {
		props := map[string]policies.Value{}
		if code := j.fills(props, act.Properties, policies.FromSent, j.asked.Props); code != "" {
			return nil, code
		}
		ctx["action"] = props
	}
	if g != nil {
		ctx["grant"] = policies.Ref{Type: j.cat.Namespace + "::Grant", ID: g.ID}
	}
	return ctx, ""
}

// scope is the Scope entity that stands for a node or person and all below it.
func (j *judging) scope(id hierarchy.ID) policies.Ref {
	ns := j.cat.Namespace
	if j.resource.Kind == policies.KindWard {
		ns = policies.WardNamespace
	}
	return policies.Ref{Type: ns + "::Scope", ID: id.String()}
}

// ref is the entity of a principal or person.
func (j *judging) ref(id hierarchy.ID) policies.Ref {
	if id == j.principal {
		return policies.Ref{Type: j.principalType.Entity, ID: id.Key}
	}
	return policies.Ref{Type: j.cat.Namespace + "::" + id.Type, ID: id.Key}
}

func (j *judging) refs(ids []hierarchy.ID) []policies.Value {
	out := make([]policies.Value, len(ids))
	for i, id := range ids {
		out[i] = j.ref(id)
	}
	return out
}

func lessRef(a, b policies.Ref) bool {
	return a.Type < b.Type || a.Type == b.Type && a.ID < b.ID
}

func sortIDs(ids []hierarchy.ID) {
	slices.SortFunc(ids, func(a, b hierarchy.ID) int { return cmp.Compare(a.String(), b.String()) })
}

func overlap(a, b []hierarchy.ID) bool {
	return slices.ContainsFunc(a, func(x hierarchy.ID) bool { return slices.Contains(b, x) })
}

func baseName(entity string) string {
	if i := strings.LastIndex(entity, "::"); i >= 0 {
		return entity[i+2:]
	}
	return entity
}
