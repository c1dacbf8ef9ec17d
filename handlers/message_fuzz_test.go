package handlers

import (
	"bytes"
	"encoding/json"
	"maps"
	"mime"
	"net/mail"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// Whatever a payload holds, the message has the headers that were asked for and no others, and the envelope no other recipients.
func FuzzEmailHeaders(f *testing.F) {
	f.Add("Ann <a@x.example>", "Hi\r\nBcc: b@x.example", "X-A", "b")
	f.Add("a@x.example", "Grüße =?utf-8?q?x?=", "X-A", "c\r\n\r\nbody")
	f.Add("\"a b\"@x.example", "long "+string(bytes.Repeat([]byte("ü "), 200)), "X-A:B", "d")
	f.Add("=?utf-8?q?=0D=0ABcc:_b@x.example?= <a@x.example>", " \t", "List-Id", "\t=?utf-8?q?=0D=0ABcc:_b@x.example?=")
	f.Add("a@x.example (\r\n)", "\x00", "X\x00", "\u2028")
	f.Fuzz(func(t *testing.T, to, subject, name, value string) {
		ctx := job.NewContext(t.Context(), &job.Job{ID: "j", Queue: "q"})
		m, err := newEmail(ctx, EmailConfig{From: "shop@x.example"}, tasks.Email{
			To: []string{to}, Subject: subject, Text: "body", Headers: map[string]string{name: value},
		})
		if err != nil {
			return
		}
		var text bytes.Buffer
		if _, err := m.content.WriteTo(&text); err != nil {
			return // no whole message is sent then
		}
		parsed, err := mail.ReadMessage(&text)
		if err != nil {
			t.Fatalf("%v in %q", err, text.String())
		}
		known := []string{
			"Date", "Mime-Version", "Message-Id", "Subject", "User-Agent", "X-Mailer", "From", "To", "Content-Type", "Content-Transfer-Encoding",
		}
		var extra []string
		for header := range parsed.Header {
			if !slices.Contains(known, header) {
				extra = append(extra, header)
			}
		}
		if len(extra) > 1 || len(m.recipients) != 1 {
			t.Errorf("headers %q, recipients %q", slices.Collect(maps.Keys(parsed.Header)), m.recipients)
		}
		for _, values := range parsed.Header {
			for _, v := range values {
				if _, err := new(mime.WordDecoder).DecodeHeader(v); err != nil {
					t.Errorf("header %q: %v", v, err)
				}
			}
		}
	})
}

// Whatever an event holds, it becomes a request that net/http sends, and its attributes survive the binary mode.
func FuzzWebhookMessage(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":" 1\r\nX: y ","source":"/ü","type":"t","subject":"a\u0000%22\"","data":1}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/","type":"t","datacontenttype":"text/plain; x=\"\r\n\"","data":"ü"}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/","type":"t","tenant":"\ud800","n":-1,"b":true,"data_base64":"AA=="}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		ctx := job.NewContext(t.Context(), &job.Job{ID: "j", Queue: "q"})
		for _, send := range []string{sendEvent, sendData} {
			m, err := newWebhookMessage(ctx, json.RawMessage(text), nil, send)
			if err != nil {
				continue
			}
			for name, values := range m.headers {
				if !isToken(name) || len(values) != 1 || !validHeaderValue(values[0]) {
					t.Errorf("%s: header %q: %q", send, name, values)
				}
			}
			if send == sendEvent {
				if diff := cmp.Diff(text, m.body); diff != "" {
					t.Errorf("body (-want +got):\n%s", diff)
				}
				continue
			}
			e, err := events.Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"Ce-Id": e.ID, "Ce-Source": e.Source, "Ce-Type": e.Type, "Ce-Subject": e.Subject} {
				if got := unescaped(m.headers.Get(name)); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		}
	})
}

// unescaped is what a receiver makes of a ce- header.
func unescaped(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			var c byte
			for _, digit := range s[i+1 : i+3] {
				c = c<<4 | byte(bytes.IndexRune([]byte("0123456789ABCDEF"), digit))
			}
			out = append(out, c)
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}
