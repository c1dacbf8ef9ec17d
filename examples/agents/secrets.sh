#!/usr/bin/env bash
# secrets.sh: makes the secrets of this sample in secrets/, those that are not there yet. The directory is its owner's alone; the files
# can be read by whatever user a container has them mounted for.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets

make_secret() {
  [ -e "secrets/$1" ] && return
  echo "$2$(openssl rand "-$3" 32)" >"secrets/$1"
  chmod 444 "secrets/$1"
}

make_secret email '' hex
make_secret calendar '' hex
make_secret slack '' hex
make_secret stripe whsec_ hex
make_secret accounting whsec_ base64
make_secret crm whsec_ base64
make_secret rabbitmq '' hex
if [ ! -e secrets/rabbitmq.conf ]; then
  printf 'default_user = bellhop\ndefault_pass = %s\n' "$(cat secrets/rabbitmq)" >secrets/rabbitmq.conf
  chmod 444 secrets/rabbitmq.conf
fi
