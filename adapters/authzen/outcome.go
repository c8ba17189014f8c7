package authzen

import (
	"encoding/json"
	"net/http"

	"github.com/ward-authz/ward/pdp/authz"
)

// outcome answers POST /v1/outcomes.
func (d *door) outcome(out *reply, r *http.Request) error {
	caller, body, err := d.receive(out, r)
	if err != nil {
		return err
	}
	o, err := readOutcome(body)
	if err != nil {
		return err
	}
	var told struct {
		Record string `json:"record"`
	}
	if told.Record, err = d.reporter.Report(r.Context(), caller, o); err != nil {
		return sanitize(err)
	}
	if len(told.Record) <= 128 && visible(told.Record) {
		out.w.Header().Set("Ward-Record", told.Record)
	}
	out.send(http.StatusCreated, render(told))
	return nil
}

func readOutcome(body map[string]any) (authz.Outcome, error) {
	var o authz.Outcome
	for name := range body {
		switch name {
		case "record", "delivered", "rows", "obligations":
		default:
			return o, refuse(FieldUnknown, "an outcome has the fields record, delivered, rows and obligations")
		}
	}
	v, ok := body["record"]
	if !ok {
		return o, refuse(FieldMissing, "record is missing")
	}
	var err error
	if o.Record, err = text(v, "record"); err != nil {
		return o, err
	}
	if v, ok = body["delivered"]; !ok {
		return o, refuse(FieldMissing, "delivered is missing")
	}
	if o.Delivered, ok = v.(bool); !ok {
		return o, refuse(FieldType, "delivered must be true or false")
	}
	if v, ok = body["rows"]; ok {
		number, _ := v.(json.Number)
		rows, err := number.Int64()
		if err != nil || rows < 0 {
			return o, refuse(FieldType, "rows must be a whole number")
		}
		o.Rows = &rows
	}
	if v, ok = body["obligations"]; ok {
		list, ok := v.([]any)
		if !ok {
			return o, refuse(FieldType, "obligations must be an array")
		}
		for _, v := range list {
			id, err := text(v, "an item of obligations")
			if err != nil {
				return o, err
			}
			o.Obligations = append(o.Obligations, id)
		}
	}
	return o, nil
}
