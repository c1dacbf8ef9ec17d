package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxNameBytes is the longest queue, task, group or job id that bellhop writes.
const MaxNameBytes = 255

// CheckQueue refuses a queue name that asynq would refuse, or that would break out of its keys or their Cluster slot.
func CheckQueue(name string) error { return check("queue", name, "{}*?[]") }

// CheckTask refuses a task name that can't be told apart in keys, logs and listings.
func CheckTask(name string) error { return check("task", name, "{}*") }

// CheckID refuses a job id that would break out of its keys.
func CheckID(id string) error { return check("id", id, "{}*") }

// CheckGroup refuses a group name that would break out of its keys.
func CheckGroup(name string) error { return check("group", name, "{}*:") }

func check(what, name, forbidden string) error {
	if name != "" && len(name) <= MaxNameBytes && isPlain(name, strings.Contains(forbidden, ":")) {
		return nil // nearly all are, and four names are looked at for each job that is stored
	}
	return checkAll(what, name, forbidden)
}

func checkAll(what, name, forbidden string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return fmt.Errorf("%s is empty", what)
	case len(name) > MaxNameBytes:
		return fmt.Errorf("%s is %d bytes long, the most is %d", what, len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q: %w", what, name, ErrNotUTF8)
	}
	if i := strings.IndexAny(name, forbidden); i >= 0 {
		return fmt.Errorf("%s %q contains %q, which would break the keys in Redis", what, name, name[i])
	}
	if strings.IndexFunc(name, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) >= 0 {
		return errors.New(what + " " + fmt.Sprintf("%q contains white space or a control character", name))
	}
	return nil
}

// isPlain tells that a name has nothing but letters, digits, '-', '_', '.', '/' and, unless that is special, ':' of ASCII.
func isPlain(name string, colonIsSpecial bool) bool {
	last := byte(':')
	if colonIsSpecial {
		last = '9'
	}
	for i := range len(name) {
		c := name[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '-' || c > last) && c != '_' {
			return false
		}
	}
	return true
}
