package pdp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Asking is who asks for something of their own: a grant, a signature, an
// emergency. The pack decides it, as it decides everything that people do.
type Asking struct {
	// Subject is the person's principal, verified.
	Subject authz.Subject
	// Caller is the program that they use.
	Caller authz.Caller
	// Why and Ticket are kept with the change.
	Why, Ticket string
}

// Actions that the pack decides, on resources of kind grant and emergency.
const (
	ActionRequestGrant    = "grant.request"
	ActionApproveGrant    = "grant.approve"
	ActionRevokeGrant     = "grant.revoke"
	ActionViewGrant       = "grant.view"
	ActionOpenEmergency   = "emergency.open"
	ActionEndEmergency    = "emergency.end"
	ActionReviewEmergency = "emergency.review"
)

// Delegated is a grant as its parties see it.
type Delegated struct {
	hierarchy.GrantFact
	State hierarchy.GrantState
	// Signatures are those that have not ended, sorted by fact.
	Signatures []hierarchy.SignatureFact
	// Obligations are what the caller must do now; it performs all of them.
	Obligations []authz.Obligation
	// Receipt is that of the change, or of the decision that lets it be seen.
	authz.Receipt
}

// shown returns a grant as its parties see it at an instant.
func shown(view hierarchy.View, f hierarchy.GrantFact, now hierarchy.Instant) Delegated {
	signed := slices.DeleteFunc(view.Signatures(f.ID), func(s hierarchy.SignatureFact) bool { return s.Valid.To <= now })
	return Delegated{GrantFact: f, State: f.State(now), Signatures: signed}
}

// Nobody fills the facts with requests. Whoever asks counts with all their
// accounts, and by what the facts say that they asked for.
const (
	// MaxRequested is how many grants that somebody asked for may lack a signature
	// at a time.
	MaxRequested = 16
	// MaxRequests is how many grants somebody asks for within 24 hours, whatever
	// has become of them.
	MaxRequests = 32
	// MaxRequestBytes is how long a request may be, as JSON: its record holds it
	// several times, and always fits, so that none goes unrecorded for what the
	// facts say.
	MaxRequestBytes = 8 << 10
)

// GrantRequest is a grant that somebody asks for. Of Grant these count: Type,
// Grantor (zero, or the subject, or the grantee of Parent: nobody else gives),
// Grantee, Subject, Scope, Purpose, Jurisdiction, LegalBasis, Evidence, Parent,
// MayRedelegate, MaxDepth. Its id is made here, and nobody can guess it.
type GrantRequest struct {
	Grant hierarchy.Grant
	// Key is the asker's own name for this request, or empty. It is used once:
	// asked again with it, the request is refused with grant_exists. Others' keys
	// are others'.
	Key string
	// From is when it begins, no earlier than it is asked for; 0 means now. To
	// is its end; 0 means that it has none but by majority.
	From, To hierarchy.Instant
	// CoSigners must sign where the pack says so.
	CoSigners []hierarchy.ID
}

// RequestGrant asks for a grant. Whose signatures it takes is the pack's to say
// (grantTypes.needs); those that the asker can give are given at once, as far as
// the pack lets them sign. What nobody need sign is active at once.
//
// A grant about a minor who is not of the age of assent yet ends on the day they
// are: it can be asked for again then, with their assent.
//
// Who asks to act for a person that they have no tie to names a record of that
// person in Scope.Coverage, and every denial is unknown_resource to them: neither
// whether there is such a person nor what stands against the asker. A Delegated
// that comes with grant_exists holds the id of the grant that the key made, and
// nothing else.
func (p *PDP) RequestGrant(ctx context.Context, a Asking, q GrantRequest) (Delegated, error) {
	if err := p.rates.take(a.Caller, 1); err != nil {
		return Delegated{}, err
	}
	if raw, err := json.Marshal(q); err != nil || len(raw) > MaxRequestBytes {
		return Delegated{}, &authz.Error{Kind: authz.Refused, Code: authz.TooLarge, Text: "the request is too large", Err: err}
	}
	made := newID("g-")
	id := made
	verdict, changed, err := p.act(ctx, a, func(w world, view hierarchy.View, who hierarchy.ID) (deed, error) {
		if id = made; q.Key != "" {
			id = p.keyed("g-", who, q.Key)
		}
		g := q.Grant
		g.ID, g.Source, g.External, g.Needs = id, "", "", nil // what is asked for here is kept here
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindGrant, Valid: hierarchy.Interval{From: q.From, To: q.To}, Grant: &g}
		if e.Valid.From == 0 {
			e.Valid.From = w.now
		}
		if e.Valid.To == 0 {
			e.Valid.To = hierarchy.Forever
		}
		d := deed{asks: []*asked{p.question(w, a, ActionRequestGrant, policies.KindGrant, id, &e)},
			veiled: !who.IsZero() && g.Subject.Type == hierarchy.PersonType && !overlap(view.Merged(g.Subject), view.Persons(who))}
		giver := g.Subject
		if g.Parent != "" {
			// A grant that is not theirs is to them as if it were not.
			up, ok := view.Grant(g.Parent)
			if !ok || !actsFor(view, who, up.Grantee) {
				d.refusal = &hierarchy.Refusal{Code: hierarchy.CodeUnknownEnd, Text: "the parent grant does not exist, or is not yours to pass on"}
			} else {
				giver = up.Grantee
			}
		}
		if g.Grantor.IsZero() {
			g.Grantor = giver
		}
		_, exists := view.Grant(id) // by a key of their own
		// What the request itself or the pack rules out is told to anybody.
		switch {
		case w.set.Catalogue().GrantTypes[g.Type] == nil:
			return d.declined("grant_type_unknown", "the pack has no grant type of this name"), nil
		case e.Valid.From < w.now && !exists: // asked again, it was not when it was asked for
			return d.declined("grant_backdated", "a grant begins no earlier than it is asked for"), nil
		}
		if r := malformed(w, a, e); r != nil {
			return d.declined(r.Code, r.Text), nil
		}
		// What the facts rule out, to whom the pack lets ask. Who may co-sign comes
		// last: to learn of it costs a request, which the others see and which counts.
		needed, err := need(w, view, &e, q.CoSigners)
		switch {
		case err != nil:
			return deed{}, err
		case exists:
			d.refusal = &hierarchy.Refusal{Code: hierarchy.CodeGrantExists, Text: "this key was used already, for the grant that it made"}
		case d.refusal != nil:
		case g.Grantor != giver:
			d.refusal = &hierarchy.Refusal{Code: "grantor_unentitled", Text: "who gives is whoever the grant is about, or who has what it is made from"}
		default:
			if d.refusal = w.tooMany(view, who); d.refusal == nil {
				d.refusal = needed
			}
		}
		var signatures []hierarchy.Event
		for _, n := range g.Needs {
			if n.By != who && !slices.Contains(view.Persons(who), n.By) {
				continue
			}
			s := signature(id, n, who, e.Valid.From)
			draft := e
			draft.Signature = s.Signature // this one, of the grant that is asked for
			ask := p.question(w, a, ActionApproveGrant, policies.KindGrant, id, &draft)
			d.asks, signatures = append(d.asks, ask), append(signatures, s)
		}
		d.events = func(allowed []bool) []hierarchy.Event {
			events := []hierarchy.Event{e}
			for i, s := range signatures {
				if allowed[i+1] {
					events = append(events, s)
				}
			}
			return events
		}
		return d, nil
	})
	var refusal *hierarchy.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Code == hierarchy.CodeGrantExists:
		return Delegated{GrantFact: hierarchy.GrantFact{Grant: hierarchy.Grant{ID: id}}}, err
	case err != nil:
		return Delegated{}, err
	}
	return p.after(id, verdict, changed)
}

// malformed returns why an event is none, as far as it and the pack alone tell.
func malformed(w world, a Asking, e hierarchy.Event) *hierarchy.Refusal {
	if r := check(w, &e); r != nil {
		return r
	}
	_, err := hierarchy.Encode(&hierarchy.Batch{Time: w.now, Events: []hierarchy.Event{e},
		Provenance: hierarchy.Provenance{Who: operator(w.graph.At(w.now, w.rev, w.confers)), Why: a.Why, Ticket: a.Ticket}})
	r, _ := errors.AsType[*hierarchy.Refusal](err)
	return r
}

// tooMany refuses one request more than somebody may make, or returns nil.
func (w world) tooMany(view hierarchy.View, who hierarchy.ID) *hierarchy.Refusal {
	const day = hierarchy.Instant(24 * time.Hour / time.Millisecond)
	waiting, made := 0, 0
	for _, id := range accounts(view, who) {
		for _, f := range view.GrantsBy(id) {
			if f.State(w.now) == hierarchy.GrantRequested {
				waiting++
			}
			if b, ok := w.graph.Batch(f.Fact.Revision); ok && b.Time > w.now-day {
				made++
			}
		}
	}
	switch {
	case waiting >= MaxRequested:
		return &hierarchy.Refusal{Code: "request_limit", Text: fmt.Sprintf("%d requests of yours wait for a signature: withdraw one first", waiting)}
	case made >= MaxRequests:
		return &hierarchy.Refusal{Code: "request_limit", Text: fmt.Sprintf("you asked for %d grants within 24 hours: ask again later", made)}
	}
	return nil
}

// actsFor reports whether a principal is somebody, or holds a role at that node.
func actsFor(view hierarchy.View, who, id hierarchy.ID) bool {
	return id == who || slices.Contains(view.Persons(who), id) ||
		slices.ContainsFunc(view.Assignments(who), func(x hierarchy.AssignmentFact) bool { return x.Node == id })
}

// accounts returns all principals of the human being behind one.
func accounts(view hierarchy.View, principal hierarchy.ID) []hierarchy.ID {
	ids := []hierarchy.ID{principal}
	if persons := view.Persons(principal); len(persons) > 0 {
		ids = append(ids, view.Principals(persons...)...)
	}
	sortIDs(ids)
	return slices.Compact(ids)
}

// need fills in whose signatures a grant of a known type takes, and lets one about
// a minor end where they begin to have a say. It refuses co-signers that are none.
func need(w world, view hierarchy.View, e *hierarchy.Event, coSigners []hierarchy.ID) (*hierarchy.Refusal, error) {
	g, cat := e.Grant, w.set.Catalogue()
	add := func(as hierarchy.Signer, by hierarchy.ID) {
		if n := (hierarchy.Need{As: as, By: by}); !slices.Contains(g.Needs, n) {
			g.Needs = append(g.Needs, n)
		}
	}
	for _, n := range cat.GrantTypes[g.Type].Needs {
		switch n {
		case "grantor":
			add(hierarchy.SignerGrantor, g.Grantor)
		case "subject":
			add(hierarchy.SignerSubject, g.Subject)
		case "verifier":
			add(hierarchy.SignerVerifier, hierarchy.ID{})
		case "co-signer":
			if len(coSigners) == 0 {
				return &hierarchy.Refusal{Code: "co_signer_missing", Text: "a grant of this type takes the signature of somebody else too: name them as co-signers"}, nil
			}
			for _, by := range coSigners {
				if !coSigns(w, view, g, by) {
					return &hierarchy.Refusal{Code: "co_signer_missing", Text: "a co-signer is of the person's family, or acts for them as a parent or guardian, and is not the grantee"}, nil
				}
				add(hierarchy.SignerCoSigner, by)
			}
		case "assent":
			from, asked, err := assent(cat, view, g.Subject)
			if err != nil {
				return nil, err
			}
			switch {
			case !asked:
			case from <= e.Valid.From:
				add(hierarchy.SignerSubject, g.Subject)
			default:
				e.Valid.To = min(e.Valid.To, from)
			}
		}
	}
	return nil, nil
}

// coSigns reports whether a person or principal may co-sign a grant: family of
// its subject, or somebody who acts for them as a parent or guardian; by no
// account the grantee.
func coSigns(w world, view hierarchy.View, g *hierarchy.Grant, by hierarchy.ID) bool {
	persons, users := view.Merged(by), []hierarchy.ID{by}
	if by.Type != hierarchy.PersonType {
		persons = view.Persons(by)
	}
	if len(persons) > 0 {
		users = append(users, view.Principals(persons...)...)
	}
	if slices.Contains(users, g.Grantee) {
		return false
	}
	for _, subject := range view.Merged(g.Subject) {
		if overlap(view.Family(subject), persons) {
			return true
		}
		for _, u := range users {
			if slices.ContainsFunc(w.set.Catalogue().FamilyGrants, func(typ string) bool { return view.Granted(u, subject, typ) }) {
				return true
			}
		}
	}
	return false
}

// assent returns from when on a person must agree to grants about them, by any of
// their merged identities; asked is false where the law of the place does not say.
func assent(cat *policies.Catalogue, view hierarchy.View, person hierarchy.ID) (from hierarchy.Instant, asked bool, err error) {
	for _, id := range view.Merged(person) {
		n, _, ok := view.Node(id)
		if !ok || n.Person == nil || n.Person.BirthDate == "" {
			return 0, true, nil // whose age is unknown must agree
		}
		law, ok := lawOf(cat, n.Person.Jurisdiction)
		if !ok || law.Assent == 0 {
			continue
		}
		zone, err := hierarchy.Zone(law.Zone)
		if err != nil {
			return 0, false, err
		}
		at, err := hierarchy.Majority(n.Person.BirthDate, law.Assent, zone)
		if err != nil {
			return 0, false, err
		}
		if !asked || at < from {
			from, asked = at, true
		}
	}
	return from, asked, nil
}

func signature(grant string, n hierarchy.Need, who hierarchy.ID, from hierarchy.Instant) hierarchy.Event {
	if n.As == hierarchy.SignerVerifier {
		n.By = who
	}
	return hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindSignature, Valid: hierarchy.Interval{From: from, To: hierarchy.Forever},
		Signature: &hierarchy.Signature{Grant: grant, Need: n, Principal: who}}
}

// SignGrant signs a grant, as what the pack and the grant let the asker sign it.
// Somebody who can sign it in several ways says which.
func (p *PDP) SignGrant(ctx context.Context, a Asking, id string, as hierarchy.Signer) (Delegated, error) {
	if err := p.rates.take(a.Caller, 1); err != nil {
		return Delegated{}, err
	}
	verdict, changed, err := p.act(ctx, a, func(w world, view hierarchy.View, who hierarchy.ID) (deed, error) {
		draft := signature(id, hierarchy.Need{As: as, By: who}, who, w.now)
		d := deed{asks: []*asked{p.question(w, a, ActionApproveGrant, policies.KindGrant, id, &draft)}}
		f, ok := view.Grant(id)
		if !ok {
			return d, nil // a recorded deny
		}
		d.events = func([]bool) []hierarchy.Event {
			var events []hierarchy.Event
			for _, n := range f.Needs {
				if n.As == as && (n.By.IsZero() || actsFor(view, who, n.By)) {
					// One that was given and has not ended is not given twice.
					if !slices.ContainsFunc(view.Signatures(id), func(s hierarchy.SignatureFact) bool {
						return s.As == as && (s.By == n.By || n.By.IsZero()) && s.Valid.Holds(w.now)
					}) {
						events = append(events, signature(id, n, who, w.now))
					}
				}
			}
			return events
		}
		return d, nil
	})
	if err != nil {
		return Delegated{}, err
	}
	return p.after(id, verdict, changed)
}

// RevokeGrant ends a grant now, and with it those made from it. One that has not
// begun, or only been asked for, never was.
func (p *PDP) RevokeGrant(ctx context.Context, a Asking, id string) (Delegated, error) {
	verdict, changed, err := p.act(ctx, a, func(w world, view hierarchy.View, _ hierarchy.ID) (deed, error) {
		d := deed{asks: []*asked{p.question(w, a, ActionRevokeGrant, policies.KindGrant, id, nil)}}
		f, ok := view.Grant(id)
		if !ok || f.Voided {
			return d, nil
		}
		d.events = func([]bool) []hierarchy.Event {
			switch e := (hierarchy.Event{Kind: hierarchy.KindGrant, Fact: f.Fact}); {
			case f.Valid.To <= w.now:
				return nil
			case f.Valid.From < w.now:
				e.Op, e.At = hierarchy.End, w.now
				return []hierarchy.Event{e}
			default:
				e.Op = hierarchy.Void
				return []hierarchy.Event{e}
			}
		}
		return d, nil
	})
	if err != nil {
		return Delegated{}, err
	}
	return p.after(id, verdict, changed)
}

// after returns a grant as it stands after a change.
func (p *PDP) after(id string, v authz.Verdict, c Changed) (Delegated, error) {
	now, err := p.clock.now()
	if err != nil {
		return Delegated{}, err
	}
	view := p.View(now, c.Revision)
	f, ok := view.Grant(id)
	if !ok {
		return Delegated{}, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the grant cannot be read back"}
	}
	out := shown(view, f, now)
	out.Obligations, out.Receipt = v.Obligations, authz.Receipt{Record: c.Record, Revision: c.Revision}
	return out, nil
}

// OpenEmergency opens an emergency for the asker ("break glass"), on the records
// of whoever owns the node that x names. Of x, Node, Reason (one of the pack's),
// Text and Ticket count.
func (p *PDP) OpenEmergency(ctx context.Context, a Asking, x hierarchy.Emergency) (hierarchy.EmergencyFact, authz.Verdict, Changed, error) {
	id := newID("e-")
	verdict, changed, err := p.act(ctx, a, func(w world, view hierarchy.View, who hierarchy.ID) (deed, error) {
		access := w.set.Catalogue().Emergency
		if access == nil {
			access = &policies.EmergencyAccess{}
		}
		x := x
		x.ID, x.Principal = id, who
		if owners := view.Owners(x.Node); len(owners) > 0 {
			x.Person = owners[0]
		}
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindEmergency, Emergency: &x,
			Valid: hierarchy.Interval{From: w.now, To: w.now + hierarchy.Instant(access.Minutes)*hierarchy.Instant(time.Minute/time.Millisecond)}}
		d := deed{asks: []*asked{p.question(w, a, ActionOpenEmergency, policies.KindEmergency, id, &e)},
			events: func([]bool) []hierarchy.Event { return []hierarchy.Event{e} }}
		switch {
		case len(access.Reasons) == 0:
			return d.declined("emergency_unknown", "the pack knows no emergencies"), nil
		case !slices.Contains(access.Reasons, x.Reason):
			return d.declined("reason_unknown", "the reason is one of "+strings.Join(access.Reasons, ", ")), nil
		case strings.TrimSpace(x.Text) == "":
			return d.declined("text_missing", "write what the emergency is: the privacy office reads it"), nil
		}
		return d, nil
	})
	if err != nil {
		return hierarchy.EmergencyFact{}, authz.Verdict{}, Changed{}, err
	}
	f, err := p.emergency(id, changed)
	return f, verdict, changed, err
}

// EndEmergency ends an emergency before its time.
func (p *PDP) EndEmergency(ctx context.Context, a Asking, id string) (hierarchy.EmergencyFact, Changed, error) {
	return p.closing(ctx, a, ActionEndEmergency, id, func(w world, f hierarchy.EmergencyFact, _ hierarchy.ID) []hierarchy.Event {
		if !f.Valid.Holds(w.now) || f.Valid.From == w.now {
			return nil
		}
		return []hierarchy.Event{{Op: hierarchy.End, Kind: hierarchy.KindEmergency, Fact: f.Fact, At: w.now}}
	})
}

// ReviewEmergency closes the case of an emergency: its outcome is "justified" or
// "unjustified".
func (p *PDP) ReviewEmergency(ctx context.Context, a Asking, id, outcome, text string) (hierarchy.EmergencyFact, Changed, error) {
	return p.closing(ctx, a, ActionReviewEmergency, id, func(w world, f hierarchy.EmergencyFact, who hierarchy.ID) []hierarchy.Event {
		return []hierarchy.Event{{Op: hierarchy.Assert, Kind: hierarchy.KindReview, Valid: hierarchy.Interval{From: w.now, To: hierarchy.Forever},
			Review: &hierarchy.Review{Emergency: id, By: who, Outcome: outcome, Text: text}}}
	})
}

func (p *PDP) closing(ctx context.Context, a Asking, action, id string, events func(world, hierarchy.EmergencyFact, hierarchy.ID) []hierarchy.Event) (hierarchy.EmergencyFact, Changed, error) {
	_, changed, err := p.act(ctx, a, func(w world, view hierarchy.View, who hierarchy.ID) (deed, error) {
		d := deed{asks: []*asked{p.question(w, a, action, policies.KindEmergency, id, nil)}}
		if f, ok := view.Emergency(id); ok {
			d.events = func([]bool) []hierarchy.Event { return events(w, f, who) }
		}
		return d, nil
	})
	if err != nil {
		return hierarchy.EmergencyFact{}, Changed{}, err
	}
	f, err := p.emergency(id, changed)
	return f, changed, err
}

func (p *PDP) emergency(id string, c Changed) (hierarchy.EmergencyFact, error) {
	now, err := p.clock.now()
	if err != nil {
		return hierarchy.EmergencyFact{}, err
	}
	f, ok := p.View(now, c.Revision).Emergency(id)
	if !ok {
		return hierarchy.EmergencyFact{}, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the emergency cannot be read back"}
	}
	return f, nil
}

// MaxListed is how many grants one listing shows at most: those that are not over
// come before those that are.
const MaxListed = 200

// Grants returns the grants that the asker is the grantee or the subject of, by
// id, as far as the pack lets them see each. The listing is one recorded
// decision, whatever it shows.
func (p *PDP) Grants(ctx context.Context, a Asking) ([]Delegated, authz.Receipt, error) {
	return p.grants(ctx, a, func(view hierarchy.View, who hierarchy.ID) []hierarchy.GrantFact {
		found := view.GrantsOf(who)
		for _, person := range view.Persons(who) {
			found = append(found, view.GrantsOf(person)...)
		}
		return found
	})
}

// Grant returns one grant, as far as the pack lets the asker see it.
func (p *PDP) Grant(ctx context.Context, a Asking, id string) (Delegated, error) {
	list, receipt, err := p.grants(ctx, a, func(view hierarchy.View, _ hierarchy.ID) []hierarchy.GrantFact {
		f, _ := view.Grant(id)
		f.ID = id // one that is not known is denied, and recorded too
		return []hierarchy.GrantFact{f}
	})
	if err != nil {
		return Delegated{}, err
	}
	if len(list) == 0 {
		return Delegated{}, &authz.Error{Kind: authz.Refused, Code: authz.UnknownResource, Record: receipt.Record, Text: "there is no such grant, or you may not see it"}
	}
	return list[0], nil
}

func (p *PDP) grants(ctx context.Context, a Asking, find func(hierarchy.View, hierarchy.ID) []hierarchy.GrantFact) ([]Delegated, authz.Receipt, error) {
	if err := p.rates.take(a.Caller, 1); err != nil {
		return nil, authz.Receipt{}, err
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
		return nil, authz.Receipt{}, err
	}
	view := w.graph.At(w.now, w.rev, w.confers)
	who := w.asker(a.Subject)
	found := find(view, who)
	slices.SortFunc(found, func(x, y hierarchy.GrantFact) int { return strings.Compare(x.ID, y.ID) })
	found = slices.CompactFunc(found, func(x, y hierarchy.GrantFact) bool { return x.ID == y.ID })
	if len(found) > MaxListed { // what is over gives way to what is not
		over := func(f *hierarchy.GrantFact) int {
			switch f.State(w.now) {
			case hierarchy.GrantActive, hierarchy.GrantRequested, hierarchy.GrantFuture:
				return 0
			}
			return 1
		}
		slices.SortStableFunc(found, func(x, y hierarchy.GrantFact) int { return over(&x) - over(&y) })
		found = found[:MaxListed]
		slices.SortFunc(found, func(x, y hierarchy.GrantFact) int { return strings.Compare(x.ID, y.ID) })
	}
	if len(found) == 0 {
		found = []hierarchy.GrantFact{{}} // no grant: a recorded deny
	}
	rec := recording{kind: audit.Decision, world: w, head: cur.head}
	out := []Delegated{}
	for _, f := range found {
		ask := p.question(w, a, ActionViewGrant, policies.KindGrant, f.ID, nil)
		j := w.judge(ask)
		rec.items = append(rec.items, item{ask, j})
		if d := authz.Enforce(authz.Decision{Verdict: j.verdict}, a.Caller); d.Allowed() {
			g := shown(view, f, w.now)
			g.Obligations = d.Obligations
			out = append(out, g)
		}
	}
	seq, err := p.append(ctx, &rec)
	if err != nil {
		return nil, authz.Receipt{}, err
	}
	receipt := authz.Receipt{Record: audit.ID(seq), Revision: w.rev}
	if who.IsZero() {
		return nil, receipt, &authz.Error{Kind: authz.Refused, Code: rec.items[0].verdict.Code, Record: receipt.Record, Text: "this is not permitted"}
	}
	for i := range out {
		out[i].Receipt = receipt
	}
	if own && !delivery.Leave() {
		return nil, authz.Receipt{}, &authz.Error{Kind: authz.Outage, Code: authz.Superseded, Text: "a change overtook the answer: ask again"}
	}
	return out, receipt, nil
}

// deed is something that somebody asks to do: the pack must allow the first
// question; what it says to the others decides which events are made.
type deed struct {
	asks   []*asked
	events func(allowed []bool) []hierarchy.Event
	// refusal is why the facts do not admit it. It is told to whom the pack allows
	// it, for it tells of the facts.
	refusal *hierarchy.Refusal
	// veiled hides why it is denied: the asker is told no more than of what does
	// not exist.
	veiled bool
}

// declined is the deed that cannot be done whoever asks.
func (d deed) declined(code, text string) deed {
	d.refusal = &hierarchy.Refusal{Code: code, Text: text}
	d.asks[0].Declined = authz.Code(code)
	return d
}

// act decides what somebody asks to do and does it, as one record and one
// revision. What is denied is recorded and refused with the verdict's code; what
// the facts do not admit, with that of the *[hierarchy.Refusal] that it wraps.
//
// What comes to nothing is judged and recorded beside the changes, like any
// decision, so that nobody holds them up by asking for what they may not. What is
// to be done is judged again with p.changing held: the facts that it was judged
// by must be those that it is written to, or two requests would pass one limit.
func (p *PDP) act(ctx context.Context, a Asking, plan func(world, hierarchy.View, hierarchy.ID) (deed, error)) (authz.Verdict, Changed, error) {
	_, delivery := authz.Deliver(ctx)
	defer delivery.Done()
	t, err := p.weigh(p.flights.take(&p.current, delivery), a, plan)
	if err != nil {
		return authz.Verdict{}, Changed{}, err
	}
	if len(t.events) > 0 {
		t.refusal = p.unfit(t)
	}
	if len(t.events) == 0 || t.refusal != nil {
		err := p.decline(ctx, t, t.refusal)
		if !delivery.Leave() {
			err = &authz.Error{Kind: authz.Outage, Code: authz.Superseded, Text: "a change overtook the answer: ask again"}
		}
		return authz.Verdict{}, Changed{}, err
	}
	delivery.Done() // or the change would wait for it

	p.changing.Lock()
	defer p.changing.Unlock()
	if t, err = p.weigh(p.current.Load(), a, plan); err != nil {
		return authz.Verdict{}, Changed{}, err
	}
	if len(t.events) == 0 {
		return authz.Verdict{}, Changed{}, p.decline(ctx, t, t.refusal)
	}
	events, err := complete(t.world, t.events)
	var changed Changed
	if err == nil {
		batch := &hierarchy.Batch{Time: t.world.now, Events: events, Provenance: hierarchy.Provenance{
			Who: t.items[0].principal, Right: strings.Join(t.first.Reasons, " "), Why: a.Why, Ticket: a.Ticket}}
		changed, err = p.commit(ctx, &t.recording, batch)
	}
	if refusal, ok := errors.AsType[*hierarchy.Refusal](err); ok {
		err = p.decline(ctx, t, refusal)
	}
	return t.first.Verdict, changed, err
}

// unfit returns why the facts do not admit the events of a deed, as they are now.
func (p *PDP) unfit(t weighed) *hierarchy.Refusal {
	events, err := complete(t.world, t.events)
	if err == nil {
		err = p.graph.Check(&hierarchy.Batch{Time: t.world.now, Events: events, Provenance: hierarchy.Provenance{Who: t.items[0].principal}})
	}
	refusal, _ := errors.AsType[*hierarchy.Refusal](err)
	return refusal
}

// weighed is a deed as it was judged: what is recorded, and what comes of it.
type weighed struct {
	recording
	first   authz.Decision // as the caller's door would render it
	events  []hierarchy.Event
	refusal *hierarchy.Refusal
	veiled  bool
}

// weigh plans and judges a deed.
func (p *PDP) weigh(cur *pair, a Asking, plan func(world, hierarchy.View, hierarchy.ID) (deed, error)) (weighed, error) {
	w, err := p.world(cur)
	if err != nil {
		return weighed{}, err
	}
	d, err := plan(w, w.graph.At(w.now, w.rev, w.confers), w.asker(a.Subject))
	if err != nil {
		return weighed{}, err
	}
	t := weighed{recording: recording{kind: audit.Change, world: w, head: cur.head}, refusal: d.refusal, veiled: d.veiled}
	allowed := make([]bool, len(d.asks))
	for i, ask := range d.asks {
		if !legible(ask.Draft) {
			return weighed{}, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "what is asked for holds an id that is none"}
		}
		j := w.judge(ask)
		t.items = append(t.items, item{ask, j})
		allowed[i] = authz.Enforce(authz.Decision{Verdict: j.verdict}, a.Caller).Allowed()
	}
	t.first = authz.Enforce(authz.Decision{Verdict: t.items[0].verdict}, a.Caller)
	switch {
	case d.asks[0].Declined != "":
	case !t.first.Allowed():
		t.refusal = nil // not to be told of
	case t.refusal == nil && d.events != nil:
		t.events = d.events(allowed)
	}
	return t, nil
}

// legible reports whether a draft can be read back from a record: whoever asks
// beside a door may have left an id out.
func legible(draft *hierarchy.Event) bool {
	raw, err := json.Marshal(draft)
	var again *hierarchy.Event
	return err == nil && json.Unmarshal(raw, &again) == nil
}

// decline records that nothing comes of a deed, and returns what the asker is
// told: why the facts do not admit it, or else what the verdict is.
func (p *PDP) decline(ctx context.Context, t weighed, r *hierarchy.Refusal) error {
	t.kind = audit.Decision
	if first := t.items[0].asked; r != nil && first.Declined == "" {
		ask := *first
		ask.Declined = authz.Code(r.Code)
		t.items = []item{{&ask, t.world.judge(&ask)}}
	}
	seq, err := p.append(ctx, &t.recording)
	if err != nil {
		return err
	}
	refused := &authz.Error{Kind: authz.Refused, Code: t.first.Code, Record: audit.ID(seq), Text: "this is not permitted"}
	switch {
	case r != nil:
		refused.Code, refused.Text, refused.Err = authz.Code(r.Code), r.Text, r
	case t.first.Allowed():
		refused.Code, refused.Text = authz.NothingToDo, "there is nothing to do: it is done already, or over"
	case t.veiled:
		refused.Code = authz.UnknownResource
	}
	return refused
}

// asker resolves who asks, or returns the zero ID: the question is then denied.
func (w world) asker(s authz.Subject) hierarchy.ID {
	pt := w.set.Catalogue().Principals[s.Type]
	if pt == nil || !s.IsVerified() {
		return hierarchy.ID{}
	}
	j := &judging{world: w, asked: &asked{Subject: askedSubject{Type: s.Type, ID: s.ID, Issuer: s.Issuer}}, cat: w.set.Catalogue(),
		view: w.graph.At(w.now, w.rev, w.confers), principalType: pt, resource: &policies.ResourceType{Kind: policies.KindWard}}
	if j.resolveSubject() != "" {
		return hierarchy.ID{}
	}
	return j.principal
}

// question asks the pack about a grant or an emergency.
func (p *PDP) question(w world, a Asking, action string, kind policies.ResourceKind, id string, draft *hierarchy.Event) *asked {
	typ := string(kind)
	for name, rt := range w.set.Catalogue().Resources {
		if rt.Kind == kind { // there is at most one
			typ = name
		}
	}
	return &asked{Caller: a.Caller.Name, Verified: a.Subject.IsVerified(), Performs: a.Caller.Performs,
		Subject: askedSubject{Type: a.Subject.Type, ID: a.Subject.ID, Issuer: a.Subject.Issuer, Assurance: a.Subject.Assurance},
		Action:  action, Resource: askedResource{Type: typ, ID: id}, Draft: draft}
}

// newID returns an id that nobody can guess: 16 characters after the prefix.
func newID(prefix string) string {
	var b [10]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(fmt.Sprintf("pdp: no randomness: %v", err)) // the system cannot go on
	}
	return idOf(prefix, b[:])
}

// keyed returns the id that a key of a principal's stands for. Nobody can guess
// it, or make another's: it is a keyed hash of both.
func (p *PDP) keyed(prefix string, who hierarchy.ID, key string) string {
	sum := sha256.Sum256([]byte(p.keys.Hash("request", who.String(), key)))
	return idOf(prefix, sum[:10])
}

func idOf(prefix string, b []byte) string {
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(b))
}
