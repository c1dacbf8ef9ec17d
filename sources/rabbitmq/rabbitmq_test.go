package rabbitmq_test

import (
	"testing"

	"github.com/bellhop-dev/bellhop/internal/rabbittest"
	"github.com/bellhop-dev/bellhop/sources/sourcetest"
)

func TestPromisesOfSources(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness { return newHarness(t, rabbittest.Shared(t)) })
}

func TestNothingIsLostByKills(t *testing.T) {
	t.Parallel()
	sourcetest.Endure(t, newHarness(t, rabbittest.Start(t)), 50_000, 6)
}
