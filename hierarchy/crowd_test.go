package hierarchy

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"
)

// manyGrants gives User:u sixteen grants about Person:p that are live at 1000
// and as many others as are asked for, from there on in random order: what
// becomes of them says their kind.
func manyGrants(t testing.TB, others int, kind string) *bench {
	b := newBench(t)
	b.time = 1000
	b.do(user(Always, "User:u"), person(Always, "Person:p", nil), person(Always, "Person:q", nil))
	one := func(id string, v Interval) Event {
		return grant(v, Grant{ID: id, Grantor: mustID("Person:q"), Grantee: mustID("User:u"), Subject: mustID("Person:p")})
	}
	var events, after []Event
	for i := range others {
		v := during(Instant(i%900), Instant(i%900+90)) // over
		switch kind {
		case "future":
			v = during(Instant(2000+7*i), Instant(9000+7*i))
		case "revoked", "voided":
			v = Always
		}
		events = append(events, one(fmt.Sprint("o", i), v))
	}
	for i := range MaxLiveGrants {
		events = append(events, one(fmt.Sprint("live", i), during(Instant(10*i), 5000)))
	}
	newRand(3).Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	write := func(events []Event) { // Check walks them all each time
		for part := range slices.Chunk(events, MaxBatchEvents) {
			b.apply(b.batch(nil, part...))
		}
	}
	first := b.g.Tip().Revision + 1
	write(events)
	for i, e := range events {
		f := FactID{first + uint64(i/MaxBatchEvents), uint32(i % MaxBatchEvents)}
		switch {
		case e.Grant.ID[0] == 'l':
		case kind == "revoked":
			after = append(after, endAt(KindGrant, f, 900))
		case kind == "voided":
			after = append(after, void(KindGrant, f))
		}
	}
	write(after)
	return b
}

// TestGrantsAmongMany: of very many grants those that are live are found, and
// when the next begins, at any instant of any revision, while they change.
func TestGrantsAmongMany(t *testing.T) {
	for _, kind := range []string{"ended", "future", "revoked", "voided"} {
		b := manyGrants(t, 100, kind)
		x := b.g.grants.indexes[byGrantee].crowds
		u := mustID("User:u")
		ask := func(v View) (string, Instant) {
			r := NewReading()
			return fmt.Sprint(grantTexts(v.Reading(r).Grants(u)), r.Facts()), r.Until()
		}
		// The same by walking all that is known.
		walk := func(v View) (string, Instant) {
			defer func(most int) { x.most = most }(x.most)
			x.most = 1 << 30
			return ask(v)
		}
		compare := func(what string) {
			t.Helper()
			head := b.g.Head().Revision
			for rev := range head + 1 {
				for _, at := range []Instant{0, 89, 90, 899, 900, 1000, 2000, 2007, 4999, 5000, 1 << 40} {
					got, until := ask(b.g.At(at, rev, EdgeKinds{}))
					if want, by := walk(b.g.At(at, rev, EdgeKinds{})); got != want || until != by {
						t.Fatalf("%s, %s, at %d, revision %d: until %d\n got %s\nwant %s until %d", kind, what, at, rev, until, got, want, by)
					}
				}
			}
		}
		compare("as written")
		sym := b.g.syms.lookupID(u)
		kept := func() *crowd { c, _ := x.sorted.Load(sym); return c.(*crowd) }
		b.view(1000).Grants(u)
		first := kept()
		b.do(node(Always, "Tenant:other"))
		b.view(1000).Grants(u)
		if kept() != first {
			t.Errorf("%s: sorted again though nothing changed", kind)
		}
		if n := len(b.view(1000).Grants(u)); n != MaxLiveGrants {
			t.Errorf("%s: %d grants are live", kind, n)
		}
		b.do(void(KindGrant, b.view(1000).Grants(u)[0].Fact))
		compare("one voided")
		b.do(endAt(KindGrant, b.view(1000).Grants(u)[0].Fact, 1001))
		compare("one ended")
		m := func(step ImportStep) *Import { return &Import{ID: "i", Step: step} }
		brought := grant(during(0, 9999), Grant{ID: "brought", Grantor: mustID("Person:q"), Grantee: u, Subject: mustID("Person:q")})
		live := b.view(1000).Grants(u)
		b.in(m(ImportOpen), brought, void(KindGrant, live[1].Fact), endAt(KindGrant, live[2].Fact, 950))
		compare("an import is open")
		b.in(m(ImportAbandon))
		compare("it is abandoned")
		for what, e := range map[string]Event{"voids": void(KindGrant, live[1].Fact), "ends": endAt(KindGrant, live[2].Fact, 950), "brings": brought} {
			b.in(m(ImportOpen), e)
			compare("an import is open that " + what)
			b.in(m(ImportClose))
			compare("an import is closed that " + what)
		}
		if n := len(b.view(1000).Grants(u)); n != MaxLiveGrants-2 { // the one ended at 1001 is live yet
			t.Errorf("%s: %d grants are live in the end", kind, n)
		}
	}
}

// TestCrowd: of random rows exactly those are found that hold.
func TestCrowd(t *testing.T) {
	for seed := range uint64(rounds(200)) {
		rng := newRand(seed)
		c := &crowd{}
		for i := range rng.IntN(40) {
			c.rows = append(c.rows, timed{valid: randomInterval(rng), row: uint32(i)})
		}
		slices.SortFunc(c.rows, func(a, b timed) int { return cmp.Compare(a.valid.From, b.valid.From) })
		measure(c.rows)
		for at := Instant(-1); at <= 2*worldEnd; at++ {
			var got, want []uint32
			holding(c.rows, at, func(n uint32) bool { got = append(got, n); return true })
			next := Forever
			for _, r := range c.rows {
				if r.valid.Holds(at) {
					want = append(want, r.row)
				}
				if r.valid.From > at {
					next = min(next, r.valid.From)
				}
			}
			if start, ok := c.next(at); !slices.Equal(got, want) || ok != (next != Forever) || ok && start != next {
				t.Fatalf("seed %d at %d: %v, next %d; want %v, %d", seed, at, got, start, want, next)
			}
			if stop := rng.IntN(3); stop < len(want) { // and it stops when told to
				got = nil
				holding(c.rows, at, func(n uint32) bool { got = append(got, n); return len(got) <= stop })
				if len(got) != stop+1 {
					t.Fatalf("seed %d at %d: told to stop after %d, went on to %d", seed, at, stop+1, len(got))
				}
			}
		}
	}
}

// BenchmarkGrantsAmongMany asks for sixteen live grants among 10,000 others and
// reports how many times as long it takes as without them.
func BenchmarkGrantsAmongMany(b *testing.B) {
	u := mustID("User:u")
	few := manyGrants(b, 0, "").view(1000)
	for _, kind := range []string{"ended", "future", "revoked", "voided"} {
		many := manyGrants(b, 10_000, kind).view(1000)
		ask := func(v View) {
			if n := len(v.Reading(NewReading()).Grants(u)); n != MaxLiveGrants {
				b.Fatalf("%d live grants", n)
			}
		}
		b.Run(kind, func(b *testing.B) {
			var alone time.Duration
			for b.Loop() {
				ask(many)
				b.StopTimer() // both under the same load of the machine
				start := time.Now()
				ask(few)
				alone += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed())/float64(alone), "times")
		})
	}
}

// TestGranted: whether a grant of a type ever began between two, few or many of
// them, at any instant of any revision, against a walk over all that are known.
func TestGranted(t *testing.T) {
	rng := newRand(7)
	types := []string{"parent", "caregiver"}
	for _, n := range []int{1, 5, 200} {
		b := newBench(t)
		b.time = 1000
		b.do(user(Always, "User:u"), person(Always, "Person:p", nil), person(Always, "Person:q", nil))
		var facts []FactID
		for i := range n {
			from := Instant(100 + rng.IntN(900))
			facts = append(facts, b.do(grant(during(from, from+Instant(1+rng.IntN(20))), Grant{ID: fmt.Sprint("g", i), Type: types[rng.IntN(2)],
				Grantor: mustID("Person:q"), Grantee: mustID("User:u"), Subject: mustID([]string{"Person:p", "Person:q"}[rng.IntN(2)])}))...)
			if rng.IntN(3) == 0 {
				b.try(nil, void(KindGrant, facts[rng.IntN(len(facts))]))
			}
		}
		yes := 0
		for range 2000 {
			at, rev := Instant(rng.IntN(1100)), 1+uint64(rng.IntN(int(b.g.Head().Revision)))
			reading := NewReading()
			v := b.g.At(at, rev, EdgeKinds{}).Reading(reading)
			subject, typ := mustID([]string{"Person:p", "Person:q"}[rng.IntN(2)]), types[rng.IntN(2)]
			want, next := false, Forever
			for f := range b.g.At(at, rev, EdgeKinds{}).Facts(KindGrant) {
				if g := f.Event.Grant; g.Subject == subject && g.Type == typ {
					want = want || f.Valid.From <= at
					if f.Valid.From > at {
						next = min(next, f.Valid.From)
					}
				}
			}
			if got := v.Granted(mustID("User:u"), subject, typ); got != want {
				t.Fatalf("%d grants, at %d, revision %d: %v, want %v", n, at, rev, got, want)
			}
			if want {
				yes++
			} else if reading.Until() != next {
				t.Fatalf("%d grants, at %d, revision %d: true until %d, want %d", n, at, rev, reading.Until(), next)
			}
		}
		if n > 1 && (yes == 0 || yes == 2000) {
			t.Errorf("%d of 2000 answers are yes", yes)
		}
	}
}
