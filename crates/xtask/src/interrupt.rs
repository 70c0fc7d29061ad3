//! SIGINT and SIGTERM, for commands that must take something down before they end.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

/// Whether the user, or who runs this, wants it to end. From its making on, signals no longer end the process.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    wanted: Arc<AtomicBool>,
    group: Arc<Mutex<Option<Pid>>>,
}

/// Does work that takes down what it started when it is dropped: by SIGINT or SIGTERM it is.
///
/// # Errors
/// Those of the work, that a signal came, or that none can be listened for.
pub(crate) async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let (mut asked, mut pressed) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        done = work => done,
        _ = asked.recv() => bail!("interrupted"),
        _ = pressed.recv() => bail!("interrupted"),
    }
}

impl Interrupt {
    /// Begins to listen for signals.
    ///
    /// # Errors
    /// If a handler or the thread behind it cannot be made.
    pub fn listen() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        let (listening, runtime) =
            (interrupt.clone(), tokio::runtime::Builder::new_current_thread().enable_all().build()?);
        let (mut asked, mut pressed) = runtime.block_on(async {
            Ok::<_, std::io::Error>((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
        })?;
        std::thread::Builder::new().name("interrupt".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = asked.recv() => {}
                        _ = pressed.recv() => {}
                    }
                    listening.pass_on();
                }
            })
        })?;
        Ok(interrupt)
    }

    fn pass_on(&self) {
        eprintln!("interrupted: taking down what runs");
        self.wanted.store(true, Ordering::SeqCst);
        if let Some(group) = *self.group.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = kill_process_group(group, Signal::INT);
        }
    }

    /// From now on signals are passed on to the process group that this child leads, until it [ended](Interrupt::ended).
    pub fn pass_to(&self, child: &Child) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(Pid::from_child(child));
        if self.wanted.load(Ordering::SeqCst) {
            self.pass_on();
        }
    }

    /// The child has ended: its number may become another's.
    pub fn ended(&self) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Fails if a signal came.
    ///
    /// # Errors
    /// That it did.
    pub fn check(&self) -> Result<()> {
        if self.wanted.load(Ordering::SeqCst) { bail!("interrupted") } else { Ok(()) }
    }
}
