package admin

import (
	"context"
	"net/http"

	"github.com/ward-authz/ward/pdp"
)

// KeyChange asks for a change of the ledger's keys. Tenant and day name a seal
// key; the tenant is left out for the operator's part.
type KeyChange struct {
	Tenant string `json:"tenant,omitempty"`
	Day    string `json:"day,omitempty"` // 2006-01-02, UTC
	Why    string `json:"why,omitempty"`
	Ticket string `json:"ticket,omitempty"`
	// Confirm repeats what is destroyed: the day, and before it the tenant and a
	// slash, or "operator/". A loss and a rotation need none.
	Confirm string `json:"confirm,omitempty"`
}

// Confirmation is what Confirm must hold.
func (k KeyChange) Confirmation() string {
	if k.Tenant == "" {
		return "operator/" + k.Day
	}
	return k.Tenant + "/" + k.Day
}

// KeyChanged says what a change of keys became.
type KeyChanged struct {
	Record   string `json:"record"`
	Again    bool   `json:"again,omitempty"`    // it had been done before, by that record
	Verifier string `json:"verifier,omitempty"` // of a rotation: all public keys, one a line
}

func (h *Handler) shred(ctx context.Context, who Who, in *KeyChange) (KeyChanged, error) {
	if in.Confirm != in.Confirmation() {
		return KeyChanged{}, &Error{Status: http.StatusBadRequest, Code: "not_confirmed", Message: "confirm does not repeat the tenant and the day; nothing was destroyed"}
	}
	return keyChanged(h.PDP.Shred(ctx, in.of(who)))
}

func (h *Handler) recordLoss(ctx context.Context, who Who, in *KeyChange) (KeyChanged, error) {
	return keyChanged(h.PDP.RecordLoss(ctx, in.of(who)))
}

func (h *Handler) rotateSigner(ctx context.Context, who Who, in *KeyChange) (KeyChanged, error) {
	return keyChanged(h.PDP.RotateSigner(ctx, in.of(who)))
}

func (k *KeyChange) of(who Who) pdp.KeyChange {
	return pdp.KeyChange{Actor: who.Actor, Caller: who.Caller, Tenant: k.Tenant, Day: k.Day, Why: k.Why, Ticket: k.Ticket}
}

func keyChanged(c pdp.KeyChanged, err error) (KeyChanged, error) { return KeyChanged(c), err }

func (h *Handler) keyring(r *http.Request, who Who) (any, error) {
	ring, err := h.PDP.Keyring(r.Context(), who.Actor, who.Caller)
	if err != nil {
		return nil, err
	}
	return ring, nil
}
