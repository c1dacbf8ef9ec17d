// Package cli is what bellhop's commands share: exit codes, errors that help, a version.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/internal/version"
)

// Exit codes of every command.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2 // bad usage or input
)

// UsageError is a fault of the caller's: a flag, an argument, a file that they gave.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the fault.
func (e UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// SilentError ends the command with ExitFailed; what there is to say has been said.
var SilentError = errors.New("failed") //nolint:revive,errname,staticcheck // a sentinel that is never shown

// Main runs the command and returns the exit code.
func Main(ctx context.Context, cmd *cobra.Command, args []string, stderr io.Writer) int {
	prepare(cmd)
	cmd.SetArgs(args)
	cmd.SetErr(stderr)
	called, err := cmd.ExecuteContextC(ctx)
	var usage UsageError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, SilentError):
		return ExitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s\nSee '%s --help'.\n", told(cmd, err), called.CommandPath())
		return ExitUsage
	}
	fmt.Fprintln(stderr, told(cmd, err))
	return ExitFailed
}

// told begins with the command's name, once: "enqueue log:write: ..." has it.
func told(cmd *cobra.Command, err error) string {
	text := err.Error()
	if after, named := strings.CutPrefix(text, cmd.Name()); named && (strings.HasPrefix(after, " ") || strings.HasPrefix(after, ":")) {
		return text
	}
	return cmd.Name() + ": " + text
}

func prepare(cmd *cobra.Command) {
	cmd.Version = version.String() // cobra's own template prints it: setting one would link text/template and double the program
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.Flags().SortFlags = false
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if wrong := wrongDuration(err); wrong != nil {
			return UsageError{wrong}
		}
		return UsageError{errors.New(err.Error() + meant(c.Flags(), err))}
	})
}

// wrongDuration says how to write the duration of a flag; nil if it is something else that is wrong.
func wrongDuration(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) || !strings.HasPrefix(fmt.Sprint(invalid.Unwrap()), "time: ") { // a flag of a type of its own says it itself
		return nil
	}
	name, value := invalid.GetFlag().Name, invalid.GetValue()
	if _, number := strconv.ParseFloat(value, 64); number == nil {
		return fmt.Errorf("--%s %q has no unit: write %ss", name, value, value)
	}
	return fmt.Errorf("--%s %q is no duration: write one such as 30s, 10m or 1h30m", name, value)
}

// meant finds the flag that a mistyped one was meant to be.
func meant(flags *pflag.FlagSet, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return suggest.DidYouMean("--"+strings.TrimLeft(unknown.GetSpecifiedName(), "-"), names)
}

// IsTerminal tells whether a person looks at f.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
