package webhook

import "time"

// SetClock makes the receiver read its time from now.
func (r *Receiver) SetClock(now func() time.Time) { r.now = now }

// ReadJSON, TooDeep, Without, TypeOf and Clean are fuzzed on their own.
var (
	TooDeep = tooDeep
	Without = without
	TypeOf  = typeOf
	Clean   = clean
)

// ReadJSON tells whether the body is taken.
func ReadJSON(body []byte) ([]byte, error) {
	data, _, err := readJSON(body)
	return data, err
}
