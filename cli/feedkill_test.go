package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
)

// facts is everything that is visible at the head, but where it was written.
func (h *home) facts() map[string]int {
	h.t.Helper()
	p, done := h.open()
	defer done()
	n := map[string]int{}
	for _, k := range []hierarchy.Kind{hierarchy.KindNode, hierarchy.KindEdge, hierarchy.KindLink, hierarchy.KindAssignment} {
		for f := range p.View(0, 0).Facts(k) {
			f.Event.Row = 0
			b, err := json.Marshal(f.Event)
			if err != nil {
				h.t.Fatal(err)
			}
			n[string(b)]++
		}
	}
	return n
}

// The real program is killed at random moments of a full feed that adds, ends
// and replaces. Whenever that is, all of it is visible or nothing, and the same
// command goes on to the same end.
func TestAnImportIsKilled(t *testing.T) {
	moments, members := 5, 3000
	if os.Getenv("WARD_CAMPAIGN") != "" {
		moments = 100
	}
	program, dir := binary(t), t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mapFile := put("members.yaml", strings.Replace(yearMap, `    trailer: {starts: TRL, count: 2}`+"\n", "", 1))
	file := func(name string, keep func(i int) bool, group string) string {
		var b strings.Builder
		b.WriteString("CLIENT,ID,GROUP,BGN,END,CHANGE\n")
		for i := range members {
			if keep(i) {
				fmt.Fprintf(&b, "acme,%d,%s%d,2026-01-01,,\n", i+1, group, i%7)
			}
		}
		return put(name, b.String())
	}
	one := file("members-1.csv", func(i int) bool { return i%5 > 0 }, "A")
	two := file("members-2.csv", func(i int) bool { return i%5 < 4 }, "B")
	template := newHome(t)
	template.imports("--map", mapFile, "--full", "--as-of", "2026-11-01", one)
	before := template.facts()
	command := []string{"hierarchy", "import", "--map", mapFile, "--full", "--as-of", "2026-11-20", "--allow-mass-end", two}
	fresh := func() *home {
		h := &home{t, t.TempDir()}
		if err := os.CopyFS(h.dir, os.DirFS(template.dir)); err != nil {
			t.Fatal(err)
		}
		for _, sub := range []string{"keys", "data", "data/ledger"} {
			if err := os.Chmod(filepath.Join(h.dir, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		keys, err := filepath.Glob(filepath.Join(h.dir, "keys", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if s, err := os.Stat(k); err == nil && !s.IsDir() {
				_ = os.Chmod(k, 0o600)
			}
		}
		return h
	}
	start := func(h *home) *exec.Cmd {
		c := exec.Command(program, append([]string{"--config", filepath.Join(h.dir, "ward.yaml")}, command...)...)
		c.Stderr = new(strings.Builder)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	whole := fresh()
	// How far a run is shows in its ledger.
	written := func(h *home) (n int64) {
		files, _ := filepath.Glob(filepath.Join(h.dir, "data", "ledger", "*"))
		for _, f := range files {
			if s, err := os.Stat(f); err == nil {
				n += s.Size()
			}
		}
		return n
	}
	began := written(whole)
	c := start(whole)
	if err := c.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, c.Stderr)
	}
	grows := written(whole) - began
	after := whole.facts()
	if maps.Equal(before, after) {
		t.Fatal("the feed changes nothing")
	}
	r := rand.New(rand.NewPCG(9, 9))
	counts := map[string]int{}
	for i := range moments {
		h := fresh()
		c := start(h)
		ended := make(chan struct{})
		go func() { _ = c.Wait(); close(ended) }()
		target := began + r.Int64N(grows)
		for running := true; running && written(h) < target; {
			select {
			case <-ended:
				running = false
			case <-time.After(time.Millisecond):
			}
		}
		time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
		_ = c.Process.Kill()
		<-ended
		p, done := h.open()
		open := len(p.Graph().Imports())
		done()
		switch now := h.facts(); {
		case open > 0 && maps.Equal(now, before):
			counts["open"]++
		case open == 0 && maps.Equal(now, before):
			counts["not begun"]++
		case open == 0 && maps.Equal(now, after):
			counts["done"]++
		default:
			t.Fatalf("moment %d: something is half visible, %d imports open", i, open)
		}
		if code, _, text := h.ward(command...); code != 0 {
			t.Fatalf("moment %d: the same command: exit code %d\n%s", i, code, text)
		}
		if !maps.Equal(h.facts(), after) {
			t.Fatalf("moment %d: resumed, the facts differ from those of one run", i)
		}
	}
	t.Logf("killed at %d moments: %v", moments, counts)
}
