//! Applets that print or wait.

use std::io::{self, Write as _};
use std::time::Duration;

use corten_base::{Clock as _, SystemClock};

use crate::{Failure, Outcome};

pub(crate) fn cat(args: &[String]) -> Outcome {
    let mut out = io::stdout().lock();
    if args.is_empty() {
        io::copy(&mut io::stdin().lock(), &mut out)?;
    }
    let mut code = 0;
    for path in args {
        match std::fs::File::open(path).and_then(|mut f| io::copy(&mut f, &mut out)) {
            Ok(_) => {}
            Err(e) => {
                eprintln!("cat: {path}: {e}");
                code = 1;
            }
        }
    }
    out.flush()?;
    Ok(code)
}

pub(crate) fn echo(args: &[String]) -> Outcome {
    let (newline, words) = match args.split_first() {
        Some((first, rest)) if first == "-n" => ("", rest),
        _ => ("\n", args),
    };
    write!(io::stdout(), "{}{newline}", words.join(" "))?;
    Ok(0)
}

pub(crate) fn env(_: &[String]) -> Outcome {
    let mut out = io::stdout().lock();
    for (key, value) in std::env::vars_os() {
        writeln!(out, "{}={}", key.to_string_lossy(), value.to_string_lossy())?;
    }
    Ok(0)
}

pub(crate) fn fail(_: &[String]) -> Outcome {
    Ok(1)
}

/// The host's name as the kernel has it.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(crate) fn hostname(_: &[String]) -> Outcome {
    writeln!(io::stdout(), "{}", host_name())?;
    Ok(0)
}

pub(crate) fn date(_: &[String]) -> Outcome {
    writeln!(io::stdout(), "{}", SystemClock.now().strftime("%a %b %e %H:%M:%S UTC %Y"))?;
    Ok(0)
}

pub(crate) fn id(_: &[String]) -> Outcome {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let groups = rustix::process::getgroups()?;
    let groups: Vec<String> = groups.iter().map(|g| g.as_raw().to_string()).collect();
    writeln!(io::stdout(), "uid={uid} gid={gid} groups={}", groups.join(","))?;
    Ok(0)
}

pub(crate) async fn sleep(args: Vec<String>) -> Outcome {
    let [text] = args.as_slice() else { return Err(Failure::Usage) };
    if text == "infinity" {
        return std::future::pending().await;
    }
    let scale = match text.chars().last() {
        Some('m') => 60.0,
        Some('h') => 3600.0,
        Some('d') => 86400.0,
        _ => 1.0,
    };
    let number: f64 = text.trim_end_matches(['s', 'm', 'h', 'd']).parse().map_err(|_| Failure::Usage)?;
    let duration = Duration::try_from_secs_f64(number * scale).map_err(|_| Failure::Usage)?;
    SystemClock.sleep(duration).await;
    Ok(0)
}
