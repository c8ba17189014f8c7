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
	verdict  authz.Verdict
	tenant   string // the tenant of the resource, or ""
	fault    string // what of the request was missing or wrong, for explanations
	attempts []attempt
	// What the request resolved to, as far as it did.
	principal hierarchy.ID
	scopes    []hierarchy.ID // of the resource, at the instant that applies
	anchors   []hierarchy.ID
	read      hierarchy.Instant // that instant
	owners    []hierarchy.ID
}

// attempt is one evaluation: without a grant, with one, with an emergency, or in
// one area.
type attempt struct {
	grant     *delegated
	emergency *hierarchy.EmergencyFact
	area      hierarchy.ID
	question  *policies.Question
	overlay   *policies.Overlay // of the tenant that it is about, or nil
	outcome   policies.Outcome
}

// judge answers. It is a function of its receiver and argument alone: it reads
// no clock, no store and no configuration, and writes nothing.
func (w world) judge(a *asked) judgement {
	r := hierarchy.NewReading()
	j := &judging{world: w, asked: a, reading: r,
		view: w.graph.At(w.now, w.rev, w.confers).Reading(r), cat: w.set.Catalogue()}
	code := cmp.Or(j.asked.Declined, j.run())
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
	var grants []delegated
	for _, g := range j.live {
		if j.conferredAt(g.GrantFact) {
			grants = append(grants, g)
		}
	}
	emergencies := j.emergencies()
	stands := len(grants) > 0 || len(emergencies) > 0 || overlap(j.persons, j.owners) || j.party() ||
		slices.ContainsFunc(assignments, func(a hierarchy.AssignmentFact) bool { return j.inScopes(a.Node) })
	if !stands {
		return j.lapsed(late)
	}
	try := func(t attempt, tags map[string][]policies.Ref) authz.Code {
		context, code := j.context(&t, j.tenant)
		if code != "" {
			return code
		}
		principal, others, code := j.principalEntity(&t)
		if code != "" {
			return code
		}
		principal.Tags = tags
		t.question = &policies.Question{Principal: principal, Action: j.asked.Action, Resource: resource, Context: context, Others: others}
		j.attempts = append(j.attempts, t)
		return ""
	}
	tags := j.roleTags(assignments)
	if code := cmp.Or(try(attempt{}, tags), j.conferrable(tags, resource.Parents)); code != "" {
		return code
	}
	for i := range grants {
		if code := try(attempt{grant: &grants[i]}, j.tagsAt(grants[i].capabilities, grants[i].Subject)); code != "" {
			return code
		}
	}
	for i := range emergencies {
		e := &emergencies[i]
		if code := try(attempt{emergency: e}, j.tagsAt(j.view.Capabilities(j.cat.Emergency.Role), e.Node)); code != "" {
			return code
		}
	}
	return j.evaluate()
}

// evaluate runs every attempt and derives the verdict.
func (j *judging) evaluate() authz.Code {
	v := &j.verdict
	var winner *attempt
	var forbids, errs []string
	failed := false // a forbid could not be evaluated
	halted := false // a tenant's own could not, in its own area
	cedar := false
	for i := range j.attempts {
		t := &j.attempts[i]
		if t.overlay = j.overlay(t); t.overlay != nil {
			t.outcome = t.overlay.Evaluate(t.question)
		} else {
			t.outcome = j.set.Evaluate(t.question)
		}
		j.until(t.outcome.Until)
		ended := false
		for _, e := range t.outcome.Errors {
			errs = append(errs, e.Policy.ID)
			switch {
			case !e.Policy.Forbid:
			case e.Policy.Tenant != "" && !t.area.IsZero():
				ended, halted = true, true // other tenants' areas are not its business
			default:
				failed = true
			}
		}
		for _, p := range t.outcome.Forbids {
			forbids = append(forbids, p.ID)
		}
		if t.outcome.Cedar == authz.Allow && (j.counts(t) || !t.area.IsZero()) {
			if cedar = true; ended {
				continue
			}
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
	case failed || halted && winner == nil:
		// Cedar skips a forbid that errors; Ward does not.
		v.Code, v.Areas = authz.Indeterminate, nil
		if v.Cedar = "deny"; cedar {
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
		if winner.emergency != nil {
			v.Emergency = winner.emergency.ID
		}
	case len(forbids) > 0:
		v.Code, v.Reasons = authz.Forbidden, unique(forbids)
	default:
		v.Code = authz.Denied
	}
	sort.Strings(v.Areas)
	return ""
}

// overlay returns what the tenant forbids that an attempt is about: the
// record's, or the area's. None stands over Ward's own objects, so that no
// tenant locks its administrators out, nor over the end of a grant or of an
// emergency, which nobody is to be kept from.
func (j *judging) overlay(t *attempt) *policies.Overlay {
	switch {
	case j.resource.Kind == policies.KindWard:
		return nil
	case j.grant != nil && j.asked.Action == ActionRevokeGrant,
		j.emergency != nil && (j.asked.Action == ActionEndEmergency || j.asked.Action == ActionReviewEmergency):
		return nil
	case !t.area.IsZero():
		return j.overlays[t.area.Owner()]
	}
	return j.overlays[j.tenant]
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
