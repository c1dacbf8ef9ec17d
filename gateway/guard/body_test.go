package guard

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/gateway/keys"
)

const testLimit = 64 << 10

// unsized hides a body's length: the client sends it in chunks.
type unsized struct{ io.Reader }

func zipped(t testing.TB, data io.Reader) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.Copy(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func noise(n int) []byte {
	data := make([]byte, n)
	x := uint32(1)
	for i := range data {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		data[i] = byte(x)
	}
	return data
}

// Bodies that are sent slowly, by whoever, take up so much together and no more; small ones are served meanwhile.
func TestBodiesTogether(t *testing.T) {
	t.Parallel()
	const most, large, held = 1 << 20, 511 << 10, 2
	const inChunks = 508 << 10 // of a large one: the last chunk, which is not full, is not counted yet
	b := setup(t, Config{MaxBodyBytes: most / 2, MaxBodiesBytes: most})
	b.mux.HandleFunc("POST /hooks/{name}", echo) // no key is asked for
	send := func(body io.Reader, length int64) *httptest.ResponseRecorder {
		return b.do("POST", "/hooks/x", body, func(r *http.Request) { r.ContentLength = length })
	}
	for name, test := range map[string]struct{ length, each int64 }{"sized": {large, large - beginning}, "chunked": {-1, inChunks - beginning}} {
		var ends []io.Closer
		var slow sync.WaitGroup
		for range held {
			from, to := io.Pipe()
			ends = append(ends, to)
			slow.Go(func() {
				if w := send(from, test.length); w.Code != http.StatusOK {
					t.Errorf("%s: one that is sent slowly: %d %s", name, w.Code, w.Body)
				}
			})
			if _, err := to.Write(noise(large)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "they are held", func() bool { return b.bodies.large.Load() == held*test.each })
		for range 2 {
			w := send(bytes.NewReader(noise(most/2)), most/2)
			if p := problemOf(t, w, http.StatusServiceUnavailable); w.Header().Get("Retry-After") == "" || w.Header().Get("Connection") != "close" {
				t.Errorf("%s: one too many: %v %+v", name, w.Header(), p)
			}
		}
		if now := b.bodies.large.Load(); now != held*test.each {
			t.Errorf("%s: %d bytes are held after refusals, before it was %d", name, now, held*test.each)
		}
		if w := send(bytes.NewReader(noise(beginning)), beginning); w.Code != http.StatusOK {
			t.Errorf("%s: a small one: %d %s", name, w.Code, w.Body)
		}
		for _, end := range ends {
			_ = end.Close()
		}
		slow.Wait()
		if now := b.bodies.large.Load(); now != 0 {
			t.Errorf("%s: %d bytes are held, though all is answered", name, now)
		}
		if w := send(bytes.NewReader(noise(most/2)), most/2); w.Code != http.StatusOK {
			t.Errorf("%s: then: %d %s", name, w.Code, w.Body)
		}
	}
	var ends []io.Closer
	var slow sync.WaitGroup
	for range most / beginning { // small ones, very many
		from, to := io.Pipe()
		ends = append(ends, to)
		slow.Go(func() { send(from, beginning+1) })
		if _, err := to.Write(noise(beginning)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they are held", func() bool { return b.bodies.begun.Load() == most })
	problemOf(t, send(strings.NewReader("{}"), 2), http.StatusServiceUnavailable)
	for _, end := range ends {
		_ = end.Close()
	}
	slow.Wait()
	if begun := b.bodies.begun.Load(); begun != 0 {
		t.Errorf("%d bytes are held, though all is answered", begun)
	}
	if n := b.seen.count(RejectedBusy); n != 5 {
		t.Errorf("%d were counted as busy", n)
	}
}

// S7 over a real connection.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxBodyBytes: testLimit})
	token, url := b.key(keys.Key{Name: "n", Scopes: []keys.Scope{keys.Publish}}), serve(t, b)
	packed := header("Content-Encoding", "gzip")
	for _, test := range []struct {
		name     string
		body     io.Reader
		settings []setting
		want     int
		bytes    int
	}{
		{"none", http.NoBody, nil, 200, 0},
		{"small", strings.NewReader("{}"), nil, 200, 2},
		{"as much as allowed", bytes.NewReader(noise(testLimit)), nil, 200, testLimit},
		{"a byte more", bytes.NewReader(noise(testLimit + 1)), nil, 413, 0},
		{"chunked, as much as allowed", unsized{bytes.NewReader(noise(testLimit))}, nil, 200, testLimit},
		{"chunked, a byte more", unsized{bytes.NewReader(noise(testLimit + 1))}, nil, 413, 0},
		{"chunked, endless", unsized{io.LimitReader(zeros{}, 16<<20)}, nil, 413, 0},
		{"gzip", zipped(t, strings.NewReader(`{"a":1}`)), []setting{packed}, 200, 7},
		{"gzip, as much as allowed", zipped(t, io.LimitReader(zeros{}, testLimit)), []setting{packed}, 200, testLimit},
		{"gzip, a byte more", zipped(t, io.LimitReader(zeros{}, testLimit+1)), []setting{packed}, 413, 0},
		{"gzip, chunked, a byte more", unsized{zipped(t, io.LimitReader(zeros{}, testLimit+1))}, []setting{packed}, 413, 0},
		{"gzip that packs nothing, a byte more", zipped(t, bytes.NewReader(noise(testLimit+1))), []setting{packed}, 413, 0},
		{"a bomb", zipped(t, io.LimitReader(zeros{}, 8<<20)), []setting{packed}, 413, 0},
		{"endless members of nothing", unsized{&repeat{text: zipped(t, http.NoBody).Bytes()}}, []setting{packed}, 413, 0},
		{"two members", io.MultiReader(zipped(t, strings.NewReader("ab")), zipped(t, strings.NewReader("cd"))), []setting{packed}, 200, 4},
		{"not gzip", strings.NewReader("{}"), []setting{packed}, 400, 0},
		{"gzip that breaks off", bytes.NewReader(zipped(t, bytes.NewReader(noise(1000))).Bytes()[:500]), []setting{packed}, 400, 0},
		{"identity", strings.NewReader("{}"), []setting{header("Content-Encoding", "identity")}, 200, 2},
		{"brotli", strings.NewReader("{}"), []setting{header("Content-Encoding", "br")}, 415, 0},
		{"gzip twice", strings.NewReader("{}"), []setting{header("Content-Encoding", "gzip, gzip")}, 415, 0},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/publish/1", test.body)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(test.settings, bearer(token)) {
			s(req)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var answer struct{ Bytes, Status int }
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Errorf("%s: %s", test.name, text)
		}
		if resp.StatusCode != test.want || answer.Bytes != test.bytes || test.want != 200 && answer.Status != test.want {
			t.Errorf("%s: %d %s, want %d with %d bytes", test.name, resp.StatusCode, text, test.want, test.bytes)
		}
	}
	if b.seen.count(RejectedSize) != 8 {
		t.Errorf("%d were counted as too large, want 8", b.seen.count(RejectedSize))
	}
}

// repeat is the same text over and over, to 16 MiB.
type repeat struct {
	text []byte
	sent int
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.sent > 16<<20 {
		return 0, io.EOF
	}
	n := copy(p, r.text[r.sent%len(r.text):])
	r.sent += n
	return n, nil
}

// A body that is too large takes at most twice the limit of memory, whatever it unpacks to, and whatever reads it.
func TestABombFillsNoMemory(t *testing.T) { //nolint:paralleltest // it measures the heap of the process
	const limit = 8 << 20
	bomb := zipped(t, io.LimitReader(zeros{}, 64<<20)).Bytes()
	for name, body := range map[string]func() (io.Reader, []setting){
		"gzip bomb": func() (io.Reader, []setting) {
			return bytes.NewReader(bomb), []setting{header("Content-Encoding", "gzip")}
		},
		"chunked": func() (io.Reader, []setting) { return unsized{io.LimitReader(zeros{}, 64<<20)}, nil },
		"as large as allowed": func() (io.Reader, []setting) {
			return unsized{io.LimitReader(zeros{}, limit)}, nil
		},
	} {
		g := setup(t, Config{MaxBodyBytes: limit})
		from, settings := body()
		// Every allocation counts: nothing is collected meanwhile.
		runtime.GC()
		old := debug.SetGCPercent(-1)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read := int64(0)
		g.mux.HandleFunc("POST /read", func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body) // the guard's own memory; what a handler keeps is bounded by the limit
			if read = n; err != nil {
				http.Error(w, "broken", http.StatusInternalServerError)
			}
		})
		w := g.do(http.MethodPost, "/read", from, settings...)
		runtime.ReadMemStats(&after)
		debug.SetGCPercent(old)
		grown := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d, %.1f MiB allocated, limit %d MiB", name, w.Code, float64(grown)/(1<<20), limit>>20)
		if name == "as large as allowed" {
			if w.Code != http.StatusOK || read != limit {
				t.Errorf("%s: %d after %d bytes", name, w.Code, read)
			}
		} else if problemOf(t, w, http.StatusRequestEntityTooLarge); read != 0 {
			t.Errorf("%s: the handler has read %d bytes of it", name, read)
		}
		if grown > 2*limit {
			t.Errorf("%s: %d bytes were allocated, at most %d may be", name, grown, 2*limit)
		}
	}
}

// Who is not let in cannot make the gateway read.
func TestBodiesOfStrangersAreNotRead(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	body := &repeat{text: []byte("x")}
	problemOf(t, b.do(http.MethodPost, "/publish/1", unsized{body}), http.StatusUnauthorized)
	if body.sent != 0 {
		t.Errorf("%d bytes were read", body.sent)
	}
}

func TestASlowBodyIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{ReadTimeout: 200 * time.Millisecond})
	token := b.key(keys.Key{Name: "n", Scopes: []keys.Scope{keys.Publish}})
	c, err := net.Dial("tcp", strings.TrimPrefix(serve(t, b), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST /publish/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\nContent-Length: 100\r\n\r\n{")
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("%v: %s", err, answer)
	}
}

func FuzzGzipBody(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add(zipped(f, strings.NewReader(`{"a":1}`)).Bytes())
	f.Add(zipped(f, io.LimitReader(zeros{}, 5000)).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1024
		var fault bodyFault
		b := &body{hold: hold{of: &bodies{most: 1 << 30}}, raw: io.NopCloser(bytes.NewReader(data)), packed: true, limit: limit, fault: &fault}
		got, err := io.ReadAll(b)
		if len(got) > limit || (err == nil) != (fault.problem == nil) || err != nil && len(got) > 0 {
			t.Errorf("%d bytes, %v, %v", len(got), err, fault.problem)
		}
	})
}
