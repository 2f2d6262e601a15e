//! Holds of peers' operations, message by message: in orders that a whole ensemble seldom shows.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::cluster::ME;
use common::{Client, Cluster, run};
use futures_util::poll;
use slice_proto::ids::{FileId, ServerId, TableEpoch};
use slice_proto::nfs3::Sattr3;
use slice_proto::peer::dir::{
    AttrEffect, ConfirmArgs, DirRes, DropArgs, Effect, HoldArgs, HoldKey, HoldMode, HoldPart, HoldRes, OpId,
    ReconcileArgs, ReconcileRes,
};
use slice_proto::peer::{PeerProc, PrivateStatus};
use slice_proto::table::NamePolicy;
use std::pin::pin;

/// An operation of the second life of a server that only this test plays.
const fn op(n: u64) -> OpId {
    OpId { sender: ME, seq: (2 << OpId::COUNT_BITS) + n }
}

const fn attr(file: FileId) -> HoldKey {
    HoldKey { site: file.home(), file, part: HoldPart::Attr }
}

fn hold(op: OpId, key: HoldKey, mode: HoldMode, share: bool) -> HoldArgs {
    HoldArgs { table: TableEpoch(1), op, settled: 0, key, mode, share }
}

fn touch(file: FileId) -> Effect {
    Effect::Attr(AttrEffect {
        file,
        now_ns: 1,
        base_ns: 0,
        nlink: 0,
        entries: 0,
        mtime: false,
        parent: None,
        remove: false,
    })
}

/// The root directory and a file that live at one server, and that server.
async fn two_records(client: &Client) -> (FileId, FileId, ServerId) {
    let top = client.root_fh();
    let dir = client.open(&top).file;
    let server = client.owner(dir.home());
    for i in 0..64 {
        let file = client.file(&top, format!("f{i}").as_bytes(), 0o644).await.unwrap();
        let file = client.open(&file).file;
        if client.owner(file.home()) == server {
            return (dir, file, server);
        }
    }
    panic!("64 files, and none beside its directory");
}

/// Whoever is to have an effect carried out on a record that another holds must not keep that other waiting for what he
/// holds himself: here by way of a third who stands in the queue between them.
#[test]
fn who_waits_to_carry_out_an_effect_frees_what_he_holds_first() {
    run(async || {
        let c = Cluster::new(2, NamePolicy::Hash).await;
        let (one, two) = (Client::root(&c), Client::root(&c));
        let (dir, file, server) = two_records(&one).await;
        let ask = async |args: HoldArgs| one.private::<HoldRes>(server, PeerProc::Hold, &args).await;
        let remover = op(1);
        let linker = op(2);
        // A removal shares the directory; its file, whose link goes, is only named by its effect.
        assert_eq!(ask(hold(remover, attr(dir), HoldMode::Wait, true)).await.status, 0);
        // A link of that file holds it, and wants to share the directory, too.
        assert_eq!(ask(hold(linker, attr(file), HoldMode::Wait, false)).await.status, 0);
        // A third wants the directory for himself, and queues; the link queues behind him.
        let top = two.root_fh();
        let mode = Sattr3 { mode: Some(0o755), ..Sattr3::default() };
        let mut third = pin!(two.setattr(&top, mode, None));
        assert!(poll!(&mut third).is_pending());
        one.getattr(&top).await.unwrap();
        let mut linking = pin!(ask(hold(linker, attr(dir), HoldMode::Wait, true)));
        assert!(poll!(&mut linking).is_pending());
        one.getattr(&top).await.unwrap();
        let confirm = ConfirmArgs {
            table: TableEpoch(1),
            op: remover,
            settled: 0,
            effects: vec![touch(file), touch(dir)],
        };
        let mut removing = pin!(one.private::<DirRes>(server, PeerProc::Confirm, &confirm));
        assert!(poll!(&mut removing).is_pending());
        third.await.unwrap();
        assert_eq!(linking.await.status, 0);
        // Not before the link lets go of the file is the removal's last effect carried out.
        let drop = DropArgs { op: linker, durable: false };
        assert_eq!(one.private::<DirRes>(server, PeerProc::Drop, &drop).await.status, 0);
        assert_eq!(removing.await.status, 0);
        // The same message again is answered, and does nothing.
        let before = one.getattr(&top).await.unwrap();
        let again: DirRes = one.private(server, PeerProc::Confirm, &confirm).await;
        assert_eq!(again.status, 0);
        assert_eq!(one.getattr(&top).await.unwrap(), before);
        c.settle().await;
        common::check::consistent(&c).await;
    });
}

/// What was on its way when its sender died must not hold anything once the sender has said that it lives again: nobody
/// would ever drop it.
#[test]
fn a_hold_of_an_earlier_life_comes_too_late() {
    run(async || {
        let c = Cluster::new(1, NamePolicy::Partition).await;
        let client = Client::root(&c);
        let dir = client.open(&client.root_fh()).file;
        let server = ServerId(1);
        let reconcile = ReconcileArgs { sender: ME, boot: 3, owed: Vec::new() };
        let res: ReconcileRes = client.private(server, PeerProc::Reconcile, &reconcile).await;
        assert_eq!(res.status, 0);
        for mode in [HoldMode::Wait, HoldMode::Try, HoldMode::New] {
            let late: HoldRes =
                client.private(server, PeerProc::Hold, &hold(op(1), attr(dir), mode, false)).await;
            assert_eq!(late.status, PrivateStatus::Retry as u32, "{mode:?}");
        }
        let now = OpId { sender: ME, seq: (3 << OpId::COUNT_BITS) + 1 };
        for mode in [HoldMode::Wait, HoldMode::New] {
            let held: HoldRes =
                client.private(server, PeerProc::Hold, &hold(now, attr(dir), mode, false)).await;
            assert_eq!(held.status, 0, "{mode:?}");
        }
        let drop = DropArgs { op: now, durable: true };
        assert_eq!(client.private::<DirRes>(server, PeerProc::Drop, &drop).await.status, 0);
        c.settle().await;
        assert!(client.getattr(&client.root_fh()).await.is_ok());
    });
}
