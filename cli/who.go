package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
)

func newWhoCommand(a *app) *cobra.Command {
	var t timeFlags
	var q admin.WhoMay
	var with, context, actionWith []string
	c := &cobra.Command{
		Use:   "who ACTION RESOURCE",
		Short: "List who may do an action on a resource",
		Long: `Asks for every principal that stands at the resource, by a role at it or above
it, as its owner or by a grant, whether it may do the action. Nobody else can be
permitted. Lines that begin with GLASS tell who has an emergency open on the
record, and who of them may open one. Of a feature or route it is asked in an area (--area), and roles,
records and grants below the area count too.

It is an inquiry, and recorded as one, or as one for each 1000 principals.
Attributes of the resource and the context are as the one who asks would send
them; a policy that reads others, such as the caller's address, decides without.`,
		Example: `  ward who claim.view claim:c1 --with coverage=Coverage:acme/cov1 --with pharmacy=null
  ward who feature.see feature:claims.export --area Tenant:acme
  ward who lab.view lab:l1 --with patient=Patient:acme/p1 --at 2026-12-01 --known-at 41 --all`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			q.Action.Name = args[0]
			if q.Resource, err = entity("resource", args[1]); err != nil {
				return err
			}
			for _, p := range []struct {
				flag string
				list []string
				into *map[string]any
			}{{"with", with, &q.Resource.Properties}, {"context", context, &q.Context}, {"action-with", actionWith, &q.Action.Properties}} {
				if *p.into, err = values(p.flag, p.list); err != nil {
					return err
				}
			}
			if q.When, err = t.when(); err != nil {
				return err
			}
			client, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Whom
			if err := client.Post(cmd.Context(), "/v1/who", q, &got); err != nil {
				return err
			}
			permitted := 0
			for _, p := range got.Principals {
				if p.Decision == "allow" {
					permitted++
				}
			}
			a.say("%d of %d that stand there may, at revision %d, record %s", permitted, got.Asked, got.Revision, strings.Join(got.Records, " "))
			if got.Truncated {
				a.say("%d of %d were asked: ask about less, a record instead of a tenant, or raise --limit (at most 10000)", got.Asked, got.Candidates)
			}
			return a.show(got, func(w io.Writer) {
				for i := range got.Principals {
					p := &got.Principals[i]
					why := strings.Join(p.Reasons, " ")
					if p.Grant != "" {
						why += " by grant " + p.Grant
					}
					if p.Emergency != "" {
						why += " by emergency " + p.Emergency
					}
					until := ""
					if !p.ValidUntil.IsZero() {
						until = "until " + p.ValidUntil.String()
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", upper(p.Decision), p.Principal, p.Code, why, until)
				}
				for _, o := range got.Openers {
					until := ""
					if !o.Until.IsZero() {
						until = "until " + o.Until.String()
					}
					fmt.Fprintf(w, "GLASS\t%s\t%s\t%s\t%s\n", o.Principal, o.State, o.Emergency+strings.Join(o.Reasons, " "), until)
				}
			})
		},
	}
	f := c.Flags()
	f.StringArrayVar(&with, "with", nil, "an anchor or attribute of the resource, `name=value`; may be given again")
	f.StringArrayVar(&context, "context", nil, "an attribute of the context, `name=value`")
	f.StringArrayVar(&actionWith, "action-with", nil, "an attribute of the action, `name=value`")
	f.StringVar(&q.Area, "area", "", "the `node` in which a feature or route is asked about, such as Tenant:acme")
	f.StringVar(&q.Caller, "caller", "", "`name` of the program that would ask (default: an authority of the resource)")
	f.IntVar(&q.Assurance, "assurance", 2, "assurance level of every subject, 0 to 3")
	f.BoolVar(&q.All, "all", false, "also those who stand there and may not")
	f.IntVar(&q.Limit, "limit", 0, "ask at most this many principals (default 1000)")
	t.add(c)
	return c
}
