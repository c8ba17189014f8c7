package cli

import (
	"bytes"
	"crypto/sha256"
	le "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/adapters/witness"
	"github.com/ward-authz/ward/pdp/audit"
)

// witnessing is a witness process of the real binary.
type witnessing struct {
	t        testing.TB
	dir, key string
	url      string
	cmd      *exec.Cmd
}

func newWitnessing(t testing.TB) *witnessing {
	t.Helper()
	w := &witnessing{t: t, dir: filepath.Join(t.TempDir(), "witness")}
	var out bytes.Buffer
	if code := Main([]string{"witness", "init", "witness.example/w1", "--dir", w.dir}, nil, &out, &out); code != 0 {
		t.Fatal(out.String())
	}
	w.key = strings.TrimSpace(out.String())
	return w
}

func (w *witnessing) watch(verifier string) {
	w.t.Helper()
	var out bytes.Buffer
	if code := Main([]string{"witness", "watch", verifier, "--dir", w.dir}, nil, &out, &out); code != 0 {
		w.t.Fatal(out.String())
	}
}

// start serves at an address, a free one for "127.0.0.1:0".
func (w *witnessing) start(address string) {
	w.t.Helper()
	w.cmd = exec.Command(binary(w.t), "witness", "serve", "--dir", w.dir, "--listen", address)
	pipe, err := w.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	var line struct{ Address string }
	if err := json.NewDecoder(pipe).Decode(&line); err != nil {
		w.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, pipe) }()
	w.url = "http://" + line.Address
}

// kill ends it without a word.
func (w *witnessing) kill() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// last fetches the last cosigned checkpoint of a ledger into a file.
func (w *witnessing) last(verifier, file string) {
	w.t.Helper()
	name, _, _ := strings.Cut(verifier, "+")
	res, err := http.Get(fmt.Sprintf("%s/%x/checkpoint", w.url, sha256.Sum256([]byte(name))))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 {
		w.t.Fatalf("%d %s", res.StatusCode, body)
	}
	if err := os.WriteFile(file, body, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (i *install) verifier() string {
	i.t.Helper()
	text, err := os.ReadFile(filepath.Join(i.dir, "keys", "verifier"))
	if err != nil {
		i.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (i *install) ledger() string { return filepath.Join(i.dir, "data", "ledger") }

// submit has the witness cosign what the ledger is now, as the server does.
func (i *install) submit(w *witnessing) error {
	i.t.Helper()
	keys, err := audit.OpenKeys(filepath.Join(i.dir, "keys"))
	if err != nil {
		i.t.Fatal(err)
	}
	l, _, err := audit.Open(i.ledger(), keys, audit.Options{})
	if err != nil {
		i.t.Fatal(err)
	}
	defer l.Close()
	key, err := witness.ParseVerifier(w.key)
	if err != nil {
		i.t.Fatal(err)
	}
	c, err := witness.NewClient(w.url, key, l, keys.Verifier, i.t.TempDir(), nil)
	if err != nil {
		i.t.Fatal(err)
	}
	return c.Submit(i.t.Context())
}

// clone is a copy of everything that the node has, keys included.
func (i *install) clone() *install {
	i.t.Helper()
	dir, err := os.MkdirTemp("", "ward-")
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.CopyFS(dir, os.DirFS(i.dir)); err != nil {
		i.t.Fatal(err)
	}
	return &install{i.t, dir, filepath.Join(dir, "ward.yaml")}
}

// asks puts a question, which leaves a record.
func (i *install) asks(resource string) {
	i.t.Helper()
	i.run(0, "", "can", "user:alice", "read", "record:"+resource)
}

// rewrite makes the ledger anew with the node's own key: the same records but
// for what change does to them, every hash and every checkpoint as it should be.
func (i *install) rewrite(change func(seq uint64, r *audit.Record) (keep bool)) {
	i.t.Helper()
	keys, err := audit.OpenKeys(filepath.Join(i.dir, "keys"))
	if err != nil {
		i.t.Fatal(err)
	}
	reader, err := audit.OpenReader(i.ledger(), keys.Verifier())
	if err != nil {
		i.t.Fatal(err)
	}
	dir := filepath.Join(i.dir, "data", "forged")
	if err := audit.Create(dir, keys); err != nil {
		i.t.Fatal(err)
	}
	l, _, err := audit.Open(dir, keys, audit.Options{CheckpointEvery: time.Nanosecond})
	if err != nil {
		i.t.Fatal(err)
	}
	for e, err := range reader.From(0) {
		if err != nil {
			i.t.Fatal(err)
		}
		parts, err := keys.Unseal(e)
		if err != nil {
			i.t.Fatal(err)
		}
		r := audit.Record{Kind: e.Kind, Time: e.Time, Clear: e.Clear, Parts: parts}
		if change(e.Seq, &r) {
			if _, err := l.Append(i.t.Context(), r); err != nil {
				i.t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		i.t.Fatal(err)
	}
	if err := os.RemoveAll(i.ledger()); err != nil {
		i.t.Fatal(err)
	}
	if err := os.Rename(dir, i.ledger()); err != nil {
		i.t.Fatal(err)
	}
}

// notAnchored is what verify says when it was given nothing from outside.
const notAnchored = "self-consistent, not anchored: whoever holds the signing key could have rewritten any record, " +
	"or cut the ledger back to an earlier state, and this folder alone cannot show it"

// TestInsider is who holds a node's disk and its keys. Each of his deeds passes
// a look at the folder alone, which says what it could not know; and is found
// out with one checkpoint from outside, and with the witness.
func TestInsider(t *testing.T) {
	w := newWitnessing(t)
	base := newLab(t, "")
	base.asks("record-1")
	base.asks("record-2")
	early := base.clone()
	for _, id := range []string{"record-3", "record-4", "record-5"} {
		base.asks(id)
	}
	w.watch(base.verifier())
	w.start("127.0.0.1:0")
	if err := base.submit(w); err != nil {
		t.Fatal(err)
	}
	cosigned := filepath.Join(t.TempDir(), "cosigned.txt")
	w.last(base.verifier(), cosigned)
	status, _ := base.run(0, "", "status", "-o", "json")
	var st admin.Status
	if err := json.Unmarshal([]byte(status), &st); err != nil {
		t.Fatal(err)
	}
	anchor := filepath.Join(t.TempDir(), "anchor.txt")
	if err := os.WriteFile(anchor, []byte(st.Checkpoint), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := base.run(0, "", "audit", "verify", "--anchor", cosigned, "--anchor", anchor, "--witness", w.key); !strings.Contains(out, "consistent with the outside checkpoint at ") || !strings.Contains(out, "; witness witness.example/w1 saw ") {
		t.Errorf("the true one: %s", out)
	}

	// An attack is on a copy; alone says that the folder shows it by itself.
	attack := func(name string, from *install, alone bool, deed func(i *install)) {
		t.Run(name, func(t *testing.T) {
			i := from.clone()
			deed(i)
			if alone {
				i.run(7, "", "audit", "verify")
			} else if out, _ := i.run(0, "", "audit", "verify"); !strings.HasSuffix(strings.TrimSpace(out), notAnchored) {
				t.Errorf("alone it says %s", out)
			}
			i.run(7, "", "audit", "verify", "--anchor", anchor)
			i.run(7, "", "audit", "verify", "--anchor", cosigned, "--witness", w.key)
			i.run(7, "", "audit", "verify", "--witness", w.key)
			if !alone {
				i.run(7, "", "audit", "consistency", anchor)
				if err := i.submit(w); err == nil {
					t.Error("the witness cosigned it")
				}
			}
		})
	}
	attack("store and ledger rolled back together", early, false, func(i *install) {})
	attack("rolled back, and gone on", early, false, func(i *install) {
		for n := range 9 {
			i.asks(fmt.Sprintf("record-%d", n))
		}
	})
	attack("a diverged clone of the same length", early, false, func(i *install) {
		for _, id := range []string{"record-6", "record-7", "record-8"} {
			i.asks(id)
		}
	})
	attack("a record replaced, everything signed again", base, false, func(i *install) {
		i.rewrite(func(seq uint64, r *audit.Record) bool {
			if seq == 3 {
				r.Clear = bytes.Replace(r.Clear, []byte(`"effect":"allow"`), []byte(`"effect":"deny"`), 1)
				r.Time++
			}
			return true
		})
	})
	attack("only sealed anew, everything signed again", base, false, func(i *install) {
		i.rewrite(func(uint64, *audit.Record) bool { return true })
	})
	attack("a record left out, everything signed again", base, false, func(i *install) {
		i.rewrite(func(seq uint64, _ *audit.Record) bool { return seq != 3 })
	})
	attack("another ledger of the same name", base, false, func(i *install) {
		other := newLab(t, "")
		for _, dir := range []string{"data", "keys"} {
			if err := os.RemoveAll(filepath.Join(i.dir, dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(i.dir, dir), os.DirFS(filepath.Join(other.dir, dir))); err != nil {
				t.Fatal(err)
			}
		}
	})
	attack("checkpoints hidden", base, true, func(i *install) {
		if err := os.Remove(filepath.Join(i.ledger(), "checkpoints")); err != nil {
			t.Fatal(err)
		}
	})
	attack("checkpoints of another history", base, true, func(i *install) {
		other := early.clone()
		other.asks("record-7")
		text, err := os.ReadFile(filepath.Join(other.ledger(), "checkpoints"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(i.ledger(), "checkpoints"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	for _, cut := range boundaries(t, base.ledger()) {
		attack(fmt.Sprintf("cut to %d records, with the checkpoints of then", cut.records), base, false, func(i *install) {
			if err := os.Truncate(filepath.Join(i.ledger(), "00000000000000000000"), cut.bytes); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(i.ledger(), "checkpoints"), cut.checkpoints); err != nil {
				t.Fatal(err)
			}
		})
	}

	// What the folder keeps of the witness is the witness's word, or damage.
	i := base.clone()
	key, err := witness.ParseVerifier(w.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(i.ledger(), key.File()), []byte(st.Checkpoint), 0o600); err != nil {
		t.Fatal(err)
	}
	i.run(7, "", "audit", "verify", "--anchor", cosigned, "--witness", w.key)

	// A store that went back alone does not open with its ledger.
	i = base.clone()
	store, err := os.ReadFile(filepath.Join(newLab(t, "").dir, "data", "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(i.dir, "data", "store.db"), store, 0o600); err != nil {
		t.Fatal(err)
	}
	i.run(7, "", "can", "user:alice", "read", "record:record-1")
}

// boundary is where a batch ends before the last, and a checkpoint covers it.
type boundary struct {
	records            uint64
	bytes, checkpoints int64
}

func boundaries(t *testing.T, ledger string) (out []boundary) {
	t.Helper()
	seg, err := os.ReadFile(filepath.Join(ledger, "00000000000000000000"))
	if err != nil {
		t.Fatal(err)
	}
	cps, err := os.ReadFile(filepath.Join(ledger, "checkpoints"))
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]int64{} // size of a checkpoint: where its entry ends
	for off := 0; off < len(cps); {
		n := bytes.Index(cps[off:], []byte("=\n\n—"))
		lines := strings.Split(string(cps[off:off+n]), "\n")
		end := off + 2*len(lines[0]) + 166
		covered[lines[1]] = int64(end)
		off = end
	}
	records := uint64(0)
	for off := 0; off < len(seg); records++ {
		if batch := le.LittleEndian.Uint64(seg[off+8:]); batch == records {
			if end, ok := covered[fmt.Sprint(records)]; ok {
				out = append(out, boundary{records, int64(off), end})
			}
		}
		off += 16 + int(le.LittleEndian.Uint32(seg[off:]))
	}
	if len(out) < 3 {
		t.Fatalf("%d boundaries of %d records", len(out), records)
	}
	return out
}

// TestServerIsWitnessed runs the real server and the real witness: checkpoints
// are cosigned while it decides, the witness is killed and comes back, the
// server's folder goes back to an earlier state, and it says so without
// refusing anybody.
func TestServerIsWitnessed(t *testing.T) {
	w := newWitnessing(t)
	w.start("127.0.0.1:0") // for an address
	address := strings.TrimPrefix(w.url, "http://")
	w.kill()
	i := newLab(t, fmt.Sprintf("drain: 1ms\nlisten: {authzen: {socket: authzen.sock}}\ncallers: [{name: certifier, listener: socket, asserts: [user]}]\nwitness: [{url: %q, key: %q, every: 100ms}]\n", w.url, w.key))
	w.watch(i.verifier())
	i.asks("record-1")
	before := i.clone()

	r := i.serve()
	c := i.overSocket()
	status := func(want string, ok func(witness.Status) bool) {
		t.Helper()
		var st admin.Status
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			st = admin.Status{} // what is absent is not what it was
			if err := i.admin().Get(t.Context(), "/v1/status", &st); err != nil {
				t.Fatal(err)
			}
			if len(st.Witnesses) == 1 && ok(st.Witnesses[0]) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v\n%s", want, st.Witnesses, r.log)
			}
		}
		if out, _ := i.run(0, "", "status"); !strings.Contains(out, want) || !st.Ready {
			t.Errorf("ready %v, want %q in %s", st.Ready, want, out)
		}
	}
	asked := func() {
		t.Helper()
		if code, _, body, err := ask(c, "http://localhost", aliceReads); err != nil || code != 200 || !bytes.Contains(body, []byte("true")) {
			t.Fatal(code, string(body), err)
		}
	}
	// Without the witness everybody is served.
	asked()
	status("has cosigned nothing yet; now it does not answer", func(s witness.Status) bool { return s.Error != "" })
	w.start(address)
	status("witness.example/w1 has cosigned ", func(s witness.Status) bool { return s.Size > 0 && s.Error == "" })
	for range 3 {
		asked()
	}
	w.kill()
	asked()
	w.start(address)
	want := uint64(0)
	var st admin.Status
	if err := i.admin().Get(t.Context(), "/v1/status", &st); err != nil {
		t.Fatal(err)
	}
	want = st.Records
	status("has cosigned ", func(s witness.Status) bool { return s.Size >= want && s.Error == "" })
	if out, _ := i.run(0, "", "audit", "verify", "--witness", w.key, "-o", "json"); !strings.Contains(out, `"anchored": true`) || !strings.Contains(out, `"witness": "witness.example/w1"`) {
		t.Error(out)
	}
	// A proof is against what the witness has seen.
	proof := filepath.Join(t.TempDir(), "p")
	i.run(0, "", "audit", "prove", "a-1", "--out", proof, "--record", proof+".json")
	if out, _ := i.run(0, "", "audit", "prove", "--check", proof, "--record", proof+".json", "--verifier", i.verifier(), "--witness", w.key); !strings.Contains(out, "; witness witness.example/w1 saw ") {
		t.Error(out)
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err, r.log)
	}
	if strings.Contains(r.log.String(), "INTEGRITY") {
		t.Errorf("%s", r.log)
	}

	// The data folder goes back, the file of cosignatures with it.
	if err := os.RemoveAll(filepath.Join(i.dir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(i.dir, "data"), os.DirFS(filepath.Join(before.dir, "data"))); err != nil {
		t.Fatal(err)
	}
	r = i.serve()
	c = i.overSocket()
	asked()
	status("INTEGRITY: witness.example/w1 has seen another history of this ledger", func(s witness.Status) bool { return s.Diverged })
	if !strings.Contains(r.log.String(), "INTEGRITY: the ledger does not continue what the witness has seen of it") {
		t.Errorf("%s", r.log)
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err, r.log)
	}
}

// TestWitnessKilled kills the real witness with no warning while a ledger and a
// fork of it submit: it never cosigns both.
func TestWitnessKilled(t *testing.T) {
	rounds := 8
	if os.Getenv("WARD_CAMPAIGN") != "" {
		rounds = 200
	}
	w := newWitnessing(t)
	main := newLab(t, "")
	w.watch(main.verifier())
	w.start("127.0.0.1:0")
	address := strings.TrimPrefix(w.url, "http://")
	fork := main.clone()
	cosigned := 0
	for round := range rounds {
		main.asks("record-1")
		fork.asks("record-2")
		killed := make(chan bool)
		go func() {
			defer close(killed)
			time.Sleep(time.Duration(round%8) * 4 * time.Millisecond)
			w.kill()
		}()
		// The true one has been first; after that the fork never passes.
		if round == 0 {
			<-killed
			w.start(address)
			if err := main.submit(w); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if main.submit(w) == nil {
			cosigned++
		}
		if fork.submit(w) == nil {
			t.Fatalf("round %d: it cosigned a fork", round)
		}
		<-killed
		w.start(address)
		if fork.submit(w) == nil {
			t.Fatalf("round %d: it cosigned a fork after it was killed", round)
		}
		if err := main.submit(w); err != nil {
			t.Fatalf("round %d: the true one: %v", round, err)
		}
	}
	t.Logf("%d rounds, %d cosigned before the kill", rounds, cosigned)
}
