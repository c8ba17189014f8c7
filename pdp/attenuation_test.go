package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// labSite is a site of the ceilingPack, with a tenant, its units and an admin for
// each right that may confer.
func labSite(t *testing.T) *site {
	s := open(t, ceilingPack(), "2026-11-24T12:00:00Z")
	s.know(`
		node Tenant:acme
		Tenant:acme operatedBy Operator:ward
		node Unit:acme/u
		node Unit:acme/v
		node Unit:acme/w
		Unit:acme/u under Tenant:acme
		person Person:pat
		principal User:sue
		principal User:bob
		principal Admin:tina
		1001@unix is Admin:tina`)
	s.define("acting", "role.define,role.assign,hierarchy.change,hierarchy.import,link.change,grant.change,audit.read", "")
	s.know("Admin:tina holds acting at Tenant:acme")
	return s
}

// define asserts a role, in place of one of that name.
func (s *site) define(name, capabilities, includes string) {
	s.t.Helper()
	s.change(s.defined(name, capabilities, includes)...)
}

func (s *site) defined(name, capabilities, includes string) []hierarchy.Event {
	split := func(list string) []string {
		return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
	}
	e := asserted(hierarchy.KindRole, hierarchy.Always)
	e.Role = &hierarchy.Role{Name: name, Capabilities: split(capabilities), Includes: split(includes)}
	for _, f := range s.factsOf(hierarchy.KindRole) {
		if f.Event.Role.Name == name {
			return []hierarchy.Event{{Op: hierarchy.Void, Kind: hierarchy.KindRole, Fact: f.ID}, e}
		}
	}
	return []hierarchy.Event{e}
}

// as makes a change as an identity, and returns the code of its refusal, or "".
func (s *site) as(sub string, m *hierarchy.Import, events ...hierarchy.Event) string {
	s.t.Helper()
	actor, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: sub})
	must(s.t, err)
	_, err = s.p.Change(context.Background(), Change{Actor: actor, Caller: adminCaller, Events: events, Import: m, Why: "test"})
	var e *authz.Error
	var r *hierarchy.Refusal
	switch {
	case errors.As(err, &e):
		return string(e.Code)
	case errors.As(err, &r):
		return r.Code
	case err != nil:
		s.t.Fatal(err)
	}
	return ""
}

func (s *site) line(sub, text string) string {
	s.t.Helper()
	events, err := sentences(text)
	must(s.t, err)
	return s.as(sub, nil, events...)
}

// code fails unless a change came out as it should.
func code(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func (s *site) voided(kind hierarchy.Kind, of func(hierarchy.Event) bool) hierarchy.Event {
	s.t.Helper()
	for _, f := range s.factsOf(kind) {
		if of(f.Event) {
			return hierarchy.Event{Op: hierarchy.Void, Kind: kind, Fact: f.ID}
		}
	}
	s.t.Fatal("no such fact")
	return hierarchy.Event{}
}

func TestWhatATenantsAdminConfers(t *testing.T) {
	s := labSite(t)
	// Within the ceiling, by a shipped role and by one of the tenant's own.
	code(t, "a writer", s.line("1001", "User:bob holds writer at Unit:acme/u"), "")
	code(t, "a role", s.as("1001", nil, s.defined("acme/aide", "doc.read", "writer")...), "")
	code(t, "its holder", s.line("1001", "User:sue holds acme/aide at Unit:acme/u"), "")
	code(t, "a right that tina holds", s.as("1001", nil, s.defined("acme/watch", "audit.read", "")...), "")
	// Above it.
	code(t, "a signer", s.line("1001", "User:sue holds signer at Unit:acme/u"), "above_ceiling")
	code(t, "a role that signs", s.as("1001", nil, s.defined("acme/sign", "doc.sign", "")...), "above_ceiling")
	code(t, "one that includes it", s.as("1001", nil, s.defined("acme/sign", "", "signer")...), "above_ceiling")
	code(t, "the holder's role, redefined", s.as("1001", nil, s.defined("acme/aide", "doc.read,doc.sign", "")...), "above_ceiling")
	// What tina does not hold herself.
	code(t, "a right", s.line("1001", "Admin:tina holds security-admin at Unit:acme/u"), "not_conferrable")
	code(t, "a role with one", s.as("1001", nil, s.defined("acme/aide", "policy.read", "")...), "not_conferrable")
	// The operator's admin does all of it.
	code(t, "by ana", s.line("1000", "User:sue holds signer at Unit:acme/u"), "")
}

func TestWhatARoleWillHoldCounts(t *testing.T) {
	s := labSite(t)
	s.define("soon", "doc.read", "")
	f := s.voided(hierarchy.KindRole, func(e hierarchy.Event) bool { return e.Role.Name == "soon" }).Fact
	s.end(f, hierarchy.KindRole, "2026-12-01T00:00:00Z")
	december, err := ParseTime("2026-12-01", "", false)
	must(t, err)
	next := asserted(hierarchy.KindRole, hierarchy.Interval{From: december, To: hierarchy.Forever})
	next.Role = &hierarchy.Role{Name: "soon", Capabilities: []string{"policy.read"}}
	s.change(next)
	code(t, "what is a right only from December", s.line("1001", "Admin:tina holds soon at Unit:acme/u"), "not_conferrable")
}

func TestWhatAnEdgeConfers(t *testing.T) {
	s := labSite(t)
	s.know("User:sue holds signer at Unit:acme/v")
	code(t, "a unit under the signer's", s.line("1001", "Unit:acme/u under Unit:acme/v"), "above_ceiling")
	code(t, "a unit further below", s.line("1001", "Unit:acme/v under Unit:acme/w"), "")
	code(t, "in the past", s.line("1001", "Unit:acme/u under Unit:acme/v from 2020-01-01 to 2020-12-31"), "above_ceiling")
	code(t, "by ana", s.line("1000", "Unit:acme/u under Unit:acme/v"), "")
	code(t, "again, where it stands above", s.line("1001", "node Unit:acme/x\nUnit:acme/x under Unit:acme/u"), "above_ceiling")

	s = labSite(t)
	s.know("principal Admin:olaf\nAdmin:olaf holds security-admin at Unit:acme/v")
	code(t, "a unit under an admin's", s.line("1001", "Unit:acme/u under Unit:acme/v"), "not_conferrable")
	open := &hierarchy.Import{ID: "i", Tenant: "acme", Step: hierarchy.ImportOpen}
	code(t, "by an import", s.as("1001", open, mustEvent(t, "Unit:acme/u under Unit:acme/v")), "not_conferrable")
	// Edges that confer nothing give nothing.
	code(t, "a near unit", s.line("1001", "Unit:acme/u near Unit:acme/v"), "")
	// A grant about a unit is held there too.
	s.know("grant g-1 share User:sue for Unit:acme/w by Operator:ward can doc.sign")
	code(t, "a unit under a shared one", s.line("1001", "Unit:acme/u under Unit:acme/w"), "above_ceiling")
	// Who confers at the network confers anything.
	s = labSite(t)
	s.know("node Site:a\nnode Site:b\nSite:a at Network:network\nprincipal Admin:site\n1003@unix is Admin:site\nAdmin:site holds acting at Site:a\nAdmin:site holds acting at Site:b")
	code(t, "a site under the network, by a site's admin", s.line("1003", "Site:b at Site:a"), "no_standing")
	code(t, "by ana", s.line("1000", "Site:b at Site:a"), "")
}

func TestWhatALinkConfers(t *testing.T) {
	s := labSite(t)
	s.define("linker", "link.change,hierarchy.change", "")
	s.know("principal Admin:lou\n1002@unix is Admin:lou\nAdmin:lou holds linker at Operator:ward")
	code(t, "an identity of an admin", s.line("1002", "6666@unix is Admin:ana"), "not_conferrable")
	code(t, "one of a user", s.line("1002", "sue@idp is User:sue"), "")
	code(t, "by ana", s.line("1000", "6666@unix is Admin:ana"), "")
	// An admin that is ended and made again has its rights again.
	s.know("principal Admin:old\nAdmin:old holds security-admin at Tenant:acme")
	s.change(s.voided(hierarchy.KindNode, func(e hierarchy.Event) bool { return e.Node.ID.String() == "Admin:old" }))
	code(t, "an admin revived", s.line("1002", "principal Admin:old"), "not_conferrable")
	code(t, "a new one", s.line("1002", "principal Admin:new"), "")
	code(t, "by ana", s.line("1000", "principal Admin:old"), "")
	// Who owns a node has the self role there, and so have their proxies.
	code(t, "an owner", s.line("1001", "Person:pat owns Unit:acme/u"), "")
	s.know("grant g-1 proxy User:sue for Person:pat can doc.assist")
	code(t, "an owner whose proxy may more", s.line("1001", "Person:pat owns Unit:acme/v"), "above_ceiling")
	// A block stands on what its person owns.
	owned := s.voided(hierarchy.KindLink, func(e hierarchy.Event) bool { return e.Link.Kind == hierarchy.LinkOwns })
	s.know("Person:pat blocks User:bob")
	code(t, "an owner with a block gone", s.as("1001", nil, owned), "no_standing")
	code(t, "and back in one change", s.as("1000", nil, owned, mustEvent(t, "Person:pat owns Unit:acme/u")), "")
}

func TestWhatANodeConfersAgain(t *testing.T) {
	s := labSite(t)
	s.know("User:sue holds signer at Unit:acme/v")
	s.change(s.voided(hierarchy.KindNode, func(e hierarchy.Event) bool { return e.Node.ID.String() == "Unit:acme/v" }))
	code(t, "a unit revived", s.line("1001", "node Unit:acme/v"), "above_ceiling")
	code(t, "a new one", s.line("1001", "node Unit:acme/new"), "")
	code(t, "by ana", s.line("1000", "node Unit:acme/v"), "")
	attrs := s.voided(hierarchy.KindNode, func(e hierarchy.Event) bool { return e.Node.ID.String() == "Unit:acme/v" })
	code(t, "stated anew", s.as("1001", nil, attrs, mustEvent(t, "node Unit:acme/v")), "")
}

func TestWhatAGrantConfers(t *testing.T) {
	s := labSite(t)
	code(t, "as the person", s.line("1000", "grant g-1 proxy User:sue for Person:pat can doc.read,doc.assist"), "")
	code(t, "more than the person has", s.line("1000", "grant g-2 proxy User:sue for Person:pat can doc.write"), "above_ceiling")
	code(t, "more than the type gives", s.line("1000", "grant g-2 share User:sue for Person:pat can doc.assist"), "above_ceiling")
	code(t, "to administer", s.line("1000", "grant g-2 share User:sue for Unit:acme/u by Operator:ward can audit.read"), "not_conferrable")
	code(t, "a tenant's own unit", s.line("1001", "grant g-2 share User:sue for Unit:acme/u can doc.write"), "")
	code(t, "above its ceiling", s.line("1001", "grant g-3 share User:sue for Unit:acme/u can doc.sign"), "above_ceiling")
	code(t, "in the operator's name, by tina", s.line("1001", "grant g-3 share User:sue for Unit:acme/u by Operator:ward can doc.sign"), "above_ceiling")
	code(t, "by ana", s.line("1000", "grant g-3 share User:sue for Unit:acme/u by Operator:ward can doc.sign"), "")
}

// A refusal says what is too much, and where.
func TestARefusalSaysWhatIsTooMuch(t *testing.T) {
	s := labSite(t)
	tina, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	for line, want := range map[string]string{
		"User:sue holds signer at Unit:acme/u":           "doc.sign is above the ceiling at Unit:acme/u: the roles that the pack lists as tenantRoles do not hold it (record a-",
		"Admin:tina holds security-admin at Unit:acme/u": "who makes the change does not hold block.change at Unit:acme/u and so cannot give it (record a-",
	} {
		_, err := s.p.Change(context.Background(), Change{Actor: tina, Caller: adminCaller, Events: []hierarchy.Event{mustEvent(t, line)}})
		var e *authz.Error
		if !errors.As(err, &e) || !strings.HasPrefix(e.Text, want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Only that a person exists is a feed's to say, not when they come of age.
func TestAnImportSaysNothingOfAPerson(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("principal Admin:tina\n1001@unix is Admin:tina\nAdmin:tina holds security-admin at Tenant:acme")
	open := func(id string) *hierarchy.Import {
		return &hierarchy.Import{ID: id, Tenant: "acme", Step: hierarchy.ImportOpen}
	}
	bareKid := asserted(hierarchy.KindNode, hierarchy.Always)
	bareKid.Node = &hierarchy.Node{ID: hierarchy.PersonID("kid")}
	code(t, "a birthday", s.as("1001", open("i1"), mustEvent(t, "person Person:kid born 2020-01-01 in US-OH")), "no_standing")
	code(t, "a person", s.as("1001", open("i2"), bareKid), "")
}

// otherwise returns the ceilingPack with texts of its catalogue and roles replaced.
func otherwise(t *testing.T, replace ...string) *policies.Set {
	t.Helper()
	var archive struct{ Files map[string]string }
	must(t, json.Unmarshal(ceilingPack().Archive(), &archive))
	files, r := map[string][]byte{}, strings.NewReplacer(replace...)
	for name, text := range archive.Files {
		files[name] = []byte(r.Replace(text))
	}
	return compiled(t, files)
}

// An activation gives nobody a right of Ward's own that the activator lacks.
func TestWhatAnActivationConfers(t *testing.T) {
	s := labSite(t)
	s.define("activator", "policy.activate", "")
	s.know("principal Admin:pol\n1004@unix is Admin:pol\nAdmin:pol holds activator at Operator:ward")
	activate := func(sub string, set *policies.Set) string {
		actor, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: sub})
		must(t, err)
		_, err = s.p.Activate(context.Background(), Change{Actor: actor, Caller: adminCaller}, set)
		var e *authz.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatal(err)
		}
		if err != nil {
			return string(e.Code)
		}
		return ""
	}
	code(t, "a role that signs", activate("1004", otherwise(t, "reader: {capabilities: [doc.read]}", "reader: {capabilities: [doc.read, doc.sign]}")), "")
	code(t, "a role that administers", activate("1004", otherwise(t, "reader: {capabilities: [doc.read]}", "reader: {capabilities: [doc.read, role.assign]}")), "not_conferrable")
	code(t, "by way of another", activate("1004", otherwise(t, "reader: {capabilities: [doc.read]}", "reader: {includes: [security-admin]}")), "not_conferrable")
	code(t, "an edge kind that confers", activate("1004", otherwise(t, "near: {confers: false}", "near: {confers: true, from: [Unit], to: [Unit]}")), "not_conferrable")
	code(t, "by ana", activate("1000", otherwise(t, "near: {confers: false}", "near: {confers: true, from: [Unit], to: [Unit]}")), "")
	code(t, "back, by pol", activate("1004", ceilingPack()), "")
}

// What a tenant's role and a grant confer is bounded again when they are read,
// by the set then in force.
func TestWhatIsReadIsBoundedAgain(t *testing.T) {
	s := labSite(t)
	s.define("acme/aide", "doc.read,doc.write,audit.read", "")
	s.know(`
		User:sue holds acme/aide at Unit:acme/u
		Admin:tina holds acme/aide at Tenant:acme
		Person:pat owns Unit:acme/u
		grant g-1 proxy User:bob for Person:pat can doc.read,doc.assist
		principal User:org
		grant g-2 share User:org for Unit:acme/u can doc.write`)
	ask := func(user, action, answer string) {
		t.Helper()
		s.want(request("docs", "user:"+user, action, "doc:x", "unit", "Unit:acme/u", "site", nil), answer)
	}
	ask("sue", "doc.write", "allow permitted")
	ask("bob", "doc.assist", "allow permitted")
	ask("org", "doc.write", "allow permitted")
	_, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller}, otherwise(t, "tenantRoles: [writer]", "tenantRoles: [reader]",
		"proxy: {capabilities: [doc.assist]}", "proxy: {}"))
	must(t, err)
	ask("sue", "doc.read", "allow permitted")
	ask("sue", "doc.write", "deny denied")
	ask("bob", "doc.read", "allow permitted")
	ask("bob", "doc.assist", "deny denied")
	ask("org", "doc.write", "deny denied")
	// Of Ward's own a tenant's role keeps what it was given.
	tina, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	if j := w.judge(ownQuestion(tina, adminCaller, "audit.read", hierarchy.TenantID("acme"), nil)); !j.verdict.Effect {
		t.Errorf("audit.read: %s", j.verdict.Code)
	}
	// Without tenantRoles a tenant's roles hold nothing of the pack.
	_, err = s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller}, otherwise(t, "tenantRoles: [writer]\n", ""))
	must(t, err)
	ask("sue", "doc.read", "deny denied")
}
