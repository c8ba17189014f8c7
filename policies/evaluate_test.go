package policies

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/ward-authz/ward/pdp/authz"
)

// testPack returns a small pack with the given policies.
func testPack(policies string) map[string][]byte {
	return map[string][]byte{
		"schema.cedarschema": []byte(`
namespace T {
  entity Scope;
  entity Level enum ["low", "high"];
  entity Sensitivity enum ["routine", "other"];
  entity Grant = { covers: Set<Sensitivity>, type: String };
  entity Node in [Scope];
  entity User in [Scope] = { level: Level, name: String, until?: datetime } tags Set<Scope>;
  entity Robot = { n: Long } tags Set<Scope>;
  entity Doc in [Scope] = { n: Long, from: datetime, to: datetime, secret?: Bool };
  entity Box in [Scope] = { n: Long };
  type Session = { now: datetime, aal: Long, ip?: ipaddr, grant?: Grant, action?: { hard?: Bool } };
  action "all", "reading";
  action "doc.view" in ["reading"] appliesTo { principal: [User, Robot], resource: [Doc, Box], context: Session };
  action "doc.edit" in ["all"] appliesTo { principal: [User], resource: [Doc], context: Session };
  action "reading.group" in ["all"];
  action "doc.list" in ["reading", "reading.group"] appliesTo { principal: [User, Robot], resource: [Doc, Box], context: Session };
}`),
		"catalogue.yaml": []byte(`
name: t
namespace: T
principals:
  user: {entity: User, attributes: {level: fact, name: fact, until: fact}}
  robot: {entity: Robot, attributes: {n: fact}}
nodes:
  Node: {}
context:
  ip: {from: sent, authority: [gw]}
resources:
  doc:
    kind: sent
    entity: Doc
    authority: [svc]
    anchors: {node: Node}
    attributes: {n: sent, from: sent, to: sent, secret: sent}
  box:
    kind: sent
    entity: Box
    authority: [svc]
    anchors: {node: Node}
    attributes: {n: sent}
actions:
  doc.view: {properties: {hard: sent}}
  doc.edit: {properties: {hard: sent}}
  doc.list: {properties: {hard: sent}}
`),
		"p.cedar": []byte(policies),
	}
}

func mustCompile(t testing.TB, files map[string][]byte) *Set {
	t.Helper()
	s, err := Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ref(typ, id string) Ref { return Ref{Type: "T::" + typ, ID: id} }

// randomPolicies writes n policies whose scopes and conditions cover every kind
// of constraint, errors included.
func randomPolicies(r *rand.Rand, n int) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "@id(\"p%04d\")\n%s (\n", i, pick("permit", "permit", "forbid"))
		userOnly, docOnly := false, false
		switch r.IntN(6) {
		case 0:
			b.WriteString("  principal,\n")
		case 1:
			b.WriteString("  principal is T::User,\n")
			userOnly = true
		case 2:
			fmt.Fprintf(&b, "  principal == T::User::\"u%d\",\n", r.IntN(3))
			userOnly = true
		case 3:
			fmt.Fprintf(&b, "  principal in T::Scope::\"s%d\",\n", r.IntN(4))
			userOnly = true
		case 4:
			fmt.Fprintf(&b, "  principal is T::User in T::Scope::\"s%d\",\n", r.IntN(4))
			userOnly = true
		case 5:
			fmt.Fprintf(&b, "  principal in T::User::\"u%d\",\n", r.IntN(3))
			userOnly = true
		}
		act := pick(`action == T::Action::"doc.view"`, `action == T::Action::"doc.list"`,
			`action in T::Action::"reading"`, `action in T::Action::"all"`,
			`action in [T::Action::"doc.view", T::Action::"all"]`)
		fmt.Fprintf(&b, "  %s,\n", act)
		switch r.IntN(6) {
		case 0:
			b.WriteString("  resource\n")
		case 1:
			b.WriteString("  resource is T::Doc\n")
			docOnly = true
		case 2:
			fmt.Fprintf(&b, "  resource == T::Doc::\"d%d\"\n", r.IntN(3))
			docOnly = true
		case 3:
			fmt.Fprintf(&b, "  resource in T::Scope::\"s%d\"\n", r.IntN(4))
		case 4:
			fmt.Fprintf(&b, "  resource is T::Doc in T::Scope::\"s%d\"\n", r.IntN(4))
			docOnly = true
		case 5:
			fmt.Fprintf(&b, "  resource == T::Doc::\"d%d\"\n", r.IntN(3))
			docOnly = true
		}
		b.WriteString(")")
		conds := []string{`resource.n > 2`, `resource.n + 9223372036854775800 > 5`, `context.aal >= 2`,
			`principal.hasTag("doc.view") && resource in principal.getTag("doc.view")`}
		if userOnly {
			conds = append(conds, `principal.level == T::Level::"high"`, `principal.name like "a*"`)
		}
		if docOnly {
			conds = append(conds, `context has grant && context.grant.type == "ann"`, `context.now < resource.to`, `context.now >= resource.from && context.now <= resource.to`)
		}
		for range r.IntN(3) {
			fmt.Fprintf(&b, "\n%s { %s }", pick("when", "unless"), conds[r.IntN(len(conds))])
		}
		b.WriteString(";\n")
	}
	return b.String()
}

// randomQuestion keeps to the contract of Question, but leaves out attributes
// and entities now and then.
func randomQuestion(r *rand.Rand) *Question {
	scopes := func(n int) []Ref {
		var out []Ref
		for i := range n {
			if r.IntN(2) == 0 {
				out = append(out, ref("Scope", fmt.Sprintf("s%d", i)))
			}
		}
		return out
	}
	user := func(i int) Entity {
		e := Entity{Ref: ref("User", fmt.Sprintf("u%d", i)), Parents: scopes(4), Attrs: map[string]Value{
			"level": ref("Level", []string{"low", "high"}[r.IntN(2)]), "name": []string{"ann", "bob"}[r.IntN(2)]}}
		if r.IntN(3) > 0 {
			e.Tags = map[string][]Ref{"doc.view": scopes(4)}
		}
		if r.IntN(6) == 0 {
			delete(e.Attrs, "name")
		}
		return e
	}
	q := &Question{Principal: user(r.IntN(3)), Action: []string{"doc.view", "doc.edit", "doc.list"}[r.IntN(3)]}
	if r.IntN(4) == 0 && q.Action != "doc.edit" {
		q.Principal = Entity{Ref: ref("Robot", "r"), Attrs: map[string]Value{"n": int64(r.IntN(5))}}
	}
	q.Resource = Entity{Ref: ref("Doc", fmt.Sprintf("d%d", r.IntN(3))), Parents: scopes(4), Attrs: map[string]Value{
		"n":    int64(r.IntN(12)),
		"from": Datetime(r.IntN(50)), "to": Datetime(r.IntN(100))}}
	if r.IntN(4) == 0 && q.Action != "doc.edit" {
		q.Resource = Entity{Ref: ref("Box", "b"), Parents: scopes(4), Attrs: map[string]Value{"n": int64(r.IntN(12))}}
	}
	q.Context = map[string]Value{"now": Datetime(r.IntN(100)), "aal": int64(r.IntN(4))}
	if r.IntN(2) == 0 {
		q.Context["grant"] = ref("Grant", "g")
		if r.IntN(3) > 0 {
			q.Others = []Entity{{Ref: ref("Grant", "g"), Attrs: map[string]Value{"covers": []Value{}, "type": []string{"ann", "bob"}[r.IntN(2)]}}}
		}
	}
	return q
}

// scanAll is cedar-go's own answer over all policies, unindexed.
func scanAll(s *Set, set *cedar.PolicySet, q *Question) (cedar.Decision, []string, []string) {
	w, _ := s.world(q, s.actions[q.Action])
	decision, diag := cedar.Authorize(set, w, w.request)
	var reasons, failed []string
	for _, r := range diag.Reasons {
		reasons = append(reasons, string(r.PolicyID))
	}
	for _, e := range diag.Errors {
		failed = append(failed, string(e.PolicyID))
	}
	slices.Sort(reasons)
	slices.Sort(failed)
	return decision, reasons, failed
}

func policySet(s *Set) *cedar.PolicySet {
	set := cedar.NewPolicySet()
	for _, p := range s.policies {
		set.Add(cedar.PolicyID(p.ID), policyFrom(p.ast))
	}
	return set
}

func ids(list []*Policy) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.ID)
	}
	return out
}

// The index must never change an answer: decision, reasons and errors are those
// of a full scan.
func TestIndexEqualsFullScan(t *testing.T) {
	rounds, questions := 12, 400
	if testing.Short() {
		rounds = 3
	}
	errored, allowed, forbidden := 0, 0, 0
	for round := range rounds {
		r := rand.New(rand.NewPCG(1, uint64(round)))
		s := mustCompile(t, testPack(randomPolicies(r, 1+r.IntN(150))))
		set := policySet(s)
		for range questions {
			q := randomQuestion(r)
			got := s.Evaluate(q)
			decision, reasons, failed := scanAll(s, set, q)
			mine := ids(got.Permits)
			if len(got.Forbids) > 0 {
				mine = ids(got.Forbids)
				forbidden++
			}
			var errs []string
			for _, e := range got.Errors {
				errs = append(errs, e.Policy.ID)
			}
			if bool(got.Cedar) != bool(decision) || !slices.Equal(mine, reasons) || !slices.Equal(errs, failed) {
				t.Fatalf("round %d, %s\nindex %v %v %v\nscan  %v %v %v", round, Encode(q), got.Cedar, mine, errs, decision, reasons, failed)
			}
			if len(errs) > 0 {
				errored++
			}
			if got.Cedar {
				allowed++
			}
			if again := s.Evaluate(q); !reflect.DeepEqual(got, again) {
				t.Fatalf("two answers to one question: %v, %v", got, again)
			}
		}
	}
	if errored == 0 || allowed == 0 || forbidden == 0 {
		t.Errorf("the test is blind: %d errors, %d allows, %d forbids", errored, allowed, forbidden)
	}
}

// An answer must stay the same until Outcome.Until.
func TestUntilIsSound(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	changed := 0
	for round := range rounds {
		r := rand.New(rand.NewPCG(7, uint64(round)))
		s := mustCompile(t, testPack(randomPolicies(r, 40)))
		for range 60 {
			q := randomQuestion(r)
			first := s.Evaluate(q)
			now := int64(q.Context["now"].(Datetime))
			if first.Until <= now {
				t.Fatalf("until %d, now %d, though every use of now is a plain comparison", first.Until, now)
			}
			for at := now + 1; at < min(first.Until, 220); at++ {
				q.Context["now"] = Datetime(at)
				got := s.Evaluate(q)
				if !slices.Equal(ids(got.Permits), ids(first.Permits)) || !slices.Equal(ids(got.Forbids), ids(first.Forbids)) ||
					!reflect.DeepEqual(got.Errors, first.Errors) || got.Until != first.Until {
					t.Fatalf("the answer at %d holds until %d, yet differs at %d", now, first.Until, at)
				}
			}
			if first.Until < math.MaxInt64 {
				changed++
			}
		}
	}
	if changed == 0 {
		t.Error("the test is blind: no answer ever ended")
	}
}

func TestUntilIsExact(t *testing.T) {
	for _, tt := range []struct {
		cond      string
		now, want int64
	}{
		{`context.now < resource.to`, 10, 50},
		{`context.now <= resource.to`, 10, 51},
		{`context.now > resource.to`, 10, 51},
		{`context.now >= resource.to`, 10, 50},
		{`context.now == resource.to`, 10, 50},
		{`context.now == resource.to`, 50, 51},
		{`context.now != resource.to`, 50, 51},
		{`resource.to > context.now`, 10, 50},
		{`resource.to >= context.now`, 10, 51},
		{`resource.to < context.now`, 10, 51},
		{`resource.to <= context.now`, 10, 50},
		{`context.now < datetime("1970-01-01T00:00:00.077Z")`, 10, 77},
		{`context["now"] < resource.to`, 10, 50},
		{`!(context.now < resource.to)`, 10, 50},
		{`if context.now < resource.to then true else false`, 10, 50},
		{`(context has now && context.now < resource.to)`, 10, 50},
		{`context.now < (if resource.n > 0 then resource.to else resource.from)`, 10, 50},
	} {
		s := mustCompile(t, testPack(fmt.Sprintf("@id(\"a\") permit (principal, action == T::Action::\"doc.view\", resource is T::Doc) when { %s };", tt.cond)))
		q := &Question{Principal: Entity{Ref: ref("User", "u")}, Action: "doc.view",
			Resource: Entity{Ref: ref("Doc", "d"), Attrs: map[string]Value{"n": int64(1), "from": Datetime(0), "to": Datetime(50)}},
			Context:  map[string]Value{"now": Datetime(tt.now)}}
		got := s.Evaluate(q)
		if got.Until != tt.want {
			t.Errorf("%s at %d: until %d, want %d", tt.cond, tt.now, got.Until, tt.want)
		}
		q.Context["now"] = Datetime(tt.want - 1)
		before := s.Evaluate(q)
		q.Context["now"] = Datetime(tt.want)
		after := s.Evaluate(q)
		if before.Cedar != got.Cedar || after.Cedar == got.Cedar {
			t.Errorf("%s at %d: %v before %d and %v at it, started from %v", tt.cond, tt.now, before.Cedar, tt.want, after.Cedar, got.Cedar)
		}
	}
}

func TestUntilOfOtherUses(t *testing.T) {
	for cond, want := range map[string]int64{
		`context.now.durationSince(resource.from) < duration("1h")`:                    10,
		`context.now.offset(duration("1h")) > resource.to`:                             10,
		`context.now < resource.to.offset(duration("1ms"))`:                            51,
		`context.now < context.now.offset(duration("1ms"))`:                            10,
		`[context.now].contains(resource.to)`:                                          10,
		`context.aal >= 0`:                                                             math.MaxInt64,
		`context has now`:                                                              math.MaxInt64,
		`context.now < resource.from`:                                                  math.MaxInt64, // passed already
		`principal is T::User && principal has until && context.now < principal.until`: math.MaxInt64, // the operand cannot be read
	} {
		s := mustCompile(t, testPack(fmt.Sprintf("@id(\"a\") permit (principal, action == T::Action::\"doc.view\", resource is T::Doc) when { %s };", cond)))
		q := &Question{Principal: Entity{Ref: ref("User", "u")}, Action: "doc.view",
			Resource: Entity{Ref: ref("Doc", "d"), Attrs: map[string]Value{"n": int64(1), "from": Datetime(0), "to": Datetime(50)}},
			Context:  map[string]Value{"now": Datetime(10), "aal": int64(1)}}
		if got := s.Evaluate(q).Until; got != want {
			t.Errorf("%s: until %d, want %d", cond, got, want)
		}
	}
}

// A forbid that fails is among the errors, whatever else permits, by kind.
func TestErrorsAreComplete(t *testing.T) {
	s := mustCompile(t, testPack(`
@id("a.permit") permit (principal, action, resource is T::Doc);
@id("b.attribute") forbid (principal is T::User, action, resource is T::Doc) when { principal.name == "x" };
@id("c.entity") forbid (principal, action, resource is T::Doc) when { context has grant && context.grant.type == "x" };
@id("d.overflow") forbid (principal, action, resource is T::Doc) when { resource.n + 9223372036854775807 > 0 };
@id("e.fine") forbid (principal, action, resource is T::Doc) when { resource.n == 0 };
`))
	q := &Question{Principal: Entity{Ref: ref("User", "u")}, Action: "doc.view",
		Resource: Entity{Ref: ref("Doc", "d"), Attrs: map[string]Value{"n": int64(1)}},
		Context:  map[string]Value{"now": Datetime(0), "grant": ref("Grant", "gone")}}
	out := s.Evaluate(q)
	got := map[string]string{}
	for _, e := range out.Errors {
		got[e.Policy.ID] = e.Kind
	}
	want := map[string]string{"b.attribute": ErrorMissingAttribute, "c.entity": ErrorMissingEntity, "d.overflow": ErrorOverflow}
	if !reflect.DeepEqual(got, want) || out.Cedar != authz.Allow {
		t.Errorf("cedar says %v with errors %v, want allow with %v", out.Cedar, got, want)
	}
	q.Resource.Attrs["n"] = "text" // breaks the schema: the engine finds a type error
	out = s.Evaluate(q)
	if len(out.Errors) != 3 || out.Errors[2].Kind != ErrorType {
		t.Errorf("want a type error, got %v", out.Errors)
	}
	if len(out.Candidates) != 5 {
		t.Errorf("candidates %v", ids(out.Candidates))
	}
}

func TestSentinelsAreDistinct(t *testing.T) {
	seen := map[error]bool{}
	for _, s := range sentinels {
		if s.err == nil || seen[s.err] {
			t.Errorf("the engine's error for %s is not known by a value of its own", s.kind)
		}
		seen[s.err] = true
	}
}

func TestEvaluateDeniesWhatItCannotRead(t *testing.T) {
	s := mustCompile(t, testPack(`@id("a") permit (principal, action, resource is T::Doc);`))
	q := &Question{Principal: Entity{Ref: ref("User", "u")}, Action: "doc.view", Resource: Entity{Ref: ref("Doc", "d")},
		Context: map[string]Value{"now": Datetime(5), "ip": IPAddr("not an address")}}
	out := s.Evaluate(q)
	if out.Cedar || len(out.Errors) != 1 || out.Until != 5 {
		t.Errorf("an address that is none: %+v", out)
	}
	q.Context["ip"] = 1.5
	if out := s.Evaluate(q); out.Cedar || len(out.Errors) != 1 {
		t.Errorf("a float: %+v", out)
	}
	delete(q.Context, "ip")
	q.Action = "nope"
	if out := s.Evaluate(q); out.Cedar || len(out.Candidates) != 0 || out.Until != math.MaxInt64 {
		t.Errorf("an unknown action: %+v", out)
	}
	if out := s.Evaluate(&Question{}); out.Cedar {
		t.Error("the zero question is allowed")
	}
}

// A parent with parents breaks the contract of Question; a forbid must not be
// missed for it.
func TestIndexFollowsOtherParents(t *testing.T) {
	s := mustCompile(t, testPack(`
@id("a") permit (principal, action, resource is T::Doc);
@id("b") forbid (principal, action == T::Action::"doc.view", resource in T::Scope::"top");
`))
	q := &Question{Principal: Entity{Ref: ref("User", "u")}, Action: "doc.view",
		Resource: Entity{Ref: ref("Doc", "d"), Parents: []Ref{ref("Scope", "low")}},
		Context:  map[string]Value{"now": Datetime(0)},
		Others:   []Entity{{Ref: ref("Scope", "low"), Parents: []Ref{ref("Scope", "top")}}}}
	if out := s.Evaluate(q); len(out.Forbids) != 1 || out.Cedar {
		t.Errorf("the forbid was missed: %+v", out)
	}
}

func TestExplain(t *testing.T) {
	s := mustCompile(t, testPack(`
@id("a") permit (principal is T::User, action == T::Action::"doc.view", resource is T::Doc)
when { principal.hasTag("doc.view") && resource in principal.getTag("doc.view") && context.aal >= 2 }
unless { resource.n == 1 || (resource has secret && resource.secret) };`))
	q := &Question{Principal: Entity{Ref: ref("User", "u")}, Action: "doc.view",
		Resource: Entity{Ref: ref("Doc", "d"), Attrs: map[string]Value{"n": int64(2)}},
		Context:  map[string]Value{"now": Datetime(0), "aal": int64(3)}}
	want := []Clause{
		{`principal.hasTag("doc.view")`, "false"},
		{`resource in principal.getTag("doc.view")`, "unreached"},
		{`context.aal >= 2`, "true"},
		{`!(resource.n == 1)`, "true"},
		{`!(resource has secret && resource.secret)`, "true"},
	}
	if got := s.Explain(q, "a"); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	q.Principal = Entity{Ref: ref("Robot", "r")}
	if got := s.Explain(q, "a"); got[0] != (Clause{"principal is T::User", "false"}) {
		t.Errorf("the scope that does not match is missing: %v", got)
	}
	if s.Explain(q, "none") != nil {
		t.Error("an unknown policy is explained")
	}
}

// BenchmarkEvaluate compares the index with cedar-go's own scan over all
// policies. "index" is all of Evaluate: it converts the Question and keeps every
// error and satisfied policy; "scan" is cedar.Authorize alone, with the entities
// converted beforehand.
func BenchmarkEvaluate(b *testing.B) {
	q := &Question{
		Principal: Entity{Ref: ref("User", "u0"), Attrs: map[string]Value{"level": ref("Level", "high"), "name": "ann"},
			Parents: []Ref{ref("Scope", "a"), ref("Scope", "b"), ref("Scope", "c"), ref("Scope", "s0"), ref("Scope", "e")}},
		Action: "doc.view",
		Resource: Entity{Ref: ref("Doc", "d"), Attrs: map[string]Value{"n": int64(5), "from": Datetime(0), "to": Datetime(90)},
			Parents: []Ref{ref("Scope", "r1"), ref("Scope", "r2"), ref("Scope", "r3"), ref("Scope", "r4"), ref("Scope", "s0")}},
		Context: map[string]Value{"now": Datetime(10), "aal": int64(2)},
	}
	for _, n := range []int{10, 100, 1000, 10000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "@id(\"p%05d\") permit (principal in T::Scope::\"s%d\", action == T::Action::\"doc.view\", resource in T::Scope::\"s%d\") when { resource.n > 2 && context.aal >= 2 };\n", i, i, i)
		}
		files := testPack("")
		delete(files, "p.cedar")
		for i, chunk := range chunks(text.String()) {
			files[fmt.Sprintf("p%d.cedar", i)] = []byte(chunk)
		}
		s := mustCompile(b, files)
		set := policySet(s)
		w, _ := s.world(q, s.actions[q.Action])
		if out := s.Evaluate(q); !out.Cedar || len(out.Permits) != 1 {
			b.Fatal(out)
		}
		b.Run(fmt.Sprintf("policies=%d/index", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Evaluate(q)
			}
		})
		b.Run(fmt.Sprintf("policies=%d/scan", n), func(b *testing.B) {
			b.ReportAllocs()
			entities := types.EntityMap{w.principal.UID: w.principal, w.resource.UID: w.resource}
			for uid, e := range s.entities {
				entities[uid] = e
			}
			for b.Loop() {
				cedar.Authorize(set, entities, w.request)
			}
		})
	}
}

// chunks cuts policies into files below the size limit.
func chunks(text string) []string {
	var out []string
	for len(text) > MaxFileSize {
		i := strings.LastIndex(text[:MaxFileSize], "\n") + 1
		out, text = append(out, text[:i]), text[i:]
	}
	return append(out, text)
}
