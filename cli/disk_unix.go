//go:build linux || darwin

package cli

import "syscall"

// diskSpace returns how many bytes ward's user may still write at a path, and
// how many its file system has.
func diskSpace(path string) (free, size uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
