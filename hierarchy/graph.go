package hierarchy

import (
	"context"
	"errors"
)

// Graph holds every fact that was ever known.
type Graph struct{}

// BatchInfo is what a revision carries beside its events.
type BatchInfo struct {
	Time       Instant
	Provenance Provenance
	Import     *Import
	Record     uint64
}

// EdgeKinds is a set of edge kinds, made by [Graph.EdgeKinds].
type EdgeKinds struct{ names []string }

var errStub = errors.New("not built yet")

// NewGraph returns an empty graph.
func NewGraph() *Graph { return &Graph{} }

// Load builds a graph from a store.
func Load(ctx context.Context, s Store) (*Graph, error) { return nil, errStub }

// Head returns the last visible revision.
func (g *Graph) Head() Head { return Head{} }

// Tip returns the last applied revision.
func (g *Graph) Tip() Head { return Head{} }

// LastTime returns the transaction time of the tip.
func (g *Graph) LastTime() Instant { return 0 }

// HeadAt returns the head as it was at a revision.
func (g *Graph) HeadAt(revision uint64) (Head, bool) { return Head{}, false }

// RevisionAt returns the last visible revision known at an instant.
func (g *Graph) RevisionAt(known Instant) uint64 { return 0 }

// Batch returns what a revision carries beside its events.
func (g *Graph) Batch(revision uint64) (BatchInfo, bool) { return BatchInfo{}, false }

// Check says whether a batch can be applied; its error is a *Refusal.
func (g *Graph) Check(b *Batch) error { return errStub }

// Apply applies a stored revision.
func (g *Graph) Apply(e Entry) error { return errStub }

// Imports returns the open imports.
func (g *Graph) Imports() []Import { return nil }

// EdgeKinds returns a set of edge kinds.
func (g *Graph) EdgeKinds(names ...string) EdgeKinds { return EdgeKinds{names} }

// At returns the view of an instant as known at a revision.
func (g *Graph) At(at Instant, revision uint64, confer EdgeKinds) View { return View{} }
