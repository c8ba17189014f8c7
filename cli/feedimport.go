package cli

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

// shownRefusals is how many refused rows a command lists by itself.
const shownRefusals = 20

// newImportCommand is ward hierarchy import.
func newImportCommand(a *app) *cobra.Command {
	i := &importRun{a: a}
	c := &cobra.Command{
		Use:   "import --map MAP FILE…",
		Short: "Load CSV files as a map says",
		Long: `Load CSV files as a map says: which columns name which nodes, and which facts a
row asserts. The map is a file, or one that is built in: cms-bfd.

What the files say is compared with what is known. What is missing is asserted,
what differs is replaced, what is known stays. The same files a second time
change nothing. Nothing is visible before everything is written; an import that
broke off goes on when it is run again, or is dropped with --abandon.

A feed is one of two, as the map or a flag says. With --delta what the files do
not mention stays. With --full they are the whole truth of the tenant, for the
kinds of facts that the map knows: what an earlier feed of the same map
asserted, and no row speaks of any more, ends at the first instant of --as-of in
the map's time zone. What was written by hand stays. A row that is refused still
speaks of what it names. A full feed has a file for each entry of the map.

A feed that would end more than 2 % of the tenant's live coverages is refused
(feed_ends_too_many), unless --allow-mass-end is given. --dry-run shows who would
gain and lose access to how many records, and writes nothing.

A map may name files that come with a feed and are not loaded; they are listed
as skipped. A file that it does not name at all is an error.

A row is refused as a whole, with a reason: rows = loaded + unchanged + refused.
Refused rows are no failure of the command. A file whose last line has no end,
or whose trailer counts otherwise, is refused as a whole (feed_truncated).

With --history, into an empty store, every instant at which the source learned
or withdrew a row becomes a revision, so that --known-at reaches back before
this store was made.`,
		Example: `  ward hierarchy import --map cms-bfd SYNTHETIC_*.csv
  ward hierarchy import --map feed.yaml --tenant acme --delta members.csv --refusals refused.csv
  ward hierarchy import --map feed.yaml --full --as-of 2026-11-20 --dry-run members.csv
  ward hierarchy import --map cms-bfd --history SYNTHETIC_*.csv
  ward hierarchy import --map cms-bfd --abandon`,
		RunE: func(cmd *cobra.Command, args []string) error { return i.run(cmd.Context(), args) },
	}
	f := c.Flags()
	f.StringVar(&i.mapName, "map", "", "`map`: a file, or the name of one that is built in (required)")
	f.StringVar(&i.tenant, "tenant", "", "`tenant` to load into, instead of the map's")
	f.BoolVar(&i.history, "history", false, "keep what the source knew when: each of its times becomes a revision")
	f.BoolVar(&i.full, "full", false, "the files are the whole truth: what they lack ends at --as-of")
	f.BoolVar(&i.delta, "delta", false, "the files add, change or end only what they name")
	f.StringVar(&i.asOf, "as-of", "", "the feed's own `date`, YYYY-MM-DD in the map's time zone")
	f.BoolVar(&i.massEnd, "allow-mass-end", false, "load it even if it ends more than 2 % of the live coverages")
	f.BoolVar(&i.dryRun, "dry-run", false, "show what access would change, and write nothing")
	f.BoolVar(&i.abandon, "abandon", false, "drop the open import of these files, or without files of the tenant")
	f.StringVar(&i.refusals, "refusals", "", "write every refused row to this CSV `file`")
	i.reason.add(c)
	c.MarkFlagsMutuallyExclusive("full", "delta", "history")
	return c
}

type importRun struct {
	a                        *app
	mapName, tenant          string
	refusals                 string
	history, dryRun, abandon bool
	full, delta, massEnd     bool
	asOf                     string
	reason                   reasonFlags

	date hierarchy.Instant // of asOf; 0 for none

	m       *feedMap
	files   []feedSource
	skipped []skippedFile
	lines   int
}

// skippedFile is a file that the map does not load, and says why.
type skippedFile struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// imported is the -o json of the command.
type imported struct {
	pdp.Imported
	Skipped []skippedFile `json:"skipped,omitempty"`
}

// feedSource is a file with the digest it had when the import was named.
type feedSource struct {
	path, name, digest string
}

func (i *importRun) run(ctx context.Context, paths []string) error {
	if i.mapName == "" {
		return failf(exitFailure, "built in: cms-bfd", "which map says what the files mean? --map MAP")
	}
	var err error
	if i.m, err = findMap(i.mapName); err != nil {
		return err
	}
	if i.tenant == "" {
		i.tenant = i.m.tenant
	}
	if i.tenant != "" && hierarchy.TenantID(i.tenant).Valid() != nil {
		return failf(exitFailure, "", "%q is no tenant key", i.tenant)
	}
	if len(paths) == 0 && !i.abandon {
		return failf(exitFailure, "ward hierarchy import --help", "which files?")
	}
	if len(paths) > 0 {
		if err := i.mode(); err != nil {
			return err
		}
	}
	if err := i.open(paths); err != nil {
		return err
	}
	client, err := i.a.client(ctx)
	if err != nil {
		return err
	}
	if i.abandon {
		return i.drop(ctx, client)
	}
	return i.load(ctx, client)
}

// mode finds whether the feed is full, and its date.
func (i *importRun) mode() error {
	if !i.full && !i.delta && !i.history {
		i.full, i.delta = i.m.mode == "full", i.m.mode == "delta"
	}
	if !i.full && !i.delta && !i.history {
		return invalid("--full or --delta, or a line feed: in the map", "%s: the map %s does not say whether its files are the whole truth", feedUnclear, i.m.name)
	}
	if i.asOf != "" {
		first, _, err := hierarchy.ParseDate(i.asOf, i.m.zone)
		if err != nil {
			return failf(exitFailure, "", "--as-of: %s", err)
		}
		i.date = first
	}
	if i.full && i.asOf == "" {
		return invalid("--as-of YYYY-MM-DD", "%s: a full feed has a date, from which what it lacks has ended", feedUndated)
	}
	return nil
}

// complete reports a file of the map that a full feed lacks.
func (i *importRun) complete() error {
	for _, f := range i.m.files {
		match := func(s feedSource) bool { ok, _ := path.Match(f.match, s.name); return ok }
		if i.full && f.skip == "" && !slices.ContainsFunc(i.files, match) {
			return invalid("an empty file says that there is nothing", "%s: a full feed with the map %s has a file %s too", feedIncomplete, i.m.name, f.match)
		}
	}
	return nil
}

// open reads every file once: the digests name the import, and what is cut off
// shows.
func (i *importRun) open(paths []string) error {
	for _, p := range paths {
		s := feedSource{path: p, name: filepath.Base(p)}
		if slices.ContainsFunc(i.files, func(o feedSource) bool { return o.name == s.name }) ||
			slices.ContainsFunc(i.skipped, func(o skippedFile) bool { return o.Name == s.name }) {
			return failf(exitFailure, "files are told apart by their base names", "%s is given twice", s.name)
		}
		if of, err := i.m.fileFor(s.name); err == nil && of.skip != "" {
			i.skipped = append(i.skipped, skippedFile{s.name, of.skip})
			continue
		}
		f, err := os.Open(p)
		if err != nil {
			return failf(exitFailure, "", "%s cannot be read: %s", p, cause(err))
		}
		sum, count := sha256.New(), &lineCount{}
		r, err := i.m.newRowReader(s.name, 0, i.tenant, io.TeeReader(f, io.MultiWriter(sum, count))) // the header is in order
		for err == nil && r.f.trailer != nil && !r.ended {
			if _, err = r.next(); err == io.EOF {
				err = nil
				break
			}
		}
		if err == nil {
			if _, err = io.Copy(io.MultiWriter(sum, count), f); err != nil {
				err = failf(exitFailure, "", "%s cannot be read: %s", p, cause(err))
			} else if count.last != '\n' {
				err = r.truncated("the last line has no line end")
			}
		}
		f.Close()
		if err != nil {
			return err
		}
		s.digest = digestOf(sum)
		i.lines += count.n
		i.files = append(i.files, s)
	}
	if len(i.files) == 0 && len(paths) > 0 {
		return invalid("", "the map %s skips all of these files", i.m.name)
	}
	if len(paths) > 0 {
		return i.complete()
	}
	return nil
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

type lineCount struct {
	n    int
	last byte
}

func (c *lineCount) Write(b []byte) (int, error) {
	for _, x := range b {
		if x == '\n' {
			c.n++
		}
		c.last = x
	}
	return len(b), nil
}

// id names the import: the digest of the map, of the files, and of how they
// are read.
func (i *importRun) id() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%v\x00%v\x00%d\x00", i.m.digest, i.tenant, i.history, i.full, i.date)
	for _, f := range i.files {
		fmt.Fprintf(h, "%s\x00%s\x00", f.name, f.digest)
	}
	return "im-" + hex.EncodeToString(h.Sum(nil))[:32]
}

func (i *importRun) drop(ctx context.Context, client *admin.Client) error {
	in := admin.Abandon{Tenant: i.tenant, Reason: i.reason.Reason}
	if len(i.files) > 0 {
		in.ID = i.id()
	}
	var out admin.Changed
	if err := client.Post(ctx, "/v1/import/abandon", in, &out); err != nil {
		return err
	}
	return i.a.show(out, func(w io.Writer) { fmt.Fprintf(w, "the import is dropped (record %s)\n", out.Record) })
}

// rows reads every file again and maps it.
func (i *importRun) rows(p *progress) iter.Seq2[pdp.Row, error] {
	return func(yield func(pdp.Row, error) bool) {
		sent := uint64(0)
		for n, s := range i.files {
			ok, err := i.rowsOf(n, s, func(r pdp.Row) bool {
				sent++
				p.at(sent)
				return yield(r, nil)
			})
			if err != nil {
				yield(pdp.Row{}, err)
			}
			if err != nil || !ok {
				return
			}
		}
	}
}

func (i *importRun) rowsOf(n int, s feedSource, yield func(pdp.Row) bool) (bool, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return false, failf(exitFailure, "", "%s cannot be read: %s", s.path, cause(err))
	}
	defer f.Close()
	sum := sha256.New()
	in := io.TeeReader(f, sum)
	r, err := i.m.newRowReader(s.name, n, i.tenant, in)
	if err != nil {
		return false, err
	}
	r.asOf = i.date
	for {
		row, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
		if !yield(row) {
			return false, nil
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil || digestOf(sum) != s.digest {
		return false, failf(exitFailure, "run the import again", "%s changed while it was read", s.name)
	}
	return true, nil
}

func (i *importRun) load(ctx context.Context, client *admin.Client) error {
	head := admin.Import{ID: i.id(), Tenant: i.tenant, History: i.history, DryRun: i.dryRun, Reason: i.reason.Reason,
		Source: i.m.name, Full: i.full, AllowMassEnd: i.massEnd}
	if i.date != 0 {
		head.AsOf = admin.TimeOf(i.date)
	}
	if i.full {
		head.Kinds = i.m.kinds()
	}
	if head.Why == "" {
		head.Why = "import with map " + i.m.name
	}
	for _, f := range i.files {
		head.Files = append(head.Files, pdp.FeedFile{Name: f.name, Digest: f.digest})
	}
	if i.a.kernel != nil { // a million rows hold a gigabyte: the heap must not double it
		defer debug.SetGCPercent(debug.SetGCPercent(25))
	}
	read := i.a.progress("rows read", uint64(i.lines))
	var write *progress
	done, err := client.Import(ctx, head, i.rows(read), func(p pdp.Progress) {
		if write == nil {
			read.done()
			write = i.a.progress("rows written", uint64(p.Of))
		}
		write.at(uint64(p.Rows))
	})
	read.done()
	if write != nil {
		write.done()
	}
	if err != nil {
		if write != nil {
			i.a.say("the import is open, and invisible: the same command goes on with it, --abandon drops it")
		}
		return err
	}
	if i.refusals != "" {
		if err := writeRefusals(i.refusals, done.Refusals); err != nil {
			return failf(exitFailure, "", "%s cannot be written: %s", i.refusals, cause(err))
		}
	}
	i.remark(done)
	return i.a.show(imported{done, i.skipped}, func(w io.Writer) {
		importTable(w, done)
		for _, s := range i.skipped {
			fmt.Fprintf(w, "%s\tskipped: %s\n", s.Name, s.Reason)
		}
		if done.Access != nil {
			accessTable(w, done.Access)
		}
	})
}

// remark says on stderr what the table does not.
func (i *importRun) remark(d pdp.Imported) {
	if i.a.quiet {
		return
	}
	if i.a.output == "table" && i.refusals == "" {
		for _, r := range d.Refusals[:min(len(d.Refusals), shownRefusals)] {
			i.a.say("refused: %s:%d: %s: %s", r.File, r.Line, r.Code, r.Text)
		}
		if more := len(d.Refusals) - shownRefusals; more > 0 {
			i.a.say("refused: and %d more; --refusals FILE writes them all", more)
		}
	}
	if codes := refusalCodes(d.Refusals); codes != "" {
		i.a.say("refused: %s", codes)
	}
	if c := d.Coverages; c != nil {
		i.a.say("%d of %d live coverages end (%.1f %%)", c.Ends, c.Live, c.Share())
		if d.DryRun && !i.massEnd && c.TooMany() {
			i.a.say("that is more than %d %%: without --allow-mass-end the feed would be refused (%s)", pdp.MaxEndPercent, pdp.FeedEndsTooMany)
		}
	}
	if d.Resumed {
		i.a.say("an interrupted run of this import was continued")
	}
	if d.Tenant != "" {
		i.a.say("the tenant %s did not exist; the import made it", d.Tenant)
	}
	switch {
	case d.DryRun:
		i.a.say("dry run: nothing was written (record %s)", d.Record)
	case d.Revisions == 0:
		i.a.say("nothing changed (record %s)", d.Record)
	default:
		i.a.say("%d facts asserted, %d ended, %d voided, in revisions %d to %d (record %s)", d.Facts, d.Ended, d.Voided, d.First, d.Last, d.Record)
	}
}

func importTable(w io.Writer, d pdp.Imported) {
	fmt.Fprintf(w, "FILE\tROWS\tLOADED\tUNCHANGED\tREFUSED\tIMPLIED\n")
	sum := pdp.ImportedFile{Name: "total"}
	line := func(f pdp.ImportedFile) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\n", f.Name, f.Rows, f.Loaded, f.Unchanged, f.Refused, f.Implied)
	}
	for _, f := range d.Files {
		line(f)
		sum.Rows += f.Rows
		sum.Loaded += f.Loaded
		sum.Unchanged += f.Unchanged
		sum.Refused += f.Refused
		sum.Implied += f.Implied
	}
	if len(d.Files) > 1 {
		line(sum)
	}
}

// refusalCodes counts refusals by code.
func refusalCodes(list []pdp.RefusedRow) string {
	n := map[string]int{}
	for _, r := range list {
		n[r.Code]++
	}
	var all []string
	for _, code := range slices.Sorted(maps.Keys(n)) {
		all = append(all, fmt.Sprintf("%d %s", n[code], code))
	}
	return strings.Join(all, ", ")
}

// accessTable shows what a dry run found to change of access.
func accessTable(w io.Writer, c *pdp.AccessChange) {
	fmt.Fprintf(w, "\nACCESS AT %s\tBY\tAT\tGAINS\tLOSES\tCAPABILITIES\n", c.At)
	gains, loses := 0, 0
	for _, l := range c.Lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", l.Principal, l.By, l.Node, l.Gains, l.Loses, strings.Join(l.Capabilities, " "))
		gains, loses = gains+l.Gains, loses+l.Loses
	}
	fmt.Fprintf(w, "total\t\t%d records\t%d\t%d\t\n", c.Records, gains, loses)
	for _, e := range c.Entitlements {
		verb := "loses"
		if e.Gains {
			verb = "gains"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.Tenant, verb, e.Name)
	}
}

func writeRefusals(path string, list []pdp.RefusedRow) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := csv.NewWriter(f)
	records := [][]string{{"file", "line", "code", "reason"}}
	for _, r := range list {
		records = append(records, []string{r.File, strconv.Itoa(r.Line), r.Code, r.Text})
	}
	return w.WriteAll(records)
}
