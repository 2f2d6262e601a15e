# In the guest: programs that make, rename, link, remove, cut, append and fsync files while the host kills, stops and cuts off servers. What a
# program has done in /mnt/stock it does in /tmp/ledger, too: that is its ledger, and must be what a fresh mount shows.
work=/mnt/stock; ledger=/tmp/ledger
mkdir $work $ledger
dd if=/dev/urandom of=/tmp/pool bs=64k count=32 2>/dev/null

# A call that fails is what nobody may ever see. The others stop, too.
failed() { mark failed 1 "$*"; touch /tmp/enough /tmp/wrong; }

# both COMMAND...: in the mount, and once that has said yes, in the ledger.
both() {
  (cd $work && "$@") || { failed "$*"; return 1; }
  (cd $ledger && "$@") || { failed "ledger: $*"; return 1; }
}

# data FILE: some bytes, mostly few, at times beyond one storage node.
data() {
  case $((RANDOM % 6)) in 0) kib=1200;; 1) kib=300;; 2) kib=70;; 3) kib=64;; *) kib=$((1 + RANDOM % 20));; esac
  dd if=/tmp/pool of=$1 bs=1k skip=$((RANDOM % 800)) count=$kib 2>/dev/null
  # Not always whole pages.
  [ $((RANDOM % 2)) = 0 ] && echo $RANDOM >>$1
}

durable() { cp $1 $2 && sync $2; }
append() { cat $1 >>$2 && sync $2; }
written() { dd if=$1 of=$2 bs=64k conv=fsync 2>/dev/null; }
over() { dd if=$1 of=$2 bs=1k seek=$3 conv=notrunc,fsync 2>/dev/null; }
exclusive() { (set -C; : >$1); }
# A second one must not be made, and nothing else may be wrong.
again() { (set -C; : >$1) 2>&1 | grep -qi 'exist'; }

files() {
  RANDOM=$((@SEED@ + $1)); n=0; new=/tmp/new.$1
  both mkdir w$1 w$1/a w$1/b || return
  # However slow it is here, some of each.
  while [ ! -e /tmp/enough ] || [ $n -lt @STEPS@ ]; do
    [ ! -e /tmp/wrong ] || return
    n=$((n + 1)); f=w$1/a/f$((RANDOM % 12)); g=w$1/b/f$((RANDOM % 12)); there=
    [ -e $ledger/$f ] && there=yes
    case $((RANDOM % 12)) in
      0 | 1) data $new; both written $new $f;;
      2) data $new; both durable $new $f;;
      3) [ $there ] && { data $new; both over $new $f $((RANDOM % 70)); };;
      4) echo "line $n" >$new; both append $new w$1/log;;
      5) [ $there ] && both truncate -s $((RANDOM * 7)) $f;;
      6 | 7) [ $there ] && both mv $f $g;;
      8) [ $there ] && [ ! -e $ledger/w$1/a/l$n ] && both ln $f w$1/a/l$n && { [ $((RANDOM % 2)) = 0 ] || both rm $f; };;
      9) [ $there ] && both rm $f;;
      10) both exclusive w$1/lock$n && both again w$1/lock$n;;
      11) both mkdir w$1/d$n && both mv w$1/d$n w$1/b/e$n && { [ $((RANDOM % 3)) = 0 ] || both rmdir w$1/b/e$n; };;
    esac
    rm -f $new
  done
  echo $n >/tmp/steps.$1
}

# Against the host's rival: one of both gets each lock, and moves each token; told by the words of the error who did not.
race() {
  n=0
  while [ ! -e /tmp/enough ]; do
    n=$((n + 1)); lock=lost; move=lost
    : >/mnt/race-stock/token-$n || failed "token $n"
    (set -C; : >/mnt/race-stock/lock-$n) 2>/tmp/lock.err && lock=won
    mv /mnt/race-stock/token-$n /mnt/race-stock/won-$n-stock 2>/tmp/move.err && move=won
    [ $lock = won ] || grep -qi 'exist' /tmp/lock.err || failed "lock $n: $(cat /tmp/lock.err)"
    [ $move = won ] || grep -qi 'no such file' /tmp/move.err || failed "token $n: $(cat /tmp/move.err)"
    echo "$n:$lock:$move" >>/tmp/race
  done
}

for who in 1 2 3; do files $who & done
race &
mark going 0
answer=$(await_host)
touch /tmp/enough
wait
mark steps 0 $(cat /tmp/steps.*)
mark race 0 $(cat /tmp/race)

# Nothing that the client remembers is asked: what follows is what the servers have.
cd /; umount /mnt && mount_again
step bytes diff -r $ledger $work
# Links of every file and of every directory, sizes of files.
attributes() { (cd $1 && find . -type f | sort | xargs stat -c '%n %s %h %a' && find . -type d | sort | xargs stat -c '%n %h'); }
attributes $ledger >/tmp/a; attributes $work >/tmp/b
step attributes diff /tmp/a /tmp/b
mark files 0 "$(find $ledger -type f | wc -l), $(du -sk $ledger | cut -f1) KiB"
step remove rm -r $work
