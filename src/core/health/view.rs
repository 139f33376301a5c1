//! What planning is told of health: the verdicts, and what the administrator decided over them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Opinion, Standing};
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::plan::Customer;
use crate::core::uplink::State;

/// What is known of the uplinks' health; by default nothing, and then a link is as good as its carrier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Uplinks are probed: one of which nothing is known has yet to prove itself.
    pub probing: bool,
    /// The verdicts.
    pub opinions: BTreeMap<(Slot, Family), Opinion>,
    /// What was decided by hand.
    pub manual: BTreeMap<Slot, Manual>,
    /// Whose running flows on which uplinks should move to another, where there is one.
    pub leaving: BTreeSet<(Customer, Slot, Family)>,
    /// Addresses that uplinks had and will not have again: what runs over them should end.
    pub vacated: BTreeSet<IpAddr>,
}

/// A decision by hand, until it is undone or the machine is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manual {
    /// Used whatever the probes say, as long as its link is there.
    Up,
    /// Not used.
    Down,
}

impl Manual {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Manual::Up => "up",
            Manual::Down => "down",
        }
    }
}

impl Health {
    /// How a family of an uplink stands whose link would carry it, and why. `carried` says that it is in use already,
    /// by what is in the kernel: that is what a daemon that was started anew goes by.
    pub fn judge(&self, slot: Slot, family: Family, drained: bool, carried: bool) -> (State, String) {
        let (state, why) = match (self.manual.get(&slot), self.opinions.get(&(slot, family))) {
            (Some(Manual::Down), _) => (State::Down, "taken down by hand"),
            (Some(Manual::Up), _) => (State::Up, "held up by hand"),
            (None, Some(opinion)) => (state_of(opinion.standing), opinion.why.as_str()),
            (None, None) if self.probing && !carried => {
                (State::Configuring, "its first probes are on their way")
            }
            (None, None) => (State::Up, "the link is there"),
        };
        match state {
            State::Down | State::Portal => (state, why.to_owned()),
            _ if drained => (State::Drained, "drained by hand".to_owned()),
            _ => (state, why.to_owned()),
        }
    }

    /// Whether anything ever answered on it.
    pub fn has_answered(&self, slot: Slot, family: Family) -> bool {
        self.opinions.get(&(slot, family)).is_none_or(|opinion| opinion.proven)
    }
}

fn state_of(standing: Standing) -> State {
    match standing {
        Standing::Unproven => State::Configuring,
        Standing::Up => State::Up,
        Standing::Degraded => State::Degraded,
        Standing::Portal => State::Portal,
        Standing::Down => State::Down,
        Standing::Held => State::Held,
    }
}
