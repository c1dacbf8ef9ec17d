package cli_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellhop-dev/bellhop/internal/cli"
)

func TestErrorsAreToldOnceAndHelp(t *testing.T) {
	t.Parallel()
	const seeHelp = "\nSee 'enqueue --help'.\n"
	for name, c := range map[string]struct {
		args []string
		err  error
		code int
		says string
	}{
		"a failure":         {nil, errors.New("Redis is away"), cli.ExitFailed, "enqueue: Redis is away\n"},
		"named already":     {nil, errors.New("enqueue log:write: no"), cli.ExitFailed, "enqueue log:write: no\n"},
		"... by usage":      {nil, cli.Usagef("enqueue: %d faults", 2), cli.ExitUsage, "enqueue: 2 faults" + seeHelp},
		"another word":      {nil, errors.New("enqueued nothing"), cli.ExitFailed, "enqueue: enqueued nothing\n"},
		"no unit":           {[]string{"--wait", "10"}, nil, cli.ExitUsage, `enqueue: --wait "10" has no unit: write 10s` + seeHelp},
		"no duration":       {[]string{"--wait=soon"}, nil, cli.ExitUsage, `enqueue: --wait "soon" is no duration: write one such as 30s, 10m or 1h30m` + seeHelp},
		"another's value":   {[]string{"--tries", "x"}, nil, cli.ExitUsage, `invalid argument "x" for "--tries" flag`},
		"a misspelled flag": {[]string{"--wiat", "1s"}, nil, cli.ExitUsage, `did you mean "--wait"?`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := &cobra.Command{Use: "enqueue", RunE: func(*cobra.Command, []string) error { return c.err }}
			var wait time.Duration
			var tries int
			cmd.Flags().DurationVar(&wait, "wait", 0, "")
			cmd.Flags().IntVar(&tries, "tries", 0, "")
			var stderr strings.Builder
			code := cli.Main(t.Context(), cmd, c.args, &stderr)
			exact := strings.HasSuffix(c.says, "\n")
			if got := stderr.String(); code != c.code || exact && got != c.says || !strings.Contains(got, c.says) {
				t.Errorf("exit %d, %q; want %d, %q", code, got, c.code, c.says)
			}
		})
	}
}
