package pdp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Semantics is the version of what records mean: it is raised when the same
// inputs would give another Verdict. A binary replays its own version bit for
// bit and older ones by decision and reasons.
const Semantics = 2

// clearPart is the part of a record that everybody may read. It holds no
// identifier: those are keyed hashes, and names that a caller chose freely are
// left to the sealed part.
type clearPart struct {
	Semantics int            `json:"sem"`
	Set       string         `json:"set,omitempty"`
	Revision  uint64         `json:"rev"`
	Head      hierarchy.Hash `json:"head"`
	Now       int64          `json:"now"`
	Caller    string         `json:"caller,omitempty"`
	// Asker is who made an inquiry: the keyed hash of a principal.
	Asker string `json:"asker,omitempty"`
	// Of names the first record of a batch that takes several; First is the
	// index of this record's first item in the batch.
	Of    string      `json:"of,omitempty"`
	First int         `json:"first,omitempty"`
	Items []clearItem `json:"items,omitempty"`

	Change *clearChange `json:"change,omitempty"`
	// Outcome is what became of a decision, Refusals how many requests each door
	// refused, by code.
	Outcome  *Reported                        `json:"outcome,omitempty"`
	Refusals map[string]map[authz.Code]uint64 `json:"refusals,omitempty"`
	Keys     *clearKeys                       `json:"keys,omitempty"` // of a change of the ledger's keys
}

type clearItem struct {
	Part      int        `json:"part"` // which sealed part holds it
	Action    string     `json:"action,omitempty"`
	Type      string     `json:"type,omitempty"`
	Subject   string     `json:"subject,omitempty"`   // keyed hash of the principal
	Resource  string     `json:"resource,omitempty"`  // keyed hash of type and id
	Patients  []string   `json:"patients,omitempty"`  // keyed hashes of the owners
	Grant     string     `json:"grant,omitempty"`     // keyed hash
	Emergency string     `json:"emergency,omitempty"` // keyed hash
	Effect    string     `json:"effect"`
	Code      authz.Code `json:"code"`
	// Enforced is set where the caller's door renders another answer: a deny
	// with this code, for an obligation that the caller does not perform.
	Enforced authz.Code   `json:"enforced,omitempty"`
	Reasons  []string     `json:"reasons,omitempty"`
	Errors   []string     `json:"errors,omitempty"`
	Duties   []string     `json:"obligations,omitempty"`
	Request  string       `json:"request"` // keyed digest of the converted request
	Facts    string       `json:"facts"`   // keyed digest of the slice: all of the facts that the answer depends on
	Verdict  string       `json:"verdict"` // keyed digest of the Verdict's encoding
	Attempts []clearTried `json:"attempts,omitempty"`
}

type clearTried struct {
	Grant     string   `json:"grant,omitempty"`     // keyed hash
	Emergency string   `json:"emergency,omitempty"` // keyed hash
	Area      string   `json:"area,omitempty"`      // keyed hash
	Overlay   string   `json:"overlay,omitempty"`   // digest of the tenant's overlay
	Effect    string   `json:"effect"`
	Permits   []string `json:"permits,omitempty"`
	Forbids   []string `json:"forbids,omitempty"`
	Errors    []string `json:"errors,omitempty"`
}

type clearChange struct {
	Actions []string       `json:"actions"`
	Events  int            `json:"events"`
	Prev    hierarchy.Head `json:"prev"`
	Next    hierarchy.Head `json:"next"`
	Who     string         `json:"who"` // keyed hash
	Right   string         `json:"right"`
	Import  string         `json:"import,omitempty"` // keyed hash
	// Closes is set in an abandoned record: the id of the change that never
	// reached the store.
	Closes string `json:"closes,omitempty"`
}

// sealedItem is what only key holders read: all that the answer came from.
type sealedItem struct {
	Index   int           `json:"i"`
	Asked   *asked        `json:"asked,omitempty"`
	Verdict authz.Verdict `json:"verdict"`
	Facts   string        `json:"facts,omitempty"` // digest of the slice
	// Inquiry says who asked, and Why what was said for a change: with the first
	// item of a record's part.
	Inquiry *sealedInquiry        `json:"inquiry,omitempty"`
	Why     *hierarchy.Provenance `json:"why,omitempty"`
}

type sealedInquiry struct {
	Asker  hierarchy.ID `json:"asker"`
	Caller string       `json:"caller"`
}

type item struct {
	asked *asked
	judgement
}

// recording is one answer, one batch of answers or one change on its way to
// the ledger. What it encodes to is a function of its fields alone: a replay
// builds it again and compares the bytes.
type recording struct {
	kind  audit.Kind
	world world
	head  hierarchy.Head
	items []item
	// at is when it is recorded, where that is not the instant asked for: the
	// ledger's time follows the clock, whatever an inquiry asks about.
	at hierarchy.Instant

	inquiry *sealedInquiry // of an inquiry
	change  *clearChange   // of a change, with why
	keys    *clearKeys     // of a change of keys, with why
	why     *hierarchy.Provenance

	// Of a later record of a split batch: the index of its first item, and the
	// id of the first record.
	base int
	of   string
}

// recordBudget keeps a batch's records well below the ledger's limit; what does
// not fit is split under one id.
const recordBudget = 40 << 10

// write appends the recording and returns the sequence number of its first
// record once all of them are durable.
func (r recording) write(ctx context.Context, ledger *audit.Ledger, keys *audit.Keys) (uint64, error) {
	rec, n, err := r.encode(keys)
	if err != nil {
		return 0, err
	}
	first, err := ledger.Append(ctx, rec)
	for err == nil && n < len(r.items) {
		r.items, r.base, r.of = r.items[n:], r.base+n, audit.ID(first)
		if rec, n, err = r.encode(keys); err == nil {
			_, err = ledger.Append(ctx, rec)
		}
	}
	return first, err
}

// encode builds the record of the items, as many of a batch as fit, and returns
// how many those are.
func (r recording) encode(keys *audit.Keys) (audit.Record, int, error) {
	c := clearPart{Semantics: Semantics, Revision: r.head.Revision, Head: r.head.Hash, Now: int64(r.world.now),
		First: r.base, Of: r.of, Change: r.change, Keys: r.keys}
	if r.world.set != nil {
		c.Set = r.world.set.Digest()
	}
	if len(r.items) > 0 {
		c.Caller = r.items[0].asked.Caller
	}
	if r.inquiry != nil { // the callers of its questions are made up
		c.Caller, c.Asker = r.inquiry.Caller, keys.Hash("principal", "", r.inquiry.Asker.String())
	}
	type part struct {
		tenant string
		items  []sealedItem
	}
	var parts []part
	changes := r.change != nil || r.keys != nil
	if changes {
		parts = append(parts, part{}) // a change is the operator's to keep
	}
	size, n := 0, 0
	for i := range r.items {
		it := &r.items[i]
		tenant := it.tenant
		if changes {
			tenant = ""
		}
		k := slices.IndexFunc(parts, func(p part) bool { return p.tenant == tenant })
		if k < 0 {
			k = len(parts)
		}
		facts := digestOf(it.encode())
		ci := r.clearItem(keys, it, tenant, k, facts)
		si := sealedItem{Index: r.base + i, Asked: it.asked, Verdict: it.verdict, Facts: facts, Inquiry: r.inquiry}
		a, err := json.Marshal(ci)
		if err != nil {
			return audit.Record{}, 0, err
		}
		b, err := json.Marshal(si)
		if err != nil {
			return audit.Record{}, 0, err
		}
		if size += len(a) + len(b)*4/3 + 256; n > 0 && !changes && size > recordBudget {
			break
		}
		n++
		if k == len(parts) {
			parts = append(parts, part{tenant: tenant})
		}
		c.Items = append(c.Items, ci)
		parts[k].items = append(parts[k].items, si)
	}
	if changes {
		if len(parts[0].items) == 0 {
			parts[0].items = []sealedItem{{}}
		}
		parts[0].items[0].Why = r.why
	}
	rec := audit.Record{Kind: r.kind, Time: int64(r.world.now), Caller: c.Caller}
	if r.at != 0 {
		rec.Time = int64(r.at)
	}
	var err error
	if rec.Clear, err = json.Marshal(c); err != nil {
		return rec, 0, err
	}
	for _, p := range parts {
		plain, err := json.Marshal(p.items)
		if err != nil {
			return rec, 0, err
		}
		rec.Parts = append(rec.Parts, audit.Part{Tenant: p.tenant, Plain: plain})
	}
	return rec, n, nil
}

// clearItem is what everybody may read of an answer.
func (r *recording) clearItem(keys *audit.Keys, it *item, t string, part int, facts string) clearItem {
	v := it.verdict
	ci := inClear(r.kind, r.world.set, it.asked, &it.slice, v, it.outcomes)
	ci.Part = part
	ci.Request = keys.Hash("request", t, requestDigest(it.asked))
	ci.Facts = keys.Hash("facts", t, facts)
	ci.Verdict = keys.Hash("verdict", t, verdictDigest(v))
	if ci.Type != "" {
		ci.Resource = keys.Hash("resource", t, it.asked.Resource.Type+"\x00"+it.asked.Resource.ID)
	}
	hash := func(kind, id string) string {
		if id == "" {
			return ""
		}
		return keys.Hash(kind, "", id)
	}
	if !it.principal.IsZero() {
		ci.Subject = hash("principal", it.principal.String())
	}
	for _, p := range it.owners {
		ci.Patients = append(ci.Patients, hash("person", p.String()))
	}
	ci.Grant, ci.Emergency = hash("grant", v.Grant), hash("emergency", v.Emergency)
	for i, a := range it.attempts {
		tried := &ci.Attempts[i]
		tried.Grant, tried.Emergency, tried.Area = hash("grant", a.Grant), hash("emergency", a.Emergency), hash("area", a.Area)
	}
	return ci
}

// inClear is what of a clear item is no keyed hash: it follows from the request,
// the slice and the policies.
func inClear(kind audit.Kind, set *policies.Set, a *asked, s *slice, v authz.Verdict, outcomes []policies.Outcome) clearItem {
	ci := clearItem{Effect: v.Effect.String(), Code: v.Code, Reasons: v.Reasons, Errors: v.Errors}
	if kind == audit.Decision {
		if e := authz.Enforce(authz.Decision{Verdict: v}, authz.Caller{Performs: a.Performs}); e.Effect != v.Effect {
			ci.Enforced = e.Code
		}
	}
	cat := set.Catalogue()
	if _, ok := cat.Actions[a.Action]; ok {
		ci.Action = a.Action
	}
	if _, ok := cat.Resources[a.Resource.Type]; ok {
		ci.Type = a.Resource.Type
	}
	for _, o := range v.Obligations {
		ci.Duties = append(ci.Duties, o.ID)
	}
	for i, out := range outcomes {
		tried := clearTried{Overlay: s.attempts[i].Overlay, Effect: out.Cedar.String(), Permits: policyIDs(out.Permits), Forbids: policyIDs(out.Forbids)}
		for _, e := range out.Errors {
			tried.Errors = append(tried.Errors, e.Policy.ID)
		}
		ci.Attempts = append(ci.Attempts, tried)
	}
	return ci
}

// hidden returns a clear item without its keyed hashes.
func (ci clearItem) hidden() clearItem {
	ci.Part, ci.Subject, ci.Resource, ci.Patients, ci.Grant, ci.Emergency = 0, "", "", nil, "", ""
	ci.Request, ci.Facts, ci.Verdict = "", "", ""
	ci.Attempts = slices.Clone(ci.Attempts)
	for i := range ci.Attempts {
		t := &ci.Attempts[i]
		t.Grant, t.Emergency, t.Area = "", "", ""
	}
	return ci
}

func policyIDs(ps []*policies.Policy) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.ID)
	}
	return out
}

func requestDigest(a *asked) string { return jsonDigest(a) }

func verdictDigest(v authz.Verdict) string { return jsonDigest(v) }

// jsonDigest hashes the JSON encoding of a value whose encoding is
// deterministic: structs, and maps with string keys, which encoding/json sorts.
func jsonDigest(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("pdp: " + err.Error()) // the types above always encode
	}
	return digestOf(b)
}

// digestOf is the SHA-256 of b in hexadecimal.
func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
