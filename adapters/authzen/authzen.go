// Package authzen is the door that speaks the OpenID AuthZEN Authorization API
// 1.0: it turns a JSON body into an [authz.Request] and an [authz.Decision]
// back into JSON.
//
//	door, err := authzen.New(authzen.Config{
//		Decider: pdp,
//		BaseURL: "https://pdp.example.com",
//		Hosts:   []string{"pdp.example.com", "127.0.0.1:8180"},
//		Caller:  callers.Identify,
//	})
//	server := &http.Server{Handler: door, ReadTimeout: …, WriteTimeout: …}
//
// Ask it:
//
//	$ curl -s https://pdp.example.com/access/v1/evaluation \
//	    -H 'Content-Type: application/json' -d '{
//	      "subject":  {"type": "user", "id": "dana"},
//	      "action":   {"name": "claim.view"},
//	      "resource": {"type": "claim", "id": "c-42",
//	                   "properties": {"coverage": "cov-7"}}}'
//	{"decision":true,"context":{"code":"permitted","record":"a-1042","revision":318,"validFor":5}}
//
// Give the server a WriteTimeout: an answer that its client does not read holds
// back the acknowledgement of revocations until it has left (see the Delivery
// section of package authz). The door flushes each answer before it reports it
// as delivered.
//
// # Endpoints
//
//	POST /access/v1/evaluation               one question
//	POST /access/v1/evaluations              a batch; without items, one question
//	GET  /.well-known/authzen-configuration  metadata, built from [Config.BaseURL]
//	POST /v1/outcomes                        what became of a decision
//
// A path in BaseURL goes after the well-known part; the evaluation endpoints
// then answer below that path as well as without it. The search endpoints are
// not served. Outcomes are not part of AuthZEN: see below.
//
// # Reading
//
// The protocol wants unknown fields ignored; everything else is read strictly.
// Field names match byte for byte, so "Subject" is an unknown field. Duplicate
// keys anywhere, data after the value, invalid UTF-8, unpaired surrogates and
// nesting beyond [Config.MaxDepth] are refused. The strings type, id, name,
// area and grant hold 1 to 512 bytes without control characters. Numbers keep
// their text as json.Number. Explicit null is a wrong type for every known
// field; inside properties and context it is kept.
//
// The member "ward" of context belongs to the door and never reaches a policy:
//
//	"context": {"ward": {"area": "Tenant:acme", "grant": "g-1"}}
//
// sets [authz.Request].Area and Grant, which only narrow the question.
//
// The subject is verified when the caller is registered to assert its type.
// Otherwise it is passed on unverified, so that the decision point records the
// question and denies it with subject_unverified, alone and in a batch alike.
//
// # Batches
//
// The top level of a batch gives defaults for subject, action, resource and
// context: an item inherits each of them whole or replaces it whole. What the
// top level holds must itself be valid. An item that cannot be read, on its own
// or for want of a default, is recorded and answered "decision":false with the
// code bad_request and a message that names the field.
//
// options.evaluations_semantic is execute_all (the default),
// deny_on_first_deny or permit_on_first_permit. An allow whose obligations the
// caller does not perform counts as the deny it is rendered as: under
// permit_on_first_permit the remaining items are then asked as well, at the
// revision of that moment. An outage fails the whole batch.
//
// # Answering
//
// An answer has status 200, the header Ward-Record and a context:
//
//	code, record, revision   always
//	obligations              of an allow, each {id, properties}
//	validFor                 how long the answer may be used, in whole seconds
//	                         rounded down: at most 5 (authz.MaxStale), less when
//	                         time alone may change it sooner
//	message                  of an unreadable item
//
// A caller with the explain right gets reasons, errors, grant and the exact
// validUntil (RFC 3339, milliseconds, capped at the end of the year 9999)
// instead of validFor.
//
// Anything else is an error and never a decision:
//
//	{"error":{"code":"field_missing","message":"subject.id is missing"}}
//
// 503 with Retry-After is an outage: do not cache it and do not count it as a
// deny. 429 with Retry-After is rate_limited: the caller asks more often than it
// is registered to. Messages are fixed sentences that name fields, never values.
//
// # Outcomes
//
// A caller says what it did with a decision, where the decider is an
// [authz.Reporter]:
//
//	{"record":"a-1042","delivered":true,"rows":12,"obligations":["mask"]}
//
// record and delivered are required, and unknown fields refused. The answer has
// status 201 and the body {"record":"a-1043"}, the outcome's own. 404
// unknown_record: the caller got no such decision. 409 outcome_exists: it has an
// outcome already, which a caller that lost its answer takes for success. 410
// outcome_late: it is older than a day, or than what is remembered.
//
// # Compatibility
//
// Codes and members of context are append-only.
package authzen

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/ward-authz/ward/adapters/hosts"
	"github.com/ward-authz/ward/adapters/jsonbody"
	"github.com/ward-authz/ward/adapters/panics"
	"github.com/ward-authz/ward/pdp/authz"
)

// Config says what a door needs. Decider and Caller are required.
type Config struct {
	// Decider answers the questions. It must be an [authz.BatchDecider] too.
	Decider authz.Decider
	// BaseURL is the policy_decision_point of the metadata: https, in canonical
	// form, without query, fragment, user or trailing slash. It comes from
	// configuration, never from a request. Empty: the metadata endpoint
	// answers 404.
	BaseURL string
	// Hosts lists the values of the Host header that are served; a web page
	// cannot then reach the door through a name of its own (DNS rebinding).
	// "name" matches with any port, "name:port" with that port; names compare
	// without case, and there are no wildcards. On a Unix socket, which no web
	// page reaches, "localhost" is served as well. An empty list refuses every
	// request from the network.
	Hosts []string
	// Caller says who asks, from the connection (peer uid, client certificate,
	// listener) or a credential in the header. False answers 401. It must not
	// read the body.
	Caller func(*http.Request) (authz.Caller, bool)
	// MaxBody is the largest body in bytes; 0 means 1 MiB.
	MaxBody int64
	// MaxItems is the largest number of items in a batch; 0 means 100.
	MaxItems int
	// MaxDepth is how deep objects and arrays may nest, the outermost counting
	// as one; 0 means 32.
	MaxDepth int
	// Refused, when set, is called with the code of every request that was
	// refused before or instead of a decision, for counting. It must be fast.
	Refused func(authz.Code)
	// Now is the clock for validFor; nil means time.Now.
	Now func() time.Time
	// Log gets panics (error) and outages (debug), by code and place, never
	// with values of a request; nil discards.
	Log *slog.Logger
}

// Codes of this door's own errors, beside those of package authz.
const (
	// HostNotAllowed: the Host header is not in [Config.Hosts]. Status 421.
	HostNotAllowed = hosts.NotAllowed
	// NotFound: no such endpoint. Status 404.
	NotFound authz.Code = "not_found"
	// MethodNotAllowed: the endpoint exists, for another method. Status 405.
	MethodNotAllowed authz.Code = "method_not_allowed"
	// RequestIDInvalid: X-Request-ID is not 1 to 128 visible ASCII characters.
	RequestIDInvalid authz.Code = "request_id_invalid"
	// CallerUnknown: nobody registered is asking. Status 401.
	CallerUnknown authz.Code = "caller_unknown"
	// ContentTypeInvalid: the body is not declared as application/json.
	ContentTypeInvalid = jsonbody.ContentTypeInvalid
	// BodyTooLarge: the body exceeds [Config.MaxBody]. Status 413.
	BodyTooLarge = jsonbody.TooLarge
	// BodyUnreadable: the body broke off.
	BodyUnreadable = jsonbody.Unreadable
	// JSONInvalid: the body is not exactly one JSON object in UTF-8.
	JSONInvalid = jsonbody.Invalid
	// JSONTooDeep: the body nests deeper than [Config.MaxDepth].
	JSONTooDeep = jsonbody.TooDeep
	// KeyDuplicate: an object names a key twice.
	KeyDuplicate = jsonbody.KeyDuplicate
	// FieldMissing: a required field is absent.
	FieldMissing authz.Code = "field_missing"
	// FieldType: a field has the wrong JSON type.
	FieldType = jsonbody.NotObject
	// FieldInvalid: a string is empty, too long or holds control characters.
	FieldInvalid authz.Code = "field_invalid"
	// SemanticUnknown: options.evaluations_semantic is not one of the three.
	SemanticUnknown authz.Code = "semantic_unknown"
	// FieldUnknown: an outcome has a field that is none of its.
	FieldUnknown authz.Code = "field_unknown"
	// BatchTooLarge: the batch exceeds [Config.MaxItems].
	BatchTooLarge authz.Code = "batch_too_large"
	// DecisionFailed: the decision point failed without saying how. An outage.
	DecisionFailed authz.Code = "decision_failed"
)

const (
	evaluationPath  = "/access/v1/evaluation"
	evaluationsPath = "/access/v1/evaluations"
	wellKnownPath   = "/.well-known/authzen-configuration"
	outcomesPath    = "/v1/outcomes"
)

// New returns the door as a handler. It refuses a Config that could not answer
// safely.
func New(c Config) (http.Handler, error) {
	d := &door{
		caller:   c.Caller,
		maxBody:  c.MaxBody,
		maxItems: c.MaxItems,
		maxDepth: c.MaxDepth,
		refused:  c.Refused,
		now:      c.Now,
		log:      c.Log,
	}
	if c.Decider == nil {
		return nil, errors.New("authzen: Config.Decider is required")
	}
	var ok bool
	if d.decider, ok = c.Decider.(authz.BatchDecider); !ok {
		return nil, errors.New("authzen: Config.Decider must be an authz.BatchDecider")
	}
	if c.Caller == nil {
		return nil, errors.New("authzen: Config.Caller is required")
	}
	if c.MaxBody < 0 || c.MaxItems < 0 || c.MaxDepth < 0 {
		return nil, errors.New("authzen: limits of Config must not be negative")
	}
	d.defaults()
	var err error
	if d.hosts, err = hosts.Read(c.Hosts); err != nil {
		return nil, fmt.Errorf("authzen: Config.Hosts: %w", err)
	}
	base, err := readBase(c.BaseURL)
	if err != nil {
		return nil, err
	}
	evaluation := endpoint{"POST", d.evaluation}
	evaluations := endpoint{"POST", d.evaluations}
	d.endpoints = map[string]endpoint{evaluationPath: evaluation, evaluationsPath: evaluations}
	if d.reporter, ok = c.Decider.(authz.Reporter); ok {
		d.endpoints[outcomesPath] = endpoint{"POST", d.outcome}
	}
	if base != nil {
		d.metadata = render(metadata{
			PolicyDecisionPoint:       c.BaseURL,
			AccessEvaluationEndpoint:  c.BaseURL + evaluationPath,
			AccessEvaluationsEndpoint: c.BaseURL + evaluationsPath,
		})
		d.endpoints[base.Path+evaluationPath] = evaluation
		d.endpoints[base.Path+evaluationsPath] = evaluations
		d.endpoints[wellKnownPath+base.Path] = endpoint{"GET", d.configuration}
	}
	return d, nil
}

type metadata struct {
	PolicyDecisionPoint       string `json:"policy_decision_point"`
	AccessEvaluationEndpoint  string `json:"access_evaluation_endpoint"`
	AccessEvaluationsEndpoint string `json:"access_evaluations_endpoint"`
}

type door struct {
	decider   authz.BatchDecider
	reporter  authz.Reporter // nil: outcomes are not served
	caller    func(*http.Request) (authz.Caller, bool)
	hosts     hosts.List
	endpoints map[string]endpoint // by escaped path
	metadata  []byte
	maxBody   int64
	maxItems  int
	maxDepth  int
	refused   func(authz.Code)
	now       func() time.Time
	log       *slog.Logger
}

type endpoint struct {
	method string
	serve  func(*reply, *http.Request) error
}

func (d *door) defaults() {
	if d.maxBody == 0 {
		d.maxBody = 1 << 20
	}
	if d.maxItems == 0 {
		d.maxItems = 100
	}
	if d.maxDepth == 0 {
		d.maxDepth = 32
	}
	if d.refused == nil {
		d.refused = func(authz.Code) {}
	}
	if d.now == nil {
		d.now = time.Now
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
}

// ServeHTTP answers one request. A panic below it becomes an outage: the
// process lives, and the client gets no decision.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &reply{w: w}
	defer func() {
		if v := recover(); v != nil {
			panics.Log(d.log, "authzen", v)
			if !out.started {
				out.fail(outage(DecisionFailed))
			}
		}
	}()
	if err := d.route(out, r); err != nil {
		code := out.fail(err)
		if authz.IsOutage(err) {
			d.log.Debug("authzen: outage", "code", code)
		} else {
			d.refused(code)
		}
	}
}

// route checks what the request line and the headers say, before the body.
func (d *door) route(out *reply, r *http.Request) error {
	if err := d.hosts.Check(r); err != nil {
		return err
	}
	id, err := requestID(r.Header)
	if err != nil {
		return err
	}
	if id != "" {
		out.w.Header().Set("X-Request-ID", id)
	}
	e, ok := d.endpoints[r.URL.EscapedPath()]
	if !ok {
		return refuse(NotFound, "no such endpoint")
	}
	if r.Method != e.method && !(e.method == "GET" && r.Method == "HEAD") {
		out.w.Header().Set("Allow", e.method)
		return refuse(MethodNotAllowed, "this endpoint takes "+e.method)
	}
	return e.serve(out, r)
}

func (d *door) configuration(out *reply, _ *http.Request) error {
	out.send(http.StatusOK, d.metadata)
	return nil
}

// readBase returns the parsed base URL, or nil when there is none.
func readBase(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(s, "?#") {
		return nil, errors.New("authzen: Config.BaseURL must be an https URL without user, query or fragment")
	}
	if u.String() != s || u.RawPath != "" || u.Path != "" && (path.Clean(u.Path) != u.Path || u.Path == "/") {
		return nil, errors.New("authzen: Config.BaseURL must be in canonical form, without a trailing slash")
	}
	return u, nil
}

// requestID returns the X-Request-ID header, or "" when there is none.
func requestID(h http.Header) (string, error) {
	values := h.Values("X-Request-ID")
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return "", nil
	}
	if len(values) > 1 || len(values[0]) > 128 || !visible(values[0]) {
		return "", refuse(RequestIDInvalid, "X-Request-ID must be at most 128 visible ASCII characters, sent once")
	}
	return values[0], nil
}

// visible reports whether s holds only visible ASCII characters.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
