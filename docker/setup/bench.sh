#!/usr/bin/env bash
# `make bench`: set-up, release build, and every figure side by side in one run, as a table and in
# build/bench.json, and as a picture in build/bench.svg. To show it in the docs:
# tests/bench/draw.py build/bench.json docs/bench.svg
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
"$SETUP_DIR/packages.sh" build run
trap '"$SETUP_DIR/engine.sh" stop' EXIT
trap 'exit 130' INT TERM
"$SETUP_DIR/engine.sh" start
"$SETUP_DIR/sandbox-image.sh"
"$SETUP_DIR/build.sh" release
as_root build/release/tests/bench/creel_bench
if command -v python3 >/dev/null; then
  python3 tests/bench/draw.py build/bench.json build/bench.svg
  say "drawn to build/bench.svg"
fi
