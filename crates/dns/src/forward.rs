//! Questions to the upstream resolvers, over the transport that the client used.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::respond::Transport;

/// Largest answer that is read over UDP.
const UDP_READ_MAX: usize = 4096;

/// The resolvers to ask.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstream: Vec<SocketAddr>,
    wait: Duration,
    /// Mixed into ids, beside the port that the kernel picks at random.
    sequence: AtomicU32,
}

impl Forwarder {
    pub(crate) fn new(upstream: Vec<SocketAddr>, wait: Duration) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0);
        Forwarder { upstream, wait, sequence: AtomicU32::new(seed as u32) }
    }

    /// The first resolver's answer, with the query's own id.
    ///
    /// # Errors
    /// The last resolver's failure, if none answers in time.
    pub(crate) async fn ask(&self, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
        let mut last = io::Error::other("no upstream resolver is known");
        for server in &self.upstream {
            let asked = async {
                match transport {
                    Transport::Udp => self.ask_udp(*server, query).await,
                    Transport::Tcp => ask_tcp(*server, query).await,
                }
            };
            match timeout(self.wait, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            tracing::debug!(%server, error = %last, "upstream resolver did not answer");
        }
        Err(last)
    }

    async fn ask_udp(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let local: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(server).await?;
        let id = self.next_id();
        let mut own = query.to_vec();
        own[..2].copy_from_slice(&id);
        socket.send(&own).await?;
        let mut buffer = [0; UDP_READ_MAX];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // Late or forged answers have another id or question.
            if length >= 12 && buffer[..2] == id && buffer[2] & 0x80 != 0 && same_question(query, &buffer[..length]) {
                let mut answer = buffer[..length].to_vec();
                answer[..2].copy_from_slice(&query[..2]);
                return Ok(answer);
            }
        }
    }

    fn next_id(&self) -> [u8; 2] {
        // Weyl sequence through a mixer: no two alike in a row, not guessable without the seed.
        let mut mixed = self.sequence.fetch_add(0x9e37_79b9, Ordering::Relaxed);
        mixed ^= mixed >> 16;
        mixed = mixed.wrapping_mul(0x85eb_ca6b);
        mixed ^= mixed >> 13;
        (mixed as u16).to_be_bytes()
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

/// Whether an answer repeats the query's question (answers without any are errors and may pass).
fn same_question(query: &[u8], answer: &[u8]) -> bool {
    let questions = u16::from_be_bytes([answer[4], answer[5]]);
    let question = question_length(query).map(|length| &query[12..12 + length]);
    let repeated = question_length(answer).map(|length| &answer[12..12 + length]);
    questions == 0 || question.zip(repeated).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// Bytes of the first question: labels, type and class.
fn question_length(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..64 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= message.len()).then_some(end - 12)
}

/// A message over TCP has its length before it.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::other("the message is too long"))?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    stream.write_all(&framed).await
}
