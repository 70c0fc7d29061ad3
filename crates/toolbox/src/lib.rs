//! The applets of the built-in image: what a pod needs to be useful where no registry is at hand.
//!
//! One executable serves all: `/bin/NAME` in the image is a link to it, and the name that it is called by selects the applet.
//! Every applet ends on SIGTERM with code 143, also as process 1 of a container, where the kernel would ignore the signal.

mod files;
mod httpd;
mod nc;
mod plain;

use std::future::Future;
use std::process::ExitCode;

/// One applet.
pub struct Applet {
    /// Its name.
    pub name: &'static str,
    /// How it is called.
    pub usage: &'static str,
    run: Run,
}

enum Run {
    Sync(fn(&[String]) -> Outcome),
    Async(fn(Vec<String>) -> futures::future::BoxFuture<'static, Outcome>),
    /// Handles SIGTERM itself.
    Server(fn(Vec<String>) -> futures::future::BoxFuture<'static, Outcome>),
}

/// An exit code, or a message for stderr (exit code 1; 2 for wrong usage).
type Outcome = Result<u8, Failure>;

enum Failure {
    Usage,
    Message(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Message(error.to_string())
    }
}

/// All applets, by name.
pub const APPLETS: &[Applet] = &[
    Applet { name: "cat", usage: "cat [FILE...]", run: Run::Sync(plain::cat) },
    Applet { name: "date", usage: "date", run: Run::Sync(plain::date) },
    Applet { name: "echo", usage: "echo [-n] [TEXT...]", run: Run::Sync(plain::echo) },
    Applet { name: "env", usage: "env", run: Run::Sync(plain::env) },
    Applet { name: "false", usage: "false", run: Run::Sync(plain::fail) },
    Applet { name: "hostname", usage: "hostname", run: Run::Sync(plain::hostname) },
    Applet {
        name: "httpd",
        usage: "httpd [-p PORT] [--version TEXT] [--log FILE] [--drain SECONDS]",
        run: Run::Server(|args| Box::pin(httpd::serve(args))),
    },
    Applet { name: "id", usage: "id", run: Run::Sync(plain::id) },
    Applet { name: "ls", usage: "ls [-l] [PATH...]", run: Run::Sync(files::ls) },
    Applet {
        name: "nc",
        usage: "nc [-z] [-w SECONDS] HOST PORT | nc -l -p PORT [-k]",
        run: Run::Async(|args| Box::pin(nc::run(args))),
    },
    Applet { name: "pause", usage: "pause", run: Run::Async(|_| Box::pin(std::future::pending())) },
    Applet { name: "sleep", usage: "sleep SECONDS|infinity", run: Run::Async(|args| Box::pin(plain::sleep(args))) },
    Applet { name: "tail", usage: "tail [-n LINES] [-f|-F] FILE", run: Run::Async(|args| Box::pin(files::tail(args))) },
    Applet { name: "tar", usage: "tar -c|-x [-m] [-f FILE|-] [-C DIR] [PATH...]", run: Run::Sync(files::tar) },
    Applet { name: "true", usage: "true", run: Run::Sync(|_| Ok(0)) },
    Applet {
        name: "wget",
        usage: "wget [-q] [-T SECONDS] [-O -] http://HOST[:PORT]/PATH",
        run: Run::Async(|args| Box::pin(nc::wget(args))),
    },
];

/// Runs the applet `name` with its arguments (without the name). `None` if there is no such applet.
pub fn run(name: &str, args: Vec<String>) -> Option<ExitCode> {
    let applet = APPLETS.iter().find(|a| a.name == name)?;
    let outcome = match applet.run {
        Run::Sync(f) => f(&args),
        Run::Async(f) => until_terminated(f(args)),
        Run::Server(f) => single_thread().and_then(|runtime| runtime.block_on(f(args))),
    };
    Some(ExitCode::from(match outcome {
        Ok(code) => code,
        Err(Failure::Usage) => {
            eprintln!("usage: {}", applet.usage);
            2
        }
        Err(Failure::Message(message)) => {
            eprintln!("{name}: {message}");
            1
        }
    }))
}

/// Runs a future on a single thread until it ends, or SIGTERM or SIGINT comes (143, 130). Children are reaped by the runtime.
fn until_terminated(body: impl Future<Output = Outcome>) -> Outcome {
    use tokio::signal::unix::{SignalKind, signal};
    single_thread()?.block_on(async {
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            biased;
            outcome = body => outcome,
            _ = term.recv() => Ok(143),
            _ = interrupt.recv() => Ok(130),
        }
    })
}

fn single_thread() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// The value of an option that stands alone (`-p 80`) or joined (`-p80`, `--drain=3`); takes both from `args`.
fn option(args: &mut Vec<String>, names: &[&str]) -> Result<Option<String>, Failure> {
    for name in names {
        if let Some(at) = args.iter().position(|a| a == name) {
            if at + 1 >= args.len() {
                return Err(Failure::Usage);
            }
            args.remove(at);
            return Ok(Some(args.remove(at)));
        }
        let joined =
            |a: &String| a.strip_prefix(name).map(|v| v.trim_start_matches('=').to_owned()).filter(|v| !v.is_empty());
        if let Some(at) = args.iter().position(|a| joined(a).is_some() && !a.starts_with("--") | name.starts_with("--"))
        {
            return Ok(joined(&args.remove(at)));
        }
    }
    Ok(None)
}

/// Whether a switch is there; takes it from `args`.
fn switch(args: &mut Vec<String>, names: &[&str]) -> bool {
    let before = args.len();
    args.retain(|a| !names.contains(&a.as_str()));
    args.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_alone_or_joined() {
        let mut args: Vec<String> = ["-p", "80", "--drain=3", "-w2", "x"].map(String::from).to_vec();
        assert_eq!(option(&mut args, &["-p"]).ok().flatten().as_deref(), Some("80"));
        assert_eq!(option(&mut args, &["--drain"]).ok().flatten().as_deref(), Some("3"));
        assert_eq!(option(&mut args, &["-w"]).ok().flatten().as_deref(), Some("2"));
        assert_eq!(args, ["x"]);
    }

    #[test]
    fn unknown_names_are_not_applets() {
        assert!(run("corten", vec![]).is_none());
        assert!(run("true", vec![]).is_some());
    }
}
