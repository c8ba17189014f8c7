package pdp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Setup is what a new installation begins with.
type Setup struct {
	// Operator is the organisation that runs the platform, as a node key.
	Operator string
	// Set is the first policy set.
	Set *policies.Set
	// Admins maps names to user ids of this machine; each becomes a
	// security-admin of the operator.
	Admins map[string]int
	// Officers do too; each becomes a records-officer, who destroys keys. Nobody
	// else can make one: an admin who is both appoints the next.
	Officers map[string]int
}

// ErrNotEmpty: the store already holds revisions.
var ErrNotEmpty = errors.New("pdp: the store is not empty")

// Initialise writes the first revision: the operator, the network of shared
// nodes, the roles of the built-in set and of the pack, the first admins and
// the activation of the policy set. It is the one change that no policy
// decides, and works only on an empty store.
func Initialise(ctx context.Context, c Config, s Setup) (*PDP, error) {
	p, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	if p.graph.Tip().Revision != 0 {
		return nil, ErrNotEmpty
	}
	if len(s.Admins) == 0 {
		return nil, errors.New("pdp: at least one admin is required, or nobody could ever change anything")
	}
	if err := s.Set.Check(); err != nil {
		return nil, err
	}
	failures, err := RunTests(s.Set)
	if err != nil {
		return nil, err
	}
	if len(failures) > 0 {
		return nil, &TestsFailed{failures}
	}
	operator := hierarchy.ID{Type: hierarchy.OperatorType, Key: s.Operator}
	network := hierarchy.ID{Type: hierarchy.NetworkType, Key: "network"}
	if err := operator.Valid(); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	digest, err := p.store.PutBlob(ctx, s.Set.Archive())
	if err != nil {
		return nil, err
	}
	always := hierarchy.Always
	assert := func(k hierarchy.Kind) hierarchy.Event {
		return hierarchy.Event{Op: hierarchy.Assert, Kind: k, Valid: always}
	}
	node := func(id hierarchy.ID, principal bool) hierarchy.Event {
		e := assert(hierarchy.KindNode)
		e.Node = &hierarchy.Node{ID: id, Principal: principal}
		return e
	}
	events := []hierarchy.Event{node(operator, false), node(network, false)}
	for _, r := range s.Set.Catalogue().Roles {
		events = append(events, roleEvent(r))
	}
	people := maps.Clone(s.Admins)
	for name, uid := range s.Officers {
		if n, both := people[name]; both && n != uid {
			return nil, errors.New("pdp: one name is given two user ids")
		}
		people[name] = uid
	}
	for _, name := range slices.Sorted(maps.Keys(people)) {
		id := hierarchy.ID{Type: "Admin", Key: name}
		link := assert(hierarchy.KindLink)
		link.Link = &hierarchy.Link{Kind: hierarchy.LinkIdentity, Issuer: UnixIssuer, Sub: strconv.Itoa(people[name]), To: id}
		events = append(events, node(id, true), link)
		hold := func(who map[string]int, role string) {
			if _, holds := who[name]; holds {
				e := assert(hierarchy.KindAssignment)
				e.Assignment = &hierarchy.Assignment{Principal: id, Role: role, Node: operator}
				events = append(events, e)
			}
		}
		hold(s.Admins, "security-admin")
		hold(s.Officers, "records-officer")
	}
	activation := assert(hierarchy.KindActivation)
	activation.Activation = &hierarchy.Activation{Digest: digest, Name: s.Set.Name()}
	events = append(events, activation)

	now, err := p.clock.now()
	if err != nil {
		return nil, err
	}
	p.changing.Lock()
	defer p.changing.Unlock()
	rec := recording{kind: audit.Change, world: world{set: s.Set, graph: p.graph, now: now}}
	_, err = p.commit(ctx, &rec, &hierarchy.Batch{Time: now, Events: events,
		Provenance: hierarchy.Provenance{Who: operator, Right: "init", Why: "ward init"}})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func roleEvent(r policies.Role) hierarchy.Event {
	return hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindRole, Valid: hierarchy.Always,
		Role: &hierarchy.Role{Name: r.Name, Capabilities: r.Capabilities, Includes: r.Includes}}
}

// TestsFailed is the error of an activation whose set fails its own tests.
type TestsFailed struct{ Failures []TestFailure }

func (e *TestsFailed) Error() string {
	return fmt.Sprintf("policy_tests_failed: %d policy tests failed, the first: %s", len(e.Failures), e.Failures[0])
}

// Activate puts a policy set in force: it runs the set's tests, stores the set
// under its digest, and makes the activation, with the pack's roles where they
// differ, one change.
func (p *PDP) Activate(ctx context.Context, c Change, set *policies.Set) (Changed, error) {
	if err := set.Check(); err != nil {
		return Changed{}, err
	}
	failures, err := RunTests(set)
	if err != nil {
		return Changed{}, err
	}
	if len(failures) > 0 {
		return Changed{}, &TestsFailed{failures}
	}
	known := map[string]hierarchy.Fact{}
	for f := range p.View(0, 0).Facts(hierarchy.KindRole) {
		known[f.Event.Role.Name] = f
	}
	for _, r := range set.Catalogue().Roles {
		old, ok := known[r.Name]
		e := roleEvent(r)
		if ok && sameRole(*old.Event.Role, *e.Role) {
			continue
		}
		if ok {
			c.Events = append(c.Events, hierarchy.Event{Op: hierarchy.Void, Kind: hierarchy.KindRole, Fact: old.ID})
		}
		c.Events = append(c.Events, e)
	}
	c.activating = set
	c.prepare = func(ctx context.Context, cur *pair) error { return p.prepareSet(ctx, set, cur.overlays) }
	c.Events = append(c.Events, hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindActivation, Valid: hierarchy.Always,
		Activation: &hierarchy.Activation{Digest: set.Digest(), Name: set.Name()}})
	return p.Change(ctx, c)
}

// prepareSet stores a set, and compiles every overlay in force against it: it
// refuses a set that one of them does not fit.
func (p *PDP) prepareSet(ctx context.Context, set *policies.Set, overlays map[string]*policies.Overlay) error {
	if err := p.storeArchive(ctx, set.Archive()); err != nil {
		return err
	}
	stored, err := p.sets.get(ctx, set.Digest())
	if err != nil {
		return unreadable(err)
	}
	var unfit []string
	for tenant, o := range overlays {
		moved, err := p.sets.overlay(ctx, stored, tenant, o.Digest())
		switch {
		case errors.Is(err, errUnfit), err == nil && moved.Check() != nil:
			unfit = append(unfit, tenant)
		case err != nil:
			return unreadable(err)
		}
	}
	if len(unfit) > 0 {
		return overlayInvalid("the policy set does not fit the overlays of these tenants: " + strings.Join(unique(unfit), ", "))
	}
	return nil
}

func overlayInvalid(text string) *hierarchy.Refusal {
	return &hierarchy.Refusal{Code: "overlay_invalid", Index: -1, Text: text}
}

func (p *PDP) storeArchive(ctx context.Context, archive []byte) error {
	if _, err := p.store.PutBlob(ctx, archive); err != nil {
		return &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the policies could not be stored", Err: err}
	}
	return nil
}

func unreadable(err error) error {
	return &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the policies could not be read back", Err: err}
}

// ActivateOverlay puts a tenant's overlay in force, in place of the one it had:
// it compiles the files against the set in force, stores them under their
// digest, and makes the activation one change. The error is a
// *[policies.Diagnostics] when there are findings.
func (p *PDP) ActivateOverlay(ctx context.Context, c Change, tenant string, files map[string][]byte) (Changed, *policies.Overlay, error) {
	set := p.Set()
	if set == nil {
		return Changed{}, nil, noSet
	}
	o, err := policies.CompileOverlay(set, tenant, files)
	if err != nil {
		return Changed{}, nil, err
	}
	c.prepare = func(ctx context.Context, cur *pair) error { return p.prepareOverlay(ctx, o, cur) }
	done, err := p.changeOverlay(ctx, c, hierarchy.Activation{Digest: o.Digest(), Tenant: tenant})
	return done, o, err
}

// prepareOverlay stores an overlay, and compiles it against the set that is in
// force by now.
func (p *PDP) prepareOverlay(ctx context.Context, o *policies.Overlay, cur *pair) error {
	if err := p.storeArchive(ctx, o.Archive()); err != nil {
		return err
	}
	now, err := p.sets.overlay(ctx, cur.set, o.Tenant(), o.Digest())
	switch {
	case errors.Is(err, errUnfit), err == nil && now.Check() != nil:
		return overlayInvalid("another policy set came into force, and the overlay of tenant " + o.Tenant() + " does not fit it")
	case err != nil:
		return unreadable(err)
	}
	return nil
}

// RemoveOverlay takes a tenant's overlay out of force.
func (p *PDP) RemoveOverlay(ctx context.Context, c Change, tenant string) (Changed, error) {
	c.prepare = func(_ context.Context, cur *pair) error {
		if cur.overlays[tenant] == nil {
			return &hierarchy.Refusal{Code: "overlay_unknown", Index: -1, Text: "no overlay is in force for this tenant"}
		}
		return nil
	}
	return p.changeOverlay(ctx, c, hierarchy.Activation{Tenant: tenant})
}

func (p *PDP) changeOverlay(ctx context.Context, c Change, a hierarchy.Activation) (Changed, error) {
	c.Events = append(c.Events, hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindActivation, Valid: hierarchy.Always, Activation: &a})
	return p.Change(ctx, c)
}

// Overlay returns the overlay that is in force for a tenant, or nil.
func (p *PDP) Overlay(tenant string) *policies.Overlay { return p.current.Load().overlays[tenant] }

func sameRole(a, b hierarchy.Role) bool {
	for _, s := range []*[]string{&a.Capabilities, &a.Includes, &b.Capabilities, &b.Includes} {
		*s = append([]string{}, *s...)
		slices.Sort(*s)
	}
	return reflect.DeepEqual(a, b)
}
