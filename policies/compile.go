package policies

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	schemaast "github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/ward-authz/ward/pdp/authz"
)

// Set is a compiled pack with Ward's built-in set under it. It is immutable and
// safe for concurrent use.
type Set struct {
	archive  []byte
	digest   string
	cat      *Catalogue
	policies []*Policy // sorted by id; Policy.ordinal is the place
	byID     map[string]*Policy
	cases    []Case
	actions  map[string]*actionIndex // by catalogue name
	entities map[types.EntityUID]types.Entity
	findings Diagnostics // of a set that Open read: see Check
	checker  *checker    // of overlays
}

// Compile reads, checks and compiles the files of a pack. Its error is a
// *[Diagnostics] with every finding.
func Compile(files map[string][]byte) (*Set, error) {
	var diags Diagnostics
	s := compile(files, &diags)
	if err := diags.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// Open compiles the pack of an archive, which must be exactly what
// [Set.Archive] returned. What only a check finds, and evaluation does not need,
// is no error here: a set that was once put in force stays readable, and its
// decisions can be replayed, when a later version checks more. Whoever puts a
// set in force asks [Set.Check] too. The error is a *[Diagnostics].
func Open(archive []byte) (*Set, error) {
	var diags Diagnostics
	files := decodeArchive(archive, &diags)
	if err := diags.err(); err != nil {
		return nil, err
	}
	s := compile(files, &diags)
	if s == nil {
		return nil, diags.err()
	}
	s.findings = diags
	return s, nil
}

// Check returns what [Compile] refuses about the set: nil, or a *[Diagnostics].
// Only a set from [Open] can have such findings. It answers, and replays what it
// answered, but must not be put in force.
func (s *Set) Check() error {
	found := Diagnostics{slices.Clone(s.findings.Findings)}
	return found.err()
}

func digestOf(archive []byte) string {
	sum := sha256.Sum256(archive)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Archive returns the pack's files as one canonical JSON document,
// {"files":{path:content},"format":1}, from which [Open] makes the same Set.
func (s *Set) Archive() []byte { return slices.Clone(s.archive) }

// Digest returns "sha256:" and the hexadecimal digest of the archive.
func (s *Set) Digest() string { return s.digest }

// Name returns the pack's name.
func (s *Set) Name() string { return s.cat.Name }

// Catalogue returns the pack's catalogue, merged with Ward's own. The caller
// must not change it.
func (s *Set) Catalogue() *Catalogue { return s.cat }

// Policies returns all policies, Ward's own included, sorted by id.
func (s *Set) Policies() []*Policy { return slices.Clone(s.policies) }

// Policy returns the policy with this id.
func (s *Set) Policy(id string) (*Policy, bool) {
	p, ok := s.byID[id]
	return p, ok
}

// Cases returns the pack's tests in the order of their files and lines. The
// caller must not change what they hold.
func (s *Set) Cases() []Case { return slices.Clone(s.cases) }

//go:embed builtin
var builtin embed.FS

// pack is one pack on its way to a Set: the user's or Ward's own.
type pack struct {
	diags    *Diagnostics
	builtin  bool
	files    map[string][]byte
	names    []string // sorted
	desc     *described
	policies []*Policy
	caseDocs []Case
}

func compile(files map[string][]byte, diags *Diagnostics) *Set {
	checkFiles(files, "a pack", inPack, diags)
	if len(diags.Findings) > 0 {
		return nil
	}
	own := readPack(builtinFiles(), true, diags)
	p := readPack(files, false, diags)

	merged := &schemaast.Schema{Namespaces: schemaast.Namespaces{}}
	_, schemaOK := files["schema.cedarschema"]
	schemaOK = own.mergeSchema(merged) && p.mergeSchema(merged) && schemaOK
	var rs *resolved.Schema
	if schemaOK {
		var err error
		if rs, err = resolved.Resolve(merged); err != nil {
			diags.add("schema.cedarschema", 1, 1, CodeSchemaInvalid, "%s", oneLine(err.Error()))
		}
	}

	all := slices.Concat(own.policies, p.policies)
	byID := map[string]*Policy{}
	for _, pol := range all {
		if old, ok := byID[pol.ID]; ok && pol.ID != "" {
			diags.add(pol.File, pol.Line, pol.column, CodeIDDuplicate, "policy %q exists already, at %s:%d", pol.ID, old.File, old.Line)
			continue
		}
		byID[pol.ID] = pol
	}
	var c *checker
	if rs != nil {
		c = newChecker(rs, diags)
		c.describe(own)
		c.describe(p)
		c.mergeCatalogues(p, own)
		c.policies(own)
		c.policies(p)
		c.capabilities(p)
		c.cases(p, byID)
	}
	if slices.ContainsFunc(diags.Findings, func(d Diagnostic) bool { return !checked[d.Code] }) {
		return nil
	}

	slices.SortFunc(all, compareIDs)
	s := &Set{cat: p.desc.cat, policies: all, byID: byID, cases: p.caseDocs, entities: actionEntities(rs), checker: c}
	for i, pol := range all {
		pol.ordinal = i
		pol.prepare()
	}
	s.actions = buildIndex(s.cat, rs, all)
	s.cat.contain()
	s.cat.bound()
	s.archive = encodeArchive(files)
	s.digest = digestOf(s.archive)
	return s
}

func compareIDs(a, b *Policy) int { return strings.Compare(a.ID, b.ID) }

func builtinFiles() map[string][]byte {
	files := map[string][]byte{}
	for _, name := range []string{"schema.cedarschema", "catalogue.yaml", "policies.cedar", "roles.yaml"} {
		content, err := builtin.ReadFile("builtin/" + name)
		if err != nil {
			panic(err) // embedded above
		}
		files[name] = content
	}
	return files
}

// readPack parses every file on its own and reports what is wrong with each.
func readPack(files map[string][]byte, own bool, diags *Diagnostics) *pack {
	p := &pack{diags: diags, builtin: own, files: files, names: sortedKeys(files), desc: newDescribed(diags)}
	p.desc.builtin = own
	// The base's catalogue comes first, so that a module that repeats a name is
	// the one at fault.
	if src, ok := files["catalogue.yaml"]; ok {
		p.desc.read(p.file("catalogue.yaml"), "", src)
	} else {
		diags.add("catalogue.yaml", 1, 1, CodeCatalogueMissing, "a pack has a catalogue.yaml")
	}
	if _, ok := files["schema.cedarschema"]; !ok {
		diags.add("schema.cedarschema", 1, 1, CodeSchemaMissing, "a pack has a schema.cedarschema")
	}
	modules := map[string]bool{}
	for _, name := range p.names {
		src, module := files[name], moduleOf(name)
		switch kindOf(name) {
		case kindCatalogue:
			if module != "" {
				modules[module] = true
				p.desc.read(p.file(name), module, src)
			}
		case kindPolicies:
			p.readPolicies(name, module, src)
		case kindRoles:
			p.desc.readRoles(p.file(name), src)
		case kindCases:
			p.caseDocs = append(p.caseDocs, readCases(name, module, src, diags)...)
		}
	}
	reported := map[string]bool{}
	for _, name := range p.names {
		if m := moduleOf(name); m != "" && !modules[m] && !reported[m] {
			reported[m] = true
			diags.add("modules/"+m+"/catalogue.yaml", 1, 1, CodeCatalogueMissing, "a module has a catalogue.yaml")
		}
	}
	return p
}

// file is the name under which findings about a file appear.
func (p *pack) file(name string) string {
	if p.builtin {
		return "builtin/" + name
	}
	return name
}

var located = regexp.MustCompile(`^(.*?):(\d+):(\d+): (?s:(.*))$`)

// mergeSchema parses the pack's schema files and adds them to merged.
func (p *pack) mergeSchema(merged *schemaast.Schema) bool {
	ok := true
	for _, name := range p.names {
		if kindOf(name) != kindSchema {
			continue
		}
		file := p.file(name)
		if _, fine := scan(file, p.files[name], true, p.diags); !fine {
			ok = false
			continue
		}
		var s schema.Schema
		s.SetFilename(file)
		if err := s.UnmarshalCedar(p.files[name]); err != nil {
			line, column, text := 1, 1, err.Error()
			if m := located.FindStringSubmatch(text); m != nil {
				line, _ = strconv.Atoi(m[2])
				column, _ = strconv.Atoi(m[3])
				text = m[4]
			}
			p.diags.add(file, line, column, CodeSchemaInvalid, "%s", oneLine(text))
			ok = false
			continue
		}
		ok = p.mergeOne(merged, s.AST(), file) && ok
	}
	return ok
}

func (p *pack) mergeOne(merged, s *schemaast.Schema, file string) bool {
	if len(s.Entities)+len(s.Enums)+len(s.Actions)+len(s.CommonTypes) > 0 {
		p.diags.add(file, 1, 1, CodeNamespaceUnknown, "everything belongs into the pack's namespace")
		return false
	}
	ok := true
	for _, name := range slices.Sorted(maps.Keys(s.Namespaces)) {
		ns := s.Namespaces[name]
		switch {
		case string(name) == WardNamespace && !p.builtin || strings.HasPrefix(string(name), WardNamespace+"::"):
			p.diags.add(file, 1, 1, CodeNamespaceReserved, "the namespace %s is Ward's own", WardNamespace)
			ok = false
			continue
		case string(name) != p.desc.cat.Namespace:
			if p.desc.cat.Namespace != "" {
				p.diags.add(file, 1, 1, CodeNamespaceUnknown, "namespace %s is not the catalogue's, %s", name, p.desc.cat.Namespace)
			}
			ok = false
			continue
		}
		into := merged.Namespaces[name]
		twice := func(what, name string) {
			p.diags.add(file, p.lineOf(file, name), 1, CodeSchemaDuplicate, "%s %q is declared already", what, name)
			ok = false
		}
		merge(&into.Entities, ns.Entities, "entity", twice)
		merge(&into.Enums, ns.Enums, "entity", twice)
		merge(&into.Actions, ns.Actions, "action", twice)
		merge(&into.CommonTypes, ns.CommonTypes, "type", twice)
		for name := range ns.Enums {
			if _, both := into.Entities[name]; both {
				twice("entity", string(name))
			}
		}
		merged.Namespaces[name] = into
	}
	return ok
}

func merge[K ~string, V any, M ~map[K]V](into *M, from M, what string, twice func(what, name string)) {
	if *into == nil {
		*into = M{}
	}
	for k, v := range from {
		if _, ok := (*into)[k]; ok {
			twice(what, string(k))
			continue
		}
		(*into)[k] = v
	}
}

// lineOf finds the line of a schema file on which a name is declared, or 1.
func (p *pack) lineOf(file, name string) int {
	src, ok := p.files[strings.TrimPrefix(file, "builtin/")]
	if !ok {
		return 1
	}
	word := regexp.MustCompile(`(^|[^A-Za-z0-9_])` + regexp.QuoteMeta(name) + `($|[^A-Za-z0-9_])`)
	for i, line := range strings.Split(string(src), "\n") {
		line, _, _ = strings.Cut(line, "//")
		trimmed := strings.TrimSpace(line)
		for _, decl := range []string{"entity ", "action ", "type "} {
			if strings.HasPrefix(trimmed, decl) && word.MatchString(trimmed[len(decl):]) {
				return i + 1
			}
		}
	}
	return 1
}

// declared finds the schema file and line of a declaration.
func (p *pack) declared(name string) (file string, line int) {
	for _, f := range p.names {
		if kindOf(f) == kindSchema {
			if line := p.lineOf(p.file(f), name); line > 1 {
				return p.file(f), line
			}
		}
	}
	return p.file("schema.cedarschema"), 1
}

var parsedAt = regexp.MustCompile(`(?:parse error at )?<input>:(\d+):(\d+):? ?("(?:[^"\\]|\\.)*": )?`)

var wanted = regexp.MustCompile(`^exact got (.*) want (\S+)$`)

// readPolicies parses a .cedar file policy by policy, so that one mistake does
// not hide the next.
func (p *pack) readPolicies(name, module string, src []byte) {
	file := p.file(name)
	ends, ok := scan(file, src, false, p.diags)
	if !ok {
		return
	}
	line, column := 1, 1
	advance := func(s []byte) {
		for _, c := range s {
			switch {
			case c == '\n':
				line, column = line+1, 1
			case c&0xc0 != 0x80:
				column++
			}
		}
	}
	start := 0
	for _, end := range append(ends, len(src)) {
		lead := leading(src[start:end])
		advance(src[start : start+lead])
		start += lead
		text := src[start:end]
		if len(text) > 0 {
			p.readPolicy(file, module, text, line, column)
		}
		advance(text)
		start = end
	}
}

// leading returns the length of the white space and comments at the start of s.
func leading(s []byte) int {
	i := 0
	for i < len(s) {
		switch {
		case s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r':
			i++
		case s[i] == '/' && i+1 < len(s) && s[i+1] == '/':
			for i < len(s) && s[i] != '\n' {
				i++
			}
		default:
			return i
		}
	}
	return i
}

func (p *pack) readPolicy(file, module string, text []byte, line, column int) {
	list, err := cedar.NewPolicyListFromBytes(file, text)
	if err != nil {
		msg := strings.TrimPrefix(err.Error(), "parser error: ")
		if m := parsedAt.FindStringSubmatch(msg); m != nil {
			l, _ := strconv.Atoi(m[1])
			c, _ := strconv.Atoi(m[2])
			if l == 1 {
				column += c - 1
			} else {
				column = c
			}
			line += l - 1
			msg = strings.TrimSpace(strings.Replace(msg, m[0], "", 1))
		}
		if m := wanted.FindStringSubmatch(msg); m != nil {
			msg = fmt.Sprintf("found %q where %q belongs", m[1], m[2])
			switch {
			case m[1] == "":
				msg = fmt.Sprintf("the text ends where %q belongs", m[2])
			case m[1] == "=":
				msg += "; did you mean \"==\"?"
			}
		}
		p.diags.add(file, line, column, CodePolicyInvalid, "%s", oneLine(msg))
		return
	}
	if len(list) != 1 {
		p.diags.add(file, line, column, CodePolicyInvalid, "want one policy before each semicolon")
		return
	}
	pol := &Policy{Module: module, File: file, Line: line, Text: string(text)}
	if p.builtin {
		pol.Module = "ward"
	}
	pol.column = column
	pol.ast = (*ast.Policy)(list[0].AST())
	pol.Forbid = pol.ast.Effect == ast.EffectForbid
	add := func(code, format string, args ...any) { p.diags.add(file, line, column, code, format, args...) }
	for _, a := range pol.ast.Annotations {
		switch a.Key {
		case "id":
			pol.ID = string(a.Value)
		case "obligation", "advice":
			if pol.Forbid {
				add(CodeObligationInvalid, "@%s on a forbid is never used", a.Key)
				continue
			}
			list, err := parseObligations(string(a.Value))
			if err != nil {
				add(CodeObligationInvalid, "@%s: %s", a.Key, err)
				continue
			}
			if a.Key == "obligation" {
				pol.Obligations = list
			} else {
				pol.Advice = list
			}
		}
	}
	switch {
	case pol.ID == "":
		add(CodeIDMissing, "a policy has an @id(\"…\")")
	case !isName(pol.ID):
		add(CodeIDInvalid, "an id is a letter followed by letters, digits, '.', '-' and '_', at most 64 bytes")
	case strings.HasPrefix(pol.ID, "ward.") != p.builtin:
		add(CodeIDReserved, "ids that start with \"ward.\" are Ward's own")
	}
	p.policies = append(p.policies, pol)
}

// parseObligations reads "filter:node=resource,max=100 watermark".
func parseObligations(s string) ([]authz.Obligation, error) {
	var out []authz.Obligation
	for _, word := range strings.Fields(s) {
		id, params, has := strings.Cut(word, ":")
		if !isName(id) {
			return nil, fmt.Errorf("want id or id:key=value,key=value, several separated by spaces")
		}
		if slices.ContainsFunc(out, func(o authz.Obligation) bool { return o.ID == id }) {
			return nil, fmt.Errorf("%q is given twice", id)
		}
		o := authz.Obligation{ID: id}
		if has {
			o.Properties = map[string]string{}
			for _, pair := range strings.Split(params, ",") {
				k, v, ok := strings.Cut(pair, "=")
				if _, twice := o.Properties[k]; !ok || !isName(k) || v == "" || twice {
					return nil, fmt.Errorf("want %s:key=value,key=value", id)
				}
				o.Properties[k] = v
			}
		}
		out = append(out, o)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("it is empty")
	}
	slices.SortFunc(out, func(a, b authz.Obligation) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// actionEntities returns the action entities with all their ancestors.
func actionEntities(rs *resolved.Schema) map[types.EntityUID]types.Entity {
	out := make(map[types.EntityUID]types.Entity, len(rs.Actions))
	for uid := range rs.Actions {
		out[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(actionAncestors(rs, uid)...)}
	}
	return out
}

// actionAncestors returns every action group that an action is in.
func actionAncestors(rs *resolved.Schema, uid types.EntityUID) []types.EntityUID {
	var out []types.EntityUID
	seen := map[types.EntityUID]bool{uid: true}
	todo := []types.EntityUID{uid}
	for len(todo) > 0 {
		next := todo[0]
		todo = todo[1:]
		for parent := range rs.Actions[next].Entity.Parents.All() {
			if !seen[parent] {
				seen[parent] = true
				out = append(out, parent)
				todo = append(todo, parent)
			}
		}
	}
	return out
}
