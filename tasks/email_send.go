package tasks

import (
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// Email is a message. An address is local@domain or Name <local@domain>.
type Email struct {
	From    string   `json:"from,omitempty" jsonschema:"sender; handlers.email.from if left out"`
	To      []string `json:"to" jsonschema:"recipients; a message goes to all of to, cc and bcc or to none"`
	Cc      []string `json:"cc,omitempty" jsonschema:"further recipients, shown"`
	Bcc     []string `json:"bcc,omitempty" jsonschema:"further recipients, not shown"`
	ReplyTo string   `json:"reply_to,omitempty" jsonschema:"where answers shall go"`
	Subject string   `json:"subject" jsonschema:"one line"`
	Text    string   `json:"text,omitempty" jsonschema:"body as plain text; text, html or both must be there"`
	HTML    string   `json:"html,omitempty" jsonschema:"body as HTML; beside text it is the alternative"`

	Headers map[string]string `json:"headers,omitempty" jsonschema:"further headers, such as List-Unsubscribe"`
}

// EmailSent is the result of a message that the server has taken.
type EmailSent struct {
	MessageID  string `json:"message_id"`
	Recipients int    `json:"recipients"`
	Answer     string `json:"answer,omitempty"` // of the server: often the id under which it queued the message
}

// SendEmail hands a message to the SMTP server of handlers.email. Its Message-ID is the same in all attempts, so that a receiver can tell a
// repeated one. A 4xx answer and faults of the network are tried again 16 times, over about eight hours; a 5xx is final.
var SendEmail = job.Define[Email]("email:send",
	job.Timeout(2*time.Minute),
	job.MaxRetry(16), job.Retry(job.Exponential(10*time.Second, time.Hour)),
	job.Retention(time.Hour))
