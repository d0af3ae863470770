#!/usr/bin/env bash
# supervisor-image.sh [TAG]: packages the release build as the image creel:VERSION (or TAG), which
# compose/compose.yaml then takes instead of compiling.
. "$(dirname "$0")/lib.sh"

version=$(sed -n 's/^project(creel VERSION \([0-9.]*\).*/\1/p' "$SOURCE_DIR/CMakeLists.txt")
tag=${1:-creel:$version}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
"$SETUP_DIR/base-image.sh"
"$SETUP_DIR/image-context.sh" "$context"
say "packaging $tag"
engine build --quiet --target supervisor --file "$context/docker/Dockerfile" --tag "$tag" \
  --build-arg "VERSION=$version" \
  --build-arg "REVISION=$(git -C "$SOURCE_DIR" rev-parse HEAD 2>/dev/null || true)" "$context" >/dev/null
