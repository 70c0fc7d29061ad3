//! SPDY/3.1 as Kubernetes speaks it (`github.com/moby/spdystream`): streams that the client opens, without flow control.
//!
//! [`serve`] is one future: it reads frames, hands new streams to whoever accepts them, runs what those want done, and writes.

pub(crate) mod command;
pub(crate) mod handshake;
mod headers;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

pub(crate) use headers::Headers;

/// Largest frame that is read, in bytes.
const FRAME_MAX: usize = 1 << 20;
/// Streams that a client may have open at once.
const STREAMS_MAX: usize = 1024;
/// Pieces of data that wait for their reader, for each stream; and frames that wait to be written.
const QUEUE: usize = 16;
/// How long a client may take to leave after the last word.
const LINGER: Duration = Duration::from_secs(5);

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

const FIN: u8 = 1;
const CANCEL: u32 = 5;

/// What comes on a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Bytes.
    Data(Bytes),
    /// The other side has given the stream up.
    Reset,
}

/// A stream that the client has opened.
pub(crate) struct Stream {
    /// Its number.
    pub id: u32,
    /// The headers with which it was opened, in lower case.
    pub headers: Headers,
    /// What the client sends; it ends when the client has nothing more to say.
    pub incoming: mpsc::Receiver<Incoming>,
    out: mpsc::Sender<Frame>,
}

/// The connection is gone.
#[derive(Debug)]
pub(crate) struct Closed;

impl Stream {
    /// The value of a header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// What the client sends, for who reads it apart from writing.
    pub fn take_incoming(&mut self) -> mpsc::Receiver<Incoming> {
        std::mem::replace(&mut self.incoming, mpsc::channel(1).1)
    }

    /// Sends bytes.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Closed> {
        self.out.send(Frame::Data { id: self.id, bytes, last: false }).await.map_err(|_| Closed)
    }

    /// Says that nothing more comes from this side.
    pub async fn finish(&self) {
        let _ = self.out.send(Frame::Data { id: self.id, bytes: Bytes::new(), last: true }).await;
    }

    /// Gives the stream up.
    pub async fn reset(&self) {
        let _ = self.out.send(Frame::Reset { id: self.id }).await;
    }

    /// Ends the whole connection, once all is written.
    pub async fn close_connection(&self) {
        let _ = self.out.send(Frame::Close).await;
    }
}

enum Frame {
    Reply {
        id: u32,
    },
    Reset {
        id: u32,
    },
    Ping {
        id: u32,
    },
    Data {
        id: u32,
        bytes: Bytes,
        last: bool,
    },
    /// Nothing more is said.
    Close,
}

/// What is to be done with a new stream.
pub(crate) enum Accepted {
    /// It is taken; something may be done along with it.
    Yes(Option<BoxFuture<'static, ()>>),
    /// It is refused.
    No,
}

/// Speaks with a client until it leaves.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send>(io: S, accept: impl FnMut(Stream) -> Accepted + Send) {
    let (reader, writer) = tokio::io::split(io);
    let (out, frames) = mpsc::channel(QUEUE);
    let (begin, begun) = mpsc::channel(QUEUE);
    let ended = tokio::select! {
        ended = read(reader, out, begin, accept) => ended,
        ended = write(writer, frames) => ended,
        () = run(begun) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a SPDY connection ended");
    }
}

/// Does what streams want done.
async fn run(mut begun: mpsc::Receiver<BoxFuture<'static, ()>>) {
    let mut work = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = begun.recv() => match next {
                Some(next) => work.push(next),
                None => std::future::pending().await,
            },
            Some(()) = work.next(), if !work.is_empty() => {}
        }
    }
}

fn broken(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

struct Header {
    /// Type of a control frame; `None` for data.
    kind: Option<u16>,
    id: u32,
    flags: u8,
    body: Bytes,
}

async fn frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Header>> {
    let mut head = [0; 8];
    match reader.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if length > FRAME_MAX {
        return Err(broken(format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    let control = first & 0x8000_0000 != 0;
    let kind = control.then_some((first & 0xffff) as u16);
    Ok(Some(Header { kind, id: first & 0x7fff_ffff, flags: head[4], body: body.into() }))
}

/// The number at the beginning of a control frame's body.
fn number(body: &[u8]) -> io::Result<u32> {
    let first = body.first_chunk::<4>().ok_or_else(|| broken("a frame is cut"))?;
    Ok(u32::from_be_bytes(*first) & 0x7fff_ffff)
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    out: mpsc::Sender<Frame>,
    begin: mpsc::Sender<BoxFuture<'static, ()>>,
    mut accept: impl FnMut(Stream) -> Accepted,
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let mut blocks = headers::Reader::new();
    let mut streams: HashMap<u32, mpsc::Sender<Incoming>> = HashMap::new();
    while let Some(Header { kind, id, flags, body }) = frame(&mut reader).await? {
        match kind {
            None => {
                if let Some(stream) = streams.get(&id)
                    && !body.is_empty()
                    && stream.send(Incoming::Data(body)).await.is_err()
                {
                    streams.remove(&id);
                }
                if flags & FIN != 0 {
                    streams.remove(&id);
                }
            }
            Some(SYN_STREAM) => {
                let id = number(&body)?;
                let headers = blocks.read(body.get(10..).unwrap_or_default()).map_err(broken)?;
                streams.retain(|_, stream| !stream.is_closed());
                let (sender, incoming) = mpsc::channel(QUEUE);
                let stream = Stream { id, headers, incoming, out: out.clone() };
                let accepted = if streams.len() < STREAMS_MAX { accept(stream) } else { Accepted::No };
                let Accepted::Yes(work) = accepted else {
                    out.send(Frame::Reset { id }).await.map_err(|_| gone(()))?;
                    continue;
                };
                if flags & FIN == 0 {
                    streams.insert(id, sender);
                }
                out.send(Frame::Reply { id }).await.map_err(|_| gone(()))?;
                if let Some(work) = work {
                    begin.send(work).await.map_err(|_| gone(()))?;
                }
            }
            Some(RST_STREAM) => {
                if let Some(stream) = streams.remove(&number(&body)?) {
                    // Who does not read has given it up already.
                    let _ = stream.try_send(Incoming::Reset);
                }
            }
            Some(PING) => out.send(Frame::Ping { id: number(&body)? }).await.map_err(|_| gone(()))?,
            Some(GOAWAY) => return Ok(()),
            // Settings, windows, and headers after the first: nothing here depends on them.
            Some(_) => {}
        }
    }
    Ok(())
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut blocks = headers::Writer::new().map_err(broken)?;
    while let Some(frame) = frames.recv().await {
        if matches!(frame, Frame::Close) {
            writer.shutdown().await?;
            // What the client still says is read: a connection that is closed over it may lose what the client has not read.
            let left = async { while frames.recv().await.is_some() {} };
            let _ = tokio::time::timeout(LINGER, left).await;
            return Ok(());
        }
        let bytes = encode(&frame, &mut blocks).map_err(broken)?;
        writer.write_all(&bytes).await?;
        if frames.is_empty() {
            writer.flush().await?;
        }
    }
    Ok(())
}

fn encode(frame: &Frame, blocks: &mut headers::Writer) -> Result<BytesMut, String> {
    let mut out = BytesMut::new();
    let mut control = |kind: u16, body: &[u8]| {
        out.put_u16(0x8003);
        out.put_u16(kind);
        out.put_u32(body.len() as u32);
        out.put_slice(body);
    };
    match frame {
        Frame::Reply { id } => {
            let mut body = id.to_be_bytes().to_vec();
            body.extend(blocks.write(&[])?);
            control(SYN_REPLY, &body);
        }
        Frame::Reset { id } => control(RST_STREAM, &[id.to_be_bytes(), CANCEL.to_be_bytes()].concat()),
        Frame::Ping { id } => control(PING, &id.to_be_bytes()),
        Frame::Close => {}
        Frame::Data { id, bytes, last } => {
            out.put_u32(*id);
            out.put_u8(if *last { FIN } else { 0 });
            out.put_uint(bytes.len() as u64, 3);
            out.put_slice(bytes);
        }
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a client sends to open a stream.
    pub(crate) fn open(blocks: &mut headers::Writer, id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = blocks.write(headers).unwrap();
        let mut out = vec![0x80, 3, 0, 1];
        out.extend((block.len() as u32 + 10).to_be_bytes());
        out.extend(id.to_be_bytes());
        out.extend([0; 6]);
        out.extend(block);
        out
    }

    /// Bytes of a stream, as a client sends them.
    pub(crate) fn data(id: u8, last: bool, bytes: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, id, u8::from(last), 0, 0, bytes.len() as u8], bytes].concat()
    }

    /// What a server sends, until it closes the connection: the stream and the text of data, and where a stream ends.
    pub(crate) async fn said(client: &mut (impl AsyncRead + Unpin)) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(found) = frame(client).await.unwrap() {
            if found.kind.is_none() {
                out.push(match (found.flags & FIN, &found.body) {
                    (0, body) => format!("{} {}", found.id, String::from_utf8_lossy(body)),
                    _ => format!("{} ends", found.id),
                });
            }
        }
        out
    }

    #[tokio::test]
    async fn spdy_streams_are_accepted_carry_bytes_and_end() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let echo = |stream: Stream| match stream.header("streamtype") {
            "data" => Accepted::Yes(Some(Box::pin(async move {
                let mut stream = stream;
                while let Some(Incoming::Data(bytes)) = stream.incoming.recv().await {
                    stream.send(bytes).await.unwrap();
                }
                stream.finish().await;
            }))),
            _ => Accepted::No,
        };
        let talk = async move {
            let (mut client, mut blocks) = (client, headers::Writer::new().unwrap());
            client.write_all(&open(&mut blocks, 1, &[("streamtype", "data")])).await.unwrap();
            client.write_all(&open(&mut blocks, 3, &[("streamtype", "else")])).await.unwrap();
            client.write_all(&data(1, true, b"hi")).await.unwrap();
            client.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]).await.unwrap();
            let mut seen = Vec::new();
            let mut reader = headers::Reader::new();
            while seen.len() < 5 {
                let found = frame(&mut client).await.unwrap().unwrap();
                seen.push(match found.kind {
                    None => format!("data {} {} {:?}", found.id, found.flags, found.body),
                    Some(SYN_REPLY) => {
                        assert!(reader.read(&found.body[4..]).unwrap().is_empty());
                        format!("reply {}", number(&found.body).unwrap())
                    }
                    Some(kind) => format!("{kind} {}", number(&found.body).unwrap()),
                });
            }
            seen.sort();
            assert_eq!(seen, ["3 3", "6 9", "data 1 0 b\"hi\"", "data 1 1 b\"\"", "reply 1"]);
        };
        futures::future::join(serve(server, echo), talk).await;
    }

    #[tokio::test]
    async fn spdy_frames_are_bounded() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).await.unwrap();
        serve(server, |_| Accepted::No).await;
    }
}
