package cli

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
)

// demoFacts is the world of the demonstration.
//
//go:embed demo/facts.yaml
var demoFacts []byte

// The night before Leo turns 18, in New York.
const (
	demoStart    = "2026-11-24T23:50:00-05:00" // time enough for a slow machine to begin
	demoNight    = "2026-11-24T23:59:50-05:00"
	demoMidnight = "2026-11-25T00:00:00-05:00"
)

// newDemoCommand is `ward demo`.
func newDemoCommand(a *app) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show Ward at work: a hospital, a pharmacy benefit manager, and a boy who comes of age",
		Long: `Makes a data folder of its own in the system's folder for temporary files, fills
it with a made-up hospital and two made-up clients, starts the server on a clock
that stands shortly before midnight, and shows six short scenes. Every line that
begins with $ is a command that really runs, against that server.

Afterwards the server stays up, with lines to try from another terminal, until
Ctrl-C. The folder is removed in the end.`,
		Example: "  ward demo\n  ward demo --once",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.demo(cmd.Context(), once)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "end after the scenes instead of leaving the server up")
	return c
}

// demoClock is a clock that goes on by itself and can be set forward.
type demoClock struct {
	mu   sync.Mutex
	base time.Time // what it showed when it was set
	set  time.Time // when that was
}

func (c *demoClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base.Add(time.Since(c.set))
}

// forward sets the clock to an instant, never back.
func (c *demoClock) forward(at string) {
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		panic(err) // a constant above
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set.IsZero() || t.After(now) {
		c.base, c.set = t, time.Now()
	}
}

// demo is one run of the demonstration.
type demo struct {
	app    *app
	dir    string
	server string // its address
	clock  demoClock
	color  bool
	failed error
}

func (a *app) demo(ctx context.Context, once bool) (err error) {
	dir, err := os.MkdirTemp("", "ward-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{app: a, dir: dir, color: a.colors()}
	d.clock.forward(demoStart)

	address, err := freeAddress("127.0.0.1:8180")
	if err != nil {
		return err
	}
	d.server = address
	if err := d.prepare(address); err != nil {
		return err
	}
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	served := make(chan error, 1)
	logs, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return err
	}
	defer logs.Close()
	server := d.sub(io.Discard, logs)
	cfg, err := server.config(false)
	if err != nil {
		return err
	}
	cfg.drain = time.Millisecond // nobody but this demonstration needs to move away
	go func() { served <- server.serve(ctx, cfg, stop) }()
	if err := waitFor(cfg.admin.socket, served); err != nil {
		return err
	}

	d.clock.forward(demoNight)
	d.scenes()
	if d.failed == nil && !once {
		d.tryIt(address)
		return <-served
	}
	stop <- os.Interrupt
	return errors.Join(d.failed, <-served)
}

// prepare writes the configuration, initialises the folder and loads the facts.
func (d *demo) prepare(address string) error {
	config := "data: data\nkeys: keys\noperator: river\nenvironment: demo\ndurability: local-disk-only\n" +
		"listen: {authzen: {address: " + strconv.Quote(address) + "}}\n" +
		"callers:\n" +
		"  - {name: labs-service, listener: tcp, asserts: [user], assurance: 2, explains: true, performs: [record-delegation]}\n"
	if err := os.WriteFile(d.path("ward.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(d.path("facts.yaml"), demoFacts, 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"init", "--admin", "you=" + strconv.Itoa(os.Getuid())},
		{"hierarchy", "apply", d.path("facts.yaml"), "--why", "the world of the demonstration"},
	} {
		var said strings.Builder
		if code := d.sub(&said, &said).main(append(args, "--config", d.path("ward.yaml"))); code != exitOK {
			return failf(exitFailure, "", "the demonstration cannot begin: ward %s: %s", args[0], strings.TrimSpace(said.String()))
		}
	}
	return nil
}

// sub is the command line with the demonstration's clock and folder.
func (d *demo) sub(stdout, stderr io.Writer) *app {
	return &app{stdin: strings.NewReader(""), stdout: stdout, stderr: stderr, getenv: d.app.getenv,
		configPath: d.path("ward.yaml"), output: "table", color: d.app.color, clock: d.clock.now}
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) scenes() {
	const patient = "--with patient=Patient:general/leo --with minorConsent=false --with sensitivity="
	lab := "can user:mia lab.view lab:cbc " + patient + "routine"

	d.scene("1", "Shortly before midnight, Leo's mother opens his lab result",
		"She may: she acts for him, until the first instant of his 18th birthday.")
	first := d.run(lab, exitOK)
	record := recordIn(first)

	d.scene("2", "She tries his behavioural note", "Her grant covers routine results only. A guard stands above it.")
	d.run("can user:mia lab.view lab:note "+patient+"behavioral", exitDeny)

	d.clock.forward(demoMidnight)
	d.scene("3", "The clock strikes twelve", "The same request. No policy, fact or job has changed; Leo has come of age.")
	d.run(lab, exitDeny)
	d.say("Leo lets her act for him as an adult, in the patient portal. The pack decides whether he may.")
	d.ask("user:leo", "/v1/grants", `{"type":"adult-proxy","subject":"Person:leo","grantee":"User:mia","scope":{"capabilities":["lab.view"]}}`)
	d.run(lab, exitOK)

	d.scene("4", "The claims module of one client is switched off",
		"Its screen and its API refuse at the same revision; the other client notices nothing.")
	d.run("can user:amy route.call route:claims.list --area Tenant:acme", exitOK)
	d.run("module disable acme claims --why contract-ended", exitOK)
	d.run("can user:amy feature.see feature:claims.search --area Tenant:acme", exitDeny)
	d.run("can user:amy route.call route:claims.list --area Tenant:acme", exitDeny)
	d.run("can user:bea route.call route:claims.list --area Tenant:zeta", exitOK)

	d.scene("5", "A broker with three letters of record, one of them lapsed", "She reads the reports of her groups, and no member's claim.")
	for _, g := range []struct {
		group string
		code  int
	}{{"north", exitOK}, {"south", exitOK}, {"west", exitDeny}} {
		d.run("can user:bea report.view report:r-"+g.group+" --with group=Group:zeta/"+g.group+
			" --with operator=null --with tenant=null --with carrier=null --with account=null --with smallestCell=25", g.code)
	}
	d.run("can user:bea claim.view claim:c-1 --with coverage=Coverage:zeta/n1 --with pharmacy=null --with prescriber=null"+
		" --with fillDate=2026-11-02 --with sensitivity=routine --with minorConsent=false", exitDeny)

	d.scene("6", "An auditor asks for the first answer again",
		"It is derived from the store and the ledger alone, bit for bit; and so is all that was answered since.")
	d.run("replay "+record, exitOK)
	d.run("replay all", exitOK)
	d.say("Then one byte is changed, in a copy of the ledger.")
	keys, err := audit.OpenKeys(d.path("keys"))
	if err == nil {
		err = d.flip(record, keys.Verifier())
	}
	if err != nil {
		d.failed = errors.Join(d.failed, err)
		return
	}
	d.run("audit verify --ledger "+d.path("copy")+" --verifier "+keys.Verifier(), exitIntegrity)
}

// flip copies the ledger's folder and changes one byte of a record in the copy.
func (d *demo) flip(record, verifier string) error {
	if err := os.CopyFS(d.path("copy"), os.DirFS(d.path("data/ledger"))); err != nil {
		return err
	}
	reader, err := audit.OpenReader(d.path("copy"), verifier)
	if err != nil {
		return err
	}
	seq, err := audit.ParseID(record)
	if err != nil {
		return err
	}
	entry, err := reader.Entry(seq)
	if err != nil {
		return err
	}
	segment := d.path("copy/00000000000000000000") // the first, and in a demonstration the only one
	b, err := os.ReadFile(segment)
	if err != nil {
		return err
	}
	at := bytes.Index(b, entry.Body)
	if at < 0 {
		return errors.New("the copy does not hold the record")
	}
	b[at+len(entry.Body)/2] ^= 1
	return os.WriteFile(segment, b, 0o600)
}

// recordIn finds the id of the record in what `ward can` printed.
func recordIn(out string) string {
	for _, w := range strings.Fields(out) {
		if strings.HasPrefix(w, "a-") {
			return w
		}
	}
	return "a-0"
}

func (d *demo) scene(n, title, text string) {
	w := d.app.stdout
	bold, plain := "", ""
	if d.color {
		bold, plain = "\x1b[1m", "\x1b[0m"
	}
	fmt.Fprintf(w, "\n%s%s. %s%s\n", bold, n, title, plain)
	zone, err := hierarchy.Zone("America/New_York")
	if err == nil {
		fmt.Fprintf(w, "   %s in New York. %s\n", d.clock.now().In(zone).Format("15:04:05"), text)
	}
}

func (d *demo) say(text string) { fmt.Fprintf(d.app.stdout, "   %s\n", text) }

// run shows a command, runs it, and notes when it ends otherwise than expected.
func (d *demo) run(line string, want int) string {
	if d.failed != nil {
		return ""
	}
	shown := strings.ReplaceAll(line, d.dir+string(filepath.Separator), "")
	fmt.Fprintf(d.app.stdout, "$ ward %s\n", shown)
	var out, errs strings.Builder
	sub := d.sub(&out, &errs)
	code := sub.main(append(strings.Fields(line), "--quiet", "--config", d.path("ward.yaml"), "--color", d.app.color))
	text := strings.ReplaceAll(out.String()+errs.String(), d.dir+string(filepath.Separator), "")
	for l := range strings.Lines(text) {
		fmt.Fprintf(d.app.stdout, "  %s", l)
	}
	if code != want {
		d.failed = failf(exitFailure, "", "the demonstration went wrong: ward %s ended with %d, not %d", shown, code, want)
	}
	return out.String()
}

// ask shows a request of somebody at the people's door, makes it, and shows the
// first of what came back.
func (d *demo) ask(who, path, body string) {
	if d.failed != nil {
		return
	}
	url := "http://" + d.server + path
	fmt.Fprintf(d.app.stdout, "$ curl -s %s -H 'Ward-Subject: %s' -H 'Content-Type: application/json' \\\n    -d '%s'\n", path, who, body)
	req, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		d.failed = err
		return
	}
	req.Header.Set("Ward-Subject", who)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.failed = err
		return
	}
	defer resp.Body.Close()
	var got struct{ ID, State, Record string }
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusCreated {
		d.failed = failf(exitFailure, "", "the demonstration went wrong: POST %s answered %s", path, resp.Status)
		return
	}
	fmt.Fprintf(d.app.stdout, "  %s  %s  %s  %s\n", resp.Status, got.ID, got.State, got.Record)
}

// tryIt leaves the server up and says what to type.
func (d *demo) tryIt(address string) {
	const body = `{"subject":{"type":"user","id":"mia"},"action":{"name":"lab.view"},"resource":{"type":"lab","id":"cbc","properties":{"patient":"Patient:general/leo","sensitivity":"routine","minorConsent":false}}}`
	fmt.Fprintf(d.app.stdout, `
The server stays up until Ctrl-C. Try in another terminal:

  curl -sH 'Content-Type: application/json' http://%s/access/v1/evaluation -d '%s'
  %s explain a-4 --config %s
  %s grant revoke g-proxy --why "no longer" --config %s

`, address, body, program(), d.path("ward.yaml"), program(), d.path("ward.yaml"))
}

// program is how this program was called.
func program() string {
	if len(os.Args) > 0 && os.Args[0] != "" {
		return os.Args[0]
	}
	return "ward"
}

// freeAddress returns the address, or one with another port when it is taken.
func freeAddress(want string) (string, error) {
	l, err := net.Listen("tcp", want)
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", err
		}
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// waitFor waits until a socket answers, or the server has ended.
func waitFor(socket string, ended <-chan error) error {
	for range 500 {
		if conn, err := net.Dial("unix", socket); err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			return errors.Join(errors.New("the server did not start"), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errors.New("the server did not start within 5 s")
}
