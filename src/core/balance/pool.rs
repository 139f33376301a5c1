//! Who asks for a choice: the default route, and each policy. A [`Pool`] is a method and those among whom it chooses; who
//! asks for the same is given the same, so a thousand policies may come to one choice.
//!
//! The default chooses among all, by tiers. Where a policy names its uplinks, it says itself who comes first, and tiers do not
//! count.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Method;
use super::choice::{Candidate, Choice, active, candidates, ready};
use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily, Tier, UplinkName};
use crate::core::uplink::{Rank, Uplink};

/// A method, and among whom it chooses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pool {
    /// How.
    pub method: Method,
    /// Among whom, in their order; none named: all.
    pub among: Vec<UplinkName>,
}

/// What came out for a family of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pick {
    /// Who carries what is new.
    pub active: Vec<Slot>,
    /// Who could as well: no better one is there, whomever the method has chosen.
    pub ready: Vec<Slot>,
}

impl Pool {
    /// That of the default route.
    pub fn of_all(method: Method) -> Self {
        Pool { method, among: Vec::new() }
    }

    /// Whether an uplink is among those that are meant.
    pub fn has(&self, name: &UplinkName) -> bool {
        self.among.is_empty() || self.among.contains(name)
    }

    /// Who of them can be given new flows, in order of priority.
    pub fn candidates(&self, uplinks: &[Uplink], family: Family) -> Vec<Candidate> {
        if self.among.is_empty() {
            return candidates(uplinks, family);
        }
        let named = self.among.iter().enumerate();
        let found = named.filter_map(|(place, name)| {
            let uplink = uplinks.iter().find(|uplink| uplink.name == *name)?;
            let preference = uplink.legs[family].preference()?;
            let rank = Rank { preference, spared: false, tier: self.tier_of(place) };
            Some(Candidate { slot: uplink.slot, rank })
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|candidate| candidate.rank.preference);
        found
    }

    /// The rank of a place in the list: where the order is asked for, each stands behind the one before it.
    fn tier_of(&self, place: usize) -> Tier {
        let rank = match self.method {
            Method::Priority | Method::Overflow => u8::try_from(place).unwrap_or(u8::MAX),
            Method::Weighted | Method::LeastUsed | Method::LowestLatency => 0,
        };
        Tier::new(rank.saturating_add(1)).unwrap_or(Tier::UNMETERED)
    }

    /// What comes out, given the last choice.
    pub fn pick(&self, uplinks: &[Uplink], family: Family, choice: &Choice) -> Pick {
        let candidates = self.candidates(uplinks, family);
        let ready = ready(&candidates).iter().map(|candidate| candidate.slot);
        let mut ready = Vec::from_iter(ready);
        ready.sort_unstable();
        Pick { active: active(self.method, &candidates, choice), ready }
    }
}

impl fmt::Display for Pool {
    /// What the log says of it, behind "new flows".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.among.is_empty() {
            let names: Vec<_> = self.among.iter().map(UplinkName::as_str).collect();
            write!(f, "of {} ", names.join(", "))?;
        }
        write!(f, "by {}", self.method.as_str())
    }
}

/// The choices of all pools, for a plan to go by; of one that is not there nothing was made yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choices(BTreeMap<Pool, PerFamily<Choice>>);

impl Choices {
    /// That of one pool.
    pub fn of(&self, pool: &Pool) -> PerFamily<Choice> {
        self.0.get(pool).cloned().unwrap_or_default()
    }
}

impl FromIterator<(Pool, PerFamily<Choice>)> for Choices {
    fn from_iter<I: IntoIterator<Item = (Pool, PerFamily<Choice>)>>(choices: I) -> Self {
        Choices(choices.into_iter().collect())
    }
}
