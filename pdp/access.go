package pdp

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// AccessDifference is a test case that two policy sets decide otherwise.
type AccessDifference struct {
	File   string     `json:"file"`
	Line   int        `json:"line"`
	Name   string     `json:"name"`
	Before CaseAnswer `json:"before"`
	After  CaseAnswer `json:"after"`
}

// CaseAnswer is what a set says to a test case, or to a recorded request.
type CaseAnswer struct {
	// Decision is "allow", "deny", or "none" where the set does not admit the
	// facts of the case; Code says why.
	Decision    string             `json:"decision"`
	Code        authz.Code         `json:"code"`
	Reasons     []string           `json:"reasons,omitempty"`
	Obligations []authz.Obligation `json:"obligations,omitempty"`
}

// CompareAccess asks two sets every test case of both, each with the roles that
// the set ships, and returns those that are decided otherwise, or with other
// obligations, and how many were asked. It enforces nothing and reads no facts
// but the cases' own. The error is about a test file that is no test at all.
func CompareAccess(before, after *policies.Set) (differ []AccessDifference, asked int, err error) {
	cases := before.Cases()
	for _, c := range after.Cases() {
		if !slices.ContainsFunc(cases, func(o policies.Case) bool { return sameQuestion(o, c) }) {
			cases = append(cases, c)
		}
	}
	worlds := [2]map[string]*caseWorld{{}, {}}
	for _, c := range cases {
		d := AccessDifference{File: c.File, Line: c.Line, Name: c.Name}
		for i, set := range []*policies.Set{before, after} {
			// The same file may say other things in each set.
			key := fmt.Sprintf("%s\x00%v", c.File, c.Facts)
			w := worlds[i][key]
			if w == nil {
				if w, err = newCaseWorld(set, c.Facts); err != nil {
					return nil, 0, fmt.Errorf("%s: %w", c.File, err)
				}
				worlds[i][key] = w
			}
			*[]*CaseAnswer{&d.Before, &d.After}[i] = w.answer(set, c)
		}
		asked++
		if d.Before.Decision != d.After.Decision || !reflect.DeepEqual(d.Before.Obligations, d.After.Obligations) {
			differ = append(differ, d)
		}
	}
	return differ, asked, nil
}

// sameQuestion reports whether two cases ask the same, whatever they expect.
func sameQuestion(a, b policies.Case) bool {
	a.Line, a.Expect, a.Facts = b.Line, b.Expect, factsWithoutLines(a.Facts)
	b.Facts = factsWithoutLines(b.Facts)
	return a.Name == b.Name && reflect.DeepEqual(a, b)
}

func factsWithoutLines(facts []policies.Fact) []policies.Fact {
	out := slices.Clone(facts)
	for i := range out {
		out[i].Line = 0
	}
	return out
}

// caseWorld is the graph of a case's facts under one set, or why there is none.
type caseWorld struct {
	graph   *hierarchy.Graph
	refused authz.Code
}

func newCaseWorld(set *policies.Set, facts []policies.Fact) (*caseWorld, error) {
	g, err := testGraph(set, facts)
	var r *hierarchy.Refusal
	if errors.As(err, &r) {
		return &caseWorld{refused: authz.Code(r.Code)}, nil
	}
	return &caseWorld{graph: g}, err
}

func (w *caseWorld) answer(set *policies.Set, c policies.Case) CaseAnswer {
	if w.graph == nil {
		return CaseAnswer{Decision: "none", Code: w.refused}
	}
	return answerOf(judgeCase(set, w.graph, c).verdict)
}

func answerOf(v authz.Verdict) CaseAnswer {
	return CaseAnswer{Decision: v.Effect.String(), Code: v.Code, Reasons: v.Reasons, Obligations: v.Obligations}
}
