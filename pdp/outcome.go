package pdp

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

const (
	// OutcomeWithin is how long after a decision its outcome may be reported.
	OutcomeWithin = 24 * time.Hour
	// outcomePage and outcomePages bound what is remembered of decisions: that
	// many pages of that many records, of 1 MiB each.
	outcomePage  = 1 << 16
	outcomePages = 64
)

// Reported is what an outcome record says.
type Reported struct {
	Of          string   `json:"of"` // the record of the decision
	Delivered   bool     `json:"delivered"`
	Rows        *int64   `json:"rows,omitempty"`
	Obligations []string `json:"obligations,omitempty"`
}

var _ authz.Reporter = (*PDP)(nil)

// Report implements [authz.Reporter]: it records what became of a decision, as
// the caller that got it says. A decision has one outcome; which have one is
// remembered for the last four million records, and after a start for the last
// 65,536 before it. An outcome of an earlier one is refused as outcome_late, for
// nobody could tell whether it is the first.
func (p *PDP) Report(_ context.Context, caller authz.Caller, o authz.Outcome) (string, error) {
	if err := p.rates.take(caller, 1); err != nil {
		return "", err
	}
	seq, err := audit.ParseID(o.Record)
	if err != nil {
		return "", &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "this is no record id"}
	}
	if o.Rows != nil && *o.Rows < 0 {
		return "", &authz.Error{Kind: authz.Refused, Code: authz.BadRequest, Text: "rows must not be negative"}
	}
	// The names are recorded in clear, so they are those that are registered.
	if slices.ContainsFunc(o.Obligations, func(id string) bool { return !slices.Contains(caller.Performs, id) }) {
		return "", &authz.Error{Kind: authz.Refused, Code: authz.ObligationUnsupported, Text: "an obligation that the caller is not registered to perform"}
	}
	if err := p.healthy(); err != nil {
		return "", err
	}
	now, err := p.clock.now()
	if err != nil {
		return "", err
	}
	if err := p.outcomes.recall(p.ledger); err != nil {
		return "", err
	}
	if err := p.outcomes.claim(seq, caller.Name, now, p.ledger.Size()); err != nil {
		return "", err
	}
	done := slices.Clone(o.Obligations)
	slices.Sort(done)
	id, err := p.note(audit.Outcome, clearPart{Caller: caller.Name,
		Outcome: &Reported{Of: o.Record, Delivered: o.Delivered, Rows: o.Rows, Obligations: slices.Compact(done)}})
	if err != nil {
		// Whether it was written is uncertain only where nothing is written any more.
		p.outcomes.release(seq)
		return "", err
	}
	return audit.ID(id), nil
}

// answered is what is remembered of a recorded decision; its zero value is no
// decision.
type answered struct {
	at       hierarchy.Instant
	caller   uint16 // in outcomes.callers, plus one
	reported bool
}

// outcomes remembers recent decisions: who got them, and which have an outcome.
type outcomes struct {
	mu      sync.Mutex
	from    uint64 // of earlier records nothing is known
	start   uint64 // records that the ledger held at the start
	pages   map[uint64]*[outcomePage]answered
	callers map[string]uint16

	once   sync.Once // recall
	failed error
}

// remember keeps a decision that was recorded at a time for a caller.
func (o *outcomes) remember(seq uint64, at hierarchy.Instant, caller string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, known := o.callers[caller]
	if !known {
		if len(o.callers) >= 1<<16-1 {
			return
		}
		if o.callers == nil {
			o.callers = map[string]uint16{}
		}
		n = uint16(len(o.callers) + 1)
		o.callers[caller] = n
	}
	page := o.pages[seq/outcomePage]
	if page == nil {
		if o.pages == nil {
			o.pages = map[uint64]*[outcomePage]answered{}
		}
		page = new([outcomePage]answered)
		o.pages[seq/outcomePage] = page
		for len(o.pages) > outcomePages {
			oldest := seq / outcomePage
			for k := range o.pages {
				oldest = min(oldest, k)
			}
			delete(o.pages, oldest)
			o.from = max(o.from, (oldest+1)*outcomePage)
		}
	}
	page[seq%outcomePage] = answered{at: at, caller: n}
}

// get returns what is remembered of a record, or nil.
func (o *outcomes) get(seq uint64) *answered {
	if page := o.pages[seq/outcomePage]; page != nil && seq >= o.from && page[seq%outcomePage].caller > 0 {
		return &page[seq%outcomePage]
	}
	return nil
}

// recall reads, once, the last records from before the start.
func (o *outcomes) recall(ledger *audit.Ledger) error {
	o.once.Do(func() {
		from := o.start - min(o.start, outcomePage)
		o.mu.Lock()
		o.from = max(o.from, from)
		o.mu.Unlock()
		for e, err := range ledger.Scan(from) {
			if err != nil {
				o.failed = &authz.Error{Kind: authz.Outage, Code: authz.LedgerFailed, Text: "the ledger cannot be read", Err: err}
				return
			}
			if e.Seq >= o.start {
				return
			}
			var c clearPart
			if e.Kind != audit.Decision && e.Kind != audit.Outcome || json.Unmarshal(e.Clear, &c) != nil {
				continue
			}
			if e.Kind == audit.Decision && c.Of == "" {
				o.remember(e.Seq, hierarchy.Instant(e.Time), c.Caller)
			}
			if c.Outcome == nil {
				continue
			}
			if of, err := audit.ParseID(c.Outcome.Of); err == nil {
				o.mu.Lock()
				if known := o.get(of); known != nil {
					known.reported = true
				}
				o.mu.Unlock()
			}
		}
	})
	return o.failed
}

// claim marks a decision as reported by the caller that got it, or refuses. A
// record that is another's, or no decision, is unknown: nobody learns which
// there are.
func (o *outcomes) claim(seq uint64, caller string, now hierarchy.Instant, size uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	refused := func(code authz.Code, text string) error {
		return &authz.Error{Kind: authz.Refused, Code: code, Text: text}
	}
	known := o.get(seq)
	switch {
	case known != nil && known.caller != o.callers[caller], known == nil && (seq >= o.from || seq >= size):
		return refused(authz.UnknownRecord, "the caller got no decision with this record")
	case known == nil || time.Duration(now-known.at)*time.Millisecond > OutcomeWithin:
		return refused(authz.OutcomeLate, "the decision is too old for its outcome to be recorded")
	case known.reported:
		return refused(authz.OutcomeExists, "the outcome of this decision is recorded already")
	}
	known.reported = true
	return nil
}

// release takes a claim back.
func (o *outcomes) release(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.get(seq); known != nil {
		known.reported = false
	}
}
