package main

import (
	"slices"
	"strings"

	"github.com/bellhop-dev/bellhop/internal/cli"
)

// form is one way to call the command: what asks for it, and the flags that mean something there.
type form struct {
	name  string
	flags []string
}

var (
	formJob       = form{"a job", []string{"queue", "id", "in", "at", "max-retry", "timeout", "unique", "wait", "force"}}
	formEvent     = form{"--event", []string{"id", "source", "subject"}}
	formPayloads  = form{"TASK --from", []string{"queue", "in", "at", "max-retry", "timeout", "unique", "force", "rejected"}}
	formData      = form{"--event --from", []string{"source", "subject", "rejected"}}
	formRecords   = form{"--from", []string{"queue", "in", "at", "max-retry", "timeout", "unique", "force", "source", "rejected"}}
	formList      = form{"--list", nil}
	formDead      = form{"--dead-matches", nil}
	formReplay    = form{"--replay", []string{"triggers"}}
	formDependent = []string{
		"queue", "id", "in", "at", "max-retry", "timeout", "unique", "wait", "force", "source", "subject", "rejected", "triggers",
	}
)

// form finds which call this is, and refuses a mixture.
func (e *enqueuer) form(args []string) (form, error) {
	var asked []string
	for _, name := range []string{"list", "dead-matches", "replay", "from", "event"} {
		if e.flags.Changed(name) {
			asked = append(asked, "--"+name)
		}
	}
	is := func(flags ...string) bool { return slices.Equal(asked, flags) }
	switch {
	case is("--from") && len(args) > 0:
		return formPayloads, nil
	case is("--from"):
		return formRecords, nil
	case is("--from", "--event"):
		return formData, nil
	case is("--event"):
		return formEvent, nil
	case len(asked) > 1:
		return form{}, cli.Usagef("%s exclude each other", strings.Join(asked, " and "))
	case is("--list"), is("--dead-matches"), is("--replay"):
		if len(args) > 0 {
			return form{}, cli.Usagef("%s takes no TASK and no payload: leave %q out", asked[0], args)
		}
	}
	switch {
	case is("--list"):
		return formList, nil
	case is("--dead-matches"):
		return formDead, nil
	case is("--replay"):
		return formReplay, nil
	}
	return formJob, nil
}

// checkFlags refuses what would be given for nothing, and values that can't be meant.
func (e *enqueuer) checkFlags(f form) error {
	var idle []string
	for _, name := range formDependent {
		if e.flags.Changed(name) && !slices.Contains(f.flags, name) {
			idle = append(idle, "--"+name)
		}
	}
	switch {
	case len(idle) > 0:
		return cli.Usagef("%s can't be used with %s: leave it out", strings.Join(idle, " and "), f.name)
	case e.at != "" && e.flags.Changed("in"):
		return cli.Usagef("--in and --at exclude each other")
	case e.in < 0:
		return cli.Usagef("--in %v is negative: leave it out to start the job at once", e.in)
	case e.flags.Changed("wait") && e.wait <= 0:
		return cli.Usagef("--wait %v is no time to wait: give one such as 30s", e.wait)
	}
	return nil
}
