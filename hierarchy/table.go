package hierarchy

import (
	"cmp"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// This file is the memory of the graph: pages that are only ever appended to.
// One writer (under Graph.mu) fills them, any number of readers walk them
// without a lock. What makes that sound is one rule: a row is written before
// the head of any chain that leads to it is stored (atomically), and after that
// only its atomic fields change.

const (
	pageBits = 9
	pageSize = 1 << pageBits
)

// pages is a growing array in pages. Places that were never made do not exist.
type pages[T any] struct {
	dir atomic.Pointer[[]atomic.Pointer[[pageSize]T]]
}

// at returns the element, or nil where its page was never made.
func (p *pages[T]) at(i uint32) *T {
	dir := p.dir.Load()
	if dir == nil || int(i>>pageBits) >= len(*dir) {
		return nil
	}
	page := (*dir)[i>>pageBits].Load()
	if page == nil {
		return nil
	}
	return &page[i&(pageSize-1)]
}

// make returns the element, making its page. Writer only.
func (p *pages[T]) make(i uint32) *T {
	n := int(i >> pageBits)
	dir := p.dir.Load()
	if dir == nil || n >= len(*dir) {
		grown := make([]atomic.Pointer[[pageSize]T], max(4, 2*n))
		if dir != nil {
			for k := range *dir {
				grown[k].Store((*dir)[k].Load())
			}
		}
		dir = &grown
		p.dir.Store(dir) // readers of the old directory miss only what is new
	}
	page := (*dir)[n].Load()
	if page == nil {
		page = new([pageSize]T)
		(*dir)[n].Store(page)
	}
	return &page[i&(pageSize-1)]
}

// index chains the rows of a table by an interned key, newest first.
type index struct {
	heads  pages[atomic.Uint32] // by symbol: number of the newest row, 0 for none
	next   pages[uint32]        // by row: the next older one
	crowds *crowds              // nil where chains are walked however long they are
}

func (x *index) head(key uint32) uint32 {
	if p := x.heads.at(key); p != nil {
		return p.Load()
	}
	return 0
}

func (x *index) after(row uint32) uint32 { return *x.next.at(row) }

func (x *index) add(key, row uint32) {
	head := x.heads.make(key)
	*x.next.make(row) = head.Load()
	head.Store(row)
}

// long reports whether a chain has more than some rows.
func (x *index) long(key uint32, rows int) bool {
	n := x.head(key)
	for ; n != 0 && rows > 0; rows-- {
		n = x.after(n)
	}
	return n != 0
}

// crowds keep, for keys with many rows, those that are known sorted by their
// valid time, so that the few that hold at an instant are found without walking
// all that are over or to come. The first question after a change sorts.
type crowds struct {
	most    int                  // as many rows under one key are walked, more are sorted
	changed pages[atomic.Uint32] // by symbol: the last revision that changed which rows are known
	sorted  sync.Map             // by symbol: *crowd
}

// crowd is an interval tree: rows sorted by start, in which each part of the
// list bears the latest end of it at its middle.
type crowd struct {
	rev  uint32 // of which the rows are known
	rows []timed
}

type timed struct {
	valid Interval
	last  Instant
	row   uint32
}

// measure sets the latest ends of a part and returns its own.
func measure(part []timed) Instant {
	if len(part) == 0 {
		return Never
	}
	mid := len(part) / 2
	part[mid].last = max(part[mid].valid.To, measure(part[:mid]), measure(part[mid+1:]))
	return part[mid].last
}

// holding walks the rows of a part that hold at an instant, by their start.
func holding(part []timed, at Instant, yield func(uint32) bool) bool {
	if len(part) == 0 {
		return true
	}
	mid := len(part) / 2
	switch m := part[mid]; {
	case m.last <= at:
		return true
	case m.valid.From > at:
		return holding(part[:mid], at, yield)
	default:
		return holding(part[:mid], at, yield) && (m.valid.To <= at || yield(m.row)) && holding(part[mid+1:], at, yield)
	}
}

// next returns the first start after an instant.
func (c *crowd) next(at Instant) (Instant, bool) {
	n, _ := slices.BinarySearchFunc(c.rows, at, func(s timed, at Instant) int {
		if s.valid.From <= at {
			return -1
		}
		return 1
	})
	if n == len(c.rows) {
		return 0, false
	}
	return c.rows[n].valid.From, true
}

// Marks of a row's added field that are no revision. A row of an open import
// bears the number of the import's slot, so that it can be found and told apart.
const (
	deadMark    = math.MaxUint32 // never visible: voided within its import, or abandoned
	firstSlot   = deadMark - 1   // slot s is firstSlot-s
	maxSlots    = 1 << 12
	maxRevision = firstSlot - maxSlots
)

// row is one version of a fact. Ending a fact makes another row of it.
type row[T any] struct {
	valid   Interval
	added   atomic.Uint32 // revision from which it is known, or a mark
	removed atomic.Uint32 // revision from which it no longer is, 0 for never
	rev     uint32        // the fact: revision and index of the assertion
	idx     uint32
	fact    T
}

func (r *row[T]) id() FactID { return FactID{uint64(r.rev), r.idx} }

// visible reports whether the row is known at a revision.
func (r *row[T]) visible(rev uint32) bool {
	if r.added.Load() > rev {
		return false
	}
	removed := r.removed.Load()
	return removed == 0 || rev < removed
}

// table holds the rows of one kind of fact.
type table[T any] struct {
	rows    pages[row[T]]
	n       uint32 // rows so far; row 0 is not used. Writer only
	indexes []index
	keys    func(T) [maxIndexes]uint32 // the row's key in each index
}

const maxIndexes = 6

func newTable[T any](indexes int, keys func(T) [maxIndexes]uint32) *table[T] {
	return &table[T]{indexes: make([]index, indexes), keys: keys}
}

// add appends a row and chains it. A key of 0 is not chained.
func (t *table[T]) add(valid Interval, added uint32, fact FactID, what T) uint32 {
	t.n++
	r := t.rows.make(t.n)
	r.valid, r.rev, r.idx, r.fact = valid, uint32(fact.Revision), fact.Index, what
	r.added.Store(added)
	keys := t.keys(what)
	for i := range t.indexes {
		if keys[i] != 0 {
			t.indexes[i].add(keys[i], t.n)
		}
	}
	if added < maxRevision {
		t.changed(t.n, added)
	}
	return t.n
}

// changed notes the revision, not visible yet, from which a row is or is no
// longer known. Writer only.
func (t *table[T]) changed(n, rev uint32) {
	for i := range t.indexes {
		if x := t.indexes[i].crowds; x != nil {
			x.changed.make(t.keys(t.rows.at(n).fact)[i]).Store(rev)
		}
	}
}

// crowd returns the rows under a key that are known at a revision, sorted; nil
// where they are few, or where the revision is one before the last change.
func (t *table[T]) crowd(which int, key, rev uint32) *crowd {
	x := t.indexes[which].crowds
	if x == nil || !t.indexes[which].long(key, x.most) {
		return nil
	}
	kept, _ := x.sorted.Load(key) // first, so that changed tells of all that it may lack
	changed := uint32(0)
	if p := x.changed.at(key); p != nil {
		changed = p.Load()
	}
	if changed > rev {
		return nil
	}
	if c, ok := kept.(*crowd); ok && c.rev >= changed {
		return c
	}
	c := &crowd{rev: rev}
	for n, r := range t.each(which, key) {
		if r.visible(rev) {
			c.rows = append(c.rows, timed{valid: r.valid, row: n})
		}
	}
	slices.SortFunc(c.rows, func(a, b timed) int { return cmp.Compare(a.valid.From, b.valid.From) })
	measure(c.rows)
	x.sorted.Store(key, c)
	return c
}

// each walks the rows under a key, newest first, whatever their state.
func (t *table[T]) each(which int, key uint32) func(func(uint32, *row[T]) bool) {
	return func(yield func(uint32, *row[T]) bool) {
		x := &t.indexes[which]
		for n := x.head(key); n != 0; n = x.after(n) {
			if !yield(n, t.rows.at(n)) {
				return
			}
		}
	}
}

// sym is an interned text: an id, or a name of one of the classes below.
type sym = uint32

// Classes of symbols that are no ids; they stand where an id has its type.
const (
	classIssuer    = "\x00issuer"
	classIdentity  = "\x00identity" // of an issuer
	classRole      = "\x00role"
	classGrant     = "\x00grant"
	classEmergency = "\x00emergency"
	className      = "\x00name" // entitlement
	classPair      = "\x00pair" // (grantee, subject) of grants
	classKin       = "\x00kin"  // (grantee, subject, type) of grants
)

// symbols interns ids and names. Keys lie in byte slabs, the table is open addressing
// over symbol numbers; both hold no pointers. An id's tenant is the symbol of
// its Tenant node.
type symbols struct {
	seed  maphash.Seed
	n     uint32 // symbols so far; 0 is none. Writer only
	rows  pages[symbol]
	slots atomic.Pointer[[]atomic.Uint32] // length is a power of two
	slabs pages[[]byte]
	slab  uint32 // number of the slab being filled
	used  uint32 // bytes used of it

	types     atomic.Pointer[typeNames]
	typesLock sync.Mutex
}

type symbol struct {
	slab, off uint32
	tenant    sym
	len, typ  uint16
}

type typeNames struct {
	number map[string]uint16
	names  []string
}

const slabSize = 1 << 16

func newSymbols() *symbols {
	s := &symbols{seed: maphash.MakeSeed()}
	s.types.Store(&typeNames{number: map[string]uint16{}, names: []string{""}})
	slots := make([]atomic.Uint32, 64)
	s.slots.Store(&slots)
	return s
}

// typeNumber interns a type, class or edge kind; several goroutines may.
func (s *symbols) typeNumber(name string) uint16 {
	if n, ok := s.types.Load().number[name]; ok {
		return n
	}
	s.typesLock.Lock()
	defer s.typesLock.Unlock()
	old := s.types.Load()
	if n, ok := old.number[name]; ok {
		return n
	}
	if len(old.names) > math.MaxUint16 {
		return 0
	}
	t := &typeNames{number: make(map[string]uint16, len(old.number)+1), names: append(old.names[:len(old.names):len(old.names)], name)}
	for k, v := range old.number {
		t.number[k] = v
	}
	t.number[name] = uint16(len(old.names))
	s.types.Store(t)
	return t.number[name]
}

func (s *symbols) hash(typ uint16, tenant sym, key string) uint64 {
	h := maphash.String(s.seed, key) ^ (uint64(typ)<<32|uint64(tenant))*0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (s *symbols) key(r *symbol) string {
	if r.len == 0 {
		return ""
	}
	slab := *s.slabs.at(r.slab)
	return unsafe.String(&slab[r.off], int(r.len)) // slabs are never written twice
}

func (s *symbols) find(typ uint16, tenant sym, key string) sym {
	slots := *s.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := s.hash(typ, tenant, key) & mask; ; i = (i + 1) & mask {
		n := slots[i].Load()
		if n == 0 {
			return 0
		}
		if r := s.rows.at(n); r.typ == typ && r.tenant == tenant && s.key(r) == key {
			return n
		}
	}
}

// lookup returns the symbol of (class, tenant, key), or 0.
func (s *symbols) lookup(class string, tenant sym, key string) sym {
	typ, ok := s.types.Load().number[class]
	if !ok {
		return 0
	}
	return s.find(typ, tenant, key)
}

// lookupID returns the symbol of an id, or 0.
func (s *symbols) lookupID(id ID) sym {
	var tenant sym
	if id.Tenant != "" {
		if tenant = s.lookup(TenantType, 0, id.Tenant); tenant == 0 {
			return 0
		}
	}
	return s.lookup(id.Type, tenant, id.Key)
}

// intern returns the symbol of (class, tenant, key), making it. Writer only.
func (s *symbols) intern(class string, tenant sym, key string) sym {
	typ := s.typeNumber(class)
	if n := s.find(typ, tenant, key); n != 0 {
		return n
	}
	if slots := *s.slots.Load(); uint64(s.n+1)*4 > uint64(len(slots))*3 {
		s.grow(slots)
	}
	if len(key) > 0 {
		slab := s.slabs.at(s.slab)
		if slab == nil || int(s.used)+len(key) > len(*slab) {
			if slab != nil {
				s.slab++
			}
			slab = s.slabs.make(s.slab)
			*slab = make([]byte, slabSize)
			s.used = 0
		}
		copy((*slab)[s.used:], key)
	}
	s.n++
	*s.rows.make(s.n) = symbol{slab: s.slab, off: s.used, tenant: tenant, len: uint16(len(key)), typ: typ}
	s.used += uint32(len(key))
	s.place(*s.slots.Load(), s.n)
	return s.n
}

func (s *symbols) place(slots []atomic.Uint32, n sym) {
	r := s.rows.at(n)
	mask := uint64(len(slots) - 1)
	i := s.hash(r.typ, r.tenant, s.key(r)) & mask
	for slots[i].Load() != 0 {
		i = (i + 1) & mask
	}
	slots[i].Store(n)
}

func (s *symbols) grow(old []atomic.Uint32) {
	slots := make([]atomic.Uint32, 2*len(old))
	for n := sym(1); n <= s.n; n++ {
		s.place(slots, n)
	}
	s.slots.Store(&slots)
}

// internID returns the symbol of an id, making it. Writer only.
func (s *symbols) internID(id ID) sym {
	var tenant sym
	if id.Tenant != "" {
		tenant = s.intern(TenantType, 0, id.Tenant)
	}
	return s.intern(id.Type, tenant, id.Key)
}

// id returns the id of a symbol. Its texts share the slab.
func (s *symbols) id(n sym) ID {
	if n == 0 {
		return ID{}
	}
	r := s.rows.at(n)
	id := ID{Type: s.types.Load().names[r.typ], Key: s.key(r)}
	if r.tenant != 0 {
		id.Tenant = s.key(s.rows.at(r.tenant))
	}
	return id
}

// tenantOf returns the symbol of the Tenant node of a tenant-owned id.
func (s *symbols) tenantOf(n sym) sym { return s.rows.at(n).tenant }

// text returns the key of a symbol.
func (s *symbols) text(n sym) string { return s.key(s.rows.at(n)) }

// identity returns the issuer and sub of an identity.
func (s *symbols) identity(n sym) (issuer, sub string) {
	r := s.rows.at(n)
	return s.text(r.tenant), s.key(r)
}
