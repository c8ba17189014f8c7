//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package audit

import (
	"errors"
	"io"
)

// Lock refuses: without a lock that ends with the process, two writers could
// open one ledger.
func (osFS) Lock(string) (io.Closer, error) {
	return nil, errors.New("audit: no file lock on this system; a ledger can only be read here")
}
