package policies

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ward-authz/ward/policies/officialtest"
)

// official returns the official engine and the packs of the repository.
func official(t *testing.T) (*officialtest.Engine, map[string]map[string][]byte) {
	t.Helper()
	e := officialtest.Open(t, ".")
	packs := map[string]map[string][]byte{"pbm": PBM()}
	const dir = "../testdata/packs"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if packs[entry.Name()], err = ReadPack(os.DirFS(dir + "/" + entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return e, packs
}

// Every pack of the repository, with Ward's own set, is valid in the official
// engine, strictly and without a warning; and the engine reads the policies there
// that Ward reads.
func TestOfficialValidation(t *testing.T) {
	e, packs := official(t)
	for _, f := range e.Ask(t, nil, nil).Findings {
		t.Errorf("Ward's own set alone: %s", f)
	}
	for _, name := range sortedKeys(packs) {
		r := e.Ask(t, packs[name], nil)
		for _, f := range r.Findings {
			t.Errorf("%s: %s", name, f)
		}
		var ids []string
		for _, p := range mustCompile(t, packs[name]).Policies() {
			ids = append(ids, p.ID)
		}
		if !slices.Equal(ids, r.Policies) {
			t.Errorf("%s: Ward reads %q, the official engine %q", name, ids, r.Policies)
		}
		t.Logf("%s: %d policies, %d findings, cedar %s", name, len(r.Policies), len(r.Findings), r.Version)
	}
}

// What is wrong with a pack is found: an attribute that the schema lacks, a
// comparison of two types, a condition that never holds.
func TestOfficialValidationFinds(t *testing.T) {
	e, packs := official(t)
	files := packs["pbm"]
	for id, condition := range map[string]string{
		"planted.1": `resource.speed == 1`,
		"planted.2": `context.aal == "x"`,
		"planted.3": `resource is PBM::Lab`,
	} {
		files[id+".cedar"] = []byte(`@id("` + id + `") forbid (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim) when { ` + condition + ` };`)
	}
	got := e.Ask(t, files, nil).Findings
	slices.Sort(got)
	for i, want := range []string{"error: planted.1: ", "error: planted.2: ", "warning: planted.3: "} {
		if len(got) != 3 || !strings.HasPrefix(got[i], want) {
			t.Errorf("found %q, want one that starts with %q", got, want)
		}
	}
}
