package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
)

func newFindCommand(a *app) *cobra.Command {
	var t timeFlags
	var q admin.NodesQuery
	var all bool
	c := &cobra.Command{
		Use:   "find [TEXT|TYPE]",
		Short: "Find nodes, persons and principals",
		Long: `Lists what exists and whose type is the word given, or whose key or id starts
with it: Group, g8, Group:acme/g. --type and --tenant narrow the list.`,
		Example: `  ward hierarchy find Group --tenant acme
  ward hierarchy find Group:acme/g
  ward hierarchy find dana --type User`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.Text = args[0]
			}
			if q.Text == "" && q.Type == "" && q.Tenant == "" {
				return failf(exitFailure, cmd.CommandPath()+" --help", "say what to find: a type, the start of a key or id, --type or --tenant")
			}
			when, err := t.when()
			if err != nil {
				return err
			}
			q.When, q.Live = when, !all
			facts, err := a.findFacts(cmd.Context(), "/v1/nodes", q)
			if err != nil {
				return err
			}
			return a.show(facts, func(w io.Writer) {
				for _, f := range facts {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", str(f, "id"), f.Fact, f.State, validity(f.Valid))
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&q.Type, "type", "", "only nodes of this `type`")
	f.StringVar(&q.Tenant, "tenant", "", "only nodes of this tenant, by its `key`")
	f.BoolVar(&all, "all", false, "also what has ended or has not begun")
	f.IntVar(&q.Limit, "limit", 0, "at most this many (default 100)")
	t.add(c)
	return c
}

func newDiffCommand(a *app) *cobra.Command {
	var q admin.DiffQuery
	var zone string
	c := &cobra.Command{
		Use:   "diff REVISION|TIME REVISION|TIME",
		Short: "Show what one revision knows and an earlier one does not",
		Long: `Lists the facts that were asserted, ended and voided after the first revision
and up to the second, by kind. A time stands for the last revision that was
known by then. What was asserted and voided in between is no difference. Exit
code 6 when there is one.`,
		Example: `  ward hierarchy diff 12 15
  ward hierarchy diff 2026-01-01 2026-02-01 --zone America/New_York -o json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, into := range []*admin.Known{&q.From, &q.To} {
				when, err := (&timeFlags{knownAt: args[i], zone: zone}).when()
				if err != nil {
					return invalid("15, 2026-12-31, or 2026-12-31T18:00:00Z", "the %s argument is no revision and no time", []string{"first", "second"}[i])
				}
				into.KnownAt, into.Revision = when.KnownAt, when.Revision
				if *into == (admin.Known{}) {
					return failf(exitFailure, cmd.CommandPath()+" --help", "each side is a revision or a time")
				}
			}
			client, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Diff
			if err := client.Post(cmd.Context(), "/v1/diff", q, &got); err != nil {
				return err
			}
			if got.Truncated {
				a.say("%d differences are listed, all are counted: raise --limit", len(got.Changes))
			}
			err = a.show(got, func(w io.Writer) {
				i := 0
				for _, k := range got.Kinds {
					fmt.Fprintf(w, "%s\t%d asserted, %d ended, %d voided\n", k.Kind, k.Asserted, k.Ended, k.Voided)
					for ; i < len(got.Changes) && got.Changes[i].Kind == k.Kind; i++ {
						d := &got.Changes[i]
						fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", d.Change, d.Fact.Fact, sentence(d.Fact), validity(d.Valid))
					}
				}
				if len(got.Kinds) == 0 {
					fmt.Fprintf(w, "revisions %d and %d know the same facts\n", got.From, got.To)
				}
			})
			if err == nil && len(got.Kinds) > 0 {
				return exit(exitDifference)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	f.IntVar(&q.Limit, "limit", 0, "list at most this many (default 1000)")
	return c
}

// sentence says a fact in a few words.
func sentence(f admin.Fact) string {
	part := func(names ...string) string {
		var out []string
		for _, n := range names {
			if s := str(f, n); s != "" {
				out = append(out, s)
			}
		}
		return strings.Join(out, " ")
	}
	switch f.Kind {
	case "node":
		return part("id")
	case "edge":
		return part("child", "kind", "parent")
	case "link":
		if str(f, "kind") == string(hierarchy.LinkIdentity) {
			return part("kind", "issuer", "sub", "to")
		}
		return part("kind", "from", "to")
	case "role":
		return part("name", "capabilities", "includes")
	case "assignment":
		return part("principal", "role", "node")
	case "entitlement":
		return part("tenant", "name")
	case "grant":
		return part("id", "type", "grantee") + " for " + part("subject")
	case "block":
		return part("principal") + " from " + part("person", "basis")
	case "activation":
		return strings.TrimSpace(part("name", "tenant") + " " + short(str(f, "digest")))
	}
	return ""
}
