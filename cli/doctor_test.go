package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ward-authz/ward/adapters/admin"
)

// doctor runs the command and returns its lines, as "state check".
func (i *install) doctor(code int) (lines []check) {
	i.t.Helper()
	out, _ := i.run(code, "", "doctor", "-o", "json")
	if err := json.Unmarshal([]byte(out), &lines); err != nil {
		i.t.Fatalf("%v: %s", err, out)
	}
	for _, c := range lines {
		if c.State != "ok" && c.Do == "" || c.State == "ok" && c.Do != "" || c.Text == "" {
			i.t.Errorf("the line %+v does not say what to do", c)
		}
	}
	return lines
}

func states(lines []check, name string) string {
	var out []string
	for _, c := range lines {
		if c.Check == name {
			out = append(out, c.State)
		}
	}
	return strings.Join(out, " ")
}

// folder fingerprints every file below a folder, with mode and time.
func folder(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %s", path, info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(text))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const doctored = `callers:
  - {name: claims-service, uid: 2001, asserts: [user]}
listen:
  authzen: {socket: authzen.sock}
`

func TestDoctorWithoutAServer(t *testing.T) {
	i := newInstall(t, "pbm", "pbm", doctored)
	before := folder(t, i.dir)
	lines := i.doctor(0)
	for _, c := range lines {
		if c.State != "ok" && c.Check != "server" && c.Check != "disk" {
			t.Errorf("%+v", c)
		}
	}
	for _, name := range []string{"configuration", "serving", "permissions", "disk", "keys", "server", "ledger", "store", "heads", "clock", "policies", "timezones", "callers", "capabilities", "grants", "imports"} {
		if states(lines, name) == "" {
			t.Errorf("nothing is said of %s", name)
		}
	}
	if after := folder(t, i.dir); after != before {
		t.Errorf("it changed\n%s\ninto\n%s", before, after)
	}
	table, _ := i.run(0, "", "doctor")
	if !strings.Contains(table, "warn  server") || !strings.Contains(table, "do: start it with ward serve") {
		t.Errorf("the table says\n%s", table)
	}
}

// Each check fails, or warns, when what it looks at is wrong.
func TestDoctorFinds(t *testing.T) {
	whole := newInstall(t, "pbm", "pbm", doctored)
	path := func(i *install, name ...string) string { return filepath.Join(append([]string{i.dir}, name...)...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	config := func(i *install, old, new string) {
		text, err := os.ReadFile(i.config)
		must(err)
		must(os.WriteFile(i.config, []byte(strings.Replace(string(text), old, new, 1)), 0o600))
	}
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	facts := fmt.Sprintf(`
- node: {id: "User:a", principal: true}
- node: {id: "Person:p"}
- grant: {id: g-1, type: adult-proxy, grantor: "Person:p", grantee: "User:a", subject: "Person:p", scope: {capabilities: [claim.view]}, to: "%s"}
`, in(48*time.Hour))
	for name, c := range map[string]struct {
		harm  func(*install)
		check string
		want  string
		code  int
	}{
		"no configuration": {func(i *install) { must(os.Remove(i.config)) }, "configuration", "fail", 1},
		"unknown key":      {func(i *install) { config(i, "callers:", "colour: red\ncallers:") }, "configuration", "fail", 1},
		"keys in the data": {func(i *install) { config(i, "callers:", "keys: data/keys\ncallers:") }, "configuration", "fail", 1},
		"not for serving":  {func(i *install) { config(i, "durability: local-disk-only\n", "") }, "serving", "fail", 1},
		"no caller":        {func(i *install) { config(i, doctored[:strings.Index(doctored, "listen:")], "") }, "callers", "warn", 0},
		"a shell":          {func(i *install) { config(i, "claims-service", "shell") }, "callers", "warn", 0},
		"open keys":        {func(i *install) { must(os.Chmod(path(i, "keys"), 0o750)) }, "permissions", "fail", 1},
		"open key":         {func(i *install) { must(chmodAny(path(i, "keys"), 0o640)) }, "permissions", "fail", 1},
		"writable data":    {func(i *install) { must(os.Chmod(path(i, "data"), 0o770)) }, "permissions", "fail", 1},
		"readable store":   {func(i *install) { must(os.Chmod(path(i, "data", "store.db"), 0o644)) }, "permissions", "warn", 0},
		"writable ledger":  {func(i *install) { must(os.Chmod(path(i, "data", "ledger"), 0o777)) }, "permissions", "fail", 1},
		"writable config":  {func(i *install) { must(os.Chmod(i.config, 0o666)) }, "permissions", "fail", 1},
		"no keys":          {func(i *install) { must(os.RemoveAll(path(i, "keys"))) }, "keys", "fail", 1},
		"no seals":         {func(i *install) { must(os.RemoveAll(path(i, "keys", "seals"))) }, "keys", "fail", 1},
		"no data":          {func(i *install) { must(os.RemoveAll(path(i, "data"))) }, "data", "fail", 1},
		"no store":         {func(i *install) { must(os.Remove(path(i, "data", "store.db"))) }, "store", "fail", 1},
		"no ledger":        {func(i *install) { must(os.RemoveAll(path(i, "data", "ledger"))) }, "ledger", "fail", 1},
		"a strange store":  {func(i *install) { must(os.WriteFile(path(i, "data", "store.db"), []byte("hello, world"), 0o600)) }, "store", "fail", 1},
		"a damaged store": {func(i *install) {
			b, err := os.ReadFile(path(i, "data", "store.db"))
			must(err)
			must(os.WriteFile(path(i, "data", "store.db"), bytes.ReplaceAll(b, []byte(`"right":"init"`), []byte(`"right":"none"`)), 0o600))
		}, "store", "fail", 1},
		"another's store": {func(i *install) {
			other := newInstall(t, "pbm", "pbm", "")
			b, err := os.ReadFile(path(other, "data", "store.db"))
			must(err)
			must(os.WriteFile(path(i, "data", "store.db"), b, 0o600))
		}, "heads", "fail", 1},
		"grants that end":      {func(i *install) { i.run(0, facts, "hierarchy", "apply", "-") }, "grants", "warn", 0},
		"idle capabilities":    {func(i *install) { i.run(0, "", "policy", "activate", certification) }, "capabilities", "warn", 0},
		"an expired one":       {func(i *install) { withCertificate(t, i, config, -time.Hour) }, "certificates", "fail", 1},
		"one that ends":        {func(i *install) { withCertificate(t, i, config, 48*time.Hour) }, "certificates", "warn", 0},
		"a good certificate":   {func(i *install) { withCertificate(t, i, config, 365*24*time.Hour) }, "certificates", "ok", 0},
		"no certificate there": {func(i *install) { config(i, "authzen: {", "authzen: {tls: {cert: no.pem, key: no.pem}, ") }, "certificates", "fail", 1},
		"a folder as a socket": {func(i *install) { must(os.Mkdir(path(i, "data", "admin.sock"), 0o700)) }, "server", "warn", 0}, // nothing listens there
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "c")
			if out, err := exec.Command("cp", "-a", whole.dir, dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			i := &install{t, dir, filepath.Join(dir, "ward.yaml")}
			c.harm(i)
			lines := i.doctor(c.code)
			if got := strings.Split(states(lines, c.check), " "); !slices.Contains(got, c.want) {
				t.Errorf("%s is %q, want %s: %+v", c.check, got, c.want, lines)
			}
		})
	}
}

// chmodAny sets the mode of some file below a folder.
func chmodAny(dir string, mode fs.FileMode) error {
	done := false
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || done || e.IsDir() {
			return err
		}
		done = true
		return os.Chmod(path, mode)
	})
}

func withCertificate(t *testing.T, i *install, config func(*install, string, string), left time.Duration) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ward test"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(left)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(i.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config(i, "authzen: {", "authzen: {tls: {cert: cert.pem, key: key.pem}, ")
}

// The clock and the disk are the machine's: here they are said.
func TestDoctorOnClockAndDisk(t *testing.T) {
	i := newInstall(t, "pbm", "pbm", doctored)
	for _, c := range []struct {
		ahead       time.Duration
		free        uint64
		clock, disk string
	}{
		{0, 1 << 40, "ok", "ok ok ok"},
		{-time.Hour, 1 << 40, "fail", "ok ok ok"},
		{time.Hour, leastReserve * 2, "ok", "warn warn warn"},
		{0, leastReserve - 1, "ok", "fail fail fail"},
	} {
		a := &app{stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv, configPath: i.config, clock: func() time.Time { return time.Now().Add(c.ahead) },
			space: func(string) (uint64, uint64, error) { return c.free, 1 << 30, nil }}
		d := &doctor{a: a}
		d.run(context.Background())
		if clock, disk := states(d.checks, "clock"), states(d.checks, "disk"); clock != c.clock || disk != c.disk {
			t.Errorf("%s ahead with %d bytes: clock %s, disk %s: %+v", c.ahead, c.free, clock, disk, d.checks)
		}
	}
}

func TestDoctorBesideAServer(t *testing.T) {
	i := newInstall(t, "pbm", "pbm", doctored)
	r := i.serve()
	status := func() (st admin.Status) {
		if err := i.admin().Get(context.Background(), "/v1/status", &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	before := status()
	lines := i.doctor(0)
	for _, name := range []string{"server", "heads", "doors", "clock", "policies", "capabilities", "grants", "imports", "callers", "keys"} {
		if states(lines, name) != "ok" {
			t.Errorf("%s is %q", name, states(lines, name))
		}
	}
	if after := status(); after.Records != before.Records || after.Revision != before.Revision {
		t.Errorf("%d records became %d", before.Records, after.Records)
	}
	// A door that the configuration opens and the server does not.
	text, err := os.ReadFile(i.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.config, []byte(strings.Replace(string(text), "authzen.sock", "other.sock", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := states(i.doctor(1), "doors"); got != "fail" {
		t.Errorf("a closed door is %q", got)
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := states(i.doctor(0), "server"); got != "warn" {
		t.Errorf("without the server it is %q", got)
	}
}

// An overlay changes what a running server answers, for its tenant alone.
func TestOverlayUnderARunningServer(t *testing.T) {
	i := newInstall(t, "pbm", "pbm", `callers:
  - {name: shell, listener: socket, asserts: [user], explains: true}
listen:
  authzen: {socket: authzen.sock}
`)
	i.run(0, `
- node: {id: "Tenant:acme"}
- node: {id: "Tenant:zeta"}
- entitlement: {tenant: "Tenant:acme", name: claims}
- entitlement: {tenant: "Tenant:zeta", name: claims}
- node: {id: "User:bo", principal: true}
- assignment: {principal: "User:bo", role: broker, node: "Tenant:acme"}
- assignment: {principal: "User:bo", role: broker, node: "Tenant:zeta"}
`, "hierarchy", "apply", "-")
	rules := filepath.Join(i.dir, "rules.cedar")
	write := func(text string) {
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`@id("no-search") forbid (principal is PBM::User, action == PBM::Action::"feature.see", resource is PBM::Feature) when { resource.capability == "claim.search" };`)
	r := i.serve()
	client := i.overSocket()
	sees := func(area string, want bool) {
		t.Helper()
		_, _, answer, err := ask(client, "http://localhost", fmt.Sprintf(`{"subject":{"type":"user","id":"bo"},"action":{"name":"feature.see"},"resource":{"type":"feature","id":"claims.search"},"context":{"ward":{"area":"%s"}}}`, area))
		if err != nil || !strings.Contains(string(answer), fmt.Sprintf(`"decision":%t`, want)) {
			t.Errorf("in %s: %s %v", area, answer, err)
		}
	}
	sees("Tenant:acme", true)
	i.run(0, "", "policy", "overlay", "activate", "acme", rules, "--why", "no searches")
	sees("Tenant:acme", false)
	sees("Tenant:zeta", true)
	write(`@id("all") permit (principal is PBM::User, action == PBM::Action::"feature.see", resource is PBM::Feature);`)
	if _, text := i.run(3, "", "policy", "overlay", "activate", "acme", rules); !strings.Contains(text, "overlay_permit") {
		t.Errorf("a permit is refused with %s", text)
	}
	sees("Tenant:acme", false)
	i.run(0, "", "policy", "overlay", "remove", "acme", "--why", "over")
	sees("Tenant:acme", true)
	i.run(0, "", "replay", "all")
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func TestDoctorOnASurvey(t *testing.T) {
	for _, c := range []struct {
		survey      admin.Survey
		check, want string
	}{
		{admin.Survey{}, "policies", "fail"},
		{admin.Survey{Set: "sha256:00"}, "policies", "ok"},
		{admin.Survey{Set: "sha256:00", Imports: []string{"i-1"}}, "imports", "warn"},
		{admin.Survey{Set: "sha256:00", Zones: []string{"Nowhere/City"}}, "timezones", "fail"},
		{admin.Survey{Set: "sha256:00", Ending: 1}, "grants", "warn"},
		{admin.Survey{Set: "sha256:00", Unknown: []admin.UnknownCapability{{Role: "r", Capability: "c"}}}, "capabilities", "warn"},
	} {
		d := &doctor{config: &config{}}
		if d.survey(c.survey); states(d.checks, c.check) != c.want {
			t.Errorf("%+v: %s is %q, want %s", c.survey, c.check, states(d.checks, c.check), c.want)
		}
	}
}
