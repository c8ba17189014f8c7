package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/policies"
)

func newPolicyOverlayCommand(a *app) *cobra.Command {
	return group("overlay", "What a tenant forbids for itself, beyond the policy set",
		"  ward policy overlay check acme ./acme-rules && ward policy overlay activate acme ./acme-rules --why \"no exports\"\n  ward policy overlay remove acme --why \"contract ended\"",
		newOverlayCheckCommand(a), newOverlayActivateCommand(a), newOverlayShowCommand(a), newOverlayRemoveCommand(a))
}

// tenantKey reads a tenant as Tenant:KEY or KEY.
func tenantKey(s string) (string, error) {
	id, err := tenantID(s)
	return id.Key, err
}

// overlayFiles reads a folder of *.cedar files, or one file.
func overlayFiles(path string) (files map[string][]byte, prefix string, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, "", invalid("a folder of *.cedar files, or one file", "there is nothing at %s", path)
	case info.IsDir():
		prefix = strings.TrimSuffix(path, "/")
		if files, err = policies.ReadOverlay(os.DirFS(path)); err != nil {
			return nil, "", findings(prefix, err)
		}
		return files, prefix, nil
	case info.Size() > policies.MaxFileSize:
		return nil, "", invalid("", "%s is larger than %d bytes", path, policies.MaxFileSize)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", failf(exitFailure, "", "%s cannot be read: %s", path, cause(err))
	}
	return map[string][]byte{filepath.Base(path): text}, filepath.Dir(path), nil
}

func overlayOf(tenant string, files map[string][]byte, r reasonFlags) admin.Overlay {
	in := admin.Overlay{Tenant: tenant, Files: map[string]string{}, Reason: r.Reason}
	for name, text := range files {
		in.Files[name] = string(text)
	}
	return in
}

func newOverlayCheckCommand(a *app) *cobra.Command {
	var set string
	c := &cobra.Command{
		Use:   "check TENANT DIR|FILE",
		Short: "Compile a tenant's policies and print every finding",
		Long: `Compiles them against the policy set in force, or with --set another one, and
prints findings as file:line:column: code: text. Exit code 3 when there are any.`,
		Example: "  ward policy overlay check acme ./acme-rules\n  ward policy overlay check Tenant:acme rules.cedar --set ./pack -o json",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := tenantKey(args[0])
			if err != nil {
				return err
			}
			files, prefix, err := overlayFiles(args[1])
			var got admin.OverlayChecked
			if err == nil {
				got, err = a.checkOverlay(cmd.Context(), set, tenant, files)
			}
			var bad *invalidSet
			switch {
			case errors.As(err, &bad): // of the folder itself, or of the set
			case err != nil:
				return err
			case len(got.Findings) > 0:
				bad = &invalidSet{prefix, &policies.Diagnostics{Findings: got.Findings}}
			}
			out := struct {
				Tenant   string    `json:"tenant"`
				Digest   string    `json:"digest,omitempty"`
				Set      string    `json:"set,omitempty"`
				Policies int       `json:"policies"`
				Findings []finding `json:"findings"`
			}{tenant, got.Digest, got.Set, got.Policies, []finding{}}
			if bad != nil {
				out.Findings = bad.list()
				return a.showFindings(out, out.Findings)
			}
			return a.show(out, func(w io.Writer) { fmt.Fprintf(w, "%s\t%s\t%d policies\n", out.Tenant, out.Digest, out.Policies) })
		},
	}
	c.Flags().StringVar(&set, "set", "", "policy set: a `folder`, pbm, a digest or a revision (default the one in force)")
	return c
}

// checkOverlay compiles an overlay, in this process when the set is named.
func (a *app) checkOverlay(ctx context.Context, set, tenant string, files map[string][]byte) (admin.OverlayChecked, error) {
	if set != "" {
		s, err := a.anySet(ctx, set)
		if err != nil {
			return admin.OverlayChecked{}, err
		}
		return admin.OverlayCheckedOf(s, tenant, files), nil
	}
	var got admin.OverlayChecked
	c, err := a.client(ctx)
	if err == nil {
		err = c.Post(ctx, "/v1/overlay/check", overlayOf(tenant, files, reasonFlags{}), &got)
	}
	return got, err
}

func newOverlayActivateCommand(a *app) *cobra.Command {
	var r reasonFlags
	c := &cobra.Command{
		Use:   "activate TENANT DIR|FILE",
		Short: "Put a tenant's policies in force, in place of those it had",
		Long: `Every policy of an overlay is a forbid, with an @id. It holds for records and
areas of that tenant alone, from the moment that this command returns. Whoever
holds overlay.activate at the tenant may do it.`,
		Example: "  ward policy overlay activate acme ./acme-rules --why \"no exports\" --ticket CH-18\n  ward policy overlay activate Tenant:acme rules.cedar",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := tenantKey(args[0])
			if err != nil {
				return err
			}
			files, prefix, err := overlayFiles(args[1])
			if err != nil {
				return err
			}
			client, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var done admin.OverlayActivated
			err = client.Post(cmd.Context(), "/v1/overlay/activate", overlayOf(tenant, files, r), &done)
			var refused *admin.Error
			if errors.As(err, &refused) && len(refused.Findings) > 0 {
				return findings(prefix, &policies.Diagnostics{Findings: refused.Findings})
			}
			if err != nil {
				return err
			}
			return a.show(done, func(w io.Writer) {
				fmt.Fprintf(w, "%d policies of %s are in force (%s)\trevision %d\trecord %s\n", done.Policies, done.Tenant, short(done.Digest), done.Revision, done.Record)
			})
		},
	}
	r.add(c)
	return c
}

func newOverlayShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT", Short: "Show a tenant's policies in force",
		Example: "  ward policy overlay show acme\n  ward policy overlay show Tenant:acme -o json | jq -r '.policies[].text'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := tenantKey(args[0])
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.OverlayShown
			if err := c.Post(cmd.Context(), "/v1/overlay/show", admin.Overlay{Tenant: tenant}, &got); err != nil {
				return err
			}
			return a.show(got, func(w io.Writer) {
				fmt.Fprintf(w, "%s\t%s\trevision %d\t%s\t%s\n", got.Tenant, got.Digest, got.Revision, got.Who, got.Why)
				policyRows(w, got.Policies)
			})
		},
	}
}

func newOverlayRemoveCommand(a *app) *cobra.Command {
	var r reasonFlags
	c := &cobra.Command{
		Use: "remove TENANT", Short: "Take a tenant's policies out of force",
		Example: "  ward policy overlay remove acme --why \"contract ended\" --ticket CH-19",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := tenantKey(args[0])
			if err != nil {
				return err
			}
			client, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var done admin.Changed
			if err := client.Post(cmd.Context(), "/v1/overlay/remove", admin.Overlay{Tenant: tenant, Reason: r.Reason}, &done); err != nil {
				return err
			}
			return a.showChange(done, "overlay removed")
		},
	}
	r.add(c)
	return c
}
