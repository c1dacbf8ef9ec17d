package rabbitmq

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/events"
)

func decodeDelivery(t testing.TB, d amqp.Delivery) (*events.Event, bool, error) {
	t.Helper()
	mapping, err := Mapping{}.withDefaults("orders").compile()
	if err != nil {
		t.Fatal(err)
	}
	return mapping.decode(&message{Delivery: d}, "orders")
}

func TestDecode(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	for name, row := range map[string]struct {
		d    amqp.Delivery
		want events.Event
	}{
		"binary": {
			amqp.Delivery{ContentType: "application/json", Body: []byte(`{"a":1}`), Headers: amqp.Table{
				"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents:source": "/s", "cloudEvents:type": "t", "cloudEvents:time": at,
				"cloudEvents:count": int64(7), "cloudEvents:big": int64(1) << 40, "cloudEvents:yes": true, "cloudEvents:word": "w", "other": "x",
			}},
			events.Event{
				SpecVersion: "1.0", ID: "1", Source: "/s", Type: "t", Time: at, DataContentType: "application/json", Data: []byte(`{"a":1}`),
				Extensions: map[string]any{"count": int32(7), "big": "1099511627776", "yes": true, "word": "w"},
			},
		},
		"binary, with a score": {
			amqp.Delivery{Body: []byte{0xff}, Headers: amqp.Table{
				"cloudEvents_specversion": "1.0", "cloudEvents_id": "1", "cloudEvents_source": "/s", "cloudEvents_type": "t",
			}},
			events.Event{SpecVersion: "1.0", ID: "1", Source: "/s", Type: "t", DataContentType: "application/octet-stream", Data: []byte{0xff}},
		},
		"structured": {
			amqp.Delivery{
				ContentType: "application/cloudevents+json; charset=UTF-8",
				Body:        []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1]}`),
			},
			events.Event{SpecVersion: "1.0", ID: "1", Source: "/s", Type: "t", Data: []byte(`[1]`)},
		},
		"plain": {
			amqp.Delivery{MessageId: "m", Type: "t", RoutingKey: "k", Timestamp: at, Body: []byte(`{"a":1}`)},
			events.Event{
				SpecVersion: "1.0", ID: "m", Source: "/rabbitmq/orders", Type: "t", Subject: "k", Time: at, DataContentType: "application/json", Data: []byte(`{"a":1}`),
			},
		},
		"plain text, with no type": {
			amqp.Delivery{MessageId: "m", ContentType: "text", Body: []byte("hi")},
			events.Event{SpecVersion: "1.0", ID: "m", Source: "/rabbitmq/orders", Type: DefaultType, DataContentType: "text/plain; charset=utf-8", Data: []byte("hi")},
		},
	} {
		got, _, err := decodeDelivery(t, row.d)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(&row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestUndecodableMessagesSayWhy(t *testing.T) {
	t.Parallel()
	attributes := amqp.Table{"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents:source": "/s", "cloudEvents:type": "t"}
	with := func(name string, value any) amqp.Table {
		table := amqp.Table{name: value}
		for k, v := range attributes {
			if k != name {
				table[k] = v
			}
		}
		return table
	}
	for want, d := range map[string]amqp.Delivery{
		"is not a JSON object":        {ContentType: "application/cloudevents+json", Body: []byte("x")},
		"batch":                       {ContentType: "application/cloudevents-batch+json", Body: []byte("[]")},
		"application/cloudevents+xml": {ContentType: "application/cloudevents+xml"},
		"latin1":                      {ContentType: "application/cloudevents+json; charset=latin1", Body: []byte("{}")},
		"specversion: is missing":     {Headers: amqp.Table{"cloudEvents:id": "1"}},
		"replaytrigger: this ext":     {Headers: with("cloudEvents:replaytrigger", "t")},
		"id: is there twice":          {Headers: with("cloudEvents_id", "2")},
		"time: \"noon\" is not":       {Headers: with("cloudEvents:time", "noon")},
		"the property content_type":   {Headers: with("cloudEvents:datacontenttype", "a/b")},
		"list: a header of type":      {Headers: with("cloudEvents:list", []any{1})},
		"gzip":                        {ContentEncoding: "gzip"},
		"data: is not JSON":           {ContentType: "application/json", Body: []byte("{")},
		"specversion: is \"0.3\"":     {Headers: with("cloudEvents:specversion", "0.3")},
		"subject: ":                   {RoutingKey: "a\x00b"},
	} {
		e, _, err := decodeDelivery(t, d)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v, %v", want, e, err)
		}
	}
}

func TestDigestIsOfTheMessageAlone(t *testing.T) {
	t.Parallel()
	base := amqp.Delivery{Exchange: "e", RoutingKey: "k", Body: []byte("b"), Headers: amqp.Table{"h": amqp.Table{"x": int32(1), "y": "2"}}}
	id := func(change func(*amqp.Delivery)) string {
		d := base
		d.Headers = amqp.Table{"h": amqp.Table{"y": "2", "x": int32(1)}}
		change(&d)
		e, derived, err := decodeDelivery(t, d)
		if err != nil || !derived {
			t.Fatal(derived, err)
		}
		return e.ID
	}
	same := id(func(*amqp.Delivery) {})
	for name, change := range map[string]func(*amqp.Delivery){
		"redelivered": func(d *amqp.Delivery) { d.Redelivered, d.DeliveryTag = true, 9 },
		"counted":     func(d *amqp.Delivery) { d.Headers["x-delivery-count"] = int64(3) },
		"dead before": func(d *amqp.Delivery) { d.Headers["x-death"], d.Headers["x-first-death-queue"] = []any{}, "q" },
		"set aside":   func(d *amqp.Delivery) { d.Headers["x-bellhop-reason"] = "r" },
		"expiring":    func(d *amqp.Delivery) { d.Expiration = "1" },
	} {
		if got := id(change); got != same {
			t.Errorf("%s: it is another message", name)
		}
	}
	for name, change := range map[string]func(*amqp.Delivery){
		"body":      func(d *amqp.Delivery) { d.Body = []byte("c") },
		"key":       func(d *amqp.Delivery) { d.RoutingKey = "l" },
		"header":    func(d *amqp.Delivery) { d.Headers["h"] = "x" },
		"boundary":  func(d *amqp.Delivery) { d.Exchange, d.RoutingKey = "ek", "" },
		"timestamp": func(d *amqp.Delivery) { d.Timestamp = time.Unix(5, 0) },
	} {
		if got := id(change); got == same {
			t.Errorf("%s: it is the same message", name)
		}
	}
}

// An event that the CloudEvents SDK makes of the same attributes is the same.
func FuzzBinaryModeAsTheSDK(f *testing.F) {
	f.Add("1", "/s", "t", "sub", "ext", "value", "application/json", []byte(`{"a":1}`))
	f.Add("2", "urn:x", "com.acme", "", "a1", "0", "text/plain", []byte("x"))
	f.Add("3", "/s", "t", "", "yes", "true", "application/octet-stream", []byte{0xff, 0})
	f.Fuzz(func(t *testing.T, id, source, typ, subject, extName, ext, contentType string, body []byte) {
		headers := amqp.Table{"cloudEvents:specversion": "1.0", "cloudEvents:id": id, "cloudEvents_source": source, "cloudEvents:type": typ}
		theirs := ce.New()
		theirs.SetID(id)
		theirs.SetSource(source)
		theirs.SetType(typ)
		if subject != "" {
			headers["cloudEvents:subject"] = subject
			theirs.SetSubject(subject)
		}
		if ext != "" {
			headers["cloudEvents:"+extName] = ext
			theirs.SetExtension(extName, ext)
		}
		ours, _, err := decodeDelivery(t, amqp.Delivery{ContentType: contentType, Headers: headers, Body: body})
		if err != nil || len(body) == 0 || ext != "" && ours.Extensions[extName] == nil {
			return
		}
		if theirs.SetData(contentType, body) != nil || theirs.Validate() != nil {
			return // it is stricter
		}
		text, err := theirs.MarshalJSON()
		if err != nil {
			return
		}
		want, err := events.Decode(text)
		if err != nil {
			return
		}
		got, err := events.Decode(ours.AppendJSON(nil))
		if err != nil {
			t.Fatalf("an event that doesn't read itself: %v", err)
		}
		for _, e := range []*events.Event{want, got} {
			if e.IsJSON() { // the SDK orders and spaces it otherwise
				var v any
				if err := json.Unmarshal(e.Data, &v); err != nil {
					t.Fatal(err)
				}
				e.Data, _ = json.Marshal(v)
				e.DataContentType = ""
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the SDK's and ours:\n%s", diff)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("application/cloudevents+json", "", "k", "h", "v", int64(1), []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t"}`))
	f.Add("application/json", "", "k", "cloudEvents:id", "1", int64(-1), []byte(`{}`))
	f.Add("", "gzip", "", "cloudEvents_time", "2026-01-01T00:00:00Z", int64(1)<<60, []byte{0xff})
	f.Fuzz(func(t *testing.T, contentType, encoding, key, header, value string, stamp int64, body []byte) {
		d := amqp.Delivery{
			ContentType: contentType, ContentEncoding: encoding, RoutingKey: key, Body: body, Timestamp: time.Unix(stamp, 0),
			Headers: amqp.Table{
				"cloudEvents:specversion": "1.0", "cloudEvents:source": value, "cloudEvents:type": "t", header: value,
				"cloudEvents:at": time.Unix(stamp, 0), "cloudEvents:n": stamp,
			},
		}
		for _, d := range []amqp.Delivery{d, {ContentType: contentType, RoutingKey: key, Body: body, Timestamp: d.Timestamp, Headers: amqp.Table{header: value}}} {
			e, _, err := decodeDelivery(t, d)
			if err != nil {
				continue // said why
			}
			if err := e.Validate(); err != nil {
				t.Fatalf("an invalid event: %v", err)
			}
			text := e.AppendJSON(nil)
			if !json.Valid(text) {
				t.Fatalf("no JSON: %s", text)
			}
			back, err := events.Decode(text)
			if err != nil {
				t.Fatalf("it doesn't read itself: %v", err)
			}
			if back.ID != e.ID || back.Type != e.Type || back.Source != e.Source {
				t.Errorf("%v became %v", e, back)
			}
			again, _, err := decodeDelivery(t, d)
			if err != nil || again.ID != e.ID {
				t.Errorf("the id is %q and then %q (%v)", e.ID, again.ID, err)
			}
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"", "a${routing_key|header.x}b", "${", "${}", "${content}", "$${type}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tpl, err := parseTemplate(s, contentName)
		if err != nil {
			return
		}
		_, _ = tpl.fill(&message{Delivery: amqp.Delivery{RoutingKey: "k"}}, "q")
	})
}

func TestWhatEndsASessionIsTold(t *testing.T) {
	t.Parallel()
	for about, err := range map[string]error{
		"declare queue q": topologyFault("declare queue q", &amqp.Error{Code: amqp.PreconditionFailed, Reason: "x"}),
		"log in":          dialFault(&amqp.Error{Code: amqp.AccessRefused}),
		theConnection:     topologyFault("declare queue q", errors.New("gone")),
	} {
		if got := reasonOf(err); got != about {
			t.Errorf("%v is about %q, want %q", err, got, about)
		}
	}
}
