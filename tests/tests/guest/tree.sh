# In the guest: /source.tar is the package, /sums what its build should come to.
mkdir /tmp/local /mnt/tree
began=$(date +%s)
# busybox's shell takes its own applets first, whatever PATH says.
tar=/usr/local/bin/tar diff=/usr/local/bin/diff
step unpack_local $tar -xf /source.tar -C /tmp/local --strip-components=1 || exit
step unpack $tar -xf /source.tar -C /mnt/tree --strip-components=1 || exit
mark files 0 "$(find /tmp/local -type f | wc -l)"

# Every byte and every attribute. A directory's size is a file system's own affair, and so is the time of a directory that
# tar has no member for.
attributes() {
  cd $1
  find . -type f -print0 | sort -z | xargs -0 stat -c '%n %f %h %u %g %s %Y'
  find . -type l -print0 | sort -z | xargs -0 stat -c '@LINK_ATTRIBUTES@'
  find . -type d -print0 | sort -z | xargs -0 stat -c '%n %f %h %u %g %Y' | awk -v now=$began '$NF >= now { $NF = "now" } { print }'
}
compare() {
  $diff -r --no-dereference /tmp/local /mnt/tree
  diff_rc=$?
  (attributes /tmp/local) >/tmp/a; (attributes /mnt/tree) >/tmp/b
  $diff /tmp/a /tmp/b && return $diff_rc
}
cd /; umount /mnt && mount_again
step compare compare

cd /mnt/tree
build() { @MAKE@ @TARGET@; }
step build build || exit
sums() { @SUMS@ >/tmp/sums; $diff /sums /tmp/sums; }
step same_bytes sums
# Nothing is out of date: every time that make looks at is right.
step build_again build
find . -newer /tmp/sums -name '*.o' >/tmp/rebuilt; [ ! -s /tmp/rebuilt ]; mark nothing_rebuilt $?

# The program that was just built, at work on the mount: exclusive creates, links, renames, fsync, mmap.
work() (
  set -ex
  export GIT_EXEC_PATH=/mnt/tree GIT_TEMPLATE_DIR=/tmp/none PATH=/mnt/tree:$PATH
  export GIT_AUTHOR_NAME=u GIT_AUTHOR_EMAIL=u@x GIT_COMMITTER_NAME=u GIT_COMMITTER_EMAIL=u@x
  mkdir /tmp/none; git init -q /mnt/repo; cd /mnt/repo
  cp -r ../tree/xdiff ../tree/reftable .; rm -f */*.o */*.a
  git add .; git commit -q -m one
  git mv xdiff renamed; sed -i s/int/long/ renamed/xutils.c; ln reftable/block.c hard; ln -s reftable/block.c soft; rm reftable/tree.c
  git add -A; git commit -q -m two
  git repack -adq
  git checkout -q HEAD~1; [ -f xdiff/xutils.c ]; [ ! -e renamed ]; [ ! -e hard ]
  git checkout -q -; [ "$(readlink soft)" = reftable/block.c ]; cmp hard reftable/block.c
  git fsck --strict
  [ -z "$(git status --porcelain)" ]
  cd /; rm -r /mnt/repo
)
[ -x git ] && step work work

cd /
step remove rm -r /mnt/tree
[ -z "$(ls -A /mnt)" ]; mark empty $?
