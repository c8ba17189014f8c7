package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/ward-authz/ward/policies"
)

const ownRule = `@id("no-search") forbid (principal is PBM::User, action == PBM::Action::"feature.see", resource is PBM::Feature) when { resource.capability == "claim.search" };`

func TestOverlayDoor(t *testing.T) {
	h, _ := importDoor(t)
	ana, tina := NewClient(InProcess(h, 7)), NewClient(InProcess(h, 8))
	ctx := context.Background()
	var changed Changed
	err := ana.Post(ctx, "/v1/change", Change{Events: []Event{
		{Assert: "node", Fields: map[string]any{"id": "Tenant:acme"}}, {Assert: "node", Fields: map[string]any{"id": "Tenant:zeta"}},
		{Assert: "node", Fields: map[string]any{"id": "Admin:tina", "principal": true}},
		{Assert: "link", Fields: map[string]any{"kind": "identity", "issuer": "unix", "sub": "8", "to": "Admin:tina"}},
		{Assert: "assignment", Fields: map[string]any{"principal": "Admin:tina", "role": "security-admin", "node": "Tenant:acme"}},
	}}, &changed)
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]string{"own.cedar": ownRule}
	refused := func(c *Client, path string, in any, status int, code string) {
		t.Helper()
		var out map[string]any
		err := c.Post(ctx, path, in, &out)
		var e *Error
		if !errors.As(err, &e) || e.Status != status || e.Code != code {
			t.Errorf("%s %v: %v, want %d %s", path, in, err, status, code)
		}
	}
	refused(tina, "/v1/overlay/show", Overlay{Tenant: "acme"}, 404, "overlay_unknown")
	refused(tina, "/v1/overlay/remove", Overlay{Tenant: "acme"}, 422, "overlay_unknown")
	refused(ana, "/v1/overlay/activate", Overlay{Tenant: "a/b", Files: own}, 400, "bad_request")
	refused(ana, "/v1/overlay/activate", Overlay{Files: own}, 400, "bad_request")
	refused(ana, "/v1/overlay/activate", Overlay{Tenant: "acme", Files: own, Reason: Reason{Why: strings.Repeat("x", maxReason+1)}}, 400, "bad_request")
	refused(ana, "/v1/overlay/activate", Overlay{Tenant: "none", Files: own}, 422, "unknown_tenant")
	refused(ana, "/v1/overlay/activate", Overlay{Tenant: "acme"}, 422, "policy_invalid")
	refused(ana, "/v1/overlay/activate", Overlay{Tenant: "acme", Files: map[string]string{"a.cedar": strings.Replace(ownRule, "forbid", "permit", 1)}}, 422, "policy_invalid")
	refused(ana, "/v1/overlay/remove", Overlay{Tenant: "acme", Files: own}, 400, "bad_request")
	for _, path := range []string{"/v1/overlay/activate", "/v1/overlay/check"} {
		refused(tina, path, Overlay{Tenant: "zeta", Files: own}, 403, "no_standing")
	}
	refused(tina, "/v1/overlay/show", Overlay{Tenant: "zeta"}, 403, "no_standing")

	var checked OverlayChecked
	if err := tina.Post(ctx, "/v1/overlay/check", Overlay{Tenant: "acme", Files: map[string]string{"own.cedar": ownRule, "x.cedar": "permit (principal, action, resource);"}}, &checked); err != nil ||
		len(checked.Findings) != 2 || checked.Digest != "" {
		t.Errorf("checked %+v, %v", checked, err)
	}
	if err := tina.Post(ctx, "/v1/overlay/check", Overlay{Tenant: "acme", Files: own}, &checked); err != nil || len(checked.Findings) > 0 || checked.Policies != 1 {
		t.Errorf("checked %+v, %v", checked, err)
	}
	var done OverlayActivated
	if err := tina.Post(ctx, "/v1/overlay/activate", Overlay{Tenant: "acme", Files: own, Reason: Reason{Why: "ours"}}, &done); err != nil || done.Digest != checked.Digest || done.Policies != 1 {
		t.Fatalf("activated %+v, %v", done, err)
	}
	var shown OverlayShown
	if err := tina.Post(ctx, "/v1/overlay/show", Overlay{Tenant: "acme"}, &shown); err != nil || shown.Digest != done.Digest || shown.Who != "Admin:tina" || shown.Why != "ours" ||
		!shown.Active || len(shown.Policies) != 1 || shown.Policies[0].ID != "acme/no-search" || shown.Policies[0].Text != ownRule {
		t.Errorf("shown %+v, %v", shown, err)
	}
	var listed PolicySets
	if err := ana.Get(ctx, "/v1/policies", &listed); err != nil || len(listed.Sets) != 2 || listed.Sets[0].Tenant != "acme" || !listed.Sets[0].Active || !listed.Sets[1].Active {
		t.Errorf("listed %+v, %v", listed, err)
	}
	var st Status
	if err := ana.Get(ctx, "/v1/status", &st); err != nil || len(st.Overlays) != 1 || st.Overlays[0] != (OverlayInForce{"acme", done.Digest}) {
		t.Errorf("status %+v, %v", st.Overlays, err)
	}
	// It is no set: nothing shows, fetches or rolls back to it.
	for _, path := range []string{"/v1/policies/show", "/v1/policies/archive"} {
		refused(ana, path, ShowPolicies{Digest: done.Digest}, 404, "unknown_set")
	}
	refused(ana, "/v1/rollback", Rollback{Digest: done.Digest}, 404, "unknown_set")
	if err := tina.Post(ctx, "/v1/overlay/remove", Overlay{Tenant: "acme"}, &changed); err != nil {
		t.Fatal(err)
	}
	if err := ana.Get(ctx, "/v1/policies", &listed); err != nil || len(listed.Sets) != 3 || listed.Sets[0].Active || listed.Sets[1].Active || listed.Sets[0].Digest != "" {
		t.Errorf("listed %+v, %v", listed, err)
	}
}

func TestRollbackDoor(t *testing.T) {
	h, p := importDoor(t)
	ana, stranger := NewClient(InProcess(h, 7)), NewClient(InProcess(h, 8))
	ctx := context.Background()
	first := p.Set().Digest()
	files := policies.PBM()
	files["more.cedar"] = []byte(`@id("more") forbid (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim) when { principal.persons.contains(PBM::Person::"nobody") };`)
	set, err := policies.Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	code := func(c *Client, in Rollback) string {
		t.Helper()
		var out Activated
		err := c.Post(ctx, "/v1/rollback", in, &out)
		var e *Error
		if errors.As(err, &e) {
			return e.Code
		}
		if err != nil {
			return err.Error()
		}
		return out.Digest
	}
	if got := code(ana, Rollback{}); got != "unknown_set" {
		t.Errorf("with one set: %s", got)
	}
	var done Activated
	if err := ana.Post(ctx, "/v1/activate", Activation{Archive: set.Archive()}, &done); err != nil {
		t.Fatal(err)
	}
	if got := code(stranger, Rollback{}); got != "subject_unlinked" {
		t.Errorf("a stranger: %s", got)
	}
	if p.Set().Digest() != set.Digest() {
		t.Fatal("a stranger rolled back")
	}
	if got := code(ana, Rollback{Digest: set.Digest()}); got != "set_in_force" {
		t.Errorf("to the set in force: %s", got)
	}
	if got := code(ana, Rollback{}); got != first || p.Set().Digest() != first {
		t.Errorf("rolled back to %s", got)
	}
	if got := code(ana, Rollback{Digest: set.Digest()[7:19]}); got != set.Digest() {
		t.Errorf("forward again to %s", got)
	}
	var archive Archive
	for rev, want := range map[uint64]string{1: first, 2: set.Digest(), 3: first, 0: set.Digest()} {
		if err := ana.Post(ctx, "/v1/policies/archive", ShowPolicies{Revision: rev}, &archive); err != nil || archive.Digest != want {
			t.Errorf("in force at %d: %s, %v", rev, archive.Digest, err)
		}
		if again, err := policies.Open(archive.Archive); err != nil || again.Digest() != want {
			t.Errorf("the archive at %d: %v", rev, err)
		}
	}
	if status, code := raw(t, h, 7, http.MethodPost, "/v1/policies/archive", `{"revision":99}`); status != 404 || code != "unknown_set" {
		t.Errorf("at a later revision: %d %s", status, code)
	}
}
