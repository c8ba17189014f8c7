package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

var (
	// ErrProof: the text is not a proof.
	ErrProof = errors.New("audit: not a proof")
	// ErrNotProven: the proof is one, of something else.
	ErrNotProven = errors.New("audit: the proof does not prove it")
)

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
	cp, err := openAnchor(msg, v)
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
	p, err := tlog.ProveRecord(int64(cp.size), int64(seq), hashReader{r.fs, r.dir, nil})
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
	c, err := hashReader{r.fs, r.dir, nil}.consistency(from.size, to)
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
	return openAnchor(msg, r.v)
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
	return hashReader{l.fs, l.dir, cp.roots}.consistency(old, *cp)
}

// hashReader gives hashes of the tree over a ledger's folder. A full segment is
// a perfect subtree: where its root is known and nothing within is asked for,
// it is not read. What is read is read in one pass.
type hashReader struct {
	fs    fileSystem
	dir   string
	roots []tlog.Hash // of the first full segments, as far as known
}

func (r hashReader) consistency(old uint64, cp checkpoint) (c Consistency, err error) {
	c = Consistency{Old: old, Checkpoint: cp.note}
	if old > 0 {
		c.hashes, err = tlog.ProveTree(int64(cp.size), int64(old), r)
	}
	return c, err
}

// ReadHashes is that of tlog.HashReader.
func (r hashReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	tr := tree{asked: map[node]tlog.Hash{}}
	partly := map[uint64]bool{} // segments of which a part is asked for
	nodes := make([]node, len(indexes))
	var end uint64
	for k, x := range indexes {
		level, i := tlog.SplitStoredHashIndex(x)
		n := node{level, uint64(i)}
		nodes[k], tr.asked[n], end = n, tlog.Hash{}, max(end, (n.i+1)<<level)
		if level < segmentLevel() {
			partly[n.i<<level/segmentSize] = true
		}
	}
	for tr.n < end {
		from := tr.n
		if i := from / segmentSize; i < uint64(len(r.roots)) && !partly[i] {
			tr.add(segmentLevel(), r.roots[i])
			continue
		}
		t, err := scan(r.fs, r.dir, from, func(f frame) error {
			tr.push(tlog.RecordHash(f.body))
			if tr.n >= end || tr.n%segmentSize == 0 {
				return errStop
			}
			return nil
		})
		if err == nil && tr.n < min(end, from+segmentSize) {
			err = &CorruptError{segmentName(t.segment), t.offset, t.seq, "records are missing"}
		}
		if err != nil {
			return nil, err
		}
	}
	out := make([]tlog.Hash, len(indexes))
	for k, n := range nodes {
		out[k] = tr.asked[n]
	}
	return out, nil
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
