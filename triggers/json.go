package triggers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// MaxTriggerBytes is the longest JSON form of one trigger.
const MaxTriggerBytes = 64 << 10

// ParseJSON reads one trigger as JSON: an object with the keys that a trigger has in a file, under the same checks. Durations
// are texts such as "10m". The error joins a [Fault] for everything that is wrong.
func ParseJSON(data []byte) (Trigger, error) {
	if len(data) > MaxTriggerBytes {
		return Trigger{}, &Fault{Problem: fmt.Sprintf("has %d bytes, at most %d are allowed: pass a reference instead of the content", len(data), MaxTriggerBytes)}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	root, err := jsonNode(d, 0)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more follows after the first value")
		}
	}
	switch {
	case err != nil:
		return Trigger{}, &Fault{Problem: "not JSON: " + strings.TrimPrefix(truncate(err.Error()), "not JSON: ")}
	case root.Kind != yaml.MappingNode:
		return Trigger{}, &Fault{Problem: `must be a JSON object such as {"name": "...", "on": "...", "run": "..."}`}
	}
	p := &fileParser{budget: budget{nodes: maxYAMLNodes, bytes: maxYAMLBytes}}
	p.trigger(root)
	t := p.triggers[0]
	t.origin = origin{}
	p.faults = p.faults[:min(len(p.faults), maxMappingFaults)]
	for _, fault := range p.faults {
		fault.(*Fault).Line = 0 //nolint:errorlint // the parser makes no others
	}
	return t, errors.Join(p.faults...)
}

// UnmarshalJSON is [ParseJSON] for encoding/json.
func (t *Trigger) UnmarshalJSON(data []byte) error {
	parsed, err := ParseJSON(data)
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// jsonNode reads a value as the node that it would be in YAML, so that both have one reader.
func jsonNode(d *json.Decoder, depth int) (*yaml.Node, error) {
	if depth > maxYAMLDepth+2 {
		return nil, fmt.Errorf("nested deeper than %d levels", maxYAMLDepth)
	}
	token, err := d.Token()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty or ends too soon")
	}
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Delim:
		return jsonNodes(d, v, depth)
	case string:
		return textNodeOf(v), nil
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(string(v), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: string(v)}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, nil
}

// textNodeOf is quoted, so that "<<" merges nothing and "null" is a text.
func textNodeOf(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}
}

func jsonNodes(d *json.Decoder, open json.Delim, depth int) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if open == '{' {
		n.Kind = yaml.MappingNode
	}
	for d.More() {
		if n.Kind == yaml.MappingNode {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			text, _ := key.(string) // the decoder takes no other key
			n.Content = append(n.Content, textNodeOf(text))
		}
		value, err := jsonNode(d, depth+1)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, value)
	}
	_, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = errors.New("it ends too soon")
	}
	return n, err
}

// MarshalJSON writes the trigger as [ParseJSON] reads it.
func (t Trigger) MarshalJSON() ([]byte, error) {
	form := jsonForm{
		Name: t.Name, On: t.On, When: t.When, Run: t.Run, Queue: t.Queue,
		In: durationText(t.In), MaxRetry: t.MaxRetry, Timeout: durationText(t.Timeout),
		Retention: durationText(t.Retention), Unique: durationText(t.Unique), Disabled: t.Disabled,
	}
	if t.With != nil {
		var with bytes.Buffer
		if err := encodePlain(&with, t.With); err != nil {
			return nil, fmt.Errorf("trigger %q: with: %w", t.Name, err)
		}
		form.With = bytes.TrimSpace(with.Bytes())
	}
	var b bytes.Buffer
	if err := encodePlain(&b, form); err != nil {
		return nil, fmt.Errorf("trigger %q: %w", t.Name, err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

type jsonForm struct {
	Name      string          `json:"name"`
	On        string          `json:"on"`
	When      string          `json:"when,omitempty"`
	Run       string          `json:"run"`
	With      json.RawMessage `json:"with,omitempty"`
	Queue     string          `json:"queue,omitempty"`
	In        string          `json:"in,omitempty"`
	MaxRetry  *int            `json:"max_retry,omitempty"`
	Timeout   string          `json:"timeout,omitempty"`
	Retention string          `json:"retention,omitempty"`
	Unique    string          `json:"unique,omitempty"`
	Disabled  bool            `json:"disabled,omitempty"`
}

// durationText is 10m where Go says 10m0s; "" for 0.
func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
