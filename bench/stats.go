package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Values are what one measurement has found, by name.
type Values map[string]float64

// median of the values; NaN if there are none.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	mid := len(v) / 2
	if len(v)%2 == 1 {
		return v[mid]
	}
	return (v[mid-1] + v[mid]) / 2
}

// quantile is the smallest value that is not below a share q of all, by nearest rank. The values must be sorted.
func quantile(sorted []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// quantiles are in milliseconds.
func quantiles(took []time.Duration) Values {
	took = slices.Sorted(slices.Values(took))
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return Values{
		"min_ms": ms(took[0]), "p50_ms": ms(quantile(took, 0.50)), "p99_ms": ms(quantile(took, 0.99)),
		"max_ms": ms(took[len(took)-1]), "jobs": float64(len(took)),
	}
}

// String lists the values in the order of their names, without the details.
func (v Values) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if !strings.HasPrefix(name, detail) {
			parts = append(parts, name+"="+digits(v[name]))
		}
	}
	return strings.Join(parts, " ")
}

// digits writes a number with about three that count.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
