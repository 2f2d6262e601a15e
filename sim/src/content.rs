//! One client's data file: what it has written, what of that is promised, and what a READ may show.
//!
//! The file is judged in cells of 512 bytes, each filled with the number of the write that last filled it. A cell shows what
//! is promised (committed under the verifier of its write, or written stable) or what was written since; nothing else, and
//! once all is committed nothing but that. So what was uncommitted may vanish, but only together with a verifier that is
//! another (I7): a COMMIT under the same verifier makes it a promise.

use crate::client::Client;
use crate::ops::Obj;
use rand::Rng;
use rand::rngs::StdRng;
use slice_proto::nfs3::*;
use slice_proto::xdr::{Decode, Reader};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Bytes of a cell.
const CELL: u64 = 512;
/// Where writes begin, more or less: the small-file part, the threshold, the first unit's end, further units.
const PLACES: [u64; 6] = [0, 40, 120, 128, 2040, 4090];

/// A write that a cell may show, and under which verifier it was answered.
type Pending = (u32, Option<Verifier>);

/// What may be seen of a data file.
#[derive(Debug, Default)]
pub struct Content {
    /// Cells that are promised; none: zeros.
    promised: BTreeMap<u64, u32>,
    /// The end that is promised, in cells.
    promised_end: u64,
    /// The furthest end that may be seen.
    end: u64,
    /// Of each cell what was written since it was promised, the last at the end.
    pending: BTreeMap<u64, Vec<Pending>>,
    writes: u32,
}

/// A data file, shared by its writer and readers.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// The file.
    pub obj: Obj,
    fh: Vec<u8>,
    content: Rc<RefCell<Content>>,
}

impl Content {
    /// Whether a cell may show this: what is promised, or what is not and was written since. Of the latter a power cut may have
    /// left a part, up to any byte.
    fn may_show(&self, cell: u64, data: &[u8]) -> bool {
        let promised = self.promised.get(&cell).copied().unwrap_or_default();
        let pending = self.pending.get(&cell).into_iter().flatten().map(|p| p.0);
        let may: Vec<[u8; 4]> = pending.chain([promised]).map(u32::to_be_bytes).collect();
        (0..4).cycle().zip(data).all(|(at, byte)| may.iter().any(|number| number[at] == *byte))
    }

    fn promise(&mut self, cell: u64, number: u32) {
        self.promised.insert(cell, number);
        self.promised_end = self.promised_end.max(cell + 1);
    }

    fn written(&mut self, cells: Range<u64>, number: u32, verf: Verifier) {
        for (_, all) in self.pending.range_mut(cells) {
            all.iter_mut().filter(|p| p.0 == number).for_each(|p| p.1 = Some(verf));
        }
    }

    /// A COMMIT was answered; what is to be written again, in pieces.
    fn committed(&mut self, verf: Verifier) -> Vec<(Range<u64>, u32)> {
        let mut again: Vec<(Range<u64>, u32)> = Vec::new();
        for (cell, all) in std::mem::take(&mut self.pending) {
            let Some(&(number, under)) = all.last() else { continue };
            if under == Some(verf) {
                self.promise(cell, number);
                continue;
            }
            self.pending.insert(cell, all);
            match again.last_mut() {
                Some((cells, n)) if cells.end == cell && *n == number => cells.end += 1,
                _ => again.push((cell..cell + 1, number)),
            }
        }
        again
    }

    fn cut(&mut self, end: u64) {
        self.promised.retain(|cell, _| *cell < end);
        self.pending.retain(|cell, _| *cell < end);
        (self.promised_end, self.end) = (end, end);
    }
}

impl DataFile {
    /// An empty file.
    #[must_use]
    pub fn new(obj: Obj, fh: Vec<u8>) -> Self {
        Self { obj, fh, content: Rc::default() }
    }

    async fn put(&self, client: &Client, cells: Range<u64>, number: u32, stable: StableHow) -> WriteOk {
        let data = number.to_be_bytes().repeat(((cells.end - cells.start) * CELL / 4) as usize);
        let (offset, count) = (cells.start * CELL, data.len() as u32);
        let args = WriteArgs { file: &self.fh, offset, count, stable, data: &data };
        let ok = self.ok(client.ask::<WriteRes>(Proc3::Write, &args).await);
        assert_eq!(ok.count, count, "a WRITE is done in part");
        assert!(stable == StableHow::Unstable || ok.committed == StableHow::FileSync, "{:?}", ok.committed);
        ok
    }

    fn ok<T, F>(&self, res: Res3<T, F>) -> T {
        match res {
            Res3::Ok(ok) => ok,
            Res3::Err(status, _) => panic!("file {:x}: NFS3ERR_{}", self.obj, status.name()),
        }
    }

    /// Its writer writes somewhere.
    pub async fn write(&self, client: &Client, rng: &mut StdRng) {
        let stable = if rng.random_bool(0.25) { StableHow::FileSync } else { StableHow::Unstable };
        let first = PLACES[rng.random_range(0..PLACES.len())] + rng.random_range(0..6);
        let cells = first..first + rng.random_range(1..=16);
        let number = {
            let mut c = self.content.borrow_mut();
            c.writes += 1;
            let number = c.writes;
            cells.clone().for_each(|cell| c.pending.entry(cell).or_default().push((number, None)));
            c.end = c.end.max(cells.end);
            number
        };
        let ok = self.put(client, cells.clone(), number, stable).await;
        client.note(|| format!("file {:x}: cells {cells:?} written {stable:?} as {number}", self.obj));
        let mut c = self.content.borrow_mut();
        if stable == StableHow::Unstable {
            return c.written(cells, number, ok.verf);
        }
        for cell in cells {
            c.pending.remove(&cell);
            c.promise(cell, number);
        }
    }

    /// Its writer commits, as often as a verifier changes between a write and its commit. Written again is what a cell
    /// should show last.
    pub async fn commit(&self, client: &Client) {
        loop {
            let args = CommitArgs { file: &self.fh, offset: 0, count: 0 };
            let verf = self.ok(client.ask::<CommitRes>(Proc3::Commit, &args).await).verf;
            let again = self.content.borrow_mut().committed(verf);
            client.note(|| format!("file {:x}: committed but {again:?}", self.obj));
            if again.is_empty() {
                return;
            }
            for (cells, number) in again {
                let ok = self.put(client, cells.clone(), number, StableHow::Unstable).await;
                self.content.borrow_mut().written(cells, number, ok.verf);
            }
        }
    }

    /// Its writer cuts it, or lets it grow.
    pub async fn truncate(&self, client: &Client, rng: &mut StdRng) {
        let end = [0, 10, 100, 128, 500, 4092][rng.random_range(0..6)];
        let attr = Sattr3 { size: Some(end * CELL), ..Sattr3::default() };
        let args = SetattrArgs { object: &self.fh, attr, guard: None };
        self.ok(client.ask::<SetattrRes>(Proc3::Setattr, &args).await);
        client.note(|| format!("file {:x}: cut to cell {end}", self.obj));
        self.content.borrow_mut().cut(end);
    }

    /// Anybody reads somewhere.
    pub async fn read(&self, client: &Client, rng: &mut StdRng, owner: bool) {
        let first = PLACES[rng.random_range(0..PLACES.len())] + rng.random_range(0..6);
        self.read_at(client, first, rng.random_range(1..=32), owner).await;
    }

    async fn read_at(&self, client: &Client, first: u64, cells: u64, owner: bool) -> u64 {
        let args = ReadArgs { file: &self.fh, offset: first * CELL, count: (cells * CELL) as u32 };
        let body = client.call(Proc3::Read, &args).await;
        let res = ReadRes::decode(&mut Reader::new(&body)).expect("a result");
        let ok = self.ok(res);
        assert_eq!(ok.count as usize, ok.data.len());
        if !owner {
            // Another's READ may be older than what it shows: only the owner's, whose calls follow each other, is judged.
            return ok.data.len() as u64;
        }
        let c = self.content.borrow();
        for (cell, data) in (first..).zip(ok.data.chunks(CELL as usize)) {
            assert!(
                data.len() == CELL as usize,
                "the end lies within a cell: {} of {first}+{cells}",
                ok.count
            );
            let (first, last) = (&data[..4], &data[data.len() - 4..]);
            assert!(
                c.may_show(cell, data),
                "file {:x} cell {cell} shows {first:?} to {last:?}; promised {:?}, pending {:?}",
                self.obj,
                c.promised.get(&cell),
                c.pending.get(&cell)
            );
        }
        let got = first + ok.data.len() as u64 / CELL;
        let least = c.promised_end.min(first + cells).max(first);
        let most = c.end.min(first + cells).max(first);
        assert!((least..=most).contains(&got), "READ of {first}+{cells} ends at {got}, not {least}..={most}");
        assert!(ok.eof || got == first + cells, "a short READ, and not the end of the file");
        assert!(!ok.eof || got >= c.promised_end, "an end of file at {got}, promised is {}", c.promised_end);
        ok.data.len() as u64
    }

    /// Everything is committed: another client, through another µproxy, sees it bit for bit (I5).
    pub async fn check(&self, other: &Client) {
        let res: GetattrRes = other.ask(Proc3::Getattr, &GetattrArgs { object: &self.fh }).await;
        let size = res.into_result().expect("it is there").size;
        {
            let c = self.content.borrow();
            assert!(c.pending.is_empty());
            assert_eq!(size, c.end * CELL, "the size of file {:x}", self.obj);
            assert_eq!(c.promised_end, c.end);
        }
        for place in PLACES {
            self.read_at(other, place, 32, true).await;
        }
    }
}
