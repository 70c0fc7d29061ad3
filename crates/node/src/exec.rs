//! Commands in containers, and attaching to them.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use corten_base::OnStop;
use corten_client::{ExecExit, ExecRequest, ExecSession, TerminalSize};
use corten_object::Status;
use corten_runtime::{ExecSpec, set_terminal_size};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::pod::observe;
use crate::shared::Shared;

type Reader = Pin<Box<dyn AsyncRead + Send>>;
type Writer = Pin<Box<dyn AsyncWrite + Send>>;

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error)
}

/// Runs a command in a running container.
pub async fn run(shared: &Arc<Shared>, id: &str, request: ExecRequest) -> Result<ExecSession, Status> {
    let command = request.command.clone().unwrap_or_default();
    let spec = ExecSpec {
        args: command,
        tty: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr && !request.tty,
        ..ExecSpec::default()
    };
    let owned = id.to_owned();
    let begun = shared.blocking(move |s| s.runtime.exec(&owned, &spec)).await.map_err(internal)?;
    let mut session = match begun {
        Ok(session) => session,
        // Upstream's clients see such a failure as the command's end, with the shell's usual codes.
        Err(error) if error.is_start_error() => return Ok(failed(&error.to_string())),
        Err(error) => return Err(internal(error)),
    };
    let mut out = streams(session.stdin.take(), session.stdout.take(), session.stderr.take())?;
    if let Some(terminal) = session.terminal.take() {
        attach_terminal(shared, &mut out, terminal, request.stdin)?;
    }
    out.exit = Box::pin(async move {
        let exit = match session.exit.try_clone() {
            Ok(exit) => exit,
            Err(error) => return ExecExit::Error(internal(error).into()),
        };
        if let Err(error) = observe::readable(exit).await {
            return ExecExit::Error(internal(error).into());
        }
        match tokio::task::spawn_blocking(move || session.wait()).await {
            Ok(Ok(status)) => ExecExit::Code(status.exit_code),
            Ok(Err(error)) => ExecExit::Error(internal(error).into()),
            Err(error) => ExecExit::Error(internal(error).into()),
        }
    });
    Ok(out)
}

fn failed(message: &str) -> ExecSession {
    let code = if message.contains("permission denied") { 126 } else { 127 };
    let text = format!("{message}\n").into_bytes();
    ExecSession {
        stdin: None,
        stdout: None,
        stderr: Some(Box::pin(std::io::Cursor::new(text))),
        resize: None,
        exit: Box::pin(async move { ExecExit::Code(code) }),
    }
}

/// Connects to a running container's own streams.
pub async fn attach(shared: &Arc<Shared>, id: &str, request: ExecRequest) -> Result<ExecSession, Status> {
    let owned = id.to_owned();
    let found = shared.blocking(move |s| {
        Ok::<_, corten_runtime::Error>((s.runtime.attach(&owned)?, s.runtime.running_shim(&owned)?))
    });
    let (mut attached, shim) = found.await.map_err(internal)?.map_err(internal)?;
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(internal);
    let stdin = attached.stdin.take().filter(|_| request.stdin);
    let stdout = if request.stdout { Some(copy(&attached.stdout)?) } else { None };
    let stderr = attached.stderr.as_ref().filter(|_| request.stderr).map(copy).transpose()?;
    let mut out = streams(stdin, stdout, stderr)?;
    if let Some(terminal) = attached.terminal.take() {
        out.resize = Some(resizer(shared, terminal));
    }
    let (shared, id) = (shared.clone(), id.to_owned());
    out.exit = Box::pin(async move {
        // The shim lets go of a client whose attachment is dropped.
        let _attached = attached;
        if let Some(shim) = shim
            && let Err(error) = observe::readable(shim.pidfd).await
        {
            return ExecExit::Error(internal(error).into());
        }
        match shared.blocking(move |s| s.runtime.exit_info(&id)).await {
            Ok(Ok(Some(exit))) => ExecExit::Code(exit.exit_code),
            // Upstream's attach ends without a word when the container has ended.
            _ => ExecExit::Code(0),
        }
    });
    Ok(out)
}

fn streams(stdin: Option<OwnedFd>, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Result<ExecSession, Status> {
    let reader = |fd: Option<OwnedFd>| -> Result<Option<Reader>, Status> {
        let Some(fd) = fd else { return Ok(None) };
        Ok(Some(Box::pin(Descriptor::new(fd)?)))
    };
    let stdin = match stdin {
        Some(fd) => Some(writer(fd)?),
        None => None,
    };
    Ok(ExecSession {
        stdin,
        stdout: reader(stdout)?,
        stderr: reader(stderr)?,
        resize: None,
        exit: Box::pin(async { ExecExit::Code(0) }),
    })
}

fn writer(fd: OwnedFd) -> Result<Writer, Status> {
    Ok(match pipe::Sender::from_owned_fd(fd.try_clone().map_err(internal)?) {
        Ok(sender) => Box::pin(sender),
        // A terminal or a socket.
        Err(_) => Box::pin(Descriptor::new(fd)?),
    })
}

fn attach_terminal(shared: &Arc<Shared>, out: &mut ExecSession, terminal: OwnedFd, stdin: bool) -> Result<(), Status> {
    let copy = || terminal.try_clone().map_err(internal);
    out.stdout = Some(Box::pin(Descriptor::new(copy()?)?));
    if stdin {
        out.stdin = Some(Box::pin(Descriptor::new(copy()?)?));
    }
    out.resize = Some(resizer(shared, terminal));
    Ok(())
}

fn resizer(shared: &Arc<Shared>, terminal: OwnedFd) -> mpsc::Sender<TerminalSize> {
    let (sender, mut sizes) = mpsc::channel::<TerminalSize>(4);
    shared.tasks.spawn("terminal-size", OnStop::Abort, async move {
        while let Some(size) = sizes.recv().await {
            let size = corten_runtime::TerminalSize { width: size.width, height: size.height };
            if let Err(error) = set_terminal_size(&terminal, size) {
                tracing::debug!(%error, "terminal size");
            }
        }
    });
    sender
}

/// A non-blocking descriptor of any sort. `EIO` at reading is the end: a terminal's other side has gone.
struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    fn new(fd: OwnedFd) -> Result<Descriptor, Status> {
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(internal)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).map_err(internal)?;
        // Write interest is only there where the descriptor can be written.
        let both = observe::async_fd(fd, Interest::READABLE | Interest::WRITABLE);
        both.map(Descriptor).map_err(internal)
    }
}

impl AsyncRead for Descriptor {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match rustix::io::read(self.0.get_ref(), buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::IO) => return Poll::Ready(Ok(())),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Descriptor {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match rustix::io::write(self.0.get_ref(), buf) {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // A terminal hears of the end of input by its end-of-file character.
        Poll::Ready(Ok(()))
    }
}
