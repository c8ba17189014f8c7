package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ward-authz/ward/adapters/webhook"
	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/pdp"
)

// webhookConfig is where events go; without a url there are none.
type webhookConfig struct {
	url, secretFile string
	events          []string
}

func (c *config) readWebhook(r *reader, n *yaml.Node) {
	w := &c.webhook
	r.each(n, map[string]func(*yaml.Node){
		"url":        r.text(&w.url),
		"secretFile": r.text(&w.secretFile),
		"events":     r.texts(&w.events),
	})
	if r.err != nil {
		return
	}
	if w.url == "" || w.secretFile == "" || len(w.events) == 0 {
		r.fail(n, "a webhook needs url, secretFile and events")
		return
	}
	if err := webhook.CheckURL(w.url); err != nil {
		r.fail(n, "%s", strings.TrimPrefix(err.Error(), "webhook: "))
	}
	for i, e := range w.events {
		switch {
		case e != webhook.GrantEnding:
			r.fail(n, "there is no event %q: known is %s", e, webhook.GrantEnding)
		case i > 0:
			r.fail(n, "the event %s is given twice", e)
		}
	}
}

// startWebhook posts events until stop is called, if the configuration has a
// webhook. It reads the facts as everybody does, and holds up nobody.
func (s *server) startWebhook() (stop func(), err error) {
	if s.cfg.webhook.url == "" {
		return func() {}, nil
	}
	h, err := s.openWebhook()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	return func() { cancel(); <-done }, nil
}

// openWebhook makes the webhook of a kernel.
func (s *server) openWebhook() (*webhook.Hook, error) {
	w := s.cfg.webhook
	secret, err := readSecret(w.secretFile)
	if err != nil {
		return nil, err
	}
	state := filepath.Join(s.cfg.data, "webhook.json")
	h, err := webhook.New(webhook.Config{URL: w.url, Secret: secret, State: state, Source: grantSource{s.kernel.pdp}, Log: s.log})
	if errors.Is(err, webhook.ErrState) {
		return nil, failf(exitIntegrity, "move it away: events that were due by now are not sent then", "%s is not as it was written", state)
	}
	if err != nil {
		return nil, fmt.Errorf("the webhook cannot be opened: %s", strings.TrimPrefix(err.Error(), "webhook: "))
	}
	return h, nil
}

// readSecret reads a file that nobody but its owner may read.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", failf(exitFailure, "name it as webhook.secretFile", "the webhook's secret %s cannot be read: %s", path, cause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", invalid("", "the webhook's secret %s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return "", invalid("chmod 600 "+path, "others than its owner may read or change the webhook's secret %s", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	return strings.TrimSpace(string(text)), err
}

// grantSource shows a webhook the grants of a decision point.
type grantSource struct{ pdp *pdp.PDP }

// Now implements [webhook.Source].
func (s grantSource) Now() (time.Time, error) {
	now, err := s.pdp.Now()
	return now.Time(), err
}

// Revision implements [webhook.Source].
func (s grantSource) Revision() uint64 { return s.pdp.Graph().Head().Revision }

// Live implements [webhook.Source].
func (s grantSource) Live(now time.Time) iter.Seq[webhook.Grant] {
	return func(yield func(webhook.Grant) bool) {
		view := s.pdp.View(hierarchy.At(now), 0)
		for f := range view.Facts(hierarchy.KindGrant) {
			if g, ok := ending(view, f.Event.Grant.ID); ok && !yield(g) {
				return
			}
		}
	}
}

// Grant implements [webhook.Source].
func (s grantSource) Grant(id string, now time.Time) (webhook.Grant, bool) {
	return ending(s.pdp.View(hierarchy.At(now), 0), id)
}

// ending returns a grant that is live and has an end.
func ending(view hierarchy.View, id string) (webhook.Grant, bool) {
	g, ok := view.Grant(id)
	if !ok || g.State(view.Instant()) != hierarchy.GrantActive || g.Effective.To == hierarchy.Forever {
		return webhook.Grant{}, false
	}
	return webhook.Grant{ID: g.ID, Type: g.Type, Ends: g.Effective.To.Time()}, true
}
