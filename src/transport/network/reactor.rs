//! The runtime under the network: where everything asynchronous runs, and the only door to it.
//!
//! It lives as long as anything that may still want to read, write or wait. Its tasks hold no [`Reactor`], so the last
//! one outside ends it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How many threads wait for the network. They do no disk and no hashing.
const WORKERS: usize = 2;

/// How many names may be looked up at once; a lookup may hang for long.
const LOOKUPS: usize = 8;

/// A handle of the runtime.
#[derive(Clone)]
pub(in crate::transport) struct Reactor(Arc<Inner>);

struct Inner {
    /// None only while it is dropped.
    runtime: Option<Runtime>,
    /// Whether the network over it was closed.
    shut: watch::Sender<bool>,
    /// How many tasks still see to it that what was written arrives.
    lingering: watch::Sender<usize>,
}

impl Reactor {
    pub(in crate::transport) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(LOOKUPS)
            .thread_name("network")
            .enable_all()
            .build()?;
        Ok(Self(Arc::new(Inner {
            runtime: Some(runtime),
            shut: watch::Sender::new(false),
            lingering: watch::Sender::new(0),
        })))
    }

    /// Remembers that the network is being closed; false if it was already.
    pub(super) fn shut(&self) -> bool {
        !self.0.shut.send_replace(true)
    }

    pub(super) fn is_shut(&self) -> bool {
        *self.0.shut.borrow()
    }

    /// Waits until it is.
    pub(super) async fn until_shut(&self) {
        // The sender is here, so it cannot be gone.
        drop(self.0.shut.subscribe().wait_for(|shut| *shut).await);
    }

    fn runtime(&self) -> &Runtime {
        self.0.runtime.as_ref().expect("it is there until the last handle is dropped")
    }

    /// Waits for `future` on this thread. Not to be called from a task of the runtime.
    pub(in crate::transport) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime().block_on(future)
    }

    pub(super) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.runtime().spawn(task)
    }

    /// Runs a task for which closing waits a little.
    pub(super) fn linger(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lingering.send_modify(|count| *count += 1);
        let lingering = self.0.lingering.clone();
        drop(self.spawn(async move {
            task.await;
            lingering.send_modify(|count| *count -= 1);
        }));
    }

    /// Waits until no such task is left, or for so long.
    pub(super) async fn settled(&self, patience: Duration) {
        let mut lingering = self.0.lingering.subscribe();
        // Either is as well: they are done, or they have had their time.
        drop(tokio::time::timeout(patience, lingering.wait_for(|count| *count == 0)).await);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
