package guard

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// BenchmarkGuard is what the guard costs: a handler that adds the body to a stream, bare and guarded, over real connections.
func BenchmarkGuard(b *testing.B) {
	rdb := redistest.New(b)
	store := keys.NewStore(rdb, keys.Config{})
	token, _, err := store.Create(b.Context(), keys.Key{Name: "n", Scopes: []keys.Scope{keys.Publish}, Rate: keys.MaxRate})
	if err != nil {
		b.Fatal(err)
	}
	add := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = rdb.XAdd(r.Context(), &redis.XAddArgs{Stream: "s", MaxLen: 1000, Approx: true, Values: []any{"event", data}}).Err()
		}
		if err != nil {
			http.Error(w, "failed", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"1"}`)
	})
	mux := http.NewServeMux()
	g, err := New(Config{}, Deps{Redis: rdb, Keys: store, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))}) //nolint:sloglint // what a line costs counts
	if err != nil {
		b.Fatal(err)
	}
	mux.Handle("POST /v1/events", g.Authorize(keys.Publish, add))
	for name, handler := range map[string]http.Handler{"bare": add, "guarded": g.Wrap(mux)} {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(handler)
			defer server.Close()
			transport := &http.Transport{MaxIdleConnsPerHost: 64}
			defer transport.CloseIdleConnections()
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL+"/v1/events", strings.NewReader(`{"specversion":"1.0","type":"a.b","source":"/x","id":"1"}`))
					req.Header.Set("Authorization", "Bearer "+token)
					resp, err := transport.RoundTrip(req)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						b.Errorf("status %d", resp.StatusCode)
						return
					}
				}
			})
		})
	}
}
