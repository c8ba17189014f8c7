package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/policies"
)

func newPolicyDiffCommand(a *app) *cobra.Command {
	var access bool
	c := &cobra.Command{
		Use:   "diff A [B]",
		Short: "Show what differs between two policy sets",
		Long: `Lists the policies that B, by default the set in force, has more, less or
otherwise than A, and the same of the catalogue: roles, capabilities, actions,
features, routes and so on. A and B are each a folder, pbm, the start of a digest,
a revision, or now.

With --access the test cases of both sets are asked of both, and those are listed
that are decided otherwise or with other obligations; exit code 6 when there are any.`,
		Example: "  ward policy diff now ./pack\n  ward policy diff 12\n  ward policy diff sha256:1f3a9b now --access",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				args = append(args, "now")
			}
			var sets [2]*policies.Set
			for i, name := range args {
				var err error
				if sets[i], err = a.anySet(cmd.Context(), name); err != nil {
					return err
				}
			}
			out := struct {
				From    string                 `json:"from"`
				To      string                 `json:"to"`
				Changes []policies.Difference  `json:"changes"`
				Asked   int                    `json:"asked,omitempty"`
				Access  []pdp.AccessDifference `json:"access,omitempty"`
			}{From: sets[0].Digest(), To: sets[1].Digest(), Changes: policies.Diff(sets[0], sets[1])}
			if out.Changes == nil {
				out.Changes = []policies.Difference{}
			}
			if access {
				var err error
				if out.Access, out.Asked, err = pdp.CompareAccess(sets[0], sets[1]); err != nil {
					return invalid("", "the policy tests cannot be run: %s", err)
				}
			}
			if err := a.show(out, func(w io.Writer) {
				for _, d := range out.Changes {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Change, d.Kind, d.Name, d.Module)
				}
				for _, d := range out.Access {
					fmt.Fprintf(w, "%s:%d\t%s\t%s (%s)\tbecomes %s (%s)\n", d.File, d.Line, d.Name, d.Before.Decision, d.Before.Code, d.After.Decision, d.After.Code)
				}
				if access {
					fmt.Fprintf(w, "%d of %d test cases are decided otherwise\n", len(out.Access), out.Asked)
				}
			}); err != nil {
				return err
			}
			if len(out.Access) > 0 {
				return exit(exitDifference)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&access, "access", false, "also list the test cases that are decided otherwise")
	return c
}

// anySet returns the set of a folder, or one that is or was in force.
func (a *app) anySet(ctx context.Context, name string) (*policies.Set, error) {
	if info, err := os.Stat(name); name == "pbm" || err == nil && info.IsDir() {
		return a.compile(name)
	}
	var q admin.ShowPolicies
	if name != "now" {
		var err error
		if q, err = setNamed(name); err != nil {
			return nil, failf(exitFailure, "ward policy list shows digests and revisions", "%s is no folder, no digest of at least six digits, no revision and not now", name)
		}
	}
	c, err := a.client(ctx)
	if err != nil {
		return nil, err
	}
	var got admin.Archive
	if err := c.Post(ctx, "/v1/policies/archive", q, &got); err != nil {
		return nil, err
	}
	set, err := policies.Open(got.Archive)
	if err != nil {
		return nil, findings(short(got.Digest), err)
	}
	return set, nil
}

func newPolicyRollbackCommand(a *app) *cobra.Command {
	var r reasonFlags
	c := &cobra.Command{
		Use:   "rollback [DIGEST]",
		Short: "Put an earlier policy set in force again",
		Long: `Without a digest it is the set that was in force before the present one. It is
checked and tested as at its first activation, and a change like that.`,
		Example: "  ward policy rollback --why \"brokers see too little\" --ticket CH-17\n  ward policy rollback sha256:1f3a9b --why \"the release of May\"",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := admin.Rollback{Reason: r.Reason}
			if len(args) == 1 {
				q, err := setNamed(args[0])
				if err != nil || q.Digest == "" {
					return failf(exitFailure, "ward policy list shows digests", "give at least six digits of a digest")
				}
				in.Digest = q.Digest
			}
			client, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var done admin.Activated
			if err := client.Post(cmd.Context(), "/v1/rollback", in, &done); err != nil {
				return err
			}
			return a.showActivated(done)
		},
	}
	r.add(c)
	return c
}

func (a *app) showActivated(done admin.Activated) error {
	return a.show(done, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s is in force\trevision %d\trecord %s\n", done.Name, short(done.Digest), done.Revision, done.Record)
	})
}
