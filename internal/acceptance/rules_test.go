package acceptance_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// mirror is what a rule of triggers.yaml should do, written a second time and without our engine.
type mirror struct {
	method  string
	matches func(d delivery) bool
	body    func(d delivery) any // a string is text, anything else JSON
}

// hooked is a match: of which event, by which rule.
type hooked struct{ event, rule string }

func expectedMatches(deliveries []delivery) map[hooked]delivery {
	expected := make(map[hooked]delivery)
	for _, d := range deliveries {
		for name, m := range mirrors {
			if m.matches(d) {
				expected[hooked{d.ID, name}] = d
			}
		}
	}
	return expected
}

type object = map[string]any

var mirrors = map[string]mirror{
	"archive": {
		method:  "PUT",
		matches: func(delivery) bool { return true },
		body:    func(d delivery) any { return d.Data },
	},
	"pull-request-card": {
		method: "POST",
		matches: func(d delivery) bool {
			action, ok := strings.CutPrefix(d.Type, "com.github.pull_request.")
			return ok && !strings.Contains(action, ".")
		},
		body: func(d delivery) any {
			pr := func(name string) any { return d.at("pull_request", name) }
			return object{
				"version": json.Number("2"),
				"what":    d.Type,
				"pull_request": object{
					"number": d.at("number"), "draft": pr("draft"),
					"lines":  whole(d.number("pull_request", "additions") + d.number("pull_request", "deletions")),
					"labels": labelNames(pr("labels")), "milestone": pr("milestone"),
				},
				"people":  []any{d.at("pull_request", "user", "login"), d.at("sender", "login")},
				"summary": fmt.Sprintf("#%d was %s (draft: %v)", d.number("number"), d.text("action"), pr("draft")),
			}
		},
	},
	"pull-request-closed": {
		method: "POST",
		matches: func(d delivery) bool {
			return d.Type == "com.github.pull_request.closed" && d.text("pull_request", "user", "login") == d.text("sender", "login")
		},
		body: func(d delivery) any { return []any{"closed", d.at("pull_request")} },
	},
	"issue-text": {
		method:  "POST",
		matches: func(d delivery) bool { return strings.HasPrefix(d.Type, "com.github.issues.") },
		body: func(d delivery) any {
			labels, err := json.Marshal(labelNames(d.at("issue", "labels")))
			if err != nil {
				panic(err)
			}
			return fmt.Sprintf("Issue %d in %s: %s\n%q, labels %s\n", d.number("issue", "number"),
				d.text("repository", "full_name"), d.text("action"), d.text("issue", "title"), labels)
		},
	},
	"new-star": {
		method:  "POST",
		matches: func(d delivery) bool { return d.Type == "com.github.star.created" },
		body: func(d delivery) any {
			since, err := time.Parse(time.RFC3339, d.text("starred_at"))
			if err != nil {
				panic(err)
			}
			return object{"stars": d.at("repository", "stargazers_count"), "since": since.Format(time.RFC3339)}
		},
	},
	"bots": {
		method:  "POST",
		matches: func(d delivery) bool { return strings.HasSuffix(d.text("sender", "login"), "[bot]") },
		body: func(d delivery) any {
			return object{"bot": d.at("sender", "login"), "id": d.at("sender", "id"), "prices": "${5}"}
		},
	},
	"app-of-large-repository": {
		method: "POST",
		matches: func(d delivery) bool {
			return strings.Count(d.Type, ".") == 3 && d.has("installation") && d.has("repository") &&
				d.number("repository", "id") >= 186853002 && d.number("repository", "size") < 10
		},
		body: func(d delivery) any {
			half, err := json.Marshal(float64(d.number("repository", "id")) / 2)
			if err != nil {
				panic(err)
			}
			return object{"installation": d.at("installation"), "half": json.Number(half)}
		},
	},
	"failed": {
		method: "POST",
		matches: func(d delivery) bool {
			return strings.HasSuffix(d.Type, ".completed") &&
				(d.text("check_run", "conclusion") == "failure" || d.text("workflow_job", "conclusion") == "failure")
		},
		body: func(d delivery) any {
			if d.has("check_run") {
				return object{"failed": d.at("check_run", "name")}
			}
			return object{"failed": d.at("workflow_job", "name")}
		},
	},
	"tag-pushed": {
		method: "POST",
		matches: func(d delivery) bool {
			commits, _ := d.at("commits").([]any)
			return d.Type == "com.github.push" && strings.HasPrefix(d.text("ref"), "refs/tags/") && len(commits) == 0
		},
		body: func(d delivery) any { return object{"tag": strings.TrimPrefix(d.text("ref"), "refs/tags/")} },
	},
}

func labelNames(labels any) []any {
	names := []any{}
	list, _ := labels.([]any)
	for _, l := range list {
		m, _ := l.(map[string]any)
		names = append(names, m["name"])
	}
	return names
}

func whole(n int64) json.Number { return json.Number(fmt.Sprint(n)) }
