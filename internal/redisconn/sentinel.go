package redisconn

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// askEvery is how often the sentinels are asked who the master is.
	askEvery = time.Second
	// askWithin bounds one answer.
	askWithin = 2 * time.Second
)

func openSentinel(t target, credentials credentials, tlsConfig *tls.Config) *redis.Client {
	opt := &redis.FailoverOptions{
		MasterName:                 t.master,
		SentinelAddrs:              t.addrs,
		SentinelUsername:           t.sentinelUsername,
		SentinelPassword:           t.sentinelPassword,
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
	}
	opt.Dialer = newMasterWatch(t, tlsConfig).dial
	return redis.NewFailoverClient(opt)
}

// masterWatch ends the connections to a master that is none any more. The driver learns of a new master by the
// sentinels' message, and misses it while it is cut off from them; the old master ends nothing when it comes back, and
// for as long as Sentinel takes to demote it, 8 s, it acknowledges writes that are lost. Who asks again needs no message.
//
// It asks for as long as there are connections, so that nothing has to be closed.
type masterWatch struct {
	name      string
	sentinels []string
	asking    *redis.Options // of a sentinel, without its address
	netDial   func(ctx context.Context, network, addr string) (net.Conn, error)

	mu      sync.Mutex
	open    map[*watchedConn]bool
	masters map[string]bool // all that were named; connections to other addresses are the sentinels'
	stop    chan struct{}   // ends the watch; nil while none runs
	epoch   int64           // of the newest master that was named
}

func newMasterWatch(t target, tlsConfig *tls.Config) *masterWatch {
	dialer := &net.Dialer{Timeout: t.dialTimeout, KeepAlive: 15 * time.Second}
	w := &masterWatch{
		name:      t.master,
		sentinels: t.addrs,
		netDial:   dialer.DialContext,
		open:      make(map[*watchedConn]bool),
		masters:   make(map[string]bool),
	}
	if tlsConfig != nil {
		w.netDial = (&tls.Dialer{NetDialer: dialer, Config: tlsConfig}).DialContext
	}
	w.asking = &redis.Options{
		Username:              t.sentinelUsername,
		Password:              t.sentinelPassword,
		Dialer:                w.netDial,
		DialTimeout:           askWithin,
		ReadTimeout:           askWithin,
		WriteTimeout:          askWithin,
		ContextTimeoutEnabled: true,
		DialerRetries:         dialTries,
		MaxRetries:            -1,
		PoolSize:              1,
		DisableIdentity:       true,
	}
	return w
}

// dial is the driver's way to masters and sentinels alike.
func (w *masterWatch) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := w.netDial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	watched := &watchedConn{Conn: conn, addr: addr, watch: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[watched] = true
	if w.stop == nil {
		w.stop = make(chan struct{})
		go w.run(w.stop) //nolint:gosec // it belongs to no caller, but to the connections
	}
	if socket, ok := conn.(syscall.Conn); ok {
		return watchedSocket{watched, socket}, nil
	}
	return watched, nil
}

// watchedConn says when it is closed.
type watchedConn struct {
	net.Conn
	addr  string
	watch *masterWatch
}

func (c *watchedConn) Close() error {
	c.watch.forget(c)
	return c.Conn.Close()
}

func (w *masterWatch) forget(c *watchedConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, c)
	if len(w.open) == 0 && w.stop != nil {
		close(w.stop)
		w.stop = nil
	}
}

// watchedSocket lets the driver look at the socket before it is used again.
type watchedSocket struct {
	*watchedConn
	syscall.Conn
}

// run looks until stop is closed, by the last connection; the next one begins anew.
func (w *masterWatch) run(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // it belongs to no caller, but to the connections
	defer cancel()
	go func() {
		<-stop
		cancel()
	}()
	clients := make([]*redis.SentinelClient, len(w.sentinels))
	for i, addr := range w.sentinels {
		opt := *w.asking
		opt.Addr = addr
		clients[i] = redis.NewSentinelClient(&opt)
	}
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
	}()
	every := time.NewTicker(askEvery)
	defer every.Stop()
	for {
		w.look(ctx, clients)
		select {
		case <-every.C:
		case <-stop:
			return
		}
	}
}

func (w *masterWatch) look(ctx context.Context, clients []*redis.SentinelClient) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	master, epoch, answers := newestMaster(ctx, clients, w.name)
	if master == "" || w.outdated(epoch, answers) {
		return
	}
	for _, conn := range w.toOldMasters(master) {
		_ = conn.Close()
	}
}

// outdated tells whether those that answered were left behind themselves: they know of less than others did, and are no majority.
func (w *masterWatch) outdated(epoch int64, answers int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if epoch < w.epoch && answers <= len(w.sentinels)/2 {
		return true
	}
	w.epoch = epoch
	return false
}

func (w *masterWatch) toOldMasters(master string) []*watchedConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.masters[master] = true
	var old []*watchedConn
	for conn := range w.open {
		if conn.addr != master && w.masters[conn.addr] {
			old = append(old, conn)
		}
	}
	return old
}

// newestMaster asks all: one that was cut off itself still names the old one. It tells how many have answered, too.
func newestMaster(ctx context.Context, clients []*redis.SentinelClient, name string) (addr string, epoch int64, answered int) {
	type answer struct {
		addr  string
		epoch int64
	}
	answers := make(chan answer, len(clients))
	for _, c := range clients {
		go func() {
			m, err := c.Master(ctx, name).Result()
			epoch, bad := strconv.ParseInt(m["config-epoch"], 10, 64)
			if err != nil || bad != nil || m["ip"] == "" {
				answers <- answer{}
				return
			}
			answers <- answer{net.JoinHostPort(m["ip"], m["port"]), epoch}
		}()
	}
	newest := answer{epoch: -1}
	for range clients {
		a := <-answers
		if a.addr == "" {
			continue
		}
		answered++
		if a.epoch > newest.epoch {
			newest = a
		}
	}
	return newest.addr, newest.epoch, answered
}
