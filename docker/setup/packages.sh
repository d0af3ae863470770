#!/usr/bin/env bash
# packages.sh GROUP…: installs the packages of these groups of packages.txt that are missing. Quick,
# and without asking any mirror, when nothing is.
. "$(dirname "$0")/lib.sh"

[ $# -gt 0 ] || die "usage: packages.sh GROUP…"

missing=()
while read -r group package command; do
  case " $* " in *" $group "*) ;; *) continue ;; esac
  if [ -n "$command" ] && command -v "$command" >/dev/null; then
    continue
  fi
  state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  case "$state" in ii*) ;; *) missing+=("$package") ;; esac
done < <(grep -v '^#' "$SETUP_DIR/packages.txt")

[ ${#missing[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null ||
  die "these are missing, and there is no apt-get to install them: ${missing[*]}"
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
as_root apt-get -qq update >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
  "${missing[@]}" >&2
