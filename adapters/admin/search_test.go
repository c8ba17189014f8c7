package admin

import (
	"fmt"
	"testing"
)

func TestNodesAreFoundByTypeTenantAndPrefix(t *testing.T) {
	h, _ := importDoor(t)
	onRecord(t, h, [][2]string{{"/v1/nodes", `{}`}})
	facts := []any{"node", map[string]any{"id": "Tenant:acme"}, "node", map[string]any{"id": "Person:Group"}}
	for i := range 4 {
		facts = append(facts, "node", map[string]any{"id": fmt.Sprintf("Group:acme/g%d", i)})
	}
	facts = append(facts, "node", map[string]any{"id": "Plan:acme/old", "to": "2020-01-01T00:00:00Z"})
	assert(t, h, facts...)
	for _, c := range []struct {
		q    NodesQuery
		want int
		more bool
	}{
		{NodesQuery{Text: "Group"}, 5, false}, // the type, and a person of that key
		{NodesQuery{Text: "Group", Tenant: "acme"}, 4, false},
		{NodesQuery{Text: "Group:acme/g1"}, 1, false},
		{NodesQuery{Text: "g", Type: "Group", Limit: 3}, 3, true},
		{NodesQuery{Text: "g", Type: "Group", Limit: 4}, 4, false},
		{NodesQuery{Tenant: "acme"}, 6, false},
		{NodesQuery{Tenant: "acme", Live: true}, 5, false},
		{NodesQuery{Text: "g", When: When{Revision: 1}}, 0, false},
		{NodesQuery{Text: "Grou"}, 5, false}, // the start of an id
	} {
		got := asAdmin[FactList](t, h, "/v1/nodes", c.q)
		if len(got.Facts) != c.want || got.Truncated != c.more {
			t.Errorf("%+v: %d, truncated %t, want %d, %t", c.q, len(got.Facts), got.Truncated, c.want, c.more)
		}
	}
}

// TestDiffIsWhatTwoRevisionsKnowOtherwise makes one change of each sort and
// compares every pair of revisions.
func TestDiffIsWhatTwoRevisionsKnowOtherwise(t *testing.T) {
	h, _ := importDoor(t)
	onRecord(t, h, [][2]string{{"/v1/diff", `{"from":{"revision":1},"to":{"revision":1}}`}})
	for body, want := range map[string]string{
		`{}`: "bad_request", `{"from":{"revision":1},"to":{}}`: "bad_request",
		`{"from":{"revision":1,"knownAt":"2026-01-01T00:00:00Z"},"to":{"revision":1}}`: "bad_request",
		`{"from":{"revision":1},"to":{"revision":2}}`:                                  "unknown_revision",
		`{"from":{"knownAt":"2020-01-01T00:00:00Z"},"to":{"revision":1}}`:              "unknown_revision",
	} {
		if _, code := raw(t, h, 7, "POST", "/v1/diff", body); code != want {
			t.Errorf("%s: %s, want %s", body, code, want)
		}
	}
	node := func(id string) map[string]any { return map[string]any{"id": id} }
	assert(t, h, "node", node("Tenant:a"), "node", node("Tenant:b"))                                              // 2
	asAdmin[Changed](t, h, "/v1/change", Change{Events: []Event{{End: "f2.0"}}})                                  // 3
	asAdmin[Changed](t, h, "/v1/change", Change{Events: []Event{{Void: "f2.1"}}})                                 // 4
	asAdmin[Changed](t, h, "/v1/change", Change{Events: []Event{{Void: "f2.0"}}})                                 // 5
	assert(t, h, "node", node("Tenant:a"), "entitlement", map[string]any{"tenant": "Tenant:a", "name": "claims"}) // 6
	for _, c := range []struct {
		from, to uint64
		want     string
	}{
		{1, 1, ""},
		{1, 2, "node asserted f2.0, node asserted f2.1"},
		{1, 3, "node asserted f2.0, node asserted f2.1"}, // what is new is new as it stands
		{2, 3, "node ended f2.0"},
		{2, 4, "node ended f2.0, node voided f2.1"},
		{2, 5, "node voided f2.0, node voided f2.1"},
		{3, 5, "node voided f2.0, node voided f2.1"},
		{1, 5, ""},
		{4, 6, "node asserted f6.0, node voided f2.0, entitlement asserted f6.1"},
		{1, 6, "node asserted f6.0, entitlement asserted f6.1"},
	} {
		got := asAdmin[Diff](t, h, "/v1/diff", DiffQuery{From: Known{Revision: c.from}, To: Known{Revision: c.to}})
		text, n := "", 0
		for i, d := range got.Changes {
			if i > 0 {
				text += ", "
			}
			text += d.Kind + " " + d.Change + " " + d.Fact.Fact
			if (d.Change == "ended") != (d.Was != nil) || (d.Change == "voided") != (d.State == "voided") {
				t.Errorf("%d to %d: %+v", c.from, c.to, d)
			}
		}
		for _, k := range got.Kinds {
			n += k.Asserted + k.Ended + k.Voided
		}
		if text != c.want || n != len(got.Changes) {
			t.Errorf("%d to %d: %q and %d counted, want %q", c.from, c.to, text, n, c.want)
		}
	}
}
