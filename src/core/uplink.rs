//! An uplink: an interface with a way out, and what is known and decided about it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use super::balance::{Directions, Rate};
use super::extra::ExtraRoute;
use super::health::{Connectivity, Thresholds};
use super::layout::Slot;
use super::nat6::Nat6;
use super::net::{Device, Family, MacAddr, Metric, PerFamily, Tier, UplinkName, Weight};
#[cfg(test)]
use super::net::{IfIndex, IfName};
use super::observed::{Manager, Profile};
use super::probe::Probe;
use super::quota::Allowance;

/// A present uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// What people call it.
    pub name: UplinkName,
    /// Its number: mark, table and rules follow from it.
    pub slot: Slot,
    /// The interface.
    pub dev: Device,
    /// The manager that speaks for it.
    pub manager: Option<Manager>,
    /// The interface is up and has a carrier.
    pub carrier: bool,
    /// The longest packet that it carries, in bytes.
    pub mtu: u32,
    /// The manager's profile on it.
    pub profile: Option<Profile>,
    /// Its rank.
    pub tier: Tier,
    /// Its share within the tier.
    pub weight: Weight,
    /// Its traffic costs money.
    pub metered: bool,
    /// What its line carries, where that is configured.
    pub capacity: Directions<Option<Rate>>,
    /// What may go over it in a month, where that is configured, and how it stands with it.
    pub allowance: Option<Allowance>,
    /// Little is left of that: it stands behind all that have enough, whatever its tier.
    pub spared: bool,
    /// Whom to ask whether it leads out: those that were configured, else the usual ones.
    pub probes: Option<Vec<Probe>>,
    /// By what its health is judged.
    pub limits: Thresholds,
    /// What becomes of its running flows when new ones go elsewhere.
    pub failback: Failback,
    /// What becomes of IPv6 sources that leave by it and are not its own.
    pub nat6: Nat6,
    /// The IPv6 prefixes that are delegated by it: its own, beside those on its link.
    pub prefixes: Vec<Ipv6Net>,
    /// What is configured to lie behind it.
    pub routes: Vec<ExtraRoute>,
    /// Its state in each family.
    pub legs: PerFamily<Leg>,
}

/// How gladly an uplink is given new flows: the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// How well it does: one that does worse is used where no other is left, whatever else holds.
    pub preference: u8,
    /// It stands behind all that need not be spared.
    pub spared: bool,
    /// Its place among those that are as well.
    pub tier: Tier,
}

/// What becomes of running flows on an uplink that lives on while a better one takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// They stay until they end.
    Keep,
    /// They have so much time to end; then they are moved.
    Drain(Duration),
    /// They are moved at once.
    Force,
}

impl fmt::Display for Failback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failback::Keep => f.write_str("keep"),
            Failback::Drain(time) => write!(f, "drain {} s", time.as_secs()),
            Failback::Force => f.write_str("force"),
        }
    }
}

/// An uplink in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leg {
    /// Where it stands.
    pub state: State,
    /// What that rests on.
    pub why: String,
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
    /// Its link would carry it: configured, up and with a carrier. Probes can go out.
    pub link: bool,
    /// What its network offers to resolve names with.
    pub resolvers: Vec<IpAddr>,
    /// What its manager's own check says.
    pub connectivity: Option<Connectivity>,
    /// The interface is administratively up: the kernel refuses routes over one that is not, and flushes them.
    pub takes_routes: bool,
}

impl Leg {
    /// Has a gateway and an address: its table can stand, whether or not there is a carrier.
    pub fn configured(&self) -> bool {
        self.gateway.is_some() && !self.addresses.is_empty()
    }

    /// Whether it can be given new flows, and how gladly: the lowest first.
    pub fn preference(&self) -> Option<u8> {
        match self.state {
            State::Up => Some(0),
            State::Degraded => Some(1),
            State::Held => Some(2),
            _ => None,
        }
    }

    /// Whether packets get through, or at least to whoever asks for a sign-in; or nothing else is known yet.
    pub fn reachable(&self) -> bool {
        let unproven = self.link && self.state == State::Configuring;
        unproven || self.preference().is_some() || matches!(self.state, State::Portal | State::Drained)
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
    /// The manager is at work on it, or its first probes are on their way.
    Configuring,
    /// It can carry traffic.
    Up,
    /// It carries traffic badly: used where nothing better is left.
    Degraded,
    /// A captive portal wants a sign-in: reached, and not used for anything else.
    Portal,
    /// No carrier, administratively down, or it leads nowhere.
    Down,
    /// Back after it failed too often, and not trusted yet: used where nothing better is left.
    Held,
    /// Taken out by hand: running flows stay, new ones go elsewhere.
    Drained,
    /// Its quota is used up: running flows and new ones go elsewhere until it is renewed.
    Capped,
}

impl State {
    /// The word that the status shows.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Configuring => "configuring",
            State::Up => "up",
            State::Degraded => "degraded",
            State::Portal => "portal",
            State::Down => "down",
            State::Held => "held",
            State::Drained => "drained",
            State::Capped => "capped",
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
    /// How gladly a family of it is given new flows: the lowest first; none where it cannot be.
    pub fn rank(&self, family: Family) -> Option<Rank> {
        let Uplink { spared, tier, .. } = *self;
        Some(Rank { preference: self.legs[family].preference()?, spared, tier })
    }

    /// It has addresses, and no way out by any: what was an uplink may serve a LAN now. What its manager is still at work
    /// on may yet lead out.
    pub fn leads_nowhere(&self) -> bool {
        let legs = [&self.legs.v4, &self.legs.v6];
        let addressed = legs.iter().any(|leg| !leg.addresses.is_empty());
        addressed && !legs.iter().any(|leg| leg.configured() || leg.state == State::Configuring)
    }
}

#[cfg(test)]
impl Uplink {
    /// A plain one of IPv4 alone, for tests.
    pub(crate) fn example(slot: u8, leg: Leg) -> Self {
        Uplink {
            name: format!("wan{slot}").try_into().expect("a name"),
            slot: Slot::new(slot).expect("a slot"),
            dev: Device { index: IfIndex(2), name: IfName::new("eth1").expect("a name") },
            manager: None,
            carrier: leg.link,
            mtu: 1500,
            profile: None,
            tier: Tier::new(1).expect("a tier"),
            weight: Weight::default(),
            metered: false,
            capacity: Directions::default(),
            allowance: None,
            spared: false,
            probes: None,
            limits: Thresholds::default(),
            failback: Failback::Keep,
            nat6: Default::default(),
            prefixes: Vec::new(),
            routes: Vec::new(),
            legs: PerFamily { v4: leg, v6: Leg::default() },
        }
    }
}
