package policies

import (
	"errors"
	"iter"
	"math"
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"

	"github.com/ward-authz/ward/pdp/authz"
)

// Kinds of a [PolicyError]. Append-only.
const (
	ErrorMissingAttribute = "missing_attribute"
	ErrorMissingTag       = "missing_tag"
	ErrorMissingEntity    = "missing_entity"
	ErrorOverflow         = "overflow"
	ErrorType             = "type"
	ErrorOther            = "other"
)

// Evaluate judges a question. It evaluates every policy whose scope matches, so
// that Outcome lists all that are satisfied and all that fail.
//
// An action that the catalogue does not know has no candidates: the answer is
// deny. A question that holds something that is no [Value] is denied, with
// every candidate among the Errors.
func (s *Set) Evaluate(q *Question) Outcome { return s.evaluate(q, nil) }

// evaluate judges a question with further policies, indexed by action.
func (s *Set) evaluate(q *Question, more map[string]*actionIndex) Outcome {
	ai := s.actions[q.Action]
	if ai == nil {
		return Outcome{Until: math.MaxInt64}
	}
	w, ok := s.world(q, ai)
	out := Outcome{Candidates: ai.find(w), Until: math.MaxInt64}
	if own := more[q.Action]; own != nil {
		out.Candidates = append(out.Candidates, own.find(w)...)
		slices.SortFunc(out.Candidates, compareIDs)
	}
	if !ok {
		out.Until = w.now
		for _, p := range out.Candidates {
			out.Errors = append(out.Errors, PolicyError{Policy: p, Kind: ErrorType})
		}
		return out
	}
	// Permits and forbids apart, for Authorize names the permits only where no
	// forbid is satisfied. Each policy is evaluated once either way.
	permits, forbids := 0, 0
	for _, p := range out.Candidates {
		if p.Forbid {
			forbids++
		} else {
			permits++
		}
	}
	if permits > 0 {
		out.Permits = w.judge(out.Candidates, false, &out.Errors)
	}
	if forbids > 0 {
		out.Forbids = w.judge(out.Candidates, true, &out.Errors)
	}
	out.Cedar = authz.Effect(len(out.Permits) > 0 && len(out.Forbids) == 0)
	if len(out.Errors) > 1 {
		slices.SortFunc(out.Errors, func(a, b PolicyError) int { return compareIDs(a.Policy, b.Policy) })
	}
	for _, p := range out.Candidates {
		if p.clock.used {
			out.Until = min(out.Until, p.clock.until(w))
		}
	}
	return out
}

// candidates yields the policies of one effect, in order.
type candidates struct {
	list   []*Policy
	forbid bool
}

func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, p := range c.list {
			if p.Forbid == c.forbid && !yield(cedar.PolicyID(p.ID), p.judged) {
				return
			}
		}
	}
}

// judge returns the satisfied policies of one effect, and adds the failing ones.
func (w *world) judge(list []*Policy, forbid bool, failed *[]PolicyError) []*Policy {
	_, diag := cedar.Authorize(candidates{list, forbid}, w, w.request)
	var satisfied []*Policy
	at := 0 // the answers keep the order of the candidates
	next := func(id types.PolicyID) *Policy {
		for list[at].ID != string(id) {
			at++
		}
		return list[at]
	}
	if len(diag.Reasons) > 0 {
		satisfied = make([]*Policy, len(diag.Reasons))
		for i, r := range diag.Reasons {
			satisfied[i] = next(r.PolicyID)
		}
	}
	at = 0
	for _, e := range diag.Errors {
		p := next(e.PolicyID)
		*failed = append(*failed, PolicyError{Policy: p, Kind: w.why(p)})
	}
	return satisfied
}

// why evaluates a failing policy again for the kind of its error.
func (w *world) why(p *Policy) string {
	q := *p.ast
	q.Principal, q.Action, q.Resource = ast.ScopeTypeAll{}, ast.ScopeTypeAll{}, ast.ScopeTypeAll{}
	_, err := eval.Eval(eval.PolicyToNode(&q).AsIsNode(), w.env())
	return kindOfError(err)
}

// sentinels are the engine's own error values, which it does not export. They
// are obtained by provoking each error once.
var sentinels = func() []struct {
	err  error
	kind string
} {
	uid := types.NewEntityUID("T", "x")
	env := eval.Env{Entities: types.EntityMap{uid: {UID: uid}}}
	provoke := func(n ast.Node) error {
		_, err := eval.Eval(n.AsIsNode(), env)
		return errors.Unwrap(err)
	}
	known, missing := ast.Value(uid), ast.Value(types.NewEntityUID("T", "y"))
	return []struct {
		err  error
		kind string
	}{
		{provoke(ast.Long(math.MaxInt64).Add(ast.Long(1))), ErrorOverflow},
		{provoke(known.Access("a")), ErrorMissingAttribute},
		{provoke(known.GetTag(ast.String("a"))), ErrorMissingTag},
		{provoke(missing.Access("a")), ErrorMissingEntity},
	}
}()

func kindOfError(err error) string {
	if errors.Is(err, eval.ErrType) {
		return ErrorType
	}
	for _, s := range sentinels {
		if s.err != nil && errors.Is(err, s.err) {
			return s.kind
		}
	}
	return ErrorOther
}

// world is a question in the engine's terms.
type world struct {
	principal, resource types.Entity
	others              map[types.EntityUID]types.Entity
	actions             map[types.EntityUID]types.Entity
	request             cedar.Request
	now                 int64

	principalUp, resourceUp []types.EntityUID
}

// Get implements the engine's EntityGetter. An entity that the question does
// not list exists without attributes when it is someone's parent or scope, and
// "in" needs no more than that; reading one is an error, as Cedar has it.
func (w *world) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid {
	case w.principal.UID:
		return w.principal, true
	case w.resource.UID:
		return w.resource, true
	}
	if e, ok := w.others[uid]; ok {
		return e, true
	}
	e, ok := w.actions[uid]
	return e, ok
}

func (w *world) env() eval.Env {
	return eval.Env{Entities: w, Principal: w.request.Principal, Action: w.request.Action,
		Resource: w.request.Resource, Context: w.request.Context}
}

// principalIn returns the principal and all its ancestors.
func (w *world) principalIn() []types.EntityUID {
	if w.principalUp == nil {
		w.principalUp = w.up(w.principal)
	}
	return w.principalUp
}

// resourceIn returns the resource and all its ancestors.
func (w *world) resourceIn() []types.EntityUID {
	if w.resourceUp == nil {
		w.resourceUp = w.up(w.resource)
	}
	return w.resourceUp
}

// up walks as the engine's "in" does. A parent has no parents of its own, by
// the contract of Question; if one had, a forbid must not be missed for it.
func (w *world) up(e types.Entity) []types.EntityUID {
	out := make([]types.EntityUID, 1, 1+e.Parents.Len())
	out[0] = e.UID
	for parent := range e.Parents.All() {
		out = append(out, parent)
	}
	if len(w.others) == 0 {
		return out
	}
	seen := make(map[types.EntityUID]bool, len(out))
	for i := 0; i < len(out); i++ {
		if seen[out[i]] {
			continue
		}
		seen[out[i]] = true
		if i == 0 {
			continue
		}
		if p, ok := w.Get(out[i]); ok {
			for parent := range p.Parents.All() {
				out = append(out, parent)
			}
		}
	}
	return out
}

// world converts a question. It reports false when something in it is no Value.
func (s *Set) world(q *Question, ai *actionIndex) (*world, bool) {
	c := converter{ok: true}
	w := &world{principal: c.entity(&q.Principal), resource: c.entity(&q.Resource), actions: s.entities}
	if len(q.Others) > 0 {
		w.others = make(map[types.EntityUID]types.Entity, len(q.Others))
		for i := range q.Others {
			e := c.entity(&q.Others[i])
			if _, twice := w.others[e.UID]; twice {
				c.ok = false
			}
			w.others[e.UID] = e
		}
	}
	w.request = cedar.Request{Principal: w.principal.UID, Action: ai.uid, Resource: w.resource.UID, Context: c.record(q.Context)}
	if now, ok := q.Context["now"].(Datetime); ok {
		w.now = int64(now)
	}
	return w, c.ok
}

type converter struct{ ok bool }

func uidOf(r Ref) types.EntityUID {
	return types.EntityUID{Type: types.EntityType(r.Type), ID: types.String(r.ID)}
}

func (c *converter) entity(e *Entity) types.Entity {
	out := types.Entity{UID: uidOf(e.Ref), Attributes: c.record(e.Attrs)}
	if len(e.Parents) > 0 {
		parents := make([]types.EntityUID, len(e.Parents))
		for i, r := range e.Parents {
			parents[i] = uidOf(r)
		}
		out.Parents = types.NewEntityUIDSet(parents...)
	}
	if len(e.Tags) > 0 {
		tags := make(types.RecordMap, len(e.Tags))
		for name, scopes := range e.Tags {
			values := make([]types.Value, len(scopes))
			for i, r := range scopes {
				values[i] = uidOf(r)
			}
			tags[types.String(name)] = types.NewSet(values...)
		}
		out.Tags = types.NewRecord(tags)
	}
	return out
}

func (c *converter) record(fields map[string]Value) types.Record {
	if len(fields) == 0 {
		return types.Record{}
	}
	m := make(types.RecordMap, len(fields))
	for name, v := range fields {
		m[types.String(name)] = c.value(v)
	}
	return types.NewRecord(m)
}

func (c *converter) value(v Value) types.Value {
	switch v := v.(type) {
	case bool:
		return types.Boolean(v)
	case int64:
		return types.Long(v)
	case string:
		return types.String(v)
	case Ref:
		return uidOf(v)
	case Datetime:
		return types.NewDatetimeFromMillis(int64(v))
	case IPAddr:
		ip, err := types.ParseIPAddr(string(v))
		if err != nil {
			c.ok = false
		}
		return ip
	case []Value:
		values := make([]types.Value, len(v))
		for i, item := range v {
			values[i] = c.value(item)
		}
		return types.NewSet(values...)
	case map[string]Value:
		return c.record(v)
	}
	c.ok = false
	return types.False
}

// policyFrom compiles an AST.
func policyFrom(p *ast.Policy) *cedar.Policy { return cedar.NewPolicyFromAST((*cedarast.Policy)(p)) }
