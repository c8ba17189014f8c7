package pdp

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"iter"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

var update = flag.Bool("update", false, "write testdata/matrix/pbm.golden")

const matrixFile = "../testdata/matrix/pbm.golden"

// matrixNow is when everything is asked; matrixEnd is when what has ended ended.
const (
	matrixNow  = "2026-06-15T12:00:00Z"
	matrixEnd  = "2026-03-01"
	matrixDate = "2026-06-01" // of every record that has one
)

// matrixTree is one client and its hospital with one member of age (mia) and
// one who is not (leo), another client, and the shared network.
const matrixTree = `
	node Operator:ward
	node Network:network
	node Tenant:acme
	node Tenant:zenith
	Tenant:acme operatedBy Operator:ward
	Tenant:zenith operatedBy Operator:ward
	node Carrier:acme/c
	node Account:acme/a
	node Group:acme/g
	node Plan:acme/p
	node StateBook:acme/oh
	node Participation:acme/p1
	Carrier:acme/c memberOf Tenant:acme
	Account:acme/a memberOf Carrier:acme/c
	Group:acme/g memberOf Account:acme/a
	Plan:acme/p memberOf Account:acme/a
	StateBook:acme/oh memberOf Tenant:acme
	Participation:acme/p1 memberOf Tenant:acme
	node HealthSystem:acme/h
	node Site:acme/s
	node Department:acme/d
	node CareTeam:acme/t
	HealthSystem:acme/h partOf Tenant:acme
	Site:acme/s partOf HealthSystem:acme/h
	Department:acme/d partOf Site:acme/s
	CareTeam:acme/t partOf Department:acme/d
	node State:oh
	node Chain:ch
	node Pharmacy:ph
	node Prescriber:pr
	node CoveredEntity:ce
	node Site340B:st
	State:oh belongsTo Network:network
	Chain:ch belongsTo State:oh
	Pharmacy:ph belongsTo Chain:ch
	Prescriber:pr belongsTo Chain:ch
	CoveredEntity:ce belongsTo Network:network
	Site340B:st siteOf CoveredEntity:ce
	person Person:mia born 1990-05-05 in US-OH
	person Person:leo born 2012-05-05 in US-OH
	node Coverage:acme/mia
	node Coverage:acme/leo
	node Patient:acme/mia
	node Patient:acme/leo
	Coverage:acme/mia enrolledIn Group:acme/g
	Coverage:acme/leo enrolledIn Group:acme/g
	Coverage:acme/mia enrolledIn Plan:acme/p
	Coverage:acme/leo enrolledIn Plan:acme/p
	Patient:acme/mia partOf CareTeam:acme/t
	Patient:acme/leo partOf CareTeam:acme/t
	Person:mia owns Coverage:acme/mia
	Person:mia owns Patient:acme/mia
	Person:leo owns Coverage:acme/leo
	Person:leo owns Patient:acme/leo
	principal User:else
	node Account:zenith/else
	node Account:zenith/none
	node Account:zenith/live
	node Account:zenith/expired
	node Account:zenith/revoked
	node Account:zenith/void
	node Account:zenith/broker-of-record`

// matrixRelation is where a role is assigned, as seen from acme's records.
type matrixRelation struct {
	name string
	at   []string
	area string // in which features and routes are asked
}

var matrixRelations = []matrixRelation{
	{"operator", []string{"Operator:ward"}, "Tenant:acme"},
	{"network", []string{"Network:network"}, "Network:network"},
	{"partner", []string{"Pharmacy:ph", "Prescriber:pr", "CoveredEntity:ce", "Site340B:st"}, "Network:network"},
	{"tenant", []string{"Tenant:acme"}, "Tenant:acme"},
	{"group", []string{"Group:acme/g", "Plan:acme/p", "CareTeam:acme/t"}, "Tenant:acme"},
	{"elsewhere", []string{"Tenant:zenith"}, "Tenant:acme"},
}

// matrixColumns are the states in which a principal asks. What a role alone
// gives is the first; the dead ones must add nothing to it.
var matrixColumns = []struct {
	name string
	dead bool
}{{"role", false}, {"live", false}, {"expired", true}, {"revoked", true}, {"void", true}, {"open", false}, {"stale", true}}

// matrixKinds says who holds a role, or has a grant of a type, where it is no user.
var matrixKinds = map[string]string{
	"security-admin": "Admin", "auditor": "Admin", "support": "Admin", "policy-approver": "Admin",
	"eligibility-client": "AppClient", "enrolment-feed": "AppClient", "claims-feed": "AppClient", "report-export": "AppClient",
	"ehr-sync": "AppClient", "bulk-export": "AppClient", "smart-app": "AppClient", "embed": "AppClient", "app-connection": "AppClient",
}

func matrixKind(name string) string { return cmp.Or(matrixKinds[name], "User") }

// matrixDelegate is how one organisation lets another act. A broker of record's
// grant is another name for it, and gives the same.
const matrixDelegate, matrixBroker = "org-delegate", "broker-of-record"

// matrixVariants are what may be said of a record besides the benign: where the
// answer is an allow too, the cell has the mark.
var matrixVariants = []struct {
	mark     string
	of       func(rt *policies.ResourceType) bool
	set      func(rt *policies.ResourceType, props map[string]any)
	employer bool // asked where the tenant has set employerSeesMember
}{
	{mark: "b", of: hasAttribute("sensitivity"), set: sends("sensitivity", "behavioral")},
	{mark: "r", of: hasAttribute("sensitivity"), set: sends("sensitivity", "reproductive")},
	{mark: "p", of: hasAttribute("sensitivity"), set: sends("sensitivity", "part2")},
	{mark: "m", of: hasAttribute("minorConsent"), set: sends("minorConsent", true)},
	{mark: "n", of: hasAttribute("smallestCell"), set: sends("smallestCell", 1)},
	{mark: "l", of: func(rt *policies.ResourceType) bool { return rt.OwnerOptional },
		set: func(rt *policies.ResourceType, props map[string]any) { props[rt.Owner] = nil }},
	{mark: "e", of: func(rt *policies.ResourceType) bool {
		return rt.Kind == policies.KindSent || rt.Kind == policies.KindGraph
	},
		set: func(*policies.ResourceType, map[string]any) {}, employer: true},
}

func hasAttribute(name string) func(*policies.ResourceType) bool {
	return func(rt *policies.ResourceType) bool {
		a := rt.Attributes[name]
		return a != nil && a.From == policies.FromSent
	}
}

func sends(name string, value any) func(*policies.ResourceType, map[string]any) {
	return func(_ *policies.ResourceType, props map[string]any) { props[name] = value }
}

const matrixLegend = `# The permission matrix of the shipped pack: what is allowed, and by which policies.
# Written by: go test ./pdp -run TestThePermissionMatrix -update
#
# who       a role; a grant's type, held by somebody without a role; nobody: any principal at all
# relation  where the role is held, as seen from the record:
#             operator, tenant, group (lowest organisations above it), elsewhere (another tenant),
#             network, partner (the pharmacy, prescriber, covered entity and site that it names),
#             self (at the tenant, and the record is their own),
#             org-delegate (at another tenant's organisation, which has a grant over the tenant),
#             emergency (at the tenant, and an emergency for this patient)
#           or granted: a grant of that type about the record's owner
# role      by the role alone; then with a grant that is live, expired, revoked, void, and with an
#           emergency that is open, stale
# features, routes  shown and answered (in the area of the tenant, or of the network for network and
#           partner), by capability of the action's name
#
# A record is routine, about one adult (a minor for the grants that end at majority), by another author,
# assigned to who asks, of 11 members at least, asked with a second factor and within a call.
# Also allowed (+): b behavioral, r reproductive, p part 2 of 42 CFR, m a minor's own consent,
# n figures that name members, l a list of many members, e alike where employers see their members' records.
# What nobody needs a role for is listed once; self lists what its role and the member do not have alone.

`

// question is one line of the matrix for each principal: an action, and of what.
type question struct {
	name, action, resource, of string
	variants                   []int
}

// matrix is the world, with the questions.
type matrix struct {
	t         testing.TB
	cat       *policies.Catalogue
	plain     world             // at the revision before the setting
	employer  world             // and after it
	nodes     map[string]string // one of each type, in acme or shared
	questions []question
	rows      []matrixRow
	brokers   [][2]hierarchy.ID // who is delegated and who is a broker of record, of each role
	routine   [][3]hierarchy.ID // whose live grant covers all, whose covers nothing, and about whom, of each type
	unscoped  hierarchy.ID      // a machine with every capability and no scope
	memo      sync.Map          // answers by principal
}

// matrixRow is everything that is asked for one who and relation.
type matrixRow struct {
	who, relation, person, area string
	columns                     map[string]hierarchy.ID
	known                       []hierarchy.ID // what these are allowed is not listed again
}

// newMatrix makes the world: the tree, and a principal for each cell.
func newMatrix(t testing.TB) *matrix {
	set := pbm()
	m := &matrix{t: t, cat: set.Catalogue(), nodes: map[string]string{}}
	events, err := sentences(matrixTree)
	must(t, err)
	for _, e := range events {
		if e.Node != nil && e.Node.ID.Owner() != "zenith" {
			m.nodes[e.Node.ID.Type] = e.Node.ID.String()
		}
	}
	instant := func(s string) hierarchy.Instant {
		at, err := ParseTime(s, "", false)
		must(t, err)
		return at
	}
	now := instant(matrixNow)
	fact := func(kind hierarchy.Kind, set func(*hierarchy.Event)) {
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: kind, Valid: hierarchy.Always}
		set(&e)
		events = append(events, e)
	}
	parse := func(s string) hierarchy.ID {
		id, err := hierarchy.ParseID(s)
		must(t, err)
		return id
	}
	capabilities := m.capabilities()
	principal := func(kind, key string) hierarchy.ID {
		id := hierarchy.ID{Type: kind, Key: key}
		fact(hierarchy.KindNode, func(e *hierarchy.Event) {
			e.Node = &hierarchy.Node{ID: id, Principal: true}
			if kind == "AppClient" {
				scopes := capabilities
				if key == "unscoped" {
					scopes = []string{}
				}
				e.Node.Attrs = map[string]any{"scopes": scopes, "egress": "10.0.0.0/8"}
			}
		})
		return id
	}
	holds := func(id hierarchy.ID, role string, nodes ...string) hierarchy.ID {
		for _, n := range nodes {
			fact(hierarchy.KindAssignment, func(e *hierarchy.Event) {
				e.Assignment = &hierarchy.Assignment{Principal: id, Role: role, Node: parse(n)}
			})
		}
		return id
	}
	is := func(id hierarchy.ID, person string) hierarchy.ID {
		fact(hierarchy.KindLink, func(e *hierarchy.Event) {
			e.Link = &hierarchy.Link{Kind: hierarchy.LinkSelf, From: id, To: hierarchy.PersonID(person)}
		})
		return id
	}
	var closing []hierarchy.Event // the second change
	grant := func(state, typ string, grantor, grantee, subject hierarchy.ID, covers ...string) {
		gives := func(c string) bool { return m.cat.Delegable(typ, c) } // as much as it may
		if subject.Type != hierarchy.PersonType {
			gives = m.cat.WithinTenant
		}
		fact(hierarchy.KindGrant, func(e *hierarchy.Event) {
			e.Grant = &hierarchy.Grant{ID: fmt.Sprintf("g-%d", len(events)), Type: typ, Grantor: grantor, Grantee: grantee, Subject: subject,
				Scope: hierarchy.Scope{Capabilities: slices.DeleteFunc(slices.Clone(capabilities), func(c string) bool { return !gives(c) }), Covers: covers}}
			is := hierarchy.FactID{Revision: 1, Index: uint32(len(events))}
			switch state {
			case "expired":
				e.Valid.To = instant(matrixEnd)
			case "revoked":
				closing = append(closing, hierarchy.Event{Op: hierarchy.End, Kind: hierarchy.KindGrant, Fact: is, At: instant(matrixEnd)})
			case "void":
				closing = append(closing, hierarchy.Event{Op: hierarchy.Void, Kind: hierarchy.KindGrant, Fact: is})
			}
		})
	}

	for name := range m.cat.Modules {
		for _, tenant := range []string{"acme", "zenith"} {
			fact(hierarchy.KindEntitlement, func(e *hierarchy.Event) {
				e.Entitlement = &hierarchy.Entitlement{Tenant: hierarchy.TenantID(tenant), Name: name}
			})
		}
	}
	// Every capability, but for that of who serves callers, which takes away: and
	// of these all but one, or none.
	roles := slices.Clone(m.cat.Roles)
	but := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(capabilities), func(c string) bool { return c == name || c == "member.call" })
	}
	for _, c := range capabilities {
		roles = append(roles, policies.Role{Name: "but-" + c, Capabilities: but(c)})
	}
	roles = append(roles, policies.Role{Name: "all", Capabilities: but("")}, policies.Role{Name: "none"})
	for _, r := range roles {
		events = append(events, roleEvent(r))
	}
	// Who asks about routes alone.
	for _, kind := range []string{"User", "AppClient"} {
		holds(principal(kind, "all"), "all", "Tenant:acme")
		holds(principal(kind, "none"), "none", "Tenant:acme")
		holds(principal(kind, "elsewhere"), "all", "Tenant:zenith")
		for _, c := range capabilities {
			holds(principal(kind, "but-"+c), "but-"+c, "Tenant:acme")
		}
		ended, mia, acme := principal(kind, "ended"), hierarchy.PersonID("mia"), hierarchy.TenantID("acme")
		grant("expired", "adult-proxy", mia, ended, mia)
		grant("expired", matrixDelegate, acme, ended, acme)
	}

	m.unscoped = holds(principal("AppClient", "unscoped"), "all", "Tenant:acme")

	nobody := map[string]hierarchy.ID{}
	for _, p := range m.cat.Principals {
		kind := baseName(p.Entity)
		nobody[kind] = principal(kind, "nobody")
		m.rows = append(m.rows, matrixRow{who: "nobody", relation: "none", person: "mia", area: "Tenant:acme",
			columns: map[string]hierarchy.ID{"role": nobody[kind]}})
	}
	member := is(principal("User", "self"), "mia")
	m.rows = append(m.rows, matrixRow{m.cat.SelfRole, "self", "mia", "Tenant:acme", map[string]hierarchy.ID{"role": member}, []hierarchy.ID{nobody["User"]}})

	states := []string{"live", "expired", "revoked", "void"}
	sensitivities := m.cat.Resources["lab"].Attributes["sensitivity"].Enum
	for _, r := range m.cat.Roles {
		kind := matrixKind(r.Name)
		id := func(rel string) hierarchy.ID { return principal(kind, r.Name+"-"+rel) }
		row := func(rel, area string, columns map[string]hierarchy.ID, known ...hierarchy.ID) {
			m.rows = append(m.rows, matrixRow{r.Name, rel, "mia", area, columns, append(known, nobody[kind])})
		}
		var atTenant hierarchy.ID
		for _, rel := range matrixRelations {
			p := holds(id(rel.name), r.Name, rel.at...)
			row(rel.name, rel.area, map[string]hierarchy.ID{"role": p})
			if rel.name == "tenant" {
				atTenant = p
			}
		}
		if kind == "User" {
			row("self", "Tenant:acme", map[string]hierarchy.ID{"role": is(holds(id("self"), r.Name, "Tenant:acme"), "mia")}, member, atTenant)
		}
		columns := map[string]hierarchy.ID{"role": holds(id("none"), r.Name, "Account:zenith/none")}
		for _, state := range states {
			columns[state] = holds(id(state), r.Name, "Account:zenith/"+state)
		}
		row(matrixDelegate, "Tenant:acme", columns)
		m.brokers = append(m.brokers, [2]hierarchy.ID{columns["live"], holds(id(matrixBroker), r.Name, "Account:zenith/"+matrixBroker)})
		if m.holds(r, "emergency.open") {
			columns := map[string]hierarchy.ID{"role": atTenant}
			for state, from := range map[string]hierarchy.Instant{"open": now - 60_000, "stale": now - 24*60*60_000} {
				columns[state] = holds(id(state), r.Name, "Tenant:acme")
				fact(hierarchy.KindEmergency, func(e *hierarchy.Event) {
					e.Valid = hierarchy.Interval{From: from, To: from + hierarchy.MaxEmergency}
					e.Emergency = &hierarchy.Emergency{ID: "e-" + r.Name + "-" + state, Principal: columns[state], Person: hierarchy.PersonID("mia"),
						Node: parse("Patient:acme/mia"), Reason: m.cat.Emergency.Reasons[0]}
				})
			}
			row("emergency", "Tenant:acme", columns)
		}
	}
	for _, typ := range slices.Sorted(maps.Keys(m.cat.GrantTypes)) {
		acme := parse("Tenant:acme")
		switch typ {
		case matrixDelegate:
			for _, state := range states {
				grant(state, typ, acme, parse("Account:zenith/"+state), acme, sensitivities...)
			}
			continue
		case matrixBroker:
			grant("live", typ, acme, parse("Account:zenith/"+typ), acme, sensitivities...)
			continue
		}
		kind, person := matrixKind(typ), "mia"
		if m.cat.GrantTypes[typ].EndsAtMajority {
			person = "leo"
		}
		row := matrixRow{typ, "granted", person, "Tenant:acme", map[string]hierarchy.ID{}, []hierarchy.ID{nobody[kind]}}
		for _, state := range states {
			row.columns[state] = principal(kind, typ+"-"+state)
			grant(state, typ, hierarchy.PersonID(person), row.columns[state], hierarchy.PersonID(person), sensitivities...)
		}
		m.rows = append(m.rows, row)
		// And one without a word about what is more than routine.
		plain := principal(kind, typ+"-plain")
		grant("live", typ, hierarchy.PersonID(person), plain, hierarchy.PersonID(person))
		m.routine = append(m.routine, [3]hierarchy.ID{row.columns["live"], plain, hierarchy.PersonID(person)})
	}

	g := hierarchy.NewGraph()
	apply := func(events []hierarchy.Event) {
		events, err := complete(world{set: set, graph: g}, events)
		must(t, err)
		tip := g.Tip()
		b := &hierarchy.Batch{Revision: tip.Revision + 1, Prev: tip.Hash, Time: now, Events: events,
			Provenance: hierarchy.Provenance{Who: hierarchy.ID{Type: "Admin", Key: "test"}}}
		must(t, g.Check(b))
		body, err := hierarchy.Encode(b)
		must(t, err)
		must(t, g.Apply(hierarchy.Entry{Revision: b.Revision, Body: body}))
	}
	apply(events)
	apply(closing)
	m.plain = world{set: set, graph: g, confers: confers(g, set), rev: g.Head().Revision, now: now}
	apply([]hierarchy.Event{{Op: hierarchy.Assert, Kind: hierarchy.KindSetting, Valid: hierarchy.Always,
		Setting: &hierarchy.Setting{Tenant: hierarchy.TenantID("acme"), Name: "employerSeesMember", Value: true}}})
	m.employer = m.plain
	m.employer.rev = g.Head().Revision
	m.ask()
	return m
}

// capabilities lists all that a role or grant of the pack may hold.
func (m *matrix) capabilities() []string {
	all := map[string]bool{}
	for name, a := range m.cat.Actions {
		if !a.Coarse && !slices.Contains(a.Resources, "object") {
			all[name] = true
		}
	}
	for _, f := range m.cat.Features {
		all[f.Capability] = true
	}
	for _, r := range m.cat.Routes {
		all[r.Capability] = true
	}
	for _, r := range m.cat.Roles {
		for _, c := range r.Capabilities {
			if a := m.cat.Actions[c]; a == nil {
				all[c] = true
			}
		}
	}
	return sorted(all)
}

// holds reports whether a role holds a capability, by itself or by what it includes.
func (m *matrix) holds(r policies.Role, capability string) bool {
	return slices.Contains(r.Capabilities, capability) || slices.ContainsFunc(m.cat.Roles, func(in policies.Role) bool {
		return slices.Contains(r.Includes, in.Name) && m.holds(in, capability)
	})
}

// ask makes the questions: each action of the catalogue, of each of its
// resources.
func (m *matrix) ask() {
	for _, action := range slices.Sorted(maps.Keys(m.cat.Actions)) {
		a := m.cat.Actions[action]
		for _, resource := range a.Resources {
			rt := m.cat.Resources[resource]
			q := question{name: action, action: action, resource: resource}
			if len(a.Resources) > 1 {
				q.name += " " + resource
			}
			for i, v := range matrixVariants {
				if v.of(rt) {
					q.variants = append(q.variants, i)
				}
			}
			of := []string{""}
			switch rt.Kind {
			case policies.KindFeature, policies.KindRoute:
				continue // these are columns
			case policies.KindGrant:
				of = []string{"", "of-node", "as-grantee"}
			case policies.KindEmergency:
				of = []string{"as-opener"}
				if action != ActionOpenEmergency {
					of = append(of, "")
				}
			}
			for _, of := range of {
				q := q
				q.of = of
				if of != "" && action != ActionOpenEmergency {
					q.name += "/" + of
				}
				m.questions = append(m.questions, q)
			}
		}
	}
}

// node returns the node of a type that a person's records hang from.
func (m *matrix) node(typ, person string) string {
	id, ok := m.nodes[typ]
	if !ok {
		panic("the matrix has no node of type " + typ + ": add one to matrixTree")
	}
	if typ == "Coverage" || typ == "Patient" {
		return typ + ":acme/" + person
	}
	return id
}

// request is a question as a principal asks it, about one person's record.
func (m *matrix) request(who hierarchy.ID, person string, q question, variant int) (authz.Request, *hierarchy.Event) {
	r := m.by(who)
	rt, act := m.cat.Resources[q.resource], m.cat.Actions[q.action]
	r.Action.Name = q.action
	r.Resource = authz.Resource{Type: q.resource, ID: "r"}
	var draft *hierarchy.Event
	switch rt.Kind {
	case policies.KindGraph:
		r.Resource.ID = m.node(rt.Node, person)
		r.Caller.Name = rt.Module + "-service"
	case policies.KindSent:
		r.Caller.Name = rt.Authority[0]
		props := map[string]any{}
		for _, a := range rt.Anchors {
			props[a.Property] = m.node(a.Type, person)
		}
		if rt.Instant != "" {
			props[rt.Instant] = matrixDate
		}
		for name, a := range rt.Attributes {
			if a.From == policies.FromSent {
				props[name] = m.benign(name, who)
			}
		}
		r.Resource.Properties = props
	case policies.KindGrant:
		id, mia := hierarchy.PersonID(person), hierarchy.ID{Type: "Patient", Tenant: "acme", Key: person}
		g := &hierarchy.Grant{ID: "draft", Type: "adult-proxy", Grantor: id, Grantee: hierarchy.ID{Type: "User", Key: "else"}, Subject: id,
			Scope: hierarchy.Scope{Capabilities: []string{"lab.view"}, Coverage: mia},
			Needs: []hierarchy.Need{{As: hierarchy.SignerGrantor, By: id}, {As: hierarchy.SignerVerifier}}}
		switch q.of {
		case "as-grantee":
			g.Type, g.Grantor, g.Grantee = "parent", who, who
		case "of-node":
			group := hierarchy.ID{Type: "Group", Tenant: "acme", Key: "g"}
			g.Type, g.Grantor, g.Grantee, g.Subject, g.Scope.Coverage = "org-delegate", group, hierarchy.ID{Type: "Account", Tenant: "zenith", Key: "else"}, group, hierarchy.ID{}
			g.Needs = []hierarchy.Need{{As: hierarchy.SignerGrantor, By: group}}
		}
		draft = &hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindGrant, Valid: hierarchy.Always, Grant: g}
	case policies.KindEmergency:
		e := &hierarchy.Emergency{ID: "draft", Principal: hierarchy.ID{Type: "User", Key: "else"}, Person: hierarchy.PersonID(person),
			Node: hierarchy.ID{Type: "Patient", Tenant: "acme", Key: person}, Reason: m.cat.Emergency.Reasons[0]}
		if q.of == "as-opener" {
			e.Principal = who
		}
		draft = &hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindEmergency, Valid: hierarchy.Always, Emergency: e}
	}
	for name := range act.Properties {
		if r.Action.Properties == nil {
			r.Action.Properties = map[string]any{}
		}
		r.Action.Properties[name] = m.benign(name, who)
	}
	if variant >= 0 {
		matrixVariants[variant].set(rt, r.Resource.Properties)
	}
	return r, draft
}

// by starts a request of a principal.
func (m *matrix) by(who hierarchy.ID) authz.Request {
	subject := authz.Subject{ID: who.Key, Assurance: 2}
	for name, p := range m.cat.Principals {
		if baseName(p.Entity) == who.Type {
			subject.Type = name
		}
	}
	return authz.Request{Caller: authz.Caller{Name: "gateway"}, Subject: authz.Verified(subject),
		Context: map[string]any{"ip": "10.1.2.3", "interaction": "i-1"}}
}

// benign returns what is sent for an attribute, unless a variant says otherwise.
func (m *matrix) benign(name string, who hierarchy.ID) any {
	switch name {
	case "sensitivity":
		return "routine"
	case "minorConsent":
		return false
	case "author", "holder":
		return "else"
	case "assignees":
		return []any{who.Key}
	case "flagged":
		return true
	case "smallestCell":
		return 11
	case "days":
		return 30
	case "recipient":
		return "cfo"
	}
	panic("the matrix does not know what is benign for the attribute " + name + ": say so in benign")
}

// record judges a question about a record.
func (m *matrix) record(who hierarchy.ID, person string, q question, variant int) authz.Verdict {
	r, draft := m.request(who, person, q, variant)
	w := m.plain
	if variant >= 0 && matrixVariants[variant].employer {
		w = m.employer
	}
	return m.judge(w, r, draft)
}

// door judges a feature or a route in an area.
func (m *matrix) door(who hierarchy.ID, kind policies.ResourceKind, id, area string) authz.Verdict {
	return m.judge(m.plain, m.coarse(who, kind, id, area), nil)
}

// coarse is a question about a feature or a route.
func (m *matrix) coarse(who hierarchy.ID, kind policies.ResourceKind, id, area string) authz.Request {
	r := m.by(who)
	r.Action.Name = map[policies.ResourceKind]string{policies.KindFeature: "feature.see", policies.KindRoute: "route.call"}[kind]
	r.Resource = authz.Resource{Type: string(kind), ID: id}
	r.Area = area
	return r
}

func (m *matrix) judge(w world, r authz.Request, draft *hierarchy.Event) authz.Verdict {
	a := convert(&r, m.cat)
	a.Draft = draft
	if rt := m.cat.Resources[r.Resource.Type]; rt.Kind == policies.KindWard {
		a.Hangs = []hierarchy.ID{hierarchy.TenantID("acme")}
	}
	return w.judge(&a).verdict
}

// answers is all that one principal is allowed: a cell by question, and what shows
// and answers.
type answers struct {
	cells            map[string]string
	features, routes map[string]bool
}

// answers asks a principal everything, once.
func (m *matrix) answers(who hierarchy.ID, person, area string) answers {
	once, _ := m.memo.LoadOrStore([3]string{who.String(), person, area}, sync.OnceValue(func() answers { return m.asked(who, person, area) }))
	return once.(func() answers)()
}

func (m *matrix) asked(who hierarchy.ID, person, area string) answers {
	out := answers{map[string]string{}, map[string]bool{}, map[string]bool{}}
	for _, q := range m.questions {
		cell := ""
		v := m.record(who, person, q, -1)
		reasons := strings.Join(v.Reasons, ",")
		if v.Effect == authz.Allow {
			cell = reasons
		}
		// No variant gives standing, nor a permit where none is satisfied; a campaign
		// does not take the second for granted.
		if v.Code != authz.Permitted && v.Code != authz.Forbidden && !(campaign && v.Code == authz.Denied) {
			continue
		}
		for _, i := range q.variants {
			x := m.record(who, person, q, i)
			switch with := strings.Join(x.Reasons, ","); {
			case x.Effect != authz.Allow:
				if v.Effect == authz.Allow && matrixVariants[i].employer {
					m.t.Errorf("%s is allowed %s, and is not where employers see members", who, q.name)
				}
			case v.Effect == authz.Allow && with == reasons:
				if !matrixVariants[i].employer {
					cell += "+" + matrixVariants[i].mark
				}
			default:
				cell += "+" + matrixVariants[i].mark + ":" + with
			}
		}
		if cell != "" {
			out.cells[q.name] = cell
		}
	}
	for id := range m.cat.Features {
		if m.door(who, policies.KindFeature, id, area).Effect == authz.Allow {
			out.features[id] = true
		}
	}
	for id := range m.cat.Routes {
		if m.door(who, policies.KindRoute, id, area).Effect == authz.Allow {
			out.routes[id] = true
		}
	}
	return out
}

// lines writes one row: a line for each action that it allows anything of, in
// whichever of its columns.
func (m *matrix) lines(row matrixRow) []string {
	known := answers{map[string]string{}, map[string]bool{}, map[string]bool{}}
	elsewhere := map[string][]string{} // cells that are listed elsewhere, by question
	for _, id := range row.known {
		a := m.answers(id, row.person, row.area)
		for q, cell := range a.cells {
			elsewhere[q] = append(elsewhere[q], cell)
		}
		maps.Copy(known.features, a.features)
		maps.Copy(known.routes, a.routes)
	}
	cells := map[string][]string{}
	features, routes := map[string][]string{}, map[string][]string{}
	alone := answers{}
	for i, column := range matrixColumns {
		who, asked := row.columns[column.name]
		if !asked {
			continue
		}
		a := m.answers(who, row.person, row.area)
		for q, cell := range a.cells {
			if slices.Contains(elsewhere[q], cell) || column.name != "role" && alone.cells[q] == cell {
				continue
			}
			if column.dead {
				m.t.Errorf("%s %s %s: allowed %s by %s", row.who, row.relation, column.name, q, cell)
			}
			if cells[q] == nil {
				cells[q] = make([]string, len(matrixColumns))
			}
			cells[q][i] = cell
		}
		shows := func(into map[string][]string, seen, known, alone map[string]bool, capability func(id string) string) {
			for id := range seen {
				if known[id] || alone[id] {
					continue
				}
				if column.dead {
					m.t.Errorf("%s %s %s: %s answers", row.who, row.relation, column.name, id)
				}
				into[capability(id)] = append(into[capability(id)], id)
			}
		}
		shows(features, a.features, known.features, alone.features, func(id string) string { return m.cat.Features[id].Capability })
		shows(routes, a.routes, known.routes, alone.routes, func(id string) string { return m.cat.Routes[id].Capability })
		if column.name == "role" {
			alone = a
		}
	}
	names := map[string]bool{}
	for _, m := range []map[string][]string{cells, features, routes} {
		for name := range m {
			names[name] = true
		}
	}
	var out []string
	for _, name := range sorted(names) {
		w := []string{row.who, name, row.relation}
		for i := range matrixColumns {
			cell := ""
			if cells[name] != nil {
				cell = cells[name][i]
			}
			w = append(w, cmp.Or(cell, "-"))
		}
		slices.Sort(features[name])
		slices.Sort(routes[name])
		w = append(w, cmp.Or(strings.Join(features[name], ","), "-"), cmp.Or(strings.Join(routes[name], ","), "-"))
		out = append(out, strings.Join(w, "\t"))
	}
	return out
}

// each runs f for 0 to n-1, on every processor.
func each(n int, f func(i int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}

// matrixExempt lists what does not appear in the matrix, and why. It only shrinks.
var matrixExempt = map[string]string{
	"who smart-app":        "holds nothing: an app acts by the grant of the person who connected it (app-connection)",
	"who support":          "holds nothing: support examines Ward and sees no answer of it",
	"who broker-of-record": "the same as org-delegate, cell by cell: below",
}

func TestThePermissionMatrix(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	rows := make([][]string, len(m.rows))
	each(len(m.rows), func(i int) { rows[i] = m.lines(m.rows[i]) })

	var b bytes.Buffer
	b.WriteString(matrixLegend)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	who := ""
	named := map[string]bool{} // what appears
	for i, row := range m.rows {
		if who != row.who && len(rows[i]) > 0 { // each has columns of its own width
			w.Flush()
			if who != "" {
				b.WriteString("\n")
			}
			fmt.Fprint(w, "who\taction\trelation")
			for _, c := range matrixColumns {
				fmt.Fprint(w, "\t", c.name)
			}
			fmt.Fprintln(w, "\tfeatures\troutes")
			who = row.who
		}
		for _, line := range rows[i] {
			fmt.Fprintln(w, line)
			cells := strings.Split(line, "\t")
			action, _, _ := strings.Cut(cells[1], "/")
			if row.relation == "elsewhere" {
				t.Errorf("another tenant's: %s", line)
			}
			if slices.ContainsFunc(cells[3:len(cells)-2], func(c string) bool { return c != "-" }) {
				named["action "+action] = true
				if a := m.cat.Actions[action]; a != nil {
					named["resource "+a.Resources[0]] = true
				}
			}
			named["who "+row.who], named["who "+row.relation] = true, true
			for _, id := range strings.Split(cells[len(cells)-2], ",") {
				named["feature "+id], named["action feature.see"], named["resource feature"] = true, true, true
			}
			for _, id := range strings.Split(cells[len(cells)-1], ",") {
				named["route "+id], named["action route.call"], named["resource route"] = true, true, true
			}
		}
	}
	w.Flush()
	if *update {
		must(t, os.WriteFile(matrixFile, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(matrixFile)
	must(t, err)
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("the matrix has changed: review the difference after go test ./pdp -run TestThePermissionMatrix -update")
	}

	var all []string
	for kind, ids := range map[string]iter.Seq[string]{
		"action": maps.Keys(m.cat.Actions), "resource": maps.Keys(m.cat.Resources), "feature": maps.Keys(m.cat.Features),
		"route": maps.Keys(m.cat.Routes), "who": maps.Keys(m.cat.GrantTypes)} {
		for id := range ids {
			all = append(all, kind+" "+id)
		}
	}
	for _, r := range m.cat.Roles {
		all = append(all, "who "+r.Name)
	}
	for _, x := range all {
		if !named[x] && matrixExempt[x] == "" {
			t.Errorf("the matrix allows nobody anything of this: %s", x)
		}
	}
	for x := range matrixExempt {
		if named[x] || !slices.Contains(all, x) {
			t.Errorf("%s is in the matrix, or gone: take it from the exempt", x)
		}
	}
	// What is more than routine is for whom a grant names it.
	each(len(m.routine), func(i int) {
		all, none := m.routine[i][0], m.routine[i][1]
		person := m.routine[i][2].Key
		want := m.answers(all, person, "Tenant:acme")
		want.cells = maps.Clone(want.cells)
		for q, cell := range want.cells {
			want.cells[q] = strings.NewReplacer("+b", "", "+r", "", "+p", "").Replace(cell)
		}
		if got := m.answers(none, person, "Tenant:acme"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has a grant that covers nothing, and is allowed %v", none, got.cells)
		}
	})
	if a := m.answers(m.unscoped, "mia", "Tenant:acme"); len(a.cells)+len(a.features)+len(a.routes) > 0 {
		t.Errorf("a machine without a scope is allowed %v %v", a.cells, a.routes)
	}
	each(len(m.brokers), func(i int) {
		a, b := m.answers(m.brokers[i][0], "mia", "Tenant:acme"), m.answers(m.brokers[i][1], "mia", "Tenant:acme")
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s and %s have the same role and grant, and differ", m.brokers[i][0], m.brokers[i][1])
		}
	})
}

// Every route of the catalogue, at the gateway and once its service has the
// record: denied without a verified subject, to another tenant's people, on an
// ended grant, and without the capability; and allowed with it.
func TestEveryRouteIsDenied(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	routes := slices.Sorted(maps.Keys(m.cat.Routes))
	each(len(routes), func(i int) {
		route := m.cat.Routes[routes[i]]
		var questions []question
		for _, q := range m.questions {
			if q.action == route.Action && q.resource == route.Resource && q.of != "as-grantee" && (q.of != "as-opener" || q.action == ActionOpenEmergency) {
				questions = append(questions, q)
			}
		}
		if len(questions) == 0 {
			t.Errorf("%s: no question of the matrix is what it asks about a record", route.ID)
		}
		allowed := 0
		for _, kind := range []string{"User", "AppClient"} {
			name := m.by(hierarchy.ID{Type: kind}).Subject.Type
			who := func(key string) hierarchy.ID { return hierarchy.ID{Type: kind, Key: key} }
			denied := func(whose, what string, v authz.Verdict, codes ...authz.Code) {
				if v.Effect == authz.Allow || !slices.Contains(codes, v.Code) {
					t.Errorf("%s: %s of a %s %s: %s, want one of %q", route.ID, what, name, whose, v.Code, codes)
				}
			}
			// The route, in the area of the tenant.
			door := func(key string) authz.Verdict { return m.door(who(key), policies.KindRoute, route.ID, "Tenant:acme") }
			if v := door("all"); v.Effect != authz.Allow {
				t.Errorf("%s: the route of a %s with every capability: %s", route.ID, name, v.Code)
			}
			denied("without the capability", "the route", door("but-"+route.Capability), authz.Denied)
			denied("of another tenant", "the route", door("elsewhere"), authz.NoStanding)
			denied("whose grants have ended", "the route", door("ended"), authz.NoStanding)
			r := m.coarse(who("all"), policies.KindRoute, route.ID, "Tenant:acme")
			r.Subject = authz.Subject{Type: r.Subject.Type, ID: r.Subject.ID}
			denied("that is not verified", "the route", m.judge(m.plain, r, nil), authz.SubjectUnverified)
			// The record.
			for _, q := range questions {
				if !slices.Contains(m.cat.Actions[q.action].Principals, name) {
					continue
				}
				record := func(key string) authz.Verdict { return m.record(who(key), "mia", q, -1) }
				if record("all").Effect == authz.Allow {
					allowed++
				}
				// Who asks for an emergency is a party to it, and stands there.
				without, stands := "but-"+q.action, []authz.Code{}
				switch m.cat.Resources[q.resource].Kind {
				case policies.KindGrant:
					without = "none" // its capabilities have other names
				case policies.KindEmergency:
					without, stands = "none", append(stands, authz.Denied)
				}
				denied("without the capability", "the record", record(without), authz.Denied)
				denied("of another tenant", "the record", record("elsewhere"), append(stands, authz.NoStanding)...)
				denied("whose grants have ended", "the record", record("ended"), append(stands, authz.GrantEnded)...)
				r, draft := m.request(who("all"), "mia", q, -1)
				r.Subject = authz.Subject{Type: r.Subject.Type, ID: r.Subject.ID}
				denied("that is not verified", "the record", m.judge(m.plain, r, draft), authz.SubjectUnverified)
			}
		}
		if allowed == 0 {
			t.Errorf("%s: %s is allowed to nobody with every capability", route.ID, route.Action)
		}
	})
}
