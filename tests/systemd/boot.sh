#!/usr/bin/env bash
# boot.sh DIRECTORY CGROUP: become systemd, as PID 1 of namespaces of its own, on a throw-away copy of this machine.
#
# The root is an overlay of / whose upper layer is a tmpfs: what is written there is gone with the last process. The
# network has a loopback device and nothing else. DIRECTORY is the place for the mount points; it shows inside as
# /mnt/share, and its directory "private" as /var/lib/private. CGROUP is a fresh directory of the unified hierarchy, and all that systemd sees of it.
set -euo pipefail
directory=$1 cgroup=$2
echo $$ >"$cgroup/cgroup.procs"

inside=$(
  cat <<'INSIDE'
directory=$1
root=$directory/root
mkdir -p "$directory/layers" "$root"
mount -t tmpfs tmpfs "$directory/layers"
mkdir "$directory/layers/upper" "$directory/layers/work"
mount -t overlay -o "lowerdir=/,upperdir=$directory/layers/upper,workdir=$directory/layers/work" overlay "$root"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
touch "$root/dev/console"
mount --bind "$directory/console" "$root/dev/console"
mkdir -p "$root/mnt/share"
mount --bind "$directory" "$root/mnt/share"
mkdir -p -m 0700 "$directory/private" "$root/var/lib/private"
mount --bind "$directory/private" "$root/var/lib/private"
# One kernel, and its settings are the host's: nobody in here may change them.
mount --bind -o ro /proc/sys "$root/proc/sys"

ip link set lo up
hostname backfill-test
: >"$root/etc/machine-id"
rm -f "$root/etc/fstab"

# The host's own enabled services must not start a second time: /etc/systemd/system begins empty.
units=$root/etc/systemd/system
rm -rf "$units" "$root"/etc/rc?.d
mkdir -p "$units"
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' >"$units/test.target"
ln -s test.target "$units/default.target"
# Nor may anything that speaks to devices, clocks or kernel settings.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket \
  systemd-udevd-control.socket systemd-timesyncd.service systemd-logind.service systemd-modules-load.service \
  systemd-remount-fs.service systemd-firstboot.service systemd-sysctl.service systemd-update-utmp.service \
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
  dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount timers.target; do
  ln -s /dev/null "$units/$unit"
done

mkdir "$root/run/outside"
cd "$root"
pivot_root . run/outside
# LoadCredential moves its mount into the service: without a shared root it arrives there empty.
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=other bash -euc '
  umount -l /run/outside
  mount --make-rshared /
  exec /lib/systemd/systemd --log-target=journal-or-kmsg
'
INSIDE
)
exec unshare --fork --pid --mount --cgroup --uts --ipc --net --propagation private --kill-child=SIGKILL \
  bash -euc "$inside" bash "$directory" </dev/null
