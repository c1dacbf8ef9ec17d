package redisconn

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

type mode string

const (
	modeStandalone mode = "standalone"
	modeSentinel   mode = "sentinel"
	modeCluster    mode = "cluster"
	modeUnix       mode = "unix"
)

// target is what a URL says.
type target struct {
	scheme             string
	mode               mode
	tls                bool
	username, password string
	addrs              []string // host:port; the path of a socket
	master             string   // of Sentinel
	db                 int
	sentinelUsername   string
	sentinelPassword   string
	clientName         string
	poolSize           int
	dialTimeout        time.Duration
	readTimeout        time.Duration
	writeTimeout       time.Duration
}

var schemes = map[string]target{
	"redis":           {mode: modeStandalone},
	"rediss":          {mode: modeStandalone, tls: true},
	"redis-sentinel":  {mode: modeSentinel},
	"rediss-sentinel": {mode: modeSentinel, tls: true},
	"redis-cluster":   {mode: modeCluster},
	"rediss-cluster":  {mode: modeCluster, tls: true},
	"unix":            {mode: modeUnix},
}

// schemeNames in the order in which errors list them.
var schemeNames = []string{"redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis-cluster", "rediss-cluster", "unix"}

// parse reads a Redis URL. net/url does not know lists of hosts, and its errors
// quote what it was given: here no error repeats any part of the URL that could
// be, or could by a slip of the pen contain, a secret.
func parse(raw string) (target, error) {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		return target{}, errors.New("redis: the address has no scheme; write redis://host:6379/0")
	}
	scheme = strings.ToLower(scheme)
	t, known := schemes[scheme]
	if !known {
		return target{}, unknownScheme(scheme)
	}
	t.scheme = scheme

	rest, query, _ := strings.Cut(rest, "?")
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	// An @ behind the host, or two of them, is the end of credentials that hold
	// a bare / ? or @: without a word, a part of them would be taken for a host.
	if strings.Count(authority, "@") > 1 || strings.ContainsAny(path+query, "@#") || strings.Contains(authority, "#") {
		return target{}, errors.New("redis: the address has a bare @, /, ? or # where none belongs; write them as %40, %2F, %3F and %23 in user name and password")
	}
	if userinfo, hosts, found := strings.Cut(authority, "@"); found {
		authority = hosts
		if err := t.setCredentials(userinfo); err != nil {
			return target{}, err
		}
	}
	if err := t.setPlace(authority, path); err != nil {
		return target{}, err
	}
	return t, t.setQuery(query)
}

func unknownScheme(scheme string) error {
	if near := suggest.Nearest(scheme, schemeNames); near != "" {
		return fmt.Errorf("redis: the address has an unknown scheme; did you mean %s://", near)
	}
	return fmt.Errorf("redis: the address has an unknown scheme; known are %s://", strings.Join(schemeNames, "://, "))
}

func (t *target) setCredentials(userinfo string) error {
	user, password, _ := strings.Cut(userinfo, ":")
	var errUser, errPassword error
	t.username, errUser = url.PathUnescape(user)
	t.password, errPassword = url.PathUnescape(password)
	if errUser != nil || errPassword != nil {
		return errors.New("redis: a % in the address's user name or password is not the start of an escape; write it as %25")
	}
	return nil
}

// setPlace reads hosts and path: they mean something else in each mode.
func (t *target) setPlace(authority, path string) error {
	if t.mode == modeUnix {
		return t.setSocket(authority, path)
	}
	defaultPort := "6379"
	if t.mode == modeSentinel {
		defaultPort = "26379"
	}
	hosts := strings.Split(authority, ",")
	if t.mode == modeStandalone && len(hosts) > 1 {
		return fmt.Errorf("redis: %s:// names one server, the address has %d; write redis-cluster://h1,h2 or redis-sentinel://h1,h2/master", t.scheme, len(hosts))
	}
	for i, host := range hosts {
		addr, err := hostPort(host, defaultPort)
		if err != nil {
			return fmt.Errorf("redis: host %d of %d in the address %w", i+1, len(hosts), err)
		}
		t.addrs = append(t.addrs, addr)
	}

	parts := strings.Split(strings.Trim(path, "/"), "/")
	db := parts[0]
	switch {
	case t.mode == modeSentinel:
		name, err := url.PathUnescape(parts[0])
		if err != nil || name == "" {
			return fmt.Errorf("redis: the address names no master; write %s://host:26379/mymaster/0", t.scheme)
		}
		t.master, db = name, ""
		if len(parts) > 1 {
			db = parts[1]
		}
		parts = parts[1:]
	case t.mode == modeCluster && db != "" && db != "0":
		return errors.New("redis: a Cluster has no databases but 0; remove the path of the address")
	}
	if len(parts) > 1 {
		return errors.New("redis: the address goes on behind the database; remove what follows it")
	}
	return t.setDB(db)
}

func (t *target) setSocket(authority, path string) error {
	if authority != "" {
		return errors.New("redis: a socket has no host; write unix:///path/to.sock, with three slashes")
	}
	socket, err := url.PathUnescape(path)
	if err != nil || len(socket) < 2 {
		return errors.New("redis: the address names no socket; write unix:///path/to.sock")
	}
	t.addrs = []string{socket}
	return nil
}

func (t *target) setDB(db string) error {
	if db == "" {
		return nil
	}
	n, err := strconv.ParseUint(db, 10, 16)
	if err != nil {
		return errors.New("redis: the database in the address is not a number; write redis://host:6379/0")
	}
	t.db = int(n)
	return nil
}

// hostPort adds the default port and checks what is given. Its errors follow
// the words "host 1 of 2 in the address".
func hostPort(s, defaultPort string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		// Most often: no port. With it, all other faults show.
		host, port, err = net.SplitHostPort(s + ":" + defaultPort)
	}
	if err != nil {
		return "", errors.New("is not host:port; write an IPv6 address in brackets, such as [::1]:6379")
	}
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("has a port that is not a number from 1 to 65535")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if strings.ContainsAny(host, " \t\r\n%") {
		return "", errors.New("has a name with blanks or % in it")
	}
	return net.JoinHostPort(host, port), nil
}

// queryKeys are the parameters that may follow the ?, and how each is read.
var queryKeys = map[string]func(t *target, value string) error{
	"db":                func(t *target, v string) error { return t.setDB(v) },
	"sentinel_username": func(t *target, v string) error { t.sentinelUsername = v; return nil },
	"sentinel_password": func(t *target, v string) error { t.sentinelPassword = v; return nil },
	"client_name":       func(t *target, v string) error { t.clientName = v; return nil },
	"pool_size":         func(t *target, v string) error { return setInt(&t.poolSize, v) },
	"dial_timeout":      func(t *target, v string) error { return setDuration(&t.dialTimeout, v) },
	"read_timeout":      func(t *target, v string) error { return setDuration(&t.readTimeout, v) },
	"write_timeout":     func(t *target, v string) error { return setDuration(&t.writeTimeout, v) },
}

func (t *target) setQuery(query string) error {
	if query == "" {
		return nil
	}
	var errs []error
	for i, pair := range strings.Split(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		set, known := queryKeys[key]
		if !known {
			errs = append(errs, unknownParameter(i+1, key))
			continue
		}
		value, err := url.QueryUnescape(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("redis: parameter %s of the address has a %% that starts no escape; write it as %%25", key))
			continue
		}
		if err := set(t, value); err != nil {
			errs = append(errs, fmt.Errorf("redis: parameter %s of the address: %w", key, err))
		}
	}
	if t.mode == modeCluster && t.db != 0 {
		errs = append(errs, errors.New("redis: a Cluster has no databases but 0; remove db from the address"))
	}
	if t.mode != modeSentinel && t.sentinelUsername+t.sentinelPassword != "" {
		errs = append(errs, fmt.Errorf("redis: sentinel_username and sentinel_password mean nothing with %s://; remove them, or write redis-sentinel://", t.scheme))
	}
	return errors.Join(errs...)
}

func unknownParameter(n int, key string) error {
	switch key { // of other clients' URLs, and refused for a reason
	case "skip_verify", "insecure", "ssl_cert_reqs":
		return fmt.Errorf("redis: parameter %s of the address: certificates are always verified; name your authority with ca_file", key)
	}
	var known []string
	for name := range queryKeys {
		known = append(known, name)
	}
	slices.Sort(known)
	if near := suggest.Nearest(key, known); near != "" {
		return fmt.Errorf("redis: parameter %d of the address is unknown; did you mean %s", n, near)
	}
	return fmt.Errorf("redis: parameter %d of the address is unknown; known are %s", n, strings.Join(known, ", "))
}

func setInt(to *int, s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return errors.New("give a number from 0 to 65535")
	}
	*to = int(n)
	return nil
}

func setDuration(to *time.Duration, s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("give a positive duration, such as 5s")
	}
	*to = d
	return nil
}

// Redact returns the address without its passwords, for logs and errors. What
// cannot be read is not shown.
func Redact(raw string) string {
	t, err := parse(raw)
	if err != nil {
		return "(unreadable Redis address)"
	}
	var b strings.Builder
	b.WriteString(t.scheme + "://")
	if t.username != "" || t.password != "" {
		b.WriteString(url.PathEscape(t.username))
		if t.password != "" {
			b.WriteString(":***")
		}
		b.WriteByte('@')
	}
	b.WriteString(strings.Join(t.addrs, ","))
	switch {
	case t.mode == modeSentinel:
		fmt.Fprintf(&b, "/%s/%d", url.PathEscape(t.master), t.db)
	case t.mode == modeStandalone:
		fmt.Fprintf(&b, "/%d", t.db)
	case t.mode == modeUnix && t.db != 0:
		fmt.Fprintf(&b, "?db=%d", t.db)
	}
	return b.String()
}
