package pdp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
)

// household is a random family under the shipped pack: who subscribes, who
// pays, parents, a spouse, a former one, a step-parent, a child, one of age. All
// have a coverage in one group and a record in one hospital. Times are days 0
// to 12 of the mazes.
type household struct {
	*maze
	graph
	majority map[hierarchy.ID]hierarchy.Instant
	grants   []*entrusted
}

// graph is what the test itself knows of persons and accounts.
type graph struct {
	self, merged, kin, owned, blocked []tie
}

type tie struct {
	from, to hierarchy.ID
	valid    hierarchy.Interval
}

// entrusted is a grant as this test knows it. What was revoked or voided was so
// in the last revision.
type entrusted struct {
	hierarchy.Grant
	valid   hierarchy.Interval
	revoked hierarchy.Instant
	voided  bool
	signed  []hierarchy.Interval // of its needs, in order
}

var (
	householdGroup  = hierarchy.ID{Type: "Group", Tenant: "acme", Key: "g"}
	householdSystem = hierarchy.ID{Type: "HealthSystem", Tenant: "acme", Key: "hs"}
	memberNames     = []string{"subscriber", "payee", "parent", "spouse", "ex", "step", "child", "adult"}
	proxyTypes      = []string{"parent", "step-parent", "guardian", "guardian-of-minor", "adult-proxy", "caregiver", "power-of-attorney"}
	sensitivities   = []string{"part2", "reproductive", "behavioral"}
)

// reading is one way to a record.
type reading struct {
	action, typ, caller string
	node                string   // the type of what the record hangs from
	date                string   // the property with its date
	sensitive           bool     // it says how sensitive it is
	own                 bool     // one does it with one's own, and may let somebody else
	nulls               []string // the anchors that it does not have
}

var readings = []reading{
	{action: "claim.view", typ: "claim", caller: "claims-service", node: "Coverage", date: "fillDate", sensitive: true, own: true, nulls: []string{"pharmacy", "prescriber"}},
	{action: "claim.export", typ: "claim", caller: "claims-service", node: "Coverage", date: "fillDate", sensitive: true, nulls: []string{"pharmacy", "prescriber"}},
	{action: "claim.search", typ: "claim-list", caller: "claims-service", node: "Coverage", own: true, nulls: []string{"tenant", "carrier", "account", "group", "pharmacy"}},
	{action: "claim.search", typ: "claim-list", caller: "claims-service", node: "Group", nulls: []string{"tenant", "carrier", "account", "coverage", "pharmacy"}},
	{action: "member.coverage", typ: "coverage", node: "Coverage", own: true},
	{action: "eligibility.check", typ: "eligibility", caller: "eligibility-service", node: "Coverage", date: "serviceDate", own: true, nulls: []string{"pharmacy"}},
	{action: "lab.view", typ: "lab", caller: "labs-service", node: "Patient", sensitive: true, own: true},
	{action: "document.view", typ: "document", caller: "documents-service", node: "Patient", sensitive: true, own: true},
	{action: "fhir.read", typ: "fhir-resource", caller: "fhir-service", node: "Patient", sensitive: true, own: true},
	{action: "fhir.everything", typ: "fhir-resource", caller: "fhir-service", node: "Patient", sensitive: true, own: true},
	{action: "fhir.search", typ: "fhir-list", caller: "fhir-service", node: "Patient", own: true, nulls: []string{"healthSystem", "site", "department", "careTeam"}},
	{action: "fhir.search", typ: "fhir-list", caller: "fhir-service", node: "HealthSystem", nulls: []string{"site", "department", "careTeam", "patient"}},
	{action: "fhir.export", typ: "fhir-list", caller: "fhir-service", node: "Patient", nulls: []string{"healthSystem", "site", "department", "careTeam"}},
}

// readable are the capabilities of readings.
var readable = func() (list []string) {
	for _, r := range readings {
		if !slices.Contains(list, r.action) {
			list = append(list, r.action)
		}
	}
	return list
}()

func (m *maze) some(n, of int) bool { return m.rng.IntN(of) < n }

func pick[T any](m *maze, list []T) T { return list[m.rng.IntN(len(list))] }

// subset returns at least one of a list.
func subset[T any](m *maze, list []T) []T {
	out := []T{pick(m, list)}
	for _, x := range list {
		if m.some(1, 3) && !slices.ContainsFunc(out, func(y T) bool { return fmt.Sprint(x) == fmt.Sprint(y) }) {
			out = append(out, x)
		}
	}
	return out
}

func fact(k hierarchy.Kind, valid hierarchy.Interval) hierarchy.Event {
	return hierarchy.Event{Op: hierarchy.Assert, Kind: k, Valid: valid}
}

func nodeFact(id hierarchy.ID, principal bool) hierarchy.Event {
	e := fact(hierarchy.KindNode, hierarchy.Always)
	e.Node = &hierarchy.Node{ID: id, Principal: principal}
	return e
}

func edgeFact(child hierarchy.ID, kind string, parent hierarchy.ID) hierarchy.Event {
	e := fact(hierarchy.KindEdge, hierarchy.Always)
	e.Edge = &hierarchy.Edge{Child: child, Kind: kind, Parent: parent}
	return e
}

func linkFact(kind hierarchy.LinkKind, x tie) hierarchy.Event {
	e := fact(hierarchy.KindLink, x.valid)
	e.Link = &hierarchy.Link{Kind: kind, From: x.from, To: x.to}
	return e
}

func blockFact(m *maze, x tie) hierarchy.Event {
	e := fact(hierarchy.KindBlock, x.valid)
	e.Block = &hierarchy.Block{Person: x.from, Principal: x.to, Basis: pick(m, []string{"court-order", "refusal"})}
	return e
}

// ground asserts the pack's roles and one tenant with all that it needs.
func ground(tenants ...string) []hierarchy.Event {
	var events []hierarchy.Event
	for _, r := range pbm().Catalogue().Roles {
		events = append(events, roleEvent(r))
	}
	events = append(events, nodeFact(opID, false), nodeFact(netID, false))
	for _, t := range tenants {
		events = append(events, nodeFact(hierarchy.TenantID(t), false), edgeFact(hierarchy.TenantID(t), "operatedBy", opID))
		for _, g := range []hierarchy.ID{{Type: "Group", Tenant: t, Key: "g"}, {Type: "HealthSystem", Tenant: t, Key: "hs"}} {
			kind := map[string]string{"Group": "memberOf", "HealthSystem": "partOf"}[g.Type]
			events = append(events, nodeFact(g, false), edgeFact(g, kind, hierarchy.TenantID(t)))
		}
		for name := range pbm().Catalogue().Modules {
			e := fact(hierarchy.KindEntitlement, hierarchy.Always)
			e.Entitlement = &hierarchy.Entitlement{Tenant: hierarchy.TenantID(t), Name: name}
			events = append(events, e)
		}
	}
	return events
}

// belongings gives a person a coverage and a patient record in a tenant.
func belongings(person hierarchy.ID, tenant, key string) ([]hierarchy.Event, []tie) {
	c, p := hierarchy.ID{Type: "Coverage", Tenant: tenant, Key: key}, hierarchy.ID{Type: "Patient", Tenant: tenant, Key: key}
	owns := []tie{{person, c, hierarchy.Always}, {person, p, hierarchy.Always}}
	return []hierarchy.Event{nodeFact(c, false), nodeFact(p, false),
		edgeFact(c, "enrolledIn", hierarchy.ID{Type: "Group", Tenant: tenant, Key: "g"}),
		edgeFact(p, "partOf", hierarchy.ID{Type: "HealthSystem", Tenant: tenant, Key: "hs"}),
		linkFact(hierarchy.LinkOwns, owns[0]), linkFact(hierarchy.LinkOwns, owns[1])}, owns
}

func newHousehold(t testing.TB, seed uint64) *household {
	h := &household{maze: &maze{rng: rand.New(rand.NewPCG(seed, 11)), g: hierarchy.NewGraph()}, majority: map[hierarchy.ID]hierarchy.Instant{}}
	events := ground("acme")
	person := func(name string) hierarchy.ID {
		e := nodeFact(hierarchy.PersonID(name), false)
		if !h.some(1, 6) { // of the others the age is not known
			at := epoch + hierarchy.Instant(h.rng.IntN(10))*day
			if name == "child" || h.some(1, 3) {
				at += 4 * day
			} else {
				at -= 20 * day
			}
			e.Node.Person = &hierarchy.Person{BirthDate: "2006-10-04", Jurisdiction: "US-OH", Majority: &at, TZData: hierarchy.TZData}
			h.majority[e.Node.ID] = at
		}
		more, owns := belongings(e.Node.ID, "acme", name)
		events, h.owned = append(append(events, e), more...), append(h.owned, owns...)
		h.persons = append(h.persons, e.Node.ID)
		return e.Node.ID
	}
	tied := func(list *[]tie, kind hierarchy.LinkKind, x tie) {
		*list = append(*list, x)
		events = append(events, linkFact(kind, x))
	}
	for _, name := range memberNames {
		p := person(name)
		u := hierarchy.ID{Type: "User", Key: name}
		events = append(events, nodeFact(u, true))
		h.users = append(h.users, u)
		tied(&h.self, hierarchy.LinkSelf, tie{u, p, h.interval()})
		if h.some(1, 4) { // a second record of the same human being
			q := person(name + "-2")
			tied(&h.merged, hierarchy.LinkMerge, tie{p, q, h.interval()})
			p = q
		}
		if h.some(1, 4) { // and a second account
			u := hierarchy.ID{Type: "User", Key: name + "-2"}
			events = append(events, nodeFact(u, true))
			h.users = append(h.users, u)
			tied(&h.self, hierarchy.LinkSelf, tie{u, p, h.interval()})
		}
	}
	for i, p := range h.persons {
		for _, q := range h.persons[:i] {
			if h.some(1, 5) {
				tied(&h.kin, hierarchy.LinkFamily, tie{p, q, h.interval()})
			}
		}
	}
	for range h.rng.IntN(3) {
		x := tie{pick(h.maze, h.persons), pick(h.maze, h.users), h.interval()}
		if !slices.ContainsFunc(h.blocked, func(y tie) bool { return x.from == y.from && x.to == y.to }) {
			h.blocked = append(h.blocked, x)
			events = append(events, blockFact(h.maze, x))
		}
	}
	var later []hierarchy.Event
	for i := range 6 + h.rng.IntN(8) {
		h.entrust(fmt.Sprint("g", i), &events, &later)
	}
	h.apply(t, events)
	h.apply(t, later)
	return h
}

// entrust makes a random grant, and what becomes of it later.
func (h *household) entrust(id string, events, later *[]hierarchy.Event) {
	m := h.maze
	e := &entrusted{valid: h.interval()}
	e.Grant = hierarchy.Grant{ID: id, Type: pick(m, proxyTypes), Grantee: pick(m, h.users), Subject: pick(m, h.persons),
		Scope: hierarchy.Scope{Capabilities: subset(m, readable)}}
	e.Grantor = e.Subject
	_, known := h.majority[e.Subject]
	if minor := pbm().Catalogue().GrantTypes[e.Type].EndsAtMajority || h.some(1, 6); minor && !known {
		e.Type = "adult-proxy"
	} else {
		e.EndsAtMajority = minor
	}
	if h.some(1, 2) {
		e.Scope.Covers = subset(m, sensitivities)
	}
	if h.some(1, 5) {
		e.Scope.Coverage = pick(m, []hierarchy.ID{householdGroup, householdSystem, {Type: "Coverage", Tenant: "acme", Key: e.Subject.Key}, {Type: "Patient", Tenant: "acme", Key: e.Subject.Key}})
	}
	if h.some(1, 6) {
		e.Scope.Service = hierarchy.Interval{From: epoch + 2*day, To: epoch + 6*day}
	}
	if h.some(1, 8) {
		e.Scope.Records = []string{"claim:r1", "lab:r2"}
	}
	if h.some(1, 8) {
		e.Purpose = []string{"FAMRQT"}
	}
	if len(h.grants) > 0 && h.some(1, 4) { // passed on, by the one it was given to
		if up := pick(m, h.grants); up.MayRedelegate && up.Grantee != e.Grantee {
			g := up.Grant
			g.ID, g.Parent, g.Grantor, g.Grantee, g.MayRedelegate, g.MaxDepth, g.Needs = id, up.ID, up.Grantee, e.Grantee, false, 0, nil
			g.Scope.Capabilities = subset(m, up.Scope.Capabilities)
			e.Grant, e.valid = g, up.valid
		}
	} else if h.some(1, 2) {
		e.MayRedelegate, e.MaxDepth = true, 1
	}
	var signatures []hierarchy.Event
	for _, n := range []hierarchy.Need{{As: hierarchy.SignerVerifier}, {As: hierarchy.SignerCoSigner, By: pick(m, h.persons)}} {
		if !h.some(1, 6) {
			continue
		}
		e.Needs = append(e.Needs, n)
		signed := hierarchy.Interval{}
		if !h.some(1, 3) {
			signed = h.interval()
			s := fact(hierarchy.KindSignature, signed)
			s.Signature = &hierarchy.Signature{Grant: id, Need: n, Principal: h.users[0]}
			if n.As == hierarchy.SignerVerifier {
				s.Signature.By = h.users[0]
			}
			signatures = append(signatures, s)
		}
		e.signed = append(e.signed, signed)
	}
	f := fact(hierarchy.KindGrant, e.valid)
	f.Grant = &e.Grant
	asserted := hierarchy.FactID{Revision: 1, Index: uint32(len(*events))}
	*events = append(append(*events, f), signatures...)
	switch h.rng.IntN(6) {
	case 0:
		e.voided = true
		*later = append(*later, hierarchy.Event{Op: hierarchy.Void, Kind: hierarchy.KindGrant, Fact: asserted})
	case 1:
		at := epoch + 5*day
		if e.valid.From < at && at < e.valid.To {
			e.revoked = at
			*later = append(*later, hierarchy.Event{Op: hierarchy.End, Kind: hierarchy.KindGrant, Fact: asserted, At: at})
		}
	}
	h.grants = append(h.grants, e)
}

// What follows reads the facts without the product's code.

// one adds to persons all that they are merged with.
func (g *graph) one(persons []hierarchy.ID, at hierarchy.Instant) []hierarchy.ID {
	for grown := true; grown; {
		grown = false
		for _, m := range g.merged {
			a, b := slices.Contains(persons, m.from), slices.Contains(persons, m.to)
			if m.valid.Holds(at) && a != b {
				persons, grown = append(persons, m.from, m.to), true
			}
		}
	}
	return persons
}

func (g *graph) personsOf(user hierarchy.ID, at hierarchy.Instant) []hierarchy.ID {
	return g.one(reached(g.self, user, at), at)
}

func reached(ties []tie, from hierarchy.ID, at hierarchy.Instant) (list []hierarchy.ID) {
	for _, x := range ties {
		if x.from == from && x.valid.Holds(at) {
			list = append(list, x.to)
		}
	}
	return list
}

func (g *graph) ownersOf(node hierarchy.ID, at hierarchy.Instant) (list []hierarchy.ID) {
	for _, x := range g.owned {
		if x.to == node && x.valid.Holds(at) {
			list = append(list, x.from)
		}
	}
	return g.one(list, at)
}

// human reports whether two accounts are one human being's.
func (g *graph) human(a, b hierarchy.ID, at hierarchy.Instant) bool {
	return a == b || overlap(g.personsOf(a, at), g.personsOf(b, at))
}

func (g *graph) blocks(user hierarchy.ID, owners []hierarchy.ID, at hierarchy.Instant) bool {
	return slices.ContainsFunc(g.blocked, func(b tie) bool {
		return b.valid.Holds(at) && slices.Contains(owners, b.from) && g.human(user, b.to, at)
	})
}

// alive reports whether a grant and all above it hold, as known at a revision.
func (h *household) alive(e *entrusted, at hierarchy.Instant, rev uint64) bool {
	minor := false
	for up := e; ; {
		if !up.valid.Holds(at) || rev > 1 && (up.voided || up.revoked != 0 && at >= up.revoked) ||
			slices.ContainsFunc(up.signed, func(s hierarchy.Interval) bool { return !s.Holds(at) }) {
			return false
		}
		minor = minor || up.EndsAtMajority
		if up.Parent == "" {
			break
		}
		up = h.grants[slices.IndexFunc(h.grants, func(x *entrusted) bool { return x.ID == up.Parent })]
	}
	if !minor {
		return true
	}
	known := false
	for _, p := range h.one([]hierarchy.ID{e.Subject}, at) {
		if of, ok := h.majority[p]; ok {
			if known = true; at >= of {
				return false
			}
		}
	}
	return known
}

// familyQuestion is a random question about a record of one of them.
type familyQuestion struct {
	reading
	user, node  hierarchy.ID
	id          string
	now, date   hierarchy.Instant
	rev         uint64
	sensitivity string
	minor       bool
	purpose     string
	grant       string
}

func (h *household) question() familyQuestion {
	m := h.maze
	q := familyQuestion{reading: pick(m, readings), user: pick(m, h.users), id: fmt.Sprint("r", h.rng.IntN(4)), rev: uint64(1 + h.rng.IntN(2)),
		now: epoch + hierarchy.Instant(h.rng.IntN(12))*day + hierarchy.Instant(h.rng.IntN(3)-1), date: epoch + hierarchy.Instant(h.rng.IntN(10))*day,
		sensitivity: pick(m, append(sensitivities, "routine", "routine", "routine")), minor: h.some(1, 6), purpose: pick(m, []string{"", "FAMRQT"})}
	switch q.reading.node {
	case "Group":
		q.node = householdGroup
	case "HealthSystem":
		q.node = householdSystem
	default:
		q.node = hierarchy.ID{Type: q.reading.node, Tenant: "acme", Key: pick(m, h.persons).Key}
		// Most are about what a grant is, or about one's own.
		if e := pick(m, h.grants); h.some(3, 5) {
			q.user = e.Grantee
			if c := pick(m, e.Scope.Capabilities); h.some(3, 4) {
				q.reading = readings[slices.IndexFunc(readings, func(r reading) bool { return r.action == c })]
			}
			q.node = hierarchy.ID{Type: q.reading.node, Tenant: "acme", Key: e.Subject.Key}
		} else if own := h.personsOf(q.user, q.now); len(own) > 0 && h.some(1, 3) {
			q.node.Key = pick(m, own).Key
		}
	}
	switch h.rng.IntN(10) {
	case 0:
		q.grant = authz.NoGrant
	case 1:
		q.grant = pick(m, h.grants).ID
	}
	return q
}

func (q *familyQuestion) request() *authz.Request {
	r := request(q.caller, "user:"+q.user.Key, q.action, q.typ+":"+q.id)
	r.Grant = q.grant
	if q.typ == "coverage" { // a node of the graph
		r.Resource.ID = q.node.String()
		return &r
	}
	r.Resource.Properties = map[string]any{}
	for _, n := range q.nulls {
		r.Resource.Properties[n] = nil
	}
	r.Resource.Properties[map[string]string{"Coverage": "coverage", "Patient": "patient", "Group": "group", "HealthSystem": "healthSystem"}[q.node.Type]] = q.node.String()
	if q.reading.date != "" {
		r.Resource.Properties[q.reading.date] = q.date.String()
	}
	if q.sensitive {
		r.Resource.Properties["sensitivity"], r.Resource.Properties["minorConsent"] = q.sensitivity, q.minor
	}
	if q.purpose != "" {
		r.Context = map[string]any{"purpose": q.purpose}
	}
	return &r
}

// opens reports whether a grant opens a record, whatever stands against it.
func (h *household) opens(e *entrusted, q *familyQuestion, owners []hierarchy.ID) bool {
	s := e.Scope
	under := map[string]hierarchy.ID{"Coverage": householdGroup, "Patient": householdSystem}[q.node.Type]
	record := q.typ + ":" + q.id
	if q.typ == "coverage" {
		record = q.typ + ":" + q.node.String()
	}
	switch {
	case e.Grantee != q.user, !slices.Contains(owners, e.Subject), !h.alive(e, q.now, q.rev),
		!slices.Contains(s.Capabilities, q.action), !q.own,
		!s.Coverage.IsZero() && s.Coverage != q.node && s.Coverage != under,
		!s.Service.IsZero() && (q.reading.date == "" || !s.Service.Holds(q.date)),
		len(s.Records) > 0 && !slices.Contains(s.Records, record),
		len(e.Purpose) > 0 && (q.purpose != "FAMRQT" || q.typ == "coverage"),
		q.grant != "" && q.grant != e.ID:
		return false
	}
	if !q.sensitive {
		return true
	}
	parental := !slices.Contains([]string{"adult-proxy", "caregiver", "app-connection"}, e.Type)
	return (q.sensitivity == "routine" || slices.Contains(s.Covers, q.sensitivity)) && (!q.minor || !parental)
}

// sees says who reads what: the person, unless they are its parent by a grant of
// its own, and whoever holds a live grant of theirs that opens it.
func (h *household) sees(q *familyQuestion) (self, proxy bool) {
	owners := h.ownersOf(q.node, q.now)
	if h.blocks(q.user, owners, q.now) {
		return false, false
	}
	represents := slices.ContainsFunc(h.grants, func(e *entrusted) bool {
		return slices.Contains(pbm().Catalogue().FamilyGrants, e.Type) && e.valid.From <= q.now && !(q.rev > 1 && e.voided) &&
			!slices.ContainsFunc(e.signed, func(s hierarchy.Interval) bool { return s.IsZero() || s.From > q.now }) &&
			slices.Contains(owners, e.Subject) && h.human(q.user, e.Grantee, q.now)
	})
	self = q.own && overlap(h.personsOf(q.user, q.now), owners) && !represents && (q.grant == "" || q.grant == authz.NoGrant)
	return self, slices.ContainsFunc(h.grants, func(e *entrusted) bool { return h.opens(e, q, owners) })
}

func (m *maze) judgePBM(r *authz.Request, now hierarchy.Instant, rev uint64) judgement {
	a := convert(r, pbm().Catalogue())
	return world{set: pbm(), graph: m.g, confers: confers(m.g, pbm()), rev: rev, now: now}.judge(&a)
}

// TestAFamilySeesWhatTheOwnerLetsIt asks random questions in random families.
// Nobody but the person reads a record without a live grant of theirs, and what
// is allowed is what a reading of the facts without the product's code allows.
func TestAFamilySeesWhatTheOwnerLetsIt(t *testing.T) {
	trials := count(15_000, 1_000_000)
	n, others, own, byGrant := 0, 0, 0, 0
	for seed := uint64(1); n < trials; seed++ {
		h := newHousehold(t, seed)
		for range 100 {
			n++
			q := h.question()
			v := h.judgePBM(q.request(), q.now, q.rev).verdict
			self, proxy := h.sees(&q)
			if got, want := bool(v.Effect), self || proxy; got != want {
				t.Fatalf("seed %d: %v %s %v at %v, revision %d (%s, minor's consent %v, grant %q): got %v %s %q, want %v",
					seed, q.user, q.action, q.node, q.now, q.rev, q.sensitivity, q.minor, q.grant, got, v.Code, v.Reasons, want)
			}
			if !overlap(h.personsOf(q.user, q.now), h.ownersOf(q.node, q.now)) {
				if others++; v.Effect && v.Grant == "" {
					t.Fatalf("seed %d: %v reads %v without a grant", seed, q.user, q.node)
				}
			}
			if v.Effect && v.Grant == "" {
				own++
			} else if v.Effect {
				byGrant++
			}
		}
	}
	t.Logf("%d trials, %d of them about somebody else: %d allowed as one's own, %d by a grant", n, others, own, byGrant)
	if own*20 < n || byGrant*40 < n || others*2 < n {
		t.Error("the families are too easy: too few trials are allowed, or about somebody else")
	}
}
