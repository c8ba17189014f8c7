package policies

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// sourceLines are the lengths of the documents of pbm/SOURCES.md, in lines.
var sourceLines = map[string]int{"pbm": 178, "analytics": 218, "patient": 152}

// sourceWaves are what a row may leave for later.
var sourceWaves = map[string]bool{
	"pack, delegation and feeds": true, "tokens and gateways": true, "SDK and console": true,
	"evidence ledger": true, "operations and observability": true, "FHIR facade": true,
	"out of scope": true, // with the reason
}

// What pbm/SOURCES.md names exists, each row says what serves it or what will,
// and no line of the documents is left out.
func TestSourcesAreServed(t *testing.T) {
	src, err := os.ReadFile("pbm/SOURCES.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range readSources(src, sourceLines, newNamed(t)) {
		t.Error(p)
	}
}

// Whatever is wrong with a row is found.
func TestSourcesAreReadStrictly(t *testing.T) {
	const doc = "| # | source | the demand | served by | shown by | to come |\n|---|---|---|---|---|---|\n" +
		"| 1 | pbm:1-2, pbm:4 | one | `pbm: guard.block`, `pdp.PDP.Decide` | `pdp.TestTenancy` | |\n" +
		"| 2 | pbm:4 | two | in part: `role: ops` | `case guards.yaml: and no claim under Part 2` | FHIR facade: the rest |\n" +
		"| 3 | pbm:5 | three | | | out of scope: no access |\n" +
		"| lines | what they hold |\n|---|---|\n" +
		"| pbm:3, pbm:6 | headings |\n"
	lengths := map[string]int{"pbm": 6}
	n := newNamed(t)
	if got := readSources([]byte(doc), lengths, n); got != nil {
		t.Fatal(strings.Join(got, "\n"))
	}
	for _, name := range []string{
		"ward: ward.policy.activate", "role: broker", "module: claims", "feature: claims.search", "route: kpi.live",
		"action: fhir.write", "setting: runOutDays", "node: State", "edge: memberOf", "grant type: parent",
		"policies/pbm/pack/guards.cedar", "pdp/authz.Enforce", "pdp/authz.MaxStale", "pdp.world.judge", "hierarchy.Role",
	} {
		if test, ok := n.find(name); !ok || test {
			t.Errorf("%s: test %t, exists %t", name, test, ok)
		}
	}
	for _, name := range []string{"case labs/labs.yaml: and none of another department", "cli/testdata/overlay.txt", "hierarchy.FuzzDecode"} {
		if test, ok := n.find(name); !ok || !test {
			t.Errorf("%s: test %t, exists %t", name, test, ok)
		}
	}
	for _, name := range []string{
		"pbm: guard.blok", "pbm: ward.policy.activate", "ward: guard.block", "role: oops", "module: claim", "feature: claims.find",
		"route: kpi.lives", "action: fhir.right", "setting: runoutDays", "node: Province", "edge: memberof", "grant type: aunt",
		"thing: memberOf", "policies/pbm/pack/guard.cedar", "pdp/authz.Enforcer", "pdp.judging.judge", "Decide", "pdp.", "",
		"case labs.yaml: and none of another department", "case labs/labs.yaml: and none", "pdp.TestTenants", "cli/testdata/overlays.txt",
		"../main/policies.Compile",
	} {
		if _, ok := n.find(name); ok {
			t.Errorf("%s exists", name)
		}
	}
	for _, c := range [][3]string{
		{"guard.block", "guard.blok", "`pbm: guard.blok` does not exist"},
		{"pdp.TestTenancy", "pdp.TestTenants", "`pdp.TestTenants` does not exist"},
		{"pdp.TestTenancy", "pdp.PDP", "`pdp.PDP` is no test"},
		{"pdp.PDP.Decide", "pdp.TestTenancy", "`pdp.TestTenancy` is a test, and serves nothing"},
		{"`pdp.TestTenancy`", "everything", "names nothing that shows it"},
		{"`pbm: guard.block`, `pdp.PDP.Decide`", "a guard", "names nothing that serves it"},
		{"in part: `role: ops`", "", "what is shown is served by something"},
		{"out of scope: no access", "", "says neither what serves it nor what will"},
		{"| three |", "| |", "the demand is missing"},
		{"pbm:1-2", "pbm:0-2", "pbm has no line 0"},
		{"pbm:1-2", "pbm:2-1", "pbm has no lines 2 to 1"},
		{"pbm:6", "pbm:7", "pbm has no line 7"},
		{"pbm:5", "book:5", `want document:line or document:from-to, not "book:5"`},
		{"pbm:5", "pbm", `want document:line or document:from-to, not "pbm"`},
		{"| 3 |", "| 4 |", "row 4 stands where row 3 should"},
		{"FHIR facade: the rest", "soon: the rest", `"soon" is none of what is to come`},
		{"FHIR facade: the rest", "FHIR facade", "does not say what is to come"},
		{"in part: ", "", "a row that leaves something for later says that it is served in part"},
		{"FHIR facade: the rest", "", "a row that is served in part says what is to come"},
		{"| three |", "| three | four |", "want 6 cells"},
		{"pbm:3, ", "", "pbm:3 is in no row"},
		{"pbm:3, ", "pbm:3-4, ", "pbm:4 is in a row, and said to ask for nothing"},
	} {
		got := readSources([]byte(strings.Replace(doc, c[0], c[1], 1)), lengths, n)
		if all := strings.Join(got, "\n"); !strings.Contains(all, c[2]) {
			t.Errorf("%q for %q is not found: %s", c[1], c[0], all)
		}
	}
}

var (
	quoted   = regexp.MustCompile("`([^`]*)`")
	lineSpan = regexp.MustCompile(`^([a-z]+):([0-9]+)(?:-([0-9]+))?$`)
)

// readSources returns what is wrong with the tables, given the lengths of the documents.
func readSources(src []byte, lengths map[string]int, names *named) (problems []string) {
	const asked, idle = 1, 2
	lines := map[string]map[int]int{}
	for doc := range lengths {
		lines[doc] = map[int]int{}
	}
	rows := 0
	for i, line := range strings.Split(string(src), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| # |") || strings.HasPrefix(line, "| lines |") {
			continue
		}
		bad := func(format string, args ...any) {
			problems = append(problems, fmt.Sprintf("SOURCES.md:%d: ", i+1)+fmt.Sprintf(format, args...))
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		for k := range cells {
			cells[k] = strings.TrimSpace(cells[k])
		}
		mark := func(cell string, as int) {
			for _, span := range strings.Split(cell, ", ") {
				m := lineSpan.FindStringSubmatch(span)
				if m == nil || lengths[m[1]] == 0 {
					bad("want document:line or document:from-to, not %q", span)
					continue
				}
				from, _ := strconv.Atoi(m[2])
				to := from
				if m[3] != "" {
					to, _ = strconv.Atoi(m[3])
				}
				switch {
				case from > to:
					bad("%s has no lines %d to %d", m[1], from, to)
					continue
				case from < 1:
					bad("%s has no line %d", m[1], from)
					continue
				case to > lengths[m[1]]:
					bad("%s has no line %d", m[1], to)
					continue
				}
				for n := from; n <= to; n++ {
					lines[m[1]][n] |= as
				}
			}
		}
		if len(cells) == 2 {
			mark(cells[0], idle)
			continue
		}
		if len(cells) != 6 {
			bad("want 6 cells, or 2 in the last table; there are %d", len(cells))
			continue
		}
		if rows++; cells[0] != strconv.Itoa(rows) {
			bad("row %s stands where row %d should", cells[0], rows)
		}
		mark(cells[1], asked)
		if cells[2] == "" {
			bad("the demand is missing")
		}
		served, shown, later := cells[3], cells[4], cells[5]
		for _, m := range quoted.FindAllStringSubmatch(served, -1) {
			switch test, ok := names.find(m[1]); {
			case !ok:
				bad("`%s` does not exist", m[1])
			case test:
				bad("`%s` is a test, and serves nothing", m[1])
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(shown, -1) {
			switch test, ok := names.find(m[1]); {
			case !ok:
				bad("`%s` does not exist", m[1])
			case !test:
				bad("`%s` is no test", m[1])
			}
		}
		inPart := strings.HasPrefix(served, "in part: ")
		switch {
		case served == "" && shown != "":
			bad("what is shown is served by something")
		case served != "" && !quoted.MatchString(served):
			bad("the row names nothing that serves it")
		case served != "" && !quoted.MatchString(shown):
			bad("the row names nothing that shows it")
		case served == "" && later == "":
			bad("the row says neither what serves it nor what will")
		case served != "" && !inPart && later != "":
			bad("a row that leaves something for later says that it is served in part")
		case inPart && later == "":
			bad("a row that is served in part says what is to come")
		}
		if later != "" {
			wave, rest, _ := strings.Cut(later, ": ")
			if !sourceWaves[wave] {
				bad("%q is none of what is to come", wave)
			} else if rest == "" {
				bad("the row does not say what is to come")
			}
		}
	}
	for _, doc := range sortedKeys(lengths) {
		for n := 1; n <= lengths[doc]; n++ {
			switch lines[doc][n] {
			case 0:
				problems = append(problems, fmt.Sprintf("SOURCES.md: %s:%d is in no row", doc, n))
			case asked | idle:
				problems = append(problems, fmt.Sprintf("SOURCES.md: %s:%d is in a row, and said to ask for nothing", doc, n))
			}
		}
	}
	return problems
}

// named knows what a row may name.
type named struct {
	set   *Set
	cases map[string]bool
	decls map[string]map[string]bool // by package folder, what it declares
}

func newNamed(t *testing.T) *named {
	n := &named{set: mustCompile(t, PBM()), cases: map[string]bool{}, decls: map[string]map[string]bool{}}
	for _, c := range n.set.Cases() {
		file := filepath.Base(c.File)
		if c.Module != "" {
			file = c.Module + "/" + file
		}
		n.cases[file+": "+c.Name] = true
	}
	return n
}

// find reports whether a name exists, and whether it is a test's.
func (n *named) find(name string) (test, ok bool) {
	if c, ok := strings.CutPrefix(name, "case "); ok {
		return true, n.cases[c]
	}
	c := n.set.Catalogue()
	if kind, id, ok := strings.Cut(name, ": "); ok {
		switch kind {
		case "pbm", "ward":
			_, ok = n.set.Policy(id)
			return false, ok && (kind == "ward") == strings.HasPrefix(id, "ward.")
		case "role":
			for _, r := range c.Roles {
				if r.Name == id {
					return false, true
				}
			}
			return false, false
		case "module":
			return false, c.Modules[id] != nil
		case "feature":
			return false, c.Features[id] != nil
		case "route":
			return false, c.Routes[id] != nil
		case "action":
			return false, c.Actions[id] != nil
		case "setting":
			return false, c.Settings[id] != nil
		case "node":
			return false, c.Nodes[id] != nil
		case "edge":
			return false, c.Edges[id] != nil
		case "grant type":
			return false, c.GrantTypes[id] != nil
		}
		return false, false
	}
	if strings.Contains(name, "/") && fs.ValidPath(name) {
		if _, err := os.Stat(filepath.Join("..", name)); err == nil {
			return strings.Contains(name, "/testdata/"), true
		}
	}
	dir, decl, _ := strings.Cut(name, ".")
	if !fs.ValidPath(dir) {
		return false, false
	}
	base := decl[strings.LastIndex(decl, ".")+1:]
	return strings.HasPrefix(base, "Test") || strings.HasPrefix(base, "Fuzz"), n.declared(dir)[decl]
}

// declared lists the functions, methods and types of a package and its tests.
func (n *named) declared(dir string) map[string]bool {
	if d := n.decls[dir]; d != nil {
		return d
	}
	names := map[string]bool{}
	n.decls[dir] = names
	files, _ := filepath.Glob(filepath.Join("..", dir, "*.go"))
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			continue // it does not compile either
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					recv := d.Recv.List[0].Type
					if star, ok := recv.(*ast.StarExpr); ok {
						recv = star.X
					}
					if id, ok := recv.(*ast.Ident); ok {
						name = id.Name + "." + name
					}
				}
				names[name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						names[s.Name.Name] = true
					case *ast.ValueSpec:
						for _, id := range s.Names {
							names[id.Name] = true
						}
					}
				}
			}
		}
	}
	return names
}
