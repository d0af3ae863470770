# shellcheck shell=bash
# Shared by the scripts beside it; to be sourced.

set -euo pipefail

SETUP_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034  # used by those who source this
SOURCE_DIR=$(cd "$SETUP_DIR/../.." && pwd)
# dockerd and mkfs live in sbin, which is not on everybody's path.
PATH=$PATH:/usr/sbin:/sbin

say() { printf -- '== %s\n' "$*" >&2; }

die() {
  printf -- '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Runs a command as root: as it is, or with sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root: run make as root, or install sudo"
  fi
}

# The docker command, as root where the user may not open the engine's socket.
engine() {
  if [ -z "${ENGINE_AS_ROOT:-}" ]; then
    ENGINE_AS_ROOT=no
    if [ "$(id -u)" != 0 ] && [ -z "${DOCKER_HOST:-}" ] && ! [ -w /var/run/docker.sock ]; then
      ENGINE_AS_ROOT=yes
    fi
  fi
  if [ "$ENGINE_AS_ROOT" = yes ]; then
    as_root docker "$@"
  else
    docker "$@"
  fi
}

# True if an engine answers.
engine_answers() { engine version --format '{{.Server.Version}}' >/dev/null 2>&1; }

has_image() { engine image inspect "$1" >/dev/null 2>&1; }
