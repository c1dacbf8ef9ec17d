package redisconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// unknown stands in a Report for what Redis does not tell.
const unknown = "unknown"

// minMajor is the oldest major version supported: our scripts use the flags that
// came with it.
const minMajor = 7

// Report is what Check found out. In a Cluster each field is that of the worst
// master.
type Report struct {
	Mode        string // "standalone", "sentinel" or "cluster"
	Masters     int    // how many were asked
	Server      string // "redis", "valkey" or "unknown"
	Version     string // "7.0.15" or "unknown"
	Eviction    string // the maxmemory-policy, or "unknown"
	Persistence string // "aof", "rdb", "none" or "unknown"
	Warnings    []string
}

// Check waits until Redis answers, at most cfg.WaitFor, and then asks each
// master whether it can be trusted with jobs. It fails when Redis cannot be
// reached, refuses the credentials or the certificate (those at once), is a
// replica, a sentinel or a Cluster node behind the wrong scheme, or may evict
// keys. What it only doubts it logs as a warning; what the user may not ask, or
// the server does not know, is "unknown". A nil log is slog.Default().
func Check(ctx context.Context, rdb redis.UniversalClient, cfg Config, log *slog.Logger) (Report, error) {
	if log == nil {
		log = slog.Default()
	}
	if err := waitReachable(ctx, rdb, cfg, log); err != nil {
		return Report{}, err
	}
	nodes, err := askMasters(ctx, rdb)
	if err != nil {
		return Report{}, fmt.Errorf("ask Redis at %s about itself: %w", cfg, err)
	}
	report := summarize(nodes)
	report.Mode = modeOf(rdb, cfg)
	for _, warning := range report.Warnings {
		log.WarnContext(ctx, warning, "redis", cfg) //nolint:sloglint // made of constants in summarize
	}
	return report, verdict(nodes, report.Mode, cfg)
}

// modeOf trusts the client more than the address: tests and users bring their own.
func modeOf(rdb redis.UniversalClient, cfg Config) string {
	if _, ok := rdb.(*redis.ClusterClient); ok {
		return string(modeCluster)
	}
	if t, err := parse(cfg.url()); err == nil && t.mode == modeSentinel {
		return string(modeSentinel)
	}
	return string(modeStandalone)
}

// node is what one master tells of itself.
type node struct {
	addr        string
	kind        string // standalone, cluster or sentinel: what the server thinks it is
	role        string
	server      string
	version     string // for people
	compatible  string // the Redis version it is compatible with
	eviction    string
	persistence string
	denied      []string // commands the user may not run, or the server does not know
}

func askMasters(ctx context.Context, rdb redis.UniversalClient) ([]node, error) {
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		addr := ""
		if single, ok := rdb.(*redis.Client); ok {
			addr = single.Options().Addr
		}
		n, err := askNode(ctx, rdb, addr)
		return []node{n}, err
	}

	var mu sync.Mutex
	var nodes []node
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		n, err := askNode(ctx, master, master.Options().Addr)
		mu.Lock()
		nodes = append(nodes, n)
		mu.Unlock()
		return err
	})
	slices.SortFunc(nodes, func(a, b node) int { return strings.Compare(a.addr, b.addr) })
	return nodes, err
}

// askNode prefers INFO, which tells everything at once and which managed
// services allow, to CONFIG, which they do not.
func askNode(ctx context.Context, rdb redis.Cmdable, addr string) (node, error) {
	n := node{addr: addr, server: unknown, version: unknown, eviction: unknown, persistence: unknown}

	text, err := rdb.Info(ctx).Result()
	if err := n.note("info", err); err != nil {
		return n, err
	}
	info := parseInfo(text)
	n.kind, n.role = info["redis_mode"], info["role"]
	n.compatible = info["redis_version"]
	switch {
	case info["valkey_version"] != "":
		n.server, n.version = "valkey", info["valkey_version"]
	case n.compatible != "":
		n.server, n.version = "redis", n.compatible
	}
	if policy := info["maxmemory_policy"]; policy != "" {
		n.eviction = policy
	}
	if info["aof_enabled"] == "1" {
		n.persistence = "aof"
	}
	if n.eviction != unknown && n.persistence != unknown {
		return n, nil
	}
	return n, n.askConfig(ctx, rdb)
}

func (n *node) askConfig(ctx context.Context, rdb redis.Cmdable) error {
	config := map[string]string{}
	for _, name := range []string{"maxmemory-policy", "appendonly", "save"} {
		values, err := rdb.ConfigGet(ctx, name).Result()
		if err != nil {
			return n.note("config|get", err)
		}
		maps.Copy(config, values)
	}
	if policy := config["maxmemory-policy"]; policy != "" {
		n.eviction = policy
	}
	save, known := config["save"]
	switch {
	case config["appendonly"] == "yes":
		n.persistence = "aof"
	case save != "":
		n.persistence = "rdb"
	case known:
		n.persistence = "none"
	}
	return nil
}

// note remembers a command that Redis refuses to run, and passes on what is an
// error in earnest: a lost connection.
func (n *node) note(command string, err error) error {
	if _, ok := errors.AsType[redis.Error](err); ok {
		n.denied = append(n.denied, command)
		return nil
	}
	return err
}

func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			info[key] = value
		}
	}
	return info
}

func summarize(nodes []node) Report {
	report := Report{Masters: len(nodes)}
	var denied, old, none, rdb []string
	for i, n := range nodes {
		if i == 0 || older(n.compatible, nodes[0].compatible) {
			report.Server, report.Version = n.server, n.version
		}
		if i == 0 || evictionRisk(n.eviction) > evictionRisk(report.Eviction) {
			report.Eviction = n.eviction
		}
		if i == 0 || slices.Index(persistenceOrder, n.persistence) < slices.Index(persistenceOrder, report.Persistence) {
			report.Persistence = n.persistence
		}
		denied = append(denied, n.denied...)
		if major, ok := majorOf(n.compatible); ok && major < minMajor {
			old = append(old, n.addr+" ("+n.compatible+")")
		}
		switch n.persistence {
		case "none":
			none = append(none, n.addr)
		case "rdb":
			rdb = append(rdb, n.addr)
		}
	}

	if len(denied) > 0 {
		slices.Sort(denied)
		report.Warnings = append(report.Warnings, fmt.Sprintf("Redis does not answer %s: what only they tell of version, eviction policy and persistence is unknown; "+
			"make sure that maxmemory-policy is noeviction, or let the user ask with ACL SETUSER ... +info +config|get", strings.Join(slices.Compact(denied), " and ")))
	}
	if len(old) > 0 {
		report.Warnings = append(report.Warnings, fmt.Sprintf("Redis is older than the supported %d.0: %s; upgrade it", minMajor, strings.Join(old, ", ")))
	}
	if len(none) > 0 {
		report.Warnings = append(report.Warnings, fmt.Sprintf("Redis keeps nothing on disk: a restart of %s loses all jobs; turn on its append-only file: CONFIG SET appendonly yes, then CONFIG REWRITE", strings.Join(none, ", ")))
	}
	if len(rdb) > 0 {
		report.Warnings = append(report.Warnings, fmt.Sprintf("Redis keeps snapshots only: a crash of %s loses the jobs since the last one; to lose a second at most, CONFIG SET appendonly yes, then CONFIG REWRITE", strings.Join(rdb, ", ")))
	}
	return report
}

func evictionRisk(policy string) int {
	switch policy {
	case "noeviction":
		return 0
	case unknown:
		return 1
	}
	return 2
}

// persistenceOrder is from worst to best.
var persistenceOrder = []string{"none", unknown, "rdb", "aof"}

// verdict is the error of the first thing that forbids to run on these masters.
func verdict(nodes []node, mode string, cfg Config) error {
	for _, n := range nodes {
		switch {
		case n.kind == "sentinel":
			return fmt.Errorf("redis at %s is a sentinel, not a Redis to store in; write redis-sentinel://%s/MASTER-NAME", n.addr, n.addr)
		case n.kind == "cluster" && mode != string(modeCluster):
			return fmt.Errorf("redis at %s is a Cluster node; write redis-cluster://%s", n.addr, n.addr)
		case n.role == "slave":
			return fmt.Errorf("redis at %s is a read-only replica; give the address of its master, or redis-sentinel:// to have it followed", n.addr)
		}
	}
	return evictionFault(nodes, cfg)
}

func majorOf(version string) (int, bool) {
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return n, err == nil
}

// older compares major and minor; a version that is not known is not older.
func older(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) < 0 && a != ""
}

func numbers(version string) []int {
	var list []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		list = append(list, n)
	}
	return list
}
