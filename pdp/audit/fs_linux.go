package audit

import (
	"os"
	"syscall"
)

// syncData is fdatasync: it makes the content durable, and the size where the
// file grew, but not the times.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != syscall.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
