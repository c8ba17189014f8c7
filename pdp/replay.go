package pdp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// Replayer re-derives recorded answers from a store and the ledger's keys. It
// writes nothing, so it also works on copies, in a process of its own.
type Replayer struct {
	keys      *audit.Keys
	graph     *hierarchy.Graph
	store     hierarchy.Store
	sets      setCache
	abandoned map[string]bool // change records that never reached the store
	changes   keyChanges
}

// NewReplayer reads a store and checks its hash chain.
func NewReplayer(ctx context.Context, store hierarchy.Store, keys *audit.Keys) (*Replayer, error) {
	g, err := hierarchy.Load(ctx, store)
	if err != nil {
		return nil, &IntegrityError{Text: "the store's revisions do not verify", Err: err}
	}
	return &Replayer{keys: keys, graph: g, store: store, sets: setCache{store: store}}, nil
}

// Replayed is what came of one record.
type Replayed struct {
	Record string `json:"record"`
	Kind   string `json:"kind"`
	Items  int    `json:"items"`
	// Key is set where a seal key is gone, or not in the case: the record still
	// verifies, but can no longer be read. By is the record that says so.
	Key KeyStatus `json:"key,omitempty"`
	By  string    `json:"by,omitempty"`
	// Differences lists, by cause, what came out otherwise; empty means the
	// same, bit for bit.
	Differences []string `json:"differences,omitempty"`
}

// IntegrityError: stored evidence does not match what commits to it.
type IntegrityError struct {
	Record string
	Text   string
	Err    error
}

func (e *IntegrityError) Error() string {
	s := "integrity: " + e.Text
	if e.Record != "" {
		s = "integrity: record " + e.Record + ": " + e.Text
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *IntegrityError) Unwrap() error { return e.Err }

// Replay re-derives every answer of one record and compares: the policy set
// and the facts against what the record commits to, the converted request, what
// the policies were shown and the Verdict, and then the whole clear part, byte
// for byte.
//
// A difference between the evidence and what commits to it is an
// *IntegrityError; a different answer from sound evidence is a Difference.
func (r *Replayer) Replay(ctx context.Context, e audit.Entry) (Replayed, error) {
	out := Replayed{Record: e.ID(), Kind: string(e.Kind)}
	_, c, err := r.open(e)
	if err != nil {
		return out, err
	}
	if c.Semantics > Semantics {
		return out, newerSemantics(out.Record, c.Semantics)
	}
	if c.Change != nil {
		if err := r.checkChange(out.Record, e.Kind, c.Change); err != nil {
			return out, err
		}
	}
	out.Items = len(c.Items)
	if e.Kind == audit.Abandoned || e.Kind == audit.Outcome || e.Kind == audit.Refusals {
		return out, nil // nothing of it is derived
	}
	rec := recording{kind: e.Kind, head: hierarchy.Head{Revision: c.Revision, Hash: c.Head}, base: c.First, of: c.Of, at: hierarchy.Instant(e.Time)}
	if rec.world, err = r.world(ctx, out.Record, c); err != nil {
		return out, err
	}
	items, first, err := r.unseal(out.Record, e, c)
	if gone := (*GoneError)(nil); errors.As(err, &gone) {
		out.Key, out.By = gone.Status, gone.By
		return out, nil
	}
	if err != nil {
		return out, err
	}
	rec.inquiry = first.Inquiry
	if c.Keys != nil {
		if first.Why == nil {
			return out, &IntegrityError{Record: out.Record, Text: "the sealed part does not say who changed the keys"}
		}
		rec.keys = c.Keys.by(r.keys, first.Why)
	}
	if rec.change, rec.why, err = r.change(ctx, out.Record, c, first.Why); err != nil {
		return out, err
	}
	for _, si := range items {
		j := rec.world.judge(si.Asked)
		out.compare(si, j.verdict)
		if digestOf(j.encode()) != si.Facts {
			out.Differences = append(out.Differences, fmt.Sprintf("item %d: the facts that it depends on are others", si.Index))
		}
		rec.items = append(rec.items, item{si.Asked, j})
	}
	again, _, err := rec.encode(r.keys)
	if err != nil {
		return out, err
	}
	if !bytes.Equal(again.Clear, e.Clear) {
		out.Differences = append(out.Differences, "the clear part is not what this request, set and revision give: "+differing(again.Clear, e.Clear))
	}
	return out, nil
}

// compare notes where a verdict is not the recorded one.
func (r *Replayed) compare(si sealedItem, v authz.Verdict) {
	if verdictDigest(v) != verdictDigest(si.Verdict) {
		r.Differences = append(r.Differences, fmt.Sprintf("item %d: the verdict is %s (%s), recorded was %s (%s)",
			si.Index, v.Effect, v.Code, si.Verdict.Effect, si.Verdict.Code))
	}
}

// differing names the members of two clear parts that differ.
func differing(a, b []byte) string {
	var x, y map[string]json.RawMessage
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return "it cannot be read"
	}
	names := map[string]bool{}
	for _, m := range []map[string]json.RawMessage{x, y} {
		for n := range m {
			if !bytes.Equal(x[n], y[n]) {
				names[n] = true
			}
		}
	}
	return strings.Join(sorted(names), ", ")
}

// change rebuilds what a change record says, from the revision it became.
func (r *Replayer) change(ctx context.Context, id string, c *clearPart, why *hierarchy.Provenance) (*clearChange, *hierarchy.Provenance, error) {
	if c.Change == nil || r.abandoned[id] || c.Change.Next.Revision > r.graph.Tip().Revision {
		return c.Change, why, nil // the store says nothing of it
	}
	for e, err := range r.store.Read(ctx, c.Change.Next.Revision-1) {
		if err != nil {
			return nil, nil, &IntegrityError{Record: id, Text: "the revision cannot be read", Err: err}
		}
		b, err := hierarchy.Decode(e.Body)
		if err != nil {
			return nil, nil, &IntegrityError{Record: id, Text: "the revision cannot be read", Err: err}
		}
		if why == nil || *why != b.Provenance {
			return nil, nil, &IntegrityError{Record: id, Text: "the sealed provenance is not that of the revision"}
		}
		prev, _ := r.graph.HeadAt(c.Change.Prev.Revision)
		return describe(r.keys, b, prev, prev.Next(e.Body)), why, nil
	}
	return nil, nil, &IntegrityError{Record: id, Text: "the store lacks the revision"}
}

// Changes holds the ledger's change records against the store's line of
// revisions: every revision has its record, in order, and every change on
// record is in the store or was abandoned. What the ledger knows beyond the
// store's end is left out, for a copy of a store may be older than that of its
// ledger. Call it before Replay, with all entries; a difference is an
// *IntegrityError.
func (r *Replayer) Changes(entries iter.Seq2[audit.Entry, error]) error {
	tip := r.graph.Tip()
	var at hierarchy.Head
	var open *clearChange
	var openID string
	r.abandoned = map[string]bool{}
	r.changes = keyChanges{map[audit.Seal]keyDone{}, map[string]string{}}
	settle := func() error {
		if open == nil || open.Next.Revision > tip.Revision {
			return nil
		}
		if h, ok := r.graph.HeadAt(open.Next.Revision); !ok || h != open.Next || open.Prev != at {
			return &IntegrityError{Record: openID, Text: fmt.Sprintf("revision %d of the store is not the one that was recorded", open.Next.Revision)}
		}
		at, open = open.Next, nil
		return nil
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		if e.Kind != audit.Change && e.Kind != audit.Abandoned {
			continue
		}
		id, c, err := r.open(e)
		if err != nil {
			return err
		}
		if e.Kind == audit.Change && c.Keys != nil {
			r.changes.note(id, c.Keys)
			continue
		}
		if c.Change == nil {
			return &IntegrityError{Record: id, Text: "a change record says nothing of a change"}
		}
		if e.Kind == audit.Abandoned {
			if open == nil || c.Change.Closes != openID {
				return &IntegrityError{Record: id, Text: "it closes a change that is not open"}
			}
			r.abandoned[openID], open = true, nil
			continue
		}
		if open != nil && c.Change.Prev == open.Prev {
			r.abandoned[openID], open = true, nil // another took its place: it never reached the store
		}
		if err := settle(); err != nil {
			return err
		}
		open, openID = c.Change, id
	}
	if err := settle(); err != nil {
		return err
	}
	if at != tip {
		return &IntegrityError{Text: fmt.Sprintf("revision %d of the store has no record in the ledger", at.Revision+1)}
	}
	return nil
}

// checkChange holds one change record against the store's line of revisions.
func (r *Replayer) checkChange(id string, kind audit.Kind, c *clearChange) error {
	if kind != audit.Change || r.abandoned[id] || c.Next.Revision > r.graph.Tip().Revision {
		return nil
	}
	if h, ok := r.graph.HeadAt(c.Next.Revision); !ok || h != c.Next {
		return &IntegrityError{Record: id, Text: fmt.Sprintf("revision %d of the store is not the one that was recorded", c.Next.Revision)}
	}
	return nil
}

// open reads the clear part of a record.
func (r *Replayer) open(e audit.Entry) (string, *clearPart, error) {
	var c clearPart
	if err := json.Unmarshal(e.Clear, &c); err != nil {
		return "", nil, &IntegrityError{Record: audit.ID(e.Seq), Text: "the clear part cannot be read"}
	}
	return audit.ID(e.Seq), &c, nil
}

// world rebuilds what a record was decided from, and checks it: the store's
// line of revisions against the head that the record names, and the policy set
// against the one that was in force there. The overlays are those of that
// revision.
func (r *Replayer) world(ctx context.Context, id string, c *clearPart) (world, error) {
	head, ok := r.graph.HeadAt(c.Revision)
	if c.Revision != 0 && (!ok || head.Hash != c.Head) {
		return world{}, &IntegrityError{Record: id, Text: fmt.Sprintf("revision %d of the store is not the one that was decided on", c.Revision)}
	}
	if act, _, ok := r.graph.At(0, c.Revision, hierarchy.EdgeKinds{}).Activation(""); ok && act.Digest != c.Set {
		return world{}, &IntegrityError{Record: id, Text: fmt.Sprintf("the policy set it names was not in force at revision %d", c.Revision)}
	}
	set, overlays, err := r.sets.inForce(ctx, r.graph, c.Revision)
	if err == nil && set == nil { // the first change activates the set that decided it
		set, err = r.sets.get(ctx, c.Set)
	}
	if err != nil {
		return world{}, &IntegrityError{Record: id, Text: "the policies are not those that decided", Err: err}
	}
	return world{set: set, overlays: overlays, graph: r.graph, confers: confers(r.graph, set), rev: c.Revision, now: hierarchy.Instant(c.Now)}, nil
}

// unseal returns the sealed items in the order of the clear ones, and the first
// item of the first part, which says who asked and why.
func (r *Replayer) unseal(id string, e audit.Entry, c *clearPart) (items []sealedItem, first sealedItem, err error) {
	parts, err := r.keys.Unseal(e)
	if errors.Is(err, audit.ErrNoKey) {
		return nil, first, r.changes.gone(r.keys, e)
	}
	if err != nil {
		return nil, first, &IntegrityError{Record: id, Text: "the sealed part does not verify", Err: err}
	}
	opened := make([]*audit.Part, len(parts))
	for i := range parts {
		opened[i] = &parts[i]
	}
	return sealedItems(id, c, opened)
}

// sealedItems reads the opened parts of a record: an item for each clear one,
// without a request where its part is nil.
func sealedItems(id string, c *clearPart, parts []*audit.Part) (items []sealedItem, first sealedItem, err error) {
	items = make([]sealedItem, len(c.Items))
	for k, p := range parts {
		if p == nil {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(p.Plain))
		d.UseNumber()
		var sealed []sealedItem
		if err := d.Decode(&sealed); err != nil {
			return nil, first, &IntegrityError{Record: id, Text: "the sealed part cannot be read"}
		}
		for i, it := range sealed {
			if k == 0 && i == 0 {
				first = it
			}
			if at := it.Index - c.First; at >= 0 && at < len(items) && c.Items[at].Part == k {
				items[at] = it
			}
		}
	}
	for i, it := range c.Items {
		if it.Part < 0 || it.Part >= len(parts) || parts[it.Part] != nil && items[i].Asked == nil {
			return nil, first, &IntegrityError{Record: id, Text: "the sealed part lacks an item of the clear one"}
		}
	}
	return items, first, nil
}

// Explain derives the explanations of a record's answers, one per item.
func (r *Replayer) Explain(ctx context.Context, e audit.Entry) ([]Explanation, error) {
	id, c, err := r.open(e)
	if err != nil {
		return nil, err
	}
	if len(c.Items) == 0 {
		return nil, nil
	}
	w, err := r.world(ctx, id, c)
	if err != nil {
		return nil, err
	}
	items, _, err := r.unseal(id, e, c)
	if err != nil {
		return nil, err
	}
	var out []Explanation
	for _, si := range items {
		j := w.judge(si.Asked)
		x := w.explain(si.Asked, &j)
		x.Record, x.Kind = id, string(e.Kind)
		out = append(out, x)
	}
	return out, nil
}

// Explain derives the explanation of a record of this decision point's own
// ledger, for an admin who may read the audit.
func (p *PDP) Explain(ctx context.Context, actor authz.Subject, caller authz.Caller, record string) ([]Explanation, error) {
	if err := p.Permit(ctx, actor, caller, "audit.read"); err != nil {
		return nil, err
	}
	seq, err := audit.ParseID(record)
	if err != nil {
		return nil, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: err.Error()}
	}
	e, err := p.ledger.Entry(seq)
	if err != nil {
		return nil, &authz.Error{Kind: authz.Refused, Code: "unknown_record", Text: "the ledger has no such record", Err: err}
	}
	out, err := (&Replayer{keys: p.keys, graph: p.graph, store: p.store, sets: setCache{store: p.store}}).Explain(ctx, e)
	if errors.Is(err, audit.ErrNoKey) {
		err = Gone(p.keys, e, p.ledger.Scan(0))
	}
	return out, err
}
