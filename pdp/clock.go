package pdp

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Limits of the clock.
const (
	// maxStepBack is how far the wall clock may lie behind the last durable
	// record or fact before decisions stop; within it `now` stands still.
	maxStepBack = time.Second
	// maxDrift is how far the wall clock may move against the monotonic one.
	maxDrift = 5 * time.Second
)

// clock gives the one reading of `now` that a request uses. It never goes
// backwards and never precedes what is already written.
type clock struct {
	// read returns the wall time, and how far the monotonic clock has moved
	// since start.
	read  func() (wall time.Time, monotonic time.Duration)
	start time.Time

	mu   sync.Mutex
	last hierarchy.Instant
}

// newClock reads the machine's clocks, or the given one alone.
func newClock(given func() time.Time) *clock {
	if given != nil {
		start := given()
		return &clock{start: start, read: func() (time.Time, time.Duration) { t := given(); return t, t.Sub(start) }}
	}
	start := time.Now()
	return &clock{start: start.Round(0), read: func() (time.Time, time.Duration) { t := time.Now(); return t.Round(0), t.Sub(start) }}
}

// now returns the instant to decide at, or an outage when the clock cannot be
// trusted.
func (c *clock) now() (hierarchy.Instant, error) {
	t, monotonic := c.read()
	if drift := t.Sub(c.start) - monotonic; drift > maxDrift || drift < -maxDrift {
		return 0, &authz.Error{Kind: authz.Outage, Code: authz.ClockFailed, Text: "the wall clock moved against the monotonic clock: restart after the clock is right"}
	}
	now := hierarchy.At(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if now < c.last {
		if time.Duration(c.last-now)*time.Millisecond > maxStepBack {
			return 0, &authz.Error{Kind: authz.Outage, Code: authz.ClockFailed, Text: "the clock is behind the last durable record: set it right"}
		}
		now = c.last
	}
	c.last = now
	return now, nil
}

// notBefore makes sure that no reading precedes t.
func (c *clock) notBefore(t hierarchy.Instant) {
	c.mu.Lock()
	c.last = max(c.last, t)
	c.mu.Unlock()
}

// parseIP reads an address or a CIDR range; IPv4-mapped IPv6 addresses become
// IPv4, so that a range matches whatever way the address was written.
func parseIP(s string) (policies.Value, bool) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, false
		}
		if a := p.Addr(); a.Is4In6() {
			if p.Bits() < 96 {
				return nil, false
			}
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		return policies.IPAddr(p.String()), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return nil, false
	}
	return policies.IPAddr(a.Unmap().String()), true
}
