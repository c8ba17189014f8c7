package pdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

// bosClaim is a question that is allowed in a site that knows client.
func bosClaim() authz.Request {
	return request("claims-service", "user:bo", "claim.view", "claim:c1", claim("Coverage:acme/cov1", "Pharmacy:p1", "2026-06-01", "routine")...)
}

func codeOf(err error) string {
	e, ok := errors.AsType[*authz.Error](err)
	switch {
	case err == nil:
		return "ok"
	case !ok:
		return err.Error()
	case e.Kind == authz.Outage:
		return "outage " + string(e.Code)
	}
	return string(e.Code)
}

// last returns the clear part of the ledger's last record.
func (s *site) last() (audit.Entry, clearPart) {
	s.t.Helper()
	e, err := s.ledger.Entry(s.ledger.Size() - 1)
	must(s.t, err)
	var c clearPart
	must(s.t, json.Unmarshal(e.Clear, &c))
	return e, c
}

func TestOutcomes(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	ask := bosClaim()
	first := s.want(ask, "allow permitted").Record
	mine := ask.Caller
	mine.Performs = []string{"mask", "filter"}
	rows, negative := int64(12), int64(-1)
	report := func(want string, c authz.Caller, o authz.Outcome) {
		t.Helper()
		size := s.ledger.Size()
		record, err := s.p.Report(context.Background(), c, o)
		if got := codeOf(err); got != want {
			t.Errorf("%+v: %s, want %s", o, got, want)
		}
		if written := s.ledger.Size() - size; (want == "ok") != (written == 1) || (want == "ok") != (record == audit.ID(size)) {
			t.Errorf("%+v: %d records written, %q", o, written, record)
		}
	}
	// What is wrong with a report is refused, and takes nothing from the one that counts.
	report("bad_request", mine, authz.Outcome{Record: "1042"})
	report("bad_request", mine, authz.Outcome{Record: first, Rows: &negative})
	report("obligation_unsupported", mine, authz.Outcome{Record: first, Obligations: []string{"mask", "canary"}})
	report("unknown_record", mine, authz.Outcome{Record: "a-999999"})
	report("unknown_record", mine, authz.Outcome{Record: "a-0"}) // a change
	report("unknown_record", authz.Caller{Name: "other"}, authz.Outcome{Record: first})
	report("unknown_record", authz.Caller{}, authz.Outcome{Record: first})
	report("ok", mine, authz.Outcome{Record: first, Delivered: true, Rows: &rows, Obligations: []string{"mask", "filter", "mask"}})
	e, c := s.last()
	if e.Kind != audit.Outcome || string(mustJSON(c.Outcome)) != `{"of":"`+first+`","delivered":true,"rows":12,"obligations":["filter","mask"]}` || c.Caller != mine.Name {
		t.Errorf("%s %s", e.Kind, e.Clear)
	}
	report("outcome_exists", mine, authz.Outcome{Record: first})
	// The outcome of an outcome is none.
	report("unknown_record", mine, authz.Outcome{Record: e.ID()})
	// A day, and not longer.
	second, third := s.want(ask, "allow permitted").Record, s.want(ask, "allow permitted").Record
	s.clock.set("2026-11-25T12:00:00Z")
	report("ok", mine, authz.Outcome{Record: second})
	s.clock.set("2026-11-25T12:00:01Z")
	report("outcome_late", mine, authz.Outcome{Record: third})
	// A batch has one id, and one outcome.
	ds, err := s.p.DecideAll(context.Background(), []authz.Request{ask, ask, ask}, authz.ExecuteAll)
	must(t, err)
	report("ok", mine, authz.Outcome{Record: ds[2].Record})
	report("outcome_exists", mine, authz.Outcome{Record: ds[0].Record})
	waiting := s.want(ask, "allow permitted").Record

	// After a start the last records are read again.
	p, err := Open(context.Background(), s.config())
	must(t, err)
	s.p = p
	report("outcome_exists", mine, authz.Outcome{Record: ds[0].Record})
	report("unknown_record", mine, authz.Outcome{Record: audit.ID(s.ledger.Size() - 2)}) // an outcome
	report("unknown_record", authz.Caller{Name: "other"}, authz.Outcome{Record: waiting})
	// What could not be recorded is not the outcome.
	read, reads := s.p.clock.read, 0
	s.p.clock.read = func() (time.Time, time.Duration) {
		wall, mono := read()
		if reads++; reads == 2 {
			return wall.Add(-time.Hour), mono - time.Hour
		}
		return wall, mono
	}
	report("outage clock_failed", mine, authz.Outcome{Record: waiting})
	s.p.clock.read = read
	report("ok", mine, authz.Outcome{Record: waiting})
	report("outcome_exists", mine, authz.Outcome{Record: waiting})

	// Both kinds replay, and are found.
	r, err := NewReplayer(context.Background(), s.store, s.keys)
	must(t, err)
	must(t, r.Changes(s.ledger.Scan(0)))
	for e, err := range s.ledger.Scan(0) {
		must(t, err)
		if got, err := r.Replay(context.Background(), e); err != nil || len(got.Differences) > 0 {
			t.Errorf("%s: %v %v", e.ID(), got, err)
		}
	}
	n := 0
	for l, err := range NewFinder(s.keys, nil).Find(s.ledger.Scan(0), Seek{Kind: audit.Outcome}) {
		must(t, err)
		if n++; l.Outcome == nil || l.Outcome.Of == "" {
			t.Errorf("%+v", l)
		}
	}
	if n != 4 {
		t.Errorf("%d outcomes found", n)
	}
	// Without a ledger nothing is accepted.
	last := s.want(ask, "allow permitted").Record
	must(t, s.ledger.Close())
	if _, err := s.p.Report(context.Background(), mine, authz.Outcome{Record: last}); !authz.IsOutage(err) {
		t.Errorf("without a ledger: %v", err)
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// TestOneOutcomeOfMany: of outcomes reported at once for one decision, one counts.
func TestOneOutcomeOfMany(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	record := s.want(bosClaim(), "allow permitted").Record
	before := s.ledger.Size()
	var wg sync.WaitGroup
	var taken atomic.Int64
	for range 16 {
		wg.Go(func() {
			switch _, err := s.p.Report(context.Background(), bosClaim().Caller, authz.Outcome{Record: record}); codeOf(err) {
			case "ok":
				taken.Add(1)
			case "outcome_exists":
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 || s.ledger.Size() != before+1 {
		t.Errorf("%d taken, %d written", taken.Load(), s.ledger.Size()-before)
	}
}

// TestOutcomesAreBounded holds what is remembered against a list of all.
func TestOutcomesAreBounded(t *testing.T) {
	var o outcomes
	const step, n = 40_000, 400
	for i := range uint64(n) {
		o.remember(i*step, 0, "c")
	}
	if len(o.pages) > outcomePages {
		t.Errorf("%d pages", len(o.pages))
	}
	late, ok := 0, 0
	for i := range uint64(n) {
		seq := i * step
		want := "ok"
		if seq < o.from {
			want = "outcome_late"
		}
		if got := codeOf(o.claim(seq, "c", 0, n*step)); got != want {
			t.Fatalf("record %d, known from %d on: %s", seq, o.from, got)
		}
		if got := codeOf(o.claim(seq+1, "c", 0, n*step)); got == "ok" {
			t.Fatalf("record %d was never given", seq+1)
		}
		if want == "ok" {
			ok++
		} else {
			late++
		}
	}
	if late == 0 || ok == 0 || o.from != (uint64((n-1)*step)/outcomePage-outcomePages+1)*outcomePage {
		t.Errorf("%d late, %d known, from %d", late, ok, o.from)
	}
}

func TestRefusals(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	before := s.ledger.Size()
	must(t, s.p.WriteRefusals())
	if s.ledger.Size() != before {
		t.Fatal("a record of no refusals")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				s.p.Refused("authzen", "caller_unknown")
				s.p.Refused("delegation", "not_found")
			}
		})
	}
	wg.Wait()
	must(t, s.p.WriteRefusals())
	total := map[string]uint64{}
	for l, err := range NewFinder(s.keys, nil).Find(s.ledger.Scan(before), Seek{Kind: audit.Refusals}) {
		must(t, err)
		for door, codes := range l.Refusals {
			for code, n := range codes {
				total[door+" "+string(code)] += n
			}
		}
	}
	if fmt.Sprint(total) != "map[authzen caller_unknown:8000 delegation not_found:8000]" {
		t.Error(total)
	}
	// More names than one record lists are counted together.
	for i := range 3 * maxRefusals {
		s.p.Refused("authzen", authz.Code(fmt.Sprint("code_", i)))
	}
	must(t, s.p.WriteRefusals())
	e, c := s.last()
	pairs, all := 0, uint64(0)
	for _, codes := range c.Refusals {
		for _, n := range codes {
			pairs, all = pairs+1, all+n
		}
	}
	if pairs > maxRefusals+1 || all != 3*maxRefusals || len(e.Body) > 4096 {
		t.Errorf("%d pairs, %d counted, %d bytes", pairs, all, len(e.Body))
	}
	// What cannot be recorded now is counted on.
	s.p.Refused("authzen", "caller_unknown")
	s.clock.set("2026-11-24T11:00:00Z")
	if err := s.p.WriteRefusals(); !authz.IsOutage(err) {
		t.Errorf("with a clock that went back: %v", err)
	}
	s.clock.set("2026-11-24T12:00:01Z")
	must(t, s.p.WriteRefusals())
	if _, c := s.last(); c.Refusals["authzen"]["caller_unknown"] != 1 {
		t.Errorf("%v", c.Refusals)
	}
}

// TestRates compares what a caller gets with a bucket that is reckoned by hand.
func TestRates(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := rates{now: func() time.Time { return now }}
	c := authz.Caller{Name: "greedy", Rate: 10}
	got := func(n, items int) (taken int) {
		for range n {
			if err := r.take(c, items); err == nil {
				taken++
			} else if codeOf(err) != "rate_limited" || authz.IsOutage(err) {
				t.Fatal(err)
			}
		}
		return taken
	}
	for i, want := range []int{20, 0} { // twice the rate at once
		if n := got(50, 1); n != want {
			t.Errorf("round %d: %d taken, want %d", i, n, want)
		}
	}
	now = now.Add(time.Second)
	if n := got(50, 1); n != 10 {
		t.Errorf("after a second: %d", n)
	}
	now = now.Add(time.Hour)
	if n := got(3, 100); n != 1 { // a large batch is answered, and paid for
		t.Errorf("batches: %d", n)
	}
	now = now.Add(8 * time.Second)
	if n := got(1, 1); n != 0 {
		t.Error("80 of 80 that are owed, and one more")
	}
	now = now.Add(time.Second)
	if n := got(50, 1); n != 10 {
		t.Errorf("after what is owed: %d", n)
	}
	if err := r.take(authz.Caller{Name: "other", Rate: 10}, 1); err != nil {
		t.Errorf("another caller: %v", err)
	}
	c.Rate = 0
	if n := got(10_000, 100); n != 10_000 {
		t.Errorf("no rate: %d", n)
	}
}

// TestRatesHoldAtEveryWayIn: nothing is recorded of what is over the rate.
func TestRatesHoldAtEveryWayIn(t *testing.T) {
	s := open(t, pbm(), "2026-11-24T12:00:00Z")
	s.know(client)
	now := time.Unix(1_800_000_000, 0)
	s.p.rates.now = func() time.Time { return now }
	ask := bosClaim()
	ask.Caller.Rate = 1
	s.want(ask, "allow permitted")
	record := s.want(ask, "allow permitted").Record
	before := s.ledger.Size()
	who := Asking{Subject: ask.Subject, Caller: ask.Caller}
	_, one := s.p.Decide(context.Background(), ask)
	_, batch := s.p.DecideAll(context.Background(), []authz.Request{ask, ask}, authz.ExecuteAll)
	_, outcome := s.p.Report(context.Background(), ask.Caller, authz.Outcome{Record: record})
	_, _, list := s.p.Grants(context.Background(), who)
	_, request := s.p.RequestGrant(context.Background(), who, GrantRequest{})
	_, sign := s.p.SignGrant(context.Background(), who, "g-1", hierarchy.SignerSubject)
	for name, err := range map[string]error{"one": one, "batch": batch, "outcome": outcome, "grants": list, "request": request, "sign": sign} {
		if codeOf(err) != "rate_limited" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.ledger.Size() != before {
		t.Error("something was recorded")
	}
	_, revoke := s.p.RevokeGrant(context.Background(), who, "g-1")
	_, _, _, open := s.p.OpenEmergency(context.Background(), who, hierarchy.Emergency{})
	for name, err := range map[string]error{"revoke": revoke, "open": open} {
		if code := codeOf(err); code == "rate_limited" || code == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := bosClaim()
	s.want(other, "allow permitted") // another registration of the same name has none
	if strings.Contains(one.Error(), "bo") {
		t.Error(one)
	}
}
