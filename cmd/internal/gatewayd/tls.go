package gatewayd

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// certificate is the one of the public address. Its files are read again when they change, so that a renewed one is shown without a
// restart. Files that can't be read keep the last good one.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	stamp  string    // of the files that were read last
	looked time.Time // at the files
}

// lookEvery is how soon after a look at the files the next handshake looks again.
const lookEvery = time.Second

func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, stamp: stampOf(certFile, keyFile), looked: time.Now()}
	pair, err := c.read()
	if err != nil {
		return nil, err
	}
	c.pair = pair
	return c, nil
}

func (c *certificate) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w; check gateway.cert_file and gateway.key_file", err)
	}
	return &pair, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(time.Now()), nil },
	}
}

func (c *certificate) current(now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) < lookEvery {
		return c.pair
	}
	c.looked = now
	stamp := stampOf(c.certFile, c.keyFile)
	if stamp == c.stamp {
		return c.pair
	}
	c.stamp = stamp
	pair, err := c.read()
	if err != nil { // perhaps one of the two is written yet: then they change again
		c.log.Error("certificate not reloaded, the last one stays", "err", err)
		return c.pair
	}
	c.log.Info("certificate reloaded", "file", c.certFile)
	c.pair = pair
	return c.pair
}

// stampOf changes with the files.
func stampOf(files ...string) string {
	var stamp strings.Builder
	for _, file := range files {
		info, err := os.Stat(file) // through links: Kubernetes swaps them
		if err != nil {
			stamp.WriteString("gone;")
			continue
		}
		fmt.Fprintf(&stamp, "%d,%d;", info.ModTime().UnixNano(), info.Size())
	}
	return stamp.String()
}
