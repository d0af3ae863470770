#!/usr/bin/env bash
# Puts what the tests need from npm into a cache folder outside the tree, once for each lock file, and
# prints that folder: node/, openclaw/, mcp/ and adapter/, each with its node_modules.
. "$(dirname "$0")/../../docker/setup/lib.sh"

here=$(cd "$(dirname "$0")" && pwd)
adapter=$SOURCE_DIR/supervisor/adapters/openclaw
root=${XDG_CACHE_HOME:-$HOME/.cache}/creel/e2e
hash=$(cat "$here"/npm/*/package-lock.json "$adapter/package-lock.json" | sha256sum | cut -c1-16)
cache=$root/$hash

if ! [ -d "$cache" ]; then
  command -v npm >/dev/null || die "npm is missing: docker/setup/packages.sh test installs it"
  mkdir -p "$root"
  # Whoever comes second finds it complete or not at all.
  fresh=$(mktemp -d "$root/new.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  for part in node openclaw mcp; do
    mkdir "$fresh/$part"
    cp "$here/npm/$part/package.json" "$here/npm/$part/package-lock.json" "$fresh/$part/"
  done
  mkdir "$fresh/adapter"
  cp "$adapter/package.json" "$adapter/package-lock.json" "$fresh/adapter/"
  for part in node openclaw mcp adapter; do
    say "installing $part from npm"
    (cd "$fresh/$part" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  done
  mv -T "$fresh" "$cache" 2>/dev/null || [ -d "$cache" ]
fi
node=("$cache"/node/node_modules/node-linux-*/bin/node)
[ -x "${node[0]}" ] || die "npm has no Node.js for this machine"
ln -sfn "${node[0]}" "$cache/node/node"
printf '%s\n' "$cache"
