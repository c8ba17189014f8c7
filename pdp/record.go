package pdp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Semantics is the version of what records mean: it is raised when the same
// inputs would give another Verdict. A binary replays its own version bit for
// bit and older ones by decision and reasons.
const Semantics = 1

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
	// Of names the first record of a batch that takes several; First is the
	// index of this record's first item in the batch.
	Of    string      `json:"of,omitempty"`
	First int         `json:"first,omitempty"`
	Items []clearItem `json:"items,omitempty"`

	Change *clearChange `json:"change,omitempty"`
}

type clearItem struct {
	Part     int          `json:"part"` // which sealed part holds it
	Action   string       `json:"action,omitempty"`
	Type     string       `json:"type,omitempty"`
	Subject  string       `json:"subject,omitempty"`  // keyed hash of the principal
	Resource string       `json:"resource,omitempty"` // keyed hash of type and id
	Patients []string     `json:"patients,omitempty"` // keyed hashes of the owners
	Grant    string       `json:"grant,omitempty"`    // keyed hash
	Effect   string       `json:"effect"`
	Code     authz.Code   `json:"code"`
	Reasons  []string     `json:"reasons,omitempty"`
	Errors   []string     `json:"errors,omitempty"`
	Duties   []string     `json:"obligations,omitempty"`
	Until    int64        `json:"until,omitempty"`
	Request  string       `json:"request"` // keyed digest of the converted request
	Facts    string       `json:"facts"`   // keyed digest of everything the policies were shown
	Verdict  string       `json:"verdict"` // keyed digest of the Verdict's encoding
	Attempts []clearTried `json:"attempts,omitempty"`
}

type clearTried struct {
	Grant   string   `json:"grant,omitempty"` // keyed hash
	Area    string   `json:"area,omitempty"`
	Effect  string   `json:"effect"`
	Permits []string `json:"permits,omitempty"`
	Forbids []string `json:"forbids,omitempty"`
	Errors  []string `json:"errors,omitempty"`
}

type clearChange struct {
	Actions []string       `json:"actions"`
	Events  int            `json:"events"`
	Prev    hierarchy.Head `json:"prev"`
	Next    hierarchy.Head `json:"next"`
	Who     string         `json:"who"` // keyed hash
	Right   string         `json:"right"`
	Import  string         `json:"import,omitempty"`
	// Closes is set in an abandoned record: the id of the change that never
	// reached the store.
	Closes string `json:"closes,omitempty"`
}

// sealedItem is what only key holders read: all that the answer came from.
type sealedItem struct {
	Index   int           `json:"i"`
	Asked   *asked        `json:"asked"`
	Verdict authz.Verdict `json:"verdict"`
	Grants  []string      `json:"grants,omitempty"` // of the attempts, in order; "" is the one without
	At      *inquiryAt    `json:"at,omitempty"`
	Why     *changeWhy    `json:"why,omitempty"`
}

type inquiryAt struct {
	Asker hierarchy.ID `json:"asker"`
}

type changeWhy struct {
	Provenance hierarchy.Provenance `json:"provenance"`
}

type item struct {
	asked *asked
	judgement
}

// recording is one answer, or one batch of answers, on its way to the ledger.
type recording struct {
	kind  audit.Kind
	world world
	head  hierarchy.Head
	items []item
	asker hierarchy.ID // of an inquiry
	// at is when it is recorded, where that is not the instant asked for: the
	// ledger's time follows the clock, whatever an inquiry asks about.
	at hierarchy.Instant
}

// maxRecordItems keeps a batch's records well below the ledger's limit; what
// does not fit is split under one id.
const recordBudget = 40 << 10

// write appends the recording and returns the sequence number of its first
// record once all of them are durable.
func (r *recording) write(ctx context.Context, ledger *audit.Ledger, keys *audit.Keys) (uint64, error) {
	var first uint64
	for start := 0; start < len(r.items); {
		rec, n, err := r.encode(keys, start, first)
		if err != nil {
			return 0, err
		}
		seq, err := ledger.Append(ctx, rec)
		if err != nil {
			return 0, err
		}
		if start == 0 {
			first = seq
		}
		start += n
	}
	return first, nil
}

// encode builds the record of the items from start on, as many as fit.
func (r *recording) encode(keys *audit.Keys, start int, first uint64) (audit.Record, int, error) {
	c := clearPart{Semantics: Semantics, Set: r.world.set.Digest(), Revision: r.head.Revision, Head: r.head.Hash,
		Now: int64(r.world.now), Caller: r.items[start].asked.Caller, First: start}
	if start > 0 {
		c.Of = audit.ID(first)
	}
	var tenants []string
	sealed := map[string][]sealedItem{}
	size, n := 0, 0
	for i := start; i < len(r.items); i++ {
		it := &r.items[i]
		part := -1
		for k, t := range tenants {
			if t == it.tenant {
				part = k
			}
		}
		if part < 0 {
			part = len(tenants)
		}
		ci := r.clearItem(keys, it, part)
		si := sealedItem{Index: i, Asked: it.asked, Verdict: it.verdict}
		if r.kind == audit.Inquiry {
			si.At = &inquiryAt{Asker: r.asker}
		}
		for _, t := range it.attempts {
			g := ""
			if t.grant != nil {
				g = t.grant.ID
			}
			si.Grants = append(si.Grants, g)
		}
		a, err := json.Marshal(ci)
		if err != nil {
			return audit.Record{}, 0, err
		}
		b, err := json.Marshal(si)
		if err != nil {
			return audit.Record{}, 0, err
		}
		add := len(a) + len(b)*4/3 + 256
		if n > 0 && size+add > recordBudget {
			break
		}
		size += add
		n++
		if part == len(tenants) {
			tenants = append(tenants, it.tenant)
		}
		c.Items = append(c.Items, ci)
		sealed[it.tenant] = append(sealed[it.tenant], si)
	}
	rec := audit.Record{Kind: r.kind, Time: int64(r.world.now)}
	if r.at != 0 {
		rec.Time = int64(r.at)
	}
	var err error
	if rec.Clear, err = json.Marshal(c); err != nil {
		return rec, 0, err
	}
	for _, t := range tenants {
		plain, err := json.Marshal(sealed[t])
		if err != nil {
			return rec, 0, err
		}
		rec.Parts = append(rec.Parts, audit.Part{Tenant: t, Plain: plain})
	}
	return rec, n, nil
}

func (r *recording) clearItem(keys *audit.Keys, it *item, part int) clearItem {
	t, v := it.tenant, it.verdict
	ci := clearItem{Part: part, Effect: v.Effect.String(), Code: v.Code, Reasons: v.Reasons, Errors: v.Errors, Until: v.ValidUntil,
		Request: keys.Hash("request", t, requestDigest(it.asked)),
		Facts:   keys.Hash("facts", t, it.digest()),
		Verdict: keys.Hash("verdict", t, verdictDigest(v))}
	cat := r.world.set.Catalogue()
	if _, ok := cat.Actions[it.asked.Action]; ok {
		ci.Action = it.asked.Action
	}
	if _, ok := cat.Resources[it.asked.Resource.Type]; ok {
		ci.Type = it.asked.Resource.Type
		ci.Resource = keys.Hash("resource", t, it.asked.Resource.Type+"\x00"+it.asked.Resource.ID)
	}
	if !it.principal.IsZero() {
		ci.Subject = keys.Hash("principal", "", it.principal.String())
	}
	for _, p := range it.owners {
		ci.Patients = append(ci.Patients, keys.Hash("person", "", p.String()))
	}
	if v.Grant != "" {
		ci.Grant = keys.Hash("grant", "", v.Grant)
	}
	for _, o := range v.Obligations {
		ci.Duties = append(ci.Duties, o.ID)
	}
	for _, a := range it.attempts {
		tried := clearTried{Effect: a.outcome.Cedar.String(), Permits: policyIDs(a.outcome.Permits), Forbids: policyIDs(a.outcome.Forbids)}
		for _, e := range a.outcome.Errors {
			tried.Errors = append(tried.Errors, e.Policy.ID)
		}
		if a.grant != nil {
			tried.Grant = keys.Hash("grant", "", a.grant.ID)
		}
		if !a.area.IsZero() {
			tried.Area = a.area.String()
		}
		ci.Attempts = append(ci.Attempts, tried)
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

// digest commits to everything the policies were shown.
func (j *judgement) digest() string {
	h := sha256.New()
	for _, a := range j.attempts {
		b := policies.Encode(a.question)
		fmt.Fprintf(h, "%d\n", len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
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
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
