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
)

// Seek says which records to find. A zero field does not narrow; the fields
// about answers must all hold of one and the same answer of a record.
type Seek struct {
	Subject hierarchy.ID // who acted or asked, "User:dana"
	Person  hierarchy.ID // who the record is about
	Grant   string       // the grant that permitted
	// Emergency is the one that permitted.
	Emergency string
	Action    string
	Code      authz.Code
	Kind      audit.Kind
	Within    hierarchy.Interval // when it was recorded; the zero Interval does not narrow
}

// Line is what the clear part of a record says to everybody: no identifiers.
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
		l.Items = append(l.Items, LineItem{it.Action, it.Type, it.Effect, it.Code, it.Enforced, it.Reasons})
	}
	if c.Change != nil {
		l.Change, l.Events, l.Closes = c.Change.Actions, c.Change.Events, c.Change.Closes
	}
	return l, &c, nil
}

// Find yields the records that match. Identifiers are compared as keyed
// hashes, so nothing is unsealed. It writes nothing, and works on copies.
func Find(keys *audit.Keys, entries iter.Seq2[audit.Entry, error], s Seek) iter.Seq2[Line, error] {
	hash := func(kind, id string) string {
		if id == "" {
			return ""
		}
		return keys.Hash(kind, "", id)
	}
	subject, person, grant, emergency := "", "", hash("grant", s.Grant), hash("emergency", s.Emergency)
	if !s.Subject.IsZero() {
		subject = hash("principal", s.Subject.String())
	}
	if !s.Person.IsZero() {
		person = hash("person", s.Person.String())
	}
	matches := func(c *clearPart) bool {
		if subject == "" && person == "" && grant == "" && emergency == "" && s.Action == "" && s.Code == "" {
			return true
		}
		for _, it := range c.Items {
			if (subject == "" || it.Subject == subject || c.Asker == subject) && (grant == "" || it.Grant == grant) &&
				(emergency == "" || it.Emergency == emergency) && (person == "" || slices.Contains(it.Patients, person)) &&
				(s.Action == "" || it.Action == s.Action) && (s.Code == "" || it.Code == s.Code || it.Enforced == s.Code) {
				return true
			}
		}
		return c.Change != nil && person == "" && grant == "" && emergency == "" && s.Code == "" && (subject == "" || c.Change.Who == subject) &&
			(s.Action == "" || slices.Contains(c.Change.Actions, s.Action))
	}
	return func(yield func(Line, error) bool) {
		for e, err := range entries {
			if err != nil {
				yield(Line{}, err)
				return
			}
			if s.Kind != "" && e.Kind != s.Kind || !s.Within.IsZero() && !s.Within.Holds(hierarchy.Instant(e.Time)) {
				continue
			}
			l, c, err := lineOf(e)
			if err != nil {
				yield(Line{}, err)
				return
			}
			if matches(c) && !yield(l, nil) {
				return
			}
		}
	}
}

// PrincipalID reads a principal as a catalogue type and an id ("user:dana") or
// as its node ("User:dana").
func (p *PDP) PrincipalID(s string) (hierarchy.ID, error) {
	typ, id, ok := strings.Cut(s, ":")
	if !ok {
		return hierarchy.ID{}, errors.New("want TYPE:ID, such as user:dana")
	}
	if set := p.Set(); set != nil {
		if pt := set.Catalogue().Principals[typ]; pt != nil {
			n := hierarchy.ID{Type: baseName(pt.Entity), Key: id}
			return n, n.Valid()
		}
	}
	return hierarchy.ParseID(s)
}
