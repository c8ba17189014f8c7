package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/boltstore"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
)

// kernel is the decision point opened in this process on the data folder.
type kernel struct {
	keys     *audit.Keys
	store    *boltstore.Store
	ledger   *audit.Ledger
	recovery audit.Recovery
	clock    func() time.Time
	pdp      *pdp.PDP
}

// initHint is what helps when something that init makes is missing.
const initHint = "ward init --admin NAME=UID makes it; it is never made otherwise"

// keepHint is what helps when what is stored is not what was written.
const keepHint = "keep the files as they are, and compare them with a copy"

// openKernel opens keys, store and ledger, and builds the decision point over
// them unless bare is set. It creates nothing.
func (c *config) openKernel(ctx context.Context, bare bool) (*kernel, error) {
	k := &kernel{}
	if err := k.open(ctx, c, bare); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func (k *kernel) open(ctx context.Context, c *config, bare bool) error {
	if err := exists(c.data, "data folder"); err != nil {
		return err
	}
	k.clock = c.clock
	var err error
	if k.keys, err = c.openKeys(); err != nil {
		return err
	}
	if err := c.sealing(); err != nil {
		return err
	}
	if k.store, err = boltstore.Open(c.store()); err != nil {
		return c.storeError(err)
	}
	if k.ledger, k.recovery, err = audit.Open(c.ledger(), k.keys, audit.Options{}); err != nil {
		return c.ledgerError(err)
	}
	if bare {
		return nil
	}
	if k.pdp, err = pdp.Open(ctx, k.config()); errors.Is(err, hierarchy.ErrCorrupt) {
		return c.storeError(err) // what opening did not look at, loading has
	}
	return err
}

func (k *kernel) config() pdp.Config {
	return pdp.Config{Store: k.store, Ledger: k.ledger, Keys: k.keys, Clock: k.clock}
}

// close closes the ledger before the store: its last checkpoint covers all.
func (k *kernel) close() error {
	var errs []error
	if k.pdp != nil {
		_ = k.pdp.WriteRefusals() // a ledger that has failed says so itself
	}
	if k.ledger != nil {
		errs = append(errs, k.ledger.Close())
	}
	if k.store != nil {
		errs = append(errs, k.store.Close())
	}
	*k = kernel{}
	return errors.Join(errs...)
}

func exists(dir, what string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failf(exitFailure, initHint, "there is no %s at %s", what, dir)
	case err != nil:
		return failf(exitFailure, "", "the %s %s cannot be read: %s", what, dir, cause(err))
	case !info.IsDir():
		return failf(exitFailure, "", "the %s %s is not a folder", what, dir)
	}
	return nil
}

func (c *config) openKeys() (*audit.Keys, error) {
	if err := exists(c.keys, "keys folder"); err != nil {
		return nil, err
	}
	keys, err := audit.OpenKeys(c.keys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failf(exitFailure, "name the folder that ward init made, as keys: in the configuration", "the folder %s holds no keys of ward", c.keys)
	}
	if err != nil {
		return nil, fmt.Errorf("the keys in %s cannot be read: %w", c.keys, err)
	}
	return keys, nil
}

// sealing reports whether records can be sealed. Whoever only reads can do
// without: what was sealed cannot be read then.
func (c *config) sealing() error {
	seals := filepath.Join(c.keys, "seals")
	if info, err := os.Stat(seals); err != nil || !info.IsDir() {
		return failf(exitFailure, "bring it back from a copy; an empty one makes all that was sealed unreadable for good", "the keys are not whole: there is no folder %s, and no record can be sealed", seals)
	}
	return nil
}

func (c *config) storeError(err error) error {
	switch {
	case errors.Is(err, hierarchy.ErrMissing):
		return failf(exitFailure, initHint, "there is no store at %s", c.store())
	case errors.Is(err, hierarchy.ErrForeign):
		return failf(exitFailure, "name the data folder that ward init made, with --data or data: in the configuration", "%s is not a store of ward of a version this program knows", c.store())
	case errors.Is(err, hierarchy.ErrLocked):
		return c.locked()
	case errors.Is(err, hierarchy.ErrCorrupt):
		return failf(exitIntegrity, keepHint, "the store %s is damaged: %s", c.store(), trim(err))
	}
	return fmt.Errorf("the store %s cannot be opened: %w", c.store(), err)
}

func (c *config) locked() error {
	if conn, err := net.DialTimeout("unix", c.admin.socket, time.Second); err == nil {
		return errors.Join(failf(exitFailure, "stop it first: one server uses a data folder", "a server uses the data folder %s, and answers at %s", c.data, c.admin.socket), conn.Close())
	}
	return failf(exitFailure, "wait for it, stop it, or name the server's socket with --socket",
		"another process uses the data folder %s, and no server answers at %s", c.data, c.admin.socket)
}

func (c *config) ledgerError(err error) error {
	switch {
	case errors.Is(err, audit.ErrLocked):
		return c.locked()
	case errors.Is(err, fs.ErrNotExist):
		return failf(exitFailure, initHint, "there is no ledger at %s", c.ledger())
	}
	if corrupt := (*audit.CorruptError)(nil); errors.As(err, &corrupt) && corrupt.Segment == "checkpoints" {
		return failf(exitIntegrity, "name this ledger's own keys folder, as keys: in the configuration; if it is the right one, "+keepHint,
			"the checkpoints of the ledger %s are not signed by the keys in %s, or are damaged: %s", c.ledger(), c.keys, trim(err))
	}
	return fmt.Errorf("the ledger %s cannot be opened: %w", c.ledger(), err)
}

// running reports whether a server answers at the admin socket.
func (a *app) running() (path string, up bool, err error) {
	path = a.socket
	if path == "" {
		c, err := a.config(false)
		if err != nil {
			return "", false, err
		}
		path = c.admin.socket
	}
	conn, err := net.DialTimeout("unix", path, 2*time.Second)
	switch {
	case err == nil:
		return path, true, conn.Close()
	case errors.Is(err, fs.ErrPermission):
		return path, false, failf(exitFailure, "run as the server's user, or let listen.admin.mode admit your group", "the admin socket %s does not admit this user", path)
	case a.socket != "":
		return path, false, failf(exitFailure, "start the server with ward serve, or leave out --socket", "no server answers at %s", path)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTSOCK):
		return path, false, nil
	}
	return path, false, failf(exitFailure, "", "the admin socket %s cannot be reached: %s", path, trim(err))
}

// client returns the way in: the running server, or the kernel in this process.
func (a *app) client(ctx context.Context) (*admin.Client, error) {
	path, up, err := a.running()
	if err != nil {
		return nil, err
	}
	if up {
		return admin.NewClient(admin.Socket(path)), nil
	}
	if a.kernel == nil {
		c, err := a.config(false)
		if err != nil {
			return nil, err
		}
		if a.kernel, err = c.openKernel(ctx, false); err != nil {
			return nil, err
		}
		if cut := a.kernel.recovery.Cut; cut > 0 {
			a.say("recovered: a torn tail of %d bytes was cut off and kept as %s", cut, a.kernel.recovery.Kept)
		}
	}
	h, err := a.kernel.handler(admin.Config{Ready: func() error { return a.kernel.ready(a.cfg) }, Temp: a.cfg.data})
	if err != nil {
		return nil, err
	}
	return admin.NewClient(admin.InProcess(h, os.Getuid())), nil
}

// evidence is a store and a ledger to read, in this process.
type evidence struct {
	keys    *audit.Keys
	reader  *audit.Reader
	ledger  string // folder
	store   hierarchy.Store
	covered uint64 // records that the store covers
	close   func() error
}

// evidenceFiles name evidence that is read directly, instead of that of the
// configuration.
type evidenceFiles struct{ ledger, keys, store string }

func (f *evidenceFiles) add(c *cobra.Command) {
	c.Flags().StringVar(&f.ledger, "ledger", "", "ledger `folder` to read, instead of the configuration's")
	c.Flags().StringVar(&f.keys, "keys", "", "its keys `folder`")
	c.Flags().StringVar(&f.store, "store", "", "its store `file`, where facts or policies are wanted")
}

// openFiles opens what the flags name. It takes no lock on the ledger.
func (a *app) openFiles(f *evidenceFiles, withStore bool) (*evidence, error) {
	switch {
	case f.ledger == "" || f.keys == "":
		return nil, failf(exitFailure, "", "--ledger and --keys go together")
	case withStore && f.store == "":
		return nil, failf(exitFailure, "", "this needs --store too: the facts are in it")
	}
	e := &evidence{ledger: f.ledger, covered: ^uint64(0), close: func() error { return nil }}
	if err := exists(f.ledger, "ledger"); err != nil {
		return nil, err
	}
	var err error
	if e.keys, err = (&config{keys: f.keys}).openKeys(); err != nil {
		return nil, err
	}
	if e.reader, err = audit.OpenReader(f.ledger, e.keys.Verifier()); err != nil {
		return nil, fmt.Errorf("the ledger %s cannot be opened: %w", f.ledger, err)
	}
	if f.store != "" {
		s, err := boltstore.OpenReadOnly(f.store)
		if errors.Is(err, hierarchy.ErrLocked) {
			return nil, failf(exitFailure, "give a copy of it, or leave out the flags to read through the server", "another process has the store %s open", f.store)
		}
		if err != nil {
			return nil, fmt.Errorf("the store %s cannot be opened: %w", f.store, err)
		}
		e.store, e.close = s, s.Close
	}
	a.say("the files are read directly: this read is not on record")
	return e, nil
}

// openEvidence opens the folders read-only, or beside a server a copy of them
// in a folder of its own, which close removes.
func (a *app) openEvidence(ctx context.Context, files *evidenceFiles, withStore bool) (*evidence, error) {
	if *files != (evidenceFiles{}) {
		return a.openFiles(files, withStore)
	}
	c, err := a.config(false)
	if err != nil {
		return nil, err
	}
	path, up, err := a.running()
	if err != nil {
		return nil, err
	}
	e := &evidence{ledger: c.ledger(), covered: ^uint64(0), close: func() error { return nil }}
	if e.keys, err = c.openKeys(); err != nil {
		return nil, err
	}
	store := c.store()
	if up {
		dir, err := os.MkdirTemp("", "ward-evidence-")
		if err != nil {
			return nil, err
		}
		e.close = func() error { return os.RemoveAll(dir) }
		a.say("a server is running: reading a copy of its store and ledger")
		tar, err := admin.NewClient(admin.Socket(path)).Copy(ctx)
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.covered, err = admin.Unpack(tar, dir)
		if err := errors.Join(err, tar.Close()); err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.ledger, store = filepath.Join(dir, "ledger"), filepath.Join(dir, "store.db")
	} else if err := exists(c.data, "data folder"); err != nil {
		return nil, err
	}
	if e.reader, err = audit.OpenReader(e.ledger, e.keys.Verifier()); err != nil {
		return nil, errors.Join(c.ledgerError(err), e.close())
	}
	if withStore {
		s, err := boltstore.OpenReadOnly(store)
		if err != nil {
			return nil, errors.Join(c.storeError(err), e.close())
		}
		remove := e.close
		e.store, e.close = s, func() error { return errors.Join(s.Close(), remove()) }
	}
	return e, nil
}
