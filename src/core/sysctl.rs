//! The few kernel settings that we may write: an enumeration, not strings.

use std::fmt;

use super::net::{Family, IfName};

/// A setting under `/proc/sys/net` (Documentation/networking/ip-sysctl.rst).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sysctl {
    /// `ipv4.conf.IF.rp_filter`: 1 drops what comes in by an uplink that the route back does not use.
    RpFilter(IfName),
    /// `{ipv4,ipv6}.conf.IF.ignore_routes_with_linkdown`: a leg without carrier is left out at once.
    IgnoreLinkdown(Family, IfName),
    /// `{ipv4,ipv6}.fib_multipath_hash_policy`: 0 chooses a leg by addresses, 1 by ports as well.
    HashPolicy(Family),
    /// `ipv6.conf.IF.accept_ra`: 1 takes a router's advertisements unless this machine is one itself, 2 in any case.
    AcceptRa(IfName),
    /// `{ipv4,ipv6}.conf.all.forwarding`: whether packets for others are forwarded. It stands behind [`Sysctl::AcceptRa`],
    /// because the kernel deletes what advertisements have told when it begins to forward
    /// (`addrconf_fixup_forwarding`, net/ipv6/addrconf.c).
    Forwarding(Family),
}

impl Sysctl {
    /// `ipv4.conf.all.rp_filter`, which is read and never written.
    pub fn rp_filter_of_all() -> Self {
        Sysctl::RpFilter(IfName::all())
    }

    /// The path below `/proc/sys`.
    ///
    /// A path and not a dotted name, because an interface name may hold a dot.
    pub fn path(&self) -> String {
        let root = |family: &Family| match family {
            Family::V4 => "net/ipv4",
            Family::V6 => "net/ipv6",
        };
        match self {
            Sysctl::RpFilter(name) => format!("net/ipv4/conf/{name}/rp_filter"),
            Sysctl::IgnoreLinkdown(family, name) => {
                format!("{}/conf/{name}/ignore_routes_with_linkdown", root(family))
            }
            Sysctl::HashPolicy(family) => format!("{}/fib_multipath_hash_policy", root(family)),
            Sysctl::AcceptRa(name) => format!("net/ipv6/conf/{name}/accept_ra"),
            Sysctl::Forwarding(family) => format!("{}/conf/all/forwarding", root(family)),
        }
    }

    /// The setting that has this path below `/proc/sys`.
    pub fn from_path(path: &str) -> Option<Self> {
        let (family, rest) = match path.strip_prefix("net/ipv4/") {
            Some(rest) => (Family::V4, rest),
            None => (Family::V6, path.strip_prefix("net/ipv6/")?),
        };
        if rest == "fib_multipath_hash_policy" {
            return Some(Sysctl::HashPolicy(family));
        }
        if rest == "conf/all/forwarding" {
            return Some(Sysctl::Forwarding(family));
        }
        let (name, leaf) = rest.strip_prefix("conf/")?.rsplit_once('/')?;
        let name = IfName::new(name)?;
        match (leaf, family) {
            ("rp_filter", Family::V4) => Some(Sysctl::RpFilter(name)),
            ("accept_ra", Family::V6) => Some(Sysctl::AcceptRa(name)),
            ("ignore_routes_with_linkdown", _) => Some(Sysctl::IgnoreLinkdown(family, name)),
            _ => None,
        }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_back() {
        let name = IfName::new("wan.7").unwrap();
        for sysctl in [
            Sysctl::RpFilter(name.clone()),
            Sysctl::IgnoreLinkdown(Family::V6, name.clone()),
            Sysctl::HashPolicy(Family::V4),
            Sysctl::AcceptRa(name),
            Sysctl::Forwarding(Family::V6),
        ] {
            assert_eq!(Sysctl::from_path(&sysctl.path()), Some(sysctl));
        }
        assert_eq!(Sysctl::from_path("net/ipv4/ip_forward"), None);
        assert_eq!(Sysctl::from_path("net/ipv6/conf/eth0/rp_filter"), None);
        assert_eq!(Sysctl::from_path("net/ipv4/conf/eth0/forwarding"), None);
    }
}
