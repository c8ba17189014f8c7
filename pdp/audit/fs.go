package audit

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// fileSystem is the seam through which the ledger and the keys reach the disk.
// There is one implementation, [osFS]; the tests add one that loses power and
// one that fails at a chosen operation.
//
// An entry of a folder (a new file or folder, a new name, none) is durable only after
// SyncDir of that folder; the content and size of a file only after Sync.
type fileSystem interface {
	OpenFile(name string, flag int, perm fs.FileMode) (file, error)
	Mkdir(name string, perm fs.FileMode) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Rename(from, to string) error
	Remove(name string) error
	Exists(name string) bool
	SyncDir(name string) error
	Lock(name string) (io.Closer, error) // creates the file; ErrLocked if another process holds it
}

// file is an open file. Sync makes its content and size durable.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
}

type osFS struct{}

// Lock takes a lock that ends with the process, by a file that it makes;
// [ErrLocked] if another holds it. A ledger and its keys have their own.
func Lock(name string) (io.Closer, error) { return osFS{}.Lock(name) }

type osFile struct{ *os.File }

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Mkdir(name string, perm fs.FileMode) error  { return os.Mkdir(name, perm) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Rename(from, to string) error               { return os.Rename(from, to) }
func (osFS) Remove(name string) error                   { return os.Remove(name) }

func (osFS) Exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Size moves the place of reads and writes, of which there are none but at an offset.
func (f osFile) Size() (int64, error) { return f.Seek(0, io.SeekEnd) }

// writeSync writes to a file, and makes that durable.
func writeSync(f file, b []byte, off int64) error {
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return f.Sync()
}

// writeFile creates a new file with the content, and makes both the content
// and, through its folder, the name durable. It never replaces a file.
func writeFile(fsys fileSystem, name string, content []byte) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(writeSync(f, content, 0), f.Close()); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// newSuffix is that of a file's next content, until it is in place.
const newSuffix = ".new"

// replaceFile puts a file in place durably and at once: whoever comes after a
// crash finds the old one or the new one, whole.
func replaceFile(fsys fileSystem, name string, content []byte) error {
	if err := freshFile(fsys, name+newSuffix, content); err != nil {
		return err
	}
	return moveInto(fsys, name)
}

// moveInto puts a file's next content in place.
func moveInto(fsys fileSystem, name string) error {
	if err := fsys.Rename(name+newSuffix, name); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// freshFile is writeFile in place of what a crash may have left.
func freshFile(fsys fileSystem, name string, content []byte) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeFile(fsys, name, content)
}

// readFile reads a file of at most limit bytes.
func readFile(fsys fileSystem, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, limit))
}

// makeDir makes a new folder, 0700, and its name durable.
func makeDir(fsys fileSystem, name string) error {
	if err := fsys.Mkdir(name, 0o700); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// resolve gives the real path of name, which need not exist yet in its folder.
func resolve(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(dir, filepath.Base(abs)), nil
	}
	return abs, err
}

// inside reports whether path a is b or lies below it.
func inside(a, b string) bool {
	rel, err := filepath.Rel(b, a)
	return err == nil && filepath.IsLocal(rel)
}
