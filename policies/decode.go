package policies

import (
	"bytes"
	"encoding/json"
	"errors"
)

var errNotEncoded = errors.New("not the canonical encoding of a question")

// Decode reverses [Encode], up to the order of what has none. It takes nothing
// but what Encode writes of values that are all of the kinds of [Value].
func Decode(b []byte) (*Question, error) {
	var in struct {
		Action    string                     `json:"action"`
		Context   map[string]json.RawMessage `json:"context"`
		Others    []encodedEntity            `json:"others"`
		Principal encodedEntity              `json:"principal"`
		Resource  encodedEntity              `json:"resource"`
	}
	if json.Unmarshal(b, &in) != nil {
		return nil, errNotEncoded
	}
	d := decoder{ok: true}
	q := &Question{Action: in.Action, Context: d.fields(in.Context), Principal: d.entity(in.Principal), Resource: d.entity(in.Resource)}
	for _, e := range in.Others {
		q.Others = append(q.Others, d.entity(e))
	}
	// What reads otherwise than it was written is not what Encode wrote.
	if !d.ok || !bytes.Equal(Encode(q), b) {
		return nil, errNotEncoded
	}
	return q, nil
}

type encodedEntity struct {
	Attrs   map[string]json.RawMessage `json:"attrs"`
	Parents [][]string                 `json:"parents"`
	Ref     []string                   `json:"ref"`
	Tags    map[string][][]string      `json:"tags"`
}

// decoder turns the encoding back into values; ok is false once something is
// no value.
type decoder struct{ ok bool }

func (d *decoder) entity(e encodedEntity) Entity {
	out := Entity{Ref: d.ref(e.Ref), Attrs: d.fields(e.Attrs), Parents: d.refs(e.Parents)}
	if len(e.Tags) > 0 {
		out.Tags = make(map[string][]Ref, len(e.Tags))
		for name, refs := range e.Tags {
			out.Tags[name] = d.refs(refs)
		}
	}
	return out
}

func (d *decoder) ref(r []string) Ref {
	if len(r) != 2 {
		d.ok = false
		return Ref{}
	}
	return Ref{Type: r[0], ID: r[1]}
}

func (d *decoder) refs(list [][]string) []Ref {
	var out []Ref
	for _, r := range list {
		out = append(out, d.ref(r))
	}
	return out
}

func (d *decoder) fields(m map[string]json.RawMessage) map[string]Value {
	out := make(map[string]Value, len(m))
	for name, raw := range m {
		out[name] = d.value(raw)
	}
	return out
}

func (d *decoder) value(raw json.RawMessage) Value {
	switch raw[0] {
	case '"':
		return read[string](d, raw)
	case 't', 'f':
		return read[bool](d, raw)
	case '{':
		for kind, inner := range read[map[string]json.RawMessage](d, raw) { // there is one
			switch kind {
			case "ref":
				return d.ref(read[[]string](d, inner))
			case "datetime":
				return read[Datetime](d, inner)
			case "ip":
				return read[IPAddr](d, inner)
			case "set":
				set := []Value{}
				for _, item := range read[[]json.RawMessage](d, inner) {
					set = append(set, d.value(item))
				}
				return set
			case "record":
				return d.fields(read[map[string]json.RawMessage](d, inner))
			}
		}
		d.ok = false
		return nil
	}
	return read[int64](d, raw)
}

func read[T any](d *decoder, raw json.RawMessage) (v T) {
	if json.Unmarshal(raw, &v) != nil {
		d.ok = false
	}
	return v
}
