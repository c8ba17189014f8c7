package pdp

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// This file is the dry run of an import: the same batches over a copy of the
// facts, and what access differs between the views before and after.

// AccessChange is what an import would change of access, at one instant, as the
// decision point reads the facts: who holds a capability at a place that records
// hang from, by a role, by a grant, or as the person whose records they are.
// Policies and settings may forbid more, open emergencies are left out, and a
// grant that is limited to a purpose or to service dates is counted as if it
// were not.
type AccessChange struct {
	At string `json:"at"`
	// Records counts the records (coverages, patients' records) of which anybody
	// gains or loses anything.
	Records int `json:"records"`
	// Lines are sorted by principal, way and place.
	Lines []AccessLine `json:"lines"`
	// Entitlements that a tenant gains or loses.
	Entitlements []EntitlementLine `json:"entitlements"`
}

// AccessLine says that a principal gains or loses capabilities on records, and
// by what: what it holds there in another way as well is left out.
type AccessLine struct {
	Principal string `json:"principal"`
	// By is "role NAME", "grant ID" or "self".
	By string `json:"by"`
	// Node is where the role is held or what node the grant is about; empty where
	// that is a person.
	Node         string   `json:"node,omitempty"`
	Capabilities []string `json:"capabilities"`
	Gains        int      `json:"gains"` // of records
	Loses        int      `json:"loses"`
}

// EntitlementLine is a module or feature that a tenant gains or loses.
type EntitlementLine struct {
	Tenant string `json:"tenant"`
	Name   string `json:"name"`
	Gains  bool   `json:"gains"`
}

// trial is a copy of the facts that takes the batches of a dry run.
type trial struct {
	graph  *hierarchy.Graph
	who    hierarchy.ID
	before hierarchy.Head
}

// newTrial copies the facts. An import of the same tenant that is open there is
// dropped from the copy.
func newTrial(ctx context.Context, p *PDP, f *Feed, who hierarchy.ID) (*trial, error) {
	g, err := hierarchy.Load(ctx, p.store)
	if err != nil {
		return nil, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the facts could not be read for a dry run", Err: err}
	}
	t := &trial{graph: g, who: who}
	for _, m := range g.Imports() {
		if m.Tenant == f.Tenant || m.History || f.History {
			m.Step = hierarchy.ImportAbandon
			if err := t.apply(&hierarchy.Batch{Time: g.LastTime(), Import: &m}); err != nil {
				return nil, err
			}
		}
	}
	t.before = g.Head()
	return t, nil
}

// change makes a change of the import in the copy, as [PDP.Change] does.
func (t *trial) change(w world, c Change) ([]hierarchy.FactID, error) {
	events, err := complete(w, c.Events)
	if err != nil {
		return nil, err
	}
	b := &hierarchy.Batch{Time: max(w.now, t.graph.LastTime()), Import: c.Import, Events: events}
	if c.Import.History && c.At != 0 {
		b.Time = c.At
	}
	if err := t.apply(b); err != nil {
		return nil, err
	}
	return factIDs(b.Revision, events), nil
}

func (t *trial) apply(b *hierarchy.Batch) error {
	tip := t.graph.Tip()
	b.Revision, b.Prev, b.Provenance.Who = tip.Revision+1, tip.Hash, t.who
	if err := t.graph.Check(b); err != nil {
		return err
	}
	body, err := hierarchy.Encode(b)
	if err != nil {
		return err
	}
	return t.graph.Apply(hierarchy.Entry{Revision: b.Revision, Body: body})
}

// way is a way in which a principal holds capabilities.
type way struct {
	principal hierarchy.ID
	by        string
	node      hierarchy.ID // where; zero for what is about a person
	coverage  hierarchy.ID // of a grant: only what hangs from it
	can       []string
}

// ways is who holds what, by the node or person that it is held at.
type ways struct {
	view hierarchy.View
	cat  *policies.Catalogue
	at   map[hierarchy.ID][]way
	self []string // what one can on one's own records
}

func waysOf(v hierarchy.View, cat *policies.Catalogue) *ways {
	h := &ways{view: v, cat: cat, at: map[hierarchy.ID][]way{}}
	// Ward's own capabilities are about no record.
	records := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(c string) bool {
			act := cat.Actions[c]
			return act != nil && slices.Contains(act.Resources, ObjectType)
		})
	}
	if cat.SelfRole != "" {
		h.self = records(v.Capabilities(cat.SelfRole))
	}
	roles := map[string][]string{}
	for f := range v.Facts(hierarchy.KindAssignment) {
		a := f.Event.Assignment
		if !f.Valid.Holds(v.Instant()) || !slices.ContainsFunc(v.Assignments(a.Principal), func(x hierarchy.AssignmentFact) bool { return x.Fact == f.ID }) {
			continue
		}
		can, ok := roles[a.Role]
		if !ok {
			can = records(v.Capabilities(a.Role))
			roles[a.Role] = can
		}
		h.at[a.Node] = append(h.at[a.Node], way{principal: a.Principal, by: "role " + a.Role, node: a.Node, can: can})
	}
	for f := range v.Facts(hierarchy.KindGrant) {
		g, ok := v.Grant(f.Event.Grant.ID)
		if !ok || !g.Effective.Holds(v.Instant()) {
			continue
		}
		x := way{principal: g.Grantee, by: "grant " + g.ID, coverage: g.Scope.Coverage, can: records(g.Scope.Capabilities)}
		if g.Subject.Type != hierarchy.PersonType {
			x.node = g.Subject
		}
		if isPrincipal(cat, g.Grantee) {
			h.at[g.Subject] = append(h.at[g.Subject], x)
			continue
		}
		// Of a grant to an organisation its people have what their roles there
		// hold too.
		people := map[hierarchy.ID][]string{}
		for _, role := range h.at[g.Grantee] {
			if strings.HasPrefix(role.by, "role ") {
				people[role.principal] = append(people[role.principal], role.can...)
			}
		}
		for _, id := range slices.SortedFunc(maps.Keys(people), func(a, b hierarchy.ID) int { return strings.Compare(a.String(), b.String()) }) {
			theirs := x
			theirs.principal, theirs.can = id, nil
			for _, c := range x.can {
				if slices.Contains(people[id], c) {
					theirs.can = append(theirs.can, c)
				}
			}
			h.at[g.Subject] = append(h.at[g.Subject], theirs)
		}
	}
	return h
}

// of returns what is held on a record that lies in scopes and is of owners.
func (h *ways) of(scopes, owners []hierarchy.ID) (list []way) {
	for _, places := range [][]hierarchy.ID{scopes, owners} {
		for _, id := range places {
			for _, x := range h.at[id] {
				if x.coverage.IsZero() || slices.Contains(scopes, x.coverage) {
					list = append(list, x)
				}
			}
		}
	}
	if len(h.self) > 0 && len(owners) > 0 {
		for _, id := range h.view.Principals(owners...) {
			list = append(list, way{principal: id, by: "self", can: h.self})
		}
	}
	return list
}

// scopes returns what a record hangs from and whose it is; nothing where it is
// not known, which no anchor resolves to.
func (h *ways) scopes(id hierarchy.ID) (scopes, owners []hierarchy.ID) {
	if !h.view.Known(id) {
		return nil, nil
	}
	for _, s := range h.view.Closure(id) {
		if s.Type != hierarchy.NetworkType {
			scopes = append(scopes, s)
		}
	}
	return scopes, h.view.Owners(id)
}

// access compares the copy before and after the import.
func (t *trial) access(w world, at hierarchy.Instant) *AccessChange {
	cat := w.set.Catalogue()
	conferring := confers(t.graph, w.set)
	before := waysOf(t.graph.At(at, t.before.Revision, conferring), cat)
	after := waysOf(t.graph.At(at, t.graph.Head().Revision, conferring), cat)
	out := &AccessChange{At: at.String(), Lines: []AccessLine{}, Entitlements: []EntitlementLine{}}
	lines := map[string]*AccessLine{}
	// note counts what is held on one side and not, in any way, on the other.
	note := func(here, there []way, count func(*AccessLine)) bool {
		any := false
		for _, x := range here {
			var can []string
			for _, c := range x.can {
				if !slices.ContainsFunc(there, func(o way) bool { return o.principal == x.principal && slices.Contains(o.can, c) }) {
					can = append(can, c)
				}
			}
			if len(can) == 0 {
				continue
			}
			any = true
			line := AccessLine{Principal: x.principal.String(), By: x.by, Capabilities: can}
			if !x.node.IsZero() {
				line.Node = x.node.String()
			}
			key := strings.Join(append([]string{line.Principal, x.by, line.Node}, can...), "\x00")
			if lines[key] == nil {
				lines[key] = &line
			}
			count(lines[key])
		}
		return any
	}
	changed := map[hierarchy.ID]bool{} // places at which something else is held
	for _, side := range [][2]*ways{{before, after}, {after, before}} {
		for id, list := range side[0].at {
			if !reflect.DeepEqual(list, side[1].at[id]) {
				changed[id] = true
			}
		}
	}
	types, seen := recordTypes(cat), map[hierarchy.ID]bool{}
	for f := range after.view.Facts(hierarchy.KindNode) {
		id := f.Event.Node.ID
		if !types[id.Type] || seen[id] {
			continue
		}
		seen[id] = true
		inWas, ofWas := before.scopes(id)
		inIs, ofIs := after.scopes(id)
		differs := func(p hierarchy.ID) bool { return changed[p] }
		if slices.Equal(inWas, inIs) && slices.Equal(ofWas, ofIs) && !slices.ContainsFunc(inIs, differs) && !slices.ContainsFunc(ofIs, differs) &&
			slices.Equal(before.view.Principals(ofIs...), after.view.Principals(ofIs...)) {
			continue
		}
		was, is := before.of(inWas, ofWas), after.of(inIs, ofIs)
		gains := note(is, was, func(l *AccessLine) { l.Gains++ })
		loses := note(was, is, func(l *AccessLine) { l.Loses++ })
		if gains || loses {
			out.Records++
		}
	}
	for f := range before.view.Facts(hierarchy.KindNode) { // voided by the import
		if id := f.Event.Node.ID; types[id.Type] && !seen[id] {
			seen[id] = true
			if note(before.of(before.scopes(id)), nil, func(l *AccessLine) { l.Loses++ }) {
				out.Records++
			}
		}
	}
	for _, l := range lines {
		out.Lines = append(out.Lines, *l)
	}
	slices.SortFunc(out.Lines, func(a, b AccessLine) int {
		return slices.Compare(append([]string{a.Principal, a.By, a.Node}, a.Capabilities...), append([]string{b.Principal, b.By, b.Node}, b.Capabilities...))
	})
	entitled := func(here, there hierarchy.View, gains bool) {
		for f := range here.Facts(hierarchy.KindEntitlement) {
			x := f.Event.Entitlement
			line := EntitlementLine{x.Tenant.String(), x.Name, gains}
			if f.Valid.Holds(at) && !there.Entitled(x.Tenant, x.Name) && !slices.Contains(out.Entitlements, line) {
				out.Entitlements = append(out.Entitlements, line)
			}
		}
	}
	entitled(after.view, before.view, true)
	entitled(before.view, after.view, false)
	return out
}
