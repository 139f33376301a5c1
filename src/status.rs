//! What the daemon tells of itself: one document, shared by the D-Bus service and the command line.
//!
//! The names of its members are an interface and stay as they are.

mod policy;
mod quota;
mod race;
mod router;
mod traffic;

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::core::health::{Manual, Opinion, Outcome, Report};
use crate::core::net::{Family, PerFamily};
use crate::core::observed::Manager;
use crate::core::plan::Plan;
use crate::core::probe::Probe;
use crate::core::slots::Entry;
use crate::core::uplink::{Leg, State, Uplink};

pub use policy::{PolicyLeg, PolicyStatus};
pub use quota::QuotaStatus;
pub use race::RaceStatus;
pub use router::{ForwardStatus, RouterStatus};
pub use traffic::{DirectionStatus, TrafficStatus};

/// The document behind `uplinkctl status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Every uplink that is present, and those that were seen on interfaces where none is now; by slot.
    pub uplinks: Vec<UplinkStatus>,
    /// How new flows are shared out: `weighted`, `priority`, `overflow`, `least-used` or `lowest-latency`.
    #[serde(default)]
    pub method: String,
    /// The names of the uplinks that new flows use, those that no other policy leads.
    pub active: Active,
    /// What becomes of the traffic of each policy, in their order.
    #[serde(default)]
    pub policies: Vec<PolicyStatus>,
    /// Whether the managers' own default routes are blocked, as `all-down` wants it while no uplink leads out.
    #[serde(default)]
    pub blocked: Families,
    /// Whether the machine forwards packets.
    pub forwarding: Families,
    /// What is done for the hosts behind it.
    #[serde(default)]
    pub router: RouterStatus,
    /// What people should know ahead of everything else: the daemon does not do what its files say.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Names of uplinks, by family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// For IPv4.
    pub ipv4: Vec<String>,
    /// For IPv6.
    pub ipv6: Vec<String>,
}

/// Whether something is so, by family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// Of IPv4.
    pub ipv4: bool,
    /// Of IPv6.
    pub ipv6: bool,
}

impl From<PerFamily<bool>> for Families {
    fn from(PerFamily { v4: ipv4, v6: ipv6 }: PerFamily<bool>) -> Self {
        Families { ipv4, ipv6 }
    }
}

/// One uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// What people call it.
    pub name: String,
    /// The interface.
    pub interface: String,
    /// The manager that has it, `NetworkManager` or `systemd-networkd`; null where none does.
    #[serde(default)]
    pub manager: Option<Manager>,
    /// The manager's profile, where there is one.
    pub profile: Option<ProfileStatus>,
    /// Its slot, 1 to 63.
    pub slot: u8,
    /// Its routing table.
    pub table: u32,
    /// Its mark and mask, as `ip rule` writes them.
    pub mark: String,
    /// Its rank; lower is preferred.
    pub tier: u8,
    /// Its share within the tier.
    pub weight: u16,
    /// Its traffic costs money.
    pub metered: bool,
    /// New flows use it, in one family at least.
    pub active: bool,
    /// Taken out by `uplinkctl drain`.
    #[serde(default)]
    pub drained: bool,
    /// Held `up` or `down` by hand.
    #[serde(default)]
    pub manual: Option<Manual>,
    /// What becomes of running flows when a better uplink takes over: `keep`, `drain` or `force`.
    #[serde(default)]
    pub failback: String,
    /// What goes over its link; null where it is not measured, as where there is only one uplink.
    #[serde(default)]
    pub traffic: Option<TrafficStatus>,
    /// What may go over it, and what has; null where it has no quota.
    #[serde(default)]
    pub quota: Option<QuotaStatus>,
    /// Its IPv4 side.
    pub ipv4: LegStatus,
    /// Its IPv6 side.
    pub ipv6: LegStatus,
}

/// A manager's profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// What people call it; of systemd-networkd the path of the .network file.
    pub id: String,
    /// What identifies it: NetworkManager's UUID, or the name of the .network file, `@` and the interface.
    pub uuid: String,
}

/// One family of an uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegStatus {
    /// `absent`, `configuring`, `up`, `degraded`, `portal`, `down`, `held`, `drained` or `capped`.
    pub state: String,
    /// What that rests on.
    #[serde(default)]
    pub why: String,
    /// Since when, as RFC 3339 has it.
    #[serde(default)]
    pub since: Option<String>,
    /// What probes know of it; null where it is not probed.
    #[serde(default)]
    pub health: Option<HealthStatus>,
    /// New flows of this family use it.
    pub active: bool,
    /// The gateway; `link` where the link has only one other end; null where there is none.
    pub gateway: Option<String>,
    /// Its own addresses with their prefixes.
    pub addresses: Vec<String>,
    /// The best metric of its manager's own default routes.
    pub metric: Option<u32>,
    /// The resolvers that its network announced.
    #[serde(default)]
    pub resolvers: Vec<String>,
    /// Whether these are to be asked: not while others can be, and this leads nowhere or is to carry nothing new.
    #[serde(default)]
    pub resolvers_in_use: bool,
}

/// What probes know of a family of an uplink, each figure beside the limit that it is held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    /// The median round-trip time over the window, in microseconds.
    pub rtt_us: Option<u64>,
    /// Longer ones degrade it.
    pub max_rtt_us: u64,
    /// The mean difference between successive round-trip times, in microseconds.
    pub jitter_us: Option<u64>,
    /// Larger ones degrade it.
    pub max_jitter_us: u64,
    /// Unanswered probes over the window, in percent.
    pub loss_percent: u8,
    /// More degrade it.
    pub max_loss_percent: u8,
    /// How many probes these figures rest on.
    pub samples: u64,
    /// What they are measured over, in seconds.
    pub window_s: u64,
    /// Good rounds in a row, while it is down.
    pub good_rounds: u8,
    /// So many bring it back.
    pub up_after: u8,
    /// So many unanswered volleys take it down.
    pub down_after: u8,
    /// So many targets have to answer.
    pub quorum: u8,
    /// The time between rounds, in milliseconds.
    pub interval_ms: u64,
    /// The longest time that an answer is waited for, in milliseconds.
    pub timeout_ms: u64,
    /// Failures that are not forgiven yet.
    pub failures: u32,
    /// For how long it is held back still, in seconds.
    pub held_for_s: Option<u64>,
    /// Bytes spent on probes since the daemon was started, both ways.
    pub probe_bytes: u64,
    /// Why it is not condemned though no probe is answered.
    pub doubt: Option<String>,
    /// Who is asked.
    pub targets: Vec<TargetStatus>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The probe, as it is configured.
    pub probe: String,
    /// What it last said; null before it was asked.
    pub said: Option<String>,
}

/// What has become of a family of an uplink, or of its quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, as RFC 3339 has it, in UTC.
    pub time: String,
    /// Which uplink.
    pub uplink: String,
    /// Which side of it: `ipv4` or `ipv6`; or its `quota`.
    pub family: String,
    /// The state that it was in; of a quota its level: `within`, `soft` or `hard`.
    pub from: String,
    /// The state that it is in.
    pub to: String,
    /// What that rests on.
    pub why: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} -> {} ({})", self.uplink, self.family, self.from, self.to, self.why)
    }
}

impl HealthStatus {
    /// Tells of a verdict and what it rests on.
    pub fn of(opinion: &Opinion, report: &Report, now: Instant) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let ms = |time: Duration| us(time) / 1000;
        let Report { quality, limits, .. } = report;
        let target = |(probe, said): &(Probe, Option<Outcome>)| TargetStatus {
            probe: probe.to_string(),
            said: said.as_ref().map(ToString::to_string),
        };
        HealthStatus {
            rtt_us: quality.latency.map(us),
            max_rtt_us: us(limits.max_latency),
            jitter_us: quality.jitter.map(us),
            max_jitter_us: us(limits.max_jitter),
            loss_percent: quality.loss,
            max_loss_percent: limits.max_loss,
            samples: quality.samples as u64,
            window_s: limits.measured_over().as_secs(),
            good_rounds: report.good,
            up_after: limits.up_after,
            down_after: limits.down_after,
            quorum: limits.quorum,
            interval_ms: ms(limits.interval),
            timeout_ms: ms(limits.timeout),
            failures: report.strikes,
            held_for_s: opinion.held_until.map(|until| until.saturating_duration_since(now).as_secs()),
            probe_bytes: report.bytes,
            doubt: report.doubt.clone(),
            targets: report.targets.iter().map(target).collect(),
        }
    }
}

impl Status {
    /// The same without the figures that change with every probe and every second.
    pub fn without_figures(mut self) -> Self {
        for uplink in &mut self.uplinks {
            uplink.legs_mut().into_iter().for_each(|(_, leg)| leg.health = None);
            (uplink.traffic, uplink.quota) = (None, None);
        }
        for policy in &mut self.policies {
            policy.legs_mut().into_iter().for_each(|(_, leg)| (leg.races, leg.addresses) = (None, None));
        }
        self
    }

    /// Tells of a plan, as it stands after it was carried out.
    pub fn of(plan: &Plan, forwards: PerFamily<bool>) -> Self {
        let present = plan.uplinks.iter().map(|uplink| UplinkStatus::present(uplink, plan));
        let occupied =
            |e: &&Entry| plan.uplinks.iter().all(|u| u.slot != e.slot && u.dev.name.as_str() != e.interface);
        let absent = plan.slots.entries().iter().filter(occupied).map(UplinkStatus::absent);
        let mut uplinks: Vec<_> = present.chain(absent).collect();
        uplinks.sort_by_key(|u| u.slot);
        let names = |family: Family| {
            let slots = plan.usual(family).iter();
            slots.filter_map(|&slot| plan.name_of(slot)).map(ToString::to_string).collect()
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uplinks,
            method: String::new(),
            active: Active { ipv4: names(Family::V4), ipv6: names(Family::V6) },
            policies: PolicyStatus::all(plan),
            blocked: PerFamily::from_fn(|family| plan.blocks(family)).into(),
            forwarding: forwards.into(),
            router: RouterStatus::of(plan),
            alerts: Vec::new(),
            notes: plan.notes.clone(),
        }
    }

    /// The document as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }

    /// One line for `systemctl status`.
    pub fn summary(&self) -> String {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!("active: ipv4 {}; ipv6 {}", list(&self.active.ipv4), list(&self.active.ipv6))
    }
}

impl UplinkStatus {
    /// Both sides.
    pub fn legs(&self) -> [(Family, &LegStatus); 2] {
        [(Family::V4, &self.ipv4), (Family::V6, &self.ipv6)]
    }

    /// Both sides, to be added to.
    pub fn legs_mut(&mut self) -> [(Family, &mut LegStatus); 2] {
        [(Family::V4, &mut self.ipv4), (Family::V6, &mut self.ipv6)]
    }

    fn present(uplink: &Uplink, plan: &Plan) -> Self {
        let leg = |family| LegStatus {
            active: plan.usual(family).contains(&uplink.slot),
            resolvers_in_use: !plan.idle_resolvers.contains(&(uplink.slot, family)),
            ..LegStatus::of(&uplink.legs[family])
        };
        let (ipv4, ipv6) = (leg(Family::V4), leg(Family::V6));
        UplinkStatus {
            name: uplink.name.to_string(),
            interface: uplink.dev.name.to_string(),
            manager: uplink.manager,
            profile: uplink
                .profile
                .as_ref()
                .map(|p| ProfileStatus { id: p.id.clone(), uuid: p.uuid.clone() }),
            slot: uplink.slot.get(),
            table: uplink.slot.table().0,
            mark: uplink.slot.mark().to_string(),
            tier: uplink.tier.get(),
            weight: uplink.weight.get(),
            metered: uplink.metered,
            active: ipv4.active || ipv6.active,
            drained: plan.slots.is_drained(uplink.slot),
            manual: None,
            failback: uplink.failback.to_string(),
            traffic: None,
            quota: None,
            ipv4,
            ipv6,
        }
    }

    fn absent(entry: &Entry) -> Self {
        let leg = || LegStatus { state: State::Absent.to_string(), ..LegStatus::default() };
        UplinkStatus {
            name: entry.name.to_string(),
            interface: entry.interface.clone(),
            manager: None,
            profile: None,
            slot: entry.slot.get(),
            table: entry.slot.table().0,
            mark: entry.slot.mark().to_string(),
            tier: 1,
            weight: 1,
            metered: false,
            active: false,
            drained: entry.drained,
            manual: None,
            failback: String::new(),
            traffic: None,
            quota: None,
            ipv4: leg(),
            ipv6: leg(),
        }
    }
}

impl LegStatus {
    fn of(leg: &Leg) -> Self {
        LegStatus {
            state: leg.state.to_string(),
            why: leg.why.clone(),
            since: None,
            health: None,
            active: false,
            gateway: leg.gateway.map(|gateway| gateway.to_string()),
            addresses: leg.addresses.iter().map(ToString::to_string).collect(),
            metric: leg.metric.map(|metric| metric.0),
            resolvers: leg.resolvers.iter().map(ToString::to_string).collect(),
            resolvers_in_use: false,
        }
    }
}
