package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

const proxyFacts = `
- node: {id: "Tenant:general"}
- edge: {child: "Tenant:general", kind: operatedBy, parent: "Operator:pbm"}
- entitlement: {tenant: "Tenant:general", name: labs}
- node: {id: "HealthSystem:general/main"}
- edge: {child: "HealthSystem:general/main", kind: partOf, parent: "Tenant:general"}
- node: {id: "Patient:general/ada"}
- edge: {child: "Patient:general/ada", kind: partOf, parent: "HealthSystem:general/main"}
- node: {id: "Person:ada", person: {birthDate: "1961-02-01", jurisdiction: US-OH}}
- link: {kind: owns, from: "Person:ada", to: "Patient:general/ada"}
- node: {id: "User:ada", principal: true}
- link: {kind: self, from: "User:ada", to: "Person:ada"}
- node: {id: "User:sue", principal: true}
- node: {id: "User:erik", principal: true}
- assignment: {principal: "User:erik", role: emergency-clinician, node: "HealthSystem:general/main"}
- node: {id: "User:petra", principal: true}
- assignment: {principal: "User:petra", role: privacy-officer, node: "Tenant:general"}
`

// TestPeopleAskAtTheServer lets people use the real server: a proxy from her
// grant to its end, and an emergency to its review. What was answered is there
// after a restart, and replays.
func TestPeopleAskAtTheServer(t *testing.T) {
	i := newInstall(t, "pbm", "pbm", fmt.Sprintf(`
drain: 10ms
listen: {authzen: {address: "127.0.0.1:0", socket: authzen.sock}}
callers:
  - {name: labs-service, uid: %d, asserts: [user], assurance: 2, performs: [record-delegation, notify-privacy, report-outcome]}
`, os.Getuid()))
	i.run(0, proxyFacts, "hierarchy", "apply", "-")
	r := i.serve()
	c := i.overSocket()
	send := func(who, method, path, body string, status int, holds string) map[string]any {
		t.Helper()
		req, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Ward-Subject", who)
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status || !strings.Contains(string(raw), holds) || resp.Header.Get("Ward-Record") == "" {
			t.Errorf("%s %s %s: %d %s (record %q), want %d with %s", who, method, path, resp.StatusCode, raw, resp.Header.Get("Ward-Record"), status, holds)
		}
		var out map[string]any
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	lab := func(user, want string) {
		t.Helper()
		_, _, body, err := ask(c, "http://localhost", `{"subject":{"type":"user","id":"`+user+`"},"action":{"name":"lab.view"},"resource":{"type":"lab","id":"cbc",
			"properties":{"patient":"Patient:general/ada","sensitivity":"routine","minorConsent":false}}}`)
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %v, want %s", user, body, err, want)
		}
	}
	lab("sue", `"no_standing"`)
	proxy := send("user:ada", "POST", "/v1/grants", `{"key":"k-1","type":"adult-proxy","subject":"Person:ada","grantee":"User:sue","scope":{"capabilities":["lab.view"]}}`, 201, `"state":"active"`)
	lab("sue", `"decision":true`)
	grant, _ := proxy["id"].(string)
	send("user:sue", "GET", "/v1/grants", "", 200, `"id":"`+grant+`"`)
	send("user:erik", "GET", "/v1/grants/"+grant, "", 404, `"unknown_resource"`)
	send("user:ada", "DELETE", "/v1/grants/"+grant, "", 200, `"state":"revoked"`)
	lab("sue", `"grant_ended"`)
	opened := send("user:erik", "POST", "/v1/emergencies", `{"node":"Patient:general/ada","reason":"unconscious","text":"found in the hall"}`, 201, `"notify-privacy"`)
	lab("erik", `"decision":true`)
	id, _ := opened["id"].(string)
	send("user:petra", "POST", "/v1/emergencies/"+id+"/review", `{"outcome":"justified"}`, 200, `"review":"justified"`)
	send("user:erik", "DELETE", "/v1/emergencies/"+id, "", 200, id)
	lab("erik", `"denied"`)

	// By TCP nobody is registered, and another host is refused before that.
	address := r.serving["address"].(string)
	for host, want := range map[string]int{"": 401, "evil.example": 421} {
		req, err := http.NewRequest("GET", address+"/v1/grants", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Ward-Subject", "user:ada")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("host %q: %d, want %d", host, resp.StatusCode, want)
		}
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	for _, secret := range []string{"ada", "sue", "erik", "found", "k-1", grant, id} {
		if strings.Contains(strings.ReplaceAll(r.log.String(), i.dir, ""), secret) {
			t.Errorf("the log holds %q:\n%s", secret, r.log)
		}
	}
	if out, _ := i.run(0, "", "replay", "all"); !strings.Contains(out, " 0 different") {
		t.Errorf("replay: %s", out)
	}
	i.run(0, "", "audit", "verify", "--quiet")
	if out, _ := i.run(0, "", "audit", "find", "--subject", "user:ada"); strings.Count(out, "grant.") < 2 {
		t.Errorf("ada's records: %s", out)
	}
}

// A server whose pack has no grants has none of their paths.
func TestAPackWithoutPeople(t *testing.T) {
	i := newLab(t, lab("10ms"))
	r := i.serve()
	for _, path := range []string{"/v1/grants", "/v1/grants/g-1"} {
		req, err := http.NewRequest("GET", "http://localhost"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Ward-Subject", "user:alice")
		resp, err := i.overSocket().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}
