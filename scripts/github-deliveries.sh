#!/usr/bin/env bash
# github-deliveries.sh: fills .cache/github-deliveries.ndjson with 329 real
# webhook deliveries of GitHub, one {"event": ..., "payload": ...} a line, from
# the npm package @octokit/webhooks-examples (MIT). Tests read them.
set -euo pipefail
cd "$(dirname "$0")/.."

package=@octokit/webhooks-examples
version=7.6.1
want=0ba121b7cf31c649d8b410953cf01281a8bad745250a04960e6a9af60a1357a5
out=.cache/github-deliveries.ndjson

sum() { node -e 'process.stdout.write(require("crypto").createHash("sha256").update(require("fs").readFileSync(process.argv[1])).digest("hex"))' "$1"; }

[ ! -s "$out" ] || exit 0

bash scripts/need.sh node npm
mkdir -p .cache
dir=$(mktemp -d .cache/npm.XXXXXX)
trap 'rm -rf "$dir"' EXIT

npm install --prefix "$dir" --ignore-scripts --no-save --no-audit --no-fund --loglevel=error \
  "$package@$version" </dev/null >&2

node - "$PWD/$dir/node_modules/$package/api.github.com/index.json" >"$dir/deliveries" <<'JS'
const lines = require(process.argv[2]).flatMap(({ name, examples }) =>
  examples.map((payload) => JSON.stringify({ event: name, payload }) + "\n"));
process.stdout.write(lines.join(""));
JS

got=$(sum "$dir/deliveries")
if [ "$got" != "$want" ]; then
  echo "$package $version has changed: its deliveries have SHA-256 $got, not $want." >&2
  echo "Look at what npm has installed; do not test on it before you know why." >&2
  exit 1
fi
mv "$dir/deliveries" "$out" # whole or not at all
