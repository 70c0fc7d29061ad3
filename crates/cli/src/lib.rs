//! Commands shaped like kubectl's, for machines without it.
//!
//! They are a client like any other: HTTPS, a kubeconfig, the server's Table answers. What they print follows kubectl, so
//! that eyes and scripts know it.

pub mod apply;
mod delete;
mod exec;
mod get;
mod logs;
pub mod manifest;
mod on_demand;
mod print;
pub mod rollout;
mod session;
pub mod yaml;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

pub use session::Session;

/// How to find the cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectArgs {
    /// Path of a kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use instead of the current one
    #[arg(long, global = true, help_heading = "Connection")]
    pub context: Option<String>,
    /// Namespace to work in (default: that of the context)
    #[arg(short, long, global = true, help_heading = "Connection")]
    pub namespace: Option<String>,
}

/// The client's commands.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Show objects
    #[command(
        after_help = "Examples:\n  corten get pods\n  corten get deploy,svc -A\n  corten get pod web-0 -o yaml\n  corten get pods -l app=web -w"
    )]
    Get(get::GetArgs),
    /// Create or change objects from manifests
    #[command(
        after_help = "Examples:\n  corten apply -f app.yaml\n  corten apply -f manifests/\n  cat app.yaml | corten apply -f -"
    )]
    Apply(apply::ApplyArgs),
    /// Delete objects
    #[command(
        after_help = "Examples:\n  corten delete pod web-0\n  corten delete -f app.yaml\n  corten delete deploy/web --wait=false"
    )]
    Delete(delete::DeleteArgs),
    /// Print the log of a container
    #[command(
        after_help = "Examples:\n  corten logs web-0\n  corten logs -f web-0 -c app --tail 20\n  corten logs deploy/web"
    )]
    Logs(logs::LogsArgs),
    /// Run a command in a container
    #[command(after_help = "Examples:\n  corten exec web-0 -- ls -l /\n  corten exec -it web-0 -- sh")]
    Exec(exec::ExecArgs),
    /// Watch, undo or restart a rollout
    #[command(
        subcommand,
        after_help = "Examples:\n  corten rollout status deploy/web\n  corten rollout undo deploy/web --to-revision 2"
    )]
    Rollout(rollout::RolloutCommand),
    /// Run a CronJob's job now
    #[command(after_help = "Examples:\n  corten run cronjob/report\n  corten run cronjob/report --name report-again")]
    Run(on_demand::RunArgs),
    /// Restart one container of a pod
    #[command(after_help = "Examples:\n  corten restart pod/web-0 -c app --why 'lost its connection'")]
    Restart(on_demand::RestartArgs),
}

/// Runs a command and gives the process's exit code.
///
/// # Errors
/// What the user has to be told.
pub async fn run(command: ClientCommand, connect: &ConnectArgs) -> Result<u8> {
    let session = Session::open(connect)?;
    match command {
        ClientCommand::Get(args) => get::run(&session, args).await,
        ClientCommand::Apply(args) => apply::run(&session, args).await,
        ClientCommand::Delete(args) => delete::run(&session, args).await,
        ClientCommand::Logs(args) => logs::run(&session, args).await,
        ClientCommand::Exec(args) => exec::run(&session, args).await,
        ClientCommand::Rollout(command) => rollout::run(&session, command).await,
        ClientCommand::Run(args) => on_demand::run(&session, args).await,
        ClientCommand::Restart(args) => on_demand::restart(&session, args).await,
    }
}
