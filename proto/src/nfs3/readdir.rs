//! READDIR, READDIRPLUS (RFC 1813 sections 3.3.16, 3.3.17).
//!
//! A server writes a [`ReaddirOkHead`], then entries for as long as [`Entry::encoded_len`] fits, then
//! [`encode_end`]. A reader that wants no allocation takes the head and then [`next_entry`] until `None`.

use super::attr::{Fattr3, PostOpAttr};
use super::res::Res3;
use super::types::CookieVerf;
use crate::ids::FileId;
use crate::xdr::{Decode, Encode, Put, Reader, Result, padding};
use bytes::BytesMut;

wire! {
    /// Arguments of READDIR (3.3.16).
    pub struct ReaddirArgs<'a> {
        /// The directory.
        pub dir: &'a [u8] => fh,
        /// Where to go on; 0 for the start.
        pub cookie: u64 => val,
        /// The verifier that came with the cookie.
        pub verf: CookieVerf => val,
        /// Most bytes of the result, XDR overhead included.
        pub count: u32 => val,
    }

    /// Arguments of READDIRPLUS (3.3.17).
    pub struct ReaddirplusArgs<'a> {
        /// The directory.
        pub dir: &'a [u8] => fh,
        /// Where to go on; 0 for the start.
        pub cookie: u64 => val,
        /// The verifier that came with the cookie.
        pub verf: CookieVerf => val,
        /// Most bytes of fileids, names and cookies.
        pub dircount: u32 => val,
        /// Most bytes of the result, XDR overhead included.
        pub maxcount: u32 => val,
    }

    /// The results of READDIR and READDIRPLUS up to the first entry.
    pub struct ReaddirOkHead {
        /// The directory's attributes.
        pub dir_attr: PostOpAttr => val,
        /// To be given back with a cookie.
        pub verf: CookieVerf => val,
    }

    /// `entry3`: an entry of READDIR.
    pub struct Entry<'a> {
        /// The object.
        pub fileid: FileId => val,
        /// Its name.
        pub name: &'a [u8] => name,
        /// Where the next entry begins.
        pub cookie: u64 => val,
    }

    /// `entryplus3`: an entry of READDIRPLUS.
    pub struct EntryPlus<'a> {
        /// What READDIR says.
        pub entry: Entry<'a> => val,
        /// The object's attributes.
        pub attr: PostOpAttr => val,
        /// The object's handle.
        pub handle: Option<&'a [u8]> => post_fh,
    }
}

/// Results of READDIR.
pub type ReaddirOk<'a> = Listing<Entry<'a>>;
/// Results of READDIRPLUS.
pub type ReaddirplusOk<'a> = Listing<EntryPlus<'a>>;
/// Result of READDIR; a failure carries the directory's attributes.
pub type ReaddirRes<'a> = Res3<ReaddirOk<'a>, PostOpAttr>;
/// Result of READDIRPLUS; a failure carries the directory's attributes.
pub type ReaddirplusRes<'a> = Res3<ReaddirplusOk<'a>, PostOpAttr>;

/// Bytes of [`encode_end`].
pub const END_LEN: usize = 8;

/// The results of READDIR or READDIRPLUS, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<E> {
    /// The directory's attributes.
    pub dir_attr: PostOpAttr,
    /// To be given back with a cookie.
    pub verf: CookieVerf,
    /// The entries.
    pub entries: Vec<E>,
    /// Whether the last entry is the directory's last.
    pub eof: bool,
}

// === impl ReaddirOkHead ===

impl ReaddirOkHead {
    /// Bytes on the wire, without the status before it.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        post_op_attr_len(&self.dir_attr) + super::NFS3_COOKIEVERFSIZE
    }
}

const fn post_op_attr_len(attr: &PostOpAttr) -> usize {
    if attr.is_some() { 4 + Fattr3::ENCODED_LEN } else { 4 }
}

// === impl Entry ===

impl Entry<'_> {
    /// Bytes of directory information, as READDIRPLUS's dircount counts them: fileid, name, cookie.
    #[must_use]
    pub const fn dircount_len(&self) -> usize {
        8 + 4 + self.name.len() + padding(self.name.len()) + 8
    }

    /// Bytes that [`encode_entry`] appends.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        4 + self.dircount_len()
    }
}

// === impl EntryPlus ===

impl EntryPlus<'_> {
    /// Bytes that [`encode_entry`] appends.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        let handle = match self.handle {
            Some(h) => 8 + h.len() + padding(h.len()),
            None => 4,
        };
        self.entry.encoded_len() + post_op_attr_len(&self.attr) + handle
    }
}

/// Appends one [`Entry`] or [`EntryPlus`], with the word that says that it follows.
pub fn encode_entry(w: &mut BytesMut, entry: &impl Encode) {
    w.put_bool(true);
    entry.encode(w);
}

/// Ends the list of entries: [`END_LEN`] bytes.
pub fn encode_end(w: &mut BytesMut, eof: bool) {
    w.put_bool(false);
    w.put_bool(eof);
}

/// Reads the next entry; after `None` a boolean says whether the directory ended.
///
/// # Errors
/// An [`XdrError`](crate::xdr::XdrError) if there is neither an entry nor the end of the list.
pub fn next_entry<'a, E: Decode<'a>>(r: &mut Reader<'a>) -> Result<Option<E>> {
    r.option(E::decode)
}

// === impl Listing ===

impl<E: Encode> Encode for Listing<E> {
    fn encode(&self, w: &mut BytesMut) {
        ReaddirOkHead { dir_attr: self.dir_attr, verf: self.verf }.encode(w);
        for entry in &self.entries {
            encode_entry(w, entry);
        }
        encode_end(w, self.eof);
    }
}

impl<'a, E: Decode<'a>> Decode<'a> for Listing<E> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let head = ReaddirOkHead::decode(r)?;
        // Not reserved from a length on the wire: every entry was paid for with at least 24 bytes of record.
        let mut entries = Vec::new();
        while let Some(entry) = next_entry(r)? {
            entries.push(entry);
        }
        Ok(Self { dir_attr: head.dir_attr, verf: head.verf, entries, eof: r.bool()? })
    }
}
