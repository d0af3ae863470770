#!/usr/bin/env bash
# build.sh PRESET [TARGET…]: configures and builds, with a compiler cache that serves every clone.
. "$(dirname "$0")/lib.sh"

[ $# -gt 0 ] || die "usage: build.sh PRESET [TARGET…]"
preset=$1
shift
export CCACHE_BASEDIR=$SOURCE_DIR CCACHE_NOHASHDIR=1
cd "$SOURCE_DIR"
cmake --preset "$preset" --log-level=WARNING
cmake --build --preset "$preset" ${1:+--target "$@"}
