package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/bellhop-dev/bellhop/worker"
)

// Each paragraph of a Go block stands, line by line, in code that the tests compile: in the file that the block's first line
// names, or in an example, or beside this test. Only the indentation may differ.
func TestGoBlocksAreCompiledCode(t *testing.T) {
	t.Parallel()
	code := exampleCode(t)
	for _, b := range blocksOf(t, "go") {
		lines, within := b.lines, code
		if name, ok := strings.CutPrefix(lines[0], "// "); ok && strings.HasSuffix(name, ".go") {
			lines, within = lines[1:], map[string][]string{name: trimmed(linesOf(t, name))}
		}
		for _, paragraph := range paragraphs(trimmed(lines)) {
			if !slices.ContainsFunc(values(within), func(file []string) bool { return contains(file, paragraph) }) {
				t.Errorf("%s:%d: no code that is compiled has these lines:\n%s", b.doc, b.line, strings.Join(paragraph, "\n"))
			}
		}
	}
}

// exampleCode is the code that snippets may come from: examples, and the files beside this test.
func exampleCode(t *testing.T) map[string][]string {
	t.Helper()
	code := make(map[string][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root:
			return filepath.SkipDir
		case strings.HasSuffix(rel, "example_test.go"),
			strings.HasSuffix(rel, ".go") && (strings.HasPrefix(rel, "examples/") || strings.HasPrefix(rel, "internal/docs/")):
			code[rel] = trimmed(linesOf(t, rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func trimmed(lines []string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = strings.TrimSpace(line)
	}
	return out
}

func paragraphs(lines []string) [][]string {
	var all [][]string
	var open []string
	for _, line := range append(slices.Clone(lines), "") {
		switch {
		case line != "":
			open = append(open, line)
		case open != nil:
			all, open = append(all, open), nil
		}
	}
	return all
}

func values(m map[string][]string) [][]string {
	all := make([][]string, 0, len(m))
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

func contains(file, part []string) bool {
	for i := range file {
		if len(file)-i >= len(part) && slices.Equal(file[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

// Triggers compile against the tasks that the documents speak of, and settings load.
func TestYAMLBlocksLoad(t *testing.T) {
	t.Parallel()
	type welcome struct {
		UserID string `json:"user_id"`
	}
	known := triggers.TaskList(append(tasks.BuiltIn(), job.Define[welcome]("email:welcome").Definition())...)
	sections := yaml.Node{}
	if err := sections.Encode(map[string]any{"redis": 0, "events": 0, "triggers": 0, "worker": 0, "handlers": 0, "gateway": 0, "hooks": 0, "sources": 0, "http": 0, "log": 0}); err != nil {
		t.Fatal(err)
	}
	for _, b := range blocksOf(t, "yaml") {
		var top map[string]yaml.Node
		if err := yaml.Unmarshal([]byte(b.text()), &top); err != nil {
			t.Errorf("%s:%d: %v", b.doc, b.line, err)
			continue
		}
		switch {
		case top["triggers"].Kind == yaml.SequenceNode:
			rules, err := triggers.Parse(b.doc, []byte(b.text()))
			if err == nil {
				_, err = triggers.Compile(rules, known, triggers.Config{})
			}
			if err != nil {
				t.Errorf("%s:%d: %v", b.doc, b.line, err)
			}
		case slices.ContainsFunc(sections.Content, func(n *yaml.Node) bool { _, ok := top[n.Value]; return ok }):
			file := filepath.Join(t.TempDir(), "bellhop.yaml")
			if err := os.WriteFile(file, []byte(b.text()), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := config.Load(config.Options{File: file}); err != nil {
				t.Errorf("%s:%d: %v", b.doc, b.line, err)
			}
		}
	}
}

var variable = regexp.MustCompile(`\bBELLHOP_[A-Z0-9_]*[A-Z0-9]\b`)

func TestVariablesExist(t *testing.T) {
	t.Parallel()
	for _, doc := range documents(t) {
		for n, line := range linesOf(t, doc) {
			for _, name := range variable.FindAllString(line, -1) {
				if _, err := config.Load(config.Options{Env: []string{name + "=x"}}); err != nil && strings.Contains(err.Error(), "unknown variable") {
					t.Errorf("%s:%d: %v", doc, n+1, err)
				}
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:,\s]+)(#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, doc := range documents(t) {
		for n, line := range linesOf(t, doc) {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if _, err := os.Stat(filepath.Join(root, filepath.Dir(doc), m[1])); err != nil {
					t.Errorf("%s:%d: %v", doc, n+1, err)
				}
			}
		}
	}
}

// What the README promises "today" hangs on the engine: a change of the default wants it read again.
func TestTheDefaultEngineIsTold(t *testing.T) {
	t.Parallel()
	want := "The default engine is `" + worker.Config{}.WithDefaults().Engine + "`"
	for _, doc := range []string{"README.md", "docs/lifecycle.md", "docs/operations.md"} {
		if !strings.Contains(strings.Join(linesOf(t, doc), "\n"), want) {
			t.Errorf("%s does not say %q: see what else it says of the engines", doc, want)
		}
	}
}
