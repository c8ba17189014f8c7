// Package webhook tells another system, ahead of time, that a grant ends, so
// that it can ask the people concerned whether it should go on.
//
//	hook, err := webhook.New(webhook.Config{URL: url, Secret: secret, State: path, Source: grants})
//	go hook.Run(ctx)
//
// # Events
//
// For each grant that is live, an event is posted when its effective end comes 30,
// 7 and 1 days ahead:
//
//	{"id": "ending-g-1-30", "type": "grant.ending", "grant": "g-1", "grantType": "parent",
//	 "ends": "2028-05-01T04:00:00.000Z", "days": 30, "revision": 41, "time": "2028-04-01T04:00:00.000Z"}
//
// It names no person and no principal. days is the true number of days that are
// left, rounded up, also of an event that comes late; the number in the id is the
// mark that was passed. A mark that lay in the past when the grant was made, or
// when its end was moved, gives no event; the facts are looked at every five
// minutes, and when a mark is passed.
//
// Requests are signed as Standard Webhooks: webhook-id, webhook-timestamp (Unix
// seconds), and webhook-signature, "v1," and the base64 HMAC-SHA256 of
// id.timestamp.body.
//
// # Delivery
//
// A status from 200 to 299 is a delivery. Anything else, a redirect too, is tried
// again, at intervals that double from a second to ten minutes, until the grant is
// not live any more. What is owed is kept in a file, so that each event arrives at
// least once across restarts, and rarely twice: its id is the same then.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// GrantEnding is the type of the events.
const GrantEnding = "grant.ending"

// marks are how many days ahead of an end an event is due.
var marks = [...]int{30, 7, 1}

const (
	day = 24 * time.Hour
	// rescan is how long the facts may have changed before they are looked at.
	rescan = 5 * time.Minute
	// firstRetry doubles with each failure, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = 10 * time.Minute
	// attemptTimeout bounds one request, its answer included.
	attemptTimeout = 10 * time.Second
	// savedAfter is how many deliveries a crash may make happen twice.
	savedAfter = 64
)

// Grant is what an event tells of a grant.
type Grant struct {
	ID   string
	Type string
	Ends time.Time // its effective end
}

// Source is where grants are read, at one instant and revision at a time.
type Source interface {
	// Now is the instant by which grants are live. An error means that it
	// cannot be told: nothing is sent meanwhile.
	Now() (time.Time, error)
	// Revision is the number of the last change.
	Revision() uint64
	// Live yields the grants that are live at an instant and have an end.
	Live(now time.Time) iter.Seq[Grant]
	// Grant returns one of them.
	Grant(id string, now time.Time) (Grant, bool)
}

// Config says where events go.
type Config struct {
	// URL gets the events: https, or http at a loopback address.
	URL string
	// Secret is what requests are signed with: "whsec_" and the base64 of 24 to
	// 64 bytes.
	Secret string
	// State is the file that holds what is owed. It is made when it is missing:
	// what was due before that is not sent.
	State string
	// Source is required.
	Source Source
	// Log gets failures, never with an id; nil discards.
	Log *slog.Logger
}

// Hook posts events. It is made by [New].
type Hook struct {
	source Source
	url    string
	secret []byte
	client *http.Client
	log    *slog.Logger

	path  string
	state state
	// What the last look at the facts was of, and when the next mark of those
	// grants is passed.
	scanned  uint64
	nextLook time.Time
	nextMark time.Time
	retry    time.Duration // 0: the last attempt went well
	retryAt  time.Time
}

// New checks a Config, and reads what is owed.
func New(c Config) (*Hook, error) {
	if c.Source == nil || c.State == "" {
		return nil, errors.New("webhook: a source and a state file are required")
	}
	local, err := checkURL(c.URL)
	if err != nil {
		return nil, err
	}
	secret, err := parseSecret(c.Secret)
	if err != nil {
		return nil, err
	}
	h := &Hook{source: c.Source, url: c.URL, secret: secret, client: client(local), log: c.Log, path: c.State}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	now, err := c.Source.Now()
	if err != nil {
		return nil, err
	}
	h.state, err = openState(c.State, now)
	return h, err
}

// CheckURL says why events cannot go to a URL, or nil.
func CheckURL(s string) error { _, err := checkURL(s); return err }

// checkURL also tells whether the URL is to be reached on this machine only.
func checkURL(s string) (local bool, err error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false, errors.New("webhook: the url is none, or holds a user or a fragment")
	}
	switch u.Scheme {
	case "https":
		return false, nil
	case "http":
		if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
			return true, nil
		}
		return false, errors.New("webhook: http is for loopback addresses only: use https")
	}
	return false, errors.New("webhook: the url is no https url")
}

func parseSecret(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, "whsec_")
	secret, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(secret) < 24 || len(secret) > 64 {
		return nil, errors.New(`webhook: a secret is "whsec_" and the base64 of 24 to 64 bytes`)
	}
	return secret, nil
}

// client follows no redirect, and asks no proxy: events go to the URL or nowhere.
func client(local bool) *http.Client {
	dialer := &net.Dialer{Timeout: attemptTimeout}
	if local {
		// Whatever localhost resolves to.
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().IsLoopback() {
				return errors.New("webhook: this is no loopback address")
			}
			return nil
		}
	}
	return &http.Client{
		Timeout:       attemptTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: attemptTimeout,
			MaxResponseHeaderBytes: 32 << 10},
	}
}

// Run posts events as they fall due, until ctx ends.
func (h *Hook) Run(ctx context.Context) {
	for {
		wait := h.round(ctx)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			h.save(h.state, h.state.Through)
			return
		case <-t.C:
		}
	}
}

// round does what is due, and returns how long nothing will be.
func (h *Hook) round(ctx context.Context) time.Duration {
	now, err := h.source.Now()
	if err != nil {
		return rescan
	}
	h.look(ctx, now)
	if len(h.state.Owed) > 0 && !now.Before(h.retryAt) {
		h.deliver(ctx, now)
	}
	next := h.nextLook
	if !h.nextMark.IsZero() && h.nextMark.Before(next) {
		next = h.nextMark
	}
	if len(h.state.Owed) > 0 && h.retryAt.Before(next) {
		next = h.retryAt
	}
	return max(next.Sub(now), time.Millisecond)
}

// look notes the marks that were passed since the last look. It goes through all
// grants only when a mark is passed, or the facts are others.
func (h *Hook) look(ctx context.Context, now time.Time) {
	due := !h.nextMark.IsZero() && !now.Before(h.nextMark)
	if !due && now.Before(h.nextLook) {
		return
	}
	h.nextLook = now.Add(rescan)
	revision := h.source.Revision()
	if !due && revision == h.scanned { // no mark was passed
		h.state.Through = later(h.state.Through, now)
		return
	}
	var owed []owing
	var next time.Time
	n := 0
	for g := range h.source.Live(now) {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return
		}
		for _, m := range marks {
			switch at := g.Ends.Add(-time.Duration(m) * day); {
			case at.After(now):
				if next.IsZero() || at.Before(next) {
					next = at
				}
			case at.After(h.state.Through):
				owed = append(owed, owing{g.ID, m})
			}
		}
	}
	owed = append(h.state.Owed[:len(h.state.Owed):len(h.state.Owed)], owed...)
	if h.save(state{Through: later(h.state.Through, now), Owed: owed}, now) {
		h.scanned, h.nextMark = revision, next
	}
}

// later returns the later of two times: the clock of another start may be behind.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// save remembers a state, on disk first. Where that fails all stays as it was:
// the next look finds the same marks, and nothing is sent for a while.
func (h *Hook) save(s state, now time.Time) bool {
	if err := s.write(h.path); err != nil {
		h.log.Error("what the webhook owes cannot be kept", "type", fmt.Sprintf("%T", err))
		h.scanned, h.nextMark = 0, time.Time{}
		h.postpone(now)
		return false
	}
	h.state = s
	return true
}

// postpone puts off the next attempt, each time for longer.
func (h *Hook) postpone(now time.Time) {
	h.retry = min(max(2*h.retry, firstRetry), lastRetry)
	h.retryAt = now.Add(h.retry)
}

// deliver posts what is owed, until one fails: that one goes to the back, so that
// no event holds up the others for good.
func (h *Hook) deliver(ctx context.Context, now time.Time) {
	owed := h.state.Owed
	h.retryAt = time.Time{}
	for n := 1; len(owed) > 0 && ctx.Err() == nil; n++ {
		o := owed[0]
		// What is revoked, or ends later than it did, is owed no more.
		if g, live := h.source.Grant(o.Grant, now); live && !now.Before(g.Ends.Add(-time.Duration(o.Mark)*day)) {
			status, err := h.post(ctx, event(g, o.Mark, h.source.Revision(), now), now)
			if err != nil {
				if ctx.Err() == nil {
					owed = append(owed[1:len(owed):len(owed)], o)
					h.postpone(now)
					h.log.Warn("an event was not delivered", "status", status, "type", errorType(err), "owed", len(owed), "again", h.retry.String())
				}
				break
			}
			h.retry = 0
		}
		owed = owed[1:]
		if n%savedAfter == 0 && !h.save(state{Through: h.state.Through, Owed: owed}, now) {
			return
		}
		at, err := h.source.Now()
		if err != nil {
			break
		}
		now = at
	}
	h.save(state{Through: h.state.Through, Owed: owed}, now)
}

// Event is the body of a request.
type Event struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Grant     string `json:"grant"`
	GrantType string `json:"grantType"`
	Ends      string `json:"ends"`
	Days      int    `json:"days"`
	Revision  uint64 `json:"revision"`
	Time      string `json:"time"`
}

func event(g Grant, mark int, revision uint64, now time.Time) Event {
	const layout = "2006-01-02T15:04:05.000Z07:00"
	return Event{ID: "ending-" + g.ID + "-" + strconv.Itoa(mark), Type: GrantEnding, Grant: g.ID, GrantType: g.Type,
		Ends: g.Ends.UTC().Format(layout), Days: int((g.Ends.Sub(now) + day - 1) / day), Revision: revision, Time: now.UTC().Format(layout)}
}

// post sends one event.
func (h *Hook) post(ctx context.Context, e Event, now time.Time) (status int, err error) {
	body, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	stamp := strconv.FormatInt(now.Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "ward")
	r.Header.Set("webhook-id", e.ID)
	r.Header.Set("webhook-timestamp", stamp)
	r.Header.Set("webhook-signature", sign(h.secret, e.ID, stamp, body))
	response, err := h.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return response.StatusCode, errStatus
	}
	return response.StatusCode, nil
}

var errStatus = errors.New("webhook: the receiver did not take the event")

// sign returns the signature of a request.
func sign(secret []byte, id, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.", id, stamp)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// errorType says what kind of failure it was, without any name in it.
func errorType(err error) string {
	var op *net.OpError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errStatus):
		return "refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &op):
		return op.Op
	}
	return "other"
}
