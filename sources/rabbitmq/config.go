package rabbitmq

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// The defaults of Config.
const (
	DefaultURL           = "amqp://guest:guest@127.0.0.1:5672/" //nolint:gosec // every broker's own default, good from its own machine alone
	DefaultPrefetch      = 500
	DefaultDeliveryLimit = 1000
	maxPrefetch          = 65535
)

// How the queue comes to be there, and of which type it is.
const (
	Declare = "declare"
	Expect  = "expect"
	Quorum  = "quorum"
	Classic = "classic"
)

// Config is one queue to take events from. Only Queue must be set: every other zero is its default.
type Config struct {
	// Name tells this source from the others in logs and in the broker's list of connections. Default: Queue.
	Name string `mapstructure:"name"`

	// URL is amqp://[user:password@]host[:5672][/vhost], or amqps:// for TLS. Default amqp://guest:guest@127.0.0.1:5672/.
	URL string `mapstructure:"url"`

	// Username and Password replace those of the URL. PasswordFile names a file that holds the password; it is read for each
	// connection, so that a rotated password needs no restart. At most one of Password and PasswordFile.
	Username     string `mapstructure:"username"`
	Password     string `mapstructure:"password"`
	PasswordFile string `mapstructure:"password_file"`

	// TLS needs amqps://; plain text is never a fallback.
	TLS TLS `mapstructure:"tls"`

	// Queue is what the messages are taken from.
	Queue string `mapstructure:"queue"`

	// Topology is "declare": the queue, its dead-letter queue and the bindings are made where they are missing; or "expect":
	// somebody else makes them, and the source waits until they are there. Default "declare".
	Topology string `mapstructure:"topology"`

	// QueueType is "quorum" or "classic", for a queue that is declared. Default "quorum".
	QueueType string `mapstructure:"queue_type"`

	// Transient declares a classic queue that does not outlive a restart of the broker: its messages are lost then. Default false.
	Transient bool `mapstructure:"transient"`

	// DeliveryLimit is how often the broker hands out a message of a quorum queue until it gives up and dead-letters it: what kills
	// every process that takes it ends there. Each lost connection and each restart counts once for the messages in hand;
	// an outage of Redis does not. For a queue that is declared; a queue that is expected should have one as high (RabbitMQ 4
	// comes with 20) and a dead-letter exchange. Default 1000.
	DeliveryLimit int `mapstructure:"delivery_limit"`

	// Bindings say which messages come into the queue. None: those sent to the queue by its name, or what others have bound.
	Bindings []Binding `mapstructure:"bindings"`

	// DeadLetter is where messages go that can't become an event.
	DeadLetter DeadLetter `mapstructure:"dead_letter"`

	// Prefetch is how many messages may be in hand, unacknowledged. Up to half of them are published in one call. Default 500.
	Prefetch int `mapstructure:"prefetch"`

	// Mapping says what event a message becomes that is no CloudEvent.
	Mapping Mapping `mapstructure:"mapping"`
}

// Binding brings messages of an exchange into the queue.
type Binding struct {
	// Exchange is expected to be there unless ExchangeType is set.
	Exchange string `mapstructure:"exchange"`
	// ExchangeType declares the exchange, durable: "topic", "direct", "fanout", "headers". Default: it is not declared.
	ExchangeType string `mapstructure:"exchange_type"`
	// RoutingKeys are the keys to bind with, such as "orders.*.created". Default: one binding with the empty key.
	RoutingKeys []string `mapstructure:"routing_keys"`
}

// DeadLetter is where messages go that can't become an event: to an exchange, with the reason in header x-bellhop-reason.
type DeadLetter struct {
	// Exchange and RoutingKey are where they are sent. Default: straight to Queue.
	Exchange   string `mapstructure:"exchange"`
	RoutingKey string `mapstructure:"routing_key"`
	// Queue is declared with the topology, a durable quorum queue, and bound if Exchange is set. Default: the source's queue
	// with ".dead" added; none if Exchange is set.
	Queue string `mapstructure:"queue"`
}

// TLS is what an amqps:// address needs beyond the system's authorities.
type TLS struct {
	// CAFile holds the PEM certificates of the authorities to trust instead of the system's.
	CAFile string `mapstructure:"ca_file"`
	// CertFile and KeyFile are shown to a broker that asks for a client certificate.
	CertFile string `mapstructure:"cert_file"`
	KeyFile  string `mapstructure:"key_file"`
	// ServerName is the name to expect in the broker's certificate. Default: the host of the URL.
	ServerName string `mapstructure:"server_name"`
}

// WithDefaults fills what is not set.
func (c Config) WithDefaults() Config {
	c.Name = cmp.Or(c.Name, c.Queue)
	c.URL = cmp.Or(c.URL, DefaultURL)
	c.Topology = cmp.Or(c.Topology, Declare)
	c.QueueType = cmp.Or(c.QueueType, Quorum)
	c.DeliveryLimit = cmp.Or(c.DeliveryLimit, DefaultDeliveryLimit)
	c.Prefetch = cmp.Or(c.Prefetch, DefaultPrefetch)
	c.Mapping = c.Mapping.withDefaults(c.Queue)
	if c.DeadLetter.Exchange == "" {
		c.DeadLetter.Queue = cmp.Or(c.DeadLetter.Queue, c.Queue+".dead")
		c.DeadLetter.RoutingKey = c.DeadLetter.Queue
	}
	return c
}

// Validate reports every fault at once. It opens no connection and no file.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if c.DeadLetter.Exchange == "" && c.DeadLetter.RoutingKey != "" && c.DeadLetter.RoutingKey != c.DeadLetter.Queue {
		fault("dead_letter.routing_key: needs dead_letter.exchange; set it, or name the queue in dead_letter.queue")
	}
	c = c.WithDefaults()
	faults = append(faults, c.urlFaults()...)
	if c.Password != "" && c.PasswordFile != "" {
		fault("password: password_file is set too; keep one of them")
	}
	switch {
	case c.Queue == "":
		fault("queue: is missing; name the queue to take messages from")
	case len(c.Queue) > 250 || strings.HasPrefix(c.Queue, "amq."):
		fault("queue: %.40q is no name for a queue: at most 250 bytes, and not beginning with amq.", c.Queue)
	}
	if c.DeadLetter.Queue == c.Queue && c.Queue != "" {
		fault("dead_letter.queue: is the queue itself; name another one")
	}
	oneOf := func(name, value string, known ...string) {
		if slices.Contains(known, value) {
			return
		}
		fault("%s: %q is none of %s%s", name, value, strings.Join(known, ", "), suggest.DidYouMean(value, known))
	}
	oneOf("topology", c.Topology, Declare, Expect)
	oneOf("queue_type", c.QueueType, Quorum, Classic)
	if c.Transient && c.QueueType == Quorum {
		fault("transient: a quorum queue is always durable; leave it out, or set queue_type: classic")
	}
	if c.DeliveryLimit < 1 {
		fault("delivery_limit: is %d, at least 1 is needed", c.DeliveryLimit)
	}
	if c.Prefetch < 1 || c.Prefetch > maxPrefetch {
		fault("prefetch: is %d, 1 to %d are allowed", c.Prefetch, maxPrefetch)
	}
	for i, b := range c.Bindings {
		if b.Exchange == "" {
			fault("bindings[%d].exchange: is missing; messages sent to the queue by its name need no binding", i)
		}
		if b.ExchangeType != "" {
			oneOf(fmt.Sprintf("bindings[%d].exchange_type", i), b.ExchangeType, "topic", "direct", "fanout", "headers")
		}
		for _, key := range b.RoutingKeys {
			if len(key) > 255 {
				fault("bindings[%d].routing_keys: %.40q... is longer than 255 bytes", i, key)
			}
		}
	}
	return errors.Join(append(faults, c.Mapping.faults()...)...)
}

// urlFaults tells nothing of what stands in the URL: it may hold a password.
func (c Config) urlFaults() []error {
	uri, err := amqp.ParseURI(c.URL)
	if err != nil {
		return []error{errors.New("url: is not amqp://[user:password@]host[:5672][/vhost] or amqps://...; write special characters of user and password as %40 and the like")}
	}
	var faults []error
	if u, err := url.Parse(c.URL); err == nil && u.RawQuery != "" {
		faults = append(faults, errors.New("url: has parameters after ?, which are not read; use the settings beside it, tls.ca_file and the like"))
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		faults = append(faults, errors.New("tls: cert_file and key_file need each other; set both"))
	}
	if uri.Scheme == "amqp" && c.TLS != (TLS{}) {
		faults = append(faults, errors.New("tls: is set, but amqp:// is plain text; write amqps://"))
	}
	return faults
}

// String describes the configuration without its secrets.
func (c Config) String() string {
	c = c.WithDefaults()
	return fmt.Sprintf("%s: queue %s at %s", c.Name, c.Queue, c.address())
}

// GoString keeps the password out of %#v.
func (c Config) GoString() string { return "rabbitmq.Config{" + c.String() + "}" }

// LogValue keeps the password out of logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// address is the broker's host:port.
func (c Config) address() string {
	uri, err := amqp.ParseURI(c.URL)
	if err != nil {
		return "an address that doesn't parse"
	}
	return fmt.Sprintf("%s:%d", uri.Host, uri.Port)
}

func (c Config) credentials(uri amqp.URI) (*amqp.PlainAuth, error) {
	auth := &amqp.PlainAuth{Username: cmp.Or(c.Username, uri.Username), Password: cmp.Or(c.Password, uri.Password)}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read the password of RabbitMQ: %w; check password_file", err)
		}
		auth.Password = strings.TrimRight(string(text), "\r\n") // editors end files with a newline, which no password means
	}
	return auth, nil
}

func (c TLS) config(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cmp.Or(c.ServerName, host)}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the authority of RabbitMQ: %w; check tls.ca_file", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the authority of RabbitMQ: %s holds no PEM certificate; check tls.ca_file", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate for RabbitMQ: %w; check tls.cert_file and tls.key_file", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
