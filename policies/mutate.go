package policies

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Kinds of a [Mutant]. Append-only.
const (
	MutantPolicy     = "policy"     // the policy is dropped
	MutantEffect     = "effect"     // permit becomes forbid, or forbid permit
	MutantObligation = "obligation" // its @obligation is dropped
	MutantClause     = "clause"     // a when or unless is dropped
	MutantConjunct   = "conjunct"   // one side of an && is dropped
	MutantDisjunct   = "disjunct"   // one side of an || is dropped
	MutantOperator   = "operator"   // an operator is flipped, a test negated
)

// Mutant is one small change to one policy of a pack, which the pack's tests
// should notice. [Set.Mutate] makes it.
type Mutant struct {
	Policy string `json:"policy"` // id
	Kind   string `json:"kind"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Change string `json:"change"` // what is changed, for people

	text string // of the policy after the change; "" when it is dropped
}

// String returns the change as file:line: policy: change.
func (m Mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", m.File, m.Line, m.Policy, m.Change)
}

// Mutants lists what can be dropped from, or flipped in, the pack's policies:
// Ward's own are left out. It drops each policy, @obligation, clause, conjunct
// and disjunct, flips each effect and operator, and negates each test. The order
// is that of the ids, and within a policy that of its text.
//
// Some mutants are no pack: see [Set.Mutate].
func (s *Set) Mutants() []Mutant {
	var out []Mutant
	for _, p := range s.policies {
		if !strings.HasPrefix(p.ID, "ward.") {
			out = append(out, mutantsOf(p)...)
		}
	}
	return out
}

// Mutate compiles the set with one of its mutants and without its tests. The
// error is a *[Diagnostics] when the change is no valid pack: it can never be in
// force, and needs no test. That it leaves a role with a capability that nothing
// asks for is no reason to refuse it.
func (s *Set) Mutate(m Mutant) (*Set, error) {
	p, ok := s.byID[m.Policy]
	if !ok || p.File != m.File {
		return nil, fmt.Errorf("the set has no policy %q in %s", m.Policy, m.File)
	}
	var diags Diagnostics
	files := decodeArchive(s.archive, &diags)
	for name := range files {
		if kindOf(name) == kindCases {
			delete(files, name)
		}
	}
	src := files[p.File]
	at := offsetOf(src, p.Line, p.column)
	files[p.File] = slices.Concat(src[:at], []byte(m.text), src[at+len(p.Text):])
	mutated := compile(files, &diags)
	diags.Findings = slices.DeleteFunc(diags.Findings, func(d Diagnostic) bool { return d.Code == CodeCapabilityUnknown })
	if err := diags.err(); err != nil {
		return nil, err
	}
	return mutated, nil
}

// offsetOf is the inverse of what readPolicies counts: lines and characters.
func offsetOf(src []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(src[at:], '\n') + 1
	}
	for ; column > 1; column-- {
		for at++; at < len(src) && src[at]&0xc0 == 0x80; at++ {
		}
	}
	return at
}

func mutantsOf(p *Policy) []Mutant {
	var out []Mutant
	add := func(kind string, line int, q *ast.Policy, change string, args ...any) {
		m := Mutant{Policy: p.ID, Kind: kind, File: p.File, Line: line, Change: fmt.Sprintf(change, args...)}
		if q != nil {
			m.text = string(policyFrom(q).MarshalCedar())
		}
		out = append(out, m)
	}
	effect := "permit"
	if p.Forbid {
		effect = "forbid"
	}
	tokens := tokensOf(p.Text, p.Line)
	lines := placesOf(p, tokens)

	add(MutantPolicy, p.Line, nil, "drop the policy")
	for i, a := range p.ast.Annotations {
		if a.Key == "obligation" {
			q := *p.ast
			q.Annotations = without(q.Annotations, i)
			add(MutantObligation, lineOfWord(tokens, "@", "obligation", p.Line), &q, "drop @obligation(%q)", string(a.Value))
		}
	}
	q := *p.ast
	if q.Effect = ast.EffectForbid; p.Forbid {
		q.Effect = ast.EffectPermit
	}
	// On a forbid they would be refused, and they are dropped already.
	q.Annotations = slices.DeleteFunc(slices.Clone(q.Annotations), func(a ast.AnnotationType) bool {
		return a.Key == "obligation" || a.Key == "advice"
	})
	add(MutantEffect, lineOfWord(tokens, effect, "(", p.Line), &q, "%s becomes %s", effect, map[bool]string{true: "permit", false: "forbid"}[p.Forbid])

	for i, c := range p.ast.Conditions {
		q := *p.ast
		q.Conditions = without(q.Conditions, i)
		word := "when"
		if c.Condition == ast.ConditionUnless {
			word = "unless"
		}
		add(MutantClause, lines.clauses[i], &q, "drop %s { %s }", word, sourceOf(c.Body))
		for _, s := range lines.sites {
			if s.clause == i {
				s.mutants(lines, func(kind string, line int, n ast.IsNode, change string, args ...any) {
					q := *p.ast
					q.Conditions = slices.Clone(q.Conditions)
					q.Conditions[i].Body = s.put(n)
					add(kind, line, &q, change, args...)
				})
			}
		}
	}
	return out
}

func without[T any](list []T, i int) []T { return slices.Delete(slices.Clone(list), i, i+1) }

// site is one operator of a policy: its node, the word that writes it, and what
// makes a clause's body with another node in its place.
type site struct {
	clause int
	node   ast.IsNode
	word   string
	nth    int // among the sites of this word
	put    func(ast.IsNode) ast.IsNode
}

// mutants calls add for every change of the one operator.
func (s site) mutants(at places, add func(kind string, line int, n ast.IsNode, change string, args ...any)) {
	before, line, after := at.around(s)
	flip := func(n ast.IsNode, word string) {
		add(MutantOperator, line, n, "%s becomes %s", sourceOf(s.node), word)
	}
	// A chain a && b && c is (a && b) && c: its operands are dropped one by one.
	drop := func(kind string, b ast.BinaryNode) {
		same := func(n ast.IsNode) bool { return reflect.TypeOf(n) == reflect.TypeOf(s.node) }
		if !same(b.Left) {
			add(kind, before, b.Right, "drop %s", sourceOf(b.Left))
		}
		if !same(b.Right) {
			add(kind, after, b.Left, "drop %s", sourceOf(b.Right))
		}
	}
	switch n := s.node.(type) {
	case ast.NodeTypeAnd:
		drop(MutantConjunct, n.BinaryNode)
		add(MutantOperator, line, ast.NodeTypeOr(n), "&& becomes || before %s", sourceOf(n.Right))
	case ast.NodeTypeOr:
		drop(MutantDisjunct, n.BinaryNode)
		add(MutantOperator, line, ast.NodeTypeAnd(n), "|| becomes && before %s", sourceOf(n.Right))
	case ast.NodeTypeEquals:
		flip(ast.NodeTypeNotEquals(n), "!=")
	case ast.NodeTypeNotEquals:
		flip(ast.NodeTypeEquals(n), "==")
	case ast.NodeTypeLessThan:
		flip(ast.NodeTypeGreaterThanOrEqual(n), ">=")
	case ast.NodeTypeGreaterThanOrEqual:
		flip(ast.NodeTypeLessThan(n), "<")
	case ast.NodeTypeGreaterThan:
		flip(ast.NodeTypeLessThanOrEqual(n), "<=")
	case ast.NodeTypeLessThanOrEqual:
		flip(ast.NodeTypeGreaterThan(n), ">")
	case ast.NodeTypeNot:
		add(MutantOperator, line, n.Arg, "drop the ! of %s", sourceOf(n))
	default:
		add(MutantOperator, line, ast.Not(ast.NewNode(n)).AsIsNode(), "negate %s", sourceOf(n))
	}
}

// wordOf returns what writes an operator that is flipped or negated, or "".
func wordOf(n ast.IsNode) string {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return "&&"
	case ast.NodeTypeOr:
		return "||"
	case ast.NodeTypeNot:
		return "!"
	case ast.NodeTypeEquals:
		return "=="
	case ast.NodeTypeNotEquals:
		return "!="
	case ast.NodeTypeLessThan:
		return "<"
	case ast.NodeTypeLessThanOrEqual:
		return "<="
	case ast.NodeTypeGreaterThan:
		return ">"
	case ast.NodeTypeGreaterThanOrEqual:
		return ">="
	case ast.NodeTypeIn:
		return "in"
	case ast.NodeTypeIs, ast.NodeTypeIsIn:
		return "is"
	case ast.NodeTypeHas:
		return "has"
	case ast.NodeTypeLike:
		return "like"
	case ast.NodeTypeHasTag:
		return "hasTag"
	case ast.NodeTypeContains:
		return "contains"
	case ast.NodeTypeContainsAll:
		return "containsAll"
	case ast.NodeTypeContainsAny:
		return "containsAny"
	case ast.NodeTypeIsEmpty:
		return "isEmpty"
	case ast.NodeTypeExtensionCall:
		switch n.Name {
		case "isInRange", "isLoopback", "isMulticast", "isIpv4", "isIpv6",
			"lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual":
			return string(n.Name)
		}
	}
	return ""
}

// sitesOf finds the operators of a clause in the order of its text.
func sitesOf(clause int, body ast.IsNode) []site {
	var out []site
	var walk func(n ast.IsNode, put func(ast.IsNode) ast.IsNode)
	walk = func(n ast.IsNode, put func(ast.IsNode) ast.IsNode) {
		operands := operandsOf(n)
		self := func() {
			if word := wordOf(n); word != "" {
				out = append(out, site{clause: clause, node: n, word: word, put: put})
			}
		}
		_, prefix := n.(ast.NodeTypeNot)
		if prefix || len(operands) == 0 {
			self()
		}
		for i, o := range operands {
			walk(o.node, func(n ast.IsNode) ast.IsNode { return put(o.put(n)) })
			if i == 0 && !prefix {
				self()
			}
		}
	}
	walk(body, func(n ast.IsNode) ast.IsNode { return n })
	return out
}

// operand is an expression within another, and what puts another in its place.
type operand struct {
	node ast.IsNode
	put  func(ast.IsNode) ast.IsNode
}

var nodeType = reflect.TypeFor[ast.IsNode]()

// operandsOf returns the operands of a node, left to right. The engine's nodes
// are structs of nodes, of lists of them and of values.
func operandsOf(n ast.IsNode) []operand {
	var out []operand
	var fields func(t reflect.Type, value reflect.Value, path func(reflect.Value) reflect.Value)
	fields = func(t reflect.Type, value reflect.Value, path func(reflect.Value) reflect.Value) {
		switch {
		case t == nodeType:
			if value.IsNil() {
				return
			}
			out = append(out, operand{value.Interface().(ast.IsNode), func(with ast.IsNode) ast.IsNode {
				c := reflect.New(reflect.TypeOf(n)).Elem()
				c.Set(reflect.ValueOf(n))
				path(c).Set(reflect.ValueOf(with))
				return c.Interface().(ast.IsNode)
			}})
		case t.Kind() == reflect.Slice && (t.Elem() == nodeType || t.Elem() == reflect.TypeFor[ast.RecordElementNode]()):
			for i := range value.Len() {
				fields(t.Elem(), value.Index(i), func(root reflect.Value) reflect.Value {
					list := path(root)
					// The copy of the node shares its lists with the original.
					list.Set(reflect.AppendSlice(reflect.MakeSlice(t, 0, list.Len()), list))
					return list.Index(i)
				})
			}
		case t.Kind() == reflect.Struct && t.PkgPath() == nodeType.PkgPath():
			for i := range t.NumField() {
				if f := t.Field(i); f.IsExported() {
					fields(f.Type, value.Field(i), func(root reflect.Value) reflect.Value { return path(root).Field(i) })
				}
			}
		}
	}
	v := reflect.ValueOf(n)
	fields(v.Type(), v, func(root reflect.Value) reflect.Value { return root })
	return out
}

// lexeme is a word or an operator of a policy's text.
type lexeme struct {
	text string
	line int
}

// tokensOf splits a policy, which has been scanned and parsed.
func tokensOf(src string, line int) []lexeme {
	var out []lexeme
	for i := 0; i < len(src); {
		start := i
		switch c := src[i]; {
		case c == '\n':
			line++
			i++
			continue
		case c == ' ' || c == '\t' || c == '\r':
			i++
			continue
		case strings.HasPrefix(src[i:], "//"):
			for i < len(src) && src[i] != '\n' {
				i++
			}
			continue
		case c == '"':
			first := line
			for i++; i < len(src) && src[i] != '"'; i++ {
				if src[i] == '\\' {
					i++
				} else if src[i] == '\n' {
					line++
				}
			}
			i = min(i+1, len(src))
			out = append(out, lexeme{`""`, first})
			continue
		case isWord(c):
			for i < len(src) && isWord(src[i]) {
				i++
			}
		default:
			i++
			if i < len(src) && slices.Contains([]string{"==", "!=", "<=", ">=", "&&", "||"}, src[start:i+1]) {
				i++
			}
		}
		out = append(out, lexeme{src[start:i], line})
	}
	return out
}

// lineOfWord returns the line of a word that another one follows.
func lineOfWord(tokens []lexeme, word, next string, otherwise int) int {
	for i := 1; i < len(tokens); i++ {
		if tokens[i-1].text == word && tokens[i].text == next {
			return tokens[i-1].line
		}
	}
	return otherwise
}

// places says where the clauses and operators of a policy stand. The engine
// keeps no places within a policy, so the operators of its tree are counted
// against those of its text.
type places struct {
	clauses []int // lines
	sites   []site
	tokens  []lexeme
	words   map[string][]int // word: its tokens, as many as sites have it
}

func placesOf(p *Policy, tokens []lexeme) places {
	at := places{words: map[string][]int{}}
	begin := func(i int) bool {
		return (tokens[i].text == "when" || tokens[i].text == "unless") && i+1 < len(tokens) && tokens[i+1].text == "{"
	}
	for i := range tokens {
		if begin(i) {
			tokens = tokens[i:]
			break
		}
	}
	at.tokens = tokens
	for i, t := range tokens {
		at.words[t.text] = append(at.words[t.text], i)
		if begin(i) {
			at.clauses = append(at.clauses, t.line)
		}
	}
	for len(at.clauses) < len(p.ast.Conditions) {
		at.clauses = append(at.clauses, p.Line)
	}
	count := map[string]int{}
	for i, c := range p.ast.Conditions {
		for _, s := range sitesOf(i, c.Body) {
			s.nth = count[s.word]
			count[s.word]++
			at.sites = append(at.sites, s)
		}
	}
	for word, list := range at.words {
		if len(list) != count[word] {
			delete(at.words, word) // such as "has" in "context has a.b", or in a name
		}
	}
	return at
}

// around returns the lines of what stands before an operator, of the operator,
// and of what follows it; when they cannot be told, that of the clause.
func (at places) around(s site) (before, line, after int) {
	list, ok := at.words[s.word]
	if !ok {
		line = at.clauses[s.clause]
		return line, line, line
	}
	i := list[s.nth]
	return at.tokens[max(i-1, 0)].line, at.tokens[i].line, at.tokens[min(i+1, len(at.tokens)-1)].line
}
