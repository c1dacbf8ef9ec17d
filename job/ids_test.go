package job

import (
	"testing"

	"github.com/google/uuid"
)

// Ids are random UUIDs in their canonical form, also those that were made together.
func TestIDs(t *testing.T) {
	t.Parallel()
	var many ids
	seen := make(map[string]bool)
	for range 3 * idsAtOnce {
		for _, id := range []string{newID(), many.next()} {
			u, err := uuid.Parse(id)
			if err != nil || u.String() != id || u.Version() != 4 || u.Variant() != uuid.RFC4122 || seen[id] {
				t.Errorf("%s: %v, version %v, variant %v, seen before: %v", id, err, u.Version(), u.Variant(), seen[id])
			}
			seen[id] = true
		}
	}
}
