package guard

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := parseProxies([]string{"10.0.0.0/8", "::1", "fd00::/8", "127.0.0.1"})
	for _, test := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"no proxy", "192.0.2.1:1234", nil, "192.0.2.1"},
		{"a stranger's header counts for nothing", "192.0.2.1:1234", []string{"10.1.1.1, 198.51.100.7"}, "192.0.2.1"},
		{"a proxy's does", "10.0.0.1:80", []string{"198.51.100.7"}, "198.51.100.7"},
		{"what the client wrote before it does not", "10.0.0.1:80", []string{"203.0.113.9, 198.51.100.7"}, "198.51.100.7"},
		{"two proxies", "10.0.0.1:80", []string{"203.0.113.9, 198.51.100.7, 10.0.0.2"}, "198.51.100.7"},
		{"two header lines are one list", "10.0.0.1:80", []string{"203.0.113.9, 198.51.100.7", "10.0.0.2"}, "198.51.100.7"},
		{"a proxy that tells nothing", "10.0.0.1:80", nil, "10.0.0.1"},
		{"nonsense ends the way", "10.0.0.1:80", []string{"198.51.100.7, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"an empty entry too", "10.0.0.1:80", []string{"198.51.100.7,"}, "10.0.0.1"},
		{"all are proxies", "10.0.0.1:80", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"with ports", "10.0.0.1:80", []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		{"in brackets", "[::1]:80", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv4 in IPv6 is IPv4", "[::ffff:10.0.0.1]:80", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"zones are dropped", "[fe80::1%eth0]:80", nil, "fe80::1"},
		{"a unix socket", "@", []string{"198.51.100.7"}, "invalid IP"},
		{"more hops than anybody has", "10.0.0.1:80", []string{strings.Repeat("10.0.0.9,", 500) + "10.0.0.2"}, "10.0.0.9"},
	} {
		r := &http.Request{RemoteAddr: test.peer, Header: http.Header{"X-Forwarded-For": test.forwarded}}
		if got := trusted.client(r).String(); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestHousehold(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "2001:db8:1:2::": "2001:db8:1:2::", "2001:db8:1:3::1": "2001:db8:1:3::",
	} {
		if got := household(netip.MustParseAddr(text)); got.String() != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func FuzzClientAddress(f *testing.F) {
	for _, s := range []string{"198.51.100.7", "a, b", ",,,", "[::1]:80, 10.0.0.2", "[", "[]", "::ffff:1.2.3.4%eth0", strings.Repeat("10.0.0.1,", 100)} {
		f.Add("10.0.0.1:80", s)
		f.Add("192.0.2.1:80", s)
	}
	trusted := parseProxies([]string{"10.0.0.0/8"})
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		got := trusted.client(&http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {forwarded}}})
		direct, ok := parseAddress(peer)
		if (!ok || !trusted.trust(direct)) && got != direct {
			t.Errorf("%q is no proxy, and yet %q made it %s", peer, forwarded, got)
		}
		if got.Zone() != "" || got.Is4In6() {
			t.Errorf("%s has two names", got)
		}
	})
}
