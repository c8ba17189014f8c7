// Package cli is the ward command: every subcommand, the server included, and
// the only place that wires stores, ledgers, the decision point and its doors
// together.
//
//	func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
//
// A command that asks or changes something goes through the admin door: of the
// server whose socket answers, or of the same kernel opened in this process on
// the data folder. `ward replay` and `ward audit show|verify|export` read evidence
// themselves, from the folders, or beside a server from a copy that it hands out;
// with --ledger and --keys they and `ward audit find|tail` read the files named.
//
// # Compatibility
//
// Exit codes, the names of commands and flags, and the members of -o json,
// ndjson and yaml are append-only. Tables are for people and may change.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/hierarchy"
)

// Main runs one command and returns the exit code of the process.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv}).main(args)
}

// main runs one command.
func (a *app) main(args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(context.Background())
	if cerr := a.close(); err == nil {
		err = cerr
	}
	if err == nil {
		return exitOK
	}
	code, text, hint := explainError(err)
	if text != "" {
		fmt.Fprintf(a.stderr, "ward: %s\n", text)
	}
	if hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint)
	}
	return code
}

// app is what the commands of one run share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	configPath, data, socket string // global flags
	output, color            string
	quiet                    bool

	clock  func() time.Time                            // of the demonstration; nil is the machine's
	space  func(string) (free, size uint64, err error) // of a disk; nil is the machine's
	cfg    *config
	kernel *kernel // opened when no server answers
}

func (a *app) close() error {
	if a.kernel == nil {
		return nil
	}
	err := a.kernel.close()
	a.kernel = nil
	return err
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "ward",
		Short: "Authorization server for healthcare: decides, explains and proves who may see what",
		Long: `Ward answers one question the same way at every door: may this subject do this
action on this resource, now, acting for whom, and why.

Exit codes: 0 ok or allow, 1 failure or usage, 2 deny, 3 invalid policy, schema
or input, 4 indeterminate or shredded, 5 policy tests failed, 6 difference
found, 7 integrity failure.`,
		Example: `  ward init --admin ana=1000
  ward serve
  ward can user:dana claim.view claim:c1 --with coverage=Coverage:acme/cov1`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch a.output {
			case "table", "json", "ndjson", "yaml":
			case "csv":
				if cmd.Annotations["csv"] == "" {
					return failf(exitFailure, "one of table, json, ndjson, yaml", "this command has no csv output")
				}
			default:
				return failf(exitFailure, "one of table, json, ndjson, yaml", "unknown output %q", a.output)
			}
			switch a.color {
			case "auto", "always", "never":
			default:
				return failf(exitFailure, "one of auto, always, never", "unknown color mode %q", a.color)
			}
			// Here for all commands: whoever misspells it, it is not the date that is wrong.
			if f := cmd.Flags().Lookup("zone"); f != nil && f.Value.String() != "" {
				if _, err := hierarchy.Zone(f.Value.String()); err != nil {
					return invalid("a name of the IANA database, such as America/New_York or UTC", "--zone: %s", err)
				}
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.configPath, "config", "", "configuration `file` (default $WARD_CONFIG, else ./ward.yaml)")
	f.StringVar(&a.data, "data", "", "data `folder`, instead of the configuration's")
	f.StringVar(&a.socket, "socket", "", "admin `socket` of the server, instead of the configuration's")
	f.StringVarP(&a.output, "output", "o", "table", "table, json, ndjson or yaml; csv of some")
	f.BoolVar(&a.quiet, "quiet", false, "no progress and no remarks on stderr")
	f.StringVar(&a.color, "color", "auto", "auto, always or never")

	add := func(cs ...*cobra.Command) {
		for _, c := range cs {
			if c != nil {
				root.AddCommand(c)
			}
		}
	}
	add(newInitCommand(a), newServeCommand(a), newStatusCommand(a), newDoctorCommand(a), newDemoCommand(a))
	add(newCanCommand(a), newWhatCommand(a), newWhoCommand(a), newExplainCommand(a), newReplayCommand(a))
	add(newHierarchyCommand(a), newRoleCommand(a), newModuleCommand(a), newSettingCommand(a), newGrantCommand(a), newLinkCommand(a), newEmergencyCommand(a))
	add(newPolicyCommand(a), newAuditCommand(a), newWitnessCommand(a), newVersionCommand(a), newCompletionCommand(root))
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true, Example: "  ward --help"})
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return failf(exitFailure, cmd.CommandPath()+" --help", "%s", err)
	})
	usage(root)
	return root
}

// usage turns cobra's complaints about arguments into ours.
func usage(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var f *failure
			if err == nil || errors.As(err, &f) {
				return err
			}
			text := strings.SplitN(err.Error(), "\n", 2)[0]
			return failf(exitFailure, cmd.CommandPath()+" --help", "%s", lowerFirst(text))
		}
	}
	for _, sub := range c.Commands() {
		usage(sub)
	}
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// group is a command that only holds others.
func group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, s := range subs {
		if s != nil {
			c.AddCommand(s)
		}
	}
	return c
}

// Version of the program; the build sets it.
var Version = "dev"

func version() string {
	if Version != "dev" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}
	return Version
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version",
		Example: "  ward version\n  ward version -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
			}{version()}
			return a.show(v, func(w io.Writer) { fmt.Fprintf(w, "ward %s\n", v.Version) })
		},
	}
}

func newCompletionCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print a completion script for a shell",
		Example:   "  source <(ward completion bash)\n  ward completion zsh > \"${fpath[1]}/_ward\"",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(cmd.OutOrStdout(), true)
			case "zsh":
				return root.GenZshCompletion(cmd.OutOrStdout())
			}
			return root.GenFishCompletion(cmd.OutOrStdout(), true)
		},
	}
}
