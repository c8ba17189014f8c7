package pdp

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
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

	_, err = audit.Verify(filepath.Join(dir, "ledger"), keys.Verifier())
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

var golden = flag.String("golden", "", "write testdata/ledgers/`NAME`.tar.gz: once for a release, never again")

// TestGoldenLedgers replays the ledgers that releases have left, each with its
// store and keys (made for the purpose): what they hold is derived again by every
// later version.
func TestGoldenLedgers(t *testing.T) {
	const folder = "../testdata/ledgers"
	if *golden != "" {
		s := boltSite(t, pbm(), "2026-11-20T12:00:00Z")
		record(t, s, 700, 4, 12)
		anchor := s.ledger.Checkpoint()
		dir := s.freeze(t)
		must(t, os.WriteFile(filepath.Join(dir, "anchor"), anchor, 0o600))
		f, err := os.OpenFile(filepath.Join(folder, *golden+".tar.gz"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		must(t, err)
		z := gzip.NewWriter(f)
		w := tar.NewWriter(z)
		must(t, errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), z.Close(), f.Close()))
	}
	archives, err := filepath.Glob(filepath.Join(folder, "*.tar.gz"))
	must(t, err)
	if len(archives) == 0 {
		t.Error("there are none")
	}
	for _, name := range archives {
		dir := t.TempDir()
		untar(t, name, dir)
		keys, err := audit.OpenKeys(filepath.Join(dir, "keys"))
		must(t, err)
		anchor, err := os.ReadFile(filepath.Join(dir, "anchor"))
		must(t, err)
		report, err := audit.Verify(filepath.Join(dir, "ledger"), keys.Verifier(), anchor)
		must(t, err)
		text, err := replayAll(context.Background(), dir)
		must(t, err)
		if !strings.HasSuffix(text, " different=0") || !report.Anchored || report.Records < 100 {
			t.Errorf("%s: %s; %+v", name, text, report)
		}
		t.Logf("%s: %d records, %s", filepath.Base(name), report.Records, text)
	}
}

func untar(t *testing.T, name, dir string) {
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		must(t, err)
		to := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if h.FileInfo().IsDir() {
			must(t, os.MkdirAll(to, 0o700))
			continue
		}
		body, err := io.ReadAll(r)
		must(t, err)
		must(t, os.MkdirAll(filepath.Dir(to), 0o700))
		must(t, os.WriteFile(to, body, 0o600))
	}
}
