package cli

// The rules of messages, for every command:
//
//   - Data goes to stdout, and nothing else does. Progress, errors and hints go
//     to stderr.
//   - An error is one line, "ward: " and then lower case without a full stop.
//     It names the input at fault, never its content where that may be a person
//     or a secret.
//   - A hint follows on a line of its own, "hint: " and what to do.
//   - The exit code says what happened; see the codes below.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"reflect"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ward-authz/ward/adapters/admin"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// Exit codes. They extend those of the cedar command line.
const (
	exitOK            = 0 // or allow
	exitFailure       = 1 // or a usage error
	exitDeny          = 2
	exitInvalid       = 3 // policy, schema or input
	exitIndeterminate = 4 // or shredded
	exitTestsFailed   = 5
	exitDifference    = 6
	exitIntegrity     = 7
)

// failure is an error with an exit code and a hint. With an empty text it only
// carries the code: everything has been said on stdout.
type failure struct {
	code int
	text string
	hint string
}

func (f *failure) Error() string { return f.text }

func failf(code int, hint, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...), hint}
}

// invalid is a failure about what was given.
func invalid(hint, format string, args ...any) error {
	return failf(exitInvalid, hint, format, args...)
}

// exit ends a command with a code and no message.
func exit(code int) error {
	if code == exitOK {
		return nil
	}
	return &failure{code: code}
}

// explainError returns the exit code, the text and the hint of an error.
func explainError(err error) (code int, text, hint string) {
	var f *failure
	if errors.As(err, &f) {
		return f.code, f.text, f.hint
	}
	var e *admin.Error
	if errors.As(err, &e) {
		return explainAnswer(e)
	}
	var damaged *pdp.IntegrityError
	var corrupt *audit.CorruptError
	switch {
	case errors.As(err, &damaged), errors.As(err, &corrupt), errors.Is(err, audit.ErrCorrupt), errors.Is(err, pdp.ErrDisagree), errors.Is(err, hierarchy.ErrCorrupt):
		return exitIntegrity, trim(err), keepHint + ": ward audit verify"
	}
	var gone *pdp.GoneError
	if errors.As(err, &gone) {
		return goneCode(gone.Status), trim(err), ""
	}
	var tests *pdp.TestsFailed
	if errors.As(err, &tests) {
		return exitTestsFailed, trim(err), "ward policy test DIR shows them all"
	}
	var set *invalidSet
	if errors.As(err, &set) {
		return exitInvalid, set.Error(), "ward policy check prints them alone"
	}
	var dial *net.OpError
	if errors.As(err, &dial) {
		return exitFailure, "the server at the admin socket does not answer: " + dial.Err.Error(), "is it still running? ward status"
	}
	var u *url.Error
	if errors.As(err, &u) {
		return exitFailure, "the server broke the connection off: " + trim(u.Err), "whether a change was made shows in: ward audit find --kind change"
	}
	return exitFailure, trim(err), ""
}

// trim makes one line, lower case, without the names of packages.
func trim(err error) string {
	s := strings.TrimSpace(strings.ReplaceAll(err.Error(), "\n", "; "))
	for _, p := range []string{"audit: ", "pdp: ", "store: ", "admin: ", "witness: "} {
		s = strings.TrimPrefix(s, p)
	}
	return s
}

func explainAnswer(e *admin.Error) (code int, text, hint string) {
	code = exitFailure
	switch {
	case e.Code == "integrity", e.Code == "key_missing":
		code = exitIntegrity
	case e.Code == "shredded", e.Code == "key_lost":
		code = exitIndeterminate
	case e.Status == 403:
		code = exitDeny
	case e.Status == 400, e.Status == 404, e.Status == 413, e.Status == 422:
		code = exitInvalid
	case e.Status == 409:
		code = exitTestsFailed
	}
	text = e.Code + ": " + e.Message
	switch {
	case e.Row > 0:
		text = fmt.Sprintf("%s: line %d: %s", e.Code, e.Row, e.Message)
	case e.Event > 1:
		text = fmt.Sprintf("%s: event %d: %s", e.Code, e.Event, e.Message)
	}
	for _, f := range e.Failures {
		text += "\n  " + f.String()
	}
	for _, f := range e.Findings {
		text += "\n  " + f.String()
	}
	hint = e.Hint
	if e.Code == string(authz.LedgerFailed) {
		hint = "see that the ledger's disk has room and that the keys folder is whole, then restart the server"
	}
	return code, text, hint
}

// say prints a line of progress or advice on stderr.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// show prints a result: v as JSON, NDJSON or YAML, or what table writes.
func (a *app) show(v any, table func(w io.Writer)) error {
	switch a.output {
	case "json":
		return writeJSON(a.stdout, v, "  ")
	case "ndjson":
		rv := reflect.ValueOf(v)
		if rv.Kind() != reflect.Slice {
			return writeJSON(a.stdout, v, "")
		}
		for i := range rv.Len() {
			if err := writeJSON(a.stdout, rv.Index(i).Interface(), ""); err != nil {
				return err
			}
		}
		return nil
	case "yaml":
		return writeYAML(a.stdout, v)
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	table(w)
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		text := strings.TrimRight(line, " \n")
		if _, err := fmt.Fprintln(a.stdout, a.paint(text)); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// writeYAML writes the JSON form of v as YAML, in the same order.
func writeYAML(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(raw, &n); err != nil {
		return err
	}
	unflow(&n)
	out, err := yaml.Dump(&n, yaml.WithIndent(2))
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

// unflow gives JSON's nodes YAML's own style.
func unflow(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle | yaml.DoubleQuotedStyle
	for _, c := range n.Content {
		unflow(c)
	}
}

// paint colours the verdict that a line starts with.
func (a *app) paint(line string) string {
	if !a.colors() {
		return line
	}
	for word, color := range map[string]string{"ALLOW": "32", "DENY": "31", "same": "32", "different": "31", "shredded": "33"} {
		if rest, ok := strings.CutPrefix(line, word); ok {
			return "\x1b[" + color + "m" + word + "\x1b[0m" + rest
		}
	}
	return line
}

func (a *app) colors() bool {
	switch a.color {
	case "always":
		return true
	case "never":
		return false
	}
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && isTerminal(a.stdout)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// progress reports long work on stderr: a bar on a terminal, else a line each
// ten seconds.
type progress struct {
	a     *app
	what  string
	total uint64 // 0: not known
	mu    sync.Mutex
	last  time.Time
	shown bool
	start time.Time
}

func (a *app) progress(what string, total uint64) *progress {
	now := time.Now()
	return &progress{a: a, what: what, total: total, last: now, start: now}
}

// at reports how far the work has come.
func (p *progress) at(n uint64) {
	if p.a.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	tty := isTerminal(p.a.stderr)
	every := 10 * time.Second
	if tty {
		every = 200 * time.Millisecond
	}
	now := time.Now()
	if now.Sub(p.last) < every {
		return
	}
	p.last, p.shown = now, true
	text := fmt.Sprintf("%s: %d", p.what, n)
	if p.total > 0 {
		text = fmt.Sprintf("%s: %d of %d", p.what, n, p.total)
		if rate := float64(n) / now.Sub(p.start).Seconds(); rate > 0 && n < p.total {
			text += fmt.Sprintf(", %s left", time.Duration(float64(p.total-n)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	if !tty {
		fmt.Fprintln(p.a.stderr, text)
		return
	}
	bar := ""
	if p.total > 0 {
		done := int(min(n, p.total) * 30 / p.total)
		bar = " [" + strings.Repeat("#", done) + strings.Repeat(".", 30-done) + "]"
	}
	fmt.Fprintf(p.a.stderr, "\r\x1b[K%s%s", text, bar)
}

// done clears the bar.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown && isTerminal(p.a.stderr) {
		fmt.Fprint(p.a.stderr, "\r\x1b[K")
	}
}

// validity says a half-open time in words.
func validity(v admin.Interval) string {
	switch {
	case v.From.IsZero() && v.To.IsZero():
		return "always"
	case v.From.IsZero():
		return "until " + v.To.String()
	case v.To.IsZero():
		return "from " + v.From.String()
	}
	return v.From.String() + " to " + v.To.String()
}

func upper(decision string) string { return strings.ToUpper(decision) }

func obligations(list []authz.Obligation) string {
	var out []string
	for _, o := range list {
		out = append(out, o.ID)
	}
	return strings.Join(out, ", ")
}
