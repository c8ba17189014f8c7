package pdp

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// ceilingPack is a pack whose tenants may confer reading and writing; who works
// for the operator may sign too.
var ceilingPack = sync.OnceValue(func() *policies.Set {
	set, err := policies.Compile(map[string][]byte{
		"schema.cedarschema": []byte(`namespace Lab {
			entity Scope;
			entity Operator, Tenant, Network, Unit, Site in [Scope];
			entity Person in [Scope];
			entity User tags Set<Scope>;
			entity Doc in [Scope];
			type Session = { now: datetime, aal: Long };
			action "doc.read", "doc.write", "doc.sign", "doc.assist" appliesTo { principal: [User], resource: [Doc], context: Session };
		}`),
		"catalogue.yaml": []byte(`
name: lab
namespace: Lab
principals:
  user: {entity: User}
nodes:
  Operator: {}
  Tenant: {}
  Network: {}
  Person: {}
  Unit: {owned: true}
  Site: {}
edges:
  operatedBy: {confers: true, from: [Tenant], to: [Operator]}
  under: {confers: true, from: [Unit], to: [Unit, Tenant]}
  at: {confers: true, from: [Site], to: [Site, Network]}
  near: {confers: false}
grantTypes:
  proxy: {capabilities: [doc.assist]}
  share: {}
links: {self: self}
tenantRoles: [writer]
modules:
  docs: {}
resources:
  doc:
    kind: sent
    entity: Doc
    authority: [docs]
    anchors: {unit: Unit, site: Site}
    owner: unit
    ownerOptional: true
actions:
  doc.read: {}
  doc.write: {}
  doc.sign: {}
  doc.assist: {}
`),
		"roles.yaml": []byte(`
reader: {capabilities: [doc.read]}
writer: {includes: [reader], capabilities: [doc.write]}
signer: {includes: [reader], capabilities: [doc.sign]}
self: {capabilities: [doc.read]}
`),
		"all.cedar": []byte(`
@id("read") permit (principal is Lab::User, action == Lab::Action::"doc.read", resource is Lab::Doc) when { principal.hasTag("doc.read") && resource in principal.getTag("doc.read") };
@id("write") permit (principal is Lab::User, action == Lab::Action::"doc.write", resource is Lab::Doc) when { principal.hasTag("doc.write") && resource in principal.getTag("doc.write") };
@id("sign") permit (principal is Lab::User, action == Lab::Action::"doc.sign", resource is Lab::Doc) when { principal.hasTag("doc.sign") && resource in principal.getTag("doc.sign") };
@id("assist") permit (principal is Lab::User, action == Lab::Action::"doc.assist", resource is Lab::Doc) when { principal.hasTag("doc.assist") && resource in principal.getTag("doc.assist") };
`),
	})
	if err != nil {
		panic(err)
	}
	return set
})

// What the oracle below knows of the pack.
var (
	packCapabilities = []string{"doc.read", "doc.write", "doc.sign", "doc.assist"}
	tenantCeiling    = []string{"doc.read", "doc.write"}
	wardCapabilities = []string{"hierarchy.change", "hierarchy.import", "role.define", "role.assign", "link.change", "grant.change",
		"block.change", "module.change", "policy.activate", "audit.read"}
	rightsThatConfer = []string{"hierarchy.change", "hierarchy.import", "role.define", "role.assign", "link.change", "grant.change", "block.change"}
	proxyGives       = []string{"doc.read", "doc.assist"} // the self role's, and the type's
)

// office is a small random world with admins of all ranks, without a ledger:
// changes go the way of PDP.Change from the questions to the graph.
type office struct {
	rng        *rand.Rand
	m          maze // its graph
	now        hierarchy.Instant
	nodes      []hierarchy.ID // all that ever may be
	users      []hierarchy.ID
	admins     []hierarchy.ID
	persons    []hierarchy.ID
	identities []string
	grants     int
	imports    int
}

const (
	officeNow   = epoch + 10*day
	officeLater = epoch + 20*day
	officePast  = epoch + 5*day
)

func (o *office) world() world {
	set := ceilingPack()
	return world{set: set, graph: o.m.g, confers: confers(o.m.g, set), rev: o.m.g.Head().Revision, now: o.now}
}

// when is a random valid time around the three instants that are looked at.
func (o *office) when() hierarchy.Interval {
	switch o.rng.IntN(8) {
	case 0:
		return hierarchy.Interval{From: epoch + 15*day, To: hierarchy.Forever}
	case 1:
		return hierarchy.Interval{From: hierarchy.Never, To: epoch + 15*day}
	case 2:
		return hierarchy.Interval{From: epoch, To: epoch + 8*day}
	case 3:
		return hierarchy.Interval{From: epoch + 8*day, To: hierarchy.Forever}
	}
	return hierarchy.Always
}

func pickOf[T any](o *office, list []T) T { return list[o.rng.IntN(len(list))] }

func (o *office) some(list []string, percent int) (out []string) {
	for _, s := range list {
		if o.rng.IntN(100) < percent {
			out = append(out, s)
		}
	}
	return out
}

func newOffice(t testing.TB, seed uint64) *office {
	o := &office{rng: rand.New(rand.NewPCG(seed, 11)), now: officeNow}
	o.m.g = hierarchy.NewGraph()
	var first, then []hierarchy.Event
	node := func(id hierarchy.ID, principal bool) {
		e := asserted(hierarchy.KindNode, hierarchy.Always)
		e.Node = &hierarchy.Node{ID: id, Principal: principal}
		first = append(first, e)
	}
	for _, r := range ceilingPack().Catalogue().Roles {
		first = append(first, roleEvent(r))
	}
	node(opID, false)
	node(netID, false)
	o.nodes = []hierarchy.ID{opID, netID}
	for _, tenant := range []string{"t0", "t1"} {
		o.nodes = append(o.nodes, hierarchy.TenantID(tenant))
		node(hierarchy.TenantID(tenant), false)
		for k := range 4 {
			u := hierarchy.ID{Type: "Unit", Tenant: tenant, Key: fmt.Sprint("u", k)}
			if o.nodes = append(o.nodes, u); k < 3 {
				node(u, false)
			}
		}
	}
	for k := range 3 {
		s := hierarchy.ID{Type: "Site", Key: fmt.Sprint("s", k)}
		o.nodes = append(o.nodes, s)
		node(s, false)
	}
	for k := range 2 {
		o.persons = append(o.persons, hierarchy.PersonID(fmt.Sprint("p", k)))
		node(o.persons[k], false)
	}
	for k := range 3 {
		o.users = append(o.users, hierarchy.ID{Type: "User", Key: fmt.Sprint("user", k)})
		node(o.users[k], true)
	}
	for k := range 5 {
		o.admins = append(o.admins, hierarchy.ID{Type: "Admin", Key: fmt.Sprint("a", k)})
		o.identities = append(o.identities, fmt.Sprint(k))
		node(o.admins[k], true)
		e := asserted(hierarchy.KindLink, hierarchy.Always)
		e.Link = &hierarchy.Link{Kind: hierarchy.LinkIdentity, Issuer: UnixIssuer, Sub: fmt.Sprint(k), To: o.admins[k]}
		first = append(first, e)
		// Each admin's own rank: some of Ward's capabilities, somewhere. In a
		// third of the worlds nobody acts for the operator, in another third a
		// clerk of few rights does.
		role := asserted(hierarchy.KindRole, hierarchy.Always)
		role.Role = &hierarchy.Role{Name: fmt.Sprint("rank", k), Capabilities: o.some(wardCapabilities, 40+o.rng.IntN(50))}
		at := o.nodes[o.rng.IntN(len(o.nodes))]
		if o.rng.IntN(2) == 0 {
			at = []hierarchy.ID{opID, netID, hierarchy.TenantID("t0"), hierarchy.TenantID("t1")}[o.rng.IntN(4)]
		}
		if at.Key == "u3" {
			at = hierarchy.TenantID(at.Tenant)
		}
		switch {
		case seed%3 == 0 && at == opID:
			at = hierarchy.TenantID("t0")
		case seed%3 == 1 && k == 0:
			at, role.Role.Capabilities = opID, []string{"hierarchy.change", "link.change"}
		case seed%3 == 1 && at == opID:
			at = hierarchy.TenantID("t1")
		}
		e = asserted(hierarchy.KindAssignment, hierarchy.Always)
		e.Assignment = &hierarchy.Assignment{Principal: o.admins[k], Role: role.Role.Name, Node: at}
		first = append(first, role, e)
	}
	o.identities = append(o.identities, "stray0", "stray1")
	for _, name := range []string{"r0", "r1", "t0/x", "t1/x"} {
		e := asserted(hierarchy.KindRole, hierarchy.Always)
		e.Role = &hierarchy.Role{Name: name, Capabilities: append(o.some(packCapabilities, 40), o.some(wardCapabilities, 10)...)}
		first = append(first, e)
	}
	must(t, o.apply(first))
	for range 12 { // and facts of all kinds, as they may have come to be
		then = o.event()
		_ = o.apply(then) // what the facts refuse is left out
	}
	return o
}

func asserted(k hierarchy.Kind, valid hierarchy.Interval) hierarchy.Event {
	return hierarchy.Event{Op: hierarchy.Assert, Kind: k, Valid: valid}
}

func (o *office) apply(events []hierarchy.Event) error { return o.write(events, nil) }

func (o *office) write(events []hierarchy.Event, m *hierarchy.Import) error {
	o.m.batch = o.m.g.Tip().Revision + 1
	b := &hierarchy.Batch{Revision: o.m.batch, Prev: o.m.g.Tip().Hash, Events: events, Import: m, Time: o.now, Provenance: hierarchy.Provenance{Who: opID}}
	if err := o.m.g.Check(b); err != nil {
		return err
	}
	body, err := hierarchy.Encode(b)
	if err != nil {
		return err
	}
	return o.m.g.Apply(hierarchy.Entry{Revision: b.Revision, Body: body})
}

// change is PDP.Change without ledger and store: "" or why not.
func (o *office) change(sub string, m *hierarchy.Import, events []hierarchy.Event) string {
	actor, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: sub})
	if err != nil {
		return err.Error()
	}
	w := o.world()
	events, err = complete(w, events)
	if err != nil {
		return err.Error()
	}
	for _, a := range w.questions(Change{Actor: actor, Caller: adminCaller, Events: events, Import: m}, events) {
		if j := w.judge(a); !j.verdict.Effect {
			return string(j.verdict.Code)
		}
	}
	if err := o.write(events, m); err != nil {
		return err.Error()
	}
	return ""
}

// known lists the facts that may be ended or voided.
func (o *office) known(kind hierarchy.Kind) []hierarchy.Fact {
	return slices.Collect(o.m.g.At(o.now, o.m.g.Head().Revision, hierarchy.EdgeKinds{}).Facts(kind))
}

// event makes up one change: an event, or a redefinition.
func (o *office) event() []hierarchy.Event {
	out := []hierarchy.Event{{}}
	e := &out[0]
	place := func() hierarchy.ID { return pickOf(o, o.nodes) }
	switch o.rng.IntN(20) {
	case 0, 1, 2: // a role somewhere
		*e = asserted(hierarchy.KindAssignment, o.when())
		a := &hierarchy.Assignment{Principal: pickOf(o, slices.Concat(o.users, o.admins)), Node: place(),
			Role: pickOf(o, []string{"reader", "writer", "signer", "security-admin", "auditor", "rank0", "rank1", "rank2", "r0", "r1", "t0/x", "t1/x"})}
		if tenant, _, ok := strings.Cut(a.Role, "/"); ok {
			for a.Node.Owner() != tenant {
				a.Node = place()
			}
		}
		e.Assignment = a
	case 3, 4: // a role, once more
		*e = asserted(hierarchy.KindRole, hierarchy.Always)
		e.Role = &hierarchy.Role{Name: pickOf(o, []string{"r0", "r1", "t0/x", "t1/x", "rank0", "rank1"}), Capabilities: append(o.some(packCapabilities, 30), o.some(wardCapabilities, 10)...)}
		if o.rng.IntN(4) == 0 {
			e.Role.Includes = []string{pickOf(o, []string{"reader", "writer", "signer", "auditor", "r0"})}
		}
		for _, f := range o.known(hierarchy.KindRole) {
			if f.Event.Role.Name == e.Role.Name {
				out = append([]hierarchy.Event{{Op: hierarchy.Void, Kind: hierarchy.KindRole, Fact: f.ID}}, out...)
			}
		}
	case 5, 6, 7, 8:
		*e = asserted(hierarchy.KindEdge, o.when())
		e.Edge = o.edge()
	case 9: // a node, once more
		*e = asserted(hierarchy.KindNode, o.when())
		e.Node = &hierarchy.Node{ID: place()}
		if o.rng.IntN(3) == 0 {
			e.Node = &hierarchy.Node{ID: pickOf(o, slices.Concat(o.users, o.admins)), Principal: true}
		}
		for _, f := range o.known(hierarchy.KindNode) {
			if f.Event.Node.ID == e.Node.ID && o.rng.IntN(2) == 0 {
				out = append([]hierarchy.Event{{Op: hierarchy.Void, Kind: hierarchy.KindNode, Fact: f.ID}}, out...)
			}
		}
	case 10: // who is who
		*e = asserted(hierarchy.KindLink, o.when())
		switch o.rng.IntN(4) {
		case 0, 1:
			e.Link = &hierarchy.Link{Kind: hierarchy.LinkIdentity, Issuer: UnixIssuer, Sub: pickOf(o, []string{"stray0", "stray1"}), To: pickOf(o, o.admins)}
		case 2:
			e.Link = &hierarchy.Link{Kind: hierarchy.LinkSelf, From: pickOf(o, o.users), To: pickOf(o, o.persons)}
		case 3:
			e.Link = &hierarchy.Link{Kind: hierarchy.LinkMerge, From: o.persons[0], To: o.persons[1]}
		}
	case 11: // what is whose
		*e = asserted(hierarchy.KindLink, o.when())
		e.Link = &hierarchy.Link{Kind: hierarchy.LinkOwns, From: pickOf(o, o.persons), To: place()}
	case 12, 13:
		o.grants++
		*e = asserted(hierarchy.KindGrant, o.when())
		g := &hierarchy.Grant{ID: fmt.Sprint("g", o.grants), Type: "share", Grantee: pickOf(o, o.users), Subject: place(),
			Scope: hierarchy.Scope{Capabilities: []string{pickOf(o, packCapabilities)}}}
		g.Grantor = pickOf(o, []hierarchy.ID{g.Subject, opID})
		if o.rng.IntN(2) == 0 {
			g.Type, g.Subject = "proxy", pickOf(o, o.persons)
			g.Grantor = g.Subject
		}
		e.Grant = g
	case 14:
		*e = asserted(hierarchy.KindBlock, o.when())
		e.Block = &hierarchy.Block{Person: pickOf(o, o.persons), Principal: pickOf(o, o.users), Basis: "refusal"}
	case 15:
		*e = asserted(hierarchy.KindEntitlement, o.when())
		e.Entitlement = &hierarchy.Entitlement{Tenant: pickOf(o, []hierarchy.ID{hierarchy.TenantID("t0"), hierarchy.TenantID("t1")}), Name: "docs"}
	default: // the end of a fact, or that it never was
		kind := pickOf(o, []hierarchy.Kind{hierarchy.KindEdge, hierarchy.KindEdge, hierarchy.KindLink, hierarchy.KindAssignment, hierarchy.KindGrant, hierarchy.KindBlock, hierarchy.KindBlock, hierarchy.KindNode, hierarchy.KindRole})
		facts := o.known(kind)
		if len(facts) == 0 {
			return o.event()
		}
		f := pickOf(o, facts)
		if f.Event.Node != nil && (f.Event.Node.ID == opID || f.Event.Node.ID == netID) {
			return o.event()
		}
		*e = hierarchy.Event{Op: hierarchy.Void, Kind: kind, Fact: f.ID}
		if o.rng.IntN(2) == 0 {
			e.Op, e.At = hierarchy.End, pickOf(o, []hierarchy.Instant{epoch + 7*day, epoch + 12*day})
		}
	}
	return out
}

func (o *office) edge() *hierarchy.Edge {
	for {
		child, parent := pickOf(o, o.nodes), pickOf(o, o.nodes)
		switch {
		case child == parent:
		case child.Type == hierarchy.TenantType && parent == opID:
			return &hierarchy.Edge{Child: child, Kind: "operatedBy", Parent: parent}
		case child.Type == "Unit" && child.Tenant == parent.Owner():
			return &hierarchy.Edge{Child: child, Kind: "under", Parent: parent}
		case child.Type == "Site" && (parent.Type == "Site" || parent == netID):
			return &hierarchy.Edge{Child: child, Kind: pickOf(o, []string{"at", "at", "at", "near"}), Parent: parent}
		}
	}
}

// ------------------------------------------------------------ the oracle

// access is what somebody may do somewhere: who is a user, or the identity of
// an admin.
type access struct {
	who, capability string
	node            hierarchy.ID
}

// picture is what the facts say, found from the list of facts alone.
type picture struct {
	facts []hierarchy.Fact
	nodes []hierarchy.ID
}

func (o *office) picture() picture {
	p := picture{nodes: o.nodes}
	for k := hierarchy.KindNode; k <= hierarchy.KindActivation; k++ {
		p.facts = append(p.facts, o.known(k)...)
	}
	return p
}

func (p picture) exists(id hierarchy.ID, at hierarchy.Instant) bool {
	return slices.ContainsFunc(p.facts, func(f hierarchy.Fact) bool { return f.Event.Node != nil && f.Event.Node.ID == id && f.Valid.Holds(at) })
}

func (p picture) begun(id hierarchy.ID, at hierarchy.Instant) bool {
	return slices.ContainsFunc(p.facts, func(f hierarchy.Fact) bool {
		return f.Event.Node != nil && f.Event.Node.ID == id && f.Valid.From <= at
	})
}

// above lists a node and what is above it.
func (p picture) above(id hierarchy.ID, at hierarchy.Instant) map[hierarchy.ID]bool {
	out := map[hierarchy.ID]bool{id: true}
	if id.Tenant != "" {
		out[hierarchy.TenantID(id.Tenant)] = true
	}
	for grown := true; grown; {
		grown = false
		for _, f := range p.facts {
			if e := f.Event.Edge; e != nil && e.Kind != "near" && f.Valid.Holds(at) && out[e.Child] && !out[e.Parent] && p.exists(e.Parent, at) {
				out[e.Parent], grown = true, true
			}
		}
	}
	return out
}

func (p picture) holds(role string, at hierarchy.Instant) []string {
	var out []string
	names := []string{role}
	for i := 0; i < len(names); i++ {
		for _, f := range p.facts {
			if r := f.Event.Role; r != nil && r.Name == names[i] && f.Valid.Holds(at) {
				out = append(out, r.Capabilities...)
				for _, in := range r.Includes {
					if !slices.Contains(names, in) {
						names = append(names, in)
					}
				}
			}
		}
	}
	if strings.Contains(role, "/") {
		out = slices.DeleteFunc(out, func(c string) bool {
			return slices.Contains(packCapabilities, c) && !slices.Contains(tenantCeiling, c)
		})
	}
	return out
}

func (p picture) merged(person hierarchy.ID, at hierarchy.Instant) map[hierarchy.ID]bool {
	out := map[hierarchy.ID]bool{person: true}
	for _, f := range p.facts {
		if l := f.Event.Link; l != nil && l.Kind == hierarchy.LinkMerge && f.Valid.Holds(at) && (l.From == person || l.To == person) {
			out[l.From], out[l.To] = true, true
		}
	}
	return out
}

// whom lists as whom a principal acts.
func (p picture) whom(principal hierarchy.ID, at hierarchy.Instant) []string {
	if !p.exists(principal, at) {
		return nil
	}
	if principal.Type == "User" {
		return []string{principal.String()}
	}
	var out []string
	for _, f := range p.facts {
		if l := f.Event.Link; l != nil && l.Kind == hierarchy.LinkIdentity && l.To == principal && f.Valid.Holds(at) {
			out = append(out, l.Sub)
		}
	}
	return out
}

// reach lists who may do what where: principals as of at, the hierarchy as of
// read. Blocks take away where they are asked to.
func (p picture) reach(at, read hierarchy.Instant, blocks bool) map[access]bool {
	out := map[access]bool{}
	up := map[hierarchy.ID]map[hierarchy.ID]bool{}
	for _, n := range p.nodes {
		up[n] = p.above(n, read)
		if n.Tenant != "" { // the tenant belongs to its operator now
			maps.Copy(up[n], p.above(hierarchy.TenantID(n.Tenant), at))
		}
	}
	owned := func(persons map[hierarchy.ID]bool) map[hierarchy.ID]bool {
		nodes := map[hierarchy.ID]bool{}
		for _, f := range p.facts {
			if l := f.Event.Link; l != nil && l.Kind == hierarchy.LinkOwns && f.Valid.Holds(at) && persons[l.From] {
				nodes[l.To] = true
			}
		}
		return nodes
	}
	for _, f := range p.facts {
		if !f.Valid.Holds(at) {
			continue
		}
		switch e := f.Event; {
		case e.Assignment != nil && p.begun(e.Assignment.Node, at):
			for _, who := range p.whom(e.Assignment.Principal, at) {
				for _, c := range p.holds(e.Assignment.Role, at) {
					own := slices.Contains(wardCapabilities, c) || !slices.Contains(packCapabilities, c)
					for _, n := range p.nodes {
						if up[n][e.Assignment.Node] || own && e.Assignment.Node == opID {
							out[access{who, c, n}] = true
						}
					}
				}
			}
		case e.Link != nil && e.Link.Kind == hierarchy.LinkSelf:
			for _, who := range p.whom(e.Link.From, at) {
				for n := range owned(p.merged(e.Link.To, at)) {
					for _, c := range p.holds("self", at) {
						out[access{who, c, n}] = true
					}
				}
			}
		case e.Grant != nil:
			for _, who := range p.whom(e.Grant.Grantee, at) {
				for _, c := range e.Grant.Scope.Capabilities {
					if e.Grant.Subject.Type == hierarchy.PersonType {
						for n := range owned(p.merged(e.Grant.Subject, at)) {
							if slices.Contains(proxyGives, c) {
								out[access{who, c, n}] = true
							}
						}
						continue
					}
					for _, n := range p.nodes {
						if up[n][e.Grant.Subject] && (e.Grant.Grantor == opID || e.Grant.Grantor == netID || slices.Contains(tenantCeiling, c)) {
							out[access{who, c, n}] = true
						}
					}
				}
			}
		}
	}
	if !blocks {
		return out
	}
	for _, f := range p.facts {
		if b := f.Event.Block; b != nil && f.Valid.Holds(at) {
			for n := range owned(p.merged(b.Person, at)) {
				for _, c := range packCapabilities {
					delete(out, access{b.Principal.String(), c, n})
				}
			}
		}
	}
	return out
}

// conferrable reports whether any of the callers could confer a capability at a
// node: by the definition of the package documentation, read at all instants.
func (p picture) conferrable(callers []string, capability string, node hierarchy.ID) bool {
	for _, f := range p.facts {
		a := f.Event.Assignment
		if a == nil || !f.Valid.Holds(officeNow) || !p.begun(a.Node, officeNow) {
			continue
		}
		if !slices.ContainsFunc(p.whom(a.Principal, officeNow), func(who string) bool { return slices.Contains(callers, who) }) {
			continue
		}
		if !slices.ContainsFunc(p.holds(a.Role, officeNow), func(c string) bool { return slices.Contains(rightsThatConfer, c) }) {
			continue
		}
		there := a.Node == opID
		for _, at := range []hierarchy.Instant{officePast, officeNow, officeLater} {
			there = there || p.above(node, at)[a.Node]
		}
		if !there {
			continue
		}
		if slices.Contains(packCapabilities, capability) {
			if a.Node == opID || a.Node == netID || slices.Contains(tenantCeiling, capability) {
				return true
			}
			continue
		}
		// Of Ward's own, what the same caller holds there, by any role.
		for _, who := range p.whom(a.Principal, officeNow) {
			for _, at := range []hierarchy.Instant{officePast, officeNow, officeLater} {
				if slices.Contains(callers, who) && p.reach(officeNow, at, false)[access{who, capability, node}] {
					return true
				}
			}
		}
	}
	return false
}

// TestNobodyConfersMore plays random calls of admins of all ranks in random
// worlds. Whatever anybody may do afterwards that they could not do before,
// one of the callers could confer from the start.
func TestNobodyConfersMore(t *testing.T) {
	n := count(1_000, 100_000)
	var calls, made, gained, several atomic.Int64
	var lock sync.Mutex
	why := map[string]int{}
	seeds := make(chan uint64)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := range seeds {
				o := newOffice(t, seed)
				before := o.picture()
				var callers, log []string
				for range 5 + o.rng.IntN(16) {
					who, m, events := o.call()
					code := o.change(who, m, events)
					if calls.Add(1); code == "" {
						made.Add(1)
						callers = append(callers, who)
						for _, e := range events {
							log = append(log, fmt.Sprintf("%s: %s", who, shownEvent(e)))
						}
						if m != nil && o.change(who, &hierarchy.Import{ID: m.ID, Tenant: m.Tenant, Step: hierarchy.ImportClose}, nil) != "" {
							t.Errorf("seed %d: an import does not close", seed)
						}
					}
					code, _, _ = strings.Cut(code, ":")
					lock.Lock()
					why[code]++
					lock.Unlock()
				}
				after := o.picture()
				news := 0
				for _, at := range [][2]hierarchy.Instant{{officeNow, officeNow}, {officeLater, officeLater}, {officeNow, officePast}} {
					had := before.reach(at[0], at[1], true)
					for a := range after.reach(at[0], at[1], true) {
						if had[a] || at[0] != at[1] && !slices.Contains(packCapabilities, a.capability) {
							continue
						}
						news++
						if !before.conferrable(callers, a.capability, a.node) {
							t.Errorf("seed %d: %s got %s at %s (as of %s, read at %s), which none of %v could confer\n%s",
								seed, a.who, a.capability, a.node, at[0], at[1], unique(slices.Clone(callers)), strings.Join(log, "\n"))
							return
						}
					}
				}
				gained.Add(int64(news))
				if news > 0 {
					several.Add(1)
				}
				o.compare(t, seed, after)
			}
		})
	}
	for seed := range uint64(n) {
		if t.Failed() {
			break
		}
		seeds <- seed
	}
	close(seeds)
	workers.Wait()
	t.Logf("%d sequences, %d calls, %d made (%d%%); %d accesses gained, in %d sequences; codes %v",
		n, calls.Load(), made.Load(), 100*made.Load()/max(1, calls.Load()), gained.Load(), several.Load(), why)
	if !t.Failed() && (made.Load()*10 < 3*calls.Load() || several.Load()*2 < int64(n)) {
		t.Error("too few calls were made, or gave anything, to say anything")
	}
}

// call makes up who asks for what. Most callers have the right to make the
// change, apart from what it confers, and most changes are such that the facts
// admit them; but not all.
func (o *office) call() (who string, m *hierarchy.Import, events []hierarchy.Event) {
	tries := 60
	if o.rng.IntN(5) == 0 {
		tries = 1
	}
	w := o.world()
	view := w.graph.At(w.now, w.rev, w.confers)
	for range tries {
		who, m, events = pickOf(o, o.identities), nil, o.event()
		if o.rng.IntN(4) == 0 {
			events = append(events, o.event()...)
		}
		if o.rng.IntN(6) == 0 {
			o.imports++
			m = &hierarchy.Import{ID: fmt.Sprint("i", o.imports), Tenant: pickOf(o, []string{"", "t0", "t1"}), Step: hierarchy.ImportOpen}
		}
		if _, _, ok := view.Principal(UnixIssuer, who); !ok {
			continue
		}
		if o.m.g.Check(&hierarchy.Batch{Events: events, Import: m, Time: o.now, Provenance: hierarchy.Provenance{Who: opID}}) != nil {
			continue
		}
		if o.entitled(w, who, m, events) {
			break
		}
	}
	return who, m, events
}

// entitled reports whether the caller holds the change's actions.
func (o *office) entitled(w world, who string, m *hierarchy.Import, events []hierarchy.Event) bool {
	actor, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: who})
	if err != nil {
		return false
	}
	for _, a := range w.questions(Change{Actor: actor, Caller: adminCaller, Events: events, Import: m}, events) {
		a.Confers = nil
		if !w.judge(a).verdict.Effect {
			return false
		}
	}
	return true
}

// compare holds the oracle against decisions.
func (o *office) compare(t *testing.T, seed uint64, p picture) {
	w := o.world()
	reach := p.reach(o.now, o.now, false)
	view := w.graph.At(w.now, w.rev, w.confers)
	for range 4 {
		u, n, c := pickOf(o, o.users), pickOf(o, o.nodes), pickOf(o, packCapabilities)
		if n.Type != "Unit" && n.Type != "Site" || !view.Known(n) {
			continue
		}
		r := request("docs", "user:"+u.Key, c, "doc:x", "unit", nil, "site", nil)
		r.Resource.Properties[strings.ToLower(n.Type)] = n.String()
		a := convert(&r, w.set.Catalogue())
		want := reach[access{u.String(), c, n}]
		owner := n.Type == "Unit" // only of units does the pack know the owner
		if got := w.judge(&a); bool(got.verdict.Effect) != want && (owner || bool(got.verdict.Effect)) {
			t.Errorf("seed %d: %s %s at %s: decided %s, the facts say %t", seed, u, c, n, got.verdict.Code, want)
		}
	}
	for range 4 {
		who, n, c := pickOf(o, o.identities), pickOf(o, o.nodes), pickOf(o, wardCapabilities)
		if !exists(view, n) {
			continue
		}
		actor, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: who})
		if err != nil {
			t.Error(err)
			return
		}
		if got, want := w.judge(ownQuestion(actor, adminCaller, c, n, nil)), reach[access{who, c, n}]; bool(got.verdict.Effect) != want {
			t.Errorf("seed %d: %s %s at %s: decided %s, the facts say %t", seed, who, c, n, got.verdict.Code, want)
		}
	}
}

func shownEvent(e hierarchy.Event) string {
	s := map[hierarchy.Op]string{hierarchy.Assert: "assert", hierarchy.End: "end", hierarchy.Void: "void"}[e.Op]
	if e.Op != hierarchy.Assert {
		return fmt.Sprintf("%s %d %s %d", s, e.Kind, e.Fact, e.At)
	}
	for _, x := range []any{e.Node, e.Edge, e.Link, e.Role, e.Assignment, e.Grant, e.Block, e.Entitlement} {
		if v := fmt.Sprintf("%+v", x); v != "<nil>" {
			s += " " + v
		}
	}
	return fmt.Sprintf("%s %d..%d", s, e.Valid.From, e.Valid.To)
}
