package pdp

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// altered returns the shipped pack with files put over its own.
func altered(t testing.TB, files map[string]string) *policies.Set {
	t.Helper()
	all := maps.Clone(policies.PBM())
	for name, text := range files {
		all[name] = []byte(text)
	}
	set, err := policies.Compile(all)
	must(t, err)
	return set
}

// mini is a small pack; each %s is replaced by a test.
func mini(session, catalogue, policy string) map[string][]byte {
	return map[string][]byte{
		"schema.cedarschema": []byte(`namespace M {
			entity Scope;
			entity Operator, Tenant, Network, Person in [Scope];
			entity Unit in [Scope];
			entity User tags Set<Scope>;
			entity Doc in [Scope] = { status?: String };
			type Session = { now: datetime` + session + ` };
			action "doc.read" appliesTo { principal: [User], resource: [Doc], context: Session };
		}`),
		"catalogue.yaml": []byte(`
name: mini
namespace: M
principals:
  user: {entity: User}
nodes:
  Operator: {}
  Tenant: {}
  Network: {}
  Person: {}
  Unit: {owned: true}
edges:
  operatedBy: {confers: true, from: [Tenant], to: [Operator]}
grantTypes:
  proxy: {capabilities: [doc.read]}
actions:
  doc.read: {}
` + catalogue),
		"roles.yaml":     []byte("reader: {capabilities: [doc.read]}\n"),
		"policies.cedar": []byte(policy),
	}
}

const miniDoc = `
resources:
  doc:
    kind: sent
    entity: Doc
    authority: [docs]
    anchors: {unit: Unit}
    attributes: {status: sent}
`

const miniPermit = `@id("read") permit (principal is M::User, action == M::Action::"doc.read", resource is M::Doc)
when { principal.hasTag("doc.read") && resource in principal.getTag("doc.read") };`

func compiled(t testing.TB, files map[string][]byte) *policies.Set {
	t.Helper()
	set, err := policies.Compile(files)
	must(t, err)
	return set
}

// rawClaim is claim with a date and a sensitivity of any type.
func rawClaim(coverage, pharmacy, date, sensitivity any) []any {
	return []any{"coverage", coverage, "pharmacy", pharmacy, "prescriber", nil, "fillDate", date, "sensitivity", sensitivity, "minorConsent", false}
}

func claimOf(user string, props ...any) authz.Request {
	return request("claims-service", "user:"+user, "claim.view", "claim:c1", props...)
}

// ---------------------------------------------------------------- lock-out

// A pack whose policies need a context attribute must not lock out the admins,
// who send none.
func TestAttackARequiredContextAttributeLocksNobodyOut(t *testing.T) {
	s := open(t, compiled(t, mini(", ip: ipaddr", miniDoc+"context:\n  ip: sent\n", miniPermit)), "2026-11-24T12:00:00Z")
	if _, err := s.try("node Tenant:acme"); err != nil {
		t.Errorf("the first change after init: %v", err)
	}
	if _, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "roll back"}, pbm()); err != nil {
		t.Errorf("rolling back: %v", err)
	}
}

// A pack may forbid Ward's own actions but for activation; a rollback that
// changes a role must still go through.
func TestAttackARollbackWithRolesCannotBeForbidden(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	files := maps.Clone(policies.PBM())
	files["freeze.cedar"] = []byte(`@id("freeze.roles")
forbid (principal is Ward::Admin, action == Ward::Action::"role.define", resource is Ward::Object);`)
	files["roles.yaml"] = []byte(strings.Replace(string(files["roles.yaml"]), "nurse:\n  includes: [clinician]", "nurse:\n  includes: []", 1))
	bad := compiled(t, files)
	_, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "a mistake"}, bad)
	must(t, err)
	if _, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "roll back"}, pbm()); err != nil {
		t.Errorf("rolling back: %v", err)
	}
}

// An activation of what is no set in the store stops every decision, and the
// next start too.
func TestAttackAnActivationOfNothing(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{{
		Op: hierarchy.Assert, Kind: hierarchy.KindActivation, Valid: hierarchy.Always,
		Activation: &hierarchy.Activation{Digest: "sha256:" + strings.Repeat("0", 64), Name: "nothing"}}}})
	t.Logf("change: %v", err)
	if got := s.ask(claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)); got != "allow permitted" {
		t.Errorf("afterwards: %s", got)
	}
	if _, err := Open(context.Background(), s.config()); err != nil {
		t.Errorf("the next start: %v", err)
	}
}

// ---------------------------------------------------------------- durability

// A client that leaves while its change record is being written must not leave
// an open change behind.
func TestAttackACancelledChange(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	for i := range 200 {
		before, rev := s.ledger.Size(), s.p.Graph().Tip().Revision
		ctx, cancel := context.WithCancel(context.Background())
		go func() { time.Sleep(time.Duration(i%40) * 50 * time.Microsecond); cancel() }()
		_, err := s.p.Change(ctx, Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{mustEvent(t, fmt.Sprintf("node Group:acme/x%d", i))}})
		cancel()
		time.Sleep(10 * time.Millisecond)
		if err != nil && s.ledger.Size() > before && s.p.Graph().Tip().Revision == rev {
			t.Fatalf("try %d: %v; yet the ledger has the change record", i, err)
		}
	}
	s.know("node Group:acme/next")
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	if err := rep.Changes(s.ledger.Scan(0)); err != nil {
		t.Errorf("an honest ledger is reported as tampered with: %v", err)
	}
	if _, err := Open(context.Background(), s.config()); err != nil {
		t.Errorf("open: %v", err)
	}
}

// The same open record, then a change that the store refuses: nothing starts any more.
func TestAttackACancelledChangeThenAStoreFailure(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	// What a cancelled Append leaves: a change record that nothing closes.
	tip := s.p.graph.Tip()
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	b := &hierarchy.Batch{Revision: tip.Revision + 1, Prev: tip.Hash, Time: w.now, Record: s.ledger.Size(),
		Provenance: hierarchy.Provenance{Who: hierarchy.ID{Type: "Admin", Key: "ana"}}, Events: []hierarchy.Event{mustEvent(t, "node Group:acme/lost")}}
	body, err := hierarchy.Encode(b)
	must(t, err)
	_, err = recording{kind: audit.Change, world: w, head: tip, why: &b.Provenance,
		change: &clearChange{Actions: []string{"hierarchy.change"}, Events: 1, Prev: tip, Next: tip.Next(body)}}.write(context.Background(), s.ledger, s.keys)
	must(t, err)
	broken := &brokenStore{Store: s.store, fail: true}
	s.p.store = broken
	_, err = s.try("node Group:acme/y")
	t.Logf("a failing store: %v", err)
	if _, err := Open(context.Background(), s.config()); err != nil {
		t.Errorf("open: %v", err)
	}
}

func TestAttackALeaveAfterDone(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ctx, d := authz.Deliver(context.Background())
	d.Done() // a door that says too early that it is finished
	got, err := s.p.Decide(ctx, claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...))
	must(t, err)
	s.know("node Group:acme/zz")
	if got.Allowed() && d.Leave() {
		t.Error("an answer from before an acknowledged change may leave")
	}
}

// ---------------------------------------------------------------- anchors

type coverageID string

// A Go caller that sends an anchor of its own string type has not said that
// there is none.
func TestAttackAnAnchorOfAnotherGoType(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("Person:pat blocks User:phil")
	s.want(claimOf("phil", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")...), "deny forbidden")
	text := "Coverage:acme/cov1"
	for name, v := range map[string]any{"named string": coverageID(text), "pointer": &text, "raw JSON": json.RawMessage(`"Coverage:acme/cov1"`), "bytes": []byte(text)} {
		if got := s.ask(claimOf("phil", claim(v, "Pharmacy:p1", "2026-08-01", "routine")...)); !strings.HasPrefix(got, "deny") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// The confidentiality owner's anchor is null: blocks, family and entitlement
// fall away.
func TestAttackANullOwnerAnchor(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("Person:pat blocks User:phil")
	if got := s.ask(claimOf("phil", claim(nil, "Pharmacy:p1", "2026-08-01", "routine")...)); !strings.HasPrefix(got, "deny") {
		t.Errorf("a claim of nobody: %s", got)
	}
}

func TestAttackAnchorsOfWrongShape(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	for _, v := range []any{"", "Coverage:acme/cov1 ", " Coverage:acme/cov1", "coverage:acme/cov1", "Coverage:acme//cov1", "Coverage:/cov1", "Coverage:cov1", "Coverage:ACME/cov1",
		"Group:acme/g1", "Tenant:acme", "Person:pat", 7, true, []any{"Coverage:acme/cov1"}, map[string]any{"id": "Coverage:acme/cov1"}, "Coverage:acme/cov1\x00"} {
		s.want(claimOf("bo", claim(v, nil, "2026-06-01", "routine")...), "deny anchor_missing")
	}
	s.want(claimOf("bo", claim(nil, nil, "2026-06-01", "routine")...), "deny anchor_missing")
	for _, d := range []any{nil, 5, true, []any{"2026-06-01"}, json.Number("20260601")} {
		s.want(claimOf("bo", rawClaim("Coverage:acme/cov1", nil, d, "routine")...), "deny attribute_missing")
	}
	for _, d := range []any{"", "2026-6-1", "20260601", "2026-06-31", "2026-06-01T00:00:00", "yesterday", "10000-01-01"} {
		s.want(claimOf("bo", rawClaim("Coverage:acme/cov1", nil, d, "routine")...), "deny attribute_invalid")
	}
	for _, d := range []any{"0001-01-01", "9999-12-31", "2026-07-01T00:00:00Z", "2026-06-30T23:59:59.999-00:01"} {
		s.want(claimOf("bea", rawClaim("Coverage:zeta/cov9", nil, d, "routine")...), "deny no_standing")
	}
	s.want(claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-30T23:59:59.999-00:01", "routine")...), "deny no_standing")
	for _, v := range []any{nil, "Routine", "routine ", "secret", 1, []any{"routine"}} {
		if got := s.ask(claimOf("bo", rawClaim("Coverage:acme/cov1", nil, "2026-06-01", v)...)); got != "deny attribute_invalid" && got != "deny attribute_missing" {
			t.Errorf("sensitivity %v: %s", v, got)
		}
	}
}

// Two anchors whose types may contain each other are consistent when one of
// them contains the other.
func TestAttackCarrierAndAccount(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(`node Account:acme/a1
		Account:acme/a1 memberOf Carrier:acme/c1
		principal User:tp
		User:tp holds tpa-ops at Carrier:acme/c1`)
	r := request("claims-service", "user:tp", "claim.search", "claim-list:l", "tenant", nil, "carrier", "Carrier:acme/c1", "account", "Account:acme/a1", "group", nil, "coverage", nil, "pharmacy", nil)
	s.want(r, "allow permitted")
}

// A conferring edge kind that names no node types gives no conflict check.
func TestAttackAnEdgeKindOfAnyTypes(t *testing.T) {
	files := mini("", `
resources:
  doc:
    kind: sent
    entity: Doc
    authority: [docs]
    anchors: {unit: Unit, desk: Desk}
    attributes: {status: sent}
`, miniPermit)
	files["schema.cedarschema"] = []byte(strings.Replace(string(files["schema.cedarschema"]), "entity Unit in", "entity Unit, Desk in", 1))
	files["catalogue.yaml"] = []byte(strings.Replace(string(files["catalogue.yaml"]), "edges:\n", "  Desk: {owned: true}\nedges:\n  under: {confers: true}\n", 1))
	set, err := policies.Compile(files)
	if err != nil {
		t.Logf("refused by the compiler: %v", err)
		return
	}
	s := open(t, set, "2026-11-24T12:00:00Z")
	s.know(`node Tenant:acme
		node Unit:acme/u1
		node Unit:acme/u2
		node Desk:acme/d1
		Desk:acme/d1 under Unit:acme/u1
		principal User:eve
		User:eve holds reader at Unit:acme/u2`)
	if got := s.ask(request("docs", "user:eve", "doc.read", "doc:x", "unit", "Unit:acme/u2", "desk", "Desk:acme/d1")); got != "deny anchor_conflict" {
		t.Errorf("contradicting anchors: %s", got)
	}
}

// A sent type without anchors is decided for whoever asserts users: what the
// caller may not send is dropped, and that lifts an unless.
func TestAttackAGatewayDecidesASentType(t *testing.T) {
	s := open(t, pack(t, "certification"), "2026-11-24T12:00:00Z")
	s.know(`node Operator:lab
		principal User:alice
		User:alice holds editor at Operator:lab`)
	s.want(request("certifier", "user:alice", "write", "record:r2", "status", "archived"), "deny denied")
	if got := s.ask(request("gateway", "user:alice", "write", "record:r2", "status", "archived")); !strings.HasPrefix(got, "deny") {
		t.Errorf("a gateway, which is no authority: %s", got)
	}
	if got := s.ask(request("gateway", "user:alice", "write", "record:no-such-thing")); !strings.HasPrefix(got, "deny") {
		t.Errorf("a path id alone: %s", got)
	}
}

// ---------------------------------------------------------------- what was sent

func TestAttackOwnedNamesAreNeverSent(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("Person:pat blocks User:bo")
	r := claimOf("bo", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
	for _, n := range []string{"owners", "blocked", "entitled"} {
		r.Resource.Properties[n] = []any{}
	}
	r.Context = map[string]any{"now": "2020-01-01T00:00:00Z", "aal": 3, "capability": "claim.search", "grant": "g-1", "action": map[string]any{"soft": true}, "emergency": true, "tenant": "acme", "purpose": "TREAT"}
	r.Subject.Properties = map[string]any{"persons": []any{"pat"}, "family": []any{}, "tags": map[string]any{}}
	r.Action.Properties = map[string]any{"now": 1}
	s.want(r, "deny forbidden")
	a := convert(&r, s.p.Set().Catalogue())
	if len(a.Ignored) != 14 {
		t.Errorf("ignored %q", a.Ignored)
	}
	// aal: an export with a sent assurance
	x := request("claims-service", "user:olga", "claim.export", "claim:c1", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	x.Subject.Assurance, x.Context = 1, map[string]any{"aal": 2}
	s.want(x, "deny denied")
}

func TestAttackWardsOwnObjectsByOrdinaryCallers(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	direct := authz.Caller{Name: "portal", Asserts: []string{"admin", "user"}, Assurance: 3}
	subject, err := direct.Assert(authz.Subject{Type: "admin", ID: "ana", Properties: map[string]any{"hangs": "Operator:ward"}})
	must(t, err)
	for _, id := range []string{"policy.activate", "Operator:ward", "object"} {
		for _, rt := range []string{"object", "claim", "feature", "coverage"} {
			for _, action := range []string{"policy.activate", "hierarchy.change", "claim.view", "feature.see"} {
				r := authz.Request{Caller: direct, Subject: subject, Action: authz.Action{Name: action}, Area: "Operator:ward", Grant: "none",
					Resource: authz.Resource{Type: rt, ID: id, Properties: map[string]any{"hangs": []any{"Operator:ward"}}}, Context: map[string]any{"hangs": "Operator:ward"}}
				if got := s.ask(r); !strings.HasPrefix(got, "deny") {
					t.Errorf("%s on %s:%s: %s", action, rt, id, got)
				}
			}
		}
	}
	s.want(request("portal", "user:olga", "policy.activate", "object:x"), "deny unknown_action")
}

func TestAttackIssuersAndTypes(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(`kai@https://workforce is User:olga
		kai@https://patients is User:pat`)
	ask := func(issuer, typ, id string) string {
		c := authz.Caller{Name: "claims-service", Asserts: []string{typ}, Issuer: issuer, Assurance: 2}
		subject, err := c.Assert(authz.Subject{Type: typ, ID: id, Issuer: "https://workforce"})
		must(t, err)
		return s.ask(authz.Request{Caller: c, Subject: subject, Action: authz.Action{Name: "claim.view"},
			Resource: claimOf("x", claim("Coverage:zeta/cov9", nil, "2026-06-01", "routine")...).Resource})
	}
	for _, c := range [][4]string{
		{"https://workforce", "user", "kai", "allow permitted"},
		{"https://patients", "user", "kai", "deny no_standing"},
		{"https://workforce/", "user", "kai", "deny subject_unlinked"},
		{"HTTPS://workforce", "user", "kai", "deny subject_unlinked"},
		{"https://workforce", "user", "olga", "deny subject_unlinked"},
		{"", "user", "kai", "deny unknown_subject"},
		{"", "user", "User:olga", "deny unknown_subject"},
		{"", "user", "OLGA", "deny unknown_subject"},
		{"", "client", "olga", "deny unknown_subject"},
		{"https://workforce", "client", "kai", "deny unknown_subject"},
		{"unix", "user", "1000", "deny unknown_subject"},
		{"", "admin", "ana", "deny unknown_action"},
	} {
		if got := ask(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%v: %s", c, got)
		}
	}
}

// ---------------------------------------------------------------- grants

// "none" is a word, so no grant may have it as its id.
func TestAttackAGrantCalledNone(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	_, err := s.try("grant none adult-proxy User:mia for Person:leo can lab.view")
	r := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...)
	r.Grant = authz.NoGrant
	if got := s.ask(r); err == nil && !strings.HasPrefix(got, "deny") {
		t.Errorf("asked without any grant: %s", got)
	}
}

// Naming a grant, or none, only narrows: what is indeterminate stays so.
func TestAttackNamingWidens(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know(`principal User:cora
		User:cora holds clinician at HealthSystem:general/hs
		grant g-7 caregiver User:cora for Person:leo can lab.view`)
	s.force(altered(t, map[string]string{"odd.cedar": `@id("odd")
forbid (principal is PBM::User, action == PBM::Action::"lab.view", resource is PBM::Lab)
when { context has grant && context.grant.type == "caregiver" && context.aal + 9223372036854775807 > 0 };`}))
	r := request("labs-service", "user:cora", "lab.view", "lab:l1", lab("l1", "routine")...)
	s.want(r, "deny indeterminate")
	r.Grant = authz.NoGrant
	if got := s.ask(r); got != "deny indeterminate" {
		t.Errorf("naming none: %s", got)
	}
}

func TestAttackGrantsLendNothing(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(client)
	s.know(`person Person:bo
		User:bo is Person:bo
		node Coverage:acme/cov2
		Coverage:acme/cov2 enrolledIn Group:acme/g2
		Person:pat owns Coverage:acme/cov2
		node Coverage:acme/cov3
		Coverage:acme/cov3 enrolledIn Group:acme/g3
		Person:bo owns Coverage:acme/cov3
		grant g-cov caregiver User:bo for Person:pat can claim.view on Coverage:acme/cov2
		grant g-pur caregiver User:bea for Person:pat can claim.view purpose TREAT`)
	at := func(user, cov, sens string) authz.Request {
		return claimOf(user, claim(cov, nil, "2026-08-01", sens)...)
	}
	s.want(at("bo", "Coverage:acme/cov2", "routine"), "allow permitted")
	s.want(at("bo", "Coverage:acme/cov1", "routine"), "deny no_standing") // the grant is for the other coverage
	s.want(at("bo", "Coverage:acme/cov2", "part2"), "deny forbidden")     // his own persons do not count in the grant's attempt
	s.want(at("bo", "Coverage:acme/cov3", "part2"), "allow permitted")    // his own
	r := at("bo", "Coverage:acme/cov3", "routine")
	r.Grant = "g-cov" // his own record, narrowed to a grant of somebody else
	s.want(r, "deny denied")
	r = at("bo", "Coverage:acme/cov2", "routine")
	for _, name := range []string{"none", "g-pur", "G-COV", "g-cov ", "x"} {
		r.Grant = name
		if got := s.ask(r); !strings.HasPrefix(got, "deny") {
			t.Errorf("grant %q: %s", name, got)
		}
	}
	p := at("bea", "Coverage:acme/cov1", "part2")
	p.Context = map[string]any{"purpose": "TREAT"}
	if got := s.ask(p); !strings.HasPrefix(got, "deny") {
		t.Errorf("a purpose that is not declared: %s", got)
	}
}

// A purpose that the pack does not know can never be met: the grant is dead.
func TestAttackAPurposeNobodyCanState(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(client)
	s.know("principal User:kid")
	if _, err := s.try("grant g-p caregiver User:kid for Person:pat can claim.view purpose TREAT"); err != nil {
		return
	}
	r := claimOf("kid", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	r.Context = map[string]any{"purpose": "TREAT"}
	s.want(r, "allow permitted")
}

func TestAttackTheDepthOfAGrantType(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know("principal User:stranger")
	if _, err := s.try(`grant g-a parent User:mia for Person:leo can lab.view redelegate yes
		grant g-b parent User:stranger for Person:leo can lab.view by User:mia under g-a`); err == nil {
		t.Error("the pack gives a parent's grant no further links, and one was made")
	}
}

// A grant between organisations names a node whose people may act.
func TestAttackAGrantToAnOrganisation(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(client)
	s.know(`node Account:acme/tpa
		Account:acme/tpa memberOf Tenant:acme
		principal User:tess
		User:tess holds tpa-ops at Account:acme/tpa`)
	if _, err := s.try("grant g-o org-delegate Account:acme/tpa for Group:acme/g1 can claim.view by Carrier:acme/c1"); err != nil {
		t.Fatal(err)
	}
	s.want(claimOf("tess", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...), "deny forbidden") // no more than an employer sees
	s.know("grant g-p org-delegate Account:acme/tpa for Group:acme/g1 can claim.view,member.phi by Operator:ward")
	s.want(claimOf("tess", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...), "allow permitted")
}

// A grant over a whole group is a role by another name: it does not lift the
// family guard.
func TestAttackAnOrganisationsGrantAndTheFamily(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(client)
	s.know(`person Person:bo
		User:bo is Person:bo
		Person:bo family Person:pat`)
	ask := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	s.want(ask, "deny forbidden")
	s.know("grant g-o broker-of-record User:bo for Group:acme/g1 can claim.view by Carrier:acme/c1")
	if got := s.ask(ask); !strings.HasPrefix(got, "deny") {
		t.Errorf("his wife's claim, by a grant over her group: %s", got)
	}
}

// ---------------------------------------------------------------- blocks, merges, family

func TestAttackMergesAndBlocks(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(`person Person:pat2
		person Person:pat3
		Person:pat2 merge Person:pat
		Person:pat3 merge Person:pat2
		Person:pat3 blocks User:bo
		person Person:olga
		User:olga is Person:olga
		Person:olga family Person:pat3
		principal User:karl
		grant g-k caregiver User:karl for Person:pat3 can claim.view
		node Coverage:zeta/cov7
		Coverage:zeta/cov7 enrolledIn Group:zeta/g1
		Person:pat3 owns Coverage:zeta/cov7`)
	at := func(user, cov string) authz.Request {
		return claimOf(user, claim(cov, nil, "2026-06-01", "routine")...)
	}
	s.want(at("bo", "Coverage:acme/cov1"), "deny forbidden")
	s.want(at("olga", "Coverage:acme/cov1"), "deny forbidden")
	s.want(at("karl", "Coverage:acme/cov1"), "allow permitted")
	s.want(at("pat", "Coverage:zeta/cov7"), "allow permitted") // merged persons reach all that is theirs
	for _, f := range s.factsOf(hierarchy.KindLink) {
		if l := f.Event.Link; l.Kind == hierarchy.LinkMerge && l.From.Key == "pat3" {
			s.void(f.ID, hierarchy.KindLink)
		}
	}
	s.want(at("bo", "Coverage:acme/cov1"), "allow permitted")
	s.want(at("olga", "Coverage:acme/cov1"), "allow permitted")
	s.want(at("karl", "Coverage:acme/cov1"), "deny no_standing")
	s.want(at("pat", "Coverage:zeta/cov7"), "deny no_standing")
}

// Somebody who is blocked comes with their other account.
func TestAttackASecondAccountOfTheBlocked(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(`person Person:ex
		principal User:ex-staff
		principal User:ex-member
		User:ex-staff is Person:ex
		User:ex-member is Person:ex
		User:ex-staff holds tpa-ops at Group:acme/g1
		Person:pat blocks User:ex-member`)
	if got := s.ask(claimOf("ex-staff", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)); !strings.HasPrefix(got, "deny") {
		t.Errorf("the same human by another account: %s", got)
	}
}

// A list of one member's claims is a record of that member.
func TestAttackAListOfOneMembersClaims(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	list := func(user string) authz.Request {
		return request("claims-service", "user:"+user, "claim.search", "claim-list:l", "tenant", nil, "carrier", nil, "account", nil, "group", nil, "coverage", "Coverage:acme/cov1", "pharmacy", nil)
	}
	if got := s.ask(list("pat")); got != "allow permitted" {
		t.Errorf("a member lists her own claims: %s", got)
	}
	s.know("Person:pat blocks User:bea")
	if got := s.ask(list("bea")); !strings.HasPrefix(got, "deny") {
		t.Errorf("a blocked broker lists them: %s", got)
	}
}

// ---------------------------------------------------------------- wrong denies

// pbm-pack.md, case 7: a role at an ended node reaches claims served before.
func TestAttackRunOutAfterAGroupEnded(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ends := func(group, at string) {
		for _, f := range s.factsOf(hierarchy.KindNode) {
			if f.Event.Node.ID.String() == group {
				s.end(f.ID, hierarchy.KindNode, at)
			}
		}
	}
	ask := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	s.want(ask, "allow permitted")
	ends("Group:acme/g1", "2026-09-01T00:00:00Z") // 90 days run until 30 November
	s.want(ask, "allow permitted")
	late := claimOf("bea", claim("Coverage:acme/cov1", nil, "2026-07-15", "routine")...)
	s.want(late, "allow permitted")
	ends("Group:acme/g2", "2026-08-01T00:00:00Z") // and until 30 October
	s.want(late, "deny assignment_ended")
}

// A coverage whose node ended: a claim filled afterwards (a reversal, a claim
// paid by mistake) is for the operator and the tenant to see.
func TestAttackAClaimAfterTheCoveragesEnd(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("node Coverage:acme/old to 2026-03-31")
	s.want(claimOf("olga", claim("Coverage:acme/old", nil, "2026-03-31", "routine")...), "allow permitted")
	s.want(claimOf("olga", claim("Coverage:acme/old", nil, "2026-04-01", "routine")...), "allow permitted")
}

// A tenant that joined the operator later brought its history along.
func TestAttackHistoryFromBeforeTheTenantJoined(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(`node Tenant:late
		Tenant:late operatedBy Operator:ward from 2026-06-01
		Tenant:late has claims
		node Coverage:late/c1
		principal User:olga
		User:olga holds ops at Operator:ward`)
	s.want(claimOf("olga", claim("Coverage:late/c1", nil, "2026-07-01", "routine")...), "allow permitted")
	s.want(claimOf("olga", claim("Coverage:late/c1", nil, "2026-05-01", "routine")...), "allow permitted")
}

// A machine's address is known to the gateway, its record to the service: no
// single caller may send both.
func TestAttackAMachineClientAtAll(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.change(hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindNode, Valid: hierarchy.Always, Node: &hierarchy.Node{
		ID: hierarchy.ID{Type: "AppClient", Key: "feed"}, Principal: true, Attrs: map[string]any{"scopes": []string{"claim.export", "claim.search"}, "egress": "10.0.0.0/8"}}})
	s.know("AppClient:feed holds claims-feed at Tenant:acme")
	var answers []string
	for _, caller := range []string{"claims-service", "gateway"} {
		r := request(caller, "client:feed", "claim.export", "claim:c1", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
		r.Context = map[string]any{"ip": "10.1.2.3"}
		answers = append(answers, s.ask(r))
	}
	if !slices.Contains(answers, "allow permitted") {
		t.Errorf("no caller can ask for a machine: %q", answers)
	}
}

// ---------------------------------------------------------------- tenants

// An admin confers only what they could do or confer themselves.
func TestAttackADelegatedAdminRaisesHerself(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	role, err := EventOf("role", map[string]any{"name": "helpdesk", "capabilities": []any{"role.define", "role.assign"}}, "UTC")
	must(t, err)
	s.change(role)
	s.know(`principal Admin:hal
		1002@unix is Admin:hal
		Admin:hal holds helpdesk at Tenant:acme`)
	hal, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1002"})
	must(t, err)
	do := func(events ...hierarchy.Event) error {
		_, err := s.p.Change(context.Background(), Change{Actor: hal, Caller: adminCaller, Events: events})
		return err
	}
	if err := do(mustEvent(t, "node Group:acme/h")); err == nil {
		t.Fatal("hal may change the hierarchy from the start")
	}
	up, err := EventOf("role", map[string]any{"name": "acme/all", "includes": []any{"security-admin", "ops"}}, "UTC")
	must(t, err)
	if err := do(up); err == nil {
		t.Error("hal defined a role that holds more than hal does")
	}
	if err := do(mustEvent(t, "Admin:hal holds security-admin at Tenant:acme")); err == nil {
		t.Error("hal made himself security-admin of the tenant")
	}
	if err := do(mustEvent(t, "node Group:acme/h")); err == nil {
		t.Error("and changes the hierarchy now")
	}
}

// A tenant that has ended: its people see nothing more.
func TestAttackAnEndedTenant(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	for _, f := range s.factsOf(hierarchy.KindNode) {
		if f.Event.Node.ID.String() == "Tenant:acme" {
			s.end(f.ID, hierarchy.KindNode, "2026-11-01T00:00:00Z")
		}
	}
	feature := request("shell", "user:bo", "feature.see", "feature:claims.search")
	d, err := s.p.Decide(context.Background(), feature)
	must(t, err)
	if d.Allowed() {
		t.Errorf("a feature in %v", d.Areas)
	}
	feature.Area = "Tenant:acme"
	t.Logf("the same with the area named: %s", s.ask(feature))
}

// ---------------------------------------------------------------- records

func TestAttackWhoAskedIsFound(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	_, err := s.p.Ask(context.Background(), Inquiry{Actor: s.admin, Caller: adminCaller,
		Requests: []authz.Request{claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)}})
	must(t, err)
	found := func(k Seek) (n int) {
		for _, err := range NewFinder(s.keys, nil).Find(s.ledger.Scan(0), k) {
			must(t, err)
			n++
		}
		return n
	}
	if found(Seek{Kind: audit.Inquiry, Subject: hierarchy.ID{Type: "Admin", Key: "ana"}}) != 1 {
		t.Error("the inquiries of an admin cannot be found by the admin (DESIGN §8: the asker is its subject)")
	}
}

// What an admin or a caller writes freely stands in no clear part.
func TestAttackFreeTextInTheClear(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	const secret = "Jane-Doe-HIV"
	r := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	r.ID, r.Resource.ID, r.Area, r.Grant = secret, secret, secret, secret
	r.Context = map[string]any{secret: 1}
	s.ask(r)
	r.Action.Name, r.Resource.Type = secret, secret
	s.ask(r)
	_, err := s.p.Ask(context.Background(), Inquiry{Actor: s.admin, Caller: adminCaller, Requests: []authz.Request{{Caller: authz.Caller{Name: secret},
		Subject: authz.Subject{Type: "user", ID: secret}, Action: authz.Action{Name: "claim.view"}, Resource: authz.Resource{Type: "claim", ID: secret}}}})
	must(t, err)
	_, err = s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: secret, Ticket: secret, Import: &hierarchy.Import{ID: secret, Tenant: "acme", Step: hierarchy.ImportOpen}})
	must(t, err)
	feature := request("shell", "user:pat", "feature.see", "feature:claims.search")
	s.want(feature, "allow permitted")
	for e, err := range s.ledger.Scan(0) {
		must(t, err)
		if strings.Contains(string(e.Clear), secret) {
			t.Errorf("%s %s: %s", e.ID(), e.Kind, e.Clear)
		}
		if e.Kind == audit.Decision && strings.Contains(string(e.Clear), "Tenant:acme") {
			t.Errorf("%s names in clear the tenant where a person stands: %s", e.ID(), e.Clear)
		}
	}
}

// Replay compares the whole clear part with what it derives.
func TestAttackAForgedClearPart(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.tampered = true // by records that nobody decided
	s.know(client)
	r := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	a := convert(&r, w.set.Catalogue())
	rec := recording{kind: audit.Decision, world: w, head: s.p.current.Load().head, items: []item{{&a, w.judge(&a)}}}
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	forge := func(name string, change func(*clearPart)) {
		record, _, err := rec.encode(s.keys)
		must(t, err)
		var c clearPart
		must(t, json.Unmarshal(record.Clear, &c))
		change(&c)
		record.Clear, err = json.Marshal(c)
		must(t, err)
		seq, err := s.ledger.Append(context.Background(), record)
		must(t, err)
		e, err := s.ledger.Entry(seq)
		must(t, err)
		out, err := rep.Replay(context.Background(), e)
		if got := err != nil || len(out.Differences) > 0; got != (name != "true") {
			t.Errorf("%s: noticed: %v", name, got)
		}
	}
	forge("true", func(*clearPart) {})
	forge("no patients", func(c *clearPart) { c.Items[0].Patients = nil })
	forge("another subject", func(c *clearPart) { c.Items[0].Subject = "x" })
	forge("another action", func(c *clearPart) { c.Items[0].Action = "claim.export" })
	forge("other reasons", func(c *clearPart) { c.Items[0].Reasons = []string{"guard.block"} })
	forge("no attempts", func(c *clearPart) { c.Items[0].Attempts = nil })
	forge("a grant", func(c *clearPart) { c.Items[0].Grant = "x" })
	forge("another caller", func(c *clearPart) { c.Caller = "gateway" })
	forge("another time", func(c *clearPart) { c.Now-- })
}

// A revision fixes the policy set: a record that names another one is no record.
func TestAttackAnotherSetAtThatRevision(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.tampered = true // by records that nobody decided
	s.know(client)
	lax := altered(t, map[string]string{"lax.cedar": `@id("lax") permit (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim);`})
	_, err := s.store.PutBlob(context.Background(), lax.Archive())
	must(t, err)
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	w.set = lax
	r := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "part2")...)
	a := convert(&r, w.set.Catalogue())
	rec := recording{kind: audit.Decision, world: w, head: s.p.current.Load().head, items: []item{{&a, w.judge(&a)}}}
	seq, err := rec.write(context.Background(), s.ledger, s.keys)
	must(t, err)
	e, err := s.ledger.Entry(seq)
	must(t, err)
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	if out, err := rep.Replay(context.Background(), e); err == nil && len(out.Differences) == 0 {
		t.Error("a decision by a set that was never active replays as sound")
	}
}

func TestAttackBytesThatAreNoUTF8(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	r := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	r.Resource.ID = "c\xff1"
	d, err := s.p.Decide(context.Background(), r)
	if err != nil {
		return // refused
	}
	seq, err := audit.ParseID(d.Record)
	must(t, err)
	e, err := s.ledger.Entry(seq)
	must(t, err)
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	out, err := rep.Replay(context.Background(), e)
	must(t, err)
	if len(out.Differences) > 0 {
		t.Errorf("replay: %q", out.Differences)
	}
}

// What the door answered is on record: an allow whose obligations the caller
// does not perform is none.
func TestAttackAnAllowThatWasNone(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	r := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...)
	r.Caller.Performs = nil
	d := s.want(r, "allow permitted")
	if authz.Enforce(d, r.Caller).Allowed() {
		t.Fatal("enforce")
	}
	seq, err := audit.ParseID(d.Record)
	must(t, err)
	e, err := s.ledger.Entry(seq)
	must(t, err)
	parts, err := s.keys.Unseal(e)
	must(t, err)
	if all := string(e.Clear) + string(parts[0].Plain); !strings.Contains(all, string(authz.ObligationUnsupported)) && !strings.Contains(all, "performs") {
		t.Error("the record says allow, the door said deny, and nothing tells an auditor")
	}
}

// An inquiry about another time leaves the clock and the ledger's times alone.
func TestAttackAnInquiryAboutTheFarFuture(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	for _, at := range []string{"2300-01-01T00:00:00Z", "1950-01-01T00:00:00Z"} {
		then, err := time.Parse(time.RFC3339, at)
		must(t, err)
		_, err = s.p.Ask(context.Background(), Inquiry{Actor: s.admin, Caller: adminCaller, At: hierarchy.At(then),
			Requests: []authz.Request{claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)}})
		must(t, err)
		again, err := Open(context.Background(), s.config())
		must(t, err)
		s.p = again
		s.want(claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...), "allow permitted")
	}
}

// ---------------------------------------------------------------- the check

// A forbid that compares a whole record reads its optional members.
func TestAttackAForbidOnAWholeRecord(t *testing.T) {
	for name, cond := range map[string]string{
		"equality": `context.action == {soft: false}`,
		"set":      `[context.action].contains({soft: false})`,
		"has":      `context.action has soft`,
		"if":       `(if true then context.action else {soft: true}).soft`,
	} {
		files, err := policies.ReadPack(os.DirFS("../testdata/packs/certification"))
		must(t, err)
		files["extra.cedar"] = []byte(`@id("extra") forbid (principal is Cert::User, action == Cert::Action::"delete", resource is Cert::Record) when { context has action && ` + cond + ` };`)
		if _, err := policies.Compile(files); err == nil {
			t.Errorf("%s: passes the check", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// ---------------------------------------------------------------- validUntil

// TestAttackValidUntil looks for an answer of the shipped pack that changes by
// time alone before its validUntil, over dated facts of every kind.
func TestAttackValidUntil(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	base, err := time.Parse(time.RFC3339, "2026-06-01T00:00:00Z")
	must(t, err)
	dated := func(from, to string) string {
		a := rng.IntN(12)
		f := func(n int) string { return base.Add(time.Duration(n) * time.Hour).Format(time.RFC3339) }
		switch rng.IntN(4) {
		case 0:
			return ""
		case 1:
			return " " + from + " " + f(a)
		case 2:
			return " " + to + " " + f(a)
		}
		return " " + from + " " + f(a) + " " + to + " " + f(a+1+rng.IntN(5))
	}
	set, ends, changes := pbm(), 0, 0
	for range count(300, 10_000) {
		ft, su := func() string { return dated("from", "to") }, func() string { return dated("since", "until") }
		text := `node Operator:ward
			node Network:network
			node Tenant:acme
			Tenant:acme operatedBy Operator:ward` + ft() + `
			Tenant:acme has claims` + ft() + `
			Tenant:acme has labs` + ft() + `
			node Group:acme/g1
			Group:acme/g1 memberOf Tenant:acme` + ft() + `
			node Coverage:acme/c1
			Coverage:acme/c1 enrolledIn Group:acme/g1` + ft() + `
			node HealthSystem:acme/hs
			HealthSystem:acme/hs partOf Tenant:acme` + ft() + `
			node Patient:acme/p
			Patient:acme/p partOf HealthSystem:acme/hs` + ft() + `
			person Person:p1 born 2008-06-01 in US-OH
			person Person:p2
			Person:p1 owns Coverage:acme/c1` + su() + `
			Person:p2 owns Patient:acme/p` + su() + `
			Person:p1 merge Person:p2` + su() + `
			principal User:u
			person Person:u
			User:u is Person:u` + su() + `
			Person:u family Person:p2` + su() + `
			principal User:me
			User:me is Person:p1` + su() + `
			Person:p2 blocks User:u` + ft() + `
			User:u holds clinician at HealthSystem:acme/hs` + ft() + `
			User:u holds ops at Operator:ward` + ft() + `
			User:u holds tpa-ops at Group:acme/g1` + ft() + `
			grant g-1 parent User:u for Person:p1 can lab.view,claim.view` + ft() + `
			grant g-2 caregiver User:u for Person:p2 can lab.view,claim.view covers part2` + ft()
		lines := strings.Split(text, "\n")
		kept := lines[:0]
		for _, l := range lines {
			w := strings.Fields(l)
			if w[0] == "node" || w[0] == "principal" || w[0] == "person" || rng.IntN(4) > 0 {
				kept = append(kept, l)
			}
		}
		events, err := sentences(strings.Join(kept, "\n"))
		must(t, err)
		var all []hierarchy.Event
		for _, r := range set.Catalogue().Roles {
			all = append(all, roleEvent(r))
		}
		g := hierarchy.NewGraph()
		w := world{set: set, graph: g}
		for _, e := range events {
			if r := check(w, &e); r != nil {
				t.Fatal(r)
			}
			all = append(all, e)
		}
		b := &hierarchy.Batch{Revision: 1, Events: all, Provenance: hierarchy.Provenance{Who: opID}}
		must(t, g.Check(b))
		body, err := hierarchy.Encode(b)
		must(t, err)
		must(t, g.Apply(hierarchy.Entry{Revision: 1, Body: body}))
		w.confers, w.rev = confers(g, set), 1
		for range 12 {
			user := []string{"user:u", "user:u", "user:me"}[rng.IntN(3)]
			var r authz.Request
			switch rng.IntN(4) {
			case 0:
				r = request("labs-service", user, "lab.view", "lab:l", "patient", "Patient:acme/p", "sensitivity", []string{"routine", "part2"}[rng.IntN(2)], "minorConsent", false)
			case 1:
				r = request("claims-service", user, "claim.view", "claim:c", claim("Coverage:acme/c1", nil, base.Add(time.Duration(rng.IntN(16))*time.Hour).Format(time.RFC3339), "routine")...)
			case 2:
				r = request("eligibility-service", user, "member.coverage", "coverage:Coverage:acme/c1")
			default:
				r = request("shell", user, "feature.see", "feature:"+[]string{"claims.detail", "labs.results"}[rng.IntN(2)])
			}
			a := convert(&r, set.Catalogue())
			judge := func(at hierarchy.Instant) (string, int64) {
				w.now = at
				v := w.judge(&a).verdict
				until := v.ValidUntil
				v.ValidUntil = 0
				b, err := json.Marshal(v)
				must(t, err)
				return string(b), until
			}
			now := hierarchy.At(base) + hierarchy.Instant(rng.IntN(15*3600*1000))
			first, end := judge(now)
			until := hierarchy.Instant(end)
			if until == 0 {
				until = hierarchy.At(base.Add(24 * time.Hour))
			} else {
				ends++
				if until <= now {
					t.Fatalf("valid until %v, asked at %v", until, now)
				}
				if later, _ := judge(until); later != first {
					changes++
				}
			}
			for k := range 5 {
				at := until - 1
				if k > 0 {
					at = now + hierarchy.Instant(rng.Int64N(int64(until-now)))
				}
				if v, _ := judge(at); v != first {
					t.Fatalf("%s at %v until %v, but %s at %v\n%s", first, now, until, v, at, strings.Join(kept, "\n"))
				}
			}
		}
	}
	t.Logf("%d answers had an end, %d changed there", ends, changes)
}

// A Go caller's number that is none must not panic.
func TestAttackANumberThatIsNone(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	defer func() {
		if v := recover(); v != nil {
			t.Errorf("panic: %v", v)
		}
	}()
	if got := s.ask(claimOf("bo", rawClaim("Coverage:acme/cov1", nil, "2026-06-01", json.Number("abc"))...)); !strings.HasPrefix(got, "deny") && !strings.HasPrefix(got, "error bad_request") {
		t.Error(got)
	}
}

// Ending the operator's node takes every admin's assignment away, for good.
func TestAttackEndingTheOperator(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	for _, f := range s.factsOf(hierarchy.KindNode) {
		if f.Event.Node.ID.Type == hierarchy.OperatorType {
			_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{{Op: hierarchy.Void, Kind: hierarchy.KindNode, Fact: f.ID}}})
			t.Logf("void: %v", err)
		}
	}
	if _, err := s.try("node Tenant:acme"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Who may import a tenant's book of business does not become another admin.
func TestAttackATenantsImportOfAnIdentity(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(`principal Admin:tina
		1001@unix is Admin:tina
		Admin:tina holds security-admin at Tenant:acme`)
	tina, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	for _, line := range []string{"9999@unix is Admin:ana", "User:bo is Person:pat", "Person:pat merge Person:pat9", "grant g-t caregiver User:bo for Person:pat can claim.view"} {
		_, err = s.p.Change(context.Background(), Change{Actor: tina, Caller: adminCaller, Events: []hierarchy.Event{mustEvent(t, line)},
			Import: &hierarchy.Import{ID: "i" + line[:3], Tenant: "acme", Step: hierarchy.ImportOpen}})
		if err == nil {
			t.Errorf("imported: %s", line)
			_, err = s.p.AbandonImport(context.Background(), Change{Actor: tina, Caller: adminCaller}, "i"+line[:3])
			must(t, err)
		}
	}
}

// pbm-pack.md, case 12: a role used on one's own record is denied.
func TestAttackARoleOnOnesOwnRecord(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("User:olga is Person:pat")
	r := request("claims-service", "user:olga", "claim.export", "claim:c1", claim("Coverage:acme/cov1", nil, "2026-06-01", "part2")...)
	if got := s.ask(r); !strings.HasPrefix(got, "deny") {
		t.Errorf("exporting her own sensitive claim by role: %s", got)
	}
}

// An action whose context lacks an attribute does not need it.
func TestAttackARequiredContextOfAnotherAction(t *testing.T) {
	files := mini("", miniDoc+"  \ncontext:\n  ip: sent\n", miniPermit)
	files["schema.cedarschema"] = []byte(strings.Replace(string(files["schema.cedarschema"]), "action \"doc.read\"",
		"action \"doc.take\" appliesTo { principal: [User], resource: [Doc], context: { now: datetime, ip: ipaddr } };\n action \"doc.read\"", 1))
	files["catalogue.yaml"] = []byte(strings.Replace(string(files["catalogue.yaml"]), "  doc.read: {}\n", "  doc.read: {}\n  doc.take: {}\n", 1))
	set := compiled(t, files)
	s := open(t, set, "2026-11-24T12:00:00Z")
	if _, err := s.try("node Tenant:acme"); err != nil {
		t.Errorf("an attribute that only doc.take has: %v", err)
		return
	}
	s.know(`node Unit:acme/u
		principal User:eve
		User:eve holds reader at Tenant:acme`)
	s.want(request("docs", "user:eve", "doc.read", "doc:x", "unit", "Unit:acme/u"), "allow permitted")
}

// A store may hold a set that a check refuses; it is never put in force.
func TestAttackARefusedSetIsNotActivated(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	const lock = `@id(\"lock\") forbid (principal is Ward::Admin, action == Ward::Action::\"policy.activate\", resource is Ward::Object); `
	archive := strings.Replace(string(pbm().Archive()), `"guards.cedar":"`, `"guards.cedar":"`+lock, 1)
	set, err := policies.Open([]byte(archive))
	must(t, err)
	if _, ok := set.Policy("lock"); !ok {
		t.Fatal("the archive was not altered")
	}
	if _, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "a mistake"}, set); err == nil {
		t.Error("a set that the check refuses was activated")
	}
	if _, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "roll back"}, pbm()); err != nil {
		t.Errorf("rolling back: %v", err)
	}
}

// Who was somebody's guardian stays family when the grant has ended.
func TestAttackAFormerGuardian(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know(`principal User:nan
		User:nan holds clinician at HealthSystem:general/hs
		grant g-n guardian User:nan for Person:leo can lab.view to 2026-11-01`)
	s.want(request("labs-service", "user:nan", "lab.view", "lab:l1", lab("l1", "routine")...), "deny forbidden")
}
