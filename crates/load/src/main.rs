//! Reads a job, does it, and prints what it gave.

use std::io::Read as _;

use corten_load::{Job, Work, run};

fn main() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text)?;
    let job: Job = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if matches!(job.work, Work::Nodes) {
        let (closed, stop) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let ended = std::io::stdin().read(&mut [0]);
            closed.send(ended)
        });
        return runtime.block_on(async {
            tokio::select! {
                outcome = run(&job) => outcome.map(drop),
                _ = stop => Ok(()),
            }
        });
    }
    let sample = runtime.block_on(run(&job))?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
