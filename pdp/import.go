package pdp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// Feed is a source of facts that somebody asks to load: the rows of one or
// more files, mapped to what they assert.
//
// # What an import does
//
// Facts are compared by natural key: a node's id, an edge's child, kind and
// parent, a link's kind and ends. What the rows assert of one key is united;
// where that equals what is known nothing happens; where it overlaps with
// something else, the old facts are voided and the new ones asserted; what does
// not overlap stays. So an import states what is; it ends nothing that the feed
// does not mention, and the same feed a second time changes nothing.
//
// An implied fact (a plan that no list names) is made only where nothing is
// known of its key, and gives way to rows that do list it. A Person is treated
// the same way, always: its facts are not a feed's to change. Of a node's
// attributes only those that the feed states are changed.
//
// A row counts as a whole: it is refused, with a reason, and nothing of it is
// kept; or something had to be written for it (loaded); or everything it says
// was known already, from the store or from rows before it (unchanged).
//
// The facts are written in bounded batches, each decided and recorded as a
// change, and become visible together when the last is written. An import that
// was interrupted goes on where it stopped when the same feed is sent again.
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
	// DryRun counts what would be written, and writes nothing. What only the
	// facts as a whole refuse (a cycle, an end that does not exist) it does not see.
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
	// Refused is set instead of Facts by who could not read the row.
	Refused *Reason `json:"refused,omitempty"`
}

// Desired is a fact that a row asserts.
type Desired struct {
	// Event is the assertion with its valid time: of a node, an edge, or a link
	// between persons or from a person to what it owns.
	Event hierarchy.Event `json:"event"`
	// Implied: the row needs it, but does not list it.
	Implied bool `json:"implied,omitempty"`
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
	RowValue         = "value_conflict"    // another row gives the node other attributes for the same time
	RowTooLarge      = "row_too_large"     // more than MaxRowFacts facts, or too long attributes
	RowEmpty         = "row_empty"         // asserts nothing
)

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
	// Facts and Voided count the facts that this run asserted and voided.
	Facts  int `json:"facts"`
	Voided int `json:"voided"`
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
	var r Row
	if len(line) > MaxRowBytes {
		return r, fmt.Errorf("row is longer than %d bytes", MaxRowBytes)
	}
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
	im := &importing{p: p, feed: &f, byKey: map[factKey]int32{}, limit: importEvents,
		report: Imported{ID: f.ID, DryRun: f.DryRun, Refusals: []RefusedRow{}}}
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
	}
	for _, file := range f.Files {
		if len(file.Name) > 256 || len(file.Digest) > 128 {
			return bad("a file's name or digest is too long")
		}
	}
	return nil
}

// factKey is what makes two assertions speak of one fact.
type factKey struct {
	kind hierarchy.Kind
	name string // of an edge or link
	a, b hierarchy.ID
}

// mutual: the fact is the same the other way round.
func (k factKey) mutual() bool {
	return k.kind == hierarchy.KindLink && (k.name == string(hierarchy.LinkMerge) || k.name == string(hierarchy.LinkFamily))
}

func keyOf(e *hierarchy.Event) (factKey, bool) {
	switch {
	case e.Kind == hierarchy.KindNode && e.Node != nil:
		return factKey{kind: e.Kind, a: e.Node.ID}, true
	case e.Kind == hierarchy.KindEdge && e.Edge != nil:
		return factKey{e.Kind, e.Edge.Kind, e.Edge.Child, e.Edge.Parent}, true
	case e.Kind == hierarchy.KindLink && e.Link != nil && e.Link.Kind != hierarchy.LinkIdentity:
		k := factKey{e.Kind, string(e.Link.Kind), e.Link.From, e.Link.To}
		if k.mutual() && k.a.Key > k.b.Key {
			k.a, k.b = k.b, k.a
		}
		return k, true
	}
	return factKey{}, false
}

// wanted is a fact of the feed: what stands, and what the rows want.
type wanted struct {
	key    factKey
	turned bool // of a mutual link: it was said from b to a
	shares []share
	held   []held
	clean  bool     // what stands is what is wanted
	bad    *Reason  // why no row may assert it
	made   int32    // the file that implied this node, plus one; 0 for none
	ends   [2]int32 // of an edge or link: the keys of its nodes
}

// share is what some rows say alike.
type share struct {
	valid   hierarchy.Interval
	implied bool
	attrs   map[string]any
	rows    []int32 // in order
	live    int     // how many of them count now
	owner   int32   // the row to which the share is put down
}

// held is a fact that stands.
type held struct {
	id    hierarchy.FactID
	valid hierarchy.Interval
	node  *hierarchy.Node // of a node
	mine  bool            // asserted by this very import
}

type feedRow struct {
	file, line int32
	nodesOnly  bool
	active     bool
	loaded     bool
	refused    bool
	known      hierarchy.Interval
	says       []says
}

type says struct{ key, share int32 }

type importing struct {
	p      *PDP
	feed   *Feed
	w      world
	keys   []*wanted
	byKey  map[factKey]int32
	rows   []feedRow // the first is the import's own: its tenant
	merges bool
	open   bool
	limit  int
	again  *again // of a history import that is resumed
	fake   uint64 // revision of a dry run
	done   int
	report Imported
}

func (im *importing) run(ctx context.Context) error {
	p := im.p
	if err := im.permit(ctx, false); err != nil {
		return err
	}
	im.tenant()
	for row, err := range im.feed.Rows {
		if err != nil {
			return err
		}
		if row.File < 0 || row.File >= len(im.feed.Files) {
			return &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "a row names no file of the feed"}
		}
		if len(im.rows) > MaxImportRows {
			return &authz.Error{Kind: authz.Refused, Code: authz.TooLarge, Text: fmt.Sprintf("a feed holds at most %d rows: split it", MaxImportRows)}
		}
		im.take(row)
		if len(im.rows)%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := im.permit(ctx, true); err != nil {
		return err
	}
	for f := range p.View(im.w.now, 0).Facts(hierarchy.KindNode) {
		im.stands(f.Event, f.ID, false)
	}
	for f := range p.View(im.w.now, 0).Facts(hierarchy.KindEdge) {
		im.stands(f.Event, f.ID, false)
	}
	for f := range p.View(im.w.now, 0).Facts(hierarchy.KindLink) {
		im.stands(f.Event, f.ID, false)
	}
	if err := im.resume(ctx); err != nil {
		return err
	}
	im.dangling()
	var err error
	if im.feed.History {
		err = im.replay(ctx)
	} else {
		err = im.reconcile(ctx)
	}
	if err != nil || !im.open || im.feed.DryRun {
		return err
	}
	_, err = im.change(ctx, nil, 0, -1, hierarchy.ImportClose)
	return err
}

// permit asks Ward's own policies: for the import at its tenant, and for links
// between persons, who are no tenant's, at the operator. The answer is recorded
// once, when the rows are read; a deny at once.
func (im *importing) permit(ctx context.Context, record bool) error {
	p := im.p
	cur := p.current.Load()
	w, err := p.world(cur)
	if err != nil {
		return err
	}
	im.w = w
	c := Change{Actor: im.feed.Actor, Caller: im.feed.Caller, Import: im.as(hierarchy.ImportOpen)}
	questions := w.questions(c, nil)
	if im.merges {
		view := w.graph.At(w.now, w.rev, w.confers)
		questions = append(questions, ownQuestion(c.Actor, c.Caller, "link.change", operator(view), nil))
	}
	rec := recording{kind: audit.Decision, world: w, head: cur.head}
	var denied authz.Code
	for _, a := range questions {
		j := w.judge(a)
		rec.items = append(rec.items, item{a, j})
		if !j.verdict.Effect {
			denied = j.verdict.Code
		}
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
	im.report.Record = audit.ID(seq)
	return nil
}

// tenant makes the import's own row: its tenant, where that does not exist.
func (im *importing) tenant() {
	own := feedRow{file: -1, known: hierarchy.Always}
	im.rows = append(im.rows, own)
	if im.feed.Tenant == "" {
		return
	}
	view := im.w.graph.At(im.w.now, im.w.rev, im.w.confers)
	id := hierarchy.TenantID(im.feed.Tenant)
	if exists(view, id) {
		return
	}
	im.report.Tenant = im.feed.Tenant
	im.say(0, hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindNode, Valid: hierarchy.Always, Node: &hierarchy.Node{ID: id}}, true)
	cat := im.w.set.Catalogue()
	kinds := map[string]bool{}
	for name, k := range cat.Edges {
		if k.Confers && slices.Contains(k.From, hierarchy.TenantType) && slices.Contains(k.To, hierarchy.OperatorType) {
			kinds[name] = true
		}
	}
	for _, kind := range sorted(kinds) {
		im.say(0, hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindEdge, Valid: hierarchy.Always,
			Edge: &hierarchy.Edge{Child: id, Kind: kind, Parent: operator(view)}}, true)
		break
	}
}

// take reads a row.
func (im *importing) take(row Row) {
	n := int32(len(im.rows))
	if row.Known.IsZero() {
		row.Known = hierarchy.Always
	}
	im.rows = append(im.rows, feedRow{file: int32(row.File), line: int32(row.Line), known: row.Known, nodesOnly: true})
	if r := im.refusal(&row); r != nil {
		im.refuse(n, *r)
		return
	}
	r := &im.rows[n]
	r.says = make([]says, 0, len(row.Facts))
	for i := range row.Facts {
		f := &row.Facts[i]
		r.nodesOnly = r.nodesOnly && f.Event.Kind == hierarchy.KindNode
		im.merges = im.merges || f.Event.Kind == hierarchy.KindLink && f.Event.Link.Kind != hierarchy.LinkOwns
		im.say(n, f.Event, f.Implied)
	}
}

// refusal says why a row cannot count, as far as the row alone tells.
func (im *importing) refusal(row *Row) *Reason {
	now := im.w.now
	switch {
	case row.Refused != nil:
		return &Reason{cut(row.Refused.Code, 64), cut(row.Refused.Text, 512)}
	case len(row.Facts) == 0:
		return &Reason{RowEmpty, "the row asserts nothing"}
	case len(row.Facts) > MaxRowFacts:
		return &Reason{RowTooLarge, fmt.Sprintf("a row asserts at most %d facts", MaxRowFacts)}
	case row.Known.To <= row.Known.From:
		return &Reason{RowKnownInverted, "the source withdrew the row before or when it learned it"}
	case row.Known.From > now || row.Known.To > now && row.Known.To != hierarchy.Forever:
		return &Reason{RowKnownLater, "the source learns or withdraws the row after now"}
	case row.Known.To <= now && !im.feed.History:
		return &Reason{RowObsolete, "the source has withdrawn the row; a history import (--history) reads such rows"}
	}
	for i := range row.Facts {
		e := &row.Facts[i].Event
		key, ok := keyOf(e)
		if !ok || e.Op != hierarchy.Assert || e.Link != nil && e.Link.Kind == hierarchy.LinkSelf || e.Node != nil && e.Node.Principal {
			return &Reason{RowKind, "a feed asserts nodes, edges, and links between persons or from a person to what it owns"}
		}
		if e.Valid.To <= e.Valid.From {
			return &Reason{hierarchy.CodeIntervalInverted, "the valid time ends at or before its start"}
		}
		if e.Link != nil && e.Link.From == e.Link.To {
			return &Reason{hierarchy.CodeEventInvalid, "a link ties two, not one to itself"}
		}
		if n := e.Node; n != nil && (n.Person != nil || len(n.Attrs) > 0 && n.ID.Type == hierarchy.PersonType) {
			return &Reason{RowPerson, "a feed says no more of a person than the key"}
		}
		known, ok := im.byKey[key]
		if ok && im.keys[known].bad != nil {
			return im.keys[known].bad
		}
		if ok && (e.Node == nil || len(e.Node.Attrs) == 0) {
			continue
		}
		if bad := im.admit(e); bad != nil {
			if len(im.keys) < MaxImportRows {
				im.keys[im.keyed(key)].bad = bad
			}
			return bad
		}
	}
	return nil
}

// admit holds a fact against the rules for ids, the catalogue and the tenant of
// the import: what would refuse every row that asserts it.
func (im *importing) admit(e *hierarchy.Event) *Reason {
	ids := make([]hierarchy.ID, 0, 2)
	ok := true
	own := func(id hierarchy.ID) bool { return im.feed.Tenant == "" || id.Owner() == im.feed.Tenant }
	switch {
	case e.Node != nil:
		ids = append(ids, e.Node.ID)
		ok = own(e.Node.ID) || e.Node.ID.Type == hierarchy.PersonType
		size := 0
		for k, v := range e.Node.Attrs {
			size += len(k) + len(fmt.Sprint(v))
		}
		if size > maxAttrBytes {
			return &Reason{RowTooLarge, fmt.Sprintf("a node's attributes are longer than %d bytes", maxAttrBytes)}
		}
	case e.Edge != nil:
		ids = append(ids, e.Edge.Child, e.Edge.Parent)
		ok = own(e.Edge.Child)
	case e.Link != nil:
		ids = append(ids, e.Link.From, e.Link.To)
		ok = e.Link.Kind != hierarchy.LinkOwns || own(e.Link.To)
	}
	for _, id := range ids {
		if err := id.Valid(); err != nil {
			return &Reason{hierarchy.CodeEventInvalid, err.Error()}
		}
	}
	if !ok {
		return &Reason{hierarchy.CodeTenancyViolation, "an import of tenant " + im.feed.Tenant + " must not touch this"}
	}
	if e.Node != nil && (e.Node.ID.Type == hierarchy.OperatorType || e.Node.ID.Type == hierarchy.NetworkType) {
		return &Reason{RowKind, "a feed does not make an operator or a network"}
	}
	c := *e
	if r := check(im.w, &c); r != nil {
		return &Reason{r.Code, r.Text} // names types and attributes only
	}
	return nil
}

func cut(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

func (im *importing) keyed(key factKey) int32 {
	k, ok := im.byKey[key]
	if !ok {
		k = int32(len(im.keys))
		im.byKey[key] = k
		w := &wanted{key: key}
		im.keys = append(im.keys, w)
		if key.kind != hierarchy.KindNode {
			w.ends = [2]int32{im.keyed(factKey{kind: hierarchy.KindNode, a: key.a}), im.keyed(factKey{kind: hierarchy.KindNode, a: key.b})}
		}
	}
	return k
}

// dangling refuses rows whose edges or links end at what is nowhere. Others
// that the facts do not admit show when they are written.
func (im *importing) dangling() {
	nowhere := func(ki int32) bool { k := im.keys[ki]; return len(k.shares) == 0 && len(k.held) == 0 }
	for i := range im.rows {
		for _, s := range im.rows[i].says {
			if k := im.keys[s.key]; k.key.kind != hierarchy.KindNode && (nowhere(k.ends[0]) || nowhere(k.ends[1])) {
				im.refuse(int32(i), reasonOf(&hierarchy.Refusal{Code: hierarchy.CodeUnknownEnd}))
				break
			}
		}
	}
}

// say puts down a fact to a row.
func (im *importing) say(row int32, e hierarchy.Event, implied bool) {
	key, _ := keyOf(&e)
	ki := im.keyed(key)
	k := im.keys[ki]
	if e.Link != nil && len(k.shares) == 0 {
		k.turned = e.Link.From != key.a
	}
	var attrs map[string]any
	if e.Node != nil && len(e.Node.Attrs) > 0 {
		attrs = e.Node.Attrs
	}
	si := slices.IndexFunc(k.shares, func(s share) bool {
		return s.valid == e.Valid && s.implied == implied && sameAttrs(s.attrs, attrs)
	})
	if si < 0 {
		si = len(k.shares)
		k.shares = append(k.shares, share{valid: e.Valid, implied: implied, attrs: attrs})
	}
	r := &im.rows[row]
	if !slices.Contains(r.says, says{ki, int32(si)}) {
		k.shares[si].rows = append(k.shares[si].rows, row)
		r.says = append(r.says, says{ki, int32(si)})
	}
}

func sameAttrs(a, b map[string]any) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

// stands notes a fact that is there, of a key that the feed speaks of.
func (im *importing) stands(e hierarchy.Event, id hierarchy.FactID, mine bool) {
	key, ok := keyOf(&e)
	if !ok {
		return
	}
	ki, ok := im.byKey[key]
	if !ok {
		if !mine {
			return
		}
		ki = im.keyed(key) // of this import, and nobody wants it any more
	}
	h := held{id: id, valid: e.Valid, mine: mine}
	if e.Node != nil {
		n := *e.Node
		h.node = &n
	}
	im.keys[ki].held = append(im.keys[ki].held, h)
}

// count sums the rows up.
func (im *importing) count() {
	for i := range im.report.Files {
		f := &im.report.Files[i]
		f.Rows, f.Loaded, f.Unchanged, f.Refused, f.Implied = 0, 0, 0, 0, 0
	}
	for i := range im.rows {
		r := &im.rows[i]
		if r.file < 0 {
			continue
		}
		f := &im.report.Files[r.file]
		f.Rows++
		switch {
		case r.refused:
			f.Refused++
		case r.loaded:
			f.Loaded++
		default:
			f.Unchanged++
		}
	}
	for _, k := range im.keys {
		if k.made > 0 && (im.feed.History || slices.ContainsFunc(k.held, func(h held) bool { return h.mine })) {
			im.report.Files[k.made-1].Implied++
		}
	}
	order := map[string]int{}
	for i, f := range slices.Backward(im.feed.Files) {
		order[f.Name] = i
	}
	slices.SortStableFunc(im.report.Refusals, func(a, b RefusedRow) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
}

// refuse drops a row, and everything it says.
func (im *importing) refuse(row int32, why Reason) {
	r := &im.rows[row]
	if r.refused || r.file < 0 {
		return
	}
	r.refused = true
	im.report.Refusals = append(im.report.Refusals, RefusedRow{im.feed.Files[r.file].Name, int(r.line), why.Code, why.Text})
	if r.active {
		im.activate(row, false)
	}
}

// activate makes a row count, or count no longer.
func (im *importing) activate(row int32, on bool) {
	r := &im.rows[row]
	if r.active == on {
		return
	}
	r.active = on
	for _, s := range r.says {
		k := im.keys[s.key]
		sh := &k.shares[s.share]
		if on {
			if sh.live++; sh.live == 1 {
				sh.owner, k.clean = row, false
			}
			continue
		}
		sh.live--
		if sh.owner == row {
			sh.owner = -1
			for _, other := range sh.rows {
				if im.rows[other].active {
					sh.owner = other
					break
				}
			}
		}
		if sh.live == 0 || r.refused {
			k.clean = false
		}
	}
}

// component is a longest interval of what the rows want of a key.
type component struct {
	valid   hierarchy.Interval
	attrs   map[string]any
	implied bool
	shares  []int32
}

// components unites what the live rows want of a key. A conflict is the later
// of two rows that contradict each other, or -1.
func (k *wanted) components() (list []component, conflict int32) {
	listed := slices.ContainsFunc(k.shares, func(s share) bool { return s.live > 0 && !s.implied })
	var order []int32
	for i := range k.shares {
		if s := &k.shares[i]; s.live > 0 && s.implied != listed {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		x, y := k.shares[a].valid, k.shares[b].valid
		return cmp.Or(cmp.Compare(x.From, y.From), cmp.Compare(x.To, y.To), cmp.Compare(a, b))
	})
	for _, i := range order {
		s := &k.shares[i]
		if n := len(list) - 1; n >= 0 && s.valid.From <= list[n].valid.To {
			last := &list[n]
			if sameAttrs(last.attrs, s.attrs) {
				last.valid.To = max(last.valid.To, s.valid.To)
				last.shares = append(last.shares, i)
				continue
			}
			if s.valid.From < last.valid.To {
				later := s.owner
				for _, o := range last.shares {
					later = max(later, k.shares[o].owner)
				}
				return nil, later
			}
		}
		list = append(list, component{s.valid, s.attrs, s.implied, []int32{i}})
	}
	return list, -1
}

// step is one event of a batch and where it comes from.
type step struct {
	event     hierarchy.Event
	key       int32
	component *component // what it asserts; nil when it voids
}

// diff returns the events that turn what stands of a key into what is wanted,
// and puts down what is written for a row to it.
func (im *importing) diff(ki int32, line int32) []step {
	k := im.keys[ki]
	list, conflict := k.components()
	for conflict >= 0 {
		im.refuse(conflict, Reason{RowValue, "another row gives this node other attributes for the same time"})
		list, conflict = k.components()
	}
	keep := k.key.kind == hierarchy.KindNode && k.key.a.Type == hierarchy.PersonType
	if !keep {
		keep = !slices.ContainsFunc(list, func(c component) bool { return !c.implied })
	}
	if keep && len(list) > 0 && slices.ContainsFunc(k.held, func(h held) bool { return !h.mine }) {
		list = nil // known already, whatever is known of it
	}
	stays := make([]bool, len(k.held))
	var steps []step
	for c := range list {
		c := &list[c]
		same := slices.IndexFunc(k.held, func(h held) bool { return h.valid == c.valid && states(h.node, c.attrs) })
		if same >= 0 {
			stays[same] = true
			if k.held[same].mine {
				im.credit(k, c)
			}
			continue
		}
		im.credit(k, c)
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: k.key.kind, Valid: c.valid, Row: int(line)}
		switch k.key.kind {
		case hierarchy.KindNode:
			n := &hierarchy.Node{ID: k.key.a}
			for _, h := range k.held {
				if h.valid.Overlaps(c.valid) && h.node != nil {
					n.Attrs, n.Person, n.Principal = overlay(n.Attrs, h.node.Attrs), h.node.Person, h.node.Principal
				}
			}
			n.Attrs = overlay(n.Attrs, c.attrs)
			e.Node = n
		case hierarchy.KindEdge:
			e.Edge = &hierarchy.Edge{Child: k.key.a, Kind: k.key.name, Parent: k.key.b}
		case hierarchy.KindLink:
			e.Link = &hierarchy.Link{Kind: hierarchy.LinkKind(k.key.name), From: k.key.a, To: k.key.b}
			if k.turned {
				e.Link.From, e.Link.To = k.key.b, k.key.a
			}
		}
		steps = append(steps, step{e, ki, c})
	}
	var voids []step
	for i, h := range k.held {
		gone := h.mine || slices.ContainsFunc(list, func(c component) bool { return c.valid.Overlaps(h.valid) })
		if gone && !stays[i] {
			voids = append(voids, step{event: hierarchy.Event{Op: hierarchy.Void, Kind: k.key.kind, Fact: h.id, Row: int(line)}, key: ki})
		}
	}
	return append(voids, steps...)
}

// states reports whether a node has these attributes.
func states(n *hierarchy.Node, attrs map[string]any) bool {
	for name, v := range attrs {
		if n == nil || !reflect.DeepEqual(n.Attrs[name], v) {
			return false
		}
	}
	return true
}

func overlay(under, over map[string]any) map[string]any {
	if len(over) == 0 {
		return under
	}
	out := make(map[string]any, len(under)+len(over))
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		out[k] = v
	}
	return out
}

// credit puts a fact that had to be written down to its rows: to those that
// say more of it than the rows before them.
func (im *importing) credit(k *wanted, c *component) {
	order := slices.Clone(c.shares)
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(k.shares[a].owner, k.shares[b].owner) })
	var said []hierarchy.Interval
	for _, i := range order {
		s := &k.shares[i]
		if s.owner >= 0 && !within(s.valid, said) {
			im.rows[s.owner].loaded = true
		}
		said = append(said, s.valid)
	}
	if owner := k.shares[order[0]].owner; c.implied && k.key.kind == hierarchy.KindNode && owner >= 0 && im.rows[owner].file >= 0 {
		k.made = im.rows[owner].file + 1
	}
}

// within reports whether some intervals together hold all of v.
func within(v hierarchy.Interval, some []hierarchy.Interval) bool {
	for moved := true; moved && v.From < v.To; {
		moved = false
		for _, s := range some {
			if s.From <= v.From && v.From < s.To {
				v.From, moved = s.To, true
			}
		}
	}
	return v.From >= v.To
}

// batch is what becomes one revision: keys, and what has to happen to them.
type batch struct {
	file   int32
	at     hierarchy.Instant // of a history import
	keys   []int32
	steps  map[int32][]step
	lines  map[int32]int32
	events int
	bytes  int
}

func (im *importing) newBatch(at hierarchy.Instant) *batch {
	return &batch{file: -1, at: at, steps: map[int32][]step{}, lines: map[int32]int32{}}
}

// add brings a key into a batch, or up to date in it.
func (im *importing) add(b *batch, ki int32, line int32) {
	k := im.keys[ki]
	if _, in := b.lines[ki]; !in {
		b.keys = append(b.keys, ki)
		b.lines[ki] = line
	} else {
		line = b.lines[ki]
	}
	b.events -= len(b.steps[ki])
	steps := im.diff(ki, line)
	b.steps[ki] = steps
	b.events += len(steps)
	for i := range steps {
		b.bytes += 512
		if n := steps[i].event.Node; n != nil && len(n.Attrs) > 0 {
			b.bytes += maxAttrBytes
		}
	}
	k.clean = true
}

// addRow brings everything that a row says into a batch.
func (im *importing) addRow(b *batch, row int32) {
	r := &im.rows[row]
	if r.file >= 0 {
		b.file = r.file
	}
	for _, s := range r.says {
		if !im.keys[s.key].clean {
			im.add(b, s.key, r.line)
		}
	}
}

func (im *importing) full(b *batch) bool { return b.events >= im.limit || b.bytes >= importBytes }

// write makes a batch a revision. Rows that the facts refuse are dropped from
// it, until the facts admit it.
func (im *importing) write(ctx context.Context, b *batch) error {
	refused := 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var steps []step
		pick := func(want func(*hierarchy.Event) bool) {
			for _, k := range b.keys {
				for _, s := range b.steps[k] {
					if want(&s.event) {
						steps = append(steps, s)
					}
				}
			}
		}
		// What ties goes before what it ties, and comes after it.
		pick(func(e *hierarchy.Event) bool { return e.Op == hierarchy.Void && e.Kind != hierarchy.KindNode })
		pick(func(e *hierarchy.Event) bool { return e.Kind == hierarchy.KindNode })
		pick(func(e *hierarchy.Event) bool { return e.Op == hierarchy.Assert && e.Kind != hierarchy.KindNode })
		if len(steps) == 0 {
			return nil
		}
		events := make([]hierarchy.Event, len(steps))
		for i := range steps {
			events[i] = steps[i].event
		}
		facts, err := im.change(ctx, events, b.at, b.file, hierarchy.ImportMore)
		var r *hierarchy.Refusal
		if errors.As(err, &r) && r.Index >= 0 && r.Index < len(steps) && im.blame(b, &steps[r.Index], r) {
			refused++
			continue
		}
		if err != nil {
			return err
		}
		im.settle(b, steps, facts)
		if refused > 8 {
			im.limit = max(importSmallest, im.limit/4)
		} else if im.limit < importEvents {
			im.limit *= 2
		}
		return nil
	}
}

// blame refuses the rows that an event comes from and brings the batch up to
// date. It reports false when it comes from none.
func (im *importing) blame(b *batch, s *step, why *hierarchy.Refusal) bool {
	k := im.keys[s.key]
	var rows []int32
	for i := range k.shares {
		if s.component != nil && !slices.Contains(s.component.shares, int32(i)) {
			continue
		}
		for _, row := range k.shares[i].rows {
			if r := &im.rows[row]; r.active && !r.refused && r.file >= 0 {
				rows = append(rows, row)
			}
		}
	}
	for _, row := range rows {
		im.refuse(row, reasonOf(why))
	}
	// What the rows said besides is wanted no longer, here or in batches before.
	for _, row := range rows {
		for _, said := range im.rows[row].says {
			other := im.keys[said.key]
			_, in := b.lines[said.key]
			if !other.clean && (in || slices.ContainsFunc(other.held, func(h held) bool { return h.mine })) {
				im.add(b, said.key, im.rows[row].line)
			}
		}
	}
	return len(rows) > 0
}

// reasonOf words a refusal of the facts for a row. The refusal's own text may
// name a node whose key names a person.
func reasonOf(r *hierarchy.Refusal) Reason {
	text := map[string]string{
		hierarchy.CodeUnknownEnd:       "an end of an edge or link does not exist in all of the valid time",
		hierarchy.CodeUnknownTenant:    "the tenant does not exist in all of the valid time",
		hierarchy.CodeTenancyViolation: "the edge or link leads across tenants, or where none may lead",
		hierarchy.CodeCycle:            "the edge would close a cycle at some instant",
		hierarchy.CodeNodeExists:       "the node was made meanwhile, for a part of the valid time",
		hierarchy.CodeDuplicateFact:    "the fact, or a link the other way round, is known for a part of the valid time",
		hierarchy.CodeUnknownFact:      "a fact that the row replaces was ended or voided meanwhile",
		hierarchy.CodeImportOpen:       "another open import touches the same fact",
		hierarchy.CodeIntervalInverted: "the valid time ends at or before its start",
	}[r.Code]
	if text == "" {
		text = "the facts do not admit it"
	}
	return Reason{r.Code, text}
}

// settle notes what a written batch changed.
func (im *importing) settle(b *batch, steps []step, facts []hierarchy.FactID) {
	for _, s := range steps {
		k := im.keys[s.key]
		if s.event.Op == hierarchy.Void {
			k.held = slices.DeleteFunc(k.held, func(h held) bool { return h.id == s.event.Fact })
			im.report.Voided++
			continue
		}
		k.held = append(k.held, held{id: facts[0], valid: s.event.Valid, node: s.event.Node, mine: true})
		facts = facts[1:]
		im.report.Facts++
	}
}

// change makes a change of the import and returns the facts it asserted.
func (im *importing) change(ctx context.Context, events []hierarchy.Event, at hierarchy.Instant, file int32, s hierarchy.ImportStep) ([]hierarchy.FactID, error) {
	if s == hierarchy.ImportMore && !im.open {
		s = hierarchy.ImportOpen
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := im.feed
	if f.DryRun {
		im.fake++
		return factIDs(im.p.graph.Tip().Revision+im.fake, events), nil
	}
	c := Change{Actor: f.Actor, Caller: f.Caller, Why: f.Why, Ticket: f.Ticket, Events: events, At: at,
		Import: im.as(s)}
	if file >= 0 {
		c.Feed = f.Files[file].Digest + " " + f.Files[file].Name
	}
	if im.again != nil {
		facts, ok, err := im.again.next(c)
		if err != nil {
			return nil, err
		}
		if ok {
			im.open = true
			return facts, nil
		}
		im.again = nil
	}
	out, err := im.p.Change(ctx, c)
	if out.Revision == 0 {
		return nil, err
	}
	im.open = s != hierarchy.ImportClose
	r := &im.report
	if r.Revisions++; r.Revisions == 1 {
		r.First = out.Revision
	}
	r.Last = out.Revision
	if f.Progress != nil {
		f.Progress(Progress{Rows: im.done, Of: len(im.rows) - 1, Revision: out.Revision})
	}
	return out.Facts, err
}

// as returns the import as hierarchy knows it. One with history is about the
// whole store.
func (im *importing) as(s hierarchy.ImportStep) *hierarchy.Import {
	m := &hierarchy.Import{ID: im.feed.ID, Tenant: im.feed.Tenant, Step: s, History: im.feed.History}
	if m.History {
		m.Tenant = ""
	}
	return m
}

func factIDs(rev uint64, events []hierarchy.Event) []hierarchy.FactID {
	var out []hierarchy.FactID
	for i, e := range events {
		if e.Op == hierarchy.Assert {
			out = append(out, hierarchy.FactID{Revision: rev, Index: uint32(i)})
		}
	}
	return out
}

// reconcile writes what the rows want now.
func (im *importing) reconcile(ctx context.Context) error {
	order := make([]int32, 0, len(im.rows))
	for _, nodesOnly := range []bool{true, false} { // an edge may need a node that a later file lists
		for i := range im.rows {
			if im.rows[i].nodesOnly == nodesOnly && !im.rows[i].refused && i > 0 {
				order = append(order, int32(i))
			}
		}
	}
	im.activate(0, true)
	for _, row := range order {
		im.activate(row, true)
	}
	b := im.newBatch(0)
	im.addRow(b, 0)
	for _, row := range order {
		r := &im.rows[row]
		if b.events > 0 && (im.full(b) || b.file >= 0 && r.file != b.file) {
			if err := im.write(ctx, b); err != nil {
				return err
			}
			b = im.newBatch(0)
		}
		im.done++
		if !r.refused {
			im.addRow(b, row)
		}
	}
	// What an interrupted run wrote and nobody wants any more.
	for ki := range im.keys {
		k := im.keys[ki]
		if !k.clean && slices.ContainsFunc(k.held, func(h held) bool { return h.mine }) {
			if b.events > 0 && im.full(b) {
				if err := im.write(ctx, b); err != nil {
					return err
				}
				b = im.newBatch(0)
			}
			im.add(b, int32(ki), 0)
		}
	}
	return im.write(ctx, b)
}

// replay writes what the rows wanted at each instant of the source.
func (im *importing) replay(ctx context.Context) error {
	type turn struct {
		at  hierarchy.Instant
		row int32
		on  bool
	}
	first := im.w.now
	for i := range im.rows {
		if r := &im.rows[i]; !r.refused {
			if r.known.From != hierarchy.Never {
				first = min(first, r.known.From)
			}
			first = min(first, r.known.To)
		}
	}
	var turns []turn
	for i := range im.rows {
		r := &im.rows[i]
		if r.refused {
			continue
		}
		turns = append(turns, turn{max(r.known.From, first), int32(i), true})
		if r.known.To != hierarchy.Forever {
			turns = append(turns, turn{r.known.To, int32(i), false})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.row, b.row)) })
	for len(turns) > 0 {
		at := turns[0].at
		n := slices.IndexFunc(turns, func(t turn) bool { return t.at != at })
		if n < 0 {
			n = len(turns)
		}
		for _, t := range turns[:n] {
			if !im.rows[t.row].refused {
				im.activate(t.row, t.on)
			}
		}
		b := im.newBatch(at)
		for _, t := range turns[:n] {
			r := &im.rows[t.row]
			if b.events > 0 && (im.full(b) || b.file >= 0 && r.file != b.file) {
				if err := im.write(ctx, b); err != nil {
					return err
				}
				b = im.newBatch(at)
			}
			if t.on {
				im.done++
			}
			im.addRow(b, t.row)
		}
		if err := im.write(ctx, b); err != nil {
			return err
		}
		turns = turns[n:]
	}
	return nil
}

// resume finds what an interrupted run has written.
func (im *importing) resume(ctx context.Context) error {
	if im.feed.DryRun {
		return nil
	}
	p := im.p
	i := slices.IndexFunc(p.graph.Imports(), func(m hierarchy.Import) bool { return m.ID == im.feed.ID })
	if i < 0 {
		return nil
	}
	first := p.graph.Tip().Revision
	for ; first > 0; first-- {
		if b, ok := p.graph.Batch(first); ok && b.Import != nil && b.Import.ID == im.feed.ID && b.Import.Step == hierarchy.ImportOpen {
			break
		}
	}
	im.report.Resumed = true
	if im.feed.History {
		var err error
		im.again, err = newAgain(ctx, p.store, first)
		return err
	}
	im.open = true
	mine := map[hierarchy.FactID]factKey{}
	for e, err := range p.store.Read(ctx, first-1) {
		if err != nil {
			return &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
		}
		b, err := hierarchy.Decode(e.Body)
		if err != nil {
			return &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
		}
		if b.Import == nil || b.Import.ID != im.feed.ID {
			continue
		}
		for i, ev := range b.Events {
			if ev.Op == hierarchy.Assert {
				id := hierarchy.FactID{Revision: e.Revision, Index: uint32(i)}
				mine[id], _ = keyOf(&ev)
				im.stands(ev, id, true)
				continue
			}
			// A fact of the import, or one that it replaces.
			key, ok := mine[ev.Fact]
			if !ok {
				f, known := p.View(im.w.now, 0).Fact(ev.Fact)
				if !known {
					continue
				}
				key, _ = keyOf(&f.Event)
			}
			if ki, ok := im.byKey[key]; ok {
				k := im.keys[ki]
				k.held = slices.DeleteFunc(k.held, func(h held) bool { return h.id == ev.Fact })
			}
		}
	}
	return nil
}

// again repeats the batches of an interrupted history import over the facts as
// they were before it: a run makes the same batches and meets the same
// refusals, so what it has to write begins where the repetition ends.
type again struct {
	graph *hierarchy.Graph
	queue []hierarchy.Entry
}

func newAgain(ctx context.Context, s hierarchy.Store, first uint64) (*again, error) {
	a := &again{graph: hierarchy.NewGraph()}
	fail := func(err error) (*again, error) {
		return nil, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
	}
	for e, err := range s.Read(ctx, 0) {
		if err != nil {
			return fail(err)
		}
		if e.Revision < first {
			if err := a.graph.Apply(e); err != nil {
				return fail(err)
			}
			continue
		}
		e.Body = slices.Clone(e.Body)
		a.queue = append(a.queue, e)
	}
	return a, nil
}

// next compares a change with the one that is stored in its place. It reports
// false when there is none.
func (a *again) next(c Change) ([]hierarchy.FactID, bool, error) {
	if len(a.queue) == 0 {
		return nil, false, nil
	}
	e := a.queue[0]
	stored, err := hierarchy.Decode(e.Body)
	if err != nil {
		return nil, false, &authz.Error{Kind: authz.Outage, Code: authz.StoreFailed, Text: "the open import could not be read", Err: err}
	}
	if err := a.graph.Check(&hierarchy.Batch{Time: c.At, Import: c.Import, Events: c.Events, Provenance: stored.Provenance}); err != nil {
		return nil, false, err
	}
	have, err := json.Marshal(stored.Events)
	if err != nil {
		return nil, false, err
	}
	want, err := json.Marshal(c.Events)
	if err != nil {
		return nil, false, err
	}
	if !bytes.Equal(have, want) || stored.Time != c.At {
		return nil, false, &hierarchy.Refusal{Code: "import_changed", Index: -1, Text: "the open import was begun otherwise: abandon it (--abandon) and start again"}
	}
	if err := a.graph.Apply(e); err != nil {
		return nil, false, err
	}
	a.queue = a.queue[1:]
	return factIDs(e.Revision, stored.Events), true, nil
}
