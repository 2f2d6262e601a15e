//! The hello that opens a connection between ours (docs/wire.md; [`slice_proto::peer::hello`]): two round trips in
//! which both sides prove that they have the ensemble's secret. Before it nothing else is answered, and nothing of
//! ours is asked.

use crate::error::Error;
use crate::intake::Intake;
use bytes::BytesMut;
use slice_proto::ids::{Role, ServerId, Xid};
use slice_proto::peer::hello::{
    HelloArgs, HelloRes, HelloStatus, MAX_WIRE_VERSION, MIN_WIRE_VERSION, Nonce, Proof, ProveArgs,
    caller_proof, same, server_proof,
};
use slice_proto::peer::{PROGRAM, PeerProc, VERSION};
use slice_proto::rpc_msg::{
    CallHeader, OpaqueAuth, ReplyHeader, ReplyStatus, encode_call, encode_success, record_mark,
};
use slice_proto::secret::Identity;
use slice_proto::xdr::{Decode, Encode, Reader};
use std::future::poll_fn;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Both round trips together must be over by then, the connecting side's wait for a busy server included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest record before the hello is done: a HELLO is below 200 bytes.
const MAX_HELLO_RECORD: usize = 1 << 10;

/// Most records before the hello is done: two, and a few NULLs of somebody who looks whether we are here.
const MAX_HELLO_RECORDS: u32 = 16;

/// Who we are to peers.
#[derive(Debug, Clone)]
pub struct Me {
    /// The ensemble and its secret.
    pub identity: Identity,
    /// Our role.
    pub role: Role,
    /// Our id.
    pub server: ServerId,
}

/// What the called side makes of a record before the hello is done.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The reply is to be sent, and another record awaited.
    Reply,
    /// The reply is to be sent; the caller has proved to be this.
    Proved(Role, ServerId),
    /// The reply is to be sent and the connection closed.
    Refuse(HelloStatus),
    /// To be closed without a reply.
    Close,
}

/// The called side, without I/O.
struct Called<'a> {
    me: &'a Me,
    nonce: Nonce,
    /// The HELLO that was answered with Ok, and the answer.
    greeted: Option<(HelloArgs, HelloRes)>,
}

impl Called<'_> {
    fn answer(&mut self, record: &[u8], reply: &mut BytesMut) -> Step {
        let Ok(call) = CallHeader::decode(record) else { return Step::Close };
        if call.prog != PROGRAM || call.vers != VERSION {
            return Step::Close;
        }
        let mut args = Reader::at(record, call.args_at);
        encode_success(reply, call.xid);
        match PeerProc::from_u32(call.proc) {
            Some(PeerProc::Null) => Step::Reply,
            Some(PeerProc::Hello) => {
                HelloArgs::decode(&mut args).map_or(Step::Close, |args| self.hello(args, reply))
            }
            Some(PeerProc::Prove) => {
                ProveArgs::decode(&mut args).map_or(Step::Close, |args| self.prove(&args, reply))
            }
            _ => Step::Close,
        }
    }

    fn hello(&mut self, args: HelloArgs, reply: &mut BytesMut) -> Step {
        let me = self.me;
        let version = args.max_version.min(MAX_WIRE_VERSION);
        let status = if version < args.min_version.max(MIN_WIRE_VERSION) {
            HelloStatus::Version
        } else if args.ensemble != me.identity.ensemble {
            HelloStatus::Ensemble
        } else if args.wanted != ServerId(0) && args.wanted != me.server {
            HelloStatus::Server
        } else {
            HelloStatus::Ok
        };
        let mut res = HelloRes {
            status,
            version,
            ensemble: me.identity.ensemble,
            role: me.role,
            server: me.server,
            nonce: self.nonce,
            proof: Proof::default(),
        };
        if status != HelloStatus::Ok {
            res.encode(reply);
            return Step::Refuse(status);
        }
        res.proof = server_proof(&me.identity, &args, &res);
        res.encode(reply);
        self.greeted = Some((args, res));
        Step::Reply
    }

    fn prove(&mut self, got: &ProveArgs, reply: &mut BytesMut) -> Step {
        // One try per HELLO and nonce.
        let Some((args, res)) = self.greeted.take() else {
            HelloStatus::Order.encode(reply);
            return Step::Refuse(HelloStatus::Order);
        };
        if !same(&got.proof, &caller_proof(&self.me.identity, &args, &res)) {
            HelloStatus::Proof.encode(reply);
            return Step::Refuse(HelloStatus::Proof);
        }
        HelloStatus::Ok.encode(reply);
        Step::Proved(args.role, args.server)
    }
}

/// The called side: answers the hello on a fresh connection; returns who called.
///
/// # Errors
/// [`Error::Hello`] if the caller was refused, [`Error::NoHello`], [`Error::Late`], [`Error::Eof`], or the socket's.
pub(crate) async fn receive(
    me: &Me,
    stream: &mut TcpStream,
    intake: &mut Intake,
) -> Result<(Role, ServerId), Error> {
    let max = crate::framing::MAX_RECORD;
    intake.set_max(MAX_HELLO_RECORD);
    let proved = tokio::time::timeout(DEADLINE, async {
        let mut called = Called { me, nonce: nonce()?, greeted: None };
        for _ in 0..MAX_HELLO_RECORDS {
            let record = read(stream, intake).await?;
            let mut reply = BytesMut::new();
            let step = called.answer(&record, &mut reply);
            if step == Step::Close {
                return Err(Error::NoHello);
            }
            write(stream, &reply).await?;
            match step {
                Step::Proved(role, server) => return Ok((role, server)),
                Step::Refuse(status) => return Err(Error::Hello(status)),
                Step::Reply | Step::Close => {}
            }
        }
        Err(Error::NoHello)
    });
    let proved = proved.await.map_err(|_| Error::Late)??;
    intake.set_max(max);
    Ok(proved)
}

/// The calling side: greets the server on a fresh connection; `wanted` 0 accepts any server of the ensemble.
///
/// # Errors
/// [`Error::Hello`] if the server refused us or we it, [`Error::NoHello`], [`Error::Late`], [`Error::Eof`], or the
/// socket's.
pub(crate) async fn send(
    me: &Me,
    wanted: ServerId,
    stream: &mut TcpStream,
    intake: &mut Intake,
) -> Result<(Role, ServerId), Error> {
    let greeting = async {
        let args = HelloArgs {
            min_version: MIN_WIRE_VERSION,
            max_version: MAX_WIRE_VERSION,
            ensemble: me.identity.ensemble,
            role: me.role,
            server: me.server,
            wanted,
            nonce: nonce()?,
        };
        let res: HelloRes = ask(stream, intake, Xid(1), PeerProc::Hello, &args).await?;
        check(me, wanted, &args, &res).map_err(Error::Hello)?;
        let prove = ProveArgs { proof: caller_proof(&me.identity, &args, &res) };
        match ask(stream, intake, Xid(2), PeerProc::Prove, &prove).await? {
            HelloStatus::Ok => Ok((res.role, res.server)),
            refused => Err(Error::Hello(refused)),
        }
    };
    tokio::time::timeout(DEADLINE, greeting).await.map_err(|_| Error::Late)?
}

/// Whether the called side is who we mean to reach.
fn check(me: &Me, wanted: ServerId, args: &HelloArgs, res: &HelloRes) -> Result<(), HelloStatus> {
    if res.status != HelloStatus::Ok {
        return Err(res.status);
    }
    if res.ensemble != me.identity.ensemble {
        return Err(HelloStatus::Ensemble);
    }
    if !(MIN_WIRE_VERSION..=MAX_WIRE_VERSION).contains(&res.version) {
        return Err(HelloStatus::Version);
    }
    if !same(&res.proof, &server_proof(&me.identity, args, res)) {
        return Err(HelloStatus::Proof);
    }
    if wanted != ServerId(0) && res.server != wanted {
        return Err(HelloStatus::Server);
    }
    Ok(())
}

async fn ask<R: for<'a> Decode<'a>>(
    stream: &mut TcpStream,
    intake: &mut Intake,
    xid: Xid,
    procedure: PeerProc,
    args: &impl Encode,
) -> Result<R, Error> {
    let mut call = BytesMut::new();
    encode_call(&mut call, xid, PROGRAM, VERSION, procedure as u32, &OpaqueAuth::NONE);
    args.encode(&mut call);
    write(stream, &call).await?;
    let record = read(stream, intake).await?;
    let reply = ReplyHeader::decode(&record).map_err(|_| Error::NoHello)?;
    if reply.xid != xid || reply.status != ReplyStatus::Success {
        return Err(Error::NoHello);
    }
    R::decode(&mut Reader::at(&record, reply.body_at)).map_err(|_| Error::NoHello)
}

async fn read(stream: &mut TcpStream, intake: &mut Intake) -> Result<BytesMut, Error> {
    loop {
        if let Some(record) = intake.next()? {
            return Ok(record);
        }
        let n = poll_fn(|cx| {
            let read = intake.poll_fill(stream, cx);
            intake.settle();
            read
        });
        if n.await? == 0 {
            return Err(Error::Eof);
        }
    }
}

async fn write(stream: &mut TcpStream, record: &[u8]) -> Result<(), Error> {
    let mut framed = BytesMut::with_capacity(record.len() + 4);
    framed.extend_from_slice(&record_mark(record.len()));
    framed.extend_from_slice(record);
    Ok(stream.write_all(&framed).await?)
}

fn nonce() -> Result<Nonce, Error> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce.0).map_err(|e| Error::Io(std::io::Error::other(e)))?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::EnsembleId;

    fn me(secret: u8, server: u64) -> Me {
        let identity = Identity { ensemble: EnsembleId(7), secret: [secret; 32] };
        Me { identity, role: Role::Dir, server: ServerId(server) }
    }

    fn args(me: &Me, wanted: u64) -> HelloArgs {
        HelloArgs {
            min_version: MIN_WIRE_VERSION,
            max_version: MAX_WIRE_VERSION,
            ensemble: me.identity.ensemble,
            role: me.role,
            server: me.server,
            wanted: ServerId(wanted),
            nonce: Nonce([1; 16]),
        }
    }

    fn called(me: &Me) -> Called<'_> {
        Called { me, nonce: Nonce([2; 16]), greeted: None }
    }

    fn record(procedure: u32, args: &impl Encode) -> BytesMut {
        let mut call = BytesMut::new();
        encode_call(&mut call, Xid(9), PROGRAM, VERSION, procedure, &OpaqueAuth::NONE);
        args.encode(&mut call);
        call
    }

    fn result<R: for<'a> Decode<'a>>(reply: &BytesMut) -> R {
        let header = ReplyHeader::decode(reply).unwrap();
        R::decode(&mut Reader::at(reply, header.body_at)).unwrap()
    }

    #[test]
    fn a_peer_with_the_secret_is_proved_both_ways() {
        let (server, caller) = (me(1, 10), me(1, 20));
        let mut called = called(&server);
        let (args, mut reply) = (args(&caller, 10), BytesMut::new());
        assert_eq!(called.answer(&record(1, &args), &mut reply), Step::Reply);
        let res: HelloRes = result(&reply);
        assert_eq!(check(&caller, ServerId(10), &args, &res), Ok(()));
        let prove = ProveArgs { proof: caller_proof(&caller.identity, &args, &res) };
        reply.clear();
        assert_eq!(called.answer(&record(2, &prove), &mut reply), Step::Proved(Role::Dir, ServerId(20)));
        // The same proof does not serve twice.
        reply.clear();
        assert_eq!(called.answer(&record(2, &prove), &mut reply), Step::Refuse(HelloStatus::Order));
    }

    #[test]
    fn another_secret_is_noticed_on_both_sides() {
        let (server, caller) = (me(1, 10), me(2, 20));
        let mut called = called(&server);
        let (args, mut reply) = (args(&caller, 0), BytesMut::new());
        assert_eq!(called.answer(&record(1, &args), &mut reply), Step::Reply);
        let res: HelloRes = result(&reply);
        assert_eq!(check(&caller, ServerId(0), &args, &res), Err(HelloStatus::Proof));
        let prove = ProveArgs { proof: caller_proof(&caller.identity, &args, &res) };
        reply.clear();
        assert_eq!(called.answer(&record(2, &prove), &mut reply), Step::Refuse(HelloStatus::Proof));
    }

    #[test]
    fn versions_ensembles_and_servers_must_match() {
        let (server, caller) = (me(1, 10), me(1, 20));
        let refused = |args: HelloArgs| {
            let mut reply = BytesMut::new();
            let step = called(&server).answer(&record(1, &args), &mut reply);
            assert_eq!(step, Step::Refuse(result::<HelloRes>(&reply).status));
            result::<HelloRes>(&reply).status
        };
        let good = args(&caller, 10);
        assert_eq!(
            refused(HelloArgs { min_version: 9, max_version: 10, ..good.clone() }),
            HelloStatus::Version
        );
        assert_eq!(refused(HelloArgs { ensemble: EnsembleId(8), ..good.clone() }), HelloStatus::Ensemble);
        assert_eq!(refused(HelloArgs { wanted: ServerId(11), ..good }), HelloStatus::Server);
    }

    #[test]
    fn nothing_but_null_is_answered_before() {
        let server = me(1, 10);
        let mut called = called(&server);
        let mut reply = BytesMut::new();
        assert_eq!(called.answer(&record(0, &0u32), &mut reply), Step::Reply);
        assert_eq!(called.answer(&record(PeerProc::Push as u32, &0u32), &mut reply), Step::Close);
        let mut nfs = BytesMut::new();
        encode_call(&mut nfs, Xid(9), 100_003, 3, 0, &OpaqueAuth::NONE);
        assert_eq!(called.answer(&nfs, &mut reply), Step::Close);
        assert_eq!(called.answer(b"GET / HTTP/1.1\r\n\r\n", &mut reply), Step::Close);
        assert_eq!(called.answer(&[], &mut reply), Step::Close);
    }
}
