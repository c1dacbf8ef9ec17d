#!/usr/bin/env bash
# check-compose.sh: loads docker-compose.yml as `docker compose` does, with its
# own loader where there is no docker, and looks for the files that it mounts.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then
  docker compose --profile '*' config --quiet
else
  "$(bash scripts/tool.sh compose-go)" docker-compose.yml >/dev/null
fi

# docker would make an empty directory of a file that is not there.
grep -v '^ *#' docker-compose.yml | grep -o '\./[^:" ]*:' | tr -d : | while read -r mounted; do
  [ -e "$mounted" ] || { echo "docker-compose.yml mounts $mounted, which does not exist" >&2; exit 1; }
done
# Secrets are no part of the repository: the script makes those that are named.
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
cp examples/agents/secrets.sh "$made"
bash "$made/secrets.sh"
sed -n 's#.*file: \./examples/agents/##p' docker-compose.yml | tr -d '}' | while read -r secret; do
  [ -s "$made/$secret" ] || { echo "docker-compose.yml names $secret, which secrets.sh does not make" >&2; exit 1; }
done
echo "docker-compose.yml: good"
