package admin

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// raw sends a body as it is and returns the status and the error's code.
func raw(t *testing.T, h http.Handler, uid int, method, path, body string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: InProcess(h, uid)}
	r, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	code := ""
	if _, rest, ok := strings.Cut(b.String(), `"code":"`); ok && resp.StatusCode != 200 {
		code, _, _ = strings.Cut(rest, `"`)
	}
	return resp.StatusCode, code
}

func TestBodiesAreReadStrictly(t *testing.T) {
	h, _ := importDoor(t)
	for _, c := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"empty", "/v1/change", ``, 400, "bad_request"},
		{"an array", "/v1/change", `[]`, 400, "bad_request"},
		{"cut off", "/v1/change", `{"events":[`, 400, "bad_request"},
		{"two objects", "/v1/change", `{} {}`, 400, "bad_request"},
		{"unknown field", "/v1/change", `{"event":[]}`, 400, "bad_request"},
		{"a key twice", "/v1/change", `{"why":"a","why":"b","events":[]}`, 400, "bad_request"},
		{"a key twice, deep", "/v1/ask", `{"requests":[{"context":{"a":1,"a":2}}]}`, 400, "bad_request"},
		{"wrong type", "/v1/change", `{"events":"all"}`, 400, "bad_request"},
		{"too deep", "/v1/change", `{"events":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, 400, "bad_request"},
		{"no UTF-8", "/v1/change", "{\"why\":\"\xff\"}", 400, "bad_request"},
		{"too large", "/v1/what", `{"area":"` + strings.Repeat("a", small) + `"}`, 413, "too_large"},
		{"no event", "/v1/change", `{"events":[]}`, 400, "bad_request"},
		{"a long reason", "/v1/change", `{"events":[{"void":"f1.0"}],"why":"` + strings.Repeat("a", maxReason+1) + `"}`, 400, "bad_request"},
		{"an event of two kinds", "/v1/change", `{"events":[{"void":"f1.0","end":"f1.0"}]}`, 422, "event_invalid"},
		{"an event of no kind", "/v1/change", `{"events":[{}]}`, 422, "event_invalid"},
		{"an unknown fact field", "/v1/change", `{"events":[{"assert":"node","fields":{"id":"User:a","principl":true}}]}`, 422, "event_invalid"},
		{"a misspelt end", "/v1/change", `{"events":[{"assert":"node","fields":{"id":"User:a","principal":true,"too":"2026-01-01"}}]}`, 422, "event_invalid"},
		{"an activation as an event", "/v1/change", `{"events":[{"assert":"activation","fields":{"digest":"sha256:00"}}]}`, 422, "event_invalid"},
		{"a time that is none", "/v1/facts", `{"kind":"role","at":"yesterday"}`, 400, "bad_request"},
		{"two kinds of known", "/v1/facts", `{"kind":"role","revision":1,"knownAt":"2026-01-01T00:00:00Z"}`, 400, "bad_request"},
		{"a later revision", "/v1/facts", `{"kind":"role","revision":9}`, 404, "unknown_revision"},
		{"no such kind", "/v1/facts", `{"kind":"colour"}`, 400, "bad_request"},
		{"no such node", "/v1/node", `{"id":"Group:acme/none"}`, 404, "unknown_node"},
		{"an archive that is none", "/v1/activate", `{"archive":"e30="}`, 422, "policy_invalid"},
		{"no questions", "/v1/ask", `{"requests":[]}`, 400, "bad_request"},
		{"no endpoint", "/v1/dance", `{}`, 404, "not_found"},
	} {
		if status, code := raw(t, h, 7, "POST", c.path, c.body); status != c.status || code != c.code {
			t.Errorf("%s: %d %s, want %d %s", c.name, status, code, c.status, c.code)
		}
	}
}

// TestStrangersLearnNothing asks every endpoint as a user that is no
// administrator: each is denied, and each denial is on record.
func TestStrangersLearnNothing(t *testing.T) {
	h, _ := importDoor(t)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/change", `{"events":[{"assert":"node","fields":{"id":"User:a","principal":true}}]}`},
		{"POST", "/v1/activate", fmt.Sprintf(`{"archive":%q}`, base64Of(t))},
		{"POST", "/v1/ask", `{"requests":[{"subject":{"type":"user","id":"a"},"action":{"name":"claim.view"},"resource":{"type":"claim","id":"c"}}]}`},
		{"POST", "/v1/what", `{"subject":{"type":"user","id":"a"}}`},
		{"GET", "/v1/explain/a-0", ``},
		{"POST", "/v1/facts", `{"kind":"role"}`},
		{"POST", "/v1/node", `{"id":"Operator:ward"}`},
		{"POST", "/v1/children", `{"id":"Operator:ward"}`},
		{"POST", "/v1/path", `{"from":"Operator:ward","to":"Operator:ward"}`},
		{"GET", "/v1/policies", ``},
		{"POST", "/v1/policies/show", `{}`},
		{"POST", "/v1/audit/find", `{}`},
		{"GET", "/v1/copy", ``},
	} {
		before := h.Ledger.Size()
		if status, code := raw(t, h, 8, c.method, c.path, c.body); status != 403 || code != "subject_unlinked" {
			t.Errorf("%s: %d %s, want 403 subject_unlinked", c.path, status, code)
		}
		if h.Ledger.Size() != before+1 {
			t.Errorf("%s: the denial is not on record", c.path)
		}
		if status, code := raw(t, h, 7, c.method, c.path, c.body); status != 200 {
			t.Errorf("%s: the administrator gets %d %s", c.path, status, code)
		}
	}
	// Without a peer nobody asks at all.
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/status", nil))
	if w.Code != 401 || !strings.Contains(w.Body.String(), "peer_unknown") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func base64Of(t *testing.T) string {
	t.Helper()
	set, err := policies.Compile(policies.PBM())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(set.Archive())
}

func TestPeerUID(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	srv := &http.Server{ConnContext: ConnContext, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		uid, ok := PeerUID(r.Context())
		got <- fmt.Sprint(uid, ok)
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	resp, err := (&http.Client{Transport: Socket(path)}).Get("http://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if want := strconv.Itoa(os.Getuid()) + " true"; <-got != want {
		t.Errorf("want %s", want)
	}
}

// shortDir is a folder whose path a socket's fits in.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ward-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestErrorsHaveOneStatus(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{&hierarchy.Refusal{Code: hierarchy.CodeCycle, Index: 2, Row: 7, Text: "…"}, 422, "cycle"},
		{&authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed}, 503, "ledger_failed"},
		{&authz.Error{Kind: authz.Refused, Code: authz.NoStanding}, 403, "no_standing"},
		{&authz.Error{Kind: authz.Refused, Code: authz.BadRequest}, 400, "bad_request"},
		{&authz.Error{Kind: authz.Refused, Code: "unknown_record"}, 404, "unknown_record"},
		{&pdp.TestsFailed{Failures: []pdp.TestFailure{{Name: "a"}}}, 409, "policy_tests_failed"},
		{fmt.Errorf("policy set: %w", hierarchy.ErrCorrupt), 500, "integrity"},
		{&policies.Diagnostics{Findings: []policies.Diagnostic{{Code: "x"}}}, 422, "policy_invalid"},
		{&pdp.IntegrityError{Record: "a-1", Text: "…"}, 500, "integrity"},
		{fmt.Errorf("x: %w", &pdp.GoneError{Record: "a-1", Status: pdp.KeyShredded, By: "a-2"}), 410, "shredded"},
		{&pdp.GoneError{Record: "a-1", Status: pdp.KeyLost, By: "a-2"}, 410, "key_lost"},
		{&pdp.GoneError{Record: "a-1", Status: pdp.KeyMissing}, 500, "key_missing"},
		{errors.New("dana's record"), 500, "internal"},
	} {
		e := toError(c.err)
		if e.Status != c.status || e.Code != c.code {
			t.Errorf("%T: %d %s, want %d %s", c.err, e.Status, e.Code, c.status, c.code)
		}
		if strings.Contains(e.Message, "dana") {
			t.Errorf("an unknown error is told: %s", e.Message)
		}
	}
	if e := toError(&hierarchy.Refusal{Code: hierarchy.CodeCycle, Index: 2, Row: 7, Text: "…"}); e.Event != 3 || e.Row != 7 {
		t.Errorf("%+v", e)
	}
}

func TestAPanicIsAFault(t *testing.T) {
	h, _ := importDoor(t)
	h.mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("dana") })
	if status, code := raw(t, h, 7, "GET", "/panic", ""); status != 500 || code != "internal" {
		t.Errorf("%d %s", status, code)
	}
	if status, _ := raw(t, h, 7, "GET", "/healthz", ""); status != 200 {
		t.Errorf("after a panic: %d", status)
	}
}

// TestChangesAreWhatTheyWere asserts facts through the door and reads them back.
func TestChangesAreWhatTheyWere(t *testing.T) {
	h, _ := importDoor(t)
	c := NewClient(InProcess(h, 7))
	ctx := context.Background()
	fields := map[string]any{"id": "User:dana", "principal": true, "from": "2026-01-01", "to": "2026-12-31"}
	var done Changed
	err := c.Post(ctx, "/v1/change", Change{Events: []Event{{Assert: "node", Fields: fields, Zone: "America/New_York", Row: 3}}, Reason: Reason{"new", "CH-1"}}, &done)
	if err != nil || done.Revision != 2 || len(done.Facts) != 1 || done.Facts[0] != "f2.0" {
		t.Fatalf("%+v %v", done, err)
	}
	var got FactList
	when := When{At: Time(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))}
	if err := c.Post(ctx, "/v1/facts", Facts{Kind: "node", About: "User:dana", When: when}, &got); err != nil || len(got.Facts) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	f := got.Facts[0]
	if f.State != "live" || f.Valid.From.String() != "2026-01-01T05:00:00.000Z" || f.Valid.To.String() != "2027-01-01T05:00:00.000Z" || f.Value["principal"] != true {
		t.Errorf("%+v", f)
	}
	// As known before, it is not there.
	when.Revision = 1
	if err := c.Post(ctx, "/v1/facts", Facts{Kind: "node", About: "User:dana", When: when}, &got); err != nil || len(got.Facts) != 0 {
		t.Errorf("%+v %v", got, err)
	}
	// The reason is kept with the revision.
	if b, _ := h.PDP.Graph().Batch(2); b.Provenance.Why != "new" || b.Provenance.Ticket != "CH-1" || b.Provenance.Who.String() != "Admin:ana" {
		t.Errorf("%+v", b.Provenance)
	}
	var rest FactList
	if err := c.Post(ctx, "/v1/facts", Facts{Kind: "role", Limit: 2}, &rest); err != nil || len(rest.Facts) != 2 || !rest.Truncated {
		t.Errorf("%d facts, truncated %v, %v", len(rest.Facts), rest.Truncated, err)
	}
}

func TestUnpackRefusesWhatIsNoCopy(t *testing.T) {
	pack := func(names ...string) *bytes.Buffer {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, n := range names {
			size := int64(2)
			if strings.HasSuffix(n, "/") {
				size = 0
			}
			if err := w.WriteHeader(&tar.Header{Name: n, Size: size, Mode: 0o600}); err != nil {
				t.Fatal(err)
			}
			if size == 0 {
				continue
			}
			if _, err := w.Write([]byte("7\n")); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	good := []string{"records", "store.db", "ledger/checkpoints"}
	if n, err := Unpack(pack(good...), t.TempDir()); err != nil || n != 7 {
		t.Errorf("%d %v", n, err)
	}
	for _, names := range [][]string{{"records"}, {"../store.db"}, {"ledger/../../x"}, {"ledger/"}, {"ledger/.."}, {"keys"}, {"/etc/x"}, {"store.db", "store.db"}} {
		if _, err := Unpack(pack(names...), t.TempDir()); err == nil {
			t.Errorf("%v is unpacked", names)
		}
	}
	whole := pack(good...).Bytes()
	for _, n := range []int{0, 100, 600, 1500, 2200} {
		if _, err := Unpack(bytes.NewReader(whole[:min(n, len(whole))]), t.TempDir()); err == nil {
			t.Errorf("a copy cut off at %d is taken", n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, `{"events":[{"void":"f1.0"}]}`, `{"a":{"a":[{"a":1}]}}`, `{"why":"\u0000"}`, `{"a":1,"a":2}`, "[", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var in Change
		if err := decode(strings.NewReader(s), 4096, &in); err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Status < 400 || e.Status > 499 {
				t.Errorf("%v", err)
			}
		}
	})
}
