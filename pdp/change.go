package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
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
	// prepare is what is left to do once the change is permitted, set by those
	// that put policies in force or out of it.
	prepare func(context.Context, *pair) error
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
	checked := w
	if c.activating != nil { // its roles speak of what it knows
		checked.set = c.activating
	}
	events, err := complete(checked, c.Events)
	if err != nil {
		return Changed{}, err
	}
	for i, e := range events {
		if e.Kind == hierarchy.KindActivation && (c.prepare == nil || i < len(events)-1 || e.Activation == nil) {
			return Changed{}, &hierarchy.Refusal{Code: "activation_unchecked", Index: i, Row: e.Row,
				Text: "a policy set is put in force by activating it, which checks it first"}
		}
		if e.Kind == hierarchy.KindEmergency || e.Kind == hierarchy.KindReview {
			return Changed{}, &hierarchy.Refusal{Code: "emergency_unasked", Index: i, Row: e.Row,
				Text: "an emergency is opened and ended by who needs it, and reviewed by who may: nobody does it for them, or undoes it"}
		}
	}
	questions := w.questions(c, events)
	rec := recording{kind: audit.Change, world: w, head: cur.head}
	right := map[string]bool{}
	var denied authz.Code
	why := "ward's own policies do not permit this change"
	for _, a := range questions {
		j := w.judge(a)
		rec.items = append(rec.items, item{a, j})
		if !j.verdict.Effect {
			if denied = j.verdict.Code; denied == authz.NotConferrable || denied == authz.AboveCeiling {
				why = j.fault
			}
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
		return Changed{}, &authz.Error{Kind: authz.Refused, Code: denied, Record: audit.ID(seq),
			Text: why + " (record " + audit.ID(seq) + ")"}
	}
	for i := range events { // who may not change it is not told whose it is
		if r := w.unsigned(c, events, i); r != nil {
			return Changed{}, r
		}
	}
	if r := stillAdministered(w, events); r != nil {
		return Changed{}, r
	}
	if c.prepare != nil {
		if err := c.prepare(ctx, cur); err != nil {
			return Changed{}, err
		}
	}
	who := rec.items[0].principal
	batch := &hierarchy.Batch{
		Time: p.timeOf(c, w.now), Import: c.Import, Events: events,
		Provenance: hierarchy.Provenance{Who: who, Right: strings.Join(sorted(right), " "), Why: c.Why, Ticket: c.Ticket,
			Feed: c.Feed, SourceAsserted: c.Import != nil && c.Import.History && c.At != 0},
	}
	return p.commit(ctx, &rec, batch)
}

// unsigned refuses a signature that its signer has not given. Of a grant that
// another system keeps, that system says who has signed there. To take one away
// takes a reason, and gives nobody anything.
func (w world) unsigned(c Change, events []hierarchy.Event, i int) *hierarchy.Refusal {
	e := events[i]
	if e.Kind != hierarchy.KindSignature {
		return nil
	}
	if e.Op != hierarchy.Assert {
		if strings.TrimSpace(c.Why) == "" {
			return &hierarchy.Refusal{Code: "why_missing", Index: i, Row: e.Row, Text: "say why somebody else's signature no longer counts"}
		}
		return nil
	}
	f, _ := w.graph.At(w.now, w.rev, w.confers).Grant(e.Signature.Grant)
	mirrored := f.Source != ""
	for _, o := range events {
		if o.Op == hierarchy.Assert && o.Grant != nil && o.Grant.ID == e.Signature.Grant {
			mirrored = o.Grant.Source != ""
		}
	}
	if mirrored {
		return nil
	}
	return &hierarchy.Refusal{Code: "signature_unasked", Index: i, Row: e.Row,
		Text: "a grant is signed by who signs it, and by nobody for them; but for one of another system, named as its source"}
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
		c.Actions = append(c.Actions, actionOf(e))
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
// closed by an abandoned record. What was last recorded of keys is done again.
func (p *PDP) reconcile() error {
	a, err := agree(p.graph, p.ledger.Scan)
	if err != nil {
		return err
	}
	for _, k := range a.keys {
		if err := p.finish(k); err != nil {
			return fmt.Errorf("pdp: a change of keys is on record and cannot be finished: %w", err)
		}
	}
	if a.open == nil {
		return nil
	}
	if err := p.abandon(world{now: a.last}, a.open.seq, a.open.change); err != nil {
		return err
	}
	return nil
}

// agreement is what a store and a ledger that agree leave to do.
type agreement struct {
	open *cutOff           // a change that was cut off
	keys []*clearKeys      // changes of keys since the last change of facts; they may be unfinished
	last hierarchy.Instant // the time of the last record
}

// cutOff is a change on record that the store lacks.
type cutOff struct {
	seq    uint64
	change *clearChange
}

// agree compares a store's revisions with the ledger's records from the last
// change on.
func agree(g *hierarchy.Graph, scan func(from uint64) iter.Seq2[audit.Entry, error]) (a agreement, err error) {
	tip := g.Tip()
	from := uint64(0)
	if b, ok := g.Batch(tip.Revision); ok {
		from = b.Record
	}
	found, records := tip.Revision == 0, 0
	for e, err := range scan(from) {
		if err != nil {
			return a, err
		}
		records++
		a.last = hierarchy.Instant(e.Time)
		if e.Kind != audit.Change && e.Kind != audit.Abandoned {
			continue
		}
		var c clearPart
		err := json.Unmarshal(e.Clear, &c)
		if err == nil && e.Kind == audit.Change && c.Keys != nil {
			a.keys = append(a.keys, c.Keys)
			continue
		}
		if err != nil || c.Change == nil {
			return a, fmt.Errorf("%w: record %s is no change record", ErrDisagree, audit.ID(e.Seq))
		}
		switch {
		case e.Kind == audit.Abandoned:
			if a.open == nil || c.Change.Closes != audit.ID(a.open.seq) {
				return a, fmt.Errorf("%w: record %s closes no open change", ErrDisagree, audit.ID(e.Seq))
			}
			a.open = nil
		case c.Change.Next == tip:
			found = true
		case c.Change.Prev == tip: // of several only the last can still be open
			a.open = &cutOff{e.Seq, c.Change}
		default:
			return a, fmt.Errorf("%w: record %s is about revision %d, the store ends at %d", ErrDisagree, audit.ID(e.Seq), c.Change.Next.Revision, tip.Revision)
		}
	}
	switch {
	case tip.Revision > 0 && records == 0:
		return a, fmt.Errorf("%w: the store knows ledger record %s, the ledger ends before it", ErrDisagree, audit.ID(from))
	case !found:
		return a, fmt.Errorf("%w: revision %d of the store has no change record", ErrDisagree, tip.Revision)
	}
	return a, nil
}

func sorted(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
