package pdp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
)

// TestCandidatesAreWhoStands compares the candidates of random questions, under
// a pack that permits whoever stands, with asking every user there is.
func TestCandidatesAreWhoStands(t *testing.T) {
	ctx := context.Background()
	allowed, questions := 0, 0
	for seed := range uint64(count(150, 5000)) {
		m := newMaze(t, seed)
		for range 20 {
			q := m.question()
			w := world{set: permitAll(), graph: m.g, confers: confers(m.g, permitAll()), rev: m.g.Head().Revision, now: q.now}
			r := m.request(q, "docs")
			questions++
			found, code, err := w.candidates(ctx, r)
			must(t, err)
			for _, u := range m.users {
				r.Subject.ID = u.Key
				a := convertInquiry(w, r)
				j := w.judge(&a)
				if bool(j.verdict.Effect) != (found[u] == "user") {
					t.Fatalf("seed %d: %s is %s (%s), among the candidates: %t (%q)", seed, u, j.verdict.Effect, j.verdict.Code, found[u] != "", code)
				}
				if j.verdict.Effect {
					allowed++
				}
			}
		}
	}
	t.Logf("%d questions, %d allows", questions, allowed)
	if allowed < questions/10 {
		t.Error("too few allows to say anything")
	}
}

// TestWhoAsksAll asks every user of a site and compares with Who, for records,
// nodes, features and routes.
func TestWhoAsksAll(t *testing.T) {
	s := open(t, pbm(), "2026-06-01T00:00:00Z")
	var b strings.Builder
	b.WriteString(`
		node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		node Tenant:globex
		Tenant:globex operatedBy Operator:ward
		node Group:acme/g8
		Group:acme/g8 memberOf Tenant:acme
		node Coverage:acme/c1
		Coverage:acme/c1 enrolledIn Group:acme/g8
		node Coverage:globex/c2
		person Person:rosa
		person Person:rosa2
		Person:rosa merge Person:rosa2
		Person:rosa owns Coverage:acme/c1
		Tenant:acme has claims
	`)
	users := []string{"admin", "above", "below", "self", "merged", "friend", "onlyc2", "ended", "none"}
	for _, u := range users {
		b.WriteString("principal User:" + u + "\n")
	}
	b.WriteString(`
		User:admin holds tpa-ops at Operator:ward
		User:above holds tpa-ops at Group:acme/g8
		User:below holds tpa-ops at Coverage:acme/c1
		User:self is Person:rosa
		User:merged is Person:rosa2
		User:onlyc2 holds tpa-ops at Coverage:globex/c2
		User:ended holds tpa-ops at Group:acme/g8 to 2026-01-31
		grant g1 caregiver User:friend for Person:rosa2 can claim.view,claim.search
	`)
	s.know(b.String())
	for _, c := range []struct {
		action, resource, area string
		props                  []any
		want                   string
	}{
		{"claim.view", "claim:x", "", []any{"coverage", "Coverage:acme/c1", "pharmacy", nil, "prescriber", nil, "fillDate", "2026-05-01", "sensitivity", "routine", "minorConsent", false},
			"above admin below friend merged self"},
		{"feature.see", "feature:claims.detail", "Tenant:acme", nil, "above admin below friend merged self"},
		{"route.call", "route:claims.get", "Tenant:acme", nil, "above admin below friend merged self"},
		{"feature.see", "feature:claims.detail", "Tenant:globex", nil, ""},
	} {
		r := request("", "user:", c.action, c.resource, c.props...)
		r.Area = c.area
		inquiry := Inquiry{Actor: s.admin, Caller: adminCaller, Requests: []authz.Request{r}}
		got, err := s.p.Who(context.Background(), inquiry, 0)
		must(t, err)
		var may []string
		stood := map[string]bool{}
		for i, v := range got.Verdicts {
			stood[got.Principals[i].Key] = true
			if v.Effect {
				may = append(may, got.Principals[i].Key)
			}
		}
		if strings.Join(may, " ") != c.want || got.Unresolved != "" {
			t.Errorf("%s %s: %v %s, want %s", c.action, c.resource, may, got.Unresolved, c.want)
		}
		if stood["none"] || stood["ended"] {
			t.Errorf("%s %s: asked about who does not stand there: %v", c.action, c.resource, got.Principals)
		}
		for _, u := range users { // nobody that was left out may
			q := inquiry
			r.Subject.Type, r.Subject.ID = "user", u
			q.Requests = []authz.Request{r}
			a, err := s.p.Ask(context.Background(), q)
			must(t, err)
			if bool(a.Verdicts[0].Effect) && !stood[u] {
				t.Errorf("%s %s: %s may, and was not asked", c.action, c.resource, u)
			}
		}
	}
}

// TestWhoTellsOfEmergencies: who has one open on the record, with a role or
// without, and who may open one.
func TestWhoTellsOfEmergencies(t *testing.T) {
	ctx := context.Background()
	s := open(t, pbm(), "2026-06-01T12:00:00Z")
	s.know(`
		node Tenant:mercy
		Tenant:mercy operatedBy Operator:ward
		Tenant:mercy has labs
		Tenant:mercy has emergencies
		node HealthSystem:mercy/main
		HealthSystem:mercy/main partOf Tenant:mercy
		node Patient:mercy/leo
		Patient:mercy/leo partOf HealthSystem:mercy/main
		node Patient:mercy/ada
		Patient:mercy/ada partOf HealthSystem:mercy/main
		person Person:leo
		person Person:ada
		Person:leo owns Patient:mercy/leo
		Person:ada owns Patient:mercy/ada
		principal User:erik
		principal User:gone
		principal User:petra
		principal User:nell
		User:erik holds emergency-clinician at HealthSystem:mercy/main
		User:petra holds emergency-clinician at HealthSystem:mercy/main
		User:nell holds nurse at HealthSystem:mercy/main`)
	role := s.know("User:gone holds emergency-clinician at HealthSystem:mercy/main")[0]
	opened := map[string]string{}
	for _, user := range []string{"erik", "gone"} {
		a := asking(user)
		a.Caller.Performs = []string{"notify-privacy"}
		f, _, _, err := s.p.OpenEmergency(ctx, a, hierarchy.Emergency{Node: hierarchy.ID{Type: "Patient", Tenant: "mercy", Key: "leo"}, Reason: "unconscious", Text: "found"})
		must(t, err)
		opened["User:"+user] = f.ID
	}
	s.clock.set("2026-06-01T12:10:00Z")
	s.end(role, hierarchy.KindAssignment, "2026-06-01T12:05:00Z")
	tell := func(patient string, assurance int) string {
		r := request("", "user:", "lab.view", "lab:l1", "patient", "Patient:mercy/"+patient, "sensitivity", "routine", "minorConsent", false)
		r.Subject.Assurance = assurance
		before := s.ledger.Size()
		got, err := s.p.Who(ctx, Inquiry{Actor: s.admin, Caller: adminCaller, Requests: []authz.Request{r}}, 0)
		must(t, err)
		if int(s.ledger.Size()-before) != len(got.Records) {
			t.Errorf("%d records, of which it names %v", s.ledger.Size()-before, got.Records)
		}
		var out []string
		for _, o := range got.Openers {
			if o.Emergency != "" && o.Emergency != opened[o.Principal.String()] {
				t.Errorf("%s has %s", o.Principal, o.Emergency)
			}
			until := ""
			if o.Until != 0 {
				until = o.Until.String()
			}
			out = append(out, strings.TrimSpace(fmt.Sprint(o.Principal, " ", until, strings.Join(o.Reasons, ""))))
		}
		for i, v := range got.Verdicts {
			if v.Emergency != "" {
				out = append(out, "by it "+got.Principals[i].Key)
			}
		}
		return strings.Join(out, ", ")
	}
	const until = "2026-06-01T12:30:00.000Z"
	if got, want := tell("leo", 2), "User:erik "+until+", User:gone "+until+", User:petra emergency.open, by it erik, by it gone"; got != want {
		t.Errorf("leo: %s\nwant %s", got, want)
	}
	if got, want := tell("ada", 2), "User:erik emergency.open, User:petra emergency.open"; got != want {
		t.Errorf("ada: %s\nwant %s", got, want)
	}
	if got := tell("ada", 1); got != "" {
		t.Errorf("with one factor: %s", got)
	}
	s.clock.set("2026-06-01T12:30:00Z")
	if got, want := tell("leo", 2), "User:petra emergency.open"; got != want { // erik's waits for its review
		t.Errorf("once they are over: %s\nwant %s", got, want)
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

func TestWhoIsBoundedAndOnRecord(t *testing.T) {
	ctx := context.Background()
	s := open(t, pbm(), "2026-06-01T00:00:00Z")
	var b strings.Builder
	b.WriteString("node Tenant:acme\nTenant:acme operatedBy Operator:ward\nTenant:acme has claims\nnode Tenant:empty\nTenant:empty operatedBy Operator:ward\n")
	for i := range MaxInquiry + 5 {
		fmt.Fprintf(&b, "principal User:u%04d\nUser:u%04d holds tpa-ops at Tenant:acme\n", i, i)
	}
	s.know(b.String())
	r := request("", "user:", "feature.see", "feature:claims.detail")
	r.Area = "Tenant:acme"
	q := Inquiry{Actor: s.admin, Caller: adminCaller, Requests: []authz.Request{r}}
	got, err := s.p.Who(ctx, q, 0)
	must(t, err)
	if n := MaxInquiry + 5; got.Candidates != n || len(got.Verdicts) != n || len(got.Records) != 2 {
		t.Fatalf("%d candidates, %d answers, inquiries %v", got.Candidates, len(got.Verdicts), got.Records)
	}
	for i, n := range []int{MaxInquiry, 5} { // each is there to be read
		xs, err := s.p.Explain(ctx, s.admin, adminCaller, got.Records[i])
		if err != nil || len(xs) == 0 || len(xs) > n || xs[0].Kind != "inquiry" || xs[0].Subject != "user:"+got.Principals[i*MaxInquiry].Key {
			t.Errorf("record %s: %d questions, %v", got.Records[i], len(xs), err)
		}
	}
	for i, v := range got.Verdicts {
		if !v.Effect {
			t.Fatalf("%s: %s", got.Principals[i], v.Code)
		}
	}
	if got, err = s.p.Who(ctx, q, 3); err != nil || len(got.Principals) != 3 || got.Candidates != MaxInquiry+5 || got.Principals[2].Key != "u0002" {
		t.Errorf("limit 3: %v of %d, %v", got.Principals, got.Candidates, err)
	}

	// Nobody to ask, and what does not resolve: the permission is on record.
	for area, code := range map[string]authz.Code{"Tenant:empty": "", "Tenant:none": authz.UnknownArea, "": authz.AreaRequired} {
		q.Requests[0].Area = area
		before := s.ledger.Size()
		got, err := s.p.Who(ctx, q, 0)
		must(t, err)
		if got.Unresolved != code || got.Candidates != 0 || s.ledger.Size() != before+1 {
			t.Errorf("area %q: %q, %d candidates, %d records", area, got.Unresolved, got.Candidates, s.ledger.Size()-before)
		}
	}
	// A stranger learns nothing, not even whether a place exists.
	q.Actor, err = adminCaller.Assert(authz.Subject{Type: AdminType, ID: "4711"})
	must(t, err)
	for _, area := range []string{"Tenant:acme", "Tenant:none"} {
		q.Requests[0].Area = area
		var e *authz.Error
		if _, err := s.p.Who(ctx, q, 0); !errors.As(err, &e) || e.Code != authz.SubjectUnlinked {
			t.Errorf("a stranger gets %v", err)
		}
	}
	q.Requests = nil
	q.Actor = s.admin
	if _, err := s.p.Who(ctx, q, 0); err == nil {
		t.Error("no question is answered")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	w := world{set: pbm(), graph: s.p.graph, confers: confers(s.p.graph, pbm()), rev: s.p.graph.Head().Revision, now: hierarchy.At(s.clock.now())}
	r.Area = "Tenant:acme"
	if _, _, err := w.candidates(gone, &r); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone is still searched for: %v", err)
	}
}
