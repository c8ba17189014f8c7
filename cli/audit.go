package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

func newAuditCommand(a *app) *cobra.Command {
	return group("audit", "The ledger: find, show and verify records",
		"  ward audit find --person Person:leo\n  ward audit verify --anchor checkpoint.txt",
		newAuditShowCommand(a), newAuditFindCommand(a), newAuditVerifyCommand(a),
		newAuditProveCommand(a), newAuditConsistencyCommand(a),
		newAuditKeysCommand(a), newAuditShredCommand(a), newAuditRotateCommand(a))
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
	return &cobra.Command{
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
			e, err := a.openEvidence(cmd.Context(), false)
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
				err = pdp.Gone(e.keys, entry, e.reader.All())
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
}

// goneCode is the exit code for a record whose key is gone.
func goneCode(s pdp.KeyStatus) int {
	if s == pdp.KeyShredded || s == pdp.KeyLost {
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
	var code, from, to, zone string
	c := &cobra.Command{
		Use:   "find",
		Short: "Find records by what they are about",
		Long: `Finds records by identifiers, which the ledger holds as keyed hashes only, and
lists what everybody may read of them, the latest last.`,
		Example: `  ward audit find --person Person:leo --from 2026-01-01
  ward audit find --subject user:dana --action claim.view --code no_standing
  ward audit find --emergency e-qb3k7fh2mdx5ta4z
  ward audit find --kind change -o ndjson`,
		Args: cobra.NoArgs,
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
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Found
			if err := c.Post(cmd.Context(), "/v1/audit/find", q, &got); err != nil {
				return err
			}
			if got.Truncated {
				a.say("there are earlier ones: narrow the search, or raise --limit")
			}
			return a.show(got.Records, func(w io.Writer) {
				for _, l := range got.Records {
					writeLine(w, l)
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&q.Subject, "subject", "", "`who` acted, such as user:dana")
	f.StringVar(&q.Person, "person", "", "`who` it is about, such as Person:leo")
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

// writeLine writes what everybody may read of a record, on one line.
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
		what = append(what, fmt.Sprintf("%s %s %s", it.Effect, it.Action, it.Code))
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Record, l.Time, l.Kind, l.Caller, strings.Join(what, "; "))
}

// replayed is one line of `ward replay`.
type replayed struct {
	pdp.Replayed
	Result string `json:"result"` // "same", "different", or of its key "shredded", "lost" or "missing"
}

func newReplayCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "replay RECORD | FIRST..LAST | all",
		Short: "Derive recorded answers again, and compare bit for bit",
		Long: `Derives every answer of the records again, in this process, from the store and
the ledger alone, and compares policy set, facts, request and verdict bit for
bit. Beside a running server it works on a copy. It needs the keys.

Exit code 0 same, 4 a key was destroyed or lost, 6 an answer differs, 7 the
evidence is not what the ledger commits to, or a key is missing and no record
says why.`,
		Example: "  ward replay a-1042\n  ward replay a-10..a-20\n  ward replay all -o ndjson",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			first, last := uint64(0), ^uint64(0)
			from, to, isRange := strings.Cut(args[0], "..")
			if args[0] != "all" {
				if first, err = parseRecord(from); err != nil {
					return err
				}
				last = first
			}
			if isRange {
				if last, err = parseRecord(to); err != nil {
					return err
				}
				if last < first {
					return invalid("", "the range ends before it begins")
				}
			}
			e, err := a.openEvidence(cmd.Context(), true)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.close()) }()
			if last != ^uint64(0) && last >= e.covered {
				a.say("records from %s on are newer than the copy of the store and left out", audit.ID(e.covered))
			}
			last = min(last, e.covered-1)
			rep, err := pdp.NewReplayer(cmd.Context(), e.store, e.keys)
			if err != nil {
				return err
			}
			// Which changes never reached the store, only the whole line tells.
			if err := rep.Changes(e.reader.All()); err != nil {
				return err
			}
			return a.replay(cmd, e, rep, first, last, args[0] == "all")
		},
	}
}

func (a *app) replay(cmd *cobra.Command, e *evidence, rep *pdp.Replayer, first, last uint64, all bool) error {
	var total uint64
	if last != ^uint64(0) && last >= first && last-first < 1<<40 {
		total = last - first + 1
	}
	p := a.progress("replayed", total)
	defer p.done()
	results := []replayed{}
	var same, different, shredded, missing, n uint64
	for entry, err := range e.reader.From(first) {
		if err != nil {
			return err
		}
		if entry.Seq > last {
			break
		}
		n++
		p.at(n)
		r, err := rep.Replay(cmd.Context(), entry)
		if err != nil {
			return err
		}
		out := replayed{r, "same"}
		switch {
		case r.Key != "":
			out.Result = string(r.Key)
			if goneCode(r.Key) == exitIntegrity {
				missing++
			} else {
				shredded++
			}
		case len(r.Differences) > 0:
			out.Result = "different"
			different++
		default:
			same++
		}
		// Of a whole ledger, the table names what is not the same.
		if !all || a.output != "table" || out.Result != "same" {
			results = append(results, out)
		}
	}
	p.done()
	if n == 0 && !all {
		return invalid("ward audit find lists records", "the ledger has no record %s", audit.ID(first))
	}
	err := a.show(results, func(w io.Writer) {
		for _, r := range results {
			answers := "1 answer"
			if r.Items != 1 {
				answers = fmt.Sprintf("%d answers", r.Items)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Result, r.Record, r.Kind, answers, strings.Join(r.Differences, "; "))
		}
		if n != 1 {
			fmt.Fprintf(w, "%d records: %d same, %d different, %d shredded\n", n, same, different, shredded)
		}
	})
	if err != nil {
		return err
	}
	switch {
	case missing > 0:
		return failf(exitIntegrity, "ward audit keys lists the keys that are not as the records say", "the keys of %d records are missing, and no record says why", missing)
	case different > 0:
		return exit(exitDifference)
	case shredded > 0:
		return exit(exitIndeterminate)
	}
	return nil
}
