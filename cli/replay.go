package cli

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
)

// replayed is one line of `ward replay`.
type replayed struct {
	pdp.Replayed
	Result string `json:"result"` // "same", "different", or of its key "shredded", "lost", "missing" or "withheld"
}

func newReplayCommand(a *app) *cobra.Command {
	var files evidenceFiles
	var policy, verifier string
	c := &cobra.Command{
		Use:   "replay RECORD | FIRST..LAST | all | CASE",
		Short: "Derive recorded answers again, and compare bit for bit",
		Long: `Derives every answer of the records again, in this process, from the store and
the ledger alone, and compares policy set, facts, request and verdict bit for
bit. Beside a running server it works on a copy. It needs the keys.

A case (ward audit export) is replayed from its own files: it needs no
configuration, no keys and no store.

--policy decides the recorded requests again under other policies, with the facts
of then: "now" is what is in force at the end of the store, and a digest any set
of it, with the tenants' overlays of then. Who would gain and lose is listed. What
the catalogue of then did not declare is not in the requests; a case shows other
policies what those of then were shown, and no more.

Exit code 0 same, 4 a key was destroyed, lost or withheld, 6 an answer differs, 7
the evidence is not what the ledger commits to, or a key is missing and no record
says why.`,
		Example: "  ward replay a-1042\n  ward replay a-10..a-20\n  ward replay all -o ndjson\n  ward replay ./case\n  ward replay all --policy now",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			src, err := a.replaySource(cmd, args[0], &files, policy, verifier)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, src.close()) }()
			if policy != "then" {
				err = a.redecide(src)
			} else {
				err = a.replay(src)
			}
			if done := src.done; done != nil && (err == nil || err.Error() == "") {
				err = errors.Join(done(), err)
			}
			return err
		},
	}
	files.add(c)
	c.Flags().StringVar(&policy, "policy", "then", "then, now, or the `digest` of a policy set")
	c.Flags().StringVar(&verifier, "verifier", "", "the public `key` that a case must be under")
	return c
}

// replaySource is what records come from: a ledger beside a store, or a case.
type replaySource struct {
	records  iter.Seq2[uint64, error]
	total    uint64 // 0: not known
	all      bool   // of a whole ledger, the table names what is not the same
	replay   func(seq uint64) (pdp.Replayed, error)
	redecide func(seq uint64) (pdp.Redecided, error)
	done     func() error // what is to be checked once all is read
	close    func() error
}

// parseRange reads a record, FIRST..LAST or all.
func parseRange(s string) (first, last uint64, err error) {
	if s == "all" {
		return 0, ^uint64(0), nil
	}
	from, to, isRange := strings.Cut(s, "..")
	if first, err = parseRecord(from); err != nil {
		return 0, 0, err
	}
	last = first
	if isRange {
		if last, err = parseRecord(to); err != nil {
			return 0, 0, err
		}
		if last < first {
			return 0, 0, invalid("", "the range ends before it begins")
		}
	}
	return first, last, nil
}

func (a *app) replaySource(cmd *cobra.Command, arg string, files *evidenceFiles, policy, verifier string) (*replaySource, error) {
	first, last, err := parseRange(arg)
	if err != nil {
		if info, serr := os.Stat(arg); serr == nil && info.IsDir() {
			return a.caseSource(cmd, arg, files, policy, verifier)
		}
		return nil, err
	}
	e, err := a.openEvidence(cmd.Context(), files, true)
	if err != nil {
		return nil, err
	}
	src := &replaySource{close: e.close, all: arg == "all"}
	fail := func(err error) (*replaySource, error) { return nil, errors.Join(err, e.close()) }
	if last != ^uint64(0) && last >= e.covered {
		a.say("records from %s on are newer than the copy of the store and left out", audit.ID(e.covered))
	}
	last = min(last, e.covered-1)
	if last != ^uint64(0) && last >= first && last-first < 1<<40 {
		src.total = last - first + 1
	}
	rep, err := pdp.NewReplayer(cmd.Context(), e.store, e.keys)
	if err != nil {
		return fail(err)
	}
	// Which changes never reached the store, only the whole line tells.
	if err := rep.Changes(e.reader.From(0)); err != nil {
		return fail(err)
	}
	var other *pdp.Other
	switch policy {
	case "then":
	case "now":
		other, err = rep.Now(cmd.Context())
	default:
		other, err = rep.Set(cmd.Context(), policy)
	}
	if err != nil {
		return fail(noSuchSet(err))
	}
	var entry audit.Entry
	src.records = func(yield func(uint64, error) bool) {
		for e, err := range e.reader.From(first) {
			if err == nil && e.Seq > last {
				return
			}
			entry = e
			if !yield(e.Seq, err) {
				return
			}
		}
	}
	src.replay = func(uint64) (pdp.Replayed, error) { return rep.Replay(cmd.Context(), entry) }
	src.redecide = func(uint64) (pdp.Redecided, error) { return rep.Redecide(cmd.Context(), entry, other) }
	if !src.all {
		if _, err := e.reader.Entry(first); errors.Is(err, audit.ErrNotFound) || first >= e.covered {
			return fail(unknownRecord(first))
		}
	}
	return src, nil
}

func unknownRecord(seq uint64) error {
	return invalid("ward audit find lists records", "the ledger has no record %s", audit.ID(seq))
}

func noSuchSet(err error) error {
	var bad *pdp.IntegrityError
	if errors.As(err, &bad) {
		return err
	}
	return invalid("ward policy list shows those of a store; a digest is sha256: and 64 hexadecimal digits", "--policy: %s", err)
}

// caseSource reads a case. The policies to decide again under are its own or,
// where a store is at hand, that store's.
func (a *app) caseSource(cmd *cobra.Command, dir string, files *evidenceFiles, policy, verifier string) (*replaySource, error) {
	c, err := a.openCase(dir, verifier)
	if err != nil {
		return nil, err
	}
	var other *pdp.Other
	if policy != "then" && policy != "now" {
		other, err = c.Set(cmd.Context(), policy)
	}
	if policy == "now" || err != nil {
		if other, err = a.otherOf(cmd, files, policy); err != nil {
			return nil, err
		}
	}
	seqs := c.Records()
	return &replaySource{
		total: uint64(len(seqs)),
		records: func(yield func(uint64, error) bool) {
			for _, seq := range seqs {
				if !yield(seq, nil) {
					return
				}
			}
		},
		replay:   func(seq uint64) (pdp.Replayed, error) { return c.Replay(cmd.Context(), seq) },
		redecide: func(seq uint64) (pdp.Redecided, error) { return c.Redecide(cmd.Context(), seq, other) },
		done:     c.Done,
		close:    func() error { return nil },
	}, nil
}

// otherOf finds policies in the store at hand.
func (a *app) otherOf(cmd *cobra.Command, files *evidenceFiles, policy string) (other *pdp.Other, err error) {
	e, err := a.openEvidence(cmd.Context(), files, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	rep, err := pdp.NewReplayer(cmd.Context(), e.store, e.keys)
	if err != nil {
		return nil, err
	}
	if policy == "now" {
		other, err = rep.Now(cmd.Context())
	} else {
		other, err = rep.Set(cmd.Context(), policy)
	}
	if err != nil {
		return nil, noSuchSet(err)
	}
	return other, nil
}

func (a *app) replay(src *replaySource) error {
	p := a.progress("replayed", src.total)
	defer p.done()
	results := []replayed{}
	count := map[string]uint64{}
	var n uint64
	gone := exitOK
	for seq, err := range src.records {
		if err != nil {
			return err
		}
		n++
		p.at(n)
		r, err := src.replay(seq)
		if err != nil {
			return err
		}
		out := replayed{r, "same"}
		switch {
		case len(r.Differences) > 0:
			out.Result = "different"
		case r.Key != "":
			out.Result = string(r.Key)
			gone = max(gone, goneCode(r.Key))
		}
		count[out.Result]++
		if !src.all || a.output != "table" || out.Result != "same" {
			results = append(results, out)
		}
	}
	p.done()
	err := a.show(results, func(w io.Writer) {
		for _, r := range results {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Result, r.Record, r.Kind, answers(r.Items), strings.Join(r.Differences, "; "))
		}
		if n != 1 {
			text := fmt.Sprintf("%d records: %d same, %d different, %d shredded", n, count["same"], count["different"], count["shredded"])
			for _, word := range []string{"lost", "missing", "withheld"} {
				if count[word] > 0 {
					text += fmt.Sprintf(", %d %s", count[word], word)
				}
			}
			fmt.Fprintln(w, text)
		}
	})
	if err != nil {
		return err
	}
	switch missing := count[string(pdp.KeyMissing)]; {
	case missing > 0:
		return failf(exitIntegrity, "ward audit keys lists the keys that are not as the records say", "the keys of %d records are missing, and no record says why", missing)
	case count["different"] > 0:
		return exit(exitDifference)
	}
	return exit(gone)
}

func answers(n int) string {
	if n == 1 {
		return "1 answer"
	}
	return fmt.Sprintf("%d answers", n)
}

// redecide lists what other policies would have answered otherwise.
func (a *app) redecide(src *replaySource) error {
	p := a.progress("decided again", src.total)
	defer p.done()
	results := []pdp.Redecided{}
	changes := map[string]map[string]int{} // by action
	var n uint64
	gone := exitOK
	for seq, err := range src.records {
		if err != nil {
			return err
		}
		n++
		p.at(n)
		r, err := src.redecide(seq)
		if err != nil {
			return err
		}
		if r.Key != "" {
			gone = max(gone, goneCode(r.Key))
		}
		for _, c := range r.Changes {
			if changes[c.Action] == nil {
				changes[c.Action] = map[string]int{}
			}
			changes[c.Action][c.Change]++
		}
		if len(r.Changes) > 0 || r.Key != "" || a.output != "table" {
			results = append(results, r)
		}
	}
	p.done()
	err := a.show(results, func(w io.Writer) {
		for _, r := range results {
			for _, c := range r.Changes {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s %s -> %s %s\t%s\n", c.Change, r.Record, c.Action, c.Before.Decision, c.Before.Code, c.After.Decision, c.After.Code, strings.Join(c.After.Reasons, ","))
			}
			if r.Key != "" {
				fmt.Fprintf(w, "%s\t%s\n", r.Key, r.Record)
			}
		}
		for _, action := range slices.Sorted(maps.Keys(changes)) {
			c := changes[action]
			fmt.Fprintf(w, "%s: %d gained, %d lost, %d in other areas, %d with other obligations\n", action, c["gain"], c["loss"], c["areas"], c["obligations"])
		}
		if len(changes) == 0 {
			fmt.Fprintf(w, "%d records: no answer would be another\n", n)
		}
	})
	switch {
	case err != nil:
		return err
	case len(changes) > 0 && gone != exitIntegrity:
		return exit(exitDifference)
	}
	return exit(gone)
}
