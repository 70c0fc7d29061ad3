//! Commands over SPDY (`cri-streaming/pkg/streaming/remotecommand`, `createHTTPStreamStreams`): a stream for each end of the
//! command, one for the sizes of its terminal, and one that tells how it ended.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use corten_base::Clock;
use corten_client::{ExecRequest, ExecSession, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::{Accepted, Incoming, Stream};
use crate::streams::{CHUNK, exit_status, terminal_size};

/// The protocols: from the fourth on a command's end is told by a Status, from the third on terminals have sizes.
pub(crate) const PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a client may take to open its streams (`streamCreationTimeout`).
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// Longest text for one size of a terminal, in bytes.
const SIZE_MAX: usize = 1024;

type Ends = HashMap<&'static str, Stream>;

/// The streams that a client opens for a command.
pub(crate) fn expected(wanted: &ExecRequest, protocol: &str) -> Vec<&'static str> {
    let sizes = wanted.tty && PROTOCOLS[..2].contains(&protocol);
    let all = [("stdin", wanted.stdin), ("stdout", wanted.stdout), ("stderr", wanted.stderr), ("resize", sizes)];
    let mut out = vec!["error"];
    out.extend(all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name));
    out
}

/// Carries a command's streams until it has ended or the client has left.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send>(
    io: S,
    session: ExecSession,
    (protocol, expected): (&'static str, Vec<&'static str>),
    clock: &dyn Clock,
) {
    let (begin, begun) = oneshot::channel();
    let mut waiting = Some((session, begin));
    let mut ends = Ends::new();
    let accept = move |stream: Stream| {
        let kind = expected.iter().find(|kind| **kind == stream.header("streamtype"));
        let Some(kind) = kind.filter(|kind| waiting.is_some() && !ends.contains_key(*kind)) else {
            return Accepted::No;
        };
        ends.insert(kind, stream);
        if ends.len() < expected.len() {
            return Accepted::Yes(None);
        }
        Accepted::Yes(waiting.take().map(|(session, begin)| -> futures::future::BoxFuture<'static, ()> {
            let _ = begin.send(());
            Box::pin(run(session, std::mem::take(&mut ends), protocol))
        }))
    };
    let late = async {
        tokio::select! {
            Ok(()) = begun => std::future::pending().await,
            () = clock.sleep(STREAMS_WITHIN) => tracing::debug!("timed out waiting for client to create streams"),
        }
    };
    tokio::select! {
        () = super::serve(io, accept) => {}
        () = late => {}
    }
}

async fn run(session: ExecSession, mut ends: Ends, protocol: &'static str) {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let (input, sizes) =
        (ends.get_mut("stdin").map(Stream::take_incoming), ends.get_mut("resize").map(Stream::take_incoming));
    let Some(error) = ends.get("error") else { return };
    let output = async {
        let (_, _, exit) =
            futures::future::join3(carry(stdout, ends.get("stdout")), carry(stderr, ends.get("stderr")), exit).await;
        let status = exit_status(exit);
        let told: Bytes = match (protocol, status.str_at("status")) {
            ("v4.channel.k8s.io", _) => status.to_json().into(),
            (_, "Failure") => status.str_at("message").to_owned().into(),
            _ => Bytes::new(),
        };
        if !told.is_empty() {
            let _ = error.send(told).await;
        }
        for kind in ["error", "stdin", "resize"] {
            if let Some(end) = ends.get(kind) {
                end.finish().await;
            }
        }
        error.close_connection().await;
        std::future::pending::<()>().await
    };
    // The connection's end, or the client's, ends all of this.
    futures::future::join3(output, feed(stdin, input), resizes(resize, sizes)).await;
}

/// Sends what a command writes.
async fn carry(reader: Option<Pin<Box<dyn AsyncRead + Send>>>, end: Option<&Stream>) {
    let Some(end) = end else { return };
    if let Some(mut reader) = reader {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = reader.read(&mut buffer).await {
            if end.send(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                return;
            }
        }
    }
    end.finish().await;
}

/// Gives a command what the client sends; its stdin is closed when there is no more.
async fn feed(stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>, incoming: Option<mpsc::Receiver<Incoming>>) {
    let (Some(mut stdin), Some(mut incoming)) = (stdin, incoming) else { return };
    while let Some(Incoming::Data(bytes)) = incoming.recv().await {
        if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

/// Tells the terminal's sizes: values of JSON, one a line.
async fn resizes(resize: Option<mpsc::Sender<TerminalSize>>, incoming: Option<mpsc::Receiver<Incoming>>) {
    let (Some(resize), Some(mut incoming)) = (resize, incoming) else { return };
    let mut text = Vec::new();
    while let Some(Incoming::Data(bytes)) = incoming.recv().await {
        text.extend_from_slice(&bytes);
        while let Some(end) = text.iter().position(|b| *b == b'}') {
            let rest = text.split_off(end + 1);
            if resize.send(terminal_size(&text)).await.is_err() {
                return;
            }
            text = rest;
        }
        if text.len() > SIZE_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{data, open, said};
    use super::*;

    #[test]
    fn spdy_streams_that_are_expected_follow_the_options_and_the_protocol() {
        let shell = ExecRequest { stdin: true, stdout: true, tty: true, ..ExecRequest::default() };
        assert_eq!(expected(&shell, "v4.channel.k8s.io"), ["error", "stdin", "stdout", "resize"]);
        assert_eq!(expected(&shell, "v2.channel.k8s.io"), ["error", "stdin", "stdout"]);
        let plain = ExecRequest { stdout: true, stderr: true, ..ExecRequest::default() };
        assert_eq!(expected(&plain, "v3.channel.k8s.io"), ["error", "stdout", "stderr"]);
    }

    #[tokio::test]
    async fn spdy_terminal_sizes_come_in_any_pieces() {
        let (send, incoming) = mpsc::channel(4);
        let (resize, mut sizes) = mpsc::channel(4);
        for piece in ["{\"Width\":80,\"Hei", "ght\":24}\n{\"Width\":100,\"Height\":50}\n"] {
            send.send(Incoming::Data(piece.into())).await.unwrap();
        }
        drop(send);
        resizes(Some(resize), Some(incoming)).await;
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 100, height: 50 }));
        assert_eq!(sizes.recv().await, None);
    }

    /// A command that writes what it reads, and exits with 3 at the end of it.
    fn cat() -> ExecSession {
        let (stdin, ours) = tokio::io::duplex(64);
        let (theirs, stdout) = tokio::io::duplex(64);
        let exit = async move {
            let (mut ours, mut theirs) = (ours, theirs);
            tokio::io::copy(&mut ours, &mut theirs).await.unwrap();
            corten_client::ExecExit::Code(3)
        };
        let (stdin, stdout) = (Some(Box::pin(stdin) as _), Some(Box::pin(stdout) as _));
        ExecSession { stdin, stdout, stderr: None, resize: None, exit: Box::pin(exit) }
    }

    async fn talk(protocol: &'static str) -> Vec<String> {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let mut blocks = super::super::headers::Writer::new().unwrap();
        let wanted = ExecRequest { stdin: true, stdout: true, ..ExecRequest::default() };
        let talk = async move {
            for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
                client.write_all(&open(&mut blocks, id, &[("streamtype", kind)])).await.unwrap();
            }
            client.write_all(&data(3, false, b"one")).await.unwrap();
            client.write_all(&data(3, true, b"")).await.unwrap();
            said(&mut client).await
        };
        let clock = corten_base::SystemClock;
        futures::future::join(serve(server, cat(), (protocol, expected(&wanted, protocol)), &clock), talk).await.1
    }

    #[tokio::test]
    async fn spdy_carries_a_command_and_tells_how_it_ended() {
        let said = talk("v4.channel.k8s.io").await;
        assert_eq!(said[..2], ["5 one", "5 ends"]);
        assert!(said[2].starts_with("1 {") && said[2].contains("\"NonZeroExitCode\""), "{said:?}");
        assert_eq!(said[3..], ["1 ends", "3 ends"]);
        let plain = talk("channel.k8s.io").await;
        assert_eq!(plain[2], "1 command terminated with non-zero exit code: exit status 3");
    }
}
