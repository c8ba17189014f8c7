package cli

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

func newAuditCommand(a *app) *cobra.Command {
	return group("audit", "The ledger: find, show and verify records",
		"  ward audit find --person Person:leo\n  ward audit verify --anchor checkpoint.txt",
		newAuditShowCommand(a), newAuditFindCommand(a), newAuditVerifyCommand(a),
		newAuditProveCommand(a), newAuditConsistencyCommand(a),
		newAuditKeysCommand(a), newAuditShredCommand(a), newAuditRotateCommand(a),
		newAuditExportCommand(a), newAuditTailCommand(a))
}

func parseRecord(s string) (uint64, error) {
	seq, err := audit.ParseID(s)
	if err != nil {
		return 0, invalid("such as a-1042; ward audit find lists them", "this is no record id")
	}
	return seq, nil
}

// shownPart is one sealed part of a record, opened.
type shownPart struct {
	Tenant string          `json:"tenant"`
	Plain  json.RawMessage `json:"plain"`
}

func newAuditShowCommand(a *app) *cobra.Command {
	files := &evidenceFiles{}
	c := &cobra.Command{
		Use:   "show RECORD",
		Short: "Show what a record holds",
		Long: `Shows the clear part of a record and, with the keys, the sealed one. Beside a
running server it reads a copy. Exit code 4 when the record's key was destroyed
or lost, 7 when it is missing and no record says why: the clear part is still
shown.`,
		Example: "  ward audit show a-1042\n  ward audit show a-1042 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			seq, err := parseRecord(args[0])
			if err != nil {
				return err
			}
			e, err := a.openEvidence(cmd.Context(), files, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.close()) }()
			entry, err := e.reader.Entry(seq)
			if errors.Is(err, audit.ErrNotFound) {
				return invalid("ward audit find lists records", "the ledger has no record %s", args[0])
			}
			if err != nil {
				return err
			}
			line, err := pdp.LineOf(entry)
			if err != nil {
				return err
			}
			out := struct {
				pdp.Line
				Clear  json.RawMessage `json:"clear"`
				Sealed []shownPart     `json:"sealed"`
				Key    pdp.KeyStatus   `json:"key,omitempty"` // where it is gone
				By     string          `json:"by,omitempty"`
			}{Line: line, Clear: entry.Clear, Sealed: []shownPart{}}
			parts, err := e.keys.Unseal(entry)
			if errors.Is(err, audit.ErrNoKey) {
				err = pdp.Gone(e.keys, entry, e.reader.From(0))
			}
			var gone *pdp.GoneError
			switch {
			case errors.As(err, &gone):
				out.Key, out.By = gone.Status, gone.By
			case err != nil:
				return err
			}
			for _, p := range parts {
				plain := json.RawMessage(p.Plain)
				if !json.Valid(plain) {
					plain, _ = json.Marshal(string(p.Plain))
				}
				out.Sealed = append(out.Sealed, shownPart{p.Tenant, plain})
			}
			err = a.show(out, func(w io.Writer) {
				rows(w, "record", line.Record, "kind", line.Kind, "time", line.Time, "revision", itoa(line.Revision))
				lineRows(w, line)
				if gone != nil {
					rows(w, "sealed", trim(gone))
				}
				for _, p := range out.Sealed {
					name := "sealed for the operator"
					if p.Tenant != "" {
						name = "sealed for " + p.Tenant
					}
					rows(w, name, string(p.Plain))
				}
			})
			if err == nil && gone != nil {
				return exit(goneCode(gone.Status))
			}
			return err
		},
	}
	files.add(c)
	return c
}

// goneCode is the exit code for a record whose key is gone.
func goneCode(s pdp.KeyStatus) int {
	if s != pdp.KeyMissing {
		return exitIndeterminate
	}
	return exitIntegrity
}

func lineRows(w io.Writer, l pdp.Line) {
	if l.Caller != "" {
		rows(w, "caller", l.Caller)
	}
	if len(l.Change) > 0 {
		rows(w, "change", fmt.Sprintf("%s (%d events)", strings.Join(l.Change, ", "), l.Events))
	}
	if l.Closes != "" {
		rows(w, "closes", l.Closes)
	}
	if o := l.Outcome; o != nil {
		rows(w, "outcome of", o.Of, "it was", outcomeText(o))
	}
	for _, s := range refusalTexts(l.Refusals) {
		rows(w, "refused", s)
	}
	for _, it := range l.Items {
		rows(w, it.Effect, fmt.Sprintf("%s %s %s %s", it.Action, it.Type, it.Code, strings.Join(it.Reasons, ",")))
	}
}

func newAuditFindCommand(a *app) *cobra.Command {
	var q admin.Find
	var files evidenceFiles
	var code, from, to, zone string
	c := &cobra.Command{
		Use:   "find",
		Short: "Find records by what they are about",
		Long: `Finds records by identifiers, which the ledger holds as keyed hashes only, and
lists them with what the keys open: who asked for what, under which grant, and who
approved that; the latest last. The read is decided and recorded.

With --ledger and --keys it reads the files instead, beside a server or without
one; nothing of that read is on record. --store tells who approved a grant, and
lets --subject name a type of the catalogue.

-o csv has one line an answer, with the columns record, time, kind, caller,
subject, action, resource, decision, code, enforced, policies, grant, emergency,
approved, revision, set; several values in one are separated by spaces. A cell that
a spreadsheet would take for a formula begins with an apostrophe.`,
		Example: `  ward audit find --person Person:leo --from 2026-03-01 --to 2026-03-31 -o csv
  ward audit find --subject user:dana --action claim.view --code no_standing
  ward audit find --resource claim:c1 --decision deny --policy guard.sensitive
  ward audit find --kind change -o ndjson
  ward audit find --person Person:leo --ledger ledger --keys keys --store store.db`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{"csv": "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Code = authz.Code(code)
			switch audit.Kind(q.Kind) {
			case "", audit.Decision, audit.Inquiry, audit.Outcome, audit.Change, audit.Abandoned, audit.Refusals:
			default:
				return invalid("one of decision, inquiry, outcome, change, abandoned, refusals", "there is no kind of record %q", q.Kind)
			}
			var err error
			if from != "" {
				if q.From, err = pointInTime("--from", from, zone, false); err != nil {
					return err
				}
			}
			if to != "" {
				if q.To, err = pointInTime("--to", to, zone, true); err != nil {
					return err
				}
			}
			if from != "" && to != "" && !time.Time(q.From).Before(time.Time(q.To)) {
				return reversed()
			}
			got, err := a.find(cmd, &files, &q)
			if err != nil {
				return err
			}
			if got.Truncated {
				a.say("there are earlier ones: narrow the search, or raise --limit")
			}
			return a.showLines(got.Records)
		},
	}
	files.add(c)
	f := c.Flags()
	f.StringVar(&q.Subject, "subject", "", "`who` acted, such as user:dana")
	f.StringVar(&q.Person, "person", "", "`who` it is about, such as Person:leo")
	f.StringVar(&q.Resource, "resource", "", "`what` was asked for, such as claim:c1")
	f.StringVar(&q.Effect, "decision", "", "allow or deny")
	f.StringVar(&q.Reason, "policy", "", "the `id` of a policy that decided")
	f.StringVar(&q.Grant, "grant", "", "the grant `id` that permitted")
	f.StringVar(&q.Emergency, "emergency", "", "the emergency `id` that permitted")
	f.StringVar(&q.Action, "action", "", "the `action`, such as claim.view or grant.change")
	f.StringVar(&code, "code", "", "the `code`, such as no_standing")
	f.StringVar(&q.Kind, "kind", "", "decision, inquiry, outcome, change, abandoned or refusals")
	f.StringVar(&from, "from", "", "recorded at this `time` or later")
	f.StringVar(&to, "to", "", "recorded before this `time`; a date includes its day")
	f.StringVar(&zone, "zone", "UTC", "time `zone` of dates")
	f.IntVar(&q.Limit, "limit", 0, "at most this many, the latest (default 100)")
	return c
}

// find asks the admin door, or reads the files that were named.
func (a *app) find(cmd *cobra.Command, files *evidenceFiles, q *admin.Find) (got admin.Found, err error) {
	if *files == (evidenceFiles{}) {
		c, err := a.client(cmd.Context())
		if err != nil {
			return got, err
		}
		return got, c.Post(cmd.Context(), "/v1/audit/find", q, &got)
	}
	e, err := a.openEvidence(cmd.Context(), files, false)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	f, set, err := a.finder(cmd, e)
	if err != nil {
		return got, err
	}
	return q.In(cmd.Context(), f, set, e.reader.From(0))
}

// finder reads the store too, where there is one.
func (a *app) finder(cmd *cobra.Command, e *evidence) (*pdp.Finder, *policies.Set, error) {
	if e.store == nil {
		return pdp.NewFinder(e.keys, nil), nil, nil
	}
	rep, err := pdp.NewReplayer(cmd.Context(), e.store, e.keys)
	if err != nil {
		return nil, nil, err
	}
	now, err := rep.Now(cmd.Context())
	if err != nil {
		return nil, nil, err
	}
	return rep.Finder(), now.Set(), nil
}

func newAuditTailCommand(a *app) *cobra.Command {
	var files evidenceFiles
	var n int
	var follow bool
	c := &cobra.Command{
		Use:   "tail",
		Short: "Show the latest records, and those to come",
		Long: `Shows the latest records as ward audit find does. With --follow it then reads the
ledger's files every half second, beside a server and without a lock, and shows
what is added, until it is stopped.`,
		Example:     "  ward audit tail -n 20\n  ward audit tail --follow -o ndjson",
		Args:        cobra.NoArgs,
		Annotations: map[string]string{"csv": "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			got, err := a.find(cmd, &files, &admin.Find{Limit: n})
			if err != nil {
				return err
			}
			if err := a.showLines(got.Records); err != nil || !follow {
				return err
			}
			if err := a.close(); err != nil { // without a server, the kernel was opened for it
				return err
			}
			next := uint64(0)
			if k := len(got.Records); k > 0 {
				if next, err = audit.ParseID(got.Records[k-1].Record); err != nil {
					return err
				}
				next++
			}
			return a.follow(cmd, &files, next)
		},
	}
	files.add(c)
	c.Flags().IntVarP(&n, "lines", "n", 10, "this `many` of the latest")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that are added")
	return c
}

// follow shows what is added to a ledger.
func (a *app) follow(cmd *cobra.Command, files *evidenceFiles, next uint64) error {
	dir, keys := files.ledger, (*audit.Keys)(nil)
	if dir == "" {
		c, err := a.config(false)
		if err != nil {
			return err
		}
		if keys, err = c.openKeys(); err != nil {
			return err
		}
		dir = c.ledger()
	} else {
		var err error
		if keys, err = (&config{keys: files.keys}).openKeys(); err != nil {
			return err
		}
	}
	f := pdp.NewFinder(keys, nil)
	for {
		reader, err := audit.OpenReader(dir, keys.Verifier())
		if err != nil {
			return err
		}
		var lines []pdp.Line
		for l, err := range f.Find(reader.From(next), pdp.Seek{}) {
			if err != nil {
				return err
			}
			if err := f.Open(&l); err != nil {
				return err
			}
			lines = append(lines, l)
			next++
		}
		if len(lines) > 0 {
			if err := a.showLines(lines); err != nil {
				return err
			}
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// showLines shows records, one after the other.
func (a *app) showLines(lines []pdp.Line) error {
	if a.output == "csv" {
		return writeCSV(a.stdout, lines)
	}
	return a.show(lines, func(w io.Writer) {
		for _, l := range lines {
			writeLine(w, l)
		}
	})
}

// columns of -o csv. Append-only.
var columns = []string{"record", "time", "kind", "caller", "subject", "action", "resource", "decision", "code", "enforced",
	"policies", "grant", "emergency", "approved", "revision", "set"}

func writeCSV(out io.Writer, lines []pdp.Line) error {
	w := csv.NewWriter(out)
	write := func(cells ...string) error {
		for i, c := range cells {
			if c != "" && strings.ContainsRune("=+-@\t\r", rune(c[0])) {
				cells[i] = "'" + c
			}
		}
		return w.Write(cells)
	}
	if err := write(slices.Clone(columns)...); err != nil {
		return err
	}
	for _, l := range lines {
		items := l.Items
		if len(items) == 0 {
			items = []pdp.LineItem{{Action: strings.Join(l.Change, " ")}}
		}
		for _, it := range items {
			var approved []string
			for _, p := range it.Approved {
				approved = append(approved, approval(p))
			}
			if err := write(l.Record, l.Time, l.Kind, l.Caller, it.Subject, it.Action, it.Resource, it.Effect, string(it.Code), string(it.Enforced),
				strings.Join(it.Reasons, " "), it.Grant, it.Emergency, strings.Join(approved, " "), itoa(l.Revision), l.Set); err != nil {
				return err
			}
		}
	}
	w.Flush()
	return w.Error()
}

func approval(p pdp.Approval) string {
	s := p.As + ":" + p.By.String()
	if p.Record != "" {
		s += "(" + p.Record + ")"
	}
	return s
}

func outcomeText(o *pdp.Reported) string {
	s := "delivered"
	if !o.Delivered {
		s = "not delivered"
	}
	if o.Rows != nil {
		s += fmt.Sprintf(", %d rows", *o.Rows)
	}
	for _, id := range o.Obligations {
		s += ", " + id
	}
	return s
}

// refusalTexts lists refusals by door and code.
func refusalTexts(counts map[string]map[authz.Code]uint64) (texts []string) {
	for _, door := range slices.Sorted(maps.Keys(counts)) {
		for _, code := range slices.Sorted(maps.Keys(counts[door])) {
			texts = append(texts, fmt.Sprintf("%s %s %d", door, code, counts[door][code]))
		}
	}
	return texts
}

// writeLine writes a record on one line.
func writeLine(w io.Writer, l pdp.Line) {
	what := []string{}
	if len(l.Change) > 0 {
		what = append(what, fmt.Sprintf("%s (%d events)", strings.Join(l.Change, ", "), l.Events))
	}
	if l.Outcome != nil {
		what = append(what, "of "+l.Outcome.Of+": "+outcomeText(l.Outcome))
	}
	what = append(what, refusalTexts(l.Refusals)...)
	for i, it := range l.Items {
		if i == 3 {
			what = append(what, fmt.Sprintf("and %d more", len(l.Items)-i))
			break
		}
		text := fmt.Sprintf("%s %s %s", it.Effect, it.Action, it.Code)
		if it.Subject != "" {
			text += fmt.Sprintf(" %s on %s", it.Subject, it.Resource)
		}
		if len(it.Reasons) > 0 {
			text += " by " + strings.Join(it.Reasons, ",")
		}
		switch {
		case it.Grant != "":
			text += " under grant " + it.Grant
		case it.Emergency != "":
			text += " under emergency " + it.Emergency
		}
		for _, p := range it.Approved {
			text += ", " + approval(p)
		}
		what = append(what, text)
	}
	if l.Closed {
		what = append(what, "its key is gone")
	}
	// Ids are what somebody sent: they end no line, and steer no terminal.
	text := strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.Join(what, "; "))
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Record, l.Time, l.Kind, l.Caller, text)
}
