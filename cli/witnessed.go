package cli

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ward-authz/ward/adapters/witness"
)

// witnessConfig is a witness that cosigns this server's checkpoints.
type witnessConfig struct {
	url   string
	key   witness.Verifier
	every time.Duration
}

func (c *config) readWitnesses(r *reader, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "want a list of witnesses")
		return
	}
	for _, item := range n.Content {
		w := witnessConfig{every: 10 * time.Second}
		var key, every string
		r.each(item, map[string]func(*yaml.Node){
			"url": r.text(&w.url),
			"key": r.text(&key),
			"every": func(n *yaml.Node) {
				r.text(&every)(n)
				var err error
				if w.every, err = time.ParseDuration(every); err != nil || w.every < 100*time.Millisecond || w.every > time.Hour {
					r.fail(n, "want a time from 100ms to 1h, such as 10s")
				}
			},
		})
		if r.err != nil {
			return
		}
		u, err := url.Parse(w.url)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			r.fail(item, "a witness needs a url: http or https, a host and a path, and nothing else")
			return
		}
		if w.key, err = witness.ParseVerifier(key); err != nil {
			r.fail(item, "a witness needs its public key, as ward witness init prints it")
			return
		}
		for _, o := range c.witnesses {
			if o.key.File() == w.key.File() {
				r.fail(item, "a witness is given twice")
			}
		}
		c.witnesses = append(c.witnesses, w)
	}
}

// startWitnesses submits checkpoints until stop is called. It holds up nobody:
// what a witness says shows in the log and in the status.
func (s *server) startWitnesses() (stop func(), err error) {
	for _, w := range s.cfg.witnesses {
		c, err := witness.NewClient(w.url, w.key, s.kernel.ledger, s.kernel.keys.Verifier, s.cfg.ledger(), s.log)
		if err != nil {
			return nil, failf(exitIntegrity, keepHint, "%s in the ledger's folder is not as it was written: %s", w.key.File(), trim(err))
		}
		s.clients = append(s.clients, c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, c := range s.clients {
		wg.Go(func() { c.Run(ctx, s.cfg.witnesses[i].every) })
	}
	return func() { cancel(); wg.Wait() }, nil
}

// witnesses says how far each has followed.
func (s *server) witnesses() []witness.Status {
	var out []witness.Status
	for _, c := range s.clients {
		out = append(out, c.Status())
	}
	return out
}

// witnessKeys reads the public keys of witnesses.
func witnessKeys(texts []string) ([]witness.Verifier, error) {
	var keys []witness.Verifier
	for _, text := range texts {
		key, err := witness.ParseVerifier(strings.TrimSpace(text))
		if err != nil {
			return nil, invalid("as ward witness init prints it", "--witness takes the public key of a witness")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// seen is a cosignature.
type seen struct {
	Witness string    `json:"witness"`
	Size    uint64    `json:"size"`
	Time    time.Time `json:"time"`
}

func (s seen) String() string {
	return fmt.Sprintf("witness %s saw %d records at %s", s.Witness, s.Size, s.Time.Format(time.RFC3339))
}
