package admin

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/ward-authz/ward/hierarchy"
)

// SettingsQuery asks what tenants may choose, and what they have chosen.
type SettingsQuery struct {
	// Tenant is a tenant key; empty means all tenants.
	Tenant string `json:"tenant,omitempty"`
	// Live leaves out choices that do not hold at the time asked for.
	Live bool `json:"live,omitempty"`
	When
}

// Settings lists every setting of the policy set in force, by name.
type Settings struct {
	Settings []Setting `json:"settings"`
}

// Setting is one setting of the policy set, with what tenants have chosen.
type Setting struct {
	Name  string `json:"name"`
	Title string `json:"title,omitempty"`
	Type  string `json:"type"` // "Bool", "Long" or "String"
	// Default is what holds where a tenant has not chosen.
	Default any `json:"default"`
	// Range says in words what it takes; Min and Max bound a Long, and Values
	// lists what a String may be.
	Range  string   `json:"range"`
	Min    *int64   `json:"min,omitempty"`
	Max    *int64   `json:"max,omitempty"`
	Values []string `json:"values,omitempty"`
	// Chosen are the tenants' choices, in the order in which they were learned.
	Chosen []Choice `json:"chosen"`
}

// Choice is what a tenant has set, with where that came from.
type Choice struct {
	Tenant string `json:"tenant"`
	Set    any    `json:"set"`
	Fact
	Origin
}

// Origin says who made a change, when and why.
type Origin struct {
	Made   Time   `json:"made"`
	Who    string `json:"who"`
	Why    string `json:"why,omitempty"`
	Ticket string `json:"ticket,omitempty"`
}

// origin returns where a revision came from.
func (h *Handler) origin(revision uint64) Origin {
	b, _ := h.PDP.Graph().Batch(revision)
	return Origin{Made: TimeOf(b.Time), Who: b.Provenance.Who.String(), Why: b.Provenance.Why, Ticket: b.Provenance.Ticket}
}

func (h *Handler) settings(ctx context.Context, who Who, in *SettingsQuery) (Settings, error) {
	var tenant hierarchy.ID
	var err error
	if in.Tenant == "" {
		err = h.PDP.Permit(ctx, who.Actor, who.Caller, "hierarchy.read")
	} else if tenant = hierarchy.TenantID(in.Tenant); tenant.Valid() != nil {
		err = bad("a tenant's key is one, such as acme")
	} else {
		err = h.PDP.PermitAt(ctx, who.Actor, who.Caller, "hierarchy.read", in.Tenant)
	}
	if err != nil {
		return Settings{}, err
	}
	view, err := h.view(in.When)
	if err != nil {
		return Settings{}, err
	}
	if !tenant.IsZero() && !view.Known(tenant) {
		return Settings{}, &Error{Status: http.StatusNotFound, Code: hierarchy.CodeUnknownTenant, Message: "there is no such tenant"}
	}
	set := h.PDP.Set()
	if set == nil {
		return Settings{}, h.PDP.Ready()
	}
	out := Settings{Settings: []Setting{}}
	place := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(set.Catalogue().Settings)) {
		s := set.Catalogue().Settings[name]
		place[name] = len(out.Settings)
		out.Settings = append(out.Settings, Setting{Name: name, Title: s.Title, Type: s.Type, Default: s.Default, Range: s.Range(),
			Min: s.Min, Max: s.Max, Values: s.Values, Chosen: []Choice{}})
	}
	n := 0
	for f := range view.Facts(hierarchy.KindSetting) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return Settings{}, ctx.Err()
		}
		s := f.Event.Setting
		i, ok := place[s.Name] // a setting of an older set counts for nothing
		if !ok || !tenant.IsZero() && s.Tenant != tenant || in.Live && !f.Valid.Holds(view.Instant()) {
			continue
		}
		out.Settings[i].Chosen = append(out.Settings[i].Chosen, Choice{s.Tenant.String(), s.Value, factOf(view, f), h.origin(f.ID.Revision)})
	}
	return out, nil
}
