package main

import (
	"net"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// --check is what container runtimes ask: by the configuration that the gateway has, wherever that listens.
func TestCheckTellsWhetherTheGatewayIsReady(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	_, port, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	file := configFile(t, "{addr: '127.0.0.1:0', private_addr: ':"+port+"'}")
	if code, _, log := start(t, "--check", "--config", file).wait(); code != 1 || !strings.Contains(log, "is it running") {
		t.Errorf("before there is a gateway: %d %s", code, log)
	}
	serving := start(t, "--redis", server.URL(), "--config", file)
	eventually(t, "--check says that it is ready", func() bool {
		code, out, _ := start(t, "--check", "--config", file).wait()
		return code == 0 && strings.Contains(out, "ready")
	})
	serving.stop()
	serving.wait()
	if code, _, _ := start(t, "--check", "--config", file).wait(); code != 1 {
		t.Errorf("after it: %d", code)
	}
}
