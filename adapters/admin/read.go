package admin

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strings"

	"github.com/ward-authz/ward/adapters/witness"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Facts asks for facts of one kind.
type Facts struct {
	// Kind is "node", "edge", "link", "role", "assignment", "entitlement",
	// "grant", "signature", "block", "setting", "emergency", "review" or
	// "activation".
	Kind string `json:"kind"`
	// About, when set, is an id that the fact names anywhere; Tenant a tenant
	// key that one of its ids carries; Name a role, a module, a setting or the
	// id of a grant or emergency.
	About  string `json:"about,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	Name   string `json:"name,omitempty"`
	// Live leaves out what does not hold at the time asked for.
	Live bool `json:"live,omitempty"`
	// Limit is how many to return; 0 means 1000, at most 100,000.
	Limit int `json:"limit,omitempty"`
	When
}

// FactList is what [Facts] finds, in the order in which it was learned.
type FactList struct {
	Facts     []Fact `json:"facts"`
	Truncated bool   `json:"truncated,omitempty"`
}

// Fact is one fact with its times. A node hangs from its tenant by its key:
// that edge has the kind "tenant" and no fact of its own.
type Fact struct {
	Fact string `json:"fact,omitempty"`
	Kind string `json:"kind"`
	// State is "live", "ended", "future" or "voided"; of a grant that lacks a
	// signature "requested", of one that ended before its time "revoked".
	State string `json:"state"`
	// Valid is when it is true in the real world; Effective, of a grant, when
	// its whole chain is live and the subject is no adult yet.
	Valid     Interval  `json:"valid"`
	Effective *Interval `json:"effective,omitempty"`
	// Missing lists whose signatures a grant lacks, its own and those up its chain.
	Missing []hierarchy.Need `json:"missing,omitempty"`
	// Revision is the one that learned it.
	Revision uint64         `json:"revision"`
	Value    map[string]any `json:"value"`
}

var kinds = map[string]hierarchy.Kind{
	"node": hierarchy.KindNode, "edge": hierarchy.KindEdge, "link": hierarchy.KindLink, "role": hierarchy.KindRole,
	"assignment": hierarchy.KindAssignment, "entitlement": hierarchy.KindEntitlement, "grant": hierarchy.KindGrant,
	"block": hierarchy.KindBlock, "activation": hierarchy.KindActivation, "setting": hierarchy.KindSetting,
	"emergency": hierarchy.KindEmergency, "signature": hierarchy.KindSignature, "review": hierarchy.KindReview,
}

func kindName(k hierarchy.Kind) string {
	for name, n := range kinds {
		if n == k {
			return name
		}
	}
	return "unknown"
}

func (h *Handler) facts(ctx context.Context, who Who, in *Facts) (FactList, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "hierarchy.read"); err != nil {
		return FactList{}, err
	}
	kind, ok := kinds[in.Kind]
	if !ok {
		return FactList{}, bad("there is no such kind of fact")
	}
	view, err := h.view(in.When)
	if err != nil {
		return FactList{}, err
	}
	var about hierarchy.ID
	if in.About != "" {
		if about, err = hierarchy.ParseID(in.About); err != nil {
			return FactList{}, bad(err.Error())
		}
	}
	limit := in.Limit
	if limit <= 0 {
		limit = 1000
	}
	limit = min(limit, 100_000)
	out := FactList{Facts: []Fact{}}
	for f := range view.Facts(kind) {
		ids, name := named(&f.Event)
		if !about.IsZero() && !has(ids, func(id hierarchy.ID) bool { return id == about }) ||
			in.Tenant != "" && !has(ids, func(id hierarchy.ID) bool { return id.Owner() == in.Tenant }) ||
			in.Name != "" && name != in.Name {
			continue
		}
		w := factOf(view, f)
		if in.Live && w.State != "live" {
			continue
		}
		if len(out.Facts) == limit {
			out.Truncated = true
			break
		}
		out.Facts = append(out.Facts, w)
	}
	if kind == hierarchy.KindGrant && in.Name != "" && !in.Live && len(out.Facts) == 0 {
		if g, ok := view.Grant(in.Name); ok { // a voided one is no fact any more
			out.Facts = append(out.Facts, factOf(view, hierarchy.Fact{ID: g.Fact, Kind: kind, Valid: g.Valid,
				Revision: g.Fact.Revision, Event: hierarchy.Event{Grant: &g.Grant}}))
		}
	}
	return out, nil
}

func has(ids []hierarchy.ID, f func(hierarchy.ID) bool) bool {
	for _, id := range ids {
		if !id.IsZero() && f(id) {
			return true
		}
	}
	return false
}

// named returns the ids and the name that a fact carries.
func named(e *hierarchy.Event) ([]hierarchy.ID, string) {
	switch {
	case e.Node != nil:
		return []hierarchy.ID{e.Node.ID}, ""
	case e.Edge != nil:
		return []hierarchy.ID{e.Edge.Child, e.Edge.Parent}, e.Edge.Kind
	case e.Link != nil:
		return []hierarchy.ID{e.Link.From, e.Link.To}, string(e.Link.Kind)
	case e.Role != nil:
		return nil, e.Role.Name
	case e.Assignment != nil:
		return []hierarchy.ID{e.Assignment.Principal, e.Assignment.Node}, e.Assignment.Role
	case e.Entitlement != nil:
		return []hierarchy.ID{e.Entitlement.Tenant}, e.Entitlement.Name
	case e.Grant != nil:
		return []hierarchy.ID{e.Grant.Grantor, e.Grant.Grantee, e.Grant.Subject, e.Grant.Scope.Coverage}, e.Grant.ID
	case e.Block != nil:
		return []hierarchy.ID{e.Block.Person, e.Block.Principal}, e.Block.Basis
	case e.Activation != nil && e.Activation.Tenant != "":
		return []hierarchy.ID{hierarchy.TenantID(e.Activation.Tenant)}, ""
	case e.Activation != nil:
		return nil, e.Activation.Name
	case e.Setting != nil:
		return []hierarchy.ID{e.Setting.Tenant}, e.Setting.Name
	case e.Emergency != nil:
		return []hierarchy.ID{e.Emergency.Principal, e.Emergency.Person, e.Emergency.Node}, e.Emergency.ID
	case e.Review != nil:
		return []hierarchy.ID{e.Review.By}, e.Review.Emergency
	case e.Signature != nil:
		return []hierarchy.ID{e.Signature.By, e.Signature.Principal}, e.Signature.Grant
	}
	return nil, ""
}

func factOf(view hierarchy.View, f hierarchy.Fact) Fact {
	out := Fact{Kind: kindName(f.Kind), Valid: intervalOf(f.Valid), Revision: f.Revision, Value: valueOf(&f.Event)}
	if !f.ID.IsZero() { // an edge that a tenant's key implies is no fact
		out.Fact = f.ID.String()
	}
	switch now := view.Instant(); {
	case f.Valid.Holds(now):
		out.State = "live"
	case now < f.Valid.From:
		out.State = "future"
	default:
		out.State = "ended"
	}
	if f.Event.Grant != nil {
		if g, ok := view.Grant(f.Event.Grant.ID); ok {
			e := intervalOf(g.Effective)
			out.State, out.Effective, out.Missing = grantStates[g.State(view.Instant())], &e, g.Missing
		}
	}
	return out
}

// grantStates are the words for where a grant stands.
var grantStates = map[hierarchy.GrantState]string{
	hierarchy.GrantRequested: "requested", hierarchy.GrantFuture: "future", hierarchy.GrantActive: "live",
	hierarchy.GrantEnded: "ended", hierarchy.GrantRevoked: "revoked", hierarchy.GrantVoid: "voided",
}

// valueOf returns what a fact says, its times in RFC 3339.
func valueOf(e *hierarchy.Event) map[string]any {
	var v any
	switch {
	case e.Node != nil:
		v = e.Node
	case e.Edge != nil:
		v = e.Edge
	case e.Link != nil:
		v = e.Link
	case e.Role != nil:
		v = e.Role
	case e.Assignment != nil:
		v = e.Assignment
	case e.Entitlement != nil:
		v = e.Entitlement
	case e.Grant != nil:
		v = e.Grant
	case e.Block != nil:
		v = e.Block
	case e.Activation != nil:
		v = e.Activation
	case e.Setting != nil:
		v = e.Setting
	case e.Emergency != nil:
		v = e.Emergency
	case e.Review != nil:
		v = e.Review
	case e.Signature != nil:
		v = e.Signature
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	var out map[string]any
	if json.Unmarshal(raw, &out) != nil {
		return nil
	}
	times(out)
	return out
}

// times turns the instants of a person and a grant into RFC 3339.
func times(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			if k != "attrs" {
				times(v)
			}
		case float64:
			switch k {
			case "majority", "verifiedAt", "from", "to":
				m[k] = hierarchy.Instant(v).String()
			}
		}
	}
}

// NodeQuery asks for one node.
type NodeQuery struct {
	ID string `json:"id"`
	When
}

// Node is one node with what hangs on it.
type Node struct {
	Fact
	ID       string   `json:"id"`
	Parents  []Fact   `json:"parents"`
	Children []Fact   `json:"children"`
	More     bool     `json:"more,omitempty"` // there are more children: see /v1/children
	Owners   []string `json:"owners,omitempty"`
	Owned    []string `json:"owned,omitempty"`
	Persons  []string `json:"persons,omitempty"`
	Roles    []Fact   `json:"roles,omitempty"`
	Grants   []Fact   `json:"grants,omitempty"`
}

// shownChildren is how many children a Node lists.
const shownChildren = 100

func (h *Handler) lookup(ctx context.Context, who Who, id string, w When) (hierarchy.View, hierarchy.ID, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "hierarchy.read"); err != nil {
		return hierarchy.View{}, hierarchy.ID{}, err
	}
	n, err := hierarchy.ParseID(id)
	if err != nil {
		return hierarchy.View{}, n, bad(err.Error())
	}
	view, err := h.view(w)
	if err != nil {
		return view, n, err
	}
	if _, _, ok := view.Node(n); !ok {
		return view, n, &Error{Status: http.StatusNotFound, Code: "unknown_node", Message: "there is no such node at that time"}
	}
	return view, n, nil
}

func (h *Handler) node(ctx context.Context, who Who, in *NodeQuery) (Node, error) {
	view, id, err := h.lookup(ctx, who, in.ID, in.When)
	if err != nil {
		return Node{}, err
	}
	n, fact, _ := view.Node(id)
	out := Node{ID: id.String(), Parents: []Fact{}, Children: []Fact{}}
	if f, ok := view.Fact(fact); ok {
		out.Fact = factOf(view, f)
	}
	for _, e := range view.Parents(id) {
		out.Parents = append(out.Parents, edgeOf(view, e))
	}
	for e := range view.Children(id) {
		if len(out.Children) == shownChildren {
			out.More = true
			break
		}
		out.Children = append(out.Children, edgeOf(view, e))
	}
	out.Owners = texts(view.Owners(id))
	if id.Type == hierarchy.PersonType {
		out.Owned = texts(view.Owned(view.Merged(id)...))
	}
	if n.Principal {
		out.Persons = texts(view.Persons(id))
		for _, a := range view.Assignments(id) {
			if f, ok := view.Fact(a.Fact); ok {
				out.Roles = append(out.Roles, factOf(view, f))
			}
		}
		for _, g := range view.Grants(id) {
			if f, ok := view.Fact(g.Fact); ok {
				out.Grants = append(out.Grants, factOf(view, f))
			}
		}
	}
	return out, nil
}

func texts(ids []hierarchy.ID) []string {
	var out []string
	for _, id := range ids {
		out = append(out, id.String())
	}
	return out
}

func edgeOf(view hierarchy.View, e hierarchy.EdgeFact) Fact {
	return factOf(view, hierarchy.Fact{ID: e.Fact, Kind: hierarchy.KindEdge, Valid: e.Valid, Revision: e.Fact.Revision,
		Event: hierarchy.Event{Edge: &e.Edge}})
}

// ChildrenQuery asks for the edges to a node, from the Skip-th on.
type ChildrenQuery struct {
	ID    string `json:"id"`
	Skip  int    `json:"skip,omitempty"`
	Limit int    `json:"limit,omitempty"` // 0 means 1000
	When
}

func (h *Handler) children(ctx context.Context, who Who, in *ChildrenQuery) (FactList, error) {
	view, id, err := h.lookup(ctx, who, in.ID, in.When)
	if err != nil {
		return FactList{}, err
	}
	limit := in.Limit
	if limit <= 0 {
		limit = 1000
	}
	limit = min(limit, 100_000)
	out := FactList{Facts: []Fact{}}
	n := 0
	for e := range view.Children(id) {
		if n++; n <= in.Skip {
			continue
		}
		if len(out.Facts) == limit {
			out.Truncated = true
			break
		}
		out.Facts = append(out.Facts, edgeOf(view, e))
	}
	return out, nil
}

// PathQuery asks how one node hangs from another.
type PathQuery struct {
	From string `json:"from"`
	To   string `json:"to"`
	When
}

// Path lists the edges of a shortest way, from the child up; none when there
// is no way.
type Path struct {
	Reaches bool   `json:"reaches"`
	Edges   []Fact `json:"edges"`
}

func (h *Handler) path(ctx context.Context, who Who, in *PathQuery) (Path, error) {
	view, from, err := h.lookup(ctx, who, in.From, in.When)
	if err != nil {
		return Path{}, err
	}
	to, err := hierarchy.ParseID(in.To)
	if err != nil {
		return Path{}, bad(err.Error())
	}
	if _, _, ok := view.Node(to); !ok {
		return Path{}, &Error{Status: http.StatusNotFound, Code: "unknown_node", Message: "there is no such node at that time"}
	}
	edges, ok := view.Path(from, to)
	out := Path{Reaches: ok, Edges: []Fact{}}
	for _, e := range edges {
		out.Edges = append(out.Edges, edgeOf(view, e))
	}
	return out, nil
}

// Find says which records to find; see [pdp.Seek]. Empty fields do not narrow.
type Find struct {
	// Subject is who acted, as a catalogue type ("user:dana") or a node
	// ("User:dana"); Person who a record is about.
	Subject string `json:"subject,omitempty"`
	Person  string `json:"person,omitempty"`
	// Grant and Emergency are ids of what permitted.
	Grant     string     `json:"grant,omitempty"`
	Emergency string     `json:"emergency,omitempty"`
	Resource  string     `json:"resource,omitempty"` // "claim:c1"
	Effect    string     `json:"effect,omitempty"`   // "allow" or "deny"
	Reason    string     `json:"reason,omitempty"`   // a policy's id
	Action    string     `json:"action,omitempty"`
	Code      authz.Code `json:"code,omitempty"`
	Kind      string     `json:"kind,omitempty"`
	From      Time       `json:"from,omitzero"`
	To        Time       `json:"to,omitzero"`
	// Limit is how many of the latest to return; 0 means 100, at most 10,000.
	Limit int `json:"limit,omitempty"`
}

// Found lists records in order, the latest last.
type Found struct {
	Records   []pdp.Line `json:"records"`
	Truncated bool       `json:"truncated,omitempty"` // there are earlier ones
}

func (h *Handler) find(ctx context.Context, who Who, in *Find) (Found, error) {
	if err := h.PDP.Permit(ctx, who.Actor, who.Caller, "audit.read"); err != nil {
		return Found{}, err
	}
	return in.In(ctx, pdp.NewFinder(h.Keys, h.PDP.Graph()), h.PDP.Set(), h.Ledger.Scan(0))
}

// In finds records among some, with the set for the types of principals, which
// may be nil, and opens what it lists.
func (in *Find) In(ctx context.Context, f *pdp.Finder, set *policies.Set, entries iter.Seq2[audit.Entry, error]) (Found, error) {
	seek, err := in.seek(set)
	if err != nil {
		return Found{}, err
	}
	limit := bounded(in.Limit, 100, 10_000)
	out := Found{Records: []pdp.Line{}}
	for line, err := range f.Find(entries, seek) {
		if err != nil {
			return Found{}, err
		}
		if err := ctx.Err(); err != nil {
			return Found{}, err
		}
		if len(out.Records) == limit {
			out.Records, out.Truncated = out.Records[1:], true
		}
		out.Records = append(out.Records, line)
	}
	for i := range out.Records {
		if err := f.Open(&out.Records[i]); err != nil {
			return Found{}, err
		}
	}
	return out, nil
}

func (in *Find) seek(set *policies.Set) (pdp.Seek, error) {
	s := pdp.Seek{Grant: in.Grant, Emergency: in.Emergency, Resource: in.Resource, Effect: in.Effect, Reason: in.Reason,
		Action: in.Action, Code: in.Code, Kind: audit.Kind(in.Kind)}
	switch in.Effect {
	case "", authz.Allow.String(), authz.Deny.String():
	default:
		return s, bad("a decision is allow or deny")
	}
	if in.Resource != "" && !strings.Contains(in.Resource, ":") {
		return s, bad("a resource is TYPE:ID, such as claim:c1")
	}
	var err error
	if in.Subject != "" {
		if s.Subject, err = pdp.PrincipalID(set, in.Subject); err != nil {
			return s, bad(err.Error())
		}
	}
	if in.Person != "" {
		if s.Person, err = hierarchy.ParseID(in.Person); err != nil {
			return s, bad(err.Error())
		}
		if s.Person.Type != hierarchy.PersonType {
			return s, bad("a person's id is Person:key")
		}
	}
	s.Within = hierarchy.Always
	if !in.From.IsZero() {
		s.Within.From = hierarchy.Instant(timeMilli(in.From))
	}
	if !in.To.IsZero() {
		s.Within.To = hierarchy.Instant(timeMilli(in.To))
	}
	return s, nil
}

// Status is how the server is doing. It names nobody.
type Status struct {
	Version  string         `json:"version"`
	Ready    bool           `json:"ready"`
	Code     authz.Code     `json:"code,omitempty"`   // why not
	Reason   string         `json:"reason,omitempty"` // in words
	Revision uint64         `json:"revision"`
	Head     hierarchy.Hash `json:"head"`
	Set      string         `json:"set,omitempty"`
	SetName  string         `json:"setName,omitempty"`
	Records  uint64         `json:"records"`
	// Checkpoint is the ledger's last signed one. Kept elsewhere, it is an
	// anchor for `ward audit verify --anchor`.
	Checkpoint string   `json:"checkpoint"`
	Imports    []string `json:"imports,omitempty"` // open ones
	// Overlays are those in force, by tenant.
	Overlays []OverlayInForce `json:"overlays,omitempty"`
	// Witnesses say how far each has followed the ledger; see package witness.
	Witnesses []witness.Status `json:"witnesses,omitempty"`
	// Waiting counts what waits for somebody; absent when the clock cannot be
	// trusted.
	Waiting *Waiting `json:"waiting,omitempty"`
}

func (h *Handler) status(r *http.Request, _ Who) (any, error) {
	head := h.PDP.Graph().Head()
	out := Status{Version: h.Version, Revision: head.Revision, Head: head.Hash, Records: h.Ledger.Size(), Checkpoint: string(h.Ledger.Checkpoint()), Ready: true}
	if set := h.PDP.Set(); set != nil {
		out.Set, out.SetName = set.Digest(), set.Name()
	}
	if err := h.Ready(); err != nil {
		e := toError(err)
		out.Ready, out.Code, out.Reason = false, authz.Code(e.Code), e.Message
	}
	out.Overlays = overlays(h.PDP.View(0, 0))
	if h.Witnesses != nil {
		out.Witnesses = h.Witnesses()
	}
	if now, err := h.PDP.Now(); err == nil {
		if out.Waiting, err = waiting(r.Context(), h.PDP.View(now, 0)); err != nil {
			return nil, err
		}
	}
	for _, m := range h.PDP.Graph().Imports() {
		out.Imports = append(out.Imports, m.ID)
	}
	return out, nil
}
