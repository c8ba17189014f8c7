package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
)

// The endpoints of an import. Both ask for hierarchy.import at the tenant, or
// at the operator where there is none.
//
//	POST /v1/import           a feed, as NDJSON
//	POST /v1/import/abandon   drops an open import
//
// The body of an import is one line with an [Import], one with a [pdp.Row] for
// each row of the sources, and as the last one {"end":N} with the number of
// rows: a body that breaks off changes nothing. Nothing is written before the
// last line is read. The answer is NDJSON too: {"progress":{…}} after every
// batch, then {"imported":{…}} or {"error":{…}}. An error before the first
// batch has its own status.
func (h *Handler) importEndpoints() {
	post(h, "/v1/import/abandon", small, h.abandon)
	h.mux.HandleFunc("POST /v1/import", func(w http.ResponseWriter, r *http.Request) {
		who, err := h.who(r)
		if err == nil {
			err = h.importFeed(w, r, who)
		}
		if err != nil {
			// The client hears it only once it has said what it had to say.
			_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
			h.fail(w, err)
		}
	})
}

// maxDrain bounds what is read of a body whose answer is an error already.
const maxDrain = 256 << 20

// Import is the first line of an import.
type Import struct {
	// ID names the import: the digest of the map and the files.
	ID string `json:"id"`
	// Tenant is the one tenant it may touch; empty for shared data.
	Tenant  string `json:"tenant,omitempty"`
	History bool   `json:"history,omitempty"`
	DryRun  bool   `json:"dryRun,omitempty"`
	// Source names the feed that this is one delivery of, AsOf its date.
	Source string `json:"source,omitempty"`
	AsOf   Time   `json:"asOf,omitzero"`
	// Full: the rows are the whole truth of these kinds of facts.
	Full  bool     `json:"full,omitempty"`
	Kinds []string `json:"kinds,omitempty"`
	// AllowMassEnd lets the feed end any number of coverages.
	AllowMassEnd bool `json:"allowMassEnd,omitempty"`
	// Files are the sources that rows count in.
	Files []pdp.FeedFile `json:"files"`
	Reason
}

// importLine is a line of the answer.
type importLine struct {
	Progress *pdp.Progress `json:"progress,omitempty"`
	Imported *pdp.Imported `json:"imported,omitempty"`
	Error    *Error        `json:"error,omitempty"`
	Status   int           `json:"status,omitempty"` // of Error
}

func (h *Handler) importFeed(w http.ResponseWriter, r *http.Request, who Who) error {
	// A feed takes as long as it takes.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})

	in := bufio.NewReaderSize(r.Body, small)
	line, err := feedLine(in)
	if err != nil {
		return err
	}
	var head Import
	if err := decode(bytes.NewReader(line), small, &head); err != nil {
		return err
	}
	if err := head.check(); err != nil {
		return err
	}
	var asOf hierarchy.Instant
	if !head.AsOf.IsZero() {
		asOf = hierarchy.At(time.Time(head.AsOf))
	}
	started := false
	out := json.NewEncoder(w)
	say := func(l importLine) {
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
		_ = out.Encode(l)
		_ = control.Flush()
	}
	done, err := h.PDP.Import(r.Context(), pdp.Feed{
		Actor: who.Actor, Caller: who.Caller, Why: head.Why, Ticket: head.Ticket,
		ID: head.ID, Tenant: head.Tenant, History: head.History, DryRun: head.DryRun, Files: head.Files,
		Source: head.Source, AsOf: asOf, Full: head.Full, Kinds: head.Kinds, MassEnd: head.AllowMassEnd,
		Rows:     feedRows(in),
		Progress: func(p pdp.Progress) { say(importLine{Progress: &p}) },
	})
	if err != nil && !started {
		return err
	}
	if err != nil {
		e := toError(err)
		if e.Status >= 500 {
			h.Log.Error("admin: import failed", "code", e.Code, "type", fmt.Sprintf("%T", err))
		}
		say(importLine{Error: e, Status: e.Status})
		return nil
	}
	say(importLine{Imported: &done})
	return nil
}

// feedRows yields the rows of a body, and an error when it breaks off.
func feedRows(in *bufio.Reader) iter.Seq2[pdp.Row, error] {
	return func(yield func(pdp.Row, error) bool) {
		for n := 0; ; n++ {
			line, err := feedLine(in)
			if err != nil {
				yield(pdp.Row{}, err)
				return
			}
			if bytes.HasPrefix(line, []byte(`{"end"`)) {
				var end struct {
					End int `json:"end"`
				}
				if err = decode(bytes.NewReader(line), small, &end); err == nil && end.End != n {
					err = bad(fmt.Sprintf("the feed says that it has %d rows, it has %d", end.End, n))
				}
				if err == nil {
					if _, err = in.ReadByte(); err == io.EOF {
						return
					}
					err = bad("the feed goes on after its end")
				}
				yield(pdp.Row{}, err)
				return
			}
			row, err := pdp.DecodeRow(line)
			if err != nil {
				yield(pdp.Row{}, &Error{Status: http.StatusBadRequest, Code: string(authz.BadRequest), Message: err.Error(), Row: n + 2})
				return
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

// feedLine reads a line; it is valid until the next one.
func feedLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return nil, &Error{Status: http.StatusRequestEntityTooLarge, Code: string(authz.TooLarge), Message: "a line of the feed is too long"}
	case err != nil:
		return nil, bad("the feed broke off before its end")
	}
	return line, nil
}

// Abandon names the open import to drop: by its id, or as that of a tenant.
type Abandon struct {
	ID     string `json:"id,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	Reason
}

func (h *Handler) abandon(ctx context.Context, who Who, in *Abandon) (Changed, error) {
	if err := in.check(); err != nil {
		return Changed{}, err
	}
	id := in.ID
	for _, m := range h.PDP.Graph().Imports() {
		if id == "" && (m.Tenant == in.Tenant || m.History) {
			id = m.ID
		}
	}
	done, err := h.PDP.AbandonImport(ctx, pdp.Change{Actor: who.Actor, Caller: who.Caller, Why: in.Why, Ticket: in.Ticket}, id)
	return changedOf(done), err
}

// What helps against the codes of imports.
func init() {
	hints[hierarchy.CodeImportOpen] = "run that import again to go on with it, or drop it: ward hierarchy import --map MAP --abandon"
	hints[hierarchy.CodeImportUnknown] = "leave out the files to drop whatever import of the tenant is open"
	hints[hierarchy.CodeStoreNotEmpty] = "leave out --history, or import into a new data folder: ward init"
	hints[pdp.FeedStale] = "load the newest feed: what an older one says may be out of date"
	hints[pdp.FeedEndsTooMany] = "see whom it concerns with --dry-run; --allow-mass-end loads it all the same"
	hints[pdp.ImportChanged] = "drop it with --abandon, then start again"
}

// Import sends a feed. What rows yields as an error ends it before anything is
// written. An answer that is none is an *[Error]; the import may be open then.
func (c *Client) Import(ctx context.Context, head Import, rows iter.Seq2[pdp.Row, error], progress func(pdp.Progress)) (pdp.Imported, error) {
	body, w := io.Pipe()
	defer body.Close()
	sent := make(chan error, 1)
	go func() {
		err := sendFeed(w, head, rows)
		sent <- err
		_ = w.CloseWithError(err)
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/v1/import", body)
	if err != nil {
		return pdp.Imported{}, err
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	response, err := c.http.Do(r)
	// What went wrong here tells more than what the server made of it.
	select {
	case serr := <-sent:
		if serr != nil && !errors.Is(serr, io.ErrClosedPipe) {
			if err == nil {
				response.Body.Close()
			}
			return pdp.Imported{}, serr
		}
	default:
	}
	if err != nil {
		return pdp.Imported{}, err
	}
	defer response.Body.Close()
	answer := json.NewDecoder(response.Body)
	for {
		var l importLine
		if err := answer.Decode(&l); err != nil {
			return pdp.Imported{}, fmt.Errorf("the answer broke off: %w", err)
		}
		switch {
		case l.Imported != nil:
			return *l.Imported, nil
		case l.Error != nil:
			l.Error.Status = response.StatusCode
			if l.Status != 0 {
				l.Error.Status = l.Status
			}
			return pdp.Imported{}, l.Error
		case l.Progress != nil && progress != nil:
			progress(*l.Progress)
		}
	}
}

func sendFeed(w io.Writer, head Import, rows iter.Seq2[pdp.Row, error]) error {
	b := bufio.NewWriterSize(w, 64<<10)
	out := json.NewEncoder(b)
	if err := out.Encode(head); err != nil {
		return err
	}
	n := 0
	for row, err := range rows {
		if err != nil {
			return err
		}
		if err := out.Encode(row); err != nil {
			return err
		}
		n++
	}
	if err := out.Encode(map[string]int{"end": n}); err != nil {
		return err
	}
	return b.Flush()
}
