package pdp

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// family is a hospital with a boy who comes of age at midnight in New York.
const family = `
	node Tenant:general
	Tenant:general operatedBy Operator:ward
	node HealthSystem:general/hs
	HealthSystem:general/hs partOf Tenant:general
	node Patient:general/leo
	Patient:general/leo partOf HealthSystem:general/hs
	person Person:leo born 2008-11-25 in US-NY
	person Person:mia
	Person:leo owns Patient:general/leo
	principal User:mia
	User:mia is Person:mia
	principal User:leo
	User:leo is Person:leo
	Person:leo family Person:mia
	Tenant:general has labs
	grant g-1 parent User:mia for Person:leo can lab.view
`

func lab(id, sensitivity string) []any {
	return []any{"patient", "Patient:general/leo", "sensitivity", sensitivity, "minorConsent", false}
}

func TestAParentAndALabUntilTheEighteenthBirthday(t *testing.T) {
	s := open(t, pbm(), "2026-11-25T04:59:58.000Z") // 23:59:58 of the day before in New York
	s.know(family)
	ask := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...)

	d := s.want(ask, "allow permitted")
	if d.Grant != "g-1" {
		t.Errorf("the allow names grant %q, want g-1", d.Grant)
	}
	if until, ok := d.ValidUntilTime(); !ok || until.Format(time.RFC3339Nano) != "2026-11-25T05:00:00Z" {
		t.Errorf("the allow is valid until %v, want midnight in New York", until)
	}
	s.want(request("labs-service", "user:mia", "lab.view", "lab:l2", lab("l2", "behavioral")...), "deny forbidden")

	s.clock.set("2026-11-25T04:59:59.999Z")
	s.want(ask, "allow permitted")
	s.clock.set("2026-11-25T05:00:00.000Z") // no fact, policy or job changed
	s.want(ask, "deny majority_reached")
	s.want(request("labs-service", "user:leo", "lab.view", "lab:l1", lab("l1", "routine")...), "allow permitted")

	s.know(`grant g-2 adult-proxy User:mia for Person:leo can lab.view`)
	if d := s.want(ask, "allow permitted"); d.Grant != "g-2" || d.ValidUntil != 0 {
		t.Errorf("the proxy's allow is by grant %q until %d, want g-2 without end", d.Grant, d.ValidUntil)
	}
}

// client is a payer's book of business: a coverage that moved groups on 1 July,
// two tenants, a pharmacy of the shared network.
const client = `
	node Tenant:acme
	node Tenant:zeta
	Tenant:acme operatedBy Operator:ward
	Tenant:zeta operatedBy Operator:ward
	node Carrier:acme/c1
	Carrier:acme/c1 memberOf Tenant:acme
	node Group:acme/g1
	node Group:acme/g2
	node Group:acme/g3
	Group:acme/g1 memberOf Carrier:acme/c1
	Group:acme/g2 memberOf Carrier:acme/c1
	Group:acme/g3 memberOf Carrier:acme/c1
	node Coverage:acme/cov1
	Coverage:acme/cov1 enrolledIn Group:acme/g1 to 2026-06-30
	Coverage:acme/cov1 enrolledIn Group:acme/g2 from 2026-07-01
	node Group:zeta/g1
	Group:zeta/g1 memberOf Tenant:zeta
	node Coverage:zeta/cov9
	Coverage:zeta/cov9 enrolledIn Group:zeta/g1
	node Pharmacy:p1
	node Pharmacy:p2
	Pharmacy:p1 belongsTo Network:network
	Pharmacy:p2 belongsTo Network:network
	person Person:pat
	Person:pat owns Coverage:acme/cov1
	Tenant:acme has claims
	Tenant:zeta has claims
	principal User:bo
	principal User:bea
	principal User:phil
	principal User:olga
	principal User:nick
	principal User:pat
	User:pat is Person:pat
	User:bo holds tpa-ops at Group:acme/g1
	User:bea holds tpa-ops at Group:acme/g2
	User:phil holds pharmacist at Pharmacy:p1
	User:olga holds ops at Operator:ward
	User:nick holds ops at Network:network
`

func claim(coverage, pharmacy any, date, sensitivity string) []any {
	return []any{"coverage", coverage, "pharmacy", pharmacy, "prescriber", nil, "fillDate", date, "sensitivity", sensitivity, "minorConsent", false}
}

func TestAClaimBelongsToTheGroupOfItsFillDate(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := func(user, date string) authz.Request {
		return request("claims-service", "user:"+user, "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", date, "routine")...)
	}
	s.want(ask("bo", "2026-06-30"), "allow permitted")
	s.want(ask("bea", "2026-06-30"), "deny no_standing") // the new group's broker
	s.want(ask("bo", "2026-07-01"), "deny no_standing")
	s.want(ask("bea", "2026-07-01"), "allow permitted")
	s.want(ask("pat", "2026-06-30"), "allow permitted") // her own, whatever the group
}

func TestAPharmacistAndATenantsClaim(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	at := func(coverage, pharmacy any) authz.Request {
		return request("claims-service", "user:phil", "claim.view", "claim:c1", claim(coverage, pharmacy, "2026-08-01", "routine")...)
	}
	s.want(at("Coverage:acme/cov1", "Pharmacy:p1"), "allow permitted") // filled at her own pharmacy
	s.want(at("Coverage:acme/cov1", "Pharmacy:p2"), "deny no_standing")
	s.want(at("Coverage:acme/cov1", nil), "deny no_standing")
	s.want(at("Coverage:zeta/cov9", "Pharmacy:p1"), "allow permitted")
}

func TestOperationsStaff(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := func(user, coverage, sensitivity string) authz.Request {
		return request("claims-service", "user:"+user, "claim.view", "claim:c1", claim(coverage, "Pharmacy:p1", "2026-08-01", sensitivity)...)
	}
	s.want(ask("olga", "Coverage:acme/cov1", "routine"), "allow permitted")
	s.want(ask("olga", "Coverage:zeta/cov9", "routine"), "allow permitted")
	s.want(ask("olga", "Coverage:acme/cov1", "part2"), "deny forbidden")
	// A role over the network reaches no member's claim.
	s.want(ask("nick", "Coverage:acme/cov1", "routine"), "deny no_standing")
	// Operations still reach a claim whose coverage had ended; a group's broker does not.
	late := request("claims-service", "user:olga", "claim.view", "claim:c2", claim("Coverage:acme/cov1", nil, "2026-08-01", "routine")...)
	s.know(`node Coverage:acme/cov3
		Coverage:acme/cov3 enrolledIn Group:acme/g1 to 2026-03-31`)
	late.Resource.Properties["coverage"] = "Coverage:acme/cov3"
	s.want(late, "allow permitted")
	bo := request("claims-service", "user:bo", "claim.view", "claim:c2", claim("Coverage:acme/cov3", nil, "2026-08-01", "routine")...)
	s.want(bo, "deny no_standing")
}

func TestABrokerWithNoAreaNamed(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(`User:bo holds tpa-ops at Group:zeta/g1`)
	feature := request("shell", "user:bo", "feature.see", "feature:claims.search")
	d := s.want(feature, "allow permitted")
	if len(d.Areas) != 2 || d.Areas[0] != "Tenant:acme" || d.Areas[1] != "Tenant:zeta" {
		t.Errorf("allowed in %v, want both tenants", d.Areas)
	}
	feature.Area = "Tenant:zeta" // naming only narrows
	if d := s.want(feature, "allow permitted"); len(d.Areas) != 1 {
		t.Errorf("allowed in %v, want Tenant:zeta alone", d.Areas)
	}
	feature.Area = "Network:network"
	s.want(feature, "deny no_standing")
	feature.Area = "Tenant:nowhere"
	s.want(feature, "deny unknown_area")
	feature.Area = "Group:acme/g1"
	s.want(feature, "deny unknown_area")

	// A tenant without the module: the feature and the route go together.
	ents := s.factsOf(hierarchy.KindEntitlement)
	for _, f := range ents {
		if f.Event.Entitlement.Tenant.Key == "acme" {
			s.end(f.ID, hierarchy.KindEntitlement, "2026-11-24T12:00:00Z")
		}
	}
	feature.Area = ""
	if d := s.want(feature, "allow permitted"); len(d.Areas) != 1 || d.Areas[0] != "Tenant:zeta" {
		t.Errorf("allowed in %v, want the other tenant untouched", d.Areas)
	}
	feature.Area = "Tenant:acme"
	s.want(feature, "deny denied")
	route := request("gateway", "user:bo", "route.call", "route:claims.list")
	route.Area = "Tenant:acme"
	s.want(route, "deny denied")
	route.Area = "Tenant:zeta"
	s.want(route, "allow permitted")
}

func (s *site) factsOf(k hierarchy.Kind) []hierarchy.Fact {
	var out []hierarchy.Fact
	for f := range s.p.View(0, 0).Facts(k) {
		out = append(out, f)
	}
	return out
}

func TestTheCoarseQuestionThenTheRecord(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	// The gateway knows the route and nothing of the record.
	s.want(request("gateway", "user:bo", "route.call", "route:claims.get"), "allow permitted")
	// A path id and properties from a gateway open nothing: it is no authority.
	s.want(request("gateway", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...), "deny anchor_missing")
	// The module has loaded the record.
	s.want(request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...), "allow permitted")
}

func TestAStaffMothersGrantNeverLendsHerRole(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know(`User:mia holds clinician at HealthSystem:general/hs`)
	// Her role alone would open her son's record; the family guard stands before it.
	withRole := request("labs-service", "user:mia", "lab.view", "lab:l2", lab("l2", "behavioral")...)
	s.want(withRole, "deny forbidden")
	withRole.Grant = authz.NoGrant
	s.want(withRole, "deny forbidden")
	// With her grant the routine lab is open, by the grant and not by the role.
	d := s.want(request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...), "allow permitted")
	if d.Grant != "g-1" {
		t.Errorf("opened by grant %q, want g-1", d.Grant)
	}
	// A colleague without family ties may use the same role.
	s.know(`principal User:cora
		User:cora holds clinician at HealthSystem:general/hs`)
	s.want(request("labs-service", "user:cora", "lab.view", "lab:l1", lab("l1", "routine")...), "allow permitted")
}

func TestABlockStandsAboveEveryGrant(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	ask := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...)
	s.want(ask, "allow permitted")
	s.know(`Person:leo blocks User:mia`)
	s.want(ask, "deny forbidden")
	s.know(`grant g-9 guardian User:mia for Person:leo can lab.view`)
	s.want(ask, "deny forbidden")
}

func TestADecisionInFlightWhileAnAssignmentEnds(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
	var fact hierarchy.FactID
	for _, f := range s.factsOf(hierarchy.KindAssignment) {
		if f.Event.Assignment.Principal.Key == "bo" {
			fact = f.ID
		}
	}
	// An answer that has begun to leave holds the acknowledgement back.
	ctx, leaving := authz.Deliver(context.Background())
	d, err := s.p.Decide(ctx, ask)
	must(t, err)
	if !d.Allowed() || !leaving.Leave() {
		t.Fatal("the first answer must be on its way")
	}
	// One that has not is turned into an outage.
	ctx, waiting := authz.Deliver(context.Background())
	if d, err := s.p.Decide(ctx, ask); err != nil || !d.Allowed() {
		t.Fatal("the second answer must be computed", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "revoked",
			Events: []hierarchy.Event{{Op: hierarchy.Void, Kind: hierarchy.KindAssignment, Fact: fact}}})
		done <- err
	}()
	for waiting.Leave() { // until the fence has expired it
		select {
		case <-done:
			t.Fatal("acknowledged while an answer was leaving")
		default:
		}
		waiting.Done()
		ctx, waiting = authz.Deliver(context.Background())
		if d, err := s.p.Decide(ctx, ask); err != nil {
			t.Fatal(err)
		} else if !d.Allowed() {
			break // the change is published: nothing later relies on the assignment
		}
	}
	select {
	case err := <-done:
		t.Fatal("acknowledged while an answer was leaving", err)
	case <-time.After(2 * grace):
	}
	leaving.Done()
	waiting.Done()
	must(t, <-done)
	s.want(ask, "deny no_standing")
}

func TestALateAnswerBecomesAnOutage(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
	ctx, d := authz.Deliver(context.Background())
	if got, err := s.p.Decide(ctx, ask); err != nil || !got.Allowed() {
		t.Fatal("must be allowed", err)
	}
	s.know(`node Group:acme/g77`) // any change fences
	if d.Leave() {
		t.Error("an answer from before an acknowledged change may still leave")
	}
	d.Done()
}

// brokenStore fails one append, after or before it took effect.
type brokenStore struct {
	hierarchy.Store
	fail  bool
	after bool
}

var errDisk = errors.New("disk failure")

func (b *brokenStore) Append(ctx context.Context, rev uint64, body []byte) (hierarchy.Head, error) {
	if !b.fail {
		return b.Store.Append(ctx, rev, body)
	}
	b.fail = false
	if b.after {
		if _, err := b.Store.Append(ctx, rev, body); err != nil {
			return hierarchy.Head{}, err
		}
	}
	return hierarchy.Head{}, errDisk
}

func TestACrashBetweenChangeRecordAndAppend(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	// The process dies after the change record: the ledger has it, the store does not.
	b := &hierarchy.Batch{Time: s.p.graph.LastTime(), Provenance: hierarchy.Provenance{Who: hierarchy.ID{Type: "Admin", Key: "ana"}}, Events: []hierarchy.Event{mustEvent(t, "node Group:acme/lost")}}
	tip := s.p.graph.Tip()
	b.Revision, b.Prev, b.Record = tip.Revision+1, tip.Hash, s.ledger.Size()
	body, err := hierarchy.Encode(b)
	must(t, err)
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	change := &clearChange{Actions: []string{"hierarchy.change"}, Events: 1, Prev: tip, Next: tip.Next(body)}
	_, err = recording{kind: audit.Change, world: w, head: tip, change: change, why: &b.Provenance}.write(context.Background(), s.ledger, s.keys)
	must(t, err)

	again, err := Open(context.Background(), s.config())
	must(t, err)
	last, err := s.ledger.Entry(s.ledger.Size() - 1)
	must(t, err)
	if last.Kind != "abandoned" {
		t.Errorf("the last record is %s, want abandoned", last.Kind)
	}
	s.p = again
	s.know(`node Group:acme/next`) // the line goes on
	_, err = Open(context.Background(), s.config())
	must(t, err)
}

func TestAStoreThatFailsInTheMiddleOfAChange(t *testing.T) {
	for _, after := range []bool{false, true} {
		broken := &brokenStore{}
		s := open(t, pbm(), "2026-11-24T12:00:00Z")
		s.know(client)
		broken.Store, broken.fail, broken.after = s.store, true, after
		s.p.store = broken
		_, err := s.try(`node Group:acme/g9`)
		if after {
			must(t, err) // it was stored after all
		} else if e := (*authz.Error)(nil); !errors.As(err, &e) || e.Code != authz.StoreFailed {
			t.Fatalf("got %v, want store_failed", err)
		}
		if _, _, ok := s.p.View(hierarchy.At(s.clock.now()), 0).Node(hierarchy.ID{Type: "Group", Tenant: "acme", Key: "g9"}); ok != after {
			t.Errorf("after=%v: the node is there: %v", after, ok)
		}
		s.know(`node Group:acme/g10`) // the line goes on
		s.p.store = s.store
		if _, err := Open(context.Background(), s.config()); err != nil {
			t.Errorf("after=%v: does not open again: %v", after, err)
		}
	}
}

func mustEvent(t testing.TB, line string) hierarchy.Event {
	t.Helper()
	events, err := sentences(line)
	must(t, err)
	return events[0]
}
