package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lmittmann/tint"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// Formats of logs.
const (
	LogAuto = "auto" // text on a terminal, JSON elsewhere
	LogText = "text"
	LogJSON = "json"
)

// Log is what is logged and how.
type Log struct {
	// Level is the least to be logged: debug, info, warn or error. Default: info.
	Level string `mapstructure:"level"`

	// Format is auto, text or json. Default: auto.
	Format string `mapstructure:"format"`
}

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{LogAuto, LogText, LogJSON}
)

// WithDefaults fills what is not set.
func (l Log) WithDefaults() Log {
	l.Level = cmp.Or(l.Level, "info")
	l.Format = cmp.Or(l.Format, LogAuto)
	return l
}

// Validate reports every fault at once.
func (l Log) Validate() error {
	l = l.WithDefaults()
	return errors.Join(oneOf("level", l.Level, logLevels), oneOf("format", l.Format, logFormats))
}

func oneOf(name, got string, known []string) error {
	if slices.Contains(known, got) {
		return nil
	}
	hint := suggest.DidYouMean(got, known)
	if hint == "" {
		hint = ", known are " + strings.Join(known, ", ")
	}
	return fmt.Errorf("%s: %s is unknown%s", name, quote(got), hint)
}

// Logger writes to w. On a terminal text is coloured, unless NO_COLOR is set (no-color.org).
func (l Log) Logger(w io.Writer, isTerminal bool) *slog.Logger {
	return l.logger(w, isTerminal, isTerminal && os.Getenv("NO_COLOR") == "")
}

func (l Log) logger(w io.Writer, isTerminal, colored bool) *slog.Logger {
	l = l.WithDefaults()
	var level slog.Level // info, if it is not one of ours
	_ = level.UnmarshalText([]byte(l.Level))
	if l.Format == LogJSON || l.Format == LogAuto && !isTerminal {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	format := time.RFC3339
	if isTerminal {
		format = "15:04:05.000" // who watches knows the day
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: format, NoColor: !colored}))
}
