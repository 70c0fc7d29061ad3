//! The project's own commands: `cargo xtask COMMAND`.

mod apply_diff;
mod bench;
mod checklist;
mod clients;
mod conformance;
mod deny;
mod faults;
mod fuzz;
mod interrupt;
mod oracle;
mod planted;
mod schema;
mod sim;
mod test;
mod tidy;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Format, clippy, tidy, unit, simulation and end-to-end tests; installs what it lacks and says so
    Test(test::TestArgs),
    /// Check layers, banned calls, file sizes and other rules of the code
    Tidy,
    /// Put random writes by several managers to upstream's kube-apiserver and to Corten's, and compare objects and managed fields
    ApplyDiff(apply_diff::ApplyDiffArgs),
    /// Measure a release build: start times, pods, idleness, reads, writes, lists; `bench api`, `bench workloads`: beside upstream (needs root)
    Bench(bench::BenchArgs),
    /// Run controllers of client-go, controller-runtime and kube-rs against a cluster of this machine (needs root and Go)
    Clients(clients::ClientsArgs),
    /// Run upstream's conformance tests on a cluster of this machine and write docs/conformance.md (needs root and Go)
    Conformance(conformance::ConformanceArgs),
    /// Check licences and bans of the dependency tree (installs cargo-deny below target/)
    Deny,
    /// Compare the answers to faulty manifests with those of upstream's kube-apiserver, built from its Go modules
    Faults(faults::FaultsArgs),
    /// Fuzz what reads input from outside, in an optimised build with overflow checks (options: `cargo xtask fuzz -- --help`)
    Fuzz(fuzz::FuzzArgs),
    /// Plant bugs in a copy of the controllers, one at a time, and let the simulator find each; writes docs/planted-bugs.md
    Planted(planted::PlantedArgs),
    /// Write the schema table from upstream's Go types
    Schema {
        /// Compare instead, and run the byte-for-byte tests against upstream
        #[arg(long)]
        check: bool,
    },
    /// Simulate whole clusters from seeds, in an optimised build with overflow checks (options: `cargo xtask sim -- --help`)
    Sim(sim::SimArgs),
    /// Boot Debian's cloud kernel in software emulation, cgroup v2 only, and run a command (default: the runtime's tests) in it
    Vm(vm::VmArgs),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(),
        Command::ApplyDiff(args) => apply_diff::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Clients(args) => clients::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Deny => deny::run(),
        Command::Faults(args) => faults::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Planted(args) => planted::run(&args),
        Command::Schema { check } => schema::run(check),
        Command::Sim(args) => sim::run(&args),
        Command::Vm(args) => vm::run(&args).and_then(|status| match status {
            0 => Ok(()),
            status => anyhow::bail!("the command in the machine ended with status {status}"),
        }),
    }
}
