package pdp

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
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

// TestRequestsAreFew: nobody fills the facts with requests.
func TestRequestsAreFew(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	for i := range MaxRequested + 1 {
		s.know(fmt.Sprintf("person Person:k%d born 2012-01-01 in US-OH", i))
		q := parents("parent", fmt.Sprint("Person:k", i))
		q.Grant.Scope.Coverage = hierarchy.ID{}
		if _, err := s.p.RequestGrant(context.Background(), asking("dad"), q); i < MaxRequested {
			must(t, err)
		} else {
			refusedWith(t, "one more", err, "request_limit")
		}
	}
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
