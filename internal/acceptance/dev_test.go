package acceptance_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDev starts worker --dev as a newcomer does, on a machine with a redis-server and on one with nothing, and pastes what
// it prints into a shell.
func TestDev(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{"redis-server": "", "in-process": "PATH=/nonexistent"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			dev := prepare(t, dir, filepath.Join(programs(t), "worker"), "--dev")
			if path != "" {
				dev.cmd.Env = append(dev.cmd.Env, path)
			}
			begin := time.Now()
			dev.start()
			eventually(t, "what to try is printed", func() error {
				if !strings.Contains(dev.stdout.String(), "Ctrl-C stops") {
					return errors.New(dev.stdout.String())
				}
				return nil
			})
			took := time.Since(begin)
			t.Logf("ready in %v", took)
			if took > slow*2*time.Second {
				t.Errorf("ready in %v, at most 2s are promised", took)
			}
			if !strings.Contains(dev.stdout.String(), "("+name) {
				t.Errorf("another Redis than %s: %s", name, dev.stdout.String())
			}

			if out := dev.stdout.String(); strings.Contains(out, "redis://127.0.0.1:6379/0") == strings.Contains(out, "127.0.0.1:6379 was taken") {
				t.Errorf("whether the usual port was free is not told: %s", out)
			}

			commands := printedCommands(dev.stdout.String())
			if len(commands) != 5 {
				t.Fatalf("%d commands are printed, want 5: %q", len(commands), commands)
			}
			for _, c := range commands {
				prepare(t, dir, "sh", "-c", c).run().want(t, 0)
			}
			eventually(t, "the trigger of --dev logs the event", func() error {
				if log := dev.stderr.String(); !strings.Contains(log, "event com.acme.email.received from /enqueue/") || !strings.Contains(log, "INBOX") {
					return errors.New("it is not in the log")
				}
				return nil
			})
			if took := dev.stop(); took > slow*time.Second {
				t.Errorf("stopped in %v", took)
			}
		})
	}
}

// TestDevForced leaves a job in the middle: nobody recovers it, for its Redis ends too.
func TestDevForced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dev := prepare(t, dir, filepath.Join(programs(t), "worker"), "--dev", "--grace", "10m")
	dev.start()
	eventually(t, "what to try is printed", func() error {
		if !strings.Contains(dev.stdout.String(), "Ctrl-C stops") {
			return errors.New(dev.stdout.String())
		}
		return nil
	})
	url, called := neverAnswers(t)
	enqueue, _, _ := strings.Cut(printedCommands(dev.stdout.String())[1], " '")
	prepare(t, dir, "sh", "-c", enqueue+` '{"url":"`+url+`"}'`).run().want(t, 0)
	called()
	force(t, dev)
	if said := dev.stderr.String(); !strings.Contains(said, "running jobs end here") || strings.Contains(said, "other workers") {
		t.Errorf("it says: %s", said)
	}
}

// printedCommands are the lines to paste.
func printedCommands(text string) (commands []string) {
	_, text, _ = strings.Cut(text, "Try, in a second shell here:")
	for l := range strings.SplitSeq(text, "\n") {
		if c, ok := strings.CutPrefix(l, "  "); ok {
			commands = append(commands, c)
		}
	}
	return commands
}
