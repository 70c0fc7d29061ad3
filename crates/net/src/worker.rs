//! One thread that does the kernel work of one owner, in order, in a network namespace of its own choice.

use std::path::PathBuf;
use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::{NetError, netns};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Hands jobs to the thread; the thread ends with the last clone.
pub(crate) struct Worker<S>(mpsc::Sender<Job<S>>);

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Worker(self.0.clone())
    }
}

impl<S> std::fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

impl<S: 'static> Worker<S> {
    /// Starts the thread in `namespace` (or the process's own), makes its state there and waits for that.
    pub(crate) async fn start(
        name: &str,
        namespace: Option<PathBuf>,
        make: impl FnOnce() -> Result<S, NetError> + Send + 'static,
    ) -> Result<Self, NetError> {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let (ready, started) = oneshot::channel();
        let body = move || {
            let entered = match &namespace {
                Some(path) => netns::enter(path).map_err(|source| NetError::file(path, source)),
                None => Ok(()),
            };
            match entered.and_then(|()| make()) {
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
                Ok(mut state) => {
                    let _ = ready.send(Ok(()));
                    queue.into_iter().for_each(|job| job(&mut state));
                }
            }
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|source| NetError::kernel(format!("start thread {name}"), source))?;
        started.await.map_err(|_| NetError::Closed)??;
        Ok(Worker(jobs))
    }

    /// Runs `job` on the thread and waits for its answer. Dropping the future does not stop the job.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<R, NetError> + Send + 'static,
    ) -> Result<R, NetError> {
        let (answer, answered) = oneshot::channel();
        self.0
            .send(Box::new(move |state| {
                let _ = answer.send(job(state));
            }))
            .map_err(|_| NetError::Closed)?;
        answered.await.map_err(|_| NetError::Closed)?
    }
}
