package pdp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// Feed is a delivery of facts that somebody asks to load: the rows of one or
// more files, mapped to what they assert.
//
// # What an import does
//
// Facts are compared by natural key: a node's id, an edge's child, kind and
// parent, a link's kind and ends, an assignment's principal, role and node, an
// entitlement's tenant and name, a grant's id. What the rows assert of one key
// is united; where that equals what is known nothing happens; where it overlaps
// with something else, the old facts are voided and the new ones asserted; what
// does not overlap stays. The same feed a second time changes nothing.
//
// An implied fact (a plan that no list names) is made only where nothing is
// known of its key, or where feeds of its source ended it, and gives way to rows that do list it. A Person or principal
// is treated the same way, always: its facts are not a feed's to change. Of a
// node's attributes only those that the feed states are changed. A grant is
// never changed: a row may only end it sooner.
//
// A row counts as a whole: it is refused, with a reason, and nothing of it is
// kept; or something had to be written for it (loaded); or everything it says
// was known already, from the store or from rows before it (unchanged).
//
// The facts are written in bounded batches, each decided and recorded as a
// change, and become visible together when the last is written. An import that
// was interrupted goes on where it stopped when the same feed is sent again.
//
// # Delta and full feeds
//
// A delta feed ends nothing that it does not name. What a row ends (Desired.Ends)
// is the fact that holds at that instant; it ends then, whatever the order of
// the rows, and before what other rows assert of it is compared.
//
// A full feed is the whole truth of its tenant, for the kinds of facts in Kinds.
// What an earlier feed of the same source and tenant asserted, and no row of
// this one speaks of, ends at AsOf; what was to begin only then is voided; what
// had ended stays. What an admin asserted by hand stays too, and so do persons,
// principals and the tenant. A refused row still speaks of what it names, as far
// as its keys could be read: it asserts nothing, and what stands of it stays.
//
// A source's feeds are loaded in the order of their dates: one that is dated
// before another that is loaded is refused (feed_stale).
//
// A feed that would end more than 2 % of the tenant's live coverages is refused
// (feed_ends_too_many) unless MassEnd is set. A coverage is a node that says
// whose a record is, and lives while it exists and a conferring edge leads from
// it to a node that does. What counts is the instant of AsOf, or now where that
// is later. Nothing is visible, and mostly nothing is written, when it is refused.
//
// # History
//
// A history import replays what the source knew, and when: every instant at
// which the source learned or withdrew a row is a revision with that time. It
// needs a store without edges and links. A row that only the facts refuse, at
// some instant, is withdrawn from that instant on.
type Feed struct {
	// Actor is who asks, Caller the program they use, as in Change.
	Actor  authz.Subject
	Caller authz.Caller
	// Why and Ticket are kept with every change of the import.
	Why, Ticket string
	// ID names the import: the digest of the map and the files. An import is
	// resumed, or found to be complete, by this id.
	ID string
	// Tenant is the one tenant that the feed may touch; empty for shared data.
	// It is made when it does not exist.
	Tenant string
	// History makes each instant of the source a revision.
	History bool
	// Source names the feed that this is one delivery of: letters, digits, dots,
	// underscores and dashes. A full feed needs one.
	Source string
	// Full: the rows are the whole truth of the kinds of facts in Kinds, as "node
	// Plan", "edge Coverage enrolledIn" (child and kind), "link owns",
	// "assignment", "entitlement" and "grant".
	Full  bool
	Kinds []string
	// AsOf is the feed's own date: 0 when it has none, which a full feed must.
	AsOf hierarchy.Instant
	// MassEnd lets the feed end any number of coverages.
	MassEnd bool
	// DryRun loads the feed into a copy of the facts, in memory, and reports what
	// access would change: the store stays as it is.
	DryRun bool
	// Files are the sources; Row.File counts in them.
	Files []FeedFile
	// Rows yields every row, in the order of the files. An error ends the
	// import before anything is written.
	Rows iter.Seq2[Row, error]
	// Progress, when set, is told of every batch after it is written.
	Progress func(Progress)
}

// FeedFile is one source file.
type FeedFile struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // "sha256:" and 64 hexadecimal digits
}

// Row is what one line of a source asserts.
type Row struct {
	File int `json:"file"` // in Feed.Files
	Line int `json:"line"`
	// Known is when the source held the row to be true: from when it learned it
	// to when it withdrew it. Zero means always.
	Known hierarchy.Interval `json:"known,omitzero"`
	Facts []Desired          `json:"facts,omitempty"`
	// Refused is set by who could not read the row. Facts then say only what it
	// speaks of.
	Refused *Reason `json:"refused,omitempty"`
}

// Desired is a fact that a row asserts.
type Desired struct {
	// Event is the assertion with its valid time.
	Event hierarchy.Event `json:"event"`
	// Implied: the row needs it, but does not list it.
	Implied bool `json:"implied,omitempty"`
	// Ends: the row does not assert the fact but ends it, at Event.Valid.To. Of a
	// grant only the id counts.
	Ends bool `json:"ends,omitempty"`
	// Column is where the source says it, for the reason of a refusal.
	Column string `json:"column,omitempty"`
}

// Reason says why a row is refused. Text names no person.
type Reason struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// RefusedRow is a row of which nothing was kept.
type RefusedRow struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Code string `json:"code"`
	Text string `json:"text"`
}

// Codes of a refused row, besides those of a [hierarchy.Refusal] and of the
// catalogue. Append-only.
const (
	RowObsolete      = "row_obsolete"      // the source has withdrawn it
	RowKnownInverted = "known_inverted"    // withdrawn before or when it was learned
	RowKnownLater    = "known_in_future"   // learned or withdrawn after now
	RowKind          = "kind_not_imported" // a kind of fact that no feed may assert
	RowPerson        = "person_details"    // more of a person than the key
	RowValue         = "value_conflict"    // another row gives the fact other contents for the same time
	RowEndsNothing   = "ends_nothing"      // ends what is not known, or at no instant
	RowRole          = "role_unknown"      // an assignment of no role
	RowPrincipal     = "principal_unknown" // an assignment, grant or link of no principal
	RowGrantChanged  = "grant_changed"     // a grant is known and says otherwise
	RowTooLarge      = "row_too_large"     // more than MaxRowFacts facts, or too long attributes
	RowEmpty         = "row_empty"         // asserts nothing
)

// Codes of a feed that is refused as a whole, as a [hierarchy.Refusal].
// Append-only.
const (
	FeedStale       = "feed_stale"         // dated before a feed of its source that is loaded
	FeedEndsTooMany = "feed_ends_too_many" // would end more than MaxEndPercent of the live coverages
	ImportChanged   = "import_changed"     // the open history import was begun otherwise
)

// MaxEndPercent is how many of a tenant's live coverages a feed may end unless
// MassEnd is set.
const MaxEndPercent = 2

// Limits of a feed.
const (
	// MaxImportRows is how many rows one import holds. What a feed says of one
	// fact may stand in any two of its rows, so all are in memory at once.
	MaxImportRows = 2_000_000
	// MaxImportFiles is how many files one import holds.
	MaxImportFiles = 256
	// MaxRowFacts is how many facts one row asserts.
	MaxRowFacts = 64
	// MaxRowBytes is the length of a row as JSON.
	MaxRowBytes = 64 << 10

	importEvents   = 4_000   // events of one batch, about
	importBytes    = 8 << 20 // of stored form, about
	importSmallest = 256     // events of a batch among many refusals
	maxAttrBytes   = 16 << 10

	maxIdentityBytes = 512 // of an issuer or a subject
)

// Progress says how far an import is.
type Progress struct {
	Rows     int    `json:"rows"` // looked at, of
	Of       int    `json:"of"`
	Revision uint64 `json:"revision"` // the last one written
}

// Imported says what an import became.
type Imported struct {
	ID string `json:"id"`
	// Revisions is how many revisions this run wrote, First and Last which.
	Revisions int    `json:"revisions"`
	First     uint64 `json:"first,omitempty"`
	Last      uint64 `json:"last,omitempty"`
	// Facts, Ended and Voided count the facts that this run asserted, ended and
	// voided.
	Facts  int `json:"facts"`
	Ended  int `json:"ended"`
	Voided int `json:"voided"`
	// Coverages is set when the import ends any.
	Coverages *Coverages `json:"coverages,omitempty"`
	// Access is what a dry run found to change.
	Access *AccessChange `json:"access,omitempty"`
	// Record is the ledger's record of the decision that permitted it.
	Record string `json:"record,omitempty"`
	// Resumed: an earlier run had begun it. DryRun: nothing was written.
	Resumed bool `json:"resumed,omitempty"`
	DryRun  bool `json:"dryRun,omitempty"`
	// Tenant is set when the import made its tenant.
	Tenant string `json:"tenant,omitempty"`

	Files    []ImportedFile `json:"files"`
	Refusals []RefusedRow   `json:"refusals"`
}

// Coverages counts those of the tenant that are live, and those of them that an
// import ends.
type Coverages struct {
	Live int `json:"live"`
	Ends int `json:"ends"`
}

// ImportedFile counts the rows of a file: Rows = Loaded + Unchanged + Refused.
// Implied counts the nodes that no row listed and that were made.
type ImportedFile struct {
	Name      string `json:"name"`
	Rows      int    `json:"rows"`
	Loaded    int    `json:"loaded"`
	Unchanged int    `json:"unchanged"`
	Refused   int    `json:"refused"`
	Implied   int    `json:"implied"`
}

// DecodeRow reads what [json.Marshal] makes of a Row, and nothing else: another
// field, a key given twice or in other letters, or another order is refused, so
// that no time or implied can be lost to a slip. A line end may follow. Its
// errors never repeat the contents.
func DecodeRow(line []byte) (Row, error) {
	if len(line) > MaxRowBytes {
		return Row{}, fmt.Errorf("row is longer than %d bytes", MaxRowBytes)
	}
	if r, ok := readRow(line); ok {
		return r, nil
	}
	return decodeRow(line)
}

func decodeRow(line []byte) (Row, error) {
	var r Row
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(&r); err != nil {
		return Row{}, errors.New("not a row of a feed as JSON")
	}
	if _, err := d.Token(); err != io.EOF {
		return Row{}, errors.New("data after the row")
	}
	for i := range r.Facts {
		n := r.Facts[i].Event.Node
		if n == nil {
			continue
		}
		for k, v := range n.Attrs {
			switch v := v.(type) {
			case bool, string:
			case json.Number:
				x, err := v.Int64()
				if err != nil {
					return Row{}, errors.New("an attribute number is not a 64-bit integer")
				}
				n.Attrs[k] = x
			case []any:
				list := make([]string, len(v))
				for j, e := range v {
					s, ok := e.(string)
					if !ok {
						return Row{}, errors.New("an attribute list holds something else than strings")
					}
					list[j] = s
				}
				n.Attrs[k] = list
			default:
				return Row{}, errors.New("an attribute is neither a bool, a string, a number nor a list of strings")
			}
		}
	}
	again, err := json.Marshal(r)
	if err != nil || !bytes.Equal(again, bytes.TrimSuffix(line, []byte("\n"))) {
		return Row{}, errors.New("not a row of a feed as ward writes it")
	}
	return r, nil
}

// Import loads a feed. See [Feed].
//
// Its error is an *[authz.Error] when Ward's own policies deny the import or
// something failed, a *[hierarchy.Refusal] when another import is open or the
// store does not admit this one, or what Rows yielded. Rows that are refused are
// no error. After an error some of the facts may be written, invisible: the same
// feed resumes, AbandonImport drops them.
func (p *PDP) Import(ctx context.Context, f Feed) (Imported, error) {
	if err := f.valid(); err != nil {
		return Imported{}, err
	}
	im := &importing{p: p, feed: &f, limit: importEvents, texts: map[string]string{}, sources: map[uint64]bool{},
		report: Imported{ID: f.ID, DryRun: f.DryRun, Refusals: []RefusedRow{}}}
	im.numbers = newNumbering(func(n int32) hierarchy.ID { return *im.ids.at(n) })
	im.byKey = newNumbering(func(n int32) factKey { return im.keys.at(n).key })
	for _, file := range f.Files {
		im.report.Files = append(im.report.Files, ImportedFile{Name: file.Name})
	}
	err := im.run(ctx)
	if err == nil || im.report.Revisions > 0 {
		im.count()
	}
	return im.report, err
}

// AbandonImport drops an open import: nothing of it was or will be visible.
// Of c only Actor, Caller, Why and Ticket are read.
func (p *PDP) AbandonImport(ctx context.Context, c Change, id string) (Changed, error) {
	for _, m := range p.graph.Imports() {
		if m.ID == id {
			m.Step = hierarchy.ImportAbandon
			return p.Change(ctx, Change{Actor: c.Actor, Caller: c.Caller, Why: c.Why, Ticket: c.Ticket, Import: &m})
		}
	}
	return Changed{}, &hierarchy.Refusal{Code: hierarchy.CodeImportUnknown, Index: -1, Text: "no import with this id is open"}
}

func (f *Feed) valid() error {
	bad := func(text string) error {
		return &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: text}
	}
	switch {
	case f.ID == "" || len(f.ID) > 128:
		return bad("an import needs an id of at most 128 bytes")
	case len(f.Files) == 0 || len(f.Files) > MaxImportFiles:
		return bad(fmt.Sprintf("an import has 1 to %d files", MaxImportFiles))
	case f.Rows == nil:
		return bad("an import needs rows")
	case f.Tenant != "" && hierarchy.TenantID(f.Tenant).Valid() != nil:
		return bad("the tenant is no tenant key")
	case !sourceName(f.Source) && (f.Source != "" || f.Full):
		return bad("a source has a name of letters, digits, dots, underscores and dashes, at most 64")
	case f.Full && (f.AsOf == 0 || f.History || len(f.Kinds) == 0 || f.Tenant == ""):
		return bad("a full feed has a tenant, a date and kinds of facts, and no history")
	}
	for _, file := range f.Files {
		if len(file.Name) > 256 || len(file.Digest) > 128 {
			return bad("a file's name or digest is too long")
		}
	}
	return nil
}

type importing struct {
	p      *PDP
	feed   *Feed
	w      world
	report Imported

	rows     pool[feedRow]        // the first is the import's own: its tenant
	times    []hierarchy.Interval // of a history import: when the rows after the first were known
	mentions pool[mention]
	keys     pool[wanted]
	byKey    numbering[factKey]
	ids      pool[hierarchy.ID] // and names
	numbers  numbering[hierarchy.ID]
	texts    map[string]string
	scratch  [MaxRowFacts]factKey // of the row that is read
	roles    map[string]bool
	sources  map[uint64]bool // of revisions: whether they are of the feed's source
	kinds    map[string]bool // of a full feed

	who    hierarchy.ID      // who asks
	links  bool              // there may be others than of who owns what
	asks   []hierarchy.Event // those that are decided one by one
	ending bool              // what no row of a full feed wants may end
	open   bool
	limit  int
	again  *again // of a history import that is resumed
	trial  *trial // of a dry run
	done   int
}

func (im *importing) run(ctx context.Context) error {
	p := im.p
	if err := im.permit(ctx, false); err != nil {
		return err
	}
	if err := im.inOrder(); err != nil {
		return err
	}
	im.ids.add(hierarchy.ID{}) // number 0
	im.tenant()
	for row, err := range im.feed.Rows {
		if err != nil {
			return err
		}
		if row.File < 0 || row.File >= len(im.feed.Files) {
			return &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "a row names no file of the feed"}
		}
		if im.rows.n > MaxImportRows {
			return &authz.Error{Kind: authz.Refused, Code: authz.TooLarge, Text: fmt.Sprintf("a feed holds at most %d rows: split it", MaxImportRows)}
		}
		im.take(row)
		if im.rows.n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := im.permit(ctx, true); err != nil {
		return err
	}
	if im.feed.DryRun {
		var err error
		if im.trial, err = newTrial(ctx, p, im.feed, im.who); err != nil {
			return err
		}
	}
	view := p.View(im.w.now, 0)
	// Nodes come last: an edge that nobody wants any more names some.
	for _, kind := range []hierarchy.Kind{hierarchy.KindEdge, hierarchy.KindLink, hierarchy.KindAssignment,
		hierarchy.KindEntitlement, hierarchy.KindGrant, hierarchy.KindNode} {
		for f := range view.Facts(kind) {
			im.stands(f, false)
		}
	}
	if err := im.resume(ctx); err != nil {
		return err
	}
	im.dangling()
	if im.feed.History {
		if err := im.replay(ctx); err != nil {
			return err
		}
	} else {
		im.wake()
		if err := im.mass(im.planned); err != nil {
			return err
		}
		if err := im.reconcile(ctx); err != nil {
			return err
		}
	}
	if im.open {
		// Rows that the facts refused may have changed the count.
		if err := im.mass((*wanted).stays); err != nil {
			_, gone := p.AbandonImport(ctx, Change{Actor: im.feed.Actor, Caller: im.feed.Caller, Why: FeedEndsTooMany}, im.feed.ID)
			return errors.Join(err, gone)
		}
		if _, err := im.change(ctx, nil, 0, -1, hierarchy.ImportClose); err != nil {
			return err
		}
	}
	if im.trial != nil {
		im.report.Access = im.trial.access(im.w, im.at())
	}
	return nil
}

// permit asks Ward's own policies: for the import at its tenant, for links of
// persons and principals, who are no tenant's, at the operator, and for what is
// decided one by one at each place. The answer is recorded once, when the rows
// are read; a deny at once. A dry run is an inquiry.
func (im *importing) permit(ctx context.Context, record bool) error {
	p := im.p
	cur := p.current.Load()
	w, err := p.world(cur)
	if err != nil {
		return err
	}
	im.w = w
	c := Change{Actor: im.feed.Actor, Caller: im.feed.Caller, Import: im.as(hierarchy.ImportOpen)}
	questions := w.questions(c, im.asks)
	if im.links {
		view := w.graph.At(w.now, w.rev, w.confers)
		questions = append(questions, ownQuestion(c.Actor, c.Caller, "link.change", operator(view), nil))
	}
	rec := recording{kind: audit.Decision, world: w, head: cur.head}
	var denied authz.Code
	for i, a := range questions {
		j := w.judge(a)
		if !j.verdict.Effect && denied == "" {
			denied = j.verdict.Code
			rec.items = append(rec.items, item{a, j})
		} else if i < MaxBatch { // the changes record them all
			rec.items = append(rec.items, item{a, j})
		}
	}
	if im.feed.DryRun && denied == "" {
		rec.kind, rec.inquiry = audit.Inquiry, &sealedInquiry{rec.items[0].principal, c.Caller.Name}
	}
	if denied == "" && !record {
		return nil
	}
	seq, err := p.append(ctx, &rec)
	if err != nil {
		return err
	}
	if denied != "" {
		return &authz.Error{Kind: authz.Refused, Code: denied,
			Text: "ward's own policies do not permit this import (record " + audit.ID(seq) + ")"}
	}
	im.who, im.report.Record = rec.items[0].principal, audit.ID(seq)
	return nil
}
