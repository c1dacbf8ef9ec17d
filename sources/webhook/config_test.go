package webhook_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/sources/webhook"
)

// TestFaults: each mistake is told with its key and what to do, and a secret is never shown.
func TestFaults(t *testing.T) {
	t.Parallel()
	one := []string{secret}
	sign := webhook.Signature{Header: "X-Sign"}
	for name, c := range map[string]struct {
		hook webhook.Hook
		want []string
	}{
		"nothing":            {webhook.Hook{}, []string{"name: ", "kind: "}},
		"a kind mistyped":    {webhook.Hook{Name: "a", Kind: "gihub"}, []string{`kind: "gihub" is unknown, did you mean "github"?`}},
		"a name":             {webhook.Hook{Name: "A b", Kind: webhook.GitHub, Secrets: one}, []string{`name: "A b"`}},
		"no secret":          {webhook.Hook{Name: "a", Kind: webhook.Stripe}, []string{"secrets: are missing"}},
		"no secret, token":   {webhook.Hook{Name: "a", Kind: webhook.Token, Signature: sign}, []string{"secrets: are missing"}},
		"a short secret":     {webhook.Hook{Name: "a", Kind: webhook.Slack, Secrets: []string{"hunter2"}}, []string{"secrets[0]: has 7 bytes"}},
		"an empty secret":    {webhook.Hook{Name: "a", Kind: webhook.Slack, Secrets: []string{secret, ""}}, []string{"secrets[1]: has 0 bytes"}},
		"white space":        {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: []string{secret + "\n"}}, []string{"secrets[0]: has white space"}},
		"too many secrets":   {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: strings.Fields(strings.Repeat("aaaaaaaaaaaaaaaaaaaa ", 11))}, []string{"secrets: are 11"}},
		"no base64":          {webhook.Hook{Name: "a", Kind: webhook.Standard, Secrets: []string{"whsec_hunter2!"}}, []string{"secrets[0]: is not whsec_ and base64"}},
		"no public key":      {webhook.Hook{Name: "a", Kind: webhook.Standard, Secrets: []string{"whpk_aGVsbG8="}}, []string{"secrets[0]: is not whpk_"}},
		"no file name":       {webhook.Hook{Name: "a", Kind: webhook.GitHub, SecretsFiles: []string{""}}, []string{"secrets_files[0]: is empty"}},
		"unsigned, unasked":  {webhook.Hook{Name: "a", Kind: webhook.None}, []string{"insecure_unsigned: kind none takes events from anyone"}},
		"unsigned, a secret": {webhook.Hook{Name: "a", Kind: webhook.None, InsecureUnsigned: true, Secrets: one}, []string{"secrets: kind none uses none"}},
		"signed, unsigned":   {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: one, InsecureUnsigned: true}, []string{"insecure_unsigned: is for kind none"}},
		"SHA-1":              {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", Algorithm: "sha1"}}, []string{"signature.algorithm: sha1 is no longer"}},
		"an algorithm":       {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", Algorithm: "md5"}}, []string{`signature.algorithm: "md5" is unknown`}},
		"no header":          {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one}, []string{"signature.header: is missing"}},
		"a header":           {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X: y"}}, []string{`signature.header: "X: y" is no name`}},
		"an unsigned time":   {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", TimestampHeader: "T"}}, []string{"signature.signed: has no {timestamp}"}},
		"a missing time":     {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", Signed: "{timestamp}.{body}"}}, []string{"signature.timestamp_header: is missing"}},
		"a missing id":       {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", Signed: "{id}.{body}"}}, []string{"event.id_header: is missing"}},
		"no body":            {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", Signed: "x{url}"}}, []string{"signature.signed: \"x{url}\" must have {body}", "all that is known in braces"}},
		"encodings":          {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", Encoding: "base32", SecretEncoding: "rot13"}}, []string{"signature.encoding: ", "signature.secret_encoding: "}},
		"a secret's hex":     {webhook.Hook{Name: "a", Kind: webhook.HMAC, Secrets: one, Signature: webhook.Signature{Header: "X", SecretEncoding: "hex"}}, []string{"secrets[0]: is not hex"}},
		"a tolerance":        {webhook.Hook{Name: "a", Kind: webhook.Stripe, Secrets: one, Tolerance: 48 * time.Hour}, []string{"tolerance: is 48h0m0s"}},
		"a useless one":      {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: one, Tolerance: time.Minute}, []string{"tolerance: no time is signed here"}},
		"not its own":        {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: one, Signature: sign, Event: webhook.Mapping{IDPath: "x"}}, []string{"signature: is for kinds hmac and token", "event: kind github knows"}},
		"token, an HMAC":     {webhook.Hook{Name: "a", Kind: webhook.Token, Secrets: one, Signature: webhook.Signature{Header: "X", Algorithm: "sha256"}}, []string{"signature: kind token has a header and a prefix"}},
		"both of two":        {webhook.Hook{Name: "a", Kind: webhook.Token, Secrets: one, Signature: sign, Event: webhook.Mapping{IDHeader: "X", IDPath: "x", TypeHeader: "X", TypePath: "x"}}, []string{"event.id_path: id_header", "event.type_path: type_header"}},
		"a signed id":        {webhook.Hook{Name: "a", Kind: webhook.Standard, Secrets: []string{whsec}, Event: webhook.Mapping{IDPath: "x"}, DedupeBy: "body"}, []string{"event.id_header: kind standard signs", "dedupe_by: kind standard signs"}},
		"dedupe_by":          {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: one, DedupeBy: "hash"}, []string{`dedupe_by: is "hash"`}},
		"source and prefix":  {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: one, Source: "a b\x7f%", TypePrefix: "com..acme/"}, []string{"source: ", "type_prefix: "}},
		"a body's size":      {webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: one, MaxBodyBytes: -1}, []string{"max_body_bytes: is -1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := webhook.Hooks{c.hook}.Validate()
			if err == nil {
				t.Fatal("it is accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "hooks[0]") {
					t.Errorf("got\n%v\nwant %q", err, want)
				}
			}
			if n := strings.Count(err.Error(), "\n") + 1; n != len(c.want) {
				t.Errorf("got %d faults, want %d:\n%v", n, len(c.want), err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
}

// TestAllFaultsAtOnce: of all hooks, each with its place; two of one name are one too many.
func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	good := webhook.Hook{Name: "a", Kind: webhook.GitHub, Secrets: []string{secret}}
	err := webhook.Hooks{good, {Name: "b", Kind: webhook.Slack}, good, {Name: "?", Kind: "x"}}.Validate()
	for _, want := range []string{"hooks[1] (b): secrets: are missing", "hooks[2] (a): name: hooks[0] has it too", "hooks[3]: name: ", "hooks[3]: kind: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got\n%v\nwant %q", err, want)
		}
	}
	if err := (webhook.Hooks{good}).Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	if err := webhook.Hooks(everyKind()).Validate(); err != nil {
		t.Errorf("one of each kind: %v", err)
	}
	if err := webhook.Hooks(everyKind()).WithDefaults().Validate(); err != nil {
		t.Errorf("one of each kind, with defaults: %v", err)
	}
	if err := webhook.Hooks(nil).WithDefaults().Validate(); err != nil {
		t.Errorf("none: %v", err)
	}
}
