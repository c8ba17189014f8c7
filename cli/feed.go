package cli

// A feed map says how the rows of CSV files become facts: which columns make
// the keys of which nodes, which edges and links a row asserts, and when they
// hold. It knows any feed of nodes, edges, links and dates; maps/ holds those
// that are built in.
//
//	map: NAME
//	tenant: KEY                     # the one tenant it may touch; --tenant says another
//	zone: America/New_York          # of dates and times that name none
//	dates: [YYYY-MM-DD, …]          # tried in order: YYYY MM DD HH mm SS, Z (+05:00), z (+0500)
//	open: {from: […], to: […]}      # dates, or whole values, that mean no start and no end
//	blank: ["~", ""]                # values that mean nothing
//	files:
//	  - match: "*ENRLMT.csv"        # base name, * and ? as in a shell
//	    skip: REASON                            # alone: the file comes with the feed and is not loaded
//	    known: {from: COLUMN, to: COLUMN}       # when the source held the row to be true
//	    only: {COLUMN: [VALUE, …]}              # rows with other values are refused as row_excluded
//	    keys:
//	      plan: {column: COLUMN, steps: [trim, digits, pad 3], match: "[0-9]{3}"}
//	    nodes:
//	      plan: {type: Plan, key: "{contract}-{plan}", from: COLUMN, to: COLUMN, implied: true, attrs: {name: COLUMN}}
//	      pharmacy: {type: Pharmacy, key: "{npi}", shared: true, asserted: false}
//	    edges:
//	      - {child: coverage, kind: enrolledIn, parent: plan, from: COLUMN, to: COLUMN}
//	    links:
//	      - {from: person, kind: owns, to: coverage, since: COLUMN, until: COLUMN}
//
// Steps: trim, upper, lower, digits (drops a sign and all else that is no
// digit), strip-leading-zeros, pad N (with zeros, on the left). A key that is
// blank, or that its match does not fit as a whole, refuses the row. In a
// template {tenant} is the tenant's key, and in an edge the node tenant is the
// Tenant itself. A node that is not asserted must exist. A node of a type other
// than Person belongs to the tenant unless it is shared.
//
// A date as an end includes its day. Times of the source (known) are instants:
// a date there means its first one.

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

//go:embed maps
var builtinMaps embed.FS

// Codes of rows that a map refuses, besides those of the kernel. Append-only.
const (
	rowMalformed   = "row_malformed"   // is no CSV record
	columnMissing  = "column_missing"  // has fewer, or more, columns than the header
	keyMissing     = "key_missing"     // a key is blank
	keyInvalid     = "key_invalid"     // a key does not fit the map, or is no key of ward
	dateMissing    = "date_missing"    // a date is blank
	dateUnreadable = "date_unreadable" // a date has none of the map's forms
	rowExcluded    = "row_excluded"    // the map takes no rows like it
)

// Limits of maps and feeds.
const (
	maxMapBytes  = 256 << 10
	maxLineBytes = 1 << 20
	maxMapFiles  = 64
	maxColumns   = 4096
)

type feedMap struct {
	name, tenant string
	zone         *time.Location
	dates        []dateForm
	open         [2]map[string]bool // from, to
	blank        map[string]bool
	files        []*fileMap
	digest       string
}

// dateForm is one way to write a date; a day has no time of day.
type dateForm struct {
	layout string
	day    bool
}

type fileMap struct {
	match string
	skip  string // why the file is not loaded; then there is nothing below
	known [2]string
	only  map[string][]string
	keys  []*keyMap
	nodes []*nodeMap
	edges []*tieMap
	links []*tieMap
}

type keyMap struct {
	name, column string
	steps        []string
	match        *regexp.Regexp
}

type nodeMap struct {
	name, typ, key            string
	parts                     []keyPart
	dates                     [2]string
	implied, shared, asserted bool
	attrs                     [][2]string // name, column
}

// keyPart is a piece of a template: a text, or a key by its place in
// fileMap.keys, -1 being the tenant.
type keyPart struct {
	text string
	key  int
}

// tieMap is an edge or a link.
type tieMap struct {
	a, kind, b string // child and parent, or from and to
	ends       [2]int // in fileMap.nodes, -1 being the tenant
	dates      [2]string
	implied    bool
}

// findMap reads a map: a file, or one that is built in, by its name with or
// without .yaml.
func findMap(name string) (*feedMap, error) {
	text, err := readLimited(name, maxMapBytes)
	if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(name, `/\`) {
		if built, berr := builtinMaps.ReadFile("maps/" + strings.TrimSuffix(name, ".yaml") + ".yaml"); berr == nil {
			text, err = built, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, invalid("built in: "+strings.Join(builtinMapNames(), ", "), "there is no map %s, as a file or built in", name)
	case err != nil:
		return nil, invalid("", "the map %s cannot be read: %s", name, cause(err))
	}
	return parseMap(filepath.Base(name), text)
}

func builtinMapNames() []string {
	entries, _ := builtinMaps.ReadDir("maps")
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return text, err
}

// parseMap reads a map strictly.
func parseMap(name string, text []byte) (*feedMap, error) {
	if len(text) > maxMapBytes {
		return nil, invalid("", "%s: longer than %d bytes", name, maxMapBytes)
	}
	r := &reader{path: name}
	root := r.document(text)
	if r.err != nil {
		return nil, r.err
	}
	m := &feedMap{open: [2]map[string]bool{{}, {}}, blank: map[string]bool{}}
	sum := sha256.Sum256(text)
	m.digest = hex.EncodeToString(sum[:])
	var zone string
	var dates, from, to, blank []string
	var files *yaml.Node
	r.each(root, map[string]func(*yaml.Node){
		"map":    r.text(&m.name),
		"tenant": r.text(&m.tenant),
		"zone": func(n *yaml.Node) {
			r.text(&zone)(n)
			var err error
			if m.zone, err = hierarchy.Zone(zone); err != nil {
				r.fail(n, "want a time zone, such as America/Chicago")
			}
		},
		"dates": func(n *yaml.Node) {
			r.texts(&dates)(n)
			for _, d := range dates {
				form, err := formOf(d)
				if err != nil {
					r.fail(n, "date form %q: %s", d, err)
				}
				m.dates = append(m.dates, form)
			}
		},
		"open": func(n *yaml.Node) {
			r.each(n, map[string]func(*yaml.Node){"from": r.texts(&from), "to": r.texts(&to)})
		},
		"blank": r.texts(&blank),
		"files": func(n *yaml.Node) { files = n },
	})
	if r.err != nil {
		return nil, r.err
	}
	for _, v := range from {
		m.open[0][v] = true
	}
	for _, v := range to {
		m.open[1][v] = true
	}
	for _, v := range blank {
		m.blank[v] = true
	}
	switch {
	case m.name == "":
		r.fail(root, "a map needs a name: map: NAME")
	case m.zone == nil:
		r.fail(root, "a map says in which zone its dates are: zone: America/New_York")
	case m.tenant != "" && hierarchy.TenantID(m.tenant).Valid() != nil:
		r.fail(root, "the tenant is no tenant key")
	case files == nil || files.Kind != yaml.SequenceNode || len(files.Content) == 0:
		r.fail(root, "a map has a list of files")
	case len(files.Content) > maxMapFiles:
		r.fail(files, "a map has at most %d files", maxMapFiles)
	default:
		for _, n := range files.Content {
			m.readFile(r, n)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

// formOf turns YYYY-MM-DD into a layout of package time.
func formOf(s string) (dateForm, error) {
	form := dateForm{day: true}
	seen := map[string]bool{}
	for rest := s; rest != ""; {
		done := false
		for _, t := range [][2]string{{"YYYY", "2006"}, {"MM", "01"}, {"DD", "02"}, {"HH", "15"}, {"mm", "04"}, {"SS", "05"}, {"Z", "Z07:00"}, {"z", "-0700"}} {
			if after, ok := strings.CutPrefix(rest, t[0]); ok && !done {
				if seen[t[0]] {
					return form, fmt.Errorf("%s is given twice", t[0])
				}
				seen[t[0]], done, rest = true, true, after
				form.layout += t[1]
				form.day = form.day && t[0] != "HH"
			}
		}
		if !done {
			if !strings.ContainsRune("T -/.:,", rune(rest[0])) {
				return form, errors.New("write it with YYYY, MM, DD, HH, mm, SS, Z, z and T - / . : , or a space")
			}
			form.layout += rest[:1]
			rest = rest[1:]
		}
	}
	if !seen["YYYY"] || !seen["MM"] || !seen["DD"] {
		return form, errors.New("it needs YYYY, MM and DD")
	}
	return form, nil
}

func (m *feedMap) readFile(r *reader, n *yaml.Node) {
	f := &fileMap{only: map[string][]string{}}
	var nodes, edges, links, keys *yaml.Node
	keep := func(into **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *into = n } }
	r.each(n, map[string]func(*yaml.Node){
		"match": func(n *yaml.Node) {
			r.text(&f.match)(n)
			if _, err := path.Match(f.match, "x"); err != nil || strings.ContainsAny(f.match, `/\`) || f.match == "" {
				r.fail(n, "want a pattern of a file's base name, such as *.csv")
			}
		},
		"skip": r.text(&f.skip),
		"known": func(n *yaml.Node) {
			r.each(n, map[string]func(*yaml.Node){"from": r.text(&f.known[0]), "to": r.text(&f.known[1])})
		},
		"only": func(n *yaml.Node) {
			entries(r, n, func(column string, v *yaml.Node) {
				var values []string
				r.texts(&values)(v)
				f.only[column] = values
			})
		},
		"keys": keep(&keys), "nodes": keep(&nodes), "edges": keep(&edges), "links": keep(&links),
	})
	if r.err != nil {
		return
	}
	if f.skip != "" {
		if f.match == "" || len(n.Content) != 4 { // two pairs
			r.fail(n, "a file that is skipped has a match, and nothing else")
		}
		m.files = append(m.files, f)
		return
	}
	if f.match == "" || keys == nil {
		r.fail(n, "a file needs a match and keys")
		return
	}
	entries(r, keys, func(name string, v *yaml.Node) { f.readKey(r, name, v) })
	if nodes != nil {
		entries(r, nodes, func(name string, v *yaml.Node) { f.readNode(r, name, v) })
	}
	f.edges = f.readTies(r, edges, "child", "parent", "from", "to")
	f.links = f.readTies(r, links, "from", "to", "since", "until")
	if r.err == nil && len(f.nodes) == 0 {
		r.fail(n, "a file needs nodes")
	}
	m.files = append(m.files, f)
}

// entries walks a map with keys of the writer's own.
func entries(r *reader, n *yaml.Node, f func(name string, v *yaml.Node)) {
	if r.err != nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, "want a map")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content) && r.err == nil; i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.Value == "" || seen[k.Value] {
			r.fail(k, "want names, each once")
			return
		}
		seen[k.Value] = true
		f(k.Value, n.Content[i+1])
	}
}

func (f *fileMap) readKey(r *reader, name string, n *yaml.Node) {
	k := &keyMap{name: name}
	var match string
	r.each(n, map[string]func(*yaml.Node){
		"column": r.text(&k.column),
		"steps": func(n *yaml.Node) {
			r.texts(&k.steps)(n)
			for _, s := range k.steps {
				if !isStep(s) {
					r.fail(n, "unknown step %q: one of trim, upper, lower, digits, strip-leading-zeros, pad N", s)
				}
			}
		},
		"match": func(n *yaml.Node) {
			r.text(&match)(n)
			var err error
			if k.match, err = regexp.Compile("^(?:" + match + ")$"); err != nil || len(match) > 1024 {
				r.fail(n, "want a regular expression (RE2)")
			}
		},
	})
	switch {
	case r.err != nil:
	case k.column == "":
		r.fail(n, "key %q needs a column", name)
	case name == "tenant" || strings.ContainsAny(name, "{}"):
		r.fail(n, "%q is no name for a key", name)
	}
	f.keys = append(f.keys, k)
}

func isStep(s string) bool {
	switch s {
	case "trim", "upper", "lower", "digits", "strip-leading-zeros":
		return true
	}
	n, err := strconv.Atoi(strings.TrimPrefix(s, "pad "))
	return strings.HasPrefix(s, "pad ") && err == nil && n > 0 && n <= 64
}

// normal applies the steps to a value.
func (k *keyMap) normal(v string) string {
	for _, s := range k.steps {
		switch s {
		case "trim":
			v = strings.TrimSpace(v)
		case "upper":
			v = strings.ToUpper(v)
		case "lower":
			v = strings.ToLower(v)
		case "digits":
			v = strings.Map(func(r rune) rune {
				if r < '0' || r > '9' {
					return -1
				}
				return r
			}, v)
		case "strip-leading-zeros":
			if t := strings.TrimLeft(v, "0"); t != "" {
				v = t
			} else if v != "" {
				v = "0"
			}
		default: // pad N
			if n, _ := strconv.Atoi(strings.TrimPrefix(s, "pad ")); v != "" && len(v) < n {
				v = strings.Repeat("0", n-len(v)) + v
			}
		}
	}
	return v
}

func (f *fileMap) readNode(r *reader, name string, n *yaml.Node) {
	node := &nodeMap{name: name, asserted: true}
	r.each(n, map[string]func(*yaml.Node){
		"type": r.text(&node.typ), "key": r.text(&node.key), "from": r.text(&node.dates[0]), "to": r.text(&node.dates[1]),
		"implied": r.boolean(&node.implied), "shared": r.boolean(&node.shared), "asserted": r.boolean(&node.asserted),
		"attrs": func(n *yaml.Node) {
			entries(r, n, func(attr string, v *yaml.Node) {
				var column string
				r.text(&column)(v)
				node.attrs = append(node.attrs, [2]string{attr, column})
			})
		},
	})
	if r.err != nil {
		return
	}
	if name == "tenant" || (hierarchy.ID{Type: node.typ, Key: "k"}).Valid() != nil {
		r.fail(n, "node %q needs a type, such as Plan, and a name other than tenant", name)
		return
	}
	for rest := node.key; rest != ""; {
		text, after, ok := strings.Cut(rest, "{")
		if text != "" {
			node.parts = append(node.parts, keyPart{text: text})
		}
		if !ok {
			break
		}
		ref, after, ok := strings.Cut(after, "}")
		i := slices.IndexFunc(f.keys, func(k *keyMap) bool { return k.name == ref })
		if !ok || i < 0 && ref != "tenant" {
			r.fail(n, "the key of node %q names %q, which is none of the file's keys", name, ref)
			return
		}
		node.parts = append(node.parts, keyPart{key: i, text: ""})
		rest = after
	}
	if !slices.ContainsFunc(node.parts, func(p keyPart) bool { return p.text == "" && p.key >= 0 }) {
		r.fail(n, "the key of node %q holds none of the file's keys", name)
		return
	}
	f.nodes = append(f.nodes, node)
}

func (f *fileMap) readTies(r *reader, n *yaml.Node, a, b, from, to string) []*tieMap {
	if n == nil || r.err != nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "want a list")
		return nil
	}
	var out []*tieMap
	for _, item := range n.Content {
		t := &tieMap{}
		r.each(item, map[string]func(*yaml.Node){
			a: r.text(&t.a), b: r.text(&t.b), "kind": r.text(&t.kind),
			from: r.text(&t.dates[0]), to: r.text(&t.dates[1]), "implied": r.boolean(&t.implied),
		})
		if r.err != nil {
			return nil
		}
		if t.kind == "" {
			r.fail(item, "want %s, kind and %s", a, b)
			return nil
		}
		for i, ref := range []string{t.a, t.b} {
			if t.ends[i] = slices.IndexFunc(f.nodes, func(n *nodeMap) bool { return n.name == ref }); t.ends[i] < 0 && (ref != "tenant" || a == "from") {
				r.fail(item, "%q is none of the file's nodes", ref)
				return nil
			}
		}
		out = append(out, t)
	}
	return out
}

// columns lists the columns that a file must have.
func (f *fileMap) columns() []string {
	var all []string
	add := func(names ...string) {
		for _, c := range names {
			if c != "" && !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	add(f.known[:]...)
	for c := range f.only {
		add(c)
	}
	for _, k := range f.keys {
		add(k.column)
	}
	for _, n := range f.nodes {
		add(n.dates[:]...)
		for _, a := range n.attrs {
			add(a[1])
		}
	}
	for _, t := range slices.Concat(f.edges, f.links) {
		add(t.dates[:]...)
	}
	return all
}

// fileFor returns the part of the map for a file.
func (m *feedMap) fileFor(name string) (*fileMap, error) {
	var found []*fileMap
	for _, f := range m.files {
		if ok, _ := path.Match(f.match, name); ok {
			found = append(found, f)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		var known []string
		for _, f := range m.files {
			if f.skip == "" {
				known = append(known, f.match)
			}
		}
		return nil, invalid("it knows "+strings.Join(known, ", "), "the map %s has no entry for %s", m.name, name)
	}
	return nil, invalid("", "the map %s has several entries for %s", m.name, name)
}

// rowReader turns the lines of one file into rows.
type rowReader struct {
	m      *feedMap
	f      *fileMap
	tenant string
	name   string
	number int // of the file in the feed
	csv    *csv.Reader
	width  int
	at     map[string]int // columns
	dates  map[[2]string]readDate
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
	r := &rowReader{m: m, f: f, tenant: tenant, name: name, number: number, at: map[string]int{}, dates: map[[2]string]readDate{}}
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
	case err == io.EOF:
		return row, io.EOF
	case errors.As(err, &pe):
		if pe.Line > pe.StartLine {
			// What else the open quote swallowed nobody can tell.
			return row, invalid("", "%s:%d: a quote is not closed in its line", r.name, pe.StartLine)
		}
		row.Line = pe.StartLine
		row.Refused = &pdp.Reason{Code: rowMalformed, Text: "the line is no CSV record: a quote is misplaced"}
		return row, nil
	case err != nil:
		return row, invalid("", "%s: %s", r.name, cause(err))
	}
	row.Line, _ = r.csv.FieldPos(0)
	if why := r.fill(&row, rec); why != nil {
		row.Refused, row.Facts = why, nil
	}
	return row, nil
}

// fill maps a record. What it says of a refused one names columns, no values.
func (r *rowReader) fill(row *pdp.Row, rec []string) *pdp.Reason {
	if len(rec) != r.width {
		return &pdp.Reason{Code: columnMissing, Text: fmt.Sprintf("the line has %d columns, the header %d", len(rec), r.width)}
	}
	f := r.f
	get := func(column string) string { return rec[r.at[column]] }
	for _, column := range f.columns() {
		if values, ok := f.only[column]; ok && !slices.Contains(values, strings.TrimSpace(get(column))) {
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
	var why *pdp.Reason
	if row.Known, why = r.interval(f.known, get, false); why != nil {
		return why
	}
	ids := make([]hierarchy.ID, len(f.nodes))
	for i, n := range f.nodes {
		ids[i] = r.id(n, keys)
		if ids[i].Valid() != nil {
			return &pdp.Reason{Code: keyInvalid, Text: "the key of the " + n.name + " is no key of ward"}
		}
		if !n.asserted {
			continue
		}
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindNode, Row: row.Line, Node: &hierarchy.Node{ID: ids[i]}}
		if e.Valid, why = r.interval(n.dates, get, true); why != nil {
			return why
		}
		for _, a := range n.attrs {
			if v := strings.TrimSpace(get(a[1])); !r.m.blank[v] {
				if e.Node.Attrs == nil {
					e.Node.Attrs = map[string]any{}
				}
				e.Node.Attrs[a[0]] = v
			}
		}
		row.Facts = append(row.Facts, pdp.Desired{Event: e, Implied: n.implied})
	}
	end := func(i int) hierarchy.ID {
		if i < 0 {
			return hierarchy.TenantID(r.tenant)
		}
		return ids[i]
	}
	for _, t := range f.edges {
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindEdge, Row: row.Line,
			Edge: &hierarchy.Edge{Child: end(t.ends[0]), Kind: t.kind, Parent: end(t.ends[1])}}
		if e.Valid, why = r.interval(t.dates, get, true); why != nil {
			return why
		}
		row.Facts = append(row.Facts, pdp.Desired{Event: e, Implied: t.implied})
	}
	for _, t := range f.links {
		e := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindLink, Row: row.Line,
			Link: &hierarchy.Link{Kind: hierarchy.LinkKind(t.kind), From: end(t.ends[0]), To: end(t.ends[1])}}
		if e.Valid, why = r.interval(t.dates, get, true); why != nil {
			return why
		}
		row.Facts = append(row.Facts, pdp.Desired{Event: e, Implied: t.implied})
	}
	return nil
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
	if !n.shared && n.typ != hierarchy.PersonType && n.typ != hierarchy.TenantType {
		id.Tenant = r.tenant
	}
	return id
}

// interval reads the columns of a time; a column that the map does not name is
// an open side. With whole an end that is a date includes its day.
func (r *rowReader) interval(columns [2]string, get func(string) string, whole bool) (hierarchy.Interval, *pdp.Reason) {
	v := hierarchy.Always
	for side, into := range []*hierarchy.Instant{&v.From, &v.To} {
		if columns[side] == "" {
			continue
		}
		text := strings.TrimSpace(get(columns[side]))
		as := [2]string{strconv.Itoa(side) + strconv.FormatBool(whole), text}
		d, ok := r.dates[as]
		if !ok {
			d = r.date(text, side, whole)
			if len(r.dates) < 1<<16 {
				r.dates[as] = d
			}
		}
		if d.why != nil {
			return v, &pdp.Reason{Code: d.why.Code, Text: columns[side] + d.why.Text}
		}
		*into = d.at
	}
	return v, nil
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
