package triggers

import (
	"errors"
	"fmt"
	"strings"
)

// part is a piece of a text: literal, or an expression that stood in ${ }.
type part struct {
	text string
	expr bool
}

// splitTemplate cuts a text into its literal parts and its ${expressions}; $${ is a literal ${. Braces and quotes within an
// expression are read as CEL reads them: "}" in a string, a map literal or a comment ends nothing.
func splitTemplate(s string) ([]part, error) {
	var parts []part
	var literal strings.Builder
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], "$${"):
			literal.WriteString("${")
			i += len("$${")
		case strings.HasPrefix(s[i:], "${"):
			n, err := expressionEnd(s[i+2:])
			if err != nil {
				return nil, fmt.Errorf("the ${ at character %d %w", i+1, err)
			}
			if literal.Len() > 0 {
				parts = append(parts, part{text: literal.String()})
				literal.Reset()
			}
			parts = append(parts, part{text: s[i+2 : i+2+n], expr: true})
			i += 2 + n + 1
		default:
			literal.WriteByte(s[i])
			i++
		}
	}
	if literal.Len() > 0 || len(parts) == 0 {
		parts = append(parts, part{text: literal.String()})
	}
	return parts, nil
}

var (
	errNotClosed = errors.New("is never closed: add }, or write $${ for a literal ${")
	errOpenQuote = errors.New("has a string that is never closed: add the quote, or write $${ for a literal ${")
	errEmptyExpr = errors.New("is empty: write an expression in it, or $${ for a literal ${")
)

// expressionEnd returns the offset of the brace that closes the expression which s begins with.
func expressionEnd(s string) (int, error) {
	depth := 0
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\'':
			n := stringLength(s[i:], isRaw(s[:i]))
			if n < 0 {
				return 0, errOpenQuote
			}
			i += n
			continue
		case c == '`': // a quoted field name, which has no escapes
			n := strings.IndexByte(s[i+1:], '`')
			if n < 0 {
				return 0, errOpenQuote
			}
			i += n + 2
			continue
		case strings.HasPrefix(s[i:], "//"):
			n := strings.IndexByte(s[i:], '\n')
			if n < 0 {
				return 0, errNotClosed
			}
			i += n
		case c == '{':
			depth++
		case c == '}' && depth == 0:
			if strings.TrimSpace(s[:i]) == "" {
				return 0, errEmptyExpr
			}
			return i, nil
		case c == '}':
			depth--
		}
		i++
	}
	return 0, errNotClosed
}

// isRaw tells whether a string that follows before is a raw one, without escapes: r"..", br"..".
func isRaw(before string) bool {
	start := len(before)
	for start > 0 && isIdentByte(before[start-1]) {
		start--
	}
	switch strings.ToLower(before[start:]) {
	case "r", "br":
		return true
	}
	return false
}

func isIdentByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// stringLength returns the length of the CEL string literal that s begins with, -1 if it isn't closed.
func stringLength(s string, raw bool) int {
	quote, multiline := s[:1], false
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote, multiline = triple, true
	}
	for i := len(quote); i < len(s); {
		switch {
		case s[i] == '\\' && !raw:
			i += 2
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case !multiline && (s[i] == '\n' || s[i] == '\r'):
			return -1
		default:
			i++
		}
	}
	return -1
}
