package pdp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// permitAll is a pack whose only policy permits everything: what it denies, the
// structure denies.
var permitAll = sync.OnceValue(func() *policies.Set {
	set, err := policies.Compile(map[string][]byte{
		"schema.cedarschema": []byte(`namespace Open {
			entity Scope;
			entity Operator, Tenant, Network, Unit, Desk, Site in [Scope];
			entity Person in [Scope];
			entity User tags Set<Scope>;
			entity Grant;
			entity Doc in [Scope];
			type Session = { now: datetime, aal: Long, grant?: Grant };
			action "doc.read" appliesTo { principal: [User], resource: [Doc], context: Session };
		}`),
		"catalogue.yaml": []byte(`
name: open
namespace: Open
principals:
  user: {entity: User}
nodes:
  Operator: {}
  Tenant: {}
  Network: {}
  Person: {}
  Unit: {owned: true}
  Desk: {owned: true}
  Site: {}
edges:
  operatedBy: {confers: true, from: [Tenant], to: [Operator]}
  under: {confers: true, from: [Unit, Desk], to: [Unit, Tenant]}
  at: {confers: true, from: [Site], to: [Site, Network]}
grantTypes:
  proxy: {}
links: {self: self}
resources:
  doc:
    kind: sent
    entity: Doc
    authority: [docs]
    anchors: {unit: Unit, desk: Desk, site: Site}
    owner: desk
    ownerOptional: true
    instant: date
actions:
  doc.read: {}
`),
		"roles.yaml": []byte("worker: {capabilities: [doc.read]}\nself: {capabilities: [doc.read]}\n"),
		"all.cedar":  []byte(`@id("all") permit (principal is Open::User, action, resource is Open::Doc);`),
	})
	if err != nil {
		panic(err)
	}
	return set
})

// maze is a random world of several tenants with shared sites.
type maze struct {
	rng     *rand.Rand
	g       *hierarchy.Graph
	batch   uint64
	tenants []string
	units   []hierarchy.ID // of all tenants
	desks   []hierarchy.ID
	sites   []hierarchy.ID
	users   []hierarchy.ID
	persons []hierarchy.ID
	parent  map[hierarchy.ID]hierarchy.ID // tree edges as this test knows them
	from    map[hierarchy.ID]hierarchy.Interval
	facts   []foothold
	owns    map[hierarchy.ID][]hierarchy.ID // desk -> persons
}

// foothold is one way in which a user stands somewhere.
type foothold struct {
	user  hierarchy.ID
	node  hierarchy.ID // an assignment's node, or the person of a link or grant
	valid hierarchy.Interval
}

var (
	opID  = hierarchy.ID{Type: "Operator", Key: "ward"}
	netID = hierarchy.ID{Type: "Network", Key: "network"}
)

const day = hierarchy.Instant(24 * 3600 * 1000)

// epoch is day 0 of the mazes.
const epoch = 20_000 * day

// newMaze builds a world whose times are days 0 to 12.
func newMaze(t testing.TB, seed uint64) *maze {
	m := &maze{rng: rand.New(rand.NewPCG(seed, 7)), g: hierarchy.NewGraph(), parent: map[hierarchy.ID]hierarchy.ID{},
		from: map[hierarchy.ID]hierarchy.Interval{}, owns: map[hierarchy.ID][]hierarchy.ID{}}
	var events []hierarchy.Event
	add := func(k hierarchy.Kind, valid hierarchy.Interval, f func(*hierarchy.Event)) {
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: k, Valid: valid}
		f(&e)
		events = append(events, e)
	}
	node := func(id hierarchy.ID, principal bool) {
		add(hierarchy.KindNode, hierarchy.Always, func(e *hierarchy.Event) { e.Node = &hierarchy.Node{ID: id, Principal: principal} })
	}
	edge := func(child hierarchy.ID, kind string, parent hierarchy.ID, valid hierarchy.Interval) {
		m.parent[child], m.from[child] = parent, valid
		add(hierarchy.KindEdge, valid, func(e *hierarchy.Event) { e.Edge = &hierarchy.Edge{Child: child, Kind: kind, Parent: parent} })
	}
	for _, r := range permitAll().Catalogue().Roles {
		events = append(events, roleEvent(r))
	}
	node(opID, false)
	node(netID, false)
	for i := range 3 {
		tenant := fmt.Sprintf("t%d", i)
		m.tenants = append(m.tenants, tenant)
		node(hierarchy.TenantID(tenant), false)
		edge(hierarchy.TenantID(tenant), "operatedBy", opID, hierarchy.Always)
		top := []hierarchy.ID{hierarchy.TenantID(tenant)}
		for k := range 4 {
			u := hierarchy.ID{Type: "Unit", Tenant: tenant, Key: fmt.Sprint("u", k)}
			node(u, false)
			edge(u, "under", top[m.rng.IntN(len(top))], m.interval())
			top = append(top, u)
			m.units = append(m.units, u)
		}
		for k := range 3 {
			d := hierarchy.ID{Type: "Desk", Tenant: tenant, Key: fmt.Sprint("d", k)}
			node(d, false)
			edge(d, "under", top[1+m.rng.IntN(len(top)-1)], m.interval())
			m.desks = append(m.desks, d)
		}
	}
	for k := range 3 {
		s := hierarchy.ID{Type: "Site", Key: fmt.Sprint("s", k)}
		node(s, false)
		up := netID
		if k > 0 && m.rng.IntN(2) == 0 {
			up = m.sites[m.rng.IntN(len(m.sites))]
		}
		edge(s, "at", up, m.interval())
		m.sites = append(m.sites, s)
	}
	for k := range 3 {
		p := hierarchy.PersonID(fmt.Sprint("p", k))
		node(p, false)
		m.persons = append(m.persons, p)
		for range 1 + m.rng.IntN(2) {
			d := m.desks[m.rng.IntN(len(m.desks))]
			if slices.Contains(m.owns[d], p) {
				continue
			}
			m.owns[d] = append(m.owns[d], p)
			add(hierarchy.KindLink, hierarchy.Always, func(e *hierarchy.Event) {
				e.Link = &hierarchy.Link{Kind: hierarchy.LinkOwns, From: p, To: d}
			})
		}
	}
	everything := slices.Concat(m.units, m.desks, m.sites, []hierarchy.ID{netID})
	for k := range 4 {
		u := hierarchy.ID{Type: "User", Key: fmt.Sprint("user", k)}
		node(u, true)
		m.users = append(m.users, u)
		switch m.rng.IntN(4) {
		case 0: // a person with a self link
			p, valid := m.persons[m.rng.IntN(len(m.persons))], m.interval()
			m.facts = append(m.facts, foothold{u, p, valid})
			add(hierarchy.KindLink, valid, func(e *hierarchy.Event) { e.Link = &hierarchy.Link{Kind: hierarchy.LinkSelf, From: u, To: p} })
		case 1: // a representative
			p, valid := m.persons[m.rng.IntN(len(m.persons))], m.interval()
			m.facts = append(m.facts, foothold{u, p, valid})
			add(hierarchy.KindGrant, valid, func(e *hierarchy.Event) {
				e.Grant = &hierarchy.Grant{ID: fmt.Sprint("g", k), Type: "proxy", Grantor: p, Grantee: u, Subject: p,
					Scope: hierarchy.Scope{Capabilities: []string{"doc.read"}}}
			})
		default: // an employee, somewhere
			n, valid := everything[m.rng.IntN(len(everything))], m.interval()
			m.facts = append(m.facts, foothold{u, n, valid})
			add(hierarchy.KindAssignment, valid, func(e *hierarchy.Event) {
				e.Assignment = &hierarchy.Assignment{Principal: u, Role: "worker", Node: n}
			})
		}
	}
	m.apply(t, events)
	return m
}

func (m *maze) apply(t testing.TB, events []hierarchy.Event) {
	t.Helper()
	m.batch++
	b := &hierarchy.Batch{Revision: m.batch, Prev: m.g.Tip().Hash, Events: events, Provenance: hierarchy.Provenance{Who: opID}}
	if err := m.g.Check(b); err != nil {
		t.Fatal(err)
	}
	body, err := hierarchy.Encode(b)
	must(t, err)
	must(t, m.g.Apply(hierarchy.Entry{Revision: b.Revision, Body: body}))
}

func (m *maze) interval() hierarchy.Interval {
	switch m.rng.IntN(4) {
	case 0:
		from := epoch + hierarchy.Instant(m.rng.IntN(8))*day
		return hierarchy.Interval{From: from, To: from + hierarchy.Instant(1+m.rng.IntN(4))*day}
	case 1:
		return hierarchy.Interval{From: epoch + hierarchy.Instant(m.rng.IntN(8))*day, To: hierarchy.Forever}
	}
	return hierarchy.Always
}

// above lists a node and what is above it at an instant, as this test knows it.
func (m *maze) above(id hierarchy.ID, at hierarchy.Instant) []hierarchy.ID {
	out := []hierarchy.ID{id}
	for cur := id; ; {
		p, ok := m.parent[cur]
		if !ok || !m.from[cur].Holds(at) {
			break
		}
		out = append(out, p)
		cur = p
	}
	if t := id.Owner(); t != "" { // the tenant is part of the key
		out = append(out, hierarchy.TenantID(t), opID)
	}
	return out
}

// docQuestion is a random question about a document and what it truly hangs from.
type docQuestion struct {
	user    hierarchy.ID
	now, at hierarchy.Instant
	anchors map[string]hierarchy.ID
}

func (m *maze) question() docQuestion {
	q := docQuestion{user: m.users[m.rng.IntN(len(m.users))], now: epoch + hierarchy.Instant(m.rng.IntN(10))*day + hierarchy.Instant(m.rng.IntN(3)-1),
		at: epoch + hierarchy.Instant(m.rng.IntN(10))*day, anchors: map[string]hierarchy.ID{}}
	// Half of the questions are about something near the user.
	if m.rng.IntN(2) == 0 {
		for _, f := range m.facts {
			if f.user != q.user {
				continue
			}
			q.near(m, f.node)
			if m.rng.IntN(3) == 0 {
				q.anchors["site"] = m.sites[m.rng.IntN(len(m.sites))]
			}
			return q
		}
	}
	if m.rng.IntN(4) > 0 {
		q.anchors["desk"] = m.desks[m.rng.IntN(len(m.desks))]
	}
	if m.rng.IntN(3) > 0 || len(q.anchors) == 0 {
		q.anchors["unit"] = m.units[m.rng.IntN(len(m.units))]
	}
	if m.rng.IntN(2) == 0 {
		q.anchors["site"] = m.sites[m.rng.IntN(len(m.sites))]
	}
	return q
}

// near anchors the document at a node, below it, or at what a person owns.
func (q *docQuestion) near(m *maze, n hierarchy.ID) {
	switch n.Type {
	case "Desk":
		q.anchors["desk"] = n
	case "Unit":
		q.anchors["unit"] = n
	case "Site":
		q.anchors["site"] = n
	}
	for _, d := range m.desks {
		if slices.Contains(m.above(d, q.at), n) || slices.Contains(m.owns[d], n) {
			q.anchors["desk"] = d
		}
	}
	if len(q.anchors) == 0 {
		q.anchors["site"] = m.sites[m.rng.IntN(len(m.sites))]
	}
}

func (m *maze) request(q docQuestion, caller string) *authz.Request {
	r := request(caller, "user:"+q.user.Key, "doc.read", "doc:x", "date", q.at.String())
	for _, name := range []string{"desk", "unit", "site"} {
		r.Resource.Properties[name] = nil
		if id, ok := q.anchors[name]; ok {
			r.Resource.Properties[name] = id.String()
		}
	}
	return &r
}

func (m *maze) judge(r *authz.Request, now hierarchy.Instant) judgement {
	set := permitAll()
	a := convert(r, set.Catalogue())
	w := world{set: set, graph: m.g, confers: confers(m.g, set), rev: m.g.Head().Revision, now: now}
	return w.judge(&a)
}

// consistent reports whether the anchors agree: one tenant, and the desk under
// the unit at the date.
func (m *maze) consistent(q docQuestion) bool {
	desk, hasDesk := q.anchors["desk"]
	unit, hasUnit := q.anchors["unit"]
	if hasDesk && hasUnit {
		return desk.Tenant == unit.Tenant && slices.Contains(m.above(desk, q.at), unit)
	}
	return true
}

// expected is what the structure admits, found without the product's code.
func (m *maze) expected(q docQuestion) bool {
	if !m.consistent(q) {
		return false
	}
	var reach []hierarchy.ID
	for _, a := range q.anchors {
		reach = append(reach, m.above(a, q.at)...)
	}
	if d, ok := q.anchors["desk"]; ok {
		reach = append(reach, m.owns[d]...)
	}
	for _, f := range m.facts {
		if f.user == q.user && f.valid.Holds(q.now) && f.node != netID && slices.Contains(reach, f.node) {
			return true
		}
	}
	return false
}

// crosses reports whether an allow would cross a tenant's border: nothing of
// the user lies in the document's tenant, at the operator, on a shared anchor
// of the document, or on its owner.
func (m *maze) crosses(q docQuestion) bool {
	tenant := ""
	for _, name := range []string{"unit", "desk"} {
		if a := q.anchors[name]; a.Tenant != "" {
			tenant = a.Tenant
		}
	}
	for _, f := range m.facts {
		if f.user != q.user {
			continue
		}
		if f.node.Owner() == tenant && tenant != "" || f.node == opID {
			return false
		}
		if f.node.Type == "Site" && q.anchors["site"] != (hierarchy.ID{}) {
			return false
		}
		if f.node.Type == hierarchy.PersonType && slices.Contains(m.owns[q.anchors["desk"]], f.node) {
			return false
		}
	}
	return true
}

// TestTenancy asks random questions in random worlds under a pack that permits
// everything, and compares with what the structure admits.
func TestTenancy(t *testing.T) {
	trials := count(40_000, 1_000_000)
	allowed, crossing, borders := 0, 0, 0
	for seed := uint64(1); trials > 0; seed++ {
		m := newMaze(t, seed)
		for range 100 {
			trials--
			q := m.question()
			j := m.judge(m.request(q, "docs"), q.now)
			got := bool(j.verdict.Effect)
			if m.crosses(q) {
				borders++
				if got {
					crossing++
				}
			}
			if got {
				allowed++
			}
			if want := m.expected(q); got != want {
				t.Fatalf("seed %d: %v at %v for %v: got %v (%s), want %v", seed, q.user, q.now, q.anchors, got, j.verdict.Code, want)
			}
		}
	}
	t.Logf("%d trials: %d allowed, %d across a border, %d allowed across", count(40_000, 1_000_000), allowed, borders, crossing)
	if crossing > 0 {
		t.Errorf("%d cross-tenant allows", crossing)
	}
	if allowed*10 < count(40_000, 1_000_000) || borders*10 < count(40_000, 1_000_000) {
		t.Error("the worlds are too easy: fewer than a tenth of the trials are allowed or at a border")
	}
}

// TestAnchors sends random requests that omit an anchor, contradict another or
// come from a caller that is no authority: none is allowed that the true
// anchors would not allow.
func TestAnchors(t *testing.T) {
	n := count(20_000, 100_000)
	codes := map[authz.Code]int{}
	same := 0
	for seed := uint64(1_000_000); n > 0; seed++ {
		m := newMaze(t, seed)
		for range 50 {
			q := m.question()
			if !m.consistent(q) {
				continue
			}
			n--
			truth := m.judge(m.request(q, "docs"), q.now).verdict.Effect
			r := m.request(q, "docs")
			switch m.rng.IntN(3) {
			case 0:
				names := []string{"desk", "unit", "site"}
				delete(r.Resource.Properties, names[m.rng.IntN(3)])
			case 1:
				other := m.units[m.rng.IntN(len(m.units))]
				desk, ok := q.anchors["desk"]
				if !ok || slices.Contains(m.above(desk, q.at), other) {
					n++
					continue // no contradiction
				}
				r.Resource.Properties["unit"] = other.String()
			case 2: // a gateway claims that the document hangs from somewhere near the user
				lie := m.question()
				for i := 0; i < 8 && !m.expected(lie); i++ {
					lie = m.question()
				}
				lie.user, lie.now = q.user, q.now
				r = m.request(lie, "gateway")
			}
			v := m.judge(r, q.now).verdict
			codes[v.Code]++
			if v.Effect {
				same++
				if !truth {
					t.Fatalf("seed %d: allowed by %v, which the truth denies", seed, r.Resource.Properties)
				}
			}
		}
	}
	t.Logf("codes: %v; %d allowed, all of them true", codes, same)
	if codes[authz.AnchorMissing] == 0 || codes[authz.AnchorConflict] == 0 {
		t.Error("a kind of bad request never came up")
	}
}
