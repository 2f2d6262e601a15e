//! Races a stock client for names: for each token that the guest makes, both create one lock exclusively and move the token to a
//! name of their own. One of them gets each, whatever had to be sent again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::str::FromStr;

use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{CreateHow, NfsStat3};
use tokio::time::sleep;

use super::LOOK;
use crate::wire::stage::{mkdir, names};
use crate::wire::{Expect, is_one_of};

/// What one of the two got of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Got {
    pub lock: bool,
    pub token: bool,
}

/// `ROUND:LOCK:TOKEN`, as the guest's script tells it; each `won` or `lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told(u64, Got);

impl FromStr for Told {
    type Err = String;

    fn from_str(told: &str) -> Result<Self, String> {
        let won = |word: &str| match word {
            "won" => Ok(true),
            "lost" => Ok(false),
            _ => Err(format!("{told:?} is neither won nor lost")),
        };
        let words: Vec<_> = told.split(':').collect();
        let &[round, lock, token] = words.as_slice() else { return Err(format!("{told:?} is no round")) };
        let round = round.parse().map_err(|_| format!("{told:?} has no number"))?;
        Ok(Self(round, Got { lock: won(lock)?, token: won(token)? }))
    }
}

/// Who races the guest.
#[derive(Debug)]
pub struct Rival {
    c: Client,
    dir: Fh,
    got: BTreeMap<u64, Got>,
}

impl Rival {
    /// The client that races, in the directory `race-stock`.
    pub async fn new(c: Client, top: &Fh) -> Self {
        let dir = mkdir(&c, top, "race-stock", 0o755).await;
        Self { c, dir, got: BTreeMap::new() }
    }

    async fn is_there(&self, name: &str) -> bool {
        let found = self.c.lookup(&self.dir, name.as_bytes()).await.stat();
        is_one_of(found, &[NfsStat3::OK, NfsStat3::NOENT]);
        found == NfsStat3::OK
    }

    /// Races until it is told to stop.
    pub async fn work(&mut self, under_way: &Cell<bool>) {
        while under_way.get() {
            let round = self.got.len() as u64 + 1;
            if self.is_there(&format!("token-{round}")).await || self.is_there(&own(round, "stock")).await {
                let got = self.once(round).await;
                self.got.insert(round, got);
            } else {
                sleep(LOOK).await; // The guest has not made it yet.
            }
        }
    }

    async fn once(&self, round: u64) -> Got {
        let (lock, token) = (format!("lock-{round}"), format!("token-{round}"));
        let mut verifier = [9; 8];
        verifier[..4].copy_from_slice(&(round as u32).to_be_bytes());
        let made = self.c.create(&self.dir, lock.as_bytes(), CreateHow::Exclusive(verifier)).await.stat();
        is_one_of(made, &[NfsStat3::OK, NfsStat3::EXIST]);
        let to = own(round, "rival");
        let moved = self.c.rename((&self.dir, token.as_bytes()), (&self.dir, to.as_bytes())).await.stat();
        is_one_of(moved, &[NfsStat3::OK, NfsStat3::NOENT]);
        Got { lock: made == NfsStat3::OK, token: moved == NfsStat3::OK }
    }

    /// Each was won once, by whom it was told so, and is there. How many rounds there were, and how many locks the guest got.
    pub async fn verify(&self, c: &Client, guest: &[Told]) -> (usize, usize) {
        let mut known = Vec::new();
        for Told(round, theirs) in guest {
            // The last ones this side may have left to the guest.
            let ours = self.got.get(round).copied().unwrap_or_default();
            assert!(theirs.lock != ours.lock, "lock {round}: the guest {theirs:?}, its rival {ours:?}");
            assert!(theirs.token != ours.token, "token {round}: the guest {theirs:?}, its rival {ours:?}");
            let winner = if theirs.token { "stock" } else { "rival" };
            known.extend([format!("lock-{round}").into_bytes(), own(*round, winner).into_bytes()]);
        }
        known.sort();
        assert_eq!(names(c, &self.dir).await, known, "the names that were raced for");
        (guest.len(), guest.iter().filter(|told| told.1.lock).count())
    }
}

fn own(round: u64, who: &str) -> String {
    format!("won-{round}-{who}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_told_in_three_words() {
        assert_eq!("7:won:lost".parse(), Ok(Told(7, Got { lock: true, token: false })));
        assert!("7:won".parse::<Told>().is_err());
        assert!("7:won:".parse::<Told>().is_err());
        assert!("x:won:won".parse::<Told>().is_err());
    }
}
