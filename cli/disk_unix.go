//go:build linux || darwin

package cli

import "syscall"

// freeSpace returns how many bytes ward's user may still write at a path.
func freeSpace(path string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
