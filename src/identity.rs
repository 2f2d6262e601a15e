//! The file with the ensemble's id and secret. Only its owner may read it.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use slice_proto::control::auth::{hex, unhex};
use slice_proto::ids::EnsembleId;
use slice_proto::secret::{Identity, SECRET_LEN};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Version of the file.
const VERSION: u32 = 1;
/// Who may read it: its owner.
const MODE: u32 = 0o600;

/// The file as TOML.
#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    ensemble: String,
    secret: String,
}

/// Whether a file of this mode and owner shows the secret to more than the user `me`: anybody but its owner may read it.
/// root's group may, if `me` is not root: so orchestrators hand secrets to processes that do not run as root.
const fn too_open(mode: u32, owner: u32, me: u32) -> bool {
    let others = if owner == 0 && me != 0 { 0o037 } else { 0o077 };
    mode & others != 0
}

/// Draws the identity of a new ensemble.
///
/// # Errors
/// [`Error::Random`].
pub fn draw() -> Result<Identity> {
    let mut secret = [0; SECRET_LEN];
    getrandom::fill(&mut secret)?;
    Ok(Identity { ensemble: EnsembleId(random_id()?), secret })
}

/// A random number that is not 0.
///
/// # Errors
/// [`Error::Random`].
pub fn random_id() -> Result<u64> {
    loop {
        match getrandom::u64()? {
            0 => {}
            id => return Ok(id),
        }
    }
}

/// Reads the identity.
///
/// # Errors
/// A sentence, also if others may read the file.
pub fn read(path: &Path) -> Result<Identity> {
    let damaged = |why: &str| Error::Damaged { path: path.to_owned(), why: why.to_owned() };
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged(
                "is not there: give --identity the file that `slice up` or `slice coordinator --format` made",
            ));
        }
        read => read.map_err(Error::io("read", path))?,
    };
    let file = std::fs::metadata(path).map_err(Error::io("read", path))?;
    if too_open(file.mode(), file.uid(), rustix::process::geteuid().as_raw()) {
        return Err(damaged("holds the ensemble's secret, but others may read it: chmod 600 it"));
    }
    parse(&text).map_err(|why| damaged(&why))
}

/// What an identity file of this text says.
///
/// # Errors
/// The end of a sentence that begins with the file's name.
pub fn parse(text: &str) -> std::result::Result<Identity, String> {
    let content: Content = toml::from_str(text).map_err(|_| "is not an identity file")?;
    if content.version != VERSION {
        return Err(format!(
            "has version {}, this program knows {VERSION}: run a newer program",
            content.version
        ));
    }
    let ensemble = u64::from_str_radix(&content.ensemble, 16).map_err(|_| "has no ensemble id")?;
    let secret = unhex(&content.secret).ok_or("has no secret")?;
    Ok(Identity { ensemble: EnsembleId(ensemble), secret })
}

/// `slice admin new-identity`: a new identity in a file of its own, or on standard output for `-`.
///
/// # Errors
/// A sentence.
pub fn make(path: &Path) -> Result<()> {
    let identity = draw()?;
    if path == Path::new("-") { crate::up::print_out(&text(&identity)?) } else { write(path, &identity) }
}

/// The text of its file.
///
/// # Errors
/// A sentence.
pub fn text(identity: &Identity) -> Result<String> {
    let content = Content {
        version: VERSION,
        ensemble: format!("{:016x}", identity.ensemble.0),
        secret: hex(&identity.secret),
    };
    toml::to_string(&content).map_err(|e| Error::usage(e.to_string()))
}

/// Writes a new identity file; nothing is overwritten.
///
/// # Errors
/// A sentence.
pub fn write(path: &Path, identity: &Identity) -> Result<()> {
    let text = text(identity)?;
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(MODE).open(&aside)?;
        file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Fails if the file is there: two formats at once do not mix.
        std::fs::hard_link(&aside, path)
    };
    let written = write();
    // No secret stays behind; if it was not even made, there is nothing to remove.
    let _ = std::fs::remove_file(&aside);
    written.map_err(Error::io("write", path))
}

/// Reads the identity, or makes it.
///
/// # Errors
/// A sentence.
pub fn read_or_make(path: &Path) -> Result<Identity> {
    if !path.exists() {
        write(path, &draw()?)?;
    }
    read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read_a_secret() {
        for (mode, owner, me, wrong) in [
            (0o600, 7, 7, false),
            (0o640, 7, 7, true),
            (0o440, 0, 7, false),
            (0o444, 0, 7, true),
            (0o460, 0, 7, true),
            (0o440, 0, 0, true),
            (0o400, 0, 0, false),
        ] {
            assert_eq!(too_open(mode, owner, me), wrong, "{mode:o} of {owner}, read by {me}");
        }
    }

    #[test]
    fn made_once_read_again_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        assert!(read(&path).unwrap_err().to_string().contains("--identity"));
        let made = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), made);
        assert!(write(&path, &made).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "x").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not an identity file"));
    }
}
