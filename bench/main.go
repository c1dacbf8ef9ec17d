// Command bench measures bellhop beside its peers: stock asynq, and River where asked for. All of them run in turns in one
// run, on the same machine and on a fresh server for each measurement, so that what disturbs one disturbs the other: read the ratios,
// not the absolute figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/bellhop-dev/bellhop/internal/redisconn"
)

// Where -write puts what a run has found, seen from this directory.
const (
	resultsFile = "results/performance.json"
	pageFile    = "../docs/performance.md"
	chartFile   = "../docs/performance.svg"
)

func main() {
	ctx := context.Background()
	if len(os.Args) > 1 && os.Args[1] == childFlag {
		os.Exit(childMain(ctx))
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	redisconn.QuietDriver(slog.New(slog.DiscardHandler))
	report, err := o.report(ctx, stderr)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, report.Text())
	if o.out != "" {
		if err := report.Save(o.out); err != nil {
			return err
		}
	}
	if o.write {
		return report.Publish(pageFile, chartFile)
	}
	return nil
}

// options are the command line.
type options struct {
	engines []string
	short   bool
	rounds  int
	only    *regexp.Regexp
	write   bool
	out     string
	render  string
	profile string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	engines := f.String("engines", "asynq,bellhop", "who is measured: asynq, bellhop, bellhop:ENGINE (bellhop's worker on that engine), river; the first one is what the others are compared with")
	river := f.Bool("river", false, "measure River on PostgreSQL too (Debian: apt-get install postgresql)")
	f.BoolVar(&o.short, "short", false, "two rounds of shorter measurements, in about 2 minutes")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of everything (default 3, with -short 2)")
	only := f.String("only", "", "measure only what matches this regular expression")
	f.BoolVar(&o.write, "write", false, "write "+resultsFile+" and draw "+pageFile+" and its chart from it")
	f.StringVar(&o.out, "out", "", "write the raw data to this file")
	f.StringVar(&o.render, "render", "", "measure nothing, show the data of this file")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of the worker of each drain by one process into this directory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected %q: bench takes flags alone, see -help", f.Arg(0))
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	o.engines = strings.Split(*engines, ",")
	if *river {
		o.engines = append(o.engines, "river")
	}
	for _, name := range o.engines {
		if _, err := engineNamed(name); err != nil {
			return o, err
		}
	}
	if o.write && o.render == "" {
		o.out = resultsFile
	}
	return o, nil
}

// report measures, or reads what was measured before.
func (o options) report(ctx context.Context, progress io.Writer) (*Report, error) {
	if o.render != "" {
		return LoadReport(o.render)
	}
	plan := fullPlan()
	if o.short {
		plan = shortPlan()
	}
	if o.rounds > 0 {
		plan.Rounds = o.rounds
	}
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o750); err != nil {
			return nil, err
		}
	}
	r, err := newRunner(ctx, plan, o.engines, progress)
	if err != nil {
		return nil, err
	}
	defer r.close()
	r.profiles = o.profile
	return r.run(ctx, o.only)
}
