//! Routes, as few kinds as we need; written as `ip route` writes them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::layout::Slot;
use super::net::{Device, Family, Metric, OWNER, TableId, Tos, Weight};

/// One route of ours, fully specified: what the kernel would fill in is here already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// What the kernel goes by when it replaces.
    pub key: RouteKey,
    /// The source address that it sets.
    pub src: Option<IpAddr>,
    /// Its legs; none where it is `unreachable`.
    pub hops: Vec<NextHop>,
}

/// What tells two routes of one family apart: replacing under the same key swaps in one step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The table.
    pub table: TableId,
    /// The destination.
    pub dest: IpNet,
    /// The metric.
    pub metric: Metric,
    /// For which packets alone, IPv4 only. The kernel asks such routes first, whatever the metric.
    pub tos: Tos,
}

impl RouteKey {
    /// For every packet.
    pub fn new(table: TableId, dest: IpNet, metric: Metric) -> Self {
        RouteKey { table, dest, metric, tos: Tos::ANY }
    }
}

/// One leg of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The interface.
    pub dev: Device,
    /// The gateway; none where the link has only one other end.
    pub via: Option<IpAddr>,
    /// The gateway is reached on the link although no prefix says so.
    pub onlink: bool,
    /// Its share.
    pub weight: Weight,
}

impl Route {
    /// The family, by the destination.
    pub fn family(&self) -> Family {
        Family::of(self.key.dest.addr())
    }

    /// Whether it is a balanced default, which flows that nothing pins meet: in no uplink's own table.
    pub fn steers(&self) -> bool {
        self.key.dest.prefix_len() == 0 && Slot::of_table(self.key.table).is_none()
    }

    /// The rest of an `ip -4|-6 route replace|del` command.
    pub fn spec(&self) -> impl fmt::Display + '_ {
        Spec(self)
    }
}

struct Spec<'a>(&'a Route);

impl fmt::Display for Spec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route { key, src, hops } = self.0;
        if hops.is_empty() {
            f.write_str("unreachable ")?;
        }
        if key.dest.prefix_len() == 0 {
            f.write_str("default")?;
        } else {
            write!(f, "{}", key.dest)?;
        }
        if key.tos != Tos::ANY {
            write!(f, " tos {:#04x}", key.tos.0)?;
        }
        if let [hop] = hops.as_slice() {
            write!(f, "{hop}")?;
        }
        write!(f, " table {} proto {OWNER} metric {}", key.table, key.metric)?;
        if let Some(src) = src {
            write!(f, " src {src}")?;
        }
        if hops.len() > 1 {
            for hop in hops {
                write!(f, " nexthop{hop} weight {}", hop.weight)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for NextHop {
    /// ` via GATEWAY dev DEVICE onlink`, with the space before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}", self.dev)?;
        if self.onlink {
            f.write_str(" onlink")?;
        }
        Ok(())
    }
}
