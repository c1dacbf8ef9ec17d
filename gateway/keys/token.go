package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// A token is bh_<id>_<secret>. The prefix and the fixed form let secret scanners find it:
//
//	bh_[a-z2-7]{12}_[a-z2-7]{47}
//
// The secret is 40 random characters (200 bits), then a CRC-32 of all before it: a mistyped token or a random guess is told
// apart without looking at any key, and scanners have fewer false finds. The checksum keeps no secret.
const (
	prefix       = "bh_"
	idLength     = 12
	randomLength = 40
	sumLength    = 7
	tokenLength  = len(prefix) + idLength + 1 + randomLength + sumLength
)

// alphabet is base32's in lower case; 32 letters take 5 bits of a random byte, none more often than another.
const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// token is one that has the form.
type token struct {
	id   string
	hash [sha256.Size]byte // of the whole token
}

// newToken makes a random one.
func newToken() (text string, t token) {
	text = prefix + randomText(idLength) + "_" + randomText(randomLength)
	text += checksum(text)
	t, _ = parseToken(text)
	return text, t
}

// parseToken accepts what has the form of a token; it says nothing of whether there is such a key.
func parseToken(text string) (token, bool) {
	if len(text) != tokenLength || !strings.HasPrefix(text, prefix) || text[len(prefix)+idLength] != '_' {
		return token{}, false
	}
	id, secret := text[len(prefix):len(prefix)+idLength], text[len(prefix)+idLength+1:]
	if !inAlphabet(id) || !inAlphabet(secret) {
		return token{}, false
	}
	if checksum(text[:tokenLength-sumLength]) != text[tokenLength-sumLength:] {
		return token{}, false
	}
	return token{id: id, hash: sha256.Sum256([]byte(text))}, true
}

func randomText(n int) string {
	text := make([]byte, n)
	rand.Read(text) // it never fails: the program ends instead
	for i := range text {
		text[i] = alphabet[text[i]&31]
	}
	return string(text)
}

func checksum(text string) string {
	return encoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(text))))
}

func inAlphabet(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
