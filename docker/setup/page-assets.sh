#!/usr/bin/env bash
# Puts what the page takes from npm (supervisor/web/vendor) into a cache folder outside the tree, once
# for each lock file, and prints its node_modules.
. "$(dirname "$0")/lib.sh"

vendor=$SOURCE_DIR/supervisor/web/vendor
hash=$(cat "$vendor/package.json" "$vendor/package-lock.json" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/creel/page-$hash

if ! [ -d "$cache" ]; then
  command -v npm >/dev/null || die "npm is missing: docker/setup/packages.sh build installs it"
  mkdir -p "$(dirname "$cache")"
  # Whoever comes second finds it complete or not at all.
  fresh=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  cp "$vendor/package.json" "$vendor/package-lock.json" "$fresh/"
  (cd "$fresh" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  mv -T "$fresh" "$cache" 2>/dev/null || [ -d "$cache" ]
fi
printf '%s\n' "$cache/node_modules"
