//! The command line. Flag names follow k3s where it has one.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use corten_cli::{ClientCommand, ConnectArgs};

use crate::api_args::ApiArgs;

/// Kubernetes in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "corten",
    version = crate::VERSION,
    about = "Kubernetes in one binary",
    after_help = "Examples:
  corten up                       start a cluster in the background and point kubectl at it
  corten demo                     see all workload kinds run, roll and roll back
  corten get pods -A              what runs, without kubectl
  corten image build ./root -t registry.local/app:1
  corten down                     stop it and leave nothing behind"
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How clients find the cluster.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster in the background, wait until it is ready, and write a kubeconfig
    #[command(
        after_help = "Examples:\n  corten up\n  corten up --name second       a second cluster beside the first\n\nRunning it again is harmless."
    )]
    Up(UpArgs),
    /// Stop a cluster: no process, mount, link or rule is left; data stays unless --purge
    #[command(after_help = "Examples:\n  corten down\n  corten down --name second --purge")]
    Down(DownArgs),
    /// Run the server in the foreground: API, controllers, scheduler, and this machine's node
    #[command(
        after_help = "Examples:\n  corten server\n  corten server --disable-agent --https-listen-port 7443 --data-dir /tmp/c"
    )]
    Server(ServerArgs),
    /// Run only a node that joins a server
    Agent(AgentArgs),
    /// Start a cluster, run every workload kind, roll an update out and back, and clean up
    #[command(after_help = "Examples:\n  corten demo\n  corten demo --keep            leave the cluster running")]
    Demo(DemoArgs),
    /// Import, build, list and remove container images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Look after the keys with which Secrets are sealed in the data directory
    #[command(subcommand)]
    SecretsEncrypt(SecretsEncryptCommand),
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  source <(corten completion bash)\n  corten completion fish > ~/.config/fish/completions/corten.fish"
    )]
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Names a cluster of this machine.
#[derive(Debug, Clone, Args)]
pub struct NameArgs {
    /// Name of the cluster
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Where the cluster keeps its data (default: /var/lib/corten/NAME)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Addresses of a cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct AddressArgs {
    /// Port of the API server (default: 6443, for further clusters the next free one)
    #[arg(long, value_name = "PORT")]
    pub https_listen_port: Option<u16>,
    /// Addresses of pods (default: 10.42.0.0/16, for further clusters the next free range)
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<String>,
    /// Addresses of Services (default: 10.43.0.0/16, for further clusters the next free range)
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Pods that this machine's node takes at most (default: 110); its pod range holds twice as many addresses
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub max_pods: Option<u32>,
}

/// Arguments of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub cluster: NameArgs,
    #[command(flatten)]
    pub addresses: AddressArgs,
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Arguments of `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub cluster: NameArgs,
    /// Remove the data, too: objects, images, volumes
    #[arg(long)]
    pub purge: bool,
}

/// Arguments of `server`.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub cluster: NameArgs,
    #[command(flatten)]
    pub addresses: AddressArgs,
    /// Address to listen on (default: all)
    #[arg(long, value_name = "ADDRESS")]
    pub bind_address: Option<IpAddr>,
    /// Write the administrator's kubeconfig to this file (default: DATA-DIR/kubeconfig)
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Do not run a node on this machine: the API server, controllers and scheduler only
    #[arg(long)]
    pub disable_agent: bool,
    /// Shared secret with which agents join and that clients may use as an administrator's bearer token
    #[arg(long, env = "CORTEN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Name of this machine's node (default: the host's name)
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where objects are stored: sqlite (in DATA-DIR) or memory
    #[arg(long, default_value = "sqlite", value_name = "STORE")]
    pub datastore_endpoint: String,
    /// Descriptor on which `up` waits for the stages of the start.
    #[arg(long, hide = true)]
    pub ready_fd: Option<i32>,
    #[command(flatten)]
    pub api: ApiArgs,
}

/// Arguments of `agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// Address of the server, as https://host:6443
    #[arg(long)]
    pub server: String,
    /// Token of the server
    #[arg(long, env = "CORTEN_TOKEN", hide_env_values = true)]
    pub token: String,
}

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Leave the cluster running
    #[arg(long)]
    pub keep: bool,
    /// Name of the demo's cluster
    #[arg(long, default_value = "demo")]
    pub name: String,
}

/// The commands for Secrets at rest.
#[derive(Debug, Subcommand)]
pub enum SecretsEncryptCommand {
    /// Make a new key; the server seals all Secrets anew with it when it starts next
    RotateKeys {
        #[command(flatten)]
        cluster: NameArgs,
    },
}

/// The image commands.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import an OCI layout or a docker archive (file, directory, plain or compressed)
    #[command(
        after_help = "Examples:\n  corten image import app.tar.gz\n  corten image import ./oci-layout -t registry.local/app:1"
    )]
    Import {
        #[command(flatten)]
        cluster: NameArgs,
        /// The archive or directory
        source: PathBuf,
        /// Name for the image where the archive has none
        #[arg(short, long)]
        tag: Option<String>,
        /// Unpack its layers, too, which the first pod would wait for
        #[arg(long)]
        unpack: bool,
    },
    /// Make an image of a directory
    #[command(
        after_help = "Examples:\n  corten image build ./root -t registry.local/app:1 --entrypoint /app --env MODE=prod"
    )]
    Build {
        #[command(flatten)]
        cluster: NameArgs,
        /// The directory that becomes the image's root
        directory: PathBuf,
        /// Name of the image
        #[arg(short, long)]
        tag: String,
        /// Program to run; repeat for its arguments
        #[arg(long)]
        entrypoint: Vec<String>,
        /// Default arguments; repeat
        #[arg(long)]
        cmd: Vec<String>,
        /// NAME=VALUE; repeat
        #[arg(long)]
        env: Vec<String>,
        /// Working directory
        #[arg(long)]
        workdir: Option<String>,
        /// User, as name, uid or uid:gid
        #[arg(long)]
        user: Option<String>,
    },
    /// List images
    Ls {
        #[command(flatten)]
        cluster: NameArgs,
    },
    /// Remove images
    Rm {
        #[command(flatten)]
        cluster: NameArgs,
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
