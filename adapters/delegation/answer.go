package delegation

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/ward-authz/ward/adapters/hosts"
	"github.com/ward-authz/ward/adapters/jsonbody"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
)

func (d *door) requestGrant(q question) error {
	b, err := q.body()
	if err != nil {
		return err
	}
	grant := readGrant(b)
	q.who.Why, q.who.Ticket = b.text("why", false), b.text("ticket", false)
	if err := b.end(); err != nil {
		return err
	}
	g, err := d.pdp.RequestGrant(q.Context(), q.who, grant)
	if g.ID != "" { // of one that the key made before, too
		q.out.w.Header().Set("Location", "/v1/grants/"+g.ID)
	}
	if err != nil {
		return err
	}
	q.out.send(http.StatusCreated, g.Record, grantOf(g))
	return nil
}

func (d *door) signGrant(q question) error {
	b, err := q.body()
	if err != nil {
		return err
	}
	as := b.one("as", "grantor", "subject", "co-signer", "verifier")
	if err := b.end(); err != nil {
		return err
	}
	g, err := d.pdp.SignGrant(q.Context(), q.who, q.id, hierarchy.Signer(as))
	if err != nil {
		return err
	}
	q.out.send(http.StatusOK, g.Record, grantOf(g))
	return nil
}

func (d *door) revokeGrant(q question) error {
	g, err := d.pdp.RevokeGrant(q.Context(), q.who, q.id)
	if err != nil {
		return err
	}
	q.out.send(http.StatusOK, g.Record, grantOf(g))
	return nil
}

func (d *door) grant(q question) error {
	ctx, delivery := authz.Deliver(q.Context())
	defer delivery.Done()
	g, err := d.pdp.Grant(ctx, q.who, q.id)
	if err != nil {
		return err
	}
	return q.out.deliver(delivery, g.Record, grantOf(g))
}

func (d *door) grants(q question) error {
	ctx, delivery := authz.Deliver(q.Context())
	defer delivery.Done()
	list, receipt, err := d.pdp.Grants(ctx, q.who)
	if err != nil {
		return err
	}
	answer := struct {
		Grants []grant `json:"grants"`
	}{[]grant{}}
	for _, g := range list {
		answer.Grants = append(answer.Grants, grantOf(g))
	}
	return q.out.deliver(delivery, receipt.Record, answer)
}

func (d *door) openEmergency(q question) error {
	b, err := q.body()
	if err != nil {
		return err
	}
	x := hierarchy.Emergency{Node: b.id("node", true), Reason: b.word("reason", true), Text: b.text("text", true), Ticket: b.text("ticket", false)}
	if err := b.end(); err != nil {
		return err
	}
	f, verdict, changed, err := d.pdp.OpenEmergency(q.Context(), q.who, x)
	if err != nil {
		return err
	}
	e := emergencyOf(f, changed)
	e.Obligations = verdict.Obligations
	q.out.send(http.StatusCreated, changed.Record, e)
	return nil
}

func (d *door) endEmergency(q question) error {
	f, changed, err := d.pdp.EndEmergency(q.Context(), q.who, q.id)
	if err != nil {
		return err
	}
	q.out.send(http.StatusOK, changed.Record, emergencyOf(f, changed))
	return nil
}

func (d *door) reviewEmergency(q question) error {
	b, err := q.body()
	if err != nil {
		return err
	}
	outcome, text := b.one("outcome", "justified", "unjustified"), b.text("text", false)
	if err := b.end(); err != nil {
		return err
	}
	f, changed, err := d.pdp.ReviewEmergency(q.Context(), q.who, q.id, outcome, text)
	if err != nil {
		return err
	}
	q.out.send(http.StatusOK, changed.Record, emergencyOf(f, changed))
	return nil
}

// grant is a grant on the wire.
type grant struct {
	ID            string               `json:"id"`
	Type          string               `json:"type"`
	State         hierarchy.GrantState `json:"state"`
	Grantor       hierarchy.ID         `json:"grantor"`
	Grantee       hierarchy.ID         `json:"grantee"`
	Subject       hierarchy.ID         `json:"subject"`
	Scope         scope                `json:"scope"`
	Purpose       []string             `json:"purpose,omitempty"`
	Parent        string               `json:"parent,omitempty"`
	MayRedelegate bool                 `json:"mayRedelegate,omitempty"`
	MaxDepth      int                  `json:"maxDepth,omitempty"`
	Needs         []need               `json:"needs,omitempty"`
	From          string               `json:"from,omitempty"`
	To            string               `json:"to,omitempty"`
	Until         string               `json:"until,omitempty"`
	ByMajority    bool                 `json:"byMajority,omitempty"`
	Record        string               `json:"record"`
	Revision      uint64               `json:"revision"`
	Obligations   []authz.Obligation   `json:"obligations,omitempty"`
}

type scope struct {
	Capabilities []string     `json:"capabilities"`
	Covers       []string     `json:"covers,omitempty"`
	Coverage     hierarchy.ID `json:"coverage,omitzero"`
	Records      []string     `json:"records,omitempty"`
	Service      *interval    `json:"service,omitempty"`
}

type interval struct {
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

type need struct {
	As     hierarchy.Signer `json:"as"`
	By     hierarchy.ID     `json:"by,omitzero"`
	Signed string           `json:"signed,omitempty"`
}

func grantOf(d pdp.Delegated) grant {
	s := d.Scope
	g := grant{
		ID: d.ID, Type: d.Type, State: d.State, Grantor: d.Grantor, Grantee: d.Grantee, Subject: d.Subject,
		Scope:   scope{Capabilities: s.Capabilities, Covers: s.Covers, Coverage: s.Coverage, Records: s.Records},
		Purpose: d.Purpose, Parent: d.Parent, MayRedelegate: d.MayRedelegate, MaxDepth: d.MaxDepth,
		From: instant(d.Valid.From), To: instant(d.Valid.To), ByMajority: d.ByMajority,
		Record: d.Record, Revision: d.Revision, Obligations: d.Obligations,
	}
	if !s.Service.IsZero() {
		g.Scope.Service = &interval{instant(s.Service.From), instant(s.Service.To)}
	}
	if d.State == hierarchy.GrantRequested {
		// How old the person is, is nobody's to know who only asks.
		g.To, g.ByMajority = "", false
	}
	if d.Effective.From < d.Effective.To {
		g.Until = instant(d.Effective.To)
	}
	for _, n := range d.Needs {
		out := need{As: n.As, By: n.By}
		for _, s := range d.Signatures {
			if s.As == n.As && (n.By.IsZero() || s.By == n.By) {
				out.Signed = instant(s.Valid.From)
			}
		}
		g.Needs = append(g.Needs, out)
	}
	return g
}

// emergency is an emergency on the wire.
type emergency struct {
	ID          string             `json:"id"`
	Node        hierarchy.ID       `json:"node"`
	Reason      string             `json:"reason"`
	From        string             `json:"from"`
	Until       string             `json:"until"`
	Review      string             `json:"review,omitempty"`
	Record      string             `json:"record"`
	Revision    uint64             `json:"revision"`
	Obligations []authz.Obligation `json:"obligations,omitempty"`
}

func emergencyOf(f hierarchy.EmergencyFact, c pdp.Changed) emergency {
	e := emergency{ID: f.ID, Node: f.Node, Reason: f.Reason, From: instant(f.Valid.From), Until: instant(f.Valid.To), Record: c.Record, Revision: c.Revision}
	if f.Review != nil {
		e.Review = f.Review.Outcome
	}
	return e
}

// instant is a time on the wire; an open side is absent.
func instant(i hierarchy.Instant) string {
	if i == hierarchy.Never || i == hierarchy.Forever {
		return ""
	}
	return i.String()
}

// reply is a response that is sent once and whole.
type reply struct {
	w       http.ResponseWriter
	started bool
}

// deliver sends an answer unless a change has overtaken it. When it returns, the
// answer has left this process.
func (out *reply) deliver(delivery *authz.Delivery, record string, body any) error {
	raw := render(body)
	if !delivery.Leave() {
		return &authz.Error{Kind: authz.Outage, Code: authz.Superseded}
	}
	out.write(http.StatusOK, record, raw)
	return nil
}

func (out *reply) send(status int, record string, body any) { out.write(status, record, render(body)) }

func (out *reply) write(status int, record string, raw []byte) {
	out.started = true
	h := out.w.Header()
	if record != "" {
		h.Set("Ward-Record", record)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	out.w.WriteHeader(status)
	// An error means that the client is gone. The flush matters: net/http would
	// otherwise keep the answer in its buffer until after Delivery.Done.
	_, _ = out.w.Write(raw)
	_ = http.NewResponseController(out.w).Flush()
}

// render encodes one of this package's own types, which cannot fail.
func render(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("delegation: cannot encode")
	}
	return append(raw, '\n')
}

type failure struct {
	Code    authz.Code `json:"code"`
	Message string     `json:"message"`
	Record  string     `json:"record,omitempty"`
}

// fail sends an error, and returns its code and record.
func (out *reply) fail(err error) (code authz.Code, record string) {
	status, f := http.StatusServiceUnavailable, failure{Code: DoorFailed, Message: "no decision could be made; ask again"}
	var refusal *hierarchy.Refusal
	var e *authz.Error
	switch {
	case errors.As(err, &refusal):
		status, f = refused(refusal)
		if errors.As(err, &e) {
			f.Record = e.Record
		}
	case errors.As(err, &e) && e.Kind == authz.Refused:
		status, f = denied(e)
	case e != nil && e.Code != "":
		f.Code = e.Code
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		out.w.Header().Set("Retry-After", "1")
	}
	var body struct {
		Error failure `json:"error"`
	}
	body.Error = f
	out.send(status, f.Record, body)
	return f.Code, f.Record
}

// outage reports whether fail answers 503.
func outage(err error) bool {
	var refusal *hierarchy.Refusal
	return !errors.As(err, &refusal) && authz.IsOutage(err)
}

// refused is what the facts or the pack do not admit.
func refused(r *hierarchy.Refusal) (int, failure) {
	f := failure{Code: authz.Code(r.Code), Message: r.Text}
	switch r.Code {
	case hierarchy.CodeGrantExists, hierarchy.CodeGrantLimit, hierarchy.CodeDuplicateFact, hierarchy.CodeEmergencyOpen, "request_limit":
		return http.StatusConflict, f
	case "capability_unknown": // its text repeats what was sent
		f.Message = "the pack has no capability of this name"
	}
	return http.StatusUnprocessableEntity, f
}

// denied is a decision that is no allow, or a request that is no question.
func denied(e *authz.Error) (int, failure) {
	f := failure{Code: e.Code, Message: e.Text, Record: e.Record}
	switch e.Code {
	case authz.UnknownResource, authz.NoStanding:
		// One answer, so that nobody learns which ids there are.
		f.Code, f.Message = authz.UnknownResource, "what this names does not exist, or is not yours to know of"
		return http.StatusNotFound, f
	case authz.NothingToDo:
		return http.StatusConflict, f
	case authz.TooLarge, jsonbody.TooLarge:
		return http.StatusRequestEntityTooLarge, f
	case jsonbody.ContentTypeInvalid:
		return http.StatusUnsupportedMediaType, f
	case CallerUnknown:
		return http.StatusUnauthorized, f
	case authz.RateLimited:
		return http.StatusTooManyRequests, f
	case NotFound:
		return http.StatusNotFound, f
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed, f
	case hosts.NotAllowed:
		return http.StatusMisdirectedRequest, f
	}
	if e.Record != "" {
		return http.StatusForbidden, f
	}
	return http.StatusBadRequest, f
}
