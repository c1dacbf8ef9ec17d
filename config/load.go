package config

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Options say where to look.
type Options struct {
	// File must be there. Default: what the flag --config or BELLHOP_CONFIG names, else bellhop.yaml in Dir if there is one.
	File string

	// Flags are parsed already; those that AddFlags made and that were given are used. May be nil.
	Flags *pflag.FlagSet

	// Env is mostly os.Environ(). Default: none.
	Env []string

	// Dir is where relative names of files begin. Default: the working directory.
	Dir string
}

// Loaded is a checked configuration that knows where each of its values came from.
type Loaded struct {
	Config Config

	// File is the file that was read, "" if none was.
	File string

	from map[string]string // by key; those that are missing have their default
}

// Load reads the file, the environment and the flags, and checks the result. The error is of type Faults and holds all
// that is wrong.
func Load(o Options) (*Loaded, error) {
	inFile, file, faults := readFile(o.file(), o.Dir)
	inEnv, envFaults := readEnv(o.Env, o.Dir)
	inFlags, flagFaults := readFlags(o.Flags)
	faults = append(append(faults, envFaults...), flagFaults...)

	cfg, err := merge(inFile, inEnv, inFlags)
	if err != nil {
		return nil, fmt.Errorf("merge file, environment and flags: %w", err)
	}
	l := &Loaded{Config: cfg, File: file, from: origins(inFile, inEnv, inFlags)}
	faults = l.fillDefaults(faults)
	if faults = l.check(faults); len(faults) > 0 {
		return nil, faults
	}
	return l, nil
}

func (o Options) file() string {
	if o.File != "" {
		return o.File
	}
	if o.Flags != nil {
		if f := o.Flags.Lookup(flagConfig); f != nil && f.Changed {
			return f.Value.String()
		}
	}
	return variables(o.Env)[envConfig]
}

// layer is what one source sets, by key.
type layer map[string]setting

type setting struct {
	value any // of the field's own type
	from  string
}

// delimiter is in no key: with viper's own, a dot, names with dots would be split.
const delimiter = "::"

// merge lays each layer over those before. viper is new for each load: what it once held must not shine through. The
// environment is a layer like the others, as viper's own reading of it takes everything for text and reports nothing.
func merge(layers ...layer) (Config, error) {
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	for _, l := range layers {
		if err := v.MergeConfigMap(l.tree()); err != nil {
			return Config{}, err
		}
	}
	var c Config
	err := v.UnmarshalExact(&c, viper.DecodeHook(nil))
	return c, err
}

// tree nests the layer as viper wants it.
func (l layer) tree() map[string]any {
	root := make(map[string]any)
	for path, s := range l {
		at := root
		names := strings.Split(path, ".")
		for _, name := range names[:len(names)-1] {
			if at[name] == nil {
				at[name] = make(map[string]any)
			}
			at = at[name].(map[string]any)
		}
		at[names[len(names)-1]] = s.value
	}
	return root
}

func origins(layers ...layer) map[string]string {
	from := make(map[string]string)
	for _, l := range layers {
		for path, s := range l {
			from[path] = s.from
		}
	}
	return from
}

// fillDefaults leaves a note where somebody wrote something empty, which means the default too. A number or a duration of 0 is refused
// there: who writes it wants none of it, and would get the default.
func (l *Loaded) fillDefaults(faults Faults) Faults {
	before := reflect.ValueOf(l.Config)
	for _, s := range l.Config.sections() {
		s.fillDefaults()
	}
	after := reflect.ValueOf(l.Config)
	for _, k := range keys() {
		from, filled := l.from[k.path], after.FieldByIndex(k.index)
		switch {
		case from == "" || !before.FieldByIndex(k.index).IsZero() || filled.IsZero():
		case filled.CanInt() || filled.CanUint():
			faults.add(from, "%s: is 0, which would mean its default (%v): leave it out for that, or give another value", k.path, filled.Interface())
		default:
			l.from[k.path] = "default, by " + from
		}
	}
	return faults
}

// Origin tells where the value of a key such as worker.queues came from: "default", "bellhop.yaml:12", "BELLHOP_X" or
// "--flag".
func (l *Loaded) Origin(path string) string { return cmp.Or(l.from[path], "default") }

// Default is the configuration of a process that is told nothing.
func Default() Config {
	var c Config
	for _, s := range c.sections() {
		s.fillDefaults()
	}
	return c
}
