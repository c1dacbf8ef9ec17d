package config

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestLogger(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name              string
		log               Log
		terminal, colored bool
		json, escapes     bool
	}{
		{"auto on a terminal", Log{}, true, true, false, true},
		{"auto on a terminal without color", Log{}, true, false, false, false},
		{"auto elsewhere", Log{}, false, false, true, false},
		{"text elsewhere", Log{Format: LogText}, false, false, false, false},
		{"json on a terminal", Log{Format: LogJSON}, true, true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			log := tc.log.logger(&b, tc.terminal, tc.colored)
			log.Debug("hidden")
			log.Error("shown", "n", 1)
			line := b.String()
			if json.Valid(b.Bytes()) != tc.json || strings.Contains(line, "\x1b") != tc.escapes || strings.Contains(line, "hidden") || !strings.Contains(line, "shown") {
				t.Errorf("got %q", line)
			}
		})
	}
}

func TestLogLevel(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]int{"debug": 4, "": 3, "info": 3, "warn": 2, "error": 1} {
		var b bytes.Buffer
		log := Log{Level: level, Format: LogJSON}.Logger(&b, false)
		log.Debug("x")
		log.Info("x")
		log.Warn("x")
		log.Error("x")
		if got := strings.Count(b.String(), "\n"); got != want {
			t.Errorf("level %q writes %d lines, want %d", level, got, want)
		}
	}
}

func TestNoColor(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	var b bytes.Buffer
	Log{}.Logger(&b, true).Error("x")
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("got %q", b.String())
	}
}
