package pdp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/policies"
)

// TestShippedPackUnderMutation holds the shipped pack's tests to their score.
func TestShippedPackUnderMutation(t *testing.T) {
	if testing.Short() {
		t.Skip("without -short only")
	}
	set, err := policies.Compile(policies.PBM())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	score, err := Mutate(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d killed, %.1f %%, %d refused, %v", score.Killed, score.Mutants, score.Percent(), score.Refused, time.Since(began))
	for _, m := range score.Survivors {
		t.Logf("survives: %s: %s", m.Kind, m)
	}
	if score.Percent() < 95 {
		t.Errorf("the shipped pack's tests notice %.1f %% of what is dropped or flipped; want 95", score.Percent())
	}
}

// TestUntestedPolicyIsReported plants a rule that no test asks about.
func TestUntestedPolicyIsReported(t *testing.T) {
	files, err := policies.ReadPack(os.DirFS("../testdata/packs/certification"))
	if err != nil {
		t.Fatal(err)
	}
	files["planted.cedar"] = []byte(`// Nobody asks about it.
@id("record.planted")
permit (principal is Cert::User, action == Cert::Action::"read", resource is Cert::Record)
when { principal has role && principal.role == "intruder" };
`)
	set, err := policies.Compile(files)
	if err != nil {
		t.Fatal(err)
	}
	score, err := Mutate(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range score.Survivors {
		if m.Policy == "record.planted" {
			got = append(got, fmt.Sprintf("%d %s %s", m.Line, m.Kind, m.Change))
		}
		if m.File == "" || m.Change == "" {
			t.Errorf("%+v", m)
		}
	}
	// Without its second half, or flipped, it permits what another policy permits
	// too, and those tests do not say which one did.
	want := []string{
		`2 policy drop the policy`,
		`4 clause drop when { principal has role && principal.role == "intruder" }`,
		`4 conjunct drop principal.role == "intruder"`,
		`4 operator principal.role == "intruder" becomes !=`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("survivors %q, want %q", got, want)
	}
	if score.Mutants != score.Killed+len(score.Survivors) || score.Mutants+score.Refused != len(set.Mutants()) {
		t.Errorf("%d mutants, %d killed, %d refused, %d survivors of %d", score.Mutants, score.Killed, score.Refused, len(score.Survivors), len(set.Mutants()))
	}
	again, err := Mutate(t.Context(), set)
	if err != nil || !reflect.DeepEqual(score, again) {
		t.Errorf("twice is not the same: %v", err)
	}
}

// TestMutateErrors: no score without a reason to trust it.
func TestMutateErrors(t *testing.T) {
	set, err := policies.Compile(policies.PBM())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Mutate(ctx, set); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	files := policies.PBM()
	const file = "modules/labs/tests/labs.yaml"
	files[file] = []byte(strings.Replace(string(files[file]), "decision: allow", "decision: deny", 1))
	if set, err = policies.Compile(files); err != nil {
		t.Fatal(err)
	}
	if _, err := Mutate(t.Context(), set); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a failing test: %v", err)
	}
	if got := (Score{}).Percent(); got != 100 {
		t.Errorf("nothing to change: %v %%", got)
	}
}
