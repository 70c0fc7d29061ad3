//! nftables by raw netlink: one [`Transaction`] changes tables, chains, rules, sets and elements as a whole or not at all.
//!
//! All tables are of family `ip`. Registers are named by their 32-bit place, so that neighbouring values form one
//! concatenated key.

mod rule;

pub(crate) use rule::{AddressType, Field, Reg, Reject, Rule};

use crate::NetError;
use crate::netlink::{Attrs, Batch, CREATE, Family, Socket, attribute};

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Elements per message: a nest holds at most 64 kB, and an element takes up to 80 bytes.
const ELEMENTS_PER_MESSAGE: usize = 700;
const VERDICT_DATA: u32 = 0xffff_ff00;

/// Set flags of the kernel (`NFT_SET_*`).
pub(crate) const SET_MAP: u32 = 0x8;
pub(crate) const SET_TIMEOUT: u32 = 0x10;
pub(crate) const SET_EVAL: u32 = 0x20;

/// Where a base chain is hooked in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A base chain's type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChainType {
    Filter,
    Nat,
}

/// nft's numbers of the types that keys and values are made of: `nft list` needs them to print; the kernel does not.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Part {
    Address = 7,
    Protocol = 12,
    Port = 13,
    /// A 32-bit number in the machine's byte order (nft calls that type a mark).
    Number = 19,
}

/// What a set's elements lead to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Maps {
    Nothing,
    Verdict,
    Value(&'static [Part]),
}

/// A set or map to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetSpec {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Part],
    pub(crate) maps: Maps,
    /// Filled by rules, with elements that time out; at most this many.
    pub(crate) dynamic: Option<u32>,
}

/// What a packet does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict<'a> {
    Drop,
    Goto(&'a str),
    Jump(&'a str),
}

/// An element's right side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    None,
    Value(&'a [u8]),
    Verdict(Verdict<'a>),
}

/// A number for the concatenated type: six bits per part.
fn concatenated(parts: &[Part]) -> u32 {
    parts.iter().fold(0, |sum, part| (sum << 6) | *part as u32)
}

/// Messages that take effect together.
#[derive(Debug)]
pub(crate) struct Transaction {
    table: String,
    batch: Batch,
    /// What each message is about, for errors.
    what: Vec<String>,
    sets: u32,
}

impl Transaction {
    /// An empty transaction on one table.
    pub(crate) fn new(table: &str) -> Self {
        let mut batch = Batch::default();
        batch.message(BATCH_BEGIN, 0, |m| header(m, libc::AF_UNSPEC, libc::NFNL_SUBSYS_NFTABLES as u16));
        Transaction { table: table.to_owned(), batch, what: vec!["begin".to_owned()], sets: 0 }
    }

    fn message(&mut self, what: String, kind: i32, flags: u16, body: impl FnOnce(&mut Attrs<'_>)) {
        self.what.push(what);
        self.batch.message(SUBSYSTEM | kind as u16, flags, |m| {
            header(m, libc::AF_INET, 0);
            body(m);
        });
    }

    /// Adds the table unless it is there.
    fn add_table(&mut self) {
        let table = self.table.clone();
        self.message(format!("add table {table}"), libc::NFT_MSG_NEWTABLE, CREATE, |m| {
            m.text(1, &table);
            m.be32(2, 0);
        });
    }

    /// Removes the table with all in it; harmless if it is absent.
    pub(crate) fn delete_table(&mut self) {
        self.add_table();
        let table = self.table.clone();
        self.message(format!("delete table {table}"), libc::NFT_MSG_DELTABLE, 0, |m| m.text(1, &table));
    }

    /// Starts from an empty table, whatever was there; packets see the old one until the commit.
    pub(crate) fn replace_table(&mut self) {
        self.delete_table();
        self.add_table();
    }

    pub(crate) fn chain(&mut self, name: &str) {
        let table = self.table.clone();
        self.message(format!("add chain {name}"), libc::NFT_MSG_NEWCHAIN, CREATE, |m| {
            m.text(1, &table);
            m.text(3, name);
        });
    }

    pub(crate) fn base_chain(&mut self, name: &str, kind: ChainType, hook: Hook, priority: i32) {
        let table = self.table.clone();
        self.message(format!("add chain {name}"), libc::NFT_MSG_NEWCHAIN, CREATE, |m| {
            m.text(1, &table);
            m.text(3, name);
            m.nest(4, |nested| {
                nested.be32(1, hook as u32);
                nested.put(2, &priority.to_be_bytes());
            });
            m.text(
                7,
                match kind {
                    ChainType::Filter => "filter",
                    ChainType::Nat => "nat",
                },
            );
        });
    }

    pub(crate) fn set(&mut self, spec: &SetSpec) {
        self.sets += 1;
        let (table, id) = (self.table.clone(), self.sets);
        let mut flags = if spec.dynamic.is_some() { SET_TIMEOUT | SET_EVAL } else { 0 };
        if !matches!(spec.maps, Maps::Nothing) {
            flags |= SET_MAP;
        }
        self.message(format!("add set {}", spec.name), libc::NFT_MSG_NEWSET, CREATE, |m| {
            m.text(1, &table);
            m.text(2, spec.name);
            m.be32(3, flags);
            m.be32(4, concatenated(spec.key));
            m.be32(5, spec.key.len() as u32 * 4);
            match spec.maps {
                Maps::Nothing => {}
                Maps::Verdict => m.be32(6, VERDICT_DATA),
                Maps::Value(parts) => {
                    m.be32(6, concatenated(parts));
                    m.be32(7, parts.len() as u32 * 4);
                }
            }
            m.be32(10, id);
            if let Some(size) = spec.dynamic {
                m.nest(9, |desc| desc.be32(1, size));
            }
        });
    }

    pub(crate) fn rule(&mut self, chain: &str, body: impl FnOnce(&mut Rule<'_, '_>)) {
        self.rule_at(chain, CREATE | libc::NLM_F_APPEND as u16, body);
    }

    fn rule_at(&mut self, chain: &str, flags: u16, body: impl FnOnce(&mut Rule<'_, '_>)) {
        let table = self.table.clone();
        self.message(format!("add a rule to chain {chain}"), libc::NFT_MSG_NEWRULE, flags, |m| {
            m.text(1, &table);
            m.text(2, chain);
            m.nest(4, |expressions| body(&mut Rule::new(expressions)));
        });
    }

    /// Inserts a rule at the head of a chain that is not ours.
    pub(crate) fn insert_rule(&mut self, chain: &str, body: impl FnOnce(&mut Rule<'_, '_>)) {
        self.rule_at(chain, CREATE, body);
    }

    /// Removes one rule.
    pub(crate) fn delete_rule(&mut self, chain: &str, handle: u64) {
        let table = self.table.clone();
        self.message(format!("delete rule {handle} of chain {chain}"), libc::NFT_MSG_DELRULE, 0, |m| {
            m.text(1, &table);
            m.text(2, chain);
            m.put(3, &handle.to_be_bytes());
        });
    }

    pub(crate) fn add_elements<'a>(&mut self, set: &str, elements: impl IntoIterator<Item = (&'a [u8], Data<'a>)>) {
        self.elements(set, libc::NFT_MSG_NEWSETELEM, CREATE, elements);
    }

    pub(crate) fn delete_elements<'a>(&mut self, set: &str, keys: impl IntoIterator<Item = &'a [u8]>) {
        self.elements(set, libc::NFT_MSG_DELSETELEM, 0, keys.into_iter().map(|key| (key, Data::None)));
    }

    fn elements<'a>(
        &mut self,
        set: &str,
        kind: i32,
        flags: u16,
        elements: impl IntoIterator<Item = (&'a [u8], Data<'a>)>,
    ) {
        let table = self.table.clone();
        let verb = if kind == libc::NFT_MSG_NEWSETELEM { "add elements to" } else { "delete elements of" };
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.message(format!("{verb} set {set}"), kind, flags, |m| {
                m.text(1, &table);
                m.text(2, set);
                m.nest(3, |list| {
                    for (key, data) in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                        list.nest(1, |element| {
                            element.nest(1, |value| value.put(1, key));
                            match data {
                                Data::None => {}
                                Data::Value(bytes) => element.nest(2, |value| value.put(1, bytes)),
                                Data::Verdict(verdict) => element.nest(2, |value| put_verdict(value, verdict)),
                            }
                        });
                    }
                });
            });
        }
    }

    /// Applies all or nothing.
    ///
    /// # Errors
    /// The kernel's first refusal, with what it was about.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> Result<(), NetError> {
        let last = self.batch.len() - 1;
        if last == 0 {
            return Ok(());
        }
        self.batch.message(BATCH_END, 0, |m| header(m, libc::AF_UNSPEC, libc::NFNL_SUBSYS_NFTABLES as u16));
        let table = &self.table;
        let outcome = socket.transaction(self.batch, last);
        outcome.map_err(|source| NetError::kernel(format!("change nftables table {table}"), source))?.map_err(
            |refusal| {
                let what = self.what.get(refusal.place).map_or("commit", String::as_str);
                NetError::kernel(format!("nftables table {table}: {what}{}", refusal.remark()), refusal.error)
            },
        )
    }
}

/// `struct nfgenmsg`.
pub(crate) fn header(m: &mut Attrs<'_>, family: i32, resource: u16) {
    m.raw(&[family as u8, 0]);
    m.raw(&resource.to_be_bytes());
}

fn put_verdict(value: &mut Attrs<'_>, verdict: Verdict<'_>) {
    value.nest(2, |nested| match verdict {
        Verdict::Drop => nested.be32(1, libc::NF_DROP as u32),
        Verdict::Goto(chain) => {
            nested.be32(1, libc::NFT_GOTO as u32);
            nested.text(2, chain);
        }
        Verdict::Jump(chain) => {
            nested.be32(1, libc::NFT_JUMP as u32);
            nested.text(2, chain);
        }
    });
}

/// Opens a netfilter socket in the calling thread's namespace.
pub(crate) fn open() -> Result<Socket, NetError> {
    let socket = Socket::open(Family::Netfilter)
        .map_err(|source| NetError::kernel("open a netfilter socket (is nf_tables in this kernel?)", source))?;
    socket.enlarge();
    Ok(socket)
}

/// One line of a table or chain listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Address family (`AF_INET` is `ip`, 1 is `inet`).
    pub(crate) family: u8,
    pub(crate) table: String,
    /// Chain name; empty in listings of tables.
    pub(crate) chain: String,
    /// A base chain's hook number and policy.
    pub(crate) hook: Option<(u32, u32)>,
}

/// Whether a table of family `ip` is there.
pub(crate) fn table_exists(socket: &mut Socket, table: &str) -> Result<bool, NetError> {
    let found = socket.get(SUBSYSTEM | libc::NFT_MSG_GETTABLE as u16, |m| {
        header(m, libc::AF_INET, 0);
        m.text(1, table);
    });
    Ok(found.map_err(|source| NetError::kernel(format!("look for nftables table {table}"), source))?.is_some())
}

/// All tables of all families.
pub(crate) fn list_tables(socket: &mut Socket) -> Result<Vec<Listed>, NetError> {
    let mut found = Vec::new();
    let request = SUBSYSTEM | libc::NFT_MSG_GETTABLE as u16;
    let listed = socket.dump(
        request,
        |m| header(m, libc::AF_UNSPEC, 0),
        |payload| {
            let name = attribute(&payload[4..], 1).map(text).unwrap_or_default();
            found.push(Listed { family: payload[0], table: name, chain: String::new(), hook: None });
        },
    );
    listed.map_err(|source| NetError::kernel("list nftables tables", source))?;
    Ok(found)
}

/// All chains of all families.
pub(crate) fn list_chains(socket: &mut Socket) -> Result<Vec<Listed>, NetError> {
    let mut found = Vec::new();
    let request = SUBSYSTEM | libc::NFT_MSG_GETCHAIN as u16;
    let listed = socket.dump(
        request,
        |m| header(m, libc::AF_UNSPEC, 0),
        |payload| {
            let attributes = &payload[4..];
            let hook = attribute(attributes, 4).and_then(|hook| attribute(hook, 1)).map(be32);
            let policy = attribute(attributes, 5).map_or(libc::NF_ACCEPT as u32, be32);
            found.push(Listed {
                family: payload[0],
                table: attribute(attributes, 1).map(text).unwrap_or_default(),
                chain: attribute(attributes, 3).map(text).unwrap_or_default(),
                hook: hook.map(|hook| (hook, policy)),
            });
        },
    );
    listed.map_err(|source| NetError::kernel("list nftables chains", source))?;
    Ok(found)
}

/// Handles of the rules of a chain of family `ip` whose encoded expressions are equal to `wanted`'s.
pub(crate) fn find_rules(
    socket: &mut Socket,
    table: &str,
    chain: &str,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u64>, NetError> {
    let mut found = Vec::new();
    let request = SUBSYSTEM | libc::NFT_MSG_GETRULE as u16;
    let body = |m: &mut Attrs<'_>| {
        header(m, libc::AF_INET, 0);
        m.text(1, table);
        m.text(2, chain);
    };
    let listed = socket.dump(request, body, |payload| {
        let attributes = &payload[4..];
        let here = attribute(attributes, 1).map(text).as_deref() == Some(table)
            && attribute(attributes, 2).map(text).as_deref() == Some(chain);
        let handle = attribute(attributes, 3).and_then(|handle| handle.try_into().ok()).map(u64::from_be_bytes);
        if here && attribute(attributes, 4).is_some_and(&wanted) {
            found.extend(handle);
        }
    });
    match listed {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(NetError::kernel(format!("list rules of chain {chain}"), error)),
        Ok(()) => Ok(found),
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

pub(crate) fn be32(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_be_bytes)
}
