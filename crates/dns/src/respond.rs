//! From a query to its answer: what the source knows, as a DNS message. Pure but for the source.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::{Answer, Lookup, RecordSource};

/// Largest answer over UDP, whatever the client offers: fits any link without fragments.
const UDP_MAX: u16 = 1232;
/// Largest answer for clients that do not say what they take.
const UDP_PLAIN_MAX: u16 = 512;
/// How long a client may remember that a name does not exist: short, services come and go.
const NEGATIVE_TTL_SECONDS: u32 = 5;
/// Aliases followed for one query.
const ALIASES_MAX: usize = 8;

/// What becomes of a query.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// Not a query: no answer at all.
    Ignore,
    /// Ask the upstream resolvers with the same bytes.
    Forward,
    /// An alias leads out of the cluster: ask the upstream resolvers for this, and append their answers.
    Chase { query: Query, partial: Box<Message> },
}

/// How an answer may travel back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Answers from a source.
pub(crate) struct Responder<'a> {
    pub(crate) source: &'a dyn RecordSource,
    pub(crate) ttl_seconds: u32,
    /// Turns lists of addresses, so that clients that take the first one spread.
    pub(crate) turn: &'a AtomicUsize,
}

impl Responder<'_> {
    pub(crate) fn respond(&self, packet: &[u8], transport: Transport) -> Outcome {
        let request = match Message::from_vec(packet) {
            Ok(request) => request,
            Err(_) => return unreadable(packet),
        };
        if request.metadata.message_type == MessageType::Response {
            return Outcome::Ignore;
        }
        let refuse = |code| Outcome::Reply(encode(&answer_to(&request, code), &request, transport));
        if request.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return refuse(ResponseCode::BADVERS);
        }
        let [query] = request.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
        if query.query_class() != DNSClass::IN {
            return refuse(ResponseCode::Refused);
        }
        let mut reply = answer_to(&request, ResponseCode::NoError);
        reply.metadata.authoritative = true;
        match self.fill(query, &mut reply) {
            Filled::Done => Outcome::Reply(encode(&reply, &request, transport)),
            Filled::NotMine => Outcome::Forward,
            Filled::LeadsOut(target) => {
                Outcome::Chase { query: Query::query(target, query.query_type()), partial: Box::new(reply) }
            }
        }
    }

    fn fill(&self, query: &Query, reply: &mut Message) -> Filled {
        let wanted = query.query_type();
        let mut owner = query.name().clone();
        for hop in 0..ALIASES_MAX {
            let answers = match self.source.lookup(&lower(&owner)) {
                Lookup::NotMine if hop == 0 => return Filled::NotMine,
                Lookup::NotMine => return Filled::LeadsOut(owner),
                Lookup::NoSuchName => {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    self.add_soa(reply);
                    return Filled::Done;
                }
                Lookup::Found(answers) => answers,
            };
            let is_reverse = lower(&owner).ends_with(".arpa");
            let alias = answers.iter().find_map(|answer| match answer {
                Answer::Name(name) if !is_reverse => Some(name.as_str()),
                _ => None,
            });
            let Some(alias) = alias else {
                self.add_answers(&owner, wanted, &answers, reply);
                return Filled::Done;
            };
            let Some(target) = absolute(alias) else { break };
            reply.add_answer(self.record(owner, RData::CNAME(CNAME(target.clone()))));
            if matches!(wanted, RecordType::CNAME | RecordType::ANY) {
                return Filled::Done;
            }
            owner = target;
        }
        reply.metadata.response_code = ResponseCode::ServFail;
        Filled::Done
    }

    fn add_answers(&self, owner: &Name, wanted: RecordType, answers: &[Answer], reply: &mut Message) {
        let mut found: Vec<RData> = answers.iter().filter_map(data).collect();
        found.retain(|data| wanted == RecordType::ANY || data.record_type() == wanted);
        if lower(owner) == self.source.domain() {
            match wanted {
                RecordType::SOA => found.extend(self.soa()),
                RecordType::NS => found.extend(self.name_below_domain("ns.dns").map(|name| RData::NS(NS(name)))),
                _ => {}
            }
        }
        if found.is_empty() {
            self.add_soa(reply);
            return;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % found.len();
        found.rotate_left(turn);
        for data in &found {
            if let RData::SRV(srv) = data {
                self.add_addresses(&srv.target, reply);
            }
        }
        for data in found {
            reply.add_answer(self.record(owner.clone(), data));
        }
    }

    /// Addresses of an SRV record's target, to save the client a question.
    fn add_addresses(&self, target: &Name, reply: &mut Message) {
        let known = reply.additionals.iter().any(|record| record.name == *target);
        if let (false, Lookup::Found(answers)) = (known, self.source.lookup(&lower(target))) {
            let addresses = answers.iter().filter(|answer| matches!(answer, Answer::Address(_))).filter_map(data);
            reply.add_additionals(addresses.map(|data| self.record(target.clone(), data)));
        }
    }

    fn record(&self, owner: Name, data: RData) -> Record {
        Record::from_rdata(owner, self.ttl_seconds, data)
    }

    fn add_soa(&self, reply: &mut Message) {
        if let (Some(soa), Some(domain)) = (self.soa(), absolute(self.source.domain())) {
            reply.add_authority(Record::from_rdata(domain, NEGATIVE_TTL_SECONDS, soa));
        }
    }

    fn soa(&self) -> Option<RData> {
        let (server, mailbox) = (self.name_below_domain("ns.dns")?, self.name_below_domain("hostmaster")?);
        Some(RData::SOA(SOA::new(server, mailbox, 1, 7200, 1800, 86400, NEGATIVE_TTL_SECONDS)))
    }

    fn name_below_domain(&self, labels: &str) -> Option<Name> {
        absolute(&format!("{labels}.{}", self.source.domain()))
    }
}

enum Filled {
    Done,
    NotMine,
    LeadsOut(Name),
}

fn data(answer: &Answer) -> Option<RData> {
    Some(match answer {
        Answer::Address(IpAddr::V4(ip)) => RData::A(A(*ip)),
        Answer::Address(IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
        Answer::Service { port, target } => RData::SRV(SRV::new(0, 100, *port, absolute(target)?)),
        Answer::Name(name) => RData::PTR(PTR(absolute(name)?)),
        Answer::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
    })
}

/// A name from text without the last dot; `None` for what is no name.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// As sources want it: lower case, without the last dot.
fn lower(name: &Name) -> String {
    let mut text = name.to_ascii();
    text.make_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn answer_to(request: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&request.metadata);
    reply.metadata.response_code = code;
    reply.metadata.recursion_available = true;
    reply.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX).set_version(0);
        reply.set_edns(edns);
    }
    reply
}

/// An answer that says no, from the request's bytes alone.
pub(crate) fn refusal(packet: &[u8], code: ResponseCode, transport: Transport) -> Option<Vec<u8>> {
    let request = Message::from_vec(packet).ok()?;
    Some(encode(&answer_to(&request, code), &request, transport))
}

/// A reply's bytes; over UDP records that do not fit are left out and the client is told to ask again by TCP.
pub(crate) fn encode(reply: &Message, request: &Message, transport: Transport) -> Vec<u8> {
    let limit = match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => {
            request.edns.as_ref().map_or(UDP_PLAIN_MAX, |edns| edns.max_payload().clamp(UDP_PLAIN_MAX, UDP_MAX))
        }
    };
    encode_within(reply, limit).unwrap_or_default()
}

fn encode_within(reply: &Message, limit: u16) -> Option<Vec<u8>> {
    let emit = |message: &Message, limit: u16| {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(limit);
        message.emit(&mut encoder).ok().map(|()| bytes)
    };
    let whole = emit(reply, u16::MAX)?;
    if whole.len() <= usize::from(limit) {
        return Some(whole);
    }
    // Additional records are a courtesy: leaving them out is no truncation.
    let mut shorter = reply.clone();
    shorter.additionals.clear();
    let bytes = emit(&shorter, u16::MAX)?;
    if bytes.len() <= usize::from(limit) {
        return Some(bytes);
    }
    shorter.metadata.truncation = true;
    while !shorter.answers.is_empty() {
        let bytes = emit(&shorter, u16::MAX)?;
        if bytes.len() <= usize::from(limit) {
            return Some(bytes);
        }
        let excess = bytes.len() - usize::from(limit);
        // A record takes at least 16 bytes and most take little more.
        let drop = (excess / 64).max(1).min(shorter.answers.len());
        shorter.answers.truncate(shorter.answers.len() - drop);
    }
    emit(&shorter, limit)
}

fn unreadable(packet: &[u8]) -> Outcome {
    let is_query = packet.len() >= 12 && packet[2] & 0x80 == 0;
    if !is_query {
        return Outcome::Ignore;
    }
    let id = u16::from_be_bytes([packet[0], packet[1]]);
    match Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec() {
        Ok(bytes) => Outcome::Reply(bytes),
        Err(_) => Outcome::Ignore,
    }
}
