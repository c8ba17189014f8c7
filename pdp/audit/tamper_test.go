package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// closedLedger is a ledger in memory of about size bytes, closed.
func closedLedger(t testing.TB, size int) (*memFS, *Keys) {
	t.Helper()
	m := memLedgerFS(t)
	k := memOpenKeys(t, m)
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < size; n += 600 {
		if _, err := l.Append(ctx, payload(fmt.Sprintf("%d-%d", n%2, n), 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return m, k
}

func (m *memFS) seg(first uint64) *memNode {
	return m.current[filepath.Join(memLedger, segmentName(first))]
}
func (m *memFS) cps() *memNode { return m.current[filepath.Join(memLedger, checkpointsFile)] }

// frames gives the frames of a segment as bytes.
func (n *memNode) frames() (out [][]byte) {
	for b := n.data; len(b) > 0; {
		size := headerSize + int(binary.LittleEndian.Uint32(b))
		out = append(out, bytes.Clone(b[:size]))
		b = b[size:]
	}
	return out
}

// refused reports whether all who read the ledger see that it is damaged:
// Verify, and Open, which must not change anything either.
func refused(m *memFS, verifier string) error {
	if rep, err := verify(m, memLedger, verifier); !errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("verify: %+v, %v", rep, err)
	}
	m.before = func(op, name string) error { return fmt.Errorf("open changes %s", name) }
	defer func() { m.before = nil }()
	k, err := openKeys(m, memKeys)
	if err != nil {
		return err
	}
	if l, rec, err := Open(memLedger, k, Options{}); !errors.Is(err, ErrCorrupt) {
		if err == nil {
			l.Close()
		}
		return fmt.Errorf("open: %+v, %v", rec, err)
	}
	return nil
}

func TestEveryBit(t *testing.T) {
	smallSegments(t, 4)
	size, step := 8<<10, 1
	if campaign() {
		size = 90 << 10 // which takes 64 KiB and more
	} else if testing.Short() {
		step = 7
	}
	m, k := closedLedger(t, size)
	flips, total := 0, 0
	for _, name := range m.files(memLedger, lockFile) {
		data := m.current[name].data
		total += len(data)
		for bit := 0; bit < len(data)*8; bit += step {
			data[bit/8] ^= 1 << (bit % 8)
			if rep, err := verify(m, memLedger, k.Verifier()); err == nil {
				t.Errorf("bit %d of %s: %+v", bit, name, rep)
			}
			if bit%61 == 0 {
				if err := refused(m, k.Verifier()); err != nil {
					t.Errorf("bit %d of %s: %v", bit, name, err)
				}
			}
			data[bit/8] ^= 1 << (bit % 8)
			flips++
		}
	}
	if _, err := verify(m, memLedger, k.Verifier()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d flips in %d bytes", flips, total)
}

// TestEveryBitOfATail flips every bit of a ledger that was not closed. Either it
// is refused, or what is cut is told to the byte: from the damaged record on, of
// the last batch, and none that a checkpoint covers.
func TestEveryBitOfATail(t *testing.T) {
	smallSegments(t, 4)
	size := 3 << 10
	if campaign() {
		size = 90 << 10 // which takes 64 KiB and more
	}
	m, k := closedLedger(t, size)
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	covered := l.Size()
	appendN(t, l, 3, 200)
	crash := m.clone()
	l.Close()
	flips, cut := 0, 0
	for _, name := range crash.files(memLedger, lockFile) {
		data := crash.current[name].data
		var ends []int // of the frames, in a segment
		if n := crash.current[name]; filepath.Base(name) != checkpointsFile {
			at := 0
			for _, f := range n.frames() {
				at += len(f)
				ends = append(ends, at)
			}
		}
		for bit := range len(data) * 8 {
			flips++
			data[bit/8] ^= 1 << (bit % 8)
			damaged := crash.clone()
			data[bit/8] ^= 1 << (bit % 8)
			l, rec, err := Open(memLedger, memOpenKeys(t, damaged), Options{})
			if errors.Is(err, ErrCorrupt) {
				continue
			}
			if err != nil {
				t.Fatalf("bit %d of %s: %v", bit, name, err)
			}
			l.Close()
			// The records from the damaged one to the end were cut.
			from := 0
			for i, end := range ends {
				if bit/8 < end {
					from = end - len(crash.current[name].frames()[i])
					break
				}
			}
			if ends == nil || rec.Cut != int64(len(data)-from) || rec.Records < covered || rec.Kept == "" {
				t.Errorf("bit %d of %s: opened, with %+v", bit, name, rec)
			}
			cut++
		}
	}
	if cut == 0 {
		t.Error("no tail was cut")
	}
	t.Logf("%d flips: %d cut with the count told, the others refused", flips, cut)
}

var keptName = regexp.MustCompile(`^torn-0{19}3-\d{8}T\d{6}\.\d{9}Z$`)

// TestTornTail cuts a ledger that was not closed at every byte of the last
// frame: the rest is cut and kept, what came before stays.
func TestTornTail(t *testing.T) {
	smallSegments(t, 8)
	m, k := closedLedger(t, 600)
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 3, 200)
	crash := m.clone() // never closed
	l.Close()
	frames := crash.seg(0).frames()
	last := len(frames[len(frames)-1])
	whole := len(crash.seg(0).data)
	for cut := 1; cut < last; cut++ {
		m := crash.clone()
		n := m.seg(0)
		n.data = n.data[:whole-cut]
		if rep, err := verify(m, memLedger, k.Verifier()); err != nil || rep.Records != 3 || rep.Tail != 2 {
			t.Fatalf("cut %d: a reader says %+v, %v", cut, rep, err)
		}
		r, err := openReader(m, memLedger, k.Verifier())
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range r.From(0) {
			if err != nil {
				t.Fatal(err)
			}
		}
		l, rec, err := Open(memLedger, memOpenKeys(t, m), Options{})
		if err != nil || rec.Cut != int64(last-cut) || rec.Records != 3 || !keptName.MatchString(rec.Kept) {
			t.Fatalf("cut %d: %+v, %v", cut, rec, err)
		}
		if kept := m.current[filepath.Join(memLedger, rec.Kept)].data; !bytes.Equal(kept, frames[3][:last-cut]) {
			t.Fatalf("cut %d: kept %d bytes", cut, len(kept))
		}
		if seq, err := l.Append(ctx, payload("0-x", 5)); err != nil || seq != 3 {
			t.Fatal(seq, err)
		}
		l.Close()
		if rep, err := verify(m, memLedger, k.Verifier()); err != nil || rep.Records != 4 || rep.Tail != 0 {
			t.Fatal(rep, err)
		}
	}
	// A torn checkpoint is cut too, be it short or blank at one end.
	entry := entrySize(k.signer.Name())
	for n := 1; n <= entry; n++ {
		for what, tear := range map[string]func(d []byte) []byte{
			"cut":                func(d []byte) []byte { return d[:len(d)-n] },
			"blank at its start": func(d []byte) []byte { clear(d[len(d)-entry:][:n]); return d },
			"blank at its end":   func(d []byte) []byte { clear(d[len(d)-n:]); return d },
		} {
			m := m.clone()
			m.cps().data = tear(m.cps().data)
			if _, err := verify(m, memLedger, k.Verifier()); err != nil {
				t.Fatalf("checkpoint %s by %d: %v", what, n, err)
			}
			if err := checkAcked(m, nil); err != nil {
				t.Fatalf("checkpoint %s by %d: %v", what, n, err)
			}
		}
	}
}

func TestTamper(t *testing.T) {
	smallSegments(t, 4)
	m, k := closedLedger(t, 600*10) // segments of 4, 4 and 2
	other, _ := closedLedger(t, 600*10)
	rejoin := func(n *memNode, frames ...[]byte) { n.data = bytes.Join(frames, nil) }
	reframe := func(f []byte, change func([]byte)) []byte {
		f = bytes.Clone(f)
		change(f)
		binary.LittleEndian.PutUint32(f[4:], frameSum(f))
		return f
	}
	seg := func(m *memFS, i uint64) string { return filepath.Join(memLedger, segmentName(i*4)) }
	for name, attack := range map[string]func(m *memFS){
		"first record deleted":            func(m *memFS) { rejoin(m.seg(0), m.seg(0).frames()[1:]...) },
		"middle record deleted":           func(m *memFS) { f := m.seg(4).frames(); rejoin(m.seg(4), f[0], f[2], f[3]) },
		"last record deleted":             func(m *memFS) { rejoin(m.seg(8), m.seg(8).frames()[0]) },
		"all of the last segment deleted": func(m *memFS) { rejoin(m.seg(8)) },
		"records reordered":               func(m *memFS) { f := m.seg(4).frames(); rejoin(m.seg(4), f[0], f[2], f[1], f[3]) },
		"record repeated":                 func(m *memFS) { f := m.seg(8).frames(); rejoin(m.seg(8), f[0], f[0], f[1]) },
		"record added":                    func(m *memFS) { f := m.seg(4).frames(); rejoin(m.seg(4), f[0], f[1], f[2], f[3], f[3]) },
		"batch joined, reordered": func(m *memFS) {
			f := m.seg(4).frames()
			for i := range f {
				f[i] = reframe(f[i], func(b []byte) { binary.LittleEndian.PutUint64(b[8:], 4) })
			}
			rejoin(m.seg(4), f[1], f[0], f[2], f[3])
		},
		"body changed, new sum": func(m *memFS) {
			f := m.seg(4).frames()
			f[1] = reframe(f[1], func(b []byte) { b[len(b)-8] ^= 1 })
			rejoin(m.seg(4), f...)
		},
		"last body changed, new sum": func(m *memFS) {
			f := m.seg(8).frames()
			f[1] = reframe(f[1], func(b []byte) { b[len(b)-8] ^= 1 })
			rejoin(m.seg(8), f...)
		},
		"record of another ledger": func(m *memFS) {
			f := m.seg(4).frames()
			f[1] = other.seg(4).frames()[1]
			rejoin(m.seg(4), f...)
		},
		"first segment deleted":  func(m *memFS) { delete(m.current, seg(m, 0)) },
		"middle segment deleted": func(m *memFS) { delete(m.current, seg(m, 1)) },
		"last segment deleted":   func(m *memFS) { delete(m.current, seg(m, 2)) },
		"all segments deleted": func(m *memFS) {
			for i := range uint64(3) {
				delete(m.current, seg(m, i))
			}
		},
		"segments swapped":          func(m *memFS) { m.seg(0).data, m.seg(4).data = m.seg(4).data, m.seg(0).data },
		"segment repeated":          func(m *memFS) { m.seg(4).data = bytes.Clone(m.seg(0).data) },
		"segment of another ledger": func(m *memFS) { m.seg(4).data = bytes.Clone(other.seg(4).data) },
		"segment emptied":           func(m *memFS) { m.seg(4).data = nil },
		"segment cut":               func(m *memFS) { m.seg(4).data = m.seg(4).data[:700] },
		"segment blanked":           func(m *memFS) { clear(m.seg(4).data) },
		"last segment cut":          func(m *memFS) { n := m.seg(8); n.data = n.data[:len(n.data)-1] },
		"segment moved":             func(m *memFS) { m.current[seg(m, 7)] = m.seg(8); delete(m.current, seg(m, 2)) },
		"checkpoints of another":    func(m *memFS) { m.cps().data = bytes.Clone(other.cps().data) },
		"checkpoints emptied":       func(m *memFS) { m.cps().data = nil },
		"checkpoints deleted":       func(m *memFS) { delete(m.current, filepath.Join(memLedger, checkpointsFile)) },
		"checkpoints swapped": func(m *memFS) {
			d := m.cps().data
			i := entrySize(k.signer.Name())
			m.cps().data = append(bytes.Clone(d[i:]), d[:i]...)
		},
		"checkpoint repeated": func(m *memFS) {
			d := m.cps().data
			i := entrySize(k.signer.Name())
			m.cps().data = append(bytes.Clone(d), d[i:]...)
		},
		"checkpoint with a signature more": func(m *memFS) { // in what fills it up
			d := bytes.Clone(m.cps().data)
			last := d[len(d)-entrySize(k.signer.Name()):]
			copy(last[len(bytes.TrimRight(last, "\n"))+1:], "— x AAAAAAAA\n")
			m.cps().data = d
		},
		"checkpoint with another size": func(m *memFS) {
			m.cps().data = bytes.Replace(m.cps().data, []byte("\n10\n"), []byte("\n09\n"), 1)
		},
		"checkpoint of a fork, same key": func(m *memFS) {
			f := m.seg(8).frames()
			tr := tree{n: 10}
			tr.edges = append(tr.edges, [32]byte{1}, [32]byte{2})
			_ = f
			cp, err := k.sign(&tr)
			if err != nil {
				t.Fatal(err)
			}
			d := m.cps().data
			i := entrySize(k.signer.Name())
			m.cps().data = append(bytes.Clone(d[:i]), cp.entry(k.signer.Name())...)
		},
	} {
		c := m.clone()
		attack(c)
		if err := refused(c, k.Verifier()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := verify(m, memLedger, k.Verifier()); err != nil {
		t.Error(err)
	}
	var corrupt *CorruptError
	if _, err := openReader(deletedCheckpoints(m), memLedger, k.Verifier()); !errors.As(err, &corrupt) || corrupt.Segment != checkpointsFile {
		t.Errorf("a reader without checkpoints: %v", err)
	}
	// Without records either it is no ledger at all.
	c := deletedCheckpoints(m)
	for _, n := range []uint64{0, 4, 8, 12} {
		delete(c.current, filepath.Join(memLedger, segmentName(n)))
	}
	if _, err := verify(c, memLedger, k.Verifier()); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("an empty folder: %v", err)
	}
}

func deletedCheckpoints(m *memFS) *memFS {
	c := m.clone()
	delete(c.current, filepath.Join(memLedger, checkpointsFile))
	return c
}

// TestAnchor is the intruder who has the signing key: he writes another
// history and signs it. Only what was kept outside shows it.
func TestAnchor(t *testing.T) {
	smallSegments(t, 4)
	m, k := closedLedger(t, 600*10)
	before := m.clone()
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	old := l.Checkpoint() // at 10
	appendN(t, l, 3, 10)
	l.Close()
	anchor := l.Checkpoint() // at 13
	for _, a := range [][]byte{old, anchor} {
		if rep, err := verify(m, memLedger, k.Verifier(), a); err != nil || !rep.Anchored || rep.Records != 13 {
			t.Fatal(rep, err)
		}
	}
	// Rolled back to an earlier state, whole and signed.
	if rep, err := verify(before, memLedger, k.Verifier()); err != nil || rep.Anchored {
		t.Fatal(rep, err)
	}
	if _, err := verify(before, memLedger, k.Verifier(), anchor); !errors.Is(err, ErrCorrupt) {
		t.Errorf("rolled back: %v", err)
	}
	// Rewritten from there, and longer.
	l, _, err = Open(memLedger, memOpenKeys(t, before), Options{})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 7, 11)
	l.Close()
	if _, err := verify(before, memLedger, k.Verifier(), old); err != nil {
		t.Errorf("an anchor before the fork: %v", err)
	}
	var corrupt *CorruptError
	if _, err := verify(before, memLedger, k.Verifier(), anchor); !errors.As(err, &corrupt) || corrupt.Seq != 13 {
		t.Errorf("rewritten: %v", err)
	}
	// An anchor that the key did not sign says nothing about the ledger.
	_, k2 := closedLedger(t, 600)
	foreign, err := k2.sign(&tree{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range [][]byte{nil, {}, []byte("x"), bytes.Replace(anchor, []byte("ward.ex"), []byte("ware.ex"), 2)} {
		if _, err := verify(m, memLedger, k.Verifier(), a); err == nil || errors.Is(err, ErrCorrupt) {
			t.Errorf("anchor %q: %v", a, err)
		}
	}
	// But one under the ledger's own name says that there are two.
	for _, a := range [][]byte{foreign.note, bytes.Replace(anchor, []byte("13"), []byte("12"), 1)} {
		if _, err := verify(m, memLedger, k.Verifier(), a); !errors.As(err, &corrupt) || corrupt.Segment != "outside checkpoint" {
			t.Errorf("anchor %q: %v", a, err)
		}
	}
	// Any number of them, in any order: each is compared.
	if rep, err := verify(m, memLedger, k.Verifier(), anchor, old, old); err != nil || rep.AnchorSize != 13 {
		t.Error(rep, err)
	}
	for _, as := range [][][]byte{{old, anchor}, {anchor, old}} {
		if _, err := verify(before, memLedger, k.Verifier(), as...); !errors.As(err, &corrupt) || corrupt.Seq != 13 {
			t.Errorf("rewritten, two anchors: %v", err)
		}
	}
}

// TestCorruptNotTorn: a bad frame with a later batch behind it was durable, so
// it is damage also where no checkpoint covers it.
func TestCorruptNotTorn(t *testing.T) {
	smallSegments(t, 64)
	m, k := closedLedger(t, 600)
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 4, 100)
	crash := m.clone()
	l.Close()
	frames := crash.seg(0).frames()
	off := 0
	for i, f := range frames[:len(frames)-1] {
		for _, at := range []int{0, 3, 5, 9, headerSize, len(f) - 1} {
			c := crash.clone()
			c.seg(0).data[off+at] ^= 0x40
			if err := refused(c, k.Verifier()); err != nil {
				t.Errorf("record %d, byte %d: %v", i, at, err)
			}
		}
		off += len(f)
	}
}
