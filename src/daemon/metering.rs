//! Keeps a meter for each link and a choice for each family: gives them counters, figures and the time.
//!
//! Decides when to look, and when what was learned is worth to be written down; what follows from a figure is decided
//! in [`crate::core::balance`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::info;

use crate::core::balance::{
    Choice, Chooser, Directions, Figures, Kept, Meter, Method, Rate, active, candidates,
};
use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily};
use crate::core::plan::Plan;
use crate::core::slots::Identity;
use crate::kernel::counters::Links;
use crate::status::{Status, TrafficStatus};

/// How often the counters are looked at, where there are several uplinks.
const SAMPLING: Duration = Duration::from_secs(1);
/// What was learned is written down this often at most.
const SAVING: Duration = Duration::from_secs(600);

/// The highest rates that lasted, of all uplinks that are remembered.
pub(super) type Learned = BTreeMap<Identity, Directions<Rate>>;

/// The median round-trip times.
pub(super) type Latencies = BTreeMap<(Slot, Family), Duration>;

/// All that is measured.
pub(super) struct Metering {
    meters: BTreeMap<Slot, (Identity, Meter)>,
    learned: Learned,
    choosers: PerFamily<Chooser>,
    /// When the counters are to be looked at; none while there is nothing to choose.
    due: Option<Instant>,
    saved: Learned,
    saved_at: Instant,
    kept: PerFamily<Kept>,
}

impl Metering {
    /// Begins with what was learned, and chosen, before.
    pub(super) fn new(learned: Learned, kept: PerFamily<Kept>) -> Self {
        Metering {
            meters: BTreeMap::new(),
            saved: learned.clone(),
            learned,
            choosers: PerFamily::from_fn(|family| kept[family].clone().into()),
            due: None,
            saved_at: Instant::now(),
            kept,
        }
    }

    /// What a plan should go by.
    pub(super) fn choices(&self) -> PerFamily<Choice> {
        PerFamily::from_fn(|family| self.choosers[family].choice().clone())
    }

    /// Takes in what a round found.
    pub(super) fn follow(&mut self, plan: &Plan) {
        let entries = plan.slots.entries();
        self.learned.retain(|identity, _| entries.iter().any(|entry| entry.identity == *identity));
        let mut former = std::mem::take(&mut self.meters);
        for entry in entries.iter().filter(|entry| plan.name_of(entry.slot).is_some()) {
            // Who gets a slot that is free again begins without what was learned of another.
            let known = former.remove(&entry.slot).filter(|(identity, _)| *identity == entry.identity);
            let anew = || {
                let learned = self.learned.get(&entry.identity).copied().unwrap_or_default();
                (entry.identity.clone(), Meter::new(learned))
            };
            self.meters.insert(entry.slot, known.unwrap_or_else(anew));
        }
        self.due = plan.slots.multihomed().then(|| self.due.unwrap_or_else(Instant::now));
    }

    /// Measures nothing any more, until the next round.
    pub(super) fn rest(&mut self) {
        (self.meters, self.choosers, self.due) = (BTreeMap::new(), PerFamily::default(), None);
    }

    /// Waits until the counters are to be looked at. May be dropped while it waits.
    pub(super) async fn due(&self) {
        super::probing::sleep_until(self.due).await;
    }

    /// Looks at the counters; true where a plan would come out otherwise than the last one.
    pub(super) fn sample(&mut self, plan: &Plan, method: Method, latencies: &Latencies) -> bool {
        let now = Instant::now();
        self.due = Some(now + SAMPLING);
        let links = Links::read();
        for uplink in &plan.uplinks {
            if let Some((identity, meter)) = self.meters.get_mut(&uplink.slot) {
                meter.sample(links.bytes(&uplink.dev.name), now);
                let learned = meter.learned();
                if learned != Directions::default() {
                    self.learned.insert(identity.clone(), learned);
                }
            }
        }
        self.choose(plan, method, latencies, now);
        let mut news = false;
        for family in Family::BOTH {
            let chosen = self.choosers[family].choice();
            let chosen = active(method, &candidates(&plan.uplinks, family), chosen);
            if chosen != plan.active[family] {
                let names = chosen.iter().filter_map(|slot| plan.name_of(*slot)).map(ToString::to_string);
                info!(
                    "{family}: new flows go over {} by {}",
                    Vec::from_iter(names).join(", "),
                    method.as_str()
                );
                news = true;
            }
        }
        news
    }

    fn choose(&mut self, plan: &Plan, method: Method, latencies: &Latencies, now: Instant) {
        for family in Family::BOTH {
            let figures = plan.uplinks.iter().filter_map(|uplink| {
                let (_, meter) = self.meters.get(&uplink.slot)?;
                let latency = latencies.get(&(uplink.slot, family)).copied();
                let capacity = meter.capacity(uplink.capacity);
                Some((uplink.slot, Figures { rate: meter.rate(), capacity, latency }))
            });
            let figures = figures.collect();
            self.choosers[family].look(method, &candidates(&plan.uplinks, family), &figures, now);
        }
    }

    /// What was learned, where it is worth to be written down: now and then, or when we stop.
    pub(super) fn unsaved(&mut self, stopping: bool) -> Option<Learned> {
        let now = Instant::now();
        let due = stopping || now.saturating_duration_since(self.saved_at) >= SAVING;
        if !due || self.learned == self.saved {
            return None;
        }
        (self.saved, self.saved_at) = (self.learned.clone(), now);
        Some(self.saved.clone())
    }

    /// What is chosen, where that is not what was last written down.
    pub(super) fn unsaved_choices(&mut self) -> Option<PerFamily<Kept>> {
        let kept = PerFamily::from_fn(|family| self.choosers[family].kept());
        (kept != self.kept).then(|| {
            self.kept = kept.clone();
            kept
        })
    }

    /// Adds to a status what goes over each link, and what it can carry.
    pub(super) fn describe(&self, plan: &Plan, method: Method, status: &mut Status) {
        method.as_str().clone_into(&mut status.method);
        for told in &mut status.uplinks {
            let uplink = plan.uplinks.iter().find(|uplink| uplink.slot.get() == told.slot);
            let measured = uplink.and_then(|u| Some((u, self.meters.get(&u.slot)?)));
            told.traffic = measured
                .map(|(uplink, (_, meter))| TrafficStatus::of(meter.rate(), meter.capacity(uplink.capacity)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::UplinkName;
    use crate::core::slots::Slots;
    use crate::core::uplink::{Leg, Uplink};

    const RATES: Directions<Rate> = Directions { down: Rate(40_000_000), up: Rate(8_000_000) };

    fn named(name: &str) -> Identity {
        Identity::Name(UplinkName::new(name).unwrap())
    }

    fn metering(learned: &[(Identity, Directions<Rate>)]) -> Metering {
        Metering::new(learned.iter().cloned().collect(), PerFamily::default())
    }

    /// A machine with one uplink in slot 1, known as this.
    fn plan_of(name: &str) -> Plan {
        let entry = serde_json::json!({
            "slot": 1, "identity": named(name), "name": name, "interface": "eth1", "seen": 1
        });
        let slots: Slots = serde_json::from_value(serde_json::json!({ "entries": [entry] })).unwrap();
        let mut uplink = Uplink::example(1, Leg::default());
        uplink.name = UplinkName::new(name).unwrap();
        Plan { uplinks: vec![uplink], slots, ..Plan::default() }
    }

    #[test]
    fn what_was_learned_belongs_to_the_uplink_and_not_to_its_slot() {
        let mut metering = metering(&[(named("fibre"), RATES)]);
        let mut learned = |name: &str| {
            metering.follow(&plan_of(name));
            metering.meters.values().map(|(_, meter)| meter.learned()).collect::<Vec<_>>()
        };
        assert_eq!(learned("fibre"), [RATES]);
        assert_eq!(learned("cable"), [Directions::default()], "another in its slot");
        assert_eq!(learned("fibre"), [Directions::default()], "it was forgotten");
    }

    #[test]
    fn what_is_new_is_written_down_when_we_stop_and_seldom_before() {
        let mut metering = metering(&[(named("fibre"), RATES)]);
        assert_eq!(metering.unsaved(true), None, "nothing is new");
        metering.learned.insert(named("cable"), RATES);
        assert_eq!(metering.unsaved(false), None, "it was read a moment ago");
        assert_eq!(metering.unsaved(true).map(|learned| learned.len()), Some(2));
        assert_eq!(metering.unsaved(true), None);
    }

    #[test]
    fn what_is_chosen_is_written_down_when_it_is_another() {
        let mut metering = metering(&[]);
        assert_eq!(metering.unsaved_choices(), None, "nothing was chosen yet");
        metering.sample(&plan_of("fibre"), Method::Overflow, &Latencies::new());
        let kept = metering.unsaved_choices().expect("it is another method");
        assert_eq!(metering.unsaved_choices(), None);
        let mut later = Metering::new(Learned::new(), kept.clone());
        assert_eq!((later.unsaved_choices(), &later.kept), (None, &kept), "a restart changes nothing");
    }

    #[test]
    fn one_uplink_alone_is_not_measured() {
        let mut metering = metering(&[]);
        metering.follow(&plan_of("fibre"));
        assert_eq!(metering.due, None);
    }
}
