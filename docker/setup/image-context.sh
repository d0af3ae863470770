#!/usr/bin/env bash
# image-context.sh DIR [--npm-mounted]: makes in DIR a context for docker/Dockerfile from the release
# build, so that building the image only copies. With --npm-mounted the gateway's image has no
# node_modules: they are mounted when it runs.
. "$(dirname "$0")/lib.sh"

[ $# -ge 1 ] || die "usage: image-context.sh DIR [--npm-mounted]"
dir=$1
build=${CREEL_BUILD_DIR:-$SOURCE_DIR/build/release}
[ -x "$build/supervisor/daemon/creeld" ] || die "$build has no creeld: docker/setup/build.sh release"
mkdir -p "$dir/prebuilt"
"$SETUP_DIR/stage-root.sh" "$build" "$dir/prebuilt/root"
cd "$SOURCE_DIR"
cp LICENSE "$dir/"
for each in docker tests/e2e/npm supervisor/adapters/openclaw proto/creel; do
  mkdir -p "$dir/$(dirname "$each")"
  cp -a "$each" "$dir/$each"
done
rm -rf "$dir/supervisor/adapters/openclaw/node_modules"
if [ "${2:-}" = --npm-mounted ]; then
  mkdir "$dir/prebuilt-npm"
  touch "$dir/prebuilt-npm/mounted"
fi
