package authzen

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/ward-authz/ward/pdp/authz"
)

// fakeReporter is a decider that takes outcomes.
type fakeReporter struct {
	fakeDecider
	told []authz.Outcome
	by   []string
	err  error
}

func (f *fakeReporter) Report(_ context.Context, c authz.Caller, o authz.Outcome) (string, error) {
	f.told, f.by = append(f.told, o), append(f.by, c.Name)
	return "a-77", f.err
}

func TestOutcomes(t *testing.T) {
	f := &fakeReporter{}
	var refused []authz.Code
	h := newDoor(t, f, func(c *Config) { c.Refused = func(code authz.Code) { refused = append(refused, code) } })
	w := post(h, "/v1/outcomes", `{"record":"a-1","delivered":true,"rows":3,"obligations":["mask"]}`)
	if w.Code != 201 || strings.TrimSpace(w.Body.String()) != `{"record":"a-77"}` || w.Header().Get("Ward-Record") != "a-77" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if o := f.told[0]; o.Record != "a-1" || !o.Delivered || *o.Rows != 3 || len(o.Obligations) != 1 || f.by[0] != "tester" {
		t.Errorf("%+v by %s", o, f.by)
	}
	if w = post(h, "/v1/outcomes", `{"record":"a-1","delivered":false}`); w.Code != 201 || f.told[1].Delivered || f.told[1].Rows != nil {
		t.Errorf("%d %+v", w.Code, f.told[1])
	}
	for body, code := range map[string]authz.Code{
		`{"delivered":true}`:                                       FieldMissing,
		`{"record":"a-1"}`:                                         FieldMissing,
		`{"record":1,"delivered":true}`:                            FieldType,
		`{"record":"","delivered":true}`:                           FieldInvalid,
		`{"record":"a-1","delivered":"canary"}`:                    FieldType,
		`{"record":"a-1","delivered":null}`:                        FieldType,
		`{"record":"a-1","delivered":true,"rows":-1}`:              FieldType,
		`{"record":"a-1","delivered":true,"rows":1.5}`:             FieldType,
		`{"record":"a-1","delivered":true,"rows":"canary"}`:        FieldType,
		`{"record":"a-1","delivered":true,"obligations":"canary"}`: FieldType,
		`{"record":"a-1","delivered":true,"obligations":[7]}`:      FieldType,
		`{"record":"a-1","delivered":true,"canary":1}`:             FieldUnknown,
		`{"record":"a-1","record":"canary","delivered":true}`:      KeyDuplicate,
		`[]`: FieldType,
	} {
		before := len(f.told)
		w := post(h, "/v1/outcomes", body)
		wantError(t, w, http.StatusBadRequest, code)
		if strings.Contains(w.Body.String(), "canary") || len(f.told) != before {
			t.Errorf("%s: %s", body, w.Body)
		}
	}
	if len(refused) != 14 {
		t.Errorf("%d counted: %v", len(refused), refused)
	}
	for code, status := range map[authz.Code]int{authz.UnknownRecord: 404, authz.OutcomeExists: 409, authz.OutcomeLate: 410, authz.RateLimited: 429, authz.ObligationUnsupported: 400} {
		f.err = &authz.Error{Kind: authz.Refused, Code: code, Text: "canary"}
		wantError(t, post(h, "/v1/outcomes", `{"record":"a-1","delivered":true}`), status, code)
	}
	f.err = &authz.Error{Kind: authz.Outage, Code: authz.Busy}
	wantError(t, post(h, "/v1/outcomes", `{"record":"a-1","delivered":true}`), 503, authz.Busy)
	wantError(t, post(newDoor(t, &fakeDecider{}), "/v1/outcomes", `{}`), 404, NotFound)
	anonymous := newDoor(t, f, func(c *Config) { c.Caller = func(*http.Request) (authz.Caller, bool) { return authz.Caller{}, false } })
	wantError(t, post(anonymous, "/v1/outcomes", `{"record":"a-1","delivered":true}`), 401, CallerUnknown)
}
