package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
)

// How many events a second the gateway accepts, and how long each takes, beside a handler of net/http that does nothing but XADD: in turns, over
// the same Redis, by clients that cost little. The figures are printed; what is asserted is that each event is stored once.
//
//nolint:paralleltest // others would disturb what is measured
func TestAcceptedUnderLoad(t *testing.T) {
	const rounds, clients, each = 3, 32, 100
	d := setup(t)
	token, _, err := keys.NewStore(d.rdb, keys.Config{}).Create(t.Context(), keys.Key{Name: "load", Scopes: []keys.Scope{keys.Publish}, Rate: keys.MaxRate})
	if err != nil {
		t.Fatal(err)
	}
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = d.rdb.XAdd(r.Context(), &redis.XAddArgs{Stream: "bare", Values: []any{"event", data}}).Err()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"stored":true}`)
	}))
	defer bare.Close()

	var ratios []float64
	for round := range rounds {
		var perSecond [2]float64
		for i, target := range []struct{ name, url string }{{"net/http and XADD", bare.URL}, {"gateway", d.url}} {
			took, times := load(t, target.url, token, fmt.Sprintf("%s-%d", target.name[:3], round), clients, each)
			perSecond[i] = clients * each / took.Seconds()
			t.Logf("%-18s %6.0f events/s, p50 %v, p99 %v", target.name, perSecond[i],
				times[len(times)/2].Round(10*time.Microsecond), times[len(times)*99/100].Round(10*time.Microsecond))
		}
		ratios = append(ratios, perSecond[0]/perSecond[1])
	}
	slices.Sort(ratios)
	t.Logf("net/http and XADD is %.2f times as fast (%.2f to %.2f)", ratios[rounds/2], ratios[0], ratios[rounds-1])
	stats, err := d.gateway.deps.Events.Stats(t.Context())
	if err != nil || stats.Length != rounds*clients*each {
		t.Errorf("%d events are stored, expected %d (%v)", stats.Length, rounds*clients*each, err)
	}
}

// load has each client post one event after the other, and returns how long all took together, and each.
func load(t *testing.T, url, token, name string, clients, each int) (time.Duration, []time.Duration) {
	t.Helper()
	addr := strings.TrimPrefix(url, "http://")
	var mu sync.Mutex
	var times []time.Duration
	var running sync.WaitGroup
	began := time.Now()
	for c := range clients {
		running.Go(func() {
			took, err := post(t, addr, token, fmt.Sprintf("%s-%d", name, c), each)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, took...)
		})
	}
	running.Wait()
	took := time.Since(began)
	if len(times) != clients*each {
		t.Fatalf("%d of %d were accepted", len(times), clients*each)
	}
	slices.Sort(times)
	return took, times
}

// post speaks HTTP by hand: a client of net/http costs more than what is measured.
func post(t *testing.T, addr, token, name string, n int) ([]time.Duration, error) {
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	times := make([]time.Duration, 0, n)
	for i := range n {
		body := fmt.Sprintf(`{"specversion":"1.0","type":"com.acme.order.paid","source":"/shop","id":"%s-%d","data":{"order":%d,"note":%q}}`, name, i, i, strings.Repeat("x", 200))
		began := time.Now()
		_, err := fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: bellhop\r\nAuthorization: Bearer %s\r\nContent-Type: application/cloudevents+json\r\nContent-Length: %d\r\n\r\n%s",
			token, len(body), body)
		if err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return nil, err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			return nil, errors.New(resp.Status)
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}
