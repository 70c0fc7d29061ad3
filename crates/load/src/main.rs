//! Reads a job, does it, and prints what it gave.

use std::io::Read as _;

use corten_load::{Job, run};

fn main() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let job: Job = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sample = runtime.block_on(run(&job))?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
