#!/usr/bin/env bash
# Everything that `make test` does, from a fresh machine on.
#   SANITIZE=1    runs the sanitizer builds too
#   CTEST_ARGS=…  is passed on to ctest of the release build, such as `-R exec_test`
#   test.sh sanitizers   runs the sanitizer builds only
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
summaries=()

# Runs the tests of one preset and remembers how they ended.
run_tests() {  # PRESET ARGUMENTS…
  local preset=$1 log=build/$1/ctest.log status=0
  shift
  # Root: the tests mount, and speak to the engine.
  as_root env "PATH=$PATH" ${XDG_CACHE_HOME:+"XDG_CACHE_HOME=$XDG_CACHE_HOME"} "HOME=$HOME" \
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=error "$@" | tee "$log" ||
    status=$?
  if [ "$(id -u)" != 0 ]; then
    as_root chown -R "$(id -u):$(id -g)" "build/$preset"
  fi
  summaries+=("$preset: $(grep 'tests passed' "$log" || echo 'no test ran')")
  return "$status"
}

# Each in turn, as both processors are busy with one; what needs the engine runs in release alone.
sanitizers() {
  say "ThreadSanitizer, on the rooms without gRPC"
  "$SETUP_DIR/build.sh" tsan
  run_tests tsan --parallel 2 --label-exclude engine
  say "AddressSanitizer and UndefinedBehaviorSanitizer"
  "$SETUP_DIR/build.sh" asan
  run_tests asan --parallel 2 --label-exclude engine
}

"$SETUP_DIR/packages.sh" build run test
if [ "${1:-}" != sanitizers ]; then
  trap '"$SETUP_DIR/engine.sh" stop' EXIT
  trap 'exit 130' INT TERM
  "$SETUP_DIR/engine.sh" start
  "$SETUP_DIR/sandbox-image.sh"
  "$SETUP_DIR/build.sh" release
  read -r -a more <<<"${CTEST_ARGS:-}"
  run_tests release --parallel 2 "${more[@]}"
fi
if [ "${1:-}" = sanitizers ] || [ -n "${SANITIZE:-}" ]; then
  sanitizers
fi
printf '\n'
printf '%s\n' "${summaries[@]}"
