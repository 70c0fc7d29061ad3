//! Makes the root directories that end-to-end tests need, ahead of time: `cargo run -p corten-testkit --example fetch`.

use anyhow::Result;
use corten_testkit::{debian, tools};

fn main() -> Result<()> {
    println!("{}", tools::kubectl()?.display());
    println!("{}", debian::busybox()?.display());
    println!(
        "{}",
        debian::rootfs("postgres-15", &["postgresql-15", "bash", "dash", "coreutils", "hostname"])?.display()
    );
    Ok(())
}
