//! What a reply must be, said where it is asked.

use std::fmt::Debug;

use slice_load::Error;
use slice_load::client::Answer;
use slice_proto::nfs3::{Fattr3, NfsStat3, Res3, WccData};
use slice_proto::rpc_msg::ReplyStatus;

/// Takes an answer apart, or fails the test where it stands.
pub trait Expect<O, F> {
    /// What a success carries.
    #[track_caller]
    fn good(self) -> O;
    /// What a failure with this very status carries.
    #[track_caller]
    fn fails(self, status: NfsStat3) -> F;
    /// What a failure with one of these statuses carries, where the RFC leaves a choice.
    #[track_caller]
    fn fails_with(self, any: &[NfsStat3]) -> F;
    /// The status of an answer that may be either.
    #[track_caller]
    fn stat(&self) -> NfsStat3;
}

impl<O: Debug, F: Debug> Expect<O, F> for Answer<O, F> {
    #[track_caller]
    fn good(self) -> O {
        match self {
            Ok(Res3::Ok(ok)) => ok,
            other => panic!("expected success, got {other:?}"),
        }
    }

    #[track_caller]
    fn fails(self, status: NfsStat3) -> F {
        self.fails_with(&[status])
    }

    #[track_caller]
    fn fails_with(self, any: &[NfsStat3]) -> F {
        match self {
            Ok(Res3::Err(got, fail)) if any.contains(&got) => fail,
            other => panic!("expected one of {any:?}, got {other:?}"),
        }
    }

    #[track_caller]
    fn stat(&self) -> NfsStat3 {
        match self {
            Ok(res) => res.status(),
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

/// What RPC says of a call that was not executed.
#[track_caller]
pub fn refused<T: Debug>(outcome: Result<T, Error>) -> ReplyStatus {
    match outcome {
        Err(Error::Rpc(status)) => status,
        other => panic!("expected a refusal by RPC, got {other:?}"),
    }
}

#[track_caller]
pub fn is_one_of<T: PartialEq + Debug>(got: T, any: &[T]) {
    assert!(any.contains(&got), "expected one of {any:?}, got {got:?}");
}

/// Wcc data that is whole and true: the attributes right before and right after (DESIGN §6).
#[track_caller]
pub fn true_wcc(wcc: WccData, before: &Fattr3, after: &Fattr3) {
    assert_eq!(wcc.before, Some(before.wcc()), "the attributes before");
    assert_eq!(wcc.after.as_ref(), Some(after), "the attributes after");
}

/// Wcc data of an operation that failed: the attributes are there (DESIGN §12), and tell of no change.
#[track_caller]
pub fn unchanged(wcc: WccData, before: &Fattr3) {
    assert_eq!(wcc.after.map(|a| a.wcc()), Some(before.wcc()), "the attributes after a failure");
    if let Some(told) = wcc.before {
        assert_eq!(told, before.wcc(), "the attributes before a failure");
    }
}
