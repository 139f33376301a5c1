//! Policy rules, as few kinds as we need; written as `ip rule` writes them.

use std::fmt;

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
    /// The table that it sends them to; [`TableId::NOWHERE`] where it refuses them.
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
    /// Those to a prefix. Ahead of those by source, as of two with one preference the kernel asks that first which was
    /// added first.
    To(IpNet),
    /// Those with a source address, or one of a prefix.
    From(IpNet),
    /// Those with such a source to a prefix.
    FromTo(IpNet, IpNet),
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

/// A prefix, or the bare address where it is one alone.
struct Short<'a>(&'a IpNet);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            net if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            net => net.fmt(f),
        }
    }
}

impl fmt::Display for Spec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        write!(f, "pref {}", rule.pref)?;
        match &rule.selector {
            Selector::All => {}
            Selector::Mark(mark) => write!(f, " fwmark {mark}")?,
            Selector::From(from) => write!(f, " from {}", Short(from))?,
            Selector::To(to) => write!(f, " to {to}")?,
            Selector::FromTo(from, to) => write!(f, " from {} to {to}", Short(from))?,
            Selector::Oif(name) => write!(f, " oif {name}")?,
        }
        match rule.table {
            TableId::NOWHERE => f.write_str(" unreachable")?,
            table => write!(f, " lookup {table}")?,
        }
        if let Some(len) = rule.suppress_prefixlen {
            write!(f, " suppress_prefixlength {len}")?;
        }
        write!(f, " protocol {OWNER}")
    }
}
