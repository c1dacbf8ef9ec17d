package docs_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/triggers"
)

// The table of docs/triggers.md has the keys that a file may have: those which the refusal of another one lists.
func TestTriggerKeysAreExplained(t *testing.T) {
	t.Parallel()
	_, err := triggers.Parse("f.yaml", []byte("triggers:\n  - {name: a, on: b, run: c, nonsense: 1}\n"))
	if err == nil {
		t.Fatal("a key that is no key is accepted")
	}
	_, list, _ := strings.Cut(err.Error(), "(a trigger has ")
	known := strings.Split(strings.TrimSuffix(list, ")"), ", ")
	told := make(map[string]bool)
	for _, line := range section(t, "docs/triggers.md", "## Keys") {
		if m := regexp.MustCompile("^\\| `([a-z_]+)` \\|").FindStringSubmatch(line); m != nil {
			told[m[1]] = true
		}
	}
	slices.Sort(known)
	if diff := cmp.Diff(known, slices.Sorted(maps.Keys(told))); diff != "" {
		t.Errorf("keys of a trigger (-code +docs/triggers.md):\n%s", diff)
	}
}
