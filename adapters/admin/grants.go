package admin

import (
	"context"
	"slices"
	"time"

	"github.com/ward-authz/ward/hierarchy"
)

// GrantQuery asks for grants. Empty fields do not narrow.
type GrantQuery struct {
	// About is an id that the grant names anywhere; Person its subject, by any
	// identity that is merged with it; Grantee who may act, as a catalogue type
	// ("user:mia") or a node ("User:mia"); Tenant a tenant key that one of its
	// ids carries.
	About   string `json:"about,omitempty"`
	Person  string `json:"person,omitempty"`
	Grantee string `json:"grantee,omitempty"`
	Tenant  string `json:"tenant,omitempty"`
	// Live leaves out what does not hold at the time asked for.
	Live bool `json:"live,omitempty"`
	// Requested keeps those that wait for a signature.
	Requested bool `json:"requested,omitempty"`
	// EndingBy keeps those that are live and whose effective time ends at that
	// time or before it, the first to end first. A grant that ends at majority
	// ends there, and one that was made from another no later than that one.
	EndingBy Time `json:"endingBy,omitzero"`
	// Limit is how many to return; 0 means 1000, at most 100,000.
	Limit int `json:"limit,omitempty"`
	When
}

func (h *Handler) grants(ctx context.Context, who Who, in *GrantQuery) (FactList, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "hierarchy.read"); err != nil {
		return FactList{}, err
	}
	view, err := h.view(in.When)
	if err != nil {
		return FactList{}, err
	}
	var about, grantee hierarchy.ID
	var persons []hierarchy.ID
	if in.About != "" {
		if about, err = hierarchy.ParseID(in.About); err != nil {
			return FactList{}, bad(err.Error())
		}
	}
	if in.Grantee != "" {
		if grantee, err = h.PDP.PrincipalID(in.Grantee); err != nil {
			return FactList{}, bad(err.Error())
		}
	}
	if in.Person != "" {
		if persons, err = personOf(view, in.Person); err != nil {
			return FactList{}, err
		}
	}
	by := hierarchy.Never
	if !in.EndingBy.IsZero() {
		by = hierarchy.At(time.Time(in.EndingBy))
	}
	limit := bounded(in.Limit, 1000, 100_000)
	out := FactList{Facts: []Fact{}}
	n := 0
	for f := range view.Facts(hierarchy.KindGrant) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return FactList{}, ctx.Err()
		}
		ids, _ := named(&f.Event)
		g := f.Event.Grant
		if !about.IsZero() && !slices.Contains(ids, about) || persons != nil && !slices.Contains(persons, g.Subject) ||
			!grantee.IsZero() && g.Grantee != grantee ||
			in.Tenant != "" && !has(ids, func(id hierarchy.ID) bool { return id.Owner() == in.Tenant }) {
			continue
		}
		w := factOf(view, f)
		if in.Requested && w.State != "requested" || (in.Live || by != hierarchy.Never) && w.State != "live" {
			continue
		}
		if by != hierarchy.Never && (w.Effective.To.IsZero() || hierarchy.At(time.Time(w.Effective.To)) > by) {
			continue
		}
		if by == hierarchy.Never && len(out.Facts) == limit {
			out.Truncated = true
			break
		}
		out.Facts = append(out.Facts, w)
	}
	if by != hierarchy.Never {
		slices.SortStableFunc(out.Facts, func(a, b Fact) int { return time.Time(a.Effective.To).Compare(time.Time(b.Effective.To)) })
		if len(out.Facts) > limit {
			out.Facts, out.Truncated = out.Facts[:limit], true
		}
	}
	return out, nil
}

// bounded returns a limit that was asked for, within bounds.
func bounded(n, usual, most int) int {
	if n <= 0 {
		n = usual
	}
	return min(n, most)
}
