package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ward-authz/ward/pdp/audit"
)

// ErrDiverged: the witness has seen another history of the ledger, or a longer
// one. The ledger was cut back or rewritten, or there are two of them.
var ErrDiverged = errors.New("witness: the ledger does not continue what the witness has seen of it")

// Ledger is what is witnessed; *audit.Ledger is one.
type Ledger interface {
	// Consistency proves that the last checkpoint continues an earlier size;
	// audit.ErrNotFound if it is shorter.
	Consistency(old uint64) (audit.Consistency, error)
}

// Client submits a ledger's checkpoints to one witness, and keeps the last
// cosigned one in the ledger's folder.
type Client struct {
	url      string
	key      Verifier
	verifier func() string
	ledger   Ledger
	file     string
	http     *http.Client
	log      *slog.Logger

	mu     sync.Mutex
	status Status
}

// Status is how far a witness has followed.
type Status struct {
	Witness string    `json:"witness"`
	Size    uint64    `json:"size"` // records that it has cosigned
	Seen    time.Time `json:"seen"` // when it did; the zero time for never
	// Error is why the last submission failed, in words. Diverged says that
	// it was for the ledger's history.
	Error    string `json:"error,omitempty"`
	Diverged bool   `json:"diverged,omitempty"`
}

// NewClient makes the client of the witness at a URL, under which add-checkpoint
// lies. It reads the cosigned checkpoint in the ledger's folder, if there is one.
// Verifier gives the ledger's keys, which rotation adds to ([audit.Keys.Verifier]).
func NewClient(url string, key Verifier, ledger Ledger, verifier func() string, dir string, log *slog.Logger) (*Client, error) {
	c := &Client{url: strings.TrimSuffix(url, "/") + "/add-checkpoint", key: key, ledger: ledger, verifier: verifier,
		file: filepath.Join(dir, key.File()), http: &http.Client{Timeout: 10 * time.Second}, log: log}
	c.status.Witness = key.Name()
	msg, err := os.ReadFile(c.file)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	c.status, err = c.see(msg)
	return c, err
}

// see opens a cosigned checkpoint.
func (c *Client) see(msg []byte) (Status, error) {
	at, err := c.key.Seen(msg)
	if err != nil {
		return Status{}, err
	}
	cp, err := audit.OpenCheckpoint(msg, c.verifier())
	return Status{Witness: c.key.Name(), Size: cp.Size, Seen: at}, err
}

// Status says how far the witness has followed.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Run submits the last checkpoint at once and then in that interval, until ctx
// ends, and a last time then: what lies still can be rewritten too. It logs a witness that does not answer once, and [ErrDiverged] each time.
func (c *Client) Run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		before := c.Status().Error
		err := c.Submit(ctx)
		switch now := c.Status(); {
		case ctx.Err() != nil:
			return
		case now.Diverged:
			c.log.Error("INTEGRITY: the ledger does not continue what the witness has seen of it", "witness", now.Witness)
		case err != nil && now.Error != before:
			c.log.Warn("the witness has not cosigned", "witness", now.Witness, "error", now.Error)
		}
		select {
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer stop()
			if err := c.Submit(last); err != nil {
				c.log.Warn("the witness has not cosigned the end", "witness", c.key.Name())
			}
			return
		case <-tick.C:
		}
	}
}

// Submit asks for a cosignature of the last checkpoint, and keeps it.
func (c *Client) Submit(ctx context.Context) error {
	err := c.submit(ctx, c.Status().Size)
	if err != nil && ctx.Err() == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.status.Error, c.status.Diverged = strings.TrimPrefix(err.Error(), "witness: "), errors.Is(err, ErrDiverged)
	}
	return err
}

// submit asks from the size that the witness had last, and once more if it says
// that it was another.
func (c *Client) submit(ctx context.Context, old uint64) error {
	for range 2 {
		proof, err := c.ledger.Consistency(old)
		if errors.Is(err, audit.ErrNotFound) {
			return ErrDiverged // it has seen more than there is
		}
		if err != nil {
			return fmt.Errorf("witness: the ledger's proof: %w", err)
		}
		status, answer, err := c.post(ctx, proof.Text())
		switch {
		case err != nil:
			return errors.New("witness: it does not answer")
		case status == http.StatusOK:
			cosigned := append(bytes.Clone(proof.Checkpoint), answer...)
			seen, err := c.see(cosigned) // what is kept must open at the next start
			if errors.Is(err, audit.ErrCorrupt) {
				err = errors.New("witness: its answer is more than a cosignature")
			}
			if err != nil {
				return err
			}
			if err := replace(c.file, cosigned); err != nil {
				return fmt.Errorf("witness: the cosigned checkpoint cannot be kept: %w", err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.status = seen
			return nil
		case status == http.StatusUnprocessableEntity:
			return ErrDiverged
		case status != http.StatusConflict:
			return fmt.Errorf("witness: it answers %d", status)
		}
		if old, err = strconv.ParseUint(strings.TrimSuffix(string(answer), "\n"), 10, 63); err != nil {
			return errors.New("witness: its answer is not one")
		}
	}
	return errors.New("witness: it has no one last size")
}

func (c *Client) post(ctx context.Context, body []byte) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxBody))
	return res.StatusCode, answer, err
}
