package pdp

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// This file is the world of the permission matrix and what is asked in it.

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
	"security-admin": "Admin", "auditor": "Admin", "records-officer": "Admin", "support": "Admin", "policy-approver": "Admin",
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
	other    bool // it is another record: not its owner's any more
}{
	{mark: "b", of: hasAttribute("sensitivity"), set: sends("sensitivity", "behavioral")}, // each but routine
	{mark: "r", of: hasAttribute("sensitivity"), set: sends("sensitivity", "reproductive")},
	{mark: "p", of: hasAttribute("sensitivity"), set: sends("sensitivity", "part2")},
	{mark: "m", of: hasAttribute("minorConsent"), set: sends("minorConsent", true)},
	{mark: "n", of: hasAttribute("smallestCell"), set: sends("smallestCell", 1)},
	{mark: "l", of: func(rt *policies.ResourceType) bool { return rt.OwnerOptional },
		other: true, set: func(rt *policies.ResourceType, props map[string]any) { props[rt.Owner] = nil }},
	{mark: "e", of: func(rt *policies.ResourceType) bool {
		return rt.Kind == policies.KindSent || rt.Kind == policies.KindGraph
	}, employer: true},
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
	revisions [][]byte          // of its store
	keep      func(world, *asked, judgement)
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
	if !slices.Equal(sensitivities, []string{"behavioral", "part2", "reproductive", "routine"}) {
		t.Errorf("the pack knows other sensitivities than the variants: %q", sensitivities)
	}
	for _, r := range m.cat.Roles {
		if m.cat.Reserved(r.Name) { // assigned to nobody
			continue
		}
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

	fact(hierarchy.KindActivation, func(e *hierarchy.Event) {
		e.Activation = &hierarchy.Activation{Digest: set.Digest(), Name: set.Name()}
	})
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
		m.revisions = append(m.revisions, body)
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
			}
			for _, of := range of {
				q := q
				q.of = of
				if of != "" {
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
		// Opened by who asks; ended and reviewed after somebody else has.
		e := &hierarchy.Emergency{ID: "draft", Principal: who, Person: hierarchy.PersonID(person),
			Node: hierarchy.ID{Type: "Patient", Tenant: "acme", Key: person}, Reason: m.cat.Emergency.Reasons[0]}
		if q.action != ActionOpenEmergency {
			e.Principal = hierarchy.ID{Type: "User", Key: "else"}
		}
		draft = &hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindEmergency, Valid: hierarchy.Always, Emergency: e}
	}
	for name := range act.Properties {
		if r.Action.Properties == nil {
			r.Action.Properties = map[string]any{}
		}
		r.Action.Properties[name] = m.benign(name, who)
	}
	if variant >= 0 && matrixVariants[variant].set != nil {
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
	j := w.judge(&a)
	if m.keep != nil {
		m.keep(w, &a, j)
	}
	return j.verdict
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
		stands := v.Code == authz.Permitted || v.Code == authz.Forbidden || v.Code == authz.Denied
		for _, i := range q.variants {
			// No variant gives standing, and none of the same record a permit where none
			// is satisfied; a campaign does not take the second for granted.
			if !stands || v.Code == authz.Denied && !matrixVariants[i].other && !campaign {
				continue
			}
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
