package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/adapters/authzen/authzentest"
	"github.com/ward-authz/ward/pdp/audit"
)

// built is the folder of the program, or "".
var built string

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ward-test-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "ward")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/ward").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// binary builds the real program once.
func binary(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// install is one installation in a folder of its own, with a short path: the
// sockets lie in it.
type install struct {
	t      testing.TB
	dir    string
	config string
}

func newInstall(t testing.TB, operator, pack, config string) *install {
	t.Helper()
	dir, err := os.MkdirTemp("", "ward-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	i := &install{t, dir, filepath.Join(dir, "ward.yaml")}
	if err := os.WriteFile(i.config, []byte("operator: "+operator+"\ndurability: local-disk-only\n"+config), 0o600); err != nil {
		t.Fatal(err)
	}
	i.run(0, "", "init", "--admin", fmt.Sprintf("ana=%d", os.Getuid()), "--pack", pack)
	return i
}

// run runs a command in process, and compares its exit code.
func (i *install) run(code int, stdin string, args ...string) (stdout, stderr string) {
	i.t.Helper()
	var out, errs bytes.Buffer
	got := Main(append([]string{"--config", i.config}, args...), strings.NewReader(stdin), &out, &errs)
	if got != code {
		i.t.Fatalf("ward %v: exit code %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// running is a server process.
type running struct {
	*install
	cmd     *exec.Cmd
	log     *syncBuffer
	serving map[string]any // the line that it logs when it serves
	done    chan error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// serve starts the real binary and waits until it serves.
func (i *install) serve() *running {
	i.t.Helper()
	r := &running{install: i, cmd: exec.Command(binary(i.t), "serve", "--config", i.config), log: &syncBuffer{}, done: make(chan error, 1)}
	pipe, err := r.cmd.StderrPipe()
	if err != nil {
		i.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	ready := make(chan map[string]any, 1)
	go func() {
		for s := bufio.NewScanner(pipe); s.Scan(); {
			fmt.Fprintln(r.log, s.Text())
			var line map[string]any
			if json.Unmarshal(s.Bytes(), &line) == nil && line["msg"] == "serving" {
				ready <- line
			}
		}
		r.done <- r.cmd.Wait()
	}()
	i.t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	select {
	case r.serving = <-ready:
	case err := <-r.done:
		i.t.Fatalf("the server ended: %v\n%s", err, r.log)
	case <-time.After(20 * time.Second):
		i.t.Fatalf("the server does not serve:\n%s", r.log)
	}
	return r
}

// stop ends the server and returns how it exited.
func (r *running) stop(sig syscall.Signal) error {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatalf("the server does not stop:\n%s", r.log)
	}
	return nil
}

func (i *install) socket() string { return filepath.Join(i.dir, "authzen.sock") }

func (i *install) admin() *admin.Client {
	return admin.NewClient(admin.Socket(filepath.Join(i.dir, "data", "admin.sock")))
}

// overSocket is a client of the AuthZEN socket.
func (i *install) overSocket() *http.Client {
	return &http.Client{Transport: admin.Socket(i.socket()), Timeout: 10 * time.Second}
}

// ask posts one question and returns the status, the record and the body.
func ask(c *http.Client, base, body string) (status int, record string, answer []byte, err error) {
	resp, err := c.Post(base+"/access/v1/evaluation", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Ward-Record"), answer, err
}

const (
	labFacts = `
- node: {id: "User:alice", principal: true}
- node: {id: "User:bob", principal: true}
- assignment: {principal: "User:alice", role: editor, node: "Operator:lab"}
- assignment: {principal: "User:bob", role: reader, node: "Operator:lab"}
`
	aliceReads    = `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`
	certification = "../testdata/packs/certification"
)

func newLab(t testing.TB, config string) *install {
	t.Helper()
	i := newInstall(t, "lab", certification, config)
	i.run(0, labFacts, "hierarchy", "apply", "-")
	return i
}

// certificate writes a self-signed certificate for 127.0.0.1 and returns the
// pool that trusts it.
func certificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ward test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

// TestCertificationOverHTTPS runs the AuthZEN certification against the real
// server over HTTPS.
func TestCertificationOverHTTPS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cert, key, pool := certificate(t, t.TempDir())
	base := "https://" + address
	i := newLab(t, fmt.Sprintf(`
baseURL: %s
drain: 10ms
listen: {authzen: {address: %q, tls: {cert: %q, key: %q}}}
callers: [{name: certifier, listener: tcp, asserts: [user], assurance: 2}]
`, base, address, cert, key))
	r := i.serve()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: 10 * time.Second}
	authzentest.Certify(t, base, client)

	old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12}}}
	if _, err := old.Get(base + "/healthz"); err == nil {
		t.Error("TLS 1.2 is accepted")
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Errorf("the server exits with %v\n%s", err, r.log)
	}
	if out, _ := i.run(0, "", "replay", "all"); !strings.Contains(out, " 0 different, 0 shredded") {
		t.Error(out)
	}
}

// TestCallers shows that who may ask is known from the connection.
func TestCallers(t *testing.T) {
	uid := os.Getuid()
	for _, c := range []struct {
		name, callers string
		socket, tcp   int
	}{
		{"nobody", `[]`, 401, 401},
		{"another user", fmt.Sprintf(`[{name: certifier, uid: %d, asserts: [user]}]`, uid+1), 401, 401},
		{"this user", fmt.Sprintf(`[{name: certifier, uid: %d, asserts: [user]}]`, uid), 200, 401},
		{"who connects by tcp", `[{name: certifier, listener: tcp, asserts: [user]}]`, 401, 200},
		{"who connects to the socket", `[{name: certifier, listener: socket, asserts: [user]}]`, 200, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newLab(t, "drain: 10ms\nlisten: {authzen: {address: \"127.0.0.1:0\", socket: authzen.sock}}\ncallers: "+c.callers+"\n")
			r := i.serve()
			if status, _, body, err := ask(i.overSocket(), "http://localhost", aliceReads); err != nil || status != c.socket {
				t.Errorf("socket: %d %s %v, want %d", status, body, err, c.socket)
			}
			address := r.serving["address"].(string)
			if status, _, body, err := ask(http.DefaultClient, address, aliceReads); err != nil || status != c.tcp {
				t.Errorf("tcp: %d %s %v, want %d", status, body, err, c.tcp)
			}
			for _, path := range []string{"/healthz", "/readyz"} {
				resp, err := http.Get(address + path)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%s: %v %v", path, resp, err)
				}
			}
			if err := r.stop(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		})
	}
}

// lab is the configuration of tests that only need the socket.
func lab(drain string) string {
	return fmt.Sprintf("drain: %s\nlisten: {authzen: {socket: authzen.sock}}\ncallers: [{name: certifier, uid: %d, asserts: [user]}]\n", drain, os.Getuid())
}

// TestKill kills the server at random moments while it answers and changes,
// and looks for every acknowledged record and revision after the restart.
func TestKill(t *testing.T) {
	rounds := 24
	switch {
	case os.Getenv("WARD_CAMPAIGN") != "":
		rounds = 200
	case testing.Short():
		rounds = 4
	}
	i := newLab(t, lab("10ms"))
	var acknowledged []string // record ids
	var revision uint64       // the last that was acknowledged
	var changes, cut, abandoned int
	for round := range rounds {
		r := i.serve()
		if got := uint64(r.serving["revision"].(float64)); got < revision {
			t.Fatalf("round %d: revision %d was acknowledged, the store ends at %d", round, revision, got)
		}
		if strings.Contains(r.log.String(), "torn tail") {
			cut++
		}
		missing := i.missing(acknowledged)
		if len(missing) > 0 {
			t.Fatalf("round %d: %d of %d acknowledged records are missing, the first %s", round, len(missing), len(acknowledged), missing[0])
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c := i.overSocket()
				for {
					status, record, _, err := ask(c, "http://localhost", aliceReads)
					if err != nil {
						return // killed
					}
					if status == 200 {
						mu.Lock()
						acknowledged = append(acknowledged, record)
						mu.Unlock()
					}
				}
			})
		}
		wg.Go(func() {
			c := i.admin()
			for n := 0; ; n++ {
				var done admin.Changed
				e := admin.Event{Assert: "node", Fields: map[string]any{"id": fmt.Sprintf("User:u%d-%d", round, n), "principal": true}}
				if err := c.Post(context.Background(), "/v1/change", admin.Change{Events: []admin.Event{e}}, &done); err != nil {
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, done.Record)
				revision = max(revision, done.Revision)
				changes++
				mu.Unlock()
			}
		})
		time.Sleep(time.Duration(20+mrand.IntN(300)) * time.Millisecond)
		_ = r.stop(syscall.SIGKILL)
		wg.Wait()
	}
	r := i.serve()
	if missing := i.missing(acknowledged); len(missing) > 0 {
		t.Fatalf("%d acknowledged records are missing, the first %s", len(missing), missing[0])
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	out, _ := i.run(0, "", "audit", "verify")
	if !strings.Contains(out, "self-consistent") {
		t.Error(out)
	}
	out, _ = i.run(0, "", "audit", "find", "--kind", "abandoned", "-o", "json")
	abandoned = strings.Count(out, `"record"`)
	out, _ = i.run(0, "", "replay", "all")
	if !strings.Contains(out, " 0 different, 0 shredded") {
		t.Error(out)
	}
	t.Logf("%d rounds of kill -9: %d records acknowledged (%d changes), 0 missing; %d torn tails cut, %d changes abandoned; replay: %s",
		rounds, len(acknowledged), changes, cut, abandoned, strings.TrimSpace(out))
}

// missing returns the ids that the ledger does not hold.
func (i *install) missing(ids []string) []string {
	i.t.Helper()
	keys, err := audit.OpenKeys(filepath.Join(i.dir, "keys"))
	if err != nil {
		i.t.Fatal(err)
	}
	reader, err := audit.OpenReader(filepath.Join(i.dir, "data", "ledger"), keys.Verifier())
	if err != nil {
		i.t.Fatal(err)
	}
	held := map[string]bool{}
	for e, err := range reader.From(0) {
		if err != nil {
			i.t.Fatal(err)
		}
		held[e.ID()] = true
	}
	var out []string
	for _, id := range ids {
		if !held[id] {
			out = append(out, id)
		}
	}
	return out
}

// TestDrain stops a server under load: no request that was sent fails.
func TestDrain(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	i := newLab(t, "drain: 200ms\nlisten: {authzen: {address: \"127.0.0.1:0\", socket: authzen.sock}}\n"+
		fmt.Sprintf("callers: [{name: certifier, uid: %d, asserts: [user]}, {name: local, listener: tcp, asserts: [user]}]\n", os.Getuid()))
	var answered, failed atomic.Int64
	for range rounds {
		r := i.serve()
		address := r.serving["address"].(string)
		var wg sync.WaitGroup
		// Over the socket a client asks until there is nothing to connect to.
		for range 8 {
			wg.Go(func() {
				c := i.overSocket()
				for {
					status, _, body, err := ask(c, "http://localhost", aliceReads)
					var op *net.OpError
					switch {
					case err == nil && status == 200:
						answered.Add(1)
					case errors.As(err, &op) && op.Op == "dial" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
						return
					default:
						failed.Add(1)
						t.Errorf("socket: %d %s %v", status, body, err)
						return
					}
				}
			})
		}
		// Over TCP it asks while readiness says that it may, as a balancer does.
		ready := &atomic.Bool{}
		ready.Store(true)
		go func() {
			for ready.Load() {
				resp, err := http.Get(address + "/readyz")
				if err != nil || resp.StatusCode != 200 {
					ready.Store(false)
				}
				if err == nil {
					_ = resp.Body.Close()
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		for range 8 {
			wg.Go(func() {
				c := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
				for ready.Load() {
					if status, _, body, err := ask(c, address, aliceReads); err != nil || status != 200 {
						failed.Add(1)
						t.Errorf("tcp: %d %s %v", status, body, err)
						return
					}
					answered.Add(1)
				}
			})
		}
		time.Sleep(150 * time.Millisecond)
		if err := r.stop(syscall.SIGTERM); err != nil {
			t.Errorf("the server exits with %v\n%s", err, r.log)
		}
		wg.Wait()
		if !strings.Contains(r.log.String(), `"msg":"stopped"`) {
			t.Errorf("not drained:\n%s", r.log)
		}
	}
	t.Logf("%d shutdowns under load: %d requests answered, %d failed", rounds, answered.Load(), failed.Load())
}

// TestSecondSignal ends the server at once.
func TestSecondSignal(t *testing.T) {
	i := newLab(t, lab("30s"))
	r := i.serve()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(r.log.String(), "draining") {
		time.Sleep(10 * time.Millisecond)
	}
	if resp, err := i.overSocket().Get("http://localhost/readyz"); err != nil || resp.StatusCode != 503 {
		t.Errorf("ready while draining: %v %v", resp, err)
	}
	start := time.Now()
	err := r.stop(syscall.SIGTERM)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || time.Since(start) > 5*time.Second {
		t.Errorf("exit %v after %v", err, time.Since(start))
	}
	if !strings.Contains(r.log.String(), "ward: a second signal ended the server before it had drained") {
		t.Error(r.log)
	}
	if out, _ := i.run(0, "", "audit", "verify"); !strings.Contains(out, "0 after the last checkpoint") {
		t.Errorf("the ledger was not closed: %s", out)
	}
}

const canaryMap = `map: %s
feed: delta
tenant: acme
zone: UTC
dates: [YYYY-MM-DD]
open: {to: [9999-12-31]}
files:
  - match: "*.csv"
    known: {from: SEEN, to: GONE}
    only: {KIND: [A]}
    keys:
      id: {column: ID}
      plan: {column: PLAN, match: "p.*"}
    nodes:
      plan: {type: Plan, key: "{plan}", attrs: {name: NAME}}
      person: {type: Person, key: "{tenant}.{id}"}
      coverage: {type: Coverage, key: "{id}"}
    edges:
      - {child: plan, kind: memberOf, parent: tenant}
      - {child: coverage, kind: enrolledIn, parent: plan, from: BGN, to: END}
    links:
      - {from: person, kind: owns, to: coverage}
`

// TestCanaries plants identifiers in everything that can be sent, and looks for
// them where they must not be.
func TestCanaries(t *testing.T) {
	i := newInstall(t, "pbm", "pbm", fmt.Sprintf(`
drain: 10ms
listen: {authzen: {address: "127.0.0.1:0", socket: authzen.sock}}
callers:
  - {name: claims-service, uid: %d, asserts: [user], explains: true, performs: [filter, mask, record-delegation, report-outcome]}
`, os.Getuid()))
	n := 0
	canary := func() string { n++; return fmt.Sprintf("canary%06d", n) }
	r := i.serve()
	type body struct {
		what string
		text []byte
	}
	var errorBodies []body
	c := i.admin()
	ctx := context.Background()

	// Changes, those that are made and those that are refused.
	user, person, coverage, grant := canary(), canary(), canary(), canary()
	reason := func() admin.Reason { return admin.Reason{Why: canary(), Ticket: canary()} }
	change := func(want bool, events ...admin.Event) {
		t.Helper()
		var done admin.Changed
		err := c.Post(ctx, "/v1/change", admin.Change{Events: events, Reason: reason()}, &done)
		if (err == nil) != want {
			t.Fatalf("change: %v", err)
		}
		if err != nil {
			errorBodies = append(errorBodies, body{"change", []byte(fmt.Sprintf("%+v", err))})
		}
	}
	fact := func(kind string, pairs ...any) admin.Event {
		e := admin.Event{Assert: kind, Fields: map[string]any{}}
		for k := 0; k < len(pairs); k += 2 {
			e.Fields[pairs[k].(string)] = pairs[k+1]
		}
		return e
	}
	change(true,
		fact("node", "id", "Tenant:acme"), fact("edge", "child", "Tenant:acme", "kind", "operatedBy", "parent", "Operator:pbm"),
		fact("node", "id", "Group:acme/g8"), fact("edge", "child", "Group:acme/g8", "kind", "memberOf", "parent", "Tenant:acme"),
		fact("node", "id", "Coverage:acme/"+coverage), fact("edge", "child", "Coverage:acme/"+coverage, "kind", "enrolledIn", "parent", "Group:acme/g8"),
		fact("node", "id", "User:"+user, "principal", true),
		fact("node", "id", "Person:"+person, "person", map[string]any{"birthDate": "2010-05-01", "jurisdiction": "US-OH"}),
		fact("link", "kind", "identity", "issuer", "https://"+canary()+".example", "sub", canary(), "to", "User:"+user),
		fact("link", "kind", "owns", "from", "Person:"+person, "to", "Coverage:acme/"+coverage),
		fact("entitlement", "tenant", "Tenant:acme", "name", "claims"),
		fact("grant", "id", grant, "type", "caregiver", "grantor", "Person:"+person, "grantee", "User:"+user, "subject", "Person:"+person,
			"scope", map[string]any{"capabilities": []string{"claim.view"}, "covers": []string{canary()}, "coverage": "Coverage:acme/" + coverage},
			"legalBasis", canary(), "evidence", map[string]any{"document": canary(), "verifiedBy": canary()}),
		fact("block", "person", "Person:"+person, "principal", "User:"+user, "basis", "refusal", "from", "2099-01-01"))
	change(false, fact("link", "kind", "self", "from", "User:"+canary(), "to", "Person:"+person))
	change(false, fact("link", "kind", "self", "from", "User:"+user, "to", "Person:"+canary()))
	change(false, fact("node", "id", "User:"+user, "principal", true))
	change(false, fact("node", "id", "Person:"+person))
	change(false, fact("node", "id", "Person:"+canary(), "person", map[string]any{"birthDate": canary()}))
	change(false, fact("node", "id", canary()))
	change(false, fact("node", "id", "Person:"+canary(), canary(), canary()))
	change(false, fact(canary(), "id", canary()))
	change(false, fact("grant", "id", grant, "type", "caregiver", "grantor", "Person:"+person, "grantee", "User:"+user, "subject", "Person:"+person,
		"scope", map[string]any{"capabilities": []string{"claim.view"}}))
	change(false, fact("grant", "id", canary(), "type", canary(), "grantor", "Person:"+person, "grantee", "User:"+user, "subject", "Person:"+person,
		"scope", map[string]any{"capabilities": []string{canary()}}))
	change(false, fact("grant", "id", canary(), "type", "caregiver", "grantor", "Person:"+canary(), "grantee", "User:"+user, "subject", "Person:"+canary(),
		"scope", map[string]any{"capabilities": []string{"claim.view"}}, "parent", canary()))
	change(false, fact("block", "person", "Person:"+canary(), "principal", "User:"+canary(), "basis", canary()))
	change(false, fact("node", "id", "Person:"+canary(), "from", canary()))
	change(false, admin.Event{Void: canary()})
	change(false, admin.Event{Assert: "node", Zone: canary(), Fields: map[string]any{"id": "Person:" + canary(), "from": "2026-01-01"}})

	// Inquiries and searches.
	var answers admin.Answers
	claim := func(id string) admin.Entity {
		return admin.Entity{Type: "claim", ID: id, Properties: map[string]any{"coverage": "Coverage:acme/" + coverage, "pharmacy": nil, "prescriber": nil,
			"fillDate": "2026-03-01", "sensitivity": "routine", "minorConsent": false, canary(): canary()}}
	}
	question := admin.Question{Subject: admin.Subject{Entity: admin.Entity{Type: "user", ID: user, Properties: map[string]any{canary(): canary()}}, Assurance: 2},
		Action: admin.Action{Name: "claim.view", Properties: map[string]any{canary(): canary()}}, Resource: claim(canary()),
		Context: map[string]any{canary(): canary()}}
	if err := c.Post(ctx, "/v1/ask", admin.Ask{Requests: []admin.Question{question}, Explain: true}, &answers); err != nil {
		t.Fatal(err)
	}
	if a := answers.Answers[0]; a.Decision != "allow" || a.Grant != grant {
		t.Fatalf("the canary question is answered %+v: it should be allowed by the grant", a)
	}
	for path, in := range map[string]any{
		"/v1/facts":         map[string]any{"kind": canary(), "about": canary()},
		"/v1/node":          map[string]any{"id": "Person:" + canary()},
		"/v1/children":      map[string]any{"id": canary()},
		"/v1/path":          map[string]any{"from": "Person:" + person, "to": "Person:" + canary()},
		"/v1/ask":           map[string]any{canary(): canary()},
		"/v1/what":          map[string]any{"subject": canary()},
		"/v1/policies/show": map[string]any{"digest": canary()},
		"/v1/audit/find":    map[string]any{"person": canary(), "grant": grant},
		"/v1/activate":      map[string]any{"archive": []byte(canary()), "why": canary()},
		"/v1/import":        map[string]any{canary(): canary()},
	} {
		var out any
		err := c.Post(ctx, path, in, &out)
		if err == nil {
			t.Errorf("%s accepts a canary", path)
			continue
		}
		errorBodies = append(errorBodies, body{path, []byte(fmt.Sprintf("%+v", err))})
	}
	for _, path := range []string{"/v1/" + canary(), "/v1/explain/" + canary(), "/v1/explain/a-99999"} {
		var out any
		if err := c.Get(ctx, path, &out); err != nil {
			errorBodies = append(errorBodies, body{path[:4], []byte(fmt.Sprintf("%+v", err))})
		}
	}

	// A feed, through the command and the server: cells of every column, rows of
	// every fate, the names of the files and of the map. What the command prints
	// names the files and the map, as whoever runs it did, and nothing of what is
	// in them.
	feed := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(feed, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mapName := canary()
	feedMap := put(canary()+".yaml", fmt.Sprintf(canaryMap, mapName))
	imports := func(code int, path string, flags ...string) string {
		t.Helper()
		args := append([]string{"hierarchy", "import", "--map", feedMap, path, "--why", canary(), "--ticket", canary()}, flags...)
		out, errs := i.run(code, "", args...)
		text := strings.NewReplacer(path, "FILE", filepath.Base(path), "FILE", mapName, "MAP").Replace(out + errs)
		errorBodies = append(errorBodies, body{"import", []byte(text)})
		return text
	}
	const header = "ID,PLAN,NAME,BGN,END,SEEN,GONE,KIND,OTHER"
	// Each column of a good row in turn holds what it must not; OTHER is not read.
	good := func() []string {
		return []string{canary(), "p" + canary(), canary(), "2026-01-01", "2026-12-31", "2026-01-01", "9999-12-31", "A", canary()}
	}
	first := good()
	lines := []string{header + "," + canary(), strings.Join(first, ",") + "," + canary()}
	row := func(at int, cell string) {
		cells := append(good(), canary())
		if at >= 0 {
			cells[at] = cell
		}
		lines = append(lines, strings.Join(cells, ","))
	}
	row(-1, "")
	for at := range first {
		row(at, canary())              // a key, a name, or no date, and a kind that the map does not take
		row(at, "")                    // nothing
		row(at, canary()+"/"+canary()) // no key of ward
	}
	row(1, "Q"+canary())       // not what the map expects
	row(4, "2025-12-31")       // ends before it begins
	row(0, "person:"+canary()) // no key either
	lines = append(lines, strings.Join(good(), ","), canary(), canary()+`"`+canary()+strings.Repeat(",", len(first)), strings.Join(first, ",")+","+canary())
	loaded := put(canary()+".csv", strings.Join(lines, "\n")+"\n")
	refused := filepath.Join(feed, "refused.csv")
	imports(0, loaded, "--dry-run")
	text := imports(0, loaded, "-o", "json", "--refusals", refused)
	listed, err := os.ReadFile(refused)
	if err != nil {
		t.Fatal(err)
	}
	errorBodies = append(errorBodies, body{"refusals", bytes.ReplaceAll(listed, []byte(filepath.Base(loaded)), nil)})
	for _, code := range []string{rowMalformed, columnMissing, keyMissing, keyInvalid, dateMissing, dateUnreadable, rowExcluded, "interval_inverted"} {
		if !bytes.Contains(listed, []byte(","+code+",")) {
			t.Errorf("no row of the canaries' feed is refused as %s:\n%s", code, listed)
		}
	}
	if !strings.Contains(text, `"loaded": `) || strings.Contains(text, `"loaded": 0`) {
		t.Errorf("no row of the canaries' feed is loaded:\n%s", text)
	}
	// The same row with other dates replaces what it said.
	first[4] = "2027-12-31"
	if text := imports(0, put(canary()+".csv", header+"\n"+strings.Join(first, ",")+"\n"), "--why", ""); !strings.Contains(text, "1 voided") {
		t.Errorf("nothing is replaced:\n%s", text)
	}
	imports(exitInvalid, put(canary()+".csv", canary()+","+canary()+"\n"))
	imports(exitInvalid, put(canary()+".csv", header+"\n\""+canary()+",\n"+canary()+"\n"))
	imports(exitInvalid, put(canary()+".csv", header+"\n"), "--abandon")
	imports(exitInvalid, put(canary()+".txt", ""))

	// The AuthZEN door, whose every answer is looked at: it names nobody.
	http1 := i.overSocket()
	post := func(path, contentType, text string, header http.Header) {
		t.Helper()
		req, err := http.NewRequest("POST", "http://localhost"+path, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header.Clone()
		if req.Header == nil {
			req.Header = http.Header{}
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := http1.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		raw = bytes.ReplaceAll(raw, []byte(`"grant":"`+grant+`"`), nil) // told to who may see reasons
		errorBodies = append(errorBodies, body{fmt.Sprint("authzen ", resp.StatusCode), raw})
	}
	headers := http.Header{"X-Request-Id": {canary()}, "User-Agent": {canary()}, "Authorization": {"Bearer " + canary()}, "Cookie": {"s=" + canary()}, "X-" + canary(): {canary()}}
	jsonText := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	asked := func(subject, action string, resource any) map[string]any {
		return map[string]any{"subject": map[string]any{"type": "user", "id": subject, "properties": map[string]any{canary(): canary()}},
			"action":   map[string]any{"name": action, "properties": map[string]any{canary(): canary()}},
			"resource": resource, "context": map[string]any{canary(): canary(), "ward": map[string]any{"grant": grant}}, canary(): canary()}
	}
	one, many := "/access/v1/evaluation", "/access/v1/evaluations"
	allowed := jsonText(asked(user, "claim.view", claim(canary())))
	post(one, "application/json", allowed, headers)
	post(one, "application/json", jsonText(asked(canary(), "claim.view", claim(canary()))), headers)
	post(one, "application/json", jsonText(asked(user, canary(), claim(canary()))), headers)
	post(one, "application/json", jsonText(asked(user, "claim.view", map[string]any{"type": canary(), "id": canary()})), headers)
	post(one, "application/json", jsonText(asked(user, "claim.view", map[string]any{"type": "claim", "id": canary(), "properties": map[string]any{"coverage": canary()}})), headers)
	post(one, "application/json", `{"subject":{"type":"`+canary()+`","id":"`+canary()+`"},"action":{"name":"read"},"resource":{"type":"claim","id":"`+canary()+`"}}`, headers)
	post(one, "application/json", `{"subject":"`+canary()+`","`+canary()+`":1}`, headers)
	post(one, "application/json", `{"subject":{"type":"user","id":"`+canary()+`",`, headers)
	post(one, "text/"+canary(), allowed, headers)
	post("/"+canary()+"?person="+canary(), "application/json", allowed, headers)
	post(one, "application/json", allowed, http.Header{"X-Request-Id": {canary() + " " + canary()}})
	post(many, "application/json", `{"subject":{"type":"user","id":"`+user+`"},"action":{"name":"claim.view"},"evaluations":[{"resource":`+jsonText(claim(canary()))+
		`},{"resource":{"type":"claim"}},{"resource":{"type":"feature","id":"`+canary()+`"},"context":{"ward":{"area":"`+canary()+`"}}}],"options":{"evaluations_semantic":"`+canary()+`"}}`, headers)
	post(many, "application/json", `{"subject":{"type":"user","id":"`+user+`"},"action":{"name":"claim.view"},"evaluations":[{"resource":`+jsonText(claim(canary()))+
		`},{"resource":{"type":"claim"}},{"resource":{"type":"feature","id":"`+canary()+`"},"context":{"ward":{"area":"`+canary()+`"}}}]}`, headers)
	// Outcomes: of no record, of unknown fields, of obligations that nobody performs.
	for _, text := range []string{`{"record":"` + canary() + `","delivered":true}`, `{"record":"a-99999","delivered":true,"` + canary() + `":1}`,
		`{"record":"a-1","delivered":"` + canary() + `"}`, `{"record":"a-1","delivered":true,"rows":"` + canary() + `"}`,
		`{"record":"a-1","delivered":true,"obligations":["` + canary() + `"]}`, `{"record":"a-1","delivered":true,"obligations":"` + canary() + `"}`,
		`{"record":["` + canary() + `"]}`, `["` + canary() + `"]`, `{"` + canary()} {
		post("/v1/outcomes", "application/json", text, headers)
	}
	post("/v1/outcomes?"+canary(), "text/"+canary(), `{"record":"a-1","delivered":true}`, headers)
	// Searches, and the keys' own requests.
	for _, in := range []struct {
		path string
		in   map[string]any
	}{
		{"/v1/audit/find", map[string]any{"subject": canary()}}, {"/v1/audit/find", map[string]any{"subject": "user:" + canary(), "effect": canary()}},
		{"/v1/audit/find", map[string]any{"resource": canary(), "reason": canary(), "action": canary(), "code": canary(), "kind": canary(), "emergency": canary()}},
		{"/v1/audit/find", map[string]any{"from": canary()}}, {"/v1/audit/find", map[string]any{canary(): canary()}},
		{"/v1/audit/shred", map[string]any{"tenant": canary(), "day": "2026-01-01", "why": canary(), "ticket": canary()}},
		{"/v1/audit/shred", map[string]any{"tenant": canary(), "day": canary(), "why": canary()}},
		{"/v1/audit/loss", map[string]any{"tenant": canary(), "day": "2026-01-01", "why": canary(), "ticket": canary()}},
		{"/v1/audit/rotate", map[string]any{"why": canary(), canary(): canary()}},
		{"/v1/audit/rotate", map[string]any{"why": canary(), "ticket": canary()}},
	} {
		var out any
		if err := c.Post(ctx, in.path, in.in, &out); err != nil {
			errorBodies = append(errorBodies, body{in.path, []byte(fmt.Sprintf("%+v", err))})
		}
	}
	// Evidence that was handed over, and is not what it was.
	forged := filepath.Join(t.TempDir(), "case")
	if _, errs := i.run(0, "", "audit", "export", "a-2", "--out", forged); strings.Contains(errs, "canary") {
		t.Error(errs)
	}
	for _, name := range []string{"a-2.record", "a-2.proof", "a-2.keys", "a-2.facts", "verifier", canary()} {
		spoilt := filepath.Join(t.TempDir(), "case")
		if err := os.CopyFS(spoilt, os.DirFS(forged)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(spoilt, name), []byte(canary()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs := i.run(exitIntegrity, "", "audit", "verify", spoilt)
		errorBodies = append(errorBodies, body{"audit verify", []byte(out + errs)})
		out, errs = i.run(exitIntegrity, "", "replay", spoilt)
		errorBodies = append(errorBodies, body{"replay", []byte(out + errs)})
	}
	// What net/http itself refuses, over TCP.
	for _, raw := range []string{"GET /" + canary() + " HTTP/9\r\n\r\n", canary() + "\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX-" + canary() + " : " + canary() + "\r\n\r\n",
		"GET /" + canary() + " HTTP/1.1\r\nHost: " + canary() + "\r\nConnection: close\r\n\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.serving["address"].(string), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, raw)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		got, _ := io.ReadAll(conn)
		errorBodies = append(errorBodies, body{"raw", got})
		_ = conn.Close()
	}
	// End it all, so that the changes are on record too.
	change(true, admin.Event{End: "f2.6"})
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}

	// The question was recorded with all that was sent, so there was something to leak.
	if out, _ := i.run(0, "", "audit", "find", "--person", "Person:"+person, "-o", "json"); strings.Count(out, `"record"`) < 2 {
		t.Errorf("the canary's record is not found: %s", out)
	}
	hits := 0
	look := func(where string, text []byte) {
		t.Helper()
		for _, form := range [][]byte{[]byte("canary"), []byte(base64.StdEncoding.EncodeToString([]byte("canary")))} {
			if k := bytes.Index(bytes.ToLower(text), bytes.ToLower(form)); k >= 0 {
				hits++
				t.Errorf("%s holds a canary: …%q…", where, text[max(0, k-80):min(len(text), k+40)])
			}
		}
	}
	files := 0
	err = filepath.WalkDir(filepath.Join(i.dir, "data", "ledger"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		look(filepath.Base(path), text)
		return err
	})
	if err != nil || files < 2 {
		t.Fatalf("%d ledger files, %v", files, err)
	}
	look("the log", []byte(r.log.String()))
	for _, b := range errorBodies {
		look("the answer of "+b.what, b.text)
	}
	t.Logf("%d canaries, %d answers, %d ledger files, %d bytes of log: %d occurrences", n, len(errorBodies), files, len(r.log.String()), hits)
}

// TestReplayBesideAServer replays on a copy while the server goes on deciding
// and changing.
func TestReplayBesideAServer(t *testing.T) {
	i := newLab(t, lab("10ms"))
	r := i.serve()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		wg.Go(func() {
			for c := i.overSocket(); ctx.Err() == nil; {
				if status, _, body, err := ask(c, "http://localhost", aliceReads); err != nil || status != 200 && status != 503 {
					t.Errorf("%d %s %v", status, body, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for n, c := 0, i.admin(); ctx.Err() == nil; n++ {
			var done admin.Changed
			e := admin.Event{Assert: "node", Fields: map[string]any{"id": fmt.Sprintf("User:w%d", n), "principal": true}}
			if err := c.Post(ctx, "/v1/change", admin.Change{Events: []admin.Event{e}}, &done); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	for range 5 {
		time.Sleep(50 * time.Millisecond)
		if out, errs := i.run(0, "", "replay", "all"); !strings.Contains(out, " 0 different") || !strings.Contains(errs, "reading a copy") {
			t.Errorf("%s%s", out, errs)
		}
		i.run(0, "", "audit", "verify")
	}
	cancel()
	wg.Wait()
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}
