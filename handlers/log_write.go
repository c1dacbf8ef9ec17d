package handlers

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// Log runs log:write.
type Log struct{ logger *slog.Logger }

// NewLog returns a handler that writes to logger, to slog.Default() if it is nil.
func NewLog(logger *slog.Logger) *Log { return &Log{logger: logger} }

// Write writes one line with the job's id. The fields stand in a group of their own, so that none can pass for the job's.
func (l *Log) Write(ctx context.Context, line tasks.LogLine) error {
	level, err := levelOf(line.Level)
	if err != nil {
		return err
	}
	logger := l.logger
	if logger == nil {
		logger = slog.Default()
	}
	var attrs []slog.Attr
	if j, ok := job.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("job", j.ID))
	}
	logger.LogAttrs(ctx, level, line.Message, append(attrs, groupOf("fields", line.Fields))...) //nolint:sloglint // the message is what the task is about
	return nil
}

func levelOf(name string) (slog.Level, error) {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "", "info":
		return slog.LevelInfo, nil
	case "debug":
		return slog.LevelDebug, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, job.Discard(fmt.Sprintf("no log level %.40q: write debug, info, warn or error", name))
}

func groupOf(name string, fields map[string]any) slog.Attr {
	attrs := make([]slog.Attr, 0, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		attrs = append(attrs, attrOf(key, fields[key]))
	}
	return slog.Attr{Key: name, Value: slog.GroupValue(attrs...)}
}

// attrOf writes whole numbers as such: decoded JSON has floats alone, and an id would read 1.234567e+06.
func attrOf(key string, value any) slog.Attr {
	const exact = 1 << 53
	switch v := value.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= exact {
			return slog.Int64(key, int64(v))
		}
	case map[string]any:
		if len(v) > 0 {
			return groupOf(key, v)
		}
	}
	return slog.Any(key, value)
}
