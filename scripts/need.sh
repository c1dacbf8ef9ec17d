#!/usr/bin/env bash
# need.sh COMMAND...: has every command at hand, or installs its Debian package
# where apt-get and root are to be had, or says what to install.
set -euo pipefail

main() {
  local command missing=()
  for command in "$@"; do
    have "$command" || missing+=("$(package_of "$command")")
  done
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

have() {
  case $1 in
    redis-server) command -v redis-server || command -v valkey-server ;;
    rabbitmq-server) command -v rabbitmq-server || command -v /usr/lib/rabbitmq/bin/rabbitmq-server ;;
    *) command -v "$1" ;;
  esac >/dev/null
}

package_of() {
  case $1 in
    gcc) echo "gcc libc6-dev" ;; # the race detector links with cgo
    node) echo nodejs ;;
    *) echo "$1" ;;
  esac
}

install_packages() {
  local as_root=()
  if ! command -v apt-get >/dev/null; then
    give_up "$@"
  elif [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || give_up "$@"
    as_root=(sudo)
    [ -t 0 ] || as_root+=(-n) # nobody there to type a password
  fi

  echo "installing Debian packages: $*" >&2
  local packages
  read -ra packages <<<"$*"
  "${as_root[@]}" apt-get update -qq >&2 || give_up "$@"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null >&2 || give_up "$@"
}

give_up() {
  echo "missing, and not installable from here: $*" >&2
  echo "Install it (Debian: apt-get install $*; macOS: brew install the like), then run this again." >&2
  exit 1
}

main "$@"
