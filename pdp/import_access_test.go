package pdp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
)

func lines(c *AccessChange) (out []string) {
	for _, l := range c.Lines {
		out = append(out, fmt.Sprintf("%s by %s at %s: +%d -%d %s", l.Principal, l.By, l.Node, l.Gains, l.Loses, strings.Join(l.Capabilities, " ")))
	}
	for _, e := range c.Entitlements {
		out = append(out, fmt.Sprintf("%s %s %v", e.Tenant, e.Name, e.Gains))
	}
	return out
}

func TestADryRunShowsWhatAccessChanges(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.load(s.full("one", "2026-11-01", enrolled(2, "a", "from 2026-01-01"), enrolled(3, "b", "from 2026-01-01"),
		row(0, 4, `implied node Person:pat; Person:pat owns Coverage:acme/a; node Coverage:acme/a`),
		row(0, 5, `implied node Carrier:acme/c1; node Group:acme/g2; Group:acme/g2 memberOf Carrier:acme/c1`)))
	s.know(`
		principal User:one
		principal User:two
		principal User:both
		principal User:pat
		principal User:proxy
		User:pat is Person:pat
		User:one holds broker at Group:acme/g1
		User:two holds broker at Group:acme/g2
		User:both holds broker at Carrier:acme/c1
		grant g-1 adult-proxy User:proxy for Person:pat can claim.view
		grant g-2 broker-of-record User:proxy for Group:acme/g2 can claim.view`)
	tip, size, before := s.p.Graph().Tip(), s.ledger.Size(), stateOf(s)
	// b moves to the other group, pat's coverage goes, one is new; two's role at
	// g2 ends by hand-made facts never, but pat gets a role and acme a module.
	f := s.full("two", "2026-11-20",
		row(0, 2, `implied node Carrier:acme/c1; implied node Group:acme/g1; implied Group:acme/g1 memberOf Carrier:acme/c1; implied Carrier:acme/c1 memberOf Tenant:acme;
			node Group:acme/g2; Group:acme/g2 memberOf Carrier:acme/c1; node Coverage:acme/b; Coverage:acme/b enrolledIn Group:acme/g2`),
		row(0, 3, `node Coverage:acme/c; Coverage:acme/c enrolledIn Group:acme/g1`),
		row(0, 4, `Tenant:acme has claims`))
	f.MassEnd, f.DryRun = false, true
	got := s.load(f)
	can := strings.Join(s.p.View(0, 0).Capabilities("broker"), " ")
	self := strings.Join(s.p.View(0, 0).Capabilities("member"), " ")
	want := []string{
		"User:both by role broker at Carrier:acme/c1: +1 -1 " + can,
		"User:one by role broker at Group:acme/g1: +1 -2 " + can,
		"User:pat by self at : +0 -1 " + self,
		"User:proxy by grant g-1 at : +0 -1 claim.view",
		"User:proxy by grant g-2 at Group:acme/g2: +1 -0 claim.view",
		"User:two by role broker at Group:acme/g2: +1 -0 " + can,
		"Tenant:acme claims true",
	}
	if !reflect.DeepEqual(lines(got.Access), want) || got.Access.Records != 3 {
		t.Errorf("%d records\n%s\nwant\n%s", got.Access.Records, strings.Join(lines(got.Access), "\n"), strings.Join(want, "\n"))
	}
	if c := got.Coverages; c == nil || *c != (Coverages{Live: 2, Ends: 1}) {
		t.Errorf("coverages %+v, want 1 of 2", c)
	}
	// It is an inquiry on record, and changes nothing.
	if s.p.Graph().Tip() != tip || !reflect.DeepEqual(stateOf(s), before) || got.Revisions != 0 {
		t.Error("the dry run changed something")
	}
	if n := s.ledger.Size(); n != size+1 {
		t.Errorf("%d records of a dry run", n-size)
	}
	if e, err := s.ledger.Entry(s.ledger.Size() - 1); err != nil || e.Kind != audit.Inquiry || e.ID() != got.Record {
		t.Errorf("record %s is %s, %v", got.Record, e.Kind, err)
	}
	text := fmt.Sprint(lines(got.Access))
	if strings.Contains(text, "Person:") {
		t.Errorf("a person is named: %s", text)
	}
}

// A grant to an organisation gives its people what their roles there hold too.
func TestADryRunCountsGrantsToOrganisations(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.load(s.full("one", "2026-11-01", enrolled(2, "a", "from 2026-01-01"),
		row(0, 5, `implied node Carrier:acme/c1; node Group:acme/g2; Group:acme/g2 memberOf Carrier:acme/c1`)))
	s.know(`
		principal User:one
		User:one holds broker at Group:acme/g1
		grant g-3 org-delegate Group:acme/g1 for Group:acme/g2 can claim.view,lab.view`)
	f := s.feed("two", "acme", row(0, 2, `implied node Group:acme/g2; node Coverage:acme/n; Coverage:acme/n enrolledIn Group:acme/g2`))
	f.DryRun = true
	got := s.load(f)
	want := []string{"User:one by grant g-3 at Group:acme/g2: +1 -0 claim.view"}
	if !reflect.DeepEqual(lines(got.Access), want) {
		t.Errorf("%s\nwant\n%s", strings.Join(lines(got.Access), "\n"), strings.Join(want, "\n"))
	}
}

// The dry run also says what only the facts as a whole refuse, and what it says
// of access is what the import then does: a second reading of both, record by
// record and capability by capability, over random feeds.
func TestADryRunForetellsTheImport(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 3))
	for round := range count(6, 300) {
		s := open(t, pbm(), "2026-11-24T12:00:00Z")
		random := func(id, asOf string) Feed {
			var rows []Row
			for i := range 20 {
				if r.IntN(4) == 0 {
					continue
				}
				g := fmt.Sprint("g", 1+r.IntN(3))
				rows = append(rows, row(0, i+2, fmt.Sprintf(`implied node Carrier:acme/c1; implied Carrier:acme/c1 memberOf Tenant:acme; node Group:acme/%[1]s; Group:acme/%[1]s memberOf Carrier:acme/c1;
					node Coverage:acme/v%[2]d; Coverage:acme/v%[2]d enrolledIn Group:acme/%[1]s from 2026-0%[3]d-01; implied node Person:p%[4]d; Person:p%[4]d owns Coverage:acme/v%[2]d`, g, i, 1+r.IntN(9), r.IntN(15))))
			}
			for i := range 3 {
				if r.IntN(2) == 0 {
					rows = append(rows, row(0, 40+i, fmt.Sprintf(`principal User:u%d; User:u%d holds broker at Group:acme/g%d`, i, i, 1+r.IntN(3))))
				}
			}
			rows = append(rows, row(0, 59, `implied node Person:p1; implied node Person:p2; implied node Carrier:acme/c1; implied Carrier:acme/c1 memberOf Tenant:acme`))
			rows = append(rows, row(0, 60, `implied node Carrier:acme/c1; node Account:acme/x; Account:acme/x memberOf Account:acme/x`))
			return s.full(id, asOf, rows...)
		}
		s.load(random("one", "2026-11-01"))
		s.know(`principal User:all
			User:all holds broker at Carrier:acme/c1
			principal User:p1
			User:p1 is Person:p1
			principal User:px
			grant g-1 adult-proxy User:px for Person:p2 can claim.view`)
		now, _ := s.p.Now()
		f := random("two", "2026-11-20")
		f.DryRun = true
		dry := s.load(f)
		old := s.p.Graph().Head().Revision
		f.DryRun = false
		did := s.load(f)
		if !reflect.DeepEqual(dry.Refusals, did.Refusals) || !reflect.DeepEqual(dry.Files, did.Files) || dry.Facts != did.Facts || dry.Ended != did.Ended || dry.Voided != did.Voided {
			t.Fatalf("round %d: the dry run says\n%+v\nthe import does\n%+v", round, dry, did)
		}
		// who can do what on which record, without the importer's code
		access := func(v hierarchy.View) map[string]bool {
			all := map[string]bool{}
			for i := range 20 {
				rec := hierarchy.ID{Type: "Coverage", Tenant: "acme", Key: fmt.Sprint("v", i)}
				if !v.Known(rec) {
					continue
				}
				for _, u := range []string{"all", "u0", "u1", "u2", "p1", "px"} {
					id := hierarchy.ID{Type: "User", Key: u}
					for _, a := range v.Assignments(id) {
						if v.Reaches(rec, a.Node) {
							for _, c := range v.Capabilities(a.Role) {
								all[u+" "+rec.Key+" "+c] = true
							}
						}
					}
					for _, p := range v.Persons(id) {
						if slices.Contains(v.Owned(p), rec) {
							for _, c := range v.Capabilities("member") {
								all[u+" "+rec.Key+" "+c] = true
							}
						}
					}
					for _, g := range v.Grants(id) {
						if slices.Contains(v.Owned(g.Subject), rec) {
							for _, c := range g.Scope.Capabilities {
								all[u+" "+rec.Key+" "+c] = true
							}
						}
					}
				}
			}
			return all
		}
		was, is := access(s.p.View(now, old)), access(s.p.View(now, 0))
		type sum struct{ gains, loses int }
		want, got := map[string]sum{}, map[string]sum{}
		records := map[string]bool{}
		tally := func(here, there map[string]bool, n sum) {
			for k := range here {
				if w := strings.Fields(k); !there[k] {
					x := want[w[0]+" "+w[2]]
					want[w[0]+" "+w[2]] = sum{x.gains + n.gains, x.loses + n.loses}
					records[w[1]] = true
				}
			}
		}
		tally(is, was, sum{1, 0})
		tally(was, is, sum{0, 1})
		for _, l := range dry.Access.Lines {
			for _, c := range l.Capabilities {
				k := strings.TrimPrefix(l.Principal, "User:") + " " + c
				got[k] = sum{got[k].gains + l.Gains, got[k].loses + l.Loses}
			}
		}
		if !reflect.DeepEqual(got, want) || dry.Access.Records != len(records) {
			t.Fatalf("round %d: the dry run foretells %v of %d records, what changed is %v of %d", round, got, dry.Access.Records, want, len(records))
		}
	}
}

func TestADryRunBesideAnOpenImport(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	ctx, cancel := context.WithCancel(context.Background())
	f := s.feed("one", "acme", enrolled(2, "v1", ""), row(1, 2, `node Coverage:acme/y`))
	f.Progress = func(Progress) { cancel() }
	if _, err := s.p.Import(ctx, f); err == nil {
		t.Fatal("the interrupted import says that it is complete")
	}
	dry := s.feed("two", "acme", enrolled(2, "v1", ""))
	dry.DryRun = true
	s.counts(s.load(dry), 0, "1 rows, 1 loaded, 0 unchanged, 0 refused, 2 implied")
	if len(s.p.Graph().Imports()) != 1 {
		t.Error("the open import is gone")
	}
}
