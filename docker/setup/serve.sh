#!/usr/bin/env bash
# Starts the creeld that was built, plays the tour, and goes on serving until Ctrl-C. Takes away
# what it made: sandboxes, folders, the daemon. See run.sh for ONCE and CONCEDE.
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
build=build/release
CREEL=$SOURCE_DIR/$build/supervisor/cli/creel
log=build/run/creeld.log
mkdir -p build/run

# The usual folders, unless somebody has them; what an earlier run left behind is ours.
readonly MARK=.made-by-make-run
ours_or_free() { [ ! -e "$1" ] || [ -e "$1/$MARK" ]; }
CREEL_RUN_DIR=/run/creel
CREEL_STATE_DIR=/var/lib/creel
if ! ours_or_free "$CREEL_STATE_DIR" ||
  { [ -e "$CREEL_RUN_DIR" ] && [ ! -e "$CREEL_STATE_DIR/$MARK" ]; }; then
  CREEL_RUN_DIR=/run/creel-run
  CREEL_STATE_DIR=/var/lib/creel-run
  ours_or_free "$CREEL_STATE_DIR" || die "$CREEL_STATE_DIR is not ours; move it out of the way"
fi
export CREEL CREEL_RUN_DIR CREEL_STATE_DIR
# With no more than the name of a session to go by, a tool might look for what creeld knows.
CREEL_TOUR_CANARY=canary-$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
export CREEL_TOUR_CANARY

if "$CREEL" ps >/dev/null 2>&1; then
  die "a supervisor serves at $CREEL_RUN_DIR already: stop the other 'make run' first"
fi
install -d -m 0700 "$CREEL_STATE_DIR"
touch "$CREEL_STATE_DIR/$MARK"

cat >build/run/creel.yaml <<YAML
# Written by make run.
paths:
  run_dir: $CREEL_RUN_DIR
  state_dir: $CREEL_STATE_DIR
  shim: $SOURCE_DIR/$build/creel-shim
sandbox:
  mode: non-main
  limits:
    workspace: 256MiB
concessions: [${CONCEDE:-}]
YAML

daemon=
tidy() {
  trap '' INT TERM
  if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
    say "removing the sandboxes and stopping creeld"
    "$CREEL" ps --json 2>/dev/null | grep -oE '"session": *"[^"]+"' | cut -d'"' -f4 |
      while read -r session; do
        timeout 30 "$CREEL" close "$session" --force >/dev/null 2>&1 || true
      done
    kill -TERM "$daemon" 2>/dev/null || true
    local tries
    for ((tries = 0; tries < 150; ++tries)); do
      kill -0 "$daemon" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$daemon" 2>/dev/null || true
  fi
  # Only if nothing is mounted there any more is it only files.
  if ! grep -qE " ($CREEL_STATE_DIR|$CREEL_RUN_DIR)/" /proc/self/mounts; then
    rm -rf --one-file-system "$CREEL_STATE_DIR" "$CREEL_RUN_DIR"
  fi
}
trap tidy EXIT
trap 'exit 130' INT TERM

say "starting creeld (its log: $log)"
# In a process group of its own: Ctrl-C is for this script, which then stops it in order.
setsid "$build/supervisor/daemon/creeld" --config build/run/creel.yaml </dev/null >"$log" 2>&1 &
daemon=$!
for ((tries = 0; ; ++tries)); do
  if "$CREEL" ps >/dev/null 2>&1; then
    break
  fi
  if ! kill -0 "$daemon" 2>/dev/null || [ "$tries" -ge 300 ]; then
    tail -n 30 "$log" >&2
    die "creeld did not come up; a concession that it asks for can be named: make run CONCEDE=…"
  fi
  sleep 0.1
done

held=0
"$SETUP_DIR/tour.sh" || held=$?
if [ -n "${ONCE:-}" ] || [ "$held" -ge 128 ]; then
  exit "$held"
fi

prefix=
if [ -n "${SUDO_UID:-}" ]; then
  prefix='sudo '
fi
at=
if [ "$CREEL_RUN_DIR" != /run/creel ]; then
  at="CREEL_RUN_DIR=$CREEL_RUN_DIR "
fi
cat <<END

creeld goes on serving; Ctrl-C ends it and removes its sandboxes. To try in another terminal, in
this folder:

  $prefix${at}${CREEL#"$SOURCE_DIR/"} exec -i -t agent:main:whatsapp:group:120363 -- bash
  $prefix${at}${CREEL#"$SOURCE_DIR/"} inspect agent:main:whatsapp:group:120363
  $prefix${at}${CREEL#"$SOURCE_DIR/"} doctor
  $prefix${at}${CREEL#"$SOURCE_DIR/"} page

END
wait "$daemon"
