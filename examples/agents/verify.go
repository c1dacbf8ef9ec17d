package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// verify checks a delivery as Standard Webhooks says: an HMAC over id, time and body, not older than five minutes. While a secret is
// being replaced there are several signatures; one that holds is enough.
func verify(secretFile string, h http.Header, body []byte) error {
	text, err := os.ReadFile(secretFile)
	if err != nil {
		return fmt.Errorf("read the secret: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(string(text)), "whsec_"))
	if err != nil {
		return errors.New("the secret is no base64")
	}
	stamp, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(stamp, 0)).Abs() > 5*time.Minute {
		return errors.New("the time is missing, or too far from now")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", h.Get("Webhook-Id"), stamp, body)
	want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	for signature := range strings.FieldsSeq(h.Get("Webhook-Signature")) {
		if hmac.Equal([]byte(signature), want) {
			return nil
		}
	}
	return errors.New("no signature holds")
}
