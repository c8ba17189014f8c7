package pdp

import (
	"slices"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// holding is a place where the principal stands and what it may do there.
type holding struct {
	nodes        []hierarchy.ID // an assignment's node; the nodes a person owns
	capabilities []string
}

// coarse answers whether a feature shows or a route answers, in one area or in
// each area where the subject stands.
func (j *judging) coarse() authz.Code {
	j.read = j.now
	id := j.asked.Resource.ID
	attrs := map[string]policies.Value{}
	var module string
	if f := j.cat.Features[id]; j.resource.Kind == policies.KindFeature && f != nil {
		module = f.Module
		attrs["capability"] = f.Capability
	} else if r := j.cat.Routes[id]; j.resource.Kind == policies.KindRoute && r != nil {
		module = r.Module
		attrs["capability"], attrs["scope"], attrs["write"] = r.Capability, r.Scope, r.Write
	} else {
		return authz.UnknownResource
	}
	holdings := j.holdings()
	areas, code := j.areas(holdings)
	if code != "" {
		return code
	}
	for _, area := range areas {
		above := j.view.Closure(area)
		tags := map[string][]policies.Ref{}
		stands := false
		for _, h := range holdings {
			if !j.touches(h, area, above) {
				continue
			}
			stands = true
			for _, c := range h.capabilities {
				tags[c] = []policies.Ref{j.scope(area)}
			}
		}
		if !stands {
			continue
		}
		context, code := j.context(nil, nil, area.Owner())
		if code != "" {
			return code
		}
		principal, others, code := j.principalEntity(nil, nil)
		if code != "" {
			return code
		}
		principal.Tags = tags
		here := map[string]policies.Value{"entitled": j.entitled(area.Owner(), module, id)}
		for n, v := range attrs {
			here[n] = v
		}
		for n := range here { // only what the schema declares
			if j.resource.Attributes[n] == nil {
				delete(here, n)
			}
		}
		j.try(attempt{attemptHead{Area: area.String(), Counts: true}, &policies.Question{
			Principal: principal, Action: j.asked.Action, Context: context, Others: others,
			Resource: policies.Entity{Ref: policies.Ref{Type: j.resource.Entity, ID: id}, Attrs: here, Parents: []policies.Ref{j.scope(area)}},
		}}, area.Owner())
	}
	if len(j.attempts) == 0 {
		return authz.NoStanding
	}
	return ""
}

// holdings lists where the principal stands: by role, by link and by live grant.
func (j *judging) holdings() []holding {
	var out []holding
	named := j.asked.Grant != "" && j.asked.Grant != authz.NoGrant // then nothing but that grant counts
	for _, a := range j.assignments {
		if !named && !j.runsOut(a, a.Node.Owner()) {
			out = append(out, holding{[]hierarchy.ID{a.Node}, j.held(a.Role)})
		}
	}
	if j.cat.SelfRole != "" && len(j.persons) > 0 && !named {
		out = append(out, holding{j.view.Owned(j.persons...), j.view.Capabilities(j.cat.SelfRole)})
	}
	for _, g := range j.live {
		if !j.counts(&g, nil) {
			continue
		}
		h := holding{[]hierarchy.ID{g.Subject}, g.capabilities}
		if g.Subject.Type == hierarchy.PersonType {
			h.nodes = j.view.Owned(j.view.Merged(g.Subject)...)
		}
		if c := g.Scope.Coverage; !c.IsZero() {
			h.nodes = []hierarchy.ID{c}
		}
		out = append(out, h)
	}
	if j.cat.Emergency != nil && j.asked.Grant == "" {
		for _, e := range j.view.Emergencies(j.principal) {
			if e.Valid.Holds(j.now) {
				out = append(out, holding{[]hierarchy.ID{e.Node}, j.view.Capabilities(j.cat.Emergency.Role)})
			}
		}
	}
	return out
}

// touches reports whether something is held at, above or anywhere below an area.
func (j *judging) touches(h holding, area hierarchy.ID, above []hierarchy.ID) bool {
	for _, n := range h.nodes {
		if slices.Contains(above, n) || j.view.Reaches(n, area) {
			return true
		}
	}
	return false
}

// areas returns the areas to try: the named one, or each where the subject stands.
func (j *judging) areas(holdings []holding) ([]hierarchy.ID, authz.Code) {
	if j.asked.Area != "" {
		id, err := hierarchy.ParseID(j.asked.Area)
		if err != nil || !isArea(id) {
			return nil, authz.UnknownArea
		}
		if _, _, ok := j.view.Node(id); !ok {
			return nil, authz.UnknownArea
		}
		j.tenant = id.Owner()
		return []hierarchy.ID{id}, ""
	}
	var out []hierarchy.ID
	for _, h := range holdings {
		for _, n := range h.nodes {
			if t := n.Owner(); t != "" {
				out = append(out, hierarchy.TenantID(t))
				continue
			}
			for _, up := range j.view.Closure(n) {
				if isArea(up) {
					out = append(out, up)
				}
			}
		}
	}
	sortIDs(out)
	out = slices.DeleteFunc(slices.Compact(out), func(id hierarchy.ID) bool { return !exists(j.view, id) })
	if len(out) > MaxAreas {
		return nil, authz.AreaRequired
	}
	if len(out) == 1 {
		j.tenant = out[0].Owner()
	}
	return out, ""
}

func isArea(id hierarchy.ID) bool {
	switch id.Type {
	case hierarchy.TenantType, hierarchy.NetworkType, hierarchy.OperatorType:
		return true
	}
	return false
}
