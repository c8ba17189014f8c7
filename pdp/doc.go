// Package pdp is the decision point: it joins the facts of package hierarchy
// and the judgement of package policies, and writes down what it answers.
//
// A [PDP] is built over a store, a ledger and the ledger's keys; there is no
// way to build one that decides and does not record:
//
//	p, err := pdp.Open(ctx, pdp.Config{Store: store, Ledger: ledger, Keys: keys})
//	d, err := p.Decide(ctx, request)
//
// # How a question is answered
//
// One (policy set, revision) pair and one reading of the clock are taken. The
// request is converted: what the catalogue does not declare, or what this
// caller may not send, is dropped, and only its name is kept. The subject is
// resolved to a principal. A record's anchors are resolved and compared; they
// alone give it parents, a tenant and a confidentiality owner. Without
// standing (a live assignment, link or grant of the principal that reaches
// the very resource) the answer is a deny before any policy is asked. Then the
// policies judge one attempt without a grant and one for each live grant that
// concerns the resource; a feature or a route is judged once per area instead.
// A forbid that cannot be evaluated denies the whole request. The verdict is a
// function of the converted request, the pair and the clock alone.
//
// The record is durable before Decide returns. If the ledger fails, every
// later call is an outage.
//
// # Changes
//
// [PDP.Change] is the one way in: it decides the change by Ward's own policies,
// checks it, records it, stores it, publishes it, and returns only when every
// answer computed before it has left its door or become an outage. [PDP.Import]
// makes a feed into a line of such changes, visible together when it closes, and
// [PDP.Activate] puts a policy set in force after its checks and its own tests.
//
// A tenant may forbid more for itself ([PDP.ActivateOverlay]): every attempt that
// is about a record or an area of that tenant is judged by the set and by its
// overlay together, and no other is. A forbid of an overlay that cannot be
// evaluated makes the answer indeterminate; where a feature or route is asked in
// several areas, it ends the one of its own tenant only. A set that an overlay in
// force does not fit is refused (overlay_invalid).
//
// # What a change confers
//
// Nobody confers what they could not confer. At a node, somebody could confer
//
//   - with the action of the change (role.assign, hierarchy.change, …) held at
//     the node or above it,
//   - of Ward's own capabilities those that they hold there themselves, else
//     not_conferrable,
//   - of the pack's capabilities all, where they hold that action at the operator
//     or the network, and else those within the ceiling: what the catalogue's
//     tenantRoles hold together, else above_ceiling.
//
// So each change is asked about twice: may its author make it at the places that
// it concerns, and could they confer what somebody would gain. Gains count from
// now on, of what starts later too, and by all that a role will hold.
//
//	event               concerns             what somebody gains, and where it is asked
//	node                the node             where it did not exist: what is held at or above it,
//	                                         apart from its tenant; at its tenant or the operator
//	principal           the operator         where it did not exist: what it holds of Ward's own, there
//	person              the operator         nothing that a role gives; a feed may say that one exists
//	edge                child and parent     what is held at or above the parent and was not above the
//	                                         child, at any instant of its time; at the child. What brings
//	                                         a node under the network is the operator's too: from then
//	                                         on all of the pack could be conferred at it
//	link: identity      the operator         what the principal holds of Ward's own, there
//	link: self, merge,  the operator         what persons own and are granted: the operator's to confer
//	  family
//	link: owns          the node             the self role, and what grants about the person give
//	role                tenant or operator   what it holds and includes, there
//	assignment          the node             what the role holds; and where that lets its holder confer,
//	                                         what of Ward's own they hold around the node, and the
//	                                         operator or network, where they confer there
//	grant, signature    node or operator     what the grant holds. Of Ward's own none; about a person
//	                                         what the self role holds and its type names; about a node,
//	                                         unless by the operator or network, within the ceiling
//	entitlement,        the tenant           nothing: both only open or close what is held
//	  setting
//	block               the operator         nothing; its end is the operator's too
//	emergency, review   who asks             what the pack's emergency role holds: the policies say who
//	activation          the operator         Ward's own, of the pack's roles that change, at the operator;
//	                                         of a kind of edge that confers from now on, all of it
//	overlay             the tenant           nothing: it only forbids, and to take it away is the tenant's
//	any end or void     as the assertion     nothing, for it only takes away; but to take a node from
//	                                         under its owner's blocks needs block.change too
//
// A signature is asserted only of a grant that another system keeps (its source),
// else it is the act of who signs: signature_unasked.
//
// An import is asked in the same way, about nodes, edges and ownership as
// hierarchy.import at its tenant. A grant to an organisation is given to whom it
// makes its own: assigning a role there is asked at the organisation alone.
//
// What was written is bounded again when it is read: a tenant's own role holds
// nothing of the pack above the ceiling of the set in force, a grant gives what
// its type and the grantor at its root could, and one that is wider than the
// grant it was made from is not live. A right of Ward's own stays in a tenant's
// role, since whoever defined it held it.
//
// # Keys
//
// [PDP.Shred], [PDP.RecordLoss] and [PDP.RotateSigner] change the ledger's keys.
// Each is decided, and on record before it takes effect; [Open] finishes what a
// crash cut off between the two, as it finds it in the records since the last
// change of facts. No other change, and no decision, comes in between. A seal
// key that is gone is "shredded" or "lost" by a record, and else "missing".
//
// To destroy keys is no administrator's right, but that of the role
// records-officer, which those who set Ward up give first ([Setup]): since nobody
// confers what they do not hold, only an administrator who is an officer too can
// name another.
//
// # Inquiries
//
// [PDP.Ask], [PDP.Snapshot], [PDP.Who] and [PDP.Explain] answer questions that enforce
// nothing: at another time, or as known at another revision. Their answer is
// not a Decision, and no door can carry it.
//
// # Replay
//
// An answer is made in two steps. What is found in the facts is a slice: a code
// that it ends with, or the attempts, each a question with all that policies may
// read; and the instant at which the facts alone may change it. The verdict
// is a function of the slice and the policies, and the record commits to both.
//
// A [Replayer] re-derives recorded answers from the store and the ledger alone,
// and compares the whole clear part of a record byte for byte. It can also put
// the facts of then to other policies ([Replayer.Redecide]).
//
// # Cases
//
// A [Case] is evidence about some records that stands on its own: a folder of
// files, which an [Exporter] makes and which anybody checks with nothing else.
//
//	verifier            the ledger's public keys, one a line
//	a-1042.record       a record's body, the bytes as stored (package audit)
//	a-1042.proof        the proof that it is in the ledger (C2SP tlog-proof), all
//	                    of them under one checkpoint
//	a-1042.keys         a line for each sealed part: its key in base64url without
//	                    padding; or "shredded", "lost" or "missing", where the seal
//	                    key is gone; or "withheld"
//	a-1042.facts        a line for each answer: its slice, or the word of the line
//	                    in .keys where its part is closed
//	sha256-….policies   an archive of policies, named by its own SHA-256: the sets
//	                    that decided, and the tenants' overlays that stood with them
//
// Nothing else is in it. What is not in it, it says nothing of: neither that there
// are no other records, nor that a key which it calls gone is gone. A part's key is that of one record (package audit says
// how it is derived): it opens no other. A part's plaintext is a JSON array with
// an element for each answer: "i" its index, in a batch that was split counted
// from the first record's; "asked" the converted request; "verdict"; "facts", the
// SHA-256 of the slice in hexadecimal. In the clear part, "set" is the digest of
// the policy set and "items" has an element for each answer, of which "part" says
// which sealed part holds it, counted from 0.
//
// A slice is one JSON text in UTF-8 without insignificant space, its members in
// this order:
//
//	{"code":"","until":1767225600000,"attempts":[{"grant":"g-1","emergency":"e-1",
//	 "area":"Tenant:acme","counts":true,"tenant":"acme","overlay":"sha256:…",
//	 "question":{…}}]}
//
// "code" is the deny that it ends with, whatever the policies say, else empty.
// "until" is in milliseconds since 1970, 0 for never. Of an attempt, members that
// are empty are left out; the order of attempts is that in which they may permit;
// "counts" says whether it may; "overlay" is the digest of what "tenant" forbids.
// The question is in the form of [policies.Encode].
package pdp
