package pdp

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
)

// full makes a feed the whole truth of acme as of a date.
func (s *site) full(id, asOf string, rows ...Row) Feed {
	s.t.Helper()
	f := s.feed(id, "acme", rows...)
	f.Source, f.Full, f.MassEnd = "members", true, true
	f.Kinds = []string{"node Carrier", "node Group", "node Coverage", "edge Carrier memberOf", "edge Group memberOf", "edge Coverage enrolledIn",
		"link owns", "assignment", "entitlement", "grant"}
	var err error
	f.AsOf, err = ParseTime(asOf, "UTC", false)
	must(s.t, err)
	return f
}

// ending makes every fact of a row one that ends.
func ending(line int, text string) Row {
	r := row(0, line, text)
	for i := range r.Facts {
		r.Facts[i].Ends = true
	}
	return r
}

func refusedWith(t *testing.T, what string, err error, code string) string {
	t.Helper()
	var r *hierarchy.Refusal
	if !errors.As(err, &r) || r.Code != code {
		t.Fatalf("%s: %v, want %s", what, err, code)
	}
	return r.Text
}

func (s *site) enrolledAt(coverage, at string, want bool) {
	s.t.Helper()
	if s.reaches("Coverage:acme/"+coverage, "Group:acme/g1", at, 0) != want {
		s.t.Errorf("%s at %s: want %v", coverage, at, want)
	}
}

func TestAFullFeedEndsWhatItLacks(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.load(s.full("one", "2026-11-01",
		enrolled(2, "stays", "from 2026-01-01"), enrolled(3, "gone", "from 2026-01-01"), enrolled(4, "over", "from 2026-01-01 to 2026-03-31"),
		enrolled(5, "later", "from 2027-01-01"), enrolled(6, "doubted", "from 2026-01-01"), enrolled(7, "unread", "from 2026-01-01"),
		row(0, 8, `implied node Coverage:acme/two; implied node Group:acme/g1; Coverage:acme/two enrolledIn Group:acme/g1 from 2026-01-01 to 2026-06-30`),
		row(0, 9, `implied node Coverage:acme/two; implied node Group:acme/g1; Coverage:acme/two enrolledIn Group:acme/g1 from 2026-08-01`)))
	// By hand, and by a feed of another name.
	s.know(`
		node Coverage:acme/hand
		Coverage:acme/hand enrolledIn Group:acme/g1 from 2026-01-01`)
	other := s.feed("other", "acme", enrolled(2, "other", "from 2026-01-01"))
	other.Source = "others"
	s.load(other)

	doubted := enrolled(3, "doubted", "from 2026-05-01 to 2026-02-01") // refused by the kernel
	unread := enrolled(4, "unread", "from 2026-01-01")                 // and by who read it
	unread.Refused = &Reason{"date_unreadable", "BGN has none of the map's forms of a date"}
	got := s.load(s.full("two", "2026-11-20", enrolled(2, "stays", "from 2026-01-01"), doubted, unread,
		row(0, 5, `implied node Coverage:acme/two; implied node Group:acme/g1; Coverage:acme/two enrolledIn Group:acme/g1 from 2026-08-01`)))
	s.counts(got, 0, "4 rows, 0 loaded, 2 unchanged, 2 refused, 0 implied")
	for _, c := range []string{"stays", "doubted", "unread", "hand", "other", "two"} {
		s.enrolledAt(c, "2026-11-24", true)
	}
	s.enrolledAt("gone", "2026-11-19T23:59:59.999Z", true)
	s.enrolledAt("gone", "2026-11-20", false)
	s.enrolledAt("over", "2026-03-31T23:59:59.999Z", true) // what had ended keeps its own end
	s.enrolledAt("over", "2026-04-01", false)
	s.enrolledAt("later", "2027-06-01", false)
	s.enrolledAt("two", "2026-06-30", true) // the row of the past is gone, not the past
	// gone and over lose their node and gone its edge; later's is voided.
	if got.Ended != 4 || got.Voided != 1 || got.Facts != 0 {
		t.Errorf("%d ended, %d voided, %d asserted; want 4, 1, 0", got.Ended, got.Voided, got.Facts)
	}
	if c := got.Coverages; c == nil || *c != (Coverages{Live: 7, Ends: 1}) {
		t.Errorf("coverages %+v, want 1 of 7", c)
	}
	// The carrier and group hold others up, and are implied still.
	if again := s.load(s.full("three", "2026-11-20", enrolled(2, "stays", "from 2026-01-01"), doubted, unread,
		row(0, 5, `implied node Coverage:acme/two; implied node Group:acme/g1; Coverage:acme/two enrolledIn Group:acme/g1 from 2026-08-01`))); again.Revisions != 0 {
		t.Errorf("the same once more: %+v", again)
	}
	// A coverage that comes back does so from its own date.
	s.load(s.full("four", "2026-11-21", enrolled(2, "gone", "from 2026-11-22")))
	s.enrolledAt("gone", "2026-11-21", false)
	s.enrolledAt("gone", "2026-11-23", true)
	s.enrolledAt("stays", "2026-11-21", false)
}

func TestFeedsComeInOrder(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.load(s.full("two", "2026-11-20", enrolled(2, "a", "")))
	_, err := s.p.Import(context.Background(), s.full("one", "2026-11-13", enrolled(2, "b", "")))
	if text := refusedWith(t, "an older full feed", err, FeedStale); !strings.Contains(text, "2026-11-20") {
		t.Errorf("the refusal does not say which is newer: %s", text)
	}
	delta := s.feed("delta", "acme", enrolled(2, "c", ""))
	delta.Source = "members"
	delta.AsOf, _ = ParseTime("2026-11-19", "UTC", false)
	_, err = s.p.Import(context.Background(), delta)
	refusedWith(t, "an older delta", err, FeedStale)
	s.enrolledAt("a", "2026-11-24", true)
	delta.Source = "others" // has its own dates
	s.load(delta)
	undated := s.feed("undated", "acme", enrolled(2, "d", ""))
	undated.Source = "members"
	s.load(undated)
}

func TestTooManyEnds(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	var rows []Row
	for i := range 100 {
		rows = append(rows, enrolled(i+2, fmt.Sprint("v", i), "from 2026-01-01"))
	}
	s.load(s.full("one", "2026-11-01", rows...))
	tip := s.p.Graph().Tip()
	try := func(f Feed) error {
		f.MassEnd = false
		_, err := s.p.Import(context.Background(), f)
		return err
	}
	text := refusedWith(t, "three of a hundred", try(s.full("two", "2026-11-20", rows[:97]...)), FeedEndsTooMany)
	if !strings.Contains(text, "end 3 of the tenant's 100 live coverages (3.0 %)") {
		t.Errorf("the refusal does not count: %s", text)
	}
	// By rows that say so, and by a group that is gone.
	delta := s.feed("three", "acme")
	for i := range 3 {
		rows = append(rows, ending(i+2, fmt.Sprintf(`Coverage:acme/v%d enrolledIn Group:acme/g1 to 2026-10-31`, i)))
	}
	delta.Rows = rowsOf(rows[100:])
	refusedWith(t, "three ends", try(delta), FeedEndsTooMany)
	gone := s.full("four", "2026-11-20", row(0, 2, base))
	gone.Kinds = []string{"edge Group memberOf", "node Group"}
	gone.Rows = rowsOf([]Row{row(0, 2, `implied node Carrier:acme/c1`)})
	text = refusedWith(t, "their group", try(gone), FeedEndsTooMany)
	if !strings.Contains(text, "end 100 of the tenant's 100") {
		t.Errorf("coverages that stand under what ends are not counted: %s", text)
	}
	if s.p.Graph().Tip() != tip {
		t.Error("a refused feed wrote something")
	}
	must(t, try(s.full("five", "2026-11-20", rows[:98]...)))
	s.enrolledAt("v98", "2026-11-24", false)
	// 2 of 98 are more.
	six := s.full("six", "2026-11-21", rows[:96]...)
	refusedWith(t, "two of 98", try(six), FeedEndsTooMany)
	s.load(six)
	// Its own end counts where it lies ahead.
	refusedWith(t, "ahead", try(s.full("seven", "2027-01-01", rows[:50]...)), FeedEndsTooMany)
}

// What only the facts refuse cannot slip past the count: the import is dropped
// before it closes.
func TestTooManyEndsAreFoundBeforeTheImportCloses(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.load(s.full("one", "2026-11-01", enrolled(2, "v1", "from 2026-01-01"), row(0, 3, `implied node Carrier:acme/c1; node Group:acme/g2 from 2026-06-01; Group:acme/g2 memberOf Carrier:acme/c1 from 2026-06-01`)))
	// The new group exists only from June on: the row is refused when it is
	// written, and its coverage stands; the old group's edge goes.
	moved := row(0, 2, base+`implied node Group:acme/g2; node Coverage:acme/v1; Coverage:acme/v1 enrolledIn Group:acme/g2 from 2026-01-01`)
	f := s.full("two", "2026-11-20", moved)
	f.MassEnd = false
	before := stateOf(s)
	_, err := s.p.Import(context.Background(), f)
	refusedWith(t, "a move that the facts refuse", err, FeedEndsTooMany)
	if !reflect.DeepEqual(stateOf(s), before) || len(s.p.Graph().Imports()) != 0 {
		t.Error("the refused feed left something")
	}
}

func TestRowsThatEnd(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.load(s.feed("one", "acme", enrolled(2, "a", "from 2026-01-01"), enrolled(3, "b", "from 2026-01-01"), enrolled(4, "c", "from 2026-05-01")))
	end := func(line int, coverage, to string) Row {
		return ending(line, `Coverage:acme/`+coverage+` enrolledIn Group:acme/g1 `+to)
	}
	two := func(id string) Feed {
		f := s.feed(id, "acme", enrolled(2, "b", "from 2026-09-01"), end(3, "b", "to 2026-06-30"), end(4, "a", "to 2026-10-31"), end(5, "a", "to 2026-09-30"),
			end(6, "c", "to 2026-04-30"), end(7, "a", ""), end(8, "nobody", "to 2026-10-31"), row(0, 9, `Coverage:acme/a enrolledIn Group:acme/g1 from 2027-01-01`))
		f.MassEnd = true
		return f
	}
	got := s.load(two("two"))
	if want := []string{"a.csv:7 ends_nothing", "a.csv:8 ends_nothing"}; !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused %v, want %v", codes(got), want)
	}
	s.enrolledAt("a", "2026-09-30T23:59:59.999Z", true) // the earliest end holds
	s.enrolledAt("a", "2026-10-01", false)
	s.enrolledAt("a", "2027-01-01", true)
	s.enrolledAt("b", "2026-06-30", true) // ended, and begun again, in one feed
	s.enrolledAt("b", "2026-07-01", false)
	s.enrolledAt("b", "2026-09-01", true)
	s.enrolledAt("c", "2026-06-01", false) // ended before it began
	s.counts(got, 0, "8 rows, 5 loaded, 1 unchanged, 2 refused, 0 implied")
	if again := s.load(two("three")); again.Revisions != 0 {
		t.Errorf("the same once more: %+v", again)
	}
}

func TestFeedsOfEveryKind(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	people := base + `implied node Coverage:acme/v1; Coverage:acme/v1 enrolledIn Group:acme/g1; implied node Person:pat; Person:pat owns Coverage:acme/v1; principal User:u`
	feed := func(id, asOf string, rows ...Row) Feed { return s.full(id, asOf, append(rows, row(0, 99, people))...) }
	got := s.load(feed("one", "2026-11-01",
		row(0, 2, `User:u holds broker at Group:acme/g1 from 2026-01-01`),
		row(0, 3, `Tenant:acme has claims`),
		row(0, 4, `grant g-1 adult-proxy User:u for Person:pat can claim.view from 2026-01-01`),
		row(0, 5, `u@https://idp is User:u`),
		row(0, 6, `User:u is Person:pat`),
		row(0, 7, `User:u holds nothing-such at Group:acme/g1`),
		row(0, 8, `User:nobody holds broker at Group:acme/g1`),
		row(0, 9, `Tenant:acme has nothing-such`),
		row(0, 10, `grant g-2 nothing-such User:u for Person:pat can claim.view`),
		row(0, 11, `grant g-3 adult-proxy User:u for Person:pat can nothing.such`),
		row(0, 12, `grant g-4 adult-proxy User:nobody for Person:pat can claim.view`),
		row(0, 13, `grant g-5 adult-proxy User:u for Person:nobody can claim.view`),
		row(0, 14, `User:u holds broker at Group:zeta/g1`),
		row(0, 15, `Tenant:zeta has claims`),
		row(0, 16, `grant g-1 adult-proxy User:u for Person:pat can claim.view,claim.search from 2026-01-01`),
		row(0, 17, `grant g-6 adult-proxy User:u for Person:pat can claim.export from 2026-01-01`)))
	want := []string{"a.csv:7 role_unknown", "a.csv:8 principal_unknown", "a.csv:9 module_unknown", "a.csv:10 grant_type_unknown", "a.csv:11 capability_unknown",
		"a.csv:12 principal_unknown", "a.csv:13 unknown_end", "a.csv:14 tenancy_violation", "a.csv:15 tenancy_violation", "a.csv:16 value_conflict", "a.csv:17 above_ceiling"}
	if !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused\n%s\nwant\n%s", strings.Join(codes(got), "\n"), strings.Join(want, "\n"))
	}
	id := func(text string) hierarchy.ID { id, _ := hierarchy.ParseID(text); return id }
	holds := func(assignment, entitlement, grant bool) {
		t.Helper()
		now, _ := s.p.Now()
		v := s.p.View(now, 0)
		if a := len(v.Assignments(id("User:u"))) == 1; a != assignment {
			t.Errorf("assigned: %v", a)
		}
		if e := v.Entitled(id("Tenant:acme"), "claims"); e != entitlement {
			t.Errorf("entitled: %v", e)
		}
		if g := len(v.Grants(id("User:u"))) == 1; g != grant {
			t.Errorf("granted: %v", g)
		}
	}
	holds(true, true, true)
	if p, _, ok := s.p.View(0, 0).Principal("https://idp", "u"); !ok || p != id("User:u") {
		t.Errorf("the identity is %v", p)
	}
	// A grant is not changed, but may end sooner.
	got = s.load(feed("two", "2026-11-02", row(0, 2, `User:u holds broker at Group:acme/g1 from 2026-01-01`), row(0, 3, `Tenant:acme has claims`),
		row(0, 4, `grant g-1 adult-proxy User:u for Person:pat can claim.view from 2025-01-01`)))
	if want := []string{"a.csv:4 grant_changed"}; !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused %v, want %v", codes(got), want)
	}
	holds(true, true, true)
	got = s.load(feed("three", "2026-11-03", row(0, 2, `grant g-1 adult-proxy User:u for Person:pat can claim.view from 2026-01-01 to 2026-11-10`)))
	holds(false, false, false)
	if len(got.Refusals) != 0 || got.Ended != 3 {
		t.Errorf("refused %v, %d ended, want 3", codes(got), got.Ended)
	}
	// Its id is never used again.
	got = s.load(feed("four", "2026-11-04", row(0, 4, `grant g-1 adult-proxy User:u for Person:pat can claim.view from 2026-11-12`)))
	if want := []string{"a.csv:4 grant_changed"}; !reflect.DeepEqual(codes(got), want) {
		t.Errorf("refused %v, want %v", codes(got), want)
	}
}
