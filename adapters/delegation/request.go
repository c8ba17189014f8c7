package delegation

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ward-authz/ward/adapters/jsonbody"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
)

// Limits of what is read.
const (
	maxBody    = 64 << 10
	maxDepth   = 8
	maxWord    = 64
	maxText    = 1024
	maxSubject = 512
)

// subject reads Ward-Subject. A subject that the caller may not assert stays
// unverified, is recorded and denied.
func subject(h http.Header, caller authz.Caller) (authz.Subject, error) {
	values := h.Values("Ward-Subject")
	if len(values) == 0 {
		return authz.Subject{}, refuse(SubjectMissing, "the header Ward-Subject says who asks, as type:id")
	}
	typ, id, ok := strings.Cut(values[0], ":")
	if !ok || len(values) > 1 || !isWord(typ) || !isText(id, maxSubject) {
		return authz.Subject{}, refuse(SubjectInvalid, "the header Ward-Subject must be type:id, once")
	}
	s := authz.Subject{Type: typ, ID: id}
	if verified, err := caller.Assert(s); err == nil {
		s = verified
	}
	return s, nil
}

func (q question) body() (*object, error) {
	members, err := jsonbody.Read(q.out.w, q.Request, maxBody, maxDepth)
	if err != nil {
		return nil, err
	}
	return &object{members: members, known: map[string]bool{}, wrong: new(error)}, nil
}

// readGrant reads all of a body that says what is asked for.
func readGrant(b *object) pdp.GrantRequest {
	zone := b.zone()
	scope := b.object("scope", true)
	evidence := b.object("evidence", false)
	q := pdp.GrantRequest{
		Grant: hierarchy.Grant{
			Type:    b.word("type", true),
			Grantor: b.id("grantor", false),
			Grantee: b.id("grantee", true),
			Subject: b.id("subject", true),
			Scope: hierarchy.Scope{
				Capabilities: scope.words("capabilities", true),
				Covers:       scope.words("covers", false),
				Coverage:     scope.id("coverage", false),
				Records:      scope.texts("records"),
			},
			Purpose:    b.words("purpose", false),
			LegalBasis: b.text("legalBasis", false),
			Evidence: hierarchy.Evidence{
				Document:  evidence.text("document", false),
				SHA256:    evidence.text("sha256", false),
				Assurance: evidence.number("assurance", 3),
			},
			Parent:        b.grantID("parent"),
			MayRedelegate: b.boolean("mayRedelegate"),
			MaxDepth:      b.number("maxDepth", 3),
		},
		Key:       b.grantID("key"),
		From:      b.instant("from", zone, false),
		To:        b.instant("to", zone, true),
		CoSigners: b.ids("coSigners"),
	}
	if scope.has("service") {
		service := scope.object("service", false)
		in := hierarchy.Always
		if service.has("from") {
			in.From = service.instant("from", zone, false)
		}
		if service.has("to") {
			in.To = service.instant("to", zone, true)
		}
		if in == hierarchy.Always {
			service.refuse(FieldMissing, "from", "or to is missing")
		}
		q.Grant.Scope.Service = in
		service.end()
	}
	scope.end()
	evidence.end()
	return q
}

// object is one JSON object of a body. It keeps the first thing that is wrong
// with any of them. Members that are absent read as zero.
type object struct {
	at      string // where it is: "scope.", or "" for the body itself
	members map[string]any
	known   map[string]bool
	wrong   *error
}

func (o *object) has(name string) bool {
	_, ok := o.members[name]
	return ok
}

func (o *object) refuse(code authz.Code, name, text string) {
	if *o.wrong == nil {
		*o.wrong = refuse(code, o.at+name+" "+text)
	}
}

// end refuses what nobody asked for, and returns what is wrong.
func (o *object) end() error {
	for _, name := range slices.Sorted(maps.Keys(o.members)) {
		if !o.known[name] {
			if !isWord(name) { // it may be anything, a person's name too
				name = "a field"
			}
			o.refuse(FieldUnknown, name, "is not known here")
		}
	}
	return *o.wrong
}

func (o *object) value(name string, required bool) (any, bool) {
	o.known[name] = true
	v, ok := o.members[name]
	if !ok && required {
		o.refuse(FieldMissing, name, "is missing")
	}
	return v, ok
}

// member reads a member of one JSON type.
func member[T any](o *object, name string, required bool, typ string) (v T, ok bool) {
	raw, ok := o.value(name, required)
	if !ok {
		return v, false
	}
	if v, ok = raw.(T); !ok {
		o.refuse(FieldType, name, "must be "+typ)
	}
	return v, ok
}

func (o *object) object(name string, required bool) *object {
	members, _ := member[map[string]any](o, name, required, "an object")
	return &object{at: o.at + name + ".", members: members, known: map[string]bool{}, wrong: o.wrong}
}

func (o *object) text(name string, required bool) string {
	s, ok := member[string](o, name, required, "a string")
	if ok && !isText(s, maxText) {
		o.refuse(FieldInvalid, name, "must have 1 to 1024 bytes without control characters")
	}
	return s
}

const wordRule = "must have 1 to 64 letters, digits, '.', '-' and '_'"

func (o *object) word(name string, required bool) string {
	s, ok := member[string](o, name, required, "a string")
	if ok && !isWord(s) {
		o.refuse(FieldInvalid, name, wordRule)
	}
	return s
}

// one reads a member that must be one of a few words.
func (o *object) one(name string, of ...string) string {
	s, ok := member[string](o, name, true, "a string")
	if !ok {
		return ""
	}
	for _, w := range of {
		if s == w {
			return s
		}
	}
	o.refuse(FieldInvalid, name, "must be "+strings.Join(of, " or "))
	return ""
}

func (o *object) grantID(name string) string {
	s, ok := member[string](o, name, false, "a string")
	if ok && !isID(s) {
		o.refuse(FieldInvalid, name, "must have 1 to 64 letters, digits and '-'")
	}
	return s
}

func (o *object) id(name string, required bool) hierarchy.ID {
	s, ok := member[string](o, name, required, "a string")
	if !ok {
		return hierarchy.ID{}
	}
	return o.parseID(name, s)
}

func (o *object) parseID(name, s string) hierarchy.ID {
	id, err := hierarchy.ParseID(s)
	if err != nil {
		o.refuse(FieldInvalid, name, "must be an id: Type:key or Type:tenant/key")
	}
	return id
}

// list reads a list of strings, each different and as check says.
func (o *object) list(name string, required bool, check func(string) bool, rule string) []string {
	list, _ := member[[]any](o, name, required, "a list")
	var out []string
	for _, v := range list {
		s, ok := v.(string)
		switch {
		case !ok:
			o.refuse(FieldType, name, "must be a list of strings")
		case !check(s):
			o.refuse(FieldInvalid, name, rule)
		}
		out = append(out, s)
	}
	return out
}

func (o *object) words(name string, required bool) []string {
	return o.list(name, required, isWord, wordRule)
}

func (o *object) texts(name string) []string {
	return o.list(name, false, func(s string) bool { return isText(s, maxText) }, "must have 1 to 1024 bytes each without control characters")
}

func (o *object) ids(name string) []hierarchy.ID {
	var out []hierarchy.ID
	for _, s := range o.list(name, false, func(string) bool { return true }, "") {
		out = append(out, o.parseID(name, s))
	}
	return out
}

func (o *object) boolean(name string) bool {
	v, _ := member[bool](o, name, false, "true or false")
	return v
}

// number reads a small whole number from 0 to most.
func (o *object) number(name string, most int) int {
	v, ok := member[json.Number](o, name, false, "a number")
	if !ok {
		return 0
	}
	n, err := v.Int64()
	if err != nil || n < 0 || n > int64(most) {
		o.refuse(FieldInvalid, name, "must be a whole number from 0 to "+string(rune('0'+most)))
		return 0
	}
	return int(n)
}

func (o *object) zone() string {
	s, ok := member[string](o, "zone", false, "a string")
	if !ok {
		return ""
	}
	if _, err := hierarchy.Zone(s); err != nil {
		o.refuse(FieldInvalid, "zone", "must be a time zone such as America/New_York")
	}
	return s
}

func (o *object) instant(name, zone string, inclusive bool) hierarchy.Instant {
	s, ok := member[string](o, name, false, "a string")
	if !ok {
		return 0
	}
	at, err := pdp.ParseTime(s, zone, inclusive)
	switch {
	case err != nil:
		o.refuse(FieldInvalid, name, "must be a date (YYYY-MM-DD) or an RFC 3339 time")
	case at == 0: // which says that there is none
		o.refuse(FieldInvalid, name, "must not be the first instant of 1970")
	}
	return at
}

// isID reports whether s can be the id of a grant or an emergency.
func isID(s string) bool { return isWord(s) && !strings.ContainsAny(s, "._") }

func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(".-_", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= maxWord
}

func isText(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func refuse(code authz.Code, text string) error {
	return &authz.Error{Kind: authz.Refused, Code: code, Text: text}
}
