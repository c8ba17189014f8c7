package hierarchy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
)

// TestZeroView: the zero View, a view of revision 0 and one of no graph know
// nothing, and nothing panics.
func TestZeroView(t *testing.T) {
	b := refusalWorld(t)
	b.do(setting(Always, "acme", "x", true), emergency(during(0, 20), "e", "User:dana", "Person:mia", "Coverage:acme/c1"), review(Always, "e", "User:eve"),
		grant(Always, Grant{ID: "signed", Grantor: mustID("Person:mia"), Grantee: mustID("User:eve"), Subject: mustID("Person:mia"), Needs: []Need{{As: SignerVerifier}}}),
		sign(Always, "signed", SignerVerifier, "User:dana", "User:dana"))
	for name, v := range map[string]View{"zero": {}, "revision 0": b.g.At(10, 0, b.g.EdgeKinds("in"))} {
		r := NewReading()
		v = v.Reading(r)
		u, p, n := mustID("User:dana"), mustID("Person:mia"), mustID("Group:acme/g1")
		_, _, isNode := v.Node(n)
		_, _, isPrincipal := v.Principal("https://idp", "sub-dana")
		_, _, isRole := v.Role("broker")
		_, isGrant := v.Grant("root")
		_, isFact := v.Fact(FactID{1, 0})
		_, _, isActive := v.Activation("")
		_, isEmergency := v.Emergency("e")
		_, _, isSetting := v.Setting(TenantID("acme"), "x")
		if isEmergency || isSetting || len(v.Emergencies(u))+len(v.EmergenciesAbout(p))+len(v.GrantsBy(ana))+len(v.Signatures("root")) > 0 {
			t.Errorf("%s: knows an emergency, a signature or a setting", name)
		}
		if isNode || isPrincipal || isRole || isGrant || isFact || isActive || v.Entitled(TenantID("acme"), "claims") ||
			len(v.Persons(u))+len(v.Family(p))+len(v.Owned(p))+len(v.Owners(n))+len(v.Assignments(u))+len(v.EndedAssignments(u))+
				len(v.Capabilities("broker"))+len(v.Grants(u))+len(v.EndedGrants(u))+len(v.Blocks(p))+len(v.Parents(n)) > 0 {
			t.Errorf("%s: knows something", name)
		}
		for k := KindNode; k <= KindReview; k++ {
			for range v.Facts(k) {
				t.Errorf("%s: yields a fact", name)
			}
		}
		for range v.Children(n) {
			t.Errorf("%s: yields a child", name)
		}
		if got := fmt.Sprint(v.Closure(n), v.Merged(p), v.Reaches(n, n), v.Reaches(n, TenantID("acme")), v.Reaches(n, mustID("Plan:acme/p1"))); got != "[Group:acme/g1 Tenant:acme] [Person:mia] true true false" {
			t.Errorf("%s: %s", name, got)
		}
		if r.Until() != Forever || len(r.Facts()) != 0 {
			t.Errorf("%s: read %v until %s", name, r.Facts(), r.Until())
		}
	}
	if v := b.g.At(10, 999, EdgeKinds{}); v.Revision() != b.g.Head().Revision || v.Instant() != 10 {
		t.Errorf("a revision beyond the head is %d", v.Revision())
	}
	if v := b.g.At(10, 999, EdgeKinds{}); v.Reaches(mustID("Group:acme/g1"), mustID("Plan:acme/p1")) {
		t.Error("with no conferring kinds something confers")
	}
	// Kinds of another graph are taken by name.
	if v := b.g.At(10, 999, NewGraph().EdgeKinds("x", "in")); !v.Reaches(mustID("Group:acme/g1"), mustID("Plan:acme/p1")) {
		t.Error("edge kinds of another graph are lost")
	}
	if id := (View{}).Closure(ID{}); len(id) != 0 {
		t.Errorf("the closure of nothing is %v", id)
	}
}

func TestPath(t *testing.T) {
	b := newBench(t)
	b.do(node(Always, "Operator:o"), node(Always, "Tenant:t"), node(Always, "G:t/a"), node(Always, "G:t/b"), node(Always, "G:t/c"), node(Always, "G:t/d"))
	other := edge(Always, "G:t/a", "G:t/b")
	other.Edge.Kind = "alt"
	b.do(edge(Always, "G:t/a", "G:t/c"), edge(Always, "G:t/a", "G:t/b"), other, edge(Always, "G:t/c", "G:t/d"), edge(Always, "G:t/b", "G:t/d"),
		edge(Always, "Tenant:t", "Operator:o"), edge(Always, "G:t/d", "Tenant:t"))
	v := b.g.At(0, 9, b.g.EdgeKinds("in", "alt"))
	for _, test := range []struct{ from, to, want string }{
		{"G:t/a", "G:t/a", "true"},
		{"G:t/a", "G:t/d", "true alt f2.2 G:t/b, in f2.4 G:t/d"},
		{"G:t/a", "Operator:o", "true tenant f0.0 Tenant:t, in f2.5 Operator:o"},
		{"G:t/d", "Tenant:t", "true in f2.6 Tenant:t"},
		{"G:t/unknown", "Operator:o", "true tenant f0.0 Tenant:t, in f2.5 Operator:o"},
		{"G:t/d", "G:t/a", "false"},
	} {
		path, ok := v.Path(mustID(test.from), mustID(test.to))
		var steps []string
		for _, e := range path {
			steps = append(steps, fmt.Sprint(e.Kind, " ", e.Fact, " ", e.Parent))
		}
		if got := strings.TrimSpace(fmt.Sprint(ok, " ", strings.Join(steps, ", "))); got != test.want {
			t.Errorf("path from %s to %s: %s; want %s", test.from, test.to, got, test.want)
		}
	}
}

// TestNodeEnded: what hangs on a node goes when it ends, but for the roles at
// it, blocks and merges; when it is voided, the roles too.
func TestNodeEnded(t *testing.T) {
	b := newBench(t)
	f := b.do(node(Always, "Tenant:t"), node(Always, "Plan:t/p"), node(Always, "Group:t/g"), user(Always, "User:u"), person(Always, "Person:a", nil), person(Always, "Person:b", nil), role("r", nil, nil))
	b.do(edge(Always, "Group:t/g", "Plan:t/p"), assign(Always, "User:u", "r", "Plan:t/p"), assign(Always, "User:u", "r", "Tenant:t"),
		link(Always, LinkMerge, "Person:a", "Person:b"), block(Always, "Person:b", "User:u"))
	b.do(endAt(KindNode, f[1], 50), endAt(KindNode, f[5], 50))
	for at, want := range map[Instant]string{
		49: "[Group:t/g Plan:t/p Tenant:t] 2 1", 50: "[Group:t/g Tenant:t] 2 1", // the role at the plan that ended stays
	} {
		v := b.view(at)
		got := fmt.Sprint(v.Closure(mustID("Group:t/g")), len(v.Assignments(mustID("User:u"))), len(v.Blocks(mustID("Person:a"))))
		if got != want {
			t.Errorf("at %d: %s; want %s", at, got, want)
		}
	}
	b.do(void(KindNode, f[1]))
	if n := len(b.view(10).Assignments(mustID("User:u"))); n != 1 {
		t.Errorf("with a voided plan %d assignments; want the one at the tenant", n)
	}
	b.do(void(KindNode, f[3]))
	if n := len(b.view(10).Assignments(mustID("User:u"))); n != 0 {
		t.Errorf("a voided principal has %d assignments", n)
	}
}

func TestActivation(t *testing.T) {
	b := newBench(t)
	act := func(n int) Event {
		return Event{Op: Assert, Kind: KindActivation, Activation: &Activation{Digest: "sha256:" + strings.Repeat(fmt.Sprint(n), 64), Name: fmt.Sprint("set", n)}}
	}
	b.do(act(1))
	b.do(node(Always, "Tenant:t"))
	b.do(act(2), act(3))
	b.do(act(1))
	for rev, want := range []string{"", "set1", "set1", "set3", "set1"} {
		a, f, ok := b.g.At(0, uint64(rev), EdgeKinds{}).Activation("")
		if a.Name != want || ok != (rev > 0) || f.IsZero() != (rev == 0) {
			t.Errorf("at revision %d %q is in force; want %q", rev, a.Name, want)
		}
	}
}

func TestOverlayActivation(t *testing.T) {
	b := newBench(t)
	digest := func(n int) string { return "sha256:" + strings.Repeat(fmt.Sprint(n), 64) }
	b.do(node(Always, "Tenant:acme"), node(Always, "Tenant:zeta"))
	b.do(Event{Op: Assert, Kind: KindActivation, Activation: &Activation{Digest: digest(9), Name: "set"}}, overlayOf("acme", digest(1)))
	b.do(overlayOf("zeta", digest(2)), overlayOf("acme", digest(3)))
	b.do(overlayOf("acme", ""))
	b.do(overlayOf("acme", digest(1)))
	for rev, want := range []map[string]string{{}, {}, {"": "9", "acme": "1"}, {"": "9", "acme": "3", "zeta": "2"}, {"": "9", "zeta": "2"}, {"": "9", "acme": "1", "zeta": "2"}} {
		v := b.g.At(0, uint64(rev), EdgeKinds{})
		got := map[string]string{}
		for tenant, a := range v.Overlays() {
			got[tenant] = a.Digest[7:8]
		}
		for _, tenant := range []string{"", "acme", "zeta", "none"} {
			a, f, ok := v.Activation(tenant)
			if digest, is := want[tenant]; ok != is || f.IsZero() == is || ok && a.Digest[7:8] != digest {
				t.Errorf("at revision %d %q has %v, %v", rev, tenant, a, ok)
			}
		}
		if delete(want, ""); !maps.Equal(got, want) {
			t.Errorf("at revision %d the overlays are %v, want %v", rev, got, want)
		}
	}
	// What a tenant no longer has can still be taken from it.
	b.do(void(KindNode, FactID{1, 0}))
	b.do(overlayOf("acme", ""))
}

func TestHeads(t *testing.T) {
	b := newBench(t)
	want := []Head{{}}
	for i := range 5 {
		b.time = Instant(1000 * (i + 1))
		b.do(node(Always, fmt.Sprint("Tenant:t", i)))
		want = append(want, want[i].Next(b.log[i].Body))
	}
	for rev, head := range want {
		if got, ok := b.g.HeadAt(uint64(rev)); !ok || got != head {
			t.Errorf("head at %d is %v, %v; want %v", rev, got, ok, head)
		}
	}
	if _, ok := b.g.HeadAt(6); ok {
		t.Error("there is a head beyond the tip")
	}
	if b.g.Head() != want[5] || b.g.Tip() != want[5] || b.g.LastTime() != 5000 {
		t.Error("head, tip or last time is wrong")
	}
	for known, want := range map[Instant]uint64{999: 0, 1000: 1, 1999: 1, 2000: 2, 5000: 5, Forever: 5} {
		if got := b.g.RevisionAt(known); got != want {
			t.Errorf("RevisionAt(%d) is %d; want %d", known, got, want)
		}
	}
	info, ok := b.g.Batch(2)
	if !ok || info.Time != 2000 || info.Provenance.Who != ana {
		t.Errorf("batch 2: %+v, %v", info, ok)
	}
	if _, ok := b.g.Batch(0); ok {
		t.Error("there is a batch 0")
	}
}

// TestCompareIDs: ids sort as their texts do.
func TestCompareIDs(t *testing.T) {
	rng := newRand(1)
	word := func(letters string, least int) string {
		s := make([]byte, least+rng.IntN(3))
		for i := range s {
			s[i] = letters[rng.IntN(len(letters))]
		}
		return string(s)
	}
	var ids []ID
	for range 400 {
		ids = append(ids, ID{"A" + word("aA9", 0), word("a.~/ ", 0)[:0] + word("a.~!", 0), word("a.~!:", 1)})
	}
	for _, a := range ids {
		for _, b := range ids {
			if got, want := compareIDs(a, b), strings.Compare(a.String(), b.String()); got != want {
				t.Fatalf("compare %s with %s: %d; want %d", a, b, got, want)
			}
		}
	}
}

// TestSymbols puts many ids in and finds exactly them.
func TestSymbols(t *testing.T) {
	s := newSymbols()
	want := map[ID]sym{}
	for i := range 20_000 {
		id := ID{Type: fmt.Sprint("T", i%7), Key: fmt.Sprint(i / 2)}
		if i%3 == 0 {
			id.Tenant = fmt.Sprint(i % 11)
		}
		n := s.internID(id)
		if old, ok := want[id]; ok && old != n {
			t.Fatalf("%s has two symbols", id)
		}
		want[id] = n
	}
	for id, n := range want {
		if s.lookupID(id) != n || s.id(n) != id {
			t.Fatalf("%s: symbol %d, then %d, which is %s", id, n, s.lookupID(id), s.id(n))
		}
	}
	for _, id := range []ID{{Type: "T0", Key: "x"}, {Type: "X", Key: "0"}, {Type: "T1", Tenant: "none", Key: "0"}} {
		if n := s.lookupID(id); n != 0 {
			t.Errorf("%s is found as %s", id, s.id(n))
		}
	}
}

// TestReadersWhileWriting: readers take no lock; what they read at a revision
// stays the same while a writer applies others (run it with -race).
func TestReadersWhileWriting(t *testing.T) {
	for seed := range uint64(3) {
		full, history := randomHistory(t, newRand(4000+seed), 40)
		g := NewGraph()
		g.grants.indexes[byGrantee].crowds.most = 0
		confer := g.EdgeKinds("in")
		done := make(chan struct{})
		var wg sync.WaitGroup
		for reader := range uint64(3) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, reader))
				for n := 0; ; n++ {
					select {
					case <-done:
						if n > 50 {
							return
						}
					default:
					}
					head := g.Head()
					rev := uint64(rng.IntN(int(head.Revision) + 1))
					q, at := ask(rng), Instant(rng.IntN(worldEnd))
					r := NewReading()
					got := fmt.Sprint(q.view(g.At(at, rev, confer).Reading(r)))
					again := fmt.Sprint(q.view(g.At(at, rev, g.EdgeKinds("in", fmt.Sprint("k", n)))))
					if got != again {
						t.Errorf("seed %d: %s at %d, revision %d: %s, then %s", seed, q.name, at, rev, got, again)
						return
					}
					if n%10 == 0 {
						if want := fmt.Sprint(q.oracle(recall(history, rev, at))); got != want {
							t.Errorf("seed %d: %s at %d, revision %d: %s; want %s", seed, q.name, at, rev, got, want)
							return
						}
					}
					g.RevisionAt(at * 100)
					g.HeadAt(head.Revision)
					g.Batch(head.Revision)
					g.Imports()
				}
			})
		}
		for _, e := range full.log {
			batch, err := Decode(e.Body)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Check(batch); err != nil {
				t.Fatal(err)
			}
			if err := g.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
		close(done)
		wg.Wait()
		if g.Head() != full.g.Head() {
			t.Error("heads differ")
		}
	}
}

// TestAtBuildsNothing: a view of the past costs no memory, and neither does
// changing the conferring kinds.
func TestAtBuildsNothing(t *testing.T) {
	b := bigGraph(t, 2000)
	confer := b.EdgeKinds("in")
	head := b.Head().Revision
	for _, rev := range []uint64{1, head / 2, head} {
		if n := testing.AllocsPerRun(100, func() { sink = b.At(5, rev, confer) }); n != 0 {
			t.Errorf("At(%d) allocates %v times", rev, n)
		}
	}
	// What a question allocates is the same at any revision.
	ask := func(rev uint64) float64 {
		v := b.At(5, rev, confer)
		return testing.AllocsPerRun(100, func() { v.Closure(mustID("Member:t/m7")) })
	}
	if past, now := ask(head/2), ask(head); past > now+1 {
		t.Errorf("a closure allocates %v times at a past revision, %v times at the head", past, now)
	}
}

var sink View

// bigGraph is a book of business: members in groups in accounts in carriers
// under one tenant, every group moved once later on, with users that hold roles.
func bigGraph(t testing.TB, members int) *Graph {
	b := &bench{t: t, g: NewGraph(), time: 1}
	apply := func(events []Event) []FactID {
		var facts []FactID
		for part := range slices.Chunk(events, MaxBatchEvents) {
			batch := b.batch(nil, part...)
			body, err := encode(batch)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.g.Apply(Entry{batch.Revision, body}); err != nil {
				t.Fatal(err)
			}
			for i := range part {
				facts = append(facts, FactID{batch.Revision, uint32(i)})
			}
		}
		return facts
	}
	groups, accounts, carriers := members/50+2, members/500+2, members/5000+2
	events := []Event{node(Always, "Operator:o"), node(Always, "Tenant:t"), edge(Always, "Tenant:t", "Operator:o"), role("r", []string{"c"}, nil)}
	level := func(typ string, n int, above string, count int) {
		for i := range n {
			id := fmt.Sprintf("%s:t/%c%d", typ, typ[0]+'a'-'A', i)
			events = append(events, node(Always, id))
			parent := "Tenant:t"
			if above != "" {
				parent = fmt.Sprintf("%s:t/%c%d", above, above[0]+'a'-'A', i%count)
			}
			events = append(events, edge(during(0, 1000), id, parent))
		}
	}
	level("Carrier", carriers, "", 0)
	level("Account", accounts, "Carrier", carriers)
	level("Group", groups, "Account", accounts)
	level("Member", members, "Group", groups)
	for i := range 200 {
		u := fmt.Sprint("User:u", i)
		events = append(events, user(Always, u))
		for j := range 5 {
			events = append(events, assign(Always, u, "r", fmt.Sprintf("Group:t/g%d", (i*5+j)%groups)))
		}
	}
	facts := apply(events)
	var moves []Event
	for i, e := range events {
		if e.Kind == KindEdge && e.Edge.Child.Type == "Member" && i%2 == 0 {
			moves = append(moves, endAt(KindEdge, facts[i], 500), edge(during(500, 1000), e.Edge.Child.String(), "Group:t/g0"))
		}
	}
	apply(moves)
	return b.g
}

var bigOnce struct {
	sync.Once
	g *Graph
}

func benchGraph(b *testing.B) *Graph {
	bigOnce.Do(func() { bigOnce.g = bigGraph(b, 130_000) })
	return bigOnce.g
}

func benchView(b *testing.B, rev func(head uint64) uint64) {
	g := benchGraph(b)
	confer := g.EdgeKinds("in")
	at := rev(g.Head().Revision)
	b.ReportAllocs()
	b.ReportMetric(float64(g.edges.n), "edges")
	i := 0
	for b.Loop() {
		i++
		v := g.At(5, at, confer)
		if n := len(v.Closure(ID{"Member", "t", memberKeys[i%len(memberKeys)]})); n != 6 {
			b.Fatalf("closure of %d", n)
		}
		if n := len(v.Assignments(ID{"User", "", userKeys[i%len(userKeys)]})); n != 5 {
			b.Fatalf("%d assignments", n)
		}
	}
}

var memberKeys, userKeys = func() (m, u []string) {
	for i := range 1000 {
		m = append(m, fmt.Sprint("m", i*117))
		u = append(u, fmt.Sprint("u", i%200))
	}
	return m, u
}()

func BenchmarkViewHead(b *testing.B) { benchView(b, func(head uint64) uint64 { return head }) }

// BenchmarkViewPast asks as of the last revision before the members moved.
func BenchmarkViewPast(b *testing.B) {
	g := benchGraph(b)
	rev := g.Head().Revision
	for rev > 0 && len(slices.Collect(g.At(5, rev-1, EdgeKinds{}).Facts(KindAssignment))) == 1000 {
		rev--
	}
	benchView(b, func(uint64) uint64 { return rev })
}

func BenchmarkReaches(b *testing.B) {
	g := benchGraph(b)
	v := g.At(5, g.Head().Revision, g.EdgeKinds("in"))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if !v.Reaches(ID{"Member", "t", memberKeys[i%len(memberKeys)]}, ID{"Operator", "", "o"}) {
			b.Fatal("does not reach")
		}
	}
}

func BenchmarkCheckEdge(b *testing.B) {
	g := benchGraph(b)
	tip := g.Tip()
	batch := &Batch{Revision: tip.Revision + 1, Prev: tip.Hash, Time: g.LastTime(), Provenance: Provenance{Who: ana}}
	for i := range 100 {
		batch.Events = append(batch.Events, edge(during(1000, 2000), fmt.Sprint("Member:t/m", i), "Group:t/g1"))
	}
	for b.Loop() {
		if err := g.Check(batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100), "ns/event")
}

func BenchmarkApply(b *testing.B) {
	var events []Event
	events = append(events, node(Always, "Tenant:t"))
	for i := range 2000 {
		events = append(events, node(Always, fmt.Sprint("Member:t/m", i)), edge(during(0, 1000), fmt.Sprint("Member:t/m", i), "Tenant:t"))
	}
	batch := &Batch{Revision: 1, Provenance: Provenance{Who: ana}, Events: events}
	body, err := Encode(batch)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := NewGraph().Apply(Entry{1, body}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
}

func TestSortIDs(t *testing.T) {
	ids := []ID{mustID("B:x"), mustID("A:t/x"), mustID("A:a"), mustID("AB:a"), mustID("A:a")}
	got := texts(sortIDs(ids))
	if !sort.StringsAreSorted(got) || len(got) != 4 {
		t.Errorf("sorted: %v", got)
	}
}

var _ = View{} == View{} // callers compare views

// TestGrantsBy: by who wrote them, whatever became of them since.
func TestGrantsBy(t *testing.T) {
	b := newBench(t)
	b.do(user(Always, "User:u"), user(Always, "User:v"), person(Always, "Person:p", nil))
	write := func(who string, events ...Event) FactID {
		b.time++
		batch := b.batch(nil, events...)
		batch.Provenance.Who = mustID(who)
		if err := b.g.Check(batch); err != nil {
			t.Fatal(err)
		}
		b.apply(batch)
		return FactID{batch.Revision, 0}
	}
	give := func(id string) Event {
		return grant(during(0, 20), Grant{ID: id, Grantor: mustID("Person:p"), Grantee: mustID("User:u"), Subject: mustID("Person:p")})
	}
	said := func(rev uint64, who string) string {
		out := ""
		for _, f := range b.g.At(15, rev, EdgeKinds{}).GrantsBy(mustID(who)) {
			out += fmt.Sprint(f.ID, " ", f.State(15), " ")
		}
		return out
	}
	first := write("User:u", give("g-c"))
	second := write("User:u", give("g-b"))
	write("User:v", give("g-a"))
	write("User:v", endAt(KindGrant, first, 10))
	write("User:v", void(KindGrant, second))
	for _, c := range []struct {
		rev  uint64
		who  string
		want string
	}{
		{0, "User:u", ""}, {2, "User:u", "g-c active "}, {4, "User:u", "g-b active g-c active "}, {5, "User:u", "g-b active g-c revoked "},
		{6, "User:u", "g-b void g-c revoked "}, {6, "User:v", "g-a active "}, {6, "Admin:ana", ""}, {6, "User:none", ""},
	} {
		if got := said(c.rev, c.who); got != c.want {
			t.Errorf("revision %d, %s: %q, want %q", c.rev, c.who, got, c.want)
		}
	}
}
