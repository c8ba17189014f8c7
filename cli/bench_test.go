package cli

import (
	"bufio"
	"errors"
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
	"syscall"
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

// BenchmarkImport loads a million rows with the real program into an empty
// store: four facts a row. rows/s counts the whole command, MiB the most that
// it held in memory.
func BenchmarkImport(b *testing.B) {
	const rows = 1_000_000
	program, dir := binary(b), b.TempDir()
	path := filepath.Join(dir, "BIG_BENE_MAPD_ENRLMT.csv")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "BENE_SK,CNTRCT_PBP_SK,IDR_LTST_TRANS_FLG,BENE_CNTRCT_NUM,BENE_PBP_NUM,BENE_CVRG_TYPE_CD,BENE_ENRLMT_PGM_TYPE_CD,BENE_ENRLMT_EMPLR_SBSDY_SW,BENE_ENRLMT_BGN_DT,BENE_ENRLMT_END_DT,IDR_TRANS_EFCTV_TS,IDR_INSRT_TS,IDR_UPDT_TS,IDR_TRANS_OBSLT_TS")
	for i := range rows {
		fmt.Fprintf(w, "-%d,1,Y,Z%04d,-%02d,3,3,~,2024-%02d-01,9999-12-31,2024-01-01,2024-01-01,2024-01-01,9999-12-31T00:00:00\n", 1_000_000+i, i%50, i%20+1, i%12+1)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		h := newHome(b)
		c := exec.Command(program, "--config", filepath.Join(h.dir, "ward.yaml"), "--quiet", "hierarchy", "import", "--map", "cms-bfd", path)
		start := time.Now()
		out, err := c.CombinedOutput()
		took := time.Since(start)
		if err != nil || !strings.Contains(string(out), "  1000000  1000000  0 ") {
			b.Fatalf("%v\n%s", err, out)
		}
		b.ReportMetric(rows/took.Seconds(), "rows/s")
		b.ReportMetric(float64(rows)/(c.ProcessState.UserTime()+c.ProcessState.SystemTime()).Seconds(), "rows/cpu-s")
		if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			b.ReportMetric(float64(u.Maxrss)/1024, "MiB") // kilobytes on Linux
		}
	}
}
