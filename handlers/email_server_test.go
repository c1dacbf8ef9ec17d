package handlers_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// mailServer speaks SMTP as RFC 5321 has it, as much of it as a client needs.
type mailServer struct {
	t        *testing.T
	listener net.Listener
	files    *redistest.TLSFiles
	tls      *tls.Config

	implicit   bool   // TLS from the first byte
	noStartTLS bool   // not offered
	mechanisms string // AUTH; empty: not offered
	password   string

	// answer may give another answer to a command ("RCPT TO:<x@y>"); "." is the end of a message, "CONNECT" the greeting. "hangup" ends the
	// connection, "silence" leaves the client waiting.
	answer func(command string) string

	running sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
	mails   []receivedMail
	said    []string // the commands, those in TLS with a * before them
}

type receivedMail struct {
	from       string
	recipients []string
	text       string
}

// parsed is the message as mail programs see it.
func (m receivedMail) parsed(t *testing.T) *mail.Message {
	t.Helper()
	msg, err := mail.ReadMessage(strings.NewReader(m.text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, m.text)
	}
	return msg
}

func newMailServer(t *testing.T, set func(*mailServer)) *mailServer {
	t.Helper()
	s := &mailServer{t: t, files: redistest.NewTLSFiles(t), mechanisms: "PLAIN LOGIN", password: "canary-password"}
	cert, err := tls.LoadX509KeyPair(s.files.Cert, s.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{cert}}
	if set != nil {
		set(s)
	}
	if s.listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.running.Go(s.serve)
	t.Cleanup(func() {
		s.listener.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

func (s *mailServer) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *mailServer) received() []receivedMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]receivedMail(nil), s.mails...)
}

func (s *mailServer) heard(part string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.Join(s.said, "\n"), part)
}

func (s *mailServer) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.running.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			if s.implicit {
				conn = tls.Server(conn, s.tls)
			}
			(&mailConn{mailServer: s, conn: conn, in: bufio.NewReader(conn), secure: s.implicit}).talk()
		})
	}
}

type mailConn struct {
	*mailServer
	conn   net.Conn
	in     *bufio.Reader
	secure bool
	mail   receivedMail
}

func (c *mailConn) say(text string) bool {
	_, err := c.conn.Write([]byte(text + "\r\n"))
	return err == nil
}

func (c *mailConn) line() (string, bool) {
	text, err := c.in.ReadString('\n')
	return strings.TrimRight(text, "\r\n"), err == nil
}

// reply gives the answer of the test, or else the usual one; false ends the connection.
func (c *mailConn) reply(command, usual string) (text string, ok bool) {
	if c.answer != nil {
		switch other := c.answer(command); other {
		case "":
		case "hangup":
			return "", false
		case "silence":
			_, _ = c.in.ReadByte() // until the client goes
			return "", false
		default:
			usual = other
		}
	}
	return usual, c.say(usual)
}

func (c *mailConn) talk() {
	if text, ok := c.reply("CONNECT", "220 test ESMTP"); !ok || text[0] != '2' {
		return
	}
	for {
		command, ok := c.line()
		if !ok || !c.command(command) {
			return
		}
	}
}

func (c *mailConn) command(command string) bool {
	c.mu.Lock()
	c.said = append(c.said, map[bool]string{true: "*", false: ""}[c.secure]+command)
	c.mu.Unlock()
	verb, _, _ := strings.Cut(strings.ToUpper(command), " ")
	var ok bool
	switch verb {
	case "EHLO":
		lines := []string{"250-test", "250-8BITMIME", "250-ENHANCEDSTATUSCODES"}
		if !c.secure && !c.noStartTLS {
			lines = append(lines, "250-STARTTLS")
		}
		if c.mechanisms != "" {
			lines = append(lines, "250-AUTH "+c.mechanisms)
		}
		_, ok = c.reply(command, strings.Join(append(lines, "250 SIZE 1000000"), "\r\n"))
	case "STARTTLS":
		var text string
		if text, ok = c.reply(command, "220 go ahead"); ok && text[0] == '2' {
			conn := tls.Server(c.conn, c.tls)
			if conn.HandshakeContext(c.t.Context()) != nil {
				return false
			}
			c.conn, c.in, c.secure = conn, bufio.NewReader(conn), true
		}
	case "AUTH":
		ok = c.login(command)
	case "MAIL":
		c.mail = receivedMail{from: bare(command)}
		_, ok = c.reply(command, "250 2.1.0 ok")
	case "RCPT":
		var text string
		if text, ok = c.reply(command, "250 2.1.5 ok"); ok && text[0] == '2' {
			c.mail.recipients = append(c.mail.recipients, bare(command))
		}
	case "DATA":
		var text string
		if text, ok = c.reply(command, "354 go ahead"); ok && text[0] == '3' {
			ok = c.data()
		}
	case "QUIT":
		c.say("221 bye")
		return false
	case "RSET", "NOOP":
		ok = c.say("250 ok")
	default:
		ok = c.say("500 5.5.1 what?")
	}
	return ok
}

// bare is the address in <> of a command.
func bare(command string) string {
	_, rest, _ := strings.Cut(command, "<")
	address, _, _ := strings.Cut(rest, ">")
	return address
}

func (c *mailConn) login(command string) bool {
	fields := strings.Fields(command)
	want := base64.StdEncoding.EncodeToString([]byte("\x00user\x00" + c.password))
	switch {
	case len(fields) == 3 && fields[1] == "PLAIN" && fields[2] == want:
		_, ok := c.reply("AUTH", "235 2.7.0 welcome")
		return ok
	case len(fields) == 2 && fields[1] == "LOGIN":
		c.say("334 " + base64.StdEncoding.EncodeToString([]byte("Username:")))
		user, _ := c.line()
		c.say("334 " + base64.StdEncoding.EncodeToString([]byte("Password:")))
		password, ok := c.line()
		if user+password == base64.StdEncoding.EncodeToString([]byte("user"))+base64.StdEncoding.EncodeToString([]byte(c.password)) {
			return ok && c.say("235 2.7.0 welcome")
		}
	}
	return c.say("535 5.7.8 wrong: " + strings.Join(fields[1:], " "))
}

func (c *mailConn) data() bool {
	var text bytes.Buffer
	for {
		line, ok := c.line()
		if !ok {
			return false // half of a message is none
		}
		if line == "." {
			break
		}
		text.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
	c.mail.text = text.String()
	said, ok := c.reply(".", "250 2.0.0 queued as 4711")
	if ok && said[0] == '2' || c.answer != nil && c.answer(".") == "hangup" { // then the word for it is lost
		c.mu.Lock()
		c.mails = append(c.mails, c.mail)
		c.mu.Unlock()
	}
	return ok
}
