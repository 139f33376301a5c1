//! TCP connections that go through this machine: their two ends, and the packet that makes one of them speak.
//!
//! Knows of a connection what its near end knows, addresses ahead of NAT, and nothing of its state: no sequence
//! number of it is ever needed.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP connection between a machine behind this one, or this one itself, and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// The end on this side, as it knows itself.
    pub near: SocketAddr,
    /// The end beyond the uplink, as the near end knows it.
    pub far: SocketAddr,
}

// RFC 9293, 3.1
const TCP_HEADER: usize = 20;
const SYN_ACK: u8 = 0x12;
/// IP protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// `IPDEFTTL` (linux/ip.h).
const TTL: u8 = 64;

impl Stream {
    /// A whole IP packet that seems to come from the far end and makes the near one answer; none where the ends
    /// are not of one family.
    ///
    /// It is a SYN+ACK. A connection that stands answers a SYN with an ACK that says exactly where it is, whatever
    /// the sequence number of the SYN (RFC 5961, 4.2; RFC 9293, 3.10.7.4). A plain ACK from out of the window would
    /// do so too, but a stateful firewall of the near end takes that for invalid, while Linux' conntrack lets a
    /// SYN+ACK pass, of all segments, just for the sake of this answer (`TCP_CONNTRACK_IGNORE` in
    /// net/netfilter/nf_conntrack_proto_tcp.c); not though where the near end is the one that was called, whose
    /// firewall would have to be met with a SYN. On the way out of here a SYN+ACK makes no conntrack entry, as no
    /// connection begins with it, which is why it needs no rule that exempts it.
    pub fn rousing_packet(&self) -> Option<Vec<u8>> {
        let mut segment = [0; TCP_HEADER];
        segment[0..2].copy_from_slice(&self.far.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.near.port().to_be_bytes());
        segment[12] = 5 << 4;
        segment[13] = SYN_ACK;
        let mut packet = match (self.far, self.near) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => ipv4(*from.ip(), *to.ip()),
            (SocketAddr::V6(from), SocketAddr::V6(to)) => ipv6(*from.ip(), *to.ip()),
            _ => return None,
        };
        // The pseudo header is the addresses, which are the end of either header, the protocol and the length.
        let addresses = if self.far.is_ipv4() { &packet[12..20] } else { &packet[8..40] };
        let sum = checksum(&[addresses, &[0, TCP, 0, TCP_HEADER as u8], &segment]);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet.extend(segment);
        Some(packet)
    }
}

/// An IPv4 header (RFC 791, 3.1) ahead of a bare TCP header.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 20 + TCP_HEADER as u8, 0, 0, 0, 0, TTL, TCP, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// An IPv6 header (RFC 8200, 3) ahead of a bare TCP header.
fn ipv6(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, TCP_HEADER as u8, TCP, TTL];
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

/// The internet checksum (RFC 1071) of parts of even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2)).map(|w| u16::from_be_bytes([w[0], w[1]]));
    let sum: u32 = words.map(u32::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(near: &str, far: &str) -> Stream {
        Stream { near: near.parse().unwrap(), far: far.parse().unwrap() }
    }

    #[test]
    fn the_packet_seems_to_come_from_the_far_end() {
        let packet = stream("10.1.0.9:5000", "203.0.113.1:80").rousing_packet().unwrap();
        assert_eq!(packet.len(), 40);
        assert_eq!(packet[12..20], [203, 0, 113, 1, 10, 1, 0, 9]);
        assert_eq!(packet[20..24], [0, 80, 0x13, 0x88]);
        assert_eq!(packet[33], 0x12, "SYN and ACK");
        let packet = stream("[fd00::9]:5000", "[2001:db8:9::1]:80").rousing_packet().unwrap();
        assert_eq!(packet.len(), 60);
        assert_eq!(packet[40..44], [0, 80, 0x13, 0x88]);
        assert_eq!(stream("10.1.0.9:1", "[2001:db8:9::1]:80").rousing_packet(), None);
    }

    #[test]
    fn checksums_come_out_even() {
        let packet = stream("10.1.0.9:5000", "203.0.113.1:80").rousing_packet().unwrap();
        assert_eq!(checksum(&[&packet[..20]]), 0);
        assert_eq!(checksum(&[&packet[12..20], &[0, 6, 0, 20], &packet[20..]]), 0);
        let packet = stream("[ffff:ffff:ffff::9]:65535", "[2001:db8:9::1]:80").rousing_packet().unwrap();
        assert_eq!(checksum(&[&packet[8..40], &[0, 6, 0, 20], &packet[40..]]), 0);
        // RFC 1071, 3.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }
}
