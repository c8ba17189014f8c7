package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpointsOf is a ledger of n records in memory and a signed checkpoint of
// every size up to n.
func checkpointsOf(t testing.TB, n int) (m *memFS, k *Keys, all []checkpoint, bodies [][]byte) {
	t.Helper()
	m = memLedgerFS(t)
	k = memOpenKeys(t, m)
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var tr tree
	sign := func() {
		cp, err := k.sign(&tr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cp)
	}
	sign()
	for i := range n {
		seq, err := l.Append(ctx, payload(fmt.Sprintf("%d-%d", i%2, i), 40))
		if err != nil {
			t.Fatal(err)
		}
		e, err := l.Entry(seq)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, e.Body)
		tr.push(tlog.RecordHash(e.Body))
		sign()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return m, k, all, bodies
}

// naiveRoot is the definition of RFC 6962, section 2.1.
func naiveRoot(bodies [][]byte) tlog.Hash {
	switch n := len(bodies); n {
	case 0:
		return (&tree{}).root()
	case 1:
		return tlog.RecordHash(bodies[0])
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		return tlog.NodeHash(naiveRoot(bodies[:k]), naiveRoot(bodies[k:]))
	}
}

// TestProofs proves every record under every checkpoint, and that every
// checkpoint continues every earlier one, and checks that a proof proves
// nothing else.
func TestProofs(t *testing.T) {
	smallSegments(t, 8)
	n := 21 // two full segments and a part of a third
	m, k, all, bodies := checkpointsOf(t, n)
	r, err := openReader(m, memLedger, k.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	for size, cp := range all {
		if cp.root != naiveRoot(bodies[:size]) {
			t.Fatalf("the root at %d", size)
		}
		for seq := range n {
			proof, err := r.Prove(uint64(seq), cp.note)
			if seq >= size {
				if !errors.Is(err, ErrNotFound) {
					t.Fatalf("record %d at %d: %v", seq, size, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("record %d at %d: %v", seq, size, err)
			}
			if got, at, err := CheckProof(proof, bodies[seq], k.Verifier()); err != nil || got != uint64(seq) || at.Size != uint64(size) || at.Root != cp.root {
				t.Fatalf("record %d at %d: %d, %v, %v", seq, size, got, at, err)
			}
			other := (seq + 1) % n
			if _, _, err := CheckProof(proof, bodies[other], k.Verifier()); !errors.Is(err, ErrNotProven) {
				t.Fatalf("record %d by the proof of %d: %v", other, seq, err)
			}
			moved := bytes.Replace(proof, fmt.Appendf(nil, "index %d\n", seq), fmt.Appendf(nil, "index %d\n", other), 1)
			if _, _, err := CheckProof(moved, bodies[seq], k.Verifier()); !errors.Is(err, ErrNotProven) {
				t.Fatalf("record %d as %d: %v", seq, other, err)
			}
		}
		for old := range all {
			c, err := r.Consistency(all[old].note, cp.note)
			if old > size {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%d from %d: %v", size, old, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%d from %d: %v", size, old, err)
			}
			if c, err = ParseConsistency(c.Text()); err != nil {
				t.Fatal(err)
			}
			from, to := Checkpoint{all[old].size, all[old].root}, Checkpoint{cp.size, cp.root}
			if err := c.Check(from, to); err != nil || c.Old != uint64(old) || !bytes.Equal(c.Checkpoint, cp.note) {
				t.Fatalf("%d from %d: %v", size, old, err)
			}
			if old > 0 {
				bad := from
				bad.Root[3] ^= 1
				if c.Check(bad, to) == nil || c.Check(Checkpoint{from.Size - 1, from.Root}, to) == nil {
					t.Fatalf("%d from another %d", size, old)
				}
			}
			if old > 0 || len(c.hashes) > 0 {
				bad := to
				bad.Root[3] ^= 1
				if c.Check(from, bad) == nil {
					t.Fatalf("another %d from %d", size, old)
				}
			}
		}
	}
	// Without a checkpoint it is the last one of the folder.
	proof, err := r.Prove(5, nil)
	if err != nil || !bytes.HasSuffix(proof, all[n].note) {
		t.Errorf("%s, %v", proof, err)
	}
	if c, err := r.Consistency(all[3].note, nil); err != nil || !bytes.Equal(c.Checkpoint, all[n].note) {
		t.Error(err)
	}
}

func TestProofOfEmpty(t *testing.T) {
	_, k, all, _ := checkpointsOf(t, 0)
	zero, err := OpenCheckpoint(all[0].note, k.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	if err := (Consistency{}).Check(zero, zero); err != nil {
		t.Error(err)
	}
	for _, c := range []Consistency{{Old: 1}, {hashes: tlog.TreeProof{{}}}} {
		if err := c.Check(zero, zero); !errors.Is(err, ErrNotProven) {
			t.Error(err)
		}
	}
	if err := (Consistency{}).Check(zero, Checkpoint{0, tlog.Hash{1}}); !errors.Is(err, ErrNotProven) {
		t.Errorf("an empty tree with another root: %v", err)
	}
}

// TestProofText: a proof has one text, and nothing else is one.
func TestProofText(t *testing.T) {
	smallSegments(t, 8)
	m, k, all, bodies := checkpointsOf(t, 11)
	r, _ := openReader(m, memLedger, k.Verifier())
	proof, err := r.Prove(6, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(proof), "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1\n" || lines[1] != "index 6\n" || lines[6] != "\n" || lines[7] != "ward.example/audit/test\n" || lines[8] != "11\n" {
		t.Fatalf("%s", proof)
	}
	extra := strings.Join(lines[:1], "") + "extra Zm9v\n" + strings.Join(lines[1:], "")
	if _, _, err := CheckProof([]byte(extra), bodies[6], k.Verifier()); err != nil {
		t.Errorf("with extra data: %v", err)
	}
	text := string(proof)
	for name, bad := range map[string]string{
		"empty": "", "no magic": text[1:], "another version": strings.Replace(text, "@v1", "@v2", 1),
		"leading zero": strings.Replace(text, "index 6", "index 06", 1), "sign": strings.Replace(text, "index 6", "index +6", 1),
		"no index": strings.Replace(text, "index 6\n", "", 1), "carriage return": strings.ReplaceAll(text, "\n", "\r\n"),
		"hash cut":   strings.Replace(text, lines[2], lines[2][1:], 1),
		"hash loose": strings.Replace(text, lines[2], lines[2][:42]+loose(lines[2][42])+"=\n", 1),
		"many":       strings.Replace(text, lines[2], strings.Repeat(lines[2], 64), 1),
		"no end":     strings.Join(lines[:6], ""),
		"too large":  strings.Replace(text, "index 6", "index 9223372036854775808", 1),
	} {
		if _, _, err := CheckProof([]byte(bad), bodies[6], k.Verifier()); !errors.Is(err, ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{
		"hash left out": strings.Replace(text, lines[2], "", 1), "hash twice": strings.Replace(text, lines[2], lines[2]+lines[2], 1),
		"swapped": strings.Replace(text, lines[2]+lines[3], lines[3]+lines[2], 1),
	} {
		if _, _, err := CheckProof([]byte(bad), bodies[6], k.Verifier()); !errors.Is(err, ErrNotProven) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, foreign, _, _ := checkpointsOf(t, 0)
	if _, _, err := CheckProof(proof, bodies[6], foreign.Verifier()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another key: %v", err)
	}
	if _, _, err := CheckProof(proof, bodies[6], "x"); err == nil {
		t.Error("no key")
	}
	if _, err := ParseConsistency(proof); !errors.Is(err, ErrProof) {
		t.Error(err)
	}
	// A cosigned checkpoint serves as well.
	signer, _, _ := note.GenerateKey(bytes.NewReader(make([]byte, 64)), "witness.example")
	w, _ := note.NewSigner(signer)
	v, _ := openVerifiers(k.Verifier())
	n, err := note.Open(all[9].note, note.VerifierList(v...))
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := note.Sign(n, w)
	if err != nil {
		t.Fatal(err)
	}
	if proof, err = r.Prove(6, cosigned); err != nil || !bytes.HasSuffix(proof, cosigned) {
		t.Fatal(err)
	}
	if _, cp, err := CheckProof(proof, bodies[6], k.Verifier()); err != nil || cp.Size != 9 {
		t.Error(cp, err)
	}
	if rep, err := verify(m, memLedger, k.Verifier(), cosigned); err != nil || rep.AnchorSize != 9 {
		t.Error(rep, err)
	}
}

// loose gives the base64 digit that differs in the unused bits only.
func loose(c byte) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return string(digits[strings.IndexByte(digits, c)^1])
}

// TestProofOfAnother: who proves under a checkpoint that the ledger does not
// hold is told so.
func TestProofOfAnother(t *testing.T) {
	smallSegments(t, 8)
	m, k, all, _ := checkpointsOf(t, 11)
	forged := tree{n: 9, edges: []tlog.Hash{{1}, {2}}}
	fork, err := k.sign(&forged)
	if err != nil {
		t.Fatal(err)
	}
	longer, err := k.sign(&tree{n: 12, edges: []tlog.Hash{{1}, {2}}})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := openReader(m, memLedger, k.Verifier())
	for _, cp := range []checkpoint{fork, longer} {
		if _, err := r.Prove(3, cp.note); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a proof under it: %v", err)
		}
		if _, err := r.Consistency(all[4].note, cp.note); !errors.Is(err, ErrCorrupt) {
			t.Errorf("it continues: %v", err)
		}
		if _, err := r.Consistency(cp.note, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("it is continued: %v", err)
		}
	}
	for _, msg := range [][]byte{{}, []byte("x")} {
		if _, err := r.Prove(3, msg); err == nil || errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", msg, err)
		}
		if _, err := r.Consistency(msg, nil); err == nil {
			t.Errorf("%q", msg)
		}
		if _, err := r.Consistency(all[2].note, msg); err == nil {
			t.Errorf("%q", msg)
		}
	}
	// A segment that is gone, or damaged.
	delete(m.current, filepath.Join(memLedger, segmentName(8)))
	if _, err := r.Prove(3, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a segment is missing: %v", err)
	}
	if _, err := r.Prove(9, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("its segment is missing: %v", err)
	}
}

// readFS notes which segments are read.
type readFS struct {
	fileSystem
	read map[string]int
}

func (r readFS) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	r.read[filepath.Base(name)]++
	return r.fileSystem.OpenFile(name, flag, perm)
}

// TestConsistencyReadsLittle: the writer's own proof reads the segments in
// which the two sizes end, at most once each, also after it was opened again;
// and it is the proof that the files give.
func TestConsistencyReadsLittle(t *testing.T) {
	smallSegments(t, 8)
	m, k, all, _ := checkpointsOf(t, 75)
	r, err := openReader(m, memLedger, k.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for old, cp := range all {
		counted := readFS{m, map[string]int{}}
		l.fs = counted
		c, err := l.Consistency(uint64(old))
		if err != nil {
			t.Fatal(err)
		}
		want, err := r.Consistency(cp.note, nil)
		if err != nil || !bytes.Equal(c.Text(), want.Text()) {
			t.Fatalf("from %d:\n%s\nwant\n%s, %v", old, c.Text(), want.Text(), err)
		}
		for name, n := range counted.read {
			if n > 1 || name != segmentName(uint64(old)/8*8) && name != segmentName(72) {
				t.Errorf("from %d: %v are read", old, counted.read)
			}
		}
	}
	if _, err := l.Consistency(76); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// TestProofsBesideWriter proves from the files while they grow.
func TestProofsBesideWriter(t *testing.T) {
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Nanosecond})
	appendN(t, l, 1, 20)
	old := l.Checkpoint()
	stop := make(chan bool)
	go func() {
		defer close(stop)
		for i := range 300 {
			if _, err := l.Append(ctx, payload(fmt.Sprintf("%d-%d", i%2, i), 200)); err != nil {
				t.Error(err)
			}
		}
	}()
	rounds := 0
	for done := false; !done; rounds++ {
		select {
		case <-stop:
			done = true
		default:
		}
		r, err := OpenReader(dir, k.Verifier())
		if err != nil {
			t.Fatal(err)
		}
		if r.cp.size == 0 { // nothing is signed yet
			continue
		}
		seq := rand.Uint64N(r.cp.size)
		e, err := r.Entry(seq)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := r.Prove(seq, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := CheckProof(proof, e.Body, k.Verifier()); err != nil || got != seq {
			t.Fatal(got, err)
		}
		if _, err := r.Consistency(old, nil); err != nil {
			t.Fatal(err)
		}
		// The writer's own, against what it signed before.
		cp, err := OpenCheckpoint(old, k.Verifier())
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Consistency(cp.Size)
		if err != nil {
			t.Fatal(err)
		}
		to, err := OpenCheckpoint(c.Checkpoint, k.Verifier())
		if err != nil || c.Check(cp, to) != nil {
			t.Fatal(err)
		}
		old = c.Checkpoint
	}
	t.Logf("%d rounds", rounds)
}

func FuzzProof(f *testing.F) {
	_, k, all, bodies := checkpointsOf(f, 1)
	f.Add(formatProof(proofMagic+"index", 0, nil, all[1].note))
	f.Add(formatProof("old", 1, []tlog.Hash{{1}}, all[1].note))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConsistency(b); err == nil && !bytes.Equal(c.Text(), b) {
			t.Errorf("%q", b)
		}
		CheckProof(b, bodies[0], k.Verifier())
	})
}

// TestCheckpointTexts: what the ledger's key signed is a checkpoint only in its
// one form.
func TestCheckpointTexts(t *testing.T) {
	_, k, all, _ := checkpointsOf(t, 1)
	root := all[1].root.String()
	loosened := root[:42] + loose(root[42]) + "="
	for _, text := range []string{
		"ward.example/audit/test\n1\n", "ward.example/audit/other\n1\n" + root + "\n", "ward.example/audit/test\n1\n" + root + "\nmore\n",
		"ward.example/audit/test\n01\n" + root + "\n", "ward.example/audit/test\n-1\n" + root + "\n", "ward.example/audit/test\n1\nx\n",
		"ward.example/audit/test\n1\n" + loosened + "\n",
	} {
		msg, err := note.Sign(&note.Note{Text: text}, k.signer)
		if err != nil {
			t.Fatal(err)
		}
		if cp, err := OpenCheckpoint(msg, k.Verifier()); err == nil {
			t.Errorf("%q: %+v", text, cp)
		}
	}
	if cp, err := OpenCheckpoint(all[1].note, k.Verifier()); err != nil || cp.Size != 1 {
		t.Error(cp, err)
	}
	if _, err := Verify(t.TempDir(), "x"); !errors.Is(err, ErrVerifier) {
		t.Error(err)
	}
}
