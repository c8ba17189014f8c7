package admin

import (
	"context"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
)

// NodesQuery asks for nodes, persons and principals. Empty fields do not narrow.
type NodesQuery struct {
	// Text is a whole type ("Group"), the start of a key ("g8"), or the start of
	// an id ("Group:acme/g").
	Text string `json:"text,omitempty"`
	// Type is a node type, Tenant the key of the tenant that owns it.
	Type   string `json:"type,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	// Live leaves out what does not exist at the time asked for.
	Live bool `json:"live,omitempty"`
	// Limit is how many to return; 0 means 100, at most 100,000.
	Limit int `json:"limit,omitempty"`
	When
}

func (h *Handler) nodes(ctx context.Context, who Who, in *NodesQuery) (FactList, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "hierarchy.read"); err != nil {
		return FactList{}, err
	}
	view, err := h.view(in.When)
	if err != nil {
		return FactList{}, err
	}
	limit := bounded(in.Limit, 100, 100_000)
	out := FactList{Facts: []Fact{}}
	n := 0
	for f := range view.Facts(hierarchy.KindNode) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return FactList{}, ctx.Err()
		}
		id := f.Event.Node.ID
		if in.Type != "" && id.Type != in.Type || in.Tenant != "" && id.Owner() != in.Tenant ||
			id.Type != in.Text && !strings.HasPrefix(id.Key, in.Text) && !strings.HasPrefix(id.String(), in.Text) ||
			in.Live && !f.Valid.Holds(view.Instant()) {
			continue
		}
		if len(out.Facts) == limit {
			out.Truncated = true
			break
		}
		out.Facts = append(out.Facts, factOf(view, f))
	}
	return out, nil
}

// Known is what Ward knew by a time, or at a revision; exactly one is set.
type Known struct {
	KnownAt  Time   `json:"knownAt,omitzero"`
	Revision uint64 `json:"revision,omitempty"`
}

// DiffQuery asks how the facts of two revisions differ.
type DiffQuery struct {
	From Known `json:"from"`
	To   Known `json:"to"`
	// Limit is how many differences to list; 0 means 1000, at most 100,000. All
	// are counted.
	Limit int `json:"limit,omitempty"`
}

// Diff lists what was learned after one revision and up to another, by kind and
// then in the order of the facts.
type Diff struct {
	From      uint64       `json:"from"`
	To        uint64       `json:"to"`
	Kinds     []KindCounts `json:"kinds"` // of those kinds of facts that differ
	Changes   []Difference `json:"changes"`
	Truncated bool         `json:"truncated,omitempty"`
}

// KindCounts counts the differences of one kind of fact.
type KindCounts struct {
	Kind     string `json:"kind"`
	Asserted int    `json:"asserted"`
	Ended    int    `json:"ended"`
	Voided   int    `json:"voided"`
}

// Difference is one fact that is known otherwise than before. What was asserted
// and voided between the two revisions is none.
type Difference struct {
	Change string `json:"change"` // "asserted", "ended" or "voided"
	Fact
	// Was is the valid time that a fact had before it was ended.
	Was *Interval `json:"was,omitempty"`
}

// diffKinds are the kinds of facts in the order in which a [Diff] lists them.
var diffKinds = []hierarchy.Kind{hierarchy.KindNode, hierarchy.KindEdge, hierarchy.KindLink, hierarchy.KindRole, hierarchy.KindAssignment,
	hierarchy.KindEntitlement, hierarchy.KindSetting, hierarchy.KindGrant, hierarchy.KindSignature, hierarchy.KindBlock,
	hierarchy.KindEmergency, hierarchy.KindReview, hierarchy.KindActivation}

func (h *Handler) diff(ctx context.Context, who Who, in *DiffQuery) (Diff, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "hierarchy.read"); err != nil {
		return Diff{}, err
	}
	var views [2]hierarchy.View
	for i, k := range []Known{in.From, in.To} {
		if k == (Known{}) {
			return Diff{}, bad("each side is a revision, or a time by which ward knew")
		}
		var err error
		if views[i], err = h.view(When{KnownAt: k.KnownAt, Revision: k.Revision}); err != nil {
			return Diff{}, err
		}
	}
	// Both as of one instant, so that a state means the same on both sides.
	before, after := h.PDP.View(views[1].Instant(), views[0].Revision()), views[1]
	if before.Revision() > after.Revision() {
		return Diff{}, bad("the first revision lies after the second")
	}
	out := Diff{From: before.Revision(), To: after.Revision(), Kinds: []KindCounts{}, Changes: []Difference{}}
	limit := bounded(in.Limit, 1000, 100_000)
	n := 0
	for _, kind := range diffKinds {
		counts := KindCounts{Kind: kindName(kind)}
		note := func(count *int, change string, view hierarchy.View, f hierarchy.Fact, was *Interval) {
			*count++
			if len(out.Changes) == limit {
				out.Truncated = true
				return
			}
			d := Difference{Change: change, Fact: factOf(view, f), Was: was}
			if change == "voided" {
				d.State = "voided"
			}
			out.Changes = append(out.Changes, d)
		}
		for f := range after.Facts(kind) {
			if n++; n%1024 == 0 && ctx.Err() != nil {
				return Diff{}, ctx.Err()
			}
			if f.Revision <= before.Revision() {
				continue
			}
			old, known := before.Fact(f.ID)
			switch {
			case !known:
				note(&counts.Asserted, "asserted", after, f, nil)
			case old.Valid != f.Valid:
				was := intervalOf(old.Valid)
				note(&counts.Ended, "ended", after, f, &was)
			}
		}
		for f := range before.Facts(kind) {
			if n++; n%1024 == 0 && ctx.Err() != nil {
				return Diff{}, ctx.Err()
			}
			if _, known := after.Fact(f.ID); !known {
				note(&counts.Voided, "voided", before, f, nil)
			}
		}
		if counts.Asserted+counts.Ended+counts.Voided > 0 {
			out.Kinds = append(out.Kinds, counts)
		}
	}
	return out, nil
}
