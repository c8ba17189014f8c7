package policies

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

func policyOf(t *testing.T, text string) *Policy {
	t.Helper()
	var diags Diagnostics
	p := &pack{diags: &diags}
	p.readPolicies("p.cedar", "", []byte(text))
	if err := diags.err(); err != nil || len(p.policies) != 1 {
		t.Fatalf("%d policies, %v", len(p.policies), err)
	}
	return p.policies[0]
}

// TestMutantsOfEveryOperator pins what is changed, in which order and on which line.
func TestMutantsOfEveryOperator(t *testing.T) {
	p := policyOf(t, `// "when" { a == b }
@id("p")
@obligation("log mask")
@advice("hint")
permit (
  principal == X::User::"in",
  action in [X::Action::"a"],
  resource is X::Doc
)
when
{
  principal.level == 1 && // a != b
  (resource.size < 2 ||
    resource.size >= 3) &&
  (resource.tags.contains("&& ||") && resource has size) && resource in principal.top
}
when { if context.on then principal.name like "a*" else [resource.a > 4, !resource.b].contains(false) }
unless { principal.ips.containsAll([context.ip.isInRange(ip("10.0.0.0/8"))]) || principal is X::User };
`)
	var got []string
	for _, m := range mutantsOf(p) {
		got = append(got, strings.TrimPrefix(m.String(), "p.cedar:")+" ["+m.Kind+"]")
	}
	want := []string{
		`2: p: drop the policy [policy]`,
		`3: p: drop @obligation("log mask") [obligation]`,
		`5: p: permit becomes forbid [effect]`,
		`10: p: drop when { principal.level == 1 && (resource.size < 2 || resource.size >= 3) && (resource.tags.contains("&& ||") && resource has size) && resource in principal.top } [clause]`,
		`12: p: principal.level == 1 becomes != [operator]`,
		`12: p: drop principal.level == 1 [conjunct]`,
		`13: p: drop resource.size < 2 || resource.size >= 3 [conjunct]`,
		`12: p: && becomes || before resource.size < 2 || resource.size >= 3 [operator]`,
		`13: p: resource.size < 2 becomes >= [operator]`,
		`13: p: drop resource.size < 2 [disjunct]`,
		`14: p: drop resource.size >= 3 [disjunct]`,
		`13: p: || becomes && before resource.size >= 3 [operator]`,
		`14: p: resource.size >= 3 becomes < [operator]`,
		`14: p: && becomes || before resource.tags.contains("&& ||") && resource has size [operator]`,
		`15: p: negate resource.tags.contains("&& ||") [operator]`,
		`15: p: drop resource.tags.contains("&& ||") [conjunct]`,
		`15: p: drop resource has size [conjunct]`,
		`15: p: && becomes || before resource has size [operator]`,
		`15: p: negate resource has size [operator]`,
		`15: p: drop resource in principal.top [conjunct]`,
		`15: p: && becomes || before resource in principal.top [operator]`,
		`15: p: negate resource in principal.top [operator]`,
		`17: p: drop when { if context.on then principal.name like "a*" else [(resource.a > 4), (!resource.b)].contains(false) } [clause]`,
		`17: p: negate principal.name like "a*" [operator]`,
		`17: p: resource.a > 4 becomes <= [operator]`,
		`17: p: drop the ! of !resource.b [operator]`,
		`17: p: negate [(resource.a > 4), (!resource.b)].contains(false) [operator]`,
		`18: p: drop unless { principal.ips.containsAll([(context.ip.isInRange(ip("10.0.0.0/8")))]) || principal is X::User } [clause]`,
		`18: p: negate principal.ips.containsAll([(context.ip.isInRange(ip("10.0.0.0/8")))]) [operator]`,
		`18: p: negate context.ip.isInRange(ip("10.0.0.0/8")) [operator]`,
		`18: p: drop principal.ips.containsAll([(context.ip.isInRange(ip("10.0.0.0/8")))]) [disjunct]`,
		`18: p: drop principal is X::User [disjunct]`,
		`18: p: || becomes && before principal is X::User [operator]`,
		`18: p: negate principal is X::User [operator]`,
	}
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("mutant %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

// TestMutantLineIsUnknown: an operator that the text writes otherwise has the
// line of its clause.
func TestMutantLineIsUnknown(t *testing.T) {
	p := policyOf(t, "@id(\"p\") permit (principal, action, resource)\nwhen\n{\n  context.contains ||\n  principal.tags.contains(1)\n};")
	for _, m := range mutantsOf(p) {
		if strings.HasPrefix(m.Change, "negate") && m.Line != 2 || strings.HasPrefix(m.Change, "||") && m.Line != 4 {
			t.Errorf("%s: is in the clause of line 2, and the || in line 4", m)
		}
	}
}

// TestMutants checks on the shipped packs that each mutant is the policy with
// its one change, that the set itself stays what it was, and that the list is
// always the same.
func TestMutants(t *testing.T) {
	for name, files := range shippedPacks(t) {
		s, err := Compile(files)
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]string{}
		for _, p := range s.Policies() {
			before[p.ID] = string(policyFrom(p.ast).MarshalCedar())
		}
		mutants := s.Mutants()
		if !reflect.DeepEqual(mutants, s.Mutants()) {
			t.Errorf("%s: the mutants are not the same twice", name)
		}
		seen := map[string]string{}
		for _, m := range mutants {
			if strings.HasPrefix(m.Policy, "ward.") {
				t.Errorf("%s: %s is Ward's own", name, m)
			}
			p, _ := s.Policy(m.Policy)
			if last := p.Line + strings.Count(p.Text, "\n"); m.Line < p.Line || m.Line > last {
				t.Errorf("%s: %s: the policy has the lines %d to %d", name, m, p.Line, last)
			}
			if m.Kind == MutantPolicy {
				if m.text != "" {
					t.Errorf("%s: %s: %s", name, m, m.text)
				}
				continue
			}
			list, err := cedar.NewPolicyListFromBytes("", []byte(m.text))
			if err != nil || len(list) != 1 {
				t.Fatalf("%s: %s: %v\n%s", name, m, err, m.text)
			}
			again := string(policyFrom((*ast.Policy)(list[0].AST())).MarshalCedar())
			if again != m.text || m.text == before[m.Policy] {
				t.Errorf("%s: %s: %s\nreads as %s", name, m, m.text, again)
			}
			if other, ok := seen[m.text]; ok {
				t.Errorf("%s: %s is the same as %s", name, m, other)
			}
			seen[m.text] = m.String()
		}
		for _, p := range s.Policies() {
			if now := string(policyFrom(p.ast).MarshalCedar()); now != before[p.ID] {
				t.Errorf("%s: listing mutants changed %s to %s", name, p.ID, now)
			}
		}
	}
}

// TestMutate checks that one policy is changed and no other, whatever stands
// around it, and that what is no valid policy is refused.
func TestMutate(t *testing.T) {
	files := PBM()
	// A policy before another one on its line, a copy of one in a comment, and
	// characters of more than one byte before it.
	const place = "modules/labs/labs.cedar"
	const never = `@id("lab.never") forbid (principal is PBM::User, action == PBM::Action::"lab.view", resource is PBM::Lab) when { "äöü" == "x" };`
	files[place] = []byte("// " + never + "\n" + never + " " + string(files[place]))
	s, err := Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, m := range s.Mutants() {
		mutated, err := s.Mutate(m)
		if err != nil {
			if d, ok := err.(*Diagnostics); !ok || slices.ContainsFunc(d.Findings, func(d Diagnostic) bool { return d.Code == CodePolicyInvalid }) {
				t.Errorf("%s: %v", m, err)
			}
			refused++
			continue
		}
		if got, ok := mutated.Policy(m.Policy); ok != (m.Kind != MutantPolicy) || ok && got.Text != m.text {
			t.Errorf("%s: not made", m)
		}
		for _, p := range s.Policies() {
			if got, ok := mutated.Policy(p.ID); p.ID != m.Policy && (!ok || got.Text != p.Text) {
				t.Errorf("%s: changes %s", m, p.ID)
			}
		}
	}
	if refused == 0 {
		t.Error("nothing is refused: a dropped hasTag leaves an unsafe getTag")
	}
	if _, err := s.Mutate(Mutant{Policy: "nobody"}); err == nil {
		t.Error("a policy that does not exist is changed")
	}
}
