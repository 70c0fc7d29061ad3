//! The project's own commands: `cargo xtask NAME`.

mod schema;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the schema table from upstream's Go types
    Schema {
        /// Compare instead, and run the byte-for-byte tests against upstream
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Schema { check } => schema::run(check),
    }
}
