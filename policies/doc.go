// Package policies judges: it reads a pack of Cedar policies, checks it,
// compiles it into an immutable [Set], and says what the Set answers to a
// [Question]. It knows nothing of the hierarchy or of requests; the decision
// point (package pdp) asks it and writes the answer down.
//
//	files, err := policies.ReadPack(os.DirFS("my-pack"))
//	set, err := policies.Compile(files)       // err lists every finding
//	out := set.Evaluate(question)             // the candidates, permits, forbids, errors
//	fmt.Println(set.Digest())                 // names the pack in the ledger
//	set, err = policies.Open(set.Archive())   // the same set, years later
//	err = set.Check()                         // may it be put in force?
//
// [PBM] returns the files of the shipped pack.
//
// # A pack
//
// A pack is a folder. The base is owned by whoever owns the domain, each module
// by the team that ships it:
//
//	schema.cedarschema        entities, actions, context: one namespace
//	catalogue.yaml            what the schema's names stand for in the world
//	*.cedar                   guards, and what holds across modules
//	roles.yaml                the roles the pack ships (optional)
//	tests/*.yaml              cases that must come out as they say
//	modules/<id>/*.cedar      a module's policies: they permit its own actions only
//	modules/<id>/catalogue.yaml
//	modules/<id>/schema.cedarschema   more of the same namespace (optional)
//	modules/<id>/tests/*.yaml
//
// Nothing else may lie in it, but names that start with a dot are skipped.
// Limits hold before anything is parsed: 512 files, 1 MiB each, 16 MiB in all;
// in Cedar text brackets and ifs nest at most 64 deep, a set literal has at most
// 1024 elements, a policy at most 8192 tokens.
//
// Ward's own set (namespace Ward, policies "ward.…") stands under every pack:
// hierarchy.change, role.define, policy.activate and so on, for the principal
// admin on the resource object. A pack may forbid more of them, but never
// policy.activate, and permits none.
//
// # The schema
//
// Cedar sees the hierarchy as Scopes only. The schema has "entity Scope;"; a
// node or record that can be asked about is "in [Scope]", a principal has "tags
// Set<Scope>", one tag for each capability, holding the scopes where it is held:
//
//	permit (principal is X::User, action == X::Action::"doc.view", resource is X::Doc)
//	when { principal.hasTag("doc.view") && resource in principal.getTag("doc.view") };
//
// Some names are Ward's: the entities Scope, Person (a human being), Grant (what
// context.grant names: covers: Set<Sensitivity>, type: String, personal: Bool,
// true when the grant is for a Person's records and not over a node) and the
// enumeration Sensitivity; in the context now: datetime, aal: Long (assurance
// level), capability: String (the action's own name), grant?: Grant, and action, a
// record of what was sent with the action. context.tenant is reserved.
//
// With context.capability one policy permits a whole group of actions, each to
// those who hold it:
//
//	permit (principal is X::User, action in X::Action::"reading", resource)
//	when { principal.hasTag(context.capability) && resource in principal.getTag(context.capability) };
//
// An emergency that the principal has opened is context.emergency?: Emergency, an
// entity with reason: String and opened: datetime. What the tenant of the resource
// has set is context.settings, a record with one Bool, Long or String for each of
// the catalogue's settings.
//
// An action's context is its own: what one action requires of its callers, an
// action whose context lacks it does not.
//
// # The catalogue
//
// Types, principals and resources of actions, enumerations and whether an
// attribute is required are read from the schema. The catalogue adds where each
// attribute comes from, exactly one of
//
//	fact   from the hierarchy, asserted by an event
//	sent   with the request, from a caller that is an authority for it
//	ward   computed by the decision point: persons, family of a principal (related to
//	       its own persons, and of the record's owners whom it represents); owners,
//	       blocked, entitled of a resource; capability, entitled of a feature, and
//	       scope, write of a route too; of a grant owners and blocked (of its subject),
//	       grantors, grantees, type, capabilities, covers, personal, adult (the subject
//	       has come of age), signs (as what the principal can sign it, or has signed
//	       it by asking); of an emergency owners, blocked, openers, reason, unreviewed
//	       (an earlier one of the same two waits for its review)
//
// What is sent is a Bool, Long, String, datetime, ipaddr, a value of an
// enumeration, or a principal by its key (author: User), or a set of those.
//
// And everything that Cedar has no word for:
//
//	name: pbm
//	namespace: PBM
//	principals:
//	  user: {entity: User, attributes: {persons: ward, family: ward}}
//	nodes:                                # hierarchy types; entity is the name unless said
//	  Tenant: {}
//	  Group: {owned: true}                # belongs to a tenant
//	edges:
//	  memberOf: {confers: true, from: [Group], to: [Tenant]}
//	links: {self: member}                 # the role that a self link confers
//	tenantRoles: [client-admin, benefits] # what they hold is a tenant's ceiling
//	grantTypes:
//	  parent: {endsAtMajority: true, needs: [verifier, assent]}
//	  proxy: {capabilities: [claim.dispute]} # confers that beside the self role's
//	  org-delegate: {maxDepth: 3}
//	familyGrants: [parent]
//	settings:                             # one field each of context.settings
//	  employerSeesMember: {default: false, title: Employers see members' records}
//	  runOutDays: {default: 90, min: 0, max: 3650}
//	runOut: runOutDays                    # how long a role at a node that has ended goes on
//	emergency: {role: emergency-access, minutes: 30, reasons: [unconscious]}
//	law:                                  # assent: the age from which a minor must agree
//	  - {jurisdiction: US, majority: 18, assent: 13, zone: America/New_York, source: "…"}
//	context:
//	  ip: {from: sent, authority: [gateway]}
//	resources:
//	  group: {kind: graph, entity: Group, node: Group}
//	  claim:
//	    kind: sent                        # lives in the module's own database
//	    entity: Claim
//	    authority: [claims-service]       # callers that may send what follows
//	    anchors: {coverage: Coverage}     # property: node type
//	    owner: coverage                   # the anchor whose owner the record is about:
//	                                      # never null, but with ownerOptional: true
//	    instant: fillDate                 # the property at which ancestors are read
//	    attributes: {sensitivity: sent, owners: ward, blocked: ward, entitled: ward}
//	  feature: {kind: feature, entity: Feature, attributes: {capability: ward, entitled: ward}}
//	  grant:                            # as people ask for it, sign and revoke it
//	    kind: grant
//	    entity: Delegation
//	    attributes: {owners: ward, grantees: ward, signs: ward}
//	  emergency: {kind: emergency, entity: EmergencyAccess, attributes: {owners: ward}}
//	actions:
//	  claim.view: {}
//	  claim.delete: {properties: {soft: sent}}   # context.action.soft
//	features:
//	  claims.detail: {capability: claim.view, title: One claim}
//	routes:
//	  claims.get: {method: GET, path: "/claims/{id}", capability: claim.view,
//	    action: claim.view, resource: claim, scope: claims.read, write: false}
//
// Who administers no more than a tenant confers, by roles and edges, only
// capabilities of the tenantRoles, and a tenant's own roles hold no others;
// without tenantRoles they hold none. A grant about a person confers only what
// the self role holds and what its type names.
//
// A sent type without anchors says hangsFrom: a node id. A module's catalogue
// has title, nodes, edges, resources, actions, features and routes; the module
// of its features, routes and resources is itself.
//
// roles.yaml is "name: {capabilities: […], includes: […]}".
//
// # Policies
//
// Each policy has @id("…"), unique over the whole set. On permits,
// @obligation("row-cap:rows=100 watermark") names what the enforcement point
// must do, @advice("…") what it may do. Other annotations are kept as text.
//
// # Overlays
//
// A tenant may forbid more than the set does, for itself alone and without a
// release: its overlay is a folder of *.cedar files and nothing else, of at most
// the same size as a pack. Every policy of it is a forbid, with an @id that is
// unique in the overlay and appears in reasons as "<tenant>/<id>"; none applies
// to Ward's own actions. What is checked of a pack's forbids is checked of these.
//
//	files, err := policies.ReadOverlay(os.DirFS("acme-rules"))
//	overlay, err := policies.CompileOverlay(set, "acme", files)
//	out := overlay.Evaluate(question)   // the set's policies and the tenant's
//
// An overlay is compiled against one set: for another it is compiled again.
//
// # Tests
//
// See [Case]; facts are in the words of package hierarchy:
//
//	facts:
//	  - node: {id: "Tenant:acme"}
//	  - assignment: {principal: "User:dana", role: broker, node: "Group:acme/g1", from: 2026-01-01}
//	tests:
//	  - name: a broker sees the claims of her group
//	    at: 2026-06-01T12:00:00Z
//	    caller: claims-service
//	    subject: user:dana
//	    action: claim.view
//	    resource: {type: claim, id: c1, properties: {coverage: "Coverage:acme/cov1"}}
//	    expect: {decision: allow, code: permitted, policies: [record.by-role], obligations: []}
//
// assurance, context, area, grant and the action as {name: …, properties: …} are
// optional.
//
// [Set.Mutants] lists what can be dropped from the policies or flipped in them,
// and [Set.Mutate] does it: a test should fail each time (ward policy test --mutate).
//
// # Findings
//
// [Compile] reports all findings at once, as file:line:column: code: text. A
// place inside a policy is that of the policy. Codes are append-only.
//
// Files and limits:
//
//	file_unknown           a pack has no file or folder of this name
//	file_too_large         a file is larger than 1 MiB, or the pack than 16 MiB
//	too_many_files         more than 512 files
//	not_utf8               a file is not UTF-8
//	bidi_control           a character that changes the reading direction
//	nesting_too_deep       brackets and ifs nest deeper than 64
//	set_too_large          a set literal of more than 1024 elements
//	policy_too_large       a policy of more than 8192 tokens
//	archive_invalid        not byte for byte what Archive wrote
//
// YAML:
//
//	yaml_invalid           not YAML, or an anchor, alias, tag or second document
//	key_unknown            a key that has no meaning here
//	key_duplicate          a name given twice
//	key_missing            a key that is required
//	value_invalid          a value of the wrong kind
//
// The schema:
//
//	catalogue_missing      no catalogue.yaml
//	schema_missing         no schema.cedarschema
//	schema_invalid         the schema does not parse or resolve
//	schema_duplicate       a module declares what exists already
//	namespace_unknown      something outside the catalogue's namespace
//	namespace_reserved     the namespace Ward
//	entity_reserved        an entity whose shape Ward relies on has another one
//
// Policies:
//
//	policy_invalid         the policy does not parse
//	validation_failed      the strict validator refuses the policy
//	id_missing             no @id
//	id_invalid             an @id that is no name
//	id_duplicate           an @id that another policy has
//	id_reserved            an @id that starts with "ward."
//	obligation_invalid     @obligation or @advice cannot be read, or is on a forbid
//	enum_unknown           an id outside its enumeration
//	unsupported_function   toDate() or toTime(), which the engine gets wrong before 1970
//	unsupported_literal    decimal("+1.0") and the smallest duration, likewise
//	forbid_on_optional     a forbid reads what a caller may leave out
//	module_permit          a module permits an action that is not its own
//	builtin_permit         a pack permits one of Ward's own actions
//	builtin_forbid         a pack may forbid policy.activate
//	overlay_permit         a policy of an overlay is no forbid
//	overlay_builtin        an overlay may forbid one of Ward's own actions
//	overlay_empty          an overlay without a policy
//
// The catalogue:
//
//	name_reserved          a principal, resource or action named like Ward's own
//	action_undeclared      an action of the schema that the catalogue lacks
//	action_unknown         an action of the catalogue that the schema lacks
//	entity_unknown         an entity of the catalogue that the schema lacks
//	entity_undeclared      an entity of the schema that the catalogue does not describe
//	attribute_unknown      an attribute of the catalogue that the schema lacks
//	attribute_type         an attribute of a type that cannot be filled
//	ward_unknown           an attribute that Ward is said to give and does not
//	source_missing         an attribute without a source
//	source_duplicate       an attribute with two sources
//	node_unknown           a node type that the catalogue lacks
//	module_unknown         a module that the pack lacks
//	setting_unknown        a setting that only the schema, or only the catalogue, has
//	resource_unknown       a resource that the catalogue lacks, or that its action is not for
//	route_duplicate        two routes that can answer one request
//	role_unknown           a role that nobody ships
//	role_duplicate         a role that is shipped already
//	role_cycle             a role that includes itself
//	grant_unknown          a grant type that the catalogue lacks
//	capability_unknown     a capability that nothing asks for, or that nobody can hold
//	edge_types_missing     an edge kind that confers and does not say which node types it ties
//	case_unknown           a test that names a policy or action that does not exist
//
// # The engine
//
// cedar-go parses, validates and evaluates; this package is its only home. In
// front of it stand limits (its parser recurses), checks that it lacks, and an
// index: Evaluate looks up the policies whose scope matches and evaluates
// exactly those, in the order of their ids. Behind it, [Outcome] keeps what
// Cedar's answer drops: every error, every satisfied policy, and the instant
// until which time alone cannot change the answer.
//
// # Compatibility
//
// [Compile] refuses a pack with any finding. [Open] reads back what was once
// stored: it asks only for what evaluation needs, so that a stricter version
// still opens, and replays, the sets of an older one. An archive may come from
// anywhere, so whoever puts an opened set in force asks [Set.Check] first.
//
// Codes, error kinds, the archive format and the encoding of a Question are part
// of recorded decisions: they never change, and new ones get new names.
package policies
