package pdp

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// actionOf returns the built-in action that an event is.
func actionOf(e hierarchy.Event) string {
	switch e.Kind {
	case hierarchy.KindLink:
		return "link.change"
	case hierarchy.KindRole:
		return "role.define"
	case hierarchy.KindAssignment:
		return "role.assign"
	case hierarchy.KindEntitlement:
		return "module.change"
	case hierarchy.KindGrant, hierarchy.KindSignature, hierarchy.KindEmergency, hierarchy.KindReview:
		return "grant.change"
	case hierarchy.KindSetting:
		return "setting.change"
	case hierarchy.KindBlock:
		return "block.change"
	case hierarchy.KindActivation:
		if e.Activation.Tenant != "" {
			return "overlay.activate"
		}
		return "policy.activate"
	}
	return "hierarchy.change"
}

// place is one of Ward's own actions somewhere.
type place struct {
	action string
	at     hierarchy.ID
}

// questions returns what Ward's own policies are asked before a change: each
// action at each place it concerns, once, with the capabilities that somebody
// would gain there (see confer.go).
//
// Of an import's events those about nodes, edges and who owns what are asked as
// one, at its tenant; the others like those of any change. What makes an
// activation's roles the set's own belongs to the activation.
func (w world) questions(c Change, events []hierarchy.Event) []*asked {
	view := w.graph.At(w.now, w.rev, w.confers)
	places := map[place][]string{}
	ask := func(action string, at hierarchy.ID, gains ...string) {
		// What does not exist yet hangs from the tenant or operator above it.
		if !exists(view, at) {
			if at = hierarchy.TenantID(at.Owner()); at.Key == "" || !exists(view, at) {
				at = operator(view)
			}
		}
		k := place{action, at}
		places[k] = unique(append(places[k], gains...))
	}
	if c.Import != nil {
		at := operator(view)
		if c.Import.Tenant != "" {
			at = hierarchy.TenantID(c.Import.Tenant)
		}
		ask("hierarchy.import", at)
	}
	given := w.gifts(view, events)
	for _, e := range events {
		if c.activating != nil && ownRole(view, c.activating, e) {
			continue
		}
		action := actionOf(e)
		of := func(at hierarchy.ID) hierarchy.ID { return at }
		if c.Import != nil && imported(view, e) {
			if bare(e) {
				continue // who is nobody's: a feed may make them known
			}
			action = "hierarchy.import"
			of = func(at hierarchy.ID) hierarchy.ID {
				switch t := at.Owner(); {
				case t != "":
					return hierarchy.TenantID(t)
				case c.Import.Tenant == "": // shared data is the operator's to import
					return operator(view)
				}
				return at
			}
		}
		for _, at := range concerns(view, e) {
			ask(action, of(at))
		}
		for _, g := range given.of(e) {
			ask(cmp.Or(g.action, action), of(g.at), g.capabilities...)
		}
	}
	if c.activating != nil {
		ask("policy.activate", operator(view), w.activated(view, c.activating)...)
	}
	if len(places) == 0 { // an empty change
		ask("hierarchy.change", operator(view))
	}
	keys := slices.SortedFunc(maps.Keys(places), func(a, b place) int {
		return cmp.Or(strings.Compare(a.action, b.action), strings.Compare(a.at.String(), b.at.String()))
	})
	out := make([]*asked, len(keys))
	for i, k := range keys {
		out[i] = ownQuestion(c.Actor, c.Caller, k.action, k.at, places[k])
	}
	return out
}

// bare reports whether an event asserts no more than that a person exists.
func bare(e hierarchy.Event) bool {
	return e.Node != nil && e.Node.ID.Type == hierarchy.PersonType && e.Node.Person == nil && len(e.Node.Attrs) == 0
}

// imported reports whether an event is of the kinds that feeds consist of.
func imported(view hierarchy.View, e hierarchy.Event) bool {
	if e.Op != hierarchy.Assert {
		f, ok := view.Fact(e.Fact)
		if !ok {
			// It ends what the same import has asserted, which asked for it then.
			return e.Kind == hierarchy.KindNode || e.Kind == hierarchy.KindEdge || e.Kind == hierarchy.KindLink
		}
		e = f.Event
	}
	return e.Node != nil && !e.Node.Principal || e.Edge != nil || e.Link != nil && e.Link.Kind == hierarchy.LinkOwns
}

// ownRole reports whether an event only brings a role to what a set says of it.
func ownRole(view hierarchy.View, set *policies.Set, e hierarchy.Event) bool {
	if e.Kind != hierarchy.KindRole {
		return false
	}
	want := e.Role
	if e.Op != hierarchy.Assert {
		f, ok := view.Fact(e.Fact)
		if !ok {
			return false
		}
		want = f.Event.Role
	}
	return slices.ContainsFunc(set.Catalogue().Roles, func(r policies.Role) bool {
		own := roleEvent(r).Role
		return own.Name == want.Name && (e.Op != hierarchy.Assert || sameRole(*own, *want))
	})
}

// stillAdministered refuses a change after which nobody could activate a policy
// set, or destroy the keys of old records where somebody could, and so nobody
// could ever undo it.
func stillAdministered(w world, events []hierarchy.Event) *hierarchy.Refusal {
	if r := stillHeld(w, events, "policy.activate", "last_admin", "nobody could administer ward any more: name another security-admin first"); r != nil {
		return r
	}
	return stillHeld(w, events, "audit.shred", "last_officer", "nobody could ever shred any more, or let somebody: name another records-officer first")
}

// stillHeld refuses a change that takes a capability at the operator from the
// last admin who holds it for good.
func stillHeld(w world, events []hierarchy.Event, capability, code, text string) *hierarchy.Refusal {
	view := w.graph.At(w.now, w.rev, w.confers)
	op := operator(view)
	gone := map[hierarchy.FactID]int{} // of what an admin's rights can rest on
	for i, e := range events {
		if e.Op == hierarchy.Assert {
			continue
		}
		f, ok := view.Fact(e.Fact)
		if !ok {
			continue
		}
		switch f := f.Event; {
		case f.Node != nil && (f.Node.Principal || f.Node.ID == op), f.Link != nil && f.Link.Kind == hierarchy.LinkIdentity,
			f.Assignment != nil && f.Assignment.Node == op, f.Role != nil:
			gone[e.Fact] = i
		}
	}
	if len(gone) == 0 {
		return nil
	}
	refuse := func(i int) *hierarchy.Refusal {
		return &hierarchy.Refusal{Code: code, Index: i, Row: events[i].Row, Text: text}
	}
	if _, f, ok := view.Node(op); ok {
		if i, ends := gone[f]; ends {
			return refuse(i)
		}
	}
	touched := -1                       // an event that takes an admin's rights away
	remains := func(role string) bool { // its capability, when the voided roles are gone
		_, f, ok := view.Role(role)
		if i, ends := gone[f]; ok && ends {
			if touched < 0 {
				touched = i
			}
			return slices.ContainsFunc(events, func(e hierarchy.Event) bool {
				return e.Op == hierarchy.Assert && e.Role != nil && e.Role.Name == role && slices.Contains(e.Role.Capabilities, capability)
			})
		}
		return slices.Contains(view.Capabilities(role), capability)
	}
	identified := func(principal hierarchy.ID) bool { // by a link that stays
		left := false
		for _, l := range view.Identities(principal) {
			if i, ends := gone[l.Fact]; ends {
				touched = i
			} else {
				left = true
			}
		}
		return left
	}
	admins := 0
	for _, a := range view.AssignmentsAt(op) {
		if a.Principal.Type != "Admin" || !remains(a.Role) {
			continue
		}
		_, node, _ := view.Node(a.Principal)
		i, ends := gone[a.Fact]
		if !ends {
			i, ends = gone[node]
		}
		switch identified := identified(a.Principal); {
		case ends:
			touched = i
		case a.Valid.To == hierarchy.Forever && identified:
			admins++
		}
	}
	if touched >= 0 && admins == 0 {
		return refuse(touched)
	}
	return nil
}

// ownQuestion is a question about one of Ward's own objects.
func ownQuestion(actor authz.Subject, caller authz.Caller, action string, at hierarchy.ID, gains []string) *asked {
	return &asked{Caller: caller.Name, Verified: actor.IsVerified(),
		Subject: askedSubject{Type: actor.Type, ID: actor.ID, Issuer: actor.Issuer, Assurance: actor.Assurance},
		Action:  action, Resource: askedResource{Type: ObjectType, ID: action}, Hangs: []hierarchy.ID{at}, Confers: gains}
}

func exists(v hierarchy.View, id hierarchy.ID) bool { _, _, ok := v.Node(id); return ok }

// operator returns the operator's node: the one that `ward init` wrote.
func operator(v hierarchy.View) hierarchy.ID {
	for f := range v.Facts(hierarchy.KindNode) {
		if n := f.Event.Node; n != nil && n.ID.Type == hierarchy.OperatorType {
			return n.ID
		}
	}
	return hierarchy.ID{Type: hierarchy.OperatorType, Key: "none"}
}

// concerns returns the nodes that an event concerns, for which its author
// needs the right.
func concerns(view hierarchy.View, e hierarchy.Event) []hierarchy.ID {
	if e.Op != hierarchy.Assert {
		f, ok := view.Fact(e.Fact)
		if !ok {
			return []hierarchy.ID{operator(view)}
		}
		e = f.Event
	}
	switch {
	case e.Node != nil && !e.Node.Principal && e.Node.ID.Type != hierarchy.PersonType:
		return []hierarchy.ID{e.Node.ID}
	case e.Edge != nil:
		return []hierarchy.ID{e.Edge.Child, e.Edge.Parent}
	case e.Link != nil && e.Link.Kind == hierarchy.LinkOwns:
		return []hierarchy.ID{e.Link.To}
	case e.Role != nil:
		if tenant, _, ok := strings.Cut(e.Role.Name, "/"); ok {
			return []hierarchy.ID{hierarchy.TenantID(tenant)}
		}
	case e.Assignment != nil:
		return []hierarchy.ID{e.Assignment.Node}
	case e.Entitlement != nil:
		return []hierarchy.ID{e.Entitlement.Tenant}
	case e.Setting != nil:
		return []hierarchy.ID{e.Setting.Tenant}
	case e.Signature != nil:
		if g, ok := view.Grant(e.Signature.Grant); ok && g.Subject.Type != hierarchy.PersonType {
			return []hierarchy.ID{g.Subject}
		}
	case e.Grant != nil && e.Grant.Subject.Type != hierarchy.PersonType:
		return []hierarchy.ID{e.Grant.Subject}
	case e.Activation != nil && e.Activation.Tenant != "":
		return []hierarchy.ID{hierarchy.TenantID(e.Activation.Tenant)}
	}
	// Principals, persons, their links and grants, and policies are the
	// operator's to change.
	return []hierarchy.ID{operator(view)}
}
