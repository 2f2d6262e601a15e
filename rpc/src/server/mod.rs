//! The server side: listeners, connections, datagrams.

mod connection;
mod datagram;
mod limits;
mod listener;
mod stream;
mod sweep;
mod task;
mod weight;

pub use connection::Connection;
pub use datagram::serve_udp;
pub use limits::Limits;
pub use listener::{Gate, Listener, Options, Placement, serve, serve_local};
pub use stream::serve_stream;
