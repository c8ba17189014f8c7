package pdp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Explanation says why an answer is what it is: the policies that decided and
// the facts that made them true, or what was missing.
type Explanation struct {
	Record   string            `json:"record,omitempty"`
	Kind     string            `json:"kind,omitempty"`
	Subject  string            `json:"subject"`
	Action   string            `json:"action"`
	Resource string            `json:"resource"`
	Caller   string            `json:"caller,omitempty"`
	Verdict  authz.Verdict     `json:"verdict"`
	At       hierarchy.Instant `json:"at"`
	Revision uint64            `json:"revision"`
	Set      string            `json:"set"`
	Policies []Considered      `json:"policies,omitempty"`
	Facts    []Because         `json:"facts,omitempty"`
	Missing  []string          `json:"missing,omitempty"`
}

// Considered is one policy whose scope matched, in one attempt.
type Considered struct {
	ID      string            `json:"id"`
	Effect  string            `json:"effect"` // "permit" or "forbid"
	Result  string            `json:"result"` // "satisfied", "not satisfied" or "error"
	Attempt string            `json:"attempt,omitempty"`
	File    string            `json:"file"`
	Line    int               `json:"line"`
	Clauses []policies.Clause `json:"clauses,omitempty"`
}

// Because is one fact that made a policy true.
type Because struct {
	Text  string             `json:"text"`
	Fact  hierarchy.FactID   `json:"fact,omitzero"`
	Valid hierarchy.Interval `json:"valid,omitzero"`
}

// explain derives the explanation of a judgement made in this world.
func (w world) explain(a *asked, j *judgement) Explanation {
	x := Explanation{Subject: a.Subject.Type + ":" + a.Subject.ID, Action: a.Action, Caller: a.Caller,
		Resource: a.Resource.Type + ":" + a.Resource.ID, Verdict: j.verdict, At: w.now, Revision: w.rev, Set: w.set.Digest()}
	view := w.graph.At(w.now, w.rev, w.confers)
	then := w.graph.At(j.read, w.rev, w.confers)
	for i := range j.attempts {
		t, out := &j.attempts[i], &j.outcomes[i]
		name := t.name()
		satisfied, failed := policyIDs(append(slices.Clone(out.Permits), out.Forbids...)), []string{}
		for _, e := range out.Errors {
			failed = append(failed, e.Policy.ID)
		}
		for _, p := range out.Candidates {
			c := Considered{ID: p.ID, Effect: "permit", Result: "not satisfied", Attempt: name, File: p.File, Line: p.Line,
				Clauses: w.clauses(t, p.ID)}
			if p.Forbid {
				c.Effect = "forbid"
			}
			if slices.Contains(satisfied, p.ID) {
				c.Result = "satisfied"
			}
			if slices.Contains(failed, p.ID) {
				c.Result = "error"
			}
			x.Policies = append(x.Policies, c)
		}
		if out.Cedar == authz.Allow && j.verdict.Effect && len(x.Facts) == 0 {
			x.Facts = because(view, then, j, i)
		}
	}
	if !j.verdict.Effect {
		x.Missing = w.missing(view, j, &x)
	}
	return x
}

// clauses explains a policy of the set or of an attempt's overlay.
func (w world) clauses(t *attempt, id string) []policies.Clause {
	if t.Overlay != "" {
		return w.overlays[t.Tenant].Explain(t.question, id)
	}
	return w.set.Explain(t.question, id)
}

func (t *attempt) name() string {
	switch {
	case t.Grant != "":
		return "grant " + t.Grant
	case t.Emergency != "":
		return "emergency " + t.Emergency
	case t.Area != "":
		return "area " + t.Area
	}
	return ""
}

// because lists the facts behind an allowed attempt.
func because(view, then hierarchy.View, j *judgement, i int) []Because {
	var out []Because
	t := &j.attempts[i]
	if t.Grant != "" {
		grant := &j.grants[slices.IndexFunc(j.grants, func(g delegated) bool { return g.ID == t.Grant })]
		for _, id := range grant.Chain {
			if f, ok := view.Fact(id); ok && f.Event.Grant != nil {
				g := f.Event.Grant
				out = append(out, Because{fmt.Sprintf("grant %s (%s) of %s to %s for %s", g.ID, g.Type, g.Grantor, g.Grantee, g.Subject), f.ID, f.Valid})
			}
		}
		if grant.ByMajority {
			out = append(out, Because{Text: "the grant ends when the person comes of age", Valid: grant.Effective})
		}
		return out
	}
	if t.Emergency != "" {
		e := &j.emergencies[slices.IndexFunc(j.emergencies, func(e hierarchy.EmergencyFact) bool { return e.ID == t.Emergency })]
		return []Because{{fmt.Sprintf("emergency %s (%s) of %s for %s at %s", e.ID, e.Reason, e.Principal, e.Person, e.Node), e.Fact, e.Valid}}
	}
	if slices.ContainsFunc(view.Persons(j.principal), func(p hierarchy.ID) bool { return slices.Contains(j.owners, p) }) {
		for _, l := range view.Links(j.principal) {
			if l.Kind == hierarchy.LinkSelf {
				out = append(out, Because{fmt.Sprintf("%s is %s, who owns the record", l.From, l.To), l.Fact, l.Valid})
			}
		}
	}
	used := capabilities(t, &j.outcomes[i])
	for _, a := range view.Assignments(j.principal) {
		held := view.Capabilities(a.Role)
		if !slices.ContainsFunc(used, func(c string) bool { return slices.Contains(held, c) }) {
			continue
		}
		if t.Area == "" && !slices.Contains(j.scopes, a.Node) {
			continue
		}
		out = append(out, Because{fmt.Sprintf("%s holds role %s at %s", a.Principal, a.Role, a.Node), a.Fact, a.Valid})
		for _, anchor := range j.anchors {
			path, ok := then.Path(anchor, a.Node)
			if !ok {
				continue
			}
			for _, e := range path {
				out = append(out, Because{fmt.Sprintf("%s %s %s", e.Child, e.Kind, e.Parent), e.Fact, e.Valid})
			}
			break
		}
	}
	return out
}

// capabilities returns those that the satisfied permits of an attempt name: in
// their text, or as that of the action, feature or route.
func capabilities(t *attempt, o *policies.Outcome) []string {
	var out []string
	for c := range t.question.Principal.Tags {
		for _, p := range o.Permits {
			if strings.Contains(p.Text, `"`+c+`"`) || t.question.Resource.Attrs["capability"] == policies.Value(c) ||
				strings.Contains(p.Text, "context.capability") && t.question.Context["capability"] == policies.Value(c) {
				out = append(out, c)
			}
		}
	}
	return unique(out)
}

// missing says what a denied subject lacked.
func (w world) missing(view hierarchy.View, j *judgement, x *Explanation) []string {
	var out []string
	switch j.verdict.Code {
	case authz.NoStanding, authz.GrantEnded, authz.MajorityReached, authz.AssignmentEnded:
		out = append(out, fmt.Sprintf("no live assignment, link or grant of %s reaches %s", j.principal, idList(j.anchors)))
		for _, g := range view.EndedGrants(j.principal) {
			if slices.Contains(j.owners, g.Subject) {
				why := "ended"
				if g.ByMajority {
					why = "ended as the person came of age"
				}
				out = append(out, fmt.Sprintf("grant %s %s at %s (%s)", g.ID, why, g.Effective.To, g.Fact))
			}
		}
		for _, a := range view.EndedAssignments(j.principal) {
			if slices.Contains(j.scopes, a.Node) {
				out = append(out, fmt.Sprintf("role %s at %s ended at %s (%s)", a.Role, a.Node, a.Valid.To, a.Fact))
			}
		}
		return out
	case authz.Denied, authz.Forbidden, authz.Indeterminate:
	default:
		if j.fault != "" {
			return []string{j.fault}
		}
		return []string{explainCode(j.verdict.Code)}
	}
	for _, c := range x.Policies {
		switch {
		case c.Effect == "forbid" && c.Result == "satisfied":
			out = append(out, fmt.Sprintf("%s forbids%s", c.ID, in(c.Attempt)))
		case c.Result == "error":
			out = append(out, fmt.Sprintf("%s could not be evaluated%s", c.ID, in(c.Attempt)))
		case c.Effect == "permit" && c.Result != "satisfied":
			for _, cl := range c.Clauses {
				if cl.Value != "true" {
					out = append(out, fmt.Sprintf("%s needs %s%s", c.ID, cl.Text, in(c.Attempt)))
					break
				}
			}
		}
	}
	if len(out) == 0 {
		out = append(out, "no policy permits this action on this type")
	}
	return out
}

func in(attempt string) string {
	if attempt == "" {
		return ""
	}
	return " (" + attempt + ")"
}

func explainCode(c authz.Code) string {
	switch c {
	case authz.SubjectUnverified:
		return "the caller is not registered to assert this subject"
	case authz.SubjectUnlinked:
		return "no identity link ties this subject to a principal"
	case authz.UnknownSubject:
		return "the principal does not exist at this instant"
	case authz.UnknownResource:
		return "the resource does not exist at this instant"
	case authz.UnknownType:
		return "the catalogue does not know the subject's or resource's type"
	case authz.UnknownAction:
		return "the catalogue does not know this action for these types"
	case authz.AnchorMissing:
		return "an anchor was not sent by its authority, or does not exist at the instant that applies"
	case authz.AnchorConflict:
		return "the anchors contradict one another"
	case authz.AttributeMissing:
		return "a required attribute was not sent by its authority"
	case authz.AttributeInvalid:
		return "an attribute has the wrong type or a value outside its enumeration"
	case authz.AreaRequired:
		return fmt.Sprintf("the subject stands in more than %d areas: name one", MaxAreas)
	case authz.UnknownArea:
		return "the named area is no tenant, network or operator that exists"
	}
	return string(c)
}

func idList(ids []hierarchy.ID) string {
	if len(ids) == 0 {
		return "the resource"
	}
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = id.String()
	}
	return strings.Join(s, ", ")
}
