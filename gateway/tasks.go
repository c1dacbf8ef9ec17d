package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
)

func (g *Gateway) taskRoutes() {
	operation(g, keys.Read, huma.Operation{
		OperationID: "list-tasks", Method: http.MethodGet, Path: "/v1/tasks", Tags: []string{"Tasks"},
		Summary:     "List the tasks",
		Description: "Lists the tasks that jobs can be made of: those that workers have registered, and the built-in ones, by name. A task that was registered just now may be missing for 5 s.",
		Responses:   map[string]*huma.Response{"200": g.jsonAnswer("The tasks.", TaskList{})},
	}, g.listTasks)
	operation(g, keys.Read, huma.Operation{
		OperationID: "get-task", Method: http.MethodGet, Path: "/v1/tasks/{name}", Tags: []string{"Tasks"},
		Summary:     "Show a task",
		Description: "Shows a task's defaults and the JSON Schema of its payload.",
		Responses:   map[string]*huma.Response{"200": g.jsonAnswer("The task.", Task{})},
		Errors:      []int{http.StatusNotFound},
	}, g.showTask)
}

// TaskList is all tasks.
type TaskList struct {
	Tasks []Task `json:"tasks" nullable:"false"`
}

// Task is what jobs can be made of.
type Task struct {
	Name      string          `json:"name" example:"http:request"`
	Queue     string          `json:"queue" example:"default" doc:"Where its jobs go, unless they say otherwise; so with what follows."`
	MaxRetry  int             `json:"max_retry" example:"25"`
	Timeout   string          `json:"timeout" example:"30m0s"`
	Retention string          `json:"retention" example:"1h0m0s"`
	Unique    string          `json:"unique,omitempty" example:"1h0m0s"`
	Group     string          `json:"group,omitempty"`
	Schema    json.RawMessage `json:"schema" doc:"JSON Schema (draft 2020-12) of the payload; true takes any."`
}

func (g *Gateway) taskOf(d job.Definition) (Task, error) {
	schema, err := json.Marshal(d.Schema)
	if err != nil {
		return Task{}, fmt.Errorf("write the schema of %s: %w", d.Name, err)
	}
	t := Task{
		Name: d.Name, Queue: d.Defaults.Queue, MaxRetry: d.Defaults.MaxRetry, Timeout: d.Defaults.Timeout.String(),
		Retention: max(d.Defaults.Retention, g.cfg.JobRetention).String(), Group: d.Defaults.Group, Schema: schema,
	}
	if d.Defaults.Unique > 0 {
		t.Unique = d.Defaults.Unique.String()
	}
	return t, nil
}

type taskListOutput struct {
	Body TaskList
}

func (g *Gateway) listTasks(context.Context, *struct{}) (*taskListOutput, error) {
	out := &taskListOutput{Body: TaskList{Tasks: []Task{}}}
	for _, name := range g.deps.Catalog.Names() {
		if d, known := g.deps.Catalog.Task(name); known {
			t, err := g.taskOf(d)
			if err != nil {
				return nil, err
			}
			out.Body.Tasks = append(out.Body.Tasks, t)
		}
	}
	return out, nil
}

type taskInput struct {
	Name string `path:"name" maxLength:"255" example:"http:request" doc:"The task's name."`
}

type taskOutput struct {
	Body Task
}

func (g *Gateway) showTask(ctx context.Context, in *taskInput) (*taskOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	d, err := g.task(ctx, in.Name)
	switch {
	case err != nil:
		return nil, err
	case d == nil:
		detail := "no worker has registered this task" + suggest.DidYouMean(in.Name, g.deps.Catalog.Names())
		return nil, problem.New(http.StatusNotFound, "unknown-task", "Unknown task", detail+"; GET /v1/tasks lists them",
			problem.Fault{Parameter: "name", Detail: detail})
	}
	t, err := g.taskOf(*d)
	if err != nil {
		return nil, err
	}
	return &taskOutput{Body: t}, nil
}
