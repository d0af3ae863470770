#!/usr/bin/env bash
# The long form of tests that `make test` runs shortened; uses the release build that is there.
#   CREEL_CRASH_KILLS=… CREEL_FREEZE_ROUNDS=… CREEL_SOAK_SECONDS=…   how long
# Times are held strictly to their bars, so nothing else should run beside it.
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
trap '"$SETUP_DIR/engine.sh" stop' EXIT
trap 'exit 130' INT TERM
"$SETUP_DIR/engine.sh" start
"$SETUP_DIR/sandbox-image.sh"
"$SETUP_DIR/build.sh" release crash_test freeze_many_test incident_test \
  soak_test
as_root env CREEL_STRICT=1 "CREEL_CRASH_KILLS=${CREEL_CRASH_KILLS:-200}" \
  "CREEL_FREEZE_ROUNDS=${CREEL_FREEZE_ROUNDS:-20}" \
  "CREEL_SOAK_SECONDS=${CREEL_SOAK_SECONDS:-600}" \
  ctest --test-dir build/release --verbose --timeout 14400 \
  -R '^(crash_test|freeze_many_test|incident_test|soak_test)$'
