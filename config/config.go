// Package config reads the configuration of every command: a file, the environment and flags become one checked struct
// of the packages' own Config structs. It is the only package that knows viper.
//
// A key is a path of names: worker.retry.first. It is set, in rising precedence, by its default, by the file (sections in
// YAML), by the environment (BELLHOP_WORKER_RETRY_FIRST) and, if the command has one for it, by a flag. An empty variable
// sets nothing, so that a compose file can hand on what may be unset.
//
// A variable that ends with _FILE holds the name of a file to read a secret from: BELLHOP_REDIS_URL_FILE.
//
// Nothing is skipped in silence: unknown keys and variables, wrong types and what the packages refuse are all reported
// at once, each with its place.
package config

import (
	"reflect"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/sources/webhook"
	"github.com/bellhop-dev/bellhop/worker"
)

// Config is what all commands share: one file serves a whole installation. A package joins with a field here, a line in
// sections and its keys in bellhop.example.yaml.
type Config struct {
	Redis    redisconn.Config `mapstructure:"redis"`
	Events   events.Config    `mapstructure:"events"`
	Triggers Triggers         `mapstructure:"triggers"`
	Durable  Durable          `mapstructure:"durable"`
	Worker   worker.Config    `mapstructure:"worker"`
	Handlers handlers.Config  `mapstructure:"handlers"`
	Gateway  gateway.Config   `mapstructure:"gateway"`
	Hooks    webhook.Hooks    `mapstructure:"hooks"`
	Sources  Sources          `mapstructure:"sources"`
	HTTP     HTTP             `mapstructure:"http"`
	Log      Log              `mapstructure:"log"`
}

// sections name where each package's Config stands, and what an error of it is about that names no key.
func (c *Config) sections() []section {
	return []section{
		sectionOf("redis", &c.Redis, "url"),
		sectionOf("events", &c.Events, ""),
		sectionOf("triggers", &c.Triggers, ""),
		sectionOf("durable", &c.Durable, ""),
		sectionOf("worker", &c.Worker, ""),
		sectionOf("handlers.http", &c.Handlers.HTTP, ""),
		sectionOf("handlers.webhooks", &c.Handlers.Webhooks, ""),
		sectionOf("handlers.email", &c.Handlers.Email, ""),
		sectionOf("handlers.amqp", &c.Handlers.AMQP, ""),
		sectionOf("gateway", &c.Gateway, ""),
		sectionOf("hooks", &c.Hooks, ""),
		sectionOf("sources.rabbitmq", &c.Sources.RabbitMQ, ""),
		sectionOf("http", &c.HTTP, "addr"),
		sectionOf("log", &c.Log, ""),
	}
}

// section is a package's part of the configuration.
type section struct {
	path         string
	about        string
	fillDefaults func()
	validate     func() error
}

type sectionConfig[T any] interface {
	WithDefaults() T
	Validate() error
}

func sectionOf[T sectionConfig[T]](path string, at *T, about string) section {
	return section{
		path:  path,
		about: about,
		fillDefaults: func() {
			*at = (*at).WithDefaults()
			clearUnset(reflect.ValueOf(at).Elem())
		},
		validate: func() error { return (*at).Validate() },
	}
}

// clearUnset empties the fields that no configuration can hold, such as loggers: today's slog.Default() must not become
// the one that is kept when main sets another.
func clearUnset(v reflect.Value) {
	if v.Kind() != reflect.Struct { // a list holds no such fields
		return
	}
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("mapstructure") == "-" {
			v.Field(i).SetZero()
		}
	}
}
