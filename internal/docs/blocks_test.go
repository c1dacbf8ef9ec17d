// Package docs_test holds what the documents say against what the code does: their snippets stand in code that compiles,
// their YAML loads, their commands run.
package docs_test

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository, seen from here.
const root = "../.."

// block is a fenced part of a document.
type block struct {
	doc   string // relative to root
	line  int    // of its first line
	lang  string
	lines []string
}

func (b block) text() string { return strings.Join(b.lines, "\n") + "\n" }

// documents are all that users read, relative to root.
func documents(t *testing.T) []string {
	t.Helper()
	var docs []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			rel, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			docs = append(docs, filepath.ToSlash(rel))
		}
	}
	for _, must := range []string{"README.md", "docs/lifecycle.md", "docs/operations.md", "docs/triggers.md", "docs/events.md", "docs/from-asynq.md", "docs/from-arq.md"} {
		if !slices.Contains(docs, must) {
			t.Errorf("there is no %s", must)
		}
	}
	return docs
}

func blocks(t *testing.T, doc string) []block {
	t.Helper()
	var all []block
	var open *block
	for n, line := range linesOf(t, doc) {
		lang, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			open = &block{doc: doc, line: n + 2, lang: lang}
		case fence:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", doc, open.line)
	}
	return all
}

// blocksOf are the blocks of a language in all documents.
func blocksOf(t *testing.T, lang string) []block {
	t.Helper()
	var all []block
	for _, doc := range documents(t) {
		for _, b := range blocks(t, doc) {
			if b.lang == lang {
				all = append(all, b)
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("no document has a block of %s", lang)
	}
	return all
}

func linesOf(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}
