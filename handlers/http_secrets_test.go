package handlers_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/tasks"
)

// No error tells anything of the payload but method, scheme and host, even if the server sends all of it back.
func TestHTTPErrorsTellNoSecrets(t *testing.T) {
	t.Parallel()
	var s string
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/abort"):
			panic(http.ErrAbortHandler)
		case strings.HasSuffix(r.URL.Path, "/location"):
			w.Header().Set("Location", "http://%zz"+r.URL.String())
			w.WriteHeader(http.StatusFound)
			return
		case strings.HasSuffix(r.URL.Path, "/redirect"):
			http.Redirect(w, r, "http://169.254.169.254"+r.URL.String(), http.StatusTemporaryRedirect)
			return
		case strings.HasSuffix(r.URL.Path, "/refuse"):
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
		// Whatever is at the excerpt's beginning is told: let each part come first once.
		parts := []string{"Cannot " + r.Method + " " + r.URL.String(), r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), string(body), r.Header.Get("Cookie")}
		first := len(r.Header.Get("X-First"))
		answer(w, strings.Join(append(parts[first:], parts[:first]...), "\n"))
	})
	s = server.URL
	h := newHTTP(t, allowLoopback)
	withUser := strings.Replace(s, "http://", "http://canary-user:canary-password@", 1)
	for _, path := range []string{"/canary-path/abort", "/canary-path/location", "/canary-path/redirect", "/canary-path/refuse", "/canary-path/fail"} {
		for _, p := range []tasks.HTTPRequest{
			{JSON: map[string]any{"token": "canary-json", "deep": []any{map[string]any{"a": "long canary-deep"}}}},
			{Body: "a=canary-form-1&b=canary-form-2"},
			{Body: "plain canary text " + strings.Repeat("canary-9", 40)},
		} {
			for _, first := range []string{"", "1", "11", "111", "1111"} {
				p.URL = withUser + path + "?key=canary-query&x=canary%2Fquery+two"
				p.Headers = map[string]string{
					"X-Api-Key": "canary-key", "Cookie": "session=canary-cookie", "X-First": first,
				}
				if len(first) == 1 {
					p.Headers["Authorization"] = "Bearer canary-bearer." + strings.Repeat("z", 400)
				}
				_, err := run(t, h, p)
				if err == nil {
					t.Fatalf("%s: no error", path)
				}
				basic := base64.StdEncoding.EncodeToString([]byte("canary-user:canary-password"))
				if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), basic) || strings.Contains(err.Error(), "zzz") {
					t.Errorf("%s: %v", path, err)
				}
				wantText(t, err, s)
			}
		}
	}
	for _, url := range []string{
		"http://canary:canary@[::1", "ht!tp://canary", "http://h/%zzcanary", "canary://canary", "http://canary canary/", "http://0/canary?canary", "http://127.0.0.1:canary/",
		"http://canary:canary@10.0.0.1/canary?canary", "http://user:canary@no-such.invalid/canary",
	} {
		_, err := run(t, h, tasks.HTTPRequest{URL: url, Timeout: "5s"})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
