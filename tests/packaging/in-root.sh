#!/bin/bash
# What happens to the package in a fresh Debian 12 with an engine of its own; deb.test.mjs runs it there.
# Prints `ok: …` for each promise that holds, and ends at the first that does not.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
SESSION=agent:main:whatsapp:group:120363

ok() { printf 'ok: %s\n' "$*"; }
fail() {
  printf 'FAILED: %s\n' "$*"
  tail -n 40 /creeld.log /dockerd.log 2>/dev/null || true
  exit 1
}
eventually() {  # SECONDS COMMAND…
  local until=$((SECONDS + $1))
  shift
  while ! "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || fail "this did not come: $*"
    sleep 0.2
  done
}
# All that there are, those that wait for sessions to come too; and those of one session.
ours() { docker ps --all --quiet --no-trunc --filter label=creel.install; }
of_session() {
  local id
  id=$(creel inspect "$1" --json | grep -om1 '"sandbox_id":"[0-9a-f]\{16\}"' | cut -d'"' -f4)
  docker ps --all --quiet --no-trunc --filter "label=creel.sandbox=${id:?creel inspect names none}"
}

# --- It installs ----------------------------------------------------------------------------------

! command -v creel creeld >/dev/null || fail "this root is not fresh"
apt-get -qq -y --no-install-recommends install /creel.deb >/apt.log 2>&1 || { cat /apt.log; fail "apt-get install"; }
for file in /usr/sbin/creeld /usr/bin/creel /usr/bin/creel-verify /usr/lib/creel/creel-shim; do
  [ -x "$file" ] || fail "$file is missing"
done
[ -z "$(find /usr/bin/creel /usr/sbin/creeld /usr/lib/creel -perm /6000)" ] || fail "a set-id program"
getent group creel-operator creel-gateway >/dev/null || fail "the groups are missing"
dpkg-query -W -f '${Conffiles}' creel | grep -q /etc/creel/creel.yaml || fail "creel.yaml is no conffile"
creeld --config /etc/creel/creel.yaml --check-config >/dev/null || fail "the shipped configuration"
[ "$(stat -c '%a %U' /var/lib/creel)" = '700 root' ] || fail "/var/lib/creel"
ok "installs into a fresh Debian 12"

# --- It serves ------------------------------------------------------------------------------------

dockerd --bridge none --iptables=false --ip6tables=false >/dockerd.log 2>&1 &
eventually 120 docker version
docker load --quiet --input /sandbox-image.tar >/dev/null
serve() {
  # As the unit says.
  # shellcheck disable=SC2046
  setsid $(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/creeld.service /lib/systemd/system/creeld.service 2>/dev/null | head -n 1) \
    </dev/null >>/creeld.log 2>&1 &
  eventually 120 creel ps
}
serve
creel open "$SESSION" >/dev/null
[ "$(creel exec "$SESSION" -- sh -c 'echo from the sandbox >note; cat note')" = 'from the sandbox' ] ||
  fail "a command in a session"
[ "$(of_session "$SESSION" | wc -l)" = 1 ] || fail "there is not one container"
creel doctor >/doctor.log || fail "creel doctor: $(cat /doctor.log)"
[ "$(stat -c '%a %G' /run/creel/operator.sock)" = '660 creel-operator' ] || fail "the operator's door"
[ "$(stat -c '%a %G' /run/creel/gateway.sock)" = '660 creel-gateway' ] || fail "the gateway's door"
ok "creeld serves, a session works"

# --- It is upgraded -------------------------------------------------------------------------------

echo '# mine' >>/etc/creel/creel.yaml
before=$(of_session "$SESSION")
apt-get -qq -y --no-install-recommends install --reinstall /creel.deb >/apt.log 2>&1 || { cat /apt.log; fail "reinstall"; }
grep -q '^# mine$' /etc/creel/creel.yaml || fail "a changed configuration was overwritten"
start-stop-daemon --stop --quiet --oknodo --retry 30 --exec /usr/sbin/creeld
pkill -x creeld || true
eventually 30 sh -c '! pgrep -x creeld'
serve
[ "$(of_session "$SESSION")" = "$before" ] || fail "the sandbox was not adopted"
[ "$(creel exec "$SESSION" -- cat note)" = 'from the sandbox' ] || fail "the sandbox lost its files"
ok "an upgrade keeps sandboxes and configuration"

# --- It is removed --------------------------------------------------------------------------------

OTHER=agent:main:telegram:group:7
creel open $OTHER >/dev/null
creel freeze $OTHER >/dev/null
[ "$({ of_session "$SESSION"; of_session $OTHER; } | sort -u | wc -l)" = 2 ] || fail "there are not two containers"
apt-get -qq -y remove creel >/apt.log 2>&1 || { cat /apt.log; fail "apt-get remove"; }
[ -z "$(ours)" ] || fail "containers are left: $(ours) $(cat /apt.log)"
! grep -q ' /run/creel/' /proc/self/mounts || fail "mounts are left: $(grep ' /run/creel/' /proc/self/mounts)"
! pgrep -x creeld >/dev/null || fail "creeld still runs"
[ ! -e /run/creel ] || fail "/run/creel is left"
[ -d /var/lib/creel/record ] || fail "the record is gone before the purge"
[ -e /etc/creel/creel.yaml ] || fail "the configuration is gone before the purge"
ok "remove leaves no container"

apt-get -qq -y purge creel >/apt.log 2>&1 || { cat /apt.log; fail "apt-get purge"; }
left=$(find / -xdev -name '*creel*' -not -path '/proc/*' -not -path '/var/lib/docker/*' -not -path '/var/cache/*' \
  -not -path /creel.deb -not -path /creeld.log)
[ -z "$left" ] || fail "the purge left $left"
! getent group creel-operator creel-gateway >/dev/null || fail "the purge left the groups"
ok "purge leaves nothing"
