package cli

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/adapters/admin"
)

// TestShredEndToEnd: what was decided eight years ago is shredded today. It
// verifies, is found, and is neither shown nor replayed.
func TestShredEndToEnd(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2018, 11, 20, 12, 0, 0, 0, time.UTC)
	var logs bytes.Buffer
	run := func(code int, want string, args ...string) string {
		t.Helper()
		now = now.Add(time.Second)
		var out, errs bytes.Buffer
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" },
			clock: func() time.Time { return now }}
		got := a.main(append([]string{"--config", filepath.Join(dir, "ward.yaml")}, args...))
		logs.Write(errs.Bytes())
		if text := out.String() + errs.String(); got != code || !strings.Contains(text, want) {
			t.Fatalf("ward %v: exit code %d, want %d and %q\n%s", args, got, code, want, text)
		}
		return out.String()
	}
	uid := strconv.Itoa(os.Getuid())
	facts := filepath.Join(dir, "facts.yaml")
	if err := os.WriteFile(facts, []byte(`
- node: {id: "Tenant:acme"}
- edge: {child: "Tenant:acme", kind: operatedBy, parent: "Operator:pbm"}
- node: {id: "Group:acme/g8"}
- edge: {child: "Group:acme/g8", kind: memberOf, parent: "Tenant:acme"}
- node: {id: "Coverage:acme/cov1"}
- edge: {child: "Coverage:acme/cov1", kind: enrolledIn, parent: "Group:acme/g8"}
- node: {id: "User:leo", principal: true}
- node: {id: "Person:leo"}
- link: {kind: self, from: "User:leo", to: "Person:leo"}
- link: {kind: owns, from: "Person:leo", to: "Coverage:acme/cov1"}
- entitlement: {tenant: "Tenant:acme", name: claims}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	run(0, "", "init", "--admin", "ana="+uid, "--records-officer", "ana="+uid, "--operator", "pbm")
	run(0, "", "hierarchy", "apply", facts)
	run(0, "ALLOW", "can", "user:leo", "claim.view", "claim:canary-claim", "--with", "coverage=Coverage:acme/cov1", "--with", "pharmacy=null",
		"--with", "prescriber=null", "--with", "fillDate=2018-03-01", "--with", "sensitivity=routine", "--with", "minorConsent=false")
	run(0, "same  a-2", "replay", "a-2")
	seals, err := filepath.Glob(filepath.Join(dir, "keys", "seals", "2018-11-20", "*"))
	if err != nil || len(seals) != 2 {
		t.Fatal(seals, err)
	}
	canaries := [][]byte{[]byte("canary-claim")}
	for _, s := range seals {
		raw, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		canaries = append(canaries, bytes.Fields(raw)[2])
	}
	now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	done := run(0, "shredded", "audit", "shred", "acme", "2018-11-20", "--confirm", "acme/2018-11-20", "--why", "retention is over")
	record := strings.Fields(done)[1]
	run(0, "shredded before  "+record, "audit", "shred", "acme", "2018-11-20", "--confirm", "acme/2018-11-20")
	if strings.Contains(logs.String(), "six years") {
		t.Error("warned of a day of eight years ago")
	}
	run(0, "self-consistent", "audit", "verify")
	run(4, "shredded  a-2", "replay", "a-2")
	run(4, "a-2 is shredded: its key was destroyed ("+record+")", "audit", "show", "a-2")
	run(4, "shredded: record a-2", "explain", "a-2")
	run(0, "a-2", "audit", "find", "--person", "Person:leo")
	run(0, "same  "+record, "replay", record)
	run(0, "allow audit.shred permitted", "audit", "find", "--action", "audit.shred")
	run(0, "shredded  "+record, "audit", "keys")
	run(0, "shredded", "audit", "shred", "--operator", "2018-11-20", "--confirm", "operator/2018-11-20")
	run(4, "3 shredded", "replay", "a-0..a-2", "-o", "table")
	run(4, "0 different", "replay", "all")
	if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(p)
		for _, c := range canaries {
			if bytes.Contains(raw, c) {
				t.Errorf("%s holds %s", p, c)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range canaries[1:] {
		if bytes.Contains(logs.Bytes(), c) {
			t.Error("a key was printed")
		}
	}
}

func TestAskTwice(t *testing.T) {
	for typed, ok := range map[string]bool{
		"yes\nacme/2018-11-20\n": true, " yes \n acme/2018-11-20": true,
		"": false, "yes\n": false, "y\nacme/2018-11-20\n": false, "yes\nacme\n": false, "yes\nyes\n": false, "yes\nacme/2018-11-21\n": false,
		"acme/2018-11-20\nacme/2018-11-20\n": false,
	} {
		var errs bytes.Buffer
		a := &app{stdin: strings.NewReader(typed), stderr: &errs}
		in := admin.KeyChange{Tenant: "acme", Day: "2018-11-20"}
		if err := a.askTwice(&in); (err == nil) != ok {
			t.Errorf("%q: %v", typed, err)
		}
	}
}
