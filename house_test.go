package ward_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ward-authz/ward"

// room is one package of the house: what of Ward it may import, and which
// third-party modules have their home in it. Test files may also import what
// tests says.
type room struct {
	imports []string // packages of Ward
	homes   []string // third-party import path prefixes
	tests   []string // further imports of its test files: packages of Ward or prefixes
}

const (
	cedar   = "github.com/cedar-policy/cedar-go"
	yaml    = "go.yaml.in/yaml/v4"
	bolt    = "go.etcd.io/bbolt"
	sumdb   = "golang.org/x/mod/sumdb"
	cobra   = "github.com/spf13/cobra"
	scripts = "github.com/rogpeppe/go-internal/testscript"
)

// house is the whole house. Imports run one way: authz and the cores, then
// pdp, then cli, then cmd. A package that is not listed fails: a new one needs
// a reason, which belongs here.
var house = map[string]room{
	".":                            {},
	"pdp/authz":                    {},
	"hierarchy":                    {tests: []string{"hierarchy/storetest"}},
	"hierarchy/boltstore":          {imports: []string{"hierarchy"}, homes: []string{bolt}, tests: []string{"hierarchy/storetest"}},
	"hierarchy/storetest":          {imports: []string{"hierarchy"}},
	"policies":                     {imports: []string{"pdp/authz", "policies/pbm"}, homes: []string{cedar, yaml}, tests: []string{"hierarchy", "policies/officialtest"}},
	"policies/pbm":                 {}, // the shipped domain pack: files only
	"policies/officialtest":        {}, // the official engine, for tests
	"pdp/audit":                    {homes: []string{sumdb}},
	"pdp":                          {imports: []string{"pdp/authz", "hierarchy", "policies", "pdp/audit"}, tests: []string{"hierarchy/storetest", "hierarchy/boltstore", "policies/officialtest", cedar}},
	"adapters/hosts":               {imports: []string{"pdp/authz"}}, // the Host check, against DNS rebinding: every HTTP door needs the same
	"adapters/jsonbody":            {imports: []string{"pdp/authz"}}, // one strict reader of bodies: doors that read differently can be played against each other
	"adapters/panics":              {},                               // what a door logs of a panic: its place, and never its value
	"adapters/authzen":             {imports: []string{"pdp/authz", "adapters/hosts", "adapters/jsonbody", "adapters/panics"}, tests: []string{"adapters/authzen/authzentest"}},
	"adapters/authzen/authzentest": {},                                                                                                                                                                              // the certification suite, for any server
	"adapters/delegation":          {imports: []string{"pdp", "pdp/authz", "hierarchy", "adapters/hosts", "adapters/jsonbody", "adapters/panics"}, tests: []string{"pdp/audit", "policies", "hierarchy/storetest"}}, // people ask for facts here, so it knows the core that makes them
	"adapters/admin":               {imports: []string{"pdp", "pdp/authz", "pdp/audit", "hierarchy", "policies", "adapters/witness"}, tests: []string{"hierarchy/boltstore", "hierarchy/storetest"}},
	"adapters/witness":             {imports: []string{"pdp/audit"}}, // checkpoints seen by somebody else: the proofs are the ledger's, the protocol is not
	"adapters/webhook":             {},                               // events to another system: a wire protocol of its own, that knows nothing of Ward
	"cli":                          {imports: []string{"pdp", "pdp/authz", "pdp/audit", "hierarchy", "hierarchy/boltstore", "policies", "adapters/authzen", "adapters/delegation", "adapters/admin", "adapters/webhook", "adapters/witness"}, homes: []string{cobra, yaml}, tests: []string{"adapters/authzen/authzentest", "hierarchy/storetest", scripts}},
	"cmd/ward":                     {imports: []string{"cli"}},
}

// heavy lists what the cores must not pull in, however indirectly, and why.
var heavy = map[string][]string{
	"pdp/authz":        {"net/http", "the words of every door stay small", module + "/", "the words know nothing of Ward", "github.com/", "standard library only"},
	"hierarchy":        {"net/http", "facts know no wire", "github.com/", "facts import no third-party module"},
	"policies":         {"net/http", "policies know no wire", "google.golang.org/grpc", ""},
	"pdp/audit":        {"net/http", "evidence is checked offline", "github.com/", ""},
	"pdp":              {"net/http", "the decision point knows no wire", "google.golang.org/grpc", ""},
	"adapters/authzen": {module + "/hierarchy", "a door knows only authz", module + "/policies", "a door knows only authz"},
}

// under reports whether a package is a path or lies below it.
func under(pkg, path string) bool {
	path = strings.TrimSuffix(path, "/")
	return pkg == path || strings.HasPrefix(pkg, path+"/")
}

func TestHouse(t *testing.T) {
	found := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		found[dir] = true
		r, ok := house[dir]
		if !ok {
			t.Errorf("%s: package %s is not in the table of house_test.go: a new package needs a reason", path, dir)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imp := strings.Trim(spec.Path.Value, `"`)
			if why := allowed(r, dir, imp, strings.HasSuffix(path, "_test.go")); why != "" {
				t.Errorf("%s imports %s: %s", path, imp, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range house {
		if !found[dir] {
			t.Errorf("the table lists %s, which has no Go file", dir)
		}
	}
}

// allowed returns why a package may not import another, or "".
func allowed(r room, dir, imp string, test bool) string {
	within := func(list []string, s string) bool { return slices.Contains(list, s) }
	prefix := func(list []string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return imp == p || strings.HasPrefix(imp, p+"/") })
	}
	if own, ok := strings.CutPrefix(imp, module); ok {
		own = strings.TrimPrefix(own, "/")
		switch {
		case own == dir && test, within(r.imports, own), test && within(r.tests, own):
			return ""
		}
		return "imports run one way (see the table)"
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	if prefix(r.homes) || test && prefix(r.tests) {
		return ""
	}
	return "this module has its home elsewhere (see the table)"
}

// TestCoresStayLight checks what packages pull in indirectly.
func TestCoresStayLight(t *testing.T) {
	if testing.Short() {
		t.Skip("lists all dependencies")
	}
	for _, dir := range slices.Sorted(maps.Keys(heavy)) {
		out, err := exec.Command("go", "list", "-deps", "./"+dir).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", dir, err)
		}
		deps := strings.Fields(string(out))
		rules := heavy[dir]
		for _, d := range deps {
			for i := 0; i < len(rules); i += 2 {
				own := d == module+"/"+dir || under(d, module) && rules[i] == "github.com/"
				if under(d, rules[i]) && !own {
					t.Errorf("%s pulls in %s: %s", dir, d, rules[i+1])
				}
			}
		}
	}
}

// TestEveryPackageHasOneDoc checks that each package says what it is, once.
func TestEveryPackageHasOneDoc(t *testing.T) {
	for dir := range house {
		if dir == "." {
			continue
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var docs []string
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				docs = append(docs, path)
			}
		}
		if len(docs) != 1 {
			t.Errorf("%s: want one package comment, have %d %v", dir, len(docs), docs)
		}
	}
}

// TestExportedNamesAreDocumented checks every exported name outside tests.
func TestExportedNamesAreDocumented(t *testing.T) {
	for dir := range house {
		files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d)) && !wellKnown[d.Name.Name] {
						t.Errorf("%s: %s has no comment", fset.Position(d.Pos()), d.Name.Name)
					}
				case *ast.GenDecl:
					for _, s := range d.Specs {
						switch s := s.(type) {
						case *ast.TypeSpec:
							if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
								t.Errorf("%s: type %s has no comment", fset.Position(s.Pos()), s.Name.Name)
							}
						case *ast.ValueSpec:
							if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
								t.Errorf("%s: %s has no comment", fset.Position(s.Pos()), s.Names[0].Name)
							}
						}
					}
				}
			}
		}
	}
}

// wellKnown are methods whose meaning their interface fixes.
var wellKnown = map[string]bool{"Error": true, "Unwrap": true, "Len": true, "Less": true, "Swap": true, "Is": true, "String": true}

func exportedReceiver(d *ast.FuncDecl) bool {
	e := d.Recv.List[0].Type
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	if i, ok := e.(*ast.IndexExpr); ok {
		e = i.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.IsExported()
}

// TestGoModHasOneHomePerModule checks that every direct dependency is one that
// the table gives a home.
func TestGoModHasOneHomePerModule(t *testing.T) {
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(bytes.TrimSpace(out), &mod); err != nil {
		t.Fatal(err)
	}
	for _, req := range mod.Require {
		if req.Indirect {
			continue
		}
		used := false
		for _, r := range house {
			for _, h := range slices.Concat(r.homes, r.tests) {
				used = used || h == req.Path || strings.HasPrefix(h, req.Path+"/")
			}
		}
		if !used {
			t.Errorf("go.mod requires %s, which has no home in the table", req.Path)
		}
	}
}

// TestNothingNamesAMachine checks that no committed text holds an absolute path
// of somebody's machine.
func TestNothingNamesAMachine(t *testing.T) {
	out, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Skip("not a git checkout")
	}
	for _, path := range strings.Fields(string(out)) {
		if strings.HasSuffix(path, ".zip") || path == "house_test.go" {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, bad := range []string{"/home/", "/root/", "/work/", "/Users/"} {
			if bytes.Contains(b, []byte(bad)) {
				t.Errorf("%s names a path of a machine (%s…)", path, bad)
			}
		}
	}
}

// TestLockFilesPinByDigest checks that what npm installs for tests is fixed by its
// digest, and from wherever the machine installs packages.
func TestLockFilesPinByDigest(t *testing.T) {
	out, err := exec.Command("git", "ls-files", "*package-lock.json").Output()
	if err != nil {
		t.Skip("not a git checkout")
	}
	for _, path := range strings.Fields(string(out)) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var lock struct {
			Packages map[string]struct{ Integrity, Resolved string }
		}
		if err := json.Unmarshal(text, &lock); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for name, p := range lock.Packages {
			if name != "" && (p.Integrity == "" || p.Resolved != "") {
				t.Errorf("%s: %s wants an integrity and no resolved (npm install --omit-lockfile-registry-resolved)", path, name)
			}
		}
	}
}
