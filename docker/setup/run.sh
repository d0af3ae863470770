#!/usr/bin/env bash
# Everything that `make run` does, from a fresh machine on.
#   ONCE=1        ends after the tour; fails unless every wall held
#   CONCEDE=…     concessions to be named in creeld's configuration, separated by commas; see
#                 docs/modes.md
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
"$SETUP_DIR/packages.sh" build run
trap '"$SETUP_DIR/engine.sh" stop' EXIT
trap 'exit 130' INT TERM
"$SETUP_DIR/engine.sh" start
"$SETUP_DIR/sandbox-image.sh"
"$SETUP_DIR/build.sh" release creeld creel creel-shim
# As root creeld can give what a member of the docker group cannot: workspaces of fixed size, users
# of their own for the tools.
as_root env "PATH=$PATH" "HOME=$HOME" ${DOCKER_HOST:+"DOCKER_HOST=$DOCKER_HOST"} \
  "ONCE=${ONCE:-}" "CONCEDE=${CONCEDE:-}" "TERM=${TERM:-dumb}" "$SETUP_DIR/serve.sh"
