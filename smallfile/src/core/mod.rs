//! What an object is and what may be done to it: decided in memory, without I/O.

pub(crate) mod extent;
pub(crate) mod fence;
pub(crate) mod object;
pub(crate) mod record;

pub(crate) use extent::{BLOCK, BLOCKS, Extent, LIMIT};
pub(crate) use object::Object;
