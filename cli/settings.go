package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

func newSettingCommand(a *app) *cobra.Command {
	return group("setting", "What a tenant may choose, and has chosen",
		"  ward setting list Tenant:acme\n  ward setting set Tenant:acme runOutDays 30 --why \"contract, annex 2\"",
		newSettingListCommand(a), newSettingSetCommand(a))
}

// settings asks for the settings of the policy set in force.
func (a *app) settings(ctx context.Context, q admin.SettingsQuery) ([]admin.Setting, error) {
	c, err := a.client(ctx)
	if err != nil {
		return nil, err
	}
	var got admin.Settings
	err = c.Post(ctx, "/v1/settings", q, &got)
	return got.Settings, err
}

func newSettingListCommand(a *app) *cobra.Command {
	var t timeFlags
	var all bool
	c := &cobra.Command{
		Use:   "list [TENANT]",
		Short: "List every setting, its default, and what one tenant or all have set",
		Long: `Lists every setting of the policy set in force with what it takes and its
default, and below it what the tenant has set, or all have: the fact, since when
it holds, and who set it and why.`,
		Example:           "  ward setting list\n  ward setting list acme --all\n  ward setting list Tenant:acme --at 2026-01-01 -o json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.complete(a.tenantNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := t.when()
			if err != nil {
				return err
			}
			q := admin.SettingsQuery{Live: !all, When: when}
			if len(args) == 1 {
				if q.Tenant, err = tenantKey(args[0]); err != nil {
					return err
				}
			}
			list, err := a.settings(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.show(list, func(w io.Writer) {
				for _, s := range list {
					fmt.Fprintf(w, "%s\t%s\tdefault %v\t%s\n", s.Name, s.Range, s.Default, s.Title)
					for _, x := range s.Chosen {
						fmt.Fprintf(w, "  %s\t%v\t%s\t%s\t%s\t%s\n", x.Tenant, x.Set, x.State, validity(x.Valid), x.Fact.Fact, by(x.Origin))
					}
				}
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also what does not hold at that time")
	t.add(c)
	return c
}

// by says who made a change and why.
func by(o admin.Origin) string {
	text := "by " + o.Who
	if o.Why != "" {
		text += ": " + o.Why
	}
	if o.Ticket != "" {
		text += " (" + o.Ticket + ")"
	}
	return text
}

func newSettingSetCommand(a *app) *cobra.Command {
	var r reasonFlags
	var s span
	var back bool
	c := &cobra.Command{
		Use:   "set TENANT NAME VALUE | set TENANT NAME --default",
		Short: "Choose for a tenant, from now on or for a time",
		Long: `Lets a setting of a tenant have a value from --from (now, unless said) until
--to (for good, unless said), in one change. What was set for that time before is
ended, or voided where it had not begun by --from; outside of that time, what was
set stays as it was. --default takes back what was set for that time: there the
policy set's default holds.`,
		Example: `  ward setting set Tenant:acme employerSeesMember true --why "plan document, section 7" --ticket CH-20
  ward setting set acme runOutDays 30 --from 2027-01-01 --zone America/New_York --why "new contract"
  ward setting set acme runOutDays --default --why "as for everybody"`,
		Args: func(cmd *cobra.Command, args []string) error {
			want := 3
			if back {
				want = 2
			}
			if len(args) != want {
				return fmt.Errorf("accepts %d arg(s), received %d", want, len(args))
			}
			return nil
		},
		ValidArgsFunction: a.complete(a.tenantNames, a.settingNames, a.settingValues),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := tenantID(args[0])
			if err != nil {
				return err
			}
			if r.Why == "" {
				return failf(exitFailure, "such as --why \"plan document, section 7\"", "a setting needs --why: it decides who sees what")
			}
			list, err := a.settings(cmd.Context(), admin.SettingsQuery{Tenant: id.Key})
			if err != nil {
				return err
			}
			setting, err := settingOf(list, args[1])
			if err != nil {
				return err
			}
			var value any
			if !back {
				if value, err = settingValue(setting, args[2]); err != nil {
					return err
				}
			}
			if s.from == "" {
				// One instant, at which what was set ends and the new value begins.
				s.from = hierarchy.At(a.now()).String()
			}
			fields := map[string]any{"tenant": id.String(), "name": setting.Name, "value": value}
			if err := s.into(fields, "from", "to"); err != nil {
				return err
			}
			in, err := pdp.EventOf("setting", fields, s.zone)
			if err != nil {
				return err
			}
			events := carve(setting.Chosen, in.Valid)
			note := fmt.Sprintf("%s of %s set to %v", setting.Name, id, value)
			if back {
				note = fmt.Sprintf("%s of %s back to the default, %v", setting.Name, id, setting.Default)
				if len(events) == 0 {
					return invalid("ward setting list "+id.String()+" --all", "%s has not set %s for that time: the default holds", id, setting.Name)
				}
			} else {
				events = append(events, admin.Event{Assert: "setting", Fields: fields})
			}
			return a.change(cmd.Context(), r, events, note)
		},
	}
	f := c.Flags()
	f.BoolVar(&back, "default", false, "take back what was set")
	f.StringVar(&s.from, "from", "", "when it begins: RFC 3339, or a date in --zone (default now)")
	f.StringVar(&s.to, "to", "", "when it ends; a date includes its day (default never)")
	f.StringVar(&s.zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	r.add(c)
	return c
}

// settingOf finds a setting by name.
func settingOf(list []admin.Setting, name string) (admin.Setting, error) {
	names := make([]string, 0, len(list))
	for _, s := range list {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	hint := "one of " + strings.Join(names, ", ")
	if len(names) == 0 {
		hint = ""
	}
	return admin.Setting{}, invalid(hint, "the policy set has no setting %q", name)
}

// settingValue reads a value of the setting's type, within its range.
func settingValue(s admin.Setting, text string) (any, error) {
	switch s.Type {
	case "Bool":
		if text == "true" || text == "false" {
			return text == "true", nil
		}
	case "Long":
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && (s.Min == nil || n >= *s.Min) && (s.Max == nil || n <= *s.Max) {
			return n, nil
		}
	default:
		if len(s.Values) == 0 || slices.Contains(s.Values, text) {
			return text, nil
		}
	}
	return nil, invalid("", "the setting %s takes %s", s.Name, s.Range)
}

// carve returns the events after which nothing of what was chosen holds within a
// time, and all of it outside as before.
func carve(chosen []admin.Choice, within hierarchy.Interval) []admin.Event {
	var ends, rest []admin.Event
	for _, c := range chosen {
		had := hierarchy.Always
		if !c.Valid.From.IsZero() {
			had.From = hierarchy.At(time.Time(c.Valid.From))
		}
		if !c.Valid.To.IsZero() {
			had.To = hierarchy.At(time.Time(c.Valid.To))
		}
		if had.To <= within.From || had.From >= within.To {
			continue
		}
		if had.From < within.From {
			ends = append(ends, admin.Event{End: c.Fact.Fact, At: admin.TimeOf(within.From)})
		} else {
			ends = append(ends, admin.Event{Void: c.Fact.Fact})
		}
		if had.To > within.To {
			fields := map[string]any{"tenant": c.Tenant, "name": c.Value["name"], "value": c.Set, "from": within.To.String()}
			if had.To != hierarchy.Forever {
				fields["to"] = had.To.String()
			}
			rest = append(rest, admin.Event{Assert: "setting", Fields: fields})
		}
	}
	return append(ends, rest...)
}

// complete completes the arguments of a command, each by a function of its own.
// What cannot be asked completes to nothing.
func (a *app) complete(by ...func(ctx context.Context, args []string) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(by) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		a.quiet = true
		var out []string
		for _, s := range by[len(args)](ctx, args) {
			if strings.HasPrefix(s, start) {
				out = append(out, s)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// tenantNames lists the tenants, for completion.
func (a *app) tenantNames(ctx context.Context, _ []string) []string {
	facts, err := a.findFacts(ctx, "/v1/nodes", admin.NodesQuery{Type: hierarchy.TenantType, Live: true, Limit: 1000})
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range facts {
		id := str(f, "id")
		// Shells break words at a colon; a key alone is read as a tenant's.
		out = append(out, strings.TrimPrefix(id, hierarchy.TenantType+":"))
	}
	return out
}

// settingNames lists the settings that the tenant before it may choose.
func (a *app) settingNames(ctx context.Context, args []string) []string {
	var out []string
	for _, s := range a.settingsFor(ctx, args[0]) {
		out = append(out, s.Name)
	}
	return out
}

// settingValues lists the values of the setting before it, where they can be
// listed.
func (a *app) settingValues(ctx context.Context, args []string) []string {
	s, err := settingOf(a.settingsFor(ctx, args[0]), args[1])
	if err != nil {
		return nil
	}
	if s.Type == "Bool" {
		return []string{"true", "false"}
	}
	return s.Values
}

func (a *app) settingsFor(ctx context.Context, tenant string) []admin.Setting {
	key, err := tenantKey(tenant)
	if err != nil {
		return nil
	}
	list, err := a.settings(ctx, admin.SettingsQuery{Tenant: key, Live: true})
	if err != nil {
		return nil
	}
	return list
}
