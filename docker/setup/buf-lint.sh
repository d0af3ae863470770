#!/usr/bin/env bash
# Checks proto/ with buf, which npm puts into a cache folder outside the tree.
. "$(dirname "$0")/lib.sh"

lock=$SETUP_DIR/buf/package-lock.json
hash=$(sha256sum "$lock" | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/creel/buf-$hash

if ! [ -d "$cache" ]; then
  command -v npm >/dev/null || die "npm is missing: docker/setup/packages.sh test installs it"
  mkdir -p "$(dirname "$cache")"
  # Whoever comes second finds it complete or not at all.
  fresh=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  cp "$SETUP_DIR/buf/package.json" "$lock" "$fresh/"
  (cd "$fresh" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  [ -x "$(echo "$fresh"/node_modules/@bufbuild/buf-linux-*/bin/buf)" ] ||
    die "npm has no buf for this machine"
  mv -T "$fresh" "$cache" 2>/dev/null || [ -d "$cache" ]
fi

cd "$SOURCE_DIR/proto"
buf=("$cache"/node_modules/@bufbuild/buf-linux-*/bin/buf)
exec "${buf[0]}" lint "$@"
