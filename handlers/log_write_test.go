package handlers_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func writeLog(t *testing.T, logger *slog.Logger, payload string) error {
	t.Helper()
	j := &job.Job{ID: "job-1", Payload: []byte(payload)} // unchecked, as a Go producer's
	return tasks.WriteLog.HandledBy(handlers.NewLog(logger).Write).Handle(job.NewContext(t.Context(), j), j)
}

func TestLogWrites(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]string{
		`{"message":"hi"}`:                                                      `level=INFO msg=hi job=job-1`,
		`{"message":"hi","level":"WARN"}`:                                       `level=WARN msg=hi job=job-1`,
		`{"message":"hi","level":"warning"}`:                                    `level=WARN msg=hi job=job-1`,
		`{"message":"hi","level":"debug"}`:                                      `level=DEBUG msg=hi job=job-1`,
		`{"message":"","level":"error"}`:                                        `level=ERROR msg="" job=job-1`,
		`{"message":"a\nlevel=ERROR"}`:                                          `level=INFO msg="a\nlevel=ERROR" job=job-1`,
		`{"message":"m","fields":{"b":1234567890,"a":{"c":true,"d":-1.5}}}`:     `level=INFO msg=m job=job-1 fields.a.c=true fields.a.d=-1.5 fields.b=1234567890`,
		`{"message":"m","fields":{"job":"x","msg":"y","n":null,"e":{},"l":[]}}`: `level=INFO msg=m job=job-1 fields.e=map[] fields.job=x fields.l=[] fields.msg=y fields.n=<nil>`,
		`{"message":"m","fields":{"f":1e300,"big":9007199254740993}}`:           `level=INFO msg=m job=job-1 fields.big=9007199254740992 fields.f=1e+300`,
	} {
		var out bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if err := writeLog(t, logger, payload); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
		_, got, _ := strings.Cut(strings.TrimSpace(out.String()), " ")
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", payload, got, want)
		}
	}
}

func TestLogIsOneJSONObjectALine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	deep := strings.Repeat(`{"a":`, 500) + `1` + strings.Repeat(`}`, 500)
	err := writeLog(t, slog.New(slog.NewJSONHandler(&out, nil)), `{"message":"m\u0000\n","fields":{"level":"FAKE","deep":`+deep+`,"x":"\ud800"}}`)
	if err != nil {
		t.Fatal(err)
	}
	var line struct {
		Level  string
		Job    string
		Fields map[string]any
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("%v: %s", err, out.String())
	}
	if line.Level != "INFO" || line.Job != "job-1" || line.Fields["level"] != "FAKE" {
		t.Errorf("got %+v", line)
	}
}

func TestLogRefusesUnknownLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := writeLog(t, slog.New(slog.NewTextHandler(&out, nil)), `{"message":"m","level":"fatal"}`)
	wantDiscard(t, err, `"fatal"`, "debug, info, warn or error")
	if out.Len() > 0 {
		t.Errorf("wrote %s", out.String())
	}
}
