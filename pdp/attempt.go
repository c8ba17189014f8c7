package pdp

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// counts reports whether an attempt may permit: a request that names a grant, or
// none, only narrows. The other attempts still run, for a forbid that cannot be
// evaluated denies in any.
func (j *judging) counts(g *delegated, e *hierarchy.EmergencyFact) bool {
	switch {
	case j.asked.Grant == "":
		return true
	case e != nil:
		return false
	case g == nil:
		return j.asked.Grant == authz.NoGrant
	}
	return j.asked.Grant == g.ID
}

// delegated is a live grant with what of it the principal may use: what it
// confers, or of a grant to an organisation those that the principal's
// roles at that very organisation hold too.
type delegated struct {
	hierarchy.GrantFact
	capabilities []string
}

// delegations returns the principal's live grants, and those of the organisations at
// which it holds a role, from the narrowest to the widest.
func (j *judging) delegations() []delegated {
	var out []delegated
	for _, g := range j.view.Grants(j.principal) {
		out = append(out, delegated{g, j.given(&g)})
	}
	for _, node := range j.organisations() {
		grants := j.view.Grants(node)
		if len(grants) == 0 {
			continue
		}
		held := map[string]bool{}
		for _, a := range j.assignments {
			if a.Node == node {
				for _, c := range j.held(a.Role) {
					held[c] = true
				}
			}
		}
		for _, g := range grants {
			var both []string
			for _, c := range j.given(&g) {
				if held[c] {
					both = append(both, c)
				}
			}
			if len(both) > 0 {
				out = append(out, delegated{g, both})
			}
		}
	}
	slices.SortFunc(out, narrower)
	return out
}

// organisations returns the nodes where the principal holds a role that has not
// run out.
func (j *judging) organisations() []hierarchy.ID {
	if j.orgs == nil {
		seen := make(map[hierarchy.ID]bool, len(j.assignments))
		j.orgs = make([]hierarchy.ID, 0, len(j.assignments))
		for _, a := range j.assignments {
			if !seen[a.Node] && !j.runsOut(a, a.Node.Owner()) {
				j.orgs = append(j.orgs, a.Node)
			}
			seen[a.Node] = true
		}
	}
	return j.orgs
}

// openEmergencies returns the principal's open emergencies for this very record:
// never one of its own or of its family.
func (j *judging) openEmergencies() []hierarchy.EmergencyFact {
	if j.cat.Emergency == nil || len(j.owners) == 0 || j.resource.Kind == policies.KindGrant || j.resource.Kind == policies.KindEmergency {
		return nil
	}
	var out []hierarchy.EmergencyFact
	for _, e := range j.view.Emergencies(j.principal) {
		if e.Valid.Holds(j.now) && slices.Contains(j.owners, e.Person) && j.inScopes(e.Node) &&
			!overlap(j.persons, j.owners) && !overlap(j.family(), j.owners) {
			out = append(out, e)
		}
	}
	return out
}

// runsOut reports whether an assignment at a node that has ended has no run-out
// left, as the tenant has set it.
func (j *judging) runsOut(a hierarchy.AssignmentFact, tenant string) bool {
	if j.cat.RunOut == "" || tenant == "" {
		return false
	}
	ended, ok := j.view.EndedAt(a.Node)
	if !ok {
		return false
	}
	days, _ := j.setting(tenant, j.cat.Settings[j.cat.RunOut]).(int64)
	until := ended + hierarchy.Instant(days)*24*60*60*1000
	if until > j.now {
		j.reading.Note(until)
	}
	return until <= j.now
}

// setting returns what a tenant has set, or the default.
func (j *judging) setting(tenant string, s *policies.Setting) policies.Value {
	if tenant != "" {
		// What an earlier pack took and this one does not is not in force.
		if v, _, ok := j.view.Setting(hierarchy.TenantID(tenant), s.Name); ok && s.Takes(v) {
			return v
		}
	}
	return s.Default
}

// tagsAt gives capabilities at one node or person.
func (j *judging) tagsAt(capabilities []string, at hierarchy.ID) map[string][]policies.Ref {
	tags := make(map[string][]policies.Ref, len(capabilities))
	for _, c := range capabilities {
		tags[c] = []policies.Ref{j.scope(at)}
	}
	return tags
}

// narrower orders grants from the narrowest to the widest, ties by id.
func narrower(a, b delegated) int {
	return cmp.Or(
		cmp.Compare(len(a.capabilities), len(b.capabilities)),
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
// they would: of Ward's own capabilities they must hold each there themselves,
// of the pack's they confer any where they act as the operator's or network's,
// and else what lies within a tenant's ceiling.
func (j *judging) conferrable(tags map[string][]policies.Ref, at []policies.Ref) authz.Code {
	wide := slices.ContainsFunc(tags[j.asked.Action], func(r policies.Ref) bool {
		return slices.Contains(at, r) && (strings.HasPrefix(r.ID, hierarchy.OperatorType+":") || strings.HasPrefix(r.ID, hierarchy.NetworkType+":"))
	})
	for _, c := range j.asked.Confers {
		switch {
		case j.cat.Own(c):
			if !slices.ContainsFunc(tags[c], func(r policies.Ref) bool { return slices.Contains(at, r) }) {
				return j.faulty(authz.NotConferrable, fmt.Sprintf("who makes the change does not hold %s at %s and so cannot give it", c, j.asked.Hangs[0]))
			}
		case !wide && !j.cat.WithinTenant(c):
			return j.faulty(authz.AboveCeiling, fmt.Sprintf("%s is above the ceiling at %s: the roles that the pack lists as tenantRoles do not hold it", c, j.asked.Hangs[0]))
		}
	}
	return ""
}

// held returns what a role confers. A tenant's own role holds nothing of the
// pack above the ceiling that the set now in force gives tenants, whatever it
// was when the role was defined.
func (j *judging) held(role string) []string {
	list := j.view.Capabilities(role)
	if strings.Contains(role, "/") {
		list = slices.DeleteFunc(list, func(c string) bool { return !j.cat.Own(c) && !j.cat.WithinTenant(c) })
	}
	return list
}

// given returns what a grant confers: of what it says, what its type and the
// grantor at the root of its chain could give.
func (j *judging) given(g *hierarchy.GrantFact) []string {
	root := &g.Grant
	if len(g.Chain) > 1 {
		f, ok := j.view.Fact(g.Chain[0])
		if !ok {
			return nil
		}
		root = f.Event.Grant
	}
	list := g.Scope.Capabilities
	beyond := func(c string) bool { return !delegable(j.cat, &g.Grant, c) || !delegable(j.cat, root, c) }
	if slices.ContainsFunc(list, beyond) {
		list = slices.DeleteFunc(slices.Clone(list), beyond)
	}
	return list
}

// delegable reports whether a grant may confer a capability, as far as its type
// and grantor say. What one in a chain may is its root's to say.
func delegable(cat *policies.Catalogue, g *hierarchy.Grant, capability string) bool {
	switch {
	case g.Subject.Type == hierarchy.PersonType:
		return cat.Delegable(g.Type, capability)
	case cat.Own(capability):
		return false
	case g.Parent != "", g.Grantor.Type == hierarchy.OperatorType, g.Grantor.Type == hierarchy.NetworkType:
		return true
	}
	return cat.WithinTenant(capability)
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
	if r := j.asked.Resource; len(g.Scope.Records) > 0 && !slices.Contains(g.Scope.Records, r.Type+":"+r.ID) {
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
// given it, had it not ended, or no_standing. late are the live assignments
// whose run-out is over.
func (j *judging) lapsed(late []hierarchy.AssignmentFact) authz.Code {
	var ended authz.Code
	for _, grantee := range append([]hierarchy.ID{j.principal}, j.organisations()...) {
		for _, g := range j.view.EndedGrants(grantee) {
			if j.conferredAt(g) {
				if g.ByMajority {
					return authz.MajorityReached
				}
				ended = authz.GrantEnded
			}
		}
	}
	if ended != "" {
		return ended
	}
	for _, a := range append(late, j.view.EndedAssignments(j.principal)...) {
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
		for _, c := range j.held(a.Role) {
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
// attributes and the grant or emergency refer to. In an attempt with either the
// principal is nobody's own person, so that no self rule can match.
func (j *judging) principalEntity(g *delegated, x *hierarchy.EmergencyFact) (policies.Entity, []policies.Entity, authz.Code) {
	e := policies.Entity{Ref: j.ref(j.principal), Attrs: map[string]policies.Value{}}
	var others []policies.Entity
	node, _, _ := j.view.Node(j.principal)
	for name, attr := range j.principalType.Attributes {
		switch {
		case attr.From != policies.FromWard:
		case name == "persons" && (g != nil || x != nil):
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
		covers := j.sensitivities(g.Scope.Covers)
		others = append(others, policies.Entity{Ref: policies.Ref{Type: j.cat.Namespace + "::Grant", ID: g.ID},
			Attrs: map[string]policies.Value{"covers": covers, "type": g.Type, "personal": g.Subject.Type == hierarchy.PersonType}})
	}
	if x != nil {
		others = append(others, policies.Entity{Ref: policies.Ref{Type: j.cat.Namespace + "::Emergency", ID: x.ID},
			Attrs: map[string]policies.Value{"reason": x.Reason, "opened": policies.Datetime(x.Valid.From)}})
	}
	return e, others, ""
}

func (j *judging) sensitivities(names []string) []policies.Value {
	out := make([]policies.Value, len(names))
	for i, n := range names {
		out[i] = policies.Ref{Type: j.cat.Namespace + "::Sensitivity", ID: n}
	}
	return out
}

// family returns the persons related to the principal's own, and of the record's
// owners those that the human being behind it represents, or has represented, as
// a parent or guardian.
func (j *judging) family() []hierarchy.ID {
	if j.kin != nil {
		return *j.kin
	}
	ids := j.view.Family(j.persons...)
	accounts := j.human(j.principal)
	for _, p := range j.owners {
		if slices.ContainsFunc(accounts, func(u hierarchy.ID) bool {
			return slices.ContainsFunc(j.cat.FamilyGrants, func(typ string) bool { return j.view.Granted(u, p, typ) })
		}) {
			ids = append(ids, j.owners...)
			break
		}
	}
	sortIDs(ids)
	ids = slices.Compact(ids)
	j.kin = &ids
	return ids
}

// context builds what policies read as context; the tenant is whose settings
// hold. It has what the action's schema has, and nothing else.
func (j *judging) context(g *delegated, e *hierarchy.EmergencyFact, tenant string) (map[string]policies.Value, authz.Code) {
	ctx := map[string]policies.Value{"now": policies.Datetime(j.now)}
	act := j.cat.Actions[j.asked.Action]
	if act.Given["aal"] {
		ctx["aal"] = int64(j.asked.Subject.Assurance)
	}
	if act.Given["capability"] {
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
	if act.Given["settings"] {
		settings := make(map[string]policies.Value, len(j.cat.Settings))
		for name, s := range j.cat.Settings {
			settings[name] = j.setting(tenant, s)
		}
		ctx["settings"] = settings
	}
	if g != nil && act.Given["grant"] {
		ctx["grant"] = policies.Ref{Type: j.cat.Namespace + "::Grant", ID: g.ID}
	}
	if e != nil && act.Given["emergency"] {
		ctx["emergency"] = policies.Ref{Type: j.cat.Namespace + "::Emergency", ID: e.ID}
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
