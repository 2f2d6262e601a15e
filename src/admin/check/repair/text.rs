//! Repairs in words.

use super::plan::{Plan, Repair};
use slice_proto::ids::VolumeId;
use slice_proto::peer::repair::Repair as Home;
use std::fmt;

/// A volume, where there are several.
struct Of(VolumeId);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0 == 0 { Ok(()) } else { write!(f, " of volume {}", self.0.0) }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(Home::Name(r)) => {
                let (name, dir) = (String::from_utf8_lossy(&r.name), r.dir);
                match (r.from, r.to) {
                    (Some(from), None) => {
                        write!(f, "the name {name:?} in directory {dir}, of file {from}, is removed")
                    }
                    (_, Some(to)) => {
                        write!(
                            f,
                            "the name {name:?} in directory {dir} stands for file {}, once, as type {}",
                            to.file, to.ftype
                        )
                    }
                    (None, None) => write!(f, "the name {name:?} in directory {dir} stays away"),
                }
            }
            Self::At(Home::Counts(r)) => {
                write!(f, "file {} gets a link count of {}", r.seen.attr.file, r.nlink)?;
                if r.parent.0 != 0 {
                    write!(f, ", {} entries, and parent {}", r.entries, r.parent)?;
                }
                Ok(())
            }
            Self::At(Home::Make(r)) => write!(
                f,
                "directory {}{} gets a record: owner {}:{}, mode {:o}, {} entries",
                r.dir,
                Of(r.volume),
                r.uid,
                r.gid,
                r.mode,
                r.entries
            ),
            Self::At(Home::Size(r)) => {
                let at = &r.seen.attr;
                write!(f, "the data servers of file {} get the size in its record, {}", at.file, at.size)
            }
            Self::Adopt(seen) => {
                let file = seen.attr.file;
                write!(f, "file {file} gets the name \"#{}\" in /lost+found{}", file.0, Of(seen.volume))
            }
            Self::Purge { server, file, .. } => {
                write!(f, "the object of file {file} at server {server} is removed")
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do(repairs) => {
                for (i, repair) in repairs.iter().enumerate() {
                    write!(f, "{}{repair}", if i == 0 { "repair: " } else { "; " })?;
                }
                Ok(())
            }
            Self::Later(why) => write!(f, "repair: later: {why}"),
            Self::Over => f.write_str("repair: none needed: it is over by now"),
            Self::Leave(why) => write!(f, "cannot be repaired: {why}"),
        }
    }
}
