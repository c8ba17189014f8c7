package policies

import (
	"math"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// clock is how the conditions of a policy depend on context.now.
type clock struct {
	used bool
	// volatile: context.now is used other than in a plain comparison, so the
	// answer may change at any instant.
	volatile bool
	flips    []flip
}

// flip is a plain comparison of context.now with an operand X that does not
// mention it. Its value changes when the clock reaches X (at), or X + 1 ms
// (after), or both.
type flip struct {
	operand   ast.IsNode
	constant  *int64 // the operand's value, when it needs no question
	at, after bool
}

// readClock reads the conditions of a policy.
func readClock(p *ast.Policy) clock {
	var c clock
	for _, cond := range p.Conditions {
		c.read(cond.Body)
	}
	c.used = c.volatile || len(c.flips) > 0
	return c
}

func (c *clock) read(n ast.IsNode) {
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeLessThan: // now < X, or X < now, which is now > X
			return !c.compare(n.BinaryNode, flip{at: true}, flip{after: true})
		case ast.NodeTypeLessThanOrEqual:
			return !c.compare(n.BinaryNode, flip{after: true}, flip{at: true})
		case ast.NodeTypeGreaterThan:
			return !c.compare(n.BinaryNode, flip{after: true}, flip{at: true})
		case ast.NodeTypeGreaterThanOrEqual:
			return !c.compare(n.BinaryNode, flip{at: true}, flip{after: true})
		case ast.NodeTypeEquals:
			return !c.compare(n.BinaryNode, flip{at: true, after: true}, flip{at: true, after: true})
		case ast.NodeTypeNotEquals:
			return !c.compare(n.BinaryNode, flip{at: true, after: true}, flip{at: true, after: true})
		case ast.NodeTypeHas:
			// "context has now" is true at every instant
			return !isContext(n.Arg)
		case ast.NodeTypeAccess:
			if isContext(n.Arg) {
				if n.Value == "now" {
					c.volatile = true
				}
				return false
			}
		case ast.NodeTypeVariable:
			// context as a whole holds now
			if n.Name == "context" {
				c.volatile = true
			}
		}
		return true
	})
}

// compare records a comparison when one side is context.now and the other does
// not depend on it.
func (c *clock) compare(n ast.BinaryNode, nowLeft, nowRight flip) bool {
	f, operand := nowLeft, n.Right
	switch {
	case isNow(n.Left):
	case isNow(n.Right):
		f, operand = nowRight, n.Left
	default:
		return false
	}
	var inner clock
	inner.read(operand)
	if inner.volatile || len(inner.flips) > 0 {
		return false // the walk goes on into both sides and finds context.now
	}
	f.operand = operand
	if v, err := eval.Eval(operand, eval.Env{Entities: types.EntityMap{}}); err == nil && !mentions(operand) {
		ms := int64(0)
		if t, ok := v.(types.Datetime); ok {
			ms = t.Milliseconds()
			f.constant = &ms
		}
	}
	c.flips = append(c.flips, f)
	return true
}

// mentions reports whether n depends on the question at all.
func mentions(n ast.IsNode) bool {
	found := false
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeVariable:
			found = true
		case ast.NodeValue:
			if _, ok := n.Value.(types.EntityUID); ok {
				found = true
			}
		}
		return !found
	})
	return found
}

func isContext(n ast.IsNode) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == "context"
}

func isNow(n ast.IsNode) bool {
	a, ok := n.(ast.NodeTypeAccess)
	return ok && a.Value == "now" && isContext(a.Arg)
}

// until returns the first instant after now at which a comparison changes.
func (c *clock) until(w *world) int64 {
	if c.volatile {
		return w.now
	}
	first := int64(math.MaxInt64)
	for i := range c.flips {
		f := &c.flips[i]
		var x int64
		if f.constant != nil {
			x = *f.constant
		} else {
			// An operand that fails, or is no datetime, does so at every instant.
			v, err := eval.Eval(f.operand, w.env())
			t, ok := v.(types.Datetime)
			if err != nil || !ok {
				continue
			}
			x = t.Milliseconds()
		}
		if f.at && x > w.now {
			first = min(first, x)
		}
		if f.after && x >= w.now && x < math.MaxInt64 {
			first = min(first, x+1)
		}
	}
	return first
}
