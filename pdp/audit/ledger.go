package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

var (
	// ErrFailed: a write, a sync or the making of a seal key failed. The ledger
	// takes no record any more; it must be opened again. The cause is wrapped.
	ErrFailed = errors.New("audit: ledger has failed")
	// ErrBusy: the queue is full, or what its caller or one of its tenants may
	// hold of it. Nothing was queued.
	ErrBusy = errors.New("audit: queue is full")
	// ErrClosed: the ledger was closed.
	ErrClosed = errors.New("audit: ledger is closed")
	// ErrLocked: the ledger or its key folder is open for writing elsewhere.
	ErrLocked = errors.New("audit: open for writing in another process")
	// ErrNotFound: the ledger holds no such record.
	ErrNotFound = errors.New("audit: no such record")
)

// Options are the settings of an open ledger. The zero value is the default.
type Options struct {
	// CheckpointEvery is the shortest time between two checkpoints while the
	// ledger grows; default 1 s. It bounds how many records a crash leaves
	// without a signature.
	CheckpointEvery time.Duration
	// MaxQueue is how many records may wait to be written, where one counts
	// for each 16 KiB that it takes or begins; default 8192 (128 MiB). One
	// caller may hold an eighth and one tenant a quarter, so that no caller uses
	// up what a tenant's others have. One more is ErrBusy.
	MaxQueue int
	// Second is where records of class D2 must be too; nil if there is none.
	Second Second
	// MaxBehind is how many bytes may wait for Second beside what it is
	// storing; default 64 MiB. One more fails the ledger.
	MaxBehind int
}

// Recovery says what Open found. A tail that was torn and one whose very last
// batch was damaged later look alike where no checkpoint covers it; that is why
// the bytes are kept. Closing a ledger leaves no such tail.
type Recovery struct {
	Cut     int64  // bytes of a torn tail that were cut
	Kept    string // file in the ledger's folder that holds those bytes; "" if there were none
	Records uint64 // records in the ledger
}

// Ledger is a ledger open for writing. It is safe for concurrent use.
type Ledger struct {
	fs     fileSystem
	dir    string
	keys   *Keys
	o      Options
	locks  []io.Closer
	wake   chan struct{} // the queue has something, or the ledger is closing or has failed
	asks   chan func()   // run by the writer between two batches
	ship   chan struct{} // there is a next shipment
	done   chan struct{} // the writer has ended, and all is shipped
	size   atomic.Uint64 // durable records
	signed atomic.Pointer[checkpoint]
	failed atomic.Pointer[error]

	mu     sync.Mutex // guards the queue and the next shipment, for moments only
	queue  []*request
	held   map[account]int // what waits, in shares of the queue
	closed bool
	next   shipment // what the second failure domain gets next

	// Owned by the writer.
	tree    tree
	seg     file
	segment uint64 // first sequence number of seg
	segOff  int64
	cps     file
	cpOff   int64
	cpTime  time.Time
}

type request struct {
	ctx      context.Context
	body     []byte
	leaf     tlog.Hash
	class    Durability
	accounts []account
	seq      uint64
	done     chan error // buffered: the writer never waits
}

// shares is what it takes of the queue.
func (q *request) shares() int { return (len(q.body) + share - 1) / share }

// account is who may hold one part of the queue: all together the whole of it
// (1), a tenant a quarter (4) or a caller an eighth (8).
type account struct {
	part int
	name string
}

// share is how many bytes of a record count as one of the queue.
const share = 16 << 10

func accountsOf(r Record) []account {
	of := []account{{1, "all"}, {8, r.Caller}}
	for _, p := range r.Parts {
		of = append(of, account{4, p.Tenant})
	}
	return of
}

// Create makes an empty ledger in dir, durable when it returns: `ward init`. It
// refuses a folder that is not empty, and a key folder inside dir or around it.
func Create(dir string, keys *Keys) error {
	fsys := keys.fs
	if err := keysApart(dir, keys); err != nil {
		return err
	}
	if err := makeDir(fsys, dir); errors.Is(err, os.ErrExist) {
		if names, err := fsys.ReadDir(dir); err != nil {
			return err
		} else if len(names) > 0 {
			return fmt.Errorf("audit: %s is not empty", dir)
		}
	} else if err != nil {
		return err
	}
	cp, err := keys.sign(&tree{})
	if err != nil {
		return err
	}
	return writeFile(fsys, filepath.Join(dir, checkpointsFile), cp.entry(keys.signer.Name()))
}

func keysApart(dir string, keys *Keys) error {
	d, err := resolve(dir)
	k, kerr := resolve(keys.dir)
	if err := errors.Join(err, kerr); err != nil {
		return err
	}
	if inside(k, d) || inside(d, k) {
		return errors.New("audit: the keys must lie outside the ledger's folder, and it outside theirs")
	}
	return nil
}

// Open opens a ledger for writing, after reading all of it. It never creates
// one.
//
// A torn tail, which a crash leaves of records that were never acknowledged, is
// cut, kept in a file and reported. Whatever else is not as written is a
// [*CorruptError]: a bad frame with a later batch behind it, a missing segment,
// fewer records than the last checkpoint states, another root than it states.
// [ErrLocked] means that another process writes.
func Open(dir string, keys *Keys, o Options) (*Ledger, Recovery, error) {
	o.CheckpointEvery, o.MaxQueue, o.MaxBehind = cmp.Or(o.CheckpointEvery, time.Second), cmp.Or(o.MaxQueue, 8192), cmp.Or(o.MaxBehind, 64<<20)
	l := &Ledger{
		fs: keys.fs, dir: dir, keys: keys, o: o, held: map[account]int{},
		wake: make(chan struct{}, 1), asks: make(chan func()), ship: make(chan struct{}, 1), done: make(chan struct{}),
	}
	rec, err := l.open()
	if err != nil {
		return nil, Recovery{}, errors.Join(err, l.release())
	}
	go l.write()
	go l.follow()
	return l, rec, nil
}

func (l *Ledger) open() (rec Recovery, err error) {
	if err := keysApart(l.dir, l.keys); err != nil {
		return rec, err
	}
	if l.cps, err = openCheckpoints(l.fs, l.dir, os.O_RDWR); err != nil {
		return rec, err
	}
	for _, dir := range []string{l.dir, l.keys.dir} {
		c, err := l.fs.Lock(filepath.Join(dir, lockFile))
		if err != nil {
			return rec, err
		}
		l.locks = append(l.locks, c)
	}
	v, err := openVerifiers(l.keys.Verifier())
	if err != nil {
		return rec, err
	}
	cp, end, err := lastCheckpoint(l.cps, v)
	if err != nil {
		return rec, err
	}
	t, err := hashAll(l.fs, l.dir, &l.tree, func(frame) {}, claim{"the last checkpoint", list([]checkpoint{cp})})
	if err != nil {
		return rec, err
	}
	cp.roots = l.tree.roots[:cp.size/segmentSize]
	if rec, err = l.recover(t, cp, end); err != nil {
		return rec, fmt.Errorf("audit: recovery: %w", err)
	}
	l.size.Store(l.tree.n)
	if err := l.checkpoint(); err != nil {
		return rec, err
	}
	return rec, l.catchUp()
}

// recover makes what was found the durable state to write on from.
//
// What was written last may never have reached the disk although it can be
// read: its sync failed, or never came, and a sync now might not write it
// either. So the last batch and the last checkpoint are written again.
func (l *Ledger) recover(t tail, cp checkpoint, cpEnd int64) (Recovery, error) {
	rec := Recovery{Cut: t.torn, Records: t.seq}
	// What is cut of the checkpoints was never relied on: the next one covers
	// the same records.
	if err := l.cps.Truncate(cpEnd); err != nil {
		return rec, err
	}
	l.cpOff = cpEnd - int64(entrySize(l.keys.signer.Name()))
	if err := l.addCheckpoint(cp); err != nil {
		return rec, err
	}
	if t.exists {
		f, err := l.fs.OpenFile(filepath.Join(l.dir, segmentName(t.segment)), os.O_RDWR, 0)
		if err != nil {
			return rec, err
		}
		l.seg, l.segment, l.segOff = f, t.segment, t.offset
		if t.torn > 0 {
			if rec.Kept, err = l.keep(t); err != nil {
				return rec, err
			}
			if err := f.Truncate(t.offset); err != nil {
				return rec, err
			}
		}
		last, err := io.ReadAll(io.NewSectionReader(f, t.batchOff, t.offset-t.batchOff))
		if err != nil {
			return rec, err
		}
		if err := writeSync(f, last, t.batchOff); err != nil {
			return rec, err
		}
	}
	return rec, l.fs.SyncDir(l.dir)
}

// keep copies a torn tail to a file of its own.
func (l *Ledger) keep(t tail) (string, error) {
	torn, err := io.ReadAll(io.NewSectionReader(l.seg, t.offset, t.torn))
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("torn-%020d-%s", t.seq, time.Now().UTC().Format("20060102T150405.000000000Z"))
	return name, writeFile(l.fs, filepath.Join(l.dir, name), torn)
}

// Append writes a record and returns its sequence number once it is durable in
// the class that it asks for. Records that wait together are written and synced
// together; there is no added delay, and none of class D1 waits for another
// machine.
//
// A record counts against the budgets of its caller and its tenants while it
// waits. Changes, what closes them and summaries of refusals count too, but are
// never turned away: they come one at a time.
//
// Nothing was written with [ErrInvalid], [ErrTooLarge], [ErrBusy], [ErrNoSecond]
// or [ErrClosed]. With [ErrFailed], or the error of a ctx that ended while the
// record waited, the record may or may not be in the ledger; it must not be
// acted on. No error text carries anything of the record.
func (l *Ledger) Append(ctx context.Context, r Record) (uint64, error) {
	if err := errors.Join(l.Err(), ctx.Err()); err != nil {
		return 0, err
	}
	if r.Durability > D1 && (r.Durability > D2 || l.o.Second == nil) {
		return 0, ErrNoSecond
	}
	b, err := l.keys.encode(r)
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalid) {
		return 0, err
	}
	if err != nil {
		return 0, l.fail(err)
	}
	q := &request{ctx: ctx, body: b, leaf: tlog.RecordHash(b), class: r.Durability, accounts: accountsOf(r), done: make(chan error, 1)}
	if err := l.enqueue(q, r.Kind == Change || r.Kind == Abandoned || r.Kind == Refusals); err != nil {
		return 0, err
	}
	select {
	case err := <-q.done:
		return q.seq, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (l *Ledger) enqueue(q *request, always bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	for _, a := range q.accounts {
		if h := l.held[a]; !always && a.name != "" && h > 0 && h+q.shares() > l.o.MaxQueue/a.part {
			return ErrBusy
		}
	}
	l.hold(q, q.shares())
	l.queue = append(l.queue, q)
	poke(l.wake)
	return nil
}

// hold counts a request against its accounts; below zero, no more.
func (l *Ledger) hold(q *request, shares int) {
	for _, a := range q.accounts {
		if l.held[a] += shares; l.held[a] == 0 {
			delete(l.held, a)
		}
	}
}

// poke lets whoever waits for c go on, now or when it comes to wait.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail makes the first failure permanent and returns it.
func (l *Ledger) fail(cause error) error {
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	l.failed.CompareAndSwap(nil, &err)
	poke(l.wake)
	return l.Err()
}

// try does something unless the ledger has failed. It fails when that does.
func (l *Ledger) try(f func() error) error {
	err := l.Err()
	if err == nil {
		if err = f(); err != nil {
			err = l.fail(err)
		}
	}
	return err
}

// Err is nil while the ledger is healthy; otherwise it is the failure, which
// wraps [ErrFailed] and stays until the ledger is opened again.
func (l *Ledger) Err() error {
	if err := l.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Size is the number of durable records; sequence numbers run from 0 below it.
func (l *Ledger) Size() uint64 { return l.size.Load() }

// Checkpoint is the last signed checkpoint: a signed note (C2SP signed-note)
// of origin, size and root (C2SP tlog-checkpoint). Kept elsewhere, it is the
// anchor that [Verify] takes.
func (l *Ledger) Checkpoint() []byte {
	return append([]byte(nil), l.signed.Load().note...)
}

// write is the one goroutine that writes.
func (l *Ledger) write() {
	defer close(l.ship)
	due := time.NewTimer(math.MaxInt64)
	for {
		select {
		case <-l.wake:
		case <-due.C:
		case ask := <-l.asks:
			ask()
		}
		l.mu.Lock()
		batch, closed := l.queue, l.closed
		l.queue = nil
		l.mu.Unlock()
		l.commit(batch)
		if l.Err() == nil && l.tree.n > l.signed.Load().size {
			if wait := l.o.CheckpointEvery - time.Since(l.cpTime); wait > 0 && !closed {
				due.Reset(wait)
			} else {
				_ = l.try(l.checkpoint) // Append tells
			}
		}
		if closed { // nothing is queued once it is set
			return
		}
	}
}

// commit makes a batch durable and wakes its callers, or fails them all.
func (l *Ledger) commit(batch []*request) {
	live := batch[:0]
	for _, q := range batch {
		if err := q.ctx.Err(); err != nil {
			l.answer([]*request{q}, err)
		} else {
			live = append(live, q)
		}
	}
	for len(live) > 0 { // a batch lies in one segment
		some := live[:min(uint64(len(live)), segmentSize-l.tree.n%segmentSize)]
		live = live[len(some):]
		l.answer(some, l.try(func() error { return l.commitSome(some) }))
	}
}

// answer takes requests out of the budgets and wakes their callers. Those that the
// second failure domain has to acknowledge wait for the next shipment, which is at
// the earliest the one that they are in.
func (l *Ledger) answer(batch []*request, err error) {
	l.mu.Lock()
	for _, q := range batch {
		l.hold(q, -q.shares())
		if err == nil && q.class == D2 {
			l.next.waiting = append(l.next.waiting, q)
		} else {
			q.done <- err
		}
	}
	l.mu.Unlock()
	poke(l.ship)
}

// commitSome writes and syncs what the segment has room for.
func (l *Ledger) commitSome(batch []*request) error {
	if l.seg == nil || l.tree.n == l.segment+segmentSize {
		if err := l.roll(); err != nil {
			return err
		}
	}
	var frames []byte
	for _, q := range batch {
		frames = appendFrame(frames, l.tree.n, q.body)
	}
	if err := writeSync(l.seg, frames, l.segOff); err != nil {
		return err
	}
	first := l.tree.n
	l.segOff += int64(len(frames))
	for _, q := range batch {
		q.seq = l.tree.n
		l.tree.push(q.leaf)
	}
	l.size.Store(l.tree.n)
	l.shipLater(first, frames)
	return nil
}

// roll starts a segment, durable in its folder before any record is in it.
func (l *Ledger) roll() error {
	if l.seg != nil {
		if err := l.seg.Close(); err != nil {
			return err
		}
		l.seg = nil
	}
	f, err := l.fs.OpenFile(filepath.Join(l.dir, segmentName(l.tree.n)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	l.seg, l.segment, l.segOff = f, l.tree.n, 0
	return l.fs.SyncDir(l.dir)
}

// checkpoint signs the durable records, if there are more than at the last.
func (l *Ledger) checkpoint() error {
	if l.tree.n <= l.signed.Load().size {
		return nil
	}
	cp, err := l.keys.sign(&l.tree)
	if err != nil {
		return err
	}
	return l.addCheckpoint(cp)
}

func (l *Ledger) addCheckpoint(cp checkpoint) error {
	entry := cp.entry(l.keys.signer.Name())
	if err := writeSync(l.cps, entry, l.cpOff); err != nil {
		return err
	}
	l.cpOff += int64(len(entry))
	l.cpTime = time.Now()
	l.signed.Store(&cp)
	return nil
}

// ask lets the writer run f between two batches. An error of f fails the ledger.
func (l *Ledger) ask(f func() error) error {
	done := make(chan error, 1)
	select {
	case l.asks <- func() { done <- l.try(f) }:
		return <-done
	case <-l.done:
		return ErrClosed
	}
}

// Adopt lets the key that [Keys.NewSigner] made sign from now on, after a last
// checkpoint of the one before. The record that names it must be durable. Where
// it is not there, or signs already, nothing is done: see [Keys.Verifier].
func (l *Ledger) Adopt(verifier string) error {
	return l.ask(func() error {
		if err := l.checkpoint(); err != nil {
			return err
		}
		return l.keys.adopt(verifier)
	})
}

// File is a file of a ledger, and how much of it is durable.
type File struct {
	Path string
	Size int64 // math.MaxInt64 for a full segment: all of it, which never changes
}

// Files names the files of the ledger as it is durable now: the segments, and
// the checkpoints up to one that covers exactly them, signed for the purpose. The
// writer is held up for that signature only. Copied as far as told, they are a
// ledger that [OpenReader] and [Verify] read with the public key.
func (l *Ledger) Files() (files []File, err error) {
	err = l.ask(func() error {
		for first := uint64(0); first < l.tree.n; first += segmentSize {
			files = append(files, File{filepath.Join(l.dir, segmentName(first)), math.MaxInt64})
		}
		if len(files) > 0 {
			files[len(files)-1].Size = l.segOff
		}
		err := l.checkpoint()
		files = append(files, File{filepath.Join(l.dir, checkpointsFile), l.cpOff})
		return err
	})
	return files, err
}

// Close takes no more records, waits until those that wait are durable, signs
// a checkpoint that covers all, and gives the lock back. It returns the failure
// of a ledger that has failed. A second Close returns ErrClosed.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.mu.Unlock()
	poke(l.wake)
	<-l.done
	return errors.Join(l.Err(), l.release())
}

func (l *Ledger) release() error {
	var errs []error
	for _, c := range append([]io.Closer{l.seg, l.cps}, l.locks...) {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Scan gives the durable records from a sequence number on, as many as there
// are now. It takes no lock of the writer, and works on a ledger
// that has failed or is closed. After an error it ends.
func (l *Ledger) Scan(from uint64) iter.Seq2[Entry, error] {
	size := l.Size()
	return entries(l.fs, l.dir, span{from, size, size})
}

// Entry gives one durable record; [ErrNotFound] if there is none yet.
func (l *Ledger) Entry(seq uint64) (Entry, error) { return first(seq, l.Scan(seq)) }
