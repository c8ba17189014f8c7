package policies

import "github.com/ward-authz/ward/pdp/authz"

// Ref names an entity of a question: its full Cedar type and its id.
type Ref struct {
	Type string `json:"type"` // "PBM::User"
	ID   string `json:"id"`
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Value is an attribute value in Ward's own terms:
//
//	bool, int64, string     Bool, Long, String
//	Ref                     an entity
//	Datetime                datetime, in milliseconds since 1970 UTC
//	IPAddr                  ipaddr, in Cedar's text form, IPv4-mapped addresses already unmapped
//	[]Value                 Set
//	map[string]Value        Record
type Value any

// Datetime is a Cedar datetime in milliseconds since 1970-01-01T00:00:00Z.
type Datetime int64

// IPAddr is a Cedar ipaddr in its text form, such as "10.0.0.0/8".
type IPAddr string

// Entity is one entity of a question with everything policies may read of it.
type Entity struct {
	Ref     Ref              `json:"ref"`
	Attrs   map[string]Value `json:"attrs,omitempty"`
	Parents []Ref            `json:"parents,omitempty"` // sorted; complete: a parent has no parents of its own
	Tags    map[string][]Ref `json:"tags,omitempty"`    // capability -> scopes, sorted
}

// Question is what a Set judges: one attempt, fully resolved. It holds all that
// the answer can depend on, so its encoding is what a record commits to.
//
// An entity that is named (as a value, a parent or a scope) but not listed
// exists for ==, in and contains; a policy that reads an attribute or a tag of
// it fails with missing_entity. No entity is listed twice.
type Question struct {
	Principal Entity           `json:"principal"`
	Action    string           `json:"action"` // catalogue name, "claim.view"
	Resource  Entity           `json:"resource"`
	Context   map[string]Value `json:"context"` // complete, "now" included as a Datetime
	Others    []Entity         `json:"others,omitempty"`
}

// Outcome is what a Set says to a Question.
type Outcome struct {
	// Cedar is the answer of Cedar's own semantics.
	Cedar authz.Effect
	// Permits and Forbids are the satisfied policies, sorted by id.
	Permits, Forbids []*Policy
	// Errors are the policies that could not be evaluated, sorted by id. Ward
	// denies when one of them is a forbid.
	Errors []PolicyError
	// Candidates are all policies whose scope matches, sorted by id.
	Candidates []*Policy
	// Until is the first instant after context.now at which time alone may
	// change the outcome, or math.MaxInt64: the earliest operand of a plain
	// comparison with context.now in a candidate; now itself when a candidate
	// uses context.now in any other way.
	Until int64
}

// PolicyError is a policy that could not be evaluated. Kind is a stable word
// ("missing_attribute", "missing_tag", "missing_entity", "overflow", "type",
// "other"); the engine's message is not kept, for it may hold values.
type PolicyError struct {
	Policy *Policy
	Kind   string
}

// Policy is one policy of a Set.
type Policy struct {
	ID     string // from @id
	Forbid bool
	Module string // "" for the base, "ward" for the built-in set
	Tenant string // whose overlay it is of; "" in a set
	File   string
	Line   int
	// Obligations and Advice come from @obligation("id") / @advice("id"),
	// several separated by spaces; parameters as id:key=value,key=value.
	Obligations, Advice []authz.Obligation
	// Text is the policy as it stands in its file, for explain.
	Text string

	compiled // what the evaluator needs
}

// Clause is one conjunct of a policy's conditions with its value in a Question.
type Clause struct {
	Text  string // Cedar source of the conjunct, with "!" for unless
	Value string // "true", "false", "error" or "unreached"
}
