package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
)

// maxDepth bounds objects and arrays within one another.
const maxDepth = 32

// decode reads exactly one JSON object of at most limit bytes. Its errors are
// fixed sentences: what was sent may name a person.
func decode(r io.Reader, limit int64, into any) error {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return bad("the body broke off")
	}
	if int64(len(body)) > limit {
		return &Error{Status: http.StatusRequestEntityTooLarge, Code: string(authz.TooLarge), Message: "the body is too large"}
	}
	if !utf8.Valid(body) {
		return bad("the body is not valid UTF-8")
	}
	if err := keysOnce(body); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return bad("the body has an unknown field or a value of the wrong type")
	}
	if _, err := d.Token(); err != io.EOF {
		return bad("the body must be one JSON object")
	}
	return nil
}

// keysOnce refuses what is no JSON object, nests too deeply, or names a key twice.
func keysOnce(body []byte) error {
	if !json.Valid(body) {
		return bad("the body is not valid JSON")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	type level struct {
		keys map[string]bool // nil in an array
		key  bool            // a key comes next
	}
	var stack []level
	for {
		t, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return bad("the body is not valid JSON")
		}
		if len(stack) == 0 && t != json.Delim('{') {
			return bad("the body must be one JSON object")
		}
		top := len(stack) - 1
		if top >= 0 && stack[top].keys != nil && t != json.Delim('}') {
			if stack[top].key {
				k, _ := t.(string)
				if stack[top].keys[k] {
					return bad("the body names a key twice")
				}
				stack[top].keys[k], stack[top].key = true, false
				continue
			}
			stack[top].key = true
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if len(stack) == maxDepth {
				return bad("the body nests too deeply")
			}
			l := level{}
			if t == json.Delim('{') {
				l = level{map[string]bool{}, true}
			}
			stack = append(stack, l)
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
		}
	}
}

// Time is a moment on the wire, in RFC 3339 with milliseconds, UTC.
type Time time.Time

// TimeOf returns the wire form of an instant; the open sides of an interval
// are the zero Time, which is left out.
func TimeOf(i hierarchy.Instant) Time {
	if i == hierarchy.Never || i == hierarchy.Forever {
		return Time{}
	}
	return Time(i.Time())
}

// IsZero reports whether t is absent.
func (t Time) IsZero() bool { return time.Time(t).IsZero() }

// String returns RFC 3339, or "" when absent.
func (t Time) String() string {
	if t.IsZero() {
		return ""
	}
	return hierarchy.At(time.Time(t)).String()
}

// MarshalText writes RFC 3339.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads RFC 3339.
func (t *Time) UnmarshalText(b []byte) error {
	v, err := time.Parse(time.RFC3339Nano, string(b))
	*t = Time(v)
	return err
}

// Interval is a half-open time; an open side is left out.
type Interval struct {
	From Time `json:"from,omitzero"`
	To   Time `json:"to,omitzero"`
}

func intervalOf(v hierarchy.Interval) Interval { return Interval{TimeOf(v.From), TimeOf(v.To)} }
