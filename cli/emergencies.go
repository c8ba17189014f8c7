package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/pdp"
)

func newEmergencyCommand(a *app) *cobra.Command {
	return group("emergency", "Accesses that people opened for themselves: break glass",
		"  ward emergency list --unreviewed\n  ward emergency show e-qb3k7fh2mdx5ta4z",
		newEmergencyListCommand(a), newEmergencyShowCommand(a))
}

func newEmergencyListCommand(a *app) *cobra.Command {
	var t timeFlags
	var q admin.EmergencyQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List emergencies",
		Long: `Lists the emergencies that were ever opened, with their reviews. Administrators
look on: who may open, end and review one is the policy set's to say, and people
do it through their portal.`,
		Example: `  ward emergency list --open
  ward emergency list --unreviewed --principal user:kim
  ward emergency list --person Person:leo -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.When, err = t.when(); err != nil {
				return err
			}
			list, err := a.emergencies(cmd, q)
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) {
				for _, e := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s for %s at %s\t%s\t%s\n", str(e.Fact, "id"), e.State, str(e.Fact, "reason"),
						str(e.Fact, "principal"), str(e.Fact, "person"), str(e.Fact, "node"), validity(e.Valid), reviewed(e))
				}
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&q.Open, "open", false, "only those that are open")
	f.BoolVar(&q.Unreviewed, "unreviewed", false, "only those that wait for their review")
	f.StringVar(&q.Person, "person", "", "only those about this `person`, by any identity merged with it")
	f.StringVar(&q.Principal, "principal", "", "only those of this `principal`, such as user:kim")
	f.IntVar(&q.Limit, "limit", 0, "at most this many (default 1000)")
	t.add(c)
	return c
}

// emergencies asks for emergencies, and says when the list was cut.
func (a *app) emergencies(cmd *cobra.Command, q admin.EmergencyQuery) ([]admin.Emergency, error) {
	c, err := a.client(cmd.Context())
	if err != nil {
		return nil, err
	}
	var got admin.EmergencyList
	if err := c.Post(cmd.Context(), "/v1/emergencies", q, &got); err != nil {
		return nil, err
	}
	if got.Truncated {
		a.say("there are more: narrow the list, or raise --limit")
	}
	return got.Emergencies, nil
}

// reviewed says what came of an emergency.
func reviewed(e admin.Emergency) string {
	if e.Review == nil {
		return "not reviewed"
	}
	return fmt.Sprintf("%s by %s", str(*e.Review, "outcome"), str(*e.Review, "by"))
}

func newEmergencyShowCommand(a *app) *cobra.Command {
	var t timeFlags
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show an emergency, its review, and what it permitted",
		Long: `Shows an emergency, who reviewed it and how, and the records that it permitted:
the latest 10,000 of them. ward explain RECORD says what each was.`,
		Example: "  ward emergency show e-qb3k7fh2mdx5ta4z\n  ward emergency show e-qb3k7fh2mdx5ta4z -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := t.when()
			if err != nil {
				return err
			}
			list, err := a.emergencies(cmd, admin.EmergencyQuery{ID: args[0], When: when})
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return invalid("ward emergency list", "there is no such emergency")
			}
			e := list[0]
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var found admin.Found
			if err := c.Post(cmd.Context(), "/v1/audit/find", admin.Find{Emergency: args[0], Limit: 10_000}, &found); err != nil {
				return err
			}
			if found.Truncated {
				a.say("it permitted more: ward audit find --emergency with --to finds earlier ones")
			}
			out := struct {
				admin.Emergency
				Records []pdp.Line `json:"records"`
			}{e, found.Records}
			return a.show(out, func(w io.Writer) {
				rows(w, "emergency", str(e.Fact, "id"), "state", e.State, "principal", str(e.Fact, "principal"), "person", str(e.Fact, "person"), "node", str(e.Fact, "node"))
				for _, name := range []string{"reason", "text", "ticket"} {
					if v := str(e.Fact, name); v != "" {
						rows(w, name, v)
					}
				}
				rows(w, "valid", validity(e.Valid), "fact", e.Fact.Fact, "review", reviewed(e))
				if r := e.Review; r != nil {
					rows(w, "reviewed", r.Valid.From.String())
					if text := str(*r, "text"); text != "" {
						rows(w, "finding", text)
					}
				}
				rows(w, "permitted", fmt.Sprintf("%d records", len(found.Records)))
				for _, l := range found.Records {
					writeLine(w, l)
				}
			})
		},
	}
	t.add(c)
	return c
}
