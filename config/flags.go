package config

import (
	"strings"

	"github.com/spf13/pflag"
)

const flagConfig = "config"

// flag is a command-line flag that sets a key.
type flag struct {
	name  string
	key   string
	usage string // the word in backquotes stands for the value
}

// flags that commands can offer. Which a command has is said in its main.
var flags = []flag{
	{flagConfig, "", "read the configuration from this `FILE` (default bellhop.yaml, if there is one)"},
	{"redis", "redis.url", "`URL` of Redis: redis://, rediss://, redis-sentinel://, redis-cluster:// or unix://"},
	{"queues", "worker.queues", "queues to serve and their weights, as `LIST` such as critical=6,default=3,low=1"},
	{"concurrency", "worker.concurrency", "run `N` jobs at once"},
	{"burst", "worker.burst", "exit once the queues are drained, with 1 if a job failed for good"},
	{"engine", "worker.engine", "`NAME` of the engine that takes jobs from Redis"},
	{"grace", "worker.grace", "let running jobs go on for this `DURATION` when told to stop"},
	{"http", "http.addr", "serve /healthz and /readyz on this `ADDR`, host:port"},
	{"triggers", "triggers.files", "read trigger rules from this `FILE`; may be given more than once"},
	{"addr", "gateway.addr", "serve the public on this `ADDR`, host:port"},
	{"private-addr", "gateway.private_addr", "serve probes, metrics and profiles on this `ADDR`, host:port; keep it away from others"},
	{"cert-file", "gateway.cert_file", "`FILE` of the certificates in PEM, for TLS on the public address"},
	{"key-file", "gateway.key_file", "`FILE` of the certificate's key in PEM"},
	{"log-level", "log.level", "least `LEVEL` to log: debug, info, warn, error"},
	{"log-format", "log.format", "`FORMAT` of logs: auto, text, json"},
}

// AddFlags gives a command the named ones of the flags that set keys: config, redis, queues, concurrency, burst, engine,
// grace, http, triggers, addr, private-addr, cert-file, key-file, log-level, log-format. It panics on another name. Values are checked by Load, so that a wrong
// one hides no other fault.
func AddFlags(to *pflag.FlagSet, names ...string) {
	for _, name := range names {
		addFlag(to, flagNamed(name))
	}
}

func addFlag(to *pflag.FlagSet, f flag) {
	value := &flagValue{key: f.key, kind: "string"}
	for _, k := range keys() {
		if k.path == f.key {
			value.repeatable = strings.HasSuffix(f.usage, "more than once")
			if expected(k.typ) == "true or false" {
				value.kind = "bool"
			}
		}
	}
	added := to.VarPF(value, f.name, "", f.usage)
	if value.kind == "bool" {
		added.NoOptDefVal = "true"
	}
}

func flagNamed(name string) flag {
	for _, f := range flags {
		if f.name == name {
			return f
		}
	}
	panic("config: there is no flag " + name + "; add it to the table of flags")
}

// flagValue holds the text that was given.
type flagValue struct {
	key        string
	kind       string
	given      []string
	repeatable bool
}

func (v *flagValue) Set(s string) error {
	if !v.repeatable {
		v.given = nil // the last one counts
	}
	v.given = append(v.given, s)
	return nil
}

func (v *flagValue) String() string { return strings.Join(v.given, ",") }
func (v *flagValue) Type() string   { return v.kind }

// readFlags returns what the flags of AddFlags set; a command's own are left alone. Unlike a variable, a flag that is
// given empty sets its key to nothing: --http "" turns off what the file turns on.
func readFlags(set *pflag.FlagSet) (layer, Faults) {
	l := layer{}
	var faults Faults
	if set == nil {
		return l, faults
	}
	byPath := make(map[string]key)
	for _, k := range keys() {
		byPath[k.path] = k
	}
	set.Visit(func(f *pflag.Flag) {
		value, ours := f.Value.(*flagValue)
		if !ours || value.key == "" {
			return
		}
		k, place := byPath[value.key], "--"+f.Name
		if value.repeatable { // a name of a file may hold a comma
			l[k.path] = setting{value: value.given, from: place}
			return
		}
		v, err := fromText(k.typ, value.String())
		faults.addText(place, k.path, err)
		if err == nil {
			l[k.path] = setting{value: v.Interface(), from: place}
		}
	})
	return l, faults
}
