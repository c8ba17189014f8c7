package audit

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// version is the format and semantics version of the records written by this
// package, the "v" of a body.
//
//	1  2026-11: first version
const version = 1

// MaxBody is the most that one record may take once encoded and sealed, in
// bytes (60 KiB). A longer one is [ErrTooLarge], for its own caller only. It
// lies below the 65,535-byte entry limit of C2SP tlog-tiles.
const MaxBody = 61440

// saltSize is that of the HKDF salt of a sealed part, in bytes.
const saltSize = 32

// maxTime is the first millisecond after the year 9999.
const maxTime = 253402300800000

// Kind says what a record is about.
type Kind string

// The kinds of record. Every other word is refused.
const (
	Decision  Kind = "decision"  // an answer that a door carries
	Inquiry   Kind = "inquiry"   // a question that enforces nothing
	Outcome   Kind = "outcome"   // what became of a decision, as its caller reports it
	Change    Kind = "change"    // a fact, policy or key, before it takes effect
	Abandoned Kind = "abandoned" // closes a change that a crash cut short
	Refusals  Kind = "refusals"  // how many requests were refused before a decision
)

func (k Kind) valid() bool {
	return slices.Contains([]Kind{Decision, Inquiry, Outcome, Change, Abandoned, Refusals}, k)
}

// Record is one line for the ledger, as its writer knows it.
type Record struct {
	Kind Kind
	// Time is in milliseconds since 1970, UTC. The day that it falls on picks
	// the seal key.
	Time int64
	// Clear is a JSON object that everybody may read; none means {}. It is
	// kept without insignificant space. That no identifier stands in it is the
	// caller's duty: identifiers go through [Keys.Hash].
	Clear json.RawMessage
	// Parts are sealed, each under its own tenant's key. At most one per tenant.
	Parts []Part
	// Caller is who the record is written for: whose budget of the queue it
	// counts against. It is not stored.
	Caller string
	// Durability is where the record must be before Append returns. It is not
	// stored.
	Durability Durability
}

// Part is what one tenant alone may read of a record. The tenant "" is the
// operator.
type Part struct {
	Tenant string
	Plain  []byte
}

// Entry is a record as the ledger holds it. [Keys.Unseal] opens its parts.
type Entry struct {
	Seq   uint64 // position in the ledger from 0, the RFC 6962 leaf index
	Kind  Kind
	Time  int64 // ms since 1970, UTC
	Clear json.RawMessage
	Body  []byte // the bytes as stored, which are the RFC 6962 leaf

	sealed []sealedPart
}

// Seal names a seal key.
type Seal struct {
	Tenant string // keyed hash of the tenant: Hash("tenant", "", name)
	Day    string // UTC
	Key    string // its id
}

// Seals names the seal keys of the entry's parts, in their order.
func (e Entry) Seals() []Seal {
	out := make([]Seal, len(e.sealed))
	for i, s := range e.sealed {
		out[i] = Seal{s.T, s.Day, s.Key}
	}
	return out
}

// ID is the entry's id for people, as [ID] gives it.
func (e Entry) ID() string { return ID(e.Seq) }

// body is the JSON of a record. The order of the fields is part of the format.
type body struct {
	V      int             `json:"v"`
	Kind   Kind            `json:"kind"`
	Time   int64           `json:"time"`
	Clear  json.RawMessage `json:"clear"`
	Sealed []sealedPart    `json:"sealed"`
}

// sealedPart is one element of "sealed".
type sealedPart struct {
	T    string `json:"t"`    // keyed hash of the tenant
	Day  string `json:"day"`  // UTC day of the record, which with t names the seal key
	Key  string `json:"key"`  // id of the seal key
	Salt blob   `json:"salt"` // 32 bytes
	CT   blob   `json:"ct"`   // AES-256-GCM
}

// blob is base64url in JSON.
type blob []byte

func (b blob) String() string { return b64.EncodeToString(b) }

// UnmarshalText is that of encoding.TextUnmarshaler.
func (b *blob) UnmarshalText(text []byte) (err error) {
	*b, err = b64.DecodeString(string(text))
	return err
}

// The errors that a program tells apart. Text is for people and may change.
var (
	// ErrTooLarge: the record, encoded, is above [MaxBody]. Nothing was queued.
	ErrTooLarge = errors.New("audit: record is larger than 60 KiB")
	// ErrInvalid: the record is not well formed. Nothing was queued.
	ErrInvalid = errors.New("audit: invalid record")
	// ErrNoKey: a key is not in the key folder. Whether that of a part was
	// destroyed on purpose or lost, the ledger's change records say.
	ErrNoKey = errors.New("audit: the key is not in the key folder")
	// ErrCorrupt: a sealed part, a body or a key file is not what was written.
	ErrCorrupt = errors.New("audit: corrupt")
	// ErrForeignKeys: the part was sealed under another key folder.
	ErrForeignKeys = errors.New("audit: sealed under other keys")
)

// ID gives the short form of a sequence number that people read aloud: "a-1042".
func ID(seq uint64) string { return "a-" + strconv.FormatUint(seq, 10) }

// ParseID reverses [ID]. It takes nothing but what ID writes, and does not
// repeat its input in the error.
func ParseID(id string) (uint64, error) {
	digits, ok := strings.CutPrefix(id, "a-")
	seq, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || ID(seq) != id {
		return 0, errors.New("audit: not a record id (want a-<number>)")
	}
	return seq, nil
}

var b64 = base64.RawURLEncoding.Strict()

// encode seals the parts and gives the body. Errors wrap ErrInvalid or
// ErrTooLarge; any other is a failure to obtain a seal key.
func (k *Keys) encode(r Record) ([]byte, error) {
	if !r.Kind.valid() || r.Time < 0 || r.Time >= maxTime {
		return nil, fmt.Errorf("%w: unknown kind, or time out of range", ErrInvalid)
	}
	size, tenants := len(r.Clear), map[string]bool{}
	for _, p := range r.Parts {
		if tenants[p.Tenant] {
			return nil, fmt.Errorf("%w: two parts for one tenant", ErrInvalid)
		}
		tenants[p.Tenant] = true
		size += len(p.Plain) + len(p.Tenant)
	}
	if size > MaxBody { // before any key is made or anything is encrypted
		return nil, ErrTooLarge
	}
	b := body{V: version, Kind: r.Kind, Time: r.Time, Sealed: make([]sealedPart, len(r.Parts))}
	var err error
	if b.Clear, err = compactObject(r.Clear); err != nil {
		return nil, err
	}
	for i, p := range r.Parts {
		if b.Sealed[i], err = k.seal(b, i, p); err != nil {
			return nil, err
		}
	}
	out := b.append(make([]byte, 0, 256+2*size))
	if len(out) > MaxBody {
		return nil, ErrTooLarge
	}
	return out, nil
}

func compactObject(clear json.RawMessage) (json.RawMessage, error) {
	if len(clear) == 0 {
		return json.RawMessage("{}"), nil
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, clear); err != nil || buf.Bytes()[0] != '{' || !utf8.Valid(clear) {
		return nil, fmt.Errorf("%w: the clear part is not a JSON object in UTF-8", ErrInvalid)
	}
	return buf.Bytes(), nil
}

func dayOf(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.DateOnly) }

// append writes the one JSON text of a body. No string in it needs escapes:
// kinds, hashes, days and base64 are plain ASCII.
func (b body) append(out []byte) []byte {
	out = fmt.Appendf(out, `{"v":%d,"kind":"%s","time":%d,"clear":%s,"sealed":[`, b.V, b.Kind, b.Time, b.Clear)
	for i, s := range b.Sealed {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, `{"t":"%s","day":"%s","key":"%s","salt":"%s","ct":"%s"}`, s.T, s.Day, s.Key, s.Salt, s.CT)
	}
	return append(out, "]}"...)
}

// Decode reads the body of a record. It accepts exactly what a ledger writes,
// so that one record has one text. The entry shares no memory with raw.
func Decode(seq uint64, raw []byte) (Entry, error) {
	raw = bytes.Clone(raw)
	var b body
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if len(raw) > MaxBody || !utf8.Valid(raw) || d.Decode(&b) != nil || !b.valid() || !bytes.Equal(b.append(nil), raw) {
		return Entry{}, fmt.Errorf("%w: record %s is not a body of version %d", ErrCorrupt, ID(seq), version)
	}
	return Entry{Seq: seq, Kind: b.Kind, Time: b.Time, Clear: b.Clear, Body: raw, sealed: b.Sealed}, nil
}

func (b body) valid() bool {
	clear, err := compactObject(b.Clear)
	ok := err == nil && bytes.Equal(clear, b.Clear) && b.V == version && b.Kind.valid() && b.Time >= 0 && b.Time < maxTime
	for _, s := range b.Sealed {
		ok = ok && hashText.MatchString(s.T) && s.Day == dayOf(b.Time) && keyIDText.MatchString(s.Key) && len(s.Salt) == saltSize
	}
	return ok
}

// seal encrypts part i of b under a key of its own.
func (k *Keys) seal(b body, i int, p Part) (sealedPart, error) {
	t, day := k.Hash(tenantKind, "", p.Tenant), dayOf(b.Time)
	key, err := k.sealKey(t, day)
	if err != nil {
		return sealedPart{}, err
	}
	s := sealedPart{T: t, Day: day, Key: keyID(key), Salt: make([]byte, saltSize)}
	rand.Read(s.Salt) // never fails (crypto/rand)
	aead, err := partAEAD(partKey(key, s.Salt))
	if err != nil {
		return sealedPart{}, err
	}
	// The tenant's name travels inside: its hash outside cannot be reversed.
	plain := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(p.Tenant)+len(p.Plain)), uint32(len(p.Tenant)))
	plain = append(append(plain, p.Tenant...), p.Plain...)
	s.CT = aead.Seal(nil, make([]byte, aead.NonceSize()), plain, b.aad(i, s))
	return s, nil
}

// partKey derives the key of one part from its seal key.
func partKey(sealKey, salt []byte) []byte {
	key, err := hkdf.Key(sha256.New, sealKey, salt, "ward/audit/v1/part", sha256.Size)
	if err != nil {
		panic(err) // it gives up to 255 times 32 bytes
	}
	return key
}

// partAEAD is the cipher of one part. Its key is used for one message, so the
// nonce is zero.
func partAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// aad is what part i is bound to: version, kind, time, its position among how
// many parts, its tenant, day and key, and the clear part.
func (b body) aad(i int, s sealedPart) []byte {
	head := fmt.Sprintf("ward/audit/v%d %s %d %d/%d %s %s %s\n", b.V, b.Kind, b.Time, i, len(b.Sealed), s.T, s.Day, s.Key)
	return append([]byte(head), b.Clear...)
}

// Unseal opens the parts of an entry, in their order.
//
// Where the seal key of a part is gone, that part is left out, the others are
// still returned, and the error is [ErrNoKey]. [ErrCorrupt] means that a
// part does not open although its key is there, or is bound to another record;
// [ErrForeignKeys] that it belongs to another key folder. With these, and with
// a key file that cannot be read, nothing is returned.
func (k *Keys) Unseal(e Entry) ([]Part, error) {
	keys, gone := k.PartKeys(e)
	if gone != nil && !errors.Is(gone, ErrNoKey) {
		return nil, gone
	}
	parts, err := e.Open(keys)
	if err != nil {
		return nil, err
	}
	opened := make([]Part, 0, len(parts))
	for _, p := range parts {
		if p != nil {
			opened = append(opened, *p)
		}
	}
	return opened, gone
}

// PartKeys gives the key of each part of an entry, in their order. Such a key
// opens that one part and nothing else. Where the seal key is gone it is nil,
// and the error [ErrNoKey]; the others are as those of Unseal.
func (k *Keys) PartKeys(e Entry) ([][]byte, error) {
	keys := make([][]byte, len(e.sealed))
	var gone error
	for i, s := range e.sealed {
		key, err := k.openSeal(s.T, s.Day)
		if err == nil && keyID(key) != s.Key { // a new one was made later that day
			err = ErrNoKey
		}
		switch {
		case err == nil:
			keys[i] = partKey(key, s.Salt)
		case errors.Is(err, ErrNoKey):
			gone = in(e, i, err)
		default:
			return nil, in(e, i, err)
		}
	}
	return keys, gone
}

// Open opens the parts of an entry with keys of their own, as
// [Keys.PartKeys] gave them. A part without a key is nil. [ErrCorrupt] means
// that a key does not open its part.
func (e Entry) Open(keys [][]byte) ([]*Part, error) {
	if len(keys) != len(e.sealed) {
		return nil, fmt.Errorf("record %s: %w: a key for each part is wanted", e.ID(), ErrCorrupt)
	}
	b := body{V: version, Kind: e.Kind, Time: e.Time, Clear: e.Clear, Sealed: e.sealed}
	parts := make([]*Part, len(keys))
	for i, key := range keys {
		if key == nil {
			continue
		}
		var err error
		if parts[i], err = b.open(i, key); err != nil {
			return nil, in(e, i, err)
		}
	}
	return parts, nil
}

// in says in which part an error is.
func in(e Entry, part int, err error) error {
	return fmt.Errorf("record %s, part %d: %w", e.ID(), part, err)
}

// open opens part i.
func (b body) open(i int, key []byte) (*Part, error) {
	aead, err := partAEAD(key)
	if err != nil {
		return nil, ErrCorrupt
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), b.Sealed[i].CT, b.aad(i, b.Sealed[i]))
	if err != nil || len(plain) < 4 || uint64(binary.BigEndian.Uint32(plain)) > uint64(len(plain)-4) {
		return nil, ErrCorrupt
	}
	end := 4 + binary.BigEndian.Uint32(plain)
	return &Part{Tenant: string(plain[4:end]), Plain: plain[end:]}, nil
}
