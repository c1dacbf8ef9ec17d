#!/usr/bin/env bash
# tool.sh NAME: prints the path of a development tool at its pinned version,
# building it into .cache/tools first where it is not there yet.
# Tools stay out of go.mod: their dependencies are not bellhop's.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
  golangci-lint) package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint version=v2.15.0 ;;
  actionlint) package=github.com/rhysd/actionlint/cmd/actionlint version=v1.7.12 ;;
  govulncheck) package=golang.org/x/vuln/cmd/govulncheck version=v1.9.0 ;;
  compose-go) package=github.com/compose-spec/compose-go/v2/cmd version=v2.16.2 ;;
  *)
    echo "usage: tool.sh golangci-lint|actionlint|govulncheck|compose-go" >&2
    exit 2
    ;;
esac

# One that is installed serves, if it is this version and built by this Go:
# golangci-lint refuses code that is newer than itself.
installed=$(PATH=$PATH:$(go env GOPATH)/bin command -v "$1" || true)
if [ -n "$installed" ]; then
  built_from=$(go version -m "$installed" 2>/dev/null || true)
  if [[ $built_from == *": $(go env GOVERSION)"*$'\tpath\t'"$package"$'\n'*$'\tmod\t'*$'\t'"$version"* ]]; then
    echo "$installed"
    exit
  fi
fi

built=$PWD/.cache/tools/$1-$version-$(go env GOVERSION)
if [ ! -x "$built/${package##*/}" ]; then
  echo "building $1 $version (once)" >&2
  # Its go.mod may ask for another Go; ours is what it has to understand.
  GOBIN=$built GOTOOLCHAIN=local go install "$package@$version" >&2
fi
echo "$built/${package##*/}"
