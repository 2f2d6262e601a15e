//! The threads of the data path: each with its own single-threaded runtime, on which everything that begins there
//! also ends there (DESIGN §13: run to completion).

use crate::error::Error;
use crate::socket;
use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A set of worker threads. Cheap to clone; lives until [`Workers::stop`] or the process ends.
#[derive(Clone)]
pub struct Workers {
    /// Unbounded, but used for control only: starting listeners, handing over an accepted connection once.
    jobs: Arc<[UnboundedSender<Job>]>,
    threads: Arc<parking_lot::Mutex<Vec<JoinHandle<()>>>>,
    stop: Arc<tokio::sync::watch::Sender<bool>>,
}

impl Workers {
    /// Starts `count` threads (at least one), named `name` and a number.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system has no thread or no epoll instance to give.
    pub fn start(name: &str, count: usize) -> Result<Self, Error> {
        socket::allow_open_files();
        let stop = Arc::new(tokio::sync::watch::Sender::new(false));
        let (mut jobs, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
            let (tx, rx) = unbounded_channel::<Job>();
            let mut stopped = stop.subscribe();
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    CURRENT.set(Some(index));
                    LocalSet::new().block_on(&runtime, async move {
                        tokio::select! {
                            () = run_jobs(rx) => {}
                            _ = stopped.wait_for(|s| *s) => {}
                        }
                    });
                })
                .map_err(Error::Thread)?;
            jobs.push(tx);
            threads.push(thread);
        }
        Ok(Self { jobs: jobs.into(), threads: Arc::new(parking_lot::Mutex::new(threads)), stop })
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.jobs.len()
    }

    /// Index of the worker thread on which the caller runs, in its own set; `None` on other threads.
    #[must_use]
    pub fn current() -> Option<usize> {
        CURRENT.get()
    }

    /// Runs `job` on thread `worker` (modulo their number), inside its `LocalSet`: it may `spawn_local`.
    pub fn run_on(&self, worker: usize, job: impl FnOnce() + Send + 'static) {
        if let Some(jobs) = self.jobs.get(worker % self.jobs.len().max(1)) {
            // An error means that the workers are stopping: nothing more is to be done.
            let _ = jobs.send(Box::new(job));
        }
    }

    /// Makes a future on thread `worker` and runs it there to its end.
    pub fn spawn_on<F>(&self, worker: usize, make: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        self.run_on(worker, move || {
            tokio::task::spawn_local(make());
        });
    }

    /// Makes a future on thread `worker` and waits for its result; `None` if the workers stop before.
    pub async fn ask<T, F>(&self, worker: usize, make: impl FnOnce() -> F + Send + 'static) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.spawn_on(worker, move || {
            let result = make();
            async move {
                // The asker may have lost interest.
                let _ = tx.send(result.await);
            }
        });
        rx.await.ok()
    }

    /// Stops all threads and waits for them. What still runs on them is dropped where it waits.
    /// Must not be called on one of the threads.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

async fn run_jobs(mut jobs: UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        job();
    }
    // All handles are gone, but what was started goes on until the process ends.
    std::future::pending::<()>().await;
}
