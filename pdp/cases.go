package pdp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// TestFailure is a policy test that did not come out as expected, or could not
// be run.
type TestFailure struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Name string `json:"name"`
	Text string `json:"text"`
}

func (f TestFailure) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Name, f.Text)
}

// RunTests runs a set's own tests, each file's cases over a graph of that
// file's facts. The error is about a test file that is no test at all.
func RunTests(set *policies.Set) ([]TestFailure, error) {
	var failures []TestFailure
	worlds := map[string]*hierarchy.Graph{}
	for _, c := range set.Cases() {
		g := worlds[c.File]
		if g == nil {
			var err error
			if g, err = testGraph(set, c.Facts); err != nil {
				return nil, fmt.Errorf("%s: %w", c.File, err)
			}
			worlds[c.File] = g
		}
		if text := runCase(set, g, c); text != "" {
			failures = append(failures, TestFailure{c.File, c.Line, c.Name, text})
		}
	}
	return failures, nil
}

// testGraph builds the facts of a test file, with the pack's roles.
func testGraph(set *policies.Set, facts []policies.Fact) (*hierarchy.Graph, error) {
	g := hierarchy.NewGraph()
	var events []hierarchy.Event
	for _, r := range set.Catalogue().Roles {
		events = append(events, roleEvent(r))
	}
	w := world{set: set, graph: g}
	for _, f := range facts {
		e, err := EventOf(f.Kind, f.Value, "UTC")
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", f.Line, err)
		}
		e.Row = f.Line
		if r := check(w, &e); r != nil {
			r.Row = f.Line
			return nil, r
		}
		events = append(events, e)
	}
	// The facts of a test were all learned before anything is asked.
	b := &hierarchy.Batch{Revision: 1, Time: hierarchy.At(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), Events: events, Provenance: hierarchy.Provenance{Who: hierarchy.ID{Type: "Admin", Key: "test"}}}
	if err := g.Check(b); err != nil {
		return nil, err
	}
	body, err := hierarchy.Encode(b)
	if err != nil {
		return nil, err
	}
	return g, g.Apply(hierarchy.Entry{Revision: 1, Body: body})
}

// judgeCase answers the request of a case.
func judgeCase(set *policies.Set, g *hierarchy.Graph, c policies.Case) judgement {
	r := authz.Request{
		Caller:   authz.Caller{Name: c.Caller, Asserts: []string{c.Subject.Type}},
		Subject:  authz.Verified(authz.Subject{Type: c.Subject.Type, ID: c.Subject.ID, Assurance: c.Assurance, Properties: c.Subject.Properties}),
		Action:   authz.Action{Name: c.Action, Properties: c.ActionProperties},
		Resource: authz.Resource{Type: c.Resource.Type, ID: c.Resource.ID, Properties: c.Resource.Properties},
		Context:  c.Context, Area: c.Area, Grant: c.Grant,
	}
	a := convert(&r, set.Catalogue())
	w := world{set: set, graph: g, confers: confers(g, set), rev: g.Head().Revision, now: hierarchy.At(c.At)}
	return w.judge(&a)
}

func runCase(set *policies.Set, g *hierarchy.Graph, c policies.Case) string {
	v := judgeCase(set, g, c).verdict
	switch {
	case v.Effect != c.Expect.Decision:
		return fmt.Sprintf("is %s (%s), expected %s", v.Effect, v.Code, c.Expect.Decision)
	case c.Expect.Code != "" && v.Code != c.Expect.Code:
		return fmt.Sprintf("has code %s, expected %s", v.Code, c.Expect.Code)
	case c.Expect.Policies != nil && !slices.Equal(v.Reasons, c.Expect.Policies):
		return fmt.Sprintf("was decided by %q, expected %q", v.Reasons, c.Expect.Policies)
	}
	if c.Expect.Obligations != nil {
		ids := []string{}
		for _, o := range v.Obligations {
			ids = append(ids, o.ID)
		}
		if !slices.Equal(ids, c.Expect.Obligations) {
			return fmt.Sprintf("has obligations %q, expected %q", ids, c.Expect.Obligations)
		}
	}
	return ""
}

// EventOf turns a fact as people write it, its kind and its fields with "from"
// and "to" (for a link "since" and "until") as a date or an RFC 3339 time, into
// the event that asserts it. A date is read in zone; as the end it includes the
// day. An open side is left out.
func EventOf(kind string, fields map[string]any, zone string) (hierarchy.Event, error) {
	e := hierarchy.Event{Op: hierarchy.Assert, Valid: hierarchy.Always}
	// A link's own ends are called "from" and "to": its valid time is "since" and "until".
	start, end := "from", "to"
	if kind == "link" {
		start, end = "since", "until"
	}
	body := map[string]any{}
	for k, v := range fields {
		if k != start && k != end {
			body[k] = v
			continue
		}
		at, err := instantOf(v, zone, k == end)
		if err != nil {
			return e, fmt.Errorf("%s: %w", k, err)
		}
		if k == end {
			e.Valid.To = at
		} else {
			e.Valid.From = at
		}
	}
	var into any
	switch kind {
	case "node":
		e.Kind, e.Node = hierarchy.KindNode, &hierarchy.Node{}
		into = e.Node
	case "edge":
		e.Kind, e.Edge = hierarchy.KindEdge, &hierarchy.Edge{}
		into = e.Edge
	case "link":
		e.Kind, e.Link = hierarchy.KindLink, &hierarchy.Link{}
		into = e.Link
	case "role":
		e.Kind, e.Role = hierarchy.KindRole, &hierarchy.Role{}
		into = e.Role
	case "assignment":
		e.Kind, e.Assignment = hierarchy.KindAssignment, &hierarchy.Assignment{}
		into = e.Assignment
	case "entitlement":
		e.Kind, e.Entitlement = hierarchy.KindEntitlement, &hierarchy.Entitlement{}
		into = e.Entitlement
	case "grant":
		e.Kind, e.Grant = hierarchy.KindGrant, &hierarchy.Grant{}
		into = e.Grant
	case "block":
		e.Kind, e.Block = hierarchy.KindBlock, &hierarchy.Block{}
		into = e.Block
	case "setting":
		e.Kind, e.Setting = hierarchy.KindSetting, &hierarchy.Setting{}
		into = e.Setting
	case "emergency":
		e.Kind, e.Emergency = hierarchy.KindEmergency, &hierarchy.Emergency{}
		into = e.Emergency
	case "review":
		e.Kind, e.Review = hierarchy.KindReview, &hierarchy.Review{}
		into = e.Review
	case "signature":
		e.Kind, e.Signature = hierarchy.KindSignature, &hierarchy.Signature{}
		into = e.Signature
	default:
		return e, fmt.Errorf("unknown kind of fact %q", kind)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return e, fmt.Errorf("%s: a value has a type that facts do not have", kind)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return e, fmt.Errorf("%s: %w", kind, err)
	}
	if e.Setting != nil {
		if n, ok := e.Setting.Value.(json.Number); ok {
			v, err := n.Int64()
			if err != nil {
				return e, fmt.Errorf("setting: %s is no whole number", e.Setting.Name)
			}
			e.Setting.Value = v
		}
	}
	if e.Node != nil {
		for k, v := range e.Node.Attrs {
			p, _ := plain(v) // just decoded from JSON
			switch v := p.(type) {
			case json.Number:
				n, err := v.Int64()
				if err != nil {
					return e, fmt.Errorf("node: attribute %q is no whole number", k)
				}
				e.Node.Attrs[k] = n
			case []any:
				var list []string
				for _, x := range v {
					s, ok := x.(string)
					if !ok {
						return e, fmt.Errorf("node: attribute %q must be a list of strings", k)
					}
					list = append(list, s)
				}
				e.Node.Attrs[k] = list
			}
		}
	}
	return e, nil
}

// instantOf reads a date or a time.
func instantOf(v any, zone string, inclusive bool) (hierarchy.Instant, error) {
	if t, ok := v.(time.Time); ok {
		return hierarchy.At(t), nil
	}
	s, ok := v.(string)
	if !ok {
		return 0, fmt.Errorf("want a date (YYYY-MM-DD) or an RFC 3339 time")
	}
	return ParseTime(s, zone, inclusive)
}

// ParseTime reads an RFC 3339 time, or a date in a zone: its first instant, or
// with inclusive the first instant after it.
func ParseTime(s, zone string, inclusive bool) (hierarchy.Instant, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return hierarchy.At(t), nil
	}
	if zone == "" {
		zone = "UTC"
	}
	loc, err := hierarchy.Zone(zone)
	if err != nil {
		return 0, err
	}
	first, after, err := hierarchy.ParseDate(s, loc)
	if err != nil {
		return 0, fmt.Errorf("want a date (YYYY-MM-DD) or an RFC 3339 time")
	}
	if inclusive {
		return after, nil
	}
	return first, nil
}
