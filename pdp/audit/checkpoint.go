package audit

import (
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
	roots []tlog.Hash // of the full segments
}

func (t *tree) push(leaf tlog.Hash) {
	h := leaf
	for level := 0; ; level++ {
		if level == segmentLevel() {
			t.roots = append(t.roots, h)
		}
		if t.n>>level&1 == 0 {
			break
		}
		h = tlog.NodeHash(t.edges[len(t.edges)-1], h)
		t.edges = t.edges[:len(t.edges)-1]
	}
	t.edges = append(t.edges, h)
	t.n++
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
	note []byte // as signed

	key   int         // which of the verifiers it is for
	roots []tlog.Hash // of the full segments that it covers, where they are known
}

func (k *Keys) sign(t *tree) (checkpoint, error) {
	root := t.root()
	msg, err := note.Sign(&note.Note{Text: statement(k.signer.Name(), t.n, root)}, k.signer)
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

// statement is the text of a checkpoint, before it is signed.
func statement(origin string, size uint64, root tlog.Hash) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)
}

// openCheckpoint checks a signed note and reads its text. It may bear further
// signatures. One of another key and the same name is of another ledger that
// goes by this one's name.
func openCheckpoint(msg []byte, v verifiers) (checkpoint, error) {
	if n, err := note.Open(msg, note.VerifierList(v...)); err == nil {
		cp := checkpoint{note: msg, key: v.index(n.Sigs[0].Hash)}
		lines := strings.Split(n.Text, "\n") // the last one is empty
		if len(lines) == 4 {
			cp.size, _ = parseSize(lines[1])
			cp.root, _ = tlog.ParseHash(lines[2])
		}
		// One text only: base64 that differs in its unused bits is not the same.
		_, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64)
		if err == nil && n.Text == statement(v.Name(), cp.size, cp.root) {
			return cp, nil
		}
	}
	if bytes.HasPrefix(msg, []byte(v.Name()+"\n")) {
		return checkpoint{}, &CorruptError{"outside checkpoint", 0, 0, "it bears this ledger's name, and the ledger's key did not sign it"}
	}
	return checkpoint{}, errors.New("audit: outside checkpoint: not a checkpoint signed by the ledger's key")
}

// parseSize reads a number of records, in its one text.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = strconv.ErrSyntax
	}
	return n, err
}

// entrySize is what a checkpoint takes in the file: the longest note of the name
// and an empty line. A shorter note is filled up with empty lines.
func entrySize(name string) int {
	const size, root, sig = 19, 44, 92 // a number of 63 bits, base64 of 32 and of 4+64 bytes
	return len(name) + 1 + size + 1 + root + 1 + 1 + len("— ") + len(name) + 1 + sig + 1 + 1
}

// entry is the checkpoint as the file holds it.
func (cp checkpoint) entry(name string) []byte {
	fill := entrySize(name) - len(cp.note)
	return append(cp.note[:len(cp.note):len(cp.note)], bytes.Repeat([]byte("\n"), fill)...)
}

// checkpoints reads a checkpoints file forward, as long as it is at first.
type checkpoints struct {
	v         verifiers
	f         file
	off, size int64
	last      uint64
	key       int // of the last
	any       bool

	// Who signs is followed where the records are read too.
	named map[uint32]uint32 // by whom each was, both as note key hashes
	added []string          // verifiers that the records name and that were not given
	found []string          // those of them in records that a checkpoint covers
}

func newCheckpoints(f file, v verifiers) (*checkpoints, error) {
	size, err := f.Size()
	return &checkpoints{v: v, f: f, size: size}, err
}

var changeHead = fmt.Appendf(nil, `{"v":%d,"kind":"%s"`, version, Change)

// record looks for a new signer in a record that the last checkpoint does not
// cover. The one that does is checked before another is read.
func (c *checkpoints) record(f frame) {
	if !bytes.HasPrefix(f.body, changeHead) {
		return
	}
	var clear struct{ Keys struct{ Old, New string } }
	if e, err := Decode(f.seq, f.body); err != nil || json.Unmarshal(e.Clear, &clear) != nil {
		return
	}
	pair := clear.Keys.Old + "\n" + clear.Keys.New
	if vs, err := openVerifiers(pair); err == nil && len(vs) == 2 {
		c.named[vs[1].KeyHash()] = vs[0].KeyHash()
		if c.v.index(vs[1].KeyHash()) < 0 {
			c.v, c.added = append(c.v[:len(c.v):len(c.v)], vs[1]), append(c.added, strings.Fields(pair)[1])
		}
	}
}

// next gives the next checkpoint; io.EOF behind the last whole one.
func (c *checkpoints) next() (checkpoint, error) {
	c.found = c.added
	entry := make([]byte, entrySize(c.v.Name()))
	rest := c.size - c.off
	if rest >= int64(len(entry)) {
		if _, err := c.f.ReadAt(entry, c.off); err != nil && err != io.EOF {
			return checkpoint{}, err
		}
	}
	// A power cut may leave the last entry short, or blank at its start or its
	// end, where a block was not written. No entry starts or ends with zero.
	blank := entry[0] == 0 || entry[len(entry)-1] == 0
	switch {
	case blank && rest <= int64(len(entry)) && c.any:
		return checkpoint{}, io.EOF
	case blank && rest <= int64(len(entry)):
		return checkpoint{}, c.corrupt("no checkpoint")
	}
	msg := append(bytes.TrimRight(entry, "\n"), '\n')
	cp, err := openCheckpoint(msg, c.v)
	switch {
	case err != nil || bytes.Count(msg, []byte("\n")) != 5: // with one signature
		return checkpoint{}, c.corrupt("bad checkpoint, or one of another key")
	case c.any && (cp.size <= c.last || cp.key < c.key):
		return checkpoint{}, c.corrupt("checkpoints out of order")
	case !c.any && cp.key > 0 && c.named != nil:
		return checkpoint{}, c.corrupt("it begins with a checkpoint of a later key")
	case c.any && cp.key != c.key && c.named != nil && c.named[c.v[cp.key].KeyHash()] != c.v[c.key].KeyHash():
		return checkpoint{}, c.corrupt("another key signs, and no record names it")
	}
	c.last, c.key, c.any = cp.size, cp.key, true
	c.off += int64(len(entry))
	return cp, nil
}

func (c *checkpoints) corrupt(reason string) error {
	return &CorruptError{checkpointsFile, c.off, c.last, reason}
}

// lastCheckpoint reads the end of the file. It gives the last checkpoint and
// where its entry ends.
func lastCheckpoint(f file, v verifiers) (last checkpoint, end int64, err error) {
	c, err := newCheckpoints(f, v)
	if err != nil {
		return last, 0, err
	}
	entry := int64(entrySize(v.Name()))
	c.off = max(0, c.size/entry-2) * entry // the last one may be blank
	cp, err := c.next()
	for ; err == nil; cp, err = c.next() {
		last = cp
	}
	if err == io.EOF {
		err = nil
	}
	return last, c.off, err
}
