package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What is far above what a person writes, and mends in one go.
const (
	maxAliases    = 100
	maxFileFaults = 100
)

// readYAML returns what the text sets. It reads the tree of nodes, not their values, because only nodes know their lines,
// and because aliases are not multiplied in it.
func readYAML(name string, text []byte) (layer, Faults) {
	r := &yamlReader{name: name, set: layer{}}
	var doc, next yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF): // nothing but comments
		return r.set, nil
	case err != nil:
		r.broken(text, err)
		return r.set, r.faults
	}
	switch err := decoder.Decode(&next); {
	case err == nil:
		r.faults.add(r.place(&next), "a second document begins here, a configuration is one: remove the line ---")
	case !errors.Is(err, io.EOF):
		r.broken(text, err)
		return r.set, r.faults
	}
	if n := countAliases(&doc); n > maxAliases {
		r.faults.add(name, "%d aliases (*name), at most %d are read: write the values out", n, maxAliases)
		return r.set, r.faults
	}
	r.section(doc.Content[0], reflect.TypeFor[Config](), "")
	if r.full() {
		r.faults.add(name, "the rest is not read: mend these first")
	}
	return r.set, r.faults
}

type yamlReader struct {
	name   string
	set    layer
	faults Faults
}

func (r *yamlReader) place(n *yaml.Node) string { return r.name + ":" + strconv.Itoa(n.Line) }

func (r *yamlReader) full() bool { return len(r.faults) >= maxFileFaults }

func (r *yamlReader) section(n *yaml.Node, t reflect.Type, path string) {
	if isNull(n) { // a section whose keys are all commented out
		return
	}
	if n.Kind != yaml.MappingNode {
		at := path
		if at == "" {
			at = "the file"
		}
		r.faults.add(r.place(n), "%s: is %s, expected %s", at, describe(n), expected(t))
		return
	}
	r.pairs(n, t, path, func(f field, value *yaml.Node) {
		at := join(path, f.name)
		if isSection(f.typ) {
			r.section(value, f.typ, at)
		} else if v := r.value(value, f.typ, at); v.IsValid() {
			r.set[at] = setting{value: v.Interface(), from: r.place(value)}
		}
	})
}

// pairs calls each for those whose name is known and given once.
func (r *yamlReader) pairs(n *yaml.Node, t reflect.Type, path string, each func(field, *yaml.Node)) {
	fields := fieldsOf(t)
	names := make([]string, len(fields))
	known := make(map[string]field)
	for i, f := range fields {
		names[i], known[f.name] = f.name, f
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content) && !r.full(); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		f, ok := known[at.Value]
		switch first := seen[at.Value]; {
		case at.Kind != yaml.ScalarNode:
			r.faults.add(r.place(at), "%s: %s stands where the name of a key is expected", orFile(path), describe(at))
		case !ok:
			r.faults.add(r.place(at), "%s", unknownKey(path, at.Value, names))
		case first != 0:
			r.faults.add(r.place(at), "%s: is given twice, first in line %d; keep one of them", join(path, f.name), first)
		default:
			seen[at.Value] = at.Line
			each(f, value)
		}
	}
}

// value reads what one key holds. The zero Value means: not set, or wrong.
func (r *yamlReader) value(n *yaml.Node, t reflect.Type, path string) reflect.Value {
	at := n
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		if n.Kind != yaml.ScalarNode { // what is never multiplied needs no limit
			r.faults.add(r.place(at), "%s: is an alias of %s, only single values can have aliases: write it out", path, describe(n))
			return reflect.Value{}
		}
	}
	switch {
	case isNull(n):
		return reflect.Value{}
	case strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!"):
		r.faults.add(r.place(at), "%s: has the tag %s, tags mean nothing here: remove it", path, quote(n.Tag))
		return reflect.Value{}
	case n.Kind == yaml.ScalarNode && (t.Kind() != reflect.Struct || readsText(t) || t == queueType):
		v, err := fromText(t, n.Value)
		r.faults.addText(r.place(at), path, err)
		return validIf(err == nil, v)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		return r.list(n, t, path)
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Map:
		return r.mapping(n, t, path)
	case n.Kind == yaml.MappingNode && isSection(t):
		return r.item(n, t, path)
	default:
		r.faults.add(r.place(at), "%s: is %s, expected %s", path, describe(n), expected(t))
		return reflect.Value{}
	}
}

func (r *yamlReader) list(n *yaml.Node, t reflect.Type, path string) reflect.Value {
	list := reflect.MakeSlice(t, 0, len(n.Content))
	before := len(r.faults)
	for i, child := range n.Content {
		if r.full() {
			break
		}
		at := fmt.Sprintf("%s[%d]", path, i)
		if isNull(child) {
			r.faults.add(r.place(child), "%s: is empty, expected %s", at, expected(t.Elem()))
		} else if v := r.value(child, t.Elem(), at); v.IsValid() {
			list = reflect.Append(list, v)
		}
	}
	return validIf(len(r.faults) == before, list)
}

func (r *yamlReader) mapping(n *yaml.Node, t reflect.Type, path string) reflect.Value {
	m := reflect.MakeMapWithSize(t, len(n.Content)/2)
	before := len(r.faults)
	for i := 0; i+1 < len(n.Content) && !r.full(); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		at := path + "[" + quote(name.Value) + "]"
		k := reflect.ValueOf(name.Value).Convert(t.Key())
		switch {
		case name.Kind != yaml.ScalarNode:
			r.faults.add(r.place(name), "%s: %s stands where a name is expected", path, describe(name))
		case m.MapIndex(k).IsValid():
			r.faults.add(r.place(name), "%s: is given twice; keep one of them", at)
		default:
			if v := r.value(value, t.Elem(), at); v.IsValid() {
				m.SetMapIndex(k, v)
			}
		}
	}
	return validIf(len(r.faults) == before, m)
}

// item is a struct in a list.
func (r *yamlReader) item(n *yaml.Node, t reflect.Type, path string) reflect.Value {
	item := reflect.New(t).Elem()
	before := len(r.faults)
	r.pairs(n, t, path, func(f field, value *yaml.Node) {
		if v := r.value(value, f.typ, join(path, f.name)); v.IsValid() {
			item.FieldByIndex(f.index).Set(v)
		}
	})
	return validIf(len(r.faults) == before, item)
}

func validIf(ok bool, v reflect.Value) reflect.Value {
	if !ok {
		return reflect.Value{}
	}
	return v
}

// addText reports the parts of a text that could not be read.
func (f *Faults) addText(place, path string, err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range many.Unwrap() {
			f.addText(place, path, one)
		}
		return
	}
	var wrong *textError
	if errors.As(err, &wrong) && !isSecret(path) {
		f.add(place, "%s: %s %s", path, quote(maskAddresses(wrong.part)), wrong.wrong)
		return
	}
	f.add(place, "%s: the value %s", path, err)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe tells what a node is, without telling what it says: that may be a secret.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	default:
		return "a single value"
	}
}

func orFile(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func countAliases(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		return 1
	}
	count := 0
	for _, child := range n.Content {
		count += countAliases(child)
	}
	return count
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// broken reports what is no YAML.
func (r *yamlReader) broken(text []byte, err error) {
	wrong := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if at := yamlLine.FindStringSubmatch(wrong); at != nil {
		line, _ = strconv.Atoi(at[1])
		wrong = wrong[len(at[0]):]
	}
	if strings.HasPrefix(wrong, "unknown anchor") { // it repeats what may be a password that begins with *
		wrong = "a value that begins with * is an alias of one that is not there; put it in quotes if it is none"
	}
	if strings.Contains(wrong, "cannot start any token") {
		wrong += "; put values that begin with @, %, ` or a tab in quotes"
	}
	r.faults.add(fmt.Sprintf("%s:%d", r.name, brokenLine(text, line)), "is no YAML: %s", wrong)
}

// brokenLine finds the line after which nothing helps. The parser's own word is the start of the block, or one too low,
// or missing: so the longest beginning of the text is looked for, near there, that can be read.
func brokenLine(text []byte, told int) int {
	if len(text) > 64<<10 { // not worth reading again and again
		return told
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	best, size, budget := -1, 0, 1<<20
	for n := range lines {
		if n >= told-2 {
			var doc yaml.Node
			if yaml.Unmarshal(text[:size], &doc) == nil {
				best = n
			}
			if budget -= size + 4096; budget < 0 {
				break
			}
		}
		size += len(lines[n])
	}
	if best < 0 {
		return told
	}
	return best + 1
}
