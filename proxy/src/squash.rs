//! Credentials (RFC 5531 section 8.2): read, and rewritten in place where the export squashes the caller.

use crate::classify::Call;
use crate::config::Rule;
use bytes::{BufMut, BytesMut};
use slice_proto::rpc_msg::{AuthSys, Cred, auth_flavor, auth_stat, cred_range};
use slice_proto::xdr::{Encode, padding};

/// Whom a call acts for, after squashing. The record's credential says the same afterwards; an AUTH_NONE becomes the
/// export's anonymous user.
///
/// # Errors
/// An [`auth_stat`] for a credential that cannot be read, or of a flavor that we do not speak.
pub fn squash(call: &mut Call, record: &mut BytesMut, rule: &Rule) -> Result<Cred, u32> {
    match call.flavor {
        auth_flavor::SYS => {
            let body = record.get_mut(call.cred.clone()).ok_or(auth_stat::BADCRED)?;
            let auth = AuthSys::from_body(body).map_err(|_| auth_stat::BADCRED)?;
            let (cred, name) = (rule.squashed(auth.cred), auth.machine.len());
            if cred != auth.cred {
                rewrite(body, name, &cred);
            }
            Ok(cred)
        }
        auth_flavor::NONE => {
            let cred = rule.anonymous();
            replace(call, record, &AuthSys { stamp: 0, machine: b"", cred });
            Ok(cred)
        }
        auth_flavor::SHORT => Err(auth_stat::REJECTEDCRED),
        _ => Err(auth_stat::TOOWEAK),
    }
}

/// Overwrites user and groups in the body of an AUTH_SYS credential; there are as many groups as before.
fn rewrite(body: &mut [u8], name: usize, cred: &Cred) {
    // stamp, length of the name, name
    let mut at = body.get_mut(8 + name + padding(name)..).unwrap_or_default();
    let gids = cred.gids.as_slice();
    if at.len() < 12 + 4 * gids.len() {
        return; // from_body() read as much: cannot be
    }
    at.put_u32(cred.uid);
    at.put_u32(cred.gid);
    at.put_u32(gids.len() as u32);
    gids.iter().for_each(|gid| at.put_u32(*gid));
}

/// Puts another credential in the place of the record's, and moves everything behind it.
fn replace(call: &mut Call, record: &mut BytesMut, auth: &AuthSys<'_>) {
    let Ok(old) = cred_range(record) else { return };
    let mut out = BytesMut::with_capacity(record.len() + 32);
    out.extend_from_slice(record.get(..old.start).unwrap_or_default());
    auth.encode(&mut out);
    // Less than nothing where a long body stood with AUTH_NONE. Records are short.
    let grown = out.len() as isize - old.end as isize;
    out.extend_from_slice(record.get(old.end..).unwrap_or_default());
    *record = out;
    call.shift(grown);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Target, What, classify};
    use crate::config::{ANON_ID, Exports, Squash};
    use slice_proto::handle::{Handle, KeyRing};
    use slice_proto::ids::{EnsembleId, FileId, VolumeId, Xid};
    use slice_proto::nfs3::{DirOp, LookupArgs, Proc3};
    use slice_proto::rpc_msg::{Gids, OpaqueAuth, encode_call, program};
    use slice_proto::secret::Identity;

    fn rule(squash: Squash) -> Rule {
        Rule { squash, ..Exports::default().rule("/", [1, 1, 1, 1].into()).unwrap() }
    }

    fn lookup(cred: &impl Encode) -> (Call, BytesMut, KeyRing) {
        let keys = KeyRing::new(&Identity { ensemble: EnsembleId(1), secret: [1; 32] }, 0);
        let h = Handle { ftype: 2, volume: VolumeId(0), policy: 0, file: FileId(5), snapshot: 0 };
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(3), program::NFS, 3, Proc3::Lookup as u32, cred);
        LookupArgs { what: DirOp { dir: &keys.seal(&h), name: b"some name" } }.encode(&mut w);
        (classify(&w, &keys).unwrap(), w, keys)
    }

    #[test]
    fn a_squashed_credential_is_rewritten_in_place() {
        let root = Cred { uid: 0, gid: 0, gids: Gids::new(&[0, 7]) };
        let (mut call, mut record, keys) = lookup(&AuthSys { stamp: 9, machine: b"client", cred: root });
        let (len, at) = (record.len(), record.as_ptr());
        let cred = squash(&mut call, &mut record, &rule(Squash::Root)).unwrap();
        assert_eq!(cred, Cred { uid: ANON_ID, gid: ANON_ID, gids: Gids::new(&[ANON_ID, 7]) });
        assert_eq!((record.len(), record.as_ptr()), (len, at));
        let again = classify(&record, &keys).unwrap();
        assert_eq!(again, call);
        assert_eq!(AuthSys::from_body(&record[again.cred]).unwrap().cred, cred);
    }

    #[test]
    fn nobody_at_all_becomes_the_anonymous_user() {
        let (mut call, mut record, keys) = lookup(&OpaqueAuth::NONE);
        let cred = squash(&mut call, &mut record, &rule(Squash::None)).unwrap();
        assert_eq!(cred.uid, ANON_ID);
        let again = classify(&record, &keys).unwrap();
        let What::Nfs(_, Target::Entry { name, .. }) = &call.what else { panic!("no entry") };
        assert_eq!(&record[name.clone()], b"some name");
        assert_eq!((again.what, again.args_at), (call.what, call.args_at));
        assert_eq!(AuthSys::from_body(&record[again.cred]).unwrap().cred, cred);
    }

    /// Found by fuzzing: RFC 5531 lets an AUTH_NONE have a body, which may be longer than the credential in its place.
    #[test]
    fn a_body_that_nobody_reads_makes_way() {
        for len in [4, 24, 28, 32, 100, 400] {
            let (mut call, mut record, keys) =
                lookup(&OpaqueAuth { flavor: auth_flavor::NONE, body: &vec![7; len] });
            let cred = squash(&mut call, &mut record, &rule(Squash::None)).unwrap();
            let again = classify(&record, &keys).unwrap();
            let What::Nfs(_, Target::Entry { name, .. }) = &call.what else { panic!("no entry") };
            assert_eq!(&record[name.clone()], b"some name", "{len} bytes");
            assert_eq!(again, call, "{len} bytes");
            assert_eq!(AuthSys::from_body(&record[again.cred]).unwrap().cred, cred);
        }
    }

    #[test]
    fn other_flavors_and_broken_credentials_are_refused() {
        let (mut call, mut record, _) = lookup(&OpaqueAuth { flavor: auth_flavor::SYS, body: &[1, 2, 3, 4] });
        assert_eq!(squash(&mut call, &mut record, &rule(Squash::Root)), Err(auth_stat::BADCRED));
        let (mut call, mut record, _) = lookup(&OpaqueAuth { flavor: auth_flavor::GSS, body: &[] });
        assert_eq!(squash(&mut call, &mut record, &rule(Squash::Root)), Err(auth_stat::TOOWEAK));
    }
}
