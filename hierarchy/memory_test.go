package hierarchy

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkMemory reports what an edge and a node cost. Both are measured as
// the heap that remains, with everything that belongs to them: the rows, their
// indexes and places, and for a node its symbol and text.
func BenchmarkMemory(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 200_000
	for b.Loop() {
		before := heap()
		g := NewGraph()
		apply := func(event func(i int) Event) {
			for lo := 0; lo < n; lo += MaxBatchEvents {
				batch := &Batch{Revision: g.Tip().Revision + 1, Prev: g.Tip().Hash, Provenance: Provenance{Who: ana}}
				for i := lo; i < min(n, lo+MaxBatchEvents); i++ {
					batch.Events = append(batch.Events, event(i))
				}
				body, err := encode(batch)
				if err != nil {
					b.Fatal(err)
				}
				if err := g.Apply(Entry{batch.Revision, body}); err != nil {
					b.Fatal(err)
				}
			}
		}
		apply(func(i int) Event { return node(Always, fmt.Sprintf("Coverage:acme/%012d", i)) })
		nodes := heap()
		apply(func(i int) Event {
			return edge(during(0, 5), fmt.Sprintf("Coverage:acme/%012d", i), fmt.Sprintf("Coverage:acme/%012d", i/50))
		})
		edges := heap()
		b.ReportMetric(float64(nodes-before)/n, "B/node")
		b.ReportMetric(float64(edges-nodes)/n, "B/edge")
		runtime.KeepAlive(g)
	}
}
