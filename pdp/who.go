package pdp

import (
	"context"
	"maps"
	"slices"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Whom is who may do something, of those that stand where it would be done.
type Whom struct {
	// Unresolved is why the question has no resource to stand at, as a code of
	// a verdict: unknown_resource, anchor_missing, area_required, …. Nobody was
	// asked then.
	Unresolved authz.Code
	// Candidates is how many principals stand there; the first of them, by id,
	// were asked.
	Candidates int
	Principals []hierarchy.ID
	Verdicts   []authz.Verdict // of the principals, in order
	// Openers have an emergency open on the record, or may open one: of those that
	// were asked the latter, of all the former.
	Openers  []Opener
	Records  []string // of the inquiries, one for each MaxInquiry questions, and one about openers
	At       hierarchy.Instant
	Revision uint64
	Set      string
}

// Opener is somebody for whom the glass is broken, or may be.
type Opener struct {
	Principal hierarchy.ID
	// Emergency is open, until Until; empty for who may open one.
	Emergency string
	Until     hierarchy.Instant
	// Reasons are the policies by which one may be opened.
	Reasons []string
}

// MaxWho is how many principals one call of [PDP.Who] asks at most.
const MaxWho = 10 * MaxInquiry

// Who asks for every principal that stands at a resource whether it may do an
// action on it. The inquiry's one request says what and where; of its subject
// only assurance and properties count. At most limit principals are asked (0,
// or more than MaxWho: MaxWho).
//
// Without standing every answer is a deny, so nobody else need be asked:
// candidates hold a role at the resource, or at something it hangs from, are a
// person that owns it, have a grant about either, or an emergency open on it. In an area (of a feature or
// route) also what lies below it counts; they are found among all assignments,
// links and grants then, and else at the nodes themselves. The questions are inquiries, of one instant and revision;
// where there is none to ask, the permission to ask is recorded instead.
func (p *PDP) Who(ctx context.Context, q Inquiry, limit int) (Whom, error) {
	if len(q.Requests) != 1 {
		return Whom{}, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "who may is asked about one action on one resource"}
	}
	asker, err := p.permit(ctx, q.Actor, q.Caller, "inquiry.ask", false)
	if err != nil {
		return Whom{}, err
	}
	w, head, err := p.worldAt(ctx, q.At, q.KnownAt)
	if err != nil {
		return Whom{}, err
	}
	rec := recording{kind: audit.Inquiry, world: w, head: head, inquiry: &sealedInquiry{asker, q.Caller.Name}}
	if q.At != 0 {
		if rec.at, err = p.clock.now(); err != nil {
			return Whom{}, err
		}
	}
	q.At, q.KnownAt = w.now, w.rev // of all questions
	out := Whom{At: w.now, Revision: w.rev, Set: w.set.Digest()}
	r := q.Requests[0]
	found, code, err := w.candidates(ctx, &r)
	if err != nil {
		return Whom{}, err
	}
	out.Unresolved, out.Candidates = code, len(found)
	if len(found) == 0 {
		_, err := p.permit(ctx, q.Actor, q.Caller, "inquiry.ask", true)
		return out, err
	}
	ids := slices.Collect(maps.Keys(found))
	sortIDs(ids)
	if limit <= 0 || limit > MaxWho {
		limit = MaxWho
	}
	out.Principals = ids[:min(limit, len(ids))]
	for batch := range slices.Chunk(out.Principals, MaxInquiry) {
		q.Requests = make([]authz.Request, len(batch))
		for i, id := range batch {
			q.Requests[i] = r
			q.Requests[i].Subject.Type, q.Requests[i].Subject.ID, q.Requests[i].Subject.Issuer = found[id], id.Key, ""
		}
		a, err := p.Ask(ctx, q)
		if err != nil {
			return Whom{}, err
		}
		out.Verdicts = append(out.Verdicts, a.Verdicts...)
		out.Records = append(out.Records, a.Record)
	}
	out.Openers, rec.items = p.openers(w, &r, out.Principals, found)
	if len(rec.items) > 0 {
		seq, err := p.append(ctx, &rec)
		if err != nil {
			return Whom{}, err
		}
		out.Records = append(out.Records, audit.ID(seq))
	}
	return out, nil
}

// openers returns who has an emergency open on the record of a request, and who
// of some principals, with their types, may open one: whom the pack lets, for
// any of its reasons, on what the record hangs from. It returns what it asked.
func (p *PDP) openers(w world, r *authz.Request, principals []hierarchy.ID, types map[hierarchy.ID]string) (list []Opener, items []item) {
	a := convertInquiry(w, r)
	j := &judging{world: w, asked: &a, view: w.graph.At(w.now, w.rev, w.confers), cat: w.set.Catalogue()}
	j.resource = j.cat.Resources[a.Resource.Type]
	if there, code := j.place(); code != "" || there.area || j.cat.Emergency == nil {
		return nil, nil
	}
	for _, e := range j.opened() {
		list = append(list, Opener{Principal: e.Principal, Emergency: e.ID, Until: e.Valid.To})
	}
	var nodes []hierarchy.ID
	for _, id := range j.view.Owned(j.owners...) {
		if j.inScopes(id) {
			nodes = append(nodes, id)
		}
	}
	may := func(who hierarchy.ID) (Opener, bool) {
		asking := Asking{Caller: r.Caller, Subject: authz.Verified(authz.Subject{Type: types[who], ID: who.Key, Assurance: r.Subject.Assurance})}
		for _, node := range nodes {
			for _, reason := range j.cat.Emergency.Reasons {
				e := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindEmergency, Valid: hierarchy.Interval{From: w.now, To: hierarchy.Forever},
					Emergency: &hierarchy.Emergency{Principal: who, Person: j.owners[0], Node: node, Reason: reason}}
				ask := p.question(w, asking, ActionOpenEmergency, policies.KindEmergency, "", &e)
				got := w.judge(ask)
				items = append(items, item{ask, got})
				if got.verdict.Effect {
					return Opener{Principal: who, Reasons: got.verdict.Reasons}, true
				}
			}
		}
		return Opener{}, false
	}
	for _, who := range principals {
		if o, ok := may(who); ok {
			list = append(list, o)
		}
	}
	return list, items
}

// opened returns the emergencies that are open on the record in question.
func (j *judging) opened() (list []hierarchy.EmergencyFact) {
	for _, owner := range j.owners {
		for _, e := range j.view.EmergenciesAbout(owner) {
			if e.Valid.Holds(j.now) && j.inScopes(e.Node) {
				list = append(list, e)
			}
		}
	}
	return list
}

// candidates returns the principals that stand at the resource of a request,
// with the catalogue's name of their type, or why the request has no resource.
func (w world) candidates(ctx context.Context, r *authz.Request) (map[hierarchy.ID]string, authz.Code, error) {
	a := convertInquiry(w, r)
	j := &judging{world: w, asked: &a, view: w.graph.At(w.now, w.rev, w.confers), cat: w.set.Catalogue()}
	act := j.cat.Actions[a.Action]
	switch j.resource = j.cat.Resources[a.Resource.Type]; {
	case a.Refusal != "":
		return nil, a.Refusal, nil
	case j.resource == nil:
		return nil, authz.UnknownType, nil
	case act == nil || !slices.Contains(act.Resources, a.Resource.Type):
		return nil, authz.UnknownAction, nil
	}
	types := map[string]string{} // of nodes, as the catalogue names those that may be asked
	for _, name := range act.Principals {
		if pt := j.cat.Principals[name]; pt != nil {
			types[baseName(pt.Entity)] = name
		}
	}
	there, code := j.place()
	if code != "" {
		return nil, code, nil
	}

	found := map[hierarchy.ID]string{}
	add := func(id hierarchy.ID) {
		if t := types[id.Type]; t != "" {
			found[id] = t
		}
	}
	if !there.area { // what hangs on the nodes and owners themselves
		for _, id := range j.scopes {
			for _, a := range j.view.AssignmentsAt(id) {
				add(a.Principal)
			}
		}
		for _, id := range slices.Concat(j.scopes, j.owners) {
			for _, g := range j.view.GrantsAbout(id) {
				add(g.Grantee)
			}
		}
		for _, id := range j.view.Principals(j.owners...) {
			add(id)
		}
		for _, e := range j.opened() {
			add(e.Principal)
		}
		return found, "", nil
	}
	n := 0
	for _, kind := range []hierarchy.Kind{hierarchy.KindAssignment, hierarchy.KindGrant, hierarchy.KindLink} {
		for f := range j.view.Facts(kind) {
			if n++; n%1024 == 1 && ctx.Err() != nil {
				return nil, "", &authz.Error{Kind: authz.Outage, Code: authz.Busy, Text: "the caller did not wait for the answer", Err: ctx.Err()}
			}
			e := &f.Event
			switch {
			case !f.Valid.Holds(w.now):
			case e.Assignment != nil && there.holds(e.Assignment.Node):
				add(e.Assignment.Principal)
			case e.Grant != nil && there.concerns(e.Grant):
				if g, ok := j.view.Grant(e.Grant.ID); ok && g.Effective.Holds(w.now) {
					add(e.Grant.Grantee)
					for _, a := range j.view.AssignmentsAt(e.Grant.Grantee) { // an organisation's people
						add(a.Principal)
					}
				}
			case e.Link != nil && e.Link.Kind == hierarchy.LinkSelf && j.cat.SelfRole != "":
				if found[e.Link.From] == "" && slices.ContainsFunc(j.view.Owned(j.view.Merged(e.Link.To)...), there.holds) {
					add(e.Link.From)
				}
			}
		}
	}
	return found, "", nil
}

// standing is where one stands to be a candidate.
type standing struct {
	j    *judging
	area bool
	in   map[hierarchy.ID]bool // the resource or area, and what is above it
	at   hierarchy.ID          // the area
}

// place resolves the resource, or the area, of the question.
func (j *judging) place() (standing, authz.Code) {
	s := standing{j: j, in: map[hierarchy.ID]bool{}}
	code := authz.UnknownType
	switch j.resource.Kind {
	case policies.KindFeature, policies.KindRoute:
		var areas []hierarchy.ID
		switch known := j.cat.Features[j.asked.Resource.ID] != nil; {
		case j.resource.Kind == policies.KindFeature && !known,
			j.resource.Kind == policies.KindRoute && j.cat.Routes[j.asked.Resource.ID] == nil:
			return s, authz.UnknownResource
		case j.asked.Area == "":
			return s, authz.AreaRequired
		}
		if areas, code = j.areas(nil); code == "" {
			s.area, s.at = true, areas[0]
			j.scopes = j.view.Closure(s.at)
		}
	case policies.KindSent:
		_, code = j.resolveSent()
	case policies.KindGraph:
		_, code = j.resolveNode()
	case policies.KindWard:
		_, code = j.resolveObject()
	}
	for _, id := range j.scopes {
		s.in[id] = true
	}
	return s, code
}

// holds reports whether what is held at a node touches the area.
func (s standing) holds(node hierarchy.ID) bool {
	return s.in[node] || s.j.view.Reaches(node, s.at)
}

// concerns reports whether a grant may be about something in the area.
func (s standing) concerns(g *hierarchy.Grant) bool {
	switch {
	case !g.Scope.Coverage.IsZero():
		return s.holds(g.Scope.Coverage)
	case g.Subject.Type == hierarchy.PersonType:
		return slices.ContainsFunc(s.j.view.Owned(s.j.view.Merged(g.Subject)...), s.holds)
	}
	return s.holds(g.Subject)
}
