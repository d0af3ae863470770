#!/usr/bin/env bash
# run.sh TEST…: runs these files of Node's test runner against the page of a real creeld, in a real
# browser. CREEL_BUILD_DIR names the build; screenshots are left in its folder `screenshots`.
. "$(dirname "$0")/../../docker/setup/lib.sh"

here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || die "usage: run.sh TEST…"
: "${CREEL_BUILD_DIR:?}"
command -v chromium >/dev/null || die "chromium is missing: docker/setup/packages.sh test installs it"
cache=$("$here/setup.sh")
promtool=$("$SETUP_DIR/promtool.sh")
export CREEL_WEB_CACHE=$cache CREEL_BUILD_DIR CREEL_PROMTOOL=$promtool
cd "$here"
exec "$cache/node/node" --test --test-concurrency=1 --test-reporter=spec "$@"
