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

// MaxAreas is how many areas a coarse question without a named area tries.
const MaxAreas = 64

// world is what an answer comes from besides the request: one policy set, one
// revision of the facts, one reading of the clock.
type world struct {
	set     *policies.Set
	graph   *hierarchy.Graph
	confers hierarchy.EdgeKinds
	rev     uint64
	now     hierarchy.Instant
}

// judgement is a Verdict with how it came about.
type judgement struct {
	verdict  authz.Verdict
	tenant   string // the tenant of the resource, or ""
	attempts []attempt
	// What the request resolved to, as far as it did.
	principal hierarchy.ID
	scopes    []hierarchy.ID // of the resource, at the instant that applies
	anchors   []hierarchy.ID
	read      hierarchy.Instant // that instant
	owners    []hierarchy.ID
}

// attempt is one evaluation: without a grant, with one, or in one area.
type attempt struct {
	grant    *hierarchy.GrantFact
	area     hierarchy.ID
	question *policies.Question
	outcome  policies.Outcome
}

// judge answers. It is a function of its receiver and argument alone: it reads
// no clock, no store and no configuration, and writes nothing.
func (w world) judge(a *asked) judgement {
	r := hierarchy.NewReading()
	j := &judging{world: w, asked: a, reading: r,
		view: w.graph.At(w.now, w.rev, w.confers).Reading(r), cat: w.set.Catalogue()}
	code := j.run()
	if code != "" {
		j.verdict = authz.Verdict{Code: code}
	}
	j.until(int64(r.Until()))
	return j.judgement
}

type judging struct {
	world
	judgement
	asked   *asked
	cat     *policies.Catalogue
	view    hierarchy.View // at now
	reading *hierarchy.Reading

	principalType *policies.PrincipalType
	resource      *policies.ResourceType
	persons       []hierarchy.ID        // the principal's own
	live          []hierarchy.GrantFact // all of them, whatever the request names
	service       hierarchy.Instant     // of a sent record, when it has one
	dated         bool
}

// until lowers the verdict's validUntil to t.
func (j *judging) until(t int64) {
	if t != int64(hierarchy.Forever) && (j.verdict.ValidUntil == 0 || t < j.verdict.ValidUntil) {
		j.verdict.ValidUntil = t
	}
}

// run resolves the request and evaluates it. A code other than "" is a deny
// before any policy was asked.
func (j *judging) run() authz.Code {
	a := j.asked
	if a.Refusal != "" {
		return a.Refusal
	}
	if !a.Verified {
		return authz.SubjectUnverified
	}
	if j.principalType = j.cat.Principals[a.Subject.Type]; j.principalType == nil {
		return authz.UnknownType
	}
	if j.resource = j.cat.Resources[a.Resource.Type]; j.resource == nil {
		return authz.UnknownType
	}
	act := j.cat.Actions[a.Action]
	if act == nil || !slices.Contains(act.Resources, a.Resource.Type) || !slices.Contains(act.Principals, a.Subject.Type) {
		return authz.UnknownAction
	}
	if code := j.resolveSubject(); code != "" {
		return code
	}
	switch j.resource.Kind {
	case policies.KindFeature, policies.KindRoute:
		return j.coarse()
	case policies.KindSent:
		return j.record(j.resolveSent)
	case policies.KindGraph:
		return j.record(j.resolveNode)
	case policies.KindWard:
		return j.record(j.resolveObject)
	}
	return authz.UnknownType
}

func (j *judging) resolveSubject() authz.Code {
	s := j.asked.Subject
	base := baseName(j.principalType.Entity)
	if s.Issuer != "" {
		id, _, ok := j.view.Principal(s.Issuer, s.ID)
		if !ok {
			return authz.SubjectUnlinked
		}
		j.principal = id
	} else {
		j.principal = hierarchy.ID{Type: base, Key: s.ID}
	}
	if j.principal.Valid() != nil || j.principal.Type != base {
		return authz.UnknownSubject
	}
	if n, _, ok := j.view.Node(j.principal); !ok || !n.Principal {
		return authz.UnknownSubject
	}
	j.persons = j.view.Persons(j.principal)
	if j.resource.Kind != policies.KindWard { // nobody administers Ward by delegation
		j.live = j.view.Grants(j.principal)
	}
	slices.SortFunc(j.live, narrower)
	return ""
}

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

// resolveNode resolves a resource that is a node of the graph, read at now. Its
// id is the node's own ("Coverage:acme/c1").
func (j *judging) resolveNode() (policies.Entity, authz.Code) {
	id, err := hierarchy.ParseID(j.asked.Resource.ID)
	if err != nil || id.Type != j.resource.Node {
		return policies.Entity{}, authz.UnknownResource
	}
	node, _, ok := j.view.Node(id)
	if !ok {
		return policies.Entity{}, authz.UnknownResource
	}
	j.read = j.now
	j.anchors = []hierarchy.ID{id}
	j.scopes = j.view.Closure(id)
	j.tenant = id.Owner()
	if id.Type == hierarchy.PersonType {
		j.owners = j.view.Merged(id)
	} else {
		j.owners = j.view.Owners(id)
	}
	return j.entity(j.asked.Resource.ID, node.Attrs)
}

// resolveSent resolves a record that lives in a module's own database: its
// anchors alone give it parents and a tenant.
func (j *judging) resolveSent() (policies.Entity, authz.Code) {
	rt, props := j.resource, j.asked.Resource.Props
	j.read = j.now
	if !slices.Contains(rt.Authority, j.asked.Caller) {
		return policies.Entity{}, authz.AnchorMissing // nobody else knows the record
	}
	for _, anchor := range rt.Anchors {
		if _, sent := props[anchor.Property]; !sent {
			return policies.Entity{}, authz.AnchorMissing
		}
	}
	if rt.Instant != "" {
		s, ok := props[rt.Instant].(string)
		if !ok {
			return policies.Entity{}, authz.AttributeMissing
		}
		at, err := ParseTime(s, rt.Zone, false)
		if err != nil {
			return policies.Entity{}, authz.AttributeInvalid
		}
		j.read, j.service, j.dated = at, at, true
	}
	// What was true at the service date does not change as time passes: this
	// view bounds no validUntil.
	then := j.view
	if j.read != j.now {
		then = j.graph.At(j.read, j.rev, j.confers)
	}
	if len(rt.Anchors) == 0 {
		id, err := hierarchy.ParseID(rt.HangsFrom)
		if err != nil {
			return policies.Entity{}, authz.AnchorMissing
		}
		if _, _, ok := j.view.Node(id); !ok {
			return policies.Entity{}, authz.AnchorMissing
		}
		j.anchors = []hierarchy.ID{id}
		j.tenant = id.Owner()
	}
	var owner hierarchy.ID
	for _, anchor := range rt.Anchors {
		v := props[anchor.Property]
		if v == nil {
			continue // the authority says that there is none
		}
		s, _ := v.(string)
		id, err := hierarchy.ParseID(s)
		if err != nil || id.Type != anchor.Type {
			return policies.Entity{}, authz.AnchorMissing
		}
		// It must be known. Whether it had ended by then decides what it hangs
		// from: its tenant, which is part of its key, in any case.
		if !then.Known(id) {
			return policies.Entity{}, authz.AnchorMissing
		}
		if t := id.Owner(); t != "" {
			if j.tenant != "" && j.tenant != t {
				j.tenant = ""
				return policies.Entity{}, authz.AnchorConflict
			}
			j.tenant = t
		}
		if anchor.Property == rt.Owner {
			owner = id
		}
		j.anchors = append(j.anchors, id)
	}
	if len(j.anchors) == 0 || rt.Owner != "" && owner.IsZero() && !rt.OwnerOptional {
		return policies.Entity{}, authz.AnchorMissing
	}
	for i, a := range j.anchors {
		for _, b := range j.anchors[i+1:] {
			if !j.agree(then, a, b) {
				return policies.Entity{}, authz.AnchorConflict
			}
		}
	}
	up := then.Closure(j.anchors...)
	if j.tenant != "" && j.read != j.now {
		// The tenant belongs to its operator now, whenever it joined.
		up = append(up, j.view.Closure(hierarchy.TenantID(j.tenant))...)
		sortIDs(up)
		up = slices.Compact(up)
	}
	for _, id := range up {
		if id.Type != hierarchy.NetworkType { // a role over the network reaches no record
			j.scopes = append(j.scopes, id)
		}
	}
	if !owner.IsZero() {
		j.owners = j.view.Owners(owner)
	}
	return j.entity(j.asked.Resource.ID, nil)
}

// agree reports whether two anchors do not contradict each other: where one's
// type can be an ancestor of the other's, it is one at that instant.
func (j *judging) agree(then hierarchy.View, a, b hierarchy.ID) bool {
	above, below := j.cat.CanContain(a.Type, b.Type), j.cat.CanContain(b.Type, a.Type)
	switch {
	case above && below:
		return then.Reaches(a, b) || then.Reaches(b, a)
	case above:
		return then.Reaches(b, a)
	case below:
		return then.Reaches(a, b)
	}
	return true
}

// resolveObject resolves one of Ward's own objects, which hangs from the nodes
// that the PDP itself found it to concern, and from the operator, who runs all
// of it.
func (j *judging) resolveObject() (policies.Entity, authz.Code) {
	if len(j.asked.Hangs) == 0 {
		return policies.Entity{}, authz.UnknownResource
	}
	j.read = j.now
	j.anchors = j.asked.Hangs
	j.scopes = j.view.Closure(append([]hierarchy.ID{operator(j.view)}, j.asked.Hangs...)...)
	j.tenant = j.asked.Hangs[0].Owner()
	return j.entity(j.asked.Resource.ID, nil)
}

// entity builds the resource as policies read it.
func (j *judging) entity(id string, facts map[string]any) (policies.Entity, authz.Code) {
	rt := j.resource
	e := policies.Entity{Ref: policies.Ref{Type: rt.Entity, ID: id}, Attrs: map[string]policies.Value{}}
	for _, s := range j.scopes {
		e.Parents = append(e.Parents, j.scope(s))
	}
	for _, p := range j.owners {
		e.Parents = append(e.Parents, j.scope(p))
	}
	for name, attr := range rt.Attributes {
		var v any
		var have bool
		switch attr.From {
		case policies.FromSent:
			v, have = j.asked.Resource.Props[name]
		case policies.FromFact:
			v, have = facts[name]
		case policies.FromWard:
			e.Attrs[name] = j.derived(name)
			continue
		}
		if !have || v == nil {
			if attr.Required {
				return e, authz.AttributeMissing
			}
			continue
		}
		value, ok := attribute(attr, v)
		if !ok {
			return e, authz.AttributeInvalid
		}
		e.Attrs[name] = value
	}
	return e, ""
}

// derived returns a resource attribute that only the PDP gives.
func (j *judging) derived(name string) policies.Value {
	switch name {
	case "owners":
		return j.refs(j.owners)
	case "blocked":
		var users []hierarchy.ID
		for _, p := range j.owners {
			for _, b := range j.view.Blocks(p) {
				// Who is blocked is blocked by any account they have.
				users = append(users, b.Principal)
				if persons := j.view.Persons(b.Principal); len(persons) > 0 {
					users = append(users, j.view.Principals(persons...)...)
				}
			}
		}
		sortIDs(users)
		return j.refs(slices.Compact(users))
	case "entitled":
		return j.entitled(j.tenant, j.resource.Module)
	}
	return nil
}

// entitled reports whether a tenant has one of the named modules or features.
// What belongs to no tenant, or to no module, needs no entitlement.
func (j *judging) entitled(tenant string, names ...string) bool {
	if tenant == "" || names[0] == "" {
		return true
	}
	for _, n := range names {
		if j.view.Entitled(hierarchy.TenantID(tenant), n) {
			return true
		}
	}
	return false
}

// record answers about one record or object: standing, then every attempt.
func (j *judging) record(resolve func() (policies.Entity, authz.Code)) authz.Code {
	resource, code := resolve()
	if code != "" {
		// Whether the subject stands at an unresolvable resource cannot be told.
		return code
	}
	sort.Slice(resource.Parents, func(a, b int) bool { return lessRef(resource.Parents[a], resource.Parents[b]) })
	resource.Parents = slices.Compact(resource.Parents)

	assignments := j.view.Assignments(j.principal)
	var grants []hierarchy.GrantFact
	for _, g := range j.live {
		if j.conferredAt(g) {
			grants = append(grants, g)
		}
	}
	stands := len(grants) > 0 || overlap(j.persons, j.owners) ||
		slices.ContainsFunc(assignments, func(a hierarchy.AssignmentFact) bool { return j.inScopes(a.Node) })
	if !stands {
		return j.lapsed()
	}
	context, code := j.context(nil)
	if code != "" {
		return code
	}
	principal, others, code := j.principalEntity(nil)
	if code != "" {
		return code
	}
	principal.Tags = j.roleTags(assignments)
	j.attempts = append(j.attempts, attempt{question: &policies.Question{
		Principal: principal, Action: j.asked.Action, Resource: resource, Context: context, Others: others}})
	if code := j.conferrable(principal.Tags, resource.Parents); code != "" {
		return code
	}
	for i := range grants {
		g := &grants[i]
		context, _ := j.context(g)
		principal, others, _ := j.principalEntity(g)
		principal.Tags = map[string][]policies.Ref{}
		for _, c := range g.Scope.Capabilities {
			principal.Tags[c] = []policies.Ref{j.scope(g.Subject)}
		}
		j.attempts = append(j.attempts, attempt{grant: g, question: &policies.Question{
			Principal: principal, Action: j.asked.Action, Resource: resource, Context: context, Others: others}})
	}
	return j.evaluate()
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
		var v any
		var have bool
		switch attr.From {
		case policies.FromSent:
			v, have = j.asked.Subject.Props[name]
		case policies.FromFact:
			v, have = node.Attrs[name]
		case policies.FromWard:
			switch name {
			case "persons":
				if g == nil {
					e.Attrs[name] = j.refs(j.persons)
				} else {
					e.Attrs[name] = []policies.Value{}
				}
			case "family":
				e.Attrs[name] = j.refs(j.family())
			}
			continue
		}
		if !have || v == nil {
			if attr.Required {
				return e, nil, authz.AttributeMissing
			}
			continue
		}
		value, ok := attribute(attr, v)
		if !ok {
			return e, nil, authz.AttributeInvalid
		}
		e.Attrs[name] = value
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
// represents as a parent or guardian.
func (j *judging) family() []hierarchy.ID {
	ids := j.view.Family(j.persons...)
	for _, g := range j.view.Grants(j.principal) {
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
	for name, attr := range act.Context {
		v, have := j.asked.Context[name]
		if !have || v == nil {
			if attr.Required {
				return nil, authz.AttributeMissing
			}
			continue
		}
		value, ok := attribute(attr, v)
		if !ok {
			return nil, authz.AttributeInvalid
		}
		ctx[name] = value
	}
	if len(act.Properties) > 0 {
		props := map[string]policies.Value{}
		for name, attr := range act.Properties {
			v, have := j.asked.Props[name]
			if !have || v == nil {
				if attr.Required {
					return nil, authz.AttributeMissing
				}
				continue
			}
			value, ok := attribute(attr, v)
			if !ok {
				return nil, authz.AttributeInvalid
			}
			props[name] = value
		}
		ctx["action"] = props
	}
	if g != nil {
		ctx["grant"] = policies.Ref{Type: j.cat.Namespace + "::Grant", ID: g.ID}
	}
	return ctx, ""
}

// evaluate runs every attempt and derives the verdict.
func (j *judging) evaluate() authz.Code {
	v := &j.verdict
	var winner *attempt
	var forbids, errs []string
	failed := false // a forbid could not be evaluated
	for i := range j.attempts {
		t := &j.attempts[i]
		t.outcome = j.set.Evaluate(t.question)
		j.until(t.outcome.Until)
		for _, e := range t.outcome.Errors {
			errs = append(errs, e.Policy.ID)
			failed = failed || e.Policy.Forbid
		}
		for _, p := range t.outcome.Forbids {
			forbids = append(forbids, p.ID)
		}
		grant := ""
		if t.grant != nil {
			grant = t.grant.ID
		}
		if t.outcome.Cedar == authz.Allow && (j.counts(grant) || !t.area.IsZero()) {
			if winner == nil {
				winner = t
			}
			if !t.area.IsZero() {
				v.Areas = append(v.Areas, t.area.String())
			}
		}
	}
	v.Errors = unique(errs)
	switch {
	case failed:
		// Cedar skips a forbid that errors; Ward does not.
		v.Code, v.Areas = authz.Indeterminate, nil
		if v.Cedar = "deny"; winner != nil {
			v.Cedar = "allow"
		}
		v.Reasons = unique(forbids)
	case winner != nil:
		v.Effect, v.Code = authz.Allow, authz.Permitted
		var reasons []string
		for _, p := range winner.outcome.Permits {
			reasons = append(reasons, p.ID)
			v.Obligations = append(v.Obligations, p.Obligations...)
			v.Advice = append(v.Advice, p.Advice...)
		}
		v.Reasons = unique(reasons)
		v.Obligations, v.Advice = uniqueObligations(v.Obligations), uniqueObligations(v.Advice)
		if winner.grant != nil {
			v.Grant = winner.grant.ID
		}
	case len(forbids) > 0:
		v.Code, v.Reasons = authz.Forbidden, unique(forbids)
	default:
		v.Code = authz.Denied
	}
	sort.Strings(v.Areas)
	return ""
}

func unique(s []string) []string {
	sort.Strings(s)
	return slices.Compact(s)
}

func uniqueObligations(o []authz.Obligation) []authz.Obligation {
	slices.SortFunc(o, func(a, b authz.Obligation) int { return cmp.Compare(obligationKey(a), obligationKey(b)) })
	return slices.CompactFunc(o, func(a, b authz.Obligation) bool { return obligationKey(a) == obligationKey(b) })
}

func obligationKey(o authz.Obligation) string {
	var b strings.Builder
	b.WriteString(o.ID)
	names := make([]string, 0, len(o.Properties))
	for n := range o.Properties {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		b.WriteString("\x00" + n + "\x00" + o.Properties[n])
	}
	return b.String()
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
