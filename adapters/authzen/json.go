package authzen

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/ward-authz/ward/pdp/authz"
)

// parse reads a body that must be one JSON object, more strictly than
// encoding/json: no duplicate keys, no invalid UTF-8, no unpaired surrogates,
// and at most maxDepth nested objects and arrays. Keys keep their spelling.
// Numbers become json.Number.
func parse(body []byte, maxDepth int) (map[string]any, error) {
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		return nil, refuse(JSONInvalid, "the body is empty")
	}
	if err := scan(body, maxDepth); err != nil {
		return nil, err
	}
	// Decoder.Token alone forgives some syntax errors; Valid forgives none,
	// and neither recurses.
	if !json.Valid(body) {
		return nil, refuse(JSONInvalid, "the body is not valid JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	v, err := value(decoder)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, refuse(FieldType, "the body must be an object")
	}
	return object, nil
}

// scan looks at the bytes alone, before anything is built from them.
func scan(body []byte, maxDepth int) error {
	if !utf8.Valid(body) {
		return refuse(JSONInvalid, "the body is not valid UTF-8")
	}
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			if depth++; depth > maxDepth {
				return refuse(JSONTooDeep, "the body nests too deeply")
			}
		case !quoted && (c == '}' || c == ']'):
			depth--
		case quoted && c == '\\':
			n, ok := escape(body[i:])
			if !ok {
				return refuse(JSONInvalid, "the body holds an unpaired surrogate")
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
		return nil, refuse(JSONInvalid, "the body is not valid JSON")
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for decoder.More() {
			token, err := decoder.Token()
			if err != nil {
				return nil, refuse(JSONInvalid, "the body is not valid JSON")
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

// member returns a required string of an object.
func member(object map[string]any, part, field string) (string, error) {
	v, ok := object[field]
	if !ok {
		return "", refuse(FieldMissing, part+"."+field+" is missing")
	}
	return text(v, part+"."+field)
}

// maxText bounds the bytes of type, id, name, area and grant.
const maxText = 512

func text(v any, at string) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", refuse(FieldType, at+" must be a string")
	}
	if s == "" || len(s) > maxText || hasControl(s) {
		return "", refuse(FieldInvalid, at+" must have 1 to 512 bytes without control characters")
	}
	return s, nil
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}

func object(v any, at string) (map[string]any, error) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil, refuse(FieldType, at+" must be an object")
	}
	return o, nil
}

// properties returns the optional properties of an entity; nil when absent.
func properties(entity map[string]any, part string) (map[string]any, error) {
	v, ok := entity["properties"]
	if !ok {
		return nil, nil
	}
	return object(v, part+".properties")
}

func refuse(code authz.Code, text string) error {
	return &authz.Error{Kind: authz.Refused, Code: code, Text: text}
}
