package cli

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

// rowReader turns the lines of one file into rows.
type rowReader struct {
	m      *feedMap
	f      *fileMap
	tenant string
	name   string
	number int               // of the file in the feed
	asOf   hierarchy.Instant // 0 when the feed has no date
	csv    *csv.Reader
	width  int
	at     map[string]int // columns
	only   []string       // those of the map's only
	dates  map[dateKey]readDate
	rows   int  // so far
	ended  bool // the trailer was read
}

// dateKey is a date as it stands in a column, and what it is there for.
type dateKey struct {
	side  int
	whole bool
	text  string
}

// readDate is a date that was read before.
type readDate struct {
	at  hierarchy.Instant
	why *pdp.Reason
}

// newRowReader reads the header.
func (m *feedMap) newRowReader(name string, number int, tenant string, in io.Reader) (*rowReader, error) {
	f, err := m.fileFor(name)
	if err != nil {
		return nil, err
	}
	if f.skip != "" {
		return nil, invalid("", "the map %s skips %s: %s", m.name, name, f.skip)
	}
	r := &rowReader{m: m, f: f, tenant: tenant, name: name, number: number, at: map[string]int{}, dates: map[dateKey]readDate{}}
	r.csv = csv.NewReader(&lineLimit{in: in})
	r.csv.FieldsPerRecord = -1
	r.csv.ReuseRecord = true
	header, err := r.csv.Read()
	if err != nil {
		return nil, invalid("", "%s:1: this is no header of a CSV file", name)
	}
	if r.width = len(header); r.width > maxColumns {
		return nil, invalid("", "%s:1: more than %d columns", name, maxColumns)
	}
	for i, c := range header {
		if i == 0 {
			c = strings.TrimPrefix(c, "\ufeff")
		}
		if _, twice := r.at[c]; twice && slices.Contains(f.columns(), c) {
			return nil, invalid("", "%s:1: the column %s is there twice", name, c)
		}
		r.at[c] = i
	}
	var missing []string
	for _, c := range f.columns() {
		if _, ok := r.at[c]; !ok {
			missing = append(missing, c)
		}
	}
	for _, c := range f.columns() {
		if _, ok := f.only[c]; ok {
			r.only = append(r.only, c)
		}
	}
	if len(missing) > 0 {
		return nil, invalid("is it the file that the map means?", "%s:1: %s: the header lacks %s", name, columnMissing, strings.Join(missing, ", "))
	}
	return r, nil
}

// lineLimit ends with an error in a line that is too long.
type lineLimit struct {
	in  io.Reader
	run int
}

var errLongLine = fmt.Errorf("a line is longer than %d bytes", maxLineBytes)

func (l *lineLimit) Read(b []byte) (int, error) {
	n, err := l.in.Read(b)
	if i := bytes.LastIndexByte(b[:n], '\n'); i >= 0 {
		l.run = n - i - 1
	} else {
		l.run += n
	}
	if l.run > maxLineBytes {
		return 0, errLongLine
	}
	return n, err
}

// next returns the next row, or io.EOF. Any other error is about the file as a
// whole.
func (r *rowReader) next() (pdp.Row, error) {
	rec, err := r.csv.Read()
	row := pdp.Row{File: r.number, Known: hierarchy.Always}
	var pe *csv.ParseError
	switch {
	case err == io.EOF && r.f.trailer != nil && !r.ended:
		return row, r.truncated("the trailer that the map names is missing")
	case err == io.EOF:
		return row, io.EOF
	case r.ended && err == nil:
		return row, r.truncated("lines follow the trailer")
	case errors.As(err, &pe):
		if pe.Line > pe.StartLine {
			// What else the open quote swallowed nobody can tell.
			return row, invalid("", "%s:%d: a quote is not closed in its line", r.name, pe.StartLine)
		}
		r.rows++
		row.Line = pe.StartLine
		row.Refused = &pdp.Reason{Code: rowMalformed, Text: "the line is no CSV record: a quote is misplaced"}
		return row, nil
	case err != nil:
		return row, invalid("", "%s: %s", r.name, cause(err))
	}
	if t := r.f.trailer; t != nil && rec[0] == t.starts {
		r.ended = true
		if count := strconv.Itoa(r.rows); len(rec) < t.count || strings.TrimLeft(strings.TrimSpace(rec[t.count-1]), "0") != strings.TrimLeft(count, "0") {
			return row, r.truncated("the trailer does not count the " + count + " rows before it")
		}
		return r.next()
	}
	r.rows++
	row.Line, _ = r.csv.FieldPos(0)
	row.Refused = r.fill(&row, rec)
	return row, nil
}

// truncated says that the file is not what was sent.
func (r *rowReader) truncated(text string) error {
	return invalid("ask for the file once more", "%s: %s: %s", feedTruncated, r.name, text)
}

// fill maps a record. What it says of a refused one names columns, no values.
// Where only a date or value cannot be read, the facts tell what the row speaks of.
func (r *rowReader) fill(row *pdp.Row, rec []string) *pdp.Reason {
	if len(rec) != r.width {
		return &pdp.Reason{Code: columnMissing, Text: fmt.Sprintf("the line has %d columns, the header %d", len(rec), r.width)}
	}
	f := r.f
	get := func(column string) string { return rec[r.at[column]] }
	for _, column := range r.only {
		if !slices.Contains(f.only[column], strings.TrimSpace(get(column))) {
			return &pdp.Reason{Code: rowExcluded, Text: "the map takes no rows with this " + column}
		}
	}
	keys := make([]string, len(f.keys))
	for i, k := range f.keys {
		v := get(k.column)
		if r.m.blank[strings.TrimSpace(v)] {
			return &pdp.Reason{Code: keyMissing, Text: k.column + " is blank"}
		}
		if v = k.normal(v); v == "" {
			return &pdp.Reason{Code: keyMissing, Text: k.column + " holds no key"}
		}
		if k.match != nil && !k.match.MatchString(v) {
			return &pdp.Reason{Code: keyInvalid, Text: k.column + " is not what the map expects"}
		}
		keys[i] = v
	}
	if f.tenant >= 0 && keys[f.tenant] != r.tenant {
		return &pdp.Reason{Code: rowForeign, Text: f.keys[f.tenant].column + " names another tenant than that of the feed"}
	}
	ids := make([]hierarchy.ID, len(f.nodes))
	for i, n := range f.nodes {
		ids[i] = r.id(n, keys)
		if ids[i].Valid() != nil {
			return &pdp.Reason{Code: keyInvalid, Text: "the key of the " + n.name + " is no key of ward"}
		}
	}
	m := rowMaker{rowReader: r, get: get, ids: ids, row: row}
	if c := f.change; c != nil {
		switch v := strings.TrimSpace(get(c.column)); {
		case slices.Contains(c.end, v):
			m.ends = true
		case !slices.Contains(c.asserts, v):
			m.fail(&pdp.Reason{Code: changeUnknown, Text: c.column + " says none of what the map knows"})
		}
	}
	row.Known = m.interval(f.known, false)
	for i, n := range f.nodes {
		if n.asserted && !m.ends {
			m.node(n, ids[i])
		}
	}
	for _, t := range f.ties {
		if !m.ends || t.dates[1] != "" {
			m.tie(t)
		}
	}
	return m.why
}

// rowMaker makes the facts of one row.
type rowMaker struct {
	*rowReader
	get  func(column string) string
	ids  []hierarchy.ID // of the nodes
	row  *pdp.Row
	ends bool
	why  *pdp.Reason // the first thing that is wrong
}

func (m *rowMaker) fail(why *pdp.Reason) {
	if m.why == nil {
		m.why = why
	}
}

func (m *rowMaker) node(n *nodeMap, id hierarchy.ID) {
	e := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindNode, Row: m.row.Line, Valid: m.interval(n.dates, true),
		Node: &hierarchy.Node{ID: id, Principal: n.principal}}
	for _, a := range n.attrs {
		if v := strings.TrimSpace(m.get(a[1])); !m.m.blank[v] {
			if e.Node.Attrs == nil {
				e.Node.Attrs = map[string]any{}
			}
			e.Node.Attrs[a[0]] = v
		}
	}
	m.row.Facts = append(m.row.Facts, pdp.Desired{Event: e, Implied: n.implied})
}

func (m *rowMaker) tie(t *tieMap) {
	e := hierarchy.Event{Op: hierarchy.Assert, Kind: t.is, Row: m.row.Line}
	if m.ends {
		e.Valid = m.end(t)
	} else {
		e.Valid = m.interval(t.dates, true)
	}
	switch t.is {
	case hierarchy.KindEdge:
		e.Edge = &hierarchy.Edge{Child: m.tied(t, "child"), Kind: t.kind, Parent: m.tied(t, "parent")}
	case hierarchy.KindLink:
		e.Link = &hierarchy.Link{Kind: hierarchy.LinkKind(t.kind), Issuer: m.value(t, "issuer"), Sub: m.value(t, "sub"), To: m.tied(t, "to")}
		if _, ok := t.ends["from"]; ok {
			e.Link.From = m.tied(t, "from")
		}
	case hierarchy.KindAssignment:
		e.Assignment = &hierarchy.Assignment{Principal: m.tied(t, "principal"), Role: m.value(t, "role"), Node: m.tied(t, "node")}
	case hierarchy.KindEntitlement:
		e.Entitlement = &hierarchy.Entitlement{Tenant: hierarchy.TenantID(m.tenant), Name: m.value(t, "name")}
	case hierarchy.KindGrant:
		g := &hierarchy.Grant{ID: m.value(t, "id"), Type: m.value(t, "type"), Grantor: m.tied(t, "grantor"), Grantee: m.tied(t, "grantee"),
			Subject: m.tied(t, "subject"), Scope: hierarchy.Scope{Capabilities: m.list(t, "can"), Covers: m.list(t, "covers")},
			Purpose: m.list(t, "purpose"), LegalBasis: m.value(t, "basis"), Jurisdiction: m.value(t, "jurisdiction")}
		if _, ok := t.ends["coverage"]; ok {
			g.Scope.Coverage = m.tied(t, "coverage")
		}
		e.Grant = g
	}
	m.row.Facts = append(m.row.Facts, pdp.Desired{Event: e, Implied: t.implied, Ends: m.ends, Column: t.column()})
}

// column is where a row says what a tie is about, for the kinds of which a
// column's value may be nothing that ward knows.
func (t *tieMap) column() string {
	for _, name := range []string{"role", "name", "type", "id", "sub"} {
		if v := t.values[name]; v != nil {
			return v.column
		}
	}
	return ""
}

func (m *rowMaker) tied(t *tieMap, end string) hierarchy.ID {
	if i := t.ends[end]; i >= 0 {
		return m.ids[i]
	}
	return hierarchy.TenantID(m.tenant)
}

// value returns one text of a tie; an optional one that is blank is empty.
func (m *rowMaker) value(t *tieMap, name string) string {
	list := m.list(t, name)
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func (m *rowMaker) list(t *tieMap, name string) []string {
	v := t.values[name]
	if v == nil || v.column == "" {
		if v == nil {
			return nil
		}
		return v.texts
	}
	said := strings.TrimSpace(m.get(v.column))
	if m.m.blank[said] || said == "" {
		if !slices.Contains([]string{"covers", "purpose", "basis", "jurisdiction"}, name) {
			m.fail(&pdp.Reason{Code: keyMissing, Text: v.column + " is blank"})
		}
		return nil
	}
	list := []string{said}
	if v.split != "" {
		list = strings.Split(said, v.split)
	}
	for i, code := range list {
		list[i] = strings.TrimSpace(code)
		if v.values == nil {
			continue
		}
		text, ok := v.values[list[i]]
		if !ok {
			m.fail(&pdp.Reason{Code: valueUnknown, Text: v.column + " is none of the map's values"})
		}
		list[i] = text
	}
	return list
}

// end returns when a row ends a tie: to the date of its column, or to that of
// the feed.
func (m *rowMaker) end(t *tieMap) hierarchy.Interval {
	v := hierarchy.Always
	switch text := strings.TrimSpace(m.get(t.dates[1])); {
	case !m.m.blank[text] && text != "":
		v = m.interval([2]string{"", t.dates[1]}, true)
		if v.To != hierarchy.Forever {
			return v
		}
		fallthrough
	default:
		if v.To = m.asOf; m.asOf == 0 {
			v.To = hierarchy.Forever
			m.fail(&pdp.Reason{Code: dateMissing, Text: t.dates[1] + " does not say when it ends, and the feed has no date (--as-of)"})
		}
	}
	return v
}

func (r *rowReader) id(n *nodeMap, keys []string) hierarchy.ID {
	var b strings.Builder
	for _, p := range n.parts {
		switch {
		case p.text != "":
			b.WriteString(p.text)
		case p.key < 0:
			b.WriteString(r.tenant)
		default:
			b.WriteString(keys[p.key])
		}
	}
	id := hierarchy.ID{Type: n.typ, Key: b.String()}
	if !n.shared && !n.principal && n.typ != hierarchy.PersonType && n.typ != hierarchy.TenantType {
		id.Tenant = r.tenant
	}
	return id
}

// interval reads the columns of a time; a column that the map does not name is
// an open side. With whole an end that is a date includes its day.
func (m *rowMaker) interval(columns [2]string, whole bool) hierarchy.Interval {
	v := hierarchy.Always
	for side, into := range []*hierarchy.Instant{&v.From, &v.To} {
		if columns[side] == "" {
			continue
		}
		as := dateKey{side, whole, strings.TrimSpace(m.get(columns[side]))}
		d, ok := m.dates[as]
		if !ok {
			d = m.date(as.text, side, whole)
			if len(m.dates) < 1<<16 {
				as.text = strings.Clone(as.text)
				m.dates[as] = d
			}
		}
		if d.why != nil {
			m.fail(&pdp.Reason{Code: d.why.Code, Text: columns[side] + d.why.Text})
			return hierarchy.Always
		}
		*into = d.at
	}
	return v
}

func (r *rowReader) date(text string, side int, whole bool) readDate {
	openEnd := readDate{at: []hierarchy.Instant{hierarchy.Never, hierarchy.Forever}[side]}
	if r.m.open[side][text] {
		return openEnd
	}
	if r.m.blank[text] || text == "" {
		return readDate{why: &pdp.Reason{Code: dateMissing, Text: " is blank"}}
	}
	for _, form := range r.m.dates {
		t, err := time.ParseInLocation(form.layout, text, r.m.zone)
		if err != nil {
			continue
		}
		y, mo, d := t.Date()
		switch {
		case r.m.open[side][fmt.Sprintf("%04d-%02d-%02d", y, mo, d)]:
			return openEnd
		case !form.day:
			return readDate{at: hierarchy.At(t)}
		case side == 1 && whole:
			return readDate{at: hierarchy.DayStart(y, mo, d+1, r.m.zone)}
		}
		return readDate{at: hierarchy.DayStart(y, mo, d, r.m.zone)}
	}
	return readDate{why: &pdp.Reason{Code: dateUnreadable, Text: " has none of the map's forms of a date"}}
}
