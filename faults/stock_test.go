package faults

import (
	"encoding/json"
	"os"
	"sync"
	"testing"
)

// recordable are the scenarios that stock asynq's server can play too.
var recordable = map[string]scenario{
	"F1": killed, "F2": frozen, "F3": noRetryLeft, "F22": terminated, "F23": killedInBatches,
}

// TestRecordStock plays the catalogue with stock asynq and writes its figures into stock.json: `make faults-stock`. It takes
// minutes, for asynq takes a dead worker's jobs back after 99 s and more.
func TestRecordStock(t *testing.T) {
	if !*recordStock {
		t.Skip("make faults-stock")
	}
	var mu sync.Mutex
	for name, play := range recordable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := play(newRig(t, stock))
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
	if err := os.WriteFile(stockFile, append(data, '\n'), 0o644); err != nil { //nolint:gosec // a file of the repository
		t.Fatal(err)
	}
}
