package faults

import (
	"encoding/json"
	"os"
	"sync"
	"testing"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// recordable are the scenarios that stock asynq's server can play too. F4 would take it an hour: its 25 retries, each after a
// recovery; F11's it does not notice, F9's mode it does not have.
var recordable = map[string]struct {
	play scenario
	opts []rigOption
}{
	"F1": {play: killed}, "F2": {play: frozen}, "F3": {play: noRetryLeft},
	"F5": {play: redisRestarts, opts: []rigOption{withRedis(redistest.WithAOF())}},
	"F6": {play: repliesCut}, "F7": {play: redisKilled, opts: []rigOption{withoutRedis()}},
	"F8": {play: masterKilled, opts: []rigOption{withoutRedis()}}, "F14": {play: clocksOff}, "F10": {play: redisFull}, "F12": {play: idsWithoutBody}, "F13": {play: undecodable},
	"F15": {play: scriptsFlushed}, "F17": {play: stubborn}, "F20": {play: largeJobs}, "F21": {play: manyDead},
	"F22": {play: terminated}, "F23": {play: killedInBatches},
}

// TestRecordStock plays the catalogue with stock asynq and writes its figures into stock.json: `make faults-stock`. It takes
// minutes, for asynq takes a dead worker's jobs back after 99 s and more.
func TestRecordStock(t *testing.T) {
	t.Parallel()
	if !*recordStock {
		t.Skip("make faults-stock")
	}
	var mu sync.Mutex
	for name, scene := range recordable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := scene.play(newRig(t, stock, scene.opts...))
			t.Logf("%s: %s", name, got.text)
			mu.Lock()
			defer mu.Unlock()
			record(t, name, got.text)
		})
	}
}

// record replaces one figure of the file.
func record(t *testing.T, name, text string) {
	t.Helper()
	figures, err := stockFigures()
	if os.IsNotExist(err) {
		figures = make(map[string]string)
	} else if err != nil {
		t.Fatal(err)
	}
	figures[name] = text
	data, err := json.MarshalIndent(figures, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stockFile, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
