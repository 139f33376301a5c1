//! What the status tells of the machine as a router.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::net::IfName;
use crate::core::plan::Plan;

/// What is done for the hosts behind the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Whether the machine is to be one: `auto`, `true` or `false`.
    pub enable: String,
    /// Whether anything is done for what it forwards.
    pub active: bool,
    /// Whether private IPv4 sources get the address of the uplink.
    pub masquerade: bool,
    /// The interfaces behind which hosts are.
    pub lan: Vec<String>,
    /// Its port forwards, each with the names of the uplinks that have it.
    #[serde(default)]
    pub forwards: Vec<ForwardStatus>,
    /// The interfaces that each LAN may talk to, where not everybody may talk to everybody.
    #[serde(default)]
    pub reaches: BTreeMap<String, Vec<String>>,
    /// What is let in by uplinks, where there is a firewall of ours.
    #[serde(default)]
    pub firewall: Option<Vec<String>>,
}

/// A port forward.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// `tcp`, `udp` or `both`.
    pub protocol: String,
    /// The port of the machine, or a range of them.
    pub port: String,
    /// Where it leads, as it is configured.
    pub to: String,
    /// The uplinks that are present and have it.
    pub uplinks: Vec<String>,
}

impl RouterStatus {
    pub(super) fn of(plan: &Plan) -> Self {
        let (whole, plan) = (plan, &plan.router);
        let mut forwards: Vec<ForwardStatus> = Vec::new();
        for (slot, what) in
            plan.forwards.iter().flat_map(|(slot, all)| all.iter().map(move |what| (slot, what)))
        {
            let name = whole.name_of(*slot).map(ToString::to_string);
            let told = ForwardStatus {
                protocol: what.protocol.as_str().to_owned(),
                port: what.ports.to_string(),
                to: what.to.to_string(),
                uplinks: name.into_iter().collect(),
            };
            let is_same = |f: &&mut ForwardStatus| {
                (&f.protocol, &f.port, &f.to) == (&told.protocol, &told.port, &told.to)
            };
            match forwards.iter_mut().find(is_same) {
                Some(known) => known.uplinks.extend(told.uplinks),
                None => forwards.push(told),
            }
        }
        let mut reaches: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let ruleset = whole.desired.ruleset.as_ref();
        let pairs = ruleset.iter().flat_map(|ruleset| &ruleset.groups.pairs);
        let is_uplink = |name: &IfName| whole.uplinks.iter().any(|uplink| uplink.dev.name == *name);
        for (from, to) in pairs.filter(|(from, to)| !is_uplink(from) && from != to) {
            reaches.entry(from.to_string()).or_default().push(to.to_string());
        }
        RouterStatus {
            enable: plan.enable.as_str().to_owned(),
            active: plan.takes_part,
            masquerade: plan.masquerade,
            lan: plan.lans.iter().map(ToString::to_string).collect(),
            forwards,
            reaches,
            firewall: ruleset
                .and_then(|ruleset| ruleset.firewall.as_ref())
                .map(|firewall| firewall.allow.iter().map(ToString::to_string).collect()),
        }
    }

    /// What a person reads of it, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.active {
            let lan = if self.lan.is_empty() { "none".to_owned() } else { self.lan.join(", ") };
            let sources = if self.masquerade { "masqueraded" } else { "left as they are" };
            lines.push(format!("LAN: {lan}; private IPv4 sources are {sources}"));
            lines.extend(
                self.reaches.iter().map(|(lan, to)| format!("Group: {lan} reaches {}", to.join(", "))),
            );
            lines.extend(self.forwards.iter().map(ForwardStatus::line));
        }
        let open = |allow: &Vec<String>| match allow.is_empty() {
            true => "Firewall: uplinks are closed".to_owned(),
            false => format!("Firewall: uplinks are closed but for {}", allow.join(", ")),
        };
        lines.extend(self.firewall.as_ref().map(open));
        lines
    }
}

impl ForwardStatus {
    fn line(&self) -> String {
        let ForwardStatus { protocol, port, to, uplinks } = self;
        let protocol = if protocol == "both" { "tcp and udp" } else { protocol };
        format!("Forward: {protocol} {port} of {} to {to}", uplinks.join(", "))
    }
}
