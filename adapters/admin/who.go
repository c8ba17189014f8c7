package admin

import (
	"context"
	"net/http"

	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
)

// WhoMay asks who may do an action on a resource.
type WhoMay struct {
	Action   Action         `json:"action"`
	Resource Entity         `json:"resource"`
	Context  map[string]any `json:"context,omitempty"`
	// Area is the tenant, network or operator in which a feature or route is
	// asked about; they have no other place.
	Area string `json:"area,omitempty"`
	// Caller is the program that would ask; empty means an authority for the
	// resource's type.
	Caller string `json:"caller,omitempty"`
	// Assurance is the level that every subject would have.
	Assurance int `json:"assurance,omitempty"`
	// All also lists those who stand there and may not.
	All bool `json:"all,omitempty"`
	// Limit is how many principals to ask; 0 means 1000, at most 10,000.
	Limit int `json:"limit,omitempty"`
	When
}

// Whom lists who may, by id. Candidates stand at the resource by a role, a link
// or a grant; nobody else can be permitted. When fewer are asked than there are,
// Truncated is set.
type Whom struct {
	Principals []MayBe `json:"principals"`
	// Openers have an emergency open on the record, or may open one.
	Openers    []Opener `json:"openers,omitempty"`
	Candidates int      `json:"candidates"`
	Asked      int      `json:"asked"`
	Truncated  bool     `json:"truncated,omitempty"`
	// Records are the inquiries, one for each 1000 questions, and one about openers.
	Records  []string `json:"records"`
	At       Time     `json:"at"`
	Revision uint64   `json:"revision"`
	Set      string   `json:"set"`
}

// MayBe is one principal with its answer.
type MayBe struct {
	Principal string `json:"principal"` // its node, "User:dana"
	Answer
}

// Opener is somebody with an emergency open on the record, or who may open one.
type Opener struct {
	Principal string `json:"principal"`
	// State is "emergency open" or "may open an emergency".
	State     string   `json:"state"`
	Emergency string   `json:"emergency,omitempty"`
	Until     Time     `json:"until,omitzero"`
	Reasons   []string `json:"reasons,omitempty"` // the policies that let them
}

func (h *Handler) whoMay(ctx context.Context, who Who, in *WhoMay) (Whom, error) {
	at, rev, err := h.when(in.When)
	if err != nil {
		return Whom{}, err
	}
	limit := in.Limit
	if limit <= 0 {
		limit = pdp.MaxInquiry
	}
	got, err := h.PDP.Who(ctx, pdp.Inquiry{Actor: who.Actor, Caller: who.Caller, At: at, KnownAt: rev, Requests: []authz.Request{{
		Caller:   authz.Caller{Name: in.Caller},
		Subject:  authz.Subject{Assurance: in.Assurance},
		Action:   authz.Action{Name: in.Action.Name, Properties: in.Action.Properties},
		Resource: authz.Resource{Type: in.Resource.Type, ID: in.Resource.ID, Properties: in.Resource.Properties},
		Context:  in.Context, Area: in.Area}}}, limit)
	if err != nil {
		return Whom{}, err
	}
	if got.Unresolved != "" {
		e := &Error{Status: http.StatusUnprocessableEntity, Code: string(got.Unresolved), Message: "where this would be done does not resolve, so nobody can be asked",
			Hint: "give what the type needs: its anchors and attributes with --with NAME=VALUE"}
		if got.Unresolved == authz.AreaRequired || got.Unresolved == authz.UnknownArea {
			e.Message, e.Hint = "a feature or route is asked about in an area that exists", "such as --area Tenant:acme"
		}
		return Whom{}, e
	}
	out := Whom{Principals: []MayBe{}, Candidates: got.Candidates, Asked: len(got.Principals), Truncated: len(got.Principals) < got.Candidates,
		Records: got.Records, At: TimeOf(got.At), Revision: got.Revision, Set: got.Set}
	if out.Records == nil {
		out.Records = []string{}
	}
	for _, o := range got.Openers {
		opener := Opener{Principal: o.Principal.String(), State: "may open an emergency", Reasons: o.Reasons}
		if o.Emergency != "" {
			opener.State, opener.Emergency, opener.Until = "emergency open", o.Emergency, TimeOf(o.Until)
		}
		out.Openers = append(out.Openers, opener)
	}
	for i, v := range got.Verdicts {
		if bool(v.Effect) || in.All {
			out.Principals = append(out.Principals, MayBe{got.Principals[i].String(), answerOf(v)})
		}
	}
	return out, nil
}
