//! The server as its callers see it: records in, records out.

mod failure;
mod harness;
mod model;
mod procedures;
