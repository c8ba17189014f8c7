package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

const cmsFeed = "../testdata/feeds/cms-bfd/"

// The four files, in an order that needs what later files list.
var cmsFiles = []string{
	cmsFeed + "SYNTHETIC_BENE_MAPD_ENRLMT.csv", cmsFeed + "SYNTHETIC_BENE_MAPD_ENRLMT_RX.csv",
	cmsFeed + "SYNTHETIC_BENE_XREF.csv", cmsFeed + "SYNTHETIC_CNTRCT_PBP_NUM.csv",
}

// home is a folder that ward init made, and how commands run in it.
type home struct {
	t   testing.TB
	dir string
}

func newHome(t testing.TB) *home {
	t.Helper()
	h := &home{t, t.TempDir()}
	if code, _, text := h.ward("init", "--admin", fmt.Sprintf("ana=%d", os.Getuid())); code != 0 {
		t.Fatalf("ward init: exit code %d\n%s", code, text)
	}
	return h
}

func (h *home) ward(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Main(append([]string{"--config", filepath.Join(h.dir, "ward.yaml")}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// imports runs ward hierarchy import and returns its report.
func (h *home) imports(args ...string) pdp.Imported {
	h.t.Helper()
	code, out, text := h.ward(append([]string{"hierarchy", "import", "-o", "json"}, args...)...)
	var d pdp.Imported
	if err := json.Unmarshal([]byte(out), &d); code != 0 || err != nil {
		h.t.Fatalf("ward hierarchy import %v: exit code %d, %v\n%s", args, code, err, text)
	}
	for _, f := range d.Files {
		if f.Rows != f.Loaded+f.Unchanged+f.Refused {
			h.t.Errorf("%s: %d rows are not %d loaded, %d unchanged and %d refused", f.Name, f.Rows, f.Loaded, f.Unchanged, f.Refused)
		}
	}
	return d
}

// open opens the kernel on the folder.
func (h *home) open() (*pdp.PDP, func()) {
	h.t.Helper()
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv, configPath: filepath.Join(h.dir, "ward.yaml")}
	c, err := a.config(false)
	if err != nil {
		h.t.Fatal(err)
	}
	k, err := c.openKernel(context.Background(), false)
	if err != nil {
		h.t.Fatal(err)
	}
	return k.pdp, func() {
		if err := k.close(); err != nil {
			h.t.Error(err)
		}
	}
}

// naive reads a CSV file into maps, without any of the importer's code.
func naive(t testing.TB, path string) []map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	for _, rec := range all[1:] {
		m := map[string]string{}
		for i, c := range all[0] {
			m[c] = rec[i]
		}
		rows = append(rows, m)
	}
	return rows
}

func figures(d pdp.Imported) (out []string) {
	for _, f := range d.Files {
		out = append(out, fmt.Sprintf("%s: %d rows, %d loaded, %d unchanged, %d refused, %d implied", f.Name, f.Rows, f.Loaded, f.Unchanged, f.Refused, f.Implied))
	}
	return out
}

func TestTheFeedOfCMS(t *testing.T) {
	// What the files hold, by a reading of its own.
	enrolments, rx := naive(t, cmsFiles[0]), naive(t, cmsFiles[1])
	xref, plans := naive(t, cmsFiles[2]), naive(t, cmsFiles[3])
	pair := func(contract, pbp string) string {
		return contract + "-" + fmt.Sprintf("%03s", strings.TrimLeft(strings.TrimPrefix(pbp, "-"), "0"))
	}
	carriers, pairs, listed, people, groups := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range enrolments {
		carriers[r["BENE_CNTRCT_NUM"]], people[r["BENE_SK"]] = true, true
		pairs[pair(r["BENE_CNTRCT_NUM"], r["BENE_PBP_NUM"])] = true
	}
	for _, r := range plans {
		listed[pair(r["CNTRCT_NUM"], r["CNTRCT_PBP_NUM"])] = true
	}
	for _, r := range rx {
		groups[r["BENE_CNTRCT_NUM"]+r["BENE_PDP_ENRLMT_GRP_NUM"]] = true
	}
	known := 0
	for p := range pairs {
		if listed[p] {
			known++
		}
	}
	merges, strangers := 0, map[string]bool{}
	for _, r := range xref {
		if r["BENE_KILL_CRED_CD"] != "2" {
			continue
		}
		merges++
		for _, p := range []string{r["BENE_SK"], r["BENE_XREF_SK"]} {
			if !people[p] {
				strangers[p] = true
			}
		}
	}
	if got := [...]int{len(enrolments), len(rx), len(xref), len(plans), len(carriers), len(pairs), known, len(people), len(groups), merges, len(strangers)}; got !=
		[...]int{10552, 10552, 1049, 10, 10, 100, 10, 10552, 6216, 926, 1399} {
		t.Fatalf("the files are not those that the counts below are about: %v", got)
	}

	h := newHome(t)
	args := append([]string{"--map", "cms-bfd"}, cmsFiles...)
	start := time.Now()
	first := h.imports(args...)
	t.Logf("loaded in %v: %d facts in %d revisions", time.Since(start).Round(time.Millisecond), first.Facts, first.Revisions)
	want := []string{
		fmt.Sprintf("SYNTHETIC_BENE_MAPD_ENRLMT.csv: 10552 rows, 10552 loaded, 0 unchanged, 0 refused, %d implied", len(carriers)+len(pairs)-known),
		"SYNTHETIC_BENE_MAPD_ENRLMT_RX.csv: 10552 rows, 10552 loaded, 0 unchanged, 0 refused, 0 implied",
		fmt.Sprintf("SYNTHETIC_BENE_XREF.csv: 1049 rows, %d loaded, 0 unchanged, %d refused, %d implied", merges, len(xref)-merges, len(strangers)),
		"SYNTHETIC_CNTRCT_PBP_NUM.csv: 10 rows, 10 loaded, 0 unchanged, 0 refused, 0 implied",
	}
	if got := figures(first); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	facts := 1 + 1 + // the tenant, operated by the operator
		2*len(carriers) + 2*len(pairs) + 2*len(groups) + // each with its edge upwards
		len(people) + len(strangers) + 2*len(people) + // persons; coverages and whose they are
		len(enrolments) + len(rx) + merges
	if first.Facts != facts || first.Voided != 0 || first.Tenant != "cms" {
		t.Errorf("%d facts, %d voided, tenant %q; want %d, 0, cms", first.Facts, first.Voided, first.Tenant, facts)
	}
	i := 0
	for line, r := range xref {
		if r["BENE_KILL_CRED_CD"] == "2" {
			continue
		}
		want := pdp.RefusedRow{File: "SYNTHETIC_BENE_XREF.csv", Line: line + 2, Code: rowExcluded, Text: "the map takes no rows with this BENE_KILL_CRED_CD"}
		if i >= len(first.Refusals) || first.Refusals[i] != want {
			t.Fatalf("refusal %d is not %v", i, want)
		}
		i++
	}
	if i != len(first.Refusals) {
		t.Errorf("%d refusals, want %d", len(first.Refusals), i)
	}

	again := h.imports(args...)
	for i, f := range again.Files {
		if f.Loaded != 0 || f.Implied != 0 || f.Unchanged != first.Files[i].Loaded || f.Refused != first.Files[i].Refused {
			t.Errorf("the second time: %s", figures(again)[i])
		}
	}
	if again.Revisions != 0 || again.Facts != 0 {
		t.Errorf("the second time: %d revisions, %d facts", again.Revisions, again.Facts)
	}

	// Every row holds from its date on, and not a millisecond before.
	p, done := h.open()
	defer done()
	ny, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	node := func(typ, key string) hierarchy.ID { return hierarchy.ID{Type: typ, Tenant: "cms", Key: key} }
	check := func(rows []map[string]string, column string, parent func(map[string]string) hierarchy.ID) {
		for i, r := range rows {
			day, err := time.ParseInLocation("2006-01-02", r[column], ny)
			if err != nil {
				t.Fatal(err)
			}
			plan := pair(r["BENE_CNTRCT_NUM"], r["BENE_PBP_NUM"])
			coverage, at := node("Coverage", r["BENE_SK"]+"."+plan), hierarchy.At(day)
			if p.View(at-1, 0).Reaches(coverage, parent(r)) || !p.View(at, 0).Reaches(coverage, parent(r)) {
				t.Fatalf("row %d: the coverage does not reach its %s from %s on", i, parent(r).Type, r[column])
			}
			if owners := p.View(at, 0).Owners(coverage); !slices.Contains(owners, hierarchy.PersonID("cms."+r["BENE_SK"])) {
				t.Fatalf("row %d: the coverage is not the beneficiary's", i)
			}
		}
	}
	check(enrolments, "BENE_ENRLMT_BGN_DT", func(r map[string]string) hierarchy.ID {
		return node("Plan", pair(r["BENE_CNTRCT_NUM"], r["BENE_PBP_NUM"]))
	})
	check(rx, "BENE_ENRLMT_PDP_RX_INFO_BGN_DT", func(r map[string]string) hierarchy.ID {
		return node("Group", r["BENE_CNTRCT_NUM"]+r["BENE_PDP_ENRLMT_GRP_NUM"])
	})
	now, err := p.Now()
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range xref {
		merged := slices.Contains(p.View(now, 0).Merged(hierarchy.PersonID("cms."+r["BENE_SK"])), hierarchy.PersonID("cms."+r["BENE_XREF_SK"]))
		if merged != (r["BENE_KILL_CRED_CD"] == "2") {
			t.Fatalf("xref row %d: merged %v", i, merged)
		}
	}
	// Of a beneficiary nothing is stored but the key.
	for f := range p.View(now, 0).Facts(hierarchy.KindNode) {
		if n := f.Event.Node; n.ID.Type == hierarchy.PersonType && (len(n.Attrs) > 0 || n.Person != nil) {
			t.Fatal("a person has more than a key")
		}
	}
}

// The same feed over a socket, broken off in the middle, and resumed after the
// store was opened again.
func TestAFeedOverASocketResumes(t *testing.T) {
	whole := newHome(t)
	want := whole.imports(append([]string{"--map", "cms-bfd"}, cmsFiles...)...)

	h := newHome(t)
	serve := func() (*pdp.PDP, string, func()) {
		a := &app{stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv, configPath: filepath.Join(h.dir, "ward.yaml")}
		c, err := a.config(false)
		if err != nil {
			t.Fatal(err)
		}
		k, err := c.openKernel(context.Background(), false)
		if err != nil {
			t.Fatal(err)
		}
		door, err := admin.New(admin.Config{PDP: k.pdp, Store: k.store, Ledger: k.ledger, Keys: k.keys})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(h.dir, "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: door, ConnContext: admin.ConnContext}
		go func() { _ = server.Serve(l) }()
		return k.pdp, path, func() {
			// The handler that lost its client has to end before the store closes.
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := errors.Join(server.Shutdown(ctx), k.close()); err != nil {
				t.Error(err)
			}
		}
	}
	m, err := findMap("cms-bfd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv, quiet: true}
	run := &importRun{a: a, m: m, tenant: m.tenant}
	if err := run.open(cmsFiles); err != nil {
		t.Fatal(err)
	}
	head := admin.Import{ID: run.id(), Tenant: "cms", Reason: admin.Reason{Why: "test"}}
	for _, f := range run.files {
		head.Files = append(head.Files, pdp.FeedFile{Name: f.name, Digest: f.digest})
	}

	p, path, stop := serve()
	ctx, cancel := context.WithCancel(context.Background())
	seen := hierarchy.ID{Type: "Carrier", Tenant: "cms", Key: "Z0008"}
	_, err = admin.NewClient(admin.Socket(path)).Import(ctx, head, run.rows(a.progress("", 0)), func(at pdp.Progress) {
		if p.View(0, 0).Reaches(hierarchy.ID{Type: "Plan", Tenant: "cms", Key: "Z0008-005"}, seen) {
			t.Errorf("revision %d is visible before the import closed", at.Revision)
		}
		if at.Rows > 8000 {
			cancel()
		}
	})
	if err == nil {
		t.Fatal("the import was not broken off")
	}
	stop()

	p, path, stop = serve()
	if open := p.Graph().Imports(); len(open) != 1 || open[0].ID != head.ID {
		t.Fatalf("open imports: %v", open)
	}
	got, err := admin.NewClient(admin.Socket(path)).Import(context.Background(), head, run.rows(a.progress("", 0)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Resumed || got.Revisions >= want.Revisions || !reflect.DeepEqual(got.Files, want.Files) || !reflect.DeepEqual(got.Refusals, want.Refusals) {
		t.Errorf("resumed: %v, %d revisions\n%s\nwant\n%s", got.Resumed, got.Revisions, strings.Join(figures(got), "\n"), strings.Join(figures(want), "\n"))
	}
	stop()
	count := func(h *home) map[string]int {
		p, done := h.open()
		defer done()
		n := map[string]int{}
		for _, k := range []hierarchy.Kind{hierarchy.KindNode, hierarchy.KindEdge, hierarchy.KindLink} {
			for f := range p.View(0, 0).Facts(k) {
				f.Event.Row = 0
				b, _ := json.Marshal(f.Event)
				n[string(b)]++
			}
		}
		return n
	}
	if !maps.Equal(count(h), count(whole)) {
		t.Error("the facts differ from those of one run")
	}
}

func TestTheImportCommandSpeaks(t *testing.T) {
	h := newHome(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "members.csv")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	feed := filepath.Join(dir, "feed.yaml")
	if err := os.WriteFile(feed, []byte(smallMap), 0o600); err != nil {
		t.Fatal(err)
	}
	write("ID,GROUP,BGN,END\nsecret1,G1,2026-01-01,2026-06-30\nsecret2,~,2026-01-01,\nsecret3,G1,soon,\n")
	refused := filepath.Join(dir, "refused.csv")
	code, out, text := h.ward("hierarchy", "import", "--map", feed, file, "--refusals", refused)
	if code != 0 || out != "FILE         ROWS  LOADED  UNCHANGED  REFUSED  IMPLIED\nmembers.csv  3     1       0          2        0\n" {
		t.Errorf("exit code %d\n%s%s", code, out, text)
	}
	if got, _ := os.ReadFile(refused); string(got) != "file,line,code,reason\nmembers.csv,3,key_missing,GROUP is blank\nmembers.csv,4,date_unreadable,BGN has none of the map's forms of a date\n" {
		t.Errorf("refusals:\n%s", got)
	}
	code, out, text = h.ward("hierarchy", "import", "--map", feed, file)
	if code != 0 || !strings.Contains(text, "refused: members.csv:3: key_missing: GROUP is blank\n") || !strings.Contains(text, "nothing changed (record a-") {
		t.Errorf("exit code %d\n%s%s", code, out, text)
	}
	if strings.Contains(out+text, "secret") {
		t.Errorf("a key is shown:\n%s%s", out, text)
	}
	write("ID,GROUP,BGN,END\n" + "secret1,G2,2026-01-01,\n")
	if code, _, text = h.ward("hierarchy", "import", "--map", feed, file, "--dry-run"); code != 0 || !strings.Contains(text, "dry run: nothing was written") {
		t.Errorf("exit code %d\n%s", code, text)
	}
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{file}, exitFailure, "which map says what the files mean?"},
		{[]string{"--map", feed}, exitFailure, "which files?"},
		{[]string{"--map", "nowhere", file}, exitInvalid, "there is no map nowhere, as a file or built in\nhint: built in: cms-bfd"},
		{[]string{"--map", "cms-bfd", file}, exitInvalid, "the map cms-bfd has no entry for members.csv"},
		{[]string{"--map", feed, file, file}, exitFailure, "members.csv is given twice"},
		{[]string{"--map", feed, dir + "/none.csv"}, exitFailure, "no such file"},
		{[]string{"--map", feed, "--abandon"}, exitInvalid, "import_unknown"},
	} {
		if code, _, text := h.ward(append([]string{"hierarchy", "import"}, c.args...)...); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%v: exit code %d, want %d\n%s", c.args, code, c.code, text)
		}
	}
}

// The help's own example, in the folder that CMS publishes.
func TestTheFolderOfCMS(t *testing.T) {
	h, dir := newHome(t), t.TempDir()
	for _, f := range cmsFiles {
		abs, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(abs, filepath.Join(dir, filepath.Base(f))); err != nil {
			t.Fatal(err)
		}
	}
	// A skipped file is not even opened: these hold nothing that could be read.
	others := []string{"BENE_CMBND_DUAL_MDCR", "BENE_HSTRY", "BENE_LIS", "BENE_LIS_CMBND", "BENE_MBI_ID", "BENE_MDCR_ENTLMT", "BENE_MDCR_ENTLMT_RSN",
		"BENE_MDCR_STUS", "BENE_TP", "CNTRCT_PBP_CNTCT", "PRVDR_HSTRY", "CLM", "CLM_LINE"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, "SYNTHETIC_"+name+".csv"), []byte{0}, 0); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "SYNTHETIC_*.csv"))
	if err != nil || len(files) != len(cmsFiles)+len(others) {
		t.Fatal(files, err)
	}
	args := append([]string{"hierarchy", "import", "--dry-run", "--map", "cms-bfd"}, files...)
	code, out, text := h.ward(args...)
	if code != 0 || strings.Count(out, "  skipped: ") != len(others) ||
		!strings.Contains(out, "\nSYNTHETIC_CNTRCT_PBP_CNTCT.csv      skipped: addresses of the plans' offices\n") ||
		!strings.Contains(out, "\ntotal                               22163 ") {
		t.Errorf("exit code %d\n%s%s", code, out, text)
	}
	code, out, text = h.ward(append(args, "-o", "json")...)
	var got imported
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || len(got.Skipped) != len(others) || len(got.Files) != len(cmsFiles) {
		t.Errorf("exit code %d, %v\n%s%s", code, err, out, text)
	}
	// What the map does not name is no file to be passed over in silence.
	stray := filepath.Join(dir, "SYNTHETIC_BENE_NEW.csv")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, text := h.ward(append(args, stray)...); code != exitInvalid || !strings.Contains(text, "the map cms-bfd has no entry for SYNTHETIC_BENE_NEW.csv") {
		t.Errorf("exit code %d\n%s", code, text)
	}
	if code, _, text := h.ward("hierarchy", "import", "--map", "cms-bfd", filepath.Join(dir, "SYNTHETIC_CLM.csv")); code != exitInvalid || !strings.Contains(text, "skips all of these files") {
		t.Errorf("exit code %d\n%s", code, text)
	}
}

const smallMap = `map: small
tenant: acme
zone: America/New_York
dates: [YYYY-MM-DD, MM/DD/YYYY, "YYYY-MM-DD HH:mm:SSZ"]
open: {from: [0001-01-01], to: [9999-12-31, ""]}
blank: ["~"]
files:
  - match: "members*.csv"
    keys:
      id: {column: ID, steps: [trim]}
      group: {column: GROUP, steps: [trim, upper], match: "G[0-9]+"}
    nodes:
      group: {type: Group, key: "{group}"}
      coverage: {type: Coverage, key: "{id}"}
    edges:
      - {child: group, kind: memberOf, parent: tenant}
      - {child: coverage, kind: enrolledIn, parent: group, from: BGN, to: END}
feed: delta
`

const peopleMap = `map: people
tenant: acme
feed: delta
zone: UTC
dates: [YYYY-MM-DD]
files:
  - match: "people*.csv"
    trailer: {starts: TRL, count: 2}
    change: {column: CHANGE, end: [T]}
    tenant: login
    keys:
      login: {column: LOGIN}
    nodes:
      user: {type: User, key: "{login}", principal: true}
      person: {type: Person, key: "{login}"}
    assignments:
      - {principal: user, role: {column: ROLE}, node: tenant, to: END}
    entitlements:
      - {name: claims}
    grants:
      - {id: {column: ID}, type: adult-proxy, grantor: person, grantee: user, subject: person, can: [claim.view], covers: {column: COVERS, split: "|"}}
    links:
      - {kind: identity, issuer: idp, sub: {column: LOGIN}, to: user}
      - {kind: self, from: user, to: person}
`

func TestMapsAreReadStrictly(t *testing.T) {
	if _, err := parseMap("small.yaml", []byte(smallMap)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"blank:", "blanks:", `small.yaml:6: unknown key "blanks"`},
		{"blank: [\"~\"]", "zone: UTC", `small.yaml:6: "zone" is given twice`},
		{"map: small", "", "small.yaml:2: a map needs a name of letters, digits, dots and dashes: map: NAME"},
		{"zone: America/New_York", "zone: America/Atlantis", "small.yaml:3: want a time zone, such as America/Chicago"},
		{"zone: America/New_York\n", "", "small.yaml:1: a map says in which zone its dates are: zone: America/New_York"},
		{"tenant: acme", "tenant: a/b", "small.yaml:1: the tenant is no tenant key"},
		{"YYYY-MM-DD, MM", "YYYY-MM, MM", `small.yaml:4: date form "YYYY-MM": it needs YYYY, MM and DD`},
		{"YYYY-MM-DD, MM", "YYYY-MM-DD-MM, MM", `small.yaml:4: date form "YYYY-MM-DD-MM": MM is given twice`},
		{"YYYY-MM-DD, MM", "YYYY-MM-D1, MM", `small.yaml:4: date form "YYYY-MM-D1": write it with`},
		{"members*.csv", "a/b.csv", "small.yaml:8: want a pattern of a file's base name, such as *.csv"},
		{"members*.csv", "[", "small.yaml:8: want a pattern of a file's base name, such as *.csv"},
		{"[trim]", "[trim, shout]", `small.yaml:10: unknown step "shout"`},
		{"[trim]", "[pad 0]", `small.yaml:10: unknown step "pad 0"`},
		{"column: ID, ", "", `small.yaml:10: key "id" needs a column`},
		{"G[0-9]+", "G[", "small.yaml:11: want a regular expression (RE2)"},
		{"{type: Group, ", "{", `small.yaml:13: node "group" needs a type`},
		{`"{group}"`, `"{grp}"`, `small.yaml:13: the key of node "group" names "grp", which is none of the file's keys`},
		{`"{group}"`, `"{group"`, `small.yaml:13: the key of node "group" names "group", which is none of the file's keys`},
		{`"{group}"`, `"all"`, `small.yaml:13: the key of node "group" holds none of the file's keys`},
		{"parent: tenant", "parent: carrier", `small.yaml:16: "carrier" is none of the file's nodes`},
		{"kind: enrolledIn, ", "", "small.yaml:17: want child, parent, kind"},
		{"kind: enrolledIn", "kind: [a]", "small.yaml:17: "},
		{"      id: {", "      group: {", "small.yaml:11: want names, each once"},
		{"    keys:", "    skip: not wanted\n    keys:", "small.yaml:8: a file that is skipped has a match, and nothing else"},
		{"files:", "files:\n  - {skip: not wanted}", "small.yaml:8: a file that is skipped has a match, and nothing else"},
		{smallMap, "", "small.yaml: the file is empty"},
		{smallMap, "a: &x b\nc: *x\n", "small.yaml:1: "},
		{"tenant: acme", "tenant: acme\n---\nmap: b", "small.yaml"},
	} {
		_, err := parseMap("small.yaml", []byte(strings.Replace(smallMap, c.old, c.new, 1)))
		var f *failure
		if !errors.As(err, &f) || f.code != exitInvalid || !strings.HasPrefix(f.text, c.want) {
			t.Errorf("%q for %q: %v, want %s", c.new, c.old, err, c.want)
		}
	}
	if _, err := parseMap("people.yaml", []byte(peopleMap)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"feed: delta", "feed: some", "people.yaml:3: want full or delta"},
		{"map: people", "map: a b", "people.yaml:1: a map needs a name"},
		{"tenant: login", "tenant: client", `people.yaml:7: the tenant "client" is none of the file's keys`},
		{"{starts: TRL, count: 2}", "{starts: TRL, count: 1}", "people.yaml:8: want starts, "},
		{"{starts: TRL, count: 2}", "{count: 2}", "people.yaml:8: want starts, "},
		{"{column: CHANGE, end: [T]}", "{end: [T]}", "people.yaml:9: want a column, and its values"},
		{"{column: CHANGE, end: [T]}", "{column: CHANGE}", "people.yaml:9: want a column, and its values"},
		{", to: END", "", "people.yaml:7: the map says which rows end something, and nothing has a column for its end"},
		{"principal: user, ", "", "people.yaml:17: want principal, node, role"},
		{"principal: user, ", "principal: usr, ", `people.yaml:17: "usr" is none of the file's nodes`},
		{"role: {column: ROLE}", "role: {values: {A: b}}", "people.yaml:17: want a column"},
		{"role: {column: ROLE}", "role: {column: ROLE, value: {A: b}}", `people.yaml:17: unknown key "value"`},
		{"{name: claims}", "{}", "people.yaml:19: want name"},
		{"can: [claim.view]", "cans: [claim.view]", `people.yaml:21: unknown key "cans"`},
		{"can: [claim.view], ", "", "people.yaml:21: want grantor, grantee, subject, id, type, can"},
		{"kind: identity, issuer: idp, sub", "kind: identity, sub", "people.yaml:23: want kind, to, issuer, sub"},
		{"kind: identity, issuer", "kind: self, issuer", "people.yaml:23: want kind, to, from"},
		{"kind: identity, ", "kind: identity, from: user, ", "people.yaml:23: want kind, to, issuer, sub, nothing else"},
		{"to: user}", "to: tenant}", `people.yaml:23: "tenant" is none of the file's nodes`},
	} {
		_, err := parseMap("people.yaml", []byte(strings.Replace(peopleMap, c.old, c.new, 1)))
		var f *failure
		if !errors.As(err, &f) || f.code != exitInvalid || !strings.HasPrefix(f.text, c.want) {
			t.Errorf("%q for %q: %v, want %s", c.new, c.old, err, c.want)
		}
	}
	for _, name := range builtinMapNames() {
		if _, err := findMap(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRowsSayWhyTheyAreRefused(t *testing.T) {
	m, err := parseMap("small.yaml", []byte(smallMap))
	if err != nil {
		t.Fatal(err)
	}
	read := func(text string) (out []string) {
		r, err := m.newRowReader("members.csv", 0, "acme", strings.NewReader(text))
		if err != nil {
			return []string{err.Error()}
		}
		for {
			row, err := r.next()
			switch {
			case err == io.EOF:
				return out
			case err != nil:
				return append(out, err.Error())
			case row.Refused != nil:
				out = append(out, fmt.Sprintf("%d %s: %s", row.Line, row.Refused.Code, row.Refused.Text))
			default:
				edge := row.Facts[len(row.Facts)-1].Event
				out = append(out, fmt.Sprintf("%d %s in %s %v %v", row.Line, edge.Edge.Child, edge.Edge.Parent, edge.Valid.From, edge.Valid.To))
			}
		}
	}
	for _, c := range []struct {
		text string
		want []string
	}{
		{"\ufeffID,GROUP,BGN,END,MORE\n a ,g1,2026-01-01,2026-06-30,x\n", []string{"2 Coverage:acme/a in Group:acme/G1 2026-01-01T05:00:00.000Z 2026-07-01T04:00:00.000Z"}},
		{"ID,GROUP,BGN,END\na,g1,07/01/2026,2026-07-01 12:00:00.5Z\n", []string{"2 Coverage:acme/a in Group:acme/G1 2026-07-01T04:00:00.000Z 2026-07-01T12:00:00.500Z"}},
		{"ID,GROUP,BGN,END\na,g1,0001-01-01,9999-12-31\na,g1,0001-01-01,\n", []string{"2 Coverage:acme/a in Group:acme/G1 never forever", "3 Coverage:acme/a in Group:acme/G1 never forever"}},
		{"ID,GROUP,BGN,END\na,g1,9999-12-31,\n", []string{"2 Coverage:acme/a in Group:acme/G1 9999-12-31T05:00:00.000Z forever"}}, // no open start
		{"ID,GROUP,BGN,END\n~,g1,2026-01-01,\n,g1,2026-01-01,\na,x,2026-01-01,\n",
			[]string{"2 key_missing: ID is blank", "3 key_missing: ID holds no key", "4 key_invalid: GROUP is not what the map expects"}},
		{"ID,GROUP,BGN,END\na,g1,,\na,g1,~,\na,g1,2026-02-30,\n",
			[]string{"2 date_missing: BGN is blank", "3 date_missing: BGN is blank", "4 date_unreadable: BGN has none of the map's forms of a date"}},
		{"ID,GROUP,BGN,END\na,g1\na,g1,2026-01-01,,\n\na,g\"1,2026-01-01,\nb,g1,2026-01-01,\n",
			[]string{"2 column_missing: the line has 2 columns, the header 4", "3 column_missing: the line has 5 columns, the header 4", "5 row_malformed: the line is no CSV record: a quote is misplaced",
				"6 Coverage:acme/b in Group:acme/G1 2026-01-01T05:00:00.000Z forever"}},
		{"ID,GROUP,BGN,END\n\"two\nlines\",g1,2026-01-01,\n", []string{"2 key_invalid: the key of the coverage is no key of ward"}},
		{"ID,GROUP,BGN,END\n\"a,g1,2026-01-01,\nb,g1,2026-01-01,\n", []string{"members.csv:2: a quote is not closed in its line"}},
		{"ID,GROUP,BGN\na,g1,2026-01-01\n", []string{"members.csv:1: column_missing: the header lacks END"}},
		{"ID,GROUP,BGN,END,ID\n", []string{"members.csv:1: the column ID is there twice"}},
		{"", []string{"members.csv:1: this is no header of a CSV file"}},
		{"ID,GROUP,BGN,END\na," + strings.Repeat("g", maxLineBytes+5000) + "\n", []string{"members.csv: a line is longer than 1048576 bytes"}},
	} {
		if got := read(c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%.60q:\n%q\nwant\n%q", c.text, got, c.want)
		}
	}
}

func TestSteps(t *testing.T) {
	for _, c := range []struct{ steps, in, want string }{
		{"trim,upper", " z0008 ", "Z0008"},
		{"lower", "AbC", "abc"},
		{"digits,pad 3", "-05", "005"},
		{"digits,pad 3", "005", "005"},
		{"digits,pad 3", "1234", "1234"},
		{"digits,pad 3", "~", ""},
		{"strip-leading-zeros", "0070", "70"},
		{"strip-leading-zeros", "000", "0"},
		{"strip-leading-zeros", "", ""},
	} {
		k := &keyMap{steps: strings.Split(c.steps, ",")}
		if got := k.normal(c.in); got != c.want {
			t.Errorf("%s of %q is %q, want %q", c.steps, c.in, got, c.want)
		}
	}
}

func FuzzParseMap(f *testing.F) {
	cms, _ := builtinMaps.ReadFile("maps/cms-bfd.yaml")
	f.Add(cms)
	f.Add([]byte(smallMap))
	f.Add([]byte(peopleMap))
	f.Add([]byte("map: a\nzone: UTC\nfiles: [{match: '*', skip: x}]"))
	f.Add([]byte("map: a\nzone: UTC\nfiles: [{match: '*', keys: {k: {column: A}}, nodes: {n: {type: T, key: '{k}'}}}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMap("fuzz.yaml", text)
		if err != nil {
			var e *failure
			if !errors.As(err, &e) || e.code != exitInvalid {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		for _, file := range m.files { // what is accepted can be used
			header := strings.Join(file.columns(), ",")
			if r, err := m.newRowReader("x", 0, "t", strings.NewReader(header+"\n"+header+"\n")); err == nil {
				_, _ = r.next()
			}
		}
	})
}

func FuzzRows(f *testing.F) {
	m, err := parseMap("small.yaml", []byte(smallMap))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("a,g1,2026-01-01,\n"))
	f.Add([]byte("\"a\"\"\n\",g1,01/01/2026,9999-12-31\na\n\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := m.newRowReader("members.csv", 0, "acme", io.MultiReader(strings.NewReader("ID,GROUP,BGN,END\n"), bytes.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		last := 1
		for {
			row, err := r.next()
			if err != nil {
				return
			}
			if row.Line <= last {
				t.Fatalf("line %d follows line %d", row.Line, last)
			}
			last = row.Line
			if row.Refused == nil && len(row.Facts) == 0 {
				t.Fatalf("line %d is neither mapped nor refused", row.Line)
			}
			for _, d := range row.Facts {
				if n := d.Event.Node; n != nil && n.ID.Valid() != nil {
					t.Fatalf("line %d: %v", row.Line, n.ID.Valid())
				}
			}
		}
	})
}
