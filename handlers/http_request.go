package handlers

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// HTTP runs http:request.
type HTTP struct {
	cfg       HTTPConfig
	transport *http.Transport
}

// NewHTTP returns a handler that keeps connections open between jobs; it fails if cfg does not validate.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("http:request: %w", err)
	}
	cfg = cfg.WithDefaults()
	allow, _ := parseAllow(cfg.Allow)
	return &HTTP{cfg: cfg, transport: newGuard(allow, "handlers.http.allow").transport()}, nil
}

// Close drops the idle connections.
func (h *HTTP) Close() { h.transport.CloseIdleConnections() }

// Request makes one call. A 2xx ends the job and its response is the result. 408, 425, 429, 5xx and faults of the network are
// tried again, after Retry-After if the server names a time. Everything else is final: no retry would mend it.
// What it returns as error, and so what is logged, holds neither paths, queries, credentials nor anything else of the payload.
func (h *HTTP) Request(ctx context.Context, p tasks.HTTPRequest) error {
	j, _ := job.FromContext(ctx)
	c, err := newCall(h.cfg, j, p)
	if err != nil {
		return err
	}
	during, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	client := http.Client{Transport: h.transport, CheckRedirect: c.checkRedirect}
	resp, err := client.Do(c.request.WithContext(during))
	if err != nil {
		return c.failed(ctx, during, err)
	}
	defer resp.Body.Close()

	if resp.StatusCode/100 != 2 {
		return c.refused(resp, bodyOfError(resp))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(h.cfg.MaxResponseBytes)+1))
	if err != nil {
		return c.failed(ctx, during, err)
	}
	if j == nil {
		return nil
	}
	return keepResult(j, resp, body, h.cfg.MaxResponseBytes)
}

// bodyOfError reads what there is: what can't be read changes nothing about the error.
func bodyOfError(resp *http.Response) []byte {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil // the body is the connection itself, and may never end
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, readOfErrors))
	return body
}
