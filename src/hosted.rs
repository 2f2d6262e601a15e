//! A server as the program handles it, whichever it is (docs/wire.md, "Services, as the program builds them").

use futures_util::future::LocalBoxFuture;
use slice_metrics::Samples;
use slice_proto::ids::Site;
use slice_proto::stats::ServerStats;
use slice_proto::table::Volume;
use slice_rpc::Service;
use std::error::Error as StdError;
use std::sync::Arc;

/// Whatever a service fails with.
pub type Failure = Box<dyn StdError + Send + Sync>;

/// A server that owns sites, or a µproxy.
pub trait Hosted: Send + Sync {
    /// What answers its calls; a µproxy listens for itself.
    fn service(&self) -> Option<Arc<dyn Service>>;

    /// Stamps sites, durably.
    fn adopt<'a>(
        &'a self,
        sites: &'a [Site],
        volumes: &'a [Volume],
    ) -> LocalBoxFuture<'a, Result<(), Failure>>;

    /// Sites whose stamps its store holds.
    fn stamped(&self) -> Vec<Site>;

    /// Its figures.
    fn stats(&self) -> ServerStats;

    /// What the metrics endpoint shows of it besides its calls.
    fn samples(&self, out: &mut Samples);

    /// Its background work, until shutdown.
    fn run(&self) -> LocalBoxFuture<'static, ()>;

    /// Makes everything durable, ends the background work.
    fn shutdown(&self) -> LocalBoxFuture<'_, ()>;
}

/// Handles a service crate's server, all of which have the same functions.
macro_rules! hosted {
    ($server:ty) => {
        impl Hosted for Arc<$server> {
            fn service(&self) -> Option<Arc<dyn Service>> {
                Some(Arc::clone(self) as Arc<dyn Service>)
            }

            fn adopt<'a>(
                &'a self,
                sites: &'a [Site],
                volumes: &'a [Volume],
            ) -> LocalBoxFuture<'a, Result<(), Failure>> {
                Box::pin(async move { <$server>::adopt(self, sites, volumes).await.map_err(Into::into) })
            }

            fn stamped(&self) -> Vec<Site> {
                <$server>::stamped(self)
            }

            fn stats(&self) -> ServerStats {
                <$server>::stats(self)
            }

            fn samples(&self, out: &mut Samples) {
                <$server>::samples(self, out);
            }

            fn run(&self) -> LocalBoxFuture<'static, ()> {
                Box::pin(<$server>::run(Arc::clone(self)))
            }

            fn shutdown(&self) -> LocalBoxFuture<'_, ()> {
                Box::pin(<$server>::shutdown(self))
            }
        }
    };
}

hosted!(slice_dirserver::DirServer);
hosted!(slice_smallfile::SmallFileStore);
hosted!(slice_blockstore::BlockStore);

impl Hosted for Arc<slice_proxy::Proxy> {
    fn service(&self) -> Option<Arc<dyn Service>> {
        None
    }

    fn adopt<'a>(&'a self, _: &'a [Site], _: &'a [Volume]) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async { Err("a µproxy owns no sites".into()) })
    }

    fn stamped(&self) -> Vec<Site> {
        Vec::new()
    }

    fn stats(&self) -> ServerStats {
        slice_proxy::Proxy::stats(self)
    }

    fn samples(&self, out: &mut Samples) {
        slice_proxy::Proxy::samples(self, out);
    }

    fn run(&self) -> LocalBoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn shutdown(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(slice_proxy::Proxy::shutdown(self))
    }
}
