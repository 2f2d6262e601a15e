//! The server as its callers see it: records in, records out.

mod failure;
mod harness;
mod measure;
mod model;
mod procedures;
mod threads;
