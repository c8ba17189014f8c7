package witness

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ward-authz/ward/pdp/audit"
)

var ctx = context.Background()

// node is a ledger with its keys, on the disk.
type node struct {
	t      testing.TB
	dir    string
	keys   *audit.Keys
	ledger *audit.Ledger
}

func newNode(t testing.TB, name string) *node {
	t.Helper()
	dir := t.TempDir()
	if err := audit.CreateKeys(filepath.Join(dir, "keys"), name); err != nil {
		t.Fatal(err)
	}
	keys, err := audit.OpenKeys(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.Create(filepath.Join(dir, "ledger"), keys); err != nil {
		t.Fatal(err)
	}
	return &node{t: t, dir: dir}
}

func (n *node) open() *node {
	n.t.Helper()
	keys, err := audit.OpenKeys(filepath.Join(n.dir, "keys"))
	if err != nil {
		n.t.Fatal(err)
	}
	l, _, err := audit.Open(filepath.Join(n.dir, "ledger"), keys, audit.Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		n.t.Fatal(err)
	}
	n.keys, n.ledger = keys, l
	n.t.Cleanup(func() { l.Close() })
	return n
}

// write appends records and waits for a checkpoint that covers them.
func (n *node) write(records int) {
	n.t.Helper()
	for range records {
		r := audit.Record{Kind: audit.Decision, Time: 1767225600000, Clear: json.RawMessage(fmt.Sprintf(`{"n":%d}`, rand.Uint64()))}
		if _, err := n.ledger.Append(ctx, r); err != nil {
			n.t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); n.at().Size < n.ledger.Size(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatal("no checkpoint")
		}
	}
}

func (n *node) at() audit.Checkpoint {
	n.t.Helper()
	cp, err := audit.OpenCheckpoint(n.ledger.Checkpoint(), n.keys.Verifier())
	if err != nil {
		n.t.Fatal(err)
	}
	return cp
}

// clone is a copy of a closed node, signing key included.
func (n *node) clone() *node {
	n.t.Helper()
	n.ledger.Close()
	dir := n.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(n.dir)); err != nil {
		n.t.Fatal(err)
	}
	return &node{t: n.t, dir: dir}
}

func (n *node) client(url, key string) *Client {
	n.t.Helper()
	v, err := ParseVerifier(key)
	if err != nil {
		n.t.Fatal(err)
	}
	c, err := NewClient(url, v, n.ledger, n.keys.Verifier, filepath.Join(n.dir, "ledger"), quiet)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

var quiet = slog.New(slog.DiscardHandler)

// newWitness makes a witness that watches nodes.
func newWitness(t testing.TB, nodes ...*node) (dir, key string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "witness")
	key, err := Create(dir, "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if err := Watch(dir, n.keys.Verifier()+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	return dir, key
}

func openWitness(t testing.TB, dir string) *Witness {
	t.Helper()
	if before := opened[dir]; before != nil {
		before.Close()
	}
	w, err := Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	opened[dir] = w
	t.Cleanup(func() { delete(opened, dir); w.Close() })
	return w
}

var opened = map[string]*Witness{} // by folder, which one process serves

func serve(t testing.TB, dir string) (url string) {
	t.Helper()
	s := httptest.NewServer(openWitness(t, dir))
	t.Cleanup(s.Close)
	return s.URL
}

func TestWitness(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	dir, key := newWitness(t, n)
	url := serve(t, dir)
	c := n.client(url+"/", key)
	v, _ := ParseVerifier(key)
	file := filepath.Join(n.dir, "ledger", v.File())

	for round := range 5 {
		before := time.Now().Truncate(time.Second)
		if err := c.Submit(ctx); err != nil {
			t.Fatal(round, err)
		}
		st := c.Status()
		if st.Size != n.at().Size || st.Seen.Before(before) || st.Seen.After(time.Now()) || st.Error != "" || st.Witness != "witness.example/w1" {
			t.Fatalf("%+v", st)
		}
		msg, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if at, err := v.Seen(msg); err != nil || !at.Equal(st.Seen) {
			t.Fatal(at, err)
		}
		if cp, err := audit.OpenCheckpoint(msg, n.keys.Verifier()); err != nil || cp != n.at() {
			t.Fatal(cp, err)
		}
		if rep, err := audit.Verify(filepath.Join(n.dir, "ledger"), n.keys.Verifier(), msg); err != nil || rep.AnchorSize != n.at().Size {
			t.Fatal(rep, err)
		}
		// Everybody may have it.
		res, err := http.Get(url + "/" + fileOf("ward.example/audit/a") + "/checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || !bytes.Equal(got, msg) {
			t.Fatalf("%d %s", res.StatusCode, got)
		}
		if round != 2 { // once nothing is new
			n.write(1 + round*round)
		}
	}
	// It goes on from where it was, in a new process on either side.
	url = serve(t, dir)
	if c = n.client(url, key); c.Status().Size == 0 {
		t.Error("the client has forgotten")
	}
	n.write(3)
	if err := c.Submit(ctx); err != nil {
		t.Error(err)
	}
	// A client that has forgotten asks from zero, and is told.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	n.write(3)
	if c = n.client(url, key); c.Submit(ctx) != nil || c.Status().Size != n.at().Size {
		t.Errorf("%+v", c.Status())
	}
	// One that finds another file there does not start.
	if err := os.WriteFile(file, n.ledger.Checkpoint(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(url, v, n.ledger, n.keys.Verifier, filepath.Join(n.dir, "ledger"), quiet); !errors.Is(err, ErrNotCosigned) {
		t.Error(err)
	}
}

// TestAnswers goes through the protocol's answers.
func TestAnswers(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(5)
	fork := n.clone().open()
	n.open()
	stranger := newNode(t, "ward.example/audit/b").open()
	namesake := newNode(t, "ward.example/audit/a").open()
	stranger.write(2)
	namesake.write(2)
	dir, _ := newWitness(t, n)
	s := httptest.NewServer(openWitness(t, dir))
	defer s.Close()
	request := func(n *node, old uint64) string {
		c, err := n.ledger.Consistency(old)
		if err != nil {
			t.Fatal(err)
		}
		return string(c.Text())
	}
	ask := func(name string, want int, body string) string {
		t.Helper()
		res, err := http.Post(s.URL+"/add-checkpoint", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		if res.StatusCode != want || want == 409 && res.Header.Get("Content-Type") != "text/x.tlog.size" {
			t.Errorf("%s: %d %s %s", name, res.StatusCode, res.Header, answer)
		}
		return string(answer)
	}
	show := func(want int) {
		t.Helper()
		res, err := http.Get(s.URL + "/" + fileOf("ward.example/audit/a") + "/checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("its last checkpoint: %d", res.StatusCode)
		}
	}
	show(404)
	if got := ask("a size it never had", 409, request(n, 3)); got != "0\n" {
		t.Errorf("%q", got)
	}
	five := request(n, 0)
	line := ask("the first", 200, five)
	if !strings.HasPrefix(line, "— witness.example/w1 ") || strings.Count(line, "\n") != 1 {
		t.Errorf("%q", line)
	}
	show(200)
	ask("again, from zero", 409, five)
	same := request(n, 5)
	ask("again", 200, same)
	ask("again, with a proof", 422, strings.Replace(same, "\n\n", "\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n", 1))
	n.write(4)
	fork.write(4)
	if got := ask("from an older size", 409, request(n, 2)); got != "5\n" {
		t.Errorf("%q", got)
	}
	nine := request(n, 5)
	ask("without a line of the proof", 422, cutLine(nine, 1))
	ask("with another first line", 400, "older 5\n"+cutLine(nine, 0))
	ask("an old size above the new one", 400, strings.Replace(same, "old 5", "old 6", 1))
	ask("not signed by the ledger", 403, strings.Replace(nine, "\n9\n", "\n8\n", 1))
	ask("a ledger of the same name", 403, request(namesake, 0))
	ask("a ledger that is not watched", 404, request(stranger, 0))
	ask("empty", 400, "")
	ask("too long", 400, same+strings.Repeat("— "+strings.Repeat("x", 200)+" AAAAAAAA\n", 90))
	ask("64 hashes", 400, strings.Replace(same, "\n\n", "\n"+strings.Repeat("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 64)+"\n", 1))
	ask("the next", 200, nine)
	ask("a fork, as if it continued", 422, "old 9\n\n"+request(fork, 5)[strings.Index(request(fork, 5), "\n\n")+2:])
	fork.write(3)
	ask("a longer fork", 422, request(fork, 9))
	if _, err := http.Get(s.URL + "/add-checkpoint"); err != nil {
		t.Fatal(err)
	}
}

func cutLine(s string, i int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(append(lines[:i:i], lines[i+1:]...), "")
}

// TestInsider is who holds the node's key and its disk: whatever he does to the
// ledger, the witness has seen, and the client says so.
func TestInsider(t *testing.T) {
	setup := func() (n, copyOf *node, url, key string) {
		n = newNode(t, "ward.example/audit/a").open()
		n.write(6)
		copyOf = n.clone() // at 6
		n.open().write(4)
		dir, key := newWitness(t, n)
		url = serve(t, dir)
		if err := n.client(url, key).Submit(ctx); err != nil {
			t.Fatal(err)
		}
		n.ledger.Close()
		return n, copyOf, url, key
	}
	diverged := func(name string, c *Client) {
		t.Helper()
		if err := c.Submit(ctx); !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: %v", name, err)
		}
		if st := c.Status(); !st.Diverged || st.Error == "" {
			t.Errorf("%s: %+v", name, st)
		}
	}
	_, old, url, key := setup()
	diverged("cut back", old.open().client(url, key))
	old.write(4)
	diverged("rewritten to the same length", old.client(url, key))
	old.write(5)
	diverged("rewritten, and longer", old.client(url, key))

	n, other, url, key := setup()
	other.open().write(20)
	diverged("a diverged clone", other.client(url, key))
	n.open().write(1)
	if err := n.client(url, key).Submit(ctx); err != nil {
		t.Errorf("the true one after it: %v", err)
	}

	_, _, url, key = setup()
	namesake := newNode(t, "ward.example/audit/a").open()
	namesake.write(3)
	c := namesake.client(url, key)
	if err := c.Submit(ctx); err == nil || c.Status().Error != "it answers 403" {
		t.Errorf("another ledger of the same name: %v", err)
	}
}

// TestClientOutage: a witness that is away, or answers anything else, is an
// error that names nothing else, and passes.
func TestClientOutage(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(2)
	dir, key := newWitness(t, n)
	w := openWitness(t, dir)
	var answer atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	itself := func(http.ResponseWriter, *http.Request) bool { return false }
	answer.Store(&itself)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !(*answer.Load())(rw, r) {
			w.ServeHTTP(rw, r)
		}
	}))
	defer s.Close()
	c := n.client(s.URL, key)
	for want, f := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"it answers 503":     func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(503); return true },
		"it does not answer": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"its answer is not one": func(rw http.ResponseWriter, _ *http.Request) bool {
			rw.WriteHeader(409)
			_, _ = io.WriteString(rw, "x")
			return true
		},
		"it has no one last size": func(rw http.ResponseWriter, _ *http.Request) bool {
			rw.WriteHeader(409)
			_, _ = io.WriteString(rw, "1\n")
			return true
		},
		"not cosigned by the witness": func(rw http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(rw, "— witness.example/w1 AAAA\n")
			return true
		},
	} {
		answer.Store(&f)
		if err := c.Submit(ctx); err == nil || c.Status().Error != want || c.Status().Diverged || c.Status().Size != 0 {
			t.Errorf("%s: %v, %+v", want, err, c.Status())
		}
	}
	answer.Store(&itself)
	if err := c.Submit(ctx); err != nil || c.Status().Error != "" {
		t.Errorf("%v, %+v", err, c.Status())
	}
	var logged bytes.Buffer
	c.log = slog.New(slog.NewTextHandler(&logged, nil))
	running, stop := context.WithCancel(ctx)
	done := make(chan bool)
	n.write(1)
	go func() { defer close(done); c.Run(running, time.Millisecond) }()
	for end := time.Now().Add(10 * time.Second); c.Status().Size < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not submit")
		}
	}
	stop()
	<-done
	if logged.Len() > 0 {
		t.Errorf("%s", logged.String())
	}
}

// TestNeverTwo drives a witness through failing disks and restarts, with a
// ledger and its forks at its door: of all that it ever cosigned, and of all
// that a disk may hold after, no two contradict each other.
func TestNeverTwo(t *testing.T) {
	rounds := 20
	if os.Getenv("WARD_CAMPAIGN") != "" {
		rounds = 3000
	}
	origin := newNode(t, "ward.example/audit/a").open()
	origin.write(3)
	nodes := []*node{origin}
	for range 3 {
		nodes = append(nodes, nodes[0].clone())
	}
	for _, n := range nodes {
		n.open()
	}
	crashes, cosigned := 0, 0
	for round := range rounds {
		r := rand.New(rand.NewPCG(uint64(round), 7))
		dir, key := newWitness(t, nodes[0])
		v, _ := ParseVerifier(key)
		disk := &disk{r: r, files: map[string]*versions{}}
		var all [][]byte // cosigned
		w := disk.open(t, dir)
		for range 30 {
			n := nodes[r.IntN(len(nodes))]
			if r.IntN(8) == 0 {
				n.write(1)
			}
			// The proof from the size that the witness says it has, or from any.
			old := r.Uint64N(n.at().Size + 1)
			if l := w.known[fileOf("ward.example/audit/a")]; r.IntN(3) > 0 && l.at.Size <= n.at().Size {
				old = l.at.Size
			}
			c, err := n.ledger.Consistency(old)
			if err != nil {
				t.Fatal(err)
			}
			if status, line := w.submit(c.Text()); status == 200 {
				cosigned++
				all = append(all, append(bytes.Clone(c.Checkpoint), line...))
			}
			if r.IntN(6) == 0 {
				crashes++
				disk.crash(t)
				w = disk.open(t, dir)
				// What it shows is out as well.
				if l := w.known[fileOf("ward.example/audit/a")]; string(l.last) != never {
					all = append(all, bytes.Clone(l.last))
				}
			}
		}
		consistent(t, round, v, nodes, all)
	}
	t.Logf("%d cosignatures, %d crashes", cosigned, crashes)
}

// consistent fails unless one node's history holds all the checkpoints.
func consistent(t *testing.T, round int, v Verifier, nodes []*node, all [][]byte) {
	t.Helper()
	var last audit.Checkpoint
	for i, msg := range all {
		if _, err := v.Seen(msg); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		cp, err := audit.OpenCheckpoint(msg, nodes[0].keys.Verifier())
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			held := false
			for _, n := range nodes {
				if cp.Size > n.at().Size || last.Size > cp.Size {
					continue
				}
				r, err := audit.OpenReader(filepath.Join(n.dir, "ledger"), n.keys.Verifier())
				if err != nil {
					t.Fatal(err)
				}
				_, err = r.Consistency(all[i-1], msg)
				held = held || err == nil
			}
			if !held {
				t.Fatalf("round %d: it cosigned %d and then a contradicting %d", round, last.Size, cp.Size)
			}
		}
		last = cp
	}
}

// disk keeps a witness's files as a disk does: what was not synced, or not
// reported as such, may be there after a crash or not.
type disk struct {
	r     *rand.Rand
	files map[string]*versions
	bug   bool // acknowledges before it is durable
}

type versions struct {
	durable []byte
	newer   [][]byte
}

func (d *disk) keep(path string, content []byte) error {
	f := d.files[path]
	if f == nil {
		f = &versions{}
		d.files[path] = f
	}
	switch k := d.r.IntN(8); {
	case k == 0: // failed before anything
		return errors.New("no space")
	case k == 1, d.bug: // the new name is there, and not durable
		f.newer = append(f.newer, bytes.Clone(content))
		if d.bug {
			return replace(path, content)
		}
		return errors.Join(replace(path, content), errors.New("sync"))
	}
	*f = versions{durable: bytes.Clone(content)}
	return replace(path, content)
}

// crash leaves one of the states that the disk may have.
func (d *disk) crash(t *testing.T) {
	t.Helper()
	for path, f := range d.files {
		states := append([][]byte{f.durable}, f.newer...)
		if d.r.IntN(2) == 0 {
			states = states[len(states)-1:] // the process died, and nothing else
		}
		state := states[d.r.IntN(len(states))]
		if state == nil {
			continue
		}
		if err := replace(path, state); err != nil {
			t.Fatal(err)
		}
	}
}

// open starts a witness, as often as it takes.
func (d *disk) open(t *testing.T, dir string) *Witness {
	t.Helper()
	for {
		if w, err := open(dir, quiet, d.keep); err == nil {
			return w
		}
	}
}

// TestFails: after a write that failed nothing is cosigned, until the witness is
// opened again.
func TestFails(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(2)
	dir, _ := newWitness(t, n)
	fails := false
	w, err := open(dir, quiet, func(path string, content []byte) error {
		if fails {
			return errors.New("no space")
		}
		return replace(path, content)
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.ledger.Consistency(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fails = range []bool{true, false} {
		if status, answer := w.submit(c.Text()); status != 500 || strings.Contains(string(answer), "—") {
			t.Errorf("%d %s", status, answer)
		}
	}
	if status, _ := openWitness(t, dir).submit(c.Text()); status != 200 {
		t.Errorf("opened again: %d", status)
	}
	// What an earlier run left may be readable and not durable: before it is
	// shown, it is made so.
	file := filepath.Join(dir, fileOf("ward.example/audit/a"))
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{}
	if _, err := open(dir, quiet, func(path string, content []byte) error { kept[path] = string(content); return nil }); err != nil || kept[file] != string(want) {
		t.Errorf("%v, %v", kept, err)
	}
	if _, err := open(dir, quiet, func(string, []byte) error { return errors.New("no space") }); err == nil {
		t.Error("opened with what may not be durable")
	}
}

// TestForgets: the same harness catches a witness that answers first.
func TestForgets(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(3)
	fork := n.clone().open()
	n.open().write(2)
	fork.write(2)
	for round := uint64(0); round < 100; round++ {
		dir, _ := newWitness(t, n)
		d := &disk{r: rand.New(rand.NewPCG(round, 1)), files: map[string]*versions{}, bug: true}
		d.files[filepath.Join(dir, fileOf("ward.example/audit/a"))] = &versions{durable: []byte(never)}
		w := d.open(t, dir)
		two := 0
		for _, n := range []*node{n, fork} {
			c, _ := n.ledger.Consistency(0)
			if status, _ := w.submit(c.Text()); status == 200 {
				two++
			}
			d.crash(t)
			w = d.open(t, dir)
		}
		if two == 2 {
			return
		}
	}
	t.Error("a witness that answers before its disk does was not caught")
}

func TestFolder(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(2)
	dir, key := newWitness(t, n)
	if _, err := Create(dir, "witness.example/w1"); err == nil {
		t.Error("made over another")
	}
	for _, name := range []string{"", "a b", "a+b", "a\n", strings.Repeat("a", 201)} {
		if _, err := Create(filepath.Join(t.TempDir(), "w"), name); err == nil {
			t.Errorf("name %q", name)
		}
	}
	for _, bad := range []string{"x", "a+b+c", key} {
		if err := Watch(dir, bad); !errors.Is(err, audit.ErrVerifier) {
			t.Errorf("watches %q: %v", bad, err)
		}
	}
	if err := Watch(dir, n.keys.Verifier()); err != nil { // twice is once
		t.Error(err)
	}
	lines, _ := readLines(filepath.Join(dir, ledgersFile))
	if len(lines) != 1 || lines[0] != n.keys.Verifier() {
		t.Errorf("%q", lines)
	}
	if text, err := os.ReadFile(filepath.Join(dir, verifierFile)); err != nil || string(text) != key+"\n" {
		t.Errorf("%s, %v", text, err)
	}
	w := openWitness(t, dir)
	c, _ := n.ledger.Consistency(0)
	if status, _ := w.submit(c.Text()); status != 200 {
		t.Fatal(status)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if status, _ := w.submit(c.Text()); status != 500 {
		t.Errorf("closed: %d", status)
	}
	// What it lost is not what it never saw, and watching again does not make it so.
	file := filepath.Join(dir, fileOf("ward.example/audit/a"))
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := Watch(dir, n.keys.Verifier()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet); err == nil {
		t.Error("opened without a ledger's file")
	}
	for _, bad := range [][]byte{nil, good[:len(good)/2], c.Checkpoint, bytes.Replace(good, []byte("w1 "), []byte("w2 "), 1)} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, quiet); err == nil {
			t.Errorf("opened with %q", bad)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	w = openWitness(t, dir)
	if got := w.known[fileOf("ward.example/audit/a")].at; got != n.at() {
		t.Errorf("%+v", got)
	}
	w.Close()
	for _, name := range []string{keyFile, ledgersFile} {
		path := filepath.Join(dir, name)
		text, _ := os.ReadFile(path)
		_ = os.Remove(path)
		if _, err := Open(dir, quiet); err == nil {
			t.Errorf("opened without %s", name)
		}
		_ = os.WriteFile(path, append(text[:10:10], text[11:]...), 0o600)
		if _, err := Open(dir, quiet); err == nil {
			t.Errorf("opened with a damaged %s", name)
		} else if strings.Contains(err.Error(), string(text[30:40])) {
			t.Errorf("the error quotes %s", name)
		}
		_ = os.WriteFile(path, text, 0o600)
	}
	openWitness(t, dir)
}

func TestKeys(t *testing.T) {
	s := newSigner("witness.example/w1", bytes.Repeat([]byte{7}, 32))
	v, err := ParseVerifier(s.String())
	if err != nil || v.Name() != "witness.example/w1" || !strings.HasPrefix(v.File(), "cosigned-") || len(v.File()) != len("cosigned-")+8 {
		t.Fatal(v, err)
	}
	if again, err := parseSigner(s.text()); err != nil || again.String() != s.String() {
		t.Error(err)
	}
	for _, bad := range []string{"", "x", s.text(), strings.Replace(s.String(), "w1", "w2", 1), s.String() + "=", s.String()[:40], strings.ToUpper(s.String())} {
		if _, err := ParseVerifier(bad); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	msg := []byte("ward.example/audit/a\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— ward.example/audit/a AAAA\n")
	at := time.Unix(1767225600, 0).UTC()
	note := append(bytes.Clone(msg), s.cosign(msg, at)...)
	if got, err := v.Seen(note); err != nil || !got.Equal(at) {
		t.Error(got, err)
	}
	// The last of several.
	for _, second := range []time.Time{at.Add(-time.Hour), at.Add(time.Hour)} {
		want := at
		if second.After(at) {
			want = second
		}
		if got, err := v.Seen(append(bytes.Clone(note), s.cosign(msg, second)...)); err != nil || !got.Equal(want) {
			t.Error(got, err)
		}
	}
	// A key id that is not the key's.
	wrong := s
	wrong.id[0]++
	if _, err := v.Seen(append(bytes.Clone(msg), wrong.cosign(msg, at)...)); !errors.Is(err, ErrNotCosigned) {
		t.Error(err)
	}
	other := newSigner("witness.example/w1", bytes.Repeat([]byte{8}, 32))
	for _, bad := range [][]byte{nil, msg, append(bytes.Clone(msg), other.cosign(msg, at)...), bytes.Replace(note, []byte("\n1\n"), []byte("\n2\n"), 1), bytes.Replace(note, []byte("w1"), []byte("w2"), 1)} {
		if _, err := v.Seen(bad); !errors.Is(err, ErrNotCosigned) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestVector holds keys and text against what others publish: the key of a
// public witness, and the example of C2SP tlog-cosignature.
func TestVector(t *testing.T) {
	const remora = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
	if v, err := ParseVerifier(remora); err != nil || v.String() != remora || v.File() != "cosigned-da77ade7" {
		t.Error(v, err)
	}
	text := "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
	if got := cosigned(1679315147, []byte(text)); string(got) != "cosignature/v1\ntime 1679315147\n"+text {
		t.Errorf("%s", got)
	}
}

// TestTwoWitnessesOfOneFolder: two processes on one folder cosign no two
// histories.
func TestTwoWitnessesOfOneFolder(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(3)
	fork := n.clone().open()
	n.open().write(2)
	fork.write(2)
	dir, _ := newWitness(t, n)
	one := openWitness(t, dir)
	two, err := Open(dir, quiet)
	if errors.Is(err, audit.ErrLocked) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ok := 0
	for _, c := range []struct {
		w *Witness
		n *node
	}{{one, n}, {two, fork}} {
		p, err := c.n.ledger.Consistency(0)
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := c.w.submit(p.Text()); status == http.StatusOK {
			ok++
		}
	}
	if ok == 2 {
		t.Error("one witness cosigned two histories of one ledger")
	}
}

// TestAWitnessSendsMore: an answer with more in it than a cosignature is not
// kept, so that no witness decides whether the server starts again.
func TestAWitnessSendsMore(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(2)
	dir, key := newWitness(t, n)
	w := openWitness(t, dir)
	more := "what is no signature\n"
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		status, answer := w.submit(body)
		rw.WriteHeader(status)
		_, _ = rw.Write(append(answer, more...))
	}))
	defer s.Close()
	c := n.client(s.URL, key)
	if err := c.Submit(ctx); err == nil {
		t.Error("taken")
	}
	v, _ := ParseVerifier(key)
	if _, err := NewClient(s.URL, v, n.ledger, n.keys.Verifier, filepath.Join(n.dir, "ledger"), quiet); err != nil {
		t.Errorf("the server does not start any more: %v", err)
	}
	more = ""
	if err := c.Submit(ctx); err != nil {
		t.Error(err)
	}
}

// TestATimeOutOfRange: what no calendar can say is no time.
func TestATimeOutOfRange(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(2)
	dir, key := newWitness(t, n)
	w := openWitness(t, dir)
	v, _ := ParseVerifier(key)
	msg := n.ledger.Checkpoint()
	text, _ := splitNote(msg)
	for _, unix := range []uint64{253402300800, 1 << 40, math.MaxInt64, math.MaxUint64} {
		sig := append(binary.BigEndian.AppendUint64(w.id[:4:4], unix), ed25519.Sign(w.private, cosigned(unix, text))...)
		note := fmt.Appendf(msg[:len(msg):len(msg)], "— %s %s\n", w.name, base64.StdEncoding.EncodeToString(sig))
		at, err := v.Seen(note)
		if err != nil {
			continue
		}
		if _, err := json.Marshal(Status{Seen: at}); err != nil {
			t.Errorf("a time of %d breaks the status: %v", unix, err)
		}
	}
}

// TestARetiredKey: once a witness has cosigned a checkpoint of a ledger's next
// key, the one before, which may have been stolen, is not the ledger's any more.
func TestARetiredKey(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(3)
	stolen := n.clone() // with the first key
	n.open()
	dir, _ := newWitness(t, n)
	submit := func(w *Witness, l Ledger, old uint64) int {
		c, err := l.Consistency(old)
		if err != nil {
			t.Fatal(err)
		}
		status, _ := w.submit(c.Text())
		return status
	}
	next, err := n.keys.NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	r := audit.Record{Kind: audit.Change, Time: 1767225600000, Clear: json.RawMessage(fmt.Sprintf(`{"keys":{"op":"rotate","old":%q,"new":%q}}`, n.keys.Verifier(), next))}
	if _, err := n.ledger.Append(ctx, r); err != nil {
		t.Fatal(err)
	}
	if err := n.ledger.Adopt(next); err != nil {
		t.Fatal(err)
	}
	n.write(1)
	if err := Watch(dir, n.keys.Verifier()); err != nil {
		t.Fatal(err)
	}
	w := openWitness(t, dir)
	if got := submit(w, n.ledger, 0); got != 200 {
		t.Fatal(got)
	}
	size := n.at().Size
	// The thief has a copy of the ledger as it is, and the first key.
	n.ledger.Close()
	if err := os.RemoveAll(filepath.Join(stolen.dir, "ledger")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(stolen.dir, "ledger"), os.DirFS(filepath.Join(n.dir, "ledger"))); err != nil {
		t.Fatal(err)
	}
	cps := filepath.Join(stolen.dir, "ledger", "checkpoints")
	text, err := os.ReadFile(cps)
	if err != nil {
		t.Fatal(err)
	}
	// Those of the new key he cuts off.
	keep := ""
	long := 2*len("ward.example/audit/a") + 166 // of an entry, as package audit specifies it
	for i := 0; i+long <= len(text); i += long {
		entry := string(text[i : i+long])
		if _, err := audit.OpenCheckpoint([]byte(strings.TrimRight(entry, "\n")+"\n"), strings.Fields(n.keys.Verifier())[0]); err == nil {
			keep += entry
		}
	}
	if err := os.WriteFile(cps, []byte(keep), 0o600); err != nil {
		t.Fatal(err)
	}
	stolen.open().write(1)
	if got := submit(w, stolen.ledger, size); got == 200 {
		t.Error("the witness cosigns what the retired key signs")
	}
	w = openWitness(t, dir)
	if got := submit(w, stolen.ledger, size); got == 200 {
		t.Error("after a restart the witness cosigns what the retired key signs")
	}
}

// TestTheEndIsWitnessed: what was written since the last time is cosigned before
// the ledger is closed.
func TestTheEndIsWitnessed(t *testing.T) {
	n := newNode(t, "ward.example/audit/a").open()
	n.write(1)
	dir, key := newWitness(t, n)
	c := n.client(serve(t, dir), key)
	running, stop := context.WithCancel(ctx)
	done := make(chan bool)
	go func() { defer close(done); c.Run(running, time.Hour) }()
	for end := time.Now().Add(10 * time.Second); c.Status().Size == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not submit")
		}
	}
	n.write(3)
	stop()
	<-done
	if st := c.Status(); st.Size != n.at().Size {
		t.Errorf("the witness has seen %d of %d records", st.Size, n.at().Size)
	}
}
