package admin

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/policies"
)

// Archive is a policy set as it is stored, from which policies.Open makes it.
type Archive struct {
	Digest  string `json:"digest"`
	Name    string `json:"name"`
	Archive []byte `json:"archive"`
}

func (h *Handler) archive(ctx context.Context, who Who, in *ShowPolicies) (Archive, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "policy.read"); err != nil {
		return Archive{}, err
	}
	set, err := h.set(ctx, in)
	if err != nil {
		return Archive{}, err
	}
	return Archive{Digest: set.Digest(), Name: set.Name(), Archive: set.Archive()}, nil
}

// set returns the set that is asked for.
func (h *Handler) set(ctx context.Context, in *ShowPolicies) (*policies.Set, error) {
	digest := ""
	switch {
	case in.Digest != "":
		short := strings.TrimPrefix(in.Digest, "sha256:")
		for _, d := range h.everInForce() {
			if len(short) >= 6 && strings.HasPrefix(strings.TrimPrefix(d, "sha256:"), short) {
				digest = d
			}
		}
	case in.Revision != 0 && in.Revision <= h.PDP.Graph().Head().Revision:
		act, _, _ := h.PDP.View(0, in.Revision).Activation("")
		digest = act.Digest
	case in.Revision == 0:
		if set := h.PDP.Set(); set != nil {
			return set, nil
		}
		return nil, h.PDP.Ready()
	}
	if digest == "" {
		return nil, unknownSet("no such policy set was ever active")
	}
	return h.stored(ctx, digest)
}

func unknownSet(text string) *Error {
	return &Error{Status: http.StatusNotFound, Code: "unknown_set", Message: text, Hint: "ward policy list"}
}

// everInForce returns the digests of the sets that were, the earliest first.
func (h *Handler) everInForce() []string {
	var out []string
	for f := range h.PDP.View(0, 0).Facts(hierarchy.KindActivation) {
		if a := f.Event.Activation; a.Tenant == "" {
			out = append(out, a.Digest)
		}
	}
	return out
}

// stored returns a set of the store.
func (h *Handler) stored(ctx context.Context, digest string) (*policies.Set, error) {
	if set := h.PDP.Set(); set != nil && set.Digest() == digest {
		return set, nil
	}
	archive, err := h.Store.GetBlob(ctx, digest)
	if err != nil {
		return nil, err
	}
	return policies.Open(archive)
}

// Rollback puts a set in force again that was before: the one whose digest
// starts so, or without one the last other set.
type Rollback struct {
	Digest string `json:"digest,omitempty"`
	Reason
}

func (h *Handler) rollback(ctx context.Context, who Who, in *Rollback) (Activated, error) {
	if err := in.check(); err != nil {
		return Activated{}, err
	}
	current := h.PDP.Set()
	if current == nil {
		return Activated{}, h.PDP.Ready()
	}
	var set *policies.Set
	var err error
	if in.Digest != "" {
		if set, err = h.set(ctx, &ShowPolicies{Digest: in.Digest}); err == nil && set.Digest() == current.Digest() {
			err = &Error{Status: http.StatusUnprocessableEntity, Code: "set_in_force", Message: "this policy set is in force", Hint: "ward policy list"}
		}
	} else {
		earlier := slices.DeleteFunc(h.everInForce(), func(d string) bool { return d == current.Digest() })
		if len(earlier) == 0 {
			return Activated{}, unknownSet("no other policy set was ever active")
		}
		set, err = h.stored(ctx, earlier[len(earlier)-1])
	}
	if err != nil {
		return Activated{}, err
	}
	done, err := h.PDP.Activate(ctx, pdp.Change{Actor: who.Actor, Caller: who.Caller, Why: in.Why, Ticket: in.Ticket}, set)
	return Activated{changedOf(done), set.Digest(), set.Name()}, err
}

// Overlay is what a tenant forbids for itself, as files by name. No files ask
// about the overlay in force, or with a reason remove it.
type Overlay struct {
	// Tenant is the tenant's key.
	Tenant string            `json:"tenant"`
	Files  map[string]string `json:"files,omitempty"`
	Reason
}

// OverlayActivated says what an overlay became.
type OverlayActivated struct {
	Changed
	Tenant   string `json:"tenant"`
	Digest   string `json:"digest"`
	Policies int    `json:"policies"`
}

// OverlayChecked says what is wrong with an overlay, if anything.
type OverlayChecked struct {
	Tenant   string                `json:"tenant"`
	Digest   string                `json:"digest,omitempty"`
	Set      string                `json:"set"`
	Policies int                   `json:"policies"`
	Findings []policies.Diagnostic `json:"findings"`
}

// OverlayShown is the overlay in force.
type OverlayShown struct {
	PolicySet
	Policies []Policy `json:"policies"`
}

func (in *Overlay) check() error {
	if err := in.Reason.check(); err != nil {
		return err
	}
	if hierarchy.TenantID(in.Tenant).Valid() != nil {
		return bad("tenant is the key of a tenant")
	}
	return nil
}

func (in *Overlay) files() map[string][]byte {
	out := make(map[string][]byte, len(in.Files))
	for name, text := range in.Files {
		out[name] = []byte(text)
	}
	return out
}

func (h *Handler) activateOverlay(ctx context.Context, who Who, in *Overlay) (OverlayActivated, error) {
	if err := in.check(); err != nil {
		return OverlayActivated{}, err
	}
	done, o, err := h.PDP.ActivateOverlay(ctx, pdp.Change{Actor: who.Actor, Caller: who.Caller, Why: in.Why, Ticket: in.Ticket}, in.Tenant, in.files())
	if err != nil {
		return OverlayActivated{}, err
	}
	return OverlayActivated{changedOf(done), in.Tenant, o.Digest(), len(o.Policies())}, nil
}

func (h *Handler) removeOverlay(ctx context.Context, who Who, in *Overlay) (Changed, error) {
	if err := in.check(); err != nil {
		return Changed{}, err
	}
	if len(in.Files) > 0 {
		return Changed{}, bad("what is removed has no files")
	}
	done, err := h.PDP.RemoveOverlay(ctx, pdp.Change{Actor: who.Actor, Caller: who.Caller, Why: in.Why, Ticket: in.Ticket}, in.Tenant)
	return changedOf(done), err
}

func (h *Handler) checkOverlay(ctx context.Context, who Who, in *Overlay) (OverlayChecked, error) {
	if err := in.check(); err != nil {
		return OverlayChecked{}, err
	}
	if err := h.PDP.PermitAt(ctx, who.Actor, who.Caller, "policy.read", in.Tenant); err != nil {
		return OverlayChecked{}, err
	}
	set := h.PDP.Set()
	if set == nil {
		return OverlayChecked{}, h.PDP.Ready()
	}
	return OverlayCheckedOf(set, in.Tenant, in.files()), nil
}

// OverlayCheckedOf compiles an overlay against a set, and says what was found.
func OverlayCheckedOf(set *policies.Set, tenant string, files map[string][]byte) OverlayChecked {
	out := OverlayChecked{Tenant: tenant, Set: set.Digest(), Findings: []policies.Diagnostic{}}
	o, err := policies.CompileOverlay(set, tenant, files)
	if err != nil {
		out.Findings = err.(*policies.Diagnostics).Findings
		return out
	}
	out.Digest, out.Policies = o.Digest(), len(o.Policies())
	return out
}

func (h *Handler) showOverlay(ctx context.Context, who Who, in *Overlay) (OverlayShown, error) {
	if err := in.check(); err != nil {
		return OverlayShown{}, err
	}
	if err := h.PDP.PermitAt(ctx, who.Actor, who.Caller, "policy.read", in.Tenant); err != nil {
		return OverlayShown{}, err
	}
	o := h.PDP.Overlay(in.Tenant)
	view := h.PDP.View(0, 0)
	_, fact, ok := view.Activation(in.Tenant)
	if o == nil || !ok {
		return OverlayShown{}, &Error{Status: http.StatusNotFound, Code: "overlay_unknown", Message: "no overlay is in force for this tenant", Hint: hints["overlay_unknown"]}
	}
	f, _ := view.Fact(fact)
	return OverlayShown{PolicySet: h.policySet(f, true), Policies: policiesOf(o.Policies())}, nil
}

// policySet is the wire form of an activation.
func (h *Handler) policySet(f hierarchy.Fact, active bool) PolicySet {
	a := f.Event.Activation
	s := PolicySet{Revision: f.ID.Revision, Digest: a.Digest, Name: a.Name, Tenant: a.Tenant, Active: active}
	o := h.origin(f.ID.Revision)
	s.At, s.Who, s.Why, s.Ticket = o.Made, o.Who, o.Why, o.Ticket
	return s
}

// OverlayInForce names a tenant's overlay.
type OverlayInForce struct {
	Tenant string `json:"tenant"`
	Digest string `json:"digest"`
}

// overlays returns those in force, by tenant.
func overlays(view hierarchy.View) []OverlayInForce {
	all := view.Overlays()
	var out []OverlayInForce
	for _, tenant := range slices.Sorted(maps.Keys(all)) {
		out = append(out, OverlayInForce{tenant, all[tenant].Digest})
	}
	return out
}
