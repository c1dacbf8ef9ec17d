package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Fault is one thing wrong with the configuration.
//
//nolint:errname // a fault of the configuration, not of the program
type Fault struct {
	Text  string // what is wrong, beginning with the key
	Place string // bellhop.yaml:3, BELLHOP_X, --flag; "" if it is in none
	Err   error  // what the package said, if it was one
}

func (f *Fault) Error() string {
	if f.Place == "" {
		return f.Text
	}
	return f.Text + " (" + f.Place + ")"
}

func (f *Fault) Unwrap() error { return f.Err }

// Faults is all that is wrong with a configuration: the error of Load. Commands exit with 2 on it.
//
//nolint:errname // they are many
type Faults []*Fault

func (f Faults) Error() string {
	if len(f) == 1 {
		return "configuration: " + f[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d faults", len(f))
	for _, fault := range f {
		b.WriteString("\n  " + strings.ReplaceAll(fault.Error(), "\n", "\n    "))
	}
	return b.String()
}

// Unwrap lets errors.Is and errors.As look at each.
func (f Faults) Unwrap() []error {
	errs := make([]error, len(f))
	for i, fault := range f {
		errs[i] = fault
	}
	return errs
}

func (f *Faults) add(place, format string, args ...any) {
	*f = append(*f, &Fault{Text: fmt.Sprintf(format, args...), Place: place})
}

// quote shows what somebody wrote, in one short line.
func quote(s string) string {
	const most = 60
	if r := []rune(s[:min(len(s), 4*most)]); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return strconv.Quote(s)
}
