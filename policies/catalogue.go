package policies

// Catalogue is a pack's description of the world its policies speak about: the
// merged catalogue.yaml of the base and of all modules.
//
// Entity names are full ("PBM::User"). Ward's own principal "admin", resource
// "object", actions and roles are merged in; their entities are in the
// namespace [WardNamespace], and so is the Scope of an admin's tags.
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
	// TenantRoles lists the roles whose capabilities, together, are the ceiling of
	// what is conferred within a tenant. See [Catalogue.WithinTenant].
	TenantRoles []string
	// FamilyGrants lists the grant types that make the grantee and the subject family.
	FamilyGrants []string
	// GrantTypes by name; a grant of another type is refused at write.
	GrantTypes map[string]*GrantType
	// Settings are the choices that a tenant has, by name.
	Settings map[string]*Setting
	// RunOut names the setting of how many days a role at a node that has ended
	// goes on, or is empty: for ever.
	RunOut string
	// Emergency says what an opened emergency gives; nil: the pack knows none.
	Emergency *EmergencyAccess
	// Law holds what depends on a person's age, by jurisdiction.
	Law []Law
	// Resources by catalogue name ("claim").
	Resources map[string]*ResourceType
	// Actions by name.
	Actions map[string]*Action
	// Context attributes that some action may be sent, by name. [Action.Context]
	// has those of one action; Required here is false where one action does without.
	Context map[string]*Attribute
	// Modules, Features and Routes by id.
	Modules  map[string]*Module
	Features map[string]*Feature
	Routes   map[string]*Route
	// Roles are the roles the pack ships, asserted as facts by `ward init` and on
	// activation: each after those it includes, otherwise by name.
	Roles []Role

	contains map[[2]string]bool // node types: {above, below}
	ceiling  map[string]bool    // capabilities of TenantRoles
	reserved map[string]bool    // roles that nobody is assigned
	personal map[string]bool    // capabilities of SelfRole
}

// PrincipalType is a kind of subject. Its nodes in the hierarchy have the
// entity's bare name as their type: User:dana for PBM::User.
type PrincipalType struct {
	Name       string // "user"
	Entity     string // "PBM::User"
	Attributes map[string]*Attribute
}

// NodeType is a type of node in the hierarchy.
type NodeType struct {
	Name, Entity string // "Group", "PBM::Group"
	Owned        bool   // a tenant's; otherwise shared, or the operator, tenant or network itself
	Attributes   map[string]*Attribute
}

// EdgeKind is a kind of edge. Only a kind that confers gives access.
type EdgeKind struct {
	Name     string
	Confers  bool
	From, To []string // node types; empty means any, of a kind that does not confer
}

// GrantType is a legal form of delegation.
type GrantType struct {
	Name           string
	EndsAtMajority bool // a grant of this type ends when the subject comes of age
	MaxDepth       int  // further links that a chain may have below a root, 0 to 3
	// Needs lists whose signatures a grant of this type takes when people ask
	// for it, sorted: grantor, subject, co-signer, verifier, and assent: the
	// subject's, once they are as old as the law row says.
	Needs []string
	// Capabilities lists what a grant of this type about a person may confer
	// beyond what one has on one's own records; sorted.
	Capabilities []string
}

// Law is what depends on a person's age in one jurisdiction.
type Law struct {
	Jurisdiction string // "US-OH", or "US" for every state without a row
	Majority     int    // in years
	Assent       int    // age from which a minor must assent to a grant about them, in years; 0 when never
	Zone         string // IANA name of the time zone whose midnight counts
	Source       string // where the law says so
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
	// KindGrant is a grant that somebody asks for, signs or revokes.
	KindGrant ResourceKind = "grant"
	// KindEmergency is an emergency that somebody opens, ends or reviews.
	KindEmergency ResourceKind = "emergency"
)

// ResourceType is a type of thing that can be asked about. A graph resource
// whose Entity is its node type's shares the node type's Attributes.
type ResourceType struct {
	Name, Entity string // "claim", "PBM::Claim"
	Kind         ResourceKind
	Module       string   // whose entitlement `entitled` asks for
	Node         string   // graph: the hierarchy type
	Authority    []string // sent: caller names that may send anchors and attributes
	Anchors      []Anchor // sent, sorted by name
	Owner        string   // sent: the anchor whose owner is the confidentiality owner, or empty
	// OwnerOptional lets the owner's anchor be null: a list of many people's
	// records has no one owner.
	OwnerOptional bool
	Instant       string // sent: the property (RFC 3339 or date) at which ancestors are read, or empty = now
	Zone          string // time zone of a date without time in Instant; default UTC
	HangsFrom     string // sent without anchors: a node id
	Attributes    map[string]*Attribute
}

// Anchor is a property of a sent resource that names a node of a type.
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

// Attribute is what policies may read of an entity or of the context.
type Attribute struct {
	Name     string
	From     Source
	Required bool // not optional in the schema
	// Type is the Cedar type as text: Bool, Long, String, datetime, ipaddr, the
	// full name of an entity type (an enumeration, or what Ward gives, or a
	// principal that is sent by its key), or Set<…> of those.
	Type string
	// Enum holds the values of an enumeration, sorted.
	Enum []string
	// Authority lists the callers that may send it (catalogue key `authority`). Empty: for a resource's or
	// action's attribute and for context the resource type's authority; for a subject's attribute any caller
	// registered to assert that subject.
	Authority []string
}

// Action is something to do. What it applies to comes from the schema.
type Action struct {
	Name                  string
	Resources, Principals []string              // catalogue names, sorted
	Properties            map[string]*Attribute // sent, and read as context.action
	// Context holds the sent attributes that this very action's schema has in its
	// context. Ward's own actions have none.
	Context map[string]*Attribute
	// Given has what Ward itself puts into its context, as far as its schema has
	// it: now, aal, capability, grant, emergency, settings, action.
	Given  map[string]bool
	Coarse bool // asked of features and routes only
}

// Module is a micro-frontend or service that a tenant may have.
type Module struct{ ID, Title string }

// Feature is a thing that a module shows.
type Feature struct{ ID, Module, Capability, Title string }

// Route is a method and path template that a module serves.
type Route struct {
	ID, Module, Capability, Method, Path string
	Scope                                string // the OAuth scope a machine client needs
	Write                                bool
	Action, Resource                     string // what the record question is
}

// Role is a named set of capabilities, with those of the roles it includes.
type Role struct {
	Name                   string
	Capabilities, Includes []string // sorted
	Own                    bool     // shipped with Ward, not with the pack
}
