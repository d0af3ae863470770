#!/usr/bin/env bash
# sandbox-image.sh [full]: builds creel-sandbox:latest, or with `full` creel-sandbox:full on top of it,
# unless it was built from these very Dockerfiles.
. "$(dirname "$0")/lib.sh"

readonly LABEL=creel.dockerfile
context=$SOURCE_DIR/docker/sandbox
case "${1:-}" in
'')
  image=creel-sandbox:latest
  files=("$context/Dockerfile")
  ;;
full)
  "$0"
  image=creel-sandbox:full
  files=("$context/full.Dockerfile" "$context/Dockerfile")
  ;;
*) die "usage: sandbox-image.sh [full]" ;;
esac
hash=$(cat "${files[@]}" | sha256sum | cut -d' ' -f1)

built_from=$(engine image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$image" \
  2>/dev/null || true)
[ "$built_from" != "$hash" ] || exit 0

"$SETUP_DIR/base-image.sh"
say "building $image"
# The host's network where the engine has no bridge.
network=()
engine network inspect bridge >/dev/null 2>&1 || network=(--network host)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# How far it is, on a terminal: the builder's own steps, and what it does there.
show_steps() {
  local line step='' columns
  columns=$(($(tput cols 2>/dev/null || echo 80) - 34))
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    if [[ $line =~ ^Step\ ([0-9]+)/([0-9]+) ]]; then
      local done=$((BASH_REMATCH[1] * 20 / BASH_REMATCH[2]))
      step=$(printf '[%-20s] %s/%s' "$(printf '%*s' "$done" '' | tr ' ' '=')" \
        "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}")
    fi
    line=${line//[^[:print:]]/ }
    printf '\r\033[K%s %s' "$step" "${line:0:columns}" >&2
  done
  printf '\r\033[K' >&2
}

build() {
  engine build --label "$LABEL=$hash" --tag "$image" --file "${files[0]}" "${network[@]}" \
    "$context" 2>&1
}

built=0
if [ -t 2 ]; then
  build | show_steps || built=$?
else
  build >"$log" || built=$?
fi
if [ "$built" != 0 ]; then
  tail -n 40 "$log" >&2
  die "$image could not be built"
fi
