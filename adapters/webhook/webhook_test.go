package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is a source with a clock that the test moves.
type world struct {
	now      time.Time
	clock    error
	revision uint64
	grants   map[string]Grant
	looks    int
}

func newWorld() *world {
	return &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), revision: 1, grants: map[string]Grant{}}
}

func (w *world) Now() (time.Time, error) { return w.now, w.clock }
func (w *world) Revision() uint64        { return w.revision }
func (w *world) Grant(id string, now time.Time) (Grant, bool) {
	g, ok := w.grants[id]
	return g, ok && now.Before(g.Ends)
}

func (w *world) Live(now time.Time) iter.Seq[Grant] {
	w.looks++
	return func(yield func(Grant) bool) {
		for _, id := range slices.Sorted(maps.Keys(w.grants)) {
			if g, ok := w.Grant(id, now); ok && !yield(g) {
				return
			}
		}
	}
}

// put makes or changes a grant that ends so long after now.
func (w *world) put(id string, in time.Duration) {
	w.grants[id], w.revision = Grant{id, "parent", w.now.Add(in)}, w.revision+1
}

func (w *world) revoke(id string) { delete(w.grants, id); w.revision++ }

// receiver is a real server that answers as it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status func(Event) int
	got    []Event
	bodies [][]byte
	heads  []http.Header
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: func(Event) int { return http.StatusNoContent }}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		body, _ := io.ReadAll(q.Body)
		var e Event
		if err := json.Unmarshal(body, &e); err != nil || q.Method != http.MethodPost {
			t.Errorf("%s %s: %v", q.Method, body, err)
		}
		status := r.status(e)
		if status < 300 {
			r.got, r.bodies, r.heads = append(r.got, e), append(r.bodies, body), append(r.heads, q.Header)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

// take returns the ids and days of what arrived since.
func (r *receiver) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.got {
		out = append(out, fmt.Sprintf("%s=%d", strings.TrimPrefix(e.ID, "ending-"), e.Days))
	}
	r.got = nil
	return strings.Join(out, " ")
}

var secret = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))

func open(t *testing.T, w *world, url, path string) *Hook {
	t.Helper()
	h, err := New(Config{URL: url, Secret: secret, State: path, Source: w})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func statePath(t *testing.T) string { return filepath.Join(t.TempDir(), "webhook.json") }

// until moves the clock to the end of d, waking the hook whenever it asked for it.
func until(h *Hook, w *world, d time.Duration) {
	end := w.now.Add(d)
	for {
		wait := h.round(context.Background())
		if next := w.now.Add(wait); next.Before(end) {
			w.now = next
			continue
		}
		w.now = end
		h.round(context.Background())
		return
	}
}

func want(t *testing.T, r *receiver, want string) {
	t.Helper()
	if got := r.take(); got != want {
		t.Errorf("arrived %q, want %q", got, want)
	}
}

func TestEachMarkOnce(t *testing.T) {
	w, r := newWorld(), newReceiver(t)
	w.put("g-1", 31*day)
	w.put("g-short", 5*day) // its marks at 30 and 7 days lie before it
	h := open(t, w, r.URL, statePath(t))
	until(h, w, 12*time.Hour)
	want(t, r, "")
	until(h, w, 12*time.Hour)
	want(t, r, "g-1-30=30")
	until(h, w, 3*day)
	want(t, r, "g-short-1=1")
	until(h, w, 20*day)
	want(t, r, "g-1-7=7")
	until(h, w, 6*day)
	want(t, r, "g-1-1=1")
	until(h, w, 40*day)
	want(t, r, "")
	if w.looks > 12 {
		t.Errorf("%d looks at all grants, though the facts stood still", w.looks)
	}
}

// TestOnTime: the hook wakes for a mark, and not much before or after it.
func TestOnTime(t *testing.T) {
	w, r := newWorld(), newReceiver(t)
	w.put("g-1", 7*day+90*time.Second)
	h := open(t, w, r.URL, statePath(t))
	if wait := h.round(context.Background()); wait != 90*time.Second {
		t.Errorf("the next mark is 90 s ahead, and the hook sleeps %s", wait)
	}
	w.now = w.now.Add(90 * time.Second)
	h.round(context.Background())
	want(t, r, "g-1-7=7")
}

func TestSignedAsStandardWebhooks(t *testing.T) {
	w, r := newWorld(), newReceiver(t)
	w.put("g-1", 7*day)
	w.now = w.now.Add(-time.Second)
	h := open(t, w, r.URL, statePath(t))
	w.now = w.now.Add(time.Second)
	h.round(context.Background())
	if len(r.got) != 1 {
		t.Fatalf("%d events", len(r.got))
	}
	head, body := r.heads[0], r.bodies[0]
	mac := hmac.New(sha256.New, bytes.Repeat([]byte{7}, 32))
	mac.Write([]byte("ending-g-1-7." + "1767225600" + "." + string(body)))
	if got := head.Get("webhook-signature"); got != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		t.Errorf("signature %q", got)
	}
	if head.Get("webhook-id") != "ending-g-1-7" || head.Get("webhook-timestamp") != "1767225600" || head.Get("Content-Type") != "application/json" {
		t.Errorf("%v", head)
	}
	const want = `{"id":"ending-g-1-7","type":"grant.ending","grant":"g-1","grantType":"parent","ends":"2026-01-08T00:00:00.000Z","days":7,"revision":2,"time":"2026-01-01T00:00:00.000Z"}`
	if string(body) != want {
		t.Errorf("body %s\nwant %s", body, want)
	}
	// The example of the specification's reference libraries.
	key, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)); got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("the known signature comes out as %s", got)
	}
}

// TestRestart: what was delivered is not sent again, and what came due meanwhile
// is sent late, with its true days.
func TestRestart(t *testing.T) {
	w, r, path := newWorld(), newReceiver(t), statePath(t)
	w.put("g-1", 31*day)
	w.put("g-2", 35*day)
	w.put("g-gone", 33*day)
	until(open(t, w, r.URL, path), w, day)
	want(t, r, "g-1-30=30")
	until(open(t, w, r.URL, path), w, 0)
	want(t, r, "")
	w.now = w.now.Add(5 * day) // down
	w.revoke("g-gone")
	until(open(t, w, r.URL, path), w, 0)
	want(t, r, "g-2-30=29")
	w.now = w.now.Add(26*day - time.Hour) // g-1 has ended
	until(open(t, w, r.URL, path), w, 0)
	want(t, r, "g-2-7=4")
}

func TestReceiverDownThenUp(t *testing.T) {
	w, r, path := newWorld(), newReceiver(t), statePath(t)
	attempts := 0
	r.status = func(Event) int { attempts++; return http.StatusServiceUnavailable }
	w.put("g-1", 31*day)
	w.put("g-2", 31*day)
	w.put("g-revoked", 31*day)
	h := open(t, w, r.URL, path)
	until(h, w, day)
	if attempts != 1 {
		t.Errorf("%d attempts in a round at a receiver that is down, want one", attempts)
	}
	until(h, w, time.Hour)
	// 1 s, 2 s, … 512 s, then every 10 minutes.
	if attempts < 12 || attempts > 17 {
		t.Errorf("%d attempts in an hour", attempts)
	}
	w.revoke("g-revoked")
	h = open(t, w, r.URL, path) // a restart forgets nothing
	r.status = func(Event) int { return http.StatusOK }
	w.now = w.now.Add(day)
	h.round(context.Background())
	got := strings.Fields(r.take())
	slices.Sort(got)
	if strings.Join(got, " ") != "g-1-30=29 g-2-30=29" {
		t.Errorf("after the receiver came up: %v", got)
	}
	until(h, w, day)
	want(t, r, "")
}

// TestOneRefusedEventHoldsUpNoOther: the receiver takes all but one.
func TestOneRefusedEventHoldsUpNoOther(t *testing.T) {
	w, r := newWorld(), newReceiver(t)
	r.status = func(e Event) int {
		if e.Grant == "g-1" {
			return http.StatusBadRequest
		}
		return http.StatusOK
	}
	for i := range 4 {
		w.put(fmt.Sprintf("g-%d", i), 7*day+time.Second)
	}
	h := open(t, w, r.URL, statePath(t))
	until(h, w, time.Minute)
	want(t, r, "g-0-7=7 g-2-7=7 g-3-7=7")
	if len(h.state.Owed) != 1 {
		t.Errorf("owed %v", h.state.Owed)
	}
	until(h, w, 8*day) // until the grant has ended
	if len(h.state.Owed) != 0 {
		t.Errorf("owed after its end: %v", h.state.Owed)
	}
	want(t, r, "g-0-1=1 g-2-1=1 g-3-1=1")
}

// TestNoRedirectIsFollowed: what answers elsewhere gets nothing.
func TestNoRedirectIsFollowed(t *testing.T) {
	other := newReceiver(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		w := newWorld()
		redirects := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
			http.Redirect(rw, q, other.URL, status)
		}))
		w.put("g-1", 7*day+time.Second)
		h := open(t, w, redirects.URL, statePath(t))
		w.now = w.now.Add(time.Second)
		h.round(context.Background())
		redirects.Close()
		if len(h.state.Owed) != 1 {
			t.Errorf("%d counts as a delivery", status)
		}
	}
	want(t, other, "")
}

func TestLoopbackMeansLoopback(t *testing.T) {
	c := client(true)
	if _, err := c.Get("http://192.0.2.1:9/"); err == nil || !strings.Contains(err.Error(), "no loopback address") {
		t.Errorf("the local client dials elsewhere: %v", err)
	}
	if c.Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy may be asked")
	}
}

// TestMovedEnds: a mark is of the end that holds.
func TestMovedEnds(t *testing.T) {
	w, r := newWorld(), newReceiver(t)
	w.put("g-1", 60*day)
	h := open(t, w, r.URL, statePath(t))
	until(h, w, day)
	w.put("g-1", 5*day) // sooner: only what lies ahead
	until(h, w, 4*day)
	want(t, r, "g-1-1=1")

	r.status = func(Event) int { return http.StatusBadGateway }
	w.put("g-2", 30*day+time.Second)
	until(h, w, time.Hour)
	w.put("g-2", 60*day) // later: what is owed is no more
	r.status = func(Event) int { return http.StatusOK }
	until(h, w, 20*time.Minute)
	want(t, r, "")
	until(h, w, 30*day)
	want(t, r, "g-2-30=30")
}

// TestNothingIsSentThatCannotBeRemembered: the folder cannot be written.
func TestNothingIsSentThatCannotBeRemembered(t *testing.T) {
	w, r, path := newWorld(), newReceiver(t), statePath(t)
	w.put("g-1", 7*day+time.Second)
	h := open(t, w, r.URL, path)
	good := h.path
	h.path = filepath.Join(filepath.Dir(path), "none", "webhook.json")
	until(h, w, 2*time.Hour)
	want(t, r, "")
	h.path = good
	until(h, w, 10*time.Minute)
	want(t, r, "g-1-7=7")
	w.clock = errors.New("behind")
	if wait := h.round(context.Background()); wait != rescan {
		t.Errorf("waits %s for the clock", wait)
	}
}

func TestStateIsRefusedWhenDamaged(t *testing.T) {
	w, path := newWorld(), statePath(t)
	open(t, w, "https://example.org/", path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	for _, text := range []string{"", "{}", "null", `{"version":2,"through":"2026-01-01T00:00:00Z","owed":[]}`,
		`{"version":1,"through":"2026-01-01T00:00:00Z","owed":[],"more":1}`, `{"version":1,"through":"2026-01-01T00:00:00Z","owed":[]} {}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{URL: "https://example.org/", Secret: secret, State: path, Source: w}); !errors.Is(err, ErrState) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	for _, url := range []string{"", "example.org", "http://example.org/", "http://10.0.0.1/", "ftp://example.org", "https://", "https://u:p@example.org/",
		"https://example.org/#x", "http://localhost.example.org/", "http://127.0.0.1.example.org/"} {
		if CheckURL(url) == nil {
			t.Errorf("%q is taken", url)
		}
	}
	for _, url := range []string{"https://example.org/hook?a=b", "http://127.0.0.1:9/", "http://[::1]/", "http://localhost:8/x"} {
		if err := CheckURL(url); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, s := range []string{"", "whsec_", "whsec_c2hvcnQ=", secret[6:], "whsec_!", "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65))} {
		if _, err := New(Config{URL: "https://example.org/", Secret: s, State: statePath(t), Source: newWorld()}); err == nil || strings.Contains(err.Error(), "c2hvcnQ") {
			t.Errorf("secret %q: %v", s, err)
		}
	}
}

// TestLogsNameNobody: a failure is logged without a grant and without the url.
func TestLogsNameNobody(t *testing.T) {
	w, r := newWorld(), newReceiver(t)
	var log bytes.Buffer
	r.status = func(Event) int { return http.StatusTeapot }
	w.put("canary", 7*day+time.Second)
	h, err := New(Config{URL: r.URL + "/canary", Secret: secret, State: statePath(t), Source: w, Log: slog.New(slog.NewJSONHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	until(h, w, time.Minute)
	r.Close()
	until(h, w, time.Minute)
	if s := log.String(); !strings.Contains(s, `"status":418`) || !strings.Contains(s, `"status":0`) || strings.Contains(s, "canary") || strings.Contains(s, "127.0.0.1") {
		t.Errorf("log: %s", s)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	w, r := newWorld(), newReceiver(t)
	w.put("g-1", 7*day+time.Second)
	h := open(t, w, r.URL, statePath(t))
	w.now = w.now.Add(time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	r.status = func(Event) int { cancel(); return http.StatusOK }
	h.Run(ctx) // returns
	cancel()
}

// TestEventsAreThoseOfABruteForceReading moves grants, the clock, the receiver
// and the process at random, and compares what arrived with what should have:
// every mark that was passed while its grant was live and known, once at least
// when the receiver was up while the grant lived, once exactly without a crash.
func TestEventsAreThoseOfABruteForceReading(t *testing.T) {
	worlds := 40
	if os.Getenv("WARD_CAMPAIGN") != "" {
		worlds = 4000
	}
	r := newReceiver(t)
	for seed := range worlds {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		w, path := newWorld(), statePath(t)
		h := open(t, w, r.URL, path)
		up := true
		r.mu.Lock()
		r.status = func(Event) int {
			if up {
				return http.StatusOK
			}
			return http.StatusInternalServerError
		}
		r.mu.Unlock()
		through := w.now
		owed, arrived := map[string]time.Time{}, map[string]int{} // owed: when its grant ends
		n := 0
		for range 40 {
			switch rng.IntN(5) {
			case 0:
				w.put(fmt.Sprintf("g-%d", n), time.Duration(1+rng.IntN(40*24))*time.Hour)
				n++
			case 1:
				if len(w.grants) > 0 {
					ids := slices.Sorted(maps.Keys(w.grants))
					id := ids[rng.IntN(len(ids))]
					w.revoke(id)
					maps.DeleteFunc(owed, func(k string, _ time.Time) bool { return strings.HasPrefix(k, "ending-"+id+"-") })
				}
			case 2:
				up = rng.IntN(2) == 0
			case 3:
				h.save(h.state, w.now) // as Run does in the end
				h = open(t, w, r.URL, path)
			}
			w.now = w.now.Add(time.Duration(1+rng.IntN(96)) * time.Hour)
			for id, g := range w.grants {
				for _, m := range []int{30, 7, 1} {
					if at := g.Ends.AddDate(0, 0, -m); at.After(through) && !at.After(w.now) && w.now.Before(g.Ends) {
						owed[fmt.Sprintf("ending-%s-%d", id, m)] = g.Ends
					}
				}
			}
			through = w.now
			maps.DeleteFunc(owed, func(_ string, ends time.Time) bool { return !w.now.Before(ends) })
			h.round(context.Background())
			r.mu.Lock()
			for _, e := range r.got {
				arrived[e.ID]++
				ends, ok := owed[e.ID]
				left := 0
				for at := w.now; at.Before(ends); at = at.AddDate(0, 0, 1) {
					left++
				}
				if !ok || e.Days != left || e.Revision != w.revision || e.Grant == "" {
					t.Fatalf("seed %d: %+v arrived; owed %t, %d days left", seed, e, ok, left)
				}
				delete(owed, e.ID)
			}
			r.got = nil
			r.mu.Unlock()
			if up && len(owed) > 0 {
				t.Fatalf("seed %d: not sent: %v", seed, owed)
			}
		}
		for id, times := range arrived {
			if times != 1 {
				t.Fatalf("seed %d: %s arrived %d times", seed, id, times)
			}
		}
	}
}
