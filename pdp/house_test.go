package pdp

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// campaign reports whether the long counts are asked for.
var campaign = os.Getenv("WARD_CAMPAIGN") != ""

// count returns the short count, or the long one in a campaign.
func count(short, long int) int {
	if campaign {
		return long
	}
	return short
}

// fakeClock is a clock that a test moves.
type fakeClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *fakeClock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *fakeClock) set(s string) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	c.t = t
	c.mu.Unlock()
}

// site is a decision point under test, over a memory store and a real ledger.
type site struct {
	t      testing.TB
	p      *PDP
	clock  *fakeClock
	store  hierarchy.Store
	ledger *audit.Ledger
	keys   *audit.Keys
	dir    string
	admin  authz.Subject
	// tampered is set where a test has changed the evidence, or made it fail.
	tampered bool
}

var adminCaller = authz.Caller{Name: "admin", Asserts: []string{AdminType}, Issuer: UnixIssuer, Assurance: 2}

// open starts a site with a pack at an instant.
func open(t testing.TB, set *policies.Set, at string) *site {
	t.Helper()
	return openOn(t, set, at, storetest.NewMemory())
}

func openOn(t testing.TB, set *policies.Set, at string, store hierarchy.Store) *site {
	t.Helper()
	s := &site{t: t, clock: &fakeClock{}, store: store, dir: t.TempDir()}
	s.clock.set(at)
	must(t, audit.CreateKeys(s.dir+"/keys", "ward.test/audit"))
	var err error
	s.keys, err = audit.OpenKeys(s.dir + "/keys")
	must(t, err)
	must(t, audit.Create(s.dir+"/ledger", s.keys))
	s.ledger, _, err = audit.Open(s.dir+"/ledger", s.keys, audit.Options{})
	must(t, err)
	t.Cleanup(s.proven)
	s.p, err = Initialise(context.Background(), s.config(), Setup{Operator: "ward", Set: set, Admins: map[string]int{"ana": 1000}})
	must(t, err)
	s.admin, err = adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1000"})
	must(t, err)
	return s
}

// proven closes a site. Whatever a test has asked of it, every record that came
// of it verifies and replays.
func (s *site) proven() {
	s.ledger.Close()
	defer s.store.Close()
	if s.tampered || s.t.Failed() || s.t.Skipped() {
		return
	}
	if _, err := audit.Verify(s.dir+"/ledger", s.keys.Verifier()); err != nil {
		s.t.Errorf("what the test left does not verify: %v", err)
		return
	}
	if _, different, err := replayOf(context.Background(), s.store, s.keys, s.ledger.Scan); err != nil || different != 0 {
		s.t.Errorf("what the test left does not replay: %d differences, %v", different, err)
	}
}

func (s *site) config() Config {
	return Config{Store: s.store, Ledger: s.ledger, Keys: s.keys, Clock: s.clock.now}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pbm compiles the shipped pack once.
var pbm = sync.OnceValue(func() *policies.Set {
	set, err := policies.Compile(policies.PBM())
	if err != nil {
		panic(err)
	}
	return set
})

// pack compiles a pack of testdata.
func pack(t testing.TB, name string) *policies.Set {
	t.Helper()
	files, err := policies.ReadPack(os.DirFS("../testdata/packs/" + name))
	must(t, err)
	set, err := policies.Compile(files)
	must(t, err)
	return set
}

// know states facts, one sentence a line, as one change:
//
//	node Group:acme/g8
//	principal User:dana
//	person Person:leo born 2008-11-25 in US-OH
//	Group:acme/g8 memberOf Carrier:acme/c1
//	User:dana holds broker at Group:acme/g8
//	User:mia is Person:mia
//	Person:leo owns Coverage:acme/cov1
//	Person:leo merge Person:leo2
//	Tenant:acme has claims
//	grant g-1 parent User:mia for Person:leo can lab.view,claim.view covers part2 under g-0
//	Person:leo blocks User:uncle
//
// each with "from" and "to" (dates in UTC or RFC 3339; "to" includes the day)
// where it is dated.
func (s *site) know(text string) []hierarchy.FactID {
	s.t.Helper()
	c, err := s.try(text)
	if err != nil {
		s.t.Fatalf("know: %v\n%s", err, text)
	}
	return c.Facts
}

func (s *site) try(text string) (Changed, error) {
	events, err := sentences(text)
	if err != nil {
		return Changed{}, err
	}
	return s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: events, Why: "test"})
}

func sentences(text string) ([]hierarchy.Event, error) {
	var events []hierarchy.Event
	for n, line := range strings.Split(text, "\n") {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		e, err := sentence(w)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		events = append(events, e)
	}
	return events, nil
}

func sentence(w []string) (hierarchy.Event, error) {
	f := map[string]any{}
	opt := func(words []string, names ...string) {
		for i := 0; i+1 < len(words); i += 2 {
			for _, n := range names {
				if words[i] == n {
					f[n] = words[i+1]
				}
			}
		}
	}
	kind := ""
	switch {
	case w[0] == "node":
		kind, f["id"] = "node", w[1]
		opt(w[2:], "from", "to")
	case w[0] == "principal":
		kind, f["id"], f["principal"] = "node", w[1], true
		opt(w[2:], "from", "to")
	case w[0] == "person":
		kind, f["id"] = "node", w[1]
		p := map[string]any{}
		for i := 2; i+1 < len(w); i += 2 {
			switch w[i] {
			case "born":
				p["birthDate"] = w[i+1]
			case "in":
				p["jurisdiction"] = w[i+1]
			}
		}
		f["person"] = p
	case w[0] == "grant":
		kind = "grant"
		f["id"], f["type"], f["grantee"], f["subject"] = w[1], w[2], w[3], w[5]
		f["grantor"] = w[5]
		scope := map[string]any{}
		for i := 6; i+1 < len(w); i += 2 {
			v := w[i+1]
			switch w[i] {
			case "can":
				scope["capabilities"] = strings.Split(v, ",")
			case "covers":
				scope["covers"] = strings.Split(v, ",")
			case "on":
				scope["coverage"] = v
			case "by":
				f["grantor"] = v
			case "under":
				f["parent"] = v
			case "redelegate":
				f["mayRedelegate"], f["maxDepth"] = true, 1
			case "purpose":
				f["purpose"] = []string{v}
			}
		}
		f["scope"] = scope
		opt(w[6:], "from", "to")
	case w[1] == "holds":
		kind, f["principal"], f["role"], f["node"] = "assignment", w[0], w[2], w[4]
		opt(w[5:], "from", "to")
	case w[1] == "is" && !strings.Contains(w[0], "@"):
		kind, f["kind"], f["from"], f["to"] = "link", "self", w[0], w[2]
		opt(w[3:], "since", "until")
	case w[1] == "is":
		sub, iss, _ := strings.Cut(w[0], "@")
		kind, f["kind"], f["issuer"], f["sub"], f["to"] = "link", "identity", iss, sub, w[2]
	case w[1] == "owns" || w[1] == "merge" || w[1] == "family":
		kind, f["kind"], f["from"], f["to"] = "link", w[1], w[0], w[2]
		opt(w[3:], "since", "until")
	case w[1] == "has":
		kind, f["tenant"], f["name"] = "entitlement", w[0], w[2]
		opt(w[3:], "from", "to")
	case w[1] == "blocks":
		kind, f["person"], f["principal"], f["basis"] = "block", w[0], w[2], "refusal"
		opt(w[3:], "from", "to")
	default:
		kind, f["child"], f["kind"], f["parent"] = "edge", w[0], w[1], w[2]
		opt(w[3:], "from", "to")
	}
	return EventOf(kind, f, "UTC")
}

// end ends a fact; void says that it was never true.
func (s *site) end(fact hierarchy.FactID, kind hierarchy.Kind, at string) {
	s.t.Helper()
	t, err := ParseTime(at, "", false)
	must(s.t, err)
	s.change(hierarchy.Event{Op: hierarchy.End, Kind: kind, Fact: fact, At: t})
}

func (s *site) void(fact hierarchy.FactID, kind hierarchy.Kind) {
	s.t.Helper()
	s.change(hierarchy.Event{Op: hierarchy.Void, Kind: kind, Fact: fact})
}

func (s *site) change(events ...hierarchy.Event) {
	s.t.Helper()
	_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: events, Why: "test"})
	must(s.t, err)
}

// request is a question by a caller that may assert everybody.
func request(caller, subject, action, resource string, props ...any) authz.Request {
	st, sid, _ := strings.Cut(subject, ":")
	rt, rid, _ := strings.Cut(resource, ":")
	r := authz.Request{Caller: authz.Caller{Name: caller, Asserts: []string{st}, Assurance: 2, Performs: []string{"record-delegation"}},
		Action: authz.Action{Name: action}, Resource: authz.Resource{Type: rt, ID: rid}}
	r.Subject, _ = r.Caller.Assert(authz.Subject{Type: st, ID: sid})
	for i := 0; i+1 < len(props); i += 2 {
		if r.Resource.Properties == nil {
			r.Resource.Properties = map[string]any{}
		}
		r.Resource.Properties[props[i].(string)] = props[i+1]
	}
	return r
}

// ask decides and returns the answer in words: "allow permitted" or "deny code".
func (s *site) ask(r authz.Request) string {
	s.t.Helper()
	d, err := s.p.Decide(context.Background(), r)
	if err != nil {
		return "error " + err.Error()
	}
	return d.Effect.String() + " " + string(d.Code)
}

// want checks an answer.
func (s *site) want(r authz.Request, answer string) authz.Decision {
	s.t.Helper()
	d, err := s.p.Decide(context.Background(), r)
	must(s.t, err)
	if got := d.Effect.String() + " " + string(d.Code); got != answer {
		j := s.rejudge(r)
		s.t.Errorf("%s:%s %s %s:%s: got %s, want %s\n%s", r.Subject.Type, r.Subject.ID, r.Action.Name, r.Resource.Type, r.Resource.ID, got, answer, j)
	}
	return d
}

// rejudge explains a request for a failing test.
func (s *site) rejudge(r authz.Request) string {
	cur := s.p.current.Load()
	w, err := s.p.world(cur)
	if err != nil {
		return err.Error()
	}
	a := convert(&r, w.set.Catalogue())
	j := w.judge(&a)
	x := w.explain(&a, &j)
	return fmt.Sprintf("missing: %q\nreasons: %q errors: %q ignored: %q", x.Missing, j.verdict.Reasons, j.verdict.Errors, a.Ignored)
}
