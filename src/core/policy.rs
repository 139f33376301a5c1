//! Which traffic takes which uplinks, whatever the default route says: policies, in order, the first that matches wins.
//!
//! A policy is a value from the configuration. What it looks for is a [`Traffic`]; which criteria that has, and how the first
//! match is found for many policies at the cost of a few, is told in [`ranges`] and in the text of our table. Who of its
//! uplinks carries what is new, is decided in [`plan`](super::plan).
//!
//! Refuses to know how it was written, and how packets are looked at.

pub mod domain;
pub mod hours;
pub mod label;
pub mod prefixes;
pub mod ranges;
pub mod running;
pub mod unit;

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

pub use self::domain::{Domain, Names};
pub use self::hours::{Hours, Moment};
pub use self::label::Label;
pub use self::prefixes::Prefixes;
pub use self::unit::{Cgroup, Unit};
use super::balance::{Method, Pool};
use super::net::{Family, MacAddr, UplinkName};
use super::uplink::Failback;
use crate::config::Pattern;

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What people call it; where they do not, by its place.
    pub name: String,
    /// Where it stands in the configuration, for notes.
    pub origin: String,
    /// Which traffic it is for.
    pub traffic: Traffic,
    /// How one of its uplinks is chosen.
    pub way: Way,
    /// The uplinks that it may use, in their order; none said: all.
    pub uplinks: Vec<UplinkName>,
    /// What becomes of its traffic while none of them can carry it.
    pub on_failure: OnFailure,
    /// What becomes of its running flows on an uplink that lives on while a better one is there; none said: what that
    /// uplink says.
    pub failback: Option<Failback>,
    /// What of its lists was left out, in words for the status.
    pub notes: Vec<String>,
}

/// How a policy chooses among its uplinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the default route may: in the order of the list, where one is asked for.
    By(Method),
    /// This one alone, whether it is usable or not.
    Enforced,
    /// By weight, but the same client stays where it is.
    Persistence(Stick),
    /// By weight on first contact with a destination, and then the one by which that answers first.
    Fastest,
}

/// What stays together, and for how long after it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stick {
    /// Who is the same.
    pub to: Same,
    /// So long after its last new connection it is forgotten.
    pub idle: Duration,
}

impl Default for Stick {
    fn default() -> Self {
        Stick { to: Same::Client, idle: Duration::from_secs(600) }
    }
}

/// What counts as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Same {
    /// A source address.
    #[default]
    Client,
    /// A source address that speaks to a destination address.
    ClientAndDestination,
}

impl Default for Way {
    fn default() -> Self {
        Way::By(Method::default())
    }
}

impl Way {
    /// The words for [`Way::named`], for error messages.
    pub const ALLOWED: &str =
        "weighted, priority, overflow, least-used, lowest-latency, enforced, persistence or fastest";

    /// The way of a word.
    pub fn named(word: &str) -> Option<Self> {
        let own = [Way::Enforced, Way::Persistence(Stick::default()), Way::Fastest];
        Method::ALL.map(Way::By).into_iter().chain(own).find(|way| way.as_str() == word)
    }

    /// What shares out new flows among those that it leaves to choose from.
    pub fn method(self) -> Method {
        match self {
            Way::By(method) => method,
            Way::Enforced | Way::Persistence(_) | Way::Fastest => Method::Weighted,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::By(method) => method.as_str(),
            Way::Enforced => "enforced",
            Way::Persistence(_) => "persistence",
            Way::Fastest => "fastest",
        }
    }
}

/// What becomes of a policy's traffic while none of its uplinks can carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It is looked at as if the policy were not there: a later one may be for it.
    Next,
    /// It is refused.
    Block,
    /// It goes by the default route.
    #[default]
    Default,
}

impl OnFailure {
    /// The words for [`OnFailure::named`], for error messages.
    pub const ALLOWED: &str = "next, block or default";

    /// What a word means.
    pub fn named(word: &str) -> Option<Self> {
        [OnFailure::Next, OnFailure::Block, OnFailure::Default].into_iter().find(|one| one.as_str() == word)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            OnFailure::Next => "next",
            OnFailure::Block => "block",
            OnFailure::Default => "default",
        }
    }
}

/// Which traffic is meant: all the criteria that are given hold. One that is empty is not asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Source addresses.
    pub from: Vec<IpNet>,
    /// Destination addresses.
    pub to: Vec<IpNet>,
    /// What the destination was called by whoever asked for it.
    pub domain: Vec<Domain>,
    /// The interface that it comes in by.
    pub interface: Vec<Pattern>,
    /// IP protocols, by number.
    pub protocol: Vec<u8>,
    /// Destination ports, from and to, of those protocols that have any.
    pub ports: Vec<(u16, u16)>,
    /// Differentiated services code points (RFC 2474).
    pub dscp: Vec<u8>,
    /// Hardware addresses of senders on a link.
    pub mac: Vec<MacAddr>,
    /// Users of this machine whose programs send it, from and to.
    pub user: Vec<(u32, u32)>,
    /// Groups of those programs.
    pub group: Vec<(u32, u32)>,
    /// Units of systemd whose programs send it.
    pub unit: Vec<Unit>,
    /// Slices in which those programs are.
    pub slice: Vec<Unit>,
    /// When it is sent; packets are not asked for that, the whole policy is in force or not.
    pub time: Vec<Hours>,
}

impl Policy {
    /// Among whom it has one chosen, and how. What another way makes of these begins with all that can be used.
    pub fn pool(&self) -> Pool {
        Pool { method: self.way.method(), among: self.uplinks.clone() }
    }
}

/// The protocols with ports in the usual place: TCP, UDP, DCCP, SCTP, UDP-Lite.
pub const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

impl Traffic {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Traffic::default()
    }

    /// Only what comes in by some interface can match.
    pub fn is_behind(&self) -> bool {
        !self.interface.is_empty() || !self.mac.is_empty()
    }

    /// Only what programs of this machine send can match.
    pub fn is_own(&self) -> bool {
        !self.user.is_empty() || !self.group.is_empty() || self.units().next().is_some()
    }

    /// The units and slices that it speaks of.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        self.unit.iter().chain(&self.slice)
    }

    /// Whether this is the time for it.
    pub fn is_in_time(&self, now: Moment) -> bool {
        self.time.is_empty() || self.time.iter().any(|hours| hours.has(now))
    }

    /// Whether packets of a family can match.
    pub fn can_be(&self, family: Family) -> bool {
        let has = |nets: &[IpNet]| nets.is_empty() || nets.iter().any(|net| Family::of(net.addr()) == family);
        has(&self.from) && has(&self.to)
    }

    /// Why nothing could ever match; none where something could.
    pub fn contradiction(&self) -> Option<String> {
        if self.is_behind() && self.is_own() {
            return Some(
                "user, group, unit and slice are for this machine's own programs, interface and mac for what comes \
                 in; nothing is both"
                    .into(),
            );
        }
        if !Family::BOTH.into_iter().any(|family| self.can_be(family)) {
            return Some("from and to have no family in common".into());
        }
        let portless = !self.protocol.is_empty() && !self.protocol.iter().any(|p| WITH_PORTS.contains(p));
        (portless && !self.ports.is_empty()).then(|| "ports: the protocol has none".into())
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
impl Policy {
    /// One that sends such traffic to all uplinks, for tests.
    pub(crate) fn example(traffic: Traffic) -> Self {
        Policy {
            name: "example".into(),
            origin: "uplinkd.toml:1".into(),
            traffic,
            way: Way::default(),
            uplinks: Vec::new(),
            on_failure: OnFailure::Default,
            failback: None,
            notes: Vec::new(),
        }
    }
}
