//! The gateways that a DHCP server offers and the prefixes that it delegates, read from the options as a manager passes them on.
//!
//! Pure. Decides which option counts (RFC 3442: the classless routes, where sent, overrule the routers) and which
//! addresses can be a gateway at all. The texts come from the network: whatever does not parse is left out.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv6Net;

/// The gateways on offer, best first.
///
/// `classless` is option 121 (or Microsoft's older 249 of the same format), `routers` option 3. A server that sends
/// classless routes without a default among them offers no way out, whatever routers it names: RFC 3442, "DHCP Client
/// Behavior", and how providers keep a television VLAN from becoming somebody's internet.
pub(super) fn offered(classless: Option<&str>, routers: Option<&str>) -> Vec<IpAddr> {
    let gateways = match classless.map(words).filter(|words| !words.is_empty()) {
        Some(words) => default_routes(&words),
        None => words(routers.unwrap_or_default()).iter().filter_map(|word| word.parse().ok()).collect(),
    };
    let mut offered = Vec::new();
    for gateway in gateways.into_iter().map(IpAddr::V4).filter(|ip| can_be_gateway(*ip)) {
        if !offered.contains(&gateway) {
            offered.push(gateway);
        }
    }
    offered
}

/// The prefixes of option `ip6_prefix`, as NetworkManager's clients write it: `2001:db8:1::/56`, several with spaces.
pub(super) fn delegated(text: &str) -> Vec<Ipv6Net> {
    words(text).iter().filter_map(|word| word.parse().ok()).map(|net: Ipv6Net| net.trunc()).collect()
}

/// Whether an address can be a next hop: unicast, and of another host.
pub(super) fn can_be_gateway(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.octets()[0] != 0 && !ip.is_loopback() && !ip.is_multicast() && !ip.is_broadcast()
        }
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast(),
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty()).collect()
}

/// NetworkManager's own client and dhcpcd write `0.0.0.0/0 192.0.2.1 10.0.0.0/8 192.0.2.7`; systemd-networkd the same
/// with a comma in each pair; dhclient writes the option's bytes, `0 192 0 2 1 8 10 192 0 2 7`, each prefix cut to its significant bytes.
fn default_routes(words: &[&str]) -> Vec<Ipv4Addr> {
    if words[0].contains(['.', '/']) {
        let pairs = words.chunks_exact(2).filter(|pair| pair[0].ends_with("/0"));
        pairs.filter_map(|pair| pair[1].parse().ok()).collect()
    } else {
        let bytes: Vec<u8> = words.iter().map_while(|word| word.parse().ok()).collect();
        default_routes_of_bytes(&bytes)
    }
}

fn default_routes_of_bytes(mut bytes: &[u8]) -> Vec<Ipv4Addr> {
    let mut gateways = Vec::new();
    while let Some((&width, rest)) = bytes.split_first().filter(|(width, _)| **width <= 32) {
        let Some((_, rest)) = rest.split_at_checked(usize::from(width.div_ceil(8))) else { break };
        let Some((gateway, rest)) = rest.split_first_chunk::<4>() else { break };
        if width == 0 {
            gateways.push(Ipv4Addr::from(*gateway));
        }
        bytes = rest;
    }
    gateways
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(classless: Option<&str>, routers: Option<&str>) -> Vec<String> {
        offered(classless, routers).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn routers_count_where_there_are_no_classless_routes() {
        assert_eq!(texts(None, Some("198.51.100.1 198.51.100.2")), ["198.51.100.1", "198.51.100.2"]);
        assert_eq!(texts(Some(" "), Some("198.51.100.1")), ["198.51.100.1"]);
        assert_eq!(texts(None, Some("198.51.100.1,198.51.100.1")), ["198.51.100.1"]);
        assert!(texts(None, None).is_empty());
    }

    #[test]
    fn classless_routes_overrule_routers() {
        let nm = "0.0.0.0/0 192.0.2.254 10.0.0.0/8 192.0.2.7";
        let dhclient = "8 10 192 0 2 7 0 192 0 2 254 25 10 99 0 128 192 0 2 8";
        let networkd = "0.0.0.0/0,192.0.2.254 10.0.0.0/8,192.0.2.7";
        for classless in [nm, networkd, dhclient] {
            assert_eq!(texts(Some(classless), Some("192.0.2.1")), ["192.0.2.254"], "{classless}");
        }
        for without_default in ["10.0.0.0/8 10.7.0.7", "8 10 10 7 0 7"] {
            assert!(texts(Some(without_default), Some("10.7.0.1")).is_empty(), "{without_default}");
        }
    }

    #[test]
    fn delegated_prefixes_are_read_and_nonsense_is_not() {
        let texts = |text| delegated(text).iter().map(Ipv6Net::to_string).collect::<Vec<_>>();
        assert_eq!(texts("2001:db8:1:a00::/56"), ["2001:db8:1:a00::/56"]);
        assert_eq!(texts("2001:db8:1:a0f::1/56 2001:db8:2::/48"), ["2001:db8:1:a00::/56", "2001:db8:2::/48"]);
        assert!(texts("2001:db8::/129 192.0.2.0/24 ::1 x /").is_empty());
    }

    #[test]
    fn what_cannot_be_a_gateway_is_left_out() {
        let hostile =
            "0.0.0.0 0.1.2.3 127.0.0.1 224.0.0.1 239.1.1.1 255.255.255.255 ::1 1.2.3 $(reboot) 192.0.2.9";
        assert_eq!(texts(None, Some(hostile)), ["192.0.2.9"]);
        assert!(texts(Some("0.0.0.0/0 0.0.0.0 0.0.0.0/0 224.0.0.5"), None).is_empty());
        for cut_off in
            ["0 192 0 2", "33 1 2 3 4 5 192 0 2 1", "24 10", "0", "0.0.0.0/0", "300 0 1 2 3 4", "/0 x"]
        {
            assert!(texts(Some(cut_off), None).is_empty(), "{cut_off}");
        }
        for ip in ["::", "::1", "ff02::1"] {
            assert!(!can_be_gateway(ip.parse().unwrap()), "{ip}");
        }
        assert!(can_be_gateway("fe80::1".parse().unwrap()));
    }
}
