package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestReadme runs the README's transcripts, one after the other in one folder:
// each line that begins with $ as a shell would, with the lines after it as long
// as a quote is open, and compares what it prints. "…" stands for any text, on a
// line of its own for any lines.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, part := range strings.Split(string(text), "```console\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) != 4 {
		t.Fatalf("the README has %d transcripts", len(blocks))
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Dir(binary(t))
	work := filepath.Join(dir, "w")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	var server *exec.Cmd
	stop := func() {
		if server != nil {
			_ = server.Process.Signal(os.Interrupt)
			_ = server.Wait()
		}
		server = nil
	}
	defer stop()
	commands := 0
	for _, part := range strings.Split("\n"+strings.TrimSuffix(strings.Join(blocks, ""), "\n"), "\n$ ")[1:] {
		line, want, _ := strings.Cut(part+"\n", "\n")
		for want != "" && (strings.Count(line, "'")%2 == 1 || strings.Count(line, `"`)%2 == 1) {
			more, rest, _ := strings.Cut(want, "\n")
			line, want = line+"\n"+more, rest
		}
		if line == "kill %1; wait" { // the server is no job of the shell that runs here
			stop()
			continue
		}
		background := strings.HasSuffix(line, "&")
		cmd := exec.Command("bash", "-c", line)
		if background { // without a shell between, so that it can be stopped
			cmd = exec.Command(filepath.Join(bin, "ward"), strings.Fields(strings.TrimSuffix(line, "&"))[1:]...)
		}
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "WARD="+root, "NO_COLOR=1", "WARD_CONFIG=")
		if background {
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			server = cmd
			if err := waitFor(filepath.Join(work, "run/authzen.sock"), nil); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := cmd.Output()
		if _, exited := err.(*exec.ExitError); err != nil && !exited {
			t.Fatal(err)
		}
		commands++
		if !transcript(want).MatchString(string(got)) {
			t.Fatalf("$ %s\nprints\n%s\nthe README says\n%s", line, got, want)
		}
	}
	if commands < 10 {
		t.Errorf("the transcript has %d commands", commands)
	}
}

func transcript(want string) *regexp.Regexp {
	expr := regexp.QuoteMeta(want)
	expr = regexp.MustCompile(`(?m)^…\n`).ReplaceAllString(expr, "(?s:.*)")
	expr = strings.ReplaceAll(expr, "…", ".*")
	return regexp.MustCompile("^" + expr + "$")
}

// TestDemo runs the demonstration and checks what each of its scenes shows.
func TestDemo(t *testing.T) {
	var out, errs strings.Builder
	start := time.Now()
	code := Main([]string{"demo", "--once", "--color", "never"}, strings.NewReader(""), &out, &errs)
	if code != exitOK {
		t.Fatalf("exit %d: %s\n%s", code, errs.String(), out.String())
	}
	t.Logf("the demonstration took %v", time.Since(start).Round(time.Millisecond))
	scenes := regexp.MustCompile(`(?m)^(\d)\. `).Split(out.String(), -1)[1:]
	if len(scenes) != 6 {
		t.Fatalf("%d scenes\n%s", len(scenes), out.String())
	}
	for i, want := range [][]string{
		{"ALLOW  permitted", "grant        g-mother", "valid until  2026-11-25T05:00:00.000Z"},
		{"DENY  forbidden", "guard.sensitive"},
		{"DENY  majority_reached", "$ curl -s /v1/grants -H 'Ward-Subject: user:leo'", "201 Created  g-", "  active  a-", "ALLOW  permitted", "grant        g-"},
		{"ALLOW  permitted", "module disabled  revision 4", "DENY  denied", "revision  4", "ALLOW  permitted", "Tenant:zeta"},
		{"ALLOW  permitted", "ALLOW  permitted", "DENY  assignment_ended", "DENY  forbidden", "guard.employer"},
		{"same  a-2", " 0 different, 0 shredded", "the ledger is not as it was written", "record a-2"},
	} {
		rest := scenes[i]
		for _, w := range want { // in this order
			at := strings.Index(rest, w)
			if at < 0 {
				t.Errorf("scene %d does not show %q:\n%s", i+1, w, scenes[i])
				break
			}
			rest = rest[at+len(w):]
		}
	}
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "ward-demo-*"))
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && info.ModTime().After(start) {
			t.Errorf("the demonstration left %s", dir)
		}
	}
}
