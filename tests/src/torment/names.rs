//! One client's names: made, linked, moved and removed at random in two directories of its own, with a ledger of what
//! must be there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use slice_load::Client;
use slice_load::client::Fh;
use slice_proto::nfs3::CreateHow;

use crate::wire::stage::{mkdir, names};
use crate::wire::{Expect, mode};

/// Names that a client has at most.
const MOST: usize = 50;

/// A directory, by number, and a name in it.
type Place = (usize, String);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Object {
    File(Fh),
    Directory(Fh),
}

impl Object {
    fn handle(&self) -> &Fh {
        match self {
            Self::File(handle) | Self::Directory(handle) => handle,
        }
    }
}

/// Who makes names.
#[derive(Debug)]
pub struct Names {
    c: Client,
    dirs: [Fh; 2],
    there: BTreeMap<Place, Object>,
    made: u64,
    rng: StdRng,
    steps: Rc<Cell<u64>>,
}

impl Names {
    /// The client `who`, with its directories under `top`.
    pub async fn new(c: Client, top: &Fh, who: &str, seed: u64, steps: Rc<Cell<u64>>) -> Self {
        let dirs = [
            mkdir(&c, top, &format!("{who}-0"), 0o755).await,
            mkdir(&c, top, &format!("{who}-1"), 0o755).await,
        ];
        Self { c, dirs, there: BTreeMap::new(), made: 0, rng: StdRng::seed_from_u64(seed), steps }
    }

    /// Works until it is told to stop. Every operation must succeed.
    pub async fn work(&mut self, under_way: &Cell<bool>) {
        while under_way.get() {
            self.step().await;
            self.steps.set(self.steps.get() + 1);
        }
    }

    fn new_place(&mut self) -> Place {
        self.made += 1;
        (self.rng.random_range(0..2), format!("n{}", self.made))
    }

    fn any(&mut self, wanted: impl Fn(&Object) -> bool) -> Option<(Place, Object)> {
        let all = self.there.iter().filter(|(_, object)| wanted(object));
        all.choose(&mut self.rng).map(|(place, object)| (place.clone(), *object))
    }

    async fn step(&mut self) {
        let kind = if self.there.len() >= MOST { 99 } else { self.rng.random_range(0..100) };
        match kind {
            0..25 => self.create(CreateHow::Guarded(mode(0o644))).await,
            25..35 => {
                let verifier = self.rng.random::<[u8; 8]>();
                self.create(CreateHow::Exclusive(verifier)).await;
            }
            35..45 => self.mkdir().await,
            45..60 => self.link().await,
            60..85 => self.rename().await,
            _ => self.remove().await,
        }
    }

    async fn create(&mut self, how: CreateHow) {
        let (dir, name) = self.new_place();
        let made = self.c.create(&self.dirs[dir], name.as_bytes(), how).await.good();
        self.there.insert((dir, name), Object::File(made.object.unwrap()));
    }

    async fn mkdir(&mut self) {
        let (dir, name) = self.new_place();
        let made = self.c.mkdir(&self.dirs[dir], name.as_bytes(), mode(0o755)).await.good();
        self.there.insert((dir, name), Object::Directory(made.object.unwrap()));
    }

    async fn link(&mut self) {
        let Some((_, object)) = self.any(|object| matches!(object, Object::File(_))) else { return };
        let (dir, name) = self.new_place();
        self.c.link(object.handle(), &self.dirs[dir], name.as_bytes()).await.good();
        self.there.insert((dir, name), object);
    }

    /// To a new name, or over another file. (Over another link of the same file, rename does nothing.)
    async fn rename(&mut self) {
        let Some(((from, old), object)) = self.any(|_| true) else { return };
        let another = |other: &Object| matches!(other, Object::File(_)) && *other != object;
        let over = matches!(object, Object::File(_)) && self.rng.random_bool(0.3);
        let target = if over { self.any(another).map(|(place, _)| place) } else { None };
        let (to, new) = target.unwrap_or_else(|| self.new_place());
        let (from_dir, to_dir) = (&self.dirs[from], &self.dirs[to]);
        self.c.rename((from_dir, old.as_bytes()), (to_dir, new.as_bytes())).await.good();
        self.there.remove(&(from, old));
        self.there.insert((to, new), object);
    }

    async fn remove(&mut self) {
        let Some(((dir, name), object)) = self.any(|_| true) else { return };
        match object {
            Object::File(_) => self.c.remove(&self.dirs[dir], name.as_bytes()).await.good(),
            Object::Directory(_) => self.c.rmdir(&self.dirs[dir], name.as_bytes()).await.good(),
        };
        self.there.remove(&(dir, name));
    }

    /// All names are there, and no others; each stands for what it stood for, by as many links as there are names.
    pub async fn verify(&self, c: &Client) {
        for (number, dir) in self.dirs.iter().enumerate() {
            let listed = names(c, dir).await;
            let mut known: Vec<_> = self
                .there
                .keys()
                .filter(|(d, _)| *d == number)
                .map(|(_, name)| name.clone().into_bytes())
                .collect();
            known.sort();
            assert_eq!(listed, known, "the names of directory {number}");
        }
        for ((dir, name), object) in &self.there {
            let found = c.lookup(&self.dirs[*dir], name.as_bytes()).await.good();
            assert_eq!(found.object, *object.handle(), "{name} of directory {dir}");
            let links = c.getattr(object.handle()).await.good().nlink;
            match object {
                Object::Directory(_) => assert_eq!(links, 2, "links of the directory {name}"),
                Object::File(_) => {
                    let known = self.there.values().filter(|other| *other == object).count();
                    assert_eq!(links as usize, known, "links of {name}");
                }
            }
        }
    }
}
