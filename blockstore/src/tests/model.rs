//! Random sequences against a plain vector of bytes.

use super::harness::*;
use proptest::prelude::*;
use slice_proto::ids::{FileId, Role};
use slice_proto::nfs3::StableHow;
use slice_proto::placement::{THRESHOLD, block_site};
use std::collections::HashMap;

const FILES: u64 = 3;
/// Files end here: four stripe units and a half.
const END: u64 = (4 << 20) + (1 << 19);

#[derive(Debug, Clone)]
enum Op {
    Write { file: u64, offset: u64, len: u32, fill: u8, stable: StableHow },
    Read { file: u64, offset: u64, len: u32 },
    Truncate { file: u64, size: u64 },
    Purge { file: u64 },
    Commit { file: u64 },
    Crash,
}

fn offset() -> impl Strategy<Value = u64> {
    // Near the borders more often than elsewhere.
    let border =
        (0u64..5, 0u64..200).prop_map(|(unit, by)| (unit << 20).saturating_add(by).saturating_sub(100));
    prop_oneof![border, Just(THRESHOLD), THRESHOLD..END].prop_map(|o| o.max(THRESHOLD))
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0u32..300, 1 => 0u32..40_000, 1 => 0u32..1 << 20]
}

fn op() -> impl Strategy<Value = Op> {
    let file = 0..FILES;
    let stable = prop_oneof![4 => Just(StableHow::Unstable), 1 => Just(StableHow::FileSync)];
    prop_oneof![
        8 => (file.clone(), offset(), len(), 1u8.., stable)
            .prop_map(|(file, offset, len, fill, stable)| Op::Write { file, offset, len, fill, stable }),
        8 => (file.clone(), offset(), len()).prop_map(|(file, offset, len)| Op::Read { file, offset, len }),
        3 => (file.clone(), prop_oneof![offset(), 0..END])
            .prop_map(|(file, size)| Op::Truncate { file, size }),
        1 => file.clone().prop_map(|file| Op::Purge { file }),
        1 => file.prop_map(|file| Op::Commit { file }),
        1 => Just(Op::Crash),
    ]
}

#[derive(Default)]
struct Model {
    /// Bytes that the server holds, at their offsets in the file; what is not here is not there.
    bytes: Vec<u8>,
    epoch: u64,
    /// How often the file was purged: each time, a new file takes its place.
    life: u64,
}

impl Model {
    fn id(&self, file: u64) -> FileId {
        FileId(1 + file + self.life * FILES)
    }
}

async fn check(ops: Vec<Op>) {
    // Every other site is another server's.
    let mut h = Harness::new(|s| s % 3 != 0).await;
    let table = table(TABLE.0, |s| s % 3 != 0);
    let mut models: HashMap<u64, Model> = HashMap::new();
    for op in ops {
        match op {
            Op::Write { file, offset, len, fill, stable } => {
                let m = models.entry(file).or_default();
                let id = m.id(file);
                let end = (offset + u64::from(len)).min(END);
                let data = vec![fill; end.saturating_sub(offset) as usize];
                let got = h.write(id, m.epoch, offset, &data, stable).await;
                if !all_ours(&table, id, offset, data.len()) {
                    got.unwrap_err();
                    continue;
                }
                assert_eq!(got.unwrap().0 as usize, data.len());
                if !data.is_empty() {
                    m.bytes.resize(m.bytes.len().max(end as usize), 0);
                    m.bytes[offset as usize..end as usize].copy_from_slice(&data);
                }
            }
            Op::Read { file, offset, len } => {
                let m = models.entry(file).or_default();
                let id = m.id(file);
                let got = h.read(id, offset, len).await;
                if !all_ours(&table, id, offset, len as usize) {
                    got.unwrap_err();
                    continue;
                }
                let end = m.bytes.len().min(offset as usize + len as usize);
                let want = m.bytes.get(offset as usize..end).unwrap_or_default();
                let (data, eof) = got.unwrap();
                assert!(data == want, "READ {offset}+{len} of {id}");
                assert_eq!(eof, want.len() < len as usize);
            }
            Op::Truncate { file, size } => {
                let m = models.entry(file).or_default();
                m.epoch += 1;
                h.truncate(m.id(file), m.epoch, size).await.unwrap();
                let size = if size <= THRESHOLD { 0 } else { size as usize };
                m.bytes.truncate(size);
                // Nothing between our stripe units is held.
                let id = m.id(file);
                while !m.bytes.is_empty() && !all_ours(&table, id, m.bytes.len() as u64 - 1, 1) {
                    let unit = (m.bytes.len() - 1) & !((1 << 20) - 1);
                    m.bytes.truncate(unit);
                }
                if m.bytes.len() <= THRESHOLD as usize {
                    m.bytes.clear();
                }
            }
            Op::Purge { file } => {
                let m = models.entry(file).or_default();
                h.purge(m.id(file), m.epoch + 1).await.unwrap();
                *m = Model { life: m.life + 1, ..Model::default() };
            }
            Op::Commit { file } => {
                let m = models.entry(file).or_default();
                h.commit(m.id(file)).await.unwrap();
            }
            Op::Crash => h.crash().await,
        }
    }
    let listed: HashMap<_, _> = h.list(FileId(0), 1000).await.into_iter().map(|o| (o.file, o)).collect();
    for (file, m) in &models {
        for life in 0..m.life {
            let old = Model { life, ..Model::default() }.id(*file);
            assert!(listed[&old].tombstone, "a tombstone of {old}");
        }
        let (size, tombstone) = listed.get(&m.id(*file)).map_or((0, false), |o| (o.size, o.tombstone));
        assert_eq!((size, tombstone), (m.bytes.len() as u64, false));
    }
}

fn all_ours(table: &slice_proto::table::RoutingTable, file: FileId, offset: u64, len: usize) -> bool {
    let last = offset + (len as u64).saturating_sub(1);
    (offset >> 20..=last >> 20).all(|unit| table.owner(Role::Block, block_site(file, unit << 20)) == Some(ME))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn random_sequences_do_what_a_vector_does(ops in proptest::collection::vec(op(), 1..60)) {
        run(async || check(ops).await);
    }
}
