package audit

import (
	"errors"
	"math"

	"golang.org/x/mod/sumdb/tlog"
)

// Durability is where a record must be before it is acknowledged.
type Durability uint8

const (
	// D1: written and synced to this machine's disk.
	D1 Durability = iota
	// D2: acknowledged by the second failure domain too.
	D2
)

// ErrNoSecond: a record of class D2, and no second failure domain is open. It is
// refused, not written in a lesser class. Nothing was queued.
var ErrNoSecond = errors.New("audit: no second failure domain")

// Second is a second failure domain: another machine's disk, or a replicated
// store. It gets everything that the ledger writes, of either class, once that is
// on this machine's disk. It belongs to one ledger.
type Second interface {
	// Last is how many records it holds durably, from the first one on, and the
	// leaf hash of the last of them. Where that is more than twice
	// [Options.MaxBehind] too few, a copy of the ledger brings it there before
	// Open does the rest.
	Last() (size uint64, leaf tlog.Hash, err error)
	// Store makes whole batches durable, as their frames are stored, with the
	// sequence number of the first record. It is called once at a time and in
	// order; what is written meanwhile comes with the next call. An error fails
	// the ledger, so an implementation bounds how long it tries. The bytes are
	// its own to keep.
	Store(first uint64, frames []byte) error
}

// shipment is what the second failure domain gets at once.
type shipment struct {
	first   uint64
	frames  []byte
	waiting []*request // of class D2
}

// shipLater adds frames, which are durable here, to the next shipment.
// It leaves once the batch is answered.
func (l *Ledger) shipLater(first uint64, frames []byte) {
	if l.o.Second == nil {
		return
	}
	l.mu.Lock()
	if len(l.next.frames) == 0 {
		l.next.first = first
	}
	l.next.frames = append(l.next.frames, frames...)
	over := len(l.next.frames) > l.o.MaxBehind
	l.mu.Unlock()
	if over {
		l.fail(errBehind)
	}
}

// follow hands shipments to the second failure domain, until there will be no
// more, and wakes who waits for them.
func (l *Ledger) follow() {
	defer close(l.done)
	for range l.ship {
		l.mu.Lock()
		s := l.next
		l.next = shipment{}
		l.mu.Unlock()
		err := l.try(func() error {
			if len(s.frames) == 0 {
				return nil
			}
			return l.o.Second.Store(s.first, s.frames)
		})
		for _, q := range s.waiting {
			q.done <- err
		}
	}
}

// catchUp gives the second failure domain what it lacks. One that holds more than
// this ledger, or another last record, knows what was lost here.
func (l *Ledger) catchUp() error {
	if l.o.Second == nil {
		return nil
	}
	size, leaf, err := l.o.Second.Last()
	if err != nil {
		return err
	}
	if size > l.tree.n {
		return &CorruptError{segmentName(l.segment), l.segOff, l.tree.n, "the second failure domain holds more records"}
	}
	var frames []byte
	_, err = scan(l.fs, l.dir, span{max(size, 1) - 1, math.MaxUint64, 0}, func(f frame) error {
		switch {
		case f.seq >= size:
			frames = appendFrame(frames, f.batch, f.body)
		case tlog.RecordHash(f.body) != leaf:
			return &CorruptError{segmentName(f.seq / segmentSize * segmentSize), f.offset, f.seq, "the second failure domain holds another record"}
		}
		if len(frames) > 2*l.o.MaxBehind {
			return errBehind
		}
		return nil
	})
	if err == nil && len(frames) > 0 {
		err = l.o.Second.Store(size, frames)
	}
	return err
}

var errBehind = errors.New("audit: the second failure domain is too far behind")
