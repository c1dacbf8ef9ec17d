package handlers

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The defaults of AMQPConfig.
const (
	DefaultAMQPChannels = 8
	DefaultAMQPTimeout  = 20 * time.Second
)

// AMQPConfig is the broker that amqp:publish publishes to. The zero value has none: jobs then wait for a worker that has.
type AMQPConfig struct {
	// URL is amqp://[user:password@]host[:5672][/vhost], or amqps:// for TLS.
	URL string `mapstructure:"url"`

	// Username and Password replace those of the URL. PasswordFile names a file that holds the password; it is read for each
	// connection, so that a rotated password needs no restart. At most one of Password and PasswordFile.
	Username     string `mapstructure:"username"`
	Password     string `mapstructure:"password"`
	PasswordFile string `mapstructure:"password_file"`

	// CAFile holds the authorities to trust, in PEM, instead of the system's; CertFile and KeyFile are shown to a broker that asks for a
	// client certificate; ServerName is the name to expect in the broker's, by default the host. They need amqps://.
	CAFile     string `mapstructure:"ca_file"`
	CertFile   string `mapstructure:"cert_file"`
	KeyFile    string `mapstructure:"key_file"`
	ServerName string `mapstructure:"server_name"`

	// Channels is how many messages of this worker may be under way at once, over one connection. Default 8, at most 1,000.
	Channels int `mapstructure:"channels"`

	// Timeout bounds one attempt, from dialling to the confirmation. At most 50s; default 20s.
	Timeout time.Duration `mapstructure:"timeout"`
}

// WithDefaults fills what is not set.
func (c AMQPConfig) WithDefaults() AMQPConfig {
	c.Channels = cmp.Or(c.Channels, DefaultAMQPChannels)
	c.Timeout = cmp.Or(c.Timeout, DefaultAMQPTimeout)
	return c
}

// Validate reports every fault at once. It does not look into the files.
func (c AMQPConfig) Validate() error { return errors.Join(c.faults()...) }

func (c AMQPConfig) faults() (faults []error) {
	c = c.WithDefaults()
	if c.URL != "" {
		faults = append(faults, c.urlFaults()...)
	}
	if c.Password != "" && c.PasswordFile != "" {
		faults = append(faults, errors.New("password: password_file is set too; keep one of them"))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		faults = append(faults, errors.New("cert_file: needs key_file, and the other way round; set both"))
	}
	if c.Channels < 1 || c.Channels > 1000 {
		faults = append(faults, fmt.Errorf("channels: is %d, 1 to 1000 are allowed", c.Channels))
	}
	if c.Timeout < time.Millisecond || c.Timeout > 50*time.Second {
		faults = append(faults, fmt.Errorf("timeout: is %v, 1ms to 50s are allowed", c.Timeout))
	}
	return faults
}

// urlFaults tells nothing of what stands in the URL: it may hold a password.
func (c AMQPConfig) urlFaults() []error {
	uri, err := amqp.ParseURI(c.URL)
	switch {
	case err != nil:
		return []error{errors.New("url: is not amqp://[user:password@]host[:5672][/vhost] or amqps://...; write special characters of user and password as %40 and the like")}
	case strings.Contains(c.URL, "?"):
		return []error{errors.New("url: has parameters after ?, which are not read; use the settings beside it, ca_file and the like")}
	case uri.Scheme == "amqp" && (c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" || c.ServerName != ""):
		return []error{errors.New("url: amqp:// is plain text, but ca_file, cert_file, key_file or server_name is set; write amqps://")}
	}
	return nil
}

func (c AMQPConfig) credentials(uri amqp.URI) (*amqp.PlainAuth, error) {
	auth := &amqp.PlainAuth{Username: cmp.Or(c.Username, uri.Username), Password: cmp.Or(c.Password, uri.Password)}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read the password: %w; check handlers.amqp.password_file", err)
		}
		auth.Password = strings.TrimRight(string(text), "\r\n") // editors end files with a newline, which no password means
	}
	return auth, nil
}

// tlsConfig reads the files when a worker starts, so that a wrong path shows at once.
func (c AMQPConfig) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the authority: %w; check handlers.amqp.ca_file", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the authority: %s holds no PEM certificate; check handlers.amqp.ca_file", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w; check handlers.amqp.cert_file and key_file", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
