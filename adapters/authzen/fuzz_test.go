package authzen

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ward-authz/ward/pdp/authz"
)

// FuzzBody sends any body to both endpoints. Nothing panics, nothing but 200
// and 400 comes back, and what the decider is asked is what another reader of
// JSON, encoding/json into maps, finds in the body.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		aliceReads,
		strings.TrimSuffix(aliceReads, "}") + `,"context":{"a":1.5e3,"ward":{"area":"Tenant:acme","grant":"none"}},"evaluations":[]}`,
		strings.TrimSuffix(aliceReads, "}") + `,"evaluations":[{},{"subject":{"type":"user","id":"bob","properties":{"role":"admin"}}},{"action":1}]}`,
		`{"options":{"evaluations_semantic":"deny_on_first_deny"},"evaluations":[` + aliceReads + `]}`,
		`{"Subject":{},"subject":{"type":"user","type":"user"}}`,
		`{"subject":{"type":"user","id":"\ud83d\ude00\ud800"}}`,
		strings.Repeat(`[`, 40), `{"a":"\\\"[[["}`, "\ufeff{}", "",
	} {
		f.Add([]byte(seed))
	}
	decider := &fakeDecider{}
	h := newDoor(f, decider)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{evaluationPath, evaluationsPath} {
			w := post(h, path, string(body))
			asked := decider.take()
			a := decode(t, w)
			if w.Code == 400 {
				if asked != nil {
					t.Fatalf("refused after asking %+v", asked)
				}
				continue
			}
			if w.Code != 200 {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			other, ok := otherReader(body)
			if !ok {
				t.Fatalf("answered a body that is not strict: %q", body)
			}
			if a.Decision != nil {
				if len(asked) != 1 || !matches(asked[0], other, nil) {
					t.Fatalf("asked %+v for %q", asked, body)
				}
				continue
			}
			items, _ := other["evaluations"].([]any)
			if path != evaluationsPath || len(a.Evaluations) != len(asked) || len(asked) > len(items) {
				t.Fatalf("%d answers for %d questions about %d items", len(a.Evaluations), len(asked), len(items))
			}
			for i, req := range asked {
				if *a.Evaluations[i].Decision && req.Refusal != "" {
					t.Fatal("an unreadable item is allowed")
				}
				if req.Refusal == "" && !matches(req, other, items[i].(map[string]any)) {
					t.Fatalf("item %d: asked %+v for %q", i, req, body)
				}
			}
		}
	})
}

// otherReader reads a body with encoding/json and reports whether it is an
// object in valid UTF-8 without duplicate keys.
func otherReader(body []byte) (map[string]any, bool) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var object map[string]any
	if !utf8.Valid(body) || decoder.Decode(&object) != nil || object == nil || decoder.More() {
		return nil, false
	}
	// As many keys in the text as in the maps: no duplicates.
	keys := 0
	tokens := json.NewDecoder(bytes.NewReader(body))
	var levels []int // per open level: -1 in an array, else tokens seen
	for {
		token, err := tokens.Token()
		if err != nil {
			break
		}
		if n := len(levels) - 1; n >= 0 && levels[n] >= 0 && token != json.Delim('}') && token != json.Delim(']') {
			if levels[n]%2 == 0 {
				keys++
			}
			levels[n]++
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, 0)
		case json.Delim('['):
			levels = append(levels, -1)
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		}
	}
	return object, keys == countKeys(object)
}

func countKeys(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for _, v := range v {
			n += 1 + countKeys(v)
		}
	case []any:
		for _, v := range v {
			n += countKeys(v)
		}
	}
	return n
}

// matches compares a question with the item, or with the defaults where the
// item is silent.
func matches(req authz.Request, defaults, item map[string]any) bool {
	part := func(name string) map[string]any {
		v, ok := item[name]
		if !ok {
			v = defaults[name]
		}
		object, _ := v.(map[string]any)
		return object
	}
	properties := func(part map[string]any) map[string]any {
		p, _ := part["properties"].(map[string]any)
		return p
	}
	subject, action, resource, context := part("subject"), part("action"), part("resource"), part("context")
	for _, pair := range [][2]any{
		{req.Subject.Type, subject["type"]}, {req.Subject.ID, subject["id"]},
		{req.Action.Name, action["name"]},
		{req.Resource.Type, resource["type"]}, {req.Resource.ID, resource["id"]},
		{req.Subject.Properties, properties(subject)},
		{req.Action.Properties, properties(action)},
		{req.Resource.Properties, properties(resource)},
	} {
		if pair[0] == "" || !reflect.DeepEqual(pair[0], pair[1]) {
			return false
		}
	}
	ward, _ := context["ward"].(map[string]any)
	for _, pair := range [][2]any{{req.Area, ward["area"]}, {req.Grant, ward["grant"]}} {
		if pair[0] == "" != (pair[1] == nil) || pair[1] != nil && pair[0] != pair[1] {
			return false
		}
	}
	rest := maps.Clone(context)
	delete(rest, "ward")
	return len(req.Context) == len(rest) && (len(rest) == 0 || reflect.DeepEqual(req.Context, rest))
}
