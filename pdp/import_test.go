package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/boltstore"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// row is a line of a feed in sentences; "implied" before one marks it.
func row(file, line int, text string) Row {
	r := Row{File: file, Line: line}
	for _, s := range strings.Split(text, ";") {
		s, implied := strings.CutPrefix(strings.TrimSpace(s), "implied ")
		if s == "" {
			continue
		}
		e, err := sentence(strings.Fields(s))
		if err != nil {
			panic(err)
		}
		r.Facts = append(r.Facts, Desired{Event: e, Implied: implied})
	}
	return r
}

// during says when the source knew a row.
func during(r Row, from, to string) Row {
	r.Known = hierarchy.Always
	for i, at := range []*hierarchy.Instant{&r.Known.From, &r.Known.To} {
		s := []string{from, to}[i]
		if s == "" {
			continue
		}
		t, err := ParseTime(s, "UTC", false)
		if err != nil {
			panic(err)
		}
		*at = t
	}
	return r
}

func rowsOf(list []Row) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (s *site) feed(id, tenant string, rows ...Row) Feed {
	return Feed{Actor: s.admin, Caller: adminCaller, ID: id, Tenant: tenant, Why: "test",
		Files: []FeedFile{{"a.csv", "sha256:aa"}, {"b.csv", "sha256:bb"}}, Rows: rowsOf(rows)}
}

func (s *site) load(f Feed) Imported {
	s.t.Helper()
	got, err := s.p.Import(context.Background(), f)
	must(s.t, err)
	whole(s.t, got)
	return got
}

// whole holds the one sum that no report may break.
func whole(t testing.TB, r Imported) {
	t.Helper()
	refused := map[string]int{}
	for _, x := range r.Refusals {
		refused[x.File]++
	}
	for _, f := range r.Files {
		if f.Rows != f.Loaded+f.Unchanged+f.Refused || f.Refused != refused[f.Name] {
			t.Errorf("%s: rows %d, loaded %d, unchanged %d, refused %d, %d refusals listed", f.Name, f.Rows, f.Loaded, f.Unchanged, f.Refused, refused[f.Name])
		}
	}
}

func (s *site) counts(r Imported, file int, want string) {
	s.t.Helper()
	f := r.Files[file]
	if got := fmt.Sprintf("%d rows, %d loaded, %d unchanged, %d refused, %d implied", f.Rows, f.Loaded, f.Unchanged, f.Refused, f.Implied); got != want {
		s.t.Errorf("%s: %s; want %s; refusals %.10v", f.Name, got, want, codes(r))
	}
}

func (s *site) reaches(from, to, at string, rev uint64) bool {
	s.t.Helper()
	t, err := ParseTime(at, "UTC", false)
	must(s.t, err)
	a, err := hierarchy.ParseID(from)
	must(s.t, err)
	b, err := hierarchy.ParseID(to)
	must(s.t, err)
	return s.p.View(t, rev).Reaches(a, b)
}

func codes(r Imported) (out []string) {
	for _, x := range r.Refusals {
		out = append(out, fmt.Sprintf("%s:%d %s", x.File, x.Line, x.Code))
	}
	return out
}

const base = `implied node Carrier:acme/c1; implied Carrier:acme/c1 memberOf Tenant:acme;
	implied node Group:acme/g1; implied Group:acme/g1 memberOf Carrier:acme/c1; `

func enrolled(line int, coverage, dates string) Row {
	return row(0, line, base+`node Coverage:acme/`+coverage+`; Coverage:acme/`+coverage+` enrolledIn Group:acme/g1 `+dates)
}

func TestAnImportReconciles(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	feed := func(id string) Feed {
		return s.feed(id, "acme", enrolled(2, "v1", "from 2026-01-01 to 2026-06-30"), enrolled(3, "v1", "from 2026-07-01"),
			enrolled(4, "v2", "from 2026-01-01"), enrolled(5, "v2", "from 2026-03-01"))
	}
	got := s.load(feed("one"))
	s.counts(got, 0, "4 rows, 3 loaded, 1 unchanged, 0 refused, 2 implied")
	if got.Tenant != "acme" || got.Revisions != 2 {
		t.Errorf("made tenant %q in %d revisions, want acme in 2", got.Tenant, got.Revisions)
	}
	if !s.reaches("Coverage:acme/v1", "Operator:ward", "2026-06-30T23:59:59.999Z", 0) || s.reaches("Coverage:acme/v1", "Group:acme/g1", "2025-12-31", 0) {
		t.Error("the enrolment does not hold as stated")
	}

	// The same again, under any id, changes nothing.
	tip := s.p.Graph().Tip()
	for _, id := range []string{"one", "two"} {
		again := s.load(feed(id))
		s.counts(again, 0, "4 rows, 0 loaded, 4 unchanged, 0 refused, 0 implied")
		if again.Revisions != 0 || s.p.Graph().Tip() != tip {
			t.Errorf("import %s: %d revisions for nothing", id, again.Revisions)
		}
	}

	// A retro-termination replaces what it overlaps, and touches nothing else.
	three := s.feed("three", "acme", enrolled(2, "v1", "from 2026-07-01 to 2026-08-31"), enrolled(3, "v2", "from 2020-01-01 to 2020-12-31"))
	three.MassEnd = true
	got = s.load(three)
	s.counts(got, 0, "2 rows, 2 loaded, 0 unchanged, 0 refused, 0 implied")
	if got.Facts != 2 || got.Voided != 1 {
		t.Errorf("asserted %d and voided %d facts, want 2 and 1", got.Facts, got.Voided)
	}
	for at, want := range map[string]bool{"2026-02-01": false, "2026-08-31T23:59:59.999Z": true, "2026-09-01": false} {
		if s.reaches("Coverage:acme/v1", "Group:acme/g1", at, 0) != want {
			t.Errorf("v1 at %s: want %v", at, want)
		}
		if !s.reaches("Coverage:acme/v1", "Group:acme/g1", at, tip.Revision) {
			t.Errorf("v1 at %s as known before: the past changed", at)
		}
	}
	if !s.reaches("Coverage:acme/v2", "Group:acme/g1", "2020-06-01", 0) || !s.reaches("Coverage:acme/v2", "Group:acme/g1", "2026-06-01", 0) {
		t.Error("v2: what the row does not overlap was touched")
	}
}

func TestNodesThatARowListsAndNodesThatItImplies(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(`
		node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		person Person:pat born 1990-01-01 in US-OH
		node Carrier:acme/c1 from 2020-01-01`)
	named := row(1, 2, `node Plan:acme/p1`)
	named.Facts[0].Event.Node.Attrs = map[string]any{"name": "Silver"}
	got := s.load(s.feed("one", "acme",
		row(0, 2, `implied node Plan:acme/p1; implied node Plan:acme/p2; node Coverage:acme/v1; Coverage:acme/v1 enrolledIn Plan:acme/p1`),
		row(0, 3, `implied node Plan:acme/p1; node Coverage:acme/v2; Coverage:acme/v2 enrolledIn Plan:acme/p1; node Person:pat; Person:pat owns Coverage:acme/v2`),
		row(0, 4, `implied node Carrier:acme/c1; implied Carrier:acme/c1 memberOf Tenant:acme`), // not before 2020
		named))
	s.counts(got, 0, "3 rows, 2 loaded, 0 unchanged, 1 refused, 1 implied")
	s.counts(got, 1, "1 rows, 1 loaded, 0 unchanged, 0 refused, 0 implied")
	if want := []string{"a.csv:4 unknown_end"}; !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused %v, want %v", codes(got), want)
	}
	v := s.p.View(0, 0)
	if n, _, _ := v.Node(hierarchy.ID{Type: "Plan", Tenant: "acme", Key: "p1"}); n.Attrs["name"] != "Silver" {
		t.Errorf("p1 has attributes %v", n.Attrs)
	}
	if n, _, _ := v.Node(hierarchy.PersonID("pat")); n.Person == nil || n.Person.BirthDate != "1990-01-01" {
		t.Error("the import lost what was known of a person")
	}
	// Another name changes the plan; attributes that the feed does not state stay.
	renamed := row(0, 2, `node Plan:acme/p1`)
	renamed.Facts[0].Event.Node.Attrs = map[string]any{"tier": "2"}
	got = s.load(s.feed("two", "acme", renamed, row(0, 3, `implied node Plan:acme/p1`), row(0, 4, `node Plan:acme/p1`)))
	n, _, _ := s.p.View(0, 0).Node(hierarchy.ID{Type: "Plan", Tenant: "acme", Key: "p1"})
	if n.Attrs["name"] != "Silver" || n.Attrs["tier"] != "2" {
		t.Errorf("p1 has attributes %v", n.Attrs)
	}
	if want := []string{"a.csv:4 value_conflict"}; !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused %v, want %v", codes(got), want)
	}
}

func TestRefusedRowsNameFileLineAndReason(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(`
		node Tenant:zeta
		Tenant:zeta operatedBy Operator:ward
		node Group:zeta/g1`)
	unread := Row{File: 1, Line: 9, Refused: &Reason{"date_unreadable", "BGN is no date"}}
	details := row(0, 20, `person Person:pat born 1990-01-01 in US-OH`)
	detailed := row(0, 21, `node Person:pat`)
	detailed.Facts[0].Event.Node.Attrs = map[string]any{"name": "Pat"}
	secret := "secretkey"
	got := s.load(s.feed("one", "acme",
		enrolled(2, "v1", "from 2026-01-01"),
		enrolled(3, secret, "from 2026-07-01 to 2026-06-29"),
		row(0, 4, `node Coverage:acme/`+secret+`; Coverage:acme/`+secret+` enrolledIn Group:acme/none`),
		row(0, 5, `node Coverage:zeta/`+secret),
		row(0, 6, base+`node Account:acme/a6; Account:acme/a6 memberOf Account:acme/a6`),
		row(0, 7, `node Account:acme/a1; node Account:acme/a2; Account:acme/a1 memberOf Account:acme/a2`),
		row(0, 8, `node Account:acme/a1; node Account:acme/a2; node Coverage:acme/v8; Account:acme/a2 memberOf Account:acme/a1`),
		row(0, 9, `node Coverage:acme/`+secret+`; implied node Group:acme/g1; Coverage:acme/`+secret+` memberOf Group:acme/g1`),
		row(0, 10, `Person:`+secret+` blocks User:x`),
		row(0, 11, `User:x holds broker at Group:acme/g1`),
		row(0, 12, `node Thing:acme/t`),
		row(0, 13, `node Coverage:`+secret),
		during(enrolled(14, "v3", ""), "2026-01-01", "2026-06-01"),
		during(enrolled(15, "v3", ""), "2026-06-01", "2026-06-01"),
		during(enrolled(16, "v3", ""), "2027-06-01", ""),
		row(0, 17, `implied Carrier:acme/c1 memberOf Group:zeta/g1`),
		Row{Line: 18},
		row(0, 19, `node Operator:other`),
		details, detailed, unread))
	want := []string{"a.csv:3 interval_inverted", "a.csv:4 unknown_end", "a.csv:5 tenancy_violation", "a.csv:6 cycle", "a.csv:8 cycle",
		"a.csv:9 edge_kind_unknown", "a.csv:10 kind_not_imported", "a.csv:11 principal_unknown", "a.csv:12 node_type_unknown", "a.csv:13 tenancy_violation",
		"a.csv:14 row_obsolete", "a.csv:15 known_inverted", "a.csv:16 known_in_future", "a.csv:17 edge_kind_unknown", "a.csv:18 row_empty", "a.csv:19 tenancy_violation",
		"a.csv:20 person_details", "a.csv:21 person_details", "b.csv:9 date_unreadable"}
	if !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused\n%s\nwant\n%s", strings.Join(codes(got), "\n"), strings.Join(want, "\n"))
	}
	s.counts(got, 0, "20 rows, 2 loaded, 0 unchanged, 18 refused, 2 implied")
	text, _ := json.Marshal(got)
	if strings.Contains(string(text), secret) {
		t.Errorf("a refusal repeats a key: %s", text)
	}
	// Nothing of a refused row is kept.
	view := s.p.View(0, 0)
	for _, id := range []string{"Coverage:acme/v8", "Coverage:acme/" + secret, "Coverage:acme/v3"} {
		x, _ := hierarchy.ParseID(id)
		if exists(view, x) {
			t.Errorf("%s of a refused row is kept", id)
		}
	}
}

// A row of a later batch is refused after an earlier one wrote a part of what
// it says: that part goes.
func TestARefusedRowLeavesNothingInEarlierBatches(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	f := s.feed("one", "acme",
		row(0, 2, base+`node Account:acme/a1; node Account:acme/a2; Account:acme/a1 memberOf Account:acme/a2 from 2026-01-01 to 2026-03-31`),
		row(1, 2, `node Account:acme/a1; node Account:acme/a2; Account:acme/a1 memberOf Account:acme/a2 from 2026-03-01; Account:acme/a2 memberOf Account:acme/a1 from 2026-03-01`))
	got := s.load(f)
	if want := []string{"b.csv:2 cycle"}; !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused %v, want %v", codes(got), want)
	}
	if !s.reaches("Account:acme/a1", "Account:acme/a2", "2026-03-31", 0) || s.reaches("Account:acme/a1", "Account:acme/a2", "2026-04-01", 0) {
		t.Error("what the refused row said is kept")
	}
}

func TestManyRefusals(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	var rows []Row
	for i := range 3000 {
		to := "none"
		if i%3 == 0 {
			to = "g1"
		}
		rows = append(rows, row(0, i+2, fmt.Sprintf(`%snode Coverage:acme/v%d; Coverage:acme/v%d enrolledIn Group:acme/%s`, base, i, i, to)))
	}
	s.counts(s.load(s.feed("one", "acme", rows...)), 0, "3000 rows, 1000 loaded, 0 unchanged, 2000 refused, 2 implied")
}

func TestAnImportIsInvisibleUntilItCloses(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	var rows []Row
	for i := range 5000 {
		rows = append(rows, enrolled(i+2, fmt.Sprintf("v%d", i), "from 2026-01-01"))
	}
	f := s.feed("one", "acme", rows...)
	steps := 0
	f.Progress = func(p Progress) {
		steps++
		closed := len(s.p.Graph().Imports()) == 0
		if got := s.reaches("Coverage:acme/v0", "Group:acme/g1", "2026-02-01", 0); got != closed {
			t.Errorf("after revision %d: visible %v, closed %v", p.Revision, got, closed)
		}
	}
	got := s.load(f)
	if steps < 4 || steps != got.Revisions {
		t.Errorf("%d batches, %d revisions, want at least 4", steps, got.Revisions)
	}
	for rev := got.First; rev < got.Last; rev++ {
		if s.reaches("Coverage:acme/v0", "Group:acme/g1", "2026-02-01", rev) {
			t.Errorf("known at revision %d, before it closed", rev)
		}
	}
}

// reopen closes everything and opens it again, as after a crash.
func (s *site) reopen(path string) {
	s.t.Helper()
	must(s.t, s.ledger.Close())
	must(s.t, s.store.Close())
	store, err := boltstore.Open(path)
	must(s.t, err)
	s.store = store
	s.ledger, _, err = audit.Open(s.dir+"/ledger", s.keys, audit.Options{})
	must(s.t, err)
	s.p, err = Open(context.Background(), s.config())
	must(s.t, err)
}

func onBolt(t *testing.T) (*site, string) {
	path := t.TempDir() + "/store.db"
	must(t, boltstore.Create(path))
	store, err := boltstore.Open(path)
	must(t, err)
	return openOn(t, pbm(), "2026-11-24T12:00:00Z", store), path
}

// stateOf is everything that is known, at the head: facts without their places.
func stateOf(s *site) map[string]int {
	all := map[string]int{}
	for _, k := range []hierarchy.Kind{hierarchy.KindNode, hierarchy.KindEdge, hierarchy.KindLink} {
		for f := range s.p.View(0, 0).Facts(k) {
			f.Event.Row = 0
			b, _ := json.Marshal(f.Event)
			all[string(b)]++
		}
	}
	return all
}

func TestAnInterruptedImportResumes(t *testing.T) {
	build := func(s *site) Feed {
		var rows []Row
		for i := range 4000 {
			dates := "from 2026-01-01"
			if i%100 == 7 {
				dates = "from 2026-01-01 to 2025-01-01"
			}
			rows = append(rows, enrolled(i+2, fmt.Sprintf("v%d", i), dates))
		}
		rows = append(rows, row(1, 2, `node Coverage:acme/x; Coverage:acme/x enrolledIn Group:acme/none`), row(1, 3, `node Coverage:acme/y`))
		return s.feed("one", "acme", rows...)
	}
	whole, _ := onBolt(t)
	first := whole.load(build(whole))

	for kill := 1; kill <= first.Revisions-1; kill++ {
		t.Run(fmt.Sprint("after batch ", kill), func(t *testing.T) {
			s, path := onBolt(t)
			ctx, cancel := context.WithCancel(context.Background())
			f, n := build(s), 0
			f.Progress = func(Progress) {
				if n++; n == kill {
					cancel()
				}
			}
			if _, err := s.p.Import(ctx, f); err == nil {
				t.Fatal("the interrupted import says that it is complete")
			}
			s.reopen(path)
			if s.reaches("Coverage:acme/v0", "Group:acme/g1", "2026-02-01", 0) {
				t.Error("visible before the import closed")
			}
			// Another import of the tenant has to wait.
			other := s.feed("other", "acme", enrolled(2, "z", ""))
			var r *hierarchy.Refusal
			if _, err := s.p.Import(context.Background(), other); !errors.As(err, &r) || r.Code != hierarchy.CodeImportOpen {
				t.Errorf("a second import of the tenant: %v, want import_open", err)
			}
			got := s.load(build(s))
			if !got.Resumed || kill+got.Revisions != first.Revisions {
				t.Errorf("resumed %v, with %d revisions after %d; in one run %d", got.Resumed, got.Revisions, kill, first.Revisions)
			}
			if !reflect.DeepEqual(got.Files, first.Files) || !reflect.DeepEqual(got.Refusals, first.Refusals) {
				t.Errorf("resumed: %+v, want %+v", got.Files, first.Files)
			}
			if !reflect.DeepEqual(stateOf(s), stateOf(whole)) {
				t.Error("the facts differ from those of one run")
			}
		})
	}
}

func TestAnImportIsAbandoned(t *testing.T) {
	s, path := onBolt(t)
	before := stateOf(s)
	ctx, cancel := context.WithCancel(context.Background())
	f := s.feed("one", "acme", enrolled(2, "v1", ""), row(1, 2, `node Coverage:acme/y`))
	f.Progress = func(Progress) { cancel() }
	if _, err := s.p.Import(ctx, f); err == nil {
		t.Fatal("the interrupted import says that it is complete")
	}
	s.reopen(path)
	who := Change{Actor: s.admin, Caller: adminCaller}
	if _, err := s.p.AbandonImport(context.Background(), who, "two"); err == nil {
		t.Error("an unknown import was abandoned")
	}
	_, err := s.p.AbandonImport(context.Background(), who, "one")
	must(t, err)
	if !reflect.DeepEqual(stateOf(s), before) || len(s.p.Graph().Imports()) != 0 {
		t.Error("the abandoned import left something")
	}
	got := s.load(s.feed("one", "acme", enrolled(2, "v1", "")))
	s.counts(got, 0, "1 rows, 1 loaded, 0 unchanged, 0 refused, 2 implied")
}

func TestADryRunWritesNothing(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	tip := s.p.Graph().Tip()
	f := s.feed("one", "acme", enrolled(2, "v1", "from 2026-01-01"), enrolled(3, "v1", "from 2026-02-01 to 2026-01-01"))
	f.DryRun = true
	got := s.load(f)
	s.counts(got, 0, "2 rows, 1 loaded, 0 unchanged, 1 refused, 2 implied")
	if s.p.Graph().Tip() != tip || got.Revisions != 0 || !got.DryRun {
		t.Error("the dry run wrote something")
	}
}

func TestWardsOwnPoliciesDecideImports(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(`
		node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		node Tenant:zeta
		Tenant:zeta operatedBy Operator:ward
		principal Admin:tess
		1001@unix is Admin:tess
		Admin:tess holds security-admin at Tenant:acme`)
	tess, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	try := func(tenant string, rows ...Row) error {
		f := s.feed("by tess "+tenant, tenant, rows...)
		f.Actor = tess
		_, err := s.p.Import(context.Background(), f)
		return err
	}
	denied := func(what string, err error) {
		t.Helper()
		var e *authz.Error
		if !errors.As(err, &e) || e.Kind != authz.Refused || !strings.Contains(e.Text, "(record a-") {
			t.Errorf("%s: %v, want a recorded deny", what, err)
		}
	}
	must(t, try("acme", enrolled(2, "v1", "")))
	denied("another tenant", try("zeta", row(0, 2, `node Coverage:zeta/v1`)))
	denied("shared data", try("", row(0, 2, `node Pharmacy:p1`)))
	denied("a new tenant", try("new", row(0, 2, `node Coverage:new/v1`)))
	// Persons are no tenant's: to merge them is the operator's.
	denied("a merge", try("acme", row(0, 2, `node Person:a; node Person:b; Person:a merge Person:b`)))
	must(t, try("acme", row(0, 2, `node Person:a; implied node Coverage:acme/v1; Person:a owns Coverage:acme/v1`)))
}

func TestAHistoryImport(t *testing.T) {
	s, path := onBolt(t)
	rows := func() []Row {
		return []Row{
			row(1, 2, base), // known since ever
			during(enrolled(2, "v1", "from 2026-01-01"), "2026-01-10", "2026-04-15"),
			during(enrolled(3, "v1", "from 2026-01-01 to 2026-03-31"), "2026-04-15", ""), // a retro-termination
			during(enrolled(4, "v2", "from 2026-01-01"), "2026-01-10", "2026-02-01"),     // a void
			during(row(0, 5, base+`node Account:acme/a1; Account:acme/a1 memberOf Account:acme/a1`), "2026-01-10", ""),
			during(enrolled(6, "v3", "from 2026-02-01 to 2026-01-01"), "2026-01-10", ""),
		}
	}
	f := func() Feed { x := s.feed("one", "acme", rows()...); x.History = true; return x }
	ctx, cancel := context.WithCancel(context.Background())
	broken, n := f(), 0
	broken.Progress = func(Progress) {
		if n++; n == 2 {
			cancel()
		}
	}
	if _, err := s.p.Import(ctx, broken); err == nil {
		t.Fatal("the interrupted import says that it is complete")
	}
	s.reopen(path)
	got := s.load(f())
	s.counts(got, 0, "5 rows, 3 loaded, 0 unchanged, 2 refused, 0 implied")
	if want := []string{"a.csv:5 cycle", "a.csv:6 interval_inverted"}; !reflect.DeepEqual(codes(got), want) || !got.Resumed {
		t.Errorf("resumed %v, refused %v, want %v", got.Resumed, codes(got), want)
	}
	for _, c := range []struct {
		coverage, at, known string
		want                bool
	}{
		{"v1", "2026-05-01", "2026-01-09T23:59:59.999Z", false},
		{"v1", "2026-05-01", "2026-01-10", true},
		{"v1", "2026-05-01", "2026-04-14T23:59:59.999Z", true},
		{"v1", "2026-05-01", "2026-04-15", false},
		{"v1", "2026-03-31T23:59:59.999Z", "2026-04-15", true},
		{"v2", "2026-05-01", "2026-01-31T23:59:59.999Z", true},
		{"v2", "2026-05-01", "2026-02-01", false},
	} {
		known, _ := ParseTime(c.known, "UTC", false)
		if rev := s.p.Graph().RevisionAt(known); rev == 0 || s.reaches("Coverage:acme/"+c.coverage, "Group:acme/g1", c.at, rev) != c.want {
			t.Errorf("%+v: revision %d says otherwise", c, rev)
		}
	}
	for rev := got.First; rev < got.Last; rev++ {
		if b, _ := s.p.Graph().Batch(rev); !b.Provenance.SourceAsserted || b.Provenance.Feed == "" {
			t.Errorf("revision %d: provenance %+v", rev, b.Provenance)
		}
	}
	// History goes into an empty store only.
	again := s.feed("two", "acme", during(enrolled(2, "v9", ""), "2026-01-10", ""))
	again.History = true
	var r *hierarchy.Refusal
	if _, err := s.p.Import(context.Background(), again); !errors.As(err, &r) || r.Code != hierarchy.CodeStoreNotEmpty {
		t.Errorf("a second history import: %v, want store_not_empty", err)
	}
}

func FuzzDecodeRow(f *testing.F) {
	good, _ := json.Marshal(during(enrolled(2, "v1", "from 2026-01-01"), "2026-01-10", ""))
	f.Add(good)
	if _, ok := readRow(good); !ok {
		f.Errorf("the short way does not read %s", good)
	}
	for _, s := range []string{`"from":0`, `"from":-0`, `"to":01`, `"from":1,"to":2`, `"to":2,"from":1`, `"from":1,`, `"from":0,"to":0`, `"to":9223372036854775807`, `"from":-9223372036854775808`} {
		f.Add([]byte(`{"file":0,"line":1,"known":{` + s + `},"facts":[{"event":{"op":1,"kind":2,"valid":{` + s + `},"row":1,"edge":{"child":"Plan:a/b","kind":"x","parent":"Plan:a/c"}},"ends":true}]}`))
	}
	for _, s := range []string{`"node":{"id":"Plan:a/b","principal":true}`, `"node":{"id":"Plan:a/b","principal":false}`, `"node":{"id":"Plan:a/<"}`, `"link":{"kind":"owns","from":"Person:a","to":"Plan:a/b"}`, `"link":{"kind":"owns","to":"Plan:a/b"}`} {
		f.Add([]byte(`{"file":0,"line":1,"facts":[{"event":{"op":1,"kind":1,"valid":{},` + s + `},"implied":true},{"event":{"op":1,"kind":3,"row":0,` + s + `}}]}`))
	}
	f.Add([]byte(`{"file":0,"line":2,"refused":{"code":"x","text":"y"}}`))
	f.Add([]byte(`{"file":0,"line":1,"facts":[{"event":{"op":1,"kind":1,"valid":{},"node":{"id":"Plan:a/b","attrs":{"l":["a"],"n":1}}}}]}`))
	for _, bad := range []string{`{"file":0,"line":2,"known":{"frm":0}}`, `{"file":0,"line":2,"line":3}`, `{"file":0,"LINE":2}`, `{"file":0,"line":2} {}`} {
		if _, err := DecodeRow([]byte(bad)); err == nil {
			f.Errorf("%s is read", bad)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := DecodeRow(line)
		if short, ok := readRow(line); ok {
			if long, lerr := decodeRow(line); lerr != nil || !reflect.DeepEqual(short, long) {
				t.Fatalf("the short way reads %+v, the long one %+v, %v", short, long, lerr)
			}
		}
		if err != nil {
			return
		}
		out, err := json.Marshal(r)
		if err != nil || string(out) != strings.TrimSuffix(string(line), "\n") {
			t.Fatalf("%s is written as %s, %v", line, out, err)
		}
	})
}
