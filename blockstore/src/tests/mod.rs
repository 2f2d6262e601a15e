//! The node as its callers see it: records in, records out.

mod failure;
mod fencing;
mod harness;
mod measure;
mod model;
mod procedures;
