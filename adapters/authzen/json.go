package authzen

import "github.com/ward-authz/ward/pdp/authz"

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
