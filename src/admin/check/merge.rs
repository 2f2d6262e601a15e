//! Lists of several servers, page by page, as one list in order.

use super::error::Error;
use slice_proto::ids::{Role, ServerId};
use std::collections::VecDeque;

/// A server's list.
pub(super) trait Source {
    /// What is listed.
    type Item;
    /// By what it is in order. The default is below every key that occurs.
    type Key: Copy + Ord + Default;

    /// Whose list it is.
    fn whose(&self) -> (Role, ServerId);
    /// An item's key.
    fn key(item: &Self::Item) -> Self::Key;
    /// The items behind `after`, in order; none if there are no more.
    async fn page(&self, after: Self::Key) -> Result<Vec<Self::Item>, Error>;
}

struct Stream<S: Source> {
    source: S,
    ahead: VecDeque<S::Item>,
    last: S::Key,
    over: bool,
}

/// Several lists as one.
pub(super) struct Merge<S: Source> {
    streams: Vec<Stream<S>>,
}

impl<S: Source> Stream<S> {
    /// The next item's key.
    async fn next_key(&mut self) -> Result<Option<S::Key>, Error> {
        if self.ahead.is_empty() && !self.over {
            let page = self.source.page(self.last).await?;
            self.over = page.is_empty();
            for item in &page {
                let key = S::key(item);
                if key <= self.last {
                    let (role, server) = self.source.whose();
                    return Err(Error::Disorder { role, server });
                }
                self.last = key;
            }
            self.ahead = page.into();
        }
        Ok(self.ahead.front().map(S::key))
    }
}

impl<S: Source> Merge<S> {
    pub(super) fn new(sources: impl IntoIterator<Item = S>) -> Self {
        let stream = |source| Stream { source, ahead: VecDeque::new(), last: S::Key::default(), over: false };
        Self { streams: sources.into_iter().map(stream).collect() }
    }

    /// The smallest key that is left.
    pub(super) async fn next_key(&mut self) -> Result<Option<S::Key>, Error> {
        let mut first = None;
        for stream in &mut self.streams {
            if let Some(key) = stream.next_key().await? {
                first = Some(first.map_or(key, |f: S::Key| f.min(key)));
            }
        }
        Ok(first)
    }

    /// Takes all items of `key`, which must be at most the smallest that is left.
    pub(super) fn take(&mut self, key: S::Key) -> Vec<(ServerId, S::Item)> {
        let mut taken = Vec::new();
        for stream in &mut self.streams {
            if stream.ahead.front().is_some_and(|i| S::key(i) == key) {
                let server = stream.source.whose().1;
                taken.extend(stream.ahead.pop_front().map(|i| (server, i)));
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct List(u64, Vec<u64>);

    impl Source for List {
        type Item = u64;
        type Key = u64;

        fn whose(&self) -> (Role, ServerId) {
            (Role::Dir, ServerId(self.0))
        }

        fn key(item: &u64) -> u64 {
            *item
        }

        async fn page(&self, after: u64) -> Result<Vec<u64>, Error> {
            Ok(self.1.iter().copied().skip_while(|i| *i <= after).take(2).collect())
        }
    }

    async fn all(lists: Vec<List>) -> Result<Vec<(u64, u64)>, Error> {
        let (mut merge, mut got) = (Merge::new(lists), Vec::new());
        while let Some(key) = merge.next_key().await? {
            got.extend(merge.take(key).into_iter().map(|(s, i)| (i, s.0)));
        }
        Ok(got)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn lists_become_one_in_order() {
        let lists = vec![List(1, vec![1, 4, 5, 9, 10]), List(2, vec![]), List(3, vec![2, 4, 11])];
        let want = vec![(1, 1), (2, 3), (4, 1), (4, 3), (5, 1), (9, 1), (10, 1), (11, 3)];
        assert_eq!(all(lists).await.unwrap(), want);
        assert!(matches!(all(vec![List(1, vec![5, 3])]).await, Err(Error::Disorder { .. })));
    }
}
