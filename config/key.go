package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// key is one setting: a field that is no section.
type key struct {
	path  string // worker.retry.first
	index []int  // of the field in Config
	typ   reflect.Type
}

// env is the variable that sets the key.
func (k key) env() string { return envPrefix + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_")) }

// name is the last part of the path.
func (k key) name() string { return k.path[strings.LastIndexByte(k.path, '.')+1:] }

// keys of Config, in the order of its fields.
func keys() []key { return keysOf(reflect.TypeFor[Config](), "", nil) }

func keysOf(section reflect.Type, path string, index []int) []key {
	var all []key
	for _, f := range fieldsOf(section) {
		at, name := slices.Concat(index, f.index), join(path, f.name)
		if isSection(f.typ) {
			all = append(all, keysOf(f.typ, name, at)...)
		} else {
			all = append(all, key{path: name, index: at, typ: f.typ})
		}
	}
	return all
}

// field is one of a section: a key or another section.
type field struct {
	name  string
	index []int
	typ   reflect.Type
}

func fieldsOf(section reflect.Type) []field {
	var all []field
	for f := range section.Fields() {
		name, squashed := tagOf(f)
		switch {
		case squashed:
			for _, inner := range fieldsOf(f.Type) {
				inner.index = slices.Concat(f.Index, inner.index)
				all = append(all, inner)
			}
		case name != "":
			all = append(all, field{name: name, index: f.Index, typ: f.Type})
		}
	}
	return all
}

// tagOf returns the field's name in files, "" if it has none.
func tagOf(f reflect.StructField) (name string, squashed bool) {
	name, options, _ := strings.Cut(f.Tag.Get("mapstructure"), ",")
	if name == "-" || !f.IsExported() {
		return "", false
	}
	return name, options == "squash"
}

func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !readsText(t) }

func readsText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// unknownKey says what was meant: a key of another section, or one of this section that is written alike.
func unknownKey(path, name string, siblings []string) string {
	full := join(path, name)
	for _, k := range keys() {
		if k.path == full { // only possible with a dot in the name
			return fmt.Sprintf("%s: write each part of the key as a section of its own, one below the other", quote(full))
		}
		if k.name() == name {
			return fmt.Sprintf("%s: unknown key, did you mean %q?", printable(full), k.path)
		}
	}
	if near := nearest(name, siblings); near != "" {
		return fmt.Sprintf("%s: unknown key, did you mean %q?", printable(full), join(path, near))
	}
	return fmt.Sprintf("%s: unknown key, known are %s", printable(full), strings.Join(siblings, ", "))
}

// nearest does not look at what is far too long: comparing takes the product of the lengths.
func nearest(name string, known []string) string {
	if len(name) > 100 {
		return ""
	}
	return suggest.Nearest(name, known)
}

// printable leaves names as they are, and quotes what a terminal must not see raw.
func printable(s string) string {
	plain := func(r rune) bool { return r > ' ' && r < 0x7f && r != '"' }
	if len(s) <= 60 && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return quote(s)
}
