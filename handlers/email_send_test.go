package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// mailTo is how the test's server is reached.
func mailTo(s *mailServer) handlers.EmailConfig {
	return handlers.EmailConfig{
		Host: "127.0.0.1", Port: s.port(), Username: "user", Password: "canary-password",
		From: "Shop <shop@example.com>", CAFile: s.files.CA, Timeout: 20 * time.Second,
	}
}

func sendEmail(t *testing.T, cfg handlers.EmailConfig, j *job.Job, p tasks.Email) error {
	t.Helper()
	return sendEmailIn(t.Context(), t, cfg, j, p)
}

func sendEmailIn(ctx context.Context, t *testing.T, cfg handlers.EmailConfig, j *job.Job, p tasks.Email) error {
	t.Helper()
	h, err := handlers.NewEmail(cfg)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	j.Payload = data
	return tasks.SendEmail.HandledBy(h.Send).Handle(job.NewContext(ctx, j), j)
}

func hello() tasks.Email {
	return tasks.Email{To: []string{"ann@example.org"}, Subject: "Hello", Text: "Good day.\n.\n.dots\n"}
}

func TestEmailArrives(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server func(*mailServer)
		config func(*handlers.EmailConfig)
	}{
		"starttls":        {},
		"implicit":        {func(s *mailServer) { s.implicit = true }, func(c *handlers.EmailConfig) { c.TLS = "implicit" }},
		"login":           {func(s *mailServer) { s.mechanisms = "LOGIN" }, nil},
		"nobody":          {func(s *mailServer) { s.mechanisms = "" }, func(c *handlers.EmailConfig) { c.Username, c.Password = "", "" }},
		"on this machine": {func(s *mailServer) { s.noStartTLS = true }, func(c *handlers.EmailConfig) { c.TLS = "none" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newMailServer(t, test.server)
			cfg := mailTo(s)
			if test.config != nil {
				test.config(&cfg)
			}
			j := &job.Job{ID: "j-1", Queue: "mail"}
			err := sendEmail(t, cfg, j, tasks.Email{
				To: []string{"Änn <ann@example.org>", "bob@example.org"}, Cc: []string{"Cee <cee@example.org>"}, Bcc: []string{"dan@example.org", "ann@example.org"},
				ReplyTo: "help@example.com", Subject: "Grüße 👋", Text: "Good day.\n.\n.dots\n", HTML: "<p>Good <b>day</b> é.</p>",
				Headers: map[string]string{"List-Unsubscribe": "<https://example.com/u>", "X-Note": "ü"},
			})
			if err != nil {
				t.Fatal(err)
			}
			mails := s.received()
			if len(mails) != 1 {
				t.Fatalf("%d mails arrived", len(mails))
			}
			if diff := cmp.Diff([]string{"ann@example.org", "bob@example.org", "cee@example.org", "dan@example.org"}, mails[0].recipients); diff != "" || mails[0].from != "shop@example.com" {
				t.Errorf("from %s to (-want +got):\n%s", mails[0].from, diff)
			}
			if plain := s.heard("\nMAIL") || s.heard("\nAUTH"); plain != (cfg.TLS == "none") {
				t.Errorf("in plain text: %v: %q", plain, s.said)
			}
			m := mails[0].parsed(t)
			decode := new(mime.WordDecoder).DecodeHeader
			for header, want := range map[string]string{
				"From": `"Shop" <shop@example.com>`, "To": `Änn <ann@example.org>, <bob@example.org>`, "Cc": `"Cee" <cee@example.org>`, "Bcc": "",
				"Reply-To": "<help@example.com>", "Subject": "Grüße 👋", "List-Unsubscribe": "<https://example.com/u>", "X-Note": "ü",
			} {
				if got, err := decode(m.Header.Get(header)); err != nil || got != want {
					t.Errorf("%s is %q (%v), want %q", header, got, err, want)
				}
			}
			if strings.Contains(mails[0].text, "dan@") {
				t.Error("who is in bcc is shown")
			}
			if at, err := m.Header.Date(); err != nil || time.Since(at) > time.Minute {
				t.Errorf("date %v, %v", at, err)
			}
			var result tasks.EmailSent
			if err := json.Unmarshal(j.Result(), &result); err != nil || result.Recipients != 4 || result.MessageID != m.Header.Get("Message-ID") || !strings.Contains(result.Answer, "queued as 4711") {
				t.Errorf("result %s, Message-ID %s", j.Result(), m.Header.Get("Message-ID"))
			}
			_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
			if err != nil {
				t.Fatal(err)
			}
			parts := multipart.NewReader(m.Body, params["boundary"])
			for _, want := range []struct{ contentType, text string }{
				{"text/plain", "Good day.\r\n.\r\n.dots\r\n"}, {"text/html", "<p>Good <b>day</b> é.</p>"},
			} {
				part, err := parts.NextRawPart()
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(quotedprintable.NewReader(part))
				if err != nil || strings.TrimRight(string(text), "\r\n") != strings.TrimRight(want.text, "\r\n") || !strings.HasPrefix(part.Header.Get("Content-Type"), want.contentType) {
					t.Errorf("part %v: %q, %v; want %q", part.Header, text, err, want.text)
				}
			}
		})
	}
}

// If the server's word is lost the message goes out again, with the same Message-ID: receivers can tell.
func TestEmailMessageIDIsTheSameOnEveryAttempt(t *testing.T) {
	t.Parallel()
	var arrives atomic.Bool
	s := newMailServer(t, func(s *mailServer) {
		s.answer = func(command string) string {
			if command == "." && !arrives.Load() {
				return "hangup"
			}
			return ""
		}
	})
	wantRetry(t, sendEmail(t, mailTo(s), &job.Job{ID: "j", Queue: "q"}, hello()), "EOF")
	arrives.Store(true)
	for _, j := range []*job.Job{{ID: "j", Queue: "q"}, {ID: "j", Queue: "other"}} {
		if err := sendEmail(t, mailTo(s), j, hello()); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for _, m := range s.received() {
		ids = append(ids, m.parsed(t).Header.Get("Message-ID"))
	}
	if len(ids) != 3 || ids[0] != ids[1] || ids[1] == ids[2] || !strings.HasSuffix(ids[0], "@example.com>") {
		t.Errorf("ids %q", ids)
	}
}

func TestEmailAnswersDecide(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers map[string]string
		final   bool
		parts   []string
	}{
		"busy":               {map[string]string{"CONNECT": "421 4.3.2 later"}, false, []string{"greet: 421"}},
		"closed":             {map[string]string{"CONNECT": "554 5.3.2 never"}, false, []string{"greet: 554"}}, // of the server, not of the message
		"no hello":           {map[string]string{"EHLO": "hangup"}, false, []string{"hello"}},
		"no tls now":         {map[string]string{"STARTTLS": "454 4.7.0 not now"}, false, []string{"starttls: 454"}},
		"login later":        {map[string]string{"AUTH": "454 4.7.0 later"}, false, []string{"log in: 454"}},
		"sender later":       {map[string]string{"MAIL": "451 4.7.1 greylisted"}, false, []string{"the sender is refused: 451 4.7.1 greylisted"}},
		"sender never":       {map[string]string{"MAIL": "550 5.7.1 who are you"}, true, []string{"the sender is refused: 550"}},
		"recipient later":    {map[string]string{"RCPT TO:<bob": "450 4.2.0 greylisted"}, false, []string{"the recipient is refused: bob@example.org: 450 4.2.0 greylisted (the message was sent to nobody)"}},
		"recipient never":    {map[string]string{"RCPT TO:<bob": "550 5.1.1 no such user"}, true, []string{"bob@example.org: 550 5.1.1 no such user"}},
		"later and never":    {map[string]string{"RCPT TO:<bob": "450 4.2.0 later", "RCPT TO:<cee": "550 5.1.1 never"}, true, []string{"bob@example.org: 450", "cee@example.org: 550"}},
		"never and later":    {map[string]string{"RCPT TO:<ann": "550 5.1.1 never", "RCPT TO:<bob": "450 4.2.0 later"}, true, []string{"ann@example.org: 550", "bob@example.org: 450"}},
		"data later":         {map[string]string{"DATA": "451 4.3.0 disk"}, false, []string{"the message is refused: 451"}},
		"message later":      {map[string]string{".": "452 4.2.2 full"}, false, []string{"the message is refused: 452"}},
		"message never":      {map[string]string{".": "554 5.7.1 spam"}, true, []string{"the message is refused: 554 5.7.1 spam"}},
		"gone at recipients": {map[string]string{"RCPT TO:<bob": "hangup"}, false, []string{"EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newMailServer(t, func(s *mailServer) {
				s.answer = func(command string) string {
					for prefix, text := range test.answers {
						if strings.HasPrefix(command, prefix) {
							return text
						}
					}
					return ""
				}
			})
			p := hello()
			p.To, p.Bcc = []string{"ann@example.org", "bob@example.org"}, []string{"cee@example.org"}
			err := sendEmail(t, mailTo(s), &job.Job{ID: "j"}, p)
			if test.final {
				wantDiscard(t, err, test.parts...)
			} else {
				wantRetry(t, err, test.parts...)
			}
			wantText(t, err, "smtp 127.0.0.1:")
			if n := len(s.received()); n != 0 {
				t.Errorf("%d mails were sent", n)
			}
		})
	}
}

// What should be encrypted is never sent in plain text, and only to whom the certificate is.
func TestEmailInsistsOnTLS(t *testing.T) {
	t.Parallel()
	other := newMailServer(t, nil)
	for name, test := range map[string]struct {
		server func(*mailServer)
		config func(*handlers.EmailConfig)
		part   string
	}{
		"not offered":    {func(s *mailServer) { s.noStartTLS = true }, nil, "does not offer STARTTLS, and nothing is sent in plain text"},
		"wrong CA":       {nil, func(c *handlers.EmailConfig) { c.CAFile = other.files.CA }, "certificate"},
		"the system's":   {nil, func(c *handlers.EmailConfig) { c.CAFile = "" }, "certificate"},
		"wrong host":     {nil, func(c *handlers.EmailConfig) { c.Host = "localhost" }, "certificate"},
		"wrong CA, 465":  {func(s *mailServer) { s.implicit = true }, func(c *handlers.EmailConfig) { c.TLS, c.CAFile = "implicit", other.files.CA }, "certificate"},
		"plain on 465":   {nil, func(c *handlers.EmailConfig) { c.TLS = "implicit" }, "connect"},
		"wrong password": {nil, func(c *handlers.EmailConfig) { c.Password = "canary-wrong" }, "log in: 535"},
		"unknown way":    {func(s *mailServer) { s.mechanisms = "GSSAPI" }, nil, "no way to log in"},
		"no login":       {func(s *mailServer) { s.mechanisms = "" }, nil, "no way to log in"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newMailServer(t, test.server)
			cfg := mailTo(s)
			cfg.Timeout = 5 * time.Second
			if test.config != nil {
				test.config(&cfg)
			}
			err := sendEmail(t, cfg, &job.Job{ID: "j"}, hello())
			wantRetry(t, err, test.part)
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the password is told: %v", err)
			}
			if s.heard("MAIL") || len(s.received()) != 0 {
				t.Errorf("went on: %q", s.said)
			}
		})
	}
}

func TestEmailTimeouts(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"CONNECT", "EHLO", "STARTTLS", "MAIL", "DATA"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{}, 1)
			s := newMailServer(t, func(s *mailServer) {
				s.answer = func(command string) string {
					if strings.HasPrefix(command, at) {
						select {
						case reached <- struct{}{}:
						default:
						}
						return "silence"
					}
					return ""
				}
			})
			cfg := mailTo(s)
			cfg.Timeout = 300 * time.Millisecond // also enough for a slow machine that comes no further: the error is the same
			wantRetry(t, sendEmail(t, cfg, &job.Job{ID: "j"}, hello()), "no whole exchange within 300ms")
			select {
			case <-reached:
			default:
			}

			ctx, stop := context.WithCancel(t.Context())
			go func() {
				<-reached
				stop()
			}()
			cfg.Timeout = time.Minute
			if err := sendEmailIn(ctx, t, cfg, &job.Job{ID: "j"}, hello()); !errors.Is(err, context.Canceled) {
				t.Errorf("a stopped job: %v", err)
			}
		})
	}
}

// A server that thinks about a message for long, or a worker that stops meanwhile, makes no second mail.
func TestEmailWaitsForTheLastWord(t *testing.T) {
	t.Parallel()
	for name, timeout := range map[string]time.Duration{"the worker stops": time.Minute, "the time is used up": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			s := newMailServer(t, func(s *mailServer) {
				s.answer = func(command string) string {
					if command != "." {
						return ""
					}
					wait := timeout // the attempt began before: its time is over then
					if timeout == time.Minute {
						stop()
						wait = 200 * time.Millisecond // enough for it to give up
					}
					select {
					case err := <-ended:
						ended <- err
						return "" // nobody hears it
					case <-time.After(wait):
						return ""
					}
				}
			})
			cfg := mailTo(s)
			cfg.Timeout = timeout
			ended <- sendEmailIn(ctx, t, cfg, &job.Job{ID: "j"}, hello())
			if err := <-ended; err != nil {
				t.Errorf("the server has the mail, but the job goes on: %v", err)
			}
		})
	}
}

// That wait has an end too.
func TestEmailGivesUpOnASilentServer(t *testing.T) {
	t.Parallel()
	s := newMailServer(t, func(s *mailServer) {
		s.answer = func(command string) string {
			if command == "." {
				return "silence"
			}
			return ""
		}
	})
	h, err := handlers.NewEmail(mailTo(s))
	if err != nil {
		t.Fatal(err)
	}
	h.WaitForLastWord(50 * time.Millisecond)
	j := &job.Job{ID: "j", Payload: []byte(`{"to":["ann@example.org"],"subject":"Hello","text":"x"}`)}
	wantRetry(t, tasks.SendEmail.HandledBy(h.Send).Handle(job.NewContext(t.Context(), j), j), "the server did not answer for the message within 50ms: it may have it")
}

func TestEmailRefusesPayloadsThatCannotWork(t *testing.T) {
	t.Parallel()
	s := newMailServer(t, nil)
	many := strings.Split(strings.Repeat("a@x.example ", 101), " ")[:101]
	for i := range many {
		many[i] = strings.Repeat("a", i+1) + "@x.example"
	}
	for name, test := range map[string]struct {
		change func(*tasks.Email)
		part   string
	}{
		"nobody":             {func(p *tasks.Email) { p.To = nil }, "to: is empty"},
		"empty":              {func(p *tasks.Email) { p.Text = "" }, "the message is empty"},
		"no address":         {func(p *tasks.Email) { p.To = []string{"a@x.example", "canary"} }, "to[1]: is no address"},
		"two in one":         {func(p *tasks.Email) { p.To = []string{"a@x.example, b@x.example"} }, "to[0]: is no address"},
		"injected recipient": {func(p *tasks.Email) { p.Cc = []string{"a@x.example>\r\nRCPT TO:<canary@x.example"} }, "cc[0]: has control characters"},
		"injected name":      {func(p *tasks.Email) { p.To = []string{"A\r\nBcc: canary@x.example <a@x.example>"} }, "to[0]: has control characters"},
		"injected bcc":       {func(p *tasks.Email) { p.Bcc = []string{"a@x.example\n"} }, "bcc[0]: has control characters"},
		"injected from":      {func(p *tasks.Email) { p.From = "a@x.example\r\nX: canary" }, "from: has control characters"},
		"injected reply":     {func(p *tasks.Email) { p.ReplyTo = "a@x.example\r\nX: canary" }, "reply_to: has control characters"},
		"injected subject":   {func(p *tasks.Email) { p.Subject = "Hi\r\nBcc: canary@x.example" }, "subject: has a line break"},
		"injected header":    {func(p *tasks.Email) { p.Headers = map[string]string{"X-A": "b\r\nBcc: canary@x.example"} }, "headers: "},
		"injected field":     {func(p *tasks.Email) { p.Headers = map[string]string{"X-A: b\r\nBcc": "canary"} }, "headers: "},
		"header with colon":  {func(p *tasks.Email) { p.Headers = map[string]string{"X:Y": "b"} }, "headers: "},
		"own header":         {func(p *tasks.Email) { p.Headers = map[string]string{"bCC": "canary@x.example"} }, "can't be set here"},
		"content header":     {func(p *tasks.Email) { p.Headers = map[string]string{"Content-Type": "text/html"} }, "can't be set here"},
		"too many":           {func(p *tasks.Email) { p.To = many }, "at most 100"},
	} {
		p := hello()
		test.change(&p)
		err := sendEmail(t, mailTo(s), &job.Job{ID: "j"}, p)
		if !job.IsDiscard(err) || !strings.Contains(err.Error(), test.part) || strings.Contains(err.Error(), "canary") && name != "injected field" {
			t.Errorf("%s: got %v, want a discard with %q", name, err, test.part)
		}
	}
	cfg := mailTo(s)
	cfg.From = ""
	wantDiscard(t, sendEmail(t, cfg, &job.Job{ID: "j"}, hello()), "handlers.email.from is not set")
	wantRetry(t, sendEmail(t, handlers.EmailConfig{}, &job.Job{ID: "j"}, hello()), "handlers.email.host is not set in this worker")
	if s.heard("EHLO") {
		t.Errorf("the server was called: %q", s.said)
	}
}

// A server that repeats what it was sent finds no way into errors and results.
func TestEmailTellsNoSecrets(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"AUTH", "MAIL", "RCPT", "DATA", "."} {
		for _, code := range []string{"250", "450", "550"} {
			s := newMailServer(t, func(s *mailServer) {
				s.answer = func(command string) string {
					if strings.HasPrefix(command, at) && (code != "250" || at == ".") {
						return code + " not canary-password nor canary-subject-7 nor canary-text-7 nor canary-html-7 nor canary-header-7 " + s.password
					}
					return ""
				}
			})
			j := &job.Job{ID: "j"}
			err := sendEmail(t, mailTo(s), j, tasks.Email{
				To: []string{"ann@example.org"}, Subject: "about canary-subject-7", Text: "see canary-text-7", HTML: "<p>canary-html-7</p>",
				Headers: map[string]string{"X-A": "canary-header-7"},
			})
			if (err == nil) != (code == "250") {
				t.Fatalf("%s %s: %v", code, at, err)
			}
			text := string(j.Result())
			if err != nil {
				text = err.Error()
			}
			if strings.Contains(text, "canary") || !strings.Contains(text, "masked") && (err != nil || at == ".") {
				t.Errorf("%s %s: %s", code, at, text)
			}
		}
	}
}

func TestEmailConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	err := handlers.Config{Email: handlers.EmailConfig{
		Host: "smtp://x", Port: 99999, From: "shop", TLS: "none", Username: "canary", Hello: "a b", Timeout: -1,
	}}.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	var got []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, ": ")
		got = append(got, key)
	}
	if diff := cmp.Diff([]string{"email.host", "email.port", "email.from", "email.tls", "email.hello", "email.timeout"}, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	for _, c := range []handlers.EmailConfig{{TLS: "ssl"}, {Password: "canary"}, {Username: "u", Password: "canary\n"}} {
		if err := c.Validate(); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v", err)
		}
	}
	for tls, port := range map[string]int{"": 587, "starttls": 587, "implicit": 465, "none": 25} {
		if got := (handlers.EmailConfig{TLS: tls}).WithDefaults().Port; got != port {
			t.Errorf("tls %q: port %d", tls, got)
		}
	}
	if _, err := handlers.NewEmail(handlers.EmailConfig{CAFile: "/no/such/file"}); err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Errorf("no CA file: %v", err)
	}
}
