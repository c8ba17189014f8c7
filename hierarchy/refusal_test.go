package hierarchy

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// world is the graph that the refusals of TestRefusals are tried on.
func refusalWorld(t testing.TB) *bench {
	b := newBench(t)
	coming := Instant(60)
	b.do( // revision 1
		node(Always, "Operator:pbm"), node(Always, "Tenant:acme"), node(Always, "Tenant:bolt"), node(Always, "Network:us"),
		node(Always, "Group:acme/g1"), node(during(0, 100), "Group:acme/g2"), node(Always, "Plan:acme/p1"), node(Always, "Group:bolt/g1"),
		node(Always, "Pharmacy:x"), node(Always, "Chain:y"),
		user(Always, "User:dana"), user(Always, "User:eve"), user(during(0, 100), "User:temp"),
		person(Always, "Person:mia", &coming), person(Always, "Person:tom", nil),
		node(Always, "Coverage:acme/c1"))
	b.do( // revision 2
		role("broker", []string{"claim.view"}, nil), role("acme/reviewer", []string{"claim.view"}, []string{"broker"}), role("bolt/x", nil, nil))
	b.do( // revision 3
		edge(during(0, 50), "Group:acme/g1", "Plan:acme/p1"),
		assign(during(0, 50), "User:dana", "broker", "Group:acme/g1"),
		entitle(during(0, 50), "acme", "claims"),
		block(during(0, 50), "Person:mia", "User:eve"),
		identity(during(0, 50), "https://idp", "sub-dana", "User:dana"),
		link(during(0, 50), LinkMerge, "Person:mia", "Person:tom"),
		link(Always, LinkOwns, "Person:mia", "Coverage:acme/c1"))
	b.do(grant(during(0, 50), Grant{ // revision 4
		ID: "root", Grantor: mustID("Person:tom"), Grantee: mustID("User:dana"), Subject: mustID("Person:mia"),
		Scope:   Scope{Capabilities: []string{"claim.view", "claim.export"}, Covers: []string{"MH"}, Service: during(0, 10), Coverage: mustID("Coverage:acme/c1")},
		Purpose: []string{"FAMRQT"}, MayRedelegate: true, MaxDepth: 1, EndsAtMajority: true,
	}), grant(during(0, 50), Grant{
		ID: "child", Grantor: mustID("User:dana"), Grantee: mustID("User:eve"), Subject: mustID("Person:mia"), Parent: "root",
		Scope:   Scope{Capabilities: []string{"claim.view"}, Service: during(0, 10), Coverage: mustID("Coverage:acme/c1")},
		Purpose: []string{"FAMRQT"}, EndsAtMajority: true,
	}), grant(Always, Grant{
		ID: "org", Type: "org-delegate", Grantor: mustID("Operator:pbm"), Grantee: mustID("Group:acme/g1"), Subject: mustID("Plan:acme/p1"),
		MayRedelegate: true, MaxDepth: 3,
	}))
	return b
}

// narrow is a right child of the grant root; change makes it wrong.
func narrow(change func(*Grant, *Interval)) Event {
	v := during(0, 50)
	g := Grant{
		ID: "new", Grantor: mustID("User:dana"), Grantee: mustID("User:temp"), Subject: mustID("Person:mia"), Parent: "root",
		Scope:   Scope{Capabilities: []string{"claim.view"}, Service: during(0, 10), Coverage: mustID("Coverage:acme/c1")},
		Purpose: []string{"FAMRQT"}, EndsAtMajority: true,
	}
	change(&g, &v)
	return grant(v, g)
}

func TestRefusals(t *testing.T) {
	plain := func(change func(*Grant)) Event {
		g := Grant{ID: "new", Grantor: mustID("Person:tom"), Grantee: mustID("User:eve"), Subject: mustID("Person:mia")}
		change(&g)
		return grant(during(0, 50), g)
	}
	fact := func(rev uint64, index uint32) FactID { return FactID{rev, index} }
	var many []Event
	for i := range 16 {
		many = append(many, plain(func(g *Grant) { g.ID = fmt.Sprint("n", i) }))
	}
	// A grant with needs, an emergency and a review, changed so that they are wrong.
	needs := func(list ...Need) Event { return plain(func(g *Grant) { g.Needs = list }) }
	parents := needs(Need{SignerCoSigner, mustID("Person:tom")}, Need{As: SignerVerifier})
	signed := sign(during(0, 50), "new", SignerCoSigner, "Person:tom", "User:dana")
	broken := emergency(during(100, 900), "e1", "User:dana", "Person:mia", "Coverage:acme/c1")
	again := func(v Interval, person string) Event {
		return emergency(v, "e2", "User:dana", person, "Coverage:acme/c1")
	}
	seen := review(during(200, Forever), "e1", "User:eve")
	changed := func(e Event, change func(*Event)) Event {
		switch {
		case e.Emergency != nil:
			x := *e.Emergency
			e.Emergency = &x
		case e.Review != nil:
			x := *e.Review
			e.Review = &x
		case e.Signature != nil:
			x := *e.Signature
			e.Signature = &x
		}
		change(&e)
		return e
	}
	bolt := &Import{ID: "i", Tenant: "bolt", Step: ImportOpen}
	requested := slices.Clone(many)
	for i, e := range requested {
		g := *e.Grant
		g.Needs = []Need{{As: SignerVerifier}}
		requested[i].Grant = &g
	}
	tests := []struct {
		name   string
		imp    *Import
		events []Event
		want   string // the code and text of the refusal of the last event; "" when it is accepted
	}{
		// event_kind_unknown, event_invalid
		{"reserved kind", nil, []Event{{Op: Assert, Kind: KindConsent, Valid: Always}}, "event_kind_unknown: event 0: kind or op is not known to this version"},
		{"unknown kind", nil, []Event{{Op: Assert, Kind: 99, Valid: Always, Row: 7}}, "event_kind_unknown: row 7: kind or op is not known to this version"},
		{"unknown op", nil, []Event{{Op: 4, Kind: KindNode, Valid: Always}}, "event_kind_unknown: event 0: kind or op is not known to this version"},
		{"no field", nil, []Event{{Op: Assert, Kind: KindNode, Valid: Always}}, "event_invalid: event 0: exactly the field of the event's kind must be set"},
		{"other field", nil, []Event{{Op: Assert, Kind: KindNode, Valid: Always, Role: &Role{Name: "x"}}}, "event_invalid: event 0: exactly the field of the event's kind must be set"},
		{"two fields", nil, []Event{{Op: Assert, Kind: KindRole, Valid: Always, Role: &Role{Name: "x"}, Node: &Node{ID: mustID("Plan:acme/p9")}}}, "event_invalid: event 0: exactly the field of the event's kind must be set"},
		{"void with a field", nil, []Event{{Op: Void, Kind: KindRole, Fact: fact(2, 0), Role: &Role{Name: "x"}}}, "event_invalid: event 0: end and void carry no fact of their own"},
		{"void without a fact", nil, []Event{{Op: Void, Kind: KindRole}}, "event_invalid: event 0: end and void name a fact"},
		{"void with an instant", nil, []Event{{Op: Void, Kind: KindRole, Fact: fact(2, 0), At: 3}}, "event_invalid: event 0: void carries no instant"},
		{"assert with a fact", nil, []Event{{Op: Assert, Kind: KindRole, Fact: fact(2, 0), Valid: Always, Role: &Role{Name: "x"}}}, "event_invalid: event 0: an asserted fact names no other fact and no end"},
		{"bad id", nil, []Event{assert(Always, Event{Kind: KindNode, Node: &Node{ID: ID{"9", "", "k"}}})}, "event_invalid: event 0: id type must be a letter followed by letters and digits, at most 64 bytes"},
		{"float attribute", nil, []Event{assert(Always, Event{Kind: KindNode, Node: &Node{ID: mustID("Plan:acme/p9"), Attrs: map[string]any{"a": 1.5}}})}, "event_invalid: event 0: attribute values are bool, string, int64 and []string"},
		{"principal with a tenant", nil, []Event{user(Always, "User:acme/x")}, "event_invalid: event 0: a principal belongs to no tenant"},
		{"person's facts elsewhere", nil, []Event{person(Always, "Plan:acme/p9", nil)}, "event_invalid: event 0: only a Person has a person's facts"},
		{"edge kind", nil, []Event{assert(Always, Event{Kind: KindEdge, Edge: &Edge{mustID("Group:acme/g1"), "Member-Of", mustID("Plan:acme/p1")}})}, "event_invalid: event 0: edge kind must be camelCase letters and digits, at most 64 bytes"},
		{"principal turned node", nil, []Event{void(KindNode, fact(1, 10)), node(Always, "User:dana")}, "event_invalid: event 1: what is a principal never is anything else"},
		{"self link from a node", nil, []Event{link(Always, LinkSelf, "Plan:acme/p1", "Person:mia")}, "event_invalid: event 0: a self link leads from a principal to a person"},
		{"identity of a node", nil, []Event{identity(Always, "i", "s", "Plan:acme/p1")}, "event_invalid: event 0: an identity is a principal"},
		{"owned principal", nil, []Event{link(Always, LinkOwns, "Person:mia", "User:dana")}, "event_invalid: event 0: a person owns no principal"},
		{"merge with oneself", nil, []Event{link(Always, LinkMerge, "Person:mia", "Person:mia")}, "event_invalid: event 0: a link ties two things"},
		{"role of a node", nil, []Event{assign(Always, "Plan:acme/p1", "broker", "Plan:acme/p1")}, "event_invalid: event 0: only a principal holds a role"},
		{"role at a person", nil, []Event{assign(Always, "User:eve", "broker", "Person:mia")}, "event_invalid: event 0: no role is held at a person or principal"},
		{"entitled group", nil, []Event{assert(Always, Event{Kind: KindEntitlement, Entitlement: &Entitlement{mustID("Plan:acme/p1"), "x"}})}, "event_invalid: event 0: only a Tenant has entitlements"},
		{"block basis", nil, []Event{assert(Always, Event{Kind: KindBlock, Block: &Block{mustID("Person:mia"), mustID("User:dana"), "whim"}})}, "event_invalid: event 0: basis of a block must be court-order or refusal"},
		{"block of a person", nil, []Event{block(Always, "Person:mia", "Person:tom")}, "event_invalid: event 0: only a principal is blocked"},
		{"activation digest", nil, []Event{{Op: Assert, Kind: KindActivation, Activation: &Activation{Digest: "sha256:0", Name: "x"}}}, "event_invalid: event 0: digest must be sha256: and 64 hexadecimal digits"},
		{"activation of no set", nil, []Event{{Op: Assert, Kind: KindActivation, Activation: &Activation{Name: "x"}}}, "event_invalid: event 0: digest must be sha256: and 64 hexadecimal digits"},
		{"overlay digest", nil, []Event{overlayOf("acme", "sha256:0")}, "event_invalid: event 0: digest must be sha256: and 64 hexadecimal digits"},
		{"overlay with a name", nil, []Event{{Op: Assert, Kind: KindActivation, Activation: &Activation{Name: "x", Tenant: "acme"}}}, "event_invalid: event 0: a tenant's overlay has no name"},
		{"overlay of no tenant", nil, []Event{overlayOf("\x00", "")}, "event_invalid: event 0: activation: key must be 1 to 256 bytes of UTF-8 without control characters"},
		{"overlay of an unknown tenant", nil, []Event{overlayOf("none", "sha256:"+strings.Repeat("0f", 32))}, "unknown_tenant: event 0: Tenant:none does not exist"},
		{"void an activation", nil, []Event{{Op: Void, Kind: KindActivation, Fact: fact(1, 0)}}, "event_invalid: event 0: an activation is neither ended nor voided: activate another set"},
		{"grant without capability", nil, []Event{plain(func(g *Grant) { g.Scope.Capabilities = []string{} })}, "event_invalid: event 0: a grant confers at least one capability"},
		{"grant type", nil, []Event{plain(func(g *Grant) { g.Type = "a friend" })}, "event_invalid: event 0: type of grant must be letters, digits and '-', 1 to 64 bytes"},
		{"grant depth unsaid", nil, []Event{plain(func(g *Grant) { g.MayRedelegate = true })}, "event_invalid: event 0: a grant that may be redelegated says how deep (maxDepth)"},
		{"grant about a principal", nil, []Event{plain(func(g *Grant) { g.Subject = mustID("User:dana") })}, "event_invalid: event 0: a grant is about a person or a node, not a principal"},
		{"grant to a person", nil, []Event{plain(func(g *Grant) { g.Grantee = mustID("Person:tom") })}, "event_invalid: event 0: the grantee is a principal or a node, not a person"},
		{"majority unknown", nil, []Event{plain(func(g *Grant) { g.Subject, g.EndsAtMajority = mustID("Person:tom"), true })}, "event_invalid: event 0: the grant ends at majority, but when that is, is not known"},
		{"grantor not the parent's grantee", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Grantor = mustID("User:eve") })}, "event_invalid: event 0: the grantor is not the grantee of the parent grant"},
		{"setting of a group", nil, []Event{assert(Always, Event{Kind: KindSetting, Setting: &Setting{mustID("Group:acme/g1"), "x", true}})}, "event_invalid: event 0: only a Tenant has settings"},
		{"setting without a name", nil, []Event{setting(Always, "acme", "", true)}, "event_invalid: event 0: setting must be 1 to 256 bytes of UTF-8 without control characters"},
		{"setting of nothing", nil, []Event{setting(Always, "acme", "x", nil)}, "event_invalid: event 0: the value of a setting is a bool, a string or a 64-bit integer"},
		{"setting of a float", nil, []Event{setting(Always, "acme", "x", 1.0)}, "event_invalid: event 0: the value of a setting is a bool, a string or a 64-bit integer"},
		{"setting too long", nil, []Event{setting(Always, "acme", "x", strings.Repeat("x", 1025))}, "event_invalid: event 0: setting must be at most 1024 bytes of UTF-8 without control characters"},
		{"need of a stranger", nil, []Event{needs(Need{"friend", mustID("Person:tom")})}, "event_invalid: event 0: one signs as grantor, subject, co-signer or verifier"},
		{"need of nobody", nil, []Event{needs(Need{As: SignerSubject})}, "event_invalid: event 0: signer: id type must be a letter followed by letters and digits, at most 64 bytes"},
		{"need twice", nil, []Event{needs(Need{SignerSubject, mustID("Person:mia")}, Need{SignerSubject, mustID("Person:mia")})}, "event_invalid: event 0: a signature is needed twice"},
		{"two verifiers", nil, []Event{needs(Need{SignerVerifier, mustID("User:dana")}, Need{As: SignerVerifier})}, "event_invalid: event 0: a signature is needed twice"},
		{"both parents", nil, []Event{needs(Need{SignerCoSigner, mustID("Person:mia")}, Need{SignerCoSigner, mustID("Person:tom")})}, ""},
		{"nine needs", nil, []Event{needs(make([]Need, 9)...)}, "event_invalid: event 0: a grant needs at most 8 signatures"},
		{"source without an id", nil, []Event{plain(func(g *Grant) { g.Source = "ciam" })}, "event_invalid: event 0: a grant of another system names the system and its id there"},
		{"id without a source", nil, []Event{plain(func(g *Grant) { g.External = "x-1" })}, "event_invalid: event 0: a grant of another system names the system and its id there"},
		{"record twice", nil, []Event{plain(func(g *Grant) { g.Scope.Records = []string{"report:r", "report:r"} })}, "event_invalid: event 0: record is listed twice"},
		{"signature of no grant", nil, []Event{changed(signed, func(e *Event) { e.Signature.Grant = "" })}, "event_invalid: event 0: a signature names a grant"},
		{"signature as a friend", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.As = "friend" })}, "event_invalid: event 1: one signs as grantor, subject, co-signer or verifier"},
		{"verifier unnamed", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.Need = Need{As: SignerVerifier} })}, "event_invalid: event 1: signer: id type must be a letter followed by letters and digits, at most 64 bytes"},
		{"signed by a person", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.Principal = mustID("Person:tom") })}, "event_invalid: event 1: only a principal signs"},
		{"emergency without an id", nil, []Event{changed(broken, func(e *Event) { e.Emergency.ID = "" })}, "event_invalid: event 0: emergency id must be letters, digits and '-', 1 to 64 bytes"},
		{"emergency without a reason", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Reason = "" })}, "event_invalid: event 0: reason must be 1 to 256 bytes of UTF-8 without control characters"},
		{"emergency of a plan", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Person = mustID("Plan:acme/p1") })}, "event_invalid: event 0: an emergency is about a person"},
		{"emergency nowhere", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Node = ID{} })}, "event_invalid: event 0: emergency: id type must be a letter followed by letters and digits, at most 64 bytes"},
		{"emergency opened by a group", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Principal = mustID("Group:acme/g1") })}, "event_invalid: event 0: only a principal opens an emergency"},
		{"review of nothing", nil, []Event{changed(seen, func(e *Event) { e.Review.Emergency = "" })}, "event_invalid: event 0: a review names an emergency"},
		{"review without an outcome", nil, []Event{changed(seen, func(e *Event) { e.Review.Outcome = "fine" })}, "event_invalid: event 0: outcome of a review must be justified or unjustified"},
		{"review of one's own", nil, []Event{broken, changed(seen, func(e *Event) { e.Review.By = mustID("User:dana") })}, "event_invalid: event 1: who opened an emergency does not review it"},
		{"review of one's own as another", nil, []Event{broken, person(Always, "Person:d", nil), person(Always, "Person:d2", nil), link(Always, LinkSelf, "User:dana", "Person:d"),
			link(Always, LinkSelf, "User:eve", "Person:d2"), link(Always, LinkMerge, "Person:d2", "Person:d"), seen}, "event_invalid: event 6: who opened an emergency does not review it"},
		{"review of one's own as another once", nil, []Event{broken, person(Always, "Person:d", nil), link(Always, LinkSelf, "User:dana", "Person:d"),
			link(during(0, 200), LinkSelf, "User:eve", "Person:d"), seen}, ""},
		// interval_inverted
		{"emergency ended at its start", nil, []Event{broken, endAt(KindEmergency, fact(5, 0), 100)}, "interval_inverted: event 1: the end lies at or before the start of the fact"},
		{"inverted", nil, []Event{node(during(5, 4), "Plan:acme/p9")}, "interval_inverted: event 0: valid time ends at or before its start"},
		{"empty", nil, []Event{node(during(5, 5), "Plan:acme/p9")}, "interval_inverted: event 0: valid time ends at or before its start"},
		{"zero", nil, []Event{node(Interval{}, "Plan:acme/p9")}, "interval_inverted: event 0: valid time ends at or before its start"},
		{"service inverted", nil, []Event{plain(func(g *Grant) { g.Scope.Service = during(3, 3) })}, "interval_inverted: event 0: service time ends at or before its start"},
		{"end at the start", nil, []Event{endAt(KindNode, fact(1, 5), 0-1)}, "interval_inverted: event 0: the end lies at or before the start of the fact"},
		// unknown_end, unknown_tenant
		{"edge to nothing", nil, []Event{edge(Always, "Group:acme/g1", "Plan:acme/p9")}, "unknown_end: event 0: Plan:acme/p9 does not exist in all of the valid time"},
		{"edge outlives its child", nil, []Event{edge(during(0, 101), "Group:acme/g2", "Plan:acme/p1")}, "unknown_end: event 0: Group:acme/g2 does not exist in all of the valid time"},
		{"edge within its child", nil, []Event{edge(during(0, 100), "Group:acme/g2", "Plan:acme/p1")}, ""},
		{"node to its end and on", nil, []Event{node(during(100, Forever), "Group:acme/g2"), edge(during(0, Forever), "Group:acme/g2", "Plan:acme/p1")}, ""},
		{"link to nobody", nil, []Event{link(Always, LinkSelf, "User:eve", "Person:nobody")}, "unknown_end: event 0: the other end of the self link does not exist in all of the valid time"},
		{"link from nobody", nil, []Event{link(Always, LinkSelf, "User:nobody", "Person:mia")}, "unknown_end: event 0: the one end of the self link does not exist in all of the valid time"},
		{"included role", nil, []Event{role("new", nil, []string{"none"})}, "unknown_end: event 0: role none does not exist in all of the valid time"},
		{"assigned role", nil, []Event{assign(Always, "User:eve", "none", "Plan:acme/p1")}, "unknown_end: event 0: role none does not exist in all of the valid time"},
		{"assignment to nobody", nil, []Event{assign(Always, "User:nobody", "broker", "Plan:acme/p1")}, "unknown_end: event 0: the principal does not exist in all of the valid time"},
		{"assignment outlives the principal", nil, []Event{assign(during(0, 101), "User:temp", "broker", "Plan:acme/p1")}, "unknown_end: event 0: the principal does not exist in all of the valid time"},
		{"assignment nowhere", nil, []Event{assign(Always, "User:eve", "broker", "Plan:acme/p9")}, "unknown_end: event 0: Plan:acme/p9 does not exist in all of the valid time"},
		{"entitlement of nothing", nil, []Event{entitle(Always, "none", "x")}, "unknown_end: event 0: Tenant:none does not exist in all of the valid time"},
		{"block of nobody", nil, []Event{block(Always, "Person:mia", "User:nobody")}, "unknown_end: event 0: the person or the principal does not exist in all of the valid time"},
		{"grant about nobody", nil, []Event{plain(func(g *Grant) { g.Subject = mustID("Person:nobody") })}, "unknown_end: event 0: the subject does not exist in all of the valid time"},
		{"grant to nobody", nil, []Event{plain(func(g *Grant) { g.Grantee = mustID("User:nobody") })}, "unknown_end: event 0: the grantee does not exist in all of the valid time"},
		{"grant by nobody", nil, []Event{plain(func(g *Grant) { g.Grantor = mustID("Person:nobody") })}, "unknown_end: event 0: the grantor does not exist in the valid time"},
		{"coverage unknown", nil, []Event{plain(func(g *Grant) { g.Scope.Coverage = mustID("Coverage:acme/c9") })}, "unknown_end: event 0: the coverage does not exist in the valid time"},
		{"parent grant unknown", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Parent = "none" })}, "unknown_end: event 0: the parent grant does not exist, or is voided"},
		{"parent grant voided", nil, []Event{void(KindGrant, fact(4, 0)), narrow(func(*Grant, *Interval) {})}, "unknown_end: event 1: the parent grant does not exist, or is voided"},
		{"end voided before", nil, []Event{void(KindNode, fact(1, 6)), edge(Always, "Group:acme/g1", "Plan:acme/p1")}, "unknown_end: event 1: Plan:acme/p1 does not exist in all of the valid time"},
		{"tenant unknown", nil, []Event{node(Always, "Plan:none/p1")}, "unknown_tenant: event 0: Tenant:none does not exist in all of the valid time"},
		{"role of no tenant", nil, []Event{role("none/x", nil, nil)}, "unknown_tenant: event 0: Tenant:none does not exist in the valid time"},
		{"setting of no tenant", nil, []Event{setting(Always, "none", "x", true)}, "unknown_end: event 0: Tenant:none does not exist in all of the valid time"},
		{"emergency of nobody", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Principal = mustID("User:nobody") })}, "unknown_end: event 0: the person or the principal does not exist in all of the valid time"},
		{"emergency for nobody", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Person = mustID("Person:nobody") })}, "unknown_end: event 0: the person or the principal does not exist in all of the valid time"},
		{"emergency outlives the principal", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Principal, e.Valid = mustID("User:temp"), during(90, 101) })}, "unknown_end: event 0: the person or the principal does not exist in all of the valid time"},
		{"emergency as long as the principal", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Principal, e.Valid = mustID("User:temp"), during(90, 100) })}, ""},
		{"emergency at another's node", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Person = mustID("Person:tom") })}, "unknown_end: event 0: the person does not own the node of the emergency"},
		{"emergency at the node of one merged", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Person, e.Valid = mustID("Person:tom"), during(49, 60) })}, ""},
		{"emergency at a node that nobody owns", nil, []Event{changed(broken, func(e *Event) { e.Emergency.Node = mustID("Plan:acme/p1") })}, "unknown_end: event 0: the person does not own the node of the emergency"},
		{"review of no emergency", nil, []Event{seen}, "unknown_end: event 0: no emergency has this id"},
		{"review of a voided emergency", nil, []Event{broken, void(KindEmergency, fact(5, 0)), seen}, "unknown_end: event 2: no emergency has this id"},
		{"review by nobody", nil, []Event{broken, changed(seen, func(e *Event) { e.Review.By = mustID("User:nobody") })}, "unknown_end: event 1: the reviewer is no principal that exists"},
		{"review by one who has left", nil, []Event{broken, changed(seen, func(e *Event) { e.Review.By = mustID("User:temp") })}, "unknown_end: event 1: the reviewer is no principal that exists"},
		{"review by a group", nil, []Event{broken, changed(seen, func(e *Event) { e.Review.By = mustID("Group:acme/g1") })}, "unknown_end: event 1: the reviewer is no principal that exists"},
		{"signature on no grant", nil, []Event{signed}, "unknown_end: event 0: the grant does not exist, or is voided"},
		{"signature on a voided grant", nil, []Event{parents, void(KindGrant, fact(5, 0)), signed}, "unknown_end: event 2: the grant does not exist, or is voided"},
		{"signature of one who has left", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.Principal, e.Valid = mustID("User:temp"), during(100, 101) })}, "unknown_end: event 1: who signs does not exist at that time"},
		{"signature by one who left later", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.Principal, e.Valid = mustID("User:temp"), during(99, 101) })}, ""},
		{"verified by nobody", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.Need = Need{SignerVerifier, mustID("User:nobody")} })}, "unknown_end: event 1: who signs does not exist at that time"},
		// need_unknown
		{"signature of another parent", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.By = mustID("Person:mia") })}, "need_unknown: event 1: the grant takes no signature of this co-signer"},
		{"signature as another", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.As = SignerSubject })}, "need_unknown: event 1: the grant takes no signature of this subject"},
		{"signature that is not needed", nil, []Event{plain(func(*Grant) {}), signed}, "need_unknown: event 1: the grant takes no signature of this co-signer"},
		{"verified by anybody", nil, []Event{parents, changed(signed, func(e *Event) { e.Signature.Need = Need{SignerVerifier, mustID("User:eve")} })}, ""},
		{"verified by another than named", nil, []Event{needs(Need{SignerVerifier, mustID("User:dana")}), changed(signed, func(e *Event) { e.Signature.Need = Need{SignerVerifier, mustID("User:eve")} })}, "need_unknown: event 1: the grant takes no signature of this verifier"},
		// emergency_future, emergency_long, emergency_open
		{"emergency now", nil, []Event{changed(broken, func(e *Event) { e.Valid = during(1000, 1000+MaxEmergency) })}, ""},
		{"emergency to come", nil, []Event{changed(broken, func(e *Event) { e.Valid = during(1001, 1002) })}, "emergency_future: event 0: an emergency starts no later than it is written"},
		{"emergency a millisecond long too", nil, []Event{changed(broken, func(e *Event) { e.Valid = during(0, 1+MaxEmergency) })}, "emergency_long: event 0: an emergency lasts at most 30 minutes"},
		{"emergency without an end", nil, []Event{changed(broken, func(e *Event) { e.Valid.To = Forever })}, "emergency_long: event 0: an emergency lasts at most 30 minutes"},
		{"emergency since ever", nil, []Event{changed(broken, func(e *Event) { e.Valid.From = Never })}, "emergency_long: event 0: an emergency lasts at most 30 minutes"},
		{"emergency at the end of time", nil, []Event{changed(broken, func(e *Event) { e.Valid = during(Forever-2, Forever-1) })}, "emergency_long: event 0: an emergency lasts at most 30 minutes"},
		{"emergency again", nil, []Event{broken, again(during(900, 950), "Person:mia")}, "emergency_open: event 1: another emergency of this principal for this person is not reviewed"},
		{"emergency again of one merged", nil, []Event{broken, again(during(49, 60), "Person:tom")}, "emergency_open: event 1: another emergency of this principal for this person is not reviewed"},
		{"emergency again of one merged the other way", nil, []Event{again(during(49, 60), "Person:tom"), changed(broken, func(e *Event) { e.Valid = during(49, 60) })}, "emergency_open: event 1: another emergency of this principal for this person is not reviewed"},
		{"emergency of another principal", nil, []Event{broken, changed(again(during(900, 950), "Person:mia"), func(e *Event) { e.Emergency.Principal = mustID("User:eve") })}, ""},
		{"emergency of another person", nil, []Event{broken, link(Always, LinkOwns, "Person:tom", "Plan:acme/p1"), changed(again(during(900, 950), "Person:tom"), func(e *Event) { e.Emergency.Node = mustID("Plan:acme/p1") })}, ""},
		{"emergency again after the end", nil, []Event{broken, endAt(KindEmergency, fact(5, 0), 200), again(during(900, 950), "Person:mia")}, "emergency_open: event 2: another emergency of this principal for this person is not reviewed"},
		{"emergency again after the review", nil, []Event{broken, seen, again(during(900, 950), "Person:mia")}, ""},
		{"emergency again, voided", nil, []Event{broken, void(KindEmergency, fact(5, 0)), again(during(900, 950), "Person:mia")}, ""},
		{"emergency again, review voided", nil, []Event{broken, seen, void(KindReview, fact(5, 1)), again(during(900, 950), "Person:mia")}, "emergency_open: event 3: another emergency of this principal for this person is not reviewed"},
		{"emergency again, review ended", nil, []Event{broken, seen, endAt(KindReview, fact(5, 1), 1000), again(during(900, 950), "Person:mia")}, "emergency_open: event 3: another emergency of this principal for this person is not reviewed"},
		{"emergency again, review to end", nil, []Event{broken, seen, endAt(KindReview, fact(5, 1), 1001), again(during(900, 950), "Person:mia")}, ""},
		{"emergency again, review to come", nil, []Event{broken, changed(seen, func(e *Event) { e.Valid.From = 1001 }), again(during(900, 950), "Person:mia")}, "emergency_open: event 2: another emergency of this principal for this person is not reviewed"},
		// unknown_fact
		{"end of nothing", nil, []Event{endAt(KindNode, fact(9, 0), 10)}, "unknown_fact: event 0: no fact of this kind has this id, or it is voided"},
		{"index beyond", nil, []Event{void(KindNode, fact(1, 99))}, "unknown_fact: event 0: no fact of this kind has this id, or it is voided"},
		{"other kind", nil, []Event{void(KindEdge, fact(1, 0))}, "unknown_fact: event 0: no fact of this kind has this id, or it is voided"},
		{"voided twice", nil, []Event{void(KindEdge, fact(3, 0)), void(KindEdge, fact(3, 0))}, "unknown_fact: event 1: no fact of this kind has this id, or it is voided"},
		{"ended before", nil, []Event{endAt(KindEdge, fact(3, 0), 50)}, "unknown_fact: event 0: the fact has ended by then already"},
		{"ended twice, earlier", nil, []Event{endAt(KindEdge, fact(3, 0), 40), endAt(KindEdge, fact(3, 0), 30)}, ""},
		{"ended twice, later", nil, []Event{endAt(KindEdge, fact(3, 0), 30), endAt(KindEdge, fact(3, 0), 40)}, "unknown_fact: event 1: the fact has ended by then already"},
		{"its own fact too early", nil, []Event{void(KindNode, fact(5, 1)), node(Always, "Plan:acme/p9")}, "unknown_fact: event 0: no fact of this kind has this id, or it is voided"},
		{"its own fact", nil, []Event{node(Always, "Plan:acme/p9"), void(KindNode, fact(5, 0)), node(Always, "Plan:acme/p9")}, ""},
		// tenancy_violation
		{"edge across tenants", nil, []Event{edge(Always, "Group:acme/g1", "Group:bolt/g1")}, "tenancy_violation: event 0: an edge must not lead from Group:acme/g1 to Group:bolt/g1"},
		{"edge to another Tenant", nil, []Event{edge(Always, "Group:acme/g1", "Tenant:bolt")}, "tenancy_violation: event 0: an edge must not lead from Group:acme/g1 to Tenant:bolt"},
		{"edge to the own Tenant", nil, []Event{edge(Always, "Group:acme/g1", "Tenant:acme")}, ""},
		{"tenant's node to the operator", nil, []Event{edge(Always, "Group:acme/g1", "Operator:pbm")}, "tenancy_violation: event 0: an edge must not lead from Group:acme/g1 to Operator:pbm"},
		{"Tenant to the operator", nil, []Event{edge(Always, "Tenant:acme", "Operator:pbm")}, ""},
		{"Tenant under a Tenant", nil, []Event{edge(Always, "Tenant:acme", "Tenant:bolt")}, "tenancy_violation: event 0: an edge must not lead from Tenant:acme to Tenant:bolt"},
		{"Tenant under its node", nil, []Event{edge(Always, "Tenant:acme", "Group:acme/g1")}, "tenancy_violation: event 0: an edge must not lead from Tenant:acme to Group:acme/g1"},
		{"tenant's node to a shared one", nil, []Event{edge(Always, "Plan:acme/p1", "Pharmacy:x")}, "tenancy_violation: event 0: an edge must not lead from Plan:acme/p1 to Pharmacy:x"},
		{"shared node to a tenant's", nil, []Event{edge(Always, "Pharmacy:x", "Plan:acme/p1")}, "tenancy_violation: event 0: an edge must not lead from Pharmacy:x to Plan:acme/p1"},
		{"shared node to the operator", nil, []Event{edge(Always, "Pharmacy:x", "Operator:pbm")}, "tenancy_violation: event 0: an edge must not lead from Pharmacy:x to Operator:pbm"},
		{"shared nodes", nil, []Event{edge(Always, "Pharmacy:x", "Chain:y"), edge(Always, "Chain:y", "Network:us")}, ""},
		{"network to the operator", nil, []Event{edge(Always, "Network:us", "Operator:pbm")}, "tenancy_violation: event 0: an edge must not lead from Network:us to Operator:pbm"},
		{"person's edge", nil, []Event{edge(Always, "Person:mia", "Plan:acme/p1")}, "tenancy_violation: event 0: persons and principals have no edges"},
		{"edge to a principal", nil, []Event{edge(Always, "Pharmacy:x", "User:dana")}, "tenancy_violation: event 0: persons and principals have no edges"},
		{"tenant's role elsewhere", nil, []Event{assign(Always, "User:eve", "acme/reviewer", "Group:bolt/g1")}, "tenancy_violation: event 0: role acme/reviewer must not be assigned at Group:bolt/g1"},
		{"tenant's role at the operator", nil, []Event{assign(Always, "User:eve", "acme/reviewer", "Operator:pbm")}, "tenancy_violation: event 0: role acme/reviewer must not be assigned at Operator:pbm"},
		{"tenant's role at its Tenant", nil, []Event{assign(Always, "User:eve", "acme/reviewer", "Tenant:acme")}, ""},
		{"role includes another tenant's", nil, []Event{role("acme/y", nil, []string{"bolt/x"})}, "tenancy_violation: event 0: role acme/y must not include bolt/x"},
		{"operator's role includes a tenant's", nil, []Event{role("y", nil, []string{"bolt/x"})}, "tenancy_violation: event 0: role y must not include bolt/x"},
		{"owned tenant", nil, []Event{link(Always, LinkOwns, "Person:mia", "Tenant:acme")}, "tenancy_violation: event 0: a person owns no tenant"},
		{"grant across tenants", nil, []Event{grant(Always, Grant{ID: "new", Type: "org-delegate", Grantor: mustID("Operator:pbm"), Grantee: mustID("User:dana"), Subject: mustID("Plan:acme/p1"), Scope: Scope{Coverage: mustID("Group:bolt/g1")}})}, "tenancy_violation: event 0: subject and coverage belong to two tenants"},
		{"import beyond its tenant", &Import{ID: "i", Tenant: "bolt", Step: ImportOpen}, []Event{node(Always, "Plan:acme/p9")}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		{"import beyond its tenant's edges", &Import{ID: "i", Tenant: "bolt", Step: ImportOpen}, []Event{edge(Always, "Pharmacy:x", "Chain:y")}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		{"import voids beyond its tenant", &Import{ID: "i", Tenant: "bolt", Step: ImportOpen}, []Event{void(KindEdge, fact(3, 0))}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		{"import of links", &Import{ID: "i", Tenant: "bolt", Step: ImportOpen}, []Event{person(Always, "Person:new", nil), link(Always, LinkOwns, "Person:new", "Group:bolt/g1")}, ""},
		{"grant to another tenant's organisation", nil, []Event{grant(Always, Grant{ID: "new", Type: "org-delegate", Grantor: mustID("Tenant:acme"), Grantee: mustID("Group:bolt/g1"), Subject: mustID("Plan:acme/p1")})}, ""},
		{"grant to an organisation about a person", nil, []Event{grant(Always, Grant{ID: "new", Type: "org-delegate", Grantor: mustID("Person:mia"), Grantee: mustID("Group:bolt/g1"), Subject: mustID("Person:mia")})}, ""},
		{"import of a setting", bolt, []Event{setting(Always, "bolt", "x", true)}, ""},
		{"import of another tenant's setting", bolt, []Event{setting(Always, "acme", "x", true)}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		{"import of a grant to another tenant", bolt, []Event{grant(Always, Grant{ID: "new", Type: "org-delegate", Grantor: mustID("Tenant:bolt"), Grantee: mustID("Group:acme/g1"), Subject: mustID("Group:bolt/g1")})}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		{"import of an emergency", bolt, []Event{broken}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		{"import of a review", bolt, []Event{seen}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		{"import of a signature", bolt, []Event{signed}, "tenancy_violation: event 0: an import of tenant bolt must not touch this"},
		// cycle
		{"edge to itself", nil, []Event{edge(Always, "Group:acme/g1", "Group:acme/g1")}, "cycle: event 0: the edge from Group:acme/g1 to Group:acme/g1 would close a cycle"},
		{"edge back", nil, []Event{edge(during(49, 60), "Plan:acme/p1", "Group:acme/g1")}, "cycle: event 0: the edge from Plan:acme/p1 to Group:acme/g1 would close a cycle"},
		{"edge back afterwards", nil, []Event{edge(during(50, 60), "Plan:acme/p1", "Group:acme/g1")}, ""},
		{"role includes itself", nil, []Event{role("y", nil, []string{"y"})}, "cycle: event 0: role y would include itself"},
		{"role includes its includer", nil, []Event{role("y", nil, []string{"broker"}), void(KindRole, fact(2, 0)), role("broker", nil, []string{"y"})}, "cycle: event 2: role broker would include itself"},
		{"grant back to its grantor", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Grantee = mustID("User:dana") })}, "cycle: event 0: the grantee is in the chain already"},
		{"grant to oneself", nil, []Event{plain(func(g *Grant) { g.Grantor = mustID("User:eve") })}, "cycle: event 0: grantor and grantee are the same"},
		// node_exists, duplicate_fact, grant_exists
		{"node twice", nil, []Event{node(during(0, 1), "Plan:acme/p1")}, "node_exists: event 0: Plan:acme/p1 exists in a part of the valid time already"},
		{"person twice", nil, []Event{person(during(0, 1), "Person:mia", nil)}, "node_exists: event 0: a person exists in a part of the valid time already"},
		{"principal twice", nil, []Event{user(during(0, 1), "User:dana")}, "node_exists: event 0: a principal exists in a part of the valid time already"},
		{"owned node twice", nil, []Event{node(during(0, 1), "Coverage:acme/c1")}, "node_exists: event 0: a node of type Coverage that a person owns exists in a part of the valid time already"},
		{"node replaced", nil, []Event{endAt(KindNode, fact(1, 6), 10), node(during(10, Forever), "Plan:acme/p1")}, ""},
		{"node replaced with an overlap", nil, []Event{endAt(KindNode, fact(1, 6), 10), node(during(9, Forever), "Plan:acme/p1")}, "node_exists: event 1: Plan:acme/p1 exists in a part of the valid time already"},
		{"edge twice", nil, []Event{edge(during(49, 60), "Group:acme/g1", "Plan:acme/p1")}, "duplicate_fact: event 0: the edge from Group:acme/g1 to Plan:acme/p1 is known for a part of the valid time"},
		{"edge again", nil, []Event{edge(during(50, 60), "Group:acme/g1", "Plan:acme/p1")}, ""},
		{"assignment twice", nil, []Event{assign(during(49, 60), "User:dana", "broker", "Group:acme/g1")}, "duplicate_fact: event 0: the assignment of role broker at Group:acme/g1 is known for a part of the valid time"},
		{"entitlement twice", nil, []Event{entitle(during(49, 60), "acme", "claims")}, "duplicate_fact: event 0: the entitlement of Tenant:acme to claims is known for a part of the valid time"},
		{"block twice", nil, []Event{block(during(49, 60), "Person:mia", "User:eve")}, "duplicate_fact: event 0: the block is known for a part of the valid time"},
		{"role twice", nil, []Event{role("broker", nil, nil)}, "duplicate_fact: event 0: role broker is known for a part of the valid time"},
		{"role replaced", nil, []Event{void(KindRole, fact(2, 0)), role("broker", nil, nil)}, ""},
		{"identity of two", nil, []Event{identity(during(49, 60), "https://idp", "sub-dana", "User:eve")}, "duplicate_fact: event 0: the identity link is known for a part of the valid time"},
		{"identity of another later", nil, []Event{identity(during(50, 60), "https://idp", "sub-dana", "User:eve")}, ""},
		{"merge twice", nil, []Event{link(during(49, 60), LinkMerge, "Person:mia", "Person:tom")}, "duplicate_fact: event 0: the merge link is known for a part of the valid time"},
		{"merge back", nil, []Event{link(during(49, 60), LinkMerge, "Person:tom", "Person:mia")}, "duplicate_fact: event 0: the merge link is known the other way round for a part of the valid time"},
		{"grant twice", nil, []Event{plain(func(g *Grant) { g.ID = "root" })}, "grant_exists: event 0: a grant with this id is known, even if it is over"},
		{"grant voided and again", nil, []Event{void(KindGrant, fact(4, 1)), plain(func(g *Grant) { g.ID = "child" })}, "grant_exists: event 1: a grant with this id is known, even if it is over"},
		{"setting twice", nil, []Event{setting(during(0, 50), "acme", "x", true), setting(during(49, 60), "acme", "x", "no")}, "duplicate_fact: event 1: Tenant:acme has said x for a part of the valid time"},
		{"setting changed", nil, []Event{setting(during(0, 50), "acme", "x", true), setting(during(50, 60), "acme", "x", "no"), setting(Always, "bolt", "x", true), setting(Always, "acme", "y", true)}, ""},
		{"emergency id twice", nil, []Event{broken, changed(broken, func(e *Event) { e.Emergency.Principal = mustID("User:eve") })}, "duplicate_fact: event 1: an emergency with this id is known, even if it is over"},
		{"emergency id of a voided one", nil, []Event{broken, void(KindEmergency, fact(5, 0)), broken}, "duplicate_fact: event 2: an emergency with this id is known, even if it is over"},
		{"reviewed twice", nil, []Event{broken, seen, changed(seen, func(e *Event) { e.Review.Outcome = "unjustified" })}, "duplicate_fact: event 2: the emergency is reviewed for a part of the valid time"},
		{"reviewed anew", nil, []Event{broken, seen, endAt(KindReview, fact(5, 1), 300), changed(seen, func(e *Event) { e.Valid.From = 300 })}, ""},
		{"signed twice", nil, []Event{parents, signed, changed(signed, func(e *Event) { e.Valid = during(49, 60) })}, "duplicate_fact: event 2: the grant is signed so for a part of the valid time"},
		{"signed again", nil, []Event{parents, signed, changed(signed, func(e *Event) { e.Valid = during(50, 60) })}, ""},
		{"verified by two", nil, []Event{parents, sign(Always, "new", SignerVerifier, "User:eve", "User:eve"), sign(Always, "new", SignerVerifier, "User:dana", "User:dana")}, "duplicate_fact: event 2: the grant is signed so for a part of the valid time"},
		// grant_wider, grant_depth, grant_limit
		{"narrow", nil, []Event{narrow(func(*Grant, *Interval) {})}, ""},
		{"wider subject", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Subject, g.EndsAtMajority = mustID("Person:tom"), false })}, "grant_wider: event 0: the subject is not that of the parent grant"},
		{"wider capabilities", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Scope.Capabilities = []string{"claim.view", "claim.edit"} })}, "grant_wider: event 0: the list of capabilities is wider than in the parent grant"},
		{"wider covers", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Scope.Covers = []string{"HIV"} })}, "grant_wider: event 0: the list of sensitivities is wider than in the parent grant"},
		{"wider purpose", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Purpose = []string{"FAMRQT", "PATRQT"} })}, "grant_wider: event 0: the list of purposes is wider than in the parent grant"},
		{"any purpose", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Purpose = nil })}, "grant_wider: event 0: the list of purposes is wider than in the parent grant"},
		{"any coverage", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Scope.Coverage = ID{} })}, "grant_wider: event 0: the coverage is wider than in the parent grant"},
		{"wider records", nil, []Event{plain(func(g *Grant) {
			g.ID, g.Grantee, g.Scope.Records, g.MayRedelegate, g.MaxDepth = "few", mustID("User:dana"), []string{"report:r1", "report:r2"}, true, 1
		}), plain(func(g *Grant) {
			g.Parent, g.Grantor, g.Scope.Records = "few", mustID("User:dana"), []string{"report:r1", "report:r3"}
		})}, "grant_wider: event 1: the list of records is wider than in the parent grant"},
		{"any record", nil, []Event{plain(func(g *Grant) {
			g.ID, g.Grantee, g.Scope.Records, g.MayRedelegate, g.MaxDepth = "few", mustID("User:dana"), []string{"report:r1"}, true, 1
		}), plain(func(g *Grant) { g.Parent, g.Grantor = "few", mustID("User:dana") })}, "grant_wider: event 1: the list of records is wider than in the parent grant"},
		{"fewer records", nil, []Event{plain(func(g *Grant) {
			g.ID, g.Grantee, g.Scope.Records, g.MayRedelegate, g.MaxDepth = "few", mustID("User:dana"), []string{"report:r1", "report:r2"}, true, 1
		}), plain(func(g *Grant) {
			g.Parent, g.Grantor, g.Scope.Records = "few", mustID("User:dana"), []string{"report:r2"}
		})}, ""},
		{"wider service", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Scope.Service.To++ })}, "grant_wider: event 0: the service time is wider than in the parent grant"},
		{"any service", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Scope.Service = Interval{} })}, "grant_wider: event 0: the service time is wider than in the parent grant"},
		{"later", nil, []Event{narrow(func(_ *Grant, v *Interval) { v.To++ })}, "grant_wider: event 0: the valid time is wider than in the parent grant"},
		{"earlier", nil, []Event{narrow(func(_ *Grant, v *Interval) { v.From = -1 })}, "unknown_end: event 0: the grantee does not exist in all of the valid time"},
		{"beyond the parent's end", nil, []Event{endAt(KindGrant, fact(4, 0), 40), narrow(func(_ *Grant, v *Interval) { v.To = 41 })}, "grant_wider: event 1: the valid time is wider than in the parent grant"},
		{"majority dropped", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.EndsAtMajority = false })}, "grant_wider: event 0: the parent grant ends at majority"},
		{"person two deep", nil, []Event{plain(func(g *Grant) { g.MayRedelegate, g.MaxDepth = true, 2 })}, "grant_depth: event 0: a chain about this kind of subject is at most 1 deep"},
		{"child of a child", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.Parent, g.Grantor = "child", mustID("User:eve") })}, "grant_depth: event 0: the parent grant may not be redelegated"},
		{"child hands on", nil, []Event{narrow(func(g *Grant, _ *Interval) { g.MayRedelegate, g.MaxDepth = true, 1 })}, "grant_depth: event 0: the grant may be redelegated deeper than the parent grant allows"},
		{"organisations four deep", nil, []Event{
			grant(Always, Grant{ID: "o1", Type: "org-delegate", Parent: "org", Grantor: mustID("Group:acme/g1"), Grantee: mustID("Tenant:acme"), Subject: mustID("Plan:acme/p1"), MayRedelegate: true, MaxDepth: 2}),
			grant(Always, Grant{ID: "o2", Type: "org-delegate", Parent: "o1", Grantor: mustID("Tenant:acme"), Grantee: mustID("Pharmacy:x"), Subject: mustID("Plan:acme/p1"), MayRedelegate: true, MaxDepth: 1}),
			grant(Always, Grant{ID: "o3", Type: "org-delegate", Parent: "o2", Grantor: mustID("Pharmacy:x"), Grantee: mustID("Chain:y"), Subject: mustID("Plan:acme/p1")}),
			grant(Always, Grant{ID: "o4", Type: "org-delegate", Parent: "o3", Grantor: mustID("Chain:y"), Grantee: mustID("Network:us"), Subject: mustID("Plan:acme/p1")}),
		}, "grant_depth: event 3: the parent grant may not be redelegated"},
		{"sixteen", nil, many[:15], ""},
		{"seventeen", nil, many, "grant_limit: event 15: 16 grants are live for this grantee and subject at an instant of the valid time"},
		{"seventeen requested", nil, requested, "grant_limit: event 15: 16 grants are live for this grantee and subject at an instant of the valid time"},
		{"sixteen and one ended", nil, append(append([]Event{endAt(KindGrant, fact(4, 1), 10)}, many[:15]...), plain(func(g *Grant) { g.ID = "late" })), "grant_limit: event 16: 16 grants are live for this grantee and subject at an instant of the valid time"},
		{"sixteen and one voided", nil, append([]Event{void(KindGrant, fact(4, 1))}, many...), ""},
		// of the batch
		{"import that is not open", &Import{ID: "i", Step: ImportMore}, nil, "import_unknown: batch: no import with this id, tenant and history is open"},
		{"history into a full store", &Import{ID: "i", Step: ImportOpen, History: true}, nil, "store_not_empty: batch: a history import needs a store without edges and links"},
		{"import without an id", &Import{Step: ImportOpen}, nil, "event_invalid: batch: import: id must be 1 to 256 bytes of UTF-8 without control characters"},
		{"import without a step", &Import{ID: "i"}, nil, "event_invalid: batch: import: step must be open, more, close or abandon"},
		{"abandon with events", &Import{ID: "i", Step: ImportAbandon}, []Event{node(Always, "Plan:acme/p9")}, "event_invalid: batch: import: the batch that abandons an import holds no events"},
		{"too large", nil, make([]Event, MaxBatchEvents+1), "batch_too_large: batch: more than 10000 events"},
	}
	codes := map[string]bool{}
	secrets := regexp.MustCompile(`\b(mia|tom|dana|eve|temp|nobody|c1|c9|sub-dana|idp)\b`)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := refusalWorld(t)
			if test.want == "" {
				if err := b.try(test.imp, test.events...); err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			got := b.refused(test.imp, test.events...)
			if got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
			code, _, _ := strings.Cut(got, ":")
			codes[code] = true
			if secret := secrets.FindString(got); secret != "" {
				t.Errorf("the refusal names %s: %s", secret, got)
			}
		})
	}
	t.Run("without provenance", func(t *testing.T) {
		b := newBench(t)
		batch := b.batch(nil)
		batch.Provenance = Provenance{}
		want := "event_invalid: batch: provenance: who: id type must be a letter followed by letters and digits, at most 64 bytes"
		if err := b.g.Check(batch); err == nil || err.Error() != want {
			t.Errorf("got %v; want %s", err, want)
		}
	})
	t.Run("time", func(t *testing.T) {
		b := refusalWorld(t)
		b.time--
		if got, want := b.refused(nil), "time_reversed: batch: transaction time is before 1970-01-01T00:00:01.000Z, that of revision 4"; got != want {
			t.Errorf("got %s; want %s", got, want)
		}
		codes[CodeTimeReversed] = true
	})
	t.Run("import open", func(t *testing.T) {
		b := refusalWorld(t)
		b.in(&Import{ID: "i", Tenant: "acme", Step: ImportOpen}, void(KindEdge, FactID{3, 0}))
		for _, test := range []struct {
			m      *Import
			events []Event
			want   string
		}{
			{&Import{ID: "j", Tenant: "acme", Step: ImportOpen}, nil, "import_open: batch: an import of tenant acme is open"},
			{&Import{ID: "i", Tenant: "bolt", Step: ImportOpen}, nil, "import_open: batch: an import with this id is open"},
			{&Import{ID: "i", Tenant: "bolt", Step: ImportMore}, nil, "import_unknown: batch: no import with this id, tenant and history is open"},
			{&Import{ID: "h", Step: ImportOpen, History: true}, nil, "import_open: batch: a history import cannot start while another import is open"},
			{nil, []Event{endAt(KindEdge, FactID{3, 0}, 20)}, "import_open: event 0: an open import is ending or voiding this fact"},
		} {
			if got := b.refused(test.m, test.events...); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
		}
		codes[CodeImportOpen] = true
	})
	// Every code of this package is in the table.
	src, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Code\w+ += "(\w+)"`).FindAllStringSubmatch(string(src), -1) {
		if !codes[m[1]] {
			t.Errorf("no test reads a refusal with code %s", m[1])
		}
	}
}

func TestCheckOfAStaleBatch(t *testing.T) {
	b := refusalWorld(t)
	batch := b.batch(nil)
	batch.Revision--
	if err := b.g.Check(batch); !errors.Is(err, ErrConflict) {
		t.Errorf("a batch with the number of the tip: %v; want ErrConflict", err)
	}
	batch = b.batch(nil)
	batch.Prev[0] ^= 1
	if err := b.g.Check(batch); !errors.Is(err, ErrConflict) {
		t.Errorf("a batch after another head: %v; want ErrConflict", err)
	}
	batch.Revision, batch.Prev = 0, Hash{}
	if err := b.g.Check(batch); err != nil {
		t.Errorf("a batch that is not placed yet: %v", err)
	}
}

// TestCheckLeavesNothing checks a large refused batch: the graph keeps nothing of it.
func TestCheckLeavesNothing(t *testing.T) {
	b := refusalWorld(t)
	before, kinds := b.g.syms.n, len(b.g.syms.types.Load().names)
	var events []Event
	for i := range 100 {
		events = append(events, node(Always, fmt.Sprintf("T%d:acme/x%d", i, i)))
		if i > 0 {
			e := edge(Always, fmt.Sprintf("T%d:acme/x%d", i, i), fmt.Sprintf("T%d:acme/x%d", i-1, i-1))
			e.Edge.Kind = fmt.Sprint("kind", i)
			events = append(events, e)
		}
	}
	b.refused(nil, append(events, edge(Always, "T0:acme/x0", "T99:acme/x99"))...)
	if b.g.syms.n != before || len(b.g.syms.types.Load().names) != kinds {
		t.Error("a refused batch left symbols behind")
	}
	b.do(events...)
}
