package cli

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

// TestCarveIsABruteForceReading applies what carve returns to choices that do not
// overlap, and reads every instant: nothing holds within, all as before outside.
func TestCarveIsABruteForceReading(t *testing.T) {
	const span = 40 // hours; the sides beyond are open
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(h int) hierarchy.Instant { return hierarchy.At(start.Add(time.Duration(h) * time.Hour)) }
	side := func(h int, open hierarchy.Instant) hierarchy.Instant {
		if h <= 0 || h >= span {
			return open
		}
		return at(h)
	}
	type held struct {
		hierarchy.Interval
		value any
	}
	for seed := range 3000 {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		before := map[string]held{}
		var chosen []admin.Choice
		for h := rng.IntN(4); h < span; {
			to := h + 1 + rng.IntN(12)
			v := held{hierarchy.Interval{From: side(h, hierarchy.Never), To: side(to, hierarchy.Forever)}, fmt.Sprint("v", h)}
			fact := fmt.Sprintf("f1.%d", len(chosen))
			before[fact] = v
			chosen = append(chosen, admin.Choice{Tenant: "Tenant:acme", Set: v.value, Fact: admin.Fact{Fact: fact,
				Valid: admin.Interval{From: admin.TimeOf(v.From), To: admin.TimeOf(v.To)}, Value: map[string]any{"name": "s"}}})
			h = to + rng.IntN(2)*rng.IntN(6)
		}
		from := rng.IntN(span)
		within := hierarchy.Interval{From: side(from, hierarchy.Never), To: side(from+1+rng.IntN(span), hierarchy.Forever)}
		after := map[string]held{}
		for f, v := range before {
			after[f] = v
		}
		for n, e := range carve(chosen, within) {
			switch {
			case e.Void != "":
				delete(after, e.Void)
			case e.End != "":
				v := after[e.End]
				end := hierarchy.At(time.Time(e.At))
				if end <= v.From || end >= v.To {
					t.Fatalf("seed %d: %s ends at %s, which is not within its time", seed, e.End, end)
				}
				v.To = end
				after[e.End] = v
			default:
				in, err := pdp.EventOf(e.Assert, e.Fields, e.Zone)
				if err != nil || in.Setting.Name != "s" || in.Setting.Tenant.String() != "Tenant:acme" {
					t.Fatalf("seed %d: %+v: %v", seed, e, err)
				}
				after[fmt.Sprint("new", n)] = held{in.Valid, in.Setting.Value}
			}
		}
		read := func(facts map[string]held, i hierarchy.Instant) (found []any) {
			for _, v := range facts {
				if v.Holds(i) {
					found = append(found, v.value)
				}
			}
			return found
		}
		for h := -1; h <= span+1; h++ {
			want := read(before, at(h))
			if within.Holds(at(h)) {
				want = nil
			}
			if got := read(after, at(h)); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("seed %d: at hour %d %v, want %v; within %v", seed, h, got, want, within)
			}
		}
	}
}
