package policies

import (
	"time"

	"github.com/ward-authz/ward/pdp/authz"
)

// Case is one test of a pack, read from tests/*.yaml: facts, a request and what
// is expected of it. The decision point runs it.
type Case struct {
	File   string
	Line   int
	Module string // "" for the base
	Name   string
	// Facts hold what is true, in order; the cases of one file share them.
	Facts []Fact
	// At is when the request is made.
	At time.Time
	// Caller is the name of the program that asks; it is an authority for what
	// the catalogue says, and no more.
	Caller string
	// Subject is who acts, by catalogue type and id, with the attributes sent.
	Subject CaseEntity
	// Assurance is the subject's assurance level (assurance: 2), 1 unless said.
	Assurance int
	// Action is what they do, ActionProperties what was sent with it.
	Action           string
	ActionProperties map[string]any
	Resource         CaseEntity
	Context          map[string]any
	Area, Grant      string
	Expect           Expect
}

// CaseEntity is a subject or a resource of a [Case]. Values are nil, bool,
// int64, string, []any and map[string]any.
type CaseEntity struct {
	Type, ID   string
	Properties map[string]any
}

// Fact is one entry under facts: a map with one key, the kind ("node",
// "edge", …), as it stands in the file. Scalars are nil, bool, int64 or string;
// a date stays the text it was written as.
type Fact struct {
	Line  int
	Kind  string
	Value map[string]any
}

// Expect is what a [Case] expects. Only what is set is compared.
type Expect struct {
	Decision authz.Effect
	Code     authz.Code
	// Policies are the ids of the reasons, sorted; nil when not stated.
	Policies []string
	// Obligations are the ids of the obligations, sorted; nil when not stated.
	Obligations []string
}
