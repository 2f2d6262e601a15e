//! The µproxy: classify, plan, send, merge; soft state.
#![forbid(unsafe_code)]

pub mod classify;
pub mod config;
pub mod error;
pub mod merge;
pub mod permission;
pub mod reply;
pub mod route;
pub mod soft;
pub mod verifier;
