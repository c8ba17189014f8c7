package pdp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

	activating *policies.Set // set by Activate alone
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
	events, err := complete(w, c.Events)
	if err != nil {
		return Changed{}, err
	}
	for i, e := range events {
		if e.Kind == hierarchy.KindActivation && c.activating == nil {
			return Changed{}, &hierarchy.Refusal{Code: "activation_unchecked", Index: i, Row: e.Row,
				Text: "a policy set is put in force by activating it, which checks it first"}
		}
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
	if r := stillAdministered(w, events); r != nil {
		return Changed{}, r
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
	rec.change, rec.why = p.describe(b, tip, next), &b.Provenance
	// A caller that has gone is noticed before the record, never between record
	// and store.
	if err := ctx.Err(); err != nil {
		return Changed{}, &authz.Error{Kind: authz.Outage, Code: authz.Busy, Text: "the caller did not wait; nothing was changed", Err: err}
	}
	whole := context.WithoutCancel(ctx)
	seq, err := rec.write(whole, p.ledger, p.keys)
	if errors.Is(err, audit.ErrTooLarge) {
		return Changed{}, &authz.Error{Kind: authz.Refused, Code: authz.TooLarge, Text: "the change concerns too many places: split it"}
	}
	if err != nil {
		return Changed{}, &authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed, Text: "the change could not be recorded; nothing was changed", Err: err}
	}
	// From here on the change is on record: it must reach the store, or be
	// closed by an abandoned record, before anything else is decided.
	done := false
	defer func() {
		if !done {
			p.fail(&authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "a change was cut off in the middle: restart"})
		}
	}()
	head, err := p.store.Append(whole, tip.Revision, body)
	if err != nil {
		head, herr := p.store.Head(whole)
		switch {
		case herr == nil && head == next: // stored after all
		case herr == nil && head == tip:
			if aerr := p.abandon(rec.world, seq, rec.change); aerr != nil {
				return Changed{}, p.fail(aerr)
			}
			done = true
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
	if err := p.publish(whole); err != nil {
		return Changed{}, p.fail(&authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the policy set cannot be read", Err: err})
	}
	done = true
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

// describe is what a change record says of a batch.
func (p *PDP) describe(b *hierarchy.Batch, prev, next hierarchy.Head) *clearChange {
	return describe(p.keys, b, prev, next)
}

func describe(keys *audit.Keys, b *hierarchy.Batch, prev, next hierarchy.Head) *clearChange {
	c := &clearChange{Events: len(b.Events), Prev: prev, Next: next, Right: b.Provenance.Right,
		Who: keys.Hash("principal", "", b.Provenance.Who.String())}
	for _, e := range b.Events {
		c.Actions = append(c.Actions, actionOf(e.Kind))
	}
	if b.Import != nil {
		c.Actions, c.Import = append(c.Actions, "hierarchy.import"), keys.Hash("import", "", b.Import.ID)
	}
	c.Actions = unique(c.Actions)
	return c
}

// abandon records that a recorded change never reached the store.
func (p *PDP) abandon(w world, seq uint64, change *clearChange) *authz.Error {
	c := clearPart{Semantics: Semantics, Revision: change.Prev.Revision, Head: change.Prev.Hash, Now: int64(w.now),
		Change: &clearChange{Actions: change.Actions, Prev: change.Prev, Next: change.Next, Closes: audit.ID(seq)}}
	clear, err := json.Marshal(c)
	if err == nil {
		_, err = p.ledger.Append(context.Background(), audit.Record{Kind: audit.Abandoned, Time: int64(w.now), Clear: clear})
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
		case c.Change.Next == tip:
			found = true
		case c.Change.Prev == tip: // of several only the last can still be open
			open, openSeq = c.Change, e.Seq
		default:
			return fmt.Errorf("%w: record %s is about revision %d, the store ends at %d", ErrDisagree, audit.ID(e.Seq), c.Change.Next.Revision, tip.Revision)
		}
	}
	if !found {
		return fmt.Errorf("%w: revision %d of the store has no change record", ErrDisagree, tip.Revision)
	}
	if open != nil {
		if err := p.abandon(world{now: hierarchy.Instant(last)}, openSeq, open); err != nil {
			return err
		}
	}
	return nil
}

// complete fills in what the decision point itself computes: the majority of
// persons with a birth date.
func complete(w world, events []hierarchy.Event) ([]hierarchy.Event, error) {
	if len(events) > hierarchy.MaxBatchEvents {
		return nil, &hierarchy.Refusal{Code: hierarchy.CodeBatchTooLarge, Text: fmt.Sprintf("a change holds at most %d events", hierarchy.MaxBatchEvents)}
	}
	out := slices.Clone(events)
	for i := range out {
		if err := check(w, &out[i]); err != nil {
			err.Index, err.Row = i, out[i].Row
			return nil, err
		}
	}
	return out, nil
}

// check holds an asserted event against the catalogue, which the facts
// themselves do not know, and computes a person's majority.
func check(w world, e *hierarchy.Event) *hierarchy.Refusal {
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
		switch {
		case e.Grant.ID == authz.NoGrant:
			return &hierarchy.Refusal{Code: hierarchy.CodeEventInvalid, Text: "no grant may be called none: that word asks without any"}
		case e.Grant.MaxDepth > gt.MaxDepth:
			return &hierarchy.Refusal{Code: hierarchy.CodeGrantDepth, Text: fmt.Sprintf("the pack lets a grant of this type be passed on %d times", gt.MaxDepth)}
		case !isPrincipal(cat, e.Grant.Grantee):
			return &hierarchy.Refusal{Code: "grantee_not_principal", Text: "a grantee is a principal: grants to an organisation's people are not built"}
		case len(e.Grant.Purpose) > 0 && cat.Context["purpose"] == nil:
			return &hierarchy.Refusal{Code: "purpose_unknown", Text: "the pack declares no purpose in its context, so that no request could name one"}
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

// place is one of Ward's own actions somewhere.
type place struct {
	action string
	at     hierarchy.ID
}

// questions returns what Ward's own policies are asked before a change: each
// action at each place it concerns, once, with what of Ward's own capabilities
// somebody would gain there.
//
// Of an import's events those about nodes, edges and who owns what are asked as
// one, at its tenant; the others like those of any change. What makes an
// activation's roles the set's own belongs to the activation.
func (p *PDP) questions(w world, c Change, events []hierarchy.Event) []*asked {
	view := w.graph.At(w.now, w.rev, w.confers)
	places := map[place][]string{}
	ask := func(action string, at hierarchy.ID, gains []string) {
		// What does not exist yet hangs from the tenant or operator above it.
		if !exists(view, at) {
			if at = hierarchy.TenantID(at.Owner()); at.Key == "" || !exists(view, at) {
				at = operator(view)
			}
		}
		k := place{action, at}
		places[k] = unique(append(places[k], gains...))
	}
	if c.Import != nil {
		at := operator(view)
		if c.Import.Tenant != "" {
			at = hierarchy.TenantID(c.Import.Tenant)
		}
		ask("hierarchy.import", at, nil)
	}
	for _, e := range events {
		if c.activating != nil && ownRole(view, c.activating, e) {
			continue
		}
		for _, at := range concerns(view, e) {
			if c.Import != nil && imported(view, e) {
				if e.Node != nil && e.Node.ID.Type == hierarchy.PersonType {
					continue // who is nobody's: a feed may make them known
				}
				if t := at.Owner(); t != "" {
					at = hierarchy.TenantID(t)
				}
				if at.Owner() != c.Import.Tenant {
					ask("hierarchy.import", at, nil)
				}
				continue
			}
			ask(actionOf(e.Kind), at, gains(w, view, events, e))
		}
	}
	if len(places) == 0 { // an empty change
		ask("hierarchy.change", operator(view), nil)
	}
	keys := slices.SortedFunc(maps.Keys(places), func(a, b place) int {
		return cmp.Or(strings.Compare(a.action, b.action), strings.Compare(a.at.String(), b.at.String()))
	})
	out := make([]*asked, len(keys))
	for i, k := range keys {
		out[i] = ownQuestion(c.Actor, c.Caller, k.action, k.at, places[k])
	}
	return out
}

// imported reports whether an event is of the kinds that feeds consist of.
func imported(view hierarchy.View, e hierarchy.Event) bool {
	if e.Op != hierarchy.Assert {
		f, ok := view.Fact(e.Fact)
		if !ok {
			// It ends what the same import has asserted, which asked for it then.
			return e.Kind == hierarchy.KindNode || e.Kind == hierarchy.KindEdge || e.Kind == hierarchy.KindLink
		}
		e = f.Event
	}
	return e.Node != nil && !e.Node.Principal || e.Edge != nil || e.Link != nil && e.Link.Kind == hierarchy.LinkOwns
}

// ownRole reports whether an event only brings a role to what a set says of it.
func ownRole(view hierarchy.View, set *policies.Set, e hierarchy.Event) bool {
	if e.Kind != hierarchy.KindRole {
		return false
	}
	want := e.Role
	if e.Op != hierarchy.Assert {
		f, ok := view.Fact(e.Fact)
		if !ok {
			return false
		}
		want = f.Event.Role
	}
	return slices.ContainsFunc(set.Catalogue().Roles, func(r policies.Role) bool {
		own := roleEvent(r).Role
		return own.Name == want.Name && (e.Op != hierarchy.Assert || sameRole(*own, *want))
	})
}

// gains returns what of Ward's own capabilities an event gives to somebody.
func gains(w world, view hierarchy.View, events []hierarchy.Event, e hierarchy.Event) []string {
	if e.Op != hierarchy.Assert {
		return nil
	}
	cat := w.set.Catalogue()
	seen := map[string]bool{}
	var out []string
	var add func(role string)
	take := func(capabilities, roles []string) {
		for _, c := range capabilities {
			if act := cat.Actions[c]; act != nil && slices.Contains(act.Resources, ObjectType) {
				out = append(out, c)
			}
		}
		for _, r := range roles {
			add(r)
		}
	}
	add = func(role string) {
		if seen[role] {
			return
		}
		seen[role] = true
		take(view.Capabilities(role), nil)
		for _, other := range events { // defined in the same change
			if other.Op == hierarchy.Assert && other.Role != nil && other.Role.Name == role {
				take(other.Role.Capabilities, other.Role.Includes)
			}
		}
	}
	switch {
	case e.Role != nil:
		take(e.Role.Capabilities, e.Role.Includes)
	case e.Assignment != nil:
		add(e.Assignment.Role)
	case e.Grant != nil:
		take(e.Grant.Scope.Capabilities, nil)
	}
	return out
}

// stillAdministered refuses a change after which nobody could activate a policy
// set, and so nobody could ever undo it.
func stillAdministered(w world, events []hierarchy.Event) *hierarchy.Refusal {
	view := w.graph.At(w.now, w.rev, w.confers)
	gone := map[hierarchy.FactID]int{}
	for i, e := range events {
		if e.Op != hierarchy.Assert {
			switch e.Kind {
			case hierarchy.KindNode, hierarchy.KindLink, hierarchy.KindAssignment, hierarchy.KindRole:
				gone[e.Fact] = i
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	refuse := func(i int) *hierarchy.Refusal {
		return &hierarchy.Refusal{Code: "last_admin", Index: i, Row: events[i].Row, Text: "nobody could administer ward any more: name another security-admin first"}
	}
	op := operator(view)
	if _, f, ok := view.Node(op); ok {
		if i, ends := gone[f]; ends {
			return refuse(i)
		}
	}
	touched := -1 // an event that takes an admin's rights away
	identities := map[hierarchy.ID]bool{}
	for f := range view.Facts(hierarchy.KindLink) {
		l := f.Event.Link
		if l.Kind != hierarchy.LinkIdentity || l.To.Type != "Admin" || !f.Valid.Holds(w.now) {
			continue
		}
		if i, ends := gone[f.ID]; ends {
			touched = i
		} else {
			identities[l.To] = true
		}
	}
	remains := func(role string) bool { // its capability, when the voided roles are gone
		_, f, ok := view.Role(role)
		if i, ends := gone[f]; ok && ends {
			if touched < 0 {
				touched = i
			}
			return slices.ContainsFunc(events, func(e hierarchy.Event) bool {
				return e.Op == hierarchy.Assert && e.Role != nil && e.Role.Name == role && slices.Contains(e.Role.Capabilities, "policy.activate")
			})
		}
		return slices.Contains(view.Capabilities(role), "policy.activate")
	}
	admins := 0
	for f := range view.Facts(hierarchy.KindAssignment) {
		a := f.Event.Assignment
		if a.Node != op || !f.Valid.Holds(w.now) || !remains(a.Role) {
			continue
		}
		_, node, ok := view.Node(a.Principal)
		i, ends := gone[f.ID]
		if !ends {
			i, ends = gone[node]
		}
		switch {
		case ends:
			touched = i
		case ok && f.Valid.To == hierarchy.Forever && identities[a.Principal]:
			admins++
		}
	}
	if touched >= 0 && admins == 0 {
		return refuse(touched)
	}
	return nil
}

// ownQuestion is a question about one of Ward's own objects.
func ownQuestion(actor authz.Subject, caller authz.Caller, action string, at hierarchy.ID, gains []string) *asked {
	return &asked{Caller: caller.Name, Verified: actor.IsVerified(),
		Subject: askedSubject{Type: actor.Type, ID: actor.ID, Issuer: actor.Issuer, Assurance: actor.Assurance},
		Action:  action, Resource: askedResource{Type: ObjectType, ID: action}, Hangs: []hierarchy.ID{at}, Confers: gains}
}

// isPrincipal reports whether an id is of one of the pack's principal types.
func isPrincipal(cat *policies.Catalogue, id hierarchy.ID) bool {
	for _, pt := range cat.Principals {
		if baseName(pt.Entity) == id.Type {
			return true
		}
	}
	return false
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
func concerns(view hierarchy.View, e hierarchy.Event) []hierarchy.ID {
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
