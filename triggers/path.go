package triggers

import (
	"strconv"
	"strings"
)

// Paths name a part of a trigger as an expression would: when, with.json.message, with.list[0], with["a key.with dots"].

func child(path, name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || strings.ContainsRune(`.[]"`, r) }) {
		return path + "[" + strconv.Quote(name) + "]"
	}
	return strings.TrimPrefix(path+"."+name, ".")
}

func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// pointer turns a path into a JSON pointer (RFC 6901) into the trigger; "" is the trigger itself.
func pointer(path string) string {
	var b strings.Builder
	add := func(segment string) {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(segment))
	}
	for path != "" {
		if strings.HasPrefix(path, `["`) {
			if quoted, err := strconv.QuotedPrefix(path[1:]); err == nil {
				name, _ := strconv.Unquote(quoted)
				add(name)
				path = strings.TrimPrefix(path[1+len(quoted):], "]")
				continue
			}
		}
		path = strings.TrimLeft(path, ".[")
		end := strings.IndexAny(path, ".[]")
		if end < 0 {
			end = len(path)
		}
		add(path[:end])
		path = strings.TrimPrefix(path[end:], "]")
	}
	return b.String()
}
