package pdp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/policies"
)

// The files of a case; the package documentation says what is in them.
const (
	caseVerifier = "verifier"
	caseRecord   = ".record"
	caseProof    = ".proof"
	caseKeys     = ".keys"
	caseFacts    = ".facts"
	casePolicies = ".policies"
)

// caseClosed are the words that stand in the place of a key, and of the facts
// that it would open, from the one that says the least is amiss.
var caseClosed = []KeyStatus{KeyWithheld, KeyShredded, KeyLost, KeyMissing}

// maxCaseFile bounds a file of a case: none is larger than a policy archive.
const maxCaseFile = 64 << 20

var caseBase64 = base64.RawURLEncoding.Strict()

// Exporter makes cases.
type Exporter struct {
	*Replayer
	// Prove gives the proof that a record is in the ledger ([audit.Reader.Prove]).
	Prove func(seq uint64) ([]byte, error)
	// Tenants narrows what is opened to the parts of these tenants, "" being the
	// operator; nil is all. A part whose answers depend on what another tenant's
	// facts say, such as where else somebody holds a role, stays closed too.
	Tenants []string
	// Write takes each file of the case once.
	Write func(name string, content []byte) error

	written map[string]bool
}

// Begin writes what every case holds.
func (x *Exporter) Begin() error {
	x.written = map[string]bool{}
	return x.Write(caseVerifier, []byte(x.keys.Verifier()+"\n"))
}

// Add writes the files of one record. What it rebuilds from the store must be
// what the record commits to; else it is an *IntegrityError, and the case is not
// to be used.
func (x *Exporter) Add(ctx context.Context, e audit.Entry) error {
	id, c, err := x.open(e)
	if err != nil {
		return err
	}
	keys, err := x.keys.PartKeys(e)
	if err != nil && !errors.Is(err, audit.ErrNoKey) {
		return &IntegrityError{Record: id, Text: "the sealed part does not verify", Err: err}
	}
	parts, err := e.Open(keys)
	if err != nil {
		return &IntegrityError{Record: id, Text: "the sealed part does not verify", Err: err}
	}
	missing := make([]string, len(keys)) // why a part is closed
	for i, seal := range e.Seals() {
		switch {
		case parts[i] == nil:
			status, _, err := x.changes.status(x.keys, seal)
			if err != nil {
				return err
			}
			missing[i] = string(status)
		case x.Tenants != nil && !slices.Contains(x.Tenants, parts[i].Tenant):
			parts[i], missing[i] = nil, string(KeyWithheld)
		}
	}
	items, _, err := sealedItems(id, c, parts)
	if err != nil {
		return err
	}
	proof, err := x.Prove(e.Seq)
	if err != nil {
		return err
	}
	var facts []string
	if len(items) > 0 {
		w, err := x.world(ctx, id, c)
		if err != nil {
			return err
		}
		if err := x.archive(w.set.Digest(), w.set.Archive()); err != nil {
			return err
		}
		found := make([]*slice, len(items))
		for i := range items {
			if items[i].Asked == nil {
				continue
			}
			j := w.judge(items[i].Asked)
			if digestOf(j.encode()) != items[i].Facts {
				return &IntegrityError{Record: id, Text: "the facts of the store are not those that it commits to"}
			}
			found[i] = &j.slice
			// Facts cannot be told in part, since the record commits to all.
			if k := c.Items[i].Part; x.Tenants != nil && j.slice.names(func(tenant string) bool { return !slices.Contains(x.Tenants, tenant) }) {
				parts[k], missing[k] = nil, string(KeyWithheld)
			}
		}
		for i, s := range found {
			if k := c.Items[i].Part; parts[k] == nil {
				facts = append(facts, missing[k])
				continue
			}
			facts = append(facts, string(s.encode()))
			for _, t := range s.attempts {
				if t.Overlay == "" {
					continue
				}
				if err := x.archive(t.Overlay, w.overlays[t.Tenant].Archive()); err != nil {
					return err
				}
			}
		}
	}
	var lines []string
	for i := range keys {
		if parts[i] != nil {
			lines = append(lines, caseBase64.EncodeToString(keys[i]))
		} else {
			lines = append(lines, missing[i])
		}
	}
	return errors.Join(x.Write(id+caseRecord, e.Body), x.Write(id+caseProof, proof),
		x.Write(id+caseKeys, joinLines(lines)), x.Write(id+caseFacts, joinLines(facts)))
}

func (x *Exporter) archive(digest string, archive []byte) error {
	name := archiveName(digest)
	if x.written[name] {
		return nil
	}
	x.written[name] = true
	return x.Write(name, archive)
}

func archiveName(digest string) string { return strings.Replace(digest, ":", "-", 1) + casePolicies }

func joinLines(lines []string) []byte {
	if len(lines) == 0 {
		return nil
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// splitLines reverses joinLines.
func splitLines(b []byte) (lines []string, ok bool) {
	if len(b) == 0 {
		return nil, true
	}
	text, ok := strings.CutSuffix(string(b), "\n")
	return strings.Split(text, "\n"), ok
}

// Case is evidence about some records that stands on its own: it is checked and
// replayed with nothing else at hand.
type Case struct {
	// Verifier is the public key that comes with it, and so proves nothing before
	// it was compared with the one that the ledger's owner is known to have.
	Verifier string
	// Checkpoint is the one that every record is proven under.
	Checkpoint audit.Checkpoint

	dir     fs.FS
	records []uint64
	sets    setCache
	used    map[string]bool
}

// caseError says that a case is not what was handed out.
func caseError(file, text string) error {
	return &IntegrityError{Text: "the case's file " + file + " " + text}
}

// OpenCase opens the folder of a case and checks which files are in it.
func OpenCase(dir fs.FS) (*Case, error) {
	c := &Case{dir: dir, used: map[string]bool{}}
	c.sets.store = c
	list, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for _, f := range list {
		files[f.Name()] = true
		if id, ok := strings.CutSuffix(f.Name(), caseRecord); ok {
			seq, err := audit.ParseID(id)
			if err != nil {
				return nil, caseError(f.Name(), "is named after no record")
			}
			c.records = append(c.records, seq)
		}
	}
	slices.Sort(c.records)
	known := map[string]bool{caseVerifier: true}
	for _, seq := range c.records {
		for _, suffix := range []string{caseRecord, caseProof, caseKeys, caseFacts} {
			known[audit.ID(seq)+suffix] = true
		}
	}
	for name := range known {
		if !files[name] {
			return nil, caseError(name, "is missing")
		}
	}
	for _, f := range list {
		if name := f.Name(); !f.Type().IsRegular() || !known[name] && !strings.HasSuffix(name, casePolicies) {
			return nil, &IntegrityError{Text: "the folder holds what belongs to no case"}
		}
	}
	if len(c.records) == 0 {
		return nil, &IntegrityError{Text: "the case holds no record"}
	}
	text, err := c.read(caseVerifier)
	if err != nil {
		return nil, err
	}
	c.Verifier = strings.Join(strings.Fields(string(text)), "\n")
	for _, key := range strings.Split(c.Verifier, "\n") {
		if f := strings.Split(key, "+"); len(f) < 3 || f[1] != strings.ToLower(f[1]) || c.Verifier+"\n" != string(text) {
			return nil, caseError(caseVerifier, "holds no public key as the ledger writes it")
		}
	}
	return c, nil
}

func (c *Case) read(name string) ([]byte, error) {
	info, err := fs.Stat(c.dir, name)
	if err == nil && info.Size() > maxCaseFile {
		return nil, caseError(name, "is too large")
	}
	b, err := fs.ReadFile(c.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, caseError(name, "is missing")
	}
	return b, err
}

// GetBlob gives a policy archive of the case.
func (c *Case) GetBlob(_ context.Context, digest string) ([]byte, error) {
	name := archiveName(digest)
	c.used[name] = true
	return c.read(name)
}

// Records lists the records of the case.
func (c *Case) Records() []uint64 { return slices.Clone(c.records) }

// checked is one record of a case, checked.
type checked struct {
	entry  audit.Entry
	clear  clearPart
	items  []sealedItem // without a request where the part is closed
	slices []*slice
	closed []string // per item, why it is closed, or ""
}

// Trust narrows the public keys of the case to those that the caller knows the
// ledger to have, one a line: some are older than the case, or younger.
func (c *Case) Trust(verifier string) error {
	known := strings.Fields(verifier)
	keys := slices.DeleteFunc(strings.Split(c.Verifier, "\n"), func(key string) bool { return !slices.Contains(known, key) })
	if len(keys) == 0 {
		return &IntegrityError{Text: "no public key of the case is one that was given"}
	}
	c.Verifier = strings.Join(keys, "\n")
	return nil
}

// Check checks one record: its proof under the case's public key, that the
// keys open its parts, that the facts are those it commits to, and that the
// policies are there. It gives why a part is closed, as the case says, or "".
func (c *Case) Check(ctx context.Context, seq uint64) (KeyStatus, error) {
	r, err := c.check(seq)
	if err != nil {
		return "", err
	}
	_, _, err = c.then(ctx, r)
	return r.lacks(), err
}

func (c *Case) check(seq uint64) (*checked, error) {
	id := audit.ID(seq)
	files := map[string][]byte{}
	for _, suffix := range []string{caseRecord, caseProof, caseKeys, caseFacts} {
		b, err := c.read(id + suffix)
		if err != nil {
			return nil, err
		}
		files[suffix] = b
	}
	at, cp, err := audit.CheckProof(files[caseProof], files[caseRecord], c.Verifier)
	if err != nil || at != seq {
		return nil, &IntegrityError{Record: id, Text: "the proof does not prove it", Err: err}
	}
	if c.Checkpoint.Size == 0 {
		c.Checkpoint = cp
	}
	if cp != c.Checkpoint {
		return nil, &IntegrityError{Record: id, Text: "it is proven under another checkpoint than those before it"}
	}
	r := &checked{}
	if r.entry, err = audit.Decode(seq, files[caseRecord]); err != nil {
		return nil, &IntegrityError{Record: id, Text: "the record cannot be read", Err: err}
	}
	if err := json.Unmarshal(r.entry.Clear, &r.clear); err != nil {
		return nil, &IntegrityError{Record: id, Text: "the clear part cannot be read"}
	}
	lines, ok := splitLines(files[caseKeys])
	if !ok {
		return nil, caseError(id+caseKeys, "is not whole")
	}
	keys := make([][]byte, len(lines))
	for i, line := range lines {
		if slices.Contains(caseClosed, KeyStatus(line)) {
			continue
		}
		if keys[i], err = caseBase64.DecodeString(line); err != nil {
			return nil, caseError(id+caseKeys, "holds no key")
		}
	}
	parts, err := r.entry.Open(keys)
	if err != nil {
		return nil, &IntegrityError{Record: id, Text: "the sealed part does not verify", Err: err}
	}
	if r.items, _, err = sealedItems(id, &r.clear, parts); err != nil {
		return nil, err
	}
	facts, ok := splitLines(files[caseFacts])
	if !ok || len(facts) != len(r.items) {
		return nil, caseError(id+caseFacts, "is not whole")
	}
	r.slices, r.closed = make([]*slice, len(facts)), make([]string, len(facts))
	for i, line := range facts {
		if r.items[i].Asked == nil {
			if r.closed[i] = lines[r.clear.Items[i].Part]; line != r.closed[i] {
				return nil, caseError(id+caseFacts, "says otherwise than the keys what is closed")
			}
			continue
		}
		if digestOf([]byte(line)) != r.items[i].Facts {
			return nil, &IntegrityError{Record: id, Text: "the facts are not those that it commits to"}
		}
		if r.slices[i], err = decodeSlice([]byte(line)); err != nil {
			return nil, &IntegrityError{Record: id, Text: "the facts cannot be read", Err: err}
		}
	}
	return r, nil
}

// lacks says why what is closed of a record is: the worst of it, or "".
func (r *checked) lacks() KeyStatus {
	worst := -1
	for _, word := range r.closed {
		worst = max(worst, slices.Index(caseClosed, KeyStatus(word)))
	}
	if worst < 0 {
		return ""
	}
	return caseClosed[worst]
}

// Done reports, after every record was replayed, what of the case belongs to
// none of them.
func (c *Case) Done() error {
	list, err := fs.ReadDir(c.dir, ".")
	if err != nil {
		return err
	}
	for _, f := range list {
		if strings.HasSuffix(f.Name(), casePolicies) && !c.used[f.Name()] {
			return &IntegrityError{Text: "the case holds policies that decided none of its records"}
		}
	}
	return nil
}

// then gives the policies that decided a record.
func (c *Case) then(ctx context.Context, r *checked) (*policies.Set, map[string]*policies.Overlay, error) {
	if len(r.items) == 0 {
		return nil, nil, nil
	}
	set, err := c.sets.get(ctx, r.clear.Set)
	if err == nil {
		var overlays map[string]*policies.Overlay
		if overlays, err = c.overlays(ctx, r, set); err == nil {
			return set, overlays, nil
		}
	}
	return nil, nil, &IntegrityError{Record: r.entry.ID(), Text: "the policies are not those that decided", Err: err}
}

// overlays gives those that the facts of a record name, over a set.
func (c *Case) overlays(ctx context.Context, r *checked, set *policies.Set) (map[string]*policies.Overlay, error) {
	overlays := map[string]*policies.Overlay{}
	for _, s := range r.slices {
		if s == nil {
			continue
		}
		for _, t := range s.attempts {
			if t.Overlay == "" || overlays[t.Tenant] != nil && overlays[t.Tenant].Digest() == t.Overlay {
				continue
			}
			if overlays[t.Tenant] != nil {
				return nil, hierarchy.ErrCorrupt // one revision has one
			}
			var err error
			if overlays[t.Tenant], err = c.sets.overlay(ctx, set, t.Tenant, t.Overlay); err != nil {
				return nil, err
			}
		}
	}
	return overlays, nil
}

// Replay checks one record and puts what it holds to the policies that decided
// it: the verdict, and all of the clear part that is no keyed hash. Errors and
// differences are as those of [Replayer.Replay].
func (c *Case) Replay(ctx context.Context, seq uint64) (Replayed, error) {
	r, err := c.check(seq)
	if err != nil {
		return Replayed{}, err
	}
	out := Replayed{Record: r.entry.ID(), Kind: string(r.entry.Kind), Items: len(r.items)}
	if r.clear.Semantics > Semantics {
		return out, newerSemantics(out.Record, r.clear.Semantics)
	}
	set, overlays, err := c.then(ctx, r)
	if err != nil {
		return out, err
	}
	out.Key = r.lacks()
	for i, si := range r.items {
		if si.Asked == nil {
			continue
		}
		v, outcomes := evaluate(r.slices[i], set, overlays)
		out.compare(si, v)
		want, err := json.Marshal(r.clear.Items[i].hidden())
		if err != nil {
			return out, err
		}
		got, err := json.Marshal(inClear(r.entry.Kind, set, si.Asked, r.slices[i], v, outcomes))
		if err != nil {
			return out, err
		}
		if !bytes.Equal(want, got) {
			out.Differences = append(out.Differences, fmt.Sprintf("item %d: the clear part is not what this request and set give: %s", si.Index, differing(want, got)))
		}
	}
	return out, nil
}

func newerSemantics(id string, n int) error {
	return fmt.Errorf("record %s was written by a newer version (semantics %d): replay it with that version", id, n)
}
