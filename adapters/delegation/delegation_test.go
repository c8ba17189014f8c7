package delegation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// clock is moved by a test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) set(t testing.TB, s string) {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	must(t, err)
	c.mu.Lock()
	c.t = at
	c.mu.Unlock()
}

var pbm = sync.OnceValue(func() *policies.Set {
	set, err := policies.Compile(policies.PBM())
	if err != nil {
		panic(err)
	}
	return set
})

// without returns the shipped pack without its tests and without some texts,
// each after the file (or, with an empty text, the folder) that it is in.
func without(t testing.TB, pairs ...string) *policies.Set {
	t.Helper()
	files := map[string][]byte{}
	for name, text := range policies.PBM() {
		if !strings.Contains(name, "tests/") {
			files[name] = text
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		found := false
		for name, text := range files {
			switch {
			case pairs[i+1] == "" && strings.HasPrefix(name, pairs[i]):
				delete(files, name)
				found = true
			case pairs[i+1] != "" && name == pairs[i] && bytes.Contains(text, []byte(pairs[i+1])):
				files[name] = bytes.Replace(text, []byte(pairs[i+1]), nil, 1)
				found = true
			}
		}
		if !found {
			t.Fatalf("%s does not hold %q", pairs[i], pairs[i+1])
		}
	}
	set, err := policies.Compile(files)
	must(t, err)
	return set
}

// callers are the programs that tests ask through, named in the header Caller.
var callers = map[string]authz.Caller{
	"portal":         {Name: "portal", Asserts: []string{"user"}, Assurance: 2, Performs: []string{"notify-privacy"}},
	"weak":           {Name: "weak", Asserts: []string{"user"}, Assurance: 1, Performs: []string{"notify-privacy"}},
	"plain":          {Name: "plain", Asserts: []string{"user"}, Assurance: 2},
	"gateway":        {Name: "gateway", Asserts: []string{"client"}, Assurance: 2},
	"labs-service":   {Name: "labs-service", Asserts: []string{"user"}, Assurance: 2, Performs: []string{"record-delegation", "notify-privacy", "report-outcome"}},
	"claims-service": {Name: "claims-service", Asserts: []string{"user"}, Assurance: 2, Performs: []string{"record-delegation"}},
}

// site is the door over a decision point, a store in memory and a real ledger.
type site struct {
	t       testing.TB
	door    http.Handler
	pdp     *pdp.PDP
	clock   *clock
	store   hierarchy.Store
	ledger  *audit.Ledger
	keys    *audit.Keys
	admin   pdp.Change
	ids     map[string]string // of grants, by the key that they were asked for with
	records []string          // of every answer that named one
	refused []authz.Code
	log     *bytes.Buffer
}

func newSite(t testing.TB, at string) *site {
	t.Helper()
	return siteOf(t, pbm(), at)
}

func siteOf(t testing.TB, set *policies.Set, at string) *site {
	t.Helper()
	s := &site{t: t, clock: &clock{}, store: storetest.NewMemory(), ids: map[string]string{}, log: &bytes.Buffer{}}
	s.clock.set(t, at)
	dir := t.TempDir()
	must(t, audit.CreateKeys(dir+"/keys", "ward.test/audit"))
	var err error
	s.keys, err = audit.OpenKeys(dir + "/keys")
	must(t, err)
	must(t, audit.Create(dir+"/ledger", s.keys))
	s.ledger, _, err = audit.Open(dir+"/ledger", s.keys, audit.Options{})
	must(t, err)
	t.Cleanup(func() { s.ledger.Close() })
	s.pdp, err = pdp.Initialise(context.Background(), pdp.Config{Store: s.store, Ledger: s.ledger, Keys: s.keys, Clock: s.clock.now},
		pdp.Setup{Operator: "ward", Set: set, Admins: map[string]int{"ana": 1000}})
	must(t, err)
	s.admin.Caller = authz.Caller{Name: "admin", Asserts: []string{pdp.AdminType}, Issuer: pdp.UnixIssuer, Assurance: 2}
	s.admin.Actor, err = s.admin.Caller.Assert(authz.Subject{Type: pdp.AdminType, ID: "1000"})
	must(t, err)
	s.door, err = New(Config{PDP: s.pdp, Hosts: []string{"example.com"},
		Caller: func(r *http.Request) (authz.Caller, bool) {
			c, ok := callers[r.Header.Get("Caller")]
			return c, ok
		},
		Refused: func(c authz.Code) { s.refused = append(s.refused, c) },
		Log:     slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(t, err)
	return s
}

// know states facts: a line each, {"kind": {fields}}.
func (s *site) know(facts string) {
	s.t.Helper()
	c := s.admin
	for line := range strings.Lines(strings.TrimSpace(facts)) {
		var fact map[string]map[string]any
		must(s.t, json.Unmarshal([]byte(line), &fact))
		for kind, fields := range fact {
			e, err := pdp.EventOf(kind, fields, "UTC")
			must(s.t, err)
			c.Events = append(c.Events, e)
		}
	}
	_, err := s.pdp.Change(context.Background(), c)
	must(s.t, err)
}

// world is a hospital with two patients and their people, and a client with the
// administrator that works for it. Leo is 17 until 25 November 2026, Zoe is 12
// until 2 December.
const world = `
{"node":{"id":"Tenant:general"}}
{"node":{"id":"Tenant:acme"}}
{"node":{"id":"Tenant:tpa"}}
{"edge":{"child":"Tenant:general","kind":"operatedBy","parent":"Operator:ward"}}
{"edge":{"child":"Tenant:acme","kind":"operatedBy","parent":"Operator:ward"}}
{"edge":{"child":"Tenant:tpa","kind":"operatedBy","parent":"Operator:ward"}}
{"entitlement":{"tenant":"Tenant:general","name":"labs"}}
{"entitlement":{"tenant":"Tenant:acme","name":"claims"}}
{"node":{"id":"HealthSystem:general/main"}}
{"edge":{"child":"HealthSystem:general/main","kind":"partOf","parent":"Tenant:general"}}
{"node":{"id":"Patient:general/leo"}}
{"node":{"id":"Patient:general/zoe"}}
{"node":{"id":"Patient:general/ada"}}
{"edge":{"child":"Patient:general/leo","kind":"partOf","parent":"HealthSystem:general/main"}}
{"edge":{"child":"Patient:general/zoe","kind":"partOf","parent":"HealthSystem:general/main"}}
{"edge":{"child":"Patient:general/ada","kind":"partOf","parent":"HealthSystem:general/main"}}
{"node":{"id":"Person:leo","person":{"birthDate":"2008-11-25","jurisdiction":"US-OH"}}}
{"node":{"id":"Person:zoe","person":{"birthDate":"2013-12-02","jurisdiction":"US-OH"}}}
{"node":{"id":"Person:ada","person":{"birthDate":"1961-02-01","jurisdiction":"US-OH"}}}
{"node":{"id":"Person:mia","person":{"birthDate":"1980-02-02","jurisdiction":"US-OH"}}}
{"link":{"kind":"owns","from":"Person:leo","to":"Patient:general/leo"}}
{"link":{"kind":"owns","from":"Person:zoe","to":"Patient:general/zoe"}}
{"link":{"kind":"owns","from":"Person:ada","to":"Patient:general/ada"}}
{"node":{"id":"User:leo","principal":true}}
{"node":{"id":"User:ada","principal":true}}
{"node":{"id":"User:mia","principal":true}}
{"node":{"id":"User:dad","principal":true}}
{"node":{"id":"User:sue","principal":true}}
{"node":{"id":"User:rita","principal":true}}
{"node":{"id":"User:erik","principal":true}}
{"node":{"id":"User:petra","principal":true}}
{"node":{"id":"User:carl","principal":true}}
{"node":{"id":"User:tom","principal":true}}
{"node":{"id":"User:eve","principal":true}}
{"node":{"id":"Person:dad"}}
{"link":{"kind":"self","from":"User:leo","to":"Person:leo"}}
{"link":{"kind":"self","from":"User:ada","to":"Person:ada"}}
{"link":{"kind":"self","from":"User:mia","to":"Person:mia"}}
{"link":{"kind":"family","from":"Person:zoe","to":"Person:mia"}}
{"link":{"kind":"family","from":"Person:zoe","to":"Person:dad"}}
{"link":{"kind":"self","from":"User:dad","to":"Person:dad"}}
{"assignment":{"principal":"User:rita","role":"records-release","node":"Tenant:general"}}
{"assignment":{"principal":"User:erik","role":"emergency-clinician","node":"HealthSystem:general/main"}}
{"assignment":{"principal":"User:petra","role":"privacy-officer","node":"Tenant:general"}}
{"assignment":{"principal":"User:petra","role":"emergency-clinician","node":"HealthSystem:general/main"}}
{"node":{"id":"Group:acme/g1"}}
{"edge":{"child":"Group:acme/g1","kind":"memberOf","parent":"Tenant:acme"}}
{"node":{"id":"Coverage:acme/ada"}}
{"edge":{"child":"Coverage:acme/ada","kind":"enrolledIn","parent":"Group:acme/g1"}}
{"link":{"kind":"owns","from":"Person:ada","to":"Coverage:acme/ada"}}
{"assignment":{"principal":"User:carl","role":"client-admin","node":"Group:acme/g1"}}
{"node":{"id":"Account:tpa/desk"}}
{"edge":{"child":"Account:tpa/desk","kind":"memberOf","parent":"Tenant:tpa"}}
{"assignment":{"principal":"User:tom","role":"client-admin","node":"Account:tpa/desk"}}
`

const parentOf = `{"key":"%s","type":"parent","subject":"%s","grantee":"User:mia","scope":{"capabilities":["lab.view"],"coverage":"%s"}}`

// answer is what the door sent.
type answer struct {
	status int
	header http.Header
	body   string
	grant
	Review string
	Error  failure
	Grants []grant
}

// ask sends a request of a person through a caller ("portal user:mia"). A grant
// goes by the key that it was asked for with.
func (s *site) ask(who, method, path, body string) answer {
	s.t.Helper()
	for key, id := range s.ids {
		path = strings.Replace(path+"/", "/v1/grants/"+key+"/", "/v1/grants/"+id+"/", 1)
		path = strings.TrimSuffix(path, "/")
		body = strings.ReplaceAll(body, `"parent":"`+key+`"`, `"parent":"`+id+`"`)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, path, nil)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	caller, subject, _ := strings.Cut(who, " ")
	r.Header.Set("Caller", caller)
	r.Header.Set("Ward-Subject", subject)
	a := s.send(r)
	var asked struct{ Key string }
	if json.Unmarshal([]byte(body), &asked) == nil && asked.Key != "" && a.status == 201 {
		s.ids[asked.Key] = a.ID
	}
	return a
}

func (s *site) send(r *http.Request) answer {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.door.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), body: w.Body.String()}
	must(s.t, json.Unmarshal(w.Body.Bytes(), &a))
	record := a.Record + a.Error.Record
	if header := w.Header().Get("Ward-Record"); header != record && a.Grants == nil {
		s.t.Errorf("%s %s: header names record %q, the body %q", r.Method, r.URL.Path, header, record)
	} else if header != "" {
		s.records = append(s.records, header)
	} else if w.Code < 300 || w.Code == 403 {
		s.t.Errorf("%s %s: %d without a record: %s", r.Method, r.URL.Path, w.Code, w.Body)
	}
	if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/json" {
		s.t.Errorf("%s %s: headers %v", r.Method, r.URL.Path, w.Header())
	}
	if (w.Code == 503) != (w.Header().Get("Retry-After") != "") {
		s.t.Errorf("%s %s: %d with Retry-After %q", r.Method, r.URL.Path, w.Code, w.Header().Get("Retry-After"))
	}
	return a
}

// want asks and checks the status and what a word says: the state of a grant or
// the code of an error.
func (s *site) want(who, method, path, body string, status int, word string) answer {
	s.t.Helper()
	a := s.ask(who, method, path, body)
	if got := string(a.State) + string(a.Error.Code); a.status != status || word != "" && got != word {
		s.t.Errorf("%s %s %s: %d %s, want %d %s\n%s", who, method, path, a.status, got, status, word, a.body)
	}
	return a
}

// lab asks whether somebody may see a patient's result, through the service that
// has it or one that performs nothing.
func (s *site) lab(user, patient string, performs bool, want string) authz.Decision {
	s.t.Helper()
	c := callers["labs-service"]
	if !performs {
		c.Performs = nil
	}
	return s.decide(c, user, authz.Request{Action: authz.Action{Name: "lab.view"}, Resource: authz.Resource{Type: "lab", ID: "cbc",
		Properties: map[string]any{"patient": patient, "sensitivity": "routine", "minorConsent": false}}}, want)
}

func (s *site) claim(user, want string) {
	s.t.Helper()
	s.decide(callers["claims-service"], user, authz.Request{Action: authz.Action{Name: "claim.view"}, Resource: authz.Resource{Type: "claim", ID: "c1",
		Properties: map[string]any{"coverage": "Coverage:acme/ada", "pharmacy": nil, "prescriber": nil, "fillDate": "2026-05-20", "sensitivity": "routine", "minorConsent": false}}}, want)
}

func (s *site) decide(c authz.Caller, user string, r authz.Request, want string) authz.Decision {
	s.t.Helper()
	r.Caller = c
	var err error
	r.Subject, err = c.Assert(authz.Subject{Type: "user", ID: user})
	must(s.t, err)
	d, err := s.pdp.Decide(context.Background(), r)
	must(s.t, err)
	d = authz.Enforce(d, c)
	if got := d.Effect.String() + " " + string(d.Code); got != want {
		s.t.Errorf("%s %s: %s, want %s", user, r.Action.Name, got, want)
	}
	return d
}

// replay checks that every answer's record is in the ledger, and that a Replayer
// derives each record again from the store and the ledger alone.
func (s *site) replay() {
	s.t.Helper()
	ctx := context.Background()
	rep, err := pdp.NewReplayer(ctx, s.store, s.keys)
	must(s.t, err)
	must(s.t, rep.Changes(s.ledger.Scan(0)))
	items, found := 0, map[string]bool{}
	for e, err := range s.ledger.Scan(0) {
		must(s.t, err)
		found[e.ID()] = true
		r, err := rep.Replay(ctx, e)
		must(s.t, err)
		items += r.Items
		if len(r.Differences) > 0 {
			s.t.Errorf("%s replays differently: %s", r.Record, r.Differences)
		}
	}
	for _, id := range s.records {
		if !found[id] {
			s.t.Errorf("the ledger has no %s", id)
		}
	}
	if len(s.records) == 0 || items < len(s.records) {
		s.t.Errorf("%d items replayed for %d answers", items, len(s.records))
	}
}

// A parent asks for a minor who has a say: the hospital verifies, he agrees, and
// it counts until it is revoked, or he comes of age.
func TestAParentsGrantFromRequestToEnd(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	mia, rita, leo := "portal user:mia", "portal user:rita", "portal user:leo"
	s.lab("mia", "Patient:general/leo", true, "deny no_standing")
	body := fmt.Sprintf(parentOf, "g-1", "Person:leo", "Patient:general/leo")
	a := s.want(mia, "POST", "/v1/grants", body, 201, "requested")
	if !strings.HasPrefix(a.ID, "g-") || len(a.ID) != 18 || a.header.Get("Location") != "/v1/grants/"+a.ID || a.Grantor.String() != "Person:leo" || a.From != "2026-11-20T12:00:00.000Z" || a.To != "" || a.Until != "" || a.ByMajority || len(a.Needs) != 2 {
		t.Errorf("as asked for: %s", a.body)
	}
	if again := s.want(mia, "POST", "/v1/grants", body, 409, "grant_exists"); again.header.Get("Location") != "/v1/grants/"+a.ID || strings.Contains(again.body, a.ID) {
		t.Errorf("asked again: %v %s", again.header, again.body)
	}
	s.lab("mia", "Patient:general/leo", true, "deny no_standing")
	s.clock.set(t, "2026-11-20T12:01:00Z")
	s.want("weak user:rita", "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 403, "denied")
	s.want(mia, "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 403, "denied")
	a = s.want(rita, "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 200, "requested")
	if n := a.Needs; len(n) != 2 || n[0].As != "subject" || n[0].By.String() != "Person:leo" || n[0].Signed != "" || n[1].As != "verifier" || n[1].Signed != "2026-11-20T12:01:00.000Z" {
		t.Errorf("verified: %s", a.body)
	}
	s.want(rita, "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 409, "nothing_to_do")
	s.lab("mia", "Patient:general/leo", true, "deny no_standing")
	s.clock.set(t, "2026-11-20T12:02:00Z")
	a = s.want(leo, "POST", "/v1/grants/g-1/approval", `{"as":"subject"}`, 200, "active")
	if a.Until != "2026-11-25T05:00:00.000Z" || !a.ByMajority || a.Needs[0].Signed != "2026-11-20T12:02:00.000Z" {
		t.Errorf("signed: %s", a.body)
	}
	s.lab("mia", "Patient:general/leo", true, "allow permitted")
	s.lab("mia", "Patient:general/leo", false, "deny obligation_unsupported")
	s.lab("mia", "Patient:general/zoe", true, "deny no_standing")
	for _, who := range []string{mia, leo} {
		if a := s.want(who, "GET", "/v1/grants", "", 200, ""); len(a.Grants) != 1 || a.Grants[0].ID != s.ids["g-1"] || a.Grants[0].State != "active" || a.Grants[0].Record != a.header.Get("Ward-Record") {
			t.Errorf("%s lists %s", who, a.body)
		}
	}
	s.want(rita, "GET", "/v1/grants/g-1", "", 200, "active")
	s.want("portal user:eve", "GET", "/v1/grants/g-1", "", 404, "unknown_resource")
	if a := s.want("portal user:eve", "GET", "/v1/grants", "", 200, ""); len(a.Grants) != 0 {
		t.Errorf("eve lists %s", a.body)
	}
	s.want("portal user:dad", "DELETE", "/v1/grants/g-1", "", 404, "unknown_resource")
	s.clock.set(t, "2026-11-20T12:03:00Z")
	s.want(mia, "DELETE", "/v1/grants/g-1", "", 200, "revoked")
	s.lab("mia", "Patient:general/leo", true, "deny grant_ended")
	s.want(mia, "DELETE", "/v1/grants/g-1", "", 409, "nothing_to_do")
	if len(s.refused) > 0 { // what is recorded is no refusal
		t.Errorf("counted as refused: %s", s.refused)
	}
	s.replay()
}

func TestMajorityEndsAParentsGrant(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	s.want("portal user:mia", "POST", "/v1/grants", fmt.Sprintf(parentOf, "g-1", "Person:leo", "Patient:general/leo"), 201, "requested")
	s.want("portal user:rita", "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 200, "requested")
	s.want("portal user:leo", "POST", "/v1/grants/g-1/approval", `{"as":"subject"}`, 200, "active")
	s.clock.set(t, "2026-11-25T04:59:59Z")
	s.lab("mia", "Patient:general/leo", true, "allow permitted")
	s.clock.set(t, "2026-11-25T05:00:00Z")
	s.lab("mia", "Patient:general/leo", true, "deny majority_reached")
	if a := s.want("portal user:mia", "GET", "/v1/grants/g-1", "", 200, "ended"); !a.ByMajority {
		t.Errorf("%s", a.body)
	}
	s.want("portal user:leo", "DELETE", "/v1/grants/g-1", "", 200, "revoked") // he is an adult now
	s.replay()
}

// A grant about a child who has no say yet ends where they begin to have one:
// the thirteenth birthday, where the law of the place puts its midnight.
func TestAChildsGrantIsCutAtTheAgeOfAssent(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	a := s.want("portal user:mia", "POST", "/v1/grants", fmt.Sprintf(parentOf, "g-1", "Person:zoe", "Patient:general/zoe"), 201, "requested")
	if a.To != "" || a.Until != "" || len(a.Needs) != 1 { // who only asks learns nobody's age
		t.Errorf("asked for: %s", a.body)
	}
	a = s.want("portal user:rita", "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 200, "active")
	if a.Until != "2026-12-02T05:00:00.000Z" || a.ByMajority {
		t.Errorf("verified: %s", a.body)
	}
	s.clock.set(t, "2026-12-02T04:59:59Z")
	s.lab("mia", "Patient:general/zoe", true, "allow permitted")
	s.clock.set(t, "2026-12-02T05:00:00Z")
	s.lab("mia", "Patient:general/zoe", true, "deny grant_ended")
	a = s.want("portal user:mia", "POST", "/v1/grants", fmt.Sprintf(parentOf, "g-2", "Person:zoe", "Patient:general/zoe"), 201, "requested")
	if a.To != "" || len(a.Needs) != 2 {
		t.Errorf("asked again at thirteen: %s", a.body)
	}
	s.replay()
}

// Who gives signs by asking, with a second factor; dates are of the zone.
func TestAnAdultsProxyIsActiveAtOnce(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	a := s.want("portal user:ada", "POST", "/v1/grants", `{"type":"adult-proxy","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"],
		"records":["lab:cbc"],"service":{"from":"2026-01-01"}},"to":"2026-12-31","zone":"America/New_York","legalBasis":"asked","evidence":{"document":"doc-7","assurance":2},
		"purpose":[],"why":"a fall","ticket":"t-1"}`, 201, "active")
	if !strings.HasPrefix(a.ID, "g-") || len(a.ID) < 10 || a.Until != "2027-01-01T05:00:00.000Z" || a.To != a.Until || a.ByMajority ||
		a.Needs[0].Signed == "" || a.Scope.Service.From != "2026-01-01T05:00:00.000Z" || a.Scope.Service.To != "" || !slices.Equal(a.Scope.Records, []string{"lab:cbc"}) {
		t.Errorf("%s", a.body)
	}
	if g, ok := s.pdp.View(0, 0).Grant(a.ID); !ok || g.LegalBasis != "asked" || g.Evidence.Document != "doc-7" || g.Evidence.Assurance != 2 {
		t.Errorf("kept: %+v", g)
	}
	if b, ok := s.pdp.Graph().Batch(a.Revision); !ok || b.Provenance.Why != "a fall" || b.Provenance.Ticket != "t-1" || b.Provenance.Who.String() != "User:ada" {
		t.Errorf("provenance: %+v", b)
	}
	// With one factor it waits for her signature.
	s.want("weak user:ada", "POST", "/v1/grants", `{"key":"g-weak","type":"caregiver","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]}}`, 201, "requested")
	s.want("portal user:ada", "POST", "/v1/grants/g-weak/approval", `{"as":"grantor"}`, 200, "active")
	s.clock.set(t, "2026-11-20T12:01:00Z")
	s.lab("sue", "Patient:general/ada", true, "allow permitted")
	s.want("portal user:sue", "DELETE", "/v1/grants/g-weak", "", 200, "revoked") // the grantee gives it up
	// A grant that is to begin later, and is taken back before.
	s.want("portal user:ada", "POST", "/v1/grants", `{"key":"g-later","type":"caregiver","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]},"from":"2027-01-01"}`, 201, "future")
	s.want("portal user:ada", "DELETE", "/v1/grants/g-later", "", 200, "void")
	s.want("portal user:ada", "GET", "/v1/grants/g-later", "", 404, "unknown_resource")
	s.replay()
}

// A step-parent takes the other parent's signature too.
func TestACoSignerSigns(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	step := `{"key":"g-1","type":"step-parent","subject":"Person:zoe","grantee":"User:sue","scope":{"capabilities":["lab.view"],"coverage":"Patient:general/zoe"}%s}`
	s.want("portal user:sue", "POST", "/v1/grants", fmt.Sprintf(step, ""), 422, "co_signer_missing")
	s.want("portal user:sue", "POST", "/v1/grants", fmt.Sprintf(step, `,"coSigners":["User:sue"]`), 422, "co_signer_missing")
	s.want("portal user:sue", "POST", "/v1/grants", fmt.Sprintf(step, `,"coSigners":["Person:ada"]`), 422, "co_signer_missing") // no family
	s.want("portal user:sue", "POST", "/v1/grants", fmt.Sprintf(step, `,"coSigners":["Person:mia","Person:dad"]`), 201, "requested")
	a := s.want("portal user:mia", "POST", "/v1/grants/g-1/approval", `{"as":"co-signer"}`, 200, "requested")
	for _, n := range a.Needs {
		if (n.Signed != "") != (n.By.String() == "Person:mia") {
			t.Errorf("signed by mia alone: %s", a.body)
		}
	}
	s.want("portal user:dad", "POST", "/v1/grants/g-1/approval", `{"as":"co-signer"}`, 200, "requested")
	s.want("portal user:rita", "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 200, "active")
	s.lab("sue", "Patient:general/zoe", true, "allow permitted")
	// A signature that is ended is none any more.
	s.clock.set(t, "2026-11-20T12:01:00Z")
	now, err := s.pdp.Now()
	must(t, err)
	c := s.admin
	c.Why = "she says so"
	for _, f := range s.pdp.View(now, 0).Signatures(s.ids["g-1"]) {
		if f.By.String() == "Person:mia" {
			c.Events = []hierarchy.Event{{Op: hierarchy.End, Kind: hierarchy.KindSignature, Fact: f.Fact, At: now}}
		}
	}
	_, err = s.pdp.Change(context.Background(), c)
	must(t, err)
	for _, n := range s.want("portal user:sue", "GET", "/v1/grants/g-1", "", 200, "ended").Needs {
		if (n.Signed == "") != (n.By.String() == "Person:mia") {
			t.Errorf("without mia's signature: %+v", n)
		}
	}
	s.replay()
}

// An organisation gives what it holds to another, which passes a part of it on;
// with the first the second ends.
func TestAnOrganisationsGrantAndWhatWasMadeFromIt(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	s.know(`{"setting":{"tenant":"Tenant:acme","name":"employerSeesMember","value":true}}`)
	s.want("portal user:carl", "POST", "/v1/grants", `{"key":"g-org","type":"org-delegate","subject":"Group:acme/g1","grantee":"Account:tpa/desk","mayRedelegate":true,"maxDepth":2,
		"scope":{"capabilities":["grant.give","claim.view"]}}`, 201, "requested")
	s.claim("tom", "deny no_standing")
	s.want("portal user:tom", "POST", "/v1/grants/g-org/approval", `{"as":"grantor"}`, 403, "denied")
	s.want("portal user:carl", "POST", "/v1/grants/g-org/approval", `{"as":"grantor"}`, 200, "active")
	s.claim("tom", "allow permitted")
	wider := `{"key":"g-two","type":"org-delegate","parent":"g-org","subject":"Group:acme/g1","grantor":"Account:tpa/desk","grantee":"User:sue","scope":{"capabilities":[%s]}}`
	s.want("portal user:tom", "POST", "/v1/grants", fmt.Sprintf(wider, `"claim.view","claim.export"`), 422, "grant_wider")
	a := s.want("portal user:tom", "POST", "/v1/grants", fmt.Sprintf(wider, `"claim.view"`), 201, "requested")
	if a.Parent != s.ids["g-org"] {
		t.Errorf("%s", a.body)
	}
	s.want("portal user:tom", "POST", "/v1/grants/g-two/approval", `{"as":"grantor"}`, 200, "active")
	s.claim("sue", "allow permitted")
	s.clock.set(t, "2026-11-20T12:01:00Z")
	s.want("portal user:carl", "DELETE", "/v1/grants/g-org", "", 200, "revoked")
	s.claim("tom", "deny grant_ended")
	s.claim("sue", "deny grant_ended")
	s.want("portal user:sue", "GET", "/v1/grants/g-two", "", 200, "ended")
	s.replay()
}

func TestAnEmergency(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	erik, petra := "portal user:erik", "portal user:petra"
	open := func(who, patient string, status int, word string) answer {
		t.Helper()
		return s.want(who, "POST", "/v1/emergencies", `{"node":"`+patient+`","reason":"unconscious","text":"found in the hall","ticket":"er-7"}`, status, word)
	}
	s.lab("erik", "Patient:general/ada", true, "deny denied")
	open("plain user:erik", "Patient:general/ada", 403, "obligation_unsupported")
	open("weak user:erik", "Patient:general/ada", 403, "denied")
	open("portal user:rita", "Patient:general/ada", 403, "denied")
	open("portal user:eve", "Patient:general/ada", 404, "unknown_resource")
	open(erik, "Patient:general/nobody", 404, "unknown_resource")
	open(erik, "Group:acme/g1", 404, "unknown_resource")
	s.want(erik, "POST", "/v1/emergencies", `{"node":"Patient:general/ada","reason":"curious","text":"x"}`, 422, "reason_unknown")
	s.want(erik, "POST", "/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious","text":"   "}`, 422, "text_missing")
	a := open(erik, "Patient:general/ada", 201, "")
	if !strings.HasPrefix(a.ID, "e-") || a.Until != "2026-11-20T12:30:00.000Z" || len(a.Obligations) != 1 || a.Obligations[0].ID != "notify-privacy" {
		t.Errorf("opened: %s", a.body)
	}
	path := "/v1/emergencies/" + a.ID
	d := s.lab("erik", "Patient:general/ada", true, "allow permitted")
	if d.Emergency != a.ID || len(d.Obligations) != 2 {
		t.Errorf("by the emergency: %+v", d)
	}
	s.lab("erik", "Patient:general/ada", false, "deny obligation_unsupported")
	s.lab("erik", "Patient:general/leo", true, "deny denied") // the next bed
	if second := open(erik, "Patient:general/leo", 201, ""); second.ID == a.ID {
		t.Error("two emergencies have one id")
	}
	s.lab("erik", "Patient:general/leo", true, "allow permitted")
	open(erik, "Patient:general/ada", 403, "denied") // not again before its review
	s.want("portal user:eve", "DELETE", path, "", 404, "unknown_resource")
	s.want(petra, "POST", path+"/review", `{"outcome":"maybe"}`, 400, "field_invalid")
	s.want(erik, "POST", path+"/review", `{"outcome":"justified"}`, 403, "denied")
	s.clock.set(t, "2026-11-20T12:10:00Z")
	if a := s.want(erik, "DELETE", path, "", 200, ""); a.Until != "2026-11-20T12:10:00.000Z" {
		t.Errorf("ended: %s", a.body)
	}
	s.want(erik, "DELETE", path, "", 409, "nothing_to_do")
	s.lab("erik", "Patient:general/ada", true, "deny denied")
	open(erik, "Patient:general/ada", 403, "denied")
	if a := s.want(petra, "POST", path+"/review", `{"outcome":"justified","text":"seen"}`, 200, ""); a.Review != "justified" {
		t.Errorf("reviewed: %s", a.body)
	}
	s.want(petra, "POST", path+"/review", `{"outcome":"unjustified"}`, 409, "duplicate_fact")
	open(erik, "Patient:general/ada", 201, "")
	// Who reviews does not review what they opened themselves.
	own := open(petra, "Patient:general/ada", 201, "")
	s.want(petra, "POST", "/v1/emergencies/"+own.ID+"/review", `{"outcome":"justified"}`, 403, "denied")
	s.want(petra, "DELETE", "/v1/emergencies/e-none", "", 404, "unknown_resource")
	s.replay()
}

// Where a pack forgets to ask for the review, the facts do not.
func TestTheFactsAskForTheReviewToo(t *testing.T) {
	set := without(t, "modules/emergencies/emergencies.cedar", "resource.unreviewed ||")
	s := siteOf(t, set, "2026-11-20T12:00:00Z")
	s.know(world)
	const body = `{"node":"Patient:general/ada","reason":"unconscious","text":"found in the hall"}`
	s.want("portal user:erik", "POST", "/v1/emergencies", body, 201, "")
	s.want("portal user:erik", "POST", "/v1/emergencies", body, 409, "emergency_open")
	s.replay()
}

// What the facts or the pack do not admit, each with its code.
func TestRefusals(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world + `{"node":{"id":"Person:kim","person":{"birthDate":"1990-01-01","jurisdiction":"US-OH"}}}
{"link":{"kind":"family","from":"Person:kim","to":"Person:ada"}}`)
	proxy := func(more string) string {
		return `{"type":"adult-proxy","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]}` + more + `}`
	}
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{strings.Replace(proxy(""), "adult-proxy", "friend", 1), 422, "grant_type_unknown"},
		{strings.Replace(proxy(""), "lab.view", "lab.nope", 1), 422, "capability_unknown"},
		{proxy(`,"from":"2026-11-19"`), 422, "grant_backdated"},
		{proxy(`,"from":"2027-01-02","to":"2027-01-01"`), 422, "interval_inverted"},
		{strings.Replace(proxy(""), "User:sue", "User:nobody", 1), 422, "unknown_end"},
		{strings.Replace(proxy(""), "User:sue", "Account:tpa/desk", 1), 422, "grantee_not_principal"},
		{proxy(`,"parent":"g-none"`), 422, "unknown_end"},
		{proxy(`,"mayRedelegate":true,"maxDepth":1`), 422, "grant_depth"},
		{proxy(`,"mayRedelegate":true`), 422, "event_invalid"},
		{strings.Replace(proxy(""), "Person:ada", "Person:nobody", 1), 404, "unknown_resource"},
		{strings.Replace(proxy(""), "Person:ada", "Person:leo", 1), 404, "unknown_resource"},
		{proxy(`,"grantor":"Person:leo"`), 403, "denied"},
		{strings.NewReplacer("adult-proxy", "guardian", "User:sue", "User:ada", "Person:ada", "Person:kim").Replace(proxy(`,"grantor":"Person:leo"`)), 422, "grantor_unentitled"},
	} {
		a := s.want("portal user:ada", "POST", "/v1/grants", c.body, c.status, c.code)
		if a.Error.Record == "" || a.Error.Message == "" {
			t.Errorf("%s: %s", c.body, a.body)
		}
	}
	for n := range hierarchy.MaxLiveGrants {
		s.want("portal user:ada", "POST", "/v1/grants", proxy(fmt.Sprintf(`,"key":"g-%d"`, n)), 201, "active")
	}
	s.want("portal user:ada", "POST", "/v1/grants", proxy(""), 409, "grant_limit")
	s.replay()
}

// A minor takes back his assent, and his mother's grant ends.
func TestAMinorTakesBackHisAssent(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	s.want("portal user:mia", "POST", "/v1/grants", fmt.Sprintf(parentOf, "g-1", "Person:leo", "Patient:general/leo"), 201, "requested")
	s.want("portal user:leo", "POST", "/v1/grants/g-1/approval", `{"as":"subject"}`, 200, "requested")
	s.want("portal user:rita", "POST", "/v1/grants/g-1/approval", `{"as":"verifier"}`, 200, "active")
	s.lab("mia", "Patient:general/leo", true, "allow permitted")
	s.clock.set(t, "2026-11-20T12:01:00Z")
	s.want("portal user:leo", "DELETE", "/v1/grants/g-1", "", 200, "revoked")
	s.lab("mia", "Patient:general/leo", true, "deny grant_ended")
	s.replay()
}

// Who asks about a person that is a stranger gets one answer, whatever is true.
func TestAStrangerGetsOneAnswer(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world + `{"block":{"person":"Person:ada","principal":"User:tom","basis":"court-order"}}`)
	const guardian = `{"key":"%s","type":"%s","subject":"Person:%s","grantee":"User:%s","scope":{"capabilities":["lab.view"],"coverage":"Patient:general/%s"}}`
	s.want("portal user:ada", "POST", "/v1/grants", proxyOfAda, 201, "active")
	seen := map[string]string{}
	for name, c := range map[string][2]string{
		"nobody of that name": {"eve", fmt.Sprintf(guardian, "a", "guardian", "none", "eve", "ada")},
		"another's record":    {"eve", fmt.Sprintf(guardian, "b", "guardian", "ada", "eve", "leo")},
		"of no age":           {"eve", fmt.Sprintf(guardian, "c", "guardian", "leo", "eve", "leo")},
		"a court order":       {"tom", fmt.Sprintf(guardian, "d", "guardian", "ada", "tom", "ada")},
		"another's key":       {"tom", fmt.Sprintf(guardian, "g-1", "guardian", "ada", "tom", "ada")},
	} {
		a := s.want("portal user:"+c[0], "POST", "/v1/grants", c[1], 404, "unknown_resource")
		seen[strings.Replace(a.body, a.Error.Record, "", 1)] = name
		if a.header.Get("Location") != "" {
			t.Errorf("%s: a Location", name)
		}
	}
	if len(seen) != 1 {
		t.Errorf("the answers differ: %q", seen)
	}
	s.want("portal user:eve", "POST", "/v1/grants", fmt.Sprintf(guardian, "g-1", "guardian", "ada", "eve", "ada"), 201, "requested") // the key is hers
	s.replay()
}

// Who asks comes from the header and a caller that is registered to say so.
func TestWhoAsks(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	s.want("portal user:ada", "POST", "/v1/grants", `{"key":"g-1","type":"adult-proxy","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]}}`, 201, "active")
	endpoints := []struct{ method, path, body string }{
		{"POST", "/v1/grants", `{"type":"adult-proxy","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]}}`},
		{"GET", "/v1/grants", ""},
		{"GET", "/v1/grants/g-1", ""},
		{"DELETE", "/v1/grants/g-1", ""},
		{"POST", "/v1/grants/g-1/approval", `{"as":"grantor"}`},
		{"POST", "/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious","text":"x"}`},
		{"DELETE", "/v1/emergencies/e-1", ""},
		{"POST", "/v1/emergencies/e-1/review", `{"outcome":"justified"}`},
	}
	before := s.pdp.Graph().Head().Revision
	for _, e := range endpoints {
		s.want("gateway user:ada", e.method, e.path, e.body, 403, "subject_unverified")
		s.want("nobody user:ada", e.method, e.path, e.body, 401, "caller_unknown")
		a := s.ask("portal user:ghost", e.method, e.path, e.body)
		if a.status != 403 && a.status != 404 || a.Error.Record == "" {
			t.Errorf("%s %s by a ghost: %d %s", e.method, e.path, a.status, a.body)
		}
		for _, header := range []http.Header{
			{}, {"Ward-Subject": {""}}, {"Ward-Subject": {"ada"}}, {"Ward-Subject": {"user:"}}, {"Ward-Subject": {":ada"}}, {"Ward-Subject": {"us er:ada"}},
			{"Ward-Subject": {"user:ada", "user:ada"}}, {"Ward-Subject": {"user:a\x01da"}}, {"Ward-Subject": {"user:" + strings.Repeat("a", 513)}},
			{"Ward-Subject": {"user:\xff"}},
		} {
			r := httptest.NewRequest(e.method, e.path, strings.NewReader(e.body))
			if e.body == "" {
				r = httptest.NewRequest(e.method, e.path, nil)
			}
			r.Header = header.Clone()
			r.Header.Set("Caller", "portal")
			r.Header.Set("Content-Type", "application/json")
			want := SubjectInvalid
			if header.Get("Ward-Subject") == "" && len(header) == 0 {
				want = SubjectMissing
			}
			if a := s.send(r); a.status != 400 || a.Error.Code != want {
				t.Errorf("%s %s with %q: %d %s", e.method, e.path, header, a.status, a.body)
			}
		}
	}
	// A body says nothing of who asks.
	s.want("portal user:eve", "POST", "/v1/grants", `{"subject":"Person:ada","Ward-Subject":"user:ada"}`, 400, "field_missing")
	if now := s.pdp.Graph().Head().Revision; now != before {
		t.Errorf("something was changed: revision %d after %d", now, before)
	}
	s.replay()
}

func TestPathsAndMethods(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	for path, allow := range map[string]string{
		"/v1/grants": "GET, POST", "/v1/grants/g-1": "GET, DELETE", "/v1/grants/g-1/approval": "POST",
		"/v1/emergencies": "POST", "/v1/emergencies/e-1": "DELETE", "/v1/emergencies/e-1/review": "POST",
	} {
		for _, method := range []string{"GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "get"} {
			if slices.Contains(strings.Split(allow, ", "), method) {
				continue
			}
			if a := s.want("portal user:ada", method, path, "", 405, "method_not_allowed"); a.header.Get("Allow") != allow {
				t.Errorf("%s %s: Allow %q", method, path, a.header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/grants/", "/v1/grants//", "/v1/grants/g-1/", "/v1/grants/g-1/approval/", "/v1/grants/g-1/review", "/v1/emergencies/e-1/approval",
		"/v1/grants/g%2D1", "/v1/grants/..", "/v1/grants/g_1", "/v1/Grants", "//v1/grants", "/v1%2Fgrants", "/v1/grants/" + strings.Repeat("a", 65), "/v1/others"} {
		s.want("portal user:ada", "GET", path, "", 404, "not_found")
	}
	s.want("portal user:ada", "GET", "/v1/grants?person=Person:leo", "", 400, "query_unexpected")
	s.want("portal user:ada", "GET", "/v1/grants?", "", 400, "query_unexpected")
	s.want("portal user:ada", "DELETE", "/v1/grants/g-1", "{}", 400, "body_unexpected")
	r := httptest.NewRequest("GET", "http://evil.example/v1/grants", nil)
	if a := s.send(r); a.status != 421 || a.Error.Code != "host_not_allowed" {
		t.Errorf("another host: %d %s", a.status, a.body)
	}
	if len(s.refused) == 0 || len(s.records) != 0 {
		t.Errorf("%d refusals counted, %d records", len(s.refused), len(s.records))
	}
	for path, want := range map[string]bool{"/v1/grants": true, "/v1/emergencies/e/review": true, "/v1/grantsx": false, "/v1": false, "/access/v1/evaluation": false} {
		if Serves(path) != want {
			t.Errorf("Serves(%q) is %v", path, !want)
		}
	}
}

// Where the pack has no grants and no emergencies there are no such paths.
func TestAPackWithoutGrants(t *testing.T) {
	set := without(t, "modules/emergencies/", "", "catalogue.yaml", ", emergency-clinician", "roles.yaml", ", emergency.review", "roles.yaml", "emergency-clinician: # may break the glass, and has nothing until then\n  capabilities: [emergency.open, emergency.end]\n")
	s := siteOf(t, set, "2026-11-20T12:00:00Z")
	s.know(strings.ReplaceAll(world, `"emergency-clinician"`, `"nurse"`))
	s.want("portal user:erik", "POST", "/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious","text":"x"}`, 404, "not_found")
	s.want("portal user:ada", "GET", "/v1/grants", "", 200, "")
}

func TestBadBodies(t *testing.T) {
	s := newSite(t, "2026-11-20T12:00:00Z")
	s.know(world)
	const good = `{"type":"adult-proxy","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]}}`
	more := func(member string) string { return strings.TrimSuffix(good, "}") + "," + member + "}" }
	scope := func(member string) string { return strings.Replace(good, `["lab.view"]`, `["lab.view"],`+member, 1) }
	without := func(part string) string { return strings.Replace(good, part, "", 1) }
	for _, c := range []struct{ name, body, code, place string }{
		{"none", "", "content_type_invalid", ""},
		{"blank", " ", "json_invalid", ""},
		{"no JSON", "{", "json_invalid", ""},
		{"a list", "[]", "field_type", ""},
		{"two", good + good, "json_invalid", ""},
		{"deep", more(`"x":` + strings.Repeat("[", 9) + strings.Repeat("]", 9)), "json_too_deep", ""},
		{"a key twice", more(`"type":"parent"`), "key_duplicate", ""},
		{"a key twice below", scope(`"covers":[],"covers":[]`), "key_duplicate", ""},
		{"unknown", more(`"endsAtMajority":false`), "field_unknown", "endsAtMajority"},
		{"unknown below", scope(`"everything":true`), "field_unknown", "scope.everything"},
		{"unknown in evidence", more(`"evidence":{"verifiedBy":"User:sue"}`), "field_unknown", "evidence.verifiedBy"},
		{"unknown in service", scope(`"service":{"from":"2026-01-01","zone":"UTC"}`), "field_unknown", "scope.service.zone"},
		{"unknown and odd", more(`"Leo Smith":1`), "field_unknown", "a field"},
		{"another case", more(`"Grantor":"Person:ada"`), "field_unknown", "Grantor"},
		{"needs", more(`"needs":[]`), "field_unknown", "needs"},
		{"state", more(`"state":"active"`), "field_unknown", "state"},
		{"no type", without(`"type":"adult-proxy",`), "field_missing", "type"},
		{"no subject", without(`"subject":"Person:ada",`), "field_missing", "subject"},
		{"no grantee", without(`"grantee":"User:sue",`), "field_missing", "grantee"},
		{"no scope", without(`,"scope":{"capabilities":["lab.view"]}`), "field_missing", "scope"},
		{"no capabilities", without(`"capabilities":["lab.view"]`), "field_missing", "scope.capabilities"},
		{"service of nothing", scope(`"service":{}`), "field_missing", "scope.service.from"},
		{"null", more(`"grantor":null`), "field_type", "grantor"},
		{"type a number", strings.Replace(good, `"adult-proxy"`, "1", 1), "field_type", "type"},
		{"scope a list", strings.Replace(good, `{"capabilities":["lab.view"]}`, "[]", 1), "field_type", "scope"},
		{"capabilities a string", strings.Replace(good, `["lab.view"]`, `"lab.view"`, 1), "field_type", "scope.capabilities"},
		{"capabilities of numbers", strings.Replace(good, `["lab.view"]`, `[1]`, 1), "field_type", "scope.capabilities"},
		{"records of nulls", scope(`"records":[null]`), "field_type", "scope.records"},
		{"from a number", more(`"from":1795000000000`), "field_type", "from"},
		{"mayRedelegate a string", more(`"mayRedelegate":"true"`), "field_type", "mayRedelegate"},
		{"maxDepth a string", more(`"maxDepth":"1"`), "field_type", "maxDepth"},
		{"a person's name as type", strings.Replace(good, "adult-proxy", "Leo Smith", 1), "field_invalid", "type"},
		{"a person as capability", strings.Replace(good, "lab.view", "Person:leo", 1), "field_invalid", "scope.capabilities"},
		{"no id", strings.Replace(good, "Person:ada", "ada", 1), "field_invalid", "subject"},
		{"no grantee's id", strings.Replace(good, "User:sue", "User:", 1), "field_invalid", "grantee"},
		{"no coverage's id", scope(`"coverage":"x"`), "field_invalid", "scope.coverage"},
		{"no co-signer's id", more(`"coSigners":["x"]`), "field_invalid", "coSigners"},
		{"key", more(`"key":"g_1"`), "field_invalid", "key"},
		{"key empty", more(`"key":""`), "field_invalid", "key"},
		{"another system's", more(`"source":"ehr"`), "field_unknown", "source"},
		{"an id", more(`"id":"g-1"`), "field_unknown", "id"},
		{"parent", more(`"parent":"g 1"`), "field_invalid", "parent"},
		{"date", more(`"to":"2026-02-30"`), "field_invalid", "to"},
		{"zone", more(`"zone":"Mars/Base"`), "field_invalid", "zone"},
		{"zone of a path", more(`"zone":"../../etc/passwd"`), "field_invalid", "zone"},
		{"no end by an end", more(`"to":"1970-01-01T00:00:00Z"`), "field_invalid", "to"},
		{"no end by a day", more(`"to":"1969-12-31"`), "field_invalid", "to"},
		{"maxDepth", more(`"maxDepth":4`), "field_invalid", "maxDepth"},
		{"maxDepth below", more(`"maxDepth":-1`), "field_invalid", "maxDepth"},
		{"maxDepth a fraction", more(`"maxDepth":1.5`), "field_invalid", "maxDepth"},
		{"assurance", more(`"evidence":{"assurance":4}`), "field_invalid", "evidence.assurance"},
		{"long text", more(`"why":"` + strings.Repeat("a", 1025) + `"`), "field_invalid", "why"},
		{"control in a text", more(`"legalBasis":"a\u0000"`), "field_invalid", "legalBasis"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.t = t
			status := 400
			if c.code == "content_type_invalid" {
				status = 415
			}
			a := s.want("portal user:ada", "POST", "/v1/grants", c.body, status, c.code)
			if c.place != "" && !strings.HasPrefix(a.Error.Message, c.place+" ") {
				t.Errorf("names another place: %s", a.body)
			}
		})
	}
	s.t = t
	for _, c := range []struct{ path, body, code string }{
		{"/v1/grants/g-1/approval", `{}`, "field_missing"},
		{"/v1/grants/g-1/approval", `{"as":"admin"}`, "field_invalid"},
		{"/v1/grants/g-1/approval", `{"as":["verifier"]}`, "field_type"},
		{"/v1/grants/g-1/approval", `{"as":"verifier","by":"User:rita"}`, "field_unknown"},
		{"/v1/emergencies", `{"node":"Patient:general/ada","text":"x"}`, "field_missing"},
		{"/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious"}`, "field_missing"},
		{"/v1/emergencies", `{"reason":"unconscious","text":"x"}`, "field_missing"},
		{"/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious","text":"x","person":"Person:leo"}`, "field_unknown"},
		{"/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious","text":"x","principal":"User:erik"}`, "field_unknown"},
		{"/v1/emergencies/e-1/review", `{"text":"x"}`, "field_missing"},
		{"/v1/emergencies/e-1/review", `{"outcome":"justified","by":"User:petra"}`, "field_unknown"},
	} {
		s.want("portal user:ada", "POST", c.path, c.body, 400, c.code)
	}
	// The size, declared and not.
	large := more(`"why":"` + strings.Repeat("a", maxBody) + `"`)
	s.want("portal user:ada", "POST", "/v1/grants", large, 413, "body_too_large")
	r := httptest.NewRequest("POST", "/v1/grants", io.MultiReader(strings.NewReader(large)))
	r.Header = http.Header{"Caller": {"portal"}, "Ward-Subject": {"user:ada"}, "Content-Type": {"application/json"}}
	r.ContentLength = -1
	if a := s.send(r); a.status != 413 {
		t.Errorf("undeclared: %d %s", a.status, a.body)
	}
	exact := more(`"ticket":"t"`)
	s.want("portal user:ada", "POST", "/v1/grants", exact+strings.Repeat(" ", maxBody-len(exact)), 201, "active")
	for _, kind := range []string{"text/plain", "application/json, text/plain", "application/x-www-form-urlencoded", ""} {
		r := httptest.NewRequest("POST", "/v1/grants", strings.NewReader(good))
		r.Header = http.Header{"Caller": {"portal"}, "Ward-Subject": {"user:ada"}, "Content-Type": {kind}}
		if a := s.send(r); a.status != 415 {
			t.Errorf("%q: %d %s", kind, a.status, a.body)
		}
	}
}
