package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Print writes the configuration as YAML that can be loaded again, each value with where it came from. Secrets are
// masked.
func (l *Loaded) Print(w io.Writer) error {
	var b bytes.Buffer
	var open []string // the sections written so far
	config := reflect.ValueOf(l.Config)
	for _, k := range keys() {
		names := strings.Split(k.path, ".")
		sections := names[:len(names)-1]
		for depth, name := range sections {
			if depth >= len(open) || !slices.Equal(open[:depth+1], sections[:depth+1]) {
				fmt.Fprintf(&b, "%s%s:\n", indent(depth), name)
				open = slices.Clone(sections[:depth+1])
			}
		}
		value, err := yaml.Marshal(node(config.FieldByIndex(k.index), k.path))
		if err != nil {
			return fmt.Errorf("print %s: %w", k.path, err)
		}
		line := fmt.Sprintf("%s%s: %s", indent(len(sections)), k.name(), bytes.TrimSpace(value))
		fmt.Fprintf(&b, "%-44s # %s\n", line, l.Origin(k.path))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// PrintJSON writes an object of the keys, each {"value": ..., "from": ...}. Durations are text such as "30s". Secrets are
// masked.
func (l *Loaded) PrintJSON(w io.Writer) error {
	type entry struct {
		Value any    `json:"value"`
		From  string `json:"from"`
	}
	all := make(map[string]entry)
	config := reflect.ValueOf(l.Config)
	for _, k := range keys() {
		var value any
		if err := node(config.FieldByIndex(k.index), k.path).Decode(&value); err != nil {
			return fmt.Errorf("print %s: %w", k.path, err)
		}
		all[k.path] = entry{value, l.Origin(k.path)}
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// node is the masked value, to be written in one line.
func node(v reflect.Value, path string) *yaml.Node {
	scalar := func(tag, text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text} }
	switch {
	case v.Type() == durationType:
		return scalar("!!str", shortDuration(time.Duration(v.Int())))
	case readsText(v.Type()):
		return textNode(mask(path, marshalText(v)))
	case v.Kind() == reflect.String:
		return textNode(mask(path, v.String()))
	case v.Kind() == reflect.Bool:
		return scalar("!!bool", strconv.FormatBool(v.Bool()))
	case v.CanInt():
		return scalar("!!int", strconv.FormatInt(v.Int(), 10))
	case v.CanUint():
		return scalar("!!int", strconv.FormatUint(v.Uint(), 10))
	case v.CanFloat():
		text := strconv.FormatFloat(v.Float(), 'f', -1, 64)
		if strings.ContainsFunc(text, func(r rune) bool { return r != '-' && !unicode.IsDigit(r) }) {
			return scalar("!!float", text)
		}
		return scalar("!!int", text) // as a float, YAML would have it with its tag: !!float 1000
	case v.Kind() == reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			list.Content = append(list.Content, node(v.Index(i), path))
		}
		return list
	}
	m := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	if v.Kind() == reflect.Map {
		names := v.MapKeys()
		slices.SortFunc(names, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, name := range names {
			// A name in the list can be what tells of the secret, or the list's own name.
			at := path
			if !isSecret(path) {
				at = join(path, strings.ToLower(strings.ReplaceAll(name.String(), "-", "_")))
			}
			m.Content = append(m.Content, textNode(name.String()), node(v.MapIndex(name), at))
		}
		return m
	}
	for _, f := range fieldsOf(v.Type()) {
		m.Content = append(m.Content, textNode(f.name), node(v.FieldByIndex(f.index), join(path, f.name)))
	}
	return m
}

func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if s == "" || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func marshalText(v reflect.Value) string {
	if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v.Interface())
}

// shortDuration writes 24h, not 24h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
