// Package storetest is the suite that every [hierarchy.Store] passes, and a
// store in memory for the tests of others.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
)

// Run runs the suite. open returns a new, empty store. reopen returns the store
// again from what is durable of it: it may be called with the store still open
// and then closes it first. Stores that keep nothing pass a nil reopen, which
// skips what is about durability.
//
// Where the store can be opened from what CopyTo wrote, see [RunCopy].
func Run(t *testing.T, open func(t *testing.T) hierarchy.Store, reopen func(t *testing.T, s hierarchy.Store) hierarchy.Store) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"empty", (*suite).empty},
		{"append and read", (*suite).appendAndRead},
		{"conflict", (*suite).conflict},
		{"race", (*suite).race},
		{"read while appending", (*suite).readWhileAppending},
		{"append while reading", (*suite).appendWhileReading},
		{"caller's bytes", (*suite).callersBytes},
		{"blobs", (*suite).blobs},
		{"context", (*suite).context},
		{"close", (*suite).close},
		{"durable", (*suite).durable},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{T: t, store: open(t), reopen: reopen, ctx: context.Background()}
			t.Cleanup(func() { s.store.Close() })
			test.run(s)
		})
	}
}

type suite struct {
	*testing.T
	store  hierarchy.Store
	reopen func(*testing.T, hierarchy.Store) hierarchy.Store
	ctx    context.Context
}

func body(n uint64) []byte { return fmt.Appendf(nil, `{"revision":%d}`, n) }

// fill appends revisions up to last and returns the head.
func (s *suite) fill(last uint64) hierarchy.Head {
	s.Helper()
	head, err := s.store.Head(s.ctx)
	if err != nil {
		s.Fatalf("Head: %v", err)
	}
	for head.Revision < last {
		want := head.Next(body(head.Revision + 1))
		got, err := s.store.Append(s.ctx, head.Revision, body(head.Revision+1))
		if err != nil {
			s.Fatalf("Append(%d): %v; the expected revision was that of the head", head.Revision, err)
		}
		if got != want {
			s.Fatalf("Append(%d) returned head %v; want %v: the new head is SHA-256(head before ‖ body)", head.Revision, got, want)
		}
		head = got
	}
	return head
}

// expect reads everything and demands revisions 1 to last as fill wrote them.
func (s *suite) expect(last uint64) {
	s.Helper()
	if err := check(s.ctx, s.store, 0, last); err != nil {
		s.Fatal(err)
	}
}

func check(ctx context.Context, store hierarchy.Store, from, atLeast uint64) error {
	n := from
	for e, err := range store.Read(ctx, from) {
		if err != nil {
			return fmt.Errorf("Read(%d): after revision %d: %v", from, n, err)
		}
		if n++; e.Revision != n {
			return fmt.Errorf("Read(%d) yields revision %d after %d: revisions come in order and without gaps", from, e.Revision, n-1)
		}
		if !bytes.Equal(e.Body, body(n)) {
			return fmt.Errorf("Read(%d) yields other bytes for revision %d than were appended", from, n)
		}
	}
	if n < atLeast {
		return fmt.Errorf("Read(%d) ends at revision %d; want %d: it goes at least up to the head at the time of the call", from, n, atLeast)
	}
	return nil
}

func (s *suite) empty() {
	head, err := s.store.Head(s.ctx)
	if err != nil || head != (hierarchy.Head{}) {
		s.Errorf("Head of an empty store is %v, %v; want the zero Head", head, err)
	}
	for e, err := range s.store.Read(s.ctx, 0) {
		s.Errorf("Read of an empty store yields revision %d, %v; want nothing", e.Revision, err)
	}
}

func (s *suite) appendAndRead() {
	want := s.fill(600)
	if head, err := s.store.Head(s.ctx); err != nil || head != want {
		s.Errorf("Head is %v, %v; want %v, that of the last Append", head, err, want)
	}
	s.expect(600)
	for _, from := range []uint64{1, 255, 256, 599, 600, 700} {
		if err := check(s.ctx, s.store, from, min(600, from)); err != nil && from <= 600 {
			s.Error(err)
		}
	}
	for e := range s.store.Read(s.ctx, 600) {
		s.Errorf("Read(600) yields revision %d; want nothing after the head", e.Revision)
	}
	n := 0
	for range s.store.Read(s.ctx, 0) {
		if n++; n == 3 {
			break
		}
	}
	s.fill(601) // and a reader that stopped early holds nothing up
}

func (s *suite) conflict() {
	want := s.fill(3)
	for _, expected := range []uint64{0, 2, 4, 1 << 40} {
		head, err := s.store.Append(s.ctx, expected, body(9))
		if !errors.Is(err, hierarchy.ErrConflict) {
			s.Errorf("Append(%d) at revision 3 returns %v; want ErrConflict", expected, err)
		}
		if head != (hierarchy.Head{}) {
			s.Errorf("Append(%d) returns a head with ErrConflict; want the zero Head", expected)
		}
	}
	if head, err := s.store.Head(s.ctx); err != nil || head != want {
		s.Errorf("Head is %v, %v after conflicts; want %v: nothing was written", head, err, want)
	}
	s.expect(3)
}

func (s *suite) race() {
	const workers, rounds = 8, 12
	for round := range uint64(rounds) {
		var wg sync.WaitGroup
		errs := make([]error, workers)
		for i := range workers {
			wg.Go(func() { _, errs[i] = s.store.Append(s.ctx, round, body(round+1)) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, hierarchy.ErrConflict):
				s.Errorf("Append(%d) among others returns %v; want nil or ErrConflict", round, err)
			}
		}
		if won != 1 {
			s.Fatalf("%d of %d concurrent Append(%d) succeed; want exactly one", won, workers, round)
		}
	}
	s.expect(rounds)
}

func (s *suite) readWhileAppending() {
	s.fill(20)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				head, err := s.store.Head(s.ctx)
				if err != nil {
					s.Errorf("Head while appending: %v", err)
					return
				}
				if err := check(s.ctx, s.store, head.Revision/2, head.Revision); err != nil {
					s.Errorf("while appending: %v", err)
					return
				}
			}
		})
	}
	s.fill(80)
	close(done)
	wg.Wait()
}

func (s *suite) appendWhileReading() {
	s.fill(300)
	n := uint64(0)
	for e, err := range s.store.Read(s.ctx, 0) {
		if err != nil {
			s.Fatalf("Read: %v", err)
		}
		if n++; n == 2 { // a big one, so that the file has to grow
			if _, err := s.store.Append(s.ctx, 300, bytes.Repeat([]byte("x"), 3<<20)); err != nil {
				s.Fatalf("Append within a Read: %v; a reader holds no writer up", err)
			}
		}
		if e.Revision != n {
			s.Fatalf("Read yields revision %d after %d: no gaps while others append", e.Revision, n-1)
		}
	}
	if n < 300 {
		s.Errorf("Read ended at revision %d; want at least 300", n)
	}
}

func (s *suite) callersBytes() {
	buf := body(1)
	if _, err := s.store.Append(s.ctx, 0, buf); err != nil {
		s.Fatal(err)
	}
	data := []byte("data")
	digest, err := s.store.PutBlob(s.ctx, data)
	if err != nil {
		s.Fatal(err)
	}
	buf[0], data[0] = '!', '!'
	s.expect(1)
	got, err := s.store.GetBlob(s.ctx, digest)
	if err != nil || string(got) != "data" {
		s.Fatalf("GetBlob returns %q, %v; the store keeps its own copy of what it is given", got, err)
	}
	got[0] = '!'
	if again, err := s.store.GetBlob(s.ctx, digest); err != nil || string(again) != "data" {
		s.Errorf("GetBlob returns %q, %v; what it returned before was the caller's own copy", again, err)
	}
}

func (s *suite) blobs() {
	for _, data := range [][]byte{{}, []byte("a"), bytes.Repeat([]byte("abc"), 1<<19)} {
		digest, err := s.store.PutBlob(s.ctx, data)
		if err != nil || digest != hierarchy.Digest(data) {
			s.Fatalf("PutBlob of %d bytes returns %q, %v; want the digest of the data", len(data), digest, err)
		}
		if again, err := s.store.PutBlob(s.ctx, data); err != nil || again != digest {
			s.Errorf("PutBlob of the same data returns %q, %v; storing it twice is no error", again, err)
		}
		got, err := s.store.GetBlob(s.ctx, digest)
		if err != nil || !bytes.Equal(got, data) {
			s.Errorf("GetBlob returns %d bytes, %v; want the %d that were stored", len(got), err, len(data))
		}
	}
	for _, digest := range []string{hierarchy.Digest([]byte("never stored")), "", "sha256:", "sha1:00"} {
		if data, err := s.store.GetBlob(s.ctx, digest); !errors.Is(err, hierarchy.ErrNotFound) || data != nil {
			s.Errorf("GetBlob(%q) returns %d bytes, %v; want ErrNotFound and none", digest, len(data), err)
		}
	}
	if head, err := s.store.Head(s.ctx); err != nil || head.Revision != 0 {
		s.Errorf("Head is %v, %v after blobs; a blob is no revision", head, err)
	}
}

func (s *suite) context() {
	s.fill(2)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.store.Append(ctx, 2, body(3)); !errors.Is(err, context.Canceled) {
		s.Errorf("Append with an ended context returns %v; want its error", err)
	}
	if _, err := s.store.Head(ctx); !errors.Is(err, context.Canceled) {
		s.Errorf("Head with an ended context returns %v; want its error", err)
	}
	var last error
	n := 0
	for _, err := range s.store.Read(ctx, 0) {
		n++
		last = err
	}
	if n != 1 || !errors.Is(last, context.Canceled) {
		s.Errorf("Read with an ended context yields %d times, last %v; want one error", n, last)
	}
	if err := s.store.CopyTo(ctx, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		s.Errorf("CopyTo with an ended context returns %v; want its error", err)
	}
	s.expect(2)
}

func (s *suite) close() {
	s.fill(2)
	if err := s.store.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	if _, err := s.store.Head(s.ctx); err == nil {
		s.Error("Head of a closed store returns no error")
	}
	if _, err := s.store.Append(s.ctx, 2, body(3)); err == nil || errors.Is(err, hierarchy.ErrConflict) {
		s.Errorf("Append to a closed store returns %v; want an error that is no conflict", err)
	}
	if _, err := s.store.PutBlob(s.ctx, body(3)); err == nil {
		s.Error("PutBlob to a closed store returns no error")
	}
	if _, err := s.store.GetBlob(s.ctx, hierarchy.Digest(body(3))); err == nil || errors.Is(err, hierarchy.ErrNotFound) {
		s.Errorf("GetBlob of a closed store returns %v; it cannot know that there is none", err)
	}
	n := 0
	for _, err := range s.store.Read(s.ctx, 0) {
		if n++; err == nil {
			s.Error("Read of a closed store yields a revision")
		}
	}
	if n == 0 {
		s.Error("Read of a closed store ends without an error, like that of an empty one")
	}
	if s.reopen != nil {
		s.store = s.reopen(s.T, s.store)
		s.expect(2)
	}
}

func (s *suite) durable() {
	if s.reopen == nil {
		s.Skip("the store keeps nothing")
	}
	for last := uint64(5); last <= 20; last += 5 {
		want := s.fill(last)
		digest, err := s.store.PutBlob(s.ctx, body(last))
		if err != nil {
			s.Fatalf("PutBlob: %v", err)
		}
		s.store = s.reopen(s.T, s.store)
		if head, err := s.store.Head(s.ctx); err != nil || head != want {
			s.Fatalf("Head is %v, %v after reopening; want %v: what Append acknowledged stays", head, err, want)
		}
		s.expect(last)
		if data, err := s.store.GetBlob(s.ctx, digest); err != nil || !bytes.Equal(data, body(last)) {
			s.Fatalf("GetBlob returns %q, %v after reopening; what PutBlob acknowledged stays", data, err)
		}
	}
}

// RunCopy checks CopyTo: openCopy opens what it wrote.
func RunCopy(t *testing.T, open func(t *testing.T) hierarchy.Store, openCopy func(t *testing.T, copied []byte) hierarchy.Store) {
	s := &suite{T: t, store: open(t), ctx: context.Background()}
	defer s.store.Close()
	s.fill(10)
	digest, err := s.store.PutBlob(s.ctx, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.fill(60) })
	for range 5 {
		before, err := s.store.Head(s.ctx)
		if err != nil {
			t.Error(err)
			break
		}
		var copied bytes.Buffer
		if err := s.store.CopyTo(s.ctx, &copied); err != nil {
			t.Errorf("CopyTo while appending: %v", err)
			break
		}
		c := openCopy(t, copied.Bytes())
		head, err := c.Head(s.ctx)
		if err != nil || head.Revision < before.Revision {
			t.Errorf("head of the copy is %v, %v; want at least revision %d, the head when it began", head, err, before.Revision)
		}
		if err := check(s.ctx, c, 0, head.Revision); err != nil {
			t.Errorf("the copy is not whole: %v", err)
		}
		if data, err := c.GetBlob(s.ctx, digest); err != nil || string(data) != "data" {
			t.Errorf("the copy's blob is %q, %v; blobs are part of the store", data, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	s.expect(60)
}
