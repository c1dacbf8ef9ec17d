package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestFromBuild(t *testing.T) {
	t.Parallel()
	commit := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{
			{Key: "vcs.revision", Value: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"},
			{Key: "vcs.modified", Value: modified},
		}
	}
	user := debug.Module{Path: "example.com/shop", Version: "v9.9.9"}

	for name, tc := range map[string]struct {
		build debug.BuildInfo
		want  string
	}{
		"installed at a version": {debug.BuildInfo{Main: debug.Module{Path: module, Version: "v1.2.3"}}, "v1.2.3"},
		"built in a checkout":    {debug.BuildInfo{Main: debug.Module{Path: module, Version: "(devel)"}, Settings: commit("false")}, "devel-1a2b3c4d5e6f"},
		"with changed files":     {debug.BuildInfo{Main: debug.Module{Path: module, Version: "(devel)"}, Settings: commit("true")}, "devel-1a2b3c4d5e6f+dirty"},
		"without a commit":       {debug.BuildInfo{Main: debug.Module{Path: module}}, "devel"},
		"a user's program":       {debug.BuildInfo{Main: user, Deps: []*debug.Module{{Path: "x", Version: "v1.0.0"}, {Path: module, Version: "v0.4.0"}}}, "v0.4.0"},
		"a user's, with a fork":  {debug.BuildInfo{Main: user, Deps: []*debug.Module{{Path: module, Version: "v0.4.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v0.4.1"}}}}, "v0.4.1"},
		"a user's, a checkout":   {debug.BuildInfo{Main: user, Settings: commit("false"), Deps: []*debug.Module{{Path: module, Version: "v0.0.0", Replace: &debug.Module{Path: "../.."}}}}, "devel"},
		"no bellhop at all":      {debug.BuildInfo{Main: user}, "devel"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := fromBuild(&tc.build); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// The Makefile and the Dockerfile name the variable in text: were it renamed,
// the linker would ignore them without a word.
func TestLinkerFlagReachesString(t *testing.T) {
	t.Parallel()
	const flag = "-X " + module + "/internal/version.version="
	root := filepath.Join("..", "..")
	for _, file := range []string{"Makefile", "Dockerfile"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.ReplaceAll(string(text), "$(MODULE)", module), flag) {
			t.Errorf("%s does not say %q", file, flag)
		}
	}

	run := exec.CommandContext(t.Context(), "go", "run", "-ldflags", flag+"v7.7.7", "./testdata/print")
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("go run: %v\n%s", err, out)
	}
	if !strings.HasPrefix(string(out), "v7.7.7 (go1.") {
		t.Errorf("the program says %q, not the version that was linked in", out)
	}
}
