package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 30 * time.Second

// run is one call of the command.
type run struct {
	t      *testing.T
	stdout bytes.Buffer
	stderr *os.File
	code   int
	stop   context.CancelFunc
	ended  chan struct{}
}

func start(t *testing.T, args ...string) *run {
	t.Helper()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &run{t: t, stderr: stderr, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.code = cli.Main(ctx, command(&r.stdout, stderr), args, stderr)
	}()
	t.Cleanup(func() {
		stop()
		<-r.ended
		_ = stderr.Close()
	})
	return r
}

func (r *run) wait() (code int, stdout, stderr string) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(limit):
		r.t.Fatalf("it goes on: %s", r.log())
	}
	return r.code, r.stdout.String(), r.log()
}

func (r *run) log() string {
	text, err := os.ReadFile(r.stderr.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func ok(client *http.Client, url string) func() bool {
	return func() bool {
		resp, err := client.Get(url)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}

// configFile writes a configuration: settings of the section gateway, in YAML's flow style.
func configFile(t *testing.T, gateway string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bellhop.yaml")
	if err := os.WriteFile(file, []byte("log: {format: json}\ngateway: "+gateway+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKeysFromCreationToRevocation(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	file := configFile(t, "{}")
	call := func(args ...string) (int, string, string) {
		return start(t, append([]string{"keys", args[0], "--redis", server.URL(), "--config", file}, args[1:]...)...).wait()
	}
	code, token, _ := call("create", "--name", "shop", "--scopes", "publish,enqueue", "--expires", "720h", "--rate", "50")
	if code != 0 || !strings.HasPrefix(token, "bh_") || strings.Count(token, "\n") != 1 {
		t.Fatalf("create: %d %q", code, token)
	}
	key, err := keys.NewStore(server.Client(), keys.Config{}).Verify(t.Context(), strings.TrimSpace(token))
	if err != nil || key.Name != "shop" || !key.Allows(keys.Enqueue) || key.Allows(keys.Read) || key.Rate != 50 || time.Until(key.Expires) < 719*time.Hour {
		t.Errorf("the key is %+v, %v", key, err)
	}
	code, out, _ := call("create", "--name", "eyes", "--scopes", "read", "--json")
	var made struct{ ID, Token string }
	if err := json.Unmarshal([]byte(out), &made); err != nil || code != 0 || !strings.Contains(made.Token, made.ID) {
		t.Errorf("create --json: %d %s %v", code, out, err)
	}
	code, out, _ = call("list")
	if code != 0 || !strings.Contains(out, "shop") || !strings.Contains(out, "eyes") || strings.Contains(out, strings.TrimSpace(token)) {
		t.Errorf("list: %d %s", code, out)
	}
	if code, out, _ = call("revoke", key.ID); code != 0 || !strings.Contains(out, key.ID) {
		t.Errorf("revoke: %d %s", code, out)
	}
	code, out, _ = call("list", "--json")
	var list []keys.Key
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 1 || list[0].Name != "eyes" {
		t.Errorf("list --json: %d %s %v", code, out, err)
	}
	if code, _, said := call("revoke", key.ID); code != 2 || !strings.Contains(said, "keys list") {
		t.Errorf("revoke again: %d %s", code, said)
	}
	if code, out, said := call("revoke", made.Token); code != 0 || !strings.Contains(out, made.ID) || strings.Contains(out+said, made.Token) {
		t.Errorf("revoke by the whole key: %d %s%s", code, out, said)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`unknown flag: --adr, did you mean "--addr"?`: {"--adr", "x"},
		`unknown argument "serve"`:                    {"serve"},
		`unknown command "make"`:                      {"keys", "make"},
		"There are keys create, keys list":            {"keys"},
		"--name is missing":                           {"keys", "create", "--scopes", "read"},
		`no "reed", did you mean "read"?`:             {"keys", "create", "--name", "x", "--scopes", "reed"},
		"--expires -1h0m0s is no time to come":        {"keys", "create", "--name", "x", "--scopes", "read", "--expires", "-1h"},
		"write it such as 90d or 12h":                 {"keys", "create", "--name", "x", "--scopes", "read", "--expires", "90"},
		"which key?":                                  {"keys", "revoke"},
		`gateway.addr: "8080" is no address`:          {"--addr", "8080"},
		"cert_file and key_file go together":          {"--cert-file", "x"},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			if code, _, said := start(t, args...).wait(); code != 2 || !strings.Contains(said, want) {
				t.Errorf("%v: %d %s", args, code, said)
			}
		})
	}
	code, out, _ := start(t, "--print-config", "--config", configFile(t, "{max_wait: 9s}")).wait()
	if code != 0 || !strings.Contains(out, "max_wait: 9s") {
		t.Errorf("--print-config: %d %s", code, out)
	}
}

// Told to stop under load, the gateway says so first, answers what is at work, ends waits, and leaves with 0. What it has
// acknowledged is in Redis.
func TestShutdownLosesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	token, _, err := keys.NewStore(server.Client(), keys.Config{}).Create(t.Context(), keys.Key{Name: "t", Scopes: []keys.Scope{keys.Admin}})
	if err != nil {
		t.Fatal(err)
	}
	public, private := "http://"+freeAddr(t), "http://"+freeAddr(t)
	transport := &http.Transport{MaxIdleConnsPerHost: 20}
	client := &http.Client{Transport: transport, Timeout: limit}
	t.Cleanup(transport.CloseIdleConnections)
	r := start(t, "--redis", server.URL(), "--addr", strings.TrimPrefix(public, "http://"), "--private-addr", strings.TrimPrefix(private, "http://"),
		"--config", configFile(t, "{grace: 20s, drain_delay: 300ms}"))
	eventually(t, "ready", func() bool {
		select {
		case <-r.ended:
			t.Fatalf("it has ended: %s", r.log())
		default:
		}
		return ok(client, private+"/readyz")()
	})

	post := func(body io.Reader) (*http.Response, error) {
		req, err := http.NewRequest(http.MethodPost, public+"/v1/jobs", body)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		return client.Do(req)
	}
	var mu sync.Mutex
	var acknowledged []string
	note := func(resp *http.Response) {
		defer resp.Body.Close()
		var stored struct{ ID string }
		if resp.StatusCode != http.StatusCreated || json.NewDecoder(resp.Body).Decode(&stored) != nil {
			t.Errorf("answer %d", resp.StatusCode)
			return
		}
		mu.Lock()
		acknowledged = append(acknowledged, stored.ID)
		mu.Unlock()
	}
	const job = `{"task":"log:write","payload":{"message":"hello"}}`
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for {
				resp, err := post(strings.NewReader(job)) //nolint:bodyclose // note closes it
				if err != nil {
					return // it listens no more
				}
				note(resp)
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acknowledged) }
	eventually(t, "jobs come in", func() bool { return count() >= 100 })

	// One request that is at work when the end comes, and one that waits.
	half, whole := io.Pipe()
	slow := make(chan struct{})
	go func() {
		defer close(slow)
		resp, err := post(half) //nolint:bodyclose // note closes it
		if err != nil {
			t.Errorf("a request at work was cut off: %v", err)
			return
		}
		note(resp)
	}()
	if _, err := io.WriteString(whole, job[:10]); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	first := acknowledged[0]
	mu.Unlock()
	waited := make(chan string, 1)
	go func() {
		req, err := http.NewRequest(http.MethodGet, public+"/v1/jobs/"+first+"?wait=55s", nil)
		if err != nil {
			t.Error(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			waited <- err.Error()
			return
		}
		defer resp.Body.Close()
		var status struct{ State string }
		waited <- fmt.Sprint(resp.StatusCode, " ", json.NewDecoder(resp.Body).Decode(&status), " ", status.State)
	}()
	f := fleet.New(server.Client())
	eventually(t, "somebody waits", func() bool {
		n, err := server.Client().HLen(t.Context(), "bellhop:{default}:awaited").Result()
		return err == nil && n > 0
	})

	r.stop()
	eventually(t, "not ready", func() bool { return !ok(client, private+"/readyz")() })
	select {
	case got := <-waited:
		if got != "200 <nil> pending" {
			t.Errorf("who waited got %s", got)
		}
	case <-time.After(limit):
		t.Error("a wait goes on")
	}
	senders.Wait()
	if !ok(client, private+"/healthz")() {
		t.Error("not healthy while requests finish")
	}
	if _, err := io.WriteString(whole, job[10:]); err != nil {
		t.Error(err)
	}
	_ = whole.Close()
	<-slow
	if code, _, said := r.wait(); code != 0 || strings.Contains(said, "cut off") {
		t.Errorf("it ended with %d: %s", code, said)
	}
	for _, id := range acknowledged {
		if _, err := f.Job(t.Context(), "default", id); err != nil {
			t.Errorf("acknowledged, but: %v", err)
		}
	}
	t.Logf("%d jobs acknowledged, all there", len(acknowledged))
}

func TestServesTLS(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	files := redistest.Start(t, redistest.WithTLS()).TLS()
	ca, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	addr := freeAddr(t)
	r := start(t, "--redis", server.URL(), "--addr", addr, "--private-addr", freeAddr(t), "--cert-file", files.Cert, "--key-file", files.Key,
		"--config", configFile(t, "{}"))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: limit}
	eventually(t, "it serves TLS", ok(client, "https://"+addr+"/"))
	resp, err := client.Get("https://" + addr + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Errorf("it speaks %s", resp.Proto)
	}
	if ok(&http.Client{Timeout: limit}, "http://"+addr+"/")() {
		t.Error("it serves plain HTTP too")
	}
	transport.CloseIdleConnections()
	r.stop()
	if code, _, said := r.wait(); code != 0 {
		t.Errorf("it ended with %d: %s", code, said)
	}
}
