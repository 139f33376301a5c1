//! Who has which address. Documentation prefixes on the outside, private ones at home.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv6Net;

/// How many addresses of each family the internet answers at.
pub const DESTINATIONS: u8 = 48;

/// The port where the internet tells who it sees, then echoes (TCP and UDP).
pub const ECHO: u16 = 7;
/// The port that sends a steady 3 MB/s for as long as one reads (TCP).
pub const BULK: u16 = 19;
/// The port that sends as fast as it can (TCP).
pub const FLOOD: u16 = 20;
/// A web server: what portal checks ask for, else 200 with the address that it sees.
pub const HTTP: u16 = 80;
/// Accepts connections and closes them at once, which is all that a probe wants to know (TCP).
pub const HTTPS: u16 = 443;
/// A resolver that knows every name (TCP and UDP).
pub const DOMAIN: u16 = 53;

/// Which address of the internet the ISPs' DNS servers ask; all of them answer.
pub const DNS: u8 = 48;

/// Well-known resolvers, which the internet plays: whoever watches an uplink asks some of them.
pub const RESOLVERS4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(1, 1, 1, 1),
    Ipv4Addr::new(1, 0, 0, 1),
    Ipv4Addr::new(8, 8, 8, 8),
    Ipv4Addr::new(8, 8, 4, 4),
    Ipv4Addr::new(9, 9, 9, 9),
    Ipv4Addr::new(208, 67, 222, 222),
];

/// [`RESOLVERS4`] over IPv6.
pub const RESOLVERS6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111),
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888),
    Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe),
    Ipv6Addr::new(0x2620, 0x119, 0x35, 0, 0, 0, 0, 0x35),
];

/// Hosts that are asked for a page to find out about login pages. They live at [`web4`] and [`web6`].
pub const PORTAL_CHECKS: [&str; 2] = ["detectportal.firefox.com", "connectivity-check.ubuntu.com"];

/// The machine's address in the LAN.
pub const LAN_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The `n`th IPv4 address of the internet, from 1.
pub fn internet4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, n)
}

/// The resolver that ISP `isp` runs for its customers, and that answers nobody else.
pub fn resolver4(isp: u8) -> Ipv4Addr {
    internet4(100 + isp)
}

/// [`resolver4`] over IPv6.
pub fn resolver6(isp: u8) -> Ipv6Addr {
    internet6(100 + isp)
}

/// The `n`th IPv6 address of the internet, from 1.
pub fn internet6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, u16::from(n))
}

/// Where [`PORTAL_CHECKS`] live, apart from the addresses that tests send their own flows to.
pub fn web4() -> Ipv4Addr {
    internet4(80)
}

/// [`web4`] over IPv6.
pub fn web6() -> Ipv6Addr {
    internet6(80)
}

/// Where the internet echoes over IPv4, all addresses.
pub fn echoes4() -> Vec<SocketAddr> {
    (1..=DESTINATIONS).map(|n| SocketAddr::from((internet4(n), ECHO))).collect()
}

/// Where the internet echoes over IPv6, all addresses.
pub fn echoes6() -> Vec<SocketAddr> {
    (1..=DESTINATIONS).map(|n| SocketAddr::from((internet6(n), ECHO))).collect()
}

/// The one address that ISP `isp` masquerades to, and forwards inbound connections from.
pub fn public4(isp: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, isp)
}

/// ISP `isp`'s own router in the transit network.
pub fn transit6(isp: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xff00, 0, 0, 0, 0, u16::from(isp))
}

/// The /64 that ISP `isp` announces to its customer, as an address with all host bits zero.
pub fn prefix6(isp: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, u16::from(isp), 0, 0, 0, 0, 0)
}

/// The /56 that ISP `isp` delegates to its customer, where it delegates any.
pub fn delegated6(isp: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, u16::from(isp), 0xa00, 0, 0, 0, 0), 56)
}

/// The address that such an ISP leases by DHCPv6 to the machine itself.
pub fn leased6(isp: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, u16::from(isp), 0, 0, 0, 0, 0xd6)
}

/// Which ISP a flow used, by the address that the internet saw.
pub fn isp_of(seen: IpAddr) -> Option<u8> {
    match seen.to_canonical() {
        IpAddr::V4(seen) => match seen.octets() {
            [198, 51, 100, isp @ 1..=200] => Some(isp),
            _ => None,
        },
        IpAddr::V6(seen) => match seen.segments() {
            [0x2001, 0xdb8, isp @ 1..=200, ..] => u8::try_from(isp).ok(),
            _ => None,
        },
    }
}
