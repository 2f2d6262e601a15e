//! Calls to servers from futures: routed by site, again where the table was old (I4), until the right server answers.

use crate::front::{Front, Job};
use crate::reply::{Verdict, verdict};
use bytes::BytesMut;
use slice_proto::ids::{Epoch, Role, ServerId, Site, TableEpoch, Xid};
use slice_proto::nfs3::{NfsStat3, Proc3};
use slice_proto::peer::{self, PeerProc, PrivateStatus};
use slice_proto::rpc_msg::{
    AuthSys, Cred, OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, program, version,
};
use slice_proto::trailer::ResultTrailer;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::{CallError, Message};
use std::time::Duration;

/// How long a newer routing table is waited for before the same server is asked again: the table comes by an event,
/// this only bounds what a server with a table of its own can do to us.
const TABLE_WAIT: Duration = Duration::from_millis(250);

/// Why one try was not the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// To be routed again by a table of at least this epoch.
    WrongSite(TableEpoch),
    /// The file epoch is old.
    Fenced,
    /// The server cannot now; the client is to ask later.
    NotNow,
    /// It fails with this status.
    Failed(NfsStat3),
}

/// Why a call was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The file epoch is old: attributes must be fetched.
    Fenced,
    /// With this status.
    Status(NfsStat3),
}

// === impl Fault ===

impl Fault {
    /// Why a call has no reply; it was routed by a table of epoch `used`.
    #[must_use]
    pub fn of(error: CallError, used: TableEpoch) -> Self {
        match error {
            // The table has moved on, or soon will.
            CallError::Gone => Self::WrongSite(TableEpoch(used.0.saturating_add(1))),
            CallError::Refused(why) => {
                tracing::error!(why, "a server of the ensemble does not speak with us");
                Self::NotNow
            }
            CallError::Busy => Self::NotNow,
            CallError::Closed(_) => Self::Failed(NfsStat3::SERVERFAULT),
            CallError::Length(_) => Self::Failed(NfsStat3::INVAL),
        }
    }

    /// What a verdict asks for; `None` if the reply is good.
    #[must_use]
    pub fn of_verdict(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Answered => None,
            Verdict::WrongSite(epoch) => Some(Self::WrongSite(epoch)),
            Verdict::Fenced => Some(Self::Fenced),
            Verdict::NotNow => Some(Self::NotNow),
            Verdict::Broken => {
                tracing::error!("a server's reply has no result trailer, or is none");
                Some(Self::Failed(NfsStat3::SERVERFAULT))
            }
        }
    }
}

impl Refused {
    /// The status for the client. A fence that nobody retries is passed on as "later".
    pub const fn status(self) -> NfsStat3 {
        match self {
            Self::Fenced => NfsStat3::JUKEBOX,
            Self::Status(status) => status,
        }
    }
}

/// The first pause of a [`Fence`], and the longest.
const FENCE_PAUSE: Duration = Duration::from_millis(1);
const FENCE_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Tries of a fenced call before the client is told to come back later: about 30 s.
const FENCE_TRIES: u32 = 300;

/// Counts how often one call was fenced. While a truncate is under way its data sites refuse the old epoch, and its home
/// site tells the new one only when all of them have it: no event tells when.
#[derive(Debug, Default)]
pub(crate) struct Fence(u32);

impl Fence {
    /// To be awaited before attributes are fetched and the call is tried again; the first time at once.
    ///
    /// # Errors
    /// JUKEBOX if it was tried too often.
    pub(crate) async fn pause(&mut self) -> Result<(), NfsStat3> {
        self.0 += 1;
        match self.0 {
            1 => Ok(()),
            2..=FENCE_TRIES => {
                let pause = FENCE_PAUSE.saturating_mul(1 << self.0.min(16));
                tokio::time::sleep(pause.min(FENCE_PAUSE_MAX)).await;
                Ok(())
            }
            _ => Err(NfsStat3::JUKEBOX),
        }
    }
}

/// A data server's or directory server's reply to an NFS call of ours: the header checked, the trailer read.
pub(crate) struct Parts {
    /// Where the result begins in the head.
    pub body_at: usize,
    /// The reply, without its trailer.
    pub message: Message,
}

impl Front {
    /// The epoch of this thread's table, and the server that owns a site by it.
    pub(crate) fn owner(&self, role: Role, site: Site) -> (TableEpoch, Option<ServerId>) {
        self.with_table(|table| (table.epoch, table.owner(role, site)))
    }

    /// Calls the owner of a site until it answers as the owner. `make` makes the call for a table epoch, `read` reads
    /// the reply of the given server.
    ///
    /// # Errors
    /// [`Refused`] if it cannot be answered.
    pub(crate) async fn routed<T>(
        &self,
        role: Role,
        site: Site,
        make: impl Fn(TableEpoch) -> Message,
        read: impl Fn(Message, ServerId) -> Result<T, Fault>,
    ) -> Result<T, Refused> {
        loop {
            let (epoch, owner) = self.owner(role, site);
            let channel = owner.ok_or(CallError::Gone).and_then(|server| self.channels.get(server));
            let reply = match channel {
                Ok(channel) => (channel.call_split(make(epoch)).await).map(|reply| (reply, channel.server())),
                Err(error) => Err(error),
            };
            let fault = match reply {
                Ok((reply, server)) => match read(reply, server) {
                    Ok(answer) => return Ok(answer),
                    Err(fault) => fault,
                },
                Err(error) => Fault::of(error, epoch),
            };
            if fault == Fault::Fenced {
                return Err(Refused::Fenced);
            }
            self.overcome(fault, epoch).await.map_err(Refused::Status)?;
        }
    }

    /// Does what a fault asks for before the call is made again; it was routed by a table of epoch `used`.
    ///
    /// # Errors
    /// The status for the client if nothing can be done.
    pub(crate) async fn overcome(&self, fault: Fault, used: TableEpoch) -> Result<(), NfsStat3> {
        match fault {
            Fault::WrongSite(at_least) => {
                self.newer_table(used, at_least).await;
                Ok(())
            }
            Fault::Failed(status) => Err(status),
            Fault::NotNow | Fault::Fenced => Err(NfsStat3::JUKEBOX),
        }
    }

    /// Waits for a table newer than `used`, and at least `at_least`; but not for ever.
    pub(crate) async fn newer_table(&self, used: TableEpoch, at_least: TableEpoch) {
        let wanted = at_least.max(TableEpoch(used.0.saturating_add(1)));
        let mut tables = self.shared.tables.clone();
        let waited = async {
            if tables.at_least(wanted).await.is_none() {
                // Nobody brings tables any more: the process ends.
                std::future::pending::<()>().await;
            }
        };
        // Late is no error: the server is asked again.
        let _ = tokio::time::timeout(TABLE_WAIT, waited).await;
        self.refresh_table();
    }

    /// Makes an NFS call of our own: arguments, perhaps bulk data, trailer.
    pub(crate) fn nfs_call(
        &self,
        job: &Job,
        proc: Proc3,
        args: &impl Encode,
        bulk: bytes::Bytes,
        (table, epoch): (TableEpoch, Epoch),
    ) -> Message {
        let trailer = self.trailer(job, table, epoch);
        let head = self.make(|w| {
            // Permission was checked here: data servers and GETATTR need none.
            let auth = AuthSys { stamp: 0, machine: b"", cred: Cred::ROOT };
            encode_call(w, Xid(0), program::NFS, version::NFS3, proc as u32, &auth);
            args.encode(w);
            if bulk.is_empty() {
                trailer.append(w);
            }
        });
        if bulk.is_empty() {
            return head.into();
        }
        let tail = self.make(|w| {
            w.resize(slice_proto::xdr::padding(bulk.len()), 0);
            trailer.append(w);
        });
        Message { head, body: bulk, tail }
    }

    /// Makes a private call.
    pub(crate) fn peer_call(&self, proc: PeerProc, args: &impl Encode) -> Message {
        self.make(|w| {
            encode_call(w, Xid(0), peer::PROGRAM, peer::VERSION, proc as u32, &OpaqueAuth::NONE);
            args.encode(w);
        })
        .into()
    }
}

/// Reads the header and trailer of a data server's reply to an NFS call, and cuts the trailer off.
///
/// # Errors
/// A [`Fault`] for anything but a result with a status of NFSv3.
pub(crate) fn nfs_reply(mut message: Message) -> Result<Parts, Fault> {
    let body_at = cut_trailer(&mut message)?;
    Ok(Parts { body_at, message })
}

/// As [`nfs_reply`], in place; returns where the result begins in the head.
///
/// # Errors
/// A [`Fault`] for anything but a result with a status of NFSv3.
pub(crate) fn cut_trailer(message: &mut Message) -> Result<usize, Fault> {
    let broken = || {
        tracing::error!("a data server's reply has no result trailer, or is none");
        Fault::Failed(NfsStat3::SERVERFAULT)
    };
    let header = ReplyHeader::decode(&message.head).map_err(|_| broken())?;
    if header.status != ReplyStatus::Success {
        return Err(Fault::Failed(NfsStat3::SERVERFAULT));
    }
    // Data servers' trailers have no stamps; they stand wherever the message ends.
    if message.tail.is_empty() && !message.body.is_empty() {
        *message = Message::from(std::mem::take(message).into_record());
    }
    let last: &mut BytesMut = if message.tail.is_empty() { &mut message.head } else { &mut message.tail };
    let (len, table) =
        ResultTrailer::split(last).map(|(front, t)| (front.len(), t.table)).map_err(|_| broken())?;
    last.truncate(len);
    match Fault::of_verdict(verdict(&message.head, header.body_at, table)) {
        None => Ok(header.body_at),
        Some(fault) => Err(fault),
    }
}

/// Reads the result of a private call, and its status and table epoch with `about`.
///
/// # Errors
/// A [`Fault`] for anything but a result with a status of NFSv3.
pub(crate) fn peer_reply<T: for<'a> Decode<'a>>(
    message: Message,
    about: impl Fn(&T) -> (u32, TableEpoch),
) -> Result<T, Fault> {
    let record = message.into_record();
    let broken = |_| Fault::Failed(NfsStat3::SERVERFAULT);
    let header = ReplyHeader::decode(&record).map_err(broken)?;
    if header.status != ReplyStatus::Success {
        return Err(Fault::Failed(NfsStat3::SERVERFAULT));
    }
    let result = T::decode(&mut Reader::at(&record, header.body_at)).map_err(broken)?;
    let (status, table) = about(&result);
    match PrivateStatus::from_u32(status) {
        None => Ok(result),
        Some(PrivateStatus::WrongSite) => Err(Fault::WrongSite(table)),
        Some(PrivateStatus::Fenced) => Err(Fault::Fenced),
        Some(PrivateStatus::Retry | PrivateStatus::Unstamped) => Err(Fault::NotNow),
    }
}
