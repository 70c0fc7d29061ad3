//! Netlink: messages encoded by hand, sent in batches on a blocking socket.
//!
//! A socket belongs to the network namespace in which it was opened, whatever thread uses it later.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::NETFILTER, socket_with, sockopt,
};

pub(crate) const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
pub(crate) const ACK: u16 = libc::NLM_F_ACK as u16;
pub(crate) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(crate) const EXCL: u16 = libc::NLM_F_EXCL as u16;
pub(crate) const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
pub(crate) const DUMP: u16 = libc::NLM_F_DUMP as u16;

const HEADER: usize = 16;
/// The kernel answers at once; a longer wait means that an answer was lost.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
const BUFFER_BYTES: usize = 64 << 20;

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    Route,
    Netfilter,
}

/// Bytes of one or more messages.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Offset of each message.
    starts: Vec<usize>,
}

impl Batch {
    /// Appends a message; its sequence number is its place in the batch, from 1.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend((self.starts.len() as u32).to_ne_bytes());
        self.bytes.extend([0; 4]);
        body(&mut Attrs(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Asks for an acknowledgement of the message at `place` (from 0).
    fn acknowledge(&mut self, place: usize) {
        let flags = self.starts[place] + 6;
        let old = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]);
        self.bytes[flags..flags + 2].copy_from_slice(&(old | ACK).to_ne_bytes());
    }
}

/// Writes a message's fixed part and attributes.
pub(crate) struct Attrs<'a>(&'a mut Vec<u8>);

impl Attrs<'_> {
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn put(&mut self, kind: u16, data: &[u8]) {
        self.0.extend(((data.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A string with its final zero.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.0.extend(((text.len() + 5) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// In the machine's byte order (route netlink).
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// In network byte order (netfilter).
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
        body(&mut Attrs(self.0));
        let length = self.0.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "a nest holds at most 64 kB");
        self.0[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }
}

/// Walks attributes: kind (without flags) and data.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let data = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, data))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, data)| data)
}

/// A refused message of a batch.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Its place in the batch, from 0.
    pub(crate) place: usize,
    pub(crate) error: io::Error,
    /// The kernel's own words, if it gave any.
    pub(crate) text: Option<String>,
}

impl Refusal {
    /// The kernel's words in brackets, or nothing.
    pub(crate) fn remark(&self) -> String {
        self.text.as_ref().map_or_else(String::new, |text| format!(" ({text})"))
    }
}

/// A blocking netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(family: Family) -> io::Result<Socket> {
        let protocol: Option<Protocol> = match family {
            Family::Route => None,
            Family::Netfilter => Some(NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_WAIT))?;
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            set_netlink_option(&fd, option);
        }
        Ok(Socket { fd, buffer: vec![0; 64 << 10] })
    }

    /// Allows batches of up to 64 MB (needs CAP_NET_ADMIN in the initial user namespace; smaller limits stay else).
    pub(crate) fn enlarge(&self) {
        let _ = sockopt::set_socket_send_buffer_size_force(&self.fd, BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, BUFFER_BYTES));
        let _ = sockopt::set_socket_recv_buffer_size_force(&self.fd, BUFFER_BYTES / 8);
    }

    /// Sends independent requests and waits for all their acknowledgements: the refused ones.
    pub(crate) fn requests(&mut self, mut batch: Batch) -> io::Result<Vec<Refusal>> {
        (0..batch.len()).for_each(|place| batch.acknowledge(place));
        self.send(&batch.bytes)?;
        let mut refusals = Vec::new();
        let mut waiting = batch.len();
        while waiting > 0 {
            self.receive(|message| {
                if let Some((place, outcome)) = acknowledgement(message) {
                    waiting = waiting.saturating_sub(1);
                    refusals.extend(outcome.map(|(error, text)| Refusal { place, error, text }));
                }
                Ok(())
            })?;
        }
        Ok(refusals)
    }

    /// Sends one request.
    pub(crate) fn request(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attrs<'_>)) -> io::Result<()> {
        let mut batch = Batch::default();
        batch.message(kind, flags, body);
        self.requests(batch)?.into_iter().next().map_or(Ok(()), |refusal| Err(refusal.error))
    }

    /// Sends a batch that the kernel applies as a whole or not at all; `last` is the place of the last message that
    /// can be acknowledged. The first refusal, if any.
    pub(crate) fn transaction(&mut self, mut batch: Batch, last: usize) -> io::Result<Result<(), Refusal>> {
        batch.acknowledge(last);
        self.send(&batch.bytes)?;
        let mut first = None;
        let mut done = false;
        while !done {
            self.receive(|message| {
                if let Some((place, outcome)) = acknowledgement(message) {
                    done |= place >= last;
                    if let (None, Some((error, text))) = (&first, outcome) {
                        // What is refused before the first message is the whole batch (no permission, no memory).
                        done |= place == 0 || place >= last;
                        first = Some(Refusal { place, error, text });
                    }
                }
                Ok(())
            })?;
        }
        Ok(first.map_or(Ok(()), Err))
    }

    /// Asks for all objects; `each` gets the payload after the header. An interrupted dump is repeated by the caller.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: impl FnOnce(&mut Attrs<'_>),
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.drain();
        let mut batch = Batch::default();
        batch.message(kind, DUMP, body);
        self.send(&batch.bytes)?;
        let mut done = false;
        while !done {
            self.receive(|message| {
                match u16::from_ne_bytes([message[4], message[5]]) {
                    kind if kind == libc::NLMSG_DONE as u16 => done = true,
                    kind if kind == libc::NLMSG_ERROR as u16 => {
                        done = true;
                        if let Some((_, Some((error, _)))) = acknowledgement(message) {
                            return Err(error);
                        }
                    }
                    _ => each(&message[HEADER..]),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Asks for one object: its payload, or `None` if there is no such object.
    pub(crate) fn get(&mut self, kind: u16, body: impl FnOnce(&mut Attrs<'_>)) -> io::Result<Option<Vec<u8>>> {
        self.drain();
        let mut batch = Batch::default();
        batch.message(kind, 0, body);
        self.send(&batch.bytes)?;
        let mut found = None;
        self.receive(|message| {
            match acknowledgement(message) {
                None => found = Some(message[HEADER..].to_vec()),
                Some((_, Some((error, _)))) => {
                    let absent = [libc::ENODEV, libc::ENOENT, libc::ESRCH];
                    if !error.raw_os_error().is_some_and(|errno| absent.contains(&errno)) {
                        return Err(error);
                    }
                }
                Some((_, None)) => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, bytes, SendFlags::empty())?;
        Ok(())
    }

    /// One datagram, split into messages (each with its header).
    fn receive(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let length = loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let mut rest = &self.buffer[..length];
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let Some(message) = rest.get(..length).filter(|_| length >= HEADER) else { break };
            each(message)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Throws away answers that an earlier failure left unread.
    fn drain(&mut self) {
        while rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT).is_ok() {}
    }
}

/// An acknowledgement's place (from 0) and error with the kernel's words; `None` for other messages.
#[allow(clippy::type_complexity)]
fn acknowledgement(message: &[u8]) -> Option<(usize, Option<(io::Error, Option<String>)>)> {
    if u16::from_ne_bytes([message[4], message[5]]) != libc::NLMSG_ERROR as u16 {
        return None;
    }
    let number = |at: usize| Some(i32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
    let code = number(HEADER)?;
    let place = (number(HEADER + 12)?.max(1) - 1) as usize;
    if code == 0 {
        return Some((place, None));
    }
    // With NETLINK_CAP_ACK only the header of the refused message is echoed; attributes follow it.
    let text = message.get(HEADER + 4 + HEADER..).and_then(|rest| attribute(rest, NLMSGERR_ATTR_MSG));
    let text = text.map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Some((place, Some((io::Error::from_raw_os_error(-code), text))))
}

const NLMSGERR_ATTR_MSG: u16 = 1;

/// Best effort: without these options the answers are longer and wordless.
fn set_netlink_option(fd: &OwnedFd, option: i32) {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the pointer and length describe a live c_int.
    unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let mut batch = Batch::default();
        batch.message(7, CREATE, |m| {
            m.raw(&[1, 2, 3, 4]);
            m.text(1, "corten");
            m.nest(2, |n| n.be32(3, 5));
        });
        assert_eq!(batch.bytes.len() % 4, 0);
        let body = &batch.bytes[HEADER + 4..];
        assert_eq!(attribute(body, 1), Some(&b"corten\0"[..]));
        assert_eq!(attribute(attribute(body, 2).unwrap(), 3), Some(&5_u32.to_be_bytes()[..]));
        assert_eq!(attribute(body, 9), None);
    }

    #[test]
    fn kernel_answers() {
        let mut socket = Socket::open(Family::Route).unwrap();
        let mut names = Vec::new();
        socket
            .dump(
                libc::RTM_GETLINK,
                |m| m.raw(&[0; 16]),
                |link| names.extend(attribute(&link[16..], libc::IFLA_IFNAME).map(<[u8]>::to_vec)),
            )
            .unwrap();
        assert!(names.contains(&b"lo\0".to_vec()));
        let absent = socket.get(libc::RTM_GETLINK, |m| {
            m.raw(&[0; 16]);
            m.text(libc::IFLA_IFNAME, "corten-absent");
        });
        assert!(absent.unwrap().is_none());
    }
}
