package pdp

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// slice is what was found in the facts for one request: all that the verdict is
// a function of, beside the policies. A record commits to its encoding, and a
// case holds it.
type slice struct {
	code     authz.Code        // that it ends with, whatever the policies say, or ""
	until    hierarchy.Instant // when the facts alone may give another one; 0: never
	attempts []attempt
}

// attempt is one question to the policies: without a grant, with one, with an
// emergency, or in one area.
type attempt struct {
	attemptHead
	question *policies.Question
}

type attemptHead struct {
	Grant     string `json:"grant,omitempty"`
	Emergency string `json:"emergency,omitempty"`
	Area      string `json:"area,omitempty"`
	// Counts says that it may permit: a request that names a grant only narrows.
	Counts bool `json:"counts"`
	// Overlay is the digest of what the tenant forbids that it is about.
	Tenant  string `json:"tenant,omitempty"`
	Overlay string `json:"overlay,omitempty"`
}

// evaluate puts a slice to the policies: the verdict, and the outcome of each
// attempt. It reads nothing but its arguments. overlays are by tenant, over set,
// and hold every one that the slice names.
func evaluate(s *slice, set *policies.Set, overlays map[string]*policies.Overlay) (v authz.Verdict, outcomes []policies.Outcome) {
	v.ValidUntil = int64(s.until)
	outcomes = make([]policies.Outcome, len(s.attempts))
	winner := -1
	var forbids, errs []string
	failed := false // a forbid could not be evaluated
	halted := false // a tenant's own could not, in its own area
	cedar := false
	for i := range s.attempts {
		t, out := &s.attempts[i], &outcomes[i]
		if t.Overlay != "" {
			*out = overlays[t.Tenant].Evaluate(t.question)
		} else {
			*out = set.Evaluate(t.question)
		}
		if t := out.Until; t != math.MaxInt64 && (v.ValidUntil == 0 || t < v.ValidUntil) {
			v.ValidUntil = t
		}
		ended := false
		for _, e := range out.Errors {
			errs = append(errs, e.Policy.ID)
			switch {
			case !e.Policy.Forbid:
			case e.Policy.Tenant != "" && t.Area != "":
				ended, halted = true, true // other tenants' areas are not its business
			default:
				failed = true
			}
		}
		for _, p := range out.Forbids {
			forbids = append(forbids, p.ID)
		}
		if out.Cedar == authz.Allow && t.Counts {
			if cedar = true; ended {
				continue
			}
			if winner < 0 {
				winner = i
			}
			if t.Area != "" {
				v.Areas = append(v.Areas, t.Area)
			}
		}
	}
	if s.code != "" {
		return authz.Verdict{Code: s.code, ValidUntil: int64(s.until)}, outcomes
	}
	v.Errors = unique(errs)
	switch {
	case failed || halted && winner < 0:
		// Cedar skips a forbid that errors; Ward does not.
		v.Code, v.Areas = authz.Indeterminate, nil
		if v.Cedar = "deny"; cedar {
			v.Cedar = "allow"
		}
		v.Reasons = unique(forbids)
	case winner >= 0:
		v.Effect, v.Code = authz.Allow, authz.Permitted
		var reasons []string
		for _, p := range outcomes[winner].Permits {
			reasons = append(reasons, p.ID)
			v.Obligations = append(v.Obligations, p.Obligations...)
			v.Advice = append(v.Advice, p.Advice...)
		}
		v.Reasons = unique(reasons)
		v.Obligations, v.Advice = uniqueObligations(v.Obligations), uniqueObligations(v.Advice)
		v.Grant, v.Emergency = s.attempts[winner].Grant, s.attempts[winner].Emergency
	case len(forbids) > 0:
		v.Code, v.Reasons = authz.Forbidden, unique(forbids)
	default:
		v.Code = authz.Denied
	}
	sort.Strings(v.Areas)
	return v, outcomes
}

func unique(s []string) []string {
	sort.Strings(s)
	return slices.Compact(s)
}

func uniqueObligations(o []authz.Obligation) []authz.Obligation {
	slices.SortFunc(o, func(a, b authz.Obligation) int { return cmp.Compare(obligationKey(a), obligationKey(b)) })
	return slices.CompactFunc(o, func(a, b authz.Obligation) bool { return obligationKey(a) == obligationKey(b) })
}

func obligationKey(o authz.Obligation) string {
	var b strings.Builder
	b.WriteString(o.ID)
	names := make([]string, 0, len(o.Properties))
	for n := range o.Properties {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		b.WriteString("\x00" + n + "\x00" + o.Properties[n])
	}
	return b.String()
}

// names reports whether a slice names a node of some tenant.
func (s *slice) names(of func(tenant string) bool) bool {
	node := func(text string) bool {
		id, err := hierarchy.ParseID(text)
		return err == nil && id.Owner() != "" && of(id.Owner())
	}
	ref := func(r policies.Ref) bool {
		if typ := baseName(r.Type); typ != "Scope" {
			return node(typ + ":" + r.ID)
		}
		return node(r.ID) // a scope's id is that of a node
	}
	var value func(policies.Value) bool
	value = func(v policies.Value) bool {
		switch v := v.(type) {
		case policies.Ref:
			return ref(v)
		case []policies.Value:
			return slices.ContainsFunc(v, value)
		case map[string]policies.Value:
			for _, v := range v {
				if value(v) {
					return true
				}
			}
		}
		return false
	}
	for _, t := range s.attempts {
		if node(t.Area) || t.Tenant != "" && of(t.Tenant) || value(t.question.Context) {
			return true
		}
		for i, e := range append([]policies.Entity{t.question.Resource, t.question.Principal}, t.question.Others...) {
			if i > 0 && ref(e.Ref) || value(e.Attrs) || slices.ContainsFunc(e.Parents, ref) {
				return true
			}
			for _, scopes := range e.Tags {
				if slices.ContainsFunc(scopes, ref) {
					return true
				}
			}
		}
	}
	return false
}

// encode returns the canonical JSON of a slice: the questions in theirs, in the
// order of the attempts, which is part of it.
//
//	{"code":"","until":1767225600000,"attempts":[{"counts":true,"question":{…}}]}
func (s *slice) encode() []byte {
	b := append([]byte(`{"code":"`), s.code...)
	b = strconv.AppendInt(append(b, `","until":`...), int64(s.until), 10)
	b = append(b, `,"attempts":[`...)
	for i := range s.attempts {
		if i > 0 {
			b = append(b, ',')
		}
		head, err := json.Marshal(s.attempts[i].attemptHead)
		if err != nil {
			panic("pdp: " + err.Error()) // strings always encode
		}
		b = append(append(b, head[:len(head)-1]...), `,"question":`...)
		b = append(append(b, policies.Encode(s.attempts[i].question)...), '}')
	}
	return append(b, "]}"...)
}

// decodeSlice reverses encode, and takes nothing else.
func decodeSlice(b []byte) (*slice, error) {
	var in struct {
		Code     authz.Code        `json:"code"`
		Until    hierarchy.Instant `json:"until"`
		Attempts []struct {
			attemptHead
			Question json.RawMessage `json:"question"`
		} `json:"attempts"`
	}
	bad := errors.New("it is not in its canonical form")
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, bad
	}
	s := &slice{code: in.Code, until: in.Until}
	for _, t := range in.Attempts {
		q, err := policies.Decode(t.Question)
		if err != nil {
			return nil, bad
		}
		s.attempts = append(s.attempts, attempt{t.attemptHead, q})
	}
	if !bytes.Equal(s.encode(), b) {
		return nil, bad
	}
	return s, nil
}
