package pdp

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// emergencyWard is a random hospital of two tenants: people who may break the glass,
// some with two accounts, some patients themselves, and patients with a record
// at each tenant, some of it under a second identity.
type emergencyWard struct {
	*maze
	graph
	opened []*glass
	ready  map[tie]bool // account -> tenant or hospital where it may break the glass
}

// glass is an emergency as this test knows it.
type glass struct {
	hierarchy.Emergency
	fact     hierarchy.FactID
	valid    hierarchy.Interval
	reviewed hierarchy.Interval // empty when it is not
}

const minute = hierarchy.Instant(60_000)

func newEmergencyWard(t testing.TB, seed uint64) *emergencyWard {
	w := &emergencyWard{maze: &maze{rng: rand.New(rand.NewPCG(seed, 13)), g: hierarchy.NewGraph()}, ready: map[tie]bool{}}
	events := ground("acme", "zeta")
	tied := func(list *[]tie, kind hierarchy.LinkKind, x tie) {
		*list = append(*list, x)
		events = append(events, linkFact(kind, x))
	}
	always := hierarchy.Always
	for i := range 4 {
		p := hierarchy.PersonID(fmt.Sprint("p", i))
		w.persons = append(w.persons, p)
		events = append(events, nodeFact(p, false))
		for k, tenant := range []string{"acme", "zeta"} {
			owner := p
			if k == 1 && w.some(1, 2) {
				owner = hierarchy.PersonID(fmt.Sprint("q", i))
				events = append(events, nodeFact(owner, false))
				w.persons = append(w.persons, owner)
				if w.some(2, 3) {
					tied(&w.merged, hierarchy.LinkMerge, tie{p, owner, always})
				}
			}
			more, owns := belongings(owner, tenant, p.Key)
			events, w.owned = append(events, more...), append(w.owned, owns...)
		}
	}
	for i := range 3 {
		accounts := []hierarchy.ID{{Type: "User", Key: fmt.Sprint("u", i)}}
		if w.some(1, 2) {
			accounts = append(accounts, hierarchy.ID{Type: "User", Key: fmt.Sprint("u", i, "b")})
		}
		me := pick(w.maze, w.persons)
		for _, u := range accounts {
			w.users = append(w.users, u)
			events = append(events, nodeFact(u, true))
			if len(accounts) > 1 || w.some(1, 2) {
				tied(&w.self, hierarchy.LinkSelf, tie{u, me, always})
			}
			for range 1 + w.rng.IntN(2) {
				at := pick(w.maze, []hierarchy.ID{householdSystem, hierarchy.TenantID("acme"), {Type: "HealthSystem", Tenant: "zeta", Key: "hs"}})
				if w.ready[tie{from: u, to: at}] {
					continue
				}
				w.ready[tie{from: u, to: at}] = true
				a := fact(hierarchy.KindAssignment, always)
				a.Assignment = &hierarchy.Assignment{Principal: u, Role: "emergency-clinician", Node: at}
				events = append(events, a)
			}
		}
		if w.some(1, 2) {
			if q := pick(w.maze, w.persons); q != me && !slices.ContainsFunc(w.kin, func(x tie) bool { return x.from == q && x.to == me || x.from == me && x.to == q }) {
				tied(&w.kin, hierarchy.LinkFamily, tie{me, q, always})
			}
		}
	}
	if w.some(1, 2) {
		b := tie{pick(w.maze, w.persons), pick(w.maze, w.users), always}
		w.blocked = append(w.blocked, b)
		events = append(events, blockFact(w.maze, b))
	}
	if err := w.tell(0, events); err != nil {
		t.Fatal(err)
	}
	return w
}

// tell applies a batch that is learned at a time, or says why it is refused.
func (m *maze) tell(at hierarchy.Instant, events []hierarchy.Event) error {
	b := &hierarchy.Batch{Revision: m.batch + 1, Prev: m.g.Tip().Hash, Time: at, Events: events, Provenance: hierarchy.Provenance{Who: opID}}
	if err := m.g.Check(b); err != nil {
		return err
	}
	body, err := hierarchy.Encode(b)
	if err != nil {
		return err
	}
	m.batch++
	return m.g.Apply(hierarchy.Entry{Revision: b.Revision, Body: body})
}

// related reports whether a user is an owner, or of an owner's family.
func (g *graph) related(user hierarchy.ID, owners []hierarchy.ID, at hierarchy.Instant) bool {
	mine := g.personsOf(user, at)
	return overlap(mine, owners) || slices.ContainsFunc(g.kin, func(x tie) bool {
		return slices.Contains(mine, x.from) && slices.Contains(owners, x.to) || slices.Contains(mine, x.to) && slices.Contains(owners, x.from) ||
			// the family of a merged identity is family
			slices.Contains(mine, x.from) && overlap(g.one([]hierarchy.ID{x.to}, at), owners) || slices.Contains(mine, x.to) && overlap(g.one([]hierarchy.ID{x.from}, at), owners)
	})
}

// open tries to open an emergency at a time and compares what the pack decides
// and what the facts admit with what is right.
func (w *emergencyWard) open(t *testing.T, seed uint64, now hierarchy.Instant) {
	m := w.maze
	node := hierarchy.ID{Type: "Patient", Tenant: pick(m, []string{"acme", "zeta"}), Key: fmt.Sprint("p", w.rng.IntN(4))}
	owners := w.ownersOf(node, now)
	x := hierarchy.Emergency{ID: fmt.Sprint("e", w.batch), Principal: pick(m, w.users), Person: owners[0], Node: node, Reason: "unconscious"}
	valid := hierarchy.Interval{From: now, To: now + hierarchy.MaxEmergency}
	wrong := false // of itself
	switch w.rng.IntN(8) {
	case 0: // to come
		valid.From, valid.To, wrong = valid.From+1, valid.To+1, true
	case 1: // too long
		valid.To, wrong = valid.To+1, true
	case 2: // one person, and another's record
		x.Person = pick(m, w.persons)
		wrong = !slices.Contains(owners, x.Person)
	case 3:
		valid.To = now + hierarchy.Instant(1+w.rng.IntN(29))*minute
	}
	waiting := func(account func(hierarchy.ID) bool) bool {
		return slices.ContainsFunc(w.opened, func(g *glass) bool {
			return account(g.Principal) && slices.Contains(w.one([]hierarchy.ID{x.Person}, now), g.Person) && !g.reviewed.Holds(now)
		})
	}
	// What the pack says to who asks.
	e := fact(hierarchy.KindEmergency, valid)
	e.Emergency = &x
	aal := 1 + w.rng.IntN(2)
	r := request("", "user:"+x.Principal.Key, ActionOpenEmergency, "emergency:"+x.ID)
	a := (*PDP)(nil).question(world{set: pbm()}, Asking{Subject: r.Subject, Caller: r.Caller}, ActionOpenEmergency, policies.KindEmergency, x.ID, &e)
	a.Subject.Assurance = aal
	decided := world{set: pbm(), graph: w.g, confers: confers(w.g, pbm()), rev: w.batch, now: now}.judge(a).verdict
	who := w.one([]hierarchy.ID{x.Person}, now)
	may := overlap(who, owners) && aal >= 2 && !w.related(x.Principal, who, now) && !w.blocks(x.Principal, who, now) &&
		(w.ready[tie{from: x.Principal, to: hierarchy.TenantID(node.Tenant)}] || w.ready[tie{from: x.Principal, to: hierarchy.ID{Type: "HealthSystem", Tenant: node.Tenant, Key: "hs"}}]) &&
		!waiting(func(id hierarchy.ID) bool { return w.human(id, x.Principal, now) })
	if bool(decided.Effect) != may {
		t.Fatalf("seed %d: %v opens %v of %v: the pack says %v %s %q, want %v", seed, x.Principal, node, x.Person, decided.Effect, decided.Code, decided.Reasons, may)
	}
	// What the facts admit, whoever wrote them.
	err := w.tell(now, []hierarchy.Event{e})
	if want := wrong || waiting(func(id hierarchy.ID) bool { return id == x.Principal }); (err != nil) != want {
		t.Fatalf("seed %d: %v opens %v of %v at %v: %v, want it refused: %v", seed, x.Principal, node, x.Person, valid, err, want)
	}
	if err == nil {
		w.opened = append(w.opened, &glass{Emergency: x, fact: hierarchy.FactID{Revision: w.batch}, valid: valid})
	}
}

// settle ends an emergency early, reviews one, or tries to.
func (w *emergencyWard) settle(t *testing.T, seed uint64, now hierarchy.Instant) {
	if len(w.opened) == 0 {
		return
	}
	g := pick(w.maze, w.opened)
	if w.some(1, 2) {
		if g.valid.From < now && now < g.valid.To {
			must(t, w.tell(now, []hierarchy.Event{{Op: hierarchy.End, Kind: hierarchy.KindEmergency, Fact: g.fact, At: now}}))
			g.valid.To = now
		}
		return
	}
	by := pick(w.maze, w.users)
	valid := hierarchy.Interval{From: now, To: now + hierarchy.Instant(10+w.rng.IntN(100))*minute}
	e := fact(hierarchy.KindReview, valid)
	e.Review = &hierarchy.Review{Emergency: g.ID, By: by, Outcome: "justified"}
	err := w.tell(now, []hierarchy.Event{e})
	if refused := w.human(by, g.Principal, now) || g.reviewed.Overlaps(valid); (err != nil) != refused {
		t.Fatalf("seed %d: %v reviews what %v opened: %v, want it refused: %v", seed, by, g.Principal, err, refused)
	}
	if err == nil {
		g.reviewed = valid
	}
}

// TestTheGlassOpensOneRecord opens, ends and reviews emergencies at random and
// asks for records all the while. What is allowed is the reading of the one
// patient's records of that tenant, by the account that opened it, in its time.
func TestTheGlassOpensOneRecord(t *testing.T) {
	trials := count(8_000, 100_000)
	held := pbm().Catalogue().Roles
	opens := held[slices.IndexFunc(held, func(r policies.Role) bool { return r.Name == "emergency-access" })].Capabilities
	n, allowed := 0, 0
	for seed := uint64(1); n < trials; seed++ {
		w := newEmergencyWard(t, seed)
		now := epoch
		for range 12 {
			now += hierarchy.Instant(1+w.rng.IntN(12)) * minute
			if w.some(3, 4) {
				w.open(t, seed, now)
			} else {
				w.settle(t, seed, now)
			}
			for range 10 {
				n++
				m := w.maze
				q := familyQuestion{reading: pick(m, readings), user: pick(m, w.users), id: "r1", now: now, date: now, sensitivity: pick(m, sensitivities), minor: w.some(1, 2)}
				q.node = hierarchy.ID{Type: q.reading.node, Tenant: pick(m, []string{"acme", "zeta"}), Key: fmt.Sprint("p", w.rng.IntN(4))}
				if len(w.opened) > 0 && w.some(3, 4) { // near what was opened
					g := pick(m, w.opened)
					q.user, q.node.Tenant, q.node.Key = g.Principal, g.Node.Tenant, g.Node.Key
					if w.some(1, 2) {
						q.reading = readings[6+w.rng.IntN(5)]
						q.node.Type = q.reading.node
					}
					if w.some(1, 3) { // about its end
						q.now = max(now, g.valid.To+hierarchy.Instant(w.rng.IntN(3)-1))
					}
				}
				if q.node.Type == "Group" || q.node.Type == "HealthSystem" {
					q.node.Key = map[string]string{"Group": "g", "HealthSystem": "hs"}[q.node.Type]
				}
				r := q.request()
				r.Subject.Assurance = 1 + w.rng.IntN(2)
				if w.some(1, 4) { // what was sent is no emergency
					if r.Context == nil {
						r.Context = map[string]any{}
					}
					maps.Copy(r.Context, map[string]any{"emergency": "e1", "opened": q.now.String(), "purpose": "ETREAT", "reason": "unconscious"})
					r.Subject.Properties = map[string]any{"emergency": true, "persons": []any{q.node.Key}}
					if r.Resource.Properties != nil {
						maps.Copy(r.Resource.Properties, map[string]any{"emergency": "e1", "owners": []any{q.user.Key}})
					}
				}
				j := w.judgePBM(r, q.now, w.batch)
				v, owners := j.verdict, w.ownersOf(q.node, q.now)
				own := q.own && overlap(w.personsOf(q.user, q.now), owners)
				broken := slices.ContainsFunc(w.opened, func(g *glass) bool {
					return g.Principal == q.user && g.valid.Holds(q.now) && g.Node == q.node && slices.Contains(owners, g.Person)
				}) && !w.related(q.user, owners, q.now)
				if tried := slices.ContainsFunc(j.attempts, func(t attempt) bool { return t.Emergency != "" }); tried != broken {
					t.Fatalf("seed %d: %v %s %v at %v: tried with an emergency: %v, want %v", seed, q.user, q.action, q.node, q.now, tried, broken)
				}
				want := (own || broken && slices.Contains(opens, q.action) && r.Subject.Assurance >= 2) && !w.blocks(q.user, owners, q.now)
				if bool(v.Effect) != want {
					t.Fatalf("seed %d: %v %s %v at %v: got %v %s %q, want %v", seed, q.user, q.action, q.node, q.now, v.Effect, v.Code, v.Reasons, want)
				}
				if v.Emergency != "" {
					allowed++
				}
			}
		}
	}
	t.Logf("%d trials, %d allowed by an emergency", n, allowed)
	if allowed*40 < n {
		t.Error("too few trials are allowed by an emergency")
	}
}

// TestABlockStandsAboveEverything gives somebody roles, grants of people and of
// organisations and open emergencies at random, and then blocks them from a
// person, by any identity of the one and any account of the other: nothing of that
// person's is allowed any more, whatever was.
func TestABlockStandsAboveEverything(t *testing.T) {
	trials := count(4_000, 200_000)
	cat := pbm().Catalogue()
	var actions []string // on records, with the types of their resources
	for name, act := range cat.Actions {
		for _, typ := range act.Resources {
			if rt := cat.Resources[typ]; rt.Kind == policies.KindSent && rt.Owner != "" && slices.Contains(act.Principals, "user") {
				actions = append(actions, name+" "+typ)
			}
		}
	}
	slices.Sort(actions)
	n, before := 0, 0
	by := map[string]int{}
	for seed := uint64(1); n < trials; seed++ {
		m := &maze{rng: rand.New(rand.NewPCG(seed, 17)), g: hierarchy.NewGraph()}
		var g graph
		events := ground("acme")
		always := hierarchy.Always
		me, owner, second := hierarchy.PersonID("me"), hierarchy.PersonID("owner"), hierarchy.PersonID("second")
		link := func(list *[]tie, kind hierarchy.LinkKind, x tie) {
			*list = append(*list, x)
			events = append(events, linkFact(kind, x))
		}
		events = append(events, nodeFact(me, false), nodeFact(owner, false), nodeFact(second, false))
		more, _ := belongings(owner, "acme", "o")
		events = append(events, more...)
		link(&g.merged, hierarchy.LinkMerge, tie{owner, second, always})
		users := []hierarchy.ID{{Type: "User", Key: "u"}, {Type: "User", Key: "v"}}
		self := me
		if m.some(1, 8) {
			self = second // even from what is one's own
		}
		for _, u := range users {
			events = append(events, nodeFact(u, true))
			link(&g.self, hierarchy.LinkSelf, tie{u, self, always})
		}
		u := users[0]
		coverage, patient := hierarchy.ID{Type: "Coverage", Tenant: "acme", Key: "o"}, hierarchy.ID{Type: "Patient", Tenant: "acme", Key: "o"}
		places := []hierarchy.ID{opID, hierarchy.TenantID("acme"), householdGroup, householdSystem, coverage, patient}
		if m.some(1, 2) {
			for _, i := range m.rng.Perm(len(cat.Roles))[:4] {
				a := fact(hierarchy.KindAssignment, always)
				a.Assignment = &hierarchy.Assignment{Principal: u, Role: cat.Roles[i].Name, Node: pick(m, places)}
				events = append(events, a)
			}
		}
		all := slices.Sorted(maps.Keys(cat.Actions))
		for i := range m.rng.IntN(5) {
			e := fact(hierarchy.KindGrant, always)
			e.Grant = &hierarchy.Grant{ID: fmt.Sprint("g", i), Type: pick(m, []string{"adult-proxy", "caregiver", "guardian"}), Grantor: owner, Grantee: u,
				Subject: pick(m, []hierarchy.ID{owner, second}), Scope: hierarchy.Scope{Capabilities: all, Covers: sensitivities}}
			if m.some(1, 3) { // an organisation's, of the operator
				e.Grant.Type, e.Grant.Grantor, e.Grant.Subject = "org-delegate", opID, pick(m, places[1:])
			}
			events = append(events, e)
		}
		must(t, m.tell(epoch, events))
		if m.some(1, 2) {
			e := fact(hierarchy.KindEmergency, hierarchy.Interval{From: epoch, To: epoch + hierarchy.MaxEmergency})
			e.Emergency = &hierarchy.Emergency{ID: "e", Principal: u, Person: pick(m, []hierarchy.ID{owner, second}), Node: patient, Reason: "unconscious"}
			must(t, m.tell(epoch, []hierarchy.Event{e}))
		}
		open := m.batch
		must(t, m.tell(epoch, []hierarchy.Event{blockFact(m, tie{pick(m, []hierarchy.ID{owner, second}), pick(m, users), always})}))
		for range 40 {
			n++
			action, typ, _ := strings.Cut(pick(m, actions), " ")
			rt := cat.Resources[typ]
			r := request(rt.Authority[0], "user:u", action, typ+":r", "sensitivity", pick(m, append(sensitivities, "routine")), "minorConsent", false,
				"assignees", []any{"u"}, "author", "another", "flagged", true, "smallestCell", 50, "status", "open")
			if rt.Instant != "" {
				r.Resource.Properties[rt.Instant] = epoch.String()
			}
			for _, a := range rt.Anchors {
				r.Resource.Properties[a.Property] = nil
				if a.Property == rt.Owner {
					r.Resource.Properties[a.Property] = hierarchy.ID{Type: a.Type, Tenant: "acme", Key: "o"}.String()
				}
			}
			r.Context = map[string]any{"interaction": "call-1"}
			r.Action.Properties = map[string]any{"days": 1, "recipient": "x"}
			if v := m.judgePBM(&r, epoch+1, open).verdict; v.Effect {
				before++
				switch {
				case v.Grant != "":
					by["grant"]++
				case v.Emergency != "":
					by["emergency"]++
				case self == second:
					by["own"]++
				default:
					by["role"]++
				}
			}
			if v := m.judgePBM(&r, epoch+1, m.batch).verdict; v.Effect {
				t.Fatalf("seed %d: %s %s is allowed by %q, past a block", seed, action, typ, v.Reasons)
			}
		}
	}
	t.Logf("%d trials over %d actions: %d were allowed before the block (%v), none after it", n, len(actions), before, by)
	for _, way := range []string{"role", "grant", "emergency", "own"} {
		if by[way]*200 < n {
			t.Errorf("too few trials were allowed by %s", way)
		}
	}
}

// crowdedProxy gives User:u sixteen live grants about a person, and others that
// are over or to come.
func crowdedProxy(t testing.TB, others int) (*maze, *authz.Request) {
	m := &maze{rng: rand.New(rand.NewPCG(5, 5)), g: hierarchy.NewGraph()}
	owner, u := hierarchy.PersonID("o"), hierarchy.ID{Type: "User", Key: "u"}
	events := append(ground("acme"), nodeFact(owner, false), nodeFact(u, true))
	more, _ := belongings(owner, "acme", "o")
	events = append(events, more...)
	grant := func(id string, valid hierarchy.Interval) {
		e := fact(hierarchy.KindGrant, valid)
		e.Grant = &hierarchy.Grant{ID: id, Type: "adult-proxy", Grantor: owner, Grantee: u, Subject: owner, Scope: hierarchy.Scope{Capabilities: []string{"lab.view"}}}
		events = append(events, e)
	}
	for i := range hierarchy.MaxLiveGrants {
		grant(fmt.Sprint("live", i), hierarchy.Interval{From: epoch - day, To: epoch + day})
	}
	for i := range others {
		at := epoch - hierarchy.Instant(10+i)*day
		if i%2 == 0 {
			at = epoch + hierarchy.Instant(10+i)*day
		}
		grant(fmt.Sprint("other", i), hierarchy.Interval{From: at, To: at + day})
	}
	for part := range slices.Chunk(events, hierarchy.MaxBatchEvents) {
		// They are known to be right; checking each against all is not measured here.
		b := &hierarchy.Batch{Revision: m.batch + 1, Prev: m.g.Tip().Hash, Events: part, Provenance: hierarchy.Provenance{Who: opID}}
		body, err := hierarchy.Encode(b)
		must(t, err)
		must(t, m.g.Apply(hierarchy.Entry{Revision: b.Revision, Body: body}))
		m.batch++
	}
	r := request("labs-service", "user:u", "lab.view", "lab:r", "patient", "Patient:acme/o", "sensitivity", "routine", "minorConsent", false)
	return m, &r
}

// TestGrantsThatAreOverCostNothing: what a judgement makes does not grow with
// the grants of the two that are over or to come, neither where sixteen are live
// nor where none is and the answer says what has ended.
func TestGrantsThatAreOverCostNothing(t *testing.T) {
	made := func(others int, now hierarchy.Instant, code authz.Code, attempts int) float64 {
		m, r := crowdedProxy(t, others)
		if j := m.judgePBM(r, now, m.batch); j.verdict.Code != code || len(j.attempts) != attempts {
			t.Fatalf("%s in %d attempts", j.verdict.Code, len(j.attempts))
		}
		return testing.AllocsPerRun(20, func() { m.judgePBM(r, now, m.batch) })
	}
	few, many := made(0, epoch, authz.Permitted, 1+hierarchy.MaxLiveGrants), made(10_000, epoch, authz.Permitted, 1+hierarchy.MaxLiveGrants)
	t.Logf("sixteen live: %v allocations, %v with 10,000 others beside them", few, many)
	if many > few*1.05 {
		t.Errorf("%v allocations with 10,000 other grants, %v without", many, few)
	}
	few, many = made(1_000, epoch+2*day, authz.GrantEnded, 0), made(10_000, epoch+2*day, authz.GrantEnded, 0)
	t.Logf("none live: %v allocations with 1,000 others, %v with 10,000", few, many)
	if many > few*1.05 {
		t.Errorf("%v allocations with 10,000 grants that are no longer or not yet live, %v with 1,000", many, few)
	}
}

// BenchmarkJudgeAmongGrants measures a whole judgement with sixteen live grants,
// and with others beside them.
func BenchmarkJudgeAmongGrants(b *testing.B) {
	for _, others := range []int{0, 10_000} {
		m, r := crowdedProxy(b, others)
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if j := m.judgePBM(r, epoch, m.batch); !j.verdict.Effect {
					b.Fatal(j.verdict.Code)
				}
			}
		})
	}
}

// TestASeventeenthGrantIsRefused asks for grants as people do.
func TestASeventeenthGrantIsRefused(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(`node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		person Person:pat born 1990-01-01 in US-OH
		principal User:pat
		User:pat is Person:pat
		principal User:u`)
	subject := authz.Verified(authz.Subject{Type: "user", ID: "pat", Assurance: 2})
	ask := func(from, to hierarchy.Instant) error {
		_, err := s.p.RequestGrant(t.Context(), Asking{Subject: subject, Caller: authz.Caller{Name: "portal", Asserts: []string{"user"}}},
			GrantRequest{Grant: hierarchy.Grant{Type: "adult-proxy", Grantee: hierarchy.ID{Type: "User", Key: "u"}, Subject: hierarchy.PersonID("pat"),
				Scope: hierarchy.Scope{Capabilities: []string{"lab.view"}}}, From: from, To: to})
		return err
	}
	now := hierarchy.At(s.clock.now())
	for range hierarchy.MaxLiveGrants {
		must(t, ask(now, now+day))
	}
	var refusal *hierarchy.Refusal
	if err := ask(now+day-1, 0); !errors.As(err, &refusal) || refusal.Code != hierarchy.CodeGrantLimit {
		t.Errorf("the seventeenth: %v, want it refused as %s", err, hierarchy.CodeGrantLimit)
	}
	must(t, ask(now+day, 0)) // when the others are over
}

// TestTheGlassIsReviewedBeforeItOpensAgain opens emergencies as people do.
func TestTheGlassIsReviewedBeforeItOpensAgain(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(`node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		node HealthSystem:acme/hs
		HealthSystem:acme/hs partOf Tenant:acme
		Tenant:acme has labs
		node Patient:acme/pat
		Patient:acme/pat partOf HealthSystem:acme/hs
		node Patient:acme/sue
		Patient:acme/sue partOf HealthSystem:acme/hs
		person Person:pat
		person Person:sue
		person Person:doc
		Person:pat owns Patient:acme/pat
		Person:sue owns Patient:acme/sue
		principal User:doc
		principal User:doc-too
		principal User:officer
		User:doc is Person:doc
		User:doc-too is Person:doc
		User:doc holds emergency-clinician at HealthSystem:acme/hs
		User:doc-too holds emergency-clinician at HealthSystem:acme/hs
		User:officer holds privacy-officer at Operator:ward`)
	as := func(user string) Asking {
		return Asking{Subject: authz.Verified(authz.Subject{Type: "user", ID: user, Assurance: 2}),
			Caller: authz.Caller{Name: "portal", Asserts: []string{"user"}, Performs: []string{"notify-privacy"}}}
	}
	opens := func(user, patient, want string) (id string) {
		t.Helper()
		f, _, _, err := s.p.OpenEmergency(t.Context(), as(user), hierarchy.Emergency{Reason: "unconscious", Text: "found on the floor",
			Node: hierarchy.ID{Type: "Patient", Tenant: "acme", Key: patient}})
		var refused *authz.Error
		switch {
		case want == "" && err != nil, want != "" && (!errors.As(err, &refused) || string(refused.Code) != want):
			t.Errorf("%s opens %s: %v, want %q", user, patient, err, want)
		}
		return f.ID
	}
	reads := func(user, patient, want string) {
		t.Helper()
		r := request("labs-service", "user:"+user, "lab.view", "lab:l", "patient", "Patient:acme/"+patient, "sensitivity", "behavioral", "minorConsent", false)
		r.Caller.Performs = []string{"notify-privacy", "report-outcome"}
		s.want(r, want)
	}
	reads("doc", "pat", "deny forbidden")
	id := opens("doc", "pat", "")
	reads("doc", "pat", "allow permitted")
	reads("doc", "sue", "deny forbidden")     // a second patient
	reads("doc-too", "pat", "deny forbidden") // another account of the same human
	opens("doc", "pat", "denied")             // renewed before its review
	opens("doc-too", "pat", "denied")         // nor by another account
	opens("officer", "pat", "denied")
	opens("doc", "sue", "") // a patient of its own
	s.clock.set("2026-11-24T12:29:59.999Z")
	reads("doc", "pat", "allow permitted")
	s.clock.set("2026-11-24T12:30:00Z")
	reads("doc", "pat", "deny forbidden")
	opens("doc", "pat", "denied") // over, and not reviewed
	if _, _, err := s.p.ReviewEmergency(t.Context(), as("doc-too"), id, "justified", ""); err == nil {
		t.Error("who opened it reviewed it, by another account")
	}
	_, _, err := s.p.ReviewEmergency(t.Context(), as("officer"), id, "justified", "seen")
	must(t, err)
	s.clock.set("2026-11-24T12:31:00Z")
	opens("doc", "pat", "")
	reads("doc", "pat", "allow permitted")
}
