//! Which links a section speaks of.
//!
//! Refuses to know how a link's type was found out.

use std::fmt;
use std::str::FromStr;

use crate::core::net::{IfName, MacAddr, UplinkName};

/// What a link must be to be meant: all the criteria that are given hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// Any of these; empty where the name does not matter.
    pub(super) interface: Vec<Pattern>,
    /// The name or the UUID of the connection.
    pub(super) connection: Option<String>,
    /// The type of the link.
    pub(super) kind: Option<LinkType>,
    /// The hardware address.
    pub(super) mac: Option<MacAddr>,
}

impl Matcher {
    /// The links of one interface name.
    pub fn interface(name: &IfName) -> Self {
        Matcher { interface: vec![Pattern(name.as_str().to_owned())], ..Matcher::default() }
    }

    /// Whether it points at a link rather than at a kind of links: then the link is meant to be an uplink.
    pub fn is_pointed(&self) -> bool {
        let exact = |pattern: &Pattern| !pattern.0.contains(['*', '?']);
        self.mac.is_some() || self.connection.is_some() || self.interface.iter().any(exact)
    }

    /// Whether a link is meant.
    pub fn matches(&self, link: &Subject) -> bool {
        let connection = |wanted: &String| {
            link.connection_id == Some(wanted)
                || link.connection_uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(wanted))
        };
        (self.interface.is_empty() || self.interface.iter().any(|pattern| pattern.matches(link.interface)))
            && self.connection.as_ref().is_none_or(connection)
            && self.kind.is_none_or(|kind| kind == link.kind)
            && self.mac.is_none_or(|mac| Some(mac) == link.mac)
    }
}

/// What a matcher looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The name of the interface.
    pub interface: &'a IfName,
    /// What people call the connection that is active on it.
    pub connection_id: Option<&'a str>,
    /// What identifies that connection.
    pub connection_uuid: Option<&'a str>,
    /// Its type.
    pub kind: LinkType,
    /// Its hardware address.
    pub mac: Option<MacAddr>,
}

/// An interface name in which `*` stands for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Accepts what can match an interface name.
    ///
    /// Brackets are refused although a name may hold them: who writes `eth[01]` means a shell's choice, which would
    /// never match.
    pub(super) fn new(text: &str) -> Option<Self> {
        let fixed = text.replace('*', "");
        let possible = fixed.is_empty() || IfName::new(&fixed).is_some();
        (possible && !text.is_empty() && !text.contains(['[', ']'])).then(|| Pattern(text.to_owned()))
    }

    /// As it is written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of an uplink, in which nothing varies.
    pub(super) fn of_uplink(name: &str) -> Option<Self> {
        UplinkName::new(name).map(|name| Pattern(name.to_string()))
    }

    /// Whether it fits the name of an interface.
    pub fn matches(&self, name: &IfName) -> bool {
        self.fits(name.as_str())
    }

    /// Whether it fits a name of 63 characters at most.
    pub(super) fn fits(&self, name: &str) -> bool {
        let name = name.as_bytes();
        // Bit n: what was read of the pattern takes the first n bytes of the name. One pass whatever the stars.
        let mut taken = 1u64;
        for &wanted in self.0.as_bytes() {
            taken = match wanted {
                b'*' => u64::MAX.checked_shl(taken.trailing_zeros()).unwrap_or(0),
                _ => name.iter().enumerate().fold(0, |next, (n, &byte)| {
                    let steps = taken >> n & 1 == 1 && (wanted == b'?' || wanted == byte);
                    next | u64::from(steps) << (n + 1)
                }),
            };
        }
        taken >> name.len() & 1 == 1
    }
}

/// The type of a link as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// A cable.
    Ethernet,
    /// A wireless network.
    Wifi,
    /// A cellular modem.
    Wwan,
    /// PPP, PPPoE among it.
    Ppp,
    /// A bridge.
    Bridge,
    /// A bond or team.
    Bond,
    /// A VLAN.
    Vlan,
    /// A tun or tap device.
    Tun,
    /// Anything else.
    Other,
}

impl LinkType {
    /// The words that [`LinkType::from_str`] takes, for error messages.
    pub const ALLOWED: &str = "one of ethernet, wifi, wwan, ppp, bridge, bond, vlan, tun, other";

    const WORDS: [(LinkType, &str); 9] = [
        (LinkType::Ethernet, "ethernet"),
        (LinkType::Wifi, "wifi"),
        (LinkType::Wwan, "wwan"),
        (LinkType::Ppp, "ppp"),
        (LinkType::Bridge, "bridge"),
        (LinkType::Bond, "bond"),
        (LinkType::Vlan, "vlan"),
        (LinkType::Tun, "tun"),
        (LinkType::Other, "other"),
    ];
}

impl FromStr for LinkType {
    type Err = UnknownLinkType;

    fn from_str(text: &str) -> Result<Self, UnknownLinkType> {
        let known = LinkType::WORDS.iter().find(|(_, word)| *word == text);
        known.map(|(kind, _)| *kind).ok_or(UnknownLinkType)
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = LinkType::WORDS.iter().find(|(kind, _)| kind == self);
        f.write_str(word.map_or("other", |(_, word)| word))
    }
}

/// A word that names no [`LinkType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a type of link; {}", LinkType::ALLOWED)]
pub struct UnknownLinkType;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(&IfName::new(name).unwrap())
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (text, name) in [
            ("eth0", "eth0"),
            ("eth*", "eth"),
            ("eth*", "eth0.7"),
            ("*", "x"),
            ("**", "wwan0"),
            ("?*", "x"),
            ("en?s0", "enps0"),
            ("*n*s*", "enp3s0"),
            ("*0", "wan00"),
            ("a?c*", "a?c"),
            ("*exactly-15-byte", "exactly-15-byte"),
            ("***************-", "exactly-15-byt-"),
        ] {
            assert!(pattern(text, name), "{text} {name}");
        }
        for (text, name) in [
            ("eth0", "eth1"),
            ("eth0", "eth"),
            ("eth", "eth0"),
            ("eth?", "eth"),
            ("*1", "eth0"),
            ("?", "ab"),
            ("*x*x", "x"),
            ("a*b*c", "acb"),
        ] {
            assert!(!pattern(text, name), "{text} {name}");
        }
        assert!(!pattern(&"*x".repeat(15), "xxxxxxxxxxxxxx"), "no pattern takes long");
    }

    #[test]
    fn patterns_that_can_match_nothing_are_refused() {
        for bad in ["", " ", "eth 0", "a/b", "eth[01]", "eth{0,1}", "longer-than-15-b", "é*", "a\0", "eth\\*"]
        {
            assert_eq!(Pattern::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_criteria_hold_or_it_is_no_match() {
        let eth0 = IfName::new("eth0").unwrap();
        let mac: MacAddr = "02:00:5e:00:53:01".parse().unwrap();
        let link = Subject {
            interface: &eth0,
            connection_id: Some("Home"),
            connection_uuid: Some("0f0e2f9a-aaaa-4bbb-8ccc-1234567890ab"),
            kind: LinkType::Ethernet,
            mac: Some(mac),
        };
        let full = Matcher {
            interface: vec![Pattern::new("wlan*").unwrap(), Pattern::new("eth?").unwrap()],
            connection: Some("Home".to_owned()),
            kind: Some(LinkType::Ethernet),
            mac: Some(mac),
        };
        assert!(full.matches(&link));
        assert!(Matcher::interface(&eth0).matches(&link));
        let uuid = Some("0F0E2F9A-aaaa-4bbb-8ccc-1234567890ab".to_owned());
        assert!(Matcher { connection: uuid, ..full.clone() }.matches(&link));

        let wlan = Matcher { interface: vec![Pattern::new("wlan*").unwrap()], ..full.clone() };
        let office = Matcher { connection: Some("home".to_owned()), ..full.clone() };
        let wifi = Matcher { kind: Some(LinkType::Wifi), ..full.clone() };
        let other = Matcher { mac: Some(MacAddr([2; 6])), ..full.clone() };
        for matcher in [wlan, office, wifi, other] {
            assert!(!matcher.matches(&link), "{matcher:?}");
        }
        let bare = Subject { connection_id: None, connection_uuid: None, mac: None, ..link };
        assert!(!full.matches(&bare));
    }

    #[test]
    fn link_types_are_the_words_that_the_error_lists() {
        let words = LinkType::WORDS.map(|(_, word)| word);
        assert_eq!(LinkType::ALLOWED, format!("one of {}", words.join(", ")));
        for (kind, word) in LinkType::WORDS {
            assert_eq!(word.parse(), Ok(kind));
            assert_eq!(kind.to_string(), word);
        }
        let error = "dsl".parse::<LinkType>().unwrap_err().to_string();
        assert_eq!(
            error,
            "not a type of link; one of ethernet, wifi, wwan, ppp, bridge, bond, vlan, tun, other"
        );
    }
}
