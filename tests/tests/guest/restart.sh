# In the guest: rounds of a copy, large and small files, during which the host kills the server.
mkdir /tmp/source /tmp/source/small
for i in $(seq 1 200); do head -c $((i * 331)) /dev/urandom >/tmp/source/small/$i; done
for i in 1 2; do head -c 20000000 /dev/urandom >/tmp/source/large$i; done

# Copies in a loop, so that it still runs whenever the host strikes; each pass is a fresh tree.
copy() {
  pass=0
  while [ ! -e /tmp/enough ] || [ $pass = 0 ]; do
    pass=$((pass + 1))
    cp -r /tmp/source /mnt/copy.$1.$pass || return
    echo $pass >/tmp/passes
  done
}
# What the client has sent so far.
sent() { awk '/^\t *(WRITE|CREATE|MKDIR|LOOKUP|COMMIT|GETATTR|SETATTR|ACCESS):/ { n += $2 } END { print n }' /proc/self/mountstats; }

round=1
while [ $round -le @ROUNDS@ ]; do
  rm -f /tmp/enough
  copy $round & copy_pid=$!
  # Now among the large files (first in the directory), now among the small ones.
  [ $((round % 2)) = 1 ] && sign=large1 || sign=small
  until [ -e /mnt/copy.$round.1/$sign ]; do usleep 100000; done
  mark going-$round 0
  answer=$(await_host)
  if [ "$answer" = killed ]; then
    # It waits: no operation ends any more, and cp has not failed.
    until a=$(sent); sleep 2; [ "$(sent)" = "$a" ]; do :; done
    kill -0 $copy_pid; mark waits-$round $?
  fi
  touch /tmp/enough
  step copy-$round wait $copy_pid
  echo 3 >/proc/sys/vm/drop_caches
  for tree in /mnt/copy.$round.*; do diff -r /tmp/source $tree || mark differs-$round 1 $tree; done
  mark right-$round 0 "$answer; $(cat /tmp/passes) passes"
  step remove-$round rm -r /mnt/copy.$round.*
  round=$((round + 1))
done
[ -z "$(ls -A /mnt)" ]; mark empty $?
