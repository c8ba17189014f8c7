package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

var ctx = context.Background()

// newLedger makes keys and an open ledger on the disk.
func newLedger(t testing.TB, o Options) (*Ledger, *Keys, string) {
	t.Helper()
	dir := t.TempDir()
	kd, ld := filepath.Join(dir, "keys"), filepath.Join(dir, "ledger")
	if err := CreateKeys(kd, "ward.example/audit/test"); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(kd)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(ld, k); err != nil {
		t.Fatal(err)
	}
	l, _, err := Open(ld, k, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, k, ld
}

func appendN(t testing.TB, l *Ledger, n, size int) {
	t.Helper()
	for i := range n {
		if _, err := l.Append(ctx, payload(fmt.Sprintf("%d-%d", i%2, i), size)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	l, k, dir := newLedger(t, Options{})
	want := Record{
		Kind: Inquiry, Time: testTime, Clear: json.RawMessage("{ \"a\" : [1, \"<&>\\u2028\"]\n}"),
		Parts: []Part{{"acme", []byte("one")}, {"", nil}, {"bolt", bytes.Repeat([]byte{0, 255}, 100)}},
	}
	seq, err := l.Append(ctx, want)
	if err != nil || seq != 0 || l.Size() != 1 {
		t.Fatal(seq, err)
	}
	check := func(e Entry, err error) {
		t.Helper()
		if err != nil || e.Seq != 0 || e.ID() != "a-0" || e.Kind != Inquiry || e.Time != testTime || string(e.Clear) != `{"a":[1,"<&>\u2028"]}` {
			t.Fatalf("%+v, %v", e, err)
		}
		parts, err := k.Unseal(e)
		if err != nil || len(parts) != 3 {
			t.Fatal(parts, err)
		}
		for i, p := range parts {
			if p.Tenant != want.Parts[i].Tenant || !bytes.Equal(p.Plain, want.Parts[i].Plain) {
				t.Errorf("part %d is %v", i, p)
			}
		}
		if !json.Valid(e.Body) || bytes.ContainsAny(e.Body, "\n") {
			t.Errorf("body is not one line of JSON: %s", e.Body)
		}
		if bytes.Contains(e.Body, []byte("acme")) {
			t.Errorf("a tenant's name stands in clear")
		}
	}
	check(l.Entry(0))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	check(l.Entry(0)) // also of a closed one
	r, err := OpenReader(dir, k.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	check(r.Entry(0))
	if _, err := r.Entry(1); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// Nothing of the plain text, the tenant or the keys lies in the folder or in
	// a file name of the keys.
	filepath.WalkDir(filepath.Dir(dir), func(p string, d fs.DirEntry, err error) error {
		raw, _ := os.ReadFile(p)
		if strings.Contains(p, "acme") || strings.HasPrefix(p, dir) && bytes.Contains(raw, []byte("acme")) {
			t.Errorf("%s shows the tenant", p)
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 && p != filepath.Dir(dir) {
			t.Errorf("%s has mode %v", p, info.Mode())
		}
		return nil
	})
}

func TestUnsealBinds(t *testing.T) {
	l, k, _ := newLedger(t, Options{})
	r := payload("0-a", 10)
	r.Parts = append(r.Parts, Part{"other", []byte("x")})
	if _, err := l.Append(ctx, r); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Entry){
		"kind":  func(e *Entry) { e.Kind = Change },
		"time":  func(e *Entry) { e.Time++ },
		"day":   func(e *Entry) { e.Time += 24 * 3600 * 1000 },
		"clear": func(e *Entry) { e.Clear = json.RawMessage(`{"n":"0-b"}`) },
		"order": func(e *Entry) { e.sealed[0], e.sealed[1] = e.sealed[1], e.sealed[0] },
		"count": func(e *Entry) { e.sealed = e.sealed[:1] },
		"salt":  func(e *Entry) { e.sealed[0].Salt = e.sealed[1].Salt },
		"text":  func(e *Entry) { e.sealed[0].CT = e.sealed[1].CT },
		"short": func(e *Entry) { e.sealed[0].CT = nil },
		"path":  func(e *Entry) { e.sealed[0].T = "../../x" },
	} {
		e, err := l.Entry(0)
		if err != nil {
			t.Fatal(err)
		}
		change(&e)
		if _, err := k.Unseal(e); !errors.Is(err, ErrCorrupt) {
			t.Errorf("changed %s: %v", name, err)
		}
	}
	_, other, _ := newLedger(t, Options{})
	e, _ := l.Entry(0)
	if _, err := other.Unseal(e); !errors.Is(err, ErrForeignKeys) {
		t.Errorf("other keys: %v", err)
	}
}

func TestHash(t *testing.T) {
	_, k, _ := newLedger(t, Options{})
	_, k2, _ := newLedger(t, Options{})
	seen := map[string]string{}
	for name, h := range map[string]string{
		"base": k.Hash("person", "acme", "p-1"), "tenant": k.Hash("person", "bolt", "p-1"),
		"kind": k.Hash("claim", "acme", "p-1"), "id": k.Hash("person", "acme", "p-2"),
		"shift": k.Hash("person", "acmep", "-1"), "shift2": k.Hash("persona", "cme", "p-1"),
		"keys": k2.Hash("person", "acme", "p-1"),
	} {
		if other := seen[h]; other != "" {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[h] = name
		if !hashText.MatchString(h) {
			t.Errorf("form of %s", h)
		}
	}
	if first, again := k.Hash("person", "acme", "p-1"), k.Hash("person", "acme", "p-1"); first != again {
		t.Error("not stable")
	}
}

func TestKeys(t *testing.T) {
	l, k, dir := newLedger(t, Options{})
	if err := CreateKeys(k.dir, "again"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateKeys over a folder: %v", err)
	}
	for _, origin := range []string{"", "a b", "a+b", "a\nb", strings.Repeat("a", 201)} {
		if err := CreateKeys(filepath.Join(t.TempDir(), "k"), origin); err == nil {
			t.Errorf("origin %q was taken", origin)
		}
	}
	if _, err := OpenKeys(t.TempDir()); err == nil {
		t.Error("an empty folder is a key folder")
	}
	inner := filepath.Join(t.TempDir(), "ledger")
	if err := CreateKeys(inner, "x"); err != nil {
		t.Fatal(err)
	}
	ki, err := OpenKeys(inner)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{inner, filepath.Join(inner, "l"), filepath.Dir(inner)} {
		if err := Create(d, ki); err == nil {
			t.Errorf("keys within reach of the ledger at %s", d)
		}
	}
	if err := Create(dir, k); err == nil {
		t.Error("Create over a ledger")
	}
	if _, _, err := Open(t.TempDir(), k, Options{}); err == nil {
		t.Error("Open made a ledger")
	}
	if _, _, err := Open(dir, k, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second writer: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A changed key file is corruption, and its content is in no error.
	for _, name := range []string{signerFile, verifierFile, hashFile} {
		p := filepath.Join(k.dir, name)
		raw, _ := os.ReadFile(p)
		bad := bytes.Clone(raw)
		bad[len(bad)-5] ^= 1
		os.WriteFile(p, bad, 0o600)
		_, err := OpenKeys(k.dir)
		if !errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), string(bad[10:20])) {
			t.Errorf("%s: %v", name, err)
		}
		os.WriteFile(p, raw, 0o600)
	}
	// Other keys do not open this ledger.
	_, k2, _ := newLedger(t, Options{})
	k2b, err := OpenKeys(k2.dir)
	if err != nil {
		t.Fatal(err)
	}
	k2b.dir = filepath.Join(t.TempDir()) // not locked by its own ledger
	if _, _, err := Open(dir, k2b, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("foreign keys: %v", err)
	}
	if _, err := Verify(dir, k2.Verifier()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("foreign verifier: %v", err)
	}
	if _, err := OpenReader(dir, "nonsense"); err == nil {
		t.Error("nonsense is a verifier")
	}
}

func TestShred(t *testing.T) {
	l, k, dir := newLedger(t, Options{})
	r := payload("0-a", 10)
	r.Parts = append(r.Parts, Part{"other", []byte("stays")})
	if _, err := l.Append(ctx, r); err != nil {
		t.Fatal(err)
	}
	path, _ := k.sealPath(k.Hash(tenantKind, "", "tenant-0"), "2026-01-01")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		e, err := l.Entry(0)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := k.Unseal(e)
		if !errors.Is(err, ErrNoKey) || len(parts) != 1 || string(parts[0].Plain) != "stays" {
			t.Errorf("%v, %v", parts, err)
		}
	}
	check()
	// The day goes on with a new key; the old record stays shredded.
	if _, err := l.Append(ctx, payload("0-b", 10)); err != nil {
		t.Fatal(err)
	}
	check()
	e, _ := l.Entry(1)
	if _, err := k.Unseal(e); err != nil {
		t.Error(err)
	}
	os.WriteFile(path, []byte("wardseal1 AAAAAAAA AAAA\n"), 0o600)
	if _, err := k.Unseal(e); !errors.Is(err, ErrCorrupt) {
		t.Errorf("broken key file: %v", err)
	}
	l.Close()
	if rep, err := Verify(dir, k.Verifier()); err != nil || rep.Records != 2 {
		t.Error(rep, err)
	}
}

func TestRefused(t *testing.T) {
	l, _, _ := newLedger(t, Options{})
	ok := payload("0-canary", 1)
	for name, c := range map[string]struct {
		change func(*Record)
		want   error
	}{
		"another kind": {func(r *Record) { r.Kind = "canary" }, ErrInvalid},
		"D2":           {func(r *Record) { r.Durability = D2 }, ErrNoSecond},
		"no class":     {func(r *Record) { r.Durability = D2 + 1 }, ErrNoSecond},
		"no kind":      {func(r *Record) { r.Kind = "" }, ErrInvalid},
		"time":         {func(r *Record) { r.Time = -1 }, ErrInvalid},
		"far":          {func(r *Record) { r.Time = maxTime }, ErrInvalid},
		"array":        {func(r *Record) { r.Clear = []byte(`["canary"]`) }, ErrInvalid},
		"broken":       {func(r *Record) { r.Clear = []byte(`{"canary`) }, ErrInvalid},
		"utf8":         {func(r *Record) { r.Clear = []byte("{\"canary\":\"\xff\"}") }, ErrInvalid},
		"twice":        {func(r *Record) { r.Parts = append(r.Parts, r.Parts[0]) }, ErrInvalid},
		"large part":   {func(r *Record) { r.Parts[0].Plain = make([]byte, MaxBody*3/4) }, ErrTooLarge},
		"large clear":  {func(r *Record) { r.Clear = []byte(`{"canary":"` + strings.Repeat("x", MaxBody) + `"}`) }, ErrTooLarge},
		"large tenant": {func(r *Record) { r.Parts[0].Tenant = strings.Repeat("canary", MaxBody) }, ErrTooLarge},
	} {
		r := ok
		r.Parts = append([]Part(nil), ok.Parts...)
		c.change(&r)
		if _, err := l.Append(ctx, r); !errors.Is(err, c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.Err() != nil || l.Size() != 0 {
		t.Errorf("a bad record did something: %v, %d", l.Err(), l.Size())
	}
	// The largest that fits, to the byte, and one byte more.
	r := ok
	r.Clear = []byte(`{"x":""}`)
	b, err := l.keys.encode(r)
	if err != nil {
		t.Fatal(err)
	}
	for more, want := range map[int]error{0: nil, 1: ErrTooLarge} {
		r.Clear = []byte(`{"x":"` + strings.Repeat("x", MaxBody-len(b)+more) + `"}`)
		if _, err := l.Append(ctx, r); !errors.Is(err, want) || l.Err() != nil {
			t.Errorf("%d bytes beyond the limit: %v, %v", more, err, l.Err())
		}
	}
	if e, err := l.Entry(0); err != nil || len(e.Body) != MaxBody || l.Size() != 1 {
		t.Errorf("%d records, the largest has %d bytes: %v", l.Size(), len(e.Body), err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := l.Append(done, ok); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Append(ctx, ok); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := l.Files(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestBusy holds the writer at a sync: the queue fills, a context ends, Close
// drains.
func TestBusy(t *testing.T) {
	m := memLedgerFS(t)
	l, _, err := Open(memLedger, memOpenKeys(t, m), Options{MaxQueue: 3})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 2, 1) // the seal keys and the segment are there
	held, release := make(chan bool), make(chan bool)
	var once sync.Once
	m.before = func(op, name string) error {
		if op == "write" {
			once.Do(func() { held <- true; <-release })
		}
		return nil
	}
	errs := make(chan error, 4)
	add := func(c context.Context) {
		go func() {
			_, err := l.Append(c, Record{Kind: Decision, Time: testTime})
			errs <- err
		}()
	}
	waiting := func(n int) {
		for {
			l.mu.Lock()
			have := len(l.queue)
			l.mu.Unlock()
			if have == n {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	add(ctx)
	<-held
	short, cancel := context.WithCancel(ctx)
	add(short)
	waiting(1)
	add(ctx)
	waiting(2)
	if _, err := l.Append(ctx, Record{Kind: Decision, Time: testTime}); !errors.Is(err, ErrBusy) {
		t.Errorf("beside the one that is being written, third in the queue: %v", err)
	}
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	go func() { time.Sleep(10 * time.Millisecond); release <- true }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Errorf("queued before close: %v", err)
		}
	}
	if l.Size() != 4 {
		t.Errorf("size %d", l.Size())
	}
}

func TestGroupCommit(t *testing.T) {
	smallSegments(t, 100)
	l, k, dir := newLedger(t, Options{CheckpointEvery: time.Millisecond})
	got := &acks{m: map[uint64]string{}}
	stop := make(chan bool)
	var readers, wg sync.WaitGroup
	for range 2 { // beside the writer, offline and live
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := Verify(dir, k.Verifier(), l.Checkpoint()); err != nil {
					t.Error(err)
					return
				}
				n, size := uint64(0), l.Size()
				for e, err := range l.Scan(0) {
					if err != nil || e.Seq != n {
						t.Error(e.Seq, n, err)
						return
					}
					n++
				}
				if n < size {
					t.Errorf("scan gave %d of %d", n, size)
				}
			}
		})
	}
	for g := range 64 {
		wg.Go(func() {
			for i := range 20 {
				r := payload(fmt.Sprintf("%d-%d", g, i), 300)
				seq, err := l.Append(ctx, r)
				if err == nil {
					err = got.add(seq, string(r.Parts[0].Plain))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	for seq := range uint64(64 * 20) {
		if got.m[seq] == "" {
			t.Fatalf("%s is missing", ID(seq))
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := checkAckedOn(dir, k, got.m); err != nil {
		t.Error(err)
	}
}

func checkAckedOn(dir string, k *Keys, acked map[uint64]string) error {
	r, err := OpenReader(dir, k.Verifier())
	if err != nil {
		return err
	}
	seen := 0
	for e, err := range r.From(0) {
		if err != nil {
			return err
		}
		if want, ok := acked[e.Seq]; ok {
			seen++
			if parts, err := k.Unseal(e); err != nil || string(parts[0].Plain) != want {
				return fmt.Errorf("%s: %v", e.ID(), err)
			}
		}
	}
	if seen != len(acked) {
		return fmt.Errorf("%d of %d", seen, len(acked))
	}
	_, err = Verify(dir, k.Verifier())
	return err
}

func TestReopen(t *testing.T) {
	smallSegments(t, 4)
	l, k, dir := newLedger(t, Options{})
	var anchors [][]byte
	for round := range 9 {
		appendN(t, l, round%4, 50)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if rep, err := Verify(dir, k.Verifier()); err != nil || rep.Tail != 0 || rep.Records != l.Size() || rep.Anchored {
			t.Fatal(rep, err)
		}
		anchors = append(anchors, l.Checkpoint())
		size := l.Size()
		var rec Recovery
		var err error
		if l, rec, err = Open(dir, k, Options{}); err != nil || rec != (Recovery{Records: size}) {
			t.Fatal(rec, err)
		}
	}
	l.Close()
	for _, a := range anchors {
		rep, err := Verify(dir, k.Verifier(), a)
		if err != nil || rep.Anchored != (rep.AnchorSize > 0) {
			t.Error(rep, err)
		}
	}
}

func TestCheckpointPace(t *testing.T) {
	l, _, _ := newLedger(t, Options{CheckpointEvery: 50 * time.Millisecond})
	appendN(t, l, 20, 10)
	for start := time.Now(); l.signed.Load().size != 20; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("an idle ledger is not signed")
		}
	}
}

func TestTree(t *testing.T) {
	var hashes []tlog.Hash
	read := tlog.HashReaderFunc(func(is []int64) (out []tlog.Hash, _ error) {
		for _, i := range is {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	var tr tree
	for n := range int64(300) {
		if want, err := tlog.TreeHash(n, read); err != nil || want != tr.root() {
			t.Fatal(n, err)
		}
		data := fmt.Append(nil, n)
		stored, err := tlog.StoredHashes(n, data, read)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, stored...)
		tr.push(tlog.RecordHash(data))
	}
}

func TestFiles(t *testing.T) {
	smallSegments(t, 8)
	l, k, _ := newLedger(t, Options{CheckpointEvery: time.Hour})
	for _, n := range []int{0, 5, 3, 10} {
		appendN(t, l, n, 20)
		dir := filepath.Join(t.TempDir(), "copy")
		os.Mkdir(dir, 0o700)
		stop := make(chan bool)
		var wg sync.WaitGroup
		wg.Go(func() { // the ledger goes on
			for {
				select {
				case <-stop:
					return
				default:
					l.Append(ctx, payload("1-x", 5))
				}
			}
		})
		files, err := l.Files()
		for _, f := range files {
			raw, rerr := os.ReadFile(f.Path)
			if f.Size == math.MaxInt64 {
				f.Size = int64(len(raw))
			}
			err = errors.Join(err, rerr, os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), raw[:f.Size], 0o600))
		}
		close(stop)
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		rep, err := Verify(dir, k.Verifier())
		if err != nil || rep.Tail != 0 || rep.Records != rep.CheckpointSize || rep.Records < uint64(n) {
			t.Errorf("%+v, %v", rep, err)
		}
		if _, err := Verify(dir, k.Verifier(), l.Checkpoint()); l.signed.Load().size > rep.Records && !errors.Is(err, ErrCorrupt) {
			t.Errorf("a copy older than its anchor: %v", err)
		}
	}
}

func TestID(t *testing.T) {
	for _, seq := range []uint64{0, 1042, math.MaxUint64} {
		if got, err := ParseID(ID(seq)); err != nil || got != seq {
			t.Error(seq, got, err)
		}
	}
	for _, bad := range []string{"", "a-", "1042", "a-01", "a-+1", "A-1", "a-1 ", "a-18446744073709551616", "b-1"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestKill kills a process that appends, and finds all that it had printed.
func TestKill(t *testing.T) {
	if dir := os.Getenv("WARD_KILL_DIR"); dir != "" {
		killed(dir)
	}
	l, k, dir := newLedger(t, Options{})
	l.Close()
	rounds := 4
	if campaign() {
		rounds = 100
	}
	got := &acks{m: map[uint64]string{}}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "WARD_KILL_DIR="+dir, fmt.Sprintf("WARD_KILL_ROUND=%d", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(100+17*round)*time.Millisecond, func() { cmd.Process.Kill() })
		raw, _ := io.ReadAll(out)
		cmd.Wait()
		lines := strings.Split(string(raw), "\n")
		for _, line := range lines[:len(lines)-1] { // the last one may be cut
			var seq uint64
			var plain string
			if _, err := fmt.Sscan(line, &seq, &plain); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if err := got.add(seq, plain); err != nil {
				t.Error(err)
			}
		}
		l, _, err := Open(dir, k, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(got.m) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	if err := checkAckedOn(dir, k, got.m); err != nil {
		t.Error(err)
	}
	t.Logf("%d rounds, %d acknowledged, 0 missing", rounds, len(got.m))
}

func killed(dir string) {
	k, err := OpenKeys(filepath.Join(filepath.Dir(dir), "keys"))
	if err != nil {
		panic(err)
	}
	l, _, err := Open(dir, k, Options{CheckpointEvery: 5 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	for g := range 16 {
		go func() {
			for i := 0; ; i++ {
				r := payload(fmt.Sprintf("%d-%d-%s", g, i, os.Getenv("WARD_KILL_ROUND")), 200)
				seq, err := l.Append(ctx, r)
				if err != nil {
					panic(err)
				}
				fmt.Printf("%d %s\n", seq, r.Parts[0].Plain)
			}
		}()
	}
	select {}
}

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 3, []byte("{}")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, body, ok := parseFrame(b)
		if !ok {
			return
		}
		if again := appendFrame(nil, batch, body); !bytes.HasPrefix(b, again) {
			t.Errorf("%x is not the frame of what it holds", b)
		}
	})
}

func FuzzRecord(f *testing.F) {
	m := newMemFS()
	if err := createKeys(m, memKeys, "x"); err != nil {
		f.Fatal(err)
	}
	k, err := openKeys(m, memKeys)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := k.encode(payload("0-a", 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"v":1,"kind":"change","time":0,"clear":{},"sealed":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(7, b)
		if err != nil {
			return
		}
		again, err := Decode(7, e.Body)
		if err != nil || !reflect.DeepEqual(e, again) || !bytes.Equal(e.Body, b) {
			t.Errorf("%s: %v", b, err)
		}
		k.Unseal(e)
	})
}

func FuzzCheckpoint(f *testing.F) {
	m := newMemFS()
	if err := createKeys(m, memKeys, "x"); err != nil {
		f.Fatal(err)
	}
	k, _ := openKeys(m, memKeys)
	v, _ := openVerifiers(k.Verifier())
	cp, _ := k.sign(&tree{})
	f.Add(cp.entry("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &memFile{m, checkpointsFile, &memNode{data: b}}
		if got, end, err := lastCheckpoint(m, v); err == nil && !bytes.Equal(b[end-int64(entrySize("x")):end], got.entry("x")) {
			t.Errorf("%q", b)
		}
	})
}

// BenchmarkAppend measures, in one run, records per second and how long one takes
// at 1 to 256 callers: with group commit on a disk, with one sync for each record
// there, and with nothing below (a disk in memory, where a sync costs nothing).
func BenchmarkAppend(b *testing.B) {
	disk := func(b *testing.B) *Ledger {
		l, _, _ := newLedger(b, Options{})
		return l
	}
	for _, way := range []struct {
		name string
		open func(*testing.B) *Ledger
		one  bool // at a time
	}{
		{"group", disk, false},
		{"sync-each", disk, true},
		{"no-disk", func(b *testing.B) *Ledger {
			l, _, err := Open(memLedger, memOpenKeys(b, memNothing{memLedgerFS(b)}), Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { l.Close() })
			return l
		}, false},
	} {
		for _, callers := range []int{1, 8, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", way.name, callers), func(b *testing.B) {
				l := way.open(b)
				r := payload("0-bench", 300)
				if _, err := l.Append(ctx, r); err != nil {
					b.Fatal(err)
				}
				var alone sync.Mutex
				var next atomic.Int64
				took := make([]time.Duration, b.N)
				var wg sync.WaitGroup
				b.ResetTimer()
				for range callers {
					wg.Go(func() {
						for {
							n := int(next.Add(1)) - 1
							if n >= b.N {
								return
							}
							start := time.Now()
							if way.one {
								alone.Lock()
							}
							_, err := l.Append(ctx, r)
							if way.one {
								alone.Unlock()
							}
							if err != nil {
								b.Error(err)
								return
							}
							took[n] = time.Since(start)
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				slices.Sort(took)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
				b.ReportMetric(float64(took[b.N/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[b.N*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// memNothing keeps what is written and does nothing at a sync.
type memNothing struct{ *memFS }

func (m memNothing) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := m.memFS.OpenFile(name, flag, perm)
	if err != nil || !strings.Contains(name, "/0000") {
		return f, err
	}
	return memNothingFile{f}, nil
}

type memNothingFile struct{ file }

func (memNothingFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (memNothingFile) Sync() error                            { return nil }

// benchLedger is a closed ledger on the disk, of records like a decision's.
func benchLedger(b *testing.B, n int) (dir string, k *Keys, l *Ledger) {
	l, k, dir = newLedger(b, Options{})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range n / 64 {
				if _, err := l.Append(ctx, payload("0-bench", 280)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, k, l
}

// BenchmarkVerify is on one core.
func BenchmarkVerify(b *testing.B) {
	const n = 1 << 17 // two segments
	dir, k, l := benchLedger(b, n)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for b.Loop() {
		if rep, err := Verify(dir, k.Verifier(), l.Checkpoint()); err != nil || rep.Records != n {
			b.Fatal(rep, err)
		}
	}
	e, err := l.Entry(n - 1)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(len(e.Body)+headerSize), "bytes/record")
}

// BenchmarkProve is from the files, BenchmarkConsistency the writer's own.
func BenchmarkProve(b *testing.B) {
	const n = 1 << 17
	dir, k, l := benchLedger(b, n)
	r, err := OpenReader(dir, k.Verifier())
	if err != nil {
		b.Fatal(err)
	}
	var proof []byte
	for b.Loop() {
		if proof, err = r.Prove(n/3, nil); err != nil {
			b.Fatal(err)
		}
	}
	e, err := l.Entry(n / 3)
	if err != nil {
		b.Fatal(err)
	}
	start, rounds := time.Now(), 1000
	for range rounds {
		if _, _, err := CheckProof(proof, e.Body, k.Verifier()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(proof)), "bytes/proof")
	b.ReportMetric(float64(time.Since(start).Microseconds())/float64(rounds), "µs/check")
}

func BenchmarkConsistency(b *testing.B) {
	const n = 1<<17 + 1<<12
	_, _, l := benchLedger(b, n)
	var c Consistency
	for b.Loop() {
		var err error
		if c, err = l.Consistency(n - 5000); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(c.Text())), "bytes/proof")
}
