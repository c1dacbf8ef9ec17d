package webhook

import "time"

// SetClock makes the receiver read its time from now.
func (r *Receiver) SetClock(now func() time.Time) { r.now = now }

// TypeOf and Clean are fuzzed on their own.
var (
	TypeOf = typeOf
	Clean  = clean
)

// ReadJSON returns what is taken as data, and the members of the object that it is.
func ReadJSON(body []byte) (data []byte, members map[string]string, err error) {
	data, o, err := readJSON(body)
	if o != nil {
		members = make(map[string]string, len(o))
	}
	for _, m := range o {
		members[m.name] = string(m.value)
	}
	return data, members, err
}

// TextAt returns the text at a path with dots, and the object's text without one of its members.
func TextAt(body []byte, path, left string) (text string, rest []byte) {
	_, o, err := readJSON(body)
	if err != nil {
		return "", nil
	}
	rest, _ = o.without(left)
	return o.at(path), rest
}

// MaxInWork is how many deliveries are in work at once.
const MaxInWork = maxInWork
