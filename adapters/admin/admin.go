// Package admin is the door for those who run Ward: changes, policies,
// inquiries and evidence, as JSON over HTTP on a Unix socket of its own.
//
// Who asks is known from the connection: the user id of the peer, as the kernel
// tells it. Ward's own policies decide what that user may do, and every answer
// of theirs is on record. The same handler serves a command that finds no
// server running and opens the data folder itself:
//
//	h, err := admin.New(admin.Config{PDP: p, Store: store, Ledger: ledger, Keys: keys})
//	server := &http.Server{Handler: h, ConnContext: admin.ConnContext}   // on a Unix socket
//	client := admin.NewClient(admin.InProcess(h, os.Getuid()))          // without one
//
// # Endpoints
//
// Bodies and answers are JSON objects. Identifiers travel in bodies, never in
// paths, so that no log of paths can hold one.
//
//	POST /v1/change           a list of events, one revision          hierarchy.change, grant.change, …
//	POST /v1/activate         a policy set's archive                  policy.activate
//	POST /v1/rollback         a set that was in force before          policy.activate
//	POST /v1/overlay/activate what a tenant forbids for itself        overlay.activate
//	POST /v1/overlay/remove   nothing more of that                    overlay.activate
//	POST /v1/overlay/check    what is wrong with such files           policy.read
//	POST /v1/overlay/show     a tenant's policies in force            policy.read
//	POST /v1/import           a feed's rows, as JSON lines            hierarchy.import
//	POST /v1/import/abandon   drop an open import                     hierarchy.import
//	POST /v1/ask              up to 1000 questions, at any time       inquiry.ask
//	POST /v1/what             what a subject sees and calls           inquiry.ask
//	POST /v1/who              who may do an action on a resource      inquiry.ask
//	GET  /v1/explain/{record} why an answer was what it was           audit.read
//	POST /v1/facts            facts of a kind                         hierarchy.read
//	POST /v1/grants           grants by person, grantee and end       hierarchy.read
//	POST /v1/settings         the pack's settings, what tenants chose hierarchy.read
//	POST /v1/emergencies      emergencies and their reviews           hierarchy.read
//	POST /v1/nodes            nodes by type, tenant and start of key  hierarchy.read
//	POST /v1/diff             what two revisions know otherwise       hierarchy.read
//	POST /v1/node             one node with its edges                 hierarchy.read
//	POST /v1/children         the edges to a node, more of them       hierarchy.read
//	POST /v1/path             how one node hangs from another         hierarchy.read
//	GET  /v1/policies         the activations                         policy.read
//	POST /v1/policies/show    the policies of a set                   policy.read
//	POST /v1/policies/archive a set as it is stored                   policy.read
//	POST /v1/audit/find       records by what they are about          audit.read
//	GET  /v1/audit/keys       the ledger's keys, and where they went   audit.read
//	POST /v1/audit/shred      destroy the key of a tenant and day     audit.shred
//	POST /v1/audit/loss       put on record that a key was lost       key.change
//	POST /v1/audit/rotate     replace the key that signs              key.change
//	GET  /v1/copy             store and ledger as one tar             audit.read
//	GET  /v1/status           head, ledger, readiness                 anybody who can connect
//	GET  /v1/survey           what to see to, without a name          anybody who can connect
//	GET  /healthz, /readyz    for a supervisor
//
// # Reading
//
// A body holds exactly one object. Unknown fields, keys given twice, invalid
// UTF-8 and what exceeds the endpoint's limit are refused. Times are RFC 3339.
// At says when a question is asked for, knownAt (a time) or revision what was
// known by then.
//
// # Errors
//
//	{"error":{"code":"cycle","message":"…","hint":"…","row":12}}
//
//	400  the request is no question        403  Ward's own policies deny it
//	404  there is no such thing            409  a policy set fails its own tests
//	410  shredded or key_lost: no key      422  the facts or policies do not admit it
//	503  an outage: nothing was decided    500  integrity, or a fault of Ward
//
// Codes are append-only. No message repeats a value of the request.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ward-authz/ward/adapters/witness"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Config is what a Handler administers. PDP, Store, Ledger and Keys are
// required, and belong together.
type Config struct {
	// PDP decides and makes the changes.
	PDP *pdp.PDP
	// Store, Ledger and Keys are the decision point's own; a copy is made of
	// the first two, the third finds records by identifier.
	Store  hierarchy.Store
	Ledger *audit.Ledger
	Keys   *audit.Keys
	// Temp is the folder in which a copy of the store is prepared; it should
	// be on the store's own disk. Empty: the system's.
	Temp string
	// Ready says why the server should get no requests; nil means PDP.Ready.
	Ready func() error
	// Witnesses says how far the ledger's witnesses have followed, for status;
	// nil means that there are none.
	Witnesses func() []witness.Status
	// Refused, when set, is called with the code of every request that this door
	// refused before a decision, for counting. It must be fast.
	Refused func(authz.Code)
	// Version of the program, for status.
	Version string
	// Log gets faults, by code and place, never with values of a request; nil
	// discards.
	Log *slog.Logger
}

// Handler serves the endpoints of the package comment.
type Handler struct {
	Config
	mux *http.ServeMux
}

// New returns the handler. It refuses a Config that lacks a part.
func New(c Config) (*Handler, error) {
	if c.PDP == nil || c.Store == nil || c.Ledger == nil || c.Keys == nil {
		return nil, errors.New("admin: a decision point, its store, its ledger and its keys are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Refused == nil {
		c.Refused = func(authz.Code) {}
	}
	if c.Ready == nil {
		c.Ready = c.PDP.Ready
	}
	h := &Handler{Config: c, mux: http.NewServeMux()}
	post(h, "/v1/change", 16<<20, h.change)
	post(h, "/v1/activate", 48<<20, h.activate)
	post(h, "/v1/ask", 4<<20, h.ask)
	post(h, "/v1/what", small, h.what)
	post(h, "/v1/who", small, h.whoMay)
	post(h, "/v1/facts", small, h.facts)
	post(h, "/v1/grants", small, h.grants)
	post(h, "/v1/settings", small, h.settings)
	post(h, "/v1/emergencies", small, h.emergencies)
	post(h, "/v1/nodes", small, h.nodes)
	post(h, "/v1/diff", small, h.diff)
	post(h, "/v1/node", small, h.node)
	post(h, "/v1/children", small, h.children)
	post(h, "/v1/path", small, h.path)
	post(h, "/v1/policies/show", small, h.showPolicies)
	post(h, "/v1/policies/archive", small, h.archive)
	post(h, "/v1/rollback", small, h.rollback)
	post(h, "/v1/overlay/activate", 48<<20, h.activateOverlay)
	post(h, "/v1/overlay/remove", small, h.removeOverlay)
	post(h, "/v1/overlay/check", 48<<20, h.checkOverlay)
	post(h, "/v1/overlay/show", small, h.showOverlay)
	post(h, "/v1/audit/find", small, h.find)
	post(h, "/v1/audit/shred", small, h.shred)
	post(h, "/v1/audit/loss", small, h.recordLoss)
	post(h, "/v1/audit/rotate", small, h.rotateSigner)
	h.get("/v1/audit/keys", h.keyring)
	h.get("/v1/explain/{record}", h.explain)
	h.get("/v1/policies", h.listPolicies)
	h.get("/v1/status", h.status)
	h.get("/v1/survey", h.survey)
	h.importEndpoints()
	h.mux.HandleFunc("GET /v1/copy", func(w http.ResponseWriter, r *http.Request) {
		who, err := h.who(r)
		if err == nil {
			err = h.copy(w, r, who)
		}
		if err != nil {
			h.fail(w, err)
		}
	})
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { Health(w, nil) })
	h.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { Health(w, c.Ready()) })
	h.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		h.fail(w, &Error{Status: http.StatusNotFound, Code: "not_found", Message: "no such endpoint, or not for this method"})
	})
	return h, nil
}

// Health answers a supervisor: 200 when err is nil, else 503 with its code.
func Health(w http.ResponseWriter, err error) {
	if err == nil {
		reply(w, http.StatusOK, map[string]string{"status": "ok"})
		return
	}
	code := authz.NotReady
	var e *authz.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	w.Header().Set("Retry-After", "1")
	reply(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "code": string(code)})
}

// Who is the authenticated administrator behind a request.
type Who struct {
	Actor  authz.Subject
	Caller authz.Caller
}

// who identifies the peer.
func (h *Handler) who(r *http.Request) (Who, error) {
	uid, ok := PeerUID(r.Context())
	if !ok {
		return Who{}, &Error{Status: http.StatusUnauthorized, Code: "peer_unknown", Message: "the connection does not say who asks"}
	}
	caller := authz.Caller{Name: "admin", Asserts: []string{pdp.AdminType}, Issuer: pdp.UnixIssuer, Assurance: 2, Explains: true}
	actor, err := caller.Assert(authz.Subject{Type: pdp.AdminType, ID: strconv.Itoa(uid)})
	return Who{actor, caller}, err
}

// ServeHTTP answers one request. A panic becomes a 500: the process lives.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler {
				panic(v)
			}
			h.Log.Error("admin: panic while answering", "type", fmt.Sprintf("%T", v))
			h.fail(w, &Error{Status: http.StatusInternalServerError, Code: "internal", Message: "a fault of ward; see its log"})
		}
	}()
	w.Header().Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

// small is the limit of bodies that hold a question.
const small = 256 << 10

// post adds an endpoint that reads an In of at most limit bytes and answers an
// Out. The endpoints of an import are added the same way.
func post[In, Out any](h *Handler, path string, limit int64, f func(context.Context, Who, *In) (Out, error)) {
	h.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		who, err := h.who(r)
		if err != nil {
			h.fail(w, err)
			return
		}
		in := new(In)
		if err := decode(r.Body, limit, in); err != nil {
			h.fail(w, err)
			return
		}
		out, err := f(r.Context(), who, in)
		if err != nil {
			h.fail(w, err)
			return
		}
		reply(w, http.StatusOK, out)
	})
}

// get adds an endpoint without a body.
func (h *Handler) get(path string, f func(*http.Request, Who) (any, error)) {
	h.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		who, err := h.who(r)
		if err != nil {
			h.fail(w, err)
			return
		}
		out, err := f(r, who)
		if err != nil {
			h.fail(w, err)
			return
		}
		reply(w, http.StatusOK, out)
	})
}

func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer cannot be written"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// Error is an answer that is none. Its JSON is the member "error" of a body.
type Error struct {
	// Status is the HTTP status.
	Status int `json:"-"`
	// Code is stable; Message and Hint are for people.
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Event is the index of the event at fault, plus one, and Row its line.
	Event int `json:"event,omitempty"`
	Row   int `json:"row,omitempty"`
	// Failures are the tests that a policy set fails.
	Failures []pdp.TestFailure `json:"failures,omitempty"`
	// Findings are what is wrong with a policy set.
	Findings []policies.Diagnostic `json:"findings,omitempty"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// fail answers an error; one place maps errors to status.
func (h *Handler) fail(w http.ResponseWriter, err error) {
	e := toError(err)
	var own *Error
	if errors.As(err, &own) && own.Status < 500 {
		h.Refused(authz.Code(own.Code))
	}
	if e.Status >= 500 {
		h.Log.Error("admin: request failed", "code", e.Code, "type", fmt.Sprintf("%T", err))
	}
	if e.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	reply(w, e.Status, map[string]*Error{"error": e})
}

func toError(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var refusal *hierarchy.Refusal
	if errors.As(err, &refusal) {
		return &Error{Status: http.StatusUnprocessableEntity, Code: refusal.Code, Message: refusal.Text,
			Hint: hints[refusal.Code], Event: refusal.Index + 1, Row: refusal.Row}
	}
	var tests *pdp.TestsFailed
	if errors.As(err, &tests) {
		return &Error{Status: http.StatusConflict, Code: "policy_tests_failed",
			Message: fmt.Sprintf("%d policy tests failed; nothing was activated", len(tests.Failures)), Failures: tests.Failures}
	}
	var findings *policies.Diagnostics
	if errors.As(err, &findings) {
		return &Error{Status: http.StatusUnprocessableEntity, Code: "policy_invalid",
			Message: fmt.Sprintf("the policies have %d findings; nothing was activated", len(findings.Findings)), Findings: findings.Findings}
	}
	var damaged *pdp.IntegrityError
	if errors.As(err, &damaged) {
		return &Error{Status: http.StatusInternalServerError, Code: "integrity", Message: damaged.Error()}
	}
	var corrupt *audit.CorruptError
	if errors.As(err, &corrupt) {
		return &Error{Status: http.StatusInternalServerError, Code: "integrity", Message: corrupt.Error()}
	}
	if errors.Is(err, hierarchy.ErrCorrupt) {
		return &Error{Status: http.StatusInternalServerError, Code: "integrity", Message: "the store is not as it was written",
			Hint: "keep its files as they are, and compare them with a copy"}
	}
	if gone := (*pdp.GoneError)(nil); errors.As(err, &gone) {
		switch gone.Status {
		case pdp.KeyShredded:
			return &Error{Status: http.StatusGone, Code: "shredded", Message: gone.Error() + ": it verifies, and cannot be read"}
		case pdp.KeyLost:
			return &Error{Status: http.StatusGone, Code: "key_lost", Message: gone.Error() + ": it verifies, and cannot be read"}
		}
		return &Error{Status: http.StatusInternalServerError, Code: "key_missing", Message: gone.Error(), Hint: hints["key_missing"]}
	}
	var asked *authz.Error
	if errors.As(err, &asked) {
		e := &Error{Status: http.StatusServiceUnavailable, Code: string(asked.Code), Message: asked.Text, Hint: hints[string(asked.Code)]}
		if asked.Kind == authz.Refused {
			switch asked.Code {
			case authz.BadRequest, authz.TooLarge:
				e.Status = http.StatusBadRequest
			case "unknown_record", "unknown_revision":
				e.Status = http.StatusNotFound
			default:
				e.Status = http.StatusForbidden
			}
		}
		return e
	}
	return &Error{Status: http.StatusInternalServerError, Code: "internal", Message: "a fault of ward; see its log"}
}

// hints say what helps against a code.
var hints = map[string]string{
	hierarchy.CodeUnknownTenant:    "add the tenant first: ward hierarchy apply FILE with a Tenant node and its operatedBy edge",
	hierarchy.CodeUnknownEnd:       "what the fact refers to must exist at that time: ward hierarchy show ID",
	hierarchy.CodeIntervalInverted: "the end must lie after the start; a date as the end includes that day",
	hierarchy.CodeUnknownFact:      "list the facts with their ids: ward grant list, ward link list, ward role list --assignments",
	"setting_unknown":              "ward setting list shows the settings of the policy set",
	"setting_invalid":              "ward setting list shows what each takes",
	"emergency_unasked":            "people open, end and review emergencies through their portal, as the policy set lets them; ward emergency list shows them",
	"signature_unasked":            "people sign through their portal, as the policy set lets them; a grant that another system keeps has a source and an external id",
	"why_missing":                  "--why says it",
	hierarchy.CodeGrantLimit:       "end one of the grants first: ward grant revoke ID",
	string(authz.SubjectUnlinked):  "this user id is no administrator: an administrator can run ward link add identity unix UID Admin:NAME",
	string(authz.UnknownSubject):   "this user id is no administrator: an administrator can run ward link add identity unix UID Admin:NAME",
	string(authz.NoStanding):       "a role at the operator or the tenant is missing: ward role assign Admin:NAME ROLE NODE",
	string(authz.AssignmentEnded):  "the role has ended: ward role assign Admin:NAME ROLE NODE",
	string(authz.NotReady):         "activate a policy set: ward policy activate pbm",
	string(authz.LedgerFailed):     "see that the ledger's disk has room and its keys are in place, then restart the server",
	"overlay_invalid":              "look at it with ward policy overlay show TENANT; change it, or take it out: ward policy overlay remove TENANT",
	"overlay_unknown":              "ward status lists the overlays in force",
	"key_missing":                  "bring the key folder's file back from a copy; ward audit keys lists what is missing, and ward audit keys --record-loss puts a loss on record",
	"nothing_to_shred":             "ward audit keys lists the keys by day and tenant",
	"nothing_lost":                 "ward audit keys lists the keys by day and tenant",
	"unknown_record":               "ward audit find lists records",
	"unknown_revision":             "ward status shows the last revision",
}

// when turns the times of a question into an instant and a revision; both are
// 0 where nothing was said.
func (h *Handler) when(w When) (hierarchy.Instant, uint64, error) {
	rev := w.Revision
	if !w.KnownAt.IsZero() {
		if rev != 0 {
			return 0, 0, bad("knownAt and revision exclude each other")
		}
		if rev = h.PDP.Graph().RevisionAt(hierarchy.At(time.Time(w.KnownAt))); rev == 0 {
			return 0, 0, &Error{Status: http.StatusNotFound, Code: "unknown_revision", Message: "ward knew nothing yet at that time"}
		}
	}
	if rev > h.PDP.Graph().Head().Revision {
		return 0, 0, &Error{Status: http.StatusNotFound, Code: "unknown_revision", Message: "there is no such revision yet", Hint: hints["unknown_revision"]}
	}
	var at hierarchy.Instant
	if !w.At.IsZero() {
		at = hierarchy.At(time.Time(w.At))
	}
	return at, rev, nil
}

// view returns the facts that a question is about.
func (h *Handler) view(w When) (hierarchy.View, error) {
	at, rev, err := h.when(w)
	if err != nil {
		return hierarchy.View{}, err
	}
	if at == 0 {
		if at, err = h.PDP.Now(); err != nil {
			return hierarchy.View{}, err
		}
	}
	return h.PDP.View(at, rev), nil
}

func bad(text string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: string(authz.BadRequest), Message: text}
}
