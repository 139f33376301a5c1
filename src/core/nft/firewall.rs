//! The firewall: the part of our table that closes the uplinks.
//!
//! Looks at nothing but what comes in by an uplink. What begins inside is free, and so is everything that has nothing to
//! do with an uplink, as a LAN or a VPN.

use std::fmt::Write;

use ipnet::Ipv6Net;

use super::{by_name, joined};
use crate::core::net::IfName;
use crate::core::opening::Opening;

/// What is let in by an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// The interfaces of all uplinks that are there, at least one; also of those that lead nowhere at present.
    pub uplinks: Vec<IfName>,
    /// What visitors reach of the machine itself.
    pub allow: Vec<Opening>,
    /// The kernel's log tells of what is dropped, a few times a second.
    pub log: bool,
    /// The interfaces of LANs: what says that it comes from there does not come in by an uplink.
    pub lans: Vec<IfName>,
}

/// What the network itself needs, which nobody begins that could be told apart: leases (RFC 2131, RFC 8415), neighbours and
/// routers (RFC 4861, whose packets have not crossed a router), groups (RFC 3376, RFC 3810).
const NETWORK: &str = "\t\tmeta nfproto ipv4 udp sport 67 udp dport 68 accept\n\
     \t\tip6 saddr fe80::/10 udp sport 547 udp dport 546 accept\n\
     \t\ticmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } \
     ip6 hoplimit 255 accept\n\
     \t\tip6 saddr fe80::/10 icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, \
     mld2-listener-report } accept\n\
     \t\tip protocol igmp accept\n";

/// Without these no size of a packet is found (RFC 4890, section 4.3.1; RFC 1191), tracked or not.
const ERRORS: &str = "\t\ticmp type { destination-unreachable, time-exceeded, parameter-problem } \
     limit rate 100/second burst 100 packets accept\n\
     \t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } \
     limit rate 100/second burst 100 packets accept\n";

const ECHO: &str = "\t\ticmp type echo-request limit rate 20/second burst 20 packets accept\n\
     \t\ticmpv6 type echo-request limit rate 20/second burst 20 packets accept\n";

/// What runs goes on. What came out of IPsec has the uplink for its interface, and was let in already.
const RUNNING: &str = "\t\tct state vmap { established : accept, related : accept, invalid : drop }\n\
     \t\tmeta secpath exists accept\n";

impl Firewall {
    /// The chains; `translated` are the prefixes of uplinks that lead in to hosts behind the machine.
    ///
    /// They stand behind everybody's own filters: what is accepted here was accepted there. A rule that a packet has to meet
    /// to be looked at at all asks a plain set of names. One of intervals would let packets past while the table is replaced.
    pub(super) fn text(&self, translated: &[Ipv6Net]) -> String {
        let names = by_name(&self.uplinks);
        let openings = self.openings();
        let log = match self.log {
            true => "\t\tlimit rate 5/second burst 10 packets log prefix \"uplinkd dropped: \"\n",
            false => "",
        };
        format!(
            "\tchain firewall_drops {{\n\
             {log}\t\tdrop\n\
             \t}}\n\
             \tchain firewall_network {{\n\
             {NETWORK}\t}}\n\
             \tchain firewall_spoofed {{\n\
             \t\ttype filter hook prerouting priority filter + 5; policy accept;\n\
             \t\tiifname != {{ {names} }} accept\n\
             {RUNNING}\
             \t\tjump firewall_network\n\
             {spoofed}\t}}\n\
             \tchain firewall_in {{\n\
             \t\ttype filter hook input priority filter + 5; policy accept;\n\
             \t\tiifname != {{ {names} }} accept\n\
             {RUNNING}\
             \t\tjump firewall_network\n\
             {ERRORS}{ECHO}{openings}{forwarded}\
             \t\tfib daddr type {{ broadcast, multicast }} drop\n\
             \t\tgoto firewall_drops\n\
             \t}}\n\
             \tchain firewall_through {{\n\
             \t\ttype filter hook forward priority filter + 5; policy accept;\n\
             \t\tiifname != {{ {names} }} accept\n\
             {RUNNING}\
             \t\tct status & dnat != 0 accept\n\
             {ERRORS}\
             \t\tgoto firewall_drops\n\
             \t}}\n",
            spoofed = self.spoofed(),
            forwarded = forwarded(translated),
        )
    }

    /// A source that is this machine's or a LAN's. Link-local ones are on every link. Asked ahead of routing: kernels before
    /// 6.10 let nobody ask elsewhere for the interface of a route (`nft_fib_validate`, net/netfilter/nft_fib.c).
    fn spoofed(&self) -> String {
        let mut text = "\t\tip6 saddr fe80::/10 accept\n\
             \t\tfib saddr type { local, broadcast, multicast } goto firewall_drops\n"
            .to_owned();
        if !self.lans.is_empty() {
            let _ = writeln!(text, "\t\tfib saddr oifname {{ {} }} goto firewall_drops", by_name(&self.lans));
        }
        text
    }

    fn openings(&self) -> String {
        let mut tcp = Vec::new();
        let mut udp = Vec::new();
        let mut others = Vec::new();
        for opening in &self.allow {
            match opening {
                Opening::Tcp(ports) => tcp.push(*ports),
                Opening::Udp(ports) => udp.push(*ports),
                Opening::Protocol(tunnel) => others.push(tunnel.as_str()),
            }
        }
        let mut text = String::new();
        for (protocol, ports) in [("tcp", tcp), ("udp", udp)] {
            let apart = crate::core::forward::apart(ports);
            if !apart.is_empty() {
                let _ = writeln!(text, "\t\t{protocol} dport {{ {} }} accept", joined(&apart));
            }
        }
        others.sort_unstable();
        others.dedup();
        if !others.is_empty() {
            let _ = writeln!(text, "\t\tmeta l4proto {{ {} }} accept", joined(&others));
        }
        text
    }
}

/// A port forward that leads to the machine itself. A prefix that is translated is for hosts behind it: who asks for the
/// machine's own address by such a prefix has nothing forwarded.
fn forwarded(translated: &[Ipv6Net]) -> String {
    let rule = |net: &Ipv6Net| format!("\t\tct original ip6 daddr {net} goto firewall_drops\n");
    translated.iter().map(rule).collect::<String>() + "\t\tct status & dnat != 0 accept\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_merged_where_they_overlap() {
        let allow = ["tcp:22", "udp:5000-5010", "tcp:20-25", "esp", "tcp:26", "esp", "ah", "udp:53"];
        let firewall = Firewall {
            uplinks: vec![IfName::new("eth0").unwrap()],
            allow: allow.map(|text| text.parse().unwrap()).to_vec(),
            log: false,
            lans: Vec::new(),
        };
        assert_eq!(
            firewall.openings(),
            "\t\ttcp dport { 20-26 } accept\n\t\tudp dport { 53, 5000-5010 } accept\n\t\tmeta l4proto { ah, esp } accept\n"
        );
        let text = firewall.text(&[]);
        assert!(!text.contains("log prefix") && !text.contains("oifname {"), "{text}");
        let text = firewall.text(&["2001:db8:2:a01::/64".parse().unwrap()]);
        assert!(text.contains("ct original ip6 daddr 2001:db8:2:a01::/64 goto firewall_drops"), "{text}");
    }
}
