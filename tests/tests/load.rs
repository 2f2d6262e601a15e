//! `slice load` against a whole ensemble: it ends well, its result is what its documentation says, and it sees a server that lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first surprise"
)]

use bytes::BytesMut;
use slice_load::frame::{self, Deframer, Frame};
use slice_load::result::{Figures, RunResult};
use slice_proto::ids::Xid;
use slice_proto::nfs3::Proc3;
use slice_proto::rpc_msg::{CallHeader, peek_xid, program};
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// Shorter than any real run: a check of the generator, not of the server's speed.
const TINY: [&str; 13] = [
    "--quick",
    "--seed",
    "7",
    "--peak",
    "60",
    "--points",
    "2",
    "--warmup",
    "0.3",
    "--measure",
    "1.5",
    "--conns",
    "3",
];

fn load(binary: &Path, workload: &str, port: u16, result: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary);
    command.args(["load", workload, "--target", &format!("127.0.0.1:{port}:/")]);
    command.arg("--json").arg(result).args(more);
    let output = command.output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn sfs_ends_well_and_its_result_is_whole() {
    let ensemble = Ensemble::start("load", Options::new(Policy::Hash, Layout::Separate)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (json, html) = (folder.path().join("a.json"), folder.path().join("a.html"));
    let (data, page) = (ensemble.data().to_string_lossy().into_owned(), html.to_string_lossy().into_owned());
    let mut more = TINY.to_vec();
    more.extend(["--data", &data, "--html", &page]);
    let output = load(ensemble.binary(), "sfs", ensemble.port(), &json, &more);
    assert!(output.status.success());

    let result = RunResult::read(&json).unwrap();
    assert!(result.complete && result.quick && result.seed == 7);
    assert_eq!(result.mistakes.total, 0, "{:?}", result.mistakes);
    assert_eq!(result.servers.policy.as_deref(), Some("hash"));
    assert_eq!((result.servers.separate, result.servers.count["dirserver"]), (true, 3));
    let Figures::Sfs { points, peak, ort_ms } = &result.figures else { panic!("another workload's figures") };
    assert_eq!(points.iter().map(|p| p.offered).collect::<Vec<_>>(), [30.0, 60.0]);
    assert!(
        points
            .iter()
            .all(|p| p.delivered > 0.0 && p.latency.p50_us > 0.0 && p.accessed > 0 && !p.cpu.is_empty())
    );
    assert!(points[1].files > points[0].files, "the set grows with the load");
    assert!(peak.is_some() && ort_ms.is_some());
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg") && page.contains("Latency against delivered load"));
}

/// Passes everything on, but turns the last byte of the data of every READ reply.
struct Liar {
    port: u16,
}

impl Liar {
    fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
                let reads = Arc::new(Mutex::new(HashSet::new()));
                let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let seen = Arc::clone(&reads);
                thread::spawn(move || {
                    pass(client, to_server, |record| {
                        let call = CallHeader::decode(record).unwrap();
                        if call.prog == program::NFS && call.proc == Proc3::Read as u32 {
                            seen.lock().unwrap().insert(call.xid);
                        }
                    });
                });
                thread::spawn(move || pass(server, to_client, |record| lie(record, &reads)));
            }
        });
        Self { port }
    }
}

fn lie(record: &mut [u8], reads: &Mutex<HashSet<Xid>>) {
    let xid = peek_xid(record).unwrap();
    // Data fill whole words here (files have whole KiB), so the last byte is data, in a reply that has some.
    if reads.lock().unwrap().remove(&xid) && record.len() > 1000 {
        let last = record.last_mut().unwrap();
        *last ^= 1;
    }
}

/// Passes records from one to the other until either ends.
fn pass(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&mut [u8])) {
    let (mut deframer, mut buf, mut piece) = (Deframer::default(), BytesMut::new(), vec![0; 64 << 10]);
    while let Ok(n @ 1..) = from.read(&mut piece) {
        buf.extend_from_slice(&piece[..n]);
        while let Frame::Record(record) = deframer.next(&mut buf).unwrap() {
            let mut record = record.to_vec();
            see(&mut record);
            let mut out = BytesMut::new();
            frame::append(&mut out, |w| w.extend_from_slice(&record));
            if to.write_all(&out).is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both); // It has ended too.
}

#[test]
fn wrong_content_is_seen_and_fails_the_run() {
    let ensemble = Ensemble::start("load-liar", Options::new(Policy::Partition, Layout::OneProcess)).unwrap();
    let liar = Liar::before(ensemble.port());
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let output = load(ensemble.binary(), "sfs", liar.port, &json, &TINY);
    assert!(!output.status.success(), "it did not see that every READ was wrong");
    let result = RunResult::read(&json).unwrap();
    let kinds: Vec<_> = result.mistakes.kinds.iter().map(|k| (k.proc.as_str(), k.what.as_str())).collect();
    assert_eq!(kinds, [("READ", "wrong content")]);
    let Figures::Sfs { points, .. } = &result.figures else { panic!("another workload's figures") };
    let read = points[1].procs.iter().any(|p| p.proc == "READ");
    assert!(!read, "wrong replies are not counted as delivered");
}
