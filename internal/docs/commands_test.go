package docs_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var builtOnce sync.Once

// built is the directory of the commands, built once for all tests. TestMain removes it.
func built(t *testing.T) string {
	t.Helper()
	builtOnce.Do(func() {
		out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "go", "build", "-o", binaries+"/", root+"/cmd/...").CombinedOutput()
		if err != nil {
			t.Fatalf("build the commands: %v\n%s", err, out)
		}
	})
	return binaries
}

var (
	call     = regexp.MustCompile(`(?:^|\s|/)(worker|enqueue)((?:\s+(?:'[^']*'|"[^"]*"|[^\s'"|;&>]+))*)`)
	flag     = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]*)`)
	quoted   = regexp.MustCompile(`'[^']*'`)
	makeCall = regexp.MustCompile(`^make ([a-z-]+)`)
)

// Every flag in a shell block is one of its command, every make target is in the Makefile.
func TestShellBlocksNameWhatExists(t *testing.T) {
	t.Parallel()
	help := make(map[string]string)
	for _, command := range []string{"worker", "enqueue"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(built(t), command), "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		help[command] = string(out)
	}
	makefile := strings.Join(linesOf(t, "Makefile"), "\n") + "\n"
	checked := 0
	for _, b := range blocksOf(t, "sh") {
		for n, line := range b.lines {
			bare := quoted.ReplaceAllString(line, "''") // a payload may look like anything
			for _, m := range call.FindAllStringSubmatch(bare, -1) {
				for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
					checked++
					if !regexp.MustCompile(`(?m)^\s+(-[a-z], )?` + f[1] + `(\s|$)`).MatchString(help[m[1]]) {
						t.Errorf("%s:%d: %s has no flag %s", b.doc, b.line+n, m[1], f[1])
					}
				}
			}
			if m := makeCall.FindStringSubmatch(line); m != nil && !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s:%d: the Makefile has no target %s", b.doc, b.line+n, m[1])
			}
		}
	}
	if checked < 10 {
		t.Errorf("found %d flags in all documents: does this test still read them?", checked)
	}
}
