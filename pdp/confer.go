package pdp

import (
	"slices"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/policies"
)

// This file works out what a change confers. What somebody could confer, and
// what each event does, stands in the package documentation.

// gift is what somebody gains at a node, and by which action ("" is that of the
// event) it is given.
type gift struct {
	action       string
	at           hierarchy.ID
	capabilities []string
}

// gifts works out what the events of one change give. It looks at facts that
// hold now or later, whether or not all that they rest on does.
type gifts struct {
	world
	view   hierarchy.View // now
	events []hierarchy.Event
	roles  map[string][]string
	nodes  map[hierarchy.ID][]string
}

func (w world) gifts(view hierarchy.View, events []hierarchy.Event) *gifts {
	return &gifts{world: w, view: view, events: events, roles: map[string][]string{}, nodes: map[hierarchy.ID][]string{}}
}

// of returns what one event gives.
func (g *gifts) of(e hierarchy.Event) []gift {
	if e.Op != hierarchy.Assert {
		return g.lifted(e)
	}
	from := hierarchy.Interval{From: max(e.Valid.From, g.now), To: e.Valid.To} // of the event, from now on
	switch {
	case e.Role != nil:
		return gave(concerns(g.view, e)[0], slices.Concat(e.Role.Capabilities, g.held(e.Role.Includes)))
	case e.Assignment != nil:
		return g.assigned(e.Assignment)
	case e.Edge != nil:
		return g.edge(e.Edge, e.Valid)
	case e.Node != nil && e.Node.Principal:
		if g.missing(e.Node.ID, from) {
			return g.principal(e.Node.ID)
		}
	case e.Node != nil && e.Node.ID.Type != hierarchy.PersonType:
		return g.node(e.Node.ID, e.Valid)
	case e.Link != nil && e.Link.Kind == hierarchy.LinkIdentity:
		return g.principal(e.Link.To)
	case e.Link != nil && e.Link.Kind == hierarchy.LinkOwns:
		return g.owned(e.Link, from)
	case e.Signature != nil:
		if x, ok := g.view.Grant(e.Signature.Grant); ok {
			return gave(concerns(g.view, e)[0], x.Scope.Capabilities)
		}
	case e.Grant != nil:
		return gave(concerns(g.view, e)[0], e.Grant.Scope.Capabilities)
	}
	return nil
}

// conferring lists the actions by which access can be conferred.
var conferring = []string{"hierarchy.change", "hierarchy.import", "role.define", "role.assign", "link.change", "grant.change", "block.change"}

// assigned returns what an assignment gives: what the role holds, and, where that
// lets its holder confer, what of Ward's own they hold around that node already,
// for they could pass it on from then on. Who confers for the operator or the
// network is given the right to confer elsewhere by their like alone: they could
// confer anything there.
func (g *gifts) assigned(a *hierarchy.Assignment) []gift {
	confers := func(capabilities []string) bool {
		return slices.ContainsFunc(capabilities, func(c string) bool { return slices.Contains(conferring, c) })
	}
	out := slices.Clone(g.role(a.Role))
	if !confers(out) {
		return gave(a.Node, out)
	}
	cat := g.set.Catalogue()
	var wide []gift
	for _, other := range g.view.AssignmentsAheadOf(a.Principal) {
		held := g.role(other.Role)
		if t := other.Node.Type; (t == hierarchy.OperatorType || t == hierarchy.NetworkType) && other.Node != a.Node && confers(held) {
			wide = append(wide, gift{at: other.Node})
		}
		if !g.view.Reaches(a.Node, other.Node) && !g.view.Reaches(other.Node, a.Node) {
			continue
		}
		for _, c := range held {
			if cat.Own(c) {
				out = append(out, c)
			}
		}
	}
	return append(wide, gave(a.Node, unique(out))...)
}

func gave(at hierarchy.ID, capabilities []string) []gift {
	if len(capabilities) == 0 {
		return nil
	}
	return []gift{{at: at, capabilities: capabilities}}
}

// over looks at the facts at every instant of an interval at which what is
// looked at changes.
func (w world) over(valid hierarchy.Interval, look func(hierarchy.View)) {
	for at := valid.From; at < valid.To; {
		r := hierarchy.NewReading()
		look(w.graph.At(at, w.rev, w.confers).Reading(r))
		at = r.Until()
	}
}

// role returns what a role holds, now or later, or by the events themselves.
func (g *gifts) role(name string) []string {
	if out, ok := g.roles[name]; ok {
		return out
	}
	g.roles[name] = nil // what includes itself is refused elsewhere
	var out []string
	g.over(hierarchy.Interval{From: g.now, To: hierarchy.Forever}, func(v hierarchy.View) { out = append(out, v.Capabilities(name)...) })
	for _, e := range g.events {
		if e.Op == hierarchy.Assert && e.Role != nil && e.Role.Name == name {
			out = slices.Concat(out, e.Role.Capabilities, g.held(e.Role.Includes))
		}
	}
	g.roles[name] = unique(out)
	return g.roles[name]
}

func (g *gifts) held(roles []string) []string {
	var out []string
	for _, r := range roles {
		out = append(out, g.role(r)...)
	}
	return out
}

// at returns what is held at a node itself, by roles and by grants about it.
func (g *gifts) at(id hierarchy.ID) []string {
	if out, ok := g.nodes[id]; ok {
		return out
	}
	var out []string
	for _, a := range g.view.AssignmentsAhead(id) {
		out = append(out, g.role(a.Role)...)
	}
	for _, x := range g.view.GrantsAhead(id) {
		out = append(out, x.Scope.Capabilities...)
	}
	g.nodes[id] = unique(out)
	return g.nodes[id]
}

// edge gives at the child what is held at or above the parent and was not above
// the child. A record is read as of its own date, so that an edge of the past
// gives too.
func (g *gifts) edge(e *hierarchy.Edge, valid hierarchy.Interval) []gift {
	if kind := g.set.Catalogue().Edges[e.Kind]; kind == nil || !kind.Confers {
		return nil
	}
	var out []string
	var wide []gift
	g.over(valid, func(v hierarchy.View) {
		before := v.Closure(e.Child)
		for _, up := range v.Closure(e.Parent) {
			if slices.Contains(before, up) {
				continue
			}
			out = append(out, g.at(up)...)
			if up.Type == hierarchy.NetworkType { // who confers there could confer anything at the child
				wide = append(wide, gift{at: operator(g.view)})
			}
		}
	})
	return append(wide, gave(e.Child, unique(out))...)
}

// missing reports whether a node does not exist at some instant.
func (g *gifts) missing(id hierarchy.ID, valid hierarchy.Interval) bool {
	missing := false
	g.over(valid, func(v hierarchy.View) { missing = missing || !exists(v, id) })
	return missing
}

// node gives, where it did not exist, what is held at or above it: roles at it
// count again, and so do edges to it from what is below. What its tenant's key
// says does not depend on it. All that is below lies under its tenant or the
// operator, where it is asked.
func (g *gifts) node(id hierarchy.ID, valid hierarchy.Interval) []gift {
	out := slices.Clone(g.at(id))
	seen := false
	g.over(valid, func(v hierarchy.View) {
		if exists(v, id) {
			return
		}
		seen = true
		var before []hierarchy.ID
		if id.Tenant != "" {
			before = v.Closure(hierarchy.TenantID(id.Tenant))
		}
		for _, up := range v.Closure(id) {
			if !slices.Contains(before, up) {
				out = append(out, g.at(up)...)
			}
		}
	})
	if !seen {
		return nil
	}
	top := operator(g.view)
	if t := id.Owner(); t != "" {
		top = hierarchy.TenantID(t)
	}
	return gave(top, unique(out))
}

// principal gives, to who is or becomes a principal, what it holds of Ward's
// own. Principals and identities are the operator's to change, where all of the
// pack's may be conferred.
func (g *gifts) principal(id hierarchy.ID) []gift {
	cat := g.set.Catalogue()
	var out []gift
	for _, a := range g.view.AssignmentsAheadOf(id) {
		own := slices.DeleteFunc(slices.Clone(g.role(a.Role)), func(c string) bool { return !cat.Own(c) })
		out = append(out, gave(a.Node, own)...)
	}
	return out
}

// owned gives the owner of a node the self role there, and who acts for the
// owner what their grants say.
func (g *gifts) owned(l *hierarchy.Link, from hierarchy.Interval) []gift {
	var out []string
	if self := g.set.Catalogue().SelfRole; self != "" && from.From < from.To {
		out = append(out, g.role(self)...)
	}
	g.over(from, func(v hierarchy.View) {
		for _, p := range v.Merged(l.From) {
			for _, x := range v.GrantsAhead(p) {
				out = append(out, x.Scope.Capabilities...)
			}
		}
	})
	return gave(l.To, unique(out))
}

// lifted asks for the right to change blocks where the end of a link takes a
// node from under one: an owner's blocks stand on what they own.
func (g *gifts) lifted(e hierarchy.Event) []gift {
	f, ok := g.view.Fact(e.Fact)
	if !ok || f.Event.Link == nil || f.Event.Link.Kind != hierarchy.LinkOwns {
		return nil
	}
	l, lost := f.Event.Link, hierarchy.Interval{From: g.now, To: f.Valid.To}
	if e.Op == hierarchy.End {
		lost.From = max(lost.From, e.At)
	}
	again := slices.ContainsFunc(g.events, func(o hierarchy.Event) bool {
		return o.Op == hierarchy.Assert && o.Link != nil && *o.Link == *l && o.Valid.From <= lost.From && o.Valid.To >= lost.To
	})
	blocked := false
	g.over(lost, func(v hierarchy.View) { blocked = blocked || len(v.Blocks(l.From)) > 0 })
	if again || !blocked {
		return nil
	}
	return []gift{{action: "block.change", at: operator(g.view)}}
}

// activated returns what of Ward's own a set would give once in force: by the
// roles that its pack ships, and, where it makes more edges confer, whatever is
// held anywhere. The roles that Ward ships are Ward's to define.
func (w world) activated(view hierarchy.View, set *policies.Set) []string {
	cat, now := set.Catalogue(), w.set.Catalogue()
	var out []string
	for name, kind := range cat.Edges {
		if old := now.Edges[name]; kind.Confers && (old == nil || !old.Confers) {
			out = append(out, view.Capabilities("security-admin")...)
		}
	}
	held := map[string][]string{} // each role comes after those it includes
	for _, r := range cat.Roles {
		held[r.Name] = slices.Clone(r.Capabilities)
		for _, in := range r.Includes {
			held[r.Name] = append(held[r.Name], held[in]...)
		}
		if old, _, ok := view.Role(r.Name); !r.Own && !(ok && sameRole(old, *roleEvent(r).Role)) {
			out = append(out, held[r.Name]...)
		}
	}
	return unique(slices.DeleteFunc(out, func(c string) bool { return !now.Own(c) }))
}
