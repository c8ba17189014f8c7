package authzen

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/ward-authz/ward/adapters/authzen/authzentest"
	"github.com/ward-authz/ward/pdp/authz"
)

// serve runs a door over HTTPS, wrapped by wrap, and returns its base URL.
func serve(t *testing.T, path string, wrap func(http.Handler) http.Handler) (string, *http.Client) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	base := "https://" + s.Listener.Addr().String() + path
	s.Config.Handler = wrap(newDoor(t, &fakeDecider{}, func(c *Config) {
		c.BaseURL, c.Hosts = base, []string{"127.0.0.1"}
	}))
	s.StartTLS()
	t.Cleanup(s.Close)
	return base, s.Client()
}

func plain(h http.Handler) http.Handler { return h }

func TestCertification(t *testing.T) {
	base, client := serve(t, "", plain)
	authzentest.Certify(t, base, client)
}

func TestCertificationBelowAPath(t *testing.T) {
	base, client := serve(t, "/tenant1", plain)
	authzentest.Certify(t, base, client)
}

// Without metadata, Discovery fails and everything else falls back (c-6-6).
func TestCertificationWithoutMetadata(t *testing.T) {
	s := httptest.NewTLSServer(newDoor(t, &fakeDecider{}, func(c *Config) {
		c.BaseURL, c.Hosts = "", []string{"127.0.0.1"}
	}))
	defer s.Close()
	for _, r := range authzentest.Check(s.URL, s.Client()) {
		if (r.Err != nil) != (r.Level == "Discovery") {
			t.Errorf("%s %s: %s: %v", r.Level, r.ID, r.Rule, r.Err)
		}
	}
}

// Every entry of the scenario's matrix is in the suite, Search excepted.
func TestCertificationIsComplete(t *testing.T) {
	base, client := serve(t, "", plain)
	var have []string
	for _, r := range authzentest.Check(base, client) {
		have = append(have, r.ID)
	}
	for _, id := range strings.Fields(`
		c-2-2-1 c-2-2-2 c-2-2-3 c-2-2-4 c-2-2-5 c-2-2-6 c-2-2-7 c-2-2-8 c-2-2-9 c-2-3-1 c-2-3-2
		c-2-4-1 c-2-4-2 c-2-4-3 c-2-4-4 c-2-4-5 c-2-4-6 c-2-5-1 c-2-5-2 c-2-6
		c-3-2-1 c-3-2-2 c-3-2-3 c-3-2-4 c-3-2-5 c-3-2-6 c-3-2-7
		c-3-3-1 c-3-3-2 c-3-3-3 c-3-3-4 c-3-4-1 c-3-4-2 c-3-4-3
		c-5-1 c-5-2 c-5-3 c-5-4 c-5-5 c-6-1 c-6-2 c-6-3 c-6-4 c-6-5 c-6-6`) {
		if !slices.Contains(have, id) {
			t.Errorf("%s is missing", id)
		}
	}
}

// A server that breaks a rule must fail that rule's entry.
func TestCertificationHasTeeth(t *testing.T) {
	rewrite := func(old, new string) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, r)
				for key, values := range rec.Header() {
					w.Header()[key] = values
				}
				w.Header().Del("Content-Length")
				w.WriteHeader(rec.Code)
				_, _ = w.Write(bytes.ReplaceAll(rec.Body.Bytes(), []byte(old), []byte(new)))
			})
		}
	}
	before := func(f func(http.ResponseWriter, *http.Request)) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r); h.ServeHTTP(w, r) })
		}
	}
	editBody := func(old, new string) func(http.Handler) http.Handler {
		return before(func(_ http.ResponseWriter, r *http.Request) {
			raw, _ := io.ReadAll(r.Body)
			raw = bytes.ReplaceAll(raw, []byte(old), []byte(new))
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
		})
	}
	for _, c := range []struct {
		name  string
		wrap  func(http.Handler) http.Handler
		fails string
	}{
		{"always allows", rewrite(`"decision":false`, `"decision":true`), "c-2-2-2 c-2-2-4 c-2-2-7 c-3-2-2 c-3-2-3 c-3-2-4 c-3-2-5 c-3-2-7 c-3-3-2 c-3-4-1"},
		{"always denies", rewrite(`"decision":true`, `"decision":false`), "c-2-2-1 c-2-2-3 c-2-2-5 c-2-2-6 c-2-2-8 c-2-2-9 c-3-4-2 c-3-4-3 c-6-5"},
		{"decision is a string", rewrite(`"decision":true`, `"decision":"true"`), "c-2-3-1 c-3-2-1 c-3-2-6 c-3-3-3"},
		{"context is an array", rewrite(`"context":{`, `"context":[],"x":{`), "c-2-3-2"},
		{"top-level decision", rewrite(`{"evaluations"`, `{"decision":true,"evaluations"`), "c-3-3-4"},
		{"empty answers", rewrite(`"evaluations":[{`, `"evaluations":[],"x":[{`), "c-3-3-1"},
		{"drops properties", editBody(`"properties"`, `"other"`), "c-2-2-4 c-2-2-5 c-2-2-6 c-3-2-3 c-3-2-4 c-3-2-7"},
		{"drops request ids", before(func(_ http.ResponseWriter, r *http.Request) { r.Header.Del("X-Request-ID") }), "c-2-5-1 c-5-4"},
		{"takes any content type", before(func(_ http.ResponseWriter, r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
		}), "c-2-4-3"},
		{"never says 400", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, r)
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(rec.Body.Bytes())
			})
		}, "c-2-4-1 c-2-4-2 c-2-4-3 c-2-4-4 c-2-4-5 c-2-4-6 c-5-3"},
		{"answers as text", func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, r)
				w.WriteHeader(rec.Code)
				_, _ = w.Write(rec.Body.Bytes())
			})
		}, "c-5-2 c-6-2"},
		{"metadata of another base", rewrite(`"policy_decision_point":"https:`, `"policy_decision_point":"http:`), "c-6-3"},
		{"bad optional endpoint", rewrite(`evaluations_endpoint":"https:`, `evaluations_endpoint":"http:`), "c-6-4"},
		{"forgetful", func() func(http.Handler) http.Handler {
			n := 0
			return before(func(_ http.ResponseWriter, r *http.Request) {
				if raw, _ := io.ReadAll(r.Body); r.Body != http.NoBody {
					if n++; n%4 == 0 {
						raw = bytes.ReplaceAll(raw, []byte("alice"), []byte("carol"))
					}
					r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
				}
			})
		}(), "c-2-6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base, client := serve(t, "", c.wrap)
			failed := map[string]bool{}
			for _, r := range authzentest.Check(base, client) {
				failed[r.ID] = failed[r.ID] || r.Err != nil
			}
			for _, id := range strings.Fields(c.fails) {
				if !failed[id] {
					t.Errorf("%s passes", id)
				}
			}
		})
	}
}

// A batch equals its items asked one by one.
func TestBatchEqualsSingles(t *testing.T) {
	f := &fakeDecider{}
	h := newDoor(t, f)
	// Items that share ids and differ only in properties or in a type.
	items := []string{
		`{"subject":{"type":"user","id":"bob"},"action":{"name":"write"},"resource":{"type":"record","id":"r","properties":{"status":"archived"}}}`,
		`{"subject":{"type":"user","id":"bob","properties":{"role":"admin"}},"action":{"name":"write"},"resource":{"type":"record","id":"r","properties":{"status":"archived"}}}`,
		`{"subject":{"type":"user","id":"bob","properties":{"role":"admin"}},"action":{"name":"write"},"resource":{"type":"record","id":"r"}}`,
		`{"subject":{"type":"robot","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"r"}}`,
		`{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"r"}}`,
		`{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"file","id":"r"}}`,
		`{"subject":{"type":"user","id":"alice"},"action":{"name":"delete","properties":{"soft":true}},"resource":{"type":"record","id":"r"}}`,
		`{"subject":{"type":"user","id":"alice"},"action":{"name":"delete"},"resource":{"type":"record","id":"r"}}`,
	}
	want := []bool{false, true, false, false, true, false, true, false}
	batch := wantDecisions(t, post(h, evaluationsPath, `{"evaluations":[`+strings.Join(items, ",")+`]}`), want...)
	inBatch := f.take()
	for i, item := range items {
		single := wantDecisions(t, post(h, evaluationPath, item), want[i])
		if got := batch.Evaluations[i].Context.Code; got != single.Context.Code {
			t.Errorf("item %d: code %s, alone %s", i, got, single.Context.Code)
		}
	}
	alone := f.take()
	if !slices.EqualFunc(inBatch, alone, sameRequest) {
		t.Errorf("the decider was asked differently:\n%v\n%v", inBatch, alone)
	}
	if got := alone[3]; got.Subject.IsVerified() || got.Subject.ID != "alice" || got.Subject.Issuer != "" {
		t.Errorf("a subject type nobody asserts became %+v", got.Subject)
	}
	if got := alone[4]; !got.Subject.IsVerified() || got.Subject.Issuer != testCaller.Issuer || got.Subject.Assurance != 2 {
		t.Errorf("an asserted subject became %+v", got.Subject)
	}
	if got := batch.Evaluations[3].Context.Code; got != string(authz.SubjectUnverified) {
		t.Errorf("an unasserted subject has code %s", got)
	}
}
