//! The fast path: the client's own record to the server that owns the site, and the reply back, by a token: no future,
//! no task, no allocation per request. What does not go well the first time goes on in a future (I4).

use crate::front::{Front, Job, in_turn, target_file};
use crate::measured::At;
use crate::read::role_of;
use crate::reply::settle;
use crate::single::Sent;
use crate::upstream::Fault;
use bytes::BytesMut;
use slice_metrics::{Phase, Phases};
use slice_proto::ids::{Epoch, Role, Site, TableEpoch};
use slice_proto::placement::Part;
use slice_proto::procedures::status_of;
use slice_proto::trailer::{CALL_TRAILER_LEN, CallTrailer};
use slice_rpc::{CallError, Connection, Handled, Message, ReplySink};
use std::rc::{Rc, Weak};

/// Where a forwarded call went, and what its reply needs.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// To the directory server of this site.
    Dir(Site),
    /// A READ of one part.
    Read(Part),
    /// A WRITE of one part.
    Write(Sent),
}

impl Way {
    const fn site(&self) -> (Role, Site) {
        match self {
            Self::Dir(site) => (Role::Dir, *site),
            Self::Read(part) => role_of(part.site),
            Self::Write(sent) => role_of(sent.site()),
        }
    }
}

/// A forwarded call that is unanswered.
pub struct Forwarded {
    connection: Connection,
    way: Way,
    /// Its record is kept: it may have to go elsewhere. It pins the read chunk that it was cut from, no more.
    job: Job,
}

impl Front {
    /// Forwards a call to the server of a site, under a file epoch where that is a data server. The answer goes to
    /// `connection`, or (directory servers only) into a future where there is none.
    pub(crate) fn forward(
        &self,
        way: Way,
        mut job: Job,
        connection: Option<&Connection>,
        epoch: Epoch,
    ) -> Handled {
        let Some(connection) = connection else {
            let Some(front) = self.rc() else { return Handled::Close };
            return Handled::Later(in_turn(job.turn.take(), job.proc, front.do_again(way, job, None)));
        };
        let mut trace = job.at.trace;
        let (role, site) = way.site();
        let (table, owner) = self.owner(role, site);
        self.phases.lap(&mut trace, if matches!(way, Way::Dir(_)) { Phase::Route } else { Phase::SoftState });
        let message = match way {
            Way::Dir(_) => self.forwarded_record(&job, table),
            Way::Read(_) | Way::Write(_) => self.forwarded_data(&job, table, epoch),
        };
        self.phases.lap(&mut trace, Phase::Rewrite);
        let forwarded = Forwarded { connection: connection.clone(), way, job };
        let channel = owner.ok_or(CallError::Gone).and_then(|server| self.channels.get(server));
        match channel {
            Ok(channel) => {
                let token = self.forwarded.borrow_mut().insert(forwarded) as u64;
                // A server in this process may answer before this returns: nothing is borrowed here.
                channel.forward(message, token);
            }
            Err(error) => self.go_on(forwarded, Fault::of(error, table)),
        }
        Handled::Detached
    }

    /// The client's record with the call trailer behind it.
    pub(crate) fn forwarded_record(&self, job: &Job, table: TableEpoch) -> Message {
        let trailer = self.trailer(job, table, Epoch(0));
        self.make(|w| {
            w.reserve(job.record.len() + CALL_TRAILER_LEN);
            w.extend_from_slice(&job.record);
            trailer.append(w);
        })
        .into()
    }

    /// The call trailer of a call made for this job.
    pub(crate) const fn trailer(&self, job: &Job, table: TableEpoch, epoch: Epoch) -> CallTrailer {
        CallTrailer { client: job.client, xid: job.xid, flags: 0, table, epoch }
    }

    /// Takes the reply to a forwarded call.
    fn answered(&self, token: u64, reply: Result<Message, CallError>) {
        // A token is a key that we gave.
        let Some(mut forwarded) = self.forwarded.borrow_mut().try_remove(token as usize) else { return };
        self.note_held();
        let Forwarded { way, job, .. } = &forwarded;
        let mut trace = self.phases.request();
        let mut reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                let used = self.with_table(|t| t.epoch);
                return self.go_on(forwarded, Fault::of(error, used));
            }
        };
        let finished = match way {
            Way::Dir(_) => {
                let verdict = settle(&mut self.soft.borrow_mut(), job.proc, job.xid, &mut reply, self);
                Fault::of_verdict(verdict).map_or(Ok(()), Err)
            }
            Way::Read(part) => self.finish_read(job, *part, &mut reply),
            Way::Write(sent) => {
                self.finish_write(job, sent, std::mem::take(&mut reply)).map(|done| reply = done)
            }
        };
        match finished {
            Ok(()) => {
                self.phases.lap(&mut trace, Phase::SoftState);
                self.calls.later(job.at.number, job.at.timing, status_of(job.at.number, &reply.head));
                let Forwarded { connection, job, .. } = &mut forwarded;
                if let Some(turn) = job.turn.take() {
                    turn.answered(job.proc, &reply);
                }
                connection.answer(&mut reply);
            }
            Err(fault) => self.go_on(forwarded, fault),
        }
    }

    /// Goes on with a call that was not answered well, in a task of its own.
    fn go_on(&self, forwarded: Forwarded, fault: Fault) {
        let Some(front) = self.rc() else { return forwarded.connection.forget() };
        let Forwarded { connection, way, mut job } = forwarded;
        let At { number, timing, .. } = job.at;
        tokio::task::spawn_local(async move {
            let again = Rc::clone(&front);
            let reply = in_turn(job.turn.take(), job.proc, again.do_again(way, job, Some(fault))).await;
            front.calls.later(number, timing, status_of(number, &reply.head));
            connection.reply(reply);
        });
    }

    async fn do_again(self: Rc<Self>, way: Way, job: Job, fault: Option<Fault>) -> Message {
        if fault == Some(Fault::Fenced)
            && let Some(file) = target_file(&job.target)
        {
            self.soft.borrow_mut().update(file.file, |state| state.expire());
        }
        match way {
            Way::Dir(site) => self.forward_slowly(site, &job, fault).await,
            // They find out for themselves what was in the way.
            Way::Read(_) => self.read(job).await,
            Way::Write(_) => self.write(job).await,
        }
    }

    /// Forwards a call until it is answered by the right server. `fault` is what became of the first try.
    pub(crate) async fn forward_slowly(&self, site: Site, job: &Job, fault: Option<Fault>) -> Message {
        if let Some(fault) = fault
            && let Err(status) = self.overcome(fault, self.table().epoch).await
        {
            return self.fail(job.xid, job.proc, status);
        }
        let answer = self
            .routed(
                Role::Dir,
                site,
                |table| self.forwarded_record(job, table),
                |mut reply, _| {
                    let verdict = settle(&mut self.soft.borrow_mut(), job.proc, job.xid, &mut reply, self);
                    Fault::of_verdict(verdict).map_or(Ok(reply), Err)
                },
            )
            .await;
        answer.unwrap_or_else(|refused| self.fail(job.xid, job.proc, refused.status()))
    }

    /// A record that its sender may change without touching the client's.
    pub(crate) fn copy(&self, record: &[u8]) -> BytesMut {
        self.make(|w| w.extend_from_slice(record))
    }
}

/// Where the thread's channels bring replies to forwarded calls.
pub(crate) struct Sink(pub Weak<Front>);

impl ReplySink for Sink {
    fn on_reply(&self, token: u64, reply: Result<BytesMut, CallError>) {
        self.on_message(token, reply.map(Message::from));
    }

    fn on_message(&self, token: u64, reply: Result<Message, CallError>) {
        if let Some(front) = self.0.upgrade() {
            front.answered(token, reply);
        }
    }

    fn phases(&self) -> Option<Rc<Phases>> {
        self.0.upgrade().map(|front| Rc::clone(&front.phases))
    }
}
