//! The node as its callers see it: records in, records out.

mod failure;
mod fencing;
mod harness;
mod model;
mod procedures;
