#!/usr/bin/env bash
# Puts Node.js, the browser's driver and the accessibility checks from npm into a cache folder outside
# the tree, once for each lock file, and prints that folder.
. "$(dirname "$0")/../../docker/setup/lib.sh"

here=$(cd "$(dirname "$0")" && pwd)
root=${XDG_CACHE_HOME:-$HOME/.cache}/creel/web
hash=$(cat "$here/npm/package-lock.json" "$here/../e2e/npm/node/package-lock.json" | sha256sum | cut -c1-16)
cache=$root/$hash

if ! [ -d "$cache" ]; then
  command -v npm >/dev/null || die "npm is missing: docker/setup/packages.sh build installs it"
  mkdir -p "$root"
  # Whoever comes second finds it complete or not at all.
  fresh=$(mktemp -d "$root/new.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  mkdir "$fresh/node" "$fresh/tests"
  cp "$here"/../e2e/npm/node/package*.json "$fresh/node/"
  cp "$here"/npm/package*.json "$fresh/tests/"
  for part in node tests; do
    say "installing $part from npm"
    (cd "$fresh/$part" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  done
  mv -T "$fresh" "$cache" 2>/dev/null || [ -d "$cache" ]
fi
node=("$cache"/node/node_modules/node-linux-*/bin/node)
[ -x "${node[0]}" ] || die "npm has no Node.js for this machine"
ln -sfn "${node[0]}" "$cache/node/node"
printf '%s\n' "$cache"
