//! How far an address reaches: it stays on a link, leaves it, or is one and the same host by every uplink.
//!
//! Knows addresses alone; which prefixes happen to be on this machine's links is for those who look at routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The destinations that never leave a link, or are everybody's there: of IPv4 (RFC 3927, RFC 5771, RFC 919).
pub const ON_LINK_4: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32),
];

/// The same of IPv6 (RFC 4291).
pub const ON_LINK_6: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Whether an address can be a host beyond a link at all (RFC 6890).
pub fn leaves_the_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let stays =
                ip.is_loopback() || ip.octets()[0] == 0 || ON_LINK_4.iter().any(|net| net.contains(&ip));
            !stays
        }
        // Nothing is sent to IPv4-mapped and IPv4-compatible addresses (RFC 4291, 2.5.5), :: and ::1 among these.
        IpAddr::V6(ip) => ip.to_ipv4().is_none() && !ON_LINK_6.iter().any(|net| net.contains(&ip)),
    }
}

/// Whether an address is one and the same host by every uplink, which a private one is not.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            // The rest of IPv4, from 240.0.0.0 on, some networks use as private.
            leaves_the_link(ip) && !v4.is_private() && !shared && first < 240
        }
        // Global unicast (RFC 4291, 2.4).
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: [&str; 7] =
        ["203.0.113.1", "8.8.8.8", "100.63.0.1", "100.128.0.1", "223.255.255.1", "2001:db8::1", "2a00::1"];
    const PRIVATE: [&str; 7] =
        ["240.0.0.1", "10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "100.127.255.254", "fd00::1"];
    const NEAR: [&str; 12] = [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "::ffff:8.8.8.8",
    ];

    fn none(is: fn(IpAddr) -> bool, of: &[&str]) {
        for ip in of {
            assert!(!is(ip.parse().unwrap()), "{ip}");
        }
    }

    fn all(is: fn(IpAddr) -> bool, of: &[&str]) {
        for ip in of {
            assert!(is(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn hosts_beyond_a_link_leave_it() {
        all(leaves_the_link, &PUBLIC);
        all(leaves_the_link, &PRIVATE);
        none(leaves_the_link, &NEAR);
    }

    #[test]
    fn only_what_is_everywhere_the_same_is_public() {
        all(is_public, &PUBLIC);
        none(is_public, &PRIVATE);
        none(is_public, &NEAR);
    }

    #[test]
    fn what_stays_on_a_link_does_not_leave_it() {
        for ip in ON_LINK_4.iter().map(Ipv4Net::addr).map(IpAddr::V4) {
            assert!(!leaves_the_link(ip), "{ip}");
        }
        for ip in ON_LINK_6.iter().map(Ipv6Net::addr).map(IpAddr::V6) {
            assert!(!leaves_the_link(ip), "{ip}");
        }
    }
}
