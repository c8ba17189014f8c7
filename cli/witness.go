package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/witness"
	"github.com/ward-authz/ward/pdp/audit"
)

func newWitnessCommand(a *app) *cobra.Command {
	dir := "witness"
	c := group("witness", "A witness of other people's ledgers: it cosigns what continues what it saw",
		"  ward witness init witness.example/w1\n  ward witness watch \"$(cat verifier)\"\n  ward witness serve --listen 10.0.0.7:8190",
		&cobra.Command{
			Use: "init NAME", Short: "Make a witness's folder, and print its public key",
			Example: "  ward witness init witness.example/w1 --dir /var/lib/witness",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				key, err := witness.Create(dir, args[0])
				if err == nil {
					_, err = fmt.Fprintln(a.stdout, key)
				}
				return err
			},
		},
		&cobra.Command{
			Use: "watch VERIFIER", Short: "Add a ledger by its public key, or a further key of one",
			Long:    "A witness that is running takes it up at its next start.",
			Example: "  ward witness watch \"$(cat verifier)\"",
			Args:    cobra.ExactArgs(1),
			RunE:    func(_ *cobra.Command, args []string) error { return witness.Watch(dir, args[0]) },
		},
		newWitnessServeCommand(a, &dir))
	c.PersistentFlags().StringVar(&dir, "dir", dir, "the witness's `folder`")
	return c
}

func newWitnessServeCommand(a *app, dir *string) *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use: "serve", Short: "Cosign the checkpoints of the ledgers that are watched",
		Long: `Answers POST /add-checkpoint (C2SP tlog-witness). The last cosigned checkpoint of
a ledger is at /HASH/checkpoint, HASH being the SHA-256 of the ledger's name.
Run it where whoever runs the ledger cannot change it.`,
		Example: "  ward witness serve --listen 10.0.0.7:8190",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewJSONHandler(a.stderr, nil))
			w, err := witness.Open(*dir, log)
			if errors.Is(err, audit.ErrLocked) {
				return failf(exitFailure, "stop it first: two would contradict each other", "another process serves the witness in %s", *dir)
			}
			if err != nil {
				return err
			}
			defer w.Close()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return failf(exitFailure, "", "cannot listen at --listen: %s", trim(err))
			}
			log.Info("witnessing", "address", l.Addr().String(), "witness", w.Name())
			srv := &http.Server{Handler: w, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			context.AfterFunc(ctx, func() { _ = srv.Shutdown(context.Background()) })
			if err = srv.Serve(l); errors.Is(err, http.ErrServerClosed) {
				err = nil
			}
			return err
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8190", "`address` to listen at")
	return c
}
