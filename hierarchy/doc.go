// Package hierarchy answers about facts: who belongs where, who holds which
// role, who may act for whom, at one instant, as known at one revision.
//
// Facts arrive as events in batches; a batch is a revision. A [Graph] holds
// every fact that was ever known and gives a [View] of any instant at any
// revision without being rebuilt. A [Store] keeps the batches; it decides
// nothing.
//
// The package knows no policy and no pack: which edge kinds confer access is an
// argument.
package hierarchy
