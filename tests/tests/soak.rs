//! `load/soak`, short: the SFS mix on an ensemble of eight processes; no reply is wrong, nobody is restarted, and neither memory nor
//! open files grow. The hour at 80 % of saturation, latency too, is the script's own default.
#![allow(clippy::unwrap_used, clippy::panic)] // A test may stop at the first surprise.

use std::process::Command;

use slice_tests::ensemble::binary;
use slice_tests::paths;
use slice_tests::stock::Length;

#[test]
#[ignore = "whole ensembles: cargo xtask test soak"]
fn nothing_grows() {
    let seconds = Length::get().pick("24", "40", "600");
    let folder = tempfile::tempdir().unwrap();
    let mut soak = Command::new(paths::workspace().join("load/soak"));
    soak.args(["--seconds", seconds, "--every", "3", "--rate", "400", "--no-latency", "--results"]);
    soak.arg(folder.path().join("soak.tsv")).env("SLICE", binary().unwrap());
    // Its output is the test's own: on the runner's line it would hide the result.
    let output = soak.output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", output.status);
}
