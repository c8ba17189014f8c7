package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	memKeys   = "/keys"
	memLedger = "/ledger"
	testTime  = 1767225600000 // 2026-01-01
)

func campaign() bool { return os.Getenv("WARD_CAMPAIGN") != "" }

func smallSegments(t testing.TB, n uint64) {
	old := segmentSize
	segmentSize = n
	t.Cleanup(func() { segmentSize = old })
}

func memLedgerFS(t testing.TB) *memFS {
	t.Helper()
	m := newMemFS()
	if err := createKeys(m, memKeys, "ward.example/audit/test"); err != nil {
		t.Fatal(err)
	}
	if err := Create(memLedger, memOpenKeys(t, m)); err != nil {
		t.Fatal(err)
	}
	return m
}

func memOpenKeys(t testing.TB, fsys fileSystem) *Keys {
	t.Helper()
	k, err := openKeys(fsys, memKeys)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// payload is a record that can be told from every other.
func payload(name string, size int) Record {
	return Record{
		Kind: Decision, Time: testTime, Clear: []byte(`{"n":"` + name + `"}`),
		Parts: []Part{{Tenant: "tenant-" + name[:1], Plain: []byte(name + strings.Repeat("x", size))}},
	}
}

type acks struct {
	mu sync.Mutex
	m  map[uint64]string // plain text by sequence number
}

func (a *acks) add(seq uint64, plain string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, twice := a.m[seq]; twice {
		return fmt.Errorf("%s given twice", ID(seq))
	}
	a.m[seq] = plain
	return nil
}

func (a *acks) snapshot() map[uint64]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.m)
}

// checkAcked opens what is left, and finds every acknowledged record in it and
// everything verified, also after more was written.
func checkAcked(fsys fileSystem, acked map[uint64]string) error {
	k, err := openKeys(fsys, memKeys)
	if err != nil {
		return err
	}
	l, _, err := Open(memLedger, k, Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		return err
	}
	defer l.Close()
	seen := 0
	for e, err := range l.Scan(0) {
		if err != nil {
			return err
		}
		want, ok := acked[e.Seq]
		if !ok {
			continue
		}
		seen++
		parts, err := k.Unseal(e)
		if err != nil {
			return fmt.Errorf("%s: %w", e.ID(), err)
		}
		if len(parts) != 1 || string(parts[0].Plain) != want {
			return fmt.Errorf("%s holds something else", e.ID())
		}
	}
	if seen != len(acked) {
		return fmt.Errorf("%d records acknowledged, %d found", len(acked), seen)
	}
	if _, err := l.Append(context.Background(), payload("z-after", 100)); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	report, err := verify(fsys, memLedger, k.Verifier())
	if err == nil && report.Tail != 0 {
		err = errors.New("a tail after close")
	}
	return err
}

// powerCuts runs a small ledger and cuts the power at random operations, also
// during recovery. It returns how many cuts there were, and what they broke.
func powerCuts(t *testing.T, seed uint64, bug func(*memFS) fileSystem) (cuts int, broken []error) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	m := memLedgerFS(t)
	type moment struct {
		fs    *memFS
		acked map[uint64]string
	}
	var moments []moment
	got := &acks{m: map[uint64]string{}}
	m.before = func(string, string) error {
		if r.IntN(2) == 0 {
			acked := got.snapshot() // before the cut is taken
			moments = append(moments, moment{m.cut(r), acked})
		}
		return nil
	}
	l, _, err := Open(memLedger, memOpenKeys(t, bug(m)), Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)+2))
			for i := range 8 {
				rec := payload(fmt.Sprintf("%d-%d", g, i), r.IntN(6000))
				seq, err := l.Append(context.Background(), rec)
				if err == nil {
					err = got.add(seq, string(rec.Parts[0].Plain))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for _, mo := range moments {
		cuts++
		// Once more, while what the first cut left is being recovered.
		second := mo.fs.clone()
		var third *memFS
		n := r.IntN(8)
		second.before = func(string, string) error {
			if n--; n == 0 {
				third = second.cut(r)
			}
			return nil
		}
		err := checkAcked(mo.fs, mo.acked)
		if err == nil {
			err = checkAcked(bug(second), mo.acked)
		}
		if err == nil && third != nil {
			cuts++
			err = checkAcked(third, mo.acked)
		}
		if err != nil {
			broken = append(broken, err)
		}
	}
	return cuts, broken
}

func none(m *memFS) fileSystem { return m }

func TestPowerCut(t *testing.T) {
	smallSegments(t, 8)
	runs := uint64(6)
	if campaign() {
		runs = 300
	}
	total := 0
	for seed := range runs {
		cuts, broken := powerCuts(t, seed, none)
		total += cuts
		for _, err := range broken {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d power cuts, no acknowledged record missing", total)
	if total < 300 {
		t.Errorf("only %d cuts", total)
	}
}

// TestPowerCutCatches shows that the harness can fail.
func TestPowerCutCatches(t *testing.T) {
	smallSegments(t, 8)
	for name, bug := range map[string]func(*memFS) fileSystem{
		"acknowledged before sync":       func(m *memFS) fileSystem { return &lateSync{memFS: m} },
		"no sync":                        func(m *memFS) fileSystem { return noSync{m} },
		"no sync of the ledger's folder": func(m *memFS) fileSystem { return noDirSync{m, "ledger"} },
		"no sync of the seals' folders":  func(m *memFS) fileSystem { return noDirSync{m, "seals"} },
		"renamed before it is synced":    func(m *memFS) fileSystem { return lateContent{m} },
		"a buffer used again too early":  func(m *memFS) fileSystem { return &usedAgain{memFS: m} },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				if cuts, broken := powerCuts(t, seed, bug); len(broken) > 0 {
					t.Logf("caught: %d of %d cuts; %v", len(broken), cuts, broken[0])
					return
				}
			}
			t.Error("not caught")
		})
	}
}

// faultRun appends one record after the other while operation number at fails,
// and returns what was acknowledged and how many operations there were.
func faultRun(t *testing.T, m *memFS, at int, fault error) (acked map[uint64]string, ops int) {
	t.Helper()
	hit := false
	m.before = func(op, name string) error {
		ops++
		if ops-1 == at {
			if fault == errShort && op != "write" {
				return syscall.ENOSPC
			}
			return fault
		}
		return nil
	}
	defer func() { m.before = nil }()
	acked = map[uint64]string{}
	l, _, err := Open(memLedger, memOpenKeys(t, m), Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		if at >= ops {
			t.Fatal(err)
		}
		return acked, ops
	}
	for i := range 12 {
		rec := payload(fmt.Sprintf("%d-%d", i%2, i), 3000)
		seq, err := l.Append(context.Background(), rec)
		switch {
		case err == nil && hit:
			t.Errorf("op %d, %v: acknowledged after a failure", at, fault)
		case err == nil:
			acked[seq] = string(rec.Parts[0].Plain)
		case !errors.Is(err, ErrFailed) || !errors.Is(err, fault) && !errors.Is(err, syscall.ENOSPC):
			t.Errorf("op %d: error is %v", at, err)
		case l.Err() == nil:
			t.Errorf("op %d: failed, but Err is nil", at)
		}
		hit = hit || err != nil
	}
	if err := l.Close(); (err == nil) != (l.Err() == nil) {
		t.Errorf("op %d: close says %v", at, err)
	}
	if at >= 0 && at < ops && l.Err() == nil {
		t.Errorf("op %d failed with %v and nobody noticed", at, fault)
	}
	return acked, ops
}

func TestFaults(t *testing.T) {
	smallSegments(t, 4)
	clean := memLedgerFS(t)
	_, ops := faultRun(t, clean.clone(), -1, nil)
	points := 0
	for _, fault := range []error{syscall.EIO, errShort} {
		for at := range ops {
			m := clean.clone()
			acked, _ := faultRun(t, m, at, fault)
			points++
			r := rand.New(rand.NewPCG(uint64(at), 7))
			// The process restarts; then the power goes, in whatever state.
			m.mu.Lock()
			dark := m.cut(r)
			m.mu.Unlock()
			if err := checkAcked(m, acked); err != nil {
				t.Errorf("op %d, %v: after restart: %v", at, fault, err)
			}
			if err := checkAcked(dark, acked); err != nil {
				t.Errorf("op %d, %v: after power cut: %v", at, fault, err)
			}
			// What recovery adopted is durable: restart, write on, lose power.
			m.mu.Lock()
			dark = m.cut(r)
			m.mu.Unlock()
			if err := checkAcked(dark, acked); err != nil {
				t.Errorf("op %d, %v: restart, then power cut: %v", at, fault, err)
			}
		}
	}
	t.Logf("%d faults, 0 acknowledged afterwards, 0 missing", points)
}

// TestFaultsCatch shows that a recovery that believes what it reads, without
// writing it again, would be caught.
func TestFaultsCatch(t *testing.T) {
	smallSegments(t, 64)
	clean := memLedgerFS(t)
	_, ops := faultRun(t, clean.clone(), -1, nil)
	for at := range ops {
		m := clean.clone()
		acked, _ := faultRun(t, m, at, syscall.EIO)
		if checkAcked(noRewrite{m}, acked) != nil {
			continue
		}
		m.mu.Lock()
		dark := m.cut(rand.New(rand.NewPCG(uint64(at), 7)))
		m.mu.Unlock()
		if err := checkAcked(dark, acked); err != nil {
			t.Logf("caught at operation %d of %d: %v", at, ops, err)
			return
		}
	}
	t.Error("not caught")
}
