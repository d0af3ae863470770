#!/usr/bin/env bash
# npm-cache.sh NAME PART=FOLDER…: puts what these folders' lock files name from npm into a cache folder
# outside the tree, once for each set of lock files, and prints that folder: each PART in it with its
# node_modules, and Node.js as node/node.
. "$(dirname "$0")/../docker/setup/lib.sh"

[ $# -gt 1 ] || die "usage: npm-cache.sh NAME PART=FOLDER…"
root=${XDG_CACHE_HOME:-$HOME/.cache}/creel/$1
shift
hash=$(for each in "$@"; do cat "${each#*=}/package-lock.json"; done | sha256sum | cut -c1-16)
cache=$root/$hash

if ! [ -d "$cache" ]; then
  command -v npm >/dev/null || die "npm is missing: docker/setup/packages.sh build installs it"
  mkdir -p "$root"
  # Whoever comes second finds it complete or not at all.
  fresh=$(mktemp -d "$root/new.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  for each in "$@"; do
    part=${each%%=*}
    mkdir "$fresh/$part"
    cp "${each#*=}/package.json" "${each#*=}/package-lock.json" "$fresh/$part/"
    say "installing $part from npm"
    (cd "$fresh/$part" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  done
  mv -T "$fresh" "$cache" 2>/dev/null || [ -d "$cache" ]
fi
node=("$cache"/node/node_modules/node-linux-*/bin/node)
[ -x "${node[0]}" ] || die "npm has no Node.js for this machine"
ln -sfn "${node[0]}" "$cache/node/node"
printf '%s\n' "$cache"
