//! Groups: the part of our table that says who may talk to whom through the machine.
//!
//! Says how it is done. Who belongs to which group, and who carries what a LAN sends, is decided in [`crate::core::plan`].

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{by_name, uplink_of_flow};
use crate::core::layout::{MARK_MASK, Slot};
use crate::core::net::{Family, IfName, PerFamily, Weight};

/// Who may talk to whom; by default nothing is said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// The interfaces of all uplinks that are there: what comes in by one is not told that it is refused.
    pub uplinks: Vec<IfName>,
    /// The interfaces of whom it is said, those of uplinks among them.
    pub members: BTreeSet<IfName>,
    /// Those that may, in both directions.
    pub pairs: BTreeSet<(IfName, IfName)>,
    /// LANs that may not use every uplink that new flows use, with those that carry theirs.
    pub steered: Vec<Steered>,
}

/// A LAN with those who carry what it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steered {
    /// Its interface.
    pub lan: IfName,
    /// The uplinks, each with its share; none in a family in which nothing is to be done, or can be.
    pub shares: PerFamily<Vec<(Slot, Weight)>>,
}

impl Groups {
    /// The interfaces behind which nobody may use the uplink on this one.
    pub fn denied(&self, uplink: &IfName) -> BTreeSet<IfName> {
        let may = |lan: &IfName| self.pairs.contains(&(lan.clone(), uplink.clone()));
        let lans = self.members.iter().filter(|member| !self.uplinks.contains(member));
        lans.filter(|lan| !may(lan)).cloned().collect()
    }

    /// The chains.
    ///
    /// Each packet is looked at, since a flow may have begun before. What somebody has forwarded on purpose, by another
    /// destination for it, gets through; and so does what has nothing to do with a LAN and an uplink, as a VPN.
    pub(super) fn text(&self) -> String {
        if self.pairs.is_empty() {
            return String::new();
        }
        let pairs: Vec<_> = self.pairs.iter().map(|(from, to)| format!("\"{from}\" . \"{to}\"")).collect();
        let (pairs, members) = (pairs.join(", "), by_name(&self.members));
        let strangers = by_name(&self.uplinks);
        let unsaid = match strangers.is_empty() {
            true => String::new(),
            false => format!("\t\tiifname {{ {strangers} }} drop\n"),
        };
        let mut text = format!(
            "\tchain group_refuses {{\n\
             {unsaid}\
             \t\tmeta l4proto tcp reject with tcp reset\n\
             \t\treject with icmpx admin-prohibited\n\
             \t}}\n\
             \tchain group_members {{\n\
             \t\ttype filter hook forward priority filter - 5; policy accept;\n\
             \t\tiifname . oifname {{ {pairs} }} accept\n\
             \t\tiifname != {{ {members} }} accept\n\
             \t\toifname != {{ {members} }} accept\n\
             \t\tct status & dnat != 0 accept\n\
             \t\tgoto group_refuses\n\
             \t}}\n"
        );
        for (number, steered) in self.steered.iter().enumerate() {
            text += &steered.chain(number);
        }
        let lans = self.steered.iter().enumerate();
        let jumps: Vec<_> =
            lans.map(|(number, of)| format!("\"{}\" : jump group_steers_{number}", of.lan)).collect();
        if !jumps.is_empty() {
            // Only what would leave by an uplink, and nothing that somebody has decided.
            let _ = write!(
                text,
                "\tchain group_steers {{\n\
                 \t\ttype nat hook prerouting priority dstnat + 6; policy accept;\n\
                 \t\tmeta mark & {keep:#010x} != 0 return\n\
                 \t\t{ours} != 0 return\n\
                 \t\tfib daddr oifname != {{ {strangers} }} return\n\
                 \t\tiifname vmap {{ {jumps} }}\n\
                 \t\tmeta mark set {ours}\n\
                 \t}}\n",
                keep = !MARK_MASK,
                ours = uplink_of_flow(),
                jumps = jumps.join(", "),
            );
        }
        text
    }
}

impl Steered {
    /// The chain that gives a LAN's new flows to its uplinks by their weights.
    fn chain(&self, number: usize) -> String {
        let mut text = format!("\tchain group_steers_{number} {{\n");
        for family in Family::BOTH {
            let mut total = 0;
            let mut jumps = Vec::new();
            for (slot, weight) in &self.shares[family] {
                let first = total;
                total += u32::from(weight.get());
                let last = total - 1;
                let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
                jumps.push(format!("{range} : jump slot_{slot}"));
            }
            if !jumps.is_empty() {
                let _ = writeln!(
                    text,
                    "\t\tmeta nfproto {family} numgen random mod {total} vmap {{ {} }}",
                    jumps.join(", ")
                );
            }
        }
        text + "\t}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_group_may_talk_and_a_lan_is_led_to_its_uplinks() {
        let name = |name: &str| IfName::new(name).unwrap();
        let pair = |from: &str, to: &str| (name(from), name(to));
        let share = |slot, weight| (Slot::new(slot).unwrap(), Weight::new(weight).unwrap());
        let shares = PerFamily { v4: vec![share(2, 2), share(3, 1)], v6: vec![share(3, 1)] };
        let groups = Groups {
            uplinks: [1, 2].map(|n| name(&format!("eth{n}"))).to_vec(),
            members: ["br0", "guest", "eth1"].map(name).into(),
            pairs: [pair("br0", "br0"), pair("guest", "eth1"), pair("eth1", "guest")].into(),
            steered: vec![Steered { lan: name("guest"), shares }],
        };
        assert_eq!(groups.denied(&name("eth1")), ["br0"].map(name).into());
        assert_eq!(groups.denied(&name("eth2")), ["br0", "guest"].map(name).into());
        // tests/router.rs loads it and sends packets.
        assert_eq!(
            groups.text(),
            r#"	chain group_refuses {
		iifname { "eth1", "eth2" } drop
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}
	chain group_members {
		type filter hook forward priority filter - 5; policy accept;
		iifname . oifname { "br0" . "br0", "eth1" . "guest", "guest" . "eth1" } accept
		iifname != { "br0", "eth1", "guest" } accept
		oifname != { "br0", "eth1", "guest" } accept
		ct status & dnat != 0 accept
		goto group_refuses
	}
	chain group_steers_0 {
		meta nfproto ipv4 numgen random mod 3 vmap { 0-1 : jump slot_2, 2 : jump slot_3 }
		meta nfproto ipv6 numgen random mod 1 vmap { 0 : jump slot_3 }
	}
	chain group_steers {
		type nat hook prerouting priority dstnat + 6; policy accept;
		meta mark & 0xc0ffffff != 0 return
		ct mark & 0x3f000000 != 0 return
		fib daddr oifname != { "eth1", "eth2" } return
		iifname vmap { "guest" : jump group_steers_0 }
		meta mark set ct mark & 0x3f000000
	}
"#
        );
        let alone = Groups { uplinks: Vec::new(), steered: Vec::new(), ..groups };
        assert!(!alone.text().contains("{  }"), "nft knows no empty set: {}", alone.text());
        assert_eq!(Groups::default().text(), "");
    }
}
