//! The one task that applies the store's changes.

use std::sync::{Arc, Mutex, PoisonError};

use corten_base::{OnError, OnStop, Tasks};
use corten_store::Store;

use crate::Cache;

impl Cache {
    /// Reads the store, and from then on applies its changes in a task. The task's end stops the server: without it nothing is
    /// answered.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(&self, store: Arc<dyn Store>, tasks: &Tasks) -> corten_store::Result<()> {
        let first = Arc::new(Mutex::new(Some(self.load(&*store).await?)));
        let cache = self.clone();
        tasks.run("cache", OnError::Fatal, OnStop::Abort, move || {
            let (cache, store, first) = (cache.clone(), store.clone(), first.clone());
            async move {
                let watch = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                match watch {
                    Some(watch) => Err::<(), _>(cache.run(store, watch).await.to_string()),
                    None => Err("the cache was started twice".to_owned()),
                }
            }
        });
        Ok(())
    }
}
