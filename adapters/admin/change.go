package admin

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sort"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Event is one change: the assertion of a fact, or the end or voiding of one.
// Exactly one of Assert, End and Void is set.
type Event struct {
	// Assert is the kind of fact to add ("node", "grant", …), Fields what it
	// says, as policy tests write it: from and to (of a link: since and until)
	// are RFC 3339 times, or dates in Zone, to including its day.
	Assert string         `json:"assert,omitempty"`
	Fields map[string]any `json:"fields,omitempty"`
	Zone   string         `json:"zone,omitempty"`
	// End is a fact to close, at At; absent means now.
	End string `json:"end,omitempty"`
	At  Time   `json:"at,omitzero"`
	// Void is a fact that was never true.
	Void string `json:"void,omitempty"`
	// Row is the line of the source file, or 0.
	Row int `json:"row,omitempty"`
}

// Reason is kept with a change.
type Reason struct {
	Why    string `json:"why,omitempty"`
	Ticket string `json:"ticket,omitempty"`
}

// Change is a list of events that become one revision.
type Change struct {
	Events []Event `json:"events"`
	Reason
}

// Changed says what a change became: its record, its revision, and the facts
// of the events that assert, in order.
type Changed struct {
	Record   string   `json:"record"`
	Revision uint64   `json:"revision"`
	Facts    []string `json:"facts"`
}

func changedOf(c pdp.Changed) Changed {
	out := Changed{Record: c.Record, Revision: c.Revision, Facts: make([]string, len(c.Facts))}
	for i, f := range c.Facts {
		out.Facts[i] = f.String()
	}
	return out
}

// maxReason bounds a reason and a ticket, in bytes.
const maxReason = 1024

func (r Reason) check() error {
	if len(r.Why) > maxReason || len(r.Ticket) > maxReason {
		return bad(fmt.Sprintf("why and ticket hold at most %d bytes each", maxReason))
	}
	return nil
}

func (h *Handler) change(ctx context.Context, who Who, in *Change) (Changed, error) {
	if err := in.check(); err != nil {
		return Changed{}, err
	}
	if len(in.Events) == 0 {
		return Changed{}, bad("a change has at least one event")
	}
	now, err := h.PDP.Now()
	if err != nil {
		return Changed{}, err
	}
	c := pdp.Change{Actor: who.Actor, Caller: who.Caller, Why: in.Why, Ticket: in.Ticket}
	view := h.PDP.View(now, 0)
	for i := range in.Events {
		e, text := eventOf(view, &in.Events[i])
		if text != "" {
			return Changed{}, &Error{Status: http.StatusUnprocessableEntity, Code: hierarchy.CodeEventInvalid, Message: text, Event: i + 1, Row: in.Events[i].Row}
		}
		if e.Op == hierarchy.End && e.At == 0 {
			e.At = now
		}
		if e.Kind == hierarchy.KindActivation {
			return Changed{}, &Error{Status: http.StatusUnprocessableEntity, Code: hierarchy.CodeEventInvalid, Message: "a policy set is activated through its own endpoint", Event: i + 1}
		}
		c.Events = append(c.Events, e)
	}
	done, err := h.PDP.Change(ctx, c)
	return changedOf(done), err
}

// eventOf converts an event. Its text is a fixed sentence: what was sent may
// name a person.
func eventOf(view hierarchy.View, e *Event) (hierarchy.Event, string) {
	set := 0
	for _, s := range []string{e.Assert, e.End, e.Void} {
		if s != "" {
			set++
		}
	}
	if set != 1 {
		return hierarchy.Event{}, "an event has exactly one of assert, end and void"
	}
	if e.Assert != "" {
		if !e.At.IsZero() {
			return hierarchy.Event{}, "only the end of a fact has a time of its own"
		}
		out, err := pdp.EventOf(e.Assert, e.Fields, e.Zone)
		if err != nil {
			return out, "this is no fact as ward knows it: the kind, a field or a value is wrong"
		}
		out.Row = e.Row
		return out, ""
	}
	out := hierarchy.Event{Op: hierarchy.Void, Row: e.Row}
	id := e.Void
	if e.End != "" {
		out.Op, id = hierarchy.End, e.End
		if !e.At.IsZero() {
			out.At = hierarchy.At(time.Time(e.At))
		}
	} else if !e.At.IsZero() {
		return out, "a fact that was never true has no end"
	}
	if len(e.Fields) > 0 || e.Zone != "" {
		return out, "only an asserted fact has fields"
	}
	fact, err := hierarchy.ParseFactID(id)
	if err != nil {
		return out, err.Error()
	}
	f, ok := view.Fact(fact)
	if !ok {
		return out, "there is no fact " + fact.String()
	}
	out.Fact, out.Kind = fact, f.Kind
	return out, ""
}

// Activation is a policy set to put in force, as its archive.
type Activation struct {
	Archive []byte `json:"archive"`
	Reason
}

// Activated says what an activation became.
type Activated struct {
	Changed
	Digest string `json:"digest"`
	Name   string `json:"name"`
}

func (h *Handler) activate(ctx context.Context, who Who, in *Activation) (Activated, error) {
	if err := in.check(); err != nil {
		return Activated{}, err
	}
	set, err := policies.Open(in.Archive)
	if err != nil {
		return Activated{}, err
	}
	done, err := h.PDP.Activate(ctx, pdp.Change{Actor: who.Actor, Caller: who.Caller, Why: in.Why, Ticket: in.Ticket}, set)
	return Activated{changedOf(done), set.Digest(), set.Name()}, err
}

// When says what time a question is asked for, and what was known by then.
type When struct {
	At       Time   `json:"at,omitzero"`
	KnownAt  Time   `json:"knownAt,omitzero"`
	Revision uint64 `json:"revision,omitempty"`
}

// Entity is a subject or a resource.
type Entity struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Properties map[string]any `json:"properties,omitempty"`
}

// Subject is who a question is about.
type Subject struct {
	Entity
	// Issuer, when set, makes the id a token's "sub".
	Issuer    string `json:"issuer,omitempty"`
	Assurance int    `json:"assurance,omitempty"`
}

// Action is what the subject would do.
type Action struct {
	Name       string         `json:"name"`
	Properties map[string]any `json:"properties,omitempty"`
}

// Question is one hypothetical request.
type Question struct {
	Subject  Subject        `json:"subject"`
	Action   Action         `json:"action"`
	Resource Entity         `json:"resource"`
	Context  map[string]any `json:"context,omitempty"`
	Area     string         `json:"area,omitempty"`
	Grant    string         `json:"grant,omitempty"`
	// Caller is the program that would ask; empty means an authority for the
	// resource's type.
	Caller string `json:"caller,omitempty"`
}

// Ask is an inquiry.
type Ask struct {
	Requests []Question `json:"requests"`
	When
	Explain bool `json:"explain,omitempty"`
}

// Answers are what an inquiry learned, one Answer per question.
type Answers struct {
	Record   string   `json:"record"`
	At       Time     `json:"at"`
	Revision uint64   `json:"revision"`
	Set      string   `json:"set"`
	Answers  []Answer `json:"answers"`
}

// Answer is one verdict. It is not a decision: nothing is enforced by it.
type Answer struct {
	Decision    string             `json:"decision"` // "allow" or "deny"
	Code        authz.Code         `json:"code"`
	Reasons     []string           `json:"reasons,omitempty"`
	Errors      []string           `json:"errors,omitempty"`
	Cedar       string             `json:"cedar,omitempty"`
	Obligations []authz.Obligation `json:"obligations,omitempty"`
	Advice      []authz.Obligation `json:"advice,omitempty"`
	Grant       string             `json:"grant,omitempty"`
	Emergency   string             `json:"emergency,omitempty"`
	Areas       []string           `json:"areas,omitempty"`
	ValidUntil  Time               `json:"validUntil,omitzero"`
	Why         *Explanation       `json:"why,omitempty"`
}

// Explanation says why an answer is what it is.
type Explanation struct {
	Policies []pdp.Considered `json:"policies,omitempty"`
	Facts    []Because        `json:"facts,omitempty"`
	Missing  []string         `json:"missing,omitempty"`
}

// Because is one fact behind an answer.
type Because struct {
	Text  string   `json:"text"`
	Fact  string   `json:"fact,omitempty"`
	Valid Interval `json:"valid,omitzero"`
}

func answerOf(v authz.Verdict) Answer {
	a := Answer{Decision: v.Effect.String(), Code: v.Code, Reasons: v.Reasons, Errors: v.Errors, Cedar: v.Cedar,
		Obligations: v.Obligations, Advice: v.Advice, Grant: v.Grant, Emergency: v.Emergency, Areas: v.Areas}
	if v.ValidUntil != 0 {
		a.ValidUntil = TimeOf(hierarchy.Instant(v.ValidUntil))
	}
	return a
}

func explanationOf(x *pdp.Explanation) *Explanation {
	out := &Explanation{Policies: x.Policies, Missing: x.Missing}
	for _, f := range x.Facts {
		b := Because{Text: f.Text}
		if !f.Fact.IsZero() {
			b.Fact = f.Fact.String()
		}
		if !f.Valid.IsZero() {
			b.Valid = intervalOf(f.Valid)
		}
		out.Facts = append(out.Facts, b)
	}
	return out
}

func (h *Handler) ask(ctx context.Context, who Who, in *Ask) (Answers, error) {
	at, rev, err := h.when(in.When)
	if err != nil {
		return Answers{}, err
	}
	q := pdp.Inquiry{Actor: who.Actor, Caller: who.Caller, At: at, KnownAt: rev, Explain: in.Explain}
	for _, r := range in.Requests {
		q.Requests = append(q.Requests, authz.Request{
			Caller:   authz.Caller{Name: r.Caller},
			Subject:  authz.Subject{Type: r.Subject.Type, ID: r.Subject.ID, Issuer: r.Subject.Issuer, Assurance: r.Subject.Assurance, Properties: r.Subject.Properties},
			Action:   authz.Action{Name: r.Action.Name, Properties: r.Action.Properties},
			Resource: authz.Resource{Type: r.Resource.Type, ID: r.Resource.ID, Properties: r.Resource.Properties},
			Context:  r.Context, Area: r.Area, Grant: r.Grant})
	}
	a, err := h.PDP.Ask(ctx, q)
	return answersOf(a), err
}

func answersOf(a pdp.Answer) Answers {
	out := Answers{Record: a.Record, At: TimeOf(a.At), Revision: a.Revision, Set: a.Set, Answers: make([]Answer, len(a.Verdicts))}
	for i, v := range a.Verdicts {
		out.Answers[i] = answerOf(v)
		if i < len(a.Why) {
			out.Answers[i].Why = explanationOf(&a.Why[i])
		}
	}
	return out
}

// What asks what a subject sees and calls.
type What struct {
	Subject Subject `json:"subject"`
	Area    string  `json:"area,omitempty"`
	When
}

// Sights lists every feature and route of the catalogue with its answer.
type Sights struct {
	Record   string  `json:"record"`
	At       Time    `json:"at"`
	Revision uint64  `json:"revision"`
	Set      string  `json:"set"`
	Items    []Sight `json:"items"`
}

// Sight is one feature or route.
type Sight struct {
	Name string `json:"name"` // "feature:claims.export"
	Answer
}

func (h *Handler) what(ctx context.Context, who Who, in *What) (Sights, error) {
	at, rev, err := h.when(in.When)
	if err != nil {
		return Sights{}, err
	}
	s := authz.Subject{Type: in.Subject.Type, ID: in.Subject.ID, Issuer: in.Subject.Issuer, Assurance: in.Subject.Assurance, Properties: in.Subject.Properties}
	a, names, err := h.PDP.Snapshot(ctx, pdp.Inquiry{Actor: who.Actor, Caller: who.Caller, At: at, KnownAt: rev}, s, in.Area)
	if err != nil {
		return Sights{}, err
	}
	all := answersOf(a)
	out := Sights{Record: all.Record, At: all.At, Revision: all.Revision, Set: all.Set, Items: make([]Sight, len(names))}
	for i, n := range names {
		out.Items[i] = Sight{n, all.Answers[i]}
	}
	return out, nil
}

// Explained is the explanation of a record, one item per question it holds.
type Explained struct {
	Record string          `json:"record"`
	Kind   string          `json:"kind"`
	Items  []ExplainedItem `json:"items"`
}

// ExplainedItem is one recorded answer and why it was given.
type ExplainedItem struct {
	Subject  string `json:"subject"`
	Action   string `json:"action"`
	Resource string `json:"resource"`
	Caller   string `json:"caller,omitempty"`
	At       Time   `json:"at"`
	Revision uint64 `json:"revision"`
	Set      string `json:"set"`
	Answer
}

func (h *Handler) explain(r *http.Request, who Who) (any, error) {
	record := r.PathValue("record")
	xs, err := h.PDP.Explain(r.Context(), who.Actor, who.Caller, record)
	if err != nil {
		return nil, err
	}
	return ExplainedOf(record, xs), nil
}

// ExplainedOf returns the wire form of a record's explanations.
func ExplainedOf(record string, xs []pdp.Explanation) Explained {
	out := Explained{Record: record, Items: []ExplainedItem{}}
	for i := range xs {
		x := &xs[i]
		out.Kind = x.Kind
		it := ExplainedItem{Subject: x.Subject, Action: x.Action, Resource: x.Resource, Caller: x.Caller,
			At: TimeOf(x.At), Revision: x.Revision, Set: x.Set, Answer: answerOf(x.Verdict)}
		it.Why = explanationOf(x)
		out.Items = append(out.Items, it)
	}
	return out
}

// PolicySet is one activation, of a set or of a tenant's overlay.
type PolicySet struct {
	Revision uint64 `json:"revision"`
	// Digest is empty where an overlay was removed.
	Digest string `json:"digest"`
	Name   string `json:"name"`
	// Tenant is whose overlay it is; absent for a set.
	Tenant string `json:"tenant,omitempty"`
	Active bool   `json:"active"`
	At     Time   `json:"at"`
	Who    string `json:"who"`
	Why    string `json:"why,omitempty"`
	Ticket string `json:"ticket,omitempty"`
}

// PolicySets lists the activations, the latest first.
type PolicySets struct {
	Sets []PolicySet `json:"sets"`
}

func (h *Handler) listPolicies(r *http.Request, who Who) (any, error) {
	if err := h.PDP.Permit(r.Context(), who.Actor, who.Caller, "policy.read"); err != nil {
		return nil, err
	}
	view := h.PDP.View(0, 0)
	active := map[hierarchy.FactID]bool{}
	for _, tenant := range append(slices.Collect(maps.Keys(view.Overlays())), "") {
		_, f, _ := view.Activation(tenant)
		active[f] = true
	}
	out := PolicySets{Sets: []PolicySet{}}
	for f := range view.Facts(hierarchy.KindActivation) {
		out.Sets = append(out.Sets, h.policySet(f, active[f.ID]))
	}
	sort.Slice(out.Sets, func(i, j int) bool { return out.Sets[i].Revision > out.Sets[j].Revision })
	return out, nil
}

// ShowPolicies asks for a set by the start of its digest, or for the one that
// was in force at a revision; neither means the set in force.
type ShowPolicies struct {
	Digest   string `json:"digest,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
}

// Policies is what a set holds.
type Policies struct {
	Digest   string   `json:"digest"`
	Name     string   `json:"name"`
	Policies []Policy `json:"policies"`
}

// Policy is one policy of a set.
type Policy struct {
	ID          string             `json:"id"`
	Effect      string             `json:"effect"` // "permit" or "forbid"
	Module      string             `json:"module,omitempty"`
	File        string             `json:"file"`
	Line        int                `json:"line"`
	Obligations []authz.Obligation `json:"obligations,omitempty"`
	Advice      []authz.Obligation `json:"advice,omitempty"`
	Text        string             `json:"text"`
}

func (h *Handler) showPolicies(ctx context.Context, who Who, in *ShowPolicies) (Policies, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "policy.read"); err != nil {
		return Policies{}, err
	}
	set, err := h.set(ctx, in)
	if err != nil {
		return Policies{}, err
	}
	return PoliciesOf(set), nil
}

// PoliciesOf returns the wire form of a set.
func PoliciesOf(set *policies.Set) Policies {
	return Policies{Digest: set.Digest(), Name: set.Name(), Policies: policiesOf(set.Policies())}
}

func policiesOf(list []*policies.Policy) []Policy {
	out := []Policy{}
	for _, p := range list {
		w := Policy{ID: p.ID, Effect: "permit", Module: p.Module, File: p.File, Line: p.Line, Obligations: p.Obligations, Advice: p.Advice, Text: p.Text}
		if p.Forbid {
			w.Effect = "forbid"
		}
		out = append(out, w)
	}
	return out
}
