//! An uplink: an interface with a way out, and what is known and decided about it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::layout::Slot;
use super::net::{Device, Family, MacAddr, Metric, PerFamily, Tier, UplinkName, Weight};
use super::observed::Profile;

/// A present uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// What people call it.
    pub name: UplinkName,
    /// Its number: mark, table and rules follow from it.
    pub slot: Slot,
    /// The interface.
    pub dev: Device,
    /// The manager's profile on it.
    pub profile: Option<Profile>,
    /// Its rank.
    pub tier: Tier,
    /// Its share within the tier.
    pub weight: Weight,
    /// Its traffic costs money.
    pub metered: bool,
    /// Its state in each family.
    pub legs: PerFamily<Leg>,
}

/// An uplink in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leg {
    /// Where it stands.
    pub state: State,
    /// The way out.
    pub gateway: Option<Gateway>,
    /// Its own addresses with their prefixes, the preferred source first.
    pub addresses: Vec<IpNet>,
    /// Prefixes that are reached without the gateway.
    pub connected: Vec<(IpNet, Option<IpAddr>)>,
    /// The best metric of its manager's own default routes in main.
    pub metric: Option<Metric>,
    /// The gateway's hardware address, where the kernel has met it.
    pub gateway_mac: Option<MacAddr>,
    /// Leads to the same gateway as a better uplink, so it carries nothing.
    pub twin: bool,
    /// The interface is administratively up: the kernel refuses routes over one that is not, and flushes them.
    pub takes_routes: bool,
}

impl Leg {
    /// Has a gateway and an address: its table can stand, whether or not there is a carrier.
    pub fn configured(&self) -> bool {
        self.gateway.is_some() && !self.addresses.is_empty()
    }

    /// Can carry traffic.
    pub fn usable(&self) -> bool {
        self.state == State::Up
    }

    /// The source address to use: the first one whose prefix holds the gateway, else the first.
    pub fn source(&self) -> Option<IpAddr> {
        let near = |net: &&IpNet| matches!(self.gateway, Some(Gateway::Via(ip)) if net.contains(&ip));
        self.addresses.iter().find(near).or(self.addresses.first()).map(|net| net.addr())
    }
}

/// How a family of an uplink stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// No gateway or no address: the family is not offered here.
    #[default]
    Absent,
    /// The manager is at work on it.
    Configuring,
    /// It can carry traffic.
    Up,
    /// No carrier, or administratively down.
    Down,
}

impl State {
    /// The word that the status shows.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Configuring => "configuring",
            State::Up => "up",
            State::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The way out of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// A router on the link.
    Via(IpAddr),
    /// The link has only one other end (PPP, tun, raw-ip LTE).
    Link,
}

impl Gateway {
    /// The router's address.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Gateway::Via(ip) => Some(ip),
            Gateway::Link => None,
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gateway::Via(ip) => ip.fmt(f),
            Gateway::Link => f.write_str("link"),
        }
    }
}

impl Uplink {
    /// Whether a family can be given traffic.
    pub fn usable(&self, family: Family) -> bool {
        self.legs[family].usable()
    }
}
