//! How streams share a WebSocket: the subprotocols of `exec`, `attach` and `log` (`streaming/pkg/httpstream/wsstream`,
//! `apimachinery/pkg/util/remotecommand`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use corten_object::Status;
use hyper::HeaderMap;
use hyper::header;
use tokio_tungstenite::tungstenite::Message;

/// A subprotocol: each message belongs to the channel that its first byte names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// What client and server call it; empty if the client asked for none.
    pub name: &'static str,
    /// Messages are text: a digit and base64.
    base64: bool,
    /// How a command ended is told by a Status, not by plain words.
    pub status: bool,
}

/// The protocols of a command's streams, best first.
pub(crate) const COMMAND: [Protocol; 6] = [
    Protocol { name: "v5.channel.k8s.io", base64: false, status: true },
    Protocol { name: "v4.channel.k8s.io", base64: false, status: true },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, status: true },
    Protocol { name: "channel.k8s.io", base64: false, status: false },
    Protocol { name: "base64.channel.k8s.io", base64: true, status: false },
    Protocol { name: "", base64: false, status: false },
];

/// The protocols of a single stream that is only read.
pub(crate) const SINGLE: [Protocol; 3] = [
    Protocol { name: "binary.k8s.io", base64: false, status: false },
    Protocol { name: "base64.binary.k8s.io", base64: true, status: false },
    Protocol { name: "", base64: false, status: false },
];

/// The best of `known` that the client offers. Who offers nothing gets the nameless one.
///
/// # Errors
/// 400 if none of them is known.
pub(crate) fn choose(headers: &HeaderMap, known: &[Protocol]) -> Result<Protocol, Status> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let mut offered: Vec<&str> = offered.flat_map(|v| v.split(',')).map(str::trim).collect();
    if offered.is_empty() {
        offered.push("");
    }
    known.iter().find(|p| offered.contains(&p.name)).copied().ok_or_else(|| {
        let known: Vec<&str> = known.iter().map(|p| p.name).filter(|name| !name.is_empty()).collect();
        Status::bad_request(format!("unable to upgrade: none of the protocols {offered:?} is one of {known:?}"))
    })
}

impl Protocol {
    /// A message of a channel.
    pub fn message(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(data)));
        }
        let mut out = Vec::with_capacity(data.len() + 1);
        out.push(channel);
        out.extend_from_slice(data);
        Message::binary(out)
    }

    /// A message of the only stream.
    pub fn piece(self, data: Bytes) -> Bytes {
        if self.base64 { STANDARD.encode(data).into() } else { data }
    }

    /// Whether messages of the only stream are text.
    pub fn is_text(self) -> bool {
        self.base64
    }

    /// The channel and the data of a message; `None` if it has none, or cannot be read.
    pub fn read(self, message: &[u8]) -> Option<(u8, Bytes)> {
        let (first, data) = message.split_first()?;
        if !self.base64 {
            return Some((*first, Bytes::copy_from_slice(data)));
        }
        let channel = first.checked_sub(b'0').filter(|n| *n < 10)?;
        Some((channel, STANDARD.decode(data).ok()?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(offers: &[&'static str], known: &[Protocol]) -> Result<&'static str, String> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static(offer));
        }
        choose(&headers, known).map(|p| p.name).map_err(|status| status.message)
    }

    #[test]
    fn the_best_protocol_of_those_offered_is_spoken() {
        assert_eq!(
            chosen(&["channel.k8s.io, v4.channel.k8s.io", "v5.channel.k8s.io"], &COMMAND),
            Ok("v5.channel.k8s.io")
        );
        assert_eq!(chosen(&["channel.k8s.io"], &COMMAND), Ok("channel.k8s.io"));
        assert_eq!(chosen(&[], &SINGLE), Ok(""));
        assert!(chosen(&["binary.k8s.io"], &COMMAND).unwrap_err().contains("unable to upgrade: none of the protocols"));
    }

    #[test]
    fn messages_of_a_base64_protocol_are_text() {
        let (text, binary) = (COMMAND[4], COMMAND[3]);
        assert_eq!(text.message(1, b"hi"), Message::text("1aGk="));
        assert_eq!(text.read(b"0aGk="), Some((0, Bytes::from_static(b"hi"))));
        assert_eq!((text.read(b"xaGk="), text.read(b"0?"), text.read(b"")), (None, None, None));
        assert_eq!(binary.message(2, b"hi"), Message::binary(vec![2, b'h', b'i']));
        assert_eq!(binary.read(&[4, 7]), Some((4, Bytes::from_static(&[7]))));
    }
}
