package triggers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/types"
)

// node is a part of a compiled payload mapping.
type node interface {
	write(ctx context.Context, vars *eventVars, out *output) error
}

type (
	literalNode struct{ value any } // nil, bool, string or json.Number
	exprNode    struct {
		path string
		expr *expression // nil if it is faulty
	}
	textNode struct {
		path  string
		parts []textPart
	}
	listNode   struct{ items []node }
	objectNode struct {
		names  []string
		values []node
	}
)

// textPart is a literal piece, or an expression if expr is not nil.
type textPart struct {
	literal string
	expr    *expression
}

func (n literalNode) write(_ context.Context, _ *eventVars, out *output) error {
	return out.native(n.value)
}

func (n exprNode) write(ctx context.Context, vars *eventVars, out *output) error {
	return at(n.path, n.expr.writeTo(ctx, vars, out))
}

func (n textNode) write(ctx context.Context, vars *eventVars, out *output) error {
	if err := out.raw(`"`); err != nil {
		return err
	}
	for _, p := range n.parts {
		text, err := p.text(ctx, vars, out.limit)
		if err == nil {
			err = out.escaped(text)
		}
		if err != nil {
			return at(n.path, err)
		}
	}
	return out.raw(`"`)
}

// text is the value as it stands within a text: strings and times as they are, other values as JSON.
func (p textPart) text(ctx context.Context, vars *eventVars, limit int) (string, error) {
	if p.expr == nil {
		return p.literal, nil
	}
	inner := &output{limit: limit}
	if value, ok := p.expr.untouched(vars); ok {
		if s, ok := value.(string); ok {
			return s, nil
		}
		err := inner.native(value)
		return string(inner.buf), err
	}
	value, err := p.expr.eval(ctx, vars)
	if err != nil {
		return "", err
	}
	if o, ok := value.(*types.Optional); ok && o.HasValue() {
		value = o.GetValue()
	}
	if s, ok := plainText(value); ok {
		return s, nil
	}
	err = inner.value(value)
	return string(inner.buf), err
}

func (n listNode) write(ctx context.Context, vars *eventVars, out *output) error {
	return out.list(len(n.items), func(i int) error { return n.items[i].write(ctx, vars, out) })
}

func (n objectNode) write(ctx context.Context, vars *eventVars, out *output) error {
	return out.object(n.names, func(i int) error { return n.values[i].write(ctx, vars, out) })
}

func at(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// compileMapping compiles the payload of a trigger. Faults are those of the trigger.
func (c *compiler) compileMapping(t *Trigger) (node, []error) {
	value, err := plainJSON(t.With)
	if err != nil {
		return nil, []error{t.fault("with", "%v", err)}
	}
	m := &mappingCompiler{compiler: c, trigger: t}
	n := m.compile(value, "with", 0)
	return n, m.faults
}

// plainJSON turns any Go value into what its JSON decodes to, numbers as they are written.
func plainJSON(v any) (any, error) {
	var buf bytes.Buffer
	if err := encodePlain(&buf, v); err != nil {
		return nil, fmt.Errorf("has no JSON form: %w", err)
	}
	return decodeJSON(buf.Bytes())
}

// encodePlain writes JSON with <, > and & as they are.
func encodePlain(to *bytes.Buffer, v any) error {
	encoder := json.NewEncoder(to)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// The bounds on what one mapping makes of the processor and of the reader of its faults.
const (
	maxExpressions   = 5000
	maxMappingFaults = 50
)

type mappingCompiler struct {
	*compiler
	trigger     *Trigger
	faults      []error
	expressions int
}

// expression compiles one of the mapping's; nil if it is faulty, or if there are too many of either.
func (m *mappingCompiler) expression(source, path string, linesBefore int) *expression {
	if m.expressions++; m.expressions > maxExpressions {
		if m.expressions == maxExpressions+1 {
			m.faults = append(m.faults, m.trigger.fault(path, "is beyond %d expressions, the most that one trigger may have: pass event.data, or a part of it, as a whole", maxExpressions))
		}
		return nil
	}
	if len(m.faults) >= maxMappingFaults {
		return nil
	}
	x, err := m.compiler.compile(source)
	if err != nil {
		m.faults = append(m.faults, m.trigger.expressionFault(path, linesBefore, err))
	}
	return x
}

func (m *mappingCompiler) compile(value any, path string, depth int) node {
	if depth > maxYAMLDepth {
		m.faults = append(m.faults, m.trigger.fault(path, "is nested deeper than %d levels", maxYAMLDepth))
		return literalNode{}
	}
	switch v := value.(type) {
	case string:
		return m.text(v, path)
	case []any:
		items := make([]node, len(v))
		for i, element := range v {
			items[i] = m.compile(element, item(path, i), depth+1)
		}
		return listNode{items}
	case map[string]any:
		return m.object(v, path, depth)
	}
	return literalNode{value}
}

func (m *mappingCompiler) object(v map[string]any, path string, depth int) node {
	names := make([]string, 0, len(v))
	for name := range v {
		if strings.Contains(name, "${") {
			m.faults = append(m.faults, m.trigger.fault(path, "key %q: ${ } works in values only", truncate(name)))
		}
		names = append(names, name)
	}
	slices.Sort(names)
	values := make([]node, len(names))
	for i, name := range names {
		values[i] = m.compile(v[name], child(path, name), depth+1)
	}
	return objectNode{names, values}
}

func (m *mappingCompiler) text(s, path string) node {
	parts, err := splitTemplate(s)
	if err != nil {
		m.faults = append(m.faults, m.trigger.fault(path, "%v", err))
		return exprNode{path, nil} // no literal: it need not fit the schema
	}
	if len(parts) == 1 && !parts[0].expr {
		return literalNode{parts[0].text}
	}
	compiled := make([]textPart, len(parts))
	lines := 0
	for i, p := range parts {
		if !p.expr {
			compiled[i].literal = p.text
		} else {
			compiled[i].expr = m.expression(p.text, path, lines)
		}
		lines += strings.Count(p.text, "\n")
	}
	if len(parts) == 1 {
		return exprNode{path, compiled[0].expr}
	}
	return textNode{path, compiled}
}
