package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
)

func newAuditExportCommand(a *app) *cobra.Command {
	var files evidenceFiles
	var out, checkpoint string
	var tenants []string
	c := &cobra.Command{
		Use:   "export RECORD | FIRST..LAST ... --out CASE",
		Short: "Make a case of records: evidence that stands on its own",
		Long: `Writes a folder with the records as they are stored, the proofs that they are in
the ledger, the keys of these records alone, what of the facts the answers depend
on, and the policies that decided. ward audit verify and ward replay check it on a
machine that has nothing else. Package pdp specifies its files.

Whoever has the case reads what these records hold; --tenant narrows that to the
parts of a tenant. --checkpoint proves the records under one that was kept
elsewhere, so that the case is anchored where that one is believed.`,
		Example: `  ward audit export a-1042 --out case
  ward audit export a-1042 a-1100..a-1110 --tenant acme --checkpoint march.txt --out case`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			wanted := map[uint64]bool{}
			var seqs []uint64
			for _, arg := range args {
				first, last, err := parseRange(arg)
				if err != nil {
					return err
				}
				if last-first >= maxCase {
					return invalid("name the records it is about", "a case holds at most %d records", maxCase)
				}
				for seq := first; seq <= last; seq++ {
					if !wanted[seq] {
						wanted[seq] = true
						seqs = append(seqs, seq)
					}
				}
			}
			if out == "" {
				return failf(exitFailure, "--out case", "say which folder to make")
			}
			e, err := a.openEvidence(cmd.Context(), &files, true)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.close()) }()
			rep, err := pdp.NewReplayer(cmd.Context(), e.store, e.keys)
			if err != nil {
				return err
			}
			if err := rep.Changes(e.reader.From(0)); err != nil {
				return err
			}
			var longest uint64
			for _, seq := range seqs {
				longest = max(longest, seq)
			}
			under := cosignedOver(e.ledger, e.keys.Verifier(), longest)
			if checkpoint != "" {
				if under, err = a.readInput(checkpoint); err != nil {
					return err
				}
			}
			if err := os.Mkdir(out, 0o700); err != nil {
				return failf(exitFailure, "name a folder that does not exist yet", "the folder %s cannot be made: %s", out, cause(err))
			}
			x := pdp.Exporter{Replayer: rep, Prove: func(seq uint64) ([]byte, error) { return e.reader.Prove(seq, under) },
				Write: func(name string, content []byte) error { return os.WriteFile(filepath.Join(out, name), content, 0o600) }}
			if len(tenants) > 0 {
				x.Tenants = tenants
			}
			if err := a.export(cmd, e, &x, seqs); err != nil {
				return errors.Join(err, os.RemoveAll(out)) // half a case is none
			}
			a.say("whoever has the folder %s reads what is in these records", out)
			made := struct {
				Case     string `json:"case"`
				Records  int    `json:"records"`
				Verifier string `json:"verifier"`
			}{out, len(seqs), e.keys.Verifier()}
			return a.show(made, func(w io.Writer) { rows(w, "case", out, "records", itoa(len(seqs)), "verifier", made.Verifier) })
		},
	}
	files.add(c)
	f := c.Flags()
	f.StringVar(&out, "out", "", "`folder` to make")
	f.StringArrayVar(&tenants, "tenant", nil, "open the parts of this `tenant` alone; may be given again")
	f.StringVar(&checkpoint, "checkpoint", "", "`file` with the checkpoint to prove the records under")
	return c
}

// maxCase bounds a case: each record of it has a proof of its own.
const maxCase = 10_000

func (a *app) export(cmd *cobra.Command, e *evidence, x *pdp.Exporter, seqs []uint64) error {
	if err := x.Begin(); err != nil {
		return err
	}
	p := a.progress("exported", uint64(len(seqs)))
	defer p.done()
	for i, seq := range seqs {
		entry, err := e.reader.Entry(seq)
		if errors.Is(err, audit.ErrNotFound) {
			return unknownRecord(seq)
		}
		if err == nil {
			err = x.Add(cmd.Context(), entry)
		}
		if errors.Is(err, audit.ErrNotFound) {
			return invalid("the last checkpoint is at most a second old", "no record %s is under the checkpoint", audit.ID(seq))
		}
		if err != nil {
			return err
		}
		p.at(uint64(i + 1))
	}
	return nil
}

// openCase opens a case under the public keys that were given. Without them it
// proves only that somebody made it.
func (a *app) openCase(dir, verifier string) (*pdp.Case, error) {
	c, err := pdp.OpenCase(os.DirFS(dir))
	switch {
	case err != nil:
		return nil, err
	case verifier != "":
		return c, c.Trust(verifier)
	}
	a.say("anybody can make a case with a key of their own: compare this one with the one that the ledger's owner is known to have, or give that as --verifier: %s", c.Verifier)
	return c, nil
}

// verifyCase checks a case without any other evidence.
func (a *app) verifyCase(cmd *cobra.Command, dir string, l *ledgerFlags, anchors [][]byte) error {
	c, err := a.openCase(dir, l.verifier)
	if err != nil {
		return err
	}
	out := struct {
		Records    int    `json:"records"`
		Checkpoint uint64 `json:"checkpointSize"`
		Root       string `json:"root"`
		Verifier   string `json:"verifier"`
		// Trusted says that the key was given, and not taken from the case.
		Trusted  bool `json:"trusted"`
		Anchored bool `json:"anchored"`
		// Closed counts the records that do not open, by what the case says of it.
		Closed    map[pdp.KeyStatus]int `json:"closed,omitempty"`
		Witnesses []seen                `json:"witnesses,omitempty"`
		Text      string                `json:"text"`
	}{Verifier: c.Verifier, Trusted: l.verifier != "", Closed: map[pdp.KeyStatus]int{}}
	for _, seq := range c.Records() {
		lacks, err := c.Check(cmd.Context(), seq)
		if err != nil {
			return err
		}
		if out.Records++; lacks != "" {
			out.Closed[lacks]++
		}
	}
	if err := c.Done(); err != nil {
		return err
	}
	out.Checkpoint, out.Root = c.Checkpoint.Size, c.Checkpoint.Root.String()
	for _, msg := range anchors {
		cp, err := audit.OpenCheckpoint(msg, c.Verifier)
		switch {
		case err != nil:
			return err
		case cp.Size != c.Checkpoint.Size:
			return failf(exitFailure, "ward audit export --checkpoint makes one that is; ward audit consistency proves that the two belong together", "the case is not proven under the anchor")
		case cp != c.Checkpoint:
			return failf(exitIntegrity, "", "the case is proven under another root than the anchor's")
		}
		out.Anchored = true
	}
	proof, err := os.ReadFile(filepath.Join(dir, audit.ID(c.Records()[0])+".proof"))
	if err != nil {
		return err
	}
	if out.Witnesses, err = l.seen(c.Verifier, proof); err != nil {
		return err
	}
	out.Text = fmt.Sprintf("%d records, each in the ledger of %d records with the root %s: ", out.Records, out.Checkpoint, out.Root)
	switch {
	case out.Anchored:
		out.Text += "consistent with the anchor"
	default:
		out.Text += "self-consistent, not anchored"
	}
	for _, status := range slices.Sorted(maps.Keys(out.Closed)) {
		out.Text += fmt.Sprintf("; %d not to be read, by the case's word %s", out.Closed[status], status)
	}
	if !out.Trusted && !out.Anchored {
		out.Text += "; under a key that the case brings along"
	}
	for _, s := range out.Witnesses {
		out.Text += "; " + s.String()
	}
	return a.show(out, func(w io.Writer) { fmt.Fprintln(w, out.Text) })
}
