//! Clients that all want the same: an exclusive create of one name, and one file moved to a name of each one's own. One of
//! them gets it, the others are told so, however often the calls were sent again.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::future::join_all;
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::{CreateHow, NfsStat3};

use crate::wire::stage::{create, mkdir, names};
use crate::wire::{Expect, is_one_of};

/// What was raced for, and who got it.
#[derive(Debug)]
struct Won {
    lock: Fh,
    token: Fh,
    by: usize,
}

/// All that race.
#[derive(Debug)]
pub struct Race {
    all: Vec<Client>,
    dir: Fh,
    won: Vec<Won>,
    steps: Rc<Cell<u64>>,
}

impl Race {
    pub async fn new(all: Vec<Client>, top: &Fh, steps: Rc<Cell<u64>>) -> Self {
        let dir = mkdir(&all[0], top, "race", 0o755).await;
        Self { all, dir, won: Vec::new(), steps }
    }

    /// Races until it is told to stop.
    pub async fn work(&mut self, under_way: &Cell<bool>) {
        while under_way.get() {
            self.once().await;
            self.steps.set(self.steps.get() + 1);
        }
    }

    async fn once(&mut self) {
        let round = self.won.len();
        let (lock, token) = (format!("lock-{round}"), format!("token-{round}"));
        let file = create(&self.all[0], &self.dir, &token, 0o644).await;
        let dir = self.dir;
        let tries = self.all.iter().enumerate().map(|(who, c)| {
            let (lock, token) = (lock.as_bytes(), token.as_bytes());
            async move {
                let mut verifier = [7; 8];
                verifier[0] = who as u8;
                let made = c.create(&dir, lock, CreateHow::Exclusive(verifier)).await;
                is_one_of(made.stat(), &[NfsStat3::OK, NfsStat3::EXIST]);
                let made = (made.stat() == NfsStat3::OK).then(|| made.good().object.unwrap());
                let own = won_name(round, who);
                let moved = c.rename((&dir, token), (&dir, own.as_bytes())).await;
                is_one_of(moved.stat(), &[NfsStat3::OK, NfsStat3::NOENT]);
                (made, moved.stat() == NfsStat3::OK)
            }
        });
        let tries = join_all(tries.collect::<Vec<_>>()).await;
        let made: Vec<Fh> = tries.iter().filter_map(|(made, _)| *made).collect();
        let moved: Vec<usize> = (0..tries.len()).filter(|who| tries[*who].1).collect();
        assert_eq!(made.len(), 1, "{lock} was created exclusively by {} clients", made.len());
        assert_eq!(moved.len(), 1, "{token} was moved by the clients {moved:?}");
        self.won.push(Won { lock: made[0], token: file, by: moved[0] });
    }

    /// Each name is there once, under the name of who was told so.
    pub async fn verify(&self, c: &Client) {
        let mut known: Vec<Vec<u8>> = Vec::new();
        for (round, Won { lock, token, by }) in self.won.iter().enumerate() {
            let (name, own) = (format!("lock-{round}"), won_name(round, *by));
            assert_eq!(c.lookup(&self.dir, name.as_bytes()).await.good().object, *lock, "{name}");
            assert_eq!(c.lookup(&self.dir, own.as_bytes()).await.good().object, *token, "{own}");
            assert_eq!(c.getattr(token).await.good().nlink, 1, "links of {own}");
            known.extend([name.into_bytes(), own.into_bytes()]);
        }
        known.sort();
        assert_eq!(names(c, &self.dir).await, known, "the names that were raced for");
    }
}

fn won_name(round: usize, who: usize) -> String {
    format!("won-{round}-by-{who}")
}
