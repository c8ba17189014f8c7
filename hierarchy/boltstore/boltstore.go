// Package boltstore is the embedded store: everything in one bbolt file, which
// one process has open at a time.
//
// The file has four buckets: meta (the format version), revisions (bodies by
// big-endian number), heads (the hash after each revision, by the same number)
// and blobs (by digest). Each append is one transaction, synced to the disk
// before it returns. Reading checks every body against its hash, so that a
// flipped bit is found and named, not served.
package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/ward-authz/ward/hierarchy"
)

// ErrExists: there is a file at this path already; Create never replaces one.
var ErrExists = errors.New("store: a file is here already")

// formatVersion is the version of the file's layout. 1: as above.
const formatVersion = "1"

var (
	bucketMeta      = []byte("meta")
	bucketRevisions = []byte("revisions")
	bucketHeads     = []byte("heads")
	bucketBlobs     = []byte("blobs")
	keyFormat       = []byte("ward-store-format")
)

// Store is a [hierarchy.Store] in one bbolt file.
type Store struct {
	db *bolt.DB
}

var _ hierarchy.Store = (*Store)(nil)

// Create makes an empty store, for its owner alone to read (mode 0600), and
// syncs it. It returns [ErrExists] when anything is at the path already. After a
// crash the store is there as a whole or not at all.
func Create(path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("create store: %w", ErrExists)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".ward-store-*")
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	temp := f.Name()
	defer os.Remove(temp)
	if err := f.Close(); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	db, err := bolt.Open(temp, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketRevisions, bucketHeads, bucketBlobs} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		return meta.Put(keyFormat, []byte(formatVersion))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	if err := os.Link(temp, path); err != nil { // unlike Rename, it replaces nothing
		if errors.Is(err, fs.ErrExist) {
			err = ErrExists
		}
		return fmt.Errorf("create store: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there
	}
	return d.Sync()
}

// Open opens a store. It returns [hierarchy.ErrMissing] when there is none,
// [hierarchy.ErrLocked] when another process has it open for a second more,
// [hierarchy.ErrForeign] when the file is something else or of a newer version,
// and [hierarchy.ErrCorrupt] when its last revision does not match its hash.
func Open(path string) (*Store, error) { return open(path, false) }

// OpenReadOnly opens a store for reading, as several processes may at a time
// while none has it open for writing.
func OpenReadOnly(path string) (*Store, error) { return open(path, true) }

func open(path string, readOnly bool) (s *Store, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open store: %w", hierarchy.ErrMissing)
	case err != nil:
		return nil, fmt.Errorf("open store: %w", err)
	case !info.Mode().IsRegular() || info.Size() == 0: // bbolt would make an empty file a database
		return nil, fmt.Errorf("open store: %w", hierarchy.ErrForeign)
	}
	options := &bolt.Options{
		Timeout:  time.Second,
		ReadOnly: readOnly,
		OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag&^os.O_CREATE, perm)
		},
	}
	if !readOnly && ^uint(0)>>63 == 1 && runtime.GOOS != "windows" {
		// Address space only. A write that must grow the map waits for every
		// reader, a copy too; up to 16 GiB none has to.
		options.InitialMmapSize = 1 << 34
	}
	defer func() {
		if err != nil && s != nil {
			s.db.Close()
			s = nil
		}
	}()
	err = guarded(func() error {
		db, err := bolt.Open(path, 0o600, options)
		if err != nil {
			return err
		}
		s = &Store{db}
		return nil
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return s, fmt.Errorf("open store: %w", hierarchy.ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrVersionMismatch):
		return s, fmt.Errorf("open store: %w", hierarchy.ErrForeign)
	case errors.Is(err, bolterrors.ErrChecksum):
		return s, fmt.Errorf("open store: %w", hierarchy.ErrCorrupt)
	case err != nil:
		return s, fmt.Errorf("open store: %w", err)
	}
	err = s.view(context.Background(), func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil || string(meta.Get(keyFormat)) != formatVersion ||
			tx.Bucket(bucketRevisions) == nil || tx.Bucket(bucketHeads) == nil || tx.Bucket(bucketBlobs) == nil {
			return hierarchy.ErrForeign
		}
		head, err := lastHead(tx)
		if err != nil || head.Revision == 0 {
			return err
		}
		_, err = entry(tx, head.Revision)
		return err
	})
	if err != nil {
		return s, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// guarded turns what bbolt does on damaged pages, a panic or a memory fault,
// into ErrCorrupt.
func guarded(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged pages: %w", hierarchy.ErrCorrupt)
		}
	}()
	return f()
}

func (s *Store) view(ctx context.Context, f func(*bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return guarded(func() error { return s.db.View(f) })
}

func (s *Store) update(ctx context.Context, f func(*bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return guarded(func() error { return s.db.Update(f) })
}

func key(revision uint64) []byte { return binary.BigEndian.AppendUint64(nil, revision) }

// headAt returns the head after a revision.
func headAt(tx *bolt.Tx, revision uint64) (hierarchy.Head, error) {
	head := hierarchy.Head{Revision: revision}
	if revision == 0 {
		return head, nil
	}
	hash := tx.Bucket(bucketHeads).Get(key(revision))
	if len(hash) != len(head.Hash) {
		return head, fmt.Errorf("revision %d has no hash: %w", revision, hierarchy.ErrCorrupt)
	}
	copy(head.Hash[:], hash)
	return head, nil
}

func lastHead(tx *bolt.Tx) (hierarchy.Head, error) {
	last, _ := tx.Bucket(bucketRevisions).Cursor().Last()
	lastHash, _ := tx.Bucket(bucketHeads).Cursor().Last()
	if !bytes.Equal(last, lastHash) || last != nil && len(last) != 8 {
		return hierarchy.Head{}, fmt.Errorf("revisions and hashes end apart: %w", hierarchy.ErrCorrupt)
	}
	if last == nil {
		return hierarchy.Head{}, nil
	}
	return headAt(tx, binary.BigEndian.Uint64(last))
}

// entry returns the body of a revision, checked against its hash. It lives as
// long as the transaction.
func entry(tx *bolt.Tx, revision uint64) ([]byte, error) {
	before, err := headAt(tx, revision-1)
	if err != nil {
		return nil, err
	}
	head, err := headAt(tx, revision)
	if err != nil {
		return nil, err
	}
	body := tx.Bucket(bucketRevisions).Get(key(revision))
	if body == nil || before.Next(body) != head {
		return nil, fmt.Errorf("revision %d does not match its hash: %w", revision, hierarchy.ErrCorrupt)
	}
	return body, nil
}

// Head implements [hierarchy.Store].
func (s *Store) Head(ctx context.Context) (head hierarchy.Head, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		head, err = lastHead(tx)
		return err
	})
	if err != nil {
		return hierarchy.Head{}, fmt.Errorf("store head: %w", err)
	}
	return head, nil
}

// Append implements [hierarchy.Store].
func (s *Store) Append(ctx context.Context, expected uint64, body []byte) (next hierarchy.Head, err error) {
	err = s.update(ctx, func(tx *bolt.Tx) error {
		head, err := lastHead(tx)
		if err != nil {
			return err
		}
		if head.Revision != expected {
			return fmt.Errorf("at revision %d, not %d: %w", head.Revision, expected, hierarchy.ErrConflict)
		}
		next = head.Next(body)
		if err := tx.Bucket(bucketRevisions).Put(key(next.Revision), body); err != nil {
			return err
		}
		return tx.Bucket(bucketHeads).Put(key(next.Revision), next.Hash[:])
	})
	if err != nil {
		return hierarchy.Head{}, fmt.Errorf("store append: %w", err)
	}
	return next, nil
}

// Bounds of what Read copies in one transaction. No transaction stays open
// while the caller has an entry: an append may have to wait for it.
const (
	readEntries = 256
	readBytes   = 4 << 20
)

// Read implements [hierarchy.Store].
func (s *Store) Read(ctx context.Context, from uint64) iter.Seq2[hierarchy.Entry, error] {
	return func(yield func(hierarchy.Entry, error) bool) {
		for {
			var entries []hierarchy.Entry
			err := s.view(ctx, func(tx *bolt.Tx) error {
				head, err := lastHead(tx)
				if err != nil {
					return err
				}
				size := 0
				for n := from + 1; n <= head.Revision && len(entries) < readEntries && size < readBytes; n++ {
					body, err := entry(tx, n)
					if err != nil {
						return err
					}
					entries = append(entries, hierarchy.Entry{Revision: n, Body: bytes.Clone(body)})
					size += len(body)
				}
				return nil
			})
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
				from = e.Revision
			}
			if err != nil {
				yield(hierarchy.Entry{}, fmt.Errorf("store read: %w", err))
				return
			}
			if len(entries) == 0 {
				return
			}
		}
	}
}

// PutBlob implements [hierarchy.Store].
func (s *Store) PutBlob(ctx context.Context, data []byte) (string, error) {
	digest := hierarchy.Digest(data)
	err := s.update(ctx, func(tx *bolt.Tx) error {
		blobs := tx.Bucket(bucketBlobs)
		if k, _ := blobs.Cursor().Seek([]byte(digest)); string(k) == digest {
			return nil
		}
		return blobs.Put([]byte(digest), data)
	})
	if err != nil {
		return "", fmt.Errorf("store blob: %w", err)
	}
	return digest, nil
}

// GetBlob implements [hierarchy.Store].
func (s *Store) GetBlob(ctx context.Context, digest string) (data []byte, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		k, v := tx.Bucket(bucketBlobs).Cursor().Seek([]byte(digest))
		if string(k) != digest {
			return hierarchy.ErrNotFound
		}
		data = append([]byte{}, v...)
		if hierarchy.Digest(data) != digest {
			return hierarchy.ErrCorrupt
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store blob: %w", err)
	}
	return data, nil
}

// CopyTo implements [hierarchy.Store]. The copy is a store file of its own.
// While it is written, appends wait only if the file grows beyond 16 GiB.
func (s *Store) CopyTo(ctx context.Context, w io.Writer) error {
	err := s.view(ctx, func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(contextWriter{ctx, w})
		return err
	})
	if err != nil {
		return fmt.Errorf("store copy: %w", err)
	}
	return nil
}

// contextWriter stops writing when its context ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// Close implements [hierarchy.Store].
func (s *Store) Close() error { return s.db.Close() }
