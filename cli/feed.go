package cli

// A feed map says how the rows of CSV files become facts: which columns make
// the keys of which nodes, which facts a row asserts, and when they hold. maps/
// holds those that are built in.
//
//	map: NAME                       # also the feed's source: what a full feed may end was loaded by this name
//	tenant: KEY                     # the one tenant it may touch; --tenant says another
//	feed: delta                     # or full; --full and --delta say otherwise
//	zone: America/New_York          # of dates and times that name none, and of --as-of
//	dates: [YYYY-MM-DD, …]          # tried in order: YYYY MM DD HH mm SS, Z (+05:00), z (+0500)
//	open: {from: […], to: […]}      # dates, or whole values, that mean no start and no end
//	blank: ["~", ""]                # values that mean nothing
//	files:
//	  - match: "*ENRLMT.csv"        # base name, * and ? as in a shell
//	    skip: REASON                            # alone: the file comes with the feed and is not loaded
//	    trailer: {starts: TRL, count: 2}        # the last line: its first column, and which one counts the rows
//	    known: {from: COLUMN, to: COLUMN}       # when the source held the row to be true
//	    only: {COLUMN: [VALUE, …]}              # rows with other values are refused as row_excluded
//	    change: {column: COLUMN, add: [A], change: [C], end: [T]}
//	    tenant: client                          # a key: rows of another tenant are refused
//	    keys:
//	      plan: {column: COLUMN, steps: [trim, digits, pad 3], match: "[0-9]{3}"}
//	    nodes:
//	      plan: {type: Plan, key: "{contract}-{plan}", from: COLUMN, to: COLUMN, implied: true, attrs: {name: COLUMN}}
//	      pharmacy: {type: Pharmacy, key: "{npi}", shared: true, asserted: false}
//	      user: {type: User, key: "{login}", principal: true}
//	    edges:
//	      - {child: coverage, kind: enrolledIn, parent: plan, from: COLUMN, to: COLUMN}
//	    links:
//	      - {from: person, kind: owns, to: coverage, since: COLUMN, until: COLUMN}
//	      - {kind: identity, issuer: ISSUER, sub: VALUE, to: user}
//	    assignments:
//	      - {principal: user, role: VALUE, node: plan, from: COLUMN, to: COLUMN}
//	    entitlements:
//	      - {name: VALUE, from: COLUMN, to: COLUMN}      # of the feed's tenant
//	    grants:
//	      - {id: VALUE, type: VALUE, grantor: person, grantee: user, subject: person, can: LIST, from: COLUMN, to: COLUMN,
//	         covers: LIST, purpose: LIST, coverage: coverage, basis: VALUE, jurisdiction: VALUE}
//
// Steps: trim, upper, lower, digits (drops a sign and all else that is no
// digit), strip-leading-zeros, pad N (with zeros, on the left). A key that is
// blank, or that its match does not fit as a whole, refuses the row. In a
// template {tenant} is the tenant's key, and in an edge, assignment or grant the
// node tenant is the Tenant itself. A node that is not asserted must exist. A
// node of a type other than Person belongs to the tenant unless it is shared or
// a principal.
//
// A VALUE is a text, or {column: COLUMN, values: {CODE: TEXT}}: the column's
// value, trimmed, or the text that stands for it. A LIST is a list of texts, or
// {column: COLUMN, split: ";"}.
//
// A date as an end includes its day. Times of the source (known) are instants:
// a date there means its first one.
//
// A row whose change column says end asserts nothing. It ends those of its
// edges, links, assignments, entitlements and grants that have a to (until)
// column: at its date, or at --as-of where that is blank or open.

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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
)

//go:embed maps
var builtinMaps embed.FS

// Codes of rows that a map refuses, besides those of the kernel. Append-only.
const (
	rowMalformed   = "row_malformed"      // is no CSV record
	columnMissing  = "column_missing"     // has fewer, or more, columns than the header
	keyMissing     = "key_missing"        // a key is blank
	keyInvalid     = "key_invalid"        // a key does not fit the map, or is no key of ward
	dateMissing    = "date_missing"       // a date is blank
	dateUnreadable = "date_unreadable"    // a date has none of the map's forms
	rowExcluded    = "row_excluded"       // the map takes no rows like it
	rowForeign     = "row_foreign_tenant" // it is another tenant's
	valueUnknown   = "value_unknown"      // a value is none of those that the map knows
	changeUnknown  = "change_unknown"     // the change column says none of what the map knows
)

// Codes of feeds that are refused as a whole, before anything is read.
// Append-only.
const (
	feedTruncated  = "feed_truncated"  // the last line has no end, or the trailer is missing or counts otherwise
	feedIncomplete = "feed_incomplete" // a full feed without a file that the map knows
	feedUndated    = "feed_undated"    // a full feed without --as-of
	feedUnclear    = "feed_unclear"    // neither full nor delta
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
	mode         string // full, delta or empty
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
	ties  []*tieMap

	trailer *trailerMap
	change  *changeMap
	tenant  int // in keys: the one that says whose the row is, or -1
}

// trailerMap is a last line that counts the rows before it.
type trailerMap struct {
	starts string
	count  int // column, from 1
}

// changeMap is a column that says what becomes of what the row names.
type changeMap struct {
	column       string
	asserts, end []string
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
	principal                 bool
	attrs                     [][2]string // name, column
}

// keyPart is a piece of a template: a text, or a key by its place in
// fileMap.keys, -1 being the tenant.
type keyPart struct {
	text string
	key  int
}

// tieMap is an edge, a link, an assignment, an entitlement or a grant.
type tieMap struct {
	is      hierarchy.Kind
	kind    string         // of an edge or link
	ends    map[string]int // child, parent, …: in fileMap.nodes, -1 being the tenant
	values  map[string]*valueMap
	dates   [2]string
	implied bool
}

// valueMap is a text, or several: as the map says, or from a column.
type valueMap struct {
	texts  []string
	column string
	values map[string]string // of the column's; nil takes any
	split  string
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
		"feed": func(n *yaml.Node) {
			if r.text(&m.mode)(n); m.mode != "full" && m.mode != "delta" {
				r.fail(n, "want full or delta")
			}
		},
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
	case !mapName(m.name):
		r.fail(root, "a map needs a name of letters, digits, dots and dashes: map: NAME")
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

func mapName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
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
	f := &fileMap{only: map[string][]string{}, tenant: -1}
	var nodes, keys *yaml.Node
	var tenant string
	ties := map[string]*yaml.Node{}
	keep := func(into **yaml.Node) func(*yaml.Node) { return func(n *yaml.Node) { *into = n } }
	known := map[string]func(*yaml.Node){
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
		"trailer": func(n *yaml.Node) {
			f.trailer = &trailerMap{}
			r.each(n, map[string]func(*yaml.Node){"starts": r.text(&f.trailer.starts), "count": r.number(&f.trailer.count)})
			if f.trailer.starts == "" || f.trailer.count < 2 {
				r.fail(n, "want starts, what the trailer's first column says, and count, the column (from 2) with the number of rows")
			}
		},
		"change": func(n *yaml.Node) {
			f.change = &changeMap{}
			var add, change []string
			r.each(n, map[string]func(*yaml.Node){"column": r.text(&f.change.column), "add": r.texts(&add),
				"change": r.texts(&change), "end": r.texts(&f.change.end)})
			f.change.asserts = slices.Concat(add, change)
			if f.change.column == "" || len(f.change.asserts)+len(f.change.end) == 0 {
				r.fail(n, "want a column, and its values that add, change and end")
			}
		},
		"tenant": r.text(&tenant),
		"keys":   keep(&keys), "nodes": keep(&nodes),
	}
	for _, t := range tieForms {
		known[t.name] = func(n *yaml.Node) { ties[t.name] = n }
	}
	r.each(n, known)
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
	for _, t := range tieForms {
		f.readTies(r, ties[t.name], t)
	}
	if tenant != "" {
		if f.tenant = slices.IndexFunc(f.keys, func(k *keyMap) bool { return k.name == tenant }); f.tenant < 0 {
			r.fail(n, "the tenant %q is none of the file's keys", tenant)
		}
	}
	if r.err == nil && len(f.nodes) == 0 && len(f.ties) == 0 {
		r.fail(n, "a file needs nodes, or what ties them")
	}
	if f.change != nil && len(f.change.end) > 0 && !slices.ContainsFunc(f.ties, func(t *tieMap) bool { return t.dates[1] != "" }) {
		r.fail(n, "the map says which rows end something, and nothing has a column for its end")
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
		"implied": r.boolean(&node.implied), "shared": r.boolean(&node.shared), "asserted": r.boolean(&node.asserted), "principal": r.boolean(&node.principal),
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

// tieForm is how a map writes one kind of tie.
type tieForm struct {
	name     string
	is       hierarchy.Kind
	ends     []string // that must be there
	may      []string // that may
	values   []string // that must be there
	mayValue []string
	from, to string
}

var tieForms = []tieForm{
	{name: "edges", is: hierarchy.KindEdge, ends: []string{"child", "parent"}, from: "from", to: "to"},
	{name: "links", is: hierarchy.KindLink, ends: []string{"to"}, may: []string{"from"}, mayValue: []string{"issuer", "sub"}, from: "since", to: "until"},
	{name: "assignments", is: hierarchy.KindAssignment, ends: []string{"principal", "node"}, values: []string{"role"}, from: "from", to: "to"},
	{name: "entitlements", is: hierarchy.KindEntitlement, values: []string{"name"}, from: "from", to: "to"},
	{name: "grants", is: hierarchy.KindGrant, ends: []string{"grantor", "grantee", "subject"}, may: []string{"coverage"},
		values: []string{"id", "type", "can"}, mayValue: []string{"covers", "purpose", "basis", "jurisdiction"}, from: "from", to: "to"},
}

func (f *fileMap) readTies(r *reader, n *yaml.Node, form tieForm) {
	if n == nil || r.err != nil {
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "want a list")
		return
	}
	for _, item := range n.Content {
		t := &tieMap{is: form.is, ends: map[string]int{}, values: map[string]*valueMap{}}
		refs := map[string]*string{}
		keys := map[string]func(*yaml.Node){form.from: r.text(&t.dates[0]), form.to: r.text(&t.dates[1]), "implied": r.boolean(&t.implied)}
		for _, name := range slices.Concat(form.ends, form.may) {
			refs[name] = new(string)
			keys[name] = r.text(refs[name])
		}
		for _, name := range slices.Concat(form.values, form.mayValue) {
			keys[name] = func(n *yaml.Node) { t.values[name] = readValue(r, n) }
		}
		must := slices.Concat(form.ends, form.values)
		if t.is == hierarchy.KindEdge || t.is == hierarchy.KindLink {
			keys["kind"] = r.text(&t.kind)
			must = append(must, "kind")
		}
		r.each(item, keys)
		if r.err != nil {
			return
		}
		if t.is == hierarchy.KindLink { // an identity is no node
			must = []string{"kind", "to", "from"}
			if t.kind == string(hierarchy.LinkIdentity) {
				must = []string{"kind", "to", "issuer", "sub"}
			}
			if (*refs["from"] != "") == (t.kind == string(hierarchy.LinkIdentity)) {
				must = append(must, "nothing else")
			}
		}
		for _, name := range must {
			if ref := refs[name]; (ref == nil || *ref == "") && t.values[name] == nil && (name != "kind" || t.kind == "") {
				r.fail(item, "want %s", strings.Join(must, ", "))
				return
			}
		}
		for name, ref := range refs {
			if *ref == "" {
				continue
			}
			at := slices.IndexFunc(f.nodes, func(n *nodeMap) bool { return n.name == *ref })
			if at < 0 && (*ref != "tenant" || t.is == hierarchy.KindLink) {
				r.fail(item, "%q is none of the file's nodes", *ref)
				return
			}
			t.ends[name] = at
		}
		f.ties = append(f.ties, t)
	}
}

// readValue reads a text, a list of texts, or a column.
func readValue(r *reader, n *yaml.Node) *valueMap {
	v := &valueMap{}
	switch n.Kind {
	case yaml.SequenceNode:
		r.texts(&v.texts)(n)
	case yaml.MappingNode:
		r.each(n, map[string]func(*yaml.Node){"column": r.text(&v.column), "split": r.text(&v.split), "values": func(n *yaml.Node) {
			v.values = map[string]string{}
			entries(r, n, func(code string, to *yaml.Node) {
				var text string
				r.text(&text)(to)
				v.values[code] = text
			})
		}})
		if v.column == "" {
			r.fail(n, "want a column")
		}
	default:
		v.texts = []string{""}
		r.text(&v.texts[0])(n)
	}
	return v
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
	for _, t := range f.ties {
		add(t.dates[:]...)
		for _, name := range slices.Sorted(maps.Keys(t.values)) {
			add(t.values[name].column)
		}
	}
	if f.change != nil {
		add(f.change.column)
	}
	return all
}

// kinds lists the kinds of facts that the map feeds, as a full feed says them.
func (m *feedMap) kinds() []string {
	var all []string
	for _, f := range m.files {
		for _, n := range f.nodes {
			if n.asserted {
				all = append(all, "node "+n.typ)
			}
		}
		for _, t := range f.ties {
			switch t.is {
			case hierarchy.KindEdge:
				child := hierarchy.TenantType
				if i := t.ends["child"]; i >= 0 {
					child = f.nodes[i].typ
				}
				all = append(all, "edge "+child+" "+t.kind)
			case hierarchy.KindLink:
				all = append(all, "link "+t.kind)
			case hierarchy.KindAssignment:
				all = append(all, "assignment")
			case hierarchy.KindEntitlement:
				all = append(all, "entitlement")
			case hierarchy.KindGrant:
				all = append(all, "grant")
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
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
