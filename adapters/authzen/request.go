package authzen

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/ward-authz/ward/adapters/jsonbody"
	"github.com/ward-authz/ward/pdp/authz"
)

// receive authenticates the caller, then reads the body.
func (d *door) receive(out *reply, r *http.Request) (authz.Caller, map[string]any, error) {
	caller, ok := d.caller(r)
	if !ok {
		return authz.Caller{}, nil, refuse(CallerUnknown, "the caller is not registered here")
	}
	body, err := jsonbody.Read(out.w, r, d.maxBody, d.maxDepth)
	return caller, body, err
}

// The parts of a question: what a batch may give once for all its items.
var parts = []struct {
	name     string
	required bool
	read     func(*authz.Request, any) error
}{
	{"subject", true, readSubject},
	{"action", true, readAction},
	{"resource", true, readResource},
	{"context", false, readContext},
}

// question reads one complete question. On an error the returned Request holds
// the parts that could be read, for the record.
func question(body map[string]any, caller authz.Caller, id string) (authz.Request, error) {
	req := authz.Request{ID: id, Caller: caller}
	var first error
	for _, p := range parts {
		var err error
		if v, ok := body[p.name]; ok {
			err = p.read(&req, v)
		} else if p.required {
			err = refuse(FieldMissing, p.name+" is missing")
		}
		if first == nil {
			first = err
		}
	}
	// A subject the caller may not assert stays unverified, is recorded and
	// denied.
	if verified, err := caller.Assert(req.Subject); err == nil {
		req.Subject = verified
	}
	return req, first
}

func readSubject(req *authz.Request, v any) error {
	kind, id, properties, err := entity(v, "subject")
	if err == nil {
		req.Subject = authz.Subject{Type: kind, ID: id, Properties: properties}
	}
	return err
}

func readResource(req *authz.Request, v any) error {
	kind, id, properties, err := entity(v, "resource")
	if err == nil {
		req.Resource = authz.Resource{Type: kind, ID: id, Properties: properties}
	}
	return err
}

func readAction(req *authz.Request, v any) error {
	o, err := object(v, "action")
	if err != nil {
		return err
	}
	name, err := member(o, "action", "name")
	if err != nil {
		return err
	}
	p, err := properties(o, "action")
	if err == nil {
		req.Action = authz.Action{Name: name, Properties: p}
	}
	return err
}

func entity(v any, part string) (kind, id string, props map[string]any, err error) {
	o, err := object(v, part)
	if err != nil {
		return "", "", nil, err
	}
	if kind, err = member(o, part, "type"); err != nil {
		return "", "", nil, err
	}
	if id, err = member(o, part, "id"); err != nil {
		return "", "", nil, err
	}
	props, err = properties(o, part)
	return kind, id, props, err
}

// readContext takes the reserved member "ward" out of the context. It leaves
// the parsed body as it is, since items of a batch share it.
func readContext(req *authz.Request, v any) error {
	o, err := object(v, "context")
	if err != nil {
		return err
	}
	reserved, ok := o["ward"]
	if !ok {
		req.Context = o
		return nil
	}
	ward, err := object(reserved, "context.ward")
	if err != nil {
		return err
	}
	area, err := optional(ward, "area")
	if err != nil {
		return err
	}
	grant, err := optional(ward, "grant")
	if err != nil {
		return err
	}
	rest := make(map[string]any, len(o))
	for key, v := range o {
		if key != "ward" {
			rest[key] = v
		}
	}
	req.Context, req.Area, req.Grant = rest, area, grant
	return nil
}

func optional(ward map[string]any, field string) (string, error) {
	v, ok := ward[field]
	if !ok {
		return "", nil
	}
	return text(v, "context.ward."+field)
}

// batch is a body of the evaluations endpoint that has items.
type batch struct {
	requests []authz.Request
	notes    []string // why an item could not be read, or ""
	stop     authz.Stop
}

// readBatch returns a batch without requests when the body has no items and so
// is a single question.
func (d *door) readBatch(body map[string]any, caller authz.Caller, id string) (batch, error) {
	stop, err := semantic(body)
	if err != nil {
		return batch{}, err
	}
	v, ok := body["evaluations"]
	if !ok {
		return batch{}, nil
	}
	items, ok := v.([]any)
	if !ok {
		return batch{}, refuse(FieldType, "evaluations must be an array")
	}
	if len(items) > d.maxItems {
		return batch{}, refuse(BatchTooLarge, "evaluations has more than "+strconv.Itoa(d.maxItems)+" items")
	}
	if len(items) == 0 {
		return batch{}, nil
	}
	if err := checkDefaults(body); err != nil {
		return batch{}, err
	}
	b := batch{stop: stop}
	for _, v := range items {
		item, err := object(v, "an item of evaluations")
		if err != nil {
			return batch{}, err
		}
		req, err := question(inherit(body, item), caller, id)
		note := ""
		if e, ok := errors.AsType[*authz.Error](err); ok {
			req.Refusal, note = authz.BadRequest, e.Text
		}
		b.requests, b.notes = append(b.requests, req), append(b.notes, note)
	}
	return b, nil
}

// checkDefaults refuses a batch whose top level holds a part that is wrong,
// even if no item inherits it.
func checkDefaults(body map[string]any) error {
	for _, p := range parts {
		if v, ok := body[p.name]; ok {
			if err := p.read(&authz.Request{}, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// inherit completes an item with the parts that it leaves out, each whole.
func inherit(body, item map[string]any) map[string]any {
	whole := make(map[string]any, len(parts))
	for _, p := range parts {
		if v, ok := item[p.name]; ok {
			whole[p.name] = v
		} else if v, ok := body[p.name]; ok {
			whole[p.name] = v
		}
	}
	return whole
}

func semantic(body map[string]any) (authz.Stop, error) {
	v, ok := body["options"]
	if !ok {
		return authz.ExecuteAll, nil
	}
	options, err := object(v, "options")
	if err != nil {
		return 0, err
	}
	if v, ok = options["evaluations_semantic"]; !ok {
		return authz.ExecuteAll, nil
	}
	switch name, ok := v.(string); {
	case !ok:
		return 0, refuse(FieldType, "options.evaluations_semantic must be a string")
	case name == "execute_all":
		return authz.ExecuteAll, nil
	case name == "deny_on_first_deny":
		return authz.FirstDeny, nil
	case name == "permit_on_first_permit":
		return authz.FirstPermit, nil
	}
	return 0, refuse(SemanticUnknown, "options.evaluations_semantic must be execute_all, deny_on_first_deny or permit_on_first_permit")
}
