package hierarchy

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

// View answers about one instant as known at one revision. It is a small value:
// copy it, keep it, ask it from any goroutine (one with a [Reading] from one at
// a time). The zero View knows nothing.
//
// A fact counts when its valid time holds the instant. Besides, an edge confers
// only while its parent exists, and an assignment counts only while its
// principal exists and once its node does: ending a Node takes away what hangs
// on it, but not the roles at it, which still reach what hung on it before;
// voiding it takes those away too. All others count by their own time alone: a
// block or merge must not vanish because a duplicate Person was ended.
//
// Maps and slices inside what a View returns are shared and must not be modified.
type View struct {
	g       *Graph
	at      Instant
	rev     uint32
	confer  EdgeKinds
	reading *Reading
}

var nothing = NewGraph()

func (v View) graph() *Graph {
	if v.g == nil {
		return nothing
	}
	return v.g
}

// Instant returns the instant that the view is of.
func (v View) Instant() Instant { return v.at }

// Revision returns the revision that the view is of.
func (v View) Revision() uint64 { return uint64(v.rev) }

// Reading returns the same view, noting in r every row that it examines.
func (v View) Reading(r *Reading) View { v.reading = r; return v }

// Reading notes what views of one instant examined. It is for one goroutine at
// a time.
type Reading struct {
	bounded bool
	until   Instant
	facts   map[FactID]struct{}
}

// NewReading returns an empty reading.
func NewReading() *Reading { return &Reading{} }

// Until returns the earliest instant after the view's at which time alone
// changes any row that was examined: the start of one that is not true yet, the
// end of one that is; the majority that ends a grant. [Forever] if there is
// none. Before it the answers stay the same.
func (r *Reading) Until() Instant {
	if !r.bounded {
		return Forever
	}
	return r.until
}

// Note adds a boundary of the caller's own.
func (r *Reading) Note(at Instant) {
	if !r.bounded || at < r.until {
		r.bounded, r.until = true, at
	}
}

// Facts returns the live facts that were used, sorted, each once.
func (r *Reading) Facts() []FactID {
	facts := make([]FactID, 0, len(r.facts))
	for f := range r.facts {
		facts = append(facts, f)
	}
	slices.SortFunc(facts, compareFacts)
	return facts
}

func compareFacts(a, b FactID) int {
	return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Index, b.Index))
}

// examine notes the next change of a row.
func (r *Reading) examine(valid Interval, at Instant) {
	switch {
	case r == nil:
	case valid.From > at:
		r.Note(valid.From)
	case valid.To > at && valid.To != Forever:
		r.Note(valid.To)
	}
}

// use notes a live fact.
func (r *Reading) use(f FactID) {
	if r == nil {
		return
	}
	if r.facts == nil {
		r.facts = map[FactID]struct{}{}
	}
	r.facts[f] = struct{}{}
}

// known walks the rows under a key that match and are known at the view's
// revision, live or not.
func known[T any](v View, t *table[T], which int, key sym, match func(*T) bool) iter.Seq[*row[T]] {
	return func(yield func(*row[T]) bool) {
		if key == 0 {
			return
		}
		x := &t.indexes[which]
		for n := x.head(key); n != 0; n = x.after(n) {
			r := t.rows.at(n)
			if !r.visible(v.rev) || match != nil && !match(&r.fact) {
				continue
			}
			v.reading.examine(r.valid, v.at)
			if !yield(r) {
				return
			}
		}
	}
}

// live walks the rows under a key that match and hold at the view's instant.
func live[T any](v View, t *table[T], which int, key sym, match func(*T) bool) iter.Seq[*row[T]] {
	return func(yield func(*row[T]) bool) {
		if match == nil {
			if c := t.crowd(which, key, v.rev); c != nil {
				v.crowd(c, func(n uint32) bool {
					r := t.rows.at(n)
					v.reading.examine(r.valid, v.at)
					v.reading.use(r.id())
					return yield(r)
				})
				return
			}
		}
		for r := range known(v, t, which, key, match) {
			if !r.valid.Holds(v.at) {
				continue
			}
			v.reading.use(r.id())
			if !yield(r) {
				return
			}
		}
	}
}

// crowd walks the rows of a crowd that hold, and notes when the next one begins.
func (v View) crowd(c *crowd, yield func(uint32) bool) {
	if at, ok := c.next(v.at); ok && v.reading != nil {
		v.reading.Note(at)
	}
	holding(c.rows, v.at, yield)
}

// EdgeFact is an edge with its valid time and the fact that asserted it.
type EdgeFact struct {
	Edge
	Valid Interval
	Fact  FactID
}

// AssignmentFact is an assignment with its valid time and the fact that
// asserted it.
type AssignmentFact struct {
	Assignment
	Valid Interval
	Fact  FactID
}

// GrantFact is a grant with the time in which it is live.
type GrantFact struct {
	Grant
	Fact  FactID
	Valid Interval // its own
	// Effective is the valid time that is left by the whole chain and, where any
	// grant of it ends at majority, by the majority of the subject (the earliest
	// that is known of its merged identities). The grant is live where it holds:
	// never when it is empty, as when a grant of the chain is voided, a signature
	// is missing or the majority is not known. Of several signatures of a need it
	// is left by the one that holds, else the last that ended, else the first to
	// come: it is true around the instant, not for all time.
	Effective Interval
	// Chain names the grants from the root to this one.
	Chain []FactID
	// ByMajority tells that Effective ends at the majority of the subject.
	ByMajority bool
	// Voided tells that this grant, or one up its chain, is voided.
	Voided bool
	// Wider tells that this grant, or one up its chain, is wider than the one it
	// was made from. Check refuses to write such a grant.
	Wider bool
	// Revoked tells that it was ended before the time it was made for.
	Revoked bool
	// Missing lists what this grant, or one up its chain, needs and nobody has
	// signed: it is only requested then, and Effective is empty.
	Missing []Need
}

// GrantState says where a grant stands at an instant.
type GrantState string

// The states of a grant.
const (
	GrantRequested GrantState = "requested" // signatures are missing
	GrantFuture    GrantState = "future"    // it is not live yet
	GrantActive    GrantState = "active"
	GrantEnded     GrantState = "ended"   // by its time, its chain, or the subject's majority
	GrantRevoked   GrantState = "revoked" // sooner than it was made for
	GrantVoid      GrantState = "void"    // it never was
)

// State returns where the grant stands at an instant.
func (f *GrantFact) State(at Instant) GrantState {
	switch {
	case f.Voided:
		return GrantVoid
	case f.Revoked && f.Valid.To <= at:
		return GrantRevoked
	case len(f.Missing) > 0 && at < f.Valid.To:
		return GrantRequested
	case f.Effective.Holds(at):
		return GrantActive
	case at < f.Effective.From && f.Effective.From < f.Effective.To:
		return GrantFuture
	}
	return GrantEnded
}

// EmergencyFact is an emergency with its valid time and what its review said.
type EmergencyFact struct {
	Emergency
	Valid  Interval
	Fact   FactID
	Review *Review // nil as long as it waits for one
}

// SignatureFact is a signature with its valid time and the fact that asserted it.
type SignatureFact struct {
	Signature
	Valid Interval
	Fact  FactID
}

// LinkFact is a link with its valid time and the fact that asserted it.
type LinkFact struct {
	Link
	Valid Interval
	Fact  FactID
}

// BlockFact is a block with its valid time and the fact that asserted it.
type BlockFact struct {
	Block
	Valid Interval
	Fact  FactID
}

// Fact is any fact as known at a revision.
type Fact struct {
	ID    FactID
	Kind  Kind
	Valid Interval
	// Event asserts the fact with its present valid time.
	Event Event
	// Revision is that from which the fact is known as it stands here: that of
	// its assertion, of the closing of its import, or of its end.
	Revision uint64
}

// Node returns the node, person or principal with this id.
func (v View) Node(id ID) (Node, FactID, bool) {
	g := v.graph()
	for r := range live(v, g.nodes, byID, g.syms.lookupID(id), nil) {
		return g.node(&r.fact), r.id(), true
	}
	return Node{}, FactID{}, false
}

func (v View) exists(n sym) bool {
	for range live(v, v.graph().nodes, byID, n, nil) {
		return true
	}
	return false
}

// existed reports whether a node exists or has existed.
func (v View) existed(n sym) bool {
	for r := range known(v, v.graph().nodes, byID, n, nil) {
		if r.valid.From <= v.at {
			if r.valid.Holds(v.at) {
				v.reading.use(r.id())
			}
			return true
		}
	}
	return false
}

// EndedAt returns when a node that does not exist at the instant last did.
func (v View) EndedAt(id ID) (at Instant, ok bool) {
	g := v.graph()
	for r := range known(v, g.nodes, byID, g.syms.lookupID(id), nil) {
		if r.valid.Holds(v.at) {
			return 0, false
		}
		if r.valid.To <= v.at && (!ok || r.valid.To > at) {
			at, ok = r.valid.To, true
		}
	}
	return at, ok
}

// Known reports whether a node, person or principal with this id exists at any
// instant: it may have ended, or not have begun.
func (v View) Known(id ID) bool {
	g := v.graph()
	for range known(v, g.nodes, byID, g.syms.lookupID(id), nil) {
		return true
	}
	return false
}

func (v View) conferring(r *edgeRow) bool { return v.confer.has(r.kind) }

// parents yields the nodes that a node is under by one step: its Tenant by key
// (row is nil then), and the parents over conferring edges.
func (v View) parents(n sym) iter.Seq2[sym, *row[edgeRow]] {
	return func(yield func(sym, *row[edgeRow]) bool) {
		g := v.graph()
		if t := g.syms.tenantOf(n); t != 0 && !yield(t, nil) {
			return
		}
		for r := range live(v, g.edges, byChild, n, v.conferring) {
			if v.exists(r.fact.parent) && !yield(r.fact.parent, r) {
				return
			}
		}
	}
}

// set collects symbols in the order they come.
type set struct {
	list []sym
	have map[sym]struct{} // only when the list is long
}

func (s *set) add(n sym) bool {
	if s.have == nil {
		if slices.Contains(s.list, n) {
			return false
		}
		if len(s.list) == 32 {
			s.have = make(map[sym]struct{}, 128)
			for _, m := range s.list {
				s.have[m] = struct{}{}
			}
		}
	}
	if s.have != nil {
		if _, ok := s.have[n]; ok {
			return false
		}
		s.have[n] = struct{}{}
	}
	s.list = append(s.list, n)
	return true
}

// Closure returns the ids and all their ancestors over conferring edges. The
// key of a tenant's node names its tenant, so the Tenant node and its ancestors
// are among them even when no edge leads there. Sorted by text, each once.
func (v View) Closure(from ...ID) []ID {
	g := v.graph()
	var found set
	var ids []ID
	for _, id := range from {
		if id.IsZero() {
			continue
		}
		if n := g.syms.lookupID(id); n != 0 {
			found.add(n)
			continue
		}
		ids = append(ids, id) // the graph never heard of it
		if id.Tenant == "" {
			continue
		}
		if n := g.syms.lookupID(TenantID(id.Tenant)); n != 0 {
			found.add(n)
		} else {
			ids = append(ids, TenantID(id.Tenant))
		}
	}
	for i := 0; i < len(found.list); i++ {
		for parent := range v.parents(found.list[i]) {
			found.add(parent)
		}
	}
	ids = slices.Grow(ids, len(found.list))
	for _, n := range found.list {
		ids = append(ids, g.syms.id(n))
	}
	return sortIDs(ids)
}

// Reaches reports whether to is in Closure(from), without building it.
func (v View) Reaches(from, to ID) bool {
	if from.IsZero() || to.IsZero() {
		return false
	}
	if from == to || to.Type == TenantType && to == TenantID(from.Tenant) {
		return true
	}
	g := v.graph()
	start, goal := g.syms.lookupID(from), g.syms.lookupID(to)
	if start == 0 && from.Tenant != "" {
		start = g.syms.lookupID(TenantID(from.Tenant))
	}
	if start == 0 || goal == 0 {
		return false
	}
	found := set{list: []sym{start}}
	for i := 0; i < len(found.list); i++ {
		for parent := range v.parents(found.list[i]) {
			if parent == goal {
				return true
			}
			found.add(parent)
		}
	}
	return false
}

// Path returns a shortest way from an id up to another, for explanations: of
// several the one whose ids come first by text, and of several edges between
// two nodes the one whose kind does. A step that the tenant key alone makes has
// Kind "tenant" and a zero Fact; an edge is named before it.
func (v View) Path(from, to ID) ([]EdgeFact, bool) {
	if !v.Reaches(from, to) {
		return nil, false
	}
	type step struct {
		id   ID
		by   EdgeFact
		prev int
	}
	steps := []step{{id: from, prev: -1}}
	seen := map[ID]bool{from: true}
	for i := 0; i < len(steps); i++ {
		if steps[i].id == to {
			var path []EdgeFact
			for ; steps[i].prev >= 0; i = steps[i].prev {
				path = append(path, steps[i].by)
			}
			slices.Reverse(path)
			return path, true
		}
		for _, e := range v.stepsUp(steps[i].id) {
			if !seen[e.Parent] {
				seen[e.Parent] = true
				steps = append(steps, step{e.Parent, e, i})
			}
		}
	}
	return nil, false
}

// stepsUp returns the steps that Closure takes from an id, in order.
func (v View) stepsUp(id ID) []EdgeFact {
	g := v.graph()
	var up []EdgeFact
	if n := g.syms.lookupID(id); n != 0 {
		for parent, r := range v.parents(n) {
			if r != nil && parent == r.fact.parent {
				up = append(up, EdgeFact{g.edge(&r.fact), r.valid, r.id()})
			}
		}
	}
	slices.SortFunc(up, compareEdges)
	if id.Tenant != "" {
		step := EdgeFact{Edge{id, "tenant", TenantID(id.Tenant)}, Always, FactID{}}
		at := len(up)
		for i, e := range up {
			if compareIDs(e.Parent, step.Parent) > 0 {
				at = i
				break
			}
		}
		up = slices.Insert(up, at, step)
	}
	return up
}

func compareEdges(a, b EdgeFact) int {
	return cmp.Or(compareIDs(a.Parent, b.Parent), strings.Compare(a.Kind, b.Kind), compareIDs(a.Child, b.Child), compareFacts(a.Fact, b.Fact))
}

// Parents returns the edges of all kinds from a child that hold, sorted by
// parent and kind.
func (v View) Parents(child ID) []EdgeFact {
	g := v.graph()
	var list []EdgeFact
	for r := range live(v, g.edges, byChild, g.syms.lookupID(child), nil) {
		list = append(list, EdgeFact{g.edge(&r.fact), r.valid, r.id()})
	}
	slices.SortFunc(list, compareEdges)
	return list
}

// Children yields the edges of all kinds to a parent that hold, the last
// asserted first.
func (v View) Children(parent ID) iter.Seq[EdgeFact] {
	return func(yield func(EdgeFact) bool) {
		g := v.graph()
		for r := range live(v, g.edges, byParent, g.syms.lookupID(parent), nil) {
			if !yield(EdgeFact{g.edge(&r.fact), r.valid, r.id()}) {
				return
			}
		}
	}
}

// Principal returns the principal that an identity is.
func (v View) Principal(issuer, sub string) (ID, FactID, bool) {
	g := v.graph()
	iss := g.syms.lookup(classIssuer, 0, issuer)
	if iss == 0 {
		return ID{}, FactID{}, false
	}
	for r := range live(v, g.links, byFrom, g.syms.lookup(classIdentity, iss, sub), ofKind(linkIdentity)) {
		return g.syms.id(r.fact.to), r.id(), true
	}
	return ID{}, FactID{}, false
}

// Identities returns the live identity links to a principal, sorted by fact.
func (v View) Identities(principal ID) []LinkFact {
	g := v.graph()
	var list []LinkFact
	for r := range live(v, g.links, byTo, g.syms.lookupID(principal), ofKind(linkIdentity)) {
		issuer, sub := g.syms.identity(r.fact.from)
		list = append(list, LinkFact{Link{Kind: LinkIdentity, Issuer: issuer, Sub: sub, To: principal}, r.valid, r.id()})
	}
	slices.SortFunc(list, func(a, b LinkFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

func ofKind(kind uint8) func(*linkRow) bool { return func(r *linkRow) bool { return r.kind == kind } }

// merge adds to a set of persons all that are merged with any of them.
func (v View) merge(persons *set) {
	g := v.graph()
	for i := 0; i < len(persons.list); i++ {
		n := persons.list[i]
		for r := range live(v, g.links, byFrom, n, ofKind(linkMerge)) {
			persons.add(r.fact.to)
		}
		for r := range live(v, g.links, byTo, n, ofKind(linkMerge)) {
			persons.add(r.fact.from)
		}
	}
}

// identities returns the merged identities of persons; ids that the graph never
// heard of are in rest.
func (v View) identities(persons []ID) (found set, rest []ID) {
	g := v.graph()
	for _, p := range persons {
		if n := g.syms.lookupID(p); n != 0 {
			found.add(n)
		} else if !p.IsZero() {
			rest = append(rest, p)
		}
	}
	v.merge(&found)
	return found, rest
}

func (v View) sorted(s set, rest ...ID) []ID {
	ids := rest
	for _, n := range s.list {
		ids = append(ids, v.graph().syms.id(n))
	}
	return sortIDs(ids)
}

// Persons returns who a principal is: the persons of its self links and all
// that are merged with them, sorted.
func (v View) Persons(principal ID) []ID {
	g := v.graph()
	var found set
	for r := range live(v, g.links, byFrom, g.syms.lookupID(principal), ofKind(linkSelf)) {
		found.add(r.fact.to)
	}
	v.merge(&found)
	return v.sorted(found)
}

// Links returns the live links that lead from a principal or person, sorted by
// fact.
func (v View) Links(from ID) []LinkFact {
	g := v.graph()
	var list []LinkFact
	for r := range live(v, g.links, byFrom, g.syms.lookupID(from), nil) {
		list = append(list, LinkFact{Link{Kind: linkNames[r.fact.kind], From: from, To: g.syms.id(r.fact.to)}, r.valid, r.id()})
	}
	slices.SortFunc(list, func(a, b LinkFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// Principals returns the principals that are any of these persons, or any that
// is merged with them; sorted.
func (v View) Principals(persons ...ID) []ID {
	g := v.graph()
	self, _ := v.identities(persons)
	var found set
	for _, n := range self.list {
		for r := range live(v, g.links, byTo, n, ofKind(linkSelf)) {
			found.add(r.fact.from)
		}
	}
	return v.sorted(found)
}

// Merged returns all that are one with a person, itself included, sorted.
func (v View) Merged(person ID) []ID {
	found, rest := v.identities([]ID{person})
	return v.sorted(found, rest...)
}

// Family returns the persons that are family of any of these, with those merged
// with them, but none of these or of what they are merged with; sorted.
func (v View) Family(persons ...ID) []ID {
	g := v.graph()
	self, _ := v.identities(persons)
	var family set
	for _, n := range self.list {
		for r := range live(v, g.links, byFrom, n, ofKind(linkFamily)) {
			family.add(r.fact.to)
		}
		for r := range live(v, g.links, byTo, n, ofKind(linkFamily)) {
			family.add(r.fact.from)
		}
	}
	v.merge(&family)
	family.list = slices.DeleteFunc(family.list, func(n sym) bool { return slices.Contains(self.list, n) })
	return v.sorted(family)
}

// Owned returns the nodes that persons own, or any merged with them; sorted.
func (v View) Owned(persons ...ID) []ID {
	g := v.graph()
	self, _ := v.identities(persons)
	var owned set
	for _, n := range self.list {
		for r := range live(v, g.links, byFrom, n, ofKind(linkOwns)) {
			owned.add(r.fact.to)
		}
	}
	return v.sorted(owned)
}

// Owners returns the persons that own a node, with all merged with them; sorted.
func (v View) Owners(node ID) []ID {
	g := v.graph()
	var owners set
	for r := range live(v, g.links, byTo, g.syms.lookupID(node), ofKind(linkOwns)) {
		owners.add(r.fact.from)
	}
	v.merge(&owners)
	return v.sorted(owners)
}

// Assignments returns the live assignments of a principal, sorted by fact. One
// whose principal does not exist at the instant, or whose node has not begun to,
// is not live. A node that has ended keeps its roles: they reach what hung from
// it before.
func (v View) Assignments(principal ID) []AssignmentFact {
	g := v.graph()
	n := g.syms.lookupID(principal)
	if n == 0 || !v.exists(n) {
		return nil
	}
	var list []AssignmentFact
	for r := range live(v, g.assignments, byPrincipal, n, nil) {
		if v.existed(r.fact.node) {
			list = append(list, AssignmentFact{g.assignment(&r.fact), r.valid, r.id()})
		}
	}
	slices.SortFunc(list, func(a, b AssignmentFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// EndedAssignments returns the assignments of a principal that are known and
// ended at or before the instant, sorted by fact.
func (v View) EndedAssignments(principal ID) []AssignmentFact {
	g := v.graph()
	var list []AssignmentFact
	for r := range known(v, g.assignments, byPrincipal, g.syms.lookupID(principal), nil) {
		if r.valid.To <= v.at {
			list = append(list, AssignmentFact{g.assignment(&r.fact), r.valid, r.id()})
		}
	}
	slices.SortFunc(list, func(a, b AssignmentFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// AssignmentsAt returns the live assignments at a node itself, as
// [View.Assignments] says what is live, sorted by fact.
func (v View) AssignmentsAt(node ID) []AssignmentFact {
	g := v.graph()
	n := g.syms.lookupID(node)
	if n == 0 || !v.existed(n) {
		return nil
	}
	var list []AssignmentFact
	for r := range live(v, g.assignments, byNode, n, nil) {
		if v.exists(r.fact.principal) {
			list = append(list, AssignmentFact{g.assignment(&r.fact), r.valid, r.id()})
		}
	}
	slices.SortFunc(list, func(a, b AssignmentFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// AssignmentsAhead returns the assignments at a node itself that hold at the
// instant or later, whether or not their principals and the node exist; sorted
// by fact.
func (v View) AssignmentsAhead(node ID) []AssignmentFact {
	return v.ahead(byNode, v.graph().syms.lookupID(node))
}

// AssignmentsAheadOf is AssignmentsAhead for what a principal holds anywhere.
func (v View) AssignmentsAheadOf(principal ID) []AssignmentFact {
	return v.ahead(byPrincipal, v.graph().syms.lookupID(principal))
}

func (v View) ahead(which int, key sym) []AssignmentFact {
	g := v.graph()
	var list []AssignmentFact
	for r := range known(v, g.assignments, which, key, nil) {
		if r.valid.To > v.at {
			list = append(list, AssignmentFact{g.assignment(&r.fact), r.valid, r.id()})
		}
	}
	slices.SortFunc(list, func(a, b AssignmentFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// Role returns the role of this name.
func (v View) Role(name string) (Role, FactID, bool) {
	g := v.graph()
	for r := range live(v, g.roles, byName, g.syms.lookup(classRole, 0, name), nil) {
		return *r.fact.role, r.id(), true
	}
	return Role{}, FactID{}, false
}

// Capabilities returns what a role and all that it includes hold, sorted, each
// once. An included role that does not exist holds nothing.
func (v View) Capabilities(role string) []string {
	names := []string{role}
	var list []string
	for i := 0; i < len(names); i++ {
		r, _, ok := v.Role(names[i])
		if !ok {
			continue
		}
		list = append(list, r.Capabilities...)
		for _, name := range r.Includes {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Grants returns the live grants of a grantee, sorted by grant id.
func (v View) Grants(grantee ID) []GrantFact { return v.liveGrants(byGrantee, grantee) }

// GrantsAbout returns the live grants about a person or node itself, sorted by
// grant id. What is merged with the person is not looked at.
func (v View) GrantsAbout(subject ID) []GrantFact { return v.liveGrants(bySubject, subject) }

func (v View) liveGrants(which int, key ID) []GrantFact {
	g := v.graph()
	var list []GrantFact
	for r := range live(v, g.grants, which, g.syms.lookupID(key), nil) {
		if f, _ := v.grantFact(r, false); f.Effective.Holds(v.at) {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, compareGrants)
	return list
}

// GrantsOf returns the grants that a principal, person or node is the grantee or
// the subject of and that are known, whatever their state, sorted by grant id.
func (v View) GrantsOf(party ID) []GrantFact {
	all := func(*GrantFact, bool) bool { return true }
	list := append(v.grantsWhere(byGrantee, party, all), v.grantsWhere(bySubject, party, all)...)
	slices.SortFunc(list, compareGrants)
	return slices.CompactFunc(list, func(a, b GrantFact) bool { return a.ID == b.ID })
}

// GrantsBy returns the grants that a principal asked for or made, by the
// provenance of the revision, whatever their state, voided ones too, sorted by
// grant id.
func (v View) GrantsBy(author ID) []GrantFact {
	g := v.graph()
	var list []GrantFact
	seen := map[FactID]bool{}
	for _, r := range g.grants.each(byAuthor, g.syms.lookupID(author)) {
		// Of the rows of one fact the newest that was known says what became of it.
		if r.added.Load() > v.rev || seen[r.id()] {
			continue
		}
		seen[r.id()] = true
		f, _ := v.grantFact(r, !r.visible(v.rev))
		list = append(list, f)
	}
	slices.SortFunc(list, compareGrants)
	return list
}

// maxEndedRows is how many of a grantee's newest rows EndedGrants looks at: two
// for each grant that was ended before its time, one for any other.
const maxEndedRows = 256

// EndedGrants returns, of the grants of a grantee that were made last, those
// whose effective time ended at or before the instant, sorted by grant id. What
// is voided, or waits for a majority that is not known, never was live and is
// not among them. However many grants are over, it looks at a few hundred: it
// says why something no longer holds, and nothing rests on it.
func (v View) EndedGrants(grantee ID) []GrantFact {
	g := v.graph()
	var list []GrantFact
	n := 0
	for _, r := range g.grants.each(byGrantee, g.syms.lookupID(grantee)) {
		if n++; n > maxEndedRows {
			break
		}
		if !r.visible(v.rev) {
			continue
		}
		v.reading.examine(r.valid, v.at)
		if f, defined := v.grantFact(r, false); defined && f.Effective.To <= v.at {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, compareGrants)
	return list
}

// Granted reports whether a grant of this type, of this grantee and about this
// very subject, has begun by the instant, live or over. One that was voided, or
// only ever asked for, never was.
func (v View) Granted(grantee, subject ID, typ string) bool {
	g := v.graph()
	key := g.syms.lookupID(grantee)
	if s := g.syms.lookupID(subject); key != 0 && s != 0 {
		key = g.syms.lookup(classPair, key, pairKey(s))
	} else {
		key = 0
	}
	if key != 0 {
		key = g.syms.lookup(classKin, key, typ)
	}
	if key == 0 {
		return false
	}
	begun := func(r *row[grantRow]) bool {
		for _, n := range r.fact.grant.Needs {
			if signed, ok := v.signed(r.fact.id, n); !ok || signed.From > v.at {
				return false
			}
		}
		return true
	}
	if c := g.grants.crowd(byKin, key, v.rev); c != nil { // the first to begin comes first
		for _, t := range c.rows {
			if t.valid.From > v.at {
				if v.reading != nil {
					v.reading.Note(t.valid.From)
				}
				return false
			}
			if begun(g.grants.rows.at(t.row)) {
				return true
			}
		}
		return false
	}
	for r := range known(v, g.grants, byKin, key, nil) {
		if r.valid.From <= v.at && begun(r) {
			return true
		}
	}
	return false
}

// GrantsAhead returns the grants about a person or node itself whose own valid
// time holds at the instant or later, live or not, sorted by grant id.
func (v View) GrantsAhead(subject ID) []GrantFact {
	return v.grantsWhere(bySubject, subject, func(f *GrantFact, _ bool) bool { return f.Valid.To > v.at })
}

// grantsWhere walks all grants under a key that are known.
func (v View) grantsWhere(which int, key ID, want func(f *GrantFact, defined bool) bool) []GrantFact {
	g := v.graph()
	var list []GrantFact
	for r := range known(v, g.grants, which, g.syms.lookupID(key), nil) {
		if f, defined := v.grantFact(r, false); want(&f, defined) {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, compareGrants)
	return list
}

func compareGrants(a, b GrantFact) int { return strings.Compare(a.ID, b.ID) }

// Grant returns the grant with this id whatever its state, as long as it is
// known: not yet live, ended or voided too.
func (v View) Grant(id string) (GrantFact, bool) {
	g := v.graph()
	n := g.syms.lookup(classGrant, 0, id)
	for r := range known(v, g.grants, byID, n, nil) {
		f, _ := v.grantFact(r, false)
		return f, true
	}
	if n == 0 {
		return GrantFact{}, false
	}
	for _, r := range g.grants.each(byID, n) { // the newest first: what was voided
		if r.added.Load() <= v.rev {
			f, _ := v.grantFact(r, true)
			return f, true
		}
	}
	return GrantFact{}, false
}

// maxChain is more than any chain that Check allows.
const maxChain = 8

// grantFact works out when a grant is live. defined is false when that cannot
// be said: something of the chain is voided, or the majority is not known.
func (v View) grantFact(r *row[grantRow], voided bool) (f GrantFact, defined bool) {
	g := v.graph()
	f = GrantFact{Grant: *r.fact.grant, Fact: r.id(), Valid: r.valid, Effective: r.valid, Voided: voided}
	for _, o := range g.grants.each(byID, r.fact.id) {
		f.Revoked = f.Revoked || o != r && o.rev == r.rev && o.idx == r.idx && o.added.Load() <= v.rev && o.valid.To > r.valid.To
	}
	majority := false
	for up := r; ; {
		f.Chain = append(f.Chain, up.id())
		f.Effective = Interval{max(f.Effective.From, up.valid.From), min(f.Effective.To, up.valid.To)}
		majority = majority || up.fact.grant.EndsAtMajority
		if up.valid.Holds(v.at) && !(voided && up == r) {
			v.reading.use(up.id())
		}
		for _, n := range up.fact.grant.Needs {
			signed, ok := v.signed(up.fact.id, n)
			if !ok {
				f.Missing = append(f.Missing, n)
				continue
			}
			f.Effective = Interval{max(f.Effective.From, signed.From), min(f.Effective.To, signed.To)}
		}
		if up.fact.grant.Parent == "" {
			break
		}
		var parent *row[grantRow]
		for p := range known(v, g.grants, byID, g.syms.lookup(classGrant, 0, up.fact.grant.Parent), nil) {
			parent = p
		}
		if parent == nil || len(f.Chain) == maxChain {
			f.Voided = true
			break
		}
		// What Check refuses may stand in a store that another version wrote.
		child, from := up.fact.grant, parent.fact.grant
		if wider(child, from) != "" || !from.MayRedelegate || len(f.Chain) > from.MaxDepth || child.Grantor != from.Grantee {
			f.Wider = true
		}
		up = parent
	}
	slices.Reverse(f.Chain)
	if majority {
		at, ok := v.majority(g.syms.lookupID(f.Subject))
		if !ok {
			f.Effective = Interval{}
			return f, false
		}
		if at > v.at && v.reading != nil {
			v.reading.Note(at)
		}
		if at < f.Effective.To {
			f.Effective.To, f.ByMajority = at, true
		}
	}
	if f.Voided || f.Wider || len(f.Missing) > 0 {
		f.Effective, f.ByMajority = Interval{}, false
		return f, false
	}
	return f, true
}

// signed returns when a need of a grant is met: of several signatures the one
// that holds, else the last that has ended, else the first to come.
func (v View) signed(grant sym, n Need) (Interval, bool) {
	var best Interval
	ok := false
	for r := range known(v, v.graph().signatures, byGrant, grant, func(r *signatureRow) bool { return r.signature.meets(n) }) {
		switch in := r.valid; {
		case in.Holds(v.at):
			v.reading.use(r.id())
			return in, true
		case !ok, in.To <= v.at && (best.From > v.at || in.To > best.To), in.From > v.at && best.From > in.From:
			best, ok = in, true
		}
	}
	return best, ok
}

// Signatures returns the signatures of a grant that are known, sorted by fact.
func (v View) Signatures(grant string) []SignatureFact {
	g := v.graph()
	var list []SignatureFact
	for r := range known(v, g.signatures, byGrant, g.syms.lookup(classGrant, 0, grant), nil) {
		list = append(list, SignatureFact{*r.fact.signature, r.valid, r.id()})
	}
	slices.SortFunc(list, func(a, b SignatureFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// Emergencies returns the emergencies of a principal that have begun by the
// instant, over or not, sorted by fact.
func (v View) Emergencies(principal ID) []EmergencyFact {
	return v.emergencies(byOpener, principal)
}

// EmergenciesAbout returns the emergencies about a person that have begun by the
// instant, over or not, sorted by fact.
func (v View) EmergenciesAbout(person ID) []EmergencyFact {
	return v.emergencies(byOpened, person)
}

func (v View) emergencies(which int, key ID) []EmergencyFact {
	g := v.graph()
	var list []EmergencyFact
	for r := range known(v, g.emergencies, which, g.syms.lookupID(key), nil) {
		if r.valid.From <= v.at {
			list = append(list, v.emergency(r))
		}
	}
	slices.SortFunc(list, func(a, b EmergencyFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// Emergency returns the emergency with this id, whenever it is or was.
func (v View) Emergency(id string) (EmergencyFact, bool) {
	g := v.graph()
	for r := range known(v, g.emergencies, byID, g.syms.lookup(classEmergency, 0, id), nil) {
		return v.emergency(r), true
	}
	return EmergencyFact{}, false
}

func (v View) emergency(r *row[emergencyRow]) EmergencyFact {
	if r.valid.Holds(v.at) {
		v.reading.use(r.id())
	}
	f := EmergencyFact{Emergency: *r.fact.emergency, Valid: r.valid, Fact: r.id()}
	for w := range live(v, v.graph().reviews, byEmergency, r.fact.id, nil) {
		f.Review = w.fact.review
	}
	return f
}

// Setting returns what a tenant has set: a bool, a string or an int64.
func (v View) Setting(tenant ID, name string) (value any, fact FactID, ok bool) {
	g := v.graph()
	n := g.syms.lookup(className, 0, name)
	if n == 0 {
		return nil, FactID{}, false
	}
	for r := range live(v, g.settings, byTenant, g.syms.lookupID(tenant), func(r *settingRow) bool { return r.name == n }) {
		return r.fact.value, r.id(), true
	}
	return nil, FactID{}, false
}

// majority returns the earliest majority that is known of a person at the
// instant, by any of its merged identities.
func (v View) majority(person sym) (at Instant, ok bool) {
	g := v.graph()
	merged := set{list: []sym{person}}
	v.merge(&merged)
	for _, n := range merged.list {
		for r := range live(v, g.nodes, byID, n, nil) {
			if d := r.fact.data; d != nil && d.person != nil && d.person.Majority != nil {
				if m := *d.person.Majority; !ok || m < at {
					at, ok = m, true
				}
			}
		}
	}
	return at, ok
}

// Blocks returns the live blocks on a person and on all merged with it, sorted
// by fact.
func (v View) Blocks(person ID) []BlockFact {
	g := v.graph()
	self, _ := v.identities([]ID{person})
	var list []BlockFact
	for _, n := range self.list {
		for r := range live(v, g.blocks, byPerson, n, nil) {
			list = append(list, BlockFact{g.block(&r.fact), r.valid, r.id()})
		}
	}
	slices.SortFunc(list, func(a, b BlockFact) int { return compareFacts(a.Fact, b.Fact) })
	return list
}

// Entitled reports whether a tenant has a module or feature.
func (v View) Entitled(tenant ID, name string) bool {
	g := v.graph()
	n := g.syms.lookup(className, 0, name)
	if n == 0 {
		return false
	}
	for range live(v, g.entitlements, byTenant, g.syms.lookupID(tenant), func(r *entitlementRow) bool { return r.name == n }) {
		return true
	}
	return false
}

// Activation returns the policy set in force, or with a tenant's key that
// tenant's overlay: the last one activated at or before the revision, whatever
// the instant. An overlay that was removed is not in force.
func (v View) Activation(tenant string) (Activation, FactID, bool) {
	last := v.activations()[tenant]
	if last == nil || last.fact.activation.Digest == "" {
		return Activation{}, FactID{}, false
	}
	v.reading.use(last.id())
	return *last.fact.activation, last.id(), true
}

// Overlays returns the overlays in force, by the keys of their tenants.
func (v View) Overlays() map[string]Activation {
	out := map[string]Activation{}
	for tenant, r := range v.activations() {
		if tenant != "" && r.fact.activation.Digest != "" {
			v.reading.use(r.id())
			out[tenant] = *r.fact.activation
		}
	}
	return out
}

// activations returns the last activation for each tenant, and for "" that of
// the set.
func (v View) activations() map[string]*row[activationRow] {
	out := map[string]*row[activationRow]{}
	for _, r := range v.graph().activations.each(0, 1) {
		if !r.visible(v.rev) {
			continue
		}
		last := out[r.fact.activation.Tenant]
		if last == nil || cmp.Or(cmp.Compare(r.added.Load(), last.added.Load()), compareFacts(r.id(), last.id())) > 0 {
			out[r.fact.activation.Tenant] = r
		}
	}
	return out
}

// Facts yields all facts of a kind that are known, whatever their valid time, in
// the order of their ids.
func (v View) Facts(kind Kind) iter.Seq[Fact] {
	return func(yield func(Fact) bool) {
		g := v.graph()
		for rev := uint32(1); rev <= v.rev; rev++ {
			r := g.revs.at(rev)
			for i := range r.n {
				ref := unpack(g.facts.at(r.base + i).Load())
				if ref.kind != kind || ref.row == 0 {
					continue
				}
				if f, ok := v.fact(ref); ok && !yield(f) {
					return
				}
			}
		}
	}
}

// Fact returns a fact that is known, whatever its valid time.
func (v View) Fact(id FactID) (Fact, bool) {
	g := v.graph()
	if id.Revision == 0 || id.Revision > uint64(v.rev) {
		return Fact{}, false
	}
	r := g.revs.at(uint32(id.Revision))
	if id.Index >= r.n {
		return Fact{}, false
	}
	return v.fact(unpack(g.facts.at(r.base + id.Index).Load()))
}

func (v View) fact(last rowRef) (Fact, bool) {
	g := v.graph()
	if last.row == 0 {
		return Fact{}, false
	}
	t := g.tables[last.kind]
	n := t.find(last.row, v.rev)
	if n == 0 {
		return Fact{}, false
	}
	valid, id := t.version(n)
	v.reading.examine(valid, v.at)
	if valid.Holds(v.at) {
		v.reading.use(id)
	}
	return Fact{ID: id, Kind: last.kind, Valid: valid, Event: g.event(rowRef{last.kind, n}), Revision: uint64(t.added(n).Load())}, true
}

// sortIDs sorts ids by their text and drops repeated ones.
func sortIDs(ids []ID) []ID {
	slices.SortFunc(ids, compareIDs)
	return slices.Compact(ids)
}

// compareIDs compares the text forms without building them.
func compareIDs(a, b ID) int {
	if a.Type == b.Type && a.Tenant == b.Tenant {
		return strings.Compare(a.Key, b.Key)
	}
	x, y := [...]string{a.Type, ":", a.Tenant, "/", a.Key}, [...]string{b.Type, ":", b.Tenant, "/", b.Key}
	if a.Tenant == "" {
		x[3] = ""
	}
	if b.Tenant == "" {
		y[3] = ""
	}
	i, j := 0, 0
	for {
		for i < len(x) && x[i] == "" {
			i++
		}
		for j < len(y) && y[j] == "" {
			j++
		}
		if i == len(x) || j == len(y) {
			return cmp.Compare(len(x)-i, len(y)-j) // the longer one has parts left
		}
		n := min(len(x[i]), len(y[j]))
		if c := strings.Compare(x[i][:n], y[j][:n]); c != 0 {
			return c
		}
		x[i], y[j] = x[i][n:], y[j][n:]
	}
}
