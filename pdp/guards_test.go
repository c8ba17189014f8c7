package pdp

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
)

// A grant confers what it says, and lends nothing of what its holder's roles hold.
func TestAGrantLendsNoRole(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know(`principal User:gia
		person Person:gia
		User:gia is Person:gia
		Person:leo family Person:gia
		User:gia holds clinician at HealthSystem:general/hs
		grant g-7 parent User:gia for Person:leo can claim.view`)
	s.want(request("labs-service", "user:gia", "lab.view", "lab:l1", lab("l1", "routine")...), "deny forbidden")
}

// In a grant's attempt the principal is nobody's own person, whatever a pack's
// self rule forgets to say.
func TestNoSelfRuleMatchesInAGrantAttempt(t *testing.T) {
	files := mini(", grant?: Grant", strings.Replace(miniDoc, "attributes: {status: sent}", "owner: unit\n    attributes: {status: sent, owners: ward}", 1),
		`@id("own") permit (principal is M::User, action == M::Action::"doc.read", resource is M::Doc) when { principal.persons.containsAny(resource.owners) };`)
	schema := string(files["schema.cedarschema"])
	schema = strings.Replace(schema, "entity User tags", "entity Grant = { type: String };\n entity User = { persons: Set<Person> } tags", 1)
	schema = strings.Replace(schema, "status?: String }", "status?: String, owners: Set<Person> }", 1)
	files["schema.cedarschema"] = []byte(schema)
	files["catalogue.yaml"] = []byte(strings.Replace(string(files["catalogue.yaml"]), "user: {entity: User}", "user: {entity: User, attributes: {persons: ward}}", 1))
	s := open(t, compiled(t, files), "2026-11-24T12:00:00Z")
	s.know(`node Tenant:acme
		node Unit:acme/u
		person Person:e
		Person:e owns Unit:acme/u
		principal User:eve
		User:eve is Person:e
		grant g-self proxy User:eve for Person:e can doc.read`)
	r := request("docs", "user:eve", "doc.read", "doc:x", "unit", "Unit:acme/u")
	s.want(r, "allow permitted")
	r.Grant = "g-self" // then the grant's attempt alone may permit
	s.want(r, "deny denied")
}

// What a policy says of time bounds the answer.
func TestAPolicysTimeBoundsTheAnswer(t *testing.T) {
	s := open(t, compiled(t, mini("", miniDoc, miniPermit+`
@id("closing") forbid (principal is M::User, action == M::Action::"doc.read", resource is M::Doc)
when { context.now >= datetime("2026-11-24T18:00:00Z") };`)), "2026-11-24T12:00:00Z")
	s.know(`node Tenant:acme
		node Unit:acme/u
		principal User:eve
		User:eve holds reader at Unit:acme/u`)
	r := request("docs", "user:eve", "doc.read", "doc:x", "unit", "Unit:acme/u")
	d := s.want(r, "allow permitted")
	if until, _ := d.ValidUntilTime(); until.Format(time.RFC3339Nano) != "2026-11-24T18:00:00Z" {
		t.Errorf("valid until %v", until)
	}
	s.clock.set("2026-11-24T18:00:00Z")
	s.want(r, "deny forbidden")
}

// Of several grants that permit, the narrowest is named, and its obligations count.
func TestTheNarrowestGrantIsNamed(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	s.know(`principal User:kim
		grant a-wide caregiver User:kim for Person:leo can lab.view,claim.view covers part2
		grant b-middle caregiver User:kim for Person:leo can lab.view covers part2
		grant c-narrow caregiver User:kim for Person:leo can lab.view`)
	r := request("labs-service", "user:kim", "lab.view", "lab:l1", lab("l1", "routine")...)
	if d := s.want(r, "allow permitted"); d.Grant != "c-narrow" {
		t.Errorf("by grant %q", d.Grant)
	}
	r = request("labs-service", "user:kim", "lab.view", "lab:l1", lab("l1", "part2")...)
	if d := s.want(r, "allow permitted"); d.Grant != "b-middle" {
		t.Errorf("a sensitive one by grant %q", d.Grant)
	}
}

// strayStore answers an append with a head that is not the one it must be.
type strayStore struct{ hierarchy.Store }

func (s strayStore) Append(context.Context, uint64, []byte) (hierarchy.Head, error) {
	return hierarchy.Head{Revision: 77}, nil
}

// After a change was cut off in the middle nothing is decided until a restart.
func TestACutOffChangeStopsEverything(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	s.want(ask, "allow permitted")
	s.p.store = strayStore{s.store}
	if _, err := s.try("node Group:acme/x"); !authz.IsOutage(err) {
		t.Fatalf("the change: %v", err)
	}
	s.p.store = s.store
	d, err := s.p.Decide(context.Background(), ask)
	var e *authz.Error
	if !errors.As(err, &e) || e.Code != authz.StoreFailed || d.Allowed() {
		t.Errorf("afterwards: %v %v", d, err)
	}
	s.p, err = Open(context.Background(), s.config())
	must(t, err)
	s.want(ask, "allow permitted")
}

// A batch reads the clock once.
func TestABatchHasOneNow(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	reads := 0
	read := s.p.clock.read
	s.p.clock.read = func() (time.Time, time.Duration) { reads++; return read() }
	var rs []authz.Request
	for range 5 {
		rs = append(rs, claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...))
	}
	_, err := s.p.DecideAll(context.Background(), rs, authz.ExecuteAll)
	must(t, err)
	if reads != 1 {
		t.Errorf("%d readings of the clock", reads)
	}
}

// No clear part tells when somebody was born or comes of age.
func TestNoBirthdayInTheClear(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	for _, r := range []authz.Request{
		request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...),
		request("labs-service", "user:mia", "lab.view", "lab:l2", lab("l2", "behavioral")...),
		request("shell", "user:mia", "feature.see", "feature:labs.results"),
	} {
		d, err := s.p.Decide(context.Background(), r)
		must(t, err)
		if d.ValidUntil == 0 {
			t.Fatal("the answer does not end with the majority")
		}
	}
	for e, err := range s.ledger.Scan(0) {
		must(t, err)
		for _, secret := range []string{"1795582800000", "1795582800", "2008-11-25", "2026-11-25"} {
			if strings.Contains(string(e.Clear), secret) {
				t.Errorf("%s holds %s in clear: %s", e.ID(), secret, e.Clear)
			}
		}
	}
}

// What the pack does not know cannot be conferred or switched on.
func TestNamesNobodyKnows(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	role, err := EventOf("role", map[string]any{"name": "odd", "capabilities": []any{"lab.nope"}}, "UTC")
	must(t, err)
	for code, change := range map[string]hierarchy.Event{
		"module_unknown":       mustEvent(t, "Tenant:general has nope"),
		"capability_unknown":   mustEvent(t, "grant g-x caregiver User:mia for Person:leo can lab.nope"),
		"capability_unknown: ": role,
	} {
		_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{change}})
		var r *hierarchy.Refusal
		if !errors.As(err, &r) || r.Code != strings.TrimSuffix(code, ": ") {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// An explanation names what was missing.
func TestExplanationsNameWhatWasMissing(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	why := func(r authz.Request) string {
		a, err := s.p.Ask(context.Background(), Inquiry{Actor: s.admin, Caller: adminCaller, Explain: true, Requests: []authz.Request{r}})
		must(t, err)
		return strings.Join(a.Why[0].Missing, "; ")
	}
	absent := claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "routine")...)
	delete(absent.Resource.Properties, "pharmacy")
	for want, r := range map[string]authz.Request{
		"the anchor pharmacy was not sent (null says that there is none)":                       absent,
		"the anchor coverage names nothing that is known at this revision":                      claimOf("bo", claim("Coverage:acme/none", nil, "2026-06-01", "routine")...),
		"the anchor coverage is no id of a Coverage: write Coverage:tenant/key or Coverage:key": claimOf("bo", claim("Group:acme/g1", nil, "2026-06-01", "routine")...),
		"the anchor coverage is null, and says whose record it is":                              claimOf("bo", claim(nil, "Pharmacy:p1", "2026-06-01", "routine")...),
		"fillDate must be a date or an RFC 3339 time":                                           claimOf("bo", claim("Coverage:acme/cov1", nil, "June", "routine")...),
		"the attribute sensitivity must be PBM::Sensitivity":                                    claimOf("bo", claim("Coverage:acme/cov1", nil, "2026-06-01", "odd")...),
	} {
		if got := why(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Whatever the last admin's rights rest on stays, until there is another admin.
func TestTheLastAdminStays(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	rests := func(s *site) map[string]hierarchy.Event {
		out := map[string]hierarchy.Event{}
		for kind, of := range map[hierarchy.Kind]func(hierarchy.Event) bool{
			hierarchy.KindNode:       func(e hierarchy.Event) bool { return e.Node.ID.String() == "Admin:ana" },
			hierarchy.KindLink:       func(e hierarchy.Event) bool { return e.Link.To.String() == "Admin:ana" },
			hierarchy.KindAssignment: func(e hierarchy.Event) bool { return e.Assignment.Principal.String() == "Admin:ana" },
			hierarchy.KindRole:       func(e hierarchy.Event) bool { return e.Role.Name == "security-admin" },
		} {
			for _, f := range s.factsOf(kind) {
				if of(f.Event) {
					out[f.ID.String()] = hierarchy.Event{Op: hierarchy.Void, Kind: kind, Fact: f.ID}
				}
			}
		}
		return out
	}
	all := rests(s)
	if len(all) != 4 {
		t.Fatalf("%d facts", len(all))
	}
	for id, e := range all {
		_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{e}})
		var r *hierarchy.Refusal
		if !errors.As(err, &r) || r.Code != "last_admin" {
			t.Errorf("voiding %s (kind %d): %v", id, e.Kind, err)
		}
	}
	s.know(`principal Admin:eli
		1007@unix is Admin:eli
		Admin:eli holds security-admin at Operator:ward`)
	for _, e := range all {
		if e.Kind == hierarchy.KindAssignment {
			s.change(e)
		}
	}
	if _, err := s.try("node Tenant:late"); err == nil {
		t.Error("ana still administers")
	}
}
