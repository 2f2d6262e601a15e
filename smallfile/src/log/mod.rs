//! The log: segments, frames in them, and the thread that writes them.

pub(crate) mod clean;
pub(crate) mod flush;
pub(crate) mod frame;
pub(crate) mod queue;
pub(crate) mod segment;
pub(crate) mod table;
