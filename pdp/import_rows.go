package pdp

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
)

// This file holds what the rows of a feed say, key by key. A feed of a million
// rows speaks of four million facts, so what every one of them needs is small
// and without pointers, and what few need (what stands, a second row that says
// otherwise) lies apart.

// numbering gives numbers to values that lie elsewhere: open addressing over
// the numbers, so that it holds no pointers.
type numbering[K comparable] struct {
	seed  maphash.Seed
	slots []int32 // number plus one; the length is a power of two
	n     int
	at    func(int32) K
}

func newNumbering[K comparable](at func(int32) K) numbering[K] {
	return numbering[K]{seed: maphash.MakeSeed(), slots: make([]int32, 64), at: at}
}

// find returns the number of a value, or where it would go.
func (x *numbering[K]) find(k K) (number int32, slot int, ok bool) {
	mask := len(x.slots) - 1
	for slot = int(maphash.Comparable(x.seed, k)) & mask; x.slots[slot] != 0; slot = (slot + 1) & mask {
		if n := x.slots[slot] - 1; x.at(n) == k {
			return n, slot, true
		}
	}
	return 0, slot, false
}

// add puts down a number for a value that find did not find.
func (x *numbering[K]) add(number int32, slot int) {
	x.slots[slot] = number + 1
	if x.n++; 4*x.n <= 3*len(x.slots) {
		return
	}
	old := x.slots
	x.slots = make([]int32, 2*len(old))
	for _, s := range old {
		if s != 0 {
			_, slot, _ := x.find(x.at(s - 1))
			x.slots[slot] = s
		}
	}
}

// pool is a list in pages: it grows without being copied.
type pool[T any] struct {
	pages []*[poolPage]T
	n     int32
}

const poolPage = 4096

func (p *pool[T]) at(i int32) *T { return &p.pages[i/poolPage][i%poolPage] }

func (p *pool[T]) add(v T) int32 {
	if p.n%poolPage == 0 {
		p.pages = append(p.pages, new([poolPage]T))
	}
	p.n++
	*p.at(p.n - 1) = v
	return p.n - 1
}

func (p *pool[T]) all() iter.Seq2[int32, *T] {
	return func(yield func(int32, *T) bool) {
		for i := range p.n {
			if !yield(i, p.at(i)) {
				return
			}
		}
	}
}

// factKey is what makes two assertions speak of one fact. Ids and names are
// numbers of importing.ids.
type factKey struct {
	kind hierarchy.Kind
	name int32 // of an edge, link, role, entitlement or grant; an identity
	a, b int32
}

// wanted is a fact of the feed: what stands, and what the rows want.
type wanted struct {
	key    factKey
	first  share
	more   *more
	wrote  place32 // what this import asserted, where that is the first share and all there is
	made   int32   // the file that implied this node, plus one; 0 for none
	spoken bool    // first is set
	turned bool    // of a mutual link: it was said from b to a
	clean  bool    // what stands is what is wanted
	lived  bool    // a node or edge that held when the import began
	doubt  bool    // a refused row speaks of it: nothing ends by absence
}

// place32 is a FactID in half the space; the zero value is none.
type place32 struct{ revision, index uint32 }

// more is what few facts have.
type more struct {
	shares []share // besides the first
	held   []held
	bad    *Reason // why no row may assert it
}

// share is what some rows say alike.
type share struct {
	valid       hierarchy.Interval
	what        *said // nil when there is nothing beside the key
	first, last int32 // mentions, in order of the rows
	live        int32 // how many of the rows count now
	owner       int32 // the row to which the share is put down, or -1
	implied     bool
	ends        bool // the fact that holds at valid.To ends there
}

// said is what an assertion says beside its key.
type said struct {
	attrs     map[string]any
	principal bool
	grant     *hierarchy.Grant
	text      string // of the grant, canonical
}

func (s *said) equal(o *said) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.principal == o.principal && s.text == o.text && len(s.attrs) == len(o.attrs) && (len(s.attrs) == 0 || reflect.DeepEqual(s.attrs, o.attrs))
}

func (s *said) attributes() map[string]any {
	if s == nil {
		return nil
	}
	return s.attrs
}

// saidBy returns what an event says beside its key.
func saidBy(e *hierarchy.Event) *said {
	switch {
	case e.Node != nil && (len(e.Node.Attrs) > 0 || e.Node.Principal):
		return &said{attrs: e.Node.Attrs, principal: e.Node.Principal}
	case e.Grant != nil:
		text, _ := json.Marshal(e.Grant)
		return &said{grant: e.Grant, text: string(text)}
	}
	return nil
}

// held is a fact that stands.
type held struct {
	id    hierarchy.FactID
	was   hierarchy.Interval // before this import
	valid hierarchy.Interval // as this import left it
	node  *hierarchy.Node    // of a node
	what  *said              // of a grant
	mine  bool               // asserted by this very import
	ours  bool               // asserted by an earlier feed of the same source, of a kind that ends by absence
	fed   bool               // and left as it stands by one
}

// mention is what a row says of a fact. The mentions of a row follow each other.
type mention struct {
	row, key, share int32
	next            int32 // of the same share, or -1
}

type feedRow struct {
	file, line int32
	says       int32 // its first mention
	n          int16 // how many
	nodesOnly  bool
	active     bool
	loaded     bool
	refused    bool
}

// number returns the number of an id, making it. That of none is 0.
func (im *importing) number(id hierarchy.ID) int32 {
	if id.IsZero() {
		return 0
	}
	n, slot, ok := im.numbers.find(id)
	if !ok {
		id.Type, id.Tenant = im.once(id.Type), im.once(id.Tenant)
		id.Key = strings.Clone(id.Key) // not the line that it came in
		n = im.ids.add(id)
		im.numbers.add(n, slot)
	}
	return n
}

// once returns a text that is repeated often, kept once.
func (im *importing) once(s string) string {
	t, ok := im.texts[s]
	if !ok {
		t = strings.Clone(s)
		im.texts[t] = t
	}
	return t
}

func (im *importing) id(n int32) hierarchy.ID { return *im.ids.at(n) }

// named gives a number to a name: it is no id, for it has no type.
func named(s string) hierarchy.ID { return hierarchy.ID{Key: s} }

// identity is the name of an identity link.
func identityName(l *hierarchy.Link) string { return "identity\x00" + l.Issuer + "\x00" + l.Sub }

// parts returns the kind, name and ends of what an event asserts, and false for
// kinds that no feed may assert.
func parts(e *hierarchy.Event) (name string, a, b hierarchy.ID, ok bool) {
	switch {
	case e.Kind == hierarchy.KindNode && e.Node != nil:
		return "", e.Node.ID, hierarchy.ID{}, true
	case e.Kind == hierarchy.KindEdge && e.Edge != nil:
		return e.Edge.Kind, e.Edge.Child, e.Edge.Parent, true
	case e.Kind == hierarchy.KindLink && e.Link != nil && e.Link.Kind == hierarchy.LinkIdentity:
		return identityName(e.Link), hierarchy.ID{}, e.Link.To, true
	case e.Kind == hierarchy.KindLink && e.Link != nil:
		a, b = e.Link.From, e.Link.To
		if mutual(e.Link.Kind) && a.Key > b.Key {
			a, b = b, a
		}
		return string(e.Link.Kind), a, b, true
	case e.Kind == hierarchy.KindAssignment && e.Assignment != nil:
		return e.Assignment.Role, e.Assignment.Principal, e.Assignment.Node, true
	case e.Kind == hierarchy.KindEntitlement && e.Entitlement != nil:
		return e.Entitlement.Name, e.Entitlement.Tenant, hierarchy.ID{}, true
	case e.Kind == hierarchy.KindGrant && e.Grant != nil:
		return e.Grant.ID, hierarchy.ID{}, hierarchy.ID{}, true
	}
	return "", hierarchy.ID{}, hierarchy.ID{}, false
}

// mutual: the link is the same the other way round.
func mutual(k hierarchy.LinkKind) bool {
	return k == hierarchy.LinkMerge || k == hierarchy.LinkFamily
}

// keyOf returns the key of what an event asserts, making numbers.
func (im *importing) keyOf(e *hierarchy.Event) (factKey, bool) {
	name, a, b, ok := parts(e)
	return factKey{e.Kind, im.number(named(name)), im.number(a), im.number(b)}, ok
}

// known returns the key of what an event asserts if the feed speaks of it.
func (im *importing) known(e *hierarchy.Event) (int32, bool) {
	name, a, b, ok := parts(e)
	key := factKey{kind: e.Kind}
	for _, part := range []struct {
		id   hierarchy.ID
		into *int32
	}{{named(name), &key.name}, {a, &key.a}, {b, &key.b}} {
		if ok && !part.id.IsZero() {
			*part.into, _, ok = im.numbers.find(part.id)
		}
	}
	if !ok {
		return 0, false
	}
	n, _, ok := im.byKey.find(key)
	return n, ok
}

func (im *importing) key(i int32) *wanted { return im.keys.at(i) }

// keyed returns what there is of a key, making it, and what it ends at.
func (im *importing) keyed(key factKey) int32 {
	k, slot, ok := im.byKey.find(key)
	if ok {
		return k
	}
	k = im.keys.add(wanted{key: key})
	im.byKey.add(k, slot)
	if key.kind != hierarchy.KindNode {
		for _, end := range [...]int32{key.a, key.b} {
			if end != 0 {
				im.node(end)
			}
		}
	}
	return k
}

// node returns the key of a node, making it.
func (im *importing) node(id int32) int32 { return im.keyed(factKey{kind: hierarchy.KindNode, a: id}) }

// ends yields the nodes that a fact needs.
func (im *importing) ends(k *wanted) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		switch k.key.kind {
		case hierarchy.KindNode:
		case hierarchy.KindGrant:
			for s := range k.each() {
				if s.what == nil {
					continue
				}
				for _, id := range grantEnds(s.what.grant) {
					if !yield(im.number(id)) {
						return
					}
				}
			}
		default:
			_ = (k.key.a == 0 || yield(k.key.a)) && (k.key.b == 0 || yield(k.key.b))
		}
	}
}

func grantEnds(g *hierarchy.Grant) []hierarchy.ID {
	return []hierarchy.ID{g.Grantor, g.Grantee, g.Subject}
}

// extra returns what few facts have, making it.
func (k *wanted) extra() *more {
	if k.more == nil {
		k.more = &more{held: k.held()}
		k.wrote = place32{}
	}
	return k.more
}

// held returns the facts that stand.
func (k *wanted) held() []held {
	if k.wrote != (place32{}) {
		h := held{id: hierarchy.FactID{Revision: uint64(k.wrote.revision), Index: k.wrote.index}, was: k.first.valid, valid: k.first.valid, what: k.first.what, mine: true}
		if k.key.kind == hierarchy.KindNode {
			h.node = &hierarchy.Node{Attrs: h.what.attributes(), Principal: h.what != nil && h.what.principal}
		}
		return []held{h}
	}
	if k.more == nil {
		return nil
	}
	return k.more.held
}

// written notes the fact that was asserted for a step.
func (k *wanted) written(s *step, id hierarchy.FactID) {
	if k.more == nil && k.wrote == (place32{}) && k.spoken && s.event.Valid == k.first.valid {
		k.wrote = place32{uint32(id.Revision), id.Index}
		return
	}
	x := k.extra()
	x.held = append(x.held, held{id: id, was: s.event.Valid, valid: s.event.Valid, node: s.event.Node, what: saidBy(&s.event), mine: true})
}

func (k *wanted) bad() *Reason {
	if k.more == nil {
		return nil
	}
	return k.more.bad
}

// share returns the i-th share.
func (k *wanted) share(i int32) *share {
	if i == 0 {
		return &k.first
	}
	return &k.more.shares[i-1]
}

func (k *wanted) shares() int32 {
	switch {
	case !k.spoken:
		return 0
	case k.more == nil:
		return 1
	}
	return int32(len(k.more.shares)) + 1
}

func (k *wanted) each() iter.Seq[*share] {
	return func(yield func(*share) bool) {
		for i := range k.shares() {
			if !yield(k.share(i)) {
				return
			}
		}
	}
}

// tenant makes the import's own row: its tenant, where that does not exist.
func (im *importing) tenant() {
	im.rows.add(feedRow{file: -1})
	if im.feed.Tenant == "" {
		return
	}
	view := im.w.graph.At(im.w.now, im.w.rev, im.w.confers)
	id := hierarchy.TenantID(im.feed.Tenant)
	if exists(view, id) {
		return
	}
	im.report.Tenant = im.feed.Tenant
	own := []Desired{{Implied: true, Event: hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindNode, Valid: hierarchy.Always, Node: &hierarchy.Node{ID: id}}}}
	cat := im.w.set.Catalogue()
	kinds := map[string]bool{}
	for name, k := range cat.Edges {
		if k.Confers && slices.Contains(k.From, hierarchy.TenantType) && slices.Contains(k.To, hierarchy.OperatorType) {
			kinds[name] = true
		}
	}
	for _, kind := range sorted(kinds) {
		own = append(own, Desired{Implied: true, Event: hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindEdge, Valid: hierarchy.Always,
			Edge: &hierarchy.Edge{Child: id, Kind: kind, Parent: operator(view)}}})
		break
	}
	for i := range own {
		key, _ := im.keyOf(&own[i].Event)
		im.say(0, &own[i], key)
	}
}

// take reads a row.
func (im *importing) take(row Row) {
	n := im.rows.add(feedRow{file: int32(row.File), line: int32(row.Line), nodesOnly: true, says: im.mentions.n})
	if im.feed.History {
		if row.Known.IsZero() {
			row.Known = hierarchy.Always
		}
		im.times = append(im.times, row.Known)
	}
	keys, r := im.refusal(&row)
	if r != nil {
		im.refuse(n, *r)
		if im.feed.Full { // what it speaks of is not gone
			for i := range row.Facts {
				if key, ok := im.keyOf(&row.Facts[i].Event); ok {
					im.key(im.keyed(key)).doubt = true
				}
			}
		}
		return
	}
	own := im.rows.at(n)
	for i := range row.Facts {
		f := &row.Facts[i]
		e := &f.Event
		own.nodesOnly = own.nodesOnly && e.Kind == hierarchy.KindNode
		switch {
		case e.Link != nil:
			im.links = im.links || e.Link.Kind != hierarchy.LinkOwns
		case e.Assignment != nil, e.Entitlement != nil, e.Grant != nil, e.Node != nil && e.Node.Principal:
			im.asks = append(im.asks, *e)
		}
		im.say(n, f, keys[i])
	}
}

// refusal says why a row cannot count, as far as the row alone tells, or what
// the keys of its facts are.
func (im *importing) refusal(row *Row) ([]factKey, *Reason) {
	now := im.w.now
	switch {
	case row.Refused != nil:
		return nil, &Reason{cut(row.Refused.Code, 64), cut(row.Refused.Text, 512)}
	case len(row.Facts) == 0:
		return nil, &Reason{RowEmpty, "the row asserts nothing"}
	case len(row.Facts) > MaxRowFacts:
		return nil, &Reason{RowTooLarge, fmt.Sprintf("a row asserts at most %d facts", MaxRowFacts)}
	case row.Known.IsZero():
	case row.Known.To <= row.Known.From:
		return nil, &Reason{RowKnownInverted, "the source withdrew the row before or when it learned it"}
	case row.Known.From > now || row.Known.To > now && row.Known.To != hierarchy.Forever:
		return nil, &Reason{RowKnownLater, "the source learns or withdraws the row after now"}
	case row.Known.To <= now && !im.feed.History:
		return nil, &Reason{RowObsolete, "the source has withdrawn the row; a history import (--history) reads such rows"}
	}
	keys := im.scratch[:len(row.Facts)]
	for i := range row.Facts {
		var r *Reason
		if keys[i], r = im.inadmissible(&row.Facts[i]); r != nil {
			if c := row.Facts[i].Column; c != "" {
				r = &Reason{r.Code, cut(c, 128) + ": " + r.Text}
			}
			return nil, r
		}
	}
	return keys, nil
}

// inadmissible returns the key of a fact of a row, or says why it cannot be one.
func (im *importing) inadmissible(f *Desired) (factKey, *Reason) {
	e := &f.Event
	key, ok := im.keyOf(e)
	if !ok || e.Op != hierarchy.Assert || f.Ends && (im.feed.History || e.Node != nil) {
		return key, &Reason{RowKind, "a feed asserts nodes, edges, links, assignments, grants and entitlements, and ends those that are no nodes"}
	}
	if f.Ends && e.Valid.To == hierarchy.Forever {
		return key, &Reason{RowEndsNothing, "the row ends something, and neither it nor the feed says when"}
	}
	if e.Valid.To <= e.Valid.From {
		return key, &Reason{hierarchy.CodeIntervalInverted, "the valid time ends at or before its start"}
	}
	if e.Link != nil && e.Link.From == e.Link.To {
		return key, &Reason{hierarchy.CodeEventInvalid, "a link ties two, not one to itself"}
	}
	if n := e.Node; n != nil && (n.Person != nil || len(n.Attrs) > 0 && n.ID.Type == hierarchy.PersonType) {
		return key, &Reason{RowPerson, "a feed says no more of a person than the key"}
	}
	known, _, ok := im.byKey.find(key)
	if ok && im.key(known).bad() != nil {
		return key, im.key(known).bad()
	}
	plain := e.Grant == nil && (e.Node == nil || len(e.Node.Attrs) == 0)
	if ok && plain && (e.Kind != hierarchy.KindNode || im.key(known).spoken) {
		return key, nil // looked at before
	}
	bad := im.admit(e)
	if bad != nil && plain && im.keys.n < MaxImportRows {
		im.key(im.keyed(key)).extra().bad = bad
	}
	return key, bad
}

// admit holds a fact against the rules for ids, the catalogue and the tenant of
// the import: what would refuse every row that asserts it. It completes what the
// pack adds to a grant.
func (im *importing) admit(e *hierarchy.Event) *Reason {
	var ids []hierarchy.ID
	ok := true
	own := func(id hierarchy.ID) bool { return im.feed.Tenant == "" || id.Owner() == im.feed.Tenant }
	cat := im.w.set.Catalogue()
	free := func(id hierarchy.ID) bool {
		return own(id) || id.Type == hierarchy.PersonType || isPrincipal(cat, id)
	}
	switch {
	case e.Node != nil:
		ids = append(ids, e.Node.ID)
		ok = own(e.Node.ID) || e.Node.ID.Type == hierarchy.PersonType || e.Node.Principal
		size := 0
		for k, v := range e.Node.Attrs {
			size += len(k) + len(fmt.Sprint(v))
		}
		if size > maxAttrBytes {
			return &Reason{RowTooLarge, fmt.Sprintf("a node's attributes are longer than %d bytes", maxAttrBytes)}
		}
	case e.Edge != nil:
		ids = append(ids, e.Edge.Child, e.Edge.Parent)
		ok = own(e.Edge.Child)
	case e.Link != nil:
		if ids = append(ids, e.Link.To); e.Link.Kind != hierarchy.LinkIdentity {
			ids = append(ids, e.Link.From)
		} else if len(e.Link.Issuer) > maxIdentityBytes || len(e.Link.Sub) > maxIdentityBytes || e.Link.Issuer == "" || e.Link.Sub == "" {
			return &Reason{hierarchy.CodeEventInvalid, fmt.Sprintf("an identity has an issuer and a subject of at most %d bytes", maxIdentityBytes)}
		}
		ok = e.Link.Kind != hierarchy.LinkOwns || own(e.Link.To)
	case e.Assignment != nil:
		ids = append(ids, e.Assignment.Principal, e.Assignment.Node)
		ok = own(e.Assignment.Node)
		if !im.role(e.Assignment.Role) {
			return &Reason{RowRole, "there is no role of this name"}
		}
	case e.Entitlement != nil:
		ids = append(ids, e.Entitlement.Tenant)
		ok = own(e.Entitlement.Tenant)
	case e.Grant != nil:
		g := e.Grant
		ids = append(ids, g.Grantor, g.Grantee, g.Subject)
		if !g.Scope.Coverage.IsZero() {
			ids = append(ids, g.Scope.Coverage)
		}
		ok = free(g.Subject) && free(g.Grantee) && (g.Scope.Coverage.IsZero() || own(g.Scope.Coverage))
	}
	for _, id := range ids {
		if err := id.Valid(); err != nil {
			return &Reason{hierarchy.CodeEventInvalid, err.Error()}
		}
	}
	if !ok {
		return &Reason{hierarchy.CodeTenancyViolation, "an import of tenant " + im.feed.Tenant + " must not touch this"}
	}
	if e.Node != nil && (e.Node.ID.Type == hierarchy.OperatorType || e.Node.ID.Type == hierarchy.NetworkType) {
		return &Reason{RowKind, "a feed does not make an operator or a network"}
	}
	c := *e
	if r := check(im.w, &c); r != nil {
		return &Reason{r.Code, r.Text} // names types and attributes only
	}
	if c.Grant != nil {
		e.Grant = c.Grant
	}
	return nil
}

// role reports whether a role is known, at any time.
func (im *importing) role(name string) bool {
	if im.roles == nil {
		im.roles = map[string]bool{}
		for f := range im.w.graph.At(im.w.now, im.w.rev, im.w.confers).Facts(hierarchy.KindRole) {
			im.roles[f.Event.Role.Name] = true
		}
	}
	return im.roles[name]
}

func cut(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// dangling refuses rows whose facts need what is nowhere, or end what is
// nowhere. Others that the facts do not admit show when they are written.
func (im *importing) dangling() {
	nowhere := func(id int32) bool {
		k := im.key(im.node(id))
		return !k.spoken && len(k.held()) == 0
	}
	for i, r := range im.rows.all() {
		for m := range im.says(r) {
			k := im.key(m.key)
			var why *Reason
			switch {
			case r.refused:
			case k.share(m.share).ends:
				if len(k.held()) == 0 {
					why = &Reason{RowEndsNothing, "nothing that the row ends is known"}
				}
			default:
				for id := range im.ends(k) {
					if !nowhere(id) {
						continue
					}
					if why = reasonOf(&hierarchy.Refusal{Code: hierarchy.CodeUnknownEnd}, k.key.kind); isPrincipal(im.w.set.Catalogue(), im.id(id)) {
						why = &Reason{RowPrincipal, "there is no principal with this id: make it known first"}
					}
					break
				}
			}
			if why != nil {
				im.refuse(i, *why)
				break
			}
		}
	}
}

// says yields what a row says.
func (im *importing) says(r *feedRow) iter.Seq[*mention] {
	return func(yield func(*mention) bool) {
		for i := range int32(r.n) {
			if !yield(im.mentions.at(r.says + i)) {
				return
			}
		}
	}
}

// rowsOf yields the rows that say a share, in order.
func (im *importing) rowsOf(s *share) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for m := s.first; m >= 0; m = im.mentions.at(m).next {
			if !yield(im.mentions.at(m).row) {
				return
			}
		}
	}
}

// say puts down a fact to a row.
func (im *importing) say(row int32, f *Desired, key factKey) {
	e := &f.Event
	ki := im.keyed(key)
	k := im.key(ki)
	if e.Link != nil && !k.spoken {
		k.turned = e.Link.From != im.id(key.a)
	}
	if e.Grant != nil {
		for _, id := range grantEnds(e.Grant) {
			im.node(im.number(id))
		}
	}
	what := saidBy(e)
	valid := e.Valid
	if f.Ends {
		what, valid.From = nil, hierarchy.Never
	}
	si := int32(0)
	for ; si < k.shares(); si++ {
		if s := k.share(si); s.valid == valid && s.implied == f.Implied && s.ends == f.Ends && s.what.equal(what) {
			break
		}
	}
	if si == k.shares() {
		s := share{valid: valid, implied: f.Implied, ends: f.Ends, what: what, first: -1, last: -1, owner: -1}
		if si == 0 {
			k.first, k.spoken = s, true
		} else {
			x := k.extra()
			x.shares = append(x.shares, s)
		}
	}
	r := im.rows.at(row)
	for m := range im.says(r) {
		if m.key == ki && m.share == si {
			return
		}
	}
	m := im.mentions.add(mention{row: row, key: ki, share: si, next: -1})
	if r.n == 0 {
		r.says = m
	}
	r.n++
	if s := k.share(si); s.first < 0 {
		s.first, s.last = m, m
	} else {
		im.mentions.at(s.last).next, s.last = m, m
	}
}

// stands notes a fact that is there, if the feed speaks of it or a full feed
// should.
func (im *importing) stands(f hierarchy.Fact, mine bool) {
	e, id := f.Event, f.ID
	ki, ok := im.known(&e)
	ours := !mine && im.feed.Full && im.ours(&e, id)
	if !ok {
		if !mine && !ours {
			return
		}
		key, ok := im.keyOf(&e)
		if !ok {
			return
		}
		ki = im.keyed(key) // nobody wants it any more
	}
	h := held{id: id, was: e.Valid, valid: e.Valid, mine: mine, ours: ours, fed: !mine && im.bySource(f.Revision)}
	if e.Node != nil {
		n := *e.Node
		h.node = &n
	}
	if e.Grant != nil {
		h.what = saidBy(&e)
	}
	k := im.key(ki)
	k.lived = k.lived || !mine && e.Kind <= hierarchy.KindEdge && e.Valid.Holds(im.at())
	x := k.extra()
	x.held = append(x.held, h)
}

// count sums the rows up.
func (im *importing) count() {
	for i := range im.report.Files {
		f := &im.report.Files[i]
		f.Rows, f.Loaded, f.Unchanged, f.Refused, f.Implied = 0, 0, 0, 0, 0
	}
	for _, r := range im.rows.all() {
		if r.file < 0 {
			continue
		}
		f := &im.report.Files[r.file]
		f.Rows++
		switch {
		case r.refused:
			f.Refused++
		case r.loaded:
			f.Loaded++
		default:
			f.Unchanged++
		}
	}
	for _, k := range im.keys.all() {
		if k.made > 0 && (im.feed.History || slices.ContainsFunc(k.held(), func(h held) bool { return h.mine })) {
			im.report.Files[k.made-1].Implied++
		}
	}
	order := map[string]int{}
	for i, f := range slices.Backward(im.feed.Files) {
		order[f.Name] = i
	}
	slices.SortStableFunc(im.report.Refusals, func(a, b RefusedRow) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
}

// refuse drops a row, and everything it says.
func (im *importing) refuse(row int32, why Reason) {
	r := im.rows.at(row)
	if r.refused || r.file < 0 {
		return
	}
	r.refused = true
	im.report.Refusals = append(im.report.Refusals, RefusedRow{im.feed.Files[r.file].Name, int(r.line), why.Code, why.Text})
	for m := range im.says(r) {
		im.key(m.key).doubt = true
	}
	if r.active {
		im.activate(row, false)
	}
}

// activate makes a row count, or count no longer.
func (im *importing) activate(row int32, on bool) {
	r := im.rows.at(row)
	if r.active == on {
		return
	}
	r.active = on
	for m := range im.says(r) {
		k := im.key(m.key)
		sh := k.share(m.share)
		if on {
			if sh.live++; sh.live == 1 {
				sh.owner, k.clean = row, false
			}
			continue
		}
		sh.live--
		if sh.owner == row {
			sh.owner = -1
			for other := range im.rowsOf(sh) {
				if im.rows.at(other).active {
					sh.owner = other
					break
				}
			}
		}
		if sh.live == 0 || r.refused {
			k.clean = false
		}
	}
}
