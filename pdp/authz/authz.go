// Package authz holds the words that every door, service and the decision
// point share: a [Request] goes in, a [Decision] comes out.
//
// A door (an adapter that turns a wire protocol into a Request) needs nothing
// but this package. It authenticates its caller, builds a Request, and calls a
// [Decider]:
//
//	subject, err := caller.Assert(authz.Subject{Type: "user", ID: "dana"})
//	if err != nil { … }
//	d, err := decider.Decide(ctx, authz.Request{
//		Caller:   caller,
//		Subject:  subject,
//		Action:   authz.Action{Name: "claim.view"},
//		Resource: authz.Resource{Type: "claim", ID: "c-42", Properties: anchors},
//	})
//	if err != nil { … }             // an outage: answer 503, never allow, never cache
//	d = authz.Enforce(d, caller)    // an obligation nobody performs is a deny
//	if !d.Allowed() { … }
//
// An error always comes with the zero Decision, and the zero Decision denies.
//
// # Delivery
//
// A revocation is acknowledged only after every answer that was computed
// before it has left its door. A door says when that is:
//
//	ctx, delivered := authz.Deliver(ctx)
//	d, err := decider.Decide(ctx, req)
//	defer delivered.Done()
//	if !delivered.Leave() { … 503 … }
//	… write the answer …
//
// Without Deliver a decision counts as delivered when Decide returns.
//
// # Compatibility
//
// Codes are append-only. The zero value of every type is the safe one. The
// package imports the standard library alone.
package authz

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Decider answers one Request. An error comes with the zero Decision, which
// denies; it is always an *[Error], and one whose Kind is [Outage] must never
// be shown, cached or counted as a deny.
type Decider interface {
	Decide(context.Context, Request) (Decision, error)
}

// BatchDecider answers many requests under one policy set and one revision of
// the facts. Doors find it by type assertion on a Decider.
//
// The result has one Decision per request, in order, unless stop ends it
// early: then it ends with the Decision that stopped it, and only what is
// returned has been decided and recorded. Each item is decided on its own
// complete subject, action, resource and context. An error means that no item
// was answered.
type BatchDecider interface {
	Decider
	DecideAll(ctx context.Context, requests []Request, stop Stop) ([]Decision, error)
}

// Reporter records what became of a decision. Doors find it by type assertion on
// a Decider. Only the caller that got the decision may say, once and within a
// day: else the error is an *[Error] with UnknownRecord, OutcomeExists or
// OutcomeLate.
type Reporter interface {
	// Report returns the id of the outcome's own record.
	Report(context.Context, Caller, Outcome) (record string, err error)
}

// Outcome is what a caller did with a decision.
type Outcome struct {
	// Record is the id that came with the decision.
	Record string
	// Delivered says whether what was asked for was given.
	Delivered bool
	// Rows is how many rows of data were given, where that can be counted.
	Rows *int64
	// Obligations are those that were performed, each one of Caller.Performs.
	Obligations []string
}

// Stop says when a batch ends (AuthZEN evaluations_semantic).
type Stop uint8

const (
	// ExecuteAll decides every item.
	ExecuteAll Stop = iota
	// FirstDeny ends after the first deny.
	FirstDeny
	// FirstPermit ends after the first allow.
	FirstPermit
)

// Request is one question: may this subject do this action on this resource,
// now. Doors build it; a Request with the zero Subject is denied.
type Request struct {
	// ID ties the record to the caller's own trace (X-Request-ID). Optional,
	// at most 128 bytes; it is recorded sealed.
	ID string
	// Caller is the authenticated program that asks. Required.
	Caller Caller
	// Subject is who acts: the Cedar principal. Its zero value is unverified.
	Subject Subject
	// Action is what they want to do.
	Action Action
	// Resource is what they want to do it to.
	Resource Resource
	// Context holds further attributes. Only those that the catalogue declares
	// as sent count; of the others only the names are recorded.
	Context map[string]any
	// Area narrows a coarse question (a feature or a route) to one tenant, the
	// network or the operator, as a node id such as "Tenant:acme". Empty: each
	// area where the subject stands is tried.
	Area string
	// Grant narrows a question to one grant id, or with [NoGrant] to none.
	// Empty: every live grant is tried.
	Grant string
	// Refusal, when set, says that the door could not read this item of an
	// otherwise valid batch: it is recorded and denied with this code.
	Refusal Code
}

// MaxStale is how long an answer may be used after it was given: changes of
// facts or policy reach every user of an answer within it. ValidUntil, which
// time alone brings, may end it sooner.
const MaxStale = 5 * time.Second

// NoGrant in Request.Grant asks without any grant.
const NoGrant = "none"

// Action is a named operation, for example "claim.view".
type Action struct {
	Name       string
	Properties map[string]any
}

// Resource is the thing asked about. Type is the catalogue's name, for example
// "claim". Properties carry the anchors and attributes of a sent type, and
// count only from a caller that the catalogue names as that type's authority.
//
// Property values are bool, string, json.Number or int64, []any and
// map[string]any.
type Resource struct {
	Type, ID   string
	Properties map[string]any
}

// Subject is who acts. Build one with [Caller.Assert], or with [Verified] in a
// door that has verified a token itself.
type Subject struct {
	// Type is the catalogue's name of the principal type, for example "user".
	Type string
	// ID is the principal's id, or, when Issuer is set, the issuer's subject
	// identifier ("sub"), which an identity link ties to the principal.
	ID string
	// Issuer is the token issuer's URL, or empty.
	Issuer string
	// Assurance is the authenticator assurance level (NIST SP 800-63B), 0 to 3.
	Assurance int
	// Properties are attributes sent with the subject.
	Properties map[string]any

	verified bool
}

// IsVerified reports whether the subject came from a verified token or from a
// caller registered to assert it.
func (s Subject) IsVerified() bool { return s.verified }

// Verified marks a subject whose credential the calling door has itself
// verified. Only the token door may use it.
func Verified(s Subject) Subject { s.verified = true; return s }

// Caller is the authenticated program that asks: a gateway, a service, an
// admin tool. What it may assert, send, be told and perform is registered in
// the configuration; its zero value may do nothing.
type Caller struct {
	// Name is the registered name, unique. The catalogue lists authorities by
	// this name.
	Name string
	// Asserts lists the subject types whose identity this caller may assert.
	Asserts []string
	// Issuer, when set, makes every asserted subject id the "sub" of this
	// issuer.
	Issuer string
	// Assurance is the assurance level of the subjects it asserts, 0 to 3.
	Assurance int
	// Explains lets the caller see reasons and the exact ValidUntil.
	Explains bool
	// Performs lists the obligations this caller carries out.
	Performs []string
	// Rate is how many answers a second it may have, and twice as many at once;
	// 0 means any number. An item of a batch counts as one.
	Rate int
}

// Assert returns the subject as verified when the caller is registered to
// assert subjects of its type; issuer and assurance come from the
// registration, never from s.
func (c Caller) Assert(s Subject) (Subject, error) {
	if !slices.Contains(c.Asserts, s.Type) {
		return Subject{}, &Error{Kind: Refused, Code: SubjectUnverified,
			Text: "caller " + quoteName(c.Name) + " is not registered to assert subjects of this type"}
	}
	s.Issuer, s.Assurance, s.verified = c.Issuer, c.Assurance, true
	return s, nil
}

func quoteName(s string) string { return `"` + s + `"` }

// Effect is the answer. Its zero value denies.
type Effect bool

const (
	// Deny is the zero Effect.
	Deny Effect = false
	// Allow permits the action.
	Allow Effect = true
)

// String returns "allow" or "deny".
func (e Effect) String() string {
	if e {
		return "allow"
	}
	return "deny"
}

// Decision is a Verdict and the Receipt of its durable record.
type Decision struct {
	Verdict
	Receipt
}

// Allowed reports whether the decision permits. The zero Decision does not.
func (d Decision) Allowed() bool { return d.Effect == Allow }

// Verdict is the deterministic part of a Decision: the same request, policy
// set, revision and clock give the same Verdict, byte for byte.
type Verdict struct {
	Effect Effect `json:"effect"`
	// Code says why, in a word that is safe to show. "permitted" for an allow.
	Code Code `json:"code"`
	// Reasons are the ids of the policies that determined the answer, sorted.
	Reasons []string `json:"reasons,omitempty"`
	// Errors are the ids of policies whose evaluation failed, sorted.
	Errors []string `json:"errors,omitempty"`
	// Cedar is what Cedar's own semantics would have answered, set only where
	// Ward is stricter (an erroring forbid).
	Cedar string `json:"cedar,omitempty"`
	// Obligations must all be performed for an allow to count, sorted by id.
	Obligations []Obligation `json:"obligations,omitempty"`
	// Advice may be ignored, sorted by id.
	Advice []Obligation `json:"advice,omitempty"`
	// Grant is the id of the grant that permitted, or empty.
	Grant string `json:"grant,omitempty"`
	// Emergency is the id of the emergency that permitted, or empty.
	Emergency string `json:"emergency,omitempty"`
	// Areas lists the areas of a coarse question that were allowed, sorted.
	Areas []string `json:"areas,omitempty"`
	// ValidUntil is the first instant at which time alone may change the
	// answer, in milliseconds since 1970 UTC; 0 means never.
	ValidUntil int64 `json:"validUntil,omitempty"`
}

// ValidUntilTime returns ValidUntil as a time, and false when the answer has
// no end of its own.
func (v Verdict) ValidUntilTime() (time.Time, bool) {
	if v.ValidUntil == 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(v.ValidUntil).UTC(), true
}

// Obligation is something the enforcement point must do for an allow to count
// (or, as advice, may do).
type Obligation struct {
	ID         string            `json:"id"`
	Properties map[string]string `json:"properties,omitempty"`
}

// Receipt says where a decision is recorded and what it was based on.
type Receipt struct {
	// Record is the record's id, short enough to read aloud, for example
	// "a-1042". Doors send it as the header Ward-Record.
	Record string
	// Revision is the number of the last change the decision knew.
	Revision uint64
}

// Enforce turns an allow into a deny with the code [ObligationUnsupported]
// unless the caller is registered as performing every obligation of it. Every
// door calls it on every decision it renders.
func Enforce(d Decision, c Caller) Decision {
	if !d.Allowed() {
		return d
	}
	for _, o := range d.Obligations {
		if !slices.Contains(c.Performs, o.ID) {
			return Decision{Verdict: Verdict{Code: ObligationUnsupported, ValidUntil: d.ValidUntil}, Receipt: d.Receipt}
		}
	}
	return d
}

// Code is a stable word for why. Codes are append-only, and none of them tells
// more about a resource than that the subject may not have it.
type Code string

const (
	// Permitted accompanies every allow.
	Permitted Code = "permitted"
	// Denied: no policy permitted.
	Denied Code = "denied"
	// Forbidden: a policy forbade.
	Forbidden Code = "forbidden"
	// Indeterminate: a forbid could not be evaluated, so Ward denies.
	Indeterminate Code = "indeterminate"
	// NoStanding: no live fact ties the subject to the resource.
	NoStanding Code = "no_standing"
	// GrantEnded: only a grant that has ended gave standing.
	GrantEnded Code = "grant_ended"
	// MajorityReached: only a grant that ended with the person's majority gave standing.
	MajorityReached Code = "majority_reached"
	// AssignmentEnded: only an assignment that has ended gave standing.
	AssignmentEnded Code = "assignment_ended"
	// SubjectUnverified: the subject came from nobody entitled to assert it.
	SubjectUnverified Code = "subject_unverified"
	// SubjectUnlinked: no identity link ties the token's subject to a principal.
	SubjectUnlinked Code = "subject_unlinked"
	// UnknownSubject: the principal does not exist at this instant.
	UnknownSubject Code = "unknown_subject"
	// UnknownResource: a graph resource does not resolve.
	UnknownResource Code = "unknown_resource"
	// UnknownType: the catalogue does not know the resource or subject type.
	UnknownType Code = "unknown_type"
	// UnknownAction: the catalogue does not know the action for this type.
	UnknownAction Code = "unknown_action"
	// AnchorMissing: an anchor was not sent, or does not resolve.
	AnchorMissing Code = "anchor_missing"
	// AnchorConflict: the anchors contradict one another.
	AnchorConflict Code = "anchor_conflict"
	// AttributeMissing: a required attribute was not sent by its authority.
	AttributeMissing Code = "attribute_missing"
	// AttributeInvalid: an attribute has the wrong type or a value outside its enumeration.
	AttributeInvalid Code = "attribute_invalid"
	// AreaRequired: the subject stands in more areas than are tried.
	AreaRequired Code = "area_required"
	// UnknownArea: the named area does not exist.
	UnknownArea Code = "unknown_area"
	// ObligationUnsupported: the caller does not perform an obligation of the allow.
	ObligationUnsupported Code = "obligation_unsupported"
	// BadRequest: the request lacks a part or has a part of the wrong type.
	BadRequest Code = "bad_request"
	// NotConferrable: an admin would give away a right that they do not hold there themselves.
	NotConferrable Code = "not_conferrable"
	// NothingToDo: what is asked for is done already, or over.
	NothingToDo Code = "nothing_to_do"
	// AboveCeiling: an admin of a tenant would give away more than its ceiling.
	AboveCeiling Code = "above_ceiling"
	// TooLarge: the request or its record exceeds a limit.
	TooLarge Code = "too_large"
	// RateLimited: the caller asks more often than it is registered to.
	RateLimited Code = "rate_limited"
	// UnknownRecord: the caller got no decision with this record.
	UnknownRecord Code = "unknown_record"
	// OutcomeExists: the outcome of this decision is recorded already.
	OutcomeExists Code = "outcome_exists"
	// OutcomeLate: the decision is too old for its outcome to be recorded.
	OutcomeLate Code = "outcome_late"

	// LedgerFailed: the ledger cannot make records durable. An outage.
	LedgerFailed Code = "ledger_failed"
	// StoreFailed: the store cannot be read or written. An outage.
	StoreFailed Code = "store_failed"
	// NotReady: the decision point has no policy set or is shutting down. An outage.
	NotReady Code = "not_ready"
	// DiskReserve: so little room is left on the disk that readiness fails; what
	// is asked is still decided until a write fails. An outage.
	DiskReserve Code = "disk_reserve"
	// Busy: the commit queue is full, or what this caller or the tenant may hold
	// of it. An outage; try again.
	Busy Code = "busy"
	// ClockFailed: the clock went backwards or drifted. An outage.
	ClockFailed Code = "clock_failed"
	// Superseded: a change was acknowledged while the answer was on its way. An outage; ask again.
	Superseded Code = "superseded"
	// Frozen: the facts of this tenant cannot be applied. An outage.
	Frozen Code = "frozen"
)

// Kind separates what a caller did wrong from what the decision point cannot do.
type Kind uint8

const (
	// Outage: no decision could be made. HTTP 503. Never a deny.
	Outage Kind = iota
	// Refused: the request was not a question. HTTP 400 or 403.
	Refused
)

// Error is what Decide returns instead of a Decision. Its text never holds an
// identifier of a person, an attribute value or a token.
type Error struct {
	Kind Kind
	Code Code
	Text string
	// Record is the id of the decision that refused, where one was recorded.
	Record string
	// Err is the cause, for logs on the server; it may be nil.
	Err error
}

func (e *Error) Error() string {
	if e.Text == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Text
}

func (e *Error) Unwrap() error { return e.Err }

// IsOutage reports whether err says that no decision could be made. An error
// that is not an *Error counts as an outage.
func IsOutage(err error) bool {
	if err == nil {
		return false
	}
	var e *Error
	return !errors.As(err, &e) || e.Kind == Outage
}

// Delivery follows one answer until it has left its door. See the package
// comment.
type Delivery struct {
	mu      sync.Mutex
	release []func()
	leaving bool
	expired bool
	done    bool
}

type deliveryKey struct{}

// Deliver returns a context under which decisions count as on their way until
// Done is called on the returned Delivery.
func Deliver(ctx context.Context) (context.Context, *Delivery) {
	d := &Delivery{}
	return context.WithValue(ctx, deliveryKey{}, d), d
}

// DeliveryFrom returns the Delivery of ctx, or nil.
func DeliveryFrom(ctx context.Context) *Delivery {
	d, _ := ctx.Value(deliveryKey{}).(*Delivery)
	return d
}

// OnDone has f called once when the answer has left its door. A Decider calls
// it; when the Delivery is already done, f runs at once.
func (d *Delivery) OnDone(f func()) {
	d.mu.Lock()
	if d.done {
		d.mu.Unlock()
		f()
		return
	}
	d.release = append(d.release, f)
	d.mu.Unlock()
}

// Done says that the answer has left, or never will. It may be called twice.
func (d *Delivery) Done() {
	d.mu.Lock()
	release := d.release
	d.release, d.done = nil, true
	d.mu.Unlock()
	for _, f := range release {
		f()
	}
}

// Leave claims the right to send the answer. A door calls it just before it
// writes; false means that a change overtook the answer: the door then answers
// 503 with the code [Superseded].
func (d *Delivery) Leave() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.expired || d.done {
		return false
	}
	d.leaving = true
	return true
}

// Expire makes the answer an outage unless its door has already begun to send
// it. It reports whether it came in time: true means that the answer will not
// be sent, false that the caller has to wait for Done.
func (d *Delivery) Expire() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done || d.leaving {
		return false
	}
	d.expired = true
	return true
}
