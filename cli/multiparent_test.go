package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// multiParent is a file of testdata/multi-parent: what became known and when,
// and what is then to be decided.
type multiParent struct {
	Case    string
	Settled string // in a sentence
	Steps   []struct {
		Learned string // when Ward learned it
		Facts   []map[string]any
		End     []struct{ Fact, At string } // At as in facts: a date includes its day
		Void    []string
		Refused string // the code with which it is refused
	}
	// Records are those that the rows speak of by name.
	Records   map[string]multiParentRecord
	Decisions []struct {
		At       string // when it is asked for
		KnownAt  string // what is known; all of it unless said
		Subject  string
		Action   string
		Resource string // the name of a record, or TYPE:ID
		Grant    string // the only one that may permit
		Expect   string
		Code     authz.Code
		Policies []string // the reasons, where it is permitted or forbidden
		// ValidUntil is the instant, or "open" for none; not compared unless said.
		ValidUntil string
		Why        string
	}
}

type multiParentRecord struct {
	Type, ID   string
	Properties map[string]any
}

func readMultiParent(t *testing.T, path string) multiParent {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{path: path}
	doc := r.document(text)
	if r.err != nil {
		t.Fatal(r.err)
	}
	plain := r.plain(doc, 0)
	if r.err != nil {
		t.Fatal(r.err)
	}
	b, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	d.UseNumber()
	var f multiParent
	if err := d.Decode(&f); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return f
}

// shipped is the shipped pack, compiled once.
var shipped = sync.OnceValues(func() (*policies.Set, error) { return policies.Compile(policies.PBM()) })

// timeline is a decision point whose clock stands where the facts say.
type timeline struct {
	t     *testing.T
	p     *pdp.PDP
	clock time.Time
	admin authz.Subject
	as    authz.Caller
	facts map[string]named
}

// named is a fact that a later step ends or voids.
type named struct {
	fact hierarchy.FactID
	kind hierarchy.Kind
}

func newTimeline(t *testing.T, start string) *timeline {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	set, err := shipped()
	ok(err)
	w := &timeline{t: t, facts: map[string]named{}, clock: moment(t, start).Time(),
		as: authz.Caller{Name: "admin", Asserts: []string{pdp.AdminType}, Issuer: pdp.UnixIssuer, Assurance: 2}}
	w.admin, err = w.as.Assert(authz.Subject{Type: pdp.AdminType, ID: "1000"})
	ok(err)
	dir := t.TempDir()
	ok(audit.CreateKeys(dir+"/keys", "ward.test/audit"))
	keys, err := audit.OpenKeys(dir + "/keys")
	ok(err)
	ok(audit.Create(dir+"/ledger", keys))
	ledger, _, err := audit.Open(dir+"/ledger", keys, audit.Options{})
	ok(err)
	t.Cleanup(func() { ledger.Close() })
	w.p, err = pdp.Initialise(context.Background(), pdp.Config{Store: storetest.NewMemory(), Ledger: ledger, Keys: keys,
		Clock: func() time.Time { return w.clock }}, pdp.Setup{Operator: "pbm", Set: set, Admins: map[string]int{"ana": 1000}})
	ok(err)
	return w
}

func moment(t *testing.T, s string) hierarchy.Instant {
	t.Helper()
	at, err := pdp.ParseTime(s, "UTC", false)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return at
}

// learn applies a step as one change.
func (w *timeline) learn(f *multiParent, i int) {
	w.t.Helper()
	step := &f.Steps[i]
	w.clock = moment(w.t, step.Learned).Time()
	var events []hierarchy.Event
	names := make([]string, len(step.Facts))
	for k, fact := range step.Facts {
		for kind, v := range fact {
			if kind == "name" {
				names[k], _ = v.(string)
				continue
			}
			fields, _ := v.(map[string]any)
			e, err := pdp.EventOf(kind, fields, "UTC")
			if err != nil {
				w.t.Fatalf("step %d, fact %d: %v", i+1, k+1, err)
			}
			events = append(events, e)
		}
		if len(events) != k+1 {
			w.t.Fatalf("step %d, fact %d: want one kind of fact, and its name where a later step needs it", i+1, k+1)
		}
	}
	known := func(name string) named {
		n, ok := w.facts[name]
		if !ok {
			w.t.Fatalf("step %d: no fact is named %q", i+1, name)
		}
		return n
	}
	for _, end := range step.End {
		n := known(end.Fact)
		at, err := pdp.ParseTime(end.At, "UTC", true)
		if err != nil {
			w.t.Fatalf("step %d: %v", i+1, err)
		}
		events = append(events, hierarchy.Event{Op: hierarchy.End, Kind: n.kind, Fact: n.fact, At: at})
	}
	for _, name := range step.Void {
		n := known(name)
		events = append(events, hierarchy.Event{Op: hierarchy.Void, Kind: n.kind, Fact: n.fact})
	}
	done, err := w.p.Change(context.Background(), pdp.Change{Actor: w.admin, Caller: w.as, Events: events, Why: f.Case})
	var refusal *hierarchy.Refusal
	switch {
	case step.Refused != "":
		if !errors.As(err, &refusal) || refusal.Code != step.Refused {
			w.t.Fatalf("step %d: got %v, want it refused as %s", i+1, err, step.Refused)
		}
		return
	case err != nil:
		w.t.Fatalf("step %d: %v", i+1, err)
	}
	for k, name := range names {
		if name != "" {
			w.facts[name] = named{done.Facts[k], events[k].Kind}
		}
	}
}

// decide asks what a row asks.
func (w *timeline) decide(f *multiParent, i int) (authz.Verdict, error) {
	row := &f.Decisions[i]
	q := pdp.Inquiry{Actor: w.admin, Caller: w.as, At: moment(w.t, row.At)}
	if row.KnownAt != "" {
		q.KnownAt = w.p.Graph().RevisionAt(moment(w.t, row.KnownAt))
	}
	var r authz.Request
	typ, id, _ := strings.Cut(row.Subject, ":")
	r.Subject = authz.Subject{Type: typ, ID: id, Assurance: 2}
	r.Action.Name, r.Grant = row.Action, row.Grant
	if record, ok := f.Records[row.Resource]; ok {
		r.Resource = authz.Resource{Type: record.Type, ID: record.ID, Properties: record.Properties}
	} else {
		r.Resource.Type, r.Resource.ID, ok = strings.Cut(row.Resource, ":")
		if !ok {
			return authz.Verdict{}, fmt.Errorf("no record is named %q", row.Resource)
		}
	}
	q.Requests = []authz.Request{r}
	a, err := w.p.Ask(context.Background(), q)
	if err != nil {
		return authz.Verdict{}, err
	}
	return a.Verdicts[0], nil
}

// TestMultiParentCases decides the rows of testdata/multi-parent: the fourteen
// ways in which somebody or something has several parents.
func TestMultiParentCases(t *testing.T) {
	paths, err := filepath.Glob("../testdata/multi-parent/*.yaml")
	if err != nil || len(paths) != 14 {
		t.Fatalf("found %d files, want the fourteen cases (%v)", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			f := readMultiParent(t, path)
			if f.Case == "" || f.Settled == "" || len(f.Steps) == 0 || len(f.Decisions) < 6 {
				t.Fatal("a fixture names its case, how it is settled, what is known and at least six decisions")
			}
			w := newTimeline(t, f.Steps[0].Learned)
			for i := range f.Steps {
				w.learn(&f, i)
			}
			for i, row := range f.Decisions {
				v, err := w.decide(&f, i)
				where := fmt.Sprintf("row %d, %s", i+1, row.Why)
				if err != nil {
					t.Errorf("%s: %v", where, err)
					continue
				}
				until := "open"
				if v.ValidUntil != 0 {
					until = hierarchy.Instant(v.ValidUntil).String()
				}
				switch {
				case row.Why == "" || row.Code == "":
					t.Errorf("row %d says not why, or names no code", i+1)
				case v.Effect.String() != row.Expect || v.Code != row.Code:
					t.Errorf("%s: %s %s %s at %s: got %s %s %q, want %s %s", where, row.Subject, row.Action, row.Resource, row.At, v.Effect, v.Code, v.Reasons, row.Expect, row.Code)
				case len(row.Policies) > 0 && !slices.Equal(v.Reasons, row.Policies):
					t.Errorf("%s: decided by %q, want %q", where, v.Reasons, row.Policies)
				case row.ValidUntil != "" && until != row.ValidUntil:
					t.Errorf("%s: valid until %s, want %s", where, until, row.ValidUntil)
				}
			}
		})
	}
}
