package gatewayd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTLSIsReloaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	began := time.Now()
	writePair(t, certFile, keyFile, "one", began)
	c, err := newCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func(after time.Duration) string {
		leaf, err := x509.ParseCertificate(c.current(began.Add(after)).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Subject.CommonName
	}
	writePair(t, certFile, keyFile, "two", began.Add(time.Minute))
	if got := shown(0); got != "one" {
		t.Errorf("at once: %s", got)
	}
	if got := shown(time.Minute); got != "two" {
		t.Errorf("after the change: %s", got)
	}
	if err := os.WriteFile(keyFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := shown(2 * time.Minute); got != "two" {
		t.Errorf("with a broken key: %s", got)
	}
	writePair(t, certFile, keyFile, "three", began.Add(2*time.Minute))
	if got := shown(3 * time.Minute); got != "three" {
		t.Errorf("mended: %s", got)
	}
	if _, err := newCertificate(certFile, filepath.Join(dir, "none"), nil); err == nil || !strings.Contains(err.Error(), "gateway.key_file") {
		t.Errorf("without a key: %v", err)
	}
}

// writePair writes a certificate of 127.0.0.1 with its key, as of a time.
func writePair(t *testing.T, certFile, keyFile, name string, at time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(at.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}
