//! `mount -o nconnect=16`: one client on sixteen connections sees one file system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use slice_tests::ensemble::{Layout, Policy};
use slice_tests::guest::Spec;
use slice_tests::stock::{Server, run_name};
use slice_tests::{Error, stock_suite};

/// Eight writers at once, each with files on both sides of 64 KiB and over stripe units, a directory, links, renames;
/// the client spreads their calls over all connections.
const SCRIPT: &str = r#"
work() (
  set -e
  mkdir d$1; cd d$1
  for size in 1 4096 65535 65536 65537 300000 3200000; do
    head -c $size /dev/urandom >/tmp/$1.$size
    cp /tmp/$1.$size $size.new; mv $size.new $size; ln $size $size.link
  done
  sync
  for size in 1 4096 65535 65536 65537 300000 3200000; do
    echo 1 >/proc/sys/vm/drop_caches
    cmp /tmp/$1.$size $size; cmp /tmp/$1.$size $size.link
    rm $size; [ "$(stat -c %h $size.link)" = 1 ]
  done
  [ "$(ls | wc -l)" = 7 ]
  rm *.link; cd ..; rmdir d$1
)
for i in 1 2 3 4 5 6 7 8; do work $i & eval pid$i=$!; done
for i in 1 2 3 4 5 6 7 8; do eval wait \$pid$i; mark worker-$i $?; done
connections=$(grep -c 'xprt:.tcp' /proc/self/mountstats)
[ "$connections" = 16 ]; mark connections $? "$connections"
[ -z "$(ls -A /mnt)" ]; mark empty $?
"#;

stock_suite!(run);

fn run(policy: Policy, layout: Layout) -> Result<(), Error> {
    let server = Server::start("nconnect", policy, layout)?;
    let mount = server.mount().option("nconnect=16");
    Spec::new(&run_name("nconnect", policy, layout)).mount(mount).cpus(2).run(SCRIPT)?;
    server.stop()
}
