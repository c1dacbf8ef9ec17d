package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// ErrInvalid is in every error about an event that breaks the rules of CloudEvents 1.0 or a limit of this package.
var ErrInvalid = errors.New("invalid event")

// The limits on attributes, in bytes. CloudEvents asks only that 64 KiB pass; these keep an attribute from being
// used as a payload. The size of the whole event is limited by Config.MaxEventBytes.
const (
	maxID            = 1024
	maxSource        = 2048
	maxType          = 512
	maxSubject       = 4096
	maxContentType   = 256
	maxSchema        = 2048
	maxExtensions    = 64
	maxExtensionName = 64
	maxExtension     = 4096
)

// Validate reports every fault of the event at once; the error is an [ErrInvalid].
func (e *Event) Validate() error {
	faults := e.attributeFaults()
	if e.Data != nil && e.IsJSON() && !json.Valid(e.Data) {
		faults = append(faults, fmt.Errorf("data: is not JSON, but datacontenttype is %q", e.DataContentType))
	}
	return invalid(faults)
}

func invalid(faults []error) error {
	if len(faults) == 0 {
		return nil
	}
	return faultErrors(faults)
}

// Faults returns each fault that an [ErrInvalid] reports, as "attribute: what is wrong"; nil for any other error.
func Faults(err error) []string {
	list, ok := errors.AsType[faultErrors](err)
	switch {
	case !errors.Is(err, ErrInvalid):
		return nil
	case !ok:
		return []string{strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": ")}
	}
	faults := make([]string, len(list))
	for i, fault := range list {
		faults[i] = fault.Error()
	}
	return faults
}

// faultErrors are the faults of one event.
type faultErrors []error

func (l faultErrors) Error() string { return ErrInvalid.Error() + ": " + errors.Join(l...).Error() }

func (l faultErrors) Unwrap() []error { return append([]error{ErrInvalid}, l...) }

func (e *Event) attributeFaults() []error {
	var f []error
	if e.SpecVersion != "" && e.SpecVersion != SpecVersion {
		f = append(f, fmt.Errorf("specversion: is %q, want %q", e.SpecVersion, SpecVersion))
	}
	f = required(f, "id", e.ID, maxID)
	f = required(f, "source", e.Source, maxSource)
	f = required(f, "type", e.Type, maxType)
	f = text(f, "subject", e.Subject, maxSubject)
	f = text(f, "datacontenttype", e.DataContentType, maxContentType)
	f = text(f, "dataschema", e.DataSchema, maxSchema)

	if _, err := url.Parse(e.Source); err != nil {
		f = append(f, fmt.Errorf("source: is not a URI reference: %w", err))
	}
	if e.DataSchema != "" {
		if u, err := url.Parse(e.DataSchema); err != nil {
			f = append(f, fmt.Errorf("dataschema: is not a URI: %w", err))
		} else if !u.IsAbs() {
			f = append(f, fmt.Errorf("dataschema: %q is not absolute", e.DataSchema))
		}
	}
	if t := e.DataContentType; t != "" && t != contentJSON {
		if _, _, err := mime.ParseMediaType(t); err != nil {
			f = append(f, fmt.Errorf("datacontenttype: %q is not a media type: %w", t, err))
		}
	}
	if y := e.Time.Year(); !e.Time.IsZero() && (y < 0 || y > 9999) {
		f = append(f, fmt.Errorf("time: year %d has no RFC 3339 form", y))
	}
	return e.extensionFaults(f)
}

func (e *Event) extensionFaults(f []error) []error {
	if len(e.Extensions) == 0 {
		return f
	}
	if n := len(e.Extensions); n > maxExtensions {
		f = append(f, fmt.Errorf("extensions: are %d, at most %d are allowed", n, maxExtensions))
	}
	names := make([]string, 0, len(e.Extensions))
	for name := range e.Extensions {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if fault := extensionNameFault(name); fault != nil {
			f = append(f, fault)
			continue
		}
		switch v := e.Extensions[name].(type) {
		case string:
			f = text(f, name, v, maxExtension)
		case bool, int32:
		default:
			f = append(f, fmt.Errorf("%s: is a %T, an extension is a string, a bool or an int32", name, v))
		}
	}
	return f
}

func extensionNameFault(name string) error {
	if name == "" || len(name) > maxExtensionName {
		return fmt.Errorf("extension %.80q: its name has %d characters, 1 to %d are allowed", name, len(name), maxExtensionName)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("extension %q: its name has other characters than a-z and 0-9", name)
		}
	}
	if isCoreName(name) {
		return fmt.Errorf("extension %q: that is the name of an attribute of CloudEvents itself", name)
	}
	return nil
}

func isCoreName(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64":
		return true
	}
	return false
}

func required(f []error, name, s string, limit int) []error {
	if strings.TrimSpace(s) == "" {
		return append(f, fmt.Errorf("%s: is missing", name))
	}
	return text(f, name, s, limit)
}

// text checks what CloudEvents asks of its String type: no control characters, no broken UTF-8, no noncharacters.
func text(f []error, name, s string, limit int) []error {
	if len(s) > limit {
		return append(f, fmt.Errorf("%s: has %d bytes, at most %d are allowed", name, len(s), limit))
	}
	if !utf8.ValidString(s) {
		return append(f, fmt.Errorf("%s: is not UTF-8", name))
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return append(f, fmt.Errorf("%s: has the character %U, which CloudEvents forbids", name, r))
		}
	}
	return f
}
