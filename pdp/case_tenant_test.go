package pdp

import (
	"context"
	"strings"
	"testing"

	"github.com/ward-authz/ward/pdp/audit"
)

// TestATenantsCaseNamesNoOther: what another tenant's facts say of somebody who
// works for both is not handed out with one tenant's part.
func TestATenantsCaseNamesNoOther(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client + `
	principal User:two
	User:two holds tpa-ops at Group:acme/g2
	User:two holds tpa-ops at Group:zeta/g1
`)
	acme := claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-08-01", "routine")
	seq, bea := s.asks(claimOf("two", acme...)), s.asks(claimOf("bea", acme...))
	must(t, s.ledger.Close())
	dir, err := s.caseOf([]string{"acme"}, seq, bea)
	must(t, err)
	for name, f := range dir {
		if strings.Contains(string(f.Data), "zeta") && !strings.HasSuffix(name, casePolicies) {
			t.Errorf("%s names the other tenant", name)
		}
	}
	c, err := OpenCase(dir)
	must(t, err)
	for seq, want := range map[uint64]KeyStatus{seq: KeyWithheld, bea: ""} {
		if r, err := c.Replay(context.Background(), seq); err != nil || r.Key != want || len(r.Differences) > 0 {
			t.Errorf("%s: %+v %v, want %q", audit.ID(seq), r, err, want)
		}
	}
	if dir, err = s.caseOf([]string{"acme", "zeta"}, seq); err != nil {
		t.Fatal(err)
	}
	if items, different, err := replayCase(dir); items != 1 || different != 0 || err != nil {
		t.Error(items, different, err)
	}
}
