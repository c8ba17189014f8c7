package policies

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ward-authz/ward/pdp/authz"
)

// Each action, feature and route of the shipped pack is allowed to somebody and
// denied to somebody in the pack's own tests, and each policy decides a test.
func TestTheShippedPackIsTestedWhole(t *testing.T) {
	s := mustCompile(t, PBM())
	c := s.Catalogue()
	type asked struct{ what, id string }
	seen := map[asked]map[authz.Effect]bool{}
	note := func(what, id string, e authz.Effect) {
		k := asked{what, id}
		if seen[k] == nil {
			seen[k] = map[authz.Effect]bool{}
		}
		seen[k][e] = true
	}
	named := map[string]bool{}
	for _, k := range s.Cases() {
		note("action", k.Action, k.Expect.Decision)
		if k.Action == "feature.see" || k.Action == "route.call" {
			note(k.Resource.Type, k.Resource.ID, k.Expect.Decision)
		}
		for _, id := range k.Expect.Policies {
			named[id] = true
		}
	}
	check := func(what, id string) {
		for _, e := range []authz.Effect{authz.Allow, authz.Deny} {
			if !seen[asked{what, id}][e] {
				t.Errorf("no test of the pack expects %s %s to be: %s", what, id, e)
			}
		}
	}
	for id := range c.Features {
		check("feature", id)
	}
	for id := range c.Routes {
		check("route", id)
	}
	for id, a := range c.Actions {
		if !slices.Contains(a.Resources, "object") {
			check("action", id)
		}
	}
	for _, p := range s.Policies() {
		if !named[p.ID] && !strings.HasPrefix(p.ID, "ward.") {
			t.Errorf("no test of the pack names %s", p.ID)
		}
	}
}

// What a role may do with members' records follows from three capabilities.
func TestWhichShippedRolesReachMembersRecords(t *testing.T) {
	s := mustCompile(t, PBM())
	c := s.Catalogue()
	roles := map[string]Role{}
	for _, r := range c.Roles {
		roles[r.Name] = r
	}
	var held func(r Role) map[string]bool
	held = func(r Role) map[string]bool {
		out := map[string]bool{}
		for _, k := range r.Capabilities {
			out[k] = true
		}
		for _, in := range r.Includes {
			for k := range held(roles[in]) {
				out[k] = true
			}
		}
		return out
	}
	// These hold capabilities over members' records, and come to them otherwise:
	// as a tenant chooses, as themselves, in an emergency, or as machines.
	otherwise := []string{"client-admin", "broker", "member", "eligibility-client", "enrolment-feed", "claims-feed"}
	for _, r := range c.Roles {
		has := held(r)
		touches := ""
		for k := range has {
			if a := c.Actions[k]; a != nil && membersRecord[a.Resources[0]] {
				touches = k
			}
		}
		reaches := has["member.phi"] || has["member.call"]
		switch {
		case slices.Contains(otherwise, r.Name) && (reaches || touches == ""):
			t.Errorf("role %s reaches members' records: %v, by %q", r.Name, reaches, touches)
		case !slices.Contains(otherwise, r.Name) && reaches != (touches != ""):
			t.Errorf("role %s reaches members' records: %v, and holds %q", r.Name, reaches, touches)
		case has["member.phi"] && has["member.call"]:
			t.Errorf("role %s holds capabilities that do not go together", r.Name)
		}
	}
	for _, name := range []string{"client-admin", "benefits", "client-reporting", "broker", "security-admin", "auditor", "support"} {
		if has := held(roles[name]); has["member.phi"] || has["member.call"] || has["sensitive.view"] {
			t.Errorf("role %s reaches members' records", name)
		}
	}
}

// membersRecord lists the resources that are a member's record at their plan, or
// a list of them: what an employer and a call are about.
var membersRecord = map[string]bool{
	"claim": true, "claim-list": true, "coverage": true, "eligibility": true, "roster": true,
	"prior-auth": true, "prior-auth-list": true, "clinical-note": true, "claim-340b": true,
}

// asks is a question about the shipped pack in plain words.
type asks struct {
	action, resource               string
	machine                        bool
	own, family, blocked           bool // whose record it is
	many                           bool // nobody's, or a list of many
	entitled                       bool
	at                             map[string]bool // capability: held at the resource, or elsewhere
	sensitivity                    string
	minor, author, byThem, flagged bool // author: there is one; byThem: it is who asks
	assigned, holder               bool
	cell, aal, days                int64
	call, ip, near, scope          bool // ip: sent; near: from the client's network
	grant, personal, emergency     bool
	grantType, covers              string
	employers                      bool
}

// verbOf reads what an action does from its name.
func verbOf(action string) string {
	switch _, verb, _ := strings.Cut(action, "."); verb {
	case "search":
		return "search"
	case "export":
		return "take"
	case "share":
		return "share"
	case "approve", "assign", "enable", "override", "decide":
		return "approve"
	case "embed":
		return "embed"
	case "download":
		return "link"
	case "view":
		if action == "document.view" {
			return "link"
		}
		return "read"
	case "coverage", "check", "read", "everything", "review":
		return "read"
	case "view-costs":
		return "costs"
	}
	return "write"
}

// people change this of their own.
var ownWrites = []string{"message.send", "appointment.book", "appointment.cancel", "consent.give", "consent.revoke", "app.connect", "app.revoke"}

// reading says which policies are satisfied, from the rules in words.
func (a *asks) reading(sensitive bool) []string {
	var out []string
	on := func(id string, yes bool) {
		if yes {
			out = append(out, id)
		}
	}
	has := func(c string) bool { here, held := a.at[c]; return held && here }
	verb, own := verbOf(a.action), a.own && !a.machine
	read := verb == "read" || verb == "write"
	held := has(a.action)
	calling := has("member.call")

	// permits
	on("record.own", !a.machine && (verb == "read" || slices.Contains(ownWrites, a.action)) && a.entitled && own)
	on("search.own", !a.machine && verb == "search" && a.entitled && own)
	on("link.own", !a.machine && verb == "link" && a.entitled && own)
	byRole := !a.machine && !a.grant && a.entitled && held && !own
	on("record.by-role", byRole && !a.emergency && read && (!calling || a.call))
	on("search.by-role", byRole && !a.emergency && verb == "search" && (!calling || a.call))
	on("link.by-role", byRole && !a.emergency && verb == "link")
	on("take.by-role", byRole && verb == "take" && a.aal >= 2)
	on("share.by-role", !a.machine && !a.grant && a.entitled && held && verb == "share" && a.aal >= 2 && a.days >= 1 && a.days <= 30)
	on("approve.by-role", byRole && verb == "approve" && a.aal >= 2 && a.author && !a.byThem)
	on("claim.costs", byRole && verb == "costs")
	byGrant := !a.machine && a.grant && a.entitled && held
	on("record.by-grant", byGrant && read)
	on("search.by-grant", byGrant && verb == "search")
	on("link.by-grant", byGrant && verb == "link")
	inEmergency := !a.machine && a.emergency && a.aal >= 2 && a.entitled && held
	on("record.by-emergency", inEmergency && verb == "read")
	on("search.by-emergency", inEmergency && verb == "search")
	on("link.by-emergency", inEmergency && verb == "link")
	client := a.machine && !a.grant && a.entitled && held && a.scope && a.ip && a.near
	on("record.by-client", client && read)
	on("search.by-client", client && verb == "search")
	on("embed.by-role", !a.machine && !a.grant && a.entitled && held && verb == "embed")
	on("embed.by-client", client && verb == "embed")
	on("take.by-client", client && verb == "take")
	app := a.machine && a.grant && a.personal && a.entitled && held && a.scope
	on("record.by-app", app && verb == "read")
	on("search.by-app", app && verb == "search")

	// forbids
	named := a.grant && a.personal && a.covers == a.sensitivity
	on("guard.block", !a.machine && a.blocked)
	on("guard.family", !a.machine && a.family && !(a.grant && a.personal))
	on("guard.part2", !a.machine && sensitive && a.sensitivity == "part2" && !a.grant && !a.emergency && !own)
	on("guard.sensitive", sensitive && a.sensitivity != "routine" && !own && !named && !a.emergency && (a.machine && (verb != "write" || a.grant) || !a.machine && (a.grant || !has("sensitive.view"))))
	on("guard.minor-consent", sensitive && a.minor && a.grant && a.grantType != "caregiver")
	member := membersRecord[a.resource] && !a.machine && !own
	on("guard.employer", member && held && !(a.grant && a.personal) && !a.emergency && !a.employers && !has("member.phi") && !calling)
	on("guard.emergency", a.emergency && verb != "read" && verb != "search" && verb != "link")
	on("guard.call", member && calling && !has("member.phi") && (verb != "read" && verb != "search" || a.many))
	figures := slices.Contains([]string{"adjudication", "payment", "exception", "provider", "member-aggregate", "account-340b", "metric", "dashboard"}, a.resource)
	on("guard.small-cell", (figures || a.action == "report.share") && a.cell < 11)
	on("report.identified", a.resource == "report" && a.action != "report.share" && a.cell < 11 && !has("member.phi"))
	on("prior-auth.assigned", slices.Contains([]string{"prior-auth.review", "prior-auth.decide", "clinical-note.view"}, a.action) &&
		!a.assigned && !own && !(a.grant && a.personal))
	on("user.self", a.action == "user.assign" && a.holder)
	on("claim-340b.flagged", a.action == "claim-340b.view" && !a.flagged)
	slices.Sort(out)
	return out
}

// question puts it as the decision point does.
func (a *asks) question(c *Catalogue) *Question {
	ref := func(typ, id string) Ref { return Ref{"PBM::" + typ, id} }
	here, there := ref("Scope", "Tenant:acme"), ref("Scope", "Tenant:zenith")
	q := &Question{Action: a.action, Context: map[string]Value{"now": Datetime(1), "aal": a.aal, "capability": a.action,
		"settings": map[string]Value{"employerSeesMember": a.employers, "runOutDays": int64(90)}}}
	q.Principal = Entity{Ref: ref("User", "ann"), Attrs: map[string]Value{"persons": []Value{}, "family": []Value{}}, Tags: map[string][]Ref{}}
	if a.machine {
		scopes := []Value{"other"}
		if a.scope {
			scopes = append(scopes, a.action)
		}
		q.Principal.Ref, q.Principal.Attrs = ref("AppClient", "ann"), map[string]Value{"scopes": scopes, "egress": IPAddr("10.0.0.0/8")}
	}
	for name, at := range a.at {
		q.Principal.Tags[name] = []Ref{there}
		if at {
			q.Principal.Tags[name] = []Ref{here, there}
		}
	}
	rt := c.Resources[a.resource]
	q.Resource = Entity{Ref: Ref{rt.Entity, "r"}, Parents: []Ref{here}, Attrs: map[string]Value{}}
	owners := []Value{ref("Person", "mia")}
	if a.many {
		owners = []Value{}
	}
	if !a.machine {
		persons := []Value{ref("Person", "else")}
		if a.own {
			persons = append(persons, ref("Person", "mia"))
		}
		q.Principal.Attrs["persons"] = persons
		if a.family {
			q.Principal.Attrs["family"] = []Value{ref("Person", "mia")}
		}
	}
	blocked, assignees := []Value{ref("User", "eve")}, []Value{ref("User", "eve")}
	if a.blocked {
		blocked = append(blocked, ref("User", "ann"))
	}
	if a.assigned {
		assignees = append(assignees, ref("User", "ann"))
	}
	someone := func(it bool) Value {
		if it {
			return ref("User", "ann")
		}
		return ref("User", "eve")
	}
	for name := range rt.Attributes {
		var v Value
		switch name {
		case "owners":
			v = owners
		case "blocked":
			v = blocked
		case "entitled":
			v = a.entitled
		case "sensitivity":
			v = ref("Sensitivity", a.sensitivity)
		case "minorConsent":
			v = a.minor
		case "assignees":
			v = assignees
		case "flagged":
			v = a.flagged
		case "smallestCell":
			v = a.cell
		case "holder":
			v = someone(a.holder)
		case "author":
			if !a.author {
				continue
			}
			v = someone(a.byThem)
		default:
			panic("an attribute that the reading does not know: " + name)
		}
		q.Resource.Attrs[name] = v
	}
	if a.call {
		q.Context["interaction"] = "i-1"
	}
	if a.ip {
		q.Context["ip"] = IPAddr("192.0.2.1")
		if a.near {
			q.Context["ip"] = IPAddr("10.1.2.3")
		}
	}
	if verbOf(a.action) == "share" {
		q.Context["action"] = map[string]Value{"days": a.days, "recipient": "cfo"}
	}
	if a.emergency {
		q.Context["emergency"] = ref("Emergency", "e")
		q.Others = append(q.Others, Entity{Ref: ref("Emergency", "e"), Attrs: map[string]Value{"reason": "unconscious", "opened": Datetime(0)}})
	}
	if a.grant {
		q.Context["grant"] = ref("Grant", "g")
		q.Others = append(q.Others, Entity{Ref: ref("Grant", "g"), Attrs: map[string]Value{
			"covers": []Value{ref("Sensitivity", a.covers)}, "type": a.grantType, "personal": a.personal}})
	}
	return q
}

// Random questions about every action are decided as the rules in words say,
// policy by policy.
func TestTheShippedPackAgainstItsReading(t *testing.T) {
	s := mustCompile(t, PBM())
	c := s.Catalogue()
	var actions []string
	for id, a := range c.Actions {
		if kind := c.Resources[a.Resources[0]].Kind; kind == KindSent || kind == KindGraph {
			actions = append(actions, id)
		}
	}
	slices.Sort(actions)
	rounds := 20_000
	if os.Getenv("WARD_CAMPAIGN") == "1" {
		rounds = 2_000_000
	}
	seed := uint64(1)
	rng := rand.New(rand.NewPCG(seed, 0))
	chance := func(n int) bool { return rng.IntN(n) == 0 }
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	satisfied, allowed := map[string]int{}, 0
	for i := range rounds {
		id := actions[i%len(actions)]
		act := c.Actions[id]
		a := &asks{action: id, resource: act.Resources[0], entitled: !chance(6), at: map[string]bool{},
			machine: slices.Contains(act.Principals, "client") && chance(2), many: chance(4), blocked: chance(10),
			sensitivity: pick("routine", "routine", "part2", "reproductive", "behavioral"), minor: chance(3),
			author: !chance(4), byThem: chance(3), flagged: !chance(3), assigned: !chance(3), holder: chance(3),
			cell: 9 + rng.Int64N(4), aal: 1 + rng.Int64N(2), days: one(rng, 0, 1, 30, 31),
			call: chance(2), ip: !chance(4), near: !chance(4), scope: !chance(4),
			grant: chance(3), personal: !chance(3), grantType: pick("parent", "step-parent", "guardian", "guardian-of-minor", "caregiver"),
			covers: pick("routine", "part2", "reproductive", "behavioral"), employers: chance(4)}
		a.emergency = !a.machine && !a.grant && chance(6)
		if !a.many {
			// Ward makes nobody their own person in an attempt with either.
			a.own, a.family = !a.grant && !a.emergency && chance(4), chance(6)
		} else {
			a.blocked = false // nobody's record is kept from nobody
		}
		for name, n := range map[string]int{id: 6, "member.phi": 2, "member.call": 2, "sensitive.view": 2} {
			if rng.IntN(n) > 0 || name != id && chance(3) {
				a.at[name] = !chance(5)
			}
		}
		out := s.Evaluate(a.question(c))
		var got []string
		for _, p := range slices.Concat(out.Permits, out.Forbids) {
			got = append(got, p.ID)
			satisfied[p.ID]++
		}
		slices.Sort(got)
		want := a.reading(c.Resources[a.resource].Attributes["sensitivity"] != nil)
		if !slices.Equal(got, want) || len(out.Errors) > 0 {
			t.Fatalf("seed %d, question %d: %s\n%+v\nsatisfied %q\nthe rules %q\nerrors %v", seed, i, id, *a, got, want, out.Errors)
		}
		if out.Cedar {
			allowed++
		}
	}
	for _, p := range s.Policies() {
		other := p.File == "coarse.cedar" || p.Module == "proxies" || p.Module == "emergencies" || strings.HasPrefix(p.ID, "ward.")
		if !other && satisfied[p.ID] == 0 {
			t.Errorf("%s was never satisfied", p.ID)
		}
	}
	if allowed < rounds/20 || allowed > rounds/2 {
		t.Errorf("%d of %d questions are allowed: the trial says little", allowed, rounds)
	}
	t.Logf("%d questions, %d allowed", rounds, allowed)
}

// one returns one of the list.
func one(rng *rand.Rand, list ...int64) int64 { return list[rng.IntN(len(list))] }

// TestTheCeilingOfTenantsReachesNoMembers: what an organisation's administrators
// may confer does not reach members' records past the setting.
func TestTheCeilingOfTenantsReachesNoMembers(t *testing.T) {
	set, err := Compile(PBM())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"member.phi", "member.call"} {
		if set.Catalogue().WithinTenant(c) {
			t.Errorf("%s is within the ceiling of tenants", c)
		}
	}
	if !set.Catalogue().WithinTenant("report.view") {
		t.Error("the ceiling of tenants is empty")
	}
}
