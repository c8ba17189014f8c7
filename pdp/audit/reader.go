package audit

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// entries gives the records of a span.
func entries(fsys fileSystem, dir string, of span) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		_, err := scan(fsys, dir, of, func(f frame) error {
			e, err := Decode(f.seq, f.body)
			if err != nil {
				return &CorruptError{segmentName(f.seq / segmentSize * segmentSize), f.offset, f.seq, "not a record of this version"}
			}
			if !yield(e, nil) {
				return errStop
			}
			return nil
		})
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

// first gives the first of some entries, which should be at seq.
func first(seq uint64, some iter.Seq2[Entry, error]) (Entry, error) {
	for e, err := range some {
		return e, err
	}
	return Entry{}, fmt.Errorf("%w: %s", ErrNotFound, ID(seq))
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
	v   verifiers
	cp  checkpoint
}

// OpenReader opens a ledger's folder for reading, with the ledger's public key
// ([Keys.Verifier]).
func OpenReader(dir, verifier string) (*Reader, error) { return openReader(osFS{}, dir, verifier) }

func openReader(fsys fileSystem, dir, verifier string) (*Reader, error) {
	v, err := openVerifiers(verifier)
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
	return &Reader{fsys, dir, v, cp}, nil
}

// ErrVerifier: the text is not a ledger's public key.
var ErrVerifier = errors.New("audit: not a verifier key")

// From gives every record from a sequence number on, in order. Damage is a
// [*CorruptError]; after it, From ends.
func (r *Reader) From(seq uint64) iter.Seq2[Entry, error] {
	return entries(r.fs, r.dir, span{seq, math.MaxUint64, r.cp.size})
}

// Entry gives one record; [ErrNotFound] if there is none (yet).
func (r *Reader) Entry(seq uint64) (Entry, error) { return first(seq, r.From(seq)) }

// Report is what [Verify] established.
type Report struct {
	Records        uint64 // records read
	Root           string // RFC 6962 root over all of them, base64 as in a checkpoint
	CheckpointSize uint64 // records that the last checkpoint covers
	Tail           uint64 // records after it, which nobody has signed yet
	Anchored       bool   // whether an outside checkpoint of at least one record agreed
	AnchorSize     uint64 // records that the longest one covers; a forger without it could have rewritten the rest
	Verifier       string // the ledger's public keys, one a line: those given, and those that the records name
}

// Verify reads every record again, hashes it, and compares the root with every
// checkpoint in the ledger's folder and with those from outside: of any size,
// signed by the ledger's key, and kept where the ledger's owner could not change
// them. Whoever holds the signing key can rewrite a ledger and sign it anew;
// only a checkpoint from outside shows that.
//
// It needs the public key only, creates nothing, and may run beside the writer.
// Damage, an outside checkpoint that the ledger contradicts, and one that
// another key signed under the ledger's name, is a [*CorruptError]. An outside
// checkpoint of something else is another error.
func Verify(dir, verifier string, outside ...[]byte) (Report, error) {
	return verify(osFS{}, dir, verifier, outside...)
}

func verify(fsys fileSystem, dir, verifier string, outside ...[]byte) (rep Report, err error) {
	v, err := openVerifiers(verifier)
	if err != nil {
		return rep, err
	}
	var anchors []checkpoint
	var unopened error // of an anchor by a key that the records may name
	for _, msg := range outside {
		cp, err := openCheckpoint(msg, v)
		if errors.Is(err, ErrCorrupt) {
			unopened = cmp.Or(unopened, err)
			continue
		}
		if err != nil {
			return rep, err
		}
		anchors = append(anchors, cp)
		rep.AnchorSize = max(rep.AnchorSize, cp.size)
	}
	slices.SortFunc(anchors, func(a, b checkpoint) int { return cmp.Compare(a.size, b.size) })
	f, err := openCheckpoints(fsys, dir, os.O_RDONLY)
	if err != nil {
		return rep, err
	}
	defer f.Close()
	cps, err := newCheckpoints(f, v) // before the records, which may grow past it
	if err != nil {
		return rep, err
	}
	cps.named = map[uint32]uint32{}
	var tr tree
	_, err = hashAll(fsys, dir, &tr, cps.record, claim{"a checkpoint", cps.next}, claim{"the outside checkpoint", list(anchors)})
	for _, later := range v[1:] { // announced once a record that names it is durable
		if _, named := cps.named[later.KeyHash()]; err == nil && !named {
			err = cps.corrupt("fewer records than a later key of the ledger proves: none names it")
		}
	}
	known := append(strings.Fields(verifier), cps.found...)
	if err == nil && unopened != nil && len(cps.found) > 0 {
		return verify(fsys, dir, strings.Join(known, "\n"), outside...)
	}
	if err = cmp.Or(err, unopened); err != nil {
		return Report{}, err
	}
	rep.Verifier = strings.Join(known, "\n")
	rep.Anchored, rep.CheckpointSize = rep.AnchorSize > 0, cps.last
	rep.Records, rep.Root, rep.Tail = tr.n, tr.root().String(), tr.n-cps.last
	return rep, nil
}

// claim is what somebody states about a ledger: checkpoints by rising size,
// until io.EOF.
type claim struct {
	by   string
	next func() (checkpoint, error)
}

func list(cps []checkpoint) func() (checkpoint, error) {
	return func() (cp checkpoint, err error) {
		if len(cps) == 0 {
			return cp, io.EOF
		}
		cp, cps = cps[0], cps[1:]
		return cp, nil
	}
}

// hashAll reads all records into the tree, holds every claim against it, and
// shows each to see.
func hashAll(fsys fileSystem, dir string, tr *tree, see func(frame), claims ...claim) (tail, error) {
	const none = math.MaxUint64                                           // more than a checkpoint can state
	stated := slices.Repeat([]checkpoint{{root: tr.root()}}, len(claims)) // the next of each claim: at first that nothing is there
	check := func() error {
		for i := range stated {
			for stated[i].size <= tr.n {
				if stated[i].root != tr.root() {
					return &CorruptError{segmentName((max(tr.n, 1) - 1) / segmentSize * segmentSize), 0, tr.n, "the root differs from " + claims[i].by}
				}
				cp, err := claims[i].next()
				if err == io.EOF {
					cp, err = checkpoint{size: none}, nil
				}
				if err != nil {
					return err
				}
				stated[i] = cp
			}
		}
		return nil
	}
	if err := check(); err != nil {
		return tail{}, err
	}
	t, err := scan(fsys, dir, span{0, math.MaxUint64, 0}, func(f frame) error {
		tr.push(tlog.RecordHash(f.body))
		see(f)
		return check()
	})
	for i, cp := range stated {
		if cp.size != none && err == nil {
			err = &CorruptError{segmentName(t.segment), t.offset, tr.n, "fewer records than " + claims[i].by + " states"}
		}
	}
	return t, err
}
