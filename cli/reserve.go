package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ward-authz/ward/pdp/authz"
)

// The reserve is what must be free on the disks of ledger and store: below it
// readiness fails, so that requests go elsewhere before a write does. Unless the
// configuration says how much, it is a twentieth of the disk, within bounds.
const (
	leastReserve = 256 << 20
	mostReserve  = 10 << 30
)

// reserveOf returns the reserve on a disk of a size.
func (c *config) reserveOf(size uint64) uint64 {
	if c.reserve > 0 {
		return c.reserve
	}
	return min(max(size/20, leastReserve), mostReserve)
}

// diskSpace looks at the disk of a folder.
func (c *config) diskSpace(dir string) (free, size uint64, err error) {
	if c.space != nil {
		return c.space(dir)
	}
	return diskSpace(dir)
}

// room says that less than the reserve is free, or nil. A disk that cannot be
// looked at is taken for full, but where no system can tell.
func (c *config) room() error {
	for _, dir := range []string{c.data, c.ledger()} {
		free, size, err := c.diskSpace(dir)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return &authz.Error{Kind: authz.Outage, Code: authz.DiskReserve, Text: "how much is free on the disk cannot be told", Err: err}
		}
		if reserve := c.reserveOf(size); free < reserve {
			return &authz.Error{Kind: authz.Outage, Code: authz.DiskReserve,
				Text: fmt.Sprintf("%d MiB are free on the disk, less than the reserve of %d: make room", free>>20, reserve>>20)}
		}
	}
	return nil
}

// readSize reads a size such as "512MiB" or "20GiB".
func readSize(s string) (uint64, bool) {
	for suffix, unit := range map[string]uint64{"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseUint(digits, 10, 20)
			return n * unit, err == nil
		}
	}
	return 0, false
}
