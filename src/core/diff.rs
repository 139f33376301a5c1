//! From what is to what should be: the only place that knows the order of changes.
//!
//! Nothing may point at something that is not there yet, and what carries traffic is replaced before the old is
//! taken away: sysctls, nftables, marks of flows, the administrator's own tables, put the uplinks' own routes, add rules, policies, put the balanced defaults,
//! delete rules, delete routes, and move running flows when all that stands; systemd-resolved, which may keep us
//! waiting, is told after all else. Only objects under our ownership are ever
//! seen here, so foreign ones cannot be deleted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::change::Change;
use super::layout::Slot;
use super::net::{Device, Family, Mark};
use super::nft::{FragmentName, FragmentTable, PolicyTable, Ruleset};
use super::observed::Kernel;
use super::policy::running::Claims;
use super::route::Route;
use super::rule::Rule;
use super::sysctl::Sysctl;

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Our rules.
    pub rules: BTreeSet<Rule>,
    /// Our routes; no two with one key.
    pub routes: BTreeSet<Route>,
    /// Our nft table; none where the machine does not forward, and each address tells its uplink.
    pub ruleset: Option<Ruleset>,
    /// Our table of policies; none where there are none.
    pub policies: Option<PolicyTable>,
    /// What tells the flows that run where they must not, while the loaded table does not enforce the same.
    pub claims: Option<Claims>,
    /// The tables of fragments: as they should be, or, where nobody can tell, as they are.
    pub fragments: BTreeMap<FragmentName, Option<FragmentTable>>,
    /// Addresses whose running flows belong to a mark; adopted when the table is loaded.
    pub flows: Vec<(IpAddr, Mark)>,
    /// Settings.
    pub sysctls: BTreeMap<Sysctl, String>,
    /// Links whose resolvers systemd-resolved should not ask.
    pub unasked: BTreeSet<Device>,
    /// Uplinks whose running flows should be on another.
    pub moves: BTreeSet<Move>,
    /// Addresses that uplinks had: what runs over them should end.
    pub vacated: BTreeSet<IpAddr>,
}

/// An uplink whose running flows should be on another, in one family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The family.
    pub family: Family,
    /// Where they are.
    pub slot: Slot,
    /// Whose.
    pub whose: Whose,
    /// Its addresses: this machine's own connections from them have to be made anew.
    pub addresses: Vec<IpAddr>,
    /// The prefixes on all links of this machine: what speaks to those goes on.
    pub connected: Vec<IpNet>,
}

/// Whose flows of an uplink are to be moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those of none of these policies.
    Usual(BTreeSet<String>),
    /// Those of this policy.
    Policy(String),
}

impl Move {
    /// By which it is known whether it was done.
    pub fn key(&self) -> (Slot, Family, Whose) {
        (self.slot, self.family, self.whose.clone())
    }
}

/// The steps from `kernel` to `desired`, in their order; none when they agree.
pub fn diff(desired: &Desired, kernel: &Kernel) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(sysctls(desired, kernel));
    if let Some(ruleset) = &desired.ruleset {
        if !kernel.ruleset.is_some_and(|loaded| loaded.serves(ruleset.generation())) {
            changes.push(Change::LoadRuleset(ruleset.clone()));
            changes.extend(desired.flows.iter().map(|&(ip, mark)| Change::AdoptFlows(ip, mark)));
        }
    }
    changes.extend(fragments(desired, kernel));
    let missing = desired.routes.iter().filter(|r| !kernel.routes.contains(r));
    let (steering, mut reached): (Vec<_>, Vec<_>) = missing.partition(|route| route.steers());
    // A gateway is accepted once the prefix that it lies in is reached.
    reached.sort_by_key(|route| Reverse(route.key.dest.prefix_len()));
    changes.extend(reached.into_iter().cloned().map(Change::PutRoute));
    let there: BTreeSet<_> = kernel.rules.iter().collect();
    changes.extend(desired.rules.iter().filter(|r| !there.contains(r)).cloned().map(Change::AddRule));
    // Only now: what they mark is to find its rules.
    if let Some(table) = &desired.policies {
        let over = kernel.policies.as_ref();
        if !over.is_some_and(|loaded| loaded.generation.serves(table.generation())) {
            changes.push(Change::LoadPolicies(table.clone(), over.cloned()));
            changes.extend(desired.claims.iter().cloned().map(Change::ClaimFlows));
        }
    } else if kernel.policies.is_some() {
        changes.push(Change::DropPolicies);
    }
    // Only now: a pinned flow that met the new default ahead of its own rule would move.
    changes.extend(steering.into_iter().cloned().map(Change::PutRoute));
    changes.extend(surplus_rules(desired, kernel).into_iter().cloned().map(Change::DelRule));
    let kept: BTreeSet<_> = desired.routes.iter().map(|r| &r.key).collect();
    changes.extend(kernel.routes.iter().filter(|r| !kept.contains(&r.key)).cloned().map(Change::DelRoute));
    if desired.ruleset.is_none() && kernel.ruleset.is_some() {
        changes.push(Change::DropRuleset);
    }
    let unwanted = kernel.fragments.keys().filter(|name| !desired.fragments.contains_key(name));
    changes.extend(unwanted.cloned().map(Change::DropFragment));
    // Last, when the way that they are to take stands.
    let undone = desired.moves.iter().filter(|m| !kernel.moved.contains(&m.key()));
    changes.extend(undone.cloned().map(Change::MoveFlows));
    changes.extend(desired.vacated.difference(&kernel.vacated).copied().map(Change::EndFlows));
    changes.extend(asked(desired, kernel));
    changes
}

/// The tables of fragments that are to be loaded. What nft has refused it is not shown again and again.
fn fragments<'a>(desired: &'a Desired, kernel: &'a Kernel) -> impl Iterator<Item = Change> + 'a {
    desired.fragments.values().flatten().filter_map(|table| {
        let wanted = table.generation();
        let loaded = kernel.fragments.get(table.name());
        let is_refused = kernel.refused.get(table.name()).is_some_and(|(tried, _)| *tried == wanted);
        let stands = loaded.is_some_and(|loaded| loaded.serves(wanted));
        (!stands && !is_refused).then(|| Change::LoadFragment(table.clone(), loaded.is_some()))
    })
}

/// Which links systemd-resolved should ask again, and only then which it should not.
fn asked(desired: &Desired, kernel: &Kernel) -> Vec<Change> {
    let (now, not_now): (Vec<_>, Vec<_>) = kernel.asked.iter().partition(|(_, asked)| **asked);
    let ours = |dev: &Device| kernel.unasked.contains(&dev.index) && !desired.unasked.contains(dev);
    let back = not_now.into_iter().filter(|(dev, _)| ours(dev));
    let out = now.into_iter().filter(|(dev, _)| desired.unasked.contains(dev));
    back.chain(out).map(|(dev, asked)| Change::AskResolvers(dev.clone(), !asked)).collect()
}

/// What is to be written, and what is to be put back because it is not wanted any more.
///
/// A setting that could not be read does not exist on this kernel, or its interface has gone.
fn sysctls<'a>(desired: &'a Desired, kernel: &'a Kernel) -> impl Iterator<Item = Change> + 'a {
    let back = kernel.originals.iter().filter(|(key, _)| !desired.sysctls.contains_key(key));
    desired
        .sysctls
        .iter()
        .chain(back)
        .filter(|(key, value)| kernel.sysctls.get(key).is_some_and(|now| now != *value))
        .map(|(key, value)| Change::SetSysctl(key.clone(), value.clone()))
}

/// Rules that are not wanted, and second copies of those that are: the kernel can hold one rule twice.
///
/// The last one asked goes first, because those ahead of it keep from it what is not for it.
fn surplus_rules<'a>(desired: &'a Desired, kernel: &'a Kernel) -> Vec<&'a Rule> {
    let mut seen = BTreeSet::new();
    let rules = kernel.rules.iter();
    let mut surplus: Vec<&Rule> =
        rules.filter(|rule| !desired.rules.contains(rule) || !seen.insert(*rule)).collect();
    surplus.sort_by_key(|rule| Reverse(rule.pref));
    surplus
}
