package policies

import (
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// compiled is what the evaluator needs of a policy.
type compiled struct {
	column  int
	ordinal int // place in the set or overlay, which is sorted by id
	ast     *ast.Policy
	// judged is the policy without its scope: the index has matched that
	// exactly, and a scope cannot fail.
	judged *cedar.Policy
	clock  clock
}

func (p *Policy) prepare() {
	q := *p.ast
	q.Principal, q.Action, q.Resource = ast.ScopeTypeAll{}, ast.ScopeTypeAll{}, ast.ScopeTypeAll{}
	p.judged = policyFrom(&q)
	p.clock = readClock(p.ast)
}

// The index finds the policies whose scope matches a question.
//
// Leaving the others out is sound because a policy whose scope does not match
// is not satisfied and cannot fail: the scope is the first conjunct, and its
// tests (==, in, is) on the entities of the request are total. Cedar proves
// this for principal and resource (cedar-lean, Cedar/Thm/PolicySlice.lean); the
// argument for the action and for "is" is the same. A property test compares
// with a full scan.
//
// For each action, policies lie under the key of their principal constraint
// and, below it, of their resource constraint. "in" is exact: a lookup probes
// the entity and all its ancestors.
type actionIndex struct {
	uid        types.EntityUID
	principals map[scopeKey]*bucket
	// principalIn says that a key of kind scopeIn exists at all.
	principalIn bool
}

type bucket struct {
	resources  map[scopeKey][]*Policy // sorted by ordinal
	resourceIn bool
}

type scopeKind uint8

const (
	scopeAll scopeKind = iota
	scopeIs
	scopeEq
	scopeIn // also "is T in uid"; the type is tested after the lookup
)

type scopeKey struct {
	kind scopeKind
	uid  types.EntityUID // for scopeIs, the type alone
}

func keyOf(s ast.IsScopeNode) scopeKey {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return scopeKey{scopeEq, s.Entity}
	case ast.ScopeTypeIn:
		return scopeKey{scopeIn, s.Entity}
	case ast.ScopeTypeIs:
		return scopeKey{scopeIs, types.EntityUID{Type: s.Type}}
	case ast.ScopeTypeIsIn:
		return scopeKey{scopeIn, s.Entity}
	}
	return scopeKey{}
}

// actionMatches reports whether the action uid is in the scope s, by the
// schema's hierarchy of actions.
func actionMatches(rs *resolved.Schema, s ast.IsActionScopeNode, uid types.EntityUID) bool {
	in := func(group types.EntityUID) bool {
		return uid == group || slices.Contains(actionAncestors(rs, uid), group)
	}
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity == uid
	case ast.ScopeTypeIn:
		return in(s.Entity)
	case ast.ScopeTypeInSet:
		return slices.ContainsFunc(s.Entities, in)
	}
	return true
}

// buildIndex indexes policies, sorted by ordinal, for every action of the
// catalogue.
func buildIndex(cat *Catalogue, rs *resolved.Schema, policies []*Policy) map[string]*actionIndex {
	out := make(map[string]*actionIndex, len(cat.Actions))
	byUID := make(map[types.EntityUID]*actionIndex, len(cat.Actions))
	below := map[types.EntityUID][]*actionIndex{} // group -> actions in it
	var all []*actionIndex
	for _, name := range sortedKeys(cat.Actions) {
		for _, ns := range []string{cat.Namespace, WardNamespace} {
			uid := types.NewEntityUID(types.EntityType(ns+"::Action"), types.String(name))
			if _, ok := rs.Actions[uid]; !ok {
				continue
			}
			ai := &actionIndex{uid: uid, principals: map[scopeKey]*bucket{}}
			out[name], byUID[uid] = ai, ai
			all = append(all, ai)
			below[uid] = append(below[uid], ai)
			for _, group := range actionAncestors(rs, uid) {
				below[group] = append(below[group], ai)
			}
			break
		}
	}
	for _, p := range policies {
		var into []*actionIndex
		switch s := p.ast.Action.(type) {
		case ast.ScopeTypeEq:
			if ai, ok := byUID[s.Entity]; ok {
				into = []*actionIndex{ai}
			}
		case ast.ScopeTypeIn:
			into = below[s.Entity]
		case ast.ScopeTypeInSet:
			seen := map[*actionIndex]bool{}
			for _, group := range s.Entities {
				for _, ai := range below[group] {
					if !seen[ai] {
						seen[ai] = true
						into = append(into, ai)
					}
				}
			}
		default:
			into = all
		}
		for _, ai := range into {
			ai.add(p)
		}
	}
	return out
}

func (ai *actionIndex) add(p *Policy) {
	pk, rk := keyOf(p.ast.Principal), keyOf(p.ast.Resource)
	b := ai.principals[pk]
	if b == nil {
		b = &bucket{resources: map[scopeKey][]*Policy{}}
		ai.principals[pk] = b
		ai.principalIn = ai.principalIn || pk.kind == scopeIn
	}
	b.resourceIn = b.resourceIn || rk.kind == scopeIn
	b.resources[rk] = append(b.resources[rk], p)
}

// find returns the policies whose scope matches, sorted by id.
func (ai *actionIndex) find(w *world) []*Policy {
	var out []*Policy
	lists := 0
	collect := func(b *bucket) {
		if b == nil {
			return
		}
		take := func(k scopeKey) {
			if list := b.resources[k]; len(list) > 0 {
				lists++
				for _, p := range list {
					if isType(p.ast.Principal, w.principal.UID.Type) && isType(p.ast.Resource, w.resource.UID.Type) {
						out = append(out, p)
					}
				}
			}
		}
		take(scopeKey{})
		take(scopeKey{scopeIs, types.EntityUID{Type: w.resource.UID.Type}})
		take(scopeKey{scopeEq, w.resource.UID})
		if b.resourceIn {
			for _, uid := range w.resourceIn() {
				take(scopeKey{scopeIn, uid})
			}
		}
	}
	collect(ai.principals[scopeKey{}])
	collect(ai.principals[scopeKey{scopeIs, types.EntityUID{Type: w.principal.UID.Type}}])
	collect(ai.principals[scopeKey{scopeEq, w.principal.UID}])
	if ai.principalIn {
		for _, uid := range w.principalIn() {
			collect(ai.principals[scopeKey{scopeIn, uid}])
		}
	}
	if lists > 1 {
		slices.SortFunc(out, func(a, b *Policy) int { return a.ordinal - b.ordinal })
		out = slices.Compact(out)
	}
	return out
}

// isType tests the type of an "is T in uid" scope, which its key leaves out.
func isType(s ast.IsScopeNode, t types.EntityType) bool {
	is, ok := s.(ast.ScopeTypeIsIn)
	return !ok || is.Type == t
}
