package faults

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	recordStock = flag.Bool("stock", false, "record stock asynq's figures in "+stockFile)
	nemesisFor  = flag.Duration("nemesis", 20*time.Second, "how long the nemesis goes on")
	nemesisSeed = flag.Uint64("seed", 0, "the nemesis to replay; 0 draws one")
	writeTable  = flag.String("write", "", "a document whose table is to be replaced by this run's figures")
)

func TestMain(m *testing.M) {
	if text := os.Getenv(roleVariable); text != "" {
		os.Exit(playRole(text))
	}
	flag.Parse()
	// The tests mostly wait, each for its own processes.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := flag.Set("test.parallel", "8"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	table.print()
	if *writeTable != "" {
		if err := table.write(*writeTable); err != nil {
			fmt.Fprintln(os.Stderr, "write the table:", err)
			code = 1
		}
	}
	os.Exit(code)
}
