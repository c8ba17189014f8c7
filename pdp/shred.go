package pdp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// KeyChange is a change of the ledger's keys that somebody asks to make.
type KeyChange struct {
	// Actor is who asks, Caller the program they use, as in a [Change].
	Actor  authz.Subject
	Caller authz.Caller
	// Tenant ("" is the operator) and Day (2006-01-02, UTC) name a seal key.
	Tenant string
	Day    string
	// Why and Ticket are kept with the change.
	Why, Ticket string
}

// KeyChanged says what a change of keys became.
type KeyChanged struct {
	Record string // that says so
	// Again is set where it had been done before, by that record.
	Again bool
	// Verifier holds the ledger's public keys, one a line, after a rotation.
	Verifier string
}

// clearKeys is what the record of a change of keys says, where that of a change
// of facts says "change". Package audit reads old and new.
type clearKeys struct {
	Op string `json:"op"`
	// Of a shred and of a loss: the seal key.
	Tenant string `json:"tenant,omitempty"` // keyed hash
	Day    string `json:"day,omitempty"`
	Key    string `json:"key,omitempty"`
	// Of a rotation: the verifiers of the two signers.
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
	Who   string `json:"who"` // keyed hash
	Right string `json:"right"`
}

const (
	opShred  = "shred"
	opLoss   = "loss"
	opRotate = "rotate"
)

func (k *clearKeys) seal() audit.Seal { return audit.Seal{Tenant: k.Tenant, Day: k.Day, Key: k.Key} }

// by says who made a change of keys.
func (k clearKeys) by(keys *audit.Keys, why *hierarchy.Provenance) *clearKeys {
	k.Who, k.Right = keys.Hash("principal", "", why.Who.String()), why.Right
	return &k
}

// dayOpen is how long after its end a day is open: an answer may still be on its
// way into the ledger.
const dayOpen = time.Hour

// Shred destroys the seal key of a tenant and day, for good: what the records of
// that day hold of that tenant verifies from then on, and can be read no more.
// Ward's own policies decide it (audit.shred, at the tenant or the operator), and
// the record is durable before the key is destroyed; what a crash leaves in
// between, the next [Open] does. Asked again it answers with the first record.
//
// It is refused with a *[hierarchy.Refusal] for a day that is not over
// (day_open), and where there is no such key (nothing_to_shred).
func (p *PDP) Shred(ctx context.Context, c KeyChange) (KeyChanged, error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	rec, err := p.keyAnswer(ctx, c, "audit.shred")
	if err != nil {
		return KeyChanged{}, err
	}
	end, err := dayEnd(c.Day)
	if err != nil {
		return KeyChanged{}, err
	}
	if rec.world.now < end+hierarchy.Instant(dayOpen.Milliseconds()) {
		return KeyChanged{}, refuseKey("day_open", "records of this day may still come: it can be shredded an hour after it ends, in UTC")
	}
	k := clearKeys{Op: opShred, Tenant: p.keys.Hash("tenant", "", c.Tenant), Day: c.Day}
	k.Key, err = p.keys.SealKeyID(k.Tenant, k.Day)
	if errors.Is(err, audit.ErrNoKey) {
		return p.shreddedBefore(k)
	}
	if err != nil {
		return KeyChanged{}, &IntegrityError{Text: "the seal key cannot be read"}
	}
	return p.changeKeys(ctx, rec, k)
}

// shreddedBefore finds the record by which a key was destroyed.
func (p *PDP) shreddedBefore(k clearKeys) (KeyChanged, error) {
	changes, err := keyChangesOf(p.ledger.Scan(0))
	if err != nil {
		return KeyChanged{}, err
	}
	for seal, done := range changes.seals {
		if seal.Tenant == k.Tenant && seal.Day == k.Day && done.op == opShred {
			return KeyChanged{Record: done.record, Again: true}, nil
		}
	}
	return KeyChanged{}, refuseKey("nothing_to_shred", "there is no key of this tenant and day: no record was sealed with one, or it is missing")
}

// RecordLoss puts on record that the seal keys of a tenant and day that are
// missing were lost, and why. It is decided by Ward's own policies (key.change),
// and refused where none is missing unexplained (nothing_lost).
func (p *PDP) RecordLoss(ctx context.Context, c KeyChange) (out KeyChanged, err error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	rec, err := p.keyAnswer(ctx, c, "key.change")
	if err != nil {
		return out, err
	}
	if _, err := dayEnd(c.Day); err != nil {
		return out, err
	}
	if strings.TrimSpace(c.Why) == "" {
		return out, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "say why the key was lost"}
	}
	ring, err := p.keyring()
	if err != nil {
		return out, err
	}
	out, err = KeyChanged{}, refuseKey("nothing_lost", "no key of this tenant and day is missing without a record")
	for _, s := range ring.Seals {
		if s.Hash == p.keys.Hash("tenant", "", c.Tenant) && s.Day == c.Day && s.Status == KeyMissing {
			if out, err = p.changeKeys(ctx, rec, clearKeys{Op: opLoss, Tenant: s.Hash, Day: s.Day, Key: s.ID}); err != nil {
				return out, err
			}
		}
	}
	return out, err
}

// RotateSigner replaces the key that signs the checkpoints. Ward's own policies
// decide it (key.change); the record names both keys, and a checkpoint of the
// old one covers it before the new one signs. What a crash leaves in between,
// the next [Open] does.
func (p *PDP) RotateSigner(ctx context.Context, c KeyChange) (KeyChanged, error) {
	p.changing.Lock()
	defer p.changing.Unlock()
	c.Tenant = ""
	rec, err := p.keyAnswer(ctx, c, "key.change")
	if err != nil {
		return KeyChanged{}, err
	}
	verifiers := strings.Fields(p.keys.Verifier())
	next, err := p.keys.NewSigner()
	if err != nil {
		return KeyChanged{}, &authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed, Text: "the new key could not be made; nothing was changed", Err: err}
	}
	out, err := p.changeKeys(ctx, rec, clearKeys{Op: opRotate, Old: verifiers[len(verifiers)-1], New: next})
	out.Verifier = p.keys.Verifier()
	return out, err
}

// keyAnswer decides a change of keys. A deny is recorded and refused.
func (p *PDP) keyAnswer(ctx context.Context, c KeyChange, action string) (*recording, error) {
	rec, err := p.ownAnswer(c.Actor, c.Caller, action, hierarchy.TenantID(c.Tenant))
	if err != nil {
		return nil, err
	}
	v := rec.items[0].verdict
	if !v.Effect {
		return nil, p.refuse(ctx, rec, action)
	}
	rec.kind = audit.Change
	rec.why = &hierarchy.Provenance{Who: rec.items[0].principal, Right: strings.Join(v.Reasons, " "), Why: c.Why, Ticket: c.Ticket}
	return rec, nil
}

// changeKeys records a change of keys, and makes it. The caller holds p.changing.
func (p *PDP) changeKeys(ctx context.Context, rec *recording, k clearKeys) (KeyChanged, error) {
	if err := ctx.Err(); err != nil {
		return KeyChanged{}, &authz.Error{Kind: authz.Outage, Code: authz.Busy, Text: "the caller did not wait; nothing was changed", Err: err}
	}
	rec.keys = k.by(p.keys, rec.why)
	seq, err := p.append(context.WithoutCancel(ctx), rec)
	if err != nil {
		return KeyChanged{}, err
	}
	if err := p.finish(rec.keys); err != nil {
		return KeyChanged{}, p.fail(&authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed,
			Text: "a change of keys is on record and was cut off in the middle: restart", Err: err})
	}
	return KeyChanged{Record: audit.ID(seq)}, nil
}

// finish does what the record of a change of keys says, once or again.
func (p *PDP) finish(k *clearKeys) error {
	switch k.Op {
	case opShred:
		return p.keys.Destroy(k.Tenant, k.Day)
	case opRotate:
		return p.ledger.Adopt(k.New)
	}
	return nil
}

func dayEnd(day string) (hierarchy.Instant, error) {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return 0, &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "a day is a date such as 2026-01-31"}
	}
	return hierarchy.At(t.AddDate(0, 0, 1)), nil
}

func refuseKey(code, text string) error {
	return &hierarchy.Refusal{Code: code, Index: -1, Text: text}
}

// KeyStatus says whether a seal key is there, and if not, why.
type KeyStatus string

// The states of a seal key that a record was sealed with.
const (
	KeyPresent  KeyStatus = "present"
	KeyShredded KeyStatus = "shredded" // destroyed, by a record
	KeyLost     KeyStatus = "lost"     // gone, as a record says
	KeyMissing  KeyStatus = "missing"  // gone or damaged, and no record says why
	KeyKept     KeyStatus = "kept"     // a record says that it was destroyed: it came back
	KeyWithheld KeyStatus = "withheld" // not in the case
)

// Keyring is what the keys of a ledger are, and how they came to it or went.
type Keyring struct {
	Signers []SignerKey `json:"signers"` // in the order in which they signed
	HashKey string      `json:"hashKey"` // the id of the key of identifiers
	Seals   []SealKey   `json:"seals"`   // by day and tenant
}

// SignerKey is the public half of a key that signs or signed the checkpoints.
type SignerKey struct {
	Verifier string `json:"verifier"`
	Record   string `json:"record,omitempty"` // that named it; the first has none
}

// SealKey is a key that records were sealed with.
type SealKey struct {
	Day string `json:"day"`
	// Tenant is its name where it is known, Hash its keyed hash. The operator is
	// a tenant without a name.
	Tenant   string    `json:"tenant,omitempty"`
	Operator bool      `json:"operator,omitempty"`
	Hash     string    `json:"hash"`
	ID       string    `json:"id"`
	Status   KeyStatus `json:"status"`
	Record   string    `json:"record,omitempty"` // that says so
}

// Unexplained counts the seal keys that are not as the records say.
func (k Keyring) Unexplained() (n int) {
	for _, s := range k.Seals {
		if s.Status == KeyMissing || s.Status == KeyKept {
			n++
		}
	}
	return n
}

// ReadKeyring compares a key folder with all entries of its ledger. Tenants are
// the names that may be shown. It writes nothing, and works on copies.
func ReadKeyring(keys *audit.Keys, entries iter.Seq2[audit.Entry, error], tenants []string) (Keyring, error) {
	sealed := map[audit.Seal]bool{}
	changes, err := keyChangesOf(func(yield func(audit.Entry, error) bool) {
		for e, err := range entries {
			for _, s := range e.Seals() {
				sealed[s] = true
			}
			if !yield(e, err) {
				return
			}
		}
	})
	if err != nil {
		return Keyring{}, err
	}
	operator := keys.Hash("tenant", "", "")
	names := map[string]string{}
	for _, name := range tenants {
		names[keys.Hash("tenant", "", name)] = name
	}
	ring := Keyring{HashKey: strings.Split(operator, ":")[1], Seals: []SealKey{}}
	for _, v := range strings.Fields(keys.Verifier()) {
		ring.Signers = append(ring.Signers, SignerKey{v, changes.signers[v]})
	}
	for s := range sealed {
		k := SealKey{Day: s.Day, Tenant: names[s.Tenant], Operator: s.Tenant == operator, Hash: s.Tenant, ID: s.Key}
		if k.Status, k.Record, err = changes.status(keys, s); err != nil {
			return Keyring{}, err
		}
		ring.Seals = append(ring.Seals, k)
	}
	slices.SortFunc(ring.Seals, func(a, b SealKey) int {
		return cmp.Or(strings.Compare(a.Day, b.Day), strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Hash, b.Hash), strings.Compare(a.ID, b.ID))
	})
	return ring, nil
}

// Keyring lists the ledger's keys, for an admin who may read the audit.
func (p *PDP) Keyring(ctx context.Context, actor authz.Subject, caller authz.Caller) (Keyring, error) {
	if err := p.Permit(ctx, actor, caller, "audit.read"); err != nil {
		return Keyring{}, err
	}
	return p.keyring()
}

func (p *PDP) keyring() (Keyring, error) {
	var tenants []string
	for f := range p.View(0, 0).Facts(hierarchy.KindNode) {
		if id := f.Event.Node.ID; id.Type == hierarchy.TenantType {
			tenants = append(tenants, id.Key)
		}
	}
	return ReadKeyring(p.keys, p.ledger.Scan(0), tenants)
}

// keyChanges is what the records of a ledger say of its keys.
type keyChanges struct {
	seals   map[audit.Seal]keyDone
	signers map[string]string // the record that named each, by verifier
}

type keyDone struct{ op, record string }

func keyChangesOf(entries iter.Seq2[audit.Entry, error]) (keyChanges, error) {
	c := keyChanges{map[audit.Seal]keyDone{}, map[string]string{}}
	for e, err := range entries {
		if err != nil {
			return c, err
		}
		if e.Kind != audit.Change {
			continue
		}
		var clear clearPart
		if err := json.Unmarshal(e.Clear, &clear); err != nil {
			return c, &IntegrityError{Record: e.ID(), Text: "the clear part cannot be read"}
		}
		c.note(e.ID(), clear.Keys)
	}
	return c, nil
}

// note takes in a record.
func (c keyChanges) note(record string, k *clearKeys) {
	switch {
	case k == nil:
	case k.Op == opRotate:
		c.signers[k.New] = record
	default:
		c.seals[k.seal()] = keyDone{k.Op, record}
	}
}

// status says how a seal key is, and which record says so.
func (c keyChanges) status(keys *audit.Keys, s audit.Seal) (KeyStatus, string, error) {
	id, err := keys.SealKeyID(s.Tenant, s.Day)
	if err != nil && !errors.Is(err, audit.ErrNoKey) && !errors.Is(err, audit.ErrCorrupt) {
		return "", "", err
	}
	done := c.seals[s]
	switch here := err == nil && id == s.Key; {
	case here && done.op == opShred:
		return KeyKept, done.record, nil
	case here:
		return KeyPresent, "", nil
	case done.op == opShred:
		return KeyShredded, done.record, nil
	case done.op == opLoss:
		return KeyLost, done.record, nil
	}
	return KeyMissing, "", nil
}

// GoneError: a seal key of a record is not there. The record verifies, and
// cannot be read. It wraps [audit.ErrNoKey].
type GoneError struct {
	Record string
	Status KeyStatus // KeyShredded, KeyLost or KeyMissing
	By     string    // the record that says so
}

func (e *GoneError) Error() string {
	switch e.Status {
	case KeyShredded:
		return "record " + e.Record + " is shredded: its key was destroyed (" + e.By + ")"
	case KeyLost:
		return "the key of record " + e.Record + " was lost (" + e.By + ")"
	}
	return "the key of record " + e.Record + " is missing, and no record says why"
}

func (e *GoneError) Unwrap() error { return audit.ErrNoKey }

// Gone says why an entry cannot be read for want of a key, from all entries of
// its ledger. Of several keys it is about the one that is worst explained.
func Gone(keys *audit.Keys, e audit.Entry, entries iter.Seq2[audit.Entry, error]) error {
	changes, err := keyChangesOf(entries)
	if err != nil {
		return err
	}
	return changes.gone(keys, e)
}

func (c keyChanges) gone(keys *audit.Keys, e audit.Entry) error {
	out := &GoneError{Record: e.ID()}
	for _, s := range e.Seals() {
		status, by, err := c.status(keys, s)
		if err != nil {
			return err
		}
		worse := status == KeyShredded && out.Status == "" || status == KeyLost && out.Status != KeyMissing || status == KeyMissing
		if worse {
			out.Status, out.By = status, by
		}
	}
	return out
}
