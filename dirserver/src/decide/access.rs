//! ACCESS (RFC 1813 section 3.3.4).

use super::perm::{R, W, X, may};
use crate::records::AttrRec;
use slice_proto::nfs3::access;
use slice_proto::rpc_msg::Cred;

/// What of `asked` is granted.
pub(crate) fn granted(cred: &Cred, rec: &AttrRec, asked: u32) -> u32 {
    let classes: &[(u32, u32)] = if rec.is_dir() {
        &[
            (access::READ, R),
            (access::LOOKUP, X),
            (access::MODIFY, W | X),
            (access::EXTEND, W | X),
            (access::DELETE, W | X),
        ]
    } else {
        &[(access::READ, R), (access::MODIFY, W), (access::EXTEND, W), (access::EXECUTE, X)]
    };
    classes.iter().filter(|(_, want)| may(cred, rec, *want)).fold(0, |all, (bit, _)| all | bit) & asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_proto::ids::VolumeId;
    use slice_proto::nfs3::FType3;

    #[test]
    fn bits_follow_the_type() {
        let cred = Cred { uid: 1, gid: 1, ..Cred::default() };
        let dir = AttrRec::new(FType3::Dir, VolumeId(0), 0, 0o755, 0, 0, 1);
        assert_eq!(granted(&cred, &dir, access::ALL), access::READ | access::LOOKUP);
        let file = AttrRec::new(FType3::Reg, VolumeId(0), 0, 0o753, 0, 0, 1);
        assert_eq!(granted(&cred, &file, access::ALL), access::MODIFY | access::EXTEND | access::EXECUTE);
        assert_eq!(granted(&cred, &file, access::EXTEND), access::EXTEND);
    }
}
