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

func TestConfigWeighsQueues(t *testing.T) {
	t.Parallel()
	given := []worker.Queue{{Name: "mail"}, {Name: "low", Weight: 3}}
	cfg := worker.Config{Queues: given}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	if got := cfg.WithDefaults().Queues; got[0].Weight != 1 || got[1].Weight != 3 || given[0].Weight != 0 {
		t.Errorf("%v of %v", got, given)
	}
	if err := (worker.Config{Queues: []worker.Queue{{Name: "mail", Weight: -1}}}).Validate(); err == nil {
		t.Error("a negative weight was taken")
	}
}
