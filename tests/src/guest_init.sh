#!/bin/busybox sh
# The guest's first process. /guest/mounts has a line a mount: "PLACE EXPORT OPTIONS"; /guest/script runs in the first.
/bin/busybox --install -s /usr/bin 2>/dev/null
export PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts; mount -t devpts pts /dev/pts; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
for module in $(cat /modules/order); do insmod /modules/$module || echo "insmod $module failed"; done
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2

. /guest/settings   # NONCE, LIMIT_S, INTERACTIVE
export NONCE
if [ -n "$INTERACTIVE" ]; then exec 3>/dev/null; else
  for port in /dev/vport*; do :; done
  exec 3<>$port </dev/null >&3 2>&3
fi
. /guest/lib.sh

# Shortly before the host's patience ends: who waits for what.
( sleep $((LIMIT_S > 20 ? LIMIT_S - 10 : LIMIT_S)); echo "== the time is nearly up; blocked tasks:"
  echo w >/proc/sysrq-trigger; dmesg | tail -n 80; ps ) &
watchdog=$!

rc=0
while read -r place export options; do
  mkdir -p $place
  mount.nfs 10.0.2.2:$export $place -o "$options"; one=$?
  mark mount:$place $one "$(grep " $place " /proc/mounts)"
  [ $one = 0 ] || rc=$one
done </guest/mounts
read -r first rest </guest/mounts
if [ $rc = 0 ]; then
  # In subshells, so that this one keeps no directory of the mount busy.
  if [ -n "$INTERACTIVE" ]; then ( cd ${first:-/}; exec setsid -c sh -i ); else ( cd ${first:-/}; . /guest/script ); fi
  rc=$?
fi
kill $watchdog 2>/dev/null
while read -r place rest; do
  grep -q " $place " /proc/mounts || continue
  umount $place; mark umount:$place $?
done </guest/mounts
dmesg | grep -E 'nfs:|lockd:|not responding|BUG:|WARNING:|Oops|blocked for' | tail -n 20
mark exit $rc
poweroff -f
