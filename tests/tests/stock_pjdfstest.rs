//! pjdfstest, 398 tests of POSIX file-system calls, on a mount by a stock Linux client.
//!
//! Every test that runs passes, or its failure is inherent to NFSv3 and stands in [`INHERENT`] (and, with the same
//! reasons, in docs/stock-client.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use std::time::Duration;

use slice_tests::ensemble::{Layout, Policy};
use slice_tests::guest::Spec;
use slice_tests::stock::{Server, reference, run_name};
use slice_tests::{Error, paths, stock_suite};

/// Tests that no NFSv3 server lets a Linux client pass, and why.
const INHERENT: [(&str, &str); 2] = [
    (
        "unlink::open_file_not_freed",
        "a Linux client renames an open file that is removed (.nfsXXXX), so its link count stays 1",
    ),
    ("utimensat::y2038", "RFC 1813 nfstime3 has 32 bits of seconds: the test's 2^32 s has no place in it"),
];

/// nfs-ganesha's own: it ignores SETATTR of a symbolic link's times.
const REFERENCE_ONLY: &str = "utimensat::follow_symlink";

/// All opt-in features that Linux has; a second file system for EXDEV. The read-only remounts (EROFS) stay off: the
/// client refuses those calls without asking the server.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
secondary_fs = "/tmp"
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nobody"], ["tests", "tests"]]
"#;

/// The status of pjdfstest says whether all passed; here the lines decide.
const SCRIPT: &str = "chmod 755 /mnt; pjdfstest -c /etc/pjdfstest.toml -p /mnt; mark ran 0";

/// It takes a minute on a busy machine; a server that waits for a timeout in a few tests takes several.
const LIMIT: Duration = Duration::from_secs(900);

stock_suite!(run);

fn run(policy: Policy, layout: Layout) -> Result<(), Error> {
    let server = Server::start("pjdfstest", policy, layout)?;
    let mut spec = Spec::new(&run_name("pjdfstest", policy, layout)).mount(server.mount()).limit(LIMIT);
    spec = spec.program(&paths::tool("pjdfstest"))?;
    spec.image().text("/etc/pjdfstest.toml", 0o644, CONFIG);
    let outcome = spec.run(SCRIPT)?;

    let report = Report::parse(&outcome.log);
    println!("{policy}, {layout}: {}", report.summary());
    let expected = |name: &str| {
        INHERENT.iter().any(|(inherent, _)| *inherent == name) || (reference() && name == REFERENCE_ONLY)
    };
    let unexpected: Vec<_> = report.failed.iter().filter(|(name, _)| !expected(name)).collect();
    for (name, why) in &unexpected {
        println!("FAILED {name}\n{why}");
    }
    assert!(
        unexpected.is_empty(),
        "{} tests failed; all output: {}",
        unexpected.len(),
        outcome.log_path.display()
    );
    // A run that dies half way has no failures either.
    assert_eq!(
        report.total,
        Some(report.passed + report.failed.len() + report.skipped),
        "pjdfstest's summary"
    );
    assert!(report.passed >= LEAST_PASSED, "only {} tests passed", report.passed);
    server.stop()
}

/// nfs-ganesha over ext4 passes 381 with this configuration; fewer means that tests were skipped which should run.
const LEAST_PASSED: usize = 381;

/// What pjdfstest prints, in numbers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    passed: usize,
    skipped: usize,
    failed: Vec<(String, String)>,
    total: Option<usize>,
}

impl Report {
    fn parse(log: &str) -> Self {
        let mut report = Self::default();
        let mut in_failure = false;
        for line in log.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            // Indented lines are reasons for the test above, of one or several lines.
            match words[..] {
                _ if line.starts_with([' ', '\t']) => {
                    if let Some((_, why)) = report.failed.last_mut().filter(|_| in_failure) {
                        why.push_str(line);
                        why.push('\n');
                    }
                    continue;
                }
                [_, "ok"] => report.passed += 1,
                [_, "skipped"] => report.skipped += 1,
                [name, "FAILED"] => report.failed.push((name.to_owned(), String::new())),
                ["Summary:", .., total, "total"] => report.total = total.parse().ok(),
                _ => {}
            }
            in_failure = matches!(words[..], [_, "FAILED"]);
        }
        report
    }

    fn summary(&self) -> String {
        let names: Vec<_> = self.failed.iter().map(|(name, _)| name.as_str()).collect();
        format!("{} passed, {} skipped, {} failed {names:?}", self.passed, self.skipped, names.len())
    }
}

#[test]
fn a_report_is_read_line_by_line() {
    let log = "chmod::ok_one      ok\nopen::x    skipped\n\trequires features: chflags\nunlink::y   FAILED\n\tassertion\n  left: 1\n right: 0\n\
        open::z ok\nSummary: 1 failed, 1 skipped, 2 passed, 0 expected failures, 4 total\n";
    let report = Report::parse(log);
    assert_eq!((report.passed, report.skipped, report.total), (2, 1, Some(4)));
    assert_eq!(report.failed, [("unlink::y".to_owned(), "\tassertion\n  left: 1\n right: 0\n".to_owned())]);
}
