//! Everyone ⇄ coordinator: the gRPC contract, the conversions between its messages and our types, and the proof of the
//! ensemble's secret that every call carries.

pub mod auth;
mod convert;

/// The generated messages, client and server of `proto/control.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::indexing_slicing, clippy::unwrap_used)]
// generated: the contract's own comments are in the .proto file
pub mod pb {
    tonic::include_proto!("slice.control.v1");
}

pub use convert::{ConvertError, MAX_SERVERS, MAX_VOLUMES, sites_from_wire, sites_to_wire};
