// Package tasks declares what can be run: the built-in tasks, and the pattern for yours.
//
// Step 4 of 7, your side of it: a task is declared once, and every other part knows it by that declaration. A declaration has
// a payload type and a variable:
//
//	type WelcomeEmail struct {
//		UserID string `json:"user_id" jsonschema:"whom to greet"`
//	}
//
//	var SendWelcome = job.Define[WelcomeEmail]("email:welcome",
//		job.Queue("mail"), job.MaxRetry(8), job.Timeout(30*time.Second))
//
// Services enqueue with SendWelcome.Enqueue; a worker runs SendWelcome.HandledBy(function), where the function takes a
// WelcomeEmail, or it does not compile. The payload's JSON Schema comes from its Go type: a field without omitempty is
// required, and the jsonschema tag is what people read about it; the tags enum and pattern bound a text, see [job.Define]. Triggers and
// the enqueue command are checked against it.
//
// Nothing runs here: what a task does stands in package handlers, so that services import declarations alone.
// Keep payloads small, an id rather than the thing, and add fields as optional ones: jobs of the old shape may still be queued.
package tasks
