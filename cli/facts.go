package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

// reasonFlags are --why and --ticket of a change.
type reasonFlags struct{ admin.Reason }

func (r *reasonFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&r.Why, "why", "", "the `reason`, kept with the change")
	c.Flags().StringVar(&r.Ticket, "ticket", "", "the change `ticket`, kept with the change")
}

// change makes one change and says what it became.
func (a *app) change(ctx context.Context, r reasonFlags, events []admin.Event, note string) error {
	done, err := a.doChange(ctx, r, events)
	if err != nil {
		return err
	}
	return a.showChange(done, note)
}

func (a *app) doChange(ctx context.Context, r reasonFlags, events []admin.Event) (admin.Changed, error) {
	var done admin.Changed
	c, err := a.client(ctx)
	if err != nil {
		return done, err
	}
	err = c.Post(ctx, "/v1/change", admin.Change{Events: events, Reason: r.Reason}, &done)
	return done, err
}

func (a *app) showChange(done admin.Changed, note string) error {
	return a.show(done, func(w io.Writer) {
		fmt.Fprintf(w, "%s\trevision %d\trecord %s\n", note, done.Revision, done.Record)
		if len(done.Facts) > 0 && len(done.Facts) <= 20 {
			rows(w, "facts", strings.Join(done.Facts, " "))
		}
	})
}

// listFacts lists facts of a kind.
func (a *app) listFacts(ctx context.Context, q admin.Facts) ([]admin.Fact, error) {
	c, err := a.client(ctx)
	if err != nil {
		return nil, err
	}
	var got admin.FactList
	if err := c.Post(ctx, "/v1/facts", q, &got); err != nil {
		return nil, err
	}
	if got.Truncated {
		a.say("there are more: narrow the list, or raise --limit")
	}
	return got.Facts, nil
}

// str returns a member of a fact as text.
func str(f admin.Fact, name string) string {
	switch v := f.Value[name].(type) {
	case nil:
		return ""
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
		return strings.Join(out, ",")
	default:
		return fmt.Sprint(v)
	}
}

func factTime(f admin.Fact) string {
	if e := f.Effective; e != nil {
		if e.From == e.To && !e.From.IsZero() {
			return "never"
		}
		return validity(*e)
	}
	return validity(f.Valid)
}

// node checks an id here, where it can be named in the error.
func node(what, s string) (hierarchy.ID, error) {
	id, err := hierarchy.ParseID(s)
	if err != nil {
		return id, invalid("such as Group:acme/g8, Pharmacy:p1 or User:dana", "the %s is no id: %s", what, err)
	}
	return id, nil
}

// endEvent ends or voids a fact.
func endEvent(fact, to, zone string, void bool) (admin.Event, error) {
	if _, err := hierarchy.ParseFactID(fact); err != nil {
		return admin.Event{}, invalid("such as f12.3; the list commands show them", "%s", err)
	}
	if void {
		if to != "" {
			return admin.Event{}, failf(exitFailure, "end closes a fact at a time", "what was never true has no --to")
		}
		return admin.Event{Void: fact}, nil
	}
	e := admin.Event{End: fact}
	if to != "" {
		at, err := pointInTime("--to", to, zone, true)
		if err != nil {
			return e, err
		}
		e.At = at
	}
	return e, nil
}

func newHierarchyCommand(a *app) *cobra.Command {
	return group("hierarchy", "Nodes, edges and other facts",
		"  ward hierarchy show Group:acme/g8\n  ward hierarchy apply facts.yaml --why \"new client\" --ticket CH-12",
		newImportCommand(a), newApplyCommand(a), newShowCommand(a), newPathCommand(a), newFindCommand(a), newDiffCommand(a),
		newEndCommand(a, false), newEndCommand(a, true))
}

func newApplyCommand(a *app) *cobra.Command {
	var r reasonFlags
	var zone string
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Add the facts of a file, as one change",
		Long: `Reads a YAML list of facts, written as in policy tests, and adds them in one
change: all of them, or none. A file named - is stdin. Times are RFC 3339, or
dates in --zone; a date as the end includes its day.

  - node: {id: "Tenant:acme"}
  - edge: {child: "Tenant:acme", kind: operatedBy, parent: "Operator:pbm"}
  - assignment: {principal: "User:dana", role: broker, node: "Group:acme/g8", to: 2026-12-31}`,
		Example: "  ward hierarchy apply facts.yaml --why \"new client\" --ticket CH-12\n  ward hierarchy apply - --zone America/New_York < facts.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readInput(args[0])
			if err != nil {
				return err
			}
			events, err := readFacts(args[0], text, zone)
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), r, events, fmt.Sprintf("%d facts added", len(events)))
		},
	}
	c.Flags().StringVar(&zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	r.add(c)
	return c
}

// maxInput bounds a file that is read whole.
const maxInput = 16 << 20

func (a *app) readInput(path string) ([]byte, error) {
	var from io.Reader = a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, failf(exitFailure, "", "%s cannot be read: %s", path, cause(err))
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = invalid("split it, or use ward hierarchy import", "%s is larger than %d bytes", path, maxInput)
	}
	return text, err
}

// readFacts reads a list of facts strictly.
func readFacts(path string, text []byte, zone string) ([]admin.Event, error) {
	r := &reader{path: path}
	root := r.document(text)
	if r.err != nil {
		return nil, r.err
	}
	if root.Kind == yaml.MappingNode && len(root.Content) == 2 && root.Content[0].Value == "facts" {
		root = root.Content[1]
	}
	if root.Kind != yaml.SequenceNode {
		r.fail(root, "want a list of facts, each {KIND: {…}}")
		return nil, r.err
	}
	var out []admin.Event
	for _, item := range root.Content {
		if item.Kind != yaml.MappingNode || len(item.Content) != 2 || item.Content[1].Kind != yaml.MappingNode {
			r.fail(item, "a fact is a map with one key, its kind: {node: {…}}")
			return nil, r.err
		}
		kind := item.Content[0].Value
		fields, _ := r.plain(item.Content[1], 0).(map[string]any)
		if r.err != nil {
			return nil, r.err
		}
		if _, err := pdp.EventOf(kind, fields, zone); err != nil {
			r.fail(item, "%s", strings.TrimPrefix(strings.ReplaceAll(err.Error(), "json: ", ""), "hierarchy: "))
			return nil, r.err
		}
		out = append(out, admin.Event{Assert: kind, Fields: fields, Zone: zone, Row: item.Line})
	}
	if len(out) == 0 {
		r.fail(root, "the list is empty")
	}
	return out, r.err
}

// plain turns YAML into JSON's types; dates stay the text they were written as.
func (r *reader) plain(n *yaml.Node, depth int) any {
	switch {
	case depth > 16:
		r.fail(n, "nests too deeply")
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.fail(n, "anchors and aliases are not allowed")
	case n.Kind == yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if _, twice := out[k.Value]; twice || k.Kind != yaml.ScalarNode {
				r.fail(k, "%q is given twice, or is no word", k.Value)
				return nil
			}
			out[k.Value] = r.plain(n.Content[i+1], depth+1)
		}
		return out
	case n.Kind == yaml.SequenceNode:
		out := []any{}
		for _, c := range n.Content {
			out = append(out, r.plain(c, depth+1))
		}
		return out
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		return n.Value
	default:
		return value(n.Value)
	}
	return nil
}

func newShowCommand(a *app) *cobra.Command {
	var t timeFlags
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a node, what it hangs from and what hangs from it",
		Example: "  ward hierarchy show Group:acme/g8\n  ward hierarchy show User:dana --at 2026-01-01",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := node("argument", args[0])
			if err != nil {
				return err
			}
			when, err := t.when()
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Node
			if err := c.Post(cmd.Context(), "/v1/node", admin.NodeQuery{ID: id.String(), When: when}, &got); err != nil {
				return err
			}
			return a.show(got, func(w io.Writer) {
				rows(w, "node", got.ID, "fact", got.Fact.Fact, "valid", validity(got.Valid))
				if attrs, ok := got.Value["attrs"].(map[string]any); ok {
					names := make([]string, 0, len(attrs))
					for n := range attrs {
						names = append(names, n)
					}
					slices.Sort(names)
					for _, n := range names {
						rows(w, n, fmt.Sprint(attrs[n]))
					}
				}
				if p, ok := got.Value["person"].(map[string]any); ok {
					for _, n := range []string{"birthDate", "jurisdiction", "majority"} {
						if p[n] != nil {
							rows(w, n, fmt.Sprint(p[n]))
						}
					}
				}
				for _, e := range got.Parents {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", str(e, "kind"), str(e, "parent"), e.Fact, validity(e.Valid))
				}
				for _, e := range got.Children {
					fmt.Fprintf(w, "child\t%s\t%s\t%s\n", str(e, "child"), e.Fact, validity(e.Valid))
				}
				if got.More {
					rows(w, "child", "…")
				}
				for name, list := range map[string][]string{"owned by": got.Owners, "owns": got.Owned, "is": got.Persons} {
					if len(list) > 0 {
						rows(w, name, strings.Join(list, " "))
					}
				}
				for _, f := range got.Roles {
					fmt.Fprintf(w, "role\t%s at %s\t%s\t%s\n", str(f, "role"), str(f, "node"), f.Fact, validity(f.Valid))
				}
				for _, f := range got.Grants {
					fmt.Fprintf(w, "grant\t%s for %s\t%s\t%s\n", str(f, "id"), str(f, "subject"), f.Fact, factTime(f))
				}
			})
		},
	}
	t.add(c)
	return c
}

func newPathCommand(a *app) *cobra.Command {
	var t timeFlags
	c := &cobra.Command{
		Use:     "path FROM TO",
		Short:   "Show how a node hangs from another",
		Long:    "Shows the edges of a shortest way up from FROM to TO. Exit code 6 when there is none.",
		Example: "  ward hierarchy path Coverage:acme/cov1 Tenant:acme\n  ward hierarchy path Coverage:acme/cov1 Group:acme/g8 --at 2026-01-01",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var ids [2]hierarchy.ID
			for i := range args {
				var err error
				if ids[i], err = node([]string{"start", "end"}[i], args[i]); err != nil {
					return err
				}
			}
			when, err := t.when()
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var got admin.Path
			if err := c.Post(cmd.Context(), "/v1/path", admin.PathQuery{From: ids[0].String(), To: ids[1].String(), When: when}, &got); err != nil {
				return err
			}
			err = a.show(got, func(w io.Writer) {
				if !got.Reaches {
					fmt.Fprintf(w, "%s does not hang from %s at that time\n", ids[0], ids[1])
				}
				for _, e := range got.Edges {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", str(e, "child"), str(e, "kind"), str(e, "parent"), e.Fact, validity(e.Valid))
				}
			})
			if err == nil && !got.Reaches {
				return exit(exitDifference)
			}
			return err
		},
	}
	t.add(c)
	return c
}

func newEndCommand(a *app, void bool) *cobra.Command {
	var r reasonFlags
	var to, zone string
	c := &cobra.Command{
		Use:     "end FACT…",
		Short:   "End facts: they were true until then",
		Example: "  ward hierarchy end f12.3 --why \"left the network\"\n  ward hierarchy end f12.3 f12.4 --to 2026-12-31 --zone America/New_York",
		Args:    cobra.MinimumNArgs(1),
	}
	verb := "ended"
	if void {
		c.Use, c.Short, verb = "void FACT…", "Void facts: they were never true, from this revision on", "voided"
		c.Example = "  ward hierarchy void f12.3 --why \"wrong group\" --ticket CH-13"
	} else {
		c.Flags().StringVar(&to, "to", "", "when they end; a date includes its day (default now)")
		c.Flags().StringVar(&zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var events []admin.Event
		for _, f := range args {
			e, err := endEvent(f, to, zone, void)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		return a.change(cmd.Context(), r, events, fmt.Sprintf("%d facts %s", len(events), verb))
	}
	r.add(c)
	return c
}

func newRoleCommand(a *app) *cobra.Command {
	return group("role", "Roles and who holds them",
		"  ward role list\n  ward role assign User:dana broker Group:acme/g8 --to 2026-12-31",
		newRoleListCommand(a), newRoleDefineCommand(a), newRoleAssignCommand(a), newRoleEndCommand(a))
}

func newRoleListCommand(a *app) *cobra.Command {
	var t timeFlags
	var q admin.Facts
	var assignments, all bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List roles, or with --assignments who holds them",
		Example: "  ward role list\n  ward role list --assignments --about User:dana",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			when, err := t.when()
			if err != nil {
				return err
			}
			q.Kind, q.When, q.Live = "role", when, !all
			if assignments {
				q.Kind = "assignment"
			}
			facts, err := a.listFacts(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.show(facts, func(w io.Writer) {
				for _, f := range facts {
					if assignments {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Fact, f.State, str(f, "principal"), str(f, "role"), str(f, "node"), validity(f.Valid))
						continue
					}
					includes := ""
					if s := str(f, "includes"); s != "" {
						includes = "includes " + s
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Fact, str(f, "name"), str(f, "capabilities"), includes)
				}
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&assignments, "assignments", false, "who holds which role where")
	f.BoolVar(&all, "all", false, "also what is not live")
	f.StringVar(&q.Name, "role", "", "only this role, by `name`")
	f.StringVar(&q.About, "about", "", "only assignments of or at this `id`")
	f.StringVar(&q.Tenant, "tenant", "", "only assignments within this tenant `key`")
	f.IntVar(&q.Limit, "limit", 0, "at most this many (default 1000)")
	t.add(c)
	return c
}

func newRoleDefineCommand(a *app) *cobra.Command {
	var r reasonFlags
	var can, includes []string
	c := &cobra.Command{
		Use:   "define NAME",
		Short: "Define a role, or define it anew",
		Long: `Defines a role as a set of capabilities. TENANT/NAME is a role of that tenant,
which can be assigned within it only. A role of the name that exists already is
replaced, from this revision on.`,
		Example: "  ward role define acme/reviewer --can claim.view,claim.search --why \"acme's own\"\n  ward role define auditor-plus --includes auditor --can policy.read",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(can) == 0 && len(includes) == 0 {
				return failf(exitFailure, "give --can CAPABILITY,… or --includes ROLE,…", "a role needs a capability or a role that it includes")
			}
			old, err := a.listFacts(cmd.Context(), admin.Facts{Kind: "role", Name: args[0]})
			if err != nil {
				return err
			}
			var events []admin.Event
			for _, f := range old {
				events = append(events, admin.Event{Void: f.Fact})
			}
			fields := map[string]any{"name": args[0], "capabilities": can}
			if len(includes) > 0 {
				fields["includes"] = includes
			}
			return a.change(cmd.Context(), r, append(events, admin.Event{Assert: "role", Fields: fields}), "role defined")
		},
	}
	c.Flags().StringSliceVar(&can, "can", nil, "`capabilities`, separated by commas")
	c.Flags().StringSliceVar(&includes, "includes", nil, "`roles` whose capabilities it has too")
	r.add(c)
	return c
}

func newRoleAssignCommand(a *app) *cobra.Command {
	var r reasonFlags
	var s span
	c := &cobra.Command{
		Use:     "assign PRINCIPAL ROLE NODE",
		Short:   "Let a principal hold a role at a node and all below it",
		Example: "  ward role assign User:dana broker Group:acme/g8 --from 2026-01-01 --to 2026-12-31 --ticket CH-14",
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			fields := map[string]any{"role": args[1]}
			for i, name := range []string{"principal", "", "node"} {
				if name == "" {
					continue
				}
				id, err := node(name, args[i])
				if err != nil {
					return err
				}
				fields[name] = id.String()
			}
			if err := s.into(fields, "from", "to"); err != nil {
				return err
			}
			return a.change(cmd.Context(), r, []admin.Event{{Assert: "assignment", Fields: fields}}, "role assigned")
		},
	}
	s.add(c)
	r.add(c)
	return c
}

func newRoleEndCommand(a *app) *cobra.Command {
	var r reasonFlags
	var to, zone string
	c := &cobra.Command{
		Use:   "end FACT | PRINCIPAL ROLE NODE",
		Short: "End an assignment",
		Example: `  ward role end f12.3 --why "left"
  ward role end User:dana broker Group:acme/g8 --to 2026-12-31`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 3 {
				return fmt.Errorf("accepts 1 or 3 arg(s), received %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			facts := args[:1]
			if len(args) == 3 {
				live, err := a.listFacts(cmd.Context(), admin.Facts{Kind: "assignment", About: args[0], Name: args[1]})
				if err != nil {
					return err
				}
				facts = nil
				for _, f := range live {
					if str(f, "principal") == args[0] && str(f, "node") == args[2] && f.State != "ended" {
						facts = append(facts, f.Fact)
					}
				}
				if len(facts) == 0 {
					return invalid("ward role list --assignments --about PRINCIPAL", "there is no such live assignment")
				}
			}
			var events []admin.Event
			for _, f := range facts {
				e, err := endEvent(f, to, zone, false)
				if err != nil {
					return err
				}
				events = append(events, e)
			}
			return a.change(cmd.Context(), r, events, "assignment ended")
		},
	}
	c.Flags().StringVar(&to, "to", "", "when it ends; a date includes its day (default now)")
	c.Flags().StringVar(&zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	r.add(c)
	return c
}

// tenantID reads a tenant as Tenant:KEY or KEY.
func tenantID(s string) (hierarchy.ID, error) {
	if !strings.Contains(s, ":") {
		s = "Tenant:" + s
	}
	id, err := node("tenant", s)
	if err == nil && id.Type != hierarchy.TenantType {
		err = invalid("such as Tenant:acme", "%s is no tenant", id)
	}
	return id, err
}

func newModuleCommand(a *app) *cobra.Command {
	return group("module", "Which tenant has which module or feature",
		"  ward module list Tenant:acme\n  ward module enable Tenant:acme claims",
		newModuleEnableCommand(a), newModuleDisableCommand(a), newModuleListCommand(a))
}

func newModuleEnableCommand(a *app) *cobra.Command {
	var r reasonFlags
	var s span
	c := &cobra.Command{
		Use:     "enable TENANT MODULE",
		Short:   "Give a tenant a module or feature",
		Example: "  ward module enable Tenant:acme claims --from 2026-01-01\n  ward module enable acme claims.export --ticket CH-15",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tenantID(args[0])
			if err != nil {
				return err
			}
			fields := map[string]any{"tenant": id.String(), "name": args[1]}
			if err := s.into(fields, "from", "to"); err != nil {
				return err
			}
			return a.change(cmd.Context(), r, []admin.Event{{Assert: "entitlement", Fields: fields}}, "module enabled")
		},
	}
	s.add(c)
	r.add(c)
	return c
}

func newModuleDisableCommand(a *app) *cobra.Command {
	var r reasonFlags
	var to, zone string
	c := &cobra.Command{
		Use:     "disable TENANT MODULE",
		Short:   "End a tenant's module or feature",
		Example: "  ward module disable Tenant:acme claims --why \"contract ended\"\n  ward module disable acme claims --to 2026-12-31",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tenantID(args[0])
			if err != nil {
				return err
			}
			known, err := a.listFacts(cmd.Context(), admin.Facts{Kind: "entitlement", About: id.String(), Name: args[1]})
			if err != nil {
				return err
			}
			var events []admin.Event
			for _, f := range known {
				switch {
				case f.State == "ended":
					continue
				case f.State == "future" && to == "":
					events = append(events, admin.Event{Void: f.Fact})
					continue
				}
				e, err := endEvent(f.Fact, to, zone, false)
				if err != nil {
					return err
				}
				events = append(events, e)
			}
			if len(events) == 0 {
				return invalid("ward module list "+id.String(), "%s does not have %s", id, args[1])
			}
			return a.change(cmd.Context(), r, events, "module disabled")
		},
	}
	c.Flags().StringVar(&to, "to", "", "when it ends; a date includes its day (default now)")
	c.Flags().StringVar(&zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	r.add(c)
	return c
}

func newModuleListCommand(a *app) *cobra.Command {
	var t timeFlags
	var all bool
	c := &cobra.Command{
		Use:     "list [TENANT]",
		Short:   "List the modules and features of one tenant or of all",
		Example: "  ward module list\n  ward module list Tenant:acme --at 2026-01-01",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := t.when()
			if err != nil {
				return err
			}
			q := admin.Facts{Kind: "entitlement", When: when, Live: !all, Limit: 100_000}
			if len(args) == 1 {
				id, err := tenantID(args[0])
				if err != nil {
					return err
				}
				q.About = id.String()
			}
			facts, err := a.listFacts(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.show(facts, func(w io.Writer) {
				for _, f := range facts {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Fact, f.State, str(f, "tenant"), str(f, "name"), validity(f.Valid))
				}
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also what is not live")
	t.add(c)
	return c
}

func newGrantCommand(a *app) *cobra.Command {
	return group("grant", "Delegations: who lets whom act for whom",
		"  ward grant list --about Person:leo\n  ward grant revoke g-1 --why \"asked to\"",
		newGrantCreateCommand(a), newGrantListCommand(a), newGrantShowCommand(a), newGrantExtendCommand(a), newGrantRevokeCommand(a))
}

func newGrantCreateCommand(a *app) *cobra.Command {
	var r reasonFlags
	var s span
	var g struct {
		id, typ, grantor, grantee, subject, coverage, jurisdiction, basis, parent, evidence, sha, verifiedBy string
		can, covers, purpose                                                                                 []string
		redelegate                                                                                           bool
		depth                                                                                                int
	}
	c := &cobra.Command{
		Use:   "create",
		Short: "Let somebody act for a person, or an organisation for another",
		Long: `Makes a grant and says its id; -o json names it id. A minor's grant (its type says so) ends on the
day that the person comes of age, whatever --to says.`,
		Example: `  ward grant create --type parent --grantor Person:rosa --grantee User:mia --subject Person:leo \
    --can lab.view,claim.view --covers routine --from 2026-01-01 --evidence doc-77 --why "birth certificate seen"
  ward grant create --type broker-of-record --grantor Group:acme/g8 --grantee User:bo --subject Group:acme/g8 --can claim.search --to 2026-12-31`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.typ == "" || g.grantor == "" || g.grantee == "" || g.subject == "" || len(g.can) == 0 {
				return failf(exitFailure, "ward grant create --help", "a grant needs --type, --grantor, --grantee, --subject and --can")
			}
			if g.id == "" {
				g.id = "g-" + strings.ToLower(rand.Text()[:10])
			}
			fields := map[string]any{"id": g.id, "type": g.typ}
			for _, p := range []struct{ name, id string }{{"grantor", g.grantor}, {"grantee", g.grantee}, {"subject", g.subject}} {
				id, err := node(p.name, p.id)
				if err != nil {
					return err
				}
				fields[p.name] = id.String()
			}
			scope := map[string]any{"capabilities": g.can}
			if len(g.covers) > 0 {
				scope["covers"] = g.covers
			}
			if g.coverage != "" {
				id, err := node("coverage", g.coverage)
				if err != nil {
					return err
				}
				scope["coverage"] = id.String()
			}
			fields["scope"] = scope
			for name, v := range map[string]string{"jurisdiction": g.jurisdiction, "legalBasis": g.basis, "parent": g.parent} {
				if v != "" {
					fields[name] = v
				}
			}
			if len(g.purpose) > 0 {
				fields["purpose"] = g.purpose
			}
			evidence := map[string]any{}
			for name, v := range map[string]string{"document": g.evidence, "sha256": g.sha, "verifiedBy": g.verifiedBy} {
				if v != "" {
					evidence[name] = v
				}
			}
			if len(evidence) > 0 {
				fields["evidence"] = evidence
			}
			if g.redelegate {
				fields["mayRedelegate"], fields["maxDepth"] = true, g.depth
			}
			if err := s.into(fields, "from", "to"); err != nil {
				return err
			}
			done, err := a.doChange(cmd.Context(), r, []admin.Event{{Assert: "grant", Fields: fields}})
			if err != nil {
				return err
			}
			out := struct {
				ID string `json:"id"`
				admin.Changed
			}{g.id, done}
			return a.show(out, func(w io.Writer) {
				fmt.Fprintf(w, "grant %s created\trevision %d\trecord %s\n", out.ID, out.Revision, out.Record)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&g.id, "id", "", "`id` of the grant (default g- and ten random letters and digits)")
	f.StringVar(&g.typ, "type", "", "a grant `type` of the policy set, such as parent or broker-of-record")
	f.StringVar(&g.grantor, "grantor", "", "`id` of who gives")
	f.StringVar(&g.grantee, "grantee", "", "`id` of the principal or organisation that may act")
	f.StringVar(&g.subject, "subject", "", "`id` of the person or node it is about")
	f.StringSliceVar(&g.can, "can", nil, "`capabilities`, separated by commas")
	f.StringSliceVar(&g.covers, "covers", nil, "`sensitivities` beyond the routine ones")
	f.StringVar(&g.coverage, "coverage", "", "only records that hang from this `node`")
	f.StringSliceVar(&g.purpose, "purpose", nil, "HL7 purpose of use `codes`")
	f.StringVar(&g.jurisdiction, "jurisdiction", "", "the `law` that applies, such as US-OH")
	f.StringVar(&g.basis, "legal-basis", "", "the legal `basis`")
	f.StringVar(&g.parent, "parent", "", "`id` of the grant that it is made from")
	f.StringVar(&g.evidence, "evidence", "", "`reference` of the document that it rests on")
	f.StringVar(&g.sha, "evidence-sha256", "", "the document's `digest`")
	f.StringVar(&g.verifiedBy, "verified-by", "", "`who` saw the evidence")
	f.BoolVar(&g.redelegate, "may-redelegate", false, "grants may be made from it")
	f.IntVar(&g.depth, "max-depth", 1, "how many links further down")
	s.add(c)
	r.add(c)
	return c
}

// grant finds a grant by id.
func (a *app) grant(ctx context.Context, id string, when admin.When) (admin.Fact, error) {
	facts, err := a.listFacts(ctx, admin.Facts{Kind: "grant", Name: id, When: when})
	if err != nil {
		return admin.Fact{}, err
	}
	if len(facts) == 0 {
		return admin.Fact{}, invalid("ward grant list --all", "there is no grant %s", id)
	}
	return facts[len(facts)-1], nil
}

func newGrantShowCommand(a *app) *cobra.Command {
	var t timeFlags
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a grant, and whose signatures it takes and has",
		Example: "  ward grant show g-1\n  ward grant show g-1 -o yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := t.when()
			if err != nil {
				return err
			}
			f, err := a.grant(cmd.Context(), args[0], when)
			if err != nil {
				return err
			}
			out := struct {
				admin.Fact
				Signatures []admin.Fact `json:"signatures,omitempty"`
			}{Fact: f}
			if out.Signatures, err = a.listFacts(cmd.Context(), admin.Facts{Kind: "signature", Name: str(f, "id"), When: when}); err != nil {
				return err
			}
			return a.show(out, func(w io.Writer) {
				rows(w, "grant", str(f, "id"), "state", f.State, "type", str(f, "type"), "grantor", str(f, "grantor"),
					"grantee", str(f, "grantee"), "subject", str(f, "subject"))
				if s, ok := f.Value["scope"].(map[string]any); ok {
					for _, n := range []string{"capabilities", "covers", "coverage"} {
						if v := str(admin.Fact{Value: s}, n); v != "" {
							rows(w, n, v)
						}
					}
				}
				for _, n := range []string{"purpose", "jurisdiction", "legalBasis", "parent"} {
					if v := str(f, n); v != "" {
						rows(w, n, v)
					}
				}
				needs, _ := f.Value["needs"].([]any)
				for _, n := range needs {
					need, _ := n.(map[string]any)
					showNeed(w, admin.Fact{Value: need}, out.Signatures)
				}
				for _, n := range f.Missing {
					if !slices.ContainsFunc(needs, func(own any) bool { return sameNeed(own, n) }) {
						who := string(n.As)
						if !n.By.IsZero() {
							who += " " + n.By.String()
						}
						rows(w, "needs up the chain", who+": has not signed")
					}
				}
				rows(w, "valid", validity(f.Valid), "effective", factTime(f), "fact", f.Fact)
			})
		},
	}
	t.add(c)
	return c
}

// showNeed says of a signature that a grant takes who gave it and when.
func showNeed(w io.Writer, need admin.Fact, signatures []admin.Fact) {
	who := str(need, "by")
	signed := false
	for _, s := range signatures {
		// A verifier may be anybody.
		if str(s, "as") != str(need, "as") || who != "" && str(s, "by") != who {
			continue
		}
		signed = signed || s.State == "live"
		rows(w, "needs "+str(need, "as"), fmt.Sprintf("%s: signed by %s, %s (%s, %s)", str(s, "by"), str(s, "principal"), validity(s.Valid), s.State, s.Fact))
	}
	if !signed {
		if who == "" {
			who = "whom the policies let"
		}
		rows(w, "needs "+str(need, "as"), who+": has not signed")
	}
}

// sameNeed compares a need as a fact says it with another.
func sameNeed(own any, n hierarchy.Need) bool {
	m, _ := own.(map[string]any)
	need := admin.Fact{Value: m}
	by := ""
	if !n.By.IsZero() {
		by = n.By.String()
	}
	return str(need, "as") == string(n.As) && str(need, "by") == by
}

func newGrantRevokeCommand(a *app) *cobra.Command {
	var r reasonFlags
	var to, zone string
	var void bool
	c := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a grant, and all that were made from it",
		Long: `Ends a grant. When this command returns, no answer that relies on the grant
leaves the server any more. A grant that has not begun is voided.`,
		Example: "  ward grant revoke g-1 --why \"asked to\"\n  ward grant revoke g-1 --to 2026-12-31",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.grant(cmd.Context(), args[0], admin.When{})
			if err != nil {
				return err
			}
			e, err := endEvent(f.Fact, to, zone, void || f.State == "future" && to == "")
			if err != nil {
				return err
			}
			if err := endedAlready("grant "+args[0], f, e); err != nil {
				return err
			}
			return a.change(cmd.Context(), r, []admin.Event{e}, "grant "+args[0]+" revoked")
		},
	}
	c.Flags().StringVar(&to, "to", "", "when it ends; a date includes its day (default now)")
	c.Flags().StringVar(&zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	c.Flags().BoolVar(&void, "void", false, "it was never valid")
	r.add(c)
	return c
}

// endedAlready refuses to end what has its end by then, and says when that was.
func endedAlready(what string, f admin.Fact, e admin.Event) error {
	switch at := time.Time(e.At); {
	case f.State == "voided":
		return invalid("", "%s was voided: it was never valid", what)
	case e.Void != "" || f.Valid.To.IsZero():
		return nil
	// A grant may have ended with the one above it; then it can still be ended itself.
	case at.IsZero() && (f.State == "revoked" || f.State == "ended" && (f.Effective == nil || f.Effective.To == f.Valid.To)):
		return invalid("", "%s has ended already, at %s", what, f.Valid.To)
	case !at.IsZero() && !at.Before(time.Time(f.Valid.To)):
		return invalid("", "%s ends at %s already, no later than that", what, f.Valid.To)
	}
	return nil
}

func newLinkCommand(a *app) *cobra.Command {
	return group("link", "Who is who: identities, persons and what they own",
		"  ward link add identity https://login.example.com 00u1 User:dana\n  ward link list --about Person:p7",
		newLinkAddCommand(a), newEndLinkCommand(a), newLinkListCommand(a))
}

func newLinkAddCommand(a *app) *cobra.Command {
	var r reasonFlags
	var s span
	c := &cobra.Command{
		Use:   "add identity ISSUER SUB PRINCIPAL | add KIND FROM TO",
		Short: "Tie identities together",
		Long: `Adds a link:

  identity ISSUER SUB PRINCIPAL   the token subject is the principal
  self PRINCIPAL PERSON           the principal is the person
  owns PERSON NODE                the person owns a coverage or a record
  merge PERSON PERSON             both are one person, until voided
  family PERSON PERSON            they are of one family; confers nothing`,
		Example: "  ward link add identity https://login.example.com 00u1 User:dana\n  ward link add self User:dana Person:p7\n  ward link add owns Person:p7 Coverage:acme/cov1 --from 2026-01-01",
		Args: func(cmd *cobra.Command, args []string) error {
			want := 3
			if len(args) > 0 && args[0] == string(hierarchy.LinkIdentity) {
				want = 4
			}
			if len(args) != want {
				return fmt.Errorf("accepts %d arg(s), received %d", want, len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			fields := map[string]any{"kind": args[0]}
			switch hierarchy.LinkKind(args[0]) {
			case hierarchy.LinkIdentity:
				fields["issuer"], fields["sub"] = args[1], args[2]
			case hierarchy.LinkSelf, hierarchy.LinkOwns, hierarchy.LinkMerge, hierarchy.LinkFamily:
				id, err := node("start", args[1])
				if err != nil {
					return err
				}
				fields["from"] = id.String()
			default:
				return failf(exitFailure, "one of identity, self, owns, merge, family", "there is no link kind %q", args[0])
			}
			id, err := node("end", args[len(args)-1])
			if err != nil {
				return err
			}
			fields["to"] = id.String()
			if err := s.into(fields, "since", "until"); err != nil {
				return err
			}
			return a.change(cmd.Context(), r, []admin.Event{{Assert: "link", Fields: fields}}, "link added")
		},
	}
	s.add(c)
	r.add(c)
	return c
}

func newEndLinkCommand(a *app) *cobra.Command {
	var r reasonFlags
	c := &cobra.Command{
		Use:     "void FACT",
		Short:   "Void a link: it was never true, from this revision on",
		Example: "  ward link void f12.3 --why \"wrong person\"",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := endEvent(args[0], "", "", true)
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), r, []admin.Event{e}, "link voided")
		},
	}
	r.add(c)
	return c
}

func newLinkListCommand(a *app) *cobra.Command {
	var t timeFlags
	var q admin.Facts
	var all bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List links",
		Example: "  ward link list --about Person:p7\n  ward link list --kind identity",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			when, err := t.when()
			if err != nil {
				return err
			}
			q.Kind, q.When, q.Live = "link", when, !all
			facts, err := a.listFacts(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.show(facts, func(w io.Writer) {
				for _, f := range facts {
					from := str(f, "from")
					if from == "" {
						from = str(f, "issuer") + " " + str(f, "sub")
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Fact, f.State, str(f, "kind"), from, str(f, "to"), validity(f.Valid))
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&q.About, "about", "", "only links of or to this `id`")
	f.StringVar(&q.Name, "kind", "", "identity, self, owns, merge or family")
	f.BoolVar(&all, "all", false, "also what is not live")
	f.IntVar(&q.Limit, "limit", 0, "at most this many (default 1000)")
	t.add(c)
	return c
}
