package triggers

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The limits on what the aliases of a file may unfold to: they can make a small file a huge one. What stands in the file
// itself is bounded by its size.
const (
	maxYAMLNodes = 10_000
	maxYAMLBytes = 1 << 20
	maxYAMLDepth = 64
)

var errTooBig = fmt.Errorf("its aliases (*name) unfold to more than %d values or %d MiB of text: write fewer of them", maxYAMLNodes, maxYAMLBytes>>20)

// budget is what is left to unfold of one file.
type budget struct {
	nodes, bytes int
	spent        bool
}

// yamlFault is a problem with its place.
type yamlFault struct {
	line    int
	path    string
	problem string
}

// valueReader turns YAML nodes into the values that JSON has, and notes each one's line.
type valueReader struct {
	budget   *budget
	unfolded int // how many aliases around what is being read
	lines    map[string]int
	faults   []yamlFault
	unread   map[string]bool // see origin
}

func (r *valueReader) fault(n *yaml.Node, path, format string, args ...any) {
	r.faults = append(r.faults, yamlFault{n.Line, path, fmt.Sprintf(format, args...)})
}

// leaveOut notes a value that could not be read, and whether nothing in it could; else it only lacks something.
func (r *valueReader) leaveOut(path string, whole bool) {
	if r.unread == nil {
		r.unread = make(map[string]bool)
	}
	r.unread[path] = r.unread[path] || whole
}

// take reports whether there is budget left for the node; that there is none is told once.
func (r *valueReader) take(n *yaml.Node, path string) bool {
	b := r.budget
	if b.spent || r.unfolded == 0 {
		return !b.spent
	}
	b.nodes--
	b.bytes -= len(n.Value)
	if b.nodes < 0 || b.bytes < 0 {
		b.spent = true
		r.fault(n, path, "%v", errTooBig)
	}
	return !b.spent
}

func (r *valueReader) read(n *yaml.Node, path string, depth int) any {
	if !r.take(n, path) {
		return nil
	}
	if depth > maxYAMLDepth {
		r.fault(n, path, "is nested deeper than %d levels, or an alias contains itself", maxYAMLDepth)
		r.leaveOut(path, true)
		return nil
	}
	if _, noted := r.lines[path]; !noted {
		r.lines[path] = firstLine(n)
	}
	switch n.Kind {
	case yaml.AliasNode:
		r.unfolded++
		defer func() { r.unfolded-- }()
		return r.read(n.Alias, path, depth+1)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, element := range n.Content {
			list = append(list, r.read(element, item(path, i), depth+1))
		}
		return list
	case yaml.MappingNode:
		object := make(map[string]any, len(n.Content)/2)
		r.entries(n, path, depth, func(key, value *yaml.Node) {
			object[key.Value] = r.read(value, child(path, key.Value), depth+1)
		})
		return object
	case yaml.ScalarNode:
		v, err := scalar(n)
		if err != nil {
			r.fault(n, path, "%v", err)
			r.leaveOut(path, true)
		}
		return v
	}
	r.fault(n, path, "is nothing that YAML should have here")
	r.leaveOut(path, true)
	return nil
}

// firstLine is the line that a value's text begins in.
func firstLine(n *yaml.Node) int {
	if n.Style == yaml.LiteralStyle || n.Style == yaml.FoldedStyle {
		return n.Line + 1
	}
	return n.Line
}

// entries calls fn for every key of a mapping, those of merged mappings (<<) first, so that the mapping's own win.
func (r *valueReader) entries(n *yaml.Node, path string, depth int, fn func(key, value *yaml.Node)) {
	if depth > maxYAMLDepth {
		r.fault(n, path, "merges (<<) deeper than %d levels, or an alias contains itself", maxYAMLDepth)
		r.leaveOut(path, false)
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if isMerge(n.Content[i]) {
			r.merged(n.Content[i+1], path, depth+1, fn)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case isMerge(key):
		case key.Kind != yaml.ScalarNode:
			r.fault(key, path, "has a key that is no text: did you mean to quote \"${...}\"?")
			r.leaveOut(path, false)
		case seen[key.Value] > 0:
			r.fault(key, path, "has the key %q twice, the first in line %d: remove one", truncate(key.Value), seen[key.Value])
		default:
			if !r.take(key, path) {
				return
			}
			seen[key.Value] = max(key.Line, 1)
			fn(key, value)
		}
	}
}

func isMerge(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "<<" && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0
}

func (r *valueReader) merged(n *yaml.Node, path string, depth int, fn func(key, value *yaml.Node)) {
	if !r.take(n, path) {
		return
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		r.unfolded++
		defer func() { r.unfolded-- }()
	}
	switch n.Kind {
	case yaml.MappingNode:
		r.entries(n, path, depth+1, fn)
	case yaml.SequenceNode:
		for _, v := range slices.Backward(n.Content) { // the first one wins
			r.merged(v, path, depth+1, fn)
		}
	default:
		r.fault(n, path, "<< merges mappings only")
		r.leaveOut(path, false)
	}
}

// scalar reads a value as YAML's core schema does. Dates stay text, as they were written.
func scalar(n *yaml.Node) (any, error) {
	if err := customTag(n); err != nil {
		return nil, err
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!int":
		return integer(n)
	case "!!float":
		var f float64
		if err := n.Decode(&f); err != nil {
			return nil, fmt.Errorf("is no number: %s", truncate(n.Value))
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("is %s, which JSON can't say: quote it to pass it as text", n.Value)
		}
		if number := json.Number(n.Value); json.Valid([]byte(number)) {
			return number, nil // as it was written: no digit is lost
		}
		return f, nil
	}
	return n.Value, nil
}

func integer(n *yaml.Node) (any, error) {
	if json.Valid([]byte(n.Value)) {
		return json.Number(n.Value), nil
	}
	var i int64
	if err := n.Decode(&i); err == nil {
		return i, nil
	}
	var u uint64
	if err := n.Decode(&u); err == nil {
		return u, nil
	}
	return nil, fmt.Errorf("is no integer of 64 bits: %s: quote it to pass it as text", truncate(n.Value))
}

var errIsTag = errors.New("begins with !, which YAML takes for a tag: quote the whole value, or write it as a block (key: >- and the text below)")

// customTag catches what is nearly always a filter that begins with "!".
func customTag(n *yaml.Node) error {
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return errIsTag
	}
	return nil
}
