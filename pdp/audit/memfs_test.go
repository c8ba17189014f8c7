package audit

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

const block = 4096

// memFS is a file system that can lose power. What was not synced may vanish:
// content in blocks of 4 KiB, sizes, and entries of folders each by itself.
type memFS struct {
	mu      sync.Mutex
	current map[string]*memNode
	durable map[string]*memNode
	pending []memOp // changes of folders not yet synced, in order
	locked  map[string]bool

	// before is called ahead of each operation that changes something, with
	// mu held. An error fails the operation.
	before func(op, name string) error
}

type memOp struct {
	from, to string   // from is "" but for a rename and a removal
	node     *memNode // nil for a removal
}

func (op memOp) apply(names map[string]*memNode) {
	delete(names, op.from)
	if op.node != nil {
		names[op.to] = op.node
	}
}

type memNode struct {
	dir    bool
	data   []byte
	synced []byte
	dirty  map[int64]bool
}

func newMemFS() *memFS {
	root := &memNode{dir: true}
	return &memFS{
		current: map[string]*memNode{"/": root}, durable: map[string]*memNode{"/": root},
		locked: map[string]bool{},
	}
}

func (m *memFS) op(op, name string) error {
	if m.before != nil {
		return m.before(op, name)
	}
	return nil
}

func pathErr(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

func (m *memFS) OpenFile(name string, flag int, _ fs.FileMode) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.current[name]
	switch {
	case n != nil && flag&os.O_EXCL != 0:
		return nil, pathErr("open", name, fs.ErrExist)
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathErr("open", name, fs.ErrNotExist)
	case n == nil:
		if err := m.op("create", name); err != nil {
			return nil, err
		}
		n = &memNode{dirty: map[int64]bool{}}
		m.add(memOp{"", name, n})
	}
	return &memFile{m, name, n}, nil
}

func (m *memFS) add(op memOp) {
	op.apply(m.current)
	m.pending = append(m.pending, op)
}

func (m *memFS) Mkdir(name string, _ fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current[name] != nil {
		return pathErr("mkdir", name, fs.ErrExist)
	}
	if err := m.op("mkdir", name); err != nil {
		return err
	}
	m.add(memOp{"", name, &memNode{dir: true}})
	return nil
}

type memEntry struct {
	fs.DirEntry
	name string
}

func (e memEntry) Name() string { return e.name }

func (m *memFS) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current[name] == nil {
		return nil, pathErr("open", name, fs.ErrNotExist)
	}
	var names []fs.DirEntry
	for p := range m.current {
		if p != name && filepath.Dir(p) == name {
			names = append(names, memEntry{name: filepath.Base(p)})
		}
	}
	return names, nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.op("rename", to); err != nil {
		return err
	}
	m.add(memOp{from, to, m.current[from]})
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current[name] == nil {
		return pathErr("remove", name, fs.ErrNotExist)
	}
	if err := m.op("remove", name); err != nil {
		return err
	}
	m.add(memOp{name, name, nil})
	return nil
}

func (m *memFS) Exists(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current[name] != nil
}

func (m *memFS) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.op("syncdir", name); err != nil {
		return err
	}
	rest := m.pending[:0:0]
	for _, op := range m.pending {
		if filepath.Dir(op.to) == name {
			op.apply(m.durable)
		} else {
			rest = append(rest, op)
		}
	}
	m.pending = rest
	return nil
}

type memLock struct {
	m    *memFS
	name string
}

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locked, l.name)
	return nil
}

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[name] {
		return nil, ErrLocked
	}
	m.locked[name] = true
	return memLock{m, name}, nil
}

type memFile struct {
	m    *memFS
	name string
	n    *memNode
}

func (f *memFile) Close() error { return nil }

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// errShort makes a write stop half way, as on a full disk.
var errShort = fmt.Errorf("short write: %w", syscall.ENOSPC)

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.m.op("write", f.name)
	if err == errShort {
		b = b[:len(b)/2]
	} else if err != nil {
		return 0, err
	}
	if need := off + int64(len(b)) - int64(len(f.n.data)); need > 0 {
		f.n.data = append(f.n.data, make([]byte, need)...)
	}
	copy(f.n.data[off:], b)
	for i := off / block; i*block < off+int64(len(b)); i++ {
		f.n.dirty[i] = true
	}
	return len(b), err
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.m.op("truncate", f.name); err != nil {
		return err
	}
	if size < int64(len(f.n.data)) {
		f.n.data = f.n.data[:size:size]
		f.n.dirty[size/block] = true
	}
	return nil
}

// Sync, when it fails, does what real systems do: what was not written counts
// as clean from then on, can be read, and is not on the disk.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.m.op("sync", f.name)
	if err == nil {
		f.n.sync()
	}
	clear(f.n.dirty)
	return err
}

func (n *memNode) sync() {
	old := n.synced
	n.synced = make([]byte, len(n.data))
	copy(n.synced, old)
	n.write(n.synced, func() bool { return true })
}

// write copies the dirty blocks that survive to a disk image.
func (n *memNode) write(disk []byte, survives func() bool) {
	for i := range n.dirty {
		if lo, hi := i*block, min((i+1)*block, int64(len(n.data)), int64(len(disk))); lo < hi && survives() {
			copy(disk[lo:hi], n.data[lo:hi])
		}
	}
}

// cut is the file system after a loss of power at this moment, mu held.
func (m *memFS) cut(r *rand.Rand) *memFS {
	odds := []int{0, 1, 2, 3, 4}[r.IntN(5)] // of 4
	survives := func() bool { return r.IntN(4) < odds }
	entries := maps.Clone(m.durable)
	for _, op := range m.pending {
		if survives() {
			op.apply(entries)
		}
	}
	out := newMemFS()
	for p, n := range entries {
		whole := true
		for d := filepath.Dir(p); d != "/"; d = filepath.Dir(d) {
			whole = whole && entries[d] != nil
		}
		if whole {
			c := &memNode{dir: n.dir, dirty: map[int64]bool{}}
			if !n.dir {
				c.data = n.lose(r, survives)
				c.synced = append([]byte(nil), c.data...)
			}
			out.current[p], out.durable[p] = c, c
		}
	}
	return out
}

func (n *memNode) lose(r *rand.Rand, survives func() bool) []byte {
	size := len(n.synced)
	if len(n.dirty) > 0 && len(n.data) != size {
		switch r.IntN(3) {
		case 0:
			size = len(n.data)
		case 1:
			lo, hi := min(size, len(n.data)), max(size, len(n.data))
			size = lo + r.IntN(hi-lo+1)
		}
	}
	disk := make([]byte, size)
	copy(disk, n.synced)
	n.write(disk, survives)
	return disk
}

// clone is a copy that nothing was lost of.
func (m *memFS) clone() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := newMemFS()
	for p, n := range m.current {
		c := &memNode{dir: n.dir, data: append([]byte(nil), n.data...), synced: append([]byte(nil), n.data...), dirty: map[int64]bool{}}
		out.current[p], out.durable[p] = c, c
	}
	return out
}

// files lists the files in a folder whose names do not start with skip.
func (m *memFS) files(dir, skip string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for p, n := range m.current {
		if !n.dir && filepath.Dir(p) == dir && !strings.HasPrefix(filepath.Base(p), skip) {
			names = append(names, p)
		}
	}
	return names
}

// The planted bugs: each must be caught by the harness that the ledger passes.

// lateSync acknowledges a sync at once and performs it with the next one:
// acknowledgement before sync.
type lateSync struct {
	*memFS
	mu   sync.Mutex
	late func() error
}

type lateFile struct {
	file
	fs *lateSync
}

func (s *lateSync) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := s.memFS.OpenFile(name, flag, perm)
	return &lateFile{f, s}, err
}

func (f *lateFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	late := f.fs.late
	f.fs.late = f.file.Sync
	if late != nil {
		return late()
	}
	return nil
}

// noSync never syncs a file.
type noSync struct{ *memFS }

type noSyncFile struct{ file }

func (s noSync) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := s.memFS.OpenFile(name, flag, perm)
	return noSyncFile{f}, err
}

func (noSyncFile) Sync() error { return nil }

// lateContent leaves the sync of a file that is to be renamed for later: the
// name may be durable, and the content not.
type lateContent struct{ *memFS }

func (s lateContent) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := s.memFS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, newSuffix) {
		f = noSyncFile{f}
	}
	return f, err
}

// usedAgain writes every other time what was to be written the time before, as
// if one buffer had been filled for both.
type usedAgain struct {
	*memFS
	mu   sync.Mutex
	last []byte
}

type usedAgainFile struct {
	file
	fs *usedAgain
}

func (s *usedAgain) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := s.memFS.OpenFile(name, flag, perm)
	if err == nil && filepath.Dir(name) == memLedger && filepath.Base(name) != checkpointsFile {
		f = usedAgainFile{f, s}
	}
	return f, err
}

func (f usedAgainFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if len(f.fs.last) < len(b) {
		f.fs.last = bytes.Clone(b)
		return f.file.WriteAt(b, off)
	}
	n, err := f.file.WriteAt(f.fs.last[:len(b)], off)
	f.fs.last = nil
	return n, err
}

// noDirSync never syncs a folder whose path has the text.
type noDirSync struct {
	*memFS
	text string
}

func (s noDirSync) SyncDir(name string) error {
	if strings.Contains(name, s.text) {
		return nil
	}
	return s.memFS.SyncDir(name)
}

// noRewrite drops the writes that recovery repeats.
type noRewrite struct{ *memFS }

type noRewriteFile struct{ file }

func (s noRewrite) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := s.memFS.OpenFile(name, flag, perm)
	return noRewriteFile{f}, err
}

func (f noRewriteFile) WriteAt(b []byte, off int64) (int, error) {
	if size, err := f.Size(); err == nil && off+int64(len(b)) <= size {
		return len(b), nil
	}
	return f.file.WriteAt(b, off)
}
