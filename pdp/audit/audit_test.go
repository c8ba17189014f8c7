package audit

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	kd, ld := filepath.Join(dir, "keys"), filepath.Join(dir, "ledger")
	if err := CreateKeys(kd, "ward.example/audit/test"); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(kd)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(ld, k); err != nil {
		t.Fatal(err)
	}
	l, _, err := Open(ld, k, Options{})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := l.Append(context.Background(), Record{Kind: Decision, Time: 1767225600000, Clear: json.RawMessage(`{"a": 1}`), Parts: []Part{{"acme", []byte("secret")}}})
	if err != nil || seq != 0 {
		t.Fatal(seq, err)
	}
	e, err := l.Entry(0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.Unseal(e)
	if err != nil || len(p) != 1 || p[0].Tenant != "acme" || string(p[0].Plain) != "secret" {
		t.Fatal(p, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(ld, k.Verifier(), nil)
	if err != nil || r.Records != 1 || r.Tail != 0 {
		t.Fatal(r, err)
	}
}
