package hierarchy

import (
	"fmt"
	"strconv"
)

// Check says whether a batch can be applied after the tip, by all the rules of
// this package; its error is a [*Refusal] that names the first event at fault.
// The events are taken in order, so a later one may build on an earlier one.
// Nothing changes.
//
// Check sees the facts of every open import as well, so that closing an import
// cannot fail: a fact that conflicts with one of an open import is refused. What
// a fact builds on must hold without the imports of others, and must go on
// holding when they close.
//
// A Revision or Prev that is set and is not the next one is [ErrConflict].
func (g *Graph) Check(b *Batch) error {
	if err := wellFormed(b); err != nil {
		return err
	}
	g.lock.Lock()
	defer g.lock.Unlock()
	st := g.state.Load()
	if b.Revision != 0 && b.Revision != st.tip.Revision+1 || b.Prev != (Hash{}) && b.Prev != st.tip.Hash {
		return fmt.Errorf("check: the batch does not follow revision %d: %w", st.tip.Revision, ErrConflict)
	}
	if err := g.applicableSize(len(b.Events)); err != nil {
		return err
	}
	m, r := g.importOf(b)
	if r != nil {
		return r
	}
	if b.Time < st.last && !(b.Import != nil && b.Import.History && b.Import.Step == ImportOpen) {
		return batchRefusal(CodeTimeReversed, "transaction time is before %s, that of revision %d", st.last, st.tip.Revision)
	}
	w := newWorld(g, b, m)
	for i := range b.Events {
		e := &b.Events[i]
		r := w.limited(i, e)
		if r == nil && e.Op != Assert {
			r = w.end(i, e)
		} else if r == nil {
			if r = w.check(i, e); r == nil {
				w.asserted(i, e)
			}
		}
		if r != nil {
			return r
		}
	}
	return nil
}

// world is the graph as a batch finds it, with what the batch has done so far.
//
// It is seen in two ways. What conflicts (overlaps, cycles, limits) looks at
// every row that is or may become true: those of all open imports too. What a
// fact needs (nodes, roles) looks only at what is certain: rows that are
// visible or of the same import, no longer than any open import leaves them.
type world struct {
	g      *Graph
	m      *openImport // the import of the batch, if it is open
	tenant string      // the only tenant that the batch may touch, or empty
	tip    uint64
	time   Instant // of the batch

	gone map[rowRef]bool // rows of the graph that the batch ended or voided
	mine map[FactID]own  // facts that the batch asserted or changed

	local map[ID]sym // symbols the graph does not have
	ids   []ID
	kinds map[string]uint16 // edge kinds the graph does not have

	nodes        overlay[nodeRow]
	edges        overlay[edgeRow]
	links        overlay[linkRow]
	roles        overlay[roleRow]
	assignments  overlay[assignmentRow]
	entitlements overlay[entitlementRow]
	grants       overlay[grantRow]
	blocks       overlay[blockRow]
	settings     overlay[settingRow]
	emergencies  overlay[emergencyRow]
	signatures   overlay[signatureRow]
	reviews      overlay[reviewRow]
	tables       [KindReview + 1]anyOverlay
}

// own is the present row of a fact in an overlay; dead when it is voided.
type own struct {
	kind Kind
	row  int
	dead bool
}

const firstLocal = 1 << 31

// overlay is a table with the rows that a batch adds.
type overlay[T any] struct {
	kind Kind
	base *table[T]
	rows []*row[T]
	by   [maxIndexes]map[sym][]int
}

type anyOverlay interface {
	take(ref rowRef) int             // copies a row of the graph
	again(n int, valid Interval) int // another row of the same fact, in its place
	kill(n int)                      // voids a row
	valid(n int) Interval
}

func (o *overlay[T]) add(valid Interval, f FactID, what T) int {
	r := &row[T]{valid: valid, rev: uint32(f.Revision), idx: f.Index, fact: what}
	o.rows = append(o.rows, r)
	keys := o.base.keys(what)
	for i := range o.base.indexes {
		if o.by[i] == nil {
			o.by[i] = map[sym][]int{}
		}
		if keys[i] != 0 {
			o.by[i][keys[i]] = append(o.by[i][keys[i]], len(o.rows)-1)
		}
	}
	return len(o.rows) - 1
}

func (o *overlay[T]) take(ref rowRef) int {
	r := o.base.rows.at(ref.row)
	return o.add(r.valid, r.id(), r.fact)
}

func (o *overlay[T]) again(n int, valid Interval) int {
	o.kill(n)
	return o.add(valid, o.rows[n].id(), o.rows[n].fact)
}

func (o *overlay[T]) kill(n int)           { o.rows[n].removed.Store(1) }
func (o *overlay[T]) valid(n int) Interval { return o.rows[n].valid }

func newWorld(g *Graph, b *Batch, m *openImport) *world {
	w := &world{
		g: g, m: m, tip: g.state.Load().tip.Revision, time: b.Time,
		gone: map[rowRef]bool{}, mine: map[FactID]own{}, local: map[ID]sym{}, kinds: map[string]uint16{},
	}
	if b.Import != nil {
		w.tenant = b.Import.Tenant
	}
	w.nodes = overlay[nodeRow]{kind: KindNode, base: g.nodes}
	w.edges = overlay[edgeRow]{kind: KindEdge, base: g.edges}
	w.links = overlay[linkRow]{kind: KindLink, base: g.links}
	w.roles = overlay[roleRow]{kind: KindRole, base: g.roles}
	w.assignments = overlay[assignmentRow]{kind: KindAssignment, base: g.assignments}
	w.entitlements = overlay[entitlementRow]{kind: KindEntitlement, base: g.entitlements}
	w.grants = overlay[grantRow]{kind: KindGrant, base: g.grants}
	w.blocks = overlay[blockRow]{kind: KindBlock, base: g.blocks}
	w.settings = overlay[settingRow]{kind: KindSetting, base: g.settings}
	w.emergencies = overlay[emergencyRow]{kind: KindEmergency, base: g.emergencies}
	w.signatures = overlay[signatureRow]{kind: KindSignature, base: g.signatures}
	w.reviews = overlay[reviewRow]{kind: KindReview, base: g.reviews}
	w.tables = [...]anyOverlay{
		KindNode: &w.nodes, KindEdge: &w.edges, KindLink: &w.links, KindRole: &w.roles,
		KindAssignment: &w.assignments, KindEntitlement: &w.entitlements,
		KindGrant: &w.grants, KindBlock: &w.blocks, KindActivation: nil, KindSetting: &w.settings,
		KindEmergency: &w.emergencies, KindSignature: &w.signatures, KindReview: &w.reviews,
	}
	return w
}

// conflicting walks the rows under a key that are or may become true.
func conflicting[T any](w *world, o *overlay[T], which int, key sym) func(func(Interval, *row[T]) bool) {
	return rowsOf(w, o, which, key, false)
}

// certain walks the rows under a key that a fact of this batch may build on,
// with the valid time that is left to them.
func certain[T any](w *world, o *overlay[T], which int, key sym) func(func(Interval, *row[T]) bool) {
	return rowsOf(w, o, which, key, true)
}

func rowsOf[T any](w *world, o *overlay[T], which int, key sym, certain bool) func(func(Interval, *row[T]) bool) {
	return func(yield func(Interval, *row[T]) bool) {
		for n, r := range o.base.each(which, key) {
			added := r.added.Load()
			if added == deadMark || r.removed.Load() != 0 {
				continue
			}
			if certain && added >= maxRevision && (w.m == nil || added != w.m.mark()) {
				continue
			}
			ref := rowRef{o.kind, n}
			if w.gone[ref] {
				continue
			}
			valid := r.valid
			if p := w.g.pending[ref]; p != nil {
				if p.by == w.m || certain && p.replacement == 0 {
					continue
				}
				if certain {
					valid = o.base.rows.at(p.replacement).valid
				}
			}
			if !yield(valid, r) {
				return
			}
		}
		for _, n := range o.by[which][key] {
			if r := o.rows[n]; r.removed.Load() == 0 && !yield(r.valid, r) {
				return
			}
		}
	}
}

// Symbols: those of the graph, and for what it does not have local ones, so
// that a refused batch leaves nothing behind.

func (w *world) named(local ID, found sym) sym {
	if found != 0 {
		return found
	}
	n, ok := w.local[local]
	if !ok {
		n = firstLocal + sym(len(w.ids))
		w.local[local] = n
		w.ids = append(w.ids, local)
	}
	return n
}

func (w *world) sym(id ID) sym           { return w.named(id, w.g.syms.lookupID(id)) }
func (w *world) roleSym(name string) sym { return w.class(classRole, name) }

func (w *world) class(class, name string) sym {
	return w.named(ID{Type: class, Key: name}, w.g.syms.lookup(class, 0, name))
}

func (w *world) identity(issuer, sub string) sym {
	found := w.g.syms.lookup(classIssuer, 0, issuer)
	if found != 0 {
		found = w.g.syms.lookup(classIdentity, found, sub)
	}
	return w.named(ID{classIdentity, issuer, sub}, found)
}

func (w *world) pair(grantee, subject sym) sym {
	var found sym
	if grantee < firstLocal && subject < firstLocal {
		found = w.g.syms.lookup(classPair, grantee, pairKey(subject))
	}
	return w.named(ID{classPair, strconv.Itoa(int(grantee)), strconv.Itoa(int(subject))}, found)
}

// kindNumber returns the number of an edge kind, or a local one.
func (w *world) kindNumber(kind string) uint16 {
	if n, ok := w.g.syms.types.Load().number[edgeKindPrefix+kind]; ok {
		return n
	}
	n, ok := w.kinds[kind]
	if !ok {
		n = uint16(0xffff - len(w.kinds))
		w.kinds[kind] = n
	}
	return n
}

// asserted adds an asserted fact to the world.
func (w *world) asserted(i int, e *Event) {
	f := FactID{w.tip + 1, uint32(i)}
	row := 0
	switch e.Kind {
	case KindNode:
		row = w.nodes.add(e.Valid, f, nodeRow{w.sym(e.Node.ID), e.Node.Principal, &nodeData{e.Node.Attrs, e.Node.Person}})
	case KindEdge:
		row = w.edges.add(e.Valid, f, edgeRow{w.sym(e.Edge.Child), w.sym(e.Edge.Parent), w.kindNumber(e.Edge.Kind)})
	case KindLink:
		row = w.links.add(e.Valid, f, w.linkRow(e.Link))
	case KindRole:
		row = w.roles.add(e.Valid, f, roleRow{w.roleSym(e.Role.Name), e.Role})
	case KindAssignment:
		a := e.Assignment
		row = w.assignments.add(e.Valid, f, assignmentRow{w.sym(a.Principal), w.roleSym(a.Role), w.sym(a.Node)})
	case KindEntitlement:
		row = w.entitlements.add(e.Valid, f, entitlementRow{w.sym(e.Entitlement.Tenant), w.class(className, e.Entitlement.Name)})
	case KindGrant:
		grantee, subject := w.sym(e.Grant.Grantee), w.sym(e.Grant.Subject)
		row = w.grants.add(e.Valid, f, grantRow{id: w.class(classGrant, e.Grant.ID), grantee: grantee,
			pair: w.pair(grantee, subject), subject: subject, grant: e.Grant})
	case KindBlock:
		row = w.blocks.add(e.Valid, f, blockRow{w.sym(e.Block.Person), w.sym(e.Block.Principal), e.Block.Basis == "refusal"})
	case KindSetting:
		row = w.settings.add(e.Valid, f, settingRow{w.sym(e.Setting.Tenant), w.class(className, e.Setting.Name), e.Setting.Value})
	case KindEmergency:
		x := e.Emergency
		row = w.emergencies.add(e.Valid, f, emergencyRow{w.class(classEmergency, x.ID), w.sym(x.Principal), w.sym(x.Person), x})
	case KindSignature:
		row = w.signatures.add(e.Valid, f, signatureRow{w.class(classGrant, e.Signature.Grant), e.Signature})
	case KindReview:
		row = w.reviews.add(e.Valid, f, reviewRow{w.class(classEmergency, e.Review.Emergency), e.Review})
	default:
		return // an activation is neither ended nor voided, and conflicts with nothing
	}
	w.mine[f] = own{kind: e.Kind, row: row}
}

func (w *world) linkRow(l *Link) linkRow {
	r := linkRow{to: w.sym(l.To), kind: linkNumbers[l.Kind]}
	if r.kind == linkIdentity {
		r.from = w.identity(l.Issuer, l.Sub)
	} else {
		r.from = w.sym(l.From)
	}
	return r
}

// end ends or voids a fact in the world, or says why it cannot be.
func (w *world) end(i int, e *Event) *Refusal {
	const unknown = "no fact of this kind has this id, or it is voided"
	o := w.tables[e.Kind]
	mine, ok := w.mine[e.Fact]
	if ok && (mine.dead || mine.kind != e.Kind) {
		return refuse(i, e, CodeUnknownFact, unknown)
	}
	if !ok {
		_, ref, by, ok := w.g.current(e.Fact, e.Kind, w.m, w.tip)
		if !ok {
			return refuse(i, e, CodeUnknownFact, unknown)
		}
		if by != nil {
			return refuse(i, e, CodeImportOpen, "an open import is ending or voiding this fact")
		}
		mine = own{kind: e.Kind, row: o.take(ref)}
		if r := w.endable(i, e, mine); r != nil {
			o.kill(mine.row)
			return r
		}
		w.gone[ref] = true
	} else if r := w.endable(i, e, mine); r != nil {
		return r
	}
	if e.Op == Void {
		o.kill(mine.row)
		mine.dead = true
	} else {
		valid := o.valid(mine.row)
		mine.row = o.again(mine.row, Interval{valid.From, e.At})
	}
	w.mine[e.Fact] = mine
	return nil
}

// endable checks the instant of an end.
func (w *world) endable(i int, e *Event, mine own) *Refusal {
	valid := w.tables[e.Kind].valid(mine.row)
	switch {
	case e.Op == Void:
		return nil
	case e.At <= valid.From:
		return refuse(i, e, CodeIntervalInverted, "the end lies at or before the start of the fact")
	case e.At >= valid.To:
		return refuse(i, e, CodeUnknownFact, "the fact has ended by then already")
	}
	return nil
}
