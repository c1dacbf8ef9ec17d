// Package acceptance_test runs the whole path as its users do: real programs, real Redis, real HTTP, real signals, and
// real deliveries of GitHub.
package acceptance_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// envRole makes a process of this test binary one of the helpers below instead of a run of the tests.
const envRole = "ACCEPTANCE_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(envRole); role {
	case "":
	case roleMatcher:
		os.Exit(runMatcher(os.Args[1]))
	default:
		fmt.Fprintf(os.Stderr, "no helper is called %q\n", role)
		os.Exit(2)
	}
	dir, err := os.MkdirTemp("", "bellhop-acceptance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// buildDir is where the programs are built, removed at the end.
var buildDir string

// programs are worker, enqueue and gateway, as they are shipped, for what is measured.
var programs = builder("plain")

// watchedPrograms are built with the race detector when the tests are: a race makes them exit with 66.
var watchedPrograms = builder("watched", watched...)

// builder returns a function that builds the programs once and returns their directory.
func builder(name string, flags ...string) func(t testing.TB) string {
	var once sync.Once
	var failed error
	return func(t testing.TB) string {
		t.Helper()
		dir := filepath.Join(buildDir, name)
		once.Do(func() {
			root, err := moduleRoot()
			if err != nil {
				failed = err
				return
			}
			build := exec.Command("go", append(append([]string{"build"}, flags...), "-o", dir+"/", "./cmd/worker", "./cmd/enqueue", "./cmd/gateway")...)
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				failed = fmt.Errorf("build the programs: %w\n%s", err, out)
			}
		})
		if failed != nil {
			t.Fatal(failed)
		}
		return dir
	}
}

// moduleRoot is the directory of go.mod.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("there is no go.mod above %s", start)
		}
	}
}
