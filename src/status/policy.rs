//! What the status tells of policies.

use serde::{Deserialize, Serialize};

use super::RaceStatus;
use crate::core::net::Family;
use crate::core::nft::Verdict;
use crate::core::plan::{Plan, PolicyPlan};

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// What people call it.
    pub name: String,
    /// Where it is configured: file and line.
    pub origin: String,
    /// How it chooses, by the word of its configuration.
    pub method: String,
    /// What becomes of its traffic while none of its uplinks can carry it: `next`, `block` or `default`.
    pub on_failure: String,
    /// The units and slices that it waits for, as no program of theirs runs.
    #[serde(default)]
    pub waits_for: Vec<String>,
    /// What becomes of its IPv4 traffic now.
    pub ipv4: PolicyLeg,
    /// What becomes of its IPv6 traffic now.
    pub ipv6: PolicyLeg,
}

/// What becomes of a policy's traffic of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLeg {
    /// `used`; or, while no uplink of it can carry it, and where it cannot be of this family, `next`, `blocked` or `default`;
    /// `off` while it is not its time; `waits` while there is no unit for which it is; or `unloaded` where the kernel has not
    /// taken the table, so that nothing is moved or held by it.
    pub state: String,
    /// The uplinks that new flows take.
    pub uplinks: Vec<String>,
    /// Where it is for names: how many addresses of theirs are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<usize>,
    /// With `fastest`: what became of its races.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub races: Option<RaceStatus>,
}

impl PolicyStatus {
    /// Both sides.
    pub fn legs(&self) -> [(Family, &PolicyLeg); 2] {
        [(Family::V4, &self.ipv4), (Family::V6, &self.ipv6)]
    }

    /// Both sides, to be added to.
    pub fn legs_mut(&mut self) -> [(Family, &mut PolicyLeg); 2] {
        [(Family::V4, &mut self.ipv4), (Family::V6, &mut self.ipv6)]
    }

    /// All of a plan's, in their order.
    pub fn all(plan: &Plan) -> Vec<Self> {
        plan.policies.iter().map(|policy| PolicyStatus::of(policy, plan)).collect()
    }

    /// Shows what is planned as not in force.
    pub fn unload(&mut self) {
        for (_, leg) in self.legs_mut() {
            *leg =
                PolicyLeg { state: "unloaded".to_owned(), uplinks: Vec::new(), addresses: None, races: None };
        }
    }

    fn of(policy: &PolicyPlan, plan: &Plan) -> Self {
        let leg = |family: Family| {
            let state = match &policy.verdict[family] {
                Verdict::Skip if !policy.in_time => "off",
                Verdict::Skip if policy.waits => "waits",
                Verdict::Skip => "next",
                Verdict::Pass => "default",
                Verdict::Refuse => "blocked",
                Verdict::Take(_) => "used",
            };
            let shares = match &policy.verdict[family] {
                Verdict::Take(shares) => shares.as_slice(),
                _ => &[],
            };
            let names = shares.iter().filter_map(|(slot, _)| plan.name_of(*slot));
            let uplinks = names.map(ToString::to_string).collect();
            PolicyLeg { state: state.to_owned(), uplinks, addresses: None, races: None }
        };
        PolicyStatus {
            name: policy.name.clone(),
            origin: policy.origin.clone(),
            method: policy.way.to_string(),
            on_failure: policy.on_failure.to_string(),
            waits_for: policy.waits_for.clone(),
            ipv4: leg(Family::V4),
            ipv6: leg(Family::V6),
        }
    }
}

impl PolicyLeg {
    /// In a few words.
    pub fn said(&self) -> String {
        let state = match self.state.as_str() {
            "used" => self.uplinks.join(", "),
            "next" => "next policy".to_owned(),
            "off" => "not now".to_owned(),
            "unloaded" => "not in force".to_owned(),
            "waits" => "no such unit yet".to_owned(),
            "default" => "default route".to_owned(),
            other => other.to_owned(),
        };
        match self.addresses {
            Some(1) => format!("{state} (1 address)"),
            Some(known) => format!("{state} ({known} addresses)"),
            None => state,
        }
    }
}
