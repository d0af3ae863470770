#!/usr/bin/env bash
# fresh-root.sh DIR PACKAGE… [-- DEPENDENCY…]: makes in DIR a Debian 12 of nothing but the essential
# packages and these, with the dependencies downloaded and not installed. Kept as a tar archive in the
# cache folder, once for each list.
. "$(dirname "$0")/../../docker/setup/lib.sh"

[ $# -ge 2 ] || die "usage: fresh-root.sh DIR PACKAGE… [-- DEPENDENCY…]"
dir=$1
shift
packages=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  packages+=("$1")
  shift
done
[ $# = 0 ] || shift
later=("$@")

cache=${XDG_CACHE_HOME:-$HOME/.cache}/creel/roots
hash=$(printf '%s\n' "${packages[@]}" -- "${later[@]}" | sha256sum | cut -c1-16)
archive=$cache/$hash.tar
# Old ones know packages that the mirror no longer has.
find "$cache" -name '*.tar' -mtime +7 -delete 2>/dev/null || true
if ! [ -e "$archive" ]; then
  mkdir -p "$cache"
  say "making a fresh Debian 12"
  fresh=$(mktemp "$cache/new.XXXXXX")
  trap 'rm -f "$fresh"' EXIT
  hook=true
  if [ ${#later[@]} -gt 0 ]; then
    hook="chroot \"\$1\" apt-get -qq -y --no-install-recommends --download-only install ${later[*]}"
  fi
  include=$(IFS=,; printf '%s' "${packages[*]}")
  mmdebstrap --quiet --variant=minbase --include="$include" --skip=cleanup/apt,cleanup/tmp \
    --customize-hook="$hook" --format=tar bookworm "$fresh" >&2
  mv "$fresh" "$archive"
fi
mkdir -p "$dir"
tar -xf "$archive" -C "$dir" --numeric-owner
