//! cargo-fuzz's way to the target of this name.
#![no_main]
#![allow(unsafe_code, missing_docs, reason = "the macro exports a function to C")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slice::fuzzing::configuration(data));
