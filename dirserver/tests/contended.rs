//! How fast one directory grows whose names are spread over servers: `cargo test --test contended -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Client, Cluster, run};
use futures_util::StreamExt;
use slice_proto::nfs3::types::DirOp;
use slice_proto::nfs3::{CreateArgs, CreateHow, Proc3, Sattr3};
use slice_proto::placement::entry_site;
use slice_proto::table::NamePolicy;

#[test]
#[ignore = "it measures, and asserts nothing"]
fn creations_in_one_directory() {
    run(async || {
        for servers in [1, 3] {
            let c = Cluster::new(servers, NamePolicy::Hash).await;
            let root = Client::root(&c);
            let top = root.root_fh();
            let dir = root.open(&top).file;
            let calls = (0..2000).map(|i| {
                let name = format!("f{i}").into_bytes();
                let at = DirOp { dir: &top, name: &name };
                let how = CreateHow::Guarded(Sattr3::default());
                let record = root.record(Proc3::Create, &CreateArgs { at, how });
                let server = root.owner(entry_site(root.volume(), dir, &name));
                let call = (server, record);
                let directory = c.directory.clone();
                async move { directory.channel(call.0).unwrap().call(call.1.into()).await.unwrap() }
            });
            let began = std::time::Instant::now();
            let replies: Vec<_> = futures_util::stream::iter(calls).buffer_unordered(64).collect().await;
            assert!(replies.iter().all(|r| r[24..28] == [0; 4]));
            println!("{servers} servers: {:.0}/s", 2000.0 / began.elapsed().as_secs_f64());
            c.settle().await;
            common::check::consistent(&c).await;
        }
    });
}
