package policies

import (
	"io/fs"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Overlay is what one tenant forbids beyond a [Set], compiled against that set.
// It is immutable and safe for concurrent use.
type Overlay struct {
	set      *Set
	tenant   string
	archive  []byte
	digest   string
	policies []*Policy // sorted by id
	actions  map[string]*actionIndex
	findings Diagnostics // of an overlay that OpenOverlay read: see Check
}

// ReadOverlay reads a folder of *.cedar files, as [ReadPack] reads a pack's.
func ReadOverlay(fsys fs.FS) (map[string][]byte, error) {
	return readFolder(fsys, "an overlay", inOverlay)
}

// CompileOverlay reads, checks and compiles the files of a tenant's overlay
// against a set. Its error is a *[Diagnostics] with every finding.
func CompileOverlay(set *Set, tenant string, files map[string][]byte) (*Overlay, error) {
	var diags Diagnostics
	o := compileOverlay(set, tenant, files, &diags)
	if err := diags.err(); err != nil {
		return nil, err
	}
	return o, nil
}

// OpenOverlay compiles the overlay of an archive, which must be exactly what
// [Overlay.Archive] returned. As with [Open], what evaluation does not need is
// no error here: whoever puts an overlay in force, or a set under it, asks
// [Overlay.Check] too. The error is a *[Diagnostics].
func OpenOverlay(set *Set, tenant string, archive []byte) (*Overlay, error) {
	var diags Diagnostics
	files := decodeArchive(archive, &diags)
	if err := diags.err(); err != nil {
		return nil, err
	}
	o := compileOverlay(set, tenant, files, &diags)
	if o == nil {
		return nil, diags.err()
	}
	o.findings = diags
	return o, nil
}

// Check returns what [CompileOverlay] refuses about the overlay: nil, or a
// *[Diagnostics]. Only one from [OpenOverlay] can have such findings.
func (o *Overlay) Check() error {
	found := Diagnostics{slices.Clone(o.findings.Findings)}
	return found.err()
}

// Set returns the set that the overlay was compiled against.
func (o *Overlay) Set() *Set { return o.set }

// Tenant returns the key of the tenant.
func (o *Overlay) Tenant() string { return o.tenant }

// Archive returns the files as one canonical JSON document, of the form of
// [Set.Archive].
func (o *Overlay) Archive() []byte { return slices.Clone(o.archive) }

// Digest returns "sha256:" and the hexadecimal digest of the archive.
func (o *Overlay) Digest() string { return o.digest }

// Policies returns the tenant's policies, sorted by id.
func (o *Overlay) Policies() []*Policy { return slices.Clone(o.policies) }

// Evaluate judges a question by the policies of the set and of the overlay
// together. As the overlay only forbids, what it changes is that an allow
// becomes a deny.
func (o *Overlay) Evaluate(q *Question) Outcome { return o.set.evaluate(q, o.actions) }

// Explain is [Set.Explain] for the policies of the set and of the overlay.
func (o *Overlay) Explain(q *Question, policyID string) []Clause {
	for _, p := range o.policies {
		if p.ID == policyID {
			return o.set.explain(q, p)
		}
	}
	return o.set.Explain(q, policyID)
}

func compileOverlay(set *Set, tenant string, files map[string][]byte, diags *Diagnostics) *Overlay {
	checkFiles(files, "an overlay", inOverlay, diags)
	if len(diags.Findings) > 0 {
		return nil
	}
	p := &pack{diags: diags, files: files, names: sortedKeys(files)}
	for _, name := range p.names {
		p.readPolicies(name, "", files[name])
	}
	if len(p.policies) == 0 && len(diags.Findings) == 0 {
		diags.add("overlay", 1, 1, CodeOverlayEmpty, "the overlay has no policy: remove it instead")
	}
	c := set.checker.reporting(diags)
	asked, held := askedFor(set.cat), heldBy(set.cat)
	seen := map[string]*Policy{}
	for _, pol := range p.policies {
		if old, ok := seen[pol.ID]; ok && pol.ID != "" {
			diags.add(pol.File, pol.Line, pol.column, CodeIDDuplicate, "policy %q exists already, at %s:%d", pol.ID, old.File, old.Line)
			continue
		}
		seen[pol.ID] = pol
		c.overlay(pol)
		c.tags(pol, asked, held)
		pol.ID, pol.Tenant = tenant+"/"+pol.ID, tenant
	}
	if slices.ContainsFunc(diags.Findings, func(d Diagnostic) bool { return !checked[d.Code] }) {
		return nil
	}
	o := &Overlay{set: set, tenant: tenant, policies: p.policies}
	slices.SortFunc(o.policies, compareIDs)
	for i, pol := range o.policies {
		pol.ordinal = i
		pol.prepare()
	}
	o.actions = buildIndex(set.cat, c.schema, o.policies)
	o.archive = encodeArchive(files)
	o.digest = digestOf(o.archive)
	return o
}

// overlay checks one policy of an overlay.
func (c *checker) overlay(pol *Policy) {
	add := func(code, format string, args ...any) {
		c.diags.add(pol.File, pol.Line, pol.column, code, format, args...)
	}
	if pol.ast.Effect != ast.EffectForbid {
		add(CodeOverlayPermit, "an overlay only forbids: what a tenant's people may do, roles and grants say")
		return
	}
	if !c.sound(pol, add) {
		return
	}
	applies := c.applicable(pol)
	if slices.ContainsFunc(applies, func(uid types.EntityUID) bool { return uid.Type == WardNamespace+"::Action" }) {
		add(CodeOverlayBuiltin, "an overlay may not concern Ward's own actions; narrow the scope to the pack's principals, actions or resources")
	}
	c.optionals(pol, applies, add)
}
