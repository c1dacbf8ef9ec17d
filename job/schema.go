package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema is the JSON Schema (draft 2020-12) of a task's payload. The zero Schema takes any JSON.
type Schema struct {
	schema   *jsonschema.Schema
	resolved *jsonschema.Resolved
}

// schemaOf derives the schema from a payload's Go type, as encoding/json would write it. A type that JSON Schema can't tell (a recursive
// one, say) gets the zero Schema: its payloads are checked by decoding alone. It fails on tags that can't be meant.
func schemaOf[P any]() (Schema, error) {
	s, err := jsonschema.For[P](&jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[json.RawMessage](): {},
		reflect.TypeFor[[]byte]():          {Types: []string{"string", "null"}, ContentEncoding: "base64"},
	}})
	if err != nil {
		return Schema{}, nil //nolint:nilerr // it can't be told
	}
	if err := refine(s, reflect.TypeFor[P]()); err != nil {
		return Schema{}, err
	}
	schema, err := newSchema(s)
	if err != nil {
		return Schema{}, nil //nolint:nilerr // it can't be told
	}
	return schema, nil
}

func newSchema(s *jsonschema.Schema) (Schema, error) {
	resolved, err := s.Resolve(nil)
	if err != nil {
		return Schema{}, err
	}
	return Schema{schema: s, resolved: resolved}, nil
}

// Check tells whether the payload is one JSON value that fits the schema.
func (s Schema) Check(payload []byte) error {
	value, err := decodeJSON(payload)
	if err != nil {
		return err
	}
	if s.resolved == nil {
		return nil
	}
	return s.CheckValue(value)
}

// CheckValue tells whether a decoded JSON value fits the schema.
func (s Schema) CheckValue(value any) error {
	if s.resolved == nil {
		return nil
	}
	if err := s.resolved.Validate(value); err != nil {
		return errors.New(s.explain(value, err))
	}
	return nil
}

// maxDepth is far deeper than any payload, and far from what would exhaust a stack.
const maxDepth = 1000

func decodeJSON(payload []byte) (any, error) {
	if err := checkDepth(payload); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	var value any
	if err := d.Decode(&value); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("not JSON: it is empty")
		}
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not JSON: more follows after the first value")
	}
	return value, nil
}

func checkDepth(payload []byte) error {
	depth, inString, escaped := 0, false, false
	for _, b := range payload {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = b == '\\', b != '"'
		case b == '"':
			inString = true
		case b == '{' || b == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("JSON is nested deeper than %d levels", maxDepth)
			}
		case b == '}' || b == ']':
			depth--
		}
	}
	return nil
}

// Fields are the names of an object's properties, those first that a payload must have; nil if it is not an object.
func (s Schema) Fields() []string {
	if s.schema == nil {
		return nil
	}
	return fieldsOf(s.schema)
}

func fieldsOf(s *jsonschema.Schema) []string {
	names := slices.Sorted(maps.Keys(s.Properties))
	slices.SortStableFunc(names, func(a, b string) int {
		return boolToInt(slices.Contains(s.Required, b)) - boolToInt(slices.Contains(s.Required, a))
	})
	return names
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Required are the fields that a payload must have.
func (s Schema) Required() []string {
	if s.schema == nil {
		return nil
	}
	return s.schema.Required
}

// MarshalJSON writes the schema.
func (s Schema) MarshalJSON() ([]byte, error) {
	if s.schema == nil {
		return []byte("true"), nil
	}
	return json.Marshal(s.schema)
}

// UnmarshalJSON reads a schema that MarshalJSON wrote.
func (s *Schema) UnmarshalJSON(data []byte) error {
	if bytes.Equal(bytes.TrimSpace(data), []byte("true")) {
		*s = Schema{}
		return nil
	}
	parsed := new(jsonschema.Schema)
	if err := json.Unmarshal(data, parsed); err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	schema, err := newSchema(parsed)
	if err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	*s = schema
	return nil
}
