package admin

import "testing"

func TestWhoMayIsAnInquiry(t *testing.T) {
	h, _ := importDoor(t)
	assert(t, h, "node", map[string]any{"id": "Tenant:acme"}, "node", map[string]any{"id": "User:u", "principal": true},
		"node", map[string]any{"id": "User:v", "principal": true},
		"entitlement", map[string]any{"tenant": "Tenant:acme", "name": "claims"},
		"assignment", map[string]any{"principal": "User:u", "role": "broker", "node": "Tenant:acme"})
	body := `{"action":{"name":"feature.see"},"resource":{"type":"feature","id":"claims.detail"},"area":"Tenant:acme","assurance":2}`
	onRecord(t, h, [][2]string{{"/v1/who", body}})
	got := asAdmin[Whom](t, h, "/v1/who", WhoMay{Action: Action{Name: "feature.see"}, Resource: Entity{Type: "feature", ID: "claims.detail"}, Area: "Tenant:acme", Assurance: 2})
	if len(got.Principals) != 1 || got.Principals[0].Principal != "User:u" || got.Asked != 1 || got.Candidates != 1 || len(got.Records) != 1 {
		t.Errorf("%+v", got)
	}
	for body, want := range map[string]string{
		`{"action":{"name":"feature.see"},"resource":{"type":"feature","id":"claims.detail"}}`: "area_required",
		`{"action":{"name":"claim.view"},"resource":{"type":"claim","id":"c"}}`:                "anchor_missing",
		`{"action":{"name":"claim.view"},"resource":{"type":"dream","id":"c"}}`:                "unknown_type",
	} {
		if status, code := raw(t, h, 7, "POST", "/v1/who", body); status != 422 || code != want {
			t.Errorf("%s: %d %s, want 422 %s", body, status, code, want)
		}
	}
}
