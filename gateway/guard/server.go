package guard

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Server returns a server for h, which should be made by Wrap, with the limits on time and headers set. Serve it on a Listener of
// the same Guard. Headers too large are answered with 431.
func (g *Guard) Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: g.cfg.ReadHeaderTimeout,
		ReadTimeout:       g.cfg.ReadTimeout,
		WriteTimeout:      g.cfg.WriteTimeout,
		IdleTimeout:       g.cfg.IdleTimeout,
		MaxHeaderBytes:    g.cfg.MaxHeaderBytes,
		ConnState:         g.conns.state,
		// Broken handshakes and the like: noise of the internet.
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

// Listener bounds the connections of l for the Server of the same Guard. For TLS, wrap what it returns: tls.NewListener, or
// Server.ServeTLS.
func (g *Guard) Listener(l net.Listener) net.Listener { return &listener{Listener: l, conns: g.conns} }

// Unhurried gives the answer that is written to w time until d from now, 0 for no end, in place of the server's read and write
// time-outs: for streams (call it before each write, with what one write may take) and for answers that wait. The read time-out counts
// too: the server takes its end for the client's going away.
func Unhurried(w http.ResponseWriter, d time.Duration) error {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	rc := http.NewResponseController(w)
	return errors.Join(rc.SetReadDeadline(until), rc.SetWriteDeadline(until))
}
