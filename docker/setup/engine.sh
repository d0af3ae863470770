#!/usr/bin/env bash
# The Docker Engine that Creel drives.
#   engine.sh start              uses the engine that answers, else starts one and waits for it
#   engine.sh stop               ends it if `start` had to start dockerd by hand; else does nothing
#   engine.sh status             says which engine answers
#   engine.sh start-private DIR [IMAGE…]
#                                starts a second engine that keeps everything in DIR, offers the
#                                runtime `runsc` and gets copies of these images; prints its host
#   engine.sh fresh-private DIR [IMAGE…]
#                                the same, after what an earlier one left in DIR was removed
#   engine.sh stop-private DIR   ends that one and removes DIR
. "$(dirname "$0")/lib.sh"

# Root's, so that nobody else can have `stop` end something else.
OWN_DIR=/run/creel-setup
OWN_PID=$OWN_DIR/dockerd.pid
OWN_LOG=$OWN_DIR/dockerd.log

# True if the pid in this file is a dockerd, and not one that nobody has reaped yet.
runs() {
  local pid
  pid=$(as_root cat "$1" 2>/dev/null) || return 1
  case "$(as_root readlink "/proc/$pid/exe" 2>/dev/null)" in */dockerd*) ;; *) return 1 ;; esac
}

wait_for_engine() {  # LOG
  local tries
  for ((tries = 0; tries < 300; ++tries)); do
    if engine_answers; then
      return 0
    fi
    sleep 0.2
  done
  as_root tail -n 20 "$1" >&2 || true
  return 1
}

runtime_flags() {
  if command -v runsc >/dev/null; then
    printf -- '--add-runtime\nrunsc=%s\n' "$SETUP_DIR/runsc-wrapper"
  fi
}

start() {
  if engine_answers; then
    return 0
  fi
  if [ -n "${DOCKER_HOST:-}" ]; then
    die "no engine answers at DOCKER_HOST=$DOCKER_HOST"
  fi
  if [ -d /run/systemd/system ]; then
    say "starting the docker service"
    as_root systemctl start docker
    engine_answers || die "the docker service runs and does not answer: see journalctl -u docker"
    return 0
  fi
  command -v dockerd >/dev/null || die "no engine answers, and there is no dockerd to start"
  say "starting dockerd (its log: $OWN_LOG)"
  as_root mkdir -p "$OWN_DIR"
  as_root rm -f "$OWN_PID"
  local flags
  mapfile -t flags < <(runtime_flags)
  # shellcheck disable=SC2016  # expanded by that shell
  as_root sh -c 'log=$1; pid=$2; shift 2
    setsid dockerd --pidfile "$pid" "$@" </dev/null >"$log" 2>&1 &' \
    sh "$OWN_LOG" "$OWN_PID" "${flags[@]}"
  wait_for_engine "$OWN_LOG" || die "dockerd did not come up"
}

end_daemon() {  # PIDFILE
  local pid
  runs "$1" || return 0
  pid=$(as_root cat "$1")
  as_root kill -TERM "$pid"
  local tries
  for ((tries = 0; tries < 150; ++tries)); do
    runs "$1" || return 0
    sleep 0.2
  done
  as_root kill -KILL "$pid"
}

stop() {
  if runs "$OWN_PID"; then
    say "stopping the dockerd that was started for this"
    end_daemon "$OWN_PID"
  fi
}

status() {
  if engine_answers; then
    engine version --format 'Docker Engine {{.Server.Version}}, API {{.Server.APIVersion}}'
    # shellcheck disable=SC2016  # a variable of the template
    engine info --format 'runtimes:{{range $name, $_ := .Runtimes}} {{$name}}{{end}}'
    if runs "$OWN_PID"; then
      echo "started by engine.sh"
    fi
  else
    echo "no engine answers"
    return 1
  fi
}

start_private() {
  [ $# -gt 0 ] || die "usage: engine.sh start-private DIR [IMAGE…]"
  [ "$(id -u)" = 0 ] || die "a second engine needs root"
  mkdir -p "$1"
  local dir host
  dir=$(cd "$1" && pwd)
  shift
  host=unix://$dir/docker.sock
  local flags
  mapfile -t flags < <(runtime_flags)
  # Its containers outlive it.
  [ -z "${CREEL_PRIVATE_LIVE_RESTORE:-}" ] || flags+=(--live-restore)
  if ! runs "$dir/dockerd.pid"; then
    # A killed one leaves it, and while nobody has reaped that, the next does not start.
    rm -f "$dir/dockerd.pid"
    # Its own namespaces, in case the machine's containerd is shared; and of the network, as a dockerd
    # without a bridge takes away the machine's docker0.
    setsid unshare --net dockerd --host "$host" --data-root "$dir/data" --exec-root "$dir/exec" \
      --pidfile "$dir/dockerd.pid" --bridge none --iptables=false --ip6tables=false \
      --containerd-namespace "${dir##*/}" --containerd-plugins-namespace "${dir##*/}-plugins" \
      "${flags[@]}" </dev/null >"$dir/dockerd.log" 2>&1 &
    (
      export DOCKER_HOST=$host
      wait_for_engine "$dir/dockerd.log"
    ) || die "the second dockerd did not come up"
  fi
  local image
  for image in "$@"; do
    if ! docker --host "$host" image inspect "$image" >/dev/null 2>&1; then
      docker save "$image" | docker --host "$host" load >&2
    fi
  done
  printf '%s\n' "$host"
}

stop_private() {
  [ $# = 1 ] || die "usage: engine.sh stop-private DIR"
  [ -d "$1" ] || return 0
  local dir
  dir=$(cd "$1" && pwd)
  # Nothing but what start_private made is ever removed.
  [ -e "$dir/dockerd.log" ] || die "$dir holds no engine of ours"
  end_daemon "$dir/dockerd.pid"
  # A killed engine leaves these behind: containerd's shims, and gVisor's processes.
  pkill -KILL -f -- "(-address |--root=)$dir/exec/" || true
  # What a killed container left mounted.
  awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/self/mounts | sort -r |
    while read -r mount; do umount -l "$mount" || true; done
  rm -rf --one-file-system "$dir"
}

fresh_private() {
  [ $# -gt 0 ] || die "usage: engine.sh fresh-private DIR [IMAGE…]"
  # Nothing in it: whoever made it was ended before there was an engine.
  [ ! -d "$1" ] || rmdir "$1" 2>/dev/null || stop_private "$1"
  start_private "$@"
}

case "${1:-}" in
  start | stop | status) "$1" ;;
  fresh-private) fresh_private "${@:2}" ;;
  start-private) start_private "${@:2}" ;;
  stop-private) stop_private "${@:2}" ;;
  *) die "usage: engine.sh start|stop|status|start-private DIR [IMAGE…]|fresh-private DIR [IMAGE…]|stop-private DIR" ;;
esac
