package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// The chart is one SVG of two panels, drawn from the same rows as the table: what is done in a second, as bars from zero, and what
// is waited, from p50 to p99 on a logarithmic scale.

const (
	chartWidth = 900
	labelWidth = 290 // left of the axes
	plotWidth  = 500
	barHeight  = 12
	groupGap   = 10
	margin     = 20
)

// palette are the engines' classes in the style sheet, in their order.
var palette = []string{"a", "b", "c", "d"}

// chartStyle carries its own background, so that text and ground always belong together, whatever page the chart is shown on.
const chartStyle = `
	text { font: 12px system-ui, sans-serif; fill: #1f2328; }
	.head { font-weight: 600; font-size: 14px; }
	.soft { fill: #59636e; }
	.ground { fill: #ffffff; }
	.grid { stroke: #d1d9e0; }
	.whisker { stroke: #1f2328; }
	.limit { stroke: #cf222e; stroke-dasharray: 4 3; }
	.a { fill: #8c959f; stroke: #8c959f; }
	.b { fill: #0969da; stroke: #0969da; }
	.c { fill: #1a7f37; stroke: #1a7f37; }
	.d { fill: #9a6700; stroke: #9a6700; }
	@media (prefers-color-scheme: dark) {
		text { fill: #f0f6fc; }
		.soft { fill: #9198a1; }
		.ground { fill: #0d1117; }
		.grid { stroke: #3d444d; }
		.whisker { stroke: #f0f6fc; }
		.limit { stroke: #f85149; }
		.a { fill: #7d8590; stroke: #7d8590; }
		.b { fill: #4493f8; stroke: #4493f8; }
		.c { fill: #3fb950; stroke: #3fb950; }
		.d { fill: #d29922; stroke: #d29922; }
	}
`

// drawing is an SVG that grows downwards.
type drawing struct {
	b strings.Builder
	y float64
}

// Chart draws the report.
func (r *Report) Chart() string {
	d := &drawing{y: margin + 14}
	d.legend(r)
	d.rates(r)
	d.waits(r)
	height := d.y + margin
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" height="%.0f" role="img">`+"\n", chartWidth, height, chartWidth, height)
	fmt.Fprintf(&out, "<title>%s</title>\n<style>%s</style>\n", escape(strings.Join(r.Engines, ", ")+": throughput and waiting times"), chartStyle)
	fmt.Fprintf(&out, `<rect class="ground" width="%d" height="%.0f" rx="6"/>`+"\n", chartWidth, height)
	out.WriteString(d.b.String() + "</svg>\n")
	return out.String()
}

func (d *drawing) legend(r *Report) {
	x := float64(margin)
	for i, engine := range r.Engines {
		fmt.Fprintf(&d.b, `<rect class="%s" x="%.1f" y="%.1f" width="12" height="12"/>`+"\n", classOf(i), x, d.y-11)
		name := engine
		if version := r.Versions[engine]; version != "" && !isBellhop(engine) {
			name += " " + version
		}
		d.text(x+18, d.y, "start", "", name)
		x += 40 + 7.5*float64(len(name))
	}
	d.text(chartWidth-margin, d.y, "end", "soft", "medians of "+rounds(r.Plan.Rounds)+"; thin lines: lowest to highest")
	d.y += 34
}

// rates is the panel of bars.
func (d *drawing) rates(r *Report) {
	var shown []row
	most := 0.0
	for _, w := range r.rows() {
		if w.unit != "jobs/s" || w.only != "" {
			continue
		}
		for _, engine := range r.Engines {
			if s := w.of(r, engine); s.n > 0 {
				most = max(most, s.high)
			}
		}
		shown = append(shown, w)
	}
	limit := spreadOf(nil)
	for _, w := range r.rows() {
		if w.only == scriptsEngine && w.unit == "jobs/s" {
			limit = w.of(r, scriptsEngine)
		}
	}
	if limit.n > 0 {
		most = max(most, limit.median)
	}
	if most == 0 {
		return
	}
	d.text(margin, d.y, "start", "head", "Throughput, jobs per second (longer is better)")
	d.y += 14
	step := niceStep(most)
	scale := func(v float64) float64 { return labelWidth + v/(math.Ceil(most/step)*step)*plotWidth }
	top := d.y
	bottom := top + d.heightOf(r, shown)
	for v := 0.0; v <= most+step/2; v += step {
		d.gridline(scale(v), top, bottom, thousands(int64(v)))
	}
	if limit.n > 0 {
		end := top + d.heightOf(r, shown[:min(len(shown), len(r.Plan.Cells))]) // it limits drains alone
		fmt.Fprintf(&d.b, `<line class="limit" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", scale(limit.median), scale(limit.median), top, end)
		d.text(scale(limit.median)+6, top+14, "start", "soft", "bare scripts: "+digits(limit.median))
	}
	d.groups(r, shown, func(i int, s spread, y float64) {
		fmt.Fprintf(&d.b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%d"/>`+"\n", classOf(i), scale(0), y, scale(s.median)-scale(0), barHeight-2)
		d.whisker(scale(s.low), scale(s.high), y+barHeight/2-1)
		d.text(scale(s.high)+6, y+barHeight-3, "start", "soft", digits(s.median))
	})
	d.y = bottom + 46
}

// wait is a pair of rows that makes one bar of the second panel.
type waitRow struct {
	label    string
	p50, p99 row
}

// waits is the panel of times.
func (d *drawing) waits(r *Report) {
	var shown []waitRow
	all := r.rows()
	for i, w := range all {
		if label, ok := strings.CutSuffix(w.label, ", p50"); ok && w.unit == "ms" {
			shown = append(shown, waitRow{label, w, all[i+1]})
		}
	}
	low, high := math.Inf(1), 0.0
	for _, w := range shown {
		for _, engine := range r.Engines {
			if a, b := w.p50.of(r, engine), w.p99.of(r, engine); a.n > 0 && b.n > 0 {
				low, high = min(low, a.median), max(high, b.median)
			}
		}
	}
	if high == 0 {
		return
	}
	from, to := math.Floor(math.Log10(max(low, 0.01))), math.Ceil(math.Log10(high))
	scale := func(v float64) float64 {
		return labelWidth + max(math.Log10(v)-from, 0)/max(to-from, 1)*plotWidth
	}
	d.text(margin, d.y, "start", "head", "Waiting, p50 to p99, milliseconds on a logarithmic scale (left is better)")
	d.y += 14
	top := d.y
	rows := make([]row, len(shown))
	for i, w := range shown {
		rows[i] = w.p50
		rows[i].label = w.label
	}
	bottom := top + d.heightOf(r, rows)
	for e := from; e <= to; e++ {
		d.gridline(scale(math.Pow(10, e)), top, bottom, fmt.Sprintf("%g", math.Pow(10, e)))
	}
	n := 0
	d.groups(r, rows, func(i int, s spread, y float64) {
		p99 := shown[n/len(r.Engines)].p99.of(r, r.Engines[i])
		x1, x2 := scale(s.median), scale(p99.median)
		fmt.Fprintf(&d.b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%d" rx="3"/>`+"\n", classOf(i), x1-3, y+2, x2-x1+6, barHeight-6)
		d.text(x2+9, y+barHeight-3, "start", "soft", digits(s.median)+" to "+digits(p99.median))
	}, func() { n++ })
	d.y = bottom + 24
}

func (d *drawing) heightOf(r *Report, rows []row) float64 {
	return float64(len(rows) * (len(r.Engines)*barHeight + groupGap))
}

// groups draws each row's label and one bar for each engine that has a value. Each bar, drawn or not, is followed by after.
func (d *drawing) groups(r *Report, rows []row, bar func(engine int, s spread, y float64), after ...func()) {
	for _, w := range rows {
		y := d.y + groupGap/2
		d.text(labelWidth-10, y+float64(len(r.Engines)*barHeight)/2+4, "end", "", w.label)
		for i, engine := range r.Engines {
			if s := w.of(r, engine); s.n > 0 {
				bar(i, s, y)
			}
			for _, f := range after {
				f()
			}
			y += barHeight
		}
		d.y += float64(len(r.Engines)*barHeight + groupGap)
	}
}

func (d *drawing) gridline(x, top, bottom float64, label string) {
	fmt.Fprintf(&d.b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", x, x, top, bottom)
	d.text(x, bottom+14, "middle", "soft", label)
}

func (d *drawing) whisker(x1, x2, y float64) {
	if x2-x1 >= 1 {
		fmt.Fprintf(&d.b, `<line class="whisker" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", x1, x2, y, y)
	}
}

func (d *drawing) text(x, y float64, anchor, class, text string) {
	fmt.Fprintf(&d.b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, escape(text))
}

func classOf(engine int) string { return palette[engine%len(palette)] }

// niceStep is 1, 2 or 5 times a power of ten, for four to ten lines up to most.
func niceStep(most float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, f := range []float64{5, 2} {
		if most/(step*f) >= 4 {
			return step * f
		}
	}
	return step
}

func escape(text string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(text)); err != nil {
		return ""
	}
	return b.String()
}
