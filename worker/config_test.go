package worker_test

import (
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/worker"
)

func TestConfigKnowsItsEngines(t *testing.T) {
	t.Parallel()
	if got := (worker.Config{}).WithDefaults().Engine; got != worker.EngineBellhop {
		t.Errorf("the default engine is %q", got)
	}
	for _, engine := range []string{"", worker.EngineBellhop, worker.EngineAsynq} {
		if err := (worker.Config{Engine: engine}).Validate(); err != nil {
			t.Errorf("%q: %v", engine, err)
		}
	}
	err := worker.Config{Engine: "belhop"}.Validate()
	if err == nil || !strings.Contains(err.Error(), `did you mean "bellhop"?`) {
		t.Errorf("got %v", err)
	}
}
