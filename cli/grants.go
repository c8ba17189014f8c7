package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/pdp"
)

// now reads the clock of this command.
func (a *app) now() time.Time {
	if a.clock != nil {
		return a.clock()
	}
	return time.Now()
}

func newGrantListCommand(a *app) *cobra.Command {
	var t timeFlags
	var q admin.GrantQuery
	var ending string
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List grants",
		Long: `Lists the grants that are live, with the time in which they are: a grant ends no
later than the one that it was made from, and a minor's grant on the day that
the person comes of age. --ending keeps those that end within a span from now,
or from --at; the first to end comes first. --requested lists those that wait for
a signature instead: ward grant show says whose.`,
		Example: `  ward grant list
  ward grant list --ending 30d
  ward grant list --requested
  ward grant list --person Person:leo --grantee user:mia --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ending != "" && all {
				return failf(exitFailure, "only a live grant ends", "--ending and --all exclude each other")
			}
			if q.Requested && (ending != "" || all) {
				return failf(exitFailure, "a grant is requested until it is live", "--requested excludes --ending and --all")
			}
			when, err := t.when()
			if err != nil {
				return err
			}
			if ending != "" {
				d, err := days(ending)
				if err != nil {
					return err
				}
				if when.At.IsZero() {
					when.At = admin.Time(a.now())
				}
				q.EndingBy = admin.Time(time.Time(when.At).Add(d))
			}
			q.When, q.Live = when, !all && !q.Requested
			facts, err := a.findFacts(cmd.Context(), "/v1/grants", q)
			if err != nil {
				return err
			}
			return a.show(facts, func(w io.Writer) {
				for _, f := range facts {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s for %s\t%s\n", str(f, "id"), f.State, str(f, "type"), str(f, "grantee"), str(f, "subject"), grantTime(f))
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&q.About, "about", "", "only grants that name this `id`")
	f.StringVar(&q.Person, "person", "", "only grants about this `person`, by any identity merged with it")
	f.StringVar(&q.Grantee, "grantee", "", "only grants to this `principal`, such as user:mia")
	f.StringVar(&q.Tenant, "tenant", "", "only grants within this tenant `key`")
	f.StringVar(&ending, "ending", "", "only grants that end within this `span`, such as 30d, 2w or 12h")
	f.BoolVar(&q.Requested, "requested", false, "those that wait for a signature")
	f.BoolVar(&all, "all", false, "also what is not live")
	f.IntVar(&q.Limit, "limit", 0, "at most this many (default 1000)")
	t.add(c)
	return c
}

// grantTime is when a grant is live; of one that is only requested, when it would be.
func grantTime(f admin.Fact) string {
	if f.State == "requested" {
		return validity(f.Valid)
	}
	return factTime(f)
}

// findFacts asks an endpoint for a list of facts, and says when it was cut.
func (a *app) findFacts(ctx context.Context, path string, q any) ([]admin.Fact, error) {
	c, err := a.client(ctx)
	if err != nil {
		return nil, err
	}
	var got admin.FactList
	if err := c.Post(ctx, path, q, &got); err != nil {
		return nil, err
	}
	if got.Truncated {
		a.say("there are more: narrow the list, or raise --limit")
	}
	return got.Facts, nil
}

// days reads a span: a whole number of hours (h), days (d) or weeks (w).
func days(s string) (time.Duration, error) {
	units := map[string]time.Duration{"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	if s != "" {
		unit := units[s[len(s)-1:]]
		n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
		if d := time.Duration(n) * unit; err == nil && unit > 0 && n > 0 && d/unit == time.Duration(n) && d <= 100*366*24*time.Hour {
			return d, nil
		}
	}
	return 0, invalid("such as 30d, 2w or 12h", "--ending is a span of at most a hundred years")
}

func newGrantExtendCommand(a *app) *cobra.Command {
	var r reasonFlags
	var id, to, zone, evidence, sha, verifiedBy string
	c := &cobra.Command{
		Use:   "extend ID",
		Short: "Let a grant go on for longer, as a new grant",
		Long: `Makes a grant that says what grant ID says and ends later, and ends that one, in
one change; prints the id of the new one. An id means one grant for good, with
the end that was agreed to: so a longer one is another grant. Its legal basis
names the one it extends. There is no moment without a grant, or with both, and
who revokes the new one has revoked it all.

Tokens that carry the old id stop working: exchange them anew. Refused are a
grant that is over or has no end; one that majority, or the grant that it was
made from, ends before its own end; one from which others were made, because they would end
with it; and one that was assented to or co-signed, for a longer one needs that
anew.`,
		Example: `  ward grant extend g-1 --to 2027-12-31 --why "renewed by letter" --evidence doc-91
  ward grant extend g-1 --to 2027-12-31 --zone America/New_York --why "renewed" -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" || r.Why == "" {
				return failf(exitFailure, "ward grant extend --help", "an extension needs --to and --why")
			}
			until, err := pointInTime("--to", to, zone, true)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			old, err := a.grant(ctx, args[0], admin.When{})
			if err != nil {
				return err
			}
			if err := a.extendable(ctx, args[0], old, until); err != nil {
				return err
			}
			if id == "" {
				id = "g-" + strings.ToLower(rand.Text()[:10])
			}
			fields, err := successor(old, id)
			if err != nil {
				return err
			}
			fields["to"] = until.String()
			doc := map[string]any{}
			for name, v := range map[string]string{"document": evidence, "sha256": sha, "verifiedBy": verifiedBy} {
				if v != "" {
					doc[name] = v
				}
			}
			if len(doc) > 0 {
				fields["evidence"] = doc
			}
			events := []admin.Event{{Void: old.Fact}}
			if old.State == "live" {
				// One instant, at which the one ends and the other begins.
				now := admin.Time(a.now().Truncate(time.Millisecond))
				events[0] = admin.Event{End: old.Fact, At: now}
				fields["from"] = now.String()
			} else if !old.Valid.From.IsZero() {
				fields["from"] = old.Valid.From.String()
			}
			done, err := a.doChange(ctx, r, append(events, admin.Event{Assert: "grant", Fields: fields}))
			if err != nil {
				return err
			}
			f, err := a.grant(ctx, id, admin.When{Revision: done.Revision})
			if err != nil {
				return err
			}
			out := struct {
				ID      string `json:"id"`
				Extends string `json:"extends"`
				admin.Changed
				Effective *admin.Interval `json:"effective"`
			}{id, args[0], done, f.Effective}
			a.say("grant %s goes on as %s, %s; revision %d, record %s", args[0], id, factTime(f), done.Revision, done.Record)
			return a.show(out, func(w io.Writer) { fmt.Fprintln(w, out.ID) })
		},
	}
	f := c.Flags()
	f.StringVar(&to, "to", "", "when it ends instead; a date includes its day")
	f.StringVar(&zone, "zone", "UTC", "time `zone` of dates, such as America/New_York")
	f.StringVar(&id, "id", "", "`id` of the new grant (default g- and ten random letters and digits)")
	f.StringVar(&evidence, "evidence", "", "`reference` of the document that it rests on (default: the old one's evidence)")
	f.StringVar(&sha, "evidence-sha256", "", "the document's `digest`")
	f.StringVar(&verifiedBy, "verified-by", "", "`who` saw the evidence")
	r.add(c)
	return c
}

// extendable says why a grant cannot be extended, or nil.
func (a *app) extendable(ctx context.Context, id string, old admin.Fact, until admin.Time) error {
	end := old.Valid.To
	switch {
	case old.State != "live" && old.State != "future":
		return invalid("what is over is not prolonged: ward grant create", "grant %s is %s", id, old.State)
	case end.IsZero():
		return invalid("ward grant revoke "+id+" --to DATE gives it one", "grant %s has no end", id)
	case !time.Time(until).After(time.Time(end)):
		return invalid("ward grant revoke "+id+" --to DATE ends it sooner", "grant %s ends at %s, which is no earlier than --to", id, end)
	case old.Effective != nil && !time.Time(old.Effective.To).Equal(time.Time(end)):
		return invalid("who comes of age can make a new one, and a grant that another was made from can be extended first",
			"grant %s ends at %s already: the person comes of age, or the grant that it was made from ends", id, old.Effective.To)
	case old.Value["needs"] != nil:
		return invalid("make a new one when they have: ward hierarchy apply", "grant %s takes signatures, and those who signed have not agreed to more", id)
	}
	all, err := a.findFacts(ctx, "/v1/grants", admin.GrantQuery{About: str(old, "grantee"), Limit: 100_000})
	if err != nil {
		return err
	}
	for _, f := range all {
		if str(f, "parent") == id && (f.State == "live" || f.State == "future") {
			return invalid("end them, extend this one, then make them anew from it: ward grant list --about "+str(old, "grantee"),
				"other grants were made from grant %s, and would end with it", id)
		}
	}
	return nil
}

// extends marks the legal basis of a grant that extends another.
const extends = "extends "

// successor returns the fields of a grant that says what another says.
func successor(old admin.Fact, id string) (map[string]any, error) {
	fields := map[string]any{}
	for k, v := range old.Value {
		fields[k] = v
	}
	// The door shows instants as times; facts hold numbers.
	scope, _ := fields["scope"].(map[string]any)
	service, _ := scope["service"].(map[string]any)
	evidence, _ := fields["evidence"].(map[string]any)
	for _, p := range []struct {
		in   map[string]any
		name string
	}{{service, "from"}, {service, "to"}, {evidence, "verifiedAt"}} {
		if s, ok := p.in[p.name].(string); ok {
			at, err := pdp.ParseTime(s, "", false)
			if err != nil {
				return nil, err
			}
			p.in[p.name] = json.Number(strconv.FormatInt(int64(at), 10))
		}
	}
	var basis []string
	for _, s := range strings.Split(str(old, "legalBasis"), "; ") {
		if s != "" && !strings.HasPrefix(s, extends) {
			basis = append(basis, s)
		}
	}
	fields["id"], fields["legalBasis"] = id, strings.Join(append(basis, extends+str(old, "id")), "; ")
	return fields, nil
}
