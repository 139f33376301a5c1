//! What the policies make of the uplinks at this moment: who carries the traffic of each.
//!
//! Refuses to know how packets are matched; that is our table's text.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::family::near;
use super::{Desired, Observed};
use crate::config::{Config, Enable};
use crate::core::balance::{Choices, Pick, Pool};
use crate::core::layout::{Base, MAIN_PREF, Slot};
use crate::core::net::{Family, IfName, PerFamily, TableId, UplinkName};
use crate::core::nft::{Groups, PolicyTable, Standing, Surroundings, Verdict};
use crate::core::observed::{Address, ForeignRule};
use crate::core::policy::running::{Claim, Claims};
use crate::core::policy::{Cgroup, Domain, Moment, OnFailure, Policy, Traffic, Unit, Way};
use crate::core::rule::{Rule, Selector};
use crate::core::scope::{ON_LINK_4, ON_LINK_6};
use crate::core::slots::Slots;
use crate::core::uplink::{Failback, Uplink};

/// What is chosen for whom.
pub type Picks = BTreeMap<Pool, PerFamily<Pick>>;

/// A policy as it stands: what the status shows, and what is decided by who carries what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPlan {
    /// What people call it.
    pub name: String,
    /// Where it is configured.
    pub origin: String,
    /// It is for all that is left to it.
    pub for_all: bool,
    /// How it chooses.
    pub way: Way,
    /// What becomes of its traffic while none of its uplinks can carry it.
    pub on_failure: OnFailure,
    /// Whether this is its time.
    pub in_time: bool,
    /// The names that it is for.
    pub domains: Vec<Domain>,
    /// The units and slices that it waits for: none of their programs run.
    pub waits_for: Vec<String>,
    /// It is for units of which there is none.
    pub waits: bool,
    /// What becomes of its running flows on an uplink that lives on while a better one of its own is there.
    pub failback: Option<Failback>,
    /// What becomes of it now.
    pub verdict: PerFamily<Verdict>,
    /// Which uplinks carry what is new of it, those of the default route where it goes by that.
    pub picks: PerFamily<Pick>,
}

/// Plans them all.
pub(super) fn policies(
    config: &Config,
    observed: &Observed,
    uplinks: &[Uplink],
    picks: &Picks,
    slots: &Slots,
    groups: &Groups,
    desired: &mut Desired,
) -> Vec<PolicyPlan> {
    if config.policies.is_empty() {
        return Vec::new();
    }
    let standing: Vec<_> =
        config.policies.iter().map(|policy| stand(policy, observed, uplinks, picks, slots)).collect();
    let around = surroundings(config, observed, uplinks, groups);
    let table = PolicyTable::new(&around, &standing, &config.prefixes);
    let begins = table.begins_to_enforce(observed.kernel.policies.as_ref());
    desired.claims = begins.then(|| claims(&standing, observed, uplinks));
    desired.policies = Some(table);
    let usual = picks.get(&Pool::of_all(config.balance.method())).cloned().unwrap_or_default();
    standing.into_iter().map(|one| planned(one, observed, picks, &usual)).collect()
}

/// A policy, and what becomes of its traffic now.
fn stand<'a>(
    policy: &'a Policy,
    observed: &Observed,
    uplinks: &[Uplink],
    picks: &Picks,
    slots: &Slots,
) -> Standing<'a> {
    let is_in_force = policy.traffic.is_in_time(observed.moment) && !waits(&policy.traffic, observed);
    let picks = picks.get(&policy.pool()).cloned().unwrap_or_default();
    Standing {
        policy,
        interfaces: interfaces(policy, observed),
        only: only(policy, slots),
        cgroups: cgroups(&policy.traffic, observed),
        verdict: PerFamily::from_fn(|f| match is_in_force {
            true => verdict(policy, uplinks, &picks[f].active, f),
            false => Verdict::Skip,
        }),
    }
}

/// What all policies share.
fn surroundings(config: &Config, observed: &Observed, uplinks: &[Uplink], groups: &Groups) -> Surroundings {
    Surroundings {
        forwarded: config.router.enable != Enable::Off,
        uplinks: uplinks.iter().map(|u| (u.dev.name.clone(), u.slot)).collect(),
        denied: uplinks
            .iter()
            .map(|u| (u.slot, groups.denied(&u.dev.name)))
            .filter(|(_, lans)| !lans.is_empty())
            .collect(),
        ruled: ruled(observed).map(|(rule, name)| (rule.family, name)).collect(),
        near: stays(observed),
    }
}

/// A policy as it was planned; `usual` is what the default route goes by.
fn planned(one: Standing, observed: &Observed, picks: &Picks, usual: &PerFamily<Pick>) -> PolicyPlan {
    let Policy { traffic, name, origin, way, on_failure, failback, .. } = one.policy;
    let away = traffic.units().filter(|unit| !is_there(unit, observed));
    let own = picks.get(&one.policy.pool());
    PolicyPlan {
        name: name.clone(),
        origin: origin.clone(),
        for_all: traffic.is_empty(),
        way: *way,
        on_failure: *on_failure,
        in_time: traffic.is_in_time(observed.moment),
        domains: traffic.domain.clone(),
        waits_for: away.map(Unit::to_string).collect(),
        waits: waits(traffic, observed),
        failback: *failback,
        picks: PerFamily::from_fn(|family| match one.verdict[family] {
            Verdict::Take(_) => own.map(|picks| picks[family].clone()).unwrap_or_default(),
            Verdict::Pass => usual[family].clone(),
            Verdict::Skip | Verdict::Refuse => Pick::default(),
        }),
        verdict: one.verdict,
    }
}

/// What tells the flows that run where they must not from now on.
fn claims(standing: &[Standing], observed: &Observed, uplinks: &[Uplink]) -> Claims {
    let is_behind = |a: &&Address| uplinks.iter().all(|uplink| uplink.dev.index != a.dev);
    let behind = observed.addresses.iter().filter(is_behind);
    let claim = |one: &Standing| Claim {
        traffic: one.policy.traffic.clone(),
        in_force: PerFamily::from_fn(|f| one.verdict[f] != Verdict::Skip && one.policy.traffic.can_be(f)),
        enforces: (one.policy.way == Way::Enforced).then_some(one.only),
    };
    Claims {
        policies: standing.iter().map(claim).collect(),
        own: observed.addresses.iter().map(|address| address.ip).collect(),
        behind: behind.filter_map(|a| IpNet::new(a.ip, a.prefix_len).ok()).collect(),
    }
}

/// After what time at the earliest the clock alone changes what is planned.
pub(super) fn changes_after(config: &Config, now: Moment) -> Option<Duration> {
    let hours = config.policies.iter().flat_map(|policy| &policy.traffic.time);
    hours.map(|hours| hours.changes_after(now)).min()
}

/// What becomes of a policy's traffic of one family.
fn verdict(policy: &Policy, uplinks: &[Uplink], active: &[Slot], family: Family) -> Verdict {
    if !policy.traffic.can_be(family) {
        return Verdict::Skip;
    }
    let weight = |slot: &Slot| uplinks.iter().find(|uplink| uplink.slot == *slot).map(|u| u.weight.get());
    match (active, policy.on_failure) {
        ([], OnFailure::Next) => Verdict::Skip,
        ([], OnFailure::Block) => Verdict::Refuse,
        ([], OnFailure::Default) => Verdict::Pass,
        (chosen, _) => Verdict::Take(chosen.iter().filter_map(|slot| Some((*slot, weight(slot)?))).collect()),
    }
}

/// What is chosen now for the default route and for each policy.
pub(super) fn picks(config: &Config, uplinks: &[Uplink], choices: &Choices) -> Picks {
    let pools: BTreeSet<Pool> = config.policies.iter().map(Policy::pool).collect();
    let pick = |pool: Pool| {
        let choice = choices.of(&pool);
        let picks = PerFamily::from_fn(|family| pool.pick(uplinks, family, &choice[family]));
        (pool, picks)
    };
    pools.into_iter().chain([Pool::of_all(config.balance.method())]).map(pick).collect()
}

/// The interfaces that a policy speaks of, of those that there are.
fn interfaces(policy: &Policy, observed: &Observed) -> Vec<IfName> {
    let meant = |name| policy.traffic.interface.iter().any(|pattern| pattern.matches(name));
    observed.links.iter().map(|link| &link.name).filter(|name| meant(name)).cloned().collect()
}

/// The rules of others that decide over what comes in by an interface, ahead of main: where those lead, a lookup of the
/// destination does not tell.
fn ruled(observed: &Observed) -> impl Iterator<Item = (&ForeignRule, IfName)> {
    let decides = |rule: &&ForeignRule| rule.pref < MAIN_PREF && rule.table != Some(TableId::MAIN);
    let of = |rule: &ForeignRule| rule.iif.clone().filter(|name| name.as_str() != "lo");
    observed.foreign_rules.iter().filter(decides).filter_map(move |rule| Some((rule, of(rule)?)))
}

/// The control groups of the units that a policy speaks of.
fn cgroups(traffic: &Traffic, observed: &Observed) -> Vec<Cgroup> {
    let meant = |group: &&Cgroup| traffic.units().any(|unit| unit.is(&group.path));
    observed.cgroups.iter().filter(meant).cloned().collect()
}

/// Whether programs of a unit run.
fn is_there(unit: &Unit, observed: &Observed) -> bool {
    observed.cgroups.iter().any(|group| unit.is(&group.path))
}

/// Whether nothing can match as long as none of its units, or none of its slices, is there.
fn waits(traffic: &Traffic, observed: &Observed) -> bool {
    let none = |units: &[Unit]| !units.is_empty() && !units.iter().any(|unit| is_there(unit, observed));
    none(&traffic.unit) || none(&traffic.slice)
}

/// The prefixes to which nothing is moved: those on the links, and those that never leave one.
fn stays(observed: &Observed) -> Vec<IpNet> {
    let (mut four, mut six) = (ON_LINK_4.to_vec(), ON_LINK_6.to_vec());
    for net in Family::BOTH.into_iter().flat_map(|family| near(observed, family)) {
        match net {
            IpNet::V4(net) => four.push(net),
            IpNet::V6(net) => six.push(net),
        }
    }
    let (four, six) = (Ipv4Net::aggregate(&four), Ipv6Net::aggregate(&six));
    four.into_iter().map(IpNet::V4).chain(six.into_iter().map(IpNet::V6)).collect()
}

/// The uplink that a policy enforces, also while that is away.
fn only(policy: &Policy, slots: &Slots) -> Option<Slot> {
    let name = policy.uplinks.first().filter(|_| policy.way == Way::Enforced);
    name.and_then(|name| slots.named(name)).map(|entry| entry.slot)
}

/// The uplinks that policies enforce, by slot.
pub(super) fn enforced(config: &Config, slots: &Slots) -> BTreeSet<Slot> {
    config.policies.iter().filter_map(|policy| only(policy, slots)).collect()
}

/// What has the mark of an uplink that is enforced, and finds no way by it, is refused: ahead of the rules by address, by
/// which what this machine sends would find another.
pub(super) fn refusals(family: Family, base: Base, slots: &BTreeSet<Slot>) -> impl Iterator<Item = Rule> {
    slots.iter().map(move |slot| Rule {
        family,
        pref: base.enforced(),
        selector: Selector::Mark(slot.mark()),
        table: TableId::NOWHERE,
        suppress_prefixlen: None,
    })
}

/// What people should know of the policies.
pub(super) fn notes(config: &Config, observed: &Observed, slots: &Slots) -> Vec<String> {
    let mut notes = Vec::new();
    if !config.policies.is_empty() {
        let told = |(rule, name): (&ForeignRule, _)| {
            format!("no policy moves what comes in by {name}: foreign rule \"{}\" leads it", rule.text)
        };
        notes.extend(ruled(observed).map(told));
    }
    for policy in &config.policies {
        if policy.traffic.is_behind() && config.router.enable == Enable::Off {
            notes.push(format!(
                "policy {} ({}) is without effect: [router] has enable = false",
                policy.name, policy.origin
            ));
        }
        let unknown = policy.uplinks.iter().filter(|name| slots.named(name).is_none());
        notes.extend(unknown.map(|name| unknown_uplink(policy, name, slots)));
        notes.extend(policy.notes.iter().map(|note| format!("policy {}: {note}", policy.name)));
    }
    notes
}

fn unknown_uplink(policy: &Policy, name: &UplinkName, slots: &Slots) -> String {
    let known: BTreeSet<_> = slots.entries().iter().map(|entry| entry.name.as_str()).collect();
    let known = Vec::from_iter(known).join(", ");
    format!(
        "policy {} ({}): no uplink is called {name}; there are {}",
        policy.name,
        policy.origin,
        if known.is_empty() { "none yet" } else { &known }
    )
}

#[cfg(test)]
impl PolicyPlan {
    /// One that does nothing, for tests.
    pub(crate) fn example(name: &str) -> Self {
        PolicyPlan {
            name: name.to_owned(),
            origin: "uplinkd.toml:1".to_owned(),
            for_all: false,
            way: Way::default(),
            on_failure: OnFailure::Default,
            in_time: true,
            domains: Vec::new(),
            waits_for: Vec::new(),
            waits: false,
            failback: None,
            verdict: PerFamily::default(),
            picks: PerFamily::default(),
        }
    }
}
