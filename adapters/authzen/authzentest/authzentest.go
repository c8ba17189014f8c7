// Package authzentest is the certification suite for AuthZEN Authorization API
// 1.0 servers: the Basic, Batch and Discovery entries of the OpenID working
// group's scenario, under the ids that the scenario gives them.
//
//	func TestCertification(t *testing.T) {
//		authzentest.Certify(t, "https://pdp.example.com", client)
//	}
//
// The server must hold the fixture. Subjects are the users alice and bob,
// resources the records record-1 (active) and record-2 (archived), and these
// eight decisions are looked at:
//
//	1  alice  read    record-1                               allow
//	2  alice  write   record-1                               allow
//	3  bob    read    record-1                               allow
//	4  bob    write   record-1                               deny
//	5  alice  write   a record sent with status archived     deny
//	6  a user sent with role admin writes such a record      allow
//	7  alice  delete  record-1, action sent with soft true   allow
//	8  alice  delete  record-1, action sent with soft false  deny
//
// The suite follows the endpoints that the metadata names and falls back to the
// default paths when there is no metadata, which then fails Discovery alone.
package authzentest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Result is what became of one entry of the scenario.
type Result struct {
	// Level is the certification level: "Basic Core", "Basic Properties",
	// "Batch Core", "Batch Properties", "Transport" or "Discovery".
	Level string
	// ID is the scenario's id, for example "c-2-2-1". An entry with several
	// requests has several results, told apart by Rule.
	ID string
	// Rule says what the entry demands.
	Rule string
	// Err says how the server broke the rule; nil when it kept it.
	Err error
}

// Certify runs every entry as a subtest against the server at base, an https
// URL without a trailing slash.
func Certify(t *testing.T, base string, client *http.Client) {
	t.Helper()
	for _, r := range Check(base, client) {
		name := r.Level + "/" + r.ID + "/" + r.Rule
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			if r.Err != nil {
				t.Errorf("AuthZEN %s (%s): %s: %v", r.ID, r.Level, r.Rule, r.Err)
			}
		})
	}
}

// Check runs every entry against the server at base and returns the results in
// the scenario's order.
func Check(base string, client *http.Client) []Result {
	s := &server{
		base:        base,
		client:      client,
		evaluation:  base + "/access/v1/evaluation",
		evaluations: base + "/access/v1/evaluations",
	}
	discovered := s.discover()
	var results []Result
	for _, e := range entries {
		results = append(results, Result{e.level, e.id, e.rule, e.check(s)})
	}
	results = append(results, Result{"Transport", "c-5-1", "is asked over HTTPS", secure(s.evaluation, s.evaluations)})
	return append(results, discovered...)
}

const (
	basicCore       = "Basic Core"
	basicProperties = "Basic Properties"
	batchCore       = "Batch Core"
	batchProperties = "Batch Properties"
	transport       = "Transport"
	discovery       = "Discovery"
)

type entry struct {
	level, id, rule string
	check           func(*server) error
}

// Building blocks of the requests.
const (
	alice      = `{"type":"user","id":"alice"}`
	bob        = `{"type":"user","id":"bob"}`
	admin      = `{"type":"user","id":"bob","properties":{"role":"admin"}}`
	read       = `{"name":"read"}`
	write      = `{"name":"write"}`
	softDelete = `{"name":"delete","properties":{"soft":true}}`
	hardDelete = `{"name":"delete","properties":{"soft":false}}`
	record1    = `{"type":"record","id":"record-1"}`
	record2    = `{"type":"record","id":"record-2"}`
	active     = `{"type":"record","id":"record-1","properties":{"status":"active"}}`
	archived   = `{"type":"record","id":"record-2","properties":{"status":"archived"}}`
)

// ask is the body of one question; more holds further members.
func ask(subject, action, resource string, more ...string) string {
	members := []string{`"subject":` + subject, `"action":` + action, `"resource":` + resource}
	return "{" + strings.Join(append(members, more...), ",") + "}"
}

const instantContext = `"context":{"time":"2025-06-27T18:03-07:00","ip":"192.168.1.1"}`

var entries = slices.Concat(
	[]entry{
		{basicCore, "c-2-2-1", "rule 1 permits", decides(ask(alice, read, record1), true)},
		{basicCore, "c-2-2-1", "rule 2 permits", decides(ask(alice, write, record1), true)},
		{basicCore, "c-2-2-1", "rule 3 permits", decides(ask(bob, read, record1), true)},
		{basicCore, "c-2-2-2", "rule 4 denies", decides(ask(bob, write, record1), false)},
		{basicCore, "c-2-2-3", "a context changes no fixture decision", decides(ask(alice, read, record1, instantContext), true)},
		{basicProperties, "c-2-2-4", "rule 5 denies by a resource property", decides(ask(alice, write, archived), false)},
		{basicProperties, "c-2-2-5", "rule 6 permits by a subject property", decides(ask(admin, write, archived), true)},
		{basicProperties, "c-2-2-6", "rule 7 permits by an action property", decides(ask(alice, softDelete, record1), true)},
		{basicProperties, "c-2-2-7", "rule 8 denies by an action property", decides(ask(alice, hardDelete, record1), false)},
		{basicCore, "c-2-2-8", "further properties are accepted", decides(ask(
			`{"type":"user","id":"alice","properties":{"department":"Sales","role":"manager"}}`,
			`{"name":"read","properties":{"method":"GET"}}`,
			`{"type":"record","id":"record-1","properties":{"status":"active","owner":"bob"}}`), true)},
		{basicCore, "c-2-2-9", "unknown fields are ignored", decides(ask(alice, read, record1,
			`"foo":"bar"`, `"futureField":{"nested":true}`), true)},
		{basicCore, "c-2-3-1", "decision is a boolean", decides(ask(alice, read, record2), undecided)},
		{basicCore, "c-2-3-2", "a context is an object", contextIsObject},
	},
	refusals(basicCore, "c-2-4", func(s *server) string { return s.evaluation }),
	[]entry{
		{basicCore, "c-2-5-1", "X-Request-ID is echoed", func(s *server) error { return echoes(s, s.evaluation) }},
		{basicCore, "c-2-5-2", "X-Request-ID is not required", decides(ask(alice, read, record1), true)},
		{basicCore, "c-2-6", "repeats give the same decision", repeats},

		{batchCore, "c-3-2-1", "items are answered", decidesAll(
			`{"subject":`+alice+`,"action":`+read+`,"evaluations":[{"resource":`+record1+`},{"resource":`+record2+`}]}`,
			undecided, undecided)},
		{batchCore, "c-3-2-2", "items get their own decisions in order", decidesAll(
			`{"subject":`+bob+`,"resource":`+record1+`,"evaluations":[{"action":`+read+`},{"action":`+write+`}]}`,
			true, false)},
		{batchProperties, "c-3-2-3", "resource properties count per item", decidesAll(
			`{"subject":`+alice+`,"action":`+write+`,"evaluations":[{"resource":`+active+`},{"resource":`+archived+`}]}`,
			true, false)},
		{batchProperties, "c-3-2-4", "subject properties count per item", decidesAll(
			`{"action":`+write+`,"resource":`+archived+`,"evaluations":[{"subject":`+alice+`},{"subject":`+admin+`}]}`,
			false, true)},
		{batchCore, "c-3-2-5", "items need no defaults", decidesAll(
			`{"evaluations":[`+ask(alice, read, record1)+`,`+ask(bob, write, record1)+`]}`,
			true, false)},
		{batchCore, "c-3-2-6", "a context is inherited or replaced", decidesAll(
			`{"subject":`+alice+`,"action":`+read+`,"context":{"time":"2025-06-27T18:03-07:00"},"evaluations":[`+
				`{"resource":`+record1+`},`+
				`{"resource":`+record2+`,"context":{"time":"2025-06-27T19:00-07:00","source":"batch-override"}}]}`,
			undecided, undecided)},
		{batchProperties, "c-3-2-7", "an empty item inherits everything, a part is replaced whole", decidesAll(
			`{"subject":`+alice+`,"action":`+write+`,"resource":`+active+`,"evaluations":[{},{"resource":`+archived+`}]}`,
			true, false)},
		{batchCore, "c-3-3-1", "the answer has one element per item", decidesAll(
			`{"subject":`+alice+`,"action":`+read+`,"resource":`+record1+`,"evaluations":[{},{},{},{},{}]}`,
			true, true, true, true, true)},
		{batchCore, "c-3-3-2", "the answer keeps the order", decidesAll(
			`{"resource":`+record1+`,"action":`+write+`,"evaluations":[`+
				`{"subject":`+bob+`},{"subject":`+alice+`},{"subject":`+bob+`},{"subject":`+bob+`},{"subject":`+alice+`}]}`,
			false, true, false, false, true)},
		{batchCore, "c-3-3-3", "every element has a boolean decision", decidesAll(
			`{"subject":`+bob+`,"evaluations":[{"action":`+read+`,"resource":`+record2+`},{"action":`+softDelete+`,"resource":`+record1+`}]}`,
			undecided, undecided)},
		{batchCore, "c-3-3-4", "no top-level decision beside evaluations", noTopLevelDecision},
		{batchCore, "c-3-4-1", "a failed item is a deny among the others", decidesAll(
			`{"subject":`+alice+`,"action":`+read+`,"options":{"evaluations_semantic":"execute_all"},"evaluations":[{"resource":`+record1+`},{}]}`,
			true, false)},
		{batchCore, "c-3-4-2", "without evaluations it is one question", decidesOn(
			func(s *server) string { return s.evaluations }, ask(alice, read, record1), true)},
		{batchCore, "c-3-4-3", "with empty evaluations it is one question", decidesOn(
			func(s *server) string { return s.evaluations }, ask(alice, read, record1, `"evaluations":[]`), true)},
	},
	// Error, header and repeat rules apply to every level.
	refusals(batchCore, "c-2-4", func(s *server) string { return s.evaluations }),
	[]entry{
		{batchCore, "c-2-5-1", "X-Request-ID is echoed", func(s *server) error { return echoes(s, s.evaluations) }},

		{transport, "c-5-1", "Content-Type application/json is accepted", decides(ask(alice, read, record1), true)},
		{transport, "c-5-2", "success is 200 and application/json", decides(ask(bob, write, record1), false)},
		{transport, "c-5-3", "a missing field is 400", refuses(
			func(s *server) string { return s.evaluation }, `{}`, "application/json")},
		{transport, "c-5-4", "X-Request-ID is echoed on errors too", echoesOnError},
		{transport, "c-5-5", "unknown fields are ignored in a batch", decidesAll(
			`{"subject":`+alice+`,"action":`+read+`,"foo":[1],"evaluations":[{"resource":`+record1+`,"bar":null}]}`, true)},
	},
)

// refusals are the entries about errors, for one endpoint.
func refusals(level, id string, endpoint func(*server) string) []entry {
	const jsonType = "application/json"
	e := func(n, rule, body, contentType string) entry {
		return entry{level, id + "-" + n, rule, refuses(endpoint, body, contentType)}
	}
	good := ask(alice, read, record1)
	return []entry{
		e("1", "subject is required", `{"action":`+read+`,"resource":`+record1+`}`, jsonType),
		e("1", "action is required", `{"subject":`+alice+`,"resource":`+record1+`}`, jsonType),
		e("1", "resource is required", `{"subject":`+alice+`,"action":`+read+`}`, jsonType),
		e("2", "subject.type is required", ask(`{"id":"alice"}`, read, record1), jsonType),
		e("2", "subject.id is required", ask(`{"type":"user"}`, read, record1), jsonType),
		e("2", "action.name is required", ask(alice, `{}`, record1), jsonType),
		e("2", "resource.type is required", ask(alice, read, `{"id":"record-1"}`), jsonType),
		e("2", "resource.id is required", ask(alice, read, `{"type":"record"}`), jsonType),
		e("3", "another content type is 400", good, "text/plain"),
		e("3", "a form is 400", good, "application/x-www-form-urlencoded"),
		e("4", "malformed JSON is 400", good[:len(good)-1], jsonType),
		e("5", "an empty body is 400", "", jsonType),
		e("6", "subject must be an object", ask(`"alice"`, read, record1), jsonType),
		e("6", "action.name must be a string", ask(alice, `{"name":123}`, record1), jsonType),
	}
}

// undecided stands for a decision that the fixture leaves open.
const undecided = "undecided"

func decides(body string, want any) func(*server) error {
	return decidesOn(func(s *server) string { return s.evaluation }, body, want)
}

func decidesOn(endpoint func(*server) string, body string, want any) func(*server) error {
	return func(s *server) error {
		answer, err := s.ok(endpoint(s), body)
		if err != nil {
			return err
		}
		return isDecision(answer, want)
	}
}

func decidesAll(body string, want ...any) func(*server) error {
	return func(s *server) error {
		answer, err := s.ok(s.evaluations, body)
		if err != nil {
			return err
		}
		items, ok := answer["evaluations"].([]any)
		if !ok {
			return errors.New("evaluations is not an array")
		}
		if len(items) != len(want) {
			return fmt.Errorf("evaluations has %d elements, want %d", len(items), len(want))
		}
		for i, item := range items {
			object, ok := item.(map[string]any)
			if !ok {
				return fmt.Errorf("element %d is not an object", i)
			}
			if err := isDecision(object, want[i]); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
		return nil
	}
}

// isDecision checks the form of an answer, and its decision against want
// unless that is undecided.
func isDecision(answer map[string]any, want any) error {
	got, ok := answer["decision"].(bool)
	if !ok {
		return errors.New("decision is not a boolean")
	}
	if want != undecided && got != want {
		return fmt.Errorf("decision is %v, want %v", got, want)
	}
	if v, ok := answer["context"]; ok {
		if _, ok := v.(map[string]any); !ok {
			return errors.New("context is not an object")
		}
	}
	return nil
}

func contextIsObject(s *server) error {
	return errors.Join(
		decides(ask(alice, read, record1), true)(s),
		decides(ask(bob, write, record1), false)(s),
	)
}

func noTopLevelDecision(s *server) error {
	answer, err := s.ok(s.evaluations, `{"subject":`+alice+`,"action":`+read+`,"evaluations":[{"resource":`+record1+`}]}`)
	if err != nil {
		return err
	}
	if _, ok := answer["decision"]; ok {
		return errors.New("the answer has a top-level decision")
	}
	return nil
}

func refuses(endpoint func(*server) string, body, contentType string) func(*server) error {
	return func(s *server) error {
		response, raw, err := s.post(endpoint(s), body, contentType, "")
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusBadRequest {
			return fmt.Errorf("status %d, want 400", response.StatusCode)
		}
		var answer map[string]any
		if json.Unmarshal(raw, &answer) == nil && (answer["decision"] != nil || answer["evaluations"] != nil) {
			return errors.New("an error carries a decision")
		}
		return nil
	}
}

const requestID = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"

func echoes(s *server, endpoint string) error {
	response, _, err := s.post(endpoint, ask(alice, read, record1), "application/json", requestID)
	if err != nil {
		return err
	}
	if got := response.Header.Get("X-Request-ID"); got != requestID {
		return errors.New("X-Request-ID is not echoed")
	}
	return nil
}

func echoesOnError(s *server) error {
	response, _, err := s.post(s.evaluation, `{}`, "application/json", requestID)
	if err != nil {
		return err
	}
	if got := response.Header.Get("X-Request-ID"); got != requestID {
		return errors.New("X-Request-ID is not echoed")
	}
	return nil
}

func repeats(s *server) error {
	for range 5 {
		err := errors.Join(
			decides(ask(alice, read, record1), true)(s),
			decides(ask(bob, write, record1), false)(s),
			decides(ask(alice, hardDelete, record1), false)(s),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// server is the server under test.
type server struct {
	base                    string
	client                  *http.Client
	evaluation, evaluations string // URLs
}

// discover runs the Discovery entries and takes over the endpoints found.
func (s *server) discover() []Result {
	var results []Result
	add := func(id, rule string, err error) { results = append(results, Result{discovery, id, rule, err}) }

	u, err := url.Parse(s.base)
	if err != nil {
		add("c-6-1", "the base is a URL", err)
		return results
	}
	u.Path = "/.well-known/authzen-configuration" + u.Path
	response, raw, err := s.get(u.String())
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d, want 200", response.StatusCode)
	}
	add("c-6-1", "the metadata is at the well-known path", err)
	add("c-6-6", "the metadata is available", err)
	if err != nil {
		return results
	}
	add("c-6-2", "the metadata is application/json", isJSON(response))
	var metadata map[string]any
	if err := json.Unmarshal(raw, &metadata); err != nil {
		add("c-6-2", "the metadata is a JSON object", err)
		return results
	}

	var wrong error
	if metadata["policy_decision_point"] != s.base {
		wrong = errors.New("policy_decision_point is not the base URL")
	}
	add("c-6-3", "policy_decision_point is the base URL", errors.Join(wrong, secure(s.base)))
	evaluation, _ := metadata["access_evaluation_endpoint"].(string)
	if err := secure(evaluation); err != nil {
		add("c-6-3", "access_evaluation_endpoint is an https URL", err)
	} else {
		add("c-6-3", "access_evaluation_endpoint is an https URL", nil)
		s.evaluation = evaluation
	}

	var optional []error
	for _, key := range []string{"access_evaluations_endpoint", "search_subject_endpoint", "search_resource_endpoint", "search_action_endpoint"} {
		if v, ok := metadata[key]; ok {
			endpoint, _ := v.(string)
			if err := secure(endpoint); err != nil {
				optional = append(optional, fmt.Errorf("%s: %w", key, err))
			} else if key == "access_evaluations_endpoint" {
				s.evaluations = endpoint
			}
		}
	}
	if v, ok := metadata["capabilities"]; ok {
		list, ok := v.([]any)
		for _, v := range list {
			_, isString := v.(string)
			ok = ok && isString
		}
		if !ok {
			optional = append(optional, errors.New("capabilities is not an array of strings"))
		}
	}
	if _, ok := metadata["signed_metadata"]; ok {
		optional = append(optional, errors.New("signed_metadata is present; this suite cannot verify it"))
	}
	add("c-6-4", "optional members are well-formed", errors.Join(optional...))
	add("c-6-5", "the endpoint named by the metadata answers", decides(ask(alice, read, record1), true)(s))
	return results
}

// secure checks that each URL is https, without query and fragment.
func secure(urls ...string) error {
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Host == "" || strings.ContainsAny(s, "?#") {
			return errors.New("not an https URL without query and fragment")
		}
	}
	return nil
}

func isJSON(r *http.Response) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return errors.New("Content-Type is not application/json")
	}
	return nil
}

// ok posts a body that must be answered with 200 and a JSON object.
func (s *server) ok(endpoint, body string) (map[string]any, error) {
	response, raw, err := s.post(endpoint, body, "application/json", "")
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d, want 200: %s", response.StatusCode, bytes.TrimSpace(raw))
	}
	if err := isJSON(response); err != nil {
		return nil, err
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, errors.New("the answer is not a JSON object")
	}
	return answer, nil
}

func (s *server) post(endpoint, body, contentType, id string) (*http.Response, []byte, error) {
	request, err := http.NewRequest("POST", endpoint, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Content-Type", contentType)
	if id != "" {
		request.Header.Set("X-Request-ID", id)
	}
	return s.do(request)
}

func (s *server) get(endpoint string) (*http.Response, []byte, error) {
	request, err := http.NewRequest("GET", endpoint, nil)
	if err != nil {
		return nil, nil, err
	}
	return s.do(request)
}

// maxAnswer bounds what a server under test may send.
const maxAnswer = 1 << 20

func (s *server) do(request *http.Request) (*http.Response, []byte, error) {
	response, err := s.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response, raw, err
}
