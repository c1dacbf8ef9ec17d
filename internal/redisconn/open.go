package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// ioTimeout bounds dialling and each read and write; the client adds a
	// blocking command's own time.
	ioTimeout = 5 * time.Second
	// maxIdleConns is kept open after a burst.
	maxIdleConns = 16
	// dialTries is one: commands are retried with a back-off of their own, and
	// five dials within each try only delay the news that Redis is gone.
	dialTries = 1
)

// Open returns a client of the address: a *redis.Client for a single server, a
// socket or a Sentinel set, a *redis.ClusterClient for a Cluster. It connects to
// nothing yet, see Check; it reads the TLS and password files, so that a wrong
// path shows at once. The caller closes the client.
func Open(cfg Config) (redis.UniversalClient, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t, err := parse(cfg.url())
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.tlsConfig(t)
	if err != nil {
		return nil, err
	}
	credentials, err := cfg.credentials(&t)
	if err != nil {
		return nil, err
	}
	t.poolSize = cmp.Or(cfg.PoolSize, t.poolSize)
	t.dialTimeout = cmp.Or(t.dialTimeout, ioTimeout)
	t.readTimeout = cmp.Or(t.readTimeout, ioTimeout)
	t.writeTimeout = cmp.Or(t.writeTimeout, ioTimeout)

	switch t.mode {
	case modeCluster:
		return openCluster(t, credentials, tlsConfig), nil
	case modeSentinel:
		return openSentinel(t, credentials, tlsConfig), nil
	default:
		return openStandalone(t, credentials, tlsConfig), nil
	}
}

type credentials func(ctx context.Context) (username, password string, err error)

// credentials merges the configuration's into the URL's. It returns a function
// only for a password that lives in a file.
func (c Config) credentials(t *target) (credentials, error) {
	t.username = cmp.Or(c.Username, t.username)
	t.password = cmp.Or(c.Password, t.password)
	if c.PasswordFile == "" {
		if t.username != "" && t.password == "" {
			return nil, errors.New("redis: there is a user name but no password; add it to the address, or set password or password_file")
		}
		return nil, nil
	}
	if _, err := readPassword(c.PasswordFile); err != nil {
		return nil, err
	}
	username, file := t.username, c.PasswordFile
	return func(context.Context) (string, string, error) {
		password, err := readPassword(file)
		return username, password, err
	}, nil
}

func (c Config) tlsConfig(t target) (*tls.Config, error) {
	if !t.tls {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the authority of Redis: %w; check ca_file", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the authority of Redis: %s holds no PEM certificate; check ca_file", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate for Redis: %w; check cert_file and key_file", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func openStandalone(t target, credentials credentials, tlsConfig *tls.Config) *redis.Client {
	network := "tcp"
	if t.mode == modeUnix {
		network = "unix"
	}
	return redis.NewClient(&redis.Options{
		Network:                    network,
		Addr:                       t.addrs[0],
		Username:                   t.username,
		Password:                   t.password,
		CredentialsProviderContext: credentials,
		DB:                         t.db,
		ClientName:                 t.clientName,
		TLSConfig:                  tlsConfig,
		DialTimeout:                t.dialTimeout,
		ReadTimeout:                t.readTimeout,
		WriteTimeout:               t.writeTimeout,
		ContextTimeoutEnabled:      true,
		DialerRetries:              dialTries,
		PoolSize:                   t.poolSize,
		MaxIdleConns:               maxIdleConns,
		DisableIdentity:            true,
		MaintNotificationsConfig:   noMaintNotifications(),
	})
}

func openCluster(t target, credentials credentials, tlsConfig *tls.Config) *redis.ClusterClient {
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                      t.addrs,
		Username:                   t.username,
		Password:                   t.password,
		CredentialsProviderContext: credentials,
		ClientName:                 t.clientName,
		TLSConfig:                  tlsConfig,
		DialTimeout:                t.dialTimeout,
		ReadTimeout:                t.readTimeout,
		WriteTimeout:               t.writeTimeout,
		ContextTimeoutEnabled:      true,
		DialerRetries:              dialTries,
		PoolSize:                   t.poolSize,
		MaxIdleConns:               maxIdleConns,
		DisableIdentity:            true,
		MaintNotificationsConfig:   noMaintNotifications(),
	})
}

// noMaintNotifications: the handshake is Redis Enterprise's; every other server
// answers it with an error, on each new connection.
func noMaintNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}
