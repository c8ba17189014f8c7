package hierarchy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Graph holds every fact that was ever known, in append-only memory: nothing
// of it is deleted or rebuilt when a fact is ended or voided, when a policy set
// changes, or when a past revision is asked for.
//
// All methods may be called from several goroutines. Check and Apply take turns;
// nothing else waits for them.
type Graph struct {
	lock  sync.Mutex // of the writer: Check, Apply
	state atomic.Pointer[state]
	syms  *symbols

	nodes        *table[nodeRow]
	edges        *table[edgeRow]
	links        *table[linkRow]
	roles        *table[roleRow]
	assignments  *table[assignmentRow]
	entitlements *table[entitlementRow]
	grants       *table[grantRow]
	blocks       *table[blockRow]
	activations  *table[activationRow]
	settings     *table[settingRow]
	emergencies  *table[emergencyRow]
	signatures   *table[signatureRow]
	reviews      *table[reviewRow]
	tables       [KindReview + 1]anyTable

	revs  pages[revision]      // by revision number
	facts pages[atomic.Uint64] // by place of the event: kind and number of the fact's last row

	// The writer's alone.
	places  uint32                 // facts so far
	open    []*openImport          // in the order they were opened
	pending map[rowRef]*pendingEnd // rows of others that an open import ends or voids
	ties    int                    // edges and links (but for identities) asserted, but for abandoned ones
}

// state is what changes with each revision, published as one.
type state struct {
	head, tip Head
	last      Instant // time of the tip
	history   uint32  // first revision of a closed history import: earlier ones count as known since ever
	imports   []Import
}

type revision struct {
	hash  Hash
	info  *BatchInfo
	since atomic.Int64 // Instant from which it counts as known, never less than that of the one before
	base  uint32       // place of its first event
	n     uint32
}

type openImport struct {
	Import
	slot  uint32
	first uint32 // its first revision
	spans []span // rows it added
	undo  []undone
	ties  int
}

func (m *openImport) mark() uint32 { return firstSlot - m.slot }

// span is a run of rows of one table.
type span struct {
	kind   Kind
	lo, hi uint32 // lo < n <= hi
}

type rowRef struct {
	kind Kind
	row  uint32
}

func (r rowRef) pack() uint64            { return uint64(r.kind)<<32 | uint64(r.row) }
func unpack(v uint64) rowRef             { return rowRef{Kind(v >> 32), uint32(v)} }
func (r rowRef) table(g *Graph) anyTable { return g.tables[r.kind] }

type pendingEnd struct {
	by          *openImport
	place       uint32
	replacement uint32 // row, or 0 when voided
}

// undone is what abandoning a history import puts back.
type undone struct {
	row   rowRef
	place uint32
}

// anyTable is a table seen without its type.
type anyTable interface {
	version(n uint32) (Interval, FactID)
	added(n uint32) *atomic.Uint32
	removed(n uint32) *atomic.Uint32
	again(n uint32, valid Interval, added uint32) uint32
	find(like uint32, rev uint32) uint32
	count() uint32
	changed(n, rev uint32)
}

func (t *table[T]) version(n uint32) (Interval, FactID) { r := t.rows.at(n); return r.valid, r.id() }
func (t *table[T]) added(n uint32) *atomic.Uint32       { return &t.rows.at(n).added }
func (t *table[T]) removed(n uint32) *atomic.Uint32     { return &t.rows.at(n).removed }
func (t *table[T]) count() uint32                       { return t.n }

// again adds another row of the same fact.
func (t *table[T]) again(n uint32, valid Interval, added uint32) uint32 {
	r := t.rows.at(n)
	return t.add(valid, added, r.id(), r.fact)
}

// find returns the row of the same fact as row like that is visible at a
// revision, or 0.
func (t *table[T]) find(like uint32, rev uint32) uint32 {
	r := t.rows.at(like)
	if r.visible(rev) {
		return like
	}
	for n, o := range t.each(0, t.keys(r.fact)[0]) {
		if o.rev == r.rev && o.idx == r.idx && o.visible(rev) {
			return n
		}
	}
	return 0
}

type nodeRow struct {
	id        sym
	principal bool
	data      *nodeData // nil when it has neither
}

type nodeData struct {
	attrs  map[string]any
	person *Person
}

type edgeRow struct {
	child, parent sym
	kind          uint16
}

type linkRow struct {
	from, to sym // from is the identity for an identity link
	kind     uint8
}

// Numbers of link kinds in rows.
const (
	linkIdentity uint8 = 1 + iota
	linkSelf
	linkOwns
	linkMerge
	linkFamily
)

var linkNumbers = map[LinkKind]uint8{LinkIdentity: linkIdentity, LinkSelf: linkSelf, LinkOwns: linkOwns, LinkMerge: linkMerge, LinkFamily: linkFamily}
var linkNames = [...]LinkKind{"", LinkIdentity, LinkSelf, LinkOwns, LinkMerge, LinkFamily}

type roleRow struct {
	name sym
	role *Role
}

type assignmentRow struct{ principal, role, node sym }

type entitlementRow struct{ tenant, name sym }

type grantRow struct {
	id, grantee, pair, subject, kin sym
	author                          sym // who made the change
	grant                           *Grant
}

type blockRow struct {
	person, principal sym
	refusal           bool // else a court order
}

type activationRow struct{ activation *Activation }

type settingRow struct {
	tenant, name sym
	value        any
}

type emergencyRow struct {
	id, principal, person sym
	emergency             *Emergency
}

type signatureRow struct {
	grant     sym
	signature *Signature
}

type reviewRow struct {
	emergency sym
	review    *Review
}

// Indexes of the tables.
const (
	byChild, byParent       = 0, 1
	byFrom, byTo            = 0, 1
	byID, byGrantee, byPair = 0, 1, 2
	bySubject, byKin        = 3, 4 // of grants
	byAuthor                = 5    // of grants
	byPrincipal, byNode     = 0, 1
	byName, byTenant        = 0, 0
	byPerson                = 0
	byGrant, byEmergency    = 0, 0
	byOpener, byOpened      = 1, 2 // of emergencies
)

// NewGraph returns an empty graph, at revision 0.
func NewGraph() *Graph {
	g := &Graph{syms: newSymbols(), pending: map[rowRef]*pendingEnd{}}
	g.nodes = newTable(1, func(r nodeRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.id} })
	g.edges = newTable(2, func(r edgeRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.child, r.parent} })
	g.links = newTable(2, func(r linkRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.from, r.to} })
	g.roles = newTable(1, func(r roleRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.name} })
	g.assignments = newTable(2, func(r assignmentRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.principal, r.node} })
	g.entitlements = newTable(1, func(r entitlementRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.tenant} })
	g.grants = newTable(6, func(r grantRow) [maxIndexes]uint32 {
		return [maxIndexes]uint32{r.id, r.grantee, r.pair, r.subject, r.kin, r.author}
	})
	g.grants.indexes[byGrantee].crowds = &crowds{most: 64}
	g.grants.indexes[bySubject].crowds = &crowds{most: 64}
	g.grants.indexes[byKin].crowds = &crowds{most: 64}
	g.blocks = newTable(1, func(r blockRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.person} })
	g.activations = newTable(1, func(activationRow) [maxIndexes]uint32 { return [maxIndexes]uint32{1} })
	g.settings = newTable(1, func(r settingRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.tenant} })
	g.emergencies = newTable(3, func(r emergencyRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.id, r.principal, r.person} })
	g.signatures = newTable(1, func(r signatureRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.grant} })
	g.reviews = newTable(1, func(r reviewRow) [maxIndexes]uint32 { return [maxIndexes]uint32{r.emergency} })
	g.tables = [...]anyTable{
		KindNode: g.nodes, KindEdge: g.edges, KindLink: g.links, KindRole: g.roles,
		KindAssignment: g.assignments, KindEntitlement: g.entitlements,
		KindGrant: g.grants, KindBlock: g.blocks, KindActivation: g.activations, KindSetting: g.settings,
		KindEmergency: g.emergencies, KindSignature: g.signatures, KindReview: g.reviews,
	}
	g.state.Store(&state{})
	return g
}

// BatchInfo is what a revision carries beside its events.
type BatchInfo struct {
	Time       Instant
	Provenance Provenance
	Import     *Import // nil when it is none of an import's; not to be modified
	Record     uint64
}

// Load builds a graph from all that a store holds. It checks the hash chain:
// the number and Prev of every batch, and that the last hash is the store's
// head. Its errors name the revision.
func Load(ctx context.Context, s Store) (*Graph, error) {
	head, err := s.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	g := NewGraph()
	for e, err := range s.Read(ctx, 0) {
		if err != nil {
			return nil, fmt.Errorf("load: after revision %d: %w", g.Tip().Revision, err)
		}
		if err := g.Apply(e); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	// The store may have grown meanwhile; up to its head it must be what it said.
	if at, ok := g.HeadAt(head.Revision); !ok || at != head {
		return nil, fmt.Errorf("load: revision %d: the store's head has another hash, or revisions are missing: %w", head.Revision, ErrCorrupt)
	}
	return g, nil
}

// Head returns the last visible revision. While a history import is open it is
// the one before the import.
func (g *Graph) Head() Head { return g.state.Load().head }

// Tip returns the last applied revision, visible or not.
func (g *Graph) Tip() Head { return g.state.Load().tip }

// LastTime returns the transaction time of the tip, 0 when the graph is empty.
func (g *Graph) LastTime() Instant { return g.state.Load().last }

// HeadAt returns the head as it was after a revision, up to the tip.
func (g *Graph) HeadAt(rev uint64) (Head, bool) {
	if rev > g.Tip().Revision {
		return Head{}, false
	}
	if rev == 0 {
		return Head{}, true
	}
	return Head{rev, g.revs.at(uint32(rev)).hash}, true
}

// RevisionAt returns the last visible revision that Ward knew at an instant
// (transaction time), or 0. Facts of an import count from its closing revision.
//
// A history import carries the times of its source, which lie before those of
// the revisions that made the store. So once it is closed, every revision
// before it counts as known since ever, and a question known at an instant
// before its first time gives the last revision before the import. The
// revisions of an abandoned history import count as known when it was
// abandoned, or when the one before it was if that is later.
func (g *Graph) RevisionAt(known Instant) uint64 {
	st := g.state.Load()
	lo, hi := uint64(0), st.head.Revision // known(lo) holds
	if st.history > 0 {
		lo = uint64(st.history) - 1
	}
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		if Instant(g.revs.at(uint32(mid)).since.Load()) <= known {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}

// Batch returns what a revision carries beside its events, up to the tip.
func (g *Graph) Batch(rev uint64) (BatchInfo, bool) {
	if rev == 0 || rev > g.Tip().Revision {
		return BatchInfo{}, false
	}
	return *g.revs.at(uint32(rev)).info, true
}

// Imports returns the imports that are open, in the order they were opened.
// Their Step is [ImportOpen].
func (g *Graph) Imports() []Import { return slices.Clone(g.state.Load().imports) }

// EdgeKinds is a set of edge kinds, made by [Graph.EdgeKinds]. The zero value
// is the empty set: nothing confers.
type EdgeKinds struct{ set *kindSet } // a pointer, so that Views compare

type kindSet struct {
	g     *Graph
	names []string
	bits  []uint64
}

func (k EdgeKinds) has(kind uint16) bool {
	return k.set != nil && int(kind>>6) < len(k.set.bits) && k.set.bits[kind>>6]&(1<<(kind&63)) != 0
}

// EdgeKinds returns the set of the edge kinds that confer access. Kinds that no
// edge has yet count once one has.
func (g *Graph) EdgeKinds(names ...string) EdgeKinds {
	k := &kindSet{g: g, names: slices.Clone(names)}
	for _, name := range names {
		n := g.syms.typeNumber(edgeKindPrefix + name)
		for int(n>>6) >= len(k.bits) {
			k.bits = append(k.bits, 0)
		}
		if n != 0 {
			k.bits[n>>6] |= 1 << (n & 63)
		}
	}
	return EdgeKinds{k}
}

// edgeKindPrefix keeps the names of edge kinds apart from those of node types.
const edgeKindPrefix = "\x00edge "

// At returns the view of an instant as known at a revision. A revision beyond
// the head means the head; 0 knows nothing. Nothing is built or copied.
func (g *Graph) At(at Instant, rev uint64, confer EdgeKinds) View {
	if head := g.Head().Revision; rev > head {
		rev = head
	}
	if confer.set != nil && confer.set.g != g {
		confer = g.EdgeKinds(confer.set.names...)
	}
	return View{g: g, at: at, rev: uint32(rev), confer: confer}
}

// Apply applies a stored revision: the one after the tip. It checks the number,
// the hash of the revision before and that every event can be applied, but not
// the rules of Check, which held when the revision was written. After an error
// the graph is as it was. The revision becomes visible as a whole.
func (g *Graph) Apply(e Entry) error {
	g.lock.Lock()
	defer g.lock.Unlock()
	tip := g.state.Load().tip
	if e.Revision != tip.Revision+1 {
		return fmt.Errorf("revision %d: comes after revision %d: %w", e.Revision, tip.Revision, ErrCorrupt)
	}
	b, err := Decode(e.Body)
	if err != nil {
		return fmt.Errorf("revision %d: %w", e.Revision, err)
	}
	if b.Revision != e.Revision || b.Prev != tip.Hash {
		return fmt.Errorf("revision %d: names another number or another revision before it: %w", e.Revision, ErrCorrupt)
	}
	if err := g.applicable(b); err != nil {
		return fmt.Errorf("revision %d: %w", e.Revision, err)
	}
	g.apply(b, tip.Next(e.Body))
	return nil
}

var errFull = errors.New("the graph holds as many revisions or facts as it can")

// applicable says whether apply can run to its end.
func (g *Graph) applicable(b *Batch) error {
	if err := g.applicableSize(len(b.Events)); err != nil {
		return err
	}
	m, r := g.importOf(b)
	if r != nil {
		return r
	}
	own, others := false, false
	for i := range b.Events {
		if e := &b.Events[i]; e.Op != Assert {
			others = true
			own = own || e.Fact.Revision == b.Revision
		}
	}
	if !others {
		return nil
	}
	w := newWorld(g, b, m)
	for i := range b.Events {
		if e := &b.Events[i]; e.Op != Assert {
			if r := w.end(i, e); r != nil {
				return r
			}
		} else if own {
			w.asserted(i, e)
		}
	}
	return nil
}

// applicableSize keeps every number of the graph within its type.
func (g *Graph) applicableSize(events int) error {
	tip := g.state.Load().tip.Revision
	if tip+1 >= maxRevision || uint64(g.places)+uint64(events) >= 1<<30 || len(g.syms.types.Load().names)+4*events > math.MaxUint16 {
		return errFull
	}
	return nil
}

// importOf returns the open import that a batch belongs to, nil for none or one
// that the batch opens.
func (g *Graph) importOf(b *Batch) (*openImport, *Refusal) {
	var mine *openImport
	for _, m := range g.open {
		switch {
		case b.Import != nil && b.Import.ID == m.ID:
			mine = m
		case m.History:
			return nil, batchRefusal(CodeImportOpen, "a history import is open: close or abandon it first")
		}
	}
	switch {
	case b.Import == nil:
		return nil, nil
	case b.Import.Step != ImportOpen:
		if mine == nil || mine.Tenant != b.Import.Tenant || mine.History != b.Import.History {
			return nil, batchRefusal(CodeImportUnknown, "no import with this id, tenant and history is open")
		}
		return mine, nil
	case mine != nil:
		return nil, batchRefusal(CodeImportOpen, "an import with this id is open")
	}
	if b.Import.History && len(g.open) > 0 {
		return nil, batchRefusal(CodeImportOpen, "a history import cannot start while another import is open")
	}
	for _, m := range g.open {
		if m.Tenant == b.Import.Tenant {
			if m.Tenant == "" {
				return nil, batchRefusal(CodeImportOpen, "an import of shared data is open")
			}
			return nil, batchRefusal(CodeImportOpen, "an import of tenant %s is open", m.Tenant)
		}
	}
	if len(g.open) >= maxSlots {
		return nil, batchRefusal(CodeImportOpen, "too many imports are open")
	}
	if b.Import.History && g.ties > 0 {
		return nil, batchRefusal(CodeStoreNotEmpty, "a history import needs a store without edges and links")
	}
	return nil, nil
}

// current returns the place and the last row of a fact of a revision up to last,
// as a batch of import m may touch it: by has another import that is ending it.
func (g *Graph) current(f FactID, kind Kind, m *openImport, last uint64) (place uint32, ref rowRef, by *openImport, ok bool) {
	if f.Revision == 0 || f.Revision > last {
		return 0, rowRef{}, nil, false
	}
	rev := g.revs.at(uint32(f.Revision))
	if f.Index >= rev.n {
		return 0, rowRef{}, nil, false
	}
	place = rev.base + f.Index
	ref = unpack(g.facts.at(place).Load())
	if ref.row == 0 || ref.kind != kind {
		return 0, rowRef{}, nil, false
	}
	t := g.tables[kind]
	if added := t.added(ref.row).Load(); added >= maxRevision && (m == nil || added != m.mark()) {
		return 0, rowRef{}, nil, false
	}
	if t.removed(ref.row).Load() != 0 {
		return 0, rowRef{}, nil, false
	}
	if p := g.pending[ref]; p != nil {
		if p.by != m {
			return place, ref, p.by, true
		}
		if p.replacement == 0 {
			return 0, rowRef{}, nil, false
		}
		ref.row = p.replacement
	}
	return place, ref, nil, true
}

func (g *Graph) apply(b *Batch, next Head) {
	old := g.state.Load()
	m, _ := g.importOf(b)
	rev := uint32(next.Revision)
	if b.Import != nil && b.Import.Step == ImportOpen {
		m = &openImport{Import: *b.Import, first: rev}
		for slices.ContainsFunc(g.open, func(o *openImport) bool { return o.slot == m.slot }) {
			m.slot++
		}
		g.open = append(g.open, m)
	}
	added := rev
	if m != nil && !m.History {
		added = m.mark()
	}
	var before [len(g.tables)]uint32
	for k, t := range g.tables {
		if t != nil {
			before[k] = t.count()
		}
	}

	r := g.revs.make(rev)
	r.hash, r.base, r.n = next.Hash, g.places, uint32(len(b.Events))
	r.info = &BatchInfo{b.Time, b.Provenance, b.Import, b.Record}
	for i := range b.Events {
		place := g.facts.make(g.places)
		g.places++
		if e := &b.Events[i]; e.Op == Assert {
			row := g.assert(e, added, FactID{next.Revision, uint32(i)}, b.Provenance.Who)
			place.Store(rowRef{e.Kind, row}.pack())
			if e.Kind == KindEdge || e.Kind == KindLink && e.Link.Kind != LinkIdentity {
				g.ties++
				if m != nil {
					m.ties++
				}
			}
		} else {
			g.finish(e, rev, m)
		}
	}

	if m != nil {
		for k, t := range g.tables {
			if t != nil && t.count() > before[k] {
				m.spans = append(m.spans, span{Kind(k), before[k], t.count()})
			}
		}
	}

	// When the revision counts as known.
	st := &state{head: old.head, tip: next, last: b.Time, history: old.history}
	since := int64(b.Time)
	if rev > 1 && !(m != nil && m.History && m.first == rev) {
		since = max(since, g.revs.at(rev-1).since.Load())
	}
	r.since.Store(since)
	if m == nil || !m.History {
		st.head = next
	}
	if m != nil && b.Import.Step == ImportClose {
		g.close(m, rev)
		st.head = next
		if m.History {
			st.history = m.first
		}
	}
	if m != nil && b.Import.Step == ImportAbandon {
		g.abandon(m, rev)
		st.head = next
	}
	for _, o := range g.open {
		st.imports = append(st.imports, Import{ID: o.ID, Tenant: o.Tenant, Step: ImportOpen, History: o.History})
	}
	g.state.Store(st) // and with this it is visible
}

// finish ends or voids a fact.
func (g *Graph) finish(e *Event, rev uint32, m *openImport) {
	place, ref, _, _ := g.current(e.Fact, e.Kind, m, uint64(rev))
	t := ref.table(g)
	valid, _ := t.version(ref.row)
	valid.To = e.At
	switch last := unpack(g.facts.at(place).Load()); {
	case m != nil && !m.History && (ref.row != last.row || t.added(ref.row).Load() == m.mark()):
		// A row of this very import, or its replacement of another's row.
		replacement := uint32(0)
		if e.Op == End {
			replacement = t.again(ref.row, valid, m.mark())
		}
		t.added(ref.row).Store(deadMark)
		if p := g.pending[last]; p != nil {
			p.replacement = replacement
		} else if replacement != 0 {
			g.facts.at(place).Store(rowRef{e.Kind, replacement}.pack())
		}
	case m != nil && !m.History:
		p := &pendingEnd{by: m, place: place}
		if e.Op == End {
			p.replacement = t.again(ref.row, valid, m.mark())
		}
		g.pending[ref] = p
	default:
		if m != nil {
			m.undo = append(m.undo, undone{ref, place})
		}
		if e.Op == End {
			replacement := t.again(ref.row, valid, rev)
			g.facts.at(place).Store(rowRef{e.Kind, replacement}.pack())
		}
		t.removed(ref.row).Store(rev)
		t.changed(ref.row, rev)
	}
}

// close makes an import's rows known from revision rev on.
func (g *Graph) close(m *openImport, rev uint32) {
	g.shut(m)
	if m.History {
		return // its rows bear their own revisions
	}
	for ref, p := range g.pending {
		if p.by != m {
			continue
		}
		ref.table(g).removed(ref.row).Store(rev)
		ref.table(g).changed(ref.row, rev)
		if p.replacement != 0 {
			g.facts.at(p.place).Store(rowRef{ref.kind, p.replacement}.pack())
		}
		delete(g.pending, ref)
	}
	g.remark(m, m.mark(), rev)
}

func (g *Graph) shut(m *openImport) {
	g.open = slices.DeleteFunc(g.open, func(o *openImport) bool { return o == m })
}

// remark gives the rows of an import that bear one mark another.
func (g *Graph) remark(m *openImport, from, to uint32) {
	for _, s := range m.spans {
		t := g.tables[s.kind]
		for n := s.lo + 1; n <= s.hi; n++ {
			if t.added(n).CompareAndSwap(from, to) && to < maxRevision {
				t.changed(n, to)
			}
		}
	}
}

// abandon makes an import's rows never visible.
func (g *Graph) abandon(m *openImport, rev uint32) {
	g.shut(m)
	g.ties -= m.ties
	if !m.History {
		for ref, p := range g.pending {
			if p.by == m {
				delete(g.pending, ref)
			}
		}
		g.remark(m, m.mark(), deadMark)
		return
	}
	for _, s := range m.spans {
		for n := s.lo + 1; n <= s.hi; n++ {
			g.tables[s.kind].added(n).Store(deadMark)
		}
	}
	for _, u := range slices.Backward(m.undo) {
		u.row.table(g).removed(u.row.row).Store(0)
		g.facts.at(u.place).Store(u.row.pack())
	}
	// Their source times say nothing now.
	since := int64(g.revs.at(rev).info.Time)
	if m.first > 1 {
		since = max(since, g.revs.at(m.first-1).since.Load())
	}
	for n := m.first; n <= rev; n++ {
		g.revs.at(n).since.Store(since)
	}
}

// assert adds the row of a fact that somebody asserts.
func (g *Graph) assert(e *Event, added uint32, f FactID, author ID) uint32 {
	id := g.syms.internID
	switch e.Kind {
	case KindNode:
		n := nodeRow{id: id(e.Node.ID), principal: e.Node.Principal}
		if len(e.Node.Attrs) > 0 || e.Node.Person != nil {
			n.data = &nodeData{e.Node.Attrs, e.Node.Person}
		}
		return g.nodes.add(e.Valid, added, f, n)
	case KindEdge:
		return g.edges.add(e.Valid, added, f, edgeRow{id(e.Edge.Child), id(e.Edge.Parent), g.syms.typeNumber(edgeKindPrefix + e.Edge.Kind)})
	case KindLink:
		l := linkRow{to: id(e.Link.To), kind: linkNumbers[e.Link.Kind]}
		if l.kind == linkIdentity {
			l.from = g.syms.intern(classIdentity, g.syms.intern(classIssuer, 0, e.Link.Issuer), e.Link.Sub)
		} else {
			l.from = id(e.Link.From)
		}
		return g.links.add(e.Valid, added, f, l)
	case KindRole:
		return g.roles.add(e.Valid, added, f, roleRow{g.syms.intern(classRole, 0, e.Role.Name), e.Role})
	case KindAssignment:
		a := e.Assignment
		return g.assignments.add(e.Valid, added, f, assignmentRow{id(a.Principal), g.syms.intern(classRole, 0, a.Role), id(a.Node)})
	case KindEntitlement:
		return g.entitlements.add(e.Valid, added, f, entitlementRow{id(e.Entitlement.Tenant), g.syms.intern(className, 0, e.Entitlement.Name)})
	case KindGrant:
		grantee, subject := id(e.Grant.Grantee), id(e.Grant.Subject)
		pair := g.syms.intern(classPair, grantee, pairKey(subject))
		return g.grants.add(e.Valid, added, f, grantRow{
			id:      g.syms.intern(classGrant, 0, e.Grant.ID),
			grantee: grantee,
			pair:    pair,
			subject: subject,
			kin:     g.syms.intern(classKin, pair, e.Grant.Type),
			author:  id(author),
			grant:   e.Grant,
		})
	case KindBlock:
		return g.blocks.add(e.Valid, added, f, blockRow{id(e.Block.Person), id(e.Block.Principal), e.Block.Basis == "refusal"})
	case KindSetting:
		x := e.Setting
		return g.settings.add(e.Valid, added, f, settingRow{id(x.Tenant), g.syms.intern(className, 0, x.Name), x.Value})
	case KindEmergency:
		x := e.Emergency
		return g.emergencies.add(e.Valid, added, f, emergencyRow{g.syms.intern(classEmergency, 0, x.ID), id(x.Principal), id(x.Person), x})
	case KindSignature:
		return g.signatures.add(e.Valid, added, f, signatureRow{g.syms.intern(classGrant, 0, e.Signature.Grant), e.Signature})
	case KindReview:
		return g.reviews.add(e.Valid, added, f, reviewRow{g.syms.intern(classEmergency, 0, e.Review.Emergency), e.Review})
	default: // KindActivation; wellFormed knows no other
		return g.activations.add(e.Valid, added, f, activationRow{e.Activation})
	}
}

func pairKey(subject sym) string {
	return string([]byte{byte(subject), byte(subject >> 8), byte(subject >> 16), byte(subject >> 24)})
}

// event returns the assertion that a row stands for, with its present valid time.
func (g *Graph) event(ref rowRef) Event {
	e := Event{Op: Assert, Kind: ref.kind}
	e.Valid, _ = ref.table(g).version(ref.row)
	id := g.syms.id
	switch ref.kind {
	case KindNode:
		n := g.node(&g.nodes.rows.at(ref.row).fact)
		e.Node = &n
	case KindEdge:
		edge := g.edge(&g.edges.rows.at(ref.row).fact)
		e.Edge = &edge
	case KindLink:
		l := g.links.rows.at(ref.row).fact
		e.Link = &Link{Kind: linkNames[l.kind], To: id(l.to)}
		if l.kind == linkIdentity {
			e.Link.Issuer, e.Link.Sub = g.syms.identity(l.from)
		} else {
			e.Link.From = id(l.from)
		}
	case KindRole:
		e.Role = g.roles.rows.at(ref.row).fact.role
	case KindAssignment:
		a := g.assignment(&g.assignments.rows.at(ref.row).fact)
		e.Assignment = &a
	case KindEntitlement:
		x := g.entitlements.rows.at(ref.row).fact
		e.Entitlement = &Entitlement{id(x.tenant), g.syms.text(x.name)}
	case KindGrant:
		e.Grant = g.grants.rows.at(ref.row).fact.grant
	case KindBlock:
		b := g.block(&g.blocks.rows.at(ref.row).fact)
		e.Block = &b
	case KindActivation:
		e.Activation = g.activations.rows.at(ref.row).fact.activation
	case KindSetting:
		x := g.settings.rows.at(ref.row).fact
		e.Setting = &Setting{id(x.tenant), g.syms.text(x.name), x.value}
	case KindEmergency:
		e.Emergency = g.emergencies.rows.at(ref.row).fact.emergency
	case KindSignature:
		e.Signature = g.signatures.rows.at(ref.row).fact.signature
	case KindReview:
		e.Review = g.reviews.rows.at(ref.row).fact.review
	}
	return e
}

func (g *Graph) node(r *nodeRow) Node {
	n := Node{ID: g.syms.id(r.id), Principal: r.principal}
	if r.data != nil {
		n.Attrs, n.Person = r.data.attrs, r.data.person
	}
	return n
}

func (g *Graph) edge(r *edgeRow) Edge {
	return Edge{g.syms.id(r.child), g.syms.types.Load().names[r.kind][len(edgeKindPrefix):], g.syms.id(r.parent)}
}

func (g *Graph) assignment(r *assignmentRow) Assignment {
	return Assignment{g.syms.id(r.principal), g.syms.text(r.role), g.syms.id(r.node)}
}

func (g *Graph) block(r *blockRow) Block {
	basis := "court-order"
	if r.refusal {
		basis = "refusal"
	}
	return Block{g.syms.id(r.person), g.syms.id(r.principal), basis}
}
