//! The Debian packages that tests need: looked for, installed where that is allowed, named where it is not.

use std::process::Command;

use crate::command::{ask, run};
use crate::error::Error;
use crate::stock::{DEPLOY, SOAK, WATCH};

/// A package and the suites that cannot run without it.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// The suites (names in `stock::SUITES`), or `*` for all that run in a stock client.
    pub needed_by: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

const fn package(name: &'static str, needed_by: &'static [&'static str], why: &'static str) -> Package {
    Package { name, needed_by, why }
}

const ALL: &[&str] = &["*"];
const TREE: &[&str] = &["stock_tree"];

/// What `test --reference` needs besides.
pub const REFERENCE: &str = "nfs-ganesha";
const GANESHA: &[&str] = &[REFERENCE];
const WATCHING: &[&str] = &[WATCH];
const SOAKING: &[&str] = &[SOAK];

/// Everything that is installed for tests.
pub const PACKAGES: [Package; 23] = [
    package("qemu-system-x86", ALL, "runs the guest"),
    package(
        "linux-image-cloud-amd64",
        ALL,
        "the guest's kernel and NFS client (unpacked here, never booted)",
    ),
    package("kmod", ALL, "says which modules the NFS client consists of"),
    package("nfs-common", ALL, "mount.nfs for the guest"),
    package("busybox-static", ALL, "the guest's shell"),
    package("util-linux", ALL, "setpriv: a guest ends with its test"),
    package("tcc", TREE, "compiles in the guest"),
    package("make", TREE, "drives the compiler"),
    package("libc6-dev", TREE, "headers and startup code for the compiler"),
    package("linux-libc-dev", TREE, "headers"),
    package("zlib1g-dev", TREE, "what the compiled package links with"),
    package("zlib1g", TREE, "what the compiled program runs with"),
    package("tar", TREE, "unpacks in the guest"),
    package("xz-utils", TREE, "unpacks in the guest"),
    package("diffutils", TREE, "compares in the guest"),
    package("prometheus", WATCHING, "scrapes metrics; promtool checks them, and the rules"),
    package("curl", &[WATCH, SOAK], "asks Prometheus, and servers for their metrics"),
    package("jq", SOAKING, "reads what runs, and the load's result"),
    package("chromium", WATCHING, "shows the status page"),
    package("fonts-dejavu-core", WATCHING, "letters for the status page"),
    package("nfs-ganesha", GANESHA, "the reference server"),
    package("nfs-ganesha-vfs", GANESHA, "serves a local directory"),
    package("rpcbind", GANESHA, "the reference server does not start without it"),
];

impl Package {
    /// True if this suite needs it.
    pub fn is_for(&self, suite: &str) -> bool {
        let guest = suite.starts_with("stock_") || suite == DEPLOY;
        self.needed_by.iter().any(|name| *name == suite || (*name == "*" && guest))
    }
}

/// The packages that these suites need and that are not here, after installing them where that is allowed.
pub fn ensure(suites: &[&str]) -> Result<Vec<&'static Package>, Error> {
    let wanted: Vec<_> =
        PACKAGES.iter().filter(|package| suites.iter().any(|suite| package.is_for(suite))).collect();
    let missing = absent(&wanted);
    if missing.is_empty() {
        return Ok(missing);
    }
    for package in &missing {
        eprintln!("missing: {} ({})", package.name, package.why);
    }
    if let Some(reason) = not_allowed() {
        eprintln!("{reason}; install them with: apt-get install {}", names(&missing).join(" "));
        return Ok(missing);
    }
    // Old lists name files that are gone: then the lists are fetched once, and the packages again.
    if !install(&missing)? && run(&mut apt(&["update"]))? {
        install(&missing)?;
    }
    Ok(absent(&wanted))
}

/// Why we may not install: no reason if we may.
fn not_allowed() -> Option<&'static str> {
    if ask(Command::new("apt-get").arg("--version")).is_none() {
        return Some("this machine has no apt-get");
    }
    match ask(Command::new("id").arg("-u")) {
        Some(id) if id.trim() == "0" => None,
        _ => Some("only root may install packages"),
    }
}

fn install(packages: &[&Package]) -> Result<bool, Error> {
    run(apt(&["install", "--yes", "--no-install-recommends"]).args(names(packages)))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "Dpkg::Use-Pty=0"]).args(arguments);
    command
}

fn names(packages: &[&Package]) -> Vec<&'static str> {
    packages.iter().map(|package| package.name).collect()
}

/// Those that dpkg does not list as installed: all of them where there is no dpkg.
fn absent(packages: &[&'static Package]) -> Vec<&'static Package> {
    let status = |name| ask(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}\n", name]));
    let is_installed = |name| status(name).is_some_and(|text| text.lines().any(|line| line == "installed"));
    packages.iter().copied().filter(|package| !is_installed(package.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::SUITES;

    #[test]
    fn every_package_is_for_a_suite_that_exists() {
        for package in &PACKAGES {
            for suite in package.needed_by.iter().filter(|suite| !["*", REFERENCE].contains(suite)) {
                assert!(SUITES.iter().any(|known| known.name == *suite), "{} is for {suite}", package.name);
            }
        }
    }
}
