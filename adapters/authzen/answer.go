package authzen

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/ward-authz/ward/pdp/authz"
)

// evaluation answers POST /access/v1/evaluation.
func (d *door) evaluation(out *reply, r *http.Request) error {
	caller, body, err := d.receive(out, r)
	if err != nil {
		return err
	}
	return d.single(out, r, caller, body)
}

func (d *door) single(out *reply, r *http.Request, caller authz.Caller, body map[string]any) error {
	req, err := question(body, caller, out.requestID())
	if err != nil {
		return err
	}
	ctx, delivered := authz.Deliver(r.Context())
	defer delivered.Done()
	decision, err := d.decider.Decide(ctx, req)
	if err != nil {
		return sanitize(err)
	}
	decision = authz.Enforce(decision, caller)
	return deliver(out, delivered, decision.Record, d.answer(decision, caller, ""))
}

// evaluations answers POST /access/v1/evaluations.
func (d *door) evaluations(out *reply, r *http.Request) error {
	caller, body, err := d.receive(out, r)
	if err != nil {
		return err
	}
	b, err := d.readBatch(body, caller, out.requestID())
	if err != nil {
		return err
	}
	if len(b.requests) == 0 {
		return d.single(out, r, caller, body)
	}
	ctx, delivered := authz.Deliver(r.Context())
	defer delivered.Done()
	decisions, err := d.decideAll(ctx, b)
	if err != nil {
		return err
	}
	var all struct {
		Evaluations []answer `json:"evaluations"`
	}
	for i, decision := range decisions {
		all.Evaluations = append(all.Evaluations, d.answer(decision, caller, b.notes[i]))
	}
	return deliver(out, delivered, decisions[0].Record, all)
}

// decideAll returns the decisions as the caller gets to see them: enforced, and
// ended by the first of them that ends the batch.
func (d *door) decideAll(ctx context.Context, b batch) ([]authz.Decision, error) {
	var all []authz.Decision
	for len(all) < len(b.requests) {
		rest := b.requests[len(all):]
		got, err := d.decider.DecideAll(ctx, rest, b.stop)
		if err != nil {
			return nil, sanitize(err)
		}
		if len(got) == 0 || len(got) > len(rest) || len(got) < len(rest) && !ends(b.stop, got[len(got)-1]) {
			return nil, outage(DecisionFailed)
		}
		for i, decision := range got {
			decision = authz.Enforce(decision, rest[i].Caller)
			if rest[i].Refusal != "" && decision.Allowed() {
				return nil, outage(DecisionFailed) // nobody may allow what could not be read
			}
			all = append(all, decision)
			if ends(b.stop, decision) {
				return all, nil
			}
		}
		// Here the decider has either answered everything, or stopped at an
		// allow that Enforce has turned into a deny: ask on.
	}
	return all, nil
}

func ends(stop authz.Stop, d authz.Decision) bool {
	return stop == authz.FirstDeny && !d.Allowed() || stop == authz.FirstPermit && d.Allowed()
}

type answer struct {
	Decision bool    `json:"decision"`
	Context  details `json:"context"`
}

type details struct {
	Code        authz.Code         `json:"code"`
	Record      string             `json:"record"`
	Revision    uint64             `json:"revision"`
	Obligations []authz.Obligation `json:"obligations,omitempty"`
	ValidFor    *int64             `json:"validFor,omitempty"`
	Message     string             `json:"message,omitempty"`

	// With the explain right only.
	Reasons    []string `json:"reasons,omitempty"`
	Errors     []string `json:"errors,omitempty"`
	Grant      string   `json:"grant,omitempty"`
	ValidUntil string   `json:"validUntil,omitempty"`
}

// answer renders a decision that has been enforced for this caller.
func (d *door) answer(decision authz.Decision, caller authz.Caller, note string) answer {
	a := answer{
		Decision: decision.Allowed(),
		Context:  details{Code: decision.Code, Record: decision.Record, Revision: decision.Revision, Message: note},
	}
	if a.Decision {
		a.Context.Obligations = decision.Obligations
	}
	until, ends := decision.ValidUntilTime()
	if caller.Explains {
		a.Context.Reasons, a.Context.Errors, a.Context.Grant = decision.Reasons, decision.Errors, decision.Grant
		if ends {
			a.Context.ValidUntil = instant(until)
		}
		return a
	}
	// Never more than MaxStale: what changes an answer can be a birthday, and is
	// nobody's to know who may not see reasons.
	left := authz.MaxStale
	if ends {
		left = min(left, max(0, until.Sub(d.now())))
	}
	a.Context.ValidFor = new(int64(left / time.Second))
	return a
}

// instant formats t for RFC 3339, whose years have four digits; what lies
// outside is moved to the nearest instant inside.
func instant(t time.Time) string {
	if y := t.Year(); y > 9999 {
		t = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
	} else if y < 0 {
		t = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// deliver sends an answer unless a change has overtaken it. When it returns,
// the answer has left this process.
func deliver(out *reply, delivered *authz.Delivery, record string, body any) error {
	raw := render(body)
	if !delivered.Leave() {
		return outage(authz.Superseded)
	}
	if record != "" && len(record) <= 128 && visible(record) {
		out.w.Header().Set("Ward-Record", record)
	}
	out.send(http.StatusOK, raw)
	return nil
}

// render encodes one of this package's own types, which cannot fail.
func render(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("authzen: cannot encode")
	}
	return append(raw, '\n')
}

// reply is a response that is sent once and whole.
type reply struct {
	w       http.ResponseWriter
	started bool
}

// requestID returns the validated X-Request-ID, which the response echoes.
func (out *reply) requestID() string { return out.w.Header().Get("X-Request-ID") }

func (out *reply) send(status int, body []byte) {
	out.started = true
	h := out.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	out.w.WriteHeader(status)
	// An error means that the client is gone. The flush matters: net/http would
	// otherwise keep the answer in its buffer until after Delivery.Done.
	_, _ = out.w.Write(body)
	_ = http.NewResponseController(out.w).Flush()
}

// fail sends err, which this package made, and returns its code.
func (out *reply) fail(err error) authz.Code {
	e, ok := errors.AsType[*authz.Error](err)
	if !ok {
		e = &authz.Error{Code: DecisionFailed, Text: outageText}
	}
	var body struct {
		Error struct {
			Code    authz.Code `json:"code"`
			Message string     `json:"message"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message = e.Code, e.Text
	code := status(e)
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		out.w.Header().Set("Retry-After", "1")
	}
	out.send(code, render(body))
	return e.Code
}

// status is the one place that maps errors to HTTP.
func status(e *authz.Error) int {
	if e.Kind != authz.Refused {
		return http.StatusServiceUnavailable
	}
	switch e.Code {
	case CallerUnknown:
		return http.StatusUnauthorized
	case authz.SubjectUnverified:
		return http.StatusForbidden
	case NotFound, authz.UnknownRecord:
		return http.StatusNotFound
	case authz.OutcomeExists:
		return http.StatusConflict
	case authz.OutcomeLate:
		return http.StatusGone
	case authz.RateLimited:
		return http.StatusTooManyRequests
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case BodyTooLarge:
		return http.StatusRequestEntityTooLarge
	case HostNotAllowed:
		return http.StatusMisdirectedRequest
	}
	return http.StatusBadRequest
}

const outageText = "no decision could be made; ask again"

func outage(code authz.Code) error {
	return &authz.Error{Kind: authz.Outage, Code: code, Text: outageText}
}

// sanitize keeps the code of a decider's error and replaces its text, so that
// nothing of a request comes back through it.
func sanitize(err error) error {
	e, ok := errors.AsType[*authz.Error](err)
	switch {
	case !ok || e == nil:
		return outage(DecisionFailed)
	case e.Kind != authz.Refused:
		return outage(word(e.Code, DecisionFailed))
	}
	return refuse(word(e.Code, authz.BadRequest), "the decision point refused the request")
}

// word returns code if it looks like one, otherwise fallback.
func word(code, fallback authz.Code) authz.Code {
	if code == "" || len(code) > 64 {
		return fallback
	}
	for i := range len(code) {
		if c := code[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return fallback
		}
	}
	return code
}
