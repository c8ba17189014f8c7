package policies

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/diagnostics.golden")

// edit replaces text in a file of the test pack; an empty old writes the file.
type edit struct{ file, old, new string }

const goodPolicy = `@id("good") permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc);`

const goodModule = `title: M
resources:
  item: {kind: sent, entity: Item, authority: [svc], anchors: {node: Node}}
actions:
  item.view: {}
`
const goodModuleSchema = `namespace T { entity Item in [Scope]; action "item.view" appliesTo { principal: [User], resource: [Item], context: Session }; }`

// findings lists packs with one thing wrong each, by the code it gives.
var findings = []struct {
	code  string
	edits []edit
}{
	{CodeFileUnknown, []edit{{"notes.txt", "", "x"}}},
	{CodeFileUnknown, []edit{{"modules/m/roles.yaml", "", "x: {}"}, {"modules/m/catalogue.yaml", "", "title: M"}}},
	{CodeFileTooLarge, []edit{{"big.cedar", "", strings.Repeat(" ", MaxFileSize+1)}}},
	{CodeNotUTF8, []edit{{"bad.cedar", "", "\xff\xfe"}}},
	{CodeBidiControl, []edit{{"p.cedar", "", "// \u202ereversed\n" + goodPolicy}}},
	{CodeBidiControl, []edit{{"p.cedar", "", "@note(\"\u2066\") " + goodPolicy}}},
	{CodeNestingTooDeep, []edit{{"p.cedar", "", `@id("a") permit (principal, action, resource) when { ` + strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100) + " };"}}},
	{CodeNestingTooDeep, []edit{{"p.cedar", "", `@id("a") permit (principal, action, resource) when { ` + strings.Repeat("if true then ", 70) + "true };"}}},
	{CodeNestingTooDeep, []edit{{"schema.cedarschema", "entity Scope;", "entity Scope; type Deep = " + strings.Repeat("Set<", 70) + "Long" + strings.Repeat(">", 70) + ";"}}},
	{CodeSetTooLarge, []edit{{"p.cedar", "", `@id("a") permit (principal, action, resource) when { [` + strings.Repeat("1,", 1100) + "1].contains(1) };"}}},
	{CodePolicyTooLarge, []edit{{"p.cedar", "", `@id("a") permit (principal, action, resource) when { ` + strings.Repeat("!", 9000) + "true };"}}},
	{CodeYAMLInvalid, []edit{{"catalogue.yaml", "name: t", "name: t\nbad: [1, 2"}}},
	{CodeYAMLInvalid, []edit{{"roles.yaml", "", "a: &x {capabilities: []}\nb: *x\n"}}},
	{CodeYAMLInvalid, []edit{{"roles.yaml", "", "a: {}\n---\nb: {}\n"}}},
	{CodeYAMLInvalid, []edit{{"roles.yaml", "", strings.Repeat("[", 1000)}}},
	{CodeYAMLInvalid, []edit{{"roles.yaml", "", ""}}},
	{CodeKeyUnknown, []edit{{"catalogue.yaml", "  Node: {}", "  Node: {ownd: true}"}}},
	{CodeKeyUnknown, []edit{{"catalogue.yaml", "    authority: [svc]\n    anchors: {node: Node}\n    attributes: {n: sent}", "    node: Node\n    authority: [svc]\n    anchors: {node: Node}\n    attributes: {n: sent}"}}},
	{CodeKeyDuplicate, []edit{{"catalogue.yaml", "  Node: {}", "  Node: {}\n  Node: {}"}}},
	{CodeKeyDuplicate, []edit{{"modules/m/catalogue.yaml", "", "actions:\n  doc.view: {}\n"}}},
	{CodeKeyMissing, []edit{{"catalogue.yaml", "namespace: T\n", ""}}},
	{CodeKeyMissing, []edit{{"catalogue.yaml", "    authority: [svc]\n    anchors: {node: Node}\n    attributes: {n: sent, from", "    anchors: {node: Node}\n    attributes: {n: sent, from"}}},
	{CodeKeyMissing, []edit{{"tests/a.yaml", "", "tests:\n  - name: x\n"}}},
	{CodeValueInvalid, []edit{{"catalogue.yaml", "  Node: {}", "  Node: {owned: perhaps}"}}},
	{CodeValueInvalid, []edit{{"catalogue.yaml", "name: fact", "name: guess"}}},
	{CodeValueInvalid, []edit{{"catalogue.yaml", "  Node: {}", "  Node: {}\n  Person: {owned: true}"}}},
	{CodeCatalogueMissing, []edit{{"modules/m/p.cedar", "", goodPolicy}}},
	{CodeSchemaMissing, []edit{{"schema.cedarschema", "*", ""}}},
	{CodeSchemaInvalid, []edit{{"schema.cedarschema", "entity Node in [Scope];", "entity Node in [Scope] entity;"}}},
	{CodeSchemaInvalid, []edit{{"schema.cedarschema", "n: Long, from", "n: Lon, from"}}},
	{CodeSchemaDuplicate, []edit{{"modules/m/schema.cedarschema", "", "namespace T {\n  entity Doc;\n}"}, {"modules/m/catalogue.yaml", "", "title: M"}}},
	{CodeNamespaceUnknown, []edit{{"schema.cedarschema", "namespace T {", "namespace U { entity X; }\nnamespace T {"}}},
	{CodeNamespaceUnknown, []edit{{"schema.cedarschema", "\nnamespace T {", "entity X;\nnamespace T {"}}},
	{CodeNamespaceReserved, []edit{{"schema.cedarschema", "namespace T {", "namespace Ward { entity X; }\nnamespace T {"}}},
	{CodeEntityReserved, []edit{{"schema.cedarschema", "entity Node in [Scope];", "entity Node in [User];"}}},
	{CodeEntityReserved, []edit{{"schema.cedarschema", "type: String };", "type: Long };"}}},
	{CodeEntityReserved, []edit{{"schema.cedarschema", "entity Scope;", "entity Scope = { name: String };"}}},
	{CodeEntityReserved, []edit{{"schema.cedarschema", "entity Node in [Scope];", "entity Node in [Scope] tags Set<Scope>;"}}},
	{CodePolicyInvalid, []edit{{"p.cedar", "", goodPolicy + "\n\n@id(\"b\") permit (principal, action, resource) when { context.aal = 2 };\n@id(\"c\") allow (principal, action, resource);"}}},
	{CodePolicyInvalid, []edit{{"p.cedar", "", goodPolicy + "\n@id(\"never ends) permit"}}},
	{CodePolicyInvalid, []edit{{"p.cedar", "", goodPolicy + "\n  permit (principal, action, resource)"}}},
	{CodeValidationFailed, []edit{{"p.cedar", "", "// a comment\n" + `@id("a") permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { principal.nmae == "x" && resource.n like "y" };`}}},
	{CodeValidationFailed, []edit{{"p.cedar", "", `@id("a") permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { context.ip.isLoopback() };`}}},
	{CodeValidationFailed, []edit{{"p.cedar", "", `@id("a") permit (principal, action == T::Action::"doc.vew", resource);`}}},
	{CodeValidationFailed, []edit{{"p.cedar", "", `@id("a") permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { context.now < datetime("2026-13-01") };`}}},
	{CodeIDMissing, []edit{{"p.cedar", "@id(\"good\") ", ""}}},
	{CodeIDInvalid, []edit{{"p.cedar", `"good"`, `"not good"`}}},
	{CodeIDDuplicate, []edit{{"q.cedar", "", "\n  " + goodPolicy}}},
	{CodeIDReserved, []edit{{"p.cedar", `"good"`, `"ward.good"`}}},
	{CodeObligationInvalid, []edit{{"p.cedar", "@id", `@obligation("filter:node") @id`}}},
	{CodeObligationInvalid, []edit{{"p.cedar", "", `@id("a") @obligation("filter") forbid (principal is T::User, action == T::Action::"doc.view", resource is T::Doc);`}}},
	{CodeEnumUnknown, []edit{{"p.cedar", "T::Doc);", `T::Doc) when { principal.level == T::Level::"hgih" };`}}},
	{CodeEnumUnknown, []edit{{"p.cedar", "T::Doc);", `T::Doc) when { [T::Level::"low", T::Level::"mid"].contains(principal.level) };`}}},
	{CodeUnsupportedFunction, []edit{{"p.cedar", "T::Doc);", `T::Doc) when { resource.from.toDate() == datetime("1955-03-01") };`}}},
	{CodeUnsupportedFunction, []edit{{"p.cedar", "T::Doc);", `T::Doc) when { resource.from.toTime() < duration("1h") };`}}},
	{CodeUnsupportedLiteral, []edit{{"p.cedar", "T::Doc);", `T::Doc) when { decimal("+1.0").lessThan(decimal("2.0")) };`}}},
	{CodeUnsupportedLiteral, []edit{{"p.cedar", "T::Doc);", `T::Doc) when { duration("-9223372036854775808ms") < duration("1h") };`}}},
	{CodeForbidOnOptional, []edit{{"p.cedar", "", `@id("a") forbid (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { resource has secret && resource.secret };`}}},
	{CodeForbidOnOptional, []edit{{"p.cedar", "", `@id("a") forbid (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) unless { context has ip && context.ip.isLoopback() };`}}},
	{CodeForbidOnOptional, []edit{{"p.cedar", "", `@id("a") forbid (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { context has action && context.action has hard };`}}},
	{CodeForbidOnOptional, []edit{{"p.cedar", "", `@id("a") forbid (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { (if context.aal > 1 then resource else resource) has secret };`}}},
	{CodeModulePermit, []edit{{"modules/m/catalogue.yaml", "", goodModule}, {"modules/m/schema.cedarschema", "", goodModuleSchema},
		{"modules/m/p.cedar", "", `@id("m") permit (principal is T::User, action in [T::Action::"item.view", T::Action::"doc.view"], resource);`}}},
	{CodeBuiltinPermit, []edit{{"p.cedar", "", `@id("all") permit (principal, action, resource);`}}},
	{CodeBuiltinForbid, []edit{{"p.cedar", "", `@id("none") forbid (principal, action in [Ward::Action::"policy.activate", Ward::Action::"role.define"], resource);`}}},
	{CodeNameReserved, []edit{{"catalogue.yaml", "  robot:", "  admin:"}}},
	{CodeActionUndeclared, []edit{{"catalogue.yaml", "  doc.list: {properties: {hard: sent}}", ""}}},
	{CodeActionUnknown, []edit{{"catalogue.yaml", "actions:", "actions:\n  doc.burn: {}"}}},
	{CodeActionUnknown, []edit{{"catalogue.yaml", "actions:", "actions:\n  reading: {}"}}},
	{CodeEntityUnknown, []edit{{"catalogue.yaml", "  Node: {}", "  Node: {}\n  Nod: {}"}}},
	{CodeEntityUndeclared, []edit{{"schema.cedarschema", "entity Scope;", "entity Scope;\n  entity Extra in [Scope];"}}},
	{CodeAttributeUnknown, []edit{{"catalogue.yaml", "name: fact", "name: fact, nmae: fact"}}},
	{CodeAttributeUnknown, []edit{{"catalogue.yaml", "context:", "context:\n  mac: sent"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "now: datetime", "now: Long"}, {"p.cedar", "*", ""}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "secret?: Bool", "secret?: { a: Bool }"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "grant?: Grant", "grant?: Grant, tenant?: Scope"}}},
	{CodeWardUnknown, []edit{{"catalogue.yaml", "name: fact", "name: ward"}}},
	{CodeWardUnknown, []edit{{"schema.cedarschema", "name: String", "persons: Set<String>"}, {"catalogue.yaml", "name: fact", "persons: ward"}}},
	{CodeSourceMissing, []edit{{"catalogue.yaml", ", name: fact", ""}}},
	{CodeSourceMissing, []edit{{"catalogue.yaml", "  ip: {from: sent, authority: [gw]}", ""}}},
	{CodeSourceDuplicate, []edit{{"catalogue.yaml", "nodes:", "nodes:\n  Boss: {entity: User, attributes: {name: fact}}"}}},
	{CodeSourceDuplicate, []edit{{"catalogue.yaml", "anchors: {node: Node}\n    attributes: {n: sent, from", "anchors: {n: Node}\n    attributes: {n: sent, from"}}},
	{CodeNodeUnknown, []edit{{"catalogue.yaml", "anchors: {node: Node}\n    attributes: {n: sent, from", "anchors: {node: Nod}\n    attributes: {n: sent, from"}}},
	{CodeModuleUnknown, []edit{{"catalogue.yaml", "context:", "features:\n  f: {module: nope, capability: doc.view}\ncontext:"}}},
	{CodeResourceUnknown, []edit{{"catalogue.yaml", "context:", "modules: {m: {}}\nroutes:\n  r: {module: m, capability: doc.view, method: GET, path: /d, action: doc.view, resource: dok}\ncontext:"}}},
	{CodeResourceUnknown, []edit{{"catalogue.yaml", "context:", "modules: {m: {}}\nroutes:\n  r: {module: m, capability: doc.view, method: GET, path: /d, action: doc.edit, resource: box}\ncontext:"}}},
	{CodeRouteDuplicate, []edit{{"catalogue.yaml", "context:", "modules: {m: {}}\nroutes:\n  r: {module: m, capability: doc.view, method: GET, path: \"/d/{id}\", action: doc.view, resource: doc}\n  s: {module: m, capability: doc.view, method: GET, path: \"/d/{x}\", action: doc.view, resource: doc}\ncontext:"}}},
	{CodeNodeUnknown, []edit{{"catalogue.yaml", "    anchors: {node: Node}\n    attributes: {n: sent}", "    hangsFrom: \"Nope:x\"\n    attributes: {n: sent}"}}},
	{CodeRoleUnknown, []edit{{"roles.yaml", "", "reader: {includes: [writer]}"}}},
	{CodeRoleUnknown, []edit{{"catalogue.yaml", "context:", "links: {self: me}\ncontext:"}}},
	{CodeRoleUnknown, []edit{{"catalogue.yaml", "context:", "tenantRoles: [nobody]\ncontext:"}}},
	{CodeCapabilityUnknown, []edit{{"catalogue.yaml", "context:", "grantTypes: {proxy: {capabilities: [doc.veiw]}}\ncontext:"}}},
	{CodeCapabilityUnknown, []edit{{"catalogue.yaml", "context:", "grantTypes: {proxy: {capabilities: [role.assign]}}\ncontext:"}}},
	{CodeRoleDuplicate, []edit{{"roles.yaml", "", "auditor: {}"}}},
	{CodeRoleCycle, []edit{{"roles.yaml", "", "a: {includes: [b]}\nb: {includes: [a]}"}}},
	{CodeSettingUnknown, []edit{{"catalogue.yaml", "context:", "settings: {open: {default: false}}\ncontext:"}}},
	{CodeSettingUnknown, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, settings: { open: Bool },"}}},
	{CodeSettingUnknown, []edit{{"catalogue.yaml", "context:", "runOut: days\ncontext:"}}},
	{CodeKeyMissing, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, settings: { open: Bool },"}, {"catalogue.yaml", "context:", "settings: {open: {}}\ncontext:"}}},
	{CodeValueInvalid, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, settings: { open: Bool },"}, {"catalogue.yaml", "context:", "settings: {open: {default: 1}}\ncontext:"}}},
	{CodeValueInvalid, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, settings: { days: Long },"}, {"catalogue.yaml", "context:", "settings: {days: {default: 1, max: 0}}\ncontext:"}}},
	{CodeValueInvalid, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, settings: { open: Bool },"}, {"catalogue.yaml", "context:", "settings: {open: {default: true, max: 3}}\ncontext:"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, settings?: { open: Bool },"}, {"catalogue.yaml", "context:", "settings: {open: {default: true}}\ncontext:"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, settings: { open: datetime },"}, {"catalogue.yaml", "context:", "settings: {open: {default: true}}\ncontext:"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, emergency: Long,"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, capability: Long,"}}},
	{CodeAttributeUnknown, []edit{{"schema.cedarschema", "aal: Long,", "aal: Long, capability: String,"}, {"catalogue.yaml", "context:", "context:\n  capability: sent"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "name: String, until", "name: String, boss: User, until"}, {"catalogue.yaml", "name: fact, until", "name: fact, boss: fact, until"}}},
	{CodeAttributeType, []edit{{"schema.cedarschema", "secret?: Bool }", "secret?: Node }"}}},
	{CodeEntityReserved, []edit{{"schema.cedarschema", "entity Scope;", "entity Scope; entity Emergency = { reason: Long };"}}},
	{CodeRoleUnknown, []edit{{"catalogue.yaml", "context:", "emergency: {role: nobody, minutes: 30, reasons: [coma]}\ncontext:"}}},
	{CodeValueInvalid, []edit{{"catalogue.yaml", "context:", "emergency: {role: nobody, minutes: 31, reasons: [coma]}\ncontext:"}}},
	{CodeKeyMissing, []edit{{"catalogue.yaml", "context:", "emergency: {role: nobody}\ncontext:"}}},
	{CodeValueInvalid, []edit{{"catalogue.yaml", "context:", "grantTypes: {parent: {needs: [everybody]}}\ncontext:"}}},
	{CodeGrantUnknown, []edit{{"catalogue.yaml", "context:", "familyGrants: [parent]\ncontext:"}}},
	{CodeCapabilityUnknown, []edit{{"roles.yaml", "", "reader: {capabilities: [doc.veiw]}"}}},
	{CodeCapabilityUnknown, []edit{{"p.cedar", "T::Doc);", `T::Doc) when { principal.hasTag("doc.veiw") };`}}},
	{CodeEdgeTypesMissing, []edit{{"catalogue.yaml", "context:", "edges:\n  in: {confers: true, from: [Node]}\ncontext:"}}},
	{CodeCaseUnknown, []edit{{"tests/a.yaml", "", "tests:\n  - {name: x, at: 2026-01-01T00:00:00Z, caller: c, subject: user:u, action: doc.view, resource: doc:d, expect: {decision: allow, policies: [nope]}}\n"}}},
}

func edited(t *testing.T, edits []edit) map[string][]byte {
	t.Helper()
	files := testPack(goodPolicy)
	for _, e := range edits {
		switch {
		case e.old == "*":
			delete(files, e.file)
		case e.old == "":
			files[e.file] = []byte(e.new)
		case !strings.Contains(string(files[e.file]), e.old):
			t.Fatalf("%s does not hold %q", e.file, e.old)
		default:
			files[e.file] = []byte(strings.Replace(string(files[e.file]), e.old, e.new, 1))
		}
	}
	return files
}

// Every code has at least one pack that gives it; the texts and places are in
// testdata/diagnostics.golden, for review.
func TestDiagnostics(t *testing.T) {
	if _, err := Compile(testPack(goodPolicy)); err != nil {
		t.Fatalf("the pack that the test edits has findings of its own:\n%v", err)
	}
	var b strings.Builder
	covered := map[string]bool{CodeTooManyFiles: true, CodeArchiveInvalid: true, // tested elsewhere
		CodeOverlayPermit: true, CodeOverlayBuiltin: true, CodeOverlayEmpty: true}
	for i, f := range findings {
		files := edited(t, f.edits)
		_, err := Compile(files)
		var diags *Diagnostics
		if !errors.As(err, &diags) {
			t.Errorf("%d: %s: no findings: %v", i, f.code, err)
			continue
		}
		if !diags.Has(f.code) {
			t.Errorf("%d: want %s, got\n%v", i, f.code, err)
		}
		for range 5 {
			if _, again := Compile(files); again.Error() != err.Error() {
				t.Errorf("%d: %s: two runs, two texts:\n%v\n%v", i, f.code, err, again)
			}
		}
		covered[f.code] = true
		fmt.Fprintf(&b, "# %s\n%s\n\n", f.code, err)
	}
	for _, code := range declaredCodes(t) {
		if !covered[code] {
			t.Errorf("no pack gives %s", code)
		}
	}
	const golden = "testdata/diagnostics.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != b.String() {
		got := strings.Split(b.String(), "\n")
		for i, line := range strings.Split(string(want), "\n") {
			if i >= len(got) || got[i] != line {
				t.Fatalf("%s:%d differs (go test -update, then review):\nwant %s\ngot  %s", golden, i+1, line, got[min(i, len(got)-1)])
			}
		}
		t.Fatal("more findings than the golden file has")
	}
}

// declaredCodes reads the values of the Code constants from the source.
func declaredCodes(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "diagnostics.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Code") {
			code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, code)
		}
		return true
	})
	if len(codes) < 40 {
		t.Fatalf("found %d codes only", len(codes))
	}
	slices.Sort(codes)
	return codes
}

// The package comment explains every code.
func TestCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range declaredCodes(t) {
		if !strings.Contains(string(doc), "\t"+code+" ") {
			t.Errorf("doc.go does not explain %s", code)
		}
	}
}

// All findings are reported at once, each in its place.
func TestFindingsAllAtOnce(t *testing.T) {
	files := testPack(strings.Join([]string{
		`@id("a") permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { principal.nmae == "" };`,
		`permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc);`,
		`  @id("a") permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc) when { principal.level == T::Level::"x" };`,
	}, "\n"))
	_, err := Compile(files)
	var got []string
	for _, f := range err.(*Diagnostics).Findings {
		got = append(got, fmt.Sprintf("%s:%d:%d %s", f.File, f.Line, f.Column, f.Code))
	}
	want := []string{"p.cedar:1:1 validation_failed", "p.cedar:2:1 id_missing", "p.cedar:3:3 enum_unknown", "p.cedar:3:3 id_duplicate"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
