package pdp

import (
	"context"
	"testing"
)

// TestAnAreaThatIsLostIsListed: an answer that stays an allow, in fewer areas, is
// another one.
func TestAnAreaThatIsLostIsListed(t *testing.T) {
	ctx := context.Background()
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client + `
	User:bo holds tpa-ops at Group:zeta/g1
`)
	seq := s.asks(request("shell", "user:bo", "feature.see", "feature:claims.search"))
	must(t, s.overlay(s.admin, "acme", noSearch))
	must(t, s.ledger.Close())
	rep, err := NewReplayer(ctx, s.store, s.keys)
	must(t, err)
	now, err := rep.Now(ctx)
	must(t, err)
	e, err := s.ledger.Entry(seq)
	must(t, err)
	got, err := rep.Redecide(ctx, e, now)
	must(t, err)
	if len(got.Changes) != 1 || got.Changes[0].Change != "areas" {
		t.Errorf("an area was lost, and this is listed: %+v", got.Changes)
	}
}
