# In the guest: /mnt and /mnt2 are one file system through two µproxies. Sizes lie around 64 KiB and around stripe units.
[ "$(grep -c ' nfs ' /proc/mounts)" = 2 ]; mark two_mounts $?

# same A B: all bytes and the size, as an open sees them.
same() { cmp "$1" "$2"; [ "$(wc -c <"$1")" = "$(wc -c <"$2")" ]; }

round() (
  set -ex
  n=$1; here=$2; there=$3
  for size in 0 1 8191 65535 65536 65537 200000 1048576 1048577 3500000; do
    f=f.$n.$size
    head -c $size /dev/urandom >/tmp/want
    cp /tmp/want $here/$f
    same $there/$f /tmp/want
    # The other appends; the first one has old pages and an old size in its cache.
    head -c 70000 /dev/urandom >/tmp/more
    cat /tmp/more >>$there/$f; cat /tmp/more >>/tmp/want
    same $here/$f /tmp/want
    # Overwritten in the middle, same size: only times tell.
    [ $size -lt 8191 ] || for file in $here/$f /tmp/want; do echo changed | dd of=$file bs=1 seek=4000 conv=notrunc 2>/dev/null; done
    same $there/$f /tmp/want
    # Cut, then grown over the cut: what was cut reads as zeros.
    for file in $there/$f /tmp/want; do truncate -s 30000 $file; truncate -s 90000 $file; done
    same $here/$f /tmp/want
    # Replaced by another file of this name: the old handle is not the new file's.
    echo new >$here/$f.new; mv $here/$f.new $here/$f
    [ "$(cat $there/$f)" = new ]
    rm $there/$f
    if cat $here/$f; then exit 1; fi
  done
  mkdir $here/d.$n; ln -s target $there/d.$n/s; echo x >$here/d.$n/f; ln $there/d.$n/f $there/d.$n/g
  [ "$(cat $here/d.$n/g)" = x ]; [ "$(readlink $here/d.$n/s)" = target ]
  rm -r $there/d.$n
)

i=1
while [ $i -le @ROUNDS@ ]; do
  step round-$i-first round ${i}a /mnt /mnt2
  step round-$i-second round ${i}b /mnt2 /mnt
  i=$((i + 1))
done
[ -z "$(ls -A /mnt)" ] && [ -z "$(ls -A /mnt2)" ]; mark empty $?
