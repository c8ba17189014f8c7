package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// failing is a file system of which one operation fails, reads included.
type failing struct {
	fileSystem
	n  int // operations so far
	at int // the one that fails
}

type failingFile struct {
	file
	fs      *failing
	written bool // else its Close loses nothing
}

func (f *failing) op() error {
	if f.n++; f.n-1 == f.at {
		return syscall.EIO
	}
	return nil
}

func (f *failing) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	if err := f.op(); err != nil {
		return nil, err
	}
	got, err := f.fileSystem.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return failingFile{got, f, flag != os.O_RDONLY}, nil
}

func (f *failing) Mkdir(name string, perm fs.FileMode) error {
	if err := f.op(); err != nil {
		return err
	}
	return f.fileSystem.Mkdir(name, perm)
}

func (f *failing) ReadDir(name string) ([]fs.DirEntry, error) {
	names, err := f.fileSystem.ReadDir(name)
	if failed := f.op(); failed != nil {
		return nil, failed
	}
	return names, err
}

func (f *failing) Rename(from, to string) error {
	return errors.Join(f.op(), f.fileSystem.Rename(from, to))
}

func (f *failing) Remove(name string) error {
	err := f.fileSystem.Remove(name)
	if failed := f.op(); failed != nil {
		return failed
	}
	return err
}

func (f *failing) SyncDir(name string) error { return errors.Join(f.op(), f.fileSystem.SyncDir(name)) }

func (f *failing) Lock(name string) (io.Closer, error) {
	if err := f.op(); err != nil {
		return nil, err
	}
	return f.fileSystem.Lock(name)
}

func (f failingFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.op(); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, off)
}

func (f failingFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.fs.op(); err != nil {
		return 0, err
	}
	return f.file.WriteAt(b, off)
}

func (f failingFile) Size() (int64, error) {
	size, err := f.file.Size()
	return size, errors.Join(f.fs.op(), err)
}

func (f failingFile) Truncate(size int64) error { return errors.Join(f.fs.op(), f.file.Truncate(size)) }
func (f failingFile) Sync() error               { return errors.Join(f.fs.op(), f.file.Sync()) }

func (f failingFile) Close() error {
	if !f.written {
		return f.file.Close()
	}
	return errors.Join(f.fs.op(), f.file.Close())
}

// life is all that is ever done with a ledger. It stops at the first error, and
// returns what was acknowledged.
func life(fsys fileSystem) (acked map[uint64]string, err error) {
	acked = map[uint64]string{}
	if err := createKeys(fsys, memKeys, "ward.example/audit/life"); err != nil {
		return acked, err
	}
	k, err := openKeys(fsys, memKeys)
	if err != nil {
		return acked, err
	}
	if err := Create(memLedger, k); err != nil {
		return acked, err
	}
	var old []byte
	for round := range 2 {
		l, _, err := Open(memLedger, k, Options{})
		if err != nil {
			return acked, err
		}
		if round == 0 {
			old = l.Checkpoint()
		}
		for i := range 6 {
			rec := payload(fmt.Sprintf("%d-%d", i%2, round*6+i), 300)
			seq, err := l.Append(ctx, rec)
			if err != nil {
				return acked, errors.Join(err, l.Close())
			}
			acked[seq] = string(rec.Parts[0].Plain)
		}
		name, err := k.NewSigner()
		if err == nil {
			was := strings.Split(k.Verifier(), "\n")
			rec := payload("0-signer", 10)
			rec.Kind, rec.Clear = Change, fmt.Appendf(nil, `{"n":"0-signer","keys":{"old":%q,"new":%q}}`, was[len(was)-1], name)
			_, err = l.Append(ctx, rec)
		}
		if err == nil {
			err = l.Adopt(name)
		}
		if err == nil {
			_, err = l.Files()
		}
		if err == nil {
			_, err = l.Consistency(3)
		}
		if err == nil {
			_, err = l.Entry(4)
		}
		if err := errors.Join(err, l.Close()); err != nil {
			return acked, err
		}
		if k, err = openKeys(fsys, memKeys); err != nil {
			return acked, err
		}
	}
	r, err := openReader(fsys, memLedger, k.Verifier())
	if err != nil {
		return acked, err
	}
	if _, err := r.Prove(5, nil); err != nil {
		return acked, err
	}
	if _, err := r.Consistency(old, nil); err != nil {
		return acked, err
	}
	e, err := r.Entry(2)
	if err != nil {
		return acked, err
	}
	if parts, err := k.Unseal(e); err != nil || !bytes.HasPrefix(parts[0].Plain, []byte("0-2")) {
		return acked, errors.Join(err, errors.New("unsealed"))
	}
	return acked, k.Destroy(k.Hash("tenant", "", "tenant-1"), dayOf(testTime-24*60*60*1000))
}

// TestEveryOperationFails fails every operation of a ledger's life in turn,
// reads included: whoever asked is told, and nothing acknowledged is lost.
func TestEveryOperationFails(t *testing.T) {
	smallSegments(t, 4)
	whole := &failing{fileSystem: newMemFS(), at: -1}
	if _, err := life(whole); err != nil {
		t.Fatal(err)
	}
	for at := range whole.n {
		m := newMemFS()
		acked, err := life(&failing{fileSystem: m, at: at})
		switch {
		case err == nil:
			t.Errorf("operation %d of %d failed, and nobody was told", at, whole.n)
		case !errors.Is(err, syscall.EIO) && !errors.Is(err, ErrFailed):
			t.Errorf("operation %d: %v", at, err)
		}
		if len(acked) > 0 {
			m.locked = map[string]bool{}
			if err := checkAcked(m, acked); err != nil {
				t.Errorf("operation %d: afterwards: %v", at, err)
			}
		}
	}
	t.Logf("%d operations, each failed once", whole.n)
}

// TestWhatOpenAndAppendRefuse: keys that were moved into the ledger's folder, and
// a class of durability that there is not.
func TestWhatOpenAndAppendRefuse(t *testing.T) {
	l, k, dir := newLedger(t, Options{})
	r := payload("0-x", 10)
	r.Durability = D2 + 1
	if _, err := l.Append(ctx, r); !errors.Is(err, ErrNoSecond) {
		t.Errorf("a class that there is not: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(dir, "keys")
	if err := os.Rename(k.dir, inside); err != nil {
		t.Fatal(err)
	}
	moved, err := OpenKeys(inside)
	if err != nil {
		t.Fatal(err)
	}
	if l, _, err := Open(dir, moved, Options{}); err == nil {
		l.Close()
		t.Error("opened with keys inside the ledger's folder")
	}
}
