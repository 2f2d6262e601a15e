//! The "newc" archive format, in which a kernel wants its initial RAM file system.
//!
//! A member is a header of ASCII hex, the name with a final NUL, and the content; name and content are each
//! padded to four bytes (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! | bytes | field | | bytes | field |
//! | --- | --- | --- | --- | --- |
//! | 6 | magic `070701` | | 8 | content size |
//! | 8 | inode | | 8 + 8 | device major, minor |
//! | 8 | mode | | 8 + 8 | node's device major, minor |
//! | 8 + 8 | uid, gid | | 8 | name size, NUL included |
//! | 8 | links | | 8 | checksum (0) |
//! | 8 | mtime | | | |
//!
//! The kernel unpacks several archives that lie one behind the other: a cached base, then what one run adds.

use std::io::{self, Write};

/// One member's kind, with its permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory(u32),
    /// A regular file.
    File(u32),
    /// A symbolic link; the content is its target.
    Link,
}

impl Kind {
    /// The `st_mode` of a member of this kind.
    fn mode(self) -> u32 {
        match self {
            Self::Directory(bits) => 0o040_000 | bits,
            Self::File(bits) => 0o100_000 | bits,
            Self::Link => 0o120_777,
        }
    }
}

/// Every member carries the same time: an archive is then a function of what is in it.
const MTIME_S: u32 = 1_000_000_000;

/// Writes members to `out`. Call [`Archive::finish`], or the kernel sees no end.
pub struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An archive without members.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds a member. `name` has no slash in front; its parent directory must have been added before it.
    /// Content beyond 4 GiB has no place in the format: `InvalidInput`.
    pub fn member(&mut self, name: &str, kind: Kind, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let name_size =
            u32::try_from(name.len() + 1).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.inode += 1;
        let (inode, mode) = (self.inode, kind.mode());
        write!(
            self.out,
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{MTIME_S:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}",
            0, 1
        )?;
        self.out.write_all(name.as_bytes())?;
        self.pad(HEADER_BYTES + name.len(), 1)?;
        self.out.write_all(content)?;
        self.pad(content.len(), 0)
    }

    /// Writes the trailer, pads to four bytes and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.member("TRAILER!!!", Kind::File(0), &[])?;
        Ok(self.out)
    }

    /// `least` NULs, then as many as bring `written` to the next multiple of four.
    fn pad(&mut self, written: usize, least: usize) -> io::Result<()> {
        let total = (written + least).next_multiple_of(4) - written;
        self.out.write_all([0; 4].get(..total).unwrap_or_default())
    }
}

/// The size of a member's header.
const HEADER_BYTES: usize = 110;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cpio_reads_back_is_what_was_written() {
        let mut archive = Archive::new(Vec::new());
        archive.member("d", Kind::Directory(0o755), &[]).unwrap();
        for size in 0..9 {
            archive.member(&format!("d/{size}"), Kind::File(0o640), &vec![b'x'; size]).unwrap();
        }
        archive.member("d/link", Kind::Link, b"8").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);

        // A reader of our own, straight from the table above.
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            let field = |i: usize| {
                let from = at + 6 + 8 * i;
                usize::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + name_size - 1]).unwrap().to_owned();
            let content = (at + 110 + name_size).next_multiple_of(4);
            at = (content + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
            seen.push((name, mode, bytes[content..content + size].to_vec()));
        }
        assert_eq!(at, bytes.len());
        assert_eq!(seen.len(), 11);
        assert_eq!(seen[0], ("d".into(), 0o040_755, vec![]));
        assert_eq!(seen[6], ("d/5".into(), 0o100_640, vec![b'x'; 5]));
        assert_eq!(seen[10], ("d/link".into(), 0o120_777, vec![b'8']));
    }
}
