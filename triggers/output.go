package triggers

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// output is a payload in the making, bounded: a small expression can name a large value many times.
type output struct {
	buf   []byte
	limit int
	depth int
}

func tooLargeError(limit int) error {
	return fmt.Errorf("payload is larger than %d bytes (max_payload_bytes): pass a reference instead of the content", limit)
}

// maxOutputDepth is what readers of JSON commonly stand, and what tasks' payloads are checked for.
const maxOutputDepth = 1000

var errTooDeep = fmt.Errorf("payload is nested deeper than %d levels", maxOutputDepth)

func (o *output) raw(s string) error {
	if len(o.buf)+len(s) > o.limit {
		return tooLargeError(o.limit)
	}
	o.buf = append(o.buf, s...)
	return nil
}

func (o *output) enter() error {
	if o.depth++; o.depth > maxOutputDepth {
		return errTooDeep
	}
	return nil
}

func (o *output) leave() { o.depth-- }

// text writes a JSON string.
func (o *output) text(s string) error {
	if err := o.raw(`"`); err != nil {
		return err
	}
	if err := o.escaped(s); err != nil {
		return err
	}
	return o.raw(`"`)
}

// escaped writes what stands between the quotes of a JSON string.
func (o *output) escaped(s string) error {
	if len(o.buf)+len(s) > o.limit {
		return tooLargeError(o.limit)
	}
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				o.buf = append(append(o.buf, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		o.buf = append(o.buf, s[start:i]...)
		switch c {
		case '"', '\\':
			o.buf = append(o.buf, '\\', c)
		case '\n':
			o.buf = append(o.buf, '\\', 'n')
		case '\r':
			o.buf = append(o.buf, '\\', 'r')
		case '\t':
			o.buf = append(o.buf, '\\', 't')
		default:
			o.buf = append(o.buf, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	o.buf = append(o.buf, s[start:]...)
	return o.raw("") // what was escaped has grown
}

// native writes decoded JSON: numbers as they were written, no digit is lost. Bytes stand in it only as the data of a whole event,
// which is written as CloudEvents has it: under data they would be a text that nobody knows to be base64.
func (o *output) native(value any) error {
	switch v := value.(type) {
	case nil:
		return o.raw("null")
	case bool:
		return o.raw(strconv.FormatBool(v))
	case string:
		return o.text(v)
	case json.Number:
		return o.raw(string(v))
	case int32:
		return o.raw(strconv.FormatInt(int64(v), 10))
	case []byte:
		return o.base64(v)
	case time.Time:
		return o.text(formatTime(v))
	case []any:
		return o.list(len(v), func(i int) error { return o.native(v[i]) })
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		shown := names
		if i := slices.Index(names, "data"); i >= 0 && isBytes(v["data"]) {
			shown = slices.Clone(names)
			shown[i] = "data_base64"
		}
		return o.object(shown, func(i int) error { return o.native(v[names[i]]) })
	}
	return fmt.Errorf("a %T has no JSON form", value)
}

func isBytes(value any) bool {
	_, is := value.([]byte)
	return is
}

func (o *output) list(n int, item func(i int) error) error {
	if err := o.enter(); err != nil {
		return err
	}
	defer o.leave()
	separator := "["
	for i := range n {
		if err := o.raw(separator); err != nil {
			return err
		}
		if err := item(i); err != nil {
			return err
		}
		separator = ","
	}
	if n == 0 {
		return o.raw("[]")
	}
	return o.raw("]")
}

func (o *output) object(names []string, value func(i int) error) error {
	if err := o.enter(); err != nil {
		return err
	}
	defer o.leave()
	separator := "{"
	for i, name := range names {
		if err := o.raw(separator); err != nil {
			return err
		}
		if err := o.text(name); err != nil {
			return err
		}
		if err := o.raw(":"); err != nil {
			return err
		}
		if err := value(i); err != nil {
			return err
		}
		separator = ","
	}
	if len(names) == 0 {
		return o.raw("{}")
	}
	return o.raw("}")
}

func (o *output) base64(b []byte) error {
	if len(o.buf)+base64.StdEncoding.EncodedLen(len(b))+2 > o.limit {
		return tooLargeError(o.limit)
	}
	o.buf = append(base64.StdEncoding.AppendEncode(append(o.buf, '"'), b), '"')
	return nil
}

// value writes what an expression gave.
func (o *output) value(value ref.Val) error {
	switch v := value.(type) {
	case types.Bool:
		return o.raw(strconv.FormatBool(bool(v)))
	case types.Int:
		return o.raw(strconv.FormatInt(int64(v), 10))
	case types.Uint:
		return o.raw(strconv.FormatUint(uint64(v), 10))
	case types.Double:
		return o.double(float64(v))
	case types.Null:
		return o.raw("null")
	case types.Bytes:
		return o.base64(v)
	case types.String, types.Timestamp, types.Duration:
		text, _ := plainText(v)
		return o.text(text)
	case *types.Optional:
		if !v.HasValue() {
			return o.raw("null")
		}
		return o.value(v.GetValue())
	case traits.Mapper:
		if native, ok := v.Value().(map[string]any); ok {
			return o.native(native)
		}
		return o.mapper(v)
	case traits.Lister:
		if native, ok := v.Value().([]any); ok {
			return o.native(native)
		}
		n, _ := v.Size().(types.Int)
		return o.list(int(n), func(i int) error { return o.value(v.Get(types.Int(i))) })
	case *types.Err:
		return evalFault(v)
	}
	return fmt.Errorf("a value of type %s has no JSON form", value.Type().TypeName())
}

func (o *output) double(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%v has no JSON form", f)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return o.raw(string(b))
}

var errKeyNotText = errors.New("a map with keys that are no strings has no JSON form: write string(key)")

func (o *output) mapper(m traits.Mapper) error {
	size, _ := m.Size().(types.Int)
	names := make([]string, 0, min(int(size), 1024))
	for it := m.Iterator(); it.HasNext() == types.True; {
		key, ok := it.Next().(types.String)
		if !ok {
			return errKeyNotText
		}
		names = append(names, string(key))
	}
	slices.Sort(names)
	return o.object(names, func(i int) error { return o.value(m.Get(types.String(names[i]))) })
}

// plainText is the text of a value whose JSON form is a string; false for all others.
func plainText(value ref.Val) (string, bool) {
	switch v := value.(type) {
	case types.String:
		return string(v), true
	case types.Timestamp:
		return formatTime(v.Time), true
	case types.Duration:
		return strconv.FormatFloat(v.Seconds(), 'f', -1, 64) + "s", true
	case types.Bytes:
		return base64.StdEncoding.EncodeToString(v), true
	}
	return "", false
}

func formatTime(t time.Time) string {
	if _, offset := t.Zone(); offset%60 != 0 {
		t = t.UTC() // RFC 3339 can't say seconds of an offset
	}
	return t.Format(time.RFC3339Nano)
}
