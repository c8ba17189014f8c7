package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrProof: the text is not a proof.
var ErrProof = errors.New("audit: not a proof")

// ErrNotProven: the proof is one, of something else.
var ErrNotProven = errors.New("audit: the proof does not prove it")

// maxProof is the most hashes that a proof may hold, as in C2SP tlog-witness.
const maxProof = 63

const proofMagic = "c2sp.org/tlog-proof@v1\n"

// Checkpoint is what a signed checkpoint states.
type Checkpoint struct {
	Size uint64    // records that it covers
	Root tlog.Hash // RFC 6962 root over them
}

// OpenCheckpoint checks a signed checkpoint with the ledger's public key.
// Signatures of others, such as a witness's, may stand in it.
func OpenCheckpoint(msg []byte, verifier string) (Checkpoint, error) {
	v, err := openVerifiers(verifier)
	if err != nil {
		return Checkpoint{}, err
	}
	cp, err := openCheckpoint(msg, v)
	return Checkpoint{cp.size, cp.root}, err
}

// Prove gives the proof that a record is in the ledger, as a C2SP tlog-proof
// file: an inclusion proof and the checkpoint that it leads to, which is the
// one given, or the ledger's last one for nil. It reads the ledger once.
func (r *Reader) Prove(seq uint64, checkpoint []byte) ([]byte, error) {
	cp, err := r.open(checkpoint)
	if err != nil {
		return nil, err
	}
	if seq >= cp.size {
		return nil, fmt.Errorf("%w under the checkpoint: %s", ErrNotFound, ID(seq))
	}
	e, err := r.Entry(seq)
	if err != nil {
		return nil, err
	}
	p, err := tlog.ProveRecord(int64(cp.size), int64(seq), &hashReader{fs: r.fs, dir: r.dir, cp: cp})
	if err != nil {
		return nil, err
	}
	if tlog.CheckRecord(p, int64(cp.size), cp.root, int64(seq), tlog.RecordHash(e.Body)) != nil {
		return nil, differs(cp)
	}
	return formatProof(proofMagic+"index", seq, p, cp.note), nil
}

// CheckProof checks what [Reader.Prove] gave: that the record with this body
// stands in the ledger at the sequence number, under the checkpoint. It needs
// the public key only. [ErrNotProven] is the proof of another record.
func CheckProof(proof, body []byte, verifier string) (seq uint64, cp Checkpoint, err error) {
	rest, ok := bytes.CutPrefix(proof, []byte(proofMagic))
	if bytes.HasPrefix(rest, []byte("extra ")) {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	seq, hashes, msg, err := parseProof(rest, "index")
	if !ok || err != nil {
		return 0, cp, ErrProof
	}
	if cp, err = OpenCheckpoint(msg, verifier); err != nil {
		return 0, cp, err
	}
	if tlog.CheckRecord(hashes, int64(cp.Size), cp.Root, int64(seq), tlog.RecordHash(body)) != nil {
		return 0, cp, ErrNotProven
	}
	return seq, cp, nil
}

// Consistency is a proof that a later checkpoint continues an earlier one. Its
// text is the body of a C2SP tlog-witness add-checkpoint request.
type Consistency struct {
	Old        uint64 // size of the earlier checkpoint
	Checkpoint []byte // the later one, signed

	hashes tlog.TreeProof
}

// ParseConsistency reads the text of a proof. What it says is not checked yet.
func ParseConsistency(text []byte) (c Consistency, err error) {
	c.Old, c.hashes, c.Checkpoint, err = parseProof(text, "old")
	return c, err
}

// Text is the proof as a file or a request holds it.
func (c Consistency) Text() []byte { return formatProof("old", c.Old, c.hashes, c.Checkpoint) }

// Check reports, as [ErrNotProven], that the proof does not lead from the one
// checkpoint to the other. Both were opened before, the later one from the proof.
func (c Consistency) Check(earlier, later Checkpoint) error {
	empty := (&tree{}).root()
	switch {
	case c.Old != earlier.Size, later.Size == 0 && later.Root != empty:
	case c.Old == 0 && earlier.Root == empty && len(c.hashes) == 0:
		return nil // everything continues nothing
	case c.Old > 0 && tlog.CheckTree(c.hashes, int64(later.Size), later.Root, int64(c.Old), earlier.Root) == nil:
		return nil
	}
	return ErrNotProven
}

// Consistency proves that the ledger continues an earlier checkpoint up to a
// later one, which for nil is the last one in its folder. A ledger that holds
// less or other records than one of them states is a [*CorruptError].
func (r *Reader) Consistency(earlier, later []byte) (Consistency, error) {
	from, err := r.open(earlier)
	if err != nil {
		return Consistency{}, err
	}
	to, err := r.open(later)
	if err != nil {
		return Consistency{}, err
	}
	if from.size > to.size {
		return Consistency{}, differs(from)
	}
	c, err := consistency(r.fs, r.dir, from.size, to)
	if err == nil && c.Check(Checkpoint{from.size, from.root}, Checkpoint{to.size, to.root}) != nil {
		err = differs(to)
	}
	return c, err
}

// open opens a checkpoint of this ledger; nil is the last one of the folder.
func (r *Reader) open(msg []byte) (checkpoint, error) {
	if msg == nil {
		return r.cp, nil
	}
	return openCheckpoint(msg, r.v)
}

func differs(cp checkpoint) error {
	return &CorruptError{checkpointsFile, 0, cp.size, "the ledger does not hold what the checkpoint states"}
}

// Consistency proves that the last signed checkpoint continues the state of an
// earlier size. It reads the segments in which the two end, and no other.
func (l *Ledger) Consistency(old uint64) (Consistency, error) {
	cp := l.signed.Load()
	if old > cp.size {
		return Consistency{}, fmt.Errorf("%w: the last checkpoint is shorter", ErrNotFound)
	}
	return consistency(l.fs, l.dir, old, *cp)
}

func consistency(fsys fileSystem, dir string, old uint64, cp checkpoint) (c Consistency, err error) {
	c = Consistency{Old: old, Checkpoint: cp.note}
	if old > 0 {
		c.hashes, err = tlog.ProveTree(int64(cp.size), int64(old), &hashReader{fs: fsys, dir: dir, cp: cp})
	}
	return c, err
}

// hashReader gives hashes of the tree over a ledger's folder. A full segment is
// a perfect subtree: where its root is known and nothing within is asked for,
// it is not read. A segment is read once for all hashes within.
type hashReader struct {
	fs  fileSystem
	dir string
	cp  checkpoint // over the tree

	segment uint64      // the one read last
	leaves  []tlog.Hash // its leaf hashes
}

// ReadHashes is that of tlog.HashReader, which asks from left to right.
func (r *hashReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for k, x := range indexes {
		var err error
		if out[k], err = r.hash(tlog.SplitStoredHashIndex(x)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// hash gives the root of the i-th perfect subtree of 2^level leaves.
func (r *hashReader) hash(level int, i int64) (tlog.Hash, error) {
	switch {
	case level == segmentLevel() && i < int64(len(r.cp.roots)):
		return r.cp.roots[i], nil
	case level == 0:
		return r.leaf(uint64(i))
	}
	left, err := r.hash(level-1, 2*i)
	if err != nil {
		return tlog.Hash{}, err
	}
	right, err := r.hash(level-1, 2*i+1)
	return tlog.NodeHash(left, right), err
}

func (r *hashReader) leaf(seq uint64) (tlog.Hash, error) {
	if segment := seq / segmentSize * segmentSize; r.leaves == nil || segment != r.segment {
		r.segment, r.leaves = segment, nil
		end := min(segment+segmentSize, r.cp.size)
		_, err := scan(r.fs, r.dir, span{segment, end, end}, func(f frame) error {
			r.leaves = append(r.leaves, tlog.RecordHash(f.body))
			return nil
		})
		if err != nil {
			return tlog.Hash{}, err
		}
	}
	return r.leaves[seq-r.segment], nil
}

func segmentLevel() int { return bits.TrailingZeros64(segmentSize) }

// formatProof writes a proof: a line that ends with a number, the hashes, an
// empty line, the checkpoint.
func formatProof(head string, n uint64, hashes []tlog.Hash, msg []byte) []byte {
	b := fmt.Appendf(nil, "%s %d\n", head, n)
	for _, h := range hashes {
		b = fmt.Appendln(b, h)
	}
	return append(append(b, '\n'), msg...)
}

func parseProof(b []byte, head string) (n uint64, hashes []tlog.Hash, msg []byte, err error) {
	text, msg, ok := bytes.Cut(b, []byte("\n\n"))
	lines := strings.Split(string(text), "\n")
	number, ok2 := strings.CutPrefix(lines[0], head+" ")
	n, err = parseSize(number)
	if !ok || !ok2 || err != nil || len(lines) > 1+maxProof {
		return 0, nil, nil, ErrProof
	}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line {
			return 0, nil, nil, ErrProof
		}
		hashes = append(hashes, h)
	}
	return n, hashes, msg, nil
}
