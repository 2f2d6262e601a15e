//! REMOVE, RMDIR, RENAME, LINK (RFC 1813 sections 3.3.12 to 3.3.15).

use super::attr::{PostOpAttr, WccData};
use super::res::Res3;
use super::types::DirOp;

wire! {
    /// Arguments of REMOVE (3.3.12) and RMDIR (3.3.13).
    pub struct RemoveArgs<'a> {
        /// The name and its directory.
        pub object: DirOp<'a> => val,
    }

    /// Arguments of RENAME (3.3.14).
    pub struct RenameArgs<'a> {
        /// The old name and its directory.
        pub from: DirOp<'a> => val,
        /// The new name and its directory.
        pub to: DirOp<'a> => val,
    }

    /// What RENAME carries, succeeded or failed.
    pub struct RenameOk {
        /// The old directory's attributes before and after.
        pub from_wcc: WccData => val,
        /// The new directory's attributes before and after.
        pub to_wcc: WccData => val,
    }

    /// Arguments of LINK (3.3.15).
    pub struct LinkArgs<'a> {
        /// The file.
        pub file: &'a [u8] => fh,
        /// The new name and its directory.
        pub link: DirOp<'a> => val,
    }

    /// What LINK carries, succeeded or failed.
    pub struct LinkOk {
        /// The file's attributes.
        pub attr: PostOpAttr => val,
        /// The directory's attributes before and after.
        pub dir_wcc: WccData => val,
    }
}

/// Result of REMOVE and RMDIR: the directory's attributes.
pub type RemoveRes = Res3<WccData, WccData>;
/// Result of RENAME.
pub type RenameRes = Res3<RenameOk, RenameOk>;
/// Result of LINK.
pub type LinkRes = Res3<LinkOk, LinkOk>;
