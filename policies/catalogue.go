package policies

// Catalogue is a pack's description of the world its policies speak about: the
// merged catalogue.yaml of the base and of all modules.
type Catalogue struct {
	Name      string // pack name
	Namespace string // Cedar namespace, for example "PBM"
	// Principals by catalogue name ("user").
	Principals map[string]*PrincipalType
	// Nodes by hierarchy type ("Group").
	Nodes map[string]*NodeType
	// Edges by kind ("memberOf").
	Edges map[string]*EdgeKind
	// SelfRole is the role that a self link confers on the person's own records, or empty.
	SelfRole string
	// FamilyGrants lists the grant types that make the grantee and the subject family.
	FamilyGrants []string
	// GrantTypes by name; a grant of another type is refused at write.
	GrantTypes map[string]*GrantType
	// Law holds the age of majority by jurisdiction.
	Law []Law
	// Resources by catalogue name ("claim").
	Resources map[string]*ResourceType
	// Actions by name.
	Actions map[string]*Action
	// Context attributes that may be sent, by name.
	Context map[string]*Attribute
	// Modules, Features and Routes by id.
	Modules  map[string]*Module
	Features map[string]*Feature
	Routes   map[string]*Route
	// Roles are the roles the pack ships, asserted as facts by `ward init` and on activation.
	Roles []Role
}
type PrincipalType struct {
	Name       string
	Entity     string /* "PBM::User" */
	Attributes map[string]*Attribute
}
type NodeType struct {
	Name, Entity string
	Owned        bool /* a tenant's; otherwise shared or the operator/tenant/network itself */
	Attributes   map[string]*Attribute
}
type EdgeKind struct {
	Name     string
	Confers  bool
	From, To []string /* node types; empty = any */
}
type GrantType struct {
	Name           string
	EndsAtMajority bool
	MaxDepth       int
}
type Law struct {
	Jurisdiction string
	Majority     int
	Zone         string
	Source       string
}

// ResourceKind says where the things of a resource type live.
type ResourceKind string

const (
	// KindGraph is a node of the hierarchy.
	KindGraph ResourceKind = "graph"
	// KindSent lives in a module's own database; its anchors tie it to nodes.
	KindSent ResourceKind = "sent"
	// KindFeature is a feature of the catalogue, asked in an area.
	KindFeature ResourceKind = "feature"
	// KindRoute is a route of the catalogue, asked in an area.
	KindRoute ResourceKind = "route"
	// KindWard is one of Ward's own objects.
	KindWard ResourceKind = "ward"
)

type ResourceType struct {
	Name, Entity string
	Kind         ResourceKind
	Module       string   // whose entitlement `entitled` asks for
	Node         string   // graph: the hierarchy type
	Authority    []string // sent: caller names that may send anchors and attributes
	Anchors      []Anchor // sent, sorted by name
	Owner        string   // sent: the anchor whose owner is the confidentiality owner, or empty
	Instant      string   // sent: the property (RFC 3339 or date) at which ancestors are read, or empty = now
	Zone         string   // time zone of a date without time in Instant; default UTC
	HangsFrom    string   // sent without anchors: a node id
	Attributes   map[string]*Attribute
}
type Anchor struct{ Property, Type string }

// Source says where the value of an attribute comes from.
type Source string

const (
	// FromSent: an authority sends it with the request.
	FromSent Source = "sent"
	// FromFact: it is a fact of the hierarchy.
	FromFact Source = "fact"
	// FromWard: the decision point computes it.
	FromWard Source = "ward"
)

type Attribute struct {
	Name     string
	From     Source
	Required bool
	Type     string /* Cedar type as text: Bool, Long, String, datetime, ipaddr, an entity type (enum) or Set<…> of those */
	Enum     []string
	// Authority lists the callers that may send it (catalogue key `authority`). Empty: for a resource's or
	// action's attribute and for context the resource type's authority; for a subject's attribute any caller
	// registered to assert that subject.
	Authority []string
}
type Action struct {
	Name       string
	Resources  []string /* catalogue names */
	Principals []string
	Properties map[string]*Attribute /* arrive under context.action */
	Coarse     bool                  /* feature.see, route.call */
}
type Module struct{ ID, Title string }
type Feature struct{ ID, Module, Capability, Title string }
type Route struct {
	ID, Module, Capability, Method, Path, Scope string
	Write                                       bool
	Action, Resource                            string /* what the record question is */
}
type Role struct {
	Name                   string
	Capabilities, Includes []string
}
