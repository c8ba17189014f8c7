package policies

import (
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// Explain evaluates the conditions of one policy conjunct by conjunct, left to
// right: the && conjuncts of when, and of unless the negated || disjuncts. A
// part of the scope that does not match stands first.
//
// Conjuncts after the first that is not true have no part in the answer; they
// are evaluated all the same, and those that cannot be are "unreached". The
// result is nil for an unknown policy or action.
func (s *Set) Explain(q *Question, policyID string) []Clause { return s.explain(q, s.byID[policyID]) }

func (s *Set) explain(q *Question, p *Policy) []Clause {
	ai := s.actions[q.Action]
	if p == nil || ai == nil {
		return nil
	}
	w, valid := s.world(q, ai)
	var out []Clause
	decided := false
	judge := func(n ast.IsNode, matchesOnly bool) {
		value := "error"
		if v, err := eval.Eval(n, w.env()); err == nil && valid {
			if b, isBool := v.(types.Boolean); isBool && bool(b) {
				value = "true"
			} else if isBool {
				value = "false"
			}
		}
		if matchesOnly && value == "true" {
			return
		}
		if decided && value == "error" {
			value = "unreached"
		}
		decided = decided || value != "true"
		out = append(out, Clause{Text: sourceOf(n), Value: value})
	}
	for _, n := range scopeNodes(p.ast) {
		judge(n, true)
	}
	for _, n := range conjuncts(p.ast) {
		judge(n, false)
	}
	return out
}

// scopeNodes returns the constrained parts of a scope as expressions.
func scopeNodes(p *ast.Policy) []ast.IsNode {
	var out []ast.IsNode
	one := func(q ast.Policy) {
		n := eval.PolicyToNode(&q).AsIsNode()
		if v, ok := n.(ast.NodeValue); ok && v.Value == types.Value(types.True) {
			return
		}
		out = append(out, n)
	}
	all := ast.ScopeTypeAll{}
	one(ast.Policy{Principal: p.Principal, Action: all, Resource: all})
	one(ast.Policy{Principal: all, Action: p.Action, Resource: all})
	one(ast.Policy{Principal: all, Action: all, Resource: p.Resource})
	return out
}

// conjuncts returns the conjuncts of all conditions, left to right.
func conjuncts(p *ast.Policy) []ast.IsNode {
	var out []ast.IsNode
	var and, or func(n ast.IsNode)
	and = func(n ast.IsNode) {
		if v, ok := n.(ast.NodeTypeAnd); ok {
			and(v.Left)
			and(v.Right)
			return
		}
		out = append(out, n)
	}
	or = func(n ast.IsNode) {
		if v, ok := n.(ast.NodeTypeOr); ok {
			or(v.Left)
			or(v.Right)
			return
		}
		out = append(out, ast.Not(ast.NewNode(n)).AsIsNode())
	}
	for _, c := range p.Conditions {
		if c.Condition == ast.ConditionWhen {
			and(c.Body)
		} else {
			or(c.Body)
		}
	}
	return out
}

// sourceOf prints an expression. The engine prints whole policies only.
func sourceOf(n ast.IsNode) string {
	text := string(policyFrom(ast.Permit().When(ast.NewNode(n))).MarshalCedar())
	_, text, _ = strings.Cut(text, "when { ")
	return strings.TrimSuffix(text, " };")
}
