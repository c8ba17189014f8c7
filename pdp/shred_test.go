package pdp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

const shredDay = "2019-11-20"

// shredSite has records of acme and of the operator of one day, and an admin who
// may shred; it is another day.
func shredSite(t *testing.T) (s *site, asked authz.Decision) {
	t.Helper()
	s = boltSite(t, pbm(), shredDay+"T12:00:00Z")
	s.appoint("1000", "Admin:ana")
	s.know(client)
	asked = s.want(request("claims-service", "user:bo", "claim.view", "claim:canary-claim",
		claim("Coverage:acme/cov1", "Pharmacy:p1", "2019-06-01", "routine")...), "allow permitted")
	s.clock.set("2026-11-24T12:00:00Z")
	return s, asked
}

// appoint makes a records-officer in a way that no policy would: nobody holds
// the right yet that it would take.
func (s *site) appoint(uid, admin string) {
	s.t.Helper()
	e := mustEvent(s.t, admin+" holds records-officer at Operator:ward")
	s.p.changing.Lock()
	defer s.p.changing.Unlock()
	w, err := s.p.world(s.p.current.Load())
	must(s.t, err)
	rec := recording{world: w, kind: audit.Change, head: s.p.current.Load().head}
	_, err = s.p.commit(context.Background(), &rec, &hierarchy.Batch{Time: w.now, Events: []hierarchy.Event{e},
		Provenance: hierarchy.Provenance{Who: operator(s.p.View(w.now, 0)), Right: "init", Why: "test"}})
	must(s.t, err)
}

func (s *site) keyChange(tenant, day string) KeyChange {
	return KeyChange{Actor: s.admin, Caller: adminCaller, Tenant: tenant, Day: day, Why: "retention is over"}
}

func (s *site) entry(record string) audit.Entry {
	s.t.Helper()
	seq, err := audit.ParseID(record)
	must(s.t, err)
	e, err := s.ledger.Entry(seq)
	must(s.t, err)
	return e
}

// restart opens all again, without a crash.
func (s *site) restart() error {
	must(s.t, s.ledger.Close())
	var err error
	s.keys, err = audit.OpenKeys(s.dir + "/keys")
	must(s.t, err)
	s.ledger, _, err = audit.Open(s.dir+"/ledger", s.keys, audit.Options{})
	must(s.t, err)
	s.p, err = Open(context.Background(), s.config())
	return err
}

func (s *site) replayed(record string) Replayed {
	s.t.Helper()
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(s.t, err)
	must(s.t, rep.Changes(s.ledger.Scan(0)))
	out, err := rep.Replay(context.Background(), s.entry(record))
	must(s.t, err)
	return out
}

func refusal(t *testing.T, what string, err error, code string) {
	t.Helper()
	var r *hierarchy.Refusal
	var e *authz.Error
	if !(errors.As(err, &r) && r.Code == code || errors.As(err, &e) && e.Kind == authz.Refused && string(e.Code) == code) {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestShred(t *testing.T) {
	s, asked := shredSite(t)
	ctx := context.Background()
	hash := s.keys.Hash("tenant", "", "acme")
	file := filepath.Join(s.dir, "keys", "seals", shredDay, strings.Split(hash, ":")[2])
	raw, err := os.ReadFile(file)
	must(t, err)
	key := bytes.Fields(raw)[2]
	before := s.ledger.Size()

	done, err := s.p.Shred(ctx, s.keyChange("acme", shredDay))
	must(t, err)
	if done.Again || done.Record != audit.ID(before) {
		t.Errorf("%+v", done)
	}
	if c := string(s.entry(done.Record).Clear); !strings.Contains(c, `"keys":{"op":"shred","tenant":"`+hash) || strings.Contains(c, `"change"`) {
		t.Errorf("the record: %s", c)
	}
	if got := s.replayed(asked.Record); got.Key != KeyShredded || got.By != done.Record || len(got.Differences) > 0 {
		t.Errorf("replay of what was shredded: %+v", got)
	}
	if got := s.replayed(done.Record); got.Key != "" || got.Items != 1 || len(got.Differences) > 0 {
		t.Errorf("replay of the shredding: %+v", got)
	}
	_, err = s.p.Explain(ctx, s.admin, adminCaller, asked.Record)
	if gone := (*GoneError)(nil); !errors.As(err, &gone) || gone.Status != KeyShredded || gone.By != done.Record {
		t.Errorf("explain: %v", err)
	}
	// Found by what the clear part says.
	found := ""
	for l, err := range NewFinder(s.keys, nil).Find(s.ledger.Scan(0), Seek{Subject: hierarchy.ID{Type: "User", Key: "bo"}}) {
		must(t, err)
		found += l.Record
	}
	if found != asked.Record {
		t.Errorf("found %q", found)
	}
	// The key and what it sealed are in no file.
	for _, canary := range [][]byte{key, []byte("canary-claim")} {
		must(t, filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			if bytes.Contains(b, canary) {
				t.Errorf("%s holds %s", p, canary)
			}
			return err
		}))
	}
	// Again: the same record, and no other.
	size := s.ledger.Size()
	again, err := s.p.Shred(ctx, s.keyChange("acme", shredDay))
	must(t, err)
	if !again.Again || again.Record != done.Record || s.ledger.Size() != size {
		t.Errorf("again: %+v", again)
	}
	// The operator's part is another key.
	op, err := s.p.Shred(ctx, s.keyChange("", shredDay))
	must(t, err)
	ring, err := s.p.Keyring(ctx, s.admin, adminCaller)
	must(t, err)
	if ring.Unexplained() != 0 {
		t.Errorf("%+v", ring)
	}
	for _, k := range ring.Seals {
		want, by := KeyPresent, ""
		if k.Day == shredDay {
			want, by = KeyShredded, map[bool]string{true: op.Record, false: done.Record}[k.Operator]
		}
		if k.Status != want || k.Record != by || k.Operator == (k.Tenant != "") {
			t.Errorf("%+v", k)
		}
	}
	must(t, s.restart())
	if _, err := audit.Verify(s.dir+"/ledger", s.keys.Verifier()); err != nil {
		t.Error(err)
	}
	for _, r := range []string{asked.Record, "a-0", done.Record, op.Record} {
		if got := s.replayed(r); len(got.Differences) > 0 || (got.Key == KeyShredded) != (r == asked.Record || r == "a-0") {
			t.Errorf("after a restart: %+v", got)
		}
	}
}

func TestWhatIsNotShredded(t *testing.T) {
	s, _ := shredSite(t)
	ctx := context.Background()
	shred := func(tenant, day string) error {
		_, err := s.p.Shred(ctx, s.keyChange(tenant, day))
		return err
	}
	s.want(request("claims-service", "user:bo", "claim.view", "claim:c", claim("Coverage:acme/cov1", "Pharmacy:p1", "2019-06-01", "routine")...), "allow permitted")
	size := s.ledger.Size()
	refusal(t, "today", shred("acme", "2026-11-24"), "day_open")
	refusal(t, "tomorrow", shred("acme", "2026-11-25"), "day_open")
	s.clock.set("2026-11-25T00:59:59.999Z")
	refusal(t, "yesterday, just now", shred("acme", "2026-11-24"), "day_open")
	refusal(t, "a day without records", shred("acme", "2019-11-21"), "nothing_to_shred")
	refusal(t, "a tenant without records", shred("zeta", shredDay), "nothing_to_shred")
	refusal(t, "no tenant", shred("none", shredDay), "nothing_to_shred")
	refusal(t, "no day", shred("acme", "../../x"), "bad_request")
	refusal(t, "nearly a day", shred("acme", "2019-11-2"), "bad_request")
	if s.ledger.Size() != size {
		t.Error("a refusal is on record as a change")
	}
	s.clock.set("2026-11-25T01:00:00Z")
	must(t, shred("acme", "2026-11-24"))
}

// TestWhoShreds: the right is a role's own; administrators do not have it and
// cannot give it.
func TestWhoShreds(t *testing.T) {
	s, _ := shredSite(t)
	s.know("principal Admin:eli\n1001@unix is Admin:eli\nAdmin:eli holds security-admin at Operator:ward")
	s.know("principal Admin:rec\n1002@unix is Admin:rec\nAdmin:rec holds records-officer at Tenant:zeta")
	as := func(uid, tenant string) error {
		actor, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: uid})
		must(t, err)
		c := s.keyChange(tenant, shredDay)
		c.Actor = actor
		_, err = s.p.Shred(context.Background(), c)
		return err
	}
	size := s.ledger.Size()
	refusal(t, "a security-admin", as("1001", "acme"), "denied")
	refusal(t, "another tenant's officer", as("1002", "acme"), "no_standing")
	refusal(t, "a stranger", as("4242", "acme"), "subject_unlinked")
	if s.ledger.Size() != size+3 {
		t.Error("denials are not on record")
	}
	refusal(t, "the tenant's officer, where nothing is", as("1002", "zeta"), "nothing_to_shred")
	eli, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	for _, line := range []string{"Admin:eli holds records-officer at Operator:ward", "Admin:rec holds records-officer at Tenant:acme"} {
		_, err := s.p.Change(context.Background(), Change{Actor: eli, Caller: adminCaller, Events: []hierarchy.Event{mustEvent(t, line)}})
		refusal(t, line, err, "not_conferrable")
	}
	if _, err := s.keys.SealKeyID(s.keys.Hash("tenant", "", "acme"), shredDay); err != nil {
		t.Errorf("the key: %v", err)
	}
}

// TestAShreddingCutOff: a crash after the record and before the key is gone is
// made good at the next start; a key that comes back later is noticed.
func TestAShreddingCutOff(t *testing.T) {
	s, asked := shredSite(t)
	hash := s.keys.Hash("tenant", "", "acme")
	file := filepath.Join(s.dir, "keys", "seals", shredDay, strings.Split(hash, ":")[2])
	raw, err := os.ReadFile(file)
	must(t, err)
	done, err := s.p.Shred(context.Background(), s.keyChange("acme", shredDay))
	must(t, err)
	for what, left := range map[string][]byte{"whole": raw, "overwritten": make([]byte, 1024)} {
		must(t, os.WriteFile(file, left, 0o600))
		must(t, s.restart())
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: after a restart: %v", what, err)
		}
		if got := s.replayed(asked.Record); got.Key != KeyShredded || got.By != done.Record {
			t.Errorf("%s: %+v", what, got)
		}
	}
	s.know("node Group:acme/later")
	must(t, os.WriteFile(file, raw, 0o600))
	must(t, s.restart())
	ring, err := s.p.Keyring(context.Background(), s.admin, adminCaller)
	must(t, err)
	if ring.Unexplained() != 1 {
		t.Errorf("a key came back: %+v", ring)
	}
	must(t, os.Remove(file))
}

// TestAShreddingThatFails stops all decisions until a restart makes it good.
func TestAShreddingThatFails(t *testing.T) {
	if os.Getuid() == 0 {
		// Root may remove anything; a folder in its place it cannot open for writing.
		t.Log("as root: by a folder in the key's place")
	}
	s, _ := shredSite(t)
	hash := s.keys.Hash("tenant", "", "acme")
	file := filepath.Join(s.dir, "keys", "seals", shredDay, strings.Split(hash, ":")[2])
	rec, err := s.p.keyAnswer(context.Background(), s.keyChange("acme", shredDay), "audit.shred")
	must(t, err)
	id, err := s.keys.SealKeyID(hash, shredDay)
	must(t, err)
	must(t, os.Remove(file))
	must(t, os.MkdirAll(file, 0o700))
	if _, err := s.p.changeKeys(context.Background(), rec, clearKeys{Op: opShred, Tenant: hash, Day: shredDay, Key: id}); !authz.IsOutage(err) {
		t.Errorf("shred: %v", err)
	}
	ask := request("claims-service", "user:bo", "claim.view", "claim:c", claim("Coverage:acme/cov1", "Pharmacy:p1", "2019-06-01", "routine")...)
	if _, err := s.p.Decide(context.Background(), ask); !authz.IsOutage(err) {
		t.Errorf("a decision after it: %v", err)
	}
	if err := s.restart(); err == nil {
		t.Error("opens, and the key cannot be destroyed")
	}
	must(t, os.Remove(file))
	must(t, s.restart())
	s.want(ask, "allow permitted")
}

// TestMissingIsNotShredded: a key that is gone without a record is missing until
// a record says that it was lost.
func TestMissingIsNotShredded(t *testing.T) {
	s, asked := shredSite(t)
	ctx := context.Background()
	hash := s.keys.Hash("tenant", "", "acme")
	loss := func(why string) (KeyChanged, error) {
		c := s.keyChange("acme", shredDay)
		c.Why = why
		return s.p.RecordLoss(ctx, c)
	}
	_, err := loss("the disk failed")
	refusal(t, "nothing is lost", err, "nothing_lost")
	must(t, os.Remove(filepath.Join(s.dir, "keys", "seals", shredDay, strings.Split(hash, ":")[2])))
	if got := s.replayed(asked.Record); got.Key != KeyMissing || got.By != "" {
		t.Errorf("replay: %+v", got)
	}
	_, err = s.p.Explain(ctx, s.admin, adminCaller, asked.Record)
	if gone := (*GoneError)(nil); !errors.As(err, &gone) || gone.Status != KeyMissing || strings.Contains(err.Error(), "shredded") {
		t.Errorf("explain: %v", err)
	}
	_, err = s.p.Shred(ctx, s.keyChange("acme", shredDay))
	refusal(t, "to shred what is missing", err, "nothing_to_shred")
	_, err = loss(" ")
	refusal(t, "no reason", err, "bad_request")
	ring, err := s.p.Keyring(ctx, s.admin, adminCaller)
	must(t, err)
	if ring.Unexplained() != 1 {
		t.Errorf("%+v", ring)
	}
	done, err := loss("the disk failed")
	must(t, err)
	if got := s.replayed(asked.Record); got.Key != KeyLost || got.By != done.Record {
		t.Errorf("replay: %+v", got)
	}
	if got := s.replayed(done.Record); got.Key != "" || len(got.Differences) > 0 {
		t.Errorf("the loss itself: %+v", got)
	}
	_, err = loss("the disk failed")
	refusal(t, "a second time", err, "nothing_lost")
	_, err = s.p.Shred(ctx, s.keyChange("acme", shredDay))
	refusal(t, "to shred what is lost", err, "nothing_to_shred")
	must(t, s.restart())
}

// TestAChangeOfKeysByNobody: a record that does not say who is no evidence.
func TestAChangeOfKeysByNobody(t *testing.T) {
	s, _ := shredSite(t)
	done, err := s.p.RotateSigner(context.Background(), s.keyChange("", ""))
	must(t, err)
	e := s.entry(done.Record)
	parts, err := s.keys.Unseal(e)
	must(t, err)
	var items []map[string]json.RawMessage
	must(t, json.Unmarshal(parts[0].Plain, &items))
	delete(items[0], "why")
	parts[0].Plain, err = json.Marshal(items)
	must(t, err)
	s.tampered = true
	seq, err := s.ledger.Append(context.Background(), audit.Record{Kind: e.Kind, Time: e.Time, Clear: e.Clear, Parts: parts})
	must(t, err)
	rep, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	if _, err := rep.Replay(context.Background(), s.entry(audit.ID(seq))); !errors.As(err, new(*IntegrityError)) {
		t.Errorf("replay: %v", err)
	}
}

func TestRotateSigner(t *testing.T) {
	s, asked := shredSite(t)
	ctx := context.Background()
	first := s.keys.Verifier()
	var last KeyChanged
	for range 2 {
		var err error
		last, err = s.p.RotateSigner(ctx, s.keyChange("", ""))
		must(t, err)
		s.know("node Group:acme/" + strings.ReplaceAll(last.Record, "-", ""))
	}
	if n := len(strings.Fields(last.Verifier)); n != 3 || last.Verifier != s.keys.Verifier() {
		t.Errorf("%d keys", n)
	}
	must(t, s.restart())
	for _, v := range []string{first, last.Verifier} {
		if rep, err := audit.Verify(s.dir+"/ledger", v); err != nil || rep.Tail != 0 {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	for _, r := range []string{asked.Record, last.Record} {
		if got := s.replayed(r); got.Key != "" || len(got.Differences) > 0 {
			t.Errorf("%+v", got)
		}
	}
	ring, err := s.p.Keyring(ctx, s.admin, adminCaller)
	must(t, err)
	if len(ring.Signers) != 3 || ring.Signers[0].Record != "" || ring.Signers[2].Record != last.Record {
		t.Errorf("%+v", ring.Signers)
	}
	c := s.keyChange("", "")
	c.Actor, err = adminCaller.Assert(authz.Subject{Type: AdminType, ID: "4242"})
	must(t, err)
	_, err = s.p.RotateSigner(ctx, c)
	refusal(t, "a stranger", err, "subject_unlinked")
}

// TestARotationCutOff: the record is there, and the old key still signs. The next
// start makes it good.
func TestARotationCutOff(t *testing.T) {
	s, _ := shredSite(t)
	rec, err := s.p.keyAnswer(context.Background(), s.keyChange("", ""), "key.change")
	must(t, err)
	first := s.keys.Verifier()
	next, err := s.keys.NewSigner()
	must(t, err)
	rec.keys = clearKeys{Op: opRotate, Old: first, New: next}.by(s.keys, rec.why)
	_, err = s.p.append(context.Background(), rec)
	must(t, err)
	must(t, s.restart())
	if s.keys.Verifier() != first+"\n"+next {
		t.Error("the old key still signs")
	}
	s.know("node Group:acme/later")
	must(t, s.ledger.Close())
	if rep, err := audit.Verify(s.dir+"/ledger", first); err != nil || rep.Tail != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestNoSealingKeyNoDecisions: where a record cannot be sealed nothing is decided.
func TestNoSealingKeyNoDecisions(t *testing.T) {
	s, _ := shredSite(t)
	ask := request("claims-service", "user:bo", "claim.view", "claim:c", claim("Coverage:acme/cov1", "Pharmacy:p1", "2019-06-01", "routine")...)
	s.want(ask, "allow permitted")
	seals := s.dir + "/keys/seals"
	must(t, os.Rename(seals, seals+".away"))
	for range 2 { // and it stays so
		d, err := s.p.Decide(context.Background(), ask)
		if !authz.IsOutage(err) || d.Allowed() {
			t.Errorf("%v, %v", d, err)
		}
	}
	must(t, os.Rename(seals+".away", seals))
	if _, err := s.p.Decide(context.Background(), ask); !authz.IsOutage(err) {
		t.Errorf("before a restart: %v", err)
	}
	_ = s.ledger.Close()
	var err error
	s.keys, err = audit.OpenKeys(s.dir + "/keys")
	must(t, err)
	s.ledger, _, err = audit.Open(s.dir+"/ledger", s.keys, audit.Options{})
	must(t, err)
	s.p, err = Open(context.Background(), s.config())
	must(t, err)
	s.want(ask, "allow permitted")
}

// TestTheLastOfficerStays: whom nobody could replace.
func TestTheLastOfficerStays(t *testing.T) {
	s, _ := shredSite(t)
	s.know("principal Admin:eli\n1001@unix is Admin:eli\nAdmin:eli holds security-admin at Operator:ward")
	eli, err := adminCaller.Assert(authz.Subject{Type: AdminType, ID: "1001"})
	must(t, err)
	void := func() error {
		for _, f := range s.factsOf(hierarchy.KindAssignment) {
			if a := f.Event.Assignment; a.Role == "records-officer" && a.Principal.Key == "ana" {
				_, err := s.p.Change(context.Background(), Change{Actor: eli, Caller: adminCaller, Why: "gone",
					Events: []hierarchy.Event{{Op: hierarchy.Void, Kind: hierarchy.KindAssignment, Fact: f.ID}}})
				return err
			}
		}
		return errors.New("no officer")
	}
	refusal(t, "the last officer", void(), "last_officer")
	s.know("principal Admin:rec\n1002@unix is Admin:rec\nAdmin:rec holds records-officer at Operator:ward")
	must(t, void())
}
