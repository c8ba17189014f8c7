package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// keyChange is the clear part of a change of keys, as far as this package reads it.
type keyChange struct {
	Op  string `json:"op"`
	T   string `json:"t,omitempty"`
	Day string `json:"day,omitempty"`
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

func (c keyChange) record() Record {
	clear, err := json.Marshal(map[string]any{"keys": c})
	if err != nil {
		panic(err)
	}
	return Record{Kind: Change, Time: testTime + 48*3600*1000, Clear: clear}
}

// shred and rotate do as package pdp does: the record first.
func shred(l *Ledger, c keyChange) error {
	if _, err := l.Append(ctx, c.record()); err != nil {
		return err
	}
	return l.keys.Destroy(c.T, c.Day)
}

func rotate(l *Ledger) error {
	old := l.keys.verifiers[len(l.keys.verifiers)-1]
	next, err := l.keys.NewSigner()
	if err != nil {
		return err
	}
	if _, err := l.Append(ctx, keyChange{Op: "rotate", Old: old, New: next}.record()); err != nil {
		return err
	}
	return l.Adopt(next)
}

// redo finishes what a crash cut off, as package pdp does at start.
func redo(l *Ledger) (changes []keyChange, err error) {
	for e, err := range l.Scan(0) {
		if err != nil {
			return nil, err
		}
		var c struct{ Keys keyChange }
		if err := json.Unmarshal(e.Clear, &c); err != nil || c.Keys.Op == "" {
			continue
		}
		changes = append(changes, c.Keys)
	}
	for _, c := range changes {
		if c.Op == "rotate" {
			err = l.Adopt(c.New)
		} else {
			err = l.keys.Destroy(c.T, c.Day)
		}
		if err != nil {
			return nil, err
		}
	}
	return changes, nil
}

const testDay = "2026-01-01" // of testTime

// keysRun writes, shreds, replaces the signer and writes on, until something
// fails. It says what was acknowledged.
func keysRun(fsys fileSystem) (shredded, rotated bool) {
	k, err := openKeys(fsys, memKeys)
	if err != nil {
		return
	}
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		return
	}
	defer l.Close()
	write := func(name string) bool {
		_, err := l.Append(ctx, payload(name, 50))
		return err == nil
	}
	if !write("0-before") {
		return
	}
	if shred(l, keyChange{Op: "shred", T: k.Hash(tenantKind, "", "tenant-0"), Day: testDay}) != nil {
		return
	}
	if shredded = true; !write("1-between") || rotate(l) != nil {
		return
	}
	rotated = true
	write("1-after")
	return
}

// checkKeys opens what is left, and finds it as the records say.
func checkKeys(m *memFS, first string, seal []byte, shredded, rotated bool) error {
	k, err := openKeys(m, memKeys)
	if err != nil {
		return err
	}
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		return err
	}
	defer l.Close()
	changes, err := redo(l)
	if err != nil {
		return err
	}
	recorded := map[string]bool{}
	for _, c := range changes {
		recorded[c.Op], recorded[c.New] = true, true
	}
	for _, v := range k.verifiers[1:] {
		if !recorded[v] {
			return errors.New("a signer without a record")
		}
	}
	switch {
	case shredded && !recorded["shred"]:
		return errors.New("acknowledged, and no record says that it was shredded")
	case rotated && len(k.verifiers) != 2:
		return errors.New("acknowledged, and the old key signs")
	}
	if recorded["shred"] {
		for name, n := range m.current {
			if bytes.Contains(n.data, seal) {
				return fmt.Errorf("%s holds the key that the record says is destroyed", name)
			}
		}
	}
	if _, err := l.Append(ctx, payload("2-later", 10)); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	for _, v := range []string{first, k.Verifier()} {
		if rep, err := verify(m, memLedger, v); err != nil || rep.Tail != 0 {
			return fmt.Errorf("%+v: %w", rep, err)
		}
	}
	return nil
}

// keysLedger is a ledger with one record of tenant-0, and its seal key as it
// stands in the file.
func keysLedger(t testing.TB) (m *memFS, first string, seal []byte) {
	m = memLedgerFS(t)
	k := memOpenKeys(t, m)
	l, _, err := Open(memLedger, k, Options{})
	if err == nil {
		_, err = l.Append(ctx, payload("0-first", 50))
	}
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	path, err := k.sealPath(k.Hash(tenantKind, "", "tenant-0"), testDay)
	if err != nil {
		t.Fatal(err)
	}
	return m, k.Verifier(), bytes.Fields(m.current[path].data)[2]
}

// TestKeyChangesUnderFaults lets every operation fail, once and from then on,
// and looks at what is left after a restart and after a power cut.
func TestKeyChangesUnderFaults(t *testing.T) {
	clean, first, seal := keysLedger(t)
	ops := 0
	clean.before = func(string, string) error { ops++; return nil }
	m := clean.clone()
	m.before = clean.before
	if s, r := keysRun(m); !s || !r {
		t.Fatal("nothing fails, and it does not work")
	}
	if err := checkKeys(m, first, seal, true, true); err != nil {
		t.Fatal(err)
	}
	clean.before = nil
	points := 0
	for _, fault := range []error{syscall.EIO, errShort} {
		for at := range ops {
			for _, lasts := range []bool{false, true} {
				m, n := clean.clone(), 0
				m.before = func(op, _ string) error {
					n++
					switch {
					case n-1 != at && (!lasts || n-1 < at):
						return nil
					case fault == errShort && op != "write":
						return syscall.ENOSPC
					}
					return fault
				}
				shredded, rotated := keysRun(m)
				m.before = nil
				m.mu.Lock()
				dark := m.cut(rand.New(rand.NewPCG(uint64(at), 3)))
				m.mu.Unlock()
				points++
				if err := checkKeys(dark, first, seal, shredded, rotated); err != nil {
					t.Errorf("op %d, %v: after power cut: %v", at, fault, err)
				}
				if err := checkKeys(m, first, seal, shredded, rotated); err != nil {
					t.Errorf("op %d, %v: after restart: %v", at, fault, err)
				}
			}
		}
	}
	t.Logf("%d faults at %d operations", points, ops)
}

// keyCuts cuts the power at every operation, and once more while what was left
// is opened again.
func keyCuts(t *testing.T, seed uint64, bug func(*memFS) fileSystem) (cuts int, broken []error) {
	m, first, seal := keysLedger(t)
	r := rand.New(rand.NewPCG(seed, 11))
	var moments []*memFS
	m.before = func(string, string) error {
		moments = append(moments, m.cut(r))
		return nil
	}
	shredded, rotated := keysRun(bug(m))
	m.before = nil
	m.mu.Lock()
	moments = append(moments, m.cut(r))
	m.mu.Unlock()
	for i, dark := range moments {
		last := i == len(moments)-1
		again, n := dark.clone(), r.IntN(20)
		var third *memFS
		again.before = func(string, string) error {
			if n--; n == 0 {
				third = again.cut(r)
			}
			return nil
		}
		checks := []*memFS{dark, again}
		for j := 0; j < len(checks); j++ {
			cuts++
			if err := checkKeys(checks[j], first, seal, shredded && last, rotated && last); err != nil {
				broken = append(broken, err)
			}
			if j == 1 && third != nil {
				checks = append(checks, third)
			}
		}
	}
	return cuts, broken
}

func TestKeyChangesUnderPowerCuts(t *testing.T) {
	runs := uint64(8)
	if campaign() {
		runs = 400
	}
	total := 0
	for seed := range runs {
		cuts, broken := keyCuts(t, seed, none)
		total += cuts
		for _, err := range broken {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d power cuts", total)
}

// TestKeyCutsCatch shows that the harness can fail.
func TestKeyCutsCatch(t *testing.T) {
	for name, bug := range map[string]func(*memFS) fileSystem{
		"no sync":                     func(m *memFS) fileSystem { return noSync{m} },
		"no sync of the keys' folder": func(m *memFS) fileSystem { return noDirSync{m, "keys"} },
	} {
		caught := false
		for seed := uint64(0); seed < 30 && !caught; seed++ {
			_, broken := keyCuts(t, seed, bug)
			caught = len(broken) > 0
		}
		if !caught {
			t.Errorf("%s: not caught", name)
		}
	}
}

func TestRotation(t *testing.T) {
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Nanosecond})
	first := k.Verifier()
	anchors := [][]byte{}
	for range 3 {
		appendN(t, l, 2, 20)
		if err := rotate(l); err != nil {
			t.Fatal(err)
		}
		appendN(t, l, 2, 20)
		_, must := l.Files() // signs a checkpoint that covers all
		if must != nil {
			t.Fatal(must)
		}
		anchors = append(anchors, l.Checkpoint())
	}
	all := strings.Fields(k.Verifier())
	if len(all) != 4 || all[0] != first {
		t.Fatal("not four keys in order")
	}
	l.Close()
	again, err := OpenKeys(k.dir)
	if err != nil || again.Verifier() != k.Verifier() {
		t.Fatal("opened again: other keys", err)
	}
	// By the oldest key alone, by all, and by the first ones.
	for n := range all {
		given := strings.Join(all[:n+1], "\n")
		if rep, err := Verify(dir, given); err != nil || rep.Tail != 0 || rep.Records != 15 {
			t.Errorf("%d keys: %+v, %v", n+1, rep, err)
		}
	}
	for _, a := range anchors {
		if rep, err := Verify(dir, k.Verifier(), a); err != nil || !rep.Anchored {
			t.Errorf("anchor: %+v, %v", rep, err)
		}
	}
	// By a later one alone, or by those in another order, it is no ledger.
	for _, given := range []string{all[1], all[3], all[1] + "\n" + all[0], all[0] + "\n" + all[2]} {
		if _, err := Verify(dir, given); given != all[0]+"\n"+all[2] && !errors.Is(err, ErrCorrupt) {
			t.Errorf("wrong keys: %v", err)
		}
	}
	if _, err := Verify(dir, first+"\nnonsense", nil); err == nil {
		t.Error("nonsense is a verifier")
	}
	if _, err := reopen(dir, again); err != nil {
		t.Error(err)
	}
}

// reopen opens and closes a ledger.
func reopen(dir string, k *Keys) (uint64, error) {
	l, _, err := Open(dir, k, Options{})
	if err != nil {
		return 0, err
	}
	return l.Size(), l.Close()
}

// TestSignerWithoutARecord: whoever puts a signer of their own in place shows in
// Verify, with the old key and with both.
func TestSignerWithoutARecord(t *testing.T) {
	for name, c := range map[string]struct {
		record func(old, next string) []keyChange // before it signs
		want   bool
	}{
		"named":            {func(old, next string) []keyChange { return []keyChange{{Op: "rotate", Old: old, New: next}} }, true},
		"not named":        {func(old, next string) []keyChange { return nil }, false},
		"another is named": {func(old, next string) []keyChange { return []keyChange{{Op: "rotate", Old: old, New: otherKey(old)}} }, false},
		"by another":       {func(old, next string) []keyChange { return []keyChange{{Op: "rotate", Old: otherKey(old), New: next}} }, false},
		"of another name": {func(old, next string) []keyChange {
			return []keyChange{{Op: "rotate", Old: old, New: otherKey("x" + old)}}
		}, false},
		"not by a change": {func(old, next string) []keyChange { return []keyChange{{Op: "decision", Old: old, New: next}} }, false},
		"the second that is": {func(old, next string) []keyChange {
			return []keyChange{{Op: "rotate", Old: old, New: otherKey(old)}, {Op: "rotate", Old: old, New: next}}
		}, true},
	} {
		l, k, dir := newLedger(t, Options{CheckpointEvery: time.Nanosecond})
		old := k.Verifier()
		next, err := k.NewSigner()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range c.record(old, next) {
			r := c.record()
			if c.Op == "decision" {
				r.Kind = Decision
			}
			if _, err := l.Append(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
		appendN(t, l, 1, 20)
		if err := l.Adopt(next); err != nil {
			t.Fatal(err)
		}
		appendN(t, l, 1, 20)
		l.Close()
		for _, given := range []string{old, k.Verifier()} {
			if _, err := Verify(dir, given); (err == nil) != c.want || err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, %d keys given: %v", name, len(strings.Fields(given)), err)
			}
		}
	}
	// A record that only the new key covers names nobody.
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Hour})
	old := k.Verifier()
	next, err := k.NewSigner()
	if err == nil {
		err = l.keys.adopt(next) // without the checkpoint
	}
	if err == nil {
		_, err = l.Append(ctx, keyChange{Op: "rotate", Old: old, New: next}.record())
	}
	if err = errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir, k.Verifier()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("covered by the new key alone: %v", err)
	}
}

func otherKey(like string) string {
	v, err := note.NewVerifier(strings.TrimPrefix(like, "x"))
	if err != nil {
		panic(err)
	}
	name := v.Name()
	if strings.HasPrefix(like, "x") {
		name += "/x"
	}
	_, other, err := note.GenerateKey(nil, name)
	if err != nil {
		panic(err)
	}
	return other
}

// TestTheOldKeySignsNoMore: once the next one has signed, a checkpoint of the
// one before is damage.
func TestTheOldKeySignsNoMore(t *testing.T) {
	m := memLedgerFS(t)
	k := memOpenKeys(t, m)
	old := k.signer
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := rotate(l); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1, 20)
	if err := l.ask(func() error { k.signer = old; return nil }); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(m, memLedger, k.Verifier()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("verify: %v", err)
	}
	if _, _, err := Open(memLedger, memOpenKeys(t, m), Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Hour})
	before := k.Verifier()
	defer func() { // a checkpoint of the old key covers its record, however rarely they come
		if _, err := Verify(dir, before); err != nil {
			t.Error(err)
		}
	}()
	// What is not there is not adopted, and the ledger goes on.
	if err := l.Adopt(otherKey(before)); err != nil || k.Verifier() != before {
		t.Errorf("%v", err)
	}
	if _, err := k.NewSigner(); err != nil {
		t.Fatal(err)
	}
	if err := l.Adopt(otherKey(before)); err != nil || k.Verifier() != before {
		t.Errorf("another than the one that is there: %v", err)
	}
	next, err := k.NewSigner()
	if err == nil {
		_, err = l.Append(ctx, keyChange{Op: "rotate", Old: before, New: next}.record())
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again
		if err := l.Adopt(next); err != nil || k.Verifier() != before+"\n"+next {
			t.Errorf("%v", err)
		}
	}
	appendN(t, l, 1, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Adopt(next); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestDestroy(t *testing.T) {
	l, k, dir := newLedger(t, Options{})
	hash := k.Hash(tenantKind, "", "tenant-0")
	r := payload("0-canary", 10)
	r.Parts = append(r.Parts, Part{"other", []byte("stays")})
	if _, err := l.Append(ctx, r); err != nil {
		t.Fatal(err)
	}
	e, err := l.Entry(0)
	if err != nil {
		t.Fatal(err)
	}
	seals := e.Seals()
	id, err := k.SealKeyID(hash, testDay)
	if err != nil || len(seals) != 2 || seals[0] != (Seal{hash, testDay, id}) {
		t.Fatalf("%v, %v", seals, err)
	}
	path, _ := k.sealPath(hash, testDay)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The bytes of the file are overwritten, not only its name removed.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again
		if err := k.Destroy(hash, testDay); err != nil {
			t.Fatal(err)
		}
	}
	if k.seals[path] != nil {
		t.Error("the key is still in memory")
	}
	key := bytes.Fields(raw)[2]
	if left, err := os.ReadFile(link); err != nil || bytes.Contains(left, key) {
		t.Errorf("the file still holds the key: %v", err)
	}
	for _, root := range []string{k.dir, dir} {
		if name := holding(t, root, key); name != "" {
			t.Errorf("%s holds the key", name)
		}
	}
	if _, err := k.SealKeyID(hash, testDay); !errors.Is(err, ErrNoKey) {
		t.Errorf("its id: %v", err)
	}
	if parts, err := k.Unseal(e); !errors.Is(err, ErrNoKey) || len(parts) != 1 || string(parts[0].Plain) != "stays" {
		t.Errorf("%v, %v", parts, err)
	}
	if err := k.Destroy(hash, "1999-12-31"); err != nil {
		t.Errorf("a day without keys: %v", err)
	}
	_, foreign, _ := newLedger(t, Options{})
	for name, err := range map[string]error{
		"a day that is none":    k.Destroy(hash, "2026-13-01"),
		"a path":                k.Destroy(hash, "../.."),
		"a tenant that is none": k.Destroy("tenant-0", testDay),
		"foreign":               k.Destroy(foreign.Hash(tenantKind, "", "tenant-0"), testDay),
	} {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeignKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := k.SealKeyID("x", testDay); err == nil {
		t.Error("an id of no key")
	}
}

// TestDestroyIsDurable cuts the power right after it: nothing does it again once
// another change is on record.
func TestDestroyIsDurable(t *testing.T) {
	for seed := range uint64(20) {
		m, _, seal := keysLedger(t)
		k := memOpenKeys(t, m)
		if err := k.Destroy(k.Hash(tenantKind, "", "tenant-0"), testDay); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		dark := m.cut(rand.New(rand.NewPCG(seed, 5)))
		m.mu.Unlock()
		for name, n := range dark.current {
			if strings.Contains(name, testDay+"/") || bytes.Contains(n.data, seal) {
				t.Fatalf("seed %d: %s is there again", seed, name)
			}
		}
	}
}

// holding returns a file below root that holds the bytes, or "".
func holding(t *testing.T, root string, b []byte) (found string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(p)
		if bytes.Contains(raw, b) {
			found = p
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestAnnouncedSigner opens a key folder in which a crash has left a verifier
// without its signer, and one in which more are missing.
func TestAnnouncedSigner(t *testing.T) {
	_, k, _ := newLedger(t, Options{})
	path := filepath.Join(k.dir, verifierFile)
	one := k.Verifier()
	for _, c := range []struct {
		verifiers string
		ok        bool
	}{{one + "\n" + otherKey(one), true}, {one + "\n" + otherKey(one) + "\n" + otherKey(one), false}, {otherKey(one), false}, {"", false}} {
		if err := os.WriteFile(path, []byte(c.verifiers+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := OpenKeys(k.dir)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d verifiers: %v", len(strings.Fields(c.verifiers)), err)
		} else if c.ok && again.Verifier() != one {
			t.Error("a verifier that nothing was signed for")
		}
	}
}

// TestTheNewKeyCannotSignThePast: who holds the present signer, and no longer
// those before it, cannot rewrite what these had signed: a ledger whose first
// checkpoint is by a later key is none.
func TestTheNewKeyCannotSignThePast(t *testing.T) {
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Nanosecond})
	appendN(t, l, 5, 20)
	if err := rotate(l); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 5, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	both := k.Verifier()
	// Everything is made anew and signed with the key at hand.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(dir, k); err != nil {
		t.Fatal(err)
	}
	if l, _, err = Open(dir, k, Options{}); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 11, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if rep, err := Verify(dir, both); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a history that the second key signed from the first record on: %v, %v", rep, err)
	}
}

// TestTheLedgerEndsBeforeItsRotation: a key folder that knows a second signer
// proves that a record names it.
func TestTheLedgerEndsBeforeItsRotation(t *testing.T) {
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Nanosecond})
	appendN(t, l, 3, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	before := t.TempDir()
	if err := os.CopyFS(before, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	if l, _, err = Open(dir, k, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := rotate(l); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1, 20)
	l.Close()
	if n := len(strings.Fields(k.Verifier())); n != 2 {
		t.Fatal(n)
	}
	if rep, err := Verify(before, k.Verifier()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut back to before the rotation: %v, %v", rep, err)
	}
	if _, err := Verify(dir, k.Verifier()); err != nil {
		t.Error(err)
	}
}

// TestAnAnchorOfALaterKey: with the oldest key alone, an outside checkpoint by
// a key that the records name is an anchor, and no damage.
func TestAnAnchorOfALaterKey(t *testing.T) {
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Nanosecond})
	first := k.Verifier()
	appendN(t, l, 2, 20)
	if err := rotate(l); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 2, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	anchor := l.Checkpoint()
	if rep, err := Verify(dir, first, anchor); err != nil || !rep.Anchored || rep.AnchorSize != 5 {
		t.Errorf("%+v, %v", rep, err)
	}
	// One that contradicts the ledger is still found, and so is one of a stranger.
	other, _, _ := newLedger(t, Options{})
	appendN(t, other, 2, 20)
	other.Close()
	if _, err := Verify(dir, first, other.Checkpoint()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another's: %v", err)
	}
	if err := os.Truncate(filepath.Join(dir, segmentName(0)), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir, first, anchor); !errors.Is(err, ErrCorrupt) {
		t.Errorf("emptied: %v", err)
	}
}
