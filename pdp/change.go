package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Change is a set of events that somebody asks to make, as one revision.
type Change struct {
	// Actor is who asks: a verified subject of the built-in type "admin".
	Actor authz.Subject
	// Caller is the program they use.
	Caller authz.Caller
	// Events is what to change, at most hierarchy.MaxBatchEvents. A Person's
	// majority is computed here.
	Events []hierarchy.Event
	// Why and Ticket are kept with the change.
	Why, Ticket string
	// Feed names the source of an import.
	Feed string
	// Import ties the change to an import.
	Import *hierarchy.Import
	// At is the source-asserted transaction time of a history import's batch.
	At hierarchy.Instant
}

// Changed says what a change became.
type Changed struct {
	Record   string // the ledger's record
	Revision uint64
	Facts    []hierarchy.FactID // of the events that assert, in order
}

// Built-in names of Ward's own policies.
const (
	// AdminType is the catalogue's subject type of those who administer Ward.
	AdminType = "admin"
	// ObjectType is the catalogue's resource type of Ward's own objects.
	ObjectType = "object"
	// UnixIssuer is the issuer of identities that are user ids of this
	// machine, as a Unix socket's peer credentials show them.
	UnixIssuer = "unix"
)

// Change makes a change, or refuses it: with an *[authz.Error] when Ward's own
// policies deny it (Kind Refused, and the decision is recorded), with a
// *[hierarchy.Refusal] when the facts do not admit it. Nothing is half-applied.
//
// It returns nil only when the change is durable, published, and every answer
// computed before it has left its door or become an outage. When ctx ends
// before that, the change stands but is not acknowledged.
func (p *PDP) Change(ctx context.Context, c Change) (Changed, error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	cur := p.current.Load()
	w, err := p.world(cur)
	if err != nil {
		return Changed{}, err
	}
	events, err := p.complete(w, c.Events)
	if err != nil {
		return Changed{}, err
	}
	questions := p.questions(w, c, events)
	rec := recording{kind: audit.Change, world: w, head: cur.head}
	right := map[string]bool{}
	var denied authz.Code
	for _, a := range questions {
		j := w.judge(a)
		rec.items = append(rec.items, item{a, j})
		if !j.verdict.Effect {
			denied = j.verdict.Code
		}
		for _, r := range j.verdict.Reasons {
			right[r] = true
		}
	}
	if denied != "" {
		rec.kind = audit.Decision
		seq, err := p.append(ctx, &rec)
		if err != nil {
			return Changed{}, err
		}
		return Changed{}, &authz.Error{Kind: authz.Refused, Code: denied,
			Text: "ward's own policies do not permit this change (record " + audit.ID(seq) + ")"}
	}
	who := rec.items[0].principal
	batch := &hierarchy.Batch{
		Time: p.timeOf(c, w.now), Import: c.Import, Events: events,
		Provenance: hierarchy.Provenance{Who: who, Right: strings.Join(sorted(right), " "), Why: c.Why, Ticket: c.Ticket,
			Feed: c.Feed, SourceAsserted: c.Import != nil && c.Import.History && c.At != 0},
	}
	return p.commit(ctx, &rec, batch)
}

// timeOf returns the transaction time of a change.
func (p *PDP) timeOf(c Change, now hierarchy.Instant) hierarchy.Instant {
	if c.Import != nil && c.Import.History && c.At != 0 {
		return c.At
	}
	return now
}

// commit checks, records, stores and publishes a batch. The caller holds
// p.changing.
func (p *PDP) commit(ctx context.Context, rec *recording, b *hierarchy.Batch) (Changed, error) {
	tip := p.graph.Tip()
	b.Revision, b.Prev, b.Record = tip.Revision+1, tip.Hash, p.ledger.Size()
	if err := p.graph.Check(b); err != nil {
		return Changed{}, err
	}
	body, err := hierarchy.Encode(b)
	if err != nil {
		return Changed{}, err
	}
	next := tip.Next(body)
	change := &clearChange{Events: len(b.Events), Prev: tip, Next: next, Right: b.Provenance.Right,
		Who: p.keys.Hash("principal", "", b.Provenance.Who.String())}
	for _, e := range b.Events {
		change.Actions = append(change.Actions, actionOf(e.Kind))
	}
	if b.Import != nil {
		change.Actions, change.Import = append(change.Actions, "hierarchy.import"), b.Import.ID
	}
	change.Actions = unique(change.Actions)
	seq, err := p.recordChange(ctx, rec, change, b.Provenance)
	if err != nil {
		return Changed{}, err
	}
	// From here on the change is on record: it must reach the store, or be
	// closed by an abandoned record, before anything else is decided.
	head, err := p.store.Append(context.WithoutCancel(ctx), tip.Revision, body)
	if err != nil {
		head, herr := p.store.Head(context.WithoutCancel(ctx))
		switch {
		case herr == nil && head == next: // stored after all
		case herr == nil && head == tip:
			if aerr := p.abandon(ctx, rec.world, seq, change); aerr != nil {
				return Changed{}, p.fail(aerr)
			}
			return Changed{}, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the store did not take the change; nothing was changed", Err: err}
		default:
			return Changed{}, p.fail(&authz.Error{Kind: authz.Outage, Code: authz.StoreFailed,
				Text: "the store failed in the middle of a change: restart", Err: errors.Join(err, herr)})
		}
	} else if head != next {
		return Changed{}, p.fail(&authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the store answers with another head: restart"})
	}
	if err := p.graph.Apply(hierarchy.Entry{Revision: next.Revision, Body: body}); err != nil {
		return Changed{}, p.fail(&authz.Error{Kind: authz.Outage, Code: authz.Frozen, Text: "a stored change cannot be applied", Err: err})
	}
	if err := p.publish(context.WithoutCancel(ctx)); err != nil {
		return Changed{}, p.fail(&authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the policy set cannot be read", Err: err})
	}
	out := Changed{Record: audit.ID(seq), Revision: next.Revision}
	for i, e := range b.Events {
		if e.Op == hierarchy.Assert {
			out.Facts = append(out.Facts, hierarchy.FactID{Revision: next.Revision, Index: uint32(i)})
		}
	}
	if err := p.flights.fence(ctx, next.Revision); err != nil {
		return out, &authz.Error{Kind: authz.Outage, Code: authz.Busy, Text: "the change is made; earlier answers may still be on their way", Err: err}
	}
	return out, nil
}

// recordChange appends the change record.
func (p *PDP) recordChange(ctx context.Context, rec *recording, change *clearChange, why hierarchy.Provenance) (uint64, error) {
	c := clearPart{Semantics: Semantics, Revision: rec.head.Revision, Head: rec.head.Hash, Now: int64(rec.world.now), Change: change}
	var sealed []sealedItem
	if rec.world.set != nil {
		c.Set = rec.world.set.Digest()
	}
	for i := range rec.items {
		it := &rec.items[i]
		c.Caller = it.asked.Caller
		c.Items = append(c.Items, rec.clearItem(p.keys, &item{it.asked, withTenant(it.judgement, "")}, 0))
		sealed = append(sealed, sealedItem{Index: i, Asked: it.asked, Verdict: it.verdict, Grants: make([]string, len(it.attempts))})
	}
	if len(sealed) == 0 {
		sealed = []sealedItem{{}}
	}
	sealed[0].Why = &changeWhy{why}
	clear, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	plain, err := json.Marshal(sealed)
	if err != nil {
		return 0, err
	}
	seq, err := p.ledger.Append(ctx, audit.Record{Kind: audit.Change, Time: int64(rec.world.now), Clear: clear, Parts: []audit.Part{{Plain: plain}}})
	if err != nil {
		if errors.Is(err, audit.ErrTooLarge) {
			return 0, &authz.Error{Kind: authz.Refused, Code: authz.TooLarge, Text: "the change concerns too many places: split it"}
		}
		return 0, &authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed, Text: "the change could not be recorded; nothing was changed", Err: err}
	}
	return seq, nil
}

func withTenant(j judgement, tenant string) judgement { j.tenant = tenant; return j }

// abandon records that a recorded change never reached the store.
func (p *PDP) abandon(ctx context.Context, w world, seq uint64, change *clearChange) *authz.Error {
	c := clearPart{Semantics: Semantics, Revision: change.Prev.Revision, Head: change.Prev.Hash, Now: int64(w.now),
		Change: &clearChange{Actions: change.Actions, Prev: change.Prev, Next: change.Next, Closes: audit.ID(seq)}}
	clear, err := json.Marshal(c)
	if err == nil {
		_, err = p.ledger.Append(context.WithoutCancel(ctx), audit.Record{Kind: audit.Abandoned, Time: int64(w.now), Clear: clear})
	}
	if err != nil {
		return &authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed, Text: "the end of a change could not be recorded", Err: err}
	}
	return nil
}

// ErrDisagree: the store and the ledger are not those of one history.
var ErrDisagree = errors.New("pdp: the store and the ledger do not belong together")

// reconcile compares the store with the ledger at start. The one disagreement
// that a crash explains, a last change record whose batch the store lacks, is
// closed by an abandoned record.
func (p *PDP) reconcile(ctx context.Context) error {
	tip := p.graph.Tip()
	from := uint64(0)
	if b, ok := p.graph.Batch(tip.Revision); ok {
		if from = b.Record; p.ledger.Size() <= from {
			return fmt.Errorf("%w: the store knows ledger record %s, the ledger ends before it", ErrDisagree, audit.ID(from))
		}
	}
	found := tip.Revision == 0
	var open *clearChange
	var openSeq uint64
	var last int64
	for e, err := range p.ledger.Scan(from) {
		if err != nil {
			return err
		}
		last = e.Time
		if e.Kind != audit.Change && e.Kind != audit.Abandoned {
			continue
		}
		var c clearPart
		if err := json.Unmarshal(e.Clear, &c); err != nil || c.Change == nil {
			return fmt.Errorf("%w: record %s is no change record", ErrDisagree, audit.ID(e.Seq))
		}
		switch {
		case e.Kind == audit.Abandoned:
			if open == nil || c.Change.Closes != audit.ID(openSeq) {
				return fmt.Errorf("%w: record %s closes no open change", ErrDisagree, audit.ID(e.Seq))
			}
			open = nil
		case open != nil:
			return fmt.Errorf("%w: record %s follows a change that the store lacks", ErrDisagree, audit.ID(e.Seq))
		case c.Change.Next == tip:
			found = true
		case c.Change.Prev == tip:
			open, openSeq = c.Change, e.Seq
		default:
			return fmt.Errorf("%w: record %s is about revision %d, the store ends at %d", ErrDisagree, audit.ID(e.Seq), c.Change.Next.Revision, tip.Revision)
		}
	}
	if !found {
		return fmt.Errorf("%w: revision %d of the store has no change record", ErrDisagree, tip.Revision)
	}
	if open != nil {
		if err := p.abandon(ctx, world{now: hierarchy.Instant(last)}, openSeq, open); err != nil {
			return err
		}
	}
	return nil
}

// complete fills in what the decision point itself computes: the majority of
// persons with a birth date.
func (p *PDP) complete(w world, events []hierarchy.Event) ([]hierarchy.Event, error) {
	if len(events) > hierarchy.MaxBatchEvents {
		return nil, &hierarchy.Refusal{Code: hierarchy.CodeBatchTooLarge, Text: fmt.Sprintf("a change holds at most %d events", hierarchy.MaxBatchEvents)}
	}
	out := slices.Clone(events)
	for i := range out {
		if err := p.check(w, &out[i]); err != nil {
			err.Index, err.Row = i, out[i].Row
			return nil, err
		}
	}
	return out, nil
}

// check holds an asserted event against the catalogue, which the facts
// themselves do not know, and computes a person's majority.
func (p *PDP) check(w world, e *hierarchy.Event) *hierarchy.Refusal {
	if e.Op != hierarchy.Assert {
		return nil
	}
	cat := w.set.Catalogue()
	switch {
	case e.Node != nil:
		n := *e.Node
		if n.Person != nil {
			person := *n.Person
			person.Majority, person.TZData = nil, ""
			if person.BirthDate != "" {
				law, ok := lawOf(cat, person.Jurisdiction)
				if !ok {
					return &hierarchy.Refusal{Code: "law_unknown", Text: "the pack has no age of majority for this jurisdiction"}
				}
				zone, err := hierarchy.Zone(law.Zone)
				if err != nil {
					return &hierarchy.Refusal{Code: "law_unknown", Text: err.Error()}
				}
				at, err := hierarchy.Majority(person.BirthDate, law.Majority, zone)
				if err != nil {
					return &hierarchy.Refusal{Code: hierarchy.CodeEventInvalid, Text: err.Error()}
				}
				person.Majority, person.TZData = &at, hierarchy.TZData
			}
			n.Person = &person
			e.Node = &n
			return nil
		}
		return checkNode(cat, &n)
	case e.Edge != nil:
		return checkEdge(cat, e.Edge)
	case e.Grant != nil:
		gt := cat.GrantTypes[e.Grant.Type]
		if gt == nil {
			return &hierarchy.Refusal{Code: "grant_type_unknown", Text: "the pack has no grant type of this name"}
		}
		if gt.EndsAtMajority && !e.Grant.EndsAtMajority {
			g := *e.Grant
			g.EndsAtMajority = true
			e.Grant = &g
		}
	}
	return nil
}

// checkNode holds a node against the pack's node and principal types.
func checkNode(cat *policies.Catalogue, n *hierarchy.Node) *hierarchy.Refusal {
	attrs := map[string]*policies.Attribute{}
	if n.Principal {
		known := false
		for _, pt := range cat.Principals {
			if baseName(pt.Entity) == n.ID.Type {
				known, attrs = true, pt.Attributes
			}
		}
		if !known {
			return &hierarchy.Refusal{Code: "node_type_unknown", Text: "the pack has no principal type " + n.ID.Type}
		}
	} else {
		switch n.ID.Type {
		case hierarchy.OperatorType, hierarchy.TenantType, hierarchy.NetworkType, hierarchy.PersonType:
		default:
			nt := cat.Nodes[n.ID.Type]
			if nt == nil {
				return &hierarchy.Refusal{Code: "node_type_unknown", Text: "the pack has no node type " + n.ID.Type}
			}
			if nt.Owned != (n.ID.Tenant != "") {
				return &hierarchy.Refusal{Code: hierarchy.CodeTenancyViolation, Text: n.ID.Type + " nodes " +
					map[bool]string{true: "belong to a tenant: write Type:tenant/key", false: "are shared: write Type:key"}[nt.Owned]}
			}
			attrs = nt.Attributes
		}
	}
	for name, v := range n.Attrs {
		a := attrs[name]
		if a == nil || a.From != policies.FromFact {
			if n.Principal || cat.Nodes[n.ID.Type] != nil && a != nil {
				return &hierarchy.Refusal{Code: "attribute_unknown", Text: fmt.Sprintf("%s nodes have no fact attribute %q", n.ID.Type, name)}
			}
			continue // kept for people; policies never read it
		}
		if _, ok := attribute(a, v); !ok {
			return &hierarchy.Refusal{Code: "attribute_invalid", Text: fmt.Sprintf("attribute %q of %s nodes must be %s", name, n.ID.Type, a.Type)}
		}
	}
	return nil
}

// checkEdge holds an edge against the pack's edge kinds.
func checkEdge(cat *policies.Catalogue, e *hierarchy.Edge) *hierarchy.Refusal {
	kind := cat.Edges[e.Kind]
	if kind == nil {
		return &hierarchy.Refusal{Code: "edge_kind_unknown", Text: fmt.Sprintf("the pack has no edge kind %q", e.Kind)}
	}
	if len(kind.From) > 0 && !slices.Contains(kind.From, e.Child.Type) || len(kind.To) > 0 && !slices.Contains(kind.To, e.Parent.Type) {
		return &hierarchy.Refusal{Code: "edge_kind_unknown", Text: fmt.Sprintf("an edge %s does not lead from %s to %s", e.Kind, e.Child.Type, e.Parent.Type)}
	}
	return nil
}

// lawOf returns the law row of a jurisdiction: its own, or that of the country
// it is part of ("US-OH" falls back to "US").
func lawOf(cat *policies.Catalogue, jurisdiction string) (policies.Law, bool) {
	for {
		for _, l := range cat.Law {
			if l.Jurisdiction == jurisdiction {
				return l, true
			}
		}
		i := strings.LastIndexByte(jurisdiction, '-')
		if i < 0 {
			return policies.Law{}, false
		}
		jurisdiction = jurisdiction[:i]
	}
}

// actionOf returns the built-in action that a change of this kind is.
func actionOf(k hierarchy.Kind) string {
	switch k {
	case hierarchy.KindLink:
		return "link.change"
	case hierarchy.KindRole:
		return "role.define"
	case hierarchy.KindAssignment:
		return "role.assign"
	case hierarchy.KindEntitlement:
		return "module.change"
	case hierarchy.KindGrant:
		return "grant.change"
	case hierarchy.KindBlock:
		return "block.change"
	case hierarchy.KindActivation:
		return "policy.activate"
	}
	return "hierarchy.change"
}

// questions returns what Ward's own policies are asked before a change: each
// action at each place it concerns, once. An import is asked at its tenant.
func (p *PDP) questions(w world, c Change, events []hierarchy.Event) []*asked {
	type key struct {
		action string
		at     hierarchy.ID
	}
	view := w.graph.At(w.now, w.rev, w.confers)
	places := map[key]bool{}
	for _, e := range events {
		for _, at := range p.concerns(view, e) {
			if c.Import != nil && at.Owner() != "" {
				at = hierarchy.TenantID(at.Owner())
			}
			// What does not exist yet hangs from the tenant or operator above it.
			if _, _, ok := view.Node(at); !ok {
				if at = hierarchy.TenantID(at.Owner()); at.Key == "" {
					at = operator(view)
				} else if _, _, ok := view.Node(at); !ok {
					at = operator(view)
				}
			}
			places[key{actionOf(e.Kind), at}] = true
		}
	}
	if c.Import != nil || len(places) == 0 {
		at := operator(view)
		if c.Import != nil && c.Import.Tenant != "" {
			if t := hierarchy.TenantID(c.Import.Tenant); exists(view, t) {
				at = t
			}
		}
		places = map[key]bool{{"hierarchy.import", at}: true}
	}
	keys := make([]key, 0, len(places))
	for k := range places {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(a, b int) bool {
		if keys[a].action != keys[b].action {
			return keys[a].action < keys[b].action
		}
		return keys[a].at.String() < keys[b].at.String()
	})
	out := make([]*asked, len(keys))
	for i, k := range keys {
		out[i] = ownQuestion(c.Actor, c.Caller, k.action, k.at)
	}
	return out
}

// ownQuestion is a question about one of Ward's own objects.
func ownQuestion(actor authz.Subject, caller authz.Caller, action string, at hierarchy.ID) *asked {
	return &asked{Caller: caller.Name, Verified: actor.IsVerified(),
		Subject: askedSubject{Type: actor.Type, ID: actor.ID, Issuer: actor.Issuer, Assurance: actor.Assurance},
		Action:  action, Resource: askedResource{Type: ObjectType, ID: action}, Hangs: []hierarchy.ID{at}}
}

func exists(v hierarchy.View, id hierarchy.ID) bool { _, _, ok := v.Node(id); return ok }

// operator returns the operator's node: the one that `ward init` wrote.
func operator(v hierarchy.View) hierarchy.ID {
	for f := range v.Facts(hierarchy.KindNode) {
		if n := f.Event.Node; n != nil && n.ID.Type == hierarchy.OperatorType {
			return n.ID
		}
	}
	return hierarchy.ID{Type: hierarchy.OperatorType, Key: "none"}
}

// concerns returns the nodes that an event concerns, for which its author
// needs the right.
func (p *PDP) concerns(view hierarchy.View, e hierarchy.Event) []hierarchy.ID {
	if e.Op != hierarchy.Assert {
		f, ok := view.Fact(e.Fact)
		if !ok {
			return []hierarchy.ID{operator(view)}
		}
		e = f.Event
	}
	switch {
	case e.Node != nil && !e.Node.Principal && e.Node.ID.Type != hierarchy.PersonType:
		return []hierarchy.ID{e.Node.ID}
	case e.Edge != nil:
		return []hierarchy.ID{e.Edge.Child, e.Edge.Parent}
	case e.Link != nil && e.Link.Kind == hierarchy.LinkOwns:
		return []hierarchy.ID{e.Link.To}
	case e.Role != nil:
		if tenant, _, ok := strings.Cut(e.Role.Name, "/"); ok {
			return []hierarchy.ID{hierarchy.TenantID(tenant)}
		}
	case e.Assignment != nil:
		return []hierarchy.ID{e.Assignment.Node}
	case e.Entitlement != nil:
		return []hierarchy.ID{e.Entitlement.Tenant}
	case e.Grant != nil && e.Grant.Subject.Type != hierarchy.PersonType:
		return []hierarchy.ID{e.Grant.Subject}
	}
	// Principals, persons, their links and grants, and policies are the
	// operator's to change.
	return []hierarchy.ID{operator(view)}
}

func sorted(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
