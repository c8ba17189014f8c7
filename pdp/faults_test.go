package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

func TestNothingDecidesWithoutARecord(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	for name, c := range map[string]Config{
		"no store":  {Ledger: s.ledger, Keys: s.keys},
		"no ledger": {Store: s.store, Keys: s.keys},
		"no keys":   {Store: s.store, Ledger: s.ledger},
	} {
		if p, err := Open(context.Background(), c); err == nil || p != nil {
			t.Errorf("%s: a decision point was built", name)
		}
	}
	if (authz.Decision{}).Allowed() {
		t.Error("the zero decision allows")
	}
}

func TestAFailedLedgerIsAnOutage(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
	s.want(ask, "allow permitted")
	must(t, s.ledger.Close())
	d, err := s.p.Decide(context.Background(), ask)
	if !authz.IsOutage(err) || d.Allowed() {
		t.Fatalf("got %v, %v; want an outage", d, err)
	}
	if _, err := s.try("node Group:acme/late"); !authz.IsOutage(err) {
		t.Errorf("a change without a record: %v", err)
	}
	if _, err := s.p.DecideAll(context.Background(), []authz.Request{ask, ask}, authz.ExecuteAll); !authz.IsOutage(err) {
		t.Errorf("a batch without a record: %v", err)
	}
}

// TestAFullDisk runs a decision point whose files may not grow beyond a limit:
// what was acknowledged before stays readable, and nothing is allowed after.
func TestAFullDisk(t *testing.T) {
	if os.Getenv("WARD_TEST_FULL") != "" {
		fullDiskProcess()
		return
	}
	for _, limit := range []int{60_000, 61_001, 64_000, 90_000} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestAFullDisk$")
		cmd.Env = append(os.Environ(), "WARD_TEST_FULL="+dir, "WARD_TEST_LIMIT="+strconv.Itoa(limit))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("limit %d: %v\n%s", limit, err, out)
		}
		line := ""
		for l := range strings.SplitSeq(string(out), "\n") {
			if strings.HasPrefix(l, "full:") {
				line = l
			}
		}
		var last uint64
		var after int
		if _, err := fmt.Sscanf(line, "full: last=%d after=%d", &last, &after); err != nil {
			t.Fatalf("limit %d: %s", limit, out)
		}
		if after != 0 {
			t.Errorf("limit %d: %d answers after the disk was full", limit, after)
		}
		keys, err := audit.OpenKeys(dir + "/keys")
		must(t, err)
		l, rec, err := audit.Open(dir+"/ledger", keys, audit.Options{})
		must(t, err)
		if l.Size() <= last {
			t.Errorf("limit %d: the ledger ends at %d, %s was acknowledged", limit, l.Size(), audit.ID(last))
		}
		t.Logf("limit %d: acknowledged up to %s, the ledger holds %d, %d bytes of a torn tail", limit, audit.ID(last), l.Size(), rec.Cut)
		must(t, l.Close())
	}
}

func fullDiskProcess() {
	t := &testing.T{}
	dir := os.Getenv("WARD_TEST_FULL")
	limit, _ := strconv.Atoi(os.Getenv("WARD_TEST_LIMIT"))
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	signal.Ignore(syscall.SIGXFSZ)
	fail(audit.CreateKeys(dir+"/keys", "ward.test/audit"))
	keys, err := audit.OpenKeys(dir + "/keys")
	fail(err)
	fail(audit.Create(dir+"/ledger", keys))
	ledger, _, err := audit.Open(dir+"/ledger", keys, audit.Options{})
	fail(err)
	s := &site{t: t, clock: &fakeClock{t: time.Now()}, store: storetest.NewMemory(), ledger: ledger, keys: keys}
	s.p, err = Initialise(context.Background(), s.config(), Setup{Operator: "ward", Set: pbm(), Admins: map[string]int{"ana": 1000}})
	fail(err)
	s.admin, err = adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1000"})
	fail(err)
	_, err = s.try(client)
	fail(err)
	ask := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
	fail(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(limit), Max: uint64(limit)}))
	var last uint64
	full, after := false, 0
	for i := 0; i < 2000; i++ {
		d, err := s.p.Decide(context.Background(), ask)
		switch {
		case err != nil:
			if e := (*authz.Error)(nil); !authz.IsOutage(err) || !errors.As(err, &e) || e.Code != authz.LedgerFailed ||
				err.Error() != "ledger_failed: the record could not be made durable" && err.Error() != "ledger_failed: the ledger has failed: restart after its disk is right" {
				fail(err)
			}
			full = true
		case full:
			after++
		default:
			last, err = audit.ParseID(d.Record)
			fail(err)
		}
		if full && i%100 == 99 {
			break
		}
	}
	if !full {
		fail(errors.New("the disk was never full"))
	}
	fmt.Printf("full: last=%d after=%d\n", last, after)
	os.Exit(0)
}

func TestTheClock(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00.500Z")
	s.know(client)
	ask := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
	s.want(ask, "allow permitted")
	s.clock.set("2026-11-24T12:00:00.100Z") // a small step back: now stands still
	s.want(ask, "allow permitted")
	last, err := s.ledger.Entry(s.ledger.Size() - 1)
	must(t, err)
	if got := hierarchy.Instant(last.Time).String(); got != "2026-11-24T12:00:00.500Z" {
		t.Errorf("the record's time is %s, before the one ahead of it", got)
	}
	s.clock.set("2026-11-24T11:59:00Z")
	if got := s.ask(ask); !strings.Contains(got, "clock_failed") {
		t.Errorf("a clock a minute behind: %s", got)
	}
	// A new process on the same ledger does not go back either.
	s.p, err = Open(context.Background(), s.config())
	must(t, err)
	if got := s.ask(ask); !strings.Contains(got, "clock_failed") {
		t.Errorf("a clock behind the ledger: %s", got)
	}
}

func TestAWallClockThatLeavesTheMonotonicOne(t *testing.T) {
	for _, step := range []time.Duration{0, 4 * time.Second, -4 * time.Second, 6 * time.Second, -6 * time.Second} {
		start := time.Now().Round(0)
		c := &clock{start: start, read: func() (time.Time, time.Duration) { return start.Add(time.Hour + step), time.Hour }}
		if _, err := c.now(); (err != nil) != (step.Abs() > maxDrift) {
			t.Errorf("a step of %v: %v", step, err)
		}
	}
}

func TestOnlyWhoMayChanges(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	before := s.p.Graph().Head()
	for name, uid := range map[string]string{"a stranger": "4242", "nobody": ""} {
		actor, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: uid})
		must(t, err)
		_, err = s.p.Change(context.Background(), Change{Actor: actor, Caller: adminCaller, Events: []hierarchy.Event{mustEvent(t, "node Group:acme/x")}})
		var e *authz.Error
		if !errors.As(err, &e) || e.Kind != authz.Refused || e.Code != authz.SubjectUnlinked {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := s.p.Change(context.Background(), Change{Actor: authz.Subject{Type: AdminType, ID: "1000", Issuer: UnixIssuer}, Caller: adminCaller,
		Events: []hierarchy.Event{mustEvent(t, "node Group:acme/x")}})
	var e *authz.Error
	if !errors.As(err, &e) || e.Code != authz.SubjectUnverified {
		t.Errorf("an unverified admin: %v", err)
	}
	// A tenant's own admin reaches that tenant and no other.
	s.know(`principal Admin:tina
		1001@unix is Admin:tina
		Admin:tina holds security-admin at Tenant:acme`)
	tina, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	do := func(line string) error {
		_, err := s.p.Change(context.Background(), Change{Actor: tina, Caller: adminCaller, Events: []hierarchy.Event{mustEvent(t, line)}})
		return err
	}
	must(t, do("node Group:acme/hers"))
	for _, line := range []string{"node Group:zeta/x", "node Tenant:new", "Tenant:zeta has labs", "User:bo holds ops at Operator:ward",
		"principal User:x", "User:bo holds tpa-ops at Group:zeta/g1"} {
		if err := do(line); !errors.As(err, &e) || e.Kind != authz.Refused {
			t.Errorf("%s: %v", line, err)
		}
	}
	if now := s.p.Graph().Head(); now.Revision != before.Revision+2 {
		t.Errorf("%d revisions, want 2", now.Revision-before.Revision)
	}
	denied := 0
	for e, err := range s.ledger.Scan(0) {
		must(t, err)
		if e.Kind == audit.Decision && strings.Contains(string(e.Clear), `"effect":"deny"`) {
			denied++
		}
	}
	if denied != 9 {
		t.Errorf("%d denied changes are on record, want 9", denied)
	}
}

// TestABatchEqualsItsItems compares batches with the same questions one by one,
// items that share ids and differ only in properties or type among them.
func TestABatchEqualsItsItems(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(family)
	rng := rand.New(rand.NewPCG(5, 6))
	for range count(200, 5000) {
		var rs []authz.Request
		for range 1 + rng.IntN(8) {
			user := []string{"user:bo", "user:bea", "user:pat", "user:mia", "client:bo"}[rng.IntN(5)]
			if rng.IntN(2) == 0 {
				rs = append(rs, request("claims-service", user, "claim.view", "claim:same",
					claim([]any{"Coverage:acme/cov1", "Coverage:zeta/cov9"}[rng.IntN(2)], nil, []string{"2026-06-01", "2026-07-01"}[rng.IntN(2)], "routine")...))
			} else {
				rs = append(rs, request("labs-service", user, "lab.view", "lab:same", lab("", []string{"routine", "part2"}[rng.IntN(2)])...))
			}
		}
		batch, err := s.p.DecideAll(context.Background(), rs, authz.ExecuteAll)
		must(t, err)
		for i, r := range rs {
			one, err := s.p.Decide(context.Background(), r)
			must(t, err)
			a, _ := json.Marshal(one.Verdict)
			b, _ := json.Marshal(batch[i].Verdict)
			if string(a) != string(b) {
				t.Fatalf("item %d alone: %s; in a batch: %s", i, a, b)
			}
		}
	}
}

func TestABatchEndsWhereItIsTold(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(family)
	yes := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	no := request("claims-service", "user:bea", "claim.view", "claim:c1", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	unsupported := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("", "routine")...)
	unsupported.Caller.Performs = nil // allowed with an obligation that the caller does not perform: its door denies
	for _, c := range []struct {
		rs   []authz.Request
		stop authz.Stop
		want int
	}{
		{[]authz.Request{yes, no, yes}, authz.ExecuteAll, 3},
		{[]authz.Request{yes, no, yes}, authz.FirstDeny, 2},
		{[]authz.Request{no, yes, no}, authz.FirstPermit, 2},
		{[]authz.Request{no, unsupported, yes, no}, authz.FirstPermit, 3},
		{[]authz.Request{yes, unsupported, yes}, authz.FirstDeny, 2},
	} {
		before := s.ledger.Size()
		ds, err := s.p.DecideAll(context.Background(), c.rs, c.stop)
		must(t, err)
		if len(ds) != c.want || s.ledger.Size() != before+1 {
			t.Errorf("stop %d: %d answers in %d records, want %d in 1", c.stop, len(ds), s.ledger.Size()-before, c.want)
		}
	}
}

// TestALargeBatchSplitsUnderOneID records a batch that takes several records.
func TestALargeBatchSplitsUnderOneID(t *testing.T) {
	s := boltSite(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	var rs []authz.Request
	for i := range 100 {
		rs = append(rs, request("claims-service", "user:bo", "claim.view", fmt.Sprint("claim:", strings.Repeat("x", 400), i),
			claim([]any{"Coverage:acme/cov1", "Coverage:zeta/cov9"}[i%2], nil, "2026-06-01", "routine")...))
	}
	before := s.ledger.Size()
	ds, err := s.p.DecideAll(context.Background(), rs, authz.ExecuteAll)
	must(t, err)
	if len(ds) != 100 || s.ledger.Size() < before+2 {
		t.Fatalf("%d answers in %d records", len(ds), s.ledger.Size()-before)
	}
	for _, d := range ds {
		if d.Record != audit.ID(before) {
			t.Fatalf("record %s, want one id %s", d.Record, audit.ID(before))
		}
	}
	dir := s.freeze(t)
	if out, err := replayAll(context.Background(), dir); err != nil || !strings.HasSuffix(out, "different=0") {
		t.Errorf("%s %v", out, err)
	}
}

// TestValidUntil checks by brute force that no answer changes by time alone
// before its validUntil.
func TestValidUntil(t *testing.T) {
	n, ends, changes := count(5_000, 200_000), 0, 0
	for seed := uint64(77); n > 0; seed++ {
		m := newMaze(t, seed)
		for range 50 {
			n--
			q := m.question()
			r := m.request(q, "docs")
			first := m.judge(r, q.now).verdict
			until := hierarchy.Instant(first.ValidUntil)
			if first.ValidUntil == 0 {
				until = epoch + 12*day
			} else {
				ends++
				if until <= q.now {
					t.Fatalf("seed %d: valid until %v, asked at %v", seed, until, q.now)
				}
				if at := m.judge(r, until).verdict; at.Effect != first.Effect || at.Code != first.Code {
					changes++
				}
			}
			for _, at := range []hierarchy.Instant{until - 1, q.now + hierarchy.Instant(m.rng.Int64N(int64(until-q.now))), q.now + 1} {
				if at < q.now || at >= until {
					continue
				}
				if v := m.judge(r, at).verdict; v.Effect != first.Effect || v.Code != first.Code {
					t.Fatalf("seed %d: %s (%s) at %v, valid until %v, but %s (%s) at %v", seed, first.Effect, first.Code, q.now, until, v.Effect, v.Code, at)
				}
			}
		}
	}
	t.Logf("%d answers had an end; %d of them changed there", ends, changes)
	if changes == 0 {
		t.Error("no answer ever changed at its end")
	}
}

// TestSeveralFaultsGiveOneCode: which of two faults is named does not depend on
// the order of a map.
func TestSeveralFaultsGiveOneCode(t *testing.T) {
	s := open(t, pack(t, "certification"), "2026-11-24T12:00:00Z")
	s.know("node Operator:lab\nprincipal User:alice\nUser:alice holds editor at Operator:lab")
	seen := map[string]bool{}
	for range 200 {
		r := request("certifier", "user:alice", "delete", "record:r1", "status", 5)
		r.Action.Properties = map[string]any{"soft": "no"}
		r.Subject.Properties = map[string]any{"role": true}
		seen[s.ask(r)] = true
	}
	if len(seen) != 1 {
		t.Errorf("one request has the answers %v", seen)
	}
}
