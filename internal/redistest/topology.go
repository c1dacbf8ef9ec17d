package redistest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
)

// masterName is what the sentinels of SentinelSet call their master.
const masterName = "bellhop"

// SentinelSet is a master with replicas, watched by three sentinels.
type SentinelSet struct {
	t         testing.TB
	Master    *Server // the first master: after a failover it is not one any more
	Replica   *Server // the first one
	Sentinels []*Server
	client    redis.UniversalClient
}

// Sentinel starts a master, its replica and three sentinels that have found each
// other, ready to fail over. A dead master is replaced within a few seconds.
// The options are those of master and replica.
func Sentinel(t testing.TB, opts ...Option) *SentinelSet {
	t.Helper()
	return SentinelOf(t, 1, opts...)
}

// SentinelOf is [Sentinel] with so many replicas.
func SentinelOf(t testing.TB, replicas int, opts ...Option) *SentinelSet {
	t.Helper()
	// A full resync waits five seconds by default, for more replicas to join.
	opts = append([]Option{WithConfig("repl-diskless-sync-delay", "0")}, opts...)
	set := &SentinelSet{t: t, Master: Start(t, opts...)}
	for range replicas {
		replica := Start(t, append(opts, WithConfig("replicaof", "127.0.0.1 "+strconv.Itoa(set.Master.port)))...)
		eventually(t, "replica in step", func() error {
			return infoHas(t.Context(), replica.Client(), "replication", "master_link_status:up")
		})
		set.Replica = cmp.Or(set.Replica, replica)
	}
	for range 3 {
		set.Sentinels = append(set.Sentinels, startSentinel(t, set.Master))
	}
	for _, s := range set.Sentinels {
		eventually(t, "sentinel knows replica and sentinels", func() error {
			return infoHas(t.Context(), s.Client(), "sentinel", "status=ok", fmt.Sprintf("slaves=%d,sentinels=3", replicas))
		})
	}
	return set
}

func startSentinel(t testing.TB, master *Server) *Server {
	t.Helper()
	s := newServer(t)
	s.args = []string{"--sentinel"}
	s.config = []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", masterName, master.port),
		"sentinel down-after-milliseconds " + masterName + " 500",
		"sentinel failover-timeout " + masterName + " 3000",
	}
	s.launch()
	return s
}

// URL is redis-sentinel://h1:p1,h2:p2,h3:p3/bellhop/0, with the credentials of
// the options.
func (set *SentinelSet) URL() string {
	return fmt.Sprintf("redis-sentinel://%s%s/%s/0", userinfo(set.Master.user), strings.Join(addrs(set.Sentinels), ","), masterName)
}

// Client returns a client that follows the master, the same one at every call.
func (set *SentinelSet) Client() redis.UniversalClient {
	if set.client == nil {
		opts := &redis.FailoverOptions{
			MasterName:            masterName,
			SentinelAddrs:         addrs(set.Sentinels),
			ContextTimeoutEnabled: true,
			DisableIdentity:       true,
		}
		if u := set.Master.user; u != nil {
			opts.Username = u.Username()
			opts.Password, _ = u.Password()
		}
		set.client = redis.NewFailoverClient(opts)
		set.t.Cleanup(func() { _ = set.client.Close() })
	}
	return set.client
}

// KillMaster kills the first master and returns once the sentinels have made
// the replica master.
func (set *SentinelSet) KillMaster() {
	set.t.Helper()
	set.Master.Kill()
	eventually(set.t, "replica promoted", func() error {
		return infoHas(set.t.Context(), set.Replica.Client(), "replication", "role:master")
	})
}

// ClusterSet is a Redis Cluster of three masters without replicas.
type ClusterSet struct {
	t      testing.TB
	Nodes  []*Server
	client redis.UniversalClient
}

const clusterSlots = 16384

// Cluster starts three masters that share the slots and returns once each of
// them serves. The options are those of the nodes.
func Cluster(t testing.TB, opts ...Option) *ClusterSet {
	t.Helper()
	set := &ClusterSet{t: t}
	for range 3 {
		set.Nodes = append(set.Nodes, startClusterNode(t, opts))
	}
	ctx := t.Context()
	for i, node := range set.Nodes {
		admin := node.Admin()
		first, last := i*clusterSlots/3, (i+1)*clusterSlots/3-1
		if err := admin.ClusterAddSlotsRange(ctx, first, last).Err(); err != nil {
			t.Fatalf("give node %d its slots: %v", i, err)
		}
		// Equal epochs would be settled by gossip, at its leisure.
		if err := admin.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			t.Fatalf("give node %d its epoch: %v", i, err)
		}
		for _, other := range set.Nodes[:i] {
			meet := []any{"CLUSTER", "MEET", "127.0.0.1", other.port, other.busPort}
			if err := admin.Do(ctx, meet...).Err(); err != nil {
				t.Fatalf("introduce node %d: %v", i, err)
			}
		}
	}
	for i, node := range set.Nodes {
		admin := node.Admin()
		eventually(t, fmt.Sprintf("cluster node %d serves", i), func() error {
			info, err := admin.ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			return hasAll(info, "cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384")
		})
	}
	return set
}

func startClusterNode(t testing.TB, opts []Option) *Server {
	t.Helper()
	bus, err := redisembed.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	opts = append([]Option{
		WithConfig("cluster-enabled", "yes"),
		WithConfig("cluster-port", strconv.Itoa(bus)),
		WithConfig("cluster-node-timeout", "5000"),
	}, opts...)
	s := Start(t, opts...)
	s.busPort = bus
	return s
}

// URL is redis-cluster://h1:p1,h2:p2,h3:p3, with the credentials of the options.
func (set *ClusterSet) URL() string {
	scheme := "redis-cluster://"
	if set.Nodes[0].tls != nil {
		scheme = "rediss-cluster://"
	}
	return scheme + userinfo(set.Nodes[0].user) + strings.Join(addrs(set.Nodes), ",")
}

// Client returns a client of the cluster, the same one at every call.
func (set *ClusterSet) Client() redis.UniversalClient {
	if set.client == nil {
		opts := &redis.ClusterOptions{
			Addrs:                    addrs(set.Nodes),
			ContextTimeoutEnabled:    true,
			DisableIdentity:          true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}
		if u := set.Nodes[0].user; u != nil {
			opts.Username = u.Username()
			opts.Password, _ = u.Password()
		}
		if files := set.Nodes[0].tls; files != nil {
			opts.TLSConfig = files.ClientConfig(set.t)
		}
		set.client = redis.NewClusterClient(opts)
		set.t.Cleanup(func() { _ = set.client.Close() })
	}
	return set.client
}

func addrs(servers []*Server) []string {
	var list []string
	for _, s := range servers {
		list = append(list, s.Addr())
	}
	return list
}

func userinfo(u *url.Userinfo) string {
	if u == nil {
		return ""
	}
	return u.String() + "@"
}

// infoHas asks for a section of INFO and reports which of parts it lacks.
func infoHas(ctx context.Context, rdb redis.UniversalClient, section string, parts ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	info, err := rdb.Info(ctx, section).Result()
	if err != nil {
		return err
	}
	return hasAll(info, parts...)
}

func hasAll(text string, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return errors.New("no " + part + " in: " + strings.ReplaceAll(strings.TrimSpace(text), "\r\n", " "))
		}
	}
	return nil
}
