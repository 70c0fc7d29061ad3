//! `corten exec`.

use std::io::IsTerminal as _;

use anyhow::{Result, bail};
use clap::Args;
use corten_client::exec::{ExecEvent, ExecInput, open};
use corten_client::{TerminalSize, query_escape};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Session, logs};

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// POD, or KIND/NAME of a workload (its first pod)
    pod: String,
    /// The container
    #[arg(short, long, default_value = "")]
    container: String,
    /// Pass stdin on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Run on a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The terminal in raw mode; dropped, it is as before.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Raw> {
        let before = termios::tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that does not take its old settings back.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

pub(crate) async fn run(session: &Session, args: ExecArgs) -> Result<u8> {
    let pod = logs::pod_name(session, &args.pod).await?;
    let pods = session.kind("pods")?;
    let tty = args.tty && std::io::stdin().is_terminal();
    let mut path = format!("{}/exec?stdout=true&stdin={}&tty={tty}", session.object_path(&pods, &pod), args.stdin);
    if !tty {
        path.push_str("&stderr=true");
    }
    if !args.container.is_empty() {
        path.push_str(&format!("&container={}", query_escape(&args.container)));
    }
    for word in &args.command {
        path.push_str(&format!("&command={}", query_escape(word)));
    }
    let (input, mut output) = open(&session.client, &path).await?;
    let raw = if tty { Some(Raw::enter()?) } else { None };
    let send = feed(input, args.stdin, tty);
    let receive = async {
        loop {
            match output.next().await {
                ExecEvent::Stdout(bytes) => write(&mut std::io::stdout(), &bytes)?,
                ExecEvent::Stderr(bytes) => write(&mut std::io::stderr(), &bytes)?,
                ExecEvent::Exit(code) => return Ok(code),
                ExecEvent::Failed(status) => bail!("{status}"),
            }
        }
    };
    let code = tokio::select! {
        code = receive => code,
        failed = send => Err(failed),
    };
    drop(raw);
    Ok(u8::try_from(code?).unwrap_or(255))
}

fn write(out: &mut dyn std::io::Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Passes stdin and the terminal's size on; ends only with an error.
async fn feed(mut input: ExecInput, pass_stdin: bool, tty: bool) -> anyhow::Error {
    let run = async {
        let mut resized = signal(SignalKind::window_change())?;
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; 16 << 10];
        let mut open = pass_stdin;
        if tty && let Some(size) = terminal_size() {
            input.resize(size).await?;
        }
        loop {
            tokio::select! {
                read = stdin.read(&mut buffer), if open => match read? {
                    0 => {
                        open = false;
                        input.close_stdin().await?;
                    }
                    n => input.stdin(&buffer[..n]).await?,
                },
                _ = resized.recv(), if tty => if let Some(size) = terminal_size() {
                    input.resize(size).await?;
                },
                () = std::future::pending(), if !open && !tty => {}
            }
        }
    };
    let outcome: Result<std::convert::Infallible> = run.await;
    match outcome {
        Err(error) => error,
    }
}

fn terminal_size() -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(std::io::stdin()).ok()?;
    Some(TerminalSize { width: size.ws_col, height: size.ws_row })
}
