package boltstore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
)

func create(t *testing.T) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func TestStore(t *testing.T) {
	paths := map[hierarchy.Store]string{}
	open := func(t *testing.T) hierarchy.Store {
		s, path := create(t)
		paths[s] = path
		return s
	}
	reopen := func(t *testing.T, s hierarchy.Store) hierarchy.Store {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(paths[s])
		if err != nil {
			t.Fatal(err)
		}
		paths[again] = paths[s]
		return again
	}
	storetest.Run(t, open, reopen)
	t.Run("copy", func(t *testing.T) {
		storetest.RunCopy(t, open, func(t *testing.T, copied []byte) hierarchy.Store {
			path := filepath.Join(t.TempDir(), "copy.db")
			if err := os.WriteFile(path, copied, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if err != nil {
				t.Fatalf("open the copy: %v", err)
			}
			return s
		})
	})
}

func TestCreate(t *testing.T) {
	s, path := create(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %v, %v; want 0600", info.Mode(), err)
	}
	if _, err := s.Append(context.Background(), 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); !errors.Is(err, ErrExists) {
		t.Errorf("Create over a store returns %v; want ErrExists", err)
	}
	if head, err := s.Head(context.Background()); err != nil || head.Revision != 1 {
		t.Errorf("head is %v, %v after Create was refused", head, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %d files, %v; want the store alone", len(entries), err)
	}
	if err := Create(filepath.Join(t.TempDir(), "none", "store.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create in a folder that does not exist returns %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	boltFile := func(name string, fill func(*bolt.Tx) error) string {
		path := filepath.Join(dir, name)
		db, err := bolt.Open(path, 0o600, nil)
		if err == nil {
			err = errors.Join(db.Update(fill), db.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		name, path string
		want       error
	}{
		{"nothing", filepath.Join(dir, "none"), hierarchy.ErrMissing},
		{"folder", dir, hierarchy.ErrForeign},
		{"empty file", write("empty", nil), hierarchy.ErrForeign},
		{"text", write("text", []byte(strings.Repeat("not a store\n", 4000))), hierarchy.ErrForeign},
		{"short file", write("short", []byte("x")), hierarchy.ErrForeign},
		{"other bbolt file", boltFile("other", func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket([]byte("meta"))
			return err
		}), hierarchy.ErrForeign},
		{"newer version", boltFile("newer", func(tx *bolt.Tx) error {
			for _, b := range []string{"revisions", "heads", "blobs"} {
				if _, err := tx.CreateBucket([]byte(b)); err != nil {
					return err
				}
			}
			b, err := tx.CreateBucket([]byte("meta"))
			if err != nil {
				return err
			}
			return b.Put(keyFormat, []byte("2"))
		}), hierarchy.ErrForeign},
	} {
		for mode, open := range map[string]func(string) (*Store, error){"": Open, " read only": OpenReadOnly} {
			before, _ := os.ReadFile(test.path)
			s, err := open(test.path)
			if !errors.Is(err, test.want) || s != nil {
				t.Errorf("%s%s: %v; want %v", test.name, mode, err, test.want)
			}
			if after, _ := os.ReadFile(test.path); !bytes.Equal(before, after) {
				t.Errorf("%s%s: opening changed the file", test.name, mode)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("Open made a file")
	}
}

func TestLocked(t *testing.T) {
	s, path := create(t)
	start := time.Now()
	for _, open := range []func(string) (*Store, error){Open, OpenReadOnly} {
		if _, err := open(path); !errors.Is(err, hierarchy.ErrLocked) {
			t.Errorf("opening a store in use returns %v; want ErrLocked", err)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("two refusals took %v", d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	one, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := OpenReadOnly(path)
	if err != nil {
		t.Fatalf("a second reader: %v", err)
	}
	defer two.Close()
	if _, err := two.Append(context.Background(), 0, []byte("x")); err == nil {
		t.Error("Append to a store opened for reading returns no error")
	}
}

// TestFlippedByte damages each stored revision, hash and blob in turn.
func TestFlippedByte(t *testing.T) {
	ctx := context.Background()
	s, path := create(t)
	bodies := []string{"the body of revision one", "the body of revision two", "the body of revision three"}
	for n, body := range bodies {
		if _, err := s.Append(ctx, uint64(n), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	digest, err := s.PutBlob(ctx, []byte("the data of the blob"))
	if err != nil {
		t.Fatal(err)
	}
	head, err := s.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(what string) (*Store, error) {
		bad := bytes.Clone(good)
		n := 0
		for i := 0; ; {
			at := bytes.Index(bad[i:], []byte(what))
			if at < 0 {
				break
			}
			i += at
			bad[i+len(what)-1] ^= 1 // every page that still holds it
			n++
		}
		if n == 0 {
			t.Fatalf("%q is not in the file", what)
		}
		bent := filepath.Join(t.TempDir(), "bent.db")
		if err := os.WriteFile(bent, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		return Open(bent)
	}
	read := func(s *Store) (last uint64, err error) {
		for e, err := range s.Read(ctx, 0) {
			if err != nil {
				return last, err
			}
			last = e.Revision
		}
		return last, nil
	}

	for n, body := range bodies[:2] {
		s, err := damage(body)
		if err != nil {
			t.Fatalf("revision %d: %v", n+1, err)
		}
		last, err := read(s)
		if want := "revision " + string(rune('1'+n)) + " does not match"; !errors.Is(err, hierarchy.ErrCorrupt) || !strings.Contains(err.Error(), want) || last != uint64(n) {
			t.Errorf("revision %d: read up to %d, %v; want ErrCorrupt and its number", n+1, last, err)
		}
		s.Close()
	}
	if _, err := damage(bodies[2]); !errors.Is(err, hierarchy.ErrCorrupt) {
		t.Errorf("the last revision: %v; want ErrCorrupt on opening", err)
	}
	if _, err := damage(string(head.Hash[:])); !errors.Is(err, hierarchy.ErrCorrupt) {
		t.Errorf("the last hash: %v; want ErrCorrupt on opening", err)
	}
	s, err = damage("the data of the blob")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if data, err := s.GetBlob(ctx, digest); !errors.Is(err, hierarchy.ErrCorrupt) || data != nil {
		t.Errorf("the blob: %q, %v; want ErrCorrupt", data, err)
	}
	if last, err := read(s); err != nil || last != 3 {
		t.Errorf("revisions beside a damaged blob: %d, %v", last, err)
	}
}

// TestAnyFlippedByte damages the file anywhere: what is served is right, or an
// error says that it is not; nothing panics.
func TestAnyFlippedByte(t *testing.T) {
	ctx := context.Background()
	s, path := create(t)
	for n := range uint64(40) {
		if _, err := s.Append(ctx, n, bytes.Repeat([]byte{byte('a' + n%26)}, 300)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bent := filepath.Join(t.TempDir(), "bent.db")
	good = append(bytes.TrimRight(good, "\x00"), make([]byte, 4096)...) // bbolt grows the file by 16 MiB at a time
	if rest := len(good) % 4096; rest > 0 {
		good = append(good, make([]byte, 4096-rest)...)
	}
	step := len(good)/400 | 1
	found := 0
	for at := 0; at < len(good); at += step {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		if err := os.WriteFile(bent, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenReadOnly(bent)
		if err != nil {
			found++
			continue
		}
		n := uint64(0)
		for e, err := range s.Read(ctx, 0) {
			if err != nil {
				found++
				break
			}
			n++
			if e.Revision != n || !bytes.Equal(e.Body, bytes.Repeat([]byte{byte('a' + (n-1)%26)}, 300)) {
				t.Fatalf("byte %d: revision %d is served damaged", at, n)
			}
		}
		s.Close()
	}
	if found < 20 {
		t.Errorf("of 400 damaged bytes %d were found; more than that hit what is in use", found)
	}
}
