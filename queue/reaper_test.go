package queue

import (
	"testing"
	"time"
)

// What a reaper may conclude from a row of looks, 250 ms apart.
func TestVerdict(t *testing.T) {
	t.Parallel()
	type look struct {
		beat           int64
		connected, own bool
	}
	row := func(n int, l look) []look {
		looks := make([]look, n)
		for i := range looks {
			looks[i] = l
		}
		return looks
	}
	alive, gone, blind := look{1, true, true}, look{1, false, true}, look{1, false, false}
	moving := func(n int) []look {
		looks := make([]look, n)
		for i := range looks {
			looks[i] = look{beat: int64(i), connected: false, own: true}
		}
		return looks
	}
	for name, c := range map[string]struct {
		looks        []look
		dead, frozen bool
	}{
		"at once":                           {looks: row(1, gone)},
		"its connection ended":              {looks: append(row(2, alive), row(4, gone)...), dead: true},
		"its connection ended a moment ago": {looks: append(row(8, alive), row(1, gone)...)},
		"it was never seen connected":       {looks: row(8, gone)},
		"it was never seen, for long":       {looks: row(16, gone), dead: true},
		"it beats without a connection":     {looks: moving(50)},
		"it stands still, connected":        {looks: row(20, alive)},
		"it stands still for long":          {looks: row(34, alive), frozen: true},
		"our own connection is gone too":    {looks: append(row(2, alive), row(20, blind)...)},
		"ours is back, its own not yet":     {looks: append(append(row(2, alive), row(4, blind)...), row(5, gone)...)},
		"nobody's connection is ever known": {looks: row(34, blind), frozen: true},
		"it came back for one look":         {looks: append(append(row(2, alive), row(1, gone)...), append(row(1, alive), row(1, gone)...)...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &Reaper{vigils: make(map[post]*vigil)}
			now := time.Now()
			dead, frozen := false, false
			for _, l := range c.looks {
				v := r.watch(post{"q", "w"}, l.beat, now)
				v.mark(l.connected, l.own)
				dead, frozen = v.verdict(now)
				now = now.Add(lookEvery)
			}
			if dead != c.dead || frozen != c.frozen {
				t.Errorf("dead %t, frozen %t; want %t, %t", dead, frozen, c.dead, c.frozen)
			}
		})
	}
}
