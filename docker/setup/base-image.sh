#!/usr/bin/env bash
# Provides debian:bookworm-slim: pulled where a registry answers, else made from Debian's packages.
. "$(dirname "$0")/lib.sh"

readonly IMAGE=debian:bookworm-slim
has_image "$IMAGE" && exit 0

# A registry that answers at all says so within seconds; the layers may then take their time.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
engine pull "$IMAGE" >"$log" 2>&1 &
pull=$!
for ((tries = 0; tries < 1500; ++tries)); do
  if ! kill -0 "$pull" 2>/dev/null; then
    break
  fi
  if [ "$tries" -ge 50 ] && ! grep -q 'Pulling' "$log"; then
    break
  fi
  sleep 0.2
done
kill "$pull" 2>/dev/null || true
if wait "$pull" 2>/dev/null && has_image "$IMAGE"; then
  exit 0
fi

say "no registry has $IMAGE for us; making it with mmdebstrap"
tarball=$(mktemp)
trap 'rm -f "$log" "$tarball"' EXIT
as_root mmdebstrap --quiet --variant=minbase bookworm - >"$tarball"
engine import --change 'CMD ["bash"]' - "$IMAGE" <"$tarball" >/dev/null
