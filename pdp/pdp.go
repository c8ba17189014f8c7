package pdp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Config is what a decision point is built from.
type Config struct {
	// Store holds the facts and the policy sets. Required.
	Store hierarchy.Store
	// Ledger makes records durable. Required: nothing decides without one.
	Ledger *audit.Ledger
	// Keys hash identifiers and seal records. Required, the ledger's own.
	Keys *audit.Keys
	// Clock is time.Now when nil. Demonstrations and tests set it.
	Clock func() time.Time
}

// PDP decides. All methods may be called from several goroutines.
type PDP struct {
	store  hierarchy.Store
	ledger *audit.Ledger
	keys   *audit.Keys
	graph  *hierarchy.Graph
	clock  *clock
	sets   setCache

	current atomic.Pointer[pair]
	failed  atomic.Pointer[authz.Error] // why nothing can be decided any more
	flights flights

	refusals refusals
	outcomes outcomes
	rates    rates

	changing sync.Mutex // one change at a time
}

// pair is what decisions are made from: a policy set, with the tenants'
// overlays, and a revision of the facts.
type pair struct {
	set      *policies.Set
	overlays map[string]*policies.Overlay // by tenant
	confers  hierarchy.EdgeKinds
	head     hierarchy.Head
}

// Open builds a decision point over a store and a ledger that belong together:
// it reads every revision, checks the hash chain, and closes a change that a
// crash cut off between its record and the store. A store and a ledger that
// disagree in any other way are refused.
//
// A store without a policy activation opens, and every decision is an outage
// with the code not_ready until one is made.
func Open(ctx context.Context, c Config) (*PDP, error) {
	if c.Store == nil || c.Ledger == nil || c.Keys == nil {
		return nil, errors.New("pdp: a store, a ledger and its keys are required: nothing decides without a record")
	}
	graph, err := hierarchy.Load(ctx, c.Store)
	if err != nil {
		return nil, err
	}
	p := &PDP{store: c.Store, ledger: c.Ledger, keys: c.Keys, graph: graph, clock: newClock(c.Clock), sets: setCache{store: c.Store}}
	p.outcomes.start = c.Ledger.Size()
	if err := p.reconcile(); err != nil {
		return nil, err
	}
	p.clock.notBefore(p.lastWritten())
	if err := p.publish(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// lastWritten returns the latest time that the ledger or the store holds.
func (p *PDP) lastWritten() hierarchy.Instant {
	last := p.graph.LastTime()
	if n := p.ledger.Size(); n > 0 {
		if e, err := p.ledger.Entry(n - 1); err == nil {
			last = max(last, hierarchy.Instant(e.Time))
		}
	}
	return last
}

// publish makes the graph's head, with the set and the overlays that it
// activates, the pair that decisions are made from.
func (p *PDP) publish(ctx context.Context) error {
	next := &pair{head: p.graph.Head()}
	var err error
	if next.set, next.overlays, err = p.sets.inForce(ctx, p.graph, next.head.Revision); err != nil {
		return err
	}
	if next.set != nil {
		next.confers = confers(p.graph, next.set)
	}
	p.current.Store(next)
	return nil
}

// confers returns the edge kinds that a set makes confer access.
func confers(g *hierarchy.Graph, set *policies.Set) hierarchy.EdgeKinds {
	var names []string
	for name, e := range set.Catalogue().Edges {
		if e.Confers {
			names = append(names, name)
		}
	}
	return g.EdgeKinds(names...)
}

// Graph returns the facts, for reading.
func (p *PDP) Graph() *hierarchy.Graph { return p.graph }

// Set returns the policy set in force, or nil.
func (p *PDP) Set() *policies.Set { return p.current.Load().set }

// View returns the facts at an instant as known at a revision (0: the head),
// seen through the set in force.
func (p *PDP) View(at hierarchy.Instant, revision uint64) hierarchy.View {
	cur := p.current.Load()
	if revision == 0 {
		revision = cur.head.Revision
	}
	return p.graph.At(at, revision, cur.confers)
}

// Now reads the decision point's clock.
func (p *PDP) Now() (hierarchy.Instant, error) { return p.clock.now() }

// Ready reports why nothing can be decided, or nil.
func (p *PDP) Ready() error {
	if err := p.healthy(); err != nil {
		return err
	}
	if p.current.Load().set == nil {
		return noSet
	}
	return nil
}

var noSet = &authz.Error{Kind: authz.Outage, Code: authz.NotReady, Text: "no policy set is active: run ward policy activate"}

func (p *PDP) healthy() error {
	if f := p.failed.Load(); f != nil {
		return f
	}
	if err := p.ledger.Err(); err != nil {
		return &authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed, Text: "the ledger has failed: restart after its disk is right", Err: err}
	}
	return nil
}

// fail stops all decisions until restart.
func (p *PDP) fail(e *authz.Error) *authz.Error {
	p.failed.CompareAndSwap(nil, e)
	return p.failed.Load()
}

// Decide implements [authz.Decider].
func (p *PDP) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	ds, err := p.DecideAll(ctx, []authz.Request{r}, authz.ExecuteAll)
	if err != nil {
		return authz.Decision{}, err
	}
	return ds[0], nil
}

// MaxBatch is how many requests one batch may hold.
const MaxBatch = 1000

// DecideAll implements [authz.BatchDecider]: every item under one policy set,
// one revision and one reading of the clock, recorded under one id.
func (p *PDP) DecideAll(ctx context.Context, rs []authz.Request, stop authz.Stop) ([]authz.Decision, error) {
	if len(rs) == 0 {
		return nil, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "an empty batch asks nothing"}
	}
	if len(rs) > MaxBatch {
		return nil, &authz.Error{Kind: authz.Refused, Code: authz.TooLarge, Text: fmt.Sprintf("a batch holds at most %d requests", MaxBatch)}
	}
	if err := p.rates.take(rs[0].Caller, len(rs)); err != nil {
		return nil, err
	}
	delivery := authz.DeliveryFrom(ctx)
	own := delivery == nil
	if own {
		_, delivery = authz.Deliver(ctx)
		defer delivery.Done()
	}
	cur := p.flights.take(&p.current, delivery)
	w, err := p.world(cur)
	if err != nil {
		return nil, err
	}
	batch := recording{kind: audit.Decision, world: w, head: cur.head}
	out := make([]authz.Decision, 0, len(rs))
	for i := range rs {
		a := convert(&rs[i], w.set.Catalogue())
		j := w.judge(&a)
		batch.items = append(batch.items, item{&a, j})
		d := authz.Decision{Verdict: j.verdict}
		out = append(out, d)
		// What ends a batch is the answer that the caller's door will render.
		if allowed := authz.Enforce(d, rs[i].Caller).Allowed(); stop == authz.FirstDeny && !allowed || stop == authz.FirstPermit && allowed {
			break
		}
	}
	seq, err := p.append(ctx, &batch)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Receipt = authz.Receipt{Record: audit.ID(seq), Revision: cur.head.Revision}
	}
	if own && !delivery.Leave() {
		return nil, &authz.Error{Kind: authz.Outage, Code: authz.Superseded, Text: "a change overtook the answer: ask again"}
	}
	return out, nil
}

// world returns what to judge from, with one reading of the clock.
func (p *PDP) world(cur *pair) (world, error) {
	if err := p.healthy(); err != nil {
		return world{}, err
	}
	if cur.set == nil {
		return world{}, noSet
	}
	now, err := p.clock.now()
	if err != nil {
		return world{}, err
	}
	return world{set: cur.set, overlays: cur.overlays, graph: p.graph, confers: cur.confers, rev: cur.head.Revision, now: now}, nil
}

// append makes a recording durable and returns its sequence number.
func (p *PDP) append(ctx context.Context, r *recording) (uint64, error) {
	seq, err := r.write(ctx, p.ledger, p.keys)
	if err != nil {
		return 0, unrecorded(err)
	}
	if r.kind == audit.Decision {
		p.outcomes.remember(seq, r.world.now, r.items[0].asked.Caller)
	}
	return seq, nil
}

// unrecorded says why a record was not made durable.
func unrecorded(err error) *authz.Error {
	switch {
	case errors.Is(err, audit.ErrTooLarge):
		return &authz.Error{Kind: authz.Refused, Code: authz.TooLarge, Text: "the record of this request would be too large", Err: err}
	case errors.Is(err, audit.ErrBusy):
		return &authz.Error{Kind: authz.Outage, Code: authz.Busy, Text: "too many requests wait for the ledger: try again", Err: err}
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return &authz.Error{Kind: authz.Outage, Code: authz.Busy, Text: "the caller did not wait for the record", Err: err}
	}
	return &authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed, Text: "the record could not be made durable", Err: err}
}

// setCache keeps compiled policy sets by digest, and overlays with the set that
// they were compiled against.
type setCache struct {
	store blobs
	mu    sync.Mutex
	sets  map[string]*cachedSet
}

// blobs is where archives come from: a store, or a case.
type blobs interface {
	GetBlob(ctx context.Context, digest string) ([]byte, error)
}

type cachedSet struct {
	set      *policies.Set
	overlays map[overlayKey]*policies.Overlay
}

type overlayKey struct{ tenant, digest string }

// maxSets and, for each of them, maxOverlays bound the cache; a replay over
// many recompiles beyond them.
const (
	maxSets     = 64
	maxOverlays = 1 << 16
)

// inForce returns the policy set that is in force at a revision, or nil, and
// the overlays over it.
func (c *setCache) inForce(ctx context.Context, g *hierarchy.Graph, revision uint64) (*policies.Set, map[string]*policies.Overlay, error) {
	view := g.At(0, revision, hierarchy.EdgeKinds{})
	act, _, ok := view.Activation("")
	if !ok {
		return nil, nil, nil
	}
	set, err := c.get(ctx, act.Digest)
	if err != nil {
		return nil, nil, err
	}
	overlays := map[string]*policies.Overlay{}
	for tenant, act := range view.Overlays() {
		if overlays[tenant], err = c.overlay(ctx, set, tenant, act.Digest); err != nil {
			return nil, nil, err
		}
	}
	return set, overlays, nil
}

func (c *setCache) get(ctx context.Context, digest string) (*policies.Set, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sets[digest]; s != nil {
		return s.set, nil
	}
	archive, err := c.store.GetBlob(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("policy set %s: %w", short(digest), err)
	}
	var s *policies.Set
	if err = matches(archive, digest); err == nil {
		s, err = policies.Open(archive)
	}
	if err != nil {
		return nil, fmt.Errorf("policy set %s: %w", short(digest), err)
	}
	return c.keep(s).set, nil
}

// keep returns the entry of a set, and makes one.
func (c *setCache) keep(s *policies.Set) *cachedSet {
	if in := c.sets[s.Digest()]; in != nil {
		return in
	}
	if c.sets == nil || len(c.sets) >= maxSets {
		c.sets = map[string]*cachedSet{}
	}
	in := &cachedSet{s, map[overlayKey]*policies.Overlay{}}
	c.sets[s.Digest()] = in
	return in
}

// overlay returns a tenant's overlay over a set. Its error says nothing of the
// policies' text.
func (c *setCache) overlay(ctx context.Context, set *policies.Set, tenant, digest string) (*policies.Overlay, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in, key := c.keep(set), overlayKey{tenant, digest}
	if o := in.overlays[key]; o != nil {
		return o, nil
	}
	archive, err := c.store.GetBlob(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("overlay %s of tenant %s: %w", short(digest), tenant, err)
	}
	var o *policies.Overlay
	if err = matches(archive, digest); err == nil {
		if o, err = policies.OpenOverlay(in.set, tenant, archive); err != nil {
			err = errUnfit
		}
	}
	if err != nil {
		return nil, fmt.Errorf("overlay %s of tenant %s: %w", short(digest), tenant, err)
	}
	if len(in.overlays) >= maxOverlays {
		clear(in.overlays)
	}
	in.overlays[key] = o
	return o, nil
}

// matches reports whether an archive is the one of a digest.
func matches(archive []byte, digest string) error {
	if "sha256:"+digestOf(archive) != digest {
		return hierarchy.ErrCorrupt
	}
	return nil
}

var errUnfit = errors.New("it does not compile against the policy set")

// short cuts a digest for people.
func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19]
	}
	return digest
}

// flights follows answers until they have left their doors, so that a change
// can wait for those that were computed before it.
type flights struct {
	mu  sync.Mutex
	all map[*flight]struct{}
}

type flight struct {
	revision uint64
	delivery *authz.Delivery
	left     chan struct{}
}

// take loads the current pair and registers the answer that will come from it,
// in one step: a change that publishes a later pair finds it.
func (f *flights) take(current *atomic.Pointer[pair], d *authz.Delivery) *pair {
	fl := &flight{delivery: d, left: make(chan struct{})}
	f.mu.Lock()
	cur := current.Load()
	fl.revision = cur.head.Revision
	if f.all == nil {
		f.all = map[*flight]struct{}{}
	}
	f.all[fl] = struct{}{}
	f.mu.Unlock()
	d.OnDone(func() {
		f.mu.Lock()
		delete(f.all, fl)
		f.mu.Unlock()
		close(fl.left)
	})
	return cur
}

// grace is how long a change lets answers leave before it turns those that
// have not begun to leave into outages.
const grace = 250 * time.Millisecond

// fence returns when no answer from before a revision can leave any more.
func (f *flights) fence(ctx context.Context, revision uint64) error {
	f.mu.Lock()
	var old []*flight
	for fl := range f.all {
		if fl.revision < revision {
			old = append(old, fl)
		}
	}
	f.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	late := false
	for _, fl := range old {
		for left := false; !left; {
			if late && fl.delivery.Expire() {
				break
			}
			wait := timer.C
			if late {
				wait = nil // it is being written: wait for the door
			}
			select {
			case <-fl.left:
				left = true
			case <-wait:
				late = true
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}
