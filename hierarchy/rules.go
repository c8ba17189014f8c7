package hierarchy

import (
	"slices"
	"strings"
)

// The rules of Check, kind by kind.

// check says why an asserted fact cannot be, or nil.
func (w *world) check(i int, e *Event) *Refusal {
	no := func(code, format string, args ...any) *Refusal { return refuse(i, e, code, format, args...) }
	switch e.Kind {
	case KindNode:
		return w.checkNode(e.Node, e.Valid, no)
	case KindEdge:
		return w.checkEdge(e.Edge, e.Valid, no)
	case KindLink:
		return w.checkLink(e.Link, e.Valid, no)
	case KindRole:
		return w.checkRole(e.Role, e.Valid, no)
	case KindAssignment:
		return w.checkAssignment(e.Assignment, e.Valid, no)
	case KindEntitlement:
		return w.checkEntitlement(e.Entitlement, e.Valid, no)
	case KindGrant:
		return w.checkGrant(e.Grant, e.Valid, no)
	case KindBlock:
		return w.checkBlock(e.Block, e.Valid, no)
	case KindSetting:
		return w.checkSetting(e.Setting, e.Valid, no)
	case KindEmergency:
		return w.checkEmergency(e.Emergency, e.Valid, no)
	case KindSignature:
		return w.checkSignature(e.Signature, e.Valid, no)
	case KindReview:
		return w.checkReview(e.Review, e.Valid, no)
	case KindActivation:
		return w.checkActivation(e.Activation, no)
	}
	return nil
}

// checkActivation lets an overlay be taken even from a tenant that is voided.
func (w *world) checkActivation(a *Activation, no refuser) *Refusal {
	if a.Tenant != "" && a.Digest != "" && !w.existed(TenantID(a.Tenant), Always) {
		return no(CodeUnknownTenant, "%s does not exist", TenantID(a.Tenant))
	}
	return nil
}

type refuser func(code, format string, args ...any) *Refusal

// name names a node in a refusal, but no person, no principal, and nothing that
// a person owns.
func (w *world) name(id ID) string {
	n := w.sym(id)
	switch {
	case id.Type == PersonType:
		return "a person"
	case w.isPrincipal(n):
		return "a principal"
	}
	for range conflicting(w, &w.links, byTo, n) {
		return "a node of type " + id.Type + " that a person owns"
	}
	if id.Owner() == "" && id.Type != OperatorType && id.Type != NetworkType {
		known := false
		for range conflicting(w, &w.nodes, byID, n) {
			known = true
		}
		if !known {
			return "a node of type " + id.Type // perhaps a principal
		}
	}
	return id.String()
}

// isPrincipal reports whether a node of this id is, or may become, a principal.
func (w *world) isPrincipal(n sym) bool {
	for _, r := range conflicting(w, &w.nodes, byID, n) {
		return r.fact.principal
	}
	return false
}

// covers reports whether intervals together hold at every instant of valid.
func covers(have []Interval, valid Interval) bool {
	slices.SortFunc(have, func(a, b Interval) int {
		switch {
		case a.From < b.From:
			return -1
		case a.From > b.From:
			return 1
		}
		return 0
	})
	for _, v := range have {
		if v.From > valid.From {
			return false
		}
		if v.To >= valid.To {
			return true
		}
		valid.From = max(valid.From, v.To)
	}
	return false
}

// exists reports whether a node exists at every instant of valid.
func (w *world) exists(id ID, valid Interval) bool {
	var have []Interval
	for v := range certain(w, &w.nodes, byID, w.sym(id)) {
		have = append(have, v)
	}
	return covers(have, valid)
}

// existed reports whether a node exists at some instant of valid.
func (w *world) existed(id ID, valid Interval) bool {
	for v := range certain(w, &w.nodes, byID, w.sym(id)) {
		if v.Overlaps(valid) {
			return true
		}
	}
	return false
}

// ends refuses unless every node exists at every instant of valid.
func (w *world) ends(valid Interval, no refuser, list ...ID) *Refusal {
	for _, id := range list {
		if !w.exists(id, valid) {
			return no(CodeUnknownEnd, "%s does not exist in all of the valid time", w.name(id))
		}
	}
	return nil
}

func overlaps[T any](rows func(func(Interval, *row[T]) bool), valid Interval, same func(*T) bool) bool {
	for v, r := range rows {
		if v.Overlaps(valid) && same(&r.fact) {
			return true
		}
	}
	return false
}

func (w *world) checkNode(n *Node, valid Interval, no refuser) *Refusal {
	id := w.sym(n.ID)
	if n.ID.Tenant != "" && !w.exists(TenantID(n.ID.Tenant), valid) {
		return no(CodeUnknownTenant, "%s does not exist in all of the valid time", TenantID(n.ID.Tenant))
	}
	if overlaps(conflicting(w, &w.nodes, byID, id), valid, func(*nodeRow) bool { return true }) {
		return no(CodeNodeExists, "%s exists in a part of the valid time already", w.name(n.ID))
	}
	// Ids are never reused, so what was a principal stays one, even when voided.
	for _, r := range w.g.nodes.each(byID, id) {
		if r.added.Load() != deadMark && r.fact.principal != n.Principal {
			return no(CodeEventInvalid, "what is a principal never is anything else")
		}
	}
	for _, k := range w.nodes.by[byID][id] {
		if w.nodes.rows[k].fact.principal != n.Principal {
			return no(CodeEventInvalid, "what is a principal never is anything else")
		}
	}
	return nil
}

func (w *world) checkEdge(e *Edge, valid Interval, no refuser) *Refusal {
	if r := w.edgeTenancy(e, no); r != nil {
		return r
	}
	if r := w.ends(valid, no, e.Child, e.Parent); r != nil {
		return r
	}
	child, parent, kind := w.sym(e.Child), w.sym(e.Parent), w.kindNumber(e.Kind)
	if overlaps(conflicting(w, &w.edges, byChild, child), valid, func(r *edgeRow) bool { return r.parent == parent && r.kind == kind }) {
		return no(CodeDuplicateFact, "the edge from %s to %s is known for a part of the valid time", w.name(e.Child), w.name(e.Parent))
	}
	if w.cycle(child, parent, valid) {
		return no(CodeCycle, "the edge from %s to %s would close a cycle", w.name(e.Child), w.name(e.Parent))
	}
	return nil
}

// edgeTenancy holds the tenancy rules as they stand at type Edge.
func (w *world) edgeTenancy(e *Edge, no refuser) *Refusal {
	for _, id := range []ID{e.Child, e.Parent} {
		if id.Type == PersonType || w.isPrincipal(w.sym(id)) {
			return no(CodeTenancyViolation, "persons and principals have no edges")
		}
	}
	ok := false
	switch {
	case e.Child.Type == TenantType:
		ok = e.Parent.Type == OperatorType
	case e.Child.Tenant != "":
		ok = e.Parent.Tenant == e.Child.Tenant || e.Parent == TenantID(e.Child.Tenant)
	case e.Child.Type == OperatorType || e.Child.Type == NetworkType:
	default: // shared
		ok = e.Parent.Tenant == "" && e.Parent.Type != OperatorType && e.Parent.Type != TenantType
	}
	if !ok {
		return no(CodeTenancyViolation, "an edge must not lead from %s to %s", w.name(e.Child), w.name(e.Parent))
	}
	return nil
}

// cycle reports whether an edge from child to parent would close a cycle at
// some instant of valid. It walks up from parent, carrying with each node the
// instants at which all edges on the way hold, and goes on only with instants
// at which the node was not reached before.
func (w *world) cycle(child, parent sym, valid Interval) bool {
	type step struct {
		node sym
		in   Interval
	}
	reached := map[sym][]Interval{}
	todo := []step{{parent, valid}}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s.node == child {
			return true
		}
		fresh := minus(s.in, reached[s.node])
		reached[s.node] = append(reached[s.node], fresh...)
		for _, in := range fresh {
			for v, r := range conflicting(w, &w.edges, byChild, s.node) {
				if v = (Interval{max(v.From, in.From), min(v.To, in.To)}); v.From < v.To {
					todo = append(todo, step{r.fact.parent, v})
				}
			}
		}
	}
	return false
}

// minus returns the parts of v outside all of the intervals.
func minus(v Interval, out []Interval) []Interval {
	left := []Interval{v}
	for _, o := range out {
		var next []Interval
		for _, l := range left {
			if !l.Overlaps(o) {
				next = append(next, l)
				continue
			}
			if l.From < o.From {
				next = append(next, Interval{l.From, o.From})
			}
			if o.To < l.To {
				next = append(next, Interval{o.To, l.To})
			}
		}
		left = next
	}
	return left
}

func (w *world) checkLink(l *Link, valid Interval, no refuser) *Refusal {
	to := w.isPrincipal(w.sym(l.To))
	from := l.Kind != LinkIdentity && w.isPrincipal(w.sym(l.From))
	// Whether an end exists comes first: what does not exist is no principal.
	if l.Kind != LinkIdentity && !w.exists(l.From, valid) {
		return no(CodeUnknownEnd, "the one end of the %s link does not exist in all of the valid time", l.Kind)
	}
	if !w.exists(l.To, valid) {
		return no(CodeUnknownEnd, "the other end of the %s link does not exist in all of the valid time", l.Kind)
	}
	switch {
	case l.Kind == LinkIdentity && !to:
		return no(CodeEventInvalid, "an identity is a principal")
	case l.Kind == LinkSelf && !from:
		return no(CodeEventInvalid, "a self link leads from a principal to a person")
	case l.Kind == LinkOwns && to:
		return no(CodeEventInvalid, "a person owns no principal")
	case l.Kind == LinkOwns && (l.To.Type == OperatorType || l.To.Type == TenantType || l.To.Type == NetworkType):
		return no(CodeTenancyViolation, "a person owns no %s", strings.ToLower(l.To.Type))
	}
	r := w.linkRow(l)
	same := func(o *linkRow) bool {
		return o.kind == r.kind && (o.to == r.to || r.kind == linkIdentity)
	}
	if overlaps(conflicting(w, &w.links, byFrom, r.from), valid, same) {
		return no(CodeDuplicateFact, "the %s link is known for a part of the valid time", l.Kind)
	}
	mutual := func(o *linkRow) bool { return o.kind == r.kind && o.to == r.from }
	if (r.kind == linkMerge || r.kind == linkFamily) && overlaps(conflicting(w, &w.links, byFrom, r.to), valid, mutual) {
		return no(CodeDuplicateFact, "the %s link is known the other way round for a part of the valid time", l.Kind)
	}
	return nil
}

// roleExists reports whether a role exists at every instant of valid.
func (w *world) roleExists(name string, valid Interval) bool {
	var have []Interval
	for v := range certain(w, &w.roles, byName, w.roleSym(name)) {
		have = append(have, v)
	}
	return covers(have, valid)
}

func (w *world) checkRole(r *Role, valid Interval, no refuser) *Refusal {
	tenant := roleTenant(r.Name)
	if tenant != "" && !w.existed(TenantID(tenant), valid) {
		return no(CodeUnknownTenant, "%s does not exist in the valid time", TenantID(tenant))
	}
	if overlaps(conflicting(w, &w.roles, byName, w.roleSym(r.Name)), valid, func(*roleRow) bool { return true }) {
		return no(CodeDuplicateFact, "role %s is known for a part of the valid time", r.Name)
	}
	for _, name := range r.Includes {
		if other := roleTenant(name); other != "" && other != tenant {
			return no(CodeTenancyViolation, "role %s must not include %s", r.Name, name)
		}
		if name == r.Name {
			return no(CodeCycle, "role %s would include itself", r.Name)
		}
		if !w.roleExists(name, valid) {
			return no(CodeUnknownEnd, "role %s does not exist in all of the valid time", name)
		}
	}
	// The valid times of roles on the way do not count here: no role may ever
	// include one that includes it.
	seen := map[string]bool{}
	todo := slices.Clone(r.Includes)
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if name == r.Name {
			return no(CodeCycle, "role %s would include itself", r.Name)
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, o := range conflicting(w, &w.roles, byName, w.roleSym(name)) {
			todo = append(todo, o.fact.role.Includes...)
		}
	}
	return nil
}

func (w *world) checkAssignment(a *Assignment, valid Interval, no refuser) *Refusal {
	principal, node, role := w.sym(a.Principal), w.sym(a.Node), w.roleSym(a.Role)
	if !w.exists(a.Principal, valid) {
		return no(CodeUnknownEnd, "the principal does not exist in all of the valid time")
	}
	if !w.isPrincipal(principal) {
		return no(CodeEventInvalid, "only a principal holds a role")
	}
	if !w.roleExists(a.Role, valid) {
		return no(CodeUnknownEnd, "role %s does not exist in all of the valid time", a.Role)
	}
	if a.Node.Type == PersonType || w.isPrincipal(node) {
		return no(CodeEventInvalid, "no role is held at a person or principal")
	}
	if r := w.ends(valid, no, a.Node); r != nil {
		return r
	}
	if tenant := roleTenant(a.Role); tenant != "" && a.Node.Owner() != tenant {
		return no(CodeTenancyViolation, "role %s must not be assigned at %s", a.Role, w.name(a.Node))
	}
	if overlaps(conflicting(w, &w.assignments, byPrincipal, principal), valid, func(r *assignmentRow) bool { return r.role == role && r.node == node }) {
		return no(CodeDuplicateFact, "the assignment of role %s at %s is known for a part of the valid time", a.Role, w.name(a.Node))
	}
	return nil
}

func (w *world) checkEntitlement(x *Entitlement, valid Interval, no refuser) *Refusal {
	if r := w.ends(valid, no, x.Tenant); r != nil {
		return r
	}
	name := w.class(className, x.Name)
	if overlaps(conflicting(w, &w.entitlements, byTenant, w.sym(x.Tenant)), valid, func(r *entitlementRow) bool { return r.name == name }) {
		return no(CodeDuplicateFact, "the entitlement of %s to %s is known for a part of the valid time", x.Tenant, x.Name)
	}
	return nil
}

func (w *world) checkBlock(b *Block, valid Interval, no refuser) *Refusal {
	if b.Person.Type != PersonType {
		return no(CodeEventInvalid, "a block is about a person")
	}
	if !w.exists(b.Person, valid) || !w.exists(b.Principal, valid) {
		return no(CodeUnknownEnd, "the person or the principal does not exist in all of the valid time")
	}
	principal := w.sym(b.Principal)
	if !w.isPrincipal(principal) {
		return no(CodeEventInvalid, "only a principal is blocked")
	}
	if overlaps(conflicting(w, &w.blocks, byPerson, w.sym(b.Person)), valid, func(r *blockRow) bool {
		return r.principal == principal && r.refusal == (b.Basis == "refusal")
	}) {
		return no(CodeDuplicateFact, "the block is known for a part of the valid time")
	}
	return nil
}

func (w *world) checkSetting(s *Setting, valid Interval, no refuser) *Refusal {
	if r := w.ends(valid, no, s.Tenant); r != nil {
		return r
	}
	name := w.class(className, s.Name)
	if overlaps(conflicting(w, &w.settings, byTenant, w.sym(s.Tenant)), valid, func(r *settingRow) bool { return r.name == name }) {
		return no(CodeDuplicateFact, "%s has said %s for a part of the valid time", s.Tenant, s.Name)
	}
	return nil
}

func (w *world) checkEmergency(x *Emergency, valid Interval, no refuser) *Refusal {
	if valid.From > w.time {
		return no(CodeEmergencyFuture, "an emergency starts no later than it is written")
	}
	id, principal, person := w.class(classEmergency, x.ID), w.sym(x.Principal), w.sym(x.Person)
	for _, r := range w.g.emergencies.each(byID, id) {
		if r.added.Load() != deadMark {
			return no(CodeDuplicateFact, "an emergency with this id is known, even if it is over")
		}
	}
	if len(w.emergencies.by[byID][id]) > 0 {
		return no(CodeDuplicateFact, "an emergency with this id is known, even if it is over")
	}
	if !w.exists(x.Principal, valid) || !w.exists(x.Person, valid) {
		return no(CodeUnknownEnd, "the person or the principal does not exist in all of the valid time")
	}
	if !w.isPrincipal(principal) {
		return no(CodeEventInvalid, "only a principal opens an emergency")
	}
	persons := w.merged(set{list: []sym{person}}, valid.From)
	if !overlaps(certain(w, &w.links, byTo, w.sym(x.Node)), valid, func(r *linkRow) bool {
		return r.kind == linkOwns && slices.Contains(persons.list, r.from)
	}) {
		return no(CodeUnknownEnd, "the person does not own the node of the emergency")
	}
	for _, r := range conflicting(w, &w.emergencies, byOpener, principal) {
		if slices.Contains(persons.list, r.fact.person) && !w.reviewed(r.fact.id) {
			return no(CodeEmergencyOpen, "another emergency of this principal for this person is not reviewed")
		}
	}
	return nil
}

// merged returns persons and all that are merged with any of them at an instant.
func (w *world) merged(found set, at Instant) set {
	for i := 0; i < len(found.list); i++ {
		for v, r := range certain(w, &w.links, byFrom, found.list[i]) {
			if r.fact.kind == linkMerge && v.Holds(at) {
				found.add(r.fact.to)
			}
		}
		for v, r := range certain(w, &w.links, byTo, found.list[i]) {
			if r.fact.kind == linkMerge && v.Holds(at) {
				found.add(r.fact.from)
			}
		}
	}
	return found
}

// persons returns who a principal is at an instant.
func (w *world) persons(principal sym, at Instant) set {
	var found set
	for v, r := range certain(w, &w.links, byFrom, principal) {
		if r.fact.kind == linkSelf && v.Holds(at) {
			found.add(r.fact.to)
		}
	}
	return w.merged(found, at)
}

// reviewed reports whether a review holds when the batch is written.
func (w *world) reviewed(emergency sym) bool {
	for v := range certain(w, &w.reviews, byEmergency, emergency) {
		if v.Holds(w.time) {
			return true
		}
	}
	return false
}

func (w *world) checkReview(v *Review, valid Interval, no refuser) *Refusal {
	id := w.class(classEmergency, v.Emergency)
	var of *Emergency
	for _, r := range certain(w, &w.emergencies, byID, id) {
		of = r.fact.emergency
	}
	if of == nil {
		return no(CodeUnknownEnd, "no emergency has this id")
	}
	if !w.exists(v.By, Interval{valid.From, valid.From + 1}) || !w.isPrincipal(w.sym(v.By)) {
		return no(CodeUnknownEnd, "the reviewer is no principal that exists")
	}
	opener := w.persons(w.sym(of.Principal), valid.From)
	if of.Principal == v.By || slices.ContainsFunc(w.persons(w.sym(v.By), valid.From).list, func(p sym) bool { return slices.Contains(opener.list, p) }) {
		return no(CodeEventInvalid, "who opened an emergency does not review it")
	}
	if overlaps(conflicting(w, &w.reviews, byEmergency, id), valid, func(*reviewRow) bool { return true }) {
		return no(CodeDuplicateFact, "the emergency is reviewed for a part of the valid time")
	}
	return nil
}

func (w *world) checkSignature(s *Signature, valid Interval, no refuser) *Refusal {
	_, of := w.grantByID(s.Grant)
	if of == nil {
		return no(CodeUnknownEnd, "the grant does not exist, or is voided")
	}
	if !slices.ContainsFunc(of.Needs, s.meets) {
		return no(CodeNeedUnknown, "the grant takes no signature of this %s", s.As)
	}
	if now := (Interval{valid.From, valid.From + 1}); !w.exists(s.Principal, now) || !w.exists(s.By, now) {
		return no(CodeUnknownEnd, "who signs does not exist at that time")
	}
	if !w.isPrincipal(w.sym(s.Principal)) {
		return no(CodeEventInvalid, "only a principal signs")
	}
	if overlaps(conflicting(w, &w.signatures, byGrant, w.class(classGrant, s.Grant)), valid, func(r *signatureRow) bool {
		return r.signature.As == s.As && (r.signature.By == s.By || s.As == SignerVerifier)
	}) {
		return no(CodeDuplicateFact, "the grant is signed so for a part of the valid time")
	}
	return nil
}

// meets reports whether a signature is what a need asks for.
func (s *Signature) meets(n Need) bool { return s.As == n.As && (n.By.IsZero() || n.By == s.By) }

// grantRow returns the row of a grant that is or may become true, by id.
func (w *world) grantByID(id string) (Interval, *Grant) {
	for v, r := range certain(w, &w.grants, byID, w.class(classGrant, id)) {
		return v, r.fact.grant
	}
	return Interval{}, nil
}

func (w *world) checkGrant(gr *Grant, valid Interval, no refuser) *Refusal {
	id := w.class(classGrant, gr.ID)
	for _, r := range w.g.grants.each(byID, id) {
		if r.added.Load() != deadMark {
			return no(CodeGrantExists, "a grant with this id is known, even if it is over")
		}
	}
	if len(w.grants.by[byID][id]) > 0 {
		return no(CodeGrantExists, "a grant with this id is known, even if it is over")
	}
	subject, grantee := w.sym(gr.Subject), w.sym(gr.Grantee)
	if !w.exists(gr.Subject, valid) {
		return no(CodeUnknownEnd, "the subject does not exist in all of the valid time")
	}
	if !w.exists(gr.Grantee, valid) {
		return no(CodeUnknownEnd, "the grantee does not exist in all of the valid time")
	}
	if !w.existed(gr.Grantor, valid) {
		return no(CodeUnknownEnd, "the grantor does not exist in the valid time")
	}
	if c := gr.Scope.Coverage; !c.IsZero() && !w.existed(c, valid) {
		return no(CodeUnknownEnd, "the coverage does not exist in the valid time")
	}
	if w.isPrincipal(subject) {
		return no(CodeEventInvalid, "a grant is about a person or a node, not a principal")
	}
	if gr.Grantee.Type == PersonType {
		return no(CodeEventInvalid, "the grantee is a principal or a node, not a person")
	}
	if c := gr.Scope.Coverage; !c.IsZero() && (c.Type == PersonType || w.isPrincipal(w.sym(c))) {
		return no(CodeEventInvalid, "the coverage is a node")
	}
	// What a grant is about must be one tenant's; an organisation that it is
	// given to may be another's.
	if a, b := gr.Subject.Owner(), gr.Scope.Coverage.Owner(); a != "" && b != "" && a != b {
		return no(CodeTenancyViolation, "subject and coverage belong to two tenants")
	}
	if gr.EndsAtMajority {
		for v, r := range certain(w, &w.nodes, byID, subject) {
			if v.Overlaps(valid) && (r.fact.data == nil || r.fact.data.person == nil || r.fact.data.person.Majority == nil) {
				return no(CodeEventInvalid, "the grant ends at majority, but when that is, is not known")
			}
		}
	}
	if r := w.checkChain(gr, valid, no); r != nil {
		return r
	}
	return w.checkLimit(grantee, subject, valid, no)
}

// checkChain holds what makes a grant narrower than the one it was made from.
// How deep chains get follows from the root: its depth is bounded by the kind
// of its subject, and every further one has that subject and less depth.
func (w *world) checkChain(gr *Grant, valid Interval, no refuser) *Refusal {
	limit := 3
	if gr.Subject.Type == PersonType {
		limit = 1
	}
	if gr.Parent == "" {
		if gr.MaxDepth > limit {
			return no(CodeGrantDepth, "a chain about this kind of subject is at most %d deep", limit)
		}
		if gr.Grantor == gr.Grantee {
			return no(CodeCycle, "grantor and grantee are the same")
		}
		return nil
	}
	within, parent := w.grantByID(gr.Parent)
	if parent == nil {
		return no(CodeUnknownEnd, "the parent grant does not exist, or is voided")
	}
	if gr.Grantor != parent.Grantee {
		return no(CodeEventInvalid, "the grantor is not the grantee of the parent grant")
	}
	if !parent.MayRedelegate {
		return no(CodeGrantDepth, "the parent grant may not be redelegated")
	}
	depth := 1
	for p := parent; ; depth++ {
		if gr.Grantee == p.Grantee || gr.Grantee == p.Grantor {
			return no(CodeCycle, "the grantee is in the chain already")
		}
		if depth > p.MaxDepth {
			return no(CodeGrantDepth, "a grant up the chain allows %d further", p.MaxDepth)
		}
		if p.Parent == "" {
			break
		}
		if _, p = w.grantByID(p.Parent); p == nil {
			return no(CodeUnknownEnd, "a grant up the chain does not exist, or is voided")
		}
	}
	if gr.MayRedelegate && gr.MaxDepth > parent.MaxDepth-1 {
		return no(CodeGrantDepth, "the grant may be redelegated deeper than the parent grant allows")
	}
	if what := wider(gr, parent); what != "" {
		return no(CodeGrantWider, "%s", what)
	}
	if !inside(valid, within) {
		return no(CodeGrantWider, "the valid time is wider than in the parent grant")
	}
	return nil
}

// wider says in what a grant is wider than the one it was made from, but for
// the valid time, or "".
func wider(gr, parent *Grant) string {
	s, ps := gr.Scope, parent.Scope
	what := ""
	switch {
	case gr.Subject != parent.Subject:
		return "the subject is not that of the parent grant"
	case parent.EndsAtMajority && !gr.EndsAtMajority:
		return "the parent grant ends at majority"
	case !subset(s.Capabilities, ps.Capabilities):
		what = "the list of capabilities"
	case !subset(s.Covers, ps.Covers):
		what = "the list of sensitivities"
	case len(parent.Purpose) > 0 && (len(gr.Purpose) == 0 || !subset(gr.Purpose, parent.Purpose)):
		what = "the list of purposes"
	case !ps.Coverage.IsZero() && s.Coverage != ps.Coverage:
		what = "the coverage"
	case len(ps.Records) > 0 && (len(s.Records) == 0 || !subset(s.Records, ps.Records)):
		what = "the list of records"
	case !ps.Service.IsZero() && (s.Service.IsZero() || !inside(s.Service, ps.Service)):
		what = "the service time"
	default:
		return ""
	}
	return what + " is wider than in the parent grant"
}

func inside(v, w Interval) bool { return v.From >= w.From && v.To <= w.To }

func subset(a, b []string) bool {
	for _, s := range a {
		if !slices.Contains(b, s) {
			return false
		}
	}
	return true
}

// checkLimit sweeps over the valid times of the grants of one grantee and
// subject.
func (w *world) checkLimit(grantee, subject sym, valid Interval, no refuser) *Refusal {
	times := map[FactID]Interval{} // one per fact: of an end in another's import the longer one
	for v, r := range conflicting(w, &w.grants, byPair, w.pair(grantee, subject)) {
		if !v.Overlaps(valid) {
			continue
		}
		v = Interval{max(v.From, valid.From), min(v.To, valid.To)}
		if old, ok := times[r.id()]; !ok || v.To > old.To {
			times[r.id()] = v
		}
	}
	for _, at := range times { // the most are live at some start
		n := 0
		for _, v := range times {
			if v.Holds(at.From) {
				n++
			}
		}
		if n >= MaxLiveGrants {
			return no(CodeGrantLimit, "%d grants are live for this grantee and subject at an instant of the valid time", n)
		}
	}
	return nil
}

// limited refuses what an import of one tenant must not touch.
func (w *world) limited(i int, e *Event) *Refusal {
	if w.tenant == "" {
		return nil
	}
	of := e
	if e.Op != Assert {
		if _, ok := w.mine[e.Fact]; ok {
			return nil // looked at before
		}
		_, ref, _, ok := w.g.current(e.Fact, e.Kind, w.m, w.tip)
		if !ok {
			return nil // refused later
		}
		there := w.g.event(ref)
		of = &there
	}
	own := func(id ID) bool { return id.Owner() == w.tenant }
	free := func(id ID) bool { // its own, or a person or principal
		return own(id) || id.Type == PersonType || w.isPrincipal(w.sym(id))
	}
	ok := false
	switch of.Kind {
	case KindNode:
		ok = own(of.Node.ID) || of.Node.ID.Type == PersonType || of.Node.Principal
	case KindEdge:
		ok = own(of.Edge.Child)
	case KindLink:
		ok = of.Link.Kind != LinkOwns || own(of.Link.To)
	case KindRole:
		ok = roleTenant(of.Role.Name) == w.tenant
	case KindAssignment:
		ok = own(of.Assignment.Node)
	case KindEntitlement:
		ok = own(of.Entitlement.Tenant)
	case KindGrant:
		ok = free(of.Grant.Subject) && free(of.Grant.Grantee) && (of.Grant.Scope.Coverage.IsZero() || own(of.Grant.Scope.Coverage))
	case KindBlock:
		ok = true
	case KindSetting:
		ok = own(of.Setting.Tenant)
	}
	if !ok {
		return refuse(i, e, CodeTenancyViolation, "an import of tenant %s must not touch this", w.tenant)
	}
	return nil
}
