package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	envPrefix = "BELLHOP_"
	envConfig = "BELLHOP_CONFIG" // names the file, like --config

	fileSuffix     = "_FILE"
	maxSecretBytes = 64 << 10
)

// readEnv returns what the environment sets. All of BELLHOP_* is ours: a name that is no key's is a fault, not a
// variable that has no effect. An empty one is one that is not set.
func readEnv(environ []string, dir string) (layer, Faults) {
	var faults Faults
	set := layer{}
	byName := make(map[string]key)
	for _, k := range keys() {
		byName[k.env()] = k
	}

	vars := variables(environ)
	for _, name := range sorted(vars) {
		value := vars[name]
		secret, isFile := fileVariable(name, byName)
		k, known := byName[name]
		switch {
		case name == envConfig || isServiceLink(name, value):
			continue
		case isFile && vars[secret.env()] != "":
			faults.add(name, "%s: %s is set too; keep one of them", secret.path, secret.env())
			continue
		case isFile:
			text, err := readLimited(within(dir, value), maxSecretBytes)
			if err != nil {
				faults = append(faults, &Fault{
					Text:  fmt.Sprintf("%s: cannot read the file %s: %v; name one that holds the value", secret.path, quote(value), withoutPath(err)),
					Place: name, Err: err,
				})
				continue
			}
			// Editors and `echo` end files with a newline, which no secret means.
			k, value = secret, strings.TrimRight(string(text), "\r\n")
		case !known:
			faults.add("environment", "%s", unknownVariable(name, byName))
			continue
		}
		v, err := fromText(k.typ, value)
		faults.addText(name, k.path, err)
		if err == nil {
			set[k.path] = setting{value: v.Interface(), from: name}
		}
	}
	return set, faults
}

// unknownVariable compares without the prefix, which makes all names alike.
func unknownVariable(name string, byName map[string]key) string {
	known := []string{strings.TrimPrefix(envConfig, envPrefix)}
	for other := range byName {
		known = append(known, strings.TrimPrefix(other, envPrefix))
	}
	slices.Sort(known)
	if near := nearest(strings.TrimPrefix(name, envPrefix), known); near != "" {
		return fmt.Sprintf("%s: unknown variable, did you mean %q?", printable(name), envPrefix+near)
	}
	return printable(name) + ": unknown variable; remove it, " + envPrefix + "* are the names of keys"
}

// variables are those of ours that are not empty; the last of a name counts, as for os.Getenv's callers.
func variables(environ []string) map[string]string {
	vars := make(map[string]string)
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, envPrefix) {
			vars[name] = value
		}
	}
	for name, value := range vars {
		if value == "" {
			delete(vars, name)
		}
	}
	return vars
}

func sorted(vars map[string]string) []string {
	names := make([]string, 0, len(vars))
	for name := range vars {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fileVariable finds the key whose secret stands in a file. A key of that very name comes first: redis.password_file is
// read anew for each connection, which one reading could not be.
func fileVariable(name string, byName map[string]key) (key, bool) {
	if _, own := byName[name]; own {
		return key{}, false
	}
	without, cut := strings.CutSuffix(name, fileSuffix)
	k, ok := byName[without]
	return k, cut && ok && isSecret(k.path)
}

func within(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

var (
	serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	serviceURL  = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// isServiceLink knows the variables that Kubernetes gives to each pod for a service named bellhop, or bellhop-gateway.
// They are the only ones of the prefix that are nobody's mistake.
func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && serviceURL.MatchString(value)
}
