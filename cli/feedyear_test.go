package cli

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

// A generated year of an eligibility feed: a full file every week, a delta every
// day, with rows that come late, twice, in another order, cut off, wrong, or of
// another tenant. After each file every answer is compared with a reading of the
// same files that shares no code with the importer.

const yearMap = `map: members
tenant: acme
zone: America/New_York
dates: [YYYY-MM-DD]
open: {to: ["", 9999-12-31]}
files:
  - match: "members-*.csv"
    trailer: {starts: TRL, count: 2}
    change: {column: CHANGE, add: [A, ""], change: [C], end: [T]}
    tenant: client
    keys:
      client: {column: CLIENT, steps: [trim, lower]}
      id: {column: ID, steps: [trim, strip-leading-zeros], match: "[0-9]+"}
      group: {column: GROUP, steps: [trim, upper, pad 4], match: "[0-9A-Z]{4}"}
    nodes:
      group: {type: Group, key: "{group}", implied: true}
      person: {type: Person, key: "acme.{id}"}
      coverage: {type: Coverage, key: "{id}"}
    edges:
      - {child: group, kind: memberOf, parent: tenant, implied: true}
      - {child: coverage, kind: enrolledIn, parent: group, from: BGN, to: END}
    links:
      - {from: person, kind: owns, to: coverage}
`

// ---- The second reading: intervals of stretch, counted from 2020-01-01.

type stretch struct{ from, to int } // to is excluded

const openDayNumber = 1 << 20

type enrolment struct{ id, group string }

// yearModel is who is enrolled where, and which groups there are.
type yearModel struct {
	enrolled map[enrolment][]stretch
	groups   map[string][]stretch
	refused  int // rows of the last file
}

func (m *yearModel) copy() yearModel {
	c := yearModel{map[enrolment][]stretch{}, map[string][]stretch{}, 0}
	for k, v := range m.enrolled {
		c.enrolled[k] = slices.Clone(v)
	}
	for k, v := range m.groups {
		c.groups[k] = slices.Clone(v)
	}
	return c
}

var dayZero = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func dayOf(s string) (int, bool) {
	t, err := time.Parse(time.DateOnly, s)
	return int(t.Sub(dayZero).Hours() / 24), err == nil
}

func dayText(n int) string { return dayZero.AddDate(0, 0, n).Format(time.DateOnly) }

func (s stretch) meets(o stretch) bool { return s.from < o.to && o.from < s.to }

// read takes a file in. A full one ends on day asOf what it lacks.
func (m *yearModel) read(text string, full bool, asOf int) {
	m.refused = 0
	adds, ends := map[enrolment][]stretch{}, map[enrolment][]int{}
	named, doubt := map[string]bool{}, map[enrolment]bool{}
	doubtGroup := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n")[1:] {
		c := strings.Split(line, ",")
		if c[0] == "TRL" {
			continue
		}
		client, id, group := strings.ToLower(strings.TrimSpace(c[0])), strings.TrimLeft(strings.TrimSpace(c[1]), "0"), strings.ToUpper(strings.TrimSpace(c[2]))
		for len(group) < 4 {
			group = "0" + group
		}
		e := enrolment{id, group}
		from, ok := dayOf(c[3])
		to, okTo := dayOf(c[4])
		to++
		if c[4] == "" {
			to, okTo = openDayNumber, true
		}
		switch {
		case client != "acme" || id == "":
			m.refused++
		case c[5] == "T":
			if c[4] == "" {
				to = asOf
			}
			if len(m.enrolled[e]) == 0 {
				m.refused++
				doubt[e] = true
				continue
			}
			ends[e] = append(ends[e], to)
		case !ok || !okTo || from >= to:
			m.refused++
			doubt[e], doubtGroup[group] = true, true
		default:
			adds[e] = append(adds[e], stretch{from, to})
			named[group] = true
		}
	}
	for e, list := range ends {
		var left []stretch
		slices.Sort(list)
		for _, s := range m.enrolled[e] {
			for _, at := range list {
				if s.from <= at && at < s.to {
					s.to = at
				}
			}
			if s.from < s.to {
				left = append(left, s)
			}
		}
		m.enrolled[e] = left
	}
	keys := map[enrolment]bool{}
	for e := range m.enrolled {
		keys[e] = true
	}
	for e := range adds {
		keys[e] = true
	}
	for e := range keys {
		list := adds[e]
		slices.SortFunc(list, func(a, b stretch) int { return a.from - b.from })
		var union []stretch
		for _, s := range list {
			if n := len(union); n > 0 && s.from <= union[n-1].to {
				union[n-1].to = max(union[n-1].to, s.to)
				continue
			}
			union = append(union, s)
		}
		var left []stretch
		for _, s := range m.enrolled[e] {
			if slices.ContainsFunc(union, s.meets) {
				continue // the file says it anew
			}
			if full && !doubt[e] {
				s.to = min(s.to, max(s.from, asOf))
			}
			if s.from < s.to {
				left = append(left, s)
			}
		}
		m.enrolled[e] = append(left, union...)
	}
	for g := range named {
		switch have := m.groups[g]; {
		case len(have) == 0:
			m.groups[g] = []stretch{{-openDayNumber, openDayNumber}}
		case have[len(have)-1].to < openDayNumber:
			m.groups[g] = append(have, stretch{have[len(have)-1].to, openDayNumber})
		}
	}
	for g, have := range m.groups {
		if last := &have[len(have)-1]; full && !named[g] && !doubtGroup[g] {
			last.to = min(last.to, max(last.from, asOf))
			if last.from >= last.to {
				m.groups[g] = have[:len(have)-1]
			}
		}
	}
}

func (m *yearModel) is(e enrolment, day int) bool {
	on := func(s stretch) bool { return s.from <= day && day < s.to }
	return slices.ContainsFunc(m.enrolled[e], on) && slices.ContainsFunc(m.groups[e.group], on)
}

// ---- The generator

type yearMember struct {
	group     string
	from, end int // end is the last day, -1 for none
}

type yearGenerator struct {
	*rand.Rand
	members map[int]*yearMember
	next    int
}

func (g *yearGenerator) group() string {
	return []string{"g1", "G1 ", "2", "0002", "X3", "zz9"}[g.IntN(6)]
}

func (g *yearGenerator) line(id int, m yearMember, change string) string {
	end := ""
	if m.end >= 0 {
		end = dayText(m.end)
	}
	number := strconv.Itoa(id)
	if g.IntN(3) == 0 {
		number = " 00" + number
	}
	return strings.Join([]string{[]string{"ACME", "acme", " Acme"}[g.IntN(3)], number, m.group, dayText(m.from), end, change}, ",")
}

// odd returns rows that are wrong, or another tenant's.
func (g *yearGenerator) odd(day int) (rows []string) {
	id := 1 + g.IntN(g.next)
	m := yearMember{group: g.group(), from: day - 10, end: -1}
	for range g.IntN(3) {
		switch g.IntN(6) {
		case 0:
			rows = append(rows, fmt.Sprintf("ZETA,%d,G1,%s,,A", id, dayText(day)))
		case 1:
			rows = append(rows, fmt.Sprintf("ACME,%d,G1,soon,,A", id))
		case 2:
			rows = append(rows, g.line(id, yearMember{m.group, day, day - 5}, "C"))
		case 3:
			rows = append(rows, g.line(g.next+1000, m, "T"))
		case 4:
			rows = append(rows, "ACME,,G1,"+dayText(day)+",,A")
		case 5: // said to end twice, once without a day
			rows = append(rows, g.line(id, m, "T"))
		}
	}
	return rows
}

// change makes the changes of a day and returns the rows that tell of them.
func (g *yearGenerator) change(day int) (rows []string) {
	for range 1 + g.IntN(6) {
		id := 1 + g.IntN(g.next)
		m := g.members[id]
		switch n := g.IntN(10); {
		case m == nil || n < 3: // a new one, or one that comes back, perhaps late
			g.next++
			m = &yearMember{group: g.group(), from: day - g.IntN(60) + 20, end: -1}
			g.members[g.next] = m
			rows = append(rows, g.line(g.next, *m, "A"))
		case n < 5: // another start
			m.from = day - g.IntN(90)
			if m.end >= 0 && m.end < m.from {
				m.end = m.from
			}
			rows = append(rows, g.line(id, *m, "C"))
		case n < 7: // a move: the old one ends, in the same file
			old := *m
			old.end = day - 1
			m.group, m.from, m.end = g.group(), day, -1
			rows = append(rows, g.line(id, old, "T"), g.line(id, *m, "A"))
		case n < 9:
			old := *m
			if g.IntN(2) == 0 {
				old.end = day - g.IntN(30)
			}
			delete(g.members, id)
			rows = append(rows, g.line(id, old, "T"))
		default: // a planned end
			m.end = max(m.from, day+g.IntN(30))
			rows = append(rows, g.line(id, *m, "C"))
		}
		if g.IntN(5) == 0 {
			rows = append(rows, rows[len(rows)-1])
		}
	}
	return rows
}

func (g *yearGenerator) file(rows []string) string {
	g.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return "CLIENT,ID,GROUP,BGN,END,CHANGE\n" + strings.Join(append(rows, fmt.Sprintf("TRL,%d,,,,", len(rows))), "\n") + "\n"
}

func TestAYearOfFeeds(t *testing.T) {
	weeks, questions := 3, 80
	if os.Getenv("WARD_CAMPAIGN") != "" {
		weeks, questions = 52, 400
	}
	g := &yearGenerator{Rand: rand.New(rand.NewPCG(2026, 7)), members: map[int]*yearMember{}, next: 60}
	first, _ := dayOf("2025-11-24")
	for id := range g.next {
		g.members[id+1] = &yearMember{group: g.group(), from: first - g.IntN(400), end: -1}
	}
	h, dir := newHome(t), t.TempDir()
	mapFile := filepath.Join(dir, "members.yaml")
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put("members.yaml", yearMap)
	ny, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	m := yearModel{map[enrolment][]stretch{}, map[string][]stretch{}, 0}
	type known struct {
		rev   uint64
		model yearModel
	}
	var past []known
	counts := map[string]int{}
	ask := rand.New(rand.NewPCG(3, 3))
	compare := func(what string) {
		t.Helper()
		p, done := h.open()
		defer done()
		past = append(past, known{p.Graph().Head().Revision, m.copy()})
		var keys []enrolment
		for e := range m.enrolled {
			keys = append(keys, e)
		}
		slices.SortFunc(keys, func(a, b enrolment) int { return strings.Compare(a.id+" "+a.group, b.id+" "+b.group) })
		if len(keys) == 0 {
			return
		}
		for range questions {
			at := past[len(past)-1]
			if ask.IntN(4) == 0 {
				at = past[ask.IntN(len(past))]
			}
			e := keys[ask.IntN(len(keys))]
			day := first - 60 + ask.IntN(7*weeks+120)
			if spans := m.enrolled[e]; len(spans) > 0 && ask.IntN(3) > 0 {
				s := spans[ask.IntN(len(spans))]
				if day = s.from - 1 + ask.IntN(3); s.to < openDayNumber && ask.IntN(2) == 0 {
					day = s.to - 1 + ask.IntN(2)
				}
			}
			d := dayZero.AddDate(0, 0, day)
			instant := hierarchy.DayStart(d.Year(), d.Month(), d.Day(), ny)
			got := p.View(instant, at.rev).Reaches(hierarchy.ID{Type: "Coverage", Tenant: "acme", Key: e.id}, hierarchy.ID{Type: "Group", Tenant: "acme", Key: e.group})
			if want := at.model.is(e, day); got != want {
				t.Fatalf("%s: %v on %s at revision %d: ward says %v, the files %v: %v, groups %v", what, e, dayText(day), at.rev, got, want, at.model.enrolled[e], at.model.groups[e.group])
			}
			counts[fmt.Sprint("answers ", got)]++
		}
	}
	run := func(path string, full bool, day int, more ...string) (int, string, pdp.Imported) {
		t.Helper()
		args := []string{"hierarchy", "import", "-o", "json", "--map", mapFile, "--as-of", dayText(day), path, "--delta"}
		if full {
			args[len(args)-1] = "--full"
		}
		code, out, text := h.ward(append(args, more...)...)
		var d pdp.Imported
		if code == 0 {
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
		}
		return code, text, d
	}
	load := func(what, path, text string, full bool, day int) {
		t.Helper()
		code, errs, d := run(path, full, day, "--allow-mass-end")
		if code != 0 {
			t.Fatalf("%s: exit code %d\n%s", what, code, errs)
		}
		m.read(text, full, day)
		if d.Files[0].Refused != m.refused {
			t.Fatalf("%s: %d rows refused, the second reading refuses %d: %v", what, d.Files[0].Refused, m.refused, d.Refusals)
		}
		for _, r := range d.Refusals {
			counts[r.Code]++
		}
		counts["feeds"]++
		counts["rows"] += d.Files[0].Rows
		compare(what)
	}
	refused := func(what, path string, full bool, day int, code string) {
		t.Helper()
		if exit, errs, _ := run(path, full, day); exit != exitInvalid || !strings.Contains(errs, code) {
			t.Fatalf("%s: exit code %d, want %s\n%s", what, exit, code, errs)
		}
		counts[code]++
		compare(what)
	}
	var stale []string // what is sent once more, or late
	staleDay := 0
	for week := range weeks {
		day := first + 7*week
		var rows []string
		for id := range g.next {
			if mem := g.members[id+1]; mem != nil && g.IntN(100) > 0 { // now and then one is forgotten
				rows = append(rows, g.line(id+1, *mem, ""))
			}
		}
		rows = append(rows, g.odd(day)...)
		text := g.file(rows)
		path := put(fmt.Sprintf("members-full-%d.csv", week), text)
		cut := put(fmt.Sprintf("members-cut-%d.csv", week), text[:len(text)-1-g.IntN(len(text)/2)])
		refused("a file that is cut", cut, true, day, feedTruncated)
		load(fmt.Sprintf("week %d", week), path, text, true, day)
		if week > 0 {
			half := put(fmt.Sprintf("members-half-%d.csv", week), g.file(slices.Clone(rows[:len(rows)/2])))
			refused("half of the members", half, true, day+1, pdp.FeedEndsTooMany)
			refused("a feed that comes after a newer one", stale[g.IntN(len(stale))], false, staleDay, pdp.FeedStale)
		}
		stale = nil
		var lateRows []string
		for d := day + 1; d < day+7; d++ {
			rows := append(g.change(d), lateRows...)
			lateRows = nil
			if g.IntN(3) == 0 { // some rows come a day late
				lateRows, rows = rows[:1], rows[1:]
			}
			text := g.file(append(rows, g.odd(d)...))
			path := put(fmt.Sprintf("members-delta-%d.csv", d), text)
			load("day "+dayText(d), path, text, false, d)
			if g.IntN(3) == 0 {
				load("day "+dayText(d)+" once more", path, text, false, d)
			}
			stale, staleDay = append(stale, path), day
		}
	}
	t.Logf("%d weeks: %v", weeks, counts)
	for _, code := range []string{"answers true", "answers false", rowForeign, dateUnreadable, keyMissing, "interval_inverted", feedTruncated, pdp.FeedStale, pdp.FeedEndsTooMany, pdp.RowEndsNothing} {
		if counts[code] == 0 {
			t.Errorf("the feeds show no %s", code)
		}
	}
}
