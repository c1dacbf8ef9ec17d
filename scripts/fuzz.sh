#!/usr/bin/env bash
# fuzz.sh DURATION: runs every Fuzz target of this module for DURATION each
# (go test fuzzes one target at a time).
set -euo pipefail
cd "$(dirname "$0")/.."

grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . |
  grep -v '^\./\(examples\|bench\|\.cache\)/' | sort |
  while IFS=: read -r file func; do
    go test -run '^$' -fuzz "^${func#func }\$" -fuzztime "$1" "$(dirname "$file")" </dev/null
  done
