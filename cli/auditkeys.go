package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/pdp"
)

// ofTenantDay reads the arguments TENANT DAY, or DAY of the operator's part.
func ofTenantDay(in *admin.KeyChange, operator bool, args []string) error {
	want := 2
	if operator {
		want = 1
	}
	if len(args) != want {
		return failf(exitFailure, "TENANT DAY, or --operator DAY", "a seal key is named by a tenant and a day")
	}
	if in.Day = args[want-1]; !operator {
		in.Tenant = args[0]
	}
	if _, err := time.Parse(time.DateOnly, in.Day); err != nil {
		return invalid("such as 2026-01-31, in UTC", "the day is no date")
	}
	return nil
}

func newAuditShredCommand(a *app) *cobra.Command {
	var in admin.KeyChange
	var operator bool
	c := &cobra.Command{
		Use:   "shred TENANT DAY | --operator DAY",
		Short: "Destroy the key of a tenant's records of a day, for good",
		Long: `Destroys the key under which the ledger holds what is one tenant's in the
records of one day, in UTC. Those records verify as before, and nobody can read
or replay them any more. A day can be shredded an hour after it is over.

It takes the role records-officer at the tenant or the operator, and is on
record before the key is destroyed. On a terminal it asks twice; elsewhere
--confirm TENANT/DAY (or operator/DAY) repeats what is destroyed.

The key's file is overwritten and removed. What lies on flash or a copy-on-write
disk, in a snapshot or a backup of the keys folder is not reached: see to it.`,
		Example: `  ward audit shred acme 2019-11-24
  ward audit shred acme 2019-11-24 --confirm acme/2019-11-24 --why "retention is over" --ticket REC-12
  ward audit shred --operator 2019-11-24`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ofTenantDay(&in, operator, args); err != nil {
				return err
			}
			if err := a.confirmShred(&in); err != nil {
				return err
			}
			return a.changeKeys(cmd.Context(), "/v1/audit/shred", in, func(w io.Writer, out admin.KeyChanged) {
				if out.Again {
					fmt.Fprintf(w, "shredded before\t%s\n", out.Record)
					return
				}
				fmt.Fprintf(w, "shredded\t%s\t%s\n", out.Record, in.Confirmation())
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&operator, "operator", false, "the operator's part, of all records that are no tenant's")
	f.StringVar(&in.Confirm, "confirm", "", "`TENANT/DAY` again, where nobody can be asked")
	f.StringVar(&in.Why, "why", "", "the `reason`, kept with the record")
	f.StringVar(&in.Ticket, "ticket", "", "the `ticket`, kept with the record")
	return c
}

// confirmShred warns, and asks twice on a terminal.
func (a *app) confirmShred(in *admin.KeyChange) error {
	if day, err := time.Parse(time.DateOnly, in.Day); err == nil && a.now().Before(day.AddDate(6, 0, 0)) {
		fmt.Fprintf(a.stderr, "warning: this day is less than six years ago; 45 CFR 164.316(b)(2)(i) asks to keep documentation for six years\n")
	}
	what := in.Confirmation()
	if in.Confirm != "" {
		if in.Confirm != what {
			return invalid("--confirm "+what, "--confirm does not repeat the tenant and the day; nothing was destroyed")
		}
		return nil
	}
	if !isTerminal(a.stdin) {
		return failf(exitFailure, "--confirm "+what, "nobody can be asked here, and nothing was destroyed")
	}
	return a.askTwice(in)
}

func (a *app) askTwice(in *admin.KeyChange) error {
	lines := bufio.NewScanner(a.stdin)
	answer := func(question string) string {
		fmt.Fprint(a.stderr, question)
		if !lines.Scan() {
			return ""
		}
		return strings.TrimSpace(lines.Text())
	}
	what := in.Confirmation()
	if answer("Nobody will ever read these records again. Destroy the key of "+what+"? Type yes: ") == "yes" {
		in.Confirm = answer("Type " + what + ": ")
	}
	if in.Confirm != what {
		return failf(exitFailure, "", "not confirmed; nothing was destroyed")
	}
	return nil
}

func (a *app) changeKeys(ctx context.Context, path string, in admin.KeyChange, table func(io.Writer, admin.KeyChanged)) error {
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	var out admin.KeyChanged
	if err := c.Post(ctx, path, in, &out); err != nil {
		return err
	}
	return a.show(out, func(w io.Writer) { table(w, out) })
}

func newAuditKeysCommand(a *app) *cobra.Command {
	var in admin.KeyChange
	var loss, operator, all bool
	c := &cobra.Command{
		Use:   "keys",
		Short: "List the ledger's keys, and say where one went",
		Long: `Lists the keys that sign or signed the checkpoints, the key of the identifiers'
hashes, and the keys that records are sealed with, by day and tenant: present,
shredded or lost, with the record that says so. Without --all the table names
the seal keys only that are not present.

Exit code 7 when one is missing and no record says why, or is here although a
record says that it was destroyed. --record-loss TENANT DAY puts on record that
a missing key was lost.`,
		Example: `  ward audit keys
  ward audit keys --all -o ndjson
  ward audit keys --record-loss acme 2026-11-24 --why "disk of node-1 failed, the copy was older"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if loss {
				if err := ofTenantDay(&in, operator, args); err != nil {
					return err
				}
				return a.changeKeys(cmd.Context(), "/v1/audit/loss", in, func(w io.Writer, out admin.KeyChanged) {
					fmt.Fprintf(w, "lost\t%s\t%s\n", out.Record, in.Confirmation())
				})
			}
			if len(args) > 0 || operator || in.Why != "" || in.Ticket != "" {
				return failf(exitFailure, "--record-loss TENANT DAY --why TEXT", "a tenant, a day and a reason are for --record-loss")
			}
			return a.listKeys(cmd.Context(), all)
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "also those that are present")
	f.BoolVar(&loss, "record-loss", false, "put on record that a key was lost")
	f.BoolVar(&operator, "operator", false, "with --record-loss: the operator's part")
	f.StringVar(&in.Why, "why", "", "with --record-loss: the `reason`")
	f.StringVar(&in.Ticket, "ticket", "", "with --record-loss: the `ticket`")
	return c
}

func (a *app) listKeys(ctx context.Context, all bool) error {
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	var ring pdp.Keyring
	if err := c.Get(ctx, "/v1/audit/keys", &ring); err != nil {
		return err
	}
	err = a.show(ring, func(w io.Writer) {
		for _, s := range ring.Signers {
			fmt.Fprintf(w, "signer\t%s\t%s\n", s.Verifier, s.Record)
		}
		fmt.Fprintf(w, "hash\t%s\n", ring.HashKey)
		present := 0
		for _, s := range ring.Seals {
			if s.Status == pdp.KeyPresent {
				if present++; !all {
					continue
				}
			}
			name := s.Tenant
			if s.Operator {
				name = "(operator)"
			} else if name == "" {
				name = s.Hash
			}
			fmt.Fprintf(w, "seal\t%s\t%s\t%s\t%s\n", s.Day, name, s.Status, s.Record)
		}
		fmt.Fprintf(w, "%d of %d seal keys are present, %d not as the records say\n", present, len(ring.Seals), ring.Unexplained())
	})
	if err == nil && ring.Unexplained() > 0 {
		return failf(exitIntegrity, "bring the missing files back from a copy of the keys folder, or put the loss on record: ward audit keys --record-loss TENANT DAY --why TEXT",
			"%d seal keys are not as the records say", ring.Unexplained())
	}
	return err
}

func newAuditRotateCommand(a *app) *cobra.Command {
	var in admin.KeyChange
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the key that signs the checkpoints",
		Long: `Makes a new key that signs the ledger's checkpoints from now on. A record names
both keys, and a last checkpoint of the old key covers it: whoever has the old
public key alone can follow to the new one. The public keys stay in the file
verifier of the keys folder, one a line, the oldest first. A witness is told of
the new one: ward witness watch.`,
		Example: "  ward audit rotate\n  ward audit rotate --why \"yearly\" --ticket SEC-7",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.changeKeys(cmd.Context(), "/v1/audit/rotate", in, func(w io.Writer, out admin.KeyChanged) {
				fmt.Fprintf(w, "record\t%s\n", out.Record)
				for v := range strings.FieldsSeq(out.Verifier) {
					fmt.Fprintf(w, "verifier\t%s\n", v)
				}
			})
		},
	}
	c.Flags().StringVar(&in.Why, "why", "", "the `reason`, kept with the record")
	c.Flags().StringVar(&in.Ticket, "ticket", "", "the `ticket`, kept with the record")
	return c
}
