#!/usr/bin/env bash
# run.sh TEST…: runs these files of Node's test runner, against the release build and the machine's
# engine. CREEL_BUILD_DIR names the build.
. "$(dirname "$0")/../../docker/setup/lib.sh"

here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || die "usage: run.sh TEST…"
: "${CREEL_BUILD_DIR:?}"
[ "$(id -u)" = 0 ] || die "these tests need root"
cache=$("$here/../e2e/setup.sh")
export CREEL_E2E_CACHE=$cache CREEL_BUILD_DIR
cd "$here"
exec "$cache/node/node" --test --test-concurrency=1 --test-reporter=spec "$@"
