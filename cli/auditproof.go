package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/witness"
	"github.com/ward-authz/ward/pdp/audit"
)

// ledgerFlags name a ledger that was handed over, instead of the configuration's.
type ledgerFlags struct {
	ledger, verifier string
	witnesses        []string
}

func (l *ledgerFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&l.ledger, "ledger", "", "ledger `folder` that was handed over")
	c.Flags().StringVar(&l.verifier, "verifier", "", "its public `key`")
	c.Flags().StringArrayVar(&l.witnesses, "witness", nil, "public `key` of a witness, which must have cosigned; may be given again")
}

// open gives the folder and the public key. It takes no lock, and reads beside a
// server.
func (l *ledgerFlags) open(a *app) (dir, verifier string, err error) {
	switch {
	case (l.ledger == "") != (l.verifier == ""):
		return "", "", failf(exitFailure, "", "--ledger and --verifier go together")
	case l.ledger != "":
		return l.ledger, l.verifier, exists(l.ledger, "ledger")
	}
	c, err := a.config(false)
	if err != nil {
		return "", "", err
	}
	if err := exists(c.ledger(), "ledger"); err != nil {
		return "", "", err
	}
	keys, err := c.openKeys()
	if err != nil {
		return "", "", err
	}
	return c.ledger(), keys.Verifier(), nil
}

// key gives the public key alone.
func (l *ledgerFlags) key(a *app) (string, error) {
	if l.verifier != "" {
		return l.verifier, nil
	}
	_, verifier, err := l.open(a)
	return verifier, err
}

// seen says which of the witnesses cosigned the checkpoint in a proof; each must
// have.
func (l *ledgerFlags) seen(verifier string, proof []byte) ([]seen, error) {
	keys, err := witnessKeys(l.witnesses)
	if err != nil {
		return nil, err
	}
	_, checkpoint, _ := bytes.Cut(proof, []byte("\n\n"))
	return lastSeen(keys, verifier, [][]byte{checkpoint})
}

const askWitness = "ask the witness for it (GET /HASH/checkpoint), and give it with --anchor"

func newAuditVerifyCommand(a *app) *cobra.Command {
	var l ledgerFlags
	var files []string
	c := &cobra.Command{
		Use:   "verify [CASE]",
		Short: "Check every record against the signed checkpoints",
		Long: `Reads every record, hashes it, and compares the tree with every checkpoint in
the ledger's folder, and with the anchors: checkpoints of any age that were kept
where this machine could not change them. Without an anchor the ledger proves only
that it agrees with itself. It reads beside a running server.

With --witness, the witness must have cosigned an anchor, or the checkpoint that
the server keeps in the folder; its time says up to when nothing was rewritten.
A checkpoint fetched from the witness itself also shows what was cut off since.

--ledger and --verifier check a folder that was handed over, with the public
key alone. A case (ward audit export) needs nothing but its own files: its proofs,
keys, facts and policies are checked against one another. Exit code 7 when anything is not as it was written.`,
		Example: `  ward audit verify
  ward audit verify --anchor january.txt --anchor june.txt
  ward audit verify --witness "$(cat witness.pub)"
  ward audit verify --ledger ./handed --verifier "$(cat verifier.txt)"
  ward audit verify ./case --verifier "$(cat verifier.txt)"`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var anchors [][]byte
			for _, file := range files {
				anchor, err := a.readInput(file)
				if err != nil {
					return err
				}
				anchors = append(anchors, anchor)
			}
			if len(args) == 1 {
				return a.verifyCase(cmd, args[0], &l, anchors)
			}
			keys, err := witnessKeys(l.witnesses)
			if err != nil {
				return err
			}
			dir, verifier, err := l.open(a)
			if err != nil {
				return err
			}
			for _, key := range keys {
				kept, err := os.ReadFile(filepath.Join(dir, key.File()))
				switch {
				case errors.Is(err, fs.ErrNotExist):
				case err != nil:
					return err
				default:
					if _, err := key.Seen(kept); err != nil {
						return failf(exitIntegrity, askWitness, "%s in the ledger's folder is not cosigned by the witness", key.File())
					}
					anchors = append(anchors, kept)
				}
			}
			report, err := audit.Verify(dir, verifier, anchors...)
			var corrupt *audit.CorruptError
			if errors.As(err, &corrupt) {
				return failf(exitIntegrity, "keep the folder as it is; records before this one are intact", "the ledger is not as it was written: %s", trim(corrupt))
			}
			if err != nil {
				return err
			}
			saw, err := lastSeen(keys, report.Verifier, anchors)
			if err != nil {
				return err
			}
			out := struct {
				Records        uint64 `json:"records"`
				Root           string `json:"root"`
				CheckpointSize uint64 `json:"checkpointSize"`
				Tail           uint64 `json:"tail"`
				Anchored       bool   `json:"anchored"`
				AnchorSize     uint64 `json:"anchorSize,omitempty"`
				Witnesses      []seen `json:"witnesses,omitempty"`
				Text           string `json:"text"`
			}{report.Records, report.Root, report.CheckpointSize, report.Tail, report.Anchored, report.AnchorSize, saw, verified(report)}
			for _, s := range saw {
				out.Text += "; " + s.String()
			}
			return a.show(out, func(w io.Writer) { fmt.Fprintln(w, out.Text) })
		},
	}
	l.add(c)
	c.Flags().StringArrayVar(&files, "anchor", nil, "`file` with a checkpoint that was kept elsewhere, of any age; may be given again")
	return c
}

// lastSeen gives the longest state that each witness cosigned, of checkpoints
// that were found to be the ledger's.
func lastSeen(keys []witness.Verifier, verifier string, checkpoints [][]byte) ([]seen, error) {
	var out []seen
	for _, key := range keys {
		last, found := seen{}, false
		for _, msg := range checkpoints {
			cp, err := audit.OpenCheckpoint(msg, verifier)
			if err != nil {
				return nil, err
			}
			if at, err := key.Seen(msg); err == nil && (!found || cp.Size > last.Size || cp.Size == last.Size && at.After(last.Time)) {
				last, found = seen{key.Name(), cp.Size, at}, true
			}
		}
		if !found {
			return nil, failf(exitIntegrity, askWitness, "the witness %s has cosigned no checkpoint that is at hand", key.Name())
		}
		out = append(out, last)
	}
	return out, nil
}

func newAuditProveCommand(a *app) *cobra.Command {
	var l ledgerFlags
	var out, check, record, checkpoint string
	c := &cobra.Command{
		Use:   "prove RECORD",
		Short: "Prove that a record is in the ledger, or check such a proof",
		Long: `Writes a proof that a record is in the ledger under a signed checkpoint (C2SP
tlog-proof), and with --record the record as it is stored. The checkpoint is the
longest that a witness cosigned, else the last one; or the one of --checkpoint.

With --check nothing but the proof, the record and the public key is needed: hand
the three to whoever should believe it. Exit code 7 when the proof is not of that
record.`,
		Example: `  ward audit prove a-1042 --out a-1042.tlog-proof --record a-1042.json
  ward audit prove --check a-1042.tlog-proof --record a-1042.json --verifier "$(cat verifier.txt)"`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if check != "" {
				return a.checkProof(&l, args, check, record)
			}
			if len(args) == 0 {
				return failf(exitFailure, "ward audit prove a-1042", "a record is required")
			}
			seq, err := parseRecord(args[0])
			if err != nil {
				return err
			}
			dir, verifier, err := l.open(a)
			if err != nil {
				return err
			}
			reader, err := audit.OpenReader(dir, verifier)
			if err != nil {
				return err
			}
			under := cosignedOver(dir, verifier, seq)
			if checkpoint != "" {
				if under, err = a.readInput(checkpoint); err != nil {
					return err
				}
			}
			proof, err := reader.Prove(seq, under)
			if errors.Is(err, audit.ErrNotFound) {
				return invalid("the last checkpoint is at most a second old; ward audit find lists records", "no record %s is under the checkpoint", args[0])
			}
			if err != nil {
				return err
			}
			if record != "" {
				entry, err := reader.Entry(seq)
				if err != nil {
					return err
				}
				if err := os.WriteFile(record, entry.Body, 0o600); err != nil {
					return err
				}
			}
			return a.writeProof(&l, verifier, out, proof)
		},
	}
	l.add(c)
	f := c.Flags()
	f.StringVar(&out, "out", "", "`file` for the proof, instead of stdout")
	f.StringVar(&record, "record", "", "`file` for the record as stored; with --check it is read")
	f.StringVar(&check, "check", "", "`file` with a proof to check; - is stdin")
	f.StringVar(&checkpoint, "checkpoint", "", "`file` with the checkpoint to prove it under")
	return c
}

// writeProof writes a proof to a file, or shows it, unless a witness that was
// asked for has not cosigned its checkpoint.
func (a *app) writeProof(l *ledgerFlags, verifier, path string, proof []byte) error {
	if _, err := l.seen(verifier, proof); err != nil {
		return err
	}
	if path != "" {
		return os.WriteFile(path, proof, 0o600)
	}
	out := struct {
		Proof string `json:"proof"`
	}{string(proof)}
	return a.show(out, func(w io.Writer) { _, _ = w.Write(proof) })
}

// cosignedOver gives the longest cosigned checkpoint in a ledger's folder that
// covers a record; nil if there is none.
func cosignedOver(dir, verifier string, seq uint64) (found []byte) {
	size := seq
	files, _ := filepath.Glob(filepath.Join(dir, "cosigned-*"))
	for _, file := range files {
		msg, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if cp, err := audit.OpenCheckpoint(msg, verifier); err == nil && cp.Size > size {
			found, size = msg, cp.Size
		}
	}
	return found
}

func (a *app) checkProof(l *ledgerFlags, args []string, check, record string) error {
	if record == "" {
		return failf(exitFailure, "ward audit prove --check FILE --record FILE", "--check needs --record, the record as it is stored")
	}
	verifier, err := l.key(a)
	if err != nil {
		return err
	}
	proof, err := a.readInput(check)
	if err != nil {
		return err
	}
	body, err := os.ReadFile(record)
	if err != nil {
		return failf(exitFailure, "", "the record cannot be read: %s", cause(err))
	}
	seq, cp, err := audit.CheckProof(proof, bytes.TrimSuffix(body, []byte("\n")), verifier)
	switch {
	case errors.Is(err, audit.ErrProof):
		return invalid("ward audit prove writes one", "%s is not a proof", check)
	case errors.Is(err, audit.ErrNotProven):
		return failf(exitIntegrity, "", "the proof is not of this record: it is not in the ledger, or was changed")
	case err != nil:
		return err
	case len(args) == 1 && args[0] != audit.ID(seq):
		return failf(exitIntegrity, "", "the proof is of record %s", audit.ID(seq))
	}
	saw, err := l.seen(verifier, proof)
	if err != nil {
		return err
	}
	out := struct {
		Record         string `json:"record"`
		CheckpointSize uint64 `json:"checkpointSize"`
		Root           string `json:"root"`
		Witnesses      []seen `json:"witnesses,omitempty"`
	}{audit.ID(seq), cp.Size, cp.Root.String(), saw}
	return a.show(out, func(w io.Writer) {
		text := fmt.Sprintf("%s is in the ledger, under the checkpoint at %d", out.Record, out.CheckpointSize)
		for _, s := range saw {
			text += "; " + s.String()
		}
		fmt.Fprintln(w, text)
	})
}

func newAuditConsistencyCommand(a *app) *cobra.Command {
	var l ledgerFlags
	var out, check string
	c := &cobra.Command{
		Use:   "consistency OLD [NEW]",
		Short: "Prove that nothing was changed between two checkpoints",
		Long: `Writes a proof that the ledger at the later checkpoint continues the earlier one,
so that nothing which that one covers was changed or left out. Without NEW it is
the last checkpoint. The proof holds the later checkpoint, and is the body of a
C2SP tlog-witness request.

With --check nothing but the proof, the earlier checkpoint and the public key is
needed. Exit code 7 when it is not continued.`,
		Example: `  ward audit consistency january.txt
  ward audit consistency january.txt june.txt --out proof.txt
  ward audit consistency january.txt --check proof.txt --verifier "$(cat verifier.txt)"`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			earlier, err := a.readInput(args[0])
			if err != nil {
				return err
			}
			var later []byte
			if len(args) == 2 {
				if later, err = a.readInput(args[1]); err != nil {
					return err
				}
			}
			if check != "" {
				return a.checkConsistency(&l, earlier, later, check)
			}
			dir, verifier, err := l.open(a)
			if err != nil {
				return err
			}
			reader, err := audit.OpenReader(dir, verifier)
			if err != nil {
				return err
			}
			proof, err := reader.Consistency(earlier, later)
			if err != nil {
				return err
			}
			a.say("the ledger continues the checkpoint at %d", proof.Old)
			return a.writeProof(&l, verifier, out, proof.Text())
		},
	}
	l.add(c)
	c.Flags().StringVar(&out, "out", "", "`file` for the proof, instead of stdout")
	c.Flags().StringVar(&check, "check", "", "`file` with a proof to check; - is stdin")
	return c
}

func (a *app) checkConsistency(l *ledgerFlags, earlier, later []byte, check string) error {
	verifier, err := l.key(a)
	if err != nil {
		return err
	}
	text, err := a.readInput(check)
	if err != nil {
		return err
	}
	proof, err := audit.ParseConsistency(text)
	if err != nil {
		return invalid("ward audit consistency writes one", "%s is not a proof", check)
	}
	from, err := audit.OpenCheckpoint(earlier, verifier)
	if err != nil {
		return err
	}
	to, err := audit.OpenCheckpoint(proof.Checkpoint, verifier)
	if err != nil {
		return err
	}
	if later != nil {
		if cp, err := audit.OpenCheckpoint(later, verifier); err != nil {
			return err
		} else if cp != to {
			return failf(exitIntegrity, "", "the proof leads to another checkpoint, at %d", to.Size)
		}
	}
	if proof.Old != from.Size {
		return failf(exitIntegrity, "", "the proof leads from another checkpoint, at %d", proof.Old)
	}
	if proof.Check(from, to) != nil {
		return failf(exitIntegrity, "", "the proof does not show that the checkpoint at %d continues the one at %d", to.Size, from.Size)
	}
	saw, err := l.seen(verifier, text)
	if err != nil {
		return err
	}
	out := struct {
		Old       uint64 `json:"old"`
		Size      uint64 `json:"size"`
		Witnesses []seen `json:"witnesses,omitempty"`
	}{from.Size, to.Size, saw}
	return a.show(out, func(w io.Writer) {
		text := []string{fmt.Sprintf("the checkpoint at %d continues the one at %d", out.Size, out.Old)}
		for _, s := range saw {
			text = append(text, s.String())
		}
		fmt.Fprintln(w, strings.Join(text, "; "))
	})
}

// verified says a report in words, and what could not be known.
func verified(r audit.Report) string {
	s := fmt.Sprintf("%d records, root %s, %d after the last checkpoint: ", r.Records, r.Root, r.Tail)
	if !r.Anchored {
		return s + "self-consistent, not anchored: whoever holds the signing key could have rewritten any record, " +
			"or cut the ledger back to an earlier state, and this folder alone cannot show it"
	}
	s += fmt.Sprintf("consistent with the outside checkpoint at %d", r.AnchorSize)
	if rest := r.Records - r.AnchorSize; rest > 0 {
		s += fmt.Sprintf("; the %d records after it are self-consistent, not anchored", rest)
	}
	return s
}
