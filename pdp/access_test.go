package pdp

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ward-authz/ward/policies"
)

func TestCompareAccess(t *testing.T) {
	// Who may see is no longer asked of the group: brokers lose what roles gave.
	edited := func(name, old, new string) *policies.Set {
		files := maps.Clone(policies.PBM())
		if !strings.Contains(string(files[name]), old) {
			t.Fatalf("%s lacks %q", name, old)
		}
		files[name] = []byte(strings.Replace(string(files[name]), old, new, 1))
		return compiled(t, files)
	}
	if d, asked, err := CompareAccess(pbm(), pbm()); err != nil || len(d) > 0 || asked != len(pbm().Cases()) {
		t.Errorf("a set and itself: %d of %d differ, %v", len(d), asked, err)
	}
	same := edited("guards.cedar", "// Guards.", "// The guards.")
	if d, asked, err := CompareAccess(pbm(), same); err != nil || len(d) > 0 || asked != len(pbm().Cases()) {
		t.Errorf("a comment: %d of %d differ, %v", len(d), asked, err)
	}
	blocked := edited("guards.cedar", "when { resource.blocked.contains(principal) }", "when { true }")
	d, _, err := CompareAccess(pbm(), blocked)
	must(t, err)
	if len(d) == 0 || slices.ContainsFunc(d, func(x AccessDifference) bool {
		return x.Before.Decision != "allow" || x.After.Decision != "deny" || !slices.Contains(x.After.Reasons, "guard.block")
	}) {
		t.Errorf("a guard that always forbids: %d differ: %v", len(d), d)
	}
	back, _, err := CompareAccess(blocked, pbm())
	must(t, err)
	if len(back) != len(d) {
		t.Errorf("%d differ one way and %d the other", len(d), len(back))
	}
	// A lost obligation is a difference.
	var before *policies.Policy
	for _, p := range pbm().Policies() {
		if len(p.Obligations) > 0 {
			before = p
		}
	}
	duty := before.Text[strings.Index(before.Text, "@obligation"):]
	duty = duty[:strings.Index(duty, ")")+1]
	if d, _, err = CompareAccess(pbm(), edited(before.File, duty, "")); err != nil || len(d) == 0 {
		t.Errorf("without %s nothing differs (%v)", duty, err)
	}
	// Another pack admits none of the facts, and each case of both is asked.
	other := pack(t, "certification")
	d, asked, err := CompareAccess(pbm(), other)
	must(t, err)
	if asked != len(pbm().Cases())+len(other.Cases()) || !slices.ContainsFunc(d, func(x AccessDifference) bool { return x.After.Decision == "none" && x.After.Code != "" }) {
		t.Errorf("%d asked, %d differ", asked, len(d))
	}
}
