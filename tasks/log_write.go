package tasks

import (
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// LogLine is a line for the worker's log.
type LogLine struct {
	Message string         `json:"message" jsonschema:"text of the line"`
	Level   string         `json:"level,omitempty" enum:"debug,info,warn,error" jsonschema:"debug, info, warn or error; info if left out"`
	Fields  map[string]any `json:"fields,omitempty" jsonschema:"anything else to log beside the message"`
}

// WriteLog writes a line to the worker's log: the smallest task there is, to try triggers and schedules with.
var WriteLog = job.Define[LogLine]("log:write", job.Timeout(10*time.Second), job.MaxRetry(3))
