//! What a run leaves: JSON, version 1. A reader refuses a newer version; fields are only added within one.
//! Times are in the unit that the field's name ends with; `mib` is 2^20 bytes.

use crate::Error;
use crate::machine::Machine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version that this program writes.
pub const VERSION: u32 = 1;

/// One run of one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`VERSION`].
    pub version: u32,
    /// What was measured, in the user's words (`--label`) or by its configuration.
    pub label: String,
    /// Seconds since 1970 when it began.
    pub began_s: u64,
    /// False if it was stopped before its end, so that figures are missing.
    pub complete: bool,
    /// Whether times or files were shortened against the workload's full size.
    pub quick: bool,
    /// Seed of everything drawn.
    pub seed: u64,
    /// The machine that made the load.
    pub machine: Machine,
    /// The servers, as far as they are known.
    pub servers: Layout,
    /// Settings of the workload, by the flags' names.
    pub settings: BTreeMap<String, String>,
    /// What a reader must know to understand the figures.
    pub notes: Vec<String>,
    /// Replies that were wrong.
    pub mistakes: Mistakes,
    /// The figures.
    pub figures: Figures,
}

/// The servers of an ensemble.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Name policy; none for a server that is not ours.
    pub policy: Option<String>,
    /// Whether each server is a process of its own.
    pub separate: bool,
    /// How many there are of each role.
    pub count: BTreeMap<String, u32>,
}

/// Wrong replies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistakes {
    /// How many.
    pub total: u64,
    /// What they were: the first kinds only.
    pub kinds: Vec<Mistake>,
}

/// A kind of wrong reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// The procedure.
    pub proc: String,
    /// What was wrong.
    pub what: String,
    /// How often.
    pub times: u64,
}

/// Latencies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Calls of one procedure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcLine {
    /// The procedure.
    pub proc: String,
    /// Calls answered.
    pub calls: u64,
    /// Calls answered a second.
    pub per_s: f64,
    /// How long they took.
    pub latency: Latency,
}

/// CPU time of one server process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerCpu {
    /// `dirserver-0`; all roles of one process together are `all`.
    pub server: String,
    /// User and system time for each call that the clients made, in µs.
    pub us_per_op: f64,
}

/// One load of the `sfs` workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadPoint {
    /// Operations a second that were offered.
    pub offered: f64,
    /// Operations a second that were answered rightly.
    pub delivered: f64,
    /// From when a request was due to its reply.
    pub latency: Latency,
    /// 99th percentile of how late the generator itself sent, in µs.
    pub late_p99_us: f64,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Files there were, and how many of them were accessed.
    pub files: u64,
    /// Files to which requests went.
    pub accessed: u64,
    /// MiB that the files began with.
    pub mib: f64,
    /// By procedure.
    pub procs: Vec<ProcLine>,
    /// CPU time of each server.
    pub cpu: Vec<ServerCpu>,
    /// CPU time of the generator for each call, in µs.
    pub load_us_per_op: f64,
}

/// One number of clients of the `untar` and `affinity` workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UntarRow {
    /// Name policy; none for a server that is not ours.
    pub policy: Option<String>,
    /// Probability with which a new directory stays with its parent, under mkdir switching.
    pub affinity: Option<f64>,
    /// Directory servers; 0 if not known.
    pub dirservers: u32,
    /// Clients that unpacked at once, each a tree of its own.
    pub clients: u32,
    /// Seconds a client took: the mean.
    pub mean_s: f64,
    /// Seconds until the last one had ended.
    pub all_s: f64,
    /// Calls a second of all of them.
    pub per_s: f64,
    /// How long calls took.
    pub latency: Latency,
    /// CPU time of each server.
    pub cpu: Vec<ServerCpu>,
}

/// One number of storage nodes of the `bulk` workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BulkRow {
    /// Block storage nodes; 0 if not known.
    pub nodes: u32,
    /// MiB a second written, COMMIT included.
    pub write_mib_s: f64,
    /// MiB a second read.
    pub read_mib_s: f64,
    /// CPU µs a MiB of each server, writing.
    pub write_cpu: Vec<ServerCpu>,
    /// CPU µs a MiB of each server, reading.
    pub read_cpu: Vec<ServerCpu>,
}

/// One procedure of the `single` workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SingleRow {
    /// The procedure and its rate and latency.
    #[serde(flatten)]
    pub line: ProcLine,
    /// CPU time of each server.
    pub cpu: Vec<ServerCpu>,
}

/// The figures of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "workload", rename_all = "lowercase")]
pub enum Figures {
    /// SPECsfs-like mix.
    Sfs {
        /// The loads, ascending.
        points: Vec<LoadPoint>,
        /// Most operations a second delivered.
        peak: Option<f64>,
        /// Overall response time, in ms.
        ort_ms: Option<f64>,
    },
    /// Source trees unpacked.
    Untar {
        /// A row for each policy and number of clients.
        rows: Vec<UntarRow>,
    },
    /// The same under mkdir switching.
    Affinity {
        /// A row for each affinity and number of clients.
        rows: Vec<UntarRow>,
    },
    /// Sequential writing and reading.
    Bulk {
        /// A row for each number of nodes.
        rows: Vec<BulkRow>,
    },
    /// Each procedure alone.
    Single {
        /// A row for each procedure.
        rows: Vec<SingleRow>,
    },
}

// === impl Figures ===

impl Figures {
    /// The workload's name.
    #[must_use]
    pub const fn workload(&self) -> &'static str {
        match self {
            Self::Sfs { .. } => "sfs",
            Self::Untar { .. } => "untar",
            Self::Affinity { .. } => "affinity",
            Self::Bulk { .. } => "bulk",
            Self::Single { .. } => "single",
        }
    }
}

// === impl RunResult ===

impl RunResult {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, is no result, or is a newer program's.
    pub fn read(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let fail = |why: String| Error::File { path: path.display().to_string().into(), why: why.into() };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let head: Head = serde_json::from_str(&text).map_err(|e| fail(format!("is no result: {e}")))?;
        if head.version > VERSION {
            return Err(fail(format!("has version {}: a newer program reads it", head.version)));
        }
        serde_json::from_str(&text).map_err(|e| fail(format!("is no result: {e}")))
    }

    /// Writes it to a file, all or nothing.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(|e| file_error(path, &e))?;
        replace(path, &format!("{text}\n"))
    }
}

fn file_error(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::File { path: path.display().to_string().into(), why: why.to_string().into() }
}

/// Puts a text at `path`, all or nothing.
///
/// # Errors
/// [`Error::File`].
pub fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    std::fs::write(&aside, text)
        .and_then(|()| std::fs::rename(&aside, path))
        .map_err(|e| file_error(path, &e))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A result without figures.
    pub fn empty(label: &str, figures: Figures) -> RunResult {
        RunResult {
            version: VERSION,
            label: label.to_owned(),
            began_s: 1_000_000_000,
            complete: true,
            quick: false,
            seed: 1,
            machine: Machine::default(),
            servers: Layout::default(),
            settings: BTreeMap::new(),
            notes: Vec::new(),
            mistakes: Mistakes::default(),
            figures,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let point = LoadPoint {
            offered: 10.0,
            delivered: 9.5,
            latency: Latency::default(),
            late_p99_us: 3.0,
            seconds: 2.0,
            files: 7,
            accessed: 1,
            mib: 0.5,
            procs: vec![],
            cpu: vec![ServerCpu { server: "dirserver-0".into(), us_per_op: 1.5 }],
            load_us_per_op: 2.0,
        };
        let result = empty("a", Figures::Sfs { points: vec![point], peak: Some(9.5), ort_ms: None });
        result.write(&path).unwrap();
        assert_eq!(RunResult::read(&path).unwrap(), result);

        let text = std::fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 2");
        std::fs::write(&path, text).unwrap();
        assert!(RunResult::read(&path).unwrap_err().to_string().contains("a newer program reads it"));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(RunResult::read(&path), Err(Error::File { .. })));
    }
}
