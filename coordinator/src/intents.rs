//! Intentions (DESIGN §9) as a pure state machine: `(state, event) -> commands`. The shell does the log, the clock and
//! the calls.
//!
//! ```text
//!   Log ──▶ open, owned by who logged it ──Complete──▶ gone
//!              │ older than the take-over age
//!              ▼
//!           taken over: the coordinator rolls it forward ──TookOver──▶ gone
//!              │ Failed
//!              └──▶ tried again later
//! ```
//!
//! Taking over harms nobody: PURGE and TRUNCATE act only once per epoch, so an owner that is only slow does the same
//! again without effect, and its COMPLETE names an id that is gone.

use slice_proto::ids::{Epoch, FileId, IntentionId};
use slice_proto::peer::intent::{Intent, IntentKind};
use std::collections::{BTreeMap, HashMap};

/// Most intentions that may be open: each is a file being removed or cut. Bounds memory (some 100 bytes each) and what
/// one segment of the log must hold when they are carried forward (100 bytes each, 6.5 MiB of 16).
pub const MAX_OPEN: usize = 1 << 16;
/// Most intentions that are being taken over at a time, so that a restart with many does not flood the data servers.
pub const MAX_TAKE_OVERS: usize = 64;
/// How long a take-over that failed rests, in nanoseconds: the usual reason is a server that is being restarted.
pub const RETRY_NS: u64 = 5 * 1_000_000_000;

/// The open intentions.
#[derive(Debug, Default)]
pub struct Intents {
    open: BTreeMap<IntentionId, Open>,
    by_key: HashMap<Key, IntentionId>,
    /// Take-overs under way.
    running: usize,
}

type Key = (IntentKind, FileId, Epoch);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    intent: Intent,
    logged_ns: u64,
    /// The log record that holds it.
    record: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Somebody else drives it; from this time on it is taken over.
    Due(u64),
    /// We are rolling it forward.
    Running,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// INTENT_LOG came. If a record is appended, it will have this sequence.
    Log {
        /// The intention.
        intent: Intent,
        /// Now.
        now_ns: u64,
        /// The log's next sequence.
        next: u64,
    },
    /// INTENT_COMPLETE came.
    Complete(Vec<IntentionId>),
    /// Time has passed.
    Tick {
        /// Now.
        now_ns: u64,
    },
    /// A take-over has rolled the intention forward everywhere.
    TookOver(IntentionId),
    /// A take-over could not reach every site.
    Failed {
        /// Which.
        id: IntentionId,
        /// Now.
        now_ns: u64,
    },
    /// Records below this sequence are to be appended anew; the first will have sequence `next`.
    Carry {
        /// Carried if its record is below.
        below: u64,
        /// The log's next sequence.
        next: u64,
    },
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Append to the log.
    Append(Entry),
    /// Answer INTENT_LOG with this id once the log is durable up to this sequence.
    Answer {
        /// The intention's id.
        id: IntentionId,
        /// The sequence to wait for.
        record: u64,
    },
    /// Refuse INTENT_LOG.
    Refuse(Refusal),
    /// Roll it forward.
    TakeOver(IntentionId, Intent),
}

/// Why an intention is not logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many are open: the caller should try again later.
    Full,
    /// Nobody would roll this kind on: mirrors and moves come later.
    Kind,
}

/// What stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An intention is open.
    Logged {
        /// Its id: the sequence of its first record.
        id: IntentionId,
        /// When it was first logged, ns since 1970.
        logged_ns: u64,
        /// The intention.
        intent: Intent,
    },
    /// These are complete.
    Completed(Vec<IntentionId>),
}

impl Intents {
    /// Takes up what the log holds, record by record.
    pub fn recover(&mut self, sequence: u64, entry: Entry, now_ns: u64) {
        match entry {
            Entry::Logged { id, logged_ns, intent } => {
                self.by_key.insert(key(&intent), id);
                // The clock was set back since: it is no younger for that.
                let logged_ns = logged_ns.min(now_ns);
                // Its owner may have died with us: it is due at once by its age.
                self.open
                    .insert(id, Open { intent, logged_ns, record: sequence, state: State::Due(logged_ns) });
            }
            Entry::Completed(ids) => ids.iter().for_each(|id| self.remove(*id)),
        }
    }

    /// What to do about an event. `age_ns` is how old an intention must be to be taken over.
    pub fn on(&mut self, event: Event, age_ns: u64) -> Vec<Command> {
        match event {
            Event::Log { intent, now_ns, next } => self.log(intent, now_ns, next, age_ns),
            Event::Complete(ids) => self.complete(ids),
            Event::TookOver(id) => {
                self.running = self.running.saturating_sub(1);
                self.complete(vec![id])
            }
            Event::Failed { id, now_ns } => {
                self.running = self.running.saturating_sub(1);
                if let Some(open) = self.open.get_mut(&id) {
                    open.state = State::Due(now_ns.saturating_add(RETRY_NS));
                }
                Vec::new()
            }
            Event::Tick { now_ns } => self.take_over(now_ns),
            Event::Carry { below, next } => self.carry(below, next),
        }
    }

    fn log(&mut self, intent: Intent, now_ns: u64, next: u64, age_ns: u64) -> Vec<Command> {
        if !matches!(intent.kind, IntentKind::Remove | IntentKind::Truncate) {
            return vec![Command::Refuse(Refusal::Kind)];
        }
        if let Some((id, open)) = self.by_key.get(&key(&intent)).and_then(|id| self.open.get_key_value(id)) {
            return vec![Command::Answer { id: *id, record: open.record }];
        }
        if self.open.len() >= MAX_OPEN {
            return vec![Command::Refuse(Refusal::Full)];
        }
        let id = IntentionId(next);
        self.by_key.insert(key(&intent), id);
        let state = State::Due(now_ns.saturating_add(age_ns));
        self.open.insert(id, Open { intent: intent.clone(), logged_ns: now_ns, record: next, state });
        vec![
            Command::Append(Entry::Logged { id, logged_ns: now_ns, intent }),
            Command::Answer { id, record: next },
        ]
    }

    fn complete(&mut self, mut ids: Vec<IntentionId>) -> Vec<Command> {
        ids.retain(|id| self.open.contains_key(id));
        if ids.is_empty() {
            return Vec::new();
        }
        ids.iter().for_each(|id| self.remove(*id));
        vec![Command::Append(Entry::Completed(ids))]
    }

    fn remove(&mut self, id: IntentionId) {
        if let Some(open) = self.open.remove(&id) {
            self.by_key.remove(&key(&open.intent));
        }
    }

    fn take_over(&mut self, now_ns: u64) -> Vec<Command> {
        let room = MAX_TAKE_OVERS.saturating_sub(self.running);
        let is_due = |o: &Open| matches!(o.state, State::Due(at) if at <= now_ns);
        let due = self.open.iter_mut().filter(|(_, o)| is_due(o)).take(room);
        let commands: Vec<_> = due
            .map(|(id, open)| {
                open.state = State::Running;
                Command::TakeOver(*id, open.intent.clone())
            })
            .collect();
        self.running += commands.len();
        commands
    }

    fn carry(&mut self, below: u64, next: u64) -> Vec<Command> {
        let old = self.open.iter_mut().filter(|(_, o)| o.record < below);
        (next..)
            .zip(old)
            .map(|(record, (id, open))| {
                open.record = record;
                Command::Append(Entry::Logged {
                    id: *id,
                    logged_ns: open.logged_ns,
                    intent: open.intent.clone(),
                })
            })
            .collect()
    }

    /// When [`Event::Tick`] has something to do next, ns since 1970. `None` if nothing is due or everything that may
    /// run runs.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        if self.running >= MAX_TAKE_OVERS {
            return None;
        }
        let due = |o: &Open| match o.state {
            State::Due(at) => Some(at),
            State::Running => None,
        };
        self.open.values().filter_map(due).min()
    }

    /// Number of open intentions.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// When the oldest open intention was logged, ns since 1970.
    #[must_use]
    pub fn oldest_ns(&self) -> Option<u64> {
        self.open.values().map(|o| o.logged_ns).min()
    }

    /// Number of open intentions that were logged before this time, ns since 1970.
    #[must_use]
    pub fn older_than(&self, ns: u64) -> usize {
        self.open.values().filter(|o| o.logged_ns < ns).count()
    }

    /// The first log record that is still needed.
    #[must_use]
    pub fn first_record(&self) -> Option<u64> {
        self.open.values().map(|o| o.record).min()
    }
}

const fn key(intent: &Intent) -> Key {
    (intent.kind, intent.file, intent.epoch)
}

#[cfg(test)]
mod tests;
