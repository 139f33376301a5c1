//! Policy rules, as few kinds as we need; written as `ip rule` writes them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::net::{Family, IfName, Mark, OWNER, Pref, TableId};

/// One rule of ours, fully specified.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Its family.
    pub family: Family,
    /// Its preference.
    pub pref: Pref,
    /// Which packets it takes.
    pub selector: Selector,
    /// The table that it sends them to.
    pub table: TableId,
    /// Routes found with a prefix of this length or shorter do not count.
    pub suppress_prefixlen: Option<u32>,
}

/// Which packets a rule takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Every packet.
    All,
    /// Those with a mark.
    Mark(Mark),
    /// Those with a source address.
    From(IpAddr),
    /// Those to a prefix.
    To(IpNet),
    /// Those with a source address to a prefix.
    FromTo(IpAddr, IpNet),
    /// Those of sockets bound to a device.
    Oif(IfName),
}

impl Rule {
    /// The rest of an `ip -4|-6 rule add|del` command.
    pub fn spec(&self) -> impl fmt::Display + '_ {
        Spec(self)
    }
}

struct Spec<'a>(&'a Rule);

impl fmt::Display for Spec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        write!(f, "pref {}", rule.pref)?;
        match &rule.selector {
            Selector::All => {}
            Selector::Mark(mark) => write!(f, " fwmark {mark}")?,
            Selector::From(ip) => write!(f, " from {ip}")?,
            Selector::To(net) => write!(f, " to {net}")?,
            Selector::FromTo(ip, net) => write!(f, " from {ip} to {net}")?,
            Selector::Oif(name) => write!(f, " oif {name}")?,
        }
        write!(f, " lookup {}", rule.table)?;
        if let Some(len) = rule.suppress_prefixlen {
            write!(f, " suppress_prefixlength {len}")?;
        }
        write!(f, " protocol {OWNER}")
    }
}
