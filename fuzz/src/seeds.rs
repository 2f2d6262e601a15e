//! What is right, for mutation to begin with: one input or more for each decoder and for most procedures.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use slice_proto::control::pb;
use slice_proto::handle::{Handle, HandleBytes, KeyRing};
use slice_proto::ids::{
    AttrSeq, Epoch, FileId, IntentionId, Role, ServerId, Site, TableEpoch, VolumeId, Xid,
};
use slice_proto::mount::{DirPath, ExportEntry, ExportList, MntRes, MountEntry, MountList};
use slice_proto::nfs3::*;
use slice_proto::peer::attrs::{PushArgs, RaiseArgs};
use slice_proto::peer::data::{PurgeArgs, Sites, TruncateArgs};
use slice_proto::peer::dir::{
    AttrEffect, Child, ConfirmArgs, DropArgs, Effect, HoldArgs, HoldKey, HoldMode, HoldPart, NameEffect,
    OpId, ReconcileArgs,
};
use slice_proto::peer::hello::{HelloArgs, Nonce};
use slice_proto::peer::intent::{CompleteArgs, Intent, IntentKind, LogArgs};
use slice_proto::peer::{self, PeerProc};
use slice_proto::portmap::{Mapping, MappingList, Rpcb};
use slice_proto::rpc_msg::{AuthSys, Cred, OpaqueAuth, encode_call, encode_success, program, record_mark};
use slice_proto::trailer::{CallTrailer, ClientId, ResultTrailer, Stamp};
use slice_proto::xdr::Encode;

use crate::world::{identity, table, volume};

/// A file that was never made; its handle is right all the same.
const FILE: FileId = FileId::new(Site(3), 77);

fn sealed(ftype: u8, file: FileId) -> HandleBytes {
    KeyRing::new(&identity(), 0).seal(&Handle { ftype, volume: VolumeId(0), policy: 0, file, snapshot: 0 })
}

fn plain(value: &impl Encode) -> Vec<u8> {
    let mut w = BytesMut::new();
    value.encode(&mut w);
    w.to_vec()
}

fn with_first(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first], rest].concat()
}

fn record(prog: u32, vers: u32, proc: u32, args: &[u8]) -> BytesMut {
    let mut w = BytesMut::new();
    encode_call(&mut w, Xid(9), prog, vers, proc, &AuthSys { stamp: 1, machine: b"seed", cred: Cred::ROOT });
    w.put_slice(args);
    w
}

/// A file with a section for every command.
const CONFIGURATION: &str = r#"
[up]
data = "/srv/slice"
listen = "127.0.0.1:3049"
dirservers = 2
smallfiles = 2
blockstores = 4
policy = "mkdir:0.5"
root-owner = "10:20"
root-mode = "1777"
separate = true
take-over-after = 30
threads = 4
log-format = "json"
[[up.volume]]
path = "/a"
policy = "partition"
[[up.export]]
path = "/a"
allow = ["10.0.0.0/8", "::1/128"]
squash = "all"
anon-uid = 7
[proxy]
listen = "[::]:2049"
coordinator = "node1:2051"
identity = "/etc/slice/identity"
allow = ["192.0.2.0/24"]
read-only = true
[dirserver]
data = "/d"
store = "fjall"
advertise = "node2:4000"
[smallfile]
data = "/s"
[blockstore]
metrics = "127.0.0.1:9050"
[coordinator]
control = "0.0.0.0:2051"
format = true
policy = "hash"
"#;

/// An identity file.
const IDENTITY: &str = r#"version = 1
ensemble = "00000000000000a7"
secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
"#;

/// What `slice up` tells of itself.
const ENSEMBLE: &str = r#"{"version":1,"ensemble":"00000000000000a7","pid":12,"control":"127.0.0.1:2051","servers":[
{"role":"proxy","id":"0000000000000001","pid":13,"addresses":["127.0.0.1:2049"],"metrics":"127.0.0.1:9049"}]}"#;

/// Right arguments of every NFSv3 procedure, on the root directory and on a file.
fn arguments() -> Vec<(u32, Vec<u8>)> {
    let (root, file) = (sealed(2, volume().root), sealed(1, FILE));
    let (root, file) = (&root[..], &file[..]);
    let at = |name| DirOp { dir: root, name };
    let attr = Sattr3 { mode: Some(0o644), ..Sattr3::default() };
    let verf = CookieVerf::default();
    vec![
        (0, Vec::new()),
        (1, plain(&GetattrArgs { object: root })),
        (2, plain(&SetattrArgs { object: root, attr, guard: Some(NfsTime3 { seconds: 1, nseconds: 2 }) })),
        (2, plain(&SetattrArgs { object: file, attr: Sattr3 { size: Some(1 << 21), ..attr }, guard: None })),
        (3, plain(&LookupArgs { what: at(b"f") })),
        (4, plain(&AccessArgs { object: root, access: access::ALL })),
        (5, plain(&ReadlinkArgs { symlink: file })),
        (6, plain(&ReadArgs { file, offset: 65_000, count: 4096 })),
        (
            7,
            plain(&WriteArgs {
                file,
                offset: 65_530,
                count: 8,
                stable: StableHow::FileSync,
                data: b"8 bytes!",
            }),
        ),
        (8, plain(&CreateArgs { at: at(b"f"), how: CreateHow::Unchecked(attr) })),
        (8, plain(&CreateArgs { at: at(b"g"), how: CreateHow::Exclusive(*b"verifier") })),
        (9, plain(&MkdirArgs { at: at(b"d"), attr })),
        (10, plain(&SymlinkArgs { at: at(b"l"), attr, target: b"over/there" })),
        (11, plain(&MknodArgs { at: at(b"p"), what: MknodWhat::Fifo(attr) })),
        (
            11,
            plain(&MknodArgs { at: at(b"c"), what: MknodWhat::Chr(attr, SpecData3 { major: 1, minor: 3 }) }),
        ),
        (12, plain(&RemoveArgs { object: at(b"f") })),
        (13, plain(&RemoveArgs { object: at(b"d") })),
        (14, plain(&RenameArgs { from: at(b"f"), to: at(b"h") })),
        (15, plain(&LinkArgs { file, link: at(b"k") })),
        (16, plain(&ReaddirArgs { dir: root, cookie: 0, verf, count: 4096 })),
        (17, plain(&ReaddirplusArgs { dir: root, cookie: 0, verf, dircount: 512, maxcount: 4096 })),
        (18, plain(&FsArgs { object: root })),
        (19, plain(&FsArgs { object: root })),
        (20, plain(&FsArgs { object: root })),
        (21, plain(&CommitArgs { file, offset: 0, count: 0 })),
    ]
}

fn attributes() -> Fattr3 {
    let t = NfsTime3 { seconds: 5, nseconds: 6 };
    Fattr3 {
        ftype: FType3::Reg,
        mode: 0o644,
        nlink: 1,
        uid: 2,
        gid: 3,
        size: 4,
        used: 4096,
        rdev: SpecData3::default(),
        fsid: 1,
        fileid: FILE,
        atime: t,
        mtime: t,
        ctime: t,
    }
}

fn results() -> Vec<Vec<u8>> {
    let attr = attributes();
    let wcc = WccData { before: Some(attr.wcc()), after: Some(attr) };
    let handle = sealed(1, FILE);
    let entry = Entry { fileid: FILE, name: b"name", cookie: 99 };
    let plus = EntryPlus { entry, attr: Some(attr), handle: Some(&handle) };
    let page =
        |entries| ReaddirplusOk { dir_attr: Some(attr), verf: CookieVerf::default(), entries, eof: true };
    vec![
        with_first(1, &plain(&GetattrRes::Ok(attr))),
        with_first(2, &plain(&SetattrRes::Err(NfsStat3::ACCES, wcc))),
        with_first(3, &plain(&LookupRes::Ok(LookupOk { object: &handle, attr: Some(attr), dir_attr: None }))),
        with_first(6, &plain(&ReadRes::Ok(ReadOk { attr: Some(attr), count: 3, eof: true, data: b"abc" }))),
        with_first(
            8,
            &plain(&CreateRes::Ok(CreateOk { object: Some(&handle), attr: Some(attr), dir_wcc: wcc })),
        ),
        with_first(14, &plain(&RenameRes::Ok(RenameOk { from_wcc: wcc, to_wcc: wcc }))),
        with_first(17, &plain(&ReaddirplusRes::Ok(page(vec![plus, plus])))),
    ]
}

/// Right arguments of private procedures.
fn private() -> Vec<(PeerProc, u8, Vec<u8>)> {
    let (table, op) = (TableEpoch(1), OpId { sender: ServerId(11), seq: 5 });
    let child = Child { file: FILE, ftype: 1, policy: 0 };
    let name = NameEffect {
        site: Site(3),
        dir: volume().root,
        hash: 7,
        name: Bytes::from_static(b"f"),
        from: None,
        to: Some(child),
    };
    let attr = AttrEffect {
        file: FILE,
        now_ns: 1,
        base_ns: 0,
        nlink: 1,
        entries: -1,
        mtime: true,
        parent: Some(volume().root),
        remove: false,
    };
    let make = Effect::Make { file: FILE, record: Bytes::from_static(&[1; 120]) };
    let effects = vec![Effect::Attr(attr), Effect::Name(name), make];
    let key = HoldKey { site: Site(17), file: volume().root, part: HoldPart::Attr };
    let hold = HoldArgs { table, op, settled: 0, key, mode: HoldMode::Wait, share: true };
    let push = PushArgs {
        table,
        file: FILE,
        epoch: Epoch(1),
        seq: AttrSeq(1),
        end: 9,
        mtime_ns: 3,
        ctime_ns: 4,
        clear_set_ids: true,
    };
    let hello = HelloArgs {
        min_version: 1,
        max_version: 1,
        ensemble: identity().ensemble,
        role: Role::Proxy,
        server: ServerId(50),
        wanted: ServerId(0),
        nonce: Nonce([7; 16]),
    };
    vec![
        (PeerProc::Hello, 0, plain(&hello)),
        (PeerProc::Push, 4, plain(&push)),
        (PeerProc::RaiseReach, 5, plain(&RaiseArgs { table, file: FILE, epoch: Epoch(1), reach: 1 << 17 })),
        (PeerProc::Hold, 7, plain(&hold)),
        (PeerProc::Confirm, 9, plain(&ConfirmArgs { table, op, settled: 0, effects })),
        (PeerProc::Drop, 10, plain(&DropArgs { op, durable: true })),
        (PeerProc::Reconcile, 12, plain(&ReconcileArgs { sender: ServerId(11), boot: 2, owed: vec![3, 4] })),
    ]
}

fn intent() -> Intent {
    Intent {
        kind: IntentKind::Truncate,
        file: FILE,
        epoch: Epoch(3),
        size: 10,
        reach: 1 << 20,
        owner: ServerId(10),
    }
}

/// A forwarded call, as a µproxy sends it to a server.
fn forwarded(proc: u32, args: &[u8]) -> BytesMut {
    let mut w = record(program::NFS, 3, proc, args);
    let client = ClientId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
    let trailer = CallTrailer { client, xid: Xid(9), flags: 0, table: TableEpoch(1), epoch: Epoch(1) };
    trailer.append(&mut w);
    w
}

/// What a target begins with.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let calls = || arguments().into_iter().map(|(proc, args)| record(program::NFS, 3, proc, &args).to_vec());
    let marked = |record: &[u8]| [&record_mark(record.len())[..], record].concat();
    match target {
        "rpc_message" => {
            let mut reply = BytesMut::new();
            encode_success(&mut reply, Xid(9));
            calls().chain([reply.to_vec()]).collect()
        }
        "framing" => {
            let all: Vec<u8> = calls().take(4).flat_map(|call| marked(&call)).collect();
            vec![with_first(3, &all), with_first(0, &[0, 0, 0, 2, 1, 2, 0x80, 0, 0, 1, 3])]
        }
        "nfs_args" => arguments().into_iter().map(|(proc, args)| with_first(proc as u8, &args)).collect(),
        "nfs_results" => results(),
        "mount" => {
            vec![
                plain(&DirPath(b"/export")),
                plain(&MntRes::Ok { handle: &sealed(2, volume().root), flavors: vec![1, 0] }),
                plain(&MountList(vec![MountEntry { host: b"client", path: b"/" }])),
                plain(&ExportList(vec![ExportEntry { path: b"/", groups: vec![b"10.0.0.0/8"] }])),
            ]
        }
        "portmap" => {
            let mapping = Mapping { prog: program::NFS, vers: 3, prot: 6, port: 2049 };
            let rpcb =
                Rpcb { prog: program::NFS, vers: 3, netid: b"tcp", addr: b"127.0.0.1.8.1", owner: b"me" };
            vec![
                plain(&mapping),
                plain(&MappingList(vec![mapping, mapping])),
                plain(&rpcb),
                b"127.0.0.1.8.1".to_vec(),
                b"::1.8.1".to_vec(),
            ]
        }
        "handle" => vec![sealed(2, volume().root).to_vec(), sealed(1, FILE).to_vec()],
        "configuration" => vec![CONFIGURATION.into()],
        "files" => vec![IDENTITY.into(), ENSEMBLE.into()],
        "trailer" => {
            let stamp = Stamp { file: FILE, epoch: Epoch(1), seq: AttrSeq(2), reach: 65_536 };
            let mut w = BytesMut::from(&b"a result"[..]);
            ResultTrailer { stamps: vec![stamp, stamp], table: TableEpoch(1), now_ns: 5 }.append(&mut w);
            vec![forwarded(0, &[]).to_vec(), w.to_vec()]
        }
        "peer" => {
            let (table, sites) = (TableEpoch(1), || Sites(vec![Site(3), Site(4)]));
            let data = [
                (14, plain(&TruncateArgs { table, sites: sites(), file: FILE, epoch: Epoch(2), size: 5 })),
                (15, plain(&PurgeArgs { table, sites: sites(), file: FILE, epoch: Epoch(2) })),
                (21, plain(&LogArgs { intent: intent() })),
                (23, plain(&CompleteArgs { ids: vec![IntentionId(1), IntentionId(2)] })),
            ];
            let private = private().into_iter().map(|(_, which, args)| (which, args));
            private.chain(data).map(|(which, args)| with_first(which, &args)).collect()
        }
        "table" => vec![pb::RoutingTable::from(&table()).encode_to_vec()],
        "records" => vec![
            // An attribute record, a bucket of one name, a map record of one block.
            [&[1, 1, 0, 0][..], &[0; 116]].concat(),
            [&[1, 0, 0, 1, 1, 0, 0, 0, 0][..], &[0; 8], b"f"].concat(),
            [&[1, 0, 1, 0, 0, 0, 0, 5][..], &[0; 8], &[0, 0, 0, 1, 0, 0, 0, 64, 0, 5, 0, 5, 1, 2, 3, 4]]
                .concat(),
        ],
        "intent_log" => {
            let entry = |id: u64| {
                [&[0, 0, 0, 1, 0, 0, 0, 1][..], &id.to_be_bytes(), &[0; 8], &plain(&intent())].concat()
            };
            vec![entry(1), with_first(200, &entry(2))]
        }
        "proxy" => {
            let odd = calls().map(|call| with_first(1, &call));
            let all: Vec<u8> = calls().take(6).flat_map(|call| marked(&call)).collect();
            let mnt = record(program::MOUNT, 3, 1, &plain(&DirPath(b"/")));
            let dump = record(program::PORTMAP, 2, 4, &[]);
            odd.chain([with_first(0, &all), with_first(1, &mnt), with_first(1, &dump)]).collect()
        }
        "dirserver" => {
            let nfs = arguments().into_iter().map(|(proc, args)| with_first(128, &forwarded(proc, &args)));
            let call = |proc: PeerProc, args: &[u8]| {
                let mut w = BytesMut::new();
                encode_call(&mut w, Xid(1), peer::PROGRAM, peer::VERSION, proc as u32, &OpaqueAuth::NONE);
                w.put_slice(args);
                w
            };
            let proved = private().into_iter().map(|(proc, _, args)| with_first(129, &call(proc, &args)));
            let strange = private().into_iter().map(|(proc, _, args)| with_first(1, &call(proc, &args)));
            nfs.chain(proved).chain(strange).collect()
        }
        _ => Vec::new(),
    }
}
