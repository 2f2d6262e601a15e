//! The stage for tests of a whole ensemble and of a stock client on it.
//!
//! [`guest`] boots a stock Linux client; `ensemble` starts the program under test; `stock` puts the two together.
//! docs/stock-client.md says what is tested and how.
#![forbid(unsafe_code)]

pub mod base;
pub mod cpio;
pub mod ensemble;
pub mod error;
pub mod ganesha;
pub mod guest;
pub mod image;
pub mod manual;
pub mod model;
pub mod paths;
pub mod powercut;
pub mod process;
pub mod stock;
pub mod torment;
pub mod watching;
pub mod wire;

pub use error::Error;
