#!/usr/bin/env bash
# stage-root.sh BUILD DIR: puts into DIR all that the supervisor's image holds, taken from the build
# folder BUILD and this machine: the programs, the shared libraries that they name, mkfs.ext4, the CA
# certificates, and a list of which version of which package each came from.
. "$(dirname "$0")/lib.sh"

[ $# = 2 ] || die "usage: stage-root.sh BUILD DIR"
build=$1 root=$2
[ ! -e "$root" ] || die "$root is there already"
mkdir -p "$root"/{etc/ssl/certs,etc/creel,tmp,run,proc,sys,dev,usr/bin,usr/sbin,usr/lib/creel,usr/share/creel}
# As Debian has it; libraries name their loader by the short path.
for each in bin sbin lib lib64; do
  mkdir -p "$root/usr/$each"
  ln -s "usr/$each" "$root/$each"
done
install -s -m 0755 "$build/supervisor/daemon/creeld" "$root/usr/sbin/creeld"
install -s -m 0755 "$build/supervisor/cli/creel" "$root/usr/bin/creel"
install -s -m 0755 "$build/supervisor/evidence/creel-verify" "$root/usr/bin/creel-verify"
install -m 0755 "$build/creel-shim" "$root/usr/lib/creel/creel-shim"

programs=("$root/usr/sbin/creeld" "$root/usr/bin/creel-verify")
mkfs=$(command -v mkfs.ext4)
install -m 0755 "$mkfs" "$root/usr/sbin/mkfs.ext4"
programs+=("$mkfs")
sources=("$mkfs")
while read -r library; do
  # Where the loader looks, whatever way ldd took.
  target=$root/usr/lib/${library##*/lib/}
  case "$library" in */lib64/*) target=$root/usr/lib64/${library##*/} ;; esac
  mkdir -p "$(dirname "$target")"
  install -m 0755 "$(readlink -f "$library")" "$target"
  sources+=("$(readlink -f "$library")")
done < <(ldd "${programs[@]}" | awk '$2 == "=>" {print $3} $1 ~ /^\// && NF == 2 {print $1}' | sort -u)
chroot "$root" /usr/sbin/creeld --version >&2 || die "what was staged does not run"

if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
fi
install -m 0644 "$(dirname "$0")/../seccomp.json" "$root/usr/share/creel/seccomp.json"
cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/:/nonexistent
creel:x:64010:64010:Creel:/:/nonexistent
gateway:x:64011:64011:the gateway:/:/nonexistent
END
cat >"$root/etc/group" <<'END'
root:x:0:
creel:x:64010:
creel-operator:x:64012:
creel-gateway:x:64011:gateway
END
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
# dpkg knows a file by either of its paths, /lib/… or /usr/lib/….
{ dpkg-query -S "${sources[@]}" "${sources[@]#/usr}" 2>/dev/null || true; } | cut -d: -f1 | sort -u |
  xargs -r dpkg-query -W -f "\${Package} \${Version}\n" | sort -u >"$root/usr/share/creel/packages.txt"
