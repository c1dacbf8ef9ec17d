package webhook

import (
	"net/http"
	"time"

	"github.com/bellhop-dev/bellhop/events"
)

// githubScheme is that of GitHub, its apps, and others that took it over: an HMAC over the body, and nothing else.
// https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
type githubScheme struct{}

func (githubScheme) claim(h http.Header, _ time.Time) (*claim, error) {
	// X-Hub-Signature, of SHA-1, comes beside it and is not looked at.
	value, err := header(h, "X-Hub-Signature-256")
	if err != nil {
		return nil, err
	}
	signature, err := hexSignature(value, "sha256=")
	if err != nil {
		return nil, err
	}
	return &claim{id: h.Get("X-Github-Delivery"), signatures: [][]byte{signature}}, nil
}

// event makes one of every delivery, a ping too: it tells that the hook works.
func (githubScheme) event(d *delivery) (*events.Event, *reply, error) {
	id, err := eventID(d.claim.id)
	if err != nil {
		return nil, nil, err
	}
	name := typeOf(d.header.Get("X-Github-Event"))
	if name == "" {
		return nil, nil, refuse(Malformed, "the header X-GitHub-Event is missing")
	}
	body := d.body
	if d.mediaType() == formType { // a hook may be set to that: the JSON stands in one field
		form, err := readForm(body)
		if err != nil {
			return nil, nil, err
		}
		body = []byte(form.Get("payload"))
	}
	data, o, err := readObject(body)
	if err != nil {
		return nil, nil, err
	}
	e := &events.Event{ID: id, Type: name, Source: githubSource(o), Subject: githubSubject(name, o), DataContentType: "application/json", Data: data}
	if action := typeOf(o.text("action")); action != "" {
		e.Type += "." + action
	}
	d.extend(e, "githubevent", name)
	d.extend(e, "githubhook", d.header.Get("X-Github-Hook-Id"))
	d.extend(e, "githubtarget", d.header.Get("X-Github-Hook-Installation-Target-Type"))
	d.extend(e, "githubtargetid", d.header.Get("X-Github-Hook-Installation-Target-Id"))
	return e, nil, nil
}

func (githubScheme) stored(e *events.Event, duplicate bool) *reply { return receipt(e, duplicate) }

// githubSource is the page of the repository; what is not about one has the organization's or enterprise's.
func githubSource(o object) string {
	for _, path := range [][]string{{"repository", "html_url"}, {"organization", "url"}, {"enterprise", "html_url"}} {
		if source := uri(o.text(path...)); source != "" {
			return source
		}
	}
	return ""
}

// githubSubject is what it happened to, as in the path of its page.
func githubSubject(name string, o object) string {
	join := func(kind, id string) string {
		if id == "" {
			return ""
		}
		return clean(kind+"/"+id, 512)
	}
	for _, numbered := range [][2]string{{"pull_request", "pulls"}, {"issue", "issues"}, {"discussion", "discussions"}, {"milestone", "milestones"}} {
		if s := join(numbered[1], o.text(numbered[0], "number")); s != "" {
			return s
		}
	}
	if s := join("releases", o.text("release", "tag_name")); s != "" {
		return s
	}
	if ref := o.text("ref"); ref != "" {
		return clean(ref, 512)
	}
	if sha := o.text("sha"); sha != "" {
		return join("commits", sha)
	}
	return join(name, o.text(name, "id"))
}
