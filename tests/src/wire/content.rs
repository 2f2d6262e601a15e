//! A file's bytes as they must be: written, cut and read beside the real ones.

use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{StableHow, Verifier};

use super::answer::Expect;
use super::stage::size;

/// Bytes below it live at the file's small-file site (DESIGN §2).
pub const THRESHOLD: u64 = 64 << 10;
/// Stripe unit (DESIGN §2).
pub const UNIT: u64 = 1 << 20;
/// Most bytes of one READ or WRITE (DESIGN §12).
pub const MOST: usize = 1 << 20;

/// Bytes that differ at every offset and in every round, and are never zero.
#[must_use]
pub fn pattern(round: u64, offset: u64, len: usize) -> Vec<u8> {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    // Of the product, because a round's own low bits are in no byte that is looked at.
    let round = round.wrapping_mul(ODD);
    let byte = |at: u64| (at.wrapping_mul(ODD).rotate_left(23) ^ round).to_le_bytes()[3] | 1;
    (0..len as u64).map(|i| byte(offset + i)).collect()
}

/// Writes all of `data` in calls of at most [`MOST`] bytes; the verifiers of all replies.
pub async fn write_all(c: &Client, file: &Fh, offset: u64, data: &[u8], how: StableHow) -> Vec<Verifier> {
    let (mut done, mut verifiers) = (0, Vec::new());
    while done < data.len() {
        let part = &data[done..data.len().min(done + MOST)];
        let ok = c.write(file, offset + done as u64, part, how).await.good();
        assert!(
            ok.count > 0 && ok.count as usize <= part.len(),
            "{} bytes of {} written",
            ok.count,
            part.len()
        );
        assert!(ok.committed >= how, "asked for {how:?}, got {:?}", ok.committed);
        verifiers.push(ok.verf);
        done += ok.count as usize;
    }
    verifiers
}

/// Reads a range in one call that the server must fill up to the end of the file.
pub async fn read(c: &Client, file: &Fh, offset: u64, count: u32) -> (Vec<u8>, bool) {
    let got = c.read(file, offset, count).await.good();
    (got.data.to_vec(), got.eof)
}

/// Reads `len` bytes from `offset`, or up to the end of the file.
pub async fn read_all(c: &Client, file: &Fh, offset: u64, len: u64) -> Vec<u8> {
    let mut all = Vec::new();
    while (all.len() as u64) < len {
        let count = (len - all.len() as u64).min(MOST as u64) as u32;
        let (data, eof) = read(c, file, offset + all.len() as u64, count).await;
        assert!(eof || !data.is_empty(), "no byte and no end at {}", offset + all.len() as u64);
        all.extend(data);
        if eof {
            break;
        }
    }
    all
}

/// A file and what must be in it.
#[derive(Debug)]
pub struct Content {
    pub file: Fh,
    pub bytes: Vec<u8>,
    round: u64,
}

impl Content {
    /// Of an empty file.
    #[must_use]
    pub fn new(file: Fh) -> Self {
        Self { file, bytes: Vec::new(), round: 0 }
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Writes bytes that were never there before.
    pub async fn write(&mut self, c: &Client, offset: u64, len: usize, how: StableHow) -> Vec<Verifier> {
        self.round += 1;
        let data = pattern(self.round, offset, len);
        let end = offset as usize + len;
        if self.bytes.len() < end && len > 0 {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset as usize..end.max(offset as usize)].copy_from_slice(&data);
        write_all(c, &self.file, offset, &data, how).await
    }

    /// Sets the size.
    pub async fn truncate(&mut self, c: &Client, to: u64) {
        self.bytes.resize(to as usize, 0);
        c.setattr(&self.file, size(to), None).await.good();
    }

    /// Reads a range and compares bytes and end.
    pub async fn check_range(&self, c: &Client, offset: u64, count: u32) {
        let (got, eof) = read(c, &self.file, offset, count).await;
        let from = (offset as usize).min(self.bytes.len());
        let to = (from + count as usize).min(self.bytes.len());
        let at = || format!("{count} bytes at {offset} of {}", self.bytes.len());
        assert_same(&got, &self.bytes[from..to], offset, &at());
        // RFC 1813 §3.3.6: whether the read ended at the end of the file. Nothing read: only past the end.
        let end = offset + got.len() as u64 >= self.size();
        assert_eq!(eof, end, "the end of file in {}", at());
    }

    /// Compares size and every byte.
    pub async fn check(&self, c: &Client) {
        assert_eq!(c.getattr(&self.file).await.good().size, self.size(), "the size");
        let mut at = 0;
        loop {
            self.check_range(c, at, MOST as u32).await;
            at += MOST as u64;
            if at >= self.size() {
                break;
            }
        }
        self.check_range(c, self.size(), 10).await;
    }
}

/// Fails with the first offset that differs, not with a megabyte of bytes.
#[track_caller]
pub fn assert_same(got: &[u8], want: &[u8], offset: u64, what: &str) {
    if let Some(at) = got.iter().zip(want).position(|(a, b)| a != b) {
        panic!("{what}: byte {} is {:#x} instead of {:#x}", offset + at as u64, got[at], want[at]);
    }
    assert_eq!(got.len(), want.len(), "{what}: the count");
}
