package job

import (
	"crypto/rand"
	"encoding/hex"
)

const (
	idBytes   = 16
	idLength  = 36
	idsAtOnce = 16
)

// ids makes random ids for the jobs of one call. Some at a time share a read of randomness and a text, which lives as long as any of them.
type ids struct{ ready string }

func (s *ids) next() string {
	if s.ready == "" {
		var random [idsAtOnce * idBytes]byte
		var text [idsAtOnce * idLength]byte
		_, _ = rand.Read(random[:]) // never fails
		b := text[:0]
		for n := range idsAtOnce {
			b = appendID(b, [idBytes]byte(random[n*idBytes:]))
		}
		s.ready = string(b)
	}
	id := s.ready[:idLength]
	s.ready = s.ready[idLength:]
	return id
}

func newID() string {
	var random [idBytes]byte
	var text [idLength]byte
	_, _ = rand.Read(random[:]) // never fails
	return string(appendID(text[:0], random))
}

// appendID writes a UUID of version 4.
func appendID(b []byte, u [idBytes]byte) []byte {
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	b = append(hex.AppendEncode(b, u[:4]), '-')
	b = append(hex.AppendEncode(b, u[4:6]), '-')
	b = append(hex.AppendEncode(b, u[6:8]), '-')
	b = append(hex.AppendEncode(b, u[8:10]), '-')
	return hex.AppendEncode(b, u[10:])
}
