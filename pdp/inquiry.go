package pdp

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// Inquiry is a question that enforces nothing.
type Inquiry struct {
	// Actor asks; Ward's own policies decide whether they may.
	Actor  authz.Subject
	Caller authz.Caller
	// Requests are the questions. Their subjects need no credential: the
	// inquiry is the actor's, and attributes count as if their authority had
	// sent them.
	Requests []authz.Request
	// At is the instant that the questions are asked for, KnownAt the revision
	// that is known; 0 means now and the head.
	At      hierarchy.Instant
	KnownAt uint64
	// Explain asks for the reasons.
	Explain bool
}

// Answer is what an inquiry learns. It is not a Decision, and no door can
// carry it.
type Answer struct {
	Record   string            `json:"record"`
	Verdicts []authz.Verdict   `json:"verdicts"`
	At       hierarchy.Instant `json:"at"`
	Revision uint64            `json:"revision"`
	Set      string            `json:"set"`
	Why      []Explanation     `json:"why,omitempty"`
}

// MaxInquiry is how many questions one inquiry may hold.
const MaxInquiry = 1000

// Ask answers an inquiry after recording it.
func (p *PDP) Ask(ctx context.Context, q Inquiry) (Answer, error) {
	if len(q.Requests) == 0 || len(q.Requests) > MaxInquiry {
		return Answer{}, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: fmt.Sprintf("an inquiry holds 1 to %d questions", MaxInquiry)}
	}
	asker, err := p.permit(ctx, q.Actor, q.Caller, "inquiry.ask", false)
	if err != nil {
		return Answer{}, err
	}
	w, head, err := p.worldAt(ctx, q.At, q.KnownAt)
	if err != nil {
		return Answer{}, err
	}
	rec := recording{kind: audit.Inquiry, world: w, head: head, inquiry: &sealedInquiry{asker, q.Caller.Name}}
	if q.At != 0 {
		if rec.at, err = p.clock.now(); err != nil {
			return Answer{}, err
		}
	}
	out := Answer{At: w.now, Revision: w.rev, Set: w.set.Digest()}
	for i := range q.Requests {
		r := q.Requests[i]
		r.Subject = authz.Verified(r.Subject)
		a := convertInquiry(w, &r)
		j := w.judge(&a)
		rec.items = append(rec.items, item{&a, j})
		out.Verdicts = append(out.Verdicts, j.verdict)
		if q.Explain {
			out.Why = append(out.Why, w.explain(&a, &j))
		}
	}
	seq, err := p.append(ctx, &rec)
	if err != nil {
		return Answer{}, err
	}
	out.Record = audit.ID(seq)
	return out, nil
}

// convertInquiry reads a hypothetical request: what its authority could send
// counts.
func convertInquiry(w world, r *authz.Request) asked {
	cat := w.set.Catalogue()
	if rt := cat.Resources[r.Resource.Type]; rt != nil && len(rt.Authority) > 0 && r.Caller.Name == "" {
		r.Caller.Name = rt.Authority[0]
	}
	return convert(r, cat)
}

// worldAt returns the world at an instant as known at a revision.
func (p *PDP) worldAt(ctx context.Context, at hierarchy.Instant, known uint64) (world, hierarchy.Head, error) {
	cur := p.current.Load()
	w, err := p.world(cur)
	if err != nil {
		return world{}, hierarchy.Head{}, err
	}
	head := cur.head
	if at != 0 {
		w.now = at
	}
	if known != 0 && known != head.Revision {
		h, ok := p.graph.HeadAt(known)
		if !ok || known > head.Revision {
			return world{}, hierarchy.Head{}, &authz.Error{Kind: authz.Refused, Code: "unknown_revision", Text: "there is no such revision yet"}
		}
		set, overlays, err := p.sets.inForce(ctx, p.graph, known)
		if err != nil || set == nil {
			return world{}, hierarchy.Head{}, &authz.Error{Kind: authz.Refused, Code: "unknown_revision", Text: "no policy set was active at that revision", Err: err}
		}
		head = h
		w.rev, w.set, w.overlays, w.confers = known, set, overlays, confers(p.graph, set)
	}
	return w, head, nil
}

// permit decides whether an admin may use one of Ward's own actions at the
// operator, and records a deny, or with always any answer. It returns who they are.
func (p *PDP) permit(ctx context.Context, actor authz.Subject, caller authz.Caller, action string, always bool) (hierarchy.ID, error) {
	return p.permitAt(ctx, actor, caller, action, hierarchy.ID{}, always)
}

// permitAt is permit at a node, or where there is no such node at the operator.
func (p *PDP) permitAt(ctx context.Context, actor authz.Subject, caller authz.Caller, action string, at hierarchy.ID, always bool) (hierarchy.ID, error) {
	rec, err := p.ownAnswer(actor, caller, action, at)
	if err != nil {
		return hierarchy.ID{}, err
	}
	j := rec.items[0].judgement
	if !j.verdict.Effect {
		return hierarchy.ID{}, p.refuse(ctx, rec, action)
	}
	if always {
		if _, err := p.append(ctx, rec); err != nil {
			return hierarchy.ID{}, err
		}
	}
	return j.principal, nil
}

// ownAnswer decides one of Ward's own actions at a node, or where there is no
// such node at the operator. It is not recorded yet.
func (p *PDP) ownAnswer(actor authz.Subject, caller authz.Caller, action string, at hierarchy.ID) (*recording, error) {
	cur := p.current.Load()
	w, err := p.world(cur)
	if err != nil {
		return nil, err
	}
	if view := w.graph.At(w.now, w.rev, w.confers); !exists(view, at) {
		at = operator(view)
	}
	a := ownQuestion(actor, caller, action, at, nil)
	return &recording{kind: audit.Decision, world: w, head: cur.head, items: []item{{a, w.judge(a)}}}, nil
}

// refuse records a deny of one of Ward's own actions, and gives the error.
func (p *PDP) refuse(ctx context.Context, rec *recording, action string) error {
	seq, err := p.append(ctx, rec)
	if err != nil {
		return err
	}
	return &authz.Error{Kind: authz.Refused, Code: rec.items[0].verdict.Code,
		Text: fmt.Sprintf("ward's own policies do not permit %s (record %s)", action, audit.ID(seq))}
}

// Permit decides one of Ward's own actions (such as audit.read) for an admin
// and records the decision, whatever it is.
func (p *PDP) Permit(ctx context.Context, actor authz.Subject, caller authz.Caller, action string) error {
	_, err := p.permit(ctx, actor, caller, action, true)
	return err
}

// PermitAt is Permit for what concerns one tenant, which its own admins may be
// permitted too.
func (p *PDP) PermitAt(ctx context.Context, actor authz.Subject, caller authz.Caller, action, tenant string) error {
	_, err := p.permitAt(ctx, actor, caller, action, hierarchy.TenantID(tenant), true)
	return err
}

// Snapshot lists what a subject can see and call in an area: every feature and
// route of the catalogue with its verdict. It is an inquiry.
func (p *PDP) Snapshot(ctx context.Context, q Inquiry, subject authz.Subject, area string) (Answer, []string, error) {
	w, _, err := p.worldAt(ctx, q.At, q.KnownAt)
	if err != nil {
		return Answer{}, nil, err
	}
	cat := w.set.Catalogue()
	var names []string
	q.Requests = nil
	for _, name := range slices.Sorted(maps.Keys(cat.Actions)) {
		act := cat.Actions[name]
		for _, rt := range act.Resources {
			var ids []string
			switch r := cat.Resources[rt]; {
			case r == nil:
			case r.Kind == "feature":
				for id := range cat.Features {
					ids = append(ids, id)
				}
			case r.Kind == "route":
				for id := range cat.Routes {
					ids = append(ids, id)
				}
			}
			sort.Strings(ids)
			for _, id := range ids {
				names = append(names, rt+":"+id)
				q.Requests = append(q.Requests, authz.Request{Subject: subject, Area: area,
					Action: authz.Action{Name: name}, Resource: authz.Resource{Type: rt, ID: id}})
			}
		}
	}
	sort.Stable(&byName{names, q.Requests})
	if len(names) == 0 {
		return Answer{}, nil, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "the pack in force has no features and no routes"}
	}
	a, err := p.Ask(ctx, q)
	return a, names, err
}

type byName struct {
	names    []string
	requests []authz.Request
}

func (b *byName) Len() int           { return len(b.names) }
func (b *byName) Less(i, j int) bool { return b.names[i] < b.names[j] }
func (b *byName) Swap(i, j int) {
	b.names[i], b.names[j] = b.names[j], b.names[i]
	b.requests[i], b.requests[j] = b.requests[j], b.requests[i]
}
