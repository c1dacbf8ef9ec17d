package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/bellhop-dev/bellhop/worker"
)

// textError is a part of a text that cannot be read. The part may be a secret: who reports it decides.
type textError struct{ part, wrong string }

func (e *textError) Error() string { return e.wrong }

var (
	durationType = reflect.TypeFor[time.Duration]()
	queueType    = reflect.TypeFor[worker.Queue]()
)

// fromText reads a value as variables, flags and scalars of files hold it. Lists are separated by commas.
func fromText(t reflect.Type, s string) (reflect.Value, error) {
	if isList(t) {
		return listFromText(t, s)
	}
	if t.Kind() != reflect.Slice || readsText(t) {
		return oneFromText(t, s)
	}
	list := reflect.MakeSlice(t, 0, 0)
	if strings.TrimSpace(s) == "" {
		return list, nil
	}
	var faults []error
	for part := range strings.SplitSeq(s, ",") {
		if len(faults) >= maxFileFaults {
			break
		}
		item, err := oneFromText(t.Elem(), strings.TrimSpace(part))
		if err != nil {
			faults = append(faults, err)
			continue
		}
		list = reflect.Append(list, item)
	}
	return list, errors.Join(faults...)
}

// isList tells a list of sections.
func isList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && isSection(t.Elem()) && t.Elem() != queueType
}

// listFromText reads a list of sections as a file would have it: [{name: github, kind: github}].
func listFromText(t reflect.Type, s string) (reflect.Value, error) {
	list := reflect.MakeSlice(t, 0, 0)
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(s), &doc); err != nil { // the parser's words may hold a secret
		return list, errors.New("is no YAML, write it such as [{name: a}, {name: b}]")
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return list, nil
	}
	if doc.Content[0].Kind == yaml.ScalarNode { // the reader would ask for its text to be read, here, without end
		return list, errors.New("is no list, write it such as [{name: a}, {name: b}]")
	}
	var r yamlReader
	v := r.value(doc.Content[0], t, "")
	var faults []error
	for _, f := range r.faults {
		faults = append(faults, errors.New(strings.TrimPrefix(f.Text, ": ")))
	}
	return v, errors.Join(faults...)
}

func oneFromText(t reflect.Type, s string) (reflect.Value, error) {
	v := reflect.New(t).Elem()
	wrong := parseInto(v, s)
	if !utf8.ValidString(s) {
		wrong = "is not UTF-8"
	}
	if wrong != "" {
		return v, &textError{s, wrong}
	}
	return v, nil
}

// parseInto returns what is wrong, "" if nothing is.
func parseInto(v reflect.Value, s string) string {
	t := v.Type()
	digits := strings.ReplaceAll(s, "_", "")
	var err error
	switch {
	case t == queueType:
		return parseQueue(v.Addr().Interface().(*worker.Queue), s)
	case readsText(t):
		if err = v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
			return "is not understood: " + err.Error()
		}
	case t == durationType:
		var d time.Duration
		if d, err = time.ParseDuration(s); err == nil {
			v.SetInt(int64(d))
		} else if _, number := strconv.ParseFloat(s, 64); number == nil {
			return "has no unit, write it such as " + s + "s"
		}
	case t.Kind() == reflect.String:
		v.SetString(s)
	case t.Kind() == reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(s)
		v.SetBool(b)
	case v.CanInt():
		var n int64
		if n, err = strconv.ParseInt(digits, 10, t.Bits()); err == nil {
			v.SetInt(n)
		}
	case v.CanUint():
		var n uint64
		if n, err = strconv.ParseUint(digits, 10, t.Bits()); err == nil {
			v.SetUint(n)
		}
	case v.CanFloat():
		var n float64
		if n, err = strconv.ParseFloat(digits, t.Bits()); err == nil {
			v.SetFloat(n)
		}
	default:
		return "cannot be given as text, only in a file"
	}
	switch {
	case errors.Is(err, strconv.ErrRange):
		return "is out of range"
	case err != nil:
		return "is not " + expected(t)
	}
	return ""
}

// parseQueue reads name=weight, or a name alone, which has the weight 1.
func parseQueue(q *worker.Queue, s string) string {
	name, weight, given := strings.Cut(s, "=")
	q.Name, q.Weight = strings.TrimSpace(name), 1
	if !given {
		if q.Name == "" {
			return "names no queue"
		}
		return ""
	}
	n, err := strconv.Atoi(strings.TrimSpace(weight))
	if err != nil {
		return "has a weight that is not a whole number, write it such as critical=6"
	}
	if n < 1 { // a zero would be taken for one that is not given
		return "has a weight below 1, leave the queue out or write it such as critical=6"
	}
	q.Weight = n
	return ""
}

// expected tells what a key of this type takes.
func expected(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 500ms, 30s or 24h"
	case t == reflect.SliceOf(queueType):
		return "a list of queues such as [{name: default, weight: 1}] or critical=6,default=3"
	case isList(t):
		return "a list of sections such as [{name: a}, {name: b}]"
	case t == queueType:
		return "a queue such as {name: default, weight: 1} or default=1"
	case t.Kind() == reflect.String || readsText(t):
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Slice:
		return "a list such as [a, b]"
	case t.Kind() == reflect.Map:
		return "a list of names with values"
	case t.Kind() == reflect.Struct:
		var names []string
		for _, f := range fieldsOf(t) {
			names = append(names, f.name)
		}
		return fmt.Sprintf("a section with %s", strings.Join(names, ", "))
	default:
		return "a whole number"
	}
}
