#!/usr/bin/env bash
# Builds creel-sandbox:latest, unless it was built from this very Dockerfile.
. "$(dirname "$0")/lib.sh"

readonly IMAGE=creel-sandbox:latest
readonly LABEL=creel.dockerfile
context=$SOURCE_DIR/docker/sandbox
hash=$(sha256sum "$context/Dockerfile" | cut -d' ' -f1)

built_from=$(engine image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$IMAGE" \
  2>/dev/null || true)
[ "$built_from" != "$hash" ] || exit 0

"$SETUP_DIR/base-image.sh"
say "building $IMAGE"
# The host's network where the engine has no bridge.
network=()
engine network inspect bridge >/dev/null 2>&1 || network=(--network host)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! engine build --label "$LABEL=$hash" --tag "$IMAGE" "${network[@]}" "$context" >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  die "$IMAGE could not be built"
fi
