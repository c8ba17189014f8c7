package pdp

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"slices"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp/audit"
)

func TestSurvey(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know(client)
	s.know(`grant d-1 adult-proxy User:bo for Person:pat can claim.view to 2026-11-22
		grant d-2 adult-proxy User:bo for Person:pat can claim.view to 2026-11-29
		grant d-3 adult-proxy User:bo for Person:pat can claim.view
		grant d-4 adult-proxy User:bo for Person:pat can claim.view from 2026-11-21 to 2026-11-22`)
	must(t, s.overlay(s.admin, "acme", noClaims))
	size := s.ledger.Size()
	got, err := s.p.Survey()
	must(t, err)
	// Of the family g-1 ends at the majority of 25 November; of these d-1 alone.
	if got.Ending != 2 || len(got.Unknown) > 0 || got.Overlays != 1 || got.Set != pbm().Digest() || len(got.Imports) > 0 {
		t.Errorf("survey %+v", got)
	}
	for _, name := range []string{"claims-service", "labs-service"} {
		if !slices.Contains(got.Authorities, name) {
			t.Errorf("%s is no authority of %q", name, got.Authorities)
		}
	}
	if !slices.IsSorted(got.Authorities) || !slices.Contains(got.Zones, "America/New_York") {
		t.Errorf("authorities %q, zones %q", got.Authorities, got.Zones)
	}
	if s.ledger.Size() != size {
		t.Error("the survey is on record")
	}
	// A set that asks for less leaves roles with what nothing asks for.
	s.force(pack(t, "certification"))
	got, err = s.p.Survey()
	must(t, err)
	if i := slices.IndexFunc(got.Unknown, func(u UnknownCapability) bool { return u.Role == "pharmacist" && u.Capability == "claim.view" }); i < 0 || got.Unknown[i].Assigned != 1 {
		t.Errorf("unknown %+v", got.Unknown)
	}
	_, err = s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Import: &hierarchy.Import{ID: "feed-7", Tenant: "acme", Step: hierarchy.ImportOpen}})
	must(t, err)
	got, err = s.p.Survey()
	must(t, err)
	if !slices.Equal(got.Imports, []string{"feed-7"}) {
		t.Errorf("imports %q", got.Imports)
	}
	// The same from the store alone.
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	if again, err := rep.Survey(context.Background(), got.At); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("from the store %+v, %v", again, err)
	}
	// Without a set there is nothing to look at.
	empty, err := NewReplayer(context.Background(), storetest.NewMemory(), s.keys)
	must(t, err)
	if got, err := empty.Survey(context.Background(), 1); err != nil || got.Set != "" {
		t.Errorf("an empty store: %+v %v", got, err)
	}
}

func TestAgree(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(client)
	ask := func() error {
		rep, err := NewReplayer(context.Background(), s.store, s.keys)
		must(t, err)
		last, err := rep.Agree(s.ledger.Scan)
		if err == nil && last != hierarchy.At(s.clock.now()) {
			t.Errorf("the last record is of %s", last)
		}
		return err
	}
	must(t, ask())
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	if _, err := rep.Agree(func(uint64) iter.Seq2[audit.Entry, error] { return func(func(audit.Entry, error) bool) {} }); !errors.Is(err, ErrDisagree) {
		t.Errorf("a ledger that ends before the store: %v", err)
	}
	// A change on record that the store lacks is what a crash leaves.
	s.p.store = &brokenStore{Store: s.store, fail: true}
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	tip := s.p.graph.Tip()
	b := &hierarchy.Batch{Revision: tip.Revision + 1, Prev: tip.Hash, Time: w.now, Record: s.ledger.Size(),
		Provenance: hierarchy.Provenance{Who: hierarchy.ID{Type: "Admin", Key: "ana"}}, Events: []hierarchy.Event{mustEvent(t, "node Group:acme/lost")}}
	body, err := hierarchy.Encode(b)
	must(t, err)
	_, err = recording{kind: audit.Change, world: w, head: tip, why: &b.Provenance,
		change: &clearChange{Actions: []string{"hierarchy.change"}, Events: 1, Prev: tip, Next: tip.Next(body)}}.write(context.Background(), s.ledger, s.keys)
	must(t, err)
	size := s.ledger.Size()
	if err := ask(); !errors.Is(err, ErrUnfinished) || s.ledger.Size() != size {
		t.Errorf("a change that was cut off: %v", err)
	}
	// The store of another history.
	other := open(t, pbm(), "2026-11-20T12:00:00Z")
	other.know(family)
	rep, err = NewReplayer(context.Background(), other.store, s.keys)
	must(t, err)
	if _, err := rep.Agree(s.ledger.Scan); !errors.Is(err, ErrDisagree) {
		t.Errorf("the store of another: %v", err)
	}
}
