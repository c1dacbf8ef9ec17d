package config

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/bellhop-dev/bellhop/internal/redisconn"
)

const masked = "***"

// secretWords make a key's value a secret, wherever they stand in its path.
var secretWords = []string{"password", "passwords", "passphrase", "secret", "secrets", "token", "tokens", "key", "keys", "credential", "credentials", "authorization", "headers"}

// redisURL is shown in part: without the password it says what an operator looks for.
const redisURL = "redis.url"

// isSecret tells by the name, so that a package that adds a key need not think of it here. Names of files are none.
func isSecret(path string) bool {
	if path == redisURL || strings.HasPrefix(path, redisURL+"[") {
		return true
	}
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' || r == '"' })
	return slices.ContainsFunc(names, func(name string) bool {
		words := strings.Split(name, "_")
		isFile := strings.TrimSuffix(words[len(words)-1], "s") == "file"
		return !isFile && slices.ContainsFunc(words, func(word string) bool { return slices.Contains(secretWords, word) })
	})
}

// mask shows as much of a value as everyone may see.
func mask(path, value string) string {
	switch {
	case value == "":
		return ""
	case path == redisURL && strings.ContainsAny(value, "@%?"): // else there is nothing in it to hide
		return redisconn.Redact(value)
	case path == redisURL:
		return value
	case isSecret(path):
		return masked
	case isEndpoint.MatchString(path):
		return originOf(value)
	default:
		return maskAddresses(value)
	}
}

// isEndpoint: the path and the query of a webhook's address are what lets a stranger in at many providers.
var isEndpoint = regexp.MustCompile(`^handlers\.webhooks\.endpoints(\[\d+\])?\.url$`)

// originOf is the scheme and the host of an address; the rest is masked.
func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme == "" {
		return masked
	}
	origin := u.Scheme + "://" + u.Host
	if address == origin || address == origin+"/" {
		return address
	}
	return origin + "/" + masked
}

var userInfo = regexp.MustCompile(`://[^\s]*@`)

// maskAddresses hides who logs in where an address stands in another value.
func maskAddresses(s string) string { return userInfo.ReplaceAllString(s, "://"+masked+"@") }
