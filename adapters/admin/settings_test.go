package admin

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestSettingsAreThePacksWithWhatTenantsChose(t *testing.T) {
	h, _ := importDoor(t)
	m := func(tenant, name string, value any) map[string]any {
		return map[string]any{"tenant": tenant, "name": name, "value": value}
	}
	done := assert(t, h, "node", map[string]any{"id": "Tenant:acme"}, "edge", map[string]any{"child": "Tenant:acme", "kind": "operatedBy", "parent": "Operator:ward"},
		"node", map[string]any{"id": "Tenant:zeta"}, "edge", map[string]any{"child": "Tenant:zeta", "kind": "operatedBy", "parent": "Operator:ward"},
		"setting", m("Tenant:acme", "runOutDays", 7), "setting", m("Tenant:zeta", "employerSeesMember", true))
	onRecord(t, h, [][2]string{{"/v1/settings", `{}`}, {"/v1/settings", `{"tenant":"acme"}`}})
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{{`{"tenant":"none"}`, http.StatusNotFound, "unknown_tenant"}, {`{"tenant":"a:b/c"}`, http.StatusBadRequest, "bad_request"}, {`{"spam":1}`, http.StatusBadRequest, "bad_request"}} {
		if status, code := raw(t, h, 7, "POST", "/v1/settings", c.body); status != c.status || code != c.code {
			t.Errorf("%s: %d %s", c.body, status, code)
		}
	}
	all := asAdmin[Settings](t, h, "/v1/settings", SettingsQuery{}).Settings
	if len(all) != 2 || all[0].Name != "employerSeesMember" || all[0].Type != "Bool" || all[0].Default != false || fmt.Sprint(all[1].Default) != "90" || *all[1].Max != 3650 {
		t.Fatalf("%+v", all)
	}
	if c := all[0].Chosen; len(c) != 1 || c[0].Tenant != "Tenant:zeta" || c[0].Set != true || c[0].Who != "Admin:ana" || c[0].Made.IsZero() || c[0].Revision != done.Revision {
		t.Errorf("%+v", c)
	}
	own := asAdmin[Settings](t, h, "/v1/settings", SettingsQuery{Tenant: "acme"}).Settings
	if len(own[0].Chosen) != 0 || len(own[1].Chosen) != 1 || fmt.Sprint(own[1].Chosen[0].Set) != "7" {
		t.Errorf("of one tenant: %+v", own)
	}
	asAdmin[Changed](t, h, "/v1/change", Change{Events: []Event{{End: done.Facts[4], At: Time(time.Now())}}})
	for live, want := range map[bool]int{true: 0, false: 1} {
		if got := asAdmin[Settings](t, h, "/v1/settings", SettingsQuery{Tenant: "acme", Live: live}).Settings[1].Chosen; len(got) != want {
			t.Errorf("live %t: %+v", live, got)
		}
	}
}

// TestEmergenciesAreNotAdministratorsToOpen: asking for them is on record, and
// opening or reviewing one for somebody is refused.
func TestEmergenciesAreNotAdministratorsToOpen(t *testing.T) {
	h, _ := importDoor(t)
	onRecord(t, h, [][2]string{{"/v1/emergencies", `{}`}})
	for _, body := range []string{
		`{"events":[{"assert":"emergency","fields":{"id":"e-1","principal":"User:a","person":"Person:p","node":"Patient:t/p","reason":"unconscious","from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:10:00Z"}}]}`,
		`{"events":[{"assert":"review","fields":{"emergency":"e-1","by":"User:a","outcome":"justified"}}]}`,
	} {
		if status, code := raw(t, h, 7, "POST", "/v1/change", body); status != http.StatusUnprocessableEntity || code != "emergency_unasked" {
			t.Errorf("%s: %d %s", body, status, code)
		}
	}
	for _, body := range []string{`{"person":"x"}`, `{"person":"User:a"}`, `{"principal":"x"}`, `{"spam":1}`} {
		if status, code := raw(t, h, 7, "POST", "/v1/emergencies", body); status != http.StatusBadRequest || code != "bad_request" {
			t.Errorf("%s: %d %s", body, status, code)
		}
	}
}
