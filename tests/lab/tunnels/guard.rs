//! What each ISP gets from the machine while a tunnel stands: a counter at the far end of every uplink.
//!
//! Left out are only what has to leave plain whatever stands: what is meant for the link itself (the modem, its resolver,
//! DHCP), answers to visitors, and what uplinkd asks of the internet through each uplink: whether an uplink is alive cannot
//! be learned through a tunnel that may run over another. That goes to a few well-known resolvers and one web server,
//! which no test sends anything to.

use std::collections::BTreeMap;
use std::fmt;

use super::Outer;
use crate::kit::address::{RESOLVERS4, RESOLVERS6, web4, web6};
use crate::kit::{Isp, Lab};

/// Counts from its creation on; one at a time in a lab.
pub(super) struct Guard<'a> {
    lab: &'a Lab,
}

impl<'a> Guard<'a> {
    /// Counts anew.
    pub(super) fn new(lab: &'a Lab, outer: Outer) -> Guard<'a> {
        for isp in lab.isps() {
            isp.ns.nft(&text(isp, outer));
        }
        Guard { lab }
    }

    /// What was counted so far.
    pub(super) fn read(&self) -> Seen {
        Seen(self.lab.isps().iter().map(|isp| (isp.number(), Counts::of(isp))).collect())
    }
}

fn text(isp: &Isp, Outer { protocol, server, port }: Outer) -> String {
    let list = |words: Vec<String>| words.join(", ");
    let asked4 = list(RESOLVERS4.iter().chain([&web4()]).map(ToString::to_string).collect());
    let asked6 = list(RESOLVERS6.iter().chain([&web6()]).map(ToString::to_string).collect());
    format!(
        "table inet guard
        delete table inet guard
        table inet guard {{
            counter tunnel {{ }}
            counter plain4 {{ }}
            counter plain6 {{ }}
            set who4 {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 256; }}
            set who6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags dynamic; size 256; }}
            chain in {{
                type filter hook prerouting priority -300;
                iifname != lan return
                ip daddr {server} {protocol} dport {port} counter name tunnel return
                ip daddr {{ {subnet}, 198.51.100.0/24, 224.0.0.0/4, 255.255.255.255, {asked4} }} return
                ip6 daddr {{ fe80::/10, ff00::/8, 2001:db8:{number}::/48, {asked6} }} return
                meta nfproto ipv4 counter name plain4 add @who4 {{ ip saddr . ip daddr . meta l4proto . th dport }}
                meta nfproto ipv6 counter name plain6 add @who6 {{ ip6 saddr . ip6 daddr . meta l4proto . th dport }}
            }}
        }}\n",
        subnet = isp.subnet(),
        number = isp.number(),
    )
}

/// What one ISP got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    tunnel: u64,
    plain4: u64,
    plain6: u64,
    /// The sets of those that were plain, as nft prints them.
    who: String,
}

impl Counts {
    #[track_caller]
    fn of(isp: &Isp) -> Counts {
        let text = isp.ns.cmd(&["nft", "list", "table", "inet", "guard"]).ok();
        let count = |name: &str| {
            let found = text.split(&format!("counter {name} {{")).nth(1);
            let mut words =
                found.unwrap_or_default().split_whitespace().skip_while(|word| *word != "packets");
            words.nth(1).and_then(|number| number.parse().ok()).expect("nft prints the counter")
        };
        let sets = text.split("set who").skip(1).filter(|set| set.contains("elements"));
        let who = sets.filter_map(|set| set.split("elements").nth(1)?.split('}').next()).collect();
        Counts { tunnel: count("tunnel"), plain4: count("plain4"), plain6: count("plain6"), who }
    }
}

/// What the ISPs got, by number.
#[derive(Debug, Clone)]
pub(super) struct Seen(BTreeMap<u8, Counts>);

impl Seen {
    /// Packets of the tunnel, by all uplinks.
    pub(super) fn tunnel(&self) -> u64 {
        self.0.values().map(|counts| counts.tunnel).sum()
    }

    /// The ISP that got most of the tunnel.
    pub(super) fn carrier(&self) -> u8 {
        let most = self.0.iter().max_by_key(|(_, counts)| counts.tunnel);
        *most.expect("a lab has ISPs").0
    }

    /// The ISPs that got packets of the tunnel in between.
    pub(super) fn grown_since(&self, before: &Seen) -> Vec<u8> {
        let grown = self.0.iter().filter(|(number, counts)| counts.tunnel > before.0[number].tunnel);
        grown.map(|(number, _)| *number).collect()
    }

    /// Not one IPv4 packet left beside the tunnel.
    #[track_caller]
    pub(super) fn assert_nothing_plain4(&self, what: &str) {
        let plain: u64 = self.0.values().map(|counts| counts.plain4).sum();
        assert_eq!(plain, 0, "{what}: {self}");
    }

    /// Nor one of IPv6.
    #[track_caller]
    pub(super) fn assert_nothing_plain6(&self, what: &str) {
        let plain: u64 = self.0.values().map(|counts| counts.plain6).sum();
        assert_eq!(plain, 0, "{what}: {self}");
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Counts { tunnel, plain4, plain6, who }) in &self.0 {
            write!(f, "[ISP {number}: {tunnel} of the tunnel, plain {plain4} IPv4 {plain6} IPv6 {who}] ")?;
        }
        Ok(())
    }
}
