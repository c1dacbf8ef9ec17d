package wire

import (
	"strconv"
	"testing"
	"time"
)

// What stands in a lease is found again, and stock tools read the same second.
func TestMarksSurviveTheirLease(t *testing.T) {
	t.Parallel()
	last := time.Date(2105, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	for _, second := range []int64{1_700_000_000, 1<<31 - 1, 1 << 31, last} {
		for _, number := range []int64{1, 2, 4095} {
			for _, fetch := range []int64{1, 511, 512, 1_000_003} {
				mark := NewMark(number, fetch)
				lease := mark.Lease(second)
				// What a script puts together, Redis reads to the last bit.
				if score, err := strconv.ParseFloat(strconv.FormatInt(second, 10)+mark.Fraction(), 64); err != nil || score != lease {
					t.Errorf("%d with %q is %v, %v", second, mark.Fraction(), score, err)
				}
				if got := LeaseMark(lease); got != mark || got.Worker() != number || int64(lease) != second {
					t.Fatalf("worker %d, fetch %d at %d: read %d of worker %d at %f", number, fetch, second, got, got.Worker(), lease)
				}
			}
		}
		if LeaseMark(float64(second)) != 0 {
			t.Errorf("a stock server's lease at %d has a mark", second)
		}
	}
}
