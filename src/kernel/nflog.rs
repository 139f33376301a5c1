//! Hears the first packets of flows that our nftables table copies to us, by nfnetlink_log.
//!
//! Decides which group is bound, and how much of a packet is copied. What a packet says it refuses to know. Where nobody
//! hears, the kernel copies nothing.

use std::io;

use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, ConfigNla, config_request};
use netlink_packet_netfilter::{NetfilterProtoFamily, NetfilterSubsystem};
use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;

use super::nfnl::{Error, NFGENMSG};
use super::request::{NLMSG_ERROR, attribute, messages, refusal};
use crate::core::race::SNAP;

// linux/netfilter/nfnetlink_log.h
const NFULNL_MSG_PACKET: u8 = 0;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;

/// A copy of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What the rule said that made it.
    pub prefix: String,
    /// The beginning of the packet, from its IP header on.
    pub packet: Vec<u8>,
}

/// A group of copies that is ours alone.
pub struct Listener {
    socket: TokioSocket,
    received: Vec<u8>,
}

impl Listener {
    /// Binds a group in the network namespace of this thread; needs CAP_NET_ADMIN. Fails where another program has it.
    pub async fn open(group: u16) -> Result<Self, Error> {
        Self::bind(group).await.map_err(Error::of("hear first packets by nflog"))
    }

    async fn bind(group: u16) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().connect(&SocketAddr::new(0, 0))?;
        let wanted = vec![
            ConfigNla::Cmd(ConfigCmd::Bind),
            ConfigNla::Mode(ConfigMode::new_packet(SNAP)),
            // Each by itself and at once.
            ConfigNla::QThresh(1),
        ];
        let request = config_request(NetfilterProtoFamily::Unspec, group, wanted);
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        socket.send(&bytes).await?;
        let mut listener = Listener { socket, received: Vec::with_capacity(32 * 1024) };
        // The kernel has answered within the call; what it has copied already may stand ahead of that.
        loop {
            listener.received.clear();
            listener.socket.recv(&mut listener.received).await?;
            let answer = messages(&listener.received).find(|m| m.message_type() == NLMSG_ERROR);
            if let Some(refused) = answer.map(|answer| refusal(answer.payload())) {
                return refused.map_or(Ok(listener), Err);
            }
        }
    }

    /// Waits for copies. May be dropped while it waits; nothing is lost.
    pub async fn next(&mut self) -> io::Result<Vec<Copied>> {
        loop {
            self.received.clear();
            match self.socket.recv(&mut self.received).await {
                Ok(()) => return Ok(copies(&self.received)),
                // More than we could take: what was lost is raced for another time.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn copies(datagram: &[u8]) -> Vec<Copied> {
    let copy = |kind: u16, body: &[u8]| {
        let [message, subsystem] = kind.to_le_bytes();
        let is_one =
            NetfilterSubsystem::from(subsystem) == NetfilterSubsystem::ULog && message == NFULNL_MSG_PACKET;
        let attributes = body.get(NFGENMSG..).filter(|_| is_one)?;
        let prefix = std::str::from_utf8(attribute(attributes, NFULA_PREFIX)?).ok()?.trim_end_matches('\0');
        Some(Copied { prefix: prefix.to_owned(), packet: attribute(attributes, NFULA_PAYLOAD)?.to_vec() })
    };
    messages(datagram).filter_map(|message| copy(message.message_type(), message.payload())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 sends it, less what is not read: a packet header, a prefix, a payload.
    fn datagram() -> Vec<u8> {
        let body = b"\x02\0\x1b\x58\x08\0\x01\0\x08\0\x03\0\x07\0\x0a\0ab\0\0\x08\0\x09\0\x45\0\0\x3c";
        let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(0x0400u16.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_copy_is_a_prefix_and_a_packet() {
        let wanted = Copied { prefix: "ab".into(), packet: vec![0x45, 0, 0, 0x3c] };
        assert_eq!(copies(&datagram()), std::slice::from_ref(&wanted));
        assert_eq!(copies(&[datagram(), datagram()].concat()), [wanted.clone(), wanted]);
        let mut other = datagram();
        other[5] = 0x0a;
        assert_eq!(copies(&other), []);
    }

    #[test]
    fn a_datagram_that_breaks_off_is_harmless() {
        let whole = datagram();
        for end in 0..whole.len() {
            assert_eq!(copies(&whole[..end]), [], "{end}");
        }
        for byte in 0..whole.len() {
            let mut broken = whole.clone();
            broken[byte] = 0xff;
            copies(&broken);
        }
    }
}
