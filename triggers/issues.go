package triggers

import (
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
)

// expressionError is what is wrong with an expression; line counts within it, from 1.
type expressionError struct {
	line int
	text string
}

func (e *expressionError) Error() string { return e.text }

// maxIssues is how many faults of one expression are told: after a few, one follows from another.
const maxIssues = 3

func explainIssues(source string, issues []*cel.Error) error {
	var b strings.Builder
	for i, issue := range issues {
		if i == maxIssues {
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		message := strings.TrimPrefix(issue.Message, "Syntax error: ")
		fmt.Fprintf(&b, "%s%s", truncate(message), hint(source, message))
		if i == 0 {
			b.WriteString(mark(source, issue))
		}
	}
	line := 1
	if len(issues) > 0 && issues[0].Location != nil {
		line = max(issues[0].Location.Line(), 1)
	}
	return &expressionError{line: line, text: b.String()}
}

// mark shows where in the expression, a stretch of its line with a mark before the fault.
func mark(source string, issue *cel.Error) string {
	if issue.Location == nil || issue.Location.Line() < 1 {
		return ""
	}
	lines := strings.Split(source, "\n")
	if issue.Location.Line() > len(lines) {
		return ""
	}
	line := []rune(lines[issue.Location.Line()-1])
	column := min(max(issue.Location.Column(), 0), len(line))
	const around = 30
	from, to := max(0, column-around), min(len(line), column+around)
	return fmt.Sprintf(" (at character %d, after the mark: %s⟶%s)", column+1,
		strings.TrimSpace(string(line[from:column])), strings.TrimSpace(string(line[column:to])))
}

var (
	undeclared   = regexp.MustCompile(`undeclared reference to '([^']*)'`)
	wordOperator = regexp.MustCompile(`(?i)\b(and|or|not|is)\b`)
)

// hint guesses what the writer meant: most come from other languages.
func hint(source, message string) string {
	if m := undeclared.FindStringSubmatch(message); m != nil {
		name, _, _ := strings.Cut(m[1], ".")
		if _, attribute := attributes[name]; attribute {
			return ", did you mean event." + name + "?"
		}
		if strings.Contains(message, "did you mean") {
			return "" // cel has said it
		}
		return ": the one variable is event (id, source, type, subject, time, data); texts need quotes"
	}
	switch {
	case strings.HasPrefix(strings.TrimSpace(source), "${"):
		return ": write the expression without ${ }"
	case strings.Contains(message, "token recognition error at: '='"), strings.Contains(message, "token recognition error at: '= "):
		return ": equality is =="
	case strings.Contains(message, "token recognition error at: '& "), strings.Contains(message, "token recognition error at: '| "):
		return ": use && and ||"
	case strings.Contains(message, "mismatched input") && wordOperator.MatchString(message):
		return ": use &&, || and !"
	case strings.Contains(message, "found no matching overload"):
		return ": the operands' types don't go together, convert one, as in string(x) or int(x)"
	}
	return ""
}
