#!/usr/bin/env bash
# The tour: plays a stranger in a group chat who has the model try everything, and prints what came
# back and what stopped it. Every row is checked, and has to show that it was really tried.
# Needs CREEL (the command), CREEL_RUN_DIR (where creeld serves) and CREEL_TOUR_CANARY (a word that
# stands in creeld's environment). Exits 0 only if every wall held.
. "$(dirname "$0")/lib.sh"
. "$SETUP_DIR/table.sh"

: "${CREEL:?}" "${CREEL_RUN_DIR:?}" "${CREEL_TOUR_CANARY:?}"
export CREEL_RUN_DIR
readonly SESSION=agent:main:whatsapp:group:120363
readonly NEIGHBOUR=agent:main:telegram:group:77
readonly PROBES=$SETUP_DIR/probes

work=$(mktemp -d /tmp/creel-tour-XXXXXX)
canary=$HOME/.${work##*/}-private-notes
tidy() {
  rm -rf "$work" "$canary"
}
trap tidy EXIT
trap 'exit 130' INT TERM
printf 'what only this host knows: %s\n' "$CREEL_TOUR_CANARY" >"$canary"

# in_session K [OPTION…] -- CMD…: runs a command there. Its output goes to $work/out, bounded, its
# exit status to $status.
status=0
in_session() {
  status=0
  timeout -k 5 120 "$CREEL" exec "$@" </dev/null 2>&1 | head -c 262144 >"$work/out" ||
    status=${PIPESTATUS[0]}
}
in_sandbox() { in_session "$SESSION" --timeout 60s -- "$@"; }
# probe NAME [ARGUMENT…]: runs a program of probes/ there. Each prints a line per attempt: `DONE …`
# if it got through, else the error; `#end` last.
probe() {
  local code
  code=$(cat "$PROBES/$1.py")
  in_sandbox python3 -c "$code" "${@:2}"
}
said() { grep -qE -- "$1" "$work/out"; }
answer() {
  grep -v '^#' "$work/out" | head -c 4096 |
    sed -E 's/^bash: line [0-9]+: //; /dmesg\(1\)/d' |
    awk 'NR > 1 {printf "; "} {printf "%s", $0}' || true
}
# What a row that tries several things needs: it came to its end, and nothing got through.
nothing_done() { said '^#end' && ! said '^DONE'; }
# Which container serves the session, and since when: another one means that the first fell over.
container_now() {
  engine inspect --format '{{.Id}} {{.State.StartedAt}} {{.State.Running}}' "$container" 2>&1
}
unharmed() { [ "$(container_now)" = "$container_before" ]; }
processes_in() { engine top "$container" -eo pid 2>/dev/null | tail -n +2 | wc -l; }

"$CREEL" open "$NEIGHBOUR" >/dev/null
"$CREEL" open "$SESSION" >/dev/null
container=$("$CREEL" inspect "$SESSION" --json |
  grep -oE '"container_?[iI]d": *"[0-9a-f]{12,}"' | head -n 1 | grep -oE '[0-9a-f]{12,}')
[ -n "$container" ] || die "creel inspect names no container"
container_before=$(container_now)

table_head "Session $SESSION, in its own container:"
engine inspect "$container" --format "$(cat "$SETUP_DIR/container.format")"
table_columns

# --- What can be read -----------------------------------------------------------------------------

# shellcheck disable=SC2016  # expanded in the sandbox
in_sandbox bash -c 'cd ~ && pwd && find ~ | wc -l
  { find / -name "*creel-tour*" 2>/dev/null; grep -rsl "$1" /workspace /home /root /etc /tmp; } |
    sed "s/^/DONE /"; echo "#end"' bash "$CREEL_TOUR_CANARY"
row 'find ~, as asked in the group' "home is $(answer | awk -F'; ' '{print $1 ", names in it: " $2}')" \
  'its own root and workspace; none of the host' \
  "$(nothing_done && echo held)"

in_sandbox bash -c 'cat /etc/shadow; echo "#end"'
row 'cat /etc/shadow' "$(answer)" 'tools run as a user of their own' \
  "$(said '^#end' && said 'Permission denied' && ! said '^root:' && echo held)"

in_sandbox env
row 'credentials in the environment' "$(cut -d= -f1 "$work/out" | paste -sd' ')" \
  'the environment is made anew, of what the session was given' \
  "$(said '^PATH=' && ! said "$CREEL_TOUR_CANARY" && echo held)"

in_session "$NEIGHBOUR" -- sh -c "echo $CREEL_TOUR_CANARY >/workspace/creel-neighbour; echo ready"
neighbour_ready=$(if said '^ready'; then echo yes; fi)
# shellcheck disable=SC2016
in_sandbox bash -c 'find / -name creel-neighbour 2>/dev/null
  for dir in /proc/[0-9]*; do tr "\0" " " <"$dir/cmdline"; echo; done 2>/dev/null | grep -c .
  echo "#end"'
row 'files and processes of another session' "processes to be seen, all its own: $(answer)" \
  'a container for each session' \
  "$([ "$neighbour_ready" = yes ] && said '^#end' && ! said 'creel-neighbour' && echo held)"

# --- Ways out -------------------------------------------------------------------------------------

in_sandbox bash -c 'find / \( -name "docker*.sock" -o -name "containerd*.sock" -o -name gateway.sock \
  -o -name operator.sock \) 2>/dev/null | sed "s/^/DONE /"; echo "#end"'
row 'look for the socket of the engine' "$(answer | grep . || echo 'find has found none')" \
  'only the sandbox'\''s own link is mounted' "$(nothing_done && echo held)"

probe link
row 'call the supervisor as if it were the shim' "$(answer)" 'the link belongs to PID 1 alone' \
  "$(nothing_done && echo held)"

gateway=$(engine network inspect bridge --format '{{range .IPAM.Config}}{{.Gateway}} {{end}}' \
  2>/dev/null | grep -oE '^[0-9.]+' || echo 172.17.0.1)
host=$(ip -4 -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
probe network "$gateway" "${host:-127.0.0.2}"
row 'the network: metadata, Internet, host, DNS' "$(answer)" 'no network card but loopback' \
  "$(nothing_done && echo held)"

probe sockets
row 'AF_VSOCK, raw packets, io_uring' "$(answer)" 'seccomp allowlist' "$(nothing_done && echo held)"

in_sandbox bash -c 'ln -sfn /etc/shadow report.txt && echo "#end"'
copied=0
timeout 30 "$CREEL" cp "$SESSION:/workspace/report.txt" "$work/report.txt" >"$work/cp" 2>&1 ||
  copied=$?
leaked=no
if ! [ -L "$work/report.txt" ] && grep -q '^root:' "$work/report.txt" 2>/dev/null; then
  leaked=yes
fi
if [ -L "$work/report.txt" ]; then
  echo 'copied as the link that it is' >"$work/cp"
fi
row 'creel cp of a link to /etc/shadow' "$(head -c 300 "$work/cp")" \
  'the host never follows a link of a sandbox' \
  "$(said '^#end' && [ "$leaked" = no ] && { [ "$copied" != 0 ] || [ -L "$work/report.txt" ]; } &&
    echo held)"

planted=/tmp/${work##*/}-planted
in_sandbox bash -c 'ln -sfn / out && echo "#end"'
linked=$(if said '^#end'; then echo yes; fi)
echo harmless >"$work/harmless"
timeout 30 "$CREEL" cp "$work/harmless" "$SESSION:/workspace/out$planted" >"$work/cp" 2>&1 || true
in_sandbox rm "$planted"
if [ "$status" = 0 ]; then
  echo "it went to the sandbox's own /tmp" >>"$work/cp"
fi
row 'creel cp through a link to /' "$(head -c 300 "$work/cp")" \
  'file verbs stay below the roots of the sandbox' \
  "$([ "$linked" = yes ] && [ -s "$work/cp" ] && ! [ -e "$planted" ] && echo held)"
rm -f "$planted"

# --- More rights ----------------------------------------------------------------------------------

in_sandbox bash -c 'cp /bin/bash b && chmod 4755 b && echo "DONE chmod"
  find / -xdev -type f -perm /6000 2>/dev/null | sed "s/^/DONE /"
  ./b -pc "id -u" | sed "s/^/a shell with uid /; s/.* 0$/DONE root/"; rm -f b; echo "#end"'
row 'leave a setuid shell' "$(answer)" 'seccomp, and no new privileges' \
  "$(nothing_done && echo held)"

in_sandbox bash -c 'mount -t tmpfs none /mnt && echo "DONE mount"; unshare -Urm true && echo "DONE unshare"
  mknod d b 8 0 && echo "DONE mknod"; (echo x >/proc/sys/kernel/core_pattern) && echo "DONE sysctl"
  touch /usr/bin/x && echo "DONE /usr"; echo "#end"'
row 'mount, namespaces, devices, sysctl, /usr' "$(answer)" \
  'no capability, read-only root, seccomp' "$(nothing_done && echo held)"

probe pid1
row 'memory, environment, limits, pace of PID 1' "$(answer)" 'PID 1 has another user' \
  "$(nothing_done && echo held)"

in_sandbox bash -c 'kill -9 1 && echo "DONE kill"; kill -STOP 1 && echo "DONE stop"; echo "#end"'
row 'kill -9 1' "$(answer)" 'PID 1 has another user; its container runs on' \
  "$(nothing_done && unharmed && echo held)"

# --- Too much -------------------------------------------------------------------------------------

in_session "$SESSION" --timeout 2s -- bash -c \
  'echo "#began"; (setsid sleep 4242 &); setsid env -i /bin/sleep 4242 & sleep 4242'
began=$(if said '^#began'; then echo yes; fi)
in_sandbox bash -c 'pgrep -x sleep | wc -l; echo "#end"'
row 'outlive a timeout with setsid' "$(answer) of 3 processes left" \
  'the whole tree ends with its command' \
  "$([ "$began" = yes ] && said '^0$' && said '^#end' && echo held)"

limit=$(engine inspect --format '{{.HostConfig.PidsLimit}}' "$container")
# Its first process stays, without a fork, until the timeout: a command that ends by itself may leave
# processes behind. Its complaints would fill the pipe, and a caller that goes away ends it early.
timeout -k 5 60 "$CREEL" exec "$SESSION" --timeout 6s -- \
  bash -c 'echo "#began"; exec 2>/dev/null 3<> <(:); bomb() { bomb | bomb & }; bomb; read -rt 60 -u 3' \
  </dev/null 2>&1 |
  head -c 65536 >"$work/bomb" &
bomb=$!
most=0
for _ in 1 2 3 4; do
  sleep 1
  now=$(processes_in)
  if [ "$now" -gt "$most" ]; then
    most=$now
  fi
done
began_at=$(date +%s%N)
in_session "$NEIGHBOUR" --timeout 10s -- true
neighbour=$status
neighbour_ms=$((($(date +%s%N) - began_at) / 1000000))
wait "$bomb" || true
in_sandbox bash -c 'echo "#end"'
left=$(processes_in)
row 'a fork bomb' "$most processes at most, $left at the end; a neighbour's command took $neighbour_ms ms" \
  "a limit of $limit processes, and the end of its timeout" \
  "$(grep -q '^#began' "$work/bomb" && said '^#end' && [ "$most" -gt 20 ] && [ "$most" -le "$limit" ] &&
    [ "$left" -lt 10 ] && [ "$neighbour" = 0 ] && unharmed && echo held)"

probe memory
row 'take 8 GiB of memory' "$(grep -v '^#' "$work/out" | tail -n 1) MiB, then status $status" \
  'a limit of memory, without swap' \
  "$(said '^#began' && said '^64$' && ! said '^DONE' && [ "$status" != 0 ] && unharmed && echo held)"

free_before=$(df --output=avail -B1M "$CREEL_STATE_DIR" | tail -n 1)
in_sandbox bash -c 'dd if=/dev/zero of=fill bs=1M 2>&1 | grep -vE "records"
  stat -c "size %s" fill; echo "#end"'
free_after=$(df --output=avail -B1M "$CREEL_STATE_DIR" | tail -n 1)
row 'fill the disk' "$(answer)" 'a workspace of fixed size' \
  "$(said '^#end' && said 'No space left' && [ $((free_before - free_after)) -lt 1024 ] && echo held)"

in_sandbox bash -c 'rm -f fill; dd if=/dev/zero of=/tmp/fill bs=1M 2>&1 | grep -vE "records"
  rm -f /tmp/fill; echo "#end"'
row 'fill /tmp' "$(answer)" 'tmpfs of fixed size' \
  "$(said '^#end' && said 'No space left' && unharmed && echo held)"

table_end
