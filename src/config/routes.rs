//! How routes of an uplink are written.

use std::net::IpAddr;
use std::path::PathBuf;

use super::policy::net;
use crate::core::extra::ExtraRoute;
use crate::core::net::Family;
use crate::core::scope::leaves_the_link;

/// What a line of a file of routes allows.
pub(super) const ROUTE: &str =
    "PREFIX or PREFIX via ADDRESS, like 198.51.100.0/24 or 2001:db8::/32 via fe80::1; no default route";

/// What `routes` allows.
pub(super) const ROUTES: &str = "PREFIX or PREFIX via ADDRESS, like 198.51.100.0/24 or 2001:db8::/32 via fe80::1, no default route; in the files \
     under /etc/uplinkd the absolute path of a file with one of these a line; or several of them, outside of TOML with ; \
     between them";

/// Why a profile cannot have a file read.
pub const NO_FILES: &str = "routes: the path of a file is allowed in the files under /etc/uplinkd only";

/// A route, or where routes are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// The route itself.
    Route(ExtraRoute),
    /// A file with one a line.
    File(PathBuf),
}

pub(super) fn lead(text: &str) -> Option<Lead> {
    match text.starts_with('/') {
        true => Some(Lead::File(text.into())),
        false => route(text).map(Lead::Route),
    }
}

/// `PREFIX [via ADDRESS]`, both of one family, and each such as packets are sent to.
pub(super) fn route(text: &str) -> Option<ExtraRoute> {
    let mut words = text.split_whitespace();
    let dest = net(words.next()?).filter(|net| net.prefix_len() > 0 && leaves_the_link(net.addr()))?;
    let via = match words.next() {
        None => None,
        Some("via") => Some(words.next()?.parse::<IpAddr>().ok()?),
        Some(_) => return None,
    };
    let is_host = |ip: IpAddr| match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => true,
        _ => leaves_the_link(ip),
    };
    let fits = via.is_none_or(|via| Family::of(via) == Family::of(dest.addr()) && is_host(via));
    (fits && words.next().is_none()).then_some(ExtraRoute { dest, via })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_prefix_and_maybe_a_next_hop() {
        let read = |text: &str| {
            route(text)
                .map(|r| r.dest.to_string() + &r.via.map(|via| format!(" via {via}")).unwrap_or_default())
        };
        for (text, expected) in [
            ("198.51.100.9/24", "198.51.100.0/24"),
            ("198.51.100.9", "198.51.100.9/32"),
            (" 10.0.0.0/8\tvia  192.0.2.9 ", "10.0.0.0/8 via 192.0.2.9"),
            ("2001:db8::/32 via fe80::1", "2001:db8::/32 via fe80::1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "default",
            "0.0.0.0/0",
            "::/0",
            "fe80::/64",
            "224.0.0.0/4",
            "127.0.0.0/8",
            "198.51.100.0/33",
            "198.51.100.0/24 192.0.2.9",
            "198.51.100.0/24 via",
            "198.51.100.0/24 via eth1",
            "198.51.100.0/24 via fe80::1",
            "198.51.100.0/24 via 192.0.2.9 metric 5",
            "198.51.100.0/24 via 224.0.0.1",
            "198.51.100.0/24 via 0.0.0.0",
            "198.51.100.0/24 via 255.255.255.255",
            "2001:db8::/32 via ff02::1",
            "2001:db8::/32 via ::1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
