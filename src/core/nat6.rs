//! What is to become of IPv6 sources that leave by an uplink and are not its own: the administrator's choice.
//!
//! What it comes to for the prefixes that are there is decided in [`super::plan`], and done in [`super::nft`].

use std::fmt;
use std::str::FromStr;

use ipnet::Ipv6Net;

/// What becomes of IPv6 sources that leave by an uplink and are not its own. Its own are never changed: its provider
/// lets them out and brings the answers back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nat6 {
    /// Nothing: they leave as they are.
    None,
    /// They become the uplink's address, so that its provider lets them out (RFC 2827) whatever the LAN has.
    #[default]
    Masquerade,
    /// Each prefix of the LAN becomes one of the uplink's own, host by host (as RFC 6296 does, but with state).
    Prefix,
    /// The same, and who begins outside gets through to the host behind.
    PrefixBoth,
}

impl Nat6 {
    /// What can be said, for error messages.
    pub const ALLOWED: &str = "none, masquerade, prefix or prefix-both";

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Nat6::None => "none",
            Nat6::Masquerade => "masquerade",
            Nat6::Prefix => "prefix",
            Nat6::PrefixBoth => "prefix-both",
        }
    }

    /// Whether prefixes are exchanged for prefixes.
    pub fn by_prefix(self) -> bool {
        matches!(self, Nat6::Prefix | Nat6::PrefixBoth)
    }
}

impl fmt::Display for Nat6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is none of those allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", Nat6::ALLOWED)]
pub struct Unknown;

impl FromStr for Nat6 {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let all = [Nat6::None, Nat6::Masquerade, Nat6::Prefix, Nat6::PrefixBoth];
        all.into_iter().find(|nat6| nat6.as_str() == text).ok_or(Unknown)
    }
}

/// How many prefixes of an uplink count. Each is a rule.
pub const MOST_PREFIXES: usize = 16;

/// Whether a prefix can be one that a provider delegates: of the internet, from 16 to 64 bits. More would be others'
/// addresses too; less is no network for hosts (RFC 6177, RFC 4862).
pub fn is_delegable(net: &Ipv6Net) -> bool {
    (16..=64).contains(&net.prefix_len()) && net.trunc() == *net && is_internet(net)
}

/// Whether a prefix lies in what the internet uses, 2000::/3 (IANA, "IPv6 Global Unicast Address Assignments").
pub fn is_internet(net: &Ipv6Net) -> bool {
    net.addr().segments()[0] & 0xe000 == 0x2000 && net.prefix_len() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_there_and_back() {
        for nat6 in [Nat6::None, Nat6::Masquerade, Nat6::Prefix, Nat6::PrefixBoth] {
            assert_eq!(nat6.as_str().parse(), Ok(nat6));
            assert!(Nat6::ALLOWED.contains(nat6.as_str()));
        }
        assert_eq!("Prefix".parse::<Nat6>(), Err(Unknown));
    }

    #[test]
    fn what_a_provider_delegates() {
        let is = |text: &str| is_delegable(&text.parse().unwrap());
        assert!(is("2001:db8:1:a00::/56") && is("2001:db8:1:a00::/64"));
        assert!(!is("2000::/3") && !is("2001:db8:1:a00::/80") && !is("2001:db8::1/56") && !is("fd00::/48"));
    }

    #[test]
    fn what_the_internet_uses() {
        let is = |text: &str| is_internet(&text.parse().unwrap());
        assert!(is("2001:db8::/32") && is("3fff::/20") && is("2000::/3"));
        assert!(!is("fd00::/8") && !is("::/0") && !is("4000::/3") && !is("fe80::/10"));
    }
}
