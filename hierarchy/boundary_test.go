package hierarchy

import (
	"fmt"
	"testing"
	"time"
)

// TestBoundaries asks about each kind of dated fact one millisecond before, at
// and after each of its ends, where these come from calendar days in several
// zones. An interval holds from its start up to and without its end.
func TestBoundaries(t *testing.T) {
	for _, days := range []struct {
		zone, from, to string
		wantFrom       string // the first instant
		wantTo         string // the first instant after the last day
	}{
		{"America/New_York", "2026-01-01", "2026-12-31", "2026-01-01T05:00:00.000Z", "2027-01-01T05:00:00.000Z"},
		{"Asia/Kolkata", "2026-01-01", "2026-12-31", "2025-12-31T18:30:00.000Z", "2026-12-31T18:30:00.000Z"},
		{"America/New_York", "2026-03-08", "2026-03-08", "2026-03-08T05:00:00.000Z", "2026-03-09T04:00:00.000Z"},    // 23 hours
		{"America/New_York", "2026-11-01", "2026-11-01", "2026-11-01T04:00:00.000Z", "2026-11-02T05:00:00.000Z"},    // 25 hours
		{"America/Sao_Paulo", "2017-10-15", "2017-10-15", "2017-10-15T03:00:00.000Z", "2017-10-16T02:00:00.000Z"},   // begins at 01:00
		{"America/Sao_Paulo", "2017-10-14", "2017-10-14", "2017-10-14T03:00:00.000Z", "2017-10-15T03:00:00.000Z"},   // ends as that begins
		{"Africa/Cairo", "2024-04-26", "2024-04-26", "2024-04-25T22:00:00.000Z", "2024-04-26T21:00:00.000Z"},        // midnight is skipped
		{"America/New_York", "2024-02-29", "2024-02-29", "2024-02-29T05:00:00.000Z", "2024-03-01T05:00:00.000Z"},    //
		{"America/New_York", "2020-01-01", "9999-12-31", "2020-01-01T05:00:00.000Z", "10000-01-01T05:00:00.000Z"},   // an open end in many feeds
		{"Asia/Kolkata", "2020-01-01", "9999-12-31", "2019-12-31T18:30:00.000Z", "9999-12-31T18:30:00.000Z"},        //
		{"Pacific/Apia", "2011-12-29", "2011-12-29", "2011-12-29T10:00:00.000Z", "2011-12-30T10:00:00.000Z"},        // the 30th did not happen
		{"Antarctica/Troll", "2026-03-29", "2026-03-29", "2026-03-29T00:00:00.000Z", "2026-03-29T22:00:00.000Z"},    // two hours at once
		{"Australia/Lord_Howe", "2026-10-04", "2026-10-04", "2026-10-03T13:30:00.000Z", "2026-10-04T13:00:00.000Z"}, // half an hour
	} {
		zone, err := Zone(days.zone)
		if err != nil {
			t.Fatal(err)
		}
		from, _, err := ParseDate(days.from, zone)
		if err != nil {
			t.Fatal(err)
		}
		_, to, err := ParseDate(days.to, zone)
		if err != nil {
			t.Fatal(err)
		}
		name := days.zone + " " + days.from + " to " + days.to
		if from.String() != days.wantFrom || to.String() != days.wantTo {
			t.Errorf("%s: is [%s, %s); want [%s, %s)", name, from, to, days.wantFrom, days.wantTo)
			continue
		}
		boundaries(t, name, Interval{from, to})
	}
	boundaries(t, "one millisecond", Interval{7, 8})
	boundaries(t, "before 1970", Interval{-1000, -999})
}

// boundaries asserts a fact of each kind with one valid time and asks around it.
func boundaries(t *testing.T, name string, v Interval) {
	b := newBench(t)
	b.time = max(b.time, v.From)
	never := Forever - 1
	b.do(node(Always, "Tenant:acme"), node(Always, "Plan:acme/p"), node(Always, "Group:acme/g"), user(Always, "User:u"),
		person(Always, "Person:a", &never), person(Always, "Person:b", nil), person(Always, "Person:c", nil), role("r", []string{"c"}, nil))
	// An emergency is short, and reviewed when it is over.
	short := Interval{v.From, min(v.To, v.From+MaxEmergency-1)}
	needing := func() []Event {
		return []Event{user(Always, "User:w"), user(Always, "User:x"), link(Always, LinkOwns, "Person:c", "Group:acme/g"),
			emergency(during(v.From-10, v.From-5), "done", "User:w", "Person:c", "Group:acme/g"),
			grant(Always, Grant{ID: "s", Grantor: mustID("Person:a"), Grantee: mustID("User:x"), Subject: mustID("Person:a"), Needs: []Need{{SignerCoSigner, mustID("Person:b")}}})}
	}
	b.do(needing()...)
	b.do(setting(v, "acme", "tone", "plain"), emergency(short, "e", "User:u", "Person:c", "Group:acme/g"), review(v, "done", "User:x"), sign(v, "s", SignerCoSigner, "Person:b", "User:u"))
	b.do(node(v, "Plan:acme/dated"), edge(v, "Group:acme/g", "Plan:acme/p"), assign(v, "User:u", "r", "Plan:acme/p"), entitle(v, "acme", "claims"),
		grant(v, Grant{ID: "g", Grantor: mustID("Person:a"), Grantee: mustID("User:u"), Subject: mustID("Person:a")}),
		grant(v, Grant{ID: "m", Grantor: mustID("Person:a"), Grantee: mustID("User:u"), Subject: mustID("Person:a"), EndsAtMajority: true}),
		block(v, "Person:a", "User:u"), identity(v, "i", "s", "User:u"), link(v, LinkSelf, "User:u", "Person:a"),
		link(v, LinkOwns, "Person:a", "Plan:acme/p"), link(v, LinkMerge, "Person:a", "Person:b"), link(v, LinkFamily, "Person:c", "Person:a"))
	// The same again, but ended at v.To instead of asserted so.
	c := newBench(t)
	c.time = b.time
	c.do(node(Always, "Tenant:acme"), node(Always, "Plan:acme/p"), node(Always, "Group:acme/g"), user(Always, "User:u"),
		person(Always, "Person:a", nil), person(Always, "Person:b", nil), person(Always, "Person:c", nil), role("r", []string{"c"}, nil))
	open := Interval{v.From, Forever}
	kinds := []Kind{KindNode, KindEdge, KindAssignment, KindEntitlement, KindGrant, KindBlock, KindLink, KindLink, KindLink, KindLink, KindLink}
	facts := c.do(node(open, "Plan:acme/dated"), edge(open, "Group:acme/g", "Plan:acme/p"), assign(open, "User:u", "r", "Plan:acme/p"), entitle(open, "acme", "claims"),
		grant(open, Grant{ID: "g", Grantor: mustID("Person:a"), Grantee: mustID("User:u"), Subject: mustID("Person:a")}),
		block(open, "Person:a", "User:u"), identity(open, "i", "s", "User:u"), link(open, LinkSelf, "User:u", "Person:a"),
		link(open, LinkOwns, "Person:a", "Plan:acme/p"), link(open, LinkMerge, "Person:a", "Person:b"), link(open, LinkFamily, "Person:c", "Person:a"))
	for i, f := range facts {
		c.do(endAt(kinds[i], f, v.To))
	}
	c.do(needing()...)
	facts = c.do(setting(open, "acme", "tone", "plain"), emergency(during(v.From, v.From+MaxEmergency), "e", "User:u", "Person:c", "Group:acme/g"), review(open, "done", "User:x"), sign(open, "s", SignerCoSigner, "Person:b", "User:u"))
	c.do(endAt(KindSetting, facts[0], v.To), endAt(KindEmergency, facts[1], short.To), endAt(KindReview, facts[2], v.To), endAt(KindSignature, facts[3], v.To))
	whole := v
	for _, g := range []*bench{b, c} {
		for _, question := range []struct {
			name string
			ask  func(View) bool
		}{
			{"node", func(v View) bool { _, _, ok := v.Node(mustID("Plan:acme/dated")); return ok }},
			{"edge", func(v View) bool { return v.Reaches(mustID("Group:acme/g"), mustID("Plan:acme/p")) }},
			{"assignment", func(v View) bool { return len(v.Assignments(mustID("User:u"))) > 0 }},
			{"entitlement", func(v View) bool { return v.Entitled(TenantID("acme"), "claims") }},
			{"grant", func(v View) bool { return len(v.Grants(mustID("User:u"))) > 0 }},
			{"block", func(v View) bool { return len(v.Blocks(mustID("Person:a"))) > 0 }},
			{"identity", func(v View) bool { _, _, ok := v.Principal("i", "s"); return ok }},
			{"self link", func(v View) bool { return len(v.Persons(mustID("User:u"))) > 0 }},
			{"owns link", func(v View) bool { return len(v.Owned(mustID("Person:a"))) > 0 }},
			{"family link", func(v View) bool { return len(v.Family(mustID("Person:c"))) > 0 }},
			{"merge link", func(v View) bool { return len(v.Merged(mustID("Person:b"))) > 1 }},
			{"setting", func(v View) bool { _, _, ok := v.Setting(TenantID("acme"), "tone"); return ok }},
			{"review", func(v View) bool { e, _ := v.Emergency("done"); return e.Review != nil }},
			{"signature", func(v View) bool { return len(v.Grants(mustID("User:x"))) > 0 }},
			{"emergency", func(v View) bool {
				e, _ := v.Emergency("e")
				return e.Valid.Holds(v.Instant())
			}},
		} {
			v := whole
			if question.name == "emergency" {
				v = short
			}
			for _, at := range []struct {
				at   Instant
				want bool
			}{{v.From - 1, false}, {v.From, true}, {v.From + 1, v.From+1 < v.To}, {v.To - 1, true}, {v.To, false}, {v.To + 1, false}} {
				if got := question.ask(g.view(at.at)); got != at.want {
					t.Errorf("%s: %s at %s is %v; want %v", name, question.name, at.at, got, at.want)
				}
			}
			// Until names the next of the two ends, to the millisecond.
			for _, at := range []struct{ at, want Instant }{{v.From - 1, v.From}, {v.From, v.To}, {v.To - 1, v.To}} {
				r := NewReading()
				question.ask(g.view(at.at).Reading(r))
				if got := r.Until(); got != at.want {
					t.Errorf("%s: %s at %s changes at %s; want %s", name, question.name, at.at, got, at.want)
				}
			}
		}
		// Of the same at the end: it is known as ended, and not a moment before.
		for at, want := range map[Instant]int{v.To - 1: 0, v.To: 1} {
			if got := len(g.view(at).EndedAssignments(mustID("User:u"))); got != want {
				t.Errorf("%s: at %s %d assignments have ended; want %d", name, at, got, want)
			}
			for _, u := range []string{"User:u", "User:x"} {
				if got := len(g.view(at).EndedGrants(mustID(u))) > 0; got != (want == 1) {
					t.Errorf("%s: at %s a grant of %s has ended: %v", name, at, u, got)
				}
			}
		}
		// An emergency is listed from its first millisecond on, and then for good.
		for at, want := range map[Instant]int{v.From - 1: 0, v.From: 1, short.To: 1} {
			if got := len(g.view(at).Emergencies(mustID("User:u"))); got != want {
				t.Errorf("%s: at %s %d emergencies have begun; want %d", name, at, got, want)
			}
		}
	}
}

func TestMajority(t *testing.T) {
	for _, test := range []struct {
		birth, zone string
		age         int
		want        string
	}{
		{"2008-06-15", "America/New_York", 18, "2026-06-15T04:00:00.000Z"},
		{"2008-02-29", "America/New_York", 18, "2026-03-01T05:00:00.000Z"}, // no 29 February in 2026
		{"2008-02-29", "America/New_York", 20, "2028-02-29T05:00:00.000Z"},
		{"2007-04-01", "America/Chicago", 19, "2026-04-01T05:00:00.000Z"},   // 19 in Nebraska
		{"1999-10-15", "America/Sao_Paulo", 18, "2017-10-15T03:00:00.000Z"}, // at 01:00: midnight does not exist
		{"2006-04-26", "Africa/Cairo", 18, "2024-04-25T22:00:00.000Z"},
		{"2008-03-08", "America/New_York", 18, "2026-03-08T05:00:00.000Z"}, // the clock changes later that day
		{"2008-06-15", "Asia/Kolkata", 18, "2026-06-14T18:30:00.000Z"},
	} {
		zone, err := Zone(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := Majority(test.birth, test.age, zone)
		if err != nil || at.String() != test.want {
			t.Errorf("born %s, %d in %s: %v, %v; want %s", test.birth, test.age, test.zone, at, err, test.want)
			continue
		}
		b := newBench(t)
		e := person(Always, "Person:kid", &at)
		e.Node.Person.BirthDate, e.Node.Person.TZData = test.birth, TZData
		b.do(e, user(Always, "User:mum"))
		b.do(grant(during(0, Forever), Grant{ID: "g", Type: "parent", Grantor: mustID("Person:kid"), Grantee: mustID("User:mum"), Subject: mustID("Person:kid"), EndsAtMajority: true}))
		for now, want := range map[Instant]bool{at - 1: true, at: false, at + 1: false} {
			if live := len(b.view(now).Grants(mustID("User:mum"))) == 1; live != want {
				t.Errorf("born %s: at %s the grant is live: %v; want %v", test.birth, now, live, want)
			}
		}
		ended := b.view(at).EndedGrants(mustID("User:mum"))
		if len(ended) != 1 || !ended[0].ByMajority || ended[0].Effective.To != at {
			t.Errorf("born %s: ended %+v", test.birth, ended)
		}
		r := NewReading()
		b.view(at - 1).Reading(r).Grants(mustID("User:mum"))
		if r.Until() != at {
			t.Errorf("born %s: until %s; want %s", test.birth, r.Until(), at)
		}
	}
	if _, err := Majority("2008-13-01", 18, time.UTC); err == nil || err.Error() != "not a birth date: want YYYY-MM-DD" {
		t.Errorf("a wrong date: %v", err)
	}
}

// TestAWiderGrantIsNotLive: a chain that Check would refuse, as another version
// may have written it, confers nothing from the wider grant down.
func TestAWiderGrantIsNotLive(t *testing.T) {
	coming := Instant(60)
	root := Grant{ID: "root", Grantor: mustID("Person:kid"), Grantee: mustID("User:mum"), Subject: mustID("Person:kid"), MayRedelegate: true, MaxDepth: 1,
		Purpose: []string{"FAMRQT"}, EndsAtMajority: true,
		Scope: Scope{Capabilities: []string{"claim.view"}, Covers: []string{"HIV"}, Coverage: mustID("Plan:a/p"), Service: during(0, 50), Records: []string{"claim:1"}}}
	child := root
	child.ID, child.Grantor, child.Grantee, child.Parent, child.MayRedelegate, child.MaxDepth = "child", root.Grantee, mustID("User:aunt"), "root", false, 0
	for name, change := range map[string]func(root, child *Grant){
		"":                 func(_, _ *Grant) {},
		"subject":          func(_, c *Grant) { c.Subject = mustID("Person:tom") },
		"majority":         func(_, c *Grant) { c.EndsAtMajority = false },
		"capabilities":     func(_, c *Grant) { c.Scope.Capabilities = []string{"claim.edit", "claim.view"} },
		"sensitivities":    func(_, c *Grant) { c.Scope.Covers = []string{"part2"} },
		"any purpose":      func(_, c *Grant) { c.Purpose = nil },
		"purpose":          func(_, c *Grant) { c.Purpose = []string{"PATRQT"} },
		"coverage":         func(_, c *Grant) { c.Scope.Coverage = ID{} },
		"records":          func(_, c *Grant) { c.Scope.Records = nil },
		"service":          func(_, c *Grant) { c.Scope.Service = during(0, 51) },
		"not to be passed": func(r, _ *Grant) { r.MayRedelegate, r.MaxDepth = false, 0 },
		"another's":        func(_, c *Grant) { c.Grantor = mustID("Person:kid") },
	} {
		b := newBench(t)
		b.do(node(Always, "Tenant:a"), node(Always, "Plan:a/p"), person(Always, "Person:kid", &coming), person(Always, "Person:tom", &coming),
			user(Always, "User:mum"), user(Always, "User:aunt"))
		r, c := root, child
		change(&r, &c)
		b.apply(b.batch(nil, grant(Always, r), grant(Always, c))) // Check is not asked
		live := b.view(10).Grants(mustID("User:aunt"))
		if f, _ := b.view(10).Grant("child"); f.Wider != (name != "") || (len(live) == 1) != (name == "") {
			t.Errorf("%s: wider is %v, %d live", name, f.Wider, len(live))
		}
		if len(b.view(10).Grants(mustID("User:mum"))) != 1 {
			t.Errorf("%s: the root is not live", name)
		}
		if name != "" {
			continue
		}
		deep := child // a second step down, of a root that allows one
		deep.ID, deep.Grantor, deep.Grantee, deep.Parent = "deep", mustID("User:aunt"), mustID("User:nan"), "again"
		again := child
		again.ID, again.MayRedelegate, again.MaxDepth = "again", true, 1
		b.apply(b.batch(nil, grant(Always, again), grant(Always, deep)))
		if len(b.view(10).Grants(mustID("User:nan"))) != 0 || len(b.view(10).Grants(mustID("User:aunt"))) != 2 {
			t.Error("a chain deeper than its root allows is live")
		}
	}
}

// TestGrantChains: what happens up the chain counts at once for all below.
func TestGrantChains(t *testing.T) {
	coming, early := Instant(60), Instant(40)
	world := func() (*bench, []FactID) {
		b := newBench(t)
		b.do(person(Always, "Person:kid", &coming), person(Always, "Person:same", &early), person(Always, "Person:none", nil), user(Always, "User:mum"), user(Always, "User:aunt"))
		f := b.do(
			grant(during(0, 100), Grant{ID: "root", Grantor: mustID("Person:none"), Grantee: mustID("User:mum"), Subject: mustID("Person:kid"), MayRedelegate: true, MaxDepth: 1}),
			grant(during(10, 90), Grant{ID: "child", Grantor: mustID("User:mum"), Grantee: mustID("User:aunt"), Subject: mustID("Person:kid"), Parent: "root", EndsAtMajority: true}))
		return b, f
	}
	show := func(v View) string {
		s := ""
		for _, id := range []string{"root", "child"} {
			f, ok := v.Grant(id)
			if !ok {
				return s + "unknown"
			}
			s += fmt.Sprintf("%s %d-%d chain %v majority %v voided %v; ", f.ID, f.Effective.From, f.Effective.To, f.Chain, f.ByMajority, f.Voided)
		}
		return s + fmt.Sprintf("live %d ended %d", len(v.Grants(mustID("User:aunt"))), len(v.EndedGrants(mustID("User:aunt"))))
	}
	for _, test := range []struct {
		name   string
		change func([]FactID) []Event
		at     Instant
		want   string
	}{
		{"as written", nil, 20, "root 0-100 chain [f2.0] majority false voided false; child 10-60 chain [f2.0 f2.1] majority true voided false; live 1 ended 0"},
		{"before", nil, 9, "root 0-100 chain [f2.0] majority false voided false; child 10-60 chain [f2.0 f2.1] majority true voided false; live 0 ended 0"},
		{"of age", nil, 60, "root 0-100 chain [f2.0] majority false voided false; child 10-60 chain [f2.0 f2.1] majority true voided false; live 0 ended 1"},
		{"root ended", func(f []FactID) []Event { return []Event{endAt(KindGrant, f[0], 30)} }, 30,
			"root 0-30 chain [f2.0] majority false voided false; child 10-30 chain [f2.0 f2.1] majority false voided false; live 0 ended 1"},
		{"root ended before the child began", func(f []FactID) []Event { return []Event{endAt(KindGrant, f[0], 5)} }, 20,
			"root 0-5 chain [f2.0] majority false voided false; child 10-5 chain [f2.0 f2.1] majority false voided false; live 0 ended 1"},
		{"root voided", func(f []FactID) []Event { return []Event{void(KindGrant, f[0])} }, 20,
			"root 0-0 chain [f2.0] majority false voided true; child 0-0 chain [f2.1] majority false voided true; live 0 ended 0"},
		{"child voided", func(f []FactID) []Event { return []Event{void(KindGrant, f[1])} }, 20,
			"root 0-100 chain [f2.0] majority false voided false; child 0-0 chain [f2.0 f2.1] majority false voided true; live 0 ended 0"},
		{"merged with one who is of age earlier", func([]FactID) []Event { return []Event{link(Always, LinkMerge, "Person:same", "Person:kid")} }, 20,
			"root 0-100 chain [f2.0] majority false voided false; child 10-40 chain [f2.0 f2.1] majority true voided false; live 1 ended 0"},
		{"merged later", func([]FactID) []Event { return []Event{link(during(50, 99), LinkMerge, "Person:same", "Person:kid")} }, 20,
			"root 0-100 chain [f2.0] majority false voided false; child 10-60 chain [f2.0 f2.1] majority true voided false; live 1 ended 0"},
		{"majority no longer known", func([]FactID) []Event {
			return []Event{void(KindNode, FactID{1, 0}), person(Always, "Person:kid", nil)}
		}, 20, "root 0-100 chain [f2.0] majority false voided false; child 0-0 chain [f2.0 f2.1] majority false voided false; live 0 ended 0"},
	} {
		b, f := world()
		before := show(b.view(20))
		if test.change != nil {
			b.do(test.change(f)...)
		}
		if got := show(b.view(test.at)); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
		if got := show(b.g.At(20, 2, EdgeKinds{})); got != before {
			t.Errorf("%s: the past changed:\n got %s\nwant %s", test.name, got, before)
		}
		if _, ok := b.g.At(20, 1, EdgeKinds{}).Grant("root"); ok {
			t.Errorf("%s: known before it was written", test.name)
		}
	}
}

// TestSignatures: a grant is requested until each of its needs is signed, live
// as long as all signatures hold, and over when one ends.
func TestSignatures(t *testing.T) {
	world := func() *bench {
		b := newBench(t)
		b.do(person(Always, "Person:kid", nil), person(Always, "Person:mum", nil), person(Always, "Person:dad", nil), user(Always, "User:mum"), user(Always, "User:aunt"), user(Always, "User:vera"))
		b.do(
			grant(during(0, 100), Grant{ID: "root", Grantor: mustID("Person:dad"), Grantee: mustID("User:mum"), Subject: mustID("Person:kid"), MayRedelegate: true, MaxDepth: 1,
				Needs: []Need{{SignerCoSigner, mustID("Person:mum")}, {As: SignerVerifier}}}),
			grant(during(10, 90), Grant{ID: "child", Grantor: mustID("User:mum"), Grantee: mustID("User:aunt"), Subject: mustID("Person:kid"), Parent: "root",
				Needs: []Need{{SignerSubject, mustID("Person:kid")}}}))
		return b
	}
	mum := func(from, to Instant) Event {
		return sign(during(from, to), "root", SignerCoSigner, "Person:mum", "User:mum")
	}
	verified := func(from, to Instant) Event {
		return sign(during(from, to), "root", SignerVerifier, "User:vera", "User:vera")
	}
	kid := func(from, to Instant) Event {
		return sign(during(from, to), "child", SignerSubject, "Person:kid", "User:mum")
	}
	for _, test := range []struct {
		name   string
		events []Event // each a revision of its own, from the third on
		at     Instant
		root   string // state, effective time, until when the answer stays
		child  string
	}{
		{"nobody has signed", nil, 20, "requested 0-0 co-signer verifier until 100", "requested 0-0 subject co-signer verifier until 90"},
		{"one has", []Event{mum(5, 100)}, 20, "requested 0-0 verifier until 100", "requested 0-0 subject verifier until 90"},
		{"both have", []Event{mum(5, 100), verified(7, 100)}, 20, "live 7-100 until 100", "requested 0-0 subject until 90"},
		{"all have", []Event{mum(5, 100), verified(7, 100), kid(30, Forever)}, 30, "live 7-100 until 100", "live 30-90 until 90"},
		{"all will have", []Event{mum(5, 100), verified(7, 100), kid(30, Forever)}, 29, "live 7-100 until 100", "to come 30-90 until 30"},
		{"the root is not signed", []Event{mum(5, 100), kid(30, Forever)}, 30, "requested 0-0 verifier until 100", "requested 0-0 verifier until 90"},
		{"an assent is withdrawn", []Event{mum(5, 100), verified(7, 100), endAt(KindSignature, FactID{3, 0}, 25)}, 24, "live 7-25 until 25", "requested 0-0 subject until 25"},
		{"and then", []Event{mum(5, 100), verified(7, 100), endAt(KindSignature, FactID{3, 0}, 25)}, 25, "ended 7-25 until 100", "requested 0-0 subject until 90"},
		{"and given again", []Event{mum(5, 25), verified(7, 100), mum(40, 60)}, 39, "ended 7-25 until 40", "requested 0-0 subject until 40"},
		{"and holds again", []Event{mum(5, 25), verified(7, 100), mum(40, 60)}, 40, "live 40-60 until 60", "requested 0-0 subject until 60"},
		{"the later of two that ended", []Event{mum(5, 25), verified(7, 100), mum(40, 60)}, 60, "ended 40-60 until 100", "requested 0-0 subject until 90"},
		{"the earlier of two to come", []Event{mum(25, 30), verified(7, 100), mum(40, 60)}, 20, "to come 25-30 until 25", "requested 0-0 subject until 25"},
		{"a signature never was", []Event{mum(5, 100), verified(7, 100), void(KindSignature, FactID{4, 0})}, 20, "requested 0-0 verifier until 100", "requested 0-0 subject verifier until 90"},
		{"what is withdrawn above ends what is below", []Event{mum(5, 100), verified(7, 100), kid(0, Forever), endAt(KindSignature, FactID{4, 0}, 50)}, 50, "ended 7-50 until 100", "ended 10-50 until 90"},
		{"a signed grant is revoked", []Event{mum(5, 100), verified(7, 100), kid(0, Forever), endAt(KindGrant, FactID{2, 0}, 50)}, 50, "ended 7-50 until 100", "ended 10-50 until 90"},
		{"a signed grant is voided", []Event{mum(5, 100), verified(7, 100), kid(0, Forever), void(KindGrant, FactID{2, 0})}, 50, "voided 0-0 until 100", "voided 0-0 until 90"},
	} {
		b := world()
		for _, e := range test.events {
			b.do(e)
		}
		show := func(v View, id string) string {
			r := NewReading()
			f, _ := v.Reading(r).Grant(id)
			state := "to come"
			switch at := v.Instant(); {
			case f.Voided:
				state = "voided"
			case len(f.Missing) > 0:
				state = "requested"
			case f.Effective.Holds(at):
				state = "live"
			case f.Effective.To <= at:
				state = "ended"
			}
			u := f.Grantee
			if live := len(v.Grants(u)) > 0; live != (state == "live") {
				t.Errorf("%s: %s is %s and live: %v", test.name, id, state, live)
			}
			if ended := len(v.EndedGrants(u)) > 0; ended != (state == "ended") {
				t.Errorf("%s: %s is %s and ended: %v", test.name, id, state, ended)
			}
			s := fmt.Sprintf("%s %d-%d", state, f.Effective.From, f.Effective.To)
			for _, n := range f.Missing {
				s += " " + string(n.As)
			}
			return fmt.Sprintf("%s until %d", s, r.Until())
		}
		if got := show(b.view(test.at), "root"); got != test.root {
			t.Errorf("%s: the root is %s; want %s", test.name, got, test.root)
		}
		if got := show(b.view(test.at), "child"); got != test.child {
			t.Errorf("%s: the child is %s; want %s", test.name, got, test.child)
		}
		if got := show(b.g.At(test.at, 2, EdgeKinds{}), "root"); got != "requested 0-0 co-signer verifier until 100" {
			t.Errorf("%s: before the first signature the root was %s", test.name, got)
		}
	}
}

// TestFactsOfCases: what a live grant, an emergency and a setting rest on is read.
func TestFactsOfCases(t *testing.T) {
	b := newBench(t)
	b.do(node(Always, "Tenant:t"), node(Always, "Coverage:t/c"), person(Always, "Person:p", nil), user(Always, "User:u"), user(Always, "User:rita"), link(Always, LinkOwns, "Person:p", "Coverage:t/c"))
	b.do(grant(Always, Grant{ID: "g", Grantor: mustID("Person:p"), Grantee: mustID("User:u"), Subject: mustID("Person:p"), Needs: []Need{{SignerSubject, mustID("Person:p")}, {As: SignerVerifier}}}),
		sign(during(0, 9), "g", SignerSubject, "Person:p", "User:u"), sign(during(9, 99), "g", SignerSubject, "Person:p", "User:u"), sign(Always, "g", SignerVerifier, "User:rita", "User:rita"))
	b.do(emergency(during(10, 20), "e", "User:u", "Person:p", "Coverage:t/c"), review(during(15, 99), "e", "User:rita"), setting(during(0, 50), "t", "x", true))
	for _, test := range []struct {
		ask  func(View)
		at   Instant
		want string
	}{
		{func(v View) { v.Grants(mustID("User:u")) }, 8, "[f2.0 f2.1 f2.3]"},
		{func(v View) { v.Grants(mustID("User:u")) }, 9, "[f2.0 f2.2 f2.3]"},
		{func(v View) { v.Emergencies(mustID("User:u")) }, 9, "[]"},
		{func(v View) { v.Emergencies(mustID("User:u")) }, 14, "[f3.0]"},
		{func(v View) { v.Emergencies(mustID("User:u")) }, 15, "[f3.0 f3.1]"},
		{func(v View) { v.Emergencies(mustID("User:u")) }, 20, "[f3.1]"},
		{func(v View) { v.Setting(TenantID("t"), "x") }, 49, "[f3.2]"},
		{func(v View) { v.Setting(TenantID("t"), "x") }, 50, "[]"},
	} {
		r := NewReading()
		test.ask(b.view(test.at).Reading(r))
		if got := fmt.Sprint(r.Facts()); got != test.want {
			t.Errorf("at %d the facts are %s; want %s", test.at, got, test.want)
		}
	}
}

// TestEmergencyAndReview: whom an emergency is for and by whom may end, merge or
// be reviewed; it goes on by its own time.
func TestEmergencyAndReview(t *testing.T) {
	b := newBench(t)
	f := b.do(node(Always, "Tenant:t"), node(Always, "Coverage:t/c"), person(Always, "Person:p", nil), user(Always, "User:u"), user(Always, "User:rita"), link(Always, LinkOwns, "Person:p", "Coverage:t/c"))
	e := b.do(emergency(during(100, 200), "e", "User:u", "Person:p", "Coverage:t/c"))
	r := b.do(review(during(150, Forever), "e", "User:rita"))
	show := func(rev uint64, at Instant) string {
		s := ""
		for _, x := range b.g.At(at, rev, EdgeKinds{}).Emergencies(mustID("User:u")) {
			s += fmt.Sprintf("%s %d-%d %v", x.ID, x.Valid.From, x.Valid.To, x.Review != nil)
		}
		return s
	}
	b.do(endAt(KindEmergency, e[0], 180), endAt(KindNode, f[2], 160), endAt(KindNode, f[3], 160))
	b.do(void(KindReview, r[0]))
	b.do(void(KindEmergency, e[0]))
	for _, test := range []struct {
		rev  uint64
		at   Instant
		want string
	}{
		{1, 170, ""}, {2, 99, ""}, {2, 100, "e 100-200 false"}, {2, 170, "e 100-200 false"}, {2, 999, "e 100-200 false"},
		{3, 149, "e 100-200 false"}, {3, 150, "e 100-200 true"}, {4, 170, "e 100-180 true"}, {4, 999, "e 100-180 true"},
		{5, 170, "e 100-180 false"}, {6, 170, ""},
	} {
		if got := show(test.rev, test.at); got != test.want {
			t.Errorf("revision %d at %d: %q; want %q", test.rev, test.at, got, test.want)
		}
	}
	if _, ok := b.view(170).Emergency("e"); ok {
		t.Error("a voided emergency is known")
	}
}

// TestDayStart compares with brute force, minute by minute, the days around
// every change of the clock since 1990 in zones with unusual ones.
func TestDayStart(t *testing.T) {
	changes := 0
	for _, name := range []string{"America/New_York", "America/Sao_Paulo", "America/Havana", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut",
		"Asia/Kathmandu", "Asia/Gaza", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kiritimati", "Pacific/Kwajalein", "Antarctica/Troll", "Atlantic/Azores", "America/Asuncion"} {
		zone, err := Zone(name)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).In(zone)
		for {
			_, end := at.ZoneBounds()
			if end.IsZero() || end.Year() > 2028 {
				break
			}
			if !end.After(at) { // the last day of a leap year, see DayStart
				end = at.Add(24 * time.Hour)
			}
			changes++
			// The date that is shown, as a number, and where each first was.
			first := map[string]Instant{}
			latest := ""
			for m := end.Add(-60 * time.Hour); m.Before(end.Add(60 * time.Hour)); m = m.Add(time.Minute) {
				if day := m.In(zone).Format("2006-01-02"); day > latest {
					if latest != "" {
						d, _ := time.Parse("2006-01-02", latest)
						for d = d.AddDate(0, 0, 1); d.Format("2006-01-02") <= day; d = d.AddDate(0, 0, 1) {
							first[d.Format("2006-01-02")] = At(m) // days left out begin as this one
						}
					}
					latest = day
				}
			}
			for day, want := range first {
				if got, _, err := ParseDate(day, zone); err != nil || got != want {
					t.Errorf("%s: %s begins at %s, %v; want %s", name, day, got, err, want)
				}
			}
			at = end
		}
	}
	if changes < 500 {
		t.Errorf("only %d changes of the clock looked at", changes)
	}
}

// TestDayStartEveryDay: each day begins after the one before it (or with it,
// when a zone left that one out), at midnight or later.
func TestDayStartEveryDay(t *testing.T) {
	for _, name := range []string{"America/New_York", "America/Sao_Paulo", "Africa/Casablanca", "Asia/Kolkata", "Pacific/Apia", "UTC"} {
		zone, err := Zone(name)
		if err != nil {
			t.Fatal(err)
		}
		last := Never
		for d := time.Date(1900, 1, 1, 12, 0, 0, 0, time.UTC); d.Year() < 2101; d = d.AddDate(0, 0, 1) {
			at := DayStart(d.Year(), d.Month(), d.Day(), zone)
			shown := at.Time().In(zone)
			if date := d.Format("2006-01-02"); at < last || shown.Format("2006-01-02") < date || shown.Hour() > 3 ||
				at == last && date != "2011-12-31" {
				t.Fatalf("%s: %s begins at %s", name, date, shown)
			}
			last = at
		}
	}
}
