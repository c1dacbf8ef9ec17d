// Package version says which bellhop a program was built with.
package version

import (
	"runtime"
	"runtime/debug"
)

const module = "github.com/bellhop-dev/bellhop"

// version is written by the linker:
// -ldflags "-X github.com/bellhop-dev/bellhop/internal/version.version=v1.2.3".
var version string

// String returns the version, the Go release and the platform for `--version`:
// "v1.2.3 (go1.26.0 linux/amd64)". The version is what the linker wrote, else
// what the go command knows of the build, else "devel".
func String() string {
	return Short() + " (" + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

// Short returns the version alone, for a log line or a metric's label.
func Short() string {
	if version != "" {
		return version
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		return fromBuild(build)
	}
	return "devel"
}

// fromBuild finds bellhop in a build: as the program itself, or among the
// dependencies of a user's own.
func fromBuild(build *debug.BuildInfo) string {
	if build.Main.Path == module {
		return fromModule(&build.Main, build.Settings)
	}
	for _, dep := range build.Deps {
		if dep.Path != module {
			continue
		}
		if dep.Replace != nil { // a fork or a checkout: its version is not ours
			return fromModule(dep.Replace, nil)
		}
		return fromModule(dep, nil)
	}
	return "devel"
}

func fromModule(m *debug.Module, settings []debug.BuildSetting) string {
	if m.Version != "" && m.Version != "(devel)" {
		return m.Version
	}
	return "devel" + revision(settings)
}

// revision returns "-1a2b3c4d5e6f", with "+dirty" for files that were not
// committed, or nothing where the build carries no commit (go test, -buildvcs=false).
func revision(settings []debug.BuildSetting) string {
	var commit, dirty string
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			commit = "-" + s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if commit == "" {
		return ""
	}
	return commit + dirty
}
