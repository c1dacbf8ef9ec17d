package triggers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// MaxFileBytes is the largest file of triggers.
const MaxFileBytes = 1 << 20

// The bounds on a file before it is parsed: each line, item and key takes some 200 bytes of memory.
const (
	maxFileMarks = 150_000
	maxFileDepth = 1000
)

// Load reads triggers from YAML files. The error joins a [Fault] for everything that is wrong with how any of them is written, and
// for each name that is used twice; of a file that is no YAML, only where it stops being that. What else can be wrong, [Compile]
// tells; [NewRules] tells both together.
func Load(files ...string) ([]Trigger, error) {
	all, err := parseFiles(readFiles(files))
	if err := errors.Join(err, checkUnique(all)); err != nil {
		return nil, err
	}
	return all, nil
}

// fileText is what a file held when it was read.
type fileText struct {
	name string
	data []byte
	err  error
}

func readFiles(names []string) []fileText {
	files := make([]fileText, len(names))
	for i, name := range names {
		files[i].name = name
		files[i].data, files[i].err = readFile(name)
	}
	return files
}

// parseFiles returns the triggers that it could read, also when there are faults with others.
func parseFiles(files []fileText) ([]Trigger, error) {
	var all []Trigger
	var faults []error
	for _, file := range files {
		if file.err != nil {
			faults = append(faults, file.err)
			continue
		}
		triggers, err := Parse(file.name, file.data)
		if err != nil {
			faults = append(faults, err)
		}
		all = append(all, triggers...)
	}
	return all, errors.Join(faults...)
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read triggers: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read triggers: %w", err)
	}
	return data, nil
}

// Parse reads triggers from YAML; name stands for the file in errors. It returns the triggers that it could read, also when
// there are faults: the error joins a [Fault] for each. [Compile] then tells what else is wrong with them, and nothing again.
func Parse(name string, data []byte) ([]Trigger, error) {
	root, err := parseDocument(name, data)
	if err != nil {
		return nil, err
	}
	p := &fileParser{file: name, budget: budget{nodes: maxYAMLNodes, bytes: maxYAMLBytes}}
	p.document(root)
	return p.triggers, errors.Join(p.faults...)
}

func parseDocument(name string, data []byte) (*yaml.Node, error) {
	fault := func(line int, format string, args ...any) error {
		return &Fault{File: name, Line: line, Problem: fmt.Sprintf(format, args...)}
	}
	if len(data) > MaxFileBytes {
		return nil, fault(0, "is larger than %d MiB: split it into more files", MaxFileBytes>>20)
	}
	if problem := tooMuch(data); problem != "" {
		return nil, fault(0, "%s", problem)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, fault(0, "is empty: write \"triggers: []\" if no trigger is meant")
	case err != nil:
		return nil, syntaxFault(name, data, err)
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, syntaxFault(name, data, err)
	default:
		return nil, fault(second.Line, "has a second document (---): put all triggers under one \"triggers:\"")
	}
	if len(document.Content) != 1 {
		return nil, fault(0, "is empty: write \"triggers: []\" if no trigger is meant")
	}
	return document.Content[0], nil
}

// tooMuch bounds what the parser will have to do, which grows with the square of the depth.
func tooMuch(data []byte) string {
	marks, depth, deepest := 0, 0, 0
	for _, b := range data {
		switch b {
		case '[', '{':
			marks++
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth = max(depth-1, 0)
		case ',', '\n', ':', '-', '?':
			marks++
		}
	}
	switch {
	case marks > maxFileMarks:
		return fmt.Sprintf("has more than %d lines, items and keys: split it into more files", maxFileMarks)
	case deepest > maxFileDepth:
		return fmt.Sprintf("opens more than %d brackets without closing them: is one missing?", maxFileDepth)
	}
	return ""
}

var yamlErrorLine = regexp.MustCompile(`line (\d+): `)

const (
	quoteHint  = "quote values that have \": \", \" #\", \"${\" or begin with a sign, or write them as a block (when: >- and the text below)"
	indentHint = "indent the line like its neighbours, with spaces; after a quoted value, nothing more may follow"
)

func syntaxFault(name string, data []byte, err error) error {
	text, line := syntaxError(err)
	hint := quoteHint
	switch {
	case strings.HasPrefix(text, "did not find expected key"), strings.HasPrefix(text, "did not find expected '-'"), strings.HasPrefix(text, "found a tab"):
		hint = indentHint
		line = lineOf(data, text, line)
	case strings.HasPrefix(text, "mapping values are not allowed"):
		hint += "; or is the line indented too far?"
	}
	return &Fault{File: name, Line: line, Problem: truncate(text) + ": " + hint}
}

func syntaxError(err error) (text string, line int) {
	text = strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlErrorLine.FindStringSubmatchIndex(text); m != nil {
		line, _ = strconv.Atoi(text[m[2]:m[3]])
		text = text[:m[0]] + text[m[1]:]
	}
	return text, line
}

// maxSearched bounds the files that lineOf reads some ten times.
const maxSearched = 64 << 10

// lineOf finds the line at which the parser gives up with this error. It names the one where the list or mapping began, which may be the
// file's first.
func lineOf(data []byte, text string, otherwise int) int {
	if len(data) > maxSearched {
		return otherwise
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	ends := make([]int, len(lines))
	size := 0
	for i, l := range lines {
		size += len(l)
		ends[i] = size
	}
	first := sort.Search(len(ends), func(i int) bool {
		var document yaml.Node
		err := yaml.NewDecoder(bytes.NewReader(data[:ends[i]])).Decode(&document)
		if err == nil || errors.Is(err, io.EOF) {
			return false
		}
		found, _ := syntaxError(err)
		return found == text
	})
	if first == len(ends) {
		return otherwise
	}
	return first + 1
}

type fileParser struct {
	file     string
	budget   budget
	triggers []Trigger
	faults   []error
}

func (p *fileParser) fault(line int, trigger, path, format string, args ...any) {
	p.faults = append(p.faults, &Fault{File: p.file, Line: line, Trigger: trigger, Path: path, Problem: fmt.Sprintf(format, args...)})
}

const topKey = "triggers"

func (p *fileParser) document(root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		p.fault(root.Line, "", "", "must begin with the key \"triggers:\" and a list below it")
		return
	}
	r := &valueReader{budget: &p.budget, lines: map[string]int{}}
	var list *yaml.Node
	r.entries(root, "", 0, func(key, value *yaml.Node) {
		switch {
		case key.Value == topKey:
			list = value
		case strings.HasPrefix(key.Value, "x-"): // a place for anchors, as in compose files
		default:
			p.fault(key.Line, "", "", "unknown key %q%s (a file has %q, and keys that begin with x-)",
				truncate(key.Value), suggest.DidYouMean(truncate(key.Value), []string{topKey}), topKey)
		}
	})
	p.take(r, "")
	switch {
	case list == nil && len(p.faults) == 0:
		p.fault(root.Line, "", "", "has no key \"triggers:\"")
	case list == nil:
	case list.Kind == yaml.ScalarNode && list.ShortTag() == "!!null":
	case list.Kind != yaml.SequenceNode:
		p.fault(list.Line, "", "", "\"triggers:\" must be a list: begin each trigger with \"- name:\"")
	default:
		for _, n := range list.Content {
			p.trigger(n)
		}
	}
}

// take moves the reader's faults to the file's.
func (p *fileParser) take(r *valueReader, trigger string) {
	for _, f := range r.faults {
		p.fault(f.line, trigger, f.path, "%s", f.problem)
	}
	r.faults = nil
}

func (p *fileParser) trigger(n *yaml.Node) {
	line := n.Line
	unfolded := 0
	if n.Kind == yaml.AliasNode {
		n, unfolded = n.Alias, 1
	}
	if n.Kind != yaml.MappingNode {
		p.fault(line, "", "", "a trigger must be a mapping: begin it with \"- name:\"")
		return
	}
	t := Trigger{origin: origin{file: p.file, lines: map[string]int{"": line}}}
	r := &valueReader{budget: &p.budget, unfolded: unfolded, lines: t.origin.lines}
	var unknown []*yaml.Node
	r.entries(n, "", 0, func(key, value *yaml.Node) {
		set, known := triggerKeys[key.Value]
		if !known {
			unknown = append(unknown, key)
			return
		}
		if value.Kind == yaml.AliasNode {
			value = value.Alias
			r.unfolded++
			defer func() { r.unfolded-- }()
		}
		r.lines[key.Value] = firstLine(value)
		if err := set(&t, value, r); err != nil {
			r.fault(value, key.Value, "%v", err)
			r.leaveOut(key.Value, true)
		}
	})
	for _, key := range unknown {
		name := truncate(key.Value)
		if meant := suggest.Nearest(name, triggerKeyNames); meant != "" && r.lines[meant] == 0 {
			r.leaveOut(meant, true) // that it is missing would be told a second time
		}
		p.faults = append(p.faults, &Fault{
			File: p.file, Line: key.Line, Trigger: t.Name, key: name,
			Problem: fmt.Sprintf("unknown key %q%s (a trigger has %s)", name, suggest.DidYouMean(name, triggerKeyNames), strings.Join(triggerKeyNames, ", ")),
		})
	}
	p.take(r, t.Name)
	if p.budget.spent {
		r.leaveOut("", true)
	}
	t.origin.unread = r.unread
	p.triggers = append(p.triggers, t)
}

var triggerKeyNames = []string{
	"name", "on", "when", "run", "with", "queue", "in", "max_retry", "timeout", "retention", "unique", "disabled",
}

// triggerKeys sets a trigger's field from YAML, by key.
var triggerKeys = map[string]func(t *Trigger, n *yaml.Node, r *valueReader) error{
	"name":  func(t *Trigger, n *yaml.Node, _ *valueReader) error { return setText(&t.Name, n) },
	"on":    func(t *Trigger, n *yaml.Node, _ *valueReader) error { return setText(&t.On, n) },
	"when":  setWhen,
	"run":   func(t *Trigger, n *yaml.Node, _ *valueReader) error { return setText(&t.Run, n) },
	"with":  setWith,
	"queue": func(t *Trigger, n *yaml.Node, _ *valueReader) error { return setText(&t.Queue, n) },
	"in":    func(t *Trigger, n *yaml.Node, _ *valueReader) error { return setDuration(&t.In, n) },
	"timeout": func(t *Trigger, n *yaml.Node, _ *valueReader) error {
		return setPositive(&t.Timeout, n, "leave it out for the task's own")
	},
	"retention": func(t *Trigger, n *yaml.Node, _ *valueReader) error {
		return setPositive(&t.Retention, n, "leave it out for the task's own")
	},
	"unique": func(t *Trigger, n *yaml.Node, _ *valueReader) error {
		return setPositive(&t.Unique, n, "leave it out for the task's own")
	},
	"max_retry": setMaxRetry,
	"disabled":  setDisabled,
}

func setText(to *string, n *yaml.Node) error {
	if err := customTag(n); err != nil {
		return err
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return errors.New("must be text")
	}
	*to = n.Value
	return nil
}

func setWhen(t *Trigger, n *yaml.Node, _ *valueReader) error {
	if err := setText(&t.When, n); err != nil {
		return err
	}
	if strings.TrimSpace(t.When) == "" {
		return errors.New("is empty: write a filter, or leave the key out to let every event pass")
	}
	return nil
}

func setWith(t *Trigger, n *yaml.Node, r *valueReader) error {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return errors.New("is empty: write the payload, {} for one without fields, or leave the key out to pass the event's data")
	}
	t.With = r.read(n, "with", 0)
	return nil
}

func setDuration(to *time.Duration, n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("%q is no duration: write one like 30s, 10m or 1h30m", truncate(n.Value))
	}
	*to = d
	return nil
}

func setPositive(to *time.Duration, n *yaml.Node, otherwise string) error {
	if err := setDuration(to, n); err != nil {
		return err
	}
	if *to == 0 {
		return fmt.Errorf("is 0: %s", otherwise)
	}
	return nil
}

func setMaxRetry(t *Trigger, n *yaml.Node, _ *valueReader) error {
	count, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("%q is no whole number", truncate(n.Value))
	}
	t.MaxRetry = &count
	return nil
}

func setDisabled(t *Trigger, n *yaml.Node, _ *valueReader) error {
	switch {
	case n.Kind == yaml.ScalarNode && n.Value == "true":
		t.Disabled = true
	case n.Kind == yaml.ScalarNode && n.Value == "false":
		t.Disabled = false
	default:
		return fmt.Errorf("%q is neither true nor false", truncate(n.Value))
	}
	return nil
}

// maxShown bounds what errors show of a value: it may be long, or a secret.
const maxShown = 200

func truncate(s string) string { return cut(s, maxShown) }

func cut(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
