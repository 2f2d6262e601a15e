//! What an operation with parts at peers holds.

use super::journal::key_of;
use crate::bucket::Bucket;
use crate::records::AttrRec;
use crate::state::cache::{AttrCell, NamesCell};
use bytes::Bytes;
use slice_proto::ids::{FileId, ServerId};
use slice_proto::peer::dir::{Effect, HoldKey, HoldPart, OpId};
use slice_store::Ticket;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A record as a peer showed it.
#[derive(Debug)]
enum Shown {
    Attr(Option<Arc<AttrCell>>),
    Names(Arc<NamesCell>),
    /// It is only held, not read; or it is ours.
    Nothing,
}

/// The holds of one operation, ours and at peers.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) op: OpId,
    keys: BTreeMap<HoldKey, (Option<ServerId>, Shown)>,
    peeks: HashMap<FileId, Option<Arc<AttrCell>>>,
    /// Whether all that was shown is durable at those who showed it.
    pub(crate) durable: bool,
}

fn attr_cell(key: &HoldKey, record: Option<&Bytes>) -> Result<Option<Arc<AttrCell>>, crate::error::Error> {
    let decode = |bytes| AttrRec::decode(&key.file.0.to_be_bytes(), bytes);
    let rec = record.map(decode).transpose()?;
    // The peer sees to it that its part is durable before it says so.
    Ok(rec.map(|rec| Arc::new(AttrCell { rec, ticket: Ticket::default() })))
}

// === impl Held ===

impl Held {
    pub(crate) fn new(op: OpId) -> Self {
        Self { op, keys: BTreeMap::new(), peeks: HashMap::new(), durable: true }
    }

    /// A record of ours is locked for the operation.
    pub(crate) fn here(&mut self, key: HoldKey) {
        self.keys.insert(key, (None, Shown::Nothing));
    }

    /// A peer holds a record for the operation, and has shown it.
    ///
    /// # Errors
    /// [`crate::error::Error::BadRecord`] if it cannot be read.
    pub(crate) fn there(
        &mut self,
        server: ServerId,
        key: HoldKey,
        record: Option<&Bytes>,
        durable: bool,
    ) -> Result<(), crate::error::Error> {
        let shown = match key.part {
            HoldPart::Attr => Shown::Attr(attr_cell(&key, record)?),
            HoldPart::Names(_) => {
                let bucket = Bucket::decode(&key.file.0.to_be_bytes(), record.cloned().unwrap_or_default())?;
                Shown::Names(Arc::new(NamesCell { bucket, ticket: Ticket::default() }))
            }
            HoldPart::Right => Shown::Nothing,
        };
        self.durable &= durable;
        self.keys.insert(key, (Some(server), shown));
        Ok(())
    }

    /// A peer has shown a record that it does not hold.
    ///
    /// # Errors
    /// [`crate::error::Error::BadRecord`] if it cannot be read.
    pub(crate) fn peeked(&mut self, key: HoldKey, record: Option<&Bytes>) -> Result<(), crate::error::Error> {
        self.peeks.insert(key.file, attr_cell(&key, record)?);
        Ok(())
    }

    /// Whether everything held comes before `key` in the order in which holds are asked for.
    pub(crate) fn in_order(&self, key: &HoldKey) -> bool {
        self.keys.last_key_value().is_none_or(|(last, _)| last <= key)
    }

    /// Everything held, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&HoldKey, Option<ServerId>)> {
        self.keys.iter().map(|(key, (server, _))| (key, *server))
    }

    pub(crate) fn has(&self, key: &HoldKey) -> bool {
        self.keys.contains_key(key)
    }

    /// Whether a peer holds for the operation what this effect changes there: nobody else is waited for.
    pub(crate) fn has_there(&self, server: ServerId, effect: &Effect) -> bool {
        // The id of what is made was given to the operation, and is held for it since.
        let made = matches!(effect, Effect::Make { .. });
        made || self.keys.get(&key_of(effect)).is_some_and(|(holder, _)| *holder == Some(server))
    }

    pub(crate) fn attr(&self, key: &HoldKey) -> Option<Option<Arc<AttrCell>>> {
        match self.keys.get(key)? {
            (_, Shown::Attr(cell)) => Some(cell.clone()),
            _ => None,
        }
    }

    pub(crate) fn names(&self, key: &HoldKey) -> Option<Arc<NamesCell>> {
        match self.keys.get(key)? {
            (_, Shown::Names(cell)) => Some(Arc::clone(cell)),
            _ => None,
        }
    }

    pub(crate) fn peek(&self, file: FileId) -> Option<Option<Arc<AttrCell>>> {
        self.peeks.get(&file).cloned()
    }
}
