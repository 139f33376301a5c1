//! Everything that is not ours: what the kernel and the managers hold, what the administrator wants, what the
//! daemon remembers.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use uplinkd::config::Config;
use uplinkd::core::balance::{Choice, Choices, Pool};
use uplinkd::core::health::Health;
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{Family, IfIndex, IfName, PerFamily, TableId};
use uplinkd::core::observed::{Address, Link, LinkFacts, Neighbour, Offer};
use uplinkd::core::policy::Cgroup;
use uplinkd::core::quota::Usage;
use uplinkd::core::slots::Slots;
use uplinkd::core::sysctl::Sysctl;
use uplinkd::core::tending::Tending;

use super::fib::{FibRoute, FibRule};

/// A world without uplinkd.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) slots: Slots,
    pub(crate) health: Health,
    /// What was made of the figures, whoever asks.
    pub(crate) choices: PerFamily<Choice>,
    pub(crate) usages: BTreeMap<Slot, Usage>,
    /// Which slots are taken out by hand; none where the memory tells.
    pub(crate) drained: Option<BTreeSet<Slot>>,
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) routes: Vec<FibRoute>,
    pub(crate) rules: Vec<FibRule>,
    pub(crate) forwards: PerFamily<bool>,
    /// The time in the local zone; none for the first second of a Monday.
    pub(crate) time: Option<OffsetDateTime>,
    /// Settings that differ from 0.
    pub(crate) sysctls: BTreeMap<Sysctl, String>,
    pub(crate) managed: Vec<LinkFacts>,
    /// Which links systemd-resolved knows, and whether it asks them.
    pub(crate) asked: BTreeMap<IfIndex, bool>,
    pub(crate) offers: Vec<Offer>,
    pub(crate) networkd: Option<Tending>,
    /// The control groups that there are.
    pub(crate) cgroups: Vec<Cgroup>,
    pub(crate) unheard: Vec<String>,
}

impl World {
    /// The choice of everybody who asks for one.
    pub(crate) fn chosen(&self) -> Choices {
        let pools = self.config.policies.iter().map(|policy| policy.pool());
        let pools = pools.chain([Pool::of_all(self.config.balance.method())]);
        pools.map(|pool| (pool, self.choices.clone())).collect()
    }

    pub(crate) fn index(&self, name: &str) -> Option<IfIndex> {
        self.links.iter().find(|link| link.name.as_str() == name).map(|link| link.index)
    }

    pub(crate) fn name(&self, index: IfIndex) -> Option<IfName> {
        self.links.iter().find(|link| link.index == index).map(|link| link.name.clone())
    }

    /// The rules with which every kernel starts.
    pub(crate) fn usual_rules() -> impl Iterator<Item = FibRule> {
        let tables = [(0, TableId::LOCAL), (32766, TableId::MAIN), (32767, TableId(253))];
        let of = move |family| tables.map(|(pref, table)| FibRule::all(family, pref, table));
        Family::BOTH.into_iter().flat_map(of)
    }
}
