// Package boltstore is the embedded store: one bbolt file.
package boltstore

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/ward-authz/ward/hierarchy"
)

// ErrExists: there is a file at this path already.
var ErrExists = errors.New("store: exists already")

// Store is a [hierarchy.Store] in one bbolt file.
type Store struct{}

var _ hierarchy.Store = (*Store)(nil)
var errStub = errors.New("not built yet")

// Create makes an empty store.
func Create(path string) error { return errStub }

// Open opens a store.
func Open(path string) (*Store, error) { return nil, errStub }

// OpenReadOnly opens a store for reading.
func OpenReadOnly(path string) (*Store, error) { return nil, errStub }

// Head implements [hierarchy.Store].
func (s *Store) Head(context.Context) (hierarchy.Head, error) { return hierarchy.Head{}, errStub }

// Append implements [hierarchy.Store].
func (s *Store) Append(ctx context.Context, expected uint64, body []byte) (hierarchy.Head, error) {
	return hierarchy.Head{}, errStub
}

// Read implements [hierarchy.Store].
func (s *Store) Read(ctx context.Context, from uint64) iter.Seq2[hierarchy.Entry, error] {
	return func(yield func(hierarchy.Entry, error) bool) { yield(hierarchy.Entry{}, errStub) }
}

// PutBlob implements [hierarchy.Store].
func (s *Store) PutBlob(ctx context.Context, data []byte) (string, error) { return "", errStub }

// GetBlob implements [hierarchy.Store].
func (s *Store) GetBlob(ctx context.Context, digest string) ([]byte, error) { return nil, errStub }

// CopyTo implements [hierarchy.Store].
func (s *Store) CopyTo(context.Context, io.Writer) error { return errStub }

// Close implements [hierarchy.Store].
func (s *Store) Close() error { return errStub }
