package admin

import (
	"context"
	"testing"
	"time"
)

// asAdmin asks an endpoint as the door's administrator.
func asAdmin[Out any](t *testing.T, h *Handler, path string, in any) Out {
	t.Helper()
	var out Out
	if err := NewClient(InProcess(h, 7)).Post(context.Background(), path, in, &out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return out
}

// assert adds facts, each a kind and its fields.
func assert(t *testing.T, h *Handler, facts ...any) Changed {
	t.Helper()
	var c Change
	for i := 0; i < len(facts); i += 2 {
		c.Events = append(c.Events, Event{Assert: facts[i].(string), Fields: facts[i+1].(map[string]any)})
	}
	return asAdmin[Changed](t, h, "/v1/change", c)
}

// onRecord asks endpoints as a stranger and as the administrator: the stranger
// is denied, and that is on record.
func onRecord(t *testing.T, h *Handler, cases [][2]string) {
	t.Helper()
	for _, c := range cases {
		before := h.Ledger.Size()
		if status, code := raw(t, h, 8, "POST", c[0], c[1]); status != 403 || code != "subject_unlinked" || h.Ledger.Size() != before+1 {
			t.Errorf("%s: %d %s and %d records, want 403 subject_unlinked and one", c[0], status, code, h.Ledger.Size()-before)
		}
		if status, code := raw(t, h, 7, "POST", c[0], c[1]); status != 200 {
			t.Errorf("%s: the administrator gets %d %s", c[0], status, code)
		}
	}
}

func TestGrantsAreFoundByTheirEffectiveEnd(t *testing.T) {
	h, _ := importDoor(t)
	onRecord(t, h, [][2]string{{"/v1/grants", `{}`}})
	for _, body := range []string{`{"about":"x"}`, `{"grantee":"x"}`, `{"person":"x"}`, `{"person":"User:a"}`, `{"endingBy":"soon"}`, `{"spam":1}`} {
		if status, code := raw(t, h, 7, "POST", "/v1/grants", body); status != 400 || code != "bad_request" {
			t.Errorf("%s: %d %s", body, status, code)
		}
	}
	m := func(kv ...any) map[string]any {
		out := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i].(string)] = kv[i+1]
		}
		return out
	}
	grant := func(id, to string) map[string]any {
		return m("id", id, "type", "guardian-of-minor", "grantor", "Person:a", "grantee", "User:u", "subject", "Person:a",
			"scope", m("capabilities", []string{"claim.view"}), "to", to)
	}
	assert(t, h, "node", m("id", "User:u", "principal", true),
		"node", m("id", "Person:a", "person", m("birthDate", "2050-05-01", "jurisdiction", "US-OH")),
		"grant", grant("late", "2090-01-01T00:00:00Z"), "grant", grant("early", "2060-01-01T00:00:00Z"), "grant", grant("gone", "2020-01-01T00:00:00Z"))
	end := time.Date(2068, 5, 1, 4, 0, 0, 0, time.UTC) // majority
	for _, c := range []struct {
		by   time.Time
		want string
	}{{end, "early late"}, {end.Add(-time.Millisecond), "early"}, {time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), ""}} {
		got := ""
		for _, f := range asAdmin[FactList](t, h, "/v1/grants", GrantQuery{EndingBy: Time(c.by)}).Facts {
			got += " " + f.Value["id"].(string)
		}
		if len(got) > 0 {
			got = got[1:]
		}
		if got != c.want {
			t.Errorf("ending by %s: %q, want %q", c.by, got, c.want)
		}
	}
	if got := asAdmin[FactList](t, h, "/v1/grants", GrantQuery{Grantee: "user:u", Limit: 2}); len(got.Facts) != 2 || !got.Truncated {
		t.Errorf("a limit of 2 gives %d, truncated %t", len(got.Facts), got.Truncated)
	}
}
