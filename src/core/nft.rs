//! Our nftables table as a value: what it must do, and the one text that `nft -f -` loads.
//!
//! The text is replaced whole in one transaction and never parsed back: an empty chain named after
//! the text's own hash tells which generation is loaded, and the number of its rules and jumps whether all
//! of it still stands. What is decided once per flow sits in nat-type chains, which only a flow's first
//! packet passes; every other packet meets one statement, or two if it is forwarded, and what groups and a
//! firewall ask, where there are any.
//!
//! Two sets of the table are filled while it is loaded: the connections that lost their uplink. One of
//! them that is picked up again in its midst, with a first packet that is no SYN, is reset right here,
//! with the exact sequence number that its own packet tells. Nobody else does it reliably: over another
//! uplink the server sees a stranger, to whom it, or a carrier's NAT on the way, rather says nothing.

mod clamp;
mod firewall;
mod forward;
mod fragment;
mod generation;
mod group;
mod nat6;
mod policy;

use std::collections::BTreeMap;
use std::fmt::Write;

pub use self::firewall::Firewall;
pub use self::forward::{Door, Forwards};
pub use self::fragment::{Defines, Fragment, FragmentName, FragmentTable, Fragments};
pub use self::generation::Generation;
pub use self::group::{Groups, Steered};
pub use self::nat6::{Others, Pair, Translation};
pub use self::policy::{LoadedPolicies, POLICY_TABLE, PolicyTable, Standing, Surroundings, Verdict};
use super::layout::{MARK_MASK, Slot};
use super::net::{Family, IfName};
use super::stream::Stream;

/// The name of our table, family `inet`.
pub const TABLE: &str = "uplinkd";

/// The connections to reset, by near address and port, far address and port.
const EVICTED_4: &str = "evicted_4";
/// The same of IPv6.
const EVICTED_6: &str = "evicted_6";

/// The chain that resets them.
const RESET: &str = "reset_evicted";

/// The sources that no provider brings back (RFC 1918), those of carriers (RFC 6598) among them.
const PRIVATE: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16";

/// How many connections a set holds, and how long: a client that sleeps on may miss the moment, but by its next
/// keepalive it should learn that its connection is gone. One that begins anew with the same ports is not meant
/// and not met, as it begins with a SYN.
const EVICTED_FOR: &str = "size 65536; flags timeout; timeout 10m;";

/// The text that has the loaded table reset these connections when their near end next sends something.
///
/// With `afresh` it forgets all that it was told before. Fails to load where our table is not loaded, as it asks for a chain
/// of it first. The elements stand in a declaration of their set: for the command `add element` nft reads all the elements
/// of everybody's tables first, a second for a list of 100 000 addresses.
pub fn condemn(streams: &[Stream], afresh: bool) -> String {
    let mut text = format!("add chain inet {TABLE} {RESET}\n");
    for (set, family) in [(EVICTED_4, Family::V4), (EVICTED_6, Family::V6)] {
        let elements: Vec<_> = (streams.iter())
            .filter(|Stream { near, far }| [near, far].map(|end| Family::of(end.ip())) == [family; 2])
            .map(|Stream { near, far }| {
                format!("{} . {} . {} . {}", near.ip(), near.port(), far.ip(), far.port())
            })
            .collect();
        if afresh {
            let _ = writeln!(text, "flush set inet {TABLE} {set}");
        }
        if !elements.is_empty() {
            let declared =
                evicted(set, family, &format!("\t\telements = {{\n{}\n\t\t}}\n", elements.join(",\n")));
            let _ = writeln!(text, "table inet {TABLE} {{\n{declared}}}");
        }
    }
    text
}

/// The declaration of a set of connections that are to be reset.
fn evicted(set: &str, family: Family, elements: &str) -> String {
    let address = family.nft_address();
    format!(
        "\tset {set} {{\n\t\ttype {address} . inet_service . {address} . inet_service; {EVICTED_FOR}\n{elements}\t}}\n"
    )
}

/// The packet size of Ethernet, in bytes, which everybody on the internet counts on.
pub const ETHERNET_MTU: u32 = 1500;

/// What our table is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The uplinks by interface, one an interface; none where nothing is marked or rewritten.
    pub uplinks: Vec<(IfName, Slot)>,
    /// Uplinks that carry less than [`ETHERNET_MTU`], by interface, with what they carry, in bytes: TCP connections
    /// over them are told so as they begin, since many a server never hears that its packets are too big.
    pub narrow: Vec<(IfName, u32)>,
    /// Two uplinks have one address, so that a source tells nothing: what this machine sends takes the uplink of its
    /// connection by the mark.
    pub restore_own: bool,
    /// Private IPv4 sources leave as they are.
    pub keep_private: bool,
    /// What becomes of IPv6 sources, by uplink; where nothing is said, private ones are masqueraded.
    pub nat6: BTreeMap<Slot, Translation>,
    /// What comes in for hosts behind the machine.
    pub forwards: Forwards,
    /// Who may talk to whom through the machine.
    pub groups: Groups,
    /// What is let in by the uplinks; none where that is somebody else's business.
    pub firewall: Option<Firewall>,
}

impl Ruleset {
    /// Which generation this is.
    pub fn generation(&self) -> Generation {
        Generation::of_text(&self.body())
    }

    /// The text for `nft -f -`: replaces the table whatever was there, in one transaction.
    pub fn text(&self) -> String {
        let body = self.body();
        let marker = Generation::of_text(&body).chain();
        format!(
            "table inet {TABLE} {{\n}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n\
             \tchain {marker} {{\n\t}}\n{body}}}\n"
        )
    }

    /// Whether there is nothing for a table to do.
    pub fn is_idle(&self) -> bool {
        self.body().is_empty()
    }

    /// What stands in the table besides the marker.
    fn body(&self) -> String {
        let mut text = String::new();
        if !self.uplinks.is_empty() {
            text += &self.of_uplinks();
        }
        let pairs = self.nat6.values().flat_map(|translation| &translation.pairs);
        let translated: Vec<_> = pairs.filter(|pair| pair.inbound).map(|pair| pair.outside).collect();
        let firewall = self.firewall.iter().map(|firewall| firewall.text(&translated));
        text + &self.groups.text() + &firewall.collect::<String>()
    }

    /// What keeps flows on their uplinks and rewrites addresses.
    fn of_uplinks(&self) -> String {
        let (keep, ours) = (!MARK_MASK, uplink_of_flow());
        let names = by_name(self.uplinks.iter().map(|(name, _)| name));
        let by_uplink = |verb: &str, chain: &str| {
            let jump = |(name, slot): &(IfName, Slot)| format!("\"{name}\" : {verb} {chain}_{slot}");
            self.uplinks.iter().map(jump).collect::<Vec<_>>().join(", ")
        };
        let private = |verdict: &str| match self.keep_private {
            true => String::new(),
            false => format!("\t\tip saddr {{ {PRIVATE} }} {verdict}\n"),
        };
        let (evicted_4, evicted_6) = (evicted(EVICTED_4, Family::V4, ""), evicted(EVICTED_6, Family::V6, ""));
        let mut text = String::new();
        for (name, slot) in &self.uplinks {
            // Bits of a mark that are not ours stay as they are.
            let _ = write!(
                text,
                "\tchain slot_{slot} {{\n\
                 \t\tcomment \"{name}\"\n\
                 \t\tct mark set ct mark & {keep:#010x} | {}\n\
                 \t}}\n",
                mark_of(*slot),
            );
            text += &self.translation(*slot).chain(name, *slot);
        }
        // In an output chain nft 1.0.6 takes no word for the priority of dstnat, -100. What comes in by an uplink has its
        // mark from the first packet on: a firewall that checks the way back (firewalld does, strictly, for IPv6) asks by
        // mark, and knows no address of ours where the packet is for somebody behind us. What conntrack finds invalid, a late
        // reset for example, passes no chain of type nat, and would leave as it came; that is right only where hosts share
        // an interface with the provider, who answers them past us, so that conntrack sees but half of what they say. What IPsec
        // takes goes to its uplink in there: with another source its policy would not meet it, and it would leave in clear.
        let _ = write!(
            text,
            "\tchain restore {{\n\
             \t\ttype filter hook prerouting priority mangle; policy accept;\n\
             \t\tmeta mark 0 meta mark set {ours}\n\
             \t}}\n\
             {evicted_4}{evicted_6}\
             \tchain {RESET} {{\n\
             \t\ttcp flags & (syn | rst | ack) != ack return\n\
             \t\tip saddr . tcp sport . ip daddr . tcp dport @{EVICTED_4} reject with tcp reset\n\
             \t\tip6 saddr . tcp sport . ip6 daddr . tcp dport @{EVICTED_6} reject with tcp reset\n\
             \t}}\n\
             \tchain began_behind {{\n\
             \t\ttype nat hook prerouting priority dstnat - 6; policy accept;\n\
             \t\tmeta l4proto tcp goto {RESET}\n\
             \t}}\n\
             \tchain began_here {{\n\
             \t\ttype nat hook output priority -106; policy accept;\n\
             \t\tmeta l4proto tcp goto {RESET}\n\
             \t}}\n\
             \tchain came_in_by {{\n\
             \t\ttype nat hook prerouting priority dstnat - 5; policy accept;\n\
             \t\tmeta mark & {keep:#010x} != 0 return\n\
             \t\t{ours} != 0 return\n\
             \t\tiifname vmap {{ {arrivals} }}\n\
             \t\tmeta mark set {ours}\n\
             \t}}\n\
             \tchain goes_out_by {{\n\
             \t\ttype nat hook postrouting priority srcnat - 5; policy accept;\n\
             \t\tmeta mark & {keep:#010x} != 0 return\n\
             \t\t{ours} != 0 return\n\
             \t\toifname vmap {{ {departures} }}\n\
             \t}}\n\
             \tchain masquerade_private {{\n\
             \t\ttype nat hook postrouting priority srcnat + 5; policy accept;\n\
             \t\toifname != {{ {names} }} return\n\
             \t\trt ipsec exists return\n\
             \t\tfib saddr . oif type local return\n\
             {masqueraded}\
             \t\tmeta nfproto ipv6 oifname vmap {{ {sources} }}\n\
             \t\tfib saddr type local masquerade\n\
             \t}}\n\
             \tchain untranslated {{\n\
             \t\ttype filter hook forward priority filter; policy accept;\n\
             \t\tct state != invalid return\n\
             \t\tiifname {{ {names} }} return\n\
             \t\toifname != {{ {names} }} return\n\
             \t\trt ipsec exists return\n\
             {dropped}\
             \t\tip6 saddr fc00::/7 drop\n\
             \t}}\n",
            arrivals = by_uplink("jump", "slot"),
            departures = by_uplink("goto", "slot"),
            sources = by_uplink("goto", "nat6"),
            masqueraded = private("masquerade"),
            dropped = private("drop"),
        );
        if self.restore_own {
            text += &restored("restore_own", "");
        } else if self.uplinks.len() > 1 {
            text += &restored("restore_strays", "fib saddr . oif type != local ");
        }
        if !self.narrow.is_empty() {
            text += &clamp::clamp(&self.narrow);
        }
        text + &self.inbound6() + &self.forwards.text()
    }

    fn translation(&self, slot: Slot) -> Translation {
        self.nat6.get(&slot).cloned().unwrap_or_default()
    }

    /// Behind the administrator's own port forwards: the first that rewrites a destination is the last.
    fn inbound6(&self) -> String {
        let doors = self.uplinks.iter().filter_map(|(name, slot)| self.translation(*slot).inbound(name));
        let doors: String = doors.collect();
        match doors.is_empty() {
            true => doors,
            false => format!(
                "\tchain translated_back {{\n\
                 \t\ttype nat hook prerouting priority dstnat + 5; policy accept;\n\
                 {doors}\t}}\n"
            ),
        }
    }
}

/// Interfaces as the elements of a set.
fn by_name<'a>(names: impl IntoIterator<Item = &'a IfName>) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// As the elements of a set.
fn joined(elements: &[impl ToString]) -> String {
    elements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The mark of an uplink, as rules write it.
fn mark_of(slot: Slot) -> String {
    format!("{:#010x}", slot.mark().value())
}

/// The part of a flow's mark that is its uplink's, 0 where it has none.
fn uplink_of_flow() -> String {
    format!("ct mark & {MARK_MASK:#010x}")
}

/// Has what this machine sends take the uplink of its connection: a change of the mark in this hook routes anew.
///
/// Where a source tells its uplink, only that needs it which would leave by another: what has an address of the LAN, of a
/// network that a provider leads here, or one that a port forward puts in the place of the uplink's; and what runs over an
/// uplink to which no rule by source leads while it is down, the reset that ends it too.
fn restored(chain: &str, which: &str) -> String {
    let ours = uplink_of_flow();
    format!(
        "\tchain {chain} {{\n\
         \t\ttype route hook output priority mangle + 1; policy accept;\n\
         \t\tmeta mark 0 {ours} != 0 {which}meta mark set {ours}\n\
         \t}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(uplinks: &[(&str, u8)]) -> Ruleset {
        let uplink = |&(name, slot): &(&str, u8)| (IfName::new(name).unwrap(), Slot::new(slot).unwrap());
        Ruleset { uplinks: uplinks.iter().map(uplink).collect(), ..Ruleset::default() }
    }

    #[test]
    fn the_text_that_is_loaded() {
        // Loaded as it stands by nft 1.0.6 and 1.1.3; tests/netfilter.rs loads it again.
        assert_eq!(
            ruleset(&[("wan.7", 1), ("br-isp@x:y", 63)]).text(),
            r#"table inet uplinkd {
}
delete table inet uplinkd
table inet uplinkd {
	chain generation_41ed5a27e051dcc5 {
	}
	chain slot_1 {
		comment "wan.7"
		ct mark set ct mark & 0xc0ffffff | 0x01000000
	}
	chain nat6_1 {
		comment "wan.7"
		ip6 saddr fc00::/7 masquerade
		fib saddr type local masquerade
	}
	chain slot_63 {
		comment "br-isp@x:y"
		ct mark set ct mark & 0xc0ffffff | 0x3f000000
	}
	chain nat6_63 {
		comment "br-isp@x:y"
		ip6 saddr fc00::/7 masquerade
		fib saddr type local masquerade
	}
	chain restore {
		type filter hook prerouting priority mangle; policy accept;
		meta mark 0 meta mark set ct mark & 0x3f000000
	}
	set evicted_4 {
		type ipv4_addr . inet_service . ipv4_addr . inet_service; size 65536; flags timeout; timeout 10m;
	}
	set evicted_6 {
		type ipv6_addr . inet_service . ipv6_addr . inet_service; size 65536; flags timeout; timeout 10m;
	}
	chain reset_evicted {
		tcp flags & (syn | rst | ack) != ack return
		ip saddr . tcp sport . ip daddr . tcp dport @evicted_4 reject with tcp reset
		ip6 saddr . tcp sport . ip6 daddr . tcp dport @evicted_6 reject with tcp reset
	}
	chain began_behind {
		type nat hook prerouting priority dstnat - 6; policy accept;
		meta l4proto tcp goto reset_evicted
	}
	chain began_here {
		type nat hook output priority -106; policy accept;
		meta l4proto tcp goto reset_evicted
	}
	chain came_in_by {
		type nat hook prerouting priority dstnat - 5; policy accept;
		meta mark & 0xc0ffffff != 0 return
		ct mark & 0x3f000000 != 0 return
		iifname vmap { "wan.7" : jump slot_1, "br-isp@x:y" : jump slot_63 }
		meta mark set ct mark & 0x3f000000
	}
	chain goes_out_by {
		type nat hook postrouting priority srcnat - 5; policy accept;
		meta mark & 0xc0ffffff != 0 return
		ct mark & 0x3f000000 != 0 return
		oifname vmap { "wan.7" : goto slot_1, "br-isp@x:y" : goto slot_63 }
	}
	chain masquerade_private {
		type nat hook postrouting priority srcnat + 5; policy accept;
		oifname != { "wan.7", "br-isp@x:y" } return
		rt ipsec exists return
		fib saddr . oif type local return
		ip saddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } masquerade
		meta nfproto ipv6 oifname vmap { "wan.7" : goto nat6_1, "br-isp@x:y" : goto nat6_63 }
		fib saddr type local masquerade
	}
	chain untranslated {
		type filter hook forward priority filter; policy accept;
		ct state != invalid return
		iifname { "wan.7", "br-isp@x:y" } return
		oifname != { "wan.7", "br-isp@x:y" } return
		rt ipsec exists return
		ip saddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } drop
		ip6 saddr fc00::/7 drop
	}
	chain restore_strays {
		type route hook output priority mangle + 1; policy accept;
		meta mark 0 ct mark & 0x3f000000 != 0 fib saddr . oif type != local meta mark set ct mark & 0x3f000000
	}
}
"#
        );
    }

    #[test]
    fn a_translation_is_that_of_its_uplink_and_lets_in_only_where_it_says_so() {
        let pair = |inbound| Pair {
            inside: "fd77::/64".parse().unwrap(),
            outside: "2001:db8:2:a01::/64".parse().unwrap(),
            inbound,
        };
        let with = |inbound| {
            let translation = Translation { pairs: vec![pair(inbound)], ..Translation::default() };
            let nat6 = BTreeMap::from([(Slot::new(2).unwrap(), translation)]);
            Ruleset { nat6, ..ruleset(&[("a", 1), ("b", 2)]) }.text()
        };
        let snat = "\tchain nat6_2 {\n\t\tcomment \"b\"\n\t\tsnat ip6 prefix to ip6 saddr map";
        for inbound in [false, true] {
            assert!(with(inbound).contains(snat), "{}", with(inbound));
            assert_eq!(with(inbound).contains("iifname \"b\" dnat ip6 prefix"), inbound);
            assert_eq!(with(inbound).contains("chain translated_back"), inbound);
        }
    }

    #[test]
    fn what_only_some_machines_need_stands_at_the_end() {
        let name = |name| IfName::new(name).unwrap();
        let narrow = vec![(name("ppp0"), 1492), (name("ppp1"), 1492), (name("lte"), 1428)];
        let plain = ruleset(&[("ppp0", 1)]).body();
        let full = Ruleset { narrow, restore_own: true, ..ruleset(&[("ppp0", 1)]) }.body();
        assert_eq!(
            full.strip_prefix(&plain).unwrap(),
            r#"	chain restore_own {
		type route hook output priority mangle + 1; policy accept;
		meta mark 0 ct mark & 0x3f000000 != 0 meta mark set ct mark & 0x3f000000
	}
	chain mtu_1428 {
		meta nfproto ipv4 tcp option maxseg size set 1388
		meta nfproto ipv6 tcp option maxseg size set 1368
	}
	chain mtu_1492 {
		meta nfproto ipv4 tcp option maxseg size set 1452
		meta nfproto ipv6 tcp option maxseg size set 1432
	}
	chain clamp {
		iifname vmap { "ppp0" : jump mtu_1492, "ppp1" : jump mtu_1492, "lte" : jump mtu_1428 }
		oifname vmap { "ppp0" : jump mtu_1492, "ppp1" : jump mtu_1492, "lte" : jump mtu_1428 }
	}
	chain begins {
		type filter hook forward priority mangle; policy accept;
		tcp flags & (syn | rst) == syn goto clamp
	}
"#
        );
    }

    #[test]
    fn connections_are_condemned_by_family() {
        let stream =
            |near: &str, far: &str| Stream { near: near.parse().unwrap(), far: far.parse().unwrap() };
        let four = stream("10.1.0.9:5000", "203.0.113.1:80");
        let six = stream("[fd00::9]:5000", "[2001:db8:9::1]:443");
        assert_eq!(
            condemn(&[four, six, four], false),
            "add chain inet uplinkd reset_evicted\n\
             table inet uplinkd {\n\tset evicted_4 {\n\
             \t\ttype ipv4_addr . inet_service . ipv4_addr . inet_service; size 65536; flags timeout; timeout 10m;\n\
             \t\telements = {\n10.1.0.9 . 5000 . 203.0.113.1 . 80,\n10.1.0.9 . 5000 . 203.0.113.1 . 80\n\t\t}\n\t}\n}\n\
             table inet uplinkd {\n\tset evicted_6 {\n\
             \t\ttype ipv6_addr . inet_service . ipv6_addr . inet_service; size 65536; flags timeout; timeout 10m;\n\
             \t\telements = {\nfd00::9 . 5000 . 2001:db8:9::1 . 443\n\t\t}\n\t}\n}\n"
        );
        let afresh = condemn(&[six], true);
        let flushes =
            "flush set inet uplinkd evicted_4\nflush set inet uplinkd evicted_6\ntable inet uplinkd {";
        assert!(afresh.contains(flushes), "{afresh}");
    }

    #[test]
    fn the_marker_tells_texts_apart_and_leads_back() {
        let (one, two) = (ruleset(&[("a", 1)]), ruleset(&[("a", 2)]));
        assert_ne!(one.generation(), two.generation());
        let loaded = |uses| Generation::of_chain(&one.generation().chain(), uses).unwrap();
        let uses = one.generation().uses;
        assert_eq!(loaded(uses), one.generation());
        assert!(loaded(uses).serves(one.generation()) && loaded(uses + 1).serves(one.generation()));
        assert!(!loaded(uses - 1).serves(one.generation()), "a rule was taken out");
        assert!(!loaded(uses).serves(two.generation()));
        assert!(one.text().contains(&one.generation().chain()));
        assert_eq!(Generation::of_text(""), Generation::UNKNOWN);
        for other in ["restore", "generation_", "generation_0", "generation_00000000000000zz"] {
            assert_eq!(Generation::of_chain(other, 0), None, "{other}");
        }
    }
}
