//! What is loaded of nftables, and word of its loss, over nfnetlink: no program is run for it.
//!
//! Reads the names of our table's chains and how often each is used, and nothing else: rules are never parsed back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_packet_netfilter::nftables::{ChainMessage, NfTablesMessage, NfTablesMessageType};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, NetfilterSubsystem};
use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use nix::errno::Errno;

use super::request::{RequestSocket, attribute, messages};
use crate::core::nft::{FragmentName, Generation, LoadedPolicies, POLICY_TABLE, TABLE};

/// What every message of netfilter begins with: `struct nfgenmsg` (linux/netfilter/nfnetlink.h).
pub(in crate::kernel) const NFGENMSG: usize = 4;

/// How often a listing is begun anew when the ruleset changes under it.
const ATTEMPTS: usize = 4;

// linux/netfilter/nf_tables.h
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_RULE_TABLE: u16 = 1;
// linux/netfilter/nfnetlink.h
const NFNLGRP_NFTABLES: u32 = 7;
// linux/netfilter.h
const NFPROTO_INET: u8 = 1;

/// Why the kernel's netfilter did not answer or obey.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not allowed to ask: an unprivileged dry run has no answer.
    #[error("cannot {0}: not permitted without CAP_NET_ADMIN")]
    Permission(&'static str),
    /// Anything else; [`io::ErrorKind::TimedOut`] where the kernel did not answer within a second.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was asked for.
        what: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

impl Error {
    /// Names what failed.
    pub(in crate::kernel) fn of(what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Permission(what),
            _ => Error::Io { what, source },
        }
    }
}

/// Our tables that are loaded, and how much of them stands; none where there is no such table, and
/// [`Generation::UNKNOWN`] where somebody made a table of our name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The table that marks and masquerades.
    pub ruleset: Option<Generation>,
    /// The table of policies.
    pub policies: Option<LoadedPolicies>,
    /// The tables of fragments. One of such a name without our marker is somebody else's.
    pub fragments: BTreeMap<FragmentName, Generation>,
}

/// Asks what is loaded.
pub async fn loaded() -> Result<Loaded, Error> {
    let mut outcome = Err(io::Error::from(Errno::EINTR));
    for _ in 0..ATTEMPTS {
        outcome = list_chains().await;
        if !matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            break;
        }
    }
    outcome.map_err(Error::of("list the chains of nftables"))
}

async fn list_chains() -> io::Result<Loaded> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    let mut socket = RequestSocket::open(NETLINK_NETFILTER)?;
    socket
        .start_dump(NetfilterMessage::new(
            header,
            NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }),
        ))
        .await?;
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut look = |kind, body: &[u8]| {
        if let Some((table, ..)) = chain_of(kind, body).filter(|(table, ..)| may_be_ours(table)) {
            found.entry(table.to_owned()).or_default().look_at(kind, body);
        }
    };
    loop {
        match socket.next_of_dump(&mut look).await {
            Ok(true) => {}
            Ok(false) => break,
            // The whole of nf_tables is missing from this kernel (`nfnetlink_rcv_msg`): so are our tables.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => break,
            Err(error) => return Err(error),
        }
    }
    let ruleset = found.remove(TABLE).and_then(|found| found.generation());
    let policies = found.remove(POLICY_TABLE);
    let policies = policies
        .and_then(|found| Some(LoadedPolicies { generation: found.generation()?, chains: found.chains }));
    let marked = found.iter().filter(|(_, found)| !found.markers.is_empty());
    let fragments = marked.filter_map(|(table, f)| Some((FragmentName::of_table(table)?, f.generation()?)));
    Ok(Loaded { ruleset, policies, fragments: fragments.collect() })
}

/// Whether a table, of family inet, has a name of ours.
fn may_be_ours(table: &str) -> bool {
    table == TABLE || table == POLICY_TABLE || FragmentName::of_table(table).is_some()
}

/// What a listing has shown so far of one table.
#[derive(Debug, Default)]
struct Found {
    chains: BTreeSet<String>,
    /// How often all of them are used.
    uses: u32,
    markers: Vec<String>,
}

impl Found {
    fn look_at(&mut self, kind: u16, body: &[u8]) {
        let Some((_, name, uses)) = chain_of(kind, body) else { return };
        self.chains.insert(name.to_owned());
        self.uses = self.uses.saturating_add(uses);
        if Generation::of_chain(name, 0).is_some() {
            self.markers.push(name.to_owned());
        }
    }

    fn generation(&self) -> Option<Generation> {
        match self.markers.as_slice() {
            [marker] => Generation::of_chain(marker, self.uses),
            // An empty table of our name does no harm and no good: as if there were none.
            [] if self.chains.is_empty() => None,
            _ => Some(Generation::UNKNOWN),
        }
    }
}

/// The table and the name in a message that tells of a chain, and how many rules are in it and jumps lead to it.
fn chain_of(kind: u16, body: &[u8]) -> Option<(&str, &str, u32)> {
    let (table, message) = table_of(kind, body)?;
    let attributes = (message == NfTablesMessageType::NewChain).then(|| &body[NFGENMSG..])?;
    let uses = attribute(attributes, NFTA_CHAIN_USE).and_then(|bytes| bytes.try_into().ok());
    Some((table, name(attributes, NFTA_CHAIN_NAME)?, uses.map(u32::from_be_bytes).unwrap_or_default()))
}

/// The table, of family inet, that a message about tables, chains or the loss of a rule is about.
fn table_of(kind: u16, body: &[u8]) -> Option<(&str, NfTablesMessageType)> {
    use NfTablesMessageType::{DeleteChain, DeleteRule, DeleteTable, NewChain, NewTable};
    let [message, subsystem] = kind.to_le_bytes();
    if NetfilterSubsystem::from(subsystem) != NetfilterSubsystem::NfTables {
        return None;
    }
    let message = NfTablesMessageType::from(message);
    let kind = match message {
        NewTable | DeleteTable => NFTA_TABLE_NAME,
        NewChain | DeleteChain => NFTA_CHAIN_TABLE,
        DeleteRule => NFTA_RULE_TABLE,
        // New rules, and elements, which our own orders change.
        _ => return None,
    };
    let (header, attributes) = body.split_at_checked(NFGENMSG)?;
    (header[0] == NFPROTO_INET).then_some(())?;
    Some((name(attributes, kind)?, message))
}

fn name(attributes: &[u8], kind: u16) -> Option<&str> {
    std::str::from_utf8(attribute(attributes, kind)?).ok()?.strip_suffix('\0')
}

/// Hears when somebody touches our table. Our own loads are heard as well: a nudge is only a nudge.
pub struct Watch {
    socket: TokioSocket,
    received: Vec<u8>,
}

impl Watch {
    /// Subscribes in the network namespace of this thread; needs CAP_NET_ADMIN.
    pub fn open() -> Result<Self, Error> {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind_auto()?;
            socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
            Ok(Watch { socket, received: Vec::with_capacity(32 * 1024) })
        };
        open().map_err(Error::of("watch nftables"))
    }

    /// Waits until our table, or a chain of it, was made or deleted, or lost a rule, or until news was lost.
    ///
    /// Changes of foreign tables do not end the wait. May be dropped while it waits; nothing is lost.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            self.received.clear();
            match self.socket.recv(&mut self.received).await {
                Ok(()) if concerns_us(&self.received) => return Ok(()),
                Ok(()) => {}
                // The buffer ran over; what was lost may have been about us.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a datagram of events tells of our table.
fn concerns_us(datagram: &[u8]) -> bool {
    let table = |(name, _)| may_be_ours(name);
    messages(datagram).any(|message| table_of(message.message_type(), message.payload()).is_some_and(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_TABLE: u16 = 0x0a00;
    const NEW_CHAIN: u16 = 0x0a03;

    /// A datagram as Linux 6.18 sends it: one message and one that tells of the new generation.
    fn datagram(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let message = |kind: u16, body: &[u8]| {
            let mut bytes = u32::try_from(20 + body.len()).unwrap().to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend([NFPROTO_INET, 0, 0, 2]);
            bytes.extend(body);
            bytes
        };
        // NFTA_GEN_ID, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME "nft".
        let generation = b"\x08\0\x01\0\0\0\0\x02\x08\0\x02\0\0\0\x15\x7c\x08\0\x03\0nft\0";
        [message(kind, attributes), message(0x0a0f, generation)].concat()
    }

    /// `nft add table inet uplinkd`: name, flags, handle, use.
    const TABLE_ATTRIBUTES: &[u8] =
        b"\x0c\0\x01\0uplinkd\0\x08\0\x03\0\0\0\0\0\x0c\0\x04\0\0\0\0\0\0\0\0\x01\x08\0\x02\0\0\0\0\0";

    /// The beginning of `nft add chain inet uplinkd restore`, as listed: table, name, handle.
    const CHAIN_ATTRIBUTES: &[u8] =
        b"\x0c\0\x01\0uplinkd\0\x0c\0\x03\0restore\0\x0c\0\x02\0\0\0\0\0\0\0\0\x01";

    #[test]
    fn only_tables_and_chains_of_ours_concern_us() {
        for kind in [NEW_TABLE, 0x0a02, NEW_CHAIN, 0x0a05, 0x0a08] {
            assert!(concerns_us(&datagram(kind, TABLE_ATTRIBUTES)), "{kind:#x}");
        }
        // New rules, sets and elements of ours; a table of another subsystem.
        for kind in [0x0a06, 0x0a09, 0x0a0c, 0x0100] {
            assert!(!concerns_us(&datagram(kind, TABLE_ATTRIBUTES)), "{kind:#x}");
        }
        let mut foreign = datagram(NEW_TABLE, TABLE_ATTRIBUTES);
        foreign[16] = 2;
        assert!(!concerns_us(&foreign), "table ip uplinkd");
        for name in [b"uplinke\0", b"uplink\0\0", b"uplinkd2"] {
            let attributes = [b"\x0c\0\x01\0", name.as_slice()].concat();
            assert!(!concerns_us(&datagram(NEW_TABLE, &attributes)));
        }
    }

    #[test]
    fn a_datagram_that_breaks_off_is_harmless() {
        let whole = datagram(NEW_TABLE, TABLE_ATTRIBUTES);
        for end in 0..60 {
            assert!(!concerns_us(&whole[..end]), "{end}");
        }
        for byte in 0..whole.len() {
            let mut broken = whole.clone();
            broken[byte] = 0xff;
            concerns_us(&broken);
        }
    }

    #[test]
    fn one_marker_is_a_generation() {
        let chain = |name: &str| {
            let mut name = [name.as_bytes(), b"\0"].concat();
            let length = u8::try_from(4 + name.len()).unwrap();
            name.resize(name.len().next_multiple_of(4), 0);
            [&[1, 0, 0, 0], &CHAIN_ATTRIBUTES[..12], &[length, 0, 3, 0], &name].concat()
        };
        let found = |names: &[&str]| {
            let mut found = Found::default();
            names.iter().for_each(|name| found.look_at(NEW_CHAIN, &chain(name)));
            found.generation()
        };
        let (one, two) = ("generation_0123456789abcdef", "generation_0123456789abcdee");
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[one, "restore"]), Generation::of_chain(one, 0));
        for unknown in [&["restore"][..], &[one, two], &["generation_x"]] {
            assert_eq!(found(unknown), Some(Generation::UNKNOWN), "{unknown:?}");
        }
        let restore = [&[1, 0, 0, 0], CHAIN_ATTRIBUTES].concat();
        assert_eq!(chain_of(NEW_CHAIN, &restore), Some((TABLE, "restore", 0)));
        let used = [&restore, b"\x08\0\x06\0\0\0\x01\x02".as_slice()].concat();
        assert_eq!(chain_of(NEW_CHAIN, &used), Some((TABLE, "restore", 0x102)));
        let mut all = Found::default();
        [&chain(one), &used, &used].into_iter().for_each(|body| all.look_at(NEW_CHAIN, body));
        assert_eq!(all.generation(), Generation::of_chain(one, 2 * 0x102));
    }

    #[test]
    fn errors_tell_what_is_lacking() {
        let error = Error::of("watch nftables")(Errno::EPERM.into());
        assert_eq!(error.to_string(), "cannot watch nftables: not permitted without CAP_NET_ADMIN");
        let error = Error::of("watch nftables")(Errno::ENOBUFS.into());
        assert!(matches!(error, Error::Io { .. }));
    }
}
