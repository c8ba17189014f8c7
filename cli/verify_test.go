package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnIndependentVerifier: a script that shares no code with Ward agrees with
// it about ledgers and cases, whole and damaged.
func TestAnIndependentVerifier(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("the independent verifier needs python3, version 3.8 or later, and nothing else: install it")
	}
	dir := t.TempDir()
	ward := func(args ...string) {
		t.Helper()
		var out, errs strings.Builder
		a := app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
		if code := a.main(append(args, "--config", filepath.Join(dir, "ward.yaml"))); code != exitOK {
			t.Fatalf("ward %s: exit %d\n%s", strings.Join(args, " "), code, errs.String())
		}
	}
	ward("init", "--admin", "you="+itoa(os.Getuid()), "--operator", "river")
	ward("hierarchy", "apply", "demo/facts.yaml", "--why", "test")
	ward("can", "user:nora", "lab.view", "lab:cbc", "--with", "patient=Patient:general/otto", "--with", "sensitivity=routine", "--with", "minorConsent=false")
	ward("audit", "export", "a-0..a-2", "--out", filepath.Join(dir, "case"))
	data := filepath.Join(dir, "data", "ledger")
	check := func(what, folder, key string) (code int, text string) {
		t.Helper()
		out, err := exec.Command(python, "../testdata/verify/verify.py", what, folder, key).CombinedOutput()
		var e *exec.ExitError
		if errors.As(err, &e) {
			code = e.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return code, strings.TrimSpace(string(out))
	}
	key := filepath.Join(dir, "keys", "verifier")
	for what, folder := range map[string]string{"ledger": data, "case": filepath.Join(dir, "case")} {
		code, text := check(what, folder, key)
		if code != 0 || !strings.Contains(text, "records") {
			t.Fatalf("%s: exit %d: %s", what, code, text)
		}
		t.Logf("%s: %s", what, text)
	}
	files := func(folder string, suffixes ...string) (out []string) {
		list, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			for _, s := range suffixes {
				if strings.HasSuffix(f.Name(), s) {
					out = append(out, f.Name())
				}
			}
		}
		return out
	}
	damages := 0
	damaged := func(what, folder, name string, change func([]byte) []byte) {
		t.Helper()
		damages++
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(copied, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, text := check(what, copied, key); code != 7 || !strings.Contains(text, "not as it was written: ") {
			t.Errorf("%s, %s: exit %d: %s", what, name, code, text)
		}
	}
	flip := func(at int) func([]byte) []byte { // of a thousand
		return func(b []byte) []byte { b[at*(len(b)-1)/1000] ^= 1; return b }
	}
	for _, at := range []int{0, 3, 50, 333, 666, 999, 1000} {
		for _, name := range files(data, "00000000000000000000", "checkpoints") {
			damaged("ledger", data, name, flip(at))
		}
		for _, name := range files(filepath.Join(dir, "case"), ".record", ".proof", ".policies") {
			damaged("case", filepath.Join(dir, "case"), name, flip(at))
		}
	}
	damaged("ledger", data, "00000000000000000000", func(b []byte) []byte { return b[:len(b)-1] })
	damaged("ledger", data, "00000000000000000000", func(b []byte) []byte { return nil })
	damaged("ledger", data, "checkpoints", func(b []byte) []byte { return nil })
	t.Logf("%d damaged folders, all found", damages)
	// Another ledger's key.
	other := filepath.Join(dir, "other")
	dir = other
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	ward("init", "--admin", "you="+itoa(os.Getuid()), "--operator", "river")
	for what, folder := range map[string]string{"ledger": data, "case": filepath.Join(filepath.Dir(other), "case")} {
		if code, text := check(what, folder, filepath.Join(other, "keys", "verifier")); code != 7 {
			t.Errorf("%s under another key: exit %d: %s", what, code, text)
		}
	}
}
