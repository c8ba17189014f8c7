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
// # Inquiries
//
// [PDP.Ask], [PDP.Snapshot], [PDP.Who] and [PDP.Explain] answer questions that enforce
// nothing: at another time, or as known at another revision. Their answer is
// not a Decision, and no door can carry it.
//
// # Replay
//
// A [Replayer] re-derives recorded answers from the store and the ledger alone,
// and compares the whole clear part of a record byte for byte.
package pdp
