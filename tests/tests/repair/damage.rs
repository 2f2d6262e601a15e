//! Damages the stores of an ensemble that stands still, byte by byte, as `dirserver/src/{keys,records,bucket}.rs` and
//! `smallfile/src/core/record.rs` lay them out.

use slice_proto::ids::{EnsembleId, FileId, Role, ServerId, Site};
use slice_proto::placement::small_site;
use slice_store::{Batch, Direction, EngineKind, KeyRange, Store, StoreStamp};
use std::path::Path;

/// All stores.
pub struct Stores {
    dirs: Vec<Store>,
    smalls: Vec<Store>,
}

/// An entry of a bucket: tie-breaker, type, policy, file, name.
#[derive(Clone)]
struct Entry {
    tie: u16,
    ftype: u8,
    policy: [u8; 4],
    file: FileId,
    name: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What a store is stamped with: `store/src/stamp.rs`.
fn stamp(dir: &Path) -> Option<StoreStamp> {
    let bytes = std::fs::read(dir.join("store/stamp")).ok()?;
    assert_eq!(half(&bytes, 8), 1, "another engine than fjall");
    Some(StoreStamp {
        ensemble: EnsembleId(word(&bytes, 16)),
        server: ServerId(word(&bytes, 24)),
        role: Role::from_u32(half(&bytes, 32)).unwrap(),
        format: half(&bytes, 12),
    })
}

fn key(prefix: u8, file: FileId) -> Vec<u8> {
    [&[prefix][..], &file.0.to_be_bytes()].concat()
}

fn site_key(prefix: u8, site: Site) -> Vec<u8> {
    [&[prefix][..], &site.0.to_be_bytes()].concat()
}

fn entries(bucket: &[u8]) -> Vec<Entry> {
    let (mut all, mut at) = (Vec::new(), 1);
    while at < bucket.len() {
        let e = &bucket[at..];
        let len = usize::from(e[3]);
        all.push(Entry {
            tie: u16::from_be_bytes([e[0], e[1]]),
            ftype: e[2],
            policy: e[4..8].try_into().unwrap(),
            file: FileId(word(e, 8)),
            name: e[16..16 + len].to_vec(),
        });
        at += 16 + len;
    }
    all
}

fn bucket(entries: &[Entry]) -> Vec<u8> {
    let mut all = vec![1];
    for e in entries {
        all.extend(e.tie.to_be_bytes());
        all.extend([e.ftype, e.name.len() as u8]);
        all.extend(e.policy);
        all.extend(e.file.0.to_be_bytes());
        all.extend(&e.name);
    }
    all
}

impl Stores {
    /// Opens them all.
    pub fn open(data: &Path) -> Self {
        let mut stores = Self { dirs: Vec::new(), smalls: Vec::new() };
        for entry in std::fs::read_dir(data).unwrap() {
            let dir = entry.unwrap().path();
            let Some(stamp) = stamp(&dir) else { continue };
            let list = match stamp.role {
                Role::Dir => &mut stores.dirs,
                Role::Small => &mut stores.smalls,
                _ => continue,
            };
            list.push(Store::open(&dir, EngineKind::Fjall, stamp).unwrap());
        }
        assert!(stores.dirs.len() > 1 && !stores.smalls.is_empty(), "{}", data.display());
        stores
    }

    /// Makes everything durable, and closes them.
    pub fn close(self) {
        for store in self.dirs.iter().chain(&self.smalls) {
            store.flush().unwrap();
        }
    }

    fn home(&self, file: FileId) -> &Store {
        let mine = |s: &&Store| s.get(&site_key(b'S', file.home())).unwrap().is_some();
        self.dirs.iter().find(mine).unwrap()
    }

    fn small(&self, file: FileId) -> &Store {
        let mine = |s: &&Store| s.get(&site_key(b's', small_site(file))).unwrap().is_some();
        self.smalls.iter().find(mine).unwrap()
    }

    fn put(store: &Store, key: Vec<u8>, value: Option<Vec<u8>>) {
        let mut batch = Batch::new();
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        };
        store.submit(batch).unwrap();
    }

    // === attribute records ===

    fn attr(&self, file: FileId, at: usize, bytes: &[u8]) {
        let store = self.home(file);
        let mut record = store.get(&key(b'A', file)).unwrap().unwrap().to_vec();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        Self::put(store, key(b'A', file), Some(record));
    }

    pub fn delete_attr(&self, file: FileId) {
        let store = self.home(file);
        assert!(store.get(&key(b'A', file)).unwrap().is_some());
        Self::put(store, key(b'A', file), None);
    }

    pub fn set_ftype(&self, file: FileId, ftype: u8) {
        self.attr(file, 1, &[ftype]);
    }

    pub fn set_nlink(&self, file: FileId, nlink: u32) {
        self.attr(file, 16, &nlink.to_be_bytes());
    }

    pub fn set_size(&self, file: FileId, size: u64) {
        self.attr(file, 36, &size.to_be_bytes());
    }

    pub fn set_reach(&self, file: FileId, reach: u64) {
        self.attr(file, 84, &reach.to_be_bytes());
    }

    pub fn set_parent(&self, file: FileId, parent: FileId) {
        self.attr(file, 92, &parent.0.to_be_bytes());
    }

    pub fn set_entries(&self, file: FileId, entries: u64) {
        self.attr(file, 100, &entries.to_be_bytes());
    }

    fn strange(&self, file: FileId) -> &Store {
        self.dirs.iter().find(|s| s.get(&site_key(b'S', file.home())).unwrap().is_none()).unwrap()
    }

    /// Another server has the record, too.
    pub fn copy_attr(&self, file: FileId) {
        let record = self.home(file).get(&key(b'A', file)).unwrap().unwrap();
        Self::put(self.strange(file), key(b'A', file), Some(record.to_vec()));
    }

    pub fn delete_strange_attr(&self, file: FileId) {
        Self::put(self.strange(file), key(b'A', file), None);
    }

    // === names ===

    /// Changes the bucket in which a name is.
    fn bucket(&self, dir: FileId, name: &str, change: impl Fn(&mut Vec<Entry>, usize)) {
        for store in &self.dirs {
            for pair in store.iter(KeyRange::prefix(key(b'E', dir)), Direction::Forward) {
                let (at, value) = pair.unwrap();
                let mut all = entries(&value);
                if let Some(i) = all.iter().position(|e| e.name == name.as_bytes()) {
                    change(&mut all, i);
                    let value = (!all.is_empty()).then(|| bucket(&all));
                    return Self::put(store, at.to_vec(), value);
                }
            }
        }
        panic!("{name} is not in {dir}");
    }

    /// The name goes, and nothing else.
    pub fn rename_away(&self, dir: FileId, name: &str) {
        self.bucket(dir, name, |all, i| drop(all.remove(i)));
    }

    /// The name is there twice.
    pub fn double(&self, dir: FileId, name: &str) {
        self.bucket(dir, name, |all, i| {
            let mut twin = all[i].clone();
            twin.tie += 1;
            all.insert(i + 1, twin);
        });
    }

    /// The name stands for something else.
    pub fn stand_for(&self, dir: FileId, name: &str, file: FileId, ftype: u8) {
        self.bucket(dir, name, |all, i| (all[i].file, all[i].ftype) = (file, ftype));
    }

    // === objects at small-file servers ===

    fn object(&self, file: FileId, change: impl Fn(&mut Vec<u8>)) {
        let store = self.small(file);
        let mut record = store.get(&key(b'o', file)).unwrap().unwrap().to_vec();
        change(&mut record);
        Self::put(store, key(b'o', file), Some(record));
    }

    pub fn set_beyond(&self, file: FileId, beyond: bool) {
        self.object(file, |r| r[1] = if beyond { r[1] | 2 } else { r[1] & !2 });
    }

    pub fn set_small_epoch(&self, file: FileId, epoch: u64) {
        self.object(file, |r| r[8..16].copy_from_slice(&epoch.to_be_bytes()));
    }

    /// A tombstone in its place.
    pub fn bury(&self, file: FileId) {
        self.object(file, |r| {
            r[1] = 1;
            r[2] = 0;
            r[4..8].fill(0);
            r.truncate(16);
            r.extend(1u64.to_be_bytes());
        });
    }

    /// An object of `size` zeros.
    pub fn put_small(&self, file: FileId, size: u32) {
        let record = [&[1, 0, 0, 0][..], &size.to_be_bytes(), &1u64.to_be_bytes()].concat();
        Self::put(self.small(file), key(b'o', file), Some(record));
    }
}
