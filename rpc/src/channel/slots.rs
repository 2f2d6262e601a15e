//! The unanswered calls of a channel. Pure bookkeeping: it neither sends nor wakes.
//!
//! An xid is `sequence (16 bits) ‖ index (16 bits)`. A slot whose caller lost interest stays taken until its reply has
//! come or the connection is gone, so a late reply never meets another call.

use super::MAX_IN_FLIGHT;
use crate::error::CallError;
use crate::service::Message;
use bytes::{Bytes, BytesMut};
use slab::Slab;
use slice_metrics::Timing;
use slice_proto::ids::Xid;
use slice_proto::rpc_msg::patch_xid;
use std::task::Waker;

/// Times that a call is sent before it is believed to be what makes the server close the connection.
pub(super) const MAX_SENDS: u32 = 16;

/// The parts of a message: head, body, tail.
pub(super) type Parts = [Bytes; 3];

/// Who waits for a reply.
pub(super) enum Waiter {
    /// A future, to be woken once it has been polled.
    Future(Option<Waker>),
    /// The thread's sink, with this token.
    Sink(u64),
    /// Nobody any more.
    Nobody,
    /// A future, for which the reply is here.
    Replied(Result<Message, CallError>),
}

struct Slot {
    xid: Xid,
    /// Order in which calls were made, for sending again.
    order: u64,
    /// The message; empty for calls in this process.
    parts: Parts,
    sends: u32,
    waiter: Waiter,
    /// For counting, until it is answered.
    begun: Option<Begun>,
}

/// A call that is being measured.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) procedure: usize,
    pub(super) timing: Timing,
}

/// What is to be done with a reply.
pub(super) enum Delivery {
    /// Nothing: nobody waits for it.
    Nothing,
    /// Somebody is to be woken.
    Wake(Waker),
    /// To be given to the sink.
    Sink(u64, Result<Message, CallError>),
}

#[derive(Default)]
pub(super) struct Slots {
    slab: Slab<Slot>,
    made: u64,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Takes a slot for a call and writes its xid into the message. `sent` says whether it goes out at once.
    pub(super) fn insert(
        &mut self,
        message: Message,
        waiter: Waiter,
        sent: bool,
        begun: Option<Begun>,
    ) -> Result<(usize, &Parts), CallError> {
        if self.slab.len() >= MAX_IN_FLIGHT {
            return Err(CallError::Busy);
        }
        self.made += 1;
        let entry = self.slab.vacant_entry();
        let key = entry.key();
        let xid = Xid(((self.made as u32) << 16) | key as u32);
        let Message { mut head, body, tail } = message;
        patch_xid(&mut head, xid);
        let parts = [freeze(head), body, freeze(tail)];
        let slot = entry.insert(Slot { xid, order: self.made, parts, sends: u32::from(sent), waiter, begun });
        Ok((key, &slot.parts))
    }

    /// What is measured of the call in slot `key`, once.
    pub(super) fn begun(&mut self, key: usize) -> Option<Begun> {
        self.slab.get_mut(key)?.begun.take()
    }

    /// The slot of the call to which a reply with this xid belongs.
    pub(super) fn key_of(&self, xid: Xid) -> Option<usize> {
        let key = (xid.0 & 0xffff) as usize;
        self.slab.get(key).filter(|slot| slot.xid == xid).map(|_| key)
    }

    /// The call in slot `key` has come to its end.
    pub(super) fn settle(&mut self, key: usize, reply: Result<Message, CallError>) -> Delivery {
        let Some(slot) = self.slab.get_mut(key) else { return Delivery::Nothing };
        match &mut slot.waiter {
            Waiter::Future(waker) => {
                let waker = waker.take();
                slot.parts = Parts::default();
                slot.waiter = Waiter::Replied(reply);
                waker.map_or(Delivery::Nothing, Delivery::Wake)
            }
            Waiter::Sink(token) => {
                let token = *token;
                self.slab.remove(key);
                Delivery::Sink(token, reply)
            }
            Waiter::Nobody => {
                self.slab.remove(key);
                Delivery::Nothing
            }
            Waiter::Replied(_) => Delivery::Nothing,
        }
    }

    /// Asks for the reply to the call in slot `key` on behalf of its future, which `waker` wakes when it is there; frees
    /// the slot if it is. Returns the waker that was replaced: its end may have consequences, which must not meet
    /// borrowed slots.
    pub(super) fn poll(
        &mut self,
        key: usize,
        waker: &Waker,
    ) -> Result<Result<Message, CallError>, Option<Waker>> {
        let Some(slot) = self.slab.get_mut(key) else { return Ok(Err(CallError::Gone)) };
        if let Waiter::Future(old) = &mut slot.waiter {
            let same = old.as_ref().is_some_and(|w| w.will_wake(waker));
            return Err(if same { None } else { old.replace(waker.clone()) });
        }
        match self.slab.remove(key).waiter {
            Waiter::Replied(reply) => Ok(reply),
            // Only its own future asks for a slot.
            _ => Ok(Err(CallError::Gone)),
        }
    }

    /// The future of slot `key` is gone. Returns what is to be dropped.
    pub(super) fn forget(&mut self, key: usize) -> Option<Waiter> {
        let slot = self.slab.get_mut(key)?;
        if slot.sends == 0 || matches!(slot.waiter, Waiter::Replied(_)) {
            return Some(self.slab.remove(key).waiter);
        }
        slot.parts = Parts::default();
        Some(std::mem::replace(&mut slot.waiter, Waiter::Nobody))
    }

    /// Whether a reply is awaited: calls whose reply only waits to be fetched do not count.
    pub(super) fn awaits(&self) -> bool {
        self.slab.iter().any(|(_, slot)| !matches!(slot.waiter, Waiter::Replied(_)))
    }

    /// The connection is a new one: every unanswered call that somebody waits for is about to be sent (again), in the
    /// order in which they were made. Returns their keys, and the keys of those that were sent too often.
    pub(super) fn resend(&mut self) -> (Vec<usize>, Vec<usize>) {
        // No reply can come any more to what was sent on an earlier connection.
        self.slab.retain(|_, slot| !matches!(slot.waiter, Waiter::Nobody));
        let mut keys: Vec<(u64, usize)> = Vec::with_capacity(self.slab.len());
        let mut spent = Vec::new();
        for (key, slot) in &mut self.slab {
            if matches!(slot.waiter, Waiter::Replied(_)) {
                continue;
            }
            if slot.sends >= MAX_SENDS {
                spent.push(key);
            } else {
                slot.sends += 1;
                keys.push((slot.order, key));
            }
        }
        keys.sort_unstable();
        (keys.into_iter().map(|(_, key)| key).collect(), spent)
    }

    pub(super) fn parts(&self, key: usize) -> Option<&Parts> {
        self.slab.get(key).map(|slot| &slot.parts)
    }

    /// Keys of all unanswered calls.
    pub(super) fn unanswered(&self) -> Vec<usize> {
        self.slab
            .iter()
            .filter(|(_, s)| !matches!(s.waiter, Waiter::Replied(_)))
            .map(|(key, _)| key)
            .collect()
    }
}

/// Most messages have no tail: that costs nothing.
fn freeze(part: BytesMut) -> Bytes {
    if part.is_empty() { Bytes::new() } else { part.freeze() }
}
