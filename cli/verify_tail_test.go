package cli

import (
	little "encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheIndependentVerifierReadsAsTheFormatSays: behind the last checkpoint,
// after a rotation, and of what belongs to no case.
func TestTheIndependentVerifierReadsAsTheFormatSays(t *testing.T) {
	dir := t.TempDir()
	ward := func(want int, args ...string) {
		t.Helper()
		var out, errs strings.Builder
		a := app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
		if code := a.main(append(args, "--config", filepath.Join(dir, "ward.yaml"))); code != want {
			t.Errorf("ward %s: exit %d, want %d\n%s", strings.Join(args, " "), code, want, errs.String())
		}
	}
	ask := func() {
		ward(exitOK, "can", "user:nora", "lab.view", "lab:cbc", "--with", "patient=Patient:general/otto", "--with", "sensitivity=routine", "--with", "minorConsent=false")
	}
	ward(exitOK, "init", "--admin", "you="+itoa(os.Getuid()), "--operator", "river")
	ward(exitOK, "hierarchy", "apply", "demo/facts.yaml", "--why", "test")
	ask()
	ward(exitOK, "audit", "export", "a-2", "--out", filepath.Join(dir, "case"))
	oldest, err := os.ReadFile(filepath.Join(dir, "keys", "verifier"))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "oldest")
	if err := os.WriteFile(key, oldest, 0o600); err != nil {
		t.Fatal(err)
	}
	ward(exitOK, "audit", "rotate", "--why", "test")
	ask()
	check := func(what, folder string, want int) {
		t.Helper()
		code := 0
		out, err := exec.Command("python3", "../testdata/verify/verify.py", what, folder, key).CombinedOutput()
		var e *exec.ExitError
		if errors.As(err, &e) {
			code = e.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != want {
			t.Errorf("%s: exit %d, want %d: %s", filepath.Base(folder), code, want, out)
		}
		if what == "ledger" {
			ward(want, "audit", "verify", "--ledger", folder, "--verifier", strings.TrimSpace(string(oldest)))
		}
	}
	ledger := filepath.Join(dir, "data", "ledger")
	check("ledger", ledger, exitOK) // the oldest key is enough
	copied := func(name, from string) string {
		to := filepath.Join(dir, name)
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		return to
	}
	change := func(folder, name string, f func([]byte) []byte) {
		path := filepath.Join(folder, name)
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, f(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	frame := func(b []byte, n int) (at int) {
		for range n {
			at += 16 + int(little.LittleEndian.Uint32(b[at:]))
		}
		return at
	}
	// As a crash leaves it: nothing after the second record is under a checkpoint.
	uncovered := func(name string) string {
		folder := copied(name, ledger)
		change(folder, "checkpoints", func(b []byte) []byte {
			i := strings.Index(string(b), "\n\nriver/ward/audit\n3\n")
			return b[:i+2]
		})
		return folder
	}
	torn := uncovered("torn")
	change(torn, "00000000000000000000", func(b []byte) []byte { return b[:frame(b, 2)+100] })
	check("ledger", torn, exitOK)
	damaged := uncovered("damaged")
	change(damaged, "00000000000000000000", func(b []byte) []byte { b[frame(b, 2)+60] ^= 1; return b })
	check("ledger", damaged, exitIntegrity)
	// A case with what is not of it.
	extra := copied("extra", filepath.Join(dir, "case"))
	if err := os.WriteFile(filepath.Join(extra, "note"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("case", extra, exitIntegrity)
}
