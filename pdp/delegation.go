package pdp

import (
	"slices"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// This file resolves grants and emergencies as what a question is about: who
// may ask for one, sign it, end it.

// resolveGrant resolves a grant that is asked for, or one that is known. It
// hangs from the coverage that it is narrowed to, from the node that it is
// about, or else from the operator: who signs for one organisation cannot open
// what a person has at another.
func (j *judging) resolveGrant() (policies.Entity, authz.Code) {
	switch d := j.asked.Draft; {
	case d != nil && d.Grant != nil:
		j.grant = d.Grant
	case d == nil || d.Signature != nil:
		f, ok := j.view.Grant(j.asked.Resource.ID)
		if !ok || f.Voided {
			return policies.Entity{}, authz.UnknownResource
		}
		j.grant = &f.Grant
	default:
		return policies.Entity{}, authz.UnknownResource
	}
	j.read = j.now
	g := j.grant
	from := operator(j.view)
	if g.Subject.Type == hierarchy.PersonType {
		j.owners = j.view.Merged(g.Subject)
	} else {
		from = g.Subject
	}
	if !g.Scope.Coverage.IsZero() {
		from = g.Scope.Coverage
	}
	switch {
	case !j.view.Known(from) || !j.view.Known(g.Subject):
		return policies.Entity{}, authz.UnknownResource
	case j.strange(g):
		return policies.Entity{}, authz.NoStanding
	}
	j.hang(from)
	return j.entity(j.asked.Resource.ID, nil)
}

// resolveEmergency resolves an emergency that is to be opened, or one that is
// known. It hangs from its node.
func (j *judging) resolveEmergency() (policies.Entity, authz.Code) {
	switch d := j.asked.Draft; {
	case d != nil && d.Emergency != nil:
		j.emergency = &hierarchy.EmergencyFact{Emergency: *d.Emergency, Valid: d.Valid}
	case d == nil:
		f, ok := j.view.Emergency(j.asked.Resource.ID)
		if !ok {
			return policies.Entity{}, authz.UnknownResource
		}
		j.emergency = &f
	default:
		return policies.Entity{}, authz.UnknownResource
	}
	j.read = j.now
	j.owners = j.view.Merged(j.emergency.Person)
	// The node is the person's: else any record could be opened by naming one
	// person and another's node.
	if !overlap(j.owners, j.view.Owners(j.emergency.Node)) {
		return policies.Entity{}, authz.UnknownResource
	}
	j.hang(j.emergency.Node)
	return j.entity(j.asked.Resource.ID, nil)
}

// strange reports whether a grant about a person is asked for on what hangs from
// no record of theirs: whether there is such a node is not the asker's to know.
func (j *judging) strange(g *hierarchy.Grant) bool {
	c := g.Scope.Coverage
	return j.asked.Action == ActionRequestGrant && g.Subject.Type == hierarchy.PersonType && !c.IsZero() &&
		!slices.ContainsFunc(j.view.Owned(j.owners...), func(id hierarchy.ID) bool { return j.view.Reaches(id, c) })
}

func (j *judging) hang(from hierarchy.ID) {
	j.anchors = []hierarchy.ID{from}
	j.scopes = j.view.Closure(from)
	j.tenant = from.Owner()
}

// party reports whether the principal is a party to the grant or emergency in
// question, which gives it standing there. Nobody stands at a node by naming it
// in an emergency of their own.
func (j *judging) party() bool {
	if g := j.grant; g != nil {
		if j.asked.Action == ActionRequestGrant && !j.knows(g) {
			return false
		}
		if g.Grantee == j.principal || j.is(g.Grantor) || slices.ContainsFunc(g.Needs, func(n hierarchy.Need) bool { return j.is(n.By) }) {
			return true
		}
		return slices.Contains(j.organisations(), g.Grantee) || slices.Contains(j.organisations(), g.Grantor)
	}
	return j.emergency != nil && j.asked.Draft == nil && slices.Contains(j.human(j.emergency.Principal), j.principal)
}

// knows reports whether who asks for a grant about a person is family, or names a
// record of theirs. Who has no tie to a person does not stand by naming them: one
// id alone opens nothing, not even whether there is such a person. Nor does anybody
// stand at a node by naming it: who gives what an organisation holds has a role or
// a grant there.
func (j *judging) knows(g *hierarchy.Grant) bool {
	return g.Subject.Type == hierarchy.PersonType && (overlap(j.persons, j.owners) || overlap(j.family(), j.owners) ||
		slices.Contains(j.view.Owned(j.owners...), g.Scope.Coverage))
}

// is reports whether an id is the principal itself or the person it is.
func (j *judging) is(id hierarchy.ID) bool {
	return id == j.principal || slices.Contains(j.persons, id)
}

// human returns all principals of the human being behind one.
func (j *judging) human(principal hierarchy.ID) []hierarchy.ID {
	return accounts(j.view, principal)
}

// signs lists as what the principal can sign the grant in question: for itself,
// for an organisation where it holds a role, and as a verifier who is no party.
// Where the question is about one signature, it is that or nothing.
func (j *judging) signs() []hierarchy.Signer {
	g := j.grant
	one := hierarchy.Signer("")
	if d := j.asked.Draft; d != nil && d.Signature != nil {
		one = d.Signature.As
	}
	var out []hierarchy.Signer
	for _, n := range g.Needs {
		can := j.is(n.By) || slices.Contains(j.organisations(), n.By)
		if n.As == hierarchy.SignerVerifier {
			can = !j.is(g.Grantor) && !overlap(j.persons, j.owners) && !slices.Contains(j.human(j.principal), g.Grantee)
		}
		if can && (one == "" || one == n.As) {
			out = append(out, n.As)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ofGrant returns an attribute of the grant in question.
func (j *judging) ofGrant(name string) policies.Value {
	g := j.grant
	switch name {
	case "type":
		return g.Type
	case "personal":
		return g.Subject.Type == hierarchy.PersonType
	case "adult":
		at, ok := j.comesOfAge(g.Subject)
		return ok && at <= j.now
	case "grantors":
		if g.Grantor.Type == hierarchy.PersonType {
			return j.refs(j.view.Merged(g.Grantor))
		}
		return j.refs(j.view.Persons(g.Grantor))
	case "grantees":
		var users []hierarchy.ID
		for _, id := range j.human(g.Grantee) {
			if id.Type == userType {
				users = append(users, id)
			}
		}
		return j.refs(users)
	case "capabilities":
		return texts(g.Scope.Capabilities)
	case "covers":
		return j.sensitivities(g.Scope.Covers)
	case "signs":
		return texts(j.signs())
	}
	return nil
}

// userType is the node type of those that the attributes blocked, grantees and
// openers list.
const userType = "User"

// comesOfAge returns when a person comes of age, by any of its merged
// identities: the latest that is known, for who is an adult by one of two
// records alone is treated as none.
func (j *judging) comesOfAge(person hierarchy.ID) (at hierarchy.Instant, ok bool) {
	for _, id := range j.view.Merged(person) {
		n, _, known := j.view.Node(id)
		if !known || n.Person == nil || n.Person.Majority == nil {
			continue
		}
		if m := *n.Person.Majority; !ok || m > at {
			at, ok = m, true
		}
	}
	if ok && at > j.now {
		j.reading.Note(at)
	}
	return at, ok
}

// ofEmergency returns an attribute of the emergency in question.
func (j *judging) ofEmergency(name string) policies.Value {
	e := j.emergency
	if e == nil {
		return nil
	}
	switch name {
	case "reason":
		return e.Reason
	case "openers":
		return j.refs(j.human(e.Principal))
	case "unreviewed":
		for _, id := range j.human(e.Principal) {
			for _, other := range j.view.Emergencies(id) {
				if other.ID != e.ID && other.Review == nil && slices.Contains(j.owners, other.Person) {
					return true
				}
			}
		}
		return false
	}
	return nil
}

func texts[S ~string](list []S) []policies.Value {
	out := make([]policies.Value, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}
