package pdp

import (
	"sync"
	"time"

	"github.com/ward-authz/ward/pdp/authz"
)

// rates holds callers to the rates that they are registered with. What ends
// access, or opens an emergency, waits for no rate: one who floods a portal would
// keep the others from it.
type rates struct {
	now func() time.Time // nil is the machine's clock

	mu sync.Mutex
	of map[string]*allowance // by caller
}

// allowance is how many answers a caller may still have, and when that was so.
type allowance struct {
	left float64
	at   time.Time
}

// take counts n answers against a caller's rate, or refuses them. A batch may
// take more than is left, which later requests then wait for.
func (r *rates) take(c authz.Caller, n int) error {
	if c.Rate <= 0 {
		return nil
	}
	now := time.Now
	if r.now != nil {
		now = r.now
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.of[c.Name]
	if a == nil {
		if r.of == nil {
			r.of = map[string]*allowance{}
		}
		a = &allowance{left: float64(2 * c.Rate), at: now()}
		r.of[c.Name] = a
	}
	t := now()
	a.left = min(float64(2*c.Rate), a.left+t.Sub(a.at).Seconds()*float64(c.Rate))
	a.at = t
	if a.left < 1 {
		return &authz.Error{Kind: authz.Refused, Code: authz.RateLimited, Text: "the caller asks more often than it is registered to: try again later"}
	}
	a.left -= float64(n)
	return nil
}
