package pdp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
)

// TestNobodyStandsByNaming: whether there is a node, a record or an account is
// told to nobody who asks for a grant about it, or narrowed to it.
func TestNobodyStandsByNaming(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house + `
		person Person:ada born 1961-02-01 in US-OH
		principal User:ada
		User:ada is Person:ada
		node Patient:mercy/ada
		Patient:mercy/ada partOf HealthSystem:mercy/main
		Person:ada owns Patient:mercy/ada
		principal User:stan
		principal User:tess
		node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		User:tess holds client-admin at Tenant:acme`)
	ask := func(user, typ, subject, coverage string) string {
		id := func(s string) hierarchy.ID { id, _ := hierarchy.ParseID(s); return id }
		q := parents(typ, subject)
		q.Grant.Grantee, q.Grant.Scope.Coverage = id("User:stan"), id(coverage)
		q.Grant.Scope.Capabilities = []string{"claim.view"}
		_, err := s.p.RequestGrant(context.Background(), asking(user), q)
		var e *authz.Error
		switch {
		case err == nil:
			return "made"
		case !errors.As(err, &e):
			t.Fatal(err)
		case e.Code == authz.NoStanding: // which doors answer in the same way
			return string(authz.UnknownResource)
		}
		return string(e.Code)
	}
	for _, c := range []struct{ name, user, typ, subject, coverage string }{
		{"a record", "stan", "org-delegate", "Patient:mercy/leo", ""},
		{"no record", "stan", "org-delegate", "Patient:mercy/none", ""},
		{"an account", "stan", "org-delegate", "User:tess", ""},
		{"a tenant", "stan", "org-delegate", "Tenant:acme", ""},
		{"a tenant's, for a record", "stan", "org-delegate", "Tenant:acme", "Patient:mercy/leo"},
		{"her house's, for a record", "tess", "org-delegate", "Tenant:acme", "Patient:mercy/leo"},
		{"her house's, for none", "tess", "org-delegate", "Tenant:acme", "Patient:mercy/none"},
		{"her own, for another's record", "ada", "adult-proxy", "Person:ada", "Patient:mercy/leo"},
		{"her own, for no record", "ada", "adult-proxy", "Person:ada", "Patient:mercy/none"},
	} {
		if got := ask(c.user, c.typ, c.subject, c.coverage); got != string(authz.UnknownResource) {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	for _, coverage := range []string{"", "Patient:mercy/ada", "HealthSystem:mercy/main"} {
		if got := ask("ada", "adult-proxy", "Person:ada", coverage); got != "made" {
			t.Errorf("her own, narrowed to %q: %s", coverage, got)
		}
	}
}

// TestWhetherARequestFitsTellsNothing: a request is too large whatever the facts
// say, or on record.
func TestWhetherARequestFitsTellsNothing(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house + "principal User:stan")
	ask := func(user, subject, coverage string, n int) (authz.Code, string) {
		q := parents("parent", subject)
		q.Grant.Grantee, q.Grant.Scope.Coverage.Key = hierarchy.ID{Type: "User", Key: user}, coverage
		for ; n > 0; n -= 100 {
			q.Grant.Scope.Records = append(q.Grant.Scope.Records, fmt.Sprintf("report:%05d%s", n, strings.Repeat("x", min(n, 100))))
		}
		_, err := s.p.RequestGrant(context.Background(), asking(user), q)
		var e *authz.Error
		if !errors.As(err, &e) {
			return "", ""
		}
		return e.Code, e.Record
	}
	small, large := 1000, 64000 // where it becomes too large, of a person there is
	for large-small > 1 {
		n := (small + large) / 2
		if code, _ := ask("stan", "Person:leo", "none", n); code == authz.TooLarge {
			large = n
		} else {
			small = n
		}
	}
	for n := large - 50; n < large+50; n++ {
		there, r1 := ask("stan", "Person:leo", "none", n)
		not, r2 := ask("stan", "Person:lxo", "none", n)
		if there != not || (r1 == "") != (r2 == "") {
			t.Fatalf("%d bytes: %s where there is such a person, %s where there is none", n, there, not)
		}
	}
	if code, _ := ask("dad", "Person:leo", "leo", large-100); code != "" {
		t.Errorf("the largest that is read is not made: %s", code)
	}
}

// TestAskingAgainWithTheKeyIsSafe: also once the request's own beginning is past.
func TestAskingAgainWithTheKeyIsSafe(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	now, err := s.p.Now()
	must(t, err)
	q := parents("parent", "Person:leo")
	q.Key, q.From = "k", now+1000
	made, err := s.p.RequestGrant(context.Background(), asking("dad"), q)
	must(t, err)
	s.clock.set("2026-11-24T12:00:05Z")
	again, err := s.p.RequestGrant(context.Background(), asking("dad"), q)
	refusedWith(t, "the same key again", err, hierarchy.CodeGrantExists)
	if again.ID != made.ID {
		t.Errorf("%q is not %q", again.ID, made.ID)
	}
	q.Key = "other"
	_, err = s.p.RequestGrant(context.Background(), asking("dad"), q)
	refusedWith(t, "another, too late", err, "grant_backdated")
}

// TestWhoCoSignsIsNotFoundOutInSilence: who knows no more than a record learns who
// is family only by a request that is made, which the others see and which counts.
func TestWhoCoSignsIsNotFoundOutInSilence(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house + `
		principal User:stan
		person Person:stan
		User:stan is Person:stan
		person Person:ada`)
	ask := func(by string, change func(*GrantRequest)) string {
		q := parents("step-parent", "Person:leo", by)
		q.Grant.Grantee = hierarchy.ID{Type: "User", Key: "stan"}
		change(&q)
		_, err := s.p.RequestGrant(context.Background(), asking("stan"), q)
		return fmt.Sprint(err)
	}
	silent := func(what string, change func(*GrantRequest)) {
		t.Helper()
		if yes, no := ask("Person:mum", change), ask("Person:ada", change); yes != no {
			t.Errorf("%s: of who may co-sign %s, of who may not %s", what, yes, no)
		}
	}
	silent("no such capability", func(q *GrantRequest) { q.Grant.Scope.Capabilities = []string{"lab.nope"} })
	silent("one above the ceiling", func(q *GrantRequest) { q.Grant.Scope.Capabilities = []string{"grant.manage"} })
	silent("an end before its start", func(q *GrantRequest) { q.From, q.To = 2e12, 1.9e12 })
	silent("too deep", func(q *GrantRequest) { q.Grant.MayRedelegate, q.Grant.MaxDepth = true, 3 })
	silent("a digest that is none", func(q *GrantRequest) { q.Grant.Evidence.SHA256 = "x" })
	for i := range MaxRequested {
		s.know(fmt.Sprintf("person Person:k%d born 2018-01-01 in US-OH\nPerson:k%d family Person:stan", i, i))
		q := parents("parent", fmt.Sprint("Person:k", i))
		q.Grant.Grantee, q.Grant.Scope.Coverage = hierarchy.ID{Type: "User", Key: "stan"}, hierarchy.ID{}
		_, err := s.p.RequestGrant(context.Background(), asking("stan"), q)
		must(t, err)
	}
	silent("too many", func(*GrantRequest) {})
}

// TestWhatTheFactsRefuseHoldsNobodyUp: it is found out and recorded beside a
// change that is under way, like a denial.
func TestWhatTheFactsRefuseHoldsNobodyUp(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house + `
		person Person:ada born 1961-02-01 in US-OH
		principal User:ada
		User:ada is Person:ada`)
	q := parents("adult-proxy", "Person:ada")
	q.Grant.Grantee, q.Grant.Scope.Coverage = hierarchy.ID{Type: "User", Key: "none"}, hierarchy.ID{}
	s.p.changing.Lock()
	defer s.p.changing.Unlock()
	done := make(chan error, 1)
	go func() {
		_, err := s.p.RequestGrant(context.Background(), asking("ada"), q)
		done <- err
	}()
	select {
	case err := <-done:
		refusedWith(t, "a grantee that is nobody", err, hierarchy.CodeUnknownEnd)
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the change")
	}
}

// TestTwoRequestsPassNoLimitTogether: what was judged beside a change is judged
// again by the facts that it is written to.
func TestTwoRequestsPassNoLimitTogether(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	ctx := context.Background()
	for i := range MaxRequested - 1 {
		q := parents("parent", "Person:leo")
		q.Grant.Scope.Capabilities = append([]string{"lab.view"}, []string{"claim.view"}[:i%2]...)
		_, err := s.p.RequestGrant(ctx, asking("dad"), q)
		must(t, err)
	}
	s.p.changing.Lock()
	const n = 4
	errs := make(chan error, n)
	for range n {
		go func() {
			q := parents("parent", "Person:leo")
			q.Grant.Grantee = hierarchy.ID{Type: "User", Key: "dad2"}
			_, err := s.p.RequestGrant(ctx, asking("dad2"), q)
			errs <- err
		}()
	}
	time.Sleep(300 * time.Millisecond) // they have been judged, and wait
	s.p.changing.Unlock()
	made := 0
	for range n {
		var e *authz.Error
		switch err := <-errs; {
		case err == nil:
			made++
		case !errors.As(err, &e) || e.Code != "request_limit" || e.Record == "":
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d requests of %d passed, beside a limit of one", made, n)
	}
}

// TestWhoMayNotChangeGrantsLearnsNothingOfThem: not which there are, nor which are
// another system's; and their try is on record.
func TestWhoMayNotChangeGrantsLearnsNothingOfThem(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(house)
	e := asserted(hierarchy.KindGrant, hierarchy.Always)
	leo := hierarchy.ID{Type: "Person", Key: "leo"}
	e.Grant = &hierarchy.Grant{ID: "g-ehr", Type: "parent", Grantor: leo, Grantee: hierarchy.ID{Type: "User", Key: "dad"}, Subject: leo, Source: "ehr", External: "1",
		Needs: []hierarchy.Need{{As: hierarchy.SignerSubject, By: leo}}, Scope: hierarchy.Scope{Capabilities: []string{"lab.view"}}}
	s.change(e)
	nobody, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "4711"})
	must(t, err)
	for _, id := range []string{"g-ehr", "g-none"} {
		e := asserted(hierarchy.KindSignature, hierarchy.Always)
		e.Signature = &hierarchy.Signature{Grant: id, Need: hierarchy.Need{As: hierarchy.SignerSubject, By: leo}, Principal: hierarchy.ID{Type: "User", Key: "dad"}}
		_, err := s.p.Change(context.Background(), Change{Actor: nobody, Caller: adminCaller, Events: []hierarchy.Event{e}, Why: "test"})
		deniedWith(t, id, err, authz.SubjectUnlinked)
	}
}
