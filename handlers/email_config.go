package handlers

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// DefaultEmailTimeout bounds the exchange with the server up to its word for the message.
const DefaultEmailTimeout = time.Minute

// How the connection to the mail server is encrypted.
const (
	tlsStartTLS = "starttls"
	tlsImplicit = "implicit"
	tlsNone     = "none"
)

// EmailConfig is the mail server that email:send hands messages to. The zero value has none: jobs then wait for a worker that has.
type EmailConfig struct {
	// Host of the SMTP server, as in its certificate.
	Host string `mapstructure:"host"`

	// Port. Default: 587, 465 with implicit TLS, 25 without TLS.
	Port int `mapstructure:"port"`

	// Username and Password to log in with; without a username nobody logs in.
	Username string `mapstructure:"username"`
	Password string `mapstructure:"password"`

	// From is the sender of messages that name none: local@domain or Name <local@domain>.
	From string `mapstructure:"from"`

	// TLS is "starttls", "implicit" (TLS from the first byte) or "none". There is no way from the first two to plain text. With none
	// nobody may log in, but on this machine. Default: starttls.
	TLS string `mapstructure:"tls"`

	// CAFile holds the authorities to trust, in PEM, instead of the system's.
	CAFile string `mapstructure:"ca_file"`

	// Hello is what the worker calls itself. Default: localhost, as most programs do.
	Hello string `mapstructure:"hello"`

	// Timeout bounds one attempt, from dialling to the message's end; the server's word for it is waited for one minute more. At most 90s;
	// default 1m.
	Timeout time.Duration `mapstructure:"timeout"`
}

// WithDefaults fills what is not set.
func (c EmailConfig) WithDefaults() EmailConfig {
	c.TLS = cmp.Or(c.TLS, tlsStartTLS)
	if c.Port == 0 {
		c.Port = map[string]int{tlsImplicit: 465, tlsNone: 25}[c.TLS]
		c.Port = cmp.Or(c.Port, 587)
	}
	c.Hello = cmp.Or(c.Hello, "localhost")
	c.Timeout = cmp.Or(c.Timeout, DefaultEmailTimeout)
	return c
}

// Validate reports every fault at once. It does not look into CAFile.
func (c EmailConfig) Validate() error { return errors.Join(c.faults()...) }

func (c EmailConfig) faults() (faults []error) {
	c = c.WithDefaults()
	if c.Host != "" {
		_, err := netip.ParseAddr(c.Host)
		if err != nil && !isName(plainName(c.Host)) {
			faults = append(faults, fmt.Errorf("host: %.60q is no host: write its name alone, and the port as port", c.Host))
		}
	}
	if c.Port < 1 || c.Port > 65535 {
		faults = append(faults, fmt.Errorf("port: is %d, 1 to 65535 are allowed", c.Port))
	}
	if c.From != "" {
		if _, err := parseAddress(c.From); err != nil {
			faults = append(faults, fmt.Errorf("from: %w", err))
		}
	}
	if !slices.Contains([]string{tlsStartTLS, tlsImplicit, tlsNone}, c.TLS) {
		faults = append(faults, fmt.Errorf("tls: %.20q is none of starttls, implicit and none", c.TLS))
	}
	if c.TLS == tlsNone && c.Username != "" && !isLocal(c.Host) {
		faults = append(faults, errors.New("tls: is none, and there is a username: the password would be readable on its way: take starttls or implicit"))
	}
	if c.Password != "" && c.Username == "" {
		faults = append(faults, errors.New("username: is empty, and there is a password: set both or none"))
	}
	if strings.ContainsFunc(c.Username+c.Password, func(r rune) bool { return r < ' ' }) {
		faults = append(faults, errors.New("username, password: have control characters, such as a line break at the end"))
	}
	if !isName(plainName(c.Hello)) && strings.Trim(c.Hello, "[]0123456789.:abcdefIPv") != "" {
		faults = append(faults, fmt.Errorf("hello: %.60q is no host name", c.Hello))
	}
	if c.Timeout < time.Millisecond || c.Timeout > maxWebhookTimeout {
		faults = append(faults, fmt.Errorf("timeout: is %v, 1ms to %v are allowed", c.Timeout, maxWebhookTimeout))
	}
	return faults
}

func isLocal(host string) bool {
	a, err := netip.ParseAddr(host)
	return plainName(host) == "localhost" || err == nil && a.IsLoopback()
}

func (c EmailConfig) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{ServerName: c.Host, MinVersion: tls.VersionTLS12}
	if c.CAFile == "" {
		return cfg, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", c.CAFile)
	}
	return cfg, nil
}

// parseAddress reads one address; its errors don't quote it.
func parseAddress(text string) (*mail.Address, error) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, errors.New("has control characters, such as a line break")
	}
	a, err := mail.ParseAddress(text)
	if err != nil {
		return nil, errors.New("is no address: write local@domain or Name <local@domain>")
	}
	return a, nil
}
