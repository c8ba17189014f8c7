package admin

import (
	"context"
	"slices"
	"time"

	"github.com/ward-authz/ward/hierarchy"
)

// EmergencyQuery asks for emergencies. Empty fields do not narrow.
type EmergencyQuery struct {
	// ID is that of one emergency; Person whose records it opened, by any
	// identity that is merged with it; Principal who opened it, as a catalogue
	// type ("user:kim") or a node ("User:kim").
	ID        string `json:"id,omitempty"`
	Person    string `json:"person,omitempty"`
	Principal string `json:"principal,omitempty"`
	// Open keeps those that hold at the time asked for, Unreviewed those that
	// wait for their review then.
	Open       bool `json:"open,omitempty"`
	Unreviewed bool `json:"unreviewed,omitempty"`
	// Limit is how many to return; 0 means 1000, at most 100,000.
	Limit int `json:"limit,omitempty"`
	When
}

// EmergencyList is what [EmergencyQuery] finds, in the order in which it was
// learned.
type EmergencyList struct {
	Emergencies []Emergency `json:"emergencies"`
	Truncated   bool        `json:"truncated,omitempty"`
}

// Emergency is one emergency with its review.
type Emergency struct {
	Fact
	// Review is the one that holds at the time asked for, absent as long as the
	// emergency waits for it.
	Review *Fact `json:"review,omitempty"`
}

func (h *Handler) emergencies(ctx context.Context, who Who, in *EmergencyQuery) (EmergencyList, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "hierarchy.read"); err != nil {
		return EmergencyList{}, err
	}
	view, err := h.view(in.When)
	if err != nil {
		return EmergencyList{}, err
	}
	var principal hierarchy.ID
	var persons []hierarchy.ID
	if in.Principal != "" {
		if principal, err = h.PDP.PrincipalID(in.Principal); err != nil {
			return EmergencyList{}, bad(err.Error())
		}
	}
	if in.Person != "" {
		if persons, err = personOf(view, in.Person); err != nil {
			return EmergencyList{}, err
		}
	}
	reviews, err := liveReviews(ctx, view)
	if err != nil {
		return EmergencyList{}, err
	}
	limit := bounded(in.Limit, 1000, 100_000)
	out := EmergencyList{Emergencies: []Emergency{}}
	n := 0
	for f := range view.Facts(hierarchy.KindEmergency) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return EmergencyList{}, ctx.Err()
		}
		e := f.Event.Emergency
		review, reviewed := reviews[e.ID]
		if in.ID != "" && e.ID != in.ID || persons != nil && !slices.Contains(persons, e.Person) ||
			!principal.IsZero() && e.Principal != principal ||
			in.Open && !f.Valid.Holds(view.Instant()) || in.Unreviewed && !unreviewed(view, f, reviewed) {
			continue
		}
		if len(out.Emergencies) == limit {
			out.Truncated = true
			break
		}
		found := Emergency{Fact: factOf(view, f)}
		if reviewed {
			r := factOf(view, review)
			found.Review = &r
		}
		out.Emergencies = append(out.Emergencies, found)
	}
	return out, nil
}

// liveReviews returns the reviews that hold, by the id of their emergency.
func liveReviews(ctx context.Context, view hierarchy.View) (map[string]hierarchy.Fact, error) {
	out := map[string]hierarchy.Fact{}
	n := 0
	for f := range view.Facts(hierarchy.KindReview) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if f.Valid.Holds(view.Instant()) {
			out[f.Event.Review.Emergency] = f
		}
	}
	return out, nil
}

// unreviewed reports whether an emergency has begun and waits for its review.
func unreviewed(view hierarchy.View, f hierarchy.Fact, reviewed bool) bool {
	return f.Valid.From <= view.Instant() && !reviewed
}

// personOf returns the identities that are merged with a person.
func personOf(view hierarchy.View, s string) ([]hierarchy.ID, error) {
	id, err := hierarchy.ParseID(s)
	if err != nil {
		return nil, bad(err.Error())
	}
	if id.Type != hierarchy.PersonType {
		return nil, bad("a person's id is Person:key")
	}
	return view.Merged(id), nil
}

// Waiting counts what waits for somebody.
type Waiting struct {
	OpenEmergencies       int `json:"openEmergencies"`
	UnreviewedEmergencies int `json:"unreviewedEmergencies"`
	// RequestedGrants lack a signature; EndingGrants are live and end within
	// seven days.
	RequestedGrants int `json:"requestedGrants"`
	EndingGrants    int `json:"endingGrants"`
}

// endsSoon is how far ahead a grant's end is counted as near, in milliseconds.
const endsSoon = hierarchy.Instant(7 * 24 * time.Hour / time.Millisecond)

func waiting(ctx context.Context, view hierarchy.View) (*Waiting, error) {
	out := &Waiting{}
	now := view.Instant()
	reviews, err := liveReviews(ctx, view)
	if err != nil {
		return nil, err
	}
	for f := range view.Facts(hierarchy.KindEmergency) {
		if f.Valid.Holds(now) {
			out.OpenEmergencies++
		}
		if _, ok := reviews[f.Event.Emergency.ID]; unreviewed(view, f, ok) {
			out.UnreviewedEmergencies++
		}
	}
	n := 0
	for f := range view.Facts(hierarchy.KindGrant) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if g, ok := view.Grant(f.Event.Grant.ID); ok {
			switch g.State(now) {
			case hierarchy.GrantRequested:
				out.RequestedGrants++
			case hierarchy.GrantActive:
				if g.Effective.To <= now+endsSoon {
					out.EndingGrants++
				}
			}
		}
	}
	return out, nil
}
