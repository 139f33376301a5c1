//! What a method makes of the usable uplinks at this moment, given the last choice.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Method;
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::uplink::{Rank, Uplink};

/// Somebody whom new flows of a family could take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub slot: Slot,
    /// How gladly it is used.
    pub rank: Rank,
}

/// What was made of the figures; by default nothing, and then the order of priority decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Choice {
    /// Who is to carry what is new, and who comes next where that one cannot.
    pub order: Vec<Slot>,
    /// Who has no room.
    pub full: BTreeSet<Slot>,
}

/// Who can be given new flows, in order of priority: by health, quota, tier, weight and the manager's metric.
pub fn candidates(uplinks: &[Uplink], family: Family) -> Vec<Candidate> {
    let usable = uplinks.iter().filter(|uplink| !uplink.legs[family].twin);
    let mut found: Vec<_> = usable.filter_map(|uplink| Some((uplink.rank(family)?, uplink))).collect();
    found.sort_by_key(|(rank, uplink)| {
        let metric = uplink.legs[family].metric;
        (*rank, Reverse(uplink.weight), metric.is_none(), metric, uplink.slot)
    });
    found.into_iter().map(|(rank, uplink)| Candidate { slot: uplink.slot, rank }).collect()
}

/// Those of the best tier among those that do best: whom no other would have to give way to.
pub fn ready(candidates: &[Candidate]) -> &[Candidate] {
    as_good(candidates, |first, other| first.rank == other.rank)
}

/// Those that do best, of all tiers.
pub(super) fn alive(candidates: &[Candidate]) -> &[Candidate] {
    as_good(candidates, |first, other| first.rank.preference == other.rank.preference)
}

/// The first in order of priority, and those behind it that are its like.
fn as_good(candidates: &[Candidate], alike: impl Fn(&Candidate, &Candidate) -> bool) -> &[Candidate] {
    let count = candidates.iter().take_while(|other| alike(&candidates[0], other)).count();
    &candidates[..count]
}

/// Who carries what is new, in order of slots: one, or several by their weights.
pub fn active(method: Method, candidates: &[Candidate], choice: &Choice) -> Vec<Slot> {
    let ready = ready(candidates);
    let chosen: &[Candidate] = match method {
        Method::Weighted => ready,
        Method::Priority => &ready[..ready.len().min(1)],
        Method::Overflow => with_room(alive(candidates), choice),
        Method::LeastUsed | Method::LowestLatency => leader(ready, choice),
    };
    let mut slots: Vec<Slot> = chosen.iter().map(|candidate| candidate.slot).collect();
    slots.sort_unstable();
    slots
}

/// The first that has room; all, where none has: each takes its share of what is too much.
fn with_room<'a>(alive: &'a [Candidate], choice: &Choice) -> &'a [Candidate] {
    let first = alive.iter().find(|candidate| !choice.full.contains(&candidate.slot));
    first.map_or(alive, std::slice::from_ref)
}

/// The first that was chosen; the first by priority where none of these was.
fn leader<'a>(ready: &'a [Candidate], choice: &Choice) -> &'a [Candidate] {
    let place = |candidate: &&Candidate| {
        choice.order.iter().position(|slot| *slot == candidate.slot).unwrap_or(usize::MAX)
    };
    ready.iter().min_by_key(place).map_or(&[], std::slice::from_ref)
}
