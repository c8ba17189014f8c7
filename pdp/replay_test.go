package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/boltstore"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

func TestOneThousandEvaluationsGiveOneEncoding(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know(client)
	for i := range 5 { // several grants, so that several attempts run
		s.know(fmt.Sprintf("grant x-%d adult-proxy User:mia for Person:leo can lab.view,claim.view", i))
	}
	r := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...)
	r.Context = map[string]any{"b": 1, "a": 2, "c": "x"}
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	seen := map[string]int{}
	for range 1000 {
		a := convert(&r, w.set.Catalogue())
		j := w.judge(&a)
		b, err := json.Marshal(j.verdict)
		must(t, err)
		seen[string(b)+digestOf(j.encode())+requestDigest(&a)]++
	}
	if len(seen) != 1 {
		t.Fatalf("1,000 evaluations gave %d encodings", len(seen))
	}
}

// variant returns the shipped pack with one more policy, so that sets differ.
func variant(t testing.TB, n int) *policies.Set {
	files := map[string][]byte{}
	for k, v := range policies.PBM() {
		files[k] = v
	}
	files["variant.cedar"] = []byte(fmt.Sprintf(`
@id("variant.%d")
forbid (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim)
when { principal.persons.contains(PBM::Person::"nobody%d") };
`, n, n))
	set, err := policies.Compile(files)
	must(t, err)
	return set
}

// overflowing returns a pack with a forbid that overflows for one caller's context.
func overflowing(t testing.TB) *policies.Set {
	files := map[string][]byte{}
	for k, v := range policies.PBM() {
		files[k] = v
	}
	files["overflow.cedar"] = []byte(`
@id("broken")
forbid (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim)
when { context.aal + 9223372036854775807 > 0 };
`)
	set, err := policies.Compile(files)
	must(t, err)
	return set
}

func TestAForbidThatErrorsDenies(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
	s.want(ask, "allow permitted")
	_, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "a mistake"}, overflowing(t))
	if err != nil {
		// The pack's own tests notice the mistake, as they should; put it in force all the same.
		var failed *TestsFailed
		if !asTests(err, &failed) {
			t.Fatal(err)
		}
		s.force(overflowing(t))
	}
	d := s.want(ask, "deny indeterminate")
	if d.Cedar != "allow" || len(d.Errors) != 1 || d.Errors[0] != "broken" {
		t.Errorf("cedar's own answer %q, errors %q; want allow beside it, and the policy named", d.Cedar, d.Errors)
	}
}

func asTests(err error, into **TestsFailed) bool {
	e, ok := err.(*TestsFailed)
	if ok {
		*into = e
	}
	return ok
}

// force activates a set without running its tests.
func (s *site) force(set *policies.Set) {
	s.t.Helper()
	digest, err := s.store.PutBlob(context.Background(), set.Archive())
	must(s.t, err)
	_, err = s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "test", activating: set,
		prepare: func(context.Context, *pair) error { return nil },
		Events: []hierarchy.Event{{Op: hierarchy.Assert, Kind: hierarchy.KindActivation, Valid: hierarchy.Always,
			Activation: &hierarchy.Activation{Digest: digest, Name: set.Name()}}}})
	must(s.t, err)
}

// ward is a clinician of the hospital of family who may open emergencies.
const ward = `
	principal User:doc
	User:doc holds emergency-clinician at HealthSystem:general/hs
	person Person:sue
	node Patient:general/sue
	Patient:general/sue partOf HealthSystem:general/hs
	Person:sue owns Patient:general/sue`

// record drives a site through decisions of every kind, policy changes and fact
// changes, and says how many answers there were of each.
func record(t testing.TB, s *site, decisions, sets, changes int) map[string]int {
	rng := rand.New(rand.NewPCG(1, 2))
	s.know(family)
	s.know(client)
	s.know(ward)
	users := []string{"bo", "bea", "phil", "olga", "nick", "pat", "mia", "leo", "doc", "nobody"}
	opener := Asking{Subject: authz.Verified(authz.Subject{Type: "user", ID: "doc", Assurance: 2}),
		Caller: authz.Caller{Name: "portal", Asserts: []string{"user"}, Performs: []string{"notify-privacy"}}}
	of := map[string]int{}
	sens := []string{"routine", "part2", "behavioral"}
	coverages := []any{"Coverage:acme/cov1", "Coverage:zeta/cov9", "Coverage:acme/none", nil}
	pharmacies := []any{"Pharmacy:p1", "Pharmacy:p2", nil}
	one := func() authz.Request {
		u := users[rng.IntN(len(users))]
		switch rng.IntN(9) {
		case 0, 1:
			return request("labs-service", "user:"+u, "lab.view", fmt.Sprint("lab:l", rng.IntN(50)), lab("", sens[rng.IntN(3)])...)
		case 2:
			return request("shell", "user:"+u, "feature.see", "feature:claims.search")
		case 3:
			return request("gateway", "user:"+u, "route.call", "route:claims.get")
		case 4:
			return request("eligibility-service", "user:"+u, "member.coverage", []string{"coverage:Coverage:acme/cov1", "coverage:Coverage:acme/none"}[rng.IntN(2)])
		case 5:
			return request("labs-service", "user:doc", "lab.view", "lab:l1", "patient", "Patient:general/sue", "sensitivity", sens[rng.IntN(3)], "minorConsent", false)
		default:
			return request("claims-service", "user:"+u, "claim.view", fmt.Sprint("claim:c", rng.IntN(50)),
				claim(coverages[rng.IntN(len(coverages))], pharmacies[rng.IntN(3)], fmt.Sprintf("2026-%02d-15", 1+rng.IntN(12)), sens[rng.IntN(3)])...)
		}
	}
	due := func(i, n int) int { return i * (n + 1) / decisions } // how many of n are due at decision i
	ctx := context.Background()
	nSets, nChanges := 0, 0
	broken := overflowing(t)
	for i := 0; i < decisions; {
		if due(i, sets) > nSets && nSets < sets {
			nSets++
			if nSets%4 == 0 {
				s.force(broken)
			} else {
				s.force(variant(t, nSets))
			}
		}
		if i >= decisions/2 && of["emergency asked"] < 2 { // the second is not to be had before a review of the first
			_, _, _, err := s.p.OpenEmergency(ctx, opener, hierarchy.Emergency{Reason: "unconscious", Text: "found on the floor",
				Node: hierarchy.ID{Type: "Patient", Tenant: "general", Key: "sue"}})
			of["emergency asked"]++
			if err != nil {
				of["emergency refused"]++
			}
		}
		if due(i, changes) > nChanges && nChanges < changes {
			nChanges++
			s.know(fmt.Sprintf("node Group:acme/x%d\nprincipal User:u%d\nUser:u%d holds tpa-ops at Group:acme/x%d\ngrant r-%d adult-proxy User:u%d for Person:leo can lab.view", nChanges, nChanges, nChanges, nChanges, nChanges, nChanges))
		}
		n := 1
		if rng.IntN(10) == 0 {
			n = 2 + rng.IntN(5)
		}
		var rs []authz.Request
		for range n {
			rs = append(rs, one())
		}
		if rng.IntN(50) == 0 {
			_, err := s.p.Ask(ctx, Inquiry{Actor: s.admin, Caller: adminCaller, Requests: rs, At: hierarchy.At(s.clock.now()) - hierarchy.Instant(rng.IntN(90))*day})
			must(t, err)
			of["inquiry"] += n
		}
		ds, err := s.p.DecideAll(ctx, rs, authz.ExecuteAll)
		must(t, err)
		for k, d := range ds {
			of[string(d.Code)]++
			for what, is := range map[string]bool{"batched": n > 1, "single": n == 1, "by a grant": d.Grant != "", "by an emergency": d.Emergency != "",
				"a feature": rs[k].Resource.Type == "feature", "a route": rs[k].Resource.Type == "route"} {
				if is {
					of[what]++
				}
			}
		}
		i += n
	}
	if nSets < sets || nChanges < changes {
		t.Fatalf("recorded under %d sets and %d changes", nSets, nChanges)
	}
	for _, what := range []string{"batched", "single", "by a grant", "by an emergency", "a feature", "a route", "inquiry", "emergency asked",
		"indeterminate", "unknown_resource", "anchor_missing", "no_standing", "forbidden", "permitted"} {
		if of[what] == 0 {
			t.Errorf("nothing was recorded of this kind: %s (%v)", what, of)
		}
	}
	return of
}

// TestMain lets the test binary replay a site as a process of its own.
func TestMain(m *testing.M) {
	if dir := os.Getenv("WARD_TEST_REPLAY"); dir != "" {
		os.Exit(replayProcess(dir))
	}
	os.Exit(m.Run())
}

// replayProcess replays everything in a folder and prints what came of it.
func replayProcess(dir string) int {
	ctx := context.Background()
	out, err := replayAll(ctx, dir)
	if err != nil {
		fmt.Println("INTEGRITY", err)
		return 7
	}
	fmt.Println(out)
	if strings.Contains(out, "different=0") {
		return 0
	}
	return 6
}

func replayAll(ctx context.Context, dir string) (string, error) {
	keys, err := audit.OpenKeys(filepath.Join(dir, "keys"))
	if err != nil {
		return "", err
	}
	if _, err := audit.Verify(filepath.Join(dir, "ledger"), keys.Verifier()); err != nil {
		return "", err
	}
	store, err := boltstore.OpenReadOnly(filepath.Join(dir, "store.db"))
	if err != nil {
		return "", err
	}
	defer store.Close()
	reader, err := audit.OpenReader(filepath.Join(dir, "ledger"), keys.Verifier())
	if err != nil {
		return "", err
	}
	items, different, err := replayOf(ctx, store, keys, reader.From)
	return fmt.Sprintf("items=%d different=%d", items, different), err
}

// replayOf replays a ledger, and counts the answers and the differences.
func replayOf(ctx context.Context, store hierarchy.Store, keys *audit.Keys, from func(uint64) iter.Seq2[audit.Entry, error]) (items, different int, err error) {
	rep, err := NewReplayer(ctx, store, keys)
	if err != nil {
		return 0, 0, err
	}
	if err := rep.Changes(from(0)); err != nil {
		return 0, 0, err
	}
	for e, err := range from(0) {
		if err != nil {
			return items, different, err
		}
		r, err := rep.Replay(ctx, e)
		if err != nil {
			return items, different, err
		}
		items += r.Items
		different += len(r.Differences)
	}
	return items, different, nil
}

// boltSite is a site whose store is a file.
func boltSite(t testing.TB, set *policies.Set, at string) *site {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	must(t, boltstore.Create(path))
	store, err := boltstore.Open(path)
	must(t, err)
	return openOn(t, set, at, store)
}

func TestReplayInAnotherProcess(t *testing.T) {
	s := boltSite(t, pbm(), "2026-11-20T12:00:00Z")
	sets, changes := count(20, 120), count(200, 1_200)
	of := record(t, s, count(10_000, 140_000), sets, changes)
	records := s.ledger.Size()
	if want := uint64(count(7_000, 100_000)); records < want {
		t.Errorf("%d records, want %d", records, want)
	}
	dir := s.freeze(t)
	start := time.Now()
	text, code := replayIn(t, dir)
	took := time.Since(start)
	if code != 0 || !strings.Contains(text, "different=0") {
		t.Fatalf("exit %d: %s", code, text)
	}
	t.Logf("%d records under %d sets and %d changes of facts re-derived by another process: %s, %.0f records/s (changes and verification included); %v",
		records, sets, changes, text, float64(records)/took.Seconds(), of)

	// A changed byte, anywhere, is reported.
	rng := rand.New(rand.NewPCG(3, 4))
	segments, _ := filepath.Glob(filepath.Join(dir, "ledger", "*"))
	files := []string{filepath.Join(dir, "store.db")}
	for _, f := range segments {
		if st, err := os.Stat(f); err == nil && st.Size() > 1000 && !st.IsDir() {
			files = append(files, f)
		}
	}
	for _, f := range files {
		for range count(6, 20) {
			copyDir := clone(t, dir)
			target := filepath.Join(copyDir, strings.TrimPrefix(f, dir))
			what := flipInPayload(t, target, rng)
			if what == "" {
				continue
			}
			text, code := replayIn(t, copyDir)
			if code != 7 {
				t.Errorf("%s: a changed byte (%s) gives exit %d: %s", filepath.Base(f), what, code, text)
			}
		}
	}
}

// freeze closes a site and gathers its store, ledger and keys in one folder.
func (s *site) freeze(t testing.TB) string {
	must(t, s.ledger.Close())
	f, err := os.Create(filepath.Join(s.dir, "store.db"))
	must(t, err)
	must(t, s.store.CopyTo(context.Background(), f))
	must(t, f.Close())
	return s.dir
}

func clone(t testing.TB, dir string) string {
	to := t.TempDir()
	must(t, os.CopyFS(filepath.Join(to, "c"), os.DirFS(dir)))
	return filepath.Join(to, "c")
}

// flipInPayload changes one byte of stored evidence: in a store's file one
// inside a revision or a policy set, in a ledger's any.
func flipInPayload(t testing.TB, path string, rng *rand.Rand) string {
	b, err := os.ReadFile(path)
	must(t, err)
	at := rng.IntN(len(b))
	if strings.HasSuffix(path, "store.db") {
		marks := []string{`"assignment":{"principal"`, `permit (`, `"grantee":"`, `guard.block`, `"why":"test"`}
		mark := marks[rng.IntN(len(marks))]
		// The file keeps dead copies in free pages, which nobody reads: all of them change.
		n := 0
		for i := 0; ; n++ {
			j := strings.Index(string(b[i:]), mark)
			if j < 0 {
				break
			}
			i += j + len(mark)
			b[i-2] ^= 0x01
		}
		if n == 0 {
			return ""
		}
		must(t, os.WriteFile(path, b, 0o600))
		return mark
	}
	b[at] ^= 0x01
	must(t, os.WriteFile(path, b, 0o600))
	return fmt.Sprintf("offset %d", at)
}

func replayIn(t testing.TB, dir string) (string, int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WARD_TEST_REPLAY="+dir)
	out, err := cmd.CombinedOutput()
	code := 0
	if e, ok := err.(*exec.ExitError); ok {
		code = e.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), code
}

// TestARewrittenStoreIsNoticed replaces the last revision of the store by
// another one whose hashes are all right.
func TestARewrittenStoreIsNoticed(t *testing.T) {
	ctx := context.Background()
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.tampered = true
	s.know(client)
	s.know("User:phil holds ops at Operator:ward")
	var bodies [][]byte
	for e, err := range s.store.Read(ctx, 0) {
		must(t, err)
		bodies = append(bodies, append([]byte(nil), e.Body...))
	}
	last := len(bodies) - 1
	forged := []byte(strings.Replace(string(bodies[last]), "User:phil", "User:nick", 1))
	lines := map[string][][]byte{"true": bodies, "forged": append(bodies[:last:last], forged), "cut": bodies[:last]}
	for _, name := range []string{"true", "forged", "cut"} { // opening the cut one closes its last change in the ledger
		line := lines[name]
		store := storetest.NewMemory()
		_, err := store.PutBlob(ctx, pbm().Archive())
		must(t, err)
		for i, b := range line {
			_, err := store.Append(ctx, uint64(i), b)
			must(t, err)
		}
		rep, err := NewReplayer(ctx, store, s.keys)
		must(t, err)
		err = rep.Changes(s.ledger.Scan(0))
		var bad *IntegrityError
		if got := errors.As(err, &bad); got != (name == "forged") {
			t.Errorf("%s: %v", name, err)
		}
		_, err = Open(ctx, Config{Store: store, Ledger: s.ledger, Keys: s.keys, Clock: s.clock.now})
		if got := errors.Is(err, ErrDisagree); got != (name == "forged") && name != "cut" {
			t.Errorf("open %s: %v", name, err)
		}
	}
}
