//! What has become of whom, and since when: told to the journal, the bus, and whoever asks later.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{info, warn};

use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::plan::Plan;
use crate::core::quota::Level;
use crate::core::uplink::State;
use crate::status::{Event, Status};

/// How many are remembered.
const MOST: usize = 1000;

/// The recent past.
#[derive(Debug, Default)]
pub(super) struct Events {
    past: VecDeque<Event>,
    states: BTreeMap<(Slot, Family), Known>,
    /// How the quotas stand, also of those that are away.
    levels: BTreeMap<Slot, Level>,
}

/// How a family of an uplink stands.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    state: State,
    since: String,
}

impl Events {
    /// Takes in what a round decided; returns what has changed by it.
    pub(super) fn follow(&mut self, plan: &Plan) -> Vec<Event> {
        let time = stamp(SystemTime::now());
        let mut fresh = Vec::new();
        let mut states = BTreeMap::new();
        for uplink in &plan.uplinks {
            for family in Family::BOTH {
                let leg = &uplink.legs[family];
                let name = uplink.name.to_string();
                let before = self.states.remove(&(uplink.slot, family));
                let from = before.as_ref().map_or(State::Absent, |known| known.state);
                let since = before.filter(|known| known.state == leg.state).map(|known| known.since);
                if from != leg.state {
                    fresh.push(event(&time, &name, family, (from, leg.state), &leg.why));
                }
                let since = since.unwrap_or_else(|| time.clone());
                states.insert((uplink.slot, family), Known { name, state: leg.state, since });
            }
        }
        for ((_, family), known) in std::mem::replace(&mut self.states, states) {
            if known.state != State::Absent {
                fresh.push(event(
                    &time,
                    &known.name,
                    family,
                    (known.state, State::Absent),
                    "the link is gone",
                ));
            }
        }
        fresh.extend(self.follow_quotas(plan, &time));
        self.past.extend(fresh.iter().cloned());
        self.past.drain(..self.past.len().saturating_sub(MOST));
        fresh
    }

    /// Whose quota stands otherwise than it did. What a start finds is no news: somebody told it before.
    fn follow_quotas(&mut self, plan: &Plan, time: &str) -> Vec<Event> {
        let mut fresh = Vec::new();
        self.levels.retain(|slot, _| plan.slots.entries().iter().any(|entry| entry.slot == *slot));
        for uplink in &plan.uplinks {
            let Some(allowance) = &uplink.allowance else {
                self.levels.remove(&uplink.slot);
                continue;
            };
            let level = allowance.level;
            if let Some(before) = self.levels.insert(uplink.slot, level).filter(|before| *before != level) {
                fresh.push(Event {
                    time: time.to_owned(),
                    uplink: uplink.name.to_string(),
                    family: "quota".to_owned(),
                    from: before.as_str().to_owned(),
                    to: level.as_str().to_owned(),
                    why: allowance.to_string(),
                });
            }
        }
        fresh
    }

    /// Adds to a status since when each is as it is.
    pub(super) fn date(&self, status: &mut Status) {
        for uplink in &mut status.uplinks {
            let Some(slot) = Slot::new(uplink.slot) else { continue };
            for (family, leg) in uplink.legs_mut() {
                leg.since = self.states.get(&(slot, family)).map(|known| known.since.clone());
            }
        }
    }

    /// All that is remembered, as a JSON array, the oldest first.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.past).unwrap_or_else(|_| "[]".to_owned())
    }
}

impl Event {
    /// Writes it to the log, with its parts as fields.
    pub(super) fn log(&self) {
        let Event { uplink, family, from, to, why, .. } = self;
        if matches!(to.as_str(), "down" | "portal" | "degraded" | "capped" | "soft" | "hard") {
            warn!(uplink, family, from, to, evidence = why, "{self}");
        } else {
            info!(uplink, family, from, to, evidence = why, "{self}");
        }
    }
}

fn event(time: &str, uplink: &str, family: Family, (from, to): (State, State), why: &str) -> Event {
    Event {
        time: time.to_owned(),
        uplink: uplink.to_owned(),
        family: family.to_string(),
        from: from.to_string(),
        to: to.to_string(),
        why: why.to_owned(),
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn stamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let short = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    short.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::quota::{Allowance, Amount, Day, Quota, Usage};
    use crate::core::uplink::{Leg, Uplink};

    /// A machine with one uplink, which has used so many percent of a quota where it has one.
    fn plan(used: Option<u64>) -> Plan {
        let entry = serde_json::json!({
            "slot": 1, "identity": { "name": "lte" }, "name": "lte", "interface": "eth1", "seen": 1
        });
        let slots = serde_json::from_value(serde_json::json!({ "entries": [entry] })).unwrap();
        let quota = Quota { limit: Amount(100), day: Day::FIRST, soft: 80 };
        let usage = |used| Usage { used: Amount(used), renewed: None };
        let allowance = used.map(|used| Allowance::of(quota, Some(&usage(used))));
        let uplink = Uplink { allowance, ..Uplink::example(1, Leg::default()) };
        Plan { uplinks: vec![uplink], slots, ..Plan::default() }
    }

    #[test]
    fn limits_are_told_when_they_are_reached_and_not_when_a_start_finds_them() {
        let mut events = Events::default();
        let mut told = |plan: &Plan| {
            let fresh = events.follow(plan);
            fresh
                .iter()
                .map(|event| format!("{} {} {}", event.family, event.from, event.to))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&plan(Some(85))), [""; 0], "a start");
        assert_eq!(told(&plan(Some(99))), [""; 0]);
        assert_eq!(told(&plan(Some(100))), ["quota soft hard"]);
        let away = Plan { uplinks: Vec::new(), ..plan(None) };
        assert_eq!(told(&away), [""; 0]);
        assert_eq!(told(&plan(Some(0))), ["quota hard within"], "renewed while it was away");
        assert_eq!(told(&plan(Some(100))), ["quota within hard"]);
        assert_eq!(told(&plan(None)), [""; 0]);
        assert_eq!(told(&plan(Some(0))), [""; 0], "it had none in between");
    }
}
