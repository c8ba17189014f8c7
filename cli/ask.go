package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
)

func itoa[T uint64 | int](n T) string { return fmt.Sprint(n) }

// rows writes pairs of a name and a value.
func rows(w io.Writer, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(w, "%s\t%s\n", pairs[i], pairs[i+1])
	}
}

// timeFlags are --at, --known-at and --zone.
type timeFlags struct{ at, knownAt, zone string }

func (t *timeFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&t.at, "at", "", "`time` that it is asked for: RFC 3339, or a date in --zone (default now)")
	f.StringVar(&t.knownAt, "known-at", "", "what ward knew by a `time`, or at a revision (default all)")
	f.StringVar(&t.zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
}

func (t *timeFlags) when() (admin.When, error) {
	var w admin.When
	if t.at != "" {
		at, err := pointInTime("--at", t.at, t.zone, false)
		if err != nil {
			return w, err
		}
		w.At = at
	}
	if t.knownAt == "" {
		return w, nil
	}
	if n, err := strconv.ParseUint(t.knownAt, 10, 64); err == nil {
		if n == 0 {
			return w, invalid("the first revision is 1", "there is no revision 0")
		}
		w.Revision = n
		return w, nil
	}
	at, err := pointInTime("--known-at", t.knownAt, t.zone, false)
	w.KnownAt = at
	return w, err
}

func pointInTime(flag, text, zone string, inclusive bool) (admin.Time, error) {
	at, err := pdp.ParseTime(text, zone, inclusive)
	if err != nil {
		return admin.Time{}, invalid("2026-12-31, or 2026-12-31T18:00:00Z", "%s: %s", flag, err)
	}
	return admin.TimeOf(at), nil
}

// span are --from and --to of a fact.
type span struct{ from, to, zone string }

func (s *span) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.from, "from", "", "when it begins: RFC 3339, or a date in --zone (default: always was)")
	f.StringVar(&s.to, "to", "", "when it ends; a date includes its day (default: never)")
	f.StringVar(&s.zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
}

// into checks the dates here, where they can be named, and sets them.
func (s *span) into(fields map[string]any, from, to string) error {
	v := hierarchy.Always
	var err error
	if s.from != "" {
		if v.From, err = pdp.ParseTime(s.from, s.zone, false); err != nil {
			return invalid("2026-01-01, or 2026-01-01T00:00:00Z", "--from: %s", err)
		}
		fields[from] = v.From.String()
	}
	if s.to != "" {
		if v.To, err = pdp.ParseTime(s.to, s.zone, true); err != nil {
			return invalid("2026-12-31, or 2026-12-31T18:00:00Z", "--to: %s", err)
		}
		fields[to] = v.To.String()
	}
	if v.To <= v.From {
		return reversed()
	}
	return nil
}

func reversed() error {
	return invalid("a date as --to includes that day", "--to lies at or before --from")
}

// value reads what follows "name=": null, true, false, a whole number, or text.
func value(s string) any {
	switch s {
	case "null":
		return nil
	case "true":
		return true
	case "false":
		return false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
		return n
	}
	return s
}

func values(flag string, list []string) (map[string]any, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := map[string]any{}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, failf(exitFailure, "such as --"+flag+" name=value", "--%s takes NAME=VALUE", flag)
		}
		if _, twice := out[k]; twice {
			return nil, failf(exitFailure, "", "--%s %s is given twice", flag, k)
		}
		out[k] = value(v)
	}
	return out, nil
}

func entity(what, s string) (admin.Entity, error) {
	typ, id, ok := strings.Cut(s, ":")
	if !ok || typ == "" || id == "" {
		return admin.Entity{}, failf(exitFailure, "such as user:dana, or claim:c1", "the %s is TYPE:ID", what)
	}
	return admin.Entity{Type: typ, ID: id}, nil
}

func newCanCommand(a *app) *cobra.Command {
	var t timeFlags
	var with, context, subjectWith, actionWith []string
	var area, grant, caller, issuer string
	var assurance int
	var explain bool
	c := &cobra.Command{
		Use:     "can SUBJECT ACTION RESOURCE",
		Aliases: []string{"decide"},
		Short:   "Ask whether a subject may do an action on a resource",
		Long: `Asks the question that a module would ask, now or at another time, as Ward
knows it now or knew it then. It is an inquiry: it is recorded, and enforces
nothing. What only an authority may send counts as if the authority had sent it.

Values are null, true, false, whole numbers, or else text. Exit code 0 is
allow, 2 deny, 4 indeterminate.`,
		Example: `  ward can user:dana claim.view claim:c1 --with coverage=Coverage:acme/cov1 --with pharmacy=null
  ward can user:dana feature.see feature:claims.export --area Tenant:acme --explain
  ward can user:mia lab.view lab:l1 --with patient=Patient:acme/p1 --grant g-1 --at 2026-12-01 --known-at 41`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := admin.Question{Action: admin.Action{Name: args[1]}, Area: area, Grant: grant, Caller: caller}
			var err error
			if q.Subject.Entity, err = entity("subject", args[0]); err != nil {
				return err
			}
			q.Subject.Issuer, q.Subject.Assurance = issuer, assurance
			if q.Resource, err = entity("resource", args[2]); err != nil {
				return err
			}
			for _, p := range []struct {
				flag string
				list []string
				into *map[string]any
			}{{"with", with, &q.Resource.Properties}, {"context", context, &q.Context},
				{"subject-with", subjectWith, &q.Subject.Properties}, {"action-with", actionWith, &q.Action.Properties}} {
				if *p.into, err = values(p.flag, p.list); err != nil {
					return err
				}
			}
			when, err := t.when()
			if err != nil {
				return err
			}
			return a.can(cmd.Context(), admin.Ask{Requests: []admin.Question{q}, When: when, Explain: explain})
		},
	}
	f := c.Flags()
	f.StringArrayVar(&with, "with", nil, "an anchor or attribute of the resource, `name=value`; may be given again")
	f.StringArrayVar(&context, "context", nil, "an attribute of the context, `name=value`")
	f.StringArrayVar(&subjectWith, "subject-with", nil, "an attribute of the subject, `name=value`")
	f.StringArrayVar(&actionWith, "action-with", nil, "an attribute of the action, `name=value`")
	f.StringVar(&area, "area", "", "the `node` that narrows a question about a feature or route, such as Tenant:acme")
	f.StringVar(&grant, "grant", "", "only this grant `id`, or none")
	f.StringVar(&caller, "caller", "", "`name` of the program that would ask (default: an authority of the resource)")
	f.StringVar(&issuer, "issuer", "", "token `issuer`: the subject's id is then its sub")
	f.IntVar(&assurance, "assurance", 2, "assurance level of the subject, 0 to 3")
	f.BoolVar(&explain, "explain", false, "say why")
	t.add(c)
	return c
}

// canAnswer is the -o json of `ward can`.
type canAnswer struct {
	admin.Answer
	Record   string     `json:"record"`
	At       admin.Time `json:"at"`
	Revision uint64     `json:"revision"`
	Set      string     `json:"set"`
}

func (a *app) can(ctx context.Context, q admin.Ask) error {
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	var all admin.Answers
	if err := c.Post(ctx, "/v1/ask", q, &all); err != nil {
		return err
	}
	if len(all.Answers) != 1 {
		return failf(exitFailure, "", "the server's answer is not what this version expects")
	}
	out := canAnswer{all.Answers[0], all.Record, all.At, all.Revision, all.Set}
	err = a.show(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %s  %s\n", upper(out.Decision), out.Code, out.Record)
		answerRows(w, &out.Answer)
		rows(w, "at", out.At.String(), "revision", itoa(out.Revision))
	})
	if err != nil {
		return err
	}
	return exit(verdictCode(&out.Answer))
}

func verdictCode(v *admin.Answer) int {
	switch {
	case v.Decision == "allow":
		return exitOK
	case v.Code == authz.Indeterminate:
		return exitIndeterminate
	}
	return exitDeny
}

// answerRows writes what an answer holds beside its decision.
func answerRows(w io.Writer, v *admin.Answer) {
	list := func(name string, items []string) {
		if len(items) > 0 {
			rows(w, name, strings.Join(items, ", "))
		}
	}
	list("policies", v.Reasons)
	list("errors", v.Errors)
	if v.Cedar != "" {
		rows(w, "cedar alone", v.Cedar)
	}
	if v.Grant != "" {
		rows(w, "grant", v.Grant)
	}
	list("areas", v.Areas)
	if len(v.Obligations) > 0 {
		rows(w, "obligations", obligations(v.Obligations))
	}
	if len(v.Advice) > 0 {
		rows(w, "advice", obligations(v.Advice))
	}
	if !v.ValidUntil.IsZero() {
		rows(w, "valid until", v.ValidUntil.String())
	}
	if v.Why == nil {
		return
	}
	for _, f := range v.Why.Facts {
		rows(w, "because", f.Text+aside(f))
	}
	for _, m := range v.Why.Missing {
		rows(w, "missing", m)
	}
	for _, p := range v.Why.Policies {
		attempt := ""
		if p.Attempt != "" {
			attempt = "  (" + p.Attempt + ")"
		}
		fmt.Fprintf(w, "%s\t%s: %s  %s:%d%s\n", p.Effect, p.ID, p.Result, p.File, p.Line, attempt)
		for _, c := range p.Clauses {
			fmt.Fprintf(w, "\t  %s  %s\n", mark(c.Value), strings.Join(strings.Fields(c.Text), " "))
		}
	}
}

// aside names a fact and its time.
func aside(f admin.Because) string {
	var parts []string
	if f.Fact != "" {
		parts = append(parts, f.Fact)
	}
	if f.Valid != (admin.Interval{}) {
		parts = append(parts, validity(f.Valid))
	}
	if len(parts) == 0 {
		return ""
	}
	return "  (" + strings.Join(parts, ", ") + ")"
}

func mark(value string) string {
	switch value {
	case "true":
		return "✓"
	case "false":
		return "✗"
	case "error":
		return "!"
	}
	return "·"
}

func newWhatCommand(a *app) *cobra.Command {
	var t timeFlags
	var area, issuer string
	var assurance int
	var all bool
	c := &cobra.Command{
		Use:   "what SUBJECT",
		Short: "List the features and routes that a subject sees and calls",
		Long: `Asks about every feature and every route of the policy set, in one area or in
each area where the subject stands. It is an inquiry and recorded as one. Exit
code 2 when ward knows no such principal.`,
		Example: "  ward what user:dana\n  ward what user:dana --area Tenant:acme --all",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := entity("subject", args[0])
			if err != nil {
				return err
			}
			when, err := t.when()
			if err != nil {
				return err
			}
			client, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Sights
			if err := client.Post(cmd.Context(), "/v1/what", admin.What{Subject: admin.Subject{Entity: e, Issuer: issuer, Assurance: assurance}, Area: area, When: when}, &got); err != nil {
				return err
			}
			kept, known := []admin.Sight{}, len(got.Items) == 0
			for _, it := range got.Items {
				known = known || it.Code != authz.UnknownSubject && it.Code != authz.SubjectUnlinked
				if all || it.Decision == "allow" {
					kept = append(kept, it)
				}
			}
			if known {
				a.say("%d of %d at revision %d, record %s", len(kept), len(got.Items), got.Revision, got.Record)
			}
			err = a.show(kept, func(w io.Writer) {
				for _, it := range kept {
					until := ""
					if !it.ValidUntil.IsZero() {
						until = "until " + it.ValidUntil.String()
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", upper(it.Decision), it.Name, it.Code, strings.Join(it.Areas, " "), until)
				}
			})
			if err == nil && !known {
				return failf(exitDeny, "ward hierarchy show User:ID; with --issuer the subject is a token's", "%s: ward knew no such principal then (record %s)", got.Items[0].Code, got.Record)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&area, "area", "", "only in this `node`, such as Tenant:acme")
	f.StringVar(&issuer, "issuer", "", "token `issuer`: the subject's id is then its sub")
	f.IntVar(&assurance, "assurance", 2, "assurance level of the subject, 0 to 3")
	f.BoolVar(&all, "all", false, "also what is denied")
	t.add(c)
	return c
}

func newExplainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain RECORD",
		Short: "Say why a recorded answer was what it was",
		Long: `Derives a recorded answer again from what it was made of, and says which
policies and facts decided, or what was missing.`,
		Example: "  ward explain a-1042\n  ward explain a-1042 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := parseRecord(args[0]); err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Explained
			if err := c.Get(cmd.Context(), "/v1/explain/"+args[0], &got); err != nil {
				return err
			}
			return a.show(got, func(w io.Writer) {
				if len(got.Items) == 0 {
					fmt.Fprintf(w, "%s holds no question\n", got.Record)
				}
				for i := range got.Items {
					it := &got.Items[i]
					fmt.Fprintf(w, "%s  %s  %s  %s\n", upper(it.Decision), it.Code, got.Record, got.Kind)
					rows(w, "subject", it.Subject, "action", it.Action, "resource", it.Resource)
					if it.Caller != "" {
						rows(w, "caller", it.Caller)
					}
					answerRows(w, &it.Answer)
					rows(w, "at", it.At.String(), "revision", itoa(it.Revision), "policy set", short(it.Set))
				}
			})
		},
	}
}
