#!/usr/bin/env bash
# fresh-machine.sh [DIR]: shows that a fresh Debian 12 needs nothing but a clone. Makes one with
# mmdebstrap, enters it in namespaces of its own, and runs there `make run ONCE=1` and `make test`, which
# install all that they need and start an engine of their own. Takes an hour or more on two cores, so it
# is no part of the tests. DIR (default: a new folder in /var/tmp) is removed at the end; its last lines
# say what was seen. STEPS chooses (default: "packages run test"):
#   packages  installs what the two ask for, and checks that nothing else is missing
#   run       make run ONCE=1
#   test      make test
. "$(dirname "$0")/../docker/setup/lib.sh"

[ "$(id -u)" = 0 ] || die "this needs root"
command -v slirp4netns >/dev/null || die "slirp4netns is missing: apt-get install slirp4netns"
command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: docker/setup/packages.sh run installs it"
steps=${STEPS:-packages run test}
root=${1:-$(mktemp -d /var/tmp/creel-fresh-XXXXXX)}
mkdir -p "$root"
# shellcheck disable=SC2317  # the trap calls it
tidy() {
  # Only if nothing is mounted there any more is it only files.
  if ! grep -q " $root/" /proc/self/mounts; then
    rm -rf --one-file-system "$root"
  fi
}
trap tidy EXIT
trap 'exit 130' INT TERM

say "a fresh Debian 12 in $root"
# make is how one begins; ca-certificates and git are how the clone came there.
"$SOURCE_DIR/tests/packaging/fresh-root.sh" "$root/root" make ca-certificates git
git clone --quiet --no-hardlinks "$SOURCE_DIR" "$root/root/root/creel"
# Its engine has a network of its own, not this machine's bridge and firewall: packages come over
# slirp4netns, which answers for names at 10.0.2.3.
echo 'nameserver 10.0.2.3' >"$root/root/etc/resolv.conf"
cat >"$root/root/root/steps" <<'END'
#!/bin/bash
set -uo pipefail
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
cd /root/creel || exit 1
failed=0
step() {  # NAME COMMAND…
  local name=$1 began=$SECONDS status=0
  shift
  "$@" || status=$?
  printf 'FRESH %s: %s after %s s\n' "$name" "$([ $status = 0 ] && echo passed || echo "FAILED ($status)")" \
    "$((SECONDS - began))" | tee -a /root/result
  [ $status = 0 ] || failed=1
}
installs() {
  docker/setup/packages.sh build run package test && docker/setup/packages.sh build run package test 2>&1 |
    { ! grep .; }
}
for each in $1; do
  case "$each" in
  packages) step packages installs ;;
  run) step 'make run ONCE=1' make run ONCE=1 ;;
  test) step 'make test' make test ;;
  esac
done
exit "$failed"
END
chmod +x "$root/root/root/steps"
# shellcheck disable=SC2016  # expanded by that shell
enter='set -e
until [ -e "$2" ]; do sleep 0.1; done
mount --bind "$0" "$0"; cd "$0"
mount -t proc proc proc; mount --rbind /dev dev; mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs tmpfs tmp
exec chroot . /root/steps "$1"'
env -i TERM="${TERM:-dumb}" PATH="$PATH" \
  unshare --mount --pid --net --fork --kill-child --ipc --uts \
  sh -c "$enter" "$root/root" "$steps" "$root/net-ready" &
unshared=$!
child=
until [ -n "$child" ]; do
  kill -0 "$unshared" || die "the namespaces could not be made"
  sleep 0.1
  child=$(pgrep -P "$unshared" || true)
done
slirp4netns --configure --mtu=65520 --disable-host-loopback "$child" tap0 >"$root/slirp.log" 2>&1 &
slirp=$!
for ((tries = 0; tries < 100; ++tries)); do
  if nsenter --net="/proc/$child/ns/net" ip -4 -o addr show dev tap0 2>/dev/null | grep -q 10.0.2.; then
    break
  fi
  sleep 0.1
done
touch "$root/net-ready"
status=0
wait "$unshared" || status=$?
kill "$slirp" 2>/dev/null || true
printf '\n'
cat "$root/root/root/result"
exit "$status"
