package pdp

import (
	"context"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
)

// TestATenantsOwn: a tenant's own role, its setting and its forbid each change
// answers about that tenant only, in a running decision point, and stop doing so
// when they end.
func TestATenantsOwn(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("person Person:zoe\nPerson:zoe owns Coverage:zeta/cov9\nprincipal User:ed\nprincipal User:al\n" +
		"User:ed holds client-admin at Tenant:acme\nUser:ed holds client-admin at Tenant:zeta\nUser:al holds benefits at Tenant:zeta")
	at := func(user, tenant string) func(string) {
		coverage := map[string]string{"acme": "Coverage:acme/cov1", "zeta": "Coverage:zeta/cov9"}[tenant]
		return func(want string) {
			t.Helper()
			s.want(claimOf(user, claim(coverage, nil, "2026-08-01", "routine")...), want)
		}
	}
	assert := func(e hierarchy.Event) hierarchy.FactID {
		t.Helper()
		e.Op, e.Valid = hierarchy.Assert, hierarchy.Always
		c, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{e}, Why: "test"})
		must(t, err)
		return c.Facts[0]
	}

	// A setting.
	edAcme, edZeta := at("ed", "acme"), at("ed", "zeta")
	edAcme("deny forbidden")
	edZeta("deny forbidden")
	fact := assert(hierarchy.Event{Kind: hierarchy.KindSetting, Setting: &hierarchy.Setting{Tenant: hierarchy.TenantID("acme"), Name: "employerSeesMember", Value: true}})
	edAcme("allow permitted")
	edZeta("deny forbidden")

	// A role of the tenant's own: it holds within the tenant's ceiling, and is
	// assigned in that tenant only.
	alAcme, alZeta := at("al", "acme"), at("al", "zeta")
	alAcme("deny no_standing")
	assert(hierarchy.Event{Kind: hierarchy.KindRole, Role: &hierarchy.Role{Name: "acme/reviewer", Capabilities: []string{"claim.view"}}})
	if _, err := s.try("User:al holds acme/reviewer at Tenant:zeta"); err == nil {
		t.Error("a tenant's role is assigned at another")
	}
	s.know("User:al holds acme/reviewer at Tenant:acme")
	alAcme("allow permitted")
	alZeta("deny denied")

	// A forbid.
	_, _, err := s.p.ActivateOverlay(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "no reviews by phone"}, "acme",
		map[string][]byte{"own.cedar": []byte(`@id("no-reviews") forbid (principal == PBM::User::"al", action == PBM::Action::"claim.view", resource is PBM::Claim);`)})
	must(t, err)
	alAcme("deny forbidden")
	edAcme("allow permitted")
	_, err = s.p.RemoveOverlay(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "again by phone"}, "acme")
	must(t, err)
	alAcme("allow permitted")

	s.void(fact, hierarchy.KindSetting)
	edAcme("deny forbidden")
	alAcme("deny forbidden") // the reviewer is an employer's too

	// What the pack does not take is refused, with a code of its own.
	for _, x := range []struct {
		name  string
		value any
		code  string
	}{{"nothing", true, "setting_unknown"}, {"employerSeesMember", "yes", "setting_invalid"}, {"runOutDays", int64(-1), "setting_invalid"}, {"runOutDays", int64(3651), "setting_invalid"}} {
		_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "test", Events: []hierarchy.Event{{Op: hierarchy.Assert,
			Kind: hierarchy.KindSetting, Valid: hierarchy.Always, Setting: &hierarchy.Setting{Tenant: hierarchy.TenantID("acme"), Name: x.name, Value: x.value}}}})
		refusedWith(t, x.name, err, x.code)
	}
}

// TestRunOut: a role at a group that has left goes on for as many days as the
// tenant has set, for the claims of its time.
func TestRunOut(t *testing.T) {
	s := open(t, pbm(), "2026-06-30T12:00:00Z")
	s.know(client)
	group := s.know("node Group:acme/left\nGroup:acme/left memberOf Carrier:acme/c1\nnode Coverage:acme/last\n" +
		"Coverage:acme/last enrolledIn Group:acme/left to 2026-06-30\nprincipal User:tess\nUser:tess holds tpa-ops at Group:acme/left")[0]
	s.know("grant g-o org-delegate Group:acme/left for Group:acme/g1 can claim.view,member.phi by Operator:ward")
	s.end(group, hierarchy.KindNode, "2026-07-01")
	given := claimOf("tess", claim("Coverage:acme/cov1", nil, "2026-06-15", "routine")...) // by what her group was given
	ask := claimOf("tess", claim("Coverage:acme/last", nil, "2026-06-15", "routine")...)
	over := func(at string) int64 {
		until, err := ParseTime(at, "", false)
		must(t, err)
		return int64(until)
	}
	for _, x := range []struct {
		at, want, given string
		until           int64
	}{
		{"2026-07-01T00:00:00Z", "allow permitted", "allow permitted", over("2026-09-29")},
		{"2026-09-28T23:59:59.999Z", "allow permitted", "allow permitted", over("2026-09-29")}, // 90 days
		{"2026-09-29T00:00:00Z", "deny assignment_ended", "deny no_standing", 0},
	} {
		s.clock.set(x.at)
		if d := s.want(given, x.given); d.Allowed() && d.Grant != "g-o" {
			t.Errorf("at %s: by grant %q", x.at, d.Grant)
		}
		if d := s.want(ask, x.want); d.ValidUntil != x.until {
			t.Errorf("at %s: valid until %d, want %d", x.at, d.ValidUntil, x.until)
		}
	}
	s.change(hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindSetting, Valid: hierarchy.Always,
		Setting: &hierarchy.Setting{Tenant: hierarchy.TenantID("acme"), Name: "runOutDays", Value: int64(91)}})
	s.want(ask, "allow permitted")
	// What was served after the group had left is none of its claims.
	s.want(claimOf("tess", claim("Coverage:acme/last", nil, "2026-07-05", "routine")...), "deny no_standing")
	s.clock.set("2026-09-30T00:00:00Z")
	s.want(ask, "deny assignment_ended")
}
