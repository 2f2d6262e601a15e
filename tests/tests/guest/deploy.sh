# In the guest: rounds of a copy, real sources and random files, during which the host kills or replaces containers; then a tree that the
# host backs up, takes away and brings back.
mkdir -p /tmp/source/small
cp -r /real /tmp/source/real
for i in $(seq 1 60); do head -c $((i * 1331)) /dev/urandom >/tmp/source/small/$i; done
head -c 9000000 /dev/urandom >/tmp/source/large

# Copies in a loop, so that it still runs whenever the host strikes; each pass is a fresh tree.
copy() {
  pass=0
  while [ ! -e /tmp/enough ] || [ $pass = 0 ]; do
    pass=$((pass + 1))
    cp -r /tmp/source /mnt/copy.$1.$pass || return
    echo $pass >/tmp/passes
  done
}

round=1
while [ $round -le @ROUNDS@ ]; do
  rm -f /tmp/enough
  copy $round & copy_pid=$!
  until [ -e /mnt/copy.$round.1 ] || ! kill -0 $copy_pid; do usleep 100000; done
  mark going-$round 0
  answer=$(await_host)
  touch /tmp/enough
  step copy-$round wait $copy_pid
  echo 3 >/proc/sys/vm/drop_caches
  for tree in /mnt/copy.$round.*; do diff -r /tmp/source $tree || mark differs-$round 1 $tree; done
  mark right-$round 0 "$answer; $(cat /tmp/passes) passes"
  step remove-$round rm -r /mnt/copy.$round.*
  round=$((round + 1))
done

step keep cp -r /tmp/source /mnt/keep
sync
mark kept 0
mark brought-back 0 "$(await_host)"
echo 3 >/proc/sys/vm/drop_caches
step compare diff -r /tmp/source /mnt/keep
step copy-out cp -r /mnt/keep /tmp/back
step compare-copy diff -r /tmp/source /tmp/back
step remove rm -r /mnt/keep
[ -z "$(ls -A /mnt)" ]; mark empty $?
