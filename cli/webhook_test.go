package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestGrantsThatEndAreTold runs the server with a webhook: a mark that is passed
// gives one event, by majority too, and a restart repeats none.
func TestGrantsThatEndAreTold(t *testing.T) {
	got := make(chan map[string]any, 16)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var e map[string]any
		if err := json.Unmarshal(body, &e); err != nil || r.Header.Get("webhook-id") != e["id"] || !strings.HasPrefix(r.Header.Get("webhook-signature"), "v1,") {
			t.Errorf("%s: %v", body, err)
		}
		got <- e
	}))
	defer receiver.Close()
	i := newInstall(t, "pbm", "pbm", fmt.Sprintf("drain: 1ms\nlisten: {authzen: {socket: authzen.sock}}\nwebhook: {url: %q, secretFile: hook.secret, events: [grant.ending]}\n", receiver.URL))
	secret := filepath.Join(i.dir, "hook.secret")
	if err := os.WriteFile(secret, []byte("whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	// The mark of seven days was passed while no server ran: the last one looked an
	// hour before it.
	soon := time.Now().Add(6*24*time.Hour + 12*time.Hour)
	state := fmt.Sprintf(`{"version":1,"through":%q,"owed":[]}`, soon.Add(-7*24*time.Hour-time.Hour).UTC().Format(time.RFC3339))
	if err := os.WriteFile(filepath.Join(i.dir, "data", "webhook.json"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	grant := func(id, to string) string {
		return fmt.Sprintf("- grant: {id: %s, type: parent, grantor: \"Person:leo\", grantee: \"User:mia\", subject: \"Person:leo\", scope: {capabilities: [claim.view]}, to: %q}\n", id, to)
	}
	i.run(0, "- node: {id: \"User:mia\", principal: true}\n- node: {id: \"Person:leo\", person: {birthDate: \"2015-05-01\", jurisdiction: US-OH}}\n"+
		grant("g-told", soon.Format(time.RFC3339Nano))+grant("g-revoked", soon.Format(time.RFC3339Nano))+grant("g-majority", "2100-01-01"), "hierarchy", "apply", "-")
	i.run(0, "", "grant", "revoke", "g-revoked", "--why", "asked to")

	r := i.serve()
	select {
	case e := <-got:
		if e["id"] != "ending-g-told-7" || e["type"] != "grant.ending" || e["grantType"] != "parent" || e["days"] != 7.0 || e["ends"] != soon.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000Z") {
			t.Errorf("%v", e)
		}
		for _, name := range []string{"Person", "leo", "User", "mia"} {
			if strings.Contains(fmt.Sprint(e), name) {
				t.Errorf("the event names %s: %v", name, e)
			}
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no event:\n%s", r.log)
	}
	if err := r.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := i.serve().stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if len(got) != 0 {
		t.Errorf("repeated: %v", <-got)
	}

	// Majority ends a grant as its own end does.
	a := &app{configPath: i.config}
	c, err := a.config(false)
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.openKernel(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	found := map[string]string{}
	_, open := grantSource{k.pdp}.Grant("g-revoked", time.Now())
	if open {
		t.Error("a revoked grant counts as live")
	}
	for g := range (grantSource{k.pdp}).Live(time.Now()) {
		found[g.ID] = g.Ends.UTC().Format(time.RFC3339)
	}
	if len(found) != 2 || found["g-majority"] != "2033-05-01T04:00:00Z" {
		t.Errorf("live grants with an end: %v", found)
	}
}
