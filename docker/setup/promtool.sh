#!/usr/bin/env bash
# Prints where promtool is: on the path, or taken out of Debian's package into a cache folder. The
# package is not installed, as that would start a server.
. "$(dirname "$0")/lib.sh"

if command -v promtool; then
  exit 0
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/creel/promtool
if ! [ -x "$cache/usr/bin/promtool" ]; then
  command -v apt-get >/dev/null || die "there is no promtool, and no apt-get to get it"
  mkdir -p "$(dirname "$cache")"
  fresh=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  (cd "$fresh" && apt-get -qq download prometheus >&2)
  dpkg-deb -x "$fresh"/prometheus_*.deb "$fresh/all"
  mkdir -p "$cache/usr/bin"
  install -m 0755 "$fresh/all/usr/bin/promtool" "$cache/usr/bin/promtool.new"
  mv "$cache/usr/bin/promtool.new" "$cache/usr/bin/promtool"
fi
printf '%s\n' "$cache/usr/bin/promtool"
