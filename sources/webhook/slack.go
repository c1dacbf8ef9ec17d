package webhook

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/bellhop-dev/bellhop/events"
)

// slackScheme is that of Slack's apps: the events API, slash commands and interactive parts.
// https://docs.slack.dev/authentication/verifying-requests-from-slack
type slackScheme struct{ tolerance time.Duration }

func (s slackScheme) claim(h http.Header, now time.Time) (*claim, error) {
	text, err := header(h, "X-Slack-Request-Timestamp")
	if err != nil {
		return nil, err
	}
	at, err := fresh(text, now, s.tolerance)
	if err != nil {
		return nil, err
	}
	value, err := header(h, "X-Slack-Signature")
	if err != nil {
		return nil, err
	}
	signature, err := hexSignature(value, "v0=")
	if err != nil {
		return nil, err
	}
	return &claim{at: at, before: []byte("v0:" + text + ":"), signatures: [][]byte{signature}}, nil
}

func (slackScheme) event(d *delivery) (*events.Event, *reply, error) {
	var e *events.Event
	var direct *reply
	var err error
	if d.mediaType() == formType {
		e, direct, err = slackForm(d)
	} else {
		e, direct, err = slackJSON(d)
	}
	if err != nil || direct != nil {
		return nil, direct, err
	}
	e.DataContentType = "application/json"
	if n, err := strconv.ParseInt(d.header.Get("X-Slack-Retry-Num"), 10, 32); err == nil && n > 0 {
		d.extend(e, "slackretryreason", d.header.Get("X-Slack-Retry-Reason"))
		if e.Extensions == nil {
			e.Extensions = make(map[string]any)
		}
		e.Extensions["slackretry"] = int32(n)
	}
	return e, nil, nil
}

// stored is empty: Slack shows the user what a slash command is answered with.
func (slackScheme) stored(*events.Event, bool) *reply { return empty }

// slackJSON is a callback of the events API.
func slackJSON(d *delivery) (*events.Event, *reply, error) {
	_, o, err := readObject(d.body)
	if err != nil {
		return nil, nil, err
	}
	kind := o.text("type")
	switch kind {
	case "":
		return nil, nil, refuse(Malformed, "the body has no type")
	case "url_verification":
		return challenge(o)
	}
	// The token in it is Slack's old way to prove itself, a secret that no handler needs.
	data, err := o.without("token")
	if err != nil {
		return nil, nil, err
	}
	e := &events.Event{Type: typeOf(kind), Data: data, Time: readTime(o.text("event_time"))}
	d.extend(e, "slackteam", o.text("team_id"))
	d.extend(e, "slackapp", o.text("api_app_id"))
	if kind != "event_callback" {
		e.ID = d.claim.digest(d.body)
		return e, nil, nil
	}
	if e.ID, err = eventID(o.text("event_id")); err != nil {
		return nil, nil, err
	}
	inner := o.in("event")
	if e.Type = typeOf(inner.text("type")); e.Type == "" {
		return nil, nil, refuse(Malformed, "the event in the body has no type")
	}
	if subtype := typeOf(inner.text("subtype")); subtype != "" {
		e.Type += "." + subtype
	}
	e.Subject = firstOf(inner.text("channel"), inner.text("channel", "id"), inner.text("item", "channel"), inner.text("user"), inner.text("user", "id"))
	return e, nil, nil
}

// challenge answers the one question that Slack asks before it sends events. It is signed like them.
func challenge(o object) (*events.Event, *reply, error) {
	b, err := json.Marshal(map[string]string{"challenge": o.text("challenge")})
	if err != nil || o.text("challenge") == "" {
		return nil, nil, refuse(Malformed, "the challenge is missing")
	}
	return nil, &reply{status: http.StatusOK, contentType: "application/json", body: b}, nil
}

// slackForm is a slash command, or what somebody did with a button, a menu, a dialog. None of them is sent twice by Slack: their id is
// what was signed.
func slackForm(d *delivery) (*events.Event, *reply, error) {
	form, err := readForm(d.body)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case form.Get("ssl_check") == "1":
		return nil, empty, nil
	case form.Has("payload"):
		return slackInteraction(d, form.Get("payload"))
	case form.Get("command") != "":
		return slackCommand(d, form)
	default:
		return nil, nil, refuse(Malformed, "the form has neither a command nor a payload")
	}
}

func slackCommand(d *delivery, form url.Values) (*events.Event, *reply, error) {
	form.Del("token")
	data, err := formJSON(form)
	if err != nil {
		return nil, nil, err
	}
	e := &events.Event{ID: d.claim.digest(d.body), Type: "slash_command", Subject: clean(form.Get("command"), 512), Data: data}
	d.extend(e, "slackteam", form.Get("team_id"))
	d.extend(e, "slackapp", form.Get("api_app_id"))
	return e, nil, nil
}

func slackInteraction(d *delivery, payload string) (*events.Event, *reply, error) {
	_, o, err := readObject([]byte(payload))
	if err != nil {
		return nil, nil, err
	}
	kind := typeOf(o.text("type"))
	if kind == "" {
		return nil, nil, refuse(Malformed, "the payload has no type")
	}
	data, err := o.without("token")
	if err != nil {
		return nil, nil, err
	}
	e := &events.Event{
		ID: d.claim.digest(d.body), Type: kind, Data: data,
		Subject: firstOf(o.text("callback_id"), o.text("view", "callback_id"), o.text("channel", "id"), o.text("user", "id")),
	}
	d.extend(e, "slackteam", o.text("team", "id"))
	d.extend(e, "slackapp", o.text("api_app_id"))
	return e, nil, nil
}

func firstOf(texts ...string) string {
	for _, s := range texts {
		if s = clean(s, 512); s != "" {
			return s
		}
	}
	return ""
}
