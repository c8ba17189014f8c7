package jsonbody

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/ward-authz/ward/pdp/authz"
)

func code(err error) authz.Code {
	if e, ok := errors.AsType[*authz.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestParse(t *testing.T) {
	for body, want := range map[string]authz.Code{
		`{"a":[1,{"b":null}],"A":"\ud83d\ude00"}`: "",
		" {} ":                           "",
		"":                               Invalid,
		" \n":                            Invalid,
		"{":                              Invalid,
		"{}{}":                           Invalid,
		"{}x":                            Invalid,
		"{'a':1}":                        Invalid,
		`{"a":1,}`:                       Invalid,
		"\ufeff{}":                       Invalid,
		"{\"a\":\"\xff\"}":               Invalid,
		`{"a":"\ud800"}`:                 Invalid,
		`{"a":"\ude00\ud83d"}`:           Invalid,
		`{"a":"\ud83dx"}`:                Invalid,
		`{"a":1,"a":1}`:                  KeyDuplicate,
		`{"a":1,"\u0061":1}`:             KeyDuplicate,
		`{"x":[{"a":1,"a":1}]}`:          KeyDuplicate,
		`[]`:                             NotObject,
		`"a"`:                            NotObject,
		`null`:                           NotObject,
		`{"a":[[[]]]}`:                   "",
		`{"a":[[[[]]]]}`:                 TooDeep,
		`{"a":"[[[[[["}`:                 "",
		`{"a":"\"[[[[[["}`:               "",
		strings.Repeat(`{"a":`, 100_000): TooDeep,
		strings.Repeat(`{"a":`, 100_000) + "\xff": Invalid,
	} {
		got, err := Parse([]byte(body), 4)
		if code(err) != want || (err == nil) != (want == "") || err == nil && got == nil {
			t.Errorf("%.40q: %v %v, want %q", body, got, err, want)
		}
	}
	got, err := Parse([]byte(`{"n":1.50,"l":[true,"x"]}`), 4)
	if want := map[string]any{"n": json.Number("1.50"), "l": []any{true, "x"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		kinds    []string
		body     string
		declared bool
		want     authz.Code
	}{
		{[]string{"application/json"}, `{"a":1}`, true, ""},
		{[]string{"Application/JSON; charset=utf-8"}, `{"a":1}`, false, ""},
		{nil, `{}`, true, ContentTypeInvalid},
		{[]string{"text/plain"}, `{}`, true, ContentTypeInvalid},
		{[]string{"application/json", "application/json"}, `{}`, true, ContentTypeInvalid},
		{[]string{"application/json"}, `{"a":"123456789"}`, true, TooLarge},
		{[]string{"application/json"}, `{"a":"123456789"}`, false, TooLarge},
	} {
		r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(c.body)))
		if c.declared {
			r.ContentLength = int64(len(c.body))
		}
		r.Header["Content-Type"] = c.kinds
		if _, err := Read(httptest.NewRecorder(), r, 10, 4); code(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%q %s: %v, want %q", c.kinds, c.body, err, c.want)
		}
	}
	r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("{"), broken{}))
	r.Header.Set("Content-Type", "application/json")
	if _, err := Read(httptest.NewRecorder(), r, 10, 4); code(err) != Unreadable {
		t.Errorf("a body that breaks off: %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
