package guard

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Over TLS, HTTP/2 included, connections are counted as well: the server sees a *tls.Conn, the guard what is below.
func TestConnectionsOverTLS(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		b := setup(t, Config{MaxConnections: 2})
		entered, leave := make(chan struct{}), make(chan struct{})
		b.mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-leave
			io.WriteString(w, r.Proto)
		})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(nil)
		server.Listener.Close()
		server.Listener, server.Config, server.EnableHTTP2 = b.Listener(l), b.Server(b.handler), h2
		server.StartTLS()

		waiting := func() int {
			b.conns.mu.Lock()
			defer b.conns.mu.Unlock()
			return b.conns.all.fresh.Len() + b.conns.all.idle.Len()
		}
		answered := make(chan string, 2)
		for range 2 {
			transport := server.Client().Transport.(*http.Transport).Clone()
			go func() {
				defer transport.CloseIdleConnections()
				resp, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/wait", nil))
				if err != nil {
					answered <- err.Error()
					return
				}
				text, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				answered <- string(text)
			}()
			<-entered
		}
		eventually(t, "both are seen at work", func() bool { return waiting() == 0 })
		// There is no third place while both are at work: the connection is closed before its handshake.
		if resp, err := server.Client().Get(server.URL + "/open"); err == nil {
			resp.Body.Close()
			t.Errorf("a third connection was served: %s", resp.Status)
		}
		close(leave)
		want := "HTTP/1.1"
		if h2 {
			want = "HTTP/2.0"
		}
		for range 2 {
			if got := <-answered; got != want {
				t.Errorf("answered %q, want %q", got, want)
			}
		}
		eventually(t, "both are gone", func() bool {
			b.conns.mu.Lock()
			defer b.conns.mu.Unlock()
			return b.conns.total == 0
		})
		if b.seen.count(RejectedConnections) == 0 {
			t.Error("the third was not counted")
		}
		server.Close()
	}
}
