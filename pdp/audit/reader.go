package audit

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// entries yields the records of [from, to), of which at least min-from exist.
func entries(fsys fileSystem, dir string, from, to, least uint64, yield func(Entry, error) bool) {
	if from >= to {
		return
	}
	next := from
	t, err := scan(fsys, dir, from, func(f frame) error {
		e, err := decode(f.seq, f.body)
		if err != nil {
			return &CorruptError{segmentName(f.seq / segmentSize * segmentSize), f.offset, f.seq, "not a record of this version"}
		}
		next = f.seq + 1
		if !yield(e, nil) {
			return errDone
		}
		if next >= to {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errDone) {
		return
	}
	if err == nil && next < least {
		err = &CorruptError{segmentName(t.segment), t.offset, t.seq, "records are missing"}
	}
	if err != nil {
		yield(Entry{}, err)
	}
}

var errDone = errors.New("done")

func entry(fsys fileSystem, dir string, seq, size uint64) (found Entry, err error) {
	if seq >= size {
		return Entry{}, fmt.Errorf("%w: %s", ErrNotFound, ID(seq))
	}
	entries(fsys, dir, seq, seq+1, seq+1, func(e Entry, eerr error) bool {
		found, err = e, eerr
		return false
	})
	return found, err
}

// Reader reads a ledger's folder offline, or beside the process that writes it.
// It creates nothing and takes no lock. What the writer is in the middle of is
// not an error; it is just not there yet.
//
// A Reader checks frames and that the last checkpoint is signed and reached;
// [Verify] checks every hash.
type Reader struct {
	fs  fileSystem
	dir string
	cp  checkpoint
}

// OpenReader opens a ledger's folder for reading, with the ledger's public key
// ([Keys.Verifier]).
func OpenReader(dir, verifier string) (*Reader, error) { return openReader(osFS{}, dir, verifier) }

func openReader(fsys fileSystem, dir, verifier string) (*Reader, error) {
	v, err := newVerifier(verifier)
	if err != nil {
		return nil, err
	}
	f, err := openCheckpoints(fsys, dir, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cp, _, err := lastCheckpoint(f, v)
	if err != nil {
		return nil, err
	}
	return &Reader{fsys, dir, cp}, nil
}

func newVerifier(verifier string) (note.Verifier, error) {
	v, err := note.NewVerifier(verifier)
	if err != nil {
		return nil, errors.New("audit: not a verifier key")
	}
	return v, nil
}

// All gives every record, in order. Damage is a [*CorruptError]; after it, All
// ends.
func (r *Reader) All() iter.Seq2[Entry, error] { return r.From(0) }

// From is All from a sequence number on.
func (r *Reader) From(seq uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		entries(r.fs, r.dir, seq, math.MaxUint64, r.cp.size, yield)
	}
}

// Entry gives one record; [ErrNotFound] if there is none (yet).
func (r *Reader) Entry(seq uint64) (Entry, error) {
	found := Entry{}
	err := fmt.Errorf("%w: %s", ErrNotFound, ID(seq))
	entries(r.fs, r.dir, seq, seq+1, min(r.cp.size, seq+1), func(e Entry, eerr error) bool {
		found, err = e, eerr
		return false
	})
	return found, err
}

// Report is what [Verify] established.
type Report struct {
	Records        uint64 // records read
	Root           string // RFC 6962 root over all of them, base64 as in a checkpoint
	CheckpointSize uint64 // records that the last checkpoint covers
	Tail           uint64 // records after it, which nobody has signed yet
	Anchored       bool   // whether an outside checkpoint of at least one record agreed
	AnchorSize     uint64 // records that it covers; a forger without it could have rewritten the rest
}

// String says it in words, "self-consistent, not anchored" included.
func (r Report) String() string {
	s := fmt.Sprintf("%d records, root %s, %d after the last checkpoint: ", r.Records, r.Root, r.Tail)
	if r.Anchored {
		return s + fmt.Sprintf("consistent with the anchor at %d", r.AnchorSize)
	}
	return s + "self-consistent, not anchored"
}

// Verify reads every record again, hashes it, and compares the root with every
// checkpoint in the ledger's folder and with the anchor: a checkpoint that was
// kept where the ledger's owner could not change it, or nil. Whoever holds the
// signing key can rewrite a ledger and sign it anew; only an anchor shows that.
//
// It needs the public key only, creates nothing, and may run beside the writer.
// Damage, and an anchor that the ledger contradicts, is a [*CorruptError]. An
// anchor that the key did not sign is another error.
func Verify(dir, verifier string, anchor []byte) (Report, error) {
	return verify(osFS{}, dir, verifier, anchor)
}

func verify(fsys fileSystem, dir, verifier string, anchor []byte) (Report, error) {
	v, err := newVerifier(verifier)
	if err != nil {
		return Report{}, err
	}
	var fixed checkpoint
	if anchor != nil {
		if fixed, err = openCheckpoint(anchor, v); err != nil {
			return Report{}, fmt.Errorf("audit: anchor: %w", err)
		}
	}
	f, err := openCheckpoints(fsys, dir, os.O_RDONLY)
	if err != nil {
		return Report{}, err
	}
	defer f.Close()
	size, err := f.Size() // before the records, which may grow past it
	if err != nil {
		return Report{}, err
	}
	cps := newCheckpoints(f, 0, size, v)
	next, err := cps.next()
	if err == io.EOF || errors.Is(err, errTorn) {
		err = cps.corrupt("no checkpoint")
	}
	if err != nil {
		return Report{}, err
	}
	var tr tree
	var last uint64
	more := true
	// check compares the tree as it stands with all that states its size.
	check := func() error {
		for more && next.size == tr.n {
			if next.root != tr.root() {
				return cps.corrupt(fmt.Sprintf("the root at %d differs from the checkpoint", tr.n))
			}
			last = tr.n
			next, err = cps.next()
			if err == io.EOF || errors.Is(err, errTorn) {
				more, err = false, nil
			}
			if err != nil {
				return err
			}
		}
		if anchor != nil && fixed.size == tr.n && fixed.root != tr.root() {
			return &CorruptError{"anchor", 0, tr.n, "the root differs from the anchor"}
		}
		return nil
	}
	if err := check(); err != nil {
		return Report{}, err
	}
	t, err := scan(fsys, dir, 0, func(f frame) error {
		tr.push(tlog.RecordHash(f.body))
		return check()
	})
	switch {
	case err != nil:
		return Report{}, err
	case more:
		return Report{}, &CorruptError{segmentName(t.segment), t.offset, tr.n, "fewer records than a checkpoint states"}
	case anchor != nil && fixed.size > tr.n:
		return Report{}, &CorruptError{segmentName(t.segment), t.offset, tr.n, "fewer records than the anchor states"}
	}
	return Report{
		Records: tr.n, Root: tr.root().String(), CheckpointSize: last, Tail: tr.n - last,
		Anchored: fixed.size > 0, AnchorSize: fixed.size,
	}, nil
}

// CopyTo writes a tar of the ledger as it is durable now: the segments, and the
// checkpoints up to one that covers exactly them, signed for the purpose. The
// writer is held up for that signature only. Unpacked, it is a ledger that
// [OpenReader] and [Verify] read with the public key; keys are not in it.
func (l *Ledger) CopyTo(w io.Writer) error {
	type state struct {
		size, segment  uint64
		segOff, cpsOff int64
		err            error
	}
	got := make(chan state, 1)
	ask := func() {
		s := state{err: l.Err()}
		if s.err == nil {
			if err := l.checkpoint(); err != nil {
				s.err = l.fail(err)
			}
		}
		s.size, s.segment, s.segOff, s.cpsOff = l.tree.n, l.segment, l.segOff, l.cpOff
		got <- s
	}
	select {
	case l.asks <- ask:
	case <-l.done:
		return ErrClosed
	}
	s := <-got
	if s.err != nil {
		return s.err
	}
	tw := tar.NewWriter(w)
	for first := uint64(0); first < s.size; first += segmentSize {
		n := int64(-1)
		if first == s.segment {
			n = s.segOff
		}
		if err := l.copyFile(tw, segmentName(first), n); err != nil {
			return err
		}
	}
	if err := l.copyFile(tw, checkpointsFile, s.cpsOff); err != nil {
		return err
	}
	return tw.Close()
}

// copyFile adds the first n bytes of a file, or all of it if n is negative.
func (l *Ledger) copyFile(tw *tar.Writer, name string, n int64) error {
	f, err := l.fs.OpenFile(filepath.Join(l.dir, name), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if n < 0 {
		if n, err = f.Size(); err != nil {
			return err
		}
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: n, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(tw, io.NewSectionReader(f, 0, n))
	return err
}
