//! The probes that are asked unless the administrator says otherwise.
//!
//! From different operators and by different protocols, because neither one operator's outage nor one filtered
//! protocol may condemn an uplink.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Expect, Host, Probe, Url};
use crate::core::net::Family;
use crate::core::scope::leaves_the_link;

/// How many of an uplink's own resolvers are asked; they share an operator, so that more would tell nothing new.
const RESOLVERS: usize = 2;

/// The probes of an uplink, of one family.
///
/// Its own resolvers are among them where they are beyond the link: neither in a prefix that is `connected`, nor this
/// machine, nor link-local. One that the home router itself runs would answer with the line cut.
pub fn defaults(family: Family, resolvers: &[IpAddr], connected: &[IpNet]) -> Vec<Probe> {
    let mut probes = public(family);
    let most = probes.len() + RESOLVERS;
    let beyond = |ip: &&IpAddr| {
        Family::of(**ip) == family && leaves_the_link(**ip) && !connected.iter().any(|net| net.contains(*ip))
    };
    for ip in resolvers.iter().filter(beyond) {
        let probe = dns(*ip);
        if !probes.contains(&probe) && probes.len() < most {
            probes.push(probe);
        }
    }
    probes
}

/// Cloudflare, Google, Quad9, OpenDNS.
fn public(family: Family) -> Vec<Probe> {
    let [cloudflare, google, opendns] = match family {
        Family::V4 => [[1, 1, 1, 1], [8, 8, 8, 8], [208, 67, 222, 222]].map(IpAddr::from),
        Family::V6 => [
            [0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111],
            [0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888],
            [0x2620, 0x119, 0x35, 0, 0, 0, 0, 0x35],
        ]
        .map(IpAddr::from),
    };
    vec![
        Probe::Icmp(Host::Ip(cloudflare)),
        Probe::Icmp(Host::Ip(google)),
        dns(public_resolver(family)),
        Probe::Tcp(Host::Ip(opendns), 443),
    ]
}

/// The resolver of Quad9: whom to ask besides an uplink's own.
pub fn public_resolver(family: Family) -> IpAddr {
    match family {
        Family::V4 => [9, 9, 9, 9].into(),
        Family::V6 => [0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe].into(),
    }
}

/// Whether it is one of the well-known resolvers that answer anybody: Cloudflare's, Google's, OpenDNS's, Quad9's.
pub fn is_public_resolver(ip: IpAddr) -> bool {
    const V4: [[u8; 4]; 8] = [
        [1, 1, 1, 1],
        [1, 0, 0, 1],
        [8, 8, 8, 8],
        [8, 8, 4, 4],
        [9, 9, 9, 9],
        [149, 112, 112, 112],
        [208, 67, 222, 222],
        [208, 67, 220, 220],
    ];
    // The prefixes in which they keep theirs.
    const V6: [[u16; 3]; 4] =
        [[0x2606, 0x4700, 0x4700], [0x2001, 0x4860, 0x4860], [0x2620, 0xfe, 0], [0x2620, 0x119, 0x35]];
    match ip {
        IpAddr::V4(ip) => V4.contains(&ip.octets()),
        IpAddr::V6(ip) => V6.iter().any(|prefix| ip.segments().starts_with(prefix)),
    }
}

fn dns(server: IpAddr) -> Probe {
    Probe::Dns { server, name: ".".to_owned() }
}

/// Two pages of different operators that a captive portal would answer in their place.
pub fn portal_checks() -> [Probe; 2] {
    let page = |host: &str, path: &str, expect| Probe::Http {
        url: Url { secure: false, host: Host::Name(host.to_owned()), port: 80, path: path.to_owned() },
        expect,
    };
    let body = Expect { status: None, body: Some("success".to_owned()) };
    let status = Expect { status: Some(204), body: None };
    [
        page("detectportal.firefox.com", "/success.txt", body),
        page("connectivity-check.ubuntu.com", "/", status),
    ]
}
