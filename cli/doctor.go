package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/boltstore"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
)

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check the configuration and the data, and say what to do",
		Long: `Checks the configuration, the keys, the data folder, its disk, the clock, and
what the facts say, through the running server or without one. Each line is ok,
warn or fail, and says what to do. It changes nothing, and writes no record.

Exit code 1 when a line fails.`,
		Example: "  ward doctor\n  ward doctor --config /etc/ward/ward.yaml -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{a: a, checks: []check{}}
			d.run(cmd.Context())
			if err := a.show(d.checks, func(w io.Writer) {
				for _, c := range d.checks {
					fmt.Fprintf(w, "%s\t%s\t%s\n", c.State, c.Check, c.Text)
					if c.Do != "" {
						fmt.Fprintf(w, "\t\tdo: %s\n", c.Do)
					}
				}
			}); err != nil {
				return err
			}
			if slices.ContainsFunc(d.checks, func(c check) bool { return c.State == "fail" }) {
				return exit(exitFailure)
			}
			return nil
		},
	}
}

// check is one line of doctor. The names of checks are append-only.
type check struct {
	Check string `json:"check"`
	State string `json:"state"` // "ok", "warn" or "fail"
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"` // what to do about it
}

type doctor struct {
	a      *app
	config *config
	checks []check
}

func (d *doctor) add(state, name, do, format string, args ...any) {
	d.checks = append(d.checks, check{name, state, fmt.Sprintf(format, args...), do})
}

func (d *doctor) ok(name, format string, args ...any) { d.add("ok", name, "", format, args...) }

func (d *doctor) warn(name, do, format string, args ...any) { d.add("warn", name, do, format, args...) }

func (d *doctor) fail(name, do, format string, args ...any) { d.add("fail", name, do, format, args...) }

// failed adds a failure for an error that a command would end with.
func (d *doctor) failed(name string, err error) {
	_, text, hint := explainError(err)
	d.fail(name, hint, "%s", text)
}

func (d *doctor) run(ctx context.Context) {
	c, err := d.a.config(false)
	if err != nil {
		d.failed("configuration", err)
		return
	}
	d.config = c
	d.configuration()
	d.permissions()
	d.disk()
	d.certificate()
	keys, err := c.openKeys()
	if err == nil {
		err = c.sealing()
	}
	if err != nil {
		d.failed("keys", err)
	} else {
		d.ok("keys", "the keys are in %s, outside the data folder", c.keys)
	}
	path, up, err := d.a.running()
	switch {
	case err != nil:
		d.failed("server", err)
		return
	case up:
		d.throughServer(ctx, path)
	default:
		d.warn("server", "start it with ward serve", "no server answers at %s", path)
		if keys != nil {
			d.onFiles(ctx, keys)
		}
	}
}

// configuration holds the configuration against what serving needs.
func (d *doctor) configuration() {
	c := d.config
	if c.path == "" {
		d.warn("configuration", "ward init writes one", "there is no configuration file: defaults hold")
	} else {
		d.ok("configuration", "%s", c.path)
	}
	if err := c.checkServe(); err != nil {
		d.failed("serving", err)
	} else {
		d.ok("serving", "the configuration says what serving needs")
	}
	if len(c.callers) == 0 {
		d.warn("callers", "register the programs that ask, as callers: in the configuration", "no caller is registered: nobody may assert a subject")
	}
}

// permissions looks at who else may read or change what only ward should.
func (d *doctor) permissions() {
	c := d.config
	clean := true
	// Others' bits that are too much: of a file or folder, and of all below it.
	look := func(path string, below bool, never, better fs.FileMode, do string) {
		walk := func(p string, info fs.FileInfo) {
			if info.Mode()&fs.ModeSymlink != 0 || info.Mode()&fs.ModeSocket != 0 {
				return
			}
			switch mode := info.Mode().Perm(); {
			case mode&never != 0:
				clean = false
				d.fail("permissions", fmt.Sprintf(do, p), "%s has mode %04o", p, mode)
			case mode&better != 0:
				clean = false
				d.warn("permissions", fmt.Sprintf(do, p), "%s has mode %04o", p, mode)
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			return // another check says so
		}
		if !below {
			walk(path, info)
			return
		}
		_ = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				clean = false
				d.warn("permissions", "run it as the server's user", "%s cannot be read: %s", p, cause(err))
				return nil
			}
			if info, err := e.Info(); err == nil {
				walk(p, info)
			}
			return nil
		})
	}
	look(c.keys, true, 0o077, 0, "chmod go= %s")
	look(c.data, false, 0o022, 0o005, "chmod go-w,o= %s")
	look(c.store(), false, 0o022, 0o044, "chmod go= %s")
	look(c.ledger(), true, 0o022, 0o044, "chmod -R go= %s")
	if c.authzen.key != "" {
		look(c.authzen.key, false, 0o077, 0, "chmod go= %s")
	}
	if c.path != "" {
		look(c.path, false, 0o022, 0, "chmod go-w %s")
	}
	if clean {
		d.ok("permissions", "keys and data are for ward's user alone")
	}
}

// disk looks at the reserve; four times as much is what should be free.
func (d *doctor) disk() {
	for _, dir := range []string{d.config.data, d.config.ledger(), d.config.keys} {
		free, size, err := d.config.diskSpace(dir)
		reserve := d.config.reserveOf(size)
		const do = "make room, or move the folder: when the disk is full, nothing is decided"
		switch {
		case errors.Is(err, fs.ErrNotExist): // another check says so
		case err != nil:
			d.warn("disk", "", "how much is free at %s cannot be told: %s", dir, cause(err))
		case free < reserve:
			d.fail("disk", do, "%d MiB are free at %s, less than the reserve of %d: a server is not ready", free>>20, dir, reserve>>20)
		case free < 4*reserve:
			d.warn("disk", do, "%d MiB are free at %s", free>>20, dir)
		default:
			d.ok("disk", "%d MiB are free at %s", free>>20, dir)
		}
	}
}

// certificateAhead is how long before its end a certificate is warned about.
const certificateAhead = 30 * 24 * time.Hour

func (d *doctor) certificate() {
	c := d.config
	if c.authzen.cert == "" || c.authzen.key == "" {
		return
	}
	pair, err := tls.LoadX509KeyPair(c.authzen.cert, c.authzen.key)
	if err != nil {
		d.fail("certificates", "name a certificate and its key, as PEM files that ward's user can read", "listen.authzen.tls cannot be used: %s", cause(err))
		return
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		d.fail("certificates", "name another certificate", "%s is no certificate", c.authzen.cert)
		return
	}
	now, do := d.now(), "have it renewed, and restart the server"
	switch end := leaf.NotAfter.UTC().Format(time.RFC3339); {
	case now.After(leaf.NotAfter):
		d.fail("certificates", do, "%s ended at %s", c.authzen.cert, end)
	case now.Before(leaf.NotBefore):
		d.fail("certificates", "see that the clock is right", "%s is not valid yet", c.authzen.cert)
	case now.Add(certificateAhead).After(leaf.NotAfter):
		d.warn("certificates", do, "%s ends at %s", c.authzen.cert, end)
	default:
		d.ok("certificates", "%s ends at %s", c.authzen.cert, end)
	}
}

func (d *doctor) now() time.Time {
	if d.config.clock != nil {
		return d.config.clock()
	}
	return time.Now()
}

// throughServer asks the server, by endpoints that leave no record.
func (d *doctor) throughServer(ctx context.Context, path string) {
	client := admin.NewClient(admin.Socket(path))
	var st admin.Status
	if err := client.Get(ctx, "/v1/status", &st); err != nil {
		d.failed("server", err)
		return
	}
	if !st.Ready {
		d.fail("server", "see its log", "a server answers at %s and is not ready: %s: %s", path, st.Code, st.Reason)
	} else {
		d.ok("server", "a server answers at %s, and is ready", path)
	}
	d.ok("heads", "store and ledger agree: the server holds both, at revision %d and %d records", st.Revision, st.Records)
	d.doors()
	var s admin.Survey
	if err := client.Get(ctx, "/v1/survey", &s); err != nil {
		d.failed("clock", err)
		return
	}
	ahead := time.Time(s.At).Sub(d.now()).Abs()
	if ahead > 5*time.Second {
		d.warn("clock", "see that the time is kept by NTP", "the server's clock and this one differ by %s", ahead.Round(time.Second))
	} else {
		d.clock(hierarchy.At(time.Time(s.Written)))
	}
	d.survey(s)
}

// doors tries the doors that the configuration opens.
func (d *doctor) doors() {
	for network, address := range map[string]string{"tcp": d.config.authzen.address, "unix": d.config.authzen.socket} {
		if address == "" {
			continue
		}
		conn, err := net.DialTimeout(network, address, 2*time.Second)
		if err != nil {
			d.fail("doors", "restart the server: the configuration may be newer than it", "nothing answers at the AuthZEN door %s", address)
			continue
		}
		_ = conn.Close()
		d.ok("doors", "the AuthZEN door answers at %s", address)
	}
}

// onFiles reads the folders, and creates and locks nothing that stays.
func (d *doctor) onFiles(ctx context.Context, keys *audit.Keys) {
	c := d.config
	if err := exists(c.data, "data folder"); err != nil {
		d.failed("data", err)
		return
	}
	reader, err := audit.OpenReader(c.ledger(), keys.Verifier())
	if err != nil {
		d.failed("ledger", c.ledgerError(err))
		return
	}
	d.ok("ledger", "the ledger at %s opens, and its last checkpoint is signed", c.ledger())
	store, err := boltstore.OpenReadOnly(c.store())
	if err != nil {
		d.failed("store", c.storeError(err))
		return
	}
	defer store.Close()
	replayer, err := pdp.NewReplayer(ctx, store, keys)
	if err != nil {
		d.failed("store", err)
		return
	}
	s, err := replayer.Survey(ctx, hierarchy.At(d.now()))
	if err != nil {
		d.failed("store", err)
		return
	}
	d.ok("store", "the store at %s opens, and its %d revisions verify", c.store(), s.Revision)
	written, err := replayer.Agree(reader.From)
	switch {
	case errors.Is(err, pdp.ErrUnfinished):
		d.warn("heads", "nothing: the next start closes it", "a crash cut off the last change on record; it was not made")
	case err != nil:
		d.failed("heads", err)
		return
	default:
		d.ok("heads", "store and ledger agree at revision %d", s.Revision)
	}
	d.clock(max(written, s.Written))
	d.survey(admin.SurveyOf(s))
}

// clock holds this machine's clock against what is written.
func (d *doctor) clock(written hierarchy.Instant) {
	switch now := hierarchy.At(d.now()); {
	case now < written:
		d.fail("clock", "set the clock, and see that the time is kept by NTP", "the clock lies before what is written: %s, and the last record is of %s", now, written)
	default:
		d.ok("clock", "%s, and nothing written is later", now)
	}
}

// survey says what facts and policies show.
func (d *doctor) survey(s admin.Survey) {
	if s.Set == "" {
		d.fail("policies", "ward policy activate pbm", "no policy set is in force")
		return
	}
	d.ok("policies", "%s is in force, with %d overlays of tenants", short(s.Set), s.Overlays)
	missing := ""
	for _, z := range append([]string{"America/New_York"}, s.Zones...) {
		if _, err := hierarchy.Zone(z); err != nil {
			missing = z
		}
	}
	if missing != "" {
		d.fail("timezones", "use a version of ward that has them", "the embedded time zone data %s lack %s", hierarchy.TZData, missing)
	} else {
		d.ok("timezones", "the embedded data %s have every zone that the catalogue names", hierarchy.TZData)
	}
	idle := 0
	for _, k := range d.config.callers {
		if !slices.Contains(s.Authorities, k.Name) {
			idle++
			d.warn("callers", "as it should for a gateway; else name it as an authority in the catalogue", "nothing that the caller %s sends of a record counts: no type names it as its authority", k.Name)
		}
	}
	if n := len(d.config.callers); n > idle {
		d.ok("callers", "%d of %d callers are authorities of a type", n-idle, n)
	}
	for _, u := range s.Unknown {
		d.warn("capabilities", "ward role define, without it; or activate a policy set that asks for it", "the role %s holds %s, which nothing asks for (%d assignments)", u.Role, u.Capability, u.Assigned)
	}
	if len(s.Unknown) == 0 {
		d.ok("capabilities", "every role holds what something asks for")
	}
	if s.Ending > 0 {
		d.warn("grants", "ward grant list --ending 7d", "%d grants end within 7 days", s.Ending)
	} else {
		d.ok("grants", "no grant ends within 7 days")
	}
	if len(s.Imports) > 0 {
		d.warn("imports", "run it again to go on, or drop it: ward hierarchy import --help", "open imports: %s", strings.Join(s.Imports, ", "))
	} else {
		d.ok("imports", "no import is open")
	}
}
