package hierarchy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Encode returns the stored form of a batch: one JSON object on one line, its
// fields in the order of [Batch], absent where they are zero. A batch has
// exactly one stored form. What Decode would refuse is refused here with the
// same [Refusal].
func Encode(b *Batch) ([]byte, error) {
	if err := wellFormed(b); err != nil {
		return nil, err
	}
	return encode(b)
}

func encode(b *Batch) ([]byte, error) {
	c := *b
	if c.Events == nil {
		c.Events = []Event{}
	}
	body, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode batch: %w", err)
	}
	if len(body) > MaxBatchBytes {
		return nil, batchRefusal(CodeBatchTooLarge, "stored form is longer than %d bytes", MaxBatchBytes)
	}
	return body, nil
}

// Decode reads what Encode wrote and nothing else: Encode(Decode(b)) is b, byte
// for byte, so unknown or repeated fields, another spelling of a number, other
// spacing and trailing data are all refused. An event of a kind or op that this
// version does not know (a newer version wrote it) is a [Refusal] with code
// event_kind_unknown. Errors never repeat the contents.
func Decode(body []byte) (*Batch, error) {
	if len(body) > MaxBatchBytes {
		return nil, batchRefusal(CodeBatchTooLarge, "stored form is longer than %d bytes", MaxBatchBytes)
	}
	b := new(Batch)
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	err := dec.Decode(b)
	if err == nil {
		err = fixValues(b)
	}
	if err == nil {
		if err = wellFormed(b); err == nil {
			var again []byte
			if again, err = encode(b); err == nil && bytes.Equal(again, body) {
				return b, nil
			}
		}
	}
	// Something is wrong: find the most telling cause.
	if r := unknownKinds(body); r != nil {
		return nil, r
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return nil, refusal
	}
	if cause := strictCause(body); cause != "" {
		return nil, fmt.Errorf("decode batch: %s", cause)
	}
	if err != nil {
		return nil, fmt.Errorf("decode batch: %s", safeJSONError(err))
	}
	return nil, errors.New("decode batch: not in canonical form")
}

// fixValues turns what encoding/json makes of attributes and settings into what
// Node and Setting promise.
func fixValues(b *Batch) error {
	for i := range b.Events {
		if s := b.Events[i].Setting; s != nil {
			if number, ok := s.Value.(json.Number); ok {
				x, err := strconv.ParseInt(string(number), 10, 64)
				if err != nil {
					return refuse(i, &b.Events[i], CodeEventInvalid, "the number of a setting is not a 64-bit integer")
				}
				s.Value = x
			}
		}
		n := b.Events[i].Node
		if n == nil {
			continue
		}
		for k, v := range n.Attrs {
			switch v := v.(type) {
			case json.Number:
				x, err := strconv.ParseInt(string(v), 10, 64)
				if err != nil {
					return refuse(i, &b.Events[i], CodeEventInvalid, "an attribute number is not a 64-bit integer")
				}
				n.Attrs[k] = x
			case []any:
				list := make([]string, len(v))
				for j, e := range v {
					s, ok := e.(string)
					if !ok {
						return refuse(i, &b.Events[i], CodeEventInvalid, "an attribute list holds something else than strings")
					}
					list[j] = s
				}
				n.Attrs[k] = list
			}
		}
	}
	return nil
}

// unknownKinds reads only what tells whether a newer version wrote the batch.
func unknownKinds(body []byte) *Refusal {
	var loose struct {
		Events []struct {
			Op, Kind json.Number
			Row      int64
		}
	}
	// What else is wrong with the rest of an event does not matter here.
	if err := json.Unmarshal(body, &loose); err != nil {
		var typeErr *json.UnmarshalTypeError
		if !errors.As(err, &typeErr) {
			return nil
		}
	}
	for i, e := range loose.Events {
		kind, _ := strconv.ParseUint(string(e.Kind), 10, 8)
		op, _ := strconv.ParseUint(string(e.Op), 10, 8)
		if !knownKind(Kind(kind)) || !knownOp(Op(op)) {
			return &Refusal{CodeEventKindUnknown, i, int(e.Row), "kind or op is not known to this version"}
		}
	}
	return nil
}

// strictCause finds a repeated or unknown field, or data after the batch.
func strictCause(body []byte) string {
	dec := json.NewDecoder(bytes.NewReader(body))
	var walk func(depth int) string
	walk = func(depth int) string {
		if depth > 32 {
			return "nested too deep"
		}
		tok, err := dec.Token()
		if err != nil {
			return safeJSONError(err)
		}
		d, ok := tok.(json.Delim)
		if !ok {
			return ""
		}
		seen := map[string]bool{}
		for dec.More() {
			if d == '{' {
				key, err := dec.Token()
				if err != nil {
					return safeJSONError(err)
				}
				k, _ := key.(string)
				if seen[k] {
					return fmt.Sprintf("repeated field before byte %d", dec.InputOffset())
				}
				seen[k] = true
			}
			if cause := walk(depth + 1); cause != "" {
				return cause
			}
		}
		if _, err := dec.Token(); err != nil {
			return safeJSONError(err)
		}
		return ""
	}
	if cause := walk(0); cause != "" {
		return cause
	}
	if dec.More() {
		return fmt.Sprintf("data after the batch at byte %d", dec.InputOffset())
	}
	strict := json.NewDecoder(bytes.NewReader(body))
	strict.DisallowUnknownFields()
	strict.UseNumber()
	if err := strict.Decode(new(Batch)); err != nil {
		var typeErr *json.UnmarshalTypeError
		if !errors.As(err, &typeErr) && bytes.HasPrefix([]byte(err.Error()), []byte("json: unknown field")) {
			return "unknown field"
		}
		return safeJSONError(err)
	}
	return ""
}

// safeJSONError says what is wrong without repeating any of the input.
func safeJSONError(err error) string {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON at byte %d", syntax.Offset)
	case errors.As(err, &typ):
		return fmt.Sprintf("wrong type of value at byte %d", typ.Offset)
	}
	return "a value is malformed or the text ends early"
}

func knownOp(op Op) bool { return op == Assert || op == End || op == Void }

func knownKind(k Kind) bool {
	switch k {
	case KindNode, KindEdge, KindLink, KindRole, KindAssignment, KindEntitlement, KindGrant, KindBlock, KindActivation,
		KindSetting, KindEmergency, KindSignature, KindReview:
		return true
	}
	return false
}

func refuse(index int, e *Event, code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Index: index, Row: e.Row, Text: fmt.Sprintf(format, args...)}
}

func batchRefusal(code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Index: -1, Text: fmt.Sprintf(format, args...)}
}

// wellFormed checks all of a batch that needs no graph.
func wellFormed(b *Batch) error {
	if len(b.Events) > MaxBatchEvents {
		return batchRefusal(CodeBatchTooLarge, "more than %d events", MaxBatchEvents)
	}
	for i := range b.Events {
		if e := &b.Events[i]; !knownKind(e.Kind) || !knownOp(e.Op) {
			return refuse(i, e, CodeEventKindUnknown, "kind or op is not known to this version")
		}
	}
	if b.Time == Never || b.Time == Forever {
		return batchRefusal(CodeEventInvalid, "transaction time is not an instant")
	}
	if err := b.Provenance.valid(); err != nil {
		return batchRefusal(CodeEventInvalid, "provenance: %v", err)
	}
	if err := b.Import.valid(len(b.Events)); err != nil {
		return batchRefusal(CodeEventInvalid, "import: %v", err)
	}
	for i := range b.Events {
		if r := b.Events[i].wellFormed(i); r != nil {
			return r
		}
	}
	return nil
}

func (p *Provenance) valid() error {
	if err := p.Who.Valid(); err != nil {
		return fmt.Errorf("who: %w", err)
	}
	for _, s := range []string{p.Right, p.Why, p.Ticket, p.Feed} {
		if len(s) > 4096 || !utf8.ValidString(s) {
			return errors.New("a text is longer than 4096 bytes or not UTF-8")
		}
	}
	return nil
}

func (m *Import) valid(events int) error {
	switch {
	case m == nil:
		return nil
	case m.ID == "" || len(m.ID) > 256 || hasControl(m.ID):
		return errors.New("id must be 1 to 256 bytes of UTF-8 without control characters")
	case m.Tenant != "" && TenantID(m.Tenant).Valid() != nil:
		return errors.New("tenant key is malformed")
	case m.History && m.Tenant != "":
		return errors.New("a history import has no tenant")
	case m.Step < ImportOpen || m.Step > ImportAbandon:
		return errors.New("step must be open, more, close or abandon")
	case m.Step == ImportAbandon && events > 0:
		return errors.New("the batch that abandons an import holds no events")
	}
	return nil
}

// fields counts the facts that an event carries and says whether the one of
// its kind is among them.
func (e *Event) fields() (n int, own bool) {
	for _, f := range [...]struct {
		kind Kind
		set  bool
	}{
		{KindNode, e.Node != nil}, {KindEdge, e.Edge != nil}, {KindLink, e.Link != nil},
		{KindRole, e.Role != nil}, {KindAssignment, e.Assignment != nil},
		{KindEntitlement, e.Entitlement != nil}, {KindGrant, e.Grant != nil},
		{KindBlock, e.Block != nil}, {KindActivation, e.Activation != nil},
		{KindSetting, e.Setting != nil}, {KindEmergency, e.Emergency != nil},
		{KindSignature, e.Signature != nil}, {KindReview, e.Review != nil},
	} {
		if f.set {
			n++
			own = own || f.kind == e.Kind
		}
	}
	return n, own
}

func (e *Event) wellFormed(i int) *Refusal {
	bad := func(format string, args ...any) *Refusal {
		return refuse(i, e, CodeEventInvalid, format, args...)
	}
	n, own := e.fields()
	if e.Row < 0 {
		return bad("row is negative")
	}
	if e.Op != Assert {
		switch {
		case n != 0 || !e.Valid.IsZero():
			return bad("end and void carry no fact of their own")
		case e.Fact.IsZero() || e.Fact.Revision == 0:
			return bad("end and void name a fact")
		case e.Op == Void && e.At != 0:
			return bad("void carries no instant")
		case e.Op == End && (e.At == Never || e.At == Forever):
			return bad("the end is not an instant")
		case e.Kind == KindActivation:
			return bad("an activation is neither ended nor voided: activate another set")
		}
		return nil
	}
	if n != 1 || !own {
		return bad("exactly the field of the event's kind must be set")
	}
	if !e.Fact.IsZero() || e.At != 0 {
		return bad("an asserted fact names no other fact and no end")
	}
	if err := e.factValid(); err != nil {
		return bad("%v", err)
	}
	if e.Kind != KindActivation && e.Valid.To <= e.Valid.From {
		return refuse(i, e, CodeIntervalInverted, "valid time ends at or before its start")
	}
	if e.Emergency != nil && e.Valid.To > e.Valid.From+MaxEmergency { // an open side is too long too
		return refuse(i, e, CodeEmergencyLong, "an emergency lasts at most 30 minutes")
	}
	if e.Grant != nil && !e.Grant.Scope.Service.IsZero() && e.Grant.Scope.Service.To <= e.Grant.Scope.Service.From {
		return refuse(i, e, CodeIntervalInverted, "service time ends at or before its start")
	}
	return nil
}

func ids(what string, list ...ID) error {
	for _, id := range list {
		if err := id.Valid(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func words(what string, list []string) error {
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if s == "" || len(s) > 256 || hasControl(s) {
			return fmt.Errorf("%s must be 1 to 256 bytes of UTF-8 without control characters", what)
		}
		if seen[s] {
			return fmt.Errorf("%s is listed twice", what)
		}
		seen[s] = true
	}
	return nil
}

func short(what string, list ...string) error {
	for _, s := range list {
		if len(s) > 1024 || hasControl(s) {
			return fmt.Errorf("%s must be at most 1024 bytes of UTF-8 without control characters", what)
		}
	}
	return nil
}

// factValid checks the fact of an assertion as far as it needs no graph.
func (e *Event) factValid() error {
	switch e.Kind {
	case KindNode:
		return e.Node.valid()
	case KindEdge:
		if k := e.Edge.Kind; k == "" || len(k) > 64 || !isTypeName(k) || k[0] < 'a' {
			return errors.New("edge kind must be camelCase letters and digits, at most 64 bytes")
		}
		return ids("edge", e.Edge.Child, e.Edge.Parent)
	case KindLink:
		return e.Link.valid()
	case KindRole:
		if err := roleNameValid(e.Role.Name); err != nil {
			return err
		}
		for _, name := range e.Role.Includes {
			if err := roleNameValid(name); err != nil {
				return err
			}
		}
		if err := words("included role", e.Role.Includes); err != nil {
			return err
		}
		return words("capability", e.Role.Capabilities)
	case KindAssignment:
		if err := roleNameValid(e.Assignment.Role); err != nil {
			return err
		}
		return ids("assignment", e.Assignment.Principal, e.Assignment.Node)
	case KindEntitlement:
		if err := words("entitlement", []string{e.Entitlement.Name}); err != nil {
			return err
		}
		if e.Entitlement.Tenant.Type != TenantType {
			return errors.New("only a Tenant has entitlements")
		}
		return ids("entitlement", e.Entitlement.Tenant)
	case KindGrant:
		return e.Grant.valid()
	case KindBlock:
		if e.Block.Basis != "court-order" && e.Block.Basis != "refusal" {
			return errors.New("basis of a block must be court-order or refusal")
		}
		return ids("block", e.Block.Person, e.Block.Principal)
	case KindSetting:
		return e.Setting.valid()
	case KindEmergency:
		return e.Emergency.valid()
	case KindSignature:
		return e.Signature.valid()
	case KindReview:
		return e.Review.valid()
	case KindActivation:
		return e.Activation.valid()
	}
	return errors.New("kind without a field")
}

func (a *Activation) valid() error {
	if d := a.Digest; (d != "" || a.Tenant == "") && (len(d) != 71 || d[:7] != "sha256:" || !isHex(d[7:])) {
		return errors.New("digest must be sha256: and 64 hexadecimal digits")
	}
	switch {
	case a.Tenant == "":
		return words("name of a set", []string{a.Name})
	case a.Name != "":
		return errors.New("a tenant's overlay has no name")
	}
	return ids("activation", TenantID(a.Tenant))
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func (n *Node) valid() error {
	if err := n.ID.Valid(); err != nil {
		return err
	}
	if n.Principal {
		if n.ID.Tenant != "" {
			return errors.New("a principal belongs to no tenant")
		}
		switch n.ID.Type {
		case OperatorType, TenantType, NetworkType, PersonType:
			return errors.New("the type is reserved for what cannot act")
		}
	}
	for k, v := range n.Attrs {
		if k == "" || len(k) > 256 || hasControl(k) {
			return errors.New("attribute name must be 1 to 256 bytes of UTF-8 without control characters")
		}
		switch v := v.(type) {
		case bool, int64:
		case string:
			if !utf8.ValidString(v) {
				return errors.New("an attribute is not UTF-8")
			}
		case []string:
			if v == nil {
				return errors.New("an attribute is nil")
			}
			for _, s := range v {
				if !utf8.ValidString(s) {
					return errors.New("an attribute is not UTF-8")
				}
			}
		default:
			return errors.New("attribute values are bool, string, int64 and []string")
		}
	}
	p := n.Person
	if p == nil {
		return nil
	}
	if n.ID.Type != PersonType {
		return errors.New("only a Person has a person's facts")
	}
	if p.BirthDate != "" {
		if _, err := time.Parse("2006-01-02", p.BirthDate); err != nil {
			return errors.New("birth date must be YYYY-MM-DD")
		}
	}
	if p.Majority != nil && (*p.Majority == Never || *p.Majority == Forever) {
		return errors.New("majority is not an instant")
	}
	return short("a person's text", p.Jurisdiction, p.TZData)
}

func (l *Link) valid() error {
	if l.Kind == LinkIdentity {
		if l.Issuer == "" || l.Sub == "" || !l.From.IsZero() {
			return errors.New("an identity link has issuer and sub instead of from")
		}
		if err := short("issuer and sub", l.Issuer, l.Sub); err != nil {
			return err
		}
		return ids("link", l.To)
	}
	switch l.Kind {
	case LinkSelf, LinkOwns, LinkMerge, LinkFamily:
	default:
		return errors.New("unknown kind of link")
	}
	if l.Issuer != "" || l.Sub != "" {
		return errors.New("only an identity link has issuer and sub")
	}
	if err := ids("link", l.From, l.To); err != nil {
		return err
	}
	if l.From == l.To {
		return errors.New("a link ties two things")
	}
	person := func(id ID) bool { return id.Type == PersonType }
	switch {
	case l.Kind == LinkSelf && (person(l.From) || !person(l.To)):
		return errors.New("a self link leads from a principal to a person")
	case l.Kind == LinkOwns && (!person(l.From) || person(l.To)):
		return errors.New("an owns link leads from a person to a node")
	case (l.Kind == LinkMerge || l.Kind == LinkFamily) && (!person(l.From) || !person(l.To)):
		return errors.New("a merge or family link ties two persons")
	}
	return nil
}

func roleNameValid(name string) error {
	tenant := roleTenant(name)
	rest := name
	if tenant != "" || len(name) > 0 && name[0] == '/' {
		rest = name[len(tenant)+1:]
	}
	if rest == "" || len(rest) > 256 || hasControl(name) || len(tenant) > 64 ||
		bytes.IndexByte([]byte(rest), '/') >= 0 || name[0] == '/' {
		return errors.New("role must be name or tenant/name, without control characters, at most 256 bytes")
	}
	return nil
}

// roleTenant returns the tenant of a role, or "" for an operator's role.
func roleTenant(name string) string {
	for i := 0; i < len(name); i++ {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return ""
}

func (g *Grant) valid() error {
	if g.ID == "" || len(g.ID) > 64 || !isGrantID(g.ID) {
		return errors.New("grant id must be letters, digits and '-', 1 to 64 bytes")
	}
	if g.Parent != "" && (len(g.Parent) > 64 || !isGrantID(g.Parent)) {
		return errors.New("parent grant id must be letters, digits and '-', at most 64 bytes")
	}
	if g.Type == "" || len(g.Type) > 64 || !isGrantID(g.Type) { // which types there are is the pack's to say
		return errors.New("type of grant must be letters, digits and '-', 1 to 64 bytes")
	}
	if err := ids("grant", g.Grantor, g.Grantee, g.Subject); err != nil {
		return err
	}
	if len(g.Needs) > maxNeeds {
		return fmt.Errorf("a grant needs at most %d signatures", maxNeeds)
	}
	for i, n := range g.Needs {
		if err := n.valid(n.As != SignerVerifier); err != nil {
			return err
		}
		if slices.ContainsFunc(g.Needs[:i], func(o Need) bool {
			return o == n || o.As == SignerVerifier && n.As == SignerVerifier // one signature would meet both
		}) {
			return errors.New("a signature is needed twice")
		}
	}
	if (g.Source == "") != (g.External == "") {
		return errors.New("a grant of another system names the system and its id there")
	}
	if !g.Scope.Coverage.IsZero() {
		if err := ids("coverage of a grant", g.Scope.Coverage); err != nil {
			return err
		}
	}
	if len(g.Scope.Capabilities) == 0 {
		return errors.New("a grant confers at least one capability")
	}
	if err := words("capability", g.Scope.Capabilities); err != nil {
		return err
	}
	if err := words("record", g.Scope.Records); err != nil {
		return err
	}
	if err := words("sensitivity", g.Scope.Covers); err != nil {
		return err
	}
	if err := words("purpose", g.Purpose); err != nil {
		return err
	}
	if err := short("a grant's text", g.Jurisdiction, g.LegalBasis, g.Evidence.Document, g.Evidence.VerifiedBy, g.Source, g.External); err != nil {
		return err
	}
	if s := g.Evidence.SHA256; s != "" && (len(s) != 64 || !isHex(s)) {
		return errors.New("digest of the evidence must be 64 hexadecimal digits")
	}
	switch {
	case g.MaxDepth < 0 || g.MaxDepth > 3:
		return errors.New("depth must be 0 to 3")
	case g.MayRedelegate && g.MaxDepth == 0:
		return errors.New("a grant that may be redelegated says how deep (maxDepth)")
	case !g.MayRedelegate && g.MaxDepth > 0:
		return errors.New("a grant that may not be redelegated has no depth")
	case g.EndsAtMajority && g.Subject.Type != PersonType:
		return errors.New("only a grant about a person ends at majority")
	}
	return nil
}

// maxNeeds is how many signatures a grant takes at most.
const maxNeeds = 8

// valid checks a need; one that names nobody is whoever the policies let.
func (n Need) valid(named bool) error {
	switch n.As {
	case SignerGrantor, SignerSubject, SignerCoSigner, SignerVerifier:
	default:
		return errors.New("one signs as grantor, subject, co-signer or verifier")
	}
	if !named && n.By.IsZero() {
		return nil
	}
	return ids("signer", n.By)
}

func (s *Signature) valid() error {
	if s.Grant == "" || len(s.Grant) > 64 || !isGrantID(s.Grant) {
		return errors.New("a signature names a grant")
	}
	if err := s.Need.valid(true); err != nil {
		return err
	}
	return ids("signer", s.Principal)
}

func (s *Setting) valid() error {
	if err := words("setting", []string{s.Name}); err != nil {
		return err
	}
	if s.Tenant.Type != TenantType {
		return errors.New("only a Tenant has settings")
	}
	switch v := s.Value.(type) {
	case bool, int64:
	case string:
		if err := short("setting", v); err != nil {
			return err
		}
	default:
		return errors.New("the value of a setting is a bool, a string or a 64-bit integer")
	}
	return ids("setting", s.Tenant)
}

func (x *Emergency) valid() error {
	if x.ID == "" || len(x.ID) > 64 || !isGrantID(x.ID) {
		return errors.New("emergency id must be letters, digits and '-', 1 to 64 bytes")
	}
	if err := words("reason", []string{x.Reason}); err != nil {
		return err
	}
	if x.Person.Type != PersonType {
		return errors.New("an emergency is about a person")
	}
	if err := short("an emergency's text", x.Text, x.Ticket); err != nil {
		return err
	}
	return ids("emergency", x.Principal, x.Person, x.Node)
}

func (r *Review) valid() error {
	if r.Emergency == "" || len(r.Emergency) > 64 || !isGrantID(r.Emergency) {
		return errors.New("a review names an emergency")
	}
	if r.Outcome != "justified" && r.Outcome != "unjustified" {
		return errors.New("outcome of a review must be justified or unjustified")
	}
	if err := short("a review's text", r.Text); err != nil {
		return err
	}
	return ids("review", r.By)
}

func isGrantID(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
