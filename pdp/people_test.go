package pdp

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

const house = `
	node Tenant:mercy
	Tenant:mercy operatedBy Operator:ward
	Tenant:mercy has proxies
	node HealthSystem:mercy/main
	HealthSystem:mercy/main partOf Tenant:mercy
	node Patient:mercy/leo
	Patient:mercy/leo partOf HealthSystem:mercy/main
	person Person:leo born 2009-05-01 in US-OH
	person Person:leob born 2018-05-01 in US-OH
	Person:leo owns Patient:mercy/leo
	Person:leo merge Person:leob
	person Person:dad
	person Person:mum
	Person:leo family Person:dad
	Person:leo family Person:mum
	principal User:dad
	principal User:dad2
	principal User:mum
	User:dad is Person:dad
	User:dad2 is Person:dad
	User:mum is Person:mum
`

func asking(user string) Asking {
	caller := authz.Caller{Name: "portal", Asserts: []string{"user"}, Assurance: 2}
	s, err := caller.Assert(authz.Subject{Type: "user", ID: user})
	if err != nil {
		panic(err)
	}
	return Asking{Subject: s, Caller: caller}
}

// deniedWith checks that a decision on record refused, with a code.
func deniedWith(t *testing.T, what string, err error, code authz.Code) {
	t.Helper()
	var e *authz.Error
	if !errors.As(err, &e) || e.Kind != authz.Refused || e.Code != code || e.Record == "" || e.Err != nil {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func parents(typ, subject string, coSigners ...string) GrantRequest {
	id := func(s string) hierarchy.ID { id, _ := hierarchy.ParseID(s); return id }
	q := GrantRequest{Grant: hierarchy.Grant{Type: typ, Grantee: id("User:dad"), Subject: id(subject),
		Scope: hierarchy.Scope{Capabilities: []string{"lab.view"}, Coverage: id("Patient:mercy/leo")}}}
	for _, c := range coSigners {
		q.CoSigners = append(q.CoSigners, id(c))
	}
	return q
}

// TestAssentIsAskedOfEveryIdentity: a younger duplicate of a teen lets nobody
// pass them by.
func TestAssentIsAskedOfEveryIdentity(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	g, err := s.p.RequestGrant(context.Background(), asking("dad"), parents("parent", "Person:leob"))
	must(t, err)
	for _, n := range g.Needs {
		if n.As == hierarchy.SignerSubject {
			return
		}
	}
	t.Errorf("no assent is asked for: %v", g.Needs)
}

// TestWhoCoSigns: family that is not the grantee by another account.
func TestWhoCoSigns(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	for _, by := range []string{"Person:dad", "User:dad2", "User:dad", "Person:leob"} {
		_, err := s.p.RequestGrant(context.Background(), asking("dad"), parents("step-parent", "Person:leo", by))
		refusedWith(t, by, err, "co_signer_missing")
	}
	_, err := s.p.RequestGrant(context.Background(), asking("dad"), parents("step-parent", "Person:leo", "Person:mum"))
	must(t, err)
}

// TestRequestsAreFew: nobody fills the facts with requests, whoever they ask for
// and with whichever of their accounts.
func TestRequestsAreFew(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	for i := range MaxRequests + 2 {
		s.know(fmt.Sprintf("person Person:k%d born 2012-01-01 in US-OH\nPerson:k%d family Person:dad", i, i))
	}
	ask := func(i int, user string) (Delegated, error) {
		q := parents("parent", fmt.Sprint("Person:k", i))
		q.Grant.Scope.Coverage = hierarchy.ID{}
		q.Grant.Grantee = hierarchy.ID{Type: "User", Key: user}
		return s.p.RequestGrant(context.Background(), asking(user), q)
	}
	var made []Delegated
	for i := range MaxRequested {
		g, err := ask(i, []string{"dad", "dad2"}[i%2])
		must(t, err)
		made = append(made, g)
	}
	for _, user := range []string{"dad", "dad2"} {
		_, err := ask(MaxRequested, user)
		refusedWith(t, "one more waits", err, "request_limit")
	}
	// Withdrawn ones wait no more, and were asked for all the same.
	for i := MaxRequested; i < MaxRequests; i++ {
		_, err := s.p.RevokeGrant(context.Background(), asking(made[i-MaxRequested].Grantee.Key), made[i-MaxRequested].ID)
		must(t, err)
		g, err := ask(i, "dad")
		must(t, err)
		made = append(made, g)
	}
	_, err := s.p.RevokeGrant(context.Background(), asking("dad"), made[MaxRequests-1].ID)
	must(t, err)
	if g, _ := s.p.View(0, 0).Grant(made[MaxRequests-1].ID); !g.Voided {
		t.Error("what was withdrawn at once is not void")
	}
	_, err = ask(MaxRequests, "dad2")
	refusedWith(t, "one more in a day", err, "request_limit")
	q := parents("parent", "Person:leo")
	q.Grant.Grantee = hierarchy.ID{Type: "User", Key: "mum"}
	_, err = s.p.RequestGrant(context.Background(), asking("mum"), q) // has a count of her own
	must(t, err)
	s.clock.set("2026-11-25T12:00:00Z")
	_, err = ask(MaxRequests+1, "dad")
	must(t, err)
}

// TestNobodySignsForAnother: who changes grants writes no signature, but of
// a grant that another system keeps, and takes one away with a reason.
func TestNobodySignsForAnother(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	asked, err := s.p.RequestGrant(context.Background(), asking("dad"), parents("parent", "Person:leo"))
	must(t, err)
	dad, leo := hierarchy.ID{Type: "User", Key: "dad"}, hierarchy.ID{Type: "Person", Key: "leo"}
	sign := func(grant string) hierarchy.Event {
		e := asserted(hierarchy.KindSignature, hierarchy.Always)
		e.Signature = &hierarchy.Signature{Grant: grant, Need: hierarchy.Need{As: hierarchy.SignerSubject, By: leo}, Principal: dad}
		return e
	}
	give := func(id, source string) hierarchy.Event {
		e := asserted(hierarchy.KindGrant, hierarchy.Always)
		g := asked.Grant
		g.ID, g.Source, g.External = id, source, source
		e.Grant = &g
		return e
	}
	try := func(why string, events ...hierarchy.Event) error {
		_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: events, Why: why})
		return err
	}
	refusedWith(t, "of one that was asked for", try("test", sign(asked.ID)), "signature_unasked")
	refusedWith(t, "of one of ours", try("test", give("g-own", ""), sign("g-own")), "signature_unasked")
	refusedWith(t, "of none", try("test", sign("g-none")), "signature_unasked")
	must(t, try("test", give("g-ehr", "ehr"), sign("g-ehr")))
	must(t, try("test", give("g-late", "ehr")))
	must(t, try("test", sign("g-late")))
	// A person cannot say that another system keeps what they ask for.
	q := parents("parent", "Person:leo")
	q.Grant.Source, q.Grant.External = "ehr", "1"
	forged, err := s.p.RequestGrant(context.Background(), asking("dad"), q)
	must(t, err)
	refusedWith(t, "of one said to be another system's", try("test", sign(forged.ID)), "signature_unasked")

	now, err := s.p.Now()
	must(t, err)
	for _, op := range []hierarchy.Op{hierarchy.End, hierarchy.Void} {
		id := map[hierarchy.Op]string{hierarchy.End: "g-ehr", hierarchy.Void: "g-late"}[op]
		e := hierarchy.Event{Op: op, Kind: hierarchy.KindSignature, Fact: s.p.View(now, 0).Signatures(id)[0].Fact}
		if op == hierarchy.End {
			e.At = now
		}
		refusedWith(t, "without a reason", try(" ", e), "why_missing")
		must(t, try("withdrawn there", e))
		if g, _ := s.p.View(now, 0).Grant(id); g.State(now) == hierarchy.GrantActive {
			t.Errorf("%s goes on without its signature", id)
		}
	}
}

// TestAMinorTakesBackTheirAssent: what rests on it ends, though they gave nothing.
func TestAMinorTakesBackTheirAssent(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house + `
		principal User:leo
		User:leo is Person:leo
		principal User:rita
		User:rita holds records-release at Tenant:mercy
		person Person:kid born 2018-05-01 in US-OH
		principal User:kid
		User:kid is Person:kid
		Person:kid family Person:dad
		node Patient:mercy/kid
		Patient:mercy/kid partOf HealthSystem:mercy/main
		Person:kid owns Patient:mercy/kid`)
	ctx := context.Background()
	g, err := s.p.RequestGrant(ctx, asking("dad"), parents("parent", "Person:leo"))
	must(t, err)
	_, err = s.p.SignGrant(ctx, asking("leo"), g.ID, hierarchy.SignerSubject)
	must(t, err)
	g, err = s.p.SignGrant(ctx, asking("rita"), g.ID, hierarchy.SignerVerifier)
	must(t, err)
	if g.State != hierarchy.GrantActive {
		t.Fatalf("signed by all it is %s", g.State)
	}
	s.clock.set("2026-11-24T12:01:00Z")
	g, err = s.p.RevokeGrant(ctx, asking("leo"), g.ID)
	must(t, err)
	if g.State != hierarchy.GrantRevoked {
		t.Errorf("without his assent it is %s", g.State)
	}
	// Who has no say yet takes back nothing.
	q := parents("parent", "Person:kid")
	q.Grant.Scope.Coverage = hierarchy.ID{Type: "Patient", Tenant: "mercy", Key: "kid"}
	g, err = s.p.RequestGrant(ctx, asking("dad"), q)
	must(t, err)
	_, err = s.p.RevokeGrant(ctx, asking("kid"), g.ID)
	deniedWith(t, "a child of eight", err, authz.Denied)
}

// TestAStrangerLearnsNothing: neither whether there is a person, nor what stands
// against the asker, nor which grants there are.
func TestAStrangerLearnsNothing(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house + `
		person Person:ada born 1961-02-01 in US-OH
		node Patient:mercy/ada
		Patient:mercy/ada partOf HealthSystem:mercy/main
		Person:ada owns Patient:mercy/ada
		principal User:ada
		User:ada is Person:ada
		principal User:stan
		principal User:barred
		Person:ada blocks User:barred`)
	ask := func(user, subject, coverage, parent string) error {
		q := parents("guardian", subject)
		q.Grant.Grantee = hierarchy.ID{Type: "User", Key: user}
		q.Grant.Parent = parent
		q.Grant.Scope.Coverage = hierarchy.ID{Type: "Patient", Tenant: "mercy", Key: coverage}
		_, err := s.p.RequestGrant(context.Background(), asking(user), q)
		return err
	}
	for _, c := range []struct{ name, user, subject, coverage string }{
		{"no such person", "stan", "Person:none", "ada"},
		{"another's record", "stan", "Person:ada", "leo"},
		{"no record", "stan", "Person:ada", "none"},
		{"a court order", "barred", "Person:ada", "ada"},
		{"a minor", "stan", "Person:leo", "leo"},
	} {
		deniedWith(t, c.name, ask(c.user, c.subject, c.coverage, ""), authz.UnknownResource)
	}
	unknown := parents("step-parent", "Person:leo") // without a co-signer, which is not told
	unknown.Grant.Grantee, unknown.Grant.Scope.Coverage.Key = hierarchy.ID{Type: "User", Key: "stan"}, "ada"
	_, err := s.p.RequestGrant(context.Background(), asking("stan"), unknown)
	deniedWith(t, "what the facts would refuse too", err, authz.UnknownResource)
	must(t, ask("stan", "Person:ada", "ada", ""))
	// The subject is told why.
	q := parents("guardian", "Person:ada")
	q.Grant.Grantee, q.Grant.Scope.Coverage.Key = hierarchy.ID{Type: "User", Key: "stan"}, "ada"
	_, err = s.p.RequestGrant(context.Background(), asking("ada"), q)
	deniedWith(t, "her own", err, authz.Denied)

	// Others' grants are as if they were not.
	q = parents("caregiver", "Person:ada")
	q.Grant.Grantee, q.Grant.Scope.Coverage = hierarchy.ID{Type: "User", Key: "stan"}, hierarchy.ID{}
	q.Key = "k"
	ours, err := s.p.RequestGrant(context.Background(), asking("ada"), q)
	must(t, err)
	var texts []string
	for _, parent := range []string{ours.ID, "g-none"} {
		q := parents("adult-proxy", "Person:ada")
		q.Grant.Parent, q.Grant.Scope.Coverage.Key = parent, "ada"
		_, err := s.p.RequestGrant(context.Background(), asking("ada"), q)
		refusedWith(t, parent, err, hierarchy.CodeUnknownEnd)
		var e *authz.Error
		errors.As(err, &e)
		texts = append(texts, e.Text)
	}
	if texts[0] != texts[1] {
		t.Errorf("a grant that is there is told from one that is not: %q", texts)
	}
	// A key is its asker's: used once by each.
	again, err := s.p.RequestGrant(context.Background(), asking("ada"), q)
	refusedWith(t, "the key again", err, hierarchy.CodeGrantExists)
	if again.ID != ours.ID || len(again.Scope.Capabilities) > 0 {
		t.Errorf("%+v", again)
	}
	q = parents("parent", "Person:leo")
	q.Key = "k"
	theirs, err := s.p.RequestGrant(context.Background(), asking("dad"), q)
	must(t, err)
	if theirs.ID == ours.ID {
		t.Error("two keys made one id")
	}
}

// TestWhatTheFactsRefuseIsOnRecord: as a deny with the code, of the one who
// asked; and it replays.
func TestWhatTheFactsRefuseIsOnRecord(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	ctx := context.Background()
	q := parents("parent", "Person:leo")
	q.Key = "k"
	_, err := s.p.RequestGrant(ctx, asking("dad"), q)
	must(t, err)
	inverted, capability, unknown := parents("parent", "Person:leo"), parents("parent", "Person:leo"), parents("friend", "Person:leo")
	inverted.From, inverted.To = hierarchy.Instant(2e12), hierarchy.Instant(1.9e12)
	capability.Grant.Scope.Capabilities = []string{"lab.nope"}
	for code, q := range map[string]GrantRequest{
		hierarchy.CodeGrantExists: q, "co_signer_missing": parents("step-parent", "Person:leo"), hierarchy.CodeIntervalInverted: inverted,
		"capability_unknown": capability, "grant_type_unknown": unknown,
	} {
		before, tip := s.ledger.Size(), s.p.graph.Tip()
		_, err := s.p.RequestGrant(ctx, asking("dad"), q)
		refusedWith(t, code, err, code)
		var e *authz.Error
		if !errors.As(err, &e) || e.Kind != authz.Refused || s.ledger.Size() != before+1 || e.Record != audit.ID(before) {
			t.Fatalf("%s: %d records, %+v", code, s.ledger.Size()-before, e)
		}
		if s.p.graph.Tip() != tip {
			t.Errorf("%s: something was changed", code)
		}
		xs, err := s.p.Explain(ctx, s.admin, adminCaller, e.Record)
		must(t, err)
		if len(xs) != 1 || xs[0].Kind != "decision" || string(xs[0].Verdict.Code) != code || bool(xs[0].Verdict.Effect) || xs[0].Subject != "user:dad" {
			t.Errorf("%s: %+v", code, xs)
		}
	}
	rep, err := NewReplayer(ctx, s.store, s.keys)
	must(t, err)
	for e, err := range s.ledger.Scan(0) {
		must(t, err)
		r, err := rep.Replay(ctx, e)
		must(t, err)
		if len(r.Differences) > 0 {
			t.Errorf("%s replays differently: %s", r.Record, r.Differences)
		}
	}
}

// TestADenialHoldsNobodyUp: what comes to nothing is recorded beside a change
// that is under way.
func TestADenialHoldsNobodyUp(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house + "principal User:stan")
	s.p.changing.Lock()
	defer s.p.changing.Unlock()
	_, err := s.p.RequestGrant(context.Background(), asking("stan"), parents("parent", "Person:leo"))
	deniedWith(t, "a stranger", err, authz.UnknownResource)
	_, err = s.p.RevokeGrant(context.Background(), asking("stan"), "g-none")
	deniedWith(t, "a stranger", err, authz.UnknownResource)
}

// TestReservedRoles: what people hold on their own records, and in an emergency,
// is assigned to nobody.
func TestReservedRoles(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	for _, role := range []string{"member", "patient", "emergency-access"} {
		_, err := s.try("User:mum holds " + role + " at Tenant:mercy")
		refusedWith(t, role, err, "role_reserved")
	}
	s.know("User:mum holds nurse at Tenant:mercy")
}

// TestAnOverlayKeepsNobodyFromEndingAGrant, whatever it forbids.
func TestAnOverlayKeepsNobodyFromEndingAGrant(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	g, err := s.p.RequestGrant(context.Background(), asking("dad"), parents("parent", "Person:leo"))
	must(t, err)
	_, _, err = s.p.ActivateOverlay(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "test"}, "mercy", map[string][]byte{"own.cedar": []byte(
		`@id("none") forbid (principal, action in [PBM::Action::"grant.request", PBM::Action::"grant.revoke"], resource is PBM::Delegation);`)})
	must(t, err)
	if _, err := s.p.RequestGrant(context.Background(), asking("dad"), parents("parent", "Person:leo")); err == nil {
		t.Error("the overlay forbids no request")
	}
	_, err = s.p.RevokeGrant(context.Background(), asking("dad"), g.ID)
	must(t, err)
}

// TestTheRightToConferIsGivenWithWhatItsHolderHas: who may confer is not made by
// somebody who could not confer what they hold already, there or for all.
func TestTheRightToConferIsGivenWithWhatItsHolderHas(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	role := asserted(hierarchy.KindRole, hierarchy.Always)
	role.Role = &hierarchy.Role{Name: "assigner", Capabilities: []string{"role.assign"}}
	s.change(role)
	s.know(`node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		node Pharmacy:p1
		principal Admin:bea
		principal Admin:nina
		principal Admin:netta
		principal Admin:new
		1001@unix is Admin:bea
		Admin:bea holds assigner at Tenant:acme
		Admin:bea holds assigner at Pharmacy:p1
		Admin:nina holds auditor at Tenant:acme
		Admin:netta holds assigner at Network:network`)
	bea, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	try := func(sentence string) string {
		events, err := sentences(sentence)
		must(t, err)
		var refused *authz.Error
		if _, err = s.p.Change(context.Background(), Change{Actor: bea, Caller: adminCaller, Events: events, Why: "test"}); errors.As(err, &refused) {
			return string(refused.Code)
		}
		must(t, err)
		return ""
	}
	for sentence, want := range map[string]string{
		"Admin:nina holds assigner at Tenant:acme":  "not_conferrable", // she could pass on audit.read
		"Admin:netta holds assigner at Pharmacy:p1": "no_standing",     // nor is she of the network's to begin with
		"Admin:new holds assigner at Tenant:acme":   "",
		"Admin:netta holds broker at Tenant:acme":   "",
	} {
		if got := try(sentence); got != want {
			t.Errorf("%s: %q, want %q", sentence, got, want)
		}
	}
}
