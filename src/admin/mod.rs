//! What an operator asks of a whole ensemble.

pub mod check;
