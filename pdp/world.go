package pdp

import (
	"cmp"
	"slices"
	"sort"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// MaxAreas is how many areas a coarse question without a named area tries.
const MaxAreas = 64

// world is what an answer comes from besides the request: one policy set with
// the overlays of that revision, one revision of the facts, one reading of the
// clock.
type world struct {
	set      *policies.Set
	overlays map[string]*policies.Overlay // over the set, by tenant
	graph    *hierarchy.Graph
	confers  hierarchy.EdgeKinds
	rev      uint64
	now      hierarchy.Instant
}

// judgement is a Verdict with how it came about.
type judgement struct {
	slice
	verdict  authz.Verdict
	outcomes []policies.Outcome // of the attempts
	tenant   string             // the tenant of the resource, or ""
	fault    string             // what of the request was missing or wrong, for explanations
	// What the request resolved to, as far as it did.
	principal   hierarchy.ID
	scopes      []hierarchy.ID // of the resource, at the instant that applies
	anchors     []hierarchy.ID
	read        hierarchy.Instant // that instant
	owners      []hierarchy.ID
	grants      []delegated // that concern it: each an attempt
	emergencies []hierarchy.EmergencyFact
}

// judge answers. It is a function of its receiver and argument alone: it reads
// no clock, no store and no configuration, and writes nothing.
func (w world) judge(a *asked) judgement {
	r := hierarchy.NewReading()
	j := &judging{world: w, asked: a, reading: r,
		view: w.graph.At(w.now, w.rev, w.confers).Reading(r), cat: w.set.Catalogue()}
	code := j.run()
	if code != "" {
		j.attempts = nil // nobody is to be asked
	}
	j.code = cmp.Or(a.Declined, code)
	if t := r.Until(); t != hierarchy.Forever {
		j.until = t
	}
	j.verdict, j.outcomes = evaluate(&j.slice, w.set, w.overlays)
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
	persons       []hierarchy.ID // the principal's own
	assignments   []hierarchy.AssignmentFact
	live          []delegated              // all of them, whatever the request names
	grant         *hierarchy.Grant         // that the question is about, of a resource of kind grant
	emergency     *hierarchy.EmergencyFact // likewise
	orgs          []hierarchy.ID           // where it holds a role, once that was asked for
	kin           *[]hierarchy.ID          // its family, once it was asked for
	service       hierarchy.Instant        // of a sent record, when it has one
	dated         bool
}

// run resolves the request into attempts. A code other than "" is a deny before
// any policy was asked.
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
	case policies.KindGrant:
		return j.record(j.resolveGrant)
	case policies.KindEmergency:
		return j.record(j.resolveEmergency)
	}
	return authz.UnknownType
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

	var assignments, late []hierarchy.AssignmentFact
	for _, a := range j.assignments {
		if j.runsOut(a, j.tenant) {
			late = append(late, a)
		} else {
			assignments = append(assignments, a)
		}
	}
	for _, g := range j.live {
		if j.conferredAt(g.GrantFact) {
			j.grants = append(j.grants, g)
		}
	}
	j.emergencies = j.openEmergencies()
	stands := len(j.grants) > 0 || len(j.emergencies) > 0 || overlap(j.persons, j.owners) || j.party() ||
		slices.ContainsFunc(assignments, func(a hierarchy.AssignmentFact) bool { return j.inScopes(a.Node) })
	if !stands {
		return j.lapsed(late)
	}
	try := func(g *delegated, e *hierarchy.EmergencyFact, tags map[string][]policies.Ref) authz.Code {
		context, code := j.context(g, e, j.tenant)
		if code != "" {
			return code
		}
		principal, others, code := j.principalEntity(g, e)
		if code != "" {
			return code
		}
		principal.Tags = tags
		t := attempt{attemptHead{Counts: j.counts(g, e)}, &policies.Question{Principal: principal, Action: j.asked.Action, Resource: resource, Context: context, Others: others}}
		if g != nil {
			t.Grant = g.ID
		}
		if e != nil {
			t.Emergency = e.ID
		}
		j.try(t, j.tenant)
		return ""
	}
	tags := j.roleTags(assignments)
	if code := cmp.Or(try(nil, nil, tags), j.conferrable(tags, resource.Parents)); code != "" {
		return code
	}
	for i := range j.grants {
		g := &j.grants[i]
		if code := try(g, nil, j.tagsAt(g.capabilities, g.Subject)); code != "" {
			return code
		}
	}
	for i := range j.emergencies {
		e := &j.emergencies[i]
		if code := try(nil, e, j.tagsAt(j.view.Capabilities(j.cat.Emergency.Role), e.Node)); code != "" {
			return code
		}
	}
	return ""
}

// try adds an attempt that is about a tenant's record or area, with what that
// tenant forbids. Nothing that a tenant forbids stands over Ward's own objects,
// so that no tenant locks its administrators out, nor over the end of a grant or
// of an emergency, which nobody is to be kept from.
func (j *judging) try(t attempt, tenant string) {
	switch {
	case j.resource.Kind == policies.KindWard:
	case j.grant != nil && j.asked.Action == ActionRevokeGrant:
	case j.emergency != nil && (j.asked.Action == ActionEndEmergency || j.asked.Action == ActionReviewEmergency):
	default:
		if o := j.overlays[tenant]; o != nil {
			t.Tenant, t.Overlay = tenant, o.Digest()
		}
	}
	j.attempts = append(j.attempts, t)
}
