package delegation

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
)

const proxyOfAda = `{"key":"g-1","type":"adult-proxy","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]}}`

func TestNewRefuses(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	nobody := func(*http.Request) (authz.Caller, bool) { return authz.Caller{}, false }
	for name, c := range map[string]Config{
		"no decision point": {Caller: nobody},
		"no caller":         {PDP: s.pdp},
		"a wildcard":        {PDP: s.pdp, Caller: nobody, Hosts: []string{"*.example.com"}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A ledger that fails is an outage for everybody, and nothing is done.
func TestAnOutageIsNoDenial(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	s.want("portal user:ada", "POST", "/v1/grants", proxyOfAda, 201, "active")
	must(t, s.ledger.Close())
	before, counted := s.pdp.Graph().Head(), len(s.refused)
	for _, c := range []struct{ who, method, path, body string }{
		{"portal user:ada", "POST", "/v1/grants", strings.Replace(proxyOfAda, "g-1", "g-2", 1)},
		{"portal user:ada", "GET", "/v1/grants", ""},
		{"portal user:ada", "GET", "/v1/grants/g-1", ""},
		{"portal user:eve", "GET", "/v1/grants/g-1", ""},
		{"portal user:ada", "DELETE", "/v1/grants/g-1", ""},
		{"portal user:ada", "POST", "/v1/grants/g-1/approval", `{"as":"grantor"}`},
		{"portal user:erik", "POST", "/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious","text":"x"}`},
		{"gateway user:ada", "GET", "/v1/grants", ""},
	} {
		if a := s.ask(c.who, c.method, c.path, c.body); a.status != 503 || a.Error.Code != "ledger_failed" || a.Error.Record != "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.status, a.body)
		}
	}
	if s.pdp.Graph().Head() != before || len(s.refused) != counted {
		t.Error("an outage changed something, or was counted as a refusal")
	}
	if !strings.Contains(s.log.String(), "outage") {
		t.Error("the outage is not logged")
	}
}

func TestPanicsAreOutages(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	door, err := New(Config{PDP: s.pdp, Hosts: []string{"example.com"}, Log: s.door.(*door).log,
		Caller: func(*http.Request) (authz.Caller, bool) { panic("canary") }})
	must(t, err)
	s.door = door
	if a := s.ask("portal user:ada", "GET", "/v1/grants", ""); a.status != 503 || a.Error.Code != DoorFailed {
		t.Errorf("%d %s", a.status, a.body)
	}
	if log := s.log.String(); !strings.Contains(log, "panic while answering") || strings.Contains(log, "canary") {
		t.Errorf("log: %s", log)
	}
}

// An answer that a change overtook is an outage.
func TestAnOvertakenAnswerIsAnOutage(t *testing.T) {
	_, delivery := authz.Deliver(context.Background())
	delivery.Expire()
	w := httptest.NewRecorder()
	err := (&reply{w: w}).deliver(delivery, "a-1", grant{})
	if e, ok := errors.AsType[*authz.Error](err); !ok || e.Kind != authz.Outage || e.Code != authz.Superseded || w.Body.Len() > 0 {
		t.Errorf("%v, sent %q", err, w.Body)
	}
}

// slowWriter is a client that reads when it is told to.
type slowWriter struct {
	*httptest.ResponseRecorder
	writing, read chan struct{}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	close(w.writing)
	<-w.read
	return w.ResponseRecorder.Write(b)
}

// A revocation is acknowledged only once what was shown before it has left.
func TestARevocationWaitsForWhatIsShown(t *testing.T) {
	for _, path := range []string{"/v1/grants", "/v1/grants/g-1"} {
		s := newSite(t, "2026-11-20T12:00:00Z")
		s.know(world)
		s.want("portal user:ada", "POST", "/v1/grants", proxyOfAda, 201, "active")
		s.clock.set(t, "2026-11-20T12:01:00Z")
		w := &slowWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
		shown := make(chan struct{})
		go func() {
			defer close(shown)
			r := httptest.NewRequest("GET", strings.Replace(path, "g-1", s.ids["g-1"], 1), nil)
			r.Header.Set("Caller", "portal")
			r.Header.Set("Ward-Subject", "user:ada")
			s.door.ServeHTTP(w, r)
		}()
		<-w.writing
		before := s.pdp.Graph().Head().Revision
		revoked := make(chan answer, 1)
		go func() { revoked <- s.ask("portal user:ada", "DELETE", "/v1/grants/g-1", "") }()
		for s.pdp.Graph().Head().Revision == before {
			time.Sleep(time.Millisecond)
		}
		select {
		case a := <-revoked:
			t.Errorf("%s: acknowledged while an earlier answer is on its way: %s", path, a.body)
			close(w.read)
		case <-time.After(500 * time.Millisecond): // longer than answers get to leave
			close(w.read)
			if a := <-revoked; a.status != 200 || a.State != hierarchy.GrantRevoked {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
		<-shown
	}
}

// No error and no log repeats what was sent or names a person, wherever it stands:
// but for the name of an unknown field, where it can be one.
func TestCanaries(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world + `{"node":{"id":"Person:canaryone","person":{"birthDate":"1961-02-01","jurisdiction":"US-OH"}}}
{"node":{"id":"User:canaryone","principal":true}}
{"link":{"kind":"self","from":"User:canaryone","to":"Person:canaryone"}}
{"node":{"id":"Patient:general/canaryone"}}
{"edge":{"child":"Patient:general/canaryone","kind":"partOf","parent":"HealthSystem:general/main"}}
{"link":{"kind":"owns","from":"Person:canaryone","to":"Patient:general/canaryone"}}
{"block":{"person":"Person:canaryone","principal":"User:erik","basis":"refusal"}}`)
	n := 0
	canary := func() string { n++; return fmt.Sprintf("canary%06d", n) }
	asked := 0
	check := func(a answer) {
		t.Helper()
		asked++
		if a.status < 400 {
			t.Errorf("a canary is answered with %d: %s", a.status, a.body)
		}
		for _, form := range []string{"canary", base64.StdEncoding.EncodeToString([]byte("canary"))} {
			if text := a.body + fmt.Sprint(a.header); strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
				t.Errorf("%d holds a canary: %s", a.status, text)
			}
		}
	}
	valid := map[string]string{"type": `"adult-proxy"`, "subject": `"Person:canaryone"`, "grantee": `"User:canaryone"`, "scope": `{"capabilities":["lab.view"],"coverage":"Patient:general/canaryone"}`}
	body := func(name, value string) string {
		var members []string
		for k, v := range valid {
			if k != name {
				members = append(members, `"`+k+`":`+v)
			}
		}
		return "{" + strings.Join(append(members, `"`+name+`":`+value), ",") + "}"
	}
	me := "portal user:canaryone"
	for _, name := range []string{"key", "type", "subject", "grantor", "grantee", "scope", "purpose", "from", "to", "zone", "coSigners", "legalBasis", "evidence", "parent", "mayRedelegate", "maxDepth", "why", "ticket"} {
		check(s.ask(me, "POST", "/v1/grants", body(name, `{"`+canary()+` `+canary()+`":"`+canary()+`"}`)))
		check(s.ask(me, "POST", "/v1/grants", body(name, `"`+canary()+`\u0000"`)))
		check(s.ask(me, "POST", "/v1/grants", body(name, `["`+canary()+` `+canary()+`"`)))
	}
	for _, b := range []string{
		body("type", `"`+canary()+`"`),
		body("scope", `{"capabilities":["`+canary()+`"]}`),
		body("scope", `{"capabilities":["lab.view"],"coverage":"Patient:general/`+canary()+`"}`),
		body("scope", `{"capabilities":["lab.view","lab.view"],"records":["`+canary()+`"]}`),
		body("subject", `"Person:`+canary()+`"`),
		body("grantor", `"Person:`+canary()+`"`),
		body("grantee", `"User:`+canary()+`"`),
		body("parent", `"`+canary()+`"`),
		body("source", `"`+canary()+`"`),
		body("evidence", `{"sha256":"`+canary()+`"}`),
		`{"` + canary() + ` ` + canary() + `":1}`, `{"` + canary(), canary(),
	} {
		check(s.ask(me, "POST", "/v1/grants", b))
		check(s.ask("gateway user:"+canary(), "POST", "/v1/grants", b))
		check(s.ask("portal user:"+canary(), "POST", "/v1/grants", b))
	}
	for _, b := range []string{
		`{"node":"Patient:general/canaryone","reason":"unconscious","text":"` + canary() + `","ticket":"` + canary() + `"}`,
		`{"node":"Patient:general/` + canary() + `","reason":"unconscious","text":"` + canary() + `"}`,
		`{"node":"` + canary() + `","reason":"unconscious","text":"` + canary() + `"}`,
		`{"node":"Patient:general/ada","reason":"` + canary() + `","text":"` + canary() + `"}`,
	} {
		check(s.ask("portal user:erik", "POST", "/v1/emergencies", b))
	}
	for _, who := range []string{me, "portal user:eve", "gateway user:" + canary(), canary() + " user:" + canary(), "portal " + canary()} {
		check(s.ask(who, "GET", "/v1/grants/"+canary(), ""))
		check(s.ask(who, "DELETE", "/v1/grants/"+canary(), ""))
		check(s.ask(who, "POST", "/v1/grants/"+canary()+"/approval", `{"as":"verifier"}`))
		check(s.ask(who, "POST", "/v1/grants/g-1/approval", `{"as":"`+canary()+`"}`))
		check(s.ask(who, "POST", "/v1/emergencies/"+canary()+"/review", `{"outcome":"justified","text":"`+canary()+`"}`))
		check(s.ask(who, "GET", "/v1/grants?person="+canary(), ""))
		check(s.ask(who, "GET", "/v1/"+canary(), ""))
	}
	must(t, s.ledger.Close())
	check(s.ask(me, "POST", "/v1/grants", body("why", `"`+canary()+`"`)))
	if log := s.log.String(); log == "" || strings.Contains(log, "canary") {
		t.Errorf("the log: %s", log)
	}
	t.Logf("%d canaries in %d answers", n, asked)
}

// FuzzBody sends any body to every endpoint that takes one, by somebody who may
// be given nothing: nothing panics, and nothing is active or opened.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		proxyOfAda, fmt.Sprintf(parentOf, "g-7", "Person:leo", "Patient:general/leo"),
		`{"type":"org-delegate","subject":"Group:acme/g1","grantee":"Account:tpa/desk","scope":{"capabilities":["claim.view"],"service":{"from":"2026-01-01","to":"2026-12-31"}},"zone":"America/New_York","mayRedelegate":true,"maxDepth":2}`,
		`{"as":"verifier"}`, `{"node":"Patient:general/ada","reason":"unconscious","text":"x"}`, `{"outcome":"justified"}`,
		`{"type":"parent","type":"parent"}`, `{"id":"\ud800"}`, strings.Repeat("[", 20), "\ufeff{}", "",
	} {
		f.Add([]byte(seed))
	}
	s := newSite(f, "2026-11-20T12:00:00Z")
	s.know(world)
	f.Fuzz(func(t *testing.T, body []byte) {
		s.t = t
		for _, path := range []string{"/v1/grants", "/v1/grants/g-1/approval", "/v1/emergencies", "/v1/emergencies/e-1/review"} {
			r := httptest.NewRequest("POST", path, strings.NewReader(string(body)))
			r.Header = http.Header{"Caller": {"portal"}, "Ward-Subject": {"user:eve"}, "Content-Type": {"application/json"}}
			a := s.send(r)
			switch a.status {
			case 201: // a parent's request, that waits for who verifies it
				if path != "/v1/grants" || a.State != hierarchy.GrantRequested && a.State != hierarchy.GrantEnded {
					t.Fatalf("%s %q: %s", path, body, a.body)
				}
			case 400, 403, 404, 409, 413, 422:
			default:
				t.Fatalf("%s %q: %d %s", path, body, a.status, a.body)
			}
		}
		if strings.Contains(s.log.String(), "panic") {
			t.Fatalf("%q: %s", body, s.log)
		}
	})
}
