package pdp

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Redecided is what other policies would have answered.
type Redecided struct {
	Record string `json:"record"`
	Kind   string `json:"kind"`
	Items  int    `json:"items"`
	// Key is as in [Replayed].
	Key     KeyStatus    `json:"key,omitempty"`
	Changes []Redecision `json:"changes,omitempty"`
}

// Redecision is one answer that other policies would have given otherwise, in
// other areas or with other obligations.
type Redecision struct {
	Item   int        `json:"item"`
	Action string     `json:"action"`
	Change string     `json:"change"` // "gain", "loss", "areas" or "obligations"
	Before CaseAnswer `json:"before"`
	After  CaseAnswer `json:"after"`
}

// Other is a policy set to decide again under.
type Other struct {
	set *policies.Set
	// overlays are those of now; nil is those of each record's own revision.
	overlays map[string]*policies.Overlay
}

// Set is the policy set.
func (o *Other) Set() *policies.Set { return o.set }

// Now returns the policies in force at the end of the store, overlays included.
func (r *Replayer) Now(ctx context.Context) (*Other, error) {
	set, overlays, err := r.sets.inForce(ctx, r.graph, r.graph.Tip().Revision)
	if err != nil {
		return nil, &IntegrityError{Text: "the policies in force are not those that were stored", Err: err}
	}
	if set == nil {
		return nil, errNoOther
	}
	return &Other{set, overlays}, nil
}

// Set returns a policy set of the store by its digest. With it stand the
// overlays that were in force at each record's revision.
func (r *Replayer) Set(ctx context.Context, digest string) (*Other, error) {
	return r.sets.other(ctx, digest)
}

// Set returns a policy set of the case by its digest.
func (c *Case) Set(ctx context.Context, digest string) (*Other, error) {
	return c.sets.other(ctx, digest)
}

func (c *setCache) other(ctx context.Context, digest string) (*Other, error) {
	set, err := c.get(ctx, digest)
	if err != nil {
		return nil, errNoOther
	}
	return &Other{set: set}, nil
}

var errNoOther = errors.New("there is no such policy set, or it is not whole")

// Redecide answers what a record answered under other policies, from the facts
// of then. The requests are as they were converted then: what the set of then
// did not declare is not in them.
func (r *Replayer) Redecide(ctx context.Context, e audit.Entry, o *Other) (Redecided, error) {
	out := Redecided{Record: e.ID(), Kind: string(e.Kind)}
	id, c, err := r.open(e)
	if err != nil || len(c.Items) == 0 {
		return out, err
	}
	out.Items = len(c.Items)
	w, err := r.world(ctx, id, c)
	if err != nil {
		return out, err
	}
	items, _, err := r.unseal(id, e, c)
	if gone := (*GoneError)(nil); errors.As(err, &gone) {
		out.Key = gone.Status
		return out, nil
	}
	if err != nil {
		return out, err
	}
	then := w.overlays
	w.set, w.overlays, w.confers = o.set, o.overlays, confers(r.graph, o.set)
	if o.overlays == nil {
		w.overlays = map[string]*policies.Overlay{}
		for tenant, overlay := range then {
			if w.overlays[tenant], err = r.sets.overlay(ctx, o.set, tenant, overlay.Digest()); err != nil {
				return out, unfit(err)
			}
		}
	}
	for _, si := range items {
		out.compare(si, w.judge(si.Asked).verdict)
	}
	return out, nil
}

// Redecide answers what a record of the case answered under other policies,
// from what those of then were shown. The case holds no facts beyond that.
func (c *Case) Redecide(ctx context.Context, seq uint64, o *Other) (Redecided, error) {
	r, err := c.check(seq)
	if err != nil {
		return Redecided{}, err
	}
	out := Redecided{Record: r.entry.ID(), Kind: string(r.entry.Kind), Items: len(r.items)}
	out.Key = r.lacks()
	if _, _, err := c.then(ctx, r); err != nil {
		return out, err
	}
	overlays, err := c.overlays(ctx, r, o.set)
	if err != nil {
		return out, unfit(err)
	}
	for i, si := range r.items {
		if si.Asked != nil {
			v, _ := evaluate(r.slices[i], o.set, overlays)
			out.compare(si, v)
		}
	}
	return out, nil
}

func unfit(err error) error {
	return fmt.Errorf("a tenant's overlay does not fit the policy set: %w", err)
}

func (r *Redecided) compare(si sealedItem, after authz.Verdict) {
	before := si.Verdict
	change := "obligations"
	switch {
	case bool(!before.Effect && after.Effect):
		change = "gain"
	case bool(before.Effect && !after.Effect):
		change = "loss"
	case !slices.Equal(before.Areas, after.Areas):
		change = "areas"
	case slices.EqualFunc(before.Obligations, after.Obligations, func(a, b authz.Obligation) bool { return obligationKey(a) == obligationKey(b) }):
		return
	}
	r.Changes = append(r.Changes, Redecision{si.Index, si.Asked.Action, change, answerOf(before), answerOf(after)})
}
