package hierarchy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// ID names a node, a person or a principal. Its text form is
//
//	Type:tenant/key   for what belongs to a tenant:  Group:acme/g8
//	Type:key          for everything else:           Pharmacy:p1  Person:p7  User:dana  Tenant:acme
//
// so that the tenant is part of the key, and equal keys of two tenants are two
// nodes. Ids compare byte for byte; they are opaque and never reused.
type ID struct {
	// Type is the node type as the pack's catalogue spells it: a letter, then
	// letters and digits, at most 64 bytes.
	Type string
	// Tenant is the key of the Tenant node that owns it, or empty. At most 64
	// bytes, without '/'.
	Tenant string
	// Key is unique within Type and Tenant, 1 to 256 bytes of UTF-8 without
	// control characters; without '/' when Tenant is empty.
	Key string
}

// Reserved node types. Every other type comes from the pack's catalogue.
const (
	// OperatorType is the organisation that runs the platform; it has no tenant.
	OperatorType = "Operator"
	// TenantType is the root of one client's book of business.
	TenantType = "Tenant"
	// NetworkType is the root of the shared nodes (states, pharmacies, …).
	NetworkType = "Network"
	// PersonType is a human being, reached by links only.
	PersonType = "Person"
)

// MaxIDLength is the length of the longest text form of an ID, in bytes.
const MaxIDLength = 64 + 1 + 64 + 1 + 256

// String returns the text form.
func (id ID) String() string {
	if id.Tenant == "" {
		return id.Type + ":" + id.Key
	}
	return id.Type + ":" + id.Tenant + "/" + id.Key
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Owner returns the tenant that id belongs to, as a key: its own for a Tenant
// node, empty for shared nodes, persons, principals, the operator and the network.
func (id ID) Owner() string {
	if id.Type == TenantType {
		return id.Key
	}
	return id.Tenant
}

// TenantID returns the id of the Tenant node with this key.
func TenantID(key string) ID { return ID{Type: TenantType, Key: key} }

// PersonID returns the id of the Person with this key.
func PersonID(key string) ID { return ID{Type: PersonType, Key: key} }

// ParseID reads the text form. Its error never repeats the text, which may
// name a person.
func ParseID(s string) (ID, error) {
	if len(s) > MaxIDLength {
		return ID{}, fmt.Errorf("id is longer than %d bytes", MaxIDLength)
	}
	typ, rest, ok := strings.Cut(s, ":")
	if !ok {
		return ID{}, fmt.Errorf("id has no type: want Type:key or Type:tenant/key")
	}
	id := ID{Type: typ, Key: rest}
	if tenant, key, ok := strings.Cut(rest, "/"); ok {
		id.Tenant, id.Key = tenant, key
		if tenant == "" {
			return ID{}, fmt.Errorf("id has an empty tenant: want Type:key or Type:tenant/key")
		}
	}
	return id, id.Valid()
}

// Valid returns nil or what is wrong with id, without repeating it.
func (id ID) Valid() error {
	if id.Type == "" || len(id.Type) > 64 || !isTypeName(id.Type) {
		return fmt.Errorf("id type must be a letter followed by letters and digits, at most 64 bytes")
	}
	if len(id.Tenant) > 64 || strings.Contains(id.Tenant, "/") || hasControl(id.Tenant) {
		return fmt.Errorf("tenant key must be at most 64 bytes without '/' or control characters")
	}
	if id.Key == "" || len(id.Key) > 256 || hasControl(id.Key) {
		return fmt.Errorf("key must be 1 to 256 bytes of UTF-8 without control characters")
	}
	if id.Tenant == "" && strings.Contains(id.Key, "/") {
		return fmt.Errorf("key without a tenant must not contain '/'")
	}
	switch id.Type {
	case OperatorType, TenantType, NetworkType, PersonType:
		if id.Tenant != "" {
			return fmt.Errorf("%s ids carry no tenant", id.Type)
		}
	}
	if id.Type == TenantType && len(id.Key) > 64 {
		return fmt.Errorf("tenant key must be at most 64 bytes")
	}
	return nil
}

func isTypeName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func hasControl(s string) bool {
	if !utf8.ValidString(s) {
		return true
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return true
		}
	}
	return false
}

// MarshalText writes the text form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the text form.
func (id *ID) UnmarshalText(b []byte) (err error) { *id, err = ParseID(string(b)); return err }
