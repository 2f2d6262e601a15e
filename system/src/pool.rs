//! Who runs what blocks.

use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::oneshot;

/// Work that blocks.
pub type Job = Box<dyn FnOnce() + Send>;

/// The work will not be done, or it panicked: its runtime is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the threads that do what blocks are gone")]
pub struct Gone;

/// Who runs what blocks: threads of the caller's runtime, or whoever a simulation names.
#[derive(Clone, Default)]
pub struct Pool(Option<Arc<dyn Fn(Job) + Send + Sync>>);

impl Pool {
    /// A pool that hands its jobs to `take`, which has to run each once, or to drop it.
    #[must_use]
    pub fn of(take: impl Fn(Job) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(take)))
    }

    /// Has work done, and waits for what comes of it.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Gone> {
        match &self.0 {
            None => tokio::task::spawn_blocking(work).await.map_err(|_| Gone),
            Some(take) => {
                let (tx, rx) = oneshot::channel();
                take(Box::new(move || {
                    // Who has asked may be gone.
                    let _ = tx.send(work());
                }));
                rx.await.map_err(|_| Gone)
            }
        }
    }

    /// Has work done. It is dropped undone if the runtime is going down.
    pub fn start(&self, work: impl FnOnce() + Send + 'static) {
        match &self.0 {
            None => drop(tokio::task::spawn_blocking(work)),
            Some(take) => take(Box::new(work)),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Pool(simulated)" } else { "Pool" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn jobs_are_done_and_dropped_ones_are_told() {
        assert_eq!(Pool::default().run(|| 3).await, Ok(3));
        let jobs = Arc::new(Mutex::new(Vec::<Job>::new()));
        let taken = Arc::clone(&jobs);
        let pool = Pool::of(move |job| taken.lock().unwrap().push(job));
        let (run, ()) = tokio::join!(pool.run(|| 4), async { jobs.lock().unwrap().pop().unwrap()() });
        assert_eq!(run, Ok(4));
        let (run, ()) = tokio::join!(pool.run(|| 5), async { jobs.lock().unwrap().clear() });
        assert_eq!(run, Err(Gone));
    }
}
