package cli

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/pdp"
)

func newPolicyCommand(a *app) *cobra.Command {
	return group("policy", "Policy sets: check, test, compare, activate, look at",
		"  ward policy check ./pack && ward policy test ./pack\n  ward policy activate ./pack --why \"broker rule\" --ticket CH-16",
		newPolicyCheckCommand(a), newPolicyTestCommand(a), newPolicyDiffCommand(a), newPolicyActivateCommand(a), newPolicyRollbackCommand(a),
		newPolicyListCommand(a), newPolicyShowCommand(a), newPolicyOverlayCommand(a))
}

func newPolicyCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "check DIR",
		Short:   "Compile a policy set and print every finding",
		Long:    "Prints findings as file:line:column: code: text. Exit code 3 when there are any.",
		Example: "  ward policy check ./pack\n  ward policy check pbm -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			out := struct {
				Digest   string    `json:"digest,omitempty"`
				Name     string    `json:"name,omitempty"`
				Policies int       `json:"policies"`
				Tests    int       `json:"tests"`
				Findings []finding `json:"findings"`
			}{Findings: []finding{}}
			set, err := a.compile(args[0])
			if err == nil {
				out.Digest, out.Name, out.Policies, out.Tests = set.Digest(), set.Name(), len(set.Policies()), len(set.Cases())
				return a.show(out, func(w io.Writer) {
					fmt.Fprintf(w, "%s\t%s\t%d policies\t%d tests\n", out.Name, out.Digest, out.Policies, out.Tests)
				})
			}
			bad, ok := err.(*invalidSet)
			if !ok {
				return err
			}
			out.Findings = bad.list()
			return a.showFindings(out, out.Findings)
		},
	}
}

// list is the findings as they are shown, with the folder before each file.
func (e *invalidSet) list() []finding {
	var out []finding
	for _, f := range e.Findings {
		out = append(out, finding{e.prefix + "/" + f.File, f.Line, f.Column, f.Code, f.Text})
	}
	return out
}

// showFindings prints findings, which v holds, and fails.
func (a *app) showFindings(v any, findings []finding) error {
	if err := a.show(v, func(w io.Writer) {
		for _, f := range findings {
			fmt.Fprintf(w, "%s:%d:%d: %s: %s\n", f.File, f.Line, f.Column, f.Code, f.Text)
		}
	}); err != nil {
		return err
	}
	return failf(exitInvalid, "", "%d findings", len(findings))
}

type finding struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Code   string `json:"code"`
	Text   string `json:"text"`
}

func newPolicyTestCommand(a *app) *cobra.Command {
	var mutate bool
	var least float64
	c := &cobra.Command{
		Use:   "test DIR",
		Short: "Run a policy set's own tests",
		Long: `Prints the tests that fail. Exit code 5 when there are any, 3 when the set does
not compile.

With --mutate each policy, @obligation, clause and part of one is dropped, and
each operator and effect flipped, one at a time: what no test notices is listed.
A change that makes the policy invalid counts nowhere.`,
		Example: "  ward policy test ./pack\n  ward policy test ./pack --mutate --min-score 95\n  ward policy test pbm -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !mutate && cmd.Flags().Changed("min-score") {
				return failf(exitFailure, "", "--min-score needs --mutate")
			}
			if !(least >= 0 && least <= 100) {
				return failf(exitFailure, "", "--min-score is a percentage, 0 to 100")
			}
			set, err := a.compile(args[0])
			if err != nil {
				return err
			}
			failures, err := pdp.RunTests(set)
			if err != nil {
				return invalid("", "the policy tests cannot be run: %s", err)
			}
			out := struct {
				Tests    int               `json:"tests"`
				Failures []pdp.TestFailure `json:"failures"`
				Mutation *mutation         `json:"mutation,omitempty"`
			}{Tests: len(set.Cases()), Failures: failures}
			if out.Failures == nil {
				out.Failures = []pdp.TestFailure{}
			}
			if mutate && len(failures) == 0 {
				a.say("changing %d parts of the policies, one at a time", len(set.Mutants()))
				score, err := pdp.Mutate(cmd.Context(), set)
				if err != nil {
					return err
				}
				// Rounded down: what is shown as 95 is at least that.
				out.Mutation = &mutation{math.Floor(score.Percent()*10) / 10, score}
			}
			prefix := strings.TrimSuffix(args[0], "/")
			err = a.show(out, func(w io.Writer) {
				for _, f := range failures {
					fmt.Fprintf(w, "%s/%s\n", prefix, f)
				}
				fmt.Fprintf(w, "%d of %d tests passed\n", out.Tests-len(failures), out.Tests)
				if m := out.Mutation; m != nil {
					for _, s := range m.Survivors {
						fmt.Fprintf(w, "%s\t%s/%s:%d\t%s\n", s.Policy, prefix, s.File, s.Line, s.Change)
					}
					fmt.Fprintf(w, "%.1f %%: the tests notice %d of %d changes; %d more are no valid policy\n", m.Percentage, m.Killed, m.Mutants, m.Refused)
				}
			})
			switch {
			case err != nil:
				return err
			case len(failures) > 0:
				return failf(exitTestsFailed, "", "%d of %d policy tests failed", len(failures), out.Tests)
			case out.Mutation != nil && out.Mutation.Percent() < least:
				return failf(exitTestsFailed, "", "the tests notice %.1f %% of the changes, less than %g", out.Mutation.Percentage, least)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&mutate, "mutate", false, "also list what no test notices when it is dropped or flipped")
	c.Flags().Float64Var(&least, "min-score", 0, "with --mutate, fail below this `percentage` of changes noticed")
	return c
}

// mutation is how policy test shows a score.
type mutation struct {
	Percentage float64 `json:"score"`
	pdp.Score
}

func newPolicyActivateCommand(a *app) *cobra.Command {
	var r reasonFlags
	c := &cobra.Command{
		Use:     "activate DIR|pbm",
		Short:   "Put a policy set in force",
		Long:    "Compiles and tests the set, stores it under its digest, and puts it in force as one change. A set with a finding or a failing test is refused.",
		Example: "  ward policy activate ./pack --why \"broker rule\" --ticket CH-16\n  ward policy activate pbm",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := a.compile(args[0])
			if err != nil {
				return err
			}
			if err := a.runTests(set, args[0]); err != nil {
				return err
			}
			client, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var done admin.Activated
			if err := client.Post(cmd.Context(), "/v1/activate", admin.Activation{Archive: set.Archive(), Reason: r.Reason}, &done); err != nil {
				return err
			}
			return a.showActivated(done)
		},
	}
	r.add(c)
	return c
}

func newPolicyListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the policy sets, and the tenants' overlays, that were ever in force",
		Example: "  ward policy list\n  ward policy list -o ndjson",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.PolicySets
			if err := c.Get(cmd.Context(), "/v1/policies", &got); err != nil {
				return err
			}
			return a.show(got.Sets, func(w io.Writer) {
				for _, s := range got.Sets {
					mark := ""
					if s.Active {
						mark = "in force"
					}
					name := s.Name
					if s.Tenant != "" {
						name = "overlay " + s.Tenant
						if s.Digest == "" {
							mark = "removed"
						}
					}
					fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Revision, name, short(s.Digest), s.At, s.Who, mark, s.Why)
				}
			})
		},
	}
}

func newPolicyShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show [DIGEST|REVISION]", Short: "Show the policies of a set, by default the one in force",
		Long:    "A set is named by the start of its digest, or by a revision at which it was in force.",
		Example: "  ward policy show\n  ward policy show sha256:1f3a9b\n  ward policy show 12 -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var q admin.ShowPolicies
			if len(args) == 1 {
				var err error
				if q, err = setNamed(args[0]); err != nil {
					return err
				}
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Policies
			if err := c.Post(cmd.Context(), "/v1/policies/show", q, &got); err != nil {
				return err
			}
			return a.show(got, func(w io.Writer) {
				fmt.Fprintf(w, "%s\t%s\n", got.Name, got.Digest)
				policyRows(w, got.Policies)
			})
		},
	}
}

func policyRows(w io.Writer, list []admin.Policy) {
	for _, p := range list {
		duties := obligations(p.Obligations)
		if duties != "" {
			duties = "must " + duties
		}
		fmt.Fprintf(w, "%s\t%s\t%s:%d\t%s\n", p.Effect, p.ID, p.File, p.Line, duties)
	}
}

// setNamed reads the start of a digest, or a revision.
func setNamed(s string) (q admin.ShowPolicies, err error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil && n > 0 && len(s) < 6 {
		q.Revision = n
	} else if q.Digest = s; len(strings.TrimPrefix(s, "sha256:")) < 6 || strings.Trim(strings.TrimPrefix(s, "sha256:"), "0123456789abcdef") != "" {
		return q, failf(exitFailure, "ward policy list shows digests", "give at least six digits of a digest, or a revision")
	}
	return q, nil
}
