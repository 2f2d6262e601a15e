//! A Debian source package on the mount: unpacked, compared, compiled, used, removed.
//!
//! The package is git's: 4,300 files, and a compiler as small as tcc builds all of it. What the guest compiles on the mount
//! has to be, byte for byte, what this machine compiles on its own disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use slice_tests::ensemble::{Layout, Policy};
use slice_tests::error::Doing;
use slice_tests::guest::Spec;
use slice_tests::image::find_program;
use slice_tests::stock::{Length, Server, reference, run_name};
use slice_tests::{Error, paths, stock_suite};

/// Fewer files would not be a tree worth the name (issue: "≥ 3,000 files").
const FILES_LEAST: usize = 3000;

/// One line for guest and host: the same compiler, archiver and options, and the same bytes come out. tcc has no variable
/// length arrays in parameters, which the C library's headers would use.
const MAKE: &str = "make -s CC=tcc AR='tcc -ar' CFLAGS='-D__STDC_NO_VLA__ -w' NO_CURL=1 NO_OPENSSL=1 NO_EXPAT=1 NO_GETTEXT=1 \
    NO_PERL=1 NO_PYTHON=1 NO_TCLTK=1";

/// What is built: everything, or one library of 20 files.
const WHOLE: &str = "git";
const LIBRARY: &str = "reftable/libreftable.a";

/// Every object and the program, with their sums.
const SUMS: &str = "find . -name '*.o' -o -name git -type f | LC_ALL=C sort | xargs sha256sum";

/// Two minutes on nfs-ganesha on an idle machine.
const LIMIT: Duration = Duration::from_secs(1500);

/// The local copy lies in the guest's memory, beside the packages.
const MEMORY_MIB: u32 = 1024;

stock_suite!(run);

fn run(policy: Policy, layout: Layout) -> Result<(), Error> {
    // All of it once in a normal run, where most servers are in an operation.
    let normal = if (policy, layout) == (Policy::Hash, Layout::Separate) { WHOLE } else { LIBRARY };
    let target = Length::get().pick(LIBRARY, normal, WHOLE);
    let sums = host_sums(target);
    let server = Server::start("tree", policy, layout)?;
    let mut spec = Spec::new(&run_name("tree", policy, layout))
        .mount(server.mount())
        .limit(LIMIT)
        .memory_mib(MEMORY_MIB);
    for (program, package) in [("diff", "diffutils"), ("tar", "tar"), ("xz", "xz-utils")] {
        spec = spec.program(&find_program(program, package)?)?;
    }
    for package in ["tcc", "make", "libc6-dev", "linux-libc-dev", "zlib1g-dev", "zlib1g"] {
        spec.image().package(package)?;
    }
    spec.image().file(&paths::source_tarball()?, "/source.tar")?;
    spec.image().text("/sums", 0o644, sums);
    let script = include_str!("guest/tree.sh")
        .replace("@MAKE@", MAKE)
        .replace("@TARGET@", target)
        .replace("@SUMS@", SUMS);
    // nfs-ganesha ignores SETATTR of a symbolic link's times.
    let links = if reference() { "%n %f %h %u %g %s" } else { "%n %f %h %u %g %s %Y" };
    let outcome = spec.run(&script.replace("@LINK_ATTRIBUTES@", links))?;
    for mark in &outcome.marks {
        println!("{policy}, {layout}: {} {}", mark.name, mark.text);
    }
    let files: usize = outcome.text("files").and_then(|text| text.parse().ok()).unwrap_or_default();
    assert!(files >= FILES_LEAST, "the package has only {files} files");
    server.stop()
}

/// What this machine compiles from the same package: each target once for all tests in this process.
fn host_sums(target: &str) -> &'static str {
    static OF_WHOLE: OnceLock<String> = OnceLock::new();
    static OF_LIBRARY: OnceLock<String> = OnceLock::new();
    let sums = if target == WHOLE { &OF_WHOLE } else { &OF_LIBRARY };
    sums.get_or_init(|| {
        build_here(target).unwrap_or_else(|error| panic!("compiling on this machine: {error}"))
    })
}

fn build_here(target: &str) -> Result<String, Error> {
    let folder = tempfile::tempdir().doing(|| "making a temporary directory".into())?;
    let tarball = paths::source_tarball()?;
    let unpack = format!("tar -xf '{}' && mv */* . ", tarball.display());
    shell(folder.path(), &unpack)?;
    // The make that runs this test must not tell that make what to do.
    shell(folder.path(), &format!("unset MAKEFLAGS MAKELEVEL; {MAKE} {target} >/dev/null"))?;
    shell(folder.path(), SUMS)
}

fn shell(folder: &Path, command: &str) -> Result<String, Error> {
    let output = Command::new("sh").args(["-ec", command]).current_dir(folder).output();
    let output = output.doing(|| format!("running {command}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Command {
            command: command.to_owned(),
            status: output.status.to_string(),
            stderr,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
