//! Records before and after an operation.

use super::unfinished::Changed;
use crate::bucket::Bucket;
use crate::records::{AttrRec, Purge};
use crate::state::cache::{AttrCell, NamesCell};
use slice_proto::ids::{FileId, Site};
use std::sync::Arc;

/// What becomes of a record.
pub(super) enum Staged {
    Same,
    New(AttrRec),
    Goes(Option<Purge>),
}

/// An attribute record before and after.
pub(super) struct Image {
    pub(super) file: FileId,
    /// Whether it is ours, and so ours to write.
    pub(super) here: bool,
    pub(super) before: Option<Arc<AttrCell>>,
    pub(super) after: Staged,
}

/// The names of one hash before and after.
pub(super) struct Names {
    pub(super) site: Site,
    pub(super) dir: FileId,
    pub(super) hash47: u64,
    pub(super) here: bool,
    pub(super) before: Arc<NamesCell>,
    pub(super) after: Option<Bucket>,
}

// === impl Names ===

impl Names {
    pub(super) const fn record(&self) -> Changed {
        Changed { file: self.dir, names: Some(self.hash47) }
    }
}

// === impl Image ===

impl Image {
    pub(super) const fn record(&self) -> Changed {
        Changed { file: self.file, names: None }
    }

    /// The record as it will be.
    pub(super) fn now(&self) -> Option<&AttrRec> {
        match &self.after {
            Staged::Same => self.before.as_ref().map(|c| &c.rec),
            Staged::New(rec) => Some(rec),
            Staged::Goes(_) => None,
        }
    }
}
