<<<<<<< HEAD
//! The project's own commands: `cargo xtask NAME`.

mod schema;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
=======
//! The project's own commands: `cargo xtask COMMAND`.

mod test;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
>>>>>>> 735a6d8 (xtask, testkit, corten: the commands' skeleton, examples, tidy)
    #[command(subcommand)]
    command: Command,
}

<<<<<<< HEAD
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
=======
#[derive(Debug, Subcommand)]
enum Command {
    /// Format, clippy, tidy, unit, simulation and end-to-end tests; installs what it lacks and says so
    Test(test::TestArgs),
    /// Check layers, banned calls, file sizes and other rules of the code
    Tidy,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(),
>>>>>>> 735a6d8 (xtask, testkit, corten: the commands' skeleton, examples, tidy)
    }
}
