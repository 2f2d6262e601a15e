//! The suites that start whole ensembles, most of them with a stock client: which tests of each belong to a run of which length.

use std::process::Command;
use std::time::Duration;

use crate::command::{ask, run_lines};
use crate::error::Error;
use crate::libtest::{self, Ending};
use crate::packages::{self, Package};
use crate::programs::Programs;
use crate::summary::Row;
use crate::test::Length;
use crate::tools::Tool;

/// A suite: an integration test program of `slice-tests`, with a test for each name policy and layout.
#[derive(Debug)]
pub struct Suite {
    /// The program's name.
    pub name: &'static str,
    /// All of its tests that a plain `cargo test` leaves out.
    tests: &'static [&'static str],
    /// The tests of a quick run; empty means all.
    quick: &'static [&'static str],
    /// The tests of a normal run; empty means all. A full run has all.
    normal: &'static [&'static str],
}

/// Each name policy once, and both layouts among them.
const EACH_POLICY: &[&str] = &["partition_one_process", "mkdir_one_process", "hash_separate"];

/// Hashing is the policy with the most servers in an operation.
const ONE: &[&str] = &["hash_separate"];

/// The policy with the fewest servers in an operation, in one process, and the one with the most, in many.
const ENDS: &[&str] = &["partition_one_process", "hash_separate"];

/// A role killed at a time, and an ensemble whose only process is: the torment kills all the time.
const RESTARTS: &[&str] = &["hash_one_process", "mkdir_separate"];

/// A test's guest has a limit of its own, 30 minutes at most; this one is for a test that waits outside it.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// All suites, short ones first.
pub const SUITES: [Suite; 13] = [
    Suite { name: "model", tests: &MODEL, quick: ONE, normal: MODELS },
    Suite {
        name: POWERCUT,
        tests: &[
            "dirserver",
            "smallfile",
            "blockstore",
            "coordinator",
            "store",
            "store_after_a_failed_fsync",
            "ensemble",
        ],
        quick: &[],
        normal: &[],
    },
    Suite {
        name: FAILING,
        tests: &["blockstore", "smallfile", "dirserver", "coordinator"],
        quick: &["smallfile"],
        normal: &[],
    },
    Suite {
        name: WATCH,
        tests: &["prometheus_scrapes_it", "the_page_shows_the_ensemble"],
        quick: &[],
        normal: &[],
    },
    Suite { name: SOAK, tests: &["nothing_grows"], quick: &[], normal: &[] },
    Suite {
        name: DEPLOY,
        tests: &["files", "several_hosts", "compose_cluster"],
        quick: &["files"],
        normal: &[],
    },
    Suite { name: "stock_pjdfstest", tests: &STOCK, quick: ONE, normal: EACH_POLICY },
    Suite { name: "stock_two_mounts", tests: &STOCK, quick: ONE, normal: EACH_POLICY },
    Suite { name: "stock_nconnect", tests: &STOCK, quick: ONE, normal: ENDS },
    Suite { name: "stock_restart", tests: &STOCK, quick: ONE, normal: RESTARTS },
    Suite { name: "stock_torment", tests: &SEPARATE, quick: ONE, normal: ONE },
    Suite { name: "stock_fsx", tests: &STOCK, quick: ONE, normal: EACH_POLICY },
    Suite { name: "stock_tree", tests: &STOCK, quick: ONE, normal: EACH_POLICY },
];

/// What the tests of these suites are marked with: a plain `cargo test` shows it, and they are counted here instead.
pub const IGNORED_AS: [&str; 6] =
    ["stock client:", "whole ensembles:", "docker:", "watch:", "power cuts:", "failing disk:"];

/// The suite that cuts the power of every store.
const POWERCUT: &str = "powercut";

/// The suite in which the disk of one server of an ensemble fails.
const FAILING: &str = "failing_disk";

/// The suite that looks at an ensemble with Prometheus and with a browser.
pub const WATCH: &str = "watch";

/// The suite that keeps a load up and looks for growth.
pub const SOAK: &str = "soak";

/// The suite that starts containers, with a stock client on them.
pub const DEPLOY: &str = "deploy";

/// Each policy, in one process and in several.
const STOCK: [&str; 6] = [
    "partition_one_process",
    "mkdir_one_process",
    "hash_one_process",
    "partition_separate",
    "mkdir_separate",
    "hash_separate",
];

/// Each policy, where there are processes to torment.
const SEPARATE: [&str; 3] = ["partition_separate", "mkdir_separate", "hash_separate"];

/// Every policy, both layouts, and servers killed under way where operations touch several sites.
const MODELS: &[&str] = &[
    "partition_one_process",
    "hash_one_process",
    "mkdir_separate",
    "hash_separate",
    "mkdir_killed",
    "hash_killed",
];

/// Every policy: both layouts, and servers killed under way.
const MODEL: [&str; 9] = [
    "partition_one_process",
    "mkdir_one_process",
    "hash_one_process",
    "partition_separate",
    "mkdir_separate",
    "hash_separate",
    "partition_killed",
    "mkdir_killed",
    "hash_killed",
];

/// The tests of all suites, some more than once.
pub fn all_tests() -> impl Iterator<Item = &'static str> {
    SUITES.iter().flat_map(|suite| suite.tests.iter().copied())
}

impl Suite {
    /// The tests that match the filter: those that this length runs, and those that it leaves out. A test that the filter
    /// names itself runs at any length.
    pub fn choose(&self, length: Length, filter: Option<&str>) -> (Vec<&'static str>, Vec<&'static str>) {
        let chosen = match length {
            Length::Quick => self.quick,
            Length::Normal => self.normal,
            Length::Full => &[],
        };
        let whole_suite = filter.is_none_or(|filter| self.name.contains(filter));
        let matching =
            |test: &&str| whole_suite || filter.is_some_and(|f| format!("{}::{test}", self.name).contains(f));
        let in_length = |test: &&str| !whole_suite || chosen.is_empty() || chosen.contains(test);
        self.tests.iter().copied().filter(matching).partition(in_length)
    }

    /// Runs the chosen tests; every one of them ends up in the row.
    pub fn run(
        &self,
        programs: &Programs,
        chosen: &[&str],
        row: &mut Row,
        setup: impl Fn(&mut Command),
    ) -> Result<(), Error> {
        let Some(mut command) = programs.command(self.name) else {
            chosen.iter().for_each(|test| row.add(test, Ending::Failed));
            return Ok(());
        };
        // Two guests would share two cores with two servers: not faster, and near every limit.
        command.args(["--ignored", "--exact", "--test-threads=1", "--format=pretty"]).args(chosen);
        setup(&mut command);
        let mut ended = Vec::new();
        run_lines(&mut command, LIMIT * chosen.len() as u32, |line| ended.extend(libtest::parse(line)))?;
        for test in chosen {
            // A test without an ending was not compiled, or took its program down with it.
            let ending = ended
                .iter()
                .find(|(name, _)| name == test)
                .map_or(Ending::Failed, |(_, ending)| ending.clone());
            row.add(test, ending);
        }
        Ok(())
    }
}

/// Why a suite cannot run on this machine: none if it can.
pub fn obstacle(
    suite: &Suite,
    reference: bool,
    packages: &[&Package],
    tools: &[&Tool],
    source: bool,
) -> Option<String> {
    let mut reasons = Vec::new();
    let needed = |p: &&&Package| p.is_for(suite.name) || (reference && p.is_for(packages::REFERENCE));
    let missing: Vec<_> = packages.iter().filter(needed).map(|p| p.name).collect();
    if !missing.is_empty() {
        reasons.push(format!("packages are missing: {}", missing.join(" ")));
    }
    for tool in tools.iter().filter(|tool| tool.suite == suite.name) {
        reasons.push(format!("cargo install {}@{} failed", tool.name, tool.version));
    }
    if suite.name == DEPLOY && ask(Command::new("docker").arg("info")).is_none() {
        reasons.push("no Docker engine answers (docker info)".to_owned());
    }
    if [POWERCUT, FAILING].contains(&suite.name) {
        reasons.extend(no_fuse());
    }
    if suite.name == "stock_tree" && !source {
        reasons.push("no Debian source package could be fetched".to_owned());
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Mounts a FUSE file system as that suite does, without a server behind it, and takes it away: why that is not possible.
fn no_fuse() -> Option<String> {
    const MOUNT: &str = r#"
        dir=$(mktemp -d) && trap 'rmdir "$dir"' EXIT && exec 3<>/dev/fuse &&
        mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 slice-power "$dir" && umount -l "$dir""#;
    let tried = match Command::new("sh").args(["-c", MOUNT]).output() {
        Ok(tried) => tried,
        Err(error) => return Some(format!("no shell to mount a FUSE file system: {error}")),
    };
    let said = String::from_utf8_lossy(&tried.stderr);
    let why = said.lines().next().unwrap_or("mount says nothing");
    (!tried.status.success()).then(|| format!("no FUSE file system can be mounted: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_choose_tests_that_exist() {
        for suite in &SUITES {
            for test in suite.quick.iter().chain(suite.normal) {
                assert!(suite.tests.contains(test), "{}::{test}", suite.name);
            }
            assert_eq!(suite.choose(Length::Full, None), (suite.tests.to_vec(), vec![]));
        }
    }

    #[test]
    fn a_filter_names_a_suite_or_a_test() {
        let fsx = SUITES.iter().find(|suite| suite.name == "stock_fsx").unwrap();
        assert_eq!(fsx.choose(Length::Quick, Some("fsx")).0, ONE);
        assert_eq!(fsx.choose(Length::Quick, Some("stock_fsx::mkdir_one")).0, ["mkdir_one_process"]);
        assert_eq!(fsx.choose(Length::Full, Some("tree")), (vec![], vec![]));
    }

    #[test]
    fn an_obstacle_says_what_is_missing() {
        let tree = SUITES.iter().find(|suite| suite.name == "stock_tree").unwrap();
        let tcc: Vec<_> = crate::packages::PACKAGES.iter().filter(|p| p.name == "tcc").collect();
        assert_eq!(obstacle(tree, false, &tcc, &[], true).unwrap(), "packages are missing: tcc");
        assert!(obstacle(tree, false, &[], &[], false).is_some());
        // Containers and FUSE depend on this machine.
        let others =
            SUITES.iter().filter(|suite| ![tree.name, DEPLOY, POWERCUT, FAILING].contains(&suite.name));
        assert!(others.map(|suite| obstacle(suite, false, &tcc, &[], false)).all(|found| found.is_none()));
    }
}
