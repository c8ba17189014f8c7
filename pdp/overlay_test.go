package pdp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/storetest"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
	"github.com/ward-authz/ward/policies"
)

// Rules that a tenant may have over the shipped pack.
const (
	noClaims = `@id("no-claims") forbid (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim) when { !(principal.persons.containsAny(resource.owners)) };`
	noSearch = `@id("no-search") forbid (principal is PBM::User, action == PBM::Action::"feature.see", resource is PBM::Feature) when { resource.capability == "claim.search" };`
	overflow = `@id("overflow") forbid (principal is PBM::User, action in [PBM::Action::"claim.view", PBM::Action::"feature.see"], resource) when { context.aal + 9223372036854775807 > 0 };`
)

func rules(text ...string) map[string][]byte {
	return map[string][]byte{"rules.cedar": []byte(strings.Join(text, "\n"))}
}

// overlay puts rules in force for a tenant, or without any removes them.
func (s *site) overlay(actor authz.Subject, tenant string, text ...string) error {
	c := Change{Actor: actor, Caller: adminCaller, Why: "test"}
	var err error
	if len(text) == 0 {
		_, err = s.p.RemoveOverlay(context.Background(), c, tenant)
	} else {
		_, _, err = s.p.ActivateOverlay(context.Background(), c, tenant, rules(text...))
	}
	return err
}

// adminOf returns an admin with another user id.
func adminOf(t testing.TB, uid string) authz.Subject {
	t.Helper()
	a, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: uid})
	must(t, err)
	return a
}

func refusedAs(err error) string {
	var e *authz.Error
	var r *hierarchy.Refusal
	var d *policies.Diagnostics
	switch {
	case errors.As(err, &e):
		return string(e.Code)
	case errors.As(err, &r):
		return r.Code
	case errors.As(err, &d):
		return d.Findings[0].Code
	}
	return fmt.Sprint(err)
}

func TestAnOverlayChangesItsTenantAlone(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	at := func(user, coverage string) authz.Request {
		return claimOf(user, claim(coverage, "Pharmacy:p1", "2026-08-01", "routine")...)
	}
	acme, zeta, own := at("olga", "Coverage:acme/cov1"), at("olga", "Coverage:zeta/cov9"), at("pat", "Coverage:acme/cov1")
	before := s.p.current.Load().head.Revision
	s.want(acme, "allow permitted")
	must(t, s.overlay(s.admin, "acme", noClaims))
	if d := s.want(acme, "deny forbidden"); !slices.Equal(d.Reasons, []string{"acme/no-claims"}) {
		t.Errorf("reasons %q", d.Reasons)
	}
	s.want(zeta, "allow permitted")
	s.want(own, "allow permitted")
	if x := s.rejudge(acme); !strings.Contains(x, "acme/no-claims forbids") {
		t.Errorf("explained as %s", x)
	}
	// The next start knows it, and the past does not.
	again, err := Open(context.Background(), s.config())
	must(t, err)
	if d, err := again.Decide(context.Background(), acme); err != nil || d.Code != authz.Forbidden {
		t.Errorf("after a start: %s %v", d.Code, err)
	}
	for rev, want := range map[uint64]authz.Code{before: authz.Permitted, 0: authz.Forbidden} {
		a, err := s.p.Ask(context.Background(), Inquiry{Actor: s.admin, Caller: adminCaller, Requests: []authz.Request{acme}, KnownAt: rev})
		if err != nil || a.Verdicts[0].Code != want {
			t.Errorf("known at %d: %v %v", rev, a.Verdicts, err)
		}
	}
	// Another tenant's leaves it alone, a later one takes its place, and it can be removed.
	must(t, s.overlay(s.admin, "zeta", noClaims))
	s.want(zeta, "deny forbidden")
	must(t, s.overlay(s.admin, "acme", noSearch))
	s.want(acme, "allow permitted")
	must(t, s.overlay(s.admin, "zeta"))
	s.want(zeta, "allow permitted")
	if got := refusedAs(s.overlay(s.admin, "zeta")); got != "overlay_unknown" {
		t.Errorf("removed twice: %s", got)
	}
}

func TestAnOverlayMayOnlyForbid(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	head := s.p.Graph().Head()
	for text, want := range map[string]string{
		`@id("all") permit (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim);`: policies.CodeOverlayPermit,
		`@id("lock") forbid (principal, action, resource);`:                                                        policies.CodeOverlayBuiltin,
		`@id("x") forbid (principal is PBM::User, action == PBM::Action::"claim.vue", resource is PBM::Claim);`:    policies.CodeValidationFailed,
	} {
		if got := refusedAs(s.overlay(s.admin, "acme", text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := refusedAs(s.overlay(s.admin, "nowhere", noClaims)); got != hierarchy.CodeUnknownTenant {
		t.Errorf("of an unknown tenant: %s", got)
	}
	// No activation comes in beside one that was checked, or without any.
	smuggled := hierarchy.Event{Op: hierarchy.Assert, Kind: hierarchy.KindActivation, Valid: hierarchy.Always,
		Activation: &hierarchy.Activation{Digest: "sha256:" + strings.Repeat("0", 64), Tenant: "zeta"}}
	for name, err := range map[string]error{
		"alone": func() error {
			_, err := s.p.Change(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{smuggled}})
			return err
		}(),
		"beside": func() error {
			_, _, err := s.p.ActivateOverlay(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Events: []hierarchy.Event{smuggled}}, "acme", rules(noClaims))
			return err
		}(),
	} {
		if got := refusedAs(err); got != "activation_unchecked" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if s.p.Graph().Head() != head {
		t.Error("something was changed")
	}
}

func TestWhoMayChangeAnOverlay(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know(`principal Admin:tina
		1001@unix is Admin:tina
		Admin:tina holds security-admin at Tenant:acme
		principal Admin:aud
		1002@unix is Admin:aud
		Admin:aud holds auditor at Operator:ward`)
	tina, aud := adminOf(t, "1001"), adminOf(t, "1002")
	o, err := policies.CompileOverlay(s.p.Set(), "zeta", rules(noSearch))
	must(t, err)
	size := s.ledger.Size()
	for tenant, who := range map[string]authz.Subject{"zeta": tina, "acme": aud} {
		if got := refusedAs(s.overlay(who, tenant, noSearch)); got != string(authz.NoStanding) && got != string(authz.Denied) {
			t.Errorf("%s at %s: %s", who.ID, tenant, got)
		}
	}
	if _, err := s.store.GetBlob(context.Background(), o.Digest()); err == nil {
		t.Error("what was denied is in the store")
	}
	if got := s.ledger.Size() - size; got != 2 {
		t.Errorf("%d denies are on record, want 2", got)
	}
	must(t, s.overlay(tina, "acme", noClaims))
	if got := refusedAs(s.overlay(tina, "zeta")); got != string(authz.NoStanding) {
		t.Errorf("removed by another tenant's admin: %s", got)
	}
	e, err := s.ledger.Entry(s.ledger.Size() - 2)
	must(t, err)
	if e.Kind != audit.Change || !strings.Contains(string(e.Clear), `"actions":["overlay.activate"]`) || !strings.Contains(string(e.Clear), `"right":"ward.overlay.activate"`) {
		t.Errorf("the change is recorded as %s %s", e.Kind, e.Clear)
	}
	b, _ := s.p.Graph().Batch(s.p.Graph().Head().Revision)
	if b.Provenance.Who.String() != "Admin:tina" {
		t.Errorf("made by %s", b.Provenance.Who)
	}
	must(t, s.p.PermitAt(context.Background(), tina, adminCaller, "policy.read", "acme"))
	for _, tenant := range []string{"zeta", "nowhere"} {
		if err := s.p.PermitAt(context.Background(), tina, adminCaller, "policy.read", tenant); err == nil {
			t.Errorf("tina reads the overlay of %s", tenant)
		}
	}
}

// An erroring forbid of an overlay denies, whatever the attempt that it is in.
func TestAnOverlayThatErrorsDenies(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	acme := claimOf("olga", claim("Coverage:acme/cov1", nil, "2026-08-01", "routine")...)
	must(t, s.overlay(s.admin, "acme", overflow, strings.Replace(noClaims, "!(", "false && !(", 1)))
	d := s.want(acme, "deny indeterminate")
	if d.Cedar != "allow" || !slices.Equal(d.Errors, []string{"acme/overflow"}) {
		t.Errorf("cedar's answer %q, errors %q", d.Cedar, d.Errors)
	}
	s.want(claimOf("olga", claim("Coverage:zeta/cov9", nil, "2026-08-01", "routine")...), "allow permitted")

	// The attempt of a grant as well: the allow of the one without does not help.
	s.know(`principal User:mia
		User:mia holds ops at Tenant:zeta
		grant g-9 adult-proxy User:mia for Person:pat can claim.view`)
	s.want(claimOf("mia", claim("Coverage:acme/cov1", nil, "2026-08-01", "routine")...), "deny indeterminate")
}

// A tenant's own rule is asked in every attempt: its forbid ends that of a grant.
func TestAnOverlayEndsAGrantsAttempt(t *testing.T) {
	s := open(t, pbm(), "2026-11-20T12:00:00Z")
	s.know(family)
	ask := request("labs-service", "user:mia", "lab.view", "lab:l1", lab("l1", "routine")...)
	s.want(ask, "allow permitted")
	must(t, s.overlay(s.admin, "general", `@id("no-grants") forbid (principal is PBM::User, action == PBM::Action::"lab.view", resource is PBM::Lab) when { context has grant };`))
	s.want(ask, "deny forbidden")
	s.want(request("labs-service", "user:leo", "lab.view", "lab:l1", lab("l1", "routine")...), "allow permitted")
}

// A coarse question is judged by the overlay of each area it tries.
func TestAnOverlayInTheAreasOfACoarseQuestion(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("User:bo holds broker at Group:zeta/g1")
	ask := func(area string) authz.Request {
		r := request("shell", "user:bo", "feature.see", "feature:claims.search")
		r.Area = area
		return r
	}
	areas := func(want ...string) {
		t.Helper()
		if d := s.want(ask(""), "allow permitted"); !slices.Equal(d.Areas, want) {
			t.Errorf("areas %q, want %q", d.Areas, want)
		}
	}
	areas("Tenant:acme", "Tenant:zeta")
	must(t, s.overlay(s.admin, "acme", noSearch))
	areas("Tenant:zeta")
	s.want(ask("Tenant:acme"), "deny forbidden")
	s.want(ask("Tenant:zeta"), "allow permitted")
	// What cannot be evaluated is so in the tenant's own area.
	must(t, s.overlay(s.admin, "acme", overflow))
	areas("Tenant:zeta")
	if d := s.want(ask("Tenant:acme"), "deny indeterminate"); d.Cedar != "allow" {
		t.Errorf("cedar's answer is %q", d.Cedar)
	}
	s.want(ask("Tenant:zeta"), "allow permitted")
	must(t, s.overlay(s.admin, "zeta", overflow))
	if d := s.want(ask(""), "deny indeterminate"); !slices.Equal(d.Errors, []string{"acme/overflow", "zeta/overflow"}) || len(d.Areas) > 0 {
		t.Errorf("errors %q, areas %q", d.Errors, d.Areas)
	}
}

// Whatever an overlay of an older version forbids, none stands over Ward's own
// objects.
func TestNoOverlayStandsOverWardsOwnObjects(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	archive := []byte(`{"files":{"a.cedar":"@id(\"lock\") forbid (principal, action, resource);"},"format":1}`)
	o, err := policies.OpenOverlay(s.p.Set(), "acme", archive)
	must(t, err)
	w, err := s.p.world(s.p.current.Load())
	must(t, err)
	w.overlays = map[string]*policies.Overlay{"acme": o}
	own := ownQuestion(s.admin, adminCaller, "overlay.activate", hierarchy.TenantID("acme"), nil)
	if v := w.judge(own).verdict; !v.Effect {
		t.Errorf("the admin is locked out: %s %q", v.Code, v.Reasons)
	}
	r := claimOf("olga", claim("Coverage:acme/cov1", nil, "2026-08-01", "routine")...)
	a := convert(&r, w.set.Catalogue())
	if v := w.judge(&a).verdict; v.Code != authz.Forbidden {
		t.Errorf("a record: %s", v.Code)
	}
}

func TestASetThatAnOverlayDoesNotFitIsRefused(t *testing.T) {
	with := with(t)
	s := open(t, with, "2026-11-24T12:00:00Z")
	s.know(client)
	must(t, s.overlay(s.admin, "acme", `@id("secret-rule") forbid (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim) when { resource.urgent };`))
	must(t, s.overlay(s.admin, "zeta", noClaims))
	_, err := s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "roll back"}, pbm())
	if refusedAs(err) != "overlay_invalid" || !strings.Contains(err.Error(), "acme") || strings.Contains(err.Error(), "zeta") || strings.Contains(err.Error(), "secret-rule") || strings.Contains(err.Error(), "urgent") {
		t.Errorf("a set that no longer has what acme's overlay reads: %v", err)
	}
	if s.p.Set().Digest() != with.Digest() {
		t.Error("it came into force")
	}
	must(t, s.overlay(s.admin, "acme"))
	_, err = s.p.Activate(context.Background(), Change{Actor: s.admin, Caller: adminCaller, Why: "roll back"}, pbm())
	must(t, err)
	// zeta's was compiled again, and stands over the new set.
	if o := s.p.Overlay("zeta"); o == nil || o.Set() != s.p.Set() {
		t.Error("zeta's overlay is not that of the new set")
	}
	s.want(claimOf("olga", claim("Coverage:zeta/cov9", nil, "2026-08-01", "routine")...), "deny forbidden")
}

// with is the shipped pack with one more attribute of claims.
func with(t testing.TB) *policies.Set {
	files := map[string][]byte{}
	for name, text := range policies.PBM() {
		files[name] = text
	}
	edit := func(name, old, new string) {
		if !strings.Contains(string(files[name]), old) {
			t.Fatalf("%s lacks %q", name, old)
		}
		files[name] = []byte(strings.Replace(string(files[name]), old, new, 1))
	}
	edit("modules/claims/schema.cedarschema", "sensitivity: Sensitivity, ", "sensitivity: Sensitivity, urgent: Bool, ")
	edit("modules/claims/catalogue.yaml", "sensitivity: sent", "sensitivity: sent, urgent: sent")
	for name := range files {
		if strings.Contains(name, "tests/") {
			delete(files, name)
		}
	}
	set, err := policies.Compile(files)
	must(t, err)
	return set
}

// A set that comes into force between the compilation of an overlay and its
// change is what the overlay must fit.
func TestAnOverlayIsCheckedAgainstTheSetOfTheMoment(t *testing.T) {
	s := open(t, with(t), "2026-11-24T12:00:00Z")
	s.know(client)
	o, err := policies.CompileOverlay(s.p.Set(), "acme", rules(`@id("x") forbid (principal is PBM::User, action == PBM::Action::"claim.view", resource is PBM::Claim) when { resource.urgent };`))
	must(t, err)
	err = s.p.prepareOverlay(context.Background(), o, &pair{set: pbm()})
	if refusedAs(err) != "overlay_invalid" {
		t.Errorf("prepared for another set: %v", err)
	}
}

// An answer from before an overlay does not leave after it was acknowledged.
func TestAnOverlayIsAFence(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ctx, d := authz.Deliver(context.Background())
	defer d.Done()
	got, err := s.p.Decide(ctx, claimOf("olga", claim("Coverage:acme/cov1", nil, "2026-08-01", "routine")...))
	must(t, err)
	must(t, s.overlay(s.admin, "acme", noClaims))
	if got.Allowed() && d.Leave() {
		t.Error("an answer from before the overlay leaves")
	}
}

// randomRules forbids something about documents, at random.
func randomRules(rng *rand.Rand, m *maze) map[string][]byte {
	var b strings.Builder
	for i := range 1 + rng.IntN(3) {
		principal := []string{"principal is Open::User", fmt.Sprintf(`principal == Open::User::"user%d"`, rng.IntN(4))}[rng.IntN(2)]
		unit := m.units[rng.IntN(len(m.units))]
		condition := []string{"", "when { context has grant }", fmt.Sprintf(`when { resource in Open::Scope::"%s" }`, unit),
			fmt.Sprintf(`when { context.now < datetime("1970-01-01").offset(duration("%dms")) }`, int64(epoch+hierarchy.Instant(rng.IntN(10))*day)),
			`unless { principal.hasTag("doc.read") && resource in principal.getTag("doc.read") }`,
			`when { resource in Open::Scope::"Site:s0" && context.aal + 9223372036854775807 > 0 }`}[rng.IntN(6)]
		fmt.Fprintf(&b, "@id(\"r%d\") forbid (%s, action, resource is Open::Doc) %s;\n", i, principal, condition)
	}
	return map[string][]byte{"r.cedar": []byte(strings.Replace(b.String(), ", action,", `, action == Open::Action::"doc.read",`, -1))}
}

// TestOverlaysAndTenancy: in random worlds under a pack that permits everything,
// random overlays never turn a deny into an allow, never change the answer about
// another tenant's record, and what they do is what one set of the pack's
// policies and that tenant's would say.
func TestOverlaysAndTenancy(t *testing.T) {
	trials := count(8_000, 400_000)
	narrowed, failed, kept := 0, 0, 0
	set := permitAll()
	for seed := uint64(1); trials > 0; seed++ {
		m := newMaze(t, seed)
		all := map[string]*policies.Overlay{}
		for _, tenant := range m.tenants {
			if m.rng.IntN(3) == 0 {
				continue
			}
			o, err := policies.CompileOverlay(set, tenant, randomRules(m.rng, m))
			must(t, err)
			all[tenant] = o
		}
		for range 100 {
			trials--
			q := m.question()
			a := convert(m.request(q, "docs"), set.Catalogue())
			w := world{set: set, graph: m.g, confers: confers(m.g, set), rev: m.g.Head().Revision, now: q.now}
			without := w.judge(&a)
			w.overlays = all
			with := w.judge(&a)
			own := map[string]*policies.Overlay{}
			if o := all[without.tenant]; o != nil && without.tenant != "" {
				own[without.tenant] = o
			}
			w.overlays = own
			alone := w.judge(&a)
			switch {
			case bool(with.verdict.Effect) && !bool(without.verdict.Effect):
				t.Fatalf("seed %d: overlays allow what is denied without them: %v", seed, q.anchors)
			case verdictDigest(with.verdict) != verdictDigest(alone.verdict):
				t.Fatalf("seed %d: the overlays of other tenants change an answer about %q: %v, without them %v", seed, without.tenant, with.verdict, alone.verdict)
			case len(own) == 0 && verdictDigest(with.verdict) != verdictDigest(without.verdict):
				t.Fatalf("seed %d: a tenant without an overlay has another answer", seed)
			}
			for _, x := range with.attempts {
				want := attemptHead{}
				if o := own[without.tenant]; o != nil {
					want.Tenant, want.Overlay = without.tenant, o.Digest()
				}
				if x.Tenant != want.Tenant || x.Overlay != want.Overlay {
					t.Fatalf("seed %d: an attempt about %q was judged by another tenant's overlay", seed, without.tenant)
				}
			}
			switch {
			case with.verdict.Code == authz.Indeterminate:
				failed++
			case with.verdict.Effect != without.verdict.Effect:
				narrowed++
			case len(own) > 0 && bool(with.verdict.Effect):
				kept++
			}
		}
	}
	t.Logf("%d trials: %d narrowed, %d failed, %d allowed all the same", count(8_000, 400_000), narrowed, failed, kept)
	if narrowed == 0 || failed == 0 || kept == 0 {
		t.Error("the overlays are too easy")
	}
}

// A record names the overlays that judged it, and a replay notices another one.
func TestReplayUnderOverlays(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := func(coverage string) {
		_, err := s.p.Decide(context.Background(), claimOf("olga", claim(coverage, nil, "2026-08-01", "routine")...))
		must(t, err)
	}
	last := func() string {
		e, err := s.ledger.Entry(s.ledger.Size() - 1)
		must(t, err)
		return string(e.Clear)
	}
	must(t, s.overlay(s.admin, "acme", noClaims))
	digest := s.p.Overlay("acme").Digest()
	ask("Coverage:zeta/cov9")
	if strings.Contains(last(), "overlay") {
		t.Errorf("a record about zeta names an overlay: %s", last())
	}
	ask("Coverage:acme/cov1")
	if !strings.Contains(last(), `"overlay":"`+digest+`"`) {
		t.Errorf("the record names no overlay: %s", last())
	}
	must(t, s.overlay(s.admin, "acme"))
	ask("Coverage:acme/cov1")

	replayAll := func(store hierarchy.Store) (differences []string, err error) {
		rep, err := NewReplayer(context.Background(), store, s.keys)
		must(t, err)
		must(t, rep.Changes(s.ledger.Scan(0)))
		for e, err := range s.ledger.Scan(0) {
			must(t, err)
			r, err := rep.Replay(context.Background(), e)
			if err != nil {
				return differences, err
			}
			differences = append(differences, r.Differences...)
		}
		return differences, nil
	}
	if d, err := replayAll(s.store); err != nil || len(d) > 0 {
		t.Errorf("replayed: %q %v", d, err)
	}
	// A store that hands out another overlay, or none.
	for name, archive := range map[string][]byte{"another": s.archive(noSearch), "a set": pbm().Archive(), "none": nil} {
		_, err := replayAll(&swappedBlob{s.store, digest, archive})
		var bad *IntegrityError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v, want an integrity error", name, err)
		}
	}
}

func (s *site) archive(text string) []byte {
	o, err := policies.CompileOverlay(s.p.Set(), "acme", rules(text))
	must(s.t, err)
	return o.Archive()
}

// swappedBlob is a store with another blob in the place of one.
type swappedBlob struct {
	hierarchy.Store
	digest  string
	archive []byte
}

func (s *swappedBlob) GetBlob(ctx context.Context, digest string) ([]byte, error) {
	if digest != s.digest {
		return s.Store.GetBlob(ctx, digest)
	}
	if s.archive == nil {
		return nil, hierarchy.ErrNotFound
	}
	return s.archive, nil
}

// Changed overlays are replayed by another process; a changed byte of one is noticed.
func TestReplayOverlaysInAnotherProcess(t *testing.T) {
	s := boltSite(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	s.know("User:bo holds broker at Group:zeta/g1")
	rng := rand.New(rand.NewPCG(8, 9))
	texts := [][]string{{noClaims}, {noSearch}, {overflow}, {noClaims, noSearch}, {noSearch, overflow}, nil}
	codes := map[authz.Code]int{}
	for range count(40, 400) {
		tenant := []string{"acme", "zeta"}[rng.IntN(2)]
		text := texts[rng.IntN(len(texts))]
		if err := s.overlay(s.admin, tenant, text...); err != nil && (text != nil || refusedAs(err) != "overlay_unknown") {
			t.Fatal(err)
		}
		if rng.IntN(8) == 0 {
			s.force(variant(t, rng.IntN(5)))
		}
		var rs []authz.Request
		for range 1 + rng.IntN(6) {
			user := []string{"olga", "bo", "pat", "phil"}[rng.IntN(4)]
			if rng.IntN(3) == 0 {
				rs = append(rs, request("shell", "user:"+user, "feature.see", "feature:claims.search"))
				continue
			}
			coverage := []string{"Coverage:acme/cov1", "Coverage:zeta/cov9"}[rng.IntN(2)]
			rs = append(rs, claimOf(user, claim(coverage, "Pharmacy:p1", "2026-06-01", "routine")...))
		}
		ds, err := s.p.DecideAll(context.Background(), rs, authz.ExecuteAll)
		must(t, err)
		for _, d := range ds {
			codes[d.Code]++
		}
	}
	for _, c := range []authz.Code{authz.Permitted, authz.Forbidden, authz.Indeterminate} {
		if codes[c] == 0 {
			t.Errorf("no answer was %s", c)
		}
	}
	dir := s.freeze(t)
	text, code := replayIn(t, dir)
	if code != 0 || !strings.Contains(text, "different=0") {
		t.Fatalf("exit %d: %s", code, text)
	}
	t.Logf("re-derived by another process: %s; codes %v", text, codes)
	path := filepath.Join(clone(t, dir), "store.db")
	b, err := os.ReadFile(path)
	must(t, err)
	changed := strings.ReplaceAll(string(b), "no-claims", "no-claimz")
	if changed == string(b) {
		t.Fatal("no overlay lies in the store")
	}
	must(t, os.WriteFile(path, []byte(changed), 0o600))
	if text, code := replayIn(t, filepath.Dir(path)); code != 7 {
		t.Errorf("a changed overlay gives exit %d: %s", code, text)
	}
}

// A store that fails between permission and record changes nothing.
func TestAnOverlayThatCannotBeStoredChangesNothing(t *testing.T) {
	store := &brokenBlobs{Store: storetest.NewMemory()}
	s := openOn(t, pbm(), "2026-11-24T12:00:00Z", store)
	s.know(client)
	head := s.p.Graph().Head()
	store.fail = true
	if got := refusedAs(s.overlay(s.admin, "acme", noClaims)); got != string(authz.StoreFailed) {
		t.Errorf("got %s", got)
	}
	if s.p.Graph().Head() != head || s.p.Ready() != nil {
		t.Error("something was changed, or nothing is decided any more")
	}
	s.want(claimOf("olga", claim("Coverage:acme/cov1", nil, "2026-08-01", "routine")...), "allow permitted")
}

type brokenBlobs struct {
	hierarchy.Store
	fail bool
}

func (b *brokenBlobs) PutBlob(ctx context.Context, blob []byte) (string, error) {
	if b.fail {
		return "", errors.New("no space")
	}
	return b.Store.PutBlob(ctx, blob)
}
