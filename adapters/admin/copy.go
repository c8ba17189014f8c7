package admin

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ward-authz/ward/pdp/audit"
)

// Names of a copy's parts.
const (
	copyStore   = "store.db"
	copyLedger  = "ledger/"
	copyRecords = "records" // how many records the copied store covers, as text
)

func timeMilli(t Time) int64 { return time.Time(t).UnixMilli() }

// copy streams store.db, ledger/ and records. The store is copied first, so
// that every revision of it has its record in the ledger's copy; a record
// beyond `records` may refer to a revision that the store's copy lacks.
func (h *Handler) copy(w http.ResponseWriter, r *http.Request, who Who) error {
	if err := h.PDP.Permit(r.Context(), who.Actor, who.Caller, "audit.read"); err != nil {
		return err
	}
	covered := h.Ledger.Size()
	store, err := h.spoolStore(r)
	if err != nil {
		return err
	}
	defer store.Close()
	size, err := store.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := store.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	t := tar.NewWriter(&patient{w: w, rc: http.NewResponseController(w)})
	err = writeCopy(t, h, store, size, covered)
	if err != nil {
		h.Log.Error("admin: a copy broke off", "type", fmt.Sprintf("%T", err))
		panic(http.ErrAbortHandler) // the status is sent: only a broken stream tells
	}
	return nil
}

func writeCopy(t *tar.Writer, h *Handler, store io.Reader, size int64, covered uint64) error {
	n := strconv.FormatUint(covered, 10) + "\n"
	if err := part(t, copyRecords, int64(len(n)), strings.NewReader(n)); err != nil {
		return err
	}
	if err := part(t, copyStore, size, store); err != nil {
		return err
	}
	files, err := h.Ledger.Files()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := ledgerPart(t, f); err != nil {
			return err
		}
	}
	return t.Close()
}

func ledgerPart(t *tar.Writer, f audit.File) error {
	from, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	size := min(f.Size, info.Size())
	return part(t, copyLedger+filepath.Base(f.Path), size, io.LimitReader(from, size))
}

func part(t *tar.Writer, name string, size int64, from io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(t, from)
	return err
}

// spoolStore writes the store's copy to a file that no name leads to, so that
// its size is known and nothing is left behind.
func (h *Handler) spoolStore(r *http.Request) (*os.File, error) {
	f, err := os.CreateTemp(h.Temp, ".ward-copy-*")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), h.Store.CopyTo(r.Context(), f)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// patient moves the write deadline on as long as the client reads.
type patient struct {
	w  io.Writer
	rc *http.ResponseController
}

const copyPatience = 30 * time.Second

// Write implements [io.Writer].
func (p *patient) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(copyPatience)) // not supported in process
	return p.w.Write(b)
}

// Unpack writes a copy into an empty folder: store.db and ledger/. It returns
// how many records the store's copy covers; the ledger's copy may hold more.
func Unpack(from io.Reader, dir string) (covered uint64, err error) {
	if err := os.Mkdir(filepath.Join(dir, "ledger"), 0o700); err != nil {
		return 0, err
	}
	in := tar.NewReader(from)
	parts := 0
	for {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			if parts < 3 {
				return 0, errors.New("the copy is incomplete")
			}
			return covered, nil
		}
		if err != nil {
			return 0, fmt.Errorf("the copy broke off: %w", err)
		}
		parts++
		name := head.Name
		if name == copyRecords {
			text, err := io.ReadAll(io.LimitReader(in, 64))
			if err != nil {
				return 0, err
			}
			if covered, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
				return 0, errors.New("the copy is not one of this version")
			}
			continue
		}
		if base, ok := strings.CutPrefix(name, copyLedger); head.Typeflag != tar.TypeReg || name != copyStore && (!ok || base == "" || base != filepath.Base(base) || base == "..") {
			return 0, errors.New("the copy holds a file that it should not")
		}
		f, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(name)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(f, in)
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, fmt.Errorf("the copy broke off: %w", err)
		}
	}
}
