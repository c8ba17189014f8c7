package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ward-authz/ward/adapters/admin"
)

// serveNothing is a server that reads a body and answers without deciding.
func serveNothing(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"decision":true}`)
	})))
}

// BenchmarkHTTP measures what an answer over HTTP costs the server at 64
// callers: the real binary, every record on disk before its answer, beside a
// handler that does nothing. The figures to compare are cpu-µs/answer, the
// processor time of the server's process.
func BenchmarkHTTP(b *testing.B) {
	b.Run("ward", func(b *testing.B) {
		i := newLab(b, "")
		config, err := os.ReadFile(i.config)
		if err != nil {
			b.Fatal(err)
		}
		config = append(config, "listen: {authzen: {socket: authzen.sock}}\ncallers: [{name: certifier, listener: socket, asserts: [user]}]\n"...)
		if err := os.WriteFile(i.config, config, 0o600); err != nil {
			b.Fatal(err)
		}
		r := i.serve()
		load(b, i.socket(), r.cmd.Process.Pid, "true")
	})
	b.Run("empty", func(b *testing.B) {
		dir, err := os.MkdirTemp("", "ward-")
		if err != nil {
			b.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "s")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WARD_TEST_EMPTY_HANDLER="+path)
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		if err := waitFor(path, nil); err != nil {
			b.Fatal(err)
		}
		load(b, path, cmd.Process.Pid, "true")
	})
}

// load asks b.N questions from 64 callers and reports the server's processor time.
func load(b *testing.B, socket string, pid int, want string) {
	const callers = 64
	client := &http.Client{Transport: admin.Socket(socket), Timeout: 30 * time.Second}
	if t, ok := client.Transport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost = callers
	}
	one := func() error {
		status, _, answer, err := ask(client, "http://localhost", aliceReads)
		if err != nil || status != 200 || !strings.Contains(string(answer), want) {
			return fmt.Errorf("status %d: %v %s", status, err, answer)
		}
		return nil
	}
	if err := one(); err != nil {
		b.Fatal(err)
	}
	before := cpu(b, pid)
	start := time.Now()
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := c; n < b.N; n += callers {
				if err := one(); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b, pid)-before).Microseconds())/float64(b.N), "cpu-µs/answer")
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "answers/s")
}

// cpu returns the processor time that a process has used, in steps of 10 ms.
func cpu(b *testing.B, pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		b.Skip("no /proc")
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
