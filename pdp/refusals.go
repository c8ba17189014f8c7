package pdp

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/pdp/authz"
)

const (
	// refusalsEvery is how long refusals are counted before they are recorded.
	refusalsEvery = time.Second
	// maxRefusals bounds how many pairs of door and code one record lists; the
	// rest is counted as otherRefusals.
	maxRefusals   = 64
	otherRefusals = "other"
)

// refusals counts what doors refuse before a decision, by door and code.
type refusals struct {
	mu     sync.Mutex
	counts map[string]map[authz.Code]uint64
	pairs  int
	armed  bool // a record is to be written
}

// Refused counts a request that a door refused before a decision or instead of
// one. Neither name may come from a request. Within a second a record holds the
// counts; nothing is written while nothing is refused, so nobody fills the
// ledger without a credential.
func (p *PDP) Refused(door string, code authz.Code) { p.tally(door, code, 1) }

func (p *PDP) tally(door string, code authz.Code, n uint64) {
	r := &p.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, counted := r.counts[door][code]; !counted {
		if r.pairs >= maxRefusals {
			door, code = otherRefusals, otherRefusals
		}
		if r.counts == nil {
			r.counts = map[string]map[authz.Code]uint64{}
		}
		if r.counts[door] == nil {
			r.counts[door] = map[authz.Code]uint64{}
		}
		r.pairs++
	}
	r.counts[door][code] += n
	if !r.armed {
		r.armed = true
		time.AfterFunc(refusalsEvery, func() { _ = p.WriteRefusals() })
	}
}

// WriteRefusals records what was counted and is not recorded yet: before the
// ledger is closed. What cannot be recorded is counted on.
func (p *PDP) WriteRefusals() error {
	r := &p.refusals
	r.mu.Lock()
	counts := r.counts
	r.counts, r.pairs, r.armed = nil, 0, false
	r.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	_, err := p.note(audit.Refusals, clearPart{Refusals: counts})
	if err != nil {
		for door, codes := range counts {
			for code, n := range codes {
				p.tally(door, code, n)
			}
		}
	}
	return err
}

// note records what is no answer and no change, and seals nothing.
func (p *PDP) note(kind audit.Kind, c clearPart) (uint64, error) {
	if err := p.healthy(); err != nil {
		return 0, err
	}
	now, err := p.clock.now()
	if err != nil {
		return 0, err
	}
	head := p.current.Load().head
	c.Semantics, c.Revision, c.Head, c.Now = Semantics, head.Revision, head.Hash, int64(now)
	clear, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	// Nobody's leaving makes it uncertain whether it was written.
	seq, err := p.ledger.Append(context.Background(), audit.Record{Kind: kind, Time: c.Now, Clear: clear, Caller: c.Caller})
	if err != nil {
		return 0, unrecorded(err)
	}
	return seq, nil
}
