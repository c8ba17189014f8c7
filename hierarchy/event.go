package hierarchy

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Kind numbers the kinds of facts. Numbers are part of the stored format and
// never change; a number that this version does not know is refused.
type Kind uint8

// The kinds of facts. Those without a field in Event are reserved: an event of
// such a kind is refused as event_kind_unknown until it is built.
const (
	KindNode        Kind = 1
	KindEdge        Kind = 2
	KindLink        Kind = 3
	KindRole        Kind = 4
	KindAssignment  Kind = 5
	KindSetting     Kind = 6
	KindEntitlement Kind = 7
	KindGrant       Kind = 8
	KindBlock       Kind = 9
	KindConsent     Kind = 10 // reserved
	KindEmergency   Kind = 11
	KindRevocation  Kind = 12 // reserved: token revocation
	KindActivation  Kind = 13
	KindSignature   Kind = 14
	KindReview      Kind = 15
)

// Op says what an event does.
type Op uint8

const (
	// Assert adds a fact.
	Assert Op = 1
	// End closes a fact at an instant: it was true until then.
	End Op = 2
	// Void says that a fact was never true, from this revision on.
	Void Op = 3
)

// FactID names a fact by the place of the event that asserted it: the revision
// and the index within its batch. Its text form is f12.3.
type FactID struct {
	Revision uint64
	Index    uint32
}

// String returns the text form.
func (f FactID) String() string { return fmt.Sprintf("f%d.%d", f.Revision, f.Index) }

// IsZero reports whether f names nothing (revision 0 holds no facts).
func (f FactID) IsZero() bool { return f == FactID{} }

// ParseFactID reads the text form.
func ParseFactID(s string) (FactID, error) {
	var f FactID
	if n, err := fmt.Sscanf(s, "f%d.%d", &f.Revision, &f.Index); err != nil || n != 2 || f.String() != s {
		return FactID{}, fmt.Errorf("not a fact id: want f<revision>.<index>, such as f12.3")
	}
	return f, nil
}

// MarshalText writes the text form.
func (f FactID) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the text form.
func (f *FactID) UnmarshalText(b []byte) (err error) { *f, err = ParseFactID(string(b)); return err }

// Interval is the half-open time [From, To) in which a fact is true in the
// real world (its valid time). To is [Forever] for an open end, From is [Never]
// for an open start. The zero Interval holds at no instant.
//
// In JSON an open side is absent: {"from":0}, {"to":5}, {}.
type Interval struct {
	From, To Instant
}

type intervalJSON struct {
	From *Instant `json:"from,omitempty"`
	To   *Instant `json:"to,omitempty"`
}

// MarshalJSON writes the interval; an open side is left out.
func (v Interval) MarshalJSON() ([]byte, error) {
	var j intervalJSON
	if v.From != Never {
		j.From = &v.From
	}
	if v.To != Forever {
		j.To = &v.To
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *Interval) UnmarshalJSON(b []byte) error {
	var j intervalJSON
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a misspelt side must not read as open
	if err := d.Decode(&j); err != nil {
		return err
	}
	*v = Interval{Never, Forever}
	if j.From != nil {
		v.From = *j.From
	}
	if j.To != nil {
		v.To = *j.To
	}
	return nil
}

// Event is one change: the assertion of one fact, or the end or voiding of one.
// Exactly the field of its Kind is set for Assert; Fact (and for End, At) for
// the others.
type Event struct {
	Op   Op   `json:"op"`
	Kind Kind `json:"kind"`
	// Valid is the valid time of an asserted fact. An empty interval
	// (To <= From) is refused as interval_inverted.
	Valid Interval `json:"valid,omitzero"`
	// Fact is the fact to end or void.
	Fact FactID `json:"fact,omitzero"`
	// At is when the fact ends. It must lie at or after its From; at From it is
	// as if it had never been valid, which Void says better and End refuses.
	At Instant `json:"at,omitempty"`
	// Row is the line of the source file that the event came from, or 0.
	Row int `json:"row,omitempty"`

	Node        *Node        `json:"node,omitempty"`
	Edge        *Edge        `json:"edge,omitempty"`
	Link        *Link        `json:"link,omitempty"`
	Role        *Role        `json:"role,omitempty"`
	Assignment  *Assignment  `json:"assignment,omitempty"`
	Entitlement *Entitlement `json:"entitlement,omitempty"`
	Grant       *Grant       `json:"grant,omitempty"`
	Block       *Block       `json:"block,omitempty"`
	Activation  *Activation  `json:"activation,omitempty"`
	Setting     *Setting     `json:"setting,omitempty"`
	Emergency   *Emergency   `json:"emergency,omitempty"`
	Signature   *Signature   `json:"signature,omitempty"`
	Review      *Review      `json:"review,omitempty"`
}

// Node says that a node, person or principal exists. At any instant at most
// one Node fact per id holds: a second one whose valid time overlaps is refused
// as node_exists (end or void the first one, in the same batch if need be).
type Node struct {
	ID ID `json:"id"`
	// Principal marks something that can act (a user, a machine client). It is
	// neither a tenant's nor shared, has no edges, and is reached by links and
	// assignments only.
	Principal bool `json:"principal,omitempty"`
	// Attrs are the attributes that the pack's catalogue declares as facts:
	// bool, string, int64 (as a JSON number) and []string values.
	Attrs map[string]any `json:"attrs,omitempty"`
	// Person holds what a Person node alone has.
	Person *Person `json:"person,omitempty"`
}

// Person holds the facts of a human being that decide about delegation.
type Person struct {
	// BirthDate is the date of birth as YYYY-MM-DD, or empty.
	BirthDate string `json:"birthDate,omitempty"`
	// Jurisdiction is the law that applies, for example "US-OH".
	Jurisdiction string `json:"jurisdiction,omitempty"`
	// Majority is the instant at which the person comes of age, computed by
	// [Majority] when the birth date is written, or nil when unknown.
	Majority *Instant `json:"majority,omitempty"`
	// TZData is the version of the time zone data that Majority was computed with.
	TZData string `json:"tzdata,omitempty"`
}

// Edge ties a child node to a parent node. Whether a kind confers access is
// the policy set's to say; the graph keeps every kind alike.
//
// Tenancy is structural: an edge of a tenant's node leads to a node of the same
// tenant, to its Tenant node, or from the Tenant node to the Operator; an edge
// of a shared node leads to a shared node or the Network. Anything else is
// refused as tenancy_violation. An edge that would make a cycle at any instant,
// over all kinds together, is refused as cycle.
type Edge struct {
	Child  ID     `json:"child"`
	Kind   string `json:"kind"` // camelCase, for example "memberOf"
	Parent ID     `json:"parent"`
}

// LinkKind says what a link ties together.
type LinkKind string

const (
	// LinkIdentity: the identity (issuer, sub) is the principal To.
	LinkIdentity LinkKind = "identity"
	// LinkSelf: the principal From is the person To.
	LinkSelf LinkKind = "self"
	// LinkOwns: the person From owns the node To (a coverage, a patient record).
	LinkOwns LinkKind = "owns"
	// LinkMerge: the person From is the person To; facts on either count for both.
	LinkMerge LinkKind = "merge"
	// LinkFamily: the person From and the person To are of one family. It
	// confers nothing; guards read it.
	LinkFamily LinkKind = "family"
)

// Link ties identities together. An identity link has Issuer and Sub instead
// of From.
type Link struct {
	Kind   LinkKind `json:"kind"`
	Issuer string   `json:"issuer,omitempty"`
	Sub    string   `json:"sub,omitempty"`
	From   ID       `json:"from,omitzero"`
	To     ID       `json:"to"`
}

// Role is a named set of capabilities. Name is "broker" for an operator's role
// and "acme/reviewer" for a role of the tenant acme, which can be assigned
// within that tenant only. A role that includes itself, directly or not, is
// refused as cycle; an included role must exist.
type Role struct {
	Name         string   `json:"name"`
	Capabilities []string `json:"capabilities,omitempty"`
	Includes     []string `json:"includes,omitempty"`
}

// Assignment says that a principal holds a role at a node.
type Assignment struct {
	Principal ID     `json:"principal"`
	Role      string `json:"role"`
	Node      ID     `json:"node"`
}

// Entitlement says that a tenant has a module ("claims") or a feature
// ("claims.export").
type Entitlement struct {
	Tenant ID     `json:"tenant"`
	Name   string `json:"name"`
}

// Grant is a delegation: Grantor lets Grantee act for Subject. See 45 CFR
// 164.502(g) for representatives.
//
// It is live at an instant when its own interval holds, every need is signed
// (until then it is only requested), every grant up its chain is live, and,
// where EndsAtMajority is set on any of them, Subject has not come of age.
type Grant struct {
	// ID is unique among all grants ever, given by the writer: letters, digits
	// and '-', at most 64 bytes. Tokens carry it.
	ID string `json:"id"`
	// Type is the legal form, one that the pack names: parent, guardian,
	// adult-proxy, org-delegate, …
	Type string `json:"type"`
	// Grantor is who gives: a person, a principal or a node (an organisation).
	Grantor ID `json:"grantor"`
	// Grantee is the principal that may act, or for a grant between
	// organisations the node whose people may.
	Grantee ID `json:"grantee"`
	// Subject is the person, or the node, that the grant is about.
	Subject ID    `json:"subject"`
	Scope   Scope `json:"scope"`
	// Purpose lists HL7 PurposeOfUse codes; empty means any.
	Purpose        []string `json:"purpose,omitempty"`
	Jurisdiction   string   `json:"jurisdiction,omitempty"`
	LegalBasis     string   `json:"legalBasis,omitempty"`
	Evidence       Evidence `json:"evidence,omitzero"`
	EndsAtMajority bool     `json:"endsAtMajority,omitempty"`
	// Parent is the grant this one was made from, or empty for a root.
	Parent string `json:"parent,omitempty"`
	// MayRedelegate allows grants to be made from this one, MaxDepth further
	// links down (people at most 1, organisations at most 3 in a whole chain).
	MayRedelegate bool `json:"mayRedelegate,omitempty"`
	MaxDepth      int  `json:"maxDepth,omitempty"`
	// Needs lists whose signatures it takes, at most 8 and one verifier's: each is
	// a [Signature].
	Needs []Need `json:"needs,omitempty"`
	// Source and External say of a grant that is kept in another system which
	// one, and under which id. Both or neither.
	Source   string `json:"source,omitempty"`
	External string `json:"external,omitempty"`
}

// Signer says as what somebody signs a grant.
type Signer string

const (
	// SignerGrantor gives.
	SignerGrantor Signer = "grantor"
	// SignerSubject is the person that the grant is about, and assents to it.
	SignerSubject Signer = "subject"
	// SignerCoSigner must agree, as the other parent of a child.
	SignerCoSigner Signer = "co-signer"
	// SignerVerifier has seen the evidence.
	SignerVerifier Signer = "verifier"
)

// Need is a signature that a grant takes.
type Need struct {
	As Signer `json:"as"`
	// By is the person, principal or node that must sign; zero for a verifier,
	// who may be anybody whom the policies let.
	By ID `json:"by,omitzero"`
}

// Signature says that a need of a grant is met, for as long as it is valid: a
// signature that is ended (an assent withdrawn) ends the grant.
type Signature struct {
	Grant string `json:"grant"`
	Need         // By is the verifier for a verifier's
	// Principal is who acted for By, or By itself.
	Principal ID `json:"principal,omitzero"`
}

// Scope is what a grant confers. In a chain every dimension may only narrow.
type Scope struct {
	// Capabilities lists what may be done; never empty.
	Capabilities []string `json:"capabilities"`
	// Covers lists the sensitivities that are open beyond the routine ones.
	Covers []string `json:"covers,omitempty"`
	// Coverage narrows the grant to records that hang from this node; zero
	// means all records of the subject.
	Coverage ID `json:"coverage,omitzero"`
	// Service narrows it to records whose own date lies in this interval; zero
	// means all.
	Service Interval `json:"service,omitzero"`
	// Records narrows it to these, each as type:id in the words of a request
	// ("report:r-17"); empty means all.
	Records []string `json:"records,omitempty"`
}

// Evidence says what a grant rests on.
type Evidence struct {
	Document   string  `json:"document,omitempty"` // a reference, never the content
	SHA256     string  `json:"sha256,omitempty"`
	VerifiedBy string  `json:"verifiedBy,omitempty"`
	VerifiedAt Instant `json:"verifiedAt,omitempty"`
	Assurance  int     `json:"assurance,omitempty"`
}

// Block says that a principal may not see a person's records: a court order or
// the person's own refusal. It stands above every grant and role.
type Block struct {
	Person    ID     `json:"person"`
	Principal ID     `json:"principal"`
	Basis     string `json:"basis"` // "court-order" or "refusal"
}

// Setting is a tenant's choice. At any instant at most one fact per tenant and
// name holds. Which names there are, and of what type, is the pack's to say.
type Setting struct {
	Tenant ID     `json:"tenant"`
	Name   string `json:"name"`
	Value  any    `json:"value"` // bool, string or int64 (a JSON number)
}

// Emergency is an access that a principal has opened for itself to one person's
// records under one node ("break glass"): a patient's in one hospital. The
// person, or one merged with it, owns the node. Its valid time is at most
// [MaxEmergency] long, starts no later than it is written, and may be ended
// early. As long as one is not reviewed, the same principal opens no other for
// the same person, or for one merged with it.
type Emergency struct {
	// ID is unique among all emergencies ever: letters, digits and '-', at most
	// 64 bytes.
	ID        string `json:"id"`
	Principal ID     `json:"principal,omitzero"`
	Person    ID     `json:"person,omitzero"`
	Node      ID     `json:"node"` // what the records hang from: a Patient, a Coverage
	// Reason is the code that was given, Text what was written beside it.
	Reason string `json:"reason"`
	Text   string `json:"text,omitempty"`
	Ticket string `json:"ticket,omitempty"`
}

// MaxEmergency is how long an emergency lasts at most, in milliseconds.
const MaxEmergency = 30 * 60 * 1000

// Review closes the case of an emergency for as long as it is valid: one that is
// ended or voided opens the case again. Nobody reviews their own, under whatever
// principal.
type Review struct {
	Emergency string `json:"emergency"`
	By        ID     `json:"by"`      // a principal
	Outcome   string `json:"outcome"` // "justified" or "unjustified"
	Text      string `json:"text,omitempty"`
}

// Activation puts a policy set, or the overlay of a tenant, in force from this
// revision on. Its valid time is ignored: what decides is the last activation
// of the set, or of the tenant's overlay, at or before a revision.
type Activation struct {
	// Digest is that of the set or overlay, "sha256:" and 64 hexadecimal
	// digits, under which the store holds its archive. Empty with a Tenant: the
	// tenant has no overlay any more.
	Digest string `json:"digest,omitempty"`
	// Name is the set's; an overlay has none.
	Name string `json:"name,omitempty"`
	// Tenant is the key of the tenant whose overlay it is; empty for the set.
	Tenant string `json:"tenant,omitempty"`
}

// Provenance says where a batch came from.
type Provenance struct {
	// Who is the principal that made the change, for example "Admin:ana".
	Who ID `json:"who"`
	// Right is the id of the policy that permitted it.
	Right string `json:"right,omitempty"`
	// Why is the reason given, and Ticket the change ticket.
	Why    string `json:"why,omitempty"`
	Ticket string `json:"ticket,omitempty"`
	// Feed is the feed's name and date, where it has them (members@2026-11-20T…),
	// and the digest and name of the source file.
	Feed string `json:"feed,omitempty"`
	// SourceAsserted marks a transaction time that comes from the source.
	SourceAsserted bool `json:"sourceAsserted,omitempty"`
}

// ImportStep says what a batch does to an open import.
type ImportStep uint8

const (
	// ImportNone: the batch is a change of its own, visible at once.
	ImportNone ImportStep = 0
	// ImportOpen starts an import; its batch may hold events already.
	ImportOpen ImportStep = 1
	// ImportMore adds events that stay invisible.
	ImportMore ImportStep = 2
	// ImportClose makes everything of the import visible: the facts'
	// transaction time is this revision. In a history import each batch keeps
	// its own revision and time, and this one makes them visible.
	ImportClose ImportStep = 3
	// ImportAbandon drops everything of the import.
	ImportAbandon ImportStep = 4
)

// Import ties a batch to an import.
type Import struct {
	ID     string     `json:"id"`
	Tenant string     `json:"tenant,omitempty"` // the one tenant it may touch; empty for shared data
	Step   ImportStep `json:"step"`
	// History makes each batch a revision with its own, source-asserted time.
	History bool `json:"history,omitempty"`
}

// Batch is one revision: a bounded, atomic set of events.
type Batch struct {
	// Revision is one more than the revision before it; the first is 1.
	Revision uint64 `json:"revision"`
	// Prev is the head before it (see [Head]).
	Prev Hash `json:"prev"`
	// Time is the transaction time: when Ward learned it. Never before that of
	// the revision before it.
	Time       Instant    `json:"time"`
	Provenance Provenance `json:"provenance"`
	Import     *Import    `json:"import,omitempty"`
	// Record is how many records the ledger held when the batch was made: its
	// change record is one of those that follow.
	Record uint64  `json:"record,omitempty"`
	Events []Event `json:"events"`
}

// MaxBatchEvents and MaxBatchBytes bound one batch: the number of its events
// and the length of its stored form (a MongoDB document holds 16 MiB).
const (
	MaxBatchEvents = 10_000
	MaxBatchBytes  = 15 << 20
)

// Refusal says why a batch cannot be applied. Nothing of the batch is applied.
// Its text names the place, and ids of nodes, but no person.
type Refusal struct {
	// Code is one of the codes of this package's documentation.
	Code string
	// Index is the event's index in the batch, -1 when the batch as a whole is
	// at fault; Row is its source line (or 0).
	Index, Row int
	Text       string
}

func (r *Refusal) Error() string {
	where := fmt.Sprintf("event %d", r.Index)
	if r.Index < 0 {
		where = "batch"
	} else if r.Row > 0 {
		where = fmt.Sprintf("row %d", r.Row)
	}
	return r.Code + ": " + where + ": " + r.Text
}

// Codes of a Refusal. Append-only.
const (
	CodeEventKindUnknown = "event_kind_unknown" // a kind or op this version does not know
	CodeEventInvalid     = "event_invalid"      // the event's field is missing, or an id or name is malformed
	CodeIntervalInverted = "interval_inverted"  // valid time ends at or before its start
	CodeUnknownEnd       = "unknown_end"        // an edge, link, role, assignment, … refers to what does not exist in that time
	CodeUnknownFact      = "unknown_fact"       // End or Void names no live fact
	CodeUnknownTenant    = "unknown_tenant"     // a tenant's node without its Tenant node
	CodeTenancyViolation = "tenancy_violation"  // an edge, assignment or entitlement across tenants
	CodeCycle            = "cycle"              // the graph, or roles, would contain a cycle at some instant
	CodeNodeExists       = "node_exists"        // a Node fact overlaps another of the same id
	CodeDuplicateFact    = "duplicate_fact"     // the same fact with an overlapping valid time
	CodeGrantExists      = "grant_exists"       // a grant id is used twice
	CodeGrantWider       = "grant_wider"        // a grant is wider than its parent in some dimension
	CodeGrantDepth       = "grant_depth"        // a chain is deeper than allowed
	CodeGrantLimit       = "grant_limit"        // a seventeenth live grant for one grantee and subject
	CodeImportOpen       = "import_open"        // another import of this tenant is open
	CodeImportUnknown    = "import_unknown"     // the batch names an import that is not open
	CodeStoreNotEmpty    = "store_not_empty"    // a history import needs an empty store
	CodeBatchTooLarge    = "batch_too_large"    // more than MaxBatchEvents events
	CodeTimeReversed     = "time_reversed"      // transaction time before that of the last revision
	CodeEmergencyFuture  = "emergency_future"   // an emergency that starts after it is written
	CodeEmergencyLong    = "emergency_long"     // an emergency longer than MaxEmergency
	CodeEmergencyOpen    = "emergency_open"     // an emergency while another of the same pair waits for its review
	CodeNeedUnknown      = "need_unknown"       // a signature that the grant does not take
)

// MaxLiveGrants is how many grants may be live at any instant for one grantee
// and subject.
const MaxLiveGrants = 16
