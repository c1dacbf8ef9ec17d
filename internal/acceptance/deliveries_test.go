package acceptance_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/uuid"
)

// deliveriesThere are in the file.
const deliveriesThere = 329

// delivery is one of GitHub's, as the event that it becomes.
type delivery struct {
	ID     string
	Type   string
	Source string
	Raw    json.RawMessage
	Data   map[string]any // Raw decoded, numbers as they are written
}

func readDeliveries(t testing.TB) []delivery {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, ".cache", "github-deliveries.ndjson")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run make test, which installs it", err)
	}
	var all []delivery
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		d, err := readDelivery(len(all)+1, lines.Bytes())
		if err != nil {
			t.Fatalf("%s:%d: %v", file, len(all)+1, err)
		}
		all = append(all, d)
	}
	if lines.Err() != nil || len(all) != deliveriesThere {
		t.Fatalf("%s has %d deliveries, want %d (%v): remove it and run make test, which installs it", file, len(all), deliveriesThere, lines.Err())
	}
	return all
}

// readDelivery gives each line an id of its own: five are equal to others to the letter, and would be one event by their text alone.
func readDelivery(number int, line []byte) (delivery, error) {
	var l struct {
		Event   string          `json:"event"`
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return delivery{}, err
	}
	d := delivery{
		ID:   uuid.NewSHA1(uuid.NameSpaceURL, append(strconv.AppendInt(nil, int64(number), 10), line...)).String(),
		Type: "com.github." + l.Event, Source: "/github/-", Raw: bytes.Clone(l.Payload),
	}
	data, err := decode(l.Payload)
	if err != nil {
		return d, err
	}
	d.Data, _ = data.(map[string]any)
	if action, ok := d.Data["action"].(string); ok {
		d.Type += "." + action
	}
	if name, ok := d.at("repository", "full_name").(string); ok {
		d.Source = "/github/" + name
	}
	return d, nil
}

// at is the value at the path, nil if there is none.
func (d delivery) at(path ...string) any {
	var v any = d.Data
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

func (d delivery) has(name string) bool { _, ok := d.Data[name]; return ok }

func (d delivery) text(path ...string) string { s, _ := d.at(path...).(string); return s }

// number is the whole number at the path, 0 if there is none.
func (d delivery) number(path ...string) int64 {
	n, _ := d.at(path...).(json.Number)
	i, _ := n.Int64()
	return i
}

// record is the delivery as a line for enqueue --from.
func (d delivery) record() []byte {
	b, err := json.Marshal(map[string]any{"event": d.Type, "id": d.ID, "source": d.Source, "data": d.Raw})
	if err != nil {
		panic(fmt.Sprintf("delivery %s: %v", d.ID, err))
	}
	return append(b, '\n')
}

func decode(b []byte) (any, error) {
	var v any
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	err := decoder.Decode(&v)
	return v, err
}
