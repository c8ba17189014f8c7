package pdp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
)

// This file turns what the rows want into revisions.

// component is a longest interval of what the rows want of a key.
type component struct {
	valid   hierarchy.Interval
	what    *said
	implied bool
	shares  []int32
}

// components unites what the live rows want of a key. A conflict is the later
// of two rows that contradict each other, or -1.
func (k *wanted) components() (list []component, conflict int32) {
	listed := false
	for s := range k.each() {
		listed = listed || s.live > 0 && !s.implied && !s.ends
	}
	var order []int32
	for i := range k.shares() {
		if s := k.share(i); s.live > 0 && s.implied != listed && !s.ends {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		x, y := k.share(a).valid, k.share(b).valid
		return cmp.Or(cmp.Compare(x.From, y.From), cmp.Compare(x.To, y.To), cmp.Compare(a, b))
	})
	for _, i := range order {
		s := k.share(i)
		if n := len(list) - 1; n >= 0 && (s.valid.From <= list[n].valid.To || k.key.kind == hierarchy.KindGrant) {
			last := &list[n]
			if last.what.equal(s.what) && s.valid.From <= last.valid.To {
				last.valid.To = max(last.valid.To, s.valid.To)
				last.shares = append(last.shares, i)
				continue
			}
			if s.valid.From < last.valid.To || k.key.kind == hierarchy.KindGrant {
				later := s.owner
				for _, o := range last.shares {
					later = max(later, k.share(o).owner)
				}
				return nil, later
			}
		}
		list = append(list, component{s.valid, s.what, s.implied, []int32{i}})
	}
	return list, -1
}

// left returns what of each fact that stands is left: by the rows that end it,
// and in a full feed by there being no row for it. What the rows want anew
// (list) it leaves out of account.
func (im *importing) left(k *wanted, list []component) []hierarchy.Interval {
	out := make([]hierarchy.Interval, len(k.held()))
	for i, h := range k.held() {
		v := h.was
		for s := range k.each() {
			if s.ends && s.live > 0 && !h.mine && v.From <= s.valid.To && s.valid.To < v.To {
				v.To = s.valid.To
			}
		}
		if h.ours && !k.doubt && (im.ending || !k.spoken) &&
			!slices.ContainsFunc(list, func(c component) bool { return c.valid.Overlaps(v) }) {
			v.To = min(v.To, max(v.From, im.feed.AsOf))
		}
		out[i] = v
	}
	return out
}

// step is one event of a batch and where it comes from.
type step struct {
	event     hierarchy.Event
	key       int32
	component *component // what it asserts; nil when it ends or voids
}

// plan is what is to become of a key: the components that are wanted of it, and
// what is left of the facts that stand, voided ones being empty.
func (im *importing) plan(k *wanted) (list []component, left []hierarchy.Interval, conflict int32) {
	if list, conflict = k.components(); conflict >= 0 {
		return nil, nil, conflict
	}
	left = im.left(k, list)
	keep := !slices.ContainsFunc(list, func(c component) bool { return !c.implied })
	if k.key.kind == hierarchy.KindNode {
		first := &k.first
		keep = keep || im.id(k.key.a).Type == hierarchy.PersonType || k.spoken && first.what != nil && first.what.principal
	}
	if keep && len(list) > 0 && slices.ContainsFunc(k.held(), func(h held) bool { return !h.mine }) {
		list = k.again(list) // known already, whatever is known of it
	}
	for i, h := range k.held() {
		same := slices.ContainsFunc(list, func(c component) bool { return left[i] == c.valid && h.states(c.what) })
		if k.key.kind == hierarchy.KindGrant && !h.mine {
			continue // never replaced: see regrant
		}
		if !same && (h.mine || slices.ContainsFunc(list, func(c component) bool { return c.valid.Overlaps(left[i]) })) {
			left[i] = hierarchy.Interval{}
		}
	}
	return list, left, -1
}

// again returns what is wanted of a fact that is known and whose feed does not
// list it: nothing, but where the source's feeds ended it, what comes after.
func (k *wanted) again(list []component) []component {
	last := hierarchy.Never
	for _, h := range k.held() {
		if !h.mine && !h.fed {
			return nil
		}
		if !h.mine {
			last = max(last, h.was.To)
		}
	}
	c := list[len(list)-1]
	if c.valid.From = max(c.valid.From, last); c.valid.From >= c.valid.To {
		return nil
	}
	return []component{c}
}

// diff returns the events that turn what stands of a key into what is wanted,
// and puts down what is written for a row to it.
func (im *importing) diff(ki int32, line int32) []step {
	k := im.key(ki)
	list, left, conflict := im.plan(k)
	for conflict >= 0 {
		im.refuse(conflict, Reason{RowValue, "another row says otherwise of this fact for the same time"})
		list, left, conflict = im.plan(k)
	}
	if k.key.kind == hierarchy.KindGrant && len(list) > 0 {
		if why := im.regrant(k, &list[0], left); why != nil {
			for _, i := range list[0].shares {
				for row := range im.rowsOf(k.share(i)) {
					im.refuse(row, *why)
				}
			}
			return im.diff(ki, line)
		}
	}
	var steps []step
	assert := func(c *component, valid hierarchy.Interval) {
		steps = append(steps, step{im.assertion(k, valid, c, line), ki, c})
	}
	for c := range list {
		c := &list[c]
		same := slices.IndexFunc(k.held(), func(h held) bool { return h.states(c.what) && left[indexOf(k.held(), h.id)] == c.valid })
		if same < 0 {
			im.credit(k, c)
			assert(c, c.valid)
		} else if k.held()[same].mine {
			im.credit(k, c)
		}
	}
	var ends []step
	for i, h := range k.held() {
		e := hierarchy.Event{Op: hierarchy.Void, Kind: k.key.kind, Fact: h.id, Row: int(line)}
		for s := range k.each() {
			if s.ends && s.live > 0 && h.was.To > s.valid.To && left[i].To == s.valid.To {
				im.rows.at(s.owner).loaded = true
			}
		}
		switch v := left[i]; {
		case v.To <= v.From:
		case v == h.valid:
			continue
		case v.To < h.valid.To:
			e.Op, e.At = hierarchy.End, v.To
		default: // this import ended it earlier than is wanted now
			assert(&component{what: h.what}, v)
		}
		ends = append(ends, step{event: e, key: ki})
	}
	return append(ends, steps...)
}

// regrant says why a grant that stands cannot become what a row wants: its id
// stands for what was granted, so a row may only end it sooner.
func (im *importing) regrant(k *wanted, c *component, left []hierarchy.Interval) *Reason {
	for i, h := range k.held() {
		if h.mine {
			continue
		}
		if !h.what.equal(c.what) || h.was.From != c.valid.From || c.valid.To > h.was.To {
			return &Reason{RowGrantChanged, "a grant of this id is known and says otherwise: end it, and give another id"}
		}
		left[i].To = min(left[i].To, c.valid.To)
		c.valid.To = left[i].To
		if left[i].To < h.was.To {
			im.credit(k, c)
		}
	}
	return nil
}

func indexOf(list []held, id hierarchy.FactID) int {
	return slices.IndexFunc(list, func(h held) bool { return h.id == id })
}

// assertion makes the event that asserts a component of a key.
func (im *importing) assertion(k *wanted, valid hierarchy.Interval, c *component, line int32) hierarchy.Event {
	e := hierarchy.Event{Op: hierarchy.Assert, Kind: k.key.kind, Valid: valid, Row: int(line)}
	name, a, b := im.id(k.key.name).Key, im.id(k.key.a), im.id(k.key.b)
	switch k.key.kind {
	case hierarchy.KindNode:
		n := &hierarchy.Node{ID: a}
		if c.what != nil {
			n.Principal = c.what.principal
		}
		for _, h := range k.held() {
			if h.valid.Overlaps(valid) && h.node != nil {
				n.Attrs, n.Person, n.Principal = overlay(n.Attrs, h.node.Attrs), h.node.Person, h.node.Principal
			}
		}
		n.Attrs = overlay(n.Attrs, c.what.attributes())
		e.Node = n
	case hierarchy.KindEdge:
		e.Edge = &hierarchy.Edge{Child: a, Kind: name, Parent: b}
	case hierarchy.KindLink:
		if rest, ok := strings.CutPrefix(name, "identity\x00"); ok {
			issuer, sub, _ := strings.Cut(rest, "\x00")
			e.Link = &hierarchy.Link{Kind: hierarchy.LinkIdentity, Issuer: issuer, Sub: sub, To: b}
			break
		}
		e.Link = &hierarchy.Link{Kind: hierarchy.LinkKind(name), From: a, To: b}
		if k.turned {
			e.Link.From, e.Link.To = b, a
		}
	case hierarchy.KindAssignment:
		e.Assignment = &hierarchy.Assignment{Principal: a, Role: name, Node: b}
	case hierarchy.KindEntitlement:
		e.Entitlement = &hierarchy.Entitlement{Tenant: a, Name: name}
	case hierarchy.KindGrant:
		e.Grant = c.what.grant
	}
	return e
}

// states reports whether a fact that stands says what is wanted.
func (h *held) states(what *said) bool {
	if what == nil {
		return true
	}
	if what.grant != nil {
		return h.what.equal(what)
	}
	for name, v := range what.attrs {
		if h.node == nil || !reflect.DeepEqual(h.node.Attrs[name], v) {
			return false
		}
	}
	return true
}

func overlay(under, over map[string]any) map[string]any {
	if len(over) == 0 {
		return under
	}
	out := make(map[string]any, len(under)+len(over))
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		out[k] = v
	}
	return out
}

// credit puts a fact that had to be written down to its rows: to those that
// say more of it than the rows before them.
func (im *importing) credit(k *wanted, c *component) {
	order := slices.Clone(c.shares)
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(k.share(a).owner, k.share(b).owner) })
	var before []hierarchy.Interval
	for _, i := range order {
		s := k.share(i)
		if s.owner >= 0 && !within(s.valid, before) {
			im.rows.at(s.owner).loaded = true
		}
		before = append(before, s.valid)
	}
	if owner := k.share(order[0]).owner; c.implied && k.key.kind == hierarchy.KindNode && owner >= 0 && im.rows.at(owner).file >= 0 {
		k.made = im.rows.at(owner).file + 1
	}
}

// within reports whether some intervals together hold all of v.
func within(v hierarchy.Interval, some []hierarchy.Interval) bool {
	for moved := true; moved && v.From < v.To; {
		moved = false
		for _, s := range some {
			if s.From <= v.From && v.From < s.To {
				v.From, moved = s.To, true
			}
		}
	}
	return v.From >= v.To
}

// batch is what becomes one revision: keys, and what has to happen to them.
type batch struct {
	file   int32
	at     hierarchy.Instant // of a history import
	keys   []int32
	steps  map[int32][]step
	lines  map[int32]int32
	events int
	bytes  int
}

func (im *importing) newBatch(at hierarchy.Instant) *batch {
	return &batch{file: -1, at: at, steps: map[int32][]step{}, lines: map[int32]int32{}}
}

// add brings a key into a batch, or up to date in it.
func (im *importing) add(b *batch, ki int32, line int32) {
	k := im.key(ki)
	if _, in := b.lines[ki]; !in {
		b.keys = append(b.keys, ki)
		b.lines[ki] = line
	} else {
		line = b.lines[ki]
	}
	b.events -= len(b.steps[ki])
	steps := im.diff(ki, line)
	b.steps[ki] = steps
	b.events += len(steps)
	for i := range steps {
		b.bytes += 512
		if n := steps[i].event.Node; n != nil && len(n.Attrs) > 0 {
			b.bytes += maxAttrBytes
		}
	}
	k.clean = true
}

// addRow brings everything that a row says into a batch.
func (im *importing) addRow(b *batch, row int32) {
	r := im.rows.at(row)
	if r.file >= 0 {
		b.file = r.file
	}
	for m := range im.says(r) {
		if !im.key(m.key).clean {
			im.add(b, m.key, r.line)
		}
	}
}

func (im *importing) full(b *batch) bool { return b.events >= im.limit || b.bytes >= importBytes }

// write makes a batch a revision. Rows that the facts refuse are dropped from
// it, until the facts admit it.
func (im *importing) write(ctx context.Context, b *batch) error {
	refused := 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var steps []step
		pick := func(want func(*hierarchy.Event) bool) {
			for _, k := range b.keys {
				for _, s := range b.steps[k] {
					if want(&s.event) {
						steps = append(steps, s)
					}
				}
			}
		}
		// What ties goes before what it ties, and comes after it.
		pick(func(e *hierarchy.Event) bool { return e.Op != hierarchy.Assert && e.Kind != hierarchy.KindNode })
		pick(func(e *hierarchy.Event) bool { return e.Kind == hierarchy.KindNode })
		pick(func(e *hierarchy.Event) bool { return e.Op == hierarchy.Assert && e.Kind != hierarchy.KindNode })
		if len(steps) == 0 {
			return nil
		}
		events := make([]hierarchy.Event, len(steps))
		for i := range steps {
			events[i] = steps[i].event
		}
		facts, err := im.change(ctx, events, b.at, b.file, hierarchy.ImportMore)
		var r *hierarchy.Refusal
		if errors.As(err, &r) && r.Index >= 0 && r.Index < len(steps) {
			if s := &steps[r.Index]; im.blame(b, s, r) {
				refused++
				continue
			} else if s.component == nil && r.Code == hierarchy.CodeUnknownFact {
				im.forget(b, s)
				continue
			}
		}
		var e *authz.Error
		if errors.As(err, &e) && e.Code == authz.TooLarge && len(b.keys) > 1 {
			return im.halve(ctx, b) // it concerns too many places for one record
		}
		if err != nil {
			return err
		}
		im.settle(steps, facts)
		if refused > 8 {
			im.limit = max(importSmallest, im.limit/4)
		} else if im.limit < importEvents {
			im.limit *= 2
		}
		return nil
	}
}

// blame refuses the rows that an event comes from and brings the batch up to
// date. It reports false when it comes from none.
func (im *importing) blame(b *batch, s *step, why *hierarchy.Refusal) bool {
	k := im.key(s.key)
	var rows []int32
	for i := range k.shares() {
		if s.component != nil && !slices.Contains(s.component.shares, i) {
			continue
		}
		for row := range im.rowsOf(k.share(i)) {
			if r := im.rows.at(row); r.active && !r.refused && r.file >= 0 {
				rows = append(rows, row)
			}
		}
	}
	if len(rows) == 0 || s.component == nil && why.Code == hierarchy.CodeUnknownFact {
		return false
	}
	for _, row := range rows {
		im.refuse(row, *reasonOf(why, k.key.kind))
	}
	// What the rows said besides is wanted no longer, here or in batches before.
	for _, row := range rows {
		r := im.rows.at(row)
		for m := range im.says(r) {
			other := im.key(m.key)
			_, in := b.lines[m.key]
			if !other.clean && (in || slices.ContainsFunc(other.held(), func(h held) bool { return h.mine || h.valid != h.was })) {
				im.add(b, m.key, r.line)
			}
		}
	}
	return true
}

// forget takes a fact that somebody ended or voided meanwhile out of account.
func (im *importing) forget(b *batch, s *step) {
	x := im.key(s.key).extra()
	x.held = slices.DeleteFunc(x.held, func(h held) bool { return h.id == s.event.Fact })
	im.add(b, s.key, 0)
}

// reasonOf words a refusal of the facts for a row. The refusal's own text may
// name a node whose key names a person.
func reasonOf(r *hierarchy.Refusal, kind hierarchy.Kind) *Reason {
	text := map[string]string{
		hierarchy.CodeUnknownEnd:       "an end of an edge or link does not exist in all of the valid time",
		hierarchy.CodeUnknownTenant:    "the tenant does not exist in all of the valid time",
		hierarchy.CodeTenancyViolation: "the edge or link leads across tenants, or where none may lead",
		hierarchy.CodeCycle:            "the edge would close a cycle at some instant",
		hierarchy.CodeNodeExists:       "the node was made meanwhile, for a part of the valid time",
		hierarchy.CodeDuplicateFact:    "the fact, a link the other way round, or the identity of another principal is known for a part of the valid time",
		hierarchy.CodeGrantExists:      "a grant of this id was known before: give another id",
		hierarchy.CodeGrantLimit:       "too many grants would be live for one grantee and subject",
		hierarchy.CodeGrantWider:       "the grant is wider than the one it was made from",
		hierarchy.CodeGrantDepth:       "the grant is passed on more often than it may be",
		hierarchy.CodeUnknownFact:      "a fact that the row replaces was ended or voided meanwhile",
		hierarchy.CodeImportOpen:       "another open import touches the same fact",
		hierarchy.CodeIntervalInverted: "the valid time ends at or before its start",
	}[r.Code]
	switch {
	case r.Code == hierarchy.CodeUnknownEnd && kind == hierarchy.KindAssignment:
		text = "the principal, the role or the node of an assignment does not exist in all of the valid time"
	case r.Code == hierarchy.CodeUnknownEnd && kind == hierarchy.KindGrant:
		text = "the grantor, the grantee or the subject of a grant does not exist in the valid time"
	case text == "":
		text = "the facts do not admit it"
	}
	return &Reason{r.Code, text}
}

// halve writes a batch as two.
func (im *importing) halve(ctx context.Context, b *batch) error {
	im.limit = max(1, min(im.limit, b.events)/2)
	for half := range slices.Chunk(b.keys, (len(b.keys)+1)/2) {
		part := im.newBatch(b.at)
		part.file = b.file
		for _, ki := range half {
			part.keys = append(part.keys, ki)
			part.lines[ki], part.steps[ki] = b.lines[ki], b.steps[ki]
			part.events += len(b.steps[ki])
		}
		if err := im.write(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// settle notes what a written batch changed.
func (im *importing) settle(steps []step, facts []hierarchy.FactID) {
	for i := range steps {
		s := &steps[i]
		k := im.key(s.key)
		switch s.event.Op {
		case hierarchy.Assert:
			k.written(s, facts[0])
			facts = facts[1:]
			im.report.Facts++
		case hierarchy.Void:
			x := k.extra()
			at := indexOf(x.held, s.event.Fact)
			x.held = slices.Delete(x.held, at, at+1)
			im.report.Voided++
		case hierarchy.End:
			x := k.extra()
			x.held[indexOf(x.held, s.event.Fact)].valid.To = s.event.At
			im.report.Ended++
		}
	}
}

// change makes a change of the import and returns the facts it asserted.
func (im *importing) change(ctx context.Context, events []hierarchy.Event, at hierarchy.Instant, file int32, s hierarchy.ImportStep) ([]hierarchy.FactID, error) {
	if s == hierarchy.ImportMore && !im.open {
		s = hierarchy.ImportOpen
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := im.feed
	c := Change{Actor: f.Actor, Caller: f.Caller, Why: f.Why, Ticket: f.Ticket, Events: events, At: at,
		Import: im.as(s), Feed: f.origin()}
	if file >= 0 {
		c.Feed = strings.TrimSpace(c.Feed + " " + f.Files[file].Digest + " " + f.Files[file].Name)
	}
	if f.DryRun {
		im.open = s != hierarchy.ImportClose
		return im.trial.change(im.w, c)
	}
	if im.again != nil {
		facts, ok, err := im.again.next(c)
		if err != nil {
			return nil, err
		}
		if ok {
			im.open = true
			return facts, nil
		}
		im.again = nil
	}
	out, err := im.p.Change(ctx, c)
	if out.Revision == 0 {
		return nil, err
	}
	im.open = s != hierarchy.ImportClose
	r := &im.report
	if r.Revisions++; r.Revisions == 1 {
		r.First = out.Revision
	}
	r.Last = out.Revision
	if f.Progress != nil {
		f.Progress(Progress{Rows: im.done, Of: int(im.rows.n) - 1, Revision: out.Revision})
	}
	return out.Facts, err
}

// as returns the import as hierarchy knows it. One with history is about the
// whole store.
func (im *importing) as(s hierarchy.ImportStep) *hierarchy.Import {
	m := &hierarchy.Import{ID: im.feed.ID, Tenant: im.feed.Tenant, Step: s, History: im.feed.History}
	if m.History {
		m.Tenant = ""
	}
	return m
}

func factIDs(rev uint64, events []hierarchy.Event) []hierarchy.FactID {
	var out []hierarchy.FactID
	for i, e := range events {
		if e.Op == hierarchy.Assert {
			out = append(out, hierarchy.FactID{Revision: rev, Index: uint32(i)})
		}
	}
	return out
}

// reconcile writes what the rows want now: first it ends what no row speaks of,
// which may be in the way of what is new, then row by row what they say, and
// last it ends what else they lack, when all refusals are known.
func (im *importing) reconcile(ctx context.Context) error {
	b := im.newBatch(0)
	flush := func(file int32) error {
		if b.events == 0 || !im.full(b) && (b.file < 0 || file == b.file) {
			return nil
		}
		full := b
		b = im.newBatch(0)
		return im.write(ctx, full)
	}
	// Also what an interrupted run wrote and nobody wants any more.
	rest := func() error {
		for ki, k := range im.keys.all() {
			if k.clean || k.spoken && !im.ending || !slices.ContainsFunc(k.held(), func(h held) bool { return h.mine || h.ours }) {
				continue
			}
			if err := flush(b.file); err != nil {
				return err
			}
			im.add(b, ki, 0)
		}
		return nil
	}
	if im.feed.Full {
		if err := rest(); err != nil {
			return err
		}
		if err := im.write(ctx, b); err != nil {
			return err
		}
		b = im.newBatch(0)
	}
	im.addRow(b, 0)
	for _, nodesOnly := range []bool{true, false} { // an edge may need a node that a later file lists
		for row, r := range im.rows.all() {
			if row == 0 || r.nodesOnly != nodesOnly || r.refused {
				continue
			}
			if err := flush(r.file); err != nil {
				return err
			}
			im.done++
			im.addRow(b, row)
		}
	}
	im.ending = true
	if im.feed.Full {
		for _, k := range im.keys.all() {
			k.clean = k.clean && !slices.ContainsFunc(k.held(), func(h held) bool { return h.ours })
		}
	}
	if err := rest(); err != nil {
		return err
	}
	return im.write(ctx, b)
}

// wake makes every row count that is not refused.
func (im *importing) wake() {
	for row, r := range im.rows.all() {
		if !r.refused {
			im.activate(row, true)
		}
	}
}

// knownAt returns when the source of a history import knew a row.
func (im *importing) knownAt(row int32) hierarchy.Interval {
	if row == 0 {
		return hierarchy.Always
	}
	return im.times[row-1]
}

// replay writes what the rows wanted at each instant of the source.
func (im *importing) replay(ctx context.Context) error {
	type turn struct {
		at  hierarchy.Instant
		row int32
		on  bool
	}
	first := im.w.now
	for i, r := range im.rows.all() {
		if known := im.knownAt(i); !r.refused {
			if known.From != hierarchy.Never {
				first = min(first, known.From)
			}
			first = min(first, known.To)
		}
	}
	var turns []turn
	for i, r := range im.rows.all() {
		if r.refused {
			continue
		}
		known := im.knownAt(i)
		turns = append(turns, turn{max(known.From, first), i, true})
		if known.To != hierarchy.Forever {
			turns = append(turns, turn{known.To, i, false})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.row, b.row)) })
	for len(turns) > 0 {
		at := turns[0].at
		n := slices.IndexFunc(turns, func(t turn) bool { return t.at != at })
		if n < 0 {
			n = len(turns)
		}
		for _, t := range turns[:n] {
			if !im.rows.at(t.row).refused {
				im.activate(t.row, t.on)
			}
		}
		b := im.newBatch(at)
		for _, t := range turns[:n] {
			r := im.rows.at(t.row)
			if b.events > 0 && (im.full(b) || b.file >= 0 && r.file != b.file) {
				if err := im.write(ctx, b); err != nil {
					return err
				}
				b = im.newBatch(at)
			}
			if t.on {
				im.done++
			}
			im.addRow(b, t.row)
		}
		if err := im.write(ctx, b); err != nil {
			return err
		}
		turns = turns[n:]
	}
	return nil
}

// resume finds what an interrupted run has written.
func (im *importing) resume(ctx context.Context) error {
	if im.feed.DryRun {
		return nil
	}
	p := im.p
	i := slices.IndexFunc(p.graph.Imports(), func(m hierarchy.Import) bool { return m.ID == im.feed.ID })
	if i < 0 {
		return nil
	}
	first := p.graph.Tip().Revision
	for ; first > 0; first-- {
		if b, ok := p.graph.Batch(first); ok && b.Import != nil && b.Import.ID == im.feed.ID && b.Import.Step == hierarchy.ImportOpen {
			break
		}
	}
	im.report.Resumed = true
	if im.feed.History {
		var err error
		im.again, err = newAgain(ctx, p.store, first)
		return err
	}
	im.open = true
	mine := map[hierarchy.FactID]int32{}
	for e, err := range p.store.Read(ctx, first-1) {
		if err != nil {
			return &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
		}
		b, err := hierarchy.Decode(e.Body)
		if err != nil {
			return &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
		}
		if b.Import == nil || b.Import.ID != im.feed.ID {
			continue
		}
		for i, ev := range b.Events {
			if ev.Op == hierarchy.Assert {
				id := hierarchy.FactID{Revision: e.Revision, Index: uint32(i)}
				im.stands(hierarchy.Fact{ID: id, Event: ev}, true)
				mine[id], _ = im.known(&ev)
				continue
			}
			// A fact of the import, or one that it ends or replaces.
			ki, ok := mine[ev.Fact]
			if !ok {
				f, known := p.View(im.w.now, 0).Fact(ev.Fact)
				if !known {
					continue
				}
				if ki, ok = im.known(&f.Event); !ok {
					continue
				}
			}
			x := im.key(ki).extra()
			switch at := indexOf(x.held, ev.Fact); {
			case at < 0:
			case ev.Op == hierarchy.End:
				x.held[at].valid.To = ev.At
			default:
				x.held = slices.Delete(x.held, at, at+1)
			}
		}
	}
	return nil
}

// again repeats the batches of an interrupted history import over the facts as
// they were before it: a run makes the same batches and meets the same
// refusals, so what it has to write begins where the repetition ends.
type again struct {
	graph *hierarchy.Graph
	queue []hierarchy.Entry
}

func newAgain(ctx context.Context, s hierarchy.Store, first uint64) (*again, error) {
	a := &again{graph: hierarchy.NewGraph()}
	fail := func(err error) (*again, error) {
		return nil, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
	}
	for e, err := range s.Read(ctx, 0) {
		if err != nil {
			return fail(err)
		}
		if e.Revision < first {
			if err := a.graph.Apply(e); err != nil {
				return fail(err)
			}
			continue
		}
		e.Body = slices.Clone(e.Body)
		a.queue = append(a.queue, e)
	}
	return a, nil
}

// next compares a change with the one that is stored in its place. It reports
// false when there is none.
func (a *again) next(c Change) ([]hierarchy.FactID, bool, error) {
	if len(a.queue) == 0 {
		return nil, false, nil
	}
	e := a.queue[0]
	stored, err := hierarchy.Decode(e.Body)
	if err != nil {
		return nil, false, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
	}
	if err := a.graph.Check(&hierarchy.Batch{Time: c.At, Import: c.Import, Events: c.Events, Provenance: stored.Provenance}); err != nil {
		return nil, false, err
	}
	have, err := json.Marshal(stored.Events)
	if err != nil {
		return nil, false, err
	}
	want, err := json.Marshal(c.Events)
	if err != nil {
		return nil, false, err
	}
	if !bytes.Equal(have, want) || stored.Time != c.At {
		return nil, false, &hierarchy.Refusal{Code: ImportChanged, Index: -1, Text: "the open import was begun otherwise: abandon it (--abandon) and start again"}
	}
	if err := a.graph.Apply(e); err != nil {
		return nil, false, err
	}
	a.queue = a.queue[1:]
	return factIDs(e.Revision, stored.Events), true, nil
}
