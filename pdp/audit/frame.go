package audit

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// headerSize is that of a frame's header, in bytes.
const headerSize = 4 + 4 + 8

// segmentSize is the number of records in a segment: 256², so that a full one
// is a perfect subtree. Only the tests change it.
var segmentSize uint64 = 65536

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CorruptError says where a ledger is not what was written.
type CorruptError struct {
	Segment string // file name within the ledger's folder
	Offset  int64  // byte in that file
	Seq     uint64 // record that was expected there
	Reason  string // for people
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("audit: corrupt ledger: %s at byte %d (record %s): %s", e.Segment, e.Offset, ID(e.Seq), e.Reason)
}

// Unwrap makes errors.Is(err, ErrCorrupt) hold.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// frame is one record in a segment. Batch is the sequence number of the first
// record of the batch that it was written and synced with.
type frame struct {
	seq, batch uint64
	offset     int64  // in its segment
	body       []byte // valid until the next frame is read
}

func appendFrame(out []byte, batch uint64, body []byte) []byte {
	at := len(out)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(body)))
	out = binary.LittleEndian.AppendUint32(out, 0)
	out = binary.LittleEndian.AppendUint64(out, batch)
	out = append(out, body...)
	binary.LittleEndian.PutUint32(out[at+4:], frameSum(out[at:]))
	return out
}

// frameSum is the CRC-32C of a frame without the CRC itself.
func frameSum(f []byte) uint32 {
	return crc32.Update(crc32.Checksum(f[:4], castagnoli), castagnoli, f[8:])
}

// parseFrame reads the frame at the start of b. ok is false where there is no
// whole and valid one.
func parseFrame(b []byte) (batch uint64, body []byte, ok bool) {
	if len(b) < headerSize {
		return 0, nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n == 0 || n > MaxBody || len(b) < headerSize+int(n) {
		return 0, nil, false
	}
	b = b[:headerSize+int(n)]
	if binary.LittleEndian.Uint32(b[4:]) != frameSum(b) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(b[8:]), b[headerSize:], true
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d", first) }

// listSegments gives the first sequence numbers of the segments, in order.
func listSegments(fsys fileSystem, dir string) ([]uint64, error) {
	files, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, f := range files {
		if n, err := strconv.ParseUint(f.Name(), 10, 64); err == nil && segmentName(n) == f.Name() {
			firsts = append(firsts, n)
		}
	}
	slices.Sort(firsts)
	for i, first := range firsts {
		if want := uint64(i) * segmentSize; first != want {
			return nil, &CorruptError{segmentName(want), 0, want, "segment is missing"}
		}
	}
	return firsts, nil
}

// tail is where the valid frames of the last segment end.
type tail struct {
	segment  uint64 // first sequence number of the last segment
	exists   bool   // whether there is any segment
	seq      uint64 // number of valid records in the ledger
	offset   int64  // where they end in the segment
	batch    uint64 // the last batch, and where it starts
	batchOff int64
	torn     int64 // bytes behind offset
}

// span is the records [from, to), of which those below least must be there.
type span struct{ from, to, least uint64 }

var errStop = errors.New("stop")

// scan hands the frames of a span to fn, in order, and gives the tail. It stops
// early, with the tail so far, at the end of the span or when fn returns errStop.
//
// What follows the last valid frame of the last segment is a torn tail if no
// later batch is in it: a batch is written only once the one before is durable.
// Everything else that is not a valid frame in its place is a *CorruptError.
// The ledger may grow meanwhile.
func scan(fsys fileSystem, dir string, of span, fn func(frame) error) (tail, error) {
	t := tail{}
	if of.from >= of.to {
		return t, nil
	}
	firsts, err := listSegments(fsys, dir)
	if err != nil {
		return tail{}, err
	}
	for i, first := range firsts {
		last := i == len(firsts)-1
		if first+segmentSize <= of.from && !last {
			continue
		}
		if t, err = scanSegment(fsys, dir, first, of, last, fn); errors.Is(err, errStop) {
			return t, nil
		} else if err != nil {
			return t, err
		}
	}
	if t.seq < of.least {
		return t, &CorruptError{segmentName(t.segment), t.offset, t.seq, "records are missing"}
	}
	return t, nil
}

func scanSegment(fsys fileSystem, dir string, first uint64, of span, last bool, fn func(frame) error) (tail, error) {
	name := segmentName(first)
	t := tail{segment: first, exists: true, seq: first, batch: first}
	f, err := fsys.OpenFile(filepath.Join(dir, name), os.O_RDONLY, 0)
	if err != nil {
		return t, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return t, err
	}
	corrupt := func(reason string) error { return &CorruptError{name, t.offset, t.seq, reason} }
	in := func() *bufio.Reader {
		return bufio.NewReaderSize(io.NewSectionReader(f, t.offset, size-t.offset), headerSize+MaxBody)
	}
	for r, again := in(), false; ; {
		if t.seq == of.to {
			return t, errStop
		}
		if t.offset == size {
			if !last && t.seq < first+segmentSize {
				return t, corrupt("segment is too short")
			}
			return t, nil
		}
		if t.seq == first+segmentSize {
			return t, corrupt("segment is too long")
		}
		batch, body, ok, err := peekFrame(r)
		if err != nil {
			return t, err
		}
		if ok {
			again = false
			if batch != t.seq && (batch != t.batch || t.seq == first) {
				return t, corrupt("a valid frame of another place")
			}
			if batch == t.seq {
				t.batch, t.batchOff = batch, t.offset
			}
			if t.seq >= of.from {
				if err := fn(frame{t.seq, batch, t.offset, body}); err != nil {
					return t, err
				}
			}
			t.seq++
			t.offset += int64(headerSize + len(body))
			if _, err := r.Discard(headerSize + len(body)); err != nil {
				return t, err
			}
			continue
		}
		if !last {
			return t, corrupt("bad frame")
		}
		if size, err = f.Size(); err != nil { // a live ledger grows
			return t, err
		}
		later, err := laterBatch(in(), t.seq, first+segmentSize)
		if err != nil {
			return t, err
		}
		switch {
		case !later:
			t.torn = size - t.offset
			return t, nil
		case again:
			return t, corrupt("bad frame, and a later batch behind it")
		}
		// The writer may have been at work at first; a later batch proves that
		// it is done with this one.
		r, again = in(), true
	}
}

func peekFrame(r *bufio.Reader) (batch uint64, body []byte, ok bool, err error) {
	head, err := r.Peek(headerSize)
	if err == nil {
		if n := binary.LittleEndian.Uint32(head); n <= MaxBody {
			head, err = r.Peek(headerSize + int(n))
		}
	}
	if err != nil && err != io.EOF {
		return 0, nil, false, err
	}
	batch, body, ok = parseFrame(head)
	return batch, body, ok, nil
}

// laterBatch reports whether any valid frame that r comes by belongs to a batch
// that starts behind seq, and before end.
func laterBatch(r *bufio.Reader, seq, end uint64) (bool, error) {
	for {
		batch, _, ok, err := peekFrame(r)
		if err != nil || ok && batch > seq && batch < end {
			return ok, err
		}
		if _, err := r.Discard(1); err != nil {
			return false, nil // at the end: an error to read it would have been seen above
		}
	}
}
