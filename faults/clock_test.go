package faults

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// skewVariable shifts the wall clock of a binary that was built by skewedBinary, in seconds.
const skewVariable = "BELLHOP_FAULTS_SKEW"

func TestFaultF14ClocksOff(t *testing.T) {
	t.Parallel()
	check(t, "F14", clocksOff)
}

// clocksOff: one worker runs jobs, and the clocks of four others are off by a minute and an hour, both ways. Two stock workers serve the
// same queue beside ours, each 20 s off: their recovery goes by their own clocks.
func clocksOff(r *rig) figure {
	binary := skewedBinary(r.t)
	r.worker()
	ids := r.enqueue(5, work{Gate: "go"})
	r.running(ids)
	for _, skew := range []time.Duration{-time.Hour, -time.Minute, time.Minute, time.Hour} {
		r.worker(func(ro *role) { ro.binary, ro.skew = binary, skew })
	}
	if !r.stock() {
		for _, skew := range []time.Duration{-20 * time.Second, 20 * time.Second} {
			r.worker(func(ro *role) { ro.Fleet, ro.binary, ro.skew = stock, binary, skew })
		}
	}
	// Others run jobs with wrong clocks too.
	ids = append(ids, r.enqueue(40, work{Gate: "go"})...)
	r.running(ids)
	watch := 65 * time.Second // stock looks for lost jobs once a minute, we every half
	if r.stock() {
		watch = 75 * time.Second
	}
	pause(r.t.Context(), watch)
	h := historyOf(r.ledger.entries())
	steals := h.begun() - len(h.starts)
	r.ledger.open("go")
	if !r.stock() {
		r.drained(patience)
		r.counted(len(ids), 0)
	}
	return measured(steals == 0, "%d of %d stolen in %v", steals, len(ids), watch)
}

// skewedBinary builds this test with a time.Now that adds the seconds of skewVariable: libfaketime can't shift a Go program, which
// asks the kernel for the time without a library.
func skewedBinary(t *testing.T) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("find the Go toolchain: %v", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const call = "sec, nsec, mono := runtimeNow()\n"
	if !strings.Contains(string(text), "func Now() Time {\n\t"+call) {
		t.Fatalf("time.Now of %s is written in another way: adapt skewedBinary", runtime.Version())
	}
	dir := t.TempDir()
	overlay := map[string]map[string]string{"Replace": {}}
	for name, content := range map[string]string{
		"time.go": strings.Replace(string(text), "func Now() Time {\n\t"+call, "func Now() Time {\n\t"+call+"\tsec += skew\n", 1),
		"skew.go": skewSource,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][filepath.Join(source, name)] = path
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "skewed.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with a shifted clock: %v\n%s", err, out)
	}
	return binary
}

const skewSource = `package time

import "syscall"

var skew = func() int64 {
	text, _ := syscall.Getenv("` + skewVariable + `")
	n, sign := int64(0), int64(1)
	for _, c := range text {
		if c == '-' {
			sign = -1
		} else {
			n = 10*n + int64(c-'0')
		}
	}
	return sign * n
}()
`
