package authzen

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ward-authz/ward/pdp/authz"
)

// fakeDecider holds the certification fixture and remembers what it was asked.
type fakeDecider struct {
	mu    sync.Mutex
	asked []authz.Request

	// judge, when set, replaces the fixture's rules.
	judge func(authz.Request) authz.Decision
	// err, when set, is what every question gets.
	err error
	// before, when set, runs at the start of every call.
	before func(context.Context)
}

func (f *fakeDecider) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	all, err := f.DecideAll(ctx, []authz.Request{r}, authz.ExecuteAll)
	if err != nil {
		return authz.Decision{}, err
	}
	return all[0], nil
}

func (f *fakeDecider) DecideAll(ctx context.Context, requests []authz.Request, stop authz.Stop) ([]authz.Decision, error) {
	if f.before != nil {
		f.before(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []authz.Decision
	for _, r := range requests {
		f.asked = append(f.asked, r)
		judge := f.judge
		if judge == nil {
			judge = fixture
		}
		d := judge(r)
		if d.Record == "" {
			d.Receipt = authz.Receipt{Record: fmt.Sprintf("a-%d", len(f.asked)), Revision: 7}
		}
		all = append(all, d)
		if ends(stop, d) {
			break
		}
	}
	return all, nil
}

// take returns what was asked since the last take.
func (f *fakeDecider) take() []authz.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// fixture judges by the eight rules of the certification scenario.
func fixture(r authz.Request) authz.Decision {
	deny := func(c authz.Code) authz.Decision { return authz.Decision{Verdict: authz.Verdict{Code: c}} }
	if r.Refusal != "" {
		return deny(r.Refusal)
	}
	if !r.Subject.IsVerified() {
		return deny(authz.SubjectUnverified)
	}
	if r.Subject.Type != "user" || r.Resource.Type != "record" {
		return deny(authz.UnknownType)
	}
	alice, bob := r.Subject.ID == "alice", r.Subject.ID == "bob"
	archived := r.Resource.Properties["status"] == "archived"
	var allow bool
	switch r.Action.Name {
	case "read":
		allow = alice || bob
	case "write":
		allow = alice && !archived || archived && r.Subject.Properties["role"] == "admin"
	case "delete":
		allow = alice && r.Action.Properties["soft"] == true
	default:
		return deny(authz.UnknownAction)
	}
	if !allow {
		return deny(authz.Denied)
	}
	return authz.Decision{Verdict: authz.Verdict{Effect: authz.Allow, Code: authz.Permitted, Reasons: []string{"fixture"}}}
}

var testCaller = authz.Caller{Name: "tester", Asserts: []string{"user"}, Issuer: "https://issuer.example", Assurance: 2}

// newDoor returns a door for example.com over f, changed by change.
func newDoor(t testing.TB, f authz.Decider, change ...func(*Config)) http.Handler {
	t.Helper()
	c := Config{
		Decider: f,
		BaseURL: "https://pdp.example.com",
		Hosts:   []string{"example.com"},
		Caller:  func(*http.Request) (authz.Caller, bool) { return testCaller, true },
	}
	for _, f := range change {
		f(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// post sends a body to a path of the door.
func post(h http.Handler, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func header(key string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(key)] = values }
}

// wireAnswer is an answer as a client reads it.
type wireAnswer struct {
	Decision *bool `json:"decision"`
	Context  struct {
		Code        string
		Record      string
		Revision    uint64
		Obligations []authz.Obligation
		ValidFor    *int64
		ValidUntil  *string
		Reasons     []string
		Errors      []string
		Grant       *string
		Message     *string
	} `json:"context"`
	Evaluations []wireAnswer `json:"evaluations"`
	Error       *struct{ Code, Message string }
}

func decode(t testing.TB, w *httptest.ResponseRecorder) wireAnswer {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
	var a wireAnswer
	raw, _ := io.ReadAll(w.Result().Body)
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatalf("answer %q: %v", raw, err)
	}
	if w.Code == http.StatusOK == (a.Error != nil) || a.Error != nil && (a.Decision != nil || a.Evaluations != nil) {
		t.Errorf("status %d mixes answer and error: %s", w.Code, raw)
	}
	return a
}

// wantError checks status and code of an error.
func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, code authz.Code) {
	t.Helper()
	a := decode(t, w)
	if w.Code != status || a.Error == nil || a.Error.Code != string(code) {
		t.Errorf("got %d %s, want %d %s", w.Code, strings.TrimSpace(w.Body.String()), status, code)
		return
	}
	if a.Error.Message == "" {
		t.Errorf("%s has no message", code)
	}
	if retry := w.Header().Get("Retry-After"); (retry == "1") != (status == 503 || status == 429) {
		t.Errorf("Retry-After is %q at status %d", retry, status)
	}
	if got := w.Header().Get("Ward-Record"); got != "" {
		t.Errorf("an error names the record %q", got)
	}
}

// wantDecisions checks the decisions of an answer, in order.
func wantDecisions(t *testing.T, w *httptest.ResponseRecorder, want ...bool) wireAnswer {
	t.Helper()
	a := decode(t, w)
	var got []bool
	for _, e := range a.Evaluations {
		got = append(got, *e.Decision)
	}
	if a.Decision != nil {
		got = append(got, *a.Decision)
	}
	if w.Code != 200 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %d %v, want 200 %v: %s", w.Code, got, want, w.Body)
	}
	return a
}

const aliceReads = `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`
