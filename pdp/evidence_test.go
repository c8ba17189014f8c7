package pdp

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp/audit"
)

// TestTheMatrixReplays records answers of the permission matrix (in a campaign
// all of them) and derives each again from store and ledger.
func TestTheMatrixReplays(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	m := newMatrix(t)
	store := storetest.NewMemory()
	_, err := store.PutBlob(ctx, pbm().Archive())
	must(t, err)
	for i, body := range m.revisions {
		_, err := store.Append(ctx, uint64(i), body)
		must(t, err)
	}
	must(t, audit.CreateKeys(filepath.Join(dir, "keys"), "ward.test/matrix"))
	keys, err := audit.OpenKeys(filepath.Join(dir, "keys"))
	must(t, err)
	must(t, audit.Create(filepath.Join(dir, "ledger"), keys))
	ledger, _, err := audit.Open(filepath.Join(dir, "ledger"), keys, audit.Options{})
	must(t, err)

	var answers, allowed atomic.Int64
	recordings := make(chan recording)
	var writers sync.WaitGroup
	for range 64 { // who wait together are written together
		writers.Go(func() {
			for r := range recordings {
				if _, err := r.write(ctx, ledger, keys); err != nil {
					t.Error(err)
				}
			}
		})
	}
	every := int64(count(7, 1))
	m.keep = func(w world, a *asked, j judgement) {
		if answers.Add(1)%every != 0 {
			return
		}
		if j.verdict.Effect {
			allowed.Add(1)
		}
		head, _ := w.graph.HeadAt(w.rev)
		recordings <- recording{kind: audit.Decision, world: w, head: head, items: []item{{a, j}}}
	}
	rows := count(10, 1) // of so many one
	each(len(m.rows)/rows, func(i int) { m.lines(m.rows[i*rows]) })
	close(recordings)
	writers.Wait()
	must(t, ledger.Close())

	_, err = audit.Verify(filepath.Join(dir, "ledger"), keys.Verifier(), nil)
	must(t, err)
	start := time.Now()
	rep, err := NewReplayer(ctx, store, keys)
	must(t, err)
	n := 0
	for e, err := range ledger.Scan(0) {
		must(t, err)
		r, err := rep.Replay(ctx, e)
		must(t, err)
		if n++; r.Items != 1 || len(r.Differences) > 0 {
			t.Fatalf("%s: %v", r.Record, r.Differences)
		}
	}
	if n == 0 || allowed.Load() == 0 || int64(n) == allowed.Load() {
		t.Errorf("%d records of which %d allow: nothing was tried", n, allowed.Load())
	}
	t.Logf("%d of %d answers of the matrix recorded (%d allow) and derived again, %.0f records/s", n, answers.Load(), allowed.Load(), float64(n)/time.Since(start).Seconds())
}
