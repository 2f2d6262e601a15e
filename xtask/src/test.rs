//! `cargo xtask test`: every check and suite in turn, each going on after a failure before it, then the summary.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::command::{self, cargo, cargo_aside, run_lines, target, workspace};
use crate::error::Error;
use crate::libtest::{self, Ending};
use crate::packages::{self, Package};
use crate::programs::Programs;
use crate::source;
use crate::stock::{self, SUITES, Suite};
use crate::summary::{Row, Summary};
use crate::tools::{self, Tool};

/// How long the tests may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Minutes.
    Quick,
    /// What continuous integration runs: every suite and policy, some lengths shortened.
    Normal,
    /// Every test at its full length.
    Full,
}

impl Length {
    /// As the test programs read it from `SLICE_TEST_LENGTH`.
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Normal => "normal",
            Self::Full => "full",
        }
    }

    /// How long the workspace's own tests may take, compiling included: some minutes when all is well.
    fn workspace_limit(self) -> Duration {
        Duration::from_secs(if self == Self::Full { 4 * 3600 } else { 25 * 60 })
    }
}

/// What to test.
#[derive(Debug, Args)]
pub struct Options {
    /// Short runs, fewer combinations of name policy and layout.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Every combination at full length: hours.
    #[arg(long)]
    full: bool,
    /// Runs the stock-client suites against nfs-ganesha instead, and nothing else: a test that fails there too is not
    /// the fault of Slice.
    #[arg(long)]
    reference: bool,
    /// Only what has this in its name: a check (format, clippy, docs), a suite (stock_fsx), a test
    /// (stock_fsx::hash_separate, or any unit test).
    filter: Option<String>,
}

impl Options {
    fn length(&self) -> Length {
        match (self.quick, self.full) {
            (true, _) => Length::Quick,
            (_, true) => Length::Full,
            _ => Length::Normal,
        }
    }
}

/// A check that no test program makes: name, cargo's arguments.
type Check = (&'static str, &'static [&'static str]);

/// All of them.
const CHECKS: [Check; 3] = [
    ("format", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ("docs", &["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]),
];

/// Format, lints and docs only.
pub fn check() -> Result<bool, Error> {
    let mut summary = Summary::default();
    run_checks(&mut summary, &CHECKS, None, cargo)?;
    println!("\n{}", summary.text());
    Ok(summary.good())
}

/// Everything that the options ask for: true if nothing failed.
///
/// ```text
/// format ─▶ release build ─▶ all tests compiled ─▶ the workspace's tests ─┬▶ whole ensembles, stock clients
///                                                                        └▶ clippy, docs, with what these leave
/// ```
pub fn run(options: &Options) -> Result<bool, Error> {
    let (length, filter) = (options.length(), options.filter.as_deref());
    let mut summary = Summary::default();
    let suites = Suites::prepare(options)?;
    if !options.reference && filter.is_some_and(|filter| CHECKS.iter().any(|(name, _)| *name == filter)) {
        run_checks(&mut summary, &CHECKS, filter, cargo)?;
        println!("\n{}", summary.text());
        return Ok(summary.good());
    }
    let workspace = !options.reference && filter.is_none_or(|filter| !filter.starts_with("stock_"));
    let (mut obstacle, mut program) = (None, None);
    if !options.reference {
        run_checks(&mut summary, &CHECKS[..1], filter, cargo)?;
        let mut row = Row::new("release build");
        program = run_release_build()?;
        row.step("build", program.is_some());
        obstacle = program.is_none().then_some("the release build failed");
        summary.keep(row);
    }
    let mut row = Row::new("test build");
    let programs = Programs::build(workspace, &suites.to_run())?;
    row.step("build", programs.is_some());
    summary.keep(row);
    if workspace && programs.is_some() {
        run_workspace(&mut summary, length, filter, program.as_deref())?;
    }
    // A guest keeps one processor busy, and its servers some of another: the longest checks take what is left.
    let (ran, checked) = thread::scope(|scope| {
        let ran = scope.spawn(|| suites.run(programs.as_ref(), program.as_deref(), obstacle));
        let checked = match options.reference {
            true => Ok(()),
            false => run_checks(&mut summary, &CHECKS[1..], filter, cargo_aside),
        };
        (ran.join(), checked)
    });
    checked?;
    summary.append(ran.unwrap_or_else(|panic| resume_unwind(panic))?);
    println!("\n{}", summary.text());
    Ok(summary.good())
}

/// The suites in one run: the tests that the options choose of each, those that they leave out, and what there is to run them.
struct Suites<'a> {
    options: &'a Options,
    choice: Vec<(&'static Suite, Vec<&'static str>, Vec<&'static str>)>,
    packages: Vec<&'static Package>,
    tools: Vec<&'static Tool>,
    source: bool,
}

impl<'a> Suites<'a> {
    /// Installs and fetches what the chosen ones need, where that is allowed.
    fn prepare(options: &'a Options) -> Result<Self, Error> {
        let choose = |suite: &'static Suite| {
            let (chosen, left_out) = suite.choose(options.length(), options.filter.as_deref());
            (suite, chosen, left_out)
        };
        let choice = SUITES.iter().map(choose).collect();
        let mut suites = Self { options, choice, packages: Vec::new(), tools: Vec::new(), source: true };
        let mut needs = suites.to_run();
        if options.reference {
            needs.push(packages::REFERENCE);
        }
        suites.packages = packages::ensure(&needs)?;
        suites.source = !needs.contains(&"stock_tree") || source::ensure()?;
        suites.tools = tools::ensure(&needs)?;
        Ok(suites)
    }

    /// The suites that have a test to run.
    fn to_run(&self) -> Vec<&'static str> {
        let chosen = self.choice.iter().filter(|(_, chosen, _)| !chosen.is_empty());
        chosen.map(|(suite, ..)| suite.name).collect()
    }

    /// Runs them one after another. `obstacle`: why none can run.
    fn run(
        &self,
        programs: Option<&Programs>,
        program: Option<&Path>,
        obstacle: Option<&str>,
    ) -> Result<Summary, Error> {
        let Self { options, choice, packages, tools, source } = self;
        let mut summary = Summary::default();
        for (suite, chosen, left_out) in choice.iter().filter(|(_, a, b)| !a.is_empty() || !b.is_empty()) {
            let mut row = Row::new(suite.name);
            let obstacle = obstacle.or(programs.is_none().then_some("the tests do not compile"));
            let obstacle = obstacle
                .map(str::to_owned)
                .or_else(|| stock::obstacle(suite, options.reference, packages, tools, *source));
            match (obstacle, programs) {
                (None, Some(programs)) if !chosen.is_empty() => {
                    suite.run(programs, chosen, &mut row, |command| {
                        environment(command, options.length(), program);
                        if options.reference {
                            command.env("SLICE_TEST_SERVER", "ganesha");
                        }
                    })?
                }
                (obstacle, _) => {
                    let reason = obstacle.unwrap_or_default();
                    chosen.iter().for_each(|test| row.add(test, Ending::Ignored(reason.clone())));
                }
            }
            let reason = format!("not in a {} run", options.length().name());
            left_out.iter().for_each(|test| row.add(test, Ending::Ignored(reason.clone())));
            summary.keep(row);
        }
        Ok(summary)
    }
}

fn run_checks(
    summary: &mut Summary,
    checks: &[Check],
    filter: Option<&str>,
    cargo: fn(&'static [&'static str]) -> Command,
) -> Result<(), Error> {
    for (name, arguments) in checks.iter().filter(|(name, _)| filter.is_none_or(|filter| filter == *name)) {
        let mut row = Row::new(name);
        row.step(name, command::run(cargo(arguments).env("RUSTDOCFLAGS", "-D warnings"))?);
        summary.keep(row);
    }
    Ok(())
}

/// Builds the program that is tested, and says where it is; `None` if it cannot be built. It is the static one that goes into
/// containers, so that it is built once and what is tested is what is shipped; where none can be linked, the usual one.
fn run_release_build() -> Result<Option<PathBuf>, Error> {
    let mut path = None;
    let mut build = Command::new(workspace().join("deploy/build"));
    if run_lines(&mut build, RELEASE_LIMIT, |line| path = Some(PathBuf::from(line)))? && path.is_some() {
        return Ok(path);
    }
    eprintln!("no static program can be built here: the usual one is tested");
    let built = command::run(&mut cargo(["build", "--quiet", "--release", "--package", "slice"]))?;
    Ok(built.then(|| target().join("release/slice")))
}

/// A release build takes minutes.
const RELEASE_LIMIT: Duration = Duration::from_secs(40 * 60);

/// What the test programs are told.
fn environment(command: &mut Command, length: Length, program: Option<&Path>) {
    command.env("SLICE_TEST_LENGTH", length.name());
    if let Some(program) = program {
        command.env("SLICE_BIN", program);
    }
}

/// All other tests of the workspace; in a full run, those that are marked as long too.
fn run_workspace(
    summary: &mut Summary,
    length: Length,
    filter: Option<&str>,
    program: Option<&Path>,
) -> Result<(), Error> {
    let mut row = Row::new("workspace tests");
    let mut command = cargo(["test", "--workspace", "--no-fail-fast"]);
    command.args(filter).args(["--", "--format=pretty"]);
    environment(&mut command, length, program);
    run_workspace_tests(&mut row, &mut command, length, |_, ending| {
        // Stock-client tests have rows of their own, and a full run comes back for the rest.
        matches!(ending, Ending::Ignored(reason) if length == Length::Full || stock::IGNORED_AS.iter().any(|mark| reason.starts_with(mark)))
    })?;
    if row.tests() > 0 {
        summary.keep(row);
    }
    if length == Length::Full {
        let mut row = Row::new("long workspace tests");
        let mut command = cargo(["test", "--workspace", "--no-fail-fast"]);
        command.args(filter).args(["--", "--format=pretty", "--ignored"]);
        command.args(stock::all_tests().flat_map(|test| ["--skip", test]));
        environment(&mut command, length, program);
        run_workspace_tests(&mut row, &mut command, length, |_, _| false)?;
        if row.tests() > 0 {
            summary.keep(row);
        }
    }
    Ok(())
}

fn run_workspace_tests(
    row: &mut Row,
    command: &mut Command,
    length: Length,
    leave_out: impl Fn(&str, &Ending) -> bool,
) -> Result<(), Error> {
    let good = run_lines(command, length.workspace_limit(), |line| match libtest::parse(line) {
        Some((name, ending)) if !leave_out(&name, &ending) => row.add(&name, ending),
        _ => {}
    })?;
    if !good && row.failures() == 0 {
        // It did not compile, or a program ended without saying which of its tests did it.
        row.step("cargo test", false);
    }
    Ok(())
}
