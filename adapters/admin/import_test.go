package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/policies"
)

// importDoor is a handler over a new decision point; uid 7 administers it.
func importDoor(t *testing.T) (*Handler, *pdp.PDP) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	ok(audit.CreateKeys(dir+"/keys", "ward.test/audit"))
	keys, err := audit.OpenKeys(dir + "/keys")
	ok(err)
	ok(audit.Create(dir+"/ledger", keys))
	ledger, _, err := audit.Open(dir+"/ledger", keys, audit.Options{})
	ok(err)
	t.Cleanup(func() { ledger.Close() })
	set, err := policies.Compile(policies.PBM())
	ok(err)
	store := storetest.NewMemory()
	p, err := pdp.Initialise(context.Background(), pdp.Config{Store: store, Ledger: ledger, Keys: keys},
		pdp.Setup{Operator: "ward", Set: set, Admins: map[string]int{"ana": 7}})
	ok(err)
	h, err := New(Config{PDP: p, Store: store, Ledger: ledger, Keys: keys})
	ok(err)
	return h, p
}

func planRow(key string) pdp.Row {
	return pdp.Row{Line: 2, Facts: []pdp.Desired{{Event: hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindNode, Valid: hierarchy.Always,
		Node: &hierarchy.Node{ID: hierarchy.ID{Type: "Plan", Tenant: "acme", Key: key}, Attrs: map[string]any{"n": int64(3), "l": []string{"a"}}}}}}}
}

func someRows(rows ...pdp.Row) iter.Seq2[pdp.Row, error] {
	return func(yield func(pdp.Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

var importHead = Import{ID: "im-1", Tenant: "acme", Files: []pdp.FeedFile{{Name: "plans.csv", Digest: "sha256:aa"}}}

func TestAFeedThroughTheDoor(t *testing.T) {
	h, p := importDoor(t)
	c := NewClient(InProcess(h, 7))
	seen := 0
	got, err := c.Import(context.Background(), importHead, someRows(planRow("p1")), func(pdp.Progress) { seen++ })
	if err != nil || got.Revisions != 2 || seen != 2 || got.Files[0].Loaded != 1 {
		t.Fatalf("%+v, %d reports of progress, %v", got, seen, err)
	}
	n, _, ok := p.View(0, 0).Node(hierarchy.ID{Type: "Plan", Tenant: "acme", Key: "p1"})
	if !ok || n.Attrs["n"] != int64(3) || fmt.Sprint(n.Attrs["l"]) != "[a]" {
		t.Errorf("the plan is %+v", n)
	}

	// Who is no administrator learns that, whatever they send.
	big := func(yield func(pdp.Row, error) bool) {
		for range 20_000 {
			if !yield(planRow("p2"), nil) {
				return
			}
		}
	}
	var e *Error
	if _, err := NewClient(InProcess(h, 8)).Import(context.Background(), importHead, big, nil); !errors.As(err, &e) || e.Status != http.StatusForbidden {
		t.Errorf("a stranger's feed: %v, want 403", err)
	}
	// What the sender cannot read ends the import with the sender's own error.
	own := errors.New("disk gone")
	broken := func(yield func(pdp.Row, error) bool) { _ = yield(planRow("p3"), nil) && yield(pdp.Row{}, own) }
	if _, err := c.Import(context.Background(), importHead, broken, nil); !errors.Is(err, own) {
		t.Errorf("a broken feed: %v, want its own error", err)
	}
	if exists := func(key string) bool {
		_, _, ok := p.View(0, 0).Node(hierarchy.ID{Type: "Plan", Tenant: "acme", Key: key})
		return ok
	}; exists("p2") || exists("p3") {
		t.Error("something of a refused feed was written")
	}
}

func TestFeedsThatAreNone(t *testing.T) {
	h, p := importDoor(t)
	tip := p.Graph().Tip()
	head := `{"id":"im-1","tenant":"acme","files":[{"name":"plans.csv","digest":"sha256:aa"}]}` + "\n"
	row, _ := json.Marshal(planRow("secretkey"))
	line := string(row) + "\n"
	for name, c := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"nothing":               {"", 400, "broke off"},
		"no header":             {line, 400, "unknown field"},
		"a header given twice":  {strings.Replace(head, `"id":"im-1"`, `"id":"im-1","id":"im-2"`, 1) + line + `{"end":1}` + "\n", 400, "key twice"},
		"no id":                 {strings.Replace(head, "im-1", "", 1) + line + `{"end":1}` + "\n", 400, "needs an id"},
		"no files":              {`{"id":"im-1","files":[]}` + "\n" + `{"end":0}` + "\n", 400, "1 to 256 files"},
		"cut after the header":  {head, 400, "broke off"},
		"cut in a row":          {head + line[:len(line)/2], 400, "broke off"},
		"cut before the end":    {head + line, 400, "broke off"},
		"another end":           {head + line + `{"end":2}` + "\n", 400, "says that it has 2 rows, it has 1"},
		"more after the end":    {head + line + `{"end":1}` + "\n" + line, 400, "goes on after its end"},
		"an unknown field":      {head + `{"file":0,"line":2,"secretkey":1}` + "\n", 400, "not a row"},
		"an unknown file":       {head + `{"file":1,"line":2}` + "\n" + `{"end":1}` + "\n", 400, "no file of the feed"},
		"an endless line":       {head + `{"file":0,"line":2,"facts":"` + strings.Repeat("x", 300<<10) + "\n", 413, "too long"},
		"a row that is too big": {head + `{"file":0,"line":2,"refused":{"code":"x","text":"` + strings.Repeat("x", 70<<10) + `"}}` + "\n", 400, "longer than"},
	} {
		r, err := http.NewRequest(http.MethodPost, "http://localhost/v1/import", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := InProcess(h, 7).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		if response.StatusCode != c.status || !bytes.Contains(text, []byte(c.text)) || bytes.Contains(text, []byte("secretkey")) {
			t.Errorf("%s: %d %s", name, response.StatusCode, text)
		}
	}
	if p.Graph().Tip() != tip {
		t.Error("a feed that is none changed something")
	}
}

func TestAnOpenImportIsAbandonedThroughTheDoor(t *testing.T) {
	h, p := importDoor(t)
	c := NewClient(InProcess(h, 7))
	ctx, cancel := context.WithCancel(context.Background())
	two := func(yield func(pdp.Row, error) bool) { // batches
		for i := range 5000 {
			if !yield(planRow(fmt.Sprint("p", i)), nil) {
				return
			}
		}
	}
	if _, err := c.Import(ctx, importHead, two, func(pdp.Progress) { cancel() }); err == nil {
		t.Fatal("the import was not broken off")
	}
	for range 2 {
		var out Changed
		err := c.Post(context.Background(), "/v1/import/abandon", Abandon{Tenant: "acme"}, &out)
		var e *Error
		switch {
		case err == nil && out.Record != "":
		case errors.As(err, &e) && e.Code == hierarchy.CodeImportUnknown:
		default:
			t.Fatal(err)
		}
	}
	if open := p.Graph().Imports(); len(open) != 0 {
		t.Errorf("open: %v", open)
	}
}
