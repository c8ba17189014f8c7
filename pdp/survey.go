package pdp

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/policies"
)

// Survey is what facts and policies show of how an installation is doing. It
// names roles, capabilities, callers and imports, and nobody.
type Survey struct {
	// At is the instant of the survey, Written the latest that the store holds.
	At       hierarchy.Instant
	Written  hierarchy.Instant
	Revision uint64
	// Set is the digest of the set in force, or empty.
	Set string
	// Overlays is how many tenants have an overlay in force.
	Overlays int
	// Authorities are the callers that the catalogue names, sorted.
	Authorities []string
	// Zones are the time zones that the catalogue names, sorted.
	Zones []string
	// Unknown lists, by role and capability, what live roles hold and nothing in
	// the catalogue asks for.
	Unknown []UnknownCapability
	// Ending is how many live grants end within [SurveyHorizon].
	Ending int
	// Imports are the ids of those that are open.
	Imports []string
}

// UnknownCapability is a capability that a role holds for nothing.
type UnknownCapability struct {
	Role, Capability string
	// Assigned is how many live assignments of the role there are.
	Assigned int
}

// SurveyHorizon is how far ahead a [Survey] looks for grants that end.
const SurveyHorizon = 7 * 24 * time.Hour

// Survey looks over the facts and policies of now. It records nothing.
func (p *PDP) Survey() (Survey, error) {
	now, err := p.clock.now()
	if err != nil {
		return Survey{}, err
	}
	cur := p.current.Load()
	return survey(p.graph, cur.head.Revision, cur.set, len(cur.overlays), now), nil
}

// Survey looks over the facts and policies of the store at an instant.
func (r *Replayer) Survey(ctx context.Context, at hierarchy.Instant) (Survey, error) {
	head := r.graph.Head()
	set, overlays, err := r.sets.inForce(ctx, r.graph, head.Revision)
	if err != nil {
		return Survey{}, &IntegrityError{Text: "the policies in force cannot be read", Err: err}
	}
	return survey(r.graph, head.Revision, set, len(overlays), at), nil
}

func survey(g *hierarchy.Graph, revision uint64, set *policies.Set, overlays int, now hierarchy.Instant) Survey {
	s := Survey{At: now, Written: g.LastTime(), Revision: revision, Overlays: overlays}
	for _, m := range g.Imports() {
		s.Imports = append(s.Imports, m.ID)
	}
	if set == nil {
		return s
	}
	s.Set = set.Digest()
	cat := set.Catalogue()
	s.Authorities = authorities(cat)
	for _, l := range cat.Law {
		s.Zones = append(s.Zones, l.Zone)
	}
	for _, r := range cat.Resources {
		if r.Zone != "" {
			s.Zones = append(s.Zones, r.Zone)
		}
	}
	s.Zones = unique(s.Zones)

	view := g.At(now, revision, hierarchy.EdgeKinds{})
	unknown := map[string]int{} // index of a role's first entry
	for f := range view.Facts(hierarchy.KindRole) {
		r := f.Event.Role
		if !f.Valid.Holds(now) {
			continue
		}
		for _, c := range r.Capabilities {
			if checkCapabilities(cat, []string{c}) != nil {
				s.Unknown = append(s.Unknown, UnknownCapability{Role: r.Name, Capability: c})
				unknown[r.Name] = 0
			}
		}
	}
	if len(unknown) > 0 {
		for f := range view.Facts(hierarchy.KindAssignment) {
			if _, is := unknown[f.Event.Assignment.Role]; is && f.Valid.Holds(now) {
				unknown[f.Event.Assignment.Role]++
			}
		}
		for i := range s.Unknown {
			s.Unknown[i].Assigned = unknown[s.Unknown[i].Role]
		}
	}
	by := now + hierarchy.Instant(SurveyHorizon.Milliseconds())
	for f := range view.Facts(hierarchy.KindGrant) {
		if gr, ok := view.Grant(f.Event.Grant.ID); ok && gr.Fact == f.ID && gr.Effective.Holds(now) && gr.Effective.To <= by {
			s.Ending++
		}
	}
	return s
}

// authorities returns the callers that a catalogue names anywhere.
func authorities(cat *policies.Catalogue) []string {
	var out []string
	attributes := func(attrs map[string]*policies.Attribute) {
		for _, a := range attrs {
			out = append(out, a.Authority...)
		}
	}
	for _, p := range cat.Principals {
		attributes(p.Attributes)
	}
	for _, r := range cat.Resources {
		out = append(out, r.Authority...)
		attributes(r.Attributes)
	}
	for _, a := range cat.Actions {
		attributes(a.Properties)
		attributes(a.Context)
	}
	attributes(cat.Context)
	return unique(out)
}

// ErrUnfinished: a crash cut a change off between its record and the store. The
// next start closes it.
var ErrUnfinished = errors.New("pdp: the last change on record never reached the store")

// Agree compares the store with the ledger as [Open] does, and changes nothing:
// nil when their heads agree, [ErrUnfinished] when the next start has a change to
// close, [ErrDisagree] when it would refuse. It returns the time of the last
// record. From gives the ledger's records from a sequence number on.
func (r *Replayer) Agree(from func(seq uint64) iter.Seq2[audit.Entry, error]) (hierarchy.Instant, error) {
	a, err := agree(r.graph, from)
	if err == nil && a.open != nil {
		err = ErrUnfinished
	}
	return a.last, err
}
