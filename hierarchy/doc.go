// Package hierarchy answers about facts: who belongs where, who holds which
// role, who may act for whom, at one instant, as known at one revision. It
// knows no policy and no pack: which edge kinds confer access is an argument.
//
// # Use
//
// Facts arrive as events in batches; a batch is a revision. A [Store] keeps the
// batches and decides nothing; a [Graph] holds every fact that was ever known;
// a [View] answers. To ask:
//
//	g, err := hierarchy.Load(ctx, store)
//	v := g.At(now, g.Head().Revision, g.EdgeKinds("memberOf", "partOf"))
//	nodes := v.Closure(coverage)     // it and all that it is under
//	roles := v.Assignments(user)     // what the user holds, and where
//
// To ask and learn for how long the answers stay true, and from which facts
// they came, ask with a [Reading]:
//
//	r := hierarchy.NewReading()
//	nodes := v.Reading(r).Closure(coverage)
//	until, facts := r.Until(), r.Facts()
//
// To change: check the batch, encode it, append it to the store, apply it. On
// [ErrConflict] read on, apply, and check again.
//
//	tip := g.Tip()
//	b.Revision, b.Prev = tip.Revision+1, tip.Hash
//	err := g.Check(b)                              // a *Refusal says why not
//	body, err := hierarchy.Encode(b)
//	head, err := store.Append(ctx, tip.Revision, body)
//	err = g.Apply(hierarchy.Entry{Revision: head.Revision, Body: body})
//
// Readers are never blocked: a View of any revision costs nothing to make,
// since nothing is rebuilt for it, and a policy change rebuilds nothing either.
//
// # Model
//
// A [Node] is anything with an [ID]: an organisation, a person, a principal
// (what can act). An [Edge] puts a node under another, a [Link] ties an identity
// to a principal, a principal to a person, a person to another or to what it
// owns. A [Role] holds capabilities, an [Assignment] gives a role to a principal
// at a node, a [Grant] lets one act for another and a [Signature] agrees to it, a
// [Block] forbids access to a person, an [Entitlement] gives a tenant a module, a
// [Setting] is a tenant's choice, an [Emergency] opens a person's records to a
// principal for a short time and a [Review] closes its case, an [Activation] puts
// a policy set in force, or a tenant's overlay of one.
//
// A tenant's nodes carry its key in their ids, and edges never leave the tenant
// but from its Tenant node to the Operator; shared nodes lead to shared nodes
// only; persons and principals have no edges. The Tenant node is above each of
// its nodes by the key alone, whether or not an edge says so and whatever
// happened to the Tenant node, so a tenant's own people and the operator reach a
// record whose coverage is over.
//
// Nodes that a fact names must exist at every instant of its valid time when it
// is asserted (grantor and coverage of a grant: at some instant of it; who signs
// or reviews: at its start). A node may be ended or voided all the same while facts hang on it. Then an edge no
// longer confers once its parent does not exist, and an assignment does not
// count once its principal does not. An assignment at a node that has ended goes
// on, for it reaches what hung from the node before; at one that is voided it
// does not count. Links, grants, signatures, blocks, settings, emergencies and
// reviews go on by their own time: a block or a merge must not vanish with a
// duplicate Person. To change a node's attributes or a setting, end it and assert
// it anew from that instant on.
//
// # Grants and their signatures
//
// A grant leads from a grantor to a grantee, about a subject: a person, or a node
// between organisations, where the grantee is a node too and may be another
// tenant's. What it is about is one tenant's. A grant that [Grant.Needs]
// signatures is
//
//	requested  until each need of it, and of the grants up its chain, is signed;
//	           [GrantFact.Missing] lists what is not
//	live       while its own time, the chain's and a signature for each need hold,
//	           and the subject is not of age where that ends it
//	ended      by its time, by End (revoked), by majority, or by the end of a
//	           signature, as when an assent is withdrawn; it is live again when
//	           that need is signed again within its time
//	voided     it, or a grant up its chain, never was
//
// A Signature says as what it is given, by whom, and which principal acted; it
// must be one that the grant takes. A need is met by one signature at a time.
// GrantFact.Effective is the time around the instant asked about (of several
// signatures of a need, that of the one that holds); signatures that follow each
// other are not joined.
//
// At most [MaxLiveGrants] grants of one grantee and subject may overlap, those
// that are only requested included. [View.Grants] and [View.GrantsAbout] find the
// live ones among very many that are over or to come in about the time that they
// alone would take, at any instant, as of every revision since these grants last
// changed. The first question after a change sorts them, and one about an
// earlier revision walks them all.
//
// # Emergencies
//
// An emergency is written by its time: it starts no later than its batch, lasts
// at most [MaxEmergency], and may be ended early. It is about one person, at a
// node that the person owns. Until a review of it holds, its principal opens no
// other for that person, whichever of the merged identities is named. A review
// that is ended or voided leaves the case open again. [View.Emergencies] lists
// those that have begun, over or not: their Valid says which are open.
//
// # Two axes of time
//
// Valid time is when a fact is true in the real world: a half-open [Interval]
// of [Instant] values, milliseconds in UTC. A calendar date means the day in a
// zone: [ParseDate] gives its first instant, and that of the next day, which as
// an end includes the day. [DayStart] says what happens where the clock skips
// or repeats midnight, or a zone skips a day. The time zone data are embedded
// ([TZData]), so a date means the same on every machine.
//
// Transaction time is when Ward learned a fact: the revision. End says that a
// fact was true until an instant, Void that it never was; both count from their
// revision on, and as of an earlier one the fact stands as it did. A fact keeps
// the [FactID] of its assertion for good. [Graph.RevisionAt] turns a clock time
// into a revision.
//
// Majority is the instant at which a person comes of age: 00:00 of the birthday
// where the person's law applies, computed by [Majority] when the birth date is
// written, and stored with the version of the time zone data. Who was born on
// 29 February has the birthday on 1 March in common years. A grant with
// EndsAtMajority anywhere up its chain ends there: at the earliest majority that
// is known, at the instant asked about, of the subject and all that are merged
// with it. If none is known then, the grant is not live; Check refuses to write
// such a grant.
//
// # Stored revisions
//
// [Encode] writes a batch as one JSON object on one line, as encoding/json
// writes [Batch]: fields in that order, absent where zero, ids, facts and hashes
// in their text forms, an interval without its open sides, kinds and ops as
// numbers. A batch has one form only, and [Decode] takes no other.
//
//	{"revision":2,"prev":"9f…","time":1767225600000,"provenance":{"who":"Admin:ana"},
//	 "events":[{"op":1,"kind":2,"valid":{"from":0},"edge":{"child":"Group:acme/g8","kind":"partOf","parent":"Plan:acme/p1"}},
//	           {"op":2,"kind":2,"fact":"f1.3","at":1767225600000}]}
//
// Each batch names the head before it, and [Head] commits to all up to it. A
// kind or op that this version does not know is refused, never skipped: a newer
// version wrote it. Numbers of kinds and ops never change.
//
// # Imports
//
// An import is many batches under one id that become visible together. One
// [ImportOpen] batch starts it, [ImportMore] batches add to it, [ImportClose]
// makes all of it visible: its facts, ends and voids count from the closing
// revision. [ImportAbandon] drops it. It survives a restart: [Graph.Imports]
// names those that are open. There is one at a time for each tenant, and one
// for shared data; an import of a tenant touches only nodes, roles, assignments
// entitlements, settings and grants of that tenant, blocks, links, and persons and
// principals, but no signature, emergency or review. Other
// changes go on beside it. Check sees what open imports hold, so that closing
// cannot fail: what conflicts with a fact of an open import is refused, and what
// an open import is ending cannot be ended by others.
//
// A history import brings the past from a source. Its batches are revisions
// with the source's times, which must not decrease among them but may lie before
// those of the revisions before. It needs a graph in which no edge and no link
// was asserted, but for identity links and what an abandoned import held, and it
// is alone: nothing else is
// applied until it is closed or abandoned, and [Graph.Head] stays where it was.
// Closing makes each batch visible at its own revision.
//
// # Refusals
//
// A [Refusal] names the first event at fault, by index and source line, and has
// one of these codes:
//
//	event_kind_unknown  a kind or op that this version does not know, or a reserved one
//	event_invalid       a field is missing, too many, or malformed; an end of the wrong sort
//	interval_inverted   a valid or service time, or an End, at or before its start
//	unknown_end         a node, role, grant or emergency does not exist in (all of) the valid time,
//	                    or the person of an emergency does not own its node
//	unknown_fact        End or Void of what is no fact, is voided, or has ended by then
//	unknown_tenant      a tenant's node, role or overlay without its Tenant node
//	tenancy_violation   an edge, assignment, role, grant or import across tenants
//	cycle               over edges at some instant, over roles, or back up a chain of grants
//	node_exists         the valid time of another Node fact of the same id overlaps
//	duplicate_fact      the same fact with an overlapping valid time; an identity of two principals;
//	                    two values of a setting; an emergency id that was used before
//	grant_exists        a grant id that was used before, even if voided
//	grant_wider         a grant is wider than its parent in some dimension
//	grant_depth         the parent may not be redelegated, or not so deep
//	grant_limit         a seventeenth grant for one grantee and subject at some instant
//	need_unknown        a signature that the grant does not take
//	emergency_future    an emergency that starts after it is written
//	emergency_long      an emergency longer than MaxEmergency
//	emergency_open      another emergency of the principal for the person waits for its review
//	import_open         another import of the tenant, or a history import, is open
//	import_unknown      the import that the batch names is not open
//	store_not_empty     a history import needs a graph without edges and links (identities aside)
//	batch_too_large     more than MaxBatchEvents events or MaxBatchBytes bytes
//	time_reversed       a transaction time before that of the last revision
//
// The text names nodes of organisations, but no person, no principal, no
// identity and no node that a person owns.
package hierarchy
