package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("WARD_TEST_EMPTY_HANDLER"); path != "" {
		serveNothing(path)
	}
	testscript.Main(tidy{m}, map[string]func(){
		"ward": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// tidy removes the program that the tests built.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	code := m.M.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	return code
}

// TestScripts runs testdata/*.txt. Beside testscript's own commands there are
//
//	exits CODE COMMAND ARG…  runs a command and compares the exit code
//	emergency open WHO NODE VAR | end WHO ID | review WHO ID OUTCOME | read WHO NODE
//	                         does as people do through their portal, without a server;
//	                         open sets the variable to the id
//	waitsock PATH            waits until something listens at a Unix socket
//	flip FILE OFFSET         inverts one byte; a negative offset counts from the end
//	flip FILE TEXT           inverts the first byte of the text wherever it is
func TestScripts(t *testing.T) {
	packs, err := filepath.Abs("../testdata/packs")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("UID", strconv.Itoa(os.Getuid()))
			e.Setenv("PACKS", packs)
			e.Setenv("PBM", filepath.Join(packs, "../../policies/pbm/pack"))
			e.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE COMMAND ARG…")
				}
				code := 0
				err := ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				switch {
				case errors.As(err, &exit):
					code = exit.ExitCode()
				case err != nil:
					ts.Fatalf("%v", err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			"emergency": func(ts *testscript.TestScript, _ bool, args []string) {
				id, err := asPerson(ts.MkAbs("ward.yaml"), args)
				ts.Check(err)
				if args[0] == "open" {
					ts.Setenv(args[3], id)
				}
			},
			"waitsock": func(ts *testscript.TestScript, _ bool, args []string) {
				if err := waitSocket(ts.MkAbs(args[0])); err != nil {
					ts.Fatalf("%v", err)
				}
			},
			"flip": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(args[0])
				b, err := os.ReadFile(path)
				ts.Check(err)
				at, err := strconv.Atoi(args[1])
				switch {
				case err != nil:
					n := bytes.Count(b, []byte(args[1]))
					if n == 0 {
						ts.Fatalf("%s does not hold %s", args[0], args[1])
					}
					for range n {
						b[bytes.Index(b, []byte(args[1]))] ^= 0xff
					}
				case at < 0:
					b[len(b)+at] ^= 0xff
				default:
					b[at] ^= 0xff
				}
				ts.Check(os.WriteFile(path, b, 0o600))
			},
		},
	})
}

// asPerson opens the kernel of an installation, and does what a user of a
// portal does.
func asPerson(path string, args []string) (id string, err error) {
	ctx := context.Background()
	a := &app{configPath: path}
	c, err := a.config(false)
	if err != nil {
		return "", err
	}
	k, err := c.openKernel(ctx, false)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	who := pdp.Asking{Subject: authz.Verified(authz.Subject{Type: "user", ID: args[1], Assurance: 2}),
		Caller: authz.Caller{Name: "labs-service", Performs: []string{"notify-privacy", "report-outcome", "step-up", "record-delegation"}}}
	switch args[0] {
	case "open":
		node, err := hierarchy.ParseID(args[2])
		if err != nil {
			return "", err
		}
		f, _, _, err := k.pdp.OpenEmergency(ctx, who, hierarchy.Emergency{Node: node, Reason: "unconscious", Text: "found on the street", Ticket: "ER-7"})
		return f.ID, err
	case "end":
		_, _, err = k.pdp.EndEmergency(ctx, who, args[2])
	case "review":
		_, _, err = k.pdp.ReviewEmergency(ctx, who, args[2], args[3], "seen with the ward's lead")
	case "read":
		d, err := k.pdp.Decide(ctx, authz.Request{Caller: who.Caller, Subject: who.Subject, Action: authz.Action{Name: "lab.view"},
			Resource: authz.Resource{Type: "lab", ID: "cbc", Properties: map[string]any{"patient": args[2], "sensitivity": "routine", "minorConsent": false}}})
		if err == nil && !d.Allowed() {
			err = fmt.Errorf("denied: %s", d.Code)
		}
		return "", err
	}
	return args[2], err
}

func waitSocket(path string) error {
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// TestEveryCommandHasAnExample walks the tree: every command says what it does
// and shows how, in our style.
func TestEveryCommandHasAnExample(t *testing.T) {
	var walk func(c *cobra.Command)
	n := 0
	walk = func(c *cobra.Command) {
		n++
		path := c.CommandPath()
		if c.Example == "" {
			t.Errorf("%s: no example", path)
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example line %q is not indented by two", path, line)
			}
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			if !c.Hidden {
				t.Errorf("%s: Short is missing or ends with a full stop", path)
			}
		}
		if !c.Hidden && !strings.Contains(c.Example, path) && c.HasParent() {
			t.Errorf("%s: the example does not show %q", path, path)
		}
		if c.Runnable() && c.RunE == nil {
			t.Errorf("%s: uses Run, whose errors get lost", path)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&app{getenv: func(string) string { return "" }}))
	t.Logf("%d commands", n)
}
