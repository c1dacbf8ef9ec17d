package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/sources/webhook"
)

// BenchmarkReceiver posts signed deliveries of 2 kB over kept connections to a receiver, and to a bare handler that checks nothing and
// only XADDs the body, in the same run: turn by turn, on the same Redis with an AOF. The times are those that the sender sees; the
// sender shares the machine.
//
//	go test -run '^$' -bench Receiver -benchtime 20000x ./sources/webhook
func BenchmarkReceiver(b *testing.B) {
	server := redistest.Start(b, redistest.WithAOF())
	rdb := server.Client()
	client, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		b.Fatal(err)
	}
	receiver, err := webhook.New(webhook.Hooks{{Name: "github", Kind: webhook.GitHub, Secrets: []string{secret}}}, client, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /hooks/{name}", receiver)
	mux.Handle("POST /bare", bare(rdb))
	web := httptest.NewServer(mux)
	defer web.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	defer transport.CloseIdleConnections()

	for _, senders := range []int{1, 16, 64} {
		for _, path := range []string{"/bare", "/hooks/github"} {
			b.Run(strconv.Itoa(senders)+path, func(b *testing.B) {
				l := load{client: &http.Client{Transport: transport}, url: web.URL + path, senders: senders}
				l.run(b)
			})
		}
	}
}

// bare is as little as one can do.
func bare(rdb redis.UniversalClient) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := rdb.XAdd(r.Context(), &redis.XAddArgs{Stream: "bare", Values: []any{"event", body}}).Err(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
}

type load struct {
	client  *http.Client
	url     string
	senders int
	next    atomic.Int64
}

// ids never come twice, not even over several runs of one benchmark.
var benchIDs atomic.Int64

func (l *load) run(b *testing.B) {
	b.Helper()
	body := `{"action":"opened","issue":{"number":7,"title":"` + strings.Repeat("x", 1900) + `"},"repository":{"html_url":"https://github.com/acme/shop"}}`
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	signature := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	took := make([][]time.Duration, l.senders)
	var all sync.WaitGroup
	b.ResetTimer()
	for i := range l.senders {
		all.Go(func() {
			for l.next.Add(1) <= int64(b.N) {
				begin := time.Now()
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, l.url, strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				req.Header = http.Header{
					"Content-Type": {"application/json"}, "X-Hub-Signature-256": {signature}, "X-Github-Event": {"issues"},
					"X-Github-Delivery": {fmt.Sprint("bench-", benchIDs.Add(1))},
				}
				res, err := l.client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				if res.Body.Close(); res.StatusCode != http.StatusAccepted {
					b.Errorf("status %d", res.StatusCode)
					return
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	sorted := slices.Concat(took...)
	slices.Sort(sorted)
	at := func(share float64) float64 {
		return float64(sorted[min(len(sorted)-1, int(share*float64(len(sorted))))].Microseconds()) / 1000
	}
	b.ReportMetric(float64(len(sorted))/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
}
