package job_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/bellhop-dev/bellhop/job"
)

func TestDiscardErrKeepsItsCause(t *testing.T) {
	t.Parallel()
	err := job.DiscardErr(fmt.Errorf("read the template: %w", fs.ErrNotExist))
	if !job.IsDiscard(err) || !errors.Is(err, fs.ErrNotExist) || err.Error() != "discarded: read the template: file does not exist" {
		t.Errorf("got %v", err)
	}
	if job.DiscardErr(nil) != nil {
		t.Error("no failure became one")
	}
	if err := job.Discard("why"); !job.IsDiscard(err) || errors.Unwrap(err) != nil {
		t.Errorf("got %v", err)
	}
}
