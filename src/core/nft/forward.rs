//! Port forwards: the part of our table that sends on to hosts behind the machine what comes in for its ports.
//!
//! Says how it is done. Which forward is on which uplink is decided in [`crate::core::plan`].

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use crate::core::forward::{PortForward, Protocol};
use crate::core::layout::Slot;
use crate::core::net::{Family, IfName};

/// The port forwards of all uplinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwards {
    /// The uplinks that have some, one an interface.
    pub doors: Vec<Door>,
    /// The interfaces behind which those hosts can be who ask by an uplink's address.
    pub lans: Vec<IfName>,
}

/// An uplink with its port forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Its slot.
    pub slot: Slot,
    /// Its interface.
    pub device: IfName,
    /// Its addresses, by which it is known from inside.
    pub addresses: Vec<IpAddr>,
    /// What goes on to whom; no two for one packet.
    pub forwards: Vec<PortForward>,
}

impl Forwards {
    /// The chains.
    ///
    /// From outside any address of the machine will do, so that the table need not follow a change to the moment. From
    /// inside only those of the uplinks: on its own address in the LAN the machine has its own services. A host that is
    /// sent back into its own LAN is given the machine's address there, or it would be answered by a stranger.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.doors.is_empty() {
            return text;
        }
        self.doors.iter().for_each(|door| text += &door.chain());
        let arrivals =
            self.doors.iter().map(|door| format!("\"{}\" : goto forwards_{}", door.device, door.slot));
        let arrivals = arrivals.collect::<Vec<_>>().join(", ");
        let inside = self.asked_inside();
        let _ = write!(
            text,
            "\tchain forwards {{\n\
             \t\ttype nat hook prerouting priority dstnat - 1; policy accept;\n\
             \t\tfib daddr type != local return\n\
             \t\tiifname vmap {{ {arrivals} }}\n\
             {inside}\t}}\n\
             \tchain forwards_here {{\n\
             \t\ttype nat hook output priority -101; policy accept;\n\
             {inside}\t}}\n"
        );
        text + &self.hairpin()
    }

    /// Each address with the first uplink that has it: two may have one.
    fn addresses(&self, family: Family) -> BTreeMap<IpAddr, Slot> {
        let mut first = BTreeMap::new();
        let has_some = |door: &&Door| door.forwards.iter().any(|forward| forward.family() == family);
        for door in self.doors.iter().filter(has_some) {
            for ip in door.addresses.iter().filter(|ip| Family::of(**ip) == family) {
                first.entry(*ip).or_insert(door.slot);
            }
        }
        first
    }

    fn asked_inside(&self) -> String {
        let mut text = String::new();
        for family in Family::BOTH {
            let jumps =
                self.addresses(family).into_iter().map(|(ip, slot)| format!("{ip} : goto forwards_{slot}"));
            let jumps: Vec<_> = jumps.collect();
            if !jumps.is_empty() {
                let _ = writeln!(text, "\t\t{} daddr vmap {{ {} }}", family.nft(), jumps.join(", "));
            }
        }
        text
    }

    fn hairpin(&self) -> String {
        let pairs: Vec<_> = self.lans.iter().map(|lan| format!("\"{lan}\" . \"{lan}\"")).collect();
        let mut rules = String::new();
        for family in Family::BOTH {
            let addresses: Vec<_> = self.addresses(family).keys().map(ToString::to_string).collect();
            if !addresses.is_empty() {
                let _ = writeln!(
                    rules,
                    "\t\tct original {} daddr {{ {} }} masquerade",
                    family.nft(),
                    addresses.join(", ")
                );
            }
        }
        if pairs.is_empty() || rules.is_empty() {
            return String::new();
        }
        format!(
            "\tchain forwarded_back {{\n\
             \t\ttype nat hook postrouting priority srcnat - 1; policy accept;\n\
             \t\tiifname . oifname != {{ {} }} return\n\
             \t\tct status & dnat == 0 return\n\
             {rules}\t}}\n",
            pairs.join(", ")
        )
    }
}

impl Door {
    /// What its visitors meet. One look-up for all forwards of a kind, however many.
    fn chain(&self) -> String {
        let mut text = format!("\tchain forwards_{} {{\n\t\tcomment \"{}\"\n", self.slot, self.device);
        for family in Family::BOTH {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let meant = |f: &&PortForward| f.family() == family && f.protocol.has(protocol);
                let meant = || self.forwards.iter().filter(meant);
                let kept = meant().filter(|f| f.moved().is_none());
                let kept = kept.map(|f| format!("{} : {}", f.ports, f.to.host)).collect::<Vec<_>>();
                let moved = meant().filter_map(PortForward::moved).flatten();
                let moved =
                    moved.map(|pair| format!("{} : {} . {}", pair.port, pair.to.ip(), pair.to.port()));
                for elements in [kept, moved.collect()].iter().filter(|elements| !elements.is_empty()) {
                    let _ = writeln!(
                        text,
                        "\t\tdnat {} to {} dport map {{ {} }}",
                        family.nft(),
                        protocol.as_str(),
                        elements.join(", ")
                    );
                }
            }
        }
        text + "\t}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_in_by_an_uplink_and_who_asks_for_its_address_are_sent_on() {
        let forward = |protocol, ports: &str, to: &str| PortForward {
            protocol,
            ports: ports.parse().unwrap(),
            to: to.parse().unwrap(),
        };
        let door = |slot, device: &str, addresses: &[&str], forwards| Door {
            slot: Slot::new(slot).unwrap(),
            device: IfName::new(device).unwrap(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            forwards,
        };
        let everywhere = forward(Protocol::Both, "5000-5010", "10.1.0.9");
        let web = forward(Protocol::Tcp, "8080-8081", "10.1.0.9:80-81");
        let six = forward(Protocol::Udp, "53", "[fd00::9]:5353");
        let forwards = Forwards {
            doors: vec![
                door(1, "eth0", &["192.0.2.2", "2001:db8:1::2"], vec![everywhere, web, six]),
                door(2, "eth1", &["192.0.2.2", "198.51.100.2", "2001:db8:2::2"], vec![everywhere]),
            ],
            lans: ["br0", "wlan0"].map(|lan| IfName::new(lan).unwrap()).to_vec(),
        };
        // tests/netfilter.rs loads it and sends packets.
        assert_eq!(
            forwards.text(),
            r#"	chain forwards_1 {
		comment "eth0"
		dnat ip to tcp dport map { 5000-5010 : 10.1.0.9 }
		dnat ip to tcp dport map { 8080 : 10.1.0.9 . 80, 8081 : 10.1.0.9 . 81 }
		dnat ip to udp dport map { 5000-5010 : 10.1.0.9 }
		dnat ip6 to udp dport map { 53 : fd00::9 . 5353 }
	}
	chain forwards_2 {
		comment "eth1"
		dnat ip to tcp dport map { 5000-5010 : 10.1.0.9 }
		dnat ip to udp dport map { 5000-5010 : 10.1.0.9 }
	}
	chain forwards {
		type nat hook prerouting priority dstnat - 1; policy accept;
		fib daddr type != local return
		iifname vmap { "eth0" : goto forwards_1, "eth1" : goto forwards_2 }
		ip daddr vmap { 192.0.2.2 : goto forwards_1, 198.51.100.2 : goto forwards_2 }
		ip6 daddr vmap { 2001:db8:1::2 : goto forwards_1 }
	}
	chain forwards_here {
		type nat hook output priority -101; policy accept;
		ip daddr vmap { 192.0.2.2 : goto forwards_1, 198.51.100.2 : goto forwards_2 }
		ip6 daddr vmap { 2001:db8:1::2 : goto forwards_1 }
	}
	chain forwarded_back {
		type nat hook postrouting priority srcnat - 1; policy accept;
		iifname . oifname != { "br0" . "br0", "wlan0" . "wlan0" } return
		ct status & dnat == 0 return
		ct original ip daddr { 192.0.2.2, 198.51.100.2 } masquerade
		ct original ip6 daddr { 2001:db8:1::2 } masquerade
	}
"#
        );
        assert_eq!(Forwards { doors: Vec::new(), ..forwards }.text(), "");
    }
}
