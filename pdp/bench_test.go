package pdp

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// BenchmarkJudge measures a decision without its record: the shipped pack, and
// the same with more policies about other places, so that a scan would have to
// look at all of them.
func BenchmarkJudge(b *testing.B) {
	for _, n := range []int{0, 100, 1000, 10000} {
		s := open(b, pbm(), "2026-11-24T12:00:00Z")
		s.know(client)
		set := crowded(b, n)
		for name, r := range map[string]authz.Request{
			"record": request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...),
			"coarse": request("shell", "user:bo", "feature.see", "feature:claims.search"),
		} {
			b.Run(fmt.Sprintf("%s/policies=%d", name, len(set.Policies())), func(b *testing.B) {
				w, err := s.p.world(s.p.current.Load())
				must(b, err)
				w.set, w.confers = set, confers(s.p.graph, set)
				b.ReportAllocs()
				for b.Loop() {
					a := convert(&r, set.Catalogue())
					if j := w.judge(&a); !j.verdict.Effect {
						b.Fatal(j.verdict.Code)
					}
				}
			})
		}
	}
}

// crowded returns the shipped pack with n more permits, each at a place of its own.
func crowded(b *testing.B, n int) *policies.Set {
	files := map[string][]byte{}
	for k, v := range policies.PBM() {
		files[k] = v
	}
	var text []byte
	for i := range n {
		text = fmt.Appendf(text, "@id(\"more.%d\") permit (principal is PBM::User, action == PBM::Action::\"claim.view\", resource in PBM::Scope::\"Group:acme/no%d\");\n", i, i)
		if len(text) > 500_000 {
			files[fmt.Sprintf("more%d.cedar", i)] = text
			text = nil
		}
	}
	if len(text) > 0 {
		files["more.cedar"] = text
	}
	set, err := policies.Compile(files)
	must(b, err)
	return set
}

// BenchmarkDecide measures a decision with its durable record.
func BenchmarkDecide(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, pbm(), "2026-11-24T12:00:00Z")
			s.know(client)
			r := request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
			b.ReportAllocs()
			before := s.ledger.Size()
			defer func() {
				var bytes, records int
				for e, err := range s.ledger.Scan(before) {
					must(b, err)
					bytes, records = bytes+len(e.Body), records+1
					if records == 100 {
						break
					}
				}
				b.ReportMetric(float64(bytes)/float64(records), "bytes/record")
			}()
			b.SetParallelism(callers / runtime.GOMAXPROCS(0))
			if callers == 1 {
				for b.Loop() {
					if d, err := s.p.Decide(context.Background(), r); err != nil || !d.Allowed() {
						b.Fatal(d.Code, err)
					}
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if d, err := s.p.Decide(context.Background(), r); err != nil || !d.Allowed() {
						b.Error(d.Code, err)
						return
					}
				}
			})
		})
	}
}
