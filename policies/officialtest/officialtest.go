// Package officialtest asks the official Cedar engine, for tests: the one in Rust,
// as the npm package that policies/testdata/official pins. It shares no code with
// Ward or with cedar-go: it reads a pack's files and the canonical encoding of
// questions, and says what it finds and decides.
package officialtest

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Engine is the official engine, installed.
type Engine struct {
	dir     string
	builtin map[string][]byte
}

// Question is what the engine decides.
type Question struct {
	// Encoded is the canonical encoding of a question (policies.Encode).
	Encoded json.RawMessage `json:"question"`
	// Conforms holds the question to the schema: one that departs from it, in its
	// entities or its context, is a Failure. Any other is evaluated as it is.
	Conforms bool `json:"conforms"`
}

// Answer is what the engine decides, with the ids of the determining policies and
// of those that could not be evaluated, sorted.
type Answer struct {
	Allow           bool
	Reasons, Errors []string
	Failure         string // why the question was refused, or ""
}

// Report is what the engine says of a pack.
type Report struct {
	Version  string   // of the engine
	Policies []string // the ids of all policies, sorted
	Findings []string // errors and warnings of the strict validator
	Answers  []Answer // one for each question
}

// Open finds the engine below the folder of package policies. Without it the test
// is skipped, or fails where WARD_OFFICIAL=1 says that it was installed (make
// test).
func Open(t testing.TB, policies string) *Engine {
	t.Helper()
	e := &Engine{dir: filepath.Join(policies, "testdata", "official"), builtin: map[string][]byte{}}
	missing := t.Skipf
	if os.Getenv("WARD_OFFICIAL") == "1" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath("node"); err != nil {
		missing("the official Cedar engine needs Node.js 20 or later: install it, then run make test")
	}
	want := packages(t, filepath.Join(e.dir, "package-lock.json"))
	delete(want, "") // the folder itself
	got := packages(t, filepath.Join(e.dir, "node_modules", ".package-lock.json"))
	if len(want) == 0 || !reflect.DeepEqual(want, got) {
		missing("the official Cedar engine is not installed, or not as its lock file says: make test installs it (npm ci --ignore-scripts in %s)", e.dir)
	}
	for _, name := range []string{"schema.cedarschema", "policies.cedar"} {
		content, err := os.ReadFile(filepath.Join(policies, "builtin", name))
		if err != nil {
			t.Fatal(err)
		}
		e.builtin["builtin/"+name] = content
	}
	return e
}

// packages reads the packages of a lock file, none where there is no file.
func packages(t testing.TB, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	var lock struct{ Packages map[string]any }
	if err == nil {
		err = json.Unmarshal(text, &lock)
	}
	if err != nil {
		t.Fatal(err)
	}
	return lock.Packages
}

// Ask has the engine validate the schemas and policies among a pack's files, with
// Ward's own set under them, and decide questions.
func (e *Engine) Ask(t testing.TB, files map[string][]byte, questions []Question) Report {
	t.Helper()
	in := struct {
		Schemas   []string   `json:"schemas"`
		Policies  []string   `json:"policies"`
		Questions []Question `json:"questions"`
	}{Questions: append([]Question{}, questions...)}
	all := maps.Clone(e.builtin)
	maps.Copy(all, files)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch {
		case strings.HasSuffix(name, ".cedarschema"):
			in.Schemas = append(in.Schemas, string(all[name]))
		case strings.HasSuffix(name, ".cedar"):
			in.Policies = append(in.Policies, string(all[name]))
		}
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	const script = "cedar.mjs"
	if _, err := os.Stat(filepath.Join(e.dir, script)); err != nil { // so that go test runs again when it changes
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "node", script)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = e.dir, bytes.NewReader(text), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("node %s: %v\n%s", script, err, stderr.Bytes())
	}
	var r Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Answers) != len(questions) {
		t.Fatalf("the engine answered %d of %d questions", len(r.Answers), len(questions))
	}
	return r
}
