package job

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// The tags of a payload's fields that its schema knows beside json and jsonschema, for texts:
//
//	Level string `json:"level" enum:"debug,info,warn,error"` // one of these
//	URL   string `json:"url" pattern:"^https?://"`           // a regular expression that must match
const (
	tagEnum    = "enum"
	tagPattern = "pattern"
)

// refine adds to the schema of a type what the tags of its fields tell.
func refine(s *jsonschema.Schema, t reflect.Type) error {
	if s == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return refine(s, t.Elem())
	case reflect.Slice, reflect.Array:
		return refine(s.Items, t.Elem())
	case reflect.Map:
		return refine(s.AdditionalProperties, t.Elem())
	case reflect.Struct:
		var faults []error
		for _, f := range reflect.VisibleFields(t) {
			property := s.Properties[jsonName(f)]
			if property == nil || f.Anonymous || !f.IsExported() {
				continue
			}
			if err := errors.Join(refineField(property, f), refine(property, f.Type)); err != nil {
				faults = append(faults, err)
			}
		}
		return errors.Join(faults...)
	}
	return nil
}

func jsonName(f reflect.StructField) string {
	if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
		return name
	}
	return f.Name
}

func refineField(s *jsonschema.Schema, f reflect.StructField) error {
	values, isEnum := f.Tag.Lookup(tagEnum)
	pattern, hasPattern := f.Tag.Lookup(tagPattern)
	if !isEnum && !hasPattern {
		return nil
	}
	if !slices.Contains(kinds(s), "string") {
		return fmt.Errorf("field %s: the tags %s and %s are for texts", f.Name, tagEnum, tagPattern)
	}
	if isEnum {
		for value := range strings.SplitSeq(values, ",") {
			s.Enum = append(s.Enum, value)
		}
		if slices.Contains(s.Types, "null") {
			s.Enum = append(s.Enum, nil)
		}
	}
	if hasPattern {
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("field %s: tag %s: %w", f.Name, tagPattern, err)
		}
		s.Pattern = pattern
	}
	return nil
}

// kinds are the types that a schema takes, nil for any.
func kinds(s *jsonschema.Schema) []string {
	if s.Type != "" {
		return []string{s.Type}
	}
	return s.Types
}
