package admin

import (
	"net/http"

	"github.com/ward-authz/ward/pdp"
)

// Survey is what facts and policies show of how an installation is doing. It
// names nobody, and asking for it is not on record.
type Survey struct {
	At          Time                `json:"at"`
	Written     Time                `json:"written"`
	Revision    uint64              `json:"revision"`
	Set         string              `json:"set,omitempty"`
	Overlays    int                 `json:"overlays"`
	Authorities []string            `json:"authorities,omitempty"`
	Zones       []string            `json:"zones,omitempty"`
	Unknown     []UnknownCapability `json:"unknown,omitempty"`
	Ending      int                 `json:"ending"`
	Imports     []string            `json:"imports,omitempty"`
}

// UnknownCapability is a capability that a role holds and nothing asks for.
type UnknownCapability struct {
	Role       string `json:"role"`
	Capability string `json:"capability"`
	Assigned   int    `json:"assigned"`
}

// SurveyOf returns the wire form of a survey.
func SurveyOf(s pdp.Survey) Survey {
	out := Survey{At: TimeOf(s.At), Written: TimeOf(s.Written), Revision: s.Revision, Set: s.Set, Overlays: s.Overlays,
		Authorities: s.Authorities, Zones: s.Zones, Ending: s.Ending, Imports: s.Imports}
	for _, u := range s.Unknown {
		out.Unknown = append(out.Unknown, UnknownCapability(u))
	}
	return out
}

func (h *Handler) survey(*http.Request, Who) (any, error) {
	s, err := h.PDP.Survey()
	return SurveyOf(s), err
}
