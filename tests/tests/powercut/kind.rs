//! The two data servers: what they have in common for a test, and what not.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use slice_blockstore::{BlockConfig, BlockStore};
use slice_proto::ids::{FileId, Site};
use slice_proto::placement::{THRESHOLD, block_sites_under, small_site};
use slice_rpc::clock::SystemClock;
use slice_rpc::service::Service;
use slice_rpc::tables::Tables;
use slice_smallfile::{SmallConfig, SmallFileStore};
use slice_store::EngineKind;

use super::wire::{self, BLOCK, SMALL};

/// Which of the two servers.
pub trait Kind: Send + 'static {
    const NAME: &'static str;
    /// Offsets that it holds.
    const FROM: u64;
    const LIMIT: u64;
    /// Longest write.
    const WRITE: usize;
    const CHANGES: u64;
    const SMALL: bool;
    type Server: Service;

    fn format(data: &Path) -> Result<(), String>;
    async fn open(data: &Path, tables: Tables) -> Result<Arc<Self::Server>, String>;
    async fn adopt(server: &Self::Server);
    fn run(server: Arc<Self::Server>) -> LocalBoxFuture<'static, ()>;
    async fn shutdown(server: &Self::Server);
    /// The sites that a truncate names.
    fn sites(file: FileId) -> Vec<Site>;
}

pub struct Small;
pub struct Block;

fn small(data: &Path) -> SmallConfig {
    SmallConfig {
        data: data.to_owned(),
        engine: EngineKind::Fjall,
        identity: wire::identity(),
        server: SMALL,
    }
}

impl Kind for Small {
    const NAME: &'static str = "small-file server";
    const FROM: u64 = 0;
    const LIMIT: u64 = THRESHOLD;
    const WRITE: usize = 20_000;
    const CHANGES: u64 = 250;
    const SMALL: bool = true;
    type Server = SmallFileStore;

    fn format(data: &Path) -> Result<(), String> {
        wire::make_once(data, || SmallFileStore::format(&small(data)).map_err(|error| error.to_string()))
    }

    async fn open(data: &Path, tables: Tables) -> Result<Arc<SmallFileStore>, String> {
        let opened = SmallFileStore::open_small(small(data), tables, Arc::new(SystemClock)).await;
        opened.map_err(|error| error.to_string())
    }

    async fn adopt(server: &SmallFileStore) {
        server.adopt(&wire::all_sites(), &[]).await.unwrap();
    }

    fn run(server: Arc<SmallFileStore>) -> LocalBoxFuture<'static, ()> {
        Box::pin(server.run())
    }

    async fn shutdown(server: &SmallFileStore) {
        server.shutdown().await;
    }

    fn sites(file: FileId) -> Vec<Site> {
        vec![small_site(file)]
    }
}

fn block(data: &Path) -> BlockConfig {
    BlockConfig {
        data: data.to_owned(),
        engine: EngineKind::Fjall,
        identity: wire::identity(),
        server: BLOCK,
    }
}

impl Kind for Block {
    const NAME: &'static str = "block storage node";
    const FROM: u64 = THRESHOLD;
    /// Into the second stripe unit.
    const LIMIT: u64 = (1 << 20) + (64 << 10);
    const WRITE: usize = 60_000;
    const CHANGES: u64 = 300;
    const SMALL: bool = false;
    type Server = BlockStore;

    fn format(data: &Path) -> Result<(), String> {
        wire::make_once(data, || BlockStore::format(&block(data)).map_err(|error| error.to_string()))
    }

    async fn open(data: &Path, tables: Tables) -> Result<Arc<BlockStore>, String> {
        let directory = slice_rpc::Directory::new(None);
        let opened = BlockStore::open(block(data), tables, directory, Arc::new(SystemClock)).await;
        opened.map_err(|error| error.to_string())
    }

    async fn adopt(server: &BlockStore) {
        server.adopt(&wire::all_sites(), &[]).await.unwrap();
    }

    fn run(server: Arc<BlockStore>) -> LocalBoxFuture<'static, ()> {
        Box::pin(server.run())
    }

    async fn shutdown(server: &BlockStore) {
        server.shutdown().await;
    }

    fn sites(file: FileId) -> Vec<Site> {
        let mut sites: Vec<_> = block_sites_under(file, Self::LIMIT).collect();
        sites.dedup();
        sites
    }
}
