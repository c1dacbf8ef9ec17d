package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// postgres is a PostgreSQL server of our own. Each measurement gets a database, copied from one with River's tables.
type postgres struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  bytes.Buffer
	dir  string
	port int
	made int
	kind string
}

// postgresConfig gives PostgreSQL what Redis has here: nothing must reach the disk before a write is answered. The rest are the
// defaults, but for room for the connections of four processes.
var postgresConfig = []string{"fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"}

// poolSize is what go-redis' default is on this machine, which the others have: pgx's own is 4 at least, one for each core.
var poolSize = 10 * runtime.GOMAXPROCS(0)

const riverTemplate = "river_template"

func startPostgres(ctx context.Context) (*postgres, error) {
	programs, err := findPostgres()
	if err != nil {
		return nil, err
	}
	p := &postgres{done: make(chan struct{})}
	if p.dir, err = os.MkdirTemp("", "bellhop-postgres-"); err != nil {
		return nil, err
	}
	if err := p.start(ctx, programs); err != nil {
		p.close()
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := p.makeTemplate(ctx); err != nil {
		p.close()
		return nil, fmt.Errorf("make River's tables: %w", err)
	}
	return p, nil
}

// findPostgres looks where Debian keeps the server programs, which are not in PATH, and then there. The newest comes first.
func findPostgres() (dir string, err error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return majorOf(b) - majorOf(a) })
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(initdb), nil
	}
	return "", errors.New("PostgreSQL's initdb was not found: install it (Debian: apt-get install postgresql) or leave river out")
}

func majorOf(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

func (p *postgres) start(ctx context.Context, programs string) (err error) {
	as, err := p.unprivileged()
	if err != nil {
		return err
	}
	data := filepath.Join(p.dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(programs, "initdb"), "-D", data, "-U", "bench", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
	initdb.SysProcAttr, initdb.Dir = as, p.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if p.port, err = redisembed.FreePort(); err != nil {
		return err
	}
	args := []string{"-D", data, "-k", p.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(p.port)}
	for _, setting := range postgresConfig {
		args = append(args, "-c", setting)
	}
	p.cmd = exec.Command(filepath.Join(programs, "postgres"), args...) //nolint:noctx // it is ended by close
	p.cmd.SysProcAttr, p.cmd.Dir = as, p.dir
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p.waitReady(ctx)
}

// unprivileged is how to run PostgreSQL, which refuses to run as root: then it runs as the user that its package has made.
func (p *postgres) unprivileged() (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil //nolint:nilnil // none is needed
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and its own user is not there: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(p.dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func (p *postgres) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var why error
	for {
		err := p.exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			why = err
		}
		select {
		case <-p.done:
			return fmt.Errorf("it exited at once: %s", strings.TrimSpace(p.log.String()))
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", why)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *postgres) makeTemplate(ctx context.Context) error {
	if err := p.exec(ctx, "CREATE DATABASE "+riverTemplate); err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, p.url(riverTemplate))
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pool.QueryRow(ctx, "SHOW server_version").Scan(&p.kind); err != nil {
		return err
	}
	version, _, _ := strings.Cut(p.kind, " ")
	p.kind = "PostgreSQL " + version
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: riverLog()})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// database makes a new one.
func (p *postgres) database(ctx context.Context) (*store, error) {
	p.made++
	name := "bench_" + strconv.Itoa(p.made)
	if err := p.exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+riverTemplate); err != nil {
		return nil, fmt.Errorf("make a database: %w", err)
	}
	conn, err := pgx.Connect(ctx, p.url(name))
	if err != nil {
		return nil, err
	}
	s := &store{addr: p.url(name) + "?pool_max_conns=" + strconv.Itoa(poolSize), kind: p.kind, close: func() {
		ctx := context.WithoutCancel(ctx)
		_ = conn.Close(ctx)
		// Dropped at once, so that its vacuum does not weigh on what comes next.
		_ = p.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
	}}
	s.settled = func(ctx context.Context) (done bool, err error) {
		err = conn.QueryRow(ctx, "SELECT NOT EXISTS (SELECT 1 FROM river_job WHERE state IN ('available', 'running'))").Scan(&done)
		return done, err
	}
	return s, nil
}

// exec runs a statement about databases, in the one that is always there.
func (p *postgres) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, p.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is lost with it
	_, err = conn.Exec(ctx, sql)
	return err
}

func (p *postgres) url(database string) string {
	return "postgres://bench@" + net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) + "/" + database
}

// close ends the server and removes what it has written.
func (p *postgres) close() {
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // at once: nothing is kept
		<-p.done
	}
	_ = os.RemoveAll(p.dir)
}
