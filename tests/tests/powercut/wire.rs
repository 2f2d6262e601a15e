//! Calls of a server in this process, and what all of them are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use slice_proto::handle::{Handle, KeyRing};
use slice_proto::ids::{EnsembleId, FileId, Role, SITES_PER_ROLE, ServerId, Site, TableEpoch, VolumeId, Xid};
use slice_proto::peer;
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call};
use slice_proto::secret::Identity;
use slice_proto::table::{NamePolicy, Placement, RoutingTable, ServerEntry, Volume};
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::service::{Handled, Message, Peer, Service};

pub const DIRS: [ServerId; 2] = [ServerId(1), ServerId(2)];
pub const SMALL: ServerId = ServerId(3);
pub const BLOCK: ServerId = ServerId(4);
pub const COORDINATOR: ServerId = ServerId(5);
pub const TABLE: TableEpoch = TableEpoch(1);

pub fn identity() -> Identity {
    Identity { ensemble: EnsembleId(11), secret: [4; 32] }
}

pub fn keys() -> KeyRing {
    KeyRing::new(&identity(), 0)
}

pub fn handle(file: FileId) -> Vec<u8> {
    keys().seal(&Handle { ftype: 1, volume: VolumeId(0), policy: 0, file, snapshot: 0 }).to_vec()
}

pub fn all_sites() -> Vec<Site> {
    (0..SITES_PER_ROLE as u16).map(Site).collect()
}

/// Two directory servers by turns, one server of each other role.
pub fn table() -> RoutingTable {
    let entry = |role| ServerEntry { role, address: String::new() };
    RoutingTable {
        epoch: TABLE,
        dir: (0..SITES_PER_ROLE).map(|site| vec![DIRS[site % 2]]).collect(),
        small: vec![vec![SMALL]; SITES_PER_ROLE],
        block: vec![vec![BLOCK]; SITES_PER_ROLE],
        servers: [
            (DIRS[0], entry(Role::Dir)),
            (DIRS[1], entry(Role::Dir)),
            (SMALL, entry(Role::Small)),
            (BLOCK, entry(Role::Block)),
            (COORDINATOR, entry(Role::Coordinator)),
        ]
        .into(),
        volumes: vec![volume()],
        placements: vec![Placement { copies: 1 }],
        key_id: 0,
    }
}

pub fn volume() -> Volume {
    Volume {
        id: VolumeId(0),
        path: "/".to_owned(),
        root: FileId::new(Site(17), 1),
        policy: NamePolicy::Hash,
        seed: 42,
        placement: 0,
        root_uid: 0,
        root_gid: 0,
        root_mode: 0o777,
    }
}

/// Makes a store unless one is there, as a server does that is started again.
pub fn make_once(data: &Path, format: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    match slice_store::read_stamp(data) {
        Err(slice_store::Error::Absent { .. }) => format(),
        found => found.map(drop).map_err(|error| error.to_string()),
    }
}

/// Hands a record in; the reply's record, none if the server wants to hear no more.
pub async fn send(service: &dyn Service, record: BytesMut) -> Option<Bytes> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let peer = Peer { addr, proved: Some((Role::Proxy, ServerId(99))) };
    let mut reply = Message::default();
    let reply = match service.call(&peer, record, &mut reply) {
        Handled::Done => reply,
        Handled::Later(later) => later.await,
        Handled::Close | Handled::Detached => return None,
    };
    Some(reply.into_record().freeze())
}

/// What is behind the header.
pub fn body(reply: &Bytes) -> Bytes {
    let header = ReplyHeader::decode(reply).unwrap();
    assert_eq!(header.status, ReplyStatus::Success);
    reply.slice(header.body_at..)
}

/// A call of a private procedure.
pub async fn private<R: for<'a> Decode<'a>>(
    service: &dyn Service,
    proc: u32,
    args: &impl Encode,
) -> Option<R> {
    let mut record = BytesMut::new();
    encode_call(&mut record, Xid(9), peer::PROGRAM, peer::VERSION, proc, &OpaqueAuth::NONE);
    args.encode(&mut record);
    let reply = send(service, record).await?;
    Some(R::decode(&mut Reader::new(&body(&reply))).unwrap())
}
