package pdp

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

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
	names := map[string]bool{}
	for n := range s.Admins {
		names[n] = true
	}
	for _, name := range sorted(names) {
		id := hierarchy.ID{Type: "Admin", Key: name}
		link := assert(hierarchy.KindLink)
		link.Link = &hierarchy.Link{Kind: hierarchy.LinkIdentity, Issuer: UnixIssuer, Sub: strconv.Itoa(s.Admins[name]), To: id}
		assignment := assert(hierarchy.KindAssignment)
		assignment.Assignment = &hierarchy.Assignment{Principal: id, Role: "security-admin", Node: operator}
		events = append(events, node(id, true), link, assignment)
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
	digest, err := p.store.PutBlob(ctx, set.Archive())
	if err != nil {
		return Changed{}, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the policy set could not be stored", Err: err}
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
	if _, err := p.sets.get(ctx, digest); err != nil {
		return Changed{}, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the policy set could not be read back", Err: err}
	}
	c.activating = set
	c.Events = append(c.Events, hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindActivation, Valid: hierarchy.Always,
		Activation: &hierarchy.Activation{Digest: digest, Name: set.Name()}})
	return p.Change(ctx, c)
}

func sameRole(a, b hierarchy.Role) bool {
	for _, s := range []*[]string{&a.Capabilities, &a.Includes, &b.Capabilities, &b.Includes} {
		*s = append([]string{}, *s...)
		slices.Sort(*s)
	}
	return reflect.DeepEqual(a, b)
}
