//! IPv6 sources that leave by an uplink, and what comes in for them: the part of our table that rewrites them.
//!
//! Says how it is done. Which prefix becomes which, and whose sources are to be left alone, is decided in
//! [`crate::core::plan`].

use std::fmt::Write;

use ipnet::Ipv6Net;

use super::joined;
use crate::core::layout::Slot;
use crate::core::net::IfName;

/// What becomes of IPv6 sources that leave by an uplink.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Translation {
    /// The uplink's own prefixes: its provider brings them back, so they stay as they are.
    pub own: Vec<Ipv6Net>,
    /// Prefixes that become others of the same length; the rest of the address stays.
    pub pairs: Vec<Pair>,
    /// What becomes of all others.
    pub others: Others,
}

/// A prefix behind the machine, and the one that the internet sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The one behind.
    pub inside: Ipv6Net,
    /// The one in front.
    pub outside: Ipv6Net,
    /// What comes in for the one in front is let through to the one behind.
    pub inbound: bool,
}

/// What becomes of sources that are neither the uplink's own nor those of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Others {
    /// They stay as they are.
    Keep,
    /// What this machine sends from another uplink's address gets the uplink's own.
    Local,
    /// Those that are good for no internet (RFC 4193) become the uplink's own address.
    #[default]
    Private,
    /// All of them do.
    All,
}

impl Translation {
    /// Those of others stay as they are.
    pub const LOCAL: Translation = Translation { own: Vec::new(), pairs: Vec::new(), others: Others::Local };

    /// The chain that a flow's first packet passes when it leaves by this uplink.
    pub(super) fn chain(&self, name: &IfName, slot: Slot) -> String {
        let mut text = format!("\tchain nat6_{slot} {{\n\t\tcomment \"{name}\"\n");
        if !self.own.is_empty() {
            let _ = writeln!(text, "\t\tip6 saddr {{ {} }} return", joined(&self.own));
        }
        if !self.pairs.is_empty() {
            let pairs: Vec<_> = self.pairs.iter().map(|p| format!("{} : {}", p.inside, p.outside)).collect();
            let _ = writeln!(text, "\t\tsnat ip6 prefix to ip6 saddr map {{ {} }}", joined(&pairs));
        }
        let masquerade = match self.others {
            Others::Keep => "",
            Others::Local => "\t\tfib saddr type local masquerade\n",
            Others::Private => "\t\tip6 saddr fc00::/7 masquerade\n\t\tfib saddr type local masquerade\n",
            Others::All => {
                "\t\tip6 saddr { 2000::/3, fc00::/7 } masquerade\n\t\tfib saddr type local masquerade\n"
            }
        };
        text + masquerade + "\t}\n"
    }

    /// The way back for who begins outside.
    pub(super) fn inbound(&self, name: &IfName) -> Option<String> {
        let pairs: Vec<_> = (self.pairs.iter().filter(|pair| pair.inbound))
            .map(|pair| format!("{} : {}", pair.outside, pair.inside))
            .collect();
        let pairs = (!pairs.is_empty()).then(|| joined(&pairs))?;
        Some(format!("\t\tiifname \"{name}\" dnat ip6 prefix to ip6 daddr map {{ {pairs} }}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn chain(translation: &Translation) -> String {
        translation.chain(&IfName::new("wan").unwrap(), Slot::new(3).unwrap())
    }

    #[test]
    fn own_prefixes_stay_pairs_are_swapped_and_the_rest_is_masqueraded() {
        let pair = |inside, outside, inbound| Pair { inside: net(inside), outside: net(outside), inbound };
        let translation = Translation {
            own: vec![net("2001:db8:1::/64"), net("2001:db8:1:a00::/56")],
            pairs: vec![
                pair("2001:db8:2:b01::/64", "2001:db8:1:a01::/64", false),
                pair("fd77::/64", "2001:db8:1:a02::/64", true),
            ],
            others: Others::All,
        };
        assert_eq!(
            chain(&translation),
            "\tchain nat6_3 {\n\
             \t\tcomment \"wan\"\n\
             \t\tip6 saddr { 2001:db8:1::/64, 2001:db8:1:a00::/56 } return\n\
             \t\tsnat ip6 prefix to ip6 saddr map { 2001:db8:2:b01::/64 : 2001:db8:1:a01::/64, \
             fd77::/64 : 2001:db8:1:a02::/64 }\n\
             \t\tip6 saddr { 2000::/3, fc00::/7 } masquerade\n\
             \t\tfib saddr type local masquerade\n\
             \t}\n"
        );
        assert_eq!(
            translation.inbound(&IfName::new("wan").unwrap()).unwrap(),
            "\t\tiifname \"wan\" dnat ip6 prefix to ip6 daddr map { 2001:db8:1:a02::/64 : fd77::/64 }\n"
        );
    }

    #[test]
    fn who_wants_no_translation_gets_none() {
        let none = Translation { others: Others::Keep, ..Translation::default() };
        assert_eq!(chain(&none), "\tchain nat6_3 {\n\t\tcomment \"wan\"\n\t}\n");
        assert_eq!(none.inbound(&IfName::new("wan").unwrap()), None);
    }
}
