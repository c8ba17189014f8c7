package hierarchy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Hash is a SHA-256 value.
type Hash [32]byte

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes 64 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != 64 {
		return fmt.Errorf("not a hash: want 64 hexadecimal digits")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// Head is the end of the line of revisions: the number of the last one and the
// hash that commits to it and all before it. The zero Head is that of an empty
// store.
//
//	hash(0) = 32 zero bytes
//	hash(n) = SHA-256(hash(n-1) ‖ body(n))     body: the stored bytes of revision n
type Head struct {
	Revision uint64 `json:"revision"`
	Hash     Hash   `json:"hash"`
}

// Next returns the head after a revision with this body.
func (h Head) Next(body []byte) Head {
	s := sha256.New()
	s.Write(h.Hash[:])
	s.Write(body)
	next := Head{Revision: h.Revision + 1}
	s.Sum(next.Hash[:0])
	return next
}

// Entry is one stored revision: its number and its bytes, as [Encode] wrote them.
type Entry struct {
	Revision uint64
	Body     []byte
}

// Errors of a Store.
var (
	// ErrConflict: the store's revision is not the expected one. Nothing was
	// written; read on, check again, retry.
	ErrConflict = errors.New("store: revision conflict")
	// ErrNotFound: no blob has this digest.
	ErrNotFound = errors.New("store: blob not found")
	// ErrCorrupt: stored bytes do not match their digest or hash.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrForeign: the folder or file is not a Ward store, or one of a newer version.
	ErrForeign = errors.New("store: not a ward store of a version this program knows")
	// ErrMissing: there is no store here; `ward init` makes one. A store is
	// never created implicitly.
	ErrMissing = errors.New("store: none here")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store: in use by another process")
)

// Store keeps revisions and blobs. It decides nothing and reads nothing of
// what it keeps. Package storetest is the suite that every Store passes.
//
// All methods may be called from several goroutines.
type Store interface {
	// Head returns the last revision's number and hash.
	Head(context.Context) (Head, error)

	// Append stores body as revision expected+1. When it returns nil the
	// revision is durable (it survives a crash of the process and of the
	// machine); the write is atomic; of several concurrent calls with one
	// expected revision exactly one succeeds and the others return
	// ErrConflict. After any other error the revision may or may not be
	// stored: the caller reads Head before it goes on. Append returns the new
	// head.
	Append(ctx context.Context, expected uint64, body []byte) (Head, error)

	// Read yields the revisions after from, in order, without gaps, up to the
	// head at the time of the call or later. It ends at the first error.
	// A body must not be modified and is valid until the next step.
	Read(ctx context.Context, from uint64) iter.Seq2[Entry, error]

	// PutBlob stores data under its digest, "sha256:" and 64 hexadecimal
	// digits, durably, and returns the digest. Storing the same data twice is
	// no error; stored data is never replaced.
	PutBlob(ctx context.Context, data []byte) (string, error)

	// GetBlob returns the data with this digest, checked against it: ErrNotFound,
	// or ErrCorrupt when the stored bytes no longer match.
	GetBlob(ctx context.Context, digest string) ([]byte, error)

	// CopyTo writes a consistent copy of the whole store, in the driver's own
	// format, while reads and appends go on.
	CopyTo(context.Context, io.Writer) error

	// Close releases the store. Calls in flight finish first.
	Close() error
}

// Digest returns the digest under which data is stored as a blob.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
