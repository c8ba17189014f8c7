package pdp

import (
	"testing"

	"github.com/ward-authz/ward/hierarchy"
)

// TestFindListsNobodyElse: of a batch about several people, a search for one
// lists that one's answers only.
func TestFindListsNobodyElse(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client + `
	person Person:quinn
	node Coverage:acme/cov2
	Coverage:acme/cov2 enrolledIn Group:acme/g2
	Person:quinn owns Coverage:acme/cov2
`)
	a := claimOf("olga", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")...)
	b := claimOf("olga", claim("Coverage:acme/cov2", "Pharmacy:p1", "2026-08-01", "routine")...)
	a.Resource.ID, b.Resource.ID = "pats", "quinns"
	s.asks(a, a, a, a, b)
	must(t, s.ledger.Close())
	f, n := NewFinder(s.keys, s.p.graph), 0
	for l, err := range f.Find(s.ledger.Scan(0), Seek{Person: hierarchy.ID{Type: "Person", Key: "quinn"}}) {
		must(t, err)
		must(t, f.Open(&l))
		for _, it := range l.Items {
			if n++; it.Resource != "claim:quinns" {
				t.Errorf("a search for one lists %s", it.Resource)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d answers, want 1", n)
	}
}

// TestATakenKeyHidesNothing: a search for a resource lists what it cannot open.
func TestATakenKeyHidesNothing(t *testing.T) {
	s, asked := shredSite(t)
	s.tampered = true // what has no key does not replay
	seek := Seek{Resource: "claim:canary-claim"}
	found := func() (out []Line) {
		f := NewFinder(s.keys, s.p.graph)
		for l, err := range f.Find(s.ledger.Scan(0), seek) {
			must(t, err)
			must(t, f.Open(&l))
			out = append(out, l)
		}
		return out
	}
	if got := found(); len(got) != 1 || got[0].Record != asked.Record || got[0].Closed {
		t.Fatalf("%+v", got)
	}
	must(t, s.keys.Destroy(s.keys.Hash("tenant", "", "acme"), shredDay))
	if got := found(); len(got) != 1 || got[0].Record != asked.Record || !got[0].Closed {
		t.Errorf("without its key: %+v", got)
	}
	seek.Resource = "lab:canary-claim"
	if got := found(); len(got) != 0 {
		t.Errorf("of another type: %+v", got)
	}
}
