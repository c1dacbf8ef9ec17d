#!/usr/bin/env bash
# examples.sh: vets, builds and tests each module of examples/ the way a user
# has it: in a directory outside of this repository, with bellhop as a
# dependency. Only the version is ours: a replace leads to this checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT

for example in examples/*/go.mod; do
  [ -e "$example" ] || continue
  name=$(basename "$(dirname "$example")")
  echo "examples/$name, as a module outside of this repository:"
  cp -R "examples/$name" "$outside/$name"
  (
    cd "$outside/$name"
    export GOWORK=off GOFLAGS=-mod=mod # as `go get` would: requirements follow bellhop's
    go mod edit -replace "github.com/bellhop-dev/bellhop=$root"
    go vet ./...
    go build -o /dev/null ./...
    go test -race "$@" ./...
  )
done
