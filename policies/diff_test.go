package policies

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	compiled := func(edits ...edit) *Set {
		t.Helper()
		set, err := Compile(edited(t, edits))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	base := compiled(edit{"roles.yaml", "", "reader: {capabilities: [doc.view]}\n"}, edit{"q.cedar", "", "@id(\"old\") permit (principal is T::User, action == T::Action::\"doc.edit\", resource is T::Doc);"})
	module := []edit{{"modules/m/catalogue.yaml", "", goodModule + "features:\n  m.f: {capability: item.view}\nroutes:\n  m.r: {capability: item.view, method: GET, path: /i, action: item.view, resource: item}\n"},
		{"modules/m/schema.cedarschema", "", strings.Replace(goodModuleSchema, "context: Session", "context: { now: datetime, aal: Long }", 1)},
		{"modules/m/p.cedar", "", `@id("new") permit (principal is T::User, action == T::Action::"item.view", resource);`}}
	later := compiled(append(module,
		edit{"roles.yaml", "", "reader: {capabilities: [doc.list]}\nwriter: {}\n"},
		edit{"p.cedar", "T::Doc);", "T::Doc) when { resource.n > 0 };"})...)
	var got []string
	for _, d := range Diff(base, later) {
		got = append(got, strings.TrimSpace(fmt.Sprintln(d.Change, d.Kind, d.Name, d.Module)))
	}
	want := []string{"changed policy good", "added policy new m", "removed policy old",
		"changed role reader", "added role writer", "added capability item.view", "added action item.view", "added resource item",
		"added module m", "added feature m.f m", "added route m.r m"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// Backwards it is the mirror image, and nothing differs from itself.
	back := Diff(later, base)
	for i, d := range Diff(base, later) {
		mirror := map[string]string{DifferenceAdded: DifferenceRemoved, DifferenceRemoved: DifferenceAdded, DifferenceChanged: DifferenceChanged}
		if back[i].Change != mirror[d.Change] || back[i].Name != d.Name || back[i].Kind != d.Kind {
			t.Errorf("backwards %v is %v", d, back[i])
		}
	}
	if d := Diff(base, base); len(d) > 0 {
		t.Errorf("a set differs from itself by %v", d)
	}
	// What the catalogue says once.
	self := compiled(edit{"roles.yaml", "", "reader: {capabilities: [doc.view]}\n"}, edit{"catalogue.yaml", "context:", "links: {self: reader}\ncontext:"})
	if d := Diff(compiled(edit{"roles.yaml", "", "reader: {capabilities: [doc.view]}\n"}), self); len(d) != 1 || d[0] != (Difference{Kind: DifferenceRule, Change: DifferenceAdded, Name: "selfRole"}) {
		t.Errorf("a self role: %v", d)
	}
	// White space, comments and places do not count.
	moved := compiled(edit{"roles.yaml", "", "reader: {capabilities: [doc.view]}\n"}, edit{"p.cedar", "", "// more\n\n  " + goodPolicy + "\n@id(\"old\") permit (principal is T::User, action == T::Action::\"doc.edit\", resource is T::Doc);"})
	if d := Diff(base, moved); len(d) > 0 || base.Digest() == moved.Digest() {
		t.Errorf("a set whose policies lie elsewhere differs by %v", d)
	}
}
