//! Connection tracking: removal of UDP flows that lead to endpoints that are gone.
//!
//! TCP flows are left alone: their connections live on until an end closes them.

use std::net::Ipv4Addr;

use crate::NetError;
use crate::netlink::{Batch, Socket, attribute};
use crate::nft::header;

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const UDP: u8 = 17;
/// Deletions per batch.
const BATCH: usize = 200;

/// A tracked UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where the client sent to.
    pub(crate) destination: Ipv4Addr,
    pub(crate) destination_port: u16,
    /// Who answers: the endpoint after translation.
    pub(crate) reply_source: Ipv4Addr,
    pub(crate) reply_source_port: u16,
}

/// Deletes the UDP flows that `stale` picks: how many.
pub(crate) fn delete_udp(socket: &mut Socket, stale: impl Fn(&Flow) -> bool) -> Result<usize, NetError> {
    let mut originals: Vec<Vec<u8>> = Vec::new();
    let listed = socket.dump(
        GET,
        |m| header(m, libc::AF_INET, 0),
        |payload| {
            let attributes = &payload[4..];
            if let (Some(flow), Some(original)) = (read_flow(attributes), attribute(attributes, TUPLE_ORIGINAL))
                && stale(&flow)
            {
                originals.push(original.to_vec());
            }
        },
    );
    listed.map_err(|source| NetError::kernel("list tracked connections", source))?;
    for some in originals.chunks(BATCH) {
        let mut batch = Batch::default();
        for original in some {
            batch.message(DELETE, 0, |m| {
                header(m, libc::AF_INET, 0);
                m.put(TUPLE_ORIGINAL | libc::NLA_F_NESTED as u16, original);
            });
        }
        // A flow that has ended meanwhile is refused: as well.
        socket.requests(batch).map_err(|source| NetError::kernel("delete tracked connections", source))?;
    }
    Ok(originals.len())
}

fn read_flow(attributes: &[u8]) -> Option<Flow> {
    let original = attribute(attributes, TUPLE_ORIGINAL)?;
    let reply = attribute(attributes, TUPLE_REPLY)?;
    if attribute(attribute(original, 2)?, 1)? != [UDP] {
        return None;
    }
    let address = |tuple, kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(attribute(attribute(tuple, 1)?, kind)?).ok()?));
    let port = |tuple, kind| Some(u16::from_be_bytes(attribute(attribute(tuple, 2)?, kind)?.try_into().ok()?));
    Some(Flow {
        destination: address(original, 2)?,
        destination_port: port(original, 3)?,
        reply_source: address(reply, 1)?,
        reply_source_port: port(reply, 2)?,
    })
}
