//! What the daemon tells of itself: one document, shared by the D-Bus service and the command line.
//!
//! The names of its members are an interface and stay as they are.

use serde::{Deserialize, Serialize};

use crate::core::net::{Family, PerFamily};
use crate::core::plan::Plan;
use crate::core::slots::Entry;
use crate::core::uplink::{Leg, State, Uplink};

/// The document behind `uplinkctl status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Every uplink that is present, and those that were seen on interfaces where none is now; by slot.
    pub uplinks: Vec<UplinkStatus>,
    /// The names of the uplinks that new flows use.
    pub active: Active,
    /// Whether the machine forwards packets.
    pub forwarding: Forwarding,
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

/// Whether packets are forwarded, by family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

/// One uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// What people call it.
    pub name: String,
    /// The interface.
    pub interface: String,
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
    /// Its IPv4 side.
    pub ipv4: LegStatus,
    /// Its IPv6 side.
    pub ipv6: LegStatus,
}

/// A manager's profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// What people call it.
    pub id: String,
    /// What identifies it.
    pub uuid: String,
}

/// One family of an uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegStatus {
    /// `absent`, `configuring`, `up` or `down`.
    pub state: String,
    /// New flows of this family use it.
    pub active: bool,
    /// The gateway; `link` where the link has only one other end; null where there is none.
    pub gateway: Option<String>,
    /// Its own addresses with their prefixes.
    pub addresses: Vec<String>,
    /// The best metric of its manager's own default routes.
    pub metric: Option<u32>,
}

impl Status {
    /// Tells of a plan, as it stands after it was carried out.
    pub fn of(plan: &Plan, forwards: PerFamily<bool>) -> Self {
        let present = plan.uplinks.iter().map(|uplink| UplinkStatus::present(uplink, plan));
        let occupied =
            |e: &&Entry| plan.uplinks.iter().all(|u| u.slot != e.slot && u.dev.name.as_str() != e.interface);
        let absent = plan.slots.entries().iter().filter(occupied).map(UplinkStatus::absent);
        let mut uplinks: Vec<_> = present.chain(absent).collect();
        uplinks.sort_by_key(|u| u.slot);
        let names = |family: Family| {
            let slots = plan.active[family].iter();
            slots.filter_map(|&slot| plan.name_of(slot)).map(ToString::to_string).collect()
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uplinks,
            active: Active { ipv4: names(Family::V4), ipv6: names(Family::V6) },
            forwarding: Forwarding { ipv4: forwards.v4, ipv6: forwards.v6 },
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
    fn present(uplink: &Uplink, plan: &Plan) -> Self {
        let leg = |family| LegStatus::of(&uplink.legs[family], plan.active[family].contains(&uplink.slot));
        let (ipv4, ipv6) = (leg(Family::V4), leg(Family::V6));
        UplinkStatus {
            name: uplink.name.to_string(),
            interface: uplink.dev.name.to_string(),
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
            ipv4,
            ipv6,
        }
    }

    fn absent(entry: &Entry) -> Self {
        let leg = || LegStatus { state: State::Absent.to_string(), ..LegStatus::default() };
        UplinkStatus {
            name: entry.name.to_string(),
            interface: entry.interface.clone(),
            profile: None,
            slot: entry.slot.get(),
            table: entry.slot.table().0,
            mark: entry.slot.mark().to_string(),
            tier: 1,
            weight: 1,
            metered: false,
            active: false,
            ipv4: leg(),
            ipv6: leg(),
        }
    }
}

impl LegStatus {
    fn of(leg: &Leg, active: bool) -> Self {
        LegStatus {
            state: leg.state.to_string(),
            active,
            gateway: leg.gateway.map(|gateway| gateway.to_string()),
            addresses: leg.addresses.iter().map(ToString::to_string).collect(),
            metric: leg.metric.map(|metric| metric.0),
        }
    }
}
