package pdp

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

func (j *judging) resolveSubject() authz.Code {
	s := j.asked.Subject
	base := baseName(j.principalType.Entity)
	if s.Issuer != "" {
		id, _, ok := j.view.Principal(s.Issuer, s.ID)
		if !ok {
			return authz.SubjectUnlinked
		}
		j.principal = id
	} else {
		j.principal = hierarchy.ID{Type: base, Key: s.ID}
	}
	if j.principal.Valid() != nil || j.principal.Type != base {
		return authz.UnknownSubject
	}
	if n, _, ok := j.view.Node(j.principal); !ok || !n.Principal {
		return authz.UnknownSubject
	}
	j.persons = j.view.Persons(j.principal)
	j.assignments = j.view.Assignments(j.principal)
	if j.resource.Kind != policies.KindWard { // nobody administers Ward by delegation
		j.live = j.delegations()
	}
	return ""
}

// resolveNode resolves a resource that is a node of the graph, read at now. Its
// id is the node's own ("Coverage:acme/c1").
func (j *judging) resolveNode() (policies.Entity, authz.Code) {
	id, err := hierarchy.ParseID(j.asked.Resource.ID)
	if err != nil || id.Type != j.resource.Node {
		return policies.Entity{}, authz.UnknownResource
	}
	node, _, ok := j.view.Node(id)
	if !ok {
		return policies.Entity{}, authz.UnknownResource
	}
	j.read = j.now
	j.anchors = []hierarchy.ID{id}
	j.scopes = j.view.Closure(id)
	j.tenant = id.Owner()
	if id.Type == hierarchy.PersonType {
		j.owners = j.view.Merged(id)
	} else {
		j.owners = j.view.Owners(id)
	}
	return j.entity(j.asked.Resource.ID, node.Attrs)
}

// resolveSent resolves a record that lives in a module's own database: its
// anchors alone give it parents and a tenant.
func (j *judging) resolveSent() (policies.Entity, authz.Code) {
	rt, props := j.resource, j.asked.Resource.Props
	j.read = j.now
	none := policies.Entity{}
	if !slices.Contains(rt.Authority, j.asked.Caller) { // nobody else knows the record
		return none, j.faulty(authz.AnchorMissing, "the caller is no authority for this type: what it sent does not count")
	}
	for _, anchor := range rt.Anchors {
		if _, sent := props[anchor.Property]; !sent {
			return none, j.faulty(authz.AnchorMissing, fmt.Sprintf("the anchor %s was not sent (null says that there is none)", anchor.Property))
		}
	}
	if rt.Instant != "" {
		s, ok := props[rt.Instant].(string)
		if !ok {
			return none, j.faulty(authz.AttributeMissing, fmt.Sprintf("%s was not sent: a date or an RFC 3339 time", rt.Instant))
		}
		at, err := ParseTime(s, rt.Zone, false)
		if err != nil {
			return none, j.faulty(authz.AttributeInvalid, fmt.Sprintf("%s must be a date or an RFC 3339 time", rt.Instant))
		}
		j.read, j.service, j.dated = at, at, true
	}
	// What was true at the service date does not change as time passes: this
	// view bounds no validUntil.
	then := j.view
	if j.read != j.now {
		then = j.graph.At(j.read, j.rev, j.confers)
	}
	if len(rt.Anchors) == 0 {
		id, err := hierarchy.ParseID(rt.HangsFrom)
		if err != nil {
			return none, authz.AnchorMissing
		}
		if _, _, ok := j.view.Node(id); !ok {
			return none, authz.AnchorMissing
		}
		j.anchors = []hierarchy.ID{id}
		j.tenant = id.Owner()
	}
	var owner hierarchy.ID
	for _, anchor := range rt.Anchors {
		v := props[anchor.Property]
		if v == nil {
			continue // the authority says that there is none
		}
		s, _ := v.(string)
		id, err := hierarchy.ParseID(s)
		if err != nil || id.Type != anchor.Type {
			return none, j.faulty(authz.AnchorMissing, fmt.Sprintf("the anchor %s is no id of a %s: write %s:tenant/key or %s:key", anchor.Property, anchor.Type, anchor.Type, anchor.Type))
		}
		// It must be known. Whether it had ended by then decides what it hangs
		// from: its tenant, which is part of its key, in any case.
		if !then.Known(id) {
			return none, j.faulty(authz.AnchorMissing, fmt.Sprintf("the anchor %s names nothing that is known at this revision", anchor.Property))
		}
		if t := id.Owner(); t != "" {
			if j.tenant != "" && j.tenant != t {
				j.tenant = ""
				return none, j.faulty(authz.AnchorConflict, fmt.Sprintf("the anchor %s belongs to another tenant than those before it", anchor.Property))
			}
			j.tenant = t
		}
		if anchor.Property == rt.Owner {
			owner = id
		}
		j.anchors = append(j.anchors, id)
	}
	if len(j.anchors) == 0 {
		return none, j.faulty(authz.AnchorMissing, "every anchor is null: the record hangs from nothing")
	}
	if rt.Owner != "" && owner.IsZero() && !rt.OwnerOptional {
		return none, j.faulty(authz.AnchorMissing, fmt.Sprintf("the anchor %s is null, and says whose record it is", rt.Owner))
	}
	for i, a := range j.anchors {
		for _, b := range j.anchors[i+1:] {
			if !j.agree(then, a, b) {
				return none, j.faulty(authz.AnchorConflict, fmt.Sprintf("the %s and the %s do not lie under one another at that date", a.Type, b.Type))
			}
		}
	}
	up := then.Closure(j.anchors...)
	if j.tenant != "" && j.read != j.now {
		// The tenant belongs to its operator now, whenever it joined.
		up = append(up, j.view.Closure(hierarchy.TenantID(j.tenant))...)
		sortIDs(up)
		up = slices.Compact(up)
	}
	for _, id := range up {
		if id.Type != hierarchy.NetworkType { // a role over the network reaches no record
			j.scopes = append(j.scopes, id)
		}
	}
	if !owner.IsZero() {
		j.owners = j.view.Owners(owner)
	}
	return j.entity(j.asked.Resource.ID, nil)
}

// agree reports whether two anchors do not contradict each other: where one's
// type can be an ancestor of the other's, it is one at that instant.
func (j *judging) agree(then hierarchy.View, a, b hierarchy.ID) bool {
	above, below := j.cat.CanContain(a.Type, b.Type), j.cat.CanContain(b.Type, a.Type)
	switch {
	case above && below:
		return then.Reaches(a, b) || then.Reaches(b, a)
	case above:
		return then.Reaches(b, a)
	case below:
		return then.Reaches(a, b)
	}
	return true
}

// resolveObject resolves one of Ward's own objects, which hangs from the nodes
// that the PDP itself found it to concern, and from the operator, who runs all
// of it.
func (j *judging) resolveObject() (policies.Entity, authz.Code) {
	if len(j.asked.Hangs) == 0 {
		return policies.Entity{}, authz.UnknownResource
	}
	j.read = j.now
	j.anchors = j.asked.Hangs
	j.scopes = j.view.Closure(append([]hierarchy.ID{operator(j.view)}, j.asked.Hangs...)...)
	j.tenant = j.asked.Hangs[0].Owner()
	return j.entity(j.asked.Resource.ID, nil)
}

// entity builds the resource as policies read it.
func (j *judging) entity(id string, facts map[string]any) (policies.Entity, authz.Code) {
	rt := j.resource
	e := policies.Entity{Ref: policies.Ref{Type: rt.Entity, ID: id}, Attrs: map[string]policies.Value{}}
	for _, s := range j.scopes {
		e.Parents = append(e.Parents, j.scope(s))
	}
	for _, p := range j.owners {
		e.Parents = append(e.Parents, j.scope(p))
	}
	for name, attr := range rt.Attributes {
		if attr.From == policies.FromWard {
			e.Attrs[name] = j.derived(name)
		}
	}
	code := cmp.Or(j.fills(e.Attrs, rt.Attributes, policies.FromSent, j.asked.Resource.Props),
		j.fills(e.Attrs, rt.Attributes, policies.FromFact, facts))
	return e, code
}

// derived returns a resource attribute that only the PDP gives.
func (j *judging) derived(name string) policies.Value {
	switch name {
	case "owners":
		return j.refs(j.owners)
	case "blocked":
		var users []hierarchy.ID
		for _, p := range j.owners {
			for _, b := range j.view.Blocks(p) {
				// Who is blocked is blocked by any account they have.
				users = append(users, b.Principal)
				if persons := j.view.Persons(b.Principal); len(persons) > 0 {
					users = append(users, j.view.Principals(persons...)...)
				}
			}
		}
		sortIDs(users)
		return j.refs(slices.Compact(users))
	case "entitled":
		return j.entitled(j.tenant, j.resource.Module)
	}
	if j.grant != nil {
		return j.ofGrant(name)
	}
	return j.ofEmergency(name)
}

// entitled reports whether a tenant has one of the named modules or features.
// What belongs to no tenant, or to no module, needs no entitlement.
func (j *judging) entitled(tenant string, names ...string) bool {
	if tenant == "" || names[0] == "" {
		return true
	}
	for _, n := range names {
		if j.view.Entitled(hierarchy.TenantID(tenant), n) {
			return true
		}
	}
	return false
}
