package hierarchy

import (
	"errors"
	"fmt"
	"testing"
)

// bench is a graph that a test writes to: each commit is checked, encoded and
// applied like any revision.
type bench struct {
	t    testing.TB
	g    *Graph
	log  []Entry
	time Instant
}

func newBench(t testing.TB) *bench { return &bench{t: t, g: NewGraph(), time: 1000} }

var ana = ID{Type: "Admin", Key: "ana"}

func (b *bench) batch(imp *Import, events ...Event) *Batch {
	tip := b.g.Tip()
	return &Batch{Revision: tip.Revision + 1, Prev: tip.Hash, Time: b.time, Provenance: Provenance{Who: ana}, Import: imp, Events: events}
}

// try checks and, if it may, applies a batch.
func (b *bench) try(imp *Import, events ...Event) error {
	b.t.Helper()
	batch := b.batch(imp, events...)
	if err := b.g.Check(batch); err != nil {
		return err
	}
	b.apply(batch)
	return nil
}

func (b *bench) apply(batch *Batch) {
	b.t.Helper()
	body, err := Encode(batch)
	if err != nil {
		b.t.Fatalf("encode: %v", err)
	}
	e := Entry{batch.Revision, body}
	if err := b.g.Apply(e); err != nil {
		b.t.Fatalf("apply: %v", err)
	}
	b.log = append(b.log, e)
}

// do commits events and returns the facts they assert.
func (b *bench) do(events ...Event) []FactID {
	b.t.Helper()
	return b.in(nil, events...)
}

func (b *bench) in(imp *Import, events ...Event) []FactID {
	b.t.Helper()
	if err := b.try(imp, events...); err != nil {
		b.t.Fatalf("commit: %v", err)
	}
	facts := make([]FactID, len(events))
	for i := range events {
		facts[i] = FactID{b.g.Tip().Revision, uint32(i)}
	}
	return facts
}

// refused commits nothing and returns the refusal's text.
func (b *bench) refused(imp *Import, events ...Event) string {
	b.t.Helper()
	before := b.g.Tip()
	err := b.try(imp, events...)
	var r *Refusal
	if !errors.As(err, &r) {
		b.t.Fatalf("want a refusal, got %v", err)
	}
	if b.g.Tip() != before {
		b.t.Fatal("a refused batch changed the graph")
	}
	return r.Error()
}

func (b *bench) view(at Instant) View {
	return b.g.At(at, b.g.Head().Revision, b.g.EdgeKinds("in"))
}

func mustID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", s, err))
	}
	return id
}

func during(from, to Instant) Interval { return Interval{from, to} }

func assert(v Interval, e Event) Event { e.Op, e.Valid = Assert, v; return e }

func node(v Interval, id string) Event {
	return assert(v, Event{Kind: KindNode, Node: &Node{ID: mustID(id)}})
}

func user(v Interval, id string) Event {
	return assert(v, Event{Kind: KindNode, Node: &Node{ID: mustID(id), Principal: true}})
}

func person(v Interval, id string, majority *Instant) Event {
	return assert(v, Event{Kind: KindNode, Node: &Node{ID: mustID(id), Person: &Person{Majority: majority}}})
}

func edge(v Interval, child, parent string) Event {
	return assert(v, Event{Kind: KindEdge, Edge: &Edge{mustID(child), "in", mustID(parent)}})
}

func link(v Interval, kind LinkKind, from, to string) Event {
	return assert(v, Event{Kind: KindLink, Link: &Link{Kind: kind, From: mustID(from), To: mustID(to)}})
}

func identity(v Interval, issuer, sub, to string) Event {
	return assert(v, Event{Kind: KindLink, Link: &Link{Kind: LinkIdentity, Issuer: issuer, Sub: sub, To: mustID(to)}})
}

func role(name string, caps, includes []string) Event {
	return assert(Always, Event{Kind: KindRole, Role: &Role{name, caps, includes}})
}

func assign(v Interval, principal, role, node string) Event {
	return assert(v, Event{Kind: KindAssignment, Assignment: &Assignment{mustID(principal), role, mustID(node)}})
}

func entitle(v Interval, tenant, name string) Event {
	return assert(v, Event{Kind: KindEntitlement, Entitlement: &Entitlement{TenantID(tenant), name}})
}

func block(v Interval, person, principal string) Event {
	return assert(v, Event{Kind: KindBlock, Block: &Block{mustID(person), mustID(principal), "refusal"}})
}

// overlayOf puts a tenant's overlay in force; without a digest it removes it.
func overlayOf(tenant, digest string) Event {
	return Event{Op: Assert, Kind: KindActivation, Activation: &Activation{Digest: digest, Tenant: tenant}}
}

func setting(v Interval, tenant, name string, value any) Event {
	return assert(v, Event{Kind: KindSetting, Setting: &Setting{TenantID(tenant), name, value}})
}

func emergency(v Interval, id, principal, person, node string) Event {
	return assert(v, Event{Kind: KindEmergency, Emergency: &Emergency{ID: id, Principal: mustID(principal), Person: mustID(person), Node: mustID(node), Reason: "BTG"}})
}

func review(v Interval, emergency, by string) Event {
	return assert(v, Event{Kind: KindReview, Review: &Review{Emergency: emergency, By: mustID(by), Outcome: "justified"}})
}

func sign(v Interval, grant string, as Signer, by, principal string) Event {
	return assert(v, Event{Kind: KindSignature, Signature: &Signature{grant, Need{as, mustID(by)}, mustID(principal)}})
}

func grant(v Interval, g Grant) Event {
	if g.Type == "" {
		g.Type = "caregiver"
	}
	if g.Scope.Capabilities == nil {
		g.Scope.Capabilities = []string{"claim.view"}
	}
	return assert(v, Event{Kind: KindGrant, Grant: &g})
}

func endAt(kind Kind, f FactID, at Instant) Event {
	return Event{Op: End, Kind: kind, Fact: f, At: at}
}

func void(kind Kind, f FactID) Event { return Event{Op: Void, Kind: kind, Fact: f} }
