package pdp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// TestASliceIsAllThatAnAnswerDependsOn: the verdict and every outcome come out
// the same from the encoding of what was found in the facts, with the graph, the
// request and the clock gone.
func TestASliceIsAllThatAnAnswerDependsOn(t *testing.T) {
	trials := count(4_000, 400_000)
	set := permitAll()
	asked, early := 0, 0
	for seed := uint64(1); trials > 0; seed++ {
		m := newMaze(t, seed)
		overlays := map[string]*policies.Overlay{}
		for _, tenant := range m.tenants {
			if m.rng.IntN(2) == 0 {
				o, err := policies.CompileOverlay(set, tenant, randomRules(m.rng, m))
				must(t, err)
				overlays[tenant] = o
			}
		}
		for range 100 {
			trials--
			q := m.question()
			a := convert(m.request(q, "docs"), set.Catalogue())
			j := world{set: set, overlays: overlays, graph: m.g, confers: confers(m.g, set), rev: m.g.Head().Revision, now: q.now}.judge(&a)
			s, err := decodeSlice(j.encode())
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, j.encode())
			}
			v, outcomes := evaluate(s, set, overlays)
			if verdictDigest(v) != verdictDigest(j.verdict) || len(outcomes) != len(j.outcomes) {
				t.Fatalf("seed %d: %v from the facts, %v from the slice", seed, j.verdict, v)
			}
			for i, o := range outcomes {
				if !reflect.DeepEqual(o, j.outcomes[i]) {
					t.Fatalf("seed %d: attempt %d: %v from the facts, %v from the slice", seed, i, j.outcomes[i], o)
				}
			}
			if asked += len(outcomes); j.code != "" {
				early++
			}
		}
	}
	if asked == 0 || early == 0 {
		t.Errorf("%d attempts, %d answers without one", asked, early)
	}
}

func TestASliceIsReadInOneFormOnly(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(family)
	r := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...)
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	a := convert(&r, w.set.Catalogue())
	j := w.judge(&a)
	b := j.encode()
	if _, err := decodeSlice(b); err != nil || len(j.attempts) == 0 {
		t.Fatal(err, j.attempts)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range b {
		c := slices.Clone(b)
		c[i] ^= 1 << rng.IntN(7)
		if s, err := decodeSlice(c); err == nil && string(s.encode()) != string(c) {
			t.Fatalf("byte %d: it is read as another than it says", i)
		}
	}
	for _, c := range []string{"", "{}", "null", string(b) + " ", strings.Replace(string(b), `"code":"",`, "", 1), strings.Replace(string(b), `,"counts"`, `,"x":1,"counts"`, 1),
		strings.Replace(string(b), `"question":{`, `"question":{"x":1,`, 1), strings.Replace(string(b), `"context":{`, `"context":{"x":{"set":[2,1]},`, 1), strings.Replace(string(b), `"context":{`, `"context":{"x":1.5,`, 1), strings.Replace(string(b), `"context":{`, `"context":{"x":null,`, 1)} {
		if _, err := decodeSlice([]byte(c)); err == nil && c != string(b) {
			t.Errorf("%.80s… is taken", c)
		}
	}
}

// asks asks and returns the record's sequence number.
func (s *site) asks(rs ...authz.Request) uint64 {
	s.t.Helper()
	ds, err := s.p.DecideAll(context.Background(), rs, authz.ExecuteAll)
	must(s.t, err)
	seq, err := audit.ParseID(ds[0].Receipt.Record)
	must(s.t, err)
	return seq
}

// caseOf exports records as a case, as a folder in memory.
func (s *site) caseOf(tenants []string, seqs ...uint64) (fstest.MapFS, error) {
	ctx := context.Background()
	rep, err := NewReplayer(ctx, s.store, s.keys)
	must(s.t, err)
	reader, err := audit.OpenReader(s.dir+"/ledger", s.keys.Verifier())
	must(s.t, err)
	dir := fstest.MapFS{}
	x := Exporter{Replayer: rep, Tenants: tenants, Prove: func(seq uint64) ([]byte, error) { return reader.Prove(seq, nil) },
		Write: func(name string, content []byte) error {
			if dir[name] != nil {
				s.t.Errorf("%s is written twice", name)
			}
			dir[name] = &fstest.MapFile{Data: slices.Clone(content), Mode: 0o600}
			return nil
		}}
	must(s.t, x.Begin())
	for _, seq := range seqs {
		e, err := reader.Entry(seq)
		must(s.t, err)
		if err := x.Add(ctx, e); err != nil {
			return nil, err
		}
	}
	return dir, nil
}

// replayCase does all that can be done with a case.
func replayCase(dir fs.FS) (items, different int, err error) {
	c, err := OpenCase(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, seq := range c.Records() {
		if _, err := c.Check(context.Background(), seq); err != nil {
			return 0, 0, err
		}
		r, err := c.Replay(context.Background(), seq)
		if err != nil {
			return 0, 0, err
		}
		items += r.Items
		different += len(r.Differences)
	}
	return items, different, c.Done()
}

// TestACaseStandsAlone: records of every kind, under many sets and overlays,
// replay from the files of a case and nothing else.
func TestACaseStandsAlone(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	record(t, s, count(300, 5_000), 4, 10)
	must(t, s.overlay(s.admin, "acme", noClaims))
	must(t, s.overlay(s.admin, "zeta", noSearch))
	for _, coverage := range []string{"Coverage:acme/cov1", "Coverage:zeta/cov9"} {
		s.asks(claimOf("olga", claim(coverage, "Pharmacy:p1", "2026-08-01", "routine")...))
	}
	s.asks(request("shell", "user:olga", "feature.see", "feature:claims.search"))
	_, err := s.p.Ask(context.Background(), Inquiry{Actor: s.admin, Caller: adminCaller, Requests: []authz.Request{claimOf("olga", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")...)}})
	must(t, err)
	must(t, s.ledger.Close())
	var all []uint64
	for i := range s.ledger.Size() {
		all = append(all, i)
	}
	dir, err := s.caseOf(nil, all...)
	must(t, err)
	items, different, err := replayCase(dir)
	if err != nil || different != 0 || items < len(all) {
		t.Fatalf("%d items, %d different, %v", items, different, err)
	}
	kinds, overlays := map[audit.Kind]int{}, 0
	c, err := OpenCase(dir)
	must(t, err)
	for _, seq := range c.Records() {
		r, err := c.check(seq)
		must(t, err)
		kinds[r.entry.Kind]++
		for _, s := range r.slices {
			for _, a := range s.attempts {
				if a.Overlay != "" {
					overlays++
				}
			}
		}
	}
	if len(kinds) < 3 || overlays == 0 {
		t.Errorf("the case holds %v, and %d attempts under overlays", kinds, overlays)
	}
	t.Logf("%d records of a case replay, %d answers", len(all), items)
}

// TestACaseThatWasChanged: whatever is changed in a case, it is noticed.
func TestACaseThatWasChanged(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	r := claimOf("olga", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")...)
	must(t, s.overlay(s.admin, "acme", noClaims))
	one, two := s.asks(r), s.asks(request("shell", "user:bo", "feature.see", "feature:claims.search"))
	first, second := audit.ID(one), audit.ID(two)
	must(t, s.ledger.Close())
	dir, err := s.caseOf(nil, one)
	must(t, err)
	both, err := s.caseOf(nil, one, two)
	must(t, err)
	for want, c := range []fstest.MapFS{1: dir, 2: both} {
		if items, different, err := replayCase(c); want > 0 && (err != nil || different != 0 || items != want) {
			t.Fatal(items, different, err)
		}
	}
	noticed := func(what string, change func(fstest.MapFS)) {
		t.Helper()
		forged := fstest.MapFS{}
		for n, f := range dir {
			forged[n] = &fstest.MapFile{Data: slices.Clone(f.Data), Mode: f.Mode}
		}
		change(forged)
		if _, different, err := replayCase(forged); err == nil && different == 0 {
			t.Errorf("%s: nothing is noticed", what)
		}
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for n := range dir {
			if !yield(n) {
				return
			}
		}
	})
	flips := 0
	for _, name := range names {
		noticed(name+" is missing", func(c fstest.MapFS) { delete(c, name) })
		noticed(name+" is empty", func(c fstest.MapFS) { c[name].Data = nil })
		noticed(name+" is longer", func(c fstest.MapFS) { c[name].Data = append(c[name].Data, '\n') })
		noticed(name+" is a folder", func(c fstest.MapFS) { c[name].Mode = fs.ModeDir })
		if other := strings.Replace(name, first, second, 1); other != name {
			noticed(name+" is the other's", func(c fstest.MapFS) { c[name] = both[other] })
			noticed(name+" has no record", func(c fstest.MapFS) { c[other] = both[other] })
		}
		step := 1
		if strings.HasSuffix(name, casePolicies) {
			step = count(len(dir[name].Data)/20+1, 1)
		}
		for i := 0; i < len(dir[name].Data); i += step {
			flips++
			bit := byte(1) << (i % 8)
			noticed(fmt.Sprintf("%s, byte %d", name, i), func(c fstest.MapFS) { c[name].Data[i] ^= bit })
		}
	}
	t.Logf("%d bytes changed, one at a time", flips)
	noticed("under another number", func(c fstest.MapFS) {
		for n, f := range dir {
			if rest, ok := strings.CutPrefix(n, first+"."); ok {
				delete(c, n)
				c[second+"."+rest] = f
			}
		}
	})
	noticed("a file too many", func(c fstest.MapFS) { c["note"] = &fstest.MapFile{} })
	noticed("policies too many", func(c fstest.MapFS) {
		c[archiveName("sha256:"+digestOf(nil))] = &fstest.MapFile{}
	})
	noticed("no record at all", func(c fstest.MapFS) {
		for n := range c {
			if n != caseVerifier {
				delete(c, n)
			}
		}
	})
	noticed("another ledger's key", func(c fstest.MapFS) {
		other := open(t, pbm(), "2026-11-24T12:00:00Z")
		c[caseVerifier].Data = []byte(other.keys.Verifier() + "\n")
	})
}

// TestACaseOpensNoMore: a key of a case opens one part of one record.
func TestACaseOpensNoMore(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	acme := claimOf("olga", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")...)
	zeta := claimOf("olga", claim("Coverage:zeta/cov9", "Pharmacy:p1", "2026-08-01", "routine")...)
	seq, next := s.asks(acme, zeta), s.asks(acme)
	must(t, s.ledger.Close())
	dir, err := s.caseOf([]string{"acme"}, seq)
	must(t, err)
	c, err := OpenCase(dir)
	must(t, err)
	r, err := c.Replay(context.Background(), seq)
	if err != nil || r.Key != KeyWithheld || len(r.Differences) != 0 {
		t.Errorf("%+v %v", r, err)
	}
	checked, err := c.check(seq)
	must(t, err)
	if checked.items[0].Asked == nil || checked.items[1].Asked != nil || checked.slices[1] != nil {
		t.Error("the other tenant's part is open")
	}
	for name, f := range dir {
		if strings.Contains(string(f.Data), "zeta") && !strings.HasSuffix(name, casePolicies) {
			t.Errorf("%s names the other tenant", name)
		}
	}
	// Its key, on the same tenant's record of the same day.
	key, _, _ := strings.Cut(string(dir[audit.ID(seq)+caseKeys].Data), "\n")
	raw, err := caseBase64.DecodeString(key)
	must(t, err)
	reader, err := audit.OpenReader(s.dir+"/ledger", s.keys.Verifier())
	must(t, err)
	e, err := reader.Entry(next)
	must(t, err)
	if _, err := e.Open([][]byte{raw}); !errors.Is(err, audit.ErrCorrupt) {
		t.Errorf("another record opens with it: %v", err)
	}
}

// TestACaseIsRefusedWhereTheStoreIsNotTheLedgers: what is rebuilt must be what
// was recorded.
func TestACaseIsRefusedWhereTheStoreIsNotTheLedgers(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	seq := s.asks(claimOf("olga", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")...))
	must(t, s.ledger.Close())
	kept := s.store
	defer func() { s.store = kept }()
	other := open(t, pbm(), "2026-11-24T12:00:00Z")
	other.know(family)
	other.know(client)
	s.store = other.store
	_, err := s.caseOf(nil, seq)
	var bad *IntegrityError
	if !errors.As(err, &bad) {
		t.Errorf("%v", err)
	}
}

// TestDecidingAgain: what other sets would have answered to every record, from
// the store, from a case, and asked directly.
func TestDecidingAgain(t *testing.T) {
	ctx := context.Background()
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	record(t, s, 300, 4, 10)
	must(t, s.overlay(s.admin, "acme", noClaims))
	s.asks(claimOf("olga", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")...))
	must(t, s.overlay(s.admin, "acme", noSearch)) // what is in force now
	closed := map[string][]byte{}
	for k, v := range policies.PBM() {
		closed[k] = v
	}
	closed["closed.cedar"] = []byte(`@id("closed") forbid (principal is PBM::User, action == PBM::Action::"lab.view", resource is PBM::Lab);`)
	set, err := policies.Compile(closed)
	must(t, err)
	s.force(set)
	must(t, s.ledger.Close())
	rep, err := NewReplayer(ctx, s.store, s.keys)
	must(t, err)
	now, err := rep.Now(ctx)
	must(t, err)
	if now.Set().Digest() != set.Digest() {
		t.Fatal("now is not what is in force")
	}
	first, err := rep.Set(ctx, pbm().Digest())
	must(t, err)
	changes := map[string]int{}
	var entries []audit.Entry
	for e, err := range s.ledger.Scan(0) {
		must(t, err)
		entries = append(entries, e)
	}
	for _, e := range entries {
		for name, o := range map[string]*Other{"now": now, "first": first} {
			got, err := rep.Redecide(ctx, e, o)
			must(t, err)
			_, c, err := rep.open(e)
			must(t, err)
			if len(c.Items) == 0 {
				continue
			}
			w, err := rep.world(ctx, e.ID(), c)
			must(t, err)
			items, _, err := rep.unseal(e.ID(), e, c)
			must(t, err)
			at := map[int]Redecision{}
			for _, r := range got.Changes {
				at[r.Item] = r
				changes[name+" "+r.Change+" "+r.Action]++
			}
			// The brute-force reading: a world of these policies alone.
			overlays := map[string]*policies.Overlay{}
			if name == "now" {
				overlays["acme"], err = policies.CompileOverlay(o.set, "acme", rules(noSearch))
				must(t, err)
			} else {
				for tenant, then := range w.overlays {
					overlays[tenant], err = policies.OpenOverlay(o.set, tenant, then.Archive())
					must(t, err)
				}
			}
			bare := world{set: o.set, overlays: overlays, graph: s.p.graph, confers: confers(s.p.graph, o.set), rev: c.Revision, now: hierarchy.Instant(c.Now)}
			for i, si := range items {
				v := bare.judge(si.Asked).verdict
				want := ""
				switch before := si.Verdict; {
				case before.Effect == v.Effect && reflect.DeepEqual(before.Obligations, v.Obligations):
				case before.Effect == v.Effect:
					want = "obligations"
				case bool(v.Effect):
					want = "gain"
				default:
					want = "loss"
				}
				if r := at[c.First+i]; r.Change != want || want != "" && (r.After.Code != v.Code || r.Before.Code != si.Verdict.Code) {
					t.Errorf("%s, item %d under %s: %+v, want %q to %s", e.ID(), i, name, r, want, v.Code)
				}
			}
		}
	}
	for _, want := range []string{"now gain claim.view", "now loss lab.view", "first gain claim.view"} {
		if changes[want] == 0 {
			t.Errorf("no record shows a %s: %v", want, changes)
		}
	}
	// A case tells the same, of sets that are in it and show policies the same.
	var seqs []uint64
	for _, e := range entries {
		seqs = append(seqs, e.Seq)
	}
	dir, err := s.caseOf(nil, seqs...)
	must(t, err)
	c, err := OpenCase(dir)
	must(t, err)
	inCase, err := c.Set(ctx, pbm().Digest())
	must(t, err)
	for _, e := range entries {
		want, err := rep.Redecide(ctx, e, first)
		must(t, err)
		got, err := c.Redecide(ctx, e.Seq, inCase)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v (%v) from the case, %+v from the store", e.ID(), got, err, want)
		}
	}
	if _, err := c.Set(ctx, "sha256:"+digestOf(nil)); !errors.Is(err, errNoOther) {
		t.Error(err)
	}
	if _, err := rep.Set(ctx, "sha256:"+digestOf(nil)); !errors.Is(err, errNoOther) {
		t.Error(err)
	}
}
