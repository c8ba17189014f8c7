package hierarchy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
)

func importWorld(t testing.TB) *bench {
	b := newBench(t)
	b.do(node(Always, "Operator:pbm"), node(Always, "Tenant:acme"), node(Always, "Tenant:bolt"), node(Always, "Plan:acme/p1"), node(Always, "Group:acme/old"))
	b.do(edge(Always, "Group:acme/old", "Plan:acme/p1"), edge(Always, "Tenant:acme", "Operator:pbm"))
	return b
}

func imp(step ImportStep) *Import { return &Import{ID: "feed", Tenant: "acme", Step: step} }

func closureText(b *bench, rev uint64, id string) string {
	return fmt.Sprint(b.g.At(10, rev, b.g.EdgeKinds("in")).Closure(mustID(id)))
}

func TestImportBecomesVisibleAtOnce(t *testing.T) {
	b := importWorld(t)
	old := FactID{2, 0}
	before := closureText(b, 2, "Group:acme/new") + closureText(b, 2, "Group:acme/old")
	b.in(imp(ImportOpen), node(Always, "Group:acme/new"), node(Always, "Group:acme/gone"))
	b.in(imp(ImportMore), edge(Always, "Group:acme/new", "Plan:acme/p1"), endAt(KindEdge, old, 5), void(KindNode, FactID{3, 1}))
	if n := len(b.g.Imports()); n != 1 {
		t.Fatalf("%d imports are open", n)
	}
	for rev := uint64(2); rev <= 4; rev++ {
		if got := closureText(b, rev, "Group:acme/new") + closureText(b, rev, "Group:acme/old"); got != before {
			t.Errorf("revision %d shows a part of the import: %s", rev, got)
		}
	}
	if b.g.Head() != b.g.Tip() || b.g.Head().Revision != 4 {
		t.Errorf("head is %v, tip %v", b.g.Head(), b.g.Tip())
	}
	// Others work on meanwhile, but not against it.
	b.do(node(Always, "Group:bolt/g"))
	if got := b.refused(nil, node(Always, "Group:acme/new")); !strings.HasPrefix(got, CodeNodeExists) {
		t.Errorf("a node that the import brings: %s", got)
	}
	if got := b.refused(nil, edge(Always, "Plan:acme/p1", "Group:acme/new")); !strings.HasPrefix(got, CodeUnknownEnd) {
		t.Errorf("an edge to a node that is not visible yet: %s", got)
	}
	if got := b.refused(nil, node(Always, "Plan:acme/p2"), edge(during(0, 9), "Group:acme/old", "Plan:acme/p1")); !strings.HasPrefix(got, CodeDuplicateFact) {
		t.Errorf("an edge that ends only with the import: %s", got)
	}
	b.in(imp(ImportClose))
	closed := b.g.Head().Revision
	if got, want := closureText(b, closed, "Group:acme/new"), "[Group:acme/new Operator:pbm Plan:acme/p1 Tenant:acme]"; got != want {
		t.Errorf("closed: %s", got)
	}
	if got, want := closureText(b, closed, "Group:acme/old"), "[Group:acme/old Operator:pbm Tenant:acme]"; got != want {
		t.Errorf("closed: %s", got)
	}
	if _, _, ok := b.view(10).Node(mustID("Group:acme/gone")); ok {
		t.Error("what the import voided itself is visible")
	}
	for rev := uint64(2); rev < closed; rev++ {
		if got := closureText(b, rev, "Group:acme/new") + closureText(b, rev, "Group:acme/old"); got != before {
			t.Errorf("revision %d changed when the import was closed: %s", rev, got)
		}
	}
	f, ok := b.view(10).Fact(FactID{4, 0})
	if !ok || f.Revision != closed || f.ID != (FactID{4, 0}) {
		t.Errorf("a fact of the import: %+v, %v; want it known from revision %d", f, ok, closed)
	}
	b.do(endAt(KindEdge, FactID{4, 0}, 50), void(KindEdge, old)) // by their first ids
	if len(b.g.Imports()) != 0 || len(b.g.pending) != 0 {
		t.Error("the import left something behind")
	}
}

func TestImportAbandoned(t *testing.T) {
	b := importWorld(t)
	before := closureText(b, 2, "Group:acme/old")
	b.in(imp(ImportOpen), node(Always, "Group:acme/new"), edge(Always, "Group:acme/new", "Plan:acme/p1"), endAt(KindEdge, FactID{2, 0}, 5))
	b.in(imp(ImportMore), endAt(KindEdge, FactID{2, 0}, 3), void(KindNode, FactID{1, 4}))
	b.in(imp(ImportAbandon))
	head := b.g.Head().Revision
	if got := closureText(b, head, "Group:acme/old"); got != before {
		t.Errorf("abandoned, but %s", got)
	}
	if _, ok := b.view(10).Fact(FactID{3, 0}); ok {
		t.Error("a fact of an abandoned import is known")
	}
	if got := b.refused(nil, void(KindNode, FactID{3, 0})); !strings.HasPrefix(got, CodeUnknownFact) {
		t.Errorf("voiding a fact of an abandoned import: %s", got)
	}
	b.do(endAt(KindEdge, FactID{2, 0}, 7)) // the old fact is free again
	b.in(imp(ImportOpen), node(Always, "Group:acme/new"), edge(Always, "Group:acme/new", "Plan:acme/p1"))
	b.in(imp(ImportClose))
	if got := closureText(b, b.g.Head().Revision, "Group:acme/new"); !strings.Contains(got, "Plan:acme/p1") {
		t.Errorf("the second try: %s", got)
	}
}

func TestTwoImports(t *testing.T) {
	b := importWorld(t)
	other := func(step ImportStep) *Import { return &Import{ID: "other", Tenant: "bolt", Step: step} }
	shared := func(step ImportStep) *Import { return &Import{ID: "shared", Step: step} }
	b.in(imp(ImportOpen), node(Always, "G:acme/a"), node(Always, "G:acme/b"), edge(Always, "G:acme/a", "G:acme/b"))
	b.in(other(ImportOpen), node(Always, "Group:bolt/g"), person(Always, "Person:x", nil))
	b.in(shared(ImportOpen))
	for _, test := range []struct {
		m     *Import
		event Event
		code  string
	}{
		{shared(ImportMore), edge(Always, "G:acme/b", "G:acme/a"), CodeUnknownEnd}, // not visible to others yet
		{imp(ImportMore), edge(Always, "G:acme/b", "G:acme/a"), CodeCycle},
		{shared(ImportMore), person(Always, "Person:x", nil), CodeNodeExists}, // closing both must not fail
		{imp(ImportMore), void(KindNode, FactID{4, 1}), CodeUnknownFact},      // the other's pending fact
		{nil, void(KindNode, FactID{3, 0}), CodeUnknownFact},
	} {
		if got := b.refused(test.m, test.event); !strings.HasPrefix(got, test.code) {
			t.Errorf("got %s; want %s", got, test.code)
		}
	}
	if got := fmt.Sprint(b.g.Imports()); got != "[{feed acme 1 false} {other bolt 1 false} {shared  1 false}]" {
		t.Errorf("open: %s", got)
	}
	b.in(other(ImportClose))
	if _, _, ok := b.view(10).Node(mustID("Person:x")); !ok {
		t.Error("the second import is closed but not visible")
	}
	if _, _, ok := b.view(10).Node(mustID("G:acme/a")); ok {
		t.Error("the first import is open but visible")
	}
	b.in(imp(ImportAbandon))
	b.in(shared(ImportClose))
}

func TestHistoryImport(t *testing.T) {
	h := func(step ImportStep) *Import { return &Import{ID: "h", Step: step, History: true} }
	run := func(last ImportStep) *bench {
		b := newBench(t)
		b.time = 9000
		b.do(node(Always, "Operator:pbm"))
		b.do(user(Always, "User:ana"), role("admin", nil, nil), assign(Always, "User:ana", "admin", "Operator:pbm"))
		b.time = 100 // the source's times
		b.in(h(ImportOpen), node(Always, "Tenant:acme"), node(Always, "Group:acme/g"), node(Always, "Plan:acme/p"))
		b.time = 200
		b.in(h(ImportMore), edge(Always, "Group:acme/g", "Plan:acme/p"), endAt(KindNode, FactID{1, 0}, 77))
		if b.g.Head().Revision != 2 || b.g.Tip().Revision != 4 || b.g.LastTime() != 200 {
			t.Errorf("open: head %d, tip %d, last time %d", b.g.Head().Revision, b.g.Tip().Revision, b.g.LastTime())
		}
		if got := closureText(b, 99, "Group:acme/g"); strings.Contains(got, "Plan") {
			t.Errorf("open, but visible: %s", got)
		}
		if got := b.refused(nil, node(Always, "Plan:acme/q")); !strings.HasPrefix(got, CodeImportOpen) {
			t.Errorf("a change beside a history import: %s", got)
		}
		b.time = 150
		if got := b.refused(h(ImportMore)); !strings.HasPrefix(got, CodeTimeReversed) {
			t.Errorf("history that goes back: %s", got)
		}
		b.time = 300
		b.in(h(ImportMore), void(KindEdge, FactID{4, 0}))
		b.in(h(last))
		b.time = 10_000
		b.do(node(Always, "Tenant:late"))
		return b
	}

	b := run(ImportClose)
	if b.g.Head().Revision != 7 {
		t.Fatalf("head is %d", b.g.Head().Revision)
	}
	for rev, want := range map[uint64]bool{2: false, 3: false, 4: true, 5: false, 6: false} {
		if got := strings.Contains(closureText(b, rev, "Group:acme/g"), "Plan"); got != want {
			t.Errorf("revision %d: the edge is known: %v; want %v", rev, got, want)
		}
	}
	for known, want := range map[Instant]uint64{Never: 2, 0: 2, 99: 2, 100: 3, 199: 3, 200: 4, 299: 4, 300: 6, 9000: 6, 9999: 6, 10_000: 7, Forever: 7} {
		if got := b.g.RevisionAt(known); got != want {
			t.Errorf("closed: RevisionAt(%d) is %d; want %d", known, got, want)
		}
	}
	if got := b.refused(h(ImportOpen)); !strings.HasPrefix(got, CodeStoreNotEmpty) {
		t.Errorf("a second history: %s", got)
	}

	b = run(ImportAbandon)
	for rev := uint64(0); rev <= 7; rev++ {
		v := b.g.At(80, rev, b.g.EdgeKinds("in"))
		if strings.Contains(fmt.Sprint(v.Closure(mustID("Group:acme/g"))), "Plan") {
			t.Errorf("abandoned, but revision %d shows it", rev)
		}
		if _, _, ok := v.Node(mustID("Operator:pbm")); ok != (rev >= 1) {
			t.Errorf("abandoned: revision %d has the operator: %v", rev, ok)
		}
	}
	for known, want := range map[Instant]uint64{0: 0, 300: 0, 8999: 0, 9000: 6, 9999: 6, 10_000: 7} {
		if got := b.g.RevisionAt(known); got != want {
			t.Errorf("abandoned: RevisionAt(%d) is %d; want %d", known, got, want)
		}
	}
	b.in(h(ImportOpen), node(Always, "Tenant:acme")) // and it may be tried again
	b.in(h(ImportClose))
}

// listStore is a store of a list of bodies.
type listStore struct {
	Store
	bodies [][]byte
	head   *Head
}

func (s *listStore) Head(context.Context) (Head, error) {
	if s.head != nil {
		return *s.head, nil
	}
	var h Head
	for _, b := range s.bodies {
		h = h.Next(b)
	}
	return h, nil
}

func (s *listStore) Read(_ context.Context, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i, b := range s.bodies[from:] {
			if !yield(Entry{from + uint64(i) + 1, b}, nil) {
				return
			}
		}
	}
}

// TestLoadInTheMiddle stops at every revision of a history with imports, loads,
// and goes on with the rest: as after a crash.
func TestLoadInTheMiddle(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(rounds(8)) {
		b, _ := randomHistory(t, newRand(3000+seed), 18)
		var bodies [][]byte
		for _, e := range b.log {
			bodies = append(bodies, e.Body)
		}
		rng := newRand(seed)
		for cut := 0; cut <= len(bodies); cut += 1 + rng.IntN(4) {
			g, err := Load(ctx, &listStore{bodies: bodies[:cut]})
			if err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, cut, err)
			}
			for _, e := range b.log[cut:] {
				if err := g.Apply(e); err != nil {
					t.Fatalf("seed %d, cut at %d: going on: %v", seed, cut, err)
				}
			}
			if g.Head() != b.g.Head() || g.Tip() != b.g.Tip() {
				t.Fatalf("seed %d, cut at %d: heads differ", seed, cut)
			}
			for range 20 {
				q, at := ask(rng), Instant(rng.IntN(worldEnd))
				rev := uint64(rng.IntN(int(g.Head().Revision) + 1))
				if got, want := fmt.Sprint(q.view(g.At(at, rev, g.EdgeKinds("in")))), fmt.Sprint(q.view(b.g.At(at, rev, b.g.EdgeKinds("in")))); got != want {
					t.Fatalf("seed %d, cut at %d: %s:\n got %s\nwant %s", seed, cut, q.name, got, want)
				}
			}
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	ctx := context.Background()
	b := newBench(t)
	b.do(node(Always, "Tenant:acme"))
	b.do(node(Always, "Plan:acme/p"))
	b.do(node(Always, "Plan:acme/q"))
	bodies := [][]byte{b.log[0].Body, b.log[1].Body, b.log[2].Body}
	encode := func(change func(*Batch)) []byte {
		batch, err := Decode(bodies[1])
		if err != nil {
			t.Fatal(err)
		}
		change(batch)
		body, err := Encode(batch)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	head := b.g.Tip()
	head.Hash[5] ^= 1
	for _, test := range []struct {
		name   string
		store  *listStore
		revise string
		is     error
	}{
		{"another body", &listStore{bodies: [][]byte{bodies[0], encode(func(b *Batch) { b.Time++ }), bodies[2]}}, "revision 3", ErrCorrupt},
		{"another number", &listStore{bodies: [][]byte{bodies[0], encode(func(b *Batch) { b.Revision = 3 })}}, "revision 2", ErrCorrupt},
		{"another Prev", &listStore{bodies: [][]byte{bodies[0], encode(func(b *Batch) { b.Prev[0] ^= 1 })}}, "revision 2", ErrCorrupt},
		{"no JSON", &listStore{bodies: [][]byte{bodies[0], []byte("x")}}, "revision 2", nil},
		{"an end of nothing", &listStore{bodies: [][]byte{bodies[0], encode(func(b *Batch) { b.Events = []Event{void(KindEdge, FactID{1, 0})} })}}, "revision 2: unknown_fact", nil},
		{"last one missing", &listStore{bodies: bodies[:2], head: &[]Head{b.g.Tip()}[0]}, "revision 3", ErrCorrupt},
		{"another head", &listStore{bodies: bodies, head: &head}, "revision 3", ErrCorrupt},
	} {
		g, err := Load(ctx, test.store)
		if err == nil || g != nil || !strings.Contains(err.Error(), test.revise) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %v; want an error with %q", test.name, err, test.revise)
		}
	}
	g, err := Load(ctx, &listStore{bodies: bodies})
	if err != nil || g.Head() != b.g.Head() {
		t.Errorf("the whole store: %v", err)
	}
	if err := g.Apply(b.log[2]); err == nil {
		t.Error("a revision is applied twice")
	}
	if err := g.Apply(Entry{5, b.log[2].Body}); err == nil {
		t.Error("a revision is left out")
	}
	if g.Head() != b.g.Head() {
		t.Error("a refused entry changed the graph")
	}
}

// TestApplyAllOrNothing: a batch whose last event cannot be applied leaves
// nothing of its first.
func TestApplyAllOrNothing(t *testing.T) {
	b := newBench(t)
	b.do(node(Always, "Tenant:acme"))
	batch := b.batch(nil, void(KindNode, FactID{1, 0}), node(Always, "Plan:acme/p"), void(KindEdge, FactID{1, 7}))
	body, err := Encode(batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.g.Apply(Entry{2, body}); err == nil {
		t.Fatal("applied")
	}
	if b.g.Tip().Revision != 1 {
		t.Error("the tip moved")
	}
	v := b.view(0)
	if nodes := slices.Collect(v.Facts(KindNode)); len(nodes) != 1 || nodes[0].ID != (FactID{1, 0}) {
		t.Errorf("nodes: %v", nodes)
	}
	b.do(node(Always, "Plan:acme/p"))
}

// TestImportSeesItself: within an import, what it ended or voided is over, in
// later batches too; for others it is neither over nor to be built on.
func TestImportSeesItself(t *testing.T) {
	b := importWorld(t)
	plan, old := FactID{1, 3}, FactID{2, 0}
	b.in(imp(ImportOpen), endAt(KindNode, plan, 50), endAt(KindEdge, old, 20))
	b.in(imp(ImportMore), edge(during(20, 50), "Group:acme/old", "Plan:acme/p1")) // no duplicate
	if got := b.refused(imp(ImportMore), edge(during(20, 51), "Group:acme/old", "Plan:acme/p1")); !strings.HasPrefix(got, CodeUnknownEnd) {
		t.Errorf("an edge to a node that the import ended: %s", got)
	}
	b.in(imp(ImportMore), endAt(KindEdge, old, 10), void(KindEdge, FactID{4, 0}), edge(during(10, 20), "Group:acme/old", "Plan:acme/p1"))
	// For others: the plan exists, but what needs it must fit both ways.
	b.do(user(Always, "User:u"), role("r", nil, nil))
	if got := b.refused(nil, assign(during(0, 51), "User:u", "r", "Plan:acme/p1")); !strings.HasPrefix(got, CodeUnknownEnd) {
		t.Errorf("an assignment that outlives what the import leaves of its node: %s", got)
	}
	if got := b.refused(nil, node(during(60, 70), "Plan:acme/p1")); !strings.HasPrefix(got, CodeNodeExists) {
		t.Errorf("a node beside one that is not ended yet: %s", got)
	}
	b.do(assign(during(0, 50), "User:u", "r", "Plan:acme/p1"))
	b.in(imp(ImportClose))
	for at, want := range map[Instant]bool{9: true, 10: true, 19: true, 20: false, 49: false} {
		if got := b.view(at).Reaches(mustID("Group:acme/old"), mustID("Plan:acme/p1")); got != want {
			t.Errorf("at %d the group reaches the plan: %v; want %v", at, got, want)
		}
	}
	if n := len(b.view(49).Assignments(mustID("User:u"))); n != 1 {
		t.Errorf("%d assignments after closing", n)
	}
	b.do(endAt(KindEdge, old, 5)) // the fact goes on by its first id
}

// TestImportVoidsOnce: what an import voided is gone for its later batches.
func TestImportVoidsOnce(t *testing.T) {
	b := importWorld(t)
	old := FactID{2, 0}
	b.in(imp(ImportOpen), endAt(KindEdge, old, 20))
	b.in(imp(ImportMore), void(KindEdge, old))
	for _, e := range []Event{void(KindEdge, old), endAt(KindEdge, old, 10)} {
		if got := b.refused(imp(ImportMore), e); !strings.HasPrefix(got, CodeUnknownFact) {
			t.Errorf("voided by the import: %s", got)
		}
	}
	b.in(imp(ImportClose))
	if got := b.refused(nil, void(KindEdge, old)); !strings.HasPrefix(got, CodeUnknownFact) {
		t.Errorf("voided: %s", got)
	}
}

// TestImportConflicts: what an open import asserts is in the way of others.
func TestImportConflicts(t *testing.T) {
	b := importWorld(t)
	b.do(node(Always, "G:acme/a"), node(Always, "G:acme/b"), user(Always, "User:u"), user(Always, "User:v"), person(Always, "Person:p", nil), role("r", nil, nil))
	b.in(imp(ImportOpen), edge(Always, "G:acme/a", "G:acme/b"), identity(Always, "i", "s", "User:u"), entitle(Always, "acme", "x"),
		grant(Always, Grant{ID: "g", Grantor: mustID("Person:p"), Grantee: mustID("User:u"), Subject: mustID("Person:p")}))
	for _, test := range []struct {
		event Event
		code  string
	}{
		{edge(Always, "G:acme/b", "G:acme/a"), CodeCycle},
		{edge(Always, "G:acme/a", "G:acme/b"), CodeDuplicateFact},
		{identity(Always, "i", "s", "User:v"), CodeDuplicateFact},
		{entitle(Always, "acme", "x"), CodeDuplicateFact},
		{grant(Always, Grant{ID: "g", Grantor: mustID("Person:p"), Grantee: mustID("User:v"), Subject: mustID("Person:p")}), CodeGrantExists},
	} {
		if got := b.refused(nil, test.event); !strings.HasPrefix(got, test.code) {
			t.Errorf("got %s; want %s", got, test.code)
		}
	}
	var many []Event
	for i := range 15 {
		many = append(many, grant(Always, Grant{ID: fmt.Sprint("n", i), Grantor: mustID("Person:p"), Grantee: mustID("User:u"), Subject: mustID("Person:p")}))
	}
	b.do(many...)
	many[0].Grant.ID = "last"
	if got := b.refused(nil, many[0]); !strings.HasPrefix(got, CodeGrantLimit) {
		t.Errorf("a seventeenth, of which an import holds one: %s", got)
	}
	b.in(imp(ImportClose))
}

// TestGrantIDs: an id is used once, even if the grant was voided long ago, but
// one of an abandoned import was not used.
func TestGrantIDs(t *testing.T) {
	b := importWorld(t)
	b.do(user(Always, "User:u"), person(Always, "Person:p", nil))
	one := func(id string) Event {
		return grant(Always, Grant{ID: id, Grantor: mustID("Person:p"), Grantee: mustID("User:u"), Subject: mustID("Person:p")})
	}
	f := b.do(one("a"))
	b.do(void(KindGrant, f[0]))
	if got := b.refused(nil, one("a")); !strings.HasPrefix(got, CodeGrantExists) {
		t.Errorf("the id of a voided grant: %s", got)
	}
	b.in(imp(ImportOpen), one("b"))
	b.in(imp(ImportAbandon))
	b.do(one("b"))
}

// TestApplyUnchecked: Apply trusts the store about the rules, but no view hangs
// or confers on what breaks them.
func TestApplyUnchecked(t *testing.T) {
	b := newBench(t)
	one := func(id, parent string) Event {
		return grant(Always, Grant{ID: id, Parent: parent, Grantor: mustID("Person:p"), Grantee: mustID("User:u"), Subject: mustID("Person:p")})
	}
	b.apply(b.batch(nil, user(Always, "User:u"), one("a", "b"), one("b", "a"), one("c", "c"), one("d", "none"),
		role("x", []string{"c"}, []string{"y"}), role("y", nil, []string{"x"}),
		node(Always, "G:t/a"), node(Always, "G:t/b"), edge(Always, "G:t/a", "G:t/b"), edge(Always, "G:t/b", "G:t/a"), edge(Always, "G:t/a", "G:t/a")))
	v := b.view(0)
	if n := len(v.Grants(mustID("User:u"))); n != 0 {
		t.Errorf("%d grants without a root are live", n)
	}
	if f, ok := v.Grant("a"); !ok || !f.Voided || !(f.Effective == Interval{}) {
		t.Errorf("a grant without a root: %+v", f)
	}
	if got := fmt.Sprint(v.Closure(mustID("G:t/a")), v.Capabilities("x"), v.Reaches(mustID("G:t/a"), mustID("G:t/c"))); got != "[G:t/a G:t/b Tenant:t] [c] false" {
		t.Errorf("a cycle: %s", got)
	}
	if _, ok := v.Path(mustID("G:t/a"), mustID("G:t/b")); !ok {
		t.Error("no path in a cycle")
	}
	if got := b.refused(nil, one("e", "a")); got == "" {
		t.Error("a grant made from a broken chain")
	}
}

// TestAfterAbandonedHistory: facts from before it can be changed again, and
// times that go back do not confuse RevisionAt.
func TestAfterAbandonedHistory(t *testing.T) {
	h := func(step ImportStep) *Import { return &Import{ID: "h", Step: step, History: true} }
	b := newBench(t)
	b.time = 9000
	f := b.do(node(Always, "Operator:o"))
	b.time = 100
	b.in(h(ImportOpen), endAt(KindNode, f[0], 70), node(Always, "Tenant:t"))
	b.in(h(ImportMore), endAt(KindNode, f[0], 60), void(KindNode, FactID{2, 1}))
	b.in(h(ImportAbandon))
	b.time = 200
	b.do(endAt(KindNode, f[0], 500))
	for at, want := range map[Instant]bool{60: true, 70: true, 499: true, 500: false} {
		if _, _, ok := b.view(at).Node(mustID("Operator:o")); ok != want {
			t.Errorf("at %d the operator exists: %v; want %v", at, ok, want)
		}
	}
	for b.g.Tip().Revision < 20 {
		b.time++
		b.do()
	}
	for known, want := range map[Instant]uint64{100: 0, 205: 0, 8999: 0, 9000: 20} {
		if got := b.g.RevisionAt(known); got != want {
			t.Errorf("RevisionAt(%d) is %d; want %d", known, got, want)
		}
	}
}

// TestImportConflictsOfCases: settings, signatures and reviews of an open import
// are in the way of others, and nobody builds on what it brings.
func TestImportConflictsOfCases(t *testing.T) {
	b := importWorld(t)
	b.do(node(Always, "Coverage:acme/c"), user(Always, "User:u"), user(Always, "User:v"), person(Always, "Person:p", nil), link(Always, LinkOwns, "Person:p", "Coverage:acme/c"))
	broken := func(id string) Event { return emergency(during(10, 20), id, "User:u", "Person:p", "Coverage:acme/c") }
	needs := func(id string) Event {
		return grant(Always, Grant{ID: id, Grantor: mustID("Person:p"), Grantee: mustID("User:u"), Subject: mustID("Person:p"), Needs: []Need{{SignerSubject, mustID("Person:p")}}})
	}
	signed := func(id string) Event { return sign(Always, id, SignerSubject, "Person:p", "User:v") }
	b.do(broken("e"), needs("g"))
	m := func(step ImportStep) *Import { return &Import{ID: "all", Step: step} }
	b.in(m(ImportOpen), setting(Always, "acme", "x", true), signed("g"), review(during(20, Forever), "e", "User:v"), needs("h"))
	for name, test := range map[string]struct {
		event Event
		code  string
	}{
		"a setting":                        {setting(during(5, 6), "acme", "x", false), CodeDuplicateFact},
		"a signature":                      {signed("g"), CodeDuplicateFact},
		"a signature on its grant":         {signed("h"), CodeUnknownEnd},
		"a review":                         {review(during(30, Forever), "e", "User:v"), CodeDuplicateFact},
		"an emergency on its review":       {broken("f"), CodeEmergencyOpen},
		"an emergency with a known id too": {broken("e"), CodeDuplicateFact},
	} {
		if got := b.refused(nil, test.event); !strings.HasPrefix(got, test.code) {
			t.Errorf("%s: %s; want %s", name, got, test.code)
		}
	}
	if n := len(b.view(30).Grants(mustID("User:u"))); n != 0 {
		t.Errorf("%d grants are live by a signature that is not visible", n)
	}
	b.in(m(ImportMore), signed("h"), broken("f")) // it builds on itself
	if got := b.refused(nil, broken("f")); !strings.HasPrefix(got, CodeDuplicateFact) {
		t.Errorf("the id of an emergency of an open import: %s", got)
	}
	b.in(m(ImportClose))
	if n := len(b.view(30).Grants(mustID("User:u"))); n != 2 {
		t.Errorf("closed: %d grants are live", n)
	}
	if n := len(b.view(30).Emergencies(mustID("User:u"))); n != 2 {
		t.Errorf("closed: %d emergencies", n)
	}
	if x, _, ok := b.view(0).Setting(TenantID("acme"), "x"); !ok || x != true {
		t.Errorf("closed: the setting is %v, %v", x, ok)
	}
}

// TestImportOfAHistoryWithEmergencies: an emergency starts no later than the
// source says that it was written.
func TestImportOfAHistoryWithEmergencies(t *testing.T) {
	b := newBench(t)
	b.time = 900
	b.do(node(Always, "Tenant:acme"), node(Always, "Coverage:acme/c"), user(Always, "User:u"), person(Always, "Person:p", nil))
	h := func(step ImportStep) *Import { return &Import{ID: "h", Step: step, History: true} }
	b.time = 100
	b.in(h(ImportOpen), link(Always, LinkOwns, "Person:p", "Coverage:acme/c"))
	if got := b.refused(h(ImportMore), emergency(during(101, 110), "e", "User:u", "Person:p", "Coverage:acme/c")); !strings.HasPrefix(got, CodeEmergencyFuture) {
		t.Errorf("later than the source's time: %s", got)
	}
	b.in(h(ImportMore), emergency(during(100, 110), "e", "User:u", "Person:p", "Coverage:acme/c"))
	b.time = 950
	b.in(h(ImportClose))
	for rev, want := range []int{0, 0, 0, 1, 1} {
		if n := len(b.g.At(105, uint64(rev), EdgeKinds{}).Emergencies(mustID("User:u"))); n != want {
			t.Errorf("revision %d knows %d emergencies; want %d", rev, n, want)
		}
	}
}
