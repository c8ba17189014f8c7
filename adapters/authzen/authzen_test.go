package authzen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/pdp/authz"
)

func sameRequest(a, b authz.Request) bool { return reflect.DeepEqual(a, b) }

func nested(n int) string {
	return strings.Repeat("[", n) + strings.Repeat("]", n)
}

// with returns aliceReads with one piece of text replaced.
func with(old, new string) string {
	s := strings.Replace(aliceReads, old, new, 1)
	if s == aliceReads {
		panic("nothing replaced: " + old)
	}
	return s
}

func TestBadBodies(t *testing.T) {
	more := func(member string) string { return strings.TrimSuffix(aliceReads, "}") + "," + member + "}" }
	for _, c := range []struct {
		name, body string
		code       authz.Code
	}{
		{"empty", "", JSONInvalid},
		{"only space", " \r\n\t", JSONInvalid},
		{"half", aliceReads[:40], JSONInvalid},
		{"trailing data", aliceReads + "{}", JSONInvalid},
		{"trailing comma", with(`"alice"}`, `"alice",}`), JSONInvalid},
		{"comma in array", more(`"x":[1,]`), JSONInvalid},
		{"byte order mark", "\ufeff" + aliceReads, JSONInvalid},
		{"comment", aliceReads + "// no", JSONInvalid},
		{"NUL byte after", aliceReads + "\x00", JSONInvalid},
		{"array", "[" + aliceReads + "]", FieldType},
		{"null", "null", FieldType},
		{"string", `"x"`, FieldType},

		{"duplicate key", more(`"subject":{"type":"user","id":"bob"}`), KeyDuplicate},
		{"duplicate key, escaped", more(`"\u0073ubject":{"type":"user","id":"bob"}`), KeyDuplicate},
		{"duplicate id", with(`"id":"alice"`, `"id":"alice","id":"bob"`), KeyDuplicate},
		{"duplicate unknown key", more(`"x":1,"x":1`), KeyDuplicate},
		{"duplicate deep key", more(`"context":{"a":[{"b":1,"b":2}]}`), KeyDuplicate},

		{"too deep", more(`"x":` + nested(32)), JSONTooDeep},
		{"far too deep", strings.Repeat(`{"a":`, 100000), JSONTooDeep},
		{"invalid UTF-8 in an id", with("alice", "ali\xffce"), JSONInvalid},
		{"invalid UTF-8 in a key", more("\"\xc0\x80\":1"), JSONInvalid},
		{"lone high surrogate", with("alice", `\ud800`), JSONInvalid},
		{"lone low surrogate", with("alice", `\udc00x`), JSONInvalid},
		{"swapped surrogates", with("alice", `\udc00\ud800`), JSONInvalid},
		{"lone surrogate in a key", more(`"\uD83Dx":1`), JSONInvalid},

		{"no subject", with(`"subject"`, `"x"`), FieldMissing},
		{"no action", with(`"action"`, `"x"`), FieldMissing},
		{"no resource", with(`"resource"`, `"x"`), FieldMissing},
		{"Subject", with(`"subject"`, `"Subject"`), FieldMissing},
		{"subject with a long s", with(`"subject"`, `"\u017fubject"`), FieldMissing},
		{"subject.ID", with(`"id":"alice"`, `"ID":"alice"`), FieldMissing},
		{"no subject.type", with(`"type":"user",`, ``), FieldMissing},
		{"no subject.id", with(`,"id":"alice"`, ``), FieldMissing},
		{"no action.name", with(`"name":"read"`, ``), FieldMissing},
		{"no resource.type", with(`"type":"record",`, ``), FieldMissing},
		{"no resource.id", with(`,"id":"record-1"`, ``), FieldMissing},

		{"subject a string", with(`{"type":"user","id":"alice"}`, `"alice"`), FieldType},
		{"subject null", with(`{"type":"user","id":"alice"}`, `null`), FieldType},
		{"subject an array", with(`{"type":"user","id":"alice"}`, `[]`), FieldType},
		{"action.name a number", with(`"read"`, `123`), FieldType},
		{"subject.id null", with(`"alice"`, `null`), FieldType},
		{"resource.id an object", with(`"record-1"`, `{}`), FieldType},
		{"subject.properties a string", with(`"alice"`, `"alice","properties":"x"`), FieldType},
		{"subject.properties null", with(`"alice"`, `"alice","properties":null`), FieldType},
		{"action.properties an array", with(`"read"`, `"read","properties":[]`), FieldType},
		{"resource.properties a number", with(`"record-1"`, `"record-1","properties":1`), FieldType},
		{"context a string", more(`"context":"x"`), FieldType},
		{"context null", more(`"context":null`), FieldType},
		{"context an array", more(`"context":[]`), FieldType},
		{"ward a string", more(`"context":{"ward":"Tenant:acme"}`), FieldType},
		{"area a number", more(`"context":{"ward":{"area":1}}`), FieldType},
		{"grant null", more(`"context":{"ward":{"grant":null}}`), FieldType},

		{"subject.id empty", with(`"alice"`, `""`), FieldInvalid},
		{"subject.type empty", with(`"user"`, `""`), FieldInvalid},
		{"action.name empty", with(`"read"`, `""`), FieldInvalid},
		{"resource.id empty", with(`"record-1"`, `""`), FieldInvalid},
		{"resource.type empty", with(`"record"`, `""`), FieldInvalid},
		{"NUL in an id", with("alice", `al\u0000ice`), FieldInvalid},
		{"unit separator in an id", with("alice", `al\u001fice`), FieldInvalid},
		{"newline in an id", with("alice", `al\nice`), FieldInvalid},
		{"DEL in an id", with("alice", "al\x7fice"), FieldInvalid},
		{"long id", with("alice", strings.Repeat("a", 513)), FieldInvalid},
		{"long id in bytes", with("alice", strings.Repeat("é", 257)), FieldInvalid},
		{"long name", with("read", strings.Repeat("a", 513)), FieldInvalid},
		{"empty area", more(`"context":{"ward":{"area":""}}`), FieldInvalid},
		{"control in a grant", more(`"context":{"ward":{"grant":"g\r\n"}}`), FieldInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeDecider{}
			h := newDoor(t, f)
			wantError(t, post(h, evaluationPath, c.body), 400, c.code)
			wantError(t, post(h, evaluationsPath, c.body), 400, c.code)
			if asked := f.take(); asked != nil {
				t.Errorf("the decider was asked %v", asked)
			}
		})
	}
}

func TestBadBatches(t *testing.T) {
	item := `{"resource":{"type":"record","id":"record-1"}}`
	defaults := `"subject":{"type":"user","id":"alice"},"action":{"name":"read"}`
	for _, c := range []struct {
		name, body string
		code       authz.Code
	}{
		{"evaluations an object", `{` + defaults + `,"evaluations":{}}`, FieldType},
		{"evaluations null", `{` + defaults + `,"evaluations":null}`, FieldType},
		{"an item that is no object", `{` + defaults + `,"evaluations":[` + item + `,1]}`, FieldType},
		{"options a string", `{` + defaults + `,"options":"x","evaluations":[` + item + `]}`, FieldType},
		{"semantic a number", `{` + defaults + `,"options":{"evaluations_semantic":1},"evaluations":[` + item + `]}`, FieldType},
		{"unknown semantic", `{` + defaults + `,"options":{"evaluations_semantic":"Execute_all"},"evaluations":[` + item + `]}`, SemanticUnknown},
		{"empty semantic", `{` + defaults + `,"options":{"evaluations_semantic":""},"evaluations":[` + item + `]}`, SemanticUnknown},
		{"unknown semantic without items", strings.TrimSuffix(aliceReads, "}") + `,"options":{"evaluations_semantic":"x"}}`, SemanticUnknown},
		{"too many items", `{` + defaults + `,"evaluations":[` + strings.Repeat(item+",", 100) + item + `]}`, BatchTooLarge},
		{"a wrong default", `{"subject":"alice","evaluations":[` + aliceReads + `]}`, FieldType},
		{"an incomplete default", `{"subject":{"type":"user"},"evaluations":[` + aliceReads + `]}`, FieldMissing},
		{"a wrong context default", `{"context":[],"evaluations":[` + aliceReads + `]}`, FieldType},
		{"a duplicate key in an item", `{` + defaults + `,"evaluations":[` + item + `,{"a":1,"a":2}]}`, KeyDuplicate},
		{"no question at all", `{"evaluations":[]}`, FieldMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeDecider{}
			wantError(t, post(newDoor(t, f), evaluationsPath, c.body), 400, c.code)
			if asked := f.take(); asked != nil {
				t.Errorf("the decider was asked %v", asked)
			}
		})
	}
	all := `{` + defaults + `,"evaluations":[` + strings.Repeat(item+",", 99) + item + `]}`
	if got := decode(t, post(newDoor(t, &fakeDecider{}), evaluationsPath, all)); len(got.Evaluations) != 100 {
		t.Errorf("100 items got %d answers", len(got.Evaluations))
	}
}

func TestBadHeaders(t *testing.T) {
	json := "application/json"
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		status int
		code   authz.Code
	}{
		{"no content type", header("Content-Type"), 400, ContentTypeInvalid},
		{"text", header("Content-Type", "text/plain"), 400, ContentTypeInvalid},
		{"a JSON dialect", header("Content-Type", "application/ld+json"), 400, ContentTypeInvalid},
		{"a prefix", header("Content-Type", "application/jsonp"), 400, ContentTypeInvalid},
		{"two content types", header("Content-Type", json, json), 400, ContentTypeInvalid},
		{"a list of content types", header("Content-Type", "application/json, text/plain"), 400, ContentTypeInvalid},
		{"long request id", header("X-Request-ID", strings.Repeat("a", 129)), 400, RequestIDInvalid},
		{"request id with a space", header("X-Request-ID", "a b"), 400, RequestIDInvalid},
		{"request id with a line break", header("X-Request-ID", "a\r\nWard-Record: a-1"), 400, RequestIDInvalid},
		{"request id beyond ASCII", header("X-Request-ID", "é"), 400, RequestIDInvalid},
		{"two request ids", header("X-Request-ID", "a", "b"), 400, RequestIDInvalid},
		{"another host", func(r *http.Request) { r.Host = "evil.example" }, 421, HostNotAllowed},
		{"no host", func(r *http.Request) { r.Host = "" }, 421, HostNotAllowed},
		{"localhost over TCP", func(r *http.Request) { r.Host = "localhost" }, 421, HostNotAllowed},
		{"a suffix of the host", func(r *http.Request) { r.Host = "evil-example.com" }, 421, HostNotAllowed},
		{"a trailing dot", func(r *http.Request) { r.Host = "example.com." }, 421, HostNotAllowed},
		{"a host with user", func(r *http.Request) { r.Host = "example.com@evil.example" }, 421, HostNotAllowed},
		{"too large by its word", func(r *http.Request) { r.ContentLength = 1<<20 + 1 }, 413, BodyTooLarge},
		{"too large without a word", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat(" ", 1<<20+1))), -1
		}, 413, BodyTooLarge},
		{"broken off", func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), errReader{}))
		}, 400, BodyUnreadable},
		{"GET", func(r *http.Request) { r.Method = "GET" }, 405, MethodNotAllowed},
		{"OPTIONS", func(r *http.Request) { r.Method = "OPTIONS" }, 405, MethodNotAllowed},
		{"post", func(r *http.Request) { r.Method = "post" }, 405, MethodNotAllowed},
		{"unknown path", func(r *http.Request) { r.URL.Path = "/access/v1/search/subject" }, 404, NotFound},
		{"trailing slash", func(r *http.Request) { r.URL.Path = evaluationPath + "/" }, 404, NotFound},
		{"doubled slash", func(r *http.Request) { r.URL.Path = "/" + evaluationPath }, 404, NotFound},
		{"escaped path", func(r *http.Request) { r.URL.RawPath = "/access/v1/%65valuation" }, 404, NotFound},
		{"dots in the path", func(r *http.Request) { r.URL.Path = "/access/v1/x/../evaluation" }, 404, NotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeDecider{}
			var counted []authz.Code
			h := newDoor(t, f, func(cfg *Config) { cfg.Refused = func(c authz.Code) { counted = append(counted, c) } })
			w := post(h, evaluationPath, aliceReads, c.change)
			wantError(t, w, c.status, c.code)
			if got := w.Header().Get("Allow"); (got == "POST") != (c.status == 405) {
				t.Errorf("Allow is %q", got)
			}
			if c.code == RequestIDInvalid && len(w.Header().Values("X-Request-ID")) != 0 {
				t.Error("an invalid X-Request-ID is echoed")
			}
			if f.take() != nil {
				t.Error("the decider was asked")
			}
			if len(counted) != 1 || counted[0] != c.code {
				t.Errorf("counted %v, want %s", counted, c.code)
			}
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("cable pulled") }

func TestUnknownCaller(t *testing.T) {
	h := newDoor(t, &fakeDecider{}, func(c *Config) {
		c.Caller = func(*http.Request) (authz.Caller, bool) { return testCaller, false }
	})
	unread := func(r *http.Request) { r.Body = io.NopCloser(explodingReader{t}) }
	w := post(h, evaluationPath, "", unread, header("X-Request-ID", "r-1"))
	wantError(t, w, 401, CallerUnknown)
	if got := w.Header().Get("X-Request-ID"); got != "r-1" {
		t.Errorf("X-Request-ID is %q", got)
	}
	// Nobody's host name is checked before anything is read, too.
	wantError(t, post(h, evaluationPath, "", unread, func(r *http.Request) { r.Host = "evil.example" }), 421, HostNotAllowed)
}

type explodingReader struct{ t *testing.T }

func (e explodingReader) Read([]byte) (int, error) {
	e.t.Error("the body was read")
	return 0, io.EOF
}

func TestGoodHeaders(t *testing.T) {
	h := newDoor(t, &fakeDecider{}, func(c *Config) { c.Hosts = []string{"Example.com", "[::1]:8180", "10.0.0.1:80"} })
	for _, change := range []func(*http.Request){
		header("Content-Type", "application/json; charset=utf-8"),
		header("Content-Type", "Application/JSON"),
		header("X-Request-ID", strings.Repeat("~", 128)),
		header("X-Request-ID", ""),
		func(r *http.Request) { r.Host = "EXAMPLE.com:9999" },
		func(r *http.Request) { r.Host = "[::1]:8180" },
		func(r *http.Request) { r.Host = "10.0.0.1:80" },
	} {
		wantDecisions(t, post(h, evaluationPath, aliceReads, change), true)
	}
	for _, host := range []string{"[::1]", "[::1]:80", "::1", "10.0.0.1", "10.0.0.1:81"} {
		wantError(t, post(h, evaluationPath, aliceReads, func(r *http.Request) { r.Host = host }), 421, HostNotAllowed)
	}
}

func TestEmptyHostsOverUnixSocket(t *testing.T) {
	h := newDoor(t, &fakeDecider{}, func(c *Config) { c.Hosts = nil })
	wantError(t, post(h, evaluationPath, aliceReads, func(r *http.Request) { r.Host = "localhost" }), 421, HostNotAllowed)

	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	for host, want := range map[string]int{"localhost": 200, "evil.example": 421} {
		response, err := client.Post("http://"+host+evaluationPath, "application/json", strings.NewReader(aliceReads))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s over a Unix socket: %d, want %d", host, response.StatusCode, want)
		}
	}
}

func TestRequestAsRead(t *testing.T) {
	f := &fakeDecider{}
	h := newDoor(t, f)
	body := `{
		"subject":  {"type":"user","id":"alice","properties":{"n":1.50,"Role":"x"},"issuer":"https://evil.example","assurance":3,"verified":true},
		"Subject":  {"type":"user","id":"mallory"},
		"action":   {"name":"read","properties":{"list":[1,null,true]}},
		"resource": {"type":"record","id":"réc\ud83d\ude00-1","properties":{"plan":null,"big":12345678901234567890}},
		"context":  {"time":"t","ward":{"area":"Tenant:acme","grant":"g-1","other":1},"Ward":{"area":"x"}},
		"id":"x", "refusal":"denied", "evaluations":"ignored here"
	}`
	w := post(h, evaluationPath, body, header("X-Request-ID", "trace-9"))
	wantDecisions(t, w, true)
	want := authz.Request{
		ID:     "trace-9",
		Caller: testCaller,
		Subject: authz.Verified(authz.Subject{Type: "user", ID: "alice", Issuer: testCaller.Issuer, Assurance: 2,
			Properties: map[string]any{"n": json.Number("1.50"), "Role": "x"}}),
		Action: authz.Action{Name: "read", Properties: map[string]any{"list": []any{json.Number("1"), nil, true}}},
		Resource: authz.Resource{Type: "record", ID: "réc😀-1",
			Properties: map[string]any{"plan": nil, "big": json.Number("12345678901234567890")}},
		Context: map[string]any{"time": "t", "Ward": map[string]any{"area": "x"}},
		Area:    "Tenant:acme",
		Grant:   "g-1",
	}
	if asked := f.take(); len(asked) != 1 || !sameRequest(asked[0], want) {
		t.Errorf("asked %+v\nwant  %+v", asked, want)
	}
	for key, want := range map[string]string{"X-Request-ID": "trace-9", "Ward-Record": "a-1"} {
		if got := w.Header().Get(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	// 512 bytes are the last allowed length, 32 the last allowed depth.
	wantDecisions(t, post(h, evaluationPath, with("record-1", strings.Repeat("r", 512))), true)
	wantDecisions(t, post(h, evaluationPath, with(`"action"`, `"x":`+nested(31)+`,"action"`)), true)
}

func TestInheritanceIsWhole(t *testing.T) {
	f := &fakeDecider{}
	h := newDoor(t, f)
	body := `{
		"subject":  {"type":"user","id":"bob","properties":{"role":"admin"}},
		"action":   {"name":"write","properties":{"soft":true}},
		"resource": {"type":"record","id":"record-2","properties":{"status":"archived"}},
		"context":  {"a":1,"ward":{"area":"Tenant:acme","grant":"g-1"}},
		"evaluations": [
			{},
			{"subject":{"type":"user","id":"bob"}},
			{"resource":{"type":"record","id":"record-2"}},
			{"action":{"name":"delete"}, "context":{"ward":{"grant":"none"}}},
			{"resource":{"id":"record-2"}},
			{"subject":{"type":"user","id":"bob","properties":{}}}
		]}`
	a := wantDecisions(t, post(h, evaluationsPath, body), true, false, false, false, false, false)
	asked := f.take()
	if got := asked[0]; got.Area != "Tenant:acme" || got.Grant != "g-1" || len(got.Context) != 1 {
		t.Errorf("an empty item was asked as %+v", got)
	}
	if asked[1].Subject.Properties != nil || asked[2].Resource.Properties != nil || asked[3].Action.Properties != nil {
		t.Error("a replaced part inherits properties")
	}
	if got := asked[3]; got.Area != "" || got.Grant != authz.NoGrant || len(got.Context) != 0 {
		t.Errorf("a replaced context was asked as %+v", got)
	}
	// A resource without type is not completed by the default: it fails.
	if got := asked[4]; got.Refusal != authz.BadRequest || got.Resource.ID != "" || got.Subject.ID != "bob" {
		t.Errorf("an incomplete part was asked as %+v", got)
	}
	if m := a.Evaluations[4].Context.Message; m == nil || *m != "resource.type is missing" {
		t.Errorf("an incomplete part is explained by %v", m)
	}
}

func TestFailedItemsAreRecorded(t *testing.T) {
	f := &fakeDecider{}
	body := `{"action":{"name":"read"},"evaluations":[
		{"subject":{"type":"user","id":"alice"},"resource":{"type":"record","id":"record-1"}},
		{"subject":"alice","resource":{"type":"record","id":"record-1"}},
		{"subject":{"type":"user","id":"alice"}},
		{"subject":{"type":"user","id":"alice"},"resource":{"type":"record","id":"record-1"},"context":{"ward":{"area":7}}}]}`
	w := post(newDoor(t, f), evaluationsPath, body, header("X-Request-ID", "r-1"))
	a := wantDecisions(t, w, true, false, false, false)
	if got := w.Header().Values("Ward-Record"); len(got) != 1 || got[0] != "a-1" {
		t.Errorf("Ward-Record is %v", got)
	}
	asked := f.take()
	for i, want := range []authz.Code{"", authz.BadRequest, authz.BadRequest, authz.BadRequest} {
		if asked[i].Refusal != want || asked[i].ID != "r-1" || asked[i].Caller.Name != "tester" || asked[i].Action.Name != "read" {
			t.Errorf("item %d was asked as %+v", i, asked[i])
		}
		c := a.Evaluations[i].Context
		if want != "" && (c.Code != string(want) || c.Message == nil) || c.Record != fmt.Sprintf("a-%d", i+1) || c.Revision != 7 {
			t.Errorf("item %d has context %+v", i, c)
		}
	}
	if asked[1].Subject.IsVerified() || asked[1].Subject.ID != "" {
		t.Error("an unreadable subject is not the zero one")
	}
	// A decider that allows such an item is broken.
	f.judge = func(authz.Request) authz.Decision { return authz.Decision{Verdict: authz.Verdict{Effect: authz.Allow}} }
	wantError(t, post(newDoor(t, f), evaluationsPath, body), 503, DecisionFailed)
}

func TestShortCircuit(t *testing.T) {
	permit := `{"action":{"name":"read"}}`
	deny := `{"action":{"name":"write"}}`
	bad := `{"action":"read"}`
	ask := func(h http.Handler, semantic string, items ...string) *httptest.ResponseRecorder {
		return post(h, evaluationsPath, `{"subject":{"type":"user","id":"bob"},"resource":{"type":"record","id":"record-1"},
			"options":{"evaluations_semantic":"`+semantic+`"},"evaluations":[`+strings.Join(items, ",")+`]}`)
	}
	f := &fakeDecider{}
	h := newDoor(t, f)
	wantDecisions(t, ask(h, "execute_all", deny, permit, deny), false, true, false)
	wantDecisions(t, ask(h, "deny_on_first_deny", permit, permit, deny, permit), true, true, false)
	wantDecisions(t, ask(h, "deny_on_first_deny", permit, bad, permit), true, false)
	wantDecisions(t, ask(h, "deny_on_first_deny", permit, permit), true, true)
	f.take()
	wantDecisions(t, ask(h, "permit_on_first_permit", deny, bad, permit, deny), false, false, true)
	if n := len(f.take()); n != 3 {
		t.Errorf("the decider was asked %d items, want 3", n)
	}
	wantDecisions(t, ask(h, "permit_on_first_permit", deny, deny), false, false)

	// An allow with an obligation that nobody performs ends like a deny.
	f.judge = func(r authz.Request) authz.Decision {
		d := fixture(r)
		if r.Action.Properties["masked"] == true {
			d.Obligations = []authz.Obligation{{ID: "mask"}}
		}
		return d
	}
	masked := `{"action":{"name":"read","properties":{"masked":true}}}`
	wantDecisions(t, ask(h, "deny_on_first_deny", permit, masked, permit), true, false)
	f.take()
	wantDecisions(t, ask(h, "permit_on_first_permit", masked, deny, masked, permit, permit), false, false, false, true)
	if n := len(f.take()); n != 4 {
		t.Errorf("the decider was asked %d items, want 4", n)
	}
	able := newDoor(t, f, func(c *Config) {
		c.Caller = func(*http.Request) (authz.Caller, bool) {
			return authz.Caller{Name: "able", Asserts: []string{"user"}, Performs: []string{"mask"}}, true
		}
	})
	wantDecisions(t, ask(able, "permit_on_first_permit", deny, masked, permit), false, true)
}

// brokenBatch answers with the wrong number of decisions.
type brokenBatch struct {
	fakeDecider
	n int
}

func (b *brokenBatch) DecideAll(context.Context, []authz.Request, authz.Stop) ([]authz.Decision, error) {
	return make([]authz.Decision, b.n), nil
}

func TestWrongNumberOfDecisions(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		for _, semantic := range []string{"execute_all", "permit_on_first_permit"} {
			body := strings.TrimSuffix(aliceReads, "}") + `,"options":{"evaluations_semantic":"` + semantic + `"},"evaluations":[{},{}]}`
			wantError(t, post(newDoor(t, &brokenBatch{n: n}), evaluationsPath, body), 503, DecisionFailed)
		}
	}
}

func TestDeciderErrors(t *testing.T) {
	batch := strings.TrimSuffix(aliceReads, "}") + `,"evaluations":[{},{}]}`
	var nilError *authz.Error
	for _, c := range []struct {
		err    error
		status int
		code   authz.Code
	}{
		{&authz.Error{Code: authz.LedgerFailed, Text: "canary-text"}, 503, authz.LedgerFailed},
		{&authz.Error{Code: authz.NotReady, Err: errors.New("canary-cause")}, 503, authz.NotReady},
		{fmt.Errorf("wrapped canary: %w", &authz.Error{Code: authz.Busy}), 503, authz.Busy},
		{errors.New("canary"), 503, DecisionFailed},
		{context.Canceled, 503, DecisionFailed},
		{nilError, 503, DecisionFailed},
		{&authz.Error{Code: "canary\r\n"}, 503, DecisionFailed},
		{&authz.Error{}, 503, DecisionFailed},
		{&authz.Error{Kind: 9, Code: authz.Busy}, 503, authz.Busy},
		{&authz.Error{Kind: authz.Outage, Code: authz.SubjectUnverified}, 503, authz.SubjectUnverified},
		{&authz.Error{Kind: authz.Refused, Code: authz.SubjectUnverified, Text: "canary"}, 403, authz.SubjectUnverified},
		{&authz.Error{Kind: authz.Refused, Code: authz.TooLarge}, 400, authz.TooLarge},
		{&authz.Error{Kind: authz.Refused}, 400, authz.BadRequest},
	} {
		h := newDoor(t, &fakeDecider{err: c.err})
		for _, w := range []*httptest.ResponseRecorder{post(h, evaluationPath, aliceReads), post(h, evaluationsPath, batch)} {
			wantError(t, w, c.status, c.code)
			if strings.Contains(w.Body.String(), "canary") {
				t.Errorf("%v is shown: %s", c.err, w.Body)
			}
		}
	}
}

func TestPanicsAreOutages(t *testing.T) {
	var log bytes.Buffer
	logged := func(c *Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) }
	h := newDoor(t, &fakeDecider{before: func(context.Context) { panic("canary") }}, logged)
	batch := strings.TrimSuffix(aliceReads, "}") + `,"evaluations":[{},{}]}`
	wantError(t, post(h, evaluationPath, aliceReads), 503, DecisionFailed)
	wantError(t, post(h, evaluationsPath, batch), 503, DecisionFailed)
	h = newDoor(t, &fakeDecider{}, logged, func(c *Config) {
		c.Caller = func(*http.Request) (authz.Caller, bool) { panic(errors.New("canary")) }
	})
	wantError(t, post(h, evaluationPath, aliceReads), 503, DecisionFailed)
	if got := log.String(); strings.Contains(got, "canary") || strings.Contains(got, "alice") ||
		!strings.Contains(got, "TestPanicsAreOutages") || strings.Count(got, "\n") != 3 {
		t.Errorf("log: %s", got)
	}
	// A panic while the decision is released comes too late to matter.
	h = newDoor(t, &fakeDecider{before: func(ctx context.Context) {
		authz.DeliveryFrom(ctx).OnDone(func() { panic("late") })
	}})
	wantDecisions(t, post(h, evaluationPath, aliceReads), true)
}

func TestObligations(t *testing.T) {
	judge := func(authz.Request) authz.Decision {
		return authz.Decision{Verdict: authz.Verdict{Effect: authz.Allow, Code: authz.Permitted, Reasons: []string{"p1"}, Grant: "g-1",
			Obligations: []authz.Obligation{{ID: "mask", Properties: map[string]string{"fields": "ssn"}}, {ID: "notify"}}}}
	}
	batch := strings.TrimSuffix(aliceReads, "}") + `,"evaluations":[{},{}]}`
	for _, c := range []struct {
		performs []string
		allowed  bool
	}{
		{nil, false},
		{[]string{"mask"}, false},
		{[]string{"notify", "mask"}, true},
	} {
		h := newDoor(t, &fakeDecider{judge: judge}, func(cfg *Config) {
			cfg.Caller = func(*http.Request) (authz.Caller, bool) {
				return authz.Caller{Name: "gw", Asserts: []string{"user"}, Performs: c.performs, Explains: true}, true
			}
		})
		single := wantDecisions(t, post(h, evaluationPath, aliceReads), c.allowed)
		all := wantDecisions(t, post(h, evaluationsPath, batch), c.allowed, c.allowed)
		for _, a := range append(all.Evaluations, single) {
			if c.allowed {
				if got := a.Context.Obligations; len(got) != 2 || got[0].ID != "mask" || got[0].Properties["fields"] != "ssn" || got[1].ID != "notify" {
					t.Errorf("obligations %+v", got)
				}
			} else if a.Context.Code != string(authz.ObligationUnsupported) || a.Context.Obligations != nil || a.Context.Reasons != nil || a.Context.Grant != nil {
				t.Errorf("unperformed obligations give %+v", a.Context)
			}
		}
	}
	// A deny never carries obligations.
	h := newDoor(t, &fakeDecider{judge: func(r authz.Request) authz.Decision {
		d := judge(r)
		d.Effect, d.Code = authz.Deny, authz.Denied
		return d
	}})
	if a := wantDecisions(t, post(h, evaluationPath, aliceReads), false); a.Context.Obligations != nil {
		t.Errorf("a deny carries %+v", a.Context.Obligations)
	}
}

func TestExplain(t *testing.T) {
	now := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		until    int64
		validFor any // seconds
		exact    any
	}{
		{0, 5, nil},
		{now.UnixMilli() + 1, 0, "2026-12-01T10:00:00.001Z"},
		{now.UnixMilli() + 999, 0, "2026-12-01T10:00:00.999Z"},
		{now.UnixMilli() + 1000, 1, "2026-12-01T10:00:01.000Z"},
		{now.UnixMilli() + 61_999, 5, "2026-12-01T10:01:01.999Z"},
		{now.UnixMilli() - 5000, 0, "2026-12-01T09:59:55.000Z"},
		{-1, 0, "1969-12-31T23:59:59.999Z"},
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), 5, "9999-12-31T23:59:59.999Z"},
		{1<<63 - 1, 5, "9999-12-31T23:59:59.999Z"},
		{-1 << 63, 0, "0000-01-01T00:00:00.000Z"},
	} {
		f := &fakeDecider{judge: func(authz.Request) authz.Decision {
			return authz.Decision{
				Verdict: authz.Verdict{Effect: authz.Allow, Code: authz.Permitted, Reasons: []string{"p1", "p2"}, Errors: []string{"p9"},
					Cedar: "deny", Grant: "g-1", Areas: []string{"Tenant:acme"}, Advice: []authz.Obligation{{ID: "x"}}, ValidUntil: c.until},
				Receipt: authz.Receipt{Record: "a-1042", Revision: 1 << 53},
			}
		}}
		door := func(explains bool) http.Handler {
			return newDoor(t, f, func(cfg *Config) {
				cfg.Now = func() time.Time { return now }
				cfg.Caller = func(*http.Request) (authz.Caller, bool) {
					return authz.Caller{Name: "gw", Asserts: []string{"user"}, Explains: explains}, true
				}
			})
		}
		short := map[string]any{"code": "permitted", "record": "a-1042", "revision": 1 << 53}
		full := map[string]any{"code": "permitted", "record": "a-1042", "revision": 1 << 53,
			"reasons": []string{"p1", "p2"}, "errors": []string{"p9"}, "grant": "g-1"}
		if short["validFor"] = c.validFor; c.exact != nil {
			full["validUntil"] = c.exact
		}
		for _, want := range []map[string]any{short, full} {
			w := post(door(want["reasons"] != nil), evaluationPath, aliceReads)
			var got, canonical any
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			raw, _ := json.Marshal(map[string]any{"decision": true, "context": want})
			_ = json.Unmarshal(raw, &canonical)
			if !reflect.DeepEqual(got, canonical) {
				t.Errorf("validUntil %d: got %s, want %s", c.until, w.Body, raw)
			}
		}
	}
}

func TestDelivery(t *testing.T) {
	batch := strings.TrimSuffix(aliceReads, "}") + `,"evaluations":[{},{}]}`
	for _, c := range []struct{ path, body string }{{evaluationPath, aliceReads}, {evaluationsPath, batch}} {
		// A change that overtakes the answer turns it into an outage.
		done := 0
		f := &fakeDecider{before: func(ctx context.Context) {
			d := authz.DeliveryFrom(ctx)
			d.OnDone(func() { done++ })
			if !d.Expire() {
				t.Error("the delivery was already leaving")
			}
		}}
		wantError(t, post(newDoor(t, f), c.path, c.body), 503, authz.Superseded)

		// Done comes when the bytes have left, not when they are buffered.
		w := httptest.NewRecorder()
		f.before = func(ctx context.Context) {
			d := authz.DeliveryFrom(ctx)
			d.OnDone(func() {
				done++
				if !w.Flushed || w.Body.Len() == 0 {
					t.Error("done before the answer has left")
				}
				if d.Expire() {
					t.Error("an answer that has left expires")
				}
			})
		}
		r := httptest.NewRequest("POST", c.path, strings.NewReader(c.body))
		r.Header.Set("Content-Type", "application/json")
		newDoor(t, f).ServeHTTP(w, r)
		if w.Code != 200 || done != 2 {
			t.Errorf("%s: status %d, done %d times", c.path, w.Code, done)
		}
		// An outage is done, too.
		f.err = &authz.Error{Code: authz.Busy}
		f.before = func(ctx context.Context) { authz.DeliveryFrom(ctx).OnDone(func() { done++ }) }
		wantError(t, post(newDoor(t, f), c.path, c.body), 503, authz.Busy)
		if done != 3 {
			t.Errorf("%s: an outage leaves its delivery open", c.path)
		}
	}
}

// A client over a real connection has the answer in hand before Done.
func TestAnswerArrivesBeforeDone(t *testing.T) {
	arrived := make(chan struct{})
	f := &fakeDecider{before: func(ctx context.Context) {
		authz.DeliveryFrom(ctx).OnDone(func() {
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				t.Error("done before the client had the answer")
			}
		})
	}}
	s := httptest.NewServer(newDoor(t, f, func(c *Config) { c.Hosts = []string{"127.0.0.1"} }))
	defer s.Close()
	response, err := s.Client().Post(s.URL+evaluationPath, "application/json", strings.NewReader(aliceReads))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	close(arrived)
	response.Body.Close()
}

func TestHeaderInjection(t *testing.T) {
	for _, record := range []string{"a-1\r\nSet-Cookie: x=1", "a 1", "é", strings.Repeat("a", 129)} {
		f := &fakeDecider{judge: func(authz.Request) authz.Decision {
			return authz.Decision{Receipt: authz.Receipt{Record: record}}
		}}
		w := post(newDoor(t, f), evaluationPath, aliceReads)
		wantDecisions(t, w, false)
		if len(w.Header().Values("Ward-Record")) != 0 || len(w.Header().Values("Set-Cookie")) != 0 {
			t.Errorf("record %q gives %v", record, w.Header())
		}
	}
}

// Identifiers and values of a request show up in no error and no log.
func TestCanaries(t *testing.T) {
	const canary = "zq7canary"
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f := &fakeDecider{}
	h := newDoor(t, f, func(c *Config) { c.Log = logger })
	full := `{"subject":{"type":"user","id":"zq7canary","properties":{"zq7canary":"zq7canary"}},"action":{"name":"zq7canary"},
		"resource":{"type":"zq7canary","id":"zq7canary"},"context":{"zq7canary":"zq7canary","ward":{"area":"zq7canary"}},
		"options":{"evaluations_semantic":"zq7canary"},"evaluations":[{"subject":"zq7canary"}]}`
	bodies := []string{full, `"zq7canary"`, "zq7canary", `{"zq7canary":1,"zq7canary":2}`, full + "zq7canary"}
	for i := range full {
		bodies = append(bodies, full[:i], full[:i]+"\x00"+full[i:], full[:i]+`"`+full[i:], full[:i]+`7`+full[i+1:])
	}
	for i, body := range bodies {
		f.err = nil
		if i%2 == 0 {
			f.err = &authz.Error{Code: authz.StoreFailed, Text: canary, Err: errors.New(canary)}
		}
		for _, path := range []string{evaluationPath, evaluationsPath, "/" + canary} {
			w := post(h, path, body, header("Authorization", canary))
			if w.Code != 200 && strings.Contains(fmt.Sprint(w.Header(), w.Body), canary) {
				t.Fatalf("%s: %d shows the canary: %s", path, w.Code, w.Body)
			}
		}
	}
	w := post(h, evaluationPath, full, func(r *http.Request) { r.Host = canary + ".example" })
	if strings.Contains(w.Body.String(), canary) {
		t.Errorf("a host is shown: %s", w.Body)
	}
	if strings.Contains(log.String(), canary) || log.Len() == 0 {
		t.Errorf("the log shows the canary or nothing at all")
	}
	// Nor in the messages of failed items, which are part of an answer.
	f.err = nil
	w = post(h, evaluationsPath, `{"evaluations":[{"subject":"zq7canary"},{"subject":{"type":"zq7canary"}},{"zq7canary":1},{"action":{"name":["zq7canary"]}}]}`)
	wantDecisions(t, w, false, false, false, false)
	if strings.Contains(w.Body.String(), canary) {
		t.Errorf("a failed item shows the canary: %s", w.Body)
	}
}

func TestMetadata(t *testing.T) {
	get := func(h http.Handler, method, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("Forwarded", "host=evil.example")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	open := func(c *Config) {
		c.Hosts = []string{"example.com", "other.example"}
		c.Caller = func(*http.Request) (authz.Caller, bool) { return authz.Caller{}, false }
	}
	h := newDoor(t, &fakeDecider{}, open)
	want := `{"policy_decision_point":"https://pdp.example.com",` +
		`"access_evaluation_endpoint":"https://pdp.example.com/access/v1/evaluation",` +
		`"access_evaluations_endpoint":"https://pdp.example.com/access/v1/evaluations"}`
	for _, host := range []string{"example.com", "other.example"} {
		w := get(h, "GET", "http://"+host+wellKnownPath)
		if w.Code != 200 || strings.TrimSpace(w.Body.String()) != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("metadata at %s: %d %s", host, w.Code, w.Body)
		}
	}
	if w := get(h, "HEAD", "http://example.com"+wellKnownPath); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
	wantError(t, get(h, "GET", "http://evil.example"+wellKnownPath), 421, HostNotAllowed)
	wantError(t, get(h, "POST", "http://example.com"+wellKnownPath), 405, MethodNotAllowed)
	wantError(t, get(h, "GET", "http://example.com"+wellKnownPath+"/tenant1"), 404, NotFound)

	below := newDoor(t, &fakeDecider{}, open, func(c *Config) { c.BaseURL = "https://pdp.example.com/tenant1" })
	if w := get(below, "GET", "http://example.com"+wellKnownPath+"/tenant1"); !strings.Contains(w.Body.String(), "https://pdp.example.com/tenant1/access/v1/evaluations") {
		t.Errorf("metadata below a path: %s", w.Body)
	}
	wantError(t, get(below, "GET", "http://example.com"+wellKnownPath), 404, NotFound)

	none := newDoor(t, &fakeDecider{}, open, func(c *Config) { c.BaseURL = "" })
	wantError(t, get(none, "GET", "http://example.com"+wellKnownPath), 404, NotFound)
	wantError(t, get(none, "GET", "http://example.com"), 404, NotFound)
}

type onlyDecider struct{ authz.Decider }

func TestNewRefuses(t *testing.T) {
	good := Config{Decider: &fakeDecider{}, Caller: func(*http.Request) (authz.Caller, bool) { return testCaller, true }}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no decider":        func(c *Config) { c.Decider = nil },
		"no batches":        func(c *Config) { c.Decider = onlyDecider{&fakeDecider{}} },
		"no caller":         func(c *Config) { c.Caller = nil },
		"negative body":     func(c *Config) { c.MaxBody = -1 },
		"negative items":    func(c *Config) { c.MaxItems = -1 },
		"negative depth":    func(c *Config) { c.MaxDepth = -1 },
		"wildcard host":     func(c *Config) { c.Hosts = []string{"*.example.com"} },
		"empty host":        func(c *Config) { c.Hosts = []string{""} },
		"URL as host":       func(c *Config) { c.Hosts = []string{"https://example.com"} },
		"http base":         func(c *Config) { c.BaseURL = "http://pdp.example.com" },
		"base with query":   func(c *Config) { c.BaseURL = "https://pdp.example.com?x=1" },
		"base with ?":       func(c *Config) { c.BaseURL = "https://pdp.example.com?" },
		"base with #":       func(c *Config) { c.BaseURL = "https://pdp.example.com#" },
		"base with user":    func(c *Config) { c.BaseURL = "https://u@pdp.example.com" },
		"base with slash":   func(c *Config) { c.BaseURL = "https://pdp.example.com/" },
		"base with slash 2": func(c *Config) { c.BaseURL = "https://pdp.example.com/a/" },
		"base with dots":    func(c *Config) { c.BaseURL = "https://pdp.example.com/a/../b" },
		"escaped base":      func(c *Config) { c.BaseURL = "https://pdp.example.com/%61" },
		"base without host": func(c *Config) { c.BaseURL = "https:///a" },
		"base only a name":  func(c *Config) { c.BaseURL = "pdp.example.com" },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.HasPrefix(err.Error(), "authzen: Config.") && !strings.HasPrefix(err.Error(), "authzen: limits") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
