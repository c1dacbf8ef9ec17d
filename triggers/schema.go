package triggers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
)

// checkPayload holds a mapping against the task's schema as far as it is known before an event comes: what is literal
// must fit, an expression must not be of a type that never fits, the fields must exist and the required ones be there.
// The rest is checked with each event.
func checkPayload(t *Trigger, d job.Definition, payload node) []error {
	text, err := json.Marshal(d.Schema)
	if err != nil {
		return []error{t.fault("run", "task %q has a schema that can't be read: %v", d.Name, err)}
	}
	root := new(jsonschema.Schema)
	if err := json.Unmarshal(text, root); err != nil {
		return []error{t.fault("run", "task %q has a schema that can't be read: %v", d.Name, err)}
	}
	c := &schemaChecker{root: root, trigger: t, task: d.Name}
	c.check(root, payload, "with", 0)
	return c.faults
}

type schemaChecker struct {
	root    *jsonschema.Schema
	trigger *Trigger
	task    string
	faults  []error
}

func (c *schemaChecker) fault(path, format string, args ...any) {
	c.faults = append(c.faults, c.trigger.fault(path, format, args...))
}

func (c *schemaChecker) check(s *jsonschema.Schema, n node, path string, depth int) {
	s = c.dereference(s)
	if s == nil || depth > maxYAMLDepth {
		return
	}
	switch n := n.(type) {
	case literalNode:
		c.literal(s, n, path)
	case textNode:
		if !allows(s, "string") {
			c.fault(path, "is text, task %q wants %s: make the whole value one ${ }", c.task, wanted(s))
		}
	case exprNode:
		c.expression(s, n, path)
	case listNode:
		if !allows(s, "array") {
			c.fault(path, "is a list, task %q wants %s", c.task, wanted(s))
			return
		}
		if len(s.PrefixItems) > 0 {
			return
		}
		for i, element := range n.items {
			c.check(s.Items, element, item(path, i), depth+1)
		}
	case objectNode:
		c.object(s, n, path, depth)
	}
}

// dereference follows references within the schema; nil for what this check doesn't know.
func (c *schemaChecker) dereference(s *jsonschema.Schema) *jsonschema.Schema {
	for range 10 {
		if s == nil || s.Ref == "" {
			return s
		}
		switch name, local := strings.CutPrefix(s.Ref, "#/$defs/"); {
		case local:
			s = c.root.Defs[name]
		case s.Ref == "#":
			s = c.root
		default:
			return nil
		}
	}
	return nil
}

func (c *schemaChecker) literal(s *jsonschema.Schema, n literalNode, path string) {
	value, kind := plainLiteral(n.value)
	if !allows(s, kind) {
		c.fault(path, "is %s, task %q wants %s", shown(n.value), c.task, wanted(s))
		return
	}
	resolved, err := s.CloneSchemas().Resolve(nil)
	if err != nil {
		return // it hangs on other parts of the schema: checked with the event
	}
	if err := resolved.Validate(value); err != nil {
		switch {
		case len(s.Enum) > 0 && !slices.Contains(s.Enum, value):
			choice := make([]string, len(s.Enum))
			for i, allowed := range s.Enum {
				choice[i] = shown(allowed)
			}
			c.fault(path, "is %s, task %q wants %s", shown(n.value), c.task, suggest.OneOf(choice))
			return
		case s.Pattern != "":
			c.fault(path, "is %s, task %q wants a text that matches %s", shown(n.value), c.task, s.Pattern)
			return
		}
		reason := err.Error()
		if _, after, found := strings.Cut(reason, "validating root: "); found {
			reason = after
		}
		c.fault(path, "task %q doesn't take %s: %s", c.task, shown(n.value), truncate(reason))
	}
}

// plainLiteral is the value as encoding/json decodes it, and its type in JSON Schema.
func plainLiteral(v any) (value any, kind string) {
	switch v := v.(type) {
	case nil:
		return nil, "null"
	case bool:
		return v, "boolean"
	case json.Number:
		f, err := v.Float64()
		if err == nil && f == float64(int64(f)) {
			return f, "integer"
		}
		return f, "number"
	}
	return v, "string"
}

func shown(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("a %T", v)
	}
	if len(b) > 40 {
		return fmt.Sprintf("a text of %d bytes", len(b)-2)
	}
	return string(b)
}

func (c *schemaChecker) expression(s *jsonschema.Schema, n exprNode, path string) {
	if n.expr == nil {
		return // its fault is told
	}
	kinds := kindsOf(n.expr.typ)
	if len(kinds) > 0 && !slices.ContainsFunc(kinds, func(kind string) bool { return allows(s, kind) }) {
		c.fault(path, "the expression gives %s, task %q wants %s", n.expr.typ, c.task, wanted(s))
	}
}

// kindsOf are the JSON types that a value of a CEL type may have; nil if it may have any.
func kindsOf(t *cel.Type) []string {
	switch t.Kind() {
	case cel.BoolKind:
		return []string{"boolean"}
	case cel.IntKind, cel.UintKind:
		return []string{"integer"}
	case cel.DoubleKind:
		return []string{"number", "integer"}
	case cel.StringKind, cel.BytesKind, cel.TimestampKind, cel.DurationKind:
		return []string{"string"}
	case cel.ListKind:
		return []string{"array"}
	case cel.MapKind:
		return []string{"object"}
	case cel.NullTypeKind:
		return []string{"null"}
	}
	return nil
}

func (c *schemaChecker) object(s *jsonschema.Schema, n objectNode, path string, depth int) {
	if !allows(s, "object") {
		c.fault(path, "is a mapping, task %q wants %s", c.task, wanted(s))
		return
	}
	for i, name := range n.names {
		property, known := s.Properties[name]
		switch {
		case known:
			c.check(property, n.values[i], child(path, name), depth+1)
		case len(s.PatternProperties) > 0:
		case forbids(s.AdditionalProperties):
			c.fault(child(path, name), "task %q has no such field%s (it has %s)", c.task, suggest.DidYouMean(name, fields(s)), strings.Join(fields(s), ", "))
		default:
			c.check(s.AdditionalProperties, n.values[i], child(path, name), depth+1)
		}
	}
	for _, name := range s.Required {
		if !slices.Contains(n.names, name) {
			c.fault(path, "field %q is missing: task %q requires it", name, c.task)
		}
	}
}

func fields(s *jsonschema.Schema) []string {
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// forbids tells the schema false, which no value fits.
func forbids(s *jsonschema.Schema) bool {
	if s == nil || s.Not == nil {
		return false
	}
	text, err := json.Marshal(s)
	return err == nil && (string(text) == "false" || string(text) == `{"not":true}` || string(text) == `{"not":{}}`)
}

func kinds(s *jsonschema.Schema) []string {
	if s.Type != "" {
		return []string{s.Type}
	}
	return s.Types
}

func allows(s *jsonschema.Schema, kind string) bool {
	known := kinds(s)
	return len(known) == 0 || slices.Contains(known, kind) || kind == "integer" && slices.Contains(known, "number")
}

func wanted(s *jsonschema.Schema) string { return strings.Join(kinds(s), " or ") }
