package hierarchy

import "iter"

// View answers about one instant as known at one revision.
type View struct{}

// Reading notes what a View examined.
type Reading struct{}

// NewReading returns an empty reading.
func NewReading() *Reading { return &Reading{} }

// Until is the earliest later instant at which time alone changes what was read.
func (r *Reading) Until() Instant { return Forever }

// Note adds a boundary.
func (r *Reading) Note(at Instant) {}

// Facts returns the live facts that were used, sorted, unique.
func (r *Reading) Facts() []FactID { return nil }

// EdgeFact is an edge with its valid time and the fact that asserted it.
type EdgeFact struct {
	Edge
	Valid Interval
	Fact  FactID
}

// AssignmentFact is an assignment with its valid time and fact.
type AssignmentFact struct {
	Assignment
	Valid Interval
	Fact  FactID
}

// GrantFact is a grant with the time in which its whole chain is live.
type GrantFact struct {
	Grant
	Fact       FactID
	Valid      Interval
	Effective  Interval
	Chain      []FactID
	ByMajority bool
	Voided     bool
}

// BlockFact is a block with its valid time and fact.
type BlockFact struct {
	Block
	Valid Interval
	Fact  FactID
}

// Fact is any fact.
type Fact struct {
	ID       FactID
	Kind     Kind
	Valid    Interval
	Event    Event
	Revision uint64
}

// Instant returns the instant of the view.
func (v View) Instant() Instant { return 0 }

// Revision returns the revision of the view.
func (v View) Revision() uint64 { return 0 }

// Reading returns the same view, noting in r what it examines.
func (v View) Reading(r *Reading) View { return v }

// Node returns a node.
func (v View) Node(id ID) (Node, FactID, bool) { return Node{}, FactID{}, false }

// Closure returns the ids and all their ancestors.
func (v View) Closure(from ...ID) []ID { return nil }

// Reaches reports whether to is in Closure(from).
func (v View) Reaches(from, to ID) bool { return false }

// Path returns a shortest path.
func (v View) Path(from, to ID) ([]EdgeFact, bool) { return nil, false }

// Parents returns the live edges of a child.
func (v View) Parents(child ID) []EdgeFact { return nil }

// Children yields the live edges to a parent.
func (v View) Children(parent ID) iter.Seq[EdgeFact] { return func(func(EdgeFact) bool) {} }

// Principal returns the principal of an identity.
func (v View) Principal(issuer, sub string) (ID, FactID, bool) { return ID{}, FactID{}, false }

// Persons returns who a principal is.
func (v View) Persons(principal ID) []ID { return nil }

// Merged returns the identities of a person.
func (v View) Merged(person ID) []ID { return nil }

// Family returns the family of persons.
func (v View) Family(persons ...ID) []ID { return nil }

// Owned returns what persons own.
func (v View) Owned(persons ...ID) []ID { return nil }

// Owners returns the persons that own a node.
func (v View) Owners(node ID) []ID { return nil }

// Assignments returns the live assignments of a principal.
func (v View) Assignments(principal ID) []AssignmentFact { return nil }

// EndedAssignments returns the ended assignments of a principal.
func (v View) EndedAssignments(principal ID) []AssignmentFact { return nil }

// Role returns a role.
func (v View) Role(name string) (Role, FactID, bool) { return Role{}, FactID{}, false }

// Capabilities returns the capabilities of a role.
func (v View) Capabilities(role string) []string { return nil }

// Grants returns the live grants of a grantee.
func (v View) Grants(grantee ID) []GrantFact { return nil }

// EndedGrants returns the ended grants of a grantee.
func (v View) EndedGrants(grantee ID) []GrantFact { return nil }

// Grant returns a grant, whatever its state.
func (v View) Grant(id string) (GrantFact, bool) { return GrantFact{}, false }

// Blocks returns the live blocks on a person.
func (v View) Blocks(person ID) []BlockFact { return nil }

// Entitled reports whether a tenant has a module or feature.
func (v View) Entitled(tenant ID, name string) bool { return false }

// Activation returns the activation in force.
func (v View) Activation() (Activation, FactID, bool) { return Activation{}, FactID{}, false }

// Facts yields all known facts of a kind.
func (v View) Facts(kind Kind) iter.Seq[Fact] { return func(func(Fact) bool) {} }

// Fact returns a known fact.
func (v View) Fact(id FactID) (Fact, bool) { return Fact{}, false }
