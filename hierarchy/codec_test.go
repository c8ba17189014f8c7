package hierarchy

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// everyKind is a batch with an event of each kind and op.
func everyKind() *Batch {
	majority := Instant(1_900_000_000_000)
	return &Batch{
		Revision: 7, Prev: Hash{1, 2, 3}, Time: 1_700_000_000_000, Record: 9,
		Provenance: Provenance{Who: mustID("Admin:ana"), Right: "ward.link", Why: "said <so> & \"why\"", Ticket: "T-1", Feed: "sha256:00 members.csv", SourceAsserted: true},
		Import:     &Import{ID: "feed-1", Tenant: "acme", Step: ImportMore},
		Events: []Event{
			{Op: Assert, Kind: KindNode, Valid: Always, Row: 3, Node: &Node{ID: mustID("Group:acme/g/1"), Attrs: map[string]any{
				"b": true, "n": int64(-9223372036854775808), "s": "Zoë \u2028", "l": []string{"x", "y"}, "none": []string{},
			}}},
			{Op: Assert, Kind: KindNode, Valid: during(5, Forever), Node: &Node{ID: mustID("Person:p"), Person: &Person{"2008-02-29", "US-OH", &majority, TZData}}},
			user(during(Never, 5), "User:dana"),
			edge(during(1, 2), "Group:acme/g1", "Tenant:acme"),
			link(Always, LinkOwns, "Person:p", "Coverage:acme/c"), identity(Always, "https://idp", "s|1", "User:dana"),
			role("acme/x", []string{"a", "b"}, []string{"y"}), assign(Always, "User:dana", "acme/x", "Tenant:acme"), entitle(Always, "acme", "claims.export"),
			grant(during(0, 9), Grant{ID: "g-1", Grantor: mustID("Person:p"), Grantee: mustID("User:dana"), Subject: mustID("Person:p"),
				Scope:   Scope{[]string{"claim.view"}, []string{"MH"}, mustID("Coverage:acme/c"), Always, []string{"report:r-1"}},
				Purpose: []string{"FAMRQT"}, Jurisdiction: "US-OH", LegalBasis: "x", Evidence: Evidence{"doc", strings.Repeat("0a", 32), "v", 4, 2},
				EndsAtMajority: true, Parent: "g-0", MayRedelegate: true, MaxDepth: 1, Needs: []Need{{SignerCoSigner, mustID("Person:q")}, {As: SignerVerifier}}, Source: "ciam", External: "x-1"}),
			block(Always, "Person:p", "User:dana"),
			assert(Always, Event{Kind: KindSetting, Setting: &Setting{TenantID("acme"), "runOutDays", int64(-90)}}),
			assert(Always, Event{Kind: KindSetting, Setting: &Setting{TenantID("acme"), "seesMember", false}}),
			assert(Always, Event{Kind: KindSetting, Setting: &Setting{TenantID("acme"), "tone", "plain"}}),
			assert(during(1, 1+MaxEmergency), Event{Kind: KindEmergency, Emergency: &Emergency{"e-1", mustID("User:dana"), mustID("Person:p"), mustID("Patient:acme/p"), "BTG", "unconscious", "INC1"}}),
			assert(during(2, Forever), Event{Kind: KindReview, Review: &Review{"e-1", mustID("User:rita"), "justified", "seen"}}),
			assert(during(2, Forever), Event{Kind: KindSignature, Signature: &Signature{"g-1", Need{SignerCoSigner, mustID("Person:q")}, mustID("User:dana")}}),
			{Op: Assert, Kind: KindActivation, Activation: &Activation{Digest: "sha256:" + strings.Repeat("0f", 32), Name: "pbm"}},
			overlayOf("acme", "sha256:"+strings.Repeat("0e", 32)), overlayOf("acme", ""),
			endAt(KindEdge, FactID{3, 1}, -5), void(KindGrant, FactID{6, 0}),
		},
	}
}

func TestCodecRoundTrip(t *testing.T) {
	b := everyKind()
	body, err := Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, b) {
		t.Errorf("decoded\n%+v\nfrom\n%+v", got, b)
	}
	again, err := Encode(got)
	if err != nil || !bytes.Equal(again, body) {
		t.Errorf("encoded again: %s, %v", again, err)
	}
}

// TestCodecFormat pins the stored form: stores outlive programs.
func TestCodecFormat(t *testing.T) {
	b := &Batch{Revision: 1, Time: 5, Provenance: Provenance{Who: ana}, Events: []Event{
		node(during(Never, 9), "Group:acme/g1"), endAt(KindEdge, FactID{12, 3}, 7),
	}}
	body, err := Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"revision":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","time":5,"provenance":{"who":"Admin:ana"},"events":[` +
		`{"op":1,"kind":1,"valid":{"to":9},"node":{"id":"Group:acme/g1"}},` +
		`{"op":2,"kind":2,"fact":"f12.3","at":7}]}`
	if string(body) != want {
		t.Errorf("\n got %s\nwant %s", body, want)
	}
	if body, err := Encode(&Batch{Revision: 1, Provenance: Provenance{Who: ana}}); err != nil || !strings.HasSuffix(string(body), `"events":[]}`) {
		t.Errorf("no events: %s, %v", body, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const head = `{"revision":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","time":5,"provenance":{"who":"Admin:ana"},"events":[`
	one := func(event string) string { return head + event + `]}` }
	good := one(`{"op":1,"kind":1,"valid":{},"node":{"id":"Plan:a/p","attrs":{"n":1}}}`)
	if _, err := Decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in the batch", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	set := func(value string) string {
		return one(`{"op":1,"kind":6,"valid":{},"setting":{"tenant":"Tenant:a","name":"x","value":` + value + `}}`)
	}
	for _, value := range []string{`true`, `0`, `-9223372036854775808`, `""`} {
		if _, err := Decode([]byte(set(value))); err != nil {
			t.Errorf("setting %s: %v", value, err)
		}
	}
	for _, test := range []struct{ name, body, want string }{
		{"float setting", set(`1.0`), "event_invalid: event 0: the number of a setting is not a 64-bit integer"},
		{"setting too large", set(`9223372036854775808`), "event_invalid: event 0: the number of a setting is not a 64-bit integer"},
		{"setting minus zero", set(`-0`), "not in canonical form"},
		{"null setting", set(`null`), "event_invalid: event 0: the value of a setting is"},
		{"list setting", set(`["x"]`), "event_invalid: event 0: the value of a setting is"},
		{"object setting", set(`{}`), "event_invalid: event 0: the value of a setting is"},
		{"nothing", ``, "a value is malformed or the text ends early"},
		{"cut", good[:len(good)-1], "a value is malformed or the text ends early"},
		{"no JSON", `{"revision":x}`, "not JSON at byte 1"},
		{"null", `null`, "event_invalid: batch: provenance: who: id type must be"},
		{"a list", `[]`, "wrong type of value"},
		{"data after it", good + `{}`, "data after the batch"},
		{"a line end after it", good + "\n", "not in canonical form"},
		{"spacing", change(`"time":5`, `"time": 5`), "not in canonical form"},
		{"order", strings.Replace(good, `"op":1,"kind":1`, `"kind":1,"op":1`, 1), "not in canonical form"},
		{"unknown field", change(`"time":5`, `"time":5,"zone":"x"`), "unknown field"},
		{"unknown field of an event", change(`"op":1`, `"op":1,"ops":1`), "unknown field"},
		{"unknown field of an interval", change(`"valid":{}`, `"valid":{"till":3}`), "unknown field"},
		{"field in another case", change(`"op":1`, `"Op":1`), "not in canonical form"},
		{"repeated field", change(`"op":1`, `"op":1,"op":1`), "repeated field before byte"},
		{"repeated attribute", change(`"n":1`, `"n":1,"n":2`), "repeated field before byte"},
		{"repeated in another case", change(`"op":1`, `"op":1,"OP":1`), "not in canonical form"},
		{"float", change(`"n":1`, `"n":1.0`), "event_invalid: event 0: an attribute number is not a 64-bit integer"},
		{"exponent", change(`"n":1`, `"n":1e3`), "event_invalid: event 0: an attribute number is not a 64-bit integer"},
		{"too large", change(`"n":1`, `"n":9223372036854775808`), "event_invalid: event 0: an attribute number is not a 64-bit integer"},
		{"minus zero", change(`"n":1`, `"n":-0`), "not in canonical form"},
		{"null attribute", change(`"n":1`, `"n":null`), "event_invalid: event 0: attribute values are"},
		{"object attribute", change(`"n":1`, `"n":{}`), "event_invalid: event 0: attribute values are"},
		{"mixed list", change(`"n":1`, `"n":["a",1]`), "event_invalid: event 0: an attribute list holds something else"},
		{"empty attributes", change(`{"n":1}`, `{}`), "not in canonical form"},
		{"needless escape", change(`"n":1`, `"\u006e":1`), "not in canonical form"},
		{"invalid UTF-8", change(`"n":1`, "\"n\xff\":1"), "not in canonical form"},
		{"bad id", change(`Plan:a/p`, `secret`), "a value is malformed"},
		{"bad hash", change(`"prev":"00`, `"prev":"0g`), "a value is malformed"},
		{"kind of a newer version", one(`{"op":1,"kind":99,"valid":{},"lease":{"id":"x"}}`), "event_kind_unknown: event 0: kind or op is not known to this version"},
		{"newer kind after others", one(`{"op":1,"kind":1,"valid":{},"node":{"id":"Plan:a/p"}},{"op":1,"kind":300,"row":5}`), "event_kind_unknown: row 5: kind or op is not known to this version"},
		{"reserved kind", one(`{"op":1,"kind":10,"valid":{},"consent":{}}`), "event_kind_unknown: event 0: kind or op is not known to this version"},
		{"op of a newer version", one(`{"op":4,"kind":1}`), "event_kind_unknown: event 0: kind or op is not known to this version"},
	} {
		b, err := Decode([]byte(test.body))
		if err == nil || b != nil {
			t.Errorf("%s: decoded", test.name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %s", test.name, err, test.want)
		}
		var r *Refusal
		if want := strings.HasPrefix(test.want, "event_"); errors.As(err, &r) != want {
			t.Errorf("%s: %v is a Refusal: %v; want %v", test.name, err, !want, want)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats the contents: %v", test.name, err)
		}
	}
	if _, err := Decode(make([]byte, MaxBatchBytes+1)); err == nil || !strings.HasPrefix(err.Error(), CodeBatchTooLarge) {
		t.Errorf("a body beyond the bound: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*Batch){
		"no who":                  func(b *Batch) { b.Provenance.Who = ID{} },
		"invalid UTF-8":           func(b *Batch) { b.Provenance.Why = "\xff" },
		"invalid UTF-8 attribute": func(b *Batch) { b.Events[0].Node.Attrs["s"] = "\xff" },
		"int attribute":           func(b *Batch) { b.Events[0].Node.Attrs["s"] = 1 },
		"nil attribute":           func(b *Batch) { b.Events[0].Node.Attrs["s"] = nil },
		"nil list":                func(b *Batch) { b.Events[0].Node.Attrs["s"] = []string(nil) },
		"bad id":                  func(b *Batch) { b.Events[0].Node.ID.Key = "" },
		"too large":               func(b *Batch) { b.Events[0].Node.Attrs["s"] = strings.Repeat("x", MaxBatchBytes) },
	} {
		b := everyKind()
		change(b)
		if body, err := Encode(b); err == nil || body != nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// FuzzDecode: what Decode accepts is exactly what Encode writes, and a graph
// takes or refuses it without a panic.
func FuzzDecode(f *testing.F) {
	body, err := Encode(everyKind())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	b := newBench(f)
	b.do(node(Always, "Tenant:a"), user(Always, "User:u"))
	for _, e := range b.log {
		f.Add(e.Body)
	}
	f.Add([]byte(`{"revision":1,"events":[{"op":1,"kind":14}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := Decode(body)
		if err != nil {
			if b != nil {
				t.Fatal("a batch beside an error")
			}
			return
		}
		again, err := Encode(b)
		if err != nil || !bytes.Equal(again, body) {
			t.Fatalf("decoded from\n%s\nencodes to\n%s\n%v", body, again, err)
		}
		g := NewGraph()
		b.Revision, b.Prev = 1, Hash{}
		_ = g.Check(b)
		if body, err := Encode(b); err == nil {
			if err := g.Apply(Entry{1, body}); err == nil {
				for k := KindNode; k <= KindReview; k++ {
					for range g.At(0, 1, EdgeKinds{}).Facts(k) {
					}
				}
			}
		}
	})
}
