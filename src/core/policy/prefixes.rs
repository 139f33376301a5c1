//! The prefixes of all policies, made ready once when the configuration is read: there may be a hundred thousand.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::ranges::{Bits, Range, disjoint};
use super::{Policy, Traffic};
use crate::core::net::Family;
use crate::core::text::hash;

/// The elements of the maps by address, as text for nftables, and what has to be known of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefixes {
    /// For each map that has any: its name, and its elements.
    pub elements: Vec<(String, String)>,
    /// How many elements there are in all.
    pub count: usize,
    /// What elements of each round leave.
    pub kept: BTreeSet<Bits>,
    /// By which all of this is known.
    pub hash: u64,
}

/// The prefixes for which a criterion asks.
pub type Nets = fn(&Traffic) -> &Vec<IpNet>;

/// The criteria by address, with the names of their maps' beginnings.
pub const BY_ADDRESS: [(&str, Nets); 2] = [("from", |t| &t.from), ("to", |t| &t.to)];

/// The name of the map of a criterion, family and round.
pub fn map(criterion: &str, family: Family, round: usize) -> String {
    format!("{criterion}_{}_{round}", family.version())
}

/// The policies of a round that do not ask for something.
pub fn indifferent<'a>(round: impl Iterator<Item = &'a Traffic>, asks: impl Fn(&Traffic) -> bool) -> Bits {
    let places = round.enumerate().filter(|(_, traffic)| !asks(traffic));
    places.map(|(place, _)| Bits::of(place)).collect()
}

impl Prefixes {
    /// Makes the elements from the prefixes of all policies.
    pub fn of(policies: &[Policy]) -> Self {
        let mut made = Prefixes::default();
        if policies.is_empty() {
            return made;
        }
        for (number, round) in policies.chunks(Bits::COUNT).enumerate() {
            for (criterion, nets) in BY_ADDRESS {
                let traffic = round.iter().map(|policy| &policy.traffic);
                let any = indifferent(traffic, |traffic| !nets(traffic).is_empty());
                for family in Family::BOTH {
                    let name = map(criterion, family, number);
                    made.add(name, family, any, &asked(round, family, nets));
                }
            }
        }
        let text = made.elements.iter().map(|(name, elements)| format!("{name}: {elements}\n"));
        made.hash = hash(&text.collect::<String>());
        made
    }

    fn add(&mut self, name: String, family: Family, any: Bits, ranges: &[Range]) {
        if ranges.is_empty() {
            return;
        }
        let mut text = String::with_capacity(ranges.len() * 40);
        for range in ranges {
            let kept = range.bits.with(any);
            self.kept.insert(kept);
            let (from, to) = (address(family, range.from), address(family, range.to));
            let separator = if text.is_empty() { "" } else { ",\n" };
            let _ = match from == to {
                true => write!(text, "{separator}{from} : goto keep_{:08x}", kept.0),
                false => write!(text, "{separator}{from}-{to} : goto keep_{:08x}", kept.0),
            };
        }
        self.count += ranges.len();
        self.elements.push((name, text));
    }
}

/// What the policies of a round ask for in one family, without overlaps.
fn asked(round: &[Policy], family: Family, nets: Nets) -> Vec<Range> {
    let mut ranges = Vec::new();
    for (place, policy) in round.iter().enumerate() {
        let of_family = nets(&policy.traffic).iter().filter(|net| Family::of(net.addr()) == family);
        ranges.extend(of_family.map(|net| Range {
            from: number(net.network()),
            to: number(net.broadcast()),
            bits: Bits::of(place),
        }));
    }
    disjoint(&ranges)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // A range of IPv4 that reaches to the end is not cut there, as it was counted in a wider word.
        Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_prefixes_of_several_policies_become_elements_that_do_not() {
        let policy = |from: &[&str], to: &[&str]| {
            let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            Policy::example(Traffic { from: nets(from), to: nets(to), ..Traffic::default() })
        };
        let policies = [
            policy(&["10.0.0.0/8"], &[]),
            policy(&["10.1.0.0/16", "fd00::/8"], &["0.0.0.0/0"]),
            policy(&[], &["255.255.255.255/32"]),
        ];
        let made = Prefixes::of(&policies);
        let expected = [
            (
                "from_4_0",
                "10.0.0.0-10.0.255.255 : goto keep_a0000000,\n10.1.0.0-10.1.255.255 : goto keep_e0000000,\n\
                 10.2.0.0-10.255.255.255 : goto keep_a0000000",
            ),
            ("from_6_0", "fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff : goto keep_60000000"),
            ("to_4_0", "0.0.0.0-255.255.255.254 : goto keep_c0000000,\n255.255.255.255 : goto keep_e0000000"),
        ];
        assert_eq!(made.elements, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!((made.count, made.kept.len()), (6, 4));
    }
}
