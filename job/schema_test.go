package job_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/job"
)

type order struct {
	ID     string             `json:"id"`
	Rush   *string            `json:"rush,omitempty" enum:"air,sea"`
	Notify string             `json:"notify,omitempty" pattern:"^https?://"`
	Lines  []orderLine        `json:"lines,omitempty"`
	Prices map[string]float64 `json:"prices,omitempty"`
	Count  uint8              `json:"count,omitempty"`
	Paid   bool               `json:"paid,omitempty"`
	place
}

type place struct {
	Country string `json:"country,omitempty" enum:"de"`
}

type orderLine struct {
	SKU  string `json:"sku"`
	Size string `json:"size,omitempty" enum:"s,m,l"`
}

// Each fault is told by its field, whether the definition was compiled in or learned from the registry.
func TestFaultsOfAPayloadNameItsFields(t *testing.T) {
	t.Parallel()
	declared := job.Define[order]("order:pack").Definition()
	data, err := json.Marshal(declared)
	if err != nil {
		t.Fatal(err)
	}
	var learned job.Definition
	if err := json.Unmarshal(data, &learned); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ä", 100)
	for payload, want := range map[string]string{
		`{"id":"1","rush":"air","notify":"https://x","lines":[{"sku":"a","size":"m"}],"prices":{"a":1,"b":1.5},"count":255,"country":"de"}`: "",
		`{"id":"1","rush":null,"lines":null}`:                     "",
		`{"id":3}`:                                                `field "id" is a number, want a string`,
		`{"id":null,"paid":"yes","count":1.5}`:                    `field "count" is a number with a fraction, want a whole number; field "id" is null, want a string; field "paid" is a string, want a boolean`,
		`{"id":"1","count":256}`:                                  `field "count" is 256, want at most 255`,
		`{"id":"1","count":-1}`:                                   `field "count" is -1, want at least 0`,
		`{"id":"1","rush":"rail"}`:                                `field "rush" is "rail", want "air", "sea" or null`,
		`{"id":"1","rush":1}`:                                     `field "rush" is a number, want a string or null`,
		`{"id":"1","country":"fr"}`:                               `field "country" is "fr", want "de"`,
		`{"id":"1","notify":"SECRET"}`:                            `field "notify" does not match ^https?://`,
		`{"id":"1","lines":{"sku":"a"}}`:                          `field "lines" is an object, want an array or null`,
		`{"id":"1","lines":[{"sku":"a"},2]}`:                      `field "lines[1]" is a number, want an object`,
		`{"id":"1","lines":[{"size":"xl"}]}`:                      `field "lines[0].sku" is missing; field "lines[0].size" is "xl", want "s", "m" or "l"`,
		`{"id":"1","lines":[{"sku":"","x":1}]}`:                   `no field "lines[0].x" (it has sku, size)`,
		`{"id":"1","prices":{"a":"b"}}`:                           `field "prices.a" is a string, want a number`,
		`{"idd":1,"rush":"` + long + `"}`:                         `no field "idd" (it has id, count, country, lines, notify, paid, prices, rush); field "id" is missing; field "rush" is "` + long[:40] + `...", want "air", "sea" or null`,
		`[]`:                                                      `it is an array, want an object`,
		`{"id":"1","lines":[` + strings.Repeat(`1,`, 100) + `1]}`: `field "lines[9]" is a number, want an object; and more`,
	} {
		for from, d := range map[string]job.Definition{"declared": declared, "learned": learned} {
			switch err := d.Schema.Check([]byte(payload)); {
			case want == "" && err != nil:
				t.Errorf("%s, %.60s: %v", from, payload, err)
			case want != "" && (err == nil || !strings.HasSuffix(err.Error(), want) || len(err.Error()) > 1000):
				t.Errorf("%s, %.60s:\n got %v\nwant %s", from, payload, err, want)
			}
		}
	}
	list := job.Define[[]orderLine]("order:lines").Definition()
	if err := list.Schema.Check([]byte(`[{"sku":"a"},3]`)); err == nil || err.Error() != "item [1] is a number, want an object" {
		t.Errorf("a list gave %v", err)
	}
}

func TestDefineRefusesTagsThatCannotWork(t *testing.T) {
	t.Parallel()
	for want, define := range map[string]func(){
		"field N: the tags enum": func() {
			job.Define[struct {
				N int `enum:"1,2"`
			}]("a")
		},
		"field S: tag pattern": func() {
			job.Define[[]*struct {
				S string `pattern:"["`
			}]("a")
		},
	} {
		func() {
			defer func() {
				if told := fmt.Sprint(recover()); !strings.Contains(told, want) {
					t.Errorf("got %s, want %s", told, want)
				}
			}()
			define()
		}()
	}
}
