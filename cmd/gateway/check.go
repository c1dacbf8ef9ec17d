package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// checkWithin bounds --check, which container runtimes run every few seconds.
const checkWithin = 2 * time.Second

// checkReady asks the gateway that serves this configuration whether it is ready: images without curl have no other way.
func (p *process) checkReady(ctx context.Context) error {
	host, port, err := net.SplitHostPort(p.cfg.Gateway.PrivateAddr)
	if err != nil {
		return fmt.Errorf("gateway.private_addr: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("check the gateway: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy: it is here
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("check the gateway: %w; is it running, with this gateway.private_addr?", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("check the gateway: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway is not ready: %s", strings.TrimSpace(string(body)))
	}
	_, err = fmt.Fprintln(p.stdout, "the gateway is ready")
	return err
}
