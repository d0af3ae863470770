#!/usr/bin/env bash
# Everything that `make test` does, from a fresh machine on.
#   SANITIZE=1    runs the sanitizer builds too
#   CTEST_ARGS=…  is passed on to ctest of the release build, such as `-R exec_test`; the fuzz targets
#                 are then left out
#   test.sh sanitizers   runs the sanitizer builds only
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
summaries=()

# ctest over the tests of one preset, its output kept. Root: the tests mount, and speak to the engine.
run_ctest() {  # PRESET LOG ARGUMENTS…
  local preset=$1 log=$2 status=0
  shift 2
  as_root env "PATH=$PATH" ${XDG_CACHE_HOME:+"XDG_CACHE_HOME=$XDG_CACHE_HOME"} "HOME=$HOME" \
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=error "$@" | tee "$log" ||
    status=$?
  if [ "$(id -u)" != 0 ]; then
    as_root chown -R "$(id -u):$(id -g)" "build/$preset"
  fi
  return "$status"
}

# Runs the tests of one preset and remembers how they ended. Suites run two at a time, and some hold
# the supervisor to times: one that fails beside another gets a second run by itself, which is told,
# and which decides.
run_tests() {  # PRESET ARGUMENTS…
  local preset=$1 log=build/$1/ctest.log status=0
  shift
  run_ctest "$preset" "$log" "$@" || status=$?
  summaries+=("$preset: $(grep 'tests passed' "$log" || echo 'no test ran')")
  if [ "$status" != 0 ] && [ -s "build/$preset/Testing/Temporary/LastTestsFailed.log" ]; then
    say "these failed and are run again, one at a time: $(paste -sd' ' \
      "build/$preset/Testing/Temporary/LastTestsFailed.log")"
    status=0
    run_ctest "$preset" "$log.again" --rerun-failed || status=$?
    summaries+=("$preset, what had failed, alone: $(grep 'tests passed' "$log.again" ||
      echo 'no test ran')")
  fi
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

# Each target for a minute, from its corpus. Once: what a fuzzer has found it may not find again.
fuzz() {
  say "the fuzz targets, a minute each"
  "$SETUP_DIR/packages.sh" fuzz
  "$SETUP_DIR/build.sh" fuzz fuzzers
  run_ctest fuzz build/fuzz/ctest.log --parallel 2 --label-regex '^fuzz$'
  summaries+=("fuzz: $(grep 'tests passed' build/fuzz/ctest.log)")
}

"$SETUP_DIR/packages.sh" build run package test
if [ "${1:-}" != sanitizers ]; then
  trap '"$SETUP_DIR/engine.sh" stop' EXIT
  trap 'exit 130' INT TERM
  "$SETUP_DIR/engine.sh" start
  "$SETUP_DIR/sandbox-image.sh"
  "$SETUP_DIR/build.sh" release
  read -r -a more <<<"${CTEST_ARGS:-}"
  run_tests release --parallel 2 "${more[@]}"
  if [ -z "${CTEST_ARGS:-}" ]; then
    fuzz
  fi
fi
if [ "${1:-}" = sanitizers ] || [ -n "${SANITIZE:-}" ]; then
  sanitizers
fi
printf '\n'
printf '%s\n' "${summaries[@]}"
