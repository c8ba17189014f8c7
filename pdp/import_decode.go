package pdp

import (
	"strconv"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
)

// rowText reads the rows that most feeds consist of (nodes without attributes,
// edges, links) straight from their text, a tenth of the work that encoding/json
// makes of them. It knows one spelling of each; of any other it says nothing,
// and [DecodeRow] reads the row in full.
type rowText struct {
	s  string
	ok bool
}

// readRow returns what the text says, or false when it is not in the form that
// this reader knows.
func readRow(line []byte) (Row, bool) {
	t := &rowText{s: strings.TrimSuffix(string(line), "\n"), ok: true}
	var r Row
	t.must(`{"file":`)
	r.File = int(t.number())
	t.must(`,"line":`)
	r.Line = int(t.number())
	if t.has(`,"known":`) {
		r.Known = t.interval()
	}
	t.must(`,"facts":[`)
	r.Facts = make([]Desired, 0, 8)
	for t.ok {
		r.Facts = append(r.Facts, t.desired())
		if t.has(`]}`) {
			return r, t.ok && t.s == ""
		}
		t.must(`,`)
	}
	return Row{}, false
}

func (t *rowText) has(prefix string) bool {
	after, ok := strings.CutPrefix(t.s, prefix)
	if t.ok && ok {
		t.s = after
	}
	return t.ok && ok
}

func (t *rowText) must(prefix string) { t.ok = t.has(prefix) }

func (t *rowText) number() int64 {
	n := 0
	for n < len(t.s) && (t.s[n] >= '0' && t.s[n] <= '9' || n == 0 && t.s[0] == '-') {
		n++
	}
	v, err := strconv.ParseInt(t.s[:n], 10, 64)
	if t.ok = t.ok && err == nil && strconv.FormatInt(v, 10) == t.s[:n]; t.ok {
		t.s = t.s[n:]
	}
	return v
}

// text reads a text that needs no escapes.
func (t *rowText) text() string {
	t.must(`"`)
	for n := 0; t.ok && n < len(t.s); n++ {
		switch c := t.s[n]; {
		case c == '"':
			s := t.s[:n]
			t.s = t.s[n+1:]
			return s
		case c < 0x20 || c >= 0x7f || c == '\\' || c == '<' || c == '>' || c == '&':
			t.ok = false
		}
	}
	t.ok = false
	return ""
}

func (t *rowText) id() hierarchy.ID {
	s := t.text()
	if !t.ok {
		return hierarchy.ID{}
	}
	id, err := hierarchy.ParseID(s)
	t.ok = err == nil
	return id
}

func (t *rowText) interval() hierarchy.Interval {
	v := hierarchy.Always
	t.must(`{`)
	if t.has(`"from":`) {
		v.From = hierarchy.Instant(t.number())
		t.ok = t.ok && v.From != hierarchy.Never
		if t.has(`,`) {
			t.ok = t.ok && strings.HasPrefix(t.s, `"to":`)
		}
	}
	if t.has(`"to":`) {
		v.To = hierarchy.Instant(t.number())
		t.ok = t.ok && v.To != hierarchy.Forever
	}
	t.must(`}`)
	t.ok = t.ok && !v.IsZero()
	return v
}

func (t *rowText) desired() Desired {
	var d Desired
	e := &d.Event
	e.Op = hierarchy.Assert
	t.must(`{"event":{"op":1,"kind":`)
	kind := t.number()
	if t.has(`,"valid":`) {
		e.Valid = t.interval()
	}
	if t.has(`,"row":`) {
		e.Row = int(t.number())
		t.ok = t.ok && e.Row != 0
	}
	switch e.Kind = hierarchy.Kind(kind); kind {
	case int64(hierarchy.KindNode):
		t.must(`,"node":{"id":`)
		e.Node = &hierarchy.Node{ID: t.id()}
		e.Node.Principal = t.has(`,"principal":true`)
	case int64(hierarchy.KindEdge):
		t.must(`,"edge":{"child":`)
		e.Edge = &hierarchy.Edge{Child: t.id()}
		t.must(`,"kind":`)
		e.Edge.Kind = t.text()
		t.must(`,"parent":`)
		e.Edge.Parent = t.id()
	case int64(hierarchy.KindLink):
		t.must(`,"link":{"kind":`)
		e.Link = &hierarchy.Link{Kind: hierarchy.LinkKind(t.text())}
		t.must(`,"from":`)
		e.Link.From = t.id()
		t.must(`,"to":`)
		e.Link.To = t.id()
	default:
		t.ok = false
	}
	t.must(`}}`)
	d.Implied = t.has(`,"implied":true`)
	d.Ends = t.has(`,"ends":true`)
	t.must(`}`)
	return d
}
