package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// Client asks a [Handler], in this process or in another.
type Client struct{ http *http.Client }

// NewClient returns a client over a transport: [InProcess] or [Socket].
func NewClient(t http.RoundTripper) *Client { return &Client{&http.Client{Transport: t}} }

// Socket is the transport to a server's Unix socket.
func Socket(path string) http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
}

// maxAnswer bounds an answer that is held in memory.
const maxAnswer = 256 << 20

// Get asks an endpoint without a body.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

// Post sends in as JSON. An answer that is none is an *[Error].
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, path, body, out)
}

func (c *Client) call(ctx context.Context, method, path string, in []byte, out any) error {
	body, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return errors.New("the server's answer is not what this version expects")
	}
	return nil
}

// Copy returns a consistent copy of store and ledger, a tar stream; see [Unpack].
func (c *Client) Copy(ctx context.Context) (io.ReadCloser, error) {
	return c.do(ctx, http.MethodGet, "/v1/copy", nil)
}

func (c *Client) do(ctx context.Context, method, path string, in []byte) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	var answer struct{ Error *Error }
	if err := json.NewDecoder(io.LimitReader(response.Body, 16<<20)).Decode(&answer); err != nil || answer.Error == nil {
		return nil, fmt.Errorf("the server answers %s", response.Status)
	}
	answer.Error.Status = response.StatusCode
	return nil, answer.Error
}

// InProcess is a transport that calls a handler directly, as the given user.
func InProcess(h http.Handler, uid int) http.RoundTripper { return &inProcess{h, uid} }

type inProcess struct {
	h   http.Handler
	uid int
}

// RoundTrip implements [http.RoundTripper].
func (p *inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	w := &pipeWriter{header: http.Header{}, body: pw, started: make(chan struct{})}
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, p.uid))
	if r.Body == nil {
		r.Body = http.NoBody
	}
	go func() {
		var aborted error
		defer func() {
			if v := recover(); v != nil {
				aborted = io.ErrUnexpectedEOF
			}
			w.WriteHeader(http.StatusOK)
			_ = pw.CloseWithError(aborted)
		}()
		p.h.ServeHTTP(w, r)
	}()
	<-w.started
	return &http.Response{Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header.Clone(), Body: pr, ContentLength: -1, Request: r}, nil
}

type pipeWriter struct {
	header  http.Header
	body    io.Writer
	once    sync.Once
	status  int
	started chan struct{}
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() { w.status = status; close(w.started) })
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
