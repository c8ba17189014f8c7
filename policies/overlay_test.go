package policies

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const docForbid = `@id("no") forbid (principal is T::User, action == T::Action::"doc.view", resource is T::Doc)`

// overlayFindings lists overlays with one thing wrong each, by what is said of it.
var overlayFindings = []struct{ file, text, want string }{
	{"a.cedar", goodPolicy, "a.cedar:1:1: overlay_permit"},
	{"a.cedar", `@id("a") forbid (principal, action, resource);`, "a.cedar:1:1: overlay_builtin"},
	{"a.cedar", `@id("a") forbid (principal, action == Ward::Action::"role.define", resource);`, "a.cedar:1:1: overlay_builtin"},
	{"a.cedar", "// nothing\n", "overlay:1:1: overlay_empty"},
	{"a.cedar", strings.Replace(docForbid, `@id("no") `, "", 1) + ";", "a.cedar:1:1: id_missing"},
	{"a.cedar", strings.Replace(docForbid, `"no"`, `"acme/no"`, 1) + ";", "a.cedar:1:1: id_invalid"},
	{"a.cedar", strings.Replace(docForbid, `"no"`, `"ward.no"`, 1) + ";", "a.cedar:1:1: id_reserved"},
	{"a.cedar", docForbid + ";\n " + docForbid + ";", "a.cedar:2:2: id_duplicate"},
	{"a.cedar", "@obligation(\"x\") " + docForbid + ";", "a.cedar:1:1: obligation_invalid"},
	{"a.cedar", "@advice(\"x\") " + docForbid + ";", "a.cedar:1:1: obligation_invalid"},
	{"a.cedar", docForbid + " when { resource has secret && resource.secret };", "a.cedar:1:1: forbid_on_optional"},
	{"a.cedar", docForbid + " when { principal.nmae == \"x\" };", "a.cedar:1:1: validation_failed"},
	{"a.cedar", docForbid + " when { principal.level == T::Level::\"hgih\" };", "a.cedar:1:1: enum_unknown"},
	{"a.cedar", docForbid + " when { resource.from.toDate() == resource.to };", "a.cedar:1:1: unsupported_function"},
	{"a.cedar", docForbid + " when { principal.hasTag(\"doc.veiw\") };", "a.cedar:1:1: capability_unknown"},
	{"a.cedar", docForbid + " when { context.aal = 2 };", "a.cedar:1:115: policy_invalid"},
	{"a.cedar", docForbid + " when { " + strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100) + " };", "a.cedar:1:164: nesting_too_deep"},
	{"a.cedar", "\xff", "a.cedar:1:1: not_utf8"},
	{"a.cedar", strings.Repeat(" ", MaxFileSize+1), "a.cedar:1:1: file_too_large"},
	{"catalogue.yaml", "name: t\n", "catalogue.yaml:1:1: file_unknown"},
	{"schema.cedarschema", "namespace T {}", "schema.cedarschema:1:1: file_unknown"},
	{"tests/a.yaml", "tests: []", "tests/a.yaml:1:1: file_unknown"},
	{"modules/m/a.cedar", docForbid + ";", "modules/m/a.cedar:1:1: file_unknown"},
}

func TestOverlayFindings(t *testing.T) {
	set, err := Compile(testPack(goodPolicy))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range overlayFindings {
		files := map[string][]byte{f.file: []byte(f.text)}
		_, err := CompileOverlay(set, "acme", files)
		var diags *Diagnostics
		if !errors.As(err, &diags) || !strings.HasPrefix(err.Error(), f.want+": ") || len(diags.Findings) != 1 {
			t.Errorf("want %s alone, got\n%v", f.want, err)
		}
	}
	many := map[string][]byte{}
	for i := range MaxFiles + 1 {
		many[fmt.Sprintf("f%d.cedar", i)] = nil
	}
	if _, err := CompileOverlay(set, "acme", many); err == nil || !err.(*Diagnostics).Has(CodeTooManyFiles) {
		t.Errorf("too many files: %v", err)
	}
}

func TestReadOverlay(t *testing.T) {
	got, err := ReadOverlay(fstest.MapFS{"a.cedar": {Data: []byte("x")}, ".git/config": {}, ".hidden": {}})
	if err != nil || len(got) != 1 || string(got["a.cedar"]) != "x" {
		t.Errorf("read %q, %v", got, err)
	}
	for _, name := range []string{"catalogue.yaml", "more/b.cedar", "modules/m/b.cedar", "notes.txt"} {
		if _, err := ReadOverlay(fstest.MapFS{"a.cedar": {}, name: {}}); err == nil || !strings.HasPrefix(err.Error(), name+":1:1: file_unknown: an overlay has no file of this name") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOverlayArchive(t *testing.T) {
	set, err := Compile(testPack(goodPolicy))
	if err != nil {
		t.Fatal(err)
	}
	o, err := CompileOverlay(set, "acme", map[string][]byte{"b.cedar": []byte(docForbid + ";"), "a.cedar": []byte(strings.Replace(docForbid, "no", "never", 1) + ";")})
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenOverlay(set, "acme", o.Archive())
	if err != nil || again.Check() != nil || again.Digest() != o.Digest() || !bytes.Equal(again.Archive(), o.Archive()) || again.Tenant() != "acme" || again.Set() != set {
		t.Fatalf("opened again: %v", err)
	}
	var ids []string
	for _, p := range again.Policies() {
		ids = append(ids, p.ID)
	}
	if want := []string{"acme/never", "acme/no"}; !slices.Equal(ids, want) {
		t.Errorf("policies %q, want %q", ids, want)
	}
	if _, err := OpenOverlay(set, "acme", append(o.Archive(), ' ')); err == nil || !err.(*Diagnostics).Has(CodeArchiveInvalid) {
		t.Errorf("an archive with a space more: %v", err)
	}
	if _, err := OpenOverlay(set, "acme", set.Archive()); err == nil || !err.(*Diagnostics).Has(CodeFileUnknown) {
		t.Errorf("a set as an overlay: %v", err)
	}
	if _, err := Open(o.Archive()); err == nil {
		t.Error("an overlay opens as a set")
	}
	// Under a set without what it reads it opens, for replay, and may not be put in force.
	files := testPack(goodPolicy)
	files["schema.cedarschema"] = bytes.ReplaceAll(files["schema.cedarschema"], []byte("level: Level, "), nil)
	files["catalogue.yaml"] = bytes.ReplaceAll(files["catalogue.yaml"], []byte("level: fact, "), nil)
	other, err := Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	o, err = CompileOverlay(set, "acme", map[string][]byte{"a.cedar": []byte(docForbid + ` when { principal.level == T::Level::"high" };`)})
	if err != nil {
		t.Fatal(err)
	}
	moved, err := OpenOverlay(other, "acme", o.Archive())
	if err != nil {
		t.Fatal(err)
	}
	if err := moved.Check(); err == nil || !err.(*Diagnostics).Has(CodeValidationFailed) {
		t.Errorf("checked against another set: %v", err)
	}
	permit := encodeArchive(map[string][]byte{"a.cedar": []byte(goodPolicy)})
	if _, err := OpenOverlay(set, "acme", permit); err == nil || !err.(*Diagnostics).Has(CodeOverlayPermit) {
		t.Errorf("a stored permit opens: %v", err)
	}
}

// An overlay answers as the set would with the tenant's policies among its own:
// random sets and overlays, compared with one set of both.
func TestOverlayIsTheSetWithMoreForbids(t *testing.T) {
	trials := 300
	if os.Getenv("WARD_CAMPAIGN") != "" {
		trials = 20_000
	}
	changed, failed := 0, 0
	rng := rand.New(rand.NewPCG(5, 6))
	for trial := range trials {
		var base, over, both strings.Builder
		for i := range 1 + rng.IntN(6) {
			fmt.Fprintf(&base, "%s\n", randomPolicy(rng, fmt.Sprint("b", i), rng.IntN(3) == 0))
		}
		for i := range 1 + rng.IntN(4) {
			p := randomPolicy(rng, fmt.Sprint("o", i), true)
			fmt.Fprintln(&over, p)
			fmt.Fprintln(&both, strings.Replace(p, `@id("o`, `@id("acme-o`, 1))
		}
		set, err := Compile(testPack(base.String()))
		if err != nil {
			t.Fatal(err)
		}
		o, err := CompileOverlay(set, "acme", map[string][]byte{"o.cedar": []byte(over.String())})
		if err != nil {
			t.Fatal(err)
		}
		merged, err := Compile(testPack(base.String() + both.String()))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			q := randomDoc(rng)
			alone, got, want := set.Evaluate(q), o.Evaluate(q), merged.Evaluate(q)
			if a, b := words(got), strings.ReplaceAll(words(want), "acme-", "acme/"); a != b {
				t.Fatalf("trial %d: the overlay says\n%s\none set says\n%s\n%s%s", trial, a, b, base.String(), over.String())
			}
			if bool(got.Cedar) && !bool(alone.Cedar) {
				t.Fatalf("trial %d: an overlay allows", trial)
			}
			if got.Cedar != alone.Cedar {
				changed++
			}
			if len(got.Errors) > len(alone.Errors) {
				failed++
			}
			if !reflect.DeepEqual(alone.Permits, got.Permits) {
				t.Fatalf("trial %d: an overlay changes the satisfied permits", trial)
			}
			for _, p := range got.Candidates {
				if o.Explain(q, p.ID) == nil && len(p.ast.Conditions) > 0 {
					t.Fatalf("trial %d: %s is not explained", trial, p.ID)
				}
			}
		}
	}
	if changed == 0 || failed == 0 {
		t.Errorf("%d answers changed, %d overlays failed: too easy", changed, failed)
	}
}

func words(o Outcome) string {
	var b strings.Builder
	list := func(what string, ps []*Policy) {
		b.WriteString(what)
		for _, p := range ps {
			b.WriteString(" " + p.ID)
		}
	}
	fmt.Fprintf(&b, "%v until %d", o.Cedar, o.Until)
	list(" candidates", o.Candidates)
	list(" permits", o.Permits)
	list(" forbids", o.Forbids)
	for _, e := range o.Errors {
		fmt.Fprintf(&b, " error %s %s", e.Policy.ID, e.Kind)
	}
	return b.String()
}

// randomPolicy permits, or forbids, something about documents.
func randomPolicy(rng *rand.Rand, id string, forbid bool) string {
	effect := "permit"
	if forbid {
		effect = "forbid"
	}
	principal := []string{"principal is T::User", `principal == T::User::"u0"`, `principal is T::User in T::Scope::"s1"`}[rng.IntN(3)]
	action := []string{`action == T::Action::"doc.view"`, `action in T::Action::"reading"`, `action in [T::Action::"doc.view", T::Action::"all"]`}[rng.IntN(3)]
	resource := []string{"resource is T::Doc", `resource is T::Doc in T::Scope::"s0"`}[rng.IntN(2)]
	condition := []string{"", "when { resource.n > 2 }", "when { resource.n + 9223372036854775805 > 0 }", "unless { context.aal > 1 }",
		`when { principal.hasTag("doc.view") && resource in principal.getTag("doc.view") }`, "when { context.now < resource.to }"}[rng.IntN(6)]
	return fmt.Sprintf(`@id("%s") %s (%s, %s, %s) %s;`, id, effect, principal, action, resource, condition)
}

func randomDoc(rng *rand.Rand) *Question {
	scopes := func() []Ref {
		var out []Ref
		for i := range 3 {
			if rng.IntN(2) == 0 {
				out = append(out, Ref{"T::Scope", fmt.Sprint("s", i)})
			}
		}
		return out
	}
	return &Question{Action: []string{"doc.view", "doc.list", "doc.edit"}[rng.IntN(3)],
		Principal: Entity{Ref: Ref{"T::User", fmt.Sprint("u", rng.IntN(2))}, Parents: scopes(), Tags: map[string][]Ref{"doc.view": scopes()},
			Attrs: map[string]Value{"level": Ref{"T::Level", "low"}, "name": "x"}},
		Resource: Entity{Ref: Ref{"T::Doc", "d"}, Parents: scopes(), Attrs: map[string]Value{"n": int64(rng.IntN(5)), "from": Datetime(0), "to": Datetime(rng.IntN(100))}},
		Context:  map[string]Value{"now": Datetime(rng.IntN(100)), "aal": int64(rng.IntN(4))}}
}
