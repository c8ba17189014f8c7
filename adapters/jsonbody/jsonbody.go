// Package jsonbody reads the body of a request as one JSON object, more strictly
// than encoding/json: no duplicate keys, no invalid UTF-8, no unpaired
// surrogates, no more nesting and bytes than the door allows. Two readers of one
// body could otherwise understand two things. The doors that programs ask at
// share it, so that they refuse alike.
package jsonbody

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/ward-authz/ward/pdp/authz"
)

// Codes of what is refused. The texts are fixed sentences.
const (
	// ContentTypeInvalid: the body is not declared as application/json.
	ContentTypeInvalid authz.Code = "content_type_invalid"
	// TooLarge: the body is larger than the door takes.
	TooLarge authz.Code = "body_too_large"
	// Unreadable: the body broke off.
	Unreadable authz.Code = "body_unreadable"
	// Invalid: the body is not exactly one JSON value in UTF-8.
	Invalid authz.Code = "json_invalid"
	// TooDeep: the body nests too deeply.
	TooDeep authz.Code = "json_too_deep"
	// KeyDuplicate: an object names a key twice.
	KeyDuplicate authz.Code = "key_duplicate"
	// NotObject: the body is a JSON value of another type.
	NotObject authz.Code = "field_type"
)

// Read reads the body of a request that declares application/json: at most
// maxBody bytes and maxDepth objects and arrays within one another.
func Read(w http.ResponseWriter, r *http.Request, maxBody int64, maxDepth int) (map[string]any, error) {
	if err := checkContentType(r.Header); err != nil {
		return nil, err
	}
	tooLarge := refuse(TooLarge, "the body is larger than "+strconv.FormatInt(maxBody, 10)+" bytes")
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge
		}
		return nil, refuse(Unreadable, "the body broke off")
	}
	return Parse(raw, maxDepth)
}

func checkContentType(h http.Header) error {
	values := h.Values("Content-Type")
	if len(values) == 1 {
		if kind, _, err := mime.ParseMediaType(values[0]); err == nil && kind == "application/json" {
			return nil
		}
	}
	return refuse(ContentTypeInvalid, "Content-Type must be application/json")
}

// Parse reads one JSON object. Keys keep their spelling, and numbers become
// json.Number.
func Parse(body []byte, maxDepth int) (map[string]any, error) {
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		return nil, refuse(Invalid, "the body is empty")
	}
	if err := scan(body, maxDepth); err != nil {
		return nil, err
	}
	// Decoder.Token alone forgives some syntax errors; Valid forgives none,
	// and neither recurses.
	if !json.Valid(body) {
		return nil, refuse(Invalid, "the body is not valid JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	v, err := value(decoder)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, refuse(NotObject, "the body must be an object")
	}
	return object, nil
}

// scan looks at the bytes alone, before anything is built from them.
func scan(body []byte, maxDepth int) error {
	if !utf8.Valid(body) {
		return refuse(Invalid, "the body is not valid UTF-8")
	}
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			if depth++; depth > maxDepth {
				return refuse(TooDeep, "the body nests too deeply")
			}
		case !quoted && (c == '}' || c == ']'):
			depth--
		case quoted && c == '\\':
			n, ok := escape(body[i:])
			if !ok {
				return refuse(Invalid, "the body holds an unpaired surrogate")
			}
			i += n - 1
		}
	}
	return nil
}

// escape returns the length of the escape that b starts with, a surrogate pair
// counting as one, and false for half a pair. Other mistakes are json.Valid's.
func escape(b []byte) (int, bool) {
	switch u := unit(b); {
	case u < 0:
		return 2, true
	case u < 0xd800 || u > 0xdfff:
		return 6, true
	case u >= 0xdc00:
		return 0, false
	}
	low := unit(b[6:])
	return 12, low >= 0xdc00 && low <= 0xdfff
}

// unit returns the UTF-16 code unit that b spells as \uXXXX, or -1.
func unit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	u, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(u)
}

// value reads the next value of valid JSON whose depth scan has bounded.
func value(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, refuse(Invalid, "the body is not valid JSON")
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for decoder.More() {
			token, err := decoder.Token()
			if err != nil {
				return nil, refuse(Invalid, "the body is not valid JSON")
			}
			key, _ := token.(string)
			if _, twice := object[key]; twice {
				return nil, refuse(KeyDuplicate, "an object names a key twice")
			}
			if object[key], err = value(decoder); err != nil {
				return nil, err
			}
		}
		_, err = decoder.Token()
		return object, err
	case json.Delim('['):
		array := []any{}
		for decoder.More() {
			v, err := value(decoder)
			if err != nil {
				return nil, err
			}
			array = append(array, v)
		}
		_, err = decoder.Token()
		return array, err
	}
	return token, nil
}

func refuse(code authz.Code, text string) error {
	return &authz.Error{Kind: authz.Refused, Code: code, Text: text}
}
