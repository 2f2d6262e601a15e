//! What is decided at format, from flags to the coordinator's plan.

use crate::cli::up::{FormatArgs, VolumeEntry};
use crate::cli::values::Owner;
use crate::error::{Error, Result};
use slice_coordinator::ensemble::{Expected, Plan};
use slice_proto::control::pb;
use slice_proto::ids::{FileId, VolumeId};
use slice_proto::placement::root_home;
use slice_proto::table::{Placement, Volume};

/// Mode of a root directory that belongs to who uses it.
const OWN_MODE: u32 = 0o755;
/// Mode of a root directory that belongs to root, whom clients cannot be: everyone may make files, nobody may take
/// another's away.
const SHARED_MODE: u32 = 0o1777;

/// The plan that these flags make. `root_squashed`: whether clients' root becomes nobody.
///
/// # Errors
/// A sentence about a volume.
pub fn plan(args: &FormatArgs, root_squashed: bool) -> Result<Plan> {
    let me = Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
    let owner = args.root_owner.unwrap_or(me);
    let shared = owner.uid == 0 && root_squashed;
    let root_mode = args.root_mode.map_or(if shared { SHARED_MODE } else { OWN_MODE }, |m| m.0);
    let only = [VolumeEntry { path: "/".to_owned(), policy: None }];
    let entries = if args.volume.is_empty() { &only[..] } else { &args.volume };
    let mut volumes: Vec<Volume> = Vec::new();
    for (number, entry) in (0..).zip(entries) {
        let id = VolumeId(number);
        let volume = Volume {
            id,
            path: entry.path.clone(),
            // Numbered, as two volumes' roots may have the same home.
            root: FileId::new(root_home(id), u64::from(number) + 1),
            policy: entry.policy.or(args.policy).unwrap_or_default().0,
            seed: getrandom::u64()?,
            placement: 0,
            root_uid: owner.uid,
            root_gid: owner.gid,
            root_mode,
        };
        let wrong = |why: String| Error::usage(format!("volume {:?}: {why}", entry.path));
        Volume::try_from(pb::Volume::from(&volume)).map_err(|e| wrong(e.to_string()))?;
        if volumes.iter().any(|v| v.path == volume.path) {
            return Err(wrong("its path occurs twice".into()));
        }
        volumes.push(volume);
    }
    let expected = Expected {
        dir: args.dirservers.unwrap_or(1),
        small: args.smallfiles.unwrap_or(1),
        block: args.blockstores.unwrap_or(2),
    };
    Ok(Plan { expected, volumes, placements: vec![Placement { copies: 1 }] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::values::Mode;

    fn args(owner: u32) -> FormatArgs {
        FormatArgs { root_owner: Some(Owner { uid: owner, gid: 5 }), ..FormatArgs::default() }
    }

    #[test]
    fn who_owns_the_root_directory() {
        let mode = |args: &FormatArgs, squashed| plan(args, squashed).unwrap().volumes[0].root_mode;
        assert_eq!(mode(&args(1000), true), 0o755);
        assert_eq!(mode(&args(0), true), 0o1777);
        assert_eq!(mode(&args(0), false), 0o755);
        let given = FormatArgs { root_mode: Some(Mode(0o700)), ..args(0) };
        assert_eq!(mode(&given, true), 0o700);
    }

    #[test]
    fn volumes_are_checked() {
        let of = |paths: &[&str]| {
            let volume = paths.iter().map(|p| VolumeEntry { path: (*p).to_owned(), policy: None }).collect();
            plan(&FormatArgs { volume, ..args(1) }, true)
        };
        let two = of(&["/a", "/b"]).unwrap().volumes;
        assert_ne!(two[0].root, two[1].root);
        assert!(of(&["/a", "/a"]).is_err());
        assert!(of(&["a"]).unwrap_err().to_string().contains("/name"));
    }
}
