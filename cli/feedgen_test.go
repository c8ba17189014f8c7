package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
)

// A generated feed in the layout of CMS, with what the published files lack:
// ends, retro-terminations, supersessions, voids, moves between plans and
// groups, merges that come and go, and rows that are wrong. It is loaded with
// --history, and every answer about it is compared with a second reading of
// the files that shares no code with the importer.

// ---- The generator

type generator struct {
	*rand.Rand
	known           []string // instants at which the source learns things, in order
	enrol, rx, xref []string // rows
}

var (
	genFrom = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	genDays = 900
)

const (
	stamp     = "2006-01-02T15:04:05.000000"
	openStamp = "9999-12-31T00:00:00.000000"
	openDay   = "9999-12-31"
)

func newGenerator(seed uint64, instants int) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	seen := map[string]bool{}
	for len(seen) < instants {
		seen[genFrom.Add(time.Duration(g.Int64N(int64(genDays)*24*3600*1000))*time.Millisecond+time.Duration(g.IntN(1000))*time.Microsecond).Format(stamp)] = true
	}
	for s := range seen {
		g.known = append(g.known, s)
	}
	sort.Strings(g.known)
	return g
}

func (g *generator) day() string {
	return genFrom.AddDate(0, 0, g.IntN(genDays+200)-100).Format(time.DateOnly)
}

func (g *generator) pick(list ...string) string { return list[g.IntN(len(list))] }

// times are the instants of the changes of one life, in order.
func (g *generator) times(n int) []int {
	at := make([]int, n)
	for i := range at {
		at[i] = g.IntN(len(g.known))
	}
	slices.Sort(at)
	return slices.Compact(at)
}

func (g *generator) until(i int) string {
	if i < 0 {
		return openStamp
	}
	return g.known[i]
}

// life writes the rows of one beneficiary's enrolment: a row for each version
// that the source held, superseded at the next change.
func (g *generator) life(bene string) {
	plan := func() (contract, pbp string) {
		return fmt.Sprintf("Z%04d", 1+g.IntN(5)), fmt.Sprintf("-%02d", 1+g.IntN(4))
	}
	row := func(contract, pbp, bgn, end, from, to string) {
		g.enrol = append(g.enrol, strings.Join([]string{bene, "1", "Y", contract, pbp, "3", "3", "~", bgn, end, from, from, from, to}, ","))
	}
	at := g.times(1 + g.IntN(5))
	contract, pbp := plan()
	bgn, end := g.day(), openDay
	if g.IntN(3) == 0 {
		end = g.day() // a planned end, or one before the start: such a row is refused
	}
	for i, from := range at {
		to := -1
		if i+1 < len(at) {
			to = at[i+1]
		}
		row(contract, pbp, bgn, end, g.known[from], g.until(to))
		if g.IntN(6) == 0 { // known twice, alike or almost
			row(contract, pbp, g.pick(bgn, g.day()), end, g.known[from], g.until(to))
		}
		switch g.IntN(6) {
		case 0, 1: // an end, learned before or after it takes effect
			end = g.day()
		case 2: // another start
			bgn = g.day()
		case 3: // a move to another plan; the old row stays, ended
			last := g.day()
			if to >= 0 {
				row(contract, pbp, bgn, last, g.known[to], openStamp)
			}
			contract, pbp = plan()
			bgn, end = g.day(), openDay
		case 4: // a void: nothing follows
			if to >= 0 {
				return
			}
		case 5: // a reinstatement
			end = openDay
		}
	}
	// The pharmacy benefit: groups have a start and no end; a move supersedes.
	at = g.times(1 + g.IntN(4))
	bgn = g.day()
	for i, from := range at {
		to := -1
		if i+1 < len(at) {
			to = at[i+1]
		} else if g.IntN(4) == 0 && from+1 < len(g.known) {
			to = from + 1 + g.IntN(len(g.known)-from-1) // a void
		}
		group := fmt.Sprintf("-%d", 100+g.IntN(4))
		g.rx = append(g.rx, strings.Join([]string{bene, "1", bgn, g.pick(bgn, g.day()), "Y", "-4", group, "-9", "-9", contract, pbp, g.known[from], g.known[from], g.known[from], g.until(to)}, ","))
	}
}

func (g *generator) write(t testing.TB, dir string, benes int) (files []string) {
	name := func(i int) string { return fmt.Sprintf("-%d", 1000+i) }
	for i := range benes {
		g.life(name(i))
	}
	for range benes / 3 {
		a, b := g.IntN(benes), g.IntN(benes+benes/10) // the last ones are not enrolled
		if g.IntN(50) == 0 {
			b = a // refused
		}
		from, to := g.IntN(len(g.known)), -1
		if g.IntN(2) == 0 && from+1 < len(g.known) { // un-merged
			to = from + 1 + g.IntN(len(g.known)-from-1)
		}
		g.xref = append(g.xref, strings.Join([]string{name(a), name(b), "7W", g.pick("2", "2", "2", "1"), "x", "x",
			strings.Replace(g.known[from], "T", " ", 1), "x", "x", g.until(to)}, ","))
	}
	if len(g.xref) > 1 { // the same merge, the other way round
		c := strings.Split(g.xref[0], ",")
		c[0], c[1] = c[1], c[0]
		g.xref = append(g.xref, strings.Join(c, ","))
	}
	g.Shuffle(len(g.enrol), func(i, j int) { g.enrol[i], g.enrol[j] = g.enrol[j], g.enrol[i] })
	g.Shuffle(len(g.rx), func(i, j int) { g.rx[i], g.rx[j] = g.rx[j], g.rx[i] })
	for _, f := range []struct {
		name, header string
		rows         []string
	}{
		{"GEN_BENE_XREF.csv", "BENE_SK,BENE_XREF_SK,BENE_HICN_NUM,BENE_KILL_CRED_CD,SRC_REC_CRTE_TS,SRC_REC_UPDT_TS,IDR_TRANS_EFCTV_TS,IDR_INSRT_TS,IDR_UPDT_TS,IDR_TRANS_OBSLT_TS", g.xref},
		{"GEN_BENE_MAPD_ENRLMT_RX.csv", "BENE_SK,CNTRCT_PBP_SK,BENE_ENRLMT_BGN_DT,BENE_ENRLMT_PDP_RX_INFO_BGN_DT,IDR_LTST_TRANS_FLG,BENE_PDP_ENRLMT_MMBR_ID_NUM,BENE_PDP_ENRLMT_GRP_NUM,BENE_PDP_ENRLMT_PRCSR_NUM,BENE_PDP_ENRLMT_BANK_ID_NUM,BENE_CNTRCT_NUM,BENE_PBP_NUM,IDR_TRANS_EFCTV_TS,IDR_INSRT_TS,IDR_UPDT_TS,IDR_TRANS_OBSLT_TS", g.rx},
		{"GEN_BENE_MAPD_ENRLMT.csv", "BENE_SK,CNTRCT_PBP_SK,IDR_LTST_TRANS_FLG,BENE_CNTRCT_NUM,BENE_PBP_NUM,BENE_CVRG_TYPE_CD,BENE_ENRLMT_PGM_TYPE_CD,BENE_ENRLMT_EMPLR_SBSDY_SW,BENE_ENRLMT_BGN_DT,BENE_ENRLMT_END_DT,IDR_TRANS_EFCTV_TS,IDR_INSRT_TS,IDR_UPDT_TS,IDR_TRANS_OBSLT_TS", g.enrol},
		{"GEN_CNTRCT_PBP_NUM.csv", "CNTRCT_PBP_SK,CNTRCT_NUM,CNTRCT_PBP_NUM,CNTRCT_PBP_NAME,CNTRCT_PBP_TYPE_CD,CNTRCT_DRUG_PLAN_IND_CD,CNTRCT_PBP_SK_OBSLT_DT",
			[]string{"1,Z0001,001,Silver Fox,01,Y,9999-12-31", "2,Z0002,003,Health Plan,01,Y,0001-01-01"}},
	} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte(f.header+"\n"+strings.Join(f.rows, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	return files
}

// ---- The oracle: rows as they stand in the files, and a question is a walk
// over them. Times are milliseconds.

type oracleRow struct {
	bene, contract, plan, group string // group or plan is empty
	from, to                    int64  // valid
	known, gone                 int64
}

type oracleMerge struct {
	a, b        string
	known, gone int64
}

type oracle struct {
	rows    map[string][]oracleRow // by beneficiary
	merges  map[string][]oracleMerge
	bounds  []int64        // instants of the known axis
	refused map[string]int // rows of a file that cannot count
	all     []oracleRow
	benes   []string
}

const never, forever = -1 << 62, 1 << 62

func readOracle(t testing.TB, files []string) *oracle {
	ny, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) int64 {
		if strings.HasPrefix(s, "9999") {
			return forever
		}
		v, err := time.ParseInLocation("2006-01-02 15:04:05.999999", strings.Replace(s, "T", " ", 1), ny)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMilli()
	}
	day := func(s string, add int) int64 {
		if strings.HasPrefix(s, "9999") {
			return forever
		}
		v, err := time.ParseInLocation(time.DateOnly, s, ny)
		if err != nil {
			t.Fatal(err)
		}
		return v.AddDate(0, 0, add).UnixMilli()
	}
	o := &oracle{rows: map[string][]oracleRow{}, merges: map[string][]oracleMerge{}, refused: map[string]int{}}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
			c := strings.Split(line, ",")
			switch name {
			case "GEN_BENE_XREF.csv":
				m := oracleMerge{c[0], c[1], at(c[6]), at(c[9])}
				if c[3] != "2" || c[0] == c[1] {
					o.refused[name]++
					continue
				}
				o.merges[m.a] = append(o.merges[m.a], m)
				o.merges[m.b] = append(o.merges[m.b], m)
				o.bounds = append(o.bounds, m.known, m.gone)
			case "GEN_BENE_MAPD_ENRLMT.csv", "GEN_BENE_MAPD_ENRLMT_RX.csv":
				var r oracleRow
				if name == "GEN_BENE_MAPD_ENRLMT.csv" {
					r = oracleRow{bene: c[0], contract: c[3], plan: c[3] + "-0" + c[4][1:], from: day(c[8], 0), to: day(c[9], 1), known: at(c[10]), gone: at(c[13])}
				} else {
					r = oracleRow{bene: c[0], contract: c[9], group: c[9] + c[6], from: day(c[3], 0), to: forever, known: at(c[11]), gone: at(c[14])}
				}
				if r.to <= r.from {
					o.refused[name]++
					continue
				}
				if o.rows[r.bene] == nil {
					o.benes = append(o.benes, r.bene)
				}
				o.rows[r.bene] = append(o.rows[r.bene], r)
				o.all = append(o.all, r)
				o.bounds = append(o.bounds, r.known, r.gone)
			}
		}
	}
	o.bounds = slices.DeleteFunc(o.bounds, func(b int64) bool { return b == forever })
	return o
}

// is reports whether a beneficiary, under any of their merged identities, is
// covered in a plan, group or contract at v as known at k.
func (o *oracle) is(bene, kind, key string, v, k int64) bool {
	people := []string{bene}
	for i := 0; i < len(people); i++ {
		for _, m := range o.merges[people[i]] {
			if m.known <= k && k < m.gone {
				for _, p := range []string{m.a, m.b} {
					if !slices.Contains(people, p) {
						people = append(people, p)
					}
				}
			}
		}
	}
	for _, p := range people {
		for _, r := range o.rows[p] {
			if r.known <= k && k < r.gone && r.from <= v && v < r.to &&
				(kind == "Plan" && r.plan == key || kind == "Group" && r.group == key || kind == "Carrier" && r.contract == key) {
				return true
			}
		}
	}
	return false
}

// ---- The questions

type question struct {
	bene, kind, key string
	v, k            int64
}

// ask makes a question near the boundaries of a row.
func (o *oracle) ask(r *rand.Rand, end int64) question {
	row := o.all[r.IntN(len(o.all))]
	q := question{bene: row.bene}
	if r.IntN(8) == 0 { // somebody else, perhaps a merged identity
		if ms := o.merges[row.bene]; len(ms) > 0 {
			m := ms[r.IntN(len(ms))]
			q.bene = m.a
			if q.bene == row.bene {
				q.bene = m.b
			}
		} else {
			q.bene = o.benes[r.IntN(len(o.benes))]
		}
	}
	switch n := r.IntN(5); {
	case n == 0:
		q.kind, q.key = "Carrier", row.contract
	case n == 1: // another row's place
		row = o.all[r.IntN(len(o.all))]
		fallthrough
	default:
		q.kind, q.key = "Plan", row.plan
		if row.plan == "" {
			q.kind, q.key = "Group", row.group
		}
	}
	near := func(some ...int64) int64 {
		b := some[r.IntN(len(some))]
		if b == forever || b == never {
			b = genFrom.UnixMilli() + r.Int64N(int64(genDays+200)*86_400_000)
		}
		switch r.IntN(4) {
		case 0:
			return b - 1
		case 1:
			return b + 1
		case 2:
			return b
		}
		return b + r.Int64N(60*86_400_000)
	}
	q.v = near(row.from, row.from, row.to)
	q.k = min(near(row.known, row.gone), end)
	return q
}

func TestAGeneratedFeedWithHistory(t *testing.T) {
	benes, instants, questions := 700, 350, 20_000
	if os.Getenv("WARD_CAMPAIGN") != "" {
		benes, instants, questions = 3000, 900, 1_000_000
	}
	g := newGenerator(20261124, instants)
	files := g.write(t, t.TempDir(), benes)
	o := readOracle(t, files)

	h := newHome(t)
	start := time.Now()
	d := h.imports(append([]string{"--map", "cms-bfd", "--history"}, files...)...)
	loading := time.Since(start)
	for _, f := range d.Files {
		if f.Refused != o.refused[f.Name] {
			t.Errorf("%s: %d rows refused, the second reading refuses %d", f.Name, f.Refused, o.refused[f.Name])
		}
	}
	codes := map[string]int{}
	for _, r := range d.Refusals {
		codes[r.Code]++
	}
	t.Logf("%s", strings.Join(figures(d), "\n"))
	t.Logf("loaded in %v: %d revisions, %d facts asserted, %d voided; refused %v", loading.Round(time.Millisecond), d.Revisions, d.Facts, d.Voided, codes)

	p, done := h.open()
	defer done()
	graph := p.Graph() // the one that answers at every revision
	now, err := p.Now()
	if err != nil {
		t.Fatal(err)
	}
	end := int64(now)
	ward := func(q question) bool {
		rev := graph.RevisionAt(hierarchy.Instant(q.k))
		if rev == 0 {
			t.Fatal("a store that ward init made knows nothing at some instant")
		}
		view := p.View(hierarchy.Instant(q.v), rev)
		for _, c := range view.Owned(hierarchy.PersonID("cms." + q.bene)) {
			if view.Reaches(c, hierarchy.ID{Type: q.kind, Tenant: "cms", Key: q.key}) {
				return true
			}
		}
		return false
	}
	r := rand.New(rand.NewPCG(7, 7))
	var yes, axes, different int
	start = time.Now()
	for range questions {
		q := o.ask(r, end)
		want := o.is(q.bene, q.kind, q.key, q.v, q.k)
		if got := ward(q); got != want {
			if different++; different <= 5 {
				t.Errorf("%+v: ward says %v, the files %v", q, got, want)
			}
		}
		if want {
			yes++
		}
		// The axes tell apart: known by now, or asked for the instant of knowing.
		if o.is(q.bene, q.kind, q.key, q.v, end) != want || o.is(q.bene, q.kind, q.key, q.k, q.k) != want {
			axes++
		}
	}
	percent := func(n int) float64 { return float64(n) * 100 / float64(questions) }
	t.Logf("%d questions in %v: %.1f %% yes, %.1f %% no, %.1f %% differ between the axes, %d differences",
		questions, time.Since(start).Round(time.Millisecond), percent(yes), 100-percent(yes), percent(axes), different)
	if different > 0 || percent(yes) < 30 || percent(yes) > 70 || percent(axes) < 100.0/3 {
		t.Errorf("%d differences; want at least 30 %% yes, 30 %% no, a third that differs between the axes", different)
	}

	// A history has no second time, and nothing of it changed.
	if code, _, text := func() (int, string, string) {
		done()
		return h.ward(append([]string{"hierarchy", "import", "--map", "cms-bfd", "--history"}, files...)...)
	}(); code != exitInvalid || !strings.Contains(text, "store_not_empty") {
		t.Errorf("a second history import: exit code %d\n%s", code, text)
	}
	done = func() {}
}
