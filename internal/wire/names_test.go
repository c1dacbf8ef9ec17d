package wire

import (
	"testing"
)

// The short way must refuse nothing less than the long one.
func TestPlainNamesAreValid(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		name := "a" + string([]byte{byte(c)}) + "b"
		for what, forbidden := range map[string]string{"queue": "{}*?[]", "task": "{}*", "id": "{}*", "group": "{}*:"} {
			if got, want := check(what, name, forbidden), checkAll(what, name, forbidden); (got == nil) != (want == nil) {
				t.Errorf("%s %q: %v, want %v", what, name, got, want)
			}
		}
	}
	for _, name := range []string{"", " ", string(make([]byte, MaxNameBytes+1))} {
		if CheckQueue(name) == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("email:welcome")
	f.Add("a b")
	f.Fuzz(func(t *testing.T, name string) {
		if got, want := check("group", name, "{}*:"), checkAll("group", name, "{}*:"); (got == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	})
}
