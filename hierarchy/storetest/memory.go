package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/ward-authz/ward/hierarchy"
)

// memory is a store that forgets everything when the process ends.
type memory struct {
	lock   sync.RWMutex
	closed bool
	heads  []hierarchy.Head // heads[n] is that after revision n
	bodies [][]byte         // bodies[n] is revision n+1
	blobs  map[string][]byte
}

// NewMemory returns an empty store in memory, for tests: what it holds is not
// durable. Its copies are JSON.
func NewMemory() hierarchy.Store {
	return &memory{heads: make([]hierarchy.Head, 1), blobs: map[string][]byte{}}
}

var errClosed = errors.New("store: closed")

func (m *memory) ready(ctx context.Context) error {
	if m.closed {
		return errClosed
	}
	return ctx.Err()
}

func (m *memory) Head(ctx context.Context) (hierarchy.Head, error) {
	m.lock.RLock()
	defer m.lock.RUnlock()
	if err := m.ready(ctx); err != nil {
		return hierarchy.Head{}, err
	}
	return m.heads[len(m.bodies)], nil
}

func (m *memory) Append(ctx context.Context, expected uint64, body []byte) (hierarchy.Head, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if err := m.ready(ctx); err != nil {
		return hierarchy.Head{}, err
	}
	if expected != uint64(len(m.bodies)) {
		return hierarchy.Head{}, hierarchy.ErrConflict
	}
	next := m.heads[expected].Next(body)
	m.bodies = append(m.bodies, bytes.Clone(body))
	m.heads = append(m.heads, next)
	return next, nil
}

func (m *memory) Read(ctx context.Context, from uint64) iter.Seq2[hierarchy.Entry, error] {
	return func(yield func(hierarchy.Entry, error) bool) {
		for n := from; ; n++ {
			m.lock.RLock()
			err := m.ready(ctx)
			var body []byte
			if err == nil && n < uint64(len(m.bodies)) {
				body = bytes.Clone(m.bodies[n])
			}
			m.lock.RUnlock()
			if err != nil {
				yield(hierarchy.Entry{}, err)
				return
			}
			if body == nil || !yield(hierarchy.Entry{Revision: n + 1, Body: body}, nil) {
				return
			}
		}
	}
}

func (m *memory) PutBlob(ctx context.Context, data []byte) (string, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if err := m.ready(ctx); err != nil {
		return "", err
	}
	digest := hierarchy.Digest(data)
	if _, ok := m.blobs[digest]; !ok {
		m.blobs[digest] = append([]byte{}, data...)
	}
	return digest, nil
}

func (m *memory) GetBlob(ctx context.Context, digest string) ([]byte, error) {
	m.lock.RLock()
	defer m.lock.RUnlock()
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	data, ok := m.blobs[digest]
	if !ok {
		return nil, hierarchy.ErrNotFound
	}
	return append([]byte{}, data...), nil
}

func (m *memory) CopyTo(ctx context.Context, w io.Writer) error {
	m.lock.RLock()
	if err := m.ready(ctx); err != nil {
		m.lock.RUnlock()
		return err
	}
	blobs := make(map[string][]byte, len(m.blobs))
	for k, v := range m.blobs {
		blobs[k] = v
	}
	copied := struct {
		Bodies [][]byte
		Blobs  map[string][]byte
	}{m.bodies[:len(m.bodies):len(m.bodies)], blobs}
	m.lock.RUnlock()
	return json.NewEncoder(w).Encode(copied)
}

// openCopy reads what CopyTo wrote.
func openCopy(copied []byte) (hierarchy.Store, error) {
	var c struct {
		Bodies [][]byte
		Blobs  map[string][]byte
	}
	if err := json.Unmarshal(copied, &c); err != nil {
		return nil, err
	}
	s := NewMemory()
	for n, body := range c.Bodies {
		if _, err := s.Append(context.Background(), uint64(n), body); err != nil {
			return nil, err
		}
	}
	for _, data := range c.Blobs {
		if _, err := s.PutBlob(context.Background(), data); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (m *memory) Close() error {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.closed {
		return errClosed
	}
	m.closed = true
	return nil
}
