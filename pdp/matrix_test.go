package pdp

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"iter"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

var update = flag.Bool("update", false, "write testdata/matrix/pbm.golden")

const matrixFile = "../testdata/matrix/pbm.golden"

const matrixLegend = `# The permission matrix of the shipped pack: what is allowed, and by which policies.
# Written by: go test ./pdp -run TestThePermissionMatrix -update
#
# who       a role; a grant's type, held by somebody without a role; nobody: any principal at all
# relation  where the role is held, as seen from the record:
#             operator, tenant, group (lowest organisations above it), elsewhere (another tenant),
#             network, partner (the pharmacy, prescriber, covered entity and site that it names),
#             self (at the tenant, and the record is their own),
#             org-delegate (at another tenant's organisation, which has a grant over the tenant),
#             emergency (at the tenant, and an emergency for this patient)
#           or granted: a grant of that type about the record's owner
# role      by the role alone; then with a grant that is live, expired, revoked, void, and with an
#           emergency that is open, stale
# features, routes  shown and answered (in the area of the tenant, or of the network for network and
#           partner), by capability of the action's name
#
# A record is routine, about one adult (a minor for the grants that end at majority), by another author,
# assigned to who asks, of 11 members at least, asked with a second factor and within a call.
# Also allowed (+): b behavioral, r reproductive, p part 2 of 42 CFR, m a minor's own consent,
# n figures that name members, l a list of many members; e is listed where a tenant that has set
# employerSeesMember changes the answer. A mark with policies (+e:record.by-role) has others than the rest.
# What nobody needs a role for is listed once; self lists what its role and the member do not have alone.

`

// lines writes one row: a line for each action that it allows anything of, in
// whichever of its columns.
func (m *matrix) lines(row matrixRow) []string {
	known := answers{map[string]string{}, map[string]bool{}, map[string]bool{}}
	elsewhere := map[string][]string{} // cells that are listed elsewhere, by question
	for _, id := range row.known {
		a := m.answers(id, row.person, row.area)
		for q, cell := range a.cells {
			elsewhere[q] = append(elsewhere[q], cell)
		}
		maps.Copy(known.features, a.features)
		maps.Copy(known.routes, a.routes)
	}
	cells := map[string][]string{}
	features, routes := map[string][]string{}, map[string][]string{}
	alone := answers{}
	for i, column := range matrixColumns {
		who, asked := row.columns[column.name]
		if !asked {
			continue
		}
		a := m.answers(who, row.person, row.area)
		for q, cell := range a.cells {
			if slices.Contains(elsewhere[q], cell) || column.name != "role" && alone.cells[q] == cell {
				continue
			}
			if column.dead {
				m.t.Errorf("%s %s %s: allowed %s by %s", row.who, row.relation, column.name, q, cell)
			}
			if cells[q] == nil {
				cells[q] = make([]string, len(matrixColumns))
			}
			cells[q][i] = cell
		}
		shows := func(into map[string][]string, seen, known, alone map[string]bool, capability func(id string) string) {
			for id := range seen {
				if known[id] || alone[id] {
					continue
				}
				if column.dead {
					m.t.Errorf("%s %s %s: %s answers", row.who, row.relation, column.name, id)
				}
				into[capability(id)] = append(into[capability(id)], id)
			}
		}
		shows(features, a.features, known.features, alone.features, func(id string) string { return m.cat.Features[id].Capability })
		shows(routes, a.routes, known.routes, alone.routes, func(id string) string { return m.cat.Routes[id].Capability })
		if column.name == "role" {
			alone = a
		}
	}
	names := map[string]bool{}
	for _, m := range []map[string][]string{cells, features, routes} {
		for name := range m {
			names[name] = true
		}
	}
	var out []string
	for _, name := range sorted(names) {
		w := []string{row.who, name, row.relation}
		for i := range matrixColumns {
			cell := ""
			if cells[name] != nil {
				cell = cells[name][i]
			}
			w = append(w, cmp.Or(cell, "-"))
		}
		slices.Sort(features[name])
		slices.Sort(routes[name])
		w = append(w, cmp.Or(strings.Join(features[name], ","), "-"), cmp.Or(strings.Join(routes[name], ","), "-"))
		out = append(out, strings.Join(w, "\t"))
	}
	return out
}

// each runs f for 0 to n-1, on every processor.
func each(n int, f func(i int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}

// matrixExempt lists what does not appear in the matrix, and why. It only shrinks.
var matrixExempt = map[string]string{
	"who smart-app":        "holds nothing: an app acts by the grant of the person who connected it (app-connection)",
	"who support":          "holds nothing: support examines Ward and sees no answer of it",
	"who broker-of-record": "the same as org-delegate, cell by cell: below",
}

func TestThePermissionMatrix(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	rows := make([][]string, len(m.rows))
	each(len(m.rows), func(i int) { rows[i] = m.lines(m.rows[i]) })

	var b bytes.Buffer
	b.WriteString(matrixLegend)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	who := ""
	named := map[string]bool{} // what appears
	for i, row := range m.rows {
		if who != row.who && len(rows[i]) > 0 { // each has columns of its own width
			w.Flush()
			if who != "" {
				b.WriteString("\n")
			}
			fmt.Fprint(w, "who\taction\trelation")
			for _, c := range matrixColumns {
				fmt.Fprint(w, "\t", c.name)
			}
			fmt.Fprintln(w, "\tfeatures\troutes")
			who = row.who
		}
		for _, line := range rows[i] {
			fmt.Fprintln(w, line)
			cells := strings.Split(line, "\t")
			action, _, _ := strings.Cut(cells[1], "/")
			if row.relation == "elsewhere" {
				t.Errorf("another tenant's: %s", line)
			}
			if slices.ContainsFunc(cells[3:len(cells)-2], func(c string) bool { return c != "-" }) {
				named["action "+action] = true
				if a := m.cat.Actions[action]; a != nil {
					named["resource "+a.Resources[0]] = true
				}
			}
			named["who "+row.who], named["who "+row.relation] = true, true
			for i, kind := range []string{"feature", "route"} {
				if list := cells[len(cells)-2+i]; list != "-" {
					named["resource "+kind], named["action "+map[string]string{"feature": "feature.see", "route": "route.call"}[kind]] = true, true
					for _, id := range strings.Split(list, ",") {
						named[kind+" "+id] = true
					}
				}
			}
		}
	}
	w.Flush()
	if *update {
		must(t, os.WriteFile(matrixFile, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(matrixFile)
	must(t, err)
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("the matrix has changed: review the difference after go test ./pdp -run TestThePermissionMatrix -update")
		lines := func(text []byte) (out []string) { // the widths of columns are of no interest
			for _, line := range strings.Split(string(text), "\n") {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
			return out
		}
		report := func(sign string, lines, others []string) {
			for _, line := range lines {
				if !slices.Contains(others, line) {
					t.Log(sign, line)
				}
			}
		}
		report("-", lines(want), lines(b.Bytes()))
		report("+", lines(b.Bytes()), lines(want))
	}
	for typ := range m.cat.Nodes {
		if m.nodes[typ] == "" && typ != hierarchy.PersonType {
			t.Errorf("the world of the matrix has no %s", typ)
		}
	}
	var all []string
	for kind, ids := range map[string]iter.Seq[string]{
		"action": maps.Keys(m.cat.Actions), "resource": maps.Keys(m.cat.Resources), "feature": maps.Keys(m.cat.Features),
		"route": maps.Keys(m.cat.Routes), "who": maps.Keys(m.cat.GrantTypes)} {
		for id := range ids {
			all = append(all, kind+" "+id)
		}
	}
	for _, r := range m.cat.Roles {
		if !m.cat.Reserved(r.Name) {
			all = append(all, "who "+r.Name)
		}
	}
	for _, x := range all {
		if !named[x] && matrixExempt[x] == "" {
			t.Errorf("the matrix allows nobody anything of this: %s", x)
		}
	}
	for x := range matrixExempt {
		if named[x] || !slices.Contains(all, x) {
			t.Errorf("%s is in the matrix, or gone: take it from the exempt", x)
		}
	}
	// What is more than routine is for whom a grant names it.
	each(len(m.routine), func(i int) {
		all, none := m.routine[i][0], m.routine[i][1]
		person := m.routine[i][2].Key
		want := m.answers(all, person, "Tenant:acme")
		want.cells = maps.Clone(want.cells)
		for q, cell := range want.cells {
			want.cells[q] = strings.NewReplacer("+b", "", "+r", "", "+p", "").Replace(cell)
		}
		if got := m.answers(none, person, "Tenant:acme"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has a grant that covers nothing, and is allowed %v", none, got.cells)
		}
	})
	if a := m.answers(m.unscoped, "mia", "Tenant:acme"); len(a.cells)+len(a.features)+len(a.routes) > 0 {
		t.Errorf("a machine without a scope is allowed %v %v", a.cells, a.routes)
	}
	each(len(m.brokers), func(i int) {
		a, b := m.answers(m.brokers[i][0], "mia", "Tenant:acme"), m.answers(m.brokers[i][1], "mia", "Tenant:acme")
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s and %s have the same role and grant, and differ", m.brokers[i][0], m.brokers[i][1])
		}
	})
}

// Every route of the catalogue, at the gateway and once its service has the
// record: denied without a verified subject, to another tenant's people, on an
// ended grant, and without the capability; and allowed with it.
func TestEveryRouteIsDenied(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	routes := slices.Sorted(maps.Keys(m.cat.Routes))
	each(len(routes), func(i int) {
		route := m.cat.Routes[routes[i]]
		var questions []question
		for _, q := range m.questions {
			if q.action == route.Action && q.resource == route.Resource && q.of != "as-grantee" {
				questions = append(questions, q)
			}
		}
		if len(questions) == 0 {
			t.Errorf("%s: no question of the matrix is what it asks about a record", route.ID)
		}
		allowed := 0
		for _, kind := range []string{"User", "AppClient"} {
			name := m.by(hierarchy.ID{Type: kind}).Subject.Type
			who := func(key string) hierarchy.ID { return hierarchy.ID{Type: kind, Key: key} }
			denied := func(whose, what string, v authz.Verdict, code authz.Code) {
				if v.Effect == authz.Allow || v.Code != code {
					t.Errorf("%s: %s of a %s %s: %s, want %s", route.ID, what, name, whose, v.Code, code)
				}
			}
			// The route, in the area of the tenant.
			door := func(key string) authz.Verdict { return m.door(who(key), policies.KindRoute, route.ID, "Tenant:acme") }
			if v := door("all"); v.Effect != authz.Allow {
				t.Errorf("%s: the route of a %s with every capability: %s", route.ID, name, v.Code)
			}
			denied("without the capability", "the route", door("but-"+route.Capability), authz.Denied)
			denied("of another tenant", "the route", door("elsewhere"), authz.NoStanding)
			denied("whose grants have ended", "the route", door("ended"), authz.NoStanding)
			r := m.coarse(who("all"), policies.KindRoute, route.ID, "Tenant:acme")
			r.Subject = authz.Subject{Type: r.Subject.Type, ID: r.Subject.ID}
			denied("that is not verified", "the route", m.judge(m.plain, r, nil), authz.SubjectUnverified)
			// The record.
			for _, q := range questions {
				if !slices.Contains(m.cat.Actions[q.action].Principals, name) {
					continue
				}
				record := func(key string) authz.Verdict { return m.record(who(key), "mia", q, -1) }
				if record("all").Effect == authz.Allow {
					allowed++
				}
				without := "but-" + q.action
				if k := m.cat.Resources[q.resource].Kind; k == policies.KindGrant || k == policies.KindEmergency {
					without = "none" // their capabilities have other names
				}
				denied("without the capability", "the record", record(without), authz.Denied)
				denied("of another tenant", "the record", record("elsewhere"), authz.NoStanding)
				denied("whose grants have ended", "the record", record("ended"), authz.GrantEnded)
				r, draft := m.request(who("all"), "mia", q, -1)
				r.Subject = authz.Subject{Type: r.Subject.Type, ID: r.Subject.ID}
				denied("that is not verified", "the record", m.judge(m.plain, r, draft), authz.SubjectUnverified)
			}
		}
		if allowed == 0 {
			t.Errorf("%s: %s is allowed to nobody with every capability", route.ID, route.Action)
		}
	})
}
