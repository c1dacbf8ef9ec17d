package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/bellhop-dev/bellhop/internal/cli"
)

func (p *process) tellCheck(queues []string, err error) error {
	if p.json {
		answer := map[string]any{"ok": err == nil, "queues": queues}
		if err != nil {
			answer["error"] = err.Error()
		}
		if err := json.NewEncoder(p.stdout).Encode(answer); err != nil {
			return err
		}
		if err != nil {
			return cli.SilentError
		}
		return nil
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "live workers serve: %s\n", strings.Join(queues, ", "))
	return err
}
