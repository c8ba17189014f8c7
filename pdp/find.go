package pdp

import (
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Seek says which records to find. A zero field does not narrow; the fields
// about answers must all hold of one and the same answer of a record.
type Seek struct {
	Subject hierarchy.ID // who acted or asked, "User:dana"
	Person  hierarchy.ID // who the record is about
	Grant   string       // the grant that permitted
	// Emergency is the one that permitted.
	Emergency string
	Resource  string // "claim:c1"
	Effect    string // "allow" or "deny", as the caller got it
	Reason    string // the id of a policy that decided
	Action    string
	Code      authz.Code
	Kind      audit.Kind
	Within    hierarchy.Interval // when it was recorded; the zero Interval does not narrow
}

// Line is what the clear part of a record says to everybody, without identifiers,
// and what [Finder.Open] adds.
type Line struct {
	Record   string     `json:"record"`
	Kind     string     `json:"kind"`
	Time     string     `json:"time"`
	Revision uint64     `json:"revision"`
	Set      string     `json:"set,omitempty"`
	Caller   string     `json:"caller,omitempty"`
	Items    []LineItem `json:"items,omitempty"`
	// Change lists the actions of a change, Events how many facts it is about.
	Change []string `json:"change,omitempty"`
	Events int      `json:"events,omitempty"`
	// Closes is the change that an abandoned record closes.
	Closes string `json:"closes,omitempty"`
	// Outcome is what became of a decision.
	Outcome *Reported `json:"outcome,omitempty"`
	// Refusals counts what each door refused before a decision, by code.
	Refusals map[string]map[authz.Code]uint64 `json:"refusals,omitempty"`
	// Closed says that a key is gone, so that what it opened is not here.
	Closed bool `json:"closed,omitempty"`

	entry audit.Entry
	clear *clearPart
	at    []int // which answers of the record Items are; nil is all
}

// LineItem is one answer of a record.
type LineItem struct {
	Action string     `json:"action,omitempty"`
	Type   string     `json:"type,omitempty"`
	Effect string     `json:"effect"`
	Code   authz.Code `json:"code"`
	// Enforced is set where the caller got a deny with this code instead.
	Enforced authz.Code `json:"enforced,omitempty"`
	Reasons  []string   `json:"reasons,omitempty"`
	// What only who has the keys reads.
	Subject   string `json:"subject,omitempty"`  // "user:dana"
	Resource  string `json:"resource,omitempty"` // "claim:c1"
	Grant     string `json:"grant,omitempty"`
	Emergency string `json:"emergency,omitempty"`
	// Approved says who approved the grant, where the store is at hand too.
	Approved []Approval `json:"approved,omitempty"`
}

// Approval is one step that a grant rests on.
type Approval struct {
	As string            `json:"as"` // "given", "recorded", or as what somebody signed
	By hierarchy.ID      `json:"by"` // who did it
	At hierarchy.Instant `json:"at"`
	// Record is that of the change, where it was among those that were read.
	Record string `json:"record,omitempty"`
}

// LineOf reads the clear part of a record.
func LineOf(e audit.Entry) (Line, error) {
	l, _, err := lineOf(e)
	return l, err
}

func lineOf(e audit.Entry) (Line, *clearPart, error) {
	var c clearPart
	if err := json.Unmarshal(e.Clear, &c); err != nil {
		return Line{}, nil, &IntegrityError{Record: e.ID(), Text: "the clear part cannot be read"}
	}
	l := Line{Record: e.ID(), Kind: string(e.Kind), Time: hierarchy.Instant(e.Time).String(), Revision: c.Revision, Set: c.Set, Caller: c.Caller,
		Outcome: c.Outcome, Refusals: c.Refusals}
	for _, it := range c.Items {
		l.Items = append(l.Items, LineItem{Action: it.Action, Type: it.Type, Effect: it.Effect, Code: it.Code, Enforced: it.Enforced, Reasons: it.Reasons})
	}
	if c.Change != nil {
		l.Change, l.Events, l.Closes = c.Change.Actions, c.Change.Events, c.Change.Closes
	}
	l.entry, l.clear = e, &c
	return l, &c, nil
}

// Finder finds records, and opens what it has the keys for. It writes nothing,
// and works on copies.
type Finder struct {
	keys    *audit.Keys
	graph   *hierarchy.Graph // may be nil
	changes map[uint64]string
}

// NewFinder returns a finder. The graph, which may be nil, says who approved a
// grant.
func NewFinder(keys *audit.Keys, graph *hierarchy.Graph) *Finder {
	return &Finder{keys: keys, graph: graph, changes: map[uint64]string{}}
}

// Finder returns a finder over the replayer's store.
func (r *Replayer) Finder() *Finder { return NewFinder(r.keys, r.graph) }

// unsealed opens what can be opened of a record, in the order of its items.
func (f *Finder) unsealed(e audit.Entry, c *clearPart) ([]sealedItem, error) {
	keys, err := f.keys.PartKeys(e)
	gone := errors.Is(err, audit.ErrNoKey)
	var parts []*audit.Part
	if err == nil || gone {
		parts, err = e.Open(keys)
	}
	if err != nil {
		return nil, &IntegrityError{Record: e.ID(), Text: "the sealed part does not verify", Err: err}
	}
	items, _, err := sealedItems(e.ID(), c, parts)
	if err == nil && gone {
		err = audit.ErrNoKey
	}
	return items, err
}

// Open adds to a line what its sealed parts hold.
func (f *Finder) Open(l *Line) error {
	items, err := f.unsealed(l.entry, l.clear)
	if l.Closed = errors.Is(err, audit.ErrNoKey); err != nil && !l.Closed {
		return err
	}
	for k := range l.Items {
		i := k
		if l.at != nil {
			i = l.at[k]
		}
		si, it := items[i], &l.Items[k]
		if si.Asked == nil {
			continue
		}
		it.Subject, it.Resource = si.Asked.Subject.Type+":"+si.Asked.Subject.ID, si.Asked.Resource.Type+":"+si.Asked.Resource.ID
		it.Grant, it.Emergency = si.Verdict.Grant, si.Verdict.Emergency
		if f.graph != nil && it.Grant != "" {
			it.Approved = f.approved(it.Grant, hierarchy.Instant(l.clear.Now), l.Revision)
		}
	}
	return nil
}

// approved lists what a grant rested on at an instant, as known at a revision.
func (f *Finder) approved(id string, at hierarchy.Instant, rev uint64) (out []Approval) {
	view := f.graph.At(at, rev, hierarchy.EdgeKinds{})
	g, ok := view.Grant(id)
	if !ok {
		return nil
	}
	step := func(as string, by hierarchy.ID, fact hierarchy.FactID) {
		b, _ := f.graph.Batch(fact.Revision)
		if by.IsZero() {
			by = b.Provenance.Who
		}
		out = append(out, Approval{as, by, b.Time, f.changes[fact.Revision]})
	}
	step("given", g.Grantor, g.Fact)
	step("recorded", hierarchy.ID{}, g.Fact)
	for _, s := range view.Signatures(id) {
		if !s.Valid.Holds(at) {
			continue
		}
		by := s.Principal
		if by.IsZero() {
			by = s.By
		}
		step(string(s.As), by, s.Fact)
	}
	return out
}

// Find yields the records that match, without opening them, each with the answers
// that match: the others of a batch are about others. Identifiers are
// compared as keyed hashes; a resource's is its tenant's own, so that records of
// its type are unsealed for it. Those whose key is gone are listed all the same:
// nobody can tell any more that they are not about it, and whoever takes a key
// away hides nothing.
func (f *Finder) Find(entries iter.Seq2[audit.Entry, error], s Seek) iter.Seq2[Line, error] {
	hash := func(kind, id string) string {
		if id == "" {
			return ""
		}
		return f.keys.Hash(kind, "", id)
	}
	subject, person, grant, emergency := "", "", hash("grant", s.Grant), hash("emergency", s.Emergency)
	if !s.Subject.IsZero() {
		subject = hash("principal", s.Subject.String())
	}
	if !s.Person.IsZero() {
		person = hash("person", s.Person.String())
	}
	resourceType, _, _ := strings.Cut(s.Resource, ":")
	ofAnswers := person != "" || grant != "" || emergency != "" || s.Code != "" || s.Resource != "" || s.Effect != "" || s.Reason != ""
	// matching returns the items that match, but for the resource.
	matching := func(c *clearPart) (at []int) {
		for i, it := range c.Items {
			effect := it.Effect
			if it.Enforced != "" {
				effect = authz.Deny.String()
			}
			if (subject == "" || it.Subject == subject || c.Asker == subject) && (grant == "" || it.Grant == grant) &&
				(emergency == "" || it.Emergency == emergency) && (person == "" || slices.Contains(it.Patients, person)) &&
				(s.Action == "" || it.Action == s.Action) && (s.Code == "" || it.Code == s.Code || it.Enforced == s.Code) &&
				(s.Resource == "" || it.Type == resourceType) && (s.Effect == "" || effect == s.Effect) &&
				(s.Reason == "" || slices.Contains(it.Reasons, s.Reason)) {
				at = append(at, i)
			}
		}
		return at
	}
	matches := func(e audit.Entry, c *clearPart) (at []int, ok bool, err error) {
		if !ofAnswers && subject == "" && s.Action == "" {
			return nil, true, nil
		}
		at = matching(c)
		if s.Resource != "" && len(at) > 0 {
			items, err := f.unsealed(e, c)
			if err != nil && !errors.Is(err, audit.ErrNoKey) {
				return nil, false, err
			}
			at = slices.DeleteFunc(at, func(i int) bool {
				a := items[i].Asked
				return a != nil && a.Resource.Type+":"+a.Resource.ID != s.Resource
			})
		}
		if c.Change != nil && !ofAnswers && (subject == "" || c.Change.Who == subject) &&
			(s.Action == "" || slices.Contains(c.Change.Actions, s.Action)) {
			return nil, true, nil
		}
		return at, len(at) > 0, nil
	}
	return func(yield func(Line, error) bool) {
		for e, err := range entries {
			if err != nil {
				yield(Line{}, err)
				return
			}
			within := s.Within.IsZero() || s.Within.Holds(hierarchy.Instant(e.Time))
			if e.Kind != audit.Change && (s.Kind != "" && e.Kind != s.Kind || !within) {
				continue
			}
			l, c, err := lineOf(e)
			if err != nil {
				yield(Line{}, err)
				return
			}
			if e.Kind == audit.Change && c.Change != nil {
				f.changes[c.Change.Next.Revision] = l.Record // a later one takes the place of one that was abandoned
			}
			if s.Kind != "" && e.Kind != s.Kind || !within {
				continue
			}
			at, ok, err := matches(e, c)
			if err != nil {
				yield(Line{}, err)
				return
			}
			if len(at) > 0 && len(at) < len(l.Items) { // a batch is about others too
				items := make([]LineItem, len(at))
				for k, i := range at {
					items[k] = l.Items[i]
				}
				l.Items, l.at = items, at
			}
			if ok && !yield(l, nil) {
				return
			}
		}
	}
}

// PrincipalID reads a principal as a catalogue type and an id ("user:dana") or
// as its node ("User:dana").
func (p *PDP) PrincipalID(s string) (hierarchy.ID, error) { return PrincipalID(p.Set(), s) }

// PrincipalID is that of a decision point in which the set is in force. Without
// one, only nodes are known.
func PrincipalID(set *policies.Set, s string) (hierarchy.ID, error) {
	typ, id, ok := strings.Cut(s, ":")
	if !ok {
		return hierarchy.ID{}, errors.New("want TYPE:ID, such as user:dana")
	}
	if set != nil {
		if pt := set.Catalogue().Principals[typ]; pt != nil {
			n := hierarchy.ID{Type: baseName(pt.Entity), Key: id}
			return n, n.Valid()
		}
	}
	return hierarchy.ParseID(s)
}
