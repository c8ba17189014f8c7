package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const checkpointsFile = "checkpoints"

// openCheckpoints opens the checkpoints of a ledger's folder. A folder without
// them is no ledger; one with records and without them is a damaged one.
func openCheckpoints(fsys fileSystem, dir string, flag int) (file, error) {
	f, err := fsys.OpenFile(filepath.Join(dir, checkpointsFile), flag, 0)
	if err == nil {
		return f, nil
	}
	if segments, serr := listSegments(fsys, dir); errors.Is(err, fs.ErrNotExist) && (len(segments) > 0 || errors.Is(serr, ErrCorrupt)) {
		return nil, &CorruptError{checkpointsFile, 0, 0, "there are records, and the file is missing"}
	}
	return nil, fmt.Errorf("audit: not a ledger: %w", err)
}

// tree is the right edge of an RFC 6962 Merkle tree: the roots of the perfect
// subtrees that make it up, the largest first.
type tree struct {
	n     uint64
	edges []tlog.Hash
	roots []tlog.Hash        // of the full segments
	asked map[node]tlog.Hash // inner hashes to keep when they come by
}

// node is the root of the i-th perfect subtree of 2^level leaves.
type node struct {
	level int
	i     uint64
}

func (t *tree) push(leaf tlog.Hash) { t.add(0, leaf) }

// add adds the root of a perfect subtree of 2^level leaves, which the tree must
// be a multiple of.
func (t *tree) add(level int, h tlog.Hash) {
	added, segment := uint64(1)<<level, segmentLevel()
	for ; ; level++ {
		if level == segment {
			t.roots = append(t.roots, h)
		}
		if _, ok := t.asked[node{level, t.n >> level}]; ok {
			t.asked[node{level, t.n >> level}] = h
		}
		if t.n>>level&1 == 0 {
			break
		}
		h = tlog.NodeHash(t.edges[len(t.edges)-1], h)
		t.edges = t.edges[:len(t.edges)-1]
	}
	t.edges = append(t.edges, h)
	t.n += added
}

func (t *tree) root() tlog.Hash {
	if t.n == 0 {
		return sha256.Sum256(nil)
	}
	h := t.edges[len(t.edges)-1]
	for i := len(t.edges) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.edges[i], h)
	}
	return h
}

// checkpoint is a signed statement of the root at a size.
type checkpoint struct {
	size uint64
	root tlog.Hash
	note []byte // as signed, without the line that ends it in the file

	key   int         // which of the verifiers it is for
	roots []tlog.Hash // of the full segments that it covers, where they are known
}

func (k *Keys) sign(t *tree) (checkpoint, error) {
	root := t.root()
	text := fmt.Sprintf("%s\n%d\n%s\n", k.signer.Name(), t.n, root)
	msg, err := note.Sign(&note.Note{Text: text}, k.signer)
	return checkpoint{size: t.n, root: root, note: msg, key: len(k.verifiers) - 1, roots: t.roots}, err
}

// verifiers are the public keys of one ledger, in the order in which they sign.
type verifiers []note.Verifier

func (vs verifiers) Name() string { return vs[0].Name() }

// index finds a key; -1 if it is not there.
func (vs verifiers) index(hash uint32) int {
	return slices.IndexFunc(vs, func(v note.Verifier) bool { return v.KeyHash() == hash })
}

// openVerifiers reads verifier keys, one a line, all of one name.
func openVerifiers(text string) (vs verifiers, err error) {
	for _, s := range strings.Fields(text) {
		v, err := note.NewVerifier(s)
		if err != nil || len(vs) > 0 && v.Name() != vs.Name() {
			return nil, ErrVerifier
		}
		vs = append(vs, v)
	}
	if len(vs) == 0 {
		return nil, ErrVerifier
	}
	return vs, nil
}

var errForeign = errors.New("not a checkpoint signed by the ledger's key")

// openCheckpoint checks a signed note and reads its text. It may bear further
// signatures.
func openCheckpoint(msg []byte, v verifiers) (checkpoint, error) {
	n, err := note.Open(msg, note.VerifierList(v...))
	if err != nil {
		return checkpoint{}, errForeign
	}
	f := strings.Split(n.Text, "\n")
	if len(f) != 4 || f[0] != v.Name() || f[3] != "" {
		return checkpoint{}, errForeign
	}
	size, err1 := parseSize(f[1])
	root, err2 := tlog.ParseHash(f[2])
	if err1 != nil || err2 != nil || root.String() != f[2] {
		return checkpoint{}, errForeign
	}
	return checkpoint{size: size, root: root, note: msg, key: v.index(n.Sigs[0].Hash)}, nil
}

// parseSize reads a number of records, in its one text.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = strconv.ErrSyntax
	}
	return n, err
}

// succession follows the signers of a ledger in its records: one may sign when
// a checkpoint of the one before covers the change record that names it.
type succession struct {
	named map[uint32]uint32 // by whom each was, both as note key hashes
	fresh []string          // verifiers of old and new, in records that no checkpoint covers yet
	found []string          // verifiers that may sign and were not given
}

var changeHead = fmt.Appendf(nil, `{"v":%d,"kind":"%s"`, version, Change)

// record looks for a successor in a record.
func (s *succession) record(f frame) {
	if !bytes.HasPrefix(f.body, changeHead) {
		return
	}
	var clear struct{ Keys struct{ Old, New string } }
	if e, err := Decode(f.seq, f.body); err == nil && json.Unmarshal(e.Clear, &clear) == nil {
		if vs, err := openVerifiers(clear.Keys.Old + "\n" + clear.Keys.New); err == nil && len(vs) == 2 {
			s.fresh = append(s.fresh, clear.Keys.Old+"\n"+clear.Keys.New)
		}
	}
}

// unnamed reports whether one of the keys given, after the first, is in no
// record: they are announced once such a record is durable, so records are missing.
func (s *succession) unnamed(given verifiers) bool {
	for _, v := range given[1:] {
		_, named := s.named[v.KeyHash()]
		if !named && !slices.ContainsFunc(s.fresh, func(pair string) bool {
			vs, err := openVerifiers(pair)
			return err == nil && vs[1].KeyHash() == v.KeyHash()
		}) {
			return true
		}
	}
	return false
}

// next gives the checkpoint after one that covers all records until now, and
// refuses a signer whom they do not name.
func (s *succession) next(c *checkpoints) (checkpoint, error) {
	for _, pair := range s.fresh {
		vs, err := openVerifiers(pair)
		if err != nil {
			return checkpoint{}, err
		}
		old, next := vs[0], vs[1]
		s.named[next.KeyHash()] = old.KeyHash()
		if c.v.index(next.KeyHash()) < 0 {
			c.v, s.found = append(c.v[:len(c.v):len(c.v)], next), append(s.found, strings.Fields(pair)[1])
		}
	}
	s.fresh = nil
	by, first := c.key, !c.any
	cp, err := c.next()
	if err == nil && first && cp.key > 0 {
		err = c.corrupt("it begins with a checkpoint of a later key")
	} else if err == nil && !first && cp.key != by && s.named[c.v[cp.key].KeyHash()] != c.v[by].KeyHash() {
		err = c.corrupt("another key signs, and no record names it")
	}
	return cp, err
}

// entryRest is the most that an entry takes beside twice the origin.
const entryRest = 1 + 20 + 1 + 44 + 2 + len("— ") + 1 + 92 + 2

var (
	errTorn          = errors.New("torn checkpoint")
	errBadCheckpoint = errors.New("bad checkpoint")
)

// parseCheckpoint reads the entry at the start of b, which ends with the file
// or is longer than any entry. An entry is a signed note and an empty line, and
// its length follows from its size line, so that a torn one (errTorn: the file
// ends first) and a changed one are not mistaken for each other.
func parseCheckpoint(b []byte, v verifiers) (cp checkpoint, length int, err error) {
	head := v.Name() + "\n"
	if len(b) < len(head) {
		if strings.HasPrefix(head, string(b)) {
			return cp, 0, errTorn
		}
		return cp, 0, errBadCheckpoint
	}
	i := len(head)
	for i < len(b) && i < len(head)+20 && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	switch {
	case string(b[:len(head)]) != head:
		return cp, 0, errBadCheckpoint
	case i == len(b):
		return cp, 0, errTorn
	case b[i] != '\n':
		return cp, 0, errBadCheckpoint
	}
	const root, sig = 44, 92 // base64 of 32 and of 4+64 bytes
	length = i + 1 + root + 1 + 1 + len("— ") + len(v.Name()) + 1 + sig + 1 + 1
	if len(b) < length {
		return cp, 0, errTorn
	}
	msg := bytes.Clone(b[:length-1])
	if cp, err = openCheckpoint(msg, v); err != nil || b[length-1] != '\n' {
		return checkpoint{}, 0, errBadCheckpoint
	}
	// One text only: base64 that differs in its unused bits is not the same.
	if _, err := base64.StdEncoding.Strict().DecodeString(string(msg[len(msg)-1-sig : len(msg)-1])); err != nil {
		return checkpoint{}, 0, errBadCheckpoint
	}
	return cp, length, nil
}

// checkpoints reads a checkpoints file forward.
type checkpoints struct {
	v    verifiers
	r    *bufio.Reader
	off  int64
	last uint64
	key  int // of the last
	any  bool
}

func newCheckpoints(f io.ReaderAt, from, to int64, v verifiers) *checkpoints {
	return &checkpoints{v: v, off: from, r: bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 1024)}
}

// next gives the next checkpoint; io.EOF at the end of the file, errTorn where
// it ends within an entry.
func (c *checkpoints) next() (checkpoint, error) {
	b, err := c.r.Peek(1024)
	if len(b) == 0 || err != nil && err != io.EOF {
		return checkpoint{}, err
	}
	cp, n, err := parseCheckpoint(b, c.v)
	if err != nil {
		// A power cut may leave the last entry blank at its start or its end,
		// where a block was not written. No entry starts or ends with zero.
		if blank := b[0] == 0 || b[len(b)-1] == 0; blank && len(b) <= 2*len(c.v.Name())+entryRest {
			err = errTorn
		} else if err == errBadCheckpoint {
			err = c.corrupt("bad checkpoint, or one of another key")
		}
		return checkpoint{}, err
	}
	if c.any && (cp.size <= c.last || cp.key < c.key) {
		return checkpoint{}, c.corrupt("checkpoints out of order")
	}
	c.last, c.key, c.any = cp.size, cp.key, true
	c.off += int64(n)
	_, err = c.r.Discard(n)
	return cp, err
}

func (c *checkpoints) corrupt(reason string) error {
	return &CorruptError{checkpointsFile, c.off, c.last, reason}
}

// lastCheckpoint reads the end of the file. It gives the last checkpoint and
// where its entry ends.
func lastCheckpoint(f file, v verifiers) (checkpoint, int64, error) {
	const window = 16 << 10 // many entries: one is below 1 KiB
	size, err := f.Size()
	if err != nil {
		return checkpoint{}, 0, err
	}
	from := max(0, size-window)
	if from > 0 {
		buf := make([]byte, window)
		if _, err := f.ReadAt(buf, from); err != nil && err != io.EOF {
			return checkpoint{}, 0, err
		}
		start := "\n\n" + v.Name() + "\n"
		i := bytes.Index(buf, []byte(start))
		if i < 0 {
			return checkpoint{}, 0, &CorruptError{checkpointsFile, from, 0, "no checkpoint"}
		}
		from += int64(i) + 2
	}
	c := newCheckpoints(f, from, size, v)
	var last checkpoint
	for {
		cp, err := c.next()
		switch {
		case err == nil:
			last = cp
		case (err == io.EOF || errors.Is(err, errTorn)) && c.any:
			return last, c.off, nil
		case err == io.EOF || errors.Is(err, errTorn):
			return last, 0, c.corrupt("no checkpoint")
		default:
			return last, 0, err
		}
	}
}
