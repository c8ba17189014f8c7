package policies

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Encode returns the canonical JSON of a question: the bytes that a record
// commits to. Keys are sorted, and so are sets, parents, scopes and others,
// whatever their order in q; repeated elements count once. Two questions that
// a Set could answer differently have different encodings, for every value
// carries its type:
//
//	Bool true · Long 5 · String "x" · entity {"ref":["PBM::User","dana"]}
//	{"datetime":1767225600000} · {"ip":"10.0.0.0/8"} · {"set":[…]} · {"record":{…}}
func Encode(q *Question) []byte {
	b := make([]byte, 0, 512)
	b = append(b, `{"action":`...)
	b = appendString(b, q.Action)
	b = append(b, `,"context":`...)
	b = appendFields(b, q.Context)
	if len(q.Others) > 0 {
		others := make([][]byte, len(q.Others))
		for i := range q.Others {
			others[i] = appendEntity(nil, &q.Others[i])
		}
		b = append(b, `,"others":`...)
		b = appendSorted(b, others)
	}
	b = append(b, `,"principal":`...)
	b = appendEntity(b, &q.Principal)
	b = append(b, `,"resource":`...)
	b = appendEntity(b, &q.Resource)
	return append(b, '}')
}

func appendEntity(b []byte, e *Entity) []byte {
	b = append(b, '{')
	if len(e.Attrs) > 0 {
		b = append(b, `"attrs":`...)
		b = append(appendFields(b, e.Attrs), ',')
	}
	if len(e.Parents) > 0 {
		b = append(b, `"parents":`...)
		b = append(appendRefs(b, e.Parents), ',')
	}
	b = append(b, `"ref":`...)
	b = appendRef(b, e.Ref)
	if len(e.Tags) > 0 {
		b = append(b, `,"tags":{`...)
		for i, name := range sortedKeys(e.Tags) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, name)
			b = append(b, ':')
			b = appendRefs(b, e.Tags[name])
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendRef(b []byte, r Ref) []byte {
	b = append(b, '[')
	b = appendString(b, r.Type)
	b = append(b, ',')
	b = appendString(b, r.ID)
	return append(b, ']')
}

func appendRefs(b []byte, refs []Ref) []byte {
	encoded := make([][]byte, len(refs))
	for i, r := range refs {
		encoded[i] = appendRef(nil, r)
	}
	return appendSorted(b, encoded)
}

func appendSorted(b []byte, items [][]byte) []byte {
	slices.SortFunc(items, bytes.Compare)
	items = slices.CompactFunc(items, bytes.Equal)
	b = append(b, '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, item...)
	}
	return append(b, ']')
}

func appendFields(b []byte, fields map[string]Value) []byte {
	b = append(b, '{')
	for i, name := range sortedKeys(fields) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		b = appendValue(b, fields[name])
	}
	return append(b, '}')
}

func appendValue(b []byte, v Value) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case string:
		return appendString(b, v)
	case Ref:
		b = append(b, `{"ref":`...)
		return append(appendRef(b, v), '}')
	case Datetime:
		b = append(b, `{"datetime":`...)
		return append(strconv.AppendInt(b, int64(v), 10), '}')
	case IPAddr:
		b = append(b, `{"ip":`...)
		return append(appendString(b, string(v)), '}')
	case []Value:
		items := make([][]byte, len(v))
		for i, item := range v {
			items[i] = appendValue(nil, item)
		}
		b = append(b, `{"set":`...)
		return append(appendSorted(b, items), '}')
	case map[string]Value:
		b = append(b, `{"record":`...)
		return append(appendFields(b, v), '}')
	}
	// Not a Value; Evaluate denies such a question.
	b = append(b, `{"invalid":`...)
	return append(appendString(b, fmt.Sprintf("%T", v)), '}')
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string. What must be escaped is escaped in one
// way; a byte that is not UTF-8 becomes a lone low surrogate (\udc80 to \udcff),
// so that different strings never have one form.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c == '\n':
				b = append(b, '\\', 'n')
			case c == '\t':
				b = append(b, '\\', 't')
			case c == '\r':
				b = append(b, '\\', 'r')
			case c < 0x20 || c == 0x7f:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, '\\', 'u', 'd', 'c', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return append(b, '"')
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
