package pdp

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
	"github.com/ward-authz/ward/policies/officialtest"
)

// attempts returns the question of every attempt that the set's tests lead to,
// and questions about Ward's own actions.
func attempts(t *testing.T, set *policies.Set) []*policies.Question {
	t.Helper()
	var out []*policies.Question
	worlds := map[string]*hierarchy.Graph{}
	for _, c := range set.Cases() {
		if worlds[c.File] == nil {
			g, err := testGraph(set, c.Facts)
			must(t, err)
			worlds[c.File] = g
		}
		for _, a := range judgeCase(set, worlds[c.File], c).attempts {
			out = append(out, a.question)
		}
	}
	here, there := policies.Ref{Type: "Ward::Scope", ID: "Tenant:acme"}, policies.Ref{Type: "Ward::Scope", ID: "Tenant:zenith"}
	for _, name := range slices.Sorted(maps.Keys(set.Catalogue().Actions)) {
		if !slices.Contains(set.Catalogue().Actions[name].Resources, ObjectType) {
			continue
		}
		for _, tags := range []map[string][]policies.Ref{nil, {name: {here}}, {name: {there}}} {
			out = append(out, &policies.Question{
				Principal: policies.Entity{Ref: policies.Ref{Type: "Ward::Admin", ID: "ana"}, Tags: tags},
				Action:    name,
				Resource:  policies.Entity{Ref: policies.Ref{Type: "Ward::Object", ID: "it"}, Parents: []policies.Ref{here}},
				Context:   map[string]policies.Value{"now": policies.Datetime(1)},
			})
		}
	}
	return out
}

// The official engine decides as Ward's: what every test of every pack asks,
// which conforms to the schema there, and random departures from it.
func TestOfficialDecisions(t *testing.T) {
	e := officialtest.Open(t, "../policies")
	packs := packsOfTheRepository(t)
	for _, name := range slices.Sorted(maps.Keys(packs)) {
		files := packs[name]
		set, err := policies.Compile(files)
		must(t, err)
		asked := attempts(t, set)
		conforming := len(asked)
		rng := rand.New(rand.NewPCG(1, 0))
		for i := range count(4, 100) * conforming {
			asked = append(asked, depart(rng, asked[:conforming], i%conforming))
		}
		questions := make([]officialtest.Question, len(asked))
		for i, q := range asked {
			questions[i] = officialtest.Question{Encoded: policies.Encode(q), Conforms: i < conforming}
		}
		differ, allowed, failing := 0, 0, 0
		for i, official := range e.Ask(t, files, questions).Answers {
			own := inOfficialTerms(set.Evaluate(asked[i]))
			if own.Allow {
				allowed++
			}
			if len(own.Errors) > 0 {
				failing++
			}
			if official.Failure != "" || own.Allow != official.Allow || !slices.Equal(own.Reasons, official.Reasons) || !slices.Equal(own.Errors, official.Errors) {
				if differ++; differ <= 5 {
					t.Errorf("%s: question %d: Ward says %+v, the official engine %+v\n%s", name, i, own, official, questions[i].Encoded)
				}
			}
		}
		if name == "pbm" && (allowed < len(asked)/10 || failing < len(asked)/10) {
			t.Errorf("%d of %d questions are allowed, %d have errors: the trial says little", allowed, len(asked), failing)
		}
		t.Logf("%s: %d tests lead to %d questions, with %d departures: %d allowed, %d with errors, %d differences",
			name, len(set.Cases()), conforming, len(asked)-conforming, allowed, failing, differ)
	}
}

// packsOfTheRepository returns the files of the shipped pack and of those in testdata.
func packsOfTheRepository(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	packs := map[string]map[string][]byte{"pbm": policies.PBM()}
	const dir = "../testdata/packs"
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, entry := range entries {
		packs[entry.Name()], err = policies.ReadPack(os.DirFS(dir + "/" + entry.Name()))
		must(t, err)
	}
	return packs
}

// inOfficialTerms says an outcome as the official engine does: the reasons are
// the policies that determine the answer.
func inOfficialTerms(o policies.Outcome) officialtest.Answer {
	a := officialtest.Answer{Allow: o.Cedar == authz.Allow}
	reasons := o.Forbids
	if a.Allow {
		reasons = o.Permits
	}
	for _, p := range reasons {
		a.Reasons = append(a.Reasons, p.ID)
	}
	for _, e := range o.Errors {
		a.Errors = append(a.Errors, e.Policy.ID)
	}
	return a
}

// depart returns question i with a few parts dropped, turned around or taken from
// another one.
func depart(rng *rand.Rand, pool []*policies.Question, i int) *policies.Question {
	q := *pool[i]
	q.Context, q.Others = maps.Clone(q.Context), slices.Clone(q.Others)
	q.Principal.Attrs, q.Principal.Tags, q.Resource.Attrs = maps.Clone(q.Principal.Attrs), maps.Clone(q.Principal.Tags), maps.Clone(q.Resource.Attrs)
	for range 1 + rng.IntN(3) {
		r := pool[rng.IntN(len(pool))]
		switch rng.IntN(8) {
		case 0, 1:
			departIn(rng, q.Resource.Attrs, r.Resource.Attrs)
		case 2:
			departIn(rng, q.Principal.Attrs, r.Principal.Attrs)
		case 3:
			departIn(rng, q.Context, r.Context)
		case 4, 5: // held here, elsewhere, or not
			if len(q.Principal.Tags) == 0 {
				continue
			}
			c := one(rng, slices.Sorted(maps.Keys(q.Principal.Tags)))
			switch rng.IntN(3) {
			case 0:
				q.Principal.Tags[c] = q.Resource.Parents
			case 1:
				q.Principal.Tags[c] = r.Resource.Parents
			default:
				delete(q.Principal.Tags, c)
			}
		case 6:
			if q.Resource.Parents = r.Resource.Parents; rng.IntN(2) == 0 {
				q.Action = r.Action
			}
		case 7: // the grant or emergency is not there
			if len(q.Others) > 0 {
				q.Others = slices.Delete(q.Others, 0, 1)
			}
		}
	}
	return &q
}

// departIn changes one field.
func departIn(rng *rand.Rand, fields, others map[string]policies.Value) {
	if len(fields) == 0 {
		return
	}
	name := one(rng, slices.Sorted(maps.Keys(fields)))
	if v, ok := others[name]; ok && rng.IntN(2) == 0 {
		fields[name] = v
		return
	}
	switch v := fields[name].(type) {
	case bool:
		fields[name] = !v
	case int64:
		fields[name] = v + 1 - 2*rng.Int64N(2)
	default:
		delete(fields, name)
	}
}

func one[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }
