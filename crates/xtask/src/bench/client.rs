//! Loads are made by a small program of its own, in a release build: this one would measure itself.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use corten_load::{Job, Sample, State, Target, Work};
use tokio::sync::watch;

/// Puts a load on a server.
///
/// # Errors
/// If a request of it fails.
pub(super) fn load(program: &Path, target: Target, work: Work) -> Result<Sample> {
    let mut child = begin(program, target, work)?;
    drop(child.stdin.take());
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the load failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn begin(program: &Path, target: Target, work: Work) -> Result<Child> {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.display().to_string())?;
    let stdin = child.stdin.as_mut().context("its standard input was piped")?;
    writeln!(stdin, "{}", serde_json::to_string(&Job { target, work })?)?;
    Ok(child)
}

/// A watch that the program follows until something has come about. It ends with this.
pub(super) struct Follower(Child);

impl Follower {
    /// Begins to watch.
    ///
    /// # Errors
    /// If the program does not start.
    pub fn start(program: &Path, target: Target, path: &str, count: usize, state: State) -> Result<Follower> {
        let mut child = begin(program, target, Work::Await { path: path.into(), count, state })?;
        drop(child.stdin.take());
        Ok(Follower(child))
    }

    /// Waits until it has come about.
    ///
    /// # Errors
    /// If the watch has ended before.
    pub async fn done(mut self) -> Result<()> {
        let mut stdout = self.0.stdout.take().context("its standard output was piped")?;
        let read = tokio::task::spawn_blocking(move || {
            let mut told = String::new();
            stdout.read_to_string(&mut told).map(|_| told)
        });
        serde_json::from_str::<Sample>(&read.await??).map(drop).context("what was followed has ended")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        if let Err(error) = self.0.wait() {
            eprintln!("the program that follows: {error}");
        }
    }
}

/// Nodes that pretend, played by the program. They end with this.
pub(super) struct Hollow {
    child: Child,
    /// How many pods there are of each label `app`.
    pods: watch::Receiver<HashMap<String, usize>>,
}

impl Hollow {
    /// Registers the nodes and begins to play them.
    ///
    /// # Errors
    /// If the program does not get there.
    pub async fn start(program: &Path, target: Target) -> Result<Hollow> {
        let mut child = begin(program, target, Work::Nodes)?;
        let stdout = child.stdout.take().context("its standard output was piped")?;
        let (told, mut ready) = watch::channel(None);
        let (counted, counts) = watch::channel(HashMap::new());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                match line.split_once(' ').and_then(|(app, count)| Some((app, count.parse().ok()?))) {
                    Some((app, count)) => counted.send_modify(|pods| {
                        pods.insert(app.to_owned(), count);
                    }),
                    None => drop(told.send(Some(line))),
                }
            }
        });
        let nodes = Hollow { child, pods: counts };
        ready.wait_for(Option::is_some).await.context("the program that plays the nodes has ended")?;
        Ok(nodes)
    }

    /// Waits until so many pods have this label `app`.
    ///
    /// # Errors
    /// If the nodes have ended.
    pub async fn pods(&self, app: &str, count: usize) -> Result<()> {
        let mut pods = self.pods.clone();
        pods.wait_for(|pods| pods.get(app).copied().unwrap_or(0) == count).await?;
        Ok(())
    }
}

impl Drop for Hollow {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the program that plays the nodes: {error}");
        }
    }
}
