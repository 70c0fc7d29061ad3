//! nc and wget: the smallest network clients.

use std::time::Duration;

use corten_base::{Clock as _, SystemClock};
use futures::future::{Either, select};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional, join, stdin, stdout};
use tokio::net::{TcpListener, TcpStream};

use crate::{Failure, Outcome, option, switch};

/// Connects, or listens: `-z` only tries the connection, `-l` prints what comes and answers nothing.
pub(crate) async fn run(mut args: Vec<String>) -> Outcome {
    let probe = switch(&mut args, &["-z"]);
    let listen = switch(&mut args, &["-l"]);
    let keep = switch(&mut args, &["-k"]);
    switch(&mut args, &["-v", "-n"]);
    let wait = seconds(option(&mut args, &["-w"])?, 10.0)?;
    if listen {
        let port = option(&mut args, &["-p"])?.or_else(|| args.pop()).ok_or(Failure::Usage)?;
        return serve(&port, keep).await;
    }
    let [host, port] = args.as_slice() else { return Err(Failure::Usage) };
    let mut stream = connect(host, port, wait).await?;
    if !probe {
        let mut terminal = join(stdin(), stdout());
        copy_bidirectional(&mut terminal, &mut stream).await?;
    }
    Ok(0)
}

fn seconds(text: Option<String>, default: f64) -> Result<Duration, Failure> {
    let number = text.map_or(Ok(default), |t| t.parse()).map_err(|_| Failure::Usage)?;
    Duration::try_from_secs_f64(number).map_err(|_| Failure::Usage)
}

async fn connect(host: &str, port: &str, wait: Duration) -> Result<TcpStream, Failure> {
    let port: u16 = port.parse().map_err(|_| Failure::Usage)?;
    let attempt = Box::pin(TcpStream::connect((host, port)));
    match select(attempt, SystemClock.sleep(wait)).await {
        Either::Left((stream, _)) => stream.map_err(|e| format!("{host} port {port}: {e}").into()),
        Either::Right(_) => Err(format!("{host} port {port}: no answer within {wait:?}").into()),
    }
}

async fn serve(port: &str, keep: bool) -> Outcome {
    let port: u16 = port.parse().map_err(|_| Failure::Usage)?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        // A peer that breaks off is its own affair; the listener goes on.
        let copied = copy(&mut stream, &mut stdout()).await;
        if !keep {
            return copied.map(|_| 0).map_err(Into::into);
        }
    }
}

/// Prints the body of a plain HTTP answer; exit code 1 for codes from 400.
pub(crate) async fn wget(mut args: Vec<String>) -> Outcome {
    switch(&mut args, &["-q", "-S"]);
    option(&mut args, &["-O"])?;
    let wait = seconds(option(&mut args, &["-T"])?, 10.0)?;
    let [url] = args.as_slice() else { return Err(Failure::Usage) };
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let mut stream = connect(host.trim_matches(['[', ']']), port, wait).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("the answer is not HTTP")?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    stdout().write_all(&answer[split + 4..]).await?;
    stdout().flush().await?;
    let code: u16 = head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or("the answer has no status code")?;
    if code >= 400 {
        return Err(format!("server answered {code}").into());
    }
    Ok(0)
}
