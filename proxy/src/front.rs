//! One thread's µproxy: what happens to a client's record.
//!
//! ```text
//!  client's record
//!    │ classify      procedure, handle (MAC checked), name, extent, in place        classify.rs   pure
//!    │ route         (call, routing table, export rule) ─▶ plan                     route.rs      pure
//!    │ squash        credential rewritten in place                                  squash.rs
//!    ├─ Local ──────▶ NULL FSINFO PATHCONF FSSTAT, MOUNT, portmap: answered here    local.rs mount.rs portmapper.rs
//!    ├─ Forward ────▶ record ‖ call trailer ─▶ channel (token) ─▶ … ─▶ settle ─▶ connection      forward.rs reply.rs
//!    │                no future, no task: the reply finds its way by the token
//!    ├─ Search ─────▶ LOOKUP: search permission first, then as Forward              search.rs
//!    ├─ Setattr ────▶ what is not pushed of the file first, then as Forward         setattr.rs
//!    ├─ Merge ──────▶ every directory server ─▶ one listing                         readdir.rs    listing.rs pure
//!    ├─ one part ───▶ as Forward, to its data server                                single.rs
//!    ├─ Read ───────▶ parts side by side ─▶ holes, ends ─▶ one reply                read.rs       merge.rs pure
//!    ├─ Write ──────▶ permission, reach ─▶ parts, EXTEND, PUSH side by side         write.rs      merge.rs pure
//!    └─ Commit ─────▶ data servers with uncommitted bytes, PUSH beside              commit.rs     verifier.rs pure
//!
//!  every attribute that passes through ─▶ soft state ─▶ patched where it is ahead   reply.rs      soft/ pure
//!  WrongSite ─▶ wait for a newer table, route again     Fenced ─▶ GETATTR, again    upstream.rs
//! ```
//!
//! A client's connections all live on one thread (chosen by its address), and so does the soft state of the files that
//! it uses. Nothing rests on that but speed: COMMIT without a record of uncommitted bytes goes everywhere they can be.

use crate::classify::{Call, Target, What, classify, mutates};
use crate::config::Rule;
use crate::copies::{Begin, Copies, Key, Turn};
use crate::forward::{Forwarded, Way};
use crate::local;
use crate::measured::{At, tell};
use crate::portmapper::Asked;
use crate::reply::{Now, put_failure};
use crate::route::{Plan, route};
use crate::shared::Shared;
use crate::soft::Soft;
use crate::squash::squash;
use crate::stats::Held;
use crate::verifier::{Seen, owner_changed};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use slab::Slab;
use slice_metrics::{Calls, Phase, Phases};
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{Epoch, Role, ServerId, TableEpoch, Xid};
use slice_proto::nfs3::{NfsStat3, Proc3, Verifier, access};
use slice_proto::procedures::MOUNT;
use slice_proto::rpc_msg::{Cred, ReplyStatus, auth_flavor, auth_stat, encode_reply, encode_success};
use slice_proto::table::RoutingTable;
use slice_proto::trailer::ClientId;
use slice_rpc::clock::Clock;
use slice_rpc::{Channels, Connection, Handled, LocalService, Message, Peer};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Clients whose export rules one thread remembers.
const MAX_RULES: usize = 1024;

/// Room that the arena always has for one more message head; larger ones make it grow.
const ARENA: usize = 64 << 10;
const ARENA_MIN: usize = 2 << 10;

/// An NFSv3 call on its way, with all that answering it takes.
pub(crate) struct Job {
    /// The client's transaction id.
    pub xid: Xid,
    /// The procedure.
    pub proc: Proc3,
    /// Whose call it is.
    pub client: ClientId,
    /// Whom it acts for, squashed.
    pub cred: Cred,
    /// What it is about.
    pub target: Target,
    /// The client's record, its credential squashed.
    pub record: Bytes,
    /// What is measured of it.
    pub at: At,
    /// Its place before its copies, if it changes something.
    pub turn: Option<Turn>,
}

/// One thread's µproxy; see the head of this file.
pub struct Front {
    me: Weak<Self>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) channels: Channels,
    table: RefCell<Arc<RoutingTable>>,
    keys: RefCell<KeyRing>,
    rules: RefCell<HashMap<IpAddr, Rc<[Option<Rule>]>>>,
    pub(crate) soft: RefCell<Soft>,
    seen: RefCell<Seen>,
    /// Changes when a small-file server may have forgotten what it was told.
    small_life: Cell<u64>,
    pub(crate) forwarded: RefCell<Slab<Forwarded>>,
    pub(crate) copies: Copies,
    arena: RefCell<BytesMut>,
    /// The pushing task runs.
    pub(crate) pushing: Cell<bool>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) phases: Rc<Phases>,
    pub(crate) held: Arc<Held>,
}

impl Front {
    /// The µproxy of the current thread. Must be called inside a `LocalSet`.
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let table = shared.tables.current();
        let keys = KeyRing::new(&shared.identity, table.key_id);
        let channels = Channels::new(shared.directory.clone());
        let (calls, held) = (shared.watched.calls(), shared.watched.held());
        let phases = Rc::new(shared.watched.phases.thread());
        channels.count(Arc::clone(&shared.watched.targets));
        let front = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            shared,
            channels,
            table: RefCell::new(table),
            keys: RefCell::new(keys),
            rules: RefCell::default(),
            soft: RefCell::default(),
            seen: RefCell::default(),
            small_life: Cell::new(0),
            forwarded: RefCell::default(),
            copies: Copies::default(),
            arena: RefCell::default(),
            pushing: Cell::new(false),
            calls,
            phases,
            held,
        });
        front.channels.set_sink(Rc::new(crate::forward::Sink(Rc::downgrade(&front))));
        tokio::task::spawn_local(follow(Rc::downgrade(&front), front.shared.tables.clone()));
        front
    }

    /// This object, to be kept by a future. It is alive as long as somebody can call us.
    pub(crate) fn rc(&self) -> Option<Rc<Self>> {
        self.me.upgrade()
    }

    // --- the routing table ---

    /// The routing table that this thread routes by.
    pub(crate) fn table(&self) -> Arc<RoutingTable> {
        self.table.borrow().clone()
    }

    /// Looks something up in the routing table.
    pub(crate) fn with_table<T>(&self, look: impl FnOnce(&RoutingTable) -> T) -> T {
        look(&self.table.borrow())
    }

    /// Obeys the newest table, if this thread does not yet.
    pub(crate) fn refresh_table(&self) {
        let new = self.shared.tables.current();
        if new.epoch <= self.table.borrow().epoch {
            return;
        }
        let old = self.table.replace(Arc::clone(&new));
        if owner_changed(&old, &new) {
            // What the old owner holds uncommitted may not reach the new one (I7).
            self.shared.verifier.raise();
            self.small_life.set(self.small_life.get() + 1);
        }
        if new.key_id != old.key_id {
            *self.keys.borrow_mut() = KeyRing::new(&self.shared.identity, new.key_id);
        }
        self.seen.borrow_mut().keep_only(&new);
        self.rules.borrow_mut().clear();
    }

    /// What `client` may do with the volume of this number.
    pub(crate) fn rule(&self, volume: u32, client: IpAddr) -> Option<Rule> {
        let mut rules = self.rules.borrow_mut();
        if let Some(found) = rules.get(&client) {
            return found.get(volume as usize).copied().flatten();
        }
        if rules.len() >= MAX_RULES {
            rules.clear();
        }
        let made: Rc<[_]> = self.shared.exports.rules(&self.table.borrow(), client).into();
        let rule = made.get(volume as usize).copied().flatten();
        rules.insert(client, made);
        rule
    }

    /// Makes a handle.
    pub(crate) fn seal(&self, handle: &Handle) -> slice_proto::handle::HandleBytes {
        self.keys.borrow().seal(handle)
    }

    /// Checks a handle.
    pub(crate) fn open(&self, bytes: &[u8]) -> Option<Handle> {
        self.keys.borrow().open(bytes).ok()
    }

    // --- verifiers, buffers ---

    /// A data server answered with this write verifier.
    pub(crate) fn saw(&self, role: Role, server: ServerId, verf: Verifier) {
        if self.seen.borrow_mut().changed(server, verf) {
            self.shared.verifier.raise();
            if role == Role::Small {
                self.small_life.set(self.small_life.get() + 1);
            }
        }
    }

    /// Whether a restart of this data server would be noticed by its verifier.
    pub(crate) fn knows(&self, server: ServerId) -> bool {
        self.seen.borrow().knows(server)
    }

    /// Changes when a small-file server may have forgotten what it was told.
    pub(crate) fn small_life(&self) -> u64 {
        self.small_life.get()
    }

    /// Makes a message head in the thread's arena: no allocation in steady state.
    pub(crate) fn make(&self, write: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut arena = self.arena.take();
        if arena.capacity() < ARENA_MIN {
            // Reuses the memory if all heads cut from it are gone.
            arena.reserve(ARENA);
        }
        write(&mut arena);
        let head = arena.split();
        self.arena.replace(arena);
        head
    }

    // --- calls ---

    /// Handles a record that came from `peer`. `connection` is there where a reply may be given later without a future.
    pub(crate) fn handle(
        &self,
        peer: &Peer,
        connection: Option<&Connection>,
        mut record: BytesMut,
        reply: &mut Message,
    ) -> Handled {
        self.note_held();
        let mut trace = self.phases.request();
        let Ok(mut call) = classify(&record, &self.keys.borrow()) else { return Handled::Close };
        self.phases.lap(&mut trace, Phase::Decode);
        match call.what {
            What::Refuse(status) => {
                encode_reply(&mut reply.head, call.xid, status);
                Handled::Done
            }
            What::Nfs(proc, _) => {
                tell(&call, peer, proc);
                if proc != Proc3::Null && self.table.borrow().epoch.0 == 0 {
                    return self.wait_for_a_table(peer, record);
                }
                let (number, timing) = (proc as usize, self.calls.begin(proc as usize));
                let at = At { number, timing, trace };
                let handled = self.nfs(proc, peer, connection, &mut call, &mut record, reply, at);
                self.counted(number, timing, handled, reply)
            }
            What::Mount { version, proc } => {
                let timing = self.calls.begin(MOUNT);
                let handled = self.mount(version, proc, &call, peer, &record, reply);
                self.counted(MOUNT, timing, handled, reply)
            }
            What::Portmap { version, proc } => {
                let args = record.get(call.args_at..).unwrap_or_default();
                let now_s = u32::try_from(self.shared.clock.now_ns() / 1_000_000_000).unwrap_or(u32::MAX);
                let asked = Asked { xid: call.xid, vers: version, proc, tcp: connection.is_some(), now_s };
                self.shared.portmapper().answer(asked, args, &mut reply.head);
                Handled::Done
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // a call, its connection, its reply, and what is measured of it
    fn nfs(
        &self,
        proc: Proc3,
        peer: &Peer,
        connection: Option<&Connection>,
        call: &mut Call,
        record: &mut BytesMut,
        reply: &mut Message,
        mut at: At,
    ) -> Handled {
        let xid = call.xid;
        if proc == Proc3::Null {
            // The AUTH_TLS probe of RFC 9289 is a NULL: refused, the client goes on without.
            match call.flavor {
                auth_flavor::NONE | auth_flavor::SYS => encode_success(&mut reply.head, xid),
                _ => encode_reply(&mut reply.head, xid, ReplyStatus::AuthError(auth_stat::TOOWEAK)),
            }
            return Handled::Done;
        }
        let client = peer.addr.ip();
        let What::Nfs(_, target) = &call.what else { return Handled::Close };
        let mut rule = None;
        let plan = route(proc, target, record, &self.table.borrow(), |volume| {
            rule = self.rule(volume.id.0, client);
            rule
        });
        self.phases.lap(&mut at.trace, Phase::Route);
        let rule = match (plan, rule) {
            (Plan::Refuse(status), _) => {
                put_failure(&mut reply.head, xid, proc, status);
                return Handled::Done;
            }
            (Plan::Local, _) => {
                local::answer(proc, xid, self.shared.space.space(), &mut reply.head);
                return Handled::Done;
            }
            (_, Some(rule)) => rule,
            // A plan without a rule is a refusal.
            (_, None) => return Handled::Close,
        };
        let cred = match squash(call, record, &rule) {
            Ok(cred) => cred,
            Err(why) => {
                encode_reply(&mut reply.head, xid, ReplyStatus::AuthError(why));
                return Handled::Done;
            }
        };
        if rule.read_only && proc == Proc3::Access {
            mask_access(call, record);
        }
        let What::Nfs(_, target) = std::mem::replace(&mut call.what, What::Refuse(ReplyStatus::SystemErr))
        else {
            return Handled::Close;
        };
        debug_assert!(!(rule.read_only && mutates(proc)));
        let record = std::mem::take(record).freeze();
        self.phases.lap(&mut at.trace, Phase::Rewrite);
        let mut job = Job { xid, proc, client: client.into(), cred, target, record, at, turn: None };
        if mutates(proc) {
            match self.copies.begin(Key::of(&job, call.args_at)) {
                Begin::First(turn) => job.turn = Some(turn),
                Begin::Answered(answer) => {
                    reply.head.extend_from_slice(&answer);
                    return Handled::Done;
                }
                Begin::UnderWay(answer) => return Handled::Later(Box::pin(same(answer))),
            }
        }
        self.execute(plan, job, connection)
    }

    fn execute(&self, plan: Plan, mut job: Job, connection: Option<&Connection>) -> Handled {
        let Some(front) = self.rc() else { return Handled::Close };
        let later: LocalBoxFuture<'static, Message> = match plan {
            Plan::Forward(site) => return self.forward(Way::Dir(site), job, connection, Epoch(0)),
            Plan::Search(site) => match self.may_search(&job) {
                Some(Ok(())) => return self.forward(Way::Dir(site), job, connection, Epoch(0)),
                Some(Err(status)) => {
                    let refused = self.fail(job.xid, job.proc, status);
                    Box::pin(std::future::ready(refused))
                }
                None => Box::pin(front.search(site, job)),
            },
            Plan::Setattr(site) => {
                let dirty = target_file(&job.target)
                    .is_some_and(|f| self.soft.borrow().get(f.file).is_some_and(|s| s.is_dirty()));
                if !dirty {
                    return self.forward(Way::Dir(site), job, connection, Epoch(0));
                }
                in_turn(job.turn.take(), Proc3::Setattr, front.setattr(site, job))
            }
            Plan::ReaddirMerge(site) => Box::pin(front.readdir(site, job)),
            Plan::Read => match self.single_read(&job) {
                Some((way, epoch)) if connection.is_some() => {
                    return self.forward(way, job, connection, epoch);
                }
                _ => Box::pin(front.read(job)),
            },
            Plan::Write => match self.single_write(&job) {
                Some((way, epoch)) if connection.is_some() => {
                    return self.forward(way, job, connection, epoch);
                }
                _ => in_turn(job.turn.take(), Proc3::Write, front.write(job)),
            },
            Plan::Commit => Box::pin(front.commit(job)),
            Plan::Local | Plan::Refuse(_) => return Handled::Close,
        };
        Handled::Later(later)
    }

    /// Before the first table nothing can be routed, and nothing may be refused: a handle of a µproxy that restarts is
    /// not stale. The call is handled again once there is a table; without its connection, so that no reply is detached.
    fn wait_for_a_table(&self, peer: &Peer, record: BytesMut) -> Handled {
        let Some(front) = self.rc() else { return Handled::Close };
        let peer = peer.clone();
        Handled::Later(Box::pin(async move {
            front.first_table().await;
            let mut reply = Message::default();
            match front.handle(&peer, None, record, &mut reply) {
                Handled::Done => reply,
                Handled::Later(later) => later.await,
                Handled::Detached | Handled::Close => Message::default(),
            }
        }))
    }

    /// Waits until there is a routing table.
    pub(crate) async fn first_table(&self) {
        while self.with_table(|t| t.epoch == TableEpoch(0)) {
            self.newer_table(TableEpoch(0), TableEpoch(1)).await;
        }
    }
}

impl Now for Front {
    fn at(&self) -> Instant {
        Instant::now()
    }

    fn local_ns(&self) -> u64 {
        self.shared.steady.now_ns()
    }
}

impl LocalService for Front {
    fn call(&self, connection: &Connection, record: BytesMut, reply: &mut Message) -> Handled {
        self.handle(connection.peer(), Some(connection), record, reply)
    }

    fn phases(&self) -> Option<Rc<Phases>> {
        Some(Rc::clone(&self.phases))
    }
}

/// The object that a target names first.
pub(crate) const fn target_file(target: &Target) -> Option<&Handle> {
    match target {
        Target::Object(file) | Target::Extent { file, .. } | Target::Write { file, .. } => Some(file),
        Target::Entry { dir, .. } => Some(dir),
        Target::Nothing | Target::Bad(_) => None,
    }
}

/// The answer of the copy of a call that is under way.
async fn same(answer: oneshot::Receiver<Bytes>) -> Message {
    // Without one it was given up with all that this thread does: its client asks again.
    answer.await.map_or_else(|_| Message::default(), |answer| BytesMut::from(&*answer).into())
}

/// A call that takes its time, and tells its copies what it was answered.
pub(crate) fn in_turn(
    turn: Option<Turn>,
    proc: Proc3,
    reply: impl Future<Output = Message> + 'static,
) -> LocalBoxFuture<'static, Message> {
    Box::pin(async move {
        let reply = reply.await;
        if let Some(turn) = turn {
            turn.answered(proc, &reply);
        }
        reply
    })
}

/// On a read-only export nobody is told that he may write: the bits are not asked for.
fn mask_access(call: &Call, record: &mut BytesMut) {
    let Ok(fh) = slice_proto::nfs3::peek::fh_at(record, call.args_at) else { return };
    let Some(word) = record.get_mut(slice_proto::nfs3::peek::end_of(&fh)..).and_then(<[u8]>::first_chunk_mut)
    else {
        return;
    };
    let asked = u32::from_be_bytes(*word);
    *word = (asked & !(access::MODIFY | access::EXTEND | access::DELETE)).to_be_bytes();
}

/// Keeps a thread's routing table up with the process's.
async fn follow(front: Weak<Front>, mut tables: slice_rpc::tables::Tables) {
    loop {
        match front.upgrade() {
            Some(front) => front.refresh_table(),
            None => return,
        }
        if tables.changed().await.is_none() {
            return;
        }
    }
}

// === replies ===

impl Front {
    /// The failure of a call as a message made in the thread's arena.
    pub(crate) fn fail(&self, xid: Xid, proc: Proc3, status: NfsStat3) -> Message {
        self.make(|w| put_failure(w, xid, proc, status)).into()
    }

    /// A successful result as a message made in the thread's arena.
    pub(crate) fn succeed(&self, xid: Xid, write: impl FnOnce(&mut BytesMut)) -> Message {
        self.make(|w| {
            encode_success(w, xid);
            w.put_u32(NfsStat3::OK.0);
            write(w);
        })
        .into()
    }
}
