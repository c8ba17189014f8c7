package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/adapters/authzen"
	"github.com/ward-authz/ward/adapters/delegation"
	"github.com/ward-authz/ward/adapters/witness"
	"github.com/ward-authz/ward/pdp/authz"
)

func newServeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Opens the data folder that ward init made, and answers at the doors that the
configuration names. Logs are JSON lines on stderr and hold no identifiers.

With a webhook in the configuration it posts an event when a grant's end comes
30, 7 and 1 days ahead. The secret's file is its owner's alone to read.

SIGTERM or SIGINT drains: readiness fails, clients are told to close their
connections, and what has been asked is answered. A second signal ends at once.`,
		Example: "  ward serve\n  ward serve --config /etc/ward/ward.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.config(false)
			if err != nil {
				return err
			}
			if err := c.checkServe(); err != nil {
				return err
			}
			stop := make(chan os.Signal, 2)
			signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
			defer signal.Stop(stop)
			return a.serve(cmd.Context(), c, stop)
		},
	}
}

// Timeouts of the doors.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// adminTimeout is for changes and inquiries, which may be large.
	adminTimeout = 5 * time.Minute
	// shutdownTimeout bounds how long answers in flight may take.
	shutdownTimeout = 15 * time.Second
)

// handler is the admin door of a kernel; c says what the kernel does not.
func (k *kernel) handler(c admin.Config) (http.Handler, error) {
	c.PDP, c.Store, c.Ledger, c.Keys, c.Version = k.pdp, k.store, k.ledger, k.keys, version()
	return admin.New(c)
}

// refused counts what a door refuses.
func (k *kernel) refused(door string) func(authz.Code) {
	return func(code authz.Code) { k.pdp.Refused(door, code) }
}

// ready says why no requests should come: nothing can be decided, or the disk
// is filling up.
func (k *kernel) ready(c *config) error { return errors.Join(k.pdp.Ready(), c.room()) }

// server is `ward serve` at work.
type server struct {
	cfg      *config
	kernel   *kernel
	log      *slog.Logger
	draining atomic.Bool
	servers  []*http.Server
	clients  []*witness.Client
	sockets  []string
	failed   chan error
}

func (a *app) serve(ctx context.Context, c *config, stop <-chan os.Signal) error {
	s := &server{cfg: c, log: slog.New(slog.NewJSONHandler(a.stderr, nil)), failed: make(chan error, 4)}
	k, err := c.openKernel(ctx, false)
	if err != nil {
		return err
	}
	s.kernel = k
	if r := k.recovery; r.Cut > 0 {
		s.log.Warn("a torn tail was cut off the ledger: records that were never acknowledged", "bytes", r.Cut, "kept", r.Kept)
	}
	err = s.run(stop)
	for _, path := range s.sockets {
		_ = os.Remove(path) // closed listeners have removed theirs already
	}
	return errors.Join(err, k.close())
}

func (s *server) run(stop <-chan os.Signal) error {
	defer func() {
		for _, h := range s.servers {
			_ = h.Close()
		}
	}()
	events, err := s.startWebhook()
	if err != nil {
		return err
	}
	defer events()
	witnessed, err := s.startWitnesses()
	if err != nil {
		return err
	}
	defer witnessed()
	attrs, err := s.listen()
	if err != nil {
		return err
	}
	head := s.kernel.pdp.Graph().Head()
	attrs = append(attrs, "revision", head.Revision, "records", s.kernel.ledger.Size(), "version", version(), "environment", s.cfg.env)
	if err := s.ready(); err != nil {
		attrs = append(attrs, "ready", err.Error())
	}
	s.log.Info("serving", attrs...)
	select {
	case err := <-s.failed:
		s.log.Error("a listener failed", "type", errorType(err))
		return err
	case <-stop:
		return s.shutdown(stop)
	}
}

func errorType(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op
	}
	return "other"
}

// ready says why the server should get no requests, or nil.
func (s *server) ready() error {
	if s.draining.Load() {
		return &authz.Error{Kind: authz.Outage, Code: authz.NotReady, Text: "shutting down"}
	}
	return s.kernel.ready(s.cfg)
}

// listen opens the doors and returns what to log about them.
func (s *server) listen() ([]any, error) {
	h, err := s.kernel.handler(admin.Config{Ready: s.ready, Refused: s.kernel.refused("admin"), Witnesses: s.witnesses, Log: s.log, Temp: s.cfg.data})
	if err != nil {
		return nil, err
	}
	l, err := s.listenUnix(s.cfg.admin.socket, s.cfg.admin.mode)
	if err != nil {
		return nil, err
	}
	srv := s.start(l, h, false)
	srv.ReadTimeout, srv.WriteTimeout = adminTimeout, adminTimeout
	s.serve(srv, l, "")
	attrs := []any{"admin", s.cfg.admin.socket}

	if path := s.cfg.authzen.socket; path != "" {
		l, err := s.listenUnix(path, s.cfg.authzen.mode)
		if err != nil {
			return nil, err
		}
		door, err := s.door(nil)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		s.serve(s.start(l, door, true), l, "")
		attrs = append(attrs, "socket", path)
	}
	if s.cfg.authzen.address != "" {
		l, err := net.Listen("tcp", s.cfg.authzen.address)
		if err != nil {
			return nil, failf(exitFailure, "is another server running?", "cannot listen at listen.authzen.address: %s", trim(err))
		}
		door, err := s.door(l.Addr())
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		srv := s.start(l, door, true)
		scheme := "http"
		if s.cfg.authzen.cert != "" {
			scheme = "https"
			cert, err := tls.LoadX509KeyPair(s.cfg.authzen.cert, s.cfg.authzen.key)
			if err != nil {
				return nil, errors.Join(failf(exitFailure, "PEM files are wanted", "the tls certificate and key cannot be read: %s", trim(err)), l.Close())
			}
			srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
		}
		s.serve(srv, l, scheme)
		attrs = append(attrs, "address", scheme+"://"+l.Addr().String())
	}
	return attrs, nil
}

// listenUnix listens at a path. A socket that a dead process left there is
// removed: the store's lock says that no other server of this data lives.
func (s *server) listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if len(path) > 100 {
		return nil, invalid("a socket's path holds at most 100 bytes", "the socket path %s is too long", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, failf(exitFailure, "", "%s is in the way of the socket, and is none", path)
		}
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			return nil, errors.Join(failf(exitFailure, "stop it, or name another socket", "another server answers at %s", path), conn.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// For this user alone: who else may come in opens the folder to them.
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, failf(exitFailure, "the folder above it must exist, and be this user's to write", "the folder of the socket %s cannot be made: %s", path, cause(err))
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, failf(exitFailure, "its folder must be this user's to write", "cannot listen at %s: %s", path, trim(err))
	}
	s.sockets = append(s.sockets, path)
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// door is the AuthZEN door, with the people's door and health beside it.
func (s *server) door(addr net.Addr) (http.Handler, error) {
	door, err := authzen.New(authzen.Config{
		Decider: s.kernel.pdp,
		BaseURL: s.cfg.baseURL,
		Hosts:   s.cfg.hostNames(addr),
		Caller:  s.cfg.caller,
		Refused: s.kernel.refused("authzen"),
		Log:     s.log,
	})
	if err != nil {
		return nil, invalid("baseURL: https://HOST, hosts: [HOST]", "the configuration of the door is wrong: %s", err)
	}
	people, err := delegation.New(delegation.Config{
		PDP:     s.kernel.pdp,
		Hosts:   s.cfg.hostNames(addr),
		Caller:  s.cfg.caller,
		Refused: s.kernel.refused("delegation"),
		Log:     s.log,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { admin.Health(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { admin.Health(w, s.ready()) })
	// Not mux.Handle("/"): it would redirect paths that the door refuses.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" || r.URL.Path == "/readyz":
			mux.ServeHTTP(w, r)
		case delegation.Serves(r.URL.Path):
			people.ServeHTTP(w, r)
		default:
			door.ServeHTTP(w, r)
		}
	}), nil
}

// caller identifies who asks, by the connection alone.
func (c *config) caller(r *http.Request) (authz.Caller, bool) {
	listener := "tcp"
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		listener = "socket"
		if uid, ok := admin.PeerUID(r.Context()); ok {
			for _, k := range c.callers {
				if k.uid == uid {
					return k.Caller, true
				}
			}
		}
	}
	for _, k := range c.callers {
		if k.listener == listener {
			return k.Caller, true
		}
	}
	return authz.Caller{}, false
}

// start makes the server of a listener.
func (s *server) start(_ net.Listener, h http.Handler, leave bool) *http.Server {
	if leave {
		next := h
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.draining.Load() {
				w.Header().Set("Connection", "close")
			}
			next.ServeHTTP(w, r)
		})
	}
	srv := &http.Server{Handler: h, ConnContext: admin.ConnContext,
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: 32 << 10, ErrorLog: log.New(&connectionErrors{s.log, s.kernel.refused("listener")}, "", 0)}
	s.servers = append(s.servers, srv)
	return srv
}

func (s *server) serve(srv *http.Server, l net.Listener, scheme string) {
	go func() {
		var err error
		if scheme == "https" {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// connectionErrors takes what net/http complains about. What anybody can bring
// about is counted as refused; the rest is logged: that there is a complaint, and
// its kind, but nothing that a client sent.
type connectionErrors struct {
	log     *slog.Logger
	refused func(authz.Code)
}

// Write implements [io.Writer].
func (c *connectionErrors) Write(b []byte) (int, error) {
	for _, k := range []string{"Accept", "panic", "superfluous"} {
		if bytes.Contains(b, []byte(k)) {
			c.log.Warn("http", "kind", k)
			return len(b), nil
		}
	}
	code := authz.Code("connection")
	if bytes.Contains(b, []byte("TLS handshake")) {
		code = "tls_handshake"
	}
	c.refused(code)
	return len(b), nil
}

var _ io.Writer = (*connectionErrors)(nil)

// shutdown drains: first readiness fails and clients are told to go, then the
// doors close, then what is in flight is answered. A second signal ends it.
func (s *server) shutdown(stop <-chan os.Signal) error {
	s.log.Info("draining", "for", s.cfg.drain.String())
	s.draining.Store(true)
	interrupted := failf(exitFailure, "", "a second signal ended the server before it had drained")
	select {
	case <-time.After(s.cfg.drain):
	case <-stop:
		return interrupted
	}
	// A name that leads nowhere lets nobody into a queue that nobody serves.
	for _, path := range s.sockets {
		_ = os.Remove(path)
	}
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		results := make(chan error, len(s.servers))
		for _, srv := range s.servers {
			go func() { results <- srv.Shutdown(ctx) }()
		}
		var errs []error
		for range s.servers {
			errs = append(errs, <-results)
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		if err != nil {
			return failf(exitFailure, "", "answers were still in flight after %s", shutdownTimeout)
		}
		s.log.Info("stopped", "records", s.kernel.ledger.Size())
		return nil
	case <-stop:
		return interrupted
	}
}

func newStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the head, the ledger and whether it is ready",
		Long: `Shows how the server, or the data folder when none runs, is doing, and what
waits for somebody: emergencies that are open or not reviewed, grants that lack a
signature or end soon. The checkpoint in -o json is signed; kept elsewhere, it anchors ward audit verify.`,
		Example: "  ward status\n  ward status -o json | jq -r .checkpoint > checkpoint.txt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			var st admin.Status
			if err := c.Get(cmd.Context(), "/v1/status", &st); err != nil {
				return err
			}
			return a.show(st, func(w io.Writer) {
				ready := "yes"
				if !st.Ready {
					ready = "no: " + st.Reason
				}
				rows(w, "ready", ready, "revision", itoa(st.Revision), "head", st.Head.String(), "policy set", st.SetName+" "+short(st.Set), "records", itoa(st.Records), "version", st.Version)
				for _, o := range st.Overlays {
					rows(w, "overlay", o.Tenant+" "+short(o.Digest))
				}
				if n := st.Waiting; n != nil {
					rows(w, "emergencies", fmt.Sprintf("%d open, %d not reviewed", n.OpenEmergencies, n.UnreviewedEmergencies),
						"grants", fmt.Sprintf("%d requested, %d that end within 7 days", n.RequestedGrants, n.EndingGrants))
				}
				for _, x := range st.Witnesses {
					text := fmt.Sprintf("%s has cosigned %d records, at %s", x.Witness, x.Size, x.Seen.Format(time.RFC3339))
					switch {
					case x.Diverged:
						text = fmt.Sprintf("INTEGRITY: %s has seen another history of this ledger, or a longer one", x.Witness)
					case x.Size == 0 && x.Seen.IsZero():
						text = x.Witness + " has cosigned nothing yet"
					}
					if x.Error != "" && !x.Diverged {
						text += "; now " + x.Error
					}
					rows(w, "witness", text)
				}
				for _, m := range st.Imports {
					rows(w, "open import", m)
				}
			})
		},
	}
}
