//! Kubernetes in one binary.
//!
//! The one executable is the server, the client, every container's shim, and the programs of the built-in image. What it is
//! this time, `main` decides in this order: a runtime's helper process (before any thread starts), an applet by the name it is
//! called by, else the command line.

mod api_args;
mod args;
mod assembly;
mod authority;
mod demo;
mod dns_service;
mod flagz;
mod flow_args;
mod host;
mod image;
mod lifecycle;
mod node_args;
mod paths;
mod progress;
mod server;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Arguments, Command, SecretsEncryptCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The version of Kubernetes that is served, with Corten's own build after the plus sign.
pub const VERSION: &str = concat!("v1.37.2+corten.", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    corten_runtime::dispatch();
    let mut words = std::env::args();
    let called = words.next().unwrap_or_default();
    let name = called.rsplit('/').next().unwrap_or_default();
    if let Some(code) = corten_toolbox::run(name, words.collect()) {
        return code;
    }
    // Applets can be called by argument, too: an image may have links to nothing but the binary.
    let rest: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, applet)) = rest.split_first()
        && first == "toolbox"
        && let Some((name, args)) = applet.split_first()
        && let Some(code) = corten_toolbox::run(name, args.to_vec())
    {
        return code;
    }
    let command = Arguments::command();
    let matches = command.clone().get_matches();
    if let Some((name @ "server", given)) = matches.subcommand()
        && let Some(server) = command.find_subcommand(name)
    {
        corten_apiserver::started_with(flagz::of(server, given));
    }
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<u8> {
    match arguments.command {
        Command::Server(args) => server::run(args),
        Command::Agent(args) => server::run_agent(&args),
        Command::Up(args) => lifecycle::up(args).map(|()| 0),
        Command::Down(args) => lifecycle::down(args).map(|()| 0),
        Command::Demo(args) => demo::run(args).map(|()| 0),
        Command::Image(args) => image::run(args).map(|()| 0),
        Command::SecretsEncrypt(SecretsEncryptCommand::RotateKeys { cluster }) => {
            let file = paths::Cluster::new(&cluster)?.encryption_keys();
            corten_auth::Sealer::rotate(&file)?;
            println!("{} has a new key: the server seals all Secrets anew with it when it starts next", file.display());
            Ok(0)
        }
        Command::Client(command) => async_runtime()?.block_on(corten_cli::run(command, &arguments.connect)),
        Command::Version => {
            println!("corten {VERSION}");
            Ok(0)
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "corten", &mut std::io::stdout());
            Ok(0)
        }
    }
}

/// A runtime for commands that are clients.
fn async_runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
