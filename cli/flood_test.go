package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
)

// entries reads the ledger's folder.
func (i *install) entries() (all []audit.Entry) {
	i.t.Helper()
	keys, err := audit.OpenKeys(filepath.Join(i.dir, "keys"))
	if err != nil {
		i.t.Fatal(err)
	}
	reader, err := audit.OpenReader(filepath.Join(i.dir, "data", "ledger"), keys.Verifier())
	if err != nil {
		i.t.Fatal(err)
	}
	for e, err := range reader.From(0) {
		if err != nil {
			i.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// healthy verifies and replays every record of an install that is stopped.
func (i *install) healthy() {
	i.t.Helper()
	i.run(0, "", "audit", "verify")
	if out, _ := i.run(0, "", "replay", "all"); !strings.Contains(out, " 0 different, 0 shredded") {
		i.t.Error(out)
	}
}

// size is what the ledger's folder takes on the disk.
func (i *install) size() (n int64) {
	_ = filepath.WalkDir(filepath.Join(i.dir, "data", "ledger"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// send posts a body and returns the status, the header and the answer.
func send(c *http.Client, url, body string) (int, http.Header, []byte, error) {
	resp, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}

// TestFlood lets anybody who can connect send garbage to the real server, for
// seconds and in the campaign for a minute, while a registered caller asks: the
// caller is served, every refusal is counted, and the ledger grows by less than
// 1 MB a minute.
func TestFlood(t *testing.T) {
	lasts := 3 * time.Second
	if os.Getenv("WARD_CAMPAIGN") != "" {
		lasts = time.Minute
	}
	i := newLab(t, fmt.Sprintf("drain: 10ms\nlisten: {authzen: {address: \"127.0.0.1:0\", socket: authzen.sock}}\ncallers: [{name: certifier, uid: %d, asserts: [user]}]\n", os.Getuid()))
	r := i.serve()
	address := r.serving["address"].(string)
	before, first := i.size(), len(i.entries())
	end := time.Now().Add(lasts)
	var refused [4]atomic.Int64 // by what was sent
	var garbage, served atomic.Int64
	var wg sync.WaitGroup
	large := strings.Repeat("x", 2<<20)
	for g := range 6 {
		client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
		wg.Go(func() {
			for n := g; time.Now().Before(end); n++ {
				kind, want := n%4, 401
				req, _ := http.NewRequest("POST", address+"/access/v1/evaluation", strings.NewReader(aliceReads))
				req.Header.Set("Content-Type", "application/json")
				switch kind {
				case 1:
					req.URL.Path, want = fmt.Sprintf("/nothing/%d", n), 404
				case 2:
					req.Host, want = fmt.Sprintf("evil%d.example", n), 421
				case 3:
					req, _ = http.NewRequest("POST", address+"/v1/grants", strings.NewReader(large[:n%len(large)]))
				}
				resp, err := client.Do(req)
				if err != nil {
					if kind == 3 { // answered before all was sent
						continue
					}
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("kind %d: status %d", kind, resp.StatusCode)
					return
				}
				refused[kind].Add(1)
			}
		})
	}
	wg.Go(func() { // no HTTP at all
		for time.Now().Before(end) {
			conn, err := net.DialTimeout("tcp", strings.TrimPrefix(address, "http://"), time.Second)
			if err != nil {
				continue
			}
			_, _ = conn.Write([]byte("\x16\x03\x01\x00garbage\r\n\r\n"))
			_ = conn.Close()
			garbage.Add(1)
		}
	})
	wg.Go(func() {
		c := i.overSocket()
		for time.Now().Before(end) {
			status, _, body, err := ask(c, "http://localhost", aliceReads)
			if err != nil || status != 200 || !strings.Contains(string(body), `"decision":true`) {
				t.Errorf("the registered caller gets %d %s %v", status, body, err)
				return
			}
			served.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
	})
	wg.Wait()
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatalf("%v\n%s", err, r.log)
	}
	counted := map[string]uint64{}
	var decisions, summaries int
	var answers int64
	seconds := map[int64]int{}
	for _, e := range i.entries()[first:] {
		switch e.Kind {
		case audit.Decision:
			decisions++
			answers += int64(len(e.Body)) + 16
		case audit.Refusals:
			summaries++
			seconds[e.Time/1000]++
			l, err := pdp.LineOf(e)
			if err != nil {
				t.Fatal(err)
			}
			for door, codes := range l.Refusals {
				for code, n := range codes {
					counted[door+" "+string(code)] += n
				}
			}
		default:
			t.Errorf("a record of kind %s", e.Kind)
		}
	}
	grown := i.size() - before - answers
	perMinute := grown * int64(time.Minute) / int64(lasts)
	t.Logf("%d refused, %d connections of garbage, %d answers; %d summaries; the flood added %d bytes, %d a minute",
		refused[0].Load()+refused[1].Load()+refused[2].Load()+refused[3].Load(), garbage.Load(), served.Load(), summaries, grown, perMinute)
	if perMinute > 1_000_000 {
		t.Errorf("the flood adds %d bytes a minute", perMinute)
	}
	if int64(decisions) != served.Load() || served.Load() == 0 {
		t.Errorf("%d decisions recorded, %d answered", decisions, served.Load())
	}
	for n, name := range []string{"authzen caller_unknown", "authzen not_found", "", "delegation caller_unknown"} {
		if want := refused[n].Load(); name != "" && (counted[name] < uint64(want) || n < 3 && counted[name] != uint64(want)) {
			t.Errorf("%s: %d counted, %d refused", name, counted[name], want)
		}
	}
	if counted["authzen host_not_allowed"] != uint64(refused[2].Load()) {
		t.Errorf("counted %v", counted)
	}
	for s, n := range seconds {
		if n > 2 { // one a second, and the last one when the server stops
			t.Errorf("%d summaries in second %d", n, s)
		}
	}
	if n := strings.Count(r.log.String(), "\n"); n > 20 {
		t.Errorf("%d lines of log", n)
	}
	i.healthy()
	if out, _ := i.run(0, "", "audit", "find", "--kind", "refusals"); !strings.Contains(out, "authzen caller_unknown ") {
		t.Error(out)
	}
}

// TestPoison sends the largest questions that the door takes, and those one step
// beyond: each fails at most its own caller, and another is served after it.
func TestPoison(t *testing.T) {
	i := newLab(t, lab("10ms"))
	r := i.serve()
	c, base := i.overSocket(), "http://localhost"
	well := func(after string) {
		t.Helper()
		if status, _, body, err := ask(c, base, aliceReads); err != nil || status != 200 {
			t.Fatalf("after %s: %d %s %v", after, status, body, err)
		}
	}
	question := func(role string) string {
		return `{"subject":{"type":"user","id":"alice","properties":{"role":"` + role + `"}},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`
	}
	// The largest legal batch: all that one body and one list may hold.
	var items []string
	for n := range 100 {
		items = append(items, question(strings.Repeat("x", 10_000+n)))
	}
	batch := `{"evaluations":[` + strings.Join(items, ",") + `]}`
	status, header, answer, err := send(c, base+"/access/v1/evaluations", batch)
	if err != nil || status != 200 || strings.Count(string(answer), `"decision"`) != 100 {
		t.Fatalf("the largest batch: %d %.200s %v", status, answer, err)
	}
	whole := header.Get("Ward-Record")
	well("the largest batch")
	for name, b := range map[string]struct {
		path, body string
		status     int
		code       string
	}{
		"an item more":            {"evaluations", `{"evaluations":[` + strings.Join(append(items[:100:100], aliceReads), ",") + `]}`, 400, "batch_too_large"},
		"a body beyond the limit": {"evaluations", batch[:len(batch)-1] + strings.Repeat(" ", 1<<20) + "}", 413, "body_too_large"},
		"a poison item":           {"evaluations", `{"evaluations":[` + aliceReads + `,` + question(strings.Repeat("x", 80_000)) + `]}`, 400, "too_large"},
		"a context at its limit":  {"evaluation", strings.TrimSuffix(aliceReads, "}") + `,"context":{"deep":` + strings.Repeat(`[`, 30) + strings.Repeat(`]`, 30) + `,"long":"` + strings.Repeat("x", 1<<20-600) + `"}}`, 200, ""},
		"a context too deep":      {"evaluation", strings.TrimSuffix(aliceReads, "}") + `,"context":{"deep":` + strings.Repeat(`[`, 31) + strings.Repeat(`]`, 31) + `}}`, 400, "json_too_deep"},
		"a name without end":      {"evaluation", strings.TrimSuffix(aliceReads, "}") + `,"context":{"` + strings.Repeat("n", 900_000) + `":1}}`, 400, "too_large"},
	} {
		status, _, answer, err := send(c, base+"/access/v1/"+b.path, b.body)
		if err != nil || status != b.status || !strings.Contains(string(answer), b.code) || bytes.Contains(answer, []byte("xxxx")) {
			t.Errorf("%s: %d %.300s %v", name, status, answer, err)
		}
		well(name)
	}
	// The largest record, to the byte that its caller can add.
	fits, not := 1, 80_000
	for not-fits > 1 {
		size := (fits + not) / 2
		switch status, _, answer, err := send(c, base+"/access/v1/evaluation", question(strings.Repeat("x", size))); {
		case err == nil && status == 200:
			fits = size
		case err == nil && status == 400 && strings.Contains(string(answer), "too_large"):
			not = size
		default:
			t.Fatalf("%d bytes: %d %.200s %v", size, status, answer, err)
		}
		well("the largest record")
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatalf("%v\n%s", err, r.log)
	}
	largest, parts := 0, 0
	for _, e := range i.entries() {
		largest = max(largest, len(e.Body))
		var clear struct{ Of string }
		if err := json.Unmarshal(e.Clear, &clear); err != nil {
			t.Fatal(err)
		}
		if e.ID() == whole || clear.Of == whole {
			parts++
		}
	}
	if largest > audit.MaxBody || largest < audit.MaxBody-2 { // a byte is up to two of base64
		t.Errorf("the largest record has %d bytes of %d", largest, audit.MaxBody)
	}
	if parts < 20 {
		t.Errorf("the largest batch lies in %d records", parts)
	}
	t.Logf("the largest batch lies in %d records under one id; the largest record has %d of %d bytes", parts, largest, audit.MaxBody)
	i.healthy()
}

// TestACallerOverItsRate: who asks more often than it is registered to is refused
// before anything is decided, and another caller does not notice.
func TestACallerOverItsRate(t *testing.T) {
	const rate = 20
	i := newLab(t, fmt.Sprintf("drain: 10ms\nlisten: {authzen: {address: \"127.0.0.1:0\", socket: authzen.sock}}\ncallers:\n  - {name: certifier, uid: %d, asserts: [user]}\n  - {name: greedy, listener: tcp, asserts: [user], rate: %d}\n", os.Getuid(), rate))
	r := i.serve()
	first := len(i.entries())
	start, end := time.Now(), time.Now().Add(2*time.Second)
	var greedy, over, modest atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
		wg.Go(func() {
			for time.Now().Before(end) {
				status, header, answer, err := send(client, r.serving["address"].(string)+"/access/v1/evaluation", aliceReads)
				switch {
				case err == nil && status == 200:
					greedy.Add(1)
				case err == nil && status == 429 && header.Get("Retry-After") == "1" && strings.Contains(string(answer), "rate_limited"):
					over.Add(1)
				default:
					t.Errorf("%d %s %v", status, answer, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		c := i.overSocket()
		for time.Now().Before(end) {
			if status, _, body, err := ask(c, "http://localhost", aliceReads); err != nil || status != 200 {
				t.Errorf("the other caller gets %d %s %v", status, body, err)
				return
			}
			modest.Add(1)
		}
	})
	wg.Wait()
	allowed := int64(2*rate + rate*(time.Since(start).Seconds()+1))
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var recorded, counted int64
	for _, e := range i.entries()[first:] {
		l, err := pdp.LineOf(e)
		if err != nil {
			t.Fatal(err)
		}
		if l.Caller == "greedy" {
			recorded++
		}
		counted += int64(l.Refusals["authzen"]["rate_limited"])
	}
	t.Logf("%d answers and %d refusals of one, %d answers of the other", greedy.Load(), over.Load(), modest.Load())
	if greedy.Load() < 2*rate || greedy.Load() > allowed || over.Load() == 0 || recorded != greedy.Load() || counted != over.Load() || modest.Load() == 0 {
		t.Errorf("%d of at most %d answered, %d recorded; %d refused, %d counted", greedy.Load(), allowed, recorded, over.Load(), counted)
	}
	i.healthy()
}

// TestOutcomesAtTheServer reports what became of a decision, also after a restart.
func TestOutcomesAtTheServer(t *testing.T) {
	i := newLab(t, strings.Replace(lab("10ms"), "asserts: [user]", "asserts: [user], performs: [mask]", 1))
	r := i.serve()
	c, url := i.overSocket(), "http://localhost/v1/outcomes"
	_, record, _, err := ask(c, "http://localhost", aliceReads)
	if err != nil {
		t.Fatal(err)
	}
	_, later, _, err := ask(c, "http://localhost", aliceReads)
	if err != nil {
		t.Fatal(err)
	}
	report := func(want int, of, rest string) string {
		t.Helper()
		status, header, answer, err := send(c, url, `{"record":"`+of+`",`+rest+`}`)
		if err != nil || status != want {
			t.Errorf("%d %s %v, want %d", status, answer, err, want)
		}
		return header.Get("Ward-Record")
	}
	id := report(201, record, `"delivered":true,"rows":3,"obligations":["mask"]`)
	report(409, record, `"delivered":false`)
	report(404, "a-0", `"delivered":true`)
	if err := r.stop(syscall.SIGKILL); err == nil {
		t.Error("it was not killed")
	}
	r = i.serve()
	c = i.overSocket()
	report(409, record, `"delivered":false`)
	report(201, later, `"delivered":false`)
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	i.healthy()
	if out, _ := i.run(0, "", "audit", "find", "--kind", "outcome"); !strings.Contains(out, "of "+record+": delivered, 3 rows, mask") || !strings.Contains(out, "of "+later+": not delivered") {
		t.Error(out)
	}
	if out, _ := i.run(0, "", "audit", "show", id); !strings.Contains(out, record) {
		t.Error(out)
	}
}

// TestReserve: with less than the reserve free the server is not ready, says so
// everywhere, and decides on.
func TestReserve(t *testing.T) {
	i := newLab(t, lab("10ms")+"reserve: 1000000TiB\n")
	r := i.serve()
	c := i.overSocket()
	resp, err := c.Get("http://localhost/readyz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 503 || !strings.Contains(string(body), `"disk_reserve"`) {
		t.Errorf("readyz: %d %s", resp.StatusCode, body)
	}
	if status, _, body, err := ask(c, "http://localhost", aliceReads); err != nil || status != 200 {
		t.Errorf("a decision: %d %s %v", status, body, err)
	}
	says := func(where string) {
		t.Helper()
		if out, _ := i.run(0, "", "status"); !strings.Contains(out, "less than the reserve") {
			t.Errorf("status %s: %s", where, out)
		}
		if out, _ := i.run(1, "", "doctor"); !strings.Contains(out, "fail\tdisk") && !strings.Contains(out, "less than the reserve") {
			t.Errorf("doctor %s: %s", where, out)
		}
	}
	says("of the server")
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	says("without a server")
}

func TestReserveIsATwentiethWithinBounds(t *testing.T) {
	for _, c := range []struct{ set, size, want uint64 }{
		{0, 1 << 30, 256 << 20}, {0, 20 << 30, 1 << 30}, {0, 1 << 40, 10 << 30}, {0, 1 << 50, 10 << 30}, {3 << 30, 1 << 50, 3 << 30},
	} {
		cfg := &config{reserve: c.set}
		if got := cfg.reserveOf(c.size); got != c.want {
			t.Errorf("%d on a disk of %d: %d, want %d", c.set, c.size, got, c.want)
		}
		for free, room := range map[uint64]bool{c.want: true, c.want - 1: false} {
			cfg.space = func(string) (uint64, uint64, error) { return free, c.size, nil }
			if err := cfg.room(); (err == nil) != room {
				t.Errorf("%d free of %d: %v", free, c.size, err)
			}
		}
	}
	cfg := &config{space: func(string) (uint64, uint64, error) { return 0, 0, fs.ErrPermission }}
	if cfg.room() == nil {
		t.Error("a disk that cannot be looked at has room")
	}
	for _, s := range []string{"", "1", "-1GiB", "0x1GiB", "1.5GiB", "1GB", "GiB", "1048576TiB", "18446744073709551616MiB", " 1GiB"} {
		if n, ok := readSize(s); ok {
			t.Errorf("%q is read as %d", s, n)
		}
	}
}
