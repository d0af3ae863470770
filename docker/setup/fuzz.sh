#!/usr/bin/env bash
# Builds the fuzz targets with clang and sanitizers, and lets each run for a minute from its corpus.
#   CTEST_ARGS=… is passed on to ctest, such as `-R client_hello`
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
"$SETUP_DIR/packages.sh" build fuzz
"$SETUP_DIR/build.sh" fuzz fuzzers
read -r -a more <<<"${CTEST_ARGS:-}"
ctest --test-dir build/fuzz --output-on-failure --no-tests=error --parallel 2 -L '^fuzz$' "${more[@]}"
