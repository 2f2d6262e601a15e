//! Which names there may be.

use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::MAX_NAME;

/// A name that an entry can have: 1 to 255 bytes, no slash and no NUL, which Linux could not name either.
pub(crate) fn check(name: &[u8]) -> Result<(), NfsStat3> {
    if name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(NfsStat3::INVAL);
    }
    if name.len() > MAX_NAME as usize {
        return Err(NfsStat3::NAMETOOLONG);
    }
    Ok(())
}

/// Whether it is `.` or `..`: every directory has them, and they are no entries.
pub(crate) const fn dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(check(b"x"), Ok(()));
        assert_eq!(check(&[b'x'; 255]), Ok(()));
        assert_eq!(check(&[b'x'; 256]), Err(NfsStat3::NAMETOOLONG));
        assert_eq!(check(b""), Err(NfsStat3::INVAL));
        assert_eq!(check(b"a/b"), Err(NfsStat3::INVAL));
        assert_eq!(check(b"a\0"), Err(NfsStat3::INVAL));
        assert!(dots(b".") && dots(b"..") && !dots(b"..."));
    }
}
